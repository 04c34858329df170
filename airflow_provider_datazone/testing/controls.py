"""The controls of the local DataZone, which set what a test needs and return the recorded requests."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.core.models import DEFAULT_ACCOUNT_ID, botocore_stubber
from moto.core.utils import get_service_model

from .backend.models import datazone_backends
from .backend.runs import ACTIVE_STATUSES, TERMINAL_STATUSES
from .local_responses import ERRORS, WIRE_FAULTS, is_implemented
from .scenario import ASSET_MEMBERS, Fault, Request, RunOutcome, TokenBucket, request_lock, scenario
from .scripted_runs import ensure_reset_clears_scenario

# The credentials of `DataZoneControls.client` and of `DataZoneServer.connection`.
ACCESS_KEY = SECRET_KEY = "testing"
# Longer than any test, and short enough for a timer.
MAX_SECONDS = 1_000_000
RUN_TYPES = ("BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES", "BUSINESS_GLOSSARY_ASSOCIATIONS")


class AssetIdentifiers(NamedTuple):
    """The identifiers of an asset, its domain and its project."""

    domain_identifier: str
    project_identifier: str
    asset_identifier: str


class DataZoneControls:
    """The controls of the local DataZone.

    Each process has one local DataZone, because moto keeps its state per process. A setting applies to
    requests of every account and Region. Moto deletes all resources, settings and requests, also those of a
    :class:`DataZoneServer` that is running, when the outermost ``mock_datazone`` or ``mock_aws`` starts and
    stops. A test that is decorated with ``mock_datazone`` can create this class to set an outcome.
    """

    @property
    def endpoint_url(self) -> str | None:
        """The URL of the local DataZone, or None if it is not served over HTTP."""
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
        """Set the outcome and the duration of the next run of an asset.

        An outcome for one asset takes precedence over an outcome for any asset, and an outcome with a number
        of ``times`` over one for all later runs.

        Without ``polls`` and seconds, a run follows moto's state transitions for the model
        ``datazone::metadata-generation-run``. By default the first poll returns ``IN_PROGRESS`` and the
        second the final status. A poll is a Get request, or a List request that returns the run. A Get
        returns the status after the transition, a List the status before it.

        .. seealso::
            - `moto's state transitions
              <https://docs.getmoto.org/en/latest/docs/configuration/state_transition/index.html>`__
            - `GetMetadataGenerationRun
              <https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetMetadataGenerationRun.html>`__

        :param asset_identifier: the asset. Default: any
        :param statuses: the final status of the run's types: one status for all types, or a status by type,
            where a missing type succeeds. A run is ``PARTIALLY_SUCCEEDED`` if only some of its types succeed.
            Default: derived from ``status``, where the last type of a ``PARTIALLY_SUCCEEDED`` run has failed
        :param error_messages: the ``errorMessage`` by type. Default: none
        :param status: the final status of the run itself. It may be a status that AWS has not published. For
            a run that stays active, see :meth:`set_run_status`. Default: derived from the types
        :param type_stats: False omits ``typeStats``, which is an optional field of the API. Default: True
        :param submitted_seconds: how long the run is ``SUBMITTED``, in seconds. Default: 0 if
            ``in_progress_seconds`` is set
        :param in_progress_seconds: how long the run is then ``IN_PROGRESS``, in seconds. Default: 0 if
            ``submitted_seconds`` is set
        :param polls: the number of polls until the run ends, instead of seconds. 0 ends it at once.
            Default: None
        :param times: the number of runs that have this outcome, or None for all later runs. Default: 1
        :raises ValueError: for an unknown type, a status that is not final, or an invalid number
        """
        by_type = {} if statuses is None or isinstance(statuses, str) else dict(statuses)
        type_statuses = [statuses] if isinstance(statuses, str) else list(by_type.values())
        _validate("final status", type_statuses, TERMINAL_STATUSES)
        if status in ("", *ACTIVE_STATUSES):
            raise ValueError(
                f"A run cannot end with the status {status!r}: set_run_status keeps a run active"
            )
        _validate("type", [*by_type, *(error_messages or ())], RUN_TYPES)
        _validate_times(times)
        if polls is not None:
            _validate_polls(polls, (submitted_seconds, in_progress_seconds))
        _validate_seconds("submitted_seconds", submitted_seconds)
        _validate_seconds("in_progress_seconds", in_progress_seconds)
        outcome = RunOutcome(
            statuses=statuses if isinstance(statuses, str) or statuses is None else by_type,
            error_messages=dict(error_messages or {}),
            status=status,
            type_stats=type_stats,
            submitted_seconds=submitted_seconds,
            in_progress_seconds=in_progress_seconds,
            polls=polls,
        )
        ensure_reset_clears_scenario()
        scenario.add_outcome(asset_identifier, outcome, times)

    def set_run_status(self, run_identifier: str, status: str | None) -> None:
        """Set the status of a run that has started. It lasts until the next call or a cancellation.

        :param run_identifier: the run
        :param status: the status. It may be one that AWS has not published. None lets the run advance again
        :raises ValueError: if the run does not exist, or the status is empty
        """
        if status == "":
            raise ValueError("status must not be empty")
        with request_lock:
            backends = [b for account in datazone_backends.values() for b in account.values()]
            for domain in [domain for backend in backends for domain in backend.domains.values()]:
                if run_identifier in domain.runs:
                    domain.runs[run_identifier].set_status(status)
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
        """Make an operation fail. Several failures of one operation occur in the order of the calls.

        ``hang`` with ``seconds`` makes an operation slow. DataZone carries out the operation after this time
        and responds; with ``after=True``, it carries out the operation at once and responds after this time.

        .. seealso::
            `Common errors <https://docs.aws.amazon.com/datazone/latest/APIReference/CommonErrors.html>`__

        :param operation: the AWS name of the operation (``GetMetadataGenerationRun``), or ``*`` for any
        :param error: an error code of the service (``ThrottlingException``), ``ExpiredTokenException``,
            ``UnrecognizedClientException`` or ``ServiceUnavailableException``; or ``hang`` for a late
            response, ``drop`` to close the connection without a response, ``malformed`` for a response with
            truncated JSON
        :param times: how many requests fail, or None for all later requests. Default: 1
        :param message: the error message. Default: the usual message of this error
        :param seconds: how long a request hangs before the response, in seconds. Default: until the server
            stops. Within the process (``mock_datazone``), a request that hangs times out at once
        :param after: True carries out the operation before the failure. Default: False
        :param asset_identifier: only requests that name this asset fail. Default: all
        :param access_key_id: only requests that are signed with this access key fail. Default: all
        :raises ValueError: for an unknown or unimplemented operation, an unknown error, an asset with an
            operation that does not name one, or an invalid number
        """
        _validate_operation(operation, "*")
        _validate("error", [error], (*ERRORS, *WIRE_FAULTS))
        if asset_identifier is not None and operation not in ("*", *ASSET_MEMBERS):
            raise ValueError(f"A request for {operation} names no asset")
        _validate_times(times)
        if seconds is not None and error != "hang":
            raise ValueError(f"seconds are for 'hang' only, got {seconds!r}")
        _validate_seconds("seconds", seconds)
        ensure_reset_clears_scenario()
        scenario.add_fault(
            Fault(operation, error, times, message, seconds, after, asset_identifier, access_key_id)
        )

    def limit(self, operation: str, per_second: float, burst: int | None = None) -> None:
        """Limit the rate of an operation.

        The response to a request above the rate is ``ThrottlingException``. DataZone does not carry out the
        operation, but :attr:`requests` includes the request. The limit is a token bucket in real time that
        all accounts and Regions share. Another call replaces it, and :meth:`recover` and :meth:`reset` remove
        it.

        :param operation: the AWS name of the operation (``StartMetadataGenerationRun``)
        :param per_second: requests per second. AWS publishes 10 for ``StartMetadataGenerationRun`` and 20 for
            ``CancelMetadataGenerationRun``, ``AcceptPredictions`` and ``RejectPredictions``
        :param burst: how many requests may arrive at once after a pause. Default: the requests of one second
        :raises ValueError: for an unknown or unimplemented operation, or an invalid number
        """
        _validate_operation(operation)
        if not 0 < per_second < math.inf:
            raise ValueError(f"per_second must be a number above 0, got {per_second!r}")
        if burst is None:
            burst = math.ceil(per_second)
        elif not isinstance(burst, int) or burst < 1:
            raise ValueError(f"burst must be a whole number of at least 1, got {burst!r}")
        ensure_reset_clears_scenario()
        scenario.set_limit(operation, TokenBucket(per_second, burst))

    def recover(self) -> None:
        """End all failures and limits. A request that already hangs continues to hang."""
        ensure_reset_clears_scenario()
        scenario.clear_faults_and_limits()

    def require_credentials(self, access_key_id: str, secret_access_key: str) -> None:
        """Reject requests that are not signed with these credentials. By default any credentials are valid.

        The response is ``UnrecognizedClientException`` for an unknown access key and
        ``InvalidSignatureException`` for a wrong secret access key. Each call adds credentials. A call with a
        known access key replaces its secret, as key rotation does. The credentials of :meth:`client` and of a
        server's ``connection`` are always valid. The temporary credentials of a role are not: their access
        key is not known in advance.

        .. seealso::
            `Signature Version 4 <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>`__

        :param access_key_id: the access key ID
        :param secret_access_key: the secret access key
        """
        ensure_reset_clears_scenario()
        scenario.require_secrets({ACCESS_KEY: SECRET_KEY, access_key_id: secret_access_key})

    def require_permissions(self) -> None:
        """Check IAM policies, user profiles and memberships. By default every request is permitted.

        The checks apply to access keys that start with ``AKIA`` or ``ASIA``, as issued by moto's IAM and STS.
        Requests with other access keys, such as those of :meth:`client`, are always permitted, so that a test
        can prepare domains, user profiles and memberships. :meth:`reset` ends the checks.

        - IAM: the access key must belong to a user or to an assumed role whose policies allow the action.
          Only ``GetDomain`` has a resource type; for any other action, a policy needs the resource ``*``. A
          statement with a condition denies the request. Permissions boundaries and session policies have no
          effect, and credentials of ``GetSessionToken`` are not valid.
        - DataZone: the principal needs an ``ACTIVATED`` user profile in the domain, except for operations on
          domains and user profiles, and membership in the project that owns the resource. Only owners of a
          project add members. AWS does not publish which operations need the membership.

        Signatures are checked only with :meth:`require_credentials`.

        .. seealso::
            `Actions, resources, and condition keys for Amazon DataZone
            <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondatazone.html>`__
        """
        ensure_reset_clears_scenario()
        scenario.require_permissions()

    @property
    def requests(self) -> list[Request]:
        """All requests for implemented operations so far, as pairs ``(operation, parameters)``.

        The parameters are without any ``editedValue``.
        The attribute ``received_at`` of each is the value of ``time.monotonic()`` when the request arrived.
        """
        return scenario.requests

    @property
    def request_counts(self) -> Counter[str]:
        """The number of requests so far by operation."""
        return Counter(request.operation for request in scenario.requests)

    def reset(self) -> None:
        """Delete everything in DataZone and in every other moto backend, and all settings and requests.

        Moto's state transitions stay. ``state_manager.unset_transition`` of ``moto.moto_api`` ends one.
        """
        ensure_reset_clears_scenario()
        with request_lock:
            BackendDict.reset()
            reset_model_data()

    def client(self, region_name: str = "us-east-1", config: Config | None = None) -> Any:
        """Return a new boto3 client for the local DataZone.

        The environment does not change its endpoint, its credentials and its proxy.

        :param region_name: the Region. Default: ``us-east-1``
        :param config: the botocore configuration, for timeouts and retries. Default: botocore's own
        :raises RuntimeError: if neither a server nor a mock is running
        """
        return _client(region_name, self._local_endpoint_url(), config)

    def _local_endpoint_url(self) -> str | None:
        if self.endpoint_url is None and not botocore_stubber.enabled:
            raise RuntimeError("No mock has been started, so requests would go to AWS: start mock_datazone")
        return self.endpoint_url

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
        """Create an asset, and by default a domain and a project for it.

        :param name: the asset's name. Default: ``orders``
        :param domain_identifier: the domain. Default: a new one
        :param project_identifier: the project in that domain. Default: a new one
        :param type_identifier: the asset's type. Default: a Glue table, which metadata can be generated for
        :param columns: the names of the asset's columns. Default: two columns
        :param description: the asset's description. Default: none
        :param region_name: the Region. Default: ``us-east-1``
        :raises RuntimeError: if neither a server nor a mock is running
        :raises ValueError: for a project without its domain
        """
        if project_identifier is not None and domain_identifier is None:
            raise ValueError("Give the domain_identifier of the project, too")
        client = _cached_client(region_name, self._local_endpoint_url())
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
    # The environment may configure another endpoint, or a proxy that cannot reach the local DataZone.
    local = Config(ignore_configured_endpoint_urls=True, proxies={})
    return boto3.client(
        "datazone",
        region_name=region_name,
        endpoint_url=endpoint_url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=local if config is None else config.merge(local),
    )


# Creating a client is slow, and a test may create thousands of assets.
_cached_client = lru_cache(maxsize=8)(_client)


def _validate_times(times: int | None) -> None:
    if times is not None and (not isinstance(times, int) or times < 1):
        raise ValueError(f"times must be a whole number of at least 1, or None for all, got {times!r}")


def _validate_polls(polls: int, seconds: tuple[float | None, float | None]) -> None:
    if seconds != (None, None):
        raise ValueError("Give either polls or seconds, not both")
    if not isinstance(polls, int) or polls < 0:
        raise ValueError(f"polls must be a whole number of at least 0, or None, got {polls!r}")


def _validate_seconds(name: str, seconds: float | None) -> None:
    if seconds is not None and not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"{name} must be a number from 0 to {MAX_SECONDS:,}, got {seconds!r}")


def _validate_operation(operation: str, *others: str) -> None:
    _validate("operation", [operation], (*others, *get_service_model("datazone").operation_names))
    if operation not in others and not is_implemented(operation):
        raise ValueError(f"The local DataZone does not implement the operation {operation}")


def _validate(kind: str, values: Iterable[str], valid: Iterable[str]) -> None:
    valid = list(valid)
    for value in values:
        if value not in valid:
            raise ValueError(f"Unknown {kind} {value!r}: use one of {', '.join(sorted(valid))}")
