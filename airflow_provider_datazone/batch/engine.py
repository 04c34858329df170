"""
Generate metadata for many assets at DataZone's rate, in a worker or in a triggerer.

The batch starts runs one after the other at the rate of ``[datazone] max_starts_per_second``, keeps at most
``max_concurrent_runs`` active, and waits for them on the shared poller. The result of each asset is in its
row, and another process can continue with the rows. Rows do not contain the last steps of a process that was
killed. For the assets that it may have reached, the next process lists the active runs first, and every Start
has a client token that is the same in each process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_datazone.batch.assets import active_runs
from airflow_provider_datazone.batch.progress import REPORT_INTERVAL, FailureLog, Progress
from airflow_provider_datazone.batch.starts import (
    RejectedRequests,
    RunStarter,
    StartsStoppedError,
    record_refusal,
)
from airflow_provider_datazone.batch.summary import describe_failure
from airflow_provider_datazone.idempotency import was_canceled_with_previous_try
from airflow_provider_datazone.metadata_generation import names_used_up_quota
from airflow_provider_datazone.polling.errors import CredentialsRejectedError
from airflow_provider_datazone.polling.registry import cancel_run, run_on_poller
from airflow_provider_datazone.service_errors import is_not_found

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.batch.assets import AssetRow
    from airflow_provider_datazone.batch.state import BatchSettings, BatchState
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
    from airflow_provider_datazone.polling.poller import RunPoller
    from airflow_provider_datazone.polling.source import HookParameters, RunSource

# Seconds for the responses to the Starts in flight when a batch is drained.
SECONDS_TO_DRAIN = 30.0


class Batch:
    """
    The runs of many assets.

    :param state: The assets and how far they are; updated in place.
    :param settings: What to generate, and how.
    :param log: The task's log.
    :param on_progress: Called every 30 seconds while the batch runs, for example to save the rows.
    """

    def __init__(
        self,
        state: BatchState,
        settings: BatchSettings,
        *,
        log: logging.Logger,
        on_progress: Callable[[], None] | None = None,
    ) -> None:
        self.state = state
        self._settings = settings
        self._log = log
        self._on_progress = on_progress
        #: Where the batch sends requests, for a signal handler that cannot wait for the event loop.
        self.source: RunSource | None = None
        self._progress = Progress(state.rows, log, settings.poll_interval)
        self._failure_log = FailureLog(log)
        self._rejected = RejectedRequests()
        self._starter = RunStarter(
            state,
            settings,
            log=log,
            progress=self._progress,
            failure_log=self._failure_log,
            rejected=self._rejected,
        )

    async def run(self, parameters: HookParameters) -> None:
        """
        Process all assets.

        :param parameters: The hook's parameters.
        :raises StartsStoppedError: The batch has been stopped.
        :raises Exception: An error that concerns the whole batch, for example of the connection.
        """
        self._progress.begin()
        self._starter.begin()
        reporter = asyncio.ensure_future(self._report_periodically())
        try:
            await run_on_poller(
                parameters, self._settings.domain_identifier, self._work, subject="", log=self._log
            )
            self._progress.finish()
        finally:
            reporter.cancel()

    def stop(self) -> None:
        """Start no more runs; :meth:`run` ends. A signal handler or another thread may call it."""
        self._starter.stop()

    async def drain(self, timeout: float = SECONDS_TO_DRAIN) -> None:
        """
        Start no more runs, and wait for the responses to the Starts in flight.

        :param timeout: Maximum seconds to wait.
        """
        self._starter.stop()
        self._starter.drop_unsent()
        if tasks := self._starter.tasks:
            await asyncio.wait(tasks, timeout=timeout)

    async def cancel_all(self, parameters: HookParameters) -> tuple[int, dict[str, BaseException]]:
        """
        Start no more runs, and cancel every active run, including those that are being started.

        :param parameters: The hook's parameters.
        :return: The number of runs that were canceled or had ended, and the errors of the others.
        """
        self._starter.stop()
        self._starter.drop_unsent()
        cancels: dict[str, asyncio.Task[MetadataGenerationRun]] = {}
        while True:
            for run_identifier in active_runs(self.state.rows):
                if run_identifier not in cancels:
                    cancels[run_identifier] = asyncio.ensure_future(
                        cancel_run(
                            parameters,
                            run_identifier,
                            domain_identifier=self._settings.domain_identifier,
                            log=self._progress,  # type: ignore[arg-type]
                        )
                    )
            if not (tasks := self._starter.tasks):
                break
            await asyncio.wait(tasks, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        ended = await asyncio.gather(*cancels.values(), return_exceptions=True)
        failed = {
            run: error for run, error in zip(cancels, ended, strict=True) if isinstance(error, BaseException)
        }
        return len(cancels) - len(failed), failed

    @property
    def is_starting(self) -> bool:
        """Whether a Start is in flight, so that there may soon be one more run."""
        return self._starter.has_requests_in_flight

    # ----------------------------------------------------------------- work

    async def _work(self, poller: RunPoller) -> None:
        self.source = poller.sender.source
        slots = asyncio.Semaphore(self._settings.max_concurrent_runs)
        tasks: set[asyncio.Task[None]] = set()
        errors: list[BaseException] = []

        def on_ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            slots.release()
            if not task.cancelled() and (error := task.exception()):
                errors.append(error)

        # Assets with an active run come first, since their runs already use slots. Assets whose request
        # DataZone rejected with a credentials error come last: the others show whether the credentials are
        # valid.
        queue = sorted(
            (row for row in self.state.rows if not row.is_done),
            key=lambda row: (row.run_identifier is None, row.asset_identifier in self._rejected),
        )
        await self._starter.resume()
        paused = asyncio.ensure_future(self._starter.paused.wait())
        try:
            for row in queue:
                acquired = asyncio.ensure_future(slots.acquire())
                await asyncio.wait({acquired, paused}, return_when=asyncio.FIRST_COMPLETED)
                if errors or self._starter.is_stopped:
                    acquired.cancel()
                    break
                if row.run_identifier is None and self.state.is_left_out(row):
                    slots.release()
                    continue
                task = asyncio.ensure_future(self._process(poller, row))
                tasks.add(task)
                task.add_done_callback(on_ended)
            while tasks and not errors and not self._starter.is_stopped:
                await asyncio.wait({*tasks, paused}, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0)
            if errors:
                raise errors[0]
            if self._starter.is_stopped:
                raise StartsStoppedError("the batch has been stopped")
        finally:
            self._starter.paused.set()
            paused.cancel()
            for task in tasks:
                task.cancel()

    async def _process(self, poller: RunPoller, row: AssetRow) -> None:
        """Process one asset until it has a result."""
        while not row.is_done:
            if row.run_identifier is None:
                await self._starter.start(poller, row)
                if row.run_identifier is None:
                    break
            if not row.is_done:
                await self._wait(poller, row)
            if self._belongs_to_earlier_try(row):
                self._starter.prepare_restart(row)
        if names_used_up_quota(row.type_stats):
            if not self.state.quota_used_up:
                self.state.quota_used_up = True
                self._log.warning(
                    "The account's monthly quota is used up: no further runs are started%s",
                    describe_failure(row),
                )
        else:
            self._failure_log.on_end(row)
        if row.is_done:
            self._progress.on_done()

    def _belongs_to_earlier_try(self, row: AssetRow) -> bool:
        """Whether a run failed or was canceled in an earlier try, so that this try starts its own."""
        if row.status is None or row.is_success(self._settings.allow_partial_success):
            return False
        if self._starter.is_replayed(row):
            return True
        if row.status != "CANCELED" or row.adopted_at is None:
            return False
        return was_canceled_with_previous_try(
            adopted_at=row.adopted_at,
            seen_active=True,
            now=time.time(),
            poll_interval=self._settings.poll_interval,
        )

    async def _wait(self, poller: RunPoller, row: AssetRow) -> None:
        try:
            run = await poller.wait(
                str(row.run_identifier),
                run_type=None,
                poll_interval=self._settings.poll_interval,
                timeout=None,
                log=self._progress,  # type: ignore[arg-type]
            )
        except CredentialsRejectedError as error:
            if not self._rejected.is_specific(error, row.run_identifier, poller):
                raise
            cause = error.__cause__ or error
            row.error = str(cause)
            self._failure_log.on_error(row, cause)
        except Exception as error:
            if is_not_found(error):
                # The run no longer exists, so a retry must not wait for it.
                row.reset()
            record_refusal(row, error)
            self._failure_log.on_error(row, error)
        else:
            row.status, row.type_stats = run.status, run.type_stats

    async def _report_periodically(self) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL)
            if self._progress.may_report:
                self._progress.report()
            try:
                if self._on_progress is not None:
                    self._on_progress()
            except Exception as error:
                self._log.warning("The progress of the batch could not be saved just now: %s", error)
