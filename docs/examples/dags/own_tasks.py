"""TaskFlow tasks that call the hook."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_datazone.hooks.datazone import DataZoneHook

with DAG("own_tasks", schedule=None) as dag:
    # [START list]
    @task
    def count_failed_runs() -> int:
        """Count the failed runs. The hook requests each page of the list when it is needed."""
        failed = DataZoneHook("datazone_default").list_metadata_generation_runs(status="FAILED")
        return sum(1 for _ in failed)

    # [END list]

    # [START client]
    @task
    def domain_status() -> str:
        """Call an API operation without a hook method: `conn` is a boto3 client."""
        hook = DataZoneHook("datazone_default")
        return hook.conn.get_domain(identifier=hook.resolve_domain_identifier())["status"]

    # [END client]

    count_failed_runs()
    domain_status()
