"""
One poller for all waits and watches with the same credentials, Region and domain.

A triggerer may run ten thousand waits, and none of them may block its event loop. So waits share one
connection lookup, one boto3 client in a few threads, one request rate, and one List request for fifty runs.

Each round sends the cheaper requests. For few waits: one Get per run. For many: List of the ``SUBMITTED``
runs, then of the ``IN_PROGRESS`` ones (in this order a run that changes its status in between is still
listed), and a Get for each run that neither returned. Only a Get ends a wait. So a List that is late,
incomplete, denied, or full of other users' runs costs requests, but never causes a wrong result. Watches have
a loop of their own, see :mod:`~airflow_provider_datazone.polling.watch_loop`.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from airflow_provider_datazone.polling.errors import CredentialsRejectedError, PollerEndedError
from airflow_provider_datazone.polling.rate import LONGEST_PAUSE, POLL_THREADS, Rates
from airflow_provider_datazone.polling.sender import RequestSender
from airflow_provider_datazone.polling.timer import wait_for_event
from airflow_provider_datazone.polling.wait import Wait
from airflow_provider_datazone.polling.watch_loop import WatchLoop
from airflow_provider_datazone.service_errors import is_throttling, is_transient, may_be_new

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
    from airflow_provider_datazone.polling.source import RunSource
    from airflow_provider_datazone.polling.watch import RunWatch

# Transient errors in a row after which a round ends.
MAX_FAILURES_IN_A_ROW = 2 * POLL_THREADS
# Requests of the cheapest List: a page for each of the two statuses.
CHEAPEST_LIST = 2
# Rounds until List is tried again after it cost more than Gets: the runs of other users may have ended.
LIST_COST_ROUNDS = 20
# Seconds until the next List after DataZone refuses one, for example for lack of a permission.
REFUSED_LIST_PAUSE = 600.0
# After a List that fails otherwise, the pause is this many times as long as the List took.
LIST_PAUSE_FACTOR = 3


class RunPoller:
    """
    Poll the runs of all waits and watches until the last one ends.

    :param source: Where to send requests; closed with the last wait or watch.
    :param rates: The request rates, which pollers of the same account and Region share.
    :param on_close: Called when the last wait or watch has ended, or when DataZone rejects the credentials.
    :param on_round: Called before each round.
    """

    def __init__(
        self,
        source: RunSource,
        rates: Rates,
        on_close: Callable[[], None],
        on_round: Callable[[], None] = lambda: None,
    ) -> None:
        self.sender = RequestSender(source, rates, on_rejected=self._end)
        #: The runs of interrupted waits that DataZone had returned before the poller ended.
        self.answered_runs: set[str] = set()
        self._holders = 0
        self._on_close = on_close
        self._on_round = on_round
        # Why the poller accepts no more waits; None while it accepts them.
        self._ended: BaseException | None = None
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._waits: dict[str, list[Wait]] = {}
        # One bound method for all waits.
        self._on_wait_end = self._remove
        self._watch_loop = WatchLoop(source, rates, self._end_waits)
        self._wake = asyncio.Event()
        self._sleeps_until = math.inf
        self._round_began = 0.0
        # Number of requests for a complete List, and when to measure it again.
        self._list_cost: float = CHEAPEST_LIST
        self._measure_list_at = 0.0
        self._not_before = 0.0
        self._pause = 0.0
        # In an empty context: log lines of the poller belong to the triggerer, not to the first task.
        self._task: asyncio.Task[None] = contextvars.Context().run(self._loop.create_task, self._run())
        self._task.add_done_callback(self._fail_all)

    def wait(
        self,
        run_identifier: str,
        *,
        run_type: str | None,
        poll_interval: float,
        timeout: float | None,
        log: logging.Logger,
        on_active: Callable[[], None] | None = None,
    ) -> asyncio.Future[MetadataGenerationRun]:
        """
        Wait until Get returns the run as terminal.

        :param timeout: Maximum seconds to wait, ``None`` for no limit.
        :param on_active: Called whenever a poll returns the run as active.
        :return: The run. It is a future and not a coroutine, which would take more memory.
        :raises DeadlinePassedError: The run has not ended by then.
        :raises CredentialsRejectedError: The poller ends; another one may have valid credentials.
        :raises PollerEndedError: The poller had ended before.
        :raises Exception: DataZone's error for this run.
        """
        self._require_open()
        wait = Wait.begin(
            run_identifier,
            run_type,
            poll_interval=poll_interval,
            timeout=timeout,
            log=log,
            on_end=self._on_wait_end,
            on_active=on_active,
        )
        if run_identifier in self._waits:
            self._waits[run_identifier].append(wait)
        else:
            # An empty list would reserve room for four waits.
            self._waits[run_identifier] = [wait]
        # Wake the poller only if this wait is due first, since it then checks all waits.
        if wait.due < self._sleeps_until:
            self._wake.set()
        return wait.result

    async def watch(self, watch: RunWatch) -> None:
        """
        Keep a watch up to date until the caller is canceled.

        :raises CredentialsRejectedError: DataZone rejects the credentials.
        :raises PollerEndedError: The poller had ended before.
        :raises Exception: DataZone does not list the runs, for a reason that another try does not change.
        """
        self._require_open()
        try:
            await self._watch_loop.keep(watch)
        finally:
            self._close_if_idle()

    def _end_waits(self, run: MetadataGenerationRun) -> None:
        """End the waits for a run that was read for a watch."""
        if run.is_terminal and self._open_of_type(run.id, None):
            self._on_run(run.id, None, run)

    @property
    def number_of_waits(self) -> int:
        """The number of waits."""
        return sum(map(len, self._waits.values()))

    def _remove(self, wait: Wait) -> None:
        if self._ended is not None and wait.status is not None:
            self.answered_runs.add(wait.run_identifier)
        waits = self._waits[wait.run_identifier]
        waits.remove(wait)
        if not waits:
            del self._waits[wait.run_identifier]
        self._close_if_idle()

    @contextmanager
    def keep_open(self) -> Iterator[None]:
        """Keep the poller open while a caller sends its own requests."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not (self._waits or self._watch_loop or self._holders or self._is_closed):
            self._is_closed = True
            self._end(PollerEndedError("the poller had no waits and watches left"))
            self.sender.source.close()

    def _require_open(self) -> None:
        if isinstance(self._ended, CredentialsRejectedError):
            raise CredentialsRejectedError(str(self._ended), self._ended.subject) from self._ended.__cause__
        if self._ended is not None:
            raise PollerEndedError(str(self._ended)) from self._ended

    def _end(self, error: BaseException) -> None:
        """Accept no more waits and watches, and fail the open ones."""
        if self._ended is not None:
            return
        self._ended = error
        self._on_close()
        self._task.cancel()
        for wait in self._open(self._waits):
            wait.fail(error)
        self._watch_loop.fail(error)

    def _fail_all(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._end(error or PollerEndedError("the poller ended while it had waits"))

    def _open(self, run_identifiers: Iterable[str]) -> list[Wait]:
        """Return the open waits for runs."""
        return [
            wait
            for run_identifier in run_identifiers
            for wait in self._waits.get(run_identifier, ())
            if wait.is_open
        ]

    # --------------------------------------------------------------- rounds

    async def _run(self) -> None:
        while True:
            await self._sleep()
            self._on_round()
            await self._poll_once()

    async def _sleep(self) -> None:
        """Sleep until a wait is due, or until a new wait may be due earlier."""
        while True:
            self._wake.clear()
            due = min((wait.due for wait in self._open(self._waits)), default=math.inf)
            self._sleeps_until = max(due, self._not_before)
            if self._sleeps_until <= self._loop.time():
                return
            await wait_for_event(self._wake, self._sleeps_until)

    async def _poll_once(self) -> None:
        """Run one round: List if it is cheaper, then Get."""
        # A queue of runs and not of waits, which would keep the results of the round until its end.
        queue = await self._find_unread()
        await self._get(queue)

    async def _find_unread(self) -> deque[tuple[str, str | None]]:
        """Return the runs that have to be read, each with the type to read, the most urgent first."""
        self._round_began = now = self._loop.time()
        waits = self._open(self._waits)
        due = [wait for wait in waits if wait.due <= now]
        # One List serves all waits that are due before the next List. From then on they are due together.
        interval = min((wait.poll_interval for wait in due), default=0.0)
        soon = {wait.run_identifier for wait in waits if wait.due <= now + interval}
        if now >= self._measure_list_at:
            self._list_cost = CHEAPEST_LIST
        if self._list_cost < len(soon):
            self._measure_list_at = now + LIST_COST_ROUNDS * interval
            if await self._list(soon):
                due = self._open(soon)
            else:
                due = [wait for wait in due if wait.run_identifier in soon]
        # Limit the Gets to what fits into the shortest interval, so that hundreds of runs that end together
        # do not delay the other waits. Waits that are late by the largest share of their interval come first.
        due.sort(key=lambda wait: (wait.due - now) / max(wait.poll_interval, 0.001))
        shortest = min((wait.poll_interval for wait in waits), default=0.0)
        gets = int(max(shortest, 1.0) * self.sender.rates.polls.per_second)
        most_urgent = due[: max(POLL_THREADS, gets)]
        return deque(dict.fromkeys((wait.run_identifier, wait.run_type) for wait in most_urgent))

    async def _list(self, unlisted: set[str]) -> bool:
        """
        List the active runs, with as many requests as Gets would need.

        :param unlisted: The runs of waits. Those that are listed as active, and need no Get, are removed.
        :return: Whether the List is complete.
        """
        budget, pages = len(unlisted), 0
        try:
            async with aclosing(self.sender.list_active_runs()) as listed:
                async for runs in listed:
                    unlisted.difference_update([run.id for run in runs if self._on_listed(run)])
                    pages += 1
                    if pages >= budget:
                        # List is tried again only for more than twice as many runs.
                        self._list_cost = 2 * budget
                        return False
        except CredentialsRejectedError:
            raise
        except Exception as error:
            self._on_list_failure(error)
            return False
        self._list_cost = max(pages, CHEAPEST_LIST)
        return True

    def _on_listed(self, run: MetadataGenerationRun) -> bool:
        """Schedule the waits for a listed run; return whether the run needs no Get."""
        now = self._loop.time()
        needs_no_get = True
        for wait in self._open([run.id]):
            if wait.on_listed(run, now):
                wait.schedule(now, self._round_began)
            else:
                needs_no_get = False
        return needs_no_get

    def _on_list_failure(self, error: Exception) -> None:
        """Send no List for a while, so that one that hangs does not delay each round."""
        now = self._loop.time()
        if is_throttling(error):
            # The Gets would be throttled, too, and there are more of them.
            return
        seconds = now - self._round_began
        pause = LIST_PAUSE_FACTOR * seconds
        if not is_transient(error):
            pause = REFUSED_LIST_PAUSE
            for wait in self._open(self._waits)[:1]:
                wait.log.warning("Runs cannot be listed just now, so each one is read with a Get: %s", error)
        elif len(self._waits) / self.sender.rates.polls.per_second > seconds:
            # The Gets would delay the waits more than another List that fails.
            return
        self._list_cost, self._measure_list_at = math.inf, now + pause

    async def _get(self, queue: deque[tuple[str, str | None]]) -> None:
        """Read runs, several at a time, each one once for all its waits."""
        failures = 0

        async def read_queue() -> None:
            nonlocal failures
            while queue and failures < MAX_FAILURES_IN_A_ROW:
                run_identifier, run_type = queue.popleft()
                if not self._open_of_type(run_identifier, run_type):
                    continue
                try:
                    run = await self.sender.get(run_identifier, run_type)
                except CredentialsRejectedError:
                    # It has ended the poller.
                    queue.clear()
                except Exception as error:
                    failures += self._on_get_failure(run_identifier, run_type, error)
                else:
                    failures = 0
                    self._on_run(run_identifier, run_type, run)

        await asyncio.gather(*(read_queue() for _ in range(min(POLL_THREADS, len(queue)))))
        if failures < MAX_FAILURES_IN_A_ROW:
            self._pause = 0.0
        else:
            self._pause = min(max(self._pause * 2, 1.0), LONGEST_PAUSE)
            self._not_before = self._loop.time() + self._pause

    def _open_of_type(self, run_identifier: str, run_type: str | None) -> list[Wait]:
        return [wait for wait in self._open([run_identifier]) if wait.run_type == run_type]

    def _on_run(self, run_identifier: str, run_type: str | None, run: MetadataGenerationRun) -> None:
        now = self._loop.time()
        if run_type is None and run.is_terminal:
            self._watch_loop.update(run)
        for wait in self._open_of_type(run_identifier, run_type):
            wait.on_status(run)
            if run.is_terminal:
                wait.end(run)
            else:
                wait.schedule(now, self._round_began)
                wait.on_verified(now)

    def _on_get_failure(self, run_identifier: str, run_type: str | None, error: Exception) -> bool:
        """Fail the waits for a run, or schedule another poll; return whether the error is transient."""
        now = self._loop.time()
        should_retry = is_transient(error)
        for wait in self._open_of_type(run_identifier, run_type):
            if should_retry:
                wait.warn(error)
                wait.schedule(now, self._round_began)
            elif may_be_new(error) and wait.may_be_new(now):
                wait.schedule_retry(now)
            else:
                wait.fail(error)
        return should_retry
