"""Tasks that a user marks as failed in a whole Airflow, in each state of a batch and of a start.

More states, and what becomes of more runs than there is time for, are in `tests/integration/kills/`.
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
from tests.faults.conftest import LOST_AFTER
from tests.faults.test_start import TRIGGER_IS_TOLD
from tests.system.conftest import pytest_runtest_makereport as pytest_runtest_makereport
from tests.system.deployment import AIRFLOW_2, Deployment

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

DAG_FILE = "kills.py"
START, CANCEL, GET = "StartMetadataGenerationRun", "CancelMetadataGenerationRun", "GetMetadataGenerationRun"
# What AWS publishes, by account and Region.
STARTS_PER_SECOND, CANCELS_PER_SECOND = 10, 20
# Cancels in a second, above the rate, that arrive there though they were sent at it.
BUNCHED = 5
# Seconds that a slow Start takes.
SLOW = 3.0
# A worker hears of a kill at a heartbeat; a second later at most.
MORE_SETTINGS = (
    {"SCHEDULER__JOB_HEARTBEAT_SEC": 1}
    if AIRFLOW_2
    else {"WORKERS__MIN_HEARTBEAT_INTERVAL": 1, "WORKERS__MAX_FAILED_HEARTBEATS": LOST_AFTER}
)
# Seconds in which a request that is being sent arrives, on a busy machine.
REACTION = 1.0


class Row:
    """A task about assets whose runs go on until they are canceled, at DataZone's own rates."""

    def __init__(self, deployment: Deployment, server: DataZoneServer, name: str, assets: int) -> None:
        self.deployment = deployment
        self.server = server
        self.name = name
        server.reset()
        server.set_run_outcome(in_progress_seconds=3600, times=None)
        server.limit(START, STARTS_PER_SECOND)
        server.limit(CANCEL, CANCELS_PER_SECOND)
        self.catalog = make_catalog(server)
        where = {
            "domain_identifier": self.catalog.domain_identifier,
            "project_identifier": self.catalog.project_identifier,
        }
        self._assets = [server.create_asset(**where).asset_identifier for _ in range(assets)]
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
        """Return when each request for an operation was received."""
        return [r.received_at for r in self.server.requests if r.operation == operation]

    def wait_for_starts(self, number: int) -> None:
        self.wait_for(f"{number} starts", lambda: len(self.received(START)) >= number)

    def mark_failed(self) -> None:
        """Mark the task as failed, as a user does."""
        body: dict[str, Any] = {"new_state": "failed"}
        if AIRFLOW_2:
            body["dry_run"] = False
        path = f"/dags/{self.name}/dagRuns/{self.name}/taskInstances/{TASK_ID}"
        self.deployment.request("PATCH", path, body)

    def kill(self) -> None:
        """Mark the task as failed, and wait until its process is gone."""
        self.mark_failed()
        process = int(self._process.read_text(encoding="utf-8"))
        self.wait_for("the process' end", lambda: not psutil.pid_exists(process))

    def statuses(self) -> Counter[str]:
        """Count the runs by status."""
        pages = self.server.client().get_paginator("list_metadata_generation_runs")
        listed = pages.paginate(domainIdentifier=self.catalog.domain_identifier)
        return Counter(run["status"] for page in listed for run in page["items"])

    def trigger_log(self) -> list[str]:
        """Return what the trigger has logged."""
        logs = (self.deployment.home / "logs" / f"dag_id={self.name}").rglob("*.trigger.*.log")
        return [line for log in logs for line in log.read_text("utf-8", "replace").splitlines()]

    def check_that_nothing_is_left(self, in_flight: float = 0.0) -> None:
        """
        Check that nothing was started once runs were canceled, and that all of them were.

        :param in_flight: Seconds after which all that the task has sent is carried out.
        """
        time.sleep(REACTION + in_flight)
        logs = (self.deployment.home / "logs" / f"dag_id={self.name}").rglob("*.log*")
        print(self.statuses(), *(log.read_text("utf-8", "replace") for log in sorted(logs)), sep="\n")
        cancels = self.received(CANCEL)
        began = min(cancels, default=time.monotonic())
        late = [at - began for at in self.received(START) if at > began + REACTION]
        assert late == [], "seconds after the first Cancel at which runs were started"
        assert set(self.statuses()) == {"CANCELED"}
        busiest = max(sum(at <= other < at + 1 for other in cancels) for at in cancels)
        assert busiest <= CANCELS_PER_SECOND + BUNCHED


def test_batch_that_is_killed_while_it_starts_runs_leaves_none(
    deployment: Deployment, datazone_server: DataZoneServer
) -> None:
    # More than it starts until it hears of it.
    row = Row(deployment, datazone_server, "killed_while_starting", 200)
    row.begin()
    row.wait_for_starts(10)
    row.kill()
    row.check_that_nothing_is_left()


def test_batch_that_is_killed_at_its_highest_number_of_runs_leaves_none(
    deployment: Deployment, datazone_server: DataZoneServer
) -> None:
    row = Row(deployment, datazone_server, "killed_at_most_runs", 60)
    row.begin()
    row.wait_for_starts(25)
    row.kill()
    row.check_that_nothing_is_left()
    assert row.statuses() == {"CANCELED": 25}


def test_batch_that_is_killed_when_it_only_waits_leaves_no_run(
    deployment: Deployment, datazone_server: DataZoneServer
) -> None:
    row = Row(deployment, datazone_server, "killed_while_waiting_for_all", 30)
    row.begin()
    row.wait_for_starts(30)
    row.kill()
    row.check_that_nothing_is_left()
    assert row.statuses() == {"CANCELED": 30}


@pytest.mark.skipif(not TRIGGER_IS_TOLD, reason="a trigger is told from Airflow 3.3 on")
def test_batch_that_is_killed_while_it_is_deferred_leaves_no_run(
    deployment: Deployment, datazone_server: DataZoneServer
) -> None:
    row = Row(deployment, datazone_server, "killed_while_deferred", 100)
    datazone_server.fail(START, "hang", seconds=SLOW, times=None)
    triggerer = deployment.start_component("triggerer", "--skip-serve-logs")
    row.begin()
    row.wait_for_starts(16)
    row.mark_failed()
    row.wait_for(
        "the trigger's end",
        lambda: any("trigger completed" in line and row.name in line for line in row.trigger_log()),
    )
    # The triggerer lives on, and may not be done when Airflow takes the trigger for completed.
    row.wait_for("the runs' end", lambda: set(row.statuses()) == {"CANCELED"})
    row.check_that_nothing_is_left(SLOW)
    deployment.kill(triggerer)


def test_start_that_is_killed_before_its_answer_leaves_no_run(
    deployment: Deployment, datazone_server: DataZoneServer
) -> None:
    row = Row(deployment, datazone_server, "killed_before_answer", 1)
    datazone_server.fail(START, "hang", seconds=SLOW)
    row.begin()
    row.wait_for_starts(1)
    row.kill()
    row.check_that_nothing_is_left(SLOW)
    assert row.statuses() == {"CANCELED": 1}


def test_start_that_is_killed_while_it_waits_leaves_no_run(
    deployment: Deployment, datazone_server: DataZoneServer
) -> None:
    row = Row(deployment, datazone_server, "killed_while_waiting", 1)
    row.begin()
    row.wait_for("a wait", lambda: len(row.received(GET)) >= 2)
    row.kill()
    row.check_that_nothing_is_left()
    assert row.statuses() == {"CANCELED": 1}
