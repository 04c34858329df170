"""What the waits and watches of an event loop share, in simulated time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from airflow_provider_datazone.polling import registry as registry_module
from airflow_provider_datazone.polling.poller import RunPoller
from airflow_provider_datazone.polling.registry import Backoff, Connection, Registry
from airflow_provider_datazone.polling.source import HookParameters, OpenedHook
from tests.unit.simulation import SimulatedDataZone, SimulatedRun, Source, equal_rates, simulate


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
    registry = Registry()
    same, other = [connection("expired"), connection("expired")], connection("valid")
    registry.connections = {str(number): (30.0, each) for number, each in enumerate([*same, other])}
    registry.reject(same[0])
    assert [each.is_rejected for each in same] == [True, True]
    assert not other.is_rejected


def connection(fingerprint: str) -> Connection:
    # No request is sent, so there is no hook.
    opened = OpenedHook(cast("Any", None), fingerprint, rate_keys=("the account",))
    return Connection(opened, HookParameters(fingerprint, None, None, None))


def test_lookups_that_have_expired_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    """Their hooks hold credentials."""

    async def look_up(parameters: HookParameters) -> Connection:
        return connection(str(parameters.aws_conn_id))

    monkeypatch.setattr(registry_module, "_look_up", look_up)

    async def main() -> None:
        registry = Registry()
        for number in range(5):
            await registry.get_connection(HookParameters(f"connection{number}", None, None, None))
            await asyncio.sleep(20)
        assert len(registry.connections) == 2

    simulate(main())


def test_waits_of_a_replaced_poller_are_counted(monkeypatch: pytest.MonkeyPatch):
    reported: list[int] = []
    monkeypatch.setattr(registry_module, "report_waits", reported.append)
    monkeypatch.setattr(
        registry_module, "HookSource", lambda hook, domain: Source(SimulatedDataZone([SimulatedRun("run")]))
    )

    async def main() -> None:
        registry = Registry()
        poller = registry.get_poller(connection("credentials"), "domain")
        wait = poller.wait("run", run_type=None, poll_interval=10, timeout=None, log=logging.getLogger())
        registry.replace(poller)
        other = registry.get_poller(connection("credentials"), "domain")
        assert other is not poller
        with other.keep_open():
            registry.report_waits()
            assert reported.pop() == 1
            wait.cancel()
            await asyncio.sleep(0)
            assert reported.pop() == 0
        await asyncio.sleep(0)
        assert not registry._open_pollers

    simulate(main())


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
