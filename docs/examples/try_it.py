import json
import os
import subprocess
import sys

from airflow_provider_datazone.testing import DataZoneServer

# Airflow's own example DAGs.
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

with DataZoneServer() as datazone:
    domain, project, asset = datazone.create_asset("orders")
    connection = json.loads(datazone.connection)
    connection["extra"] |= {"domain_identifier": domain, "owning_project_identifier": project}
    os.environ["AIRFLOW_CONN_DATAZONE_DEFAULT"] = json.dumps(connection)
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], check=True)
    subprocess.run(
        [*airflow, "dags", "test", "describe_asset", "--conf", json.dumps({"asset": asset})], check=True
    )
