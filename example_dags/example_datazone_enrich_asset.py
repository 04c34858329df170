"""
Generate metadata for an asset, accept predictions with high confidence, and publish the asset.

This DAG

1. starts a metadata generation run for business descriptions and names, and waits for it,
2. takes one of two branches by the run's *typeStats*: all types succeeded, or some types failed,
3. accepts the predictions above a confidence threshold, which creates a new revision of the asset,
4. publishes that revision, and reports the result.

It needs an Airflow connection ``datazone_default`` of type *Amazon DataZone* (or *Amazon Web Services*).
To publish, it needs ``datazone:CreateListingChangeSet`` and ``datazone:GetListing``: see
docs/connection.md.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZonePublishAssetOperator,
    DataZoneStartMetadataGenerationRunOperator,
)

# Passed to each operator: in `default_args`, it makes mapped TaskFlow tasks fail on Airflow 2.11.
AWS_CONN_ID = "datazone_default"
# A constant and not a DAG param, so that a change needs a code review.
CONFIDENCE = 0.7

with DAG(
    dag_id="example_datazone_enrich_asset",
    description="Generate metadata for an asset, accept it above a confidence threshold, and publish it",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={
        "domain_identifier": Param(
            "", type="string", title="Domain", description="Default: the domain of the connection."
        ),
        "owning_project_identifier": Param(
            "", type="string", title="Project", description="Owns the asset. Default: the connection's."
        ),
        "asset_identifier": Param(
            "", type="string", title="Asset", description="The asset to generate metadata for."
        ),
    },
    tags=["example", "datazone"],
):
    # Every run counts against the account's monthly quota. After a crash, a lost worker or a timeout, a retry
    # resumes the existing run. It starts another run only after a run that failed, unless the quota is used
    # up: an asset that always fails costs 3 runs.
    start_run = DataZoneStartMetadataGenerationRunOperator(
        task_id="start_run",
        aws_conn_id=AWS_CONN_ID,
        domain_identifier="{{ params.domain_identifier }}",
        owning_project_identifier="{{ params.owning_project_identifier }}",
        asset_identifier="{{ params.asset_identifier }}",
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        retries=2,
        # A run takes about half a minute. A deferred task occupies no worker slot while it waits.
        deferrable=True,
        poll_interval=5,
        execution_timeout=timedelta(minutes=30),
    )

    @task.branch
    def choose_path(type_stats: list[dict[str, Any]]) -> str:
        """Select the branch by the status of each type. DataZone may omit the typeStats of a run."""
        if type_stats and all(stat["status"] == "SUCCEEDED" for stat in type_stats):
            return "accept_predictions"
        return "some_types_failed"

    @task
    def some_types_failed(type_stats: list[dict[str, Any]]) -> dict[str, str]:
        """Return the error message of each type that failed."""
        failures = {
            stat["type"]: stat.get("errorMessage", "DataZone gave no reason")
            for stat in type_stats
            if stat["status"] != "SUCCEEDED"
        }
        for run_type, reason in failures.items():
            print(f"{run_type}: {reason}")
        return failures

    # Accepts only predictions at or above the threshold. The others remain in the portal for review.
    accept_predictions = DataZoneAcceptPredictionsOperator(
        task_id="accept_predictions",
        aws_conn_id=AWS_CONN_ID,
        domain_identifier="{{ params.domain_identifier }}",
        asset_identifier="{{ params.asset_identifier }}",
        rule="ALL",
        threshold=CONFIDENCE,
    )

    # To let a person review the predictions first, see example_datazone_review_predictions.py.

    # Publishes the revision that `accept_predictions` created. DataZone publishes only the latest revision.
    # If another user has created a newer one, the task fails; without `revision`, it would publish the newer
    # one.
    publish = DataZonePublishAssetOperator(
        task_id="publish",
        aws_conn_id=AWS_CONN_ID,
        domain_identifier="{{ params.domain_identifier }}",
        asset_identifier="{{ params.asset_identifier }}",
        revision=accept_predictions.output,
        poll_interval=2,
        execution_timeout=timedelta(minutes=10),
    )

    # `none_failed`: the task also runs if the branch skipped `publish`. With `all_done`, the DAG run would
    # succeed even after a failed run, because the last task determines its state.
    @task(trigger_rule="none_failed")
    def report(type_stats: list[dict[str, Any]], listing_identifier: str | None) -> None:
        """Report the status of each type and the published listing."""
        for stat in type_stats:
            print(f"{stat['type']}: {stat['status']} {stat.get('errorMessage', '')}")
        print(f"Published: {listing_identifier}" if listing_identifier else "Nothing was published.")

    type_stats = start_run.output["type_stats"]
    choose_path(type_stats) >> [accept_predictions, some_types_failed(type_stats)]
    report(type_stats, publish.output)
