"""The pages of lists.

Moto's paginator does not work here. Its token names the first item of the next page,
and fails if that item no longer matches the filter, such as a run whose status has
changed between two pages. For another list's token, it raises an error that no
operation of DataZone declares.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeVar

from moto.core.common_models import BaseModel

from .exceptions import ValidationException


class NumberedModel(BaseModel):
    """A resource with a number, which orders the pages of a list.

    Numbers increase in the order of creation.
    """

    number: int


Numbered = TypeVar("Numbered", bound=NumberedModel)


def _number(item: NumberedModel) -> list[Any]:
    return [item.number]


def page(
    items: Iterable[Numbered],
    max_results: int,
    next_token: str | None,
    scope: list[Any],
    position: Callable[[Numbered], list[Any]] = _number,
    descending: bool = False,
) -> tuple[list[Numbered], str | None]:
    """Return a page of items and the token of the next page.

    :param items: all items, in the order of their positions
    :param scope: the operation, the domain and the filters. A token is valid only
        for the scope that it was made for
    :param max_results: the maximum number of items of the page
    :param next_token: the token of the page. None returns the first page
    :param position: returns the position of an item as a JSON value. Default: its
        number
    :param descending: whether the positions decrease. Default: False
    :return: the items, and the token of the next page or None
    :raises ValidationException: if the token is not valid
    """
    digest = hashlib.sha256(json.dumps(scope, default=str).encode()).hexdigest()[:16]
    remaining = iter(items)
    if next_token is not None:
        last = _read(next_token, digest)

        def is_after_token(item: Numbered) -> bool:
            current = position(item)
            try:
                return bool(current < last if descending else current > last)
            except TypeError:
                raise ValidationException("Invalid nextToken") from None

        remaining = filter(is_after_token, remaining)
    found = list(islice(remaining, max_results + 1))
    if len(found) <= max_results:
        return found, None
    found.pop()
    token = json.dumps([digest, position(found[-1])])
    return found, base64.urlsafe_b64encode(token.encode()).decode()


def _read(token: str, digest: str) -> list[Any]:
    """Return the position in a token."""
    try:
        token_digest, last = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise ValidationException("Invalid nextToken") from None
    if token_digest != digest:
        raise ValidationException(
            "The nextToken is from a request with other parameters"
        )
    if not isinstance(last, list):
        raise ValidationException("Invalid nextToken")
    return last
