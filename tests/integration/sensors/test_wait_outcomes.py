"""Final states, tries and XComs of sensor and get tasks in a real Airflow DAG run."""

from __future__ import annotations

import importlib
import json
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from airflow.providers.common.compat.sdk import BaseSensorOperator, timezone
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_datazone import deferral
from airflow_provider_datazone.hooks import datazone as hooks
from airflow_provider_datazone.links.datazone import DataZoneDomainLink
from airflow_provider_datazone.sensors import datazone as sensors
from airflow_provider_datazone.triggers import datazone as triggers
from tests.conftest import TYPE_STATS, Clock, make_catalog, outcome_of
from tests.dags.wait_outcomes import CASES, POLICIES, QUIET_CASES, READS, dag
from tests.integration.dag_runs import mend_dag_test

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

# The final state for each cause without a policy, under `soft_fail` and under `never_fail`. See
# docs/waiting.md.
SUCCESS = ("success", 1)
SKIPPED = ("skipped", 1)
FAILED = ("failed", 1)
RETRIED = ("failed", 2)
OUTCOMES = {
    "SUCCEEDED": (SUCCESS, SUCCESS, SUCCESS),
    "PARTIALLY_SUCCEEDED": (SUCCESS, SUCCESS, SUCCESS),
    "PARTIALLY_SUCCEEDED_NOT_ALLOWED": (FAILED, SKIPPED, SKIPPED),
    "FAILED": (FAILED, SKIPPED, SKIPPED),
    "CANCELED": (FAILED, SKIPPED, SKIPPED),
    "TIMEOUT": (FAILED, SKIPPED, FAILED),
    "EXECUTION_TIMEOUT": (RETRIED, SKIPPED, SKIPPED),
    "EXECUTION_TIMEOUT_IN_A_POLL": (RETRIED, SKIPPED, SKIPPED),
    "UNKNOWN_RUN": (FAILED, FAILED, SKIPPED),
    "NO_DOMAIN": (FAILED, FAILED, SKIPPED),
    "REJECTED_CREDENTIALS": (RETRIED, RETRIED, SKIPPED),
}


class Outcome(NamedTuple):
    state: str
    try_number: int
    return_value: Any
    type_stats: Any
    run: Any
    link: Any


class TimeoutClock(Clock):
    """A clock that advances when a task sleeps or defers. Tasks with an `execution_timeout` time out then."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.time = lambda: time.time() + self.ahead

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            # Airflow sets its alarm in the main thread.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)


def patch_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = TimeoutClock()
    airflow_module = importlib.import_module(BaseSensorOperator.__module__)
    for module in (airflow_module, hooks, sensors, deferral, triggers):
        monkeypatch.setattr(module, "time", clock)
    defer = sensors.DataZoneMetadataGenerationRunSensor.defer

    def defer_until_timeout(self: Any, **arguments: Any) -> None:
        if self.execution_timeout:
            clock.ahead += self.execution_timeout.total_seconds()
            if not AIRFLOW_V_3_0_PLUS:
                # Airflow 2.11 checks the timeout when it resumes the task, and `dag.test()` does not set a start date.
                from airflow.operators.python import get_current_context

                get_current_context()["ti"].start_date = timezone.utcnow() - self.execution_timeout
        defer(self, **arguments)

    monkeypatch.setattr(sensors.DataZoneMetadataGenerationRunSensor, "defer", defer_until_timeout)


@pytest.fixture(scope="module")
def outcomes(datazone_server: DataZoneServer, airflow_database: None) -> dict[str, Outcome]:
    """Run the DAG once, with runs that end in every status."""
    datazone_server.reset()
    catalog = make_catalog(datazone_server)
    expired = json.loads(datazone_server.connection) | {"login": "AKIAEXPIRED"}
    datazone_server.fail("*", "ExpiredTokenException", times=None, access_key_id="AKIAEXPIRED")

    def start_run(cause: str) -> str:
        if cause in ("UNKNOWN_RUN", "EXECUTION_TIMEOUT_IN_A_POLL"):
            return "unknownrun"
        if cause in ("TIMEOUT", "EXECUTION_TIMEOUT", "NO_DOMAIN", "REJECTED_CREDENTIALS"):
            return catalog.start_run(in_progress_seconds=3600)
        return catalog.start_run(**outcome_of(TYPE_STATS[cause.removesuffix("_NOT_ALLOWED")]))

    runs = {task_id: start_run(task_id.partition("-")[0]) for task_id in dag.task_ids}
    # A get task polls only once, so this run has to end before.
    runs["FAILED-get"] = catalog.start_run(**outcome_of(TYPE_STATS["FAILED"]), polls=0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", datazone_server.connection)
        monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_EXPIRED", json.dumps(expired))
        patch_clock(monkeypatch)
        mend_dag_test(monkeypatch)
        dag_run = dag.test(run_conf={"domain_identifier": catalog.domain_identifier, "runs": runs})

        def pull(ti: Any, key: str) -> Any:
            return ti.xcom_pull(task_ids=ti.task_id, key=key)

        return {
            ti.task_id: Outcome(
                str(ti.state),
                ti.try_number,
                *(pull(ti, key) for key in ("return_value", "type_stats", "run", DataZoneDomainLink.key)),
            )
            for ti in dag_run.get_task_instances()
        }


@pytest.mark.parametrize(("cause", "mode", "policy"), CASES)
def test_final_state_is_the_same_in_every_mode(
    outcomes: dict[str, Outcome], cause: str, mode: str, policy: str
) -> None:
    outcome = outcomes[f"{cause}-{mode}-{policy}"]
    assert (outcome.state, outcome.try_number) == OUTCOMES[cause][POLICIES.index(policy)]
    status = cause.removesuffix("_NOT_ALLOWED")
    type_stats = TYPE_STATS.get(status)
    assert outcome.return_value == (type_stats if outcome.state == "success" else None)
    if type_stats is not None:
        assert outcome.type_stats == type_stats
        assert outcome.run["status"] == status
        assert outcome.run["typeStats"] == type_stats
    else:
        assert outcome.run is None
        # Downstream tasks with `trigger_rule="all_done"` read this XCom.
        assert outcome.type_stats == []


@pytest.mark.parametrize(("cause", "mode"), QUIET_CASES)
def test_sensor_pushes_no_xcoms_if_do_xcom_push_is_false(
    outcomes: dict[str, Outcome], cause: str, mode: str
) -> None:
    state = OUTCOMES[cause][0][0]
    assert outcomes[f"{cause}-{mode}-quiet"] == (state, 1, None, None, None, None)


@pytest.mark.parametrize("ending", READS)
def test_get_operator_reads_the_run_once_and_succeeds_with_any_status(
    outcomes: dict[str, Outcome], ending: str
) -> None:
    outcome = outcomes[f"{ending}-get"]
    assert outcome.try_number == 1
    if ending == "UNKNOWN_RUN":
        assert outcome[:-1] == ("failed", 1, None, [], None)
        return
    assert outcome.state == "success"
    # The task polls once. One run has ended before, the other one has only started.
    assert outcome.run["status"] == ("FAILED" if ending == "FAILED" else "IN_PROGRESS")
    assert [stat["type"] for stat in outcome.type_stats] == ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
    assert outcome.return_value == outcome.type_stats == outcome.run["typeStats"]


def test_get_operator_pushes_no_xcoms_if_do_xcom_push_is_false(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["SUCCEEDED-get-quiet"] == ("success", 1, None, None, None, None)
