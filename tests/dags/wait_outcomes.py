"""A task for each cause that ends a wait, in each mode, with each failure policy."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import DataZoneGetMetadataGenerationRunOperator
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor

MODES = ("poke", "reschedule", "deferrable")
POLICIES = ("neither", "soft_fail", "never_fail")
# The tests advance the clock past this timeout while the task sleeps, is deferred, or polls.
EXECUTION_TIMEOUT = timedelta(minutes=10)
CAUSES: dict[str, dict[str, Any]] = {
    "SUCCEEDED": {},
    "PARTIALLY_SUCCEEDED": {},
    "PARTIALLY_SUCCEEDED_NOT_ALLOWED": {"allow_partial_success": False},
    "FAILED": {},
    "CANCELED": {},
    "TIMEOUT": {"timeout": 0},
    "EXECUTION_TIMEOUT": {"execution_timeout": EXECUTION_TIMEOUT},
    "EXECUTION_TIMEOUT_IN_A_POLL": {"execution_timeout": EXECUTION_TIMEOUT},
    "UNKNOWN_RUN": {},
    "NO_DOMAIN": {"domain_identifier": ""},
    "REJECTED_CREDENTIALS": {"aws_conn_id": "datazone_expired"},
}
# A policy applies to these outcomes as it does to a success and to a failed run.
WITHOUT_POLICY = ("PARTIALLY_SUCCEEDED", "PARTIALLY_SUCCEEDED_NOT_ALLOWED", "CANCELED")
CASES = [
    (cause, mode, policy)
    for cause, mode, policy in itertools.product(CAUSES, MODES, POLICIES)
    # In this mode, Airflow applies the timeout to each poll separately.
    if (cause, mode) != ("EXECUTION_TIMEOUT", "reschedule")
    and (policy == "neither" or cause not in WITHOUT_POLICY)
]
READS = ("SUCCEEDED", "FAILED", "UNKNOWN_RUN")
# Cases with disabled XComs.
QUIET_CASES = [(cause, mode) for cause in ("SUCCEEDED", "FAILED") for mode in MODES]


def run_of(name: str) -> str:
    return f"{{{{ dag_run.conf['runs']['{name}'] }}}}"


def wait(name: str, mode: str, **arguments: Any) -> None:
    known: dict[str, Any] = {"poke_interval": 0.01, "timeout": 3600}
    DataZoneMetadataGenerationRunSensor(
        task_id=name,
        run_identifier=run_of(name),
        mode="poke" if mode == "deferrable" else mode,
        deferrable=mode == "deferrable",
        **known | arguments,
    )


with DAG(
    dag_id="wait_outcomes",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={
        "aws_conn_id": "datazone_default",
        "domain_identifier": "{{ dag_run.conf['domain_identifier'] }}",
        # The tests detect a retry by the try_number.
        "retries": 1,
        "retry_delay": timedelta(0),
        # Fail a task if Airflow assumes that another task calls its `execute`. Without this setting, Airflow only logs
        # "cannot be called outside TaskInstance!".
        "allow_nested_operators": False,
    },
) as dag:
    for cause, mode, policy in CASES:
        wait(
            f"{cause}-{mode}-{policy}",
            mode,
            **CAUSES[cause],
            **({} if policy == "neither" else {policy: True}),
        )
    for cause, mode in QUIET_CASES:
        wait(f"{cause}-{mode}-quiet", mode, do_xcom_push=False)
    for cause in READS:
        DataZoneGetMetadataGenerationRunOperator(
            task_id=f"{cause}-get", run_identifier=run_of(f"{cause}-get")
        )
    DataZoneGetMetadataGenerationRunOperator(
        task_id="SUCCEEDED-get-quiet", run_identifier=run_of("SUCCEEDED-get-quiet"), do_xcom_push=False
    )
