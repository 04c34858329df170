"""A model of the service that enforces its limits, and threads that wait for it on the simulated clock."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from botocore.exceptions import ConnectionClosedError

from airflow_provider_datazone.idempotency import RunRequest
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.polling.rate import CANCELS_PER_SECOND, LONGEST_PAUSE
from tests.unit.simulated_batch import (
    RATE,
    AssetRun,
    BatchDataZone,
    Send,
)
from tests.unit.simulation import client_error, now

LOG = logging.getLogger("tests.model")
# What the service allows the account, in a second and at once.
LIMITS = {"start": 10.0, "cancel": 20.0, "poll": 25.0}
RATES = {"start": RATE, "cancel": CANCELS_PER_SECOND, "poll": 10.0}
LONGEST_HANG = 30.0
# Seconds until a thread takes up what it is given, at most: the process is busy.
LONGEST_DISPATCH = 0.2
# Seconds until requests are back at their rate after the last trouble: a request that hangs, the longest pause
# between two requests, and half of it, and so on; with as much for a second round of it.
RECOVERY = 2 * (LONGEST_HANG + 2 * LONGEST_PAUSE)
FOREVER = 50_000.0
# Which incarnation of which batch the running code belongs to.
incarnation: contextvars.ContextVar[Any] = contextvars.ContextVar("incarnation", default=None)


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
