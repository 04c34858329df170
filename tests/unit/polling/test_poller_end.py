"""When a poller ends, and how its waits end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_datazone.polling.errors import CredentialsRejectedError, PollerEndedError
from airflow_provider_datazone.polling.poller import RunPoller
from airflow_provider_datazone.polling.rate import Rates, RequestRate
from airflow_provider_datazone.polling.wait import LONGEST_VERIFY_INTERVAL
from tests.unit.simulated_batch import (
    LOG,
    RATE,
    Airflow,
    BatchDataZone,
    run_on,
    wait_for,
)
from tests.unit.simulation import SimulatedDataZone, Source, client_error, now


def poller_of(datazone: SimulatedDataZone) -> tuple[RunPoller, Source]:
    source = Source(datazone)
    rate = RequestRate(RATE)
    return RunPoller(source, Rates(rate, rate, rate, rate, rate), lambda: None), source


async def wait_on(poller: RunPoller, run: str) -> Any:
    return await poller.wait(run, run_type=None, poll_interval=5.0, timeout=None, log=LOG)


def test_wait_on_an_ended_poller_raises():
    datazone = BatchDataZone()
    datazone.get_error = client_error("ExpiredTokenException", 403)

    async def main(airflow: Airflow) -> None:
        run = datazone.begin("asset")
        poller, _ = poller_of(datazone)
        with pytest.raises(CredentialsRejectedError):
            await wait_on(poller, run.id)
        datazone.get_error = None
        with pytest.raises(CredentialsRejectedError):
            await asyncio.wait_for(wait_on(poller, run.id), 3600)
        idle, source = poller_of(datazone)
        await wait_on(idle, run.id)
        assert source.closed == 1
        with pytest.raises(PollerEndedError):
            await asyncio.wait_for(wait_on(idle, run.id), 3600)

    run_on(datazone, main)


def test_stale_list_is_detected_after_a_long_time_of_polling_with_get():
    """One wait polls with Get for two hours. Then twenty others join it, and the poller uses List."""

    class StaleList(BatchDataZone):
        async def list_page(self, status: str, next_token: str | None) -> Any:
            await self._answer("list", status)
            listed = [run for run in self.runs if status == "IN_PROGRESS"]
            return [run.at(min(now(), 7000.0)) for run in listed], None

    datazone = StaleList()

    async def main(airflow: Airflow) -> float:
        long = datazone.begin("long", begins=0.0, ends=9000.0)
        first = asyncio.ensure_future(wait_for(long.id, poll_interval=30.0))
        await asyncio.sleep(7200)
        runs = [datazone.begin(f"other{n}", begins=0.0, ends=20_000.0) for n in range(20)]
        others = [asyncio.ensure_future(wait_for(run.id, poll_interval=30.0)) for run in runs]
        await first
        ended = now()
        await asyncio.gather(*others)
        return ended

    assert run_on(datazone, main) <= 9000 + 1.5 * LONGEST_VERIFY_INTERVAL + 60
