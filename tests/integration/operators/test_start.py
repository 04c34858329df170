"""The start operator over HTTP: invalid arguments, runs that are not found yet, and kills while waiting."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, TaskDeferred
from moto.core.responses import ActionResult

from airflow_provider_datazone.exceptions import InvalidInputError, RequestRefusedError, StartedRunFailedError
from airflow_provider_datazone.hooks import datazone as hook_module
from airflow_provider_datazone.operators import start_execution
from airflow_provider_datazone.operators.datazone import DataZoneStartMetadataGenerationRunOperator
from airflow_provider_datazone.testing.backend.responses import DataZoneResponse
from tests.conftest import Clock
from tests.integration.operators.refusals import check_refusal
from tests.integration.operators.start_task import start, status_of
from tests.integration.submission.tries import keep_listing_as_active, runs_of
from tests.integration.triggers.waits import events
from tests.task_context import Store, make_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

UNKNOWN_ASSET = "The given Asset doesn't exist. Try creating Asset before accessing it."


# ---------------------------------------------------------- arguments


class TeamStart(DataZoneStartMetadataGenerationRunOperator):
    """A subclass of a user, with a template field of its own."""

    template_fields = (*DataZoneStartMetadataGenerationRunOperator.template_fields, "labels", "poll_interval")

    def __init__(self, *, labels: dict[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.labels = labels


def test_template_field_of_a_subclass_is_not_converted(catalog: Catalog) -> None:
    operator = TeamStart(
        task_id="start",
        asset_identifier=catalog.asset_identifier,
        types=["BUSINESS_NAMES"],
        domain_identifier=catalog.domain_identifier,
        owning_project_identifier=catalog.project_identifier,
        aws_conn_id="datazone_default",
        labels={"team": "x"},
        wait_for_completion=False,
        poll_interval=5,
    )
    operator.execute(make_context())
    assert (operator.labels, operator.poll_interval) == ({"team": "x"}, 5)


# ---------------------------------------------------------- invalid arguments


def use_another_project(catalog: Catalog) -> dict[str, Any]:
    project = catalog.server.client().create_project(domainIdentifier=catalog.domain_identifier, name="other")
    return {"owning_project_identifier": project["id"]}


def use_asset_of_another_type(catalog: Catalog) -> dict[str, Any]:
    created = catalog.server.create_asset(
        domain_identifier=catalog.domain_identifier,
        project_identifier=catalog.project_identifier,
        type_identifier="custom",
    )
    return {"asset_identifier": created.asset_identifier}


REJECTED: dict[str, tuple[Callable[[Catalog], dict[str, Any]], str]] = {
    "an invalid run type": (
        lambda catalog: {"types": ["NAMES"]},
        "Value 'NAMES' at 'types.1.member' failed to satisfy constraint: Member must satisfy enum value set",
    ),
    "an unknown asset": (lambda catalog: {"asset_identifier": "unknownasset"}, UNKNOWN_ASSET),
    "an invalid domain identifier": (
        lambda catalog: {"domain_identifier": "nodomain"},
        "at 'domainIdentifier' failed to satisfy constraint: Member must satisfy regular expression pattern",
    ),
    "an unknown revision": (lambda catalog: {"asset_revision": "99"}, UNKNOWN_ASSET),
    "a project that does not own the asset": (
        use_another_project,
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
    "an unsupported asset type": (
        use_asset_of_another_type,
        "Metadata Descriptions Generation is not supported for input asset type",
    ),
    "a client token that is too long": (
        lambda catalog: {"client_token": "x" * 129},
        "at 'clientToken' failed to satisfy constraint: Member must have length less than or equal to 128",
    ),
}


@pytest.mark.parametrize("problem", REJECTED)
def test_rejected_request_raises_the_datazone_message_without_retries(catalog: Catalog, problem: str):
    make_arguments, message = REJECTED[problem]
    operator = start(catalog, **make_arguments(catalog))
    before = len(catalog.server.requests)
    with pytest.raises(RequestRefusedError) as raised:
        operator.execute(make_context())
    check_refusal(raised.value, operator, message)
    operations = [request.operation for request in catalog.server.requests[before:]]
    assert operations == ["StartMetadataGenerationRun"]


@pytest.mark.parametrize(
    ("arguments", "message"),
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
def test_invalid_arguments_raise_an_error_without_a_request(
    catalog: Catalog, arguments: dict[str, Any], message: str
):
    operator = start(catalog, **arguments)
    before = len(catalog.server.requests)
    with pytest.raises((InvalidInputError, RequestRefusedError)) as raised:
        operator.execute(make_context())
    assert isinstance(raised.value, AirflowFailException)
    assert message in str(raised.value)
    assert str(raised.value).isprintable(), "no line breaks or control characters"
    assert catalog.server.requests[before:] == []


# --------------------------------------------- runs that are not found yet


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hook_module, "time", clock)
    monkeypatch.setattr(start_execution, "time", clock)
    return clock


def execute_or_defer(operator: DataZoneStartMetadataGenerationRunOperator, context: Any) -> str:
    """Return the run that a task waits for, either itself or by deferring."""
    try:
        return operator.execute(context)
    except TaskDeferred as deferred:
        run: str = deferred.trigger.run_identifier
        return run


@pytest.mark.parametrize("deferrable", [False, True])
def test_task_polls_again_until_a_new_run_is_found(catalog: Catalog, clock: Clock, deferrable: bool):
    catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=3)
    context = make_context()
    run = execute_or_defer(start(catalog, deferrable=deferrable), context)
    assert run == context["ti"].xcoms["run"]["id"]
    # The task sleeps for one second at a time, so that a kill ends it within a second.
    assert clock.naps == [1] * (3 if deferrable else 3 + 7)
    assert catalog.server.request_counts["StartMetadataGenerationRun"] == 1
    # The task defers only after Get returns the run.
    assert catalog.server.request_counts["GetMetadataGenerationRun"] == (4 if deferrable else 5)


@pytest.mark.parametrize("deferrable", [False, True])
def test_task_fails_if_the_run_is_not_found_within_the_grace_period(
    catalog: Catalog, clock: Clock, deferrable: bool
):
    catalog.server.fail(
        "GetMetadataGenerationRun",
        "ResourceNotFoundException",
        times=None,
        message="Requested prediction is away",
    )
    context = make_context()
    with pytest.raises(RequestRefusedError, match="Requested prediction is away") as raised:
        execute_or_defer(start(catalog, deferrable=deferrable), context)
    assert context["ti"].xcoms["run"]["id"] in str(raised.value)
    assert sum(clock.naps) == 30
    # The first poll, one per second, and the last one at the deadline.
    assert catalog.server.request_counts["GetMetadataGenerationRun"] == 31
    assert catalog.server.request_counts["StartMetadataGenerationRun"] == 1


@pytest.mark.parametrize("deferrable", [False, True])
def test_rejected_first_poll_fails_the_task_immediately(catalog: Catalog, clock: Clock, deferrable: bool):
    catalog.server.fail("GetMetadataGenerationRun", "AccessDeniedException", message="not for you")
    with pytest.raises(RequestRefusedError, match="not for you"):
        execute_or_defer(start(catalog, deferrable=deferrable), make_context())
    assert clock.naps == []


@pytest.mark.parametrize("fault", ["ThrottlingException", "InternalServerException", "drop", "malformed"])
@pytest.mark.parametrize("deferrable", [False, True])
def test_transient_error_of_the_first_poll_does_not_fail_the_task(
    catalog: Catalog, clock: Clock, caplog: pytest.LogCaptureFixture, deferrable: bool, fault: str
):
    catalog.server.fail("GetMetadataGenerationRun", fault)
    context = make_context()
    with caplog.at_level(logging.WARNING, "tests.start"):
        run = execute_or_defer(start(catalog, deferrable=deferrable), context)
    assert run == context["ti"].xcoms["run"]["id"]
    (warning,) = (message for message in caplog.messages if run in message)
    assert "will try again" in warning


# ---------------------------------------------------- do_xcom_push disabled


@pytest.mark.parametrize("wait_for_completion", [True, False])
def test_no_xcoms_are_pushed_if_do_xcom_push_is_false(
    catalog: Catalog, clock: Clock, wait_for_completion: bool
):
    context = make_context()
    start(catalog, do_xcom_push=False, wait_for_completion=wait_for_completion).execute(context)
    assert context["ti"].xcoms == {}


@pytest.mark.parametrize("do_xcom_push", [True, False])
def test_run_that_ends_before_the_timeout_event_is_found_even_without_xcoms(
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


def test_timeout_event_without_a_run_raises_a_timeout(catalog: Catalog):
    """Deferrals of an earlier version without XComs do not contain the run. The next try finds it."""
    context = make_context()
    with pytest.raises(AirflowTaskTimeout, match="late"):
        start(catalog, do_xcom_push=False).execute_complete(
            context, {"status": "timeout", "message": "late"}, adopted=False
        )


# ------------------------------------------------------- kills and timeouts


class Killed(BaseException):
    """Simulates the end of a process after SIGTERM."""


@pytest.fixture
def while_waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Set a function to call when the operator sleeps between polls, where signals usually arrive."""

    def set_interruption(interruption: Callable[[], Any]) -> None:
        sleeping = SimpleNamespace(
            time=time.time, monotonic=time.monotonic, sleep=lambda seconds: interruption()
        )
        monkeypatch.setattr(start_execution, "time", sleeping)

    return set_interruption


def kill(operator: DataZoneStartMetadataGenerationRunOperator) -> None:
    """Do what Airflow does on SIGTERM. Other tests send a real signal to a real process."""
    operator.on_kill()
    raise Killed


@pytest.mark.parametrize(
    "arguments",
    [{}, {"deferrable": True}, {"wait_for_completion": False}],
    ids=["ended", "deferred", "does not wait"],
)
def test_kill_after_the_wait_cancels_nothing(catalog: Catalog, clock: Clock, arguments: dict[str, Any]):
    operator = start(catalog, **arguments)
    execute_or_defer(operator, make_context())
    operator.on_kill()
    assert catalog.server.request_counts["CancelMetadataGenerationRun"] == 0


@pytest.mark.parametrize("deferrable", [False, True])
def test_run_canceled_by_the_kill_of_an_earlier_try_is_started_again(
    catalog: Catalog, while_waiting: Callable[[Callable[[], Any]], None], deferrable: bool
):
    """The run was still active when the retry found it. The cancel took effect afterwards."""
    existing = catalog.start_run("BUSINESS_NAMES", in_progress_seconds=3600)
    cancel = lambda: catalog.server.set_run_status(existing, "CANCELED")  # noqa: E731
    while_waiting(cancel)
    operator, context = start(catalog, deferrable=deferrable), make_context()
    context["ti"].try_number = 2
    catalog.server.set_run_outcome(polls=0)
    if deferrable:
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        assert context["ti"].xcoms["run"]["id"] == existing
        cancel()
        (event,) = events(deferred.value.trigger)
        run = operator.execute_complete(context, event, **deferred.value.kwargs or {})
    else:
        run = operator.execute(context)
    assert run != existing
    assert (status_of(catalog, existing), status_of(catalog, run)) == ("CANCELED", "SUCCEEDED")
    assert context["ti"].xcoms["run"]["id"] == run


def test_run_of_another_user_that_is_canceled_is_not_started_again_in_the_first_try(
    catalog: Catalog, while_waiting: Callable[[Callable[[], Any]], None]
):
    """There is no previous try whose kill could have canceled it."""
    existing = catalog.start_run("BUSINESS_NAMES", in_progress_seconds=3600)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException")
    while_waiting(lambda: catalog.server.set_run_status(existing, "CANCELED"))
    with pytest.raises(StartedRunFailedError, match=f"{existing}.* ended CANCELED"):
        start(catalog).execute(make_context())
    assert runs_of(catalog) == [existing]


def test_run_that_the_task_saw_end_is_not_adopted_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, clock: Clock
):
    """List may still report the run that the kill of the previous try canceled."""
    existing = catalog.start_run("BUSINESS_NAMES", in_progress_seconds=3600)
    catalog.server.set_run_status(existing, "CANCELED")
    keep_listing_as_active(monkeypatch, catalog, existing)
    catalog.server.set_run_outcome(polls=0)
    before = catalog.server.request_counts
    run = start(catalog).execute(make_context(try_number=2))
    assert (run != existing, status_of(catalog, run)) == (True, "SUCCEEDED")
    assert (
        catalog.server.request_counts["ListMetadataGenerationRuns"] - before["ListMetadataGenerationRuns"]
        <= 4
    )


@pytest.mark.parametrize("after", [100, 200], ids=["soon", "later"])
@pytest.mark.parametrize(
    ("deferrable", "written_by"),
    # Only a deferred task has arguments that an earlier version wrote.
    [(False, "this version"), (True, "this version"), (True, "an earlier version")],
)
def test_adopted_run_canceled_by_a_user_is_not_started_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, deferrable: bool, after: int, written_by: str
):
    existing = catalog.start_run("BUSINESS_NAMES", in_progress_seconds=3600)
    clock = Clock()
    clock.time = lambda: clock.now  # type: ignore[method-assign]
    operator, context = start(catalog, deferrable=deferrable), make_context()
    context["ti"].try_number = 2

    def sleep_and_cancel(seconds: float) -> None:
        clock.now += seconds
        if clock.now >= 1000 + after:
            catalog.server.set_run_status(existing, "CANCELED")

    clock.sleep = sleep_and_cancel  # type: ignore[method-assign]
    monkeypatch.setattr(start_execution, "time", clock)
    catalog.server.set_run_outcome(polls=0)
    started = catalog.server.request_counts["StartMetadataGenerationRun"]

    def execute() -> str:
        if not deferrable:
            return operator.execute(context)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        sleep_and_cancel(after)
        (event,) = events(deferred.value.trigger)
        kwargs = deferred.value.kwargs or {}
        assert kwargs["adopted"] == 1000
        # The trigger has no simulated clock.
        event["read_at"] = clock.now
        if written_by == "an earlier version":
            kwargs = {"adopted": True}
            del event["read_at"]
        return start(catalog, deferrable=True).execute_complete(context, event, **kwargs)

    if after == 100 or written_by == "an earlier version":
        assert execute() != existing
        assert catalog.server.request_counts["StartMetadataGenerationRun"] == started + 1
    else:
        with pytest.raises(StartedRunFailedError, match="CANCELED"):
            execute()
        assert catalog.server.request_counts["StartMetadataGenerationRun"] == started


@pytest.mark.parametrize("deferrable", [False, True])
def test_canceled_run_of_the_same_try_is_not_started_again(
    catalog: Catalog, while_waiting: Callable[[Callable[[], Any]], None], deferrable: bool
):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    operator, context = start(catalog, deferrable=deferrable), make_context()
    cancel = lambda: catalog.server.set_run_status(context["ti"].xcoms["run"]["id"], "CANCELED")  # noqa: E731
    while_waiting(cancel)
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


def test_kill_accepts_a_run_that_has_already_ended(
    catalog: Catalog,
    while_waiting: Callable[[Callable[[], Any]], None],
    caplog: pytest.LogCaptureFixture,
):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    operator, context = start(catalog), make_context()

    def interruption() -> None:
        catalog.server.set_run_status(context["ti"].xcoms["run"]["id"], "SUCCEEDED")
        kill(operator)

    while_waiting(interruption)
    with caplog.at_level(logging.WARNING, "tests.start"), pytest.raises(Killed):
        operator.execute(context)
    run = context["ti"].xcoms["run"]["id"]
    assert catalog.server.request_counts["CancelMetadataGenerationRun"] == 1
    assert [message for message in caplog.messages if run in message] == []
    assert status_of(catalog, run) == "SUCCEEDED"


@pytest.mark.parametrize(
    "fault", ["AccessDeniedException", "ConflictException", "InternalServerException", "drop", "hang"]
)
def test_failed_cancel_during_a_kill_is_logged(
    catalog: Catalog,
    while_waiting: Callable[[Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
):
    monkeypatch.setenv("AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME", "1")
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    seconds = {"seconds": 20.0} if fault == "hang" else {}
    catalog.server.fail("CancelMetadataGenerationRun", fault, times=None, **seconds)
    operator, context = start(catalog), make_context()
    durations = []

    def interruption() -> None:
        began = time.monotonic()
        operator.on_kill()
        durations.append(time.monotonic() - began)
        raise Killed

    while_waiting(interruption)
    with caplog.at_level(logging.WARNING, "tests.start"), pytest.raises(Killed):
        operator.execute(context)
    run = context["ti"].xcoms["run"]["id"]
    warnings = [message for message in caplog.messages if run in message]
    # Airflow 2 allows one second here, and a second warning says that this is too short for a cancel.
    assert 1 <= len(warnings) <= 2
    assert all("may continue" in warning for warning in warnings)
    # Airflow ends the process soon after.
    assert durations[0] < 15


@pytest.mark.parametrize("known", [True, False])
def test_timeout_while_waiting_does_not_cancel_the_run(
    catalog: Catalog, datazone: DataZoneServer, monkeypatch: pytest.MonkeyPatch, known: bool
):
    def time_out(seconds: float) -> None:
        raise AirflowTaskTimeout("Timeout, PID: 1")

    # The timeout comes between two polls, or while Get does not find the run yet.
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
    # Airflow calls on_kill after a timeout.
    operator.on_kill()
    assert datazone.request_counts["CancelMetadataGenerationRun"] == 0
    assert status_of(catalog, context["ti"].xcoms["run"]["id"]) == "IN_PROGRESS"


def test_retry_with_the_types_in_another_order_starts_no_second_run(catalog: Catalog):
    """The order of a set of strings differs between processes."""
    types = ["BUSINESS_NAMES", "BUSINESS_DESCRIPTIONS"]
    catalog.server.set_run_outcome(polls=0, times=None)
    catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
    with pytest.raises(Exception, match="Connection"):
        start(catalog, types=types).execute(make_context())
    run = start(catalog, types=types[::-1]).execute(make_context(try_number=2))
    assert [run] == runs_of(catalog)


@pytest.mark.parametrize("wait", [True, False])
def test_client_token_of_another_assets_run_raises_an_error(
    catalog: Catalog, wait: bool, monkeypatch: pytest.MonkeyPatch
):
    """DataZone may respond to a known token with its run, even if the other parameters differ."""
    # The local DataZone assumes a conflict. AWS documents neither.
    run = catalog.start_run(polls=0)
    details = catalog.server.client().get_metadata_generation_run(
        domainIdentifier=catalog.domain_identifier, identifier=run
    )
    other = catalog.server.create_asset(
        domain_identifier=catalog.domain_identifier, project_identifier=catalog.project_identifier
    ).asset_identifier
    store = Store()
    given = {"client_token": "None", "wait_for_completion": wait, "poll_interval": 0.01}
    task, message = start(catalog, asset_identifier=other, **given), "client_token was used for asset "
    with monkeypatch.context() as patch:
        patch.setattr(DataZoneResponse, "start_metadata_generation_run", lambda self: ActionResult(details))
        with pytest.raises(InvalidInputError, match=message + catalog.asset_identifier):
            task.execute(make_context(store))
    # The user fixes the DAG, and clears the task.
    retry = start(catalog, asset_identifier=other, wait_for_completion=False)
    assert retry.execute(make_context(store, try_number=2, max_tries=5)) != run
    assert catalog.server.request_counts["CancelMetadataGenerationRun"] == 0
