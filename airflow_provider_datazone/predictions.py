"""Predictions of an asset: read them, show them as a table, and find sensitive values in choices for them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.inputs import native_advice
from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.redaction import MIN_MASKED_LENGTH, encodings_of, longest_first


def edited_values(choices: Any) -> list[str]:
    """
    Return the edited values in choices, which DataZone's service model marks as sensitive.

    :param choices: AWS's ``acceptChoices`` or ``rejectChoices``.
    :return: The values in all encodings in which an error may repeat them, the longest first.
    :raises ValueError: It is not a list of dicts, or an edited value is not a string. botocore's own error
        would show the value.
    """
    if not isinstance(choices, (list, tuple)):
        raise NotConfiguredError(
            f"choices must be a list of dicts, got a {type(choices).__name__}.{native_advice(choices)}"
        )
    values: set[str] = set()
    for number, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise NotConfiguredError(
                f"choices must be a list of dicts; item {number} is a {type(choice).__name__}."
                f"{native_advice(choice)}"
            )
        value = choice.get("editedValue")
        if value is not None and not isinstance(value, str):
            raise NotConfiguredError(f"editedValue of item {number} of choices must be a string.")
        for text in _edited_texts(choice):
            values |= encodings_of(text)
    return longest_first(values)


def _edited_texts(value: Any) -> Iterator[str]:
    """Yield every edited value in a choice, also one in a place where DataZone does not expect it."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "editedValue" and isinstance(item, str) and item:
                yield item
            yield from _edited_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _edited_texts(item)


def values_to_mask(choices: Any) -> Iterator[str]:
    """
    Yield the strings in rendered choices that Airflow has to mask, where it shows rendered fields.

    :param choices: What the template rendered to. A string is masked as a whole: the task rejects it, but
        Airflow shows it first.
    """
    if isinstance(choices, str):
        yield from _long_strings(choices)
        return
    for choice in choices if isinstance(choices, (list, tuple)) else [choices]:
        if isinstance(choice, dict):
            yield from _long_strings(choice.get("editedValue"))


def _long_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        # Airflow before 3.3 masks the repr of a long field.
        yield from (form for form in encodings_of(value) if len(form) >= MIN_MASKED_LENGTH)
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _long_strings(item)


# The form of an asset that has the predictions: a list `fieldSuggestions`, whose entries have a `fieldPath`.
# AWS documents nothing else of it.
_FORM_NAME = "SuggestionForm"
# Characters that have an effect within a cell in Markdown or HTML.
_SPECIAL_CHARACTERS = re.compile(r"[\\`*_\[\]<>&~|$!]")
# Where Airflow's Markdown would make a link of plain text.
_LINK = re.compile(r"(?i)(https?:|ftp:|mailto:|xmpp:|@)|(www)(?=\.)")
_ZERO_WIDTH_SPACE = "\u200b"
# Maximum number of characters of a suggestion in the table.
MAX_CELL_LENGTH = 2000


def parse_predictions(asset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return the predictions in the response to GetAsset.

    :param asset: The response.
    :return: The entries of ``fieldSuggestions``, each with its ``fieldPath`` and what else DataZone sends;
        ``[]`` if the asset has no predictions.
    :raises ValueError: The form cannot be parsed.
    """
    predictions: list[dict[str, Any]] = []
    for form in asset.get("readOnlyFormsOutput") or ():
        if not isinstance(form, Mapping) or form.get("formName") != _FORM_NAME:
            continue
        try:
            content = json.loads(
                form.get("content") or "{}", parse_constant=_reject_number, parse_float=_finite_number
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"a {_FORM_NAME} that is not JSON: {error}") from None
        suggestions = content.get("fieldSuggestions") if isinstance(content, dict) else None
        if isinstance(suggestions, dict):
            # AWS documents a list. A dict with the field paths as keys is accepted, too.
            suggestions = [_entry(path, entry) for path, entry in suggestions.items()]
        if not isinstance(suggestions, list) or not all(isinstance(entry, dict) for entry in suggestions):
            if suggestions is not None:
                raise ValueError(f"a {_FORM_NAME} whose fieldSuggestions is not a list of objects")
            suggestions = []
        predictions += suggestions
    return predictions


def _reject_number(text: str) -> float:
    """Reject NaN and infinity, which Python's parser accepts and Airflow's database does not."""
    raise ValueError(f"{text} is not a number of JSON")


def _finite_number(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _reject_number(text)


def _entry(path: str, entry: Any) -> dict[str, Any]:
    return (
        {"fieldPath": path, **entry} if isinstance(entry, dict) else {"fieldPath": path, "suggestions": entry}
    )


def to_markdown(predictions: Sequence[Mapping[str, Any]]) -> str:
    """
    Return predictions as a Markdown table for people to review.

    AWS does not document the members of a prediction. The table shows every string in it as a suggestion, and
    a number from 0 to 1 beside it as its confidence. Markdown, HTML and links in a suggestion have no effect.

    :param predictions: What :func:`parse_predictions` returned.
    :return: The table, only its header if there are no predictions.
    """
    lines = ["| Field | Suggestion | Confidence |", "|---|---|---:|"]
    for prediction in predictions:
        field = _escape(str(prediction.get("fieldPath", "")))
        others = {key: value for key, value in prediction.items() if key != "fieldPath"}
        for texts, confidences in _suggestions(others):
            shown = ", ".join(f"{number:g}" for number in confidences)
            lines += [f"| {field} | {_escape(text)} | {shown} |" for text in texts]
    return "\n".join(lines)


def _suggestions(value: dict[str, Any] | list[Any]) -> Iterator[tuple[list[str], list[float]]]:
    """Yield the strings of each dict or list in a prediction, with the confidences in the same one."""
    items = list(value.values()) if isinstance(value, dict) else value
    texts = [item for item in items if isinstance(item, str) and item.strip()]
    yield texts, [item for item in items if _is_confidence(item)]
    for item in items:
        if isinstance(item, (dict, list)):
            yield from _suggestions(item)


def _is_confidence(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _escape(text: str) -> str:
    """Return a text for a table cell, in one line, without an effect in Markdown or HTML."""
    line = sanitize(" ".join(text.split()), length=MAX_CELL_LENGTH)
    # Airflow's Markdown looks for addresses in the text again after it has resolved the character references.
    # A space after "www." would not help: browsers drop it from a host name.
    line = _LINK.sub(rf"\g<0>{_ZERO_WIDTH_SPACE}", line)
    return _SPECIAL_CHARACTERS.sub(lambda match: f"&#{ord(match.group())};", line)
