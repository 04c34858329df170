"""Where Airflow's versions differ, each with the version from which it can go."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    get_base_airflow_version_tuple,
)
from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

# Airflow 3.0 and early 3.1 resume the retry of a deferred task where the try before had left off, with
# its event, in place of executing it (apache/airflow#56704); can go with 3.1.
RESUMES_RETRIES = (3, 0) <= get_base_airflow_version_tuple() < (3, 2)

# Seconds for which a task's process lives on when Airflow 3 has sent it SIGTERM, and that Airflow 3 has no
# option for; None where `[core] killed_task_cleanup_time` says so. Can go with 2.11.
SECONDS_UNTIL_SIGKILL = 5.0 if get_base_airflow_version_tuple() >= (3, 0) else None

try:
    from airflow.sdk.configuration import conf as conf
except ImportError:
    # Airflow 2.11 to 3.1 have it elsewhere, and `common.compat.sdk` only from 1.12 on; can go with either.
    from airflow.configuration import conf as conf

try:
    from airflow.sdk.log import mask_secret as mask_secret
except ImportError:
    # Airflow 2.11 has it elsewhere; can go with 2.11.
    from airflow.utils.log.secrets_masker import mask_secret as mask_secret

try:
    from airflow.sdk.exceptions import AirflowRescheduleException as AirflowRescheduleException
except ImportError:
    # Airflow 2.11 to 3.1 have it elsewhere; can go with 3.1.
    from airflow.exceptions import AirflowRescheduleException as AirflowRescheduleException

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:
    # Airflow 2.11 to 3.1 have them elsewhere; can go with 3.1.
    from airflow.exceptions import TaskDeferralError

    try:
        from airflow.exceptions import TaskDeferralTimeout
    except ImportError:
        # Airflow 2.11 has one class for both, told apart by its text; can go with 2.11.
        TaskDeferralTimeout = None

if get_base_airflow_version_tuple() >= (3, 0):

    class TaskKilled(BaseException):
        """
        Airflow told the task to stop; a retry continues with what it has left.

        Not an ``Exception``, like Airflow's own: no handler of errors may take it for one. Not Airflow's own
        ``AirflowTaskTerminated``, for which Airflow 3 does not retry a task.
        """
else:
    # Airflow 2.11 raises it itself after `on_kill`, and retries the task; can go with 2.11.
    from airflow.exceptions import AirflowTaskTerminated as TaskKilled  # type: ignore[no-redef] # noqa: F401


def is_deferral_timeout(error: BaseException) -> bool:
    """Whether Airflow resumed a task because its time in the triggerer was up."""
    if TaskDeferralTimeout is not None:
        return isinstance(error, TaskDeferralTimeout)
    return isinstance(error, TaskDeferralError) and "timeout" in str(error)


def is_trigger_failure(error: BaseException) -> bool:
    """Whether Airflow resumed a task because its trigger failed without an event."""
    return isinstance(error, TaskDeferralError) and not is_deferral_timeout(error)


def call_execute(execute: Callable[[Context], Any], context: Context) -> Any:
    """
    Call an ``execute`` from within a running task: that of a base class, or the task's own.

    Airflow 2.11 takes both for a task that is called by another one: it logs that this "cannot be called
    outside TaskInstance!", and fails a task with ``allow_nested_operators=False``. Can go with 2.11.

    :param execute: The bound method.
    :param context: The task's context.
    """
    if AIRFLOW_V_3_0_PLUS or not inspect.ismethod(execute):
        return execute(context)
    return inspect.unwrap(execute.__func__)(execute.__self__, context)


def execution_timeout_before_resuming() -> AirflowTaskTimeout | None:
    """
    Return the time-out for which Airflow calls ``on_kill``, if any.

    Airflow 2.11 raises it before it resumes a deferred task, so that ``on_kill`` is the first method of the
    task to learn of it, and what ``on_kill`` raises takes its place. Can go with 2.11.
    """
    error = sys.exc_info()[1]
    return error if isinstance(error, AirflowTaskTimeout) else None


def task_state_store(context: Context) -> Any:
    """Return what keeps a task's state over its tries, ``None`` before Airflow 3.3; can go with 3.2."""
    return context.get("task_state_store")


async def is_deferred(task_instance: Any) -> bool:
    """
    Whether a task is deferred all the same, although its trigger was told that a user has ended it.

    Airflow 3.3 says so of whatever a triggerer has lost: also of what another one has taken over while this
    one stalled and missed its heartbeats. Can go when Airflow tells the two apart.

    :param task_instance: The trigger's, ``None`` outside of a triggerer.
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
