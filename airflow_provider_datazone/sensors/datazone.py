"""Sensors for Amazon DataZone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.task_outcome import no_pointless_retry, push_run, require_success

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


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
    :param poke_interval: Seconds, or a ``timedelta``, between two looks at the run. Default 30.
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` stands for boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises MetadataGenerationRunFailedError: The run did not succeed; not retried.
    :raises AirflowSensorTimeout: The run had not ended after ``timeout`` seconds; not retried.
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
        poke_interval: timedelta | float = 30,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.run_identifier = run_identifier
        self.domain_identifier = domain_identifier
        self.run_type = run_type
        self.allow_partial_success = allow_partial_success

    def execute(self, context: Context) -> Any:
        with no_pointless_retry():
            return super().execute(context)

    def poke(self, context: Context) -> PokeReturnValue:
        run = self.hook.poll_metadata_generation_run(
            self.run_identifier, domain_identifier=self.domain_identifier, run_type=self.run_type
        )
        if run is None or not run.is_terminal:
            return PokeReturnValue(is_done=False)
        push_run(context, run)
        require_success(run, allow_partial_success=self.allow_partial_success, log=self.log)
        return PokeReturnValue(is_done=True, xcom_value=run.type_stats)
