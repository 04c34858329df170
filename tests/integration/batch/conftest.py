"""Assets of a local DataZone, and what Airflow gives a task."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_datazone.operators.datazone import DataZoneBatchMetadataGenerationOperator
from tests.integration.batch.tasks import Assets
from tests.integration.submission.tries import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Catalog


@pytest.fixture
def assets(catalog: Catalog) -> Iterator[Assets]:
    where = {
        "domain_identifier": catalog.domain_identifier,
        "project_identifier": catalog.project_identifier,
    }
    yield Assets(catalog, [catalog.server.create_asset(**where).asset_identifier for _ in range(6)])
    # What was sent when a batch was killed arrives all the same, and is not to arrive in the next test.
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
    """Stand for the log of a task, and of its trigger: the logger, and what was logged from INFO on."""
    logged: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tests.batch.progress")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    monkeypatch.setattr(DataZoneBatchMetadataGenerationOperator, "log", logger)
    yield logger, logged
    logger.removeHandler(handler)
