"""The identifiers of resources."""

from __future__ import annotations

from moto.moto_api._internal import mock_random


def new_id() -> str:
    """Return a new identifier in the format of DataZone."""
    return str(mock_random.get_random_string(length=14, lower_case=True))
