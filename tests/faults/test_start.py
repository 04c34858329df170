"""The effect of each fault on a run and on the task that starts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import REPOSITORY
from tests.dags.start_faults import TASKS
from tests.faults.stage import Case, Outcome, Play, Stage
from tests.faults.workers import ATTEMPTS

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer
    from tests.system.deployment import Deployment

DAG_FILE = "start_faults.py"
# The first version of each family of versions with the same behavior.
FAMILIES = ((2, 11), (3, 0), (3, 3))
AIRFLOW = tuple(int(number) for number in version("apache-airflow").split(".")[:2])
FAMILY = max(index for index, first in enumerate(FAMILIES) if first <= AIRFLOW)
# Since 3.3, Airflow notifies the trigger when a user ends its task.
TRIGGER_IS_NOTIFIED = AIRFLOW >= (3, 3)
# Airflow 3.0 does not run a task again that was cleared while it ran (apache/airflow#55045).
CLEAR_TWICE = AIRFLOW == (3, 0)
QUOTA = "business name generation has reached monthly quota"

# ------------------------------------------------------------------ scenarios


def resumes_and_ends(case: Case, try_number: int, run: str | None = None, map_index: int = -1) -> Play[None]:
    """Wait until a try waits for a run (the given one, if any), then end that run."""
    found = yield from case.is_waiting(try_number, map_index)
    assert run in (None, found), f"try {try_number} waits for run {found}, not for {run}"
    case.end(found)


def killed_before_start(case: Case) -> Play[None]:
    case.begin()
    yield from case.is_killed()
    assert case.starts == 0
    yield from resumes_and_ends(case, 2)


def killed_before_answer(case: Case) -> Play[None]:
    case.fail_start("hang", after=True)
    case.begin()
    run = yield from case.is_processed()
    case.kill_worker()
    yield from resumes_and_ends(case, 2, run)


def killed_after_answer(case: Case) -> Play[None]:
    case.begin()
    yield from case.is_killed()
    (run,) = case.runs()
    yield from resumes_and_ends(case, 2, run)


def killed_and_run_ended(case: Case) -> Play[None]:
    case.begin()
    yield from case.is_killed()
    (run,) = case.runs()
    case.end(run)


def killed_while_waiting(case: Case) -> Play[None]:
    case.begin()
    runs = {}
    for index in case.indexes:
        runs[index] = yield from case.is_waiting(map_index=index)
    for index in case.indexes:
        case.kill_worker(index)
    for index in case.indexes:
        yield from resumes_and_ends(case, 2, runs[index], index)


def killed_on_resume(case: Case) -> Play[None]:
    case.begin()
    yield from resumes_and_ends(case, 1)
    yield from case.is_killed()


def triggerer_killed(case: Case) -> Play[None]:
    stage = case.stage
    first = yield from stage.start_triggerer()
    case.begin()
    run = yield from case.is_waiting(triggerer=first)
    stage.deployment.kill(first.component)
    second = yield from stage.start_triggerer()
    assert (yield from case.is_waiting(triggerer=second)) == run
    case.end(run)
    stage.triggerer = second


def triggerer_stalled(case: Case) -> Play[None]:
    stage = case.stage
    first = yield "a single triggerer", lambda: stage.triggerer
    case.begin()
    run = yield from case.is_waiting(triggerer=first)
    stage.deployment.pause(first.component)
    second = yield from stage.start_triggerer()
    assert (yield from case.is_waiting(triggerer=second)) == run
    stage.deployment.resume(first.component)
    yield from case.is_dropped(first)
    assert case.status(run) == "IN_PROGRESS"
    case.end(run)


def answer_lost(case: Case) -> Play[None]:
    case.fail_start("drop", after=True, times=ATTEMPTS)
    case.begin()
    run = yield from case.is_processed()
    yield from resumes_and_ends(case, 2, run)


def throttled(case: Case) -> Play[None]:
    case.fail_start("ThrottlingException", times=ATTEMPTS)
    case.begin()
    yield from resumes_and_ends(case, 2)


def conflict(case: Case) -> Play[None]:
    other_run = case.start_run()
    case.fail_start("ConflictException")
    case.begin()
    yield from resumes_and_ends(case, 1, other_run)


def cleared_while_waiting(case: Case) -> Play[None]:
    case.begin()
    yield from case.is_waiting()
    case.clear()
    if CLEAR_TWICE:
        yield "a task that stays as it is", lambda: case.was_reported("restarting")
        case.clear()
    yield from resumes_and_ends(case, 2)


def cleared_while_deferred(case: Case) -> Play[None]:
    yield from case.stage.has_steady_triggerers()
    case.begin()
    run = yield from case.is_waiting()
    case.clear()
    if TRIGGER_IS_NOTIFIED:
        # The next try has begun by now. The run is canceled, or the next try waits for it.
        yield from case.is_dropped()
        run = yield "a run that is waited for", lambda: case.active_run(2, 3)
        case.end(run)
    else:
        yield from resumes_and_ends(case, 2, run)


def cleared_after_success(case: Case) -> Play[None]:
    case.begin()
    yield from resumes_and_ends(case, 1)
    yield from case.has_ended("success")
    case.clear()
    yield from resumes_and_ends(case, 2)


def marked_failed_while_waiting(case: Case) -> Play[None]:
    case.begin()
    run = yield from case.is_waiting()
    case.mark_failed()
    yield "the run's end", lambda: case.status(run) == "CANCELED"
    yield "the worker's end", lambda: case.was_reported("failed")
    yield from case.has_ended("failed")
    case.clear()
    yield from resumes_and_ends(case, 2)


def marked_failed_while_deferred(case: Case) -> Play[None]:
    yield from case.stage.has_steady_triggerers()
    case.begin()
    run = yield from case.is_waiting()
    case.mark_failed()
    if TRIGGER_IS_NOTIFIED:
        yield "the run's end", lambda: case.status(run) == "CANCELED"
    yield from case.has_ended("failed")
    case.clear()
    yield from resumes_and_ends(case, 2, None if TRIGGER_IS_NOTIFIED else run)


def timed_out(case: Case) -> Play[None]:
    case.begin()
    run = yield from case.is_processed()
    if case.is_deferrable:
        # A triggerer may or may not poll the run before the timeout.
        yield from case.is_deferred()
    yield from resumes_and_ends(case, 2, run)


def run_failed(case: Case) -> Play[None]:
    case.begin()
    run = yield from case.is_waiting()
    case.end(run, "FAILED")
    yield from resumes_and_ends(case, 2)


def quota_used_up(case: Case) -> Play[None]:
    case.begin()
    run = yield from case.is_waiting()
    case.end(run, "FAILED")


# ----------------------------------------------------------------------- rows


class Row(NamedTuple):
    """
    A fault and its expected outcome.

    :param name: The DAG id.
    :param fault: The description of the fault in the documentation.
    :param what: The description of the outcome in the documentation.
    :param play: The steps of the scenario.
    :param runs: The final number of runs for each asset, by family of versions.
    :param tries: The number of tries of the task, by family of versions.
    :param state: The final state of the task.
    :param message: The error message for the names of the runs, if it matters.
    """

    name: str
    fault: str
    what: str
    play: Callable[[Case], Play[None]]
    runs: tuple[int | str, ...] = (1, 1, 1)
    tries: tuple[int | str, ...] = (2, 2, 2)
    state: str = "success"
    message: str | None = None


ROWS = [
    Row(
        "triggerer_killed",
        "Triggerer killed while the task is deferred",
        "Another triggerer waits for the run; the task is not retried.",
        triggerer_killed,
        tries=(1, 1, 1),
    ),
    Row(
        "triggerer_stalled",
        "Triggerer stalled while the task is deferred, and resumed after another triggerer has taken over",
        "The other triggerer waits for the run; the task is not retried.",
        triggerer_stalled,
        tries=(1, 1, 1),
    ),
    Row(
        "killed_before_start",
        "Worker killed before Start is sent",
        "The retry starts the run.",
        killed_before_start,
    ),
    Row(
        "killed_before_answer",
        "Worker killed after DataZone has processed Start and before it has answered",
        "The retry finds the active run of the asset, and resumes it.",
        killed_before_answer,
    ),
    Row(
        "killed_after_answer",
        "Worker killed after the answer to Start and before the run is stored",
        "The retry finds the active run of the asset, and resumes it.",
        killed_after_answer,
    ),
    Row(
        "killed_and_run_ended",
        "The same, and the run succeeds before the retry",
        "The retry sends the same client token, receives the same run, and returns it.",
        killed_and_run_ended,
    ),
    Row(
        "killed_while_waiting",
        "Worker killed while it waits",
        "The retry resumes the run.",
        killed_while_waiting,
    ),
    Row(
        "mapped_killed_while_waiting",
        "Workers of a mapped task killed while they wait",
        "Each retry resumes the run of its map index.",
        killed_while_waiting,
    ),
    Row(
        "killed_before_start_deferrable",
        "Deferrable: worker killed before Start is sent",
        "The retry starts the run.",
        killed_before_start,
    ),
    Row(
        "killed_before_answer_deferrable",
        "Deferrable: worker killed after DataZone has processed Start and before it has answered",
        "The retry finds the active run of the asset, and resumes it.",
        killed_before_answer,
    ),
    Row(
        "killed_after_answer_deferrable",
        "Deferrable: worker killed after the answer to Start and before the run is stored",
        "The retry finds the active run of the asset, and resumes it.",
        killed_after_answer,
    ),
    Row(
        "killed_on_resume",
        "Deferrable: worker killed when it resumes, after the run has succeeded",
        "The retry returns the run.",
        killed_on_resume,
    ),
    Row(
        "answer_lost",
        "Answer to Start lost, in each of botocore's attempts",
        "The attempts send one client token, so they start one run; the retry resumes it.",
        answer_lost,
    ),
    Row(
        "throttled",
        "Start throttled, in each of botocore's attempts",
        "The retry starts the run.",
        throttled,
    ),
    Row(
        "conflict",
        "Start refused because another run of the same types is active (ConflictException)",
        "The same try waits for that run.",
        conflict,
        tries=(1, 1, 1),
    ),
    Row(
        "cleared_while_waiting",
        "Task cleared while it waits on its worker",
        "The worker cancels the run, and the next try starts another. On 2.11 this applies to a clear in the UI "
        "or on the command line; a clear through the REST API does not change a running task. On 3.0 a running "
        "task that is cleared does not run again until it is cleared a second time (apache/airflow#55045).",
        cleared_while_waiting,
        runs=(2, 2, 2),
    ),
    Row(
        "cleared_after_success",
        "Task cleared after it has succeeded",
        "The next try starts another run.",
        cleared_after_success,
        runs=(2, 2, 2),
    ),
    Row(
        "marked_failed_while_waiting",
        "Task marked as failed while it waits on its worker, then cleared",
        "The worker cancels the run, and the next try starts another.",
        marked_failed_while_waiting,
        runs=(2, 2, 2),
    ),
    Row(
        "run_failed",
        "Run failed",
        "The retry starts another run.",
        run_failed,
        runs=(2, 2, 2),
    ),
    Row(
        "quota_used_up",
        "Run failed because the monthly quota is used up",
        "The task fails at once, even if it has retries left.",
        quota_used_up,
        tries=(1, 1, 1),
        state="failed",
        message=QUOTA,
    ),
    Row(
        "timed_out",
        "`execution_timeout` passes on the worker",
        "The run continues, and the retry resumes it.",
        timed_out,
    ),
    Row(
        "timed_out_deferrable",
        "`execution_timeout` passes while the task is deferred",
        "The run continues, and the retry resumes it.",
        timed_out,
    ),
    Row(
        "cleared_while_deferred",
        "Task cleared while it is deferred",
        "On 3.3 the triggerer cancels the run, and the next try starts another; if the next try is deferred before "
        "that, it resumes the run. Earlier versions do not notify the trigger: the run continues, and the next try "
        "resumes it.",
        cleared_while_deferred,
        runs=(1, 1, "1 or 2"),
        # If the next try resumes the run before it is canceled, it is deferred again for another run. That can
        # cost a try (apache/airflow#72716).
        tries=(2, 2, "2 or 3"),
    ),
    Row(
        "marked_failed_while_deferred",
        "Task marked as failed while it is deferred, then cleared",
        "On 3.3 the triggerer cancels the run, and the next try starts another. Earlier versions do not notify the "
        "trigger: the run continues, and the next try resumes it.",
        marked_failed_while_deferred,
        runs=(1, 1, 2),
    ),
]


@pytest.fixture(scope="module")
def outcomes(deployment: Deployment, datazone_server: DataZoneServer) -> Iterator[dict[str, Outcome]]:
    stage = Stage(deployment, datazone_server)
    yield stage.play([Case(stage, row.name, row.play, row.message) for row in ROWS])
    stage.close()


def is_one_of(number: int, expected: tuple[int | str, ...]) -> bool:
    return str(number) in str(expected[FAMILY]).split(" or ")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_fault_starts_the_expected_number_of_runs(outcomes: dict[str, Outcome], row: Row) -> None:
    outcome = outcomes[row.name]
    print(outcome.log)
    assert outcome.error is None
    for runs, task in zip(outcome.runs, outcome.tasks, strict=True):
        assert is_one_of(len(runs), row.runs)
        assert task.state == row.state
        assert is_one_of(task.try_number, row.tries)
        # The XComs of the last try contain the last run.
        run = runs[-1]
        assert task.xcoms["return_value"] == (run.id if row.state == "success" else None)
        assert task.xcoms["type_stats"] == run.type_stats
        stored = task.xcoms["run"]
        assert (stored["id"], stored["status"], stored["typeStats"]) == run


def test_every_task_is_tested() -> None:
    assert {row.name for row in ROWS} == set(TASKS)


def test_documentation_lists_the_tested_faults() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = text.partition("\n## Tested faults: starting a run\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    rows = [f"| {row.fault} | {' | '.join(map(str, row.runs))} | {row.what} |" for row in ROWS]
    assert table[2:] == rows
