"""Triggers for Amazon DataZone."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.utils.mixins import AwsBaseHookMixin
    from typing_extensions import Self

    from airflow_provider_datazone.hooks.datazone import DataZoneHook

_POLLER = "airflow_provider_datazone.triggers.run_poller"
_poller: Any = None


async def _import_poller() -> Any:
    """Import what waits, and boto3 with it, in a thread: Airflow imports a trigger in its event loop."""
    global _poller
    if _poller is None:
        _poller = await asyncio.to_thread(importlib.import_module, _POLLER)
    return _poller


class DataZoneMetadataGenerationRunTrigger(BaseTrigger):
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
        super().__init__()
        self.run_identifier = run_identifier
        self.domain_identifier = domain_identifier
        self.run_type = run_type
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
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
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "run_identifier": self.run_identifier,
                "domain_identifier": self.domain_identifier,
                "run_type": self.run_type,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "aws_conn_id": self.aws_conn_id,
                "region_name": self.region_name,
                "verify": self.verify,
                "botocore_config": self.botocore_config,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent(await self._wait())

    async def _wait(self) -> dict[str, Any]:
        poller = await _import_poller()
        about = f"run {self.run_identifier!r}, domain {self.domain_identifier!r}"
        try:
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
            return {"status": "timeout", "message": f"Metadata generation run {error} ({about})"}
        except Exception as error:
            # Whatever it is, the task is told: an exception here would reach it without a word of the reason.
            self.log.debug("The wait failed (%s).", about, exc_info=True)
            message = f"{type(error).__name__}: {error} ({about})"
            return {"status": "error", "message": message, "permanent": poller.is_permanent(error)}
        return {"status": "terminal", "run": run.to_dict()}

    async def on_kill(self) -> None:
        """Cancel the run: Airflow calls this when a user ends the task, not for a restart or a hand-over."""
        if not self.cancel_on_kill:
            return
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
                "Metadata generation run %s was not canceled; it may go on: %s", self.run_identifier, error
            )

    def _hook_parameters(self, poller: Any) -> Any:
        return poller.HookParameters(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)
