"""A trigger cancels the run when a user ends its task."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_datazone.polling import registry, sender
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from tests.integration.triggers.waits import run_until_canceled, trigger

if TYPE_CHECKING:
    from tests.conftest import Catalog


pytestmark = pytest.mark.usefixtures("unhurried")


def kill(*triggers: DataZoneMetadataGenerationRunTrigger, by_user: bool = True) -> list[str]:
    """
    Cancel triggers while they wait.

    :param by_user: Whether a user ended the tasks, so that ``on_kill`` is called.
    :return: The warnings that the triggers logged.
    """

    async def main() -> None:
        tasks = [asyncio.ensure_future(run_until_canceled(trigger, by_user=by_user)) for trigger in triggers]
        loop = asyncio.get_running_loop()
        while loop not in registry._registries or not registry._registries[loop].pollers:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=60)
        assert all(isinstance(error, asyncio.CancelledError) for error in ended), ended

    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tests.kill")
    logger.addHandler(handler)
    for started in triggers:
        started._log = logger  # Airflow 3 uses a structlog logger here
    try:
        asyncio.run(main())
    finally:
        logger.removeHandler(handler)
    return warnings


def statuses(catalog: Catalog, runs: list[str]) -> list[str]:
    client = catalog.server.client()
    return [
        client.get_metadata_generation_run(domainIdentifier=catalog.domain_identifier, identifier=run)[
            "status"
        ]
        for run in runs
    ]


def start_endless_runs(catalog: Catalog, number: int) -> list[str]:
    return [catalog.start_run(in_progress_seconds=3600) for _ in range(number)]


def test_kill_by_a_user_cancels_the_run(catalog: Catalog):
    runs = start_endless_runs(catalog, 3)
    triggers = [trigger(catalog, run, cancel_on_kill=True, poll_interval=60) for run in runs]
    assert kill(*triggers) == []
    assert statuses(catalog, runs) == ["CANCELED"] * 3


@pytest.mark.parametrize(("cancel_on_kill", "by_user"), [(False, True), (True, False)])
def test_run_continues_after_a_restart_or_without_cancel_on_kill(
    catalog: Catalog, cancel_on_kill: bool, by_user: bool
):
    runs = start_endless_runs(catalog, 1)
    triggers = [trigger(catalog, run, cancel_on_kill=cancel_on_kill, poll_interval=60) for run in runs]
    assert kill(*triggers, by_user=by_user) == []
    assert catalog.server.request_counts["CancelMetadataGenerationRun"] == 0
    assert statuses(catalog, runs) == ["IN_PROGRESS"]


def test_kill_after_the_run_has_ended_logs_no_warning(catalog: Catalog):
    run = catalog.start_run(polls=0)
    assert kill(trigger(catalog, run, cancel_on_kill=True, poll_interval=60)) == []
    assert statuses(catalog, [run]) == ["SUCCEEDED"]
    assert catalog.server.request_counts["CancelMetadataGenerationRun"] == 1


def test_cancel_on_kill_retries_transient_errors(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sender, "CANCEL_RETRY_INTERVAL", 0.01)
    catalog.server.fail("CancelMetadataGenerationRun", "ThrottlingException", times=2)
    catalog.server.fail("CancelMetadataGenerationRun", "drop")
    (run,) = start_endless_runs(catalog, 1)
    warnings = kill(trigger(catalog, run, cancel_on_kill=True, poll_interval=60))
    assert len(warnings) == 3
    assert statuses(catalog, [run]) == ["CANCELED"]


def test_warning_names_the_run_that_could_not_be_canceled(catalog: Catalog):
    catalog.server.fail("CancelMetadataGenerationRun", "AccessDeniedException", message="not yours")
    (run,) = start_endless_runs(catalog, 1)
    (warning,) = kill(trigger(catalog, run, cancel_on_kill=True, poll_interval=60))
    assert run in warning
    assert "not yours" in warning


def test_run_continues_if_airflow_does_not_report_who_ended_the_task(catalog: Catalog):
    (run,) = start_endless_runs(catalog, 1)
    waiting = trigger(catalog, run, cancel_on_kill=True, poll_interval=60)
    # No supervisor is running. The tests in tests/faults run triggerers with a supervisor.
    waiting.task_instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="wait", map_index=-1)
    (warning,) = kill(waiting)
    assert warning.startswith(
        "No run is canceled, since Airflow does not report whether a user ended the task"
    )
    assert statuses(catalog, [run]) == ["IN_PROGRESS"]
