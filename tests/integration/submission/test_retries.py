"""A retry resumes the run of an earlier try or starts a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Clock
from tests.integration.submission.tries import ACTIVE, TYPES, Task, forget_tokens, runs_of, set_run_status

if TYPE_CHECKING:
    from tests.conftest import Catalog


def test_first_try_starts_a_run_without_reading_runs(task: Task, catalog: Catalog):
    submitted = task.submit()
    assert runs_of(catalog)[:1] == [submitted.run.id]
    assert not submitted.adopted
    assert catalog.server.request_counts["GetMetadataGenerationRun"] == 0
    assert catalog.server.request_counts["StartMetadataGenerationRun"] == 1


@pytest.mark.parametrize(
    ("status", "allow_partial_success", "resumes"),
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
def test_retry_resumes_a_run_that_has_not_failed(
    task: Task, catalog: Catalog, status: str, allow_partial_success: bool, resumes: bool
):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    first = task.submit(allow_partial_success=allow_partial_success)
    set_run_status(catalog, first.run.id, status)
    second = task.submit(allow_partial_success=allow_partial_success)
    assert (second.run.id == first.run.id) is resumes
    assert len(runs_of(catalog)) == (1 if resumes else 2)


def test_each_retry_after_a_failed_run_starts_a_new_run(task: Task, catalog: Catalog):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    for number in range(1, 5):
        submitted = task.submit()
        assert runs_of(catalog)[-1] == submitted.run.id
        assert len(runs_of(catalog)) == number
        set_run_status(catalog, submitted.run.id, "FAILED")


@pytest.mark.parametrize("ended", [False, True], ids=["active", "ended"])
def test_retry_after_a_lost_response_does_not_start_a_second_run(task: Task, catalog: Catalog, ended: bool):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
    with pytest.raises(Exception, match="Connection"):
        task.submit()
    (run,) = runs_of(catalog)
    if ended:
        set_run_status(catalog, run, "SUCCEEDED")
    assert task.submit().run.id == run
    assert runs_of(catalog) == [run]


def test_record_with_the_types_in_another_order_is_read(catalog: Catalog):
    """Version 0.1 did not sort them. Now they are sorted before the request is compared with the record."""
    task = Task(catalog, has_state_store=True)
    run = task.submit(types=TYPES[::-1]).run
    # List does not return it any more.
    set_run_status(catalog, run.id, "SUCCEEDED")
    assert task.submit(types=sorted(TYPES)).run.id == run.id
    assert runs_of(catalog) == [run.id]


def test_retry_finds_its_run_after_it_adopted_one_of_another_client(task: Task, catalog: Catalog):
    """The response to the first Start is lost, and the run of another client fails in the second try."""
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
    with pytest.raises(Exception, match="Connection"):
        task.submit()
    (own,) = runs_of(catalog)
    set_run_status(catalog, own, "SUCCEEDED")
    other = catalog.start_run(*TYPES, **ACTIVE)
    assert task.submit().run.id == other
    set_run_status(catalog, other, "FAILED")
    assert task.submit().run.id == own
    assert runs_of(catalog) == [own, other]


def test_lost_response_after_failed_runs_does_not_start_a_second_run(task: Task, catalog: Catalog):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    for _ in range(2):
        set_run_status(catalog, task.submit().run.id, "FAILED")
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True, times=1)
    # Before 3.3 the first Start request of this try repeats the first submission, and its response is lost.
    try:
        run = task.submit().run.id
    except Exception:
        run = task.submit().run.id
    set_run_status(catalog, run, "SUCCEEDED")
    assert task.submit().run.id == run
    assert len(runs_of(catalog)) == 3


def test_retry_finds_the_active_run_after_its_token_expired(
    task: Task, catalog: Catalog, has_state_store: bool
):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
    with pytest.raises(Exception, match="Connection"):
        task.submit()
    forget_tokens(catalog)
    second = task.submit()
    assert second.adopted
    assert runs_of(catalog) == [second.run.id]
    if has_state_store:
        # The task has stored the run and resumes it, even if DataZone no longer lists it as active.
        set_run_status(catalog, second.run.id, "SUCCEEDED")
        assert task.submit().run.id == second.run.id
        assert runs_of(catalog) == [second.run.id]


def test_retry_after_a_rejected_start_starts_the_first_run(task: Task, catalog: Catalog):
    catalog.server.fail("StartMetadataGenerationRun", "ThrottlingException")
    with pytest.raises(ClientError):
        task.submit()
    submitted = task.submit()
    assert len(runs_of(catalog)) == 1
    assert not submitted.adopted


def test_retry_with_changed_arguments_starts_a_new_run(task: Task, catalog: Catalog):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    first = task.submit()
    other = task.submit(types=["BUSINESS_NAMES"])
    assert other.run.types == ("BUSINESS_NAMES",)
    assert runs_of(catalog) == [first.run.id, other.run.id]


def test_retry_starts_a_new_run_if_the_run_no_longer_exists(
    task: Task, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("airflow_provider_datazone.hooks.datazone.time", Clock())
    first = task.submit()
    set_run_status(catalog, first.run.id, "SUCCEEDED")
    forget_tokens(catalog)
    catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=None)
    assert task.submit().run.id != first.run.id


def test_retry_raises_an_error_if_the_run_cannot_be_read(task: Task, catalog: Catalog):
    first = task.submit()
    set_run_status(catalog, first.run.id, "SUCCEEDED")
    catalog.server.fail("GetMetadataGenerationRun", "AccessDeniedException")
    with pytest.raises(ClientError, match="AccessDenied"):
        task.submit()
    assert task.submit().run.id == first.run.id
    assert runs_of(catalog) == [first.run.id]
