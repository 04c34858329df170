"""Send requests, parse responses, and complete errors with their context, advice and redaction."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    CredentialRetrievalError,
    HTTPClientError,
    InvalidConfigError,
    InvalidRegionError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.parsers import ResponseParserError

from airflow_provider_datazone.advice import connection_advice, not_found_advice, permission_advice
from airflow_provider_datazone.connection import DataZoneConnectionHook
from airflow_provider_datazone.exceptions import MalformedResponseError, NotConfiguredError
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, sanitize
from airflow_provider_datazone.redaction import redact, remove_headers
from airflow_provider_datazone.service_errors import (
    UNEXPECTED_TYPE_ERRORS,
    cannot_be_sent,
    error_message,
    is_unreadable_certificate,
)

T = TypeVar("T")

# Raised by botocore for a configuration that a retry cannot change.
_CONFIGURATION_ERRORS = (
    ConfigNotFound,
    ConfigParseError,
    InvalidConfigError,
    InvalidRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
# botocore's count of its own attempts. In a task's log it would be read as the number of task retries.
_BOTOCORE_RETRIES = re.compile(r" \(reached max retries: \d+\)")


class DataZoneRequestHook(DataZoneConnectionHook):
    """A connection hook that sends requests; the base of ``DataZoneHook``."""

    def _call(
        self, operation: str, subject: str, /, *, sensitive_values: Sequence[str] = (), **request: Any
    ) -> dict[str, Any]:
        """
        Send a request, without the members that are ``None``.

        :param operation: The method of the client.
        :param subject: What the request is about, for errors.
        :param sensitive_values: Values to redact in errors, the longest first.
        """
        with error_context(self, subject, request, sensitive_values):
            response: dict[str, Any] = getattr(self.conn, operation)(
                **{name: value for name, value in request.items() if value is not None}
            )
        return response

    def _call_for_page(
        self, operation: str, subject: str, /, **request: Any
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Send a request for one page; return its items and the token for the next page."""
        page = self._call(operation, subject, **request)
        items, following = page.get("items"), page.get("nextToken") or None
        problem = None
        if not isinstance(items, list):
            # The service model allows an empty object; anything longer is a body that botocore could not
            # parse.
            if page["ResponseMetadata"]["HTTPHeaders"].get("content-length", "2") != "2":
                problem = "responded without items"
            items = []
        elif following is not None and not isinstance(following, str):
            problem = "responded with a nextToken that is not a string"
        elif following is not None and following == request.get("nextToken"):
            problem = "responded with the same page again"
        if problem is not None:
            raise self._malformed(problem, subject, request["domainIdentifier"])
        return items, following

    def _malformed(self, problem: str, subject: str, domain: str) -> MalformedResponseError:
        return MalformedResponseError(f"DataZone {problem} ({describe_request(self, subject, domain)})")

    def _parse_run(self, response: Any, subject: str, domain: str) -> MetadataGenerationRun:
        try:
            return MetadataGenerationRun.from_response(response)
        except ValueError as error:
            # botocore parses a body that is not JSON as an empty response.
            raise self._malformed(f"responded with {error}", subject, domain) from None


@contextmanager
def error_context(
    hook: DataZoneConnectionHook,
    subject: str,
    request: Mapping[str, Any],
    sensitive_values: Sequence[str] = (),
) -> Iterator[None]:
    """
    Add the request and advice to the message of an error, and redact sensitive values in it.

    A :class:`~botocore.exceptions.ClientError` keeps its class, so that
    ``except client.exceptions.ResourceNotFoundException`` still catches it.

    :param hook: The hook that sends the request.
    :param subject: What the request is about, e.g. ``run 'abc'``.
    :param request: The members of the request.
    :param sensitive_values: Values of the request to redact, the longest first.
    :raises NotConfiguredError: The connection or an argument is invalid, so that no request was sent.
    :raises MalformedResponseError: botocore could not parse the response.
    """

    def describe(error: Exception) -> str:
        return _describe_error(error, hook, subject, request, sensitive_values)

    try:
        yield
    except NoRegionError:
        raise NotConfiguredError(
            "No AWS Region: pass region_name, or set 'region_name' in the extra of the connection "
            f"(aws_conn_id={hook.aws_conn_id!r})."
        ) from None
    except _CONFIGURATION_ERRORS as error:
        raise NotConfiguredError(
            f"The connection or the task's AWS parameters cannot be used: {describe(error)}"
        ) from None
    except (ClientError, BotoCoreError, ResponseParserError) as error:
        if isinstance(error, SSLError) and is_unreadable_certificate(error):
            raise NotConfiguredError(
                "A file of TLS certificates cannot be used; see verify, 'ca_bundle' in AWS's "
                f"configuration, AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE: {describe(error)}"
            ) from None
        if cannot_be_sent(error):
            raise NotConfiguredError(f"The request cannot be sent: {describe(error)}") from None
        error.args = (describe(error),)
        _redact_attributes(error, [*sensitive_values, *hook.secrets])
        raise
    except NotConfiguredError as error:
        if "conn_config" not in hook.__dict__:
            # The connection cannot be read, and `describe` would read it again.
            raise
        raise NotConfiguredError(describe(error)) from None
    except AirflowException as error:
        # The Amazon provider raises the class itself for a method to assume a role that it does not know.
        if (
            type(error) is not AirflowException
            or "conn_config" not in hook.__dict__
            or "conn" in hook.__dict__
        ):
            raise
        raise NotConfiguredError(f"No client can be built from the connection: {describe(error)}") from None
    except UNEXPECTED_TYPE_ERRORS as error:
        if _is_of_credentials(error):
            # For example RuntimeError, if credentials have expired again right after they were refreshed.
            raise CredentialRetrievalError(provider="boto3", error_msg=describe(error)) from None
        description = f"{type(error).__name__}: {describe(error)}"
        if "conn" not in hook.__dict__:
            raise NotConfiguredError(f"No client can be built from the connection: {description}") from None
        if isinstance(error, UnicodeEncodeError):
            raise NotConfiguredError(f"The request cannot be sent: {description}") from None
        # botocore fails on members of another type than the service model declares.
        raise MalformedResponseError(f"DataZone's response cannot be parsed: {description}") from None


def _redact_attributes(error: Exception, secrets: Sequence[str]) -> None:
    """Redact what error trackers show of an error beside its message."""
    if isinstance(error, ClientError):
        error.response = redact(secrets, error.response)
        if message := error_message(error):
            error.response["Error"]["Message"] = remove_headers(message)
    elif isinstance(error, BotoCoreError):
        error.kwargs = redact(secrets, error.kwargs)
    if isinstance(error, HTTPClientError):
        # It has the body, and the session token in its headers.
        error.request = None
    # The error that caused it repeats the message without redaction.
    error.__suppress_context__ = True


def _is_of_credentials(error: Exception) -> bool:
    """Whether an error comes from the code that looks up or refreshes credentials."""
    return any(
        frame.f_globals.get("__name__") == "botocore.credentials"
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _describe_error(
    error: Exception,
    hook: DataZoneConnectionHook,
    subject: str,
    request: Mapping[str, Any],
    sensitive_values: Sequence[str],
) -> str:
    """Return an error's message without sensitive values, with the request and with advice."""
    values = [*sensitive_values, *hook.secrets]
    message = redact(values, _BOTOCORE_RETRIES.sub("", remove_headers(str(error))))
    context = describe_request(hook, subject, request.get("domainIdentifier") or request["identifier"])
    return " ".join(
        [
            f"{sanitize(message)} ({context})",
            *permission_advice(error),
            *not_found_advice(error, subject, request),
            *connection_advice(error),
        ]
    )


def describe_request(hook: DataZoneConnectionHook, subject: str, domain: str) -> str:
    """Return what a request was about and where it was sent, in one line."""
    region = hook.known_region
    # A template may have rendered to a whole page instead of an identifier.
    parts = [sanitize(subject, length=200), f"domain {sanitize(repr(domain), length=200)}"]
    if region is not None:
        parts.append(f"Region {region!r}")
    parts.append(f"connection {hook.aws_conn_id!r}" if hook.aws_conn_id else "boto3's own credentials")
    return ", ".join(parts)


def iterate_pages(page: Callable[..., tuple[list[T], str | None]]) -> Iterator[T]:
    """Iterate over all pages, and request each one when it is needed."""
    next_token = None
    seen = set()
    while True:
        items, next_token = page(next_token=next_token)
        yield from items
        if next_token is None:
            return
        if next_token in seen:
            raise MalformedResponseError("DataZone responded with the same pages in a loop")
        seen.add(next_token)
