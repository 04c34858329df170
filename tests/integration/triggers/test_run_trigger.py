"""The trigger polls runs on the event loop of a triggerer, over HTTP through real boto3."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    BaseHook,
)

from airflow_provider_datazone.polling import registry
from airflow_provider_datazone.polling.source import HookParameters, HookSource, import_hook
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from tests.integration.triggers.waits import events, only_event, store_and_load, trigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Catalog


pytestmark = pytest.mark.usefixtures("unhurried")


def test_event_contains_the_ended_run(catalog: Catalog):
    run = catalog.start_run(statuses={"BUSINESS_NAMES": "FAILED"}, error_messages={"BUSINESS_NAMES": "no"})
    (event,) = events(trigger(catalog, run))
    assert event["status"] == "terminal"
    assert (event["run"]["id"], event["run"]["status"]) == (run, "PARTIALLY_SUCCEEDED")
    assert event["run"]["typeStats"] == [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
        {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no"},
    ]
    json.dumps(event)


def test_waits_share_a_connection_lookup_a_client_and_list_requests(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    lookups = []
    get_connection = BaseHook.get_connection.__func__

    def count_lookups(cls: type, conn_id: str) -> Any:
        lookups.append(conn_id)
        return get_connection(cls, conn_id)

    monkeypatch.setattr(BaseHook, "get_connection", classmethod(count_lookups))
    runs = [catalog.start_run(polls=0) for _ in range(60)]
    before = catalog.server.request_counts
    found = events(*(trigger(catalog, run) for run in runs))
    assert [event["run"]["id"] for event in found] == runs
    assert lookups == ["datazone_default"]
    asked = catalog.server.request_counts - before
    assert asked == {"ListMetadataGenerationRuns": 2, "GetMetadataGenerationRun": 60}


def test_threads_sockets_and_pollers_are_released_after_the_last_wait(catalog: Catalog):
    def sockets() -> int:
        gc.collect()
        # The descriptor of the directory itself is closed before it is resolved.
        links = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
        return sum("/socket:" in link for link in links)

    def settled(count: Callable[[], int], expected: int) -> bool:
        """Wait until threads have ended and both sides of each socket are closed."""
        end = time.monotonic() + 20
        while count() > expected and time.monotonic() < end:
            time.sleep(0.02)
        return count() <= expected

    def poller_threads() -> int:
        return sum(thread.name.startswith("datazone-poller") for thread in threading.enumerate())

    runs = [catalog.start_run() for _ in range(20)]
    catalog.server.client().close()
    # Registries that earlier tests created in this process.
    earlier_registries = set(registry._registries)
    before = sockets()
    events(*(trigger(catalog, run) for run in runs))
    assert settled(poller_threads, 0)
    assert settled(sockets, before)
    # asgiref keeps the last event loop of a process; earlier loops are released.
    events(trigger(catalog, catalog.start_run()))
    gc.collect()
    (shared,) = (shared for loop, shared in registry._registries.items() if loop not in earlier_registries)
    assert (shared.pollers, shared.lookups) == ({}, {})


def test_canceled_wait_does_not_affect_other_waits(catalog: Catalog):
    async def main() -> list[Any]:
        runs = [catalog.start_run(polls=0) for _ in range(10)]
        for run in runs:
            catalog.server.set_run_status(run, "IN_PROGRESS")
        tasks = [asyncio.ensure_future(only_event(trigger(catalog, run))) for run in runs]
        before = len(catalog.server.requests)
        while len(catalog.server.requests) < before + 5:
            await asyncio.sleep(0.01)
        for task in tasks[::2]:
            task.cancel()
        for run in runs:
            catalog.server.set_run_status(run, None)
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=60)

    found = asyncio.run(main())
    assert all(isinstance(event, asyncio.CancelledError) for event in found[::2])
    assert {event["run"]["status"] for event in found[1::2]} == {"SUCCEEDED"}


def test_deadline_yields_a_timeout_event_that_names_the_run(catalog: Catalog):
    run = catalog.start_run(in_progress_seconds=3600)
    began = time.time()
    (event,) = events(trigger(catalog, run, deadline=began + 0.5))
    assert event["status"] == "timeout"
    assert run in event["message"]
    assert catalog.domain_identifier in event["message"]
    assert time.time() >= began + 0.5


def test_past_deadline_yields_a_timeout_event_immediately(catalog: Catalog):
    (event,) = events(trigger(catalog, catalog.start_run(), poll_interval=3600, deadline=1.0))
    assert event["status"] == "timeout"


@pytest.mark.parametrize("failure", ["ThrottlingException", "InternalServerException", "drop", "malformed"])
def test_wait_continues_after_transient_errors(catalog: Catalog, failure: str):
    runs = [catalog.start_run() for _ in range(5)]
    catalog.server.fail("*", failure, times=4)
    assert {e["run"]["status"] for e in events(*(trigger(catalog, run) for run in runs))} == {"SUCCEEDED"}


def test_unknown_run_yields_an_error_event_with_the_service_message(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    # Seconds in which DataZone may not find a new run yet.
    monkeypatch.setattr("airflow_provider_datazone.polling.wait.NEW_RESOURCE_GRACE", 0.1)
    known = catalog.start_run()
    unknown, other = events(trigger(catalog, "unknownrun"), trigger(catalog, known))
    assert unknown["status"] == "error"
    assert unknown["permanent"] is True
    for part in ("Requested prediction cannot be found in domain", "unknownrun", catalog.domain_identifier):
        assert part in unknown["message"]
    assert other["run"]["status"] == "SUCCEEDED"


@pytest.mark.parametrize("broken", ["missing", "extra"])
def test_invalid_connection_yields_an_error_event_that_names_it(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, broken: str
):
    if broken == "extra":
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps({"conn_type": "aws", "extra": "{no"}))
    (event,) = events(trigger(catalog, "run1", aws_conn_id="broken"))
    assert event["status"] == "error"
    assert "'broken'" in event["message"]


def test_rotated_credentials_are_read_again(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    runs = [catalog.start_run() for _ in range(10)]
    connection = json.loads(catalog.server.connection) | {"login": "old"}
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    catalog.server.fail("*", "ExpiredTokenException", times=1)
    lookups = []
    original_lookup = registry._look_up

    async def rotated(parameters: Any) -> Any:
        lookups.append(parameters)
        if len(lookups) == 2:
            monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection | {"login": "new"}))
        return await original_lookup(parameters)

    monkeypatch.setattr(registry, "_look_up", rotated)
    found = events(*(trigger(catalog, run) for run in runs))
    assert {event["run"]["status"] for event in found} == {"SUCCEEDED"}
    assert len(lookups) == 2, "one lookup at first, and one for all rejected waits"


def test_rejected_credentials_yield_an_error_event_without_endless_retries(catalog: Catalog):
    catalog.server.fail("*", "UnrecognizedClientException", times=None)
    for event in events(*(trigger(catalog, "run1") for _ in range(5))):
        assert event["status"] == "error"
        assert event["permanent"] is False
        assert "UnrecognizedClientException" in event["message"]
    assert len(catalog.server.requests) < 30


@pytest.mark.parametrize(
    "change",
    [{"password": "another"}, {"login": "another"}, {"extra": {"role_arn": "arn:aws:iam::1:role/a"}}],
)
def test_different_connections_do_not_share_a_client(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
):
    # A lookup expires immediately and is not reused.
    monkeypatch.setattr(registry, "CONNECTION_LIFETIME", -1.0)
    connection = json.loads(catalog.server.connection)
    changed = connection | change | {"extra": connection["extra"] | change.get("extra", {})}

    async def main() -> int:
        shared = registry.Registry()
        parameters = HookParameters("datazone_default", None, None, None)
        pollers = set()
        for definition in (connection, connection, changed):
            monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(definition))
            found = await shared.get_connection(parameters)
            pollers.add(found.opened.fingerprint)
        return len(pollers)

    assert asyncio.run(main()) == 2


def test_trigger_is_unchanged_after_airflow_stores_and_loads_it(airflow_database: None):
    original = DataZoneMetadataGenerationRunTrigger(
        "run1",
        "dzd_1",
        run_type="BUSINESS_NAMES",
        poll_interval=7.5,
        deadline=1234567890.25,
        aws_conn_id=None,
        region_name="eu-west-1",
        verify=False,
        botocore_config={"retries": {"total_max_attempts": 1}},
        cancel_on_kill=True,
    )
    loaded = store_and_load(original)
    assert loaded.serialize() == original.serialize()


def test_invalid_rate_yields_an_error_event_that_names_the_option(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_REQUESTS_PER_SECOND", "0")
    (event,) = events(trigger(catalog, "run1"))
    assert event["status"] == "error"
    assert "[datazone] max_requests_per_second" in event["message"]


def test_garbage_collections_skip_what_was_imported_before_the_first_wait():
    gc.unfreeze()
    import_hook()
    frozen = gc.get_freeze_count()
    assert frozen > 50_000
    # Later objects may become garbage, for example the client of a poller that has ended.
    later = [[number] for number in range(1_000)]
    import_hook()
    assert gc.get_freeze_count() <= frozen
    assert later


def test_client_of_a_poller_does_not_keep_what_only_building_it_needs(catalog: Catalog):
    async def kept() -> set[str]:
        source = HookSource(import_hook()(aws_conn_id="datazone_default"), catalog.domain_identifier)
        await source.ready()
        names = {name for _, name, *_ in source._hook.conn._loader._cache}
        assert source._hook._session is None, "The session is still referenced."
        source.close()
        return names

    names = asyncio.run(kept())
    assert "partitions" in names
    assert "endpoints" not in names
