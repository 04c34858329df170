"""DataZone responses with the faults, limits and credentials that a test sets."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import suppress
from functools import cache
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from moto.core.common_types import TYPE_RESPONSE
from moto.core.utils import get_service_model

from .models import ensure_reset_clears_scenario
from .responses import DataZoneResponse
from .scenario import Fault, scenario

#: The key in the WSGI environment of the event that the server sets when it stops.
STOPPING = "airflow_provider_datazone.stopping"

# HTTP status and default message by error code: first DataZone's own errors, then errors of any AWS service.
ERRORS = {
    "InternalServerException": (
        500,
        "The request has failed because of an unknown error, exception or failure.",
    ),
    "ThrottlingException": (429, "Rate exceeded"),
    "ResourceNotFoundException": (404, "The specified resource cannot be found."),
    "AccessDeniedException": (403, "You do not have sufficient access to perform this action."),
    "UnauthorizedException": (401, "You do not have permission to perform this action."),
    "ValidationException": (400, "The input fails to satisfy the constraints specified by the service."),
    "ServiceQuotaExceededException": (402, "The request has exceeded the specified service quota."),
    "ConflictException": (409, "There is a conflict while performing this action."),
    "ExpiredTokenException": (403, "The security token included in the request is expired"),
    "UnrecognizedClientException": (403, "The security token included in the request is invalid."),
    "InvalidSignatureException": (
        403,
        (
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method. "
            "Consult the service documentation for details."
        ),
    ),
    "ServiceUnavailableException": (503, "The service is temporarily unavailable."),
}
WIRE_FAULTS = ("hang", "drop", "malformed")
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, *"
    r"SignedHeaders=(?P<headers>[^,]+), *Signature=(?P<signature>\w+)"
)


class LocalDataZoneResponse(DataZoneResponse):
    """Responds like DataZone, except where a test sets a fault, a limit or required credentials."""

    def _dispatch(self, request: Any, *args: Any, **kwargs: Any) -> TYPE_RESPONSE:
        # Only a request over HTTP has a WSGI environment.
        environ = getattr(request, "environ", {})
        # The URL as the client signed it. Over HTTP, request.url is decoded; newer moto releases undo that.
        self._signed_url: str = getattr(request, "raw_url", None) or environ.get("RAW_URI") or request.url
        self._connection: socket.socket | None = environ.get("werkzeug.socket")
        self._stopping: threading.Event = environ.get(STOPPING) or threading.Event()
        return super()._dispatch(request, *args, **kwargs)

    def _get_action_from_method_and_request_uri(self, *request: Any) -> str:
        if len(request) == 1:  # newer moto releases have their own router
            return str(super()._get_action_from_method_and_request_uri(*request) or "")
        # Older moto releases create a boto3 client here, which searches every credential source.
        method, path = request
        for http_method, pattern, name in _routes():
            match = pattern.match(path)
            if match and http_method == method:
                self.uri_match = match  # type: ignore[assignment]
                return name
        return ""

    def call_action(self) -> TYPE_RESPONSE:
        """Carry out the operation, or respond with the fault that applies to the request."""
        operation = self._get_action()
        if not operation:
            return super().call_action()
        ensure_reset_clears_scenario()
        authorization = AUTHORIZATION.search(self._header("Authorization"))
        fault = scenario.record(operation, self.params or {}, authorization and authorization["key"])
        credentials_error = self._credentials_error()
        if credentials_error is not None:
            return self._error(credentials_error)
        return super().call_action() if fault is None else self._respond_with(fault)

    def _respond_with(self, fault: Fault) -> TYPE_RESPONSE:
        response = super().call_action() if fault.after else None
        if fault.error == "hang":
            if self._connection is None:
                raise ReadTimeoutError(endpoint_url=self.uri)
            if self._stopping.wait(fault.seconds):
                return self._drop_connection()
            return response or super().call_action()
        if fault.error == "drop":
            return self._drop_connection()
        if fault.error == "malformed":
            headers = {"Content-Type": "application/json", **self.response_headers}
            return 200, headers, '{"id": "cut sho'
        return self._error(fault.error, fault.message)

    def _error(self, code: str, message: str | None = None) -> TYPE_RESPONSE:
        status, default_message = ERRORS[code]
        headers = {
            "Content-Type": "application/json",
            **self.response_headers,
            "X-Amzn-Errortype": code,
        }
        headers, body = self._enrich_response(headers, json.dumps({"message": message or default_message}))
        return status, headers, body

    def _credentials_error(self) -> str | None:
        """Check the request's signature against the required credentials.

        :return: the error code, or None if the signature is valid or no credentials are required
        """
        secrets = scenario.secrets
        if not secrets:
            return None
        authorization = AUTHORIZATION.fullmatch(self._header("Authorization"))
        secret = secrets.get(authorization["key"]) if authorization else None
        if authorization is None or secret is None:
            return "UnrecognizedClientException"
        names = authorization["headers"].split(";")
        request = AWSRequest(
            method=self.method,
            url=self._signed_url,
            data=self.body.encode() if isinstance(self.body, str) else self.body,
            headers={name: self._header(name) for name in names if name != "host" or self._header(name)},
        )
        request.context["timestamp"] = self._header("X-Amz-Date")
        credentials = Credentials(authorization["key"], secret)
        signer = SigV4Auth(credentials, authorization["service"], authorization["region"])
        string_to_sign = signer.string_to_sign(request, signer.canonical_request(request))
        valid = signer.signature(string_to_sign, request) == authorization["signature"]
        return None if valid else "InvalidSignatureException"

    def _header(self, name: str) -> str:
        value = self.headers.get(name, "")
        return value.decode() if isinstance(value, bytes) else str(value)

    def _drop_connection(self) -> TYPE_RESPONSE:
        if self._connection is None:
            raise ConnectionClosedError(endpoint_url=self.uri)
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        # The client does not receive this: werkzeug treats the failing write as a client disconnect.
        return 500, {}, ""


@cache
def _routes() -> list[tuple[str, re.Pattern[str], str]]:
    model = get_service_model("datazone")
    https = {name: model.operation_model(name).http for name in model.operation_names}
    routes = [
        (http["method"], re.compile(DataZoneResponse.uri_to_regexp(http["requestUri"])), name)  # type: ignore[attr-defined]
        for name, http in https.items()
    ]
    # The last group of a moto pattern also matches longer paths, so the longest pattern comes first.
    return sorted(routes, key=lambda route: len(route[1].pattern), reverse=True)
