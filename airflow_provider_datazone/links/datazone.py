"""Links of tasks for Amazon DataZone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.utils.mixins import AwsBaseHookMixin
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.hooks.datazone import DataZoneHook


class DataZoneDomainLink(BaseAwsLink):
    """
    The page of a task's DataZone domain in the AWS console.

    There is no link where the console's address is not known: in partitions other than those of AWS's
    commercial Regions, China and GovCloud.
    """

    name = "Amazon DataZone Domain"
    key = "datazone_domain"
    format_str = "https://{region_name}.console.{aws_domain}/datazone/home?region={region_name}#/domains/{domain_identifier}"

    def format_link(self, **kwargs: Any) -> str:
        """Return the link, empty where there is none."""
        return super().format_link(**kwargs) if kwargs.get("aws_domain") else ""

    @classmethod
    def persist_for(
        cls, task: AwsBaseHookMixin[DataZoneHook], context: Context, domain_identifier: str | None
    ) -> None:
        """
        Store what the link is made of in XCom, for the task's every state.

        :param task: The operator or sensor.
        :param context: Its context.
        :param domain_identifier: The domain; default from the connection.
        """
        try:
            domain_identifier = task.hook.resolve_domain_identifier(domain_identifier)
            region_name, partition = task.hook.conn_region_name, task.hook.conn_partition
        except Exception as error:
            # The task's own request meets the same, and says so better.
            task.log.debug("No link to the domain: %s", error)
            return
        cls.persist(context, task, region_name, partition, domain_identifier=domain_identifier)
