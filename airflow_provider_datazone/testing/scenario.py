"""What a test has asked for: how the next runs go, which requests fail, and what was requested.

One for the whole process, as moto's own state is, so that it holds whatever account and Region a request
comes from. It goes when moto resets its backends.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: The clock of requests and of their limits; tests may put in their own.
clock: Callable[[], float] = time.monotonic

ACTIVE_STATUSES = ("SUBMITTED", "IN_PROGRESS")
TERMINAL_STATUSES = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELED")
#: The operations whose requests name an asset, and where.
ASSET_MEMBERS = {
    "StartMetadataGenerationRun": ("target", "identifier"),
    "ListMetadataGenerationRuns": ("targetIdentifier",),
    "AcceptPredictions": ("identifier",),
    "RejectPredictions": ("identifier",),
    "CreateListingChangeSet": ("entityIdentifier",),
    "GetAsset": ("identifier",),
}


@dataclass(frozen=True)
class RunOutcome:
    """How a run goes. What is left out goes well, at the pace of moto's state manager."""

    statuses: str | Mapping[str, str] | None = None
    error_messages: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None
    type_stats: bool = True
    submitted_seconds: float | None = None
    in_progress_seconds: float | None = None
    polls: int | None = None

    def type_status(self, run_type: str) -> str:
        """The status in which a type of the run ends."""
        if isinstance(self.statuses, str):
            return self.statuses
        if self.statuses is not None:
            return self.statuses.get(run_type, "SUCCEEDED")
        return self.status if self.status in ("FAILED", "CANCELED") else "SUCCEEDED"

    def run_status(self, types: list[str]) -> str:
        """The status in which the run ends: its own if one was asked for, else what its types add up to."""
        if self.status is not None:
            return self.status
        found = {self.type_status(run_type) for run_type in types}
        if len(found) == 1:
            return found.pop()
        return "PARTIALLY_SUCCEEDED" if found & {"SUCCEEDED", "PARTIALLY_SUCCEEDED"} else "FAILED"


class _Request(NamedTuple):
    operation: str
    parameters: dict[str, Any]


class Request(_Request):
    """A request that DataZone has received: the pair of its operation and its parameters.

    :ivar received_at: when it was received, in seconds of ``time.monotonic()``. No part of the pair
    """

    operation: str
    parameters: dict[str, Any]
    received_at: float = 0.0

    def __new__(cls, operation: str, parameters: dict[str, Any], received_at: float = 0.0) -> Request:
        """Make a pair that knows when it was received."""
        request = super().__new__(cls, operation, parameters)
        request.received_at = received_at
        return request


class Bucket:
    """A token bucket: it fills at a rate, and each request takes a token out.

    :param per_second: the tokens that come in a second
    :param burst: the tokens that it holds, as it does in the beginning
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens: float = burst
        self._filled_at = clock()

    def take(self, now: float) -> bool:
        """Take a token out, if there is one."""
        filled = self._tokens + (now - self._filled_at) * self._per_second
        self._tokens = min(filled, self._burst)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass
class Fault:
    """An operation that is to fail."""

    operation: str
    error: str
    times: int | None
    message: str | None
    seconds: float | None
    after: bool
    asset_identifier: str | None = None
    access_key_id: str | None = None

    def hits(self, request: Request, access_key_id: str | None) -> bool:
        """Whether a request is one of those that are to fail."""
        if self.operation not in (request.operation, "*"):
            return False
        if self.access_key_id not in (None, access_key_id):
            return False
        return self.asset_identifier is None or self.asset_identifier == _named_asset(request)


#: How a request over its operation's limit fails.
THROTTLED = Fault("*", "ThrottlingException", None, None, None, after=False)


class Scenario:
    """Thread-safe, as requests come from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._next_outcomes: dict[str | None, deque[RunOutcome]] = {}
            self._lasting_outcomes: dict[str | None, RunOutcome] = {}
            self._faults: list[Fault] = []
            self._limits: dict[str, Bucket] = {}
            self._requests: list[Request] = []
            self._secrets: dict[str, str] = {}

    def add_outcome(self, asset_id: str | None, outcome: RunOutcome, times: int | None) -> None:
        """Say how the next runs of an asset go, or those of all assets; None is for good."""
        with self._lock:
            if times is None:
                self._lasting_outcomes[asset_id] = outcome
            else:
                self._next_outcomes.setdefault(asset_id, deque()).extend([outcome] * times)

    def take_outcome(self, asset_id: str) -> RunOutcome:
        """How the run that starts now goes: what was said of its asset comes before what was said of all."""
        with self._lock:
            for key in (asset_id, None):
                if self._next_outcomes.get(key):
                    return self._next_outcomes[key].popleft()
                if key in self._lasting_outcomes:
                    return self._lasting_outcomes[key]
        return RunOutcome()

    def add_fault(self, fault: Fault) -> None:
        """Let requests fail, after those that are to fail already."""
        with self._lock:
            self._faults.append(fault)

    def drop_faults(self) -> None:
        """Let no more requests fail, and lift the limits."""
        with self._lock:
            self._faults.clear()
            self._limits.clear()

    def set_limit(self, operation: str, bucket: Bucket) -> None:
        """Throttle an operation's requests beyond what a bucket holds."""
        with self._lock:
            self._limits[operation] = bucket

    def receive(
        self, operation: str, parameters: dict[str, Any], access_key_id: str | None = None
    ) -> Fault | None:
        """Take note of a request, and say how it is to fail, if it is."""
        copied = _without_edited_values(parameters)
        with self._lock:
            request = Request(operation, copied, clock())
            self._requests.append(request)
            bucket = self._limits.get(operation)
            if bucket is not None and not bucket.take(request.received_at):
                return THROTTLED
            for fault in self._faults:
                if fault.hits(request, access_key_id):
                    if fault.times is not None:
                        fault.times -= 1
                        if not fault.times:
                            self._faults.remove(fault)
                    return fault
        return None

    def require_secrets(self, secrets: Mapping[str, str]) -> None:
        """Let only these access keys in, each with its secret, and those named before."""
        with self._lock:
            self._secrets.update(secrets)

    @property
    def secrets(self) -> dict[str, str]:
        """The secret of each access key that is let in; empty where all are."""
        with self._lock:
            return dict(self._secrets)

    @property
    def requests(self) -> list[Request]:
        """What was requested so far."""
        with self._lock:
            return list(self._requests)


def _named_asset(request: Request) -> Any:
    """The asset that a request names, as far as it names one."""
    value: Any = request.parameters
    for member in ASSET_MEMBERS.get(request.operation, (None,)):
        # What was sent need not be what the service model asks for.
        value = value.get(member) if isinstance(value, dict) else None
    return value


def _without_edited_values(value: Any) -> Any:
    """A copy without what the service model marks as sensitive in the predictions."""
    if isinstance(value, dict):
        return {k: _without_edited_values(v) for k, v in value.items() if k != "editedValue"}
    if isinstance(value, list):
        return [_without_edited_values(item) for item in value]
    return value


scenario = Scenario()
