"""A batch resumes runs that an earlier process or another task started."""

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
    busiest_second,
    make_batch,
    run_batch,
    run_on,
    settle,
    statuses,
)
from tests.unit.simulation import client_error, now
from tests.wrong import fuzz

# -------------------------------------------------------- consecutive processes


@dataclass
class Process:
    """The rows that a process received, and the seconds since they were saved."""

    rows: dict[str, AssetRow]
    gap: float


ENDS = ["drained", "killed", "killed after a save", "killed without saved rows", "ended by a user"]
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
    list_staleness=st.sampled_from([0.0, 3.0, 40.0]),
    fails=st.sets(st.integers(0, 29), max_size=5),
    random=st.randoms(use_true_random=True),
)
def test_each_asset_has_one_succeeded_run_after_any_sequence_of_kills(
    number, max_concurrent_runs, lasts, latency, segments, forgets, list_staleness, fails, random: Random
):
    """
    Clocks agree, Lists are complete but may be outdated, and DataZone keeps or forgets all tokens of a process.
    """
    datazone = BatchDataZone(
        lasts=lasts,
        latency=latency,
        list_staleness=list_staleness,
        endings={f"asset{n}": ["FAILED", "SUCCEEDED"] for n in fails},
        random=random,
    )
    tries: list[float] = []

    async def run_process(
        airflow: Airflow, given: str, saved_at: float, end: str, seconds: float, *, new_try: bool
    ) -> tuple[str, float]:
        """Run one process, and return the saved rows for the next one."""
        airflow.new_process()
        rows = unpack(given)
        if new_try:
            tries.append(SimulatedTime.time())
            for row in rows:
                row.adopted_at = SimulatedTime.time() if row.is_active else None
        saved = given, saved_at

        def save() -> None:
            nonlocal saved
            saved = pack(rows), SimulatedTime.time()

        batch = make_batch(
            rows,
            max_concurrent_runs=max_concurrent_runs,
            try_number=len(tries),
            try_began_at=tries[-1],
            on_progress=save if end in ("killed after a save", "ended by a user", "lives") else None,
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
            save()
        if ended:
            task.result()
        elif end == "ended by a user":
            for row in rows:
                if row.is_active:
                    datazone.by_id[row.run_identifier].cancel()
        elif end == "killed without saved rows":
            saved = pack(assets(number)), 0.0
        if forgets:
            datazone.answered.clear()
        return saved

    async def main(airflow: Airflow) -> None:
        given, saved_at = pack(assets(number)), EPOCH
        last = "the beginning"
        for end, seconds, gap in segments:
            # A drained batch continues in the same try.
            new_try = last != "drained"
            given, saved_at = await run_process(airflow, given, saved_at, end, seconds, new_try=new_try)
            await asyncio.sleep(gap)
            last = end
        for _ in range(3):
            given, saved_at = await run_process(
                airflow, given, saved_at, "lives", 0, new_try=last != "drained"
            )
            last = "the end"
            rows = unpack(given)
            # A retry processes failed assets only.
            for row in rows:
                if row.status != "SUCCEEDED":
                    row.reset()
            given = pack(rows)
        assert statuses(rows) == {"SUCCEEDED": number}

    run_on(datazone, main)
    known_by_token_only = set()
    for start in datazone.starts:
        if start.replayed or start.run is None:
            continue
        usable_runs = [run for run in start.runs if run.status(start.at) not in ("FAILED", "CANCELED")]
        known = start.process.rows[start.asset].run_identifier
        if forgets and not any(run in usable_runs for run in datazone.active(start.at)):
            # An ended run may belong to another task. Only the token, now forgotten, identifies it.
            known_by_token_only.add(start.asset)
            continue
        if (
            usable_runs
            and forgets
            and start.process.gap <= HANDOVER_SECONDS
            and known not in {run.id for run in usable_runs}
        ):
            # The last process started the run without saving it, and the gap is too short for a search.
            known_by_token_only.add(start.asset)
            continue
        assert not usable_runs, f"{start} although there are {usable_runs}"
    for n in range(number):
        succeeded = [run for run in datazone.runs_of(f"asset{n}") if run.end_status == "SUCCEEDED"]
        assert len(succeeded) == 1 or f"asset{n}" in known_by_token_only


def test_batch_skips_ended_runs_and_waits_for_active_runs():
    datazone = BatchDataZone(lasts=30)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(6)
        runs = [datazone.begin(row.asset_identifier) for row in rows[:4]]
        for row, run in zip(rows, runs, strict=False):
            row.run_identifier = run.id
        rows[0].status, rows[1].status = "SUCCEEDED", "FAILED"
        await make_batch(rows).run(PARAMETERS)
        assert [row.run_identifier for row in rows[:4]] == [run.id for run in runs]
        return rows

    rows = run_on(datazone, main)
    assert [row.status for row in rows] == ["SUCCEEDED", "FAILED"] + ["SUCCEEDED"] * 4
    assert [start.asset for start in datazone.starts] == ["asset4", "asset5"]
    assert {about for _, what, about in datazone.requests if what == "get"} == {
        f"run{n}" for n in range(2, 6)
    }


def test_quick_handover_sends_no_extra_list_requests():
    datazone = BatchDataZone()
    run_batch(datazone, assets(50), saved_at=EPOCH - HANDOVER_SECONDS + 1)
    assert "list_asset_page" not in datazone.count()


def test_only_assets_that_may_have_been_started_during_the_gap_are_searched():
    datazone = BatchDataZone()
    run_batch(datazone, assets(2000), saved_at=EPOCH - 100, max_concurrent_runs=20)
    assert datazone.count()["list_asset_page"] == 100 * RATE + 20


def test_older_runs_and_runs_of_other_types_or_revisions_are_not_adopted():
    datazone = BatchDataZone(lasts=5)

    async def main(airflow: Airflow) -> list[AssetRow]:
        old = datazone.begin("asset0", ends=0.0)
        old.members["created_at"] = datetime.fromtimestamp(EPOCH - 3600, timezone.utc)
        other = datazone.begin("asset1", ends=1000.0)
        other.members["types"] = (TYPES[0],)
        rows = [*assets(2), AssetRow("asset2", "7", "project")]
        datazone.begin("asset2", ends=1000.0)
        await make_batch(rows, saved_at=EPOCH - 3600).run(PARAMETERS)
        return rows

    rows = run_on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 3}
    assert [start.asset for start in datazone.starts] == ["asset0", "asset1", "asset2"]


def test_runs_canceled_with_the_task_are_started_again_within_the_rate():
    """A user ends the task and clears it, so the batch finds all its runs canceled."""
    datazone = BatchDataZone(lasts=100)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(40)
        for row in rows:
            run = datazone.begin(row.asset_identifier)
            run.cancel()
            row.run_identifier, row.adopted_at = run.id, EPOCH
        await make_batch(rows, try_number=2).run(PARAMETERS)
        return rows

    rows = run_on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 40}
    assert len(datazone.starts) == 40
    assert busiest_second([start.at for start in datazone.starts]) <= RATE


def test_run_of_another_user_that_is_canceled_is_not_started_again_in_the_first_try():
    """There is no previous try whose kill could have canceled it."""
    conflict = client_error("ConflictException", 409)
    datazone = BatchDataZone(lasts=100, refusals={"asset1": [conflict]})

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(2)
        run = datazone.begin("asset1")
        asyncio.get_running_loop().call_later(20, run.cancel)
        await make_batch(rows).run(PARAMETERS)
        return rows

    assert [row.status for row in run_on(datazone, main)] == ["SUCCEEDED", "CANCELED"]
    assert [start.asset for start in datazone.starts if start.run] == ["asset0"]


def test_run_canceled_during_the_batch_is_not_started_again():
    datazone = BatchDataZone(lasts=100)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(2)
        asyncio.get_running_loop().call_later(20, lambda: datazone.runs_of("asset1")[0].cancel())
        await make_batch(rows).run(PARAMETERS)
        return rows

    assert [row.status for row in run_on(datazone, main)] == ["SUCCEEDED", "CANCELED"]
    assert len(datazone.starts) == 2


# ---------------------------------------------------------- runs of other tasks


def test_second_batch_with_the_same_assets_starts_new_runs():
    datazone = BatchDataZone(lasts=5)

    async def main(airflow: Airflow) -> None:
        await make_batch(assets(6), identity="the first task").run(PARAMETERS)
        rows = assets(6)
        # As after a retry or a clear, the batch does not know which runs were started before.
        await make_batch(rows, identity="the second task", saved_at=0.0).run(PARAMETERS)
        assert len(datazone.runs) == 12
        assert {row.run_identifier for row in rows} == {run.id for run in datazone.runs[6:]}

    run_on(datazone, main)


def test_active_run_of_another_task_is_adopted():
    datazone = BatchDataZone(lasts=60)

    async def main(airflow: Airflow) -> None:
        other_runs = [datazone.begin(f"asset{n}") for n in range(6)]
        rows = assets(6)
        await make_batch(rows, saved_at=0.0).run(PARAMETERS)
        assert [row.run_identifier for row in rows] == [run.id for run in other_runs]

    run_on(datazone, main)
    assert datazone.starts == []


def test_ended_run_that_is_still_listed_is_adopted_only_once():
    """List may report the runs that the kill of the previous try canceled as active."""
    datazone = BatchDataZone(lasts=60, list_staleness=40.0)

    async def main(airflow: Airflow) -> list[AssetRow]:
        others = [datazone.begin(f"asset{n}") for n in range(3)]
        await asyncio.sleep(10)
        for run in others:
            run.cancel()
        rows = assets(3)
        began = EPOCH + now()
        await make_batch(rows, try_number=2, try_began_at=began, saved_at=0.0).run(PARAMETERS)
        return rows

    rows = run_on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 3}
    assert [row.submission for row in rows] == [1, 1, 1]
    assert datazone.count()["list_asset_page"] == 6


def test_retry_finds_the_run_that_replaced_one_of_another_task():
    """Each try sends the tokens of its submissions in order, so no try may leave one out."""
    datazone = BatchDataZone(lasts=60)

    async def main(airflow: Airflow) -> list[AssetRow]:
        other = datazone.begin("asset0", ends=1000.0)
        for try_number, seconds in [(2, 60), (3, None)]:
            rows, began = assets(1), EPOCH + now()
            batch = make_batch(rows, try_number=try_number, try_began_at=began, saved_at=0.0)
            work = asyncio.ensure_future(batch.run(PARAMETERS))
            await asyncio.sleep(5)
            other.cancel()
            # The operating system kills the second try, and its run ends.
            await asyncio.wait({work}, timeout=seconds)
            work.cancel()
            await asyncio.wait({work})
            await asyncio.sleep(60)
            airflow.new_process()
        return rows

    assert statuses(run_on(datazone, main)) == {"SUCCEEDED": 1}
    assert [run.end_status for run in datazone.runs] == ["CANCELED", "SUCCEEDED"]


@pytest.mark.parametrize("after", ["a checkpoint", "a lookup of credentials"])
def test_run_canceled_by_a_user_is_not_started_again(after: str):
    datazone = BatchDataZone(lasts=600)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(2)
        batch = make_batch(rows)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(300)
        if after == "a checkpoint":
            await batch.drain()
            work.cancel()
            await asyncio.wait({work})
            rows = unpack(pack(rows))
            work = asyncio.ensure_future(make_batch(rows, saved_at=EPOCH + now()).run(PARAMETERS))
        else:
            datazone.rejected.add("credentials1")
        await asyncio.sleep(60)
        datazone.runs_of("asset1")[0].cancel()
        await work
        return rows

    assert [row.status for row in run_on(datazone, main)] == ["SUCCEEDED", "CANCELED"]
    assert len(datazone.starts) == 2


def test_triggerer_that_takes_over_does_not_repeat_a_failed_run():
    datazone = BatchDataZone(lasts=30, endings={"asset1": ["FAILED", "SUCCEEDED"]})

    async def main(airflow: Airflow) -> list[AssetRow]:
        given = pack(assets(3))
        first = asyncio.ensure_future(make_batch(unpack(given)).run(PARAMETERS))
        await asyncio.sleep(100)
        assert first.done()
        # The triggerer stops before it sends the event.
        airflow.new_process()
        rows = unpack(given)
        await make_batch(rows).run(PARAMETERS)
        return rows

    assert [row.status for row in run_on(datazone, main)] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert len(datazone.runs) == 3


@pytest.mark.parametrize("may_list", [True, False])
def test_retry_without_saved_rows_repeats_failed_runs_only(may_list: bool):
    access_denied = [] if may_list else [client_error("AccessDeniedException", 403)] * 100
    datazone = BatchDataZone(
        lasts=30, endings={"asset1": ["FAILED", "FAILED", "SUCCEEDED"]}, list_refusals=access_denied
    )

    async def main(airflow: Airflow) -> list[list[str | None]]:
        tries = []
        for try_number in (1, 2, 3):
            airflow.new_process()
            rows = assets(3)
            began = EPOCH + now()
            saved_at = began if try_number == 1 else 0.0
            await make_batch(rows, try_number=try_number, try_began_at=began, saved_at=saved_at).run(
                PARAMETERS
            )
            tries.append([row.status for row in rows])
            await asyncio.sleep(1)
        return tries

    assert run_on(datazone, main) == [
        ["SUCCEEDED", "FAILED", "SUCCEEDED"],
        ["SUCCEEDED", "FAILED", "SUCCEEDED"],
        ["SUCCEEDED", "SUCCEEDED", "SUCCEEDED"],
    ]
    assert Counter(run.asset for run in datazone.runs) == {"asset0": 1, "asset1": 3, "asset2": 1}
