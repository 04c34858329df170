"""Helpers that run the trigger of asset watchers as a triggerer does."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunEventTrigger

if TYPE_CHECKING:
    from tests.conftest import Catalog


class Store:
    """
    Airflow's asset state store of one asset. The real one needs the supervisor of a triggerer; the system tests
    use it.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.error: Exception | None = None
        self.reads = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        self.reads += 1
        if self.error:
            raise self.error
        await asyncio.sleep(0)
        return json.loads(self.values[key]) if key in self.values else default

    async def aset(self, key: str, value: Any) -> None:
        if self.error:
            raise self.error
        await asyncio.sleep(0)
        self.values[key] = json.dumps(value)


class Watcher:
    """A running trigger, and the runs of its events."""

    def __init__(self, catalog: Catalog, store: Store | None = None, **arguments: Any) -> None:
        defaults = {"aws_conn_id": "datazone_default", "poll_interval": 0.05}
        self.trigger = DataZoneMetadataGenerationRunEventTrigger(
            catalog.domain_identifier, **defaults | arguments
        )
        self.trigger.asset_state_store = store
        self.trigger._log = logging.getLogger("tests.watcher")  # Airflow 3 uses a structlog logger here
        self.runs: list[dict[str, Any]] = []
        self._task = asyncio.ensure_future(self._collect())

    async def _collect(self) -> None:
        async for event in self.trigger.run():
            json.dumps(event.payload)
            assert list(event.payload) == ["run"]
            self.runs.append(event.payload["run"])

    @property
    def ids(self) -> list[str]:
        return [run["id"] for run in self.runs]

    async def stop(self) -> None:
        assert not self._task.done(), self._task
        self._task.cancel()
        _, running = await asyncio.wait([self._task], timeout=10)
        assert not running


class Domain:
    """The local DataZone, with runs that a test ends."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.server = catalog.server

    def start(self, status: str = "SUCCEEDED") -> str:
        run = self.catalog.start_run(statuses=status, in_progress_seconds=0)
        self.server.set_run_status(run, "IN_PROGRESS")
        return run

    def end(self, *runs: str) -> None:
        for run in runs:
            self.server.set_run_status(run, None)

    async def polls(self, number: int = 2) -> None:
        """Wait for some complete Lists."""
        target = self.lists + 2 * number + 2
        await until(lambda: self.lists >= target)

    @property
    def lists(self) -> int:
        """The number of List requests so far."""
        return self.server.request_counts["ListMetadataGenerationRuns"]


async def until(condition: Callable[[], Any]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), 30)


def play(script: Awaitable[None]) -> None:
    async def main() -> None:
        await script

    asyncio.run(main())
