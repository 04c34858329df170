"""Retries send the client tokens of earlier tries, also without permission to list runs."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.idempotency import client_token, is_replay, was_canceled_with_previous_try
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from tests.conftest import Clock
from tests.integration.submission.tries import ACTIVE, Task, runs_of, set_run_status, tokens_of

if TYPE_CHECKING:
    from tests.conftest import Catalog


# -------------------------------------------- tokens of earlier tries and permission to list runs


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
    # The run may have been canceled with the previous try.
    assert submitted.adopted
    assert runs_of(catalog) == [run]
    (warning,) = (message for message in caplog.messages if "ListMetadataGenerationRuns" in message)
    assert "client tokens" in warning


def test_conflict_without_permission_to_list_raises_the_error(
    task: Task, catalog: Catalog, clock: Clock, caplog: pytest.LogCaptureFixture
):
    catalog.server.fail("ListMetadataGenerationRuns", "AccessDeniedException", times=None)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None, message="busy")
    with caplog.at_level(logging.WARNING), pytest.raises(ClientError, match="busy"):
        task.submit()
    assert len([message for message in caplog.messages if "client tokens" in message]) == 1, (
        "the warning is logged once"
    )


@pytest.mark.parametrize("may_list", [True, False])
@pytest.mark.parametrize("status", ["FAILED", "CANCELED", "PARTIALLY_SUCCEEDED"])
def test_failed_run_of_a_lost_response_does_not_fail_the_retry(
    task: Task, catalog: Catalog, may_list: bool, status: str
):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
    with pytest.raises(Exception, match="Connection"):
        task.submit(allow_partial_success=False)
    (run,) = runs_of(catalog)
    set_run_status(catalog, run, status)
    if not may_list:
        catalog.server.fail("ListMetadataGenerationRuns", "AccessDeniedException", times=None)
    submitted = task.submit(allow_partial_success=False)
    catalog.server.recover()
    assert runs_of(catalog) == [run, submitted.run.id]
    assert not submitted.adopted


def test_run_that_fails_immediately_belongs_to_the_try_that_started_it(catalog: Catalog):
    """The token of the first submission was sent before, but that request was rejected, so the run is of this try."""
    task = Task(catalog, has_state_store=False)
    catalog.server.fail("StartMetadataGenerationRun", "ThrottlingException")
    with pytest.raises(ClientError):
        task.submit()
    catalog.server.set_run_outcome(polls=0, statuses="FAILED", times=None)
    # The Start response does not report the failure yet.
    submitted = task.submit()
    assert runs_of(catalog) == [submitted.run.id], "one run per try"


def make_run(status: str, created_at: float | None) -> MetadataGenerationRun:
    return MetadataGenerationRun.from_response(
        {"id": "run", "domainId": "dzd-1", "status": status}
        | ({} if created_at is None else {"createdAt": datetime.fromtimestamp(created_at, timezone.utc)})
    )


@pytest.mark.parametrize(
    ("run", "number", "try_number", "expected"),
    [
        (make_run("SUBMITTED", 999), 1, 2, True),
        (make_run("SUBMITTED", 1001), 1, 2, False),
        (make_run("FAILED", 1001), 1, 2, False),
        (make_run("SUBMITTED", None), 1, 2, True),
        (make_run("SUBMITTED", 999), 1, 1, False),
        (make_run("FAILED", 999), 2, 2, False),
    ],
    ids=[
        "created before the try",
        "created in the try",
        "created in the try, ended",
        "no creation time",
        "first try",
        "token first sent",
    ],
)
def test_start_response_is_a_replay(run: MetadataGenerationRun, number: int, try_number: int, expected: bool):
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
def test_canceled_run_was_canceled_with_the_previous_try(
    adopted_at: float | None, seen_active: bool, after: float, expected: bool
):
    assert (
        was_canceled_with_previous_try(
            adopted_at=adopted_at, seen_active=seen_active, now=1000 + after, poll_interval=30
        )
        is expected
    )


# -------------------------------------------------------------------------------------------------- tokens


def test_client_token_of_the_user_is_sent(task: Task, catalog: Catalog):
    run = task.submit(token="mine").run
    set_run_status(catalog, run.id, "FAILED")
    task.submit(token="mine")
    assert set(tokens_of(catalog)) == {"mine"}


def test_token_is_the_same_for_every_try_and_differs_between_submissions():
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
