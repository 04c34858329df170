"""Every way in which a wait can end, in every mode: a task each."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import DataZoneGetMetadataGenerationRunOperator
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor

# How the run ends: in a status; not within the time-out; or it is one that DataZone does not know.
ENDINGS = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELED", "TIMED_OUT", "UNKNOWN_RUN")
MODES = ("poke", "reschedule", "deferrable")
CASES = list(itertools.product(ENDINGS, MODES, (False, True), (False, True)))


def task_id(ending: str, mode: str, soft_fail: bool, allow_partial_success: bool) -> str:
    return (
        f"{ending}-{mode}-{'soft' if soft_fail else 'hard'}-{'partial' if allow_partial_success else 'full'}"
    )


with DAG(
    dag_id="wait_outcomes",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={
        "aws_conn_id": "datazone_default",
        "domain_identifier": "{{ dag_run.conf['domain_identifier'] }}",
        # A task that is retried shows in its try_number.
        "retries": 1,
        "retry_delay": timedelta(0),
    },
) as dag:
    for ending, mode, soft_fail, allow_partial_success in CASES:
        name = task_id(ending, mode, soft_fail, allow_partial_success)
        DataZoneMetadataGenerationRunSensor(
            task_id=name,
            run_identifier=f"{{{{ dag_run.conf['runs']['{name}'] }}}}",
            mode="poke" if mode == "deferrable" else mode,
            deferrable=mode == "deferrable",
            soft_fail=soft_fail,
            allow_partial_success=allow_partial_success,
            poke_interval=0.01,
            timeout=0 if ending == "TIMED_OUT" else 600,
        )
    for ending in ENDINGS:
        DataZoneGetMetadataGenerationRunOperator(
            task_id=f"{ending}-get", run_identifier=f"{{{{ dag_run.conf['runs']['{ending}-get'] }}}}"
        )
