"""No fault makes a task accept predictions or publish an asset twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import REPOSITORY
from tests.dags.publish_faults import FAULTS, TASK_ID, TASKS
from tests.faults.workers import ATTEMPTS, kill_worker, mark

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer
    from tests.system.deployment import Deployment

DAG_FILE = "publish_faults.py"
ACCEPT, PUBLISH = "AcceptPredictions", "CreateListingChangeSet"
# Seconds for all rows, including the time until Airflow detects a dead worker.
SECONDS = 400


class Row(NamedTuple):
    """
    A fault and its expected outcome.

    :param name: The DAG id.
    :param fault: The description of the fault in the documentation.
    :param tries: The number of tries of the task.
    :param what: The description of the outcome in the documentation.
    """

    name: str
    fault: str
    tries: int
    what: str

    @property
    def operation(self) -> str:
        """The operation that the fault concerns."""
        return ACCEPT if "accept" in self.name else PUBLISH

    @property
    def revision(self) -> str:
        """The expected revision of the asset: accepting creates one."""
        return "1" if self.name.startswith("publish") else "2"

    @property
    def is_published(self) -> bool:
        return not self.name.startswith("accept")


RETRY = "The retry sends the same client token, and DataZone does not repeat the change."
ROWS = [
    Row("accept_lost", "Answer to Accept lost, in each of botocore's attempts", 2, RETRY),
    Row("accept_throttled", "Accept throttled, in each of botocore's attempts", 2, "The retry accepts."),
    Row("accept_killed", "Worker killed after DataZone has processed Accept", 2, RETRY),
    Row("publish_lost", "Answer to Publish lost, in each of botocore's attempts", 2, RETRY),
    Row("publish_throttled", "Publish throttled, in each of botocore's attempts", 2, "The retry publishes."),
    Row("publish_killed", "Worker killed after DataZone has processed Publish", 2, RETRY),
    Row(
        "batch_accept_lost",
        "Batch: answer to Accept lost",
        1,
        "The batch sends the request again, with the same client token.",
    ),
    Row(
        "batch_accept_throttled",
        "Batch: Accept throttled",
        1,
        "The batch sends the request again, at a lower rate.",
    ),
    Row("batch_accept_killed", "Batch: worker killed after DataZone has processed Accept", 2, RETRY),
    Row(
        "batch_publish_lost",
        "Batch: answer to Publish lost",
        1,
        "The batch sends the request again, with the same client token.",
    ),
    Row(
        "batch_publish_throttled",
        "Batch: Publish throttled",
        1,
        "The batch sends the request again, at a lower rate.",
    ),
    Row("batch_publish_killed", "Batch: worker killed after DataZone has processed Publish", 2, RETRY),
]


class Outcome(NamedTuple):
    """
    The state at the end of a row.

    :param state: The state of the task instance.
    :param try_number: The number of its last try.
    :param runs: The number of metadata generation runs of the asset.
    :param requests: The number of requests of the operation that the fault concerns.
    :param revision: The revision of the asset.
    :param listing_revision: The revision of the listing, one per publication; ``None`` without a listing.
    """

    state: str | None
    try_number: int
    runs: int
    requests: int
    revision: str
    listing_revision: str | None


def begin(
    deployment: Deployment, server: DataZoneServer, row: Row, asset: AssetIdentifiers, marks: Path
) -> None:
    """Let the request fail, and trigger the DAG run."""
    error, options = {
        "lost": ("drop", {"after": True, "times": ATTEMPTS}),
        "throttled": ("ThrottlingException", {"times": ATTEMPTS}),
        "killed": ("hang", {"after": True}),
    }[row.name.rpartition("_")[2]]
    server.fail(row.operation, error, asset_identifier=asset.asset_identifier, **options)  # type: ignore[arg-type]
    conf = {
        "asset": asset.asset_identifier,
        "domain_identifier": asset.domain_identifier,
        "owning_project_identifier": asset.project_identifier,
        "marks": str(marks),
    }
    deployment.trigger(row.name, row.name, conf)


@pytest.fixture(scope="module")
def outcomes(deployment: Deployment, datazone_server: DataZoneServer) -> Iterator[dict[str, Outcome]]:
    """Run all rows concurrently."""
    server, client = datazone_server, datazone_server.client()
    marks = deployment.home / "marks"
    marks.mkdir()
    first = server.create_asset()
    domain, project, _ = first
    server.set_run_outcome(polls=0, times=None)
    assets = {
        row.name: server.create_asset(row.name, domain_identifier=domain, project_identifier=project)
        for row in ROWS
    }

    def requests(row: Row) -> int:
        asset = assets[row.name].asset_identifier
        return sum(
            request.operation == row.operation
            and asset in (request.parameters.get("identifier"), request.parameters.get("entityIdentifier"))
            for request in server.requests
        )

    for row in ROWS:
        if row.name.startswith("accept"):
            run = client.start_metadata_generation_run(
                domainIdentifier=domain,
                owningProjectIdentifier=project,
                target={"type": "ASSET", "identifier": assets[row.name].asset_identifier},
                types=["BUSINESS_DESCRIPTIONS"],
            )["id"]
            client.get_metadata_generation_run(domainIdentifier=domain, identifier=run)
        begin(deployment, server, row, assets[row.name], marks)
    to_kill = [row for row in ROWS if row.name.endswith("killed")]

    def are_killed() -> bool:
        # Before the request times out.
        for row in list(to_kill):
            if requests(row):
                kill_worker(int(mark(str(marks), row.name, "process").read_text("utf-8")))
                to_kill.remove(row)
        return not to_kill

    deployment.wait_for("the requests of the workers to kill", are_killed, seconds=SECONDS)

    def have_ended() -> bool:
        states = deployment.query("SELECT state FROM dag_run")
        return len(states) == len(ROWS) and all(state in ("success", "failed") for (state,) in states)

    deployment.wait_for("the end", have_ended, seconds=SECONDS)
    outcomes = {}
    for row in ROWS:
        asset = assets[row.name].asset_identifier
        (instance,) = deployment.task_instances(row.name, TASK_ID)
        runs = client.list_metadata_generation_runs(domainIdentifier=domain, targetIdentifier=asset)["items"]
        details = client.get_asset(domainIdentifier=domain, identifier=asset)
        listing = details.get("listing")
        outcomes[row.name] = Outcome(
            instance.state,
            instance.try_number,
            len(runs),
            requests(row),
            details["revision"],
            listing
            and client.get_listing(domainIdentifier=domain, identifier=listing["listingId"])[
                "listingRevision"
            ],
        )
    yield outcomes
    server.reset()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_fault_causes_no_second_change(outcomes: dict[str, Outcome], row: Row) -> None:
    outcome = outcomes[row.name]
    assert (outcome.state, outcome.try_number) == ("success", row.tries)
    assert outcome.runs == (0 if row.name.startswith("publish") else 1)
    # The request was repeated.
    assert outcome.requests >= 2
    assert outcome.revision == row.revision
    assert outcome.listing_revision == ("1" if row.is_published else None)


def test_every_task_is_tested_with_every_fault() -> None:
    assert {row.name for row in ROWS} == {f"{prefix}_{fault}" for prefix in TASKS for fault in FAULTS}


def test_documentation_lists_the_tested_faults() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = text.partition("\n## Tested faults: accepting and publishing\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert table[2:] == [f"| {row.fault} | {row.tries} | {row.what} |" for row in ROWS]
