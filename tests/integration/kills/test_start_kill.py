"""Kill the start operator with a real SIGTERM: it starts no run afterwards and leaves no active run behind."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_datazone.exceptions import StartedRunFailedError
from airflow_provider_datazone.operators import start_execution
from airflow_provider_datazone.operators.datazone import DataZoneStartMetadataGenerationRunOperator
from airflow_provider_datazone.version_compat import TaskKilled
from tests.conftest import once
from tests.dags.start_kill import dag
from tests.integration.dag_runs import mend_dag_test
from tests.integration.operators.start_task import start, status_of
from tests.integration.submission.tries import runs_of
from tests.task_context import Store, make_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Catalog

START, CANCEL = "StartMetadataGenerationRun", "CancelMetadataGenerationRun"
GET, LIST = "GetMetadataGenerationRun", "ListMetadataGenerationRuns"
# Seconds between SIGTERM and SIGKILL in Airflow 3.
SIGKILL_DELAY = 5


class Terminated(BaseException):
    """Simulates the exception that Airflow 2.11 raises in the interrupted code."""


class Worker:
    """Executes an operator in the main thread with the signal handler of Airflow 2 or 3."""

    def __init__(self, *, returns: bool) -> None:
        self.returns = returns
        self.operator: DataZoneStartMetadataGenerationRunOperator | None = None
        self.killed_at: float | None = None

    def handle_signal(self, *_: Any) -> None:
        assert self.operator is not None
        if self.killed_at is None:
            self.killed_at = time.monotonic()
        self.operator.on_kill()
        if not self.returns:
            raise Terminated

    def kill_when(self, condition: Callable[[], bool]) -> None:
        once(condition, lambda: os.kill(os.getpid(), signal.SIGTERM))

    def execute_until_killed(
        self, operator: DataZoneStartMetadataGenerationRunOperator, execute: Callable[[], Any]
    ) -> BaseException:
        """Execute the operator until it is killed, and return the exception it raises."""
        self.operator = operator
        with pytest.raises((TaskKilled, Terminated)) as raised:
            execute()
        assert self.killed_at is not None
        assert time.monotonic() - self.killed_at < SIGKILL_DELAY
        return raised.value


@pytest.fixture(params=[True, False], ids=["handler returns", "handler raises"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    worker = Worker(returns=request.param)
    previous = signal.signal(signal.SIGTERM, worker.handle_signal)
    yield worker
    signal.signal(signal.SIGTERM, previous)


def has_received(catalog: Catalog, operation: str) -> Callable[[], bool]:
    before = catalog.server.request_counts[operation]
    return lambda: catalog.server.request_counts[operation] > before


def becomes_true(condition: Callable[[], bool]) -> bool:
    """Return whether a condition becomes true within five seconds: the task does not wait for its threads."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def task_instance_states(dag_id: str) -> list[str]:
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        return [str(ti.state) for ti in session.query(TaskInstance).filter_by(dag_id=dag_id)]


def test_airflow_retries_a_killed_task(
    catalog: Catalog, airflow_database: None, monkeypatch: pytest.MonkeyPatch
):
    """Use Airflow's own signal handler and error handling."""
    mend_dag_test(monkeypatch)
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    catalog.server.set_run_outcome(polls=0)
    is_waiting = has_received(catalog, GET)
    killed_at: list[float] = []

    def kill() -> None:
        killed_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.getsignal(signal.SIGTERM)
    conf = {
        "asset_identifier": catalog.asset_identifier,
        "domain_identifier": catalog.domain_identifier,
        "project_identifier": catalog.project_identifier,
    }
    try:
        once(is_waiting, kill)
        if not AIRFLOW_V_3_0_PLUS:
            # In Airflow 2 the error ends `dag.test()` after Airflow has set the state of the task.
            with pytest.raises(TaskKilled):
                dag.test(run_conf=conf)
            assert task_instance_states("start_kill") == ["up_for_retry"]
            assert [status_of(catalog, run) for run in runs_of(catalog)] == ["CANCELED"]
            return
        dag_run = dag.test(run_conf=conf)
    finally:
        signal.signal(signal.SIGTERM, previous)
    (ti,) = dag_run.get_task_instances()
    assert (str(ti.state), ti.try_number) == ("success", 2)
    assert time.monotonic() - killed_at[0] < 60, "the killed task stopped waiting"
    first, second = runs_of(catalog)
    assert [status_of(catalog, run) for run in (first, second)] == ["CANCELED", "SUCCEEDED"]


def test_task_killed_before_it_executes_sends_no_request(catalog: Catalog):
    operator = start(catalog)
    before = len(catalog.server.requests)
    operator.on_kill()
    with pytest.raises(TaskKilled) as killed:
        operator.execute(make_context())
    assert catalog.server.requests[before:] == []
    assert not isinstance(killed.value, Exception), "error handlers must not catch it"


def test_retry_killed_while_listing_runs_starts_no_run(catalog: Catalog, worker: Worker):
    catalog.server.fail(LIST, "hang", seconds=0.5)
    operator = start(catalog)
    worker.kill_when(has_received(catalog, LIST))
    worker.execute_until_killed(operator, lambda: operator.execute(make_context(try_number=2)))
    assert catalog.server.request_counts[START] == 0


@pytest.mark.parametrize("has_store", [True, False])
def test_run_whose_start_is_in_flight_at_the_kill_is_canceled(
    catalog: Catalog, worker: Worker, has_store: bool
):
    catalog.server.set_run_outcome(in_progress_seconds=3600, times=None)
    catalog.server.fail(START, "hang", seconds=1, after=True)
    operator = start(catalog)
    worker.kill_when(has_received(catalog, START))
    store = Store() if has_store else None
    worker.execute_until_killed(operator, lambda: operator.execute(make_context(store=store)))
    (run,) = runs_of(catalog)
    assert status_of(catalog, run) == "CANCELED"
    assert catalog.server.request_counts[START] == 1
    assert catalog.server.request_counts[CANCEL] == 1
    # The retry does not resume the canceled run.
    catalog.server.set_run_outcome(polls=0)
    retry = start(catalog).execute(make_context(try_number=2, store=store))
    assert runs_of(catalog) == [run, retry]


@pytest.mark.parametrize("arguments", [{"cancel_on_kill": False}, {"wait_for_completion": False}])
def test_run_is_not_canceled_if_the_task_does_not_wait_or_cancel_on_kill(
    catalog: Catalog, worker: Worker, arguments: dict[str, Any]
):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    catalog.server.fail(START, "hang", seconds=0.5, after=True)
    operator = start(catalog, **arguments)
    worker.kill_when(has_received(catalog, START))
    worker.execute_until_killed(operator, lambda: operator.execute(make_context()))
    (run,) = runs_of(catalog)
    assert status_of(catalog, run) == "IN_PROGRESS"
    assert catalog.server.request_counts[CANCEL] == 0


@pytest.mark.parametrize("fault", ["InternalServerException", "drop"])
def test_botocore_does_not_retry_a_start_after_the_kill(catalog: Catalog, worker: Worker, fault: str):
    catalog.server.fail(START, fault, times=None)
    operator = start(catalog, botocore_config={"retries": {"total_max_attempts": 10, "mode": "standard"}})

    def kill_between_attempts(**_: Any) -> None:
        if worker.killed_at is None:
            os.kill(os.getpid(), signal.SIGTERM)
            assert becomes_true(lambda: worker.killed_at is not None)

    operator.hook.conn.meta.events.register_first(f"needs-retry.datazone.{START}", kill_between_attempts)
    worker.execute_until_killed(operator, lambda: operator.execute(make_context()))
    # botocore would send the next attempt within a second.
    time.sleep(1.2)
    assert catalog.server.request_counts[START] == 1
    assert runs_of(catalog) == []


@pytest.mark.parametrize("how", ["started", "found by List", "found in the state store", "started again"])
def test_task_killed_while_waiting_cancels_its_run_and_starts_no_other(
    catalog: Catalog,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
):
    is_asleep = threading.Event()

    def sleep(seconds: float) -> None:
        is_asleep.set()
        time.sleep(seconds)

    sleeping = SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(start_execution, "time", sleeping)
    catalog.server.set_run_outcome(in_progress_seconds=3600, times=None)
    store = None
    if how == "started":
        context = make_context()
    else:
        if how == "found by List":
            catalog.start_run("BUSINESS_NAMES", in_progress_seconds=3600)
        else:
            store = Store()
            first = start(catalog, wait_for_completion=False)
            first.execute(make_context(store=store))
            if how == "started again":
                # The response of the first start was lost, and ListMetadataGenerationRuns fails.
                record = store.get("metadata_generation_run")
                del record["run"]
                store.set("metadata_generation_run", record)
                catalog.server.fail(LIST, "AccessDeniedException", times=None)
        context = make_context(try_number=2, store=store)
    operator = start(catalog, poll_interval=600)
    worker.kill_when(is_asleep.is_set)
    starts = catalog.server.request_counts[START]
    with caplog.at_level(logging.INFO, "tests.start"):
        worker.execute_until_killed(operator, lambda: operator.execute(context))
    catalog.server.recover()
    (run,) = runs_of(catalog)
    assert status_of(catalog, run) == "CANCELED"
    assert catalog.server.request_counts[START] - starts == (how in ("started", "started again"))
    assert catalog.server.request_counts[CANCEL] == 1
    assert f"Canceled, or had already ended: {run}" in caplog.messages
    assert context["ti"].xcoms["type_stats"] == [], "a teardown reads it"


def test_run_in_the_state_store_is_canceled_before_get_responds(catalog: Catalog, worker: Worker):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    store = Store()
    run = start(catalog, wait_for_completion=False).execute(make_context(store=store))
    catalog.server.fail(GET, "hang", seconds=1)
    operator = start(catalog)
    worker.kill_when(has_received(catalog, GET))
    worker.execute_until_killed(operator, lambda: operator.execute(make_context(try_number=2, store=store)))
    assert status_of(catalog, run) == "CANCELED"
    assert runs_of(catalog) == [run]


@pytest.mark.parametrize("response", ["late", "not found"])
def test_killed_task_does_not_defer(catalog: Catalog, worker: Worker, response: str):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    if response == "late":
        catalog.server.fail(GET, "hang", seconds=0.5)
    else:
        catalog.server.fail(GET, "ResourceNotFoundException")
    operator = start(catalog, deferrable=True)
    worker.kill_when(has_received(catalog, GET))
    worker.execute_until_killed(operator, lambda: operator.execute(make_context()))
    (run,) = runs_of(catalog)
    assert status_of(catalog, run) == "CANCELED"


@pytest.mark.parametrize("killed", ["before the deferral", "in the deferral"])
def test_kill_during_a_deferral_cancels_the_run(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, killed: str
):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    operator = start(catalog, deferrable=True)
    defer = operator.defer

    def defer_and_kill(**arguments: Any) -> None:
        if killed == "before the deferral":
            operator.on_kill()
        try:
            defer(**arguments)
        finally:
            if killed == "in the deferral":
                operator.on_kill()

    monkeypatch.setattr(operator, "defer", defer_and_kill)
    with pytest.raises(TaskKilled):
        operator.execute(make_context())
    (run,) = runs_of(catalog)
    assert status_of(catalog, run) == "CANCELED"


def canceled_run(catalog: Catalog) -> dict[str, Any]:
    """Return a run that was canceled, as the event of a trigger has it."""
    run = catalog.start_run("BUSINESS_NAMES", in_progress_seconds=3600)
    catalog.server.set_run_status(run, "CANCELED")
    found = catalog.server.client().get_metadata_generation_run(
        domainIdentifier=catalog.domain_identifier, identifier=run
    )
    found["createdAt"] = found["createdAt"].isoformat()
    del found["ResponseMetadata"]
    return dict(found)


@pytest.mark.parametrize("adopted", [True, False])
def test_task_killed_when_it_resumes_starts_no_run(catalog: Catalog, adopted: bool):
    found = canceled_run(catalog)
    operator = start(catalog, deferrable=True)
    operator.on_kill()
    with pytest.raises(TaskKilled):
        operator.execute_complete(
            make_context(try_number=2), {"status": "terminal", "run": found}, adopted=adopted
        )
    assert runs_of(catalog) == [found["id"]]


@pytest.mark.parametrize(("seconds", "runs"), [(2, 2), (300, 1)])
def test_run_canceled_with_the_previous_try_is_replaced_however_late_the_task_resumes(
    catalog: Catalog, seconds: float, runs: int
):
    found = canceled_run(catalog)
    adopted = time.time() - 330
    event = {"status": "terminal", "run": found, "read_at": adopted + seconds}
    operator = start(catalog, deferrable=True)
    expected: type[BaseException] = TaskDeferred if runs == 2 else StartedRunFailedError
    with pytest.raises(expected):
        operator.execute_complete(make_context(try_number=2), event, adopted=adopted)
    assert len(runs_of(catalog)) == runs


def test_task_killed_during_its_final_poll_cancels_the_run(catalog: Catalog, worker: Worker):
    run = catalog.start_run("BUSINESS_NAMES", in_progress_seconds=3600)
    context = make_context()
    context["ti"].xcom_pull = lambda **_: {"id": run, "domainId": catalog.domain_identifier}
    catalog.server.fail(GET, "hang", seconds=0.5)
    operator = start(catalog, deferrable=True)
    worker.kill_when(has_received(catalog, GET))
    event = {"status": "timeout", "message": "too late"}
    worker.execute_until_killed(operator, lambda: operator.execute_complete(context, event))
    assert status_of(catalog, run) == "CANCELED"


def test_timeout_of_a_deferred_task_does_not_cancel_the_run(catalog: Catalog):
    run = catalog.start_run("BUSINESS_NAMES", in_progress_seconds=3600)
    context = make_context()
    context["ti"].xcom_pull = lambda **_: {"id": run, "domainId": catalog.domain_identifier}
    operator = start(catalog, deferrable=True)
    with pytest.raises(AirflowTaskTimeout):
        operator.execute_complete(context, {"status": "timeout", "message": "too late"})
    # Airflow calls on_kill after a timeout if the task has an execution_timeout.
    operator.on_kill()
    assert status_of(catalog, run) == "IN_PROGRESS"


@pytest.mark.parametrize("fault", ["ResourceNotFoundException", "drop"])
def test_kill_retries_a_cancel_that_fails(catalog: Catalog, worker: Worker, fault: str):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    catalog.server.fail(CANCEL, fault, times=2)
    operator = start(catalog)
    worker.kill_when(has_received(catalog, GET))
    worker.execute_until_killed(operator, lambda: operator.execute(make_context()))
    (run,) = runs_of(catalog)
    assert status_of(catalog, run) == "CANCELED"
    assert catalog.server.request_counts[CANCEL] == 3


def test_timeout_while_start_is_in_flight_leaves_the_run_for_the_retry(catalog: Catalog):
    catalog.server.set_run_outcome(in_progress_seconds=3600)
    catalog.server.fail(START, "hang", seconds=0.5, after=True)
    operator, store = start(catalog), Store()

    def time_out(*_: Any) -> None:
        raise AirflowTaskTimeout("Timeout")

    previous = signal.signal(signal.SIGALRM, time_out)
    try:
        once(
            has_received(catalog, START),
            lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM),
        )
        with pytest.raises(AirflowTaskTimeout):
            operator.execute(make_context(store=store))
        operator.on_kill()
    finally:
        signal.signal(signal.SIGALRM, previous)
    (run,) = runs_of(catalog)
    assert status_of(catalog, run) == "IN_PROGRESS"
    with pytest.raises(TaskDeferred) as deferred:
        start(catalog, deferrable=True).execute(make_context(try_number=2, store=store))
    assert deferred.value.trigger.run_identifier == run
