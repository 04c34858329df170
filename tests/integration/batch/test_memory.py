"""What a batch remembers from try to try."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_datazone.batch import engine, starts
from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.batch.memory import BatchMemory
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    QuotaUsedUpError,
    RequestRefusedError,
)
from airflow_provider_datazone.operators.batch_execution import BatchExecution
from tests.conftest import once
from tests.integration.batch.tasks import (
    Assets,
    execute_tries,
    list_runs,
    make_context,
    own,
    remember,
    rows_of,
    set_outcomes,
)
from tests.integration.submission.tries import Store, forget_tokens

pytestmark = pytest.mark.usefixtures("unhurried")


def test_retries_start_nothing_but_what_failed(assets: Assets, store: Store | None):
    server = assets.catalog.server
    for asset, endings in zip(
        assets.identifiers, ["SUCCEEDED", "FAILED FAILED SUCCEEDED", "CANCELED SUCCEEDED"], strict=False
    ):
        set_outcomes(server, asset, endings)
    first, second, third = execute_tries(assets, store, 5)
    assert (type(first), type(second)) == (BatchFailedError, BatchFailedError)
    assert isinstance(third, dict)
    assert (third["total"], third["succeeded"]) == (6, 6)
    assert [len(runs) for runs in list_runs(assets)] == [1, 3, 2, 1, 1, 1]


def test_retry_after_a_refusal_tries_the_asset_again(assets: Assets, store: Store | None):
    server = assets.catalog.server
    server.fail(
        "StartMetadataGenerationRun",
        "ValidationException",
        asset_identifier=assets.identifiers[2],
    )
    first, second = execute_tries(assets, store, 2)
    assert isinstance(first, RequestRefusedError)
    assert isinstance(second, dict)
    assert [len(runs) for runs in list_runs(assets)] == [1] * 6


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "active"])
def test_worker_that_was_killed_left_runs_that_the_retry_goes_on_with(
    assets: Assets, store: Store | None, ended: bool, monkeypatch: pytest.MonkeyPatch
):
    """Killed by the system, so that it could note nothing; where runs are active, no token is needed."""
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    monkeypatch.setattr(starts, "HANDOVER_SECONDS", 0.0)
    task = assets.operator(poll_interval=0.02)

    class Killed(BaseException):
        pass

    def note(self: BatchMemory, rows: list[AssetRow], saved_at: float | None = None) -> None:
        raise Killed

    async def killed(work: Any, domain: str) -> None:
        running = asyncio.ensure_future(work)
        while sum(row.is_active for row in rows_of(task)) < 4:
            await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait({running})

    with monkeypatch.context() as dying:
        dying.setattr(BatchMemory, "save", note)
        dying.setattr(
            BatchExecution, "_within_execution_timeout", lambda self, work, domain: killed(work, domain)
        )
        with pytest.raises(Killed):
            task.execute(make_context(store))
    there = list_runs(assets)
    assert sum(map(len, there)) >= 4

    def succeed() -> None:
        for run in itertools.chain(*there):
            server.set_run_status(run, "SUCCEEDED")

    server.set_run_outcome(times=None)
    retry = assets.operator()
    if ended:
        succeed()
    else:
        forget_tokens(assets.catalog)
        once(lambda: len({run.run_identifier for run in rows_of(retry)} - {None}) == 6, succeed)
    summary = retry.execute(make_context(store, try_number=2))
    assert summary["succeeded"] == 6
    after = list_runs(assets)
    assert [len(runs) for runs in after] == [1] * 6
    assert all(before in ([], runs) for before, runs in zip(there, after, strict=True))


def test_clear_of_a_task_that_had_succeeded_does_it_all_anew(assets: Assets):
    store = Store()
    execute_tries(assets, store, 1)
    # A kill between the batch's success and the task's is no clear.
    assert assets.operator().execute(make_context(store, try_number=2))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [1] * 6
    # As `clear_task_instances` counts.
    assert assets.operator().execute(make_context(store, try_number=3, max_tries=5))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6
    assert assets.operator().execute(make_context(store, try_number=4, max_tries=5))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6


def test_clear_after_retries_was_lowered_starts_other_runs(assets: Assets):
    """Two retries, and then one: `max_tries` is 2 before and after the clear of the first try."""
    store = Store()

    def execute(try_number: int, clear_number: int) -> None:
        context = make_context(store, try_number=try_number, max_tries=2)
        context["dag_run"].clear_number = clear_number
        context["task"] = SimpleNamespace(retries=2 if clear_number == 0 else 1)
        assert assets.operator().execute(context)["succeeded"] == 6

    execute(1, 0)
    execute(2, 1)
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6
    # A kill after the success that Airflow has not seen.
    execute(3, 1)
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6


def test_clear_of_a_task_that_had_failed_goes_on_with_it(assets: Assets):
    store = Store()
    set_outcomes(assets.catalog.server, assets.identifiers[3], "FAILED SUCCEEDED")
    execute_tries(assets, store, 1)
    assert assets.operator().execute(make_context(store, try_number=2, max_tries=4))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [1, 1, 1, 2, 1, 1]


def test_kill_right_after_a_clear_is_not_taken_for_the_clear_again(assets: Assets):
    store = Store()
    execute_tries(assets, store, 1)
    cleared = remember(assets, make_context(store, try_number=2, max_tries=4))
    time.sleep(0.02)
    retried = remember(assets, make_context(store, try_number=3, max_tries=4))
    assert retried.identity == cleared.identity
    assert retried.saved_at <= cleared.saved_at, "it is long ago that anything was noted"


def test_quota_that_is_there_again_is_used_after_a_clear(assets: Assets):
    """The one that met its end was half a success, and stays so."""
    store = Store()
    server = assets.catalog.server
    server.set_run_outcome(
        assets.identifiers[1],
        statuses={"BUSINESS_NAMES": "FAILED"},
        error_messages={"BUSINESS_NAMES": "business name generation has reached monthly quota"},
    )
    (first,) = execute_tries(assets, store, 1, max_concurrent_runs=1)
    assert isinstance(first, QuotaUsedUpError)
    summary = assets.operator().execute(make_context(store, try_number=2, max_tries=4))
    assert (summary["succeeded"], summary["partially_succeeded"]) == (5, 1)
    assert [len(runs) for runs in list_runs(assets)] == [1] * 6


def test_list_that_has_changed_keeps_what_is_known(assets: Assets):
    store = Store()
    everything = list(assets.identifiers)
    set_outcomes(assets.catalog.server, everything[0], "FAILED SUCCEEDED")
    assets.identifiers = everything[:4]
    execute_tries(assets, store, 1)
    assets.identifiers = [everything[5], *everything[:3]]
    summary = assets.operator().execute(make_context(store, try_number=2))
    assert (summary["total"], summary["succeeded"]) == (4, 4)
    assets.identifiers = everything
    assert [len(runs) for runs in list_runs(assets)] == [2, 1, 1, 1, 0, 1]


def test_other_types_are_another_batch(assets: Assets):
    store = Store()
    first = remember(assets, make_context(store))
    first.save(
        [
            AssetRow(row.asset_identifier, None, row.owning_project_identifier, 1, "run")
            for row in assets.rows()
        ]
    )
    other = remember(assets, make_context(store, try_number=2), ["BUSINESS_NAMES"])
    assert other.identity != first.identity
    recalled = other.load(assets.rows(), allow_partial_success=True)
    assert [row.run_identifier for row in recalled] == [None] * 6
    assert other.saved_at == 0.0, "what an earlier try started for it is not known"


def test_partial_success_is_done_again_where_it_is_no_longer_allowed(assets: Assets):
    store = Store()
    rows = assets.rows()
    for row in rows:
        row.run_identifier, row.status = "run", "PARTIALLY_SUCCEEDED"
    remember(assets, make_context(store)).save(rows)
    memory = remember(assets, make_context(store, try_number=2))
    assert memory.load(assets.rows(), allow_partial_success=True) == rows
    recalled = memory.load(assets.rows(), allow_partial_success=False)
    assert [(row.run_identifier, row.submission) for row in recalled] == [(None, 2)] * 6


def many_rows(number: int) -> list[AssetRow]:
    random = Random(number)

    def identifier() -> str:
        return "".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=36))

    return [AssetRow(identifier(), None, "project", 1, identifier()) for _ in range(number)]


class SizedStore(Store):
    """Airflow warns beyond 64 KB for a key; and whoever writes may be killed between two keys."""

    def __init__(self) -> None:
        super().__init__()
        self.left: float = float("inf")

    def set(self, key: str, value: Any) -> None:
        if self.left <= 0:
            raise OSError("killed")
        self.left -= 1
        assert len(json.dumps(value)) < 64_000
        super().set(key, value)


def test_memory_of_thousands_is_kept_in_parts_that_grow_and_shrink(assets: Assets):
    store = SizedStore()
    for try_number, number in enumerate([10, 4000, 100, 2000, 5], start=1):
        rows = many_rows(number)
        remember(assets, make_context(store, try_number=try_number)).save(rows)
        memory = remember(assets, make_context(store, try_number=try_number + 1))
        fresh = [AssetRow(row.asset_identifier, None, "project") for row in rows]
        assert own(memory.load(fresh, allow_partial_success=True)) == rows
        assert memory.saved_at > 0
    assert len(store._values) > 5, "there were parts"


@pytest.mark.parametrize("before", [10, 2500])
def test_memory_is_the_old_or_the_new_wherever_the_writing_was_interrupted(assets: Assets, before: int):
    old, new = many_rows(before), many_rows(2000)
    fresh = [AssetRow(row.asset_identifier, None, "project") for row in [*old, *new]]
    seen = set()
    for sets in itertools.count():
        store = SizedStore()
        remember(assets, make_context(store)).save(old, 1.0)
        store.left = sets
        memory = remember(assets, make_context(store, try_number=2))
        try:
            memory.save(new, 2.0)
        except OSError:
            ended = False
        else:
            ended = True
        store.left = float("inf")
        memory = remember(assets, make_context(store, try_number=3))
        recalled = own(memory.load(fresh, allow_partial_success=True))
        known = [row for row in recalled if row.run_identifier]
        assert (known, memory.saved_at) in ((old, 1.0), (new, 2.0))
        seen.add(memory.saved_at)
        if ended:
            break
    assert seen == {1.0, 2.0}
    assert sets > 3


@pytest.mark.parametrize("broken", ["not base85 \x00", "", 5, None])
def test_memory_that_somebody_has_changed_is_none(assets: Assets, broken: Any):
    store = Store()
    rows = assets.rows()
    for row in rows:
        row.run_identifier = "run"
    remember(assets, make_context(store)).save(rows)
    (part,) = [key for key in store._values if key.endswith("_0")]
    store.set(part, broken)
    memory = remember(assets, make_context(store, try_number=2))
    recalled = memory.load(assets.rows(), allow_partial_success=True)
    assert [row.run_identifier for row in recalled] == [None] * 6
    assert memory.saved_at == 0.0, "so that DataZone is asked"


def test_worker_notes_how_far_it_is_while_it_works(assets: Assets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "REPORT_INTERVAL", 0.01)
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    store = Store()
    noted: list[int] = []
    note = BatchMemory.save

    def observed(self: BatchMemory, rows: list[AssetRow], saved_at: float | None = None) -> None:
        note(self, rows, saved_at)
        memory = remember(assets, make_context(store, try_number=2))
        recalled = memory.load(assets.rows(), allow_partial_success=True)
        runs = [row.run_identifier for row in recalled if row.run_identifier is not None]
        noted.append(len(runs))
        if len(runs) in (3, 6):
            # No other is started before.
            for run in runs:
                server.set_run_status(run, "SUCCEEDED")

    monkeypatch.setattr(BatchMemory, "save", observed)
    assets.operator(max_concurrent_runs=3).execute(make_context(store))
    assert noted == sorted(noted)
    assert {3, 6} <= set(noted)
