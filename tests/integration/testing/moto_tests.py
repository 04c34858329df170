"""Tests of the backend in the form of moto's own tests: ``test_moto_port.py`` runs them within moto."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

ROLE = "arn:aws:iam::123456789012:role/DataZoneDomainExecution"
USER = "arn:aws:iam::123456789012:role/pipeline"
COLUMNS = {"columns": [{"columnName": "order_id", "dataType": "string"}]}


class Catalog:
    """A domain with a project and an asset."""

    def __init__(self) -> None:
        self.client = boto3.client("datazone", "us-east-1")
        domain = self.client.create_domain(name="d", domainExecutionRole=ROLE, tags={"team": "data"})
        self.domain = {"domainIdentifier": domain["id"]}
        self.project = self.client.create_project(**self.domain, name="p")["id"]
        form = {"formName": "GlueTableForm", "content": json.dumps(COLUMNS)}
        asset = self.client.create_asset(
            **self.domain,
            owningProjectIdentifier=self.project,
            name="orders",
            typeIdentifier="amazon.datazone.GlueTableAssetType",
            formsInput=[form],
        )
        self.asset = {**self.domain, "identifier": asset["id"]}

    def start(self, **parameters: Any) -> dict[str, Any]:
        return self.client.start_metadata_generation_run(  # type: ignore[no-any-return]
            **self.domain,
            owningProjectIdentifier=self.project,
            target={"type": "ASSET", "identifier": self.asset["identifier"]},
            types=["BUSINESS_NAMES", "BUSINESS_DESCRIPTIONS"],
            **parameters,
        )

    def get(self, run: str) -> dict[str, Any]:
        return self.client.get_metadata_generation_run(**self.domain, identifier=run)  # type: ignore[no-any-return]

    def finish(self) -> None:
        run = self.start()["id"]
        while self.get(run)["status"] != "SUCCEEDED":
            pass


def error(info: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = info.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@mock_aws
def test_domain() -> None:
    catalog = Catalog()
    domain = catalog.client.get_domain(identifier=catalog.domain["domainIdentifier"])
    assert domain["tags"] == {"team": "data"}
    assert domain["domainExecutionRole"] == ROLE
    assert [item["id"] for item in catalog.client.list_domains()["items"]] == [domain["id"]]


@mock_aws
def test_unknown_domain() -> None:
    client = boto3.client("datazone", "us-east-1")
    with pytest.raises(ClientError) as info:
        client.get_domain(identifier="dzd-nosuchdomain")
    assert error(info) == ("ResourceNotFoundException", 404)


@mock_aws
def test_project() -> None:
    catalog = Catalog()
    project = catalog.client.get_project(**catalog.domain, identifier=catalog.project)
    assert (project["name"], project["projectStatus"]) == ("p", "ACTIVE")
    listed = catalog.client.list_projects(**catalog.domain)["items"]
    assert [item["id"] for item in listed] == [catalog.project]


@mock_aws
def test_project_membership() -> None:
    catalog = Catalog()
    user = catalog.client.create_user_profile(**catalog.domain, userIdentifier=USER)["id"]
    profile = catalog.client.get_user_profile(**catalog.domain, userIdentifier=user)
    assert (profile["status"], profile["details"]["iam"]["arn"]) == ("ACTIVATED", USER)
    project = {**catalog.domain, "projectIdentifier": catalog.project}
    catalog.client.create_project_membership(
        **project, member={"userIdentifier": user}, designation="PROJECT_CONTRIBUTOR"
    )
    members = catalog.client.list_project_memberships(**project)["members"]
    assert [member["designation"] for member in members] == ["PROJECT_OWNER", "PROJECT_CONTRIBUTOR"]


@mock_aws
def test_asset_revisions() -> None:
    catalog = Catalog()
    revised = catalog.client.create_asset_revision(**catalog.asset, name="orders", description="New")
    assert revised["revision"] == "2"
    assert catalog.client.get_asset(**catalog.asset)["description"] == "New"
    assert "description" not in catalog.client.get_asset(**catalog.asset, revision="1")
    revisions = catalog.client.list_asset_revisions(**catalog.asset)["items"]
    assert [revision["revision"] for revision in revisions] == ["1", "2"]


@mock_aws
def test_search() -> None:
    catalog = Catalog()
    found = catalog.client.search(**catalog.domain, searchScope="ASSET", searchText="order")
    assert found["totalMatchCount"] == 1
    assert found["items"][0]["assetItem"]["identifier"] == catalog.asset["identifier"]


@mock_aws
def test_run() -> None:
    catalog = Catalog()
    run = catalog.start()
    assert run["status"] == "SUBMITTED"
    assert [catalog.get(run["id"])["status"] for _ in range(3)] == ["IN_PROGRESS", "SUCCEEDED", "SUCCEEDED"]
    assert {stat["status"] for stat in catalog.get(run["id"])["typeStats"]} == {"SUCCEEDED"}
    listed = catalog.client.list_metadata_generation_runs(**catalog.domain, status="SUCCEEDED")["items"]
    assert [item["id"] for item in listed] == [run["id"]]


@mock_aws
def test_cancel_run() -> None:
    catalog = Catalog()
    run = catalog.start()["id"]
    catalog.client.cancel_metadata_generation_run(**catalog.domain, identifier=run)
    assert catalog.get(run)["status"] == "CANCELED"
    with pytest.raises(ClientError, match="in CANCELED status cannot be canceled") as info:
        catalog.client.cancel_metadata_generation_run(**catalog.domain, identifier=run)
    assert error(info) == ("ValidationException", 400)


@mock_aws
def test_unknown_run() -> None:
    catalog = Catalog()
    with pytest.raises(ClientError, match="Requested prediction cannot be found in domain") as info:
        catalog.get("nosuchrun")
    assert error(info) == ("ResourceNotFoundException", 404)


@mock_aws
def test_client_token() -> None:
    catalog = Catalog()
    first = catalog.start(clientToken="token")
    assert catalog.start(clientToken="token")["id"] == first["id"]
    assert len(catalog.client.list_metadata_generation_runs(**catalog.domain)["items"]) == 1


@mock_aws
def test_pages() -> None:
    catalog = Catalog()
    runs = [catalog.start()["id"] for _ in range(3)]
    pages = catalog.client.get_paginator("list_metadata_generation_runs").paginate(
        **catalog.domain, PaginationConfig={"PageSize": 2}
    )
    assert [[item["id"] for item in page["items"]] for page in pages] == [runs[:2], runs[2:]]


@mock_aws
def test_accept_predictions() -> None:
    catalog = Catalog()
    catalog.finish()
    accepted = catalog.client.accept_predictions(**catalog.asset, acceptRule={"rule": "ALL"})
    assert accepted["revision"] == "2"
    asset = catalog.client.get_asset(**catalog.asset)
    assert asset["name"] == "Orders"
    assert asset["readOnlyFormsOutput"] == []


@mock_aws
def test_reject_predictions() -> None:
    catalog = Catalog()
    catalog.finish()
    rejected = catalog.client.reject_predictions(**catalog.asset, rejectRule={"rule": "ALL"})
    assert rejected["assetRevision"] == "1"
    assert catalog.client.get_asset(**catalog.asset)["readOnlyFormsOutput"] == []


@mock_aws
def test_listing() -> None:
    catalog = Catalog()
    change = catalog.client.create_listing_change_set(
        **catalog.domain,
        entityIdentifier=catalog.asset["identifier"],
        entityType="ASSET",
        action="PUBLISH",
    )
    assert change["status"] == "CREATING"
    listing = catalog.client.get_listing(**catalog.domain, identifier=change["listingId"])
    assert (listing["name"], listing["status"]) == ("orders", "ACTIVE")
