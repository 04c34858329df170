"""Helpers that run batches of a few assets the way a worker and a triggerer do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_datazone.batch.assets import AssetRow, pack
from airflow_provider_datazone.batch.memory import BatchMemory
from airflow_provider_datazone.operators.datazone import DataZoneBatchMetadataGenerationOperator
from airflow_provider_datazone.triggers.datazone import DataZoneBatchMetadataGenerationTrigger
from tests.conftest import TYPE_STATS, once, outcome_of
from tests.dags.batch_outcomes import (
    TYPES,
)
from tests.integration.triggers.waits import only_event
from tests.task_context import Store, make_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog, LoopClock

COUNTED = ("succeeded", "partially_succeeded", "failed", "canceled", "accepted", "published", "not_started")


def set_outcomes(server: DataZoneServer, asset: str, endings: str) -> None:
    """Set the final statuses of an asset's consecutive runs."""
    if endings == "ENDLESS":
        server.set_run_outcome(asset, in_progress_seconds=3600, times=None)
        return
    *first, last = endings.split()
    for ending, times in [*((ending, 1) for ending in first), (last, None)]:
        server.set_run_outcome(asset, times=times, **outcome_of(TYPE_STATS[ending]))


@dataclass
class Assets:
    """Assets of a catalog, with factories for a trigger and an operator that process them."""

    catalog: Catalog
    identifiers: list[str]

    def rows(self) -> list[AssetRow]:
        return [AssetRow(asset, None, self.catalog.project_identifier) for asset in self.identifiers]

    def trigger(self, **arguments: Any) -> DataZoneBatchMetadataGenerationTrigger:
        defaults = {
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
        return DataZoneBatchMetadataGenerationTrigger(**defaults | arguments)

    def operator(self, **arguments: Any) -> DataZoneBatchMetadataGenerationOperator:
        defaults = {
            "task_id": "generate",
            "asset_identifiers": self.identifiers,
            "types": TYPES,
            "domain_identifier": self.catalog.domain_identifier,
            "owning_project_identifier": self.catalog.project_identifier,
            "aws_conn_id": "datazone_default",
            "poll_interval": 0.02,
        }
        return DataZoneBatchMetadataGenerationOperator(**defaults | arguments)

    def statuses(self) -> list[list[str]]:
        """List the run statuses of each asset from the server."""
        client = self.catalog.server.client()
        statuses = []
        for asset in self.identifiers:
            listed = client.list_metadata_generation_runs(
                domainIdentifier=self.catalog.domain_identifier, targetIdentifier=asset
            )
            statuses.append([run["status"] for run in listed["items"]])
        return statuses


def event_of(trigger: DataZoneBatchMetadataGenerationTrigger, timeout: float | None = 60.0) -> dict[str, Any]:
    return asyncio.run(asyncio.wait_for(only_event(trigger), timeout))


def event_at_checkpoint(
    trigger: DataZoneBatchMetadataGenerationTrigger,
    clock: LoopClock,
    is_due: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """
    Run a trigger until its next checkpoint.

    :param is_due: When the checkpoint comes. Default: as soon as all runs are active.
    """
    once(is_due or (lambda: batch_is_active(trigger)), lambda: clock.put_forward(trigger.checkpoint_interval))
    event = event_of(trigger, timeout=None)
    assert event["status"] == "checkpoint"
    return event


def all_runs_are_active(rows: list[AssetRow]) -> bool:
    return sum(row.is_active for row in rows) == 6


def batch_is_active(trigger: DataZoneBatchMetadataGenerationTrigger) -> bool:
    return trigger._batch is not None and all_runs_are_active(trigger._batch.state.rows)


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


def run_task(task: DataZoneBatchMetadataGenerationOperator, context: Any) -> dict[str, Any]:
    """Execute a task and, if it defers, run its trigger and resume the task."""
    try:
        return dict(task.execute(context))
    except TaskDeferred as deferred:
        event = {"event": event_of(deferred.trigger)}
    return dict(task.resume_execution("execute_complete", event, context))


def rows_of(task: DataZoneBatchMetadataGenerationOperator) -> list[AssetRow]:
    """Return the rows that a task is currently processing."""
    state = task._execution and task._execution._state
    return state.rows if state else []


def make_memory(assets: Assets, context: Any, types: list[str] | None = None) -> BatchMemory:
    return BatchMemory(context, assets.catalog.domain_identifier, types or TYPES)


def execute_tries(
    assets: Assets, store: Store | None, tries: int, **arguments: Any
) -> list[dict[str, Any] | Exception]:
    """Execute a task up to `tries` times until it succeeds, like Airflow with retries."""
    outcomes: list[dict[str, Any] | Exception] = []
    for try_number in range(1, tries + 1):
        try:
            outcomes.append(assets.operator(**arguments).execute(make_context(store, try_number=try_number)))
            break
        except Exception as error:
            outcomes.append(error)
    return outcomes


def without_adoption(rows: list[AssetRow]) -> list[AssetRow]:
    """Return rows without the adoption time that loading them in the next try adds to active runs."""
    assert all((row.adopted_at is not None) == row.is_active for row in rows)
    return [replace(row, adopted_at=None) for row in rows]
