"""
The loop of a poller for its watches: it lists the active runs of the domain, and reads those that have ended.

It runs beside the rounds for the waits, with the same client and at the same request rate. A List of a whole
domain may have many pages, and must not delay a wait. All watches share each List and each Get.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_datazone.polling.errors import CredentialsRejectedError
from airflow_provider_datazone.polling.rate import WATCH_THREADS
from airflow_provider_datazone.polling.sender import RequestSender
from airflow_provider_datazone.polling.timer import wait_for_event
from airflow_provider_datazone.service_errors import is_transient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
    from airflow_provider_datazone.polling.rate import Rates
    from airflow_provider_datazone.polling.source import RunSource
    from airflow_provider_datazone.polling.watch import RunWatch

# Transient errors in a row after which the other runs are read after the next List.
MAX_GET_FAILURES = 2 * WATCH_THREADS
# Incomplete Lists in a row after which the followed runs that no page returned are read.
MAX_INCOMPLETE_LISTS = 3
# Maximum number of them that are read after each such List: most may be active, and waits share the rate.
MAX_READS_WITHOUT_LIST = 20


class WatchLoop:
    """
    Keep watches up to date, while there are any.

    :param source: Where to send requests.
    :param rates: The request rates, which pollers of the same account and Region share.
    :param on_run: Called with each run that Get returned.
    """

    def __init__(
        self, source: RunSource, rates: Rates, on_run: Callable[[MetadataGenerationRun], None]
    ) -> None:
        # A separate sender, so that credentials that are rejected here do not end waits, which look the
        # connection up again only once.
        self._sender = RequestSender(source, rates, on_rejected=self.fail, poll_threads=WATCH_THREADS)
        self._on_run = on_run
        # Each with the future that fails when its caller has to end.
        self._watches: dict[RunWatch, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._has_logged_failure = False
        # In a row.
        self._incomplete_lists = 0

    def __bool__(self) -> bool:
        return bool(self._watches)

    async def keep(self, watch: RunWatch) -> None:
        """
        Keep a watch up to date until the caller is canceled.

        :raises Exception: Why the watch cannot be kept up to date.
        """
        loop = asyncio.get_running_loop()
        # A watch that was kept before waits for its time, so that errors do not cause more requests.
        watch.due = max(watch.due, loop.time())
        failure = self._watches[watch] = loop.create_future()
        if self._task is None or self._task.done():
            # In an empty context: log lines belong to the triggerer, not to a task.
            self._task = contextvars.Context().run(loop.create_task, self._run())
            self._task.add_done_callback(self._on_end)
        self._wake.set()
        try:
            await failure
        finally:
            del self._watches[watch]
            if not self._watches and self._task is not None:
                self._task.cancel()
                self._task = None

    def fail(self, error: BaseException) -> None:
        """Let the caller of each watch fail with an error."""
        for failure in self._watches.values():
            if not failure.done():
                failure.set_exception(error)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)

    def update(self, run: MetadataGenerationRun) -> None:
        """Update all watches with a run that Get returned, with the typeStats of all its types."""
        now = asyncio.get_running_loop().time()
        for watch in self._watches:
            watch.on_run(run, now)

    @property
    def _due(self) -> float:
        return min((watch.due for watch in self._watches), default=math.inf)

    async def _run(self) -> None:
        while True:
            await self._sleep()
            try:
                unread = await self._list()
                await self._read(unread)
            except CredentialsRejectedError:
                # The watches have failed. Let their callers remove them.
                await asyncio.sleep(0)

    async def _sleep(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due > loop.time():
            self._wake.clear()
            await wait_for_event(self._wake, self._due)

    async def _list(self) -> list[str]:
        """
        List the active runs for all watches.

        :return: The runs that have to be read, in order.
        """
        began = asyncio.get_running_loop().time()
        runs: dict[str, MetadataGenerationRun] = {}
        is_complete = False
        try:
            async for page in self._sender.list_active_runs():
                page_runs = {run.id: run for run in page}
                for watch in self._watches:
                    watch.on_page(page_runs)
                runs |= page_runs
            is_complete = True
        except CredentialsRejectedError:
            self._schedule(began, is_complete=False)
            raise
        except Exception as error:
            if is_transient(error):
                self._log_failure(error)
            else:
                self.fail(error)
        # Not if this task is canceled: a watch that has begun since then belongs to the next task.
        self._schedule(began, is_complete=is_complete)
        self._incomplete_lists = 0 if is_complete else self._incomplete_lists + 1
        unread = await self._update_all(runs, is_complete=is_complete)
        if is_complete and self._has_logged_failure:
            self._has_logged_failure = False
            self._log("The runs are listed again.", level=logging.INFO)
        # Runs that Get does not return as terminal must not delay others, nor must runs that end later.
        ordered = sorted(unread, key=unread.__getitem__)
        return ordered if is_complete else ordered[:MAX_READS_WITHOUT_LIST]

    def _schedule(self, began: float, *, is_complete: bool) -> None:
        now = asyncio.get_running_loop().time()
        for watch in self._watches:
            watch.schedule(now, began, is_complete=is_complete)

    async def _update_all(
        self, runs: Mapping[str, MetadataGenerationRun], *, is_complete: bool
    ) -> dict[str, tuple[float, float]]:
        listed = frozenset(runs)
        unread: dict[str, tuple[float, float]] = {}
        for watch in list(self._watches):
            watch.on_listed(runs, listed, is_complete=is_complete)
            # A page may fail forever.
            if is_complete or self._incomplete_lists >= MAX_INCOMPLETE_LISTS:
                unread |= watch.unlisted(listed, asyncio.get_running_loop().time())
            # Many watches of many runs take some time.
            await asyncio.sleep(0)
        return unread

    async def _read(self, runs: Sequence[str]) -> None:
        """Read runs until a List is due, also for a watch that begins; the others are then read later."""
        loop = asyncio.get_running_loop()
        queue = deque(runs)
        failures = 0

        async def read_queue() -> None:
            nonlocal failures
            while queue and failures < MAX_GET_FAILURES and loop.time() < self._due:
                run_identifier = queue.popleft()
                if not any(run_identifier in watch.following for watch in self._watches):
                    continue
                try:
                    run = await self._sender.get(run_identifier, None)
                except CredentialsRejectedError:
                    queue.clear()
                except Exception as error:
                    failures += is_transient(error)
                    for watch in self._watches:
                        watch.on_get_failure(run_identifier, error, loop.time())
                else:
                    failures = 0
                    self.update(run)
                    self._on_run(run)

        await asyncio.gather(*(read_queue() for _ in range(min(WATCH_THREADS, len(queue)))))

    def _log_failure(self, error: BaseException) -> None:
        """Log the first failure of a List in a row."""
        if not self._has_logged_failure:
            self._has_logged_failure = True
            self._log(f"Could not list the runs just now, will try again: {error}")

    def _log(self, message: str, level: int = logging.WARNING) -> None:
        """Log a message once for all watches."""
        for watch in [*self._watches][:1]:
            watch.log.log(level, message)
