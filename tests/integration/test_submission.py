"""Which run each try of a task goes on with, and how many DataZone sees."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone import submission as submission_module
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.submission import (
    RunRequest,
    Submission,
    Submitted,
    client_token,
    is_replay,
    note_success,
    success_record,
    was_canceled_with_previous_try,
    was_cleared,
)
from airflow_provider_datazone.testing import models
from tests.conftest import Clock, make_catalog

if TYPE_CHECKING:
    from tests.conftest import Catalog

TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
ACTIVE = {"in_progress_seconds": 3600}


class Store:
    """Stands for Airflow's task state store, which is there in a running task alone; JSON, as there."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self._values[key]) if key in self._values else default

    def set(self, key: str, value: Any) -> None:
        self._values[key] = json.dumps(value)


class Task:
    """
    A task instance over its tries, as far as a submission looks at it.

    Whole Airflows, with what they really remember, are in the tests of faults; here it is about every case.
    """

    def __init__(self, catalog: Catalog, *, remembers: bool, retries: int = 5) -> None:
        self.catalog = catalog
        self.ti = SimpleNamespace(
            dag_id="enrich", run_id="manual", task_id="start", map_index=-1, try_number=0, max_tries=retries
        )
        self.dag_run = SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), clear_number=0)
        self.task = SimpleNamespace(retries=retries)
        self.context: Any = {"ti": self.ti, "dag_run": self.dag_run, "task": self.task}
        # Its client does not try again by itself.
        self.hook = DataZoneHook("datazone_default", config={"retries": {"total_max_attempts": 1}})
        if remembers:
            self.context["task_state_store"] = Store()

    def clear(self) -> None:
        """Do what Airflow 3.2 and later do in `clear_task_instances`."""
        self.ti.max_tries = self.ti.try_number + self.task.retries
        self.clear_another_task()

    def clear_another_task(self) -> None:
        """Do what Airflow 3.2 and later do for all tasks of the DAG run then."""
        self.dag_run.clear_number += 1

    def submit(self, **changes: Any) -> Submitted:
        """Try once more."""
        self.ti.try_number += 1
        request = {
            "asset_identifier": self.catalog.asset_identifier,
            "types": TYPES,
            "domain_identifier": self.catalog.domain_identifier,
            "owning_project_identifier": self.catalog.project_identifier,
            "asset_revision": None,
        }
        options = {"token": None, "allow_partial_success": True}
        for name, value in changes.items():
            (request if name in request else options)[name] = value
        log = logging.getLogger("airflow.task.submission")
        return Submission(self.context, self.hook, RunRequest(**request), log=log, **options).submit()


@pytest.fixture(params=[True, False], ids=["3.3 and later", "before 3.3"])
def remembers(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def task(catalog: Catalog, remembers: bool) -> Task:
    return Task(catalog, remembers=remembers)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(submission_module, "time", clock)
    return clock


def runs_of(catalog: Catalog) -> list[str]:
    """Ask DataZone for all runs of the asset, oldest first."""
    found = catalog.server.client().list_metadata_generation_runs(
        domainIdentifier=catalog.domain_identifier, targetIdentifier=catalog.asset_identifier
    )
    return [run["id"] for run in found["items"]]


def tokens_of(catalog: Catalog) -> list[str]:
    requests = catalog.server.requests
    return [r.parameters["clientToken"] for r in requests if r.operation == "StartMetadataGenerationRun"]


def end(catalog: Catalog, run: str, status: str) -> None:
    catalog.server.set_run_status(run, status)


def forget_tokens(catalog: Catalog) -> None:
    """How long DataZone honours a client token is not known."""
    for account in models.datazone_backends.values():
        for backend in account.values():
            for domain in backend.domains.values():
                domain.results_by_token.clear()


# ----------------------------------------------------------------- what a try makes of the one before


def test_first_try_starts_a_run_and_asks_nothing(task: Task, catalog: Catalog):
    submitted = task.submit()
    assert runs_of(catalog)[:1] == [submitted.run.id]
    assert not submitted.adopted
    assert catalog.server.request_counts["GetMetadataGenerationRun"] == 0
    assert catalog.server.request_counts["StartMetadataGenerationRun"] == 1


@pytest.mark.parametrize(
    ("status", "allow_partial_success", "goes_on"),
    [
        ("SUBMITTED", True, True),
        ("IN_PROGRESS", True, True),
        ("A_STATUS_OF_NEXT_YEAR", True, True),
        ("SUCCEEDED", True, True),
        ("PARTIALLY_SUCCEEDED", True, True),
        ("PARTIALLY_SUCCEEDED", False, False),
        ("FAILED", True, False),
        ("CANCELED", True, False),
    ],
)
def test_retry_goes_on_with_a_run_that_has_not_failed(
    task: Task, catalog: Catalog, status: str, allow_partial_success: bool, goes_on: bool
):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    first = task.submit(allow_partial_success=allow_partial_success)
    end(catalog, first.run.id, status)
    second = task.submit(allow_partial_success=allow_partial_success)
    assert (second.run.id == first.run.id) is goes_on
    assert len(runs_of(catalog)) == (1 if goes_on else 2)


def test_each_retry_after_a_failed_run_starts_another(task: Task, catalog: Catalog):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    for number in range(1, 5):
        submitted = task.submit()
        assert runs_of(catalog)[-1] == submitted.run.id
        assert len(runs_of(catalog)) == number
        end(catalog, submitted.run.id, "FAILED")


@pytest.mark.parametrize("ended", [False, True], ids=["active", "ended meanwhile"])
def test_lost_answer_is_not_a_second_run(task: Task, catalog: Catalog, ended: bool):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
    with pytest.raises(Exception, match="Connection"):
        task.submit()
    (run,) = runs_of(catalog)
    if ended:
        end(catalog, run, "SUCCEEDED")
    assert task.submit().run.id == run
    assert runs_of(catalog) == [run]


def test_lost_answer_is_not_a_second_run_after_others_that_failed(task: Task, catalog: Catalog):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    for _ in range(2):
        end(catalog, task.submit().run.id, "FAILED")
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True, times=1)
    # Before 3.3 the first Start of this try is that of the first submission, and its answer is lost.
    try:
        run = task.submit().run.id
    except Exception:
        run = task.submit().run.id
    end(catalog, run, "SUCCEEDED")
    assert task.submit().run.id == run
    assert len(runs_of(catalog)) == 3


def test_active_run_is_found_when_datazone_has_forgotten_the_token(
    task: Task, catalog: Catalog, remembers: bool
):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
    with pytest.raises(Exception, match="Connection"):
        task.submit()
    forget_tokens(catalog)
    second = task.submit()
    assert second.adopted
    assert runs_of(catalog) == [second.run.id]
    if remembers:
        # It is the task's own from then on, whatever DataZone lists.
        end(catalog, second.run.id, "SUCCEEDED")
        assert task.submit().run.id == second.run.id
        assert runs_of(catalog) == [second.run.id]


def test_retry_after_a_refusal_starts_the_first_run(task: Task, catalog: Catalog):
    catalog.server.fail("StartMetadataGenerationRun", "ThrottlingException")
    with pytest.raises(ClientError):
        task.submit()
    submitted = task.submit()
    assert len(runs_of(catalog)) == 1
    assert not submitted.adopted


def test_what_the_task_asks_for_by_now_is_a_submission_of_its_own(task: Task, catalog: Catalog):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    first = task.submit()
    other = task.submit(types=["BUSINESS_NAMES"])
    assert other.run.types == ("BUSINESS_NAMES",)
    assert runs_of(catalog) == [first.run.id, other.run.id]


def test_run_that_is_gone_is_submitted_anew(task: Task, catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("airflow_provider_datazone.hooks.datazone.time", Clock())
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    forget_tokens(catalog)
    catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=None)
    assert task.submit().run.id != first.run.id


def test_run_that_cannot_be_read_is_not_taken_for_gone(task: Task, catalog: Catalog):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    catalog.server.fail("GetMetadataGenerationRun", "AccessDeniedException")
    with pytest.raises(ClientError, match="AccessDenied"):
        task.submit()
    assert task.submit().run.id == first.run.id
    assert runs_of(catalog) == [first.run.id]


# --------------------------------------------------------------------------- what a user who clears means


def test_clear_of_a_task_that_had_succeeded_starts_another(task: Task, catalog: Catalog):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    note_success(task.context)
    task.clear()
    second = task.submit()
    assert runs_of(catalog) == [first.run.id, second.run.id]
    # And the retry of that one goes on with it.
    end(catalog, second.run.id, "SUCCEEDED")
    assert task.submit().run.id == second.run.id
    assert len(runs_of(catalog)) == 2


def test_kill_between_the_run_s_success_and_the_task_s_is_no_clear(task: Task, catalog: Catalog):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    note_success(task.context)
    assert task.submit().run.id == first.run.id


def test_clear_goes_on_with_a_run_that_is_still_active(task: Task, catalog: Catalog):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    first = task.submit()
    task.clear()
    second = task.submit()
    assert second.run.id == first.run.id
    assert second.adopted


def test_clear_of_a_task_that_timed_out_takes_what_its_run_has_done_by_now(
    task: Task, catalog: Catalog, remembers: bool
):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    task.clear()
    second = task.submit()
    # Before 3.3 nothing tells this from a clear of a task that had succeeded.
    assert (second.run.id == first.run.id) is remembers


def test_clear_after_retries_was_lowered_starts_another_run(catalog: Catalog):
    # From Airflow 3.3 on; before, nothing tells it from a retry while the DAG run is still running.
    task = Task(catalog, remembers=True, retries=2)
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    note_success(task.context)
    max_tries, task.task.retries = task.ti.max_tries, 1
    task.clear()
    assert task.ti.max_tries == max_tries
    assert task.submit().run.id != first.run.id
    assert len(runs_of(catalog)) == 2


def test_clear_of_an_ended_dag_run_starts_another_run(task: Task, catalog: Catalog):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    note_success(task.context)
    task.task.retries = task.ti.max_tries - task.ti.try_number
    task.clear()
    # What Airflow does with a DAG run that had ended, in all versions.
    task.dag_run.start_date = datetime(2026, 1, 2, tzinfo=timezone.utc)
    assert task.submit().run.id != first.run.id


@pytest.mark.parametrize("ended", [False, True], ids=["active", "succeeded meanwhile"])
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "answer lost"])
def test_clear_of_another_task_does_not_lose_the_run(task: Task, catalog: Catalog, ended: bool, lost: bool):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    if lost:
        catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
        with pytest.raises(Exception, match="Connection"):
            task.submit()
    else:
        task.submit()
    (run,) = runs_of(catalog)
    if ended:
        end(catalog, run, "SUCCEEDED")
    task.clear_another_task()
    assert task.submit().run.id == run
    assert runs_of(catalog) == [run]


def test_kill_after_the_success_and_clear_of_another_task_is_no_clear(task: Task, catalog: Catalog):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    note_success(task.context)
    task.clear_another_task()
    assert task.submit().run.id == first.run.id


def test_record_of_an_earlier_version_tells_a_clear_by_max_tries_alone(catalog: Catalog):
    task = Task(catalog, remembers=True)
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    note_success(task.context)
    store = task.context["task_state_store"]
    record = store.get("metadata_generation_run")
    # As version 0.1 wrote it.
    store.set(
        "metadata_generation_run",
        {key: record[key] for key in ("request", "number", "token", "run", "succeeded")},
    )
    task.clear_another_task()
    assert task.submit().run.id == first.run.id
    task.clear()
    assert task.submit().run.id != first.run.id


def test_success_without_a_record_is_no_clear(catalog: Catalog):
    task = Task(catalog, remembers=True)
    assert not was_cleared({}, task.context)
    record = success_record(task.context)
    assert not was_cleared(record, task.context)
    # Airflow before 2.10, and some contexts of tests, have no clear_number.
    del task.dag_run.clear_number
    assert not was_cleared(record, task.context)
    assert was_cleared(record | {"succeeded": 99}, task.context)


# --------------------------------------------------------- tokens of earlier tries, permission to list


def test_retry_without_permission_to_list_relies_on_tokens(
    task: Task, catalog: Catalog, caplog: pytest.LogCaptureFixture
):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
    with pytest.raises(Exception, match="Connection"):
        task.submit()
    (run,) = runs_of(catalog)
    catalog.server.fail("ListMetadataGenerationRuns", "AccessDeniedException", times=None)
    with caplog.at_level(logging.WARNING):
        submitted = task.submit()
    catalog.server.recover()
    assert submitted.run.id == run
    # It may have been canceled with the try before.
    assert submitted.adopted
    assert runs_of(catalog) == [run]
    (warning,) = (message for message in caplog.messages if "ListMetadataGenerationRuns" in message)
    assert "client tokens" in warning


def test_conflict_without_permission_to_list_is_the_error(
    task: Task, catalog: Catalog, clock: Clock, caplog: pytest.LogCaptureFixture
):
    catalog.server.fail("ListMetadataGenerationRuns", "AccessDeniedException", times=None)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None, message="busy")
    with caplog.at_level(logging.WARNING), pytest.raises(ClientError, match="busy"):
        task.submit()
    assert len([message for message in caplog.messages if "client tokens" in message]) == 1, "said once"


@pytest.mark.parametrize("may_list", [True, False])
@pytest.mark.parametrize("status", ["FAILED", "CANCELED", "PARTIALLY_SUCCEEDED"])
def test_run_of_an_earlier_try_that_failed_unseen_does_not_end_this_try(
    task: Task, catalog: Catalog, may_list: bool, status: str
):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
    with pytest.raises(Exception, match="Connection"):
        task.submit(allow_partial_success=False)
    (run,) = runs_of(catalog)
    end(catalog, run, status)
    if not may_list:
        catalog.server.fail("ListMetadataGenerationRuns", "AccessDeniedException", times=None)
    submitted = task.submit(allow_partial_success=False)
    catalog.server.recover()
    assert runs_of(catalog) == [run, submitted.run.id]
    assert not submitted.adopted


def test_run_that_this_try_started_and_that_failed_at_once_is_its_own_end(catalog: Catalog):
    """Not another try's, although the token of the first submission was sent: that was never carried out."""
    task = Task(catalog, remembers=False)
    catalog.server.fail("StartMetadataGenerationRun", "ThrottlingException")
    with pytest.raises(ClientError):
        task.submit()
    catalog.server.set_run_outcome(polls=0, statuses="FAILED", times=None)
    # Start itself does not say so yet.
    submitted = task.submit()
    assert runs_of(catalog) == [submitted.run.id], "one run a try"


def a_run(status: str, created_at: float | None) -> MetadataGenerationRun:
    return MetadataGenerationRun.from_response(
        {"id": "run", "domainId": "dzd-1", "status": status}
        | ({} if created_at is None else {"createdAt": datetime.fromtimestamp(created_at, timezone.utc)})
    )


@pytest.mark.parametrize(
    ("run", "number", "try_number", "expected"),
    [
        (a_run("SUBMITTED", 999), 1, 2, True),
        (a_run("SUBMITTED", 1001), 1, 2, False),
        (a_run("FAILED", 1001), 1, 2, True),
        (a_run("SUBMITTED", None), 1, 2, True),
        (a_run("SUBMITTED", 999), 1, 1, False),
        (a_run("FAILED", 999), 2, 2, False),
    ],
    ids=["created before", "created since", "ended", "no time", "first try", "first time that it is sent"],
)
def test_answer_to_start_is_a_replay(
    run: MetadataGenerationRun, number: int, try_number: int, expected: bool
):
    assert is_replay(run, try_began_at=1000, submission_number=number, try_number=try_number) is expected


@pytest.mark.parametrize(
    ("adopted_at", "seen_active", "after", "expected"),
    [
        (1000, False, 7200, True),
        (1000, True, 149, True),
        (1000, True, 151, False),
        (None, True, 7200, True),
    ],
    ids=["first status read", "within the window", "later", "deferred by an earlier version"],
)
def test_canceled_run_was_canceled_with_the_try_before(
    adopted_at: float | None, seen_active: bool, after: float, expected: bool
):
    assert (
        was_canceled_with_previous_try(
            adopted_at=adopted_at, seen_active=seen_active, now=1000 + after, poll_interval=30
        )
        is expected
    )


# ------------------------------------------------------------------------------------------------ conflict


def test_conflict_goes_on_with_the_run_that_is_there(
    task: Task, catalog: Catalog, caplog: pytest.LogCaptureFixture
):
    run = catalog.start_run(*TYPES, **ACTIVE)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException")
    with caplog.at_level(logging.INFO):
        submitted = task.submit()
    assert submitted.run.id == run
    assert submitted.adopted
    assert f"Going on with metadata generation run {run}" in caplog.text
    # A retry knows it.
    end(catalog, run, "IN_PROGRESS")
    assert task.submit().run.id == run


@pytest.mark.parametrize("types", [None, ["BUSINESS_NAMES"]], ids=["none", "of another type"])
def test_conflict_without_such_a_run_is_the_error(
    task: Task, catalog: Catalog, clock: Clock, types: list[str] | None
):
    if types:
        catalog.start_run(*types, **ACTIVE)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None, message="busy")
    with pytest.raises(ClientError, match="busy"):
        task.submit()
    assert sum(clock.naps) == 30
    # One that is about nothing else than this submission.
    assert len(set(tokens_of(catalog)[-6:])) == 1


def test_conflict_adopts_a_run_that_is_listed_late(task: Task, catalog: Catalog, clock: Clock):
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None)
    started: list[str] = []

    def sleep(seconds: float) -> None:
        Clock.sleep(clock, seconds)
        if sum(clock.naps) >= 5 and not started:
            catalog.server.recover()
            started.append(catalog.start_run(*TYPES, **ACTIVE))
            catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None)

    clock.sleep = sleep  # type: ignore[method-assign]
    submitted = task.submit()
    assert ([submitted.run.id], submitted.adopted) == (started, True)
    assert sum(clock.naps) == 7


def test_conflict_that_passes_starts_the_run(task: Task, catalog: Catalog, clock: Clock):
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=2)
    submitted = task.submit()
    assert not submitted.adopted
    assert runs_of(catalog) == [submitted.run.id]
    assert len(set(tokens_of(catalog))) == 1
    assert sum(clock.naps) == 3


def test_run_of_another_asset_or_revision_is_not_adopted(task: Task, catalog: Catalog, clock: Clock):
    other = make_catalog(catalog.server)
    other.start_run(*TYPES, **ACTIVE)
    catalog.start_run(*TYPES, **ACTIVE)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None)
    with pytest.raises(ClientError):
        task.submit(asset_revision="1")


def test_youngest_active_run_is_adopted(catalog: Catalog):
    runs = [catalog.start_run(*TYPES, **ACTIVE) for _ in range(3)]
    catalog.server.set_run_status(runs[1], "SUBMITTED")
    hook = DataZoneHook("datazone_default")
    found = hook.find_active_metadata_generation_run(
        catalog.asset_identifier, types=list(reversed(TYPES)), domain_identifier=catalog.domain_identifier
    )
    assert found is not None
    assert found.id == runs[-1]


# -------------------------------------------------------------------------------------------------- tokens


def test_token_of_the_user_is_the_one_that_is_sent(task: Task, catalog: Catalog):
    run = task.submit(token="mine").run
    end(catalog, run.id, "FAILED")
    task.submit(token="mine")
    assert set(tokens_of(catalog)) == {"mine"}


def test_token_is_the_same_for_every_try_and_no_other_submission():
    def context(**changes: Any) -> Any:
        ti = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, "max_tries": 2}
        start_date = changes.pop("start_date", datetime(2026, 1, 1, tzinfo=timezone.utc))
        return {"ti": SimpleNamespace(**ti | changes), "dag_run": SimpleNamespace(start_date=start_date)}

    token = client_token(context(), "request", 1)
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token
    assert len(token) <= 128
    assert client_token(context(try_number=2), "request", 1) == token
    others = [
        client_token(context(), "request", 2),
        client_token(context(), "other request", 1),
        client_token(context(start_date=datetime(2026, 1, 2, tzinfo=timezone.utc)), "request", 1),
        *(
            client_token(context(**change), "request", 1)
            for change in (
                {"dag_id": "x"},
                {"run_id": "x"},
                {"task_id": "x"},
                {"map_index": 0},
                {"max_tries": 3},
            )
        ),
    ]
    assert len({token, *others}) == 1 + len(others)
