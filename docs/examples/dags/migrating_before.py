# [START before]
import time

import boto3
from airflow.providers.common.compat.sdk import DAG, AirflowException
from airflow.providers.common.compat.standard.operators import PythonOperator


def generate(domain, project, asset):
    client = boto3.client("datazone")
    run = client.start_metadata_generation_run(
        domainIdentifier=domain,
        owningProjectIdentifier=project,
        target={"type": "ASSET", "identifier": asset},
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
    )
    while True:
        run = client.get_metadata_generation_run(domainIdentifier=domain, identifier=run["id"])
        if run["status"] in ("SUCCEEDED", "FAILED", "CANCELED"):
            break
        time.sleep(30)
    if run["status"] != "SUCCEEDED":
        raise AirflowException(f"Run {run['id']} ended {run['status']}")
    client.accept_predictions(
        domainIdentifier=domain, identifier=asset, acceptRule={"rule": "ALL", "threshold": 0.8}
    )
    return run["typeStats"]


with DAG("migrating_before", schedule=None, params={"domain": "", "project": "", "asset": ""}) as dag:
    PythonOperator(
        task_id="generate",
        python_callable=generate,
        op_args=["{{ params.domain }}", "{{ params.project }}", "{{ params.asset }}"],
        retries=2,
    )
# [END before]
