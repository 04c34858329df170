"""How fast a batch starts its runs, and how it shares that rate with others."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from airflow_provider_datazone.batch.assets import AssetRow
from tests.unit.simulated_batch import (
    PARAMETERS,
    RATE,
    Airflow,
    BatchDataZone,
    SlowStarts,
    assets,
    bring_to_an_end,
    busiest_second,
    make,
    on,
    statuses,
)
from tests.unit.simulation import now

# ------------------------------------------------------------------- the pace


def test_starts_are_spaced_at_the_limit_and_use_it():
    datazone = BatchDataZone(lasts=5, latency=0.1)
    rows = bring_to_an_end(datazone, assets(600), max_concurrent_runs=200)
    assert statuses(rows) == {"SUCCEEDED": 600}
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert busiest_second(sent) <= RATE
    assert (len(sent) - 1) / (sent[-1] - sent[0]) >= 0.95 * RATE


def test_rate_is_the_one_that_is_configured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_STARTS_PER_SECOND", "2.5")
    datazone = BatchDataZone()
    bring_to_an_end(datazone, assets(100), max_concurrent_runs=100)
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert 0.95 * 2.5 <= (len(sent) - 1) / (sent[-1] - sent[0]) <= 2.5


def test_two_batches_of_a_process_share_the_limit():
    datazone = BatchDataZone()

    async def main(airflow: Airflow) -> None:
        other = [AssetRow(f"other{n}", None, "project") for n in range(100)]
        await asyncio.gather(make(assets(100)).run(PARAMETERS), make(other).run(PARAMETERS))

    on(datazone, main)
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert len(sent) == 200
    assert busiest_second(sent) <= RATE


@pytest.mark.parametrize("max_concurrent_runs", [1, 7, 40])
def test_no_more_runs_are_active_than_may_be_and_the_next_starts_as_one_ends(max_concurrent_runs: int):
    datazone = BatchDataZone(lasts=12, latency=0.05)
    rows = bring_to_an_end(datazone, assets(80), max_concurrent_runs=max_concurrent_runs, poll_interval=3)
    assert statuses(rows) == {"SUCCEEDED": 80}
    starts = [start.at for start in datazone.starts]
    assert max(len(datazone.active(at)) for at in starts) == max_concurrent_runs
    # A slot becomes free when Get says so, and is taken when the rate allows.
    told = sorted(datazone.said_ended.values())
    turns = [0.0, *starts]
    for free, began, before in zip(
        told, starts[max_concurrent_runs:], turns[max_concurrent_runs:], strict=False
    ):
        assert began <= max(free + 0.1, before + 0.11) + 0.05


def test_an_asset_costs_one_start_and_one_get_and_nothing_but_lists_beside():
    datazone = BatchDataZone(lasts=30, latency=0.1)
    rows = bring_to_an_end(datazone, assets(500), max_concurrent_runs=400, poll_interval=30)
    assert statuses(rows) == {"SUCCEEDED": 500}
    asked = datazone.count()
    assert asked.keys() == {"start", "get", "list"}
    assert (asked["start"], asked["get"]) == (500, 500)
    for operation in ("start", "get"):
        about = Counter(about for _, what, about in datazone.requests if what == operation)
        assert set(about.values()) == {1}
    # Two a round, and for each fifty that are active a page more.
    duration = max(at for at, _, _ in datazone.requests)
    assert asked["list"] <= (duration / 30 + 1) * (2 + 400 / 50)


# -------------------------------------------------------------- a shared limit


def test_batch_gives_way_to_a_neighbour_and_takes_the_limit_again_when_it_has_left():
    """Half of what DataZone allows is taken by others for two minutes."""
    datazone = BatchDataZone(
        lasts=5, latency=0.05, limit=RATE, neighbour=lambda now: RATE / 2 if 60 <= now < 180 else 0.0
    )
    rows = bring_to_an_end(datazone, assets(2600), max_concurrent_runs=500)
    assert statuses(rows) == {"SUCCEEDED": 2600}
    carried_out = [start.at for start in datazone.starts if start.run is not None]

    def rate(begin: float, end: float) -> float:
        return sum(begin <= at < end for at in carried_out) / (end - begin)

    def refused(begin: float, end: float) -> float:
        asked = sum(begin <= start.at < end for start in datazone.starts)
        return sum(begin <= at < end for at in datazone.refused) / asked

    assert rate(5, 60) >= 0.95 * RATE
    assert refused(5, 60) == 0
    assert rate(65, 180) >= 0.75 * RATE / 2
    assert refused(65, 180) <= 0.05
    # Two minutes later at the latest there is nothing left of it.
    assert rate(240, 260) >= 0.9 * RATE
    assert refused(185, 260) == 0
    assert len({start.token for start in datazone.starts}) == 2600, "a refused start is sent as it was"


# ------------------------------------------------------------- rates and threads


@pytest.mark.parametrize("max_concurrent_runs", [50, 200])
def test_starts_that_hung_do_not_leave_together(max_concurrent_runs: int):
    datazone = SlowStarts(lasts=60)
    datazone.slow_until = 12.0
    rows = bring_to_an_end(datazone, assets(300), max_concurrent_runs=max_concurrent_runs)
    assert statuses(rows) == {"SUCCEEDED": 300}
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert busiest_second(sent) <= RATE


def test_small_batch_gets_as_many_turns_as_a_large_one():
    datazone = BatchDataZone(lasts=1)

    async def main(airflow: Airflow) -> float:
        large = make(assets(400), max_concurrent_runs=400)
        work = asyncio.ensure_future(large.run(PARAMETERS))
        await asyncio.sleep(1)
        await make([AssetRow(f"small{n}", None, "project") for n in range(10)]).run(PARAMETERS)
        ended = now()
        await work
        return ended

    # Ten starts at half the rate, and the last one's poll interval.
    assert on(datazone, main) <= 1 + 10 / (RATE / 2) + 5 + 3
