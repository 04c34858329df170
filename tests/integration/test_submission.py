"""Which run each try of a task goes on with, and how many DataZone sees."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.submission import RunRequest, Submission, Submitted, client_token, note_success
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
        self.retries = retries
        self.ti = SimpleNamespace(
            dag_id="enrich", run_id="manual", task_id="start", map_index=-1, try_number=0, max_tries=retries
        )
        self.dag_run = SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))
        self.context: Any = {"ti": self.ti, "dag_run": self.dag_run}
        # Its client does not try again by itself.
        self.hook = DataZoneHook("datazone_default", config={"retries": {"total_max_attempts": 1}})
        if remembers:
            self.context["task_state_store"] = Store()

    def clear(self) -> None:
        """Do what Airflow does in `clear_task_instances`."""
        self.ti.max_tries = self.ti.try_number + self.retries

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
                domain.answered.clear()


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
def test_conflict_without_such_a_run_is_the_error(task: Task, catalog: Catalog, types: list[str] | None):
    if types:
        catalog.start_run(*types, **ACTIVE)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", message="busy")
    with pytest.raises(ClientError, match="busy"):
        task.submit()


def test_run_of_another_asset_or_revision_is_not_adopted(task: Task, catalog: Catalog):
    other = make_catalog(catalog.server)
    other.start_run(*TYPES, **ACTIVE)
    catalog.start_run(*TYPES, **ACTIVE)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException")
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
