"""
Generate metadata for many assets, at the speed that DataZone allows: one engine for worker and triggerer.

Runs are started one after the other at the rate of ``[datazone] max_starts_per_second``, at most so many at a
time, and waited for on the shared poller. What has become of each asset is in its row, and the rows can be
carried from one process to the next. What a process did last before it was killed is in nobody's rows: the
next one asks DataZone for the runs of those assets that may have been reached meanwhile, and each start has a
client token that is the same whoever sends it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from botocore.exceptions import ClientError

from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    NotConfiguredError,
    QuotaUsedUpError,
    RequestRefusedError,
)
from airflow_provider_datazone.hooks.datazone import (
    error_code,
    is_conflict,
    is_not_found,
    is_permanent,
    is_throttling,
    is_transient,
    refuses_every_asset,
    refuses_every_asset_of_project,
)
from airflow_provider_datazone.inputs import is_rendered_list, native_advice, to_text
from airflow_provider_datazone.metadata_generation import (
    FAILURE_STATUSES,
    TERMINAL_STATUSES,
    describe_failures,
    names_used_up_quota,
    one_line,
)
from airflow_provider_datazone.submission import (
    RunRequest,
    client_token,
    is_replay,
    success_record,
    token_of,
    was_canceled_with_previous_try,
    was_cleared,
)
from airflow_provider_datazone.triggers.run_poller import (
    CredentialsRejectedError,
    cancel_run,
    on_poller,
    requests_per_second,
)
from airflow_provider_datazone.version_compat import task_state_store

if TYPE_CHECKING:
    import logging

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, TypeStat
    from airflow_provider_datazone.triggers.run_poller import HookParameters, RunPoller, RunSource

T = TypeVar("T")

ASSET_MEMBERS = frozenset({"asset_identifier", "asset_revision", "owning_project_identifier"})
XCOM_RESULTS = "results"
# How many failures a summary shows.
FAILURES_SHOWN = 100
# The keys in the task state store, and what one of them holds at most: Airflow warns beyond 64 KB.
_STATE_KEY = "metadata_generation_batch"
_STATE_SIZE = 60_000
# Seconds between two lines of progress at most, and between two calls of `on_progress`.
REPORT_INTERVAL = 30.0
# Seconds between two lines of progress at least, apart from the last one.
SHORTEST_REPORT_INTERVAL = 10.0
# How many kinds of failures get a line of their own in the log.
LOGGED_FAILURE_KINDS = 20
# The characters of a message that are compared to find its kind.
_PATTERN_LENGTH = 500
# Seconds for which List may not show the run that DataZone refused another one for.
CONFLICT_GRACE = 30.0
# Seconds for which the Start of one asset may fail for reasons that pass, throttling aside, until the asset
# counts as failed: DataZone may answer 500 for one asset for ever.
START_PATIENCE = 3600.0
LONGEST_PAUSE = 60.0
# Seconds that a batch may take from a worker to a triggerer without another one having had it in between;
# what happens in less is left to the client tokens.
HAND_OVER = 60.0
# Seconds in which the Starts under way are to be answered when a batch is drained.
SECONDS_TO_DRAIN = 30.0


@dataclass
class AssetRow:
    """
    How far one asset of a batch has come.

    :param asset_identifier: The asset.
    :param asset_revision: Its revision, ``None`` for the latest.
    :param owning_project_identifier: The project that owns it.
    :param submission: Counts the runs that were meant for it.
    :param run_identifier: The run, once it is known.
    :param status: The run's status, once it has ended.
    :param type_stats: The run's typeStats, once it has ended.
    :param error: Why there is no run, or none that can be read.
    :param is_refused: Whether a retry would meet the same error.
    :param adopted_at: Unix time in seconds at which the batch found the run, which another try or another
        task has started; ``None`` for a run of the batch's own.
    """

    asset_identifier: str
    asset_revision: str | None
    owning_project_identifier: str
    submission: int = 1
    run_identifier: str | None = None
    status: str | None = None
    type_stats: list[TypeStat] = field(default_factory=list)
    error: str | None = None
    adopted_at: float | None = None
    is_refused: bool = False

    @property
    def key(self) -> tuple[str, str | None, str]:
        """What tells the assets of a batch apart."""
        return self.asset_identifier, self.asset_revision, self.owning_project_identifier

    @property
    def is_sound(self) -> bool:
        """Whether its members are of the kind that they should be: it may come from somebody else."""
        texts = (self.asset_revision, self.run_identifier, self.status, self.error)
        return (
            all(isinstance(text, str) for text in (self.asset_identifier, self.owning_project_identifier))
            and all(text is None or isinstance(text, str) for text in texts)
            and type(self.submission) is int
            and (self.adopted_at is None or isinstance(self.adopted_at, (int, float)))
            and isinstance(self.type_stats, list)
            and all(isinstance(stat, dict) for stat in self.type_stats)
        )

    @property
    def is_done(self) -> bool:
        """Whether the asset needs nothing more."""
        return self.status in TERMINAL_STATUSES or self.error is not None

    @property
    def failures(self) -> list[TypeStat]:
        """The type stats that failed or were canceled."""
        return [stat for stat in self.type_stats if stat.get("status") in FAILURE_STATUSES]

    @property
    def is_active(self) -> bool:
        """Whether a run is to be waited for."""
        return self.run_identifier is not None and not self.is_done

    def submit_anew(self) -> None:
        """Forget what became of the last run, for another one."""
        self.submission += 1
        self.run_identifier = self.status = self.error = self.adopted_at = None
        self.type_stats = []
        self.is_refused = False

    def to_result(self) -> dict[str, Any]:
        """Return the row of the XCom ``results``."""
        result: dict[str, Any] = {
            "asset": self.asset_identifier,
            "run": self.run_identifier,
            "status": self.status,
            "typeStats": self.type_stats,
        }
        return result | {"error": self.error} if self.error else result


def pack(rows: Iterable[AssetRow]) -> str:
    """Return rows as a text that is small enough for thousands of them in a database's column."""
    text = json.dumps([astuple(row) for row in rows], separators=(",", ":"))
    return base64.b85encode(zlib.compress(text.encode())).decode()


def unpack(packed: str) -> list[AssetRow]:
    """
    Return the rows that :func:`pack` was given, be it in an earlier or a later version.

    :raises ValueError: There are none in it.
    """
    try:
        members = json.loads(zlib.decompress(base64.b85decode(packed)))
        rows = [AssetRow(*row[: len(fields(AssetRow))]) for row in members]
    except (zlib.error, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(f"The rows of the batch cannot be read: {type(error).__name__}") from None
    if not all(row.is_sound for row in rows):
        raise ValueError("The rows of the batch cannot be read: members of another kind")
    return rows


def parse_assets(
    asset_identifiers: Iterable[str | dict[str, str]], default_project: Callable[[], str]
) -> tuple[list[AssetRow], int]:
    """
    Return a row for each asset, and how many more there were that are the same.

    :param asset_identifiers: Identifiers, or dicts with ``asset_identifier``, ``asset_revision`` and
        ``owning_project_identifier``.
    :param default_project: Called for the project of assets that name none.
    :raises ValueError: Something is none of that.
    """
    not_a_list = (str, bytes, bytearray, memoryview, Mapping)
    if isinstance(asset_identifiers, not_a_list) or not isinstance(asset_identifiers, Iterable):
        raise NotConfiguredError(
            f"asset_identifiers must be a list, and is a {type(asset_identifiers).__name__}: "
            f"a template that did not render to a list?{native_advice(asset_identifiers)}"
        )
    rows: dict[tuple[str, str | None, str], AssetRow] = {}
    number = 0
    project: str | None = None
    for number, item in enumerate(asset_identifiers, start=1):
        members: dict[Any, Any] = dict(item) if isinstance(item, Mapping) else {"asset_identifier": item}
        try:
            members = {key: to_text(str(key), value) for key, value in members.items()}
        except NotConfiguredError as error:
            raise NotConfiguredError(
                f"Item {number} of asset_identifiers must be an identifier, or a dict of texts: {error}"
            ) from None
        if not members.get("asset_identifier"):
            raise NotConfiguredError(
                f"Item {number} of asset_identifiers must be an identifier, or a dict with "
                f"'asset_identifier', and is {one_line(repr(item))}."
            )
        if is_rendered_list(members["asset_identifier"]):
            raise NotConfiguredError(
                f"Item {number} of asset_identifiers must be an identifier, and is {one_line(repr(item))}."
                f"{native_advice(members['asset_identifier'])}"
            )
        if unknown := sorted(map(repr, members.keys() - ASSET_MEMBERS)):
            raise NotConfiguredError(
                f"Item {number} of asset_identifiers has {one_line(', '.join(unknown))}; it may have "
                f"{', '.join(sorted(ASSET_MEMBERS))}."
            )
        owner = members.get("owning_project_identifier")
        if not owner:
            owner = project = project or default_project()
        row = AssetRow(members["asset_identifier"], members.get("asset_revision"), owner)
        rows.setdefault(row.key, row)
    return list(rows.values()), number - len(rows)


def check_bounds(max_concurrent_runs: int, max_failures: float) -> None:
    """
    Check what a batch is bounded by.

    :raises ValueError: With such a bound it could not begin, or never end.
    """
    if type(max_concurrent_runs) is not int or max_concurrent_runs < 1:
        raise NotConfiguredError(f"max_concurrent_runs must be at least 1, and is {max_concurrent_runs!r}.")
    is_number = isinstance(max_failures, (int, float)) and not isinstance(max_failures, bool)
    if not is_number or not 0 <= max_failures <= (1 if isinstance(max_failures, float) else math.inf):
        raise NotConfiguredError(
            "max_failures must be a number of assets, or as a float a share from 0.0 to 1.0, and is "
            f"{max_failures!r}."
        )


class Counts(NamedTuple):
    """How many assets of a batch have come how far."""

    total: int
    succeeded: int
    partially_succeeded: int
    failed: int
    canceled: int
    active: int
    not_started: int

    @property
    def done(self) -> int:
        """How many need nothing more."""
        return self.succeeded + self.partially_succeeded + self.failed + self.canceled

    @classmethod
    def of(cls, rows: list[AssetRow]) -> Counts:
        """Count rows."""
        statuses = [row.status for row in rows]
        active = sum(row.is_active for row in rows)
        done = sum(row.is_done for row in rows)
        succeeded = statuses.count("SUCCEEDED")
        partially_succeeded = statuses.count("PARTIALLY_SUCCEEDED")
        canceled = statuses.count("CANCELED")
        return cls(
            total=len(rows),
            succeeded=succeeded,
            partially_succeeded=partially_succeeded,
            failed=done - succeeded - partially_succeeded - canceled,
            canceled=canceled,
            active=active,
            not_started=len(rows) - done - active,
        )


def active_runs(rows: Iterable[AssetRow]) -> list[str]:
    """Return the identifiers of the runs that rows wait for."""
    return [str(row.run_identifier) for row in rows if row.is_active]


class StartsStoppedError(Exception):
    """A Start was not sent, as the batch has been stopped."""


class StartGate:
    """
    Lets Starts pass until it is closed.

    The threads that send Starts pass through it; an event loop or a signal handler closes it. No lock, since
    a signal handler must not wait for what it has interrupted.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self._under_way: set[Any] = set()

    @property
    def under_way(self) -> frozenset[Any]:
        """The keys of the requests that are under way."""
        return frozenset(self._under_way)

    def send(self, key: Any, request: Callable[[], T]) -> T:
        """
        Send a request unless the gate is closed.

        :param key: Identifies the request while it is under way.
        :raises StartsStoppedError: The gate is closed.
        """
        # Add the key before checking the gate: either this thread sees the closed gate, or the code that
        # closed it sees the key.
        self._under_way.add(key)
        try:
            if self.is_closed:
                raise StartsStoppedError("the batch has been stopped")
            return request()
        finally:
            self._under_way.discard(key)


class Batch:
    """
    Runs for many assets.

    :param rows: The assets; changed in place as they come further.
    :param types: What to generate.
    :param domain_identifier: The domain.
    :param identity: What the client tokens are made of: the same for every try of the same submission.
    :param try_number: The task's try.
    :param try_began_at: Unix time in seconds at which the try began.
    :param max_concurrent_runs: Runs at a time at most.
    :param poll_interval: Seconds between two polls of a run.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success.
    :param log: The task's log.
    :param on_progress: Called now and then while the batch goes on, for example to store the rows.
    :param quota_used_up: Whether a run failed for the account's monthly quota, so that no other is started.
    :param refusals: Why DataZone refuses to start runs, by project, or under an empty text for all of them:
        there no other is started.
    """

    def __init__(
        self,
        rows: list[AssetRow],
        *,
        types: list[str],
        domain_identifier: str,
        identity: str,
        try_number: int,
        try_began_at: float,
        max_concurrent_runs: int,
        poll_interval: float,
        allow_partial_success: bool,
        log: logging.Logger,
        on_progress: Callable[[], None] | None = None,
        quota_used_up: bool = False,
        refusals: Mapping[str, str] | None = None,
    ) -> None:
        self.rows = rows
        self.quota_used_up = quota_used_up
        self.refusals = dict(refusals or {})
        self._types = types
        self._domain_identifier = domain_identifier
        self._identity = identity
        self._try_number = try_number
        self._try_began_at = try_began_at
        self._max_concurrent_runs = max_concurrent_runs
        self._poll_interval = poll_interval
        self._allow_partial_success = allow_partial_success
        self._log = log
        self._on_progress = on_progress
        # Assets that another process may have started a run for without a note of it in the rows.
        self._uncertain: set[tuple[str, str | None, str]] = set()
        # What a request was about that was answered as if by wrong credentials.
        self._rejected: set[str] = set()
        # Runs that an earlier try has started, as far as the answer to Start says so.
        self._replayed: set[str] = set()
        self._has_gap = False
        # `stop` closes the gate for good. `_halt` wakes the tasks that pause between two attempts to start.
        self._gate = StartGate()
        self._halt = asyncio.Event()
        self._starting: dict[Any, asyncio.Task[None]] = {}
        self._line = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        #: How the batch last reached DataZone, for a signal handler that cannot wait for the event loop.
        self.source: RunSource | None = None
        self._progress = _Progress(rows, log, poll_interval)
        self._first_failures = _FirstFailures(log)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do: by the rows, and not by how the work on them has ended."""
        return all(
            row.is_done or (row.run_identifier is None and self._is_left_out(row)) for row in self.rows
        )

    def _is_left_out(self, row: AssetRow) -> bool:
        """Whether no run is started for an asset, since others have shown that it would not help."""
        return self.quota_used_up or is_refused(self.refusals, row)

    async def run(self, parameters: HookParameters, *, noted_at: float) -> None:
        """
        Bring every asset to an end.

        :param parameters: What makes the hook.
        :param noted_at: Unix time in seconds up to which the rows tell everything.
        :raises StartsStoppedError: The batch has been stopped.
        :raises Exception: What ends the batch as a whole: the connection cannot be used, or is rejected.
        """
        self._loop = asyncio.get_running_loop()
        self._progress.begin()
        not_started = [row.key for row in self.rows if row.run_identifier is None and not row.is_done]
        away = time.time() - noted_at
        self._has_gap = away > HAND_OVER
        if self._has_gap:
            # How far another process may have come since then, and what it was about to start.
            reached = math.ceil(away * requests_per_second("max_starts_per_second"))
            self._uncertain = set(not_started[: reached + self._max_concurrent_runs])
        ticker = asyncio.ensure_future(self._tick())
        try:
            await on_poller(parameters, self._domain_identifier, self._work, about="", log=self._log)
            self._progress.finish()
        finally:
            ticker.cancel()

    def stop(self) -> None:
        """
        Start nothing more from now on; :meth:`run` ends.

        May be called by a signal handler that has interrupted the event loop, or by another thread.
        """
        self._gate.is_closed = True
        if self._loop is not None:
            with suppress(RuntimeError):  # It is closed.
                self._loop.call_soon_threadsafe(self._halt.set)

    async def drain(self, timeout: float = SECONDS_TO_DRAIN) -> None:
        """
        Start no more runs, and wait until those that are being started are known.

        :param timeout: Seconds to wait at most.
        """
        self.stop()
        self._drop_unsent()
        if self._starting:
            await asyncio.wait(self._starting.values(), timeout=timeout)

    def _drop_unsent(self) -> None:
        """Drop the Starts that no thread has sent, now that none can be."""
        self._halt.set()
        for key, task in self._starting.items():
            if key not in self._gate.under_way:
                task.cancel()

    async def cancel_all(self, parameters: HookParameters) -> tuple[int, dict[str, BaseException]]:
        """
        Start nothing more, and cancel every run, those that are being started too.

        :return: How many were canceled or had ended, and why others were not.
        """
        self.stop()
        self._drop_unsent()
        cancels: dict[str, asyncio.Task[MetadataGenerationRun]] = {}
        while True:
            for run_identifier in active_runs(self.rows):
                if run_identifier not in cancels:
                    cancels[run_identifier] = asyncio.ensure_future(
                        cancel_run(
                            parameters,
                            run_identifier,
                            domain_identifier=self._domain_identifier,
                            log=self._progress,  # type: ignore[arg-type]
                        )
                    )
            if not self._starting:
                break
            starting = self._starting.values()
            await asyncio.wait(starting, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        ended = await asyncio.gather(*cancels.values(), return_exceptions=True)
        failed = {
            run: error for run, error in zip(cancels, ended, strict=True) if isinstance(error, BaseException)
        }
        return len(cancels) - len(failed), failed

    @property
    def is_starting(self) -> bool:
        """Whether a Start is on its way to DataZone, so that there may soon be one more run."""
        return bool(self._gate.under_way)

    # ----------------------------------------------------------------- work

    async def _work(self, poller: RunPoller) -> None:
        self.source = poller.source
        slots = asyncio.Semaphore(self._max_concurrent_runs)
        tasks: set[asyncio.Task[None]] = set()
        errors: list[BaseException] = []

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            slots.release()
            if not task.cancelled() and (error := task.exception()):
                errors.append(error)

        # Those that are under way first: they have their slots already. And last those that were answered as
        # if by wrong credentials: the others show whether that is so.
        queue = sorted(
            (row for row in self.rows if not row.is_done),
            key=lambda row: (row.run_identifier is None, row.asset_identifier in self._rejected),
        )
        with poller.held():
            # Of a poller before this one, whose credentials were rejected.
            if self._starting:
                await asyncio.wait(self._starting.values())
            if not self._gate.is_closed:
                self._halt.clear()
            halted = asyncio.ensure_future(self._halt.wait())
            try:
                for row in queue:
                    acquired = asyncio.ensure_future(slots.acquire())
                    await asyncio.wait({acquired, halted}, return_when=asyncio.FIRST_COMPLETED)
                    if errors or self._gate.is_closed:
                        acquired.cancel()
                        break
                    if row.run_identifier is None and self._is_left_out(row):
                        slots.release()
                        continue
                    task = asyncio.ensure_future(self._process(poller, row))
                    tasks.add(task)
                    task.add_done_callback(ended)
                while tasks and not errors and not self._gate.is_closed:
                    await asyncio.wait({*tasks, halted}, return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.sleep(0)
                if errors:
                    raise errors[0]
                if self._gate.is_closed:
                    raise StartsStoppedError("the batch has been stopped")
            finally:
                self._halt.set()
                halted.cancel()
                for task in tasks:
                    task.cancel()

    @property
    def _may_start(self) -> bool:
        return not self._halt.is_set() and not self._gate.is_closed

    async def _process(self, poller: RunPoller, row: AssetRow) -> None:
        """Bring one asset to an end."""
        while not row.is_done:
            if row.run_identifier is None:
                # Shielded: what has been sent is to be known, also when the batch ends before the answer is
                # there.
                task = asyncio.ensure_future(self._start(poller, row))
                self._starting[row.key] = task
                task.add_done_callback(partial(self._started, row.key))
                await asyncio.shield(task)
                if row.run_identifier is None:
                    break
            if not row.is_done:
                await self._wait(poller, row)
            if self._is_of_earlier_try(row):
                row.submit_anew()
                if self._has_gap:
                    self._uncertain.add(row.key)
        if names_used_up_quota(row.type_stats):
            if not self.quota_used_up:
                self.quota_used_up = True
                self._log.warning(
                    "The account's monthly quota is used up: no further runs are started%s",
                    _describe_failure(row),
                )
        else:
            self._first_failures.note_end(row)
        if row.is_done:
            self._progress.note_end()

    def _is_of_earlier_try(self, row: AssetRow) -> bool:
        """Whether a run has failed, or was canceled, for an earlier try, so that this one starts its own."""
        if row.status is None or _is_success(row, self._allow_partial_success):
            return False
        if str(row.run_identifier) in self._replayed and row.submission < self._try_number:
            return True
        if row.status != "CANCELED" or row.adopted_at is None:
            return False
        return was_canceled_with_previous_try(
            adopted_at=row.adopted_at,
            seen_active=True,
            now=time.time(),
            poll_interval=self._poll_interval,
        )

    def _started(self, key: Any, task: asyncio.Task[None]) -> None:
        if self._starting.get(key) is task:
            del self._starting[key]
        # Whoever still waits for it hears of an error; nobody else has to.
        task.cancelled() or task.exception()

    async def _start(self, poller: RunPoller, row: AssetRow) -> None:
        """Find or start the run of an asset, unless nothing is to be started any more."""
        loop = asyncio.get_running_loop()
        failing_since: float | None = None
        in_conflict_since: float | None = None
        pause = 1.0
        while True:
            try:
                if row.key in self._uncertain:
                    if await self._adopt_active(poller, row):
                        return
                    self._uncertain.discard(row.key)
                await self._send_start(poller, row)
                return
            except StartsStoppedError:
                return
            except CredentialsRejectedError as error:
                if not self._is_about_this_one(error, row.asset_identifier, poller):
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
                    # There is a run already, which List may show a little later; or the conflict passes.
                    in_conflict_since = now if in_conflict_since is None else in_conflict_since
                    self._uncertain.add(row.key)
                is_hopeless = failing_since is not None and now - failing_since >= START_PATIENCE
                is_conflict_over = in_conflict_since is not None and now - in_conflict_since >= CONFLICT_GRACE
                passes = is_transient(error) or (is_conflict(error) and not is_conflict_over)
                if is_hopeless:
                    waited = f"DataZone has not accepted the Start for {START_PATIENCE / 60:.0f} minutes"
                    self._fail(row, error, f"{waited}: {error}")
                    return
                if not passes:
                    _note_refusal(row, error)
                    if not self._note_refusal_of_others(row, error):
                        self._first_failures.note_error(row, error)
                    return
                self._progress.warning("Could not start a run just now, will try again: %s", error)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._halt.wait(), pause)
                return
            pause = min(pause * 2, LONGEST_PAUSE)

    def _fail(self, row: AssetRow, error: BaseException, message: str) -> None:
        """
        Record that an asset failed.

        :param message: The text of the error, for the asset's row of the results.
        """
        row.error = message
        self._first_failures.note_error(row, error)

    def _note_refusal_of_others(self, row: AssetRow, error: Exception) -> bool:
        """Start nothing more where a refusal holds for other assets, too; return whether it does."""
        if refuses_every_asset(error):
            scope, whose = "", "any asset"
        elif refuses_every_asset_of_project(error):
            scope, whose = row.owning_project_identifier, f"project {row.owning_project_identifier!r}"
        else:
            return False
        if scope not in self.refusals:
            self.refusals[scope] = str(error)
            if len(self.refusals) > LOGGED_FAILURE_KINDS:
                return True
            self._log.error("No further runs are started for %s: %s", whose, error)
        return True

    async def _send_start(self, poller: RunPoller, row: AssetRow) -> None:
        request = RunRequest(
            row.asset_identifier,
            self._types,
            self._domain_identifier,
            row.owning_project_identifier,
            row.asset_revision,
        )
        number = row.submission

        def send(request: Callable[[], MetadataGenerationRun]) -> MetadataGenerationRun:
            def start() -> MetadataGenerationRun:
                run = request()
                # Here, so that a signal handler knows of the run as soon as DataZone has answered.
                row.run_identifier = run.id
                return run

            return self._gate.send(row.key, start)

        token = token_of(self._identity, request.fingerprint, number)
        run = await poller.start(
            request,
            token,
            line=self._line,
            is_wanted=lambda: self._may_start and not self._is_left_out(row),
            send=send,
        )
        if run is None:
            return
        self._rejected.discard(row.asset_identifier)
        self._progress.started += 1
        if is_replay(
            run,
            try_began_at=self._try_began_at,
            submission_number=number,
            try_number=self._try_number,
        ):
            self._replayed.add(run.id)

    def _is_about_this_one(
        self, error: CredentialsRejectedError, asked: str | None, poller: RunPoller
    ) -> bool:
        """
        Whether it is not the credentials that are wrong, but what was asked for.

        That is so where it is refused again with credentials that were looked up for it, and others are
        answered.
        """
        if error.asked != asked:
            return False
        if asked in poller.had_answered_about:
            # It was answered before, so the credentials have changed once more.
            self._rejected.discard(asked)
        if asked in self._rejected and poller.has_answered:
            return True
        self._rejected.add(asked)
        return False

    async def _adopt_active(self, poller: RunPoller, row: AssetRow) -> bool:
        """
        Adopt the active run of an asset that no row tells of.

        Only an active one: a run that has ended may be another task's. That of the batch's own is what its
        client token leads to.
        """
        try:
            listed = await poller.list_runs_of_asset(row.asset_identifier)
        except ClientError as error:
            if is_transient(error):
                raise
            self._progress.warning(
                "Runs cannot be listed, so client tokens alone tell what was started: %s", error
            )
            return False
        for run in listed:
            if (
                not run.is_terminal
                and set(run.types) == set(self._types)
                and row.asset_revision in (None, run.asset_revision)
            ):
                row.run_identifier, row.adopted_at = run.id, time.time()
                return True
        return False

    async def _wait(self, poller: RunPoller, row: AssetRow) -> None:
        try:
            run = await poller.wait(
                str(row.run_identifier),
                run_type=None,
                poll_interval=self._poll_interval,
                timeout=None,
                log=self._progress,  # type: ignore[arg-type]
            )
        except CredentialsRejectedError as error:
            if not self._is_about_this_one(error, row.run_identifier, poller):
                raise
            cause = error.__cause__ or error
            self._fail(row, cause, str(cause))
        except Exception as error:
            if is_not_found(error):
                # It is gone, and a retry is not to wait for it.
                row.submit_anew()
            _note_refusal(row, error)
            self._first_failures.note_error(row, error)
        else:
            row.status, row.type_stats = run.status, run.type_stats

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL)
            if self._progress.may_report:
                self._progress.report()
            try:
                if self._on_progress is not None:
                    self._on_progress()
            except Exception as error:
                self._log.warning("How far the batch is could not be noted just now: %s", error)


def _note_refusal(row: AssetRow, error: Exception) -> None:
    """Take note of what DataZone has against one asset; what else goes wrong is about all of them."""
    refused = isinstance(error, ClientError) or is_permanent(error)
    if not refused or isinstance(error, NotConfiguredError):
        raise error
    row.error = str(error)
    row.is_refused = is_permanent(error)


def is_refused(refusals: Mapping[str, str], row: AssetRow) -> bool:
    """Whether DataZone refuses to start runs for an asset, as it has for others of all, or of the project."""
    return "" in refusals or row.owning_project_identifier in refusals


class _FirstFailures:
    """
    Log the first failure of each kind as it happens; those that follow are only counted in the progress.

    :param log: The task's log.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._codes: set[str] = set()
        # By type, status and message: at most so many as are logged, and one batch has no more in memory.
        self._patterns: set[tuple[str, str, str]] = set()
        self._leaves_out = False

    def note_error(self, row: AssetRow, error: BaseException) -> None:
        """Note that an asset has failed for an error: its kind is the error's code, or its class."""
        code = error_code(error) if isinstance(error, ClientError) else ""
        self._note_code(row, code or type(error).__name__)

    def note_end(self, row: AssetRow) -> None:
        """Note how a run has ended: kinds are types that failed, with the pattern of their message."""
        if row.error is not None:
            return
        if not row.failures and row.status in FAILURE_STATUSES:
            self._note_code(row, str(row.status))
        if self._leaves_out:
            return
        patterns = {
            (str(stat.get("type")), str(stat.get("status")), _pattern(stat.get("errorMessage") or "", row))
            for stat in row.failures
        }
        if patterns <= self._patterns:
            return
        if len(self._patterns) >= LOGGED_FAILURE_KINDS:
            self._leaves_out = True
            self._log.warning("Runs fail for other reasons, too: see the XCom %r.", XCOM_RESULTS)
            return
        self._patterns |= patterns
        self._log.warning("First failure of its kind%s", _describe_failure(row))

    def _note_code(self, row: AssetRow, code: str) -> None:
        if code not in self._codes:
            self._codes.add(code)
            self._log.warning("First failure of its kind%s", _describe_failure(row))


def _pattern(message: str, row: AssetRow) -> str:
    """Return a message without what differs from asset to asset: identifiers, and words with digits."""
    message = message[:_PATTERN_LENGTH]
    for identifier in (row.asset_identifier, row.run_identifier):
        if identifier:
            message = message.replace(identifier, "#")
    words = message.split()
    return " ".join("#" if any(character.isdigit() for character in word) else word for word in words)


def _describe_failure(row: AssetRow) -> str:
    """Return `` (asset, run): reason``, without what the reason itself names."""
    reason = row.error or describe_failures(row.failures)
    if not reason:
        reason = f"ended {row.status}; DataZone gave no reason" if row.status else "not started"
    asset, run = (
        one_line(f"{kind} {identifier!r}", length=200)
        for kind, identifier in (("asset", row.asset_identifier), ("run", row.run_identifier))
    )
    names = [] if asset in reason else [asset]
    if row.run_identifier is not None:
        names += [] if run in reason else [run]
    elif "(run " not in reason:
        # Otherwise it names a run that DataZone does not know any more.
        names.append("no run was started")
    return f" ({', '.join(names)}): {reason}" if names else f": {reason}"


class _Progress:
    """Tell how far a batch is; and stand for the log of each of its waits, which nobody would read."""

    def __init__(self, rows: list[AssetRow], log: logging.Logger, poll_interval: float) -> None:
        self.started = 0
        self._rows = rows
        self._log = log
        self._poll_interval = poll_interval
        self._began_at = self._first_end_at = self._reported_at = time.monotonic()
        self._done = self._done_before = self._done_reported = self._tenth = self._started_before = 0
        self._has_reported = False
        self._warned_at: dict[str, float] = {}

    def begin(self) -> None:
        """Take note of what was done before this process came to it."""
        self._began_at = self._first_end_at = self._reported_at = time.monotonic()
        self._done = self._done_before = self._done_reported = sum(row.is_done for row in self._rows)
        self._tenth = self._tenths()

    def note_end(self) -> None:
        """Note that an asset is done; a tenth is worth a line, unless there was one a moment ago."""
        now = time.monotonic()
        if self._done == self._done_before:
            self._first_end_at = now
        self._done += 1
        if self._tenths() > self._tenth and self.may_report and self._done < len(self._rows):
            self.report()

    @property
    def may_report(self) -> bool:
        """Whether the last line, if any, is long enough ago."""
        return not self._has_reported or time.monotonic() - self._reported_at >= SHORTEST_REPORT_INTERVAL

    def finish(self) -> None:
        """Write the last line, where assets have ended since the line before."""
        if self._done > self._done_reported:
            self.report()

    def report(self) -> None:
        """Write a line."""
        counts = Counts.of(self._rows)
        self._tenth, self._done_reported, self._has_reported = self._tenths(), self._done, True
        now = time.monotonic()
        since = now - self._reported_at
        # A rate over a moment says nothing, nor does one that rounds to nothing.
        starts = (self.started - self._started_before) / since if since >= 1 else 0.0
        self._reported_at, self._started_before = now, self.started
        parts = [
            f"{counts.done:,}/{counts.total:,} done",
            f"{counts.succeeded + counts.partially_succeeded:,} succeeded",
            f"{counts.failed + counts.canceled:,} failed",
            f"{counts.active:,} active",
        ]
        if starts >= 0.05:
            parts.append(f"{starts:.1f} starts/s")
        if (left := self._seconds_left(counts, now)) is not None:
            parts.append(f"about {_duration(left)} left")
        self._log.info(" · ".join(parts))

    def _seconds_left(self, counts: Counts, now: float) -> float | None:
        """Estimate, once a tenth of this process' share says something."""
        left, done = counts.total - counts.done, counts.done - self._done_before
        if not left or done < 2 or done * 10 < counts.total - self._done_before:
            return None
        if counts.not_started and self.started:
            # The last one is started at the pace so far, and then takes as long as the first did; but that
            # one's end was seen the soonest of all.
            pace = (now - self._began_at) / self.started
            first = self._first_end_at - self._began_at
            return counts.not_started * pace + first + self._poll_interval / 2
        return left * (now - self._first_end_at) / (done - 1)

    def _tenths(self) -> int:
        return self._done * 10 // max(len(self._rows), 1)

    # ------------------------------------------------------ the log of a wait

    def debug(self, message: str, *arguments: Any) -> None:
        self._log.debug(message, *arguments)

    def info(self, message: str, *arguments: Any) -> None:
        self._log.debug(message, *arguments)

    def warning(self, message: str, *arguments: Any) -> None:
        # Of the same trouble, which thousands of waits may have at a time, one line in a while.
        now = time.monotonic()
        if now - self._warned_at.get(message, -math.inf) >= REPORT_INTERVAL:
            self._warned_at[message] = now
            self._log.warning(message, *arguments)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


# ----------------------------------------------------------------- what a task makes of it


class BatchMemory:
    """
    What a task remembers of its batch over its tries: all of it from Airflow 3.3 on, and nothing before.

    :param context: The task's context.
    :param domain_identifier: The domain.
    :param types: What is generated.
    """

    def __init__(self, context: Context, domain_identifier: str, types: list[str]) -> None:
        self.domain_identifier = domain_identifier
        self.types = types
        self.try_number: int = context["ti"].try_number
        self._store = task_state_store(context)
        self._success = success_record(context)
        request = [domain_identifier, sorted(types)]
        stored: Any = self._store.get(_STATE_KEY) if self._store is not None else None
        record: dict[str, Any] = stored if _is_record(stored) else {}
        is_again = was_cleared(record, context)
        if record.get("request") != request or is_again:
            # It asks for something else by now; or it had succeeded, and was cleared to be done again.
            identity = client_token(context, request)
            if is_again and identity == record["identity"]:
                # A clear after `retries` was lowered leaves what tokens are made of as it is.
                identity = client_token(context, request, self.try_number)
            record = {
                "request": request,
                "identity": identity,
                # Read by version 0.1 alone.
                "began_at": time.time(),
                "parts": 0,
                "generation": 0,
            }
            is_first = self.try_number == 1 or is_again
            record["noted_at"] = time.time() if is_first else 0.0
            if self._store is not None:
                self._store.set(_STATE_KEY, record)
        self._record = record

    @property
    def identity(self) -> str:
        """What the client tokens are made of."""
        return str(self._record["identity"])

    @property
    def noted_at(self) -> float:
        """Unix time in seconds up to which the rows tell everything."""
        return float(self._record["noted_at"])

    def recall(self, rows: list[AssetRow], *, allow_partial_success: bool) -> list[AssetRow]:
        """
        Return the rows as they were noted last; those that failed are to be done again.

        :param rows: The assets that the task is about now.
        :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success.
        """
        try:
            known = {row.key: row for row in self._read()}
        except (ValueError, TypeError):
            # Somebody has changed it, or it is of another version; DataZone knows as much.
            known, self._record["noted_at"] = {}, 0.0
        recalled = [known.get(row.key, row) for row in rows]
        for row in recalled:
            if row.is_active:
                row.adopted_at = time.time()
            if row.is_done and not _is_success(row, allow_partial_success):
                if row.status is None:
                    row.error, row.is_refused = None, False
                else:
                    row.submit_anew()
        return recalled

    def _read(self) -> list[AssetRow]:
        parts = [self._store.get(self._part(number)) for number in range(self._record["parts"])]
        return unpack("".join(str(part) for part in parts)) if parts else []

    def _part(self, number: int) -> str:
        return f"{_STATE_KEY}_{self._record['generation']}_{number}"

    def note(self, rows: list[AssetRow], noted_at: float | None = None) -> None:
        """Store the rows, which tell everything by now, or did at a time."""
        self._record["noted_at"] = time.time() if noted_at is None else noted_at
        if self._store is None:
            return
        # Beside those that are there, to which the record leads until it is written itself.
        self._record["generation"] = 1 - self._record["generation"]
        text = pack(rows)
        parts = [text[start : start + _STATE_SIZE] for start in range(0, len(text), _STATE_SIZE)]
        for number, part in enumerate(parts):
            self._store.set(self._part(number), part)
        self._record["parts"] = len(parts)
        self._store.set(_STATE_KEY, self._record)

    def note_success(self) -> None:
        """Take note that the task succeeds: if it runs again, it was cleared."""
        self._record |= self._success
        if self._store is not None:
            self._store.set(_STATE_KEY, self._record)


def _is_record(stored: Any) -> bool:
    """Whether this version, or one like it, has written what is stored: somebody may have changed it."""
    if not isinstance(stored, dict):
        return False
    noted_at = stored.get("noted_at")
    return (
        isinstance(stored.get("identity"), str)
        and isinstance(noted_at, (int, float))
        and 0 <= noted_at < 1e12
        and stored.get("generation") in (0, 1)
        and type(stored.get("parts")) is int
    )


def _is_success(row: AssetRow, allow_partial_success: bool) -> bool:
    return row.status == "SUCCEEDED" or (allow_partial_success and row.status == "PARTIALLY_SUCCEEDED")


def describe_timeout(domain_identifier: str) -> str:
    """Say that a batch's time was up, for whoever looks for its runs."""
    return f"The batch in domain {domain_identifier!r} has not ended in time; its runs go on."


def summarise(
    rows: list[AssetRow], duplicates: int, seconds: float, allow_partial_success: bool
) -> dict[str, Any]:
    """
    Return the summary of a batch.

    :param rows: Its assets.
    :param duplicates: How many more there were that are the same.
    :param seconds: How long it took.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success.
    """
    counts = Counts.of(rows)
    failures = [row for row in rows if row.is_done and not _is_success(row, allow_partial_success)]
    return {
        "total": counts.total,
        "succeeded": counts.succeeded,
        "partially_succeeded": counts.partially_succeeded,
        "failed": counts.failed,
        "canceled": counts.canceled,
        "not_started": counts.not_started,
        "duplicates": duplicates,
        "duration_seconds": round(seconds, 1),
        "failures": [row.to_result() for row in failures[:FAILURES_SHOWN]],
    }


def require_few_failures(
    rows: list[AssetRow],
    max_failures: float,
    *,
    allow_partial_success: bool,
    quota_used_up: bool,
    refusals: Mapping[str, str],
) -> None:
    """
    Let the task go on, or fail it.

    :param max_failures: How many assets may fail, or as a ``float`` which share of them.
    :param quota_used_up: Whether a run has failed for the account's monthly quota in this try.
    :param refusals: Why DataZone refuses to start runs, as :class:`Batch` has them.
    :raises RequestRefusedError: The same, and no asset could do better in a retry.
    :raises QuotaUsedUpError: Assets were left, or failed, for the account's monthly quota.
    :raises BatchFailedError: More assets failed than may.
    """
    failed = [row for row in rows if not _is_success(row, allow_partial_success)]
    share = len(failed) / max(len(rows), 1)
    if (share if isinstance(max_failures, float) else len(failed)) <= max_failures:
        return
    # Not one that was left out because of others, if there is another.
    first = next((row for row in failed if row.is_done), None)
    if first is None and refusals:
        reason = f": {next(iter(refusals.values()))}"
    else:
        reason = _describe_failure(first or failed[0])
    message = (
        f"{len(failed):,} of {len(rows):,} assets have not succeeded, with max_failures={max_failures}; "
        f"the first failure{reason}"
    ).rstrip(".")
    if all(row.is_refused or (not row.is_done and is_refused(refusals, row)) for row in failed):
        raise RequestRefusedError(f"{message}. A retry would meet the same.")
    if quota_used_up:
        not_started = sum(row.run_identifier is None and row.error is None for row in rows)
        raise QuotaUsedUpError(
            f"{message}. The account's monthly quota is used up: {not_started:,} were not started."
        )
    raise BatchFailedError(message)
