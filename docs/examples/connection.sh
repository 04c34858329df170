export AIRFLOW_CONN_DATAZONE_DEFAULT='{
    "conn_type": "awsdatazone",
    "extra": {
      "region_name": "us-east-1",
      "role_arn": "arn:aws:iam::123456789012:role/airflow-datazone",
      "domain_identifier": "dzd_1234abcd5678ef",
      "owning_project_identifier": "5a6b7c8d9e"
    }
  }'
