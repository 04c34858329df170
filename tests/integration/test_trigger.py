"""The trigger, over HTTP through real boto3, as a triggerer runs it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseHook,
    TaskDeferred,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_datazone.exceptions import RequestRefusedError, WaitFailedError
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.triggers import run_poller
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from tests.wrong import make_run

if TYPE_CHECKING:
    from tests.conftest import Catalog

SENSOR_ARGUMENTS = {
    "task_id": "wait",
    "run_identifier": "run1",
    "domain_identifier": "dzd_1",
    "deferrable": True,
}


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is tested on a simulated clock; here it would only cost time."""
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_REQUESTS_PER_SECOND", "1000")


def trigger(catalog: Catalog, run: str, **arguments: Any) -> DataZoneMetadataGenerationRunTrigger:
    defaults = {"poll_interval": 0.02, "aws_conn_id": "datazone_default"}
    return DataZoneMetadataGenerationRunTrigger(run, catalog.domain_identifier, **defaults | arguments)


async def only_event(trigger: DataZoneMetadataGenerationRunTrigger) -> dict[str, Any]:
    (event,) = [event async for event in trigger.run()]
    return event.payload


def events(*triggers: DataZoneMetadataGenerationRunTrigger) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        found = await asyncio.wait_for(asyncio.gather(*map(only_event, triggers)), timeout=60)
        # What was canceled needs a few turns of the loop to end; nothing may go on.
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            _, still_running = await asyncio.wait(left, timeout=30)
            assert not still_running
        return found

    return asyncio.run(main())


def test_event_is_the_run_as_it_ended(catalog: Catalog):
    run = catalog.start_run(statuses={"BUSINESS_NAMES": "FAILED"}, error_messages={"BUSINESS_NAMES": "no"})
    (event,) = events(trigger(catalog, run))
    assert event["status"] == "terminal"
    assert (event["run"]["id"], event["run"]["status"]) == (run, "PARTIALLY_SUCCEEDED")
    assert event["run"]["typeStats"] == [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
        {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no"},
    ]
    json.dumps(event)


def test_many_waits_share_a_look_up_a_client_and_a_list(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    look_ups = []
    get_connection = BaseHook.get_connection.__func__

    def counted(cls: type, conn_id: str) -> Any:
        look_ups.append(conn_id)
        return get_connection(cls, conn_id)

    monkeypatch.setattr(BaseHook, "get_connection", classmethod(counted))
    runs = [catalog.start_run(polls=0) for _ in range(60)]
    before = catalog.server.request_counts
    found = events(*(trigger(catalog, run) for run in runs))
    assert [event["run"]["id"] for event in found] == runs
    assert look_ups == ["datazone_default"]
    asked = catalog.server.request_counts - before
    assert asked == {"ListMetadataGenerationRuns": 2, "GetMetadataGenerationRun": 60}


def test_nothing_is_left_when_the_last_wait_has_ended(catalog: Catalog):
    def sockets() -> int:
        gc.collect()
        # The descriptor of the folder itself is gone by the time it is looked at.
        links = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
        return sum("/socket:" in link for link in links)

    def settled(found: Any, wanted: int) -> bool:
        """Threads and sockets end by themselves, soon; the server's own side of a socket does so too."""
        end = time.monotonic() + 20
        while found() > wanted and time.monotonic() < end:
            time.sleep(0.02)
        return found() <= wanted

    def poller_threads() -> int:
        return sum(thread.name.startswith("datazone-poller") for thread in threading.enumerate())

    runs = [catalog.start_run() for _ in range(20)]
    catalog.server.client().close()
    # What tests before this one have left in the process.
    known = set(run_poller._shared)
    before = sockets()
    events(*(trigger(catalog, run) for run in runs))
    assert settled(poller_threads, 0)
    assert settled(sockets, before)
    # asgiref keeps the last event loop of a process; of those before it, nothing is left.
    events(trigger(catalog, catalog.start_run()))
    gc.collect()
    (shared,) = (shared for loop, shared in run_poller._shared.items() if loop not in known)
    assert (shared.pollers, shared.look_ups) == ({}, {})


def test_cancelled_wait_leaves_the_others_alone(catalog: Catalog):
    async def main() -> list[Any]:
        runs = [catalog.start_run(polls=0) for _ in range(10)]
        for run in runs:
            catalog.server.set_run_status(run, "IN_PROGRESS")
        tasks = [asyncio.ensure_future(only_event(trigger(catalog, run))) for run in runs]
        before = len(catalog.server.requests)
        while len(catalog.server.requests) < before + 5:
            await asyncio.sleep(0.01)
        for task in tasks[::2]:
            task.cancel()
        for run in runs:
            catalog.server.set_run_status(run, None)
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=60)

    found = asyncio.run(main())
    assert all(isinstance(event, asyncio.CancelledError) for event in found[::2])
    assert {event["run"]["status"] for event in found[1::2]} == {"SUCCEEDED"}


def test_deadline_is_an_event_of_its_own_that_names_the_run(catalog: Catalog):
    run = catalog.start_run(in_progress_seconds=3600)
    began = time.time()
    (event,) = events(trigger(catalog, run, deadline=began + 0.5))
    assert event["status"] == "timeout"
    assert run in event["message"]
    assert catalog.domain_identifier in event["message"]
    assert time.time() >= began + 0.5


def test_deadline_that_has_passed_is_a_time_out_at_once(catalog: Catalog):
    (event,) = events(trigger(catalog, catalog.start_run(), poll_interval=3600, deadline=1.0))
    assert event["status"] == "timeout"


@pytest.mark.parametrize("trouble", ["ThrottlingException", "InternalServerException", "drop", "malformed"])
def test_passing_trouble_is_waited_out(catalog: Catalog, trouble: str):
    runs = [catalog.start_run() for _ in range(5)]
    catalog.server.fail("*", trouble, times=4)
    assert {e["run"]["status"] for e in events(*(trigger(catalog, run) for run in runs))} == {"SUCCEEDED"}


def test_refusal_is_told_with_the_service_s_message(catalog: Catalog):
    known = catalog.start_run()
    unknown, other = events(trigger(catalog, "unknownrun"), trigger(catalog, known))
    assert unknown["status"] == "error"
    assert unknown["permanent"] is True
    for part in ("Requested prediction cannot be found in domain", "unknownrun", catalog.domain_identifier):
        assert part in unknown["message"]
    assert other["run"]["status"] == "SUCCEEDED"


@pytest.mark.parametrize("broken", ["missing", "extra"])
def test_connection_that_cannot_be_used_is_told_as_such(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, broken: str
):
    if broken == "extra":
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps({"conn_type": "aws", "extra": "{no"}))
    (event,) = events(trigger(catalog, "run1", aws_conn_id="broken"))
    assert event["status"] == "error"
    assert "'broken'" in event["message"]


def test_credentials_that_were_rotated_are_looked_up_anew(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    runs = [catalog.start_run() for _ in range(10)]
    connection = json.loads(catalog.server.connection) | {"login": "old"}
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    catalog.server.fail("*", "ExpiredTokenException", times=1)
    look_ups = []
    look_up = run_poller._look_up

    async def rotated(parameters: Any) -> Any:
        look_ups.append(parameters)
        if len(look_ups) == 2:
            monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection | {"login": "new"}))
        return await look_up(parameters)

    monkeypatch.setattr(run_poller, "_look_up", rotated)
    found = events(*(trigger(catalog, run) for run in runs))
    assert {event["run"]["status"] for event in found} == {"SUCCEEDED"}
    assert len(look_ups) == 2, "once to begin with, once for all who were rejected"


def test_credentials_may_be_rotated_again_and_again(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    runs = [catalog.start_run() for _ in range(2)]
    for run in runs:
        catalog.server.set_run_status(run, "IN_PROGRESS")
    connection = json.loads(catalog.server.connection)
    requests = lambda: len(catalog.server.requests)  # noqa: E731

    async def rotate() -> None:
        for number in range(4):
            before = requests()
            while requests() < before + 6:
                await asyncio.sleep(0.01)
            old, new = (f"key{number}", f"key{number + 1}")
            monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection | {"login": new}))
            catalog.server.fail("*", "ExpiredTokenException", times=None, access_key_id=old)
        for run in runs:
            catalog.server.set_run_status(run, None)

    async def main() -> list[dict[str, Any]]:
        rotating = asyncio.create_task(rotate())
        waits = [only_event(trigger(catalog, run)) for run in runs]
        found = await asyncio.wait_for(asyncio.gather(*waits), timeout=60)
        rotating.cancel()
        return found

    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection | {"login": "key0"}))
    found = asyncio.run(main())
    assert [event.get("message") for event in found] == [None, None]
    assert {event["run"]["status"] for event in found} == {"SUCCEEDED"}


def test_credentials_that_stay_rejected_are_an_error_and_not_a_loop(catalog: Catalog):
    catalog.server.fail("*", "UnrecognizedClientException", times=None)
    for event in events(*(trigger(catalog, "run1") for _ in range(5))):
        assert event["status"] == "error"
        assert event["permanent"] is False
        assert "UnrecognizedClientException" in event["message"]
    assert len(catalog.server.requests) < 30


@pytest.mark.parametrize(
    "change",
    [{"password": "another"}, {"login": "another"}, {"extra": {"role_arn": "arn:aws:iam::1:role/a"}}],
)
def test_connections_that_differ_never_share_a_client(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
):
    # The look-up of the first is of no use to the second.
    monkeypatch.setattr(run_poller, "CONNECTION_LIFE", -1.0)
    connection = json.loads(catalog.server.connection)
    changed = connection | change | {"extra": connection["extra"] | change.get("extra", {})}

    async def main() -> int:
        shared = run_poller._Shared()
        parameters = run_poller.HookParameters("datazone_default", None, None, None)
        pollers = set()
        for definition in (connection, connection, changed):
            monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(definition))
            found = await shared.connection(parameters)
            pollers.add(found.fingerprint)
        return len(pollers)

    assert asyncio.run(main()) == 2


# ---------------------------------------------------------------------- kill


def kill(*triggers: DataZoneMetadataGenerationRunTrigger, by_user: bool = True) -> list[str]:
    """
    Cancel triggers in mid-wait as Airflow's triggerer does (`TriggerRunner.run_trigger`).

    :param by_user: Whether a user ended the tasks, so that ``on_kill`` is called.
    :return: What the triggers logged meanwhile, at WARNING.
    """

    async def run(trigger: DataZoneMetadataGenerationRunTrigger) -> None:
        try:
            await only_event(trigger)
        except asyncio.CancelledError:
            if by_user:
                await trigger.on_kill()
            raise

    async def main() -> None:
        tasks = [asyncio.ensure_future(run(trigger)) for trigger in triggers]
        loop = asyncio.get_running_loop()
        while loop not in run_poller._shared or not run_poller._shared[loop].pollers:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=60)
        assert all(isinstance(error, asyncio.CancelledError) for error in ended), ended

    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tests.kill")
    logger.addHandler(handler)
    for trigger in triggers:
        trigger._log = logger  # on Airflow 3 a logger of its own kind
    try:
        asyncio.run(main())
    finally:
        logger.removeHandler(handler)
    return warnings


def statuses(catalog: Catalog, runs: list[str]) -> list[str]:
    client = catalog.server.client()
    return [
        client.get_metadata_generation_run(domainIdentifier=catalog.domain_identifier, identifier=run)[
            "status"
        ]
        for run in runs
    ]


def start_endless_runs(catalog: Catalog, number: int) -> list[str]:
    return [catalog.start_run(in_progress_seconds=3600) for _ in range(number)]


def test_kill_by_a_user_cancels_the_run(catalog: Catalog):
    runs = start_endless_runs(catalog, 3)
    triggers = [trigger(catalog, run, cancel_on_kill=True, poll_interval=60) for run in runs]
    assert kill(*triggers) == []
    assert statuses(catalog, runs) == ["CANCELED"] * 3


@pytest.mark.parametrize(("cancel_on_kill", "by_user"), [(False, True), (True, False)])
def test_restart_or_a_trigger_that_is_not_to_cancel_leaves_the_run_alone(
    catalog: Catalog, cancel_on_kill: bool, by_user: bool
):
    runs = start_endless_runs(catalog, 1)
    triggers = [trigger(catalog, run, cancel_on_kill=cancel_on_kill, poll_interval=60) for run in runs]
    assert kill(*triggers, by_user=by_user) == []
    assert catalog.server.request_counts["CancelMetadataGenerationRun"] == 0
    assert statuses(catalog, runs) == ["IN_PROGRESS"]


def test_kill_after_the_run_has_ended_is_no_trouble(catalog: Catalog):
    run = catalog.start_run(polls=0)
    assert kill(trigger(catalog, run, cancel_on_kill=True, poll_interval=60)) == []
    assert statuses(catalog, [run]) == ["SUCCEEDED"]
    assert catalog.server.request_counts["CancelMetadataGenerationRun"] == 1


def test_cancelling_waits_passing_trouble_out(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_poller, "CANCEL_AGAIN_AFTER", 0.01)
    catalog.server.fail("CancelMetadataGenerationRun", "ThrottlingException", times=2)
    catalog.server.fail("CancelMetadataGenerationRun", "drop")
    (run,) = start_endless_runs(catalog, 1)
    warnings = kill(trigger(catalog, run, cancel_on_kill=True, poll_interval=60))
    assert len(warnings) == 3
    assert statuses(catalog, [run]) == ["CANCELED"]


def test_run_that_could_not_be_canceled_is_named(catalog: Catalog):
    catalog.server.fail("CancelMetadataGenerationRun", "AccessDeniedException", message="not yours")
    (run,) = start_endless_runs(catalog, 1)
    (warning,) = kill(trigger(catalog, run, cancel_on_kill=True, poll_interval=60))
    assert run in warning
    assert "not yours" in warning


def test_nothing_is_canceled_where_airflow_cannot_say_who_ended_the_task(catalog: Catalog):
    (run,) = start_endless_runs(catalog, 1)
    waiting = trigger(catalog, run, cancel_on_kill=True, poll_interval=60)
    # There is no supervisor to ask. Where there is one, tests/faults has triggerers stall.
    waiting.task_instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="wait", map_index=-1)
    (warning,) = kill(waiting)
    assert warning.startswith(
        "Nothing is canceled, as Airflow does not say whether a user has ended the task"
    )
    assert statuses(catalog, [run]) == ["IN_PROGRESS"]


# ------------------------------------------------------- between task and trigger


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
def test_aws_parameters_of_the_task_reach_the_trigger_and_its_hook(aws: dict[str, Any]):
    task = DataZoneMetadataGenerationRunSensor(**SENSOR_ARGUMENTS, **aws)
    made = DataZoneMetadataGenerationRunTrigger.for_task(
        task, run_identifier="run1", domain_identifier="dzd_1"
    )
    path, arguments = made.serialize()
    again = DataZoneMetadataGenerationRunTrigger(**json.loads(json.dumps(arguments)))
    assert path == f"{type(made).__module__}.{type(made).__name__}"
    names = {"config": "botocore_config"}
    for name, value in task._hook_parameters.items():
        assert getattr(again, names.get(name, name)) == value


def test_trigger_survives_airflow_s_own_round_trip(airflow_database: None):
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    made = DataZoneMetadataGenerationRunTrigger(
        "run1",
        "dzd_1",
        run_type="BUSINESS_NAMES",
        poll_interval=7.5,
        deadline=1234567890.25,
        aws_conn_id=None,
        region_name="eu-west-1",
        verify=False,
        botocore_config={"retries": {"total_max_attempts": 1}},
        cancel_on_kill=True,
    )
    with create_session() as session:
        row = Trigger.from_object(made)
        session.add(row)
        session.flush()
        stored = row.id
    with create_session() as session:
        row = session.get(Trigger, stored)
        loaded = TriggerRunner().get_trigger_by_classpath(row.classpath)(**row.kwargs)
        session.delete(row)
    assert loaded.serialize() == made.serialize()


class TaskInstance:
    """Stands for Airflow's, which runs in other tests; here only the way to it matters."""

    task_id = "wait"
    map_index = -1
    try_number = 1

    def __init__(self) -> None:
        # On Airflow 3.0 a deferred task says in which try it was.
        self.pushed: dict[str, Any] = {"deferred_in_try": 1}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, *, key: str, **_: Any) -> Any:
        return self.pushed.get(key)


def sensor(catalog: Catalog, run: str, **arguments: Any) -> DataZoneMetadataGenerationRunSensor:
    known = {"run_identifier": run, "domain_identifier": catalog.domain_identifier}
    return DataZoneMetadataGenerationRunSensor(
        **SENSOR_ARGUMENTS | {"aws_conn_id": "datazone_default"} | known | arguments
    )


def defer(**arguments: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferred:
        DataZoneMetadataGenerationRunSensor(
            **SENSOR_ARGUMENTS | {"aws_conn_id": "datazone_default"} | arguments
        ).execute({"ti": TaskInstance()})
    return deferred.value


def test_sensor_defers_until_its_time_out(catalog: Catalog):
    began = time.time()
    deferred = defer(
        run_identifier=catalog.start_run(),
        domain_identifier=catalog.domain_identifier,
        timeout=600,
        poke_interval=5,
    )
    assert began + 600 <= deferred.trigger.deadline <= time.time() + 600
    assert deferred.trigger.poll_interval == 5
    # The trigger tells of its deadline before Airflow ends it; but where there is no trigger, that is soon.
    assert 600 < deferred.timeout.total_seconds() < 900


def test_domain_is_resolved_before_deferring(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    connection = json.loads(catalog.server.connection)
    connection["extra"]["domain_identifier"] = catalog.domain_identifier
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    deferred = defer(run_identifier=catalog.start_run(), domain_identifier=None)
    assert deferred.trigger.domain_identifier == catalog.domain_identifier


def test_run_that_has_ended_is_not_deferred(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    task_instance = TaskInstance()
    waiting = sensor(catalog, catalog.start_run(polls=0))
    assert waiting.execute({"ti": task_instance}) == task_instance.pushed["type_stats"]


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
def test_trouble_of_the_trigger_is_never_hidden_by_soft_fail(
    event: dict[str, Any] | None, error: type[Exception], soft_fail: bool
):
    waiting = DataZoneMetadataGenerationRunSensor(**SENSOR_ARGUMENTS, soft_fail=soft_fail)
    with pytest.raises(error, match="run1" if event else "without an event"):
        waiting.resume_execution("execute_complete", {"event": event}, {"ti": TaskInstance()})


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("execute_complete", {"event": {"status": "error", "message": "not so", "permanent": True}}),
        ("execute_complete", {"event": {"status": "error", "message": "not so", "permanent": False}}),
        ("execute_complete", {"event": None}),
        ("__fail__", {"error": "Trigger failure"}),
    ],
)
def test_trouble_of_the_trigger_is_skipped_under_never_fail(method: str, arguments: dict[str, Any]):
    waiting = DataZoneMetadataGenerationRunSensor(**SENSOR_ARGUMENTS, never_fail=True)
    with pytest.raises(AirflowSkipException, match=r"not so|without an event|Trigger failure"):
        waiting.resume_execution(method, arguments, {"ti": TaskInstance()})


@pytest.mark.parametrize("soft_fail", [False, True])
def test_trigger_that_crashed_is_never_hidden_by_soft_fail(soft_fail: bool):
    waiting = DataZoneMetadataGenerationRunSensor(**SENSOR_ARGUMENTS, soft_fail=soft_fail)
    with pytest.raises(WaitFailedError, match=r"run1.*Trigger failure"):
        waiting.resume_execution("__fail__", {"error": "Trigger failure"}, {"ti": TaskInstance()})


@pytest.mark.parametrize("policy", ["soft_fail", "never_fail"])
def test_execution_timeout_of_a_deferred_wait_is_skipped_under(catalog: Catalog, policy: str):
    timeouts = {"execution_timeout": timedelta(seconds=5)}
    waiting = sensor(catalog, catalog.start_run(in_progress_seconds=3600), **timeouts, **{policy: True})
    with pytest.raises(AirflowSkipException, match="late"):
        waiting.resume_execution(
            "execute_complete", {"event": {"status": "timeout", "message": "late"}}, {"ti": TaskInstance()}
        )


@pytest.mark.parametrize("policy", ["soft_fail", "never_fail"])
def test_kill_that_is_no_time_out_is_not_skipped(catalog: Catalog, policy: str):
    sensor(catalog, "run1", **{policy: True}).on_kill()


def test_execution_timeout_bounds_the_deferred_wait_too(catalog: Catalog):
    deferred = defer(
        run_identifier=catalog.start_run(),
        domain_identifier=catalog.domain_identifier,
        execution_timeout=timedelta(seconds=5),
    )
    assert deferred.trigger.deadline <= time.time() + 5
    waiting = sensor(catalog, catalog.start_run(), execution_timeout=timedelta(seconds=5))
    with pytest.raises(AirflowTaskTimeout, match="late"):
        waiting.resume_execution(
            "execute_complete", {"event": {"status": "timeout", "message": "late"}}, {"ti": TaskInstance()}
        )


def test_rate_that_is_no_rate_is_named(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_REQUESTS_PER_SECOND", "0")
    (event,) = events(trigger(catalog, "run1"))
    assert event["status"] == "error"
    assert "[datazone] max_requests_per_second" in event["message"]


# Airflow 2 and 3 have each their own word for it.
NOBODY_TRIGGERED = "Trigger timeout" if AIRFLOW_V_3_0_PLUS else "Trigger/execution timeout"
TIMED_OUT = [
    ("execute_complete", {"event": {"status": "timeout", "message": "run has not ended in time"}}),
    ("__fail__", {"error": NOBODY_TRIGGERED}),
]


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        ({}, AirflowSensorTimeout),
        ({"soft_fail": True}, AirflowSkipException),
        # As in the other modes: `never_fail` is about what a poke raises.
        ({"never_fail": True}, AirflowSensorTimeout),
    ],
)
@pytest.mark.parametrize(("method", "arguments"), TIMED_OUT)
def test_time_out_is_a_sensor_time_out_whoever_tells_of_it(
    catalog: Catalog, method: str, arguments: dict[str, Any], policy: dict[str, bool], error: type[Exception]
):
    waiting = sensor(catalog, catalog.start_run(in_progress_seconds=3600), **policy)
    with pytest.raises(error, match="in time"):
        waiting.resume_execution(method, arguments, {"ti": TaskInstance()})


@pytest.mark.parametrize(("method", "arguments"), TIMED_OUT)
def test_run_that_ended_while_no_triggerer_looked_is_not_a_time_out(
    catalog: Catalog, method: str, arguments: dict[str, Any]
):
    waiting = sensor(catalog, catalog.start_run(polls=0))
    type_stats = waiting.resume_execution(method, arguments, {"ti": TaskInstance()})
    assert [stat["status"] for stat in type_stats] == ["SUCCEEDED"] * 2
