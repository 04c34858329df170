"""A simulated DataZone that starts runs, and simulated Airflow processes that connect to it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from botocore.exceptions import ConnectionClosedError

from airflow_provider_datazone.batch import engine, memory, progress, requests, starts
from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.batch.engine import Batch
from airflow_provider_datazone.batch.state import BatchSettings, BatchState
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.batch.summary import require_few_failures
from airflow_provider_datazone.idempotency import RunRequest
from airflow_provider_datazone.metadata_generation import TERMINAL_STATUSES, MetadataGenerationRun
from airflow_provider_datazone.polling import registry
from airflow_provider_datazone.polling.jobs import wait_for_run
from airflow_provider_datazone.polling.source import AcceptRequest, HookParameters, OpenedHook, PublishRequest
from tests.unit.simulation import SimulatedDataZone, SimulatedRun, Source, client_error, now, simulate

LOG = logging.getLogger("tests.batch")
T = TypeVar("T")
Send = Callable[[Callable[[], T]], T]
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
# The default of `[datazone] max_starts_per_second`, which equals DataZone's limit.
RATE = 10.0
# The Unix time at which each simulated clock starts.
EPOCH = 1_800_000_000.0


def stats(status: str, reason: str | None = None) -> list[Any]:
    message = {"errorMessage": reason} if reason else {}
    return [{"type": run_type, "status": status, **message} for run_type in TYPES]


class AssetRun(SimulatedRun):
    """A run for an asset. It can be canceled, and Get may not find it at first."""

    asset: str
    token: str | None
    began: float
    known_from: float = 0.0
    reason: str | None = None

    def cancel(self) -> None:
        if now() < self.ends:
            self.ends, self.end_status = now(), "CANCELED"

    def at(self, now: float) -> MetadataGenerationRun:
        status = self.status(now)
        self.members["type_stats"] = stats(status, self.reason) if status in TERMINAL_STATUSES else []
        return super().at(now)


@dataclass
class Start:
    """A request to start a run."""

    at: float
    asset: str
    token: str
    # The runs of the asset at that time, the run in the response, and whether the token was a known one.
    runs: list[AssetRun]
    run: AssetRun | None = None
    replayed: bool = False
    # The process that sent the request.
    process: Any = None


@dataclass
class Change:
    """A request to accept predictions or to publish an asset."""

    at: float
    asset: str
    token: str
    revision: str | None
    # The new revision or the listing, and whether the token was a known one.
    response: str | None = None
    replayed: bool = False
    process: Any = None


@dataclass
class Outcomes:
    """How DataZone responds to one kind of change."""

    # Errors for an asset, in order, before the change succeeds, and for all assets.
    refusals: dict[str, list[Exception]] = field(default_factory=dict)
    refusal: Exception | None = None
    # The number of changes per asset that succeed but whose response is lost.
    lost: dict[str, int] = field(default_factory=dict)
    # The enforced limit: requests per second, with a burst of as many.
    limit: float | None = None

    def __post_init__(self) -> None:
        self.changes: list[Change] = []
        self.throttled: list[float] = []
        self.answered: dict[str, str] = {}
        self._tokens, self._filled_at = self.limit or 0.0, 0.0

    @property
    def effective(self) -> list[Change]:
        """The changes that DataZone made."""
        return [change for change in self.changes if change.response and not change.replayed]

    def respond(self, change: Change) -> str:
        self.changes.append(change)
        if self.limit is not None:
            self._tokens = min(self._tokens + (now() - self._filled_at) * self.limit, max(self.limit, 1.0))
            self._filled_at = now()
            if self._tokens < 1:
                self.throttled.append(now())
                raise client_error("ThrottlingException", 429)
            self._tokens -= 1
        if self.refusal is not None:
            raise self.refusal
        if self.refusals.get(change.asset):
            raise self.refusals[change.asset].pop(0)
        change.replayed = change.token in self.answered
        change.response = self.answered.setdefault(change.token, f"{change.asset}-{len(self.effective)}")
        return change.response


@dataclass
class BatchDataZone(SimulatedDataZone):
    """A simulated DataZone that also starts runs, with outcomes per asset or for all assets."""

    runs: list[SimulatedRun] = field(default_factory=list)
    lasts: float = 1.0
    # The final statuses of an asset's runs, in order; the last one repeats.
    endings: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    unknown_for: dict[str, float] = field(default_factory=dict)
    # Errors that Start returns for an asset, in order, before it succeeds.
    refusals: dict[str, list[Exception]] = field(default_factory=dict)
    # The number of Starts per asset that succeed but whose response is lost.
    lost: dict[str, int] = field(default_factory=dict)
    list_refusals: list[Exception] = field(default_factory=list)
    # The enforced limit: starts per second, with a burst of ten. Another client uses part of it.
    limit: float | None = None
    asset_page_size: int = 50
    # Seconds until a List includes a new run.
    listed_after: float = 0.0
    other_client: Callable[[float], float] = lambda now: 0.0
    accepts: Outcomes = field(default_factory=Outcomes)
    publications: Outcomes = field(default_factory=Outcomes)
    process: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.starts: list[Start] = []
        self.answered: dict[str, AssetRun] = {}
        self.refused: list[float] = []
        self.rejected: set[str] = set()
        self._tokens, self._filled_at = 10.0, 0.0

    def runs_of(self, asset: str) -> list[AssetRun]:
        return [run for run in self.runs if isinstance(run, AssetRun) and run.asset == asset]

    def active(self, at: float) -> list[AssetRun]:
        return [run for run in self.runs if isinstance(run, AssetRun) and run.began <= at < run.ends]

    def begin(self, asset: str, token: str | None = None, **changes: Any) -> AssetRun:
        """Begin a run, for the batch or for another client."""
        endings = self.endings.get(asset, ["SUCCEEDED"])
        number = len(self.runs_of(asset))
        run = AssetRun(
            f"run{len(self.runs)}",
            begins=now() + self.lasts / 10,
            ends=now() + self.lasts,
            end_status=endings[min(number, len(endings) - 1)],
            members={
                "types": tuple(TYPES),
                "asset_id": asset,
                "asset_revision": "1",
                "created_at": datetime.fromtimestamp(EPOCH + now(), timezone.utc),
            },
        )
        run.asset, run.token, run.began = asset, token, now()
        run.known_from = now() + self.unknown_for.get(asset, 0.0)
        run.reason = self.reasons.get(asset)
        for name, value in changes.items():
            setattr(run, name, value)
        self.runs.append(run)
        self.by_id[run.id] = run
        self.order[run.id] = len(self.order)
        return run

    async def start(
        self, request: RunRequest, token: str, send: Send[MetadataGenerationRun]
    ) -> MetadataGenerationRun:
        """Respond to a request, which is in the log of starts as soon as it arrives."""
        process, asset = self.process, request.asset_identifier
        response = await self._deliver(
            "start", asset, send, lambda: self._start(request, token, process).at(now())
        )
        self._lose(self.lost, asset)
        return response

    async def accept(self, request: AcceptRequest, token: str, send: Send[str]) -> str:
        assert any(run.asset == request.asset_identifier for run in self.runs if isinstance(run, AssetRun))
        return await self._change("accept", self.accepts, request, token, send)

    async def publish(self, request: PublishRequest, token: str, send: Send[str]) -> str:
        return await self._change("publish", self.publications, request, token, send)

    async def _change(
        self,
        kind: str,
        outcomes: Outcomes,
        request: AcceptRequest | PublishRequest,
        token: str,
        send: Send[str],
    ) -> str:
        process, asset = self.process, request.asset_identifier

        def change() -> str:
            return outcomes.respond(Change(now(), asset, token, request.revision, process=process))

        response = await self._deliver(kind, asset, send, change)
        self._lose(outcomes.lost, asset)
        return response

    async def _deliver(self, kind: str, asset: str, send: Send[T], act: Callable[[], T]) -> T:
        """Respond to a request. It arrives even if the task that sent it has been canceled."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def arrive() -> None:
            try:
                response = send(act)
            except Exception as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(response)

        self.requests.append((now(), kind, asset))
        loop.call_later(self.random.uniform(0, self.latency), arrive)
        answered = await answer
        await asyncio.sleep(self.random.uniform(0, self.latency))
        return answered

    @staticmethod
    def _lose(lost: dict[str, int], asset: str) -> None:
        if lost.get(asset, 0):
            lost[asset] -= 1
            raise ConnectionClosedError(endpoint_url="https://datazone")

    def _start(self, request: RunRequest, token: str, process: Any) -> AssetRun:
        assert list(request.types) == TYPES
        asset = request.asset_identifier
        start = Start(now(), asset, token, self.runs_of(asset), process=process)
        self.starts.append(start)
        if self.limit is not None:
            self._throttle(self.limit)
        if self.refusals.get(asset):
            raise self.refusals[asset].pop(0)
        if token in self.answered:
            start.run, start.replayed = self.answered[token], True
        else:
            start.run = self.answered[token] = self.begin(asset, token)
        return start.run

    def _throttle(self, limit: float) -> None:
        since = now() - self._filled_at
        left = limit - self.other_client(now())
        self._tokens, self._filled_at = min(self._tokens + since * left, limit), now()
        if self._tokens < 1:
            self.refused.append(now())
            raise client_error("ThrottlingException", 429)
        self._tokens -= 1

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        run = self.by_id[run_identifier]
        run.exists = now() >= getattr(run, "known_from", 0.0)
        return await super().get(run_identifier, run_type)

    async def list_asset_page(
        self, asset: str, next_token: str | None
    ) -> tuple[list[MetadataGenerationRun], str | None]:
        await self._answer("list_asset_page", asset)
        if self.list_refusals:
            raise self.list_refusals.pop(0)
        listed = [run for run in self.runs_of(asset) if run.began + self.listed_after <= now()]
        begin = int(next_token or 0)
        end = begin + self.asset_page_size
        following = str(end) if end < len(listed) else None
        return [run.at(now() - self.list_staleness) for run in listed[begin:end]], following

    async def cancel(self, run_identifier: str) -> MetadataGenerationRun:
        await self._answer("cancel", run_identifier)
        run = self.by_id[run_identifier]
        if now() < getattr(run, "known_from", 0.0):
            raise client_error("ResourceNotFoundException", 404)
        run.cancel()
        return run.at(now())


class BatchSource(Source):
    """The source of one poller, with one set of credentials."""

    def __init__(self, datazone: BatchDataZone, credentials: str) -> None:
        super().__init__(datazone)
        self.datazone: BatchDataZone = datazone
        self.credentials = credentials

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        return await self._with_credentials(super().get(run_identifier, run_type))

    async def list_page(self, status: str, next_token: str | None) -> Any:
        return await self._with_credentials(super().list_page(status, next_token))

    async def start(
        self, request: RunRequest, token: str, send: Send[MetadataGenerationRun]
    ) -> MetadataGenerationRun:
        assert not self.closed
        return await self._with_credentials(self.datazone.start(request, token, send))

    async def accept(self, request: AcceptRequest, token: str, send: Send[str]) -> str:
        assert not self.closed
        return await self._with_credentials(self.datazone.accept(request, token, send))

    async def publish(self, request: PublishRequest, token: str, send: Send[str]) -> str:
        assert not self.closed
        return await self._with_credentials(self.datazone.publish(request, token, send))

    async def list_asset_page(self, asset: str, next_token: str | None) -> Any:
        assert not self.closed
        return await self._with_credentials(self.datazone.list_asset_page(asset, next_token))

    async def cancel(self, run_identifier: str) -> MetadataGenerationRun:
        assert not self.closed
        return await self._with_credentials(self.datazone.cancel(run_identifier))

    async def _with_credentials(self, request: Awaitable[Any]) -> Any:
        if self.credentials in self.datazone.rejected:
            request.close()  # type: ignore[attr-defined]
            await asyncio.sleep(self.datazone.latency)
            raise client_error("ExpiredTokenException", 403)
        return await request


class SimulatedTime:
    """Replaces the `time` module; both clocks are simulated."""

    @staticmethod
    def time() -> float:
        return EPOCH + now()

    @staticmethod
    def monotonic() -> float:
        return now()


class Airflow:
    """Consecutive Airflow processes, each with separate pollers, that use one DataZone."""

    def __init__(self, datazone: BatchDataZone) -> None:
        self.datazone = datazone
        self.domains = {"dzd_1"}
        self.lookups = 0
        self.sources: list[BatchSource] = []

    def new_process(self) -> None:
        """Replace the current process, and check that it closed its sources."""
        assert [source.closed for source in self.sources] == [1] * len(self.sources)
        registry._registries.pop(asyncio.get_running_loop(), None)

    async def look_up(self, parameters: Any) -> Any:
        self.lookups += 1
        return registry.Connection(
            OpenedHook(SimpleNamespace(), f"credentials{self.lookups}", ("the account",)), parameters
        )  # type: ignore[arg-type]

    def source(self, hook: Any, domain_identifier: str) -> BatchSource:
        assert domain_identifier in self.domains
        self.sources.append(BatchSource(self.datazone, f"credentials{self.lookups}"))
        return self.sources[-1]


PARAMETERS = HookParameters("datazone_default", None, None, None)


def assets(number: int) -> list[AssetRow]:
    return [AssetRow(f"asset{n}", None, "project") for n in range(number)]


def make_batch(
    rows: list[AssetRow],
    *,
    saved_at: float = EPOCH,
    quota_used_up: bool = False,
    log: Any = LOG,
    on_progress: Callable[[], None] | None = None,
    **changes: Any,
) -> Batch:
    settings = BatchSettings(
        types=TYPES,
        domain_identifier="dzd_1",
        identity="the task",
        try_number=1,
        try_began_at=EPOCH,
        max_concurrent_runs=50,
        poll_interval=5.0,
        steps=Steps(),
    )
    state = state_of(rows, saved_at=saved_at, quota_used_up=quota_used_up)
    return Batch(state, settings._replace(**changes), log=log, on_progress=on_progress)


def state_of(rows: list[AssetRow], **changes: Any) -> BatchState:
    return replace(BatchState(rows, saved_at=EPOCH, started_at=EPOCH), **changes)


def run_on(datazone: BatchDataZone, main: Callable[[Any], Any], kind: type[Airflow] = Airflow) -> Any:
    """Run in simulated time with a DataZone, and check that every poller closes its source."""
    return run_in(kind(datazone), main)


def run_in(airflow: Airflow, main: Callable[[Any], Any]) -> Any:
    """Run in simulated time with an Airflow, and check that every poller closes its source."""

    async def run() -> Any:
        result = await main(airflow)
        await wait_for_remaining_tasks()
        assert [source.closed for source in airflow.sources] == [1] * len(airflow.sources)
        return result

    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (engine, memory, progress, requests, starts):
            monkeypatch.setattr(module, "time", SimulatedTime)
        monkeypatch.setattr(registry, "_look_up", airflow.look_up)
        monkeypatch.setattr(registry, "HookSource", airflow.source)
        return simulate(run())


async def settle() -> None:
    """Let canceled tasks end."""
    for _ in range(10):
        await asyncio.sleep(0)


async def wait_for_remaining_tasks() -> None:
    """Wait until the remaining tasks end."""
    await settle()
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        _, pending = await asyncio.wait(left, timeout=1000)
        assert not pending, pending


def busiest_second(times: list[float]) -> int:
    """Return the largest number of times within one second."""
    return max(sum(at <= other < at + 1 for other in times[n : n + 50]) for n, at in enumerate(times))


QUOTA = "business name generation has reached monthly quota"


def run_batch(datazone: BatchDataZone, rows: list[AssetRow], **changes: Any) -> list[AssetRow]:
    async def main(airflow: Airflow) -> None:
        await make_batch(rows, **changes).run(PARAMETERS)

    run_on(datazone, main)
    return rows


def statuses(rows: list[AssetRow]) -> Counter[str | None]:
    return Counter(row.status for row in rows)


REFUSALS = {
    "unknown asset": client_error("ResourceNotFoundException", 404),
    "unsupported asset type": client_error("ValidationException", 400),
    "too many": client_error("ServiceQuotaExceededException", 402),
    "conflict without a run": client_error("ConflictException", 409),
}


def raise_if_failed(
    rows: list[AssetRow],
    max_failures: float,
    allow_partial_success: bool = True,
    quota_used_up: bool = False,
    refusals: dict[str, str] | None = None,
) -> None:
    state = state_of(rows, quota_used_up=quota_used_up, refusals=refusals or {})
    require_few_failures(state, Steps(allow_partial_success), max_failures)


def ended_rows(succeeded: int, failed: int) -> list[AssetRow]:
    rows = assets(succeeded + failed)
    for row in rows:
        row.run_identifier, row.status = "run", "SUCCEEDED"
    for row in rows[succeeded:]:
        row.status, row.type_stats = "FAILED", stats("FAILED", "no names today")
    return rows


async def wait_for(
    run: str, poll_interval: float = 2.0, timeout: float | None = None, domain: str = "dzd_1"
) -> Any:
    return await wait_for_run(
        PARAMETERS,
        run,
        domain_identifier=domain,
        run_type=None,
        poll_interval=poll_interval,
        timeout=timeout,
        log=LOG,
    )


class SlowStarts(BatchDataZone):
    """Starts arrive immediately, but the response waits until the service is no longer slow."""

    slow_until = 0.0
    start_seconds = 0.0

    async def start(self, request: Any, token: str, send: Any) -> Any:
        sent_at = now()
        answer = await super().start(request, token, send)
        ends = max(self.slow_until, sent_at + self.start_seconds)
        await asyncio.sleep(max(ends - now(), 0))
        return answer
