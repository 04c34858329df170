"""Triggers for Amazon DataZone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_datazone.batch.assets import validate_limits
from airflow_provider_datazone.batch.engine import Batch
from airflow_provider_datazone.batch.requests import BatchStoppedError
from airflow_provider_datazone.batch.state import STATE_KEYS, BatchSettings, BatchState
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.batch.summary import describe_timeout
from airflow_provider_datazone.inputs import require_text, to_text, validate_seconds
from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.polling.errors import DeadlinePassedError
from airflow_provider_datazone.polling.jobs import cancel_run, wait_for_run
from airflow_provider_datazone.service_errors import is_permanent
from airflow_provider_datazone.triggers.base import DataZoneTrigger, describe_error
from airflow_provider_datazone.triggers.watcher import WatcherTrigger


class DataZoneMetadataGenerationRunTrigger(DataZoneTrigger):
    """
    Wait until a metadata generation run is terminal, and yield one event.

    - ``{"status": "terminal", "run": dict, "read_at": float}``: the run, as
      :meth:`~airflow_provider_datazone.metadata_generation.MetadataGenerationRun.to_dict` returns it, and the
      Unix time in seconds when it was read. Version 0.1 omits ``read_at``.
    - ``{"status": "timeout", "message": str}``: the run has not ended by the deadline.
    - ``{"status": "error", "message": str, "permanent": bool}``: the run cannot be read. ``permanent`` says
      whether a retry would fail with the same error.

    The task decides whether the run is a success. All triggers of a triggerer with the same connection and
    domain share one poller, see :mod:`~airflow_provider_datazone.polling.poller`.

    :param run_identifier: The run.
    :param domain_identifier: The domain. It is resolved: the trigger does not use the connection's default.
    :param run_type: Read only this type; by default all types of the run.
    :param poll_interval: Seconds between two polls. Default 30.
    :param deadline: Unix time in seconds when the wait ends; by default there is no limit.
    :param aws_conn_id: The Airflow connection. Default ``aws_default``; ``None`` selects boto3's own
        credential chain in the triggerer.
    :param region_name: AWS Region; default from the connection.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection.
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :param cancel_on_kill: Whether to cancel the run when a user marks the deferred task as failed or
        succeeded, or clears it. Before Airflow 3.3, Airflow does not notify the trigger, and the run
        continues. Default ``False``.
    """

    def __init__(
        self,
        run_identifier: str,
        domain_identifier: str,
        run_type: str | None = None,
        poll_interval: float = 30,
        deadline: float | None = None,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        cancel_on_kill: bool = False,
    ) -> None:
        super().__init__(aws_conn_id, region_name, verify, botocore_config, cancel_on_kill)
        self.run_identifier = run_identifier
        self.domain_identifier = domain_identifier
        self.run_type = run_type
        self.poll_interval = poll_interval
        self.deadline = deadline

    async def run(self) -> AsyncIterator[TriggerEvent]:
        # All in one coroutine: each one between the triggerer and the poller takes memory for every wait.
        payload: dict[str, Any]
        try:
            self._validate()
            run = await wait_for_run(
                self._hook_parameters,
                self.run_identifier,
                domain_identifier=self.domain_identifier,
                run_type=self.run_type,
                poll_interval=self.poll_interval,
                timeout=None if self.deadline is None else self.deadline - time.time(),
                # Of the class: a logger of each trigger takes memory for every wait.
                log=self.logger(),
            )
            payload = {"status": "terminal", "run": run.to_dict(), "read_at": time.time()}
        except DeadlinePassedError as error:
            message = f"Metadata generation run {error} (domain {self.domain_identifier!r})"
            payload = {"status": "timeout", "message": sanitize(message)}
        except Exception as error:
            # Report every error in an event. If the trigger raised it, the task would not know the reason.
            subject, domain = f"run {self.run_identifier!r}", f"domain {self.domain_identifier!r}"
            self.log.debug("The wait failed (%s, %s).", subject, domain, exc_info=True)
            message = describe_error(error, subject, domain)
            payload = {"status": "error", "message": message, "permanent": is_permanent(error)}
        yield TriggerEvent(payload)

    def _validate(self) -> None:
        """Validate the arguments, which another version may have stored."""
        for name in ("run_identifier", "domain_identifier"):
            setattr(self, name, require_text(name, getattr(self, name)))
        self.run_type = to_text("run_type", self.run_type)
        validate_seconds("poll_interval", self.poll_interval)
        if self.deadline is not None:
            validate_seconds("deadline", self.deadline)

    async def _cancel(self) -> None:
        try:
            run = await cancel_run(
                self._hook_parameters,
                self.run_identifier,
                domain_identifier=self.domain_identifier,
                log=self.log,
            )
            self.log.info("A user ended the task. Metadata generation run %s is %s.", run.id, run.status)
        except Exception as error:
            self.log.warning(
                "Metadata generation run %r was not canceled and may continue: %s",
                self.run_identifier,
                sanitize(str(error)),
            )


class DataZoneBatchMetadataGenerationTrigger(DataZoneTrigger):
    """
    Process a batch of assets until it ends or until the next checkpoint, and yield one event.

    Every event has the keys ``rows``, ``noted_at``, ``started_at``, ``duplicates``, ``quota_used_up`` and
    ``refusals`` of :class:`~airflow_provider_datazone.batch.state.BatchState`, and ``domain_identifier`` and
    ``types``.

    - ``{"status": "ended"}``: no asset needs more work.
    - ``{"status": "checkpoint"}``: the task saves the rows and defers again.
    - ``{"status": "timeout", "message": str}``: the batch has not ended by the deadline.
    - ``{"status": "error", "message": str, "permanent": bool}``: the batch as a whole cannot continue.

    :param rows: The rows, packed.
    :param noted_at: Unix time in seconds until which the rows are complete.
    :param types: The types to generate.
    :param domain_identifier: The domain, resolved.
    :param identity: What the client tokens are computed from.
    :param began_at: Unix time in seconds when the task's try began.
    :param max_concurrent_runs: Maximum number of active runs.
    :param poll_interval: Seconds between two polls of a run. Default 30.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success. Default ``True``.
    :param started_at: Unix time in seconds when the task began, for its summary.
    :param duplicates: Number of assets that were passed more than once, for the summary.
    :param quota_used_up: Whether a run failed because the monthly quota is used up, so that no more runs are
        started. Default ``False``.
    :param checkpoint_interval: Seconds until the next checkpoint. Default 600.
    :param deadline: Unix time in seconds when the trigger times out; by default there is no limit.
    :param try_number: Number of the task's try. Default 1.
    :param refusals: DataZone's reason why no more runs are started, by project, or under an empty string for
        all assets. Default: no refusals.
    :param accept_threshold: Accept the predictions with this confidence or a higher one, 0 to 1. Default
        ``None``: accept none.
    :param publish: Whether to publish each asset after that. Default ``False``.
    :param aws_conn_id: The Airflow connection. Default ``aws_default``; ``None`` selects boto3's own
        credential chain in the triggerer.
    :param region_name: AWS Region.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param botocore_config: Configuration of the botocore client.
    :param cancel_on_kill: Whether to cancel the active runs when a user ends the task.
    """

    def __init__(
        self,
        rows: str,
        noted_at: float,
        types: list[str],
        domain_identifier: str,
        identity: str,
        began_at: float,
        max_concurrent_runs: int,
        poll_interval: float = 30,
        allow_partial_success: bool = True,
        started_at: float = 0.0,
        duplicates: int = 0,
        quota_used_up: bool = False,
        checkpoint_interval: float = 600,
        deadline: float | None = None,
        try_number: int = 1,
        refusals: dict[str, str] | None = None,
        accept_threshold: float | None = None,
        publish: bool = False,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        cancel_on_kill: bool = False,
    ) -> None:
        super().__init__(aws_conn_id, region_name, verify, botocore_config, cancel_on_kill)
        self.rows = rows
        self.noted_at = noted_at
        self.types = types
        self.domain_identifier = domain_identifier
        self.identity = identity
        self.began_at = began_at
        self.max_concurrent_runs = max_concurrent_runs
        self.poll_interval = poll_interval
        self.allow_partial_success = allow_partial_success
        self.started_at = started_at
        self.duplicates = duplicates
        self.quota_used_up = quota_used_up
        self.checkpoint_interval = checkpoint_interval
        self.deadline = deadline
        self.try_number = try_number
        self.refusals = refusals
        self.accept_threshold = accept_threshold
        self.publish = publish
        self._batch: Batch | None = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent(await self._process())

    async def _process(self) -> dict[str, Any]:
        try:
            self._validate()
            batch = await self._get_batch()
        except ValueError as error:
            # Another version may have stored the arguments. The task has its own record of the batch.
            state = {key: getattr(self, key) for key in STATE_KEYS} | {"refusals": self.refusals or {}}
            return self._event("error", state) | {"message": self._describe(error)}
        deadline = math.inf if self.deadline is None else self.deadline
        work = asyncio.ensure_future(batch.run(self._hook_parameters))
        # A run is polled one interval after the trigger begins to wait for it. A checkpoint before that would
        # repeat forever.
        until_checkpoint = max(self.checkpoint_interval, 2 * self.poll_interval)
        try:
            await asyncio.wait({work}, timeout=min(until_checkpoint, max(deadline - time.time(), 0)))
            if not work.done():
                await batch.drain()
        finally:
            work.cancel()
        await asyncio.wait({work})
        now = batch.state.saved_at = time.time()
        failure = None if work.cancelled() else work.exception()
        event = self._event("ended", await asyncio.to_thread(batch.state.to_json))
        if failure is not None and not isinstance(failure, BatchStoppedError):
            message = self._describe(failure)
            return event | {"status": "error", "message": message, "permanent": is_permanent(failure)}
        if batch.is_finished:
            return event
        if now >= deadline:
            return event | {"status": "timeout", "message": describe_timeout(self.domain_identifier)}
        return event | {"status": "checkpoint"}

    def _validate(self) -> None:
        validate_limits(self.max_concurrent_runs, 0)
        for name in ("noted_at", "began_at", "poll_interval", "checkpoint_interval"):
            validate_seconds(name, getattr(self, name))
        if self.deadline is not None:
            validate_seconds("deadline", self.deadline)

    async def _get_batch(self) -> Batch:
        """Return the batch, the same one for `run` and for `on_kill`."""
        # In a thread, since thousands of rows take a while.
        state = await asyncio.to_thread(BatchState.from_json, vars(self))
        if self._batch is None:
            settings = BatchSettings(
                types=self.types,
                domain_identifier=self.domain_identifier,
                identity=self.identity,
                try_number=self.try_number,
                try_began_at=self.began_at,
                max_concurrent_runs=self.max_concurrent_runs,
                poll_interval=self.poll_interval,
                steps=Steps.from_arguments(self.allow_partial_success, self.accept_threshold, self.publish),
            )
            self._batch = Batch(state, settings, log=self.log)
        return self._batch

    def _describe(self, error: BaseException) -> str:
        return describe_error(error, "the batch", f"domain {self.domain_identifier!r}")

    def _event(self, status: str, state: dict[str, Any]) -> dict[str, Any]:
        return state | {
            "status": status,
            "domain_identifier": self.domain_identifier,
            "types": self.types,
        }

    async def _cancel(self) -> None:
        try:
            # If the trigger has not run yet, its rows may contain active runs of the task.
            batch = self._batch or await self._get_batch()
            canceled, failed = await batch.cancel_all(self._hook_parameters)
        except Exception as error:
            self.log.warning(
                "The runs of the batch were not canceled and may continue: %s", sanitize(str(error))
            )
            return
        self.log.info(
            "A user ended the task; %s of %s active runs were canceled.", canceled, canceled + len(failed)
        )
        if failed:
            run, problem = next(iter(failed.items()))
            self.log.warning(
                "%s runs were not canceled and may continue; the first is %s: %s",
                len(failed),
                run,
                sanitize(str(problem)),
            )


class DataZoneMetadataGenerationRunEventTrigger(WatcherTrigger):
    """
    Yield an event for each metadata generation run of a domain that ends, also for runs that a user of the
    portal or another program has started.

    For an ``AssetWatcher``, so that a DAG that is scheduled on the asset runs when a run ends. It needs
    Airflow 3.0 or later. The payload of an event is ``{"run": dict}``: the run with its typeStats, as
    :meth:`~airflow_provider_datazone.metadata_generation.MetadataGenerationRun.to_dict` returns it.

    A run makes one event if a List returned it as active. A run that ended before the watcher began makes no
    event, and a run that starts and ends between two polls may make none. Since Airflow 3.3, the watcher also
    reports followed runs that end while no triggerer is running. Before, such a run makes no event, and a run
    may make two if two triggerers run the watcher at the same time.

    The watcher does not end after an error. It logs a warning in the triggerer's log and tries again, after
    at most five minutes.

    No argument is templated: Airflow creates the watcher when it parses the DAG file. All watchers of a
    triggerer with the same connection and domain share one poller. Each poll costs a List request for 50
    active runs of the domain, at least two, and a Get for each run that has ended.

    :param domain_identifier: The domain. The connection's default is not used.
    :param asset_identifier: An asset or a list of assets; default: runs for all assets.
    :param owning_project_identifier: A project or a list of projects; default: runs in all projects.
    :param run_types: A type or a list of types, such as ``BUSINESS_NAMES``: runs that generate one of them;
        default: all runs.
    :param statuses: A status or a list of statuses: ``SUCCEEDED``, ``PARTIALLY_SUCCEEDED``, ``FAILED`` or
        ``CANCELED``; default: all of them.
    :param poll_interval: Seconds between two polls. Default 10. A run that takes less time may make no
        event.
    :param aws_conn_id: The Airflow connection. Default ``aws_default``; ``None`` selects boto3's own
        credential chain in the triggerer.
    :param region_name: AWS Region; default from the connection.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection.
    :param botocore_config: Configuration of the botocore client, also as JSON; default from the connection.
    :raises RuntimeError: Airflow is older than 3.0.
    :raises InvalidWatcherError: An argument is invalid.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_ListMetadataGenerationRuns.html
    """

    def __init__(
        self,
        domain_identifier: str,
        asset_identifier: str | Iterable[str] | None = None,
        owning_project_identifier: str | Iterable[str] | None = None,
        run_types: str | Iterable[str] | None = None,
        statuses: str | Iterable[str] | None = None,
        poll_interval: float = 10,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | str | None = None,
    ) -> None:
        super().__init__(
            domain_identifier=domain_identifier,
            asset_identifier=asset_identifier,
            owning_project_identifier=owning_project_identifier,
            run_types=run_types,
            statuses=statuses,
            poll_interval=poll_interval,
            aws_conn_id=aws_conn_id,
            region_name=region_name,
            verify=verify,
            botocore_config=botocore_config,
        )
