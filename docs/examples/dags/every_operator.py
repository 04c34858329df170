"""Each operator and the sensor. The documentation shows sections of this DAG."""

from __future__ import annotations

# [START imports]
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneBatchMetadataGenerationOperator,
    DataZoneCancelMetadataGenerationRunOperator,
    DataZoneGetMetadataGenerationRunOperator,
    DataZoneGetPredictionsOperator,
    DataZonePublishAssetOperator,
    DataZoneRejectPredictionsOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor

# [END imports]

with DAG(
    "every_operator",
    schedule=None,
    params={"asset": "", "edited_asset": "", "unwanted_asset": ""},
) as dag:
    # [START howto_operator_start]
    start_run = DataZoneStartMetadataGenerationRunOperator(
        task_id="start_run",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        deferrable=True,
        poll_interval=5,
        execution_timeout=timedelta(minutes=30),
        retries=2,
    )
    # [END howto_operator_start]

    # [START howto_report]
    @task
    def report(type_stats: list[dict[str, Any]]) -> None:
        for stat in type_stats:
            print(stat["type"], stat["status"], stat.get("errorMessage", ""))

    report(start_run.output["type_stats"]).as_teardown()
    # [END howto_report]

    # [START howto_operator_start_without_waiting]
    start_only = DataZoneStartMetadataGenerationRunOperator(
        task_id="start_only",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.edited_asset }}",
        types=["BUSINESS_DESCRIPTIONS"],
        wait_for_completion=False,
    )
    # [END howto_operator_start_without_waiting]

    # [START howto_sensor_run]
    wait_for_run = DataZoneMetadataGenerationRunSensor(
        task_id="wait_for_run",
        aws_conn_id="datazone_default",
        run_identifier=start_only.output,
        poke_interval=5,
        timeout=timedelta(hours=1).total_seconds(),
        deferrable=True,
    )
    # [END howto_sensor_run]

    # [START howto_operator_get]
    read_run = DataZoneGetMetadataGenerationRunOperator(
        task_id="read_run",
        aws_conn_id="datazone_default",
        run_identifier=start_only.output,
        run_type="BUSINESS_DESCRIPTIONS",
    )
    # [END howto_operator_get]

    start_unwanted = DataZoneStartMetadataGenerationRunOperator(
        task_id="start_unwanted",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.unwanted_asset }}",
        types=["BUSINESS_NAMES"],
        wait_for_completion=False,
    )

    # [START howto_operator_cancel]
    cancel_run = DataZoneCancelMetadataGenerationRunOperator(
        task_id="cancel_run",
        aws_conn_id="datazone_default",
        run_identifier=start_unwanted.output,
    )
    # [END howto_operator_cancel]

    # [START howto_operator_get_predictions]
    read_predictions = DataZoneGetPredictionsOperator(
        task_id="read_predictions",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
    )
    # [END howto_operator_get_predictions]

    # [START howto_operator_accept]
    accept_above_threshold = DataZoneAcceptPredictionsOperator(
        task_id="accept_above_threshold",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
        rule="ALL",
        threshold=0.8,
    )
    # [END howto_operator_accept]

    # [START howto_operator_accept_choices]
    accept_edited_text = DataZoneAcceptPredictionsOperator(
        task_id="accept_edited_text",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.edited_asset }}",
        choices=[{"predictionTarget": "summary", "editedValue": "All orders since 2019, one row per order."}],
    )
    # [END howto_operator_accept_choices]

    # [START howto_operator_reject]
    reject_remaining = DataZoneRejectPredictionsOperator(
        task_id="reject_remaining",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
        rule="ALL",
    )
    # [END howto_operator_reject]

    # [START howto_operator_publish]
    publish = DataZonePublishAssetOperator(
        task_id="publish",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
        poll_interval=2,
    )
    # [END howto_operator_publish]

    # [START howto_operator_batch]
    @task
    def find_assets() -> list[str]:
        found = DataZoneHook("datazone_default").search_assets(search_text="orders")
        return [asset["identifier"] for asset in found]

    assets = find_assets()
    enrich = DataZoneBatchMetadataGenerationOperator(
        task_id="enrich",
        aws_conn_id="datazone_default",
        asset_identifiers=assets,
        types=["BUSINESS_DESCRIPTIONS"],
        max_concurrent_runs=50,
        max_failures=0.1,
        deferrable=True,
        poll_interval=5,
        retries=2,
    )
    # [END howto_operator_batch]

    # [START howto_batch_publish]
    enrich_and_publish = DataZoneBatchMetadataGenerationOperator(
        task_id="enrich_and_publish",
        aws_conn_id="datazone_default",
        asset_identifiers=assets,
        types=["BUSINESS_NAMES"],
        accept_threshold=0.8,
        publish=True,
        deferrable=True,
        poll_interval=5,
        execution_timeout=timedelta(hours=6),
        retries=2,
    )
    # [END howto_batch_publish]

    # [START howto_batch_results]
    @task
    def failed_assets(results: list[dict[str, Any]]) -> list[str]:
        return [row["asset"] for row in results if row["status"] != "SUCCEEDED" or "error" in row]

    failed_assets(enrich.output["results"]).as_teardown()
    # [END howto_batch_results]

    start_run >> read_predictions >> accept_above_threshold >> reject_remaining >> publish >> enrich
    wait_for_run >> read_run >> accept_edited_text >> enrich
    cancel_run >> enrich >> enrich_and_publish
