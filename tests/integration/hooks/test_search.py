"""The hook searches for assets, page by page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from moto.core.responses import ActionResult

from airflow_provider_datazone.exceptions import MalformedResponseError
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.service_errors import is_permanent, is_transient
from airflow_provider_datazone.testing.backend import models
from airflow_provider_datazone.testing.backend.responses import DataZoneResponse
from tests.integration.hooks.conftest import NO_RETRIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Catalog


class Inventory:
    """The assets of two projects of a domain."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.domain = catalog.domain_identifier
        self.other_project = catalog.server.create_asset("theirs", domain_identifier=self.domain)[1]

    def add(self, *names: str, description: str | None = None) -> None:
        for name in names:
            self.catalog.server.create_asset(
                name,
                description=description,
                domain_identifier=self.domain,
                project_identifier=self.catalog.project_identifier,
            )


@pytest.fixture
def inventory(catalog: Catalog) -> Inventory:
    """Return an inventory with the assets `orders` and `theirs`, to which a test adds more."""
    return Inventory(catalog)


def names(assets: Iterator[dict[str, Any]]) -> list[str]:
    return [asset["name"] for asset in assets]


def test_search_requests_pages_lazily(hook: DataZoneHook, inventory: Inventory):
    inventory.add("a", "b", "c", "d", "e")
    assets = hook.search_assets(domain_identifier=inventory.domain, page_size=3)
    assert inventory.catalog.server.request_counts["Search"] == 0
    first = next(assets)
    assert inventory.catalog.server.request_counts["Search"] == 1
    assert [first["name"], *names(assets)] == ["orders", "theirs", "a", "b", "c", "d", "e"]
    assert inventory.catalog.server.request_counts["Search"] == 3


def test_search_returns_asset_items_unchanged(hook: DataZoneHook, inventory: Inventory):
    inventory.add("described", description="What it is")
    found = hook.search_assets(domain_identifier=inventory.domain, search_text="described")
    (item,) = inventory.catalog.server.client().search(
        domainIdentifier=inventory.domain, searchScope="ASSET", searchText="described"
    )["items"]
    assert list(found) == [item["assetItem"]]
    assert item["assetItem"]["description"] == "What it is"


def test_search_sends_all_arguments(hook: DataZoneHook, inventory: Inventory):
    inventory.add("b", "a", description="wanted")
    inventory.add("c")
    filters = {"and": [{"filter": {"attribute": "description", "value": "wanted"}}]}
    found = list(
        hook.search_assets(
            domain_identifier=inventory.domain,
            owning_project_identifier=inventory.catalog.project_identifier,
            search_text="want",
            filters=filters,
            sort={"attribute": "name", "order": "ASCENDING"},
            additional_attributes=["FORMS"],
            page_size=7,
        )
    )
    assert [asset["name"] for asset in found] == ["a", "b"]
    (form,) = found[0]["additionalAttributes"]["formsOutput"]
    assert form["formName"] == "GlueTableForm"
    assert inventory.catalog.server.requests[-1].parameters == {
        "domainIdentifier": inventory.domain,
        "searchScope": "ASSET",
        "owningProjectIdentifier": inventory.catalog.project_identifier,
        "searchText": "want",
        "filters": filters,
        "sort": {"attribute": "name", "order": "ASCENDING"},
        "additionalAttributes": ["FORMS"],
        "maxResults": 7,
    }


def test_search_uses_the_domain_of_the_connection_but_not_its_project(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
):
    connection = json.loads(inventory.catalog.server.connection)
    connection["extra"] |= {
        "domain_identifier": inventory.domain,
        "owning_project_identifier": inventory.other_project,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_FULL", json.dumps(connection))
    hook = DataZoneHook("datazone_full", config=NO_RETRIES)
    assert names(hook.search_assets()) == ["orders", "theirs"]
    assert names(hook.search_assets(owning_project_identifier=inventory.other_project)) == ["theirs"]


def test_search_without_a_domain_raises_before_iteration(hook: DataZoneHook):
    with pytest.raises(ValueError, match="domain_identifier"):
        hook.search_assets()


def test_denied_search_raises_an_error_that_describes_the_request(hook: DataZoneHook, inventory: Inventory):
    inventory.catalog.server.fail("Search", "AccessDeniedException", message="you may not")
    with pytest.raises(ClientError) as refused:
        list(hook.search_assets(domain_identifier=inventory.domain))
    message = str(refused.value)
    for part in ("you may not", "searching for assets", inventory.domain, "us-east-1", "datazone_default"):
        assert part in message
    assert is_permanent(refused.value)


def test_search_yields_pages_before_the_page_that_fails(hook: DataZoneHook, inventory: Inventory):
    assets = hook.search_assets(domain_identifier=inventory.domain, page_size=1)
    assert next(assets)["name"] == "orders"
    inventory.catalog.server.fail("Search", "ThrottlingException")
    with pytest.raises(ClientError, match="Rate exceeded") as throttled:
        next(assets)
    assert is_transient(throttled.value)


def test_malformed_search_response_raises_an_error(hook: DataZoneHook, inventory: Inventory):
    inventory.catalog.server.fail("Search", "malformed")
    with pytest.raises(MalformedResponseError, match="items"):
        list(hook.search_assets(domain_identifier=inventory.domain))
    assert names(hook.search_assets(domain_identifier=inventory.domain)) == ["orders", "theirs"]


def test_search_result_that_is_not_an_asset_raises_an_error(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    glossary = {"domainId": "dzd-1", "id": "g1", "name": "g", "owningProjectId": "p1", "status": "ENABLED"}
    response = ActionResult({"items": [{"glossaryItem": glossary}]})
    monkeypatch.setattr(DataZoneResponse, "search", lambda self: response)
    with pytest.raises(MalformedResponseError, match="not an asset"):
        list(hook.search_assets(domain_identifier=catalog.domain_identifier))


@pytest.mark.parametrize("method", ["list_metadata_generation_runs", "search_assets"])
def test_repeated_page_ends_the_iteration_with_an_error(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, method: str
):
    monkeypatch.setattr(models, "page", lambda *arguments: ([], "again"))
    with pytest.raises(MalformedResponseError, match="the same page again"):
        list(getattr(hook, method)(domain_identifier=catalog.domain_identifier))
