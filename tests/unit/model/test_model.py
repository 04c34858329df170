"""
Batches, single waits and single cancels in one process, against a model of the service with its limits.

Hypothesis draws a list of steps. One coroutine runs them in simulated time, and checks the state after each
step and at the end. Code that the package runs in a thread runs in a thread here, too: the event loop is
blocked while the thread runs, and simulated time passes while it waits for the service.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from dataclasses import replace

import pytest
from hypothesis import example, given, strategies as st

from tests.unit.model.tasks import Connections, WaitTask
from tests.unit.model.world import Plan, World, simulate_steps
from tests.unit.simulated_batch import (
    RATE,
    run_in,
    settle,
)
from tests.unit.simulation import now
from tests.wrong import fuzz

picks = st.integers(0, 50)
intervals = st.sampled_from([5.0, 30.0])
gaps = st.sampled_from([0.0, 0.5, 5.0, 59.0, 61.0, 400.0])
connections = st.integers(1, 2)
kinds = st.sampled_from(["start", "cancel", "poll", "accept", "publish", "all"])
batches_drawn = st.tuples(
    st.just("batch"), st.integers(1, 2), connections, st.sampled_from([1, 2, 10, 40]),
    st.sampled_from([1, 3, 20, 400]), intervals, st.booleans(), st.sampled_from([None, 0.5]), st.booleans(),
)  # fmt: skip
steps_drawn = st.one_of(
    batches_drawn,
    st.tuples(st.just("wait"), picks, connections, intervals, st.none() | st.sampled_from([0.0, 20.0, 90.0])),
    st.tuples(st.just("waits_for"), st.sampled_from([3, 30]), connections, intervals),
    st.tuples(st.just("cancel"), picks, connections),
    st.tuples(st.just("cancels_of"), st.sampled_from([5, 50, 150]), connections),
    st.tuples(st.just("cancels_in_turn"), st.sampled_from([5, 50]), connections),
    st.tuples(st.just("person"), picks, st.sampled_from(["CANCELED", "FAILED"])),
    st.tuples(
        st.just("trouble"),
        st.sampled_from(["throttling", "failing", "lost answers", "hanging"]),
        kinds,
        st.sampled_from([2.0, 30.0, 120.0]),
        st.sampled_from([0.3, 1.0]),
    ),
    st.tuples(st.just("reject"), connections, st.booleans()),
    st.just(("forget",)),
    st.tuples(st.just("other_task"), picks),
    st.tuples(st.just("checkpoint"), picks),
    st.tuples(st.just("end_by_user"), picks, st.booleans()),
    st.tuples(st.just("kill"), picks, gaps, st.booleans()),
    st.tuples(st.just("kill_all"), gaps, st.booleans()),
    st.tuples(st.just("retry"), picks),
)
moments = st.sampled_from([0.0, 0.05, 1.0, 7.0, 31.0, 65.0, 300.0])
plans_drawn = st.builds(
    Plan,
    seed=st.integers(0, 1000),
    latency=st.sampled_from([0.02, 0.5, 3.0]),
    lookup_seconds=st.sampled_from([0.0, 0.3]),
    build_seconds=st.sampled_from([0.0, 2.0]),
    lasts=st.sampled_from([1.0, 20.0, 200.0, 600.0]),
    fails=st.frozensets(st.integers(0, 39), max_size=4),
    listed_after=st.sampled_from([0.0, 20.0]),
    list_staleness=st.sampled_from([0.0, 15.0]),
)
CALM = Plan(0, 0.02, 0.0, 0.0, 200.0, frozenset(), 0.0, 0.0)


@fuzz(max_examples=60)
# Random steps rarely reach the following states.
# More Cancels wait for a thread than the rate allows in a second.
@example(
    plan=CALM,
    first=("batch", 1, 1, 1, 1, 5.0, False),
    steps=[(0.0, ("trouble", "hanging", "cancel", 2.0, 1.0)), (0.0, ("cancels_of", 150, 1))],
)
# The run of another task succeeds for an asset of the batch before a process is killed for minutes.
@example(
    plan=CALM,
    first=("batch", 1, 1, 40, 1, 5.0, False),
    steps=[(0.0, ("other_task", 4)), (300.0, ("kill", 0, 400.0, True)), (450.0, ("checkpoint", 0))],
)
# A process is killed for minutes while its runs are active.
@example(
    plan=replace(CALM, lasts=600.0),
    first=("batch", 1, 1, 40, 20, 5.0, False),
    steps=[(7.0, ("other_task", 8)), (7.0, ("kill", 0, 61.0, False)), (65.0, ("checkpoint", 0))],
)
# A user ends batches while threads send their Starts, and one thread is slow.
@example(
    plan=replace(CALM, seed=8, lasts=20.0),
    first=("batch", 1, 1, 40, 400, 5.0, False),
    steps=[
        (1.0, ("batch", 2, 2, 40, 400, 5.0, True)),
        (1.0, ("end_by_user", 0, True)),
        (0.0, ("end_by_user", 0, False)),
    ],
)
# A user ends a batch while each of its Starts is in flight for seconds.
@example(
    plan=replace(CALM, latency=3.0),
    first=("batch", 1, 1, 40, 400, 5.0, False),
    steps=[(2.0, ("end_by_user", 0, True))],
)
# The same, but the batch moves from a triggerer to a worker.
@example(
    plan=replace(CALM, latency=3.0),
    first=("batch", 1, 1, 40, 400, 5.0, False),
    steps=[(2.0, ("checkpoint", 0))],
)
# Cancels fail for half a minute.
@example(plan=CALM, first=("trouble", "failing", "cancel", 30.0, 1.0), steps=[(0.0, ("cancels_of", 5, 1))])
# The credentials are rejected just after another job read them.
@example(
    plan=CALM,
    first=("batch", 1, 1, 2, 1, 30.0, False),
    steps=[(31.0, ("cancel", 0, 1)), (0.05, ("reject", 1, False))],
)
# A wait ends during the lookup of its connection.
@example(plan=replace(CALM, lookup_seconds=0.3), first=("wait", 0, 1, 5.0, 0.0), steps=[])
# The credentials are rejected while earlier Starts are in flight and no wait is active.
@example(
    plan=replace(CALM, seed=1),
    first=("trouble", "hanging", "start", 30.0, 1.0),
    steps=[
        (0.0, ("batch", 1, 1, 2, 20, 5.0, False)),
        (31.0, ("reject", 1, True)),
        (0.0, ("cancel", 3, 1)),
    ],
)
# The process of a batch is killed, but its poller continues.
@example(
    plan=CALM,
    first=("batch", 1, 1, 40, 400, 5.0, False),
    steps=[(0.0, ("wait", 3, 1, 30.0, None)), (1.0, ("kill", 0, 59.0, True))],
)
# The responses to accepts and publications are lost, and the process is killed.
@example(
    plan=replace(CALM, latency=3.0, lasts=20.0),
    first=("batch", 1, 1, 40, 20, 5.0, False, 0.5, True),
    steps=[
        (0.0, ("trouble", "lost answers", "accept", 120.0, 0.3)),
        (0.0, ("trouble", "lost answers", "publish", 120.0, 0.3)),
        (31.0, ("kill", 0, 5.0, True)),
        (7.0, ("kill", 0, 61.0, False)),
        (7.0, ("checkpoint", 0)),
    ],
)
@given(
    plan=plans_drawn,
    first=batches_drawn,
    steps=st.lists(st.tuples(moments, steps_drawn), min_size=3, max_size=16),
)
def test_batches_waits_and_cancels_are_correct_after_any_sequence_of_steps(plan, first, steps):
    simulate_steps(plan, [(0.0, first), *steps])


@pytest.mark.parametrize("kind", ["cancel", "poll"])
def test_consecutive_pollers_share_one_rate(kind: str):
    """The last job of each poller ends before the next poller begins, and no object of it is left."""
    world = World(CALM)
    # Collecting garbage is slow only for what Airflow has imported.
    gc.freeze()

    async def run_pollers(airflow: Connections) -> None:
        for _ in range(15):
            if kind == "cancel":
                world.cancel(0, 1)
                await world.cancels[-1][-1]
            else:
                world.wait(0, 1, 0.01, 0.03)
                await asyncio.wait({world.waits[-1].task})
            await settle()
            gc.collect()
        world.check()
        assert len(airflow.sources) == 15

    try:
        run_in(world.airflow, run_pollers)
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("poll_interval", [5.0, 30.0])
def test_single_waits_poll_on_time_during_a_large_batch_with_slow_starts(poll_interval: float):
    world = World(replace(CALM, latency=0.1, lasts=300.0))
    world.account.slow_starts = 3.0

    async def main(airflow: Connections) -> None:
        world.batch(1, 1, 700, 400, 30.0, False)
        await asyncio.sleep(20)
        runs = [world.domains["dzd_1"].begin(f"stranger{n}", ends=1000.0) for n in range(5)]
        for run in runs:
            wait = WaitTask(run, "dzd_1", world.parameters(1), poll_interval, None, now())
            world.waits.append(wait)
            wait.begin()
        await asyncio.wait({wait.task for wait in world.waits})
        world.check()
        starts = [sent.at for sent in world.account.sent if sent.kind == "start"]
        assert len(starts) >= 600
        assert starts[399] - starts[0] <= 400 / (0.9 * RATE)
        if world.batches[0].current is not None:
            world.batches[0].kill()

    run_in(world.airflow, main)
    for wait in world.waits:
        polls = [20.0, *world.account.seen[wait.run.id]]
        assert polls[-1] >= 1000
        assert max(later - earlier for earlier, later in itertools.pairwise(polls)) <= 3 * poll_interval
