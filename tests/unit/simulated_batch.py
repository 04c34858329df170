"""A DataZone that starts runs, and an Airflow whose processes lead to it, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from airflow_provider_datazone.batch import engine, memory, progress, starts
from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.batch.engine import Batch
from airflow_provider_datazone.batch.state import BatchSettings, BatchState
from airflow_provider_datazone.batch.summary import require_few_failures
from airflow_provider_datazone.idempotency import RunRequest
from airflow_provider_datazone.metadata_generation import TERMINAL_STATUSES, MetadataGenerationRun
from airflow_provider_datazone.polling import registry
from airflow_provider_datazone.polling.registry import wait_for_run
from airflow_provider_datazone.polling.source import HookParameters, OpenedHook
from tests.unit.simulation import SimulatedDataZone, SimulatedRun, Source, client_error, now, simulate

LOG = logging.getLogger("tests.batch")
Send = Callable[[Callable[[], MetadataGenerationRun]], MetadataGenerationRun]
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
# The default of `[datazone] max_starts_per_second`, which is DataZone's own limit.
RATE = 10.0
# The Unix time at which each simulated clock begins.
EPOCH = 1_800_000_000.0


def stats(status: str, reason: str | None = None) -> list[Any]:
    message = {"errorMessage": reason} if reason else {}
    return [{"type": run_type, "status": status, **message} for run_type in TYPES]


class AssetRun(SimulatedRun):
    """A run of an asset, which can be canceled, and be unknown to Get for a while."""

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
    # What the service knew of the asset: its runs, and whether the token stood for one of them.
    runs: list[AssetRun]
    run: AssetRun | None = None
    replayed: bool = False
    # Which process sent it.
    process: Any = None


@dataclass
class BatchDataZone(SimulatedDataZone):
    """A DataZone that starts runs, too: how they go is said for each asset, or for all."""

    runs: list[SimulatedRun] = field(default_factory=list)
    lasts: float = 1.0
    # For each asset how its runs end, one after the other; the last holds for all that follow.
    endings: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    unknown_for: dict[str, float] = field(default_factory=dict)
    # What Start answers for an asset; in their order, and then no more.
    refusals: dict[str, list[Exception]] = field(default_factory=dict)
    # Starts that are carried out, and whose answer is lost.
    lost: dict[str, int] = field(default_factory=dict)
    list_refusals: list[Exception] = field(default_factory=list)
    # The limit that the service enforces: so many starts a second, ten at once; a neighbour takes its share.
    limit: float | None = None
    asset_page_size: int = 50
    # Seconds until List shows a run.
    listed_after: float = 0.0
    neighbour: Callable[[float], float] = lambda now: 0.0
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
        """Begin a run, by whoever has asked for it."""
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

    async def start(self, request: RunRequest, token: str, send: Send) -> MetadataGenerationRun:
        """Answer a request, which arrives even where the task that has sent it is gone by then."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[MetadataGenerationRun] = loop.create_future()
        process = self.process

        def arrive() -> None:
            try:
                run = send(lambda: self._start(request, token, process).at(now()))
            except Exception as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(run)

        self.requests.append((now(), "start", request.asset_identifier))
        loop.call_later(self.random.uniform(0, self.latency), arrive)
        answered = await answer
        await asyncio.sleep(self.random.uniform(0, self.latency))
        if self.lost.get(request.asset_identifier, 0):
            self.lost[request.asset_identifier] -= 1
            raise ConnectionClosedError(endpoint_url="https://datazone")
        return answered

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
        left = limit - self.neighbour(now())
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
        return [run.at(now()) for run in listed[begin:end]], following

    async def cancel(self, run_identifier: str) -> MetadataGenerationRun:
        await self._answer("cancel", run_identifier)
        run = self.by_id[run_identifier]
        if now() < getattr(run, "known_from", 0.0):
            raise client_error("ResourceNotFoundException", 404)
        run.cancel()
        return run.at(now())


class BatchSource(Source):
    """What one poller reads and starts by, with one set of credentials."""

    def __init__(self, datazone: BatchDataZone, credentials: str) -> None:
        super().__init__(datazone)
        self.datazone: BatchDataZone = datazone
        self.credentials = credentials

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        return await self._with_credentials(super().get(run_identifier, run_type))

    async def list_page(self, status: str, next_token: str | None) -> Any:
        return await self._with_credentials(super().list_page(status, next_token))

    async def start(self, request: RunRequest, token: str, send: Send) -> MetadataGenerationRun:
        assert not self.closed
        return await self._with_credentials(self.datazone.start(request, token, send))

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
    """Stands for the module: both clocks are the simulated one."""

    @staticmethod
    def time() -> float:
        return EPOCH + now()

    @staticmethod
    def monotonic() -> float:
        return now()


class Airflow:
    """One process after the other, each with pollers of its own, that lead to one DataZone."""

    def __init__(self, datazone: BatchDataZone) -> None:
        self.datazone = datazone
        self.domains = {"dzd_1"}
        self.look_ups = 0
        self.sources: list[BatchSource] = []

    def new_process(self) -> None:
        """Forget what a process shares; nothing of the last one may be left."""
        assert [source.closed for source in self.sources] == [1] * len(self.sources)
        registry._registries.pop(asyncio.get_running_loop(), None)

    async def look_up(self, parameters: Any) -> Any:
        self.look_ups += 1
        return registry._Connection(
            OpenedHook(SimpleNamespace(), f"credentials{self.look_ups}", ("the account",))
        )  # type: ignore[arg-type]

    def source(self, hook: Any, domain_identifier: str) -> BatchSource:
        assert domain_identifier in self.domains
        self.sources.append(BatchSource(self.datazone, f"credentials{self.look_ups}"))
        return self.sources[-1]


PARAMETERS = HookParameters("datazone_default", None, None, None)


def assets(number: int) -> list[AssetRow]:
    return [AssetRow(f"asset{n}", None, "project") for n in range(number)]


def make(
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
        allow_partial_success=True,
    )
    state = state_of(rows, saved_at=saved_at, quota_used_up=quota_used_up)
    return Batch(state, settings._replace(**changes), log=log, on_progress=on_progress)


def state_of(rows: list[AssetRow], **changes: Any) -> BatchState:
    return replace(BatchState(rows, saved_at=EPOCH, started_at=EPOCH), **changes)


def on(datazone: BatchDataZone, main: Callable[[Any], Any], kind: type[Airflow] = Airflow) -> Any:
    """Run in simulated time, on a DataZone; every poller has let go of it in the end."""
    return run_in(kind(datazone), main)


def run_in(airflow: Airflow, main: Callable[[Any], Any]) -> Any:
    """Run in simulated time, with an Airflow; every poller has let go of it in the end."""

    async def run() -> Any:
        result = await main(airflow)
        await nothing_is_left()
        assert [source.closed for source in airflow.sources] == [1] * len(airflow.sources)
        return result

    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (engine, memory, progress, starts):
            monkeypatch.setattr(module, "time", SimulatedTime)
        monkeypatch.setattr(registry, "_look_up", airflow.look_up)
        monkeypatch.setattr(registry, "HookSource", airflow.source)
        return simulate(run())


async def settle() -> None:
    """Give what was cancelled its turns to end; and what was sent is answered, some time."""
    for _ in range(10):
        await asyncio.sleep(0)


async def nothing_is_left() -> None:
    await settle()
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        _, still_there = await asyncio.wait(left, timeout=1000)
        assert not still_there, still_there


def busiest_second(times: list[float]) -> int:
    """Return how many there were at most in any second."""
    return max(sum(at <= other < at + 1 for other in times[n : n + 50]) for n, at in enumerate(times))


QUOTA = "business name generation has reached monthly quota"


def bring_to_an_end(datazone: BatchDataZone, rows: list[AssetRow], **changes: Any) -> list[AssetRow]:
    async def main(airflow: Airflow) -> None:
        await make(rows, **changes).run(PARAMETERS)

    on(datazone, main)
    return rows


def statuses(rows: list[AssetRow]) -> Counter[str | None]:
    return Counter(row.status for row in rows)


REFUSALS = {
    "unknown asset": client_error("ResourceNotFoundException", 404),
    "unsupported asset type": client_error("ValidationException", 400),
    "too many": client_error("ServiceQuotaExceededException", 402),
    "conflict without a run": client_error("ConflictException", 409),
}


def judge(
    rows: list[AssetRow],
    max_failures: float,
    allow_partial_success: bool = True,
    quota_used_up: bool = False,
    refusals: dict[str, str] | None = None,
) -> None:
    state = state_of(rows, quota_used_up=quota_used_up, refusals=refusals or {})
    require_few_failures(state, max_failures, allow_partial_success=allow_partial_success)


def ended(succeeded: int, failed: int) -> list[AssetRow]:
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
    """Starts that arrive at once, and are answered when the service is no longer slow."""

    slow_until = 0.0
    start_seconds = 0.0

    async def start(self, request: Any, token: str, send: Any) -> Any:
        sent_at = now()
        answer = await super().start(request, token, send)
        ends = max(self.slow_until, sent_at + self.start_seconds)
        await asyncio.sleep(max(ends - now(), 0))
        return answer
