"""Helpers that execute the start operator without a complete Airflow deployment."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.operators.datazone import DataZoneStartMetadataGenerationRunOperator

if TYPE_CHECKING:
    from tests.conftest import Catalog


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
