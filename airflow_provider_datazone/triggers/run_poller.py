"""
One poller for every wait on the same credentials, Region and domain.

A triggerer may hold ten thousand waits, and none of them may block its event loop. So waits share: one
look-up of an Airflow connection, one boto3 client in a few threads, one rate of requests, and one
question for fifty runs at a time.

A round asks what is cheaper. Few waits: one Get each. Many: List those that are ``SUBMITTED``, then those
``IN_PROGRESS`` (in this order a run that moves between the two is still seen), and Get those that neither
has. List is a hint, Get is the truth: a wait ends only by what Get said. A List that is late, partial, full
of other people's runs or forbidden therefore costs requests, and never a wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import hashlib
import json
import math
import random
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from asgiref.sync import sync_to_async

from airflow_provider_datazone.cancellation import (
    CANCEL_THREADS,
    CANCELS_PER_SECOND,
    cancel_run as cancel_run_now,
)
from airflow_provider_datazone.hooks.datazone import (
    NEW_RUN_GRACE,
    DataZoneHook,
    check_seconds as check_seconds,
    is_not_found,
    is_permanent,
    is_rejected_credentials,
    is_throttling,
    is_transient,
    log_status,
)
from airflow_provider_datazone.version_compat import conf

if TYPE_CHECKING:
    import logging

    from airflow.providers.amazon.aws.utils.mixins import AwsBaseHookMixin

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
    from airflow_provider_datazone.submission import RunRequest

    # Sends a Start in the thread that calls it, or refuses to.
    Send = Callable[[Callable[[], MetadataGenerationRun]], MetadataGenerationRun]

T = TypeVar("T")

# Each kind of request has threads of its own, so that slow Starts never hold up a poll. For polls: enough to
# keep the default rate at a latency of a second, and to leave some while others hang.
THREADS = 8
# Enough to keep the default rate of Starts at a latency of three seconds.
START_THREADS = 32
MOST_THREADS = THREADS + START_THREADS + CANCEL_THREADS
PAGE_SIZE = 50
# Seconds for which waits that begin share one look-up of their connection.
CONNECTION_LIFE = 30.0
# Requests that fail one after the other for reasons that pass, until a round is given up.
FAILURES_IN_A_ROW = 2 * THREADS
LONGEST_PAUSE = 60.0
# By what one answer shortens the interval between requests at most: as fast as throttling makes it longer.
FASTEST_RECOVERY = 0.5
# A page for each of the two statuses.
CHEAPEST_LIST = 2
# Requests of one List that may fail for reasons that pass, until the round goes on without it.
LIST_FAILURES = 3
# For how many rounds to believe that a List costs more than it saves: other people's runs end some time.
LIST_ESTIMATE_LIFE = 20
# Seconds until a Cancel that failed for a reason that passes is sent again; Airflow bounds it all.
CANCEL_AGAIN_AFTER = 2.0
# Seconds after which a run that List still calls active is read with Get; then after twice as long, up to the
# longest.
VERIFY_AFTER = 600.0
LONGEST_VERIFY_AFTER = 3600.0
# Seconds until a run that Get does not know yet is read again.
GRACE_INTERVAL = 5.0


class HookParameters(NamedTuple):
    """The four parameters that make a hook, as a trigger has them."""

    aws_conn_id: str | None
    region_name: str | None
    verify: bool | str | None
    botocore_config: dict[str, Any] | None

    @classmethod
    def for_task(cls, task: AwsBaseHookMixin[DataZoneHook]) -> HookParameters:
        """Return those of an operator or sensor."""
        parameters = task._hook_parameters
        return cls(
            parameters["aws_conn_id"], parameters["region_name"], parameters["verify"], parameters["config"]
        )


class RunSource(Protocol):
    """Where a poller reads runs."""

    async def ready(self) -> None:
        """Wait until requests are sent as soon as they are made."""

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        """Read one run."""

    async def list_page(
        self, status: str, next_token: str | None
    ) -> tuple[list[MetadataGenerationRun], str | None]:
        """Read one page of the runs in a status."""

    async def cancel(self, run_identifier: str) -> MetadataGenerationRun:
        """Cancel a run, unless it has ended."""

    async def start(self, request: RunRequest, client_token: str, send: Send) -> MetadataGenerationRun:
        """Start a run: `send` is called with the request in the thread that is to send it, and may refuse."""

    async def list_asset_page(
        self, asset_identifier: str, next_token: str | None
    ) -> tuple[list[MetadataGenerationRun], str | None]:
        """Read one page of the runs of an asset."""

    def cancel_now(self, run_identifier: str) -> None:
        """Cancel a run, unless it has ended, from a thread of the caller's: the event loop stands still."""

    def close(self) -> None:
        """Let go of everything, without waiting for it."""


class PollerEndedError(Exception):
    """The poller has ended; another one is to be asked for."""


class DeadlinePassedError(Exception):
    """A wait is over before its run; no ``TimeoutError``, which a look-up may raise for its own reasons."""


class CredentialsRejectedError(Exception):
    """
    The credentials of a poller are no longer good; the cause says what DataZone answered.

    :param asked: The run, or the status, that the rejected request was about.
    """

    def __init__(self, message: str, asked: str) -> None:
        super().__init__(message)
        self.asked = asked


class RequestRate:
    """
    Space out requests, slower for everybody while DataZone throttles.

    :param per_second: Requests a second at most.
    :param jitter: Share of the interval between two requests by which it is longer at most.
    :param recovery: By what each answer shortens an interval that throttling has made longer.
    """

    def __init__(self, per_second: float, *, jitter: float = 0.1, recovery: float = 0.9) -> None:
        self.per_second = per_second
        self._jitter = jitter
        self._recovery = recovery
        self._interval = 1 / per_second
        self._slowdown = 1.0
        self._slowed_at = -math.inf
        self._next_turn = 0.0
        self._line = asyncio.Lock()

    async def turn(self) -> None:
        """Wait for the turn of one request."""
        loop = asyncio.get_running_loop()
        # One at a time: who has a turn already keeps it, however much shorter the intervals are by then.
        async with self._line:
            turn = max(loop.time(), self._next_turn)
            while (left := turn - loop.time()) > 0:
                await asyncio.sleep(left)
                turn = max(turn, self._next_turn)
            # Jitter, so that triggerers that were started together do not ask together.
            longer = random.uniform(1.0, 1.0 + self._jitter)  # noqa: S311
            self._next_turn = turn + self._interval * self._slowdown * longer

    def throttled(self, sent_at: float) -> None:
        """
        Take note that DataZone refused a request for its rate.

        :param sent_at: When it was sent. Several are under way at a time, and refused together: that is
            one reason to slow down, not several.
        """
        if sent_at < self._slowed_at:
            return
        self._slowed_at = now = asyncio.get_running_loop().time()
        self._slowdown = min(self._slowdown * 2, max(LONGEST_PAUSE / self._interval, 1.0))
        self._next_turn = max(self._next_turn, now + self._interval * self._slowdown)

    def answered(self) -> None:
        """Take note that DataZone answered."""
        # After a pause of seconds, one answer says as much as one in each of them would have; but not
        # everything, where others go on using the limit up.
        seconds = max(self._interval * self._slowdown, 1.0)
        self._slowdown = max(self._slowdown * max(self._recovery**seconds, FASTEST_RECOVERY), 1.0)


class Rates:
    """
    The rates of an AWS account in a Region, which all pollers of the event loop that use it share.

    :param requests: Polls: Get and List.
    :param starts: Starts, which DataZone limits for the account.
    :param cancels: Cancels, which DataZone limits for the account.
    """

    def __init__(self, requests: RequestRate, starts: RequestRate, cancels: RequestRate) -> None:
        self.requests = requests
        self.starts = starts
        self.cancels = cancels

    @classmethod
    def configured(cls) -> Rates:
        """Return the rates that Airflow's configuration names."""
        return cls(
            RequestRate(requests_per_second("max_requests_per_second")),
            # Just below the limit, which is known, and slow to come back to it: others share it.
            RequestRate(requests_per_second("max_starts_per_second"), jitter=0.02, recovery=0.995),
            RequestRate(CANCELS_PER_SECOND, jitter=0.02),
        )


class Lane:
    """
    One kind of request of a poller: its rate, and the threads that it may use.

    :param rate: The rate, which other pollers may share.
    :param threads: Requests at a time at most.
    """

    def __init__(self, rate: RequestRate, threads: int) -> None:
        self.rate = rate
        self._threads = asyncio.Semaphore(threads)

    async def enter(self, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """
        Wait for a free thread, and only then for the turn at the rate; :meth:`leave` follows.

        Turns that were taken first, and waited for a thread afterwards, would all be used at once.

        :param is_wanted: Whether the request is still to be sent; one that is not takes no turn.
        """
        await self._threads.acquire()
        try:
            if is_wanted():
                await self.rate.turn()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Leave the thread to another request."""
        self._threads.release()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a thread for one request, which is sent when it is its turn."""
        await self.enter()
        try:
            yield
        finally:
            self.leave()


@dataclass(eq=False)
class _Wait:
    """One wait: which run, how often to look, and where to log."""

    run_identifier: str
    run_type: str | None
    poll_interval: float
    log: logging.Logger
    due: float
    done: asyncio.Future[MetadataGenerationRun]
    deadline: float
    # Until when Get may not know the run.
    known_by: float = 0.0
    verify_at: float = 0.0
    status: str | None = None
    verify_after: float = VERIFY_AFTER
    is_listed: bool = False
    # Airflow tells by it to which task's log a line belongs.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def note(self, run: MetadataGenerationRun) -> None:
        self.context.run(log_status, self.log, run, self.status)
        self.status = run.status

    def verified(self, now: float) -> None:
        """Take note that Get has called the run active; there is a last look before the deadline, too."""
        last_look = self.deadline - self.poll_interval
        # Longer each time that Get confirms what List said, and only then: a List that takes over from Gets
        # has confirmed nothing yet.
        self.verify_after = (
            min(self.verify_after * 2, LONGEST_VERIFY_AFTER) if self.is_listed else VERIFY_AFTER
        )
        self.is_listed = False
        self.verify_at = now + self.verify_after * random.uniform(1.0, 1.5)  # noqa: S311
        if now < last_look:
            self.verify_at = min(self.verify_at, last_look)

    def warn(self, error: BaseException) -> None:
        self.context.run(self.log.warning, "Could not read the run just now, will try again: %s", error)


class RunPoller:
    """
    Poll the runs that somebody waits for, as long as somebody does.

    :param source: Where to read runs; closed with the last wait.
    :param rates: The rates of requests, which pollers of the same account and Region share.
    :param on_close: Called when the last wait has ended, or the credentials are rejected.
    """

    def __init__(self, source: RunSource, rates: Rates, on_close: Callable[[], None]) -> None:
        self.has_answered = False
        #: The runs of waits that were cut short by the poller's end, of those that DataZone had told of.
        self.had_answered_about: set[str] = set()
        self.source = source
        # Held, so that the next poller of the same account finds them.
        self._rates = rates
        self._polls = Lane(rates.requests, THREADS)
        self._starts = Lane(rates.starts, START_THREADS)
        self._cancels = Lane(rates.cancels, CANCEL_THREADS)
        self._holders = 0
        self._on_close = on_close
        # Why nothing more can be asked of it, once that is so.
        self._ended: BaseException | None = None
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._waits: dict[str, list[_Wait]] = {}
        self._wake = asyncio.Event()
        self._sleeps_until = math.inf
        self._round_began = 0.0
        # Requests that a whole List takes, and when to find out anew.
        self._list_cost: float = CHEAPEST_LIST
        self._estimate_list_at = 0.0
        self._not_before = 0.0
        self._pause = 0.0
        # In no task's context: what the poller logs belongs to the triggerer, not to whoever came first.
        self._task: asyncio.Task[None] = contextvars.Context().run(self._loop.create_task, self._run())
        self._task.add_done_callback(self._fail_all)

    async def wait(
        self,
        run_identifier: str,
        *,
        run_type: str | None,
        poll_interval: float,
        timeout: float | None,
        log: logging.Logger,
    ) -> MetadataGenerationRun:
        """
        Wait until Get says that a run has ended.

        :param timeout: Seconds to wait at most, ``None`` for without end.
        :raises DeadlinePassedError: It has not ended by then.
        :raises CredentialsRejectedError: The poller ends; another one may do better.
        :raises PollerEndedError: The poller had ended before.
        :raises Exception: What DataZone answered to a request for this run.
        """
        self._require_open()
        now = self._loop.time()
        wait = _Wait(
            run_identifier,
            run_type,
            poll_interval,
            log,
            due=now + poll_interval,
            done=self._loop.create_future(),
            deadline=math.inf if timeout is None else now + timeout,
            known_by=now + NEW_RUN_GRACE,
        )
        wait.verified(now)
        self._waits.setdefault(run_identifier, []).append(wait)
        # Only for who is due first: each awakening looks at all waits, and thousands may begin together.
        if wait.due < self._sleeps_until:
            self._wake.set()
        timer = None if timeout is None else self._loop.call_later(max(timeout, 0), _time_out, wait)
        try:
            return await wait.done
        finally:
            if timer is not None:
                timer.cancel()
            self._remove(wait)

    def _remove(self, wait: _Wait) -> None:
        if self._ended is not None and wait.status is not None:
            self.had_answered_about.add(wait.run_identifier)
        waits = self._waits[wait.run_identifier]
        waits.remove(wait)
        if not waits:
            del self._waits[wait.run_identifier]
        self._close_if_idle()

    async def start(
        self,
        request: RunRequest,
        client_token: str,
        *,
        line: asyncio.Lock,
        is_wanted: Callable[[], bool],
        send: Send,
    ) -> MetadataGenerationRun | None:
        """
        Start a run at the rate of Starts.

        :param line: Held while the request waits for its turn, so that of a batch one at a time does, and a
            small batch gets as many turns as a large one.
        :param is_wanted: Whether it is still to be started, asked when it is its turn.
        :param send: Called with the request in the thread that is to send it.
        :return: The run, or ``None`` where it was not wanted any more.
        :raises CredentialsRejectedError: Another poller may do better.
        :raises Exception: What DataZone answered, or `send` raised.
        """
        async with line:
            # Before the turn, as turns that were taken while the client is built would all be used at once.
            await self.source.ready()
            await self._starts.enter(is_wanted)
        try:
            if not is_wanted():
                return None
            return await self._ask(
                self._starts.rate,
                lambda: self.source.start(request, client_token, send),
                request.asset_identifier,
            )
        finally:
            self._starts.leave()

    async def list_runs_of_asset(self, asset_identifier: str) -> list[MetadataGenerationRun]:
        """
        List all runs of an asset; each page takes its turn.

        :raises CredentialsRejectedError: Another poller may do better.
        :raises Exception: What DataZone answered.
        """
        runs: list[MetadataGenerationRun] = []
        next_token: str | None = None
        while True:
            page, next_token = await self._poll(
                self.source.list_asset_page, asset_identifier, next_token, asked=asset_identifier
            )
            runs += page
            if next_token is None:
                return runs

    async def cancel(self, run_identifier: str, log: logging.Logger) -> MetadataGenerationRun:
        """
        Cancel a run, unless it has ended; reasons that pass are waited out.

        :raises CredentialsRejectedError: Another poller may do better.
        :raises Exception: What DataZone answered.
        """
        known_by = self._loop.time() + NEW_RUN_GRACE
        with self.held():
            while True:
                try:
                    await self.source.ready()
                    # At a rate of its own: a task that is killed has but seconds for it, polls or no polls.
                    async with self._cancels.turn():
                        return await self._ask(
                            self._cancels.rate, lambda: self.source.cancel(run_identifier), run_identifier
                        )
                except Exception as error:
                    is_new = is_not_found(error) and self._loop.time() < known_by
                    if not is_transient(error) and not is_new:
                        raise
                    log.warning("Could not cancel the run just now, will try again: %s", error)
                await asyncio.sleep(CANCEL_AGAIN_AFTER)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the poller for other requests than those of waits."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._waits and not self._holders and not self._is_closed:
            self._is_closed = True
            self._end(PollerEndedError("the poller had no waits left"))
            self.source.close()

    def _require_open(self) -> None:
        if isinstance(self._ended, CredentialsRejectedError):
            raise CredentialsRejectedError(str(self._ended), self._ended.asked) from self._ended.__cause__
        if self._ended is not None:
            raise PollerEndedError(str(self._ended)) from self._ended

    def _end(self, error: BaseException) -> None:
        """Have nobody join the poller any more, and fail the waits that there are."""
        if self._ended is not None:
            return
        self._ended = error
        self._on_close()
        self._task.cancel()
        for wait in self._open(self._waits):
            wait.done.set_exception(error)

    def _fail_all(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._end(error or PollerEndedError("the poller ended while it had waits"))

    def _open(self, run_identifiers: Iterable[str]) -> list[_Wait]:
        """Return the waits for these runs that have not ended."""
        return [
            wait
            for run_identifier in run_identifiers
            for wait in self._waits.get(run_identifier, ())
            if not wait.done.done()
        ]

    # --------------------------------------------------------------- rounds

    async def _run(self) -> None:
        while True:
            await self._sleep()
            await self._round()

    async def _sleep(self) -> None:
        """Sleep until a wait is due, or until there is a new one that may be so earlier."""
        while True:
            self._wake.clear()
            due = min((wait.due for wait in self._open(self._waits)), default=math.inf)
            self._sleeps_until = max(due, self._not_before)
            left = self._sleeps_until - self._loop.time()
            if left <= 0:
                return
            timer = None if left == math.inf else self._loop.call_later(left, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _round(self) -> None:
        self._round_began = now = self._loop.time()
        waits = self._open(self._waits)
        due = [wait for wait in waits if wait.due <= now]
        # One List serves all that are due before its next one would be; and brings them into step.
        interval = min((wait.poll_interval for wait in due), default=0.0)
        soon = {wait.run_identifier for wait in waits if wait.due <= now + interval}
        if now >= self._estimate_list_at:
            self._list_cost = CHEAPEST_LIST
        if self._list_cost < len(soon):
            self._estimate_list_at = now + LIST_ESTIMATE_LIFE * interval
            active, complete = await self._list(budget=len(soon))
            asked = self._open(soon) if complete else due
            due = [wait for wait in asked if wait.run_identifier not in active]
        # No more Gets than fit into the shortest interval, and first for the waits that are late by the most
        # of theirs: hundreds of runs that have ended together do not hold up the other waits.
        due.sort(key=lambda wait: (wait.due - now) / max(wait.poll_interval, 0.001))
        shortest = min((wait.poll_interval for wait in waits), default=0.0)
        due = due[: max(THREADS, int(max(shortest, 1.0) * self._polls.rate.per_second))]
        await self._get(due)

    async def _list(self, budget: int) -> tuple[set[str], bool]:
        """
        Ask which runs are active.

        :param budget: Requests at most: as many as Gets would take.
        :return: The runs that need no Get, and whether these are all that DataZone lists as active.
        """
        active: set[str] = set()
        pages = failures = 0
        for status in ("SUBMITTED", "IN_PROGRESS"):
            next_token = None
            while True:
                if pages >= budget:
                    # It may still be cheaper than many more Gets.
                    self._list_cost = 2 * budget
                    return active, False
                pages += 1
                try:
                    runs, next_token = await self._poll(
                        self.source.list_page, status, next_token, asked=status
                    )
                except CredentialsRejectedError:
                    raise
                except Exception as error:
                    failures += 1
                    if is_transient(error) and failures < LIST_FAILURES:
                        continue
                    self._note_list_failure(error)
                    return active, False
                for run in runs:
                    if run.is_active and self._note_listed(run):
                        active.add(run.id)
                if next_token is None:
                    break
        self._list_cost = max(pages, CHEAPEST_LIST)
        return active, True

    def _note_listed(self, run: MetadataGenerationRun) -> bool:
        """Have the waits for a run look again an interval later; return whether that is soon enough."""
        soon_enough = True
        for wait in self._open([run.id]):
            wait.note(run)
            wait.is_listed = True
            if self._loop.time() >= wait.verify_at:
                # A List may go on telling of a run that has ended: some time, have Get say so.
                soon_enough = False
            else:
                self._look_again(wait)
        return soon_enough

    def _look_again(self, wait: _Wait) -> None:
        # From when the round began, so that those who were asked for together stay together.
        now = self._loop.time()
        wait.due = max(self._round_began, now - wait.poll_interval / 2) + wait.poll_interval

    def _note_list_failure(self, error: Exception) -> None:
        if is_transient(error):
            return
        self._list_cost = self._estimate_list_at = math.inf
        for wait in self._open(self._waits)[:1]:
            wait.log.warning("Runs cannot be listed, so each is read by itself: %s", error)

    async def _get(self, waits: list[_Wait]) -> None:
        """Read runs, several at a time, each once for all who wait for it."""
        queue = deque(dict.fromkeys((wait.run_identifier, wait.run_type) for wait in waits))
        failures = 0
        rejected: CredentialsRejectedError | None = None

        async def read_queue() -> None:
            nonlocal failures, rejected
            while queue and rejected is None and failures < FAILURES_IN_A_ROW:
                run_identifier, run_type = queue.popleft()
                if not self._open_of_type(run_identifier, run_type):
                    continue
                try:
                    run = await self._poll(self.source.get, run_identifier, run_type, asked=run_identifier)
                except CredentialsRejectedError as error:
                    rejected = error
                except Exception as error:
                    failures += self._note_get_failure(run_identifier, run_type, error)
                else:
                    failures = 0
                    self._note_run(run_type, run_identifier, run)

        await asyncio.gather(*(read_queue() for _ in range(min(THREADS, len(queue)))))
        if rejected is not None:
            raise rejected
        if failures < FAILURES_IN_A_ROW:
            self._pause = 0.0
        else:
            self._pause = min(max(self._pause * 2, 1.0), LONGEST_PAUSE)
            self._not_before = self._loop.time() + self._pause

    def _open_of_type(self, run_identifier: str, run_type: str | None) -> list[_Wait]:
        return [wait for wait in self._open([run_identifier]) if wait.run_type == run_type]

    def _note_run(self, run_type: str | None, run_identifier: str, run: MetadataGenerationRun) -> None:
        for wait in self._open_of_type(run_identifier, run_type):
            wait.note(run)
            if run.is_terminal:
                wait.done.set_result(run)
            else:
                self._look_again(wait)
                wait.verified(self._loop.time())

    def _note_get_failure(self, run_identifier: str, run_type: str | None, error: Exception) -> bool:
        """Fail the waits for a run, or have them try again; return whether to try again."""
        passes = is_transient(error)
        now = self._loop.time()
        for wait in self._open_of_type(run_identifier, run_type):
            if passes:
                wait.warn(error)
                self._look_again(wait)
            elif is_not_found(error) and wait.status is None and now < wait.known_by:
                wait.due = now + min(wait.poll_interval, GRACE_INTERVAL)
            else:
                wait.done.set_exception(error)
        return passes

    async def _poll(self, request: Callable[..., Awaitable[T]], *arguments: Any, asked: str) -> T:
        """Send a Get or a List when it is its turn, as :meth:`_ask` does."""
        await self.source.ready()
        async with self._polls.turn():
            return await self._ask(self._polls.rate, lambda: request(*arguments), asked)

    async def _ask(self, rate: RequestRate, request: Callable[[], Awaitable[T]], asked: str) -> T:
        """
        Send a request whose turn it is.

        :param rate: Whose turn it is, which adapts to how the request went.
        :param request: Sends it.
        :param asked: The run, asset or status that it is about.
        :raises CredentialsRejectedError: The poller's credentials are no longer good.
        :raises Exception: What DataZone answered.
        """
        sent_at = self._loop.time()
        try:
            answer = await request()
        except Exception as error:
            if is_throttling(error):
                rate.throttled(sent_at)
            if is_permanent(error):
                # Refused, but by somebody who knows us.
                self.has_answered = True
            if is_rejected_credentials(error):
                rejection = CredentialsRejectedError(str(error), asked)
                rejection.__cause__ = error
                # Retired at once, however many waits it still has: who comes next is to look the connection
                # up.
                self._end(rejection)
                raise rejection from error
            raise
        rate.answered()
        self.has_answered = True
        return answer


def _time_out(wait: _Wait) -> None:
    if not wait.done.done():
        status = f"its status is {wait.status}" if wait.status else "its status is not known"
        wait.done.set_exception(
            DeadlinePassedError(f"{wait.run_identifier!r} has not ended in time; {status}")
        )


_building = threading.Lock()


def _build_client(hook: DataZoneHook) -> None:
    """
    Build a hook's client without holding up the event loop.

    botocore makes some 100,000 objects of its description of DataZone, which sets off collections of the
    whole heap, and each of these stops every thread of the process.
    """
    with _building:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            signer = getattr(hook.conn, "_request_signer", None)
            # A role is assumed, or an instance asked, at the first signature: before the first turn, not
            # after.
            credentials = getattr(signer, "_credentials", None)
            if credentials is not None:
                credentials.get_frozen_credentials()
        finally:
            if was_enabled:
                gc.enable()


class HookSource:
    """
    Read runs through a hook, in a few threads: boto3 blocks, and so does building its client.

    :param hook: A hook whose connection has been looked up.
    :param domain_identifier: The domain.
    """

    def __init__(self, hook: DataZoneHook, domain_identifier: str) -> None:
        self._hook = hook.for_polling(MOST_THREADS)
        self._domain_identifier = domain_identifier
        # One for all: no more requests are in it than the lanes let through, so none waits for another
        # kind's.
        self._pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="datazone-poller")
        # One client, built once: the hook itself would build one for each thread that finds none.
        self._client = asyncio.get_running_loop().run_in_executor(self._pool, _build_client, self._hook)
        # Where it cannot be built, the first request meets the same error, and tells of it.
        self._client.add_done_callback(lambda client: client.cancelled() or client.exception())

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        return await self._in_thread(
            lambda: self._hook.get_metadata_generation_run(
                run_identifier, domain_identifier=self._domain_identifier, run_type=run_type
            )
        )

    async def list_page(
        self, status: str, next_token: str | None
    ) -> tuple[list[MetadataGenerationRun], str | None]:
        return await self._in_thread(
            lambda: self._hook.list_metadata_generation_runs_page(
                domain_identifier=self._domain_identifier,
                status=status,
                page_size=PAGE_SIZE,
                next_token=next_token,
            )
        )

    async def cancel(self, run_identifier: str) -> MetadataGenerationRun:
        return await self._in_thread(
            lambda: self._hook.cancel_metadata_generation_run_unless_ended(
                run_identifier, domain_identifier=self._domain_identifier, grace=0
            )
        )

    async def start(self, request: RunRequest, client_token: str, send: Send) -> MetadataGenerationRun:
        start: Callable[[], Any] = partial(
            self._hook.start_metadata_generation_run,
            request.asset_identifier,
            types=request.types,
            owning_project_identifier=request.owning_project_identifier,
            asset_revision=request.asset_revision,
            client_token=client_token,
            domain_identifier=request.domain_identifier,
        )
        return await self._in_thread(lambda: send(start))

    async def list_asset_page(
        self, asset_identifier: str, next_token: str | None
    ) -> tuple[list[MetadataGenerationRun], str | None]:
        return await self._in_thread(
            lambda: self._hook.list_metadata_generation_runs_page(
                domain_identifier=self._domain_identifier,
                asset_identifier=asset_identifier,
                page_size=PAGE_SIZE,
                next_token=next_token,
            )
        )

    def cancel_now(self, run_identifier: str) -> None:
        """Cancel a run, unless it has ended, from a thread of the caller's: the event loop stands still."""
        cancel_run_now(self._hook, run_identifier, self._domain_identifier)

    async def ready(self) -> None:
        if not self._client.done():
            await asyncio.wait([self._client])

    async def _in_thread(self, request: Callable[[], T]) -> T:
        await self.ready()
        return await asyncio.get_running_loop().run_in_executor(self._pool, request)

    def close(self) -> None:
        # The last job: what is still under way keeps its own connection, and drops it when it is done.
        self._pool.submit(self._hook.close)
        self._pool.shutdown(wait=False)


# ------------------------------------------------------------- what waits share


@dataclass(eq=False)
class _Connection:
    """
    A connection that has been looked up.

    :param hook: A hook that knows it.
    :param fingerprint: Of all that is in it, and of the task's own parameters.
    :param limited_as: What may tell whose limits its requests count against; one that is the same will do.
    """

    hook: DataZoneHook
    fingerprint: str
    limited_as: tuple[str, ...]
    is_rejected: bool = False


class _Shared:
    """What the waits of one event loop share; once they have ended, nothing in it holds on to the loop."""

    def __init__(self) -> None:
        self.connections: dict[str, tuple[float, _Connection]] = {}
        self.look_ups: dict[str, asyncio.Task[_Connection]] = {}
        self.pollers: dict[tuple[str, str], RunPoller] = {}
        self.rates: WeakValueDictionary[str, Rates] = WeakValueDictionary()

    async def connection(self, parameters: HookParameters) -> _Connection:
        """Look a connection up, once for all who ask within a short time."""
        loop = asyncio.get_running_loop()
        key = json.dumps(parameters, sort_keys=True)
        expires, known = self.connections.get(key, (0.0, None))
        if known is not None and not known.is_rejected and loop.time() < expires:
            return known
        look_up = self.look_ups.get(key)
        if look_up is None:

            def keep(done: asyncio.Task[_Connection]) -> None:
                del self.look_ups[key]
                if not done.cancelled() and done.exception() is None:
                    self.connections[key] = (loop.time() + CONNECTION_LIFE, done.result())

            # Through `sync_to_async`, one at a time: from plain threads, several at once, it kills the
            # whole triggerer on Airflow 3.0 ("Response read out of order!").
            look_up = self.look_ups[key] = loop.create_task(_look_up(parameters))
            look_up.add_done_callback(keep)
        # Shielded: others wait for it too, when one of them is cancelled.
        return await asyncio.shield(look_up)

    def reject(self, connection: _Connection) -> None:
        """Stop using a connection, and each lookup that resolved to the same credentials."""
        connection.is_rejected = True
        for _, known in self.connections.values():
            if known.fingerprint == connection.fingerprint:
                known.is_rejected = True

    def poller(self, connection: _Connection, domain_identifier: str) -> RunPoller:
        key = (connection.fingerprint, domain_identifier)
        poller = self.pollers.get(key)
        if poller is None:

            def forget() -> None:
                if self.pollers.get(key) is poller:
                    del self.pollers[key]
                # The next poller of the account is not to begin as if nothing had been sent or throttled. The
                # loop keeps them, and not what is shared: that must not hold on to the loop.
                loop.call_later(LONGEST_PAUSE, id, rates)

            loop = asyncio.get_running_loop()
            rates = self._rates(connection)
            poller = self.pollers[key] = RunPoller(
                HookSource(connection.hook, domain_identifier), rates, on_close=forget
            )
        return poller

    def _rates(self, connection: _Connection) -> Rates:
        """Return the rates of a connection's account and Region: DataZone's limits are theirs."""
        known = (self.rates.get(name) for name in connection.limited_as)
        rates = next((found for found in known if found is not None), None) or Rates.configured()
        for name in connection.limited_as:
            self.rates[name] = rates
        return rates


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()


def requests_per_second(option: str) -> float:
    """Return what the section ``datazone`` of Airflow's configuration says of a rate."""
    value = conf.getfloat("datazone", option, fallback=10.0)
    if not 0 < value < math.inf:
        raise ValueError(f"[datazone] {option} must be a number above 0, and is {value}.")
    return float(value)


@sync_to_async
def _look_up(parameters: HookParameters) -> _Connection:
    hook = DataZoneHook(
        parameters.aws_conn_id,
        region_name=parameters.region_name,
        verify=parameters.verify,
        config=parameters.botocore_config,
    )
    config = hook.conn_config
    parts = [parameters, config.login, config.password, config.extra_config]
    text = json.dumps(parts, sort_keys=True, default=repr)
    return _Connection(hook, hashlib.sha256(text.encode()).hexdigest(), _limited_as(hook))


def _limited_as(hook: DataZoneHook) -> tuple[str, ...]:
    """
    Return names for the account and Region whose limits a hook's requests count against.

    The connection's name stays when its credentials are edited; credentials of the same account may stand in
    several connections. What shares either of the two shares a rate.
    """
    config = hook.conn_config
    where = [hook.region_name, config.get_service_endpoint_url("datazone")]
    # The account of a role stands in its ARN.
    principal = (config.role_arn or "").split(":")[4:5] or config.login or config.profile_name
    return tuple(
        json.dumps([kind, value, *where], default=repr)
        for kind, value in (("connection", hook.aws_conn_id), ("principal", principal))
    )


async def wait_for_run(
    parameters: HookParameters,
    run_identifier: str,
    *,
    domain_identifier: str,
    run_type: str | None,
    poll_interval: float,
    timeout: float | None,
    log: logging.Logger,
) -> MetadataGenerationRun:
    """
    Wait until a metadata generation run has ended, on the poller of all who have the same connection.

    :param parameters: What makes the hook.
    :param run_identifier: The run.
    :param domain_identifier: The domain.
    :param run_type: Read this type alone.
    :param poll_interval: Seconds between two looks.
    :param timeout: Seconds to wait at most, ``None`` for without end.
    :param log: Where to log changes of the run, and passing trouble.
    :return: The terminal run, as Get answered it.
    :raises DeadlinePassedError: The run has not ended in time.
    :raises Exception: What the look-up of the connection, or DataZone, answered.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout

    async def wait(poller: RunPoller) -> MetadataGenerationRun:
        return await poller.wait(
            run_identifier,
            run_type=run_type,
            poll_interval=poll_interval,
            timeout=None if deadline is None else deadline - loop.time(),
            log=log,
        )

    return await on_poller(
        parameters, domain_identifier, wait, about=run_identifier, log=log, deadline=deadline
    )


async def cancel_run(
    parameters: HookParameters, run_identifier: str, *, domain_identifier: str, log: logging.Logger
) -> MetadataGenerationRun:
    """
    Cancel a metadata generation run unless it has ended, on the client of all who have the same connection.

    :param parameters: What makes the hook.
    :param run_identifier: The run.
    :param domain_identifier: The domain.
    :param log: Where to log passing trouble.
    :return: The run as it is afterwards.
    :raises Exception: What the look-up of the connection, or DataZone, answered.
    """

    async def cancel(poller: RunPoller) -> MetadataGenerationRun:
        return await poller.cancel(run_identifier, log)

    return await on_poller(parameters, domain_identifier, cancel, about=run_identifier, log=log)


async def on_poller(
    parameters: HookParameters,
    domain_identifier: str,
    job: Callable[[RunPoller], Awaitable[T]],
    *,
    about: str,
    log: logging.Logger,
    deadline: float | None = None,
) -> T:
    """
    Do something on a poller; if its credentials are rejected, on one with what the connection says now.

    :param about: The run that the job is about, or an empty text.
    :param deadline: Event loop time at which to give up the lookup of the connection; the job has its own.
    :raises DeadlinePassedError: The connection is not known by then.
    """
    shared = _shared.setdefault(asyncio.get_running_loop(), _Shared())
    rejections = 0
    while True:
        connection = await _by(deadline, shared.connection(parameters), about)
        poller = shared.poller(connection, domain_identifier)
        try:
            # Held: a job that ends before it waits for anything would leave a poller behind.
            with poller.held():
                return await job(poller)
        except PollerEndedError:
            continue
        except CredentialsRejectedError as error:
            shared.reject(connection)
            # Not the credentials, where others' requests are answered and this one never was. A wait that had
            # been answered may be long enough to see credentials come and go many a time.
            never_answered = error.asked == about and about not in poller.had_answered_about
            hopeless = not poller.has_answered or never_answered
            if rejections and hopeless:
                raise error.__cause__ or error from None
            name = parameters.aws_conn_id
            source = f"connection {name}" if name else "boto3's own credentials"
            log.info("The credentials were rejected; looking %s up again.", source)
            if rejections:
                # Something is answered and something is not, again and again: no storm of look-ups for that.
                pause = asyncio.sleep(min(2.0 ** min(rejections - 1, 6), LONGEST_PAUSE))
                await _by(deadline, pause, about)
            rejections += 1


async def _by(deadline: float | None, step: Coroutine[Any, Any, T], about: str) -> T:
    """Do something that has no deadline of its own; without ``wait_for``, as a lookup may time out, too."""
    if deadline is None:
        return await step
    task = asyncio.ensure_future(step)
    try:
        await asyncio.wait({task}, timeout=max(deadline - asyncio.get_running_loop().time(), 0))
        if not task.done():
            raise DeadlinePassedError(f"{about!r} has not ended in time; its status is not known")
        return task.result()
    finally:
        task.cancel()
