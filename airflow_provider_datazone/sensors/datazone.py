"""Sensors for Amazon DataZone."""

from __future__ import annotations

import math
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
)

from airflow_provider_datazone.deferral import defer_until_run_ends, resume, run_of_event
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.inputs import PlainInputs, validate_interval
from airflow_provider_datazone.links.datazone import DataZoneDomainLink
from airflow_provider_datazone.metadata_generation import NEW_RESOURCE_GRACE
from airflow_provider_datazone.task_outcome import (
    XCOM_TYPE_STATS,
    fail_without_retry,
    push_if_missing_on_time_out,
    push_run,
    push_type_stats_on_failure,
    require_success,
)
from airflow_provider_datazone.version_compat import call_execute, conf, execution_timeout_before_resuming

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.inputs import TemplatedText
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, TypeStat


class DataZoneMetadataGenerationRunSensor(PlainInputs, AwsBaseSensor[DataZoneHook]):
    """
    Wait until a metadata generation run is terminal.

    The task succeeds when the run is ``SUCCEEDED``, and when it is ``PARTIALLY_SUCCEEDED``, with a warning
    that names the failed types. ``FAILED`` and ``CANCELED`` fail the task at once and without retries, or
    skip it with ``soft_fail``. After throttling, a fault of the service or a lost connection the wait
    continues, up to ``timeout``. While DataZone does not find the run, it continues for 30 seconds, since the
    run may be new. Any other error of DataZone, for example a missing permission, fails the task at once,
    also with ``soft_fail``. Each cause has the same outcome in every mode, see ``docs/waiting.md``.

    XCom: the return value and the key ``type_stats`` are the typeStats, a list of
    ``{"type": str, "status": str, "errorMessage"?: str}``, empty if DataZone returns none; the key ``run`` is
    the whole run. Both keys are also pushed after a failure or a skip, for a report in a teardown task, see
    ``docs/operators.md``. ``do_xcom_push=False`` switches off all XComs, and the link to the domain.

    :param run_identifier: The run. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param run_type: Read only this type, e.g. ``BUSINESS_NAMES``; by default all types of the run.
        (templated)
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success. Default ``True``.
    :param deferrable: Wait in the triggerer, on a poller that all waits with the same connection and domain
        share. Default: ``[operators] default_deferrable``.
    :param poke_interval: Seconds, or a ``timedelta``, between two polls, in all modes. Default 30.
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` selects boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises MetadataGenerationRunFailedError: The run did not succeed; not retried.
    :raises AirflowSensorTimeout: The run has not ended after ``timeout`` seconds; not retried.
    :raises WaitFailedError: The triggerer could not read the run; a retry waits again.
    :raises RequestRefusedError: DataZone does not find the run, or refuses; not retried.
    :raises InvalidInputError: An argument is invalid, or no domain is given; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetMetadataGenerationRun.html
    """

    aws_hook_class = DataZoneHook
    template_fields: Sequence[str] = aws_template_fields("domain_identifier", "run_identifier", "run_type")
    operator_extra_links = (DataZoneDomainLink(),)

    def __init__(
        self,
        *,
        run_identifier: TemplatedText,
        domain_identifier: TemplatedText | None = None,
        run_type: TemplatedText | None = None,
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
        with push_type_stats_on_failure(self, context):
            return self._wait(context)

    def _wait(self, context: Context) -> Any:
        started_at = time.time()
        with fail_without_retry():
            self._check_inputs()
        if not self.deferrable:
            with fail_without_retry(), self._skip_execution_timeout():
                DataZoneDomainLink.persist_for(self, context, self.domain_identifier)
                return call_execute(super().execute, context)
        with fail_without_retry(), self._skips():
            DataZoneDomainLink.persist_for(self, context, self.domain_identifier)
            result = self.poke(context)
            if result:
                return result.xcom_value
            domain_identifier = self.hook.resolve_domain_identifier(self.domain_identifier)
        # Airflow 3 does not apply execution_timeout while a task is deferred (apache/airflow#69678).
        timeout = self._execution_timeout if self._is_limited_by_execution_timeout else self.timeout
        return defer_until_run_ends(
            self,
            context,
            started_at=started_at,
            timeout=timeout,
            run_identifier=self.run_identifier,
            domain_identifier=domain_identifier,
            run_type=self.run_type,
            poll_interval=self.poke_interval,
        )

    def _check_inputs(self) -> None:
        self._resolve_inputs()
        validate_interval("poke_interval", self.poke_interval)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        with push_type_stats_on_failure(self, context), fail_without_retry():
            self._resolve_inputs()
        with push_type_stats_on_failure(self, context), fail_without_retry(), self._skips():
            return resume(
                self,
                context,
                # Not BaseSensorOperator's method: its versions differ in what soft_fail and never_fail turn
                # into a skip (apache/airflow#61130), and all skip after a failed trigger
                # (apache/airflow#71255).
                lambda: super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context),
                subject=f"run {self.run_identifier!r}",
                poll_once_more=lambda message: self._poll_once_more(context, message),
            )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> list[TypeStat]:
        """Resume with the trigger's event, and return the typeStats."""
        try:
            run = run_of_event(event, f"run {self.run_identifier!r}")
        except TimeoutError as error:
            message = str(error)
        else:
            return self._conclude(context, run)
        # Outside of the handler, so that a traceback does not show the same text twice.
        return self._poll_once_more(context, message)

    def _poll_once_more(self, context: Context, message: str) -> list[TypeStat]:
        """Poll before timing out, as the other modes do, since no triggerer may have polled recently."""
        result = self.poke(context)
        if not result:
            raise (AirflowTaskTimeout if self._is_limited_by_execution_timeout else AirflowSensorTimeout)(
                message
            )
        type_stats: list[TypeStat] = result.xcom_value
        return type_stats

    @property
    def _execution_timeout(self) -> float:
        return math.inf if self.execution_timeout is None else self.execution_timeout.total_seconds()

    @property
    def _is_limited_by_execution_timeout(self) -> bool:
        """Whether ``execution_timeout`` ends the wait before ``timeout``; it is retried in all modes."""
        return bool(self._execution_timeout < self.timeout)

    @contextmanager
    def _skips(self) -> Iterator[None]:
        """
        Skip a deferrable wait where :class:`BaseSensorOperator` skips one in poke mode.

        ``never_fail`` covers the exceptions of a poke, so it does not cover ``timeout``.
        """
        try:
            with self._skip_execution_timeout():
                yield
        except AirflowSkipException:
            raise
        except AirflowSensorTimeout as error:
            self._skip_if(self.soft_fail, error)
            raise
        except AirflowFailException as error:
            self._skip_if(self.soft_fail or self.never_fail, error)
            raise
        except Exception as error:
            self._skip_if(self.never_fail, error)
            raise

    @contextmanager
    def _skip_execution_timeout(self) -> Iterator[None]:
        """Skip after a time-out; :class:`BaseSensorOperator` skips only after one during a poke."""
        try:
            yield
        except AirflowTaskTimeout as error:
            self._skip_if(self.soft_fail or self.never_fail, error)
            raise

    @staticmethod
    def _skip_if(skips: bool, error: BaseException) -> None:
        if skips:
            raise AirflowSkipException(str(error)) from None

    def on_kill(self) -> None:
        super().on_kill()
        push_if_missing_on_time_out(self, XCOM_TYPE_STATS)
        timed_out = execution_timeout_before_resuming()
        if timed_out is not None:
            self._skip_if(self.soft_fail or self.never_fail, timed_out)

    def poke(self, context: Context) -> PokeReturnValue:
        run = self.hook.poll_metadata_generation_run(
            self.run_identifier,
            domain_identifier=self.domain_identifier,
            run_type=self.run_type,
            grace=min(NEW_RESOURCE_GRACE, self.timeout),
        )
        if run is None or not run.is_terminal:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, run))

    def _conclude(self, context: Context, run: MetadataGenerationRun) -> list[TypeStat]:
        push_run(self, context, run)
        require_success(run, allow_partial_success=self.allow_partial_success, log=self.log)
        return run.type_stats
