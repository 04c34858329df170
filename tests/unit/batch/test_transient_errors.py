"""A batch retries transient errors and starts no run twice."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from airflow_provider_datazone.batch import requests
from airflow_provider_datazone.batch.assets import AssetRow, pack, unpack
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
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
    busiest_second,
    make_batch,
    run_batch,
    run_on,
    statuses,
)
from tests.unit.simulation import client_error, now

# ------------------------------------------------------------- transient errors

TRANSIENT_ERRORS = {
    "throttling": client_error("ThrottlingException", 429),
    "service's fault": client_error("InternalServerException", 500),
    "gateway": client_error("", 503),
    "lost connection": ConnectionClosedError(endpoint_url="https://datazone"),
}


@pytest.mark.parametrize("error", TRANSIENT_ERRORS.values(), ids=TRANSIENT_ERRORS)
def test_transient_errors_are_retried_with_the_same_token(error: Exception, caplog: pytest.LogCaptureFixture):
    datazone = BatchDataZone(refusals={f"asset{n}": [error] * 4 for n in range(20)})
    rows = run_batch(datazone, assets(20))
    assert statuses(rows) == {"SUCCEEDED": 20}
    tokens = {(start.asset, start.token) for start in datazone.starts}
    assert len(tokens) == 20
    assert len(datazone.starts) == 5 * 20
    duration = max(at for at, _, _ in datazone.requests)
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert 1 <= len(warnings) <= duration / 30 + 1, "each transient error is logged at most every 30 seconds"


def test_lost_response_does_not_start_a_second_run():
    datazone = BatchDataZone(lost={f"asset{n}": 2 for n in range(10)}, lasts=20)
    rows = run_batch(datazone, assets(10))
    assert statuses(rows) == {"SUCCEEDED": 10}
    assert len(datazone.runs) == 10


def test_retries_during_an_outage_stay_within_the_rate():
    outage = [client_error("InternalServerException", 500) for _ in range(1000)]
    datazone = BatchDataZone(refusals={f"asset{n}": outage for n in range(40)})
    rows = run_batch(datazone, assets(40), max_concurrent_runs=20)
    assert statuses(rows) == {"SUCCEEDED": 40}
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert busiest_second(sent) <= RATE
    # By then, each start is retried once a minute.
    later = [at for at in sent if 600 <= at < 1200]
    assert len(later) <= 20 * 600 / 60 * 1.2


def test_batch_fails_if_datazone_responds_to_no_request():
    """An endpoint that cannot be reached would fail each asset in turn, each after an hour."""
    outage = [TRANSIENT_ERRORS["lost connection"] for _ in range(10_000)]
    datazone = BatchDataZone(refusals={f"asset{n}": outage for n in range(200)})
    with pytest.raises(ConnectionClosedError):
        run_batch(datazone, assets(200), max_concurrent_runs=20)
    assert max(at for at, _, _ in datazone.requests) < requests.REQUEST_TIMEOUT + 2 * requests.LONGEST_PAUSE


def test_asset_that_fails_for_an_hour_fails_alone_although_nothing_else_was_sent():
    endless = [TRANSIENT_ERRORS["service's fault"] for _ in range(10_000)]
    datazone = BatchDataZone(refusals={"asset0": endless})
    rows = run_batch(datazone, assets(5), max_concurrent_runs=1)
    assert [row.status for row in rows] == [None, *["SUCCEEDED"] * 4]
    assert "60 minutes" in str(rows[0].error)


def test_hour_in_which_an_asset_fails_continues_after_a_checkpoint():
    """A deferred batch begins a new process every ten minutes."""
    endless = [TRANSIENT_ERRORS["service's fault"] for _ in range(10_000)]
    datazone = BatchDataZone(refusals={"asset0": endless})

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(1)
        while not rows[0].has_ended:
            assert now() < 2 * requests.REQUEST_TIMEOUT
            batch = make_batch(rows)
            work = asyncio.ensure_future(batch.run(PARAMETERS))
            await asyncio.wait({work}, timeout=600)
            await batch.drain()
            await asyncio.wait({work})
            airflow.new_process()
            rows = unpack(pack(rows))
        return rows

    (row,) = run_on(datazone, main)
    assert "60 minutes" in str(row.error)


@pytest.mark.parametrize("error", TRANSIENT_ERRORS.values(), ids=TRANSIENT_ERRORS)
def test_search_for_a_run_continues_after_a_transient_error(error: Exception):
    datazone = BatchDataZone(lasts=20, list_refusals=[error] * 3)

    async def main(airflow: Airflow) -> list[AssetRow]:
        runs = [datazone.begin(f"asset{n}") for n in range(3)]
        rows = assets(5)
        await make_batch(rows, saved_at=EPOCH - 3600).run(PARAMETERS)
        assert [row.run_identifier for row in rows[:3]] == [run.id for run in runs]
        return rows

    assert statuses(run_on(datazone, main)) == {"SUCCEEDED": 5}
    assert len(datazone.runs) == 5


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "conflict"])
def test_batch_continues_if_list_is_denied(resumed: bool):
    access_denied = [client_error("AccessDeniedException", 403) for _ in range(100)]
    conflict = [] if resumed else [REFUSALS["conflict without a run"]] * 50
    datazone = BatchDataZone(lasts=20, list_refusals=access_denied, refusals={"asset1": conflict})
    rows = run_batch(datazone, assets(5), saved_at=EPOCH - 3600 if resumed else EPOCH)
    assert statuses(rows) == ({"SUCCEEDED": 5} if resumed else {"SUCCEEDED": 4, None: 1})
    if not resumed:
        assert "ConflictException" in str(rows[1].error)


# ------------------------------------------------------------------ credentials


def test_batch_continues_with_new_credentials_and_starts_no_run_twice():
    datazone = BatchDataZone(lasts=10, latency=1.0)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(150)
        for at, old in ((4.0, "credentials1"), (9.0, "credentials2")):
            asyncio.get_running_loop().call_later(at, datazone.rejected.add, old)
        await make_batch(rows, max_concurrent_runs=100).run(PARAMETERS)
        assert airflow.lookups == 3
        return rows

    rows = run_on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 150}
    assert Counter(run.asset for run in datazone.runs if isinstance(run, AssetRun)) == Counter(
        row.asset_identifier for row in rows
    )


def test_search_for_a_run_is_repeated_after_rejected_credentials():
    datazone = BatchDataZone(lasts=60)

    async def main(airflow: Airflow) -> list[AssetRow]:
        runs = [datazone.begin(f"asset{n}") for n in range(5)]
        rows = assets(5)
        datazone.list_refusals = [client_error("ExpiredTokenException", 403)]
        await make_batch(rows, saved_at=EPOCH - 3600).run(PARAMETERS)
        assert [row.run_identifier for row in rows] == [run.id for run in runs]
        return rows

    assert statuses(run_on(datazone, main)) == {"SUCCEEDED": 5}
    assert datazone.starts == []


def test_batch_fails_if_new_credentials_are_rejected_too():
    datazone = BatchDataZone()
    datazone.rejected = {f"credentials{n}" for n in range(100)}
    with pytest.raises(ClientError, match="ExpiredTokenException"):
        run_batch(datazone, assets(50))


def test_internal_error_ends_the_batch_and_fails_no_asset():
    datazone = BatchDataZone(refusals={"asset3": [ZeroDivisionError("a mistake")]})
    rows = assets(50)
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        run_batch(datazone, rows)
    assert all(row.error is None for row in rows)
    assert len(datazone.starts) < 10


# ------------------------------------------------------------------- throttling


def test_throttling_beyond_the_start_timeout_fails_no_asset():
    throttling = [client_error("ThrottlingException", 429)] * 120
    datazone = BatchDataZone(refusals={"asset0": list(throttling)})
    rows = run_batch(datazone, assets(1))
    assert statuses(rows) == {"SUCCEEDED": 1}
    assert datazone.starts[-1].at > requests.REQUEST_TIMEOUT


# ---------------------------------------------------------- rejected signatures


def test_start_with_a_rejected_signature_fails_only_its_asset_after_few_lookups():
    rejected = [client_error("InvalidSignatureException", 403)] * 1000
    datazone = BatchDataZone(lasts=20, refusals={"asset3": rejected})

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(30)
        await make_batch(rows).run(PARAMETERS)
        assert airflow.lookups <= 5
        return rows

    rows = run_on(datazone, main, SameFingerprint)
    assert statuses(rows) == {"SUCCEEDED": 29, None: 1}
    assert "InvalidSignatureException" in str(rows[3].error)


@pytest.mark.parametrize("number", [1, 30])
def test_get_with_a_rejected_signature_fails_only_its_asset_after_few_lookups(number: int):
    class Rejecting(BatchDataZone):
        async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
            run = await super().get(run_identifier, run_type)
            if run_identifier == "run0":
                raise client_error("InvalidSignatureException", 403)
            return run

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(number)
        await make_batch(rows).run(PARAMETERS)
        assert airflow.lookups <= 5
        return rows

    rows = run_on(Rejecting(lasts=20), main, SameFingerprint)
    assert [row.status for row in rows] == [None] + ["SUCCEEDED"] * (number - 1)
    assert str(rows[0].error) == str(client_error("InvalidSignatureException", 403))


# -------------------------------------------------------------------- conflicts


def test_search_after_a_conflict_is_repeated_until_list_shows_the_run():
    conflict: list[Exception] = [client_error("ConflictException", 409)] * 50
    datazone = BatchDataZone(lasts=60, refusals={"asset0": conflict}, listed_after=5.0)

    async def main(airflow: Airflow) -> None:
        other_run = datazone.begin("asset0")
        rows = assets(1)
        await make_batch(rows).run(PARAMETERS)
        assert rows[0].run_identifier == other_run.id

    run_on(datazone, main)
