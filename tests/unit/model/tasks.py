"""The tasks of the model: batches and single waits, with the connections that they share."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from airflow_provider_datazone.batch.assets import AssetRow, active_runs, pack, unpack
from airflow_provider_datazone.batch.engine import SECONDS_TO_DRAIN, Batch
from airflow_provider_datazone.batch.memory import BatchMemory
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.polling import jobs, registry
from airflow_provider_datazone.polling.source import HookParameters, OpenedHook
from airflow_provider_datazone.service_errors import is_rejected_credentials
from tests.unit.model.service import LOG, LONGEST_DISPATCH, Account, Domain, ThreadSource, incarnation
from tests.unit.simulated_batch import (
    TYPES,
    Airflow,
    AssetRun,
    SimulatedTime,
    make_batch,
)
from tests.unit.simulation import now


class Connections(Airflow):
    """Consecutive processes, with several connections to the same account."""

    def __init__(
        self, account: Account, domains: dict[str, Domain], lookup_seconds: float, build_seconds: float
    ) -> None:
        super().__init__(next(iter(domains.values())))
        self.build_seconds = build_seconds
        self.account = account
        self.domains = domains
        self.lookup_seconds = lookup_seconds
        self.credentials: dict[str, str] = {}
        self.fingerprints: dict[str, str] = {}
        self.rejected_at: dict[str, list[float]] = defaultdict(list)

    def new_process(self) -> None:
        super().new_process()
        self.account.process += 1

    def reject(self, connection: str, same_fingerprint: bool) -> None:
        """Reject the credentials of a connection, and store new ones in it."""
        old = self.credentials.get(connection, connection)
        self.account.rejected.add(old)
        self.credentials[connection] = f"{old}+"
        if not same_fingerprint:
            self.fingerprints[connection] = f"{old}+"
        self.rejected_at[connection].append(now())

    async def look_up(self, parameters: Any) -> Any:
        connection = parameters.aws_conn_id
        self.lookups += 1
        hook = SimpleNamespace(credentials=self.credentials.get(connection, connection))
        fingerprint = self.fingerprints.get(connection, connection)
        await asyncio.sleep(self.lookup_seconds)
        return registry.Connection(OpenedHook(hook, fingerprint, (connection, "the account")), parameters)  # type: ignore[arg-type]

    def source(self, hook: Any, domain_identifier: str) -> Any:
        source = ThreadSource(self.domains[domain_identifier], hook.credentials, self.build_seconds)
        self.sources.append(source)  # type: ignore[arg-type]
        return source


@dataclass(eq=False)
class Incarnation:
    """The part of a batch that one process runs."""

    batch: Batch
    # The runs that were in its rows at the beginning.
    known: set[str | None]
    ends_at: float = math.inf
    task: asyncio.Task[None] | None = None
    # The runs that Start returned.
    started: dict[str, AssetRun] = field(default_factory=dict)
    late_requests: list[float] = field(default_factory=list)
    # The number of requests without a response, by kind.
    in_flight: Counter[str] = field(default_factory=Counter)

    def sent(self, at: float) -> None:
        if at > self.ends_at:
            self.late_requests.append(at)


class Store(dict[str, Any]):
    """Airflow's task state store."""

    set = dict.__setitem__


@dataclass(eq=False)
class BatchTask:
    """A batch task across its tries and processes."""

    number: int
    domain: Domain
    domain_identifier: str
    parameters: HookParameters
    assets: int
    max_concurrent_runs: int
    poll_interval: float
    # Whether it saves its rows every 30 seconds, like a worker. A triggerer does not.
    saves_progress: bool
    steps: Steps
    store: Store = field(default_factory=Store)
    try_number: int = 0
    current: Incarnation | None = None
    history: list[Incarnation] = field(default_factory=list)
    # Whether it is being drained or canceled.
    is_busy: bool = False
    is_finished: bool = False
    given: tuple[str, float] = ("", 0.0)
    failure: BaseException | None = None

    def new_rows(self) -> list[AssetRow]:
        return [AssetRow(f"asset{self.number}-{n}", None, "project") for n in range(self.assets)]

    def memory(self) -> BatchMemory:
        context: Any = {
            "ti": SimpleNamespace(
                try_number=self.try_number, max_tries=10, dag_id="dag", run_id="run", task_id=str(self.number),
                map_index=-1,
            ),
            "dag_run": SimpleNamespace(start_date=None),
            "task_state_store": self.store,
        }  # fmt: skip
        return BatchMemory(context, self.domain_identifier, TYPES)

    def retry(self) -> None:
        """Begin another try with the saved rows."""
        self.try_number += 1
        memory = self.memory()
        rows = memory.load(self.new_rows(), self.steps)
        self.given = pack(rows), memory.saved_at
        self.try_began_at = SimulatedTime.time()
        self.resume()

    def resume(self) -> None:
        """Begin another process of the same try, with the rows of the last one."""
        packed, saved_at = self.given
        rows = unpack(packed)
        memory = self.memory()
        batch = make_batch(
            rows,
            domain_identifier=self.domain_identifier,
            identity=memory.identity,
            try_number=self.try_number,
            try_began_at=self.try_began_at,
            max_concurrent_runs=self.max_concurrent_runs,
            poll_interval=self.poll_interval,
            steps=self.steps,
            log=LOG,
            on_progress=(lambda: memory.save(rows)) if self.saves_progress else None,
            saved_at=saved_at,
        )
        current = self.current = Incarnation(batch, {row.run_identifier for row in rows})
        self.history.append(current)

        def begin() -> asyncio.Task[None]:
            incarnation.set(current)
            return asyncio.ensure_future(batch.run(self.parameters))

        current.task = contextvars.copy_context().run(begin)
        current.task.add_done_callback(partial(self._ended, current))

    def _ended(self, ended: Incarnation, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if self.is_busy or self.current is not ended or task.cancelled():
            return
        self.failure = failure
        self.save()
        self.current = None
        self.is_finished = self.failure is None and all(map(self.steps.is_success, ended.batch.state.rows))

    def save(self) -> None:
        assert self.current is not None
        rows = self.current.batch.state.rows
        self.given = pack(rows), SimulatedTime.time()
        self.memory().save(rows)

    async def checkpoint(self) -> None:
        """Drain the batch, and continue it in another process."""
        current = self.current
        assert current is not None
        assert current.task is not None
        began = now()
        await current.batch.drain()
        assert not current.in_flight.total() or now() - began >= SECONDS_TO_DRAIN, (
            "a request is in flight after the drain"
        )
        current.ends_at = min(current.ends_at, began)
        current.task.cancel()
        await asyncio.wait({current.task})
        self.save()
        self.resume()

    async def end_by_user(self, *, all_at_once: bool) -> None:
        """Stop the batch and cancel its runs, as when a user ends the task."""
        current = self.current
        assert current is not None
        assert current.task is not None
        current.ends_at = min(current.ends_at, now())
        batch = current.batch
        if all_at_once:
            current.task.cancel()
            _, failed = await batch.cancel_all(self.parameters)
        else:
            batch.stop()
            await asyncio.wait({current.task})
            while batch.is_starting:
                await asyncio.sleep(0.05)
            canceled = await asyncio.gather(
                *(
                    jobs.cancel_run(self.parameters, run, domain_identifier=self.domain_identifier, log=LOG)
                    for run in active_runs(batch.state.rows)
                ),
                return_exceptions=True,
            )
            failed = {str(n): error for n, error in enumerate(canceled) if isinstance(error, BaseException)}
        assert not current.in_flight["start"], "a Start is in flight after all runs were canceled"
        if not failed:
            known = {row.run_identifier for row in batch.state.rows}
            left = [run for run in current.started.values() if run.id in known and now() < run.ends]
            assert not left, f"runs are active after the cancellation: {left}"
            lost = [run for run in current.started.values() if run.id not in known and now() < run.ends]
            assert not lost or self.domain.account.last_fault_at > -math.inf, (
                f"active runs that the batch does not know: {lost}"
            )
        assert all(is_rejected_credentials(error) for error in failed.values()), failed
        self.memory().save(batch.state.rows)
        self.current = None

    def kill(self) -> None:
        """Kill its process."""
        assert self.current is not None
        assert self.current.task is not None
        # A thread still sends the request that it already has.
        self.current.ends_at = min(self.current.ends_at, now() + LONGEST_DISPATCH)
        current, self.current = self.current, None
        current.task.cancel()  # type: ignore[union-attr]


@dataclass(eq=False)
class WaitTask:
    """A sensor: one wait for a run, across its processes."""

    run: AssetRun
    domain_identifier: str
    parameters: HookParameters
    poll_interval: float
    deadline: float | None
    began: float
    task: asyncio.Task[MetadataGenerationRun] | None = None
    ended_at: float | None = None
    is_checked: bool = False

    def begin(self) -> None:
        self.began = now()
        timeout = None if self.deadline is None else self.deadline - now()
        self.task = asyncio.ensure_future(
            jobs.wait_for_run(
                self.parameters,
                self.run.id,
                domain_identifier=self.domain_identifier,
                run_type=None,
                poll_interval=self.poll_interval,
                timeout=timeout,
                log=LOG,
            )
        )
        self.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[MetadataGenerationRun]) -> None:
        self.ended_at = now()
        # Retrieve the exception, so asyncio does not log it as unhandled if no check follows.
        task.cancelled() or task.exception()
