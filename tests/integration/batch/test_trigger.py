"""The batch trigger, run the way a triggerer runs it."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_provider_datazone.batch.assets import unpack
from airflow_provider_datazone.triggers import datazone as triggers
from tests.conftest import LoopClock, once
from tests.integration.batch.tasks import Assets, batch_is_active, event_of, list_runs
from tests.integration.submission.tries import forget_tokens
from tests.integration.triggers.waits import only_event, store_and_load

pytestmark = pytest.mark.usefixtures("unhurried")


def test_event_contains_the_final_state_of_the_batch(assets: Assets):
    event = event_of(assets.trigger())
    assert (event["status"], event["started_at"], event["duplicates"]) == ("ended", 123.5, 4)
    rows = unpack(event["rows"])
    assert [row.asset_identifier for row in rows] == assets.identifiers
    assert {row.status for row in rows} == {"SUCCEEDED"}
    assert event["noted_at"] <= time.time()


def test_each_asset_needs_one_start_and_one_get_request(assets: Assets):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=0.3, times=None)
    before = server.request_counts
    event = event_of(assets.trigger(poll_interval=0.6))
    assert {row.status for row in unpack(event["rows"])} == {"SUCCEEDED"}
    request_counts = server.request_counts - before
    assert (request_counts["StartMetadataGenerationRun"], request_counts["GetMetadataGenerationRun"]) == (
        6,
        6,
    )
    assert request_counts.keys() <= {
        "StartMetadataGenerationRun",
        "GetMetadataGenerationRun",
        "ListMetadataGenerationRuns",
    }


def test_timeout_event_contains_the_known_runs(
    assets: Assets, loop_clock: LoopClock, monkeypatch: pytest.MonkeyPatch
):
    assets.catalog.server.set_run_outcome(in_progress_seconds=3600, times=None)
    monkeypatch.setattr(triggers, "time", loop_clock)
    trigger = assets.trigger(deadline=time.time() + 600)
    once(lambda: batch_is_active(trigger), lambda: loop_clock.put_forward(600))
    event = event_of(trigger, timeout=None)
    assert event["status"] == "timeout"
    assert all(row.is_active for row in unpack(event["rows"]))
    assert assets.statuses() == [["IN_PROGRESS"]] * 6


@pytest.mark.parametrize("after_token_expiry", [False, True], ids=["immediately", "after token expiry"])
def test_new_triggerer_resumes_existing_runs(assets: Assets, after_token_expiry: bool):
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    trigger = assets.trigger()
    if after_token_expiry:
        trigger = assets.trigger(noted_at=time.time() - 3600, began_at=time.time() - 3600)

    async def run_until_canceled() -> None:
        task = asyncio.ensure_future(only_event(trigger))
        while server.request_counts["StartMetadataGenerationRun"] < 6:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(run_until_canceled())
    if after_token_expiry:
        # Active runs are found without client tokens.
        forget_tokens(assets.catalog)
    successor = type(trigger)(**trigger.serialize()[1])

    def succeed() -> None:
        for runs in list_runs(assets):
            server.set_run_status(runs[0], "SUCCEEDED")

    if after_token_expiry:
        once(lambda: batch_is_active(successor), succeed)
    else:
        succeed()
    event = event_of(successor)
    assert event["status"] == "ended"
    assert assets.statuses() == [["SUCCEEDED"]] * 6
    assert [row.run_identifier for row in unpack(event["rows"])] == [runs[0] for runs in list_runs(assets)]


def test_missing_connection_is_reported_in_the_event(assets: Assets):
    event = event_of(assets.trigger(aws_conn_id="missing"))
    assert event["status"] == "error"
    assert "'missing'" in event["message"]
    assert [row.run_identifier for row in unpack(event["rows"])] == [None] * 6


def test_invalid_rate_is_reported_in_the_event(assets: Assets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_STARTS_PER_SECOND", "0")
    event = event_of(assets.trigger())
    assert event["status"] == "error"
    assert "[datazone] max_starts_per_second" in event["message"]


def test_trigger_survives_serialization_by_airflow(assets: Assets, airflow_database: None):
    trigger = assets.trigger(
        aws_conn_id=None,
        region_name="eu-west-1",
        verify=False,
        botocore_config={"retries": {"total_max_attempts": 1}},
        cancel_on_kill=True,
        allow_partial_success=False,
        poll_interval=7.5,
        deadline=1234567890.25,
        checkpoint_interval=60,
        quota_used_up=True,
    )
    loaded = store_and_load(trigger)
    assert loaded.serialize() == trigger.serialize()
    assert unpack(loaded.rows) == assets.rows()
