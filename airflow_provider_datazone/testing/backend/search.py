"""The text and the filters of a search."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .exceptions import ValidationException

if TYPE_CHECKING:
    from .assets import Asset

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": operator.eq,
    "GE": operator.ge,
    "GT": operator.gt,
    "LE": operator.le,
    "LT": operator.lt,
}
# A nextToken contains the sort value of an asset, and has at most 8192 characters.
MAX_SORT_VALUE_LENGTH = 256


def split_words(text: str) -> list[str]:
    """Split a search text into words. Quotes, order and case have no effect.

    AWS does not document how it searches for several words without quotes.
    """
    return text.replace('"', " ").casefold().split()


def clause_predicate(clause: dict[str, Any]) -> Callable[[Asset], bool]:
    """Return a function that tests an asset against a clause of ``filters``."""
    if len(clause) != 1:
        raise ValidationException(
            "A filter clause has exactly one member of: and, filter, or"
        )
    ((kind, value),) = clause.items()
    if kind == "filter":
        return _filter_predicate(value)
    predicates = [clause_predicate(inner) for inner in value]
    combine = all if kind == "and" else any
    return lambda asset: combine(matches(asset) for matches in predicates)


def _filter_predicate(expression: dict[str, Any]) -> Callable[[Asset], bool]:
    """Return a function that tests an asset against a single filter.

    AWS does not document whether operators such as ``GT`` accept a string, nor how a
    filter treats an attribute without a value. Here, such an operator with a string is
    an error, and an attribute without a value matches no filter.
    """
    attribute, name = expression["attribute"], expression.get("operator") or "EQ"
    operands = [
        expression[member]
        for member in ("value", "intValue")
        if expression.get(member) is not None
    ]
    if len(operands) != 1:
        raise ValidationException("A filter has either a value or an intValue")
    (operand,) = operands
    is_text = isinstance(operand, str)
    if is_text and name == "TEXT_SEARCH":
        words = split_words(operand)
        return lambda asset: asset.contains_words(words, [attribute])
    if name not in (("EQ",) if is_text else COMPARISONS):
        kind = "a value" if is_text else "an intValue"
        raise ValidationException(f"The operator {name} does not accept {kind}")
    compare = COMPARISONS[name]
    return lambda asset: any(
        compare(value, operand)
        for value in asset.attribute_values(attribute)
        if isinstance(value, str) == is_text
    )


def sort_position(
    sort: dict[str, Any] | None,
) -> tuple[Callable[[Asset], list[Any]], bool]:
    """Return a function for the position of an asset, and whether the order descends.

    Assets without a value are last in both orders. Equal assets are oldest first.
    """
    descending = (sort or {}).get("order") == "DESCENDING"

    def position(asset: Asset) -> list[Any]:
        number = -asset.number if descending else asset.number
        values = asset.attribute_values(sort["attribute"]) if sort else []
        if not values:
            return [-1 if descending else 2, 0, number]
        if isinstance(values[0], str):
            return [1, values[0][:MAX_SORT_VALUE_LENGTH], number]
        return [0, values[0], number]

    return position, descending
