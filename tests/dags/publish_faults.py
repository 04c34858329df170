"""One DAG for each fault of a request that accepts predictions or publishes an asset."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneBatchMetadataGenerationOperator,
    DataZonePublishAssetOperator,
)
from tests.faults.workers import ATTEMPTS, mark, write_process

TASK_ID = "change"
FAULTS = ("lost", "throttled", "killed")


def begin(context: Any) -> None:
    """Write the process id of the task to a file."""
    ti = context["ti"]
    write_process(mark(context["dag_run"].conf["marks"], ti.dag_id, "process", ti.try_number))


ASSET = "{{ dag_run.conf['asset'] }}"
BATCH = {
    "asset_identifiers": [ASSET],
    "types": ["BUSINESS_DESCRIPTIONS"],
    "owning_project_identifier": "{{ dag_run.conf['owning_project_identifier'] }}",
    "poll_interval": 0.5,
    "accept_threshold": 0,
    "publish": True,
}
# The operator and its arguments by the prefix of the DAG id.
TASKS: dict[str, tuple[type, dict[str, Any]]] = {
    "accept": (DataZoneAcceptPredictionsOperator, {"asset_identifier": ASSET, "rule": "ALL"}),
    "publish": (DataZonePublishAssetOperator, {"asset_identifier": ASSET, "poll_interval": 0.5}),
    "batch_accept": (DataZoneBatchMetadataGenerationOperator, BATCH),
    "batch_publish": (DataZoneBatchMetadataGenerationOperator, BATCH),
}

for prefix, (operator, particulars) in TASKS.items():
    for fault in FAULTS:
        with DAG(
            dag_id=f"{prefix}_{fault}",
            schedule=None,
            start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
            catchup=False,
        ):
            operator(
                task_id=TASK_ID,
                domain_identifier="{{ dag_run.conf['domain_identifier'] }}",
                aws_conn_id="datazone_default",
                botocore_config={"retries": {"total_max_attempts": ATTEMPTS}},
                retries=4,
                retry_delay=timedelta(0),
                pre_execute=begin,
                **particulars,
            )
