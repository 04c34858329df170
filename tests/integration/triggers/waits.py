"""Triggers that wait for a run, run as a triggerer runs them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger

if TYPE_CHECKING:
    from tests.conftest import Catalog


def trigger(catalog: Catalog, run: str, **arguments: Any) -> DataZoneMetadataGenerationRunTrigger:
    defaults = {"poll_interval": 0.02, "aws_conn_id": "datazone_default"}
    return DataZoneMetadataGenerationRunTrigger(run, catalog.domain_identifier, **defaults | arguments)


async def only_event(trigger: DataZoneMetadataGenerationRunTrigger) -> dict[str, Any]:
    (event,) = [event async for event in trigger.run()]
    return event.payload


def events(*triggers: DataZoneMetadataGenerationRunTrigger) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        found = await asyncio.wait_for(asyncio.gather(*map(only_event, triggers)), timeout=60)
        # What was canceled needs a few turns of the loop to end; nothing may go on.
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            _, still_running = await asyncio.wait(left, timeout=30)
            assert not still_running
        return found

    return asyncio.run(main())
