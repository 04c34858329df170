"""The choices that accept or reject predictions, and the sensitive values in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.inputs import native_advice
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
    if isinstance(value, str) and len(value) >= MIN_MASKED_LENGTH:
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _long_strings(item)
