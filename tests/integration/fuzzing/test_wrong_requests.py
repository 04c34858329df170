"""The local DataZone responds to any request with JSON: an output or an error that the operation declares.

The requests are generated from the service model: some follow it, the others violate one of its constraints.
"""

from __future__ import annotations

import http.client
import json
import re
import string
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from hypothesis import given, strategies as st
from moto.core.utils import get_service_model

from airflow_provider_datazone.testing import DataZoneServer
from tests.integration.testing.clients import SIGNED
from tests.integration.testing.wire import OPERATIONS, response_violations, violations
from tests.wrong import fuzz

MODEL = get_service_model("datazone")
# The deepest list in generated parameters.
MAX_DEPTH = 5
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


class Local(NamedTuple):
    """A server, a connection to it, and identifiers of existing resources by member name."""

    connection: http.client.HTTPConnection
    identifiers: dict[str, list[str]]


@pytest.fixture(scope="module")
def local() -> Iterator[Local]:
    with DataZoneServer() as server:
        domain, project, asset = server.create_asset()
        client = server.client()
        server.set_run_outcome(polls=0, times=None)
        run = client.start_metadata_generation_run(
            domainIdentifier=domain,
            owningProjectIdentifier=project,
            target={"type": "ASSET", "identifier": asset},
            types=["BUSINESS_NAMES"],
        )["id"]
        listing = client.create_listing_change_set(
            domainIdentifier=domain, entityIdentifier=asset, entityType="ASSET", action="PUBLISH"
        )["listingId"]
        user = client.list_project_memberships(domainIdentifier=domain, projectIdentifier=project)
        connection = http.client.HTTPConnection(server.endpoint_url.removeprefix("http://"), timeout=30)
        identifiers = {
            "domainIdentifier": [domain],
            "identifier": [asset, run, listing, project, domain],
            "entityIdentifier": [asset],
            "targetIdentifier": [asset],
            "owningProjectIdentifier": [project],
            "projectIdentifier": [project],
            "userIdentifier": [user["members"][0]["memberDetails"]["user"]["userId"]],
            "predictionTarget": ["name", "summary", "columns[0].columnName"],
            "attribute": ["name", "creationTime", "GlueTableForm.columns"],
            "revision": ["1"],
            "clientToken": ["token-1"],
        }
        yield Local(connection, identifiers)
        connection.close()


class Response(NamedTuple):
    """A response.

    :param problems: how the response violates the service model
    """

    status: int
    code: str | None
    message: str
    problems: list[str]


def send(
    local: Local, operation: OperationModel, params: dict[str, Any], body: bytes | None = None
) -> Response:
    """Send a request with parameters that botocore would refuse, too."""
    path, query, members = operation.http["requestUri"], [], {}
    for name, value in params.items():
        member = operation.input_shape.members[name]
        location, wire_name = member.serialization.get("location"), member.serialization.get("name", name)
        if location == "uri":
            path = path.replace(f"{{{wire_name}}}", quote(as_text(value), safe=""))
        elif location == "querystring":
            query.append((wire_name, as_text(value)))
        else:
            members[wire_name] = value
    if query:
        path += f"?{urlencode(query)}"
    content = json.dumps(members).encode() if body is None else body
    headers = {**SIGNED, "Content-Type": "application/json"}
    local.connection.request(operation.http["method"], path, content, headers)
    received = local.connection.getresponse()
    answer = received.read()
    assert received.headers["Content-Type"] == "application/json", answer
    raw = {
        "status_code": received.status,
        "headers": {name.lower(): value for name, value in received.headers.items()},
        "body": answer,
    }
    message = json.loads(answer or b"{}").get("message", "") if received.status >= 300 else ""
    code = received.headers.get("X-Amzn-Errortype")
    return Response(received.status, code, message, response_violations(operation, raw))


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def breaks(shape: Shape, value: Any) -> bool:
    """Return whether a value violates the model. AWS ignores members that it does not know."""
    return any(not violation.endswith("not in the model") for violation in violations(shape, value))


def allowed(
    shape: Shape, name: str, identifiers: dict[str, list[str]], depth: int = 0
) -> st.SearchStrategy[Any]:
    """Return values that the service model allows, among them identifiers of existing resources."""
    if isinstance(shape, StructureShape):
        members = {
            key: allowed(member, key, identifiers, depth + 1)
            for key, member in shape.members.items()
            # The lists of a filter clause contain clauses.
            if depth < MAX_DEPTH or not isinstance(member, ListShape)
        }
        if shape.is_tagged_union:
            return st.one_of([st.fixed_dictionaries({key: value}) for key, value in members.items()])
        required = {key: members.pop(key) for key in shape.required_members}
        return st.fixed_dictionaries(required, optional=members)
    size = {"min_size": shape.metadata.get("min", 0), "max_size": min(shape.metadata.get("max", 3), 60)}
    if isinstance(shape, ListShape):
        size["max_size"] = max(size["min_size"], min(size["max_size"], 3))
        return st.lists(st.deferred(lambda: allowed(shape.member, name, identifiers, depth + 1)), **size)
    if isinstance(shape, MapShape):
        size["max_size"] = max(size["min_size"], min(size["max_size"], 3))
        keys, values = (allowed(each, name, identifiers, depth + 1) for each in (shape.key, shape.value))
        return st.dictionaries(keys, values, **size)
    if shape.type_name == "string":
        strings = allowed_strings(shape, size)
        known = [value for value in identifiers.get(name, []) if not breaks(shape, value)]
        return st.sampled_from(known) | strings if known else strings
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if name == "threshold":
        low, high = 0, 1
    if shape.type_name == "boolean":
        return st.booleans()
    if shape.type_name in ("integer", "long"):
        return st.integers(-(2**31) if low is None else low, 2**31 - 1 if high is None else high)
    return st.floats(low, high, allow_nan=False, allow_infinity=False, width=32)


def allowed_strings(shape: Shape, size: dict[str, int]) -> st.SearchStrategy[str]:
    if shape.metadata.get("enum"):
        return st.sampled_from(shape.metadata["enum"])
    pattern = shape.metadata.get("pattern")
    strings = st.text(st.characters(exclude_categories=["Cs"]), **size)
    if pattern and "\\p" not in pattern:
        strings = st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)
    return strings.filter(lambda value: not breaks(shape, value))


@st.composite
def violating(
    draw: st.DrawFn, operation: OperationModel, identifiers: dict[str, list[str]]
) -> dict[str, Any]:
    """Return parameters of which one violates a constraint."""
    shape = operation.input_shape
    params = draw(allowed(shape, "", identifiers))
    name = draw(st.sampled_from(sorted(shape.members)))
    member = shape.members[name]
    values = JSON.filter(lambda value: value is not None and breaks(member, value))
    if name == "types":
        # AWS has three types, although the service model allows two.
        values = values.filter(lambda value: not isinstance(value, list) or len(value) != 3)
    if member.serialization.get("location") == "querystring":
        if member.type_name == "string":
            values = TEXT.filter(lambda value: breaks(member, value))
        else:
            values = TEXT.filter(lambda value: not value.lstrip("-").isdecimal())
    elif member.serialization.get("location") == "uri":
        values = st.just("") | TEXT.filter(lambda value: "/" not in value and breaks(member, value))
    elif name in shape.required_members and draw(st.booleans()):
        return {key: value for key, value in params.items() if key != name}
    return {**params, name: draw(values)}


def of_operations(test: Any) -> Any:
    """Run a test with each operation and 15 examples."""
    return pytest.mark.parametrize("name", sorted(OPERATIONS))(fuzz(15)(given(data=st.data())(test)))


@of_operations
def test_allowed_request_is_answered_as_the_operation_declares(
    local: Local, name: str, data: st.DataObject
) -> None:
    operation = MODEL.operation_model(name)
    params = data.draw(allowed(operation.input_shape, "", local.identifiers))
    response = send(local, operation, params)
    assert response.problems == []
    assert response.status != 500
    assert "validation error" not in response.message


@of_operations
def test_request_that_violates_the_model_is_invalid(local: Local, name: str, data: st.DataObject) -> None:
    operation = MODEL.operation_model(name)
    response = send(local, operation, data.draw(violating(operation, local.identifiers)))
    assert response.problems == []
    assert (response.status, response.code) == (400, "ValidationException")
    assert "validation error" in response.message


@of_operations
def test_any_body_is_answered_as_the_operation_declares(local: Local, name: str, data: st.DataObject) -> None:
    operation = MODEL.operation_model(name)
    params = data.draw(allowed(operation.input_shape, "", local.identifiers))
    body = data.draw(st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()))
    response = send(local, operation, params, body)
    assert response.problems == []
    assert response.status != 500


PATHS = st.text(string.ascii_letters + "/%.?#&=-_~:@!$'()*+,;{}[]|^`\"<>\\0123456789", max_size=40)


@fuzz(200)
@given(method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]), path=PATHS)
def test_any_path_is_answered_with_json(local: Local, method: str, path: str) -> None:
    local.connection.putrequest(method, f"/v2/{path}", skip_accept_encoding=True)
    local.connection.putheader("Authorization", SIGNED["Authorization"])
    local.connection.putheader("Content-Length", "0")
    local.connection.endheaders()
    received = local.connection.getresponse()
    body = json.loads(received.read())
    assert received.headers["Content-Type"] == "application/json"
    assert received.status in (200, 201, 400, 403, 404, 409, 501)
    assert received.status < 300 or body["message"]
