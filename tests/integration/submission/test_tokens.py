"""The client tokens of tries, and what they find without permission to list runs."""

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
from tests.integration.submission.tries import ACTIVE, Task, end, runs_of, tokens_of

if TYPE_CHECKING:
    from tests.conftest import Catalog


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
