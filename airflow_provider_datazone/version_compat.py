"""Differences between Airflow versions, each with the last version that needs it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    get_base_airflow_version_tuple,
)
from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

# Airflow 3.0 and early 3.1 resume the retry of a deferred task with the previous try's event instead of
# executing it (apache/airflow#56704). Remove with 3.1.
RESUMES_RETRIES = (3, 0) <= get_base_airflow_version_tuple() < (3, 2)

# Seconds from SIGTERM until Airflow 3 kills a task's process; there is no option for it. None for Airflow
# 2.11, which has the option `[core] killed_task_cleanup_time`. Remove with 2.11.
SECONDS_UNTIL_SIGKILL = 5.0 if get_base_airflow_version_tuple() >= (3, 0) else None

try:
    from airflow.sdk.configuration import conf as conf
except ImportError:
    # Airflow 2.11 to 3.1 have it elsewhere, and `common.compat.sdk` from 1.12. Remove with 3.1.
    from airflow.configuration import conf as conf

try:
    from airflow.sdk.log import mask_secret as mask_secret
except ImportError:
    # Airflow 2.11 has it elsewhere. Remove with 2.11.
    from airflow.utils.log.secrets_masker import mask_secret as mask_secret

try:
    from airflow.sdk.exceptions import AirflowRescheduleException as AirflowRescheduleException
except ImportError:
    # Airflow 2.11 to 3.1 have it elsewhere. Remove with 3.1.
    from airflow.exceptions import AirflowRescheduleException as AirflowRescheduleException

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:
    # Airflow 2.11 to 3.1 have them elsewhere. Remove with 3.1.
    from airflow.exceptions import TaskDeferralError

    try:
        from airflow.exceptions import TaskDeferralTimeout
    except ImportError:
        # Airflow 2.11 has one class for both; its message tells which. Remove with 2.11.
        TaskDeferralTimeout = None

try:
    from airflow.triggers.base import BaseEventTrigger as BaseEventTrigger
except ImportError:
    # Airflow 2.11 has no asset watchers. Remove with 2.11.
    from airflow.triggers.base import BaseTrigger as BaseEventTrigger  # noqa: F401

if get_base_airflow_version_tuple() >= (3, 0):

    class TaskKilled(BaseException):
        """
        Airflow killed the task. A retry resumes its runs.

        Not an ``Exception``, so that no handler of errors catches it. Not Airflow's own
        ``AirflowTaskTerminated``, after which Airflow 3 does not retry a task.
        """
else:
    # Airflow 2.11 raises it after `on_kill`, and retries the task. Remove with 2.11.
    from airflow.exceptions import AirflowTaskTerminated as TaskKilled  # type: ignore[no-redef] # noqa: F401


def is_deferral_timeout(error: BaseException) -> bool:
    """Whether Airflow resumed a task because its deferral timed out."""
    if TaskDeferralTimeout is not None:
        return isinstance(error, TaskDeferralTimeout)
    return isinstance(error, TaskDeferralError) and "timeout" in str(error)


def is_trigger_failure(error: BaseException) -> bool:
    """Whether Airflow resumed a task because its trigger failed without an event."""
    return isinstance(error, TaskDeferralError) and not is_deferral_timeout(error)


def call_execute(execute: Callable[[Context], Any], context: Context) -> Any:
    """
    Call the ``execute`` of the running task or of its base class.

    Airflow 2.11 would treat the call as a nested operator: it logs that this "cannot be called outside
    TaskInstance!", and fails a task with ``allow_nested_operators=False``. Remove with 2.11.

    :param execute: The bound method.
    :param context: The task's context.
    """
    if AIRFLOW_V_3_0_PLUS or not inspect.ismethod(execute):
        return execute(context)
    return inspect.unwrap(execute.__func__)(execute.__self__, context)


def execution_timeout_before_resuming() -> AirflowTaskTimeout | None:
    """
    Return the time-out for which Airflow calls ``on_kill``, if any.

    Airflow 2.11 raises it before it resumes a deferred task. So ``on_kill`` is the only method of the task
    that is called, and an exception that it raises replaces the time-out. Remove with 2.11.
    """
    error = sys.exc_info()[1]
    return error if isinstance(error, AirflowTaskTimeout) else None


def require_asset_watchers(name: str) -> None:
    """
    Fail before Airflow 3.0, which has no asset watchers. Remove with 2.11.

    :param name: The trigger that needs them.
    :raises RuntimeError: Airflow is older.
    """
    if not AIRFLOW_V_3_0_PLUS:
        installed = ".".join(map(str, get_base_airflow_version_tuple()))
        raise RuntimeError(
            f"{name} requires Airflow 3.0 or later, which has asset watchers; this is Airflow {installed}. "
            "Use DataZoneMetadataGenerationRunSensor in a scheduled DAG instead."
        )


def initialize_stats() -> None:
    """
    Let ``Stats`` send metrics from a triggerer.

    Since 3.2, Airflow initializes the task SDK's ``Stats`` in a worker, and elsewhere only when it imports
    its serialization. Remove when it does so in a triggerer.
    """
    with suppress(ImportError):
        import airflow.sdk.serde  # noqa: F401


def task_state_store(context: Context) -> Any:
    """Return the store of a task's state between tries, ``None`` before Airflow 3.3. Remove with 3.2."""
    return context.get("task_state_store")


def asset_state_methods(store: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """
    Return coroutine functions that read and write a watcher's ``asset_state_store``.

    Airflow 3.3.0 and 3.3.1 have only methods that block. Remove with 3.3.1.

    :param store: The store.
    """
    if hasattr(store, "aget"):
        return store.aget, store.aset
    return sync_to_async(store.get), sync_to_async(store.set)


async def is_deferred(task_instance: Any) -> bool:
    """
    Whether a task is still deferred, although Airflow called its trigger's ``on_kill``.

    Airflow 3.3 calls it for every trigger that a triggerer loses, also when another triggerer took it over
    because this one missed its heartbeats. Remove when Airflow distinguishes the two.

    :param task_instance: The trigger's task instance, ``None`` outside of a triggerer.
    """

    def count() -> int:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        deferred: int = RuntimeTaskInstance.get_ti_count(
            dag_id=task_instance.dag_id,
            run_ids=[task_instance.run_id],
            task_ids=[task_instance.task_id],
            map_index=task_instance.map_index,
            states=["deferred"],
        )
        return deferred

    return task_instance is not None and await sync_to_async(count)() > 0
