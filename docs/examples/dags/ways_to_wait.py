"""The sensor in its three modes, and with short timeouts."""

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor

with DAG("ways_to_wait", schedule=None, params={"run": ""}) as dag:
    # [START deferrable]
    in_the_triggerer = DataZoneMetadataGenerationRunSensor(
        task_id="in_the_triggerer",
        aws_conn_id="datazone_default",
        run_identifier="{{ params.run }}",
        deferrable=True,
    )
    # [END deferrable]

    # [START reschedule]
    without_a_triggerer = DataZoneMetadataGenerationRunSensor(
        task_id="without_a_triggerer",
        aws_conn_id="datazone_default",
        run_identifier="{{ params.run }}",
        mode="reschedule",
        poke_interval=60,
        deferrable=False,
    )
    # [END reschedule]

    # [START poke]
    on_the_worker = DataZoneMetadataGenerationRunSensor(
        task_id="on_the_worker",
        aws_conn_id="datazone_default",
        run_identifier="{{ params.run }}",
        poke_interval=5,
        timeout=120,
        deferrable=False,
    )
    # [END poke]

    # [START timeouts]
    with_short_timeouts = DataZoneMetadataGenerationRunSensor(
        task_id="with_short_timeouts",
        aws_conn_id="datazone_default",
        run_identifier="{{ params.run }}",
        botocore_config={"read_timeout": 10, "retries": {"total_max_attempts": 2}},
    )
    # [END timeouts]
