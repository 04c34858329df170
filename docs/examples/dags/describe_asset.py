from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_datazone.operators.datazone import DataZoneStartMetadataGenerationRunOperator

with DAG("describe_asset", schedule=None) as dag:
    start_run = DataZoneStartMetadataGenerationRunOperator(
        task_id="start_run",
        aws_conn_id="datazone_default",
        asset_identifier="{{ dag_run.conf['asset'] }}",
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        deferrable=True,
        poll_interval=5,
        execution_timeout=timedelta(minutes=30),
        retries=2,
    )

    @task
    def show(type_stats):
        for stat in type_stats:
            print(stat["type"], stat["status"], stat.get("errorMessage", ""))

    show(start_run.output["type_stats"])
