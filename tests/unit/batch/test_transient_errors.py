"""A batch waits transient errors out, and starts no run twice."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from airflow_provider_datazone.batch import starts
from airflow_provider_datazone.batch.assets import AssetRow
from tests.unit.polling.test_credentials import SameFingerprint
from tests.unit.simulated_batch import (
    EPOCH,
    PARAMETERS,
    RATE,
    REFUSALS,
    Airflow,
    AssetRun,
    BatchDataZone,
    assets,
    bring_to_an_end,
    busiest_second,
    make,
    on,
    statuses,
)
from tests.unit.simulation import client_error

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
        await make(rows, saved_at=EPOCH - 3600).run(PARAMETERS)
        assert [row.run_identifier for row in rows[:3]] == [run.id for run in runs]
        return rows

    assert statuses(on(datazone, main)) == {"SUCCEEDED": 5}
    assert len(datazone.runs) == 5


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "conflict"])
def test_batch_goes_on_where_runs_may_not_be_listed(resumed: bool):
    forbidden = [client_error("AccessDeniedException", 403) for _ in range(100)]
    conflict = [] if resumed else [REFUSALS["conflict without a run"]] * 50
    datazone = BatchDataZone(lasts=20, list_refusals=forbidden, refusals={"asset1": conflict})
    rows = bring_to_an_end(datazone, assets(5), saved_at=EPOCH - 3600 if resumed else EPOCH)
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
        await make(rows, max_concurrent_runs=100).run(PARAMETERS)
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
        await make(rows, saved_at=EPOCH - 3600).run(PARAMETERS)
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


# ------------------------------------------------------------- rates and threads


def test_throttling_of_an_hour_fails_no_asset():
    busy = [client_error("ThrottlingException", 429)] * 120
    datazone = BatchDataZone(refusals={"asset0": list(busy)})
    rows = bring_to_an_end(datazone, assets(1))
    assert statuses(rows) == {"SUCCEEDED": 1}
    assert datazone.starts[-1].at > starts.START_TIMEOUT


# ----------------------------------------------------------- pollers, credentials


def test_request_that_is_always_rejected_fails_its_own_asset_alone_and_costs_few_look_ups():
    rejected = [client_error("InvalidSignatureException", 403)] * 1000
    datazone = BatchDataZone(lasts=20, refusals={"asset3": rejected})

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(30)
        await make(rows).run(PARAMETERS)
        assert airflow.look_ups <= 5
        return rows

    rows = on(datazone, main, SameFingerprint)
    assert statuses(rows) == {"SUCCEEDED": 29, None: 1}
    assert "InvalidSignatureException" in str(rows[3].error)


# ------------------------------------------------------- what belongs to whom


def test_conflict_is_looked_up_until_a_late_list_shows_the_run():
    conflict: list[Exception] = [client_error("ConflictException", 409)] * 50
    datazone = BatchDataZone(lasts=60, refusals={"asset0": conflict}, listed_after=5.0)

    async def main(airflow: Airflow) -> None:
        theirs = datazone.begin("asset0")
        rows = assets(1)
        await make(rows).run(PARAMETERS)
        assert rows[0].run_identifier == theirs.id

    on(datazone, main)
