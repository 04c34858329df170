"""All polls, starts and cancels of a process stay within the limits of the account."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.polling import registry
from airflow_provider_datazone.polling.jobs import cancel_run
from airflow_provider_datazone.polling.source import OpenedHook
from tests.unit.simulated_batch import (
    EPOCH,
    LOG,
    PARAMETERS,
    RATE,
    Airflow,
    BatchDataZone,
    SlowStarts,
    assets,
    busiest_second,
    make_batch,
    run_on,
    wait_for,
)
from tests.unit.simulation import SimulatedRun, now


def test_slow_starts_do_not_delay_the_polls_of_a_wait():
    datazone = SlowStarts(lasts=600)
    datazone.start_seconds = 3.0
    mine = SimulatedRun("mine", ends=60.0)
    datazone.runs.append(mine)
    datazone.by_id["mine"], datazone.order["mine"] = mine, -1

    async def main(airflow: Airflow) -> None:
        batch = make_batch(assets(400), max_concurrent_runs=400, poll_interval=30.0)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await wait_for("mine")
        assert 60 <= now() <= 60 + 2 * 2
        await batch.drain()
        work.cancel()
        await asyncio.wait({work})

    run_on(datazone, main)
    polls = [at for at, operation, about in datazone.requests if about == "mine" or operation == "list"]
    assert len(polls) >= 15


class TwoConnections(Airflow):
    """Each lookup finds a connection that was edited, or that another task uses with different settings."""

    rate_limit_keys = (("connection a",), ("connection a", "account 1"), ("connection b", "account 1"))

    async def look_up(self, parameters: Any) -> Any:
        self.lookups += 1
        keys = self.rate_limit_keys[min(self.lookups, len(self.rate_limit_keys)) - 1]
        return registry.Connection(OpenedHook(None, f"credentials{self.lookups}", keys), parameters)  # type: ignore[arg-type]


def test_connections_of_one_account_share_the_start_rate():
    datazone = BatchDataZone(lasts=1)

    async def main(airflow: Airflow) -> None:
        parameters_of = [
            PARAMETERS._replace(botocore_config={"user_agent_extra": f"task {n}"}) for n in range(3)
        ]
        batches = [
            make_batch([AssetRow(f"asset{b}-{n}", None, "project") for n in range(60)]) for b in range(3)
        ]
        await asyncio.gather(
            *(batch.run(parameters) for batch, parameters in zip(batches, parameters_of, strict=True))
        )
        assert airflow.lookups == 3

    run_on(datazone, main, TwoConnections)
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert busiest_second(sent) <= RATE


def test_cancels_in_all_domains_share_the_rate():
    datazone = BatchDataZone(lasts=math.inf)

    async def main(airflow: Airflow) -> None:
        airflow.domains = {"dzd_1", "dzd_2"}
        runs = [datazone.begin(f"asset{n}") for n in range(120)]
        await asyncio.gather(
            *(
                cancel_run(PARAMETERS, run.id, domain_identifier=f"dzd_{1 + number % 2}", log=LOG)
                for number, run in enumerate(runs)
            )
        )
        assert {run.status(now()) for run in runs} == {"CANCELED"}

    run_on(datazone, main)
    canceled = [at for at, operation, _ in datazone.requests if operation == "cancel"]
    assert busiest_second(canceled) <= 21
    assert canceled[-1] <= 120 / 20 * 1.1


def test_each_list_page_of_a_search_for_runs_counts_toward_the_rate():
    datazone = BatchDataZone(lasts=1, asset_page_size=2)

    async def main(airflow: Airflow) -> None:
        for _ in range(20):
            for n in range(5):
                datazone.begin(f"asset{n}", ends=0.0, end_status="FAILED")
        await make_batch(assets(5), saved_at=EPOCH - 3600).run(PARAMETERS)

    run_on(datazone, main)
    pages = [at for at, operation, _ in datazone.requests if operation == "list_asset_page"]
    assert len(pages) == 5 * 10
    assert busiest_second(pages) <= RATE
