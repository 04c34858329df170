"""What a task that is killed leaves behind, in each state of a batch and of a start, at DataZone's own rates.

Tasks are in processes of their own, which get signals as from Airflow 2 and 3; whole Airflows are in
`tests/faults/test_kills.py`.
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
# What AWS publishes, by account and Region.
STARTS_PER_SECOND, CANCELS_PER_SECOND = 10, 20
# Seconds in which a task hears of a signal, and a request that it has just sent arrives, on a busy machine.
REACTION = 1.0
# Seconds in which an answer is read and taken note of.
ANSWER = 0.3
# Cancels in a second, above the rate, that arrive there though they were sent at it.
BUNCHED = 5
# Cancels that may be sent again.
A_FEW = 5
# Seconds until a task is as far as a test wants it, on a busy machine.
PATIENCE = 120
# Seconds that a triggerer gives: [triggerer] on_kill_timeout.
ON_KILL_TIMEOUT = 30
# Seconds that a slow Start takes.
SLOW = 2.0

sigterms = pytest.mark.parametrize("sigterm", [AIRFLOW_2, AIRFLOW_3], ids=["airflow_2", "airflow_3"])


def wait_until(holds: Callable[[], Any], task: KilledTask | None = None) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if task is not None and not task.is_alive:
            pytest.fail(f"The task has ended.\n{task.log}")
        if time.monotonic() > end:
            pytest.fail(f"It did not come that far.\n{task.log if task is not None else ''}")
        time.sleep(0.01)


@dataclass
class Scene:
    """Assets whose runs go on until they are canceled, and the tasks that are about them."""

    catalog: Catalog
    folder: Path
    tasks: list[KilledTask] = field(default_factory=list)

    @property
    def server(self) -> DataZoneServer:
        return self.catalog.server

    def create_assets(self, number: int) -> list[str]:
        where = {
            "domain_identifier": self.catalog.domain_identifier,
            "project_identifier": self.catalog.project_identifier,
        }
        return [self.server.create_asset(**where).asset_identifier for _ in range(number)]

    def task(self, operator: str, sigterm: Sigterm, **arguments: Any) -> KilledTask:
        known = {
            "types": TYPES,
            "domain_identifier": self.catalog.domain_identifier,
            "owning_project_identifier": self.catalog.project_identifier,
            "poll_interval": 0.2,
        }
        log = self.folder / f"{len(self.tasks)}.log"
        self.tasks.append(KilledTask(log, operator, sigterm, **known | arguments))
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

    def start_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let runs be started faster than DataZone allows, where only what comes after that matters."""
        monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_STARTS_PER_SECOND", "1000")
        self.server.limit(START, 1000)

    def received(self, operation: str) -> list[float]:
        """Return when each request for an operation was received."""
        return [r.received_at for r in self.server.requests if r.operation == operation]

    def statuses(self) -> Counter[str]:
        """Count the runs by status."""
        pages = self.server.client().get_paginator("list_metadata_generation_runs")
        listed = pages.paginate(domainIdentifier=self.catalog.domain_identifier)
        return Counter(run["status"] for page in listed for run in page["items"])

    def wait_for_starts(self, number: int, task: KilledTask) -> None:
        """Wait until a task has started so many runs, and knows them."""
        wait_until(lambda: len(self.received(START)) >= number, task)
        time.sleep(ANSWER)

    def active(self) -> int:
        """Count the runs that have not ended."""
        statuses = self.statuses()
        return statuses["SUBMITTED"] + statuses["IN_PROGRESS"]


@pytest.fixture
def scene(catalog: Catalog, tmp_path: Path) -> Iterator[Scene]:
    server = catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    server.limit(START, STARTS_PER_SECOND)
    server.limit(CANCEL, CANCELS_PER_SECOND)
    scene = Scene(catalog, tmp_path)
    yield scene
    for task in scene.tasks:
        task.close()


def highest_rate(received: list[float]) -> float:
    """Return how many requests a second came in the busiest three: a busy machine holds some back."""
    return max((sum(at <= other < at + 3 for other in received) / 3 for at in received), default=0.0)


def check_that_nothing_is_left(scene: Scene, task: KilledTask, *, in_flight: float = 0.0) -> None:
    """
    Check that nothing was started after a kill, and that nothing that was is still active.

    :param in_flight: Seconds after which all that the task has sent is carried out.
    """
    time.sleep(REACTION + in_flight)
    late = [at - task.killed_at for at in scene.received(START) if at > task.killed_at + REACTION]
    statuses = scene.statuses()
    print(f"{statuses}, gone after {task.gone_at - task.killed_at:.1f} s\n{task.log}")
    assert late == [], "seconds after SIGTERM at which runs were started"
    assert set(statuses) <= {"CANCELED"}, "nothing else is left"
    cancels = scene.received(CANCEL)
    assert highest_rate(cancels) <= CANCELS_PER_SECOND + BUNCHED


# ------------------------------------------------------------------- a batch


@sigterms
def test_batch_that_is_killed_while_it_starts_runs_starts_no_more_and_cancels_them(
    scene: Scene, sigterm: Sigterm
):
    task = scene.batch(sigterm, 50, max_concurrent_runs=50)
    scene.wait_for_starts(12, task)
    task.kill()
    check_that_nothing_is_left(scene, task)
    assert 12 <= scene.statuses()["CANCELED"] <= 12 + 2 * STARTS_PER_SECOND


@sigterms
def test_batch_that_is_killed_while_starts_are_under_way_cancels_their_runs_too(
    scene: Scene, sigterm: Sigterm
):
    scene.server.fail(START, "hang", seconds=SLOW, times=None)
    task = scene.batch(sigterm, 50, max_concurrent_runs=50)
    wait_until(lambda: scene.active() >= 2, task)
    task.kill()
    check_that_nothing_is_left(scene, task, in_flight=SLOW)


@sigterms
def test_batch_that_is_killed_at_its_highest_number_of_runs_starts_none_in_the_place_of_those(
    scene: Scene, sigterm: Sigterm
):
    """Each run that is canceled leaves room for another one."""
    task = scene.batch(sigterm, 50, max_concurrent_runs=15)
    scene.wait_for_starts(15, task)
    task.kill()
    check_that_nothing_is_left(scene, task)
    assert scene.statuses()["CANCELED"] == 15


@sigterms
def test_batch_that_is_killed_when_it_only_waits_cancels_what_it_waits_for(
    scene: Scene, sigterm: Sigterm, monkeypatch: pytest.MonkeyPatch
):
    """About as many as there is time for."""
    scene.start_soon(monkeypatch)
    task = scene.batch(sigterm, 60, max_concurrent_runs=60)
    scene.wait_for_starts(60, task)
    task.kill()
    check_that_nothing_is_left(scene, task)
    assert scene.statuses()["CANCELED"] == 60
    assert len(scene.received(CANCEL)) - 60 <= A_FEW, "sent again"


@sigterms
def test_batch_that_is_killed_in_a_retry_cancels_the_runs_that_it_resumed(scene: Scene, sigterm: Sigterm):
    first = scene.batch(sigterm, 10)
    scene.wait_for_starts(10, first)
    first.close()  # as a lost worker
    assets = [r.parameters["target"]["identifier"] for r in scene.server.requests if r.operation == START]
    task = scene.task(
        "DataZoneBatchMetadataGenerationOperator", sigterm, asset_identifiers=assets, try_number=2
    )

    def looked_for() -> set[str]:
        """Return the assets whose runs the task has asked for."""
        asked = [r.parameters for r in scene.server.requests if r.operation == LIST]
        return {parameters["targetIdentifier"] for parameters in asked if "targetIdentifier" in parameters}

    wait_until(lambda: looked_for() == set(assets), task)
    time.sleep(ANSWER)
    task.kill()
    check_that_nothing_is_left(scene, task)
    assert scene.statuses()["CANCELED"] == 10


@pytest.mark.parametrize("error", ["ResourceNotFoundException", "ThrottlingException", "drop"])
def test_cancel_that_fails_is_sent_again_while_there_is_time(scene: Scene, error: str):
    """A run that was just started may not be known yet wherever it is to be canceled."""
    task = scene.batch(AIRFLOW_3, 8)
    scene.wait_for_starts(8, task)
    scene.server.fail(CANCEL, error, times=10)
    task.kill()
    check_that_nothing_is_left(scene, task)


def test_batch_that_has_more_runs_than_can_be_canceled_cancels_most_and_says_how_many_go_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    number = 200
    scene.start_soon(monkeypatch)
    # Those of Airflow 3, for Airflow 2, which has an option for them.
    monkeypatch.setenv("AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME", str(int(AIRFLOW_3.seconds)))
    task = scene.batch(AIRFLOW_3, number, max_concurrent_runs=number, poll_interval=60)
    scene.wait_for_starts(number, task)
    task.kill()
    time.sleep(REACTION)
    canceled = scene.statuses()["CANCELED"]
    cancels = scene.received(CANCEL)
    print(f"{canceled} of {len(cancels)} cancels, {highest_rate(cancels)} a second at most\n{task.log}")
    assert canceled >= 0.8 * CANCELS_PER_SECOND * (AIRFLOW_3.seconds - REACTION)
    assert len(cancels) - canceled <= A_FEW, "refused for the rate"
    assert highest_rate(cancels) <= CANCELS_PER_SECOND + BUNCHED
    said = re.findall(r".*may continue.*", task.log)
    numbers = [int(text.replace(",", "")) for line in said for text in re.findall(r"\b\d[\d,]*\b", line)]
    # It has to say so before it is gone, and may cancel some more until then.
    left = number - canceled
    assert any(abs(told - left) <= 2 * CANCELS_PER_SECOND for told in numbers), said


@sigterms
def test_batch_that_is_not_to_cancel_starts_no_more_and_leaves_the_runs_alone(scene: Scene, sigterm: Sigterm):
    task = scene.batch(sigterm, 50, max_concurrent_runs=50, cancel_on_kill=False)
    scene.wait_for_starts(10, task)
    task.kill()
    time.sleep(REACTION)
    assert [at for at in scene.received(START) if at > task.killed_at + REACTION] == []
    assert scene.received(CANCEL) == []
    assert scene.active() >= 10


# ------------------------------------------------------------------- a start


@sigterms
def test_start_that_is_killed_before_it_is_sent_is_not_sent(scene: Scene, sigterm: Sigterm):
    """A retry looks for a run first, and that is when it is killed."""
    scene.server.fail(LIST, "hang", seconds=SLOW)
    task = scene.start(sigterm, try_number=2)
    wait_until(lambda: scene.received(LIST), task)
    task.kill()
    check_that_nothing_is_left(scene, task)
    assert scene.received(START) == []


@sigterms
@pytest.mark.parametrize("after", [False, True], ids=["not carried out yet", "carried out"])
def test_start_that_is_killed_before_its_answer_cancels_the_run(scene: Scene, sigterm: Sigterm, after: bool):
    scene.server.fail(START, "hang", seconds=SLOW, after=after)
    task = scene.start(sigterm)
    wait_until(lambda: scene.received(START), task)
    task.kill()
    check_that_nothing_is_left(scene, task, in_flight=SLOW)
    assert scene.statuses() == {"CANCELED": 1}


@sigterms
@pytest.mark.parametrize("error", [None, "ResourceNotFoundException"])
def test_start_that_is_killed_while_it_waits_cancels_the_run(
    scene: Scene, sigterm: Sigterm, error: str | None
):
    task = scene.start(sigterm)
    wait_until(lambda: len(scene.received(GET)) >= 2, task)
    if error is not None:
        scene.server.fail(CANCEL, error, times=2)
    task.kill()
    check_that_nothing_is_left(scene, task)
    assert scene.statuses() == {"CANCELED": 1}


@sigterms
def test_start_that_is_killed_in_a_retry_cancels_the_run_that_it_resumed(scene: Scene, sigterm: Sigterm):
    run = scene.catalog.start_run(*TYPES, in_progress_seconds=3600)
    task = scene.start(sigterm, try_number=2)
    wait_until(lambda: len(scene.received(GET)) >= 2, task)
    task.kill()
    check_that_nothing_is_left(scene, task)
    assert scene.server.request_counts[START] == 1
    canceled = [r.parameters["identifier"] for r in scene.server.requests if r.operation == CANCEL]
    assert set(canceled) == {run}


# ------------------------------------------------------------ in a triggerer


def deferred_batch(scene: Scene, rows: list[AssetRow]) -> DataZoneBatchMetadataGenerationTrigger:
    return DataZoneBatchMetadataGenerationTrigger(
        rows=pack(rows),
        noted_at=time.time(),
        types=TYPES,
        domain_identifier=scene.catalog.domain_identifier,
        identity="the task",
        began_at=time.time(),
        max_concurrent_runs=100,
        poll_interval=0.2,
        aws_conn_id="datazone_default",
        cancel_on_kill=True,
    )


def kill_deferred(scene: Scene, trigger: BaseTrigger, is_due: Callable[[], Any], in_flight: float) -> float:
    """
    Run a trigger and kill it as Airflow 3.3 does, until no run is active; return when that began.

    `TriggerRunner.run_trigger` calls `on_kill` when its task is cancelled, and gives it 30 seconds. But it is
    cancelled again about every second, as long as it is there (`cancelling_triggers`), and so is `on_kill`.

    :param is_due: When to kill it.
    :param in_flight: Seconds after which all that was sent is carried out.
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
        return task.done() and await asyncio.to_thread(scene.active) == 0

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
        # A triggerer lives on.
        await asyncio.sleep(in_flight + REACTION)

    asyncio.run(asyncio.wait_for(main(), timeout=2 * PATIENCE))
    return killed_at


def test_deferred_batch_that_is_killed_sends_none_of_the_starts_that_wait_and_cancels_all_runs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    """Starts of three seconds are slower than the rate at which they are sent: most wait for a thread."""
    scene.start_soon(monkeypatch)
    slow = 3.0
    scene.server.fail(START, "hang", seconds=slow, times=None)
    project = scene.catalog.project_identifier
    trigger = deferred_batch(scene, [AssetRow(asset, None, project) for asset in scene.create_assets(100)])
    killed_at = kill_deferred(scene, trigger, lambda: len(scene.received(START)) >= 12, in_flight=slow)
    # On a busy machine, what is sent at the kill takes a while. What waited would take nine seconds more.
    late = [at - killed_at for at in scene.received(START) if at > killed_at + slow]
    assert late == [], "seconds after the kill at which runs were started"
    assert set(scene.statuses()) == {"CANCELED"}
    assert highest_rate(scene.received(CANCEL)) <= CANCELS_PER_SECOND + BUNCHED


def test_deferred_batch_that_is_killed_before_it_has_begun_cancels_the_runs_of_its_rows(scene: Scene):
    """A triggerer may have taken it over, or resumed it after a checkpoint, just then."""
    project = scene.catalog.project_identifier
    run = scene.catalog.start_run(*TYPES, in_progress_seconds=3600)
    rows = [
        AssetRow(scene.catalog.asset_identifier, None, project, run_identifier=run),
        AssetRow("ended", None, project, run_identifier="run", status="SUCCEEDED"),
        AssetRow("not-started", None, project),
    ]
    asyncio.run(asyncio.wait_for(deferred_batch(scene, rows).on_kill(), timeout=PATIENCE))
    assert scene.statuses() == {"CANCELED": 1}
    assert scene.server.request_counts[CANCEL] == 1


def test_deferred_start_that_is_killed_cancels_its_run_although_that_takes_a_while(scene: Scene):
    run = scene.catalog.start_run(*TYPES, in_progress_seconds=3600)
    trigger = DataZoneMetadataGenerationRunTrigger(
        run,
        scene.catalog.domain_identifier,
        poll_interval=0.2,
        aws_conn_id="datazone_default",
        cancel_on_kill=True,
    )
    scene.server.fail(CANCEL, "ResourceNotFoundException", times=2)
    kill_deferred(scene, trigger, lambda: scene.received(GET), in_flight=0)
    assert scene.statuses() == {"CANCELED": 1}
