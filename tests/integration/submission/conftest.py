"""Fixtures for a task with and without a task state store, and for a clock that only sleeps advance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_datazone import submission as submission_module
from tests.conftest import Clock
from tests.integration.submission.tries import Task

if TYPE_CHECKING:
    from tests.conftest import Catalog


@pytest.fixture(params=[True, False], ids=["3.3 and later", "before 3.3"])
def has_state_store(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def task(catalog: Catalog, has_state_store: bool) -> Task:
    return Task(catalog, has_state_store=has_state_store)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(submission_module, "time", clock)
    return clock
