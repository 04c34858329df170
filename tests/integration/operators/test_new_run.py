"""New runs that DataZone does not return yet, in every task that reads or cancels a run."""

from __future__ import annotations

from contextlib import suppress
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
from tests.task_context import make_context

if TYPE_CHECKING:
    from tests.conftest import Catalog

TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "get": (DataZoneGetMetadataGenerationRunOperator, {}),
    "cancel": (DataZoneCancelMetadataGenerationRunOperator, {}),
    "poke": (DataZoneMetadataGenerationRunSensor, {}),
    "reschedule": (DataZoneMetadataGenerationRunSensor, {"mode": "reschedule"}),
    "deferrable": (DataZoneMetadataGenerationRunSensor, {"deferrable": True}),
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hook_module, "time", clock)
    return clock


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    with suppress(ImportError):
        from airflow.sensors import base

        # Airflow 2.11 reads the first start date from its database, which does not contain this task instance.
        monkeypatch.setattr(base, "_orig_start_date", lambda **_: None, raising=False)
    return make_context()


def execute(catalog: Catalog, name: str, context: dict[str, Any], run: str, **arguments: Any) -> None:
    task_class, defaults = TASKS[name]
    task_class(
        task_id="task",
        run_identifier=run,
        domain_identifier=catalog.domain_identifier,
        aws_conn_id="datazone_default",
        **defaults | arguments,
    ).execute(context)


@pytest.mark.parametrize("name", TASKS)
def test_task_polls_again_until_a_new_run_is_found(
    catalog: Catalog, clock: Clock, context: dict[str, Any], name: str
):
    run = catalog.start_run(polls=3600 if name == "cancel" else 0)
    catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=3)
    execute(catalog, name, context, run)
    assert clock.naps == [1, 1, 1]
    assert context["ti"].xcoms["run"]["status"] == ("CANCELED" if name == "cancel" else "SUCCEEDED")


@pytest.mark.parametrize("name", TASKS)
def test_task_fails_without_retries_if_the_run_is_never_found(
    catalog: Catalog, clock: Clock, context: dict[str, Any], name: str
):
    with pytest.raises(RequestRefusedError, match="Requested prediction cannot be found in domain"):
        execute(catalog, name, context, "unknownrun")
    assert sum(clock.naps) == 30


@pytest.mark.parametrize("name", ["poke", "reschedule", "deferrable"])
def test_sensor_stops_polling_for_an_unknown_run_at_its_timeout(
    catalog: Catalog, clock: Clock, context: dict[str, Any], name: str
):
    with pytest.raises(RequestRefusedError, match="Requested prediction cannot be found in domain"):
        execute(catalog, name, context, "unknownrun", timeout=5)
    assert sum(clock.naps) == 5


def test_sensor_defers_once_the_run_is_found(catalog: Catalog, clock: Clock, context: dict[str, Any]):
    run = catalog.start_run(in_progress_seconds=3600)
    catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=2)
    with pytest.raises(TaskDeferred):
        execute(catalog, "deferrable", context, run)
    assert clock.naps == [1, 1]
