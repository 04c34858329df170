"""DataZone responses with the faults, limits, credentials and permissions that a test sets."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from typing import Any

from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from moto.core.common_types import TYPE_RESPONSE
from moto.core.utils import camelcase_to_underscores
from moto.utilities.aws_headers import gen_amzn_requestid_long
from moto.utilities.utils import get_partition
from werkzeug.datastructures import Headers

from .authorization import Principal, is_issued
from .backend.models import datazone_backends
from .backend.responses import DataZoneResponse
from .request_parsing import ReceivedRequest, parse
from .scenario import Fault, request_lock, scenario
from .scripted_runs import ensure_reset_clears_scenario
from .signatures import Signature

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


def error_response(status: int, code: str, message: str) -> TYPE_RESPONSE:
    """Return the status, the headers and the body of an error, as DataZone sends it."""
    headers = {"Content-Type": "application/json", "server": "amazon.com", "X-Amzn-Errortype": code}
    gen_amzn_requestid_long(headers)
    return status, headers, json.dumps({"message": message})


def is_implemented(operation: str) -> bool:
    """Return whether the local DataZone implements an operation of the service."""
    return hasattr(DataZoneResponse, camelcase_to_underscores(operation))


class LocalDataZoneResponse(DataZoneResponse):
    """Responds like DataZone, with the faults, limits, credentials and permissions that a test sets."""

    _principal: Principal | None = None

    @property
    def caller(self) -> str:
        """The ARN of the principal that sends the request."""
        return super().caller if self._principal is None else self._principal.profile_arn

    def _dispatch(self, request: Any, *_: Any, **__: Any) -> TYPE_RESPONSE:
        # Moto's own preparation fails for bodies and headers that DataZone refuses with an error.
        received = ReceivedRequest.read(request)
        self._prepare(received)
        # Only a request over HTTP has a connection.
        environ = getattr(request, "environ", {})
        self._connection: socket.socket | None = environ.get("werkzeug.socket")
        self._stopping: threading.Event = environ.get(STOPPING) or threading.Event()
        parsed = parse(received)
        if parsed is None:
            message = f"DataZone has no operation with the method {self.method} and the path {self.path!r}"
            return error_response(404, "UnknownOperationException", message)
        self._operation: str = parsed.operation.name
        self.params = parsed.params
        self._violations = parsed.violations
        if not is_implemented(self._operation) and self._connection is not None:
            message = f"The local DataZone does not implement the operation {self._operation}"
            return error_response(501, "NotImplementedException", message)
        return self.call_action()

    def _prepare(self, received: ReceivedRequest) -> None:
        """Set the attributes that moto's response needs."""
        self._received = received
        self.method, self.uri = received.method, received.url
        self.path, _ = received.path_and_query
        self.raw_path = self.path
        self.body = self.raw_body = received.body
        self.data: dict[str, Any] = {}
        self.querystring = self.data
        self.headers = Headers(received.headers)
        # The type of the response depends on this header, and moto knows only the usual types.
        self.headers["Content-Type"] = "application/json"
        self.response_headers = {"server": "amazon.com"}
        self._signature = Signature.parse(self.headers.get("Authorization", ""))
        self.access_key = self._signature.access_key_id if self._signature else ""
        self.region = self._signature.region if self._signature else self.default_region
        self.partition = get_partition(self.region)
        self.current_account = self.get_current_account()

    def _get_action(self) -> str:
        return self._operation

    def _get_params(self) -> dict[str, Any]:
        return self.params

    def call_action(self) -> TYPE_RESPONSE:
        """Carry out the operation, or respond with the fault that applies to the request."""
        with request_lock:
            ensure_reset_clears_scenario()
            refusal = self._refusal()
        # A request that is refused before it reaches DataZone does not use up a failure.
        fault = scenario.record(self._operation, self.params, self.access_key, has_faults=refusal is None)
        if refusal is not None:
            return refusal
        return self._carry_out() if fault is None else self._respond_with(fault)

    def _refusal(self) -> TYPE_RESPONSE | None:
        """Return the response to a request that AWS refuses before it reaches DataZone."""
        if self.region not in datazone_backends[self.current_account]:
            message = f"Credential should be scoped to a valid Region, not {self.region!r}."
            return self._error("InvalidSignatureException", message)
        credentials_error = self._credentials_error()
        if credentials_error is not None:
            return self._error(credentials_error)
        if not (scenario.requires_permissions and is_issued(self.access_key)):
            return None
        self._principal = Principal.find(self.current_account, self.partition, self.access_key, self.headers)
        if self._principal is None:
            return self._error("UnrecognizedClientException")
        reason = self._principal.iam_refusal(self._operation, self.params, self.backend)
        return None if reason is None else self._error("AccessDeniedException", reason)

    def _carry_out(self) -> TYPE_RESPONSE:
        with request_lock:
            if self._violations:
                number = len(self._violations)
                message = f"{number} validation error{'s' if number > 1 else ''} detected: "
                return self._error("ValidationException", message + "; ".join(self._violations))
            if self._principal is not None and not self._principal.is_member(
                self._operation, self.params, self.backend
            ):
                message = f"User is not permitted to perform operation: {self._operation}"
                return self._error("AccessDeniedException", message)
            return super().call_action()

    def _respond_with(self, fault: Fault) -> TYPE_RESPONSE:
        response = self._carry_out() if fault.after else None
        if fault.error == "hang":
            if self._connection is None:
                raise ReadTimeoutError(endpoint_url=self.uri)
            if self._stopping.wait(fault.seconds):
                return self._drop_connection()
            return response or self._carry_out()
        if fault.error == "drop":
            return self._drop_connection()
        if fault.error == "malformed":
            headers = {"Content-Type": "application/json", **self.response_headers}
            return 200, headers, '{"id": "cut sho'
        return self._error(fault.error, fault.message)

    def _error(self, code: str, message: str | None = None) -> TYPE_RESPONSE:
        status, default_message = ERRORS[code]
        return error_response(status, code, message or default_message)

    def _credentials_error(self) -> str | None:
        """Check the request's signature against the required credentials.

        :return: the error code, or None if the signature is valid or no credentials are required
        """
        secrets = scenario.secrets
        if not secrets:
            return None
        secret = secrets.get(self.access_key) if self._signature else None
        if self._signature is None or secret is None:
            return "UnrecognizedClientException"
        return None if self._signature.is_valid(self._received, secret) else "InvalidSignatureException"

    def _drop_connection(self) -> TYPE_RESPONSE:
        if self._connection is None:
            raise ConnectionClosedError(endpoint_url=self.uri)
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        # The client does not receive this: werkzeug treats the failing write as a client disconnect.
        return 500, {}, ""
