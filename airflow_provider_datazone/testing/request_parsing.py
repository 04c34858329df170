"""Requests as received: the operation that they call, and its parameters.

Moto reads requests leniently: it converts strings to numbers, and treats a body that is not JSON as empty.
DataZone refuses such requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.model import OperationModel
from moto.core.utils import get_service_model
from werkzeug.datastructures import Headers

from .request_validation import known_members, violations

# More digits exceed the bounds of every type.
INTEGER = re.compile(r"-?[0-9]{1,30}")
#: The validation of deeper values could exceed Python's recursion limit.
MAX_LEVELS = 100


class ReceivedRequest(NamedTuple):
    """A request, as its client signed and sent it."""

    method: str
    url: str
    headers: Headers
    body: bytes

    @property
    def path_and_query(self) -> tuple[str, str]:
        """The path and the query of the URL, still encoded. Over HTTP, the URL may lack a host."""
        if self.url.startswith("/"):
            path, _, query = self.url.partition("?")
        else:
            _, _, path, query, _ = urlsplit(self.url)
        return path, query

    @classmethod
    def read(cls, request: Any) -> ReceivedRequest:
        """Convert a request of botocore (within the process) or of werkzeug (over HTTP)."""
        environ = getattr(request, "environ", None)
        if environ is not None:
            # Over HTTP, request.url is decoded; newer moto releases undo that.
            url = getattr(request, "raw_url", None) or environ.get("RAW_URI") or request.url
            return cls(request.method, url, Headers(request.headers), request.get_data())
        body = request.body or b""
        if hasattr(body, "read"):
            body = body.read()
        if isinstance(body, str):
            body = body.encode()
        headers = {
            name: value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
        }
        return cls(request.method, request.url, Headers(headers), bytes(body))


class OperationRequest(NamedTuple):
    """A request for an operation.

    :ivar params: the parameters as JSON values; those that cannot be read are missing
    :ivar violations: why DataZone refuses the parameters
    """

    operation: OperationModel
    params: dict[str, Any]
    violations: list[str]


def parse(request: ReceivedRequest) -> OperationRequest | None:
    """Find the operation and read its parameters.

    :return: None if DataZone has no operation with this method and path
    """
    path, query = request.path_and_query
    found = _find_operation(request.method, path)
    if found is None:
        return None
    operation, labels = found
    shape = operation.input_shape
    body, problem = _read_body(request.body)
    values = parse_qs(query, keep_blank_values=True)
    params: dict[str, Any] = {}
    for name, member in shape.members.items():
        wire_name = member.serialization.get("name", name)
        location = member.serialization.get("location")
        if location == "uri":
            params[name] = labels[wire_name]
        elif location == "querystring":
            if wire_name in values:
                params[name] = _from_query(member.type_name, values[wire_name][0])
        elif body.get(wire_name) is not None:
            params[name] = body[wire_name]
    problems = [problem] if problem else violations(shape, params)
    if problems:
        return OperationRequest(operation, params, problems)
    return OperationRequest(operation, known_members(shape, params), [])


def _read_body(body: bytes) -> tuple[dict[str, Any], str | None]:
    """Return the members of a body, and an error message if it cannot be read, else None."""
    try:
        members = json.loads(body.decode()) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        return {}, f"The request body is not valid JSON: {error}"
    if not isinstance(members, dict):
        return {}, "The request body is not a JSON object"
    level: list[Any] = [members]
    for _ in range(MAX_LEVELS):
        level = [
            item
            for value in level
            if isinstance(value, (dict, list))
            for item in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        return {}, f"The request body has more than {MAX_LEVELS} levels"
    return members, None


def _from_query(type_name: str, value: str) -> Any:
    return int(value) if type_name == "integer" and INTEGER.fullmatch(value) else value


def _find_operation(method: str, path: str) -> tuple[OperationModel, dict[str, str]] | None:
    """Return the operation, and the decoded labels of its path. A label may be empty."""
    segments = path.split("/")
    for template, operation in _routes().get((method, len(segments)), ()):
        labels = _match(template, segments)
        if labels is not None:
            return operation, labels
    return None


def _match(template: list[str], segments: list[str]) -> dict[str, str] | None:
    labels = {}
    for expected, segment in zip(template, segments, strict=True):
        if expected.startswith("{"):
            labels[expected.strip("{}+")] = unquote(segment)
        elif expected != segment:
            return None
    return labels


@cache
def _routes() -> Mapping[tuple[str, int], list[tuple[list[str], OperationModel]]]:
    """Return the templates of paths by method and number of segments, the most specific ones first."""
    model = get_service_model("datazone")
    routes: dict[tuple[str, int], list[tuple[list[str], OperationModel]]] = {}
    for name in model.operation_names:
        operation = model.operation_model(name)
        template = operation.http["requestUri"].partition("?")[0].split("/")
        routes.setdefault((operation.http["method"], len(template)), []).append((template, operation))
    for candidates in routes.values():
        candidates.sort(key=lambda route: sum(segment.startswith("{") for segment in route[0]))
    return routes
