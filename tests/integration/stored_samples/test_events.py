"""Tasks resume with events that earlier versions have stored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowTaskTimeout, TaskDeferred

from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.batch.memory import BatchMemory
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    MetadataGenerationRunFailedError,
    QuotaUsedUpError,
    RequestRefusedError,
    StartedRunFailedError,
    WaitFailedError,
)
from airflow_provider_datazone.operators import start_execution
from airflow_provider_datazone.operators.datazone import (
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from tests.conftest import TYPE_STATS
from tests.integration.stored_samples.samples import (
    ASSET,
    DOMAIN,
    FIRST_BATCH,
    IDENTITY,
    PROJECT,
    RUN,
    TYPES,
    SampleCatalog,
    deferred_context,
    make_batch,
    samples,
    stored_rows,
)
from tests.task_context import Store, make_context

pytestmark = pytest.mark.usefixtures("unhurried")


# -------------------------------------------------------------------------------------- events of a run


def make_sensor() -> DataZoneMetadataGenerationRunSensor:
    return DataZoneMetadataGenerationRunSensor(
        task_id="wait",
        run_identifier=RUN,
        domain_identifier=DOMAIN,
        aws_conn_id="datazone_default",
        deferrable=True,
    )


# The status of the run, the error that the task raises, and a part of its message.
RUN_OUTCOMES: dict[str, tuple[str, type[BaseException] | None, str]] = {
    "run: SUCCEEDED": ("SUCCEEDED", None, ""),
    "run: PARTIALLY_SUCCEEDED": ("PARTIALLY_SUCCEEDED", None, ""),
    "run: FAILED": ("FAILED", MetadataGenerationRunFailedError, "BUSINESS_NAMES FAILED: no names today"),
    "run: CANCELED": ("CANCELED", MetadataGenerationRunFailedError, "BUSINESS_NAMES CANCELED"),
    "run: FAILED for the quota": ("FAILED", MetadataGenerationRunFailedError, "monthly quota is used up"),
}


@pytest.mark.parametrize(
    "sample", [s for s in samples("events", "run:") if s.values[0]["name"] in RUN_OUTCOMES]
)
def test_sensor_evaluates_the_run_of_a_stored_event(sample: dict[str, Any], catalog: SampleCatalog):
    status, error, message = RUN_OUTCOMES[sample["name"]]
    type_stats = TYPE_STATS["QUOTA" if "quota" in sample["name"] else status]
    context = deferred_context("wait")
    resume = ("execute_complete", {"event": sample["event"]}, context)
    if error is None:
        assert make_sensor().resume_execution(*resume) == type_stats
    else:
        with pytest.raises(error, match=message):
            make_sensor().resume_execution(*resume)
    pushed = context["ti"].xcoms
    assert pushed["type_stats"] == type_stats
    run = pushed["run"]
    assert (run["id"], run["domainId"], run["status"]) == (RUN, DOMAIN, status)
    assert (run["target"], run["types"]) == ({"type": "ASSET", "identifier": ASSET}, TYPES)
    assert (run["owningProjectId"], run["typeStats"]) == (PROJECT, type_stats)
    assert run["createdAt"] == sample["event"]["run"]["createdAt"]
    assert run["createdBy"] == sample["event"]["run"]["createdBy"]


ERROR_EVENTS: dict[str, tuple[type[BaseException], str]] = {
    "run: timeout": (AirflowSensorTimeout, f"{RUN}' has not ended in time"),
    "run: permanent error": (RequestRefusedError, "not yours"),
    "run: error that may pass": (WaitFailedError, "The security token included in the request is invalid"),
}


@pytest.mark.parametrize(
    "sample", [s for s in samples("events", "run:") if s.values[0]["name"] in ERROR_EVENTS]
)
def test_sensor_raises_the_error_of_a_stored_event(sample: dict[str, Any], catalog: SampleCatalog):
    error, message = ERROR_EVENTS[sample["name"]]
    catalog.add_run()
    context = deferred_context("wait")
    with pytest.raises(error, match=message):
        make_sensor().resume_execution("execute_complete", {"event": sample["event"]}, context)
    assert context["ti"].xcoms["type_stats"] == []


def test_sensor_succeeds_on_a_stored_timeout_event_if_the_run_has_ended(catalog: SampleCatalog):
    catalog.add_run(status="SUCCEEDED")
    for sample in samples("events", "run: timeout"):
        event = {"event": sample.values[0]["event"]}
        type_stats = make_sensor().resume_execution("execute_complete", event, deferred_context("wait"))
        assert type_stats == TYPE_STATS["SUCCEEDED"]


# ----------------------------------------------------------------- events of a run that a task started


def make_start() -> DataZoneStartMetadataGenerationRunOperator:
    return DataZoneStartMetadataGenerationRunOperator(
        task_id="start",
        asset_identifier=ASSET,
        types=TYPES,
        domain_identifier=DOMAIN,
        owning_project_identifier=PROJECT,
        aws_conn_id="datazone_default",
    )


def resume_start(sample: dict[str, Any], context: Any) -> Any:
    resume = {"event": sample["event"]} | sample["next_kwargs"]
    return make_start().resume_execution("execute_complete", resume, context)


@pytest.mark.parametrize("sample", samples("events", "start: own run SUCCEEDED"))
def test_start_task_returns_the_run_of_a_stored_event(sample: dict[str, Any], catalog: SampleCatalog):
    context = deferred_context("start")
    assert resume_start(sample, context) == RUN
    assert context["ti"].xcoms["type_stats"] == TYPE_STATS["SUCCEEDED"]
    assert context["ti"].xcoms["run"]["id"] == RUN


@pytest.mark.parametrize("sample", samples("events", "start: own run FAILED"))
def test_start_task_fails_with_the_run_of_a_stored_event(sample: dict[str, Any], catalog: SampleCatalog):
    context = deferred_context("start")
    with pytest.raises(StartedRunFailedError, match=f"{RUN}.* ended FAILED"):
        resume_start(sample, context)
    assert context["ti"].xcoms["run"]["status"] == "FAILED"
    assert catalog.starts == 0


@pytest.mark.parametrize("after", [60, 3600], ids=["soon", "later"])
@pytest.mark.parametrize("sample", samples("events", "start: adopted run CANCELED"))
def test_start_task_reads_the_adoption_time_from_a_stored_deferral(
    sample: dict[str, Any], after: int, catalog: SampleCatalog, monkeypatch: pytest.MonkeyPatch
):
    catalog.add_run(status="CANCELED")
    adopted = sample["next_kwargs"]["adopted"]
    clock = SimpleNamespace(time=lambda: adopted + after, monotonic=lambda: 0.0, sleep=lambda seconds: None)
    monkeypatch.setattr(start_execution, "time", clock)
    context = deferred_context("start", try_number=2, xcoms={"deferred_in_try": 2})
    if after == 3600 and adopted is not True:
        # A user canceled the run.
        with pytest.raises(StartedRunFailedError, match=f"{RUN}.* ended CANCELED"):
            resume_start(sample, context)
        assert catalog.runs_of(ASSET) == [RUN]
    else:
        run = resume_start(sample, context)
        assert catalog.runs_of(ASSET) == [RUN, run]


@pytest.mark.parametrize("ended", [False, True], ids=["active", "ended"])
@pytest.mark.parametrize("sample", samples("events", "start: timeout"))
def test_start_task_polls_the_run_of_a_stored_deferral_before_it_times_out(
    sample: dict[str, Any], ended: bool, catalog: SampleCatalog
):
    catalog.add_run(status="SUCCEEDED" if ended else "IN_PROGRESS")
    # There are no XComs of the task; the arguments of the deferral contain the run.
    if ended and "run_identifier" in sample["next_kwargs"]:
        assert resume_start(sample, deferred_context("start")) == RUN
    else:
        with pytest.raises(AirflowTaskTimeout, match=f"{RUN}' has not ended in time"):
            resume_start(sample, deferred_context("start"))
    if ended:
        xcoms = {"deferred_in_try": 1, "run": {"id": RUN, "domainId": DOMAIN}}
        assert resume_start(sample, deferred_context("start", xcoms=xcoms)) == RUN


# ---------------------------------------------------------------------------------- events of a batch

# The error that the task raises, and a part of its message.
BATCH_OUTCOMES: dict[str, tuple[type[BaseException] | None, str]] = {
    "batch: ended, all succeeded": (None, ""),
    "batch: ended, with failures": (BatchFailedError, "3 of 5 assets have not succeeded"),
    "batch: ended, quota used up": (QuotaUsedUpError, "monthly quota is used up: 2 were not started"),
    "batch: ended, refused for all assets": (RequestRefusedError, "3 of 3 .*not yours"),
    "batch: ended, all published": (None, ""),
    "batch: checkpoint": (TaskDeferred, ""),
    "batch: timeout": (AirflowTaskTimeout, "has not ended in time"),
    "batch: permanent error": (RequestRefusedError, "No AWS Region"),
    "batch: error, connection not found": (WaitFailedError, "'missing' is not defined"),
    "batch: error that may pass": (WaitFailedError, "The security token included in the request is invalid"),
    "batch: error, trigger arguments not valid": (WaitFailedError, "poll_interval must be a number"),
    "batch: error, rate not valid": (WaitFailedError, "max_starts_per_second must be a number above 0"),
}


@pytest.mark.parametrize("sample", samples("events", "batch:"))
def test_batch_resumes_with_a_stored_event(sample: dict[str, Any], catalog: SampleCatalog):
    event, store = sample["event"], Store()
    rows = stored_rows(event["rows"])
    error, message = BATCH_OUTCOMES[sample["name"]]
    if sample["written_by"] == FIRST_BATCH:
        # The event has no quota field; its format was replaced on the same day. A retry reads the runs from DataZone.
        error, message = WaitFailedError, "an event that cannot be read, one of another version"
    context = deferred_context("generate", store=store)
    resume = ("execute_complete", {"event": event}, context)
    pushed = context["ti"].xcoms
    if error is None:
        steps = {"accept_threshold": 0.8, "publish": True} if "published" in sample["name"] else {}
        summary = make_batch(rows, **steps).resume_execution(*resume)
        assert summary["published"] == (len(rows) if steps else 0)
        assert (summary["total"], summary["succeeded"], summary["failed"]) == (len(rows), len(rows), 0)
        assert pushed["return_value"] == summary
    else:
        with pytest.raises(error, match=message or None) as raised:
            make_batch(rows).resume_execution(*resume)
    if "ended" in sample["name"] and sample["written_by"] != FIRST_BATCH:
        results = [(row["asset"], row["run"], row["status"], row["typeStats"]) for row in pushed["results"]]
        assert results == [(row.asset, row.run, row.status, row.type_stats) for row in rows]
        for row, result in zip(rows, pushed["results"], strict=True):
            if row.run is None and row.error is None:
                assert result["error"].startswith("No run was started: ")
            else:
                assert result.get("error") == row.error
        assert pushed["return_value"]["duplicates"] == event["duplicates"]
    elif error is TaskDeferred:
        assert "results" not in pushed
    elif sample["written_by"] == FIRST_BATCH:
        assert pushed["results"] == []
    else:
        assert [row["run"] for row in pushed["results"]] == [row.run for row in rows]
    if error is TaskDeferred:
        trigger = raised.value.trigger
        assert [row[:8] for row in stored_rows(trigger.rows)] == [row[:8] for row in rows]
        assert (trigger.identity, trigger.domain_identifier, trigger.types) == (IDENTITY, DOMAIN, TYPES)
        for name in ("noted_at", "started_at", "duplicates", "quota_used_up"):
            assert getattr(trigger, name) == event[name]
        assert trigger.refusals == event.get("refusals", {})
    if sample["written_by"] != FIRST_BATCH:
        # After any outcome, the next try resumes the runs.
        memory = BatchMemory(make_context(store, try_number=2), DOMAIN, TYPES)
        assert memory.saved_at == event["noted_at"]
        fresh = [AssetRow(row.asset, row.revision, row.project) for row in rows]
        loaded = memory.load(fresh, Steps())
        assert [row.run_identifier for row in loaded] == [
            None if row.status in ("FAILED", "CANCELED") else row.run for row in rows
        ]
