"""Amazon DataZone as a part of the installed moto, and what a test can ask of it."""

from __future__ import annotations

import json
import math
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar, cast, overload

import boto3
import moto.backend_index
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from moto import mock_aws
from moto.core.base_backend import BackendDict
from moto.core.common_types import TYPE_RESPONSE
from moto.core.config import DefaultConfig
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.utils import get_service_model

from . import models, urls
from .models import datazone_backends
from .responses import DataZoneResponse
from .scenario import (
    ACTIVE_STATUSES,
    ASSET_MEMBERS,
    TERMINAL_STATUSES,
    Bucket,
    Fault,
    Request,
    RunOutcome,
    scenario,
)

T = TypeVar("T", bound=Callable[..., Any])

#: The WSGI environment's key for the event that is set when the server stops.
STOPPING = "airflow_provider_datazone.stopping"

# Status and usual message: the service's own errors, then those of any AWS service.
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
# What the local DataZone's own clients, and its `connection`, sign with.
ACCESS_KEY = SECRET_KEY = "testing"
RUN_TYPES = ("BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES", "BUSINESS_GLOSSARY_ASSOCIATIONS")


class LocalDataZoneResponse(DataZoneResponse):
    """Answers as DataZone does, unless the test has asked for something else."""

    def _dispatch(self, request: Any, *args: Any, **kwargs: Any) -> TYPE_RESPONSE:
        # Only a request that came over a wire has these.
        environ = getattr(request, "environ", {})
        # As it was signed; over a wire the request's own has been decoded, which newer releases of moto undo.
        self._signed_url: str = getattr(request, "raw_url", None) or environ.get("RAW_URI") or request.url
        self._connection: socket.socket | None = environ.get("werkzeug.socket")
        self._stopping: threading.Event = environ.get(STOPPING) or threading.Event()
        return super()._dispatch(request, *args, **kwargs)

    def _get_action_from_method_and_request_uri(self, *request: Any) -> str:
        if len(request) == 1:  # moto has a router of its own
            return str(super()._get_action_from_method_and_request_uri(*request) or "")
        # Older releases of moto make a client for this, which looks for credentials everywhere.
        method, path = request
        for http_method, pattern, name in _routes():
            match = pattern.match(path)
            if match and http_method == method:
                self.uri_match = match  # type: ignore[assignment]
                return name
        return ""

    def call_action(self) -> TYPE_RESPONSE:
        """Answer, or fail if the test has asked for that."""
        operation = self._get_action()
        if not operation:
            return super().call_action()
        _ensure_reset_reaches_scenario()
        signed = AUTHORIZATION.search(self._header("Authorization"))
        fault = scenario.receive(operation, self.params or {}, signed and signed["key"])
        refusal = self._refusal()
        if refusal is not None:
            return self._error(refusal)
        if fault is None:
            return super().call_action()
        answer = super().call_action() if fault.after else None
        if fault.error == "hang":
            if self._connection is None:
                raise ReadTimeoutError(endpoint_url=self.uri)
            if self._stopping.wait(fault.seconds):
                return self._drop()
            return answer or super().call_action()
        if fault.error == "drop":
            return self._drop()
        if fault.error == "malformed":
            headers = {"Content-Type": "application/json", **self.response_headers}
            return 200, headers, '{"id": "cut sho'
        return self._error(fault.error, fault.message)

    def _error(self, error: str, message: str | None = None) -> TYPE_RESPONSE:
        status, usual_message = ERRORS[error]
        headers = {
            "Content-Type": "application/json",
            **self.response_headers,
            "X-Amzn-Errortype": error,
        }
        headers, body = self._enrich_response(headers, json.dumps({"message": message or usual_message}))
        return status, headers, body

    def _refusal(self) -> str | None:
        """The error for credentials that are not among those required, if any are."""
        secrets = scenario.secrets
        if not secrets:
            return None
        signed = AUTHORIZATION.fullmatch(self._header("Authorization"))
        secret = secrets.get(signed["key"]) if signed else None
        if signed is None or secret is None:
            return "UnrecognizedClientException"
        names = signed["headers"].split(";")
        request = AWSRequest(
            method=self.method,
            url=self._signed_url,
            data=self.body.encode() if isinstance(self.body, str) else self.body,
            headers={name: self._header(name) for name in names if name != "host" or self._header(name)},
        )
        request.context["timestamp"] = self._header("X-Amz-Date")
        signer = SigV4Auth(Credentials(signed["key"], secret), signed["service"], signed["region"])
        to_sign = signer.string_to_sign(request, signer.canonical_request(request))
        valid = signer.signature(to_sign, request) == signed["signature"]
        return None if valid else "InvalidSignatureException"

    def _header(self, name: str) -> str:
        value = self.headers.get(name, "")
        return value.decode() if isinstance(value, bytes) else str(value)

    def _drop(self) -> TYPE_RESPONSE:
        if self._connection is None:
            raise ConnectionClosedError(endpoint_url=self.uri)
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        # Goes nowhere: werkzeug takes the failing write for a client that has gone.
        return 500, {}, ""


@cache
def _routes() -> list[tuple[str, re.Pattern[str], str]]:
    model = get_service_model("datazone")
    https = {name: model.operation_model(name).http for name in model.operation_names}
    routes = [
        (http["method"], re.compile(DataZoneResponse.uri_to_regexp(http["requestUri"])), name)  # type: ignore[attr-defined]
        for name, http in https.items()
    ]
    # moto's patterns are greedy at the end: the longer one goes first.
    return sorted(routes, key=lambda route: len(route[1].pattern), reverse=True)


def register() -> None:
    """Make Amazon DataZone a part of the installed moto, once.

    Should a moto come with a DataZone of its own, this one goes before it: it has the control methods.
    """
    sys.modules["moto.datazone"] = models
    urls.url_paths["{0}/.*$"] = LocalDataZoneResponse.dispatch
    for base in urls.url_bases:
        pattern = ("datazone", re.compile(base))
        if pattern not in moto.backend_index.backend_url_patterns:
            moto.backend_index.backend_url_patterns.insert(0, pattern)


def _ensure_reset_reaches_scenario() -> None:
    # moto resets only the backends that were used.
    datazone_backends[DEFAULT_ACCOUNT_ID]["us-east-1"]


class AssetIdentifiers(NamedTuple):
    """Where an asset is found."""

    domain_identifier: str
    project_identifier: str
    asset_identifier: str


class DataZoneControls:
    """What a test can ask of the local DataZone.

    There is one local DataZone a process, as moto keeps its state for the process, and what is asked of it
    holds whatever account and Region a request comes from. It is emptied when moto is: where
    ``mock_datazone`` or ``mock_aws`` begins and ends.
    """

    @property
    def endpoint_url(self) -> str | None:
        """Where DataZone answers over HTTP; None within the process."""
        return None

    def set_run_outcome(
        self,
        asset_identifier: str | None = None,
        *,
        statuses: str | Mapping[str, str] | None = None,
        error_messages: Mapping[str, str] | None = None,
        status: str | None = None,
        type_stats: bool = True,
        submitted_seconds: float | None = None,
        in_progress_seconds: float | None = None,
        polls: int | None = None,
        times: int | None = 1,
    ) -> None:
        """Say how the next run of an asset goes.

        What is said of an asset comes before what is said of all, and ``times`` before what holds for good.
        Without seconds and polls a run takes the pace that moto's state manager has for
        ``datazone::metadata-generation-run``: ``IN_PROGRESS`` at the first look, finished at the second. A
        look is a Get, which shows what comes after it, or a List with the run in it, showing what was before.

        .. seealso::
            - `moto's state transitions
              <https://docs.getmoto.org/en/latest/docs/configuration/state_transition/index.html>`__
            - `GetMetadataGenerationRun
              <https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetMetadataGenerationRun.html>`__

        :param asset_identifier: the asset; None (the default) for any
        :param statuses: the status in which the run's types end: one for all, or by type, where a type
            that is left out succeeds. The run's own follows: mixed is ``PARTIALLY_SUCCEEDED``.
            Default: ``SUCCEEDED``
        :param error_messages: the types' ``errorMessage``, by type. Default: none
        :param status: the status in which the run itself ends, be it one that AWS has not published.
            Default: what follows from its types
        :param type_stats: False leaves ``typeStats`` out, as the service may. Default: True
        :param submitted_seconds: how long the run is ``SUBMITTED``, in seconds. Default: 0 where
            ``in_progress_seconds`` is given
        :param in_progress_seconds: how long it is ``IN_PROGRESS`` then, in seconds. Default: 0 where
            ``submitted_seconds`` is given
        :param polls: the look at which the run is finished, in place of seconds; 0 for at once. Default: None
        :param times: for how many runs this holds; None for all that follow. Default: 1
        :raises ValueError: for an unknown type or type status, or numbers that make no sense
        """
        by_type = {} if statuses is None or isinstance(statuses, str) else dict(statuses)
        found = [statuses] if isinstance(statuses, str) else list(by_type.values())
        _check("status", found, ACTIVE_STATUSES + TERMINAL_STATUSES)
        _check("type", [*by_type, *(error_messages or ())], RUN_TYPES)
        if polls is not None and (submitted_seconds, in_progress_seconds) != (None, None):
            raise ValueError("Give either polls or seconds, not both")
        if times is not None and times < 1:
            raise ValueError(f"times is at least 1, or None for all runs that follow: {times!r}")
        for value in (polls, submitted_seconds, in_progress_seconds):
            if value is not None and value < 0:
                raise ValueError(f"polls and seconds cannot be negative: {value!r}")
        outcome = RunOutcome(
            statuses=statuses if isinstance(statuses, str) or statuses is None else by_type,
            error_messages=dict(error_messages or {}),
            status=status,
            type_stats=type_stats,
            submitted_seconds=submitted_seconds,
            in_progress_seconds=in_progress_seconds,
            polls=polls,
        )
        _ensure_reset_reaches_scenario()
        scenario.add_outcome(asset_identifier, outcome, times)

    def set_run_status(self, run_identifier: str, status: str | None) -> None:
        """Put a run that has been started into a status, in which it stays.

        :param run_identifier: the run
        :param status: the status, be it one that AWS has not published; None lets the run go on by itself
        :raises ValueError: if there is no such run
        """
        with models.lock:
            backends = [b for account in datazone_backends.values() for b in account.values()]
            for domain in [domain for backend in backends for domain in backend.domains.values()]:
                if run_identifier in domain.runs:
                    domain.runs[run_identifier].hold(status)
                    return
        raise ValueError(f"There is no run {run_identifier!r}")

    def fail(
        self,
        operation: str,
        error: str,
        *,
        times: int | None = 1,
        message: str | None = None,
        seconds: float | None = None,
        after: bool = False,
        asset_identifier: str | None = None,
        access_key_id: str | None = None,
    ) -> None:
        """Make an operation fail. Several failures of one operation come in the order they were asked for.

        ``hang`` with ``seconds`` makes an operation slow: it is carried out and answered after that time, or
        with ``after=True`` carried out at once and answered after that time.

        .. seealso::
            `Common errors <https://docs.aws.amazon.com/datazone/latest/APIReference/CommonErrors.html>`__

        :param operation: the operation, in AWS's name (``GetMetadataGenerationRun``), or ``*`` for any
        :param error: an error code of the service (``ThrottlingException``), ``ExpiredTokenException``,
            ``UnrecognizedClientException`` or ``ServiceUnavailableException``; or ``hang`` for an answer
            that is late, ``drop`` for a connection that is closed without one, ``malformed`` for JSON that
            is cut off
        :param times: how many requests fail; None for all that follow. Default: 1
        :param message: the error's message. Default: one that is usual for it
        :param seconds: how long a request hangs before it is answered, in seconds. Default: until the server
            stops. Within a process (``mock_datazone``) a hanging request times out at once
        :param after: True carries the operation out and loses its answer. Default: False
        :param asset_identifier: only requests that name this asset fail. Default: all
        :param access_key_id: only requests that are signed with this access key fail. Default: all
        :raises ValueError: for an unknown operation or error, one that names no asset where one is given, or
            numbers that make no sense
        """
        _check("operation", [operation], ("*", *get_service_model("datazone").operation_names))
        _check("error", [error], (*ERRORS, *WIRE_FAULTS))
        if asset_identifier is not None and operation not in ("*", *ASSET_MEMBERS):
            raise ValueError(f"A request for {operation} names no asset")
        if times is not None and times < 1:
            raise ValueError(f"times is at least 1, or None for all requests that follow: {times!r}")
        if seconds is not None and (error != "hang" or seconds < 0):
            raise ValueError(f"seconds, 0 or more, are for 'hang' alone: {seconds!r}")
        _ensure_reset_reaches_scenario()
        scenario.add_fault(
            Fault(operation, error, times, message, seconds, after, asset_identifier, access_key_id)
        )

    def limit(self, operation: str, per_second: float, burst: int | None = None) -> None:
        """Limit the rate of an operation, as the service does for an account and Region.

        Requests over the rate are answered ``ThrottlingException`` and not carried out; :attr:`requests` has
        them too. The limit is a token bucket in real time, one for all accounts and Regions. Another call
        replaces it, :meth:`recover` and :meth:`reset` lift it.

        :param operation: the operation, in AWS's name (``StartMetadataGenerationRun``)
        :param per_second: requests per second; AWS publishes 10 for ``StartMetadataGenerationRun`` and 20 for
            ``CancelMetadataGenerationRun``, ``AcceptPredictions`` and ``RejectPredictions``
        :param burst: how many requests may come at once after a pause. Default: those of one second
        :raises ValueError: for an unknown operation, or numbers that make no sense
        """
        _check("operation", [operation], get_service_model("datazone").operation_names)
        if not 0 < per_second < math.inf:
            raise ValueError(f"per_second must be a number above 0, got {per_second!r}")
        if burst is None:
            burst = math.ceil(per_second)
        elif burst < 1:
            raise ValueError(f"burst must be at least 1, got {burst!r}")
        _ensure_reset_reaches_scenario()
        scenario.set_limit(operation, Bucket(per_second, burst))

    def recover(self) -> None:
        """Let no more requests fail, whatever was asked for; one that hangs already goes on hanging.

        Limits are lifted, too.
        """
        _ensure_reset_reaches_scenario()
        scenario.drop_faults()

    def require_credentials(self, access_key_id: str, secret_access_key: str) -> None:
        """Refuse whoever has other credentials: ``UnrecognizedClientException`` for another access key,
        ``InvalidSignatureException`` for another secret. Until this is asked for, any will do.

        Of several, each will do, and always those of :meth:`client` and of a server's ``connection``. The
        same access key with another secret takes the place of the one before, as when they are rotated.

        .. seealso::
            `Signature Version 4 <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>`__

        :param access_key_id: the access key
        :param secret_access_key: its secret
        """
        _ensure_reset_reaches_scenario()
        scenario.require_secrets({ACCESS_KEY: SECRET_KEY, access_key_id: secret_access_key})

    @property
    def requests(self) -> list[Request]:
        """What was asked of DataZone so far: ``(operation, parameters)``, without any ``editedValue``.

        Each has ``received_at``, too: when it was received, in seconds of ``time.monotonic()``.
        """
        return scenario.requests

    @property
    def request_counts(self) -> Counter[str]:
        """How often each operation was asked for so far."""
        return Counter(request.operation for request in scenario.requests)

    def reset(self) -> None:
        """Empty DataZone, and every other service of this moto.

        Outcomes, failures, limits and requests are forgotten.
        """
        _ensure_reset_reaches_scenario()
        with models.lock:
            BackendDict.reset()

    def client(self, region_name: str = "us-east-1", config: Config | None = None) -> Any:
        """A new boto3 client for the local DataZone, which needs nothing of the environment.

        :param region_name: the Region. Default: ``us-east-1``
        :param config: botocore's configuration, for time-outs and retries. Default: botocore's own
        """
        return _client(region_name, self.endpoint_url, config)

    def create_asset(
        self,
        name: str = "orders",
        *,
        domain_identifier: str | None = None,
        project_identifier: str | None = None,
        type_identifier: str = "amazon.datazone.GlueTableAssetType",
        columns: Iterable[str] = ("order_id", "amount"),
        description: str | None = None,
        region_name: str = "us-east-1",
    ) -> AssetIdentifiers:
        """Create an asset, with a domain and a project for it where none are given.

        :param name: the asset's name. Default: ``orders``
        :param domain_identifier: the domain. Default: a new one
        :param project_identifier: the project in that domain. Default: a new one
        :param type_identifier: the asset's type. Default: a Glue table, which metadata can be generated for
        :param columns: the names of its columns. Default: two
        :param description: the asset's description. Default: none
        :param region_name: the Region. Default: ``us-east-1``
        """
        client = _cached_client(region_name, self.endpoint_url)
        if domain_identifier is None:
            domain_identifier = client.create_domain(
                name="local",
                domainExecutionRole=f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/DataZoneDomainExecution",
            )["id"]
        if project_identifier is None:
            project = client.create_project(domainIdentifier=domain_identifier, name="local")
            project_identifier = project["id"]
        table = {"columns": [{"columnName": column, "dataType": "string"} for column in columns]}
        asset = client.create_asset(
            domainIdentifier=domain_identifier,
            owningProjectIdentifier=project_identifier,
            name=name,
            typeIdentifier=type_identifier,
            formsInput=[
                {
                    "formName": "GlueTableForm",
                    "typeIdentifier": "amazon.datazone.GlueTableFormType",
                    "content": json.dumps(table),
                }
            ],
            **({} if description is None else {"description": description}),
        )
        return AssetIdentifiers(str(domain_identifier), str(project_identifier), asset["id"])


def _client(region_name: str, endpoint_url: str | None, config: Config | None = None) -> Any:
    # The process may be set up for another endpoint, and for a proxy, which does not reach this one.
    local = Config(ignore_configured_endpoint_urls=True, proxies={})
    return boto3.client(
        "datazone",
        region_name=region_name,
        endpoint_url=endpoint_url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=local if config is None else config.merge(local),
    )


# A client takes longer to make than thousands of assets should.
_cached_client = lru_cache(maxsize=8)(_client)


def _check(what: str, values: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for value in values:
        if value not in known:
            raise ValueError(f"Unknown {what} {value!r}: it is one of {', '.join(sorted(known))}")


class MockDataZone(DataZoneControls):
    """Moto's ``mock_aws`` with Amazon DataZone in it: a context manager and a decorator."""

    def __init__(self, config: DefaultConfig | None = None) -> None:
        self._mock = mock_aws(config=config)

    def __enter__(self) -> MockDataZone:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    def __call__(self, function: T) -> T:
        """Decorate a function or a class."""
        decorated: Any = self._mock(function)
        return cast("T", decorated)

    def start(self) -> None:
        """Begin, with everything empty."""
        self._mock.start()

    def stop(self) -> None:
        """End, and forget everything."""
        self._mock.stop()


@overload
def mock_datazone(function: T) -> T: ...


@overload
def mock_datazone(function: None = None, config: DefaultConfig | None = None) -> MockDataZone: ...


def mock_datazone(function: T | None = None, config: DefaultConfig | None = None) -> T | MockDataZone:
    """Moto's ``mock_aws`` with Amazon DataZone in it.

    A decorator for functions and classes, bare or called, and a context manager that hands out the
    :class:`DataZoneControls`. Requests of boto3 clients never leave the process.

    :param function: what to decorate
    :param config: moto's own configuration
    """
    mock = MockDataZone(config)
    return mock if function is None else mock(function)


register()
