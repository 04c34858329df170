"""Tasks whose arguments are lazy sequences, which Airflow passes for the output of mapped tasks."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneStartMetadataGenerationRunOperator,
)

TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
CHOICES = [{"predictionTarget": "summary", "predictionChoice": 0}]
TASKS = ("start-expanded", "accept-mapped")


@task
def give(value: Any) -> Any:
    return value


@task
def give_all(values: list[Any]) -> list[Any]:
    return values


def same(value: Any) -> Any:
    return value


def arguments(name: str) -> dict[str, Any]:
    return {
        "task_id": name,
        "asset_identifier": f"{{{{ dag_run.conf['assets']['{name}'] }}}}",
        "domain_identifier": "{{ dag_run.conf['domain_identifier'] }}",
        "aws_conn_id": "datazone_default",
        "botocore_config": {"retries": {"total_max_attempts": 1}},
        # The first response is lost, so each task has a second try.
        "retries": 1,
        "retry_delay": timedelta(0),
    }


with DAG(
    dag_id="lazy_inputs",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
) as dag:
    DataZoneStartMetadataGenerationRunOperator(
        **arguments("start-expanded"),
        types=give.expand(value=TYPES),
        owning_project_identifier="{{ dag_run.conf['project_identifier'] }}",
        wait_for_completion=False,
    )
    DataZoneAcceptPredictionsOperator(**arguments("accept-mapped"), choices=give_all(CHOICES).map(same))
