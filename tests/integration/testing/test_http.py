"""Requests over HTTP that no AWS client sends: each response is JSON with a message."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.core.utils import get_service_model

from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer, mock_datazone
from tests.integration.testing.clients import SIGNED, signed_client
from tests.integration.testing.wire import OPERATIONS


class Answer(NamedTuple):
    """An answer.

    :param code: the value of the header ``X-Amzn-Errortype``
    """

    status: int
    code: str | None
    message: Any


@pytest.fixture(scope="module")
def local() -> Iterator[tuple[DataZoneServer, AssetIdentifiers]]:
    with DataZoneServer() as server:
        yield server, server.create_asset()


def send(
    server: DataZoneServer,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Answer:
    """Send a path as it is: other clients normalize it."""
    connection = http.client.HTTPConnection(server.endpoint_url.removeprefix("http://"), timeout=30)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in (
        (SIGNED if headers is None else headers) | {"Content-Length": str(len(body))}
    ).items():
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert response.headers["Content-Type"] == "application/json"
    parsed = json.loads(content) if content else {}
    return Answer(response.status, response.headers["X-Amzn-Errortype"], parsed.get("message"))


@pytest.mark.parametrize("headers", [SIGNED, {}], ids=["signed", "unsigned"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/"),
        ("GET", "/v2//domains"),
        ("PATCH", "/v2/domains"),
        ("OPTIONS", "/v2/domains"),
        ("GET", "/v2/domains/d/a%0Ab"),
        ("GET", "/v2/domains/d/assets/a/b/c"),
        ("POST", "/v2/domains/d/metadata-generation-runs/r/cancel/"),
        ("GET", "/v2/%ff"),
        ("GET", "/v2/domains/d/nosuchthing?x=%ff"),
    ],
)
def test_unknown_path_is_an_unknown_operation(
    local: tuple[DataZoneServer, AssetIdentifiers], method: str, path: str, headers: dict[str, str]
) -> None:
    answer = send(local[0], method, path, headers=headers)
    assert answer[:2] == (404, "UnknownOperationException")
    assert repr(path.partition("?")[0]) in answer.message


@pytest.mark.parametrize(
    ("method", "path", "member"),
    [
        ("GET", "/v2/domains/", "identifier"),
        ("GET", "/v2/domains//metadata-generation-runs", "domainIdentifier"),
        ("GET", "/v2/domains/{domain}/metadata-generation-runs/", "identifier"),
        ("POST", "/v2/domains/{domain}/metadata-generation-runs//cancel", "identifier"),
        ("PUT", "/v2/domains/{domain}/assets//accept-predictions", "identifier"),
        ("PUT", "/v2/domains/{domain}/assets//reject-predictions", "identifier"),
        ("GET", "/v2/domains/{domain}/assets/", "identifier"),
        ("GET", "/v2/domains/{domain}/assets/%0A", "identifier"),
        ("GET", "/v2/domains/{domain}/assets/a%0Ab", "identifier"),
        ("GET", "/v2/domains/{domain}/projects/", "identifier"),
        ("GET", "/v2/domains/{domain}/listings/", "identifier"),
    ],
)
def test_empty_or_invalid_identifier_does_not_reach_another_operation(
    local: tuple[DataZoneServer, AssetIdentifiers], method: str, path: str, member: str
) -> None:
    server, asset = local
    answer = send(server, method, path.format(domain=asset.domain_identifier))
    assert answer[:2] == (400, "ValidationException")
    assert f"at '{member}'" in answer.message


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff{}", b"[]", b"null", b'"text"', b"5", b"[" * 100_000, b'{"name": ' + b"9" * 5000 + b"}"],
)
def test_body_that_is_not_a_json_object_is_invalid(
    local: tuple[DataZoneServer, AssetIdentifiers], body: bytes
) -> None:
    answer = send(local[0], "POST", "/v2/domains", body)
    assert answer[:2] == (400, "ValidationException")
    assert "The request body is not" in answer.message


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        (
            {"acceptRule": {"threshold": "0.5"}},
            "Value '0.5' at 'acceptRule.threshold' {}: Member must be a number",
        ),
        (
            {"acceptRule": {"threshold": True}},
            "Value 'True' at 'acceptRule.threshold' {}: Member must be a number",
        ),
        ({"acceptRule": {"threshold": float("nan")}}, "'acceptRule.threshold' {}: Member must have value"),
        ({"acceptRule": []}, "Value at 'acceptRule' {}: Member must be a structure"),
        ({"acceptChoices": {}}, "Value at 'acceptChoices' {}: Member must be a list"),
        (
            {"acceptChoices": [{"predictionTarget": "name", "predictionChoice": 5.7}]},
            "Value '5.7' at 'acceptChoices.1.member.predictionChoice' {}: Member must be an integer",
        ),
        (
            {"acceptChoices": [{"predictionTarget": "name", "predictionChoice": 2**31}]},
            "'acceptChoices.1.member.predictionChoice' {}: Member must have value less than or equal to 2147483647",
        ),
        ({"acceptChoices": [{"predictionTarget": 7}]}, "predictionTarget' {}: Member must be a string"),
        ({"clientToken": "\ud800"}, "Value at 'clientToken' {}: Member must be valid Unicode"),
    ],
)
def test_wrong_wire_type_is_invalid(
    local: tuple[DataZoneServer, AssetIdentifiers], change: dict[str, Any], constraint: str
) -> None:
    server, asset = local
    path = f"/v2/domains/{asset.domain_identifier}/assets/{asset.asset_identifier}/accept-predictions"
    answer = send(server, "PUT", path, json.dumps(change).encode())
    assert answer[:2] == (400, "ValidationException")
    assert constraint.format("failed to satisfy constraint") in answer.message


@pytest.mark.parametrize("value", ["5.7", "true", "", "1e1", "9" * 5000, "%C2%B2"])
def test_query_parameter_that_is_not_an_integer_is_invalid(
    local: tuple[DataZoneServer, AssetIdentifiers], value: str
) -> None:
    answer = send(local[0], "GET", f"/v2/domains?maxResults={value}")
    assert answer[:2] == (400, "ValidationException")
    assert "at 'maxResults' failed to satisfy constraint: Member must be an integer" in answer.message


@pytest.mark.parametrize(
    ("tags", "constraint"),
    [
        ({"": "x"}, "at 'tags.key' {}: Member must have length greater than or equal to 1"),
        ({"k" * 129: "x"}, "at 'tags.key' {}: Member must have length less than or equal to 128"),
        ({"key": "v" * 257}, "at 'tags.key.value' {}: Member must have length less than or equal to 256"),
        ({"key": 7}, "at 'tags.key.value' {}: Member must be a string"),
        (["key"], "at 'tags' {}: Member must be a map"),
    ],
)
def test_map_is_validated(local: tuple[DataZoneServer, AssetIdentifiers], tags: Any, constraint: str) -> None:
    body = json.dumps({"name": "a", "domainExecutionRole": "arn:aws:iam::123456789012:role/r", "tags": tags})
    answer = send(local[0], "POST", "/v2/domains", body.encode())
    assert answer[:2] == (400, "ValidationException")
    assert constraint.format("failed to satisfy constraint") in answer.message


def test_union_needs_exactly_one_member(local: tuple[DataZoneServer, AssetIdentifiers]) -> None:
    server, asset = local
    for clause in ({}, {"nosuchmember": []}, {"and": [], "or": []}):
        body = json.dumps({"searchScope": "ASSET", "filters": clause}).encode()
        answer = send(server, "POST", f"/v2/domains/{asset.domain_identifier}/search", body)
        assert answer[:2] == (400, "ValidationException")
        assert "at 'filters' failed to satisfy constraint: Member must have exactly one of" in answer.message


def test_deeply_nested_filter_is_invalid(local: tuple[DataZoneServer, AssetIdentifiers]) -> None:
    server, asset = local
    clause: dict[str, Any] = {"filter": {"attribute": "name", "value": "x"}}
    for _ in range(400):
        clause = {"and": [clause]}
    body = json.dumps({"searchScope": "ASSET", "filters": clause}).encode()
    answer = send(server, "POST", f"/v2/domains/{asset.domain_identifier}/search", body)
    assert answer[:2] == (400, "ValidationException")


@pytest.mark.parametrize("region", ["moon-1", "", "us-east-1%0A"])
def test_unknown_region_is_an_invalid_signature(
    local: tuple[DataZoneServer, AssetIdentifiers], region: str
) -> None:
    headers = {"Authorization": SIGNED["Authorization"].replace("us-east-1", region)}
    answer = send(local[0], "GET", "/v2/domains", headers=headers)
    assert answer[:2] == (403, "InvalidSignatureException")
    assert answer.message == f"Credential should be scoped to a valid Region, not {region!r}."


@pytest.mark.parametrize(
    "authorization", ["", "Basic eDp5", "AWS4-HMAC-SHA256 Credential=", SIGNED["Authorization"][:60], "é"]
)
def test_unsigned_request_is_answered(
    local: tuple[DataZoneServer, AssetIdentifiers], authorization: str
) -> None:
    answer = send(local[0], "GET", "/v2/domains", headers={"Authorization": authorization})
    assert answer.status == 200


def test_path_of_no_service_is_answered_without_html(
    local: tuple[DataZoneServer, AssetIdentifiers],
) -> None:
    service = {"Authorization": SIGNED["Authorization"].replace("datazone", "lambda")}
    assert send(local[0], "GET", "/nosuchpath", headers=service)[:2] == (404, "UnknownOperationException")


def exchange(server: DataZoneServer, request: bytes) -> tuple[bytes, bytes]:
    """Send bytes, and return the head and the body of the response."""
    host, _, port = server.endpoint_url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


HEAD = b"POST /v2/domains HTTP/1.1\r\nHost: local\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v2/" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        HEAD + b"X: x\r\n" * 200 + b"\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nnosuchnumber\r\n\r\n",
        HEAD + b"Content-Length: 100\r\n\r\n{",
        b"GET http://[bad/v2/domains HTTP/1.1\r\n\r\n",
        HEAD.replace(b"/v2/domains", b"/moto-api/datazone/fail") + b"Content-Length: 100\r\n\r\n{",
    ],
    ids=["long path", "long header", "many headers", "bad chunk", "short body", "bad URL", "short control"],
)
def test_request_that_cannot_be_read_is_answered_with_json(
    local: tuple[DataZoneServer, AssetIdentifiers], request_: bytes
) -> None:
    head, body = exchange(local[0], request_)
    status = int(head.split()[1])
    assert 400 <= status < 500
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body)["message"]


def test_failure_of_moto_is_answered_with_json(local: tuple[DataZoneServer, AssetIdentifiers]) -> None:
    for service in ("nosuchservice", "dynamodb"):
        headers = {"Authorization": SIGNED["Authorization"].replace("datazone", service)}
        answer = send(local[0], "GET", "/", headers=headers)
        assert answer.status >= 400
        assert answer.message


def test_reset_of_moto_works_with_any_signature() -> None:
    with DataZoneServer() as server:
        server.create_asset()
        signed = f"Authorization: {SIGNED['Authorization']}\r\n".encode()
        head, _ = exchange(server, b"POST /moto-api/reset HTTP/1.1\r\n" + signed + b"\r\n")
        assert head.split()[1] == b"200"
        assert server.client().list_domains()["items"] == []


def test_server_stops_although_a_client_does_not_read_its_response() -> None:
    with DataZoneServer() as server:
        asset = server.create_asset(description="x" * 2000)
        client = server.client()
        for _ in range(300):
            client.create_asset(
                domainIdentifier=asset.domain_identifier,
                owningProjectIdentifier=asset.project_identifier,
                name="orders",
                description="x" * 2000,
                typeIdentifier="amazon.datazone.GlueTableAssetType",
                formsInput=[{"formName": "f", "content": json.dumps("x" * 30_000)}],
            )
        body = json.dumps(
            {"searchScope": "ASSET", "maxResults": 50, "additionalAttributes": ["FORMS"]}
        ).encode()
        host, _, port = server.endpoint_url.removeprefix("http://").rpartition(":")
        slow = socket.create_connection((host, int(port)))
        path = f"/v2/domains/{asset.domain_identifier}/search".encode()
        slow.sendall(b"POST " + path + b" HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 60
    slow.close()


def test_responses_of_other_services_are_not_changed() -> None:
    with DataZoneServer() as server:
        # Moto sends these responses with the media type text/html.
        secrets = signed_client(server, service="secretsmanager")
        assert secrets.create_secret(Name="a", SecretString="b")["Name"] == "a"
        s3 = signed_client(server, service="s3")
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="page", Body=b"<!doctype html>", ContentType="text/html")
        assert s3.get_object(Bucket="bucket", Key="page")["Body"].read() == b"<!doctype html>"


# ------------------------------------------------------------------ operations


def test_operation_that_is_not_implemented_is_refused_once() -> None:
    with DataZoneServer() as server:
        client = server.client(config=Config(retries={"mode": "standard", "total_max_attempts": 3}))
        with pytest.raises(ClientError) as info:
            client.delete_domain(identifier="dzd-nosuchdomain")
    error = info.value.response
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert error["ResponseMetadata"]["RetryAttempts"] == 0
    assert error["Error"]["Message"] == "The local DataZone does not implement the operation DeleteDomain"


def test_every_other_operation_is_not_implemented(local: tuple[DataZoneServer, AssetIdentifiers]) -> None:
    model = get_service_model("datazone")
    others = set(model.operation_names) - OPERATIONS
    assert len(others) > 100
    wrong = {}
    for operation in sorted(others):
        request = model.operation_model(operation).http
        path = request["requestUri"].replace("{", "").replace("}", "")
        answer = send(local[0], request["method"], path)
        message = f"The local DataZone does not implement the operation {operation}"
        if answer != (501, "NotImplementedException", message):
            wrong[operation] = answer
    assert wrong == {}


def test_operation_that_is_not_implemented_raises_in_the_process() -> None:
    with mock_datazone(), pytest.raises(NotImplementedError, match="delete_domain"):
        boto3.client("datazone", "us-east-1").delete_domain(identifier="dzd-nosuchdomain")
