"""How a task hands its wait to a triggerer, and what it makes of the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from airflow_provider_datazone.exceptions import WaitFailedError
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, one_line
from airflow_provider_datazone.triggers.datazone import (
    DataZoneBatchMetadataGenerationTrigger,
    DataZoneMetadataGenerationRunTrigger,
)
from airflow_provider_datazone.version_compat import (
    RESUMES_RETRIES,
    call_execute,
    is_deferral_timeout,
    is_trigger_failure,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

T = TypeVar("T")

# Says in which try a task was deferred.
_XCOM_TRY = "deferred_in_try"
# Seconds that Airflow waits for a trigger beyond the trigger's own deadline.
_GRACE = 60
# A hundred years in seconds: neither Python nor a database has dates for much more, infinity for one.
_FOREVER = 100 * 365 * 86_400


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
    Have a triggerer wait for a run, and go on with the task's ``execute_complete``.

    :param task: The operator or sensor.
    :param context: Its context.
    :param started_at: Unix time in seconds at which the wait began.
    :param timeout: Seconds to wait from then, ``None`` for without end.
    :param kwargs: What ``execute_complete`` is to be told beside the event; lost with the trigger.
    :param arguments: The trigger's other arguments.
    """
    deadline = None if timeout is None or timeout > _FOREVER else started_at + timeout
    trigger = DataZoneMetadataGenerationRunTrigger.for_task(task, deadline=deadline, **arguments)
    defer(task, context, trigger, kwargs=kwargs)


def defer(
    task: BaseOperator,
    context: Context,
    trigger: DataZoneMetadataGenerationRunTrigger | DataZoneBatchMetadataGenerationTrigger,
    *,
    kwargs: dict[str, Any] | None = None,
) -> NoReturn:
    """
    Hand a task to a trigger, and go on with the task's ``execute_complete``.

    :param task: The operator or sensor.
    :param context: Its context.
    :param trigger: The trigger, which keeps its deadline.
    :param kwargs: What ``execute_complete`` is to be told beside the event; lost with the trigger.
    """
    if RESUMES_RETRIES:
        # Whatever do_xcom_push says: without it, the task would execute again where it is to resume.
        context["ti"].xcom_push(key=_XCOM_TRY, value=context["ti"].try_number)
    left = None if trigger.deadline is None else trigger.deadline - time.time()
    task.defer(
        trigger=trigger,
        method_name="execute_complete",
        kwargs=kwargs,
        # For when there is no triggerer to run it.
        timeout=None if left is None else timedelta(seconds=max(left, 0) + _GRACE),
    )
    raise AssertionError("defer raises")


def resume(
    task: BaseOperator,
    context: Context,
    resume_execution: Callable[[], T],
    *,
    about: str,
    look_once_more: Callable[[str], T],
) -> T:
    """
    Resume a deferred task; what went wrong with its trigger is told in a way that helps.

    :param task: The operator or sensor.
    :param context: Its context.
    :param resume_execution: Airflow's own way to do it.
    :param about: What was waited for.
    :param look_once_more: Called with a message where the time was up: nobody may have looked for a while.
    :raises WaitFailedError: The trigger failed without a word.
    """
    if RESUMES_RETRIES and _deferred_in_try(context) != context["ti"].try_number:
        result: T = call_execute(task.execute, context)
        return result
    try:
        return resume_execution()
    except Exception as error:
        if is_trigger_failure(error):
            raise WaitFailedError(f"The trigger that waited for {about} failed: {error}") from None
        if not is_deferral_timeout(error):
            raise
    # Outside of the handler: a traceback would show Airflow's error, too.
    return look_once_more(f"No triggerer has said in time how {about} goes.")


def _deferred_in_try(context: Context) -> Any:
    # Where a retry is resumed, the XComs of the try before are still there.
    ti = context["ti"]
    return ti.xcom_pull(task_ids=ti.task_id, key=_XCOM_TRY, map_indexes=ti.map_index)


def run_of_event(event: dict[str, Any] | None, about: str) -> MetadataGenerationRun:
    """
    Return the terminal run that a trigger has waited for.

    :param event: What ``DataZoneMetadataGenerationRunTrigger`` yielded.
    :param about: What was waited for.
    :raises TimeoutError: The run had not ended by the deadline.
    :raises WaitFailedError: It could not be read.
    """
    members: dict[str, Any] = event if isinstance(event, dict) else {}
    if members.get("status") == "terminal":
        with suppress(ValueError):
            run = MetadataGenerationRun.from_response(members.get("run") or {})
            if run.is_terminal:
                return run
    message = members.get("message")
    if members.get("status") == "timeout":
        raise TimeoutError(f"{about} has not ended in time." if message is None else one_line(str(message)))
    if members.get("status") == "error" and message is not None:
        raise WaitFailedError(one_line(str(message)), permanent=members.get("permanent") is True)
    raise unreadable(event, about)


def unreadable(event: Any, about: str) -> WaitFailedError:
    """Return the error for an event that is not there, or says nothing to this version."""
    if event is None:
        return WaitFailedError(f"The trigger that waited for {about} ended without an event.")
    return WaitFailedError(
        f"The trigger that waited for {about} ended with an event that cannot be read, one of another "
        f"version of this package perhaps: {one_line(repr(event))}"
    )
