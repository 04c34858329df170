"""The deferrable sensor: the arguments of its trigger, and how it resumes."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_datazone.exceptions import RequestRefusedError, WaitFailedError
from airflow_provider_datazone.links.datazone import DataZoneDomainLink
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from tests.task_context import make_context, make_resumed_context
from tests.wrong import make_run

if TYPE_CHECKING:
    from tests.conftest import Catalog


pytestmark = pytest.mark.usefixtures("unhurried")
SENSOR_ARGUMENTS = {
    "task_id": "wait",
    "run_identifier": "run1",
    "domain_identifier": "dzd_1",
    "deferrable": True,
}


@pytest.mark.parametrize(
    "aws",
    [
        {},
        {"aws_conn_id": None},
        {
            "aws_conn_id": "mine",
            "region_name": "eu-west-1",
            "verify": "/ca.pem",
            "botocore_config": {"read_timeout": 7},
        },
        {"verify": False},
    ],
)
def test_aws_parameters_of_the_task_are_passed_to_the_trigger(aws: dict[str, Any]):
    task = DataZoneMetadataGenerationRunSensor(**SENSOR_ARGUMENTS, **aws)
    trigger = DataZoneMetadataGenerationRunTrigger.for_task(
        task, run_identifier="run1", domain_identifier="dzd_1"
    )
    path, arguments = trigger.serialize()
    restored = DataZoneMetadataGenerationRunTrigger(**json.loads(json.dumps(arguments)))
    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    names = {"config": "botocore_config"}
    for name, value in task._hook_parameters.items():
        assert getattr(restored, names.get(name, name)) == value


def sensor(catalog: Catalog, run: str, **arguments: Any) -> DataZoneMetadataGenerationRunSensor:
    defaults = {"run_identifier": run, "domain_identifier": catalog.domain_identifier}
    return DataZoneMetadataGenerationRunSensor(
        **SENSOR_ARGUMENTS | {"aws_conn_id": "datazone_default"} | defaults | arguments
    )


def defer(**arguments: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferred:
        DataZoneMetadataGenerationRunSensor(
            **SENSOR_ARGUMENTS | {"aws_conn_id": "datazone_default"} | arguments
        ).execute(make_resumed_context())
    return deferred.value


def test_sensor_passes_its_timeout_to_the_trigger(catalog: Catalog):
    began = time.time()
    deferred = defer(
        run_identifier=catalog.start_run(),
        domain_identifier=catalog.domain_identifier,
        timeout=600,
        poke_interval=5,
    )
    assert began + 600 <= deferred.trigger.deadline <= time.time() + 600
    assert deferred.trigger.poll_interval == 5
    # The trigger reports its deadline first. Airflow's own timeout follows soon after, in case no triggerer runs.
    assert 600 < deferred.timeout.total_seconds() < 900


def test_domain_is_resolved_before_deferring(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    connection = json.loads(catalog.server.connection)
    connection["extra"]["domain_identifier"] = catalog.domain_identifier
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    context = make_context()
    with pytest.raises(TaskDeferred) as deferred:
        sensor(catalog, catalog.start_run(), domain_identifier=None).execute(context)
    assert deferred.value.trigger.domain_identifier == catalog.domain_identifier
    assert context["ti"].xcoms[DataZoneDomainLink.key]["domain_identifier"] == catalog.domain_identifier


def test_sensor_does_not_defer_if_the_run_has_ended(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    context = make_context()
    task = sensor(catalog, catalog.start_run(polls=0))
    assert task.execute(context) == context["ti"].xcoms["type_stats"]


@pytest.mark.parametrize("soft_fail", [False, True])
@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"status": "error", "message": "not so (run1)", "permanent": True}, RequestRefusedError),
        ({"status": "error", "message": "not so (run1)", "permanent": False}, WaitFailedError),
        ({"status": "terminal", "run": make_run("run1", "IN_PROGRESS")}, WaitFailedError),
        (None, WaitFailedError),
    ],
)
def test_trigger_error_is_not_skipped_under_soft_fail(
    event: dict[str, Any] | None, error: type[Exception], soft_fail: bool
):
    task = DataZoneMetadataGenerationRunSensor(**SENSOR_ARGUMENTS, soft_fail=soft_fail)
    with pytest.raises(error, match="run1" if event else "without an event"):
        task.resume_execution("execute_complete", {"event": event}, make_resumed_context())


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("execute_complete", {"event": {"status": "error", "message": "not so", "permanent": True}}),
        ("execute_complete", {"event": {"status": "error", "message": "not so", "permanent": False}}),
        ("execute_complete", {"event": None}),
        ("__fail__", {"error": "Trigger failure"}),
    ],
)
def test_trigger_error_is_skipped_under_never_fail(method: str, arguments: dict[str, Any]):
    task = DataZoneMetadataGenerationRunSensor(**SENSOR_ARGUMENTS, never_fail=True)
    with pytest.raises(AirflowSkipException, match=r"not so|without an event|Trigger failure"):
        task.resume_execution(method, arguments, make_resumed_context())


@pytest.mark.parametrize("soft_fail", [False, True])
def test_crash_of_the_trigger_is_not_skipped_under_soft_fail(soft_fail: bool):
    task = DataZoneMetadataGenerationRunSensor(**SENSOR_ARGUMENTS, soft_fail=soft_fail)
    with pytest.raises(WaitFailedError, match=r"run1.*Trigger failure"):
        task.resume_execution("__fail__", {"error": "Trigger failure"}, make_resumed_context())


@pytest.mark.parametrize("policy", ["soft_fail", "never_fail"])
def test_execution_timeout_while_deferred_is_skipped_under_both_policies(catalog: Catalog, policy: str):
    timeouts = {"execution_timeout": timedelta(seconds=5)}
    task = sensor(catalog, catalog.start_run(in_progress_seconds=3600), **timeouts, **{policy: True})
    with pytest.raises(AirflowSkipException, match="late"):
        task.resume_execution(
            "execute_complete", {"event": {"status": "timeout", "message": "late"}}, make_resumed_context()
        )


@pytest.mark.parametrize("policy", ["soft_fail", "never_fail"])
def test_kill_without_a_timeout_is_not_skipped(catalog: Catalog, policy: str):
    sensor(catalog, "run1", **{policy: True}).on_kill()


def test_execution_timeout_limits_the_trigger_deadline(catalog: Catalog):
    deferred = defer(
        run_identifier=catalog.start_run(),
        domain_identifier=catalog.domain_identifier,
        execution_timeout=timedelta(seconds=5),
    )
    assert deferred.trigger.deadline <= time.time() + 5
    task = sensor(catalog, catalog.start_run(), execution_timeout=timedelta(seconds=5))
    with pytest.raises(AirflowTaskTimeout, match="late"):
        task.resume_execution(
            "execute_complete", {"event": {"status": "timeout", "message": "late"}}, make_resumed_context()
        )


# The message differs between Airflow 2 and 3.
TRIGGER_TIMEOUT = "Trigger timeout" if AIRFLOW_V_3_0_PLUS else "Trigger/execution timeout"
TIMEOUTS = [
    ("execute_complete", {"event": {"status": "timeout", "message": "run has not ended in time"}}),
    ("__fail__", {"error": TRIGGER_TIMEOUT}),
]


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        ({}, AirflowSensorTimeout),
        ({"soft_fail": True}, AirflowSkipException),
        # As in the other modes, `never_fail` applies only to exceptions that a poke raises.
        ({"never_fail": True}, AirflowSensorTimeout),
    ],
)
@pytest.mark.parametrize(("method", "arguments"), TIMEOUTS)
def test_timeout_event_and_trigger_timeout_both_raise_a_sensor_timeout(
    catalog: Catalog, method: str, arguments: dict[str, Any], policy: dict[str, bool], error: type[Exception]
):
    task = sensor(catalog, catalog.start_run(in_progress_seconds=3600), **policy)
    with pytest.raises(error, match="in time"):
        task.resume_execution(method, arguments, make_resumed_context())


@pytest.mark.parametrize(("method", "arguments"), TIMEOUTS)
def test_run_that_ended_before_the_timeout_event_is_not_a_timeout(
    catalog: Catalog, method: str, arguments: dict[str, Any]
):
    task = sensor(catalog, catalog.start_run(polls=0))
    type_stats = task.resume_execution(method, arguments, make_resumed_context())
    assert [stat["status"] for stat in type_stats] == ["SUCCEEDED"] * 2
