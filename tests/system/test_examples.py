"""The example DAGs run in an Airflow deployment on PostgreSQL; the tests read the results from the REST API."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.conftest import Catalog, example_dags, make_catalog
from tests.system.broker import Broker
from tests.system.conftest import running
from tests.system.database import Postgres
from tests.system.deployment import AIRFLOW_2, Deployment
from tests.system.test_deferred_waits import SEVERE
from tests.system.test_watchers import EXAMPLE as ON_RUN_ENDED

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer
    from tests.system.deployment import Component

WAIT = "example_datazone_metadata_generation"
ENRICH = "example_datazone_enrich_asset"
ENRICH_MANY = "example_datazone_enrich_many_assets"
ENRICH_CATALOG = "example_datazone_enrich_catalog"
REVIEW = "example_datazone_review_predictions"
# test_watchers.py runs the other one: events trigger it, and not a user.
EXAMPLES = [path for path in example_dags() if path.stem != ON_RUN_ENDED]
WITH_REVIEWS = REVIEW in [path.stem for path in EXAMPLES]
DESCRIPTIONS, NAMES = TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
QUOTA = "business name generation has reached monthly quota"
# No example task is retried in these tests.
TRY_NUMBER = 1
# The secret key of the connection, which must not appear anywhere.
SECRET = "kept+to/themselves"
# `make celery-test`
CELERY = os.environ.get("DATAZONE_TEST_EXECUTOR") == "CeleryExecutor"
WORKERS = 2 if CELERY else 0
# The time limit for all examples on a busy machine.
SECONDS = 420
SUCCESS, SKIPPED, FAILED, UPSTREAM_FAILED = "success", "skipped", "failed", "upstream_failed"


class Line(NamedTuple):
    """A line of a task log; Airflow 2.11 does not return its level."""

    level: str | None
    text: str

    @property
    def is_severe(self) -> bool:
        return self.level in ("error", "critical") or bool(SEVERE.search(self.text))


class Instance(NamedTuple):
    """A task instance in the REST API."""

    state: str | None
    try_number: int
    xcoms: dict[str, Any]
    links: dict[str, str | None]
    log: list[Line]


class User:
    """A user who works only with the REST API."""

    def __init__(self, deployment: Deployment) -> None:
        self._request = deployment.request

    def unpause(self, dag_id: str) -> None:
        self._request("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def dag_run_state(self, dag_id: str, run_id: str) -> str:
        return str(self._request("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def reviews(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the open and the answered requests for a review."""
        found = self._request("GET", f"/dags/{dag_id}/dagRuns/{run_id}/hitlDetails")
        return list(found["hitl_details"])

    def answer(self, dag_id: str, run_id: str, choice: str) -> str:
        """Answer a request for a review, and return its text."""
        (review,) = self.reviews(dag_id, run_id)
        ti = review["task_instance"]
        path = f"{self._path_of(ti)}/{ti['map_index']}/hitlDetails"
        self._request("PATCH", path, {"chosen_options": [choice]})
        return str(review["body"])

    def states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        return {name: found["state"] for name, found in self._instances(dag_id, run_id).items()}

    def read_instances(self, dag_id: str, run_id: str) -> dict[str, Instance]:
        return {
            name: Instance(
                found["state"],
                found["try_number"],
                self._xcoms(self._path_of(found), found["map_index"]),
                self._links(self._path_of(found), found["map_index"]),
                # A task instance without a try has no log.
                self._log(self._path_of(found), found) if found["start_date"] and found["try_number"] else [],
            )
            for name, found in self._instances(dag_id, run_id).items()
        }

    def _instances(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task instances of a DAG run; mapped ones have the key `task[index]`."""
        found = self._request("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100")
        return {
            ti["task_id"] if ti["map_index"] < 0 else f"{ti['task_id']}[{ti['map_index']}]": ti
            for ti in found["task_instances"]
        }

    @staticmethod
    def _path_of(ti: dict[str, Any]) -> str:
        return f"/dags/{ti['dag_id']}/dagRuns/{ti['dag_run_id']}/taskInstances/{ti['task_id']}"

    def _xcoms(self, path: str, map_index: int) -> dict[str, Any]:
        entries = self._request("GET", f"{path}/xcomEntries?map_index={map_index}")["xcom_entries"]
        query = f"map_index={map_index}&stringify=false"
        return {
            key: self._request("GET", f"{path}/xcomEntries/{key}?{query}")["value"]
            for key in sorted({entry["key"] for entry in entries if entry["map_index"] == map_index})
        }

    def _links(self, path: str, map_index: int) -> dict[str, str | None]:
        links = self._request("GET", f"{path}/links?map_index={map_index}")
        return dict(links if AIRFLOW_2 else links["extra_links"])

    def _log(self, path: str, ti: dict[str, Any]) -> list[Line]:
        query = f"full_content=true&map_index={ti['map_index']}"
        content = self._request("GET", f"{path}/logs/{ti['try_number']}?{query}")["content"]
        if isinstance(content, str):
            # Airflow 2.11 returns the Python representation of a list of hosts with their logs.
            return [Line(None, line) for line in content.replace("\\n", "\n").splitlines()]
        return [
            Line(line.get("level"), json.dumps(line, ensure_ascii=False))
            if "error_detail" in line
            else Line(line.get("level"), line["event"])
            for line in content
        ]


class Example(NamedTuple):
    """
    A run of an example DAG.

    :param dag_id: The DAG.
    :param run_id: The DAG run.
    :param state: The expected final state of the DAG run.
    :param states: The expected final states of its tasks; mapped ones have the key `task[index]`.
    """

    dag_id: str
    run_id: str
    state: str
    states: dict[str, str]


def wait_example(
    run_id: str, *, wait: str = SUCCESS, generated: str = SKIPPED, failed: str = SKIPPED
) -> Example:
    read = SUCCESS if wait == SUCCESS else UPSTREAM_FAILED
    states = {
        "wait_for_run": wait,
        "read_type_stats": read,
        "choose_path": read,
        "everything_generated": generated,
        "some_types_failed": failed,
        "report": SUCCESS,
    }
    return Example(WAIT, run_id, wait, states)


MANY = 3
# The asset whose run fails because of the quota.
WITHOUT_QUOTA = 1
TABLES = 12
# One failed asset of twelve is below the limit of the example.
FAILING_TABLE = 5
EXAMPLE_RUNS = [
    wait_example("all_succeed", generated=SUCCESS),
    wait_example("one_fails", failed=SUCCESS),
    wait_example("all_fail", wait=FAILED, generated=UPSTREAM_FAILED, failed=UPSTREAM_FAILED),
    Example(
        ENRICH,
        "enrich",
        SUCCESS,
        {
            "start_run": SUCCESS,
            "choose_path": SUCCESS,
            "some_types_failed": SKIPPED,
            "accept_predictions": SUCCESS,
            "publish": SUCCESS,
            "report": SUCCESS,
        },
    ),
    Example(
        ENRICH_MANY,
        "enrich_many",
        FAILED,
        {
            "list_assets": SUCCESS,
            **{f"start_run[{index}]": FAILED if index == WITHOUT_QUOTA else SUCCESS for index in range(MANY)},
            "choose_assets": SUCCESS,
            **{f"accept_predictions[{index}]": SUCCESS for index in range(MANY - 1)},
            "report": FAILED,
        },
    ),
    Example(
        ENRICH_CATALOG,
        "enrich_catalog",
        SUCCESS,
        {"find_assets": SUCCESS, "enrich": SUCCESS, "report": SUCCESS},
    ),
]
# What a person chooses in each run of the DAG that asks for a review, and the state of the tasks after that.
REVIEWS = {"Approve": SUCCESS, "Reject": SKIPPED} if WITH_REVIEWS else {}
EXAMPLE_RUNS += [
    Example(
        REVIEW,
        choice,
        SUCCESS,
        {
            "start_run": SUCCESS,
            "read_predictions": SUCCESS,
            "review": SUCCESS,
            "accept_predictions": state,
            "publish": state,
        },
    )
    for choice, state in REVIEWS.items()
]
STATUSES: dict[str, dict[str, str]] = {
    "all_succeed": {},
    "one_fails": {NAMES: "FAILED"},
    "all_fail": dict.fromkeys(TYPES, "FAILED"),
}
# The tasks of the operators and the sensor of this package.
PACKAGE_TASKS = (
    *("wait_for_run", "read_type_stats", "start_run", "read_predictions", "accept_predictions", "publish"),
    "enrich",
)


def expected_type_stats(statuses: dict[str, str], message: str) -> list[dict[str, str]]:
    return [
        {"type": name, "status": "FAILED", "errorMessage": message}
        if name in statuses
        else {"type": name, "status": "SUCCEEDED"}
        for name in TYPES
    ]


class Results(NamedTuple):
    """The results of all examples after their end."""

    catalog: Catalog
    runs: dict[str, str]
    assets: dict[str, list[str]]
    dag_runs: dict[str, str]
    instances: dict[str, dict[str, Instance]]
    triggerers: list[Component]
    # The text that each person read before the choice.
    reviews: dict[str, str]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker | None]:
    if not CELERY:
        yield None
        return
    with Broker() as broker:
        yield broker


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, datazone_server: DataZoneServer, broker: Broker | None
) -> Iterator[Deployment]:
    database = Postgres()
    settings = {
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": True,
        # A slow import in one triggerer must not cause a handover.
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": 120,
    }
    if broker is not None:
        settings |= {
            "CORE__EXECUTOR": "CeleryExecutor",
            "CELERY__BROKER_URL": broker.url,
            "CELERY__RESULT_BACKEND": f"db+{database.url}",
            "CELERY__WORKER_CONCURRENCY": 2,
        }
    deployment = Deployment(
        tmp_path_factory.mktemp("airflow"),
        *EXAMPLES,
        settings=settings,
        with_rest_api=True,
        database=database,
    )
    with running(deployment, datazone_server):
        for number in range(WORKERS):
            arguments = (
                "--celery-hostname",
                f"worker-{number}@%h",
                "--pid",
                f"{deployment.home}/worker-{number}.pid",
            )
            deployment.start_component("celery", "worker", "--skip-serve-logs", *arguments)
        yield deployment


@pytest.fixture(scope="module")
def example_results(deployment: Deployment, datazone_server: DataZoneServer) -> Results:
    """Run all examples concurrently, with two triggerers."""
    server = datazone_server
    catalog = make_catalog(server)
    domain, project = catalog.domain_identifier, catalog.project_identifier
    connection = json.loads(server.connection)
    # The defaults for tasks without a domain and a project.
    defaults = {"domain_identifier": domain, "owning_project_identifier": project}
    connection["password"] = SECRET
    connection["extra"]["service_config"] = {"datazone": defaults}
    deployment.change_connection("datazone_default", connection)

    def create(name: str, **attributes: str) -> str:
        owner = {"domain_identifier": domain, "project_identifier": project}
        return server.create_asset(name, **owner, **attributes).asset_identifier

    assets = {
        "enrich": [create("orders")],
        "enrich_many": [create(name) for name in ("orders", "items", "stores")],
        "enrich_catalog": [create(f"table_{number}") for number in range(TABLES)],
        **{choice: [create("customers")] for choice in REVIEWS},
    }
    create("table_described", description="Nobody has to write this again.")
    # Longer than a task needs to defer.
    server.set_run_outcome(in_progress_seconds=6, times=None)
    server.set_run_outcome(
        assets["enrich_many"][WITHOUT_QUOTA],
        statuses="FAILED",
        error_messages={NAMES: QUOTA},
        in_progress_seconds=6,
    )
    server.set_run_outcome(
        assets["enrich_catalog"][FAILING_TABLE],
        statuses="FAILED",
        error_messages={DESCRIPTIONS: "no luck"},
        in_progress_seconds=6,
    )
    runs = {
        name: catalog.start_run(
            *TYPES, statuses=statuses, error_messages=dict.fromkeys(statuses, f"no luck in {name}"), polls=0
        )
        for name, statuses in STATUSES.items()
    }
    for run in runs.values():
        server.set_run_status(run, "IN_PROGRESS")
    conf: dict[str, dict[str, Any]] = {
        name: {"domain_identifier": domain, "run_identifier": run} for name, run in runs.items()
    }
    conf["enrich"] = defaults | {"asset_identifier": assets["enrich"][0]}
    conf["enrich_many"] = {"asset_identifiers": assets["enrich_many"]}
    conf["enrich_catalog"] = {"search_text": "table_"}
    conf |= {choice: {"asset_identifier": assets[choice][0]} for choice in REVIEWS}

    user = User(deployment)
    triggerers = [deployment.start_triggerer()[0] for _ in range(2)]
    for example in EXAMPLE_RUNS:
        deployment.trigger(example.dag_id, example.run_id, conf[example.run_id])
    for path in EXAMPLES:
        user.unpause(path.stem)

    def waiting() -> bool:
        return all(user.states(WAIT, name).get("wait_for_run") == "deferred" for name in runs)

    deployment.wait_for("deferred waits", waiting, seconds=SECONDS)
    for run in runs.values():
        server.set_run_status(run, None)

    def asking() -> bool:
        # Airflow fails a task that is answered before the scheduler has processed the end of its process.
        (scheduler,) = deployment.living("scheduler")
        ended = "TaskInstance Finished: dag_id={}, task_id=review, run_id={},"
        return all(ended.format(REVIEW, choice) in scheduler.output for choice in REVIEWS)

    deployment.wait_for("reviews", asking, seconds=SECONDS)
    reviews = {choice: user.answer(REVIEW, choice, choice) for choice in REVIEWS}
    dag_runs: dict[str, str] = {}

    def have_ended() -> bool:
        dag_runs.update({e.run_id: user.dag_run_state(e.dag_id, e.run_id) for e in EXAMPLE_RUNS})
        return all(state in (SUCCESS, FAILED) for state in dag_runs.values())

    deployment.wait_for("the end", have_ended, seconds=SECONDS)
    instances = {
        example.run_id: user.read_instances(example.dag_id, example.run_id) for example in EXAMPLE_RUNS
    }
    return Results(catalog, runs, assets, dag_runs, instances, triggerers, reviews)


def test_every_example_is_run() -> None:
    assert {example.dag_id for example in EXAMPLE_RUNS} == {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLE_RUNS, ids=lambda example: example.run_id)
def test_tasks_end_in_the_expected_states(example_results: Results, example: Example) -> None:
    instances = example_results.instances[example.run_id]
    states = {name: instance.state for name, instance in instances.items()}
    assert states == example.states, "\n".join(
        texts(instances[name].log) for name, state in states.items() if state == FAILED
    )
    assert example_results.dag_runs[example.run_id] == example.state
    tried = {i.try_number for i in instances.values() if i.state in (SUCCESS, FAILED)}
    assert tried == {TRY_NUMBER}


@pytest.mark.parametrize("name", STATUSES)
def test_wait_pushes_its_run_to_xcom(example_results: Results, name: str) -> None:
    instances = example_results.instances[name]
    type_stats = expected_type_stats(STATUSES[name], f"no luck in {name}")
    waited = instances["wait_for_run"].xcoms
    assert waited["type_stats"] == type_stats
    assert waited["run"]["id"] == example_results.runs[name]
    assert waited["run"]["typeStats"] == type_stats
    assert instances["report"].xcoms["return_value"] == type_stats
    if instances["wait_for_run"].state == SUCCESS:
        assert waited["return_value"] == type_stats
        assert instances["read_type_stats"].xcoms["return_value"] == type_stats
    if instances["some_types_failed"].state == SUCCESS:
        assert instances["some_types_failed"].xcoms["return_value"] == {NAMES: f"no luck in {name}"}


def test_start_pushes_its_run_to_xcom_and_predictions_are_published(example_results: Results) -> None:
    instances = example_results.instances["enrich"]
    started = instances["start_run"].xcoms
    assert started["type_stats"] == expected_type_stats({}, "")
    assert started["return_value"] == started["run"]["id"]
    assert started["run"]["status"] == "SUCCEEDED"
    (asset,) = example_results.assets["enrich"]
    assert started["run"]["target"]["identifier"] == asset
    # Airflow 3.0 returns "2" as a number.
    assert str(instances["accept_predictions"].xcoms["return_value"]) == "2"
    listing = instances["publish"].xcoms["listing"]
    assert (listing["listingId"], listing["status"]) == (instances["publish"].xcoms["return_value"], "ACTIVE")


@pytest.mark.skipif(not WITH_REVIEWS, reason="Airflow has human-in-the-loop operators since 3.1")
@pytest.mark.parametrize("choice", ["Approve", "Reject"])
def test_person_reads_the_predictions_and_decides(example_results: Results, choice: str) -> None:
    instances = example_results.instances[choice]
    predictions = instances["read_predictions"].xcoms["return_value"]
    assert "summary" in {prediction["fieldPath"] for prediction in predictions}
    review = example_results.reviews[choice]
    assert review == instances["read_predictions"].xcoms["markdown"]
    # The table escapes Markdown.
    shown = html.unescape(review)
    assert all(prediction["suggestions"][0]["suggestion"] in shown for prediction in predictions)
    catalog, (asset,) = example_results.catalog, example_results.assets[choice]
    found = catalog.server.client().get_asset(domainIdentifier=catalog.domain_identifier, identifier=asset)
    assert found["revision"] == ("2" if choice == "Approve" else "1")
    assert ("listing" in found) == (choice == "Approve")


def test_mapped_tasks_push_the_runs_of_their_assets_to_xcom(example_results: Results) -> None:
    instances = example_results.instances["enrich_many"]
    for index, asset in enumerate(example_results.assets["enrich_many"]):
        xcoms = instances[f"start_run[{index}]"].xcoms
        assert xcoms["run"]["target"]["identifier"] == asset
        if index == WITHOUT_QUOTA:
            assert [stat["status"] for stat in xcoms["type_stats"]] == ["FAILED", "FAILED"]
            assert xcoms["type_stats"][1]["errorMessage"] == QUOTA
            assert "return_value" not in xcoms
        else:
            assert xcoms["type_stats"] == expected_type_stats({}, "")
            assert xcoms["return_value"] == xcoms["run"]["id"]
    succeeded = [a for index, a in enumerate(example_results.assets["enrich_many"]) if index != WITHOUT_QUOTA]
    assert instances["choose_assets"].xcoms["return_value"] == succeeded


def test_batch_has_a_summary_and_a_result_for_each_asset(example_results: Results) -> None:
    instances = example_results.instances["enrich_catalog"]
    found = [row["asset_identifier"] for row in instances["find_assets"].xcoms["return_value"]]
    assert sorted(found) == sorted(example_results.assets["enrich_catalog"])
    summary = instances["enrich"].xcoms["return_value"]
    assert (summary["total"], summary["succeeded"], summary["failed"]) == (TABLES, TABLES - 1, 1)
    failing = example_results.assets["enrich_catalog"][FAILING_TABLE]
    assert [failure["asset"] for failure in summary["failures"]] == [failing]
    results = instances["enrich"].xcoms["results"]
    assert [row["asset"] for row in results] == found
    assert {row["asset"] for row in results if row["status"] == "FAILED"} == {failing}
    assert len({row["run"] for row in results}) == TABLES
    assert (summary["accepted"], summary["published"]) == (TABLES - 1, TABLES - 1)
    assert {row["asset"] for row in results if "listing" not in row} == {failing}


def test_no_run_is_started_twice(example_results: Results) -> None:
    counts = example_results.catalog.server.request_counts
    assert counts["StartMetadataGenerationRun"] == (
        len(example_results.runs) + 1 + MANY + TABLES + len(REVIEWS)
    )


def package_instances(example_results: Results) -> Iterator[tuple[str, Instance]]:
    """Yield the completed task instances of the operators and the sensor of this package."""
    for run_id, instances in example_results.instances.items():
        for name, instance in instances.items():
            if name.partition("[")[0] in PACKAGE_TASKS and instance.state in (SUCCESS, FAILED):
                yield f"{run_id}.{name}", instance


def test_every_task_has_a_link_to_its_domain_in_the_console(example_results: Results) -> None:
    domain = example_results.catalog.domain_identifier
    console = "https://us-east-1.console.aws.amazon.com/datazone/home?region=us-east-1#/domains/"
    expected = {"Amazon DataZone Domain": console + domain}
    assert {name: instance.links for name, instance in package_instances(example_results)} == {
        name: expected for name, _ in package_instances(example_results)
    }


def texts(lines: Sequence[Line]) -> str:
    return "\n".join(line.text for line in lines)


@pytest.mark.parametrize("name", STATUSES)
def test_wait_logs_each_status_of_its_run_once(example_results: Results, name: str) -> None:
    log = example_results.instances[name]["wait_for_run"].log
    run = example_results.runs[name]
    status = {"all_succeed": "SUCCEEDED", "one_fails": "PARTIALLY_SUCCEEDED", "all_fail": "FAILED"}[name]
    statuses = re.findall(rf"Metadata generation run {run} is ([A-Z_]+)", texts(log))
    # The log has each status once, regardless of the number of polls.
    assert statuses == ["IN_PROGRESS", status]


def test_batch_logs_its_progress(example_results: Results) -> None:
    log = texts(example_results.instances["enrich_catalog"]["enrich"].log)
    assert f"{TABLES}/{TABLES} done · {TABLES - 1} succeeded · 1 failed" in log


def test_report_tasks_log_their_reports(example_results: Results) -> None:
    logs = {
        name: texts(instances["report"].log)
        for name, instances in example_results.instances.items()
        if "report" in instances
    }
    assert f"{NAMES}: FAILED no luck in one_fails" in logs["one_fails"]
    listing = example_results.instances["enrich"]["publish"].xcoms["return_value"]
    assert f"Published: {listing}" in logs["enrich"]
    assert f"Predictions were accepted for {MANY - 1} of {MANY} assets." in logs["enrich_many"]
    assert f"{TABLES - 1} of {TABLES} assets were published." in logs["enrich_catalog"]


def test_only_failed_tasks_log_errors(example_results: Results) -> None:
    severe = {
        f"{run_id}.{name}": [line.text for line in instance.log if line.is_severe]
        for run_id, instances in example_results.instances.items()
        for name, instance in instances.items()
    }
    states = {
        f"{run_id}.{name}": instance.state
        for run_id, instances in example_results.instances.items()
        for name, instance in instances.items()
    }
    assert {name: lines for name, lines in severe.items() if lines and states[name] != FAILED} == {}
    # The error in the log contains the run id.
    run = example_results.runs["all_fail"]
    assert any(run in line for line in severe["all_fail.wait_for_run"])
    failed = example_results.instances["enrich_many"][f"start_run[{WITHOUT_QUOTA}]"]
    assert failed.xcoms["run"]["id"] in "\n".join(severe[f"enrich_many.start_run[{WITHOUT_QUOTA}]"])


def test_every_celery_worker_runs_tasks(example_results: Results, deployment: Deployment) -> None:
    workers = deployment.living("celery")
    ran = [len(re.findall(r"Task \S*execute_workload\S* succeeded", worker.output)) for worker in workers]
    assert len(ran) == WORKERS
    assert all(ran), ran
    # The scheduler log shows the executor of the tasks.
    (scheduler,) = deployment.living("scheduler")
    assert ("executor=CeleryExecutor" in scheduler.output) == CELERY


def test_triggerers_log_no_errors(example_results: Results) -> None:
    lines = [line for triggerer in example_results.triggerers for line in triggerer.output.splitlines()]
    assert [line for line in lines if SEVERE.search(line)] == []


def test_secret_of_the_connection_is_not_exposed(example_results: Results, deployment: Deployment) -> None:
    texts_to_check = [
        repr(instance) for instances in example_results.instances.values() for instance in instances.values()
    ] + [component.output for component in deployment.components]
    assert [text for text in texts_to_check if SECRET in text] == []
    # The log files must not contain the secret either, because the REST API omits parts of them.
    logs = (log.read_text("utf-8", "replace") for log in (deployment.home / "logs").rglob("*.log"))
    assert [log for log in logs if SECRET in log] == []
