"""
### React to metadata generation runs that end

Runs when a metadata generation run of a domain ends and was not canceled, whether a DAG or a user of the
DataZone portal has started it. The DAG

1. gets the runs that have ended from the events of an asset,
2. sorts them by their *typeStats*: all types succeeded, or some failed,
3. accepts the predictions with high confidence and publishes the asset, or reports what failed.

It needs Airflow 3.0 or later with a triggerer, and an Airflow connection ``datazone_default`` of type *Amazon
DataZone*. Its role needs the IAM policies to start and accept, and to review and publish: see
docs/connection.md. Write your domain and your project into ``DOMAIN`` and ``PROJECT``.

It accepts and publishes without asking a person, so do not use it for a project in which people, or another
DAG, review the predictions.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZonePublishAssetOperator,
)

AWS_CONN_ID = "datazone_default"
# Constants, since Airflow creates the watcher when it parses this file: its arguments are not templated.
DOMAIN = "dzd_example"
PROJECT = "projectexample"
CONFIDENCE = 0.7

# Airflow 2 has no asset watchers, so the file defines no DAG there.
if AIRFLOW_V_3_0_PLUS:
    from airflow.sdk import DAG, Asset, AssetWatcher, task, task_group

    from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunEventTrigger

    run_ended = Asset(
        "datazone_run_ended",
        watchers=[
            AssetWatcher(
                name="datazone_run_ended",
                trigger=DataZoneMetadataGenerationRunEventTrigger(
                    domain_identifier=DOMAIN,
                    owning_project_identifier=PROJECT,
                    # Without canceled runs: there is nothing to do after them.
                    statuses=["SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED"],
                    poll_interval=10,
                    aws_conn_id=AWS_CONN_ID,
                ),
            )
        ],
    )

    with DAG(
        dag_id="example_datazone_on_run_ended",
        description="Accept and publish the predictions of each metadata generation run of a domain",
        doc_md=__doc__,
        schedule=[run_ended],
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        tags=["example", "datazone"],
    ) as dag:

        def list_runs(triggering_asset_events: Any) -> list[dict[str, Any]]:
            """Return the runs that ended. Airflow may pass the events of several runs to one DAG run."""
            return [
                event.extra["payload"]["run"]
                for events in triggering_asset_events.values()
                for event in events
                # An event that a user creates in the UI has no run.
                if "payload" in event.extra
            ]

        def is_generated(run: dict[str, Any]) -> bool:
            """Return whether all types succeeded. DataZone may omit the typeStats of a run."""
            stats = run["typeStats"]
            return bool(stats) and all(stat["status"] == "SUCCEEDED" for stat in stats)

        # Two lists, and tasks that are mapped over them: each run takes one of two branches.
        # Airflow passes the events to this DAG run only, so a task that fails needs a retry or a clear.
        @task(retries=3)
        def list_generated_assets(triggering_asset_events: Any = None) -> list[str]:
            """Return the assets of the runs whose types all succeeded, each one once."""
            runs = list_runs(triggering_asset_events)
            return sorted({run["target"]["identifier"] for run in runs if is_generated(run)})

        @task(retries=3)
        def list_other_runs(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
            """Return the other runs."""
            return [run for run in list_runs(triggering_asset_events) if not is_generated(run)]

        @task_group
        def publish_asset(asset: Any) -> None:
            """Accept the predictions for an asset, and publish exactly the revision that this creates."""
            accept_predictions = DataZoneAcceptPredictionsOperator(
                task_id="accept_predictions",
                aws_conn_id=AWS_CONN_ID,
                domain_identifier=DOMAIN,
                asset_identifier=asset,
                rule="ALL",
                threshold=CONFIDENCE,
                retries=3,
            )
            DataZonePublishAssetOperator(
                task_id="publish",
                aws_conn_id=AWS_CONN_ID,
                domain_identifier=DOMAIN,
                asset_identifier=asset,
                revision=accept_predictions.output,
                poll_interval=2,
                execution_timeout=timedelta(minutes=10),
                retries=3,
            )

        @task
        def report_failures(run: dict[str, Any]) -> dict[str, str]:
            """Return the error message of each type that failed."""
            failures = {
                stat["type"]: stat.get("errorMessage", "DataZone gave no reason")
                for stat in run["typeStats"]
                if stat["status"] != "SUCCEEDED"
            }
            print(f"{run['target']['identifier']}: {run['status']}")
            for run_type, reason in failures.items():
                print(f"{run_type}: {reason}")
            return failures

        publish_asset.expand(asset=list_generated_assets())
        report_failures.expand(run=list_other_runs())
