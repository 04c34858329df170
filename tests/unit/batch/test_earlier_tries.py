"""A retry of a batch with the runs of its earlier tries: which ones it waits for, and which ones it replaces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_datazone.batch.assets import AssetRow, pack, unpack
from airflow_provider_datazone.batch.memory import BatchMemory
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.idempotency import RunRequest, token_of
from tests.task_context import Store, make_context
from tests.unit.simulated_batch import (
    EPOCH,
    PARAMETERS,
    TYPES,
    Airflow,
    AssetRun,
    BatchDataZone,
    assets,
    make_batch,
    run_on,
    settle,
    statuses,
)
from tests.unit.simulation import client_error, now

DENIED = [client_error("AccessDeniedException", 403)] * 100


def begin_run(datazone: BatchDataZone, asset: str, *, identity: str = "the task", **changes: Any) -> AssetRun:
    """Begin the run of an earlier try, with the token of its first submission."""
    request = RunRequest(asset, TYPES, "dzd_1", "project", None)
    run = datazone.begin(asset, token_of(identity, request.fingerprint, 1), **changes)
    datazone.answered[str(run.token)] = run
    return run


async def retry(rows: list[AssetRow], *, saved_at: float = 0.0, **changes: Any) -> None:
    """Process rows in a second try."""
    began = EPOCH + now()
    settings = {"try_number": 2, "try_began_at": began, "saved_at": saved_at} | changes
    await make_batch(rows, **settings).run(PARAMETERS)


@pytest.mark.parametrize(
    ("may_list", "saved_ago"), [(False, 1e9), (True, 10.0)], ids=["may not list runs", "saved a moment ago"]
)
def test_run_that_start_returns_again_and_a_user_cancels_is_not_replaced(may_list: bool, saved_ago: float):
    datazone = BatchDataZone(list_refusals=[] if may_list else list(DENIED))

    async def main(airflow: Airflow) -> list[AssetRow]:
        run = begin_run(datazone, "asset0", ends=100_000.0)
        await asyncio.sleep(20)
        asyncio.get_running_loop().call_later(7200, run.cancel)
        rows = assets(1)
        await retry(rows, saved_at=EPOCH + now() - saved_ago)
        return rows

    assert statuses(run_on(datazone, main)) == {"CANCELED": 1}
    assert len(datazone.runs) == 1


@pytest.mark.parametrize("status", ["CANCELED", "FAILED"])
def test_run_that_failed_in_an_earlier_try_is_replaced_after_a_checkpoint(status: str):
    """The checkpoint comes after Start has returned the runs again, and before their first poll."""
    datazone = BatchDataZone(lasts=60)

    async def main(airflow: Airflow) -> list[AssetRow]:
        for row in assets(20):
            begin_run(datazone, row.asset_identifier, ends=10.0, end_status=status)
        await asyncio.sleep(60)
        rows, began = assets(20), EPOCH + now()
        settings = {"try_number": 2, "try_began_at": began, "poll_interval": 30.0}
        batch = make_batch(rows, saved_at=0.0, **settings)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(10)
        await batch.drain()
        work.cancel()
        await asyncio.wait({work})
        assert all(row.is_active for row in rows)
        airflow.new_process()
        rows = unpack(pack(rows))
        await make_batch(rows, saved_at=EPOCH + now(), **settings).run(PARAMETERS)
        return rows

    assert statuses(run_on(datazone, main)) == {"SUCCEEDED": 20}
    assert len(datazone.runs) == 40


@pytest.mark.parametrize("delay", [100, 300])
def test_run_canceled_with_the_previous_try_is_replaced_however_late_it_is_read(delay: int):
    """The triggerer is late, or DataZone does not respond."""
    datazone = BatchDataZone(lasts=60)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(1)
        run = begin_run(datazone, "asset0", ends=1000.0)
        rows[0].run_identifier, rows[0].adopted_at = run.id, EPOCH + now()
        run.cancel()
        await asyncio.sleep(delay)
        await retry(rows, saved_at=EPOCH + now())
        return rows

    assert statuses(run_on(datazone, main)) == {"SUCCEEDED": 1}
    assert len(datazone.runs) == 2


@pytest.mark.parametrize("found", ["in the rows", "by Start", "by List"])
def test_run_of_an_earlier_try_that_no_longer_exists_is_replaced(found: str):
    datazone = BatchDataZone(lasts=60)

    async def main(airflow: Airflow) -> list[AssetRow]:
        run = begin_run(datazone, "asset0", ends=1e9 if found == "by List" else 10.0, known_from=1e12)
        await asyncio.sleep(100)
        rows = assets(1)
        if found == "in the rows":
            rows[0].run_identifier, rows[0].adopted_at = run.id, EPOCH + now()
        await retry(rows, saved_at=0.0 if found == "by List" else EPOCH + now())
        return rows

    assert statuses(run_on(datazone, main)) == {"SUCCEEDED": 1}
    assert len(datazone.runs) == 2


@pytest.mark.parametrize("status", ["FAILED", "CANCELED"])
def test_process_that_takes_over_does_not_replace_a_run_of_the_same_try(status: str):
    """The first try ended before its Start. The second process of the second try receives the run of the first."""
    datazone = BatchDataZone(lasts=60, endings={"asset0": [status, "SUCCEEDED"]})

    async def main(airflow: Airflow) -> list[AssetRow]:
        await asyncio.sleep(100)
        began, given = EPOCH + now(), pack(assets(1))
        work = asyncio.ensure_future(retry(unpack(given), saved_at=began))
        await asyncio.sleep(20)
        work.cancel()
        await asyncio.wait({work})
        await settle()
        await asyncio.sleep(100)
        airflow.new_process()
        rows = unpack(given)
        await retry(rows, saved_at=EPOCH + now(), try_began_at=began)
        return rows

    assert statuses(run_on(datazone, main)) == {status: 1}
    assert len(datazone.runs) == 1


def test_known_runs_that_were_canceled_are_replaced_with_one_start_each():
    datazone = BatchDataZone(lasts=30)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(50)
        await make_batch(rows, max_concurrent_runs=50).run(PARAMETERS)
        for row in rows:
            row.status, row.adopted_at = None, EPOCH + now()
            datazone.by_id[str(row.run_identifier)].end_status = "CANCELED"
        datazone.endings = {}
        await retry(rows)
        return rows

    assert statuses(run_on(datazone, main)) == {"SUCCEEDED": 50}
    assert len(datazone.starts) == len(datazone.runs) == 100


@pytest.mark.parametrize("has_state_store", [True, False])
def test_retry_finds_its_run_after_it_adopted_one_of_another_client(has_state_store: bool):
    """The response to the first Start is lost, and the run of another client fails in the second try."""
    datazone = BatchDataZone(lasts=60)
    store = Store() if has_state_store else None

    def memory_of(try_number: int) -> BatchMemory:
        return BatchMemory(make_context(store, try_number=try_number), "dzd_1", TYPES)

    async def main(airflow: Airflow) -> list[AssetRow]:
        memory = memory_of(1)
        memory.save(memory.load(assets(1), Steps()))
        begin_run(datazone, "asset0", identity=memory.identity, ends=30.0)
        await asyncio.sleep(200)
        datazone.begin("asset0", ends=300.0, end_status="FAILED")
        for try_number in (2, 3):
            airflow.new_process()
            memory = memory_of(try_number)
            rows = memory.load(assets(1), Steps())
            await retry(rows, identity=memory.identity, try_number=try_number, saved_at=memory.saved_at)
            memory.save(rows)
            await asyncio.sleep(300)
        return rows

    assert statuses(run_on(datazone, main)) == {"SUCCEEDED": 1}
    assert [run.end_status for run in datazone.runs] == ["SUCCEEDED", "FAILED"]


def test_new_run_that_list_returns_before_get_does_not_fail():
    """The batch lists runs while it waits for three, and reads each of them when two are left."""
    datazone = BatchDataZone(lasts=60, unknown_for={"asset1": 15.0, "asset2": 15.0})

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(3)
        asyncio.get_running_loop().call_later(3, lambda: setattr(datazone.runs[0], "ends", now()))
        await make_batch(rows, poll_interval=2.0).run(PARAMETERS)
        return rows

    assert statuses(run_on(datazone, main)) == {"SUCCEEDED": 3}
