"""A model of DataZone that enforces its limits, and threads that wait for it in simulated time."""

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
from airflow_provider_datazone.polling.source import AcceptRequest, PublishRequest
from tests.unit.simulated_batch import (
    RATE,
    AssetRun,
    BatchDataZone,
    Change,
    Outcomes,
    Send,
    T,
)
from tests.unit.simulation import client_error, now

LOG = logging.getLogger("tests.model")
# The limits of the account, per second and as a burst.
LIMITS = {"start": 10.0, "cancel": 20.0, "poll": 25.0, "accept": 20.0, "publish": 25.0}
RATES = {"start": RATE, "cancel": CANCELS_PER_SECOND, "poll": 10.0, "accept": 20.0, "publish": 10.0}
LONGEST_HANG = 30.0
# Maximum seconds until a thread begins its work, as in a busy process.
LONGEST_DISPATCH = 0.2
# Maximum seconds until requests return to their full rate after the last fault: a request that hangs, then
# the longest pause between two requests, half of it, and so on. All of this may happen twice.
RECOVERY = 2 * (LONGEST_HANG + 2 * LONGEST_PAUSE)
SIMULATION_TIMEOUT = 50_000.0
# The incarnation of the batch that runs the current code.
incarnation: contextvars.ContextVar[Any] = contextvars.ContextVar("incarnation", default=None)


class Thread:
    """A thread in simulated time. It blocks the event loop while it runs, but not while it waits."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._may_run = threading.Semaphore(0)
        self._has_paused = threading.Semaphore(0)
        self._is_abandoned = False
        self._work = work
        threading.Thread(target=self._run, daemon=True).start()

    def resume(self) -> None:
        """Run the thread until it waits or ends."""
        self._may_run.release()
        self._has_paused.acquire()

    def pause(self, seconds: float) -> None:
        """Wait. Only the thread itself calls this."""
        self._loop.call_later(seconds, self.resume)
        self._has_paused.release()
        self._may_run.acquire()
        if self._is_abandoned:
            raise SystemExit

    def abandon(self) -> None:
        """End the thread after the simulation."""
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
    """A sent request."""

    at: float
    kind: str
    about: str
    process: int


@dataclass
class Fault:
    """A fault that affects a share of the requests of some kinds, until a time."""

    what: str
    kinds: str
    until: float
    share: float


@dataclass
class Account:
    """The state that the domains of an account share: limits, faults and rejected credentials."""

    random: Random
    latency: float
    sent: list[Sent] = field(default_factory=list)
    active_faults: list[Fault] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)
    # When a fault last affected a request.
    last_fault_at: float = -math.inf
    process: int = 0
    # The statuses that Get returned for each run.
    reported_statuses: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    # When a List or a Get returned each run.
    seen: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    threads: list[Thread] = field(default_factory=list)
    # Minimum seconds for each Start and its response.
    slow_starts: float = 0.0

    def __post_init__(self) -> None:
        self._buckets = {kind: (limit, 0.0) for kind, limit in LIMITS.items()}

    def record(self, kind: str, about: str) -> None:
        self.sent.append(Sent(now(), kind, about, self.process))

    def has_fault(self, what: str, kind: str) -> bool:
        """Whether a fault affects this request."""
        shares = [
            fault.share
            for fault in self.active_faults
            if fault.what == what and fault.kinds in (kind, "all") and now() < fault.until
        ]
        is_affected = self.random.random() < max(shares, default=0.0)
        if is_affected:
            self.last_fault_at = now()
        return is_affected

    def delay(self, kind: str) -> float:
        """Return the latency of a request or a response."""
        delay = self.random.uniform(0, LONGEST_HANG if self.has_fault("hanging", kind) else self.latency / 2)
        return delay + (self.slow_starts / 2 if kind == "start" else 0.0)

    def answer(self, kind: str, credentials: str, action: Callable[[], Any]) -> Any:
        """Respond to a request that has arrived."""
        if credentials in self.rejected:
            raise client_error("ExpiredTokenException", 403)
        tokens, filled_at = self._buckets[kind]
        tokens = min(tokens + (now() - filled_at) * LIMITS[kind], LIMITS[kind])
        is_throttled = tokens < 1 or self.has_fault("throttling", kind)
        self._buckets[kind] = tokens if is_throttled else tokens - 1, now()
        if is_throttled:
            self.last_fault_at = now()
            raise client_error("ThrottlingException", 429)
        if self.has_fault("failing", kind):
            raise client_error("InternalServerException", 500)
        answer = action()
        if self.has_fault("lost answers", kind):
            raise ConnectionClosedError(endpoint_url="https://datazone")
        return answer


def run_without_waiting(request: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that does not wait."""
    try:
        request.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("the coroutine waits")


class Domain(BatchDataZone):
    """A domain: its runs, and its responses to requests that have arrived."""

    def __init__(self, account: Account, name: str, **changes: Any) -> None:
        super().__init__(random=account.random, **changes)
        self.account = account
        self.name = name
        # Errors: runs that were started although the batch had an active run for the asset.
        self.violations: list[str] = []
        self.forgotten: set[str] = set()

    async def _answer(self, operation: str, about: str | None) -> None:
        """Do nothing: the account simulates latency and faults."""

    def begin(self, asset: str, token: str | None = None, **changes: Any) -> AssetRun:
        active = [run for run in self.runs_of(asset) if run.token is not None and now() < run.ends]
        if token is not None and any(run.token not in self.forgotten for run in active):
            self.violations.append(f"{asset}: another run at {now()} although there are {active}")
        run = super().begin(asset, token, **changes)
        # Run ids are unique across domains.
        del self.by_id[run.id]
        run.id = f"{self.name}-{run.id}"
        self.by_id[run.id] = run
        self.order[run.id] = len(self.order)
        return run

    def forget_tokens(self) -> None:
        """Forget all client tokens, so a repeated request is a new one."""
        self.forgotten.update(self.answered)
        self.answered.clear()
        for outcomes in (self.accepts, self.publications):
            self.forgotten.update(outcomes.answered)
            outcomes.answered.clear()


class ThreadSource:
    """The source of one poller, which sends changes in threads, with one set of credentials."""

    def __init__(self, domain: Domain, credentials: str, build_seconds: float) -> None:
        self.domain = domain
        self.account = domain.account
        self.credentials = credentials
        self.closed = 0
        # Building the client takes time, as in a busy triggerer.
        self._client = asyncio.ensure_future(asyncio.sleep(build_seconds))

    async def ready(self) -> None:
        await asyncio.wait([self._client])

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        run = await self._send("poll", run_identifier, lambda: self.domain.get(run_identifier, run_type))
        self.account.reported_statuses[run_identifier].append(run.status)
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

    async def start(
        self, request: RunRequest, token: str, send: Send[MetadataGenerationRun]
    ) -> MetadataGenerationRun:
        sender = incarnation.get()

        def start() -> MetadataGenerationRun:
            run = self.domain._start(request, token, sender)
            sender.started[run.id] = run
            return run.at(now())

        return await self._send_in_thread("start", request.asset_identifier, send, start)

    async def accept(self, request: AcceptRequest, token: str, send: Send[str]) -> str:
        return await self._change("accept", self.domain.accepts, request, token, send)

    async def publish(self, request: PublishRequest, token: str, send: Send[str]) -> str:
        return await self._change("publish", self.domain.publications, request, token, send)

    async def _change(
        self,
        kind: str,
        outcomes: Outcomes,
        request: AcceptRequest | PublishRequest,
        token: str,
        send: Send[str],
    ) -> str:
        asset, revision = request.asset_identifier, request.revision
        return await self._send_in_thread(
            kind, asset, send, lambda: outcomes.respond(Change(now(), asset, token, revision))
        )

    async def _send_in_thread(self, kind: str, about: str, send: Send[T], respond: Callable[[], T]) -> T:
        """Send a request in a thread, which continues even if the task that sent it has been canceled."""
        assert not self.closed
        await self.ready()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        sender = incarnation.get()
        account = self.account

        def request() -> T:
            sender.sent(now())
            sender.in_flight[kind] += 1
            thread.pause(account.delay(kind))
            try:
                response: T = account.answer(kind, self.credentials, respond)
            finally:
                thread.pause(account.delay(kind))
                sender.in_flight[kind] -= 1
            return response

        def work() -> None:
            try:
                response = send(request)
            except Exception as error:
                answer.done() or answer.set_exception(error)
            else:
                answer.done() or answer.set_result(response)

        thread = Thread(work)
        account.threads.append(thread)
        account.record(kind, about)
        asyncio.get_running_loop().call_later(account.random.uniform(0, LONGEST_DISPATCH), thread.resume)
        return await answer

    async def _send(self, kind: str, about: str, request: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Send a request. It arrives even if the task that sent it has been canceled."""
        assert not self.closed
        await self.ready()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def settle_with(settle: Callable[[Any], None], outcome: Any) -> None:
            if not answer.done():
                settle(outcome)

        def arrive() -> None:
            try:
                answered = self.account.answer(kind, self.credentials, lambda: run_without_waiting(request()))
            except Exception as error:
                ending = partial(settle_with, answer.set_exception, error)
            else:
                ending = partial(settle_with, answer.set_result, answered)
            loop.call_later(self.account.delay(kind), ending)

        self.account.record(kind, about)
        loop.call_later(self.account.delay(kind), arrive)
        return await answer

    def close(self) -> None:
        self.closed += 1
