"""On a conflict, Start adopts the active run or raises the error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from tests.conftest import Clock, make_catalog
from tests.integration.submission.tries import (
    ACTIVE,
    TYPES,
    Task,
    keep_listing_as_active,
    runs_of,
    set_run_status,
    tokens_of,
)

if TYPE_CHECKING:
    from tests.conftest import Catalog


def test_conflict_resumes_the_active_run(task: Task, catalog: Catalog, caplog: pytest.LogCaptureFixture):
    run = catalog.start_run(*TYPES, **ACTIVE)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException")
    with caplog.at_level(logging.INFO):
        submitted = task.submit()
    assert submitted.run.id == run
    assert submitted.adopted
    assert f"Resuming metadata generation run {run}" in caplog.text
    # A retry resumes the adopted run.
    set_run_status(catalog, run, "IN_PROGRESS")
    assert task.submit().run.id == run


@pytest.mark.parametrize("types", [None, ["BUSINESS_NAMES"]], ids=["none", "of another type"])
def test_conflict_without_a_matching_run_raises_the_error(
    task: Task, catalog: Catalog, clock: Clock, types: list[str] | None
):
    if types:
        catalog.start_run(*types, **ACTIVE)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None, message="busy")
    with pytest.raises(ClientError, match="busy"):
        task.submit()
    assert sum(clock.naps) == 30
    # All requests of the try send the token of this submission.
    assert len(set(tokens_of(catalog)[-6:])) == 1


def test_conflict_adopts_a_run_that_is_listed_late(task: Task, catalog: Catalog, clock: Clock):
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None)
    started: list[str] = []

    def sleep(seconds: float) -> None:
        Clock.sleep(clock, seconds)
        if sum(clock.naps) >= 5 and not started:
            catalog.server.recover()
            started.append(catalog.start_run(*TYPES, **ACTIVE))
            catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None)

    clock.sleep = sleep  # type: ignore[method-assign]
    submitted = task.submit()
    assert ([submitted.run.id], submitted.adopted) == (started, True)
    assert sum(clock.naps) == 7


def test_run_is_started_after_a_transient_conflict(task: Task, catalog: Catalog, clock: Clock):
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=2)
    submitted = task.submit()
    assert not submitted.adopted
    assert runs_of(catalog) == [submitted.run.id]
    assert len(set(tokens_of(catalog))) == 1
    assert sum(clock.naps) == 3


def test_run_of_another_asset_or_revision_is_not_adopted(task: Task, catalog: Catalog, clock: Clock):
    other = make_catalog(catalog.server)
    other.start_run(*TYPES, **ACTIVE)
    catalog.start_run(*TYPES, **ACTIVE)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None)
    with pytest.raises(ClientError):
        task.submit(asset_revision="1")


def test_youngest_active_run_is_adopted(catalog: Catalog):
    runs = [catalog.start_run(*TYPES, **ACTIVE) for _ in range(3)]
    catalog.server.set_run_status(runs[1], "SUBMITTED")
    hook = DataZoneHook("datazone_default")
    found = hook.find_active_metadata_generation_run(
        catalog.asset_identifier, types=list(reversed(TYPES)), domain_identifier=catalog.domain_identifier
    )
    assert found is not None
    assert found.id == runs[-1]


def test_ended_run_that_is_still_listed_hides_no_active_run(
    task: Task, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    active = catalog.start_run(*TYPES, **ACTIVE)
    first = task.submit()
    set_run_status(catalog, first.run.id, "FAILED")
    keep_listing_as_active(monkeypatch, catalog, first.run.id)
    catalog.server.fail("StartMetadataGenerationRun", "ConflictException", times=None)
    submitted = task.submit(ended_runs=[first.run.id])
    assert (submitted.run.id, submitted.adopted) == (active, True)
