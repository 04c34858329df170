"""The deferrable sensor works in an Airflow deployment with a scheduler, an executor, supervisors and triggerers."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.conftest import Catalog, make_catalog, outcome_of

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer
    from tests.system.deployment import Component, Deployment, TaskInstance

LISTED_WAITS = 30
# The number of waits when the test kills a triggerer. Each wait needs two starts of a worker, 1 to 2 s in all. Fewer
# waits test the same handover in less time, but put less load on the triggerer.
HANDOVER_WAITS = int(os.environ.get("DATAZONE_TEST_WAITS", "200"))
SECONDS_PER_TASK = 6.0
FAILING = 7
# The log levels in the formats of Airflow 2.11, Airflow 3 and its JSON logs.
SEVERE = re.compile(
    r"""\} (?:ERROR|CRITICAL) -|\[(?:error|critical) *\]|"level": ?"(?:error|critical)"|Traceback"""
)
WARNING = re.compile(r"""\} WARNING -|\[warning *\]|"level": ?"warning\"""")
# A triggerer imports boto3 and creates a client once, in threads that hold the GIL for up to 0.3 s in all, or more on a
# busy machine. A client for each wait would block the event loop for about 0.05 s each.
BLOCKED_SECONDS = 3.0
BLOCKED = re.compile(r"async thread was blocked for ([\d.]+) seconds")


def type_stats(index: int) -> list[dict[str, str]]:
    """Return the unique typeStats of the run of a wait."""
    return [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "FAILED" if index == FAILING else "SUCCEEDED"},
        {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": f"no names for {index}"},
    ]


class Waits:
    """A DAG run with waits for runs that are active until the test ends them."""

    def __init__(
        self, deployment: Deployment, catalog: Catalog, name: str, indexes: range, **conf: Any
    ) -> None:
        self.deployment = deployment
        self.server = catalog.server
        self.name = name
        self.indexes = indexes
        self.report = deployment.home / f"{name}.json"
        self.runs: list[str] = []
        for index in indexes:
            run = catalog.start_run(**outcome_of(type_stats(index)), in_progress_seconds=0)
            self.server.set_run_status(run, "IN_PROGRESS")
            self.runs.append(run)
        run_conf = {
            "runs": self.runs,
            "domain_identifier": catalog.domain_identifier,
            "report": str(self.report),
        }
        deployment.trigger("deferred_waits", name, run_conf | conf)

    @property
    def seconds(self) -> float:
        return 120 + SECONDS_PER_TASK * len(self.runs)

    def task_instances(self) -> list[TaskInstance]:
        return self.deployment.task_instances(self.name)

    def are_deferred_to(self, triggerer: int) -> bool:
        states = [ti.state for ti in self.task_instances()]
        number = len(self.runs)
        return states == ["deferred"] * number and self.deployment.triggers() == [triggerer] * number

    def end(self, runs: list[str]) -> None:
        for run in runs:
            self.server.set_run_status(run, None)

    def are_collected(self) -> bool:
        """Return whether the waits and the task after them have ended."""
        (collect,) = self.deployment.task_instances(self.name, "collect")
        return collect.state in ("success", "failed", "upstream_failed")

    def results(self) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = json.loads(self.report.read_text(encoding="utf-8"))
        return results

    def logs(self, map_index: int) -> list[Path]:
        folder = self.deployment.home / f"logs/dag_id=deferred_waits/run_id={self.name}/task_id=wait"
        return sorted((folder / f"map_index={map_index}").iterdir())


def problems(triggerers: list[Component], waits: Waits) -> list[str]:
    """Return the errors in the logs of the triggerers, and the errors and warnings of the triggers of the waits."""
    lines = [line for component in triggerers for line in component.output.splitlines()]
    logs = [log for index in range(len(waits.runs)) for log in waits.logs(index) if ".trigger." in log.name]
    trigger_lines = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines + trigger_lines if SEVERE.search(line)]
    # Ignore warnings of Airflow about its own code: those of the triggerer, and (3.0) Python deprecation warnings.
    return found + [line for line in trigger_lines if WARNING.search(line) and "py.warnings" not in line]


def blocked_seconds(triggerer: Component) -> float:
    """Return the seconds of a blocked event loop in the triggerer log. Airflow logs blocks of 0.2 s or more."""
    return sum(float(seconds) for seconds in BLOCKED.findall(triggerer.output))


def operations(server: DataZoneServer, since: int) -> list[str]:
    return [request.operation for request in server.requests[since:]]


# ------------------------------------------------------------------ end to end


class EndToEnd(NamedTuple):
    waits: Waits
    while_deferred: list[str]
    after_end: list[str]
    task_instances: list[TaskInstance]
    results: list[dict[str, Any]]
    problems: list[str]
    blocked: float


@pytest.fixture(scope="module")
def end_to_end(deployment: Deployment, datazone_server: DataZoneServer) -> EndToEnd:
    """Run waits with one triggerer; the run of one wait fails."""
    catalog = make_catalog(datazone_server)
    triggerer, job = deployment.start_triggerer()
    try:
        waits = Waits(deployment, catalog, "end_to_end", range(LISTED_WAITS))
        deployment.wait_for("deferred tasks", lambda: waits.are_deferred_to(job), seconds=waits.seconds)
        before = len(datazone_server.requests)
        # All waits share one poll when several ListMetadataGenerationRuns requests in a row occur.
        deployment.wait_for("polls", lambda: len(datazone_server.requests) >= before + 16)
        while_deferred = operations(datazone_server, before)
        before = len(datazone_server.requests)
        waits.end(waits.runs)
        deployment.wait_for("the end", waits.are_collected, seconds=waits.seconds)
        after_end = operations(datazone_server, before)
    finally:
        deployment.kill(triggerer)
    return EndToEnd(
        waits,
        while_deferred,
        after_end,
        waits.task_instances(),
        waits.results(),
        problems([triggerer], waits),
        blocked_seconds(triggerer),
    )


def test_waits_end_with_the_status_of_their_runs(end_to_end: EndToEnd) -> None:
    states = {ti.map_index: (ti.state, ti.try_number) for ti in end_to_end.task_instances}
    expected = dict.fromkeys(range(LISTED_WAITS), ("success", 1))
    expected[FAILING] = ("failed", 1)  # A failed run is not retried.
    assert states == expected


def test_waits_push_their_runs_to_xcom(end_to_end: EndToEnd) -> None:
    for index, (run, result) in enumerate(zip(end_to_end.waits.runs, end_to_end.results, strict=True)):
        assert result["type_stats"] == type_stats(index)
        assert result["return_value"] == (None if index == FAILING else type_stats(index))
        assert result["run"]["id"] == run
        assert result["run"]["status"] == ("FAILED" if index == FAILING else "PARTIALLY_SUCCEEDED")
        assert result["run"]["typeStats"] == type_stats(index)


def test_waits_share_one_list_request(end_to_end: EndToEnd) -> None:
    assert set(end_to_end.while_deferred[-8:]) == {"ListMetadataGenerationRuns"}
    # The trigger reads each run once after the run leaves the list.
    assert end_to_end.after_end.count("GetMetadataGenerationRun") == LISTED_WAITS


def test_each_trigger_logs_only_its_run(end_to_end: EndToEnd) -> None:
    waits = end_to_end.waits
    for index, run in enumerate(waits.runs):
        (log,) = [log for log in waits.logs(index) if ".trigger." in log.name]
        named = re.findall(r"Metadata generation run (\w+) is (\w+)", log.read_text(encoding="utf-8"))
        status = "FAILED" if index == FAILING else "PARTIALLY_SUCCEEDED"
        assert named == [(run, "IN_PROGRESS"), (run, status)]


def test_triggerer_logs_no_errors_and_is_not_blocked(end_to_end: EndToEnd) -> None:
    assert end_to_end.problems == []
    assert end_to_end.blocked < BLOCKED_SECONDS


# -------------------------------------------------------------------- handover


class Handover(NamedTuple):
    waits: Waits
    task_instances: list[TaskInstance]
    results: list[dict[str, Any]]
    problems: list[str]
    blocked: list[float]


@pytest.fixture(scope="module")
def handover(deployment: Deployment, datazone_server: DataZoneServer) -> Handover:
    """Kill the triggerer of the waits. Half of the runs end without a triggerer, the others during the next one."""
    catalog = make_catalog(datazone_server)
    first, first_job = deployment.start_triggerer()
    second = None
    try:
        indexes = range(100, 100 + HANDOVER_WAITS)
        waits = Waits(deployment, catalog, "handed_over", indexes)
        deployment.wait_for("deferred tasks", lambda: waits.are_deferred_to(first_job), seconds=waits.seconds)
        before = len(datazone_server.requests)
        deployment.wait_for("polls", lambda: len(datazone_server.requests) > before + 4)
        deployment.kill(first)
        waits.end(waits.runs[::2])
        second, second_job = deployment.start_triggerer()
        deployment.wait_for("a handover", lambda: set(deployment.triggers()) <= {second_job})
        waits.end(waits.runs[1::2])
        deployment.wait_for("the end", waits.are_collected, seconds=waits.seconds)
        deployment.wait_for("the end of all triggers", lambda: not deployment.triggers())
    finally:
        deployment.kill(first)
        if second is not None:
            deployment.kill(second)
    return Handover(
        waits,
        waits.task_instances(),
        waits.results(),
        problems([first, second], waits),
        [blocked_seconds(first), blocked_seconds(second)],
    )


def test_waits_survive_a_killed_triggerer(handover: Handover) -> None:
    states = [(ti.map_index, ti.state, ti.try_number) for ti in handover.task_instances]
    assert states == [(index, "success", 1) for index in range(HANDOVER_WAITS)]
    waits = handover.waits
    for index, run, result in zip(waits.indexes, waits.runs, handover.results, strict=True):
        assert result["return_value"] == result["type_stats"] == type_stats(index)
        assert result["run"]["id"] == run


def test_each_wait_ends_once_after_a_handover(handover: Handover) -> None:
    waits = handover.waits
    for index, run in enumerate(waits.runs):
        (log,) = [log for log in waits.logs(index) if ".trigger." not in log.name]
        assert log.read_text(encoding="utf-8").count(f"no names for {waits.indexes[index]}") == 1, run


def test_triggerers_log_no_errors_during_a_handover(handover: Handover) -> None:
    assert handover.problems == []
    assert max(handover.blocked) < BLOCKED_SECONDS
