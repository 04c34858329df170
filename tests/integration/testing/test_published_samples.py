"""The local DataZone responds as in the published samples."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer
from tests.integration.testing.wire import (
    DESCRIPTIONS,
    GLOSSARY,
    NAMES,
    Wire,
    error_of,
    finish,
    get,
    search,
    start,
    with_operators,
)


def test_sample_failed_run_has_an_error_message_for_each_type(wire: Wire, asset: AssetIdentifiers) -> None:
    message = "business name generation has reached monthly quota"
    wire.server.set_run_outcome(statuses="FAILED", error_messages={NAMES: message})
    run = start(wire, asset, types=[NAMES])["id"]
    finish(wire, asset, run)
    assert wire.last["status"] == "FAILED"
    assert wire.last["typeStats"] == [{"type": NAMES, "status": "FAILED", "errorMessage": message}]


def test_sample_get_with_a_type_returns_only_that_type(wire: Wire, asset: AssetIdentifiers) -> None:
    run = start(wire, asset)["id"]
    finish(wire, asset, run)
    get(wire, asset, run, type=DESCRIPTIONS)
    assert wire.last["types"] == [NAMES, DESCRIPTIONS]
    assert wire.last["typeStats"] == [{"type": DESCRIPTIONS, "status": "SUCCEEDED"}]


def test_sample_run_accepts_three_types_although_the_model_allows_two() -> None:
    with DataZoneServer() as server:
        wire, asset = Wire(server), server.create_asset()
        run = start(wire, asset, types=[DESCRIPTIONS, NAMES, GLOSSARY])["id"]
        response = finish(wire, asset, run)
        assert [stat["status"] for stat in response["typeStats"]] == ["SUCCEEDED"] * 3
        assert set(wire.violations) == {
            "StartMetadataGenerationRun: .types: 3 is out of range",
            "GetMetadataGenerationRun: .types: 3 is out of range",
        }


def test_sample_list_is_oldest_first_without_type_stats(wire: Wire, asset: AssetIdentifiers) -> None:
    runs = [start(wire, asset)["id"] for _ in range(3)]
    wire.client.list_metadata_generation_runs(domainIdentifier=asset.domain_identifier)
    assert [item["id"] for item in wire.last["items"]] == runs
    assert all("typeStats" not in item and item["target"]["type"] == "ASSET" for item in wire.last["items"])


def test_sample_asset_has_predictions_by_field_path(wire: Wire, asset: AssetIdentifiers) -> None:
    finish(wire, asset, start(wire, asset, types=[DESCRIPTIONS])["id"])
    wire.client.get_asset(domainIdentifier=asset.domain_identifier, identifier=asset.asset_identifier)
    (form,) = wire.last["readOnlyFormsOutput"]
    assert (form["formName"], form["typeName"]) == ("SuggestionForm", "amazon.datazone.SuggestionFormType")
    assert {entry["fieldPath"] for entry in json.loads(form["content"])["fieldSuggestions"]} == {
        "summary",
        "columns[0].columnDescription",
        "columns[1].columnDescription",
    }


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "PARTIALLY_SUCCEEDED", "CANCELED"])
def test_sample_cancel_of_a_finished_run_raises_a_validation_exception(
    wire: Wire, asset: AssetIdentifiers, status: str
) -> None:
    wire.server.set_run_outcome(status=status)
    run = start(wire, asset)["id"]
    finish(wire, asset, run)
    with pytest.raises(ClientError) as info:
        wire.client.cancel_metadata_generation_run(domainIdentifier=asset.domain_identifier, identifier=run)
    message = f"The MetadataGenerationRun in {status} status cannot be canceled."
    assert error_of(info) == (400, "ValidationException", message)


def test_sample_get_of_an_unknown_run_is_not_found(wire: Wire, asset: AssetIdentifiers) -> None:
    with pytest.raises(ClientError) as info:
        get(wire, asset, "nosuchrun")
    message = "Requested prediction cannot be found in domain"
    assert error_of(info) == (404, "ResourceNotFoundException", message)


def test_sample_start_on_an_unknown_asset_is_not_found(wire: Wire, asset: AssetIdentifiers) -> None:
    with pytest.raises(ClientError) as info:
        start(wire, asset, target={"type": "ASSET", "identifier": "nosuchasset"})
    message = "The given Asset doesn't exist. Try creating Asset before accessing it."
    assert error_of(info) == (404, "ResourceNotFoundException", message)


def test_sample_start_on_an_unsupported_asset_type_raises_a_validation_exception(wire: Wire) -> None:
    asset = wire.server.create_asset(type_identifier="amazon.datazone.S3ObjectCollectionAssetType")
    with pytest.raises(ClientError) as info:
        start(wire, asset)
    message = "Metadata Descriptions Generation is not supported for input asset type"
    assert error_of(info) == (400, "ValidationException", message)


def test_start_for_a_project_that_does_not_own_the_asset_is_denied(
    wire: Wire, asset: AssetIdentifiers
) -> None:
    other = wire.client.create_project(domainIdentifier=asset.domain_identifier, name="other")["id"]
    with pytest.raises(ClientError) as info:
        start(wire, asset, owningProjectIdentifier=other)
    assert error_of(info)[:2] == (403, "AccessDeniedException")


@pytest.mark.parametrize(
    "change", [{"domainIdentifier": "dzd-unknown"}, {"owningProjectIdentifier": "unknown"}]
)
def test_start_in_an_unknown_domain_or_project_is_not_found(
    wire: Wire, asset: AssetIdentifiers, change: dict[str, str]
) -> None:
    with pytest.raises(ClientError) as info:
        start(wire, asset, **change)
    assert error_of(info)[:2] == (404, "ResourceNotFoundException")


def test_sample_search_returns_summaries_and_their_count(wire: Wire, asset: AssetIdentifiers) -> None:
    of_domain = {
        "domain_identifier": asset.domain_identifier,
        "project_identifier": asset.project_identifier,
    }
    wire.server.create_asset("blab", **of_domain)
    wire.server.create_asset("other", description="blab", **of_domain)
    search(
        wire,
        asset,
        searchIn=[{"attribute": "name"}],
        searchText='"blab"',
        owningProjectIdentifier=asset.project_identifier,
    )
    (item,) = wire.last["items"]
    assert set(item["assetItem"]) == {
        "createdAt",
        "createdBy",
        "domainId",
        "firstRevisionCreatedAt",
        "firstRevisionCreatedBy",
        "identifier",
        "name",
        "owningProjectId",
        "typeIdentifier",
        "typeRevision",
    }
    assert item["assetItem"]["name"] == "blab"
    assert wire.last["totalMatchCount"] == 1


@with_operators
def test_sample_search_finds_numbers_between_two_bounds(wire: Wire, asset: AssetIdentifiers) -> None:
    form = {"formName": "MyCustomForm", "typeIdentifier": "MyCustomForm"}
    for number in (2, 3, 5):
        wire.client.create_asset(
            domainIdentifier=asset.domain_identifier,
            owningProjectIdentifier=asset.project_identifier,
            name=f"t{number}",
            typeIdentifier="amazon.datazone.S3ObjectCollectionAssetType",
            formsInput=[{**form, "content": json.dumps({"numericAttribute": number})}],
        )
    attribute = "MyCustomForm.numericAttribute"
    bounds = [
        {"filter": {"attribute": attribute, "intValue": 5, "operator": "LT"}},
        {"filter": {"attribute": attribute, "intValue": 2, "operator": "GT"}},
    ]
    search(wire, asset, filters={"and": bounds})
    assert [item["assetItem"]["name"] for item in wire.last["items"]] == ["t3"]


@with_operators
def test_sample_search_matches_text_in_two_attributes(wire: Wire, asset: AssetIdentifiers) -> None:
    form = {"formName": "MyCustomForm", "typeIdentifier": "MyCustomForm"}
    for name, content in {
        "both": {"attr1": "a rat", "attr2": "A study, reproductive"},
        "one": {"attr1": "a rat", "attr2": "A study"},
    }.items():
        wire.client.create_asset(
            domainIdentifier=asset.domain_identifier,
            owningProjectIdentifier=asset.project_identifier,
            name=name,
            typeIdentifier="amazon.datazone.S3ObjectCollectionAssetType",
            formsInput=[{**form, "content": json.dumps(content)}],
        )
    clauses = [
        {"filter": {"attribute": "MyCustomForm.attr1", "value": "rat", "operator": "TEXT_SEARCH"}},
        {
            "filter": {
                "attribute": "MyCustomForm.attr2",
                "value": "reproductive study",
                "operator": "TEXT_SEARCH",
            }
        },
    ]
    search(wire, asset, filters={"and": clauses})
    assert [item["assetItem"]["name"] for item in wire.last["items"]] == ["both"]


@with_operators
def test_sample_search_finds_assets_updated_since_a_time(wire: Wire, asset: AssetIdentifiers) -> None:
    created = search(wire, asset)["items"][0]["assetItem"]["createdAt"].timestamp() * 1000
    since = {"attribute": "lastUpdatedAt", "operator": "GE"}
    for milliseconds, count in ((round(created), 1), (round(created) + 1, 0)):
        search(wire, asset, filters={"filter": {**since, "intValue": milliseconds}})
        assert wire.last["totalMatchCount"] == count
