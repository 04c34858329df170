"""The controls of a local DataZone over HTTP, for a server that runs in a process of its own."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from werkzeug.wrappers import Request, Response

from .local import DataZoneControls

#: Next to moto's own control paths, which no AWS service uses.
CONTROL_PATH = "/moto-api/datazone/"
CONTROLS = ("fail", "limit", "recover", "set_run_outcome", "set_run_status")

#: Far beyond any use, and what a server can bear.
LARGEST = 1_000_000

JSON_TYPES = {
    str: "a string",
    int: f"an integer up to {LARGEST:,}",
    float: f"a number up to {LARGEST:,}",
    bool: "true or false",
    Mapping: "an object with strings",
    NoneType: "null",
}


def respond(controls: DataZoneControls, request: Request) -> Response:
    """Call the control that a request names, with the request's JSON object as keyword arguments.

    :param controls: the server that the request has reached
    :param request: a request for a path below :data:`CONTROL_PATH`
    :return: 200 and the control with all its arguments; or 400, 404 or 405 and a ``message``
    """
    # Read before any refusal: closing a connection with unread data resets it, and the answer is lost.
    body = request.get_data()
    name = request.path.removeprefix(CONTROL_PATH)
    if name not in CONTROLS:
        return _json(404, {"message": f"Unknown control {name!r}: use one of {', '.join(CONTROLS)}"})
    if request.method != "POST":
        response = _json(405, {"message": f"Use POST for {name}, got {request.method}"})
        response.headers["Allow"] = "POST"
        return response
    control = getattr(controls, name)
    try:
        arguments = _arguments(control, body)
        control(**arguments)
    except ValueError as error:
        return _json(400, {"message": str(error)})
    bound = inspect.signature(control).bind(**arguments)
    bound.apply_defaults()
    return _json(200, {name: bound.arguments})


def _json(status: int, body: dict[str, Any]) -> Response:
    return Response(json.dumps(body) + "\n", status, mimetype="application/json")


def _arguments(control: Any, body: bytes) -> dict[str, Any]:
    """Read a control's keyword arguments.

    :raises ValueError: if the body is not a JSON object with the names and types that the control takes
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
        accepted = [get_origin(kind) or kind for kind in get_args(types[name]) or [types[name]]]
        if not any(_is_of(kind, value) for kind in accepted):
            expected = " or ".join(JSON_TYPES[kind] for kind in accepted)
            raise ValueError(f"{name} must be {expected}, got {json.dumps(value)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise ValueError(f"{name} is required")
    return arguments


def _is_of(kind: Any, value: Any) -> bool:
    if kind is Mapping:
        return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    if kind is float:
        return type(value) in (int, float) and abs(value) <= LARGEST
    return type(value) is kind and (kind is not int or abs(value) <= LARGEST)
