"""Kill batch tasks in each of their states, and a start task, at the request rates that DataZone allows.

Each task runs in a separate process that receives the signals that Airflow 2 or 3 sends. Tests with complete Airflow
deployments are in `tests/faults/test_kills.py`; more tests of start tasks are in `test_start_kill.py`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_datazone.batch.assets import AssetRow, pack
from airflow_provider_datazone.triggers.datazone import (
    DataZoneBatchMetadataGenerationTrigger,
    DataZoneMetadataGenerationRunTrigger,
)
from tests.integration.kills.killed_task import AIRFLOW_2, AIRFLOW_3, KilledTask, Sigterm

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

START, CANCEL = "StartMetadataGenerationRun", "CancelMetadataGenerationRun"
GET, LIST = "GetMetadataGenerationRun", "ListMetadataGenerationRuns"
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
# Quotas that AWS publishes, per account and Region.
STARTS_PER_SECOND, CANCELS_PER_SECOND = 10, 20
# Seconds in which a task receives a signal and a request in flight arrives, on a busy machine.
REACTION_SECONDS = 1.0
# Seconds in which a task reads and processes a response.
RESPONSE_SECONDS = 0.3
# Cancels per second above the rate that may arrive although they are sent at the rate.
BURST_TOLERANCE = 5
# Cancels that may be sent more than once.
MAX_REPEATED_CANCELS = 5
# Seconds until a task reaches the state that a test waits for, on a busy machine.
TIMEOUT = 120
# Seconds that a triggerer gives on_kill: [triggerer] on_kill_timeout.
ON_KILL_TIMEOUT = 30
# Seconds that a slow start request takes.
SLOW_START_SECONDS = 2.0

sigterms = pytest.mark.parametrize("sigterm", [AIRFLOW_2, AIRFLOW_3], ids=["airflow_2", "airflow_3"])


def wait_until(condition: Callable[[], Any], task: KilledTask | None = None) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        if task is not None and not task.is_alive:
            pytest.fail(f"The task has ended.\n{task.log}")
        if time.monotonic() > end:
            pytest.fail(f"The task did not reach the expected state.\n{task.log if task is not None else ''}")
        time.sleep(0.01)


@dataclass
class KillScenario:
    """Assets whose runs stay active until they are canceled, and the tasks that process them."""

    catalog: Catalog
    folder: Path
    tasks: list[KilledTask] = field(default_factory=list)

    @property
    def server(self) -> DataZoneServer:
        return self.catalog.server

    def create_assets(self, number: int) -> list[str]:
        location = {
            "domain_identifier": self.catalog.domain_identifier,
            "project_identifier": self.catalog.project_identifier,
        }
        return [self.server.create_asset(**location).asset_identifier for _ in range(number)]

    def task(self, operator: str, sigterm: Sigterm, **arguments: Any) -> KilledTask:
        defaults = {
            "types": TYPES,
            "domain_identifier": self.catalog.domain_identifier,
            "owning_project_identifier": self.catalog.project_identifier,
            "poll_interval": 0.2,
        }
        log = self.folder / f"{len(self.tasks)}.log"
        self.tasks.append(KilledTask(log, operator, sigterm, **defaults | arguments))
        return self.tasks[-1]

    def batch(self, sigterm: Sigterm, assets: int, **arguments: Any) -> KilledTask:
        return self.task(
            "DataZoneBatchMetadataGenerationOperator",
            sigterm,
            asset_identifiers=self.create_assets(assets),
            **arguments,
        )

    def start(self, sigterm: Sigterm, **arguments: Any) -> KilledTask:
        return self.task(
            "DataZoneStartMetadataGenerationRunOperator",
            sigterm,
            asset_identifier=self.catalog.asset_identifier,
            **arguments,
        )

    def raise_start_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Allow a higher start rate than DataZone, for tests of what follows the starts."""
        monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_STARTS_PER_SECOND", "1000")
        self.server.limit(START, 1000)

    def received(self, operation: str) -> list[float]:
        """Return the time of each request for an operation."""
        return [r.received_at for r in self.server.requests if r.operation == operation]

    def statuses(self) -> Counter[str]:
        """Count the runs by status."""
        pages = self.server.client().get_paginator("list_metadata_generation_runs")
        listed = pages.paginate(domainIdentifier=self.catalog.domain_identifier)
        return Counter(run["status"] for page in listed for run in page["items"])

    def wait_for_starts(self, number: int, task: KilledTask) -> None:
        """Wait until a task has started a number of runs and has processed the responses."""
        wait_until(lambda: len(self.received(START)) >= number, task)
        time.sleep(RESPONSE_SECONDS)

    def active(self) -> int:
        """Count the active runs."""
        statuses = self.statuses()
        return statuses["SUBMITTED"] + statuses["IN_PROGRESS"]


@pytest.fixture
def scenario(catalog: Catalog, tmp_path: Path) -> Iterator[KillScenario]:
    server = catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    server.limit(START, STARTS_PER_SECOND)
    server.limit(CANCEL, CANCELS_PER_SECOND)
    scenario = KillScenario(catalog, tmp_path)
    yield scenario
    for task in scenario.tasks:
        task.close()


def highest_rate(received: list[float]) -> float:
    """Return the highest request rate over three seconds. A busy machine delays some requests, so one is too short."""
    return max((sum(at <= other < at + 3 for other in received) / 3 for at in received), default=0.0)


def check_all_runs_are_canceled(scenario: KillScenario, task: KilledTask, *, in_flight: float = 0.0) -> None:
    """
    Check that no run was started after a kill, and that all runs are canceled.

    :param in_flight: Seconds until all requests that the task has sent are processed.
    """
    time.sleep(REACTION_SECONDS + in_flight)
    late = [at - task.killed_at for at in scenario.received(START) if at > task.killed_at + REACTION_SECONDS]
    statuses = scenario.statuses()
    print(f"{statuses}, ended after {task.ended_at - task.killed_at:.1f} s\n{task.log}")
    assert late == [], "runs were started this many seconds after SIGTERM"
    assert set(statuses) <= {"CANCELED"}, "all runs are canceled"
    cancels = scenario.received(CANCEL)
    assert highest_rate(cancels) <= CANCELS_PER_SECOND + BURST_TOLERANCE


# ------------------------------------------------------------------- batches


@sigterms
def test_batch_killed_while_starting_runs_stops_and_cancels_them(scenario: KillScenario, sigterm: Sigterm):
    task = scenario.batch(sigterm, 50, max_concurrent_runs=50)
    scenario.wait_for_starts(12, task)
    task.kill()
    check_all_runs_are_canceled(scenario, task)
    assert 12 <= scenario.statuses()["CANCELED"] <= 12 + 2 * STARTS_PER_SECOND


@sigterms
def test_killed_batch_cancels_runs_of_starts_in_flight(scenario: KillScenario, sigterm: Sigterm):
    scenario.server.fail(START, "hang", seconds=SLOW_START_SECONDS, times=None)
    task = scenario.batch(sigterm, 50, max_concurrent_runs=50)
    wait_until(lambda: scenario.active() >= 2, task)
    task.kill()
    check_all_runs_are_canceled(scenario, task, in_flight=SLOW_START_SECONDS)


def test_batch_killed_at_its_concurrency_limit_starts_no_further_runs(scenario: KillScenario):
    """Canceling a run frees a slot for another one."""
    task = scenario.batch(AIRFLOW_3, 50, max_concurrent_runs=15)
    scenario.wait_for_starts(15, task)
    task.kill()
    check_all_runs_are_canceled(scenario, task)
    assert scenario.statuses()["CANCELED"] == 15


@sigterms
def test_batch_killed_while_waiting_cancels_its_runs(
    scenario: KillScenario, sigterm: Sigterm, monkeypatch: pytest.MonkeyPatch
):
    """The number of runs is close to what can be canceled in time."""
    scenario.raise_start_limit(monkeypatch)
    task = scenario.batch(sigterm, 60, max_concurrent_runs=60)
    scenario.wait_for_starts(60, task)
    task.kill()
    check_all_runs_are_canceled(scenario, task)
    assert scenario.statuses()["CANCELED"] == 60
    assert len(scenario.received(CANCEL)) - 60 <= MAX_REPEATED_CANCELS, "cancels sent more than once"


@sigterms
def test_batch_killed_in_a_retry_cancels_the_runs_it_resumed(scenario: KillScenario, sigterm: Sigterm):
    first = scenario.batch(sigterm, 10)
    scenario.wait_for_starts(10, first)
    first.close()  # The worker is lost.
    assets = [r.parameters["target"]["identifier"] for r in scenario.server.requests if r.operation == START]
    task = scenario.task(
        "DataZoneBatchMetadataGenerationOperator", sigterm, asset_identifiers=assets, try_number=2
    )

    def listed_assets() -> set[str]:
        """Return the assets whose runs the task has listed."""
        requests = [r.parameters for r in scenario.server.requests if r.operation == LIST]
        return {parameters["targetIdentifier"] for parameters in requests if "targetIdentifier" in parameters}

    wait_until(lambda: listed_assets() == set(assets), task)
    time.sleep(RESPONSE_SECONDS)
    task.kill()
    check_all_runs_are_canceled(scenario, task)
    assert scenario.statuses()["CANCELED"] == 10


def test_failed_cancel_is_retried_until_the_deadline(scenario: KillScenario):
    """DataZone is eventually consistent: a cancel may not find a run that was just started."""
    task = scenario.batch(AIRFLOW_3, 8)
    scenario.wait_for_starts(8, task)
    scenario.server.fail(CANCEL, "ResourceNotFoundException", times=10)
    task.kill()
    check_all_runs_are_canceled(scenario, task)


def test_killed_batch_with_too_many_runs_cancels_most_and_logs_how_many_remain(
    scenario: KillScenario, monkeypatch: pytest.MonkeyPatch
):
    number = 200
    scenario.raise_start_limit(monkeypatch)
    # Give Airflow 2 the same time as Airflow 3. It has an option for it.
    monkeypatch.setenv("AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME", str(int(AIRFLOW_3.seconds)))
    task = scenario.batch(AIRFLOW_3, number, max_concurrent_runs=number, poll_interval=60)
    scenario.wait_for_starts(number, task)
    task.kill()
    time.sleep(REACTION_SECONDS)
    canceled = scenario.statuses()["CANCELED"]
    cancels = scenario.received(CANCEL)
    print(f"{canceled} of {len(cancels)} cancels, at most {highest_rate(cancels)} per second\n{task.log}")
    assert canceled >= 0.8 * CANCELS_PER_SECOND * (AIRFLOW_3.seconds - REACTION_SECONDS)
    assert len(cancels) - canceled <= MAX_REPEATED_CANCELS, "cancels rejected by the rate limit"
    assert highest_rate(cancels) <= CANCELS_PER_SECOND + BURST_TOLERANCE
    messages = re.findall(r".*may continue.*", task.log)
    numbers = [int(text.replace(",", "")) for line in messages for text in re.findall(r"\b\d[\d,]*\b", line)]
    # The task logs the number before it ends, and may cancel more runs afterwards.
    active = number - canceled
    assert any(abs(reported - active) <= 2 * CANCELS_PER_SECOND for reported in numbers), messages


def test_killed_batch_without_cancel_on_kill_stops_and_does_not_cancel_runs(scenario: KillScenario):
    task = scenario.batch(AIRFLOW_3, 50, max_concurrent_runs=50, cancel_on_kill=False)
    scenario.wait_for_starts(10, task)
    task.kill()
    time.sleep(REACTION_SECONDS)
    assert [at for at in scenario.received(START) if at > task.killed_at + REACTION_SECONDS] == []
    assert scenario.received(CANCEL) == []
    assert scenario.active() >= 10


# -------------------------------------------------------------------- starts


@sigterms
def test_start_killed_before_datazone_processes_it_cancels_the_run(scenario: KillScenario, sigterm: Sigterm):
    scenario.server.fail(START, "hang", seconds=SLOW_START_SECONDS)
    task = scenario.start(sigterm)
    wait_until(lambda: scenario.received(START), task)
    task.kill()
    check_all_runs_are_canceled(scenario, task, in_flight=SLOW_START_SECONDS)
    assert scenario.statuses() == {"CANCELED": 1}


# --------------------------------------------------------------- triggerers


def make_batch_trigger(
    scenario: KillScenario, rows: list[AssetRow]
) -> DataZoneBatchMetadataGenerationTrigger:
    return DataZoneBatchMetadataGenerationTrigger(
        rows=pack(rows),
        noted_at=time.time(),
        types=TYPES,
        domain_identifier=scenario.catalog.domain_identifier,
        identity="the task",
        began_at=time.time(),
        max_concurrent_runs=100,
        poll_interval=0.2,
        aws_conn_id="datazone_default",
        cancel_on_kill=True,
    )


def kill_trigger(
    scenario: KillScenario, trigger: BaseTrigger, is_due: Callable[[], Any], in_flight: float
) -> float:
    """
    Run a trigger and kill it like Airflow 3.3 until no run is active. Return the time of the kill.

    `TriggerRunner.run_trigger` calls `on_kill` when its task is canceled, and allows it 30 seconds. However, the
    triggerer cancels the task again about every second until it ends (`cancelling_triggers`), and cancels `on_kill`
    with it.

    :param is_due: Returns whether to kill the trigger now.
    :param in_flight: Seconds until all requests that were sent are processed.
    """
    killed_at = 0.0

    async def run_trigger() -> None:
        try:
            async for _ in trigger.run():
                pass
        except asyncio.CancelledError:
            with suppress(asyncio.CancelledError):
                await asyncio.wait_for(trigger.on_kill(), timeout=30)
            raise

    async def is_over(task: asyncio.Task[None]) -> bool:
        return task.done() and await asyncio.to_thread(scenario.active) == 0

    async def main() -> None:
        nonlocal killed_at
        task = asyncio.ensure_future(run_trigger())
        while not is_due():
            assert not task.done()
            await asyncio.sleep(0.05)
        killed_at = time.monotonic()
        while not await is_over(task) and time.monotonic() < killed_at + ON_KILL_TIMEOUT:
            task.cancel()
            await asyncio.sleep(1)
        # The triggerer process keeps running after the trigger ends. Runs in flight are canceled when they arrive.
        await asyncio.sleep(in_flight + REACTION_SECONDS)
        while await asyncio.to_thread(scenario.active):
            await asyncio.sleep(0.5)

    asyncio.run(asyncio.wait_for(main(), timeout=2 * TIMEOUT))
    return killed_at


def test_killed_batch_trigger_drops_queued_starts_and_cancels_all_runs(
    scenario: KillScenario, monkeypatch: pytest.MonkeyPatch
):
    """A start takes three seconds, so starts queue up faster than threads process them."""
    scenario.raise_start_limit(monkeypatch)
    slow = 3.0
    scenario.server.fail(START, "hang", seconds=slow, times=None)
    project = scenario.catalog.project_identifier
    trigger = make_batch_trigger(
        scenario, [AssetRow(asset, None, project) for asset in scenario.create_assets(100)]
    )
    killed_at = kill_trigger(scenario, trigger, lambda: len(scenario.received(START)) >= 12, in_flight=slow)
    # On a busy machine, requests in flight at the kill take a while. Queued starts would take nine seconds more.
    late = [at - killed_at for at in scenario.received(START) if at > killed_at + slow]
    assert late == [], "runs were started this many seconds after the kill"
    assert set(scenario.statuses()) == {"CANCELED"}
    assert highest_rate(scenario.received(CANCEL)) <= CANCELS_PER_SECOND + BURST_TOLERANCE


def test_killed_run_trigger_retries_the_cancel_until_it_succeeds(scenario: KillScenario):
    run = scenario.catalog.start_run(*TYPES, in_progress_seconds=3600)
    trigger = DataZoneMetadataGenerationRunTrigger(
        run,
        scenario.catalog.domain_identifier,
        poll_interval=0.2,
        aws_conn_id="datazone_default",
        cancel_on_kill=True,
    )
    scenario.server.fail(CANCEL, "ResourceNotFoundException", times=2)
    kill_trigger(scenario, trigger, lambda: scenario.received(GET), in_flight=0)
    assert scenario.statuses() == {"CANCELED": 1}
