"""Start the runs of a batch: each exactly once, and none after a stop or a refusal that applies to it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from airflow_provider_datazone.batch.progress import MAX_LOGGED_FAILURES
from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.idempotency import RunRequest, is_replay, token_of
from airflow_provider_datazone.metadata_generation import find_active_run
from airflow_provider_datazone.polling.errors import CredentialsRejectedError
from airflow_provider_datazone.polling.rate import requests_per_second
from airflow_provider_datazone.service_errors import (
    blocks_every_asset,
    blocks_project,
    is_conflict,
    is_permanent,
    is_throttling,
    is_transient,
)

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.batch.assets import AssetRow
    from airflow_provider_datazone.batch.progress import FailureLog, Progress
    from airflow_provider_datazone.batch.state import BatchSettings, BatchState
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
    from airflow_provider_datazone.polling.poller import RunPoller

T = TypeVar("T")

# Seconds for which List may not return the run that a Start conflicts with.
CONFLICT_GRACE = 30.0
# Seconds for which the Start of one asset may fail with transient errors other than throttling. DataZone may
# respond with 500 for one asset forever.
START_TIMEOUT = 3600.0
# Maximum seconds between two attempts of a Start.
LONGEST_PAUSE = 60.0
# If the rows were saved longer ago, another process may have started runs since then. Within this time,
# client tokens alone prevent a second run.
HANDOVER_SECONDS = 60.0


class StartsStoppedError(Exception):
    """A Start was not sent because the batch has been stopped."""


class StartGate:
    """
    Lets Starts pass until it is closed.

    The threads that send Starts pass through it; an event loop or a signal handler closes it. It has no lock,
    since a signal handler must not wait for the code that it interrupted.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self._in_flight: set[Any] = set()

    @property
    def in_flight(self) -> frozenset[Any]:
        """The keys of the requests that are in flight."""
        return frozenset(self._in_flight)

    def send(self, key: Any, request: Callable[[], T]) -> T:
        """
        Send a request unless the gate is closed.

        :param key: Identifies the request while it is in flight.
        :raises StartsStoppedError: The gate is closed.
        """
        # Add the key before checking the gate: either this thread sees the closed gate, or the code that
        # closed it sees the key.
        self._in_flight.add(key)
        try:
            if self.is_closed:
                raise StartsStoppedError("the batch has been stopped")
            return request()
        finally:
            self._in_flight.discard(key)


class RejectedRequests:
    """Distinguishes rejected credentials from a request that DataZone rejects with any credentials."""

    def __init__(self) -> None:
        self._subjects: set[str | None] = set()

    def __contains__(self, subject: str) -> bool:
        return subject in self._subjects

    def discard(self, subject: str) -> None:
        """Record that DataZone accepted a request for an asset or run."""
        self._subjects.discard(subject)

    def is_specific(self, error: CredentialsRejectedError, subject: str | None, poller: RunPoller) -> bool:
        """
        Whether a rejection is specific to one asset or run.

        It is, if DataZone rejects the request again with new credentials while it responds to others.
        """
        if error.subject != subject:
            return False
        if subject in poller.answered_runs:
            # DataZone had responded to it, so the credentials have changed again.
            self._subjects.discard(subject)
        if subject in self._subjects and poller.sender.has_responded:
            return True
        self._subjects.add(subject)
        return False


def record_refusal(row: AssetRow, error: Exception) -> None:
    """Record the error of one asset in its row; raise an error that concerns the whole batch."""
    is_refused = isinstance(error, ClientError) or is_permanent(error)
    if not is_refused or isinstance(error, NotConfiguredError):
        raise error
    row.error = str(error)
    row.is_refused = is_permanent(error)


class RunStarter:
    """
    Start or find the runs of a batch.

    :param state: The batch; its rows and its refusals are updated in place.
    :param settings: Its settings.
    :param log: The task's log.
    :param progress: The batch's progress.
    :param failure_log: The batch's log of failures.
    :param rejected: The batch's rejected requests.
    """

    def __init__(
        self,
        state: BatchState,
        settings: BatchSettings,
        *,
        log: logging.Logger,
        progress: Progress,
        failure_log: FailureLog,
        rejected: RejectedRequests,
    ) -> None:
        self._state = state
        self._settings = settings
        self._log = log
        self._progress = progress
        self._failure_log = failure_log
        self._rejected = rejected
        # Assets for which another process may have started a run that is not in the rows.
        self._possibly_started: set[tuple[str, str | None, str]] = set()
        # Runs of an earlier try that Start returned.
        self._replayed: set[str] = set()
        self._has_gap = False
        # `stop` closes the gate for good. `paused` wakes the tasks that wait between two attempts.
        self._gate = StartGate()
        self.paused = asyncio.Event()
        self._tasks: dict[Any, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Determine the assets for which another process may have started a run since the rows were saved."""
        self._loop = asyncio.get_running_loop()
        gap = time.time() - self._state.saved_at
        self._has_gap = gap > HANDOVER_SECONDS
        if self._has_gap:
            missing = [row.key for row in self._state.rows if row.run_identifier is None and not row.is_done]
            # The other process starts runs in the order of the rows, at the same rate.
            count = math.ceil(gap * requests_per_second("max_starts_per_second"))
            self._possibly_started = set(missing[: count + self._settings.max_concurrent_runs])

    # ------------------------------------------------------------------ stopping

    @property
    def is_stopped(self) -> bool:
        """Whether no more runs are started."""
        return self._gate.is_closed

    @property
    def has_requests_in_flight(self) -> bool:
        """Whether a Start is in flight, so that there may soon be one more run."""
        return bool(self._gate.in_flight)

    def stop(self) -> None:
        """Start no more runs. Another thread, or a signal handler in the event loop, may call it."""
        self._gate.is_closed = True
        if self._loop is not None:
            with suppress(RuntimeError):  # The loop is closed.
                self._loop.call_soon_threadsafe(self.paused.set)

    def drop_unsent(self) -> None:
        """After :meth:`stop`, drop the Starts that no thread has sent."""
        self.paused.set()
        for key, task in self._tasks.items():
            if key not in self._gate.in_flight:
                task.cancel()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks that start runs. A batch that ends waits for them, to record their responses."""
        return list(self._tasks.values())

    async def resume(self) -> None:
        """Continue on another poller, after the Starts on the previous one have ended."""
        if self._tasks:
            await asyncio.wait(self.tasks)
        if not self.is_stopped:
            self.paused.clear()

    # ------------------------------------------------------------------ starting

    async def start(self, poller: RunPoller, row: AssetRow) -> None:
        """Find or start the run of an asset, unless the batch starts no more runs."""
        task = asyncio.ensure_future(self._start(poller, row))
        self._tasks[row.key] = task
        task.add_done_callback(partial(self._on_ended, row.key))
        # Shielded, so that the response is recorded even if the batch ends before it arrives.
        await asyncio.shield(task)

    def _on_ended(self, key: Any, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        # Marks the exception as retrieved, if no caller waits for the task any more.
        task.cancelled() or task.exception()

    async def _start(self, poller: RunPoller, row: AssetRow) -> None:
        loop = asyncio.get_running_loop()
        failing_since: float | None = None
        in_conflict_since: float | None = None
        pause = 1.0
        while True:
            try:
                if row.key in self._possibly_started:
                    if await self._adopt_active(poller, row):
                        return
                    self._possibly_started.discard(row.key)
                await self._send_start(poller, row)
                return
            except StartsStoppedError:
                return
            except CredentialsRejectedError as error:
                if not self._rejected.is_specific(error, row.asset_identifier, poller):
                    raise
                cause = error.__cause__ or error
                self._fail(row, cause, str(cause))
                return
            except Exception as error:
                now = loop.time()
                if is_throttling(error):
                    failing_since = None
                elif is_transient(error):
                    failing_since = now if failing_since is None else failing_since
                elif is_conflict(error):
                    # There is an active run that List may return a little later, or the conflict is
                    # transient.
                    in_conflict_since = now if in_conflict_since is None else in_conflict_since
                    self._possibly_started.add(row.key)
                if failing_since is not None and now - failing_since >= START_TIMEOUT:
                    waited = f"DataZone has not accepted the Start for {START_TIMEOUT / 60:.0f} minutes"
                    self._fail(row, error, f"{waited}: {error}")
                    return
                is_conflict_over = in_conflict_since is not None and now - in_conflict_since >= CONFLICT_GRACE
                if not is_transient(error) and (not is_conflict(error) or is_conflict_over):
                    record_refusal(row, error)
                    if not self._record_shared_refusal(row, error):
                        self._failure_log.on_error(row, error)
                    return
                self._progress.warning("Could not start a run just now, will try again: %s", error)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.paused.wait(), pause)
                return
            pause = min(pause * 2, LONGEST_PAUSE)

    def _fail(self, row: AssetRow, error: BaseException, message: str) -> None:
        row.error = message
        self._failure_log.on_error(row, error)

    def _record_shared_refusal(self, row: AssetRow, error: Exception) -> bool:
        """Start no more runs where a refusal applies to other assets, too; return whether it does."""
        if blocks_every_asset(error):
            scope, whose = "", "any asset"
        elif blocks_project(error):
            scope, whose = row.owning_project_identifier, f"project {row.owning_project_identifier!r}"
        else:
            return False
        refusals = self._state.refusals
        if scope not in refusals:
            refusals[scope] = str(error)
            if len(refusals) <= MAX_LOGGED_FAILURES:
                self._log.error("No further runs are started for %s: %s", whose, error)
        return True

    async def _send_start(self, poller: RunPoller, row: AssetRow) -> None:
        request = RunRequest(
            row.asset_identifier,
            self._settings.types,
            self._settings.domain_identifier,
            row.owning_project_identifier,
            row.asset_revision,
        )
        number = row.submission

        def send(start: Callable[[], MetadataGenerationRun]) -> MetadataGenerationRun:
            def start_and_record() -> MetadataGenerationRun:
                run = start()
                # In this thread, so that a signal handler knows the run as soon as DataZone has responded.
                row.run_identifier = run.id
                return run

            return self._gate.send(row.key, start_and_record)

        run = await poller.sender.start(
            request,
            token_of(self._settings.identity, request.fingerprint, number),
            lock=self._lock,
            is_needed=lambda: not (self.paused.is_set() or self.is_stopped or self._state.is_left_out(row)),
            send=send,
        )
        if run is None:
            return
        self._rejected.discard(row.asset_identifier)
        self._progress.started += 1
        if is_replay(
            run,
            try_began_at=self._settings.try_began_at,
            submission_number=number,
            try_number=self._settings.try_number,
        ):
            self._replayed.add(run.id)

    async def _adopt_active(self, poller: RunPoller, row: AssetRow) -> bool:
        """
        Adopt the active run of an asset that is not in the rows.

        It adopts no run that has ended, which may belong to another task. For the batch's own runs, Start
        returns them because of the client token.
        """
        try:
            listed = await poller.sender.list_runs_of_asset(row.asset_identifier)
        except ClientError as error:
            if is_transient(error):
                raise
            self._progress.warning(
                "Runs cannot be listed, so the batch relies on client tokens alone to find earlier runs: %s",
                error,
            )
            return False
        run = find_active_run(
            listed,
            asset_identifier=row.asset_identifier,
            types=self._settings.types,
            asset_revision=row.asset_revision,
        )
        if run is not None:
            row.run_identifier, row.adopted_at = run.id, time.time()
        return run is not None

    def is_replayed(self, row: AssetRow) -> bool:
        """Whether Start returned the run of an earlier try, so that this try may start another one."""
        return str(row.run_identifier) in self._replayed and row.submission < self._settings.try_number

    def prepare_restart(self, row: AssetRow) -> None:
        """Reset the row of a run that failed in an earlier try, so that this try starts its own."""
        row.reset()
        if self._has_gap:
            self._possibly_started.add(row.key)
