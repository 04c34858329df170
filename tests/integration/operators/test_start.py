"""The Start operator by itself, over HTTP: input that is wrong, a run that is not known yet, a kill in mid-wait."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, TaskDeferred

from airflow_provider_datazone.exceptions import InvalidInputError, RequestRefusedError, StartedRunFailedError
from airflow_provider_datazone.hooks import datazone as hook_module
from airflow_provider_datazone.operators import start_execution
from airflow_provider_datazone.operators.datazone import DataZoneStartMetadataGenerationRunOperator
from tests.conftest import Clock
from tests.integration.operators.refusals import check_refusal
from tests.integration.operators.start_task import make_context, start, status_of
from tests.integration.triggers.waits import events

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

UNKNOWN_ASSET = "The given Asset doesn't exist. Try creating Asset before accessing it."


# -------------------------------------------------------------- wrong input


def in_another_project(catalog: Catalog) -> dict[str, Any]:
    project = catalog.server.client().create_project(domainIdentifier=catalog.domain_identifier, name="other")
    return {"owning_project_identifier": project["id"]}


def of_another_type(catalog: Catalog) -> dict[str, Any]:
    created = catalog.server.create_asset(
        domain_identifier=catalog.domain_identifier,
        project_identifier=catalog.project_identifier,
        type_identifier="custom",
    )
    return {"asset_identifier": created.asset_identifier}


REFUSED: dict[str, tuple[Callable[[Catalog], dict[str, Any]], str]] = {
    "a type that is none": (
        lambda catalog: {"types": ["NAMES"]},
        "Value 'NAMES' at 'types.1.member' failed to satisfy constraint: Member must satisfy enum value set",
    ),
    "an unknown asset": (lambda catalog: {"asset_identifier": "unknownasset"}, UNKNOWN_ASSET),
    "a text that is no domain's": (
        lambda catalog: {"domain_identifier": "nodomain"},
        "at 'domainIdentifier' failed to satisfy constraint: Member must satisfy regular expression pattern",
    ),
    "an unknown revision": (lambda catalog: {"asset_revision": "99"}, UNKNOWN_ASSET),
    "another project than the asset's": (
        in_another_project,
        "is not permitted to generate metadata for asset",
    ),
    "an unknown project": (
        lambda catalog: {"owning_project_identifier": "unknownproject"},
        "Project unknownproject does not exist",
    ),
    "an unknown domain": (
        lambda catalog: {"domain_identifier": "dzd-unknown"},
        "Domain dzd-unknown does not exist",
    ),
    "a type of asset that is not supported": (
        of_another_type,
        "Metadata Descriptions Generation is not supported for input asset type",
    ),
    "a client token that is too long": (
        lambda catalog: {"client_token": "x" * 129},
        "at 'clientToken' failed to satisfy constraint: Member must have length less than or equal to 128",
    ),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_datazone_refuses_is_told_in_its_own_words_after_one_request(catalog: Catalog, problem: str):
    arguments, message = REFUSED[problem]
    operator = start(catalog, **arguments(catalog))
    before = len(catalog.server.requests)
    with pytest.raises(RequestRefusedError) as refused:
        operator.execute(make_context())
    check_refusal(refused.value, operator, message)
    asked = [request.operation for request in catalog.server.requests[before:]]
    assert asked == ["StartMetadataGenerationRun"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"types": "BUSINESS_NAMES"}, "types must be a list of run types, got 'BUSINESS_NAMES'."),
        ({"types": "['BUSINESS_NAMES',\n]"}, r"types must be a list of run types, got "),
        ({"types": None}, "types must be a list of run types, got None."),
        ({"types": 1}, "types must be a list of run types, got 1."),
        ({"types": []}, "types must name at least one run type, got an empty list."),
        ({"domain_identifier": ""}, "domain_identifier is required: pass it to the task"),
        (
            {"owning_project_identifier": None},
            "owning_project_identifier is required: pass it to the task",
        ),
    ],
)
def test_what_cannot_be_sent_is_told_and_not_sent(catalog: Catalog, wrong: dict[str, Any], message: str):
    operator = start(catalog, **wrong)
    before = len(catalog.server.requests)
    with pytest.raises((InvalidInputError, RequestRefusedError)) as invalid:
        operator.execute(make_context())
    assert isinstance(invalid.value, AirflowFailException)
    assert message in str(invalid.value)
    assert str(invalid.value).isprintable(), "one line"
    assert catalog.server.requests[before:] == []


# --------------------------------------------- a run that is not known yet


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hook_module, "time", clock)
    monkeypatch.setattr(start_execution, "time", clock)
    return clock


def run_until_deferred(operator: DataZoneStartMetadataGenerationRunOperator, context: Any) -> str:
    """Return the run that a task has waited for, or has handed to a trigger."""
    try:
        return operator.execute(context)
    except TaskDeferred as deferred:
        run: str = deferred.trigger.run_identifier
        return run


@pytest.mark.parametrize("deferrable", [False, True])
def test_run_that_is_not_known_right_after_its_start_is_waited_for(
    catalog: Catalog, clock: Clock, deferrable: bool
):
    catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=3)
    context = make_context()
    run = run_until_deferred(start(catalog, deferrable=deferrable), context)
    assert run == context["ti"].xcoms["run"]["id"]
    # A kill that finds the task asleep ends it within a second.
    assert clock.naps == [1] * (3 if deferrable else 3 + 7)
    assert catalog.server.request_counts["StartMetadataGenerationRun"] == 1
    # The one with which a trigger begins to wait is one that Get knows.
    assert catalog.server.request_counts["GetMetadataGenerationRun"] == (4 if deferrable else 5)


@pytest.mark.parametrize("deferrable", [False, True])
def test_run_that_stays_unknown_is_given_up_after_the_grace_and_no_later(
    catalog: Catalog, clock: Clock, deferrable: bool
):
    catalog.server.fail(
        "GetMetadataGenerationRun",
        "ResourceNotFoundException",
        times=None,
        message="Requested prediction is away",
    )
    context = make_context()
    with pytest.raises(RequestRefusedError, match="Requested prediction is away") as gone:
        run_until_deferred(start(catalog, deferrable=deferrable), context)
    assert context["ti"].xcoms["run"]["id"] in str(gone.value)
    assert sum(clock.naps) == 30
    # A look at the beginning, one a second, and the last when the time is up.
    assert catalog.server.request_counts["GetMetadataGenerationRun"] == 31
    assert catalog.server.request_counts["StartMetadataGenerationRun"] == 1


@pytest.mark.parametrize("deferrable", [False, True])
def test_refusal_of_the_first_look_is_not_waited_out(catalog: Catalog, clock: Clock, deferrable: bool):
    catalog.server.fail("GetMetadataGenerationRun", "AccessDeniedException", message="not for you")
    with pytest.raises(RequestRefusedError, match="not for you"):
        run_until_deferred(start(catalog, deferrable=deferrable), make_context())
    assert clock.naps == []


@pytest.mark.parametrize("trouble", ["ThrottlingException", "InternalServerException", "drop", "malformed"])
@pytest.mark.parametrize("deferrable", [False, True])
def test_trouble_that_passes_at_the_first_look_is_no_reason_to_fail(
    catalog: Catalog, clock: Clock, caplog: pytest.LogCaptureFixture, deferrable: bool, trouble: str
):
    catalog.server.fail("GetMetadataGenerationRun", trouble)
    context = make_context()
    with caplog.at_level(logging.WARNING, "tests.start"):
        run = run_until_deferred(start(catalog, deferrable=deferrable), context)
    assert run == context["ti"].xcoms["run"]["id"]
    (warning,) = (message for message in caplog.messages if run in message)
    assert "will try again" in warning


# ------------------------------------------------- XComs that are switched off


@pytest.mark.parametrize("wait_for_completion", [True, False])
def test_nothing_is_left_in_xcom_where_that_is_switched_off(
    catalog: Catalog, clock: Clock, wait_for_completion: bool
):
    context = make_context()
    start(catalog, do_xcom_push=False, wait_for_completion=wait_for_completion).execute(context)
    assert context["ti"].xcoms == {}


@pytest.mark.parametrize("do_xcom_push", [True, False])
def test_run_that_ended_while_no_triggerer_looked_is_found_without_xcoms_too(
    catalog: Catalog, do_xcom_push: bool
):
    catalog.server.set_run_outcome(polls=2)
    operator, context = start(catalog, deferrable=True, do_xcom_push=do_xcom_push), make_context()
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    late = {"event": {"status": "timeout", "message": "late"}}
    run = operator.execute_complete(context, **late | deferred.value.kwargs)
    assert run == deferred.value.trigger.run_identifier
    assert ("type_stats" in context["ti"].xcoms) == do_xcom_push


def test_time_out_without_a_word_of_the_run_is_left_to_the_next_try(catalog: Catalog):
    """As a deferral of an earlier version has it, without XComs."""
    context = make_context()
    with pytest.raises(AirflowTaskTimeout, match="late"):
        start(catalog, do_xcom_push=False).execute_complete(
            context, {"status": "timeout", "message": "late"}, adopted=False
        )


# -------------------------------------------------------------------- kill


class Killed(BaseException):
    """Stands for the end of a process that Airflow has told to stop."""


@pytest.fixture
def during_the_wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Set what happens while the operator sleeps between two looks: where a signal finds it."""

    def set_interruption(interruption: Callable[[], Any]) -> None:
        sleeping = SimpleNamespace(
            time=time.time, monotonic=time.monotonic, sleep=lambda seconds: interruption()
        )
        monkeypatch.setattr(start_execution, "time", sleeping)

    return set_interruption


def kill(operator: DataZoneStartMetadataGenerationRunOperator) -> None:
    """Do what Airflow does on SIGTERM; a real one is sent to a real process elsewhere."""
    operator.on_kill()
    raise Killed


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_kill_cancels_the_run_if_it_is_to(
    catalog: Catalog,
    during_the_wait: Callable[[Callable[[], Any]], None],
    caplog: pytest.LogCaptureFixture,
    cancel_on_kill: bool,
):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    operator, context = start(catalog, cancel_on_kill=cancel_on_kill), make_context()
    during_the_wait(lambda: kill(operator))
    with caplog.at_level(logging.INFO, "tests.start"), pytest.raises(Killed):
        operator.execute(context)
    run = context["ti"].xcoms["run"]["id"]
    assert status_of(catalog, run) == ("CANCELED" if cancel_on_kill else "IN_PROGRESS")
    assert catalog.server.request_counts["CancelMetadataGenerationRun"] == int(cancel_on_kill)
    assert (f"Canceled, or had already ended: {run}" in caplog.messages) == cancel_on_kill


def test_kill_without_a_run_asks_nothing(catalog: Catalog):
    before = len(catalog.server.requests)
    start(catalog).on_kill()
    assert catalog.server.requests[before:] == []


@pytest.mark.parametrize(
    "arguments",
    [{}, {"deferrable": True}, {"wait_for_completion": False}],
    ids=["ended", "deferred", "does not wait"],
)
def test_kill_of_a_task_that_does_not_wait_any_more_cancels_nothing(
    catalog: Catalog, clock: Clock, arguments: dict[str, Any]
):
    operator = start(catalog, **arguments)
    run_until_deferred(operator, make_context())
    operator.on_kill()
    assert catalog.server.request_counts["CancelMetadataGenerationRun"] == 0


@pytest.mark.parametrize("deferrable", [False, True])
def test_run_that_the_try_before_was_killed_with_is_no_failure_of_this_try(
    catalog: Catalog, during_the_wait: Callable[[Callable[[], Any]], None], deferrable: bool
):
    """It was still active when this try found it, and its cancelling had effect only then."""
    there = catalog.start_run("BUSINESS_NAMES", in_progress_seconds=3600)
    cancel = lambda: catalog.server.set_run_status(there, "CANCELED")  # noqa: E731
    during_the_wait(cancel)
    operator, context = start(catalog, deferrable=deferrable), make_context()
    context["ti"].try_number = 2
    catalog.server.set_run_outcome(polls=0)
    if deferrable:
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        assert context["ti"].xcoms["run"]["id"] == there
        cancel()
        (event,) = events(deferred.value.trigger)
        run = operator.execute_complete(context, event, **deferred.value.kwargs or {})
    else:
        run = operator.execute(context)
    assert run != there
    assert (status_of(catalog, there), status_of(catalog, run)) == ("CANCELED", "SUCCEEDED")
    assert context["ti"].xcoms["run"]["id"] == run


@pytest.mark.parametrize("after", [100, 200], ids=["soon", "later"])
@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("written_by", ["this version", "an earlier version"])
def test_adopted_run_that_a_person_canceled_is_not_started_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, deferrable: bool, after: int, written_by: str
):
    there = catalog.start_run("BUSINESS_NAMES", in_progress_seconds=3600)
    clock = Clock()
    clock.time = lambda: clock.now  # type: ignore[method-assign]
    operator, context = start(catalog, deferrable=deferrable), make_context()
    context["ti"].try_number = 2

    def cancel_by_then(seconds: float) -> None:
        clock.now += seconds
        if clock.now >= 1000 + after:
            catalog.server.set_run_status(there, "CANCELED")

    clock.sleep = cancel_by_then  # type: ignore[method-assign]
    monkeypatch.setattr(start_execution, "time", clock)
    catalog.server.set_run_outcome(polls=0)
    started = catalog.server.request_counts["StartMetadataGenerationRun"]

    def execute() -> str:
        if not deferrable:
            return operator.execute(context)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        cancel_by_then(after)
        (event,) = events(deferred.value.trigger)
        kwargs = deferred.value.kwargs or {}
        assert kwargs["adopted"] == 1000
        if written_by == "an earlier version":
            kwargs = {"adopted": True}
        return start(catalog, deferrable=True).execute_complete(context, event, **kwargs)

    if after == 100 or (deferrable and written_by == "an earlier version"):
        assert execute() != there
        assert catalog.server.request_counts["StartMetadataGenerationRun"] == started + 1
    else:
        with pytest.raises(StartedRunFailedError, match="CANCELED"):
            execute()
        assert catalog.server.request_counts["StartMetadataGenerationRun"] == started


@pytest.mark.parametrize("deferrable", [False, True])
def test_run_that_this_try_started_is_not_started_again_when_it_is_canceled(
    catalog: Catalog, during_the_wait: Callable[[Callable[[], Any]], None], deferrable: bool
):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    operator, context = start(catalog, deferrable=deferrable), make_context()
    cancel = lambda: catalog.server.set_run_status(context["ti"].xcoms["run"]["id"], "CANCELED")  # noqa: E731
    during_the_wait(cancel)
    if deferrable:
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        cancel()
        (event,) = events(deferred.value.trigger)
        assert deferred.value.kwargs["adopted"] is False
        with pytest.raises(StartedRunFailedError):
            operator.execute_complete(context, event, **deferred.value.kwargs)
    else:
        with pytest.raises(StartedRunFailedError):
            operator.execute(context)
    assert catalog.server.request_counts["StartMetadataGenerationRun"] == 1


def test_kill_takes_no_offence_at_a_run_that_has_ended_meanwhile(
    catalog: Catalog,
    during_the_wait: Callable[[Callable[[], Any]], None],
    caplog: pytest.LogCaptureFixture,
):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    operator, context = start(catalog), make_context()

    def interruption() -> None:
        catalog.server.set_run_status(context["ti"].xcoms["run"]["id"], "SUCCEEDED")
        kill(operator)

    during_the_wait(interruption)
    with caplog.at_level(logging.WARNING, "tests.start"), pytest.raises(Killed):
        operator.execute(context)
    run = context["ti"].xcoms["run"]["id"]
    assert catalog.server.request_counts["CancelMetadataGenerationRun"] == 1
    assert [message for message in caplog.messages if run in message] == []
    assert status_of(catalog, run) == "SUCCEEDED"


@pytest.mark.parametrize(
    "trouble", ["AccessDeniedException", "ConflictException", "InternalServerException", "drop", "hang"]
)
def test_kill_that_cannot_cancel_says_so_and_goes_on(
    catalog: Catalog,
    during_the_wait: Callable[[Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
):
    monkeypatch.setenv("AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME", "1")
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    seconds = {"seconds": 20.0} if trouble == "hang" else {}
    catalog.server.fail("CancelMetadataGenerationRun", trouble, times=None, **seconds)
    operator, context = start(catalog), make_context()
    took = []

    def interruption() -> None:
        began = time.monotonic()
        operator.on_kill()
        took.append(time.monotonic() - began)
        raise Killed

    during_the_wait(interruption)
    with caplog.at_level(logging.WARNING, "tests.start"), pytest.raises(Killed):
        operator.execute(context)
    run = context["ti"].xcoms["run"]["id"]
    warnings = [message for message in caplog.messages if run in message]
    # Airflow 2 has been given a second, which is announced as too short for any Cancel.
    assert 1 <= len(warnings) <= 2
    assert all("may continue" in warning for warning in warnings)
    # Airflow ends the process soon.
    assert took[0] < 15


@pytest.mark.parametrize("known", [True, False])
def test_time_out_in_mid_wait_cancels_nothing(
    catalog: Catalog, datazone: DataZoneServer, monkeypatch: pytest.MonkeyPatch, known: bool
):
    def time_out(seconds: float) -> None:
        raise AirflowTaskTimeout("Timeout, PID: 1")

    # Between two looks at the run, or while Get does not know it yet.
    interrupted = start_execution if known else hook_module
    monkeypatch.setattr(
        interrupted, "time", SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=time_out)
    )
    if not known:
        datazone.fail("GetMetadataGenerationRun", "ResourceNotFoundException")
    datazone.set_run_outcome(in_progress_seconds=3600)
    operator, context = start(catalog), make_context()
    with pytest.raises(AirflowTaskTimeout):
        operator.execute(context)
    # As Airflow does then.
    operator.on_kill()
    assert datazone.request_counts["CancelMetadataGenerationRun"] == 0
    assert status_of(catalog, context["ti"].xcoms["run"]["id"]) == "IN_PROGRESS"


@pytest.mark.parametrize("wait", [True, False])
def test_client_token_that_another_asset_s_run_has_is_refused(catalog: Catalog, wait: bool):
    """DataZone may answer a token that it knows with the run that it stands for, whatever else was asked."""
    other = catalog.server.create_asset(
        domain_identifier=catalog.domain_identifier, project_identifier=catalog.project_identifier
    ).asset_identifier
    given = {"client_token": "None", "wait_for_completion": wait, "poll_interval": 0.01}
    start(catalog, **given).execute(make_context())
    with pytest.raises(
        InvalidInputError, match=f"client_token was used for asset {catalog.asset_identifier}"
    ):
        start(catalog, asset_identifier=other, **given).execute(make_context())
