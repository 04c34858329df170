"""The local DataZone searches assets."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
)

from airflow_provider_datazone.testing import (
    DataZoneControls,
    DataZoneServer,
    Request,
)
from airflow_provider_datazone.testing.backend import assets, search
from tests.integration.testing.clients import DESCRIPTIONS, NAMES, client_without_retries
from tests.integration.testing.wire import with_operators


class Inventory:
    """Creates and searches the assets of a project through boto3."""

    def __init__(self, datazone: DataZoneControls) -> None:
        self.datazone = datazone
        self.client = datazone.client()
        role = "arn:aws:iam::123456789012:role/DataZoneDomainExecution"
        self.domain = self.client.create_domain(name="local", domainExecutionRole=role)["id"]
        self.project = self.client.create_project(domainIdentifier=self.domain, name="local")["id"]

    def add(self, name: str, **kwargs: Any) -> str:
        asset = self.client.create_asset(
            **{
                "domainIdentifier": self.domain,
                "owningProjectIdentifier": self.project,
                "typeIdentifier": "amazon.datazone.GlueTableAssetType",
                **kwargs,
            },
            name=name,
        )
        return str(asset["id"])

    def page(self, **kwargs: Any) -> Any:
        return self.client.search(domainIdentifier=self.domain, **{"searchScope": "ASSET", **kwargs})

    def search(self, **kwargs: Any) -> list[Any]:
        pages = self.client.get_paginator("search").paginate(
            domainIdentifier=self.domain, searchScope="ASSET", **kwargs
        )
        return [item["assetItem"] for page in pages for item in page["items"]]

    def names(self, **kwargs: Any) -> list[str]:
        return [item["name"] for item in self.search(**kwargs)]

    def filtered(self, attribute: str, value: str | int, operator: str | None = None) -> list[str]:
        operand = {"value" if isinstance(value, str) else "intValue": value}
        comparison = {} if operator is None else {"operator": operator}
        return self.names(filters={"filter": {"attribute": attribute, **operand, **comparison}})

    def get(self, asset: str) -> Any:
        return self.client.get_asset(domainIdentifier=self.domain, identifier=asset)

    def generate(self, asset: str, *types: str) -> None:
        self.datazone.set_run_outcome(asset, polls=0)
        self.client.start_metadata_generation_run(
            domainIdentifier=self.domain,
            owningProjectIdentifier=self.project,
            target={"type": "ASSET", "identifier": asset},
            types=list(types),
        )

    def accept(self, asset: str) -> None:
        self.client.accept_predictions(
            domainIdentifier=self.domain, identifier=asset, acceptRule={"rule": "ALL"}
        )


def form(name: str, **content: Any) -> dict[str, str]:
    return {"formName": name, "typeIdentifier": f"{name}Type", "content": json.dumps(content)}


@pytest.fixture
def inventory(server: DataZoneServer) -> Inventory:
    return Inventory(server)


class TestSearch:
    def test_search_returns_all_assets_of_the_domain_oldest_first(self, datazone: DataZoneControls) -> None:
        inventory = Inventory(datazone)
        for name in ("b", "a", "c"):
            inventory.add(name)
        datazone.create_asset("elsewhere")
        response = inventory.page()
        assert [item["assetItem"]["name"] for item in response["items"]] == ["b", "a", "c"]
        assert response["totalMatchCount"] == 3
        assert "nextToken" not in response

    def test_search_is_limited_to_the_assets_of_a_project(self, inventory: Inventory) -> None:
        other = inventory.client.create_project(domainIdentifier=inventory.domain, name="other")["id"]
        inventory.add("ours")
        inventory.add("theirs", owningProjectIdentifier=other)
        assert inventory.names(owningProjectIdentifier=other) == ["theirs"]
        assert inventory.names(owningProjectIdentifier="nobody") == []

    def test_search_returns_the_same_members_as_get_asset(self, inventory: Inventory) -> None:
        asset = inventory.add(
            "orders",
            description="What was ordered",
            externalIdentifier="arn:orders",
            glossaryTerms=["term1"],
            formsInput=[form("GlueTableForm", columns=[{"columnName": "id"}])],
        )
        inventory.generate(asset, NAMES)
        inventory.accept(asset)
        inventory.generate(asset, DESCRIPTIONS)
        asset_output = inventory.get(asset)
        forms = {name: asset_output.pop(name) for name in ("formsOutput", "readOnlyFormsOutput")}
        expected = {
            name: asset_output[name]
            for name in asset_output
            if name not in ("id", "revision", "ResponseMetadata")
        }
        assert inventory.search() == [{**expected, "identifier": asset}]
        assert inventory.search(additionalAttributes=["FORMS"])[0]["additionalAttributes"] == forms
        assert len(forms["readOnlyFormsOutput"]) == 1, "suggestions of the second run"

    def test_search_returns_predictions_as_soon_as_the_run_succeeds(
        self, inventory: Inventory, clock: Callable[[float], None]
    ) -> None:
        asset = inventory.datazone.create_asset(
            domain_identifier=inventory.domain, project_identifier=inventory.project
        ).asset_identifier

        def suggested() -> list[Any]:
            (item,) = inventory.search(additionalAttributes=["FORMS"])
            return list(item["additionalAttributes"]["readOnlyFormsOutput"])

        inventory.datazone.set_run_outcome(in_progress_seconds=5)
        inventory.client.start_metadata_generation_run(
            domainIdentifier=inventory.domain,
            owningProjectIdentifier=inventory.project,
            target={"type": "ASSET", "identifier": asset},
            types=[DESCRIPTIONS],
        )
        assert suggested() == []
        clock(5)
        assert suggested() == inventory.get(asset)["readOnlyFormsOutput"] != []

    def test_description_is_in_the_member_it_was_written_to(self, inventory: Inventory) -> None:
        inventory.datazone.create_asset(
            "described",
            domain_identifier=inventory.domain,
            project_identifier=inventory.project,
            description="By hand",
        )
        bare = inventory.add("bare")
        generated = inventory.add("generated")
        inventory.generate(generated, DESCRIPTIONS)
        inventory.accept(generated)
        items = {item["name"]: item for item in inventory.search(additionalAttributes=["FORMS"])}
        assert items["described"]["description"] == "By hand"
        assert "description" not in items["bare"]
        assert "description" not in inventory.get(bare)
        assert "description" not in items["generated"]
        (summary,) = items["generated"]["additionalAttributes"]["formsOutput"]
        assert summary["formName"] == "AssetCommonDetailsForm"
        assert json.loads(summary["content"]) == {"summary": "A summary of generated"}

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("orders", ["orders_2024", "customers"]),
            ("ORDER", ["orders_2024", "customers"]),
            ("2024", ["orders_2024"]),
            ("who orders", ["customers"]),
            ('"orders who"', ["customers"]),
            ("summary", ["returns"]),
            ("amazon", []),
        ],
    )
    def test_search_text_matches_names_and_descriptions(
        self, inventory: Inventory, text: str, found: list[str]
    ) -> None:
        inventory.add("orders_2024")
        inventory.add("customers", description="Who Orders")
        returns = inventory.add("returns")
        inventory.generate(returns, DESCRIPTIONS)
        inventory.accept(returns)
        assert inventory.names(searchText=text) == found

    @pytest.mark.parametrize(
        ("attributes", "found"),
        [
            (["name"], ["orders"]),
            (["description"], ["customers"]),
            (["GlueTableForm.tableName"], ["t"]),
            (["name", "GlueTableForm.tableName"], ["orders", "t"]),
            (["nothing", "No.thing"], []),
        ],
    )
    def test_search_text_matches_only_the_attributes_of_search_in(
        self, inventory: Inventory, attributes: list[str], found: list[str]
    ) -> None:
        inventory.add("orders")
        inventory.add("customers", description="Who orders")
        inventory.add("t", formsInput=[form("GlueTableForm", tableName="raw_orders")])
        search_in = [{"attribute": attribute} for attribute in attributes]
        assert inventory.names(searchText="orders", searchIn=search_in) == found

    @pytest.mark.parametrize(
        ("attribute", "value", "found"),
        [
            ("name", "orders", ["orders"]),
            ("name", "order", []),
            ("description", "What was ordered", ["orders"]),
            ("typeIdentifier", "amazon.datazone.S3ObjectCollectionAssetType", ["files"]),
            ("typeName", "amazon.datazone.GlueTableAssetType", ["orders"]),
            ("externalIdentifier", "arn:orders", ["orders"]),
            ("__DataZoneGlossaryTerms", "term2", ["orders"]),
            ("GlueTableForm.tableName", "raw_orders", ["orders"]),
            ("GlueTableForm.tags", "gold", ["orders"]),
            ("GlueTableForm.sorted", "true", []),
            ("GlueTableForm", "raw_orders", []),
            ("OtherForm.tableName", "raw_orders", []),
            ("nothing", "orders", []),
        ],
    )
    def test_filter_compares_an_attribute(
        self, inventory: Inventory, attribute: str, value: str, found: list[str]
    ) -> None:
        inventory.add("files", typeIdentifier="amazon.datazone.S3ObjectCollectionAssetType")
        inventory.add(
            "orders",
            description="What was ordered",
            externalIdentifier="arn:orders",
            glossaryTerms=["term1", "term2"],
            formsInput=[
                form("GlueTableForm", tableName="raw_orders", tags=["raw", "gold"], sorted=True),
                {"formName": "BrokenForm", "typeIdentifier": "BrokenFormType", "content": "{"},
            ],
        )
        assert inventory.filtered(attribute, value) == found

    def test_filter_compares_identifiers(self, inventory: Inventory) -> None:
        ids = [inventory.add(name) for name in "ab"]
        assert inventory.filtered("identifier", ids[0]) == ["a"]
        assert inventory.filtered("id", ids[1]) == ["b"]
        assert inventory.filtered("owningProjectId", inventory.project) == ["a", "b"]

    def test_filters_apply_to_the_latest_revision(self, inventory: Inventory) -> None:
        asset = inventory.add("raw_orders")
        inventory.generate(asset, NAMES)
        assert inventory.filtered("name", "Raw Orders") == []
        inventory.accept(asset)
        assert inventory.filtered("name", "Raw Orders") == ["Raw Orders"]
        assert inventory.filtered("name", "raw_orders") == []

    @pytest.mark.parametrize(
        ("value", "found"), [("None", []), ("null", []), pytest.param("", ["empty"], marks=with_operators)]
    )
    def test_filter_does_not_match_a_missing_attribute(
        self, inventory: Inventory, value: str, found: list[str]
    ) -> None:
        inventory.add("bare")
        inventory.add("empty", description="")
        assert inventory.filtered("description", value) == found

    def test_filter_combines_clauses(self, inventory: Inventory) -> None:
        for name, description in (("orders", "Sales"), ("customers", "People"), ("returns", "Sales")):
            inventory.add(name, description=description)

        def where(attribute: str, value: str) -> dict[str, Any]:
            return {"filter": {"attribute": attribute, "value": value}}

        either = {"or": [where("name", "orders"), where("name", "customers")]}
        assert inventory.names(filters=either) == ["orders", "customers"]
        assert inventory.names(filters={"and": [either, where("description", "Sales")]}) == ["orders"]
        assert inventory.names(filters={"and": [where("name", "orders"), where("name", "returns")]}) == []

    @with_operators
    def test_filter_compares_numbers(self, inventory: Inventory) -> None:
        for rows in (1, 2, 3):
            inventory.add(f"t{rows}", formsInput=[form("StatsForm", rows=rows, share=rows / 2)])
        inventory.add("t", formsInput=[form("StatsForm", rows="2")])
        inventory.add("flag", formsInput=[form("StatsForm", rows=True)])
        found = {name: inventory.filtered("StatsForm.rows", 2, name) for name in search.COMPARISONS}
        assert found == {
            "EQ": ["t2"],
            "GE": ["t2", "t3"],
            "GT": ["t3"],
            "LE": ["t1", "t2"],
            "LT": ["t1"],
        }
        assert inventory.filtered("StatsForm.rows", 2) == ["t2"]
        assert inventory.filtered("StatsForm.share", 1, "GE") == ["t2", "t3"]
        assert inventory.filtered("StatsForm.rows", "2") == ["t"]
        assert inventory.filtered("name", 2, "GE") == []

    @with_operators
    def test_filter_compares_creation_and_update_times(
        self, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for hour, name in enumerate(("first", "second")):
            monkeypatch.setattr(assets, "utcnow", lambda hour=hour: datetime(2026, 1, 15, hour))
            inventory.add(name)
        first = inventory.search(searchText="first")[0]["identifier"]
        inventory.generate(first, NAMES)
        monkeypatch.setattr(assets, "utcnow", lambda: datetime(2026, 1, 15, 2))
        inventory.accept(first)
        one_hour = int(datetime(2026, 1, 15, 1, tzinfo=timezone.utc).timestamp() * 1000)
        assert inventory.filtered("creationTime", one_hour, "LT") == ["First"]
        for attribute in ("lastUpdatedTime", "lastUpdatedAt"):
            assert inventory.filtered(attribute, one_hour, "GT") == ["First"]
            assert inventory.filtered(attribute, one_hour, "GE") == ["First", "second"]

    @with_operators
    def test_filter_matches_text(self, inventory: Inventory) -> None:
        inventory.add("orders", description="A Reproductive study")
        inventory.add("study")
        assert inventory.filtered("description", "study reproduct", "TEXT_SEARCH") == ["orders"]
        assert inventory.filtered("name", "STUDY", "TEXT_SEARCH") == ["study"]
        assert inventory.filtered("name", "study", "EQ") == ["study"]

    @pytest.mark.parametrize(
        "filters",
        [
            {},
            {"and": [{}]},
            {
                "filter": {"attribute": "name", "value": "a"},
                "or": [{"filter": {"attribute": "name", "value": "b"}}],
            },
            {"filter": {"attribute": "name"}},
            pytest.param({"filter": {"attribute": "a", "value": "1", "intValue": 1}}, marks=with_operators),
            pytest.param(
                {"filter": {"attribute": "a", "value": "1", "operator": "LT"}}, marks=with_operators
            ),
            pytest.param(
                {"filter": {"attribute": "a", "intValue": 1, "operator": "TEXT_SEARCH"}}, marks=with_operators
            ),
        ],
    )
    def test_invalid_filters_raise_a_validation_exception(
        self, inventory: Inventory, filters: dict[str, Any]
    ) -> None:
        client = inventory.datazone.client(config=Config(parameter_validation=False))
        with pytest.raises(client.exceptions.ValidationException):
            client.search(domainIdentifier=inventory.domain, searchScope="ASSET", filters=filters)

    @pytest.mark.parametrize(
        ("sort", "found"),
        [
            ({"attribute": "name"}, ["a", "b", "c", "d"]),
            ({"attribute": "name", "order": "ASCENDING"}, ["a", "b", "c", "d"]),
            ({"attribute": "name", "order": "DESCENDING"}, ["d", "c", "b", "a"]),
            ({"attribute": "description"}, ["c", "b", "d", "a"]),
            ({"attribute": "description", "order": "DESCENDING"}, ["b", "d", "c", "a"]),
            ({"attribute": "StatsForm.rows"}, ["a", "c", "d", "b"]),
            ({"attribute": "StatsForm.rows", "order": "DESCENDING"}, ["d", "c", "a", "b"]),
            ({"attribute": "nothing"}, ["b", "d", "a", "c"]),
            ({"attribute": "nothing", "order": "DESCENDING"}, ["b", "d", "a", "c"]),
        ],
    )
    def test_sort_puts_missing_values_last_and_equal_values_oldest_first(
        self, inventory: Inventory, sort: dict[str, str], found: list[str]
    ) -> None:
        inventory.add("b", description="late")
        inventory.add("d", description="late", formsInput=[form("StatsForm", rows="many")])
        inventory.add("a", formsInput=[form("StatsForm", rows=9)])
        inventory.add("c", description="early", formsInput=[form("StatsForm", rows=10)])
        for page_size in (1, 3, 50):
            assert inventory.names(sort=sort, PaginationConfig={"PageSize": page_size}) == found

    def test_each_page_has_the_total_match_count(self, inventory: Inventory) -> None:
        for number in range(51):
            inventory.add(f"t{number}")
        inventory.add("other")
        first = inventory.page(searchText="t")
        assert (len(first["items"]), first["totalMatchCount"]) == (50, 52)
        second = inventory.page(searchText="t", nextToken=first["nextToken"], maxResults=2)
        assert (len(second["items"]), second["totalMatchCount"]) == (2, 52)
        assert "nextToken" not in second

    @pytest.mark.parametrize("sort", [None, "ASCENDING", "DESCENDING"])
    def test_pages_are_consistent_while_assets_change(self, inventory: Inventory, sort: str | None) -> None:
        sorting = {} if sort is None else {"sort": {"attribute": "name", "order": sort}}
        ids = {name: inventory.add(name) for name in ("t1", "t2", "t3", "t4")}
        first = inventory.page(searchText="t", maxResults=2, **sorting)
        seen = [item["assetItem"]["name"] for item in first["items"]]
        assert seen == (["t4", "t3"] if sort == "DESCENDING" else ["t1", "t2"])
        inventory.generate(ids[seen[-1]], NAMES)
        choice = {"predictionTarget": "name", "editedValue": "renamed"}
        inventory.client.accept_predictions(
            domainIdentifier=inventory.domain, identifier=ids[seen[-1]], acceptChoices=[choice]
        )
        inventory.add("t2.5")
        rest = inventory.page(searchText="t", nextToken=first["nextToken"], **sorting)
        assert [item["assetItem"]["name"] for item in rest["items"]] == {
            None: ["t3", "t4", "t2.5"],
            "ASCENDING": ["t2.5", "t3", "t4"],
            "DESCENDING": ["t2.5", "t2", "t1"],
        }[sort]

    def test_token_for_a_long_value_is_short(self, inventory: Inventory) -> None:
        for name in "ab":
            inventory.add(name, description="\N{GRINNING FACE}" * 2048)
        sort = {"attribute": "description"}
        token = inventory.page(sort=sort, maxResults=1)["nextToken"]
        assert len(token) <= 8192
        assert inventory.names(sort=sort, PaginationConfig={"PageSize": 1}) == ["a", "b"]

    @pytest.mark.parametrize("token", ["nonsense", "IQ", "MQ==", "WyJhIl0="])
    def test_unknown_token_raises_a_validation_exception(self, inventory: Inventory, token: str) -> None:
        inventory.add("a")
        with pytest.raises(ClientError, match=r"ValidationException.*Invalid nextToken"):
            inventory.page(nextToken=token)

    @pytest.mark.parametrize("scope", ["GLOSSARY", "GLOSSARY_TERM", "DATA_PRODUCT"])
    def test_scopes_other_than_assets_are_empty(self, inventory: Inventory, scope: str) -> None:
        inventory.add("a")
        response = inventory.page(searchScope=scope)
        assert (response["items"], response["totalMatchCount"]) == ([], 0)

    def test_search_in_an_unknown_domain_is_denied(self, datazone: DataZoneControls) -> None:
        client = datazone.client()
        with pytest.raises(client.exceptions.AccessDeniedException):
            client.search(domainIdentifier="dzd-unknown", searchScope="ASSET")

    def test_search_fails_on_request(self, datazone: DataZoneControls) -> None:
        inventory = Inventory(datazone)
        datazone.fail("Search", "ThrottlingException")
        client = client_without_retries(datazone)
        with pytest.raises(ClientError, match="Rate exceeded"):
            client.search(domainIdentifier=inventory.domain, searchScope="ASSET", searchText="orders")
        assert datazone.requests[-1] == Request(
            "Search",
            {"domainIdentifier": inventory.domain, "searchScope": "ASSET", "searchText": "orders"},
        )
        assert inventory.search() == []
