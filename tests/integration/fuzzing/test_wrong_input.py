"""Tasks and triggers handle any connection, DAG Params, and stored trigger or task state."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import astuple
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, TaskDeferred
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import given, strategies as st

from airflow_provider_datazone.batch.assets import AssetRow, pack, unpack
from airflow_provider_datazone.batch.memory import BatchMemory
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    InvalidInputError,
    MalformedResponseError,
    MetadataGenerationRunError,
    NotConfiguredError,
    WaitFailedError,
)
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneBatchMetadataGenerationOperator,
    DataZoneCancelMetadataGenerationRunOperator,
    DataZoneGetMetadataGenerationRunOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.polling import registry
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.triggers.datazone import (
    DataZoneBatchMetadataGenerationTrigger,
    DataZoneMetadataGenerationRunTrigger,
)
from tests.task_context import Store, make_context, make_resumed_context
from tests.wrong import (
    ACCESS_KEY,
    CONNECTION,
    LOG,
    SECRET_KEY,
    SESSION_TOKEN,
    Answer,
    Service,
    check_error,
    check_log,
    check_told,
    fuzz,
    logged,
    make_run,
    make_task,
    render,
    spoiled,
    texts,
    values,
)


def respond_succeeded(method: str, path: str, body: bytes) -> Answer:
    """Respond to any request as if every run has succeeded."""
    if method == "PUT":
        return render({"revision": "2", "assetRevision": "2"})
    return render(make_run("run1", "SUCCEEDED"), 201 if method == "POST" else 200)


# ------------------------------------------------------------------ connections

EXTRA = {
    "region_name": "us-east-1",
    "aws_session_token": SESSION_TOKEN,
    "endpoint_url": "http://127.0.0.1:1",
    "domain_identifier": "dzd-1",
    "owning_project_identifier": "project1",
    "verify": True,
    "config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 1},
    "service_config": {
        "datazone": {"domain_identifier": "dzd-2"},
        "sts": {"endpoint_url": "http://127.0.0.1:1"},
    },
    "session_kwargs": {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY},
    "role_arn": None,
    "assume_role_method": "assume_role",
    "assume_role_kwargs": {"ExternalId": "external"},
}


# Airflow masks each secret of a connection in every later log line, which is slow for long values.
extras = st.one_of(spoiled(EXTRA), values).filter(lambda extra: len(json.dumps(extra)) < 2000)


@fuzz(25)
@given(extra=extras, conn_type=st.sampled_from(["aws", "awsdatazone"]))
def test_any_extra_works_or_raises_an_error_that_names_the_connection(
    service: Service, extra: Any, conn_type: str
) -> None:
    service.answer = respond_succeeded
    if isinstance(extra, dict) and extra.get("endpoint_url") == EXTRA["endpoint_url"]:
        extra = extra | {"endpoint_url": service.endpoint_url}
    connection = {"conn_type": conn_type, "login": ACCESS_KEY, "password": SECRET_KEY}
    text = extra if isinstance(extra, str) else json.dumps(extra)
    with pytest.MonkeyPatch.context() as monkeypatch, logged() as lines:
        try:
            monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(connection | {"extra": text}))
        except ValueError:
            # An environment variable cannot hold this value.
            return
        # The hook reads the connection on first use, so an invalid extra does not fail here.
        hook = DataZoneHook("mine", config={"retries": {"total_max_attempts": 1}, "connect_timeout": 1})
        hook._log = LOG
        if isinstance(extra, dict) and not isinstance(extra.get("endpoint_url"), str):
            # No request may leave this machine.
            extra = None
        try:
            hook.resolve_domain_identifier("dzd-1")
            if extra is not None and hook.conn.meta.endpoint_url == service.endpoint_url:
                run = hook.get_metadata_generation_run("run1", domain_identifier="dzd-1")
                assert run.status == "SUCCEEDED"
        except Exception as error:
            if "conn" in hook.__dict__ or isinstance(error, NotConfiguredError):
                check_error(error, "mine")
    check_log(lines)


# ------------------------------------------------------------ Params and arguments

identifiers = st.one_of(texts, values)
TASKS: dict[str, Any] = {
    "get": (DataZoneGetMetadataGenerationRunOperator, ("run_identifier", "run_type")),
    "sensor": (DataZoneMetadataGenerationRunSensor, ("run_identifier", "run_type")),
    "cancel": (DataZoneCancelMetadataGenerationRunOperator, ("run_identifier",)),
    "start": (
        DataZoneStartMetadataGenerationRunOperator,
        ("asset_identifier", "types", "owning_project_identifier", "asset_revision", "client_token"),
    ),
    "accept": (
        DataZoneAcceptPredictionsOperator,
        ("asset_identifier", "revision", "choices", "client_token"),
    ),
    "batch": (
        DataZoneBatchMetadataGenerationOperator,
        ("asset_identifiers", "types", "owning_project_identifier"),
    ),
}
VALID_ARGUMENTS: dict[str, Any] = {
    "run_identifier": "run1",
    "asset_identifier": "asset1",
    "asset_identifiers": ["asset1", {"asset_identifier": "asset2", "asset_revision": "1"}],
    "types": ["BUSINESS_NAMES"],
    "owning_project_identifier": "project1",
    "choices": [{"predictionTarget": "summary", "predictionChoice": 0}],
    "domain_identifier": "dzd-1",
}
EXPECTED_ERRORS = (
    AirflowFailException,
    ClientError,
    BotoCoreError,
    MalformedResponseError,
    MetadataGenerationRunError,
    BatchFailedError,
)


@st.composite
def task_arguments(draw: Any, kind: str) -> dict[str, Any]:
    """Draw arguments of a task, up to three of which have unexpected values."""
    _, names = TASKS[kind]
    arguments = {
        name: VALID_ARGUMENTS[name] for name in (*names, "domain_identifier") if name in VALID_ARGUMENTS
    }
    for name in draw(st.lists(st.sampled_from([*names, "domain_identifier"]), min_size=1, max_size=3)):
        arguments[name] = draw(st.one_of(identifiers, spoiled(VALID_ARGUMENTS.get(name))))
    return arguments


@pytest.mark.parametrize("kind", TASKS)
@fuzz(50)
@given(data=st.data())
def test_any_task_arguments_work_or_raise_an_expected_error(
    service: Service, hook: DataZoneHook, kind: str, data: Any
) -> None:
    service.answer = respond_succeeded
    cls, _ = TASKS[kind]
    arguments = data.draw(task_arguments(kind))
    if kind == "batch":
        # In a worker the batch would send requests; this test is about arguments that fail before any request.
        arguments["deferrable"] = True
    operator = make_task(cls, hook, **arguments)
    with logged() as lines:
        try:
            operator.execute(make_context())
        except TaskDeferred as deferred:
            json.dumps(deferred.trigger.serialize()[1])
        except EXPECTED_ERRORS as error:
            check_error(error)
    check_log(lines)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1, "30", None, True, [30], 10**400])
@pytest.mark.parametrize("kind", ["start", "batch"])
def test_invalid_poll_interval_raises_an_error_without_a_request(
    service: Service, hook: DataZoneHook, kind: str, seconds: Any
) -> None:
    cls, names = TASKS[kind]
    arguments = {name: VALID_ARGUMENTS[name] for name in names if name in VALID_ARGUMENTS}
    before = len(service.requests)
    operator = make_task(cls, hook, poll_interval=seconds, **arguments)
    with pytest.raises(InvalidInputError, match="poll_interval must be a number of seconds"):
        operator.execute(make_context())
    assert service.requests[before:] == []


@pytest.mark.parametrize("timeout", [4e9, 1e12])
def test_very_long_sensor_timeout_defers_without_a_deadline(
    service: Service, hook: DataZoneHook, timeout: float
) -> None:
    service.answer = lambda *request: render(make_run("run1", "IN_PROGRESS"))
    sensor = make_task(
        DataZoneMetadataGenerationRunSensor, hook, run_identifier="run1", deferrable=True, timeout=timeout
    )
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(make_context())
    assert deferred.value.trigger.deadline is None
    assert deferred.value.timeout is None


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_concurrent_runs": "5"}, "max_concurrent_runs must be at least 1"),
        ({"max_concurrent_runs": math.nan}, "max_concurrent_runs must be at least 1"),
        ({"max_concurrent_runs": None}, "max_concurrent_runs must be at least 1"),
        ({"max_failures": "10%"}, "max_failures must be a number of assets"),
        ({"max_failures": math.nan}, "max_failures must be a number of assets"),
        ({"types": ["BUSINESS_NAMES", 1]}, "types must be a list of strings"),
        ({"asset_identifiers": [{"asset_identifier": "asset1", 1: "x"}]}, "has unknown keys: 1. Allowed are"),
        (
            {"asset_identifiers": [{"asset_identifier": "asset1", "\nx": "x"}]},
            r"has unknown keys: '\\nx'. Allowed are",
        ),
    ],
)
def test_invalid_batch_arguments_raise_an_error_that_names_them(
    service: Service, hook: DataZoneHook, limits: dict[str, Any], message: str
) -> None:
    arguments = {
        "asset_identifiers": ["asset1"],
        "types": ["BUSINESS_NAMES"],
        "owning_project_identifier": "p",
    }
    operator = make_task(DataZoneBatchMetadataGenerationOperator, hook, **arguments | limits)
    with pytest.raises(InvalidInputError, match=message):
        operator.execute(make_context())


# ------------------------------------------------ triggers stored in the database


def events_of(*triggers: Any) -> list[Any]:
    """Run triggers on one event loop, as a triggerer does. Each must end, and no poller may remain."""

    async def only_event(trigger: Any) -> Any:
        (event,) = [event async for event in trigger.run()]
        return event.payload

    async def main() -> list[Any]:
        jobs = (asyncio.wait_for(only_event(trigger), 30) for trigger in triggers)
        events = await asyncio.gather(*jobs, return_exceptions=True)
        for shared in registry._registries.values():
            assert not shared.pollers, "a poller remains"
        return events

    return asyncio.run(main())


RUN_TRIGGER = {
    "run_identifier": "run1",
    "domain_identifier": "dzd-1",
    "run_type": None,
    "poll_interval": 0.001,
    "deadline": None,
    "aws_conn_id": CONNECTION,
    "region_name": None,
    "verify": None,
    "botocore_config": {"retries": {"total_max_attempts": 1}},
    "cancel_on_kill": False,
}
BATCH_TRIGGER = {
    "rows": pack([AssetRow("asset1", None, "project1"), AssetRow("asset2", "1", "project1", 2, "run1")]),
    "noted_at": 4e9,
    "types": ["BUSINESS_NAMES"],
    "domain_identifier": "dzd-1",
    "identity": "identity",
    "began_at": 1.0,
    "max_concurrent_runs": 2,
    "poll_interval": 0.001,
    "allow_partial_success": True,
    "started_at": 1.0,
    "duplicates": 0,
    "quota_used_up": False,
    "checkpoint_interval": 600,
    "deadline": None,
    "aws_conn_id": CONNECTION,
    "botocore_config": {"retries": {"total_max_attempts": 1}},
}


@st.composite
def stored_kwargs(draw: Any, valid: dict[str, Any]) -> dict[str, Any]:
    """Draw stored trigger arguments: some of another type, some missing, some of another version."""
    kwargs = dict(valid)
    for name in draw(st.lists(st.sampled_from(sorted(valid)), max_size=3)):
        change = draw(st.sampled_from(["change", "drop"]))
        # The connection is not changed: another one may have any endpoint.
        if change == "drop":
            kwargs.pop(name, None)
        elif name != "aws_conn_id":
            kwargs[name] = draw(values)
    if draw(st.integers(0, 9)) == 0:
        kwargs["of_another_version"] = True
    if valid.get("poll_interval") is not None:
        interval = kwargs.get("poll_interval")
        # The trigger would wait for a long interval, as it should.
        if "poll_interval" not in kwargs or (isinstance(interval, (int, float)) and 0.01 < interval < 1e10):
            kwargs["poll_interval"] = 0.001
    return kwargs


@pytest.mark.parametrize("kind", ["run", "batch"])
@fuzz(15)
@given(data=st.data())
def test_trigger_with_any_arguments_ends_with_an_event(service: Service, kind: str, data: Any) -> None:
    service.answer = respond_succeeded
    cls, valid = {
        "run": (DataZoneMetadataGenerationRunTrigger, RUN_TRIGGER),
        "batch": (DataZoneBatchMetadataGenerationTrigger, BATCH_TRIGGER),
    }[kind]
    triggers = []
    for kwargs in data.draw(st.lists(stored_kwargs(valid), min_size=1, max_size=5)):
        try:
            trigger = cls(**{"aws_conn_id": CONNECTION} | kwargs)
        except TypeError as error:
            # Airflow logs this error in the triggerer and fails the task with an event that other tests cover.
            assert "argument" in str(error)  # noqa: PT017
            continue
        trigger._log = LOG
        triggers.append(trigger)
    with logged() as lines:
        events = events_of(*triggers)
    check_log(lines)
    for trigger, event in zip(triggers, events, strict=True):
        assert isinstance(event, dict), event
        json.dumps(event)
        subject = repr(trigger.run_identifier) if kind == "run" else repr(trigger.domain_identifier)
        if event["status"] == "error":
            assert subject in event["message"]
            check_told(event["message"])
        elif kind == "run":
            assert event["status"] in ("terminal", "timeout")


# -------------------------------------------------- events stored in the database

RUN_EVENT = {
    "status": "terminal",
    "run": make_run("run1", "SUCCEEDED"),
    "read_at": 1.0,
    "message": "not in time",
    "permanent": False,
}
BATCH_EVENT = {
    "status": "ended",
    "rows": pack([AssetRow("asset1", None, "project1", 1, "run1", "SUCCEEDED")]),
    "noted_at": 1.0,
    "started_at": 1.0,
    "duplicates": 0,
    "quota_used_up": False,
}


@fuzz(150)
@given(
    event=st.one_of(spoiled(RUN_EVENT), values),
    status=st.sampled_from([None, None, "terminal", "timeout", "error", "of another version"]),
)
def test_any_run_event_ends_the_sensor_with_a_result_or_a_clear_error(
    service: Service, hook: DataZoneHook, event: Any, status: str | None
) -> None:
    service.answer = respond_succeeded
    if isinstance(event, dict) and status is not None:
        event["status"] = status
    sensor = make_task(DataZoneMetadataGenerationRunSensor, hook, run_identifier="run1", deferrable=True)
    with logged() as lines:
        try:
            result = sensor.resume_execution("execute_complete", {"event": event}, make_resumed_context())
        except (WaitFailedError, MetadataGenerationRunError, AirflowFailException) as error:
            result = error
            has_message = isinstance(event, dict) and event.get("status") == "error"
            check_error(
                error, *(() if has_message else ("run1" if isinstance(error, WaitFailedError) else "run",))
            )
    assert isinstance(result, (list, Exception))
    check_log(lines)


@fuzz(60)
@given(
    event=st.one_of(spoiled(BATCH_EVENT), values),
    status=st.sampled_from([None, "ended", "checkpoint", "timeout", "error", "of another version"]),
)
def test_any_batch_event_ends_the_task_or_raises_a_clear_error(
    service: Service, hook: DataZoneHook, event: Any, status: str | None
) -> None:
    if isinstance(event, dict) and status is not None:
        event["status"] = status
    operator = make_task(
        DataZoneBatchMetadataGenerationOperator,
        hook,
        asset_identifiers=["asset1"],
        types=["BUSINESS_NAMES"],
        owning_project_identifier="project1",
    )
    with logged() as lines:
        try:
            operator.resume_execution("execute_complete", {"event": event}, make_resumed_context())
        except (TaskDeferred, AirflowTaskTimeout):
            pass
        except (WaitFailedError, BatchFailedError, AirflowFailException) as error:
            check_error(error)
    check_log(lines)


def test_unpack_ignores_unknown_columns_of_a_later_version() -> None:
    import base64
    import zlib

    row = AssetRow("asset1", None, "project1", 1, "run1", "SUCCEEDED")
    packed_rows = [[*astuple(row), "what only that version knows"]]
    packed = base64.b85encode(zlib.compress(json.dumps(packed_rows).encode())).decode()
    assert unpack(packed) == [row]


@pytest.mark.parametrize(
    "packed",
    [None, 5, "", "no rows", "é", pack([])[:-1], pack([AssetRow("a", None, "p", is_token_used="no")])],  # type: ignore[arg-type]
)
def test_unpack_raises_an_error_for_unreadable_rows(packed: Any) -> None:
    with pytest.raises(ValueError, match="rows of the batch cannot be read"):
        unpack(packed)


# ------------------------------------------------------- stored state of a task


@fuzz(100)
@given(record=st.one_of(values, spoiled({"number": 1, "token": "token", "run": "run1", "request": ""})))
def test_start_task_handles_any_stored_submission_record(
    service: Service, hook: DataZoneHook, record: Any
) -> None:
    service.answer = respond_succeeded
    context = make_context()
    context["task_state_store"] = Store()
    arguments = {
        name: VALID_ARGUMENTS[name] for name in ("asset_identifier", "types", "owning_project_identifier")
    }
    operator = make_task(DataZoneStartMetadataGenerationRunOperator, hook, **arguments)
    # A record of the same request is validated most strictly.
    operator.execute(context)
    own_record = context["task_state_store"].get("metadata_generation_run")
    if isinstance(record, dict) and record.get("request") == "":
        record["request"] = own_record["request"]
    context["task_state_store"].set("metadata_generation_run", record)
    try:
        assert operator.execute(context) == "run1"
    except EXPECTED_ERRORS as error:
        check_error(error)


@fuzz(100)
@given(data=st.data())
def test_batch_memory_handles_any_stored_record(data: Any) -> None:
    context = make_context()
    context["task_state_store"] = store = Store()
    rows = [AssetRow("asset1", None, "project1")]
    memory = BatchMemory(context, "dzd-1", ["BUSINESS_NAMES"])
    memory.save(rows)
    key = "metadata_generation_batch"
    store.set(key, data.draw(st.one_of(spoiled(store.get(key)), values)))
    memory = BatchMemory(context, "dzd-1", ["BUSINESS_NAMES"])
    loaded = memory.load([AssetRow("asset1", None, "project1")], Steps())
    assert [row.key for row in loaded] == [row.key for row in rows]
    assert memory.identity
    assert math.isfinite(memory.saved_at)
