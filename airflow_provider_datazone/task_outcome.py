"""How a task of this provider ends: what it leaves in XCom, and the error it fails with."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from botocore.exceptions import ClientError

from airflow_provider_datazone.exceptions import (
    InvalidInputError,
    MetadataGenerationRunFailedError,
    NotConfiguredError,
    RequestRefusedError,
    StartedRunFailedError,
    WaitFailedError,
)
from airflow_provider_datazone.hooks.datazone import is_permanent
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, judge, one_line
from airflow_provider_datazone.version_compat import AirflowRescheduleException

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

XCOM_TYPE_STATS = "type_stats"
XCOM_RUN = "run"
# The attribute by which a task knows that its typeStats are in XCom.
_HAS_TYPE_STATS = "_has_type_stats"


def push_run(
    task: BaseOperator, context: Context, run: MetadataGenerationRun, *, type_stats: bool = True
) -> None:
    """
    Push the whole run (key ``run``) and its typeStats (key ``type_stats``) to XCom.

    Done before the run is judged, so that the tasks downstream have them after a failure too. A task with
    ``do_xcom_push=False`` pushes neither, as in the Amazon provider, where it switches off the keys of an
    operator, its links and its return value alike.

    :param task: The operator or sensor.
    :param context: Its context.
    :param run: The run.
    :param type_stats: Whether they are known: Start and List leave them out.
    """
    if not task.do_xcom_push:
        return
    if type_stats:
        context["ti"].xcom_push(key=XCOM_TYPE_STATS, value=run.type_stats)
        vars(task)[_HAS_TYPE_STATS] = True
    context["ti"].xcom_push(key=XCOM_RUN, value=run.to_dict())


@contextmanager
def push_type_stats_on_failure(task: BaseOperator, context: Context) -> Iterator[None]:
    """
    Push typeStats as ``[]`` where a task fails before it has any, for tasks with ``trigger_rule="all_done"``.

    :param task: The operator or sensor.
    :param context: Its context.
    """
    try:
        yield
    except AirflowRescheduleException:
        raise
    except (Exception, AirflowTaskTimeout):
        if task.do_xcom_push and not vars(task).get(_HAS_TYPE_STATS):
            context["ti"].xcom_push(key=XCOM_TYPE_STATS, value=[])
        raise


def require_success(
    run: MetadataGenerationRun,
    *,
    allow_partial_success: bool,
    log: logging.Logger,
    retry_starts_anew: bool = False,
) -> None:
    """
    Let the task go on, or fail it: for good, as waiting again for a run that has ended changes nothing.

    :param retry_starts_anew: Whether a retry of the task would start another run.
    :raises StartedRunFailedError: The run did not succeed, and another one may.
    :raises MetadataGenerationRunFailedError: The run did not succeed.
    """
    verdict = judge(run, allow_partial_success=allow_partial_success)
    if not verdict.succeeded:
        if retry_starts_anew and not run.quota_used_up:
            raise StartedRunFailedError(verdict.message, run)
        raise MetadataGenerationRunFailedError(verdict.message, run)
    log.log(logging.INFO if run.status == "SUCCEEDED" else logging.WARNING, verdict.message)


@contextmanager
def no_pointless_retry() -> Iterator[None]:
    """
    Fail a task without retries where a retry would meet the same error.

    To be entered outside of whatever turns failures into skips: ``soft_fail`` is for runs, and must
    not hide a typing error or a missing permission.

    An answer of DataZone stays reachable as ``__cause__``, with its ``response``. A traceback shows both
    errors, so the cause says in its text only what the message of the task's error does not.

    :raises RequestRefusedError: DataZone, or botocore on its behalf, refused for good.
    :raises InvalidInputError: The task was given what cannot work.
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
            error.args = (_describe_answer(error),)
            raise RequestRefusedError(message) from error
        raise RequestRefusedError(message) from None


def _describe_answer(error: ClientError) -> str:
    """Describe the answer behind an error by what AWS's support asks for."""
    metadata = error.response.get("ResponseMetadata", {})
    described = f"HTTP status {metadata.get('HTTPStatusCode', 'unknown')}"
    if request_id := metadata.get("RequestId"):
        described += f", request ID {request_id}"
    return one_line(described, length=200)
