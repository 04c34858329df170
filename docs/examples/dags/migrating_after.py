# [START after]
from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneStartMetadataGenerationRunOperator,
)

with DAG(
    "migrating_after",
    schedule=None,
    params={"asset": ""},
) as dag:
    start_run = DataZoneStartMetadataGenerationRunOperator(
        task_id="start_run",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        allow_partial_success=False,
        deferrable=True,
        poll_interval=5,
        execution_timeout=timedelta(minutes=30),
        retries=2,
    )
    accept = DataZoneAcceptPredictionsOperator(
        task_id="accept",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
        rule="ALL",
        threshold=0.8,
    )
    start_run >> accept
# [END after]
