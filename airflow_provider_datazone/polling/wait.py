"""One wait of a poller: which run, how often to poll it, and until when."""

from __future__ import annotations

import asyncio
import contextvars
import math
import random
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_datazone.metadata_generation import NEW_RESOURCE_GRACE, log_status
from airflow_provider_datazone.polling.errors import DeadlinePassedError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun

# Seconds after which a run that List still returns as active is read with Get. The next intervals double, up
# to the longest.
VERIFY_INTERVAL = 600.0
LONGEST_VERIFY_INTERVAL = 3600.0
# Seconds until the next Get for a run that DataZone does not find yet.
NOT_FOUND_INTERVAL = 5.0


# Without a repr, since that of the result contains the wait.
@dataclass(eq=False, repr=False, slots=True)
class Wait:
    """
    A wait for one run. Times are event loop times in seconds.

    :param run_identifier: The run.
    :param run_type: Read only this type.
    :param poll_interval: Seconds between two polls.
    :param log: The task's log.
    :param result: The terminal run, or the error that ends the wait.
    :param due: When the next poll is due.
    :param deadline: When the wait ends without its run.
    :param grace_until: Until when a not-found error may mean that the run is new.
    :param on_end: Called with the wait when it has ended.
    :param on_active: Called whenever a poll returns the run as active.
    """

    run_identifier: str
    run_type: str | None
    poll_interval: float
    log: logging.Logger
    result: asyncio.Future[MetadataGenerationRun]
    due: float
    deadline: float
    grace_until: float
    on_end: Callable[[Wait], None]
    on_active: Callable[[], None] | None = None
    verify_at: float = 0.0
    verify_interval: float = VERIFY_INTERVAL
    status: str | None = None
    is_listed: bool = False
    timer: asyncio.TimerHandle | None = None
    # Airflow finds the log of a task by its context.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    @classmethod
    def begin(
        cls,
        run_identifier: str,
        run_type: str | None,
        *,
        poll_interval: float,
        timeout: float | None,
        log: logging.Logger,
        on_end: Callable[[Wait], None],
        on_active: Callable[[], None] | None = None,
    ) -> Wait:
        """
        Begin a wait.

        :param timeout: Seconds until the deadline, ``None`` for no limit.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        wait = cls(
            run_identifier,
            run_type,
            poll_interval,
            log,
            result=loop.create_future(),
            due=now + poll_interval,
            deadline=math.inf if timeout is None else now + timeout,
            grace_until=now + NEW_RESOURCE_GRACE,
            on_end=on_end,
            on_active=on_active,
        )
        wait.on_verified(now)
        if timeout is not None:
            wait.timer = loop.call_later(max(timeout, 0), wait.time_out)
        # With a context, since asyncio would copy another one.
        wait.result.add_done_callback(wait, context=wait.context)
        return wait

    def __call__(self, _: asyncio.Future[MetadataGenerationRun]) -> None:
        """Clean up when the result is there. A bound method would take memory for every wait."""
        if self.timer is not None:
            self.timer.cancel()
        self.on_end(self)

    @property
    def is_open(self) -> bool:
        """Whether the wait has not ended."""
        return not self.result.done()

    def schedule(self, now: float, round_began: float) -> None:
        """Schedule the next poll, from the start of the round, so that waits of a round stay together."""
        self.due = max(round_began, now - self.poll_interval / 2) + self.poll_interval

    def schedule_retry(self, now: float) -> None:
        """Schedule the next poll of a run that DataZone does not find yet."""
        self.due = now + min(self.poll_interval, NOT_FOUND_INTERVAL)

    def may_be_new(self, now: float) -> bool:
        """Whether Get may not find the run yet, because it was started a moment ago, even if List does."""
        return now < self.grace_until

    def on_status(self, run: MetadataGenerationRun) -> None:
        """Record and log the status of the run."""
        self.context.run(log_status, self.log, run, self.status)
        # Interned, since each response has a string of its own.
        self.status = sys.intern(run.status)
        if self.on_active is not None and not run.is_terminal:
            self.on_active()

    def on_listed(self, run: MetadataGenerationRun, now: float) -> bool:
        """
        Record that List returned the run as active.

        :return: Whether that is enough. List may return an ended run as active, so from time to time Get has
            to confirm it.
        """
        self.on_status(run)
        self.is_listed = True
        return now < self.verify_at

    def on_verified(self, now: float) -> None:
        """Record that Get returned the run as active, and when it has to do so again."""
        # The interval grows only when Get confirms what List returned.
        self.verify_interval = (
            min(self.verify_interval * 2, LONGEST_VERIFY_INTERVAL) if self.is_listed else VERIFY_INTERVAL
        )
        self.is_listed = False
        self.verify_at = now + self.verify_interval * random.uniform(1.0, 1.5)  # noqa: S311
        # Once more right before the deadline.
        last_poll = self.deadline - self.poll_interval
        if now < last_poll:
            self.verify_at = min(self.verify_at, last_poll)

    def warn(self, error: BaseException) -> None:
        """Log a transient error."""
        self.context.run(self.log.warning, "Could not read the run just now, will try again: %s", error)

    def end(self, run: MetadataGenerationRun) -> None:
        """End the wait with the terminal run."""
        self.result.set_result(run)

    def fail(self, error: BaseException) -> None:
        """End the wait with an error."""
        self.result.set_exception(error)

    def time_out(self) -> None:
        """End the wait because its deadline has passed."""
        if self.is_open:
            status = f"its status is {self.status}" if self.status else "its status is not known"
            self.fail(DeadlinePassedError(f"{self.run_identifier!r} has not ended in time; {status}"))
