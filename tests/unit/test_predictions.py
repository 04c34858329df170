"""Predictions are read as DataZone sends them, and shown without an effect in Markdown, HTML or links."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_datazone.predictions import MAX_CELL_LENGTH, parse_predictions, to_markdown

HEAD = "| Field | Suggestion | Confidence |\n|---|---|---:|"


def asset(content: Any) -> dict[str, Any]:
    return {
        "readOnlyFormsOutput": [
            {"formName": "AnotherForm", "content": "not JSON"},
            {"formName": "SuggestionForm", "content": content},
        ]
    }


def test_entries_are_returned_as_they_are() -> None:
    entries = [{"fieldPath": "summary", "anything": [1, {"x": None}]}, {"no": "field path"}]
    assert parse_predictions(asset(json.dumps({"fieldSuggestions": entries}))) == entries


def test_mapping_has_the_field_path_as_key() -> None:
    content = {"fieldSuggestions": {"summary": {"text": "a"}, "name": ["b"], "other": "c"}}
    assert parse_predictions(asset(json.dumps(content))) == [
        {"fieldPath": "summary", "text": "a"},
        {"fieldPath": "name", "suggestions": ["b"]},
        {"fieldPath": "other", "suggestions": "c"},
    ]


@pytest.mark.parametrize(
    "response",
    [{}, {"readOnlyFormsOutput": None}, {"readOnlyFormsOutput": []}, asset(None), asset("{}"), asset("[]")],
)
def test_asset_without_predictions_has_an_empty_list(response: dict[str, Any]) -> None:
    assert parse_predictions(response) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("<html>", "a SuggestionForm that is not JSON"),
        ("[" * 100_000, "a SuggestionForm that is not JSON"),
        ('{"fieldSuggestions": [{"score": NaN}]}', "not JSON: NaN is not a number of JSON"),
        ('{"fieldSuggestions": [{"score": 1e999}]}', "not JSON: 1e999 is not a number of JSON"),
        ('{"fieldSuggestions": "x"}', "fieldSuggestions is not a list of objects"),
        ('{"fieldSuggestions": ["x"]}', "fieldSuggestions is not a list of objects"),
    ],
)
def test_form_that_cannot_be_parsed_is_an_error(content: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_predictions(asset(content))


@pytest.mark.parametrize(
    ("prediction", "rows"),
    [
        ({"fieldPath": "summary", "suggestion": "Orders", "confidence": 0.9}, ["| summary | Orders | 0.9 |"]),
        (
            {"fieldPath": "name", "values": [{"v": "A", "score": 1}, {"v": "B", "rank": 7, "score": 0.25}]},
            ["| name | A | 1 |", "| name | B | 0.25 |"],
        ),
        ({"fieldPath": "terms", "terms": ["x", "y"]}, ["| terms | x |  |", "| terms | y |  |"]),
        ({"fieldPath": "flag", "text": "a", "accepted": True}, ["| flag | a |  |"]),
        ({"fieldPath": "nothing", "text": " "}, []),
        ({"text": "no path"}, ["|  | no path |  |"]),
    ],
)
def test_table_shows_each_string_with_the_confidence_beside_it(
    prediction: dict[str, Any], rows: list[str]
) -> None:
    assert to_markdown([prediction]) == "\n".join([HEAD, *rows])


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a|b", "a&#124;b"),
        ("two\n\nlines\t ", "two lines"),
        ("<script>x</script>", "&#60;script&#62;x&#60;/script&#62;"),
        ("[x](javascript:y)", "&#91;x&#93;(javascript:y)"),
        ("![x](http://y)", "&#33;&#91;x&#93;(http:\u200b//y)"),
        ("https://a.b HTTP://c", "https:\u200b//a.b HTTP:\u200b//c"),
        ("www.a.b WWW.c me@a.b", "www\u200b.a.b WWW\u200b.c me@\u200ba.b"),
        ("**b** _i_ `c`", "&#42;&#42;b&#42;&#42; &#95;i&#95; &#96;c&#96;"),
        ("~s~ &amp; $m$ \\", "&#126;s&#126; &#38;amp; &#36;m&#36; &#92;"),
        ("\u202e\x00", "\\\\u202e\\\\x00".replace("\\\\", "&#92;")),
    ],
)
def test_suggestion_has_no_effect_in_markdown_html_or_links(text: str, cell: str) -> None:
    assert to_markdown([{"fieldPath": "f", "text": text}]) == f"{HEAD}\n| f | {cell} |  |"


def test_long_suggestion_is_truncated() -> None:
    table = to_markdown([{"fieldPath": "f", "text": "x" * 100_000}])
    assert "more characters" in table
    assert len(table) < 2 * MAX_CELL_LENGTH
