"""A task that a user clears starts another run if it had succeeded."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from airflow_provider_datazone.idempotency import success_record, was_cleared
from airflow_provider_datazone.submission import save_success
from tests.integration.submission.tries import ACTIVE, Task, end, runs_of

if TYPE_CHECKING:
    from tests.conftest import Catalog


def test_clear_of_a_task_that_had_succeeded_starts_another(task: Task, catalog: Catalog):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    task.clear()
    second = task.submit()
    assert runs_of(catalog) == [first.run.id, second.run.id]
    # And the retry of that one goes on with it.
    end(catalog, second.run.id, "SUCCEEDED")
    assert task.submit().run.id == second.run.id
    assert len(runs_of(catalog)) == 2


def test_kill_between_the_run_s_success_and_the_task_s_is_no_clear(task: Task, catalog: Catalog):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    assert task.submit().run.id == first.run.id


def test_clear_goes_on_with_a_run_that_is_still_active(task: Task, catalog: Catalog):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    first = task.submit()
    task.clear()
    second = task.submit()
    assert second.run.id == first.run.id
    assert second.adopted


def test_clear_of_a_task_that_timed_out_takes_what_its_run_has_done_by_now(
    task: Task, catalog: Catalog, remembers: bool
):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    task.clear()
    second = task.submit()
    # Before 3.3 nothing tells this from a clear of a task that had succeeded.
    assert (second.run.id == first.run.id) is remembers


def test_clear_after_retries_was_lowered_starts_another_run(catalog: Catalog):
    # From Airflow 3.3 on; before, nothing tells it from a retry while the DAG run is still running.
    task = Task(catalog, remembers=True, retries=2)
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    max_tries, task.task.retries = task.ti.max_tries, 1
    task.clear()
    assert task.ti.max_tries == max_tries
    assert task.submit().run.id != first.run.id
    assert len(runs_of(catalog)) == 2


def test_clear_of_an_ended_dag_run_starts_another_run(task: Task, catalog: Catalog):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    task.task.retries = task.ti.max_tries - task.ti.try_number
    task.clear()
    # What Airflow does with a DAG run that had ended, in all versions.
    task.dag_run.start_date = datetime(2026, 1, 2, tzinfo=timezone.utc)
    assert task.submit().run.id != first.run.id


@pytest.mark.parametrize("ended", [False, True], ids=["active", "succeeded meanwhile"])
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "answer lost"])
def test_clear_of_another_task_does_not_lose_the_run(task: Task, catalog: Catalog, ended: bool, lost: bool):
    catalog.server.set_run_outcome(**ACTIVE, times=None)
    if lost:
        catalog.server.fail("StartMetadataGenerationRun", "drop", after=True)
        with pytest.raises(Exception, match="Connection"):
            task.submit()
    else:
        task.submit()
    (run,) = runs_of(catalog)
    if ended:
        end(catalog, run, "SUCCEEDED")
    task.clear_another_task()
    assert task.submit().run.id == run
    assert runs_of(catalog) == [run]


def test_kill_after_the_success_and_clear_of_another_task_is_no_clear(task: Task, catalog: Catalog):
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    task.clear_another_task()
    assert task.submit().run.id == first.run.id


def test_record_of_an_earlier_version_tells_a_clear_by_max_tries_alone(catalog: Catalog):
    task = Task(catalog, remembers=True)
    first = task.submit()
    end(catalog, first.run.id, "SUCCEEDED")
    save_success(task.context)
    store = task.context["task_state_store"]
    record = store.get("metadata_generation_run")
    # As version 0.1 wrote it.
    store.set(
        "metadata_generation_run",
        {key: record[key] for key in ("request", "number", "token", "run", "succeeded")},
    )
    task.clear_another_task()
    assert task.submit().run.id == first.run.id
    task.clear()
    assert task.submit().run.id != first.run.id


def test_success_without_a_record_is_no_clear(catalog: Catalog):
    task = Task(catalog, remembers=True)
    assert not was_cleared({}, task.context)
    record = success_record(task.context)
    assert not was_cleared(record, task.context)
    # Airflow before 2.10, and some contexts of tests, have no clear_number.
    del task.dag_run.clear_number
    assert not was_cleared(record, task.context)
    assert was_cleared(record | {"succeeded": 99}, task.context)
