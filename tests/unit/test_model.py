"""
Batches, single waits and single cancels in one process, against a model of the service that enforces its limits.

Hypothesis draws a list of steps; one coroutine carries them out on the simulated clock, and what must hold is
checked after each of them and in the end. What a thread of the package does is done by a thread here, too: the
event loop stands still while it runs, and the simulated time passes while it waits for the service.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import logging
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError
from hypothesis import example, given, strategies as st

from airflow_provider_datazone.batch import (
    SECONDS_TO_DRAIN,
    AssetRow,
    Batch,
    BatchMemory,
    active_runs,
    pack,
    unpack,
)
from airflow_provider_datazone.cancellation import CANCELS_PER_SECOND
from airflow_provider_datazone.hooks.datazone import is_rejected_credentials
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.submission import RunRequest
from airflow_provider_datazone.triggers import run_poller
from airflow_provider_datazone.triggers.run_poller import DeadlinePassedError, HookParameters
from tests.unit.simulated_batch import (
    EPOCH,
    RATE,
    TYPES,
    Airflow,
    AssetRun,
    BatchDataZone,
    Send,
    SimulatedTime,
    make,
    run_in,
    settle,
)
from tests.unit.simulation import client_error, now
from tests.wrong import fuzz

LOG = logging.getLogger("tests.model")
# What the service allows the account, in a second and at once.
LIMITS = {"start": 10.0, "cancel": 20.0, "poll": 25.0}
RATES = {"start": RATE, "cancel": CANCELS_PER_SECOND, "poll": 10.0}
LONGEST_HANG = 30.0
# Seconds until a thread takes up what it is given, at most: the process is busy.
LONGEST_DISPATCH = 0.2
# Seconds until requests are back at their rate after the last trouble: a request that hangs, the longest pause
# between two requests, and half of it, and so on; with as much for a second round of it.
RECOVERY = 2 * (LONGEST_HANG + 2 * run_poller.LONGEST_PAUSE)
FOREVER = 50_000.0
# Which incarnation of which batch the running code belongs to.
incarnation: contextvars.ContextVar[Any] = contextvars.ContextVar("incarnation", default=None)


# ---------------------------------------------------------------- the service


class Thread:
    """A thread on the simulated clock: the event loop stands still while it runs, and goes on while it waits."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._may_run = threading.Semaphore(0)
        self._has_paused = threading.Semaphore(0)
        self._is_abandoned = False
        self._work = work
        threading.Thread(target=self._run, daemon=True).start()

    def resume(self) -> None:
        """Let it run until it waits or ends."""
        self._may_run.release()
        self._has_paused.acquire()

    def pause(self, seconds: float) -> None:
        """Wait, called by the thread itself."""
        self._loop.call_later(seconds, self.resume)
        self._has_paused.release()
        self._may_run.acquire()
        if self._is_abandoned:
            raise SystemExit

    def abandon(self) -> None:
        """End it, when the simulation is over."""
        self._is_abandoned = True
        self._may_run.release()

    def _run(self) -> None:
        self._may_run.acquire()
        asyncio._set_running_loop(self._loop)
        try:
            if not self._is_abandoned:
                self._work()
        except SystemExit:
            pass
        finally:
            self._has_paused.release()


@dataclass
class Sent:
    """A request as it was sent."""

    at: float
    kind: str
    about: str
    process: int


@dataclass
class Trouble:
    """What goes wrong with requests of a kind."""

    what: str
    kinds: str
    until: float
    share: float


@dataclass
class Account:
    """What the domains of an account share: limits, troubles, and credentials that are no longer good."""

    random: Random
    latency: float
    sent: list[Sent] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)
    # When something went wrong last, as far as a request has met it.
    trouble_at: float = -math.inf
    process: int = 0
    # What Get has answered of each run.
    told: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    # When a List showed a run, or a Get answered for it.
    seen: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    threads: list[Thread] = field(default_factory=list)
    # Seconds that each Start takes at least, and its answer.
    slow_starts: float = 0.0

    def __post_init__(self) -> None:
        self._buckets = {kind: (limit, 0.0) for kind, limit in LIMITS.items()}

    def note(self, kind: str, about: str) -> None:
        self.sent.append(Sent(now(), kind, about, self.process))

    def meets(self, what: str, kind: str) -> bool:
        """Whether a request meets a trouble."""
        shares = [
            trouble.share
            for trouble in self.troubles
            if trouble.what == what and trouble.kinds in (kind, "all") and now() < trouble.until
        ]
        met = self.random.random() < max(shares, default=0.0)
        if met:
            self.trouble_at = now()
        return met

    def delay(self, kind: str) -> float:
        """Return how long a request is on its way, or its answer."""
        delay = self.random.uniform(0, LONGEST_HANG if self.meets("hanging", kind) else self.latency / 2)
        return delay + (self.slow_starts / 2 if kind == "start" else 0.0)

    def answer(self, kind: str, credentials: str, carry_out: Callable[[], Any]) -> Any:
        """Answer a request that has arrived."""
        if credentials in self.rejected:
            raise client_error("ExpiredTokenException", 403)
        tokens, filled_at = self._buckets[kind]
        tokens = min(tokens + (now() - filled_at) * LIMITS[kind], LIMITS[kind])
        is_throttled = tokens < 1 or self.meets("throttling", kind)
        self._buckets[kind] = tokens if is_throttled else tokens - 1, now()
        if is_throttled:
            self.trouble_at = now()
            raise client_error("ThrottlingException", 429)
        if self.meets("failing", kind):
            raise client_error("InternalServerException", 500)
        answer = carry_out()
        if self.meets("lost answers", kind):
            raise ConnectionClosedError(endpoint_url="https://datazone")
        return answer


def at_once(request: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns that waits for nothing."""
    try:
        request.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits")


class Domain(BatchDataZone):
    """One domain: its runs, and what it answers once a request has arrived."""

    def __init__(self, account: Account, name: str, **changes: Any) -> None:
        super().__init__(random=account.random, **changes)
        self.account = account
        self.name = name
        # Runs that were started although the batch had another one at work on the asset.
        self.faults: list[str] = []
        self.forgotten: set[str] = set()

    async def _answer(self, operation: str, about: str | None) -> None:
        """What a request meets on its way is the account's."""

    def begin(self, asset: str, token: str | None = None, **changes: Any) -> AssetRun:
        at_work = [run for run in self.runs_of(asset) if run.token is not None and now() < run.ends]
        if token is not None and any(run.token not in self.forgotten for run in at_work):
            self.faults.append(f"{asset}: another run at {now()} while there are {at_work}")
        run = super().begin(asset, token, **changes)
        # No two domains have a run of the same name.
        del self.by_id[run.id]
        run.id = f"{self.name}-{run.id}"
        self.by_id[run.id] = run
        self.order[run.id] = len(self.order)
        return run

    def forget_tokens(self) -> None:
        """Take what is sent with a token from before for a new request."""
        self.forgotten.update(self.answered)
        self.answered.clear()


class ThreadSource:
    """What one poller reads, starts and cancels by, with one set of credentials."""

    def __init__(self, domain: Domain, credentials: str, building: float) -> None:
        self.domain = domain
        self.account = domain.account
        self.credentials = credentials
        self.closed = 0
        # The client, which takes a while to build, as one of a triggerer that is busy does.
        self._client = asyncio.ensure_future(asyncio.sleep(building))

    async def ready(self) -> None:
        await asyncio.wait([self._client])

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        run = await self._send("poll", run_identifier, lambda: self.domain.get(run_identifier, run_type))
        self.account.told[run_identifier].append(run.status)
        self.account.seen[run_identifier].append(now())
        return run

    async def list_page(self, status: str, next_token: str | None) -> Any:
        page = await self._send("poll", status, lambda: self.domain.list_page(status, next_token))
        for run in page[0]:
            self.account.seen[run.id].append(now())
        return page

    async def list_asset_page(self, asset: str, next_token: str | None) -> Any:
        return await self._send("poll", asset, lambda: self.domain.list_asset_page(asset, next_token))

    async def cancel(self, run_identifier: str) -> MetadataGenerationRun:
        return await self._send("cancel", run_identifier, lambda: self.domain.cancel(run_identifier))

    async def start(self, request: RunRequest, token: str, send: Send) -> MetadataGenerationRun:
        """Send a request in a thread, which lives on where the task that has sent it is gone by then."""
        assert not self.closed
        await self.ready()
        answer: asyncio.Future[MetadataGenerationRun] = asyncio.get_running_loop().create_future()
        sender = incarnation.get()
        account = self.account

        def request_run() -> MetadataGenerationRun:
            sender.sent(now())
            sender.under_way += 1
            thread.pause(account.delay("start"))
            try:
                run: MetadataGenerationRun = account.answer(
                    "start", self.credentials, lambda: self._carry_out(request, token, sender)
                )
            finally:
                thread.pause(account.delay("start"))
                sender.under_way -= 1
            return run

        def work() -> None:
            try:
                run = send(request_run)
            except Exception as error:
                answer.done() or answer.set_exception(error)
            else:
                answer.done() or answer.set_result(run)

        thread = Thread(work)
        account.threads.append(thread)
        account.note("start", request.asset_identifier)
        asyncio.get_running_loop().call_later(account.random.uniform(0, LONGEST_DISPATCH), thread.resume)
        return await answer

    def _carry_out(self, request: RunRequest, token: str, sender: Any) -> MetadataGenerationRun:
        run = self.domain._start(request, token, sender)
        sender.started[run.id] = run
        return run.at(now())

    async def _send(self, kind: str, about: str, request: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Send a request, which arrives even where the task that has sent it is gone by then."""
        assert not self.closed
        await self.ready()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def settle_with(settle: Callable[[Any], None], outcome: Any) -> None:
            if not answer.done():
                settle(outcome)

        def arrive() -> None:
            try:
                answered = self.account.answer(kind, self.credentials, lambda: at_once(request()))
            except Exception as error:
                ending = partial(settle_with, answer.set_exception, error)
            else:
                ending = partial(settle_with, answer.set_result, answered)
            loop.call_later(self.account.delay(kind), ending)

        self.account.note(kind, about)
        loop.call_later(self.account.delay(kind), arrive)
        return await answer

    def close(self) -> None:
        self.closed += 1


class Connections(Airflow):
    """One process after the other, with several connections that lead to the same account."""

    def __init__(
        self, account: Account, domains: dict[str, Domain], look_up_seconds: float, building: float
    ) -> None:
        super().__init__(next(iter(domains.values())))
        self.building = building
        self.account = account
        self.domains = domains
        self.look_up_seconds = look_up_seconds
        self.credentials: dict[str, str] = {}
        self.fingerprints: dict[str, str] = {}
        self.rejected_at: dict[str, list[float]] = defaultdict(list)

    def new_process(self) -> None:
        super().new_process()
        self.account.process += 1

    def reject(self, connection: str, same_fingerprint: bool) -> None:
        """Have the credentials of a connection rejected; fresh ones stand in it from now on."""
        old = self.credentials.get(connection, connection)
        self.account.rejected.add(old)
        self.credentials[connection] = f"{old}+"
        if not same_fingerprint:
            self.fingerprints[connection] = f"{old}+"
        self.rejected_at[connection].append(now())

    async def look_up(self, parameters: Any) -> Any:
        connection = parameters.aws_conn_id
        self.look_ups += 1
        hook = SimpleNamespace(credentials=self.credentials.get(connection, connection))
        fingerprint = self.fingerprints.get(connection, connection)
        await asyncio.sleep(self.look_up_seconds)
        return run_poller._Connection(hook, fingerprint, (connection, "the account"))  # type: ignore[arg-type]

    def source(self, hook: Any, domain_identifier: str) -> Any:
        source = ThreadSource(self.domains[domain_identifier], hook.credentials, self.building)
        self.sources.append(source)  # type: ignore[arg-type]
        return source


# ------------------------------------------------------------------- the tasks


@dataclass(eq=False)
class Incarnation:
    """One process' work on a batch."""

    batch: Batch
    # The runs that its rows named when it began.
    known: set[str | None]
    ends_at: float = math.inf
    task: asyncio.Task[None] | None = None
    # The runs that the service has started for it, or has answered it with.
    started: dict[str, AssetRun] = field(default_factory=dict)
    late_starts: list[float] = field(default_factory=list)
    # Starts that a thread has sent, and has no answer to yet.
    under_way: int = 0

    def sent(self, at: float) -> None:
        if at > self.ends_at:
            self.late_starts.append(at)


class Store(dict[str, Any]):
    """Airflow's task state store."""

    set = dict.__setitem__


@dataclass(eq=False)
class BatchTask:
    """A task that generates metadata for many assets, over its tries and processes."""

    number: int
    domain: Domain
    domain_identifier: str
    parameters: HookParameters
    assets: int
    max_concurrent_runs: int
    poll_interval: float
    # Whether it notes its rows every half minute, as a worker does; a triggerer notes nothing in between.
    notes: bool
    store: Store = field(default_factory=Store)
    try_number: int = 0
    current: Incarnation | None = None
    history: list[Incarnation] = field(default_factory=list)
    # It is being drained or canceled.
    is_busy: bool = False
    is_over: bool = False
    given: tuple[str, float] = ("", 0.0)
    failure: BaseException | None = None

    def new_rows(self) -> list[AssetRow]:
        return [AssetRow(f"asset{self.number}-{n}", None, "project") for n in range(self.assets)]

    def memory(self) -> BatchMemory:
        context: Any = {
            "ti": SimpleNamespace(
                try_number=self.try_number, max_tries=10, dag_id="dag", run_id="run", task_id=str(self.number),
                map_index=-1,
            ),
            "dag_run": SimpleNamespace(start_date=None),
            "task_state_store": self.store,
        }  # fmt: skip
        return BatchMemory(context, self.domain_identifier, TYPES)

    def retry(self) -> None:
        """Begin another try, with what the memory holds."""
        self.try_number += 1
        memory = self.memory()
        rows = memory.recall(self.new_rows(), allow_partial_success=False)
        self.given = pack(rows), memory.noted_at
        self.try_began_at = SimulatedTime.time()
        self.resume()

    def resume(self) -> None:
        """Begin a process of the same try, with the rows that it was given."""
        packed, noted_at = self.given
        rows = unpack(packed)
        memory = self.memory()
        batch = make(
            rows,
            domain_identifier=self.domain_identifier,
            identity=memory.identity,
            try_number=self.try_number,
            try_began_at=self.try_began_at,
            max_concurrent_runs=self.max_concurrent_runs,
            poll_interval=self.poll_interval,
            allow_partial_success=False,
            log=LOG,
            on_progress=(lambda: memory.note(rows)) if self.notes else None,
        )
        current = self.current = Incarnation(batch, {row.run_identifier for row in rows})
        self.history.append(current)

        def begin() -> asyncio.Task[None]:
            incarnation.set(current)
            return asyncio.ensure_future(batch.run(self.parameters, noted_at=noted_at))

        current.task = contextvars.copy_context().run(begin)
        current.task.add_done_callback(partial(self._ended, current))

    def _ended(self, ended: Incarnation, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if self.is_busy or self.current is not ended or task.cancelled():
            return
        self.failure = failure
        self.note()
        self.current = None
        self.is_over = self.failure is None and all(row.status == "SUCCEEDED" for row in ended.batch.rows)

    def note(self) -> None:
        assert self.current is not None
        rows = self.current.batch.rows
        self.given = pack(rows), SimulatedTime.time()
        self.memory().note(rows)

    async def checkpoint(self) -> None:
        """Go from a triggerer to a worker and back."""
        current = self.current
        assert current is not None
        assert current.task is not None
        began = now()
        await current.batch.drain()
        assert not current.under_way or now() - began >= SECONDS_TO_DRAIN, (
            "a run is being started after the drain"
        )
        current.ends_at = min(current.ends_at, began)
        current.task.cancel()
        await asyncio.wait({current.task})
        self.note()
        self.resume()

    async def end_by_user(self, *, all_at_once: bool) -> None:
        """Stop and cancel everything, as a user has asked for."""
        current = self.current
        assert current is not None
        assert current.task is not None
        current.ends_at = min(current.ends_at, now())
        batch = current.batch
        if all_at_once:
            current.task.cancel()
            _, failed = await batch.cancel_all(self.parameters)
        else:
            batch.stop()
            await asyncio.wait({current.task})
            while batch.is_starting:
                await asyncio.sleep(0.05)
            canceled = await asyncio.gather(
                *(
                    run_poller.cancel_run(
                        self.parameters, run, domain_identifier=self.domain_identifier, log=LOG
                    )
                    for run in active_runs(batch.rows)
                ),
                return_exceptions=True,
            )
            failed = {str(n): error for n, error in enumerate(canceled) if isinstance(error, BaseException)}
        assert not current.under_way, "a run is being started after all were canceled"
        if not failed:
            known = {row.run_identifier for row in batch.rows}
            left = [run for run in current.started.values() if run.id in known and now() < run.ends]
            assert not left, f"after canceling all there are {left}"
            lost = [run for run in current.started.values() if run.id not in known and now() < run.ends]
            assert not lost or self.domain.account.trouble_at > -math.inf, f"nobody knows of {lost}"
        assert all(is_rejected_credentials(error) for error in failed.values()), failed
        self.memory().note(batch.rows)
        self.current = None

    def kill(self) -> None:
        """End its process, without a word."""
        assert self.current is not None
        assert self.current.task is not None
        # What a thread has been given by then, it sends.
        self.current.ends_at = min(self.current.ends_at, now() + LONGEST_DISPATCH)
        current, self.current = self.current, None
        current.task.cancel()  # type: ignore[union-attr]


@dataclass(eq=False)
class WaitTask:
    """A sensor: one wait for a run, over its processes."""

    run: AssetRun
    domain_identifier: str
    parameters: HookParameters
    poll_interval: float
    deadline: float | None
    began: float
    task: asyncio.Task[MetadataGenerationRun] | None = None
    ended_at: float | None = None
    is_checked: bool = False

    def begin(self) -> None:
        self.began = now()
        timeout = None if self.deadline is None else self.deadline - now()
        self.task = asyncio.ensure_future(
            run_poller.wait_for_run(
                self.parameters,
                self.run.id,
                domain_identifier=self.domain_identifier,
                run_type=None,
                poll_interval=self.poll_interval,
                timeout=timeout,
                log=LOG,
            )
        )
        self.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[MetadataGenerationRun]) -> None:
        self.ended_at = now()
        # So that asyncio does not complain where the check comes no more.
        task.cancelled() or task.exception()


# ------------------------------------------------------------------- the model


@dataclass
class Plan:
    """What does not change while the steps are carried out."""

    seed: int
    latency: float
    look_up_seconds: float
    # Seconds that a client takes to be built.
    building: float
    lasts: float
    fails: frozenset[int]
    listed_after: float
    late: float


class World:
    """Everything there is, and what must hold of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.account = Account(Random(plan.seed), plan.latency)
        endings = {
            f"asset{batch}-{n}": ["FAILED", "SUCCEEDED"]
            for batch, n in itertools.product(range(MOST_BATCHES), plan.fails)
        }
        self.domains = {}
        for name in ("dzd_1", "dzd_2"):
            self.domains[name] = Domain(
                self.account,
                name,
                lasts=plan.lasts,
                endings=endings,
                listed_after=plan.listed_after,
                late=plan.late,
            )
        self.airflow = Connections(self.account, self.domains, plan.look_up_seconds, plan.building)
        self.batches: list[BatchTask] = []
        self.waits: list[WaitTask] = []
        self.cancels: list[tuple[AssetRun, str, float, asyncio.Task[MetadataGenerationRun]]] = []
        self.others: set[asyncio.Task[None]] = set()
        self.timers: list[asyncio.TimerHandle] = []
        self.last_trouble = -math.inf
        self.strangers = 0

    # ----------------------------------------------------------------- steps

    async def carry_out(self, steps: list[tuple[float, tuple[Any, ...]]]) -> None:
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
        self, domain: int, connection: int, assets: int, limit: int, poll_interval: float, notes: bool
    ) -> None:
        if len(self.batches) == MOST_BATCHES:
            return
        name = f"dzd_{domain}"
        batch = BatchTask(
            len(self.batches), self.domains[name], name, self.parameters(connection), assets, limit,
            poll_interval, notes,
        )  # fmt: skip
        self.batches.append(batch)
        batch.retry()

    def a_run(self, pick: int) -> tuple[AssetRun, str]:
        """Return a run that there is, or one that somebody begins."""
        there = [(run, name) for name, domain in self.domains.items() for run in domain.runs]
        if pick % 3 and there:
            return there[pick % len(there)]  # type: ignore[return-value]
        self.strangers += 1
        name = "dzd_1" if pick % 2 else "dzd_2"
        return self.domains[name].begin(f"stranger{self.strangers}"), name

    def other_task(self, pick: int) -> None:
        """Have somebody else begin a run for an asset of a batch, or of one to come."""
        number = pick % MOST_BATCHES
        domain = self.batches[number].domain if number < len(self.batches) else self.domains["dzd_1"]
        domain.begin(f"asset{number}-{pick % 10}", end_status="SUCCEEDED")

    def wait(self, pick: int, connection: int, poll_interval: float, timeout: float | None) -> None:
        run, name = self.a_run(pick)
        deadline = None if timeout is None else now() + timeout
        wait = WaitTask(run, name, self.parameters(connection), poll_interval, deadline, now())
        self.waits.append(wait)
        wait.begin()

    def waits_for(self, number: int, connection: int, poll_interval: float) -> None:
        for n in range(number):
            self.wait(3 * n, connection, poll_interval, None)

    def cancel(self, pick: int, connection: int) -> None:
        run, name = self.a_run(pick)
        parameters = self.parameters(connection)
        task = asyncio.ensure_future(
            run_poller.cancel_run(parameters, run.id, domain_identifier=name, log=LOG)
        )
        self.cancels.append((run, parameters.aws_conn_id or "", now(), task))

    def cancels_of(self, number: int, connection: int) -> None:
        for n in range(number):
            self.cancel(3 * n, connection)

    def cancels_in_turn(self, number: int, connection: int) -> None:
        """Cancel one run after the other, so that there may be no poller in between."""
        runs = [self.a_run(3 * n) for n in range(number)]

        async def cancel_each() -> None:
            for run, name in runs:
                began = now()
                task = asyncio.ensure_future(
                    run_poller.cancel_run(
                        self.parameters(connection), run.id, domain_identifier=name, log=LOG
                    )
                )
                self.cancels.append((run, f"connection{connection}", began, task))
                await asyncio.wait({task})

        self.others.add(asyncio.ensure_future(cancel_each()))

    def person(self, pick: int, status: str) -> None:
        """Have a run canceled by a person, or have it fail."""
        active = [run for domain in self.domains.values() for run in domain.active(now())]
        if active:
            run = active[pick % len(active)]
            run.ends, run.end_status = now(), status

    def trouble(self, what: str, kinds: str, seconds: float, share: float) -> None:
        self.account.troubles.append(Trouble(what, kinds, now() + seconds, share))
        self.last_trouble = max(self.last_trouble, now() + seconds)

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
        """End the process of one batch; another one takes it over."""
        if batch := self.pick_batch(pick):
            batch.kill()
            self.later(gap, batch.resume if same_try else batch.retry, batch)

    def retry(self, pick: int) -> None:
        """A user clears a task that had failed, or was ended."""
        down = [b for b in self.batches if b.current is None and not b.is_busy and not b.is_over]
        if down:
            down[pick % len(down)].retry()

    def later(self, gap: float, begin: Callable[[], None], batch: BatchTask) -> None:
        def begin_unless_begun() -> None:
            if batch.current is None and not batch.is_busy and not batch.is_over:
                begin()

        self.timers.append(asyncio.get_running_loop().call_later(gap, begin_unless_begun))

    async def kill_all(self, gap: float, same_try: bool) -> None:
        """End the process of them all; another one takes over what is left."""
        taken = [batch for batch in self.batches if batch.current is not None or batch.is_busy]
        waits = [wait for wait in self.waits if wait.task and not wait.task.done()]
        for batch in taken:
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
        for batch in taken:
            batch.is_busy = False
            if batch.current is None and not batch.is_over:
                (batch.resume if same_try else batch.retry)()

    # ------------------------------------------------------------- what holds

    def check(self) -> None:
        for domain in self.domains.values():
            assert not domain.faults, domain.faults
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
            assert not each.late_starts, (
                f"started at {each.late_starts}, and was to start none from {each.ends_at}"
            )
            for row in each.batch.rows:
                if row.adopted_at is not None and row.run_identifier not in each.known:
                    run = batch.domain.by_id[str(row.run_identifier)]
                    # A List may have said so before it was on its way back.
                    listed_at = row.adopted_at - EPOCH - LONGEST_HANG - self.plan.latency
                    assert run.ends >= listed_at, f"{row} had ended"
                if row.status is not None:
                    run = batch.domain.by_id[str(row.run_identifier)]
                    assert row.status in self.account.told[run.id], row
                    assert run.ends <= now(), row
                    assert row.status == run.end_status, row
                    assert row.type_stats == run.at(now()).type_stats, row
        if batch.failure is not None:
            assert self.may_be_rejected(batch.failure, batch.parameters, 0.0), batch.failure

    def may_be_rejected(self, error: BaseException, parameters: HookParameters, since: float) -> bool:
        """Whether credentials were rejected twice, so that they are taken for the wrong ones."""
        at = [at for at in self.airflow.rejected_at[str(parameters.aws_conn_id)] if at >= since]
        return is_rejected_credentials(error) and len(at) >= 2

    def check_wait(self, wait: WaitTask) -> None:
        assert wait.task is not None
        slack = 1e-6
        if not wait.task.done():
            if wait.deadline is not None:
                assert now() <= max(wait.deadline, wait.began) + slack, f"{wait} goes on beyond its deadline"
            assert now() <= self.latest_end(wait), f"{wait} goes on after its run has ended"
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
            assert self.may_be_rejected(error, wait.parameters, wait.began), error

    def latest_end(self, wait: WaitTask) -> float:
        """Return when a wait is to have ended: an interval after its run, when nothing goes wrong."""
        plan = self.plan
        trouble = max(
            [self.account.trouble_at, self.last_trouble, *itertools.chain(*self.airflow.rejected_at.values())]
        )
        runs = sum(len(domain.runs) for domain in self.domains.values())
        waiting = len(self.waits) + sum(min(b.max_concurrent_runs, b.assets) for b in self.batches)
        assets = sum(batch.assets for batch in self.batches)
        # Each takes a Get, each fifty a page, and each asset of a batch that is resumed a List of its own.
        requests = waiting + 2 * (runs // 50 + 1) + assets + 10
        share = requests * max(1.1 / RATES["poll"], 2 * plan.latency / run_poller.THREADS)
        begins = max(wait.run.ends, wait.began + plan.look_up_seconds + plan.building)
        bound = begins + wait.poll_interval + plan.late + share + 2 * plan.latency + 1
        if begins - trouble < RECOVERY:
            bound = max(begins, trouble) + RECOVERY + 2 * wait.poll_interval + plan.late + 3 * share + 1
        return bound

    def check_cancel(
        self, run: AssetRun, connection: str, since: float, task: asyncio.Task[MetadataGenerationRun]
    ) -> None:
        if not task.done():
            return
        if error := task.exception():
            assert self.may_be_rejected(error, HookParameters(connection, None, None, None), since), error
            return
        assert task.result().is_terminal
        assert run.ends <= now()

    # -------------------------------------------------------------- the end

    async def finish(self) -> None:
        """Let everything come to its end, with nothing that goes wrong any more."""
        for _ in range(8):
            await self.quiet()
            self.check()
            left = [batch for batch in self.batches if not batch.is_over]
            if not left:
                break
            for batch in left:
                if batch.current is None:
                    batch.retry()
        assert all(batch.is_over for batch in self.batches), "a batch has not succeeded"
        for batch in self.batches:
            for row in batch.new_rows():
                runs = batch.domain.runs_of(row.asset_identifier)
                succeeded = [run for run in runs if run.end_status == "SUCCEEDED" and run.token is not None]
                forgotten = any(run.token in batch.domain.forgotten for run in runs)
                adopted = any(run.token is None and run.end_status == "SUCCEEDED" for run in runs)
                assert len(succeeded) == 1 or forgotten or (adopted and not succeeded), (
                    f"{row.asset_identifier} has {succeeded}"
                )
        # What was on its way arrives.
        await asyncio.sleep(3 * LONGEST_HANG)
        await settle()
        self.check()
        self.airflow.new_process()

    async def quiet(self) -> None:
        """Wait until there is nothing under way any more."""
        until = now() + FOREVER
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
            assert now() < until, f"not over: {left}"
            await asyncio.wait(left, timeout=600)
            await settle()
            self.check()


MOST_BATCHES = 4


@contextmanager
def threads_of(world: World) -> Iterator[None]:
    """End the threads that a failure leaves behind."""
    try:
        yield
    finally:
        for thread in world.account.threads:
            thread.abandon()


def carry_out(plan: Plan, steps: list[tuple[float, tuple[Any, ...]]]) -> World:
    world = World(plan)
    with threads_of(world):
        run_in(world.airflow, lambda airflow: world.carry_out(steps))
    return world


picks = st.integers(0, 50)
intervals = st.sampled_from([5.0, 30.0])
gaps = st.sampled_from([0.0, 0.5, 5.0, 59.0, 61.0, 400.0])
connections = st.integers(1, 2)
kinds = st.sampled_from(["start", "cancel", "poll", "all"])
batches_drawn = st.tuples(
    st.just("batch"), st.integers(1, 2), connections, st.sampled_from([1, 2, 10, 40]),
    st.sampled_from([1, 3, 20, 400]), intervals, st.booleans(),
)  # fmt: skip
steps_drawn = st.one_of(
    batches_drawn,
    st.tuples(st.just("wait"), picks, connections, intervals, st.none() | st.sampled_from([0.0, 20.0, 90.0])),
    st.tuples(st.just("waits_for"), st.sampled_from([3, 30]), connections, intervals),
    st.tuples(st.just("cancel"), picks, connections),
    st.tuples(st.just("cancels_of"), st.sampled_from([5, 50, 150]), connections),
    st.tuples(st.just("cancels_in_turn"), st.sampled_from([5, 50]), connections),
    st.tuples(st.just("person"), picks, st.sampled_from(["CANCELED", "FAILED"])),
    st.tuples(
        st.just("trouble"),
        st.sampled_from(["throttling", "failing", "lost answers", "hanging"]),
        kinds,
        st.sampled_from([2.0, 30.0, 120.0]),
        st.sampled_from([0.3, 1.0]),
    ),
    st.tuples(st.just("reject"), connections, st.booleans()),
    st.just(("forget",)),
    st.tuples(st.just("other_task"), picks),
    st.tuples(st.just("checkpoint"), picks),
    st.tuples(st.just("end_by_user"), picks, st.booleans()),
    st.tuples(st.just("kill"), picks, gaps, st.booleans()),
    st.tuples(st.just("kill_all"), gaps, st.booleans()),
    st.tuples(st.just("retry"), picks),
)
moments = st.sampled_from([0.0, 0.05, 1.0, 7.0, 31.0, 65.0, 300.0])
plans_drawn = st.builds(
    Plan,
    seed=st.integers(0, 1000),
    latency=st.sampled_from([0.02, 0.5, 3.0]),
    look_up_seconds=st.sampled_from([0.0, 0.3]),
    building=st.sampled_from([0.0, 2.0]),
    lasts=st.sampled_from([1.0, 20.0, 200.0, 600.0]),
    fails=st.frozensets(st.integers(0, 39), max_size=4),
    listed_after=st.sampled_from([0.0, 20.0]),
    late=st.sampled_from([0.0, 15.0]),
)


CALM = Plan(0, 0.02, 0.0, 0.0, 200.0, frozenset(), 0.0, 0.0)


@fuzz(max_examples=60)
# What steps that are drawn rarely come to: more Cancels wait for a thread than a second has turns.
@example(
    plan=CALM,
    first=("batch", 1, 1, 1, 1, 5.0, False),
    steps=[(0.0, ("trouble", "hanging", "cancel", 2.0, 1.0)), (0.0, ("cancels_of", 150, 1))],
)
# Another task's run has succeeded on an asset of the batch before a process is lost for minutes.
@example(
    plan=CALM,
    first=("batch", 1, 1, 40, 1, 5.0, False),
    steps=[(0.0, ("other_task", 4)), (300.0, ("kill", 0, 400.0, True)), (450.0, ("checkpoint", 0))],
)
# A process is lost for minutes while its runs are at work.
@example(
    plan=replace(CALM, lasts=600.0),
    first=("batch", 1, 1, 40, 20, 5.0, False),
    steps=[(7.0, ("other_task", 8)), (7.0, ("kill", 0, 61.0, False)), (65.0, ("checkpoint", 0))],
)
# A user ends batches while their Starts are given to threads, one of which is late.
@example(
    plan=replace(CALM, seed=8, lasts=20.0),
    first=("batch", 1, 1, 40, 400, 5.0, False),
    steps=[
        (1.0, ("batch", 2, 2, 40, 400, 5.0, True)),
        (1.0, ("end_by_user", 0, True)),
        (0.0, ("end_by_user", 0, False)),
    ],
)
# A user ends a batch while each of its Starts is under way for seconds.
@example(
    plan=replace(CALM, latency=3.0),
    first=("batch", 1, 1, 40, 400, 5.0, False),
    steps=[(2.0, ("end_by_user", 0, True))],
)
# The same, and the batch goes from a triggerer to a worker.
@example(
    plan=replace(CALM, latency=3.0),
    first=("batch", 1, 1, 40, 400, 5.0, False),
    steps=[(2.0, ("checkpoint", 0))],
)
# Cancels fail for half a minute.
@example(plan=CALM, first=("trouble", "failing", "cancel", 30.0, 1.0), steps=[(0.0, ("cancels_of", 5, 1))])
# The credentials are rejected just after another job has looked them up.
@example(
    plan=CALM,
    first=("batch", 1, 1, 2, 1, 30.0, False),
    steps=[(31.0, ("cancel", 0, 1)), (0.05, ("reject", 1, False))],
)
# A wait is over while its connection is looked up.
@example(plan=replace(CALM, look_up_seconds=0.3), first=("wait", 0, 1, 5.0, 0.0), steps=[])
# The credentials are rejected while Starts that were sent before are under way, and no run is waited for.
@example(
    plan=replace(CALM, seed=1),
    first=("trouble", "hanging", "start", 30.0, 1.0),
    steps=[
        (0.0, ("batch", 1, 1, 2, 20, 5.0, False)),
        (31.0, ("reject", 1, True)),
        (0.0, ("cancel", 3, 1)),
    ],
)
# The process of a batch is killed, and its poller lives on.
@example(
    plan=CALM,
    first=("batch", 1, 1, 40, 400, 5.0, False),
    steps=[(0.0, ("wait", 3, 1, 30.0, None)), (1.0, ("kill", 0, 59.0, True))],
)
@given(
    plan=plans_drawn,
    first=batches_drawn,
    steps=st.lists(st.tuples(moments, steps_drawn), min_size=3, max_size=16),
)
def test_whatever_happens_batches_waits_and_cancels_do_what_they_promise(plan, first, steps):
    carry_out(plan, [(0.0, first), *steps])


@pytest.mark.parametrize("kind", ["cancel", "poll"])
def test_pollers_that_follow_each_other_keep_to_one_rate(kind: str):
    """The last job of a poller ends before the next one begins, and nothing of the poller is left."""
    world = World(CALM)

    async def one_after_the_other(airflow: Connections) -> None:
        for _ in range(40):
            if kind == "cancel":
                world.cancel(0, 1)
                await world.cancels[-1][-1]
            else:
                world.wait(0, 1, 0.01, 0.03)
                await asyncio.wait({world.waits[-1].task})
            await settle()
            gc.collect()
        world.check()
        assert len(airflow.sources) == 40

    run_in(world.airflow, one_after_the_other)


@pytest.mark.parametrize("poll_interval", [5.0, 30.0])
def test_single_waits_are_polled_in_time_beside_a_large_batch_whose_starts_are_slow(poll_interval: float):
    world = World(replace(CALM, latency=0.1, lasts=300.0))
    world.account.slow_starts = 3.0

    async def main(airflow: Connections) -> None:
        world.batch(1, 1, 700, 400, 30.0, False)
        await asyncio.sleep(20)
        runs = [world.domains["dzd_1"].begin(f"stranger{n}", ends=1000.0) for n in range(5)]
        for run in runs:
            wait = WaitTask(run, "dzd_1", world.parameters(1), poll_interval, None, now())
            world.waits.append(wait)
            wait.begin()
        await asyncio.wait({wait.task for wait in world.waits})
        world.check()
        begun = [sent.at for sent in world.account.sent if sent.kind == "start"]
        assert len(begun) >= 600
        assert begun[399] - begun[0] <= 400 / (0.9 * RATE)
        if world.batches[0].current is not None:
            world.batches[0].kill()

    run_in(world.airflow, main)
    for wait in world.waits:
        looks = [20.0, *world.account.seen[wait.run.id]]
        assert looks[-1] >= 1000
        assert max(later - earlier for earlier, later in itertools.pairwise(looks)) <= 3 * poll_interval
