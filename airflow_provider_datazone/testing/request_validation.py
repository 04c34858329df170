"""Validation of requests against the service model, with messages in the format of AWS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

# The service model allows two types. AWS has three, and an example in its documentation sends all three.
MAX_ITEMS = {"MetadataGenerationRunTypes": 3}
# A confidence score. The service model does not limit it.
NUMBER_BOUNDS = {"threshold": (0, 1)}
TYPE_BOUNDS = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
# By type in the service model: its name in a message, and the Python types of its JSON values.
JSON_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "structure": ("a structure", (dict,)),
    "map": ("a map", (dict,)),
    "list": ("a list", (list,)),
    "string": ("a string", (str,)),
    "boolean": ("a boolean", (bool,)),
    "integer": ("an integer", (int,)),
    "long": ("an integer", (int,)),
    "float": ("a number", (int, float)),
    "double": ("a number", (int, float)),
}
# The maximum number of characters of a value in a message.
MAX_SHOWN = 200


def violations(shape: StructureShape, params: dict[str, Any]) -> list[str]:
    """Return a message for each constraint of the service model that a request violates.

    :param shape: the operation's input shape
    :param params: the request's parameters as JSON values
    """
    return list(_violations(shape, params, "", ""))


def known_members(shape: Shape, value: Any) -> Any:
    """Return a value without the members that the service model does not know. AWS ignores them."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {
            name: known_members(member, value[name])
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [known_members(shape.member, item) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: known_members(shape.value, item) for key, item in value.items()}
    return value


def _violations(shape: Shape, value: Any, path: str, name: str) -> Iterator[str]:
    type_name, types = JSON_TYPES.get(shape.type_name, ("", (object,)))
    has_type = isinstance(value, types) and not (isinstance(value, bool) and types[0] is int)
    if not has_type:
        yield _violation(shape, value, path, f"Member must be {type_name}")
    elif isinstance(shape, StructureShape):
        yield from _structure_violations(shape, value, path)
    elif isinstance(shape, ListShape):
        yield from _range(shape, value, path, "length", len(value))
        for number, item in enumerate(value, start=1):
            yield from _violations(shape.member, item, f"{path}.{number}.member", name)
    elif isinstance(shape, MapShape):
        yield from _range(shape, value, path, "length", len(value))
        for key, item in value.items():
            yield from _violations(shape.key, key, f"{path}.key", "key")
            yield from _violations(shape.value, item, f"{path}.{key}.value", key)
    elif shape.type_name == "string":
        yield from _string_violations(shape, value, path)
    elif types[0] is int:
        low, high = NUMBER_BOUNDS.get(name, TYPE_BOUNDS.get(shape.type_name, (None, None)))
        yield from _range(shape, value, path, "value", value, low, high)


def _structure_violations(shape: StructureShape, value: dict[str, Any], path: str) -> Iterator[str]:
    members = [member for member in shape.members if value.get(member) is not None]
    if shape.is_tagged_union and len(members) != 1:
        yield _violation(shape, value, path, f"Member must have exactly one of: {', '.join(shape.members)}")
    for member, member_shape in shape.members.items():
        member_path = f"{path}.{member}" if path else member
        if member in members:
            yield from _violations(member_shape, value[member], member_path, member)
        elif member in shape.required_members:
            yield f"Value null at '{member_path}' failed to satisfy constraint: Member must not be null"


def _string_violations(shape: Shape, value: str, path: str) -> Iterator[str]:
    try:
        value.encode()
    except UnicodeEncodeError:
        yield f"Value at '{path}' failed to satisfy constraint: Member must be valid Unicode"
        return
    enum, pattern = shape.metadata.get("enum"), shape.metadata.get("pattern")
    if enum and value not in enum:
        yield _violation(shape, value, path, f"Member must satisfy enum value set: [{', '.join(enum)}]")
    yield from _range(shape, value, path, "length", len(value))
    if pattern and not _matches(pattern, value):
        yield _violation(shape, value, path, f"Member must satisfy regular expression pattern: {pattern}")


def _matches(pattern: str, value: str) -> bool:
    # Older service models anchor their patterns, and not all of them at the end. Python's $ also matches
    # before a newline at the end.
    is_prefix = pattern.startswith("^") and not pattern.endswith("$")
    match = re.search if is_prefix else re.fullmatch
    try:
        # The patterns are ECMA 262, where classes such as \w have ASCII characters only.
        return bool(match(pattern, value, re.ASCII))
    except re.error:
        # Python has no property classes, such as \p{L}.
        return True


def _range(
    shape: Shape,
    value: Any,
    path: str,
    quantity: str,
    size: float,
    low: float | None = None,
    high: float | None = None,
) -> Iterator[str]:
    low = shape.metadata.get("min", low)
    high = MAX_ITEMS.get(shape.name, shape.metadata.get("max", high))
    if low is not None and not size >= low:
        yield _violation(shape, value, path, f"Member must have {quantity} greater than or equal to {low}")
    if high is not None and not size <= high:
        yield _violation(shape, value, path, f"Member must have {quantity} less than or equal to {high}")


def _violation(shape: Shape, value: Any, path: str, constraint: str) -> str:
    # A structure or a list may contain sensitive values.
    is_shown = isinstance(value, (str, int, float)) and not shape.metadata.get("sensitive")
    shown = f"Value '{str(value)[:MAX_SHOWN]}'" if is_shown else "Value"
    return f"{shown} at '{path}' failed to satisfy constraint: {constraint}"
