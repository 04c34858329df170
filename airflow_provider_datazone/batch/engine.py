"""
Generate metadata for many assets at DataZone's rate, in a worker or in a triggerer.

The batch starts runs one after the other at the rate of ``[datazone] max_starts_per_second``, keeps at most
``max_concurrent_runs`` active, and waits for them on the shared poller. If its settings say so, it accepts
the predictions for an asset and publishes the asset as soon as the asset's run has succeeded, while other
runs continue. The result of each asset is in its row, and another process can continue with the rows. Rows do
not contain the last steps of a process that was killed. For the assets that it may have reached, the next
process lists the active runs first. Every Start, and every request to accept or publish, has a client token
that is the same in each process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.batch.assets import active_runs
from airflow_provider_datazone.batch.progress import REPORT_INTERVAL, FailureLog, Progress
from airflow_provider_datazone.batch.publishing import AssetPublisher
from airflow_provider_datazone.batch.requests import BatchRequests, BatchStoppedError, RequestKind
from airflow_provider_datazone.batch.starts import START, RunStarter, scope_of_refusal
from airflow_provider_datazone.batch.summary import describe_failure
from airflow_provider_datazone.idempotency import was_canceled_with_previous_try
from airflow_provider_datazone.metadata_generation import names_used_up_quota
from airflow_provider_datazone.metrics import count_ended_run
from airflow_provider_datazone.polling.errors import CredentialsRejectedError
from airflow_provider_datazone.polling.jobs import cancel_run, run_on_poller
from airflow_provider_datazone.service_errors import may_be_new

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.batch.assets import AssetRow
    from airflow_provider_datazone.batch.state import BatchSettings, BatchState
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
    from airflow_provider_datazone.polling.poller import RunPoller
    from airflow_provider_datazone.polling.source import HookParameters, RunSource

# Seconds for the responses to the requests in flight when a batch is drained.
SECONDS_TO_DRAIN = 30.0

# Runs that cannot be read would be paid for in vain.
GET = RequestKind("GetMetadataGenerationRun", "read a run", scope_of_refusal)


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
        self._progress = Progress(state, settings.steps, log, settings.poll_interval)
        self._failure_log = FailureLog(log)
        self._requests = BatchRequests(state, log=log, progress=self._progress, failure_log=self._failure_log)
        self._starter = RunStarter(state, settings, progress=self._progress, requests=self._requests)
        self._publisher = AssetPublisher(settings, self._requests)

    async def run(self, parameters: HookParameters) -> None:
        """
        Process all assets.

        :param parameters: The hook's parameters.
        :raises BatchStoppedError: The batch has been stopped.
        :raises Exception: An error that concerns the whole batch, for example of the connection.
        """
        self._progress.begin()
        self._requests.begin()
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
        """Send no more requests; :meth:`run` ends. A signal handler or another thread may call it."""
        self._requests.stop()

    async def drain(self, timeout: float = SECONDS_TO_DRAIN) -> None:
        """
        Send no more requests, and wait for the responses to those in flight.

        :param timeout: Maximum seconds to wait.
        """
        self._requests.stop()
        self._requests.drop_unsent()
        if tasks := self._requests.tasks:
            await asyncio.wait(tasks, timeout=timeout)

    async def cancel_all(self, parameters: HookParameters) -> tuple[int, dict[str, BaseException]]:
        """
        Start no more runs, and cancel every active run, including those that are being started.

        :param parameters: The hook's parameters.
        :return: The number of runs that were canceled or had ended, and the errors of the others.
        """
        self._requests.stop()
        self._requests.drop_unsent()
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
            if not (tasks := self._requests.tasks):
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
        return self._requests.is_in_flight(START)

    @property
    def is_finished(self) -> bool:
        """Whether no asset needs more work."""
        return self.state.is_finished(self._settings.steps)

    # ----------------------------------------------------------------- work

    async def _work(self, poller: RunPoller) -> None:
        self.source = poller.sender.source
        slots = asyncio.Semaphore(self._settings.max_concurrent_runs)
        tasks: set[asyncio.Task[None]] = set()
        errors: list[BaseException] = []
        # Set on an error, and when the last task has ended. A wait for the tasks themselves would visit
        # thousands of them at every end.
        changed = asyncio.Event()

        def begin(work: Coroutine[Any, Any, None]) -> None:
            task = asyncio.ensure_future(work)
            tasks.add(task)
            task.add_done_callback(on_ended)

        def on_ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not task.cancelled() and (error := task.exception()):
                errors.append(error)
            if errors or not tasks:
                changed.set()

        async def first_of(*futures: asyncio.Future[Any]) -> None:
            """Wait until a future is done, or something has changed."""
            change = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait({change, *futures}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                change.cancel()

        await self._requests.resume()
        paused = asyncio.ensure_future(self._requests.paused.wait())
        try:
            for row in self._queue():
                acquired = asyncio.ensure_future(slots.acquire())
                while not (acquired.done() or paused.done() or errors):
                    changed.clear()
                    await first_of(acquired, paused)
                if errors or self._requests.is_stopped:
                    acquired.cancel()
                    break
                if row.run_identifier is None and self.state.is_left_out(row):
                    slots.release()
                    continue
                begin(self._process(poller, row, slots))
            while tasks and not errors and not self._requests.is_stopped:
                changed.clear()
                await first_of(paused)
            if errors:
                raise errors[0]
            if self._requests.is_stopped:
                raise BatchStoppedError("the batch has been stopped")
        finally:
            self._requests.paused.set()
            paused.cancel()
            for task in tasks:
                task.cancel()

    def _queue(self) -> list[AssetRow]:
        """
        Return the assets that need work, in order.

        Assets whose run has succeeded come first, then those with an active run, which already use slots.
        Assets whose request DataZone rejected with a credentials error come last: the others show whether the
        credentials are valid.
        """
        return sorted(
            (row for row in self.state.rows if not self._settings.steps.is_done(row)),
            key=lambda row: (
                not row.has_ended,
                row.run_identifier is None,
                row.asset_identifier in self._requests.rejected,
            ),
        )

    async def _process(self, poller: RunPoller, row: AssetRow, slots: asyncio.Semaphore) -> None:
        """Process one asset until it has a result, or the batch pauses. Its run may have ended before."""
        try:
            await self._generate(poller, row)
        finally:
            # The asset's run has ended, so another one may start.
            slots.release()
        if row.has_ended:
            await self._finish(poller, row)

    async def _finish(self, poller: RunPoller, row: AssetRow) -> None:
        """Accept and publish what the asset's run has generated, as the settings require; count the asset."""
        steps = self._settings.steps
        if row.error is None and steps.has_succeeded_run(row):
            await self._publisher.process(poller, row)
        if steps.is_done(row):
            self._progress.on_done()

    async def _generate(self, poller: RunPoller, row: AssetRow) -> None:
        """Start the run of one asset, and wait until it has ended."""
        if row.has_ended:
            # Its run ended before. If it failed because of the quota, the quota may have been renewed.
            return
        while not row.has_ended:
            if row.run_identifier is None:
                await self._starter.start(poller, row)
                if row.run_identifier is None:
                    break
            if not row.has_ended:
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

    def _belongs_to_earlier_try(self, row: AssetRow) -> bool:
        """Whether a run failed or was canceled in an earlier try, so that this try starts its own."""
        has_failed = row.status is not None and not self._settings.steps.has_succeeded_run(row)
        if not (row.is_adopted and has_failed):
            return False
        if row.is_token_used and not row.seen_active:
            return True
        is_retry = self._settings.try_number > 1
        return (
            is_retry
            and row.status == "CANCELED"
            and was_canceled_with_previous_try(
                adopted_at=row.adopted_at,
                seen_active=row.seen_active,
                now=time.time(),
                poll_interval=self._settings.poll_interval,
            )
        )

    async def _wait(self, poller: RunPoller, row: AssetRow) -> None:
        """Wait until the run of one asset has ended. If it no longer exists, remove it from the row."""
        on_active = partial(setattr, row, "seen_active", True) if row.is_adopted else None
        try:
            await self._requests.require_response(row.run_identifier, poller)
            run = await poller.wait(
                str(row.run_identifier),
                run_type=None,
                poll_interval=self._settings.poll_interval,
                timeout=None,
                log=self._progress,  # type: ignore[arg-type]
                on_active=on_active,
            )
        except CredentialsRejectedError as error:
            self._requests.fail_if_specific(error, row, row.run_identifier, poller)
        except Exception as error:
            if may_be_new(error):
                if row.is_adopted:
                    self._progress.warning("The run of an earlier try no longer exists: %s", error)
                    self._starter.prepare_restart(row)
                    return
                # A retry must not wait for it, and starts another.
                row.reset()
            self._requests.refuse(GET, row, error)
            row.is_refused = row.is_refused and row.run_identifier is not None
        else:
            row.status, row.type_stats = run.status, run.type_stats
            count_ended_run(run.status)

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
