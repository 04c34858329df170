"""The base class of the triggers: AWS parameters, and what happens when a user ends a deferred task."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

from airflow_provider_datazone.inputs import to_botocore_options
from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.polling.source import HookParameters
from airflow_provider_datazone.version_compat import is_deferred

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.utils.mixins import AwsBaseHookMixin
    from typing_extensions import Self

    from airflow_provider_datazone.hooks.datazone import DataZoneHook

# Maximum seconds to cancel the runs of a task that a user ends: enough for a few thousand.
_SECONDS_TO_CANCEL = 300.0
# The tasks that cancel runs, since an event loop itself holds only weak references to its tasks.
_cancellations: set[asyncio.Task[None]] = set()


def describe_error(error: BaseException, subject: str, domain: str) -> str:
    """
    Return the class and message of an error, and its subject and domain unless the message names them.

    :param subject: What the trigger waits for.
    :param domain: Its domain.
    """
    message = sanitize(str(error))
    parts = [part for part in (subject, domain) if part not in message]
    if domain not in parts:
        # An error of the hook names its request and the domain, so a subject like "the batch" adds nothing.
        parts = [part for part in parts if not part.startswith("the ")]
    description = f"{type(error).__name__}: {message}"
    return f"{description} ({', '.join(parts)})" if parts else description


class DataZoneTrigger(BaseTrigger):
    """The AWS parameters of a trigger, and what happens when a user ends its task."""

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
        # Airflow stores a trigger's arguments as JSON, which cannot represent a botocore object.
        is_object = hasattr(botocore_config, "_user_provided_options")
        self.botocore_config = to_botocore_options(botocore_config) if is_object else botocore_config
        self.cancel_on_kill = cancel_on_kill

    @classmethod
    def for_task(cls, task: AwsBaseHookMixin[DataZoneHook], **arguments: Any) -> Self:
        """
        Create a trigger with the AWS parameters of a task.

        :param task: The operator or sensor.
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

    @property
    def _hook_parameters(self) -> HookParameters:
        return HookParameters(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)

    async def on_kill(self) -> None:
        """
        Cancel the active runs when a user ends the task, and not when a triggerer stops or hands the trigger
        over.

        Airflow 3.3 cancels this coroutine every second and then drops it, so a separate task does the work.
        The event loop continues to run.
        """
        if not self.cancel_on_kill:
            return
        task = asyncio.ensure_future(self._cancel_in_time())
        _cancellations.add(task)
        task.add_done_callback(_cancellations.discard)
        await asyncio.shield(task)

    async def _cancel_in_time(self) -> None:
        try:
            await asyncio.wait_for(self._cancel_for_user(), _SECONDS_TO_CANCEL)
        except asyncio.TimeoutError:
            self.log.warning(
                "Not all runs were canceled in %.0f seconds; some may continue.", _SECONDS_TO_CANCEL
            )

    async def _cancel_for_user(self) -> None:
        try:
            if await is_deferred(self.task_instance):
                self.log.info("Another triggerer runs the trigger of this task, so no run is canceled.")
                return
        except Exception as error:
            self.log.warning(
                "No run is canceled, since Airflow does not report whether a user ended the task: %s", error
            )
            return
        await self._cancel()

    async def _cancel(self) -> None:
        raise NotImplementedError
