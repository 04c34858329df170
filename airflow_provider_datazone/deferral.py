"""Defer a task to a trigger, and resume it with the trigger's event."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from airflow_provider_datazone.exceptions import WaitFailedError
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, sanitize
from airflow_provider_datazone.version_compat import (
    RESUMES_RETRIES,
    call_execute,
    is_deferral_timeout,
    is_trigger_failure,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_datazone.triggers.datazone import (
        DataZoneBatchMetadataGenerationTrigger,
        DataZoneMetadataGenerationRunTrigger,
    )

T = TypeVar("T")

# The XCom key for the try in which a task was deferred.
_XCOM_DEFERRED_IN_TRY = "deferred_in_try"
# Seconds that Airflow waits for a trigger after the trigger's own deadline.
_TIMEOUT_MARGIN = 60
# A hundred years in seconds. Neither Python nor a database can store much later dates.
_MAX_TIMEOUT = 100 * 365 * 86_400


def defer_until_run_ends(
    task: BaseOperator,
    context: Context,
    *,
    started_at: float,
    timeout: float | None,
    kwargs: dict[str, Any] | None = None,
    **arguments: Any,
) -> NoReturn:
    """
    Defer a task until a run is terminal; Airflow then calls its ``execute_complete``.

    :param task: The operator or sensor.
    :param context: Its context.
    :param started_at: Unix time in seconds when the wait began.
    :param timeout: Maximum seconds to wait from then, ``None`` for no limit.
    :param kwargs: More arguments for ``execute_complete``; lost if the trigger fails.
    :param arguments: The trigger's other arguments.
    """
    # Here, since a DAG processor needs no trigger and none of what a trigger polls with.
    from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger

    trigger = DataZoneMetadataGenerationRunTrigger.for_task(
        task, deadline=deadline_after(started_at, timeout), **arguments
    )
    defer(task, context, trigger, kwargs=kwargs)


def deadline_after(started_at: float, timeout: float | None) -> float | None:
    """
    Return the deadline of a trigger, ``None`` for no limit.

    :param started_at: Unix time in seconds when the wait began.
    :param timeout: Maximum seconds to wait from then, ``None`` for no limit.
    """
    return None if timeout is None or timeout > _MAX_TIMEOUT else started_at + timeout


def defer(
    task: BaseOperator,
    context: Context,
    trigger: DataZoneMetadataGenerationRunTrigger | DataZoneBatchMetadataGenerationTrigger,
    *,
    kwargs: dict[str, Any] | None = None,
) -> NoReturn:
    """
    Defer a task to a trigger; Airflow then calls its ``execute_complete``.

    :param task: The operator or sensor.
    :param context: Its context.
    :param trigger: The trigger, which ends at its own deadline.
    :param kwargs: More arguments for ``execute_complete``; lost if the trigger fails.
    """
    if RESUMES_RETRIES:
        # Also with do_xcom_push=False: without it, the task would execute again instead of resuming.
        context["ti"].xcom_push(key=_XCOM_DEFERRED_IN_TRY, value=context["ti"].try_number)
    left = None if trigger.deadline is None else trigger.deadline - time.time()
    task.defer(
        trigger=trigger,
        method_name="execute_complete",
        kwargs=kwargs,
        # In case no triggerer runs it.
        timeout=None if left is None else timedelta(seconds=max(left, 0) + _TIMEOUT_MARGIN),
    )
    raise AssertionError("defer raises")


def resume(
    task: BaseOperator,
    context: Context,
    resume_execution: Callable[[], T],
    *,
    subject: str,
    poll_once_more: Callable[[str], T],
) -> T:
    """
    Resume a deferred task, and turn Airflow's errors about its trigger into errors with context.

    :param task: The operator or sensor.
    :param context: Its context.
    :param resume_execution: Calls Airflow's own ``resume_execution``.
    :param subject: What the task waits for, for errors.
    :param poll_once_more: Called with a message when the time is up, since no triggerer may have polled
        recently.
    :raises WaitFailedError: The trigger failed without an event.
    """
    if RESUMES_RETRIES and _deferred_in_try(context) != context["ti"].try_number:
        result: T = call_execute(task.execute, context)
        return result
    try:
        return resume_execution()
    except Exception as error:
        if is_trigger_failure(error):
            raise WaitFailedError(f"The trigger that waited for {subject} failed: {error}") from None
        if not is_deferral_timeout(error):
            raise
    # Outside of the handler, so that a traceback does not show Airflow's error, too.
    return poll_once_more(f"No triggerer reported on {subject} in time.")


def _deferred_in_try(context: Context) -> Any:
    # When Airflow resumes a retry, the XComs of the previous try still exist.
    ti = context["ti"]
    return ti.xcom_pull(task_ids=ti.task_id, key=_XCOM_DEFERRED_IN_TRY, map_indexes=ti.map_index)


def run_of_event(event: dict[str, Any] | None, subject: str) -> MetadataGenerationRun:
    """
    Return the terminal run in a trigger's event.

    :param event: The event of a ``DataZoneMetadataGenerationRunTrigger``.
    :param subject: What the task waits for, for errors.
    :raises TimeoutError: The run had not ended by the deadline.
    :raises WaitFailedError: The trigger could not read the run.
    """
    members: dict[str, Any] = event if isinstance(event, dict) else {}
    if members.get("status") == "terminal":
        with suppress(ValueError):
            run = MetadataGenerationRun.from_response(members.get("run") or {})
            if run.is_terminal:
                return run
    message = members.get("message")
    if members.get("status") == "timeout":
        raise TimeoutError(f"{subject} has not ended in time." if message is None else sanitize(str(message)))
    if members.get("status") == "error" and message is not None:
        raise WaitFailedError(sanitize(str(message)), permanent=members.get("permanent") is True)
    raise unreadable_event(event, subject)


def unreadable_event(event: Any, subject: str) -> WaitFailedError:
    """Return the error for an event that is missing or that this version cannot read."""
    if event is None:
        return WaitFailedError(f"The trigger that waited for {subject} ended without an event.")
    return WaitFailedError(
        f"The trigger that waited for {subject} ended with an event that cannot be read, one of another "
        f"version of this package perhaps: {sanitize(repr(event))}"
    )
