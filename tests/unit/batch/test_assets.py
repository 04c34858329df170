"""Which assets a list names."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_datazone.batch.assets import parse_assets
from airflow_provider_datazone.exceptions import (
    NotConfiguredError,
)


def no_project() -> str:
    raise AssertionError("nobody needs it")


def test_duplicates_count_once():
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


def test_project_of_the_connection_is_asked_for_once_and_only_where_it_is_needed():
    asked = []

    def project() -> str:
        asked.append("project")
        return "mine"

    rows, _ = parse_assets(iter(f"asset{n}" for n in range(100)), project)
    assert len(rows) == 100
    assert asked == ["project"]
    parse_assets([{"asset_identifier": "a", "owning_project_identifier": "x"}], no_project)


@pytest.mark.parametrize(
    ("given", "told"),
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
def test_what_is_no_list_of_assets_is_named(given: Any, told: str):
    with pytest.raises(NotConfiguredError, match=told):
        parse_assets(given, lambda: "mine")
