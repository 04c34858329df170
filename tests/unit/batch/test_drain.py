"""A batch that stops starts no more runs and knows every run that it started."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_datazone.batch import engine
from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.batch.requests import BatchStoppedError, RequestGate
from airflow_provider_datazone.polling import sender
from tests.unit.simulated_batch import (
    PARAMETERS,
    Airflow,
    BatchDataZone,
    SlowStarts,
    assets,
    make_batch,
    run_on,
)
from tests.unit.simulation import client_error, now

# ------------------------------------------------------------------------ drain


@pytest.mark.parametrize("slow", [0.5, 12.0])
def test_drained_batch_knows_every_run_that_it_started(slow: float):
    datazone = BatchDataZone(lasts=100, latency=slow)

    async def main(airflow: Airflow) -> None:
        rows = assets(300)
        batch = make_batch(rows, max_concurrent_runs=100)
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
        assert len(datazone.starts) == sent, "a drained batch starts no runs"

    run_on(datazone, main)


def test_drain_ends_after_its_timeout():
    datazone = BatchDataZone(latency=300)

    async def main(airflow: Airflow) -> None:
        batch = make_batch(assets(3))
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(5)
        await batch.drain()
        assert now() <= 5 + engine.SECONDS_TO_DRAIN + 1
        work.cancel()
        await asyncio.wait({work})

    run_on(datazone, main)


def test_drain_does_not_wait_for_the_next_attempt_of_a_start():
    """Airflow gives a trigger 30 seconds to cancel its runs."""
    outage = [client_error("InternalServerException", 500) for _ in range(100)]
    datazone = BatchDataZone(refusals={"asset0": outage})

    async def main(airflow: Airflow) -> None:
        batch = make_batch(assets(1))
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(600)
        began = now()
        await batch.drain()
        assert now() - began <= 1
        work.cancel()
        await asyncio.wait({work})

    run_on(datazone, main)


def test_drain_of_a_canceled_batch_finds_runs_whose_start_was_in_flight():
    """When a user ends a task, Airflow cancels its trigger first and calls its cleanup afterwards."""
    datazone = BatchDataZone(latency=3.0, lasts=100)

    async def main(airflow: Airflow) -> None:
        rows = assets(100)
        batch = make_batch(rows)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(5)
        work.cancel()
        await asyncio.wait({work})
        await batch.drain()
        await asyncio.sleep(60)
        assert datazone.runs
        assert {row.run_identifier for row in rows} - {None} == {run.id for run in datazone.runs}

    run_on(datazone, main)


def test_canceled_batch_does_not_repeat_a_start():
    """The start waits for its next attempt while another batch keeps the poller open."""
    throttling: list[Exception] = [client_error("ThrottlingException", 429) for _ in range(5)]
    datazone = BatchDataZone(lasts=200, refusals={"mine": throttling})

    async def main(airflow: Airflow) -> None:
        mine = make_batch([AssetRow("mine", None, "project")]).run(PARAMETERS)
        other = asyncio.ensure_future(make_batch(assets(30)).run(PARAMETERS))
        work = asyncio.ensure_future(mine)
        await asyncio.sleep(5)
        work.cancel()
        await other

    run_on(datazone, main)
    assert len([start for start in datazone.starts if start.asset == "mine"]) >= 2
    assert datazone.runs_of("mine") == []


# -------------------------------------------------------------- stop and cancel


@pytest.mark.parametrize("seconds", [1.0, 6.0, 30.0], ids=["ramping up", "full", "draining"])
@pytest.mark.parametrize("start_seconds", [0.0, 3.0])
def test_cancel_all_cancels_every_run_and_starts_no_more(seconds: float, start_seconds: float):
    datazone = SlowStarts(lasts=1000, unknown_for={f"asset{n}": 4.0 for n in range(100)})
    datazone.start_seconds = start_seconds

    async def main(airflow: Airflow) -> None:
        rows = assets(100)
        batch = make_batch(rows, max_concurrent_runs=100 if seconds == 30.0 else 50)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(seconds)
        began = now()
        canceled, failed = await batch.cancel_all(PARAMETERS)
        assert now() - began <= 100 / 20 + 4 + 2 * sender.CANCEL_RETRY_INTERVAL + 1
        assert failed == {}
        assert canceled == len(datazone.runs) > 0
        assert {run.status(now()) for run in datazone.runs} == {"CANCELED"}
        with pytest.raises(BatchStoppedError):
            await work
        started = len(datazone.runs)
        await asyncio.sleep(3600)
        assert len(datazone.runs) == started

    run_on(datazone, main)


def test_stop_wakes_a_batch_that_waits_for_its_runs():
    """A worker's signal handler stops the batch, which has to end before Airflow kills the process."""
    datazone = BatchDataZone(lasts=3600)

    async def main(airflow: Airflow) -> None:
        batch = make_batch(assets(3))
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(100)
        began = now()
        batch.stop()
        with pytest.raises(BatchStoppedError):
            await work
        assert now() - began <= 1

    run_on(datazone, main)


def test_batch_that_is_stopped_before_it_begins_starts_no_run():
    datazone = BatchDataZone()

    async def main(airflow: Airflow) -> None:
        batch = make_batch(assets(3))
        batch.stop()
        with pytest.raises(BatchStoppedError):
            await batch.run(PARAMETERS)

    run_on(datazone, main)
    assert datazone.starts == []


def test_closed_gate_rejects_requests():
    gate = RequestGate()
    seen = []

    def request() -> str:
        seen.append(gate.in_flight)
        gate.is_closed = True
        return "a run"

    assert gate.send("asset", request) == "a run"
    assert seen == [{"asset"}]
    with pytest.raises(BatchStoppedError):
        gate.send("another", request)
    assert (gate.in_flight, len(seen)) == (frozenset(), 1)
