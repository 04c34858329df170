"""A batch starts, accepts and publishes once for each asset, even if its process is killed at random moments."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

import psutil

from tests.dags.batch_kills import TASK_ID
from tests.faults.workers import DETECT_DEAD_TASKS, RETRIES_KILLED_TASKS, kill_worker
from tests.system.conftest import pytest_runtest_makereport as pytest_runtest_makereport
from tests.system.deployment import Deployment

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer

# Small numbers for a quick test; `make bench` kills 10 times with 300 assets.
ASSETS = int(os.environ.get("DATAZONE_TEST_ASSETS", "60"))
KILLS = int(os.environ.get("DATAZONE_TEST_KILLS", "3"))
SECONDS_PER_KILL = 90
STARTS_PER_SECOND = 20
# The requests that change something, one for each asset.
CHANGES = {"StartMetadataGenerationRun", "AcceptPredictions", "CreateListingChangeSet"}
DAG_FILE = "batch_kills.py"
# Use Airflow's defaults except for the rates, because Airflow replaces workers and triggerers immediately. Only
# Airflow 3.0 has to detect dead workers.
SETTINGS = {
    **({} if RETRIES_KILLED_TASKS else DETECT_DEAD_TASKS),
    "DATAZONE__MAX_STARTS_PER_SECOND": STARTS_PER_SECOND,
    "DATAZONE__MAX_ACCEPTS_PER_SECOND": STARTS_PER_SECOND,
    "DATAZONE__MAX_REQUESTS_PER_SECOND": 10 * STARTS_PER_SECOND,
}
WITH_REST_API = False


class Batch:
    """A DAG run with a batch whose assets have unique error messages."""

    def __init__(self, deployment: Deployment, server: DataZoneServer, dag_id: str) -> None:
        self.deployment = deployment
        self.server = server
        self.dag_id = dag_id
        self.process = deployment.home / f"{dag_id}.process"
        first = server.create_asset("table")
        self.assets = [first, *(self._create(first) for _ in range(ASSETS - 1))]
        for number, asset in enumerate(self.assets):
            server.set_run_outcome(
                asset.asset_identifier,
                statuses={"BUSINESS_NAMES": "FAILED"},
                error_messages={"BUSINESS_NAMES": f"no names for {number}"},
                in_progress_seconds=0.7,
                times=None,
            )
        conf = {
            "assets": [asset.asset_identifier for asset in self.assets],
            "domain_identifier": first.domain_identifier,
            "owning_project_identifier": first.project_identifier,
            "process": str(self.process),
        }
        deployment.run("dags", "trigger", dag_id, "--run-id", dag_id, "--conf", json.dumps(conf))

    def _create(self, first: AssetIdentifiers) -> AssetIdentifiers:
        domain, project, _ = first
        return self.server.create_asset("table", domain_identifier=domain, project_identifier=project)

    def runs(self) -> dict[str, list[dict[str, Any]]]:
        """Return the runs of each asset."""
        client = self.server.client()
        domain = self.assets[0].domain_identifier
        found: dict[str, list[dict[str, Any]]] = {asset.asset_identifier: [] for asset in self.assets}
        pages = client.get_paginator("list_metadata_generation_runs").paginate(domainIdentifier=domain)
        for item in (item for page in pages for item in page["items"]):
            found[item["target"]["identifier"]].append(item)
        return found

    def changes(self) -> int:
        """Return the number of requests that change something, without repetitions."""
        identifiers = {asset.asset_identifier for asset in self.assets}
        changes = set()
        for request in self.server.requests:
            if request.operation in CHANGES:
                parameters = request.parameters
                target = parameters.get("target", {}).get("identifier")
                asset = target or parameters.get("identifier") or parameters.get("entityIdentifier")
                changes.add((request.operation, asset))
        return sum(asset in identifiers for _, asset in changes)

    def published(self) -> dict[str, tuple[str, str | None]]:
        """Return the revision of each asset, and the number of its publications."""
        client, domain = self.server.client(), self.assets[0].domain_identifier
        found = {}
        for asset in (asset.asset_identifier for asset in self.assets):
            details = client.get_asset(domainIdentifier=domain, identifier=asset)
            listing = details["listing"]["listingId"]
            published = client.get_listing(domainIdentifier=domain, identifier=listing)
            found[asset] = (details["revision"], published["listingRevision"])
        return found

    def state(self) -> str | None:
        (instance,) = self.deployment.task_instances(self.dag_id, TASK_ID)
        return instance.state

    def results(self) -> list[dict[str, Any]]:
        sql = "SELECT value FROM xcom WHERE dag_id = ? AND task_id = ? AND key = 'results'"
        ((value,),) = self.deployment.query(sql, self.dag_id, TASK_ID)
        while isinstance(value, (str, bytes)):  # The column of type JSON contains encoded JSON.
            value = json.loads(value)
        return list(value)

    def kill_at_random(self, kill: Callable[[], None]) -> None:
        """Kill at random moments, then wait until the task ends."""
        moments = Random(f"{self.dag_id} {ASSETS}").sample(range(1, len(CHANGES) * ASSETS), KILLS)
        for moment in sorted(moments):
            self._wait_for_changes(moment)
            kill()
        seconds = SECONDS_PER_KILL + 4 * ASSETS / STARTS_PER_SECOND
        self.deployment.wait_for("the end", lambda: self.state() in ("success", "failed"), seconds=seconds)

    def _wait_for_changes(self, number: int) -> None:
        what = f"{number} changes"
        self.deployment.wait_for(what, lambda: self.changes() >= number, seconds=SECONDS_PER_KILL)

    def check(self) -> None:
        assert self.state() == "success"
        runs = self.runs()
        assert {asset: [run["status"] for run in found] for asset, found in runs.items()} == {
            asset.asset_identifier: ["PARTIALLY_SUCCEEDED"] for asset in self.assets
        }
        results = self.results()
        assert [row["asset"] for row in results] == [asset.asset_identifier for asset in self.assets]
        for number, row in enumerate(results):
            assert row["run"] == runs[row["asset"]][0]["id"]
            assert row["typeStats"][1]["errorMessage"] == f"no names for {number}"
            assert row["revision"] == "2"
        # Accepting creates one revision, and each publication one revision of the listing.
        assert self.published() == {asset.asset_identifier: ("2", "1") for asset in self.assets}


def test_batch_survives_kills_of_its_worker(deployment: Deployment, datazone_server: DataZoneServer) -> None:
    batch = Batch(deployment, datazone_server, "batch_in_worker")

    def kill() -> None:
        deployment.wait_for("a worker", batch.process.exists)
        process = int(batch.process.read_text(encoding="utf-8"))
        batch.process.unlink()
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if RETRIES_KILLED_TASKS:
                os.kill(process, signal.SIGKILL)
            else:
                kill_worker(process)

    batch.kill_at_random(kill)
    batch.check()
    (instance,) = deployment.task_instances(batch.dag_id, TASK_ID)
    assert instance.try_number > 1


def test_batch_survives_kills_of_its_triggerer(
    deployment: Deployment, datazone_server: DataZoneServer
) -> None:
    triggerers = [deployment.start_component("triggerer", "--skip-serve-logs")]
    batch = Batch(deployment, datazone_server, "batch_in_triggerer")

    def kill() -> None:
        deployment.kill(triggerers[-1])
        triggerers.append(deployment.start_component("triggerer", "--skip-serve-logs"))

    batch.kill_at_random(kill)
    batch.check()
    (instance,) = deployment.task_instances(batch.dag_id, TASK_ID)
    assert instance.try_number == 1
