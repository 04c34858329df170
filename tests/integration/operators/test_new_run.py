"""A run that was started a moment ago, which DataZone may not know yet, in every task that reads or cancels one."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_datazone.exceptions import RequestRefusedError
from airflow_provider_datazone.hooks import datazone as hook_module
from airflow_provider_datazone.operators.datazone import (
    DataZoneCancelMetadataGenerationRunOperator,
    DataZoneGetMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from tests.conftest import Clock

if TYPE_CHECKING:
    from tests.conftest import Catalog

TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "get": (DataZoneGetMetadataGenerationRunOperator, {}),
    "cancel": (DataZoneCancelMetadataGenerationRunOperator, {}),
    "poke": (DataZoneMetadataGenerationRunSensor, {}),
    "reschedule": (DataZoneMetadataGenerationRunSensor, {"mode": "reschedule"}),
    "deferrable": (DataZoneMetadataGenerationRunSensor, {"deferrable": True}),
}


class TaskInstance:
    """Stands for Airflow's, which runs in other tests; here only the requests matter."""

    dag_id, run_id, task_id, map_index, try_number, max_tries = "dag", "run", "task", -1, 1, 0

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def get_first_reschedule_date(self, context: Any) -> None:
        """There was no reschedule before."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hook_module, "time", clock)
    return clock


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    with suppress(ImportError):
        from airflow.sensors import base

        # Airflow 2.11 looks in its database for the first try, which the task instance above is not in.
        monkeypatch.setattr(base, "_orig_start_date", lambda **_: None, raising=False)
    return {
        "ti": TaskInstance(),
        "dag_run": SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)),
    }


def execute(catalog: Catalog, name: str, context: dict[str, Any], run: str, **arguments: Any) -> None:
    task_class, known = TASKS[name]
    task_class(
        task_id="task",
        run_identifier=run,
        domain_identifier=catalog.domain_identifier,
        aws_conn_id="datazone_default",
        **known | arguments,
    ).execute(context)


@pytest.mark.parametrize("name", TASKS)
def test_task_gives_a_new_run_time_to_become_known(
    catalog: Catalog, clock: Clock, context: dict[str, Any], name: str
):
    run = catalog.start_run(polls=3600 if name == "cancel" else 0)
    catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=3)
    execute(catalog, name, context, run)
    assert clock.naps == [1, 1, 1]
    assert context["ti"].xcoms["run"]["status"] == ("CANCELED" if name == "cancel" else "SUCCEEDED")


@pytest.mark.parametrize("name", TASKS)
def test_task_fails_for_good_when_the_run_stays_unknown(
    catalog: Catalog, clock: Clock, context: dict[str, Any], name: str
):
    with pytest.raises(RequestRefusedError, match="Requested prediction cannot be found in domain"):
        execute(catalog, name, context, "unknownrun")
    assert sum(clock.naps) == 30


@pytest.mark.parametrize("name", ["poke", "reschedule", "deferrable"])
def test_sensor_waits_no_longer_for_an_unknown_run_than_its_time_out(
    catalog: Catalog, clock: Clock, context: dict[str, Any], name: str
):
    with pytest.raises(RequestRefusedError, match="Requested prediction cannot be found in domain"):
        execute(catalog, name, context, "unknownrun", timeout=5)
    assert sum(clock.naps) == 5


def test_run_that_became_known_is_waited_for(catalog: Catalog, clock: Clock, context: dict[str, Any]):
    run = catalog.start_run(in_progress_seconds=3600)
    catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=2)
    with pytest.raises(TaskDeferred):
        execute(catalog, "deferrable", context, run)
    assert clock.naps == [1, 1]
