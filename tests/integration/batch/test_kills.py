"""Killing a batch and batch timeouts, in a worker and in a triggerer."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_provider_datazone import task_outcome
from airflow_provider_datazone.batch.assets import pack, unpack
from airflow_provider_datazone.operators.batch_execution import BatchExecution
from airflow_provider_datazone.triggers.datazone import DataZoneBatchMetadataGenerationTrigger
from airflow_provider_datazone.version_compat import TaskKilled
from tests.conftest import LoopClock, once
from tests.dags.batch_outcomes import (
    TYPES,
)
from tests.integration.batch.tasks import (
    Assets,
    all_runs_are_active,
    event_at_checkpoint,
    event_of,
    list_runs,
    make_memory,
    rows_of,
)
from tests.task_context import Store, make_context

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

from tests.integration.triggers.waits import run_until_canceled

pytestmark = pytest.mark.usefixtures("unhurried")


# --------------------------------------------------------------------- kills


def kill(
    trigger: DataZoneBatchMetadataGenerationTrigger, server: DataZoneServer, *, by_user: bool = True
) -> None:
    """Cancel a trigger while its batch is running."""

    async def main() -> None:
        task = asyncio.ensure_future(run_until_canceled(trigger, by_user=by_user))
        while not server.request_counts["StartMetadataGenerationRun"]:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait_for(asyncio.wait({task}), timeout=60)
        assert task.cancelled()

    asyncio.run(main())


def test_kill_by_a_user_cancels_all_started_runs(assets: Assets):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    # The first run has already ended. Some of the others are being started at the time of the kill.
    rows = assets.rows()
    rows[0].run_identifier, rows[0].status = "run", "SUCCEEDED"
    kill(assets.trigger(rows=pack(rows), cancel_on_kill=True), server)
    statuses = list(itertools.chain(*assets.statuses()))
    assert statuses
    assert set(statuses) == {"CANCELED"}
    assert server.request_counts["CancelMetadataGenerationRun"] == len(statuses)


@pytest.mark.parametrize(("cancel_on_kill", "by_user"), [(False, True), (True, False)])
def test_triggerer_restart_or_cancel_on_kill_false_does_not_cancel_runs(
    assets: Assets, cancel_on_kill: bool, by_user: bool
):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    kill(assets.trigger(cancel_on_kill=cancel_on_kill), server, by_user=by_user)
    assert server.request_counts["CancelMetadataGenerationRun"] == 0


def test_failed_cancellation_is_logged(assets: Assets):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    server.fail("CancelMetadataGenerationRun", "AccessDeniedException", message="not yours", times=None)
    logged: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tests.batch.kill")
    logger.addHandler(handler)
    trigger = assets.trigger(cancel_on_kill=True)
    trigger._log = logger  # Airflow 3 uses a logger class of its own.
    try:
        kill(trigger, server)
    finally:
        logger.removeHandler(handler)
    assert "not yours" in logged[-1]


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_killed_worker_cancels_active_runs_if_cancel_on_kill_is_set(assets: Assets, cancel_on_kill: bool):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    task = assets.operator(cancel_on_kill=cancel_on_kill)
    statuses: list[list[list[str]]] = []

    def kill() -> None:
        task.on_kill()
        statuses.append(assets.statuses())

    thread = once(lambda: all_runs_are_active(rows_of(task)), kill)
    context = make_context()
    with pytest.raises(TaskKilled):
        task.execute(context)
    thread.join(30)
    assert statuses == [[["CANCELED" if cancel_on_kill else "IN_PROGRESS"]] * 6]
    assert [[row["run"]] for row in context["ti"].xcoms["results"]] == list_runs(assets)


# -------------------------------------------------- kills before and between phases, and timeouts


def test_trigger_killed_before_it_runs_cancels_the_runs_in_its_rows(assets: Assets):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    rows = assets.rows()
    for row in rows[:4]:
        row.run_identifier = assets.catalog.server.client().start_metadata_generation_run(
            domainIdentifier=assets.catalog.domain_identifier,
            owningProjectIdentifier=row.owning_project_identifier,
            target={"type": "ASSET", "identifier": row.asset_identifier},
            types=TYPES,
        )["id"]
    # A cancel of this run would be refused, since DataZone does not know it.
    rows[4].run_identifier, rows[4].status = "ended", "SUCCEEDED"
    trigger = assets.trigger(rows=pack(rows), cancel_on_kill=True)
    asyncio.run(trigger.on_kill())
    assert assets.statuses() == [["CANCELED"]] * 4 + [[]] * 2
    assert server.request_counts["CancelMetadataGenerationRun"] == 4
    event = event_of(trigger)
    assert event["status"] == "checkpoint", "a killed trigger starts no runs"
    assert assets.statuses() == [["CANCELED"]] * 4 + [[]] * 2


def test_worker_killed_before_the_batch_starts_cancels_the_stored_runs(
    assets: Assets, monkeypatch: pytest.MonkeyPatch
):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    store = Store()
    stored = assets.rows()
    for row in stored:
        row.run_identifier = server.client().start_metadata_generation_run(
            domainIdentifier=assets.catalog.domain_identifier,
            owningProjectIdentifier=row.owning_project_identifier,
            target={"type": "ASSET", "identifier": row.asset_identifier},
            types=TYPES,
        )["id"]
    make_memory(assets, make_context(store)).save(stored)
    task = assets.operator()

    run = BatchExecution._run
    monkeypatch.setattr(BatchExecution, "_run", lambda *arguments: (task.on_kill(), run(*arguments))[1])
    with pytest.raises(TaskKilled):
        task.execute(make_context(store, try_number=2))
    assert assets.statuses() == [["CANCELED"]] * 6


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_worker_does_not_defer(assets: Assets, when: str):
    task = assets.operator(deferrable=True)
    if when == "before":
        task.on_kill()
        with pytest.raises(TaskKilled):
            task.execute(make_context())
    else:
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(make_context())
        deferred.value.trigger.checkpoint_interval = 0.0
        event = event_of(deferred.value.trigger)
        task.on_kill()
        with pytest.raises(TaskKilled):
            task.resume_execution("execute_complete", {"event": event}, make_context())


def test_connection_lookup_timeout_is_not_reported_as_a_task_timeout(
    assets: Assets, monkeypatch: pytest.MonkeyPatch
):
    def lookup(self: Any, conn_id: str) -> Any:
        raise TimeoutError("the secrets backend did not answer")

    monkeypatch.setattr("airflow_provider_datazone.hooks.datazone.DataZoneHook.get_connection", lookup)
    task = assets.operator(execution_timeout=timedelta(hours=1))
    with pytest.raises(TimeoutError, match="the secrets backend did not answer") as raised:
        task.execute(make_context())
    assert not isinstance(raised.value, AirflowTaskTimeout)


def test_deferred_batch_keeps_its_domain_when_the_connection_changes(
    assets: Assets, loop_clock: LoopClock, monkeypatch: pytest.MonkeyPatch
):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)

    def set_connection_domain(domain: str) -> None:
        connection = json.loads(server.connection)
        connection["extra"]["domain_identifier"] = domain
        monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))

    set_connection_domain(assets.catalog.domain_identifier)
    context = make_context(Store())
    with pytest.raises(TaskDeferred) as deferred:
        assets.operator(deferrable=True, domain_identifier=None).execute(context)
    event = event_at_checkpoint(deferred.value.trigger, loop_clock)
    set_connection_domain("dzd_another")
    with pytest.raises(TaskDeferred) as deferred_again:
        assets.operator(deferrable=True, domain_identifier=None).resume_execution(
            "execute_complete", {"event": event}, context
        )
    before, after = deferred.value.trigger, deferred_again.value.trigger
    assert after.domain_identifier == assets.catalog.domain_identifier
    assert (after.identity, after.types) == (before.identity, before.types)
    # Events stored by version 0.1 contain neither the domain nor the types.
    old_event = {key: value for key, value in event.items() if key not in ("domain_identifier", "types")}
    with pytest.raises(TaskDeferred) as from_old_event:
        assets.operator(deferrable=True).resume_execution("execute_complete", {"event": old_event}, context)
    assert from_old_event.value.trigger.domain_identifier == assets.catalog.domain_identifier


def test_unfinished_batch_is_reported_as_a_checkpoint(assets: Assets):
    """One start is rejected and another one hangs until the checkpoint: the rows show the unfinished work."""
    server = assets.catalog.server
    server.fail(
        "StartMetadataGenerationRun",
        "UnrecognizedClientException",
        asset_identifier=assets.identifiers[0],
    )
    server.fail("StartMetadataGenerationRun", "hang", seconds=1.5, asset_identifier=assets.identifiers[1])
    event = event_of(assets.trigger(checkpoint_interval=0.5, max_concurrent_runs=2))
    rows = unpack(event["rows"])
    assert any(not row.has_ended for row in rows)
    assert event["status"] == "checkpoint"


def test_deferred_batch_timeout_does_not_cancel_runs(assets: Assets, loop_clock: LoopClock):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    task = assets.operator(deferrable=True, execution_timeout=timedelta(hours=1))
    context = make_context(Store())
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    event = event_at_checkpoint(deferred.value.trigger, loop_clock)
    event |= {"status": "timeout", "message": "time is up"}
    with pytest.raises(AirflowTaskTimeout):
        task.resume_execution("execute_complete", {"event": event}, context)
    # Airflow calls on_kill after a timeout.
    task.on_kill()
    assert assets.statuses() == [["IN_PROGRESS"]] * 6


def test_time_out_before_the_batch_resumes_pushes_no_results(assets: Assets, monkeypatch: pytest.MonkeyPatch):
    """Airflow 2.11 applies execution_timeout to a deferred task before it resumes, and calls only `on_kill`."""
    context = make_context()
    # Airflow sets it; there is no Airflow in this test.
    monkeypatch.setattr(task_outcome, "get_current_context", lambda: context)
    task = assets.operator(deferrable=True)
    try:
        raise AirflowTaskTimeout
    except AirflowTaskTimeout:
        task.on_kill()
    assert context["ti"].xcoms == {"results": []}


def test_batch_killed_while_it_defers_cancels_its_runs(
    assets: Assets, loop_clock: LoopClock, monkeypatch: pytest.MonkeyPatch
):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    context = make_context(Store())
    with pytest.raises(TaskDeferred) as deferred:
        assets.operator(deferrable=True).execute(context)
    event = event_at_checkpoint(deferred.value.trigger, loop_clock)
    task = assets.operator(deferrable=True)
    defer = task.defer

    def kill_and_defer(**arguments: Any) -> None:
        task.on_kill()
        defer(**arguments)

    monkeypatch.setattr(task, "defer", kill_and_defer)
    with pytest.raises(TaskKilled):
        task.resume_execution("execute_complete", {"event": event}, context)
    assert assets.statuses() == [["CANCELED"]] * 6
