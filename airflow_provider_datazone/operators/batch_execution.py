"""Process a batch of assets: the execution of ``DataZoneBatchMetadataGenerationOperator``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_datazone.batch.assets import active_runs, parse_assets, validate_limits
from airflow_provider_datazone.batch.engine import Batch
from airflow_provider_datazone.batch.memory import BatchMemory
from airflow_provider_datazone.batch.requests import BatchStoppedError
from airflow_provider_datazone.batch.state import BatchSettings, BatchState
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.batch.summary import describe_timeout, require_few_failures, summarize
from airflow_provider_datazone.cancellation import cancel_runs
from airflow_provider_datazone.deferral import deadline_after, defer, unreadable_event
from airflow_provider_datazone.exceptions import WaitFailedError
from airflow_provider_datazone.inputs import validate_interval, validate_types
from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.operators.base import BatchOperatorBase, Execution
from airflow_provider_datazone.polling.source import HookParameters
from airflow_provider_datazone.task_outcome import XCOM_RESULTS, push
from airflow_provider_datazone.triggers.datazone import DataZoneBatchMetadataGenerationTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class BatchExecution(Execution[BatchOperatorBase]):
    """
    One execution of the operator.

    :param operator: The operator.
    :param context: The task's context.
    """

    def __init__(self, operator: BatchOperatorBase, context: Context) -> None:
        super().__init__(operator, context)
        # Plain attributes, since `on_kill` uses them in a signal handler.
        self._state: BatchState | None = None
        self._batch: Batch | None = None
        self._has_canceled = False
        self._has_pushed = False
        self._began_at = time.time()

    @property
    def _steps(self) -> Steps:
        operator = self.operator
        return Steps.from_arguments(
            operator.allow_partial_success, operator.accept_threshold, operator.publish
        )

    def process(self) -> dict[str, Any]:
        """
        Process the assets, and return the summary.

        :raises TaskDeferred: A trigger processes them.
        """
        operator, steps, started_at = self.operator, self._steps, self._began_at
        validate_limits(operator.max_concurrent_runs, operator.max_failures)
        validate_interval("poll_interval", operator.poll_interval)
        rows, duplicates = parse_assets(
            operator.asset_identifiers,
            lambda: self.hook.resolve_owning_project_identifier(operator.owning_project_identifier),
        )
        steps.validate(rows)
        if not rows:
            self.log.info("asset_identifiers is empty: there is nothing to do.")
            return self._conclude(BatchState(rows, started_at, started_at, duplicates))
        self._run_domain = self.hook.resolve_domain_identifier(operator.domain_identifier)
        # Sorted, since the order of a set differs between processes.
        memory = BatchMemory(self.context, self._run_domain, sorted(validate_types(operator.types)))
        rows = memory.load(rows, steps)
        if memory.is_cleared:
            self.log.warning(
                "The task had succeeded and was cleared: it starts a run for each of %s assets again.",
                f"{len(rows):,}",
            )
        state = self._state = BatchState(rows, memory.saved_at, started_at, duplicates)
        if all(map(steps.is_done, rows)):
            self.log.info("An earlier try completed all %s assets: there is nothing to do.", f"{len(rows):,}")
        if operator.deferrable:
            self._defer(state, memory)
        return self._run(state, memory)

    def _run(self, state: BatchState, memory: BatchMemory) -> dict[str, Any]:
        """Process the assets in this worker."""
        operator = self.operator
        settings = BatchSettings(
            types=memory.types,
            domain_identifier=memory.domain_identifier,
            identity=memory.identity,
            try_number=memory.try_number,
            try_began_at=state.started_at,
            max_concurrent_runs=operator.max_concurrent_runs,
            poll_interval=operator.poll_interval,
            steps=self._steps,
        )
        batch = self._batch = Batch(
            state, settings, log=self.log, on_progress=lambda: memory.save(state.rows)
        )
        try:
            if self.is_killed:
                batch.stop()
            work = batch.run(HookParameters.for_task(operator))
            asyncio.run(self._within_execution_timeout(work, memory.domain_identifier))
        except BatchStoppedError:
            self.guard.check()
            raise
        finally:
            memory.save(state.rows)
        self.guard.check()
        return self._conclude(state, memory)

    async def _within_execution_timeout(self, work: Coroutine[Any, Any, None], domain: str) -> None:
        """Time out in the event loop, too: Airflow's alarm may end up as the error of a single asset."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._execution_timeout)
        finally:
            task.cancel()
        if not done:
            with suppress(asyncio.CancelledError):
                await task
            raise AirflowTaskTimeout(describe_timeout(domain))
        # Raises the error of the batch, which may be the TimeoutError of a connection lookup.
        task.result()

    def _defer(self, state: BatchState, memory: BatchMemory) -> NoReturn:
        operator = self.operator
        self.guard.check()
        trigger = DataZoneBatchMetadataGenerationTrigger.for_task(
            operator,
            **state.to_json(),
            types=memory.types,
            domain_identifier=memory.domain_identifier,
            identity=memory.identity,
            began_at=state.started_at,
            try_number=memory.try_number,
            max_concurrent_runs=operator.max_concurrent_runs,
            poll_interval=operator.poll_interval,
            **self._steps._asdict(),
            deadline=deadline_after(state.started_at, self._execution_timeout),
            cancel_on_kill=operator.cancel_on_kill,
        )
        defer(operator, self.context, trigger)

    def complete(self, event: dict[str, Any] | None) -> dict[str, Any]:
        """Save the state from the trigger's event; then defer again, or return the summary."""
        operator = self.operator
        domain = operator.domain_identifier
        subject = f"the batch in domain {domain!r}" if domain else "the batch in the connection's domain"
        if not isinstance(event, dict):
            raise unreadable_event(event, subject)
        try:
            state = self._state = BatchState.from_json(event)
            status, message = str(event["status"]), sanitize(str(event.get("message", "no reason given")))
        except (LookupError, ValueError):
            raise unreadable_event(event, subject) from None
        # What the task was deferred with, whatever the connection or a template contains now. Version 0.1
        # omits it.
        domain_identifier = event.get("domain_identifier")
        if not isinstance(domain_identifier, str):
            domain_identifier = self.hook.resolve_domain_identifier(domain)
        self._run_domain = domain_identifier
        types = validate_types(event.get("types", operator.types))
        memory = BatchMemory(self.context, domain_identifier, types)
        memory.save(state.rows, state.saved_at)
        if status == "checkpoint":
            self._defer(state, memory)
        if status == "timeout":
            raise AirflowTaskTimeout(message)
        if status == "error":
            raise WaitFailedError(message, permanent=event.get("permanent") is True)
        if status != "ended":
            raise unreadable_event(event, subject)
        if not state.is_finished(self._steps):
            # The DAG has changed while the task was deferred: there is more to do with the assets.
            self._defer(state, memory)
        return self._conclude(state, memory)

    def _conclude(self, state: BatchState, memory: BatchMemory | None = None) -> dict[str, Any]:
        summary = self._push(state)
        require_few_failures(state, self._steps, self.operator.max_failures)
        if memory is not None:
            memory.save_success()
        self.guard.check()
        return summary

    def _push(self, state: BatchState) -> dict[str, Any]:
        """Push the results and the summary, and return the summary."""
        self._has_pushed = True
        summary = summarize(state, self._steps, seconds=time.time() - state.started_at)
        push(self.operator, self.context, XCOM_RESULTS, state.results())
        # Airflow pushes the return value itself, but not that of a task that fails.
        push(self.operator, self.context, "return_value", summary)
        return summary

    def push_report(self) -> None:
        if self._state is None:
            super().push_report()
        elif not self._has_pushed:
            # The batch has not ended: it timed out, was killed, or its trigger failed.
            self._push(self._state)

    # --------------------------------------------------------------------- kills

    def on_kill(self) -> None:
        batch = self._batch
        if batch is None:
            # The interrupted code cancels the runs later: it may be in the middle of a lookup, or of reading
            # the store.
            return
        batch.stop()
        if batch.source is not None and self.operator.cancel_on_kill and self._may_cancel:
            self._has_canceled = True
            cancel_runs(
                batch.source.cancel_now, self._active_runs, may_grow=lambda: batch.is_starting, log=self.log
            )

    def cancel_runs(self) -> None:
        if self.operator.cancel_on_kill and self._may_cancel and not self._has_canceled:
            self._has_canceled = True
            cancel_runs(self._cancel_run, self._active_runs, log=self.log)

    def _active_runs(self) -> list[str]:
        return [] if self._state is None else active_runs(self._state.rows)
