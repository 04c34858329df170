"""Asset watchers in an Airflow deployment: each run that ends makes one event, in spite of faults."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

from tests.conftest import REPOSITORY, Catalog, make_catalog
from tests.integration.metrics.listener import StatsDListener
from tests.system.conftest import running
from tests.system.database import Postgres
from tests.system.deployment import AIRFLOW_2, Component, Deployment

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer

pytestmark = pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 has no asset watchers")

POLL_INTERVAL = 2.0
REPORTED = "reported"
EXAMPLE = "example_datazone_on_run_ended"
BURST = 20
FILTERED_WATCHERS = 50
PARSES = 10
PARSE_INTERVAL = 5
FAULT_SECONDS = float(os.environ.get("DATAZONE_TEST_FAULT_SECONDS", "60"))
# Every watcher has polled for the first time, or again after a change of its triggerer.
SECONDS_TO_POLL = 3 * POLL_INTERVAL
# Seconds in which a second event of a run would come: the trigger delays an event that follows another one.
SECONDS_OF_SILENCE = 10 + 3 * POLL_INTERVAL
# Whether Airflow has an asset state store, in which the watchers save their runs.
SAVES_RUNS = get_base_airflow_version_tuple() >= (3, 3)
SETTINGS = {
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": PARSE_INTERVAL,
    "DAG_PROCESSOR__REFRESH_INTERVAL": PARSE_INTERVAL,
    "CORE__PARALLELISM": 8,
    # A triggerer of Airflow 3.2 never runs more watchers than this, and the default is 50.
    "TRIGGERER__MAX_TRIGGER_TO_SELECT_PER_LOOP": 100,
}


class Event(NamedTuple):
    """An event of a watcher in Airflow's database."""

    watcher: str
    run: str
    status: str


class Watching:
    """A deployment with watchers of one domain."""

    def __init__(self, deployment: Deployment, server: DataZoneServer) -> None:
        self.deployment = deployment
        self.server = server
        catalog = make_catalog(server)
        self.domain, self.project = catalog.domain_identifier, catalog.project_identifier
        self.asset = catalog.asset_identifier
        self.assets = [self.create_asset(f"asset {number}") for number in range(FILTERED_WATCHERS)]
        # The watcher `reported` gets all runs, and each other one those of an asset with one of two statuses.
        watchers: dict[str, Any] = {REPORTED: {}}
        for number, asset in enumerate(self.assets):
            watchers[f"watcher {number}"] = {
                "asset_identifier": [asset],
                "statuses": ["SUCCEEDED", "FAILED"] if number % 2 else ["PARTIALLY_SUCCEEDED"],
            }
        common = {
            "domain_identifier": self.domain,
            "aws_conn_id": "datazone_default",
            "poll_interval": POLL_INTERVAL,
        }
        configuration = {name: common | arguments for name, arguments in watchers.items()}
        (deployment.home / "dags/watchers.json").write_text(json.dumps(configuration), "utf-8")
        # The domain and the project are the only changes to the example.
        example = (REPOSITORY / f"example_dags/{EXAMPLE}.py").read_text("utf-8")
        (deployment.home / f"dags/{EXAMPLE}.py").write_text(
            example.replace("dzd_example", self.domain).replace("projectexample", self.project), "utf-8"
        )
        self.triggerers: list[Component] = []
        self.number_of_watchers = len(watchers) + 1
        deployment.wait_for("the watchers", lambda: len(self.triggers()) == self.number_of_watchers)

    def create_asset(self, name: str) -> str:
        created: AssetIdentifiers = self.server.create_asset(
            name, domain_identifier=self.domain, project_identifier=self.project
        )
        return created.asset_identifier

    # ------------------------------------------------------------------ runs

    def start(self, asset: str | None = None, status: str = "SUCCEEDED") -> str:
        """Start a run like a user of the portal. It is active until the test ends it."""
        catalog = Catalog(self.server, self.domain, self.project, asset or self.asset)
        run = catalog.start_run(statuses=status, in_progress_seconds=0)
        self.server.set_run_status(run, "IN_PROGRESS")
        return run

    def end(self, *runs: str) -> None:
        for run in runs:
            self.server.set_run_status(run, None)

    # ----------------------------------------------------------------- events

    def triggers(self) -> list[tuple[int, int | None]]:
        """Return the id and the triggerer of each watcher's trigger."""
        return self.deployment.query("SELECT id, triggerer_id FROM trigger ORDER BY id")

    def events(self) -> list[Event]:
        rows = self.deployment.query(
            "SELECT asset.name, asset_event.extra FROM asset_event JOIN asset ON asset.id = asset_event.asset_id"
        )
        found = []
        for watcher, extra in rows:
            members = json.loads(extra) if isinstance(extra, str) else extra
            run = members["payload"]["run"]
            found.append(Event(watcher, run["id"], run["status"]))
        return found

    def count(self, runs: list[str], watcher: str = REPORTED) -> dict[str, int]:
        """Return the number of events of each run."""
        found = Counter(event.run for event in self.events() if event.watcher == watcher)
        return {run: found[run] for run in runs}

    def expect(self, runs: list[str], watcher: str = REPORTED, seconds: float = 120) -> None:
        """Wait for an event of each run, and check that there is no second one."""
        self.deployment.wait_for(
            "the events", lambda: all(self.count(runs, watcher).values()), seconds=seconds
        )
        self.rest(SECONDS_OF_SILENCE)
        assert self.count(runs, watcher) == dict.fromkeys(runs, 1)

    def rest(self, seconds: float) -> None:
        """Sleep, where no condition shows that the deployment is ready or that nothing happened."""
        end = time.monotonic() + seconds
        self.deployment.wait_for("some time", lambda: time.monotonic() > end, seconds=seconds + 60)

    def dag_runs(self) -> list[dict[str, Any]]:
        """Return what the tasks of the DAG `report_runs` wrote."""
        report = self.deployment.home / "dags/report.jsonl"
        return (
            [json.loads(line) for line in report.read_text("utf-8").splitlines()] if report.exists() else []
        )

    def reported_runs(self) -> list[str]:
        return [run["id"] for dag_run in self.dag_runs() for run in dag_run["runs"]]

    # -------------------------------------------------------------- triggerers

    def start_triggerer(self) -> Component:
        component, _ = self.deployment.start_triggerer()
        self.triggerers.append(component)
        return component

    def wait_until_watched(self) -> None:
        """Wait until running triggerers run the watchers, and these follow all active runs."""
        jobs = {job for (job,) in self.deployment.query(LIVING_TRIGGERERS)}
        self.deployment.wait_for(
            "the watchers on a triggerer",
            lambda: (
                {triggerer for _, triggerer in self.triggers()} <= jobs
                or jobs.update(job for (job,) in self.deployment.query(LIVING_TRIGGERERS))
            ),
        )
        # Airflow starts them one after the other, which takes a while on a busy machine.
        self.deployment.wait_for(
            "the start of all watchers", lambda: all(map(self.is_started, self.triggers()))
        )
        polls = self.lists
        self.deployment.wait_for("a poll", lambda: self.lists > polls + 4)
        self.rest(SECONDS_TO_POLL)

    def is_started(self, trigger: tuple[int, int | None]) -> bool:
        return any(f"trigger ID {trigger[0]} starting" in component.output for component in self.triggerers)

    @property
    def lists(self) -> int:
        return self.server.request_counts["ListMetadataGenerationRuns"]


LIVING_TRIGGERERS = "SELECT id FROM job WHERE job_type = 'TriggererJob' AND state = 'running'"


@pytest.fixture(scope="module")
def statsd() -> Iterator[StatsDListener]:
    with StatsDListener() as listener:
        yield listener


@pytest.fixture(scope="module")
def watching(
    tmp_path_factory: pytest.TempPathFactory, datazone_server: DataZoneServer, statsd: StatsDListener
) -> Iterator[Watching]:
    deployment = Deployment(
        tmp_path_factory.mktemp("airflow"),
        REPOSITORY / "tests/dags/watched_runs.py",
        settings=SETTINGS | {f"METRICS__{name}": value for name, value in statsd.settings.items()},
        database=Postgres(),
    )
    with running(deployment, datazone_server):
        watching = Watching(deployment, datazone_server)
        watching.start_triggerer()
        watching.wait_until_watched()
        yield watching


@pytest.fixture(name="deployment")
def expose_deployment(watching: Watching) -> Deployment:
    """Show the logs of the components when a test fails."""
    return watching.deployment


pytestmark = [pytestmark, pytest.mark.usefixtures("deployment")]


# First, since its watcher gets all runs.
def test_example_accepts_and_publishes_or_reports(watching: Watching):
    succeeded, failed = watching.create_asset("succeeds"), watching.create_asset("fails")
    runs = [
        watching.start(succeeded),
        watching.start(failed, "PARTIALLY_SUCCEEDED"),
        watching.start(failed, "CANCELED"),
    ]
    watching.rest(SECONDS_TO_POLL)
    watching.end(*runs)
    expected = {"accept_predictions": 1, "publish": 1, "report_failures": 1}

    def succeeded_tasks() -> dict[str, int]:
        states = "SELECT task_id FROM task_instance WHERE dag_id = ? AND state = 'success'"
        found = Counter(
            task.removeprefix("publish_asset.") for (task,) in watching.deployment.query(states, EXAMPLE)
        )
        return {task: found[task] for task in expected}

    watching.deployment.wait_for(
        "the tasks of the example", lambda: succeeded_tasks() == expected, seconds=240
    )
    client = watching.server.client()
    asset = client.get_asset(domainIdentifier=watching.domain, identifier=succeeded)
    assert asset["revision"] == "2"
    assert asset["listing"]["listingStatus"] == "ACTIVE"
    assert client.get_asset(domainIdentifier=watching.domain, identifier=failed)["revision"] == "1"
    # A watcher of a paused DAG ends. The runs of the other tests would start hundreds of tasks.
    watching.deployment.run("dags", "pause", EXAMPLE)
    watching.deployment.wait_for(
        "the end of the watcher", lambda: len(watching.triggers()) == 1 + FILTERED_WATCHERS
    )


def test_run_that_a_client_starts_triggers_the_dag_once_with_its_type_stats(watching: Watching):
    run = watching.start(status="FAILED")
    watching.rest(SECONDS_TO_POLL)
    watching.end(run)
    watching.expect([run])
    watching.deployment.wait_for("the DAG run", lambda: run in watching.reported_runs())
    (dag_run,) = [dag_run for dag_run in watching.dag_runs() if run in str(dag_run)]
    (payload,) = dag_run["runs"]
    assert payload["status"] == "FAILED"
    assert payload["target"]["identifier"] == watching.asset
    assert [stat["status"] for stat in payload["typeStats"]] == ["FAILED", "FAILED"]


def test_triggerer_and_workers_send_metrics(watching: Watching, statsd: StatsDListener):
    sent = watching.server.request_counts
    watching.rest(SECONDS_OF_SILENCE)
    # From the triggerer, and from the workers of the example.
    for operation in ("ListMetadataGenerationRuns", "GetMetadataGenerationRun", "AcceptPredictions"):
        assert statsd.total("datazone.requests", operation=operation) >= sent[operation] > 0
    # Each run once for each watcher that reports it.
    events = Counter(event.status for event in watching.events())
    for status, number in events.items():
        assert statsd.total("datazone.runs_ended", status=status) == number


def test_burst_of_runs_makes_one_event_each(watching: Watching):
    runs = [watching.start() for _ in range(BURST)]
    watching.rest(SECONDS_TO_POLL)
    watching.end(*runs)
    watching.expect(runs)
    watching.deployment.wait_for("the DAG runs", lambda: set(runs) <= set(watching.reported_runs()))
    # Airflow may pass several events to one DAG run, but each event to one DAG run only.
    assert Counter(run for run in watching.reported_runs() if run in runs) == dict.fromkeys(runs, 1)


def test_each_of_many_watchers_gets_the_runs_that_match_its_filters(watching: Watching):
    lists = watching.lists
    runs = {
        status: [watching.start(asset, status) for asset in watching.assets]
        for status in ("SUCCEEDED", "PARTIALLY_SUCCEEDED")
    }
    watching.rest(SECONDS_TO_POLL)
    watching.end(*(run for started in runs.values() for run in started))
    watching.expect([run for started in runs.values() for run in started])
    expected = {
        (f"watcher {number}", runs["SUCCEEDED" if number % 2 else "PARTIALLY_SUCCEEDED"][number])
        for number in range(FILTERED_WATCHERS)
    }
    events = [
        (event.watcher, event.run)
        for event in watching.events()
        if event.watcher.startswith("watcher ") and event.run in str(runs)
    ]
    assert len(events) == len(expected)
    assert set(events) == expected
    # All watchers share the Lists: one watcher would send as many.
    assert watching.lists - lists < 200


def test_dag_file_that_is_parsed_again_restarts_no_watcher(watching: Watching):
    triggers = watching.triggers()
    parsed = "SELECT max(last_parsed_time) FROM dag"
    runs = []
    for _ in range(PARSES):
        runs.append(watching.start())
        last = watching.deployment.query(parsed)
        watching.deployment.wait_for("a parse", lambda last=last: watching.deployment.query(parsed) != last)
        watching.end(*runs[:-1])
    watching.rest(SECONDS_TO_POLL)
    watching.end(*runs)
    watching.expect(runs)
    assert watching.triggers() == triggers


def test_throttling_delays_events_and_loses_none(watching: Watching):
    before = [watching.start() for _ in range(3)]
    watching.rest(SECONDS_TO_POLL)
    watching.server.fail("ListMetadataGenerationRuns", "ThrottlingException", times=None)
    watching.server.fail("GetMetadataGenerationRun", "ThrottlingException", times=None)
    watching.end(*before)
    during = [watching.start() for _ in range(3)]
    watching.rest(FAULT_SECONDS)
    assert watching.count(before) == dict.fromkeys(before, 0)
    watching.server.recover()
    # While DataZone throttles, the time between two requests doubles up to a minute.
    watching.expect(before, seconds=300)
    watching.end(*during)
    watching.expect(during)


def test_triggerer_that_is_killed_hands_the_watchers_over(watching: Watching):
    (first,) = watching.triggerers
    second = watching.start_triggerer()
    runs = [watching.start() for _ in range(6)]
    watching.rest(SECONDS_TO_POLL)
    watching.deployment.kill(first)
    watching.triggerers = [second]
    # Ended while no triggerer watches: reported only if the watchers save their runs.
    watching.end(*runs[:3])
    watching.wait_until_watched()
    watching.end(*runs[3:])
    watching.expect(runs[3:])
    # Before Airflow 3.3, every triggerer runs every watcher, so that the second one may have reported them.
    fewest = 1 if SAVES_RUNS else 0
    assert set(watching.count(runs[:3]).values()) <= {fewest, 1}


def test_runs_that_end_while_no_triggerer_runs_are_reported_if_airflow_has_a_store(watching: Watching):
    runs = [watching.start() for _ in range(6)]
    watching.rest(SECONDS_TO_POLL)
    for triggerer in watching.triggerers:
        watching.deployment.kill(triggerer)
    watching.end(*runs[:3])
    watching.rest(FAULT_SECONDS / 3)
    watching.triggerers = []
    watching.start_triggerer()
    watching.wait_until_watched()
    watching.end(*runs[3:])
    watching.expect(runs[3:])
    expected = 1 if SAVES_RUNS else 0
    assert watching.count(runs[:3]) == dict.fromkeys(runs[:3], expected)


# What happens, and the number of events on Airflow 3.0 to 3.2 and on 3.3: the sums of the tests above.
FAULTS = [
    ("A client starts a run, and the run ends", 1, 1),
    ("20 runs end at once", 20, 20),
    (
        "100 runs of 50 assets end at once; each of 50 watchers reports one asset and some of its statuses",
        50,
        50,
    ),
    ("The DAG file is parsed 10 times while 10 runs start and end", 10, 10),
    ("DataZone throttles every request for a minute; 3 runs end during that time, and 3 later", 6, 6),
    ("One of two triggerers is killed; 3 runs end before the other takes over, and 3 later", "3 to 6", 6),
    ("All triggerers are killed; 3 runs end before another one is started, and 3 later", 3, 6),
]


def test_documentation_lists_the_tested_faults() -> None:
    text = (REPOSITORY / "docs/reliability.md").read_text(encoding="utf-8")
    section = text.partition("\n## Tested faults: watching a domain\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert table[2:] == [f"| {fault} | {earlier} | {now} |" for fault, earlier, now in FAULTS]
