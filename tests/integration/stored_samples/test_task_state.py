"""Retries resume from the task state that earlier versions stored."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_datazone.batch.memory import BatchMemory
from tests.integration.stored_samples.samples import (
    ASSET,
    BATCH_TOKEN,
    DOMAIN,
    FIRST_BATCH,
    IDENTITY,
    PROJECT,
    RUN,
    TYPES,
    SampleCatalog,
    StoredRow,
    make_batch,
    samples,
    stored_rows,
)
from tests.integration.submission.tries import Task, tokens_of
from tests.task_context import Store, make_context

pytestmark = pytest.mark.usefixtures("unhurried")


# --------------------------------------------------------------------------- records of submitted runs


@pytest.fixture
def task(catalog: SampleCatalog) -> Task:
    """Return the task of the samples after its first try."""
    task = Task(catalog, has_state_store=True, retries=3)
    task.ti.try_number = 1
    return task


def restore_state(task: Task, sample: dict[str, Any]) -> None:
    for key, value in sample["store"].items():
        task.context["task_state_store"].set(key, value)


def run_of(sample: dict[str, Any]) -> str:
    return str(sample["store"]["metadata_generation_run"]["run"])


def samples_with_a_run(*names: str) -> list[Any]:
    return samples("task_state", *(names or ("run: started", "run: second", "run: adopted", "run: client")))


@pytest.mark.parametrize("status", ["IN_PROGRESS", "SUCCEEDED"])
@pytest.mark.parametrize("sample", [*samples_with_a_run(), *samples_with_a_run("run: succeeded")])
def test_retry_resumes_the_run_of_a_stored_record(
    sample: dict[str, Any], status: str, task: Task, catalog: SampleCatalog
):
    run = run_of(sample)
    catalog.add_run(run, status=status)
    restore_state(task, sample)
    submitted = task.submit()
    assert (submitted.run.id, submitted.adopted) == (run, True)
    assert catalog.runs_of(ASSET) == [run]
    # The record names the run, so the task does not list runs. The test itself lists them once.
    assert catalog.server.request_counts["ListMetadataGenerationRuns"] == 1


@pytest.mark.parametrize("sample", samples_with_a_run())
def test_retry_starts_a_new_run_if_the_run_of_a_stored_record_failed(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    record = sample["store"]["metadata_generation_run"]
    catalog.add_run(run_of(sample), status="FAILED", token=record.get("token"))
    restore_state(task, sample)
    submitted = task.submit()
    assert not submitted.adopted
    assert catalog.runs_of(ASSET) == [run_of(sample), submitted.run.id]
    stored = task.context["task_state_store"].get("metadata_generation_run")
    # The token of this submission is not known to have returned the adopted run, so it is sent first.
    number = record["number"] + ("token" in record)
    assert (stored["request"], stored["number"]) == (record["request"], number)


@pytest.mark.parametrize("sample", samples_with_a_run("run: succeeded"))
def test_cleared_task_starts_a_new_run_after_a_stored_success(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    catalog.add_run(status="SUCCEEDED")
    restore_state(task, sample)
    task.clear()
    assert task.submit().run.id != RUN


@pytest.mark.parametrize("sample", samples_with_a_run("run: succeeded"))
def test_clear_after_retries_was_lowered_is_detected_if_the_stored_success_has_its_try(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    catalog.add_run(status="SUCCEEDED")
    restore_state(task, sample)
    task.task.retries = task.ti.max_tries - task.ti.try_number
    task.clear()
    assert task.ti.max_tries == sample["store"]["metadata_generation_run"]["succeeded"]
    is_detected = "succeeded_in_try" in sample["store"]["metadata_generation_run"]
    assert (task.submit().run.id != RUN) is is_detected


@pytest.mark.parametrize("sample", samples("task_state", "run: answer to Start lost"))
def test_retry_sends_the_token_of_a_stored_record_again(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    token = sample["store"]["metadata_generation_run"]["token"]
    catalog.add_run(status="SUCCEEDED", token=token)
    restore_state(task, sample)
    assert task.submit().run.id == RUN
    assert tokens_of(catalog) == [token, token]
    # A task without stored state derives the same token.
    other = Task(catalog, has_state_store=False, retries=3)
    assert other.submit().run.id == RUN
    assert set(tokens_of(catalog)) == {token}


# ------------------------------------------------------------------------------ stored state of batches


def load_state(sample: dict[str, Any]) -> tuple[Store, list[StoredRow]]:
    """Return a task state store with the keys of a sample, and the batch rows in it."""
    store = Store()
    for key, value in sample["store"].items():
        store.set(key, value)
    record = sample["store"]["metadata_generation_batch"]
    prefix = "metadata_generation_batch"
    if "generation" in record:
        prefix += f"_{record['generation']}"
    packed = "".join(sample["store"][f"{prefix}_{number}"] for number in range(record["parts"]))
    return store, stored_rows(packed) if packed else []


@pytest.mark.parametrize("sample", samples("task_state", "batch:"))
def test_retry_resumes_a_stored_batch(sample: dict[str, Any], catalog: SampleCatalog):
    store, rows = load_state(sample)
    # State of the first version is ignored; DataZone returns the runs for their client tokens.
    is_read = sample["written_by"] != FIRST_BATCH
    memory = BatchMemory(make_context(store, try_number=2), DOMAIN, TYPES)
    assert memory.identity == IDENTITY == sample["store"]["metadata_generation_batch"]["identity"]
    assert memory.saved_at == (sample["store"]["metadata_generation_batch"]["noted_at"] if is_read else 0.0)
    rows = [row for row in rows if row.asset.startswith("sampleasset")]
    catalog.add_runs_of(rows, active="IN_PROGRESS")
    for row in rows:
        if row.run is not None and row.status is None:
            catalog.server.set_run_status(row.run, None)
    starts = catalog.starts
    rows = rows or [StoredRow(ASSET, None, PROJECT, 1, None, None, [], None)]
    context = make_context(store, try_number=2)
    summary = make_batch(rows).execute(context)
    assert (summary["total"], summary["failed"], summary["not_started"]) == (len(rows), 0, 0)
    results = {row["asset"]: row["run"] for row in context["ti"].xcoms["results"]}
    sent = 0
    for row in rows:
        runs = catalog.runs_of(row.asset)
        if row.run is not None and row.status not in ("FAILED", "CANCELED"):
            assert (runs, results[row.asset]) == ([row.run], row.run)
        else:
            assert runs == [*([] if row.run is None else [row.run]), results[row.asset]]
            # Earlier versions do not store whether Start returned a run, so the task sends the token of a
            # failed run again before it starts another one.
            sent += len(runs)
    if is_read:
        assert catalog.starts - starts == sent
    assert BATCH_TOKEN in tokens_of(catalog)


@pytest.mark.parametrize("sample", samples("task_state", "batch: succeeded"))
def test_cleared_task_runs_a_stored_batch_again(sample: dict[str, Any], catalog: SampleCatalog):
    store, rows = load_state(sample)
    catalog.add_runs_of(rows, active="IN_PROGRESS")
    summary = make_batch(rows).execute(make_context(store, try_number=2, max_tries=4))
    assert summary["succeeded"] == len(rows)
    assert [len(catalog.runs_of(row.asset)) for row in rows] == [2, 2]
