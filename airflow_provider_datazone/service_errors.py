"""Classify errors of DataZone, STS and botocore: which are transient, and which a retry cannot change."""

from __future__ import annotations

import re
import ssl

from botocore.exceptions import (
    ClientError,
    ConnectionError as BotoConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    SSLError,
)

from airflow_provider_datazone.exceptions import MalformedResponseError, NotConfiguredError

# DataZone's own codes, and those of the API layers in front of it for the same condition.
_THROTTLING_CODES = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException"})
_TRANSIENT_CODES = _THROTTLING_CODES | {"InternalServerException", "RequestTimeout"}
# AccessDenied is the code of STS, for a connection's role that cannot be assumed.
_ACCESS_DENIED_CODES = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedException"})
# ValidationError is the code of STS, for example for a longer session than the role allows.
_PERMANENT_CODES = _ACCESS_DENIED_CODES | {
    "ValidationError",
    "ValidationException",
    "ResourceNotFoundException",
}
# AWS does not document the message for an unknown domain.
_MISSING_DOMAIN = re.compile(r"((the|requested|specified|given) )*domain\b")
# DataZone declares both for the cancellation of a run that has ended.
_REJECTED_CANCEL_CODES = frozenset({"ValidationException", "ConflictException"})
# A signature that does not match the secret, a deleted key, an expired session.
_REJECTED_CREDENTIALS_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
# Raised by botocore or Python for values of an unexpected type.
UNEXPECTED_TYPE_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# OpenSSL's text for a server certificate that is not trusted.
_NOT_TRUSTED = "CERTIFICATE_VERIFY_FAILED"


def error_code(error: ClientError) -> str:
    """Return the service's error code, empty if the response has none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def error_message(error: BaseException) -> str:
    """Return the service's message without botocore's additions, empty if there is none."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Message", ""))


def _http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_throttling(error: BaseException) -> bool:
    """Whether DataZone rejected a request because of the request rate."""
    return isinstance(error, ClientError) and (
        error_code(error) in _THROTTLING_CODES or _http_status(error) == 429
    )


def is_transient(error: BaseException) -> bool:
    """Whether waiting helps: throttling, a fault of the service, a lost connection, a time-out."""
    if isinstance(error, ClientError):
        return is_throttling(error) or error_code(error) in _TRANSIENT_CODES or _http_status(error) >= 500
    if isinstance(error, SSLError):
        # A failed handshake is transient; an untrusted or unreadable certificate is not.
        return not is_untrusted_certificate(error) and not is_unreadable_certificate(error)
    # Not imported at the top: botocore's parsers and urllib3 would slow down the import of a trigger.
    from botocore.parsers import ResponseParserError

    return isinstance(
        error, (BotoConnectionError, HTTPClientError, ResponseParserError, MalformedResponseError)
    )


def is_permanent(error: BaseException) -> bool:
    """Whether a retry of the task would fail with the same error: invalid input, or a missing permission."""
    if isinstance(error, ClientError):
        return error_code(error) in _PERMANENT_CODES
    return isinstance(error, (ParamValidationError, NotConfiguredError))


def is_not_found(error: BaseException) -> bool:
    """Whether DataZone does not find the resource of a request, or does not find it yet."""
    return isinstance(error, ClientError) and error_code(error) == "ResourceNotFoundException"


def is_conflict(error: BaseException) -> bool:
    """Whether DataZone rejects a request because it conflicts with the current state of the resource."""
    return isinstance(error, ClientError) and error_code(error) == "ConflictException"


def rejects_cancel(error: BaseException) -> bool:
    """Whether DataZone refuses to cancel a run, as it does when the run has ended."""
    return isinstance(error, ClientError) and error_code(error) in _REJECTED_CANCEL_CODES


def is_access_denied(error: BaseException) -> bool:
    """Whether IAM, DataZone or STS denies a request."""
    return isinstance(error, ClientError) and error_code(error) in _ACCESS_DENIED_CODES


def is_denied_by_iam(error: BaseException) -> bool:
    """Whether an IAM policy denies a request."""
    return is_access_denied(error) and "not authorized to perform" in error_message(error)


def is_denied_by_membership(error: BaseException) -> bool:
    """Whether DataZone denies a request because of the principal's user profile or project membership."""
    return is_access_denied(error) and "not permitted to perform operation" in error_message(error)


def is_denied_role(error: BaseException) -> bool:
    """Whether STS denies the connection's role, so that no request reached DataZone."""
    return is_access_denied(error) and str(getattr(error, "operation_name", "")).startswith("AssumeRole")


def blocks_every_asset(error: BaseException) -> bool:
    """Whether DataZone would refuse a request for every asset, because of the IAM policy or the domain."""
    return is_denied_by_iam(error) or is_domain_missing(error)


def blocks_project(error: BaseException) -> bool:
    """Whether DataZone would refuse a request for every asset of the project."""
    return is_access_denied(error) or (is_not_found(error) and "project" in not_found_message(error))


def may_be_new(error: BaseException) -> bool:
    """Whether DataZone does not find a resource that may have been created a moment ago: not a domain."""
    return is_not_found(error) and not is_domain_missing(error)


def is_domain_missing(error: BaseException) -> bool:
    """Whether DataZone does not find the domain; other messages may say what is missing in the domain."""
    return is_not_found(error) and bool(_MISSING_DOMAIN.match(error_message(error).lower()))


def not_found_message(error: BaseException) -> str:
    """Return the message of a not-found error in lower case, or an empty string if it names an asset."""
    message = error_message(error).lower()
    return "" if "asset" in message else message


def is_rejected_credentials(error: BaseException) -> bool:
    """Whether the credentials expired or were replaced, so that a new lookup may find valid ones."""
    if isinstance(error, ClientError):
        return error_code(error) in _REJECTED_CREDENTIALS_CODES
    return isinstance(error, (CredentialRetrievalError, NoCredentialsError))


def is_untrusted_certificate(error: SSLError) -> bool:
    """Whether the server's certificate is not trusted."""
    return _NOT_TRUSTED in str(error)


def is_unreadable_certificate(error: SSLError) -> bool:
    """Whether the cause is a certificate file on this machine, and not the server."""
    reasons = getattr(error.kwargs.get("error"), "args", ())
    # Errors of a handshake come from OpenSSL's library "SSL". Other libraries of OpenSSL, and the operating
    # system, report errors of files.
    return any(
        isinstance(reason, OSError)
        and not (isinstance(reason, ssl.SSLError) and getattr(reason, "library", None) in ("SSL", None))
        for reason in reasons
    )


def cannot_be_sent(error: Exception) -> bool:
    """Whether the request itself cannot be sent, because of an invalid header for example."""
    causes = (AttributeError, TypeError, ValueError)
    return isinstance(error, HTTPClientError) and isinstance(error.kwargs.get("error"), causes)
