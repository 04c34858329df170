"""Tries resume with what earlier versions have saved in the task state store."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_datazone.batch.memory import BatchMemory
from tests.integration.batch.tasks import make_context
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
from tests.integration.submission.tries import Store, Task, tokens_of

pytestmark = pytest.mark.usefixtures("unhurried")


# --------------------------------------------------------------------------- records of submitted runs


@pytest.fixture
def task(catalog: SampleCatalog) -> Task:
    """The task of the samples, after its first try."""
    task = Task(catalog, remembers=True, retries=3)
    task.ti.try_number = 1
    return task


def remember(task: Task, sample: dict[str, Any]) -> None:
    for key, value in sample["store"].items():
        task.context["task_state_store"].set(key, value)


def run_in(sample: dict[str, Any]) -> str:
    return str(sample["store"]["metadata_generation_run"]["run"])


def with_run(*names: str) -> list[Any]:
    return samples("task_state", *(names or ("run: started", "run: second", "run: adopted", "run: client")))


@pytest.mark.parametrize("status", ["IN_PROGRESS", "SUCCEEDED"])
@pytest.mark.parametrize("sample", [*with_run(), *with_run("run: succeeded")])
def test_retry_resumes_the_run_of_a_stored_record(
    sample: dict[str, Any], status: str, task: Task, catalog: SampleCatalog
):
    run = run_in(sample)
    catalog.add_run(run, status=status)
    remember(task, sample)
    submitted = task.submit()
    assert (submitted.run.id, submitted.adopted) == (run, True)
    assert catalog.runs_of(ASSET) == [run]
    # It knows the run, and need not look for it.
    assert catalog.server.request_counts["ListMetadataGenerationRuns"] == 1


@pytest.mark.parametrize("sample", with_run())
def test_retry_starts_another_run_when_that_of_a_stored_record_failed(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    record = sample["store"]["metadata_generation_run"]
    catalog.add_run(run_in(sample), status="FAILED", token=record.get("token"))
    remember(task, sample)
    submitted = task.submit()
    assert not submitted.adopted
    assert catalog.runs_of(ASSET) == [run_in(sample), submitted.run.id]
    stored = task.context["task_state_store"].get("metadata_generation_run")
    assert (stored["request"], stored["number"]) == (record["request"], record["number"] + 1)


@pytest.mark.parametrize("sample", with_run("run: succeeded"))
def test_clear_starts_another_run_than_that_of_a_stored_success(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    catalog.add_run(status="SUCCEEDED")
    remember(task, sample)
    task.clear()
    assert task.submit().run.id != RUN


@pytest.mark.parametrize("sample", with_run("run: succeeded"))
def test_stored_success_tells_a_clear_after_retries_was_lowered_if_it_says_in_which_try(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    catalog.add_run(status="SUCCEEDED")
    remember(task, sample)
    task.task.retries = task.ti.max_tries - task.ti.try_number
    task.clear()
    assert task.ti.max_tries == sample["store"]["metadata_generation_run"]["succeeded"]
    tells = "succeeded_in_try" in sample["store"]["metadata_generation_run"]
    assert (task.submit().run.id != RUN) is tells


@pytest.mark.parametrize("sample", samples("task_state", "run: answer to Start lost"))
def test_retry_sends_the_token_of_a_stored_record_again(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    token = sample["store"]["metadata_generation_run"]["token"]
    catalog.add_run(status="SUCCEEDED", token=token)
    remember(task, sample)
    assert task.submit().run.id == RUN
    assert tokens_of(catalog) == [token, token]
    # A task that has stored nothing comes to the same token.
    other = Task(catalog, remembers=False, retries=3)
    assert other.submit().run.id == RUN
    assert set(tokens_of(catalog)) == {token}


# ----------------------------------------------------------------------------------- memories of batches


def memory_of(sample: dict[str, Any]) -> tuple[Store, list[StoredRow]]:
    """Return a store with what is in a sample, and the rows to which its record leads."""
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
def test_retry_continues_the_batch_of_a_stored_memory(sample: dict[str, Any], catalog: SampleCatalog):
    store, rows = memory_of(sample)
    # Of the first version's memory nothing is read: DataZone knows the runs by their tokens.
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
    results = {row["asset"]: row["run"] for row in context["ti"].pushed["results"]}
    new = 0
    for row in rows:
        runs = catalog.runs_of(row.asset)
        if row.run is not None and row.status not in ("FAILED", "CANCELED"):
            assert (runs, results[row.asset]) == ([row.run], row.run)
        else:
            new += 1
            assert runs == [*([] if row.run is None else [row.run]), results[row.asset]]
    if is_read:
        assert catalog.starts - starts == new
    assert BATCH_TOKEN in tokens_of(catalog)


@pytest.mark.parametrize("sample", samples("task_state", "batch: succeeded"))
def test_clear_does_the_batch_of_a_stored_memory_again(sample: dict[str, Any], catalog: SampleCatalog):
    store, rows = memory_of(sample)
    catalog.add_runs_of(rows, active="IN_PROGRESS")
    summary = make_batch(rows).execute(make_context(store, try_number=2, max_tries=4))
    assert summary["succeeded"] == len(rows)
    assert [len(catalog.runs_of(row.asset)) for row in rows] == [2, 2]
