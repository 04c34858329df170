"""Cancel the runs of a task that Airflow kills in its worker, within the seconds until the process ends."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from airflow_provider_datazone.polling.rate import CANCEL_THREADS, CANCELS_PER_SECOND
from airflow_provider_datazone.service_errors import is_conflict, is_not_found, is_transient
from airflow_provider_datazone.version_compat import SECONDS_UNTIL_SIGKILL, conf

if TYPE_CHECKING:
    import logging

# Seconds until a Cancel is sent again after a transient error.
_RETRY_INTERVAL = 1.0
# Seconds for DataZone's response to the last requests.
_RESPONSE_SECONDS = 1.0
# Seconds that remain for the task when cancellation stops.
_RESERVED_SECONDS = 0.5
# Maximum seconds to write the report.
_LOG_SECONDS = 2.0
# Maximum number of runs that a log line names.
_MAX_LISTED_RUNS = 20


def cancel_runs(
    cancel: Callable[[str], object],
    active_runs: Callable[[], Iterable[str]],
    *,
    may_grow: Callable[[], bool] = lambda: False,
    log: logging.Logger,
) -> None:
    """
    Cancel runs at DataZone's rate until Airflow ends the process.

    A signal handler calls this. The code that it interrupted may hold a lock of a client or of the event
    loop. So each request has its own thread, which this function abandons at its deadline.

    :param cancel: Cancels one run unless it has ended; called in several threads.
    :param active_runs: Returns the runs to cancel that are known so far.
    :param may_grow: Whether there may soon be more runs.
    :param log: The task's log, which names the runs that may continue.
    """
    _Cancellation(cancel, active_runs, may_grow, log).run()


class _Cancellation:
    """The state of one call of :func:`cancel_runs`, whose parameters it has."""

    def __init__(
        self,
        cancel: Callable[[str], object],
        active_runs: Callable[[], Iterable[str]],
        may_grow: Callable[[], bool],
        log: logging.Logger,
    ) -> None:
        self._cancel = cancel
        self._active_runs = active_runs
        self._may_grow = may_grow
        self._log = log
        self._seconds = conf.getfloat("core", "killed_task_cleanup_time", fallback=60)
        self._known: set[str] = set()
        self._waiting: deque[str] = deque()
        self._retries: list[tuple[float, str]] = []
        self._in_flight: set[str] = set()
        self._canceled: list[str] = []
        self._refused: dict[str, BaseException] = {}
        self._responses: queue.SimpleQueue[tuple[str, BaseException | None]] = queue.SimpleQueue()

    def run(self) -> None:
        deadline = time.monotonic() + self._seconds - _RESERVED_SECONDS
        next_turn = time.monotonic()
        while (now := time.monotonic()) < deadline:
            # Before the runs are read: a run that becomes known in between is read in the next round.
            grows = self._may_grow()
            self._read_runs()
            self._read_responses(now)
            if self._waiting and len(self._in_flight) < CANCEL_THREADS and now >= next_turn:
                self._send(self._waiting.popleft())
                next_turn = max(next_turn, now - 1 / CANCELS_PER_SECOND) + 1 / CANCELS_PER_SECOND
            elif not (self._waiting or self._retries or self._in_flight or grows):
                break
            else:
                time.sleep(0.005)
        if self._known or self._may_grow():
            _in_thread(self._report).join(_LOG_SECONDS)

    def _read_runs(self) -> None:
        new = [run for run in self._active_runs() if run not in self._known]
        is_first = not self._known
        self._known.update(new)
        self._waiting.extend(new)
        if new and is_first:
            _in_thread(self._announce, list(new))

    def _read_responses(self, now: float) -> None:
        while not self._responses.empty():
            run, error = self._responses.get()
            self._in_flight.discard(run)
            if error is None:
                self._canceled.append(run)
            elif is_transient(error) or is_not_found(error) or is_conflict(error):
                self._retries.append((now + _RETRY_INTERVAL, run))
            else:
                self._refused[run] = error
        self._waiting.extend(run for due, run in self._retries if due <= now)
        self._retries = [(due, run) for due, run in self._retries if due > now]

    def _send(self, run: str) -> None:
        def send() -> None:
            try:
                self._cancel(run)
            except Exception as error:
                self._responses.put((run, error))
            else:
                self._responses.put((run, None))

        self._in_flight.add(run)
        threading.Thread(target=send, daemon=True).start()

    def _announce(self, runs: list[str]) -> None:
        """Log the number of runs before they are canceled: Airflow ends the process without a message."""
        self._log.info("Canceling %s runs, at most %.0f per second.", f"{len(runs):,}", CANCELS_PER_SECOND)
        seconds = SECONDS_UNTIL_SIGKILL or self._seconds
        late = runs[int(CANCELS_PER_SECOND * (seconds - _RESPONSE_SECONDS)) :]
        if late:
            self._log.warning(
                "Airflow ends this process in %.0f seconds, so about %s runs may continue; "
                "a retry resumes them: %s",
                seconds,
                f"{len(late):,}",
                _list(late),
            )

    def _report(self) -> None:
        if self._canceled:
            self._log.info("Canceled, or had already ended: %s", _list(self._canceled))
        for run, error in self._refused.items():
            self._log.warning("Metadata generation run %s was not canceled and may continue: %s", run, error)
        left = [*self._in_flight, *self._waiting, *(run for _, run in self._retries)]
        if left or not (self._canceled or self._refused):
            runs = _list(left) or "a run that was being started"
            self._log.warning("Not canceled in time, may continue: %s", runs)


def _in_thread(function: Callable[..., None], *arguments: object) -> threading.Thread:
    """Write the log in a thread: the code that the signal handler interrupted may hold the log's lock."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _list(runs: list[str]) -> str:
    more = f" and {len(runs) - _MAX_LISTED_RUNS:,} more" if len(runs) > _MAX_LISTED_RUNS else ""
    return ", ".join(runs[:_MAX_LISTED_RUNS]) + more
