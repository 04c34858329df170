"""
Generate metadata for an asset, accept what DataZone is sure of, and publish it.

This DAG

1. starts a metadata generation run for business descriptions and names, and waits for it,
2. goes one of two ways by the run's *typeStats*: everything was generated, or some types failed,
3. accepts what was generated with enough confidence, which makes a new revision of the asset,
4. publishes that revision, and reports.

It needs an Airflow connection ``datazone_default`` of type *Amazon DataZone* (or *Amazon Web Services*).
To publish takes the action ``datazone:CreateListingChangeSet``, beside those of the operators:
docs/connection.md.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneStartMetadataGenerationRunOperator,
)

# Pass it to each operator: Airflow 2.11 fails mapped TaskFlow tasks of a DAG that has it in `default_args`.
AWS_CONN_ID = "datazone_default"
# In the file, where a change of it is reviewed: who triggers the DAG has no say in it.
CONFIDENCE = 0.7

with DAG(
    dag_id="example_datazone_enrich_asset",
    description="Generate metadata for an asset, accept it above a confidence, and publish it",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={
        "domain_identifier": Param(
            "", type="string", title="Domain", description="Empty: the domain of the connection."
        ),
        "owning_project_identifier": Param(
            "", type="string", title="Project", description="Owns the asset. Empty: that of the connection."
        ),
        "asset_identifier": Param(
            "", type="string", title="Asset", description="The asset to generate metadata for."
        ),
    },
    tags=["example", "datazone"],
):
    # Every run counts against the account's monthly quota, and retries are safe all the same: after a crash,
    # a lost worker or a time-out, a retry goes on with the run that is there. Only after a run that failed
    # does it start another, and not even then if the quota is used up.
    start_run = DataZoneStartMetadataGenerationRunOperator(
        task_id="start_run",
        aws_conn_id=AWS_CONN_ID,
        domain_identifier="{{ params.domain_identifier }}",
        owning_project_identifier="{{ params.owning_project_identifier }}",
        asset_identifier="{{ params.asset_identifier }}",
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        retries=2,
        # A run takes about half a minute. Deferred, the wait holds no worker slot.
        deferrable=True,
        poll_interval=5,
        execution_timeout=timedelta(minutes=30),
    )

    @task.branch
    def choose_path(type_stats: list[dict[str, Any]]) -> str:
        """Look for types that did not succeed."""
        if all(stat["status"] == "SUCCEEDED" for stat in type_stats):
            return "accept_predictions"
        return "some_types_failed"

    @task
    def some_types_failed(type_stats: list[dict[str, Any]]) -> dict[str, str]:
        """Return which types failed, and why."""
        failures = {
            stat["type"]: stat.get("errorMessage", "DataZone gave no reason")
            for stat in type_stats
            if stat["status"] != "SUCCEEDED"
        }
        for run_type, reason in failures.items():
            print(f"{run_type}: {reason}")
        return failures

    # Nothing is accepted unless a rule or a choice says so. What stays below the threshold is left to people.
    accept_predictions = DataZoneAcceptPredictionsOperator(
        task_id="accept_predictions",
        aws_conn_id=AWS_CONN_ID,
        domain_identifier="{{ params.domain_identifier }}",
        asset_identifier="{{ params.asset_identifier }}",
        rule="ALL",
        threshold=CONFIDENCE,
    )

    # A human in the loop, on Airflow 3.1 and later: have the branch lead to `approve` in place of
    # `accept_predictions`, in `choose_path` and in the last lines, and add
    #
    #     from airflow.providers.standard.operators.hitl import ApprovalOperator
    #
    #     approve = ApprovalOperator(
    #         task_id="approve",
    #         subject="Accept what was generated for asset {{ params.asset_identifier }}, and publish it?",
    #         body="The suggestions are on the asset's page in the DataZone portal.",
    #         response_timeout=timedelta(days=2),
    #     )
    #     approve >> accept_predictions
    #
    # "Reject" skips what follows. So does no answer in time, with `defaults="Reject"`; else the task fails.

    @task
    def publish(run: dict[str, Any], revision: str) -> dict[str, Any]:
        """Publish the revision that accepting has made."""
        listing = DataZoneHook(AWS_CONN_ID).conn.create_listing_change_set(
            action="PUBLISH",
            domainIdentifier=run["domainId"],
            entityType="ASSET",
            entityIdentifier=run["target"]["identifier"],
            # Only the latest revision can be published. Named, it is this one or an error: never one that
            # somebody else has made meanwhile. Airflow 3.0 makes a number of "2" on the way, hence `str`.
            entityRevision=str(revision),
        )
        return {key: listing[key] for key in ("listingId", "listingRevision", "status")}

    # `none_failed`: also runs if the branch skipped `publish`. With `all_done` the DAG run would succeed even
    # after a failed run, because the last task decides its state.
    @task(trigger_rule="none_failed")
    def report(type_stats: list[dict[str, Any]], listing: dict[str, Any] | None) -> None:
        """Report how each type went, and what was published."""
        for stat in type_stats:
            print(f"{stat['type']}: {stat['status']} {stat.get('errorMessage', '')}")
        print(f"Published: {listing}" if listing else "Nothing was published.")

    type_stats = start_run.output["type_stats"]
    choose_path(type_stats) >> [accept_predictions, some_types_failed(type_stats)]
    report(type_stats, publish(start_run.output["run"], accept_predictions.output))
