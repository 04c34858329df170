"""
Wait for a DataZone metadata generation run, and branch on its result.

A run generates up to three types of metadata for an asset: business descriptions, business names and
glossary associations. Each type succeeds or fails independently. The run's *typeStats* contain the status of
each type, and the reason if it failed. This DAG

1. waits for a run that was started in the DataZone portal or through the API,
2. reads its typeStats and pushes them to XCom for downstream tasks,
3. takes one of two branches: all types succeeded, or some types failed,
4. reports the result, also after a failed run, which makes the DAG run fail.

It needs an Airflow connection ``datazone_default`` of type *Amazon DataZone* (or *Amazon Web Services*).
If you use Airflow 3 only, you can replace the import below with ``from airflow.sdk import DAG, Param, task``.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_datazone.operators.datazone import DataZoneGetMetadataGenerationRunOperator
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor

# Passed to each operator: in `default_args`, it makes mapped TaskFlow tasks fail on Airflow 2.11.
AWS_CONN_ID = "datazone_default"

with DAG(
    dag_id="example_datazone_metadata_generation",
    description="Wait for a metadata generation run and branch on its typeStats",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={
        "domain_identifier": Param(
            "", type="string", title="Domain", description="Default: the domain of the connection."
        ),
        "run_identifier": Param(
            "", type="string", title="Run", description="The metadata generation run to wait for."
        ),
    },
    tags=["example", "datazone"],
):
    # Succeeds on SUCCEEDED and PARTIALLY_SUCCEEDED, and fails without retries on FAILED and CANCELED. With
    # `deferrable=True` it waits in the triggerer and occupies no worker slot. If your Airflow has no
    # triggerer, use `deferrable=False` and `mode="reschedule"`.
    wait_for_run = DataZoneMetadataGenerationRunSensor(
        task_id="wait_for_run",
        aws_conn_id=AWS_CONN_ID,
        domain_identifier="{{ params.domain_identifier }}",
        run_identifier="{{ params.run_identifier }}",
        poke_interval=5,
        timeout=timedelta(hours=1).total_seconds(),
        deferrable=True,
    )

    # Reads the run once and succeeds with any status. If the run has already ended, you need no sensor.
    read_type_stats = DataZoneGetMetadataGenerationRunOperator(
        task_id="read_type_stats",
        aws_conn_id=AWS_CONN_ID,
        domain_identifier="{{ params.domain_identifier }}",
        run_identifier="{{ params.run_identifier }}",
    )

    @task.branch
    def choose_path(type_stats: list[dict[str, Any]]) -> str:
        """Select the branch by the status of each type. DataZone may omit the typeStats of a run."""
        if type_stats and all(stat["status"] == "SUCCEEDED" for stat in type_stats):
            return "everything_generated"
        return "some_types_failed"

    @task
    def everything_generated() -> None:
        print("Every type was generated: you can review and publish the predictions.")

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

    @task
    def report(type_stats: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Report the status of each type, whether the run succeeded or not."""
        for stat in type_stats:
            print(f"{stat['type']}: {stat['status']} {stat.get('errorMessage', '')}")
        return type_stats

    type_stats = read_type_stats.output
    wait_for_run >> read_type_stats
    choose_path(type_stats) >> [everything_generated(), some_types_failed(type_stats)]
    # A teardown runs after a failure without hiding it, so the DAG run still fails. The sensor pushes the key
    # `type_stats` before it fails.
    report(wait_for_run.output["type_stats"]).as_teardown()
