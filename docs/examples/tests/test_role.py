import json

import boto3
import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.testing import DataZoneServer

ROLE = "arn:aws:iam::123456789012:role/pipeline"
STATEMENT = {"Effect": "Allow", "Action": "datazone:*", "Resource": "*"}
POLICY = {"Version": "2012-10-17", "Statement": [STATEMENT]}


def test_role_over_http_must_be_a_member(monkeypatch):
    with DataZoneServer() as datazone:
        domain, project, asset = datazone.create_asset("orders")
        extra = {
            "region_name": "us-east-1",
            "endpoint_url": datazone.endpoint_url,
            "service_config": {"sts": {"endpoint_url": datazone.endpoint_url}},
            "role_arn": ROLE,
            "domain_identifier": domain,
            "owning_project_identifier": project,
        }
        connection = {"conn_type": "awsdatazone", "login": "testing", "password": "testing", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        iam = boto3.client("iam", region_name="us-east-1", endpoint_url=datazone.endpoint_url, **keys)
        iam.create_role(RoleName="pipeline", AssumeRolePolicyDocument="{}")
        iam.put_role_policy(RoleName="pipeline", PolicyName="datazone", PolicyDocument=json.dumps(POLICY))
        datazone.require_permissions()
        hook = DataZoneHook("datazone_default")
        with pytest.raises(ClientError, match="not permitted to perform operation: GetAsset"):
            hook.get_predictions(asset)
        client = datazone.client()
        client.create_user_profile(domainIdentifier=domain, userIdentifier=ROLE)
        client.create_project_membership(
            domainIdentifier=domain,
            projectIdentifier=project,
            member={"userIdentifier": ROLE},
            designation="PROJECT_CONTRIBUTOR",
        )
        assert hook.get_predictions(asset) == []
