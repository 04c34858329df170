"""The trigger, over HTTP through real boto3, as a triggerer runs it."""

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
from airflow_provider_datazone.polling.source import HookParameters
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from tests.integration.triggers.waits import events, only_event, store_and_load, trigger

if TYPE_CHECKING:
    from tests.conftest import Catalog


pytestmark = pytest.mark.usefixtures("unhurried")


def test_event_is_the_run_as_it_ended(catalog: Catalog):
    run = catalog.start_run(statuses={"BUSINESS_NAMES": "FAILED"}, error_messages={"BUSINESS_NAMES": "no"})
    (event,) = events(trigger(catalog, run))
    assert event["status"] == "terminal"
    assert (event["run"]["id"], event["run"]["status"]) == (run, "PARTIALLY_SUCCEEDED")
    assert event["run"]["typeStats"] == [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
        {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no"},
    ]
    json.dumps(event)


def test_many_waits_share_a_look_up_a_client_and_a_list(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    look_ups = []
    get_connection = BaseHook.get_connection.__func__

    def counted(cls: type, conn_id: str) -> Any:
        look_ups.append(conn_id)
        return get_connection(cls, conn_id)

    monkeypatch.setattr(BaseHook, "get_connection", classmethod(counted))
    runs = [catalog.start_run(polls=0) for _ in range(60)]
    before = catalog.server.request_counts
    found = events(*(trigger(catalog, run) for run in runs))
    assert [event["run"]["id"] for event in found] == runs
    assert look_ups == ["datazone_default"]
    asked = catalog.server.request_counts - before
    assert asked == {"ListMetadataGenerationRuns": 2, "GetMetadataGenerationRun": 60}


def test_nothing_is_left_when_the_last_wait_has_ended(catalog: Catalog):
    def sockets() -> int:
        gc.collect()
        # The descriptor of the folder itself is gone by the time it is looked at.
        links = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
        return sum("/socket:" in link for link in links)

    def settled(found: Any, wanted: int) -> bool:
        """Threads and sockets end by themselves, soon; the server's own side of a socket does so too."""
        end = time.monotonic() + 20
        while found() > wanted and time.monotonic() < end:
            time.sleep(0.02)
        return found() <= wanted

    def poller_threads() -> int:
        return sum(thread.name.startswith("datazone-poller") for thread in threading.enumerate())

    runs = [catalog.start_run() for _ in range(20)]
    catalog.server.client().close()
    # What tests before this one have left in the process.
    known = set(registry._registries)
    before = sockets()
    events(*(trigger(catalog, run) for run in runs))
    assert settled(poller_threads, 0)
    assert settled(sockets, before)
    # asgiref keeps the last event loop of a process; of those before it, nothing is left.
    events(trigger(catalog, catalog.start_run()))
    gc.collect()
    (shared,) = (shared for loop, shared in registry._registries.items() if loop not in known)
    assert (shared.pollers, shared.lookups) == ({}, {})


def test_cancelled_wait_leaves_the_others_alone(catalog: Catalog):
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


def test_deadline_is_an_event_of_its_own_that_names_the_run(catalog: Catalog):
    run = catalog.start_run(in_progress_seconds=3600)
    began = time.time()
    (event,) = events(trigger(catalog, run, deadline=began + 0.5))
    assert event["status"] == "timeout"
    assert run in event["message"]
    assert catalog.domain_identifier in event["message"]
    assert time.time() >= began + 0.5


def test_deadline_that_has_passed_is_a_time_out_at_once(catalog: Catalog):
    (event,) = events(trigger(catalog, catalog.start_run(), poll_interval=3600, deadline=1.0))
    assert event["status"] == "timeout"


@pytest.mark.parametrize("trouble", ["ThrottlingException", "InternalServerException", "drop", "malformed"])
def test_passing_trouble_is_waited_out(catalog: Catalog, trouble: str):
    runs = [catalog.start_run() for _ in range(5)]
    catalog.server.fail("*", trouble, times=4)
    assert {e["run"]["status"] for e in events(*(trigger(catalog, run) for run in runs))} == {"SUCCEEDED"}


def test_refusal_is_told_with_the_service_s_message(catalog: Catalog):
    known = catalog.start_run()
    unknown, other = events(trigger(catalog, "unknownrun"), trigger(catalog, known))
    assert unknown["status"] == "error"
    assert unknown["permanent"] is True
    for part in ("Requested prediction cannot be found in domain", "unknownrun", catalog.domain_identifier):
        assert part in unknown["message"]
    assert other["run"]["status"] == "SUCCEEDED"


@pytest.mark.parametrize("broken", ["missing", "extra"])
def test_connection_that_cannot_be_used_is_told_as_such(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, broken: str
):
    if broken == "extra":
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps({"conn_type": "aws", "extra": "{no"}))
    (event,) = events(trigger(catalog, "run1", aws_conn_id="broken"))
    assert event["status"] == "error"
    assert "'broken'" in event["message"]


def test_credentials_that_were_rotated_are_looked_up_anew(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    runs = [catalog.start_run() for _ in range(10)]
    connection = json.loads(catalog.server.connection) | {"login": "old"}
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    catalog.server.fail("*", "ExpiredTokenException", times=1)
    look_ups = []
    look_up = registry._look_up

    async def rotated(parameters: Any) -> Any:
        look_ups.append(parameters)
        if len(look_ups) == 2:
            monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection | {"login": "new"}))
        return await look_up(parameters)

    monkeypatch.setattr(registry, "_look_up", rotated)
    found = events(*(trigger(catalog, run) for run in runs))
    assert {event["run"]["status"] for event in found} == {"SUCCEEDED"}
    assert len(look_ups) == 2, "once to begin with, once for all who were rejected"


def test_credentials_may_be_rotated_again_and_again(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    runs = [catalog.start_run() for _ in range(2)]
    for run in runs:
        catalog.server.set_run_status(run, "IN_PROGRESS")
    connection = json.loads(catalog.server.connection)
    requests = lambda: len(catalog.server.requests)  # noqa: E731

    async def rotate() -> None:
        for number in range(4):
            before = requests()
            while requests() < before + 6:
                await asyncio.sleep(0.01)
            old, new = (f"key{number}", f"key{number + 1}")
            monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection | {"login": new}))
            catalog.server.fail("*", "ExpiredTokenException", times=None, access_key_id=old)
        for run in runs:
            catalog.server.set_run_status(run, None)

    async def main() -> list[dict[str, Any]]:
        rotating = asyncio.create_task(rotate())
        waits = [only_event(trigger(catalog, run)) for run in runs]
        found = await asyncio.wait_for(asyncio.gather(*waits), timeout=60)
        rotating.cancel()
        return found

    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection | {"login": "key0"}))
    found = asyncio.run(main())
    assert [event.get("message") for event in found] == [None, None]
    assert {event["run"]["status"] for event in found} == {"SUCCEEDED"}


def test_credentials_that_stay_rejected_are_an_error_and_not_a_loop(catalog: Catalog):
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
def test_connections_that_differ_never_share_a_client(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
):
    # The look-up of the first is of no use to the second.
    monkeypatch.setattr(registry, "CONNECTION_LIFETIME", -1.0)
    connection = json.loads(catalog.server.connection)
    changed = connection | change | {"extra": connection["extra"] | change.get("extra", {})}

    async def main() -> int:
        shared = registry._Registry()
        parameters = HookParameters("datazone_default", None, None, None)
        pollers = set()
        for definition in (connection, connection, changed):
            monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(definition))
            found = await shared.get_connection(parameters)
            pollers.add(found.opened.fingerprint)
        return len(pollers)

    assert asyncio.run(main()) == 2


def test_trigger_survives_airflow_s_own_round_trip(airflow_database: None):
    made = DataZoneMetadataGenerationRunTrigger(
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
    loaded = store_and_load(made)
    assert loaded.serialize() == made.serialize()


def test_rate_that_is_no_rate_is_named(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_REQUESTS_PER_SECOND", "0")
    (event,) = events(trigger(catalog, "run1"))
    assert event["status"] == "error"
    assert "[datazone] max_requests_per_second" in event["message"]
