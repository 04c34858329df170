"""A DAG that runs when a metadata generation run ends, and one that AWS notifies. Both need Airflow 3."""

# [START watcher]
from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunEventTrigger

run_failed = Asset(
    "datazone_run_failed",
    watchers=[
        AssetWatcher(
            name="datazone_run_failed",
            trigger=DataZoneMetadataGenerationRunEventTrigger(
                domain_identifier="dzd_1234abcd5678ef",
                owning_project_identifier="5a6b7c8d9e",
                statuses=["PARTIALLY_SUCCEEDED", "FAILED"],
                aws_conn_id="datazone_default",
            ),
        )
    ],
)

with DAG("report_failed_runs", schedule=[run_failed]) as dag:
    # Airflow passes the events to one DAG run only, so a task that fails needs a retry or a clear.
    @task(retries=3)
    def report(triggering_asset_events):
        for event in triggering_asset_events[run_failed]:
            if "payload" not in event.extra:
                continue  # A user has created the event in the UI.
            run = event.extra["payload"]["run"]
            print(run["target"]["identifier"], run["status"])
            # DataZone may omit the typeStats.
            for stat in run["typeStats"]:
                print(stat["type"], stat["status"], stat.get("errorMessage", ""))

    report()
# [END watcher]
