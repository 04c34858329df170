"""A batch that stops starts nothing more, and knows every run that it has started."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_datazone.batch import engine
from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.batch.starts import StartGate, StartsStoppedError
from airflow_provider_datazone.polling import sender
from tests.unit.simulated_batch import (
    PARAMETERS,
    Airflow,
    BatchDataZone,
    SlowStarts,
    assets,
    make,
    on,
)
from tests.unit.simulation import client_error, now

# ------------------------------------------------------------------ put down


@pytest.mark.parametrize("slow", [0.5, 12.0])
def test_batch_that_is_put_down_knows_of_every_run_that_it_has_started(slow: float):
    datazone = BatchDataZone(lasts=100, latency=slow)

    async def main(airflow: Airflow) -> None:
        rows = assets(300)
        batch = make(rows, max_concurrent_runs=100)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(5)
        assert [row for row in rows if row.run_identifier is None]
        began = now()
        await batch.drain()
        assert now() - began <= 2 * slow + 0.1
        work.cancel()
        await asyncio.wait({work})
        sent = len(datazone.starts)
        known = {row.run_identifier for row in rows} - {None}
        assert known == {run.id for run in datazone.runs}
        await asyncio.sleep(60)
        assert len(datazone.starts) == sent, "nothing is started once it is put down"

    on(datazone, main)


def test_putting_down_does_not_wait_for_ever():
    datazone = BatchDataZone(latency=300)

    async def main(airflow: Airflow) -> None:
        batch = make(assets(3))
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(5)
        await batch.drain()
        assert now() <= 5 + engine.SECONDS_TO_DRAIN + 1
        work.cancel()
        await asyncio.wait({work})

    on(datazone, main)


def test_start_that_waits_for_its_next_try_does_not_hold_up_the_putting_down():
    """Airflow gives a trigger half a minute in all to cancel its runs."""
    down = [client_error("InternalServerException", 500) for _ in range(100)]
    datazone = BatchDataZone(refusals={"asset0": down})

    async def main(airflow: Airflow) -> None:
        batch = make(assets(1))
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(600)
        began = now()
        await batch.drain()
        assert now() - began <= 1
        work.cancel()
        await asyncio.wait({work})

    on(datazone, main)


def test_run_whose_start_was_under_way_when_the_batch_was_cancelled_is_known_to_who_puts_it_down():
    """As it is when a user ends a task: first its trigger is cancelled, then told."""
    datazone = BatchDataZone(latency=3.0, lasts=100)

    async def main(airflow: Airflow) -> None:
        rows = assets(100)
        batch = make(rows)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(5)
        work.cancel()
        await asyncio.wait({work})
        await batch.drain()
        await asyncio.sleep(60)
        assert datazone.runs
        assert {row.run_identifier for row in rows} - {None} == {run.id for run in datazone.runs}

    on(datazone, main)


def test_batch_that_was_cancelled_starts_nothing_later_on():
    """Its start waits for the next try, and another batch keeps the poller."""
    trouble: list[Exception] = [client_error("ThrottlingException", 429) for _ in range(5)]
    datazone = BatchDataZone(lasts=200, refusals={"mine": trouble})

    async def main(airflow: Airflow) -> None:
        mine = make([AssetRow("mine", None, "project")]).run(PARAMETERS)
        other = asyncio.ensure_future(make(assets(30)).run(PARAMETERS))
        work = asyncio.ensure_future(mine)
        await asyncio.sleep(5)
        work.cancel()
        await other

    on(datazone, main)
    assert len([start for start in datazone.starts if start.asset == "mine"]) >= 2
    assert datazone.runs_of("mine") == []


# -------------------------------------------------------------- stop and cancel


@pytest.mark.parametrize("seconds", [1.0, 6.0, 30.0], ids=["ramping up", "full", "draining"])
@pytest.mark.parametrize("start_seconds", [0.0, 3.0])
def test_stopped_batch_starts_nothing_more_and_cancels_what_it_started(seconds: float, start_seconds: float):
    datazone = SlowStarts(lasts=1000, unknown_for={f"asset{n}": 4.0 for n in range(100)})
    datazone.start_seconds = start_seconds

    async def main(airflow: Airflow) -> None:
        rows = assets(100)
        batch = make(rows, max_concurrent_runs=100 if seconds == 30.0 else 50)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(seconds)
        began = now()
        canceled, failed = await batch.cancel_all(PARAMETERS)
        assert now() - began <= 100 / 20 + 4 + 2 * sender.CANCEL_RETRY_INTERVAL + 1
        assert failed == {}
        assert canceled == len(datazone.runs) > 0
        assert {run.status(now()) for run in datazone.runs} == {"CANCELED"}
        with pytest.raises(StartsStoppedError):
            await work
        started = len(datazone.runs)
        await asyncio.sleep(3600)
        assert len(datazone.runs) == started

    on(datazone, main)


def test_gate_lets_nothing_through_once_it_is_closed():
    gate = StartGate()
    seen = []

    def request() -> str:
        seen.append(gate.in_flight)
        gate.is_closed = True
        return "a run"

    assert gate.send("asset", request) == "a run"
    assert seen == [{"asset"}]
    with pytest.raises(StartsStoppedError):
        gate.send("another", request)
    assert (gate.in_flight, len(seen)) == (frozenset(), 1)
