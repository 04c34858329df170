"""Batches of a few assets, run as a worker and a triggerer run them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_datazone.batch.assets import AssetRow, pack
from airflow_provider_datazone.batch.memory import BatchMemory
from airflow_provider_datazone.operators.datazone import DataZoneBatchMetadataGenerationOperator
from airflow_provider_datazone.triggers.datazone import DataZoneBatchMetadataGenerationTrigger
from tests.conftest import TYPE_STATS, outcome_of
from tests.dags.batch_outcomes import (
    TYPES,
)
from tests.integration.submission.tries import Store
from tests.integration.triggers.waits import only_event

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

COUNTED = ("succeeded", "partially_succeeded", "failed", "canceled", "not_started")


def set_outcomes(server: DataZoneServer, asset: str, endings: str) -> None:
    """Say how the runs of an asset end, one after the other."""
    if endings == "ENDLESS":
        server.set_run_outcome(asset, in_progress_seconds=3600, times=None)
        return
    *once, last = endings.split()
    for ending, times in [*((ending, 1) for ending in once), (last, None)]:
        server.set_run_outcome(asset, times=times, **outcome_of(TYPE_STATS[ending]))


@dataclass
class Assets:
    """Assets of a catalog, and a trigger for them."""

    catalog: Catalog
    identifiers: list[str]

    def rows(self) -> list[AssetRow]:
        return [AssetRow(asset, None, self.catalog.project_identifier) for asset in self.identifiers]

    def trigger(self, **arguments: Any) -> DataZoneBatchMetadataGenerationTrigger:
        known = {
            "rows": pack(self.rows()),
            "noted_at": time.time(),
            "types": TYPES,
            "domain_identifier": self.catalog.domain_identifier,
            "identity": "the task",
            "began_at": time.time(),
            "max_concurrent_runs": 50,
            "poll_interval": 0.02,
            "aws_conn_id": "datazone_default",
            "started_at": 123.5,
            "duplicates": 4,
        }
        return DataZoneBatchMetadataGenerationTrigger(**known | arguments)

    def operator(self, **arguments: Any) -> DataZoneBatchMetadataGenerationOperator:
        known = {
            "task_id": "generate",
            "asset_identifiers": self.identifiers,
            "types": TYPES,
            "domain_identifier": self.catalog.domain_identifier,
            "owning_project_identifier": self.catalog.project_identifier,
            "aws_conn_id": "datazone_default",
            "poll_interval": 0.02,
        }
        return DataZoneBatchMetadataGenerationOperator(**known | arguments)

    def statuses(self) -> list[list[str]]:
        """Ask the service for the statuses of each asset's runs."""
        client = self.catalog.server.client()
        found = []
        for asset in self.identifiers:
            listed = client.list_metadata_generation_runs(
                domainIdentifier=self.catalog.domain_identifier, targetIdentifier=asset
            )
            found.append([run["status"] for run in listed["items"]])
        return found


def event_of(trigger: DataZoneBatchMetadataGenerationTrigger, timeout: float | None = 60.0) -> dict[str, Any]:
    return asyncio.run(asyncio.wait_for(only_event(trigger), timeout))


def all_are_active(rows: list[AssetRow]) -> bool:
    return sum(row.is_active for row in rows) == 6


def list_runs(assets: Assets) -> list[list[str]]:
    client = assets.catalog.server.client()
    return [
        [
            run["id"]
            for run in client.list_metadata_generation_runs(
                domainIdentifier=assets.catalog.domain_identifier, targetIdentifier=asset
            )["items"]
        ]
        for asset in assets.identifiers
    ]


class TaskInstance(SimpleNamespace):
    """Stands for Airflow's, which runs in the other tests; here only the way to it matters."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, **arguments: Any) -> Any:
        return self.pushed.get(arguments["key"])


def make_context(store: Store | None = None, **ti: Any) -> Any:
    """Return the context of a task instance in a try, as far as a batch looks at it."""
    known = {
        "dag_id": "enrich",
        "run_id": "manual",
        "task_id": "generate",
        "map_index": -1,
        "try_number": 1,
        "max_tries": 3,
        "pushed": {},
    }
    context: dict[str, Any] = {
        "ti": TaskInstance(**known | ti),
        "dag_run": SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)),
    }
    if store is not None:
        context["task_state_store"] = store
    return context


def carry_out(task: DataZoneBatchMetadataGenerationOperator, context: Any) -> dict[str, Any]:
    """Execute a task, deferred or not, as worker and triggerer do."""
    try:
        return dict(task.execute(context))
    except TaskDeferred as deferred:
        event = {"event": event_of(deferred.trigger)}
    return dict(task.resume_execution("execute_complete", event, context))


def rows_of(task: DataZoneBatchMetadataGenerationOperator) -> list[AssetRow]:
    """Return the rows that a task works on just now."""
    state = task._execution and task._execution._state
    return state.rows if state else []


def remember(assets: Assets, context: Any, types: list[str] | None = None) -> BatchMemory:
    return BatchMemory(context, assets.catalog.domain_identifier, types or TYPES)


def execute_tries(
    assets: Assets, store: Store | None, tries: int, **arguments: Any
) -> list[dict[str, Any] | Exception]:
    """Try a task until it succeeds, as Airflow does."""
    ended: list[dict[str, Any] | Exception] = []
    for try_number in range(1, tries + 1):
        try:
            ended.append(assets.operator(**arguments).execute(make_context(store, try_number=try_number)))
            break
        except Exception as error:
            ended.append(error)
    return ended


def own(rows: list[AssetRow]) -> list[AssetRow]:
    """Return rows as the try that stored them had them: the next one has adopted their runs."""
    assert all((row.adopted_at is not None) == row.is_active for row in rows)
    return [replace(row, adopted_at=None) for row in rows]
