"""Which run a retry resumes, and when it starts another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Clock
from tests.integration.submission.tries import ACTIVE, Task, end, forget_tokens, runs_of

if TYPE_CHECKING:
    from tests.conftest import Catalog


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
