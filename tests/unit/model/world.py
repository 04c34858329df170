"""All tasks and the service, the steps that change them, and the checks after each step."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.polling import jobs
from airflow_provider_datazone.polling.errors import DeadlinePassedError
from airflow_provider_datazone.polling.rate import POLL_THREADS
from airflow_provider_datazone.polling.source import HookParameters
from airflow_provider_datazone.service_errors import is_rejected_credentials
from tests.unit.model.service import (
    LOG,
    LONGEST_HANG,
    RATES,
    RECOVERY,
    SIMULATION_TIMEOUT,
    Account,
    Domain,
    Fault,
)
from tests.unit.model.tasks import BatchTask, Connections, WaitTask
from tests.unit.simulated_batch import (
    EPOCH,
    AssetRun,
    run_in,
    settle,
)
from tests.unit.simulation import now


@dataclass
class Plan:
    """Settings that stay the same during all steps."""

    seed: int
    latency: float
    lookup_seconds: float
    # Seconds to build a client.
    build_seconds: float
    lasts: float
    fails: frozenset[int]
    listed_after: float
    list_staleness: float


class World:
    """The state of the simulation, its steps and its checks."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.account = Account(Random(plan.seed), plan.latency)
        endings = {
            f"asset{batch}-{n}": ["FAILED", "SUCCEEDED"]
            for batch, n in itertools.product(range(MAX_BATCHES), plan.fails)
        }
        self.domains = {}
        for name in ("dzd_1", "dzd_2"):
            self.domains[name] = Domain(
                self.account,
                name,
                lasts=plan.lasts,
                endings=endings,
                listed_after=plan.listed_after,
                list_staleness=plan.list_staleness,
            )
        self.airflow = Connections(self.account, self.domains, plan.lookup_seconds, plan.build_seconds)
        self.batches: list[BatchTask] = []
        self.waits: list[WaitTask] = []
        self.cancels: list[tuple[AssetRun, str, float, asyncio.Task[MetadataGenerationRun]]] = []
        self.others: set[asyncio.Task[None]] = set()
        self.timers: list[asyncio.TimerHandle] = []
        self.last_fault = -math.inf
        self.strangers = 0

    # -------------------------------------------------------------------- steps

    async def run_steps(self, steps: list[tuple[float, tuple[Any, ...]]]) -> None:
        for after, (name, *arguments) in steps:
            await asyncio.sleep(after)
            step = getattr(self, name)(*arguments)
            if asyncio.iscoroutine(step):
                await step
            self.check()
        await self.finish()

    def parameters(self, connection: int) -> HookParameters:
        return HookParameters(f"connection{connection}", None, None, None)

    def batch(
        self,
        domain: int,
        connection: int,
        assets: int,
        limit: int,
        poll_interval: float,
        saves_progress: bool,
        accept_threshold: float | None = None,
        publish: bool = False,
    ) -> None:
        if len(self.batches) == MAX_BATCHES:
            return
        name = f"dzd_{domain}"
        batch = BatchTask(
            len(self.batches), self.domains[name], name, self.parameters(connection), assets, limit,
            poll_interval, saves_progress,
            Steps(False, accept_threshold, publish and accept_threshold is not None),
        )  # fmt: skip
        self.batches.append(batch)
        batch.retry()

    def pick_run(self, pick: int) -> tuple[AssetRun, str]:
        """Return an existing run, or begin one for another client."""
        existing = [(run, name) for name, domain in self.domains.items() for run in domain.runs]
        if pick % 3 and existing:
            return existing[pick % len(existing)]  # type: ignore[return-value]
        self.strangers += 1
        name = "dzd_1" if pick % 2 else "dzd_2"
        return self.domains[name].begin(f"stranger{self.strangers}"), name

    def other_task(self, pick: int) -> None:
        """Begin a run of another task for an asset of a current or later batch."""
        number = pick % MAX_BATCHES
        domain = self.batches[number].domain if number < len(self.batches) else self.domains["dzd_1"]
        domain.begin(f"asset{number}-{pick % 10}", end_status="SUCCEEDED")

    def wait(self, pick: int, connection: int, poll_interval: float, timeout: float | None) -> None:
        run, name = self.pick_run(pick)
        deadline = None if timeout is None else now() + timeout
        wait = WaitTask(run, name, self.parameters(connection), poll_interval, deadline, now())
        self.waits.append(wait)
        wait.begin()

    def waits_for(self, number: int, connection: int, poll_interval: float) -> None:
        for n in range(number):
            self.wait(3 * n, connection, poll_interval, None)

    def cancel(self, pick: int, connection: int) -> None:
        run, name = self.pick_run(pick)
        parameters = self.parameters(connection)
        task = asyncio.ensure_future(jobs.cancel_run(parameters, run.id, domain_identifier=name, log=LOG))
        self.cancels.append((run, parameters.aws_conn_id or "", now(), task))

    def cancels_of(self, number: int, connection: int) -> None:
        for n in range(number):
            self.cancel(3 * n, connection)

    def cancels_in_turn(self, number: int, connection: int) -> None:
        """Cancel runs one after another, so the poller may end in between."""
        runs = [self.pick_run(3 * n) for n in range(number)]

        async def cancel_each() -> None:
            for run, name in runs:
                began = now()
                task = asyncio.ensure_future(
                    jobs.cancel_run(self.parameters(connection), run.id, domain_identifier=name, log=LOG)
                )
                self.cancels.append((run, f"connection{connection}", began, task))
                await asyncio.wait({task})

        self.others.add(asyncio.ensure_future(cancel_each()))

    def person(self, pick: int, status: str) -> None:
        """Cancel a run as a user, or let it fail."""
        active = [run for domain in self.domains.values() for run in domain.active(now())]
        if active:
            run = active[pick % len(active)]
            run.ends, run.end_status = now(), status

    def trouble(self, what: str, kinds: str, seconds: float, share: float) -> None:
        self.account.active_faults.append(Fault(what, kinds, now() + seconds, share))
        self.last_fault = max(self.last_fault, now() + seconds)

    def reject(self, connection: int, same_fingerprint: bool) -> None:
        self.airflow.reject(f"connection{connection}", same_fingerprint)

    def forget(self) -> None:
        for domain in self.domains.values():
            domain.forget_tokens()

    def pick_batch(self, pick: int) -> BatchTask | None:
        running = [batch for batch in self.batches if batch.current is not None and not batch.is_busy]
        return running[pick % len(running)] if running else None

    def checkpoint(self, pick: int) -> None:
        if batch := self.pick_batch(pick):
            self.do(batch, batch.checkpoint())

    def end_by_user(self, pick: int, all_at_once: bool) -> None:
        if batch := self.pick_batch(pick):
            self.do(batch, batch.end_by_user(all_at_once=all_at_once))

    def do(self, batch: BatchTask, work: Coroutine[Any, Any, None]) -> None:
        async def busy() -> None:
            batch.is_busy = True
            try:
                await work
            finally:
                batch.is_busy = False

        batch.is_busy = True
        self.others.add(asyncio.ensure_future(busy()))

    def kill(self, pick: int, gap: float, same_try: bool) -> None:
        """Kill the process of one batch; another process takes over."""
        if batch := self.pick_batch(pick):
            batch.kill()
            self.later(gap, batch.resume if same_try else batch.retry, batch)

    def retry(self, pick: int) -> None:
        """Retry a batch that failed or was ended, as when a user clears the task."""
        down = [b for b in self.batches if b.current is None and not b.is_busy and not b.is_finished]
        if down:
            down[pick % len(down)].retry()

    def later(self, gap: float, begin: Callable[[], None], batch: BatchTask) -> None:
        def begin_unless_begun() -> None:
            if batch.current is None and not batch.is_busy and not batch.is_finished:
                begin()

        self.timers.append(asyncio.get_running_loop().call_later(gap, begin_unless_begun))

    async def kill_all(self, gap: float, same_try: bool) -> None:
        """Kill the process of all tasks; another process takes over."""
        interrupted = [batch for batch in self.batches if batch.current is not None or batch.is_busy]
        waits = [wait for wait in self.waits if wait.task and not wait.task.done()]
        for batch in interrupted:
            if batch.current is not None:
                batch.kill()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        await settle()
        self.others = {task for task in self.others if not task.cancelled()}
        self.cancels = [cancel for cancel in self.cancels if not cancel[-1].cancelled()]
        self.airflow.new_process()
        await asyncio.sleep(gap)
        for wait in waits:
            wait.ended_at = None
            wait.begin()
        for batch in interrupted:
            batch.is_busy = False
            if batch.current is None and not batch.is_finished:
                (batch.resume if same_try else batch.retry)()

    # ------------------------------------------------------------------- checks

    def check(self) -> None:
        for domain in self.domains.values():
            assert not domain.violations, domain.violations
        for kind, rate in RATES.items():
            self.check_rate(kind, rate)
        for batch in self.batches:
            self.check_batch(batch)
        for wait in self.waits:
            self.check_wait(wait)
        for cancel in self.cancels:
            self.check_cancel(*cancel)
        for other in self.others:
            if other.done():
                other.result()

    def check_rate(self, kind: str, rate: float) -> None:
        by_process: dict[int, list[float]] = defaultdict(list)
        for sent in self.account.sent:
            if sent.kind == kind:
                by_process[sent.process].append(sent.at)
        for times in by_process.values():
            many = int(rate) + 1
            for first, last in zip(times, times[many:], strict=False):
                assert last - first >= 1 - 1e-6, (
                    f"more than {many} requests ({kind}) within a second of {first}"
                )

    def check_batch(self, batch: BatchTask) -> None:
        for each in batch.history:
            assert not each.late_requests, (
                f"requests were sent at {each.late_requests}, after the end at {each.ends_at}"
            )
            for row in each.batch.state.rows:
                was_listed = row.adopted_at is not None and not row.is_token_used
                if was_listed and row.run_identifier not in each.known:
                    run = batch.domain.by_id[str(row.run_identifier)]
                    # The List may have been created earlier: its response took time to arrive.
                    listed_at = row.adopted_at - EPOCH - LONGEST_HANG - self.plan.latency
                    assert run.ends >= listed_at, f"adopted an ended run: {row}"
                if row.status is not None:
                    run = batch.domain.by_id[str(row.run_identifier)]
                    assert row.status in self.account.reported_statuses[run.id], row
                    assert run.ends <= now(), row
                    assert row.status == run.end_status, row
                    assert row.type_stats == run.at(now()).type_stats, row
        if batch.failure is not None:
            assert self.is_expected_rejection(batch.failure, batch.parameters, 0.0), batch.failure

    def is_expected_rejection(self, error: BaseException, parameters: HookParameters, since: float) -> bool:
        """Whether credentials were rejected twice, so the package may raise the error."""
        at = [at for at in self.airflow.rejected_at[str(parameters.aws_conn_id)] if at >= since]
        return is_rejected_credentials(error) and len(at) >= 2

    def check_wait(self, wait: WaitTask) -> None:
        assert wait.task is not None
        slack = 1e-6
        if not wait.task.done():
            if wait.deadline is not None:
                assert now() <= max(wait.deadline, wait.began) + slack, f"{wait} continues after its deadline"
            assert now() <= self.latest_end(wait), f"{wait} continues after the end of its run"
            return
        if wait.is_checked or wait.task.cancelled():
            return
        wait.is_checked = True
        assert wait.ended_at is not None
        if wait.deadline is not None:
            assert wait.ended_at <= max(wait.deadline, wait.began) + slack, f"{wait} ended late"
        error = wait.task.exception()
        if error is None:
            run = wait.task.result()
            assert run.id == wait.run.id
            assert run.status == wait.run.end_status
            assert wait.run.ends <= wait.ended_at, f"{wait} ended before its run"
            assert wait.ended_at <= self.latest_end(wait), f"{wait} ended late"
        elif isinstance(error, DeadlinePassedError):
            assert wait.deadline is not None
            assert wait.ended_at >= wait.deadline - slack
        else:
            assert self.is_expected_rejection(error, wait.parameters, wait.began), error

    def latest_end(self, wait: WaitTask) -> float:
        """Return the latest end of a wait: a poll interval after its run, plus time for requests."""
        plan = self.plan
        last_fault = max(
            [
                self.account.last_fault_at,
                self.last_fault,
                *itertools.chain(*self.airflow.rejected_at.values()),
            ]
        )
        runs = sum(len(domain.runs) for domain in self.domains.values())
        waiting = len(self.waits) + sum(min(b.max_concurrent_runs, b.assets) for b in self.batches)
        assets = sum(batch.assets for batch in self.batches)
        # One Get per wait, one page per fifty runs, and one List per asset of a resumed batch.
        requests = waiting + 2 * (runs // 50 + 1) + assets + 10
        share = requests * max(1.1 / RATES["poll"], 2 * plan.latency / POLL_THREADS)
        begins = max(wait.run.ends, wait.began + plan.lookup_seconds + plan.build_seconds)
        bound = begins + wait.poll_interval + plan.list_staleness + share + 2 * plan.latency + 1
        if begins - last_fault < RECOVERY:
            bound = (
                max(begins, last_fault)
                + RECOVERY
                + 2 * wait.poll_interval
                + plan.list_staleness
                + 3 * share
                + 1
            )
        return bound

    def check_cancel(
        self, run: AssetRun, connection: str, since: float, task: asyncio.Task[MetadataGenerationRun]
    ) -> None:
        if not task.done():
            return
        if error := task.exception():
            assert self.is_expected_rejection(error, HookParameters(connection, None, None, None), since), (
                error
            )
            return
        assert task.result().is_terminal
        assert run.ends <= now()

    # ---------------------------------------------------------------------- end

    async def finish(self) -> None:
        """Run all tasks to their end without further faults."""
        for _ in range(8):
            await self.wait_for_tasks()
            self.check()
            left = [batch for batch in self.batches if not batch.is_finished]
            if not left:
                break
            for batch in left:
                if batch.current is None:
                    batch.retry()
        assert all(batch.is_finished for batch in self.batches), "a batch has not succeeded"
        for batch in self.batches:
            for row in batch.new_rows():
                runs = batch.domain.runs_of(row.asset_identifier)
                succeeded = [run for run in runs if run.end_status == "SUCCEEDED" and run.token is not None]
                forgotten = any(run.token in batch.domain.forgotten for run in runs)
                adopted = any(run.token is None and run.end_status == "SUCCEEDED" for run in runs)
                assert len(succeeded) == 1 or forgotten or (adopted and not succeeded), (
                    f"{row.asset_identifier} has {succeeded}"
                )
                self.check_changes(batch, row.asset_identifier)
        # Wait for requests and responses that are in flight.
        await asyncio.sleep(3 * LONGEST_HANG)
        await settle()
        self.check()
        self.airflow.new_process()

    def check_changes(self, batch: BatchTask, asset: str) -> None:
        """Check that an asset was accepted and published once for each succeeded run, if it should be."""
        runs = sum(run.end_status == "SUCCEEDED" for run in batch.domain.runs_of(asset))
        revisions: list[str | None] = []
        for outcomes, expected in (
            (batch.domain.accepts, batch.steps.accept_threshold is not None),
            (batch.domain.publications, batch.steps.publish),
        ):
            changes = [change for change in outcomes.effective if change.asset == asset]
            forgotten = any(change.token in batch.domain.forgotten for change in changes)
            assert expected <= len(changes), (asset, changes)
            assert len(changes) <= expected * runs or forgotten, (asset, changes)
            assert all(change.revision in revisions for change in changes if revisions), (asset, changes)
            revisions = [change.response for change in changes]

    async def wait_for_tasks(self) -> None:
        """Wait until all tasks have ended."""
        until = now() + SIMULATION_TIMEOUT
        while left := [
            task
            for task in (
                *(batch.current.task for batch in self.batches if batch.current is not None),
                *(wait.task for wait in self.waits),
                *(cancel[-1] for cancel in self.cancels),
                *self.others,
            )
            if task is not None and not task.done()
        ]:
            assert now() < until, f"not finished: {left}"
            await asyncio.wait(left, timeout=600)
            await settle()
            self.check()


MAX_BATCHES = 4


@contextmanager
def threads_of(world: World) -> Iterator[None]:
    """End threads that are left after a failure."""
    try:
        yield
    finally:
        for thread in world.account.threads:
            thread.abandon()


def simulate_steps(plan: Plan, steps: list[tuple[float, tuple[Any, ...]]]) -> World:
    world = World(plan)
    with threads_of(world):
        run_in(world.airflow, lambda airflow: world.run_steps(steps))
    return world
