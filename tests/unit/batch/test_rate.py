"""How fast a batch starts runs, and how it shares the rate limit with other clients."""

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
    busiest_second,
    make_batch,
    run_batch,
    run_on,
    statuses,
)
from tests.unit.simulation import now

# ------------------------------------------------------------------------- rate


def test_starts_use_the_whole_rate_and_do_not_exceed_it():
    datazone = BatchDataZone(lasts=5, latency=0.1)
    rows = run_batch(datazone, assets(600), max_concurrent_runs=200)
    assert statuses(rows) == {"SUCCEEDED": 600}
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert busiest_second(sent) <= RATE
    assert (len(sent) - 1) / (sent[-1] - sent[0]) >= 0.95 * RATE


def test_start_rate_is_configurable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_STARTS_PER_SECOND", "2.5")
    datazone = BatchDataZone()
    run_batch(datazone, assets(100), max_concurrent_runs=100)
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert 0.95 * 2.5 <= (len(sent) - 1) / (sent[-1] - sent[0]) <= 2.5


def test_batches_of_a_process_share_the_start_rate():
    datazone = BatchDataZone()

    async def main(airflow: Airflow) -> None:
        other = [AssetRow(f"other{n}", None, "project") for n in range(100)]
        await asyncio.gather(make_batch(assets(100)).run(PARAMETERS), make_batch(other).run(PARAMETERS))

    run_on(datazone, main)
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert len(sent) == 200
    assert busiest_second(sent) <= RATE


@pytest.mark.parametrize("max_concurrent_runs", [1, 7, 40])
def test_max_concurrent_runs_are_active_and_the_next_run_starts_when_one_ends(max_concurrent_runs: int):
    datazone = BatchDataZone(lasts=12, latency=0.05)
    rows = run_batch(datazone, assets(80), max_concurrent_runs=max_concurrent_runs, poll_interval=3)
    assert statuses(rows) == {"SUCCEEDED": 80}
    starts = [start.at for start in datazone.starts]
    assert max(len(datazone.active(at)) for at in starts) == max_concurrent_runs
    # Get reports the end of a run, which frees a slot. The next start takes it when the rate allows.
    ends = sorted(datazone.ends_reported_at.values())
    turns = [0.0, *starts]
    for free, began, before in zip(
        ends, starts[max_concurrent_runs:], turns[max_concurrent_runs:], strict=False
    ):
        assert began <= max(free + 0.1, before + 0.11) + 0.05


def test_each_asset_takes_one_start_and_one_get_and_a_share_of_lists():
    datazone = BatchDataZone(lasts=30, latency=0.1)
    rows = run_batch(datazone, assets(500), max_concurrent_runs=400, poll_interval=30)
    assert statuses(rows) == {"SUCCEEDED": 500}
    counts = datazone.count()
    assert counts.keys() == {"start", "get", "list"}
    assert (counts["start"], counts["get"]) == (500, 500)
    for operation in ("start", "get"):
        about = Counter(about for _, what, about in datazone.requests if what == operation)
        assert set(about.values()) == {1}
    # Two Lists per round, and another page for every fifty active runs.
    duration = max(at for at, _, _ in datazone.requests)
    assert counts["list"] <= (duration / 30 + 1) * (2 + 400 / 50)


# ----------------------------------------------------------------- shared limit


def test_batch_slows_down_for_another_client_and_returns_to_the_full_rate():
    """Another client uses half of the limit for two minutes."""
    datazone = BatchDataZone(
        lasts=5, latency=0.05, limit=RATE, other_client=lambda now: RATE / 2 if 60 <= now < 180 else 0.0
    )
    rows = run_batch(datazone, assets(2600), max_concurrent_runs=500)
    assert statuses(rows) == {"SUCCEEDED": 2600}
    accepted = [start.at for start in datazone.starts if start.run is not None]

    def rate(begin: float, end: float) -> float:
        return sum(begin <= at < end for at in accepted) / (end - begin)

    def refused(begin: float, end: float) -> float:
        sent = sum(begin <= start.at < end for start in datazone.starts)
        return sum(begin <= at < end for at in datazone.refused) / sent

    assert rate(5, 60) >= 0.95 * RATE
    assert refused(5, 60) == 0
    assert rate(65, 180) >= 0.75 * RATE / 2
    assert refused(65, 180) <= 0.05
    # After at most two minutes, the batch uses the full rate again.
    assert rate(240, 260) >= 0.9 * RATE
    assert refused(185, 260) == 0
    assert len({start.token for start in datazone.starts}) == 2600, (
        "a throttled start is repeated with the same token"
    )


# --------------------------------------------------------- slow starts, sharing


@pytest.mark.parametrize("max_concurrent_runs", [50, 200])
def test_starts_after_slow_responses_stay_within_the_rate(max_concurrent_runs: int):
    datazone = SlowStarts(lasts=60)
    datazone.slow_until = 12.0
    rows = run_batch(datazone, assets(300), max_concurrent_runs=max_concurrent_runs)
    assert statuses(rows) == {"SUCCEEDED": 300}
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert busiest_second(sent) <= RATE


def test_small_batch_gets_half_the_rate_beside_a_large_one():
    datazone = BatchDataZone(lasts=1)

    async def main(airflow: Airflow) -> float:
        large = make_batch(assets(400), max_concurrent_runs=400)
        work = asyncio.ensure_future(large.run(PARAMETERS))
        await asyncio.sleep(1)
        await make_batch([AssetRow(f"small{n}", None, "project") for n in range(10)]).run(PARAMETERS)
        ended = now()
        await work
        return ended

    # Ten starts at half the rate, and the poll interval of the last run.
    assert run_on(datazone, main) <= 1 + 10 / (RATE / 2) + 5 + 3
