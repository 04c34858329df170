"""A task that the test kills while it waits for its run, and that Airflow retries."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import DataZoneStartMetadataGenerationRunOperator

# Much longer than a killed task can continue to run.
POLL_INTERVAL = 600

with DAG(
    dag_id="start_kill", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False
) as dag:
    DataZoneStartMetadataGenerationRunOperator(
        task_id="start",
        asset_identifier="{{ dag_run.conf['asset_identifier'] }}",
        types=["BUSINESS_NAMES"],
        domain_identifier="{{ dag_run.conf['domain_identifier'] }}",
        owning_project_identifier="{{ dag_run.conf['project_identifier'] }}",
        aws_conn_id="datazone_default",
        poll_interval=POLL_INTERVAL,
        retries=1,
        retry_delay=timedelta(0),
    )
