"""The responses of the local DataZone follow botocore's service model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer
from tests.integration.testing.wire import (
    DESCRIPTIONS,
    GLOSSARY,
    NAMES,
    OPERATIONS,
    PUBLISHED_ERRORS,
    ROLE,
    Wire,
    error_of,
    finish,
    get,
    search,
    start,
)


def test_every_response_follows_the_service_model(wire: Wire) -> None:
    client = wire.client
    domain = client.create_domain(
        name="all of it",
        description="every member",
        domainExecutionRole=ROLE,
        serviceRole=ROLE,
        domainVersion="V2",
        singleSignOn={"type": "IAM_IDC", "userAssignment": "AUTOMATIC"},
        tags={"team": "data"},
        kmsKeyIdentifier="arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012",
    )["id"]
    client.create_domain(name="the least", domainExecutionRole=ROLE)
    client.get_domain(identifier=domain)
    token = client.list_domains(maxResults=1, status="AVAILABLE")["nextToken"]
    assert "nextToken" not in client.list_domains(nextToken=token, status="AVAILABLE")
    use_projects(client, domain)
    project = client.create_project(domainIdentifier=domain, name="sales", description="Who sells")["id"]
    form = {
        "formName": "GlueTableForm",
        "typeIdentifier": "amazon.datazone.GlueTableFormType",
        "typeRevision": "7",
        "content": json.dumps({"columns": [{"columnName": "id", "dataType": "bigint"}]}),
    }
    asset = client.create_asset(
        domainIdentifier=domain,
        owningProjectIdentifier=project,
        name="orders",
        description="What was ordered",
        typeIdentifier="amazon.datazone.GlueTableAssetType",
        typeRevision="3",
        externalIdentifier="arn:aws:glue:us-east-1:123456789012:table/shop/orders",
        glossaryTerms=["term1"],
        formsInput=[form],
    )["id"]
    identifiers = AssetIdentifiers(domain, project, asset)
    of_asset = {"domainIdentifier": domain, "identifier": asset}
    client.get_asset(**of_asset)
    wire.server.set_run_outcome(
        statuses={NAMES: "FAILED"},
        error_messages={NAMES: "business name generation has reached monthly quota"},
    )
    target = {"type": "ASSET", "identifier": asset, "revision": "1"}
    run = start(wire, identifiers, types=[NAMES, DESCRIPTIONS], target=target)["id"]
    for _ in range(3):
        get(wire, identifiers, run)
    get(wire, identifiers, run, type=NAMES)
    other = start(wire, identifiers, types=[NAMES])["id"]
    client.list_metadata_generation_runs(domainIdentifier=domain, maxResults=1)
    client.cancel_metadata_generation_run(domainIdentifier=domain, identifier=other)
    get(wire, identifiers, other)
    client.list_metadata_generation_runs(domainIdentifier=domain)
    client.get_asset(**of_asset)
    choice = {"predictionTarget": "columns[0].columnDescription", "editedValue": "The order's number"}
    assert client.accept_predictions(**of_asset, acceptChoices=[choice])["revision"] == "2"
    client.reject_predictions(**of_asset, rejectRule={"rule": "ALL", "threshold": 0.5})
    listing = client.create_listing_change_set(
        domainIdentifier=domain,
        entityIdentifier=asset,
        entityType="ASSET",
        entityRevision="2",
        action="PUBLISH",
    )["listingId"]
    assert client.get_listing(domainIdentifier=domain, identifier=listing)["status"] == "ACTIVE"
    client.get_asset(**of_asset)
    client.get_asset(**of_asset, revision="1")
    start(wire, identifiers, types=[DESCRIPTIONS])
    client.create_asset(
        domainIdentifier=domain,
        owningProjectIdentifier=project,
        name="the least",
        typeIdentifier="amazon.datazone.GlueTableAssetType",
    )
    search = {"domainIdentifier": domain, "searchScope": "ASSET"}
    everything = ["FORMS", "TIME_SERIES_DATA_POINT_FORMS", "TEXT_MATCH_RATIONALE"]
    token = client.search(**search, additionalAttributes=everything, maxResults=1)["nextToken"]
    client.search(**search, nextToken=token)
    client.search(**search, searchText="nothing like it")
    client.search(domainIdentifier=domain, searchScope="GLOSSARY_TERM")
    client.create_asset_revision(**of_asset, name="orders", description="What was ordered", formsInput=[form])
    client.list_asset_revisions(**of_asset, maxResults=1)
    assert {operation.name for operation, _ in wire.responses} == OPERATIONS
    assert wire.violations == []


def use_projects(client: Any, domain: str) -> None:
    """Call the operations on projects and users with every member."""
    in_domain = {"domainIdentifier": domain}
    user = client.create_user_profile(
        **in_domain, userIdentifier="arn:aws:iam::123456789012:role/steward", userType="IAM_ROLE"
    )["id"]
    client.create_user_profile(**in_domain, userIdentifier="sam@example.com", userType="SSO_USER")
    client.get_user_profile(**in_domain, userIdentifier="sam@example.com", type="SSO")
    project = client.create_project(
        **in_domain,
        name="everything",
        description="every member",
        resourceTags={"team": "data"},
        glossaryTerms=["term1"],
        domainUnitId="unit1",
        projectProfileId="profile1",
        userParameters=[{"environmentConfigurationName": "tools"}],
    )["id"]
    client.get_project(**in_domain, identifier=project)
    membership = {**in_domain, "projectIdentifier": project}
    client.create_project_membership(
        **membership, member={"userIdentifier": user}, designation="PROJECT_CONTRIBUTOR"
    )
    token = client.list_project_memberships(**membership, sortBy="NAME", maxResults=1)["nextToken"]
    client.list_project_memberships(**membership, sortBy="NAME", nextToken=token)
    client.list_projects(**in_domain, userIdentifier=user, name="everything")


def test_violation_of_the_service_model_is_detected() -> None:
    with DataZoneServer() as server:
        wire = Wire(server)
        asset = server.create_asset()
        server.set_run_outcome(asset.asset_identifier, status="PAUSED", polls=1)
        get(wire, asset, start(wire, asset)["id"])
        status_shape = wire.client.meta.service_model.shape_for("MetadataGenerationRunStatus")
        published = status_shape.metadata["enum"]
        assert wire.violations == [f"GetMetadataGenerationRun: .status: 'PAUSED' is not one of {published}"]


def test_start_response_has_no_target_and_no_type_stats(wire: Wire, asset: AssetIdentifiers) -> None:
    start(wire, asset, types=[NAMES, DESCRIPTIONS])
    response = wire.last
    assert set(response) == {"domainId", "id", "status", "types", "createdAt", "createdBy", "owningProjectId"}
    assert response["status"] == "SUBMITTED"
    assert response["types"] == [NAMES, DESCRIPTIONS]


def test_response_has_the_deprecated_type_for_a_single_type(wire: Wire, asset: AssetIdentifiers) -> None:
    run = start(wire, asset, types=[NAMES])["id"]
    assert wire.last["type"] == NAMES
    get(wire, asset, run)
    assert wire.last["type"] == NAMES


def test_start_accepts_the_deprecated_type(wire: Wire, asset: AssetIdentifiers) -> None:
    response = wire.client.start_metadata_generation_run(
        domainIdentifier=asset.domain_identifier,
        owningProjectIdentifier=asset.project_identifier,
        target={"type": "ASSET", "identifier": asset.asset_identifier},
        type=DESCRIPTIONS,
    )
    assert response["types"] == [DESCRIPTIONS]


ID_PATTERN = "satisfy regular expression pattern: [a-zA-Z0-9_-]{1,36}"
TYPES = f"satisfy enum value set: [{DESCRIPTIONS}, {NAMES}, {GLOSSARY}]"


@pytest.mark.parametrize(
    ("operation", "change", "value", "constraint"),
    [
        ("start", {"types": ["DESCRIPTIONS"]}, "Value 'DESCRIPTIONS' at 'types.1.member'", TYPES),
        ("start", {"types": [NAMES] * 4}, "at 'types'", "have length less than or equal to 3"),
        ("start", {"clientToken": "a b"}, "Value 'a b' at 'clientToken'", r"pattern: [\x21-\x7E]+"),
        ("start", {"clientToken": "x" * 129}, "at 'clientToken'", "have length less than or equal to 128"),
        ("start", {"owningProjectIdentifier": "a b"}, "Value 'a b' at 'owningProjectIdentifier'", ID_PATTERN),
        ("start", {"target": {"type": "X", "identifier": "x"}}, "Value 'X' at 'target.type'", "set: [ASSET]"),
        ("start", {"domainIdentifier": "mine"}, "Value 'mine' at 'domainIdentifier'", "pattern: dzd[-_]"),
        ("get", {"type": "NAMES"}, "Value 'NAMES' at 'type'", TYPES),
        ("get", {"identifier": "a.b"}, "Value 'a.b' at 'identifier'", ID_PATTERN),
        ("list", {"status": "DONE"}, "Value 'DONE' at 'status'", "satisfy enum value set: ["),
        ("list", {"maxResults": 51}, "Value '51' at 'maxResults'", "have value less than or equal to 50"),
        ("accept", {"acceptRule": {"rule": "SOME"}}, "Value 'SOME' at 'acceptRule.rule'", "set: [ALL, NONE]"),
        ("accept", {"acceptRule": {"threshold": 1.5}}, "Value '1.5' at 'acceptRule.threshold'", "equal to 1"),
        ("reject", {"rejectRule": {"threshold": -1}}, "at 'rejectRule.threshold'", "or equal to 0"),
        ("search", {"searchScope": "INVALID"}, "Value 'INVALID' at 'searchScope'", "enum value set: ["),
        ("search", {"maxResults": 51}, "Value '51' at 'maxResults'", "have value less than or equal to 50"),
        ("search", {"searchText": "x" * 513}, "at 'searchText'", "have length less than or equal to 512"),
        ("search", {"sort": {"attribute": "name", "order": "UP"}}, "Value 'UP' at 'sort.order'", "ASCENDING"),
        ("search", {"additionalAttributes": ["X"]}, "at 'additionalAttributes.1.member'", "set: [FORMS, "),
        (
            "search",
            {"filters": {"and": [{"filter": {"attribute": "a", "value": "x" * 129}}]}},
            "at 'filters.and.1.member.filter.value'",
            "have length less than or equal to 128",
        ),
    ],
)
def test_invalid_input_raises_a_validation_exception(
    wire: Wire,
    asset: AssetIdentifiers,
    operation: str,
    change: dict[str, Any],
    value: str,
    constraint: str,
) -> None:
    domain = {"domainIdentifier": asset.domain_identifier}
    of_asset = {**domain, "identifier": asset.asset_identifier}
    calls: dict[str, Any] = {
        "start": lambda **kwargs: start(wire, asset, **kwargs),
        "get": lambda **kwargs: wire.client.get_metadata_generation_run(
            **{**domain, "identifier": "x", **kwargs}
        ),
        "list": lambda **kwargs: wire.client.list_metadata_generation_runs(**{**domain, **kwargs}),
        "accept": lambda **kwargs: wire.client.accept_predictions(**of_asset, **kwargs),
        "reject": lambda **kwargs: wire.client.reject_predictions(**of_asset, **kwargs),
        "search": lambda **kwargs: search(wire, asset, **kwargs),
    }
    with pytest.raises(ClientError) as info:
        calls[operation](**change)
    status, code, message = error_of(info)
    # Older service models anchor their patterns.
    message = message.replace("pattern: ^", "pattern: ")
    assert (status, code) == (400, "ValidationException")
    assert message.startswith("1 validation error detected: ")
    assert f"{value} failed to satisfy constraint: Member must " in message
    assert constraint in message


def test_validation_exception_lists_several_violations(wire: Wire, asset: AssetIdentifiers) -> None:
    with pytest.raises(ClientError) as info:
        start(wire, asset, types=["X"], clientToken="a b")
    assert error_of(info)[2].startswith("2 validation errors detected: ")


def test_unknown_next_token_raises_a_validation_exception(wire: Wire, asset: AssetIdentifiers) -> None:
    with pytest.raises(ClientError) as info:
        wire.client.list_metadata_generation_runs(
            domainIdentifier=asset.domain_identifier, nextToken="nonsense"
        )
    assert error_of(info) == (400, "ValidationException", "Invalid nextToken")


@pytest.mark.parametrize("operation", ["accept_predictions", "reject_predictions"])
def test_predictions_require_a_rule_or_choices(wire: Wire, asset: AssetIdentifiers, operation: str) -> None:
    with pytest.raises(ClientError) as info:
        getattr(wire.client, operation)(
            domainIdentifier=asset.domain_identifier, identifier=asset.asset_identifier
        )
    message = "A rule or at least one choice is required"
    assert error_of(info) == (400, "ValidationException", message)


def test_start_without_types_raises_a_validation_exception(wire: Wire, asset: AssetIdentifiers) -> None:
    with pytest.raises(ClientError) as info:
        wire.client.start_metadata_generation_run(
            domainIdentifier=asset.domain_identifier,
            owningProjectIdentifier=asset.project_identifier,
            target={"type": "ASSET", "identifier": asset.asset_identifier},
        )
    assert error_of(info)[:2] == (400, "ValidationException")


def test_error_does_not_contain_the_edited_value(wire: Wire, asset: AssetIdentifiers) -> None:
    finish(wire, asset, start(wire, asset)["id"])
    for target, value in (("summary", "confidential" * 500), ("nosuchtarget", "confidential")):
        choice = {"predictionTarget": target, "editedValue": value}
        with pytest.raises(ClientError) as info:
            wire.client.accept_predictions(
                domainIdentifier=asset.domain_identifier,
                identifier=asset.asset_identifier,
                acceptChoices=[choice],
            )
        assert error_of(info)[1] == "ValidationException"
        assert "confidential" not in wire.responses[-1][1]["body"].decode()


@pytest.mark.parametrize("code", sorted(PUBLISHED_ERRORS))
def test_each_error_has_its_published_http_status(wire: Wire, asset: AssetIdentifiers, code: str) -> None:
    # StartMetadataGenerationRun is the only operation that declares all errors.
    wire.server.fail("StartMetadataGenerationRun", code, message="as asked for", times=None)
    with pytest.raises(ClientError) as info:
        start(wire, asset)
    assert error_of(info) == (PUBLISHED_ERRORS[code], code, "as asked for")
    assert type(info.value) is getattr(wire.client.exceptions, code)


def test_runs_are_listed_in_pages_of_fifty(wire: Wire, asset: AssetIdentifiers) -> None:
    runs = [start(wire, asset, clientToken=f"run-{number}")["id"] for number in range(101)]
    paginator = wire.client.get_paginator("list_metadata_generation_runs")
    pages = list(paginator.paginate(domainIdentifier=asset.domain_identifier))
    assert [len(page["items"]) for page in pages] == [50, 50, 1]
    assert [item["id"] for page in pages for item in page["items"]] == runs


def test_full_last_page_has_no_next_token(wire: Wire, asset: AssetIdentifiers) -> None:
    for _ in range(2):
        start(wire, asset)
    response = wire.client.list_metadata_generation_runs(
        domainIdentifier=asset.domain_identifier, maxResults=2
    )
    assert len(response["items"]) == 2
    assert "nextToken" not in response
