"""Final states, XComs and requests of batch tasks in a real Airflow DAG run."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    InvalidInputError,
    QuotaUsedUpError,
)
from airflow_provider_datazone.operators.datazone import DataZoneBatchMetadataGenerationOperator
from airflow_provider_datazone.triggers import datazone as triggers
from tests.conftest import TYPE_STATS, LoopClock, make_catalog, once
from tests.dags.batch_outcomes import (
    CASES,
    EXECUTION_TIMEOUT,
    MODES,
    dag,
    name_of,
)
from tests.integration.batch.tasks import COUNTED, set_outcomes
from tests.integration.dag_runs import AlarmClock, mend_dag_test

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer


pytestmark = pytest.mark.usefixtures("unhurried")


@dataclass
class Outcome:
    """The outcome of a task instance after its last try."""

    state: str = ""
    try_number: int = 0
    summary: Any = None
    results: Any = None
    errors: list[BaseException] = field(default_factory=list)
    triggers: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Outcomes:
    """The outcomes of a DAG run, and the requests it sent."""

    tasks: dict[tuple[str, int], Outcome]
    assets: dict[str, list[str]]
    conf: dict[str, Any]
    requests: list[Any]

    def __getitem__(self, task_id: str) -> Outcome:
        return self.tasks[task_id, -1]

    def starts(self, name: str) -> list[dict[str, Any]]:
        """Return the parameters of the start requests for a task's assets."""
        assets = self.assets[name]
        starts = [r.parameters for r in self.requests if r.operation == "StartMetadataGenerationRun"]
        return [parameters for parameters in starts if parameters["target"]["identifier"] in assets]


def observe(
    monkeypatch: pytest.MonkeyPatch, method: str, tasks: dict[tuple[str, int], Outcome], clock: LoopClock
) -> None:
    """Record the errors and deferrals that a task method raises, which Airflow does not expose."""
    original = getattr(DataZoneBatchMetadataGenerationOperator, method)

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
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

    monkeypatch.setattr(DataZoneBatchMetadataGenerationOperator, method, wrapper)


@pytest.fixture(scope="module")
def outcomes(datazone_server: DataZoneServer, airflow_database: None) -> Outcomes:
    """Run the DAG once. Each task has its own assets in the catalog."""
    server = datazone_server
    server.reset()
    catalog = make_catalog(server)

    def create_asset(endings: str) -> str:
        asset = server.create_asset(
            domain_identifier=catalog.domain_identifier, project_identifier=catalog.project_identifier
        ).asset_identifier
        set_outcomes(server, asset, endings)
        return asset

    endings_by_name = {name_of(case, mode): ends for case, (modes, ends) in CASES.items() for mode in modes}
    assets = {name: [create_asset(ending) for ending in endings] for name, endings in endings_by_name.items()}
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

        def has_started() -> bool:
            endless_asset, *_ = assets[name_of("timeout", "worker")]
            starts = [r.parameters for r in server.requests if r.operation == "StartMetadataGenerationRun"]
            return any(start["target"]["identifier"] == endless_asset for start in starts)

        def time_out() -> None:
            # Airflow's alarm comes before the deadline of the batch.
            clock.sound()
            clock.put_forward(EXECUTION_TIMEOUT.total_seconds())

        once(has_started, time_out, within=1800)
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
    """Check that `results` contains the status of each asset, and that the summary counts match."""
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
        "accepted": 0,
        "published": 0,
        "not_started": 0,
        "duplicates": duplicates,
    }
    assert failures == [row for row in outcome.results if row in failures]


@pytest.mark.parametrize("mode", MODES)
def test_task_succeeds_if_all_runs_succeed_and_pushes_a_row_for_each(outcomes: Outcomes, mode: str):
    name = name_of("all_succeed", mode)
    outcome = outcomes[name]
    assert (outcome.state, outcome.try_number, outcome.errors) == ("success", 1, [])
    check_xcoms(outcome, outcomes.assets[name], endings_of("all_succeed"))
    assert outcome.summary["failures"] == []
    assert len(outcome.triggers) == (mode == "deferrable")


@pytest.mark.parametrize("mode", MODES)
def test_failed_run_fails_the_task_after_all_runs_end_and_xcoms_are_pushed(outcomes: Outcomes, mode: str):
    name = name_of("some_fail", mode)
    outcome = outcomes[name]
    assert outcome.state == "failed"
    check_xcoms(outcome, outcomes.assets[name], endings_of("some_fail"))
    assert outcome.summary["failures"] == outcome.results[1:3]
    assert [type(error) for error in outcome.errors] == [BatchFailedError]
    assert "2 of 5 assets" in str(outcome.errors[0])
    assert outcomes.assets[name][1] in str(outcome.errors[0])


@pytest.mark.parametrize("mode", MODES)
def test_exhausted_quota_stops_starts_and_fails_without_retries(outcomes: Outcomes, mode: str):
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
        "accepted": 0,
        "published": 0,
        "not_started": 4,
    }
    for row in outcome.results[2:]:
        reason = "No run was started: the account's monthly quota is used up"
        assert row == {
            "asset": row["asset"],
            "run": None,
            "status": None,
            "typeStats": [],
            "error": reason,
        }
    assert outcome.results[1]["typeStats"] == TYPE_STATS["QUOTA"]
    assert len(outcomes.starts(name)) == 2


@pytest.mark.parametrize("mode", MODES)
def test_retry_starts_runs_only_for_failed_assets(outcomes: Outcomes, mode: str):
    name = name_of("retry", mode)
    outcome = outcomes[name]
    assert (outcome.state, outcome.try_number) == ("success", 2)
    assert [type(error) for error in outcome.errors] == [BatchFailedError]
    check_xcoms(outcome, outcomes.assets[name], ["SUCCEEDED"] * 3)
    # Each client token stands for one run. Before Airflow 3.3 a retry has no stored state, so it sends the
    # tokens of the first try again.
    runs = {(start["target"]["identifier"], start["clientToken"]) for start in outcomes.starts(name)}
    started = Counter(asset for asset, _ in runs)
    assert [started[asset] for asset in outcomes.assets[name]] == [1, 2, 1]


@pytest.mark.parametrize("mode", MODES)
def test_timeout_fails_the_task_and_does_not_cancel_runs(outcomes: Outcomes, mode: str):
    outcome = outcomes[name_of("timeout", mode)]
    assert outcome.state == "failed"
    assert [type(error) for error in outcome.errors] == [AirflowTaskTimeout]
    assert outcome.summary["total"] == len(outcome.results) == len(outcomes.assets[name_of("timeout", mode)])
    assert [r for r in outcomes.requests if r.operation == "CancelMetadataGenerationRun"] == []
    if mode == "deferrable":
        deadline = outcome.triggers[0]["deadline"] - outcome.triggers[0]["started_at"]
        assert deadline == pytest.approx(EXECUTION_TIMEOUT.total_seconds())


def test_empty_list_returns_a_summary_of_zeros(outcomes: Outcomes):
    outcome = outcomes["none_known-deferrable"]
    assert (outcome.state, outcome.errors, outcome.triggers) == ("success", [], [])
    check_xcoms(outcome, [], [])


@pytest.mark.parametrize("name", ["from_xcom-worker", "from_mapped-deferrable"])
def test_upstream_tasks_can_provide_the_assets(outcomes: Outcomes, name: str):
    """Both as a list and as the lazy sequence that a mapped task returns."""
    assert outcomes[name].state == "success"
    check_xcoms(outcomes[name], outcomes.assets[name], endings_of(name.split("-")[0]))


def test_each_mapped_batch_processes_its_own_assets(outcomes: Outcomes):
    assets, endings = outcomes.assets["mapped-deferrable"], endings_of("mapped")
    for index, part, state in ((0, slice(0, 2), "failed"), (1, slice(2, 3), "success")):
        outcome = outcomes.tasks["mapped-deferrable", index]
        assert outcome.state == state
        check_xcoms(outcome, assets[part], endings[part])


def test_no_xcoms_are_pushed_if_do_xcom_push_is_false(outcomes: Outcomes):
    outcome = outcomes["no_xcom-worker"]
    assert (outcome.state, outcome.summary, outcome.results) == ("success", None, None)
    assert len(outcomes.starts("no_xcom-worker")) == 2


def test_template_that_renders_to_a_string_fails_without_retries(outcomes: Outcomes):
    outcome = outcomes["wrong-a_text"]
    assert (outcome.state, outcome.try_number) == ("failed", 1)
    assert [type(error) for error in outcome.errors] == [InvalidInputError]
    assert "template" in str(outcome.errors[0])


def test_each_asset_needs_one_start_request_and_no_list_requests(outcomes: Outcomes):
    """Retries are excluded: before Airflow 3.3 a retry has to list runs."""
    list_requests = [r.parameters for r in outcomes.requests if r.operation == "ListMetadataGenerationRuns"]
    listed = {parameters.get("targetIdentifier") for parameters in list_requests}
    for name, assets in outcomes.assets.items():
        if not name.startswith("retry"):
            assert not listed & set(assets), name
            started = [start["target"]["identifier"] for start in outcomes.starts(name)]
            assert len(started) == len(set(started)), name
