import json

import boto3
import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.testing import mock_datazone

ROLE = "arn:aws:iam::123456789012:role/pipeline"
STATEMENT = {"Effect": "Allow", "Action": "datazone:*", "Resource": "*"}
POLICY = {"Version": "2012-10-17", "Statement": [STATEMENT]}


def test_role_needs_a_policy_and_a_membership(monkeypatch):
    extra = {"region_name": "us-east-1", "role_arn": ROLE}
    connection = {"conn_type": "awsdatazone", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    with mock_datazone() as datazone:
        domain, project, asset = datazone.create_asset("orders")
        iam = boto3.client("iam")
        iam.create_role(RoleName="pipeline", AssumeRolePolicyDocument="{}")
        datazone.require_permissions()
        hook = DataZoneHook("datazone_default")
        with pytest.raises(ClientError, match="not authorized to perform: datazone:GetAsset"):
            hook.get_predictions(asset, domain_identifier=domain)
        iam.put_role_policy(RoleName="pipeline", PolicyName="datazone", PolicyDocument=json.dumps(POLICY))
        with pytest.raises(ClientError, match="not permitted to perform operation: GetAsset"):
            hook.get_predictions(asset, domain_identifier=domain)
        client = datazone.client()
        client.create_user_profile(domainIdentifier=domain, userIdentifier=ROLE)
        client.create_project_membership(
            domainIdentifier=domain,
            projectIdentifier=project,
            member={"userIdentifier": ROLE},
            designation="PROJECT_CONTRIBUTOR",
        )
        assert hook.get_predictions(asset, domain_identifier=domain) == []
