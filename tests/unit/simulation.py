"""A clock that only the test moves, and a DataZone that does its worst on it."""

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

# ------------------------------------------------------------------ the clock


class _Selector(selectors.DefaultSelector):
    """Lets time pass instead of waiting for it."""

    loop: SimulatedLoop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
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
    """Run in simulated time; nothing may be left behind."""
    loop = SimulatedLoop()
    try:
        result = loop.run_until_complete(main)
        assert asyncio.all_tasks(loop) == set()
        return result
    finally:
        # After an error there may be some, as when a process ends.
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()


# ---------------------------------------------------------------- the service


def client_error(code: str, status: int) -> ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Operation")


@dataclass
class SimulatedRun:
    """A run: when it begins to be worked on, when it ends and how; ``unknown`` stays unknown to us for a while."""

    id: str
    begins: float = 0.0
    ends: float = math.inf
    end_status: str = "SUCCEEDED"
    exists: bool = True
    odd_until: float = 0.0
    # What the answers tell of it besides.
    members: dict[str, Any] = field(default_factory=dict)

    def status(self, now: float) -> str:
        if now >= self.ends:
            return self.end_status
        if now < self.odd_until:
            return "PONDERING"
        return "IN_PROGRESS" if now >= self.begins else "SUBMITTED"

    def at(self, now: float) -> MetadataGenerationRun:
        return MetadataGenerationRun(id=self.id, domain_id="dzd_1", status=self.status(now), **self.members)


@dataclass
class SimulatedDataZone:
    """DataZone as the poller sees it, with everything that may go wrong between the two."""

    runs: list[SimulatedRun]
    random: Random = field(default_factory=lambda: Random(0))
    page_size: int = 50
    latency: float = 0.01
    # The share of requests that fail, and of runs that a List leaves out.
    throttled: float = 0.0
    failing: float = 0.0
    omitted: float = 0.0
    # How old the truth may be that a List tells, in seconds.
    late: float = 0.0
    shuffled: bool = False
    list_error: ClientError | None = None
    list_failures: int = 0
    get_error: ClientError | None = None

    # Whether a page begins where the last one did in a list that has changed since, or after its last run.
    shifting: bool = False

    def __post_init__(self) -> None:
        self.by_id = {run.id: run for run in self.runs}
        self.order = {run.id: number for number, run in enumerate(self.runs)}
        self.requests: list[tuple[float, str, str | None]] = []
        self.said_ended: dict[str, float] = {}

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        await self._answer("get", run_identifier)
        if self.get_error:
            raise self.get_error
        run = self.by_id[run_identifier]
        if not run.exists:
            raise client_error("ResourceNotFoundException", 404)
        answer = run.at(now())
        if answer.is_terminal:
            self.said_ended.setdefault(run_identifier, now())
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
        told = now() - self.random.uniform(0, self.late)
        found = [run.at(told) for run in self.runs if run.exists and run.status(told) == status]
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
    """What one poller reads by."""

    def __init__(self, datazone: SimulatedDataZone) -> None:
        self.datazone = datazone
        self.closed = 0

    async def ready(self) -> None:
        """Be so at once."""

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
