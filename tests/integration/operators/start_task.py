"""Helpers that execute the start operator without a complete Airflow deployment."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.operators.datazone import DataZoneStartMetadataGenerationRunOperator

if TYPE_CHECKING:
    from tests.conftest import Catalog


class TaskInstance:
    """A minimal task instance. Other tests use the one from Airflow."""

    dag_id, run_id, task_id, map_index, try_number, max_tries = "dag", "run", "start", -1, 1, 0

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def xcom_pull(self, *, key: str, **_: Any) -> Any:
        return self.xcoms.get(key)


def make_context() -> Any:
    return {
        "ti": TaskInstance(),
        "dag_run": SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)),
    }


def start(catalog: Catalog, **arguments: Any) -> DataZoneStartMetadataGenerationRunOperator:
    defaults = {
        "task_id": "start",
        "asset_identifier": catalog.asset_identifier,
        "types": ["BUSINESS_NAMES"],
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
        "aws_conn_id": "datazone_default",
        # Retries of botocore would hide the behavior of the operator and slow the tests down.
        "botocore_config": {"retries": {"total_max_attempts": 1}},
        # Tests move the clock of a worker. The trigger of a deferred task waits in real time.
        "poll_interval": 0.05 if arguments.get("deferrable") else 7,
    }
    operator = DataZoneStartMetadataGenerationRunOperator(**defaults | arguments)
    # Airflow 2 does not propagate logs to the root logger, and Airflow 3 bypasses the standard library. Each stores
    # an operator's logger in another attribute.
    operator._log = operator._cached_logger = operator.hook._log = logging.getLogger("tests.start")
    return operator


def status_of(catalog: Catalog, run: str) -> str:
    run_details = catalog.server.client().get_metadata_generation_run(
        domainIdentifier=catalog.domain_identifier, identifier=run
    )
    return str(run_details["status"])
