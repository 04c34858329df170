"""Triggers for Amazon DataZone."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_datazone.inputs import require_text, to_botocore_options, to_text
from airflow_provider_datazone.metadata_generation import one_line
from airflow_provider_datazone.version_compat import is_deferred

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.utils.mixins import AwsBaseHookMixin
    from typing_extensions import Self

    from airflow_provider_datazone.hooks.datazone import DataZoneHook

_POLLER = "airflow_provider_datazone.triggers.run_poller"
_ENGINE = "airflow_provider_datazone.batch"
_poller: Any = None
# Seconds in which the runs of a task that a user has ended are canceled, at most: a few thousand of them.
_SECONDS_TO_CANCEL = 300.0
# What cancels runs just now; an event loop itself holds on to no task.
_cancels: set[asyncio.Task[None]] = set()


async def _import_poller() -> Any:
    """Import what waits, and boto3 with it, in a thread: Airflow imports a trigger in its event loop."""
    global _poller
    if _poller is None:
        _poller = await asyncio.to_thread(importlib.import_module, _POLLER)
    return _poller


def _tell(error: BaseException, subject: str, domain: str) -> str:
    """
    Describe an error for the task, with its class, and with what it is about unless it names that.

    :param subject: What was waited for.
    :param domain: Its domain.
    """
    message = one_line(str(error))
    parts = [part for part in (subject, domain) if part not in message]
    description = f"{type(error).__name__}: {message}"
    if domain not in parts:
        # An error of the hook names the request that has failed, and where it went.
        parts = [part for part in parts if not part.startswith("the ")]
    return f"{description} ({', '.join(parts)})" if parts else description


class _DataZoneTrigger(BaseTrigger):
    """What triggers share: how they reach DataZone."""

    def __init__(
        self,
        aws_conn_id: str | None,
        region_name: str | None,
        verify: bool | str | None,
        botocore_config: dict[str, Any] | None,
        cancel_on_kill: bool,
    ) -> None:
        super().__init__()
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        # Airflow stores a trigger's arguments, and a botocore object cannot be stored.
        is_object = hasattr(botocore_config, "_user_provided_options")
        self.botocore_config = to_botocore_options(botocore_config) if is_object else botocore_config
        self.cancel_on_kill = cancel_on_kill

    @classmethod
    def for_task(cls, task: AwsBaseHookMixin[DataZoneHook], **arguments: Any) -> Self:
        """
        Make a trigger that reaches DataZone as a task does.

        :param task: The operator or sensor, for its four AWS parameters.
        :param arguments: The trigger's other arguments.
        """
        hook_parameters = dict(task._hook_parameters)
        return cls(botocore_config=hook_parameters.pop("config"), **hook_parameters, **arguments)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {name: getattr(self, name) for name in names},
        )

    def _hook_parameters(self, poller: Any) -> Any:
        return poller.HookParameters(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)

    async def on_kill(self) -> None:
        """
        Cancel what is active when a user ends the task, and never for a restart or a hand-over.

        In a task of its own: Airflow 3.3 cancels the trigger again every second while this is at work, and
        drops it. The event loop lives on.
        """
        if not self.cancel_on_kill:
            return
        work = asyncio.ensure_future(self._cancel_in_time())
        _cancels.add(work)
        work.add_done_callback(_cancels.discard)
        await asyncio.shield(work)

    async def _cancel_in_time(self) -> None:
        try:
            await asyncio.wait_for(self._cancel_for_user(), _SECONDS_TO_CANCEL)
        except asyncio.TimeoutError:
            self.log.warning(
                "Not all runs were canceled in %.0f seconds; some may go on.", _SECONDS_TO_CANCEL
            )

    async def _cancel_for_user(self) -> None:
        try:
            if await is_deferred(self.task_instance):
                self.log.info("The task is in the hands of another triggerer, so nothing is canceled.")
                return
        except Exception as error:
            self.log.warning(
                "Nothing is canceled, as Airflow does not say whether a user has ended the task: %s", error
            )
            return
        await self._cancel()

    async def _cancel(self) -> None:
        raise NotImplementedError


class DataZoneMetadataGenerationRunTrigger(_DataZoneTrigger):
    """
    Wait until a metadata generation run has ended; one event.

    - ``{"status": "terminal", "run": dict}``: the run as
      :meth:`~airflow_provider_datazone.metadata_generation.MetadataGenerationRun.to_dict` has it.
    - ``{"status": "timeout", "message": str}``: it had not ended by the deadline.
    - ``{"status": "error", "message": str, "permanent": bool}``: DataZone or the connection said why it
      cannot be waited for, and whether a retry would hear the same.

    What the run's end means is for the task to say. All triggers of a triggerer with the same connection and
    domain share one poller, see :mod:`~airflow_provider_datazone.triggers.run_poller`.

    :param run_identifier: The run.
    :param domain_identifier: The domain, resolved: the connection is not asked for it.
    :param run_type: Read this type alone; by default all types of the run.
    :param poll_interval: Seconds between two looks. Default 30.
    :param deadline: Unix time in seconds at which to give up; by default never.
    :param aws_conn_id: The Airflow connection. Default ``aws_default``; ``None`` stands for boto3's own
        credential chain, that of the triggerer.
    :param region_name: AWS Region; default from the connection.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection.
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :param cancel_on_kill: Whether to cancel the run when a user marks the deferred task as failed or
        succeeded, or clears it. Before Airflow 3.3 a trigger is not told of that, and the run goes on.
        Default ``False``.
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
        yield TriggerEvent(await self._wait())

    async def _wait(self) -> dict[str, Any]:
        poller = await _import_poller()
        try:
            self._check(poller)
            run = await poller.wait_for_run(
                self._hook_parameters(poller),
                self.run_identifier,
                domain_identifier=self.domain_identifier,
                run_type=self.run_type,
                poll_interval=self.poll_interval,
                timeout=None if self.deadline is None else self.deadline - time.time(),
                log=self.log,
            )
        except poller.DeadlinePassedError as error:
            message = f"Metadata generation run {error} (domain {self.domain_identifier!r})"
            return {"status": "timeout", "message": one_line(message)}
        except Exception as error:
            # Whatever it is, the task is told: an exception here would reach it without a word of the reason.
            self.log.debug("The wait failed (%s).", self._about, exc_info=True)
            message = _tell(error, f"run {self.run_identifier!r}", f"domain {self.domain_identifier!r}")
            return {"status": "error", "message": message, "permanent": poller.is_permanent(error)}
        return {"status": "terminal", "run": run.to_dict()}

    @property
    def _about(self) -> str:
        return f"run {self.run_identifier!r}, domain {self.domain_identifier!r}"

    def _check(self, poller: Any) -> None:
        """Check what a database may have from another version: a wait that cannot end, or is for nothing."""
        for name in ("run_identifier", "domain_identifier"):
            setattr(self, name, require_text(name, getattr(self, name)))
        self.run_type = to_text("run_type", self.run_type)
        poller.check_seconds("poll_interval", self.poll_interval)
        if self.deadline is not None:
            poller.check_seconds("deadline", self.deadline)

    async def _cancel(self) -> None:
        poller = await _import_poller()
        try:
            run = await poller.cancel_run(
                self._hook_parameters(poller),
                self.run_identifier,
                domain_identifier=self.domain_identifier,
                log=self.log,
            )
            self.log.info(
                "The task was ended by a user. Metadata generation run %s is %s.", run.id, run.status
            )
        except Exception as error:
            self.log.warning(
                "Metadata generation run %r was not canceled; it may go on: %s",
                self.run_identifier,
                one_line(str(error)),
            )


class DataZoneBatchMetadataGenerationTrigger(_DataZoneTrigger):
    """
    Bring a batch of assets to an end, or as far as it comes in a while; one event.

    Each has ``rows``, the batch as :func:`~airflow_provider_datazone.batch.pack` has it, ``noted_at``, the
    Unix time in seconds up to which they tell everything, ``domain_identifier``, ``types``, ``started_at``
    and ``duplicates`` as given, and ``quota_used_up`` and ``refusals``, why no more runs
    are started.

    - ``{"status": "ended"}``: there is nothing more to do.
    - ``{"status": "checkpoint"}``: there is; the rows are to be stored, and the rest deferred again.
    - ``{"status": "timeout", "message": str}``: there was at the deadline.
    - ``{"status": "error", "message": str, "permanent": bool}``: the batch as a whole cannot go on.

    :param rows: The batch, packed.
    :param noted_at: Unix time in seconds up to which the rows tell everything.
    :param types: What to generate.
    :param domain_identifier: The domain, resolved.
    :param identity: What the client tokens are made of.
    :param began_at: Unix time in seconds at which the task's try began.
    :param max_concurrent_runs: Runs at a time at most.
    :param poll_interval: Seconds between two looks at a run. Default 30.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success. Default ``True``.
    :param started_at: Unix time in seconds at which the task began, for the task.
    :param duplicates: How many assets were named more than once, for the task.
    :param quota_used_up: Whether a run failed for the account's monthly quota, so that no other is started.
        Default ``False``.
    :param checkpoint_interval: Seconds after which to hand the rows to the task. Default 600.
    :param deadline: Unix time in seconds at which to give up; by default never.
    :param try_number: The task's try. Default 1.
    :param refusals: Why DataZone refuses to start runs, by project, or under an empty text for all of them.
        By default it does not.
    :param aws_conn_id: As for :class:`DataZoneMetadataGenerationRunTrigger`, and so the following.
    :param region_name: AWS Region.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param botocore_config: Configuration of the botocore client.
    :param cancel_on_kill: Whether to cancel the runs that are active when a user ends the task.
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
        self._batch: Any = None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        poller = await _import_poller()
        engine = await asyncio.to_thread(importlib.import_module, _ENGINE)
        try:
            engine.check_bounds(self.max_concurrent_runs, 0)
            for name in ("noted_at", "began_at", "poll_interval", "checkpoint_interval"):
                poller.check_seconds(name, getattr(self, name))
            if self.deadline is not None:
                poller.check_seconds("deadline", self.deadline)
            batch = await self._get_batch(engine)
        except ValueError as error:
            # As a database may have it from another version; the task has its own memory.
            yield TriggerEvent(self._event("error", self.rows, self._tell(error), self.noted_at))
            return
        deadline = math.inf if self.deadline is None else self.deadline
        work = asyncio.ensure_future(batch.run(self._hook_parameters(poller), noted_at=self.noted_at))
        try:
            await asyncio.wait({work}, timeout=min(self.checkpoint_interval, max(deadline - time.time(), 0)))
            if not work.done():
                await batch.drain()
        finally:
            work.cancel()
        await asyncio.wait({work})
        now = time.time()
        failure = None if work.cancelled() else work.exception()
        packed = await asyncio.to_thread(engine.pack, batch.rows)
        event = self._event("ended", packed, None, now)
        if failure is not None and not isinstance(failure, engine.StartsStoppedError):
            event = self._event("error", packed, self._tell(failure), now)
            event["permanent"] = poller.is_permanent(failure)
        elif not batch.is_finished:
            event["status"] = "checkpoint"
            if now >= deadline:
                message = engine.describe_timeout(self.domain_identifier)
                event |= {"status": "timeout", "message": message}
        yield TriggerEvent(event)

    async def _get_batch(self, engine: Any) -> Any:
        """Return the batch, the same to whoever asks first: what works on it, or what cancels its runs."""
        rows = await asyncio.to_thread(engine.unpack, self.rows)
        self._batch = self._batch or engine.Batch(
            rows,
            types=self.types,
            domain_identifier=self.domain_identifier,
            identity=self.identity,
            try_number=self.try_number,
            try_began_at=self.began_at,
            max_concurrent_runs=self.max_concurrent_runs,
            poll_interval=self.poll_interval,
            allow_partial_success=self.allow_partial_success,
            log=self.log,
            quota_used_up=self.quota_used_up,
            refusals=self.refusals,
        )
        return self._batch

    def _tell(self, error: BaseException) -> str:
        return _tell(error, "the batch", f"domain {self.domain_identifier!r}")

    def _event(self, status: str, rows: str, message: str | None, noted_at: float) -> dict[str, Any]:
        event: dict[str, Any] = {
            "status": status,
            "noted_at": noted_at,
            "domain_identifier": self.domain_identifier,
            "types": self.types,
            "started_at": self.started_at,
            "duplicates": self.duplicates,
            "quota_used_up": self.quota_used_up if self._batch is None else self._batch.quota_used_up,
            "refusals": (self.refusals or {}) if self._batch is None else self._batch.refusals,
            "rows": rows,
        }
        return event if message is None else event | {"message": message}

    async def _cancel(self) -> None:
        poller = await _import_poller()
        engine = await asyncio.to_thread(importlib.import_module, _ENGINE)
        try:
            # Where it has not begun, its rows may name runs that the task had before.
            batch = self._batch or await self._get_batch(engine)
            canceled, failed = await batch.cancel_all(self._hook_parameters(poller))
        except Exception as error:
            self.log.warning(
                "The runs of the batch were not canceled; they may go on: %s", one_line(str(error))
            )
            return
        self.log.info(
            "The task was ended by a user; %s of %s active runs were canceled.",
            canceled,
            canceled + len(failed),
        )
        if failed:
            run, problem = next(iter(failed.items()))
            self.log.warning(
                "%s runs were not canceled, and may go on; the first is %s: %s",
                len(failed),
                run,
                one_line(str(problem)),
            )
