"""A batch in real Airflow, over HTTP through real boto3: what its tasks leave behind, and what is sent."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_provider_datazone import batch as engine
from airflow_provider_datazone.batch import AssetRow, BatchMemory, pack, unpack
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    InvalidInputError,
    QuotaUsedUpError,
    RequestRefusedError,
    WaitFailedError,
)
from airflow_provider_datazone.operators.datazone import DataZoneBatchMetadataGenerationOperator
from airflow_provider_datazone.triggers import datazone as triggers
from airflow_provider_datazone.triggers.datazone import DataZoneBatchMetadataGenerationTrigger
from airflow_provider_datazone.version_compat import TaskKilled
from tests.conftest import TYPE_STATS, LoopClock, make_catalog, once, outcome_of
from tests.dags.batch_outcomes import (
    CASES,
    EXECUTION_TIMEOUT,
    MODES,
    TYPES,
    dag,
    name_of,
)
from tests.integration.test_run_operators import AlarmClock, mend_dag_test
from tests.integration.test_submission import Store, forget_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

COUNTED = ("succeeded", "partially_succeeded", "failed", "canceled", "not_started")


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rates are tested on a simulated clock; here they would only cost time."""
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_REQUESTS_PER_SECOND", "1000")
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_STARTS_PER_SECOND", "1000")


def set_outcomes(server: DataZoneServer, asset: str, endings: str) -> None:
    """Say how the runs of an asset end, one after the other."""
    if endings == "ENDLESS":
        server.set_run_outcome(asset, in_progress_seconds=3600, times=None)
        return
    *once, last = endings.split()
    for ending, times in [*((ending, 1) for ending in once), (last, None)]:
        server.set_run_outcome(asset, times=times, **outcome_of(TYPE_STATS[ending]))


# --------------------------------------------------------------- in real Airflow


@dataclass
class Outcome:
    """A task instance after its last try."""

    state: str = ""
    try_number: int = 0
    summary: Any = None
    results: Any = None
    errors: list[BaseException] = field(default_factory=list)
    triggers: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Outcomes:
    """The DAG run, and what was asked of the service."""

    tasks: dict[tuple[str, int], Outcome]
    assets: dict[str, list[str]]
    conf: dict[str, Any]
    requests: list[Any]

    def __getitem__(self, task_id: str) -> Outcome:
        return self.tasks[task_id, -1]

    def starts(self, name: str) -> list[dict[str, Any]]:
        """Return the parameters of the starts for a task's assets."""
        assets = self.assets[name]
        starts = [r.parameters for r in self.requests if r.operation == "StartMetadataGenerationRun"]
        return [parameters for parameters in starts if parameters["target"]["identifier"] in assets]


def observe(
    monkeypatch: pytest.MonkeyPatch, method: str, tasks: dict[tuple[str, int], Outcome], clock: LoopClock
) -> None:
    """See what leaves a method of a task: Airflow keeps it to itself."""
    original = getattr(DataZoneBatchMetadataGenerationOperator, method)

    @functools.wraps(original)
    def observed(self: Any, *args: Any, **kwargs: Any) -> Any:
        ti = (kwargs.get("context") or args[-1])["ti"]
        outcome = tasks.setdefault((ti.task_id, ti.map_index), Outcome())
        try:
            return original(self, *args, **kwargs)
        except TaskDeferred as deferred:
            outcome.triggers.append(deferred.trigger.serialize()[1])
            if self.execution_timeout:
                clock.put_forward(self.execution_timeout.total_seconds())
            raise
        except BaseException as error:
            outcome.errors.append(error)
            raise

    monkeypatch.setattr(DataZoneBatchMetadataGenerationOperator, method, observed)


@pytest.fixture(scope="module")
def outcomes(datazone_server: DataZoneServer, airflow_database: None) -> Outcomes:
    """Run the DAG once, on a catalog in which each task has assets of its own."""
    server = datazone_server
    server.reset()
    catalog = make_catalog(server)

    def create_asset(endings: str) -> str:
        asset = server.create_asset(
            domain_identifier=catalog.domain_identifier, project_identifier=catalog.project_identifier
        ).asset_identifier
        set_outcomes(server, asset, endings)
        return asset

    wanted = {name_of(case, mode): ends for case, (modes, ends) in CASES.items() for mode in modes}
    assets = {name: [create_asset(ending) for ending in endings] for name, endings in wanted.items()}
    conf = {
        "domain_identifier": catalog.domain_identifier,
        "project_identifier": catalog.project_identifier,
        "assets": assets,
    }
    before = len(server.requests)
    tasks: dict[tuple[str, int], Outcome] = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", server.connection)
        for option in ("MAX_REQUESTS_PER_SECOND", "MAX_STARTS_PER_SECOND"):
            monkeypatch.setenv(f"AIRFLOW__DATAZONE__{option}", "1000")
        mend_dag_test(monkeypatch)
        clock = AlarmClock(monkeypatch)
        monkeypatch.setattr(triggers, "time", clock)
        for method in ("execute", "resume_execution"):
            observe(monkeypatch, method, tasks, clock)

        def started() -> bool:
            endless, *_ = assets[name_of("timeout", "worker")]
            starts = [r.parameters for r in server.requests if r.operation == "StartMetadataGenerationRun"]
            return any(start["target"]["identifier"] == endless for start in starts)

        def time_is_up() -> None:
            # Of the two, Airflow's own is the first.
            clock.sound()
            clock.put_forward(EXECUTION_TIMEOUT.total_seconds())

        once(started, time_is_up, within=1800)
        dag_run = dag.test(run_conf=conf)
        for ti in dag_run.get_task_instances():
            outcome = tasks.setdefault((ti.task_id, ti.map_index), Outcome())
            outcome.state, outcome.try_number = str(ti.state), ti.try_number
            for name, key in (("summary", "return_value"), ("results", "results")):
                value = ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)
                setattr(outcome, name, value)
    return Outcomes(tasks, assets, conf, server.requests[before:])


def endings_of(case: str) -> list[str]:
    return CASES[case][1]


def check_xcoms(outcome: Outcome, assets: list[str], endings: list[str], duplicates: int = 0) -> None:
    """Every asset is in `results` as its run ended, and in the summary as what it counts for."""
    assert [row["asset"] for row in outcome.results] == assets
    for row, ending in zip(outcome.results, endings, strict=True):
        assert row["status"] == ("FAILED" if ending == "QUOTA" else ending)
        assert row["typeStats"] == TYPE_STATS[ending]
        assert row["run"]
        assert row.keys() == {"asset", "run", "status", "typeStats"}
    statuses = Counter(row["status"] for row in outcome.results)
    summary = dict(outcome.summary)
    assert summary.pop("duration_seconds") >= 0
    failures = summary.pop("failures")
    assert summary == {
        "total": len(assets),
        "succeeded": statuses["SUCCEEDED"],
        "partially_succeeded": statuses["PARTIALLY_SUCCEEDED"],
        "failed": statuses["FAILED"],
        "canceled": statuses["CANCELED"],
        "not_started": 0,
        "duplicates": duplicates,
    }
    assert failures == [row for row in outcome.results if row in failures]


@pytest.mark.parametrize("mode", MODES)
def test_batch_of_runs_that_succeed_is_a_success_with_a_row_for_each(outcomes: Outcomes, mode: str):
    name = name_of("all_succeed", mode)
    outcome = outcomes[name]
    assert (outcome.state, outcome.try_number, outcome.errors) == ("success", 1, [])
    check_xcoms(outcome, outcomes.assets[name], endings_of("all_succeed"))
    assert outcome.summary["failures"] == []
    assert len(outcome.triggers) == (mode == "deferrable")


@pytest.mark.parametrize("mode", MODES)
def test_any_failure_fails_the_task_after_all_have_ended_and_the_xcoms_are_there(
    outcomes: Outcomes, mode: str
):
    name = name_of("some_fail", mode)
    outcome = outcomes[name]
    assert outcome.state == "failed"
    check_xcoms(outcome, outcomes.assets[name], endings_of("some_fail"))
    assert outcome.summary["failures"] == outcome.results[1:3]
    assert [type(error) for error in outcome.errors] == [BatchFailedError]
    assert "2 of 5 assets" in str(outcome.errors[0])
    assert outcomes.assets[name][1] in str(outcome.errors[0])


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_started_and_retried_once_the_quota_is_used_up(outcomes: Outcomes, mode: str):
    name = name_of("quota", mode)
    outcome = outcomes[name]
    assert (outcome.state, outcome.try_number) == ("failed", 1)
    assert [type(error) for error in outcome.errors] == [QuotaUsedUpError]
    assert "4 were not started" in str(outcome.errors[0])
    assert {key: outcome.summary[key] for key in COUNTED} == {
        "succeeded": 1,
        "partially_succeeded": 0,
        "failed": 1,
        "canceled": 0,
        "not_started": 4,
    }
    for row in outcome.results[2:]:
        assert row == {"asset": row["asset"], "run": None, "status": None, "typeStats": []}
    assert outcome.results[1]["typeStats"] == TYPE_STATS["QUOTA"]
    assert len(outcomes.starts(name)) == 2


@pytest.mark.parametrize("mode", MODES)
def test_retry_works_on_what_failed_alone(outcomes: Outcomes, mode: str):
    name = name_of("retry", mode)
    outcome = outcomes[name]
    assert (outcome.state, outcome.try_number) == ("success", 2)
    assert [type(error) for error in outcome.errors] == [BatchFailedError]
    check_xcoms(outcome, outcomes.assets[name], ["SUCCEEDED"] * 3)
    # A token is a run. Before Airflow 3.3, where a retry remembers nothing, it sends those of the first try
    # again.
    runs = {(start["target"]["identifier"], start["clientToken"]) for start in outcomes.starts(name)}
    started = Counter(asset for asset, _ in runs)
    assert [started[asset] for asset in outcomes.assets[name]] == [1, 2, 1]


@pytest.mark.parametrize("mode", MODES)
def test_time_out_fails_the_task_and_leaves_the_runs_alone(outcomes: Outcomes, mode: str):
    outcome = outcomes[name_of("timeout", mode)]
    assert outcome.state == "failed"
    assert [type(error) for error in outcome.errors] == [AirflowTaskTimeout]
    assert (outcome.summary, outcome.results) == (None, None)
    assert [r for r in outcomes.requests if r.operation == "CancelMetadataGenerationRun"] == []
    if mode == "deferrable":
        deadline = outcome.triggers[0]["deadline"] - outcome.triggers[0]["started_at"]
        assert deadline == pytest.approx(EXECUTION_TIMEOUT.total_seconds())


def test_empty_list_is_a_summary_of_zeros(outcomes: Outcomes):
    outcome = outcomes["none_known-deferrable"]
    assert (outcome.state, outcome.errors, outcome.triggers) == ("success", [], [])
    check_xcoms(outcome, [], [])


@pytest.mark.parametrize("name", ["from_xcom-worker", "from_mapped-deferrable"])
def test_assets_may_come_from_tasks_upstream(outcomes: Outcomes, name: str):
    """As a list, and as the lazy sequence of what a mapped task returned."""
    assert outcomes[name].state == "success"
    check_xcoms(outcomes[name], outcomes.assets[name], endings_of(name.split("-")[0]))


def test_each_mapped_batch_works_on_its_own_assets(outcomes: Outcomes):
    assets, endings = outcomes.assets["mapped-deferrable"], endings_of("mapped")
    for index, part, state in ((0, slice(0, 2), "failed"), (1, slice(2, 3), "success")):
        outcome = outcomes.tasks["mapped-deferrable", index]
        assert outcome.state == state
        check_xcoms(outcome, assets[part], endings[part])


def test_nothing_is_pushed_where_nothing_is_to_be(outcomes: Outcomes):
    outcome = outcomes["no_xcom-worker"]
    assert (outcome.state, outcome.summary, outcome.results) == ("success", None, None)
    assert len(outcomes.starts("no_xcom-worker")) == 2


def test_template_that_did_not_render_to_a_list_is_named_and_not_retried(outcomes: Outcomes):
    outcome = outcomes["wrong-a_text"]
    assert (outcome.state, outcome.try_number) == ("failed", 1)
    assert [type(error) for error in outcome.errors] == [InvalidInputError]
    assert "template" in str(outcome.errors[0])


def test_an_asset_costs_one_start_and_nobody_s_runs_are_listed_for_it(outcomes: Outcomes):
    """Where nothing goes wrong: a retry before Airflow 3.3 has to ask."""
    asked = [r.parameters for r in outcomes.requests if r.operation == "ListMetadataGenerationRuns"]
    listed = {parameters.get("targetIdentifier") for parameters in asked}
    for name, assets in outcomes.assets.items():
        if not name.startswith("retry"):
            assert not listed & set(assets), name
            started = [start["target"]["identifier"] for start in outcomes.starts(name)]
            assert len(started) == len(set(started)), name


# ------------------------------------------------------------------ the trigger


@dataclass
class Assets:
    """Assets of a catalog, and a trigger for them."""

    catalog: Catalog
    identifiers: list[str]

    def rows(self) -> list[AssetRow]:
        return [AssetRow(asset, None, self.catalog.project_identifier) for asset in self.identifiers]

    def trigger(self, **arguments: Any) -> DataZoneBatchMetadataGenerationTrigger:
        known = {
            "rows": pack(self.rows()),
            "noted_at": time.time(),
            "types": TYPES,
            "domain_identifier": self.catalog.domain_identifier,
            "identity": "the task",
            "began_at": time.time(),
            "max_concurrent_runs": 50,
            "poll_interval": 0.02,
            "aws_conn_id": "datazone_default",
            "started_at": 123.5,
            "duplicates": 4,
        }
        return DataZoneBatchMetadataGenerationTrigger(**known | arguments)

    def operator(self, **arguments: Any) -> DataZoneBatchMetadataGenerationOperator:
        known = {
            "task_id": "generate",
            "asset_identifiers": self.identifiers,
            "types": TYPES,
            "domain_identifier": self.catalog.domain_identifier,
            "owning_project_identifier": self.catalog.project_identifier,
            "aws_conn_id": "datazone_default",
            "poll_interval": 0.02,
        }
        return DataZoneBatchMetadataGenerationOperator(**known | arguments)

    def statuses(self) -> list[list[str]]:
        """Ask the service for the statuses of each asset's runs."""
        client = self.catalog.server.client()
        found = []
        for asset in self.identifiers:
            listed = client.list_metadata_generation_runs(
                domainIdentifier=self.catalog.domain_identifier, targetIdentifier=asset
            )
            found.append([run["status"] for run in listed["items"]])
        return found


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


async def only_event(trigger: DataZoneBatchMetadataGenerationTrigger) -> dict[str, Any]:
    (event,) = [event async for event in trigger.run()]
    json.dumps(event.payload)
    return event.payload


def event_of(trigger: DataZoneBatchMetadataGenerationTrigger, timeout: float | None = 60.0) -> dict[str, Any]:
    return asyncio.run(asyncio.wait_for(only_event(trigger), timeout))


def test_event_has_the_batch_as_it_ended(assets: Assets):
    event = event_of(assets.trigger())
    assert (event["status"], event["started_at"], event["duplicates"]) == ("ended", 123.5, 4)
    rows = unpack(event["rows"])
    assert [row.asset_identifier for row in rows] == assets.identifiers
    assert {row.status for row in rows} == {"SUCCEEDED"}
    assert event["noted_at"] <= time.time()


def test_batch_of_many_costs_a_start_and_a_get_each(assets: Assets):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=0.3, times=None)
    before = server.request_counts
    event = event_of(assets.trigger(poll_interval=0.6))
    assert {row.status for row in unpack(event["rows"])} == {"SUCCEEDED"}
    asked = server.request_counts - before
    assert (asked["StartMetadataGenerationRun"], asked["GetMetadataGenerationRun"]) == (6, 6)
    assert asked.keys() <= {
        "StartMetadataGenerationRun",
        "GetMetadataGenerationRun",
        "ListMetadataGenerationRuns",
    }


def all_are_active(rows: list[AssetRow]) -> bool:
    return sum(row.is_active for row in rows) == 6


def test_deadline_is_told_and_what_is_known_is_handed_out(
    assets: Assets, loop_clock: LoopClock, monkeypatch: pytest.MonkeyPatch
):
    assets.catalog.server.set_run_outcome(in_progress_seconds=3600, times=None)
    monkeypatch.setattr(triggers, "time", loop_clock)
    trigger = assets.trigger(deadline=time.time() + 600)
    once(
        lambda: trigger._batch is not None and all_are_active(trigger._batch.rows),
        lambda: loop_clock.put_forward(600),
    )
    event = event_of(trigger, timeout=None)
    assert event["status"] == "timeout"
    assert all(row.is_active for row in unpack(event["rows"]))
    assert assets.statuses() == [["IN_PROGRESS"]] * 6


@pytest.mark.parametrize("long_ago", [False, True], ids=["in a moment", "after a while"])
def test_triggerer_that_takes_over_goes_on_with_the_runs_that_are_there(assets: Assets, long_ago: bool):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    trigger = assets.trigger()
    if long_ago:
        trigger = assets.trigger(noted_at=time.time() - 3600, began_at=time.time() - 3600)

    async def killed() -> None:
        task = asyncio.ensure_future(only_event(trigger))
        while server.request_counts["StartMetadataGenerationRun"] < 6:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(killed())
    if long_ago:
        # What is active is found without them.
        forget_tokens(assets.catalog)
    successor = type(trigger)(**trigger.serialize()[1])

    def succeed() -> None:
        for runs in list_runs(assets):
            server.set_run_status(runs[0], "SUCCEEDED")

    if long_ago:
        once(lambda: successor._batch is not None and all_are_active(successor._batch.rows), succeed)
    else:
        succeed()
    event = event_of(successor)
    assert event["status"] == "ended"
    assert assets.statuses() == [["SUCCEEDED"]] * 6
    assert [row.run_identifier for row in unpack(event["rows"])] == [runs[0] for runs in list_runs(assets)]


def list_runs(assets: Assets) -> list[list[str]]:
    client = assets.catalog.server.client()
    return [
        [
            run["id"]
            for run in client.list_metadata_generation_runs(
                domainIdentifier=assets.catalog.domain_identifier, targetIdentifier=asset
            )["items"]
        ]
        for asset in assets.identifiers
    ]


def test_connection_that_cannot_be_used_is_told_as_such(assets: Assets):
    event = event_of(assets.trigger(aws_conn_id="missing"))
    assert event["status"] == "error"
    assert "'missing'" in event["message"]
    assert [row.run_identifier for row in unpack(event["rows"])] == [None] * 6


def test_rate_that_is_no_rate_is_named(assets: Assets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_STARTS_PER_SECOND", "0")
    event = event_of(assets.trigger())
    assert event["status"] == "error"
    assert "[datazone] max_starts_per_second" in event["message"]


def test_trigger_survives_airflow_s_own_round_trip(assets: Assets, airflow_database: None):
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    made = assets.trigger(
        aws_conn_id=None,
        region_name="eu-west-1",
        verify=False,
        botocore_config={"retries": {"total_max_attempts": 1}},
        cancel_on_kill=True,
        allow_partial_success=False,
        poll_interval=7.5,
        deadline=1234567890.25,
        checkpoint_interval=60,
        quota_used_up=True,
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
    assert unpack(loaded.rows) == assets.rows()


# ---------------------------------------------------------------------- kill


def kill(
    trigger: DataZoneBatchMetadataGenerationTrigger, server: DataZoneServer, *, by_user: bool = True
) -> None:
    """Cancel a trigger in mid-batch as Airflow's triggerer does (`TriggerRunner.run_trigger`)."""

    async def run() -> None:
        try:
            await only_event(trigger)
        except asyncio.CancelledError:
            if by_user:
                await trigger.on_kill()
            raise

    async def main() -> None:
        task = asyncio.ensure_future(run())
        while not server.request_counts["StartMetadataGenerationRun"]:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait_for(asyncio.wait({task}), timeout=60)
        assert task.cancelled()

    asyncio.run(main())


def test_kill_by_a_user_cancels_every_run_that_was_started(assets: Assets):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    # The first is known to have ended; of the others some are being started just then.
    rows = assets.rows()
    rows[0].run_identifier, rows[0].status = "run", "SUCCEEDED"
    kill(assets.trigger(rows=pack(rows), cancel_on_kill=True), server)
    statuses = list(itertools.chain(*assets.statuses()))
    assert statuses
    assert set(statuses) == {"CANCELED"}
    assert server.request_counts["CancelMetadataGenerationRun"] == len(statuses)


@pytest.mark.parametrize(("cancel_on_kill", "by_user"), [(False, True), (True, False)])
def test_restart_or_a_trigger_that_is_not_to_cancel_leaves_the_runs_alone(
    assets: Assets, cancel_on_kill: bool, by_user: bool
):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    kill(assets.trigger(cancel_on_kill=cancel_on_kill), server, by_user=by_user)
    assert server.request_counts["CancelMetadataGenerationRun"] == 0


def test_runs_that_could_not_be_canceled_are_told_of(assets: Assets):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    server.fail("CancelMetadataGenerationRun", "AccessDeniedException", message="not yours", times=None)
    logged: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tests.batch.kill")
    logger.addHandler(handler)
    trigger = assets.trigger(cancel_on_kill=True)
    trigger._log = logger  # on Airflow 3 a logger of its own kind
    try:
        kill(trigger, server)
    finally:
        logger.removeHandler(handler)
    assert "not yours" in logged[-1]


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_worker_that_is_killed_cancels_the_active_runs_where_it_is_to(assets: Assets, cancel_on_kill: bool):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    task = assets.operator(cancel_on_kill=cancel_on_kill)
    found: list[list[list[str]]] = []

    def kill() -> None:
        task.on_kill()
        found.append(assets.statuses())

    killer = once(lambda: all_are_active(task._rows), kill)
    with pytest.raises(TaskKilled):
        task.execute(make_context())
    killer.join(30)
    assert found == [[["CANCELED" if cancel_on_kill else "IN_PROGRESS"]] * 6]


# ------------------------------------------------------- between task and trigger


class TaskInstance(SimpleNamespace):
    """Stands for Airflow's, which runs in the other tests; here only the way to it matters."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, **arguments: Any) -> Any:
        return self.pushed.get(arguments["key"])


def make_context(store: Store | None = None, **ti: Any) -> Any:
    """Return the context of a task instance in a try, as far as a batch looks at it."""
    known = {
        "dag_id": "enrich",
        "run_id": "manual",
        "task_id": "generate",
        "map_index": -1,
        "try_number": 1,
        "max_tries": 3,
        "pushed": {},
    }
    context: dict[str, Any] = {
        "ti": TaskInstance(**known | ti),
        "dag_run": SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)),
    }
    if store is not None:
        context["task_state_store"] = store
    return context


def carry_out(task: DataZoneBatchMetadataGenerationOperator, context: Any) -> dict[str, Any]:
    """Execute a task, deferred or not, as worker and triggerer do."""
    try:
        return dict(task.execute(context))
    except TaskDeferred as deferred:
        event = {"event": event_of(deferred.trigger)}
    return dict(task.resume_execution("execute_complete", event, context))


@pytest.fixture(params=[False, True], ids=["worker", "triggerer"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_task_is_deferred_again_at_each_checkpoint_until_the_batch_has_ended(assets: Assets):
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
        triggers[-1].checkpoint_interval = 1.0
        event = event_of(triggers[-1])
        assert event["status"] == "checkpoint"
        with pytest.raises(TaskDeferred) as deferred:
            task.resume_execution("execute_complete", {"event": event}, context)
    assert {trigger.identity for trigger in triggers} == {deferred.value.trigger.identity}
    there = list_runs(assets)
    for (run,) in there:
        server.set_run_status(run, "SUCCEEDED")
    event = event_of(deferred.value.trigger)
    summary = task.resume_execution("execute_complete", {"event": event}, context)
    assert (summary["total"], summary["succeeded"]) == (6, 6)
    assert 3 <= summary["duration_seconds"] <= time.time() - began + 0.1, "from the task's beginning"
    assert list_runs(assets) == there
    assert server.request_counts["StartMetadataGenerationRun"] == 6


def test_duplicates_count_once(assets: Assets, deferrable: bool):
    first, second = assets.identifiers[:2]
    given = [first, second, first, {"asset_identifier": first, "asset_revision": ""}, second]
    context = make_context()
    summary = carry_out(assets.operator(asset_identifiers=given, deferrable=deferrable), context)
    assert (summary["total"], summary["succeeded"], summary["duplicates"]) == (2, 2, 3)
    assert [row["asset"] for row in context["ti"].pushed["results"]] == [first, second]
    assert assets.catalog.server.request_counts["StartMetadataGenerationRun"] == 2


def test_revision_and_project_of_an_asset_are_those_it_names(assets: Assets, deferrable: bool):
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
    summary = carry_out(
        assets.operator(asset_identifiers=given, deferrable=deferrable), make_context(Store())
    )
    assert summary["succeeded"] == 3
    sent = [r.parameters for r in server.requests if r.operation == "StartMetadataGenerationRun"]
    mine = catalog.project_identifier
    assert {
        (s["target"]["identifier"], s["target"].get("revision"), s["owningProjectIdentifier"]) for s in sent
    } == {(first, None, mine), (second, "1", mine), (foreign, None, other)}
    for start in sent:
        assert (start["types"], start["domainIdentifier"]) == (TYPES, catalog.domain_identifier)


@pytest.mark.parametrize("allowed", [True, False])
def test_partial_success_is_a_failure_where_it_is_not_allowed(
    assets: Assets, deferrable: bool, allowed: bool
):
    set_outcomes(assets.catalog.server, assets.identifiers[1], "PARTIALLY_SUCCEEDED")
    context = make_context()
    task = assets.operator(allow_partial_success=allowed, deferrable=deferrable)
    if allowed:
        carry_out(task, context)
    else:
        with pytest.raises(BatchFailedError, match="no names today"):
            carry_out(task, context)
    summary, results = (context["ti"].pushed[key] for key in ("return_value", "results"))
    assert {key: summary[key] for key in COUNTED} == {
        "succeeded": 5,
        "partially_succeeded": 1,
        "failed": 0,
        "canceled": 0,
        "not_started": 0,
    }
    assert summary["failures"] == ([] if allowed else [results[1]])
    assert results[1]["typeStats"] == TYPE_STATS["PARTIALLY_SUCCEEDED"]


@pytest.mark.parametrize(
    ("max_failures", "passes"), [(0, False), (2, True), (1, False), (0.34, True), (0.33, False), (1.0, True)]
)
def test_as_many_may_fail_as_was_said(assets: Assets, max_failures: float, passes: bool):
    for asset, ending in zip(assets.identifiers[2:4], ["FAILED", "CANCELED"], strict=True):
        set_outcomes(assets.catalog.server, asset, ending)
    context = make_context()
    task = assets.operator(max_failures=max_failures)
    if passes:
        assert task.execute(context) == context["ti"].pushed["return_value"]
    else:
        with pytest.raises(BatchFailedError, match="2 of 6 assets"):
            task.execute(context)
    assert len(context["ti"].pushed["return_value"]["failures"]) == 2
    assert len(context["ti"].pushed["results"]) == 6


WRONG_INPUT: dict[str, dict[str, Any]] = {
    "a text": {"asset_identifiers": "['asset1', 'asset2']"},
    "nothing": {"asset_identifiers": None},
    "no identifier": {"asset_identifiers": ["asset1", {"asset_revision": "1"}]},
    "unknown member": {"asset_identifiers": [{"asset_identifier": "asset1", "revision": "1"}]},
    "identifier that is a list": {"asset_identifiers": [{"asset_identifier": ["asset1"]}]},
    "no slots": {"max_concurrent_runs": 0},
    "negative bound": {"max_failures": -1},
    "more than all": {"max_failures": 1.5},
    "types that are a text": {"types": "BUSINESS_NAMES"},
    "no project": {"owning_project_identifier": None},
    "no domain": {"domain_identifier": None},
}


@pytest.mark.parametrize("wrong", WRONG_INPUT.values(), ids=WRONG_INPUT)
def test_what_cannot_work_is_named_before_anything_is_sent(
    assets: Assets, deferrable: bool, wrong: dict[str, Any]
):
    before = len(assets.catalog.server.requests)
    with pytest.raises(InvalidInputError, match=r"asset_identifiers|max_|types|project|domain"):
        assets.operator(**wrong, deferrable=deferrable).execute(make_context(Store()))
    assert len(assets.catalog.server.requests) == before


@pytest.mark.parametrize("given", [[], (), iter(())], ids=["list", "tuple", "iterator"])
def test_nothing_to_do_needs_neither_domain_nor_project(assets: Assets, deferrable: bool, given: Any):
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
    assert context["ti"].pushed["results"] == []


@pytest.mark.parametrize(
    "aws",
    [
        {"aws_conn_id": None},
        {"region_name": "us-east-1", "verify": False, "botocore_config": {"read_timeout": 7}},
        {"verify": "/ca.pem", "cancel_on_kill": False},
    ],
)
def test_parameters_of_the_task_reach_the_trigger(assets: Assets, aws: dict[str, Any]):
    own = {
        "max_concurrent_runs": 7,
        "poll_interval": 2.5,
        "allow_partial_success": False,
        "cancel_on_kill": True,
    }
    task = assets.operator(deferrable=True, execution_timeout=timedelta(seconds=50), **own | aws)
    began = time.time()
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(make_context())
    arguments = json.loads(json.dumps(deferred.value.trigger.serialize()[1]))
    assert arguments.items() >= (own | {"aws_conn_id": "datazone_default", "types": TYPES} | aws).items()
    for name in ("region_name", "verify", "botocore_config"):
        assert arguments[name] == aws.get(name)
    assert arguments["domain_identifier"] == assets.catalog.domain_identifier
    assert unpack(arguments["rows"]) == assets.rows()
    assert began <= arguments["started_at"] <= time.time()
    assert arguments["deadline"] == arguments["started_at"] + 50
    # The trigger tells of its deadline itself; but where there is no trigger, that is soon.
    assert timedelta(seconds=50) < deferred.value.timeout < timedelta(seconds=350)


def test_worker_keeps_to_its_time_and_leaves_the_runs_alone(assets: Assets, loop_clock: LoopClock):
    """Outside of Airflow's own alarm, which may go off in the midst of anything."""
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    store = Store()
    task = assets.operator(execution_timeout=timedelta(hours=1))
    once(lambda: all_are_active(task._rows), lambda: loop_clock.put_forward(3600))
    with pytest.raises(AirflowTaskTimeout):
        task.execute(make_context(store))
    # Airflow calls it then.
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
def test_trouble_of_the_trigger_is_the_task_s_and_what_is_known_stays_known(
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
    context = make_context(store, pushed={"deferred_in_try": 1})
    with pytest.raises(error, match="not so"):
        assets.operator(deferrable=True).resume_execution(
            "execute_complete", {"event": event | known}, context
        )
    memory = remember(assets, make_context(store, try_number=2))
    assert memory.recall(assets.rows(), allow_partial_success=True)[0].run_identifier == "run0"
    assert memory.noted_at == 5.0


@pytest.mark.parametrize("message", ["Trigger failure", None])
def test_trigger_that_ended_without_a_word_is_named(assets: Assets, message: str | None):
    task = assets.operator(deferrable=True)
    context = make_context(pushed={"deferred_in_try": 1})
    how = ("__fail__", {"error": message}) if message else ("execute_complete", {"event": None})
    with pytest.raises(WaitFailedError, match=message or "without an event"):
        task.resume_execution(*how, context)


def test_refusal_of_every_asset_fails_the_task_without_retries(assets: Assets):
    assets.catalog.server.fail(
        "StartMetadataGenerationRun", "AccessDeniedException", message="not yours", times=None
    )
    context = make_context()
    with pytest.raises(RequestRefusedError, match="not yours"):
        assets.operator().execute(context)
    rows = context["ti"].pushed["results"]
    assert [row["run"] for row in rows] == [None] * 6
    refused = [row for row in rows if "not yours" in row.get("error", "")]
    summary = context["ti"].pushed["return_value"]
    assert (summary["failed"], summary["not_started"]) == (len(refused), 6 - len(refused))
    assert refused


def test_project_of_the_connection_is_for_assets_that_name_none(
    assets: Assets, monkeypatch: pytest.MonkeyPatch
):
    connection = json.loads(assets.catalog.server.connection)
    connection["extra"] |= {
        "domain_identifier": assets.catalog.domain_identifier,
        "owning_project_identifier": assets.catalog.project_identifier,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    task = assets.operator(owning_project_identifier=None, domain_identifier=None)
    assert task.execute(make_context())["succeeded"] == 6


# -------------------------------------------------------------------- the memory


def remember(assets: Assets, context: Any, types: list[str] | None = None) -> BatchMemory:
    return BatchMemory(context, assets.catalog.domain_identifier, types or TYPES)


@pytest.fixture(params=[True, False], ids=["3.3 and later", "before 3.3"])
def store(request: pytest.FixtureRequest) -> Store | None:
    return Store() if request.param else None


def execute_tries(
    assets: Assets, store: Store | None, tries: int, **arguments: Any
) -> list[dict[str, Any] | Exception]:
    """Try a task until it succeeds, as Airflow does."""
    ended: list[dict[str, Any] | Exception] = []
    for try_number in range(1, tries + 1):
        try:
            ended.append(assets.operator(**arguments).execute(make_context(store, try_number=try_number)))
            break
        except Exception as error:
            ended.append(error)
    return ended


def test_retries_start_nothing_but_what_failed(assets: Assets, store: Store | None):
    server = assets.catalog.server
    for asset, endings in zip(
        assets.identifiers, ["SUCCEEDED", "FAILED FAILED SUCCEEDED", "CANCELED SUCCEEDED"], strict=False
    ):
        set_outcomes(server, asset, endings)
    first, second, third = execute_tries(assets, store, 5)
    assert (type(first), type(second)) == (BatchFailedError, BatchFailedError)
    assert isinstance(third, dict)
    assert (third["total"], third["succeeded"]) == (6, 6)
    assert [len(runs) for runs in list_runs(assets)] == [1, 3, 2, 1, 1, 1]


def test_retry_after_a_refusal_tries_the_asset_again(assets: Assets, store: Store | None):
    server = assets.catalog.server
    server.fail(
        "StartMetadataGenerationRun",
        "ValidationException",
        asset_identifier=assets.identifiers[2],
    )
    first, second = execute_tries(assets, store, 2)
    assert isinstance(first, RequestRefusedError)
    assert isinstance(second, dict)
    assert [len(runs) for runs in list_runs(assets)] == [1] * 6


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "active"])
def test_worker_that_was_killed_left_runs_that_the_retry_goes_on_with(
    assets: Assets, store: Store | None, ended: bool, monkeypatch: pytest.MonkeyPatch
):
    """Killed by the system, so that it could note nothing; where runs are active, no token is needed."""
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    monkeypatch.setattr(engine, "HAND_OVER", 0.0)
    task = assets.operator(poll_interval=0.02)

    class Killed(BaseException):
        pass

    def note(self: BatchMemory, rows: list[AssetRow], noted_at: float | None = None) -> None:
        raise Killed

    async def killed(work: Any, domain: str) -> None:
        running = asyncio.ensure_future(work)
        while sum(row.is_active for row in task._rows) < 4:
            await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait({running})

    with monkeypatch.context() as dying:
        dying.setattr(BatchMemory, "note", note)
        dying.setattr(task, "_within_execution_timeout", killed)
        with pytest.raises(Killed):
            task.execute(make_context(store))
    there = list_runs(assets)
    assert sum(map(len, there)) >= 4

    def succeed() -> None:
        for run in itertools.chain(*there):
            server.set_run_status(run, "SUCCEEDED")

    server.set_run_outcome(times=None)
    retry = assets.operator()
    if ended:
        succeed()
    else:
        forget_tokens(assets.catalog)
        once(lambda: len({run.run_identifier for run in retry._rows} - {None}) == 6, succeed)
    summary = retry.execute(make_context(store, try_number=2))
    assert summary["succeeded"] == 6
    after = list_runs(assets)
    assert [len(runs) for runs in after] == [1] * 6
    assert all(before in ([], runs) for before, runs in zip(there, after, strict=True))


def test_clear_of_a_task_that_had_succeeded_does_it_all_anew(assets: Assets):
    store = Store()
    execute_tries(assets, store, 1)
    # A kill between the batch's success and the task's is no clear.
    assert assets.operator().execute(make_context(store, try_number=2))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [1] * 6
    # As `clear_task_instances` counts.
    assert assets.operator().execute(make_context(store, try_number=3, max_tries=5))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6
    assert assets.operator().execute(make_context(store, try_number=4, max_tries=5))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6


def test_clear_after_retries_was_lowered_starts_other_runs(assets: Assets):
    """Two retries, and then one: `max_tries` is 2 before and after the clear of the first try."""
    store = Store()

    def execute(try_number: int, clear_number: int) -> None:
        context = make_context(store, try_number=try_number, max_tries=2)
        context["dag_run"].clear_number = clear_number
        context["task"] = SimpleNamespace(retries=2 if clear_number == 0 else 1)
        assert assets.operator().execute(context)["succeeded"] == 6

    execute(1, 0)
    execute(2, 1)
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6
    # A kill after the success that Airflow has not seen.
    execute(3, 1)
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6


def test_clear_of_a_task_that_had_failed_goes_on_with_it(assets: Assets):
    store = Store()
    set_outcomes(assets.catalog.server, assets.identifiers[3], "FAILED SUCCEEDED")
    execute_tries(assets, store, 1)
    assert assets.operator().execute(make_context(store, try_number=2, max_tries=4))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [1, 1, 1, 2, 1, 1]


def test_kill_right_after_a_clear_is_not_taken_for_the_clear_again(assets: Assets):
    store = Store()
    execute_tries(assets, store, 1)
    cleared = remember(assets, make_context(store, try_number=2, max_tries=4))
    time.sleep(0.02)
    retried = remember(assets, make_context(store, try_number=3, max_tries=4))
    assert retried.identity == cleared.identity
    assert retried.noted_at <= cleared.noted_at, "it is long ago that anything was noted"


def test_quota_that_is_there_again_is_used_after_a_clear(assets: Assets):
    """The one that met its end was half a success, and stays so."""
    store = Store()
    server = assets.catalog.server
    server.set_run_outcome(
        assets.identifiers[1],
        statuses={"BUSINESS_NAMES": "FAILED"},
        error_messages={"BUSINESS_NAMES": "business name generation has reached monthly quota"},
    )
    (first,) = execute_tries(assets, store, 1, max_concurrent_runs=1)
    assert isinstance(first, QuotaUsedUpError)
    summary = assets.operator().execute(make_context(store, try_number=2, max_tries=4))
    assert (summary["succeeded"], summary["partially_succeeded"]) == (5, 1)
    assert [len(runs) for runs in list_runs(assets)] == [1] * 6


def test_list_that_has_changed_keeps_what_is_known(assets: Assets):
    store = Store()
    everything = list(assets.identifiers)
    set_outcomes(assets.catalog.server, everything[0], "FAILED SUCCEEDED")
    assets.identifiers = everything[:4]
    execute_tries(assets, store, 1)
    assets.identifiers = [everything[5], *everything[:3]]
    summary = assets.operator().execute(make_context(store, try_number=2))
    assert (summary["total"], summary["succeeded"]) == (4, 4)
    assets.identifiers = everything
    assert [len(runs) for runs in list_runs(assets)] == [2, 1, 1, 1, 0, 1]


def test_other_types_are_another_batch(assets: Assets):
    store = Store()
    first = remember(assets, make_context(store))
    first.note(
        [
            AssetRow(row.asset_identifier, None, row.owning_project_identifier, 1, "run")
            for row in assets.rows()
        ]
    )
    other = remember(assets, make_context(store, try_number=2), ["BUSINESS_NAMES"])
    assert other.identity != first.identity
    recalled = other.recall(assets.rows(), allow_partial_success=True)
    assert [row.run_identifier for row in recalled] == [None] * 6
    assert other.noted_at == 0.0, "what an earlier try started for it is not known"


def test_partial_success_is_done_again_where_it_is_no_longer_allowed(assets: Assets):
    store = Store()
    rows = assets.rows()
    for row in rows:
        row.run_identifier, row.status = "run", "PARTIALLY_SUCCEEDED"
    remember(assets, make_context(store)).note(rows)
    memory = remember(assets, make_context(store, try_number=2))
    assert memory.recall(assets.rows(), allow_partial_success=True) == rows
    recalled = memory.recall(assets.rows(), allow_partial_success=False)
    assert [(row.run_identifier, row.submission) for row in recalled] == [(None, 2)] * 6


def many_rows(number: int) -> list[AssetRow]:
    random = Random(number)

    def identifier() -> str:
        return "".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=36))

    return [AssetRow(identifier(), None, "project", 1, identifier()) for _ in range(number)]


def own(rows: list[AssetRow]) -> list[AssetRow]:
    """Return rows as the try that stored them had them: the next one has adopted their runs."""
    assert all((row.adopted_at is not None) == row.is_active for row in rows)
    return [replace(row, adopted_at=None) for row in rows]


class SizedStore(Store):
    """Airflow warns beyond 64 KB for a key; and whoever writes may be killed between two keys."""

    def __init__(self) -> None:
        super().__init__()
        self.left: float = float("inf")

    def set(self, key: str, value: Any) -> None:
        if self.left <= 0:
            raise OSError("killed")
        self.left -= 1
        assert len(json.dumps(value)) < 64_000
        super().set(key, value)


def test_memory_of_thousands_is_kept_in_parts_that_grow_and_shrink(assets: Assets):
    store = SizedStore()
    for try_number, number in enumerate([10, 4000, 100, 2000, 5], start=1):
        rows = many_rows(number)
        remember(assets, make_context(store, try_number=try_number)).note(rows)
        memory = remember(assets, make_context(store, try_number=try_number + 1))
        fresh = [AssetRow(row.asset_identifier, None, "project") for row in rows]
        assert own(memory.recall(fresh, allow_partial_success=True)) == rows
        assert memory.noted_at > 0
    assert len(store._values) > 5, "there were parts"


@pytest.mark.parametrize("before", [10, 2500])
def test_memory_is_the_old_or_the_new_wherever_the_writing_was_interrupted(assets: Assets, before: int):
    old, new = many_rows(before), many_rows(2000)
    fresh = [AssetRow(row.asset_identifier, None, "project") for row in [*old, *new]]
    seen = set()
    for sets in itertools.count():
        store = SizedStore()
        remember(assets, make_context(store)).note(old, 1.0)
        store.left = sets
        memory = remember(assets, make_context(store, try_number=2))
        try:
            memory.note(new, 2.0)
        except OSError:
            ended = False
        else:
            ended = True
        store.left = float("inf")
        memory = remember(assets, make_context(store, try_number=3))
        recalled = own(memory.recall(fresh, allow_partial_success=True))
        known = [row for row in recalled if row.run_identifier]
        assert (known, memory.noted_at) in ((old, 1.0), (new, 2.0))
        seen.add(memory.noted_at)
        if ended:
            break
    assert seen == {1.0, 2.0}
    assert sets > 3


@pytest.mark.parametrize("broken", ["not base85 \x00", "", 5, None])
def test_memory_that_somebody_has_changed_is_none(assets: Assets, broken: Any):
    store = Store()
    rows = assets.rows()
    for row in rows:
        row.run_identifier = "run"
    remember(assets, make_context(store)).note(rows)
    (part,) = [key for key in store._values if key.endswith("_0")]
    store.set(part, broken)
    memory = remember(assets, make_context(store, try_number=2))
    recalled = memory.recall(assets.rows(), allow_partial_success=True)
    assert [row.run_identifier for row in recalled] == [None] * 6
    assert memory.noted_at == 0.0, "so that DataZone is asked"


def test_worker_notes_how_far_it_is_while_it_works(assets: Assets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "REPORT_INTERVAL", 0.01)
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    store = Store()
    noted: list[int] = []
    note = BatchMemory.note

    def observed(self: BatchMemory, rows: list[AssetRow], noted_at: float | None = None) -> None:
        note(self, rows, noted_at)
        memory = remember(assets, make_context(store, try_number=2))
        recalled = memory.recall(assets.rows(), allow_partial_success=True)
        runs = [row.run_identifier for row in recalled if row.run_identifier is not None]
        noted.append(len(runs))
        if len(runs) in (3, 6):
            # No other is started before.
            for run in runs:
                server.set_run_status(run, "SUCCEEDED")

    monkeypatch.setattr(BatchMemory, "note", observed)
    assets.operator(max_concurrent_runs=3).execute(make_context(store))
    assert noted == sorted(noted)
    assert {3, 6} <= set(noted)


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


def test_batch_without_assets_says_that_there_is_nothing_to_do(
    assets: Assets, deferrable: bool, task_log: tuple[logging.Logger, list[str]]
):
    summary = assets.operator(asset_identifiers=[], deferrable=deferrable).execute(make_context())
    assert summary["total"] == 0
    assert [line for line in task_log[1] if "nothing to do" in line] == [
        "asset_identifiers is empty: there is nothing to do."
    ]


def test_batch_that_an_earlier_try_has_done_says_that_there_is_nothing_to_do(
    assets: Assets, task_log: tuple[logging.Logger, list[str]]
):
    store = Store()
    assets.operator().execute(make_context(store))
    # As after a kill between the last asset and the end of the task.
    record = store.get("metadata_generation_batch")
    store.set("metadata_generation_batch", {k: v for k, v in record.items() if "succeeded" not in k})
    task_log[1].clear()
    assert assets.operator().execute(make_context(store, try_number=2))["succeeded"] == 6
    assert [line for line in task_log[1] if "nothing to do" in line] == [
        "An earlier try has done all 6 assets: there is nothing to do."
    ]


def test_progress_is_told_in_the_task_s_log(
    assets: Assets, deferrable: bool, task_log: tuple[logging.Logger, list[str]]
):
    logger, logged = task_log
    if deferrable:
        trigger = assets.trigger()
        trigger._log = logger
        event_of(trigger)
    else:
        assets.operator().execute(make_context())
    lines = [line for line in logged if " done · " in line]
    assert lines[-1].startswith("6/6 done · 6 succeeded · 0 failed · 0 active")
    assert not [line for line in logged if "is IN_PROGRESS" in line], "thousands of runs would drown it"


# ------------------------------------------------------------ killed and interrupted


def test_trigger_that_is_killed_before_it_has_begun_cancels_the_runs_that_its_rows_name(assets: Assets):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    rows = assets.rows()
    for row in rows[:4]:
        row.run_identifier = assets.catalog.server.client().start_metadata_generation_run(
            domainIdentifier=assets.catalog.domain_identifier,
            owningProjectIdentifier=row.owning_project_identifier,
            target={"type": "ASSET", "identifier": row.asset_identifier},
            types=TYPES,
        )["id"]
    trigger = assets.trigger(rows=pack(rows), cancel_on_kill=True)
    asyncio.run(trigger.on_kill())
    assert assets.statuses() == [["CANCELED"]] * 4 + [[]] * 2
    event = event_of(trigger)
    assert event["status"] == "checkpoint", "nothing is started by a trigger that was killed"
    assert assets.statuses() == [["CANCELED"]] * 4 + [[]] * 2


def test_worker_that_is_killed_before_its_batch_begins_cancels_the_runs_that_it_remembers(
    assets: Assets, monkeypatch: pytest.MonkeyPatch
):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    store = Store()
    stored = assets.rows()
    for row in stored:
        row.run_identifier = server.client().start_metadata_generation_run(
            domainIdentifier=assets.catalog.domain_identifier,
            owningProjectIdentifier=row.owning_project_identifier,
            target={"type": "ASSET", "identifier": row.asset_identifier},
            types=TYPES,
        )["id"]
    remember(assets, make_context(store)).note(stored)
    task = assets.operator()

    work = task._work
    monkeypatch.setattr(task, "_work", lambda *arguments: (task.on_kill(), work(*arguments))[1])
    with pytest.raises(TaskKilled):
        task.execute(make_context(store, try_number=2))
    assert assets.statuses() == [["CANCELED"]] * 6


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_worker_does_not_hand_its_batch_to_a_triggerer(assets: Assets, when: str):
    task = assets.operator(deferrable=True)
    if when == "before":
        task.on_kill()
        with pytest.raises(TaskKilled):
            task.execute(make_context())
    else:
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(make_context())
        deferred.value.trigger.checkpoint_interval = 0.0
        event = event_of(deferred.value.trigger)
        task.on_kill()
        with pytest.raises(TaskKilled):
            task.resume_execution("execute_complete", {"event": event}, make_context())


def test_time_out_of_a_connection_lookup_is_not_the_batch_s_own(
    assets: Assets, monkeypatch: pytest.MonkeyPatch
):
    def lookup(self: Any, conn_id: str) -> Any:
        raise TimeoutError("the secrets backend did not answer")

    monkeypatch.setattr("airflow_provider_datazone.hooks.datazone.DataZoneHook.get_connection", lookup)
    task = assets.operator(execution_timeout=timedelta(hours=1))
    with pytest.raises(TimeoutError, match="the secrets backend did not answer") as raised:
        task.execute(make_context())
    assert not isinstance(raised.value, AirflowTaskTimeout)


def test_domain_that_the_connection_names_by_now_is_not_mixed_into_a_deferred_batch(
    assets: Assets, monkeypatch: pytest.MonkeyPatch
):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)

    def connect(domain: str) -> None:
        connection = json.loads(server.connection)
        connection["extra"]["domain_identifier"] = domain
        monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))

    connect(assets.catalog.domain_identifier)
    context = make_context(Store())
    with pytest.raises(TaskDeferred) as deferred:
        assets.operator(deferrable=True, domain_identifier=None).execute(context)
    deferred.value.trigger.checkpoint_interval = 1.0
    event = event_of(deferred.value.trigger)
    assert event["status"] == "checkpoint"
    connect("dzd_another")
    with pytest.raises(TaskDeferred) as again:
        assets.operator(deferrable=True, domain_identifier=None).resume_execution(
            "execute_complete", {"event": event}, context
        )
    before, after = deferred.value.trigger, again.value.trigger
    assert after.domain_identifier == assets.catalog.domain_identifier
    assert (after.identity, after.types) == (before.identity, before.types)
    # An event that version 0.1 has stored names neither.
    old = {key: value for key, value in event.items() if key not in ("domain_identifier", "types")}
    with pytest.raises(TaskDeferred) as from_old:
        assets.operator(deferrable=True).resume_execution("execute_complete", {"event": old}, context)
    assert from_old.value.trigger.domain_identifier == assets.catalog.domain_identifier


def test_batch_whose_work_ended_early_is_not_reported_as_ended(assets: Assets):
    """One Start is rejected and another hangs, and then its time is up: the rows tell what is left."""
    server = assets.catalog.server
    server.fail(
        "StartMetadataGenerationRun",
        "UnrecognizedClientException",
        asset_identifier=assets.identifiers[0],
    )
    server.fail("StartMetadataGenerationRun", "hang", seconds=1.5, asset_identifier=assets.identifiers[1])
    event = event_of(assets.trigger(checkpoint_interval=0.5, max_concurrent_runs=2))
    rows = unpack(event["rows"])
    assert any(not row.is_done for row in rows)
    assert event["status"] == "checkpoint"


def test_time_out_of_a_deferred_batch_leaves_its_runs_alone(assets: Assets):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    task = assets.operator(deferrable=True, execution_timeout=timedelta(hours=1))
    context = make_context(Store())
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    deferred.value.trigger.checkpoint_interval = 1.0
    event = event_of(deferred.value.trigger) | {"status": "timeout", "message": "time is up"}
    active = sum(map(len, list_runs(assets)))
    assert active
    with pytest.raises(AirflowTaskTimeout):
        task.resume_execution("execute_complete", {"event": event}, context)
    # As Airflow does after a time-out.
    task.on_kill()
    assert [status for runs in assets.statuses() for status in runs] == ["IN_PROGRESS"] * active


def test_batch_that_is_killed_while_it_defers_itself_cancels_its_runs(
    assets: Assets, monkeypatch: pytest.MonkeyPatch
):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    context = make_context(Store())
    with pytest.raises(TaskDeferred) as deferred:
        assets.operator(deferrable=True).execute(context)
    deferred.value.trigger.checkpoint_interval = 1.0
    event = event_of(deferred.value.trigger)
    active = sum(map(len, list_runs(assets)))
    assert active
    task = assets.operator(deferrable=True)
    defer = task.defer

    def defer_when_killed(**arguments: Any) -> None:
        task.on_kill()
        defer(**arguments)

    monkeypatch.setattr(task, "defer", defer_when_killed)
    with pytest.raises(TaskKilled):
        task.resume_execution("execute_complete", {"event": event}, context)
    assert [status for runs in assets.statuses() for status in runs] == ["CANCELED"] * active
