"""What a batch logs while it runs: its progress, and the first failure of each kind."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from airflow_provider_datazone.batch.summary import Counts, describe_failure
from airflow_provider_datazone.metadata_generation import FAILURE_STATUSES
from airflow_provider_datazone.service_errors import error_code
from airflow_provider_datazone.task_outcome import XCOM_RESULTS

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.batch.assets import AssetRow
    from airflow_provider_datazone.batch.state import BatchState
    from airflow_provider_datazone.batch.steps import Steps

# Maximum seconds between two progress lines, and between two lines about the same transient error.
REPORT_INTERVAL = 30.0
# Minimum seconds between two progress lines, except for the last one.
MIN_REPORT_INTERVAL = 10.0
# Maximum number of failures of different kinds that the log shows.
MAX_LOGGED_FAILURES = 20
# Number of characters of a message that determine its kind.
_PATTERN_LENGTH = 500


class Progress:
    """
    Log the progress of a batch.

    It also replaces the task's log in the waits of single assets, which would write thousands of lines.

    :param state: The assets, and why no more runs are started.
    :param steps: What the batch does with each asset.
    :param log: The task's log.
    :param poll_interval: Seconds between two polls of a run.
    """

    def __init__(self, state: BatchState, steps: Steps, log: logging.Logger, poll_interval: float) -> None:
        self.started = 0
        self._state = state
        self._rows = state.rows
        self._steps = steps
        self._log = log
        self._poll_interval = poll_interval
        self._began_at = self._first_end_at = self._reported_at = time.monotonic()
        self._done = self._done_before = self._done_reported = self._tenth = self._started_before = 0
        self._has_reported = False
        self._warned_at: dict[str, float] = {}

    def begin(self) -> None:
        """Count the assets that an earlier process completed."""
        self._began_at = self._first_end_at = self._reported_at = time.monotonic()
        self._done = self._done_before = self._done_reported = sum(map(self._steps.is_done, self._rows))
        self._tenth = self._tenths()

    def on_done(self) -> None:
        """Count a completed asset. Every tenth of the batch writes a line, unless the last line is recent."""
        now = time.monotonic()
        if self._done == self._done_before:
            self._first_end_at = now
        self._done += 1
        if self._tenths() > self._tenth and self.may_report and self._done < len(self._rows):
            self.report()

    @property
    def may_report(self) -> bool:
        """Whether the last line, if any, is old enough for another."""
        return not self._has_reported or time.monotonic() - self._reported_at >= MIN_REPORT_INTERVAL

    def finish(self) -> None:
        """Write the last line, if assets have ended since the previous one."""
        if self._done > self._done_reported:
            self.report()

    def report(self) -> None:
        """Write a line."""
        counts = Counts.of(self._rows, self._steps)
        self._tenth, self._done_reported, self._has_reported = self._tenths(), self._done, True
        now = time.monotonic()
        since = now - self._reported_at
        # Omit a rate over less than a second, or one that rounds to zero.
        starts = (self.started - self._started_before) / since if since >= 1 else 0.0
        self._reported_at, self._started_before = now, self.started
        parts = [
            f"{counts.done:,}/{counts.total:,} done",
            f"{counts.succeeded + counts.partially_succeeded:,} succeeded",
            f"{counts.failed + counts.canceled:,} failed",
            f"{counts.active:,} active",
        ]
        if self._steps.accept_threshold is not None:
            parts.append(f"{counts.accepted:,} accepted")
        if self._steps.publish:
            parts.append(f"{counts.published:,} published")
        left_out = sum(self._state.why_left_out(row) is not None for row in self._rows)
        if left_out:
            parts.append(f"{left_out:,} not started")
        if starts >= 0.05:
            parts.append(f"{starts:.1f} starts/s")
        if (left := self._seconds_left(counts, left_out, now)) is not None:
            parts.append(f"about {_duration(left)} left")
        self._log.info(" · ".join(parts))

    def _seconds_left(self, counts: Counts, left_out: int, now: float) -> float | None:
        """Estimate the remaining time, once a tenth of this process' assets are done."""
        left, done = counts.total - counts.done - left_out, counts.done - self._done_before
        if not left or done < 2 or done * 10 < counts.total - self._done_before:
            return None
        to_start = counts.not_started - left_out
        if to_start and self.started:
            # The last run starts at the rate so far and takes as long as the first one, plus half an interval
            # until a poll sees its end.
            pace = (now - self._began_at) / self.started
            first = self._first_end_at - self._began_at
            return to_start * pace + first + self._poll_interval / 2
        return left * (now - self._first_end_at) / (done - 1)

    def _tenths(self) -> int:
        return self._done * 10 // max(len(self._rows), 1)

    # ------------------------------------------------------ the log of a wait

    def debug(self, message: str, *arguments: Any) -> None:
        """Log at DEBUG."""
        self._log.debug(message, *arguments)

    def info(self, message: str, *arguments: Any) -> None:
        """Log at DEBUG: the progress lines count the assets."""
        self._log.debug(message, *arguments)

    def warning(self, message: str, *arguments: Any) -> None:
        """Log a transient error, which thousands of waits may have at a time, once per interval."""
        now = time.monotonic()
        if now - self._warned_at.get(message, -math.inf) >= REPORT_INTERVAL:
            self._warned_at[message] = now
            self._log.warning(message, *arguments)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class FailureLog:
    """
    Log the first failure of each kind when it happens. The progress lines count the others.

    :param log: The task's log.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._codes: set[str] = set()
        # Type, status and message pattern: at most as many as the log shows, to bound the memory.
        self._patterns: set[tuple[str, str, str]] = set()
        self._is_full = False

    def on_error(self, row: AssetRow, error: BaseException) -> None:
        """Log the failure of an asset with an error, whose kind is the error's code or class."""
        code = error_code(error) if isinstance(error, ClientError) else ""
        self._on_code(row, code or type(error).__name__)

    def on_end(self, row: AssetRow) -> None:
        """Log the failed types of a run, whose kind is the pattern of their message."""
        if row.error is not None:
            return
        if not row.failures and row.status in FAILURE_STATUSES:
            self._on_code(row, str(row.status))
        if self._is_full:
            return
        patterns = {
            (str(stat.get("type")), str(stat.get("status")), _pattern(stat.get("errorMessage") or "", row))
            for stat in row.failures
        }
        if patterns <= self._patterns:
            return
        if len(self._patterns) >= MAX_LOGGED_FAILURES:
            self._is_full = True
            self._log.warning("Runs fail for other reasons, too: see the XCom %r.", XCOM_RESULTS)
            return
        self._patterns |= patterns
        self._log.warning("First failure of its kind%s", describe_failure(row))

    def _on_code(self, row: AssetRow, code: str) -> None:
        if code not in self._codes:
            self._codes.add(code)
            self._log.warning("First failure of its kind%s", describe_failure(row))


def _pattern(message: str, row: AssetRow) -> str:
    """Return a message without the parts that differ between assets: identifiers, and words with digits."""
    message = message[:_PATTERN_LENGTH]
    for identifier in (row.asset_identifier, row.run_identifier):
        if identifier:
            message = message.replace(identifier, "#")
    words = message.split()
    return " ".join("#" if any(character.isdigit() for character in word) else word for word in words)
