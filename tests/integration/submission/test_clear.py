"""A cleared task starts a new run if it had succeeded."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from airflow_provider_datazone.idempotency import success_record, was_cleared
from airflow_provider_datazone.submission import save_success
from tests.integration.submission.tries import ACTIVE, Task, runs_of, set_run_status

if TYPE_CHECKING:
    from tests.conftest import Catalog


def test_cleared_task_that_had_succeeded_starts_a_new_run(task: Task, catalog: Catalog):
    first = task.submit()
    set_run_status(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    task.clear()
    second = task.submit()
    assert runs_of(catalog) == [first.run.id, second.run.id]
    # A retry of the cleared task resumes the new run.
    set_run_status(catalog, second.run.id, "SUCCEEDED")
    assert task.submit().run.id == second.run.id
    assert len(runs_of(catalog)) == 2


def test_kill_between_success_of_run_and_task_is_not_a_clear(task: Task, catalog: Catalog):
    first = task.submit()
    set_run_status(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    assert task.submit().run.id == first.run.id


def test_cleared_task_resumes_an_active_run(task: Task, catalog: Catalog):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    first = task.submit()
    task.clear()
    second = task.submit()
    assert second.run.id == first.run.id
    assert second.adopted


def test_cleared_task_that_timed_out_resumes_its_succeeded_run(
    task: Task, catalog: Catalog, has_state_store: bool
):
    first = task.submit()
    set_run_status(catalog, first.run.id, "SUCCEEDED")
    task.clear()
    second = task.submit()
    # Before 3.3 this cannot be distinguished from a clear of a task that had succeeded.
    assert (second.run.id == first.run.id) is has_state_store


def test_clear_after_retries_was_lowered_starts_a_new_run(catalog: Catalog):
    # Detected on Airflow 3.3 and later; before, it looks like a retry while the DAG run is still running.
    task = Task(catalog, has_state_store=True, retries=2)
    first = task.submit()
    set_run_status(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    max_tries, task.task.retries = task.ti.max_tries, 1
    task.clear()
    assert task.ti.max_tries == max_tries
    assert task.submit().run.id != first.run.id
    assert len(runs_of(catalog)) == 2


def test_clear_of_an_ended_dag_run_starts_a_new_run(task: Task, catalog: Catalog):
    first = task.submit()
    set_run_status(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    task.task.retries = task.ti.max_tries - task.ti.try_number
    task.clear()
    # All versions of Airflow change the start date of a DAG run that had ended.
    task.dag_run.start_date = datetime(2026, 1, 2, tzinfo=timezone.utc)
    assert task.submit().run.id != first.run.id


@pytest.mark.parametrize("ended", [False, True], ids=["active", "succeeded"])
@pytest.mark.parametrize("response_lost", [False, True], ids=["response received", "response lost"])
def test_clear_of_another_task_resumes_the_run(
    task: Task, catalog: Catalog, ended: bool, response_lost: bool
):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    if response_lost:
        catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
        with pytest.raises(Exception, match="Connection"):
            task.submit()
    else:
        task.submit()
    (run,) = runs_of(catalog)
    if ended:
        set_run_status(catalog, run, "SUCCEEDED")
    task.clear_another_task()
    assert task.submit().run.id == run
    assert runs_of(catalog) == [run]


def test_kill_after_the_success_and_clear_of_another_task_is_not_a_clear(task: Task, catalog: Catalog):
    first = task.submit()
    set_run_status(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    task.clear_another_task()
    assert task.submit().run.id == first.run.id


def test_clear_is_detected_by_max_tries_in_a_record_of_an_earlier_version(catalog: Catalog):
    task = Task(catalog, has_state_store=True)
    first = task.submit()
    set_run_status(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    store = task.context["task_state_store"]
    record = store.get("metadata_generation_run")
    # The keys that version 0.1 stores.
    store.set(
        "metadata_generation_run",
        {key: record[key] for key in ("request", "number", "token", "run", "succeeded")},
    )
    task.clear_another_task()
    assert task.submit().run.id == first.run.id
    task.clear()
    assert task.submit().run.id != first.run.id


def test_success_without_a_record_is_not_a_clear(catalog: Catalog):
    task = Task(catalog, has_state_store=True)
    assert not was_cleared({}, task.context)
    record = success_record(task.context)
    assert not was_cleared(record, task.context)
    # Airflow before 2.10 and some test contexts have no clear_number.
    del task.dag_run.clear_number
    assert not was_cleared(record, task.context)
    assert was_cleared(record | {"succeeded": 99}, task.context)
