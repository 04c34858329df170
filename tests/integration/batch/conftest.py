"""Fixtures: assets on a local DataZone server, and the parts of Airflow that a task uses."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_datazone.operators.datazone import DataZoneBatchMetadataGenerationOperator
from tests.integration.batch.tasks import Assets
from tests.task_context import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Catalog


@pytest.fixture
def assets(catalog: Catalog) -> Iterator[Assets]:
    location = {
        "domain_identifier": catalog.domain_identifier,
        "project_identifier": catalog.project_identifier,
    }
    yield Assets(catalog, [catalog.server.create_asset(**location).asset_identifier for _ in range(6)])
    # Requests of a killed batch still arrive. Wait for the poller threads, so that they do not arrive during the
    # next test.
    end = time.monotonic() + 30
    while any(t.name.startswith("datazone-poller") for t in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.01)


@pytest.fixture(params=[False, True], ids=["worker", "triggerer"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[True, False], ids=["3.3 and later", "before 3.3"])
def store(request: pytest.FixtureRequest) -> Store | None:
    return Store() if request.param else None


@pytest.fixture
def task_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[logging.Logger, list[str]]]:
    """Return a logger for a task and its trigger, and the list of messages it logs at INFO and above."""
    logged: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tests.batch.progress")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    monkeypatch.setattr(DataZoneBatchMetadataGenerationOperator, "log", logger)
    yield logger, logged
    logger.removeHandler(handler)
