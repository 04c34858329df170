"""The batch operator: its arguments, deferral and resumption."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_provider_datazone.batch.assets import pack, unpack
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    InvalidInputError,
    RequestRefusedError,
    WaitFailedError,
)
from airflow_provider_datazone.links.datazone import DataZoneDomainLink
from tests.conftest import TYPE_STATS, LoopClock, once
from tests.dags.batch_outcomes import (
    TYPES,
)
from tests.integration.batch.tasks import (
    COUNTED,
    Assets,
    all_runs_are_active,
    batch_is_active,
    event_at_checkpoint,
    event_of,
    list_runs,
    make_memory,
    rows_of,
    run_task,
    set_outcomes,
)
from tests.task_context import Store, make_context, make_resumed_context

pytestmark = pytest.mark.usefixtures("unhurried")


def test_task_defers_again_at_each_checkpoint_until_the_batch_ends(assets: Assets, loop_clock: LoopClock):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    context = make_context(Store())
    task = assets.operator(deferrable=True)
    began = time.time()
    triggers = []
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    for _ in range(3):
        triggers.append(deferred.value.trigger)
        event = event_at_checkpoint(triggers[-1], loop_clock)
        with pytest.raises(TaskDeferred) as deferred:
            task.resume_execution("execute_complete", {"event": event}, context)
    assert {trigger.identity for trigger in triggers} == {deferred.value.trigger.identity}
    existing = list_runs(assets)
    for (run,) in existing:
        server.set_run_status(run, "SUCCEEDED")
    event = event_of(deferred.value.trigger, timeout=None)
    resumed = time.time()
    summary = task.resume_execution("execute_complete", {"event": event}, context)
    assert (summary["total"], summary["succeeded"]) == (6, 6)
    assert resumed - began - 0.1 <= summary["duration_seconds"] <= time.time() - began + 0.1, (
        "measured from the start of the task"
    )
    assert list_runs(assets) == existing
    assert server.request_counts["StartMetadataGenerationRun"] == 6


def test_duplicate_assets_are_processed_once(assets: Assets, deferrable: bool):
    first, second = assets.identifiers[:2]
    given = [first, second, first, {"asset_identifier": first, "asset_revision": ""}, second]
    context = make_context()
    summary = run_task(assets.operator(asset_identifiers=given, deferrable=deferrable), context)
    assert (summary["total"], summary["succeeded"], summary["duplicates"]) == (2, 2, 3)
    assert [row["asset"] for row in context["ti"].xcoms["results"]] == [first, second]
    assert assets.catalog.server.request_counts["StartMetadataGenerationRun"] == 2


def test_revision_and_project_of_an_asset_take_precedence(assets: Assets, deferrable: bool):
    server, catalog = assets.catalog.server, assets.catalog
    client = server.client()
    other = client.create_project(domainIdentifier=catalog.domain_identifier, name="other")["id"]
    foreign = server.create_asset(
        domain_identifier=catalog.domain_identifier, project_identifier=other
    ).asset_identifier
    first, second = assets.identifiers[:2]
    given = [
        {"asset_identifier": first},
        {"asset_identifier": second, "asset_revision": "1"},
        {"asset_identifier": foreign, "owning_project_identifier": other},
    ]
    summary = run_task(assets.operator(asset_identifiers=given, deferrable=deferrable), make_context(Store()))
    assert summary["succeeded"] == 3
    sent = [r.parameters for r in server.requests if r.operation == "StartMetadataGenerationRun"]
    mine = catalog.project_identifier
    assert {
        (s["target"]["identifier"], s["target"].get("revision"), s["owningProjectIdentifier"]) for s in sent
    } == {(first, None, mine), (second, "1", mine), (foreign, None, other)}
    for start in sent:
        assert (start["types"], start["domainIdentifier"]) == (TYPES, catalog.domain_identifier)


@pytest.mark.parametrize("allowed", [True, False])
def test_partial_success_fails_the_task_unless_allowed(assets: Assets, deferrable: bool, allowed: bool):
    set_outcomes(assets.catalog.server, assets.identifiers[1], "PARTIALLY_SUCCEEDED")
    context = make_context()
    task = assets.operator(allow_partial_success=allowed, deferrable=deferrable)
    if allowed:
        run_task(task, context)
    else:
        with pytest.raises(BatchFailedError, match="no names today"):
            run_task(task, context)
    summary, results = (context["ti"].xcoms[key] for key in ("return_value", "results"))
    assert {key: summary[key] for key in COUNTED} == {
        "succeeded": 5,
        "partially_succeeded": 1,
        "failed": 0,
        "canceled": 0,
        "accepted": 0,
        "published": 0,
        "not_started": 0,
    }
    assert summary["failures"] == ([] if allowed else [results[1]])
    assert results[1]["typeStats"] == TYPE_STATS["PARTIALLY_SUCCEEDED"]


@pytest.mark.parametrize(
    ("max_failures", "passes"), [(0, False), (2, True), (1, False), (0.34, True), (0.33, False), (1.0, True)]
)
def test_task_fails_if_failures_exceed_max_failures(assets: Assets, max_failures: float, passes: bool):
    for asset, ending in zip(assets.identifiers[2:4], ["FAILED", "CANCELED"], strict=True):
        set_outcomes(assets.catalog.server, asset, ending)
    context = make_context()
    task = assets.operator(max_failures=max_failures)
    if passes:
        assert task.execute(context) == context["ti"].xcoms["return_value"]
    else:
        with pytest.raises(BatchFailedError, match="2 of 6 assets"):
            task.execute(context)
    assert len(context["ti"].xcoms["return_value"]["failures"]) == 2
    assert len(context["ti"].xcoms["results"]) == 6


INVALID_ARGUMENTS: dict[str, dict[str, Any]] = {
    "string instead of a list": {"asset_identifiers": "['asset1', 'asset2']"},
    "None": {"asset_identifiers": None},
    "no identifier": {"asset_identifiers": ["asset1", {"asset_revision": "1"}]},
    "unknown key": {"asset_identifiers": [{"asset_identifier": "asset1", "revision": "1"}]},
    "identifier that is a list": {"asset_identifiers": [{"asset_identifier": ["asset1"]}]},
    "zero concurrent runs": {"max_concurrent_runs": 0},
    "negative max_failures": {"max_failures": -1},
    "fraction above 1": {"max_failures": 1.5},
    "string instead of types": {"types": "BUSINESS_NAMES"},
    "no project": {"owning_project_identifier": None},
    "no domain": {"domain_identifier": None},
}


@pytest.mark.parametrize("invalid", INVALID_ARGUMENTS.values(), ids=INVALID_ARGUMENTS)
def test_invalid_arguments_raise_an_error_without_a_request(
    assets: Assets, deferrable: bool, invalid: dict[str, Any]
):
    before = len(assets.catalog.server.requests)
    with pytest.raises(InvalidInputError, match=r"asset_identifiers|max_|types|project|domain"):
        assets.operator(**invalid, deferrable=deferrable).execute(make_context(Store()))
    assert len(assets.catalog.server.requests) == before


@pytest.mark.parametrize("given", [[], (), iter(())], ids=["list", "tuple", "iterator"])
def test_empty_batch_needs_no_domain_or_project(assets: Assets, deferrable: bool, given: Any):
    task = assets.operator(
        asset_identifiers=given,
        domain_identifier=None,
        owning_project_identifier=None,
        deferrable=deferrable,
    )
    context = make_context()
    summary = task.execute(context)
    assert summary == dict.fromkeys(("total", *COUNTED, "duplicates"), 0) | {
        "duration_seconds": summary["duration_seconds"],
        "failures": [],
    }
    assert context["ti"].xcoms["results"] == []


@pytest.mark.parametrize(
    "aws",
    [
        {"aws_conn_id": None},
        {"region_name": "us-east-1", "verify": False, "botocore_config": {"read_timeout": 7}},
        {"verify": "/ca.pem", "cancel_on_kill": False},
    ],
)
def test_task_parameters_are_passed_to_the_trigger(assets: Assets, aws: dict[str, Any]):
    explicit = {
        "max_concurrent_runs": 7,
        "poll_interval": 2.5,
        "allow_partial_success": False,
        "cancel_on_kill": True,
    }
    task = assets.operator(deferrable=True, execution_timeout=timedelta(seconds=50), **explicit | aws)
    began = time.time()
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(make_context())
    arguments = json.loads(json.dumps(deferred.value.trigger.serialize()[1]))
    assert arguments.items() >= (explicit | {"aws_conn_id": "datazone_default", "types": TYPES} | aws).items()
    for name in ("region_name", "verify", "botocore_config"):
        assert arguments[name] == aws.get(name)
    assert arguments["domain_identifier"] == assets.catalog.domain_identifier
    assert unpack(arguments["rows"]) == assets.rows()
    assert began <= arguments["started_at"] <= time.time()
    assert arguments["deadline"] == arguments["started_at"] + 50
    # The trigger reports its deadline first. Airflow's own timeout follows soon after, in case no triggerer runs.
    assert timedelta(seconds=50) < deferred.value.timeout < timedelta(seconds=350)


def test_timeout_of_centuries_is_no_limit(assets: Assets):
    """Neither a timer nor a database can store such a date."""
    with pytest.raises(TaskDeferred) as deferred:
        assets.operator(deferrable=True, execution_timeout=timedelta.max).execute(make_context(Store()))
    assert (deferred.value.trigger.deadline, deferred.value.timeout) == (None, None)


def test_execution_timeout_in_a_worker_does_not_cancel_runs(assets: Assets, loop_clock: LoopClock):
    """The batch checks the timeout itself, because Airflow's alarm can interrupt any statement."""
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    store = Store()
    task = assets.operator(execution_timeout=timedelta(hours=1))
    once(lambda: all_runs_are_active(rows_of(task)), lambda: loop_clock.put_forward(3600))
    context = make_context(store)
    with pytest.raises(AirflowTaskTimeout):
        task.execute(context)
    pushed = context["ti"].xcoms
    assert [[row["run"]] for row in pushed["results"]] == list_runs(assets)
    assert (pushed["return_value"]["total"], pushed["return_value"]["succeeded"]) == (6, 0)
    # Airflow calls on_kill after a timeout.
    task.on_kill()
    assert assets.statuses() == [["IN_PROGRESS"]] * 6
    for (run,) in list_runs(assets):
        server.set_run_status(run, "SUCCEEDED")
    assert assets.operator().execute(make_context(store, try_number=2))["succeeded"] == 6
    assert server.request_counts["StartMetadataGenerationRun"] == 6


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"status": "error", "message": "not so", "permanent": True}, RequestRefusedError),
        ({"status": "error", "message": "not so", "permanent": False}, WaitFailedError),
        ({"status": "timeout", "message": "not so"}, AirflowTaskTimeout),
    ],
)
def test_trigger_error_fails_the_task_and_known_runs_are_saved(
    assets: Assets, event: dict[str, Any], error: type[BaseException]
):
    store = Store()
    rows = assets.rows()
    rows[0].run_identifier = "run0"
    known = {
        "rows": pack(rows),
        "noted_at": 5.0,
        "started_at": time.time(),
        "duplicates": 0,
        "quota_used_up": False,
    }
    context = make_resumed_context(store)
    with pytest.raises(error, match="not so"):
        assets.operator(deferrable=True).resume_execution(
            "execute_complete", {"event": event | known}, context
        )
    pushed = context["ti"].xcoms
    assert [row["run"] for row in pushed["results"]] == ["run0", *[None] * 5]
    assert pushed["return_value"]["not_started"] == 5
    memory = make_memory(assets, make_context(store, try_number=2))
    assert memory.load(assets.rows(), Steps())[0].run_identifier == "run0"
    assert memory.saved_at == 5.0


def test_task_that_fails_before_it_processes_assets_pushes_no_results(assets: Assets):
    """A teardown that reads them would otherwise fail."""
    context = make_context(Store())
    with pytest.raises(InvalidInputError):
        assets.operator(max_concurrent_runs=0).execute(context)
    assert context["ti"].xcoms["results"] == []
    assert "return_value" not in context["ti"].xcoms


def test_xcom_that_cannot_be_pushed_does_not_hide_the_error(assets: Assets, monkeypatch: pytest.MonkeyPatch):
    context = make_context(Store())

    def fail(key: str, value: Any) -> None:
        raise OSError("the API server is away")

    monkeypatch.setattr(context["ti"], "xcom_push", fail)
    task = assets.operator(max_concurrent_runs=0)
    monkeypatch.setattr(DataZoneDomainLink, "persist_for", lambda *arguments: None)
    with pytest.raises(InvalidInputError):
        task.execute(context)


def test_deferred_batch_with_a_long_poll_interval_ends(assets: Assets, loop_clock: LoopClock):
    """A checkpoint before the first poll would come again and again."""
    assets.catalog.server.set_run_outcome(polls=0, times=None)
    trigger = assets.trigger(poll_interval=700)
    once(lambda: batch_is_active(trigger), lambda: loop_clock.put_forward(750))
    assert event_of(trigger, timeout=None)["status"] == "ended"


@pytest.mark.parametrize("message", ["Trigger failure", None])
def test_trigger_that_ends_without_an_event_raises_an_error(assets: Assets, message: str | None):
    task = assets.operator(deferrable=True)
    context = make_resumed_context()
    resumption = ("__fail__", {"error": message}) if message else ("execute_complete", {"event": None})
    with pytest.raises(WaitFailedError, match=message or "without an event"):
        task.resume_execution(*resumption, context)


def test_task_fails_without_retries_if_all_assets_are_rejected(assets: Assets):
    assets.catalog.server.fail(
        "StartMetadataGenerationRun", "AccessDeniedException", message="not yours", times=None
    )
    context = make_context()
    with pytest.raises(RequestRefusedError, match="not yours"):
        assets.operator().execute(context)
    rows = context["ti"].xcoms["results"]
    assert [row["run"] for row in rows] == [None] * 6
    assert all("not yours" in row["error"] for row in rows)
    not_started = [row for row in rows if row["error"].startswith("No run was started: ")]
    summary = context["ti"].xcoms["return_value"]
    assert (summary["failed"], summary["not_started"]) == (6 - len(not_started), len(not_started))
    assert summary["failed"] > 0


def test_connection_project_is_the_default_for_assets(assets: Assets, monkeypatch: pytest.MonkeyPatch):
    connection = json.loads(assets.catalog.server.connection)
    connection["extra"] |= {
        "domain_identifier": assets.catalog.domain_identifier,
        "owning_project_identifier": assets.catalog.project_identifier,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    task = assets.operator(owning_project_identifier=None, domain_identifier=None)
    assert task.execute(make_context())["succeeded"] == 6
