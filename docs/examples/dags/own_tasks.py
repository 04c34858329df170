"""TaskFlow tasks that call the hook."""

from __future__ import annotations

from collections import Counter

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

    # [START find_assets_without_runs]
    @task
    def find_assets_without_runs() -> list[str]:
        """Return the assets without a run that has succeeded and without predictions to review."""
        hook = DataZoneHook("datazone_default")
        succeeded = {run.asset_id for run in hook.list_metadata_generation_runs(status="SUCCEEDED")}
        found = [asset["identifier"] for asset in hook.search_assets(search_text="orders")]
        return [asset for asset in found if asset not in succeeded and not hook.get_predictions(asset)]

    # [END find_assets_without_runs]

    # [START count_runs]
    @task
    def count_runs_by_asset() -> dict[str, int]:
        runs = DataZoneHook("datazone_default").list_metadata_generation_runs()
        return dict(Counter(run.asset_id for run in runs if run.asset_id))

    # [END count_runs]

    count_failed_runs()
    domain_status()
    find_assets_without_runs()
    count_runs_by_asset()
