"""Operators for Amazon DataZone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.task_outcome import no_pointless_retry, push_run

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, TypeStat


class DataZoneGetMetadataGenerationRunOperator(AwsBaseOperator[DataZoneHook]):
    """
    Read a metadata generation run once, and push its typeStats to XCom, however it went.

    XCom: the return value and the key ``type_stats`` are the typeStats, a list of
    ``{"type": str, "status": str, "errorMessage"?: str}``, empty where DataZone sends none; the key
    ``run`` is the whole run.

    :param run_identifier: The run. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param run_type: Read this type alone, e.g. ``BUSINESS_NAMES``; by default all types of the run.
        (templated)
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` stands for boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_identifier = run_identifier
        self.domain_identifier = domain_identifier
        self.run_type = run_type

    def execute(self, context: Context) -> list[TypeStat]:
        with no_pointless_retry():
            run: MetadataGenerationRun = self.hook.get_metadata_generation_run(
                self.run_identifier, domain_identifier=self.domain_identifier, run_type=self.run_type
            )
        self.log.info("Metadata generation run %s is %s.", run.id, run.status)
        push_run(context, run)
        return run.type_stats
