"""A test makes requests to the local DataZone fail, hang or lose their responses."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
    ReadTimeoutError,
)

from airflow_provider_datazone.testing import (
    DataZoneControls,
    DataZoneServer,
    Request,
    local_responses,
    mock_datazone,
)
from tests.integration.testing.clients import Runs, client_without_retries, signed_client

# Characters that a URL, and therefore a signature, encodes. No identifier contains them.
SPECIAL_CHARACTERS = "a b/%20?&=+ü€*"
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


class TestFailures:
    @pytest.mark.parametrize("code", sorted(local_responses.ERRORS))
    def test_operation_fails_the_requested_number_of_times(
        self, datazone: DataZoneControls, code: str
    ) -> None:
        runs = Runs(datazone)
        runs.client = client_without_retries(datazone)
        run = runs.start()
        datazone.fail("GetMetadataGenerationRun", code, times=2)
        for _ in range(2):
            with pytest.raises(ClientError) as info:
                runs.get(run)
            assert info.value.response["Error"]["Code"] == code
            assert (
                info.value.response["ResponseMetadata"]["HTTPStatusCode"] == local_responses.ERRORS[code][0]
            )
        # A failed request does not advance the run, and other operations succeed.
        assert runs.list()[0]["status"] == "SUBMITTED"

    def test_every_operation_fails_until_reset(self, datazone: DataZoneControls) -> None:
        datazone.fail("*", "AccessDeniedException", times=None, message="not you")
        client = client_without_retries(datazone)
        for _ in range(3):
            with pytest.raises(ClientError, match="not you"):
                client.list_domains()
        datazone.reset()
        assert client.list_domains()["items"] == []

    def test_failures_occur_in_the_order_of_their_requests(self, server: DataZoneServer) -> None:
        server.fail("ListDomains", "ThrottlingException")
        server.fail("ListDomains", "InternalServerException")
        client, codes = client_without_retries(server), []
        for _ in range(2):
            with pytest.raises(ClientError) as info:
                client.list_domains()
            codes.append(info.value.response["Error"]["Code"])
        assert codes == ["ThrottlingException", "InternalServerException"]

    def test_recover_clears_pending_failures(self, datazone: DataZoneControls) -> None:
        datazone.fail("*", "InternalServerException", times=None)
        datazone.fail("ListDomains", "ThrottlingException", times=7)
        client = client_without_retries(datazone)
        with pytest.raises(ClientError):
            client.list_domains()
        datazone.recover()
        assert client.list_domains()["items"] == []

    def test_failure_for_an_access_key_affects_only_requests_signed_with_it(
        self, datazone: DataZoneControls
    ) -> None:
        datazone.fail("*", "UnrecognizedClientException", times=None, access_key_id="testing")
        with pytest.raises(ClientError, match="UnrecognizedClientException"):
            client_without_retries(datazone).list_domains()
        other = signed_client(datazone, "AKIAIOSFODNN7EXAMPLE")
        assert other.list_domains()["items"] == []

    def test_boto3_retries_a_throttled_request(self, server: DataZoneServer) -> None:
        client = server.client()
        server.fail("ListDomains", "ThrottlingException")
        assert client.list_domains()["ResponseMetadata"]["RetryAttempts"] == 1
        assert server.request_counts["ListDomains"] == 2

    def test_hanging_request_times_out(self, datazone: DataZoneControls) -> None:
        datazone.fail("ListDomains", "hang")
        with pytest.raises(ReadTimeoutError):
            client_without_retries(datazone, read_timeout=0.5).list_domains()
        assert datazone.client().list_domains()["items"] == []

    def test_response_is_delayed(self, server: DataZoneServer) -> None:
        server.fail("ListDomains", "hang", seconds=0.01)
        assert server.client().list_domains()["items"] == []

    def test_dropped_connection_closes_without_a_response(self, datazone: DataZoneControls) -> None:
        datazone.fail("ListDomains", "drop")
        client = client_without_retries(datazone)
        with pytest.raises(ConnectionClosedError):
            client.list_domains()
        assert client.list_domains()["items"] == []

    def test_dropped_connection_sends_no_bytes(self, server: DataZoneServer) -> None:
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

    def test_malformed_response_is_truncated_json(self, datazone: DataZoneControls) -> None:
        bodies = []
        client = client_without_retries(datazone)
        client.meta.events.register(
            "before-parse.datazone", lambda response_dict, **_: bodies.append(response_dict)
        )
        datazone.fail("ListDomains", "malformed")
        client.list_domains()
        assert bodies[0]["status_code"] == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(bodies[0]["body"])

    @pytest.mark.parametrize("error", ["drop", "hang", "InternalServerException"])
    def test_request_with_a_lost_response_takes_effect(self, datazone: DataZoneControls, error: str) -> None:
        runs = Runs(datazone)
        retrying_client = runs.client
        runs.client = client_without_retries(datazone, read_timeout=0.5)
        datazone.fail("StartMetadataGenerationRun", error, after=True)
        with pytest.raises((HTTPClientError, ClientError)):
            runs.start(clientToken="once")
        runs.client = retrying_client
        (item,) = runs.list()
        assert runs.start(clientToken="once") == item["id"]

    @pytest.mark.parametrize("operation", ["*", *NAMING_AN_ASSET])
    def test_failure_for_an_asset_affects_only_requests_that_name_it(
        self, datazone: DataZoneControls, operation: str
    ) -> None:
        affected = Runs(datazone)
        domain, project, asset = affected.asset
        other = datazone.create_asset(domain_identifier=domain, project_identifier=project)
        unaffected = Runs(datazone, other)
        run = affected.finish()
        unaffected.finish()
        for call in NAMING_AN_ASSET.values() if operation == "*" else [NAMING_AN_ASSET[operation]]:
            datazone.fail(operation, "AccessDeniedException", asset_identifier=asset)
            call(unaffected)
            # Requests that do not name an asset succeed.
            assert affected.status(run) == "SUCCEEDED"
            assert run in [item["id"] for item in affected.list()]
            with pytest.raises(ClientError, match="AccessDeniedException"):
                call(affected)
            call(affected)

    def test_failures_of_one_operation_wait_for_requests_that_name_their_assets(
        self, server: DataZoneServer
    ) -> None:
        first, second = Runs(server), Runs(server)
        first.client = second.client = client_without_retries(server)
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
        "call",
        [
            lambda client: client.get_domain(identifier=SPECIAL_CHARACTERS),
            lambda client: client.list_metadata_generation_runs(
                domainIdentifier="dzd-1", targetIdentifier=SPECIAL_CHARACTERS
            ),
            lambda client: client.create_project(domainIdentifier="dzd-1", name=SPECIAL_CHARACTERS * 10),
        ],
        ids=["path", "query", "body"],
    )
    def test_requests_must_be_signed_with_the_required_credentials(
        self, datazone: DataZoneControls, call: Callable[[Any], None]
    ) -> None:
        def error_code(key: str, secret: str, token: str | None = None) -> str:
            with pytest.raises(ClientError) as info:
                call(signed_client(datazone, key, secret, token))
            return str(info.value.response["Error"]["Code"])

        rejections = ("UnrecognizedClientException", "InvalidSignatureException")
        assert error_code("AKIAEXAMPLE", "any") not in rejections
        datazone.require_credentials("AKIAEXAMPLE", "right")
        assert error_code("AKIAEXAMPLE", "right") not in rejections
        assert error_code("AKIAEXAMPLE", "right", token="t/o+k=") not in rejections
        assert error_code("AKIAEXAMPLE", "wrong") == "InvalidSignatureException"
        assert error_code("AKIAOTHER", "right") == "UnrecognizedClientException"
        datazone.require_credentials("AKIAEXAMPLE", "rotated")
        assert error_code("AKIAEXAMPLE", "rotated") not in rejections
        assert error_code("AKIAEXAMPLE", "right") == "InvalidSignatureException"
        # The client of the controls keeps its access. After a reset, all credentials are valid.
        assert datazone.client().list_domains()["items"] == []
        datazone.reset()
        assert error_code("AKIAOTHER", "any") not in rejections

    def test_requests_are_counted_and_recorded_without_edited_values(
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

    def test_requests_record_their_time_and_remain_pairs(
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

    def test_request_with_a_wrong_signature_uses_up_no_failure(self, server: DataZoneServer) -> None:
        server.require_credentials("other", "secret")
        server.fail("ListDomains", "ConflictException")
        with pytest.raises(ClientError, match="InvalidSignatureException"):
            signed_client(server, "other", "wrong").list_domains()
        with pytest.raises(ClientError, match="ConflictException"):
            server.client().list_domains()

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda d: d.limit("GetMetadataRun", 1), "Unknown operation 'GetMetadataRun'"),
            (lambda d: d.limit("*", 1), r"Unknown operation '\*'"),
            (lambda d: d.limit("GetDomain", 0), "per_second must be a number above 0, got 0"),
            (lambda d: d.limit("GetDomain", float("nan")), "per_second must be a number above 0, got nan"),
            (lambda d: d.limit("GetDomain", 1, burst=0), "burst must be a whole number of at least 1, got 0"),
            (lambda d: d.fail("GetMetadataRun", "drop"), "Unknown operation 'GetMetadataRun'"),
            (lambda d: d.limit("SearchListings", 1), "does not implement the operation SearchListings"),
            (lambda d: d.fail("SearchListings", "drop"), "does not implement the operation SearchListings"),
            (lambda d: d.fail("GetDomain", "Throttling"), "Unknown error 'Throttling'"),
            (lambda d: d.fail("GetDomain", "drop", times=0), "times must be a whole number of at least 1"),
            (lambda d: d.fail("GetDomain", "drop", seconds=1), "seconds are for 'hang' only"),
            (lambda d: d.fail("GetDomain", "drop", asset_identifier="a"), "GetDomain names no asset"),
            (lambda d: d.set_run_outcome(statuses="DONE"), "Unknown final status 'DONE'"),
            (lambda d: d.set_run_outcome(statuses="SUBMITTED"), "Unknown final status 'SUBMITTED'"),
            (lambda d: d.set_run_outcome(status="IN_PROGRESS"), "cannot end with the status 'IN_PROGRESS'"),
            (lambda d: d.set_run_outcome(status=""), "cannot end with the status ''"),
            (lambda d: d.create_asset(project_identifier="p"), "Give the domain_identifier of the project"),
            (lambda d: d.set_run_outcome(statuses={"NAMES": "FAILED"}), "Unknown type 'NAMES'"),
            (lambda d: d.set_run_outcome(error_messages={"NAMES": "x"}), "Unknown type 'NAMES'"),
            (lambda d: d.set_run_outcome(polls=1, submitted_seconds=1), "not both"),
            (lambda d: d.set_run_outcome(polls=-1), "polls must be a whole number of at least 0"),
            (lambda d: d.set_run_outcome(polls=1.5), "polls must be a whole number of at least 0"),
            (
                lambda d: d.set_run_outcome(in_progress_seconds=math.nan),
                "in_progress_seconds must be a number",
            ),
            (lambda d: d.set_run_outcome(submitted_seconds=-1), "submitted_seconds must be a number from 0"),
            (lambda d: d.fail("GetDomain", "hang", seconds=math.inf), "seconds must be a number from 0"),
            (lambda d: d.fail("GetDomain", "drop", times=1.5), "times must be a whole number"),
            (lambda d: d.set_run_outcome(times=0), "times must be a whole number of at least 1"),
            (lambda d: d.set_run_status("nosuchrun", "FAILED"), "There is no run 'nosuchrun'"),
        ],
    )
    def test_invalid_arguments_raise_value_error(
        self, call: Callable[[DataZoneControls], None], message: str
    ) -> None:
        with mock_datazone() as datazone, pytest.raises(ValueError, match=message):
            call(datazone)
