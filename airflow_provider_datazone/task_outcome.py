"""The result of a task: its XComs, and the exception it fails with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred, get_current_context
from botocore.exceptions import ClientError

from airflow_provider_datazone.exceptions import (
    InvalidInputError,
    MetadataGenerationRunFailedError,
    NotConfiguredError,
    RequestRefusedError,
    StartedRunFailedError,
    WaitFailedError,
)
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, judge, sanitize
from airflow_provider_datazone.metrics import count_ended_run
from airflow_provider_datazone.service_errors import is_permanent
from airflow_provider_datazone.version_compat import (
    AirflowRescheduleException,
    execution_timeout_before_resuming,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

XCOM_TYPE_STATS = "type_stats"
XCOM_RUN = "run"
XCOM_LISTING = "listing"
XCOM_MARKDOWN = "markdown"
XCOM_REVISION = "revision"
XCOM_RESULTS = "results"
# The attribute of a task with the XCom keys that it has pushed.
_PUSHED = "_pushed_xcoms"


def push(task: BaseOperator, context: Context, key: str, value: Any) -> None:
    """
    Push an XCom.

    With ``do_xcom_push=False`` it pushes nothing. As in the Amazon provider, that switches off the operator's
    own keys, its links and its return value.

    :param task: The operator or sensor.
    :param context: Its context.
    :param key: The key.
    :param value: The value.
    """
    if task.do_xcom_push:
        context["ti"].xcom_push(key=key, value=value)
        vars(task)[_PUSHED] = {*vars(task).get(_PUSHED, ()), key}


def push_if_missing(task: BaseOperator, context: Context, key: str) -> None:
    """
    Push an XCom as ``[]`` if a task that fails has not pushed it, for tasks with ``trigger_rule="all_done"``.

    Without it, a task that reads it fails before it executes.

    :param task: The operator or sensor.
    :param context: Its context.
    :param key: The key.
    """
    if key not in vars(task).get(_PUSHED, ()):
        push(task, context, key, [])


def push_if_missing_on_time_out(task: BaseOperator, key: str) -> None:
    """
    Call :func:`push_if_missing` in ``on_kill`` if Airflow 2.11 times a deferred task out before it resumes.

    :param task: The operator or sensor.
    :param key: The key.
    """
    if execution_timeout_before_resuming() is not None:
        try_to_push(lambda: push_if_missing(task, get_current_context(), key), task.log)


def push_run(
    task: BaseOperator, context: Context, run: MetadataGenerationRun, *, type_stats: bool = True
) -> None:
    """
    Push the whole run (key ``run``) and its typeStats (key ``type_stats``) to XCom.

    A task calls this before it judges the run, so that downstream tasks have the XComs after a failure, too.

    :param task: The operator or sensor.
    :param context: Its context.
    :param run: The run.
    :param type_stats: Whether the run has them: Start and List omit them.
    """
    if type_stats:
        push(task, context, XCOM_TYPE_STATS, run.type_stats)
    push(task, context, XCOM_RUN, run.to_dict())


@contextmanager
def on_failure(push: Callable[[], None], log: logging.Logger) -> Iterator[None]:
    """
    Push XComs if a task fails, times out or is killed, and not if it defers or is rescheduled.

    :param push: Pushes them.
    :param log: The task's log.
    """
    try:
        yield
    except (AirflowRescheduleException, TaskDeferred):
        raise
    except BaseException:
        # Time-outs and kills are no subclasses of Exception.
        try_to_push(push, log)
        raise


def try_to_push(push: Callable[[], None], log: logging.Logger) -> None:
    """Push XComs of a failed task, without hiding its error if that fails, too."""
    try:
        push()
    except Exception as error:
        log.warning("The XComs for reports could not be pushed: %s", sanitize(str(error)))


def push_type_stats_on_failure(task: BaseOperator, context: Context) -> AbstractContextManager[None]:
    """
    Push typeStats as ``[]`` if a task fails before it has any.

    :param task: The operator or sensor.
    :param context: Its context.
    """
    return on_failure(partial(push_if_missing, task, context, XCOM_TYPE_STATS), task.log)


def require_success(
    run: MetadataGenerationRun,
    *,
    allow_partial_success: bool,
    log: logging.Logger,
    retry_starts_new_run: bool = False,
) -> None:
    """
    Return if a terminal run succeeded; otherwise fail the task, without retries unless a retry starts a new
    run.

    :param run: The terminal run.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success.
    :param log: The task's log.
    :param retry_starts_new_run: Whether a retry of the task starts a new run.
    :raises StartedRunFailedError: The run did not succeed, and a new one may.
    :raises MetadataGenerationRunFailedError: The run did not succeed.
    """
    count_ended_run(run.status)
    verdict = judge(run, allow_partial_success=allow_partial_success)
    if not verdict.succeeded:
        if retry_starts_new_run and not run.quota_used_up:
            raise StartedRunFailedError(verdict.message, run)
        raise MetadataGenerationRunFailedError(verdict.message, run)
    log.log(logging.INFO if run.status == "SUCCEEDED" else logging.WARNING, verdict.message)


@contextmanager
def fail_without_retry() -> Iterator[None]:
    """
    Fail a task without retries if a retry would fail with the same error.

    It has to surround code that turns failures into skips: ``soft_fail`` covers failed runs, and must not
    hide a misspelled argument or a missing permission.

    DataZone's error is the ``__cause__``, with its ``response``. A traceback shows both errors, so the text
    of the cause is reduced to the HTTP status and the request ID.

    :raises RequestRefusedError: DataZone refuses the request, or botocore does.
    :raises InvalidInputError: The task has an invalid or missing argument.
    """
    try:
        yield
    except NotConfiguredError as error:
        raise InvalidInputError(str(error)) from None
    except Exception as error:
        if not is_permanent(error) and not (isinstance(error, WaitFailedError) and error.permanent):
            raise
        message = str(error)
        if isinstance(error, ClientError):
            error.args = (_describe_response(error),)
            raise RequestRefusedError(message) from error
        raise RequestRefusedError(message) from None


def _describe_response(error: ClientError) -> str:
    """Return the HTTP status and the request ID of a response, which AWS Support asks for."""
    metadata = error.response.get("ResponseMetadata", {})
    described = f"HTTP status {metadata.get('HTTPStatusCode', 'unknown')}"
    if request_id := metadata.get("RequestId"):
        described += f", request ID {request_id}"
    return sanitize(described, length=200)
