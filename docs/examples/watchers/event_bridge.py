"""A DAG that runs when EventBridge reports the end of a run through SQS. It needs Airflow 3."""

from airflow.providers.amazon.aws.triggers.sqs import SqsSensorTrigger
from airflow.sdk import DAG, Asset, AssetWatcher, task

run_reported = Asset(
    "datazone_run_reported",
    watchers=[
        AssetWatcher(
            name="datazone_run_reported",
            trigger=SqsSensorTrigger(
                sqs_queue="https://sqs.us-east-1.amazonaws.com/123456789012/datazone-runs",
                aws_conn_id="aws_default",
                waiter_delay=30,
            ),
        )
    ],
)

with DAG("read_reported_runs", schedule=[run_reported]) as dag:

    @task
    def read(triggering_asset_events):
        for event in triggering_asset_events[run_reported]:
            if "payload" not in event.extra:
                continue  # A user has created the event in the UI.
            for message in event.extra["payload"]["message_batch"]:
                print(message["Body"])

    read()
