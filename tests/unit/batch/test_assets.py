"""Parse the list of assets of a batch."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_datazone.batch.assets import parse_assets
from airflow_provider_datazone.exceptions import (
    NotConfiguredError,
)


def fail_if_called() -> str:
    raise AssertionError("the project of the connection is not needed")


def test_duplicates_are_removed_and_counted():
    given: list[Any] = [
        "a",
        {"asset_identifier": "a"},
        {"asset_identifier": "a", "owning_project_identifier": "mine"},
        {"asset_identifier": "a", "asset_revision": ""},
        {"asset_identifier": "a", "asset_revision": "2"},
        {"asset_identifier": "a", "owning_project_identifier": "other"},
        "b",
        "a",
    ]
    rows, duplicates = parse_assets(given, lambda: "mine")
    assert [row.key for row in rows] == [
        ("a", None, "mine"), ("a", "2", "mine"), ("a", None, "other"), ("b", None, "mine"),
    ]  # fmt: skip
    assert duplicates == 4


def test_project_of_the_connection_is_read_once_and_only_if_an_asset_needs_it():
    lookups = []

    def project() -> str:
        lookups.append("project")
        return "mine"

    rows, _ = parse_assets(iter(f"asset{n}" for n in range(100)), project)
    assert len(rows) == 100
    assert lookups == ["project"]
    parse_assets([{"asset_identifier": "a", "owning_project_identifier": "x"}], fail_if_called)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("['a', 'b']", "a str. Did its template not render"),
        (None, "NoneType"),
        (5, "int"),
        ({"asset_identifier": "a"}, "dict"),
        (["a", None], "Item 2"),
        (["a", ""], "Item 2"),
        ([["a"]], "Item 1"),
        ([{"asset_revision": "1"}], "Item 1.*'asset_identifier'"),
        ([{"asset_identifier": ""}], "Item 1"),
        ([{"asset_identifier": "a", "revision": "1"}], "Item 1.*revision"),
        ([{"asset_identifier": ["a"]}], "Item 1"),
    ],
)
def test_invalid_list_raises_an_error_that_names_the_item(given: Any, message: str):
    with pytest.raises(NotConfiguredError, match=message):
        parse_assets(given, lambda: "mine")
