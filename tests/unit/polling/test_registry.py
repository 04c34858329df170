"""What the waits and watches of an event loop share, in simulated time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from airflow_provider_datazone.polling.poller import RunPoller
from airflow_provider_datazone.polling.registry import Backoff, Connection, Registry
from airflow_provider_datazone.polling.source import OpenedHook
from tests.unit.simulation import SimulatedDataZone, Source, equal_rates, simulate


def test_pause_of_watches_doubles_up_to_five_minutes():
    async def main() -> list[float]:
        backoff, pauses = Backoff(), []
        for _ in range(7):
            assert backoff.begin(10)
            pauses.append(backoff.pause)
            await asyncio.sleep(backoff.pause)
        return pauses

    assert simulate(main()) == [10, 20, 40, 80, 160, 300, 300]


def test_watches_that_fail_together_share_one_pause():
    async def main() -> None:
        backoff = Backoff()
        assert [backoff.begin(10) for _ in range(3)] == [True, False, False]
        assert backoff.pause == 10

    simulate(main())


def test_first_pause_is_short_again_after_watches_have_worked():
    async def main() -> None:
        backoff = Backoff()
        for _ in range(3):
            backoff.begin(10)
            await asyncio.sleep(backoff.pause)
        await asyncio.sleep(301)
        assert backoff.begin(10)
        assert backoff.pause == 10

    simulate(main())


def test_rejected_credentials_are_rejected_in_every_lookup_that_returned_them():
    def connection(fingerprint: str) -> Connection:
        # No request is sent, so there is no hook.
        return Connection(OpenedHook(cast("Any", None), fingerprint, rate_keys=()))

    registry = Registry()
    same, other = [connection("expired"), connection("expired")], connection("valid")
    registry.connections = {str(number): (30.0, each) for number, each in enumerate([*same, other])}
    registry.reject(same[0])
    assert [each.is_rejected for each in same] == [True, True]
    assert not other.is_rejected


def test_only_the_rejected_poller_is_replaced():
    async def main() -> None:
        registry = Registry()
        rates = equal_rates(10)
        rejected, other = (RunPoller(Source(SimulatedDataZone([])), rates, lambda: None) for _ in range(2))
        registry.pollers = {("credentials", "domain1"): rejected, ("credentials", "domain2"): other}
        with rejected.keep_open(), other.keep_open():
            registry.replace(rejected)
            assert list(registry.pollers.values()) == [other]
        await asyncio.sleep(0)

    simulate(main())
