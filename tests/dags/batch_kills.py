"""A batch on a worker and a batch in a triggerer, which the tests kill repeatedly."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import DataZoneBatchMetadataGenerationOperator
from tests.faults.workers import write_process

TASK_ID = "batch"
MODES = {"batch_in_worker": False, "batch_in_triggerer": True}


def begin(context: Any) -> None:
    """Write the process id of the task to a file."""
    write_process(Path(context["dag_run"].conf["process"]))


for dag_id, deferrable in MODES.items():
    with DAG(
        dag_id=dag_id,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        render_template_as_native_obj=True,
    ):
        DataZoneBatchMetadataGenerationOperator(
            task_id=TASK_ID,
            asset_identifiers="{{ dag_run.conf['assets'] }}",
            types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
            domain_identifier="{{ dag_run.conf['domain_identifier'] }}",
            owning_project_identifier="{{ dag_run.conf['owning_project_identifier'] }}",
            aws_conn_id="datazone_default",
            max_concurrent_runs=20,
            poll_interval=0.5,
            accept_threshold=0,
            publish=True,
            deferrable=deferrable,
            retries=100,
            retry_delay=timedelta(0),
            pre_execute=begin,
        )
