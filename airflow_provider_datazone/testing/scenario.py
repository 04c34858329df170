"""The settings of a test (run outcomes, faults, limits, credentials, permissions) and the requests received.

Each process has one scenario, as it has one moto state, and it applies to requests of every account and
Region. Moto clears it when it resets its backends.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: The clock for `Request.received_at` and for rate limits. Tests can replace it.
clock: Callable[[], float] = time.monotonic
#: Held while a request is handled: moto's server has many threads, and even a Get changes a run's status.
request_lock = threading.RLock()

#: The path of the asset identifier in the parameters, for each operation that names an asset.
ASSET_MEMBERS = {
    "StartMetadataGenerationRun": ("target", "identifier"),
    "ListMetadataGenerationRuns": ("targetIdentifier",),
    "AcceptPredictions": ("identifier",),
    "RejectPredictions": ("identifier",),
    "CreateListingChangeSet": ("entityIdentifier",),
    "GetAsset": ("identifier",),
    "CreateAssetRevision": ("identifier",),
    "ListAssetRevisions": ("identifier",),
}


@dataclass(frozen=True)
class RunOutcome:
    """The outcome and the duration of a run. By default it succeeds and follows moto's state transitions."""

    statuses: str | Mapping[str, str] | None = None
    error_messages: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None
    type_stats: bool = True
    submitted_seconds: float | None = None
    in_progress_seconds: float | None = None
    polls: int | None = None

    def type_status(self, run_type: str, types: list[str]) -> str:
        """Return the final status of a type of a run with these types."""
        if isinstance(self.statuses, str):
            return self.statuses
        if self.statuses is not None:
            return self.statuses.get(run_type, "SUCCEEDED")
        if self.status == "PARTIALLY_SUCCEEDED":
            return "FAILED" if run_type == types[-1] else "SUCCEEDED"
        return self.status if self.status in ("FAILED", "CANCELED") else "SUCCEEDED"

    def run_status(self, types: list[str]) -> str:
        """Return the final status of the run: the one that is set, else one derived from its types."""
        if self.status is not None:
            return self.status
        statuses = {self.type_status(run_type, types) for run_type in types}
        if len(statuses) == 1:
            return statuses.pop()
        return "PARTIALLY_SUCCEEDED" if statuses & {"SUCCEEDED", "PARTIALLY_SUCCEEDED"} else "FAILED"


class _Request(NamedTuple):
    operation: str
    parameters: dict[str, Any]


class Request(_Request):
    """A request that DataZone has received, as a pair ``(operation, parameters)``.

    :ivar received_at: the value of ``time.monotonic()`` when the request arrived. Not an item of the pair
    """

    operation: str
    parameters: dict[str, Any]
    received_at: float = 0.0

    def __new__(cls, operation: str, parameters: dict[str, Any], received_at: float = 0.0) -> Request:
        """Create a pair with the attribute ``received_at``."""
        request = super().__new__(cls, operation, parameters)
        request.received_at = received_at
        return request


class TokenBucket:
    """A rate limit: tokens are added at a constant rate, and each request takes one.

    :param per_second: the number of tokens added per second
    :param burst: the capacity. The bucket starts full
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens: float = burst
        self._updated_at = clock()

    def take(self, now: float) -> bool:
        """Take a token.

        :return: False if the bucket is empty
        """
        tokens = self._tokens + (now - self._updated_at) * self._per_second
        self._tokens = min(tokens, self._burst)
        self._updated_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass
class Fault:
    """A failure of an operation. See `DataZoneControls.fail` for its fields."""

    operation: str
    error: str
    times: int | None
    message: str | None
    seconds: float | None
    after: bool
    asset_identifier: str | None = None
    access_key_id: str | None = None

    def matches(self, request: Request, access_key_id: str) -> bool:
        """Return whether the failure applies to a request."""
        if self.operation not in (request.operation, "*"):
            return False
        if self.access_key_id not in (None, access_key_id):
            return False
        return self.asset_identifier is None or self.asset_identifier == _asset_of(request)


#: The response to a request above the limit of its operation.
THROTTLED = Fault("*", "ThrottlingException", None, None, None, after=False)


class Scenario:
    """The settings and the recorded requests. Thread-safe: each request has its own thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Delete all settings and all recorded requests."""
        with self._lock:
            self._next_outcomes: dict[str | None, deque[RunOutcome]] = {}
            self._lasting_outcomes: dict[str | None, RunOutcome] = {}
            self._faults: list[Fault] = []
            self._limits: dict[str, TokenBucket] = {}
            self._requests: list[Request] = []
            self._secrets: dict[str, str] = {}
            self.requires_permissions = False

    def add_outcome(self, asset_id: str | None, outcome: RunOutcome, times: int | None) -> None:
        """Set the outcome of the next runs.

        :param asset_id: the asset, or None for any asset
        :param outcome: the outcome
        :param times: the number of runs, or None for all later runs
        """
        with self._lock:
            if times is None:
                self._lasting_outcomes[asset_id] = outcome
            else:
                self._next_outcomes.setdefault(asset_id, deque()).extend([outcome] * times)

    def take_outcome(self, asset_id: str) -> RunOutcome:
        """Return the outcome of a new run. One for its asset takes precedence over one for any asset."""
        with self._lock:
            for key in (asset_id, None):
                if self._next_outcomes.get(key):
                    return self._next_outcomes[key].popleft()
                if key in self._lasting_outcomes:
                    return self._lasting_outcomes[key]
        return RunOutcome()

    def add_fault(self, fault: Fault) -> None:
        """Add a fault. Faults that were added before it apply first."""
        with self._lock:
            self._faults.append(fault)

    def clear_faults_and_limits(self) -> None:
        """Remove all faults and all rate limits."""
        with self._lock:
            self._faults.clear()
            self._limits.clear()

    def set_limit(self, operation: str, bucket: TokenBucket) -> None:
        """Limit the rate of an operation."""
        with self._lock:
            self._limits[operation] = bucket

    def record(
        self, operation: str, parameters: dict[str, Any], access_key_id: str = "", has_faults: bool = True
    ) -> Fault | None:
        """Record a request.

        :param has_faults: whether a limit or a failure can apply
        :return: the fault that applies to the request, or None
        """
        parameters = _without_edited_values(parameters)
        with self._lock:
            request = Request(operation, parameters, clock())
            self._requests.append(request)
            if not has_faults:
                return None
            bucket = self._limits.get(operation)
            if bucket is not None and not bucket.take(request.received_at):
                return THROTTLED
            for fault in self._faults:
                if fault.matches(request, access_key_id):
                    if fault.times is not None:
                        fault.times -= 1
                        if not fault.times:
                            self._faults.remove(fault)
                    return fault
        return None

    def require_secrets(self, secrets: Mapping[str, str]) -> None:
        """Add required credentials: a secret access key by access key ID."""
        with self._lock:
            self._secrets.update(secrets)

    def require_permissions(self) -> None:
        """Check IAM policies, user profiles and memberships from now on."""
        with self._lock:
            self.requires_permissions = True

    @property
    def secrets(self) -> dict[str, str]:
        """The secret access key for each required access key ID. Empty if any credentials are valid."""
        with self._lock:
            return dict(self._secrets)

    @property
    def requests(self) -> list[Request]:
        """All recorded requests."""
        with self._lock:
            return list(self._requests)


def _asset_of(request: Request) -> Any:
    """Return the asset identifier in a request, or None."""
    value: Any = request.parameters
    for member in ASSET_MEMBERS.get(request.operation, (None,)):
        # Requests are not validated yet, so a value may have any type.
        value = value.get(member) if isinstance(value, dict) else None
    return value


def _without_edited_values(value: Any) -> Any:
    """Return a copy without ``editedValue``, which the service model marks as sensitive."""
    if isinstance(value, dict):
        return {k: _without_edited_values(v) for k, v in value.items() if k != "editedValue"}
    if isinstance(value, list):
        return [_without_edited_values(item) for item in value]
    return value


scenario = Scenario()
