"""
### Let a person review generated metadata before it is published

Generates metadata for an asset and shows the predictions in Airflow, where a person approves or rejects them.
After an approval, the DAG accepts the predictions and publishes the asset, unless the asset has a newer
revision than the one that the person has read. After a rejection, the predictions remain in the portal.

It needs Airflow 3.1 or later, the standard provider 1.12.2 or later, and an Airflow connection
``datazone_default`` of type *Amazon DataZone* with a domain and a project. Its role needs the IAM policies to
start and accept, and to review and publish: see docs/connection.md.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG, Param
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneGetPredictionsOperator,
    DataZonePublishAssetOperator,
    DataZoneStartMetadataGenerationRunOperator,
)

# Passed to each operator: in `default_args`, it makes mapped TaskFlow tasks fail on Airflow 2.11.
AWS_CONN_ID = "datazone_default"

# Earlier versions of Airflow have no `ApprovalOperator`, so the file defines no DAG there.
if AIRFLOW_V_3_1_PLUS:
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    with DAG(
        dag_id="example_datazone_review_predictions",
        description="Generate metadata for an asset, and publish it after a person's approval",
        doc_md=__doc__,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        params={
            "asset_identifier": Param(
                "", type="string", title="Asset", description="The asset to generate metadata for."
            ),
        },
        tags=["example", "datazone"],
    ):
        start_run = DataZoneStartMetadataGenerationRunOperator(
            task_id="start_run",
            aws_conn_id=AWS_CONN_ID,
            asset_identifier="{{ params.asset_identifier }}",
            types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
            retries=2,
            deferrable=True,
            poll_interval=5,
            execution_timeout=timedelta(minutes=30),
        )

        read_predictions = DataZoneGetPredictionsOperator(
            task_id="read_predictions",
            aws_conn_id=AWS_CONN_ID,
            asset_identifier="{{ params.asset_identifier }}",
        )

        # "Reject" skips the downstream tasks. Without a response in time, the task fails; add
        # `defaults="Reject"` to skip the downstream tasks instead.
        review = ApprovalOperator(
            task_id="review",
            subject="Accept the predictions for asset {{ params.asset_identifier }} and publish it?",
            body="{{ ti.xcom_pull(task_ids='read_predictions', key='markdown') }}",
            response_timeout=timedelta(days=2),
        )

        accept_predictions = DataZoneAcceptPredictionsOperator(
            task_id="accept_predictions",
            aws_conn_id=AWS_CONN_ID,
            asset_identifier="{{ params.asset_identifier }}",
            # What the person has read: DataZone refuses, if the asset has changed since then.
            revision="{{ ti.xcom_pull(task_ids='read_predictions', key='revision') }}",
            rule="ALL",
            retries=3,
        )

        # Publishes exactly the revision that `accept_predictions` created.
        publish = DataZonePublishAssetOperator(
            task_id="publish",
            aws_conn_id=AWS_CONN_ID,
            asset_identifier="{{ params.asset_identifier }}",
            revision=accept_predictions.output,
            poll_interval=2,
            execution_timeout=timedelta(minutes=10),
            retries=3,
        )

        start_run >> read_predictions >> review >> accept_predictions >> publish
