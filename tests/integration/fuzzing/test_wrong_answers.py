"""Tasks and triggers handle any response of DataZone or of a proxy, over HTTP through real boto3."""

from __future__ import annotations

import asyncio
import html
import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, TaskDeferred
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import given, strategies as st

from airflow_provider_datazone import cancellation
from airflow_provider_datazone.exceptions import (
    MalformedResponseError,
    MetadataGenerationRunFailedError,
    StartedRunFailedError,
)
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneBatchMetadataGenerationOperator,
    DataZoneCancelMetadataGenerationRunOperator,
    DataZoneGetMetadataGenerationRunOperator,
    DataZoneRejectPredictionsOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.operators.start_execution import StartExecution
from airflow_provider_datazone.polling import sender
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from tests.task_context import make_context, storable
from tests.wrong import (
    CONNECTION,
    DOMAIN,
    LOG,
    Answer,
    Service,
    answers,
    check_error,
    check_log,
    check_told,
    fuzz,
    logged,
    make_run,
    make_task,
    render,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def run_and_check(execute: Callable[[], Any], *subjects: str, secrets: tuple[str, ...] = ()) -> Any:
    """Return what a task returns or raises. Only the errors that a task may raise are caught."""
    with logged() as lines:
        try:
            result = execute()
        except TaskDeferred as deferred:
            result = deferred
        except (
            AirflowFailException,
            StartedRunFailedError,
            ClientError,
            BotoCoreError,
            MalformedResponseError,
        ) as error:
            result = error
            # The error names the run of the response, or else the subject of the request.
            run = getattr(error, "run", None)
            named = (*subjects, DOMAIN) if run is None else (repr(run.id), repr(run.domain_id))
            check_error(error, *named, secrets=secrets)
    check_log(lines, *secrets)
    return result


@fuzz(150)
@given(answer=answers(make_run("run1")))
def test_sensor_handles_any_response(service: Service, hook: DataZoneHook, answer: Answer) -> None:
    service.answer = lambda *request: answer
    sensor = make_task(DataZoneMetadataGenerationRunSensor, hook, run_identifier="run1", deferrable=True)
    context = make_context()
    result = run_and_check(lambda: sensor.execute(context), "run1")
    if isinstance(result, (list, MetadataGenerationRunFailedError)):
        assert storable(context["ti"].xcoms["run"])["typeStats"] == context["ti"].xcoms["type_stats"]


@fuzz(40)
@given(answer=answers(make_run("run1")))
def test_get_operator_handles_any_response(service: Service, hook: DataZoneHook, answer: Answer) -> None:
    service.answer = lambda *request: answer
    operator = make_task(DataZoneGetMetadataGenerationRunOperator, hook, run_identifier="run1")
    run_and_check(lambda: operator.execute(make_context()), "run1")


@fuzz(60)
@given(canceled=st.one_of(st.just(Answer(b"{}")), answers({})), got=answers(make_run("run1", "CANCELED")))
def test_cancel_operator_handles_any_response(
    service: Service, hook: DataZoneHook, canceled: Answer, got: Answer
) -> None:
    service.answer = lambda method, path, body: canceled if method == "POST" else got
    operator = make_task(DataZoneCancelMetadataGenerationRunOperator, hook, run_identifier="run1")
    run_and_check(lambda: operator.execute(make_context()), "run1")


@fuzz(40)
@given(canceled=st.one_of(st.just(Answer(b"{}")), answers({})), got=answers(make_run("run1", "CANCELED")))
def test_kill_logs_any_response(service: Service, hook: DataZoneHook, canceled: Answer, got: Answer) -> None:
    """No caller reports an error that is raised while a task is killed, so the log must contain it."""
    operator = make_task(DataZoneStartMetadataGenerationRunOperator, hook, asset_identifier="a", types=[])
    # The state of a task that waits in its worker.
    execution = operator._execution = StartExecution(operator, {})
    execution._run_identifier = "run1"
    trigger = DataZoneMetadataGenerationRunTrigger(
        "run1", DOMAIN, aws_conn_id=CONNECTION, cancel_on_kill=True
    )
    trigger._log = LOG
    valid = {"POST": Answer(b"{}"), "GET": render(make_run("run1", "CANCELED"))}
    for kill in (operator.on_kill, lambda: asyncio.run(trigger._cancel())):
        # A trigger retries until Airflow stops it.
        first_responses = {"POST": canceled, "GET": got}
        service.answer = lambda method, path, body, first_responses=first_responses: (  # type: ignore[misc]
            first_responses.pop(method, None) or valid[method]
        )
        with logged() as lines, pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(sender, "CANCEL_RETRY_INTERVAL", 0)
            monkeypatch.setattr(cancellation, "_RETRY_INTERVAL", 0.01)
            execution._canceled_run = None
            kill()
        assert "POST" not in first_responses
        check_log(lines)
        assert any("run1" in line for line in lines)


RUNS = {"items": [make_run("run1", "IN_PROGRESS"), make_run("run2", "SUBMITTED")], "nextToken": "more"}


@fuzz(100)
@given(
    started=answers(make_run("run1", "SUBMITTED")),
    got=st.one_of(st.just(render(make_run("run1", "SUCCEEDED"))), answers(make_run("run1"))),
    listed=answers(RUNS),
    try_number=st.integers(1, 2),
)
def test_start_operator_handles_any_response(
    service: Service,
    hook: DataZoneHook,
    started: Answer,
    got: Answer,
    listed: Answer,
    try_number: int,
) -> None:
    def answer(method: str, path: str, body: bytes) -> Answer:
        if method == "POST":
            return started
        return got if re.search(r"/metadata-generation-runs/[^?]", path) else listed

    service.answer = answer
    operator = make_task(
        DataZoneStartMetadataGenerationRunOperator,
        hook,
        asset_identifier="asset1",
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        owning_project_identifier="project1",
        deferrable=True,
    )
    context = make_context()
    context["ti"].try_number = try_number
    run_and_check(lambda: operator.execute(context))


# ---------------------------------------------------------- triggers and batches


def fail_once_then_succeed(
    first_responses: dict[str, Answer], listed: Answer
) -> Callable[[str, str, bytes], Answer]:
    """Return a handler that sends the given response once per run or asset, and valid responses after that."""
    remaining = dict(first_responses)

    def answer(method: str, path: str, body: bytes) -> Answer:
        if method == "POST":
            asset = json.loads(body)["target"]["identifier"]
            return remaining.pop(f"start-{asset}", None) or render(make_run(f"run-{asset}", "SUBMITTED"), 201)
        run = re.search(r"/metadata-generation-runs/([^?]+)", path)
        if run is None:
            return listed
        return remaining.pop(run[1], None) or render(make_run(run[1], "SUCCEEDED"))

    return answer


def only_event(trigger: Any) -> Any:
    async def wait() -> Any:
        (event,) = [event async for event in trigger.run()]
        return event.payload

    return asyncio.wait_for(wait(), 60)


@fuzz(12)
@given(first_responses=st.lists(answers(make_run("run1")), min_size=5, max_size=15), listed=answers(RUNS))
def test_trigger_handles_any_response(
    service: Service, first_responses: list[Answer], listed: Answer
) -> None:
    service.answer = fail_once_then_succeed(
        {f"run{number}": first for number, first in enumerate(first_responses)}, listed
    )

    async def main() -> list[dict[str, Any]]:
        triggers = [
            DataZoneMetadataGenerationRunTrigger(
                f"run{number}", DOMAIN, poll_interval=0.001, aws_conn_id=CONNECTION
            )
            for number in range(len(first_responses))
        ]
        for trigger in triggers:
            trigger._log = LOG
        return await asyncio.gather(*map(only_event, triggers))

    with logged() as lines:
        events = asyncio.run(main())
    check_log(lines)
    for number, event in enumerate(events):
        storable(event)
        if event["status"] == "error":
            check_told(event["message"])
            for part in (f"'run{number}'", repr(DOMAIN)):
                assert part in event["message"]
            assert len(event["message"]) < 10_000
        else:
            assert event["status"] == "terminal"


@fuzz(6)
@given(
    started=st.lists(answers(make_run("run-asset0", "SUBMITTED")), min_size=5, max_size=10),
    got=st.lists(answers(make_run("run-asset0")), min_size=5, max_size=10),
    listed=answers(RUNS),
)
def test_batch_handles_any_response(
    service: Service, hook: DataZoneHook, started: list[Answer], got: list[Answer], listed: Answer
) -> None:
    first_responses = {f"start-asset{number}": answer for number, answer in enumerate(started)}
    first_responses |= {f"run-asset{number}": answer for number, answer in enumerate(got)}
    service.answer = fail_once_then_succeed(first_responses, listed)
    assets = [f"asset{number}" for number in range(10)]
    operator = make_task(
        DataZoneBatchMetadataGenerationOperator,
        hook,
        asset_identifiers=assets,
        types=["BUSINESS_NAMES"],
        owning_project_identifier="project1",
        poll_interval=0.001,
        max_failures=10,
        execution_timeout=timedelta(seconds=60),
    )
    context = make_context()
    with logged() as lines:
        try:
            operator.execute(context)
        except AirflowTaskTimeout as error:
            # A failed read of an asset's runs is retried until the task times out.
            check_error(error, DOMAIN)
        except (AirflowFailException, ClientError, BotoCoreError, MalformedResponseError) as error:
            # Errors that affect every asset, such as invalid credentials.
            check_error(error)
    check_log(lines)
    for row in context["ti"].xcoms.get("results", ()):
        if "error" in row:
            check_told(row["error"])
            assert DOMAIN in row["error"]


# ------------------------------------------------------------- edited values


def encodings_of(value: str) -> dict[str, str]:
    """Return the encodings in which a service may repeat a text that was sent as JSON."""
    return {
        "unchanged": value,
        "as Python": repr(value),
        "as JSON": json.dumps(value),
        "as JSON without escapes": json.dumps(value, ensure_ascii=False),
        "as HTML": html.escape(value),
        "escaped": value.encode("unicode_escape", "surrogatepass").decode(),
        "stripped": value.strip(),
    }


@fuzz(60)
@given(
    decision=st.sampled_from(["accept", "reject"]),
    answer=answers({"domainId": DOMAIN, "assetId": "asset1", "revision": "2", "assetRevision": "2"}),
)
def test_prediction_operators_handle_any_response(
    service: Service, hook: DataZoneHook, decision: str, answer: Answer
) -> None:
    service.answer = lambda *request: answer
    operator = make_task(DECISIONS[decision], hook, asset_identifier="asset1", rule="ALL")
    result = run_and_check(lambda: operator.execute(make_context()))
    assert isinstance(result, (str, Exception))


DECISIONS: dict[str, Any] = {
    "accept": DataZoneAcceptPredictionsOperator,
    "reject": DataZoneRejectPredictionsOperator,
}


@fuzz(100)
@given(
    # The prefix appears in no line of code. Hypothesis also draws literals of the code, which a traceback may show.
    value=st.one_of(
        st.text(min_size=5, max_size=40).map(lambda text: f"zq7{text}"),
        st.text(min_size=5).map(lambda text: f'"zq7{text}<é>\n'),
    ),
    encoding=st.sampled_from(sorted(encodings_of(""))),
    frame=st.sampled_from(["{}", '{{"message": "{}"}}', "Bad request: {}.", "x" * 1990 + "{}", "{0}" * 50]),
    status=st.sampled_from([400, 403, 500, 502]),
)
def test_edited_value_is_redacted_in_every_encoding(
    service: Service, hook: DataZoneHook, value: str, encoding: str, frame: str, status: int
) -> None:
    encoded = encodings_of(value)[encoding]
    bodies = (frame.format(encoded), json.dumps({"message": frame.format(encoded)}))
    for body in bodies:
        answer = Answer(body.encode("utf-8", "surrogatepass"), status)
        service.answer = lambda *request, answer=answer: answer  # type: ignore[misc]
        choices = [{"predictionTarget": "summary", "editedValue": value}]
        operator = make_task(DECISIONS["accept"], hook, asset_identifier="asset1", choices=choices)
        result = run_and_check(lambda: operator.execute(make_context()), secrets=(value,))  # noqa: B023
        assert isinstance(result, Exception)
