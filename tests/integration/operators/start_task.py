"""A task of the Start operator, without a whole Airflow around it."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.operators.datazone import DataZoneStartMetadataGenerationRunOperator

if TYPE_CHECKING:
    from tests.conftest import Catalog


class TaskInstance:
    """Stands for Airflow's, which runs in other tests; here only what the operator makes of it matters."""

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
    known = {
        "task_id": "start",
        "asset_identifier": catalog.asset_identifier,
        "types": ["BUSINESS_NAMES"],
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
        "aws_conn_id": "datazone_default",
        # botocore's own retries would hide what the operator does, and take their time.
        "botocore_config": {"retries": {"total_max_attempts": 1}},
        "poll_interval": 7,
    }
    operator = DataZoneStartMetadataGenerationRunOperator(**known | arguments)
    # Airflow 2 keeps its logs from the root logger, Airflow 3 logs past the standard library, and an operator's
    # logger has another place in each.
    operator._log = operator._cached_logger = operator.hook._log = logging.getLogger("tests.start")
    return operator


def status_of(catalog: Catalog, run: str) -> str:
    found = catalog.server.client().get_metadata_generation_run(
        domainIdentifier=catalog.domain_identifier, identifier=run
    )
    return str(found["status"])
