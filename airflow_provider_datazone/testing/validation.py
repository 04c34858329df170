"""Validation of requests against the service model, with the error messages of AWS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from .exceptions import ValidationException

# The service model allows two types. AWS has three, and an example in its documentation sends all three.
MAX_ITEMS = {"MetadataGenerationRunTypes": 3}
# A confidence score. The service model does not limit it.
NUMBER_BOUNDS = {"threshold": (0, 1)}


def validate_input(shape: StructureShape, params: dict[str, Any]) -> None:
    """Validate a request against the constraints that botocore does not check.

    :param shape: the operation's input shape
    :param params: the request's parameters
    :raises ValidationException: with every constraint that the request violates
    """
    errors = list(_violations(shape, params, "", ""))
    if errors:
        plural = "s" if len(errors) > 1 else ""
        raise ValidationException(f"{len(errors)} validation error{plural} detected: {'; '.join(errors)}")


def _violations(shape: Shape, value: Any, path: str, name: str) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            yield _violation(shape, value, path, "Member must be a structure")
            return
        for member, member_shape in shape.members.items():
            member_path = f"{path}.{member}" if path else member
            if value.get(member) is not None:
                yield from _violations(member_shape, value[member], member_path, member)
            elif member in shape.required_members:
                yield f"Value null at '{member_path}' failed to satisfy constraint: Member must not be null"
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            yield _violation(shape, value, path, "Member must be a list")
            return
        yield from _range(shape, value, path, "length", len(value), MAX_ITEMS.get(shape.name))
        for number, item in enumerate(value, start=1):
            yield from _violations(shape.member, item, f"{path}.{number}.member", name)
    elif isinstance(shape, MapShape):
        return
    elif shape.type_name == "string":
        if not isinstance(value, str):
            yield _violation(shape, value, path, "Member must be a string")
            return
        enum, pattern = shape.metadata.get("enum"), shape.metadata.get("pattern")
        if enum and value not in enum:
            yield _violation(shape, value, path, f"Member must satisfy enum value set: [{', '.join(enum)}]")
        yield from _range(shape, value, path, "length", len(value))
        if pattern and not re.fullmatch(pattern, value):
            yield _violation(shape, value, path, f"Member must satisfy regular expression pattern: {pattern}")
    elif shape.type_name in ("integer", "long", "float", "double"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            yield _violation(shape, value, path, "Member must be a number")
            return
        low, high = NUMBER_BOUNDS.get(name, (None, None))
        yield from _range(shape, value, path, "value", value, high, low)


def _range(
    shape: Shape,
    value: Any,
    path: str,
    quantity: str,
    size: float,
    high: float | None = None,
    low: float | None = None,
) -> Iterator[str]:
    low = shape.metadata.get("min") if low is None else low
    high = shape.metadata.get("max") if high is None else high
    if low is not None and not size >= low:
        yield _violation(shape, value, path, f"Member must have {quantity} greater than or equal to {low}")
    if high is not None and not size <= high:
        yield _violation(shape, value, path, f"Member must have {quantity} less than or equal to {high}")


def _violation(shape: Shape, value: Any, path: str, constraint: str) -> str:
    shown = "Value" if shape.metadata.get("sensitive") else f"Value '{value}'"
    return f"{shown} at '{path}' failed to satisfy constraint: {constraint}"
