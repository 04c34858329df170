"""A user marks tasks as failed in an Airflow deployment, while they start runs and while they are deferred.

`tests/integration/kills/` covers more states, and more runs than a task can cancel in time. `test_start.py` covers a
start that waits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.conftest import make_catalog
from tests.dags.kills import TASK_ID
from tests.faults.test_start import TRIGGER_IS_NOTIFIED
from tests.faults.workers import HEARTBEAT_TIMEOUT
from tests.system.conftest import pytest_runtest_makereport as pytest_runtest_makereport
from tests.system.deployment import AIRFLOW_2, Deployment

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

DAG_FILE = "kills.py"
START, CANCEL = "StartMetadataGenerationRun", "CancelMetadataGenerationRun"
# The published quotas for each account and Region.
STARTS_PER_SECOND, CANCELS_PER_SECOND = 10, 20
# Cancel requests above the rate that can arrive within a second although the task sends them at the rate.
BURST = 5
# Seconds until DataZone responds to a slow start request.
SLOW_START = 3.0
# A worker detects a kill at its next heartbeat, here after one second at most.
MORE_SETTINGS = (
    {"SCHEDULER__JOB_HEARTBEAT_SEC": 1}
    if AIRFLOW_2
    else {"WORKERS__MIN_HEARTBEAT_INTERVAL": 1, "WORKERS__MAX_FAILED_HEARTBEATS": HEARTBEAT_TIMEOUT}
)
# Seconds until a request in flight arrives, on a busy machine.
REQUEST_LATENCY = 1.0


class Row:
    """A task whose runs are active until it cancels them, with the rate limits of DataZone."""

    def __init__(self, deployment: Deployment, server: DataZoneServer, name: str, assets: int) -> None:
        self.deployment = deployment
        self.server = server
        self.name = name
        server.reset()
        server.set_run_outcome(in_progress_seconds=3600, times=None)
        server.limit(START, STARTS_PER_SECOND)
        server.limit(CANCEL, CANCELS_PER_SECOND)
        self.catalog = make_catalog(server)
        owner = {
            "domain_identifier": self.catalog.domain_identifier,
            "project_identifier": self.catalog.project_identifier,
        }
        self._assets = [server.create_asset(**owner).asset_identifier for _ in range(assets)]
        self._process = deployment.home / f"{name}.process"

    def begin(self) -> None:
        """Trigger the DAG run."""
        conf = {
            "assets": self._assets,
            "domain_identifier": self.catalog.domain_identifier,
            "owning_project_identifier": self.catalog.project_identifier,
            "process": str(self._process),
        }
        self.deployment.trigger(self.name, self.name, conf)

    def wait_for(self, what: str, condition: Callable[[], Any]) -> None:
        self.deployment.wait_for(what, condition, seconds=90)

    def received(self, operation: str) -> list[float]:
        """Return the time of each request for an operation."""
        return [r.received_at for r in self.server.requests if r.operation == operation]

    def wait_for_starts(self, number: int) -> None:
        self.wait_for(f"{number} starts", lambda: len(self.received(START)) >= number)

    def mark_failed(self) -> None:
        """Mark the task as failed like a user."""
        body: dict[str, Any] = {"new_state": "failed"}
        if AIRFLOW_2:
            body["dry_run"] = False
        path = f"/dags/{self.name}/dagRuns/{self.name}/taskInstances/{TASK_ID}"
        self.deployment.request("PATCH", path, body)

    def kill(self) -> None:
        """Mark the task as failed, then wait until its process has ended."""
        self.mark_failed()
        process = int(self._process.read_text(encoding="utf-8"))
        self.wait_for("the process' end", lambda: not psutil.pid_exists(process))

    def statuses(self) -> Counter[str]:
        """Count the runs by status."""
        pages = self.server.client().get_paginator("list_metadata_generation_runs")
        listed = pages.paginate(domainIdentifier=self.catalog.domain_identifier)
        return Counter(run["status"] for page in listed for run in page["items"])

    def trigger_log(self) -> list[str]:
        """Return the log lines of the trigger."""
        logs = (self.deployment.home / "logs" / f"dag_id={self.name}").rglob("*.trigger.*.log")
        return [line for log in logs for line in log.read_text("utf-8", "replace").splitlines()]

    def check_all_canceled(self, in_flight: float = 0.0) -> None:
        """
        Check that the task canceled all runs and started none after the first cancel request.

        :param in_flight: Seconds until DataZone has processed all requests of the task.
        """
        time.sleep(REQUEST_LATENCY + in_flight)
        logs = (self.deployment.home / "logs" / f"dag_id={self.name}").rglob("*.log*")
        print(self.statuses(), *(log.read_text("utf-8", "replace") for log in sorted(logs)), sep="\n")
        cancels = self.received(CANCEL)
        began = min(cancels, default=time.monotonic())
        late = [at - began for at in self.received(START) if at > began + REQUEST_LATENCY]
        assert late == [], "seconds between the first cancel request and later start requests"
        assert set(self.statuses()) == {"CANCELED"}
        busiest = max(sum(at <= other < at + 1 for other in cancels) for at in cancels)
        assert busiest <= CANCELS_PER_SECOND + BURST


def test_killed_batch_cancels_all_runs_while_it_starts_runs(
    deployment: Deployment, datazone_server: DataZoneServer
) -> None:
    # More assets than the task can start before it detects the kill.
    row = Row(deployment, datazone_server, "killed_while_starting", 200)
    row.begin()
    row.wait_for_starts(10)
    row.kill()
    row.check_all_canceled()


@pytest.mark.skipif(not TRIGGER_IS_NOTIFIED, reason="Airflow notifies the trigger since 3.3")
def test_killed_batch_cancels_all_runs_while_deferred(
    deployment: Deployment, datazone_server: DataZoneServer
) -> None:
    row = Row(deployment, datazone_server, "killed_while_deferred", 100)
    datazone_server.fail(START, "hang", seconds=SLOW_START, times=None)
    triggerer = deployment.start_component("triggerer", "--skip-serve-logs")
    row.begin()
    row.wait_for_starts(16)
    row.mark_failed()
    row.wait_for(
        "the trigger's end",
        lambda: any("trigger completed" in line and row.name in line for line in row.trigger_log()),
    )
    # The triggerer continues, and can still be canceling when Airflow reports the trigger as completed.
    row.wait_for("the runs' end", lambda: set(row.statuses()) == {"CANCELED"})
    row.check_all_canceled(SLOW_START)
    deployment.kill(triggerer)


def test_killed_start_cancels_its_run_before_the_response(
    deployment: Deployment, datazone_server: DataZoneServer
) -> None:
    row = Row(deployment, datazone_server, "killed_before_answer", 1)
    datazone_server.fail(START, "hang", seconds=SLOW_START)
    row.begin()
    row.wait_for_starts(1)
    row.kill()
    row.check_all_canceled(SLOW_START)
    assert row.statuses() == {"CANCELED": 1}
