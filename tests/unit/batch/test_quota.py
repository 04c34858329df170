"""A batch starts nothing more once a quota is used up."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_datazone.batch.summary import summarize
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    QuotaUsedUpError,
)
from tests.unit.simulated_batch import (
    EPOCH,
    QUOTA,
    BatchDataZone,
    assets,
    bring_to_an_end,
    judge,
    state_of,
    stats,
    statuses,
)
from tests.unit.simulation import client_error


@pytest.mark.parametrize("ending", ["FAILED", "PARTIALLY_SUCCEEDED"])
def test_no_run_is_started_once_one_has_ended_for_the_quota(ending: str, caplog: pytest.LogCaptureFixture):
    datazone = BatchDataZone(lasts=10, endings={"asset5": [ending]}, reasons={"asset5": QUOTA})
    rows = bring_to_an_end(datazone, assets(100), max_concurrent_runs=20)
    known_at = datazone.said_ended["run5"]
    assert all(start.at <= known_at + 0.05 for start in datazone.starts)
    # What was active was waited for.
    started = [row for row in rows if row.run_identifier]
    assert 20 <= len(started) < 40
    assert all(row.is_done for row in started)
    assert statuses(rows) == {"SUCCEEDED": len(started) - 1, ending: 1, None: 100 - len(started)}
    summary = summarize(state_of(rows), seconds=1.0, allow_partial_success=True)
    assert summary["not_started"] == 100 - len(started)
    with pytest.raises(
        QuotaUsedUpError, match=f"quota is used up: {summary['not_started']} were not started"
    ):
        judge(rows, 0, quota_used_up=True)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len([warning for warning in warnings if "quota" in warning]) == 1


def test_quota_stays_used_up_for_whom_the_batch_is_handed_to():
    datazone = BatchDataZone(lasts=10)
    rows = assets(30)
    bring_to_an_end(datazone, rows, quota_used_up=True)
    assert datazone.starts == []


def test_quota_that_was_used_up_in_an_earlier_try_is_asked_of_datazone_anew():
    rows = assets(30)
    rows[0].run_identifier, rows[0].status = "run", "PARTIALLY_SUCCEEDED"
    rows[0].type_stats = [stats("SUCCEEDED")[0], stats("FAILED", QUOTA)[1]]
    bring_to_an_end(BatchDataZone(), rows)
    assert statuses(rows) == {"SUCCEEDED": 29, "PARTIALLY_SUCCEEDED": 1}
    rows[1].status = "FAILED"
    with pytest.raises(BatchFailedError):
        judge(rows, 0)


def test_run_that_waits_for_its_next_try_is_not_started_once_the_quota_is_used_up():
    trouble: list[Exception] = [client_error("InternalServerException", 500) for _ in range(5)]
    datazone = BatchDataZone(
        lasts=5, reasons={"asset0": QUOTA}, endings={"asset0": ["FAILED"]}, refusals={"asset1": trouble}
    )
    rows = bring_to_an_end(datazone, assets(2))
    assert [row.status for row in rows] == ["FAILED", None]
    assert datazone.runs_of("asset1") == []


def test_asset_that_is_being_looked_for_is_not_started_once_the_quota_is_used_up():
    """Resumed long after: what may have been started is asked for, one after the other."""
    datazone = BatchDataZone(lasts=2, reasons={"asset0": QUOTA}, endings={"asset0": ["FAILED"]})
    rows = bring_to_an_end(
        datazone, assets(300), saved_at=EPOCH - 3600, max_concurrent_runs=300, poll_interval=3
    )
    known_at = datazone.said_ended["run0"]
    assert rows[0].status == "FAILED"
    assert all(start.at <= known_at + 0.05 for start in datazone.starts)
