"""How pollers handle rejected credentials."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.polling import registry, source
from airflow_provider_datazone.polling.jobs import cancel_run
from airflow_provider_datazone.polling.source import OpenedHook
from tests.unit.simulated_batch import (
    LOG,
    PARAMETERS,
    Airflow,
    BatchDataZone,
    assets,
    make_batch,
    run_on,
    statuses,
    wait_for,
)


class SameFingerprint(Airflow):
    """Assumes a role again: the connection has the same fingerprint, but the session is new."""

    async def look_up(self, parameters: Any) -> Any:
        self.lookups += 1
        return registry.Connection(OpenedHook(None, "the same", ("the account",)), parameters)  # type: ignore[arg-type]


def test_rejected_credentials_are_not_reused_while_another_wait_keeps_their_poller():
    datazone = BatchDataZone(lasts=30)

    async def main(airflow: Airflow) -> list[AssetRow]:
        long = datazone.begin("long", ends=3000.0)
        other = asyncio.ensure_future(wait_for(long.id, poll_interval=600.0))
        await asyncio.sleep(5)
        datazone.rejected.add("credentials1")
        rows = assets(5)
        await make_batch(rows).run(PARAMETERS)
        doomed = datazone.begin("doomed", ends=math.inf)
        run = await cancel_run(PARAMETERS, doomed.id, domain_identifier="dzd_1", log=LOG)
        assert run.status == "CANCELED"
        assert airflow.lookups <= 4
        assert (await other).status == "SUCCEEDED"
        return rows

    assert statuses(run_on(datazone, main, SameFingerprint)) == {"SUCCEEDED": 5}


def test_error_of_rejected_credentials_has_no_context_loop():
    """Airflow 2.11 masks secrets in all contexts and causes of an error. A loop of them never ends."""
    datazone = BatchDataZone()
    datazone.rejected.update(f"credentials{number}" for number in range(1, 9))

    async def main(airflow: Airflow) -> BaseException:
        with pytest.raises(ClientError) as rejected:
            await make_batch(assets(2)).run(PARAMETERS)
        return rejected.value

    visited: list[BaseException] = []
    waiting = [run_on(datazone, main)]
    while waiting:
        error = waiting.pop()
        assert not any(error is other for other in visited)
        visited.append(error)
        waiting += [other for other in {error.__context__, error.__cause__} if other is not None]


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_wait_continues_through_several_rotations_of_credentials(rotations: int):
    datazone = BatchDataZone(lasts=5 * 3600)

    async def main(airflow: Airflow) -> list[AssetRow]:
        loop = asyncio.get_running_loop()
        for number in range(1, rotations + 1):
            loop.call_later(3600 * number, datazone.rejected.add, f"credentials{number}")
        rows = assets(1)
        await make_batch(rows).run(PARAMETERS)
        assert airflow.lookups == rotations + 1
        return rows

    assert statuses(run_on(datazone, main)) == {"SUCCEEDED": 1}


def test_lookup_of_credentials_that_hangs_delays_no_other_client():
    """STS does not respond to one connection. Its hook stands for a real one, which would need an STS that hangs."""
    hangs, is_hanging = threading.Event(), threading.Event()

    class Hook:
        def __init__(self, waits_for: threading.Event | None) -> None:
            self.waits_for = waits_for
            self.conn = SimpleNamespace()

        def open_session(self) -> None:
            if self.waits_for is not None:
                is_hanging.set()
                assert self.waits_for.wait(30)

    def build(waits_for: threading.Event | None) -> None:
        source._build_client(Hook(waits_for))  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(build, hangs)
        assert is_hanging.wait(30)
        assert gc.isenabled()
        pool.submit(build, None).result(30)
        assert not hanging.done()
        hangs.set()
        hanging.result(30)
