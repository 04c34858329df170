"""A deferrable wait for each run in the conf of the DAG run, and a task that reads the XComs of the waits."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor

POLL_INTERVAL = 1.0

with DAG(
    dag_id="deferred_waits",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    # The tests detect a retry by the try_number.
    default_args={"retries": 1, "retry_delay": timedelta(0)},
) as dag:

    @task
    def list_runs(dag_run: Any = None) -> list[str]:
        return list(dag_run.conf["runs"])

    @task(trigger_rule="all_done")
    def collect(ti: Any = None, dag_run: Any = None) -> None:
        """Write the XComs of each wait, ordered by map index."""

        def pull(key: str, index: int) -> Any:
            return ti.xcom_pull(task_ids="wait", key=key, map_indexes=index)

        report = [
            {key: pull(key, index) for key in ("return_value", "type_stats", "run")}
            for index in range(len(dag_run.conf["runs"]))
        ]
        Path(dag_run.conf["report"]).write_text(json.dumps(report), encoding="utf-8")

    wait = DataZoneMetadataGenerationRunSensor.partial(
        task_id="wait",
        domain_identifier="{{ dag_run.conf['domain_identifier'] }}",
        aws_conn_id="{{ dag_run.conf.get('aws_conn_id', 'datazone_default') }}",
        deferrable=True,
        poke_interval=POLL_INTERVAL,
        timeout=3600,
    ).expand(run_identifier=list_runs())
    wait >> collect()
