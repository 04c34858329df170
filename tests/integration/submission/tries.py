"""A simulated task instance with several tries, and helpers that read its runs and tokens from DataZone."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.idempotency import RunRequest
from airflow_provider_datazone.submission import Submission, Submitted
from airflow_provider_datazone.testing.backend.models import DataZoneBackend, datazone_backends
from tests.task_context import Store

if TYPE_CHECKING:
    import pytest

    from tests.conftest import Catalog

TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
ACTIVE = {"in_progress_seconds": 3600}


class Task:
    """
    The attributes of a task instance that a submission reads, over several tries.

    The fault tests run real Airflow with its own task state store; this class covers every case.
    """

    def __init__(self, catalog: Catalog, *, has_state_store: bool, retries: int = 5) -> None:
        self.catalog = catalog
        self.ti = SimpleNamespace(
            dag_id="enrich", run_id="manual", task_id="start", map_index=-1, try_number=0, max_tries=retries
        )
        self.dag_run = SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), clear_number=0)
        self.task = SimpleNamespace(retries=retries)
        self.context: Any = {"ti": self.ti, "dag_run": self.dag_run, "task": self.task}
        # botocore does not retry.
        self.hook = DataZoneHook("datazone_default", config={"retries": {"total_max_attempts": 1}})
        if has_state_store:
            self.context["task_state_store"] = Store()

    def clear(self) -> None:
        """Clear the task, as Airflow 3.2 and later do in `clear_task_instances`."""
        self.ti.max_tries = self.ti.try_number + self.task.retries
        self.clear_another_task()

    def clear_another_task(self) -> None:
        """Clear another task, which changes the clear number of the DAG run on Airflow 3.2 and later."""
        self.dag_run.clear_number += 1

    def submit(self, **changes: Any) -> Submitted:
        """Run the next try."""
        self.ti.try_number += 1
        request = {
            "asset_identifier": self.catalog.asset_identifier,
            "types": TYPES,
            "domain_identifier": self.catalog.domain_identifier,
            "owning_project_identifier": self.catalog.project_identifier,
            "asset_revision": None,
        }
        options = {"token": None, "allow_partial_success": True}
        for name, value in changes.items():
            (request if name in request else options)[name] = value
        log = logging.getLogger("airflow.task.submission")
        return Submission(self.context, self.hook, RunRequest(**request), log=log, **options).submit()


def runs_of(catalog: Catalog) -> list[str]:
    """Return the identifiers of all runs of the asset, oldest first."""
    found = catalog.server.client().list_metadata_generation_runs(
        domainIdentifier=catalog.domain_identifier, targetIdentifier=catalog.asset_identifier
    )
    return [run["id"] for run in found["items"]]


def tokens_of(catalog: Catalog) -> list[str]:
    requests = catalog.server.requests
    return [r.parameters["clientToken"] for r in requests if r.operation == "StartMetadataGenerationRun"]


def set_run_status(catalog: Catalog, run: str, status: str) -> None:
    catalog.server.set_run_status(run, status)


def forget_tokens(catalog: Catalog) -> None:
    """Delete the client tokens in the local DataZone. It is not known how long DataZone keeps a token."""
    for account in datazone_backends.values():
        for backend in account.values():
            backend.results_by_token.clear()


def keep_listing_as_active(monkeypatch: pytest.MonkeyPatch, catalog: Catalog, run_identifier: str) -> None:
    """
    Make the local DataZone list a run as ``IN_PROGRESS``, whatever Get reports.

    AWS does not document whether List is as current as Get. The local DataZone's List always is.
    """
    original = DataZoneBackend.list_metadata_generation_runs

    def list_outdated(
        self: DataZoneBackend, domain_identifier: str, status: str | None, **rest: Any
    ) -> tuple[list[dict[str, Any]], str | None]:
        items, following = original(self, domain_identifier, status=status, **rest)
        items = [item for item in items if item["id"] != run_identifier]
        if status == "IN_PROGRESS" and rest["target_identifier"] == catalog.asset_identifier:
            outdated = self.get_domain(domain_identifier).run(run_identifier).to_item()
            items.append(outdated | {"status": status})
        return items, following

    monkeypatch.setattr(DataZoneBackend, "list_metadata_generation_runs", list_outdated)
