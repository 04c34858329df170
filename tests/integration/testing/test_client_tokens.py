"""Client tokens: a request that is sent again has no further effect."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from moto.core.utils import get_service_model

from airflow_provider_datazone.testing import AssetIdentifiers
from tests.integration.testing.wire import (
    DESCRIPTIONS,
    NAMES,
    OPERATIONS,
    ROLE,
    Wire,
    error_of,
    finish,
    start,
)

USER = "arn:aws:iam::123456789012:user/one"
MODEL = get_service_model("datazone")
WITH_TOKENS = sorted(
    name for name in OPERATIONS if "clientToken" in MODEL.operation_model(name).input_shape.members
)


@pytest.fixture
def asset(wire: Wire) -> AssetIdentifiers:
    """Create an asset with predictions."""
    asset = wire.server.create_asset()
    finish(wire, asset, start(wire, asset, types=[NAMES, DESCRIPTIONS])["id"])
    return asset


def parameters(asset: AssetIdentifiers, operation: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of a request, and what another request changes."""
    domain, project, identifier = asset
    in_domain = {"domainIdentifier": domain}
    of_asset = {**in_domain, "identifier": identifier}
    target = {"type": "ASSET", "identifier": identifier}
    in_project = {**in_domain, "owningProjectIdentifier": project}
    glue = {"typeIdentifier": "amazon.datazone.GlueTableAssetType"}
    publish = {**in_domain, "entityIdentifier": identifier, "entityType": "ASSET", "action": "PUBLISH"}
    summary = [{"predictionTarget": "summary"}]
    # Other requests name assets that do not exist, so that a conflict shows that the token is checked first.
    other = {"identifier": "nosuchasset"}
    return {
        "AcceptPredictions": ({**of_asset, "acceptChoices": summary}, other),
        "CreateAsset": ({**in_project, **glue, "name": "new"}, {"name": "other"}),
        "CreateAssetRevision": ({**of_asset, "name": "new"}, other),
        "CreateDomain": ({"name": "new", "domainExecutionRole": ROLE}, {"name": "other"}),
        "CreateListingChangeSet": (publish, {"entityIdentifier": "nosuchasset"}),
        "CreateUserProfile": ({**in_domain, "userIdentifier": USER}, {"userIdentifier": f"{USER}-2"}),
        "RejectPredictions": ({**of_asset, "rejectChoices": summary}, other),
        "StartMetadataGenerationRun": (
            {**in_project, "target": target, "types": [NAMES]},
            {"types": [DESCRIPTIONS]},
        ),
    }[operation]


def state(wire: Wire, asset: AssetIdentifiers) -> list[Any]:
    """Return everything that the operations change."""
    client, in_domain = wire.client, {"domainIdentifier": asset.domain_identifier}
    of_asset = {**in_domain, "identifier": asset.asset_identifier}
    current = client.get_asset(**of_asset)
    assets = client.search(**in_domain, searchScope="ASSET")
    return [
        [domain["id"] for domain in client.list_domains()["items"]],
        [item["assetItem"]["identifier"] for item in assets["items"]],
        [revision["revision"] for revision in client.list_asset_revisions(**of_asset)["items"]],
        [run["id"] for run in client.list_metadata_generation_runs(**in_domain)["items"]],
        current["readOnlyFormsOutput"],
        current.get("listing"),
    ]


@pytest.mark.parametrize("operation", WITH_TOKENS)
def test_request_with_the_same_token_has_one_effect_and_the_same_response(
    wire: Wire, asset: AssetIdentifiers, operation: str
) -> None:
    request, _ = parameters(asset, operation)
    call = getattr(wire.client, xform_name(operation))
    before = state(wire, asset)
    call(**request, clientToken="token-1")
    first, after = wire.last, state(wire, asset)
    if operation != "CreateUserProfile":
        assert after != before
    call(**request, clientToken="token-1")
    second = wire.last
    if operation == "StartMetadataGenerationRun":
        # The run itself advances.
        first["status"] = second["status"]
    assert second == first
    assert state(wire, asset) == after


@pytest.mark.parametrize("operation", WITH_TOKENS)
def test_another_request_with_the_same_token_is_a_conflict(
    wire: Wire, asset: AssetIdentifiers, operation: str
) -> None:
    request, change = parameters(asset, operation)
    call = getattr(wire.client, xform_name(operation))
    call(**request, clientToken="token-1")
    after = state(wire, asset)
    with pytest.raises(ClientError) as info:
        call(**request | change, clientToken="token-1")
    declared = {shape.name for shape in MODEL.operation_model(operation).error_shapes}
    conflict = (409, "ConflictException") if "ConflictException" in declared else (400, "ValidationException")
    message = "The clientToken belongs to a request with other parameters"
    assert error_of(info) == (*conflict, message)
    assert state(wire, asset) == after


@pytest.mark.parametrize("operation", WITH_TOKENS)
def test_failed_request_does_not_use_up_its_token(
    wire: Wire, asset: AssetIdentifiers, operation: str
) -> None:
    request, _ = parameters(asset, operation)
    call = getattr(wire.client, xform_name(operation))
    invalid = (
        {"domainExecutionRole": "x"}
        if operation == "CreateDomain"
        else {"domainIdentifier": "dzd-nosuchdomain"}
    )
    with pytest.raises(ClientError):
        call(**request | invalid, clientToken="token-1")
    call(**request, clientToken="token-1")


def test_token_is_valid_for_one_operation_and_one_domain(wire: Wire, asset: AssetIdentifiers) -> None:
    other = wire.server.create_asset()
    token = {"clientToken": "token-1"}
    for domain, _, identifier in (asset, other):
        of_asset = {"domainIdentifier": domain, "identifier": identifier}
        # A token that is valid for both would be a conflict.
        wire.client.create_asset_revision(**of_asset, **token, name="new")
        publish = {"domainIdentifier": domain, "entityType": "ASSET", "action": "PUBLISH"}
        wire.client.create_listing_change_set(**publish, **token, entityIdentifier=identifier)
