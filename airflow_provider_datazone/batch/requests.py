"""Send the requests of a batch that start, accept or publish: again after errors, until it stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from botocore.exceptions import ClientError

from airflow_provider_datazone.batch.progress import MAX_LOGGED_FAILURES
from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.polling.errors import CredentialsRejectedError
from airflow_provider_datazone.polling.sender import Turn
from airflow_provider_datazone.service_errors import is_conflict, is_permanent, is_throttling, is_transient

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.batch.assets import AssetRow
    from airflow_provider_datazone.batch.progress import FailureLog, Progress
    from airflow_provider_datazone.batch.state import BatchState
    from airflow_provider_datazone.polling.poller import RunPoller

T = TypeVar("T")

# Seconds for which a conflict may be transient, or List may not return the run that a Start conflicts with.
CONFLICT_GRACE = 30.0
# Seconds for which a request for one asset may fail with transient errors other than throttling. DataZone may
# respond with 500 for one asset forever.
REQUEST_TIMEOUT = 3600.0
# Maximum seconds between two attempts of a request.
LONGEST_PAUSE = 60.0


class BatchStoppedError(Exception):
    """A request was not sent because the batch has been stopped."""


class RequestKind(NamedTuple):
    """
    A kind of request.

    :param name: Its name in error messages, for example ``AcceptPredictions``.
    :param action: What it does, in log lines, for example ``accept predictions``.
    :param scope_of: Returns to which assets a refusal applies: the identifier of a project for all its
        assets, an empty string for all assets, ``None`` for this asset only.
    """

    name: str
    action: str
    scope_of: Callable[[AssetRow, BaseException], str | None]


class RequestGate:
    """
    Lets requests pass until it is closed.

    The threads that send requests pass through it; an event loop or a signal handler closes it. It has no
    lock, since a signal handler must not wait for the code that it interrupted.
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
        :raises BatchStoppedError: The gate is closed.
        """
        # Add the key before checking the gate: either this thread sees the closed gate, or the code that
        # closed it sees the key.
        self._in_flight.add(key)
        try:
            if self.is_closed:
                raise BatchStoppedError("the batch has been stopped")
            return request()
        finally:
            self._in_flight.discard(key)


class RejectedRequests:
    """Distinguishes rejected credentials from a request that DataZone rejects with any credentials."""

    def __init__(self) -> None:
        self._subjects: set[str | None] = set()

    def __contains__(self, subject: str | None) -> bool:
        return subject in self._subjects

    def discard(self, subject: str) -> None:
        """Record that a request for an asset or run has succeeded."""
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


class BatchRequests:
    """
    Send the requests of a batch.

    :param state: The batch; errors are recorded in its rows and refusals.
    :param log: The task's log.
    :param progress: The batch's progress.
    :param failure_log: The batch's log of failures.
    """

    def __init__(
        self, state: BatchState, *, log: logging.Logger, progress: Progress, failure_log: FailureLog
    ) -> None:
        self.rejected = RejectedRequests()
        # `stop` closes the gate for good. `paused` wakes the tasks that wait between two attempts.
        self.paused = asyncio.Event()
        self._gate = RequestGate()
        self._state = state
        self._log = log
        self._progress = progress
        self._failure_log = failure_log
        self._tasks: dict[Any, asyncio.Task[None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        # Messages of refusals that apply to other assets, too, by the name of the request and the scope.
        self._denials: dict[tuple[str, str], str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    # -------------------------------------------------------------- stopping

    def begin(self) -> None:
        """Begin in the running event loop."""
        self._loop = asyncio.get_running_loop()

    @property
    def is_stopped(self) -> bool:
        """Whether no more requests are sent."""
        return self._gate.is_closed

    def is_in_flight(self, kind: RequestKind) -> bool:
        """Whether a request of a kind is in flight."""
        return any(name == kind.name for name, _ in self._gate.in_flight)

    def stop(self) -> None:
        """Send no more requests. Another thread, or a signal handler in the event loop, may call it."""
        self._gate.is_closed = True
        if self._loop is not None:
            with suppress(RuntimeError):  # The loop is closed.
                self._loop.call_soon_threadsafe(self.paused.set)

    def drop_unsent(self) -> None:
        """After :meth:`stop`, drop the requests that no thread has sent."""
        self.paused.set()
        in_flight = self._gate.in_flight
        for key, task in self._tasks.items():
            if key not in in_flight:
                task.cancel()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks that send requests. A batch that ends waits for them, to record their responses."""
        return list(self._tasks.values())

    async def resume(self) -> None:
        """Continue on another poller, after the requests on the previous one have ended."""
        if self._tasks:
            await asyncio.wait(self.tasks)
        if not self.is_stopped:
            self.paused.clear()

    # --------------------------------------------------------------- sending

    async def run(self, kind: RequestKind, row: AssetRow, work: Coroutine[Any, Any, None]) -> None:
        """Send a request for an asset in a task that lasts until the response is recorded."""
        key = (kind.name, row.key)
        task = asyncio.ensure_future(work)
        self._tasks[key] = task
        task.add_done_callback(partial(self._on_ended, key))
        # Shielded, so that the response is recorded even if the batch ends before it arrives.
        await asyncio.shield(task)

    def _on_ended(self, key: Any, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        # Marks the exception as retrieved, if no caller waits for the task any more.
        task.cancelled() or task.exception()

    def turn(
        self,
        kind: RequestKind,
        row: AssetRow,
        *,
        is_needed: Callable[[], bool],
        record: Callable[[Any], None],
    ) -> Turn:
        """
        Return how a request waits for its turn and is sent. It is not sent once the batch pauses.

        :param kind: The kind of request.
        :param row: The asset.
        :param is_needed: Whether the request still has to be sent.
        :param record: Called with the response, in the thread that sends the request. A signal handler then
            sees the response at once, and a batch that ends does not lose it.
        """

        def send(request: Callable[[], T]) -> T:
            def request_and_record() -> T:
                response = request()
                self.rejected.discard(row.asset_identifier)
                record(response)
                return response

            return self._gate.send((kind.name, row.key), request_and_record)

        return Turn(
            self._locks.setdefault(kind.name, asyncio.Lock()),
            is_needed=lambda: not self.paused.is_set() and not self.is_stopped and is_needed(),
            send=send,
        )

    async def repeat(
        self,
        kind: RequestKind,
        row: AssetRow,
        poller: RunPoller,
        attempt: Callable[[], Awaitable[None]],
        *,
        on_conflict: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Repeat an attempt after transient errors, until it succeeds, the batch pauses, or the asset fails.

        :param kind: The kind of request.
        :param row: The asset.
        :param poller: The poller that sends it.
        :param attempt: Sends the request, unless it is no longer needed.
        :param on_conflict: Called when DataZone responds with a conflict.
        """
        loop = asyncio.get_running_loop()
        in_conflict_since: float | None = None
        pause = 1.0
        while True:
            try:
                await self.require_response(row.asset_identifier, poller)
                await attempt()
                row.failing_since = None
                return
            except BatchStoppedError:
                return
            except CredentialsRejectedError as error:
                self.fail_if_specific(error, row, row.asset_identifier, poller)
                return
            except Exception as error:
                if isinstance(error, ClientError):
                    # DataZone accepted the credentials.
                    self.rejected.discard(row.asset_identifier)
                now = loop.time()
                if is_throttling(error):
                    row.failing_since = None
                elif is_transient(error):
                    # In the row, since a checkpoint begins a new process.
                    row.failing_since = row.failing_since or time.time()
                elif is_conflict(error):
                    in_conflict_since = now if in_conflict_since is None else in_conflict_since
                    on_conflict()
                if row.failing_since is not None and time.time() - row.failing_since >= REQUEST_TIMEOUT:
                    if not poller.sender.has_responded and not isinstance(error, ClientError):
                        # The endpoint cannot be reached, so no other asset can do better.
                        raise
                    waited = f"DataZone has not completed {kind.name} for {REQUEST_TIMEOUT / 60:.0f} minutes"
                    self._fail(row, error, f"{waited}: {error}")
                    return
                is_conflict_over = in_conflict_since is not None and now - in_conflict_since >= CONFLICT_GRACE
                if not is_transient(error) and (not is_conflict(error) or is_conflict_over):
                    self.refuse(kind, row, error)
                    return
                self._progress.warning(f"Could not {kind.action} just now, will try again: %s", error)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.paused.wait(), pause)
                return
            pause = min(pause * 2, LONGEST_PAUSE)

    def denial(self, kind: RequestKind, row: AssetRow) -> str | None:
        """Return why DataZone would refuse a request for an asset, as it has refused others."""
        scopes = ("", row.owning_project_identifier)
        return next((error for scope in scopes if (error := self._denials.get((kind.name, scope)))), None)

    async def require_response(self, subject: str | None, poller: RunPoller) -> None:
        """
        If a request about an asset or run was rejected, let DataZone respond to another one first.

        Its response shows whether the credentials are valid, or only requests about the subject are rejected.

        :param subject: The asset or run.
        :param poller: The poller for the next request.
        :raises CredentialsRejectedError: The credentials are not valid.
        """
        if subject in self.rejected and not poller.sender.has_responded:
            try:
                await poller.sender.list_page("SUBMITTED", None)
            except CredentialsRejectedError:
                raise
            except Exception:  # noqa: S110 - any other error leaves it open.
                pass

    def fail_if_specific(
        self, error: CredentialsRejectedError, row: AssetRow, subject: str | None, poller: RunPoller
    ) -> None:
        """
        Fail one asset if DataZone rejects its request with any credentials.

        :param error: The rejection.
        :param row: The asset.
        :param subject: The asset or run that the request was about.
        :param poller: The poller that has sent the request.
        :raises CredentialsRejectedError: Other credentials may help.
        """
        if not self.rejected.is_specific(error, subject, poller):
            raise error
        cause = error.__cause__ or error
        self._fail(row, cause, str(cause))

    def _fail(self, row: AssetRow, error: BaseException, message: str) -> None:
        row.error = message
        self._failure_log.on_error(row, error)

    def refuse(self, kind: RequestKind, row: AssetRow, error: Exception) -> None:
        """
        Record a refusal. If it applies to other assets, too, start no more runs for them.

        :param kind: The kind of request.
        :param row: The asset.
        :param error: The refusal. One that concerns the whole batch is raised.
        """
        is_refused = isinstance(error, ClientError) or is_permanent(error)
        if not is_refused or isinstance(error, NotConfiguredError):
            raise error
        row.error = str(error)
        row.is_refused = is_permanent(error)
        scope = kind.scope_of(row, error)
        if scope is None:
            self._failure_log.on_error(row, error)
            return
        self._denials.setdefault((kind.name, scope), str(error))
        refusals = self._state.refusals
        if scope not in refusals:
            refusals[scope] = str(error)
            if len(refusals) <= MAX_LOGGED_FAILURES:
                whose = f"project {scope!r}" if scope else "any asset"
                self._log.error("No further runs are started for %s: %s", whose, error)
