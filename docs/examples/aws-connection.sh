export AIRFLOW_CONN_AWS_DEFAULT='{
    "conn_type": "aws",
    "extra": {
      "region_name": "us-east-1",
      "service_config": {
        "datazone": {
          "domain_identifier": "dzd_1234abcd5678ef",
          "owning_project_identifier": "5a6b7c8d9e"
        }
      }
    }
  }'
