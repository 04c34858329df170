"""Whatever DataZone, or something in front of it, answers: over HTTP through real boto3."""

from __future__ import annotations

import asyncio
import html
import json
import re
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import given, strategies as st

from airflow_provider_datazone.exceptions import (
    MalformedResponseError,
    MetadataGenerationRunFailedError,
    StartedRunFailedError,
)
from airflow_provider_datazone.hooks import datazone as hook_module
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneBatchMetadataGenerationOperator,
    DataZoneCancelMetadataGenerationRunOperator,
    DataZoneGetMetadataGenerationRunOperator,
    DataZoneRejectPredictionsOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from tests.wrong import (
    LOG,
    Answer,
    Service,
    answers,
    check_error,
    check_log,
    check_told,
    fuzz,
    logged,
    make_connection,
    make_run,
    render,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOMAIN = "dzd-1"
CONNECTION = "wrong"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", make_connection(service.endpoint_url))
        for option in ("MAX_REQUESTS_PER_SECOND", "MAX_STARTS_PER_SECOND"):
            monkeypatch.setenv(f"AIRFLOW__DATAZONE__{option}", "100000")
        monkeypatch.setattr(hook_module, "time", Clock())
        yield service


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(scope="module")
def hook(service: Service) -> DataZoneHook:
    """One client for all: to build one takes longer than what it is asked here."""
    hook = DataZoneHook(CONNECTION)
    hook._log = LOG
    hook.conn  # noqa: B018
    return hook


class TaskInstance:
    """Stands for Airflow's; what it is given must be JSON that every database takes."""

    dag_id, run_id, task_id, map_index, try_number, max_tries = "dag", "run", "task", -1, 1, 0

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {"deferred_in_try": 1}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = storable(value)

    def xcom_pull(self, *, key: str, **_: Any) -> Any:
        return self.xcoms.get(key)


def storable(value: Any) -> Any:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in text, "PostgreSQL does not take it"
    return json.loads(text)


def make_context() -> Any:
    start_date = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return {"ti": TaskInstance(), "dag_run": SimpleNamespace(start_date=start_date)}


def task(cls: Any, hook: DataZoneHook, **arguments: Any) -> Any:
    task = cls(**{"task_id": "task", "aws_conn_id": CONNECTION, "domain_identifier": DOMAIN} | arguments)
    task.__dict__["hook"] = hook
    task._log = task._cached_logger = LOG
    hook._last_status.clear()
    return task


def outcome(execute: Callable[[], Any], *about: str, secrets: tuple[str, ...] = ()) -> Any:
    """Return what a task returns or raises, which must be one of what it may raise."""
    with logged() as lines:
        try:
            ended = execute()
        except TaskDeferred as deferred:
            ended = deferred
        except (
            AirflowFailException,
            StartedRunFailedError,
            ClientError,
            BotoCoreError,
            MalformedResponseError,
        ) as error:
            ended = error
            check_error(error, *about, DOMAIN, secrets=secrets)
    check_log(lines, *secrets)
    return ended


@fuzz(150)
@given(answer=answers(make_run("run1")))
def test_sensor_takes_any_answer(service: Service, hook: DataZoneHook, answer: Answer) -> None:
    service.answer = lambda *request: answer
    sensor = task(DataZoneMetadataGenerationRunSensor, hook, run_identifier="run1", deferrable=True)
    context = make_context()
    ended = outcome(lambda: sensor.execute(context), "run1")
    if isinstance(ended, (list, MetadataGenerationRunFailedError)):
        assert storable(context["ti"].xcoms["run"])["typeStats"] == context["ti"].xcoms["type_stats"]


@fuzz(40)
@given(answer=answers(make_run("run1")))
def test_get_takes_any_answer(service: Service, hook: DataZoneHook, answer: Answer) -> None:
    service.answer = lambda *request: answer
    operator = task(DataZoneGetMetadataGenerationRunOperator, hook, run_identifier="run1")
    outcome(lambda: operator.execute(make_context()), "run1")


@fuzz(60)
@given(canceled=st.one_of(st.just(Answer(b"{}")), answers({})), got=answers(make_run("run1", "CANCELED")))
def test_cancel_takes_any_answer(service: Service, hook: DataZoneHook, canceled: Answer, got: Answer) -> None:
    service.answer = lambda method, path, body: canceled if method == "POST" else got
    operator = task(DataZoneCancelMetadataGenerationRunOperator, hook, run_identifier="run1")
    outcome(lambda: operator.execute(make_context()), "run1")


RUNS = {"items": [make_run("run1", "IN_PROGRESS"), make_run("run2", "SUBMITTED")], "nextToken": "more"}


@fuzz(100)
@given(
    started=answers(make_run("run1", "SUBMITTED")),
    got=st.one_of(st.just(render(make_run("run1", "SUCCEEDED"))), answers(make_run("run1"))),
    listed=answers(RUNS),
    try_number=st.integers(1, 2),
)
def test_start_takes_any_answer(
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
    operator = task(
        DataZoneStartMetadataGenerationRunOperator,
        hook,
        asset_identifier="asset1",
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        owning_project_identifier="project1",
        deferrable=True,
    )
    context = make_context()
    context["ti"].try_number = try_number
    outcome(lambda: operator.execute(context))


# ------------------------------------------------------------ triggers and batch


def first_then_good(firsts: dict[str, Answer], listed: Answer) -> Callable[[str, str, bytes], Answer]:
    """Answer once per run, or per asset that a run is to be started for, with what is wrong; then rightly."""
    left = dict(firsts)

    def answer(method: str, path: str, body: bytes) -> Answer:
        if method == "POST":
            asset = json.loads(body)["target"]["identifier"]
            return left.pop(f"start-{asset}", None) or render(make_run(f"run-{asset}", "SUBMITTED"), 201)
        run = re.search(r"/metadata-generation-runs/([^?]+)", path)
        if run is None:
            return listed
        return left.pop(run[1], None) or render(make_run(run[1], "SUCCEEDED"))

    return answer


def only_event(trigger: Any) -> Any:
    async def wait() -> Any:
        (event,) = [event async for event in trigger.run()]
        return event.payload

    return asyncio.wait_for(wait(), 60)


@fuzz(12)
@given(firsts=st.lists(answers(make_run("run1")), min_size=5, max_size=15), listed=answers(RUNS))
def test_trigger_takes_any_answer(service: Service, firsts: list[Answer], listed: Answer) -> None:
    service.answer = first_then_good({f"run{number}": first for number, first in enumerate(firsts)}, listed)

    async def main() -> list[dict[str, Any]]:
        triggers = [
            DataZoneMetadataGenerationRunTrigger(
                f"run{number}", DOMAIN, poll_interval=0.001, aws_conn_id=CONNECTION
            )
            for number in range(len(firsts))
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
def test_batch_takes_any_answer(
    service: Service, hook: DataZoneHook, started: list[Answer], got: list[Answer], listed: Answer
) -> None:
    firsts = {f"start-asset{number}": answer for number, answer in enumerate(started)}
    firsts |= {f"run-asset{number}": answer for number, answer in enumerate(got)}
    service.answer = first_then_good(firsts, listed)
    assets = [f"asset{number}" for number in range(10)]
    operator = task(
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
        except (AirflowFailException, ClientError, BotoCoreError, MalformedResponseError) as error:
            # What is about all of them: credentials that are not good, for example.
            check_error(error)
    check_log(lines)
    for row in context["ti"].xcoms.get("results", ()):
        if "error" in row:
            check_told(row["error"])
            assert DOMAIN in row["error"]


# ------------------------------------------------------------- edited values


def echoes(value: str) -> dict[str, str]:
    """How somebody may repeat a text that was sent as JSON."""
    return {
        "as it is": value,
        "in Python": repr(value),
        "in JSON": json.dumps(value),
        "in JSON with all characters": json.dumps(value, ensure_ascii=False),
        "in HTML": html.escape(value),
        "escaped": value.encode("unicode_escape", "surrogatepass").decode(),
        "without spaces around": value.strip(),
    }


@fuzz(60)
@given(
    decision=st.sampled_from(["accept", "reject"]),
    answer=answers({"domainId": DOMAIN, "assetId": "asset1", "revision": "2", "assetRevision": "2"}),
)
def test_predictions_take_any_answer(
    service: Service, hook: DataZoneHook, decision: str, answer: Answer
) -> None:
    service.answer = lambda *request: answer
    operator = task(DECISIONS[decision], hook, asset_identifier="asset1", rule="ALL")
    ended = outcome(lambda: operator.execute(make_context()))
    assert isinstance(ended, (str, Exception))


DECISIONS: dict[str, Any] = {
    "accept": DataZoneAcceptPredictionsOperator,
    "reject": DataZoneRejectPredictionsOperator,
}


@fuzz(100)
@given(
    value=st.one_of(st.text(min_size=8, max_size=40), st.text(min_size=8).map(lambda text: f'"{text}<é>\n')),
    how=st.sampled_from(sorted(echoes(""))),
    frame=st.sampled_from(["{}", '{{"message": "{}"}}', "Bad request: {}.", "x" * 1990 + "{}", "{0}" * 50]),
    status=st.sampled_from([400, 403, 500, 502]),
)
def test_edited_value_is_told_by_nobody_however_it_is_repeated(
    service: Service, hook: DataZoneHook, value: str, how: str, frame: str, status: int
) -> None:
    echo = echoes(value)[how]
    bodies = (frame.format(echo), json.dumps({"message": frame.format(echo)}))
    for body in bodies:
        answer = Answer(body.encode("utf-8", "surrogatepass"), status)
        service.answer = lambda *request, answer=answer: answer  # type: ignore[misc]
        choices = [{"predictionTarget": "summary", "editedValue": value}]
        operator = task(DECISIONS["accept"], hook, asset_identifier="asset1", choices=choices)
        ended = outcome(lambda: operator.execute(make_context()), secrets=(value,))  # noqa: B023
        assert isinstance(ended, Exception)
