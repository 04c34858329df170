"""The controls of a local DataZone over HTTP, for clients in other processes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from .controls import MAX_SECONDS, DataZoneControls

#: Below moto's own path for controls, which no AWS service uses.
CONTROL_PATH = "/moto-api/datazone/"
CONTROLS = (
    "fail",
    "limit",
    "recover",
    "require_credentials",
    "require_permissions",
    "set_run_outcome",
    "set_run_status",
)

#: Larger than any useful value, and small enough for the server to handle.
MAX_NUMBER = MAX_SECONDS

JSON_TYPES = {
    str: "a string",
    int: f"an integer up to {MAX_NUMBER:,}",
    float: f"a number up to {MAX_NUMBER:,}",
    bool: "true or false",
    Mapping: "an object with strings",
    NoneType: "null",
}


def respond(controls: DataZoneControls, request: Request) -> Response:
    """Call the control in a request's path with the request's JSON object as keyword arguments.

    :param controls: the server that received the request
    :param request: a request for a path below :data:`CONTROL_PATH`
    :return: 200 and the control with its arguments except secrets; or 400, 404 or 405 and a ``message``
    """
    # Read the body before any error response: closing a connection with unread data resets it, and the client
    # would not receive the response.
    try:
        body = request.get_data()
    except (OSError, HTTPException) as error:
        return _json_response(400, {"message": f"The request cannot be read: {error}"})
    name = request.path.removeprefix(CONTROL_PATH)
    if name not in CONTROLS:
        return _json_response(404, {"message": f"Unknown control {name!r}: use one of {', '.join(CONTROLS)}"})
    if request.method != "POST":
        response = _json_response(405, {"message": f"Use POST for {name}, got {request.method}"})
        response.headers["Allow"] = "POST"
        return response
    control = getattr(controls, name)
    try:
        arguments = _parse_arguments(control, body)
        control(**arguments)
    except ValueError as error:
        return _json_response(400, {"message": str(error)})
    bound = inspect.signature(control).bind(**arguments)
    bound.apply_defaults()
    shown = {key: value for key, value in bound.arguments.items() if key != "secret_access_key"}
    return _json_response(200, {name: shown})


def _json_response(status: int, body: dict[str, Any]) -> Response:
    return Response(json.dumps(body) + "\n", status, mimetype="application/json")


def _parse_arguments(control: Any, body: bytes) -> dict[str, Any]:
    """Parse the keyword arguments of a control.

    :raises ValueError: if the body is not a JSON object with the argument names and types of the control
    """
    try:
        arguments = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The body must be a JSON object: {error}") from None
    if not isinstance(arguments, dict):
        raise ValueError(f"The body must be a JSON object, got {json.dumps(arguments)}")
    parameters = inspect.signature(control).parameters
    types = get_type_hints(control)
    for name, value in arguments.items():
        if name not in parameters:
            takes = ", ".join(parameters) or "no arguments"
            raise ValueError(f"Unknown argument {name!r}: {control.__name__} takes {takes}")
        accepted = [get_origin(type_) or type_ for type_ in get_args(types[name]) or [types[name]]]
        if not any(_has_type(value, type_) for type_ in accepted):
            expected = " or ".join(JSON_TYPES[type_] for type_ in accepted)
            raise ValueError(f"{name} must be {expected}, got {json.dumps(value)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise ValueError(f"{name} is required")
    return arguments


def _has_type(value: Any, type_: Any) -> bool:
    if type_ is Mapping:
        return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    if type_ is float:
        return type(value) in (int, float) and abs(value) <= MAX_NUMBER
    return type(value) is type_ and (type_ is not int or abs(value) <= MAX_NUMBER)
