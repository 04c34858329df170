"""The state that a batch keeps across tries."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_datazone.batch import engine, starts
from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.batch.memory import BatchMemory
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    QuotaUsedUpError,
    RequestRefusedError,
)
from airflow_provider_datazone.operators.batch_execution import BatchExecution
from tests.conftest import once
from tests.dags.batch_outcomes import TYPES
from tests.integration.batch.tasks import (
    Assets,
    execute_tries,
    list_runs,
    make_memory,
    rows_of,
    set_outcomes,
    without_adoption,
)
from tests.integration.submission.tries import forget_tokens
from tests.task_context import Store, make_context

pytestmark = pytest.mark.usefixtures("unhurried")


def test_retries_start_runs_only_for_failed_assets(assets: Assets, store: Store | None):
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


def test_retry_with_the_types_in_another_order_repeats_no_run(assets: Assets, store: Store | None):
    set_outcomes(assets.catalog.server, assets.identifiers[2], "FAILED SUCCEEDED")
    with pytest.raises(BatchFailedError):
        assets.operator(types=TYPES).execute(make_context(store))
    assets.operator(types=TYPES[::-1]).execute(make_context(store, try_number=2))
    assert [len(runs) for runs in list_runs(assets)] == [1, 1, 2, 1, 1, 1]


def test_retry_starts_a_run_for_a_rejected_asset(assets: Assets, store: Store | None):
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
def test_retry_resumes_the_runs_of_a_killed_worker(
    assets: Assets, store: Store | None, ended: bool, monkeypatch: pytest.MonkeyPatch
):
    """The operating system kills the worker before it can save its state. Active runs are found without a token."""
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    monkeypatch.setattr(starts, "HANDOVER_SECONDS", 0.0)
    task = assets.operator(poll_interval=0.02)

    class Killed(BaseException):
        pass

    def fail_to_save(self: BatchMemory, rows: list[AssetRow], saved_at: float | None = None) -> None:
        raise Killed

    async def run_until_killed(work: Any, domain: str) -> None:
        running = asyncio.ensure_future(work)
        while sum(row.is_active for row in rows_of(task)) < 4:
            await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait({running})

    with monkeypatch.context() as patch:
        patch.setattr(BatchMemory, "save", fail_to_save)
        patch.setattr(
            BatchExecution,
            "_within_execution_timeout",
            lambda self, work, domain: run_until_killed(work, domain),
        )
        with pytest.raises(Killed):
            task.execute(make_context(store))
    existing = list_runs(assets)
    assert sum(map(len, existing)) >= 4

    def succeed() -> None:
        for run in itertools.chain(*existing):
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
    assert all(before in ([], runs) for before, runs in zip(existing, after, strict=True))


def test_rows_survive_a_save_that_fails_before_a_kill(assets: Assets):
    """The API server is away during some saves, and the worker is killed in the middle of the last one."""

    class Away(Exception):
        pass

    class UnreliableStore(Store):
        sets_left: float = math.inf
        is_response_lost = False

        def set(self, key: str, value: Any) -> None:
            self.sets_left -= 1
            if self.sets_left < 0:
                raise Away
            super().set(key, value)
            if self.is_response_lost and isinstance(value, dict):
                raise Away

    def rows_with(run: str) -> list[AssetRow]:
        # Random, so that two parts are needed.
        letters = Random(0).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=14 * 6000)
        names = ["".join(letters[start : start + 14]) for start in range(0, len(letters), 14)]
        return [AssetRow(name, None, "project", run_identifier=run) for name in names]

    store = UnreliableStore()
    memory = make_memory(assets, make_context(store))
    memory.save(rows_with("first"))
    for sets, is_applied in [(0, False), (1, False), (2, True), (1, False)]:
        # The first part, the second part, and the record; the response to the last one may be lost.
        store.sets_left = math.inf if is_applied else sets
        store.is_response_lost = is_applied
        with pytest.raises(Away):
            memory.save(rows_with("second"))
    store.sets_left, store.is_response_lost = math.inf, False
    fresh = [replace(row, run_identifier=None) for row in rows_with("first")]
    stored = make_memory(assets, make_context(store, try_number=2)).load(fresh, Steps())
    assert {row.run_identifier for row in stored} == {"second"}
    assert all(row.is_adopted for row in stored)


def test_run_that_could_not_be_read_belongs_to_an_earlier_try(assets: Assets):
    store = Store()
    rows = assets.rows()
    rows[0].run_identifier, rows[0].error, rows[0].is_refused = "run0", "AccessDeniedException", True
    make_memory(assets, make_context(store)).save(rows)
    (row, *_) = make_memory(assets, make_context(store, try_number=2)).load(assets.rows(), Steps())
    assert (row.run_identifier, row.error, row.is_adopted) == ("run0", None, True)


def test_clearing_a_successful_task_starts_new_runs_for_all_assets(assets: Assets):
    store = Store()
    execute_tries(assets, store, 1)
    # A kill after the batch succeeds but before Airflow marks the task as successful is not a clear.
    assert assets.operator().execute(make_context(store, try_number=2))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [1] * 6
    # `clear_task_instances` increases `max_tries` in this way.
    assert assets.operator().execute(make_context(store, try_number=3, max_tries=5))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6
    assert assets.operator().execute(make_context(store, try_number=4, max_tries=5))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6


def test_clearing_after_lowering_retries_starts_new_runs(assets: Assets):
    """`retries` is lowered from 2 to 1, so `max_tries` is 2 both before and after the first try is cleared."""
    store = Store()

    def execute(try_number: int, clear_number: int) -> None:
        context = make_context(store, try_number=try_number, max_tries=2)
        context["dag_run"].clear_number = clear_number
        context["task"] = SimpleNamespace(retries=2 if clear_number == 0 else 1)
        assert assets.operator().execute(context)["succeeded"] == 6

    execute(1, 0)
    execute(2, 1)
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6
    # A kill after the batch succeeds, before Airflow records the success.
    execute(3, 1)
    assert [len(runs) for runs in list_runs(assets)] == [2] * 6


def test_clearing_a_failed_task_starts_runs_only_for_failed_assets(assets: Assets):
    store = Store()
    set_outcomes(assets.catalog.server, assets.identifiers[3], "FAILED SUCCEEDED")
    execute_tries(assets, store, 1)
    assert assets.operator().execute(make_context(store, try_number=2, max_tries=4))["succeeded"] == 6
    assert [len(runs) for runs in list_runs(assets)] == [1, 1, 1, 2, 1, 1]


def test_retry_after_a_clear_is_not_treated_as_another_clear(assets: Assets):
    store = Store()
    execute_tries(assets, store, 1)
    cleared = make_memory(assets, make_context(store, try_number=2, max_tries=4))
    time.sleep(0.02)
    retried = make_memory(assets, make_context(store, try_number=3, max_tries=4))
    assert retried.identity == cleared.identity
    assert retried.saved_at <= cleared.saved_at, "the time of the last save is not updated"


def test_clearing_after_the_quota_is_renewed_completes_the_batch(assets: Assets):
    """The run that reached the quota is a partial success and is not started again."""
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


def test_retry_with_a_changed_asset_list_keeps_known_runs(assets: Assets):
    store = Store()
    all_assets = list(assets.identifiers)
    set_outcomes(assets.catalog.server, all_assets[0], "FAILED SUCCEEDED")
    assets.identifiers = all_assets[:4]
    execute_tries(assets, store, 1)
    assets.identifiers = [all_assets[5], *all_assets[:3]]
    summary = assets.operator().execute(make_context(store, try_number=2))
    assert (summary["total"], summary["succeeded"]) == (4, 4)
    assets.identifiers = all_assets
    assert [len(runs) for runs in list_runs(assets)] == [2, 1, 1, 1, 0, 1]


def test_batch_with_other_types_does_not_load_stored_runs(assets: Assets):
    store = Store()
    first = make_memory(assets, make_context(store))
    first.save(
        [
            AssetRow(row.asset_identifier, None, row.owning_project_identifier, 1, "run")
            for row in assets.rows()
        ]
    )
    other = make_memory(assets, make_context(store, try_number=2), ["BUSINESS_NAMES"])
    assert other.identity != first.identity
    loaded = other.load(assets.rows(), Steps())
    assert [row.run_identifier for row in loaded] == [None] * 6
    assert other.saved_at == 0.0, "no runs of an earlier try are known for this batch"


def test_partial_success_is_submitted_again_if_no_longer_allowed(assets: Assets):
    store = Store()
    rows = assets.rows()
    for row in rows:
        row.run_identifier, row.status, row.is_token_used = "run", "PARTIALLY_SUCCEEDED", True
    make_memory(assets, make_context(store)).save(rows)
    memory = make_memory(assets, make_context(store, try_number=2))
    assert memory.load(assets.rows(), Steps()) == rows
    loaded = memory.load(assets.rows(), Steps(allow_partial_success=False))
    assert [(row.run_identifier, row.submission) for row in loaded] == [(None, 2)] * 6


def many_rows(number: int) -> list[AssetRow]:
    random = Random(number)

    def identifier() -> str:
        return "".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=36))

    return [AssetRow(identifier(), None, "project", 1, identifier()) for _ in range(number)]


class SizedStore(Store):
    """A store that checks value sizes and can fail between keys: Airflow warns about values above 64 KB."""

    def __init__(self) -> None:
        super().__init__()
        self.remaining_writes: float = float("inf")

    def set(self, key: str, value: Any) -> None:
        if self.remaining_writes <= 0:
            raise OSError("killed")
        self.remaining_writes -= 1
        assert len(json.dumps(value)) < 64_000
        super().set(key, value)


def test_state_of_thousands_of_assets_is_split_across_keys(assets: Assets):
    store = SizedStore()
    for try_number, number in enumerate([10, 4000, 100, 2000, 5], start=1):
        rows = many_rows(number)
        make_memory(assets, make_context(store, try_number=try_number)).save(rows)
        memory = make_memory(assets, make_context(store, try_number=try_number + 1))
        fresh = [AssetRow(row.asset_identifier, None, "project") for row in rows]
        assert without_adoption(memory.load(fresh, Steps())) == rows
        assert memory.saved_at > 0
    assert len(store._values) > 5, "the state spans several keys"


@pytest.mark.parametrize("before", [10, 2500])
def test_interrupted_save_leaves_the_old_or_the_new_state(assets: Assets, before: int):
    old, new = many_rows(before), many_rows(2000)
    fresh = [AssetRow(row.asset_identifier, None, "project") for row in [*old, *new]]
    seen = set()
    for writes in itertools.count():
        store = SizedStore()
        make_memory(assets, make_context(store)).save(old, 1.0)
        store.remaining_writes = writes
        memory = make_memory(assets, make_context(store, try_number=2))
        try:
            memory.save(new, 2.0)
        except OSError:
            completed = False
        else:
            completed = True
        store.remaining_writes = float("inf")
        memory = make_memory(assets, make_context(store, try_number=3))
        loaded = without_adoption(memory.load(fresh, Steps()))
        submitted = [row for row in loaded if row.run_identifier]
        assert (submitted, memory.saved_at) in ((old, 1.0), (new, 2.0))
        seen.add(memory.saved_at)
        if completed:
            break
    assert seen == {1.0, 2.0}
    assert writes > 3


@pytest.mark.parametrize("broken", ["not base85 \x00", "", 5, None])
def test_corrupted_state_is_ignored(assets: Assets, broken: Any):
    store = Store()
    rows = assets.rows()
    for row in rows:
        row.run_identifier = "run"
    make_memory(assets, make_context(store)).save(rows)
    (part,) = [key for key in store._values if key.endswith("_0")]
    store.set(part, broken)
    memory = make_memory(assets, make_context(store, try_number=2))
    loaded = memory.load(assets.rows(), Steps())
    assert [row.run_identifier for row in loaded] == [None] * 6
    assert memory.saved_at == 0.0, "so that the task lists runs in DataZone"


def test_worker_saves_its_progress_while_it_runs(assets: Assets, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "REPORT_INTERVAL", 0.01)
    server = assets.catalog.server
    server.set_run_outcome(in_progress_seconds=3600, times=None)
    store = Store()
    saved_counts: list[int] = []
    save = BatchMemory.save

    def save_and_observe(self: BatchMemory, rows: list[AssetRow], saved_at: float | None = None) -> None:
        save(self, rows, saved_at)
        memory = make_memory(assets, make_context(store, try_number=2))
        loaded = memory.load(assets.rows(), Steps())
        runs = [row.run_identifier for row in loaded if row.run_identifier is not None]
        saved_counts.append(len(runs))
        if len(runs) in (3, 6):
            # max_concurrent_runs delays further starts until these runs end.
            for run in runs:
                server.set_run_status(run, "SUCCEEDED")

    monkeypatch.setattr(BatchMemory, "save", save_and_observe)
    assets.operator(max_concurrent_runs=3).execute(make_context(store))
    assert saved_counts == sorted(saved_counts)
    assert {3, 6} <= set(saved_counts)
