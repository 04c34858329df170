"""How a task of this provider ends: what it leaves in XCom, and the error it fails with."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.exceptions import (
    InvalidInputError,
    MetadataGenerationRunFailedError,
    NotConfiguredError,
    RequestRefusedError,
    WaitFailedError,
)
from airflow_provider_datazone.hooks.datazone import is_permanent
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, judge

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

XCOM_TYPE_STATS = "type_stats"
XCOM_RUN = "run"


def push_run(context: Context, run: MetadataGenerationRun) -> None:
    """
    Push the typeStats (key ``type_stats``) and the whole run (key ``run``) to XCom.

    Done before the run is judged, so that the tasks downstream have them after a failure too.
    """
    context["ti"].xcom_push(key=XCOM_TYPE_STATS, value=run.type_stats)
    context["ti"].xcom_push(key=XCOM_RUN, value=run.to_dict())


def require_success(run: MetadataGenerationRun, *, allow_partial_success: bool, log: logging.Logger) -> None:
    """
    Let the task go on, or fail it for good: waiting again for a run that has ended changes nothing.

    :raises MetadataGenerationRunFailedError: The run did not succeed.
    """
    verdict = judge(run, allow_partial_success=allow_partial_success)
    if not verdict.succeeded:
        raise MetadataGenerationRunFailedError(verdict.message, run)
    log.log(logging.INFO if run.status == "SUCCEEDED" else logging.WARNING, verdict.message)


def run_of_event(event: dict[str, Any] | None) -> MetadataGenerationRun:
    """
    Return the terminal run that a trigger has waited for.

    :param event: What ``DataZoneMetadataGenerationRunTrigger`` yielded.
    :raises TimeoutError: The run had not ended by the deadline.
    :raises WaitFailedError: It could not be read.
    """
    if event is None:
        raise WaitFailedError("The trigger ended without an event.")
    if event["status"] == "terminal":
        return MetadataGenerationRun.from_response(event["run"])
    if event["status"] == "timeout":
        raise TimeoutError(event["message"])
    raise WaitFailedError(event["message"], permanent=event.get("permanent", False))


@contextmanager
def no_pointless_retry() -> Iterator[None]:
    """
    Fail a task without retries where a retry would meet the same error.

    To be entered outside of whatever turns failures into skips: ``soft_fail`` is for runs, and must
    not hide a typing error or a missing permission.

    :raises RequestRefusedError: DataZone, or botocore on its behalf, refused for good.
    :raises InvalidInputError: The task was given what cannot work.
    """
    try:
        yield
    except NotConfiguredError as error:
        raise InvalidInputError(str(error)) from error
    except Exception as error:
        if is_permanent(error) or (isinstance(error, WaitFailedError) and error.permanent):
            raise RequestRefusedError(str(error)) from error
        raise
