"""Helpers that run triggers as a triggerer does."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger

if TYPE_CHECKING:
    from tests.conftest import Catalog


def trigger(catalog: Catalog, run: str, **arguments: Any) -> DataZoneMetadataGenerationRunTrigger:
    defaults = {"poll_interval": 0.02, "aws_conn_id": "datazone_default"}
    return DataZoneMetadataGenerationRunTrigger(run, catalog.domain_identifier, **defaults | arguments)


async def only_event(trigger: BaseTrigger) -> dict[str, Any]:
    (event,) = [event async for event in trigger.run()]
    json.dumps(event.payload)
    return event.payload


async def run_until_canceled(trigger: BaseTrigger, *, by_user: bool) -> None:
    """
    Run a trigger that a test cancels, as Airflow's triggerer does (`TriggerRunner.run_trigger`).

    :param by_user: Whether a user ended the task, so that ``on_kill`` is called.
    """
    try:
        await only_event(trigger)
    except asyncio.CancelledError:
        if by_user:
            await trigger.on_kill()
        raise


def store_and_load(trigger: BaseTrigger) -> Any:
    """Store a trigger in Airflow's database and load it, as the scheduler and the triggerer do."""
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    with create_session() as session:
        row = Trigger.from_object(trigger)
        session.add(row)
        session.flush()
        stored = row.id
    with create_session() as session:
        row = session.get(Trigger, stored)
        loaded = TriggerRunner().get_trigger_by_classpath(row.classpath)(**row.kwargs)
        session.delete(row)
    return loaded


def events(*triggers: DataZoneMetadataGenerationRunTrigger) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        found = await asyncio.wait_for(asyncio.gather(*map(only_event, triggers)), timeout=60)
        # A canceled task needs a few iterations of the event loop to end. No task may remain.
        if remaining := asyncio.all_tasks() - {asyncio.current_task()}:
            _, still_running = await asyncio.wait(remaining, timeout=30)
            assert not still_running
        return found

    return asyncio.run(main())
