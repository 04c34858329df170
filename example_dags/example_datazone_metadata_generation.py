"""
Wait for a DataZone metadata generation run, and go on by what it produced.

A run writes up to three types of metadata for an asset: business descriptions, business names and
glossary associations. Each type succeeds or fails by itself; how each went, and why, stands in the
run's *typeStats*. This DAG

1. waits for a run that was started in the DataZone portal or through the API,
2. reads its typeStats, which Airflow hands to the tasks downstream through XCom,
3. goes one of two ways: everything was generated, or some types failed,
4. reports in the end, also after a failed run. The DAG run fails then.

It needs an Airflow connection ``datazone_default`` of type *Amazon DataZone* (or *Amazon Web Services*).
On Airflow 3 alone, ``from airflow.sdk import DAG, Param, task`` does the same as the import below.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_datazone.operators.datazone import DataZoneGetMetadataGenerationRunOperator
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor

# Pass it to each operator: Airflow 2.11 fails mapped TaskFlow tasks of a DAG that has it in `default_args`.
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
            "", type="string", title="Domain", description="Empty: the domain of the connection."
        ),
        "run_identifier": Param(
            "", type="string", title="Run", description="The metadata generation run to wait for."
        ),
    },
    tags=["example", "datazone"],
):
    # Succeeds on SUCCEEDED and PARTIALLY_SUCCEEDED, fails at once on FAILED and CANCELED. Deferred, it
    # waits in the triggerer and holds no worker slot; `mode="reschedule"` is for an Airflow without one.
    wait_for_run = DataZoneMetadataGenerationRunSensor(
        task_id="wait_for_run",
        aws_conn_id=AWS_CONN_ID,
        domain_identifier="{{ params.domain_identifier }}",
        run_identifier="{{ params.run_identifier }}",
        poke_interval=5,
        timeout=timedelta(hours=1).total_seconds(),
        deferrable=True,
    )

    # Reads once and judges nothing: for a run that is known to have ended, this is all you need.
    read_type_stats = DataZoneGetMetadataGenerationRunOperator(
        task_id="read_type_stats",
        aws_conn_id=AWS_CONN_ID,
        domain_identifier="{{ params.domain_identifier }}",
        run_identifier="{{ params.run_identifier }}",
    )

    @task.branch
    def choose_path(type_stats: list[dict[str, Any]]) -> str:
        """Look for types that did not succeed."""
        if all(stat["status"] == "SUCCEEDED" for stat in type_stats):
            return "everything_generated"
        return "some_types_failed"

    @task
    def everything_generated() -> None:
        print("Every type was generated: the predictions can be reviewed and published.")

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

    @task
    def report(type_stats: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        """Report how each type went, whether the run succeeded or not."""
        # None if the sensor was ended before it could push the key.
        for stat in type_stats or []:
            print(f"{stat['type']}: {stat['status']} {stat.get('errorMessage', '')}")
        return type_stats or []

    type_stats = read_type_stats.output
    wait_for_run >> read_type_stats
    choose_path(type_stats) >> [everything_generated(), some_types_failed(type_stats)]
    # A teardown also runs after a failed run, and the DAG run fails all the same. The sensor pushed the key
    # `type_stats` before it failed.
    report(wait_for_run.output["type_stats"]).as_teardown()
