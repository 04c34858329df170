"""A task with and without a task state store, and a clock that only the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_datazone import submission as submission_module
from tests.conftest import Clock
from tests.integration.submission.tries import Task

if TYPE_CHECKING:
    from tests.conftest import Catalog


@pytest.fixture(params=[True, False], ids=["3.3 and later", "before 3.3"])
def remembers(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def task(catalog: Catalog, remembers: bool) -> Task:
    return Task(catalog, remembers=remembers)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(submission_module, "time", clock)
    return clock
