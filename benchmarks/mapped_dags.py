"""DAGs with one batch task or with mapped tasks for the same assets. BENCHMARK_PLAN configures them."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import (
    DataZoneBatchMetadataGenerationOperator,
    DataZoneStartMetadataGenerationRunOperator,
)

PLAN = json.loads(os.environ["BENCHMARK_PLAN"])
ARGUMENTS = {
    "task_id": "generate",
    "types": PLAN["types"],
    "poll_interval": PLAN["poll_interval"],
    "aws_conn_id": "bench",
    # Throttled starts are retried.
    "retries": 10,
    "retry_delay": timedelta(seconds=5),
}

# The first number is for warming up, the second for the measurement.
for number in PLAN["numbers"]:
    assets = [f"asset-{number}-{index}" for index in range(number)]

    with DAG(f"batch_{number}", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
        DataZoneBatchMetadataGenerationOperator(
            asset_identifiers=assets,
            max_concurrent_runs=PLAN["max_concurrent_runs"],
            deferrable=True,
            **ARGUMENTS,
        )

    for name, deferrable in (("mapped", True), ("mapped_in_workers", False)):
        with DAG(f"{name}_{number}", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
            DataZoneStartMetadataGenerationRunOperator.partial(deferrable=deferrable, **ARGUMENTS).expand(
                asset_identifier=assets
            )
