"""Log messages of a batch."""

from __future__ import annotations

import logging

import pytest

from tests.integration.batch.tasks import Assets, event_of
from tests.task_context import Store, make_context

pytestmark = pytest.mark.usefixtures("unhurried")


def test_empty_batch_logs_that_there_is_nothing_to_do(
    assets: Assets, deferrable: bool, task_log: tuple[logging.Logger, list[str]]
):
    summary = assets.operator(asset_identifiers=[], deferrable=deferrable).execute(make_context())
    assert summary["total"] == 0
    assert [line for line in task_log[1] if "nothing to do" in line] == [
        "asset_identifiers is empty: there is nothing to do."
    ]


def test_completed_batch_logs_that_there_is_nothing_to_do(
    assets: Assets, task_log: tuple[logging.Logger, list[str]]
):
    store = Store()
    assets.operator().execute(make_context(store))
    # The state after a kill between the end of the last run and the end of the task.
    record = store.get("metadata_generation_batch")
    store.set("metadata_generation_batch", {k: v for k, v in record.items() if "succeeded" not in k})
    task_log[1].clear()
    assert assets.operator().execute(make_context(store, try_number=2))["succeeded"] == 6
    assert [line for line in task_log[1] if "nothing to do" in line] == [
        "An earlier try completed all 6 assets: there is nothing to do."
    ]


def test_batch_that_is_cleared_after_its_success_warns_that_it_pays_again(
    assets: Assets, task_log: tuple[logging.Logger, list[str]]
):
    store = Store()
    assets.operator().execute(make_context(store))
    assets.operator().execute(make_context(store, try_number=2))
    assert [line for line in task_log[1] if "was cleared" in line] == []
    assets.operator().execute(make_context(store, try_number=3, max_tries=5))
    assert [line for line in task_log[1] if "was cleared" in line] == [
        "The task had succeeded and was cleared: it starts a run for each of 6 assets again."
    ]


def test_progress_is_logged(assets: Assets, deferrable: bool, task_log: tuple[logging.Logger, list[str]]):
    logger, logged = task_log
    if deferrable:
        trigger = assets.trigger()
        trigger._log = logger
        event_of(trigger)
    else:
        assets.operator().execute(make_context())
    lines = [line for line in logged if " done · " in line]
    assert lines[-1].startswith("6/6 done · 6 succeeded · 0 failed · 0 active")
    assert not [line for line in logged if "is IN_PROGRESS" in line], (
        "messages about thousands of runs would hide it"
    )
