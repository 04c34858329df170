"""Tasks that a user marks as failed, each in a different state."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import (
    DataZoneBatchMetadataGenerationOperator,
    DataZoneStartMetadataGenerationRunOperator,
)

TASK_ID = "killed"
# One DAG for each key, with the arguments of its task.
BATCHES: dict[str, dict[str, Any]] = {
    "killed_while_starting": {"max_concurrent_runs": 60},
    "killed_while_deferred": {"max_concurrent_runs": 100, "deferrable": True},
}
STARTS = ("killed_before_answer",)


def write_process(context: Any) -> None:
    """Write the process id of the task to a file."""
    path = Path(context["dag_run"].conf["process"])
    # Renaming makes the complete file appear in one step.
    new = path.with_suffix(".new")
    new.write_text(str(os.getpid()), encoding="utf-8")
    new.rename(path)


for name in (*BATCHES, *STARTS):
    with DAG(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        render_template_as_native_obj=True,
    ):
        arguments: dict[str, Any] = {
            "task_id": TASK_ID,
            "types": ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
            "domain_identifier": "{{ dag_run.conf['domain_identifier'] }}",
            "owning_project_identifier": "{{ dag_run.conf['owning_project_identifier'] }}",
            "aws_conn_id": "datazone_default",
            "poll_interval": 0.5,
            "pre_execute": write_process,
        }
        if name in BATCHES:
            assets = "{{ dag_run.conf['assets'] }}"
            DataZoneBatchMetadataGenerationOperator(asset_identifiers=assets, **arguments, **BATCHES[name])
        else:
            asset = "{{ dag_run.conf['assets'][0] }}"
            DataZoneStartMetadataGenerationRunOperator(asset_identifier=asset, **arguments)
