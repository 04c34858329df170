"""The engine of batches, on a clock that only the test moves and a DataZone that starts runs."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from hypothesis import given, strategies as st

from airflow_provider_datazone import batch as engine
from airflow_provider_datazone.batch import (
    HAND_OVER,
    AssetRow,
    Counts,
    pack,
    parse_assets,
    require_few_failures,
    summarise,
    unpack,
)
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    NotConfiguredError,
    QuotaUsedUpError,
    RequestRefusedError,
)
from airflow_provider_datazone.metadata_generation import TERMINAL_STATUSES, MetadataGenerationRun
from tests.unit.simulated_batch import (
    EPOCH,
    LOG,
    PARAMETERS,
    RATE,
    TYPES,
    Airflow,
    AssetRun,
    BatchDataZone,
    SimulatedTime,
    assets,
    busiest_second,
    make,
    on,
    settle,
    stats,
)
from tests.unit.simulation import client_error, now
from tests.wrong import fuzz

QUOTA = "business name generation has reached monthly quota"


def bring_to_an_end(
    datazone: BatchDataZone, rows: list[AssetRow], *, noted_at: float = EPOCH, **changes: Any
) -> list[AssetRow]:
    async def main(airflow: Airflow) -> None:
        await make(rows, **changes).run(PARAMETERS, noted_at=noted_at)

    on(datazone, main)
    return rows


def statuses(rows: list[AssetRow]) -> Counter[str | None]:
    return Counter(row.status for row in rows)


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
        await asyncio.gather(
            make(assets(100)).run(PARAMETERS, noted_at=EPOCH), make(other).run(PARAMETERS, noted_at=EPOCH)
        )

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


# --------------------------------------------------------------------- the quota


@pytest.mark.parametrize("ending", ["FAILED", "PARTIALLY_SUCCEEDED"])
def test_no_run_is_started_once_one_has_ended_for_the_quota(ending: str, caplog: pytest.LogCaptureFixture):
    datazone = BatchDataZone(lasts=10, endings={"asset5": [ending]}, reasons={"asset5": QUOTA})
    rows = bring_to_an_end(datazone, assets(100), max_concurrent_runs=20)
    known_at = datazone.said_ended["run5"]
    assert all(start.at <= known_at + 0.05 for start in datazone.starts)
    # What was active was waited for.
    started = [row for row in rows if row.run_identifier]
    assert 20 <= len(started) < 40
    assert all(row.is_done for row in started)
    assert statuses(rows) == {"SUCCEEDED": len(started) - 1, ending: 1, None: 100 - len(started)}
    summary = summarise(rows, 0, 1.0, True)
    assert summary["not_started"] == 100 - len(started)
    with pytest.raises(
        QuotaUsedUpError, match=f"quota is used up: {summary['not_started']} were not started"
    ):
        judge(rows, 0, quota_used_up=True)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len([warning for warning in warnings if "quota" in warning]) == 1


def test_quota_stays_used_up_for_whom_the_batch_is_handed_to():
    datazone = BatchDataZone(lasts=10)
    rows = assets(30)
    bring_to_an_end(datazone, rows, quota_used_up=True)
    assert datazone.starts == []


def test_quota_that_was_used_up_in_an_earlier_try_is_asked_of_datazone_anew():
    rows = assets(30)
    rows[0].run_identifier, rows[0].status = "run", "PARTIALLY_SUCCEEDED"
    rows[0].type_stats = [stats("SUCCEEDED")[0], stats("FAILED", QUOTA)[1]]
    bring_to_an_end(BatchDataZone(), rows)
    assert statuses(rows) == {"SUCCEEDED": 29, "PARTIALLY_SUCCEEDED": 1}
    rows[1].status = "FAILED"
    with pytest.raises(BatchFailedError):
        judge(rows, 0)


def test_run_that_waits_for_its_next_try_is_not_started_once_the_quota_is_used_up():
    trouble: list[Exception] = [client_error("InternalServerException", 500) for _ in range(5)]
    datazone = BatchDataZone(
        lasts=5, reasons={"asset0": QUOTA}, endings={"asset0": ["FAILED"]}, refusals={"asset1": trouble}
    )
    rows = bring_to_an_end(datazone, assets(2))
    assert [row.status for row in rows] == ["FAILED", None]
    assert datazone.runs_of("asset1") == []


def test_asset_that_is_being_looked_for_is_not_started_once_the_quota_is_used_up():
    """Resumed long after: what may have been started is asked for, one after the other."""
    datazone = BatchDataZone(lasts=2, reasons={"asset0": QUOTA}, endings={"asset0": ["FAILED"]})
    rows = bring_to_an_end(
        datazone, assets(300), noted_at=EPOCH - 3600, max_concurrent_runs=300, poll_interval=3
    )
    known_at = datazone.said_ended["run0"]
    assert rows[0].status == "FAILED"
    assert all(start.at <= known_at + 0.05 for start in datazone.starts)


# ------------------------------------------------------- what goes wrong for one

REFUSALS = {
    "unknown asset": client_error("ResourceNotFoundException", 404),
    "unsupported asset type": client_error("ValidationException", 400),
    "too many": client_error("ServiceQuotaExceededException", 402),
    "conflict without a run": client_error("ConflictException", 409),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_start_that_is_refused_fails_its_own_asset_alone(refusal: ClientError):
    datazone = BatchDataZone(refusals={"asset3": [refusal] * 50})
    rows = bring_to_an_end(datazone, assets(20))
    assert statuses(rows) == {"SUCCEEDED": 19, None: 1}
    assert rows[3].is_done
    assert refusal.response["Error"]["Code"] in str(rows[3].error)
    assert rows[3].to_result() == {
        "asset": "asset3", "run": None, "status": None, "typeStats": [], "error": rows[3].error,
    }  # fmt: skip
    assert Counts.of(rows).failed == 1
    asked = [start.at for start in datazone.starts if start.asset == "asset3"]
    if refusal is not REFUSALS["conflict without a run"]:
        assert len(asked) == 1
    else:
        assert len(asked) < 10
        assert engine.CONFLICT_GRACE <= asked[-1] - asked[0] <= 2 * engine.CONFLICT_GRACE + 2


def test_run_that_get_does_not_know_yet_is_waited_for():
    datazone = BatchDataZone(lasts=3, unknown_for={"asset1": 20.0})
    rows = bring_to_an_end(datazone, assets(2))
    assert statuses(rows) == {"SUCCEEDED": 2}
    assert len(datazone.starts) == 2


def test_run_that_get_never_knows_fails_its_own_asset_alone():
    datazone = BatchDataZone(lasts=3, unknown_for={"asset1": math.inf})
    rows = bring_to_an_end(datazone, assets(5))
    assert statuses(rows) == {"SUCCEEDED": 4, None: 1}
    assert "ResourceNotFoundException" in str(rows[1].error)
    given_up = max(at for at, what, about in datazone.requests if about == "run1")
    assert 30 <= given_up < 30 + 2 * 5 + 1


def test_conflict_that_has_passed_is_a_start_like_any():
    datazone = BatchDataZone(refusals={"asset1": [REFUSALS["conflict without a run"]]})
    assert statuses(bring_to_an_end(datazone, assets(3))) == {"SUCCEEDED": 3}
    assert len({start.token for start in datazone.starts}) == 3


def test_run_that_may_not_be_read_fails_its_own_asset_alone():
    class Forbidden(BatchDataZone):
        async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
            run = await super().get(run_identifier, run_type)
            if run_identifier == "run1":
                raise client_error("AccessDeniedException", 403)
            return run

    rows = bring_to_an_end(Forbidden(lasts=3), assets(5))
    assert statuses(rows) == {"SUCCEEDED": 4, None: 1}
    assert "AccessDeniedException" in str(rows[1].error)


@pytest.mark.parametrize("age", [0.0, 3600.0], ids=["new", "from before the batch"])
def test_conflict_goes_on_with_the_run_that_is_at_work(age: float):
    datazone = BatchDataZone(refusals={"asset1": [REFUSALS["conflict without a run"]]})

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(3)
        created = datetime.fromtimestamp(EPOCH - age, timezone.utc)
        run = datazone.begin("asset1", ends=60.0)
        run.members["created_at"] = created
        await make(rows).run(PARAMETERS, noted_at=EPOCH)
        assert rows[1].run_identifier == run.id
        return rows

    rows = on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 3}
    assert len(datazone.runs_of("asset1")) == 1


def test_every_way_to_end_is_counted_as_what_it_is():
    endings = {"asset1": ["FAILED"], "asset2": ["CANCELED"], "asset3": ["PARTIALLY_SUCCEEDED"]}
    datazone = BatchDataZone(
        endings=endings,
        reasons={"asset1": "no names today"},
        refusals={"asset4": [REFUSALS["unsupported asset type"]]},
    )
    rows = bring_to_an_end(datazone, assets(6))
    assert Counts.of(rows) == Counts(
        total=6, succeeded=2, partially_succeeded=1, failed=2, canceled=1, active=0, not_started=0
    )
    summary = summarise(rows, 3, 12.34, False)
    failures = summary.pop("failures")
    assert summary == {
        "total": 6, "succeeded": 2, "partially_succeeded": 1, "failed": 2, "canceled": 1, "not_started": 0,
        "duplicates": 3, "duration_seconds": 12.3,
    }  # fmt: skip
    assert [failure["asset"] for failure in failures] == ["asset1", "asset2", "asset3", "asset4"]
    assert failures[0] == {
        "asset": "asset1", "run": "run1", "status": "FAILED", "typeStats": stats("FAILED", "no names today"),
    }  # fmt: skip
    assert [f["asset"] for f in summarise(rows, 0, 1.0, True)["failures"]] == ["asset1", "asset2", "asset4"]


def test_summary_shows_the_first_hundred_failures():
    rows = assets(300)
    for row in rows:
        row.error = "no"
    shown = summarise(rows, 0, 1.0, True)["failures"]
    assert [failure["asset"] for failure in shown] == [row.asset_identifier for row in rows[:100]]


# ------------------------------------------------------------------ what passes

TROUBLE = {
    "throttling": client_error("ThrottlingException", 429),
    "service's fault": client_error("InternalServerException", 500),
    "gateway": client_error("", 503),
    "lost connection": ConnectionClosedError(endpoint_url="https://datazone"),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_trouble_that_passes_is_waited_out_with_the_same_token(
    trouble: Exception, caplog: pytest.LogCaptureFixture
):
    datazone = BatchDataZone(refusals={f"asset{n}": [trouble] * 4 for n in range(20)})
    rows = bring_to_an_end(datazone, assets(20))
    assert statuses(rows) == {"SUCCEEDED": 20}
    tokens = {(start.asset, start.token) for start in datazone.starts}
    assert len(tokens) == 20
    assert len(datazone.starts) == 5 * 20
    duration = max(at for at, _, _ in datazone.requests)
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert 1 <= len(warnings) <= duration / 30 + 1, "one line of the same trouble in a while"


def test_lost_answer_is_not_a_second_run():
    datazone = BatchDataZone(lost={f"asset{n}": 2 for n in range(10)}, lasts=20)
    rows = bring_to_an_end(datazone, assets(10))
    assert statuses(rows) == {"SUCCEEDED": 10}
    assert len(datazone.runs) == 10


def test_outage_is_sat_out_without_a_storm_of_starts():
    down = [client_error("InternalServerException", 500) for _ in range(1000)]
    datazone = BatchDataZone(refusals={f"asset{n}": down for n in range(40)})
    rows = bring_to_an_end(datazone, assets(40), max_concurrent_runs=20)
    assert statuses(rows) == {"SUCCEEDED": 40}
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert busiest_second(sent) <= RATE
    # Each that waits asks once a minute by then.
    later = [at for at in sent if 600 <= at < 1200]
    assert len(later) <= 20 * 600 / 60 * 1.2


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_trouble_that_passes_does_not_end_the_search_for_a_run(trouble: Exception):
    datazone = BatchDataZone(lasts=20, list_refusals=[trouble] * 3)

    async def main(airflow: Airflow) -> list[AssetRow]:
        runs = [datazone.begin(f"asset{n}") for n in range(3)]
        rows = assets(5)
        await make(rows).run(PARAMETERS, noted_at=EPOCH - 3600)
        assert [row.run_identifier for row in rows[:3]] == [run.id for run in runs]
        return rows

    assert statuses(on(datazone, main)) == {"SUCCEEDED": 5}
    assert len(datazone.runs) == 5


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "conflict"])
def test_batch_goes_on_where_runs_may_not_be_listed(resumed: bool):
    forbidden = [client_error("AccessDeniedException", 403) for _ in range(100)]
    conflict = [] if resumed else [REFUSALS["conflict without a run"]] * 50
    datazone = BatchDataZone(lasts=20, list_refusals=forbidden, refusals={"asset1": conflict})
    rows = bring_to_an_end(datazone, assets(5), noted_at=EPOCH - 3600 if resumed else EPOCH)
    assert statuses(rows) == ({"SUCCEEDED": 5} if resumed else {"SUCCEEDED": 4, None: 1})
    if not resumed:
        assert "ConflictException" in str(rows[1].error)


# -------------------------------------------------------------- the credentials


def test_batch_goes_on_with_new_credentials_and_starts_nothing_twice():
    datazone = BatchDataZone(lasts=10, latency=1.0)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(150)
        for at, old in ((4.0, "credentials1"), (9.0, "credentials2")):
            asyncio.get_running_loop().call_later(at, datazone.rejected.add, old)
        await make(rows, max_concurrent_runs=100).run(PARAMETERS, noted_at=EPOCH)
        assert airflow.look_ups == 3
        return rows

    rows = on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 150}
    assert Counter(run.asset for run in datazone.runs if isinstance(run, AssetRun)) == Counter(
        row.asset_identifier for row in rows
    )


def test_asset_whose_search_met_rejected_credentials_is_looked_for_again():
    datazone = BatchDataZone(lasts=60)

    async def main(airflow: Airflow) -> list[AssetRow]:
        runs = [datazone.begin(f"asset{n}") for n in range(5)]
        rows = assets(5)
        datazone.list_refusals = [client_error("ExpiredTokenException", 403)]
        await make(rows).run(PARAMETERS, noted_at=EPOCH - 3600)
        assert [row.run_identifier for row in rows] == [run.id for run in runs]
        return rows

    assert statuses(on(datazone, main)) == {"SUCCEEDED": 5}
    assert datazone.starts == []


def test_credentials_that_stay_rejected_end_the_batch():
    datazone = BatchDataZone()
    datazone.rejected = {f"credentials{n}" for n in range(100)}
    with pytest.raises(ClientError, match="ExpiredTokenException"):
        bring_to_an_end(datazone, assets(50))


def test_fault_of_our_own_ends_the_batch_and_is_no_asset_s():
    datazone = BatchDataZone(refusals={"asset3": [ZeroDivisionError("a mistake")]})
    rows = assets(50)
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        bring_to_an_end(datazone, rows)
    assert all(row.error is None for row in rows)
    assert len(datazone.starts) < 10


# ------------------------------------------------------------------ put down


@pytest.mark.parametrize("slow", [0.5, 12.0])
def test_batch_that_is_put_down_knows_of_every_run_that_it_has_started(slow: float):
    datazone = BatchDataZone(lasts=100, latency=slow)

    async def main(airflow: Airflow) -> None:
        rows = assets(300)
        batch = make(rows, max_concurrent_runs=100)
        work = asyncio.ensure_future(batch.run(PARAMETERS, noted_at=EPOCH))
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
        work = asyncio.ensure_future(batch.run(PARAMETERS, noted_at=EPOCH))
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
        work = asyncio.ensure_future(batch.run(PARAMETERS, noted_at=EPOCH))
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
        work = asyncio.ensure_future(batch.run(PARAMETERS, noted_at=EPOCH))
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
        mine = make([AssetRow("mine", None, "project")]).run(PARAMETERS, noted_at=EPOCH)
        other = asyncio.ensure_future(make(assets(30)).run(PARAMETERS, noted_at=EPOCH))
        work = asyncio.ensure_future(mine)
        await asyncio.sleep(5)
        work.cancel()
        await other

    on(datazone, main)
    assert len([start for start in datazone.starts if start.asset == "mine"]) >= 2
    assert datazone.runs_of("mine") == []


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
        airflow: Airflow, given: str, noted_at: float, end: str, seconds: float, *, new_try: bool
    ) -> tuple[str, float]:
        """Be one process; return what the next one is given."""
        airflow.new_process()
        rows = unpack(given)
        if new_try:
            tries.append(SimulatedTime.time())
            for row in rows:
                row.adopted_at = SimulatedTime.time() if row.is_active else None
        noted = given, noted_at

        def note() -> None:
            nonlocal noted
            noted = pack(rows), SimulatedTime.time()

        batch = make(
            rows,
            max_concurrent_runs=max_concurrent_runs,
            try_number=len(tries),
            try_began_at=tries[-1],
            on_progress=note if end in ("killed after a note", "ended by a user", "lives") else None,
        )
        datazone.process = Process(
            {row.asset_identifier: row for row in unpack(given)}, SimulatedTime.time() - noted_at
        )
        task = asyncio.ensure_future(batch.run(PARAMETERS, noted_at=noted_at))
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
        given, noted_at = pack(assets(number)), EPOCH
        last = "the beginning"
        for end, seconds, gap in segments:
            # A batch that is drained is handed on in the same try.
            new_try = last != "drained"
            given, noted_at = await work(airflow, given, noted_at, end, seconds, new_try=new_try)
            await asyncio.sleep(gap)
            last = end
        for _ in range(3):
            given, noted_at = await work(airflow, given, noted_at, "lives", 0, new_try=last != "drained")
            last = "the end"
            rows = unpack(given)
            # A retry works on what failed alone.
            for row in rows:
                if row.status != "SUCCEEDED":
                    row.submit_anew()
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
        if there and forgets and start.process.away <= HAND_OVER and known not in {run.id for run in there}:
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
        await make(rows).run(PARAMETERS, noted_at=EPOCH)
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
    bring_to_an_end(datazone, assets(50), noted_at=EPOCH - HAND_OVER + 1)
    assert "list_asset_page" not in datazone.count()


def test_only_what_may_have_been_reached_meanwhile_is_asked_for():
    datazone = BatchDataZone()
    bring_to_an_end(datazone, assets(2000), noted_at=EPOCH - 100, max_concurrent_runs=20)
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
        await make(rows).run(PARAMETERS, noted_at=EPOCH - 3600)
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
        await make(rows).run(PARAMETERS, noted_at=EPOCH)
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
        await make(rows).run(PARAMETERS, noted_at=EPOCH)
        return rows

    assert [row.status for row in on(datazone, main)] == ["SUCCEEDED", "CANCELED"]
    assert len(datazone.starts) == 2


# ------------------------------------------------------------------- progress

LINE = re.compile(
    r"(?P<done>[\d,]+)/(?P<total>[\d,]+) done · (?P<succeeded>[\d,]+) succeeded · (?P<failed>[\d,]+) failed"
    r" · (?P<active>[\d,]+) active( · (?P<rate>\d+\.\d) starts/s)?( · about (?P<left>\d+ (s|min)) left)?"
)


@dataclass
class Line:
    at: float
    text: str
    done: int
    total: int
    left: str | None
    rate: float

    @property
    def seconds_left(self) -> float:
        number, unit = str(self.left).split()
        return float(number) * (60 if unit == "min" else 1)


class Lines(logging.Handler):
    """The lines of progress, each with the time at which it was written; all others have no business here."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno > logging.INFO:
            return
        found = LINE.fullmatch(text)
        assert found is not None, text
        done, total = (int(found[name].replace(",", "")) for name in ("done", "total"))
        self.lines.append(Line(now(), text, done, total, found["left"], float(found["rate"] or 0)))


@pytest.fixture
def progress() -> Iterator[Lines]:
    lines = Lines()
    level = LOG.level
    LOG.addHandler(lines)
    LOG.setLevel(logging.INFO)
    yield lines
    LOG.removeHandler(lines)
    LOG.setLevel(level)


def check(lines: list[Line]) -> None:
    """Each line is one of its half minute, or of a new tenth; and the last says that all is done."""
    assert lines[-1].done == lines[-1].total
    told: set[int] = set()
    for before, line in itertools.pairwise(lines[:-1]):
        assert line.at - before.at >= 10, line
    for before, line in itertools.pairwise([Line(0.0, "", 0, 1, None, 0.0), *lines]):
        tenth = line.done * 10 // line.total
        is_first_of_tenth = tenth > 0 and tenth not in told
        assert is_first_of_tenth or line.at % 30 == pytest.approx(0, abs=0.1), line
        assert line.at > before.at
        told.add(tenth)
    assert 10 in told


def test_progress_is_told_at_each_tenth_and_each_half_minute(progress: Lines):
    datazone = BatchDataZone(lasts=30, endings={"asset7": ["FAILED"]})
    bring_to_an_end(datazone, assets(1500), max_concurrent_runs=300, poll_interval=10)
    check(progress.lines)
    assert {line.done * 10 // line.total for line in progress.lines} >= set(range(1, 11))
    duration = progress.lines[-1].at
    assert len(progress.lines) <= 10 + duration / 30
    for line in progress.lines:
        counted = sum(at <= line.at for at in datazone.said_ended.values())
        assert line.done == pytest.approx(counted, abs=50)
    # The rate is that of the time since the last line.
    lines = [Line(0.0, "", 0, 1, None, 0.0), *progress.lines]
    started = [(line.at - before.at) * line.rate for before, line in itertools.pairwise(lines)]
    assert started[0] == pytest.approx(30 * RATE, rel=0.05)
    assert sum(started) == pytest.approx(1500, rel=0.02)
    assert progress.lines[-1].text.startswith("1,500/1,500 done · 1,499 succeeded · 1 failed · 0 active")
    assert progress.lines[-1].left is None


@pytest.mark.parametrize("lasts", [5.0, 30.0])
def test_time_that_is_left_is_about_right(progress: Lines, lasts: float):
    datazone = BatchDataZone(lasts=lasts)
    bring_to_an_end(datazone, assets(1500), max_concurrent_runs=600, poll_interval=lasts)
    duration = progress.lines[-1].at
    told = [line for line in progress.lines if line.left is not None]
    assert len(told) >= 9
    for line in told:
        assert line.seconds_left == pytest.approx(duration - line.at, rel=0.3, abs=35), line


def test_long_silence_is_a_line_each_half_minute(progress: Lines):
    bring_to_an_end(BatchDataZone(lasts=300), assets(20), poll_interval=30)
    check(progress.lines)
    waiting = [line for line in progress.lines if line.done == 0]
    assert [line.at for line in waiting] == pytest.approx(
        [30.0 * n for n in range(1, len(waiting) + 1)], abs=0.1
    )
    assert len(waiting) >= 9


@pytest.mark.parametrize("number", [1, 3, 9, 11])
def test_few_assets_are_as_few_lines(progress: Lines, number: int):
    bring_to_an_end(BatchDataZone(lasts=2), assets(number))
    assert progress.lines[-1].done == number
    assert 1 <= len(progress.lines) <= number
    assert len({line.text for line in progress.lines}) == len(progress.lines)


def test_batch_of_a_moment_has_a_first_and_a_last_line_without_a_rate(progress: Lines):
    bring_to_an_end(BatchDataZone(lasts=0.1, latency=0.01), assets(10), poll_interval=0.1)
    assert progress.lines[-1].at < 10
    assert [line.done for line in progress.lines] == [1, 10]
    assert "0.0 starts/s" not in " ".join(line.text for line in progress.lines)


def test_rate_is_left_out_where_nothing_was_started(progress: Lines):
    bring_to_an_end(BatchDataZone(lasts=100), assets(20), poll_interval=30)
    assert "starts/s" in progress.lines[0].text
    assert [line.text for line in progress.lines[1:] if "starts/s" in line.text] == []


def test_failures_after_the_last_tenth_are_in_the_last_line_of_a_batch_that_stops(progress: Lines):
    datazone = BatchDataZone(lasts=5, reasons={"asset2": QUOTA}, endings={"asset2": ["FAILED"]})
    rows = bring_to_an_end(datazone, assets(10), max_concurrent_runs=3)
    assert progress.lines[-1].done == Counts.of(rows).done < 10


# ------------------------------------------------------------------ first failures


def warnings_of(datazone: BatchDataZone, rows: list[AssetRow], caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.WARNING, logger=LOG.name):
        bring_to_an_end(datazone, rows)
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_first_failure_of_each_kind_is_logged_with_asset_and_run(caplog: pytest.LogCaptureFixture):
    failing = [f"asset{n}" for n in range(20)]
    # What differs from asset to asset is no kind of its own.
    reasons = {asset: f"Table {asset} has {n + 7} columns" for n, asset in enumerate(failing)}
    reasons["asset13"] = "Names cannot be generated"
    datazone = BatchDataZone(reasons=reasons, endings={asset: ["FAILED"] for asset in failing})
    first, second = warnings_of(datazone, assets(30), caplog)
    run = datazone.runs_of("asset0")[0].id
    assert first.startswith(
        f"First failure of its kind (asset 'asset0', run '{run}'): BUSINESS_DESCRIPTIONS FAILED: Table asset0 has"
    )
    run = datazone.runs_of("asset13")[0].id
    assert f"(asset 'asset13', run '{run}')" in second
    assert "Names cannot be generated" in second


def test_first_refusal_of_each_code_is_logged_as_it_happens(caplog: pytest.LogCaptureFixture):
    datazone = BatchDataZone(lasts=600)
    datazone.refusals = {f"asset{n}": [client_error("ValidationException", 400)] for n in range(5)}
    datazone.refusals["asset3"] = [client_error("ServiceQuotaExceededException", 402)]
    logged_at: list[float] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: logged_at.append(now())  # type: ignore[method-assign]
    LOG.addHandler(handler)
    try:
        messages = warnings_of(datazone, assets(10), caplog)
    finally:
        LOG.removeHandler(handler)
    assert len(messages) == 2
    assert messages[0].startswith("First failure of its kind (asset 'asset0', no run was started): ")
    assert "ValidationException" in messages[0]
    assert "ServiceQuotaExceededException" in messages[1]
    assert max(logged_at) < 60 < min(datazone.said_ended.values())


def test_failures_of_many_kinds_do_not_fill_the_log(caplog: pytest.LogCaptureFixture):
    names = [f"asset{n}" for n in range(60)]
    letters = [chr(ord("a") + n % 26) * (1 + n // 26) for n in range(60)]
    reasons = dict(zip(names, letters, strict=True))
    datazone = BatchDataZone(reasons=reasons, endings={name: ["FAILED"] for name in names})
    datazone.refusals = {"asset59": [client_error("ServiceQuotaExceededException", 402)]}
    messages = warnings_of(datazone, assets(60), caplog)
    assert 5 <= len(messages) <= 22
    # That there are more is said, and a code is never one of those that are left out.
    assert sum("Runs fail for other reasons, too" in message for message in messages) == 1
    assert any("ServiceQuotaExceededException" in message for message in messages)


def test_partial_success_is_logged_as_a_failure_of_its_types(caplog: pytest.LogCaptureFixture):
    rows = [AssetRow("asset0", None, "project", 1, "run", None)]
    rows[0].status = "PARTIALLY_SUCCEEDED"
    rows[0].type_stats = [{"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no"}]
    with caplog.at_level(logging.WARNING, logger=LOG.name):
        make(rows)._first_failures.note_end(rows[0])
    assert caplog.messages == [
        "First failure of its kind (asset 'asset0', run 'run'): BUSINESS_NAMES FAILED: no"
    ]


def test_rate_of_starts_is_never_more_than_there_were(progress: Lines):
    """Lines may follow each other closely: what is told is no accident of the moment."""
    datazone = BatchDataZone(lasts=29.5)
    bring_to_an_end(datazone, assets(400), max_concurrent_runs=60, poll_interval=10)
    assert max(line.rate for line in progress.lines) <= 1.1 * RATE


def test_what_others_had_done_before_is_no_line_of_this_process(progress: Lines):
    rows = assets(1000)
    for row in rows[:550]:
        row.run_identifier, row.status = "run", "SUCCEEDED"
    bring_to_an_end(BatchDataZone(lasts=5), rows, poll_interval=1)
    assert progress.lines[0].done >= 600
    assert progress.lines[-1].done == 1000
    assert len(progress.lines) <= 5 + progress.lines[-1].at / 30
    # What is left is told by the pace of this process.
    told = [line for line in progress.lines if line.left is not None]
    assert len(told) >= 3
    for line in told:
        assert line.seconds_left == pytest.approx(progress.lines[-1].at - line.at, rel=0.15, abs=1), line


def test_batch_that_stops_for_the_quota_does_not_tell_of_assets_as_done_that_are_not(progress: Lines):
    trouble: list[Exception] = [client_error("InternalServerException", 500) for _ in range(5)]
    datazone = BatchDataZone(lasts=5, reasons={"asset0": QUOTA}, endings={"asset0": ["FAILED"]})
    datazone.refusals = {f"asset{n}": list(trouble) for n in range(1, 10)}
    bring_to_an_end(datazone, assets(10))
    assert [line.done for line in progress.lines] == [1]


def test_rows_are_noted_every_half_minute():
    noted: list[tuple[float, Counts]] = []
    rows = assets(200)
    bring_to_an_end(
        BatchDataZone(lasts=100), rows, on_progress=lambda: noted.append((now(), Counts.of(rows)))
    )
    assert [at for at, _ in noted] == pytest.approx([30.0 * n for n in range(1, len(noted) + 1)], abs=0.1)
    assert len(noted) >= 10
    assert noted[0][1].active == 50


def test_note_that_cannot_be_taken_neither_ends_the_batch_nor_the_notes(caplog: pytest.LogCaptureFixture):
    noted: list[float] = []

    def note() -> None:
        noted.append(now())
        raise OSError("the database is away")

    rows = bring_to_an_end(BatchDataZone(lasts=100), assets(10), on_progress=note)
    assert statuses(rows) == {"SUCCEEDED": 10}
    assert len(noted) >= 3
    assert "the database is away" in caplog.text


# ------------------------------------------------------------------- the rows

texts = st.text(max_size=20)
rows_drawn = st.builds(
    AssetRow,
    asset_identifier=texts,
    asset_revision=st.none() | texts,
    owning_project_identifier=texts,
    submission=st.integers(1, 100),
    run_identifier=st.none() | texts,
    status=st.none() | st.sampled_from(sorted(TERMINAL_STATUSES)),
    type_stats=st.lists(
        st.fixed_dictionaries({"type": texts, "status": texts}, optional={"errorMessage": texts})
    ),
    error=st.none() | texts,
)


@fuzz(100)
@given(st.lists(rows_drawn, max_size=30))
def test_rows_that_were_packed_are_the_same(rows: list[AssetRow]):
    packed = pack(rows)
    assert packed.isascii()
    assert unpack(packed) == rows


def test_ten_thousand_rows_are_small_enough_for_a_column():
    """With ids that do not repeat; 5% failed for a reason."""
    random = Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"

    def identifier() -> str:
        return "".join(random.choices(letters, k=14))

    rows = [
        AssetRow(identifier(), None, "project0123456", run_identifier=identifier(), status="SUCCEEDED",
                 type_stats=stats("SUCCEEDED"))
        for _ in range(10_000)
    ]  # fmt: skip
    for row in rows[::20]:
        row.status, row.type_stats = "FAILED", stats("FAILED", "The model could not be reached. Try again.")
    packed = pack(rows)
    print(len(packed))
    assert len(packed) < 400_000
    assert unpack(packed) == rows


# ------------------------------------------------------------------ the assets


def no_project() -> str:
    raise AssertionError("nobody needs it")


def test_duplicates_count_once():
    given: list[Any] = [
        "a",
        {"asset_identifier": "a"},
        {"asset_identifier": "a", "owning_project_identifier": "mine"},
        {"asset_identifier": "a", "asset_revision": ""},
        {"asset_identifier": "a", "asset_revision": "2"},
        {"asset_identifier": "a", "owning_project_identifier": "other"},
        "b",
        "a",
    ]
    rows, duplicates = parse_assets(given, lambda: "mine")
    assert [row.key for row in rows] == [
        ("a", None, "mine"), ("a", "2", "mine"), ("a", None, "other"), ("b", None, "mine"),
    ]  # fmt: skip
    assert duplicates == 4


def test_project_of_the_connection_is_asked_for_once_and_only_where_it_is_needed():
    asked = []

    def project() -> str:
        asked.append("project")
        return "mine"

    rows, _ = parse_assets(iter(f"asset{n}" for n in range(100)), project)
    assert len(rows) == 100
    assert asked == ["project"]
    parse_assets([{"asset_identifier": "a", "owning_project_identifier": "x"}], no_project)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("['a', 'b']", "a str: a template that did not render"),
        (None, "NoneType"),
        (5, "int"),
        ({"asset_identifier": "a"}, "dict"),
        (["a", None], "Item 2"),
        (["a", ""], "Item 2"),
        ([["a"]], "Item 1"),
        ([{"asset_revision": "1"}], "Item 1.*'asset_identifier'"),
        ([{"asset_identifier": ""}], "Item 1"),
        ([{"asset_identifier": "a", "revision": "1"}], "Item 1.*revision"),
        ([{"asset_identifier": ["a"]}], "Item 1"),
    ],
)
def test_what_is_no_list_of_assets_is_named(given: Any, told: str):
    with pytest.raises(NotConfiguredError, match=told):
        parse_assets(given, lambda: "mine")


# ------------------------------------------------------------------ the verdict


def judge(
    rows: list[AssetRow],
    max_failures: float,
    allow_partial_success: bool = True,
    quota_used_up: bool = False,
    refusals: dict[str, str] | None = None,
) -> None:
    require_few_failures(
        rows,
        max_failures,
        allow_partial_success=allow_partial_success,
        quota_used_up=quota_used_up,
        refusals=refusals or {},
    )


def ended(succeeded: int, failed: int) -> list[AssetRow]:
    rows = assets(succeeded + failed)
    for row in rows:
        row.run_identifier, row.status = "run", "SUCCEEDED"
    for row in rows[succeeded:]:
        row.status, row.type_stats = "FAILED", stats("FAILED", "no names today")
    return rows


@pytest.mark.parametrize(
    ("failed", "max_failures", "passes"),
    [
        (0, 0, True),
        (1, 0, False),
        (1, 1, True),
        (2, 1, False),
        (10, 0.1, True),
        (11, 0.1, False),
        (29, 0.29, True),  # 0.29 * 100 is less than 29
        (30, 0.29, False),
        (57, 0.57, True),
        (100, 1.0, True),
        (1, 0.0, False),
        (0, 0.0, True),
    ],
)
def test_as_many_may_fail_as_was_said(failed: int, max_failures: float, passes: bool):
    rows = ended(100 - failed, failed)
    if passes:
        judge(rows, max_failures)
        return
    with pytest.raises(BatchFailedError, match=rf"^{failed} of 100 .*asset{100 - failed}.*no names today"):
        judge(rows, max_failures)


def test_nothing_is_a_success():
    judge([], 0)
    judge([], 0.5)


def test_error_names_what_failed_and_not_what_went_well():
    rows = ended(1, 0)
    rows[0].status = "PARTIALLY_SUCCEEDED"
    rows[0].type_stats = [stats("SUCCEEDED")[0], stats("FAILED", "no names today")[1]]
    judge(rows, 0)
    with pytest.raises(BatchFailedError, match="BUSINESS_NAMES FAILED: no names today") as failure:
        judge(rows, 0, allow_partial_success=False)
    assert "BUSINESS_DESCRIPTIONS" not in str(failure.value)


# ------------------------------------------------------------------- what a failure says


def test_failed_batch_names_a_failure_and_not_an_asset_that_was_left_out_for_it():
    left_out = AssetRow("left_out", None, "p")
    refused = AssetRow("refused", None, "p", error="no.", is_refused=True)
    with pytest.raises(RequestRefusedError) as failed:
        judge([left_out, refused], 0, refusals={"p": "no."})
    first = "the first failure (asset 'refused', no run was started): no. A retry would meet the same."
    assert str(failed.value).endswith(first)
    with pytest.raises(RequestRefusedError) as failed:
        judge([left_out], 0, refusals={"p": "no."})
    assert str(failed.value).endswith("the first failure: no. A retry would meet the same.")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (AssetRow("a", None, "p"), "the first failure (asset 'a', no run was started): not started"),
        (
            AssetRow("a", None, "p", error="refused (asset 'a', domain 'd')"),
            "the first failure (no run was started): refused (asset 'a', domain 'd')",
        ),
        (
            AssetRow("a", None, "p", error="not found (run 'r', domain 'd')"),
            "the first failure (asset 'a'): not found (run 'r', domain 'd')",
        ),
        (
            AssetRow("a", None, "p", run_identifier="r", status="CANCELED"),
            "the first failure (asset 'a', run 'r'): ended CANCELED; DataZone gave no reason",
        ),
    ],
)
def test_failed_batch_names_asset_and_run_of_the_first_failure_once(row: AssetRow, told: str):
    with pytest.raises(BatchFailedError) as failed:
        judge([row], 0)
    assert str(failed.value).endswith(told)
    assert "None" not in str(failed.value)
