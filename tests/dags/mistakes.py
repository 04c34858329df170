"""Common mistakes and outages during the first steps of a user: one DAG for each mistake and kind of task."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import (
    DataZoneBatchMetadataGenerationOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor

TASK_ID = "task"
RETRIES = 2
WAIT, START, BATCH = "wait", "start", "batch"
RUN, ASSET, ASSETS = (
    "{{ dag_run.conf['run'] }}",
    "{{ dag_run.conf['assets'][0] }}",
    "{{ dag_run.conf['assets'] }}",
)
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
# The invalid arguments of each task. The tests also change connections and the local DataZone.
MISTAKES: dict[str, dict[str, dict[str, Any]]] = {
    "unknown_run": {WAIT: {"run_identifier": "nosuchrun"}},
    "unknown_asset": {
        START: {"asset_identifier": "nosuchasset"},
        BATCH: {"asset_identifiers": ["nosuchasset", "nosuchasset2"]},
    },
    "unknown_domain": {key: {"domain_identifier": "dzd-nosuchdomain"} for key in (WAIT, START, BATCH)},
    "misspelled_connection": {key: {"aws_conn_id": "datazone_defualt"} for key in (WAIT, START, BATCH)},
    "no_region": {WAIT: {}, START: {}, BATCH: {}},
    "wrong_secret": {WAIT: {}, START: {}, BATCH: {}},
    "denied": {WAIT: {}, START: {}, BATCH: {}},
    "quota": {START: {}, BATCH: {}},
    "service_down": {WAIT: {}, START: {}, BATCH: {}},
    "types_as_a_string": {key: {"types": "{{ params.types }}"} for key in (START, BATCH)},
    "trailing_space": {
        WAIT: {"run_identifier": f"{RUN} "},
        START: {"asset_identifier": f"{ASSET} "},
        BATCH: {"asset_identifiers": ["{{ dag_run.conf['assets'][0] }} "]},
    },
    "empty_batch": {BATCH: {"asset_identifiers": []}},
}
# Mistakes that occur while the tasks are deferred.
DEFERRED = {"service_down"}
# Mistakes with a separate connection for each kind of task. Its access key is the mistake and the kind.
WITH_CONNECTION = ("no_region", "wrong_secret", "denied", "service_down")

for mistake, tasks in MISTAKES.items():
    for kind, wrong in tasks.items():
        with DAG(
            dag_id=f"{mistake}_{kind}",
            schedule=None,
            start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
            catchup=False,
            params={"types": TYPES},
            render_template_as_native_obj=mistake != "types_as_a_string",
        ):
            arguments: dict[str, Any] = {
                "task_id": TASK_ID,
                "aws_conn_id": f"{mistake}_{kind}" if mistake in WITH_CONNECTION else "datazone_default",
                "domain_identifier": "{{ dag_run.conf['domain_identifier'] }}",
                "retries": RETRIES,
                "retry_delay": timedelta(seconds=1),
                "deferrable": mistake in DEFERRED,
            }
            if kind == WAIT:
                arguments |= {"run_identifier": RUN, "poke_interval": 1}
                DataZoneMetadataGenerationRunSensor(**arguments | wrong)
                continue
            arguments |= {
                "owning_project_identifier": "{{ dag_run.conf['owning_project_identifier'] }}",
                "types": TYPES,
                "poll_interval": 1,
            }
            if kind == START:
                DataZoneStartMetadataGenerationRunOperator(**arguments | {"asset_identifier": ASSET} | wrong)
            elif mistake == "types_as_a_string":
                arguments |= {"asset_identifiers": ["{{ dag_run.conf['assets'][0] }}"]}
                DataZoneBatchMetadataGenerationOperator(**arguments | wrong)
            else:
                DataZoneBatchMetadataGenerationOperator(**arguments | {"asset_identifiers": ASSETS} | wrong)
