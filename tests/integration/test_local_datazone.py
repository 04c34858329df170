"""The local DataZone: how runs go, how requests fail, and how it is started and stopped."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import boto3
import moto.backend_index
import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)
from moto import mock_aws
from moto.core.utils import get_service_model
from moto.moto_api import state_manager

from airflow_provider_datazone.testing import (
    AssetIdentifiers,
    DataZoneControls,
    DataZoneServer,
    Request,
    local_responses,
    mock_datazone,
    models,
    registration,
    scenario,
)

NAMES, DESCRIPTIONS = "BUSINESS_NAMES", "BUSINESS_DESCRIPTIONS"
# What a URL, and with it a signature, has another form for; no id is like that.
ODD = "a b/%20?&=+ü€*"
STATE_MODEL = "datazone::metadata-generation-run"


@pytest.fixture(autouse=True)
def _no_aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture
def server() -> Iterator[DataZoneServer]:
    with DataZoneServer() as server:
        yield server


@pytest.fixture(params=["http", "in process"])
def datazone(request: pytest.FixtureRequest) -> Iterator[DataZoneControls]:
    """Every way to have a local DataZone."""
    with DataZoneServer() if request.param == "http" else mock_datazone() as datazone:
        yield datazone


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time passes when the test says so."""
    now = 0.0
    monkeypatch.setattr(models, "clock", lambda: now)
    monkeypatch.setattr(scenario, "clock", lambda: now)

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    return advance


@pytest.fixture
def transition() -> Iterator[Callable[[dict[str, Any]], None]]:
    yield lambda how: state_manager.set_transition(STATE_MODEL, how)
    state_manager.unset_transition(STATE_MODEL)


def impatient(datazone: DataZoneControls) -> Any:
    """A client that tries once and does not wait for long."""
    return datazone.client(config=Config(retries={"total_max_attempts": 1}, read_timeout=0.5))


class Runs:
    """The runs of an asset, through boto3."""

    def __init__(self, datazone: DataZoneControls, asset: AssetIdentifiers | None = None) -> None:
        self.asset = asset or datazone.create_asset()
        self.client = datazone.client()

    def start(self, *types: str, **kwargs: Any) -> str:
        answer = self.client.start_metadata_generation_run(
            domainIdentifier=self.asset.domain_identifier,
            owningProjectIdentifier=self.asset.project_identifier,
            target={"type": "ASSET", "identifier": self.asset.asset_identifier},
            types=list(types) or [NAMES, DESCRIPTIONS],
            **kwargs,
        )
        return str(answer["id"])

    def get(self, run: str, **kwargs: Any) -> Any:
        return self.client.get_metadata_generation_run(
            domainIdentifier=self.asset.domain_identifier, identifier=run, **kwargs
        )

    def status(self, run: str) -> str:
        return str(self.get(run)["status"])

    def statuses(self, run: str, times: int) -> list[str]:
        return [self.status(run) for _ in range(times)]

    def stats(self, run: str) -> dict[str, str]:
        return {stat["type"]: stat["status"] for stat in self.get(run)["typeStats"]}

    def list(self, **kwargs: Any) -> list[Any]:
        paginator = self.client.get_paginator("list_metadata_generation_runs")
        pages = paginator.paginate(domainIdentifier=self.asset.domain_identifier, **kwargs)
        return [item for page in pages for item in page["items"]]

    def cancel(self, run: str) -> None:
        self.client.cancel_metadata_generation_run(
            domainIdentifier=self.asset.domain_identifier, identifier=run
        )

    def finish(self, *types: str) -> str:
        run = self.start(*types)
        self.statuses(run, 2)
        return run

    @property
    def of_asset(self) -> dict[str, str]:
        return {
            "domainIdentifier": self.asset.domain_identifier,
            "identifier": self.asset.asset_identifier,
        }

    @property
    def forms(self) -> dict[str, Any]:
        forms = self.client.get_asset(**self.of_asset)["formsOutput"]
        return {form["formName"]: json.loads(form["content"]) for form in forms}

    @property
    def suggestions(self) -> dict[str, Any]:
        forms = self.client.get_asset(**self.of_asset)["readOnlyFormsOutput"]
        return dict(json.loads(forms[0]["content"])["fieldSuggestions"]) if forms else {}


NAMING_AN_ASSET: dict[str, Callable[[Runs], Any]] = {
    "StartMetadataGenerationRun": Runs.start,
    "ListMetadataGenerationRuns": lambda runs: runs.list(targetIdentifier=runs.asset.asset_identifier),
    "GetAsset": lambda runs: runs.client.get_asset(**runs.of_asset),
    "AcceptPredictions": lambda runs: runs.client.accept_predictions(
        **runs.of_asset, acceptRule={"rule": "NONE"}
    ),
    "RejectPredictions": lambda runs: runs.client.reject_predictions(
        **runs.of_asset, rejectRule={"rule": "NONE"}
    ),
    "CreateListingChangeSet": lambda runs: runs.client.create_listing_change_set(
        domainIdentifier=runs.asset.domain_identifier,
        entityIdentifier=runs.asset.asset_identifier,
        entityType="ASSET",
        action="PUBLISH",
    ),
}


class TestHowRunsGo:
    def test_a_run_moves_on_with_each_get(self, datazone: DataZoneControls) -> None:
        runs = Runs(datazone)
        run = runs.start()
        assert runs.statuses(run, 3) == ["IN_PROGRESS", "SUCCEEDED", "SUCCEEDED"]

    def test_a_run_moves_on_with_each_list_that_shows_it(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.start()
        seen = [item["status"] for _ in range(3) for item in runs.list()]
        assert seen == ["SUBMITTED", "IN_PROGRESS", "SUCCEEDED"]

    def test_motos_state_manager_sets_the_pace(
        self, server: DataZoneServer, transition: Callable[[dict[str, Any]], None]
    ) -> None:
        runs = Runs(server)
        transition({"progression": "manual", "times": 2})
        run = runs.start()
        expected = ["SUBMITTED", "IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED"]
        assert runs.statuses(run, 4) == expected

    def test_immediate_runs_are_finished_in_list_too(
        self, server: DataZoneServer, transition: Callable[[dict[str, Any]], None]
    ) -> None:
        runs = Runs(server)
        transition({"progression": "immediate"})
        runs.start()
        assert [item["status"] for item in runs.list()] == ["SUCCEEDED"]

    def test_phases_take_the_seconds_that_were_asked_for(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        runs = Runs(server)
        server.set_run_outcome(submitted_seconds=10, in_progress_seconds=20)
        run = runs.start()
        seen = []
        for seconds in (0, 9, 1, 19, 1):
            clock(seconds)
            seen.append((runs.list()[0]["status"], runs.status(run)))
        expected = ["SUBMITTED", "SUBMITTED", "IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED"]
        assert seen == [(status, status) for status in expected]

    @pytest.mark.parametrize(
        ("polls", "expected"),
        [
            (0, ["SUCCEEDED", "SUCCEEDED"]),
            (1, ["SUCCEEDED", "SUCCEEDED"]),
            (3, ["IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED"]),
        ],
    )
    def test_a_run_is_finished_at_the_get_that_was_asked_for(
        self, server: DataZoneServer, polls: int, expected: list[str]
    ) -> None:
        runs = Runs(server)
        server.set_run_outcome(polls=polls)
        run = runs.start()
        assert runs.statuses(run, len(expected)) == expected

    @pytest.mark.parametrize(
        ("statuses", "expected"),
        [
            ("SUCCEEDED", "SUCCEEDED"),
            ("FAILED", "FAILED"),
            ("CANCELED", "CANCELED"),
            ({NAMES: "FAILED"}, "PARTIALLY_SUCCEEDED"),
            ({NAMES: "FAILED", DESCRIPTIONS: "CANCELED"}, "FAILED"),
            ({NAMES: "SUCCEEDED", DESCRIPTIONS: "CANCELED"}, "PARTIALLY_SUCCEEDED"),
        ],
    )
    def test_the_status_of_a_run_follows_from_its_types(
        self, datazone: DataZoneControls, statuses: Any, expected: str
    ) -> None:
        runs = Runs(datazone)
        datazone.set_run_outcome(statuses=statuses)
        run = runs.start()
        assert runs.statuses(run, 2)[-1] == expected
        by_type = {NAMES: statuses, DESCRIPTIONS: statuses} if isinstance(statuses, str) else statuses
        assert runs.stats(run) == {NAMES: "SUCCEEDED", DESCRIPTIONS: "SUCCEEDED", **by_type}

    def test_error_messages_appear_once_the_run_is_finished(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(statuses={NAMES: "FAILED"}, error_messages={NAMES: "quota"})
        run = runs.start()
        assert ["errorMessage" in stat for stat in runs.get(run)["typeStats"]] == [False, False]
        finished = runs.get(run)["typeStats"]
        assert [stat.get("errorMessage") for stat in finished] == ["quota", None]

    def test_type_stats_may_be_left_out(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(type_stats=False)
        run = runs.start()
        runs.status(run)
        answer = runs.get(run)
        assert answer["status"] == "SUCCEEDED"
        assert "typeStats" not in answer

    def test_a_run_may_end_in_a_status_that_aws_has_not_published(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(status="PAUSED")
        run = runs.start()
        assert runs.statuses(run, 3) == ["IN_PROGRESS", "PAUSED", "PAUSED"]

    def test_a_run_stays_in_a_status_it_was_put_in_and_goes_on_after(
        self, datazone: DataZoneControls
    ) -> None:
        runs = Runs(datazone)
        run = runs.start()
        datazone.set_run_status(run, "PAUSED")
        assert runs.statuses(run, 3) == ["PAUSED"] * 3
        assert runs.list()[0]["status"] == "PAUSED"
        datazone.set_run_status(run, None)
        assert runs.statuses(run, 1)[-1] == "SUCCEEDED"

    def test_a_run_that_is_put_in_failed_has_failed_types(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        run = runs.start()
        server.set_run_status(run, "FAILED")
        assert runs.stats(run) == {NAMES: "FAILED", DESCRIPTIONS: "FAILED"}

    def test_an_asset_comes_before_all_assets_and_next_before_for_good(self, server: DataZoneServer) -> None:
        first = Runs(server)
        asset = server.create_asset(
            domain_identifier=first.asset.domain_identifier,
            project_identifier=first.asset.project_identifier,
        )
        second = Runs(server, asset)
        server.set_run_outcome(status="FAILED", times=None)
        server.set_run_outcome(asset.asset_identifier, status="SUCCEEDED", times=None)
        server.set_run_outcome(asset.asset_identifier, status="CANCELED", times=2)
        server.set_run_outcome(asset.asset_identifier, status="PARTIALLY_SUCCEEDED")
        ends = [second.status(second.finish()) for _ in range(5)]
        assert ends == ["CANCELED", "CANCELED", "PARTIALLY_SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]
        assert [first.status(first.finish()) for _ in range(2)] == ["FAILED", "FAILED"]

    def test_an_outcome_waits_for_a_start_that_succeeds(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(status="FAILED")
        with pytest.raises(ClientError):
            runs.start("NO_SUCH_TYPE")
        assert runs.status(runs.finish()) == "FAILED"

    def test_cancel_ends_a_run_and_its_types(self, datazone: DataZoneControls) -> None:
        runs = Runs(datazone)
        run = runs.start()
        runs.cancel(run)
        assert runs.status(run) == "CANCELED"
        assert runs.stats(run) == {NAMES: "CANCELED", DESCRIPTIONS: "CANCELED"}
        with pytest.raises(ClientError, match="in CANCELED status cannot be canceled"):
            runs.cancel(run)

    def test_cancel_sees_that_a_run_has_finished_meanwhile(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        runs = Runs(server)
        server.set_run_outcome(in_progress_seconds=5)
        run = runs.start()
        clock(5)
        with pytest.raises(ClientError, match="in SUCCEEDED status cannot be canceled"):
            runs.cancel(run)

    def test_the_same_client_token_gives_the_same_run(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        run = runs.start(clientToken="one")
        assert runs.start(clientToken="one") == run
        assert runs.start(clientToken="two") != run
        assert len(runs.list()) == 2
        # Another domain knows nothing of it.
        assert Runs(server).start(clientToken="one") != run

    def test_list_filters_by_status_type_and_target(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        other = Runs(
            server,
            server.create_asset(
                domain_identifier=runs.asset.domain_identifier,
                project_identifier=runs.asset.project_identifier,
            ),
        )
        names, both, elsewhere = runs.start(NAMES), runs.start(), other.start(DESCRIPTIONS)
        for run, status in ((names, "SUBMITTED"), (both, "IN_PROGRESS"), (elsewhere, "SUBMITTED")):
            server.set_run_status(run, status)

        def ids(**kwargs: str) -> list[str]:
            return [item["id"] for item in runs.list(**kwargs)]

        assert ids(status="SUBMITTED") == [names, elsewhere]
        assert ids(status="IN_PROGRESS") == [both]
        assert ids(type=DESCRIPTIONS) == [both, elsewhere]
        assert ids(targetIdentifier=other.asset.asset_identifier) == [elsewhere]
        assert ids(status="SUBMITTED", type=NAMES) == [names]

    def test_a_run_that_leaves_the_filter_between_two_pages_hides_no_other(
        self, server: DataZoneServer
    ) -> None:
        runs = Runs(server)
        started = [runs.start() for _ in range(4)]
        request = {"domainIdentifier": runs.asset.domain_identifier, "status": "SUBMITTED"}
        first = runs.client.list_metadata_generation_runs(**request, maxResults=2)
        runs.status(started[1])
        runs.status(started[2])
        rest = runs.client.list_metadata_generation_runs(**request, nextToken=first["nextToken"])
        assert [item["id"] for item in rest["items"]] == [started[3]]

    def test_concurrent_gets_move_a_run_on_one_step_each(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(polls=20)
        run = runs.start()
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(lambda _: runs.status(run), range(40)))
        assert seen.count("IN_PROGRESS") == 19
        assert seen.count("SUCCEEDED") == 21

    def test_concurrent_starts_with_one_token_start_one_run(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        with ThreadPoolExecutor(8) as pool:
            started = set(pool.map(lambda _: runs.start(clientToken="one"), range(16)))
        assert len(started) == 1


class TestPredictions:
    def test_only_types_that_succeeded_suggest_something(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        assert runs.suggestions == {}
        server.set_run_outcome(statuses={NAMES: "FAILED"})
        runs.finish()
        assert set(runs.suggestions) == {
            "summary",
            "columns[0].columnDescription",
            "columns[1].columnDescription",
        }

    def test_a_run_that_was_canceled_suggests_nothing(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.cancel(runs.start())
        assert runs.suggestions == {}

    def test_predictions_are_there_when_time_is_up_though_nobody_looked(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        runs = Runs(server)
        server.set_run_outcome(in_progress_seconds=5)
        runs.start(DESCRIPTIONS)
        assert runs.suggestions == {}
        clock(5)
        assert "summary" in runs.suggestions

    def test_accept_all_writes_a_new_revision_and_takes_the_predictions_away(
        self, datazone: DataZoneControls
    ) -> None:
        runs = Runs(datazone)
        runs.finish()
        answer = runs.client.accept_predictions(**runs.of_asset, acceptRule={"rule": "ALL"})
        assert answer["revision"] == "2"
        asset = runs.client.get_asset(**runs.of_asset)
        assert (asset["revision"], asset["name"]) == ("2", "Orders")
        assert runs.forms["AssetCommonDetailsForm"] == {"summary": "A summary of orders"}
        assert runs.forms["ColumnBusinessMetadataForm"]["columnsBusinessMetadata"] == [
            {"columnIdentifier": "order_id", "description": "What order_id says", "name": "Order Id"},
            {"columnIdentifier": "amount", "description": "What amount says", "name": "Amount"},
        ]
        assert runs.suggestions == {}
        assert runs.client.get_asset(**runs.of_asset, revision="1")["name"] == "orders"

    def test_a_threshold_leaves_what_is_less_sure(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        runs.client.accept_predictions(**runs.of_asset, acceptRule={"rule": "ALL", "threshold": 0.8})
        assert runs.forms["AssetCommonDetailsForm"] == {"summary": "A summary of orders"}
        assert set(runs.suggestions) == {"columns[0].columnDescription", "columns[1].columnDescription"}

    def test_rule_none_accepts_nothing(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        before = runs.suggestions
        answer = runs.client.accept_predictions(**runs.of_asset, acceptRule={"rule": "NONE"})
        assert answer["revision"] == "1"
        assert runs.suggestions == before

    def test_choices_take_a_number_or_an_edited_value(self, server: DataZoneServer) -> None:
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
    def test_a_choice_of_what_is_not_there_changes_nothing(
        self, server: DataZoneServer, choice: dict[str, Any]
    ) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        with pytest.raises(server.client().exceptions.ClientError, match="There is no prediction"):
            runs.client.accept_predictions(
                **runs.of_asset, acceptRule={"rule": "ALL"}, acceptChoices=[choice]
            )
        assert runs.client.get_asset(**runs.of_asset)["revision"] == "1"

    def test_the_same_client_token_accepts_once(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        request = {**runs.of_asset, "acceptRule": {"rule": "ALL"}, "clientToken": "once"}
        revisions = [runs.client.accept_predictions(**request)["revision"] for _ in range(2)]
        assert revisions == ["2", "2"]

    def test_there_is_nothing_to_accept_or_reject_without_predictions(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        for call in (
            lambda: runs.client.accept_predictions(**runs.of_asset, acceptRule={"rule": "ALL"}),
            lambda: runs.client.reject_predictions(**runs.of_asset, rejectRule={"rule": "ALL"}),
        ):
            with pytest.raises(runs.client.exceptions.ResourceNotFoundException):
                call()

    def test_reject_drops_predictions_and_writes_no_revision(self, datazone: DataZoneControls) -> None:
        runs = Runs(datazone)
        runs.finish(DESCRIPTIONS)
        choices = [{"predictionTarget": "summary", "predictionChoices": [0]}]
        answer = runs.client.reject_predictions(**runs.of_asset, rejectChoices=choices)
        assert answer["assetRevision"] == "1"
        assert [s["confidence"] for s in runs.suggestions["summary"]] == [0.5]
        assert len(runs.suggestions["columns[0].columnDescription"]) == 2
        runs.client.reject_predictions(**runs.of_asset, rejectRule={"rule": "ALL"})
        assert runs.suggestions == {}

    def test_a_threshold_of_reject_leaves_what_is_less_sure(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.finish(DESCRIPTIONS)
        runs.client.reject_predictions(**runs.of_asset, rejectRule={"rule": "ALL", "threshold": 0.8})
        assert set(runs.suggestions) == {"columns[0].columnDescription", "columns[1].columnDescription"}

    def test_only_the_latest_revision_is_decided_on_and_published(self, server: DataZoneServer) -> None:
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
        assert (listing["status"], listing["listingRevision"]) == ("ACTIVE", "1")
        assert runs.client.get_asset(**runs.of_asset)["listing"]["listingId"] == listing["listingId"]
        again = runs.client.create_listing_change_set(**{**publish, "action": "UNPUBLISH"})
        assert (again["listingId"], again["status"]) == (listing["listingId"], "INACTIVE")


class TestFailures:
    @pytest.mark.parametrize("code", sorted(local_responses.ERRORS))
    def test_an_operation_fails_as_often_as_asked_for(self, datazone: DataZoneControls, code: str) -> None:
        runs = Runs(datazone)
        runs.client = impatient(datazone)
        run = runs.start()
        datazone.fail("GetMetadataGenerationRun", code, times=2)
        for _ in range(2):
            with pytest.raises(ClientError) as info:
                runs.get(run)
            assert info.value.response["Error"]["Code"] == code
            assert (
                info.value.response["ResponseMetadata"]["HTTPStatusCode"] == local_responses.ERRORS[code][0]
            )
        # A request that failed has moved nothing on, and other operations go well.
        assert runs.list()[0]["status"] == "SUBMITTED"

    def test_any_operation_fails_until_reset(self, datazone: DataZoneControls) -> None:
        datazone.fail("*", "AccessDeniedException", times=None, message="not you")
        client = impatient(datazone)
        for _ in range(3):
            with pytest.raises(ClientError, match="not you"):
                client.list_domains()
        datazone.reset()
        assert client.list_domains()["items"] == []

    def test_failures_come_in_the_order_they_were_asked_for(self, server: DataZoneServer) -> None:
        server.fail("ListDomains", "ThrottlingException")
        server.fail("ListDomains", "InternalServerException")
        client, codes = impatient(server), []
        for _ in range(2):
            with pytest.raises(ClientError) as info:
                client.list_domains()
            codes.append(info.value.response["Error"]["Code"])
        assert codes == ["ThrottlingException", "InternalServerException"]

    def test_what_was_to_fail_goes_well_after_a_recovery(self, datazone: DataZoneControls) -> None:
        datazone.fail("*", "InternalServerException", times=None)
        datazone.fail("ListDomains", "ThrottlingException", times=7)
        client = impatient(datazone)
        with pytest.raises(ClientError):
            client.list_domains()
        datazone.recover()
        assert client.list_domains()["items"] == []

    def test_only_what_is_signed_with_a_key_fails(self, datazone: DataZoneControls) -> None:
        datazone.fail("*", "UnrecognizedClientException", times=None, access_key_id="testing")
        with pytest.raises(ClientError, match="UnrecognizedClientException"):
            impatient(datazone).list_domains()
        other = boto3.client(
            "datazone",
            region_name="us-east-1",
            endpoint_url=datazone.endpoint_url,
            aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
            aws_secret_access_key="testing",
        )
        assert other.list_domains()["items"] == []

    def test_boto3_retries_what_it_retries_of_the_service(self, server: DataZoneServer) -> None:
        client = server.client()
        server.fail("ListDomains", "ThrottlingException")
        assert client.list_domains()["ResponseMetadata"]["RetryAttempts"] == 1
        assert server.request_counts["ListDomains"] == 2

    def test_a_hanging_request_times_out(self, datazone: DataZoneControls) -> None:
        datazone.fail("ListDomains", "hang")
        client = impatient(datazone)
        with pytest.raises(ReadTimeoutError):
            client.list_domains()
        assert client.list_domains()["items"] == []

    def test_an_answer_can_be_late(self, server: DataZoneServer) -> None:
        server.fail("ListDomains", "hang", seconds=0.01)
        assert server.client().list_domains()["items"] == []

    def test_a_dropped_connection_is_closed_without_an_answer(self, datazone: DataZoneControls) -> None:
        datazone.fail("ListDomains", "drop")
        client = impatient(datazone)
        with pytest.raises(ConnectionClosedError):
            client.list_domains()
        assert client.list_domains()["items"] == []

    def test_a_dropped_connection_sends_not_one_byte(self, server: DataZoneServer) -> None:
        server.fail("ListDomains", "drop")
        request = (
            "GET /v2/domains HTTP/1.1\r\nHost: localhost\r\nAuthorization: AWS4-HMAC-SHA256 "
            "Credential=testing/20250101/us-east-1/datazone/aws4_request, SignedHeaders=host, "
            "Signature=0\r\n\r\n"
        )
        host, port = server.endpoint_url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(request.encode())
            assert connection.recv(1) == b""

    def test_a_malformed_answer_is_json_that_is_cut_off(self, datazone: DataZoneControls) -> None:
        bodies = []
        client = impatient(datazone)
        client.meta.events.register(
            "before-parse.datazone", lambda response_dict, **_: bodies.append(response_dict)
        )
        datazone.fail("ListDomains", "malformed")
        client.list_domains()
        assert bodies[0]["status_code"] == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(bodies[0]["body"])

    @pytest.mark.parametrize("error", ["drop", "hang", "InternalServerException"])
    def test_a_lost_answer_has_been_carried_out(self, datazone: DataZoneControls, error: str) -> None:
        runs = Runs(datazone)
        patient, runs.client = runs.client, impatient(datazone)
        datazone.fail("StartMetadataGenerationRun", error, after=True)
        with pytest.raises((HTTPClientError, ClientError)):
            runs.start(clientToken="once")
        runs.client = patient
        (item,) = runs.list()
        assert runs.start(clientToken="once") == item["id"]

    @pytest.mark.parametrize("operation", ["*", *NAMING_AN_ASSET])
    def test_a_fault_of_an_asset_hits_only_requests_that_name_it(
        self, datazone: DataZoneControls, operation: str
    ) -> None:
        hit = Runs(datazone)
        domain, project, asset = hit.asset
        other = datazone.create_asset(domain_identifier=domain, project_identifier=project)
        spared = Runs(datazone, other)
        run = hit.finish()
        spared.finish()
        for call in NAMING_AN_ASSET.values() if operation == "*" else [NAMING_AN_ASSET[operation]]:
            datazone.fail(operation, "AccessDeniedException", asset_identifier=asset)
            call(spared)
            # Requests that name no asset.
            assert hit.status(run) == "SUCCEEDED"
            assert run in [item["id"] for item in hit.list()]
            with pytest.raises(ClientError, match="AccessDeniedException"):
                call(hit)
            call(hit)

    def test_faults_of_one_operation_wait_for_the_assets_they_are_for(self, server: DataZoneServer) -> None:
        first, second = Runs(server), Runs(server)
        first.client = second.client = impatient(server)
        for runs, error in ((first, "ThrottlingException"), (second, "ConflictException")):
            asset = runs.asset.asset_identifier
            server.fail("StartMetadataGenerationRun", error, asset_identifier=asset)
        server.fail("StartMetadataGenerationRun", "InternalServerException")
        for runs, error in (
            (second, "ConflictException"),
            (second, "InternalServerException"),
            (first, "ThrottlingException"),
        ):
            with pytest.raises(ClientError, match=error):
                runs.start()
        assert first.start()
        assert second.start()

    @pytest.mark.parametrize(
        "ask",
        [
            lambda client: client.get_domain(identifier=ODD),
            lambda client: client.list_metadata_generation_runs(
                domainIdentifier="dzd-1", targetIdentifier=ODD
            ),
            lambda client: client.create_project(domainIdentifier="dzd-1", name=ODD * 10),
        ],
        ids=["path", "query", "body"],
    )
    def test_required_credentials_are_those_that_a_request_is_signed_with(
        self, datazone: DataZoneControls, ask: Callable[[Any], None]
    ) -> None:
        def answer(key: str, secret: str, token: str | None = None) -> str:
            client = boto3.client(
                "datazone",
                region_name="us-east-1",
                endpoint_url=datazone.endpoint_url,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                aws_session_token=token,
            )
            with pytest.raises(ClientError) as info:
                ask(client)
            return str(info.value.response["Error"]["Code"])

        refused = ("UnrecognizedClientException", "InvalidSignatureException")
        assert answer("AKIAEXAMPLE", "any") not in refused
        datazone.require_credentials("AKIAEXAMPLE", "right")
        assert answer("AKIAEXAMPLE", "right") not in refused
        assert answer("AKIAEXAMPLE", "right", token="t/o+k=") not in refused
        assert answer("AKIAEXAMPLE", "wrong") == "InvalidSignatureException"
        assert answer("AKIAOTHER", "right") == "UnrecognizedClientException"
        datazone.require_credentials("AKIAEXAMPLE", "rotated")
        assert answer("AKIAEXAMPLE", "rotated") not in refused
        assert answer("AKIAEXAMPLE", "right") == "InvalidSignatureException"
        # The test's own client, and whatever is asked after a reset.
        assert datazone.client().list_domains()["items"] == []
        datazone.reset()
        assert answer("AKIAOTHER", "any") not in refused

    def test_requests_are_counted_and_remembered_without_edited_values(
        self, datazone: DataZoneControls
    ) -> None:
        runs = Runs(datazone)
        runs.finish()
        choice = {"predictionTarget": "summary", "editedValue": "confidential"}
        runs.client.accept_predictions(**runs.of_asset, acceptChoices=[choice], clientToken="t")
        assert datazone.request_counts["GetMetadataGenerationRun"] == 2
        expected = {
            **runs.of_asset,
            "acceptChoices": [{"predictionTarget": "summary"}],
            "clientToken": "t",
        }
        assert datazone.requests[-1] == Request("AcceptPredictions", expected)

    def test_requests_know_when_they_were_received_and_stay_pairs(
        self, datazone: DataZoneControls, clock: Callable[[float], None]
    ) -> None:
        client = datazone.client()
        client.list_domains()
        clock(2.5)
        client.list_domains()
        first, second = datazone.requests
        assert (first.received_at, second.received_at) == (0.0, 2.5)
        assert first == second == Request("ListDomains", {})
        operation, parameters = second
        assert (operation, parameters) == ("ListDomains", {})

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (lambda d: d.limit("GetMetadataRun", 1), "Unknown operation 'GetMetadataRun'"),
            (lambda d: d.limit("*", 1), r"Unknown operation '\*'"),
            (lambda d: d.limit("GetDomain", 0), "per_second must be a number above 0, got 0"),
            (lambda d: d.limit("GetDomain", float("nan")), "per_second must be a number above 0, got nan"),
            (lambda d: d.limit("GetDomain", 1, burst=0), "burst must be at least 1, got 0"),
            (lambda d: d.fail("GetMetadataRun", "drop"), "Unknown operation 'GetMetadataRun'"),
            (lambda d: d.fail("GetDomain", "Throttling"), "Unknown error 'Throttling'"),
            (lambda d: d.fail("GetDomain", "drop", times=0), "times must be at least 1"),
            (lambda d: d.fail("GetDomain", "drop", seconds=1), "must be 0 or more, for 'hang' only"),
            (lambda d: d.fail("GetDomain", "drop", asset_identifier="a"), "GetDomain names no asset"),
            (lambda d: d.set_run_outcome(statuses="DONE"), "Unknown status 'DONE'"),
            (lambda d: d.set_run_outcome(statuses={"NAMES": "FAILED"}), "Unknown type 'NAMES'"),
            (lambda d: d.set_run_outcome(error_messages={"NAMES": "x"}), "Unknown type 'NAMES'"),
            (lambda d: d.set_run_outcome(polls=1, submitted_seconds=1), "not both"),
            (lambda d: d.set_run_outcome(polls=-1), "cannot be negative"),
            (lambda d: d.set_run_outcome(times=0), "times must be at least 1"),
            (lambda d: d.set_run_status("nosuchrun", "FAILED"), "There is no run 'nosuchrun'"),
        ],
    )
    def test_what_cannot_be_is_refused_at_once(
        self, call: Callable[[DataZoneControls], None], said: str
    ) -> None:
        with mock_datazone() as datazone, pytest.raises(ValueError, match=said):
            call(datazone)


class TestLimits:
    @staticmethod
    def answers(client: Any, number: int) -> list[int]:
        """Return the HTTP status of each answer."""

        def status() -> int:
            try:
                client.list_domains()
            except client.exceptions.ThrottlingException as error:
                return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            return 200

        return [status() for _ in range(number)]

    def test_requests_over_the_rate_are_throttled_until_the_bucket_fills_again(
        self, datazone: DataZoneControls, clock: Callable[[float], None]
    ) -> None:
        datazone.limit("ListDomains", 2, burst=3)
        client = impatient(datazone)
        assert self.answers(client, 5) == [200, 200, 200, 429, 429]
        clock(0.5)
        assert self.answers(client, 2) == [200, 429]
        # Never more than the bucket holds.
        clock(3600)
        assert self.answers(client, 4) == [200, 200, 200, 429]

    @pytest.mark.parametrize(("per_second", "burst"), [(2, 2), (2.5, 3), (0.1, 1)])
    def test_a_bucket_holds_the_requests_of_a_second_by_default(
        self, server: DataZoneServer, clock: Callable[[float], None], per_second: float, burst: int
    ) -> None:
        server.limit("ListDomains", per_second)
        assert self.answers(impatient(server), burst + 1) == [200] * burst + [429]

    def test_a_throttled_request_is_counted_and_not_carried_out(
        self, datazone: DataZoneControls, clock: Callable[[float], None]
    ) -> None:
        runs = Runs(datazone)
        runs.client = impatient(datazone)
        datazone.limit("StartMetadataGenerationRun", 1)
        run = runs.start()
        with pytest.raises(ClientError, match="Rate exceeded"):
            runs.start()
        assert [item["id"] for item in runs.list()] == [run]
        assert datazone.request_counts["StartMetadataGenerationRun"] == 2

    def test_a_throttled_request_uses_up_no_failure(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        server.limit("ListDomains", 1)
        client = impatient(server)
        assert self.answers(client, 1) == [200]
        server.fail("ListDomains", "AccessDeniedException")
        assert self.answers(client, 1) == [429]
        clock(1)
        with pytest.raises(ClientError, match="AccessDeniedException"):
            client.list_domains()

    def test_an_operation_has_its_own_limit_whoever_asks_for_it(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        server.limit("ListDomains", 1)
        domain, *_ = server.create_asset()
        server.limit("GetDomain", 1)
        client = impatient(server)
        assert self.answers(client, 2) == [200, 429]
        assert client.get_domain(identifier=domain)["id"] == domain
        elsewhere = server.client("eu-west-1", Config(retries={"total_max_attempts": 1}))
        assert self.answers(elsewhere, 1) == [429]

    def test_the_last_limit_of_an_operation_holds(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        server.limit("ListDomains", 1)
        server.limit("ListDomains", 4)
        assert self.answers(impatient(server), 5) == [200, 200, 200, 200, 429]

    @pytest.mark.parametrize("lift", [DataZoneControls.recover, DataZoneControls.reset])
    def test_a_recovery_and_a_reset_lift_all_limits(
        self, datazone: DataZoneControls, lift: Callable[[DataZoneControls], None]
    ) -> None:
        datazone.limit("ListDomains", 0.001)
        client = impatient(datazone)
        assert self.answers(client, 2) == [200, 429]
        lift(datazone)
        assert self.answers(client, 2) == [200, 200]


class TestServer:
    def test_it_takes_any_credentials_and_every_region(self, server: DataZoneServer) -> None:
        for region, key in (("eu-west-1", "AKIAIOSFODNN7EXAMPLE"), ("us-gov-west-1", "x")):
            client = boto3.client(
                "datazone",
                region_name=region,
                endpoint_url=server.endpoint_url,
                aws_access_key_id=key,
                aws_secret_access_key="x",
            )
            server.fail("ListDomains", "ConflictException")
            with pytest.raises(client.exceptions.ConflictException):
                client.list_domains()
            domain = client.create_domain(name="here", domainExecutionRole="arn:aws:iam::123456789012:role/x")
            assert f":{region}:" in domain["arn"]
            assert [d["id"] for d in client.list_domains()["items"]] == [domain["id"]]

    def test_the_rest_of_moto_is_there_too(self, server: DataZoneServer) -> None:
        sts = boto3.client(
            "sts",
            region_name="us-east-1",
            endpoint_url=server.endpoint_url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        assert sts.get_caller_identity()["Account"] == "123456789012"

    def test_connection_is_an_airflow_connection_as_json(self, server: DataZoneServer) -> None:
        assert json.loads(server.connection) == {
            "conn_type": "awsdatazone",
            "login": "testing",
            "password": "testing",
            "extra": {"region_name": "us-east-1", "endpoint_url": server.endpoint_url},
        }

    def test_stop_frees_the_port_and_leaves_no_thread(self) -> None:
        before = set(threading.enumerate())
        server = DataZoneServer()
        server.start()
        port = int(server.endpoint_url.rsplit(":", 1)[1])
        server.client().list_domains()
        idle = socket.create_connection(("127.0.0.1", port))
        server.stop()
        idle.close()
        assert set(threading.enumerate()) <= before
        with DataZoneServer(port=port) as again:
            assert again.endpoint_url.endswith(f":{port}")

    def test_stop_releases_a_request_that_hangs(self) -> None:
        server = DataZoneServer()
        server.start()
        server.fail("ListDomains", "hang")
        client = server.client(config=Config(retries={"total_max_attempts": 1}))
        with ThreadPoolExecutor(1) as pool:
            hanging = pool.submit(client.list_domains)
            while not server.request_counts["ListDomains"] and not hanging.done():
                threading.Event().wait(0.01)
            server.stop()
            with pytest.raises(ConnectionClosedError):
                hanging.result(timeout=30)

    def test_the_last_server_takes_everything_with_it(self) -> None:
        with DataZoneServer() as first:
            with DataZoneServer() as second:
                second.create_asset()
            assert len(first.client().list_domains()["items"]) == 1
        with DataZoneServer() as third:
            assert third.client().list_domains()["items"] == []
            assert [request.operation for request in third.requests] == ["ListDomains"]

    def test_a_port_in_use_is_an_error_that_says_so(self, server: DataZoneServer) -> None:
        port = int(server.endpoint_url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"):
            DataZoneServer(port=port).start()

    def test_it_prints_nothing(self, capfd: pytest.CaptureFixture[str]) -> None:
        with DataZoneServer() as server:
            Runs(server).start()
        assert capfd.readouterr() == ("", "")

    def test_it_cannot_be_started_twice_nor_asked_where_it_is_before(self, server: DataZoneServer) -> None:
        with pytest.raises(RuntimeError, match="started already"):
            server.start()
        with pytest.raises(RuntimeError, match="not been started"):
            _ = DataZoneServer().endpoint_url
        DataZoneServer().stop()

    def test_a_stopped_server_is_gone(self, server: DataZoneServer) -> None:
        client = impatient(server)
        server.stop()
        with pytest.raises(EndpointConnectionError):
            client.list_domains()


class TestMockDatazone:
    @mock_datazone
    def test_it_decorates_a_function_bare(self) -> None:
        assert Runs(DataZoneControls()).finish()

    @mock_datazone()
    def test_it_decorates_a_function_called(self) -> None:
        assert DataZoneControls().client().list_domains()["items"] == []

    def test_it_decorates_a_class(self) -> None:
        @mock_datazone
        class TestSomething:
            def test_it(self) -> int:
                return len(DataZoneControls().client().list_domains()["items"])

            def helper(self) -> str:
                return "still there"

        assert TestSomething().test_it() == 0
        assert TestSomething().helper() == "still there"

    def test_each_use_begins_empty(self) -> None:
        with mock_datazone() as datazone:
            datazone.create_asset()
            datazone.fail("*", "AccessDeniedException", times=None)
            datazone.set_run_outcome(status="FAILED", times=None)
        with mock_datazone() as datazone:
            assert datazone.client().list_domains()["items"] == []
            runs = Runs(datazone)
            assert runs.status(runs.finish()) == "SUCCEEDED"

    def test_the_rest_of_moto_is_there_too(self) -> None:
        with mock_datazone():
            sts = boto3.client("sts", region_name="us-east-1")
            assert sts.get_caller_identity()["Account"] == "123456789012"

    def test_motos_own_mock_aws_knows_datazone_too(self) -> None:
        with mock_aws():
            assert boto3.client("datazone", region_name="eu-west-1").list_domains()["items"] == []

    @pytest.mark.parametrize(
        "options",
        [
            {"region_name": "us-east-1"},
            {"region_name": "us-east-1", "config": Config(use_dualstack_endpoint=True)},
            {"region_name": "us-east-1", "config": Config(use_fips_endpoint=True)},
            {"region_name": "us-gov-west-1"},
            {"region_name": "cn-north-1"},
            {"region_name": "us-east-1", "endpoint_url": "https://datazone.us-east-1.amazonaws.com"},
        ],
    )
    def test_every_endpoint_of_the_service_is_answered_within_the_process(
        self, options: dict[str, Any]
    ) -> None:
        with mock_datazone():
            assert boto3.client("datazone", **options).list_domains()["items"] == []

    def test_registering_again_changes_nothing(self) -> None:
        before = list(moto.backend_index.backend_url_patterns)
        registration.register()
        assert moto.backend_index.backend_url_patterns == before

    def test_accounts_are_apart_as_in_moto(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with mock_datazone() as datazone:
            datazone.create_asset()
            monkeypatch.setenv("MOTO_ACCOUNT_ID", "111122223333")
            assert datazone.client().list_domains()["items"] == []


def serve(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_datazone.testing", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_instructions(process: subprocess.Popen[str]) -> str:
    """Read what a server prints; the instruction to end all failures is the last."""
    assert process.stdout is not None
    lines = []
    while not lines or "/recover" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], (process.poll(), lines)
    return "".join(lines)


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> None:
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def printed_connection(instructions: str) -> dict[str, Any]:
    (line,) = re.findall(r"^export (.*)$", instructions, re.MULTILINE)
    (word,) = shlex.split(line)
    variable, _, connection = word.partition("=")
    assert variable == "AIRFLOW_CONN_DATAZONE_DEFAULT"
    return dict(json.loads(connection))


def client_of(connection: dict[str, Any]) -> Any:
    extra = connection["extra"]
    return boto3.client(
        "datazone",
        aws_access_key_id=connection["login"],
        aws_secret_access_key=connection["password"],
        region_name=extra["region_name"],
        endpoint_url=extra["endpoint_url"],
    )


def post(url: str, body: bytes | None, method: str = "POST") -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, body, method=method)
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        assert response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(response.read())


def curl(command: str) -> tuple[int, dict[str, Any]]:
    program, url, option, body = shlex.split(command)
    assert (program, option) == ("curl", "-d")
    return post(url, body.encode())


class TestCommand:
    @pytest.mark.parametrize(("number", "seed"), [(signal.SIGINT, []), (signal.SIGTERM, ["--no-seed"])])
    def test_it_serves_until_it_is_interrupted(self, number: signal.Signals, seed: list[str]) -> None:
        process = serve("--port", "0", *seed)
        instructions = read_instructions(process)
        connection = printed_connection(instructions)
        assert instructions.startswith(
            f"Amazon DataZone (local) at {connection['extra']['endpoint_url']}. Press Ctrl-C to stop it.\n"
        )
        domains = client_of(connection).list_domains()["items"]
        assert len(domains) == (0 if seed else 1)
        end(process, number)

    def test_the_connection_is_complete_and_the_assets_are_in_its_project(self) -> None:
        process = serve("--port", "0")
        instructions = read_instructions(process)
        connection = printed_connection(instructions)
        domain = connection["extra"]["domain_identifier"]
        project = connection["extra"]["owning_project_identifier"]
        assert f"\nDomain:  {domain}\nProject: {project}\nAssets:\n" in instructions
        found = client_of(connection).search(
            domainIdentifier=domain, owningProjectIdentifier=project, searchScope="ASSET"
        )
        assets = [item["assetItem"] for item in found["items"]]
        printed = re.findall(r"^  (\w+)  (\w+)$", instructions, re.MULTILINE)
        assert sorted(printed) == sorted((asset["identifier"], asset["name"]) for asset in assets)
        assert len(printed) == 5
        end(process)

    def test_identifiers_are_the_same_every_time_and_those_of_runs_are_not(self) -> None:
        servers = []
        for _ in range(2):
            process = serve("--port", "0")
            instructions = read_instructions(process)
            extra = printed_connection(instructions)["extra"]
            asset = re.findall(r"^  (\w+)  orders$", instructions, re.MULTILINE)[0]
            run = client_of(printed_connection(instructions)).start_metadata_generation_run(
                domainIdentifier=extra["domain_identifier"],
                owningProjectIdentifier=extra["owning_project_identifier"],
                target={"type": "ASSET", "identifier": asset},
                types=["BUSINESS_NAMES"],
            )
            servers.append((instructions.replace(extra["endpoint_url"], ""), run["id"]))
            end(process)
        (first, first_run), (second, second_run) = servers
        assert first == second
        assert first_run != second_run

    def test_the_host_and_the_port_are_those_that_are_asked_for(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        process = serve("--host", "0.0.0.0", "--port", str(port))
        connection = printed_connection(read_instructions(process))
        assert connection["extra"]["endpoint_url"] == f"http://127.0.0.1:{port}"
        assert len(client_of(connection).list_domains()["items"]) == 1
        end(process)

    def test_a_proxy_and_another_endpoint_do_not_keep_it_from_starting(self) -> None:
        proxy = "http://127.0.0.1:9"
        process = serve(
            "--port",
            "0",
            HTTP_PROXY=proxy,
            http_proxy=proxy,
            NO_PROXY="",
            no_proxy="",
            AWS_ENDPOINT_URL=proxy,
        )
        assert "orders" in read_instructions(process)
        end(process)

    @pytest.mark.parametrize("seed", ["--seed", "--no-seed"])
    def test_printed_commands_set_outcomes_and_failures(self, seed: str) -> None:
        process = serve("--port", "0", seed)
        instructions = read_instructions(process)
        set_outcome, fail, recover = re.findall(r"^curl .*$", instructions, re.MULTILINE)
        connection = printed_connection(instructions)
        extra = connection["extra"]
        client = client_of(connection)
        if seed == "--seed":
            domain, project = extra["domain_identifier"], extra["owning_project_identifier"]
            asset = re.findall(r"^  (\w+)  orders$", instructions, re.MULTILINE)[0]
        else:
            domain = client.create_domain(
                name="mine", domainExecutionRole="arn:aws:iam::123456789012:role/r"
            )["id"]
            project = client.create_project(domainIdentifier=domain, name="mine")["id"]
            asset = client.create_asset(
                domainIdentifier=domain,
                owningProjectIdentifier=project,
                name="mine",
                typeIdentifier="amazon.datazone.GlueTableAssetType",
            )["id"]

        def start_run() -> str:
            run = client.start_metadata_generation_run(
                domainIdentifier=domain,
                owningProjectIdentifier=project,
                target={"type": "ASSET", "identifier": asset},
                types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
            )
            return str(run["id"])

        assert curl(set_outcome)[0] == 200
        run = start_run()
        statuses = [
            client.get_metadata_generation_run(domainIdentifier=domain, identifier=run)["status"]
            for _ in range(2)
        ]
        assert statuses[-1] == "PARTIALLY_SUCCEEDED"
        assert curl(fail)[0] == 200
        with pytest.raises(ClientError, match="AccessDeniedException"):
            start_run()
        assert curl(fail)[0] == 200
        assert curl(recover)[0] == 200
        start_run()
        end(process)

    @pytest.mark.parametrize("seed", ["--seed", "--no-seed"])
    def test_printed_command_line_of_aws_is_one_that_aws_takes(self, seed: str) -> None:
        process = serve("--port", "0", seed)
        instructions = read_instructions(process)
        (command,) = re.findall(r"^AWS_ACCESS_KEY_ID=.* (aws datazone .*)$", instructions, re.MULTILINE)
        end(process)
        _, service, operation, *arguments = shlex.split(command)
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        endpoint_url = printed_connection(instructions)["extra"]["endpoint_url"]
        assert (options.pop("--region"), options.pop("--endpoint-url")) == ("us-east-1", endpoint_url)
        model = get_service_model(service)
        (shape,) = [
            model.operation_model(name).input_shape
            for name in model.operation_names
            if xform_name(name, "-") == operation
        ]
        given = {option.removeprefix("--") for option in options}
        assert given <= {xform_name(member, "-") for member in shape.members}
        assert given >= {xform_name(member, "-") for member in shape.required_members}

    def test_a_port_in_use_is_one_clear_line(self, server: DataZoneServer) -> None:
        port = server.endpoint_url.rsplit(":", 1)[1]
        process = serve("--port", port)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (1, "")
        assert len(err.splitlines()) == 1
        assert f"Cannot listen on 127.0.0.1:{port}" in err
        assert "in use" in err

    def test_without_motos_server_the_extra_to_install_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "flask_cors.py").write_text("raise ModuleNotFoundError('no', name='flask_cors')")
        done = subprocess.run(
            [sys.executable, "-c", "import airflow_provider_datazone.testing"],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        last = done.stderr.splitlines()[-1]
        assert "install airflow-provider-amazon-datazone[testing]" in last

    def test_it_needs_nothing_of_airflow(self) -> None:
        code = (
            "import sys; sys.modules['airflow'] = None; import airflow_provider_datazone.testing;"
            "name = 'airflow_provider_datazone.';"
            "print([m for m in sys.modules if m.startswith(name) and not m.startswith(name + 'testing')])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestControlPath:
    """What another process sets over HTTP; the printed commands set outcomes and failures, above."""

    @pytest.fixture
    def url(self, server: DataZoneServer) -> str:
        return f"{server.endpoint_url}/moto-api/datazone"

    def test_answer_is_the_control_with_all_its_arguments(self, url: str) -> None:
        body = {"operation": "GetMetadataGenerationRun", "error": "hang", "seconds": 1, "times": None}
        assert post(f"{url}/fail", json.dumps(body).encode()) == (
            200,
            {
                "fail": body
                | {"message": None, "after": False, "asset_identifier": None, "access_key_id": None}
            },
        )
        assert post(f"{url}/recover", b"") == (200, {"recover": {}})

    def test_rate_is_limited(self, server: DataZoneServer, url: str) -> None:
        body = b'{"operation": "ListDomains", "per_second": 0.01, "burst": 1}'
        assert post(f"{url}/limit", body)[0] == 200
        client = server.client(config=Config(retries={"total_max_attempts": 1}))
        client.list_domains()
        with pytest.raises(ClientError, match="ThrottlingException"):
            client.list_domains()

    def test_run_is_put_into_a_status(self, server: DataZoneServer, url: str) -> None:
        domain, project, asset = server.create_asset()
        client = server.client()
        run = client.start_metadata_generation_run(
            domainIdentifier=domain,
            owningProjectIdentifier=project,
            target={"type": "ASSET", "identifier": asset},
            types=["BUSINESS_NAMES"],
        )["id"]
        body = json.dumps({"run_identifier": run, "status": "FAILED"}).encode()
        assert post(f"{url}/set_run_status", body)[0] == 200
        found = client.get_metadata_generation_run(domainIdentifier=domain, identifier=run)
        assert found["status"] == "FAILED"

    def test_path_without_a_control_is_answered_in_json(self, url: str) -> None:
        status, answer = post(url, b"{}")
        assert status == 404
        assert answer["message"].startswith("Unknown control ")

    @pytest.mark.parametrize(
        ("control", "body", "message"),
        [
            ("fail", b"{", "The body must be a JSON object: "),
            ("fail", b"\xff", "The body must be a JSON object: "),
            ("fail", b"[" * 100_000, "The body must be a JSON object: "),
            ("fail", b"[]", "The body must be a JSON object, got []"),
            ("fail", b'{"error": "drop"}', "operation is required"),
            ("fail", b'{"operation": "*", "error": "lost"}', "Unknown error 'lost': use one of "),
            (
                "fail",
                b'{"operation": "*", "error": "drop", "time": 2}',
                "Unknown argument 'time': fail takes operation, error, times, ",
            ),
            ("recover", b'{"all": true}', "Unknown argument 'all': recover takes no arguments"),
            ("fail", b'{"operation": 1}', "operation must be a string, got 1"),
            ("fail", b'{"times": "2"}', 'times must be an integer up to 1,000,000 or null, got "2"'),
            ("fail", b'{"times": true}', "times must be an integer up to 1,000,000 or null, got true"),
            ("fail", b'{"seconds": NaN}', "seconds must be a number up to 1,000,000 or null, got NaN"),
            ("fail", b'{"seconds": 1e999}', "seconds must be a number up to 1,000,000 or null, got Infinity"),
            (
                "set_run_outcome",
                b'{"times": 1000001}',
                "times must be an integer up to 1,000,000 or null, got",
            ),
            (
                "limit",
                b'{"operation": "GetDomain", "per_second": 1e300}',
                "per_second must be a number up to",
            ),
            ("fail", b'{"after": 1}', "after must be true or false, got 1"),
            (
                "set_run_outcome",
                b'{"statuses": {"BUSINESS_NAMES": 1}}',
                'statuses must be a string or an object with strings or null, got {"BUSINESS_NAMES": 1}',
            ),
            ("set_run_outcome", b'{"statuses": "LOST"}', "Unknown status 'LOST': use one of "),
            ("set_run_status", b'{"run_identifier": "x", "status": null}', "There is no run 'x'"),
        ],
    )
    def test_wrong_arguments_are_a_clear_error(
        self, url: str, control: str, body: bytes, message: str
    ) -> None:
        status, answer = post(f"{url}/{control}", body)
        assert (status, list(answer)) == (400, ["message"])
        assert answer["message"].startswith(message)

    def test_wrong_control_or_method_is_a_clear_error(self, url: str) -> None:
        controls = "fail, limit, recover, set_run_outcome, set_run_status"
        for name in ("stop", "endpoint_url", "__init__", ""):
            message = f"Unknown control {name!r}: use one of {controls}"
            assert post(f"{url}/{name}", b"{}") == (404, {"message": message})
        message = "Use POST for recover, got GET"
        assert post(f"{url}/recover", None, "GET") == (405, {"message": message})

    def test_it_is_open_while_everything_fails_and_is_no_request_to_datazone(
        self, server: DataZoneServer, url: str
    ) -> None:
        server.require_credentials("other", "secret")
        server.fail("*", "drop", times=None)
        assert post(f"{url}/recover", b"{}")[0] == 200
        assert server.requests == []


FILTER_MEMBERS = get_service_model("datazone").shape_for("Filter").members
#: Before botocore 1.42.30 a filter has an attribute and a value, and no more.
with_operators = pytest.mark.skipif("operator" not in FILTER_MEMBERS, reason="botocore has no operators yet")


class Inventory:
    """The assets of a project, searched through boto3."""

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
        wanted = {"value" if isinstance(value, str) else "intValue": value}
        how = {} if operator is None else {"operator": operator}
        return self.names(filters={"filter": {"attribute": attribute, **wanted, **how}})

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
    def test_all_assets_of_the_domain_are_found_oldest_first(self, datazone: DataZoneControls) -> None:
        inventory = Inventory(datazone)
        for name in ("b", "a", "c"):
            inventory.add(name)
        datazone.create_asset("elsewhere")
        answer = inventory.page()
        assert [item["assetItem"]["name"] for item in answer["items"]] == ["b", "a", "c"]
        assert answer["totalMatchCount"] == 3
        assert "nextToken" not in answer

    def test_a_project_has_its_own_assets(self, inventory: Inventory) -> None:
        other = inventory.client.create_project(domainIdentifier=inventory.domain, name="other")["id"]
        inventory.add("ours")
        inventory.add("theirs", owningProjectIdentifier=other)
        assert inventory.names(owningProjectIdentifier=other) == ["theirs"]
        assert inventory.names(owningProjectIdentifier="nobody") == []

    def test_an_asset_is_what_get_answers_of_it(self, inventory: Inventory) -> None:
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
        got = inventory.get(asset)
        forms = {name: got.pop(name) for name in ("formsOutput", "readOnlyFormsOutput")}
        expected = {name: got[name] for name in got if name not in ("id", "revision", "ResponseMetadata")}
        assert inventory.search() == [{**expected, "identifier": asset}]
        assert inventory.search(additionalAttributes=["FORMS"])[0]["additionalAttributes"] == forms
        assert len(forms["readOnlyFormsOutput"]) == 1, "what was suggested since"

    def test_predictions_are_found_as_soon_as_they_are_there(
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

    def test_a_description_stands_where_it_was_written(self, inventory: Inventory) -> None:
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
    def test_text_is_looked_for_in_names_and_descriptions(
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
    def test_text_is_looked_for_where_the_search_says(
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
    def test_a_filter_compares_an_attribute(
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

    def test_a_filter_compares_identifiers(self, inventory: Inventory) -> None:
        ids = [inventory.add(name) for name in "ab"]
        assert inventory.filtered("identifier", ids[0]) == ["a"]
        assert inventory.filtered("id", ids[1]) == ["b"]
        assert inventory.filtered("owningProjectId", inventory.project) == ["a", "b"]

    def test_filters_see_the_latest_revision(self, inventory: Inventory) -> None:
        asset = inventory.add("raw_orders")
        inventory.generate(asset, NAMES)
        assert inventory.filtered("name", "Raw Orders") == []
        inventory.accept(asset)
        assert inventory.filtered("name", "Raw Orders") == ["Raw Orders"]
        assert inventory.filtered("name", "raw_orders") == []

    @pytest.mark.parametrize(
        ("value", "found"), [("None", []), ("null", []), pytest.param("", ["empty"], marks=with_operators)]
    )
    def test_no_filter_finds_what_an_asset_does_not_have(
        self, inventory: Inventory, value: str, found: list[str]
    ) -> None:
        inventory.add("bare")
        inventory.add("empty", description="")
        assert inventory.filtered("description", value) == found

    def test_clauses_are_combined(self, inventory: Inventory) -> None:
        for name, description in (("orders", "Sales"), ("customers", "People"), ("returns", "Sales")):
            inventory.add(name, description=description)

        def where(attribute: str, value: str) -> dict[str, Any]:
            return {"filter": {"attribute": attribute, "value": value}}

        either = {"or": [where("name", "orders"), where("name", "customers")]}
        assert inventory.names(filters=either) == ["orders", "customers"]
        assert inventory.names(filters={"and": [either, where("description", "Sales")]}) == ["orders"]
        assert inventory.names(filters={"and": [where("name", "orders"), where("name", "returns")]}) == []

    @with_operators
    def test_numbers_are_compared(self, inventory: Inventory) -> None:
        for rows in (1, 2, 3):
            inventory.add(f"t{rows}", formsInput=[form("StatsForm", rows=rows, share=rows / 2)])
        inventory.add("t", formsInput=[form("StatsForm", rows="2")])
        inventory.add("flag", formsInput=[form("StatsForm", rows=True)])
        found = {name: inventory.filtered("StatsForm.rows", 2, name) for name in models.COMPARISONS}
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
    def test_assets_are_found_by_when_they_were_written(
        self, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for hour, name in enumerate(("first", "second")):
            monkeypatch.setattr(models, "utcnow", lambda hour=hour: datetime(2026, 1, 15, hour))
            inventory.add(name)
        first = inventory.search(searchText="first")[0]["identifier"]
        inventory.generate(first, NAMES)
        monkeypatch.setattr(models, "utcnow", lambda: datetime(2026, 1, 15, 2))
        inventory.accept(first)
        one_hour = int(datetime(2026, 1, 15, 1, tzinfo=timezone.utc).timestamp() * 1000)
        assert inventory.filtered("creationTime", one_hour, "LT") == ["First"]
        for attribute in ("lastUpdatedTime", "lastUpdatedAt"):
            assert inventory.filtered(attribute, one_hour, "GT") == ["First"]
            assert inventory.filtered(attribute, one_hour, "GE") == ["First", "second"]

    @with_operators
    def test_a_filter_looks_for_text(self, inventory: Inventory) -> None:
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
    def test_filters_that_make_no_sense_are_refused(
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
    def test_assets_are_sorted_what_has_no_value_last_and_equals_oldest_first(
        self, inventory: Inventory, sort: dict[str, str], found: list[str]
    ) -> None:
        inventory.add("b", description="late")
        inventory.add("d", description="late", formsInput=[form("StatsForm", rows="many")])
        inventory.add("a", formsInput=[form("StatsForm", rows=9)])
        inventory.add("c", description="early", formsInput=[form("StatsForm", rows=10)])
        for page_size in (1, 3, 50):
            assert inventory.names(sort=sort, PaginationConfig={"PageSize": page_size}) == found

    def test_each_page_says_how_many_there_are(self, inventory: Inventory) -> None:
        for number in range(51):
            inventory.add(f"t{number}")
        inventory.add("other")
        first = inventory.page(searchText="t")
        assert (len(first["items"]), first["totalMatchCount"]) == (50, 52)
        second = inventory.page(searchText="t", nextToken=first["nextToken"], maxResults=2)
        assert (len(second["items"]), second["totalMatchCount"]) == (2, 52)
        assert "nextToken" not in second

    @pytest.mark.parametrize("sort", [None, "ASCENDING", "DESCENDING"])
    def test_pages_follow_one_another_while_assets_come_and_go(
        self, inventory: Inventory, sort: str | None
    ) -> None:
        how = {} if sort is None else {"sort": {"attribute": "name", "order": sort}}
        ids = {name: inventory.add(name) for name in ("t1", "t2", "t3", "t4")}
        first = inventory.page(searchText="t", maxResults=2, **how)
        seen = [item["assetItem"]["name"] for item in first["items"]]
        assert seen == (["t4", "t3"] if sort == "DESCENDING" else ["t1", "t2"])
        inventory.generate(ids[seen[-1]], NAMES)
        choice = {"predictionTarget": "name", "editedValue": "renamed"}
        inventory.client.accept_predictions(
            domainIdentifier=inventory.domain, identifier=ids[seen[-1]], acceptChoices=[choice]
        )
        inventory.add("t2.5")
        rest = inventory.page(searchText="t", nextToken=first["nextToken"], **how)
        assert [item["assetItem"]["name"] for item in rest["items"]] == {
            None: ["t3", "t4", "t2.5"],
            "ASCENDING": ["t2.5", "t3", "t4"],
            "DESCENDING": ["t2.5", "t2", "t1"],
        }[sort]

    def test_long_values_are_paged_too(self, inventory: Inventory) -> None:
        for name in "ab":
            inventory.add(name, description="\N{GRINNING FACE}" * 2048)
        sort = {"attribute": "description"}
        token = inventory.page(sort=sort, maxResults=1)["nextToken"]
        assert len(token) <= 8192
        assert inventory.names(sort=sort, PaginationConfig={"PageSize": 1}) == ["a", "b"]

    @pytest.mark.parametrize("token", ["nonsense", "IQ", "MQ==", "WyJhIl0="])
    def test_a_token_that_was_never_given_is_refused(self, inventory: Inventory, token: str) -> None:
        inventory.add("a")
        with pytest.raises(ClientError, match=r"ValidationException.*Invalid nextToken"):
            inventory.page(nextToken=token)

    @pytest.mark.parametrize("scope", ["GLOSSARY", "GLOSSARY_TERM", "DATA_PRODUCT"])
    def test_there_is_nothing_but_assets(self, inventory: Inventory, scope: str) -> None:
        inventory.add("a")
        answer = inventory.page(searchScope=scope)
        assert (answer["items"], answer["totalMatchCount"]) == ([], 0)

    def test_an_unknown_domain_is_denied(self, datazone: DataZoneControls) -> None:
        client = datazone.client()
        with pytest.raises(client.exceptions.AccessDeniedException):
            client.search(domainIdentifier="dzd-unknown", searchScope="ASSET")

    def test_it_fails_when_asked_to(self, datazone: DataZoneControls) -> None:
        inventory = Inventory(datazone)
        datazone.fail("Search", "ThrottlingException")
        client = impatient(datazone)
        with pytest.raises(ClientError, match="Rate exceeded"):
            client.search(domainIdentifier=inventory.domain, searchScope="ASSET", searchText="orders")
        assert datazone.requests[-1] == Request(
            "Search",
            {"domainIdentifier": inventory.domain, "searchScope": "ASSET", "searchText": "orders"},
        )
        assert inventory.search() == []
