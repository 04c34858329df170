"""A batch starts no more runs after a quota is used up."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.batch.summary import summarize
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    QuotaUsedUpError,
)
from tests.unit.simulated_batch import (
    EPOCH,
    PARAMETERS,
    QUOTA,
    Airflow,
    BatchDataZone,
    assets,
    make_batch,
    raise_if_failed,
    run_batch,
    run_on,
    state_of,
    stats,
    statuses,
)
from tests.unit.simulation import client_error


@pytest.mark.parametrize("ending", ["FAILED", "PARTIALLY_SUCCEEDED"])
def test_no_run_starts_after_one_ends_because_of_the_quota(ending: str, caplog: pytest.LogCaptureFixture):
    datazone = BatchDataZone(lasts=10, endings={"asset5": [ending]}, reasons={"asset5": QUOTA})
    rows = run_batch(datazone, assets(100), max_concurrent_runs=20)
    reported_at = datazone.ends_reported_at["run5"]
    assert all(start.at <= reported_at + 0.05 for start in datazone.starts)
    # The batch waits for the runs that were active.
    started = [row for row in rows if row.run_identifier]
    assert 20 <= len(started) < 40
    assert all(row.has_ended for row in started)
    assert statuses(rows) == {"SUCCEEDED": len(started) - 1, ending: 1, None: 100 - len(started)}
    summary = summarize(state_of(rows), Steps(), seconds=1.0)
    assert summary["not_started"] == 100 - len(started)
    with pytest.raises(
        QuotaUsedUpError, match=f"quota is used up: {summary['not_started']} were not started"
    ):
        raise_if_failed(rows, 0, quota_used_up=True)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len([warning for warning in warnings if "quota" in warning]) == 1


def test_process_that_takes_over_starts_no_run_if_the_quota_is_used_up():
    datazone = BatchDataZone(lasts=10)
    rows = assets(30)
    run_batch(datazone, rows, quota_used_up=True)
    assert datazone.starts == []


def test_retry_starts_runs_even_if_the_quota_was_used_up_in_an_earlier_try():
    rows = assets(30)
    rows[0].run_identifier, rows[0].status = "run", "PARTIALLY_SUCCEEDED"
    rows[0].type_stats = [stats("SUCCEEDED")[0], stats("FAILED", QUOTA)[1]]
    run_batch(BatchDataZone(), rows)
    assert statuses(rows) == {"SUCCEEDED": 29, "PARTIALLY_SUCCEEDED": 1}
    rows[1].status = "FAILED"
    with pytest.raises(BatchFailedError):
        raise_if_failed(rows, 0)


def test_run_of_an_earlier_try_does_not_show_that_the_quota_is_used_up_now():
    """It has succeeded in part, and still has to be accepted."""
    rows = assets(30)
    rows[0].run_identifier, rows[0].status = "run", "PARTIALLY_SUCCEEDED"
    rows[0].type_stats = [stats("SUCCEEDED")[0], stats("FAILED", QUOTA)[1]]
    datazone = BatchDataZone()

    async def main(airflow: Airflow) -> None:
        datazone.begin("asset0")
        await make_batch(rows, steps=Steps(accept_threshold=0.5)).run(PARAMETERS)

    run_on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 29, "PARTIALLY_SUCCEEDED": 1}
    assert all(row.revision for row in rows)


def test_start_is_not_repeated_after_the_quota_is_used_up():
    errors: list[Exception] = [client_error("InternalServerException", 500) for _ in range(5)]
    datazone = BatchDataZone(
        lasts=5, reasons={"asset0": QUOTA}, endings={"asset0": ["FAILED"]}, refusals={"asset1": errors}
    )
    rows = run_batch(datazone, assets(2))
    assert [row.status for row in rows] == ["FAILED", None]
    assert datazone.runs_of("asset1") == []


def test_asset_whose_run_is_being_searched_is_not_started_after_the_quota_is_used_up():
    """The batch resumes after a long gap, so it searches for a run of each asset first."""
    datazone = BatchDataZone(lasts=2, reasons={"asset0": QUOTA}, endings={"asset0": ["FAILED"]})
    rows = run_batch(datazone, assets(300), saved_at=EPOCH - 3600, max_concurrent_runs=300, poll_interval=3)
    reported_at = datazone.ends_reported_at["run0"]
    assert rows[0].status == "FAILED"
    assert all(start.at <= reported_at + 0.05 for start in datazone.starts)
