"""Cancel the runs of a task that is killed in its worker, in the seconds that Airflow leaves it."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from airflow_provider_datazone.hooks.datazone import is_conflict, is_not_found, is_transient, may_have_ended
from airflow_provider_datazone.version_compat import SECONDS_UNTIL_SIGKILL, conf

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.hooks.datazone import DataZoneHook

# What DataZone allows for the account, in a second.
CANCELS_PER_SECOND = 20.0
# Enough to keep that rate at a latency of a second.
CANCEL_THREADS = 24
# Seconds until a Cancel that failed for a reason that passes is sent again.
_PAUSE = 1.0
# Seconds that DataZone may take for an answer.
_ANSWER = 1.0
# Seconds that are left to the task when no more is canceled.
_RESERVE = 0.5
# Seconds that the report may take.
_LOG_SECONDS = 2.0
# How many runs a log line names.
_LISTED_RUNS = 20


def cancel_run(hook: DataZoneHook, run_identifier: str, domain_identifier: str | None) -> None:
    """
    Cancel a run, unless it has ended.

    Without a line in the log: what the signal handler has interrupted may hold the log's lock.

    :raises Exception: What DataZone answered.
    """
    try:
        hook.cancel_metadata_generation_run(run_identifier, domain_identifier=domain_identifier)
    except ClientError as error:
        if not may_have_ended(error):
            raise
        run = hook.get_metadata_generation_run(run_identifier, domain_identifier=domain_identifier)
        if not run.is_terminal:
            raise


def cancel_runs(
    cancel: Callable[[str], object],
    active_runs: Callable[[], Iterable[str]],
    *,
    may_grow: Callable[[], bool] = lambda: False,
    log: logging.Logger,
) -> None:
    """
    Cancel runs at the rate that DataZone allows, for as long as Airflow lets the process live.

    A signal handler calls this: what it has interrupted may hold a lock of a client or of the event loop. So
    each request has a thread of its own, which nobody waits for when the time is up.

    :param cancel: Cancels one run unless it has ended; called in several threads.
    :param active_runs: Returns the runs that are to be canceled, as far as they are known by then.
    :param may_grow: Whether there may soon be more of them.
    :param log: The task's log, which names the runs that may go on.
    """
    seconds = conf.getfloat("core", "killed_task_cleanup_time", fallback=60)
    deadline = time.monotonic() + seconds - _RESERVE
    waiting: deque[str] = deque()
    again: list[tuple[float, str]] = []
    under_way: set[str] = set()
    known: set[str] = set()
    canceled: list[str] = []
    refused: dict[str, BaseException] = {}
    answers: queue.SimpleQueue[tuple[str, BaseException | None]] = queue.SimpleQueue()

    def send(run: str) -> None:
        try:
            cancel(run)
        except Exception as error:
            answers.put((run, error))
        else:
            answers.put((run, None))

    next_turn = time.monotonic()
    is_announced = False
    while (now := time.monotonic()) < deadline:
        grows = may_grow()
        new = [run for run in active_runs() if run not in known]
        known.update(new)
        waiting.extend(new)
        if waiting and not is_announced:
            is_announced = True
            _in_thread(_announce, list(waiting), SECONDS_UNTIL_SIGKILL or seconds, log)
        while not answers.empty():
            run, error = answers.get()
            under_way.discard(run)
            if error is None:
                canceled.append(run)
            elif is_transient(error) or is_not_found(error) or is_conflict(error):
                again.append((now + _PAUSE, run))
            else:
                refused[run] = error
        waiting.extend(run for due, run in again if due <= now)
        again = [(due, run) for due, run in again if due > now]
        if waiting and len(under_way) < CANCEL_THREADS and now >= next_turn:
            run = waiting.popleft()
            under_way.add(run)
            threading.Thread(target=send, args=(run,), daemon=True).start()
            next_turn = max(next_turn, now - 1 / CANCELS_PER_SECOND) + 1 / CANCELS_PER_SECOND
        elif not (waiting or again or under_way or grows):
            break
        else:
            time.sleep(0.005)
    left = [*under_way, *waiting, *(run for _, run in again)]
    if known or may_grow():
        _in_thread(_report, canceled, refused, left, log).join(_LOG_SECONDS)


def _in_thread(function: Callable[..., None], *arguments: object) -> threading.Thread:
    """Call what logs in a thread: what the signal handler has interrupted may hold the log's lock."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _report(
    canceled: list[str], refused: dict[str, BaseException], left: list[str], log: logging.Logger
) -> None:
    if canceled:
        log.info("Canceled, or had ended: %s", _list(canceled))
    for run, error in refused.items():
        log.warning("Metadata generation run %s was not canceled; it may go on: %s", run, error)
    if left or not (canceled or refused):
        log.warning("Not canceled in time, and may go on: %s", _list(left) or "a run that was being started")


def _announce(runs: list[str], seconds: float, log: logging.Logger) -> None:
    """Log what is about to be done, while there is time to: Airflow ends the process without a word."""
    log.info("Canceling %s runs, at most %.0f a second.", f"{len(runs):,}", CANCELS_PER_SECOND)
    late = runs[int(CANCELS_PER_SECOND * (seconds - _ANSWER)) :]
    if late:
        log.warning(
            "Airflow ends this process in %.0f seconds, so about %s runs may go on; a retry resumes them: %s",
            seconds,
            f"{len(late):,}",
            _list(late),
        )


def _list(runs: list[str]) -> str:
    more = f" and {len(runs) - _LISTED_RUNS:,} more" if len(runs) > _LISTED_RUNS else ""
    return ", ".join(runs[:_LISTED_RUNS]) + more
