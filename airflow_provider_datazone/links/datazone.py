"""Operator extra links for Amazon DataZone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.utils.mixins import AwsBaseHookMixin
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.hooks.datazone import DataZoneHook


class DataZoneDomainLink(BaseAwsLink):
    """
    Link to the page of a task's DataZone domain in the AWS console.

    A task has the link only in the partitions of AWS's commercial Regions, China and GovCloud: the addresses
    of other consoles are not known.
    """

    name = "Amazon DataZone Domain"
    key = "datazone_domain"
    format_str = "https://{region_name}.console.{aws_domain}/datazone/home?region={region_name}#/domains/{domain_identifier}"

    def format_link(self, **kwargs: Any) -> str:
        """Return the link, empty if there is none."""
        return super().format_link(**kwargs) if kwargs.get("aws_domain") else ""

    @classmethod
    def persist_for(
        cls, task: AwsBaseHookMixin[DataZoneHook], context: Context, domain_identifier: str | None
    ) -> None:
        """
        Store the parts of the link in XCom, so that a task in any state has it.

        :param task: The operator or sensor.
        :param context: Its context.
        :param domain_identifier: The domain; default from the connection.
        """
        try:
            domain_identifier = task.hook.resolve_domain_identifier(domain_identifier)
            region_name, partition = task.hook.conn_region_name, task.hook.conn_partition
        except Exception as error:
            # The task's own request raises the same error, with its context.
            task.log.debug("No link to the domain: %s", error)
            return
        cls.persist(context, task, region_name, partition, domain_identifier=domain_identifier)
