"""A client accepts and rejects the predictions of the local DataZone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_datazone.testing import (
    DataZoneControls,
    DataZoneServer,
)
from tests.integration.testing.clients import DESCRIPTIONS, NAMES, Runs


class TestPredictions:
    def test_only_successful_types_create_predictions(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        assert runs.suggestions == {}
        server.set_run_outcome(statuses={NAMES: "FAILED"})
        runs.finish()
        assert set(runs.suggestions) == {
            "summary",
            "columns[0].columnDescription",
            "columns[1].columnDescription",
        }

    def test_canceled_run_creates_no_predictions(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.cancel(runs.start())
        assert runs.suggestions == {}

    def test_predictions_appear_after_the_run_time_without_polls(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        runs = Runs(server)
        server.set_run_outcome(in_progress_seconds=5)
        runs.start(DESCRIPTIONS)
        assert runs.suggestions == {}
        clock(5)
        assert "summary" in runs.suggestions

    def test_accept_all_creates_a_revision_and_removes_the_predictions(
        self, datazone: DataZoneControls
    ) -> None:
        runs = Runs(datazone)
        runs.finish()
        response = runs.client.accept_predictions(**runs.of_asset, acceptRule={"rule": "ALL"})
        assert response["revision"] == "2"
        asset = runs.client.get_asset(**runs.of_asset)
        assert (asset["revision"], asset["name"]) == ("2", "Orders")
        assert runs.forms["AssetCommonDetailsForm"] == {"summary": "A summary of orders"}
        assert runs.forms["ColumnBusinessMetadataForm"]["columnsBusinessMetadata"] == [
            {"columnIdentifier": "order_id", "description": "What order_id says", "name": "Order Id"},
            {"columnIdentifier": "amount", "description": "What amount says", "name": "Amount"},
        ]
        assert runs.suggestions == {}
        assert runs.client.get_asset(**runs.of_asset, revision="1")["name"] == "orders"

    def test_accept_threshold_keeps_predictions_with_less_confidence(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        runs.client.accept_predictions(**runs.of_asset, acceptRule={"rule": "ALL", "threshold": 0.8})
        assert runs.forms["AssetCommonDetailsForm"] == {"summary": "A summary of orders"}
        assert set(runs.suggestions) == {"columns[0].columnDescription", "columns[1].columnDescription"}

    def test_rule_none_accepts_nothing(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        before = runs.suggestions
        response = runs.client.accept_predictions(**runs.of_asset, acceptRule={"rule": "NONE"})
        assert response["revision"] == "1"
        assert runs.suggestions == before

    def test_choices_accept_a_number_or_an_edited_value(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        choices = [
            {"predictionTarget": "summary", "predictionChoice": 1},
            {"predictionTarget": "columns[1].columnDescription", "editedValue": "In euros"},
        ]
        runs.client.accept_predictions(**runs.of_asset, acceptChoices=choices)
        assert runs.forms["AssetCommonDetailsForm"]["summary"] == "A summary of orders, in other words"
        assert runs.forms["ColumnBusinessMetadataForm"]["columnsBusinessMetadata"] == [
            {"columnIdentifier": "amount", "description": "In euros"}
        ]
        assert set(runs.suggestions) == {"columns[0].columnDescription"}

    @pytest.mark.parametrize(
        "choice", [{"predictionTarget": "nowhere"}, {"predictionTarget": "summary", "predictionChoice": 2}]
    )
    def test_choice_of_a_missing_prediction_changes_nothing(
        self, server: DataZoneServer, choice: dict[str, Any]
    ) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        with pytest.raises(server.client().exceptions.ClientError, match="There is no prediction"):
            runs.client.accept_predictions(
                **runs.of_asset, acceptRule={"rule": "ALL"}, acceptChoices=[choice]
            )
        assert runs.client.get_asset(**runs.of_asset)["revision"] == "1"

    def test_same_client_token_accepts_once(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        request = {**runs.of_asset, "acceptRule": {"rule": "ALL"}, "clientToken": "once"}
        revisions = [runs.client.accept_predictions(**request)["revision"] for _ in range(2)]
        assert revisions == ["2", "2"]

    def test_accept_and_reject_without_predictions_are_not_found(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        for call in (
            lambda: runs.client.accept_predictions(**runs.of_asset, acceptRule={"rule": "ALL"}),
            lambda: runs.client.reject_predictions(**runs.of_asset, rejectRule={"rule": "ALL"}),
        ):
            with pytest.raises(runs.client.exceptions.ResourceNotFoundException):
                call()

    def test_reject_removes_predictions_without_a_revision(self, datazone: DataZoneControls) -> None:
        runs = Runs(datazone)
        runs.finish(DESCRIPTIONS)
        choices = [{"predictionTarget": "summary", "predictionChoices": [0]}]
        response = runs.client.reject_predictions(**runs.of_asset, rejectChoices=choices)
        assert response["assetRevision"] == "1"
        assert [s["confidence"] for s in runs.suggestions["summary"]] == [0.5]
        assert len(runs.suggestions["columns[0].columnDescription"]) == 2
        runs.client.reject_predictions(**runs.of_asset, rejectRule={"rule": "ALL"})
        assert runs.suggestions == {}

    def test_reject_threshold_keeps_predictions_with_less_confidence(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        runs.client.reject_predictions(**runs.of_asset, rejectRule={"rule": "ALL", "threshold": 0.8})
        assert set(runs.suggestions) == {"columns[0].columnDescription", "columns[1].columnDescription"}

    def test_only_the_latest_revision_can_be_accepted_and_published(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.finish()
        all_but_names = {"rule": "ALL", "threshold": 0.9}
        runs.client.accept_predictions(**runs.of_asset, acceptRule=all_but_names, revision="1")
        with pytest.raises(runs.client.exceptions.ConflictException):
            runs.client.accept_predictions(**runs.of_asset, acceptRule={"rule": "ALL"}, revision="1")
        publish = {
            "domainIdentifier": runs.asset.domain_identifier,
            "entityIdentifier": runs.asset.asset_identifier,
            "entityType": "ASSET",
            "action": "PUBLISH",
        }
        with pytest.raises(runs.client.exceptions.ValidationException):
            runs.client.create_listing_change_set(**publish, entityRevision="1")
        listing = runs.client.create_listing_change_set(**publish, entityRevision="2")
        assert (listing["status"], listing["listingRevision"]) == ("CREATING", "1")
        of_listing = {"domainIdentifier": runs.asset.domain_identifier, "identifier": listing["listingId"]}
        found = runs.client.get_listing(**of_listing)
        assert (found["status"], found["listingRevision"]) == ("ACTIVE", "1")
        assert found["item"]["assetListing"]["assetRevision"] == "2"
        with pytest.raises(runs.client.exceptions.ResourceNotFoundException):
            runs.client.get_listing(**of_listing, listingRevision="2")
        assert runs.client.get_asset(**runs.of_asset)["listing"]["listingId"] == listing["listingId"]
        unpublished = runs.client.create_listing_change_set(**{**publish, "action": "UNPUBLISH"})
        assert (unpublished["listingId"], unpublished["status"]) == (listing["listingId"], "INACTIVE")
