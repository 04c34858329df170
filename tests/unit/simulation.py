"""A simulated clock for asyncio, and a simulated DataZone with configurable failures."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

from botocore.exceptions import ClientError

from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.polling.rate import Rates, RequestRate

# -------------------------------------------------------------------- the clock


class _Selector(selectors.DefaultSelector):
    """Advances the simulated clock instead of waiting."""

    loop: SimulatedLoop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "deadlock: every task waits, and no timer is set"
        self.loop.now += max(timeout, 0)
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    now = 0.0

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def simulate(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in simulated time, and check that it leaves no task behind."""
    loop = SimulatedLoop()
    try:
        result = loop.run_until_complete(main)
        assert asyncio.all_tasks(loop) == set()
        return result
    finally:
        # After an error, tasks may be left; cancel them, as at the end of a process.
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()


# ------------------------------------------------------------------ the service


def client_error(code: str, status: int, message: str = "") -> ClientError:
    error = {"Code": code, "Message": message} if message else {"Code": code}
    response = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Operation")


@dataclass
class SimulatedRun:
    """A run that goes from SUBMITTED to IN_PROGRESS at `begins` and to `end_status` at `ends`."""

    id: str
    begins: float = 0.0
    ends: float = math.inf
    end_status: str = "SUCCEEDED"
    exists: bool = True
    # Until this time, the status is one that the package does not know.
    unknown_status_until: float = -math.inf
    # Other fields of the run in responses.
    members: dict[str, Any] = field(default_factory=dict)

    def status(self, now: float) -> str:
        if now >= self.ends:
            return self.end_status
        if now < self.unknown_status_until:
            return "PONDERING"
        return "IN_PROGRESS" if now >= self.begins else "SUBMITTED"

    def at(self, now: float) -> MetadataGenerationRun:
        return MetadataGenerationRun(id=self.id, domain_id="dzd_1", status=self.status(now), **self.members)


@dataclass
class SimulatedDataZone:
    """DataZone as the poller sees it: errors, throttling, latency, and stale or incomplete lists."""

    runs: list[SimulatedRun]
    random: Random = field(default_factory=lambda: Random(0))
    page_size: int = 50
    latency: float = 0.01
    # The share of requests that are throttled or fail, and of runs that a List omits.
    throttled: float = 0.0
    failing: float = 0.0
    omitted: float = 0.0
    # How stale a List may be, in seconds.
    list_staleness: float = 0.0
    shuffled: bool = False
    list_error: ClientError | None = None
    list_failures: int = 0
    get_error: ClientError | None = None

    # Whether a page token is an offset, so that pages shift when the list changes, or the position of a run.
    shifting: bool = False

    def __post_init__(self) -> None:
        self.by_id = {run.id: run for run in self.runs}
        self.order = {run.id: number for number, run in enumerate(self.runs)}
        self.requests: list[tuple[float, str, str | None]] = []
        self.ends_reported_at: dict[str, float] = {}

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        await self._answer("get", run_identifier)
        if self.get_error:
            raise self.get_error
        run = self.by_id[run_identifier]
        if not run.exists:
            raise client_error("ResourceNotFoundException", 404)
        answer = run.at(now())
        if answer.is_terminal:
            self.ends_reported_at.setdefault(run_identifier, now())
        return answer

    async def list_page(
        self, status: str, next_token: str | None
    ) -> tuple[list[MetadataGenerationRun], str | None]:
        await self._answer("list", status if next_token is None else None)
        if self.list_error:
            raise self.list_error
        if self.list_failures and next_token is not None:
            self.list_failures -= 1
            raise client_error("InternalServerException", 500)
        as_of = now() - self.random.uniform(0, self.list_staleness)
        found = [run.at(as_of) for run in self.runs if run.exists and run.status(as_of) == status]
        if self.shuffled:
            self.random.shuffle(found)
        token = int(next_token or 0)
        rest = found[token:] if self.shifting else [run for run in found if self.order[run.id] >= token]
        page = rest[: self.page_size]
        following = None
        if len(rest) > self.page_size:
            following = token + self.page_size if self.shifting else self.order[rest[self.page_size].id]
        listed = [run for run in page if self.random.random() >= self.omitted]
        return listed, None if following is None else str(following)

    async def _answer(self, operation: str, about: str | None) -> None:
        self.requests.append((now(), operation, about))
        await asyncio.sleep(self.random.uniform(0, 2 * self.latency))
        if self.random.random() < self.throttled:
            raise client_error("ThrottlingException", 429)
        if self.random.random() < self.failing:
            raise client_error("InternalServerException", 500)

    def count(self) -> Counter[str]:
        return Counter(operation for _, operation, _ in self.requests)


class Source:
    """The source of one poller."""

    def __init__(self, datazone: SimulatedDataZone) -> None:
        self.datazone = datazone
        self.closed = 0

    async def ready(self) -> None:
        """Return immediately: this source needs no client."""

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        assert not self.closed
        return await self.datazone.get(run_identifier, run_type)

    async def list_page(
        self, status: str, next_token: str | None
    ) -> tuple[list[MetadataGenerationRun], str | None]:
        assert not self.closed
        return await self.datazone.list_page(status, next_token)

    def close(self) -> None:
        self.closed += 1


def now() -> float:
    return asyncio.get_running_loop().time()


def equal_rates(per_second: float) -> Rates:
    """Return rates that are the same for each kind of request."""
    return Rates(*(RequestRate(per_second) for _ in range(5)))
