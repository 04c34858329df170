"""A batch resumes the runs that an earlier process or another task has started."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from random import Random

import pytest
from hypothesis import given, strategies as st

from airflow_provider_datazone.batch.assets import AssetRow, pack, unpack
from airflow_provider_datazone.batch.starts import HANDOVER_SECONDS
from tests.unit.simulated_batch import (
    EPOCH,
    PARAMETERS,
    RATE,
    TYPES,
    Airflow,
    BatchDataZone,
    SimulatedTime,
    assets,
    bring_to_an_end,
    busiest_second,
    make,
    on,
    settle,
    statuses,
)
from tests.unit.simulation import client_error, now
from tests.wrong import fuzz

# -------------------------------------------------------------- many processes


@dataclass
class Process:
    """One that works on the batch until it is ended: what it was given, and when."""

    rows: dict[str, AssetRow]
    away: float


ENDS = ["drained", "killed", "killed after a note", "killed and nothing is left", "ended by a user"]
segments_drawn = st.lists(
    st.tuples(st.sampled_from(ENDS), st.floats(0, 90), st.sampled_from([0.0, 1.0, 30.0, 61.0, 400.0])),
    max_size=6,
)


@fuzz(100)
@given(
    number=st.integers(1, 30),
    max_concurrent_runs=st.sampled_from([1, 3, 20, 50]),
    lasts=st.sampled_from([0.5, 10.0, 60.0, 300.0]),
    latency=st.sampled_from([0.01, 0.5, 5.0]),
    segments=segments_drawn,
    forgets=st.booleans(),
    fails=st.sets(st.integers(0, 29), max_size=5),
    random=st.randoms(use_true_random=False),
)
def test_whatever_is_killed_each_asset_has_one_run_that_succeeded(
    number, max_concurrent_runs, lasts, latency, segments, forgets, fails, random: Random
):
    """The clocks agree, List is complete, and a token is honoured or forgotten with the process that sent it."""
    endings = {f"asset{n}": ["FAILED", "SUCCEEDED"] for n in fails}
    datazone = BatchDataZone(lasts=lasts, latency=latency, endings=endings, random=random)
    tries: list[float] = []

    async def work(
        airflow: Airflow, given: str, saved_at: float, end: str, seconds: float, *, new_try: bool
    ) -> tuple[str, float]:
        """Be one process; return what the next one is given."""
        airflow.new_process()
        rows = unpack(given)
        if new_try:
            tries.append(SimulatedTime.time())
            for row in rows:
                row.adopted_at = SimulatedTime.time() if row.is_active else None
        noted = given, saved_at

        def note() -> None:
            nonlocal noted
            noted = pack(rows), SimulatedTime.time()

        batch = make(
            rows,
            max_concurrent_runs=max_concurrent_runs,
            try_number=len(tries),
            try_began_at=tries[-1],
            on_progress=note if end in ("killed after a note", "ended by a user", "lives") else None,
            saved_at=saved_at,
        )
        datazone.process = Process(
            {row.asset_identifier: row for row in unpack(given)}, SimulatedTime.time() - saved_at
        )
        task = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.wait({task}, timeout=None if end == "lives" else seconds)
        ended = task.done()
        if end == "drained" and not ended:
            await batch.drain()
        task.cancel()
        await asyncio.wait({task})
        await settle()
        if ended or end in ("drained", "ended by a user"):
            note()
        if ended:
            task.result()
        elif end == "ended by a user":
            for row in rows:
                if row.is_active:
                    datazone.by_id[row.run_identifier].cancel()
        elif end == "killed and nothing is left":
            noted = pack(assets(number)), 0.0
        if forgets:
            datazone.answered.clear()
        return noted

    async def main(airflow: Airflow) -> None:
        given, saved_at = pack(assets(number)), EPOCH
        last = "the beginning"
        for end, seconds, gap in segments:
            # A batch that is drained is handed on in the same try.
            new_try = last != "drained"
            given, saved_at = await work(airflow, given, saved_at, end, seconds, new_try=new_try)
            await asyncio.sleep(gap)
            last = end
        for _ in range(3):
            given, saved_at = await work(airflow, given, saved_at, "lives", 0, new_try=last != "drained")
            last = "the end"
            rows = unpack(given)
            # A retry works on what failed alone.
            for row in rows:
                if row.status != "SUCCEEDED":
                    row.reset()
            given = pack(rows)
        assert statuses(rows) == {"SUCCEEDED": number}

    on(datazone, main)
    left_to_tokens = set()
    for start in datazone.starts:
        if start.replayed or start.run is None:
            continue
        there = [run for run in start.runs if run.status(start.at) not in ("FAILED", "CANCELED")]
        known = start.process.rows[start.asset].run_identifier
        if forgets and not any(run in there for run in datazone.active(start.at)):
            # What has ended might be another task's: the token alone tells, and it is forgotten.
            left_to_tokens.add(start.asset)
            continue
        if (
            there
            and forgets
            and start.process.away <= HANDOVER_SECONDS
            and known not in {run.id for run in there}
        ):
            # Started by the last process without a note of it, and nobody had been away for long.
            left_to_tokens.add(start.asset)
            continue
        assert not there, f"{start} while there are {there}"
    for n in range(number):
        succeeded = [run for run in datazone.runs_of(f"asset{n}") if run.end_status == "SUCCEEDED"]
        assert len(succeeded) == 1 or f"asset{n}" in left_to_tokens


def test_what_is_done_stays_done_and_what_is_active_is_waited_for():
    datazone = BatchDataZone(lasts=30)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(6)
        runs = [datazone.begin(row.asset_identifier) for row in rows[:4]]
        for row, run in zip(rows, runs, strict=False):
            row.run_identifier = run.id
        rows[0].status, rows[1].status = "SUCCEEDED", "FAILED"
        await make(rows).run(PARAMETERS)
        assert [row.run_identifier for row in rows[:4]] == [run.id for run in runs]
        return rows

    rows = on(datazone, main)
    assert [row.status for row in rows] == ["SUCCEEDED", "FAILED"] + ["SUCCEEDED"] * 4
    assert [start.asset for start in datazone.starts] == ["asset4", "asset5"]
    assert {about for _, what, about in datazone.requests if what == "get"} == {
        f"run{n}" for n in range(2, 6)
    }


def test_hand_over_in_a_moment_asks_for_nothing_else():
    datazone = BatchDataZone()
    bring_to_an_end(datazone, assets(50), saved_at=EPOCH - HANDOVER_SECONDS + 1)
    assert "list_asset_page" not in datazone.count()


def test_only_what_may_have_been_reached_meanwhile_is_asked_for():
    datazone = BatchDataZone()
    bring_to_an_end(datazone, assets(2000), saved_at=EPOCH - 100, max_concurrent_runs=20)
    assert datazone.count()["list_asset_page"] == 100 * RATE + 20


def test_runs_of_before_the_batch_and_of_other_types_are_not_taken_for_its_own():
    datazone = BatchDataZone(lasts=5)

    async def main(airflow: Airflow) -> list[AssetRow]:
        old = datazone.begin("asset0", ends=0.0)
        old.members["created_at"] = datetime.fromtimestamp(EPOCH - 3600, timezone.utc)
        other = datazone.begin("asset1", ends=1000.0)
        other.members["types"] = (TYPES[0],)
        rows = [*assets(2), AssetRow("asset2", "7", "project")]
        datazone.begin("asset2", ends=1000.0)
        await make(rows, saved_at=EPOCH - 3600).run(PARAMETERS)
        return rows

    rows = on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 3}
    assert [start.asset for start in datazone.starts] == ["asset0", "asset1", "asset2"]


def test_runs_that_were_canceled_with_the_task_are_started_anew_at_the_rate():
    """A user ends the task, and clears it: its runs are found canceled, all at once."""
    datazone = BatchDataZone(lasts=100)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(40)
        for row in rows:
            run = datazone.begin(row.asset_identifier)
            run.cancel()
            row.run_identifier, row.adopted_at = run.id, EPOCH
        await make(rows).run(PARAMETERS)
        return rows

    rows = on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 40}
    assert len(datazone.starts) == 40
    assert busiest_second([start.at for start in datazone.starts]) <= RATE


def test_run_that_is_canceled_in_the_midst_of_the_batch_is_not_started_anew():
    datazone = BatchDataZone(lasts=100)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(2)
        asyncio.get_running_loop().call_later(20, lambda: datazone.runs_of("asset1")[0].cancel())
        await make(rows).run(PARAMETERS)
        return rows

    assert [row.status for row in on(datazone, main)] == ["SUCCEEDED", "CANCELED"]
    assert len(datazone.starts) == 2


# ------------------------------------------------------- what belongs to whom


def test_second_batch_over_the_same_assets_starts_its_own_runs():
    datazone = BatchDataZone(lasts=5)

    async def main(airflow: Airflow) -> None:
        await make(assets(6), identity="the first task").run(PARAMETERS)
        rows = assets(6)
        # As in a retry, or a clear: what was started before is not known.
        await make(rows, identity="the second task", saved_at=0.0).run(PARAMETERS)
        assert len(datazone.runs) == 12
        assert {row.run_identifier for row in rows} == {run.id for run in datazone.runs[6:]}

    on(datazone, main)


def test_active_run_of_another_task_is_adopted():
    datazone = BatchDataZone(lasts=60)

    async def main(airflow: Airflow) -> None:
        theirs = [datazone.begin(f"asset{n}") for n in range(6)]
        rows = assets(6)
        await make(rows, saved_at=0.0).run(PARAMETERS)
        assert [row.run_identifier for row in rows] == [run.id for run in theirs]

    on(datazone, main)
    assert datazone.starts == []


@pytest.mark.parametrize("after", ["a checkpoint", "a look-up of credentials"])
def test_run_that_a_person_canceled_is_not_started_again(after: str):
    datazone = BatchDataZone(lasts=600)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(2)
        batch = make(rows)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(300)
        if after == "a checkpoint":
            await batch.drain()
            work.cancel()
            await asyncio.wait({work})
            rows = unpack(pack(rows))
            work = asyncio.ensure_future(make(rows, saved_at=EPOCH + now()).run(PARAMETERS))
        else:
            datazone.rejected.add("credentials1")
        await asyncio.sleep(60)
        datazone.runs_of("asset1")[0].cancel()
        await work
        return rows

    assert [row.status for row in on(datazone, main)] == ["SUCCEEDED", "CANCELED"]
    assert len(datazone.starts) == 2


def test_run_that_failed_is_not_started_again_by_the_triggerer_that_takes_over():
    datazone = BatchDataZone(lasts=30, endings={"asset1": ["FAILED", "SUCCEEDED"]})

    async def main(airflow: Airflow) -> list[AssetRow]:
        given = pack(assets(3))
        first = asyncio.ensure_future(make(unpack(given)).run(PARAMETERS))
        await asyncio.sleep(100)
        assert first.done()
        # Its event was lost with the triggerer.
        airflow.new_process()
        rows = unpack(given)
        await make(rows).run(PARAMETERS)
        return rows

    assert [row.status for row in on(datazone, main)] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert len(datazone.runs) == 3


@pytest.mark.parametrize("may_list", [True, False])
def test_retry_without_a_memory_starts_what_failed_and_keeps_what_succeeded(may_list: bool):
    forbidden = [] if may_list else [client_error("AccessDeniedException", 403)] * 100
    datazone = BatchDataZone(
        lasts=30, endings={"asset1": ["FAILED", "FAILED", "SUCCEEDED"]}, list_refusals=forbidden
    )

    async def main(airflow: Airflow) -> list[list[str | None]]:
        tries = []
        for try_number in (1, 2, 3):
            airflow.new_process()
            rows = assets(3)
            began = EPOCH + now()
            saved_at = began if try_number == 1 else 0.0
            await make(rows, try_number=try_number, try_began_at=began, saved_at=saved_at).run(PARAMETERS)
            tries.append([row.status for row in rows])
            await asyncio.sleep(1)
        return tries

    assert on(datazone, main) == [
        ["SUCCEEDED", "FAILED", "SUCCEEDED"],
        ["SUCCEEDED", "FAILED", "SUCCEEDED"],
        ["SUCCEEDED", "SUCCEEDED", "SUCCEEDED"],
    ]
    assert Counter(run.asset for run in datazone.runs) == {"asset0": 1, "asset1": 3, "asset2": 1}
