"""The AWS SDK for JavaScript and the AWS CLI work with the local DataZone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from moto.core.utils import get_service_model

from airflow_provider_datazone.testing import DataZoneServer
from tests.clients.clients import ACCESS_KEY, SECRET_KEY, Answer, Client
from tests.clients.proxy import RecordingProxy
from tests.clients.scenario import UNKNOWN_DOMAIN, Call, Catalog, scenario
from tests.integration.testing.wire import NAMES, OPERATIONS, PUBLISHED_ERRORS, response_violations

# The clients send a request again after the other published errors.
PERMANENT_ERRORS = sorted(PUBLISHED_ERRORS.keys() - {"InternalServerException", "ThrottlingException"})


@dataclass(frozen=True)
class Exchange:
    """A call, the answer of the client, and the responses that the client received."""

    call: Call
    answer: Answer
    responses: list[dict[str, Any]]

    @property
    def violations(self) -> list[str]:
        operation = get_service_model("datazone").operation_model(self.call.operation)
        return [
            f"{self.call.operation}: {violation}"
            for response in self.responses
            for violation in response_violations(operation, response)
        ]


class Recorder:
    """Sends calls with a client, and records the exchanges."""

    def __init__(self, client: Client, proxy: RecordingProxy) -> None:
        self.client = client
        self.proxy = proxy

    def send(self, operation: str, **members: Any) -> Exchange:
        return self.exchange(Call(operation, members))

    def exchange(self, call: Call) -> Exchange:
        number = len(self.proxy.responses)
        answer = self.client.send(call.operation, call.members)
        responses = self.proxy.responses[number:]
        assert answer.attempts in (None, len(responses)), f"{call.operation}: {answer}"
        return Exchange(call, answer, responses)


@pytest.fixture(scope="module")
def recorder(client: Client, proxy: RecordingProxy) -> Recorder:
    return Recorder(client, proxy)


@pytest.fixture(scope="module")
def exchanges(recorder: Recorder) -> list[Exchange]:
    """Run the scenario with a client."""
    exchanges: list[Exchange] = []
    script = scenario()
    call = next(script)
    while True:
        exchange = recorder.exchange(call)
        exchanges.append(exchange)
        # A test compares the errors of calls that must fail.
        assert call.error or exchange.answer.output is not None, f"{call.operation}: {exchange.answer.error}"
        try:
            call = script.send(exchange.answer.output or {})
        except StopIteration:
            return exchanges


def without_times(value: Any) -> Any:
    """Remove timestamps, which each client formats in its own way."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not key.endswith("At")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_scenario_calls_every_operation(exchanges: list[Exchange]) -> None:
    assert {exchange.call.operation for exchange in exchanges if exchange.call.error is None} == OPERATIONS


def test_every_response_follows_the_service_model(exchanges: list[Exchange]) -> None:
    assert [violation for exchange in exchanges for violation in exchange.violations] == []


def test_client_sends_every_request_once(exchanges: list[Exchange]) -> None:
    assert [exchange.call for exchange in exchanges if len(exchange.responses) != 1] == []


def test_client_reads_every_member_of_a_response(exchanges: list[Exchange]) -> None:
    for exchange in exchanges:
        if exchange.call.error is None:
            received = json.loads(exchange.responses[-1]["body"] or b"{}")
            assert without_times(exchange.answer.output) == without_times(received), exchange.call.operation


def test_client_reads_the_name_and_the_message_of_an_error(exchanges: list[Exchange]) -> None:
    failed = [exchange for exchange in exchanges if exchange.call.error]
    assert len({exchange.call.error for exchange in failed}) == 4
    for exchange in failed:
        message = json.loads(exchange.responses[-1]["body"])["message"]
        assert exchange.answer.error == (exchange.call.error, message), exchange.call


@pytest.mark.parametrize("name", PERMANENT_ERRORS)
def test_client_does_not_retry_a_permanent_error(
    recorder: Recorder, datazone_server: DataZoneServer, name: str
) -> None:
    # StartMetadataGenerationRun is the only operation that declares all errors.
    datazone_server.fail("StartMetadataGenerationRun", name, message="as asked for")
    catalog = Catalog(UNKNOWN_DOMAIN, "project", "asset")
    exchange = recorder.send("StartMetadataGenerationRun", **catalog.run_of(NAMES))
    assert exchange.answer.error == (name, "as asked for")
    assert [response["status_code"] for response in exchange.responses] == [PUBLISHED_ERRORS[name]]
    assert exchange.violations == []


@pytest.mark.parametrize("name", ["InternalServerException", "ThrottlingException"])
def test_client_retries_a_transient_error(
    recorder: Recorder, datazone_server: DataZoneServer, name: str
) -> None:
    datazone_server.fail("ListDomains", name)
    exchange = recorder.send("ListDomains")
    assert exchange.answer.error is None
    statuses = [response["status_code"] for response in exchange.responses]
    assert statuses == [PUBLISHED_ERRORS[name], 200]
    assert exchange.violations == []


def test_operation_that_is_not_implemented_fails_without_retry(recorder: Recorder) -> None:
    exchange = recorder.send("DeleteDomain", identifier=UNKNOWN_DOMAIN)
    (response,) = exchange.responses
    assert response["status_code"] == 501
    assert json.loads(response["body"])["message"]
    assert exchange.answer.error
    assert "NotImplemented" in exchange.answer.error[0]


def test_request_with_a_wrong_signature_is_rejected(
    recorder: Recorder, datazone_server: DataZoneServer
) -> None:
    datazone_server.require_credentials(ACCESS_KEY, "another secret")
    try:
        exchange = recorder.send("ListDomains")
    finally:
        datazone_server.require_credentials(ACCESS_KEY, SECRET_KEY)
    assert exchange.answer.error
    assert exchange.answer.error[0] == "InvalidSignatureException"
