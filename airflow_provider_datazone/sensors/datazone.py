"""Sensors for Amazon DataZone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_datazone.exceptions import WaitFailedError
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.task_outcome import (
    no_pointless_retry,
    push_run,
    require_success,
    run_of_event,
)
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from airflow_provider_datazone.version_compat import is_deferral_timeout, is_trigger_failure

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, TypeStat

# Seconds that Airflow waits for a trigger beyond the trigger's own deadline.
_GRACE = 60


class DataZoneMetadataGenerationRunSensor(AwsBaseSensor[DataZoneHook]):
    """
    Wait until a metadata generation run has ended.

    ``SUCCEEDED`` ends the wait; so does ``PARTIALLY_SUCCEEDED``, with a warning that names what failed.
    ``FAILED`` and ``CANCELED`` fail the task at once and without retries, or skip it under ``soft_fail``.
    Throttling, faults of the service and lost connections are waited out, up to ``timeout``. Whatever
    else DataZone answers, an unknown run or a missing permission, fails the task at once, under
    ``soft_fail`` too.

    XCom: the return value and the key ``type_stats`` are the typeStats, a list of
    ``{"type": str, "status": str, "errorMessage"?: str}``, empty where DataZone sends none; the key
    ``run`` is the whole run. The two keys are there after a failure and a skip too, for tasks downstream
    with ``trigger_rule="all_done"``.

    :param run_identifier: The run. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param run_type: Read this type alone, e.g. ``BUSINESS_NAMES``; by default all types of the run.
        (templated)
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success. Default ``True``.
    :param deferrable: Wait in the triggerer, on a poller that all waits with the same connection and domain
        share. Default: ``[operators] default_deferrable``.
    :param poke_interval: Seconds, or a ``timedelta``, between two looks at the run, in all modes. Default 30.
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` stands for boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises MetadataGenerationRunFailedError: The run did not succeed; not retried.
    :raises AirflowSensorTimeout: The run had not ended after ``timeout`` seconds; not retried.
    :raises WaitFailedError: Deferred, the run could not be read, for a reason that may pass.
    :raises RequestRefusedError: DataZone does not know the run, or refuses; not retried.
    :raises InvalidInputError: No domain is known; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetMetadataGenerationRun.html
    """

    aws_hook_class = DataZoneHook
    template_fields: Sequence[str] = aws_template_fields("domain_identifier", "run_identifier", "run_type")

    def __init__(
        self,
        *,
        run_identifier: str,
        domain_identifier: str | None = None,
        run_type: str | None = None,
        allow_partial_success: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: timedelta | float = 30,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.run_identifier = run_identifier
        self.domain_identifier = domain_identifier
        self.run_type = run_type
        self.allow_partial_success = allow_partial_success
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        if not self.deferrable:
            with no_pointless_retry():
                return super().execute(context)
        started_at = time.time()
        with no_pointless_retry(), self._skips():
            looked = self.poke(context)
            if looked:
                return looked.xcom_value
            domain_identifier = self.hook.resolve_domain_identifier(self.domain_identifier)
        timeout = self.timeout
        if self.execution_timeout is not None:
            # Airflow 3 itself does not apply it while a task is deferred (apache/airflow#69678).
            timeout = min(timeout, self.execution_timeout.total_seconds())
        self.defer(
            trigger=DataZoneMetadataGenerationRunTrigger.for_task(
                self,
                run_identifier=self.run_identifier,
                domain_identifier=domain_identifier,
                run_type=self.run_type,
                poll_interval=self.poke_interval,
                deadline=started_at + timeout,
            ),
            method_name=self.execute_complete.__name__,
            # The trigger keeps the deadline; this is for when there is no triggerer to run it.
            timeout=timedelta(seconds=timeout + _GRACE),
        )
        return None  # never: `defer` raises

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        with no_pointless_retry(), self._skips():
            try:
                # Past BaseSensorOperator: there, versions differ in what soft_fail and never_fail turn into
                # a skip (apache/airflow#61130), and all skip when a trigger failed (apache/airflow#71255).
                return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)
            except Exception as error:
                if is_deferral_timeout(error):
                    message = f"No triggerer has said in time how run {self.run_identifier!r} goes."
                    return self._look_once_more(context, message)
                if is_trigger_failure(error):
                    message = f"The trigger that waited for run {self.run_identifier!r} failed: {error}"
                    raise WaitFailedError(message) from error
                raise

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> list[TypeStat]:
        """Judge the run that the trigger has waited for."""
        try:
            run = run_of_event(event)
        except TimeoutError as error:
            return self._look_once_more(context, str(error))
        return self._conclude(context, run)

    def _look_once_more(self, context: Context, message: str) -> list[TypeStat]:
        """Look before timing out, as the other modes do: the triggerer may have been away for a while."""
        looked = self.poke(context)
        if not looked:
            raise self._timed_out(message)
        type_stats: list[TypeStat] = looked.xcom_value
        return type_stats

    def _timed_out(self, message: str) -> BaseException:
        """Name the bound that ended the wait: ``execution_timeout`` is retried, as in the other modes."""
        if self.execution_timeout is not None and self.execution_timeout.total_seconds() < self.timeout:
            error: BaseException = AirflowTaskTimeout(message)
        else:
            error = AirflowSensorTimeout(message)
        return error

    @contextmanager
    def _skips(self) -> Iterator[None]:
        """Skip as :class:`BaseSensorOperator` does around a poke, which it does not when deferred."""
        try:
            yield
        except (AirflowSensorTimeout, AirflowTaskTimeout, AirflowFailException) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise
        except AirflowSkipException:
            raise
        except Exception as error:
            if self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise

    def poke(self, context: Context) -> PokeReturnValue:
        run = self.hook.poll_metadata_generation_run(
            self.run_identifier, domain_identifier=self.domain_identifier, run_type=self.run_type
        )
        if run is None or not run.is_terminal:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, run))

    def _conclude(self, context: Context, run: MetadataGenerationRun) -> list[TypeStat]:
        push_run(context, run)
        require_success(run, allow_partial_success=self.allow_partial_success, log=self.log)
        return run.type_stats
