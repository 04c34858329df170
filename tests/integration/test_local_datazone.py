"""The local DataZone: how runs go, how requests fail, and how it is started and stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import moto.backend_index
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)
from moto import mock_aws
from moto.moto_api import state_manager

from airflow_provider_datazone.testing import (
    AssetIdentifiers,
    DataZoneControls,
    DataZoneServer,
    Request,
    local,
    mock_datazone,
    models,
)

NAMES, DESCRIPTIONS = "BUSINESS_NAMES", "BUSINESS_DESCRIPTIONS"
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
    @pytest.mark.parametrize("code", sorted(local.ERRORS))
    def test_an_operation_fails_as_often_as_asked_for(self, datazone: DataZoneControls, code: str) -> None:
        runs = Runs(datazone)
        runs.client = impatient(datazone)
        run = runs.start()
        datazone.fail("GetMetadataGenerationRun", code, times=2)
        for _ in range(2):
            with pytest.raises(ClientError) as info:
                runs.get(run)
            assert info.value.response["Error"]["Code"] == code
            assert info.value.response["ResponseMetadata"]["HTTPStatusCode"] == local.ERRORS[code][0]
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

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (lambda d: d.fail("GetMetadataRun", "drop"), "Unknown operation 'GetMetadataRun'"),
            (lambda d: d.fail("GetDomain", "Throttling"), "Unknown error 'Throttling'"),
            (lambda d: d.fail("GetDomain", "drop", times=0), "times is at least 1"),
            (lambda d: d.fail("GetDomain", "drop", seconds=1), "are for 'hang' alone"),
            (lambda d: d.set_run_outcome(statuses="DONE"), "Unknown status 'DONE'"),
            (lambda d: d.set_run_outcome(statuses={"NAMES": "FAILED"}), "Unknown type 'NAMES'"),
            (lambda d: d.set_run_outcome(error_messages={"NAMES": "x"}), "Unknown type 'NAMES'"),
            (lambda d: d.set_run_outcome(polls=1, submitted_seconds=1), "not both"),
            (lambda d: d.set_run_outcome(polls=-1), "cannot be negative"),
            (lambda d: d.set_run_outcome(times=0), "times is at least 1"),
            (lambda d: d.set_run_status("nosuchrun", "FAILED"), "There is no run 'nosuchrun'"),
        ],
    )
    def test_what_cannot_be_is_refused_at_once(
        self, call: Callable[[DataZoneControls], None], said: str
    ) -> None:
        with mock_datazone() as datazone, pytest.raises(ValueError, match=said):
            call(datazone)


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
        local.register()
        assert moto.backend_index.backend_url_patterns == before

    def test_accounts_are_apart_as_in_moto(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with mock_datazone() as datazone:
            datazone.create_asset()
            monkeypatch.setenv("MOTO_ACCOUNT_ID", "111122223333")
            assert datazone.client().list_domains()["items"] == []


def serve(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_datazone.testing", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class TestCommand:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_serves_until_it_is_interrupted(self, number: signal.Signals) -> None:
        process = serve("--port", "0")
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        export, _, connection = lines[1].strip().partition("=")
        assert export == "export AIRFLOW_CONN_AWS_DEFAULT"
        extra = json.loads(connection.strip("'"))["extra"]
        assert extra["endpoint_url"] in lines[0]
        assert extra["endpoint_url"] in lines[2]
        client = boto3.client(
            "datazone", aws_access_key_id="testing", aws_secret_access_key="testing", **extra
        )
        assert client.list_domains()["items"] == []
        process.send_signal(number)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0

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
