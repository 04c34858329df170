"""The effect of each fault on deferred waits."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from moto.sts.models import sts_backends

from airflow_provider_datazone.testing import DataZoneServer
from tests.conftest import REPOSITORY, make_catalog
from tests.faults.conftest import PRELOAD
from tests.system.conftest import running
from tests.system.database import Postgres
from tests.system.deployment import AIRFLOW_2, Deployment
from tests.system.ports import free_port
from tests.system.test_deferred_waits import SEVERE, Waits, type_stats

if TYPE_CHECKING:
    from tests.system.deployment import TaskInstance

# The waits for each fault. The waits of later faults are active, too. Half of the runs end during the fault.
WAITS = 4
# The duration of faults whose effect grows with time, which is much longer than their detection.
LONG_FAULT_SECONDS = float(os.environ.get("DATAZONE_TEST_FAULT_SECONDS", "60"))
# The duration of other faults.
FAULT_SECONDS = LONG_FAULT_SECONDS / 3
FAILING_REQUESTS = 10
# The time limit of each condition on a busy machine.
SECONDS = 240
TRIGGERERS = 2
ACCOUNT = "123456789012"
KEYS = ("AKIAFIRSTFIRSTFIRST1", "AKIASECONDSECONDSEC2", "AKIATHIRDTHIRDTHIRD3")
ROLE = "datazone_role"
SETTINGS = {
    "CORE__PARALLELISM": 8,
    # Import once in the parent process, to save CPU time for the tasks.
    "CORE__LAZY_LOAD_PLUGINS": False,
    # A resuming task retries its requests while the API server is down; by default, for 15 seconds.
    "WORKERS__EXECUTION_API_RETRIES": 10,
}


class Stage:
    """Airflow and the local DataZone, with methods that cause faults."""

    def __init__(self, deployment: Deployment, server: DataZoneServer) -> None:
        self.deployment = deployment
        self.server = server
        self._key = 0
        connection = json.loads(server.connection)
        # Shorten the read timeout, so that hanging requests end quickly.
        connection["extra"]["config_kwargs"] = {"read_timeout": 5}
        self._connection = connection
        deployment.change_connection("datazone_default", self._with_key(0))
        role = {
            "role_arn": f"arn:aws:iam::{ACCOUNT}:role/datazone",
            # The session renews its credentials in the last 15 minutes, here after 5 s.
            "assume_role_kwargs": {"DurationSeconds": 905},
            "service_config": {"sts": {"endpoint_url": server.endpoint_url}},
        }
        deployment.create_connection(ROLE, connection | {"extra": connection["extra"] | role})
        catalog = make_catalog(server)
        self.waits = {
            row.name: Waits(
                deployment,
                catalog,
                row.name,
                range(first := 10 + 100 * number, first + WAITS),
                aws_conn_id=row.conn_id,
            )
            for number, row in enumerate(ROWS)
        }

    def _with_key(self, number: int) -> dict[str, Any]:
        return self._connection | {"login": KEYS[number]}

    # ----------------------------------------------------------------- play

    def play(self) -> dict[str, Outcome]:
        """Run the scenarios in sequence; the waits of later scenarios are active during earlier ones."""
        self.start_triggerers()
        self.wait_for("deferred tasks", self._all_wait)
        outcomes = {}
        for row in ROWS:
            waits = self.waits[row.name]
            error_message = None
            try:
                row.play(self, waits)
                waits.end(waits.runs[WAITS // 2 :])
                self.wait_for("the end", waits.are_collected)
            except AssertionError as error:
                error_message = str(error)
            finally:
                self.server.recover()
            outcomes[row.name] = Outcome(
                error_message,
                waits.task_instances(),
                waits.results() if waits.report.exists() else [],
                {index: self._logs(waits, index) for index in range(WAITS)},
            )
        return outcomes

    def start_triggerers(self) -> None:
        started = [self.deployment.start_triggerer() for _ in range(TRIGGERERS)]
        self.triggerers = {job: component for component, job in started}

    def _all_wait(self) -> bool:
        states = [ti.state for waits in self.waits.values() for ti in waits.task_instances()]
        return states == ["deferred"] * WAITS * len(ROWS)

    @staticmethod
    def _logs(waits: Waits, index: int) -> dict[str, str]:
        return {log.name: log.read_text("utf-8", "replace") for log in waits.logs(index)}

    def wait_for(self, what: str, condition: Callable[[], Any]) -> None:
        self.deployment.wait_for(what, condition, seconds=SECONDS)

    def sleep(self, seconds: float) -> None:
        """Wait while the fault is active."""
        until = time.monotonic() + seconds
        self.wait_for("the fault's end", lambda: time.monotonic() >= until)

    def end_half(self, waits: Waits) -> None:
        waits.end(waits.runs[: WAITS // 2])

    # --------------------------------------------------------------- faults

    def fail(self, waits: Waits, error: str, duration: float = FAULT_SECONDS, **options: Any) -> None:
        """Make DataZone fail for some time, during which runs end."""
        before = len(self.server.requests)
        self.server.fail("*", error, times=None, **options)
        self.end_half(waits)
        self.sleep(duration)
        have_failed = lambda: len(self.server.requests) >= before + FAILING_REQUESTS  # noqa: E731
        self.wait_for("failing requests", have_failed)
        self.server.recover()

    def rotate(self, waits: Waits, error: str) -> None:
        """Change the key of the connection, and make DataZone reject the old key."""
        old = KEYS[self._key]
        self._key += 1
        self.deployment.change_connection("datazone_default", self._with_key(self._key))
        self._reject(waits, error, old)

    def _reject(self, waits: Waits, error: str, *keys: str) -> None:
        before = len(self.server.requests)
        for key in keys:
            self.server.fail("*", error, times=None, access_key_id=key)
        self.end_half(waits)
        self.wait_for("requests", lambda: len(self.server.requests) >= before + FAILING_REQUESTS)

    def expire_role(self, waits: Waits) -> None:
        """Make DataZone reject all keys that STS has issued."""

        def keys() -> list[str]:
            return [role.access_key_id for role in sts_backends[ACCOUNT]["aws"].assumed_roles]

        known = len(keys())
        # The session renews its keys automatically.
        self.wait_for("renewed keys", lambda: len(keys()) >= known + 2)
        self._reject(waits, "ExpiredTokenException", *keys())


# ------------------------------------------------------------------ scenarios


def throttling(stage: Stage, waits: Waits) -> None:
    stage.fail(waits, "ThrottlingException", LONG_FAULT_SECONDS)


def server_error(stage: Stage, waits: Waits) -> None:
    stage.fail(waits, "InternalServerException")


def malformed(stage: Stage, waits: Waits) -> None:
    stage.fail(waits, "malformed")


def dropping(stage: Stage, waits: Waits) -> None:
    stage.fail(waits, "drop")


def hanging(stage: Stage, waits: Waits) -> None:
    stage.fail(waits, "hang", seconds=FAULT_SECONDS)


def down(stage: Stage, waits: Waits) -> None:
    # A second server in this process keeps the shared state.
    stage.server.stop()
    try:
        stage.end_half(waits)
        stage.sleep(LONG_FAULT_SECONDS)
    finally:
        stage.server.start()


def rotated(stage: Stage, waits: Waits) -> None:
    stage.rotate(waits, "UnrecognizedClientException")


def rotated_again(stage: Stage, waits: Waits) -> None:
    stage.rotate(waits, "ExpiredTokenException")


def role_expired(stage: Stage, waits: Waits) -> None:
    stage.expire_role(waits)


def triggerer_stalled(stage: Stage, waits: Waits) -> None:
    deployment = stage.deployment
    # One triggerer can have all triggers.
    job = max(stage.triggerers, key=deployment.triggers().count)
    deployment.pause(stage.triggerers[job])
    stage.end_half(waits)
    stage.wait_for("a handover", lambda: job not in deployment.triggers())
    deployment.resume(stage.triggerers[job])


def triggerers_down(stage: Stage, waits: Waits) -> None:
    for triggerer in stage.deployment.living("triggerer"):
        stage.deployment.kill(triggerer)
    stage.end_half(waits)
    stage.sleep(LONG_FAULT_SECONDS)
    stage.start_triggerers()


def scheduler_restarted(stage: Stage, waits: Waits) -> None:
    (scheduler,) = stage.deployment.living("scheduler")
    stage.deployment.kill(scheduler)
    stage.end_half(waits)
    stage.wait_for(
        "events", lambda: [ti.state for ti in waits.task_instances()].count("scheduled") == WAITS // 2
    )
    stage.deployment.restart(scheduler)


def api_server_restarted(stage: Stage, waits: Waits) -> None:
    servers = stage.deployment.living("webserver" if AIRFLOW_2 else "api-server")
    for server in servers:
        stage.deployment.kill(server)
    stage.end_half(waits)
    stage.sleep(FAULT_SECONDS)
    for server in servers:
        stage.deployment.restart(server)
    stage.deployment.wait_for_servers()


def postgres_restarted(stage: Stage, waits: Waits) -> None:
    deployment = stage.deployment
    assert isinstance(deployment.database, Postgres)
    deployment.restarts_components = True
    deployment.database.crash()
    stage.end_half(waits)
    # `wait_for` cannot query the database while it is down.
    until = time.monotonic() + FAULT_SECONDS
    while time.monotonic() < until:
        time.sleep(0.5)
    deployment.database.serve()


# ----------------------------------------------------------------------- rows


class Row(NamedTuple):
    """
    A fault and its expected outcome.

    :param name: The id of the DAG run.
    :param fault: The description of the fault in the documentation.
    :param what: The description of the outcome in the documentation.
    :param play: The scenario, during which half of the runs end.
    :param conn_id: The Airflow connection of the waits.
    """

    name: str
    fault: str
    what: str
    play: Callable[[Stage, Waits], None]
    conn_id: str = "datazone_default"


POLLS_AGAIN = "The waits log it, poll again, and continue."
ROWS = [
    Row("throttling", "DataZone throttles every request", POLLS_AGAIN, throttling),
    Row("server_error", "DataZone answers 500", POLLS_AGAIN, server_error),
    Row("malformed", "DataZone's answers are truncated JSON", POLLS_AGAIN, malformed),
    Row("dropping", "DataZone drops connections", POLLS_AGAIN, dropping),
    Row("hanging", "DataZone's answers hang", POLLS_AGAIN, hanging),
    Row("down", "DataZone cannot be reached", POLLS_AGAIN, down),
    Row(
        "rotated",
        "Credentials rotated in the connection, the old ones rejected (`UnrecognizedClientException`)",
        "The triggerer reads the connection again, and the waits continue with the new credentials.",
        rotated,
    ),
    Row(
        "rotated_again",
        "Credentials rotated a second time, the old ones rejected (`ExpiredTokenException`)",
        "The same.",
        rotated_again,
    ),
    Row(
        "role_expired",
        "Role assumed through STS, its session renewed several times, then rejected (`ExpiredTokenException`)",
        "The triggerer assumes the role again, and the waits continue.",
        role_expired,
        ROLE,
    ),
    Row(
        "triggerer_stalled",
        "One triggerer stalled, and resumed after the other one has taken over",
        "The other triggerer continues its waits.",
        triggerer_stalled,
    ),
    Row(
        "triggerers_down",
        "Both triggerers killed, and others started later",
        "The new triggerers continue the waits.",
        triggerers_down,
    ),
    Row(
        "scheduler_restarted",
        "Scheduler killed and started again",
        "The waits continue without it. Tasks whose waits have ended resume when the scheduler is back.",
        scheduler_restarted,
    ),
    Row(
        "api_server_restarted",
        "API server killed and started again (2.11: webserver)",
        "The waits continue without it. On Airflow 3, a task that resumes retries its requests to the API server up to "
        "`[workers] execution_api_retries` times; after that, Airflow fails the try.",
        api_server_restarted,
    ),
    Row(
        "postgres_restarted",
        "PostgreSQL crashed and started again",
        "Airflow components that exit without it must be started again, as systemd or Kubernetes does; their waits "
        "continue.",
        postgres_restarted,
    ),
]


class Outcome(NamedTuple):
    """
    The outcome of a scenario.

    :param error: The reason why the scenario did not finish, if any.
    :param task_instances: The waits.
    :param results: The XComs of the waits.
    :param logs: The log files of the waits, by map index.
    """

    error: str | None
    task_instances: list[TaskInstance]
    results: list[dict[str, Any]]
    logs: Mapping[int, Mapping[str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[DataZoneServer]:
    """Yield a local DataZone with a fixed port. A second server keeps its state during a restart."""
    with DataZoneServer(), DataZoneServer(port=free_port()) as server:
        yield server


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, server: DataZoneServer) -> Iterator[Deployment]:
    deployment = Deployment(
        tmp_path_factory.mktemp("airflow"),
        REPOSITORY / "tests" / "dags" / "deferred_waits.py",
        settings=SETTINGS,
        with_rest_api=True,
        database=Postgres(),
    )
    plugins = deployment.home / "plugins"
    plugins.mkdir()
    (plugins / "preload.py").write_text(PRELOAD, encoding="utf-8")
    with running(deployment, server):
        yield deployment


@pytest.fixture(scope="module")
def stage(deployment: Deployment, server: DataZoneServer) -> Stage:
    return Stage(deployment, server)


@pytest.fixture(scope="module")
def outcomes(stage: Stage) -> dict[str, Outcome]:
    return stage.play()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_wait_survives_the_fault(
    deployment: Deployment, stage: Stage, outcomes: dict[str, Outcome], row: Row
) -> None:
    outcome = outcomes[row.name]
    for index, logs in outcome.logs.items():
        for name, log in logs.items():
            print(f"--- {index} {name}\n{log[-3000:]}")
    assert outcome.error is None
    states = [(ti.map_index, ti.state, ti.try_number) for ti in outcome.task_instances]
    assert states == [(index, "success", 1) for index in range(WAITS)]
    waits = stage.waits[row.name]
    for index, run, result in zip(waits.indexes, waits.runs, outcome.results, strict=True):
        assert result["return_value"] == result["type_stats"] == type_stats(index)
        assert result["run"]["id"] == run


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_wait_resumes_once_without_errors(stage: Stage, outcomes: dict[str, Outcome], row: Row) -> None:
    for index, logs in outcomes[row.name].logs.items():
        resumed = "".join(log for name, log in logs.items() if ".trigger." not in name)
        assert resumed.count(f"no names for {stage.waits[row.name].indexes[index]}") == 1
        lines = [line for log in logs.values() for line in log.splitlines()]
        assert [line for line in lines if SEVERE.search(line)] == []


def test_documentation_lists_the_tested_faults() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = text.partition("\n## Tested faults: waiting\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert table[2:] == [f"| {row.fault} | {row.what} |" for row in ROWS]
