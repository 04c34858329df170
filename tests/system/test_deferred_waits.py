"""The deferrable sensor in a whole Airflow: scheduler, executor, triggerers, and supervisors between them."""

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
# With so many waits a triggerer is killed; each takes two starts of a worker, 1 to 2 s in all. Fewer for a quick
# look show the same of the hand-over, and less of what many waits do to a triggerer.
HANDED_OVER_WAITS = int(os.environ.get("DATAZONE_TEST_WAITS", "200"))
SECONDS_A_TASK = 6.0
FAILING = 7
# The levels of a line as Airflow 2.11, 3 and its JSON have them.
SEVERE = re.compile(
    r"""\} (?:ERROR|CRITICAL) -|\[(?:error|critical) *\]|"level": ?"(?:error|critical)"|Traceback"""
)
WARNING = re.compile(r"""\} WARNING -|\[warning *\]|"level": ?"warning\"""")
# Once in a triggerer boto3 is imported and a client built, in threads that hold the interpreter for moments, up
# to 0.3 s in all; a busy machine makes it more. A client for each wait would keep the loop for some 0.05 s for each.
BLOCKED_SECONDS = 3.0
BLOCKED = re.compile(r"async thread was blocked for ([\d.]+) seconds")


def type_stats(index: int) -> list[dict[str, str]]:
    """Return what the run of a wait says, and that of no other."""
    return [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "FAILED" if index == FAILING else "SUCCEEDED"},
        {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": f"no names for {index}"},
    ]


class Waits:
    """A DAG run with waits for runs that go on until they are told to end."""

    def __init__(
        self, deployment: Deployment, catalog: Catalog, name: str, indexes: range, **more: Any
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
        conf = {
            "runs": self.runs,
            "domain_identifier": catalog.domain_identifier,
            "report": str(self.report),
        }
        deployment.trigger("deferred_waits", name, conf | more)

    @property
    def seconds(self) -> float:
        return 120 + SECONDS_A_TASK * len(self.runs)

    def task_instances(self) -> list[TaskInstance]:
        return self.deployment.task_instances(self.name)

    def deferred_to(self, triggerer: int) -> bool:
        states = [ti.state for ti in self.task_instances()]
        number = len(self.runs)
        return states == ["deferred"] * number and self.deployment.triggers() == [triggerer] * number

    def end(self, runs: list[str]) -> None:
        for run in runs:
            self.server.set_run_status(run, None)

    def collected(self) -> bool:
        """Whether all is over, down to the task after the waits."""
        (collect,) = self.deployment.task_instances(self.name, "collect")
        return collect.state in ("success", "failed", "upstream_failed")

    def results(self) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = json.loads(self.report.read_text(encoding="utf-8"))
        return results

    def logs(self, map_index: int) -> list[Path]:
        folder = self.deployment.home / f"logs/dag_id=deferred_waits/run_id={self.name}/task_id=wait"
        return sorted((folder / f"map_index={map_index}").iterdir())


def trouble(triggerers: list[Component], waits: Waits) -> list[str]:
    """Return the lines of triggerers that speak of trouble, and those of the waits' triggers."""
    lines = [line for component in triggerers for line in component.output.splitlines()]
    logs = [log for index in range(len(waits.runs)) for log in waits.logs(index) if ".trigger." in log.name]
    of_triggers = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines + of_triggers if SEVERE.search(line)]
    # Not what Airflow has to say of its own code: to the triggerer, or (3.0) as Python's deprecation warnings.
    return found + [line for line in of_triggers if WARNING.search(line) and "py.warnings" not in line]


def blocked(triggerer: Component) -> float:
    """Return for how many seconds something kept the event loop, as Airflow itself noticed: 0.2 s or more."""
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
    trouble: list[str]
    blocked: float


@pytest.fixture(scope="module")
def end_to_end(deployment: Deployment, datazone_server: DataZoneServer) -> EndToEnd:
    """Some waits through scheduler, executor and one triggerer; one for a run that fails."""
    catalog = make_catalog(datazone_server)
    triggerer, job = deployment.start_triggerer()
    try:
        waits = Waits(deployment, catalog, "end_to_end", range(LISTED_WAITS))
        deployment.wait_for("deferred tasks", lambda: waits.deferred_to(job), seconds=waits.seconds)
        before = len(datazone_server.requests)
        # The last of them have joined the others when Lists follow each other for several rounds.
        deployment.wait_for("polls", lambda: len(datazone_server.requests) >= before + 16)
        while_deferred = operations(datazone_server, before)
        before = len(datazone_server.requests)
        waits.end(waits.runs)
        deployment.wait_for("the end", waits.collected, seconds=waits.seconds)
        after_end = operations(datazone_server, before)
    finally:
        deployment.kill(triggerer)
    return EndToEnd(
        waits,
        while_deferred,
        after_end,
        waits.task_instances(),
        waits.results(),
        trouble([triggerer], waits),
        blocked(triggerer),
    )


def test_waits_end_as_their_runs_do(end_to_end: EndToEnd) -> None:
    states = {ti.map_index: (ti.state, ti.try_number) for ti in end_to_end.task_instances}
    expected = dict.fromkeys(range(LISTED_WAITS), ("success", 1))
    expected[FAILING] = ("failed", 1)  # not retried
    assert states == expected


def test_waits_leave_their_runs_in_xcom(end_to_end: EndToEnd) -> None:
    for index, (run, result) in enumerate(zip(end_to_end.waits.runs, end_to_end.results, strict=True)):
        assert result["type_stats"] == type_stats(index)
        assert result["return_value"] == (None if index == FAILING else type_stats(index))
        assert result["run"]["id"] == run
        assert result["run"]["status"] == ("FAILED" if index == FAILING else "PARTIALLY_SUCCEEDED")
        assert result["run"]["typeStats"] == type_stats(index)


def test_one_list_serves_many_waits(end_to_end: EndToEnd) -> None:
    assert set(end_to_end.while_deferred[-8:]) == {"ListMetadataGenerationRuns"}
    # A run that is no longer listed is read, once.
    assert end_to_end.after_end.count("GetMetadataGenerationRun") == LISTED_WAITS


def test_each_wait_logs_its_own_run_from_the_triggerer(end_to_end: EndToEnd) -> None:
    waits = end_to_end.waits
    for index, run in enumerate(waits.runs):
        (log,) = [log for log in waits.logs(index) if ".trigger." in log.name]
        named = re.findall(r"Metadata generation run (\w+) is (\w+)", log.read_text(encoding="utf-8"))
        status = "FAILED" if index == FAILING else "PARTIALLY_SUCCEEDED"
        assert named == [(run, "IN_PROGRESS"), (run, status)]


def test_triggerer_runs_without_trouble(end_to_end: EndToEnd) -> None:
    assert end_to_end.trouble == []
    assert end_to_end.blocked < BLOCKED_SECONDS


# ------------------------------------------------------------------- hand-over


class HandedOver(NamedTuple):
    waits: Waits
    task_instances: list[TaskInstance]
    results: list[dict[str, Any]]
    trouble: list[str]
    blocked: list[float]


@pytest.fixture(scope="module")
def handed_over(deployment: Deployment, datazone_server: DataZoneServer) -> HandedOver:
    """Waits in a triggerer that is killed; runs end while there is none, and others in the next one's time."""
    catalog = make_catalog(datazone_server)
    first, first_job = deployment.start_triggerer()
    second = None
    try:
        indexes = range(100, 100 + HANDED_OVER_WAITS)
        waits = Waits(deployment, catalog, "handed_over", indexes)
        deployment.wait_for("deferred tasks", lambda: waits.deferred_to(first_job), seconds=waits.seconds)
        before = len(datazone_server.requests)
        deployment.wait_for("polls", lambda: len(datazone_server.requests) > before + 4)
        deployment.kill(first)
        waits.end(waits.runs[::2])
        second, second_job = deployment.start_triggerer()
        deployment.wait_for("a hand-over", lambda: set(deployment.triggers()) <= {second_job})
        waits.end(waits.runs[1::2])
        deployment.wait_for("the end", waits.collected, seconds=waits.seconds)
        deployment.wait_for("triggers that are done with", lambda: not deployment.triggers())
    finally:
        deployment.kill(first)
        if second is not None:
            deployment.kill(second)
    return HandedOver(
        waits,
        waits.task_instances(),
        waits.results(),
        trouble([first, second], waits),
        [blocked(first), blocked(second)],
    )


def test_no_wait_is_lost_with_its_triggerer(handed_over: HandedOver) -> None:
    states = [(ti.map_index, ti.state, ti.try_number) for ti in handed_over.task_instances]
    assert states == [(index, "success", 1) for index in range(HANDED_OVER_WAITS)]
    waits = handed_over.waits
    for index, run, result in zip(waits.indexes, waits.runs, handed_over.results, strict=True):
        assert result["return_value"] == result["type_stats"] == type_stats(index)
        assert result["run"]["id"] == run


def test_no_wait_ends_twice_after_a_hand_over(handed_over: HandedOver) -> None:
    waits = handed_over.waits
    for index, run in enumerate(waits.runs):
        (log,) = [log for log in waits.logs(index) if ".trigger." not in log.name]
        assert log.read_text(encoding="utf-8").count(f"no names for {waits.indexes[index]}") == 1, run


def test_triggerers_hand_over_without_trouble(handed_over: HandedOver) -> None:
    assert handed_over.trouble == []
    assert max(handed_over.blocked) < BLOCKED_SECONDS
