"""Redact credentials and other sensitive values in error messages and error responses."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from airflow_provider_datazone.metadata_generation import sanitize

# Airflow 3 does not mask shorter strings, since that would hide unrelated parts of a log.
MIN_MASKED_LENGTH = 5
# Real secret keys and session tokens are longer. Shorter ones are placeholders in tests.
_MIN_SECRET_LENGTH = 16
# urllib3's message for a header with a line break, followed by the header's value.
_INVALID_HEADER = "Invalid header value"
# In a signature error, DataZone repeats the request headers after this text, with the session token.
_CANONICAL_REQUEST = "The Canonical String"


def encodings_of(secret: str) -> set[str]:
    """Return the forms in which an error may repeat a secret: as it is, in Python, in JSON, in HTML."""
    forms = {
        form
        for text in (secret, secret.strip())
        for form in (
            text,
            sanitize(text, length=None),
            repr(text)[1:-1],
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
            html.escape(text),
        )
    }
    return forms - {""}


def connection_secrets(password: Any, extra: Mapping[str, Any]) -> list[str]:
    """Return the secrets of an Airflow connection in all encodings, the longest first."""
    places = [extra, extra.get("session_kwargs")]
    found = [password] + [
        place.get(name)
        for place in places
        if isinstance(place, dict)
        for name in ("aws_secret_access_key", "aws_session_token")
    ]
    forms = {form for secret in found if isinstance(secret, str) for form in encodings_of(secret)}
    return longest_first(form for form in forms if len(form) >= _MIN_SECRET_LENGTH)


def proxy_secrets(urls: Iterable[Any]) -> set[str]:
    """
    Return the passwords in the URLs of proxies in all encodings.

    urllib3 ends the host at a ``#``, ``/`` or ``?`` of a password that is not quoted, and repeats the part
    before it.
    """
    passwords = set()
    for url in urls:
        user, at, _ = str(url).partition("://")[2].rpartition("@")
        password = user.partition(":")[2]
        if at and password:
            passwords |= {password, unquote(password), re.split("[#/?]", password)[0]}
    return {form for password in passwords - {""} for form in encodings_of(password)}


def longest_first(values: Iterable[str]) -> list[str]:
    """Sort sensitive values for :func:`redact`, the longest first, since one may contain another."""
    return sorted(values, key=len, reverse=True)


def redact(values: Sequence[str], payload: Any) -> Any:
    """
    Redact sensitive values in an error message or an error response.

    :param values: The sensitive values, the longest first.
    :param payload: A string, or a response with strings in it.
    :return: A copy of the payload with ``***`` for each value.
    """
    if isinstance(payload, dict):
        # The error code stays, however short a sensitive value is.
        kept = ("Code", "ResponseMetadata")
        return {key: item if key in kept else redact(values, item) for key, item in payload.items()}
    if isinstance(payload, list):
        return [redact(values, item) for item in payload]
    if isinstance(payload, str):
        for value in values:
            payload = _redact_value(value, payload)
    return payload


def _redact_value(value: str, text: str) -> str:
    """
    Replace a sensitive value in a text.

    A short value is replaced only where it is a whole word, and a single character only where it is all that
    is quoted. Otherwise the message would become unreadable.
    """
    if value == text:
        return "***"
    pattern = re.escape(value)
    if len(value) == 1:
        pattern = rf"""(?<=["'`]|;){pattern}(?=\\?["'`]|&(?:quot|#x27|#39);)"""
    elif len(value) < MIN_MASKED_LENGTH:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return re.sub(pattern, "***", text)


def remove_headers(message: str) -> str:
    """Cut off the request headers in an error, which include the session token."""
    message = message.partition(_CANONICAL_REQUEST)[0].rstrip()
    head, found, _ = message.partition(_INVALID_HEADER)
    return head + found
