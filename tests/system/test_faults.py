"""What becomes of deferred waits when something goes wrong around them: a row for each fault."""

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

# The waits that a fault strikes, beside all those of the faults to come. Half of their runs end in its course.
WAITS = 4
# How long the faults last that become worse with time: far longer than it takes to notice them.
LONG_FAULT_SECONDS = float(os.environ.get("DATAZONE_TEST_FAULT_SECONDS", "60"))
# And the others.
FAULT_SECONDS = LONG_FAULT_SECONDS / 3
REQUESTS_THAT_FAIL = 10
# Until whatever one waits for is there, on a busy machine.
SECONDS = 240
TRIGGERERS = 2
ACCOUNT = "123456789012"
KEYS = ("AKIAFIRSTFIRSTFIRST1", "AKIASECONDSECONDSEC2", "AKIATHIRDTHIRDTHIRD3")
ROLE = "datazone_role"
SETTINGS = {
    "CORE__PARALLELISM": 8,
    # Processors are for the tasks.
    "CORE__LAZY_LOAD_PLUGINS": False,
    # A task that resumes waits for an API server that is away; by default for a quarter of a minute.
    "WORKERS__EXECUTION_API_RETRIES": 10,
}


class Stage:
    """Airflow, the local DataZone, and all that can go wrong with them."""

    def __init__(self, deployment: Deployment, server: DataZoneServer) -> None:
        self.deployment = deployment
        self.server = server
        self._key = 0
        connection = json.loads(server.connection)
        # Not the half of a minute that a request may hang.
        connection["extra"]["config_kwargs"] = {"read_timeout": 5}
        self._connection = connection
        deployment.change_connection("datazone_default", self._with_key(0))
        role = {
            "role_arn": f"arn:aws:iam::{ACCOUNT}:role/datazone",
            # Renewed from its last 15 minutes on: that is, after 5 s.
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
        """Play one row after the other; what waits for its own lives through those before."""
        self.start_triggerers()
        self.wait_for("deferred tasks", self._all_wait)
        outcomes = {}
        for row in ROWS:
            waits = self.waits[row.name]
            trouble = None
            try:
                row.play(self, waits)
                waits.end(waits.runs[WAITS // 2 :])
                self.wait_for("the end", waits.collected)
            except AssertionError as error:
                trouble = str(error)
            finally:
                self.server.recover()
            outcomes[row.name] = Outcome(
                trouble,
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

    def let_pass(self, seconds: float) -> None:
        """Let a fault last."""
        until = time.monotonic() + seconds
        self.wait_for("the fault's end", lambda: time.monotonic() >= until)

    def end_half(self, waits: Waits) -> None:
        waits.end(waits.runs[: WAITS // 2])

    # --------------------------------------------------------------- faults

    def fail(self, waits: Waits, error: str, lasting: float = FAULT_SECONDS, **how: Any) -> None:
        """Have DataZone fail for a while, in which runs end."""
        before = len(self.server.requests)
        self.server.fail("*", error, times=None, **how)
        self.end_half(waits)
        self.let_pass(lasting)
        asked = lambda: len(self.server.requests) >= before + REQUESTS_THAT_FAIL  # noqa: E731
        self.wait_for("requests that fail", asked)
        self.server.recover()

    def rotate(self, waits: Waits, error: str) -> None:
        """Put another key into the connection, and have DataZone reject the one before."""
        old = KEYS[self._key]
        self._key += 1
        self.deployment.change_connection("datazone_default", self._with_key(self._key))
        self._reject(waits, error, old)

    def _reject(self, waits: Waits, error: str, *keys: str) -> None:
        before = len(self.server.requests)
        for key in keys:
            self.server.fail("*", error, times=None, access_key_id=key)
        self.end_half(waits)
        self.wait_for("requests", lambda: len(self.server.requests) >= before + REQUESTS_THAT_FAIL)

    def expire_role(self, waits: Waits) -> None:
        """Have DataZone reject all keys that STS has handed out."""

        def keys() -> list[str]:
            return [role.access_key_id for role in sts_backends[ACCOUNT]["aws"].assumed_roles]

        known = len(keys())
        # The session renews them by itself.
        self.wait_for("keys that are renewed", lambda: len(keys()) >= known + 2)
        self._reject(waits, "ExpiredTokenException", *keys())


# ---------------------------------------------------------------------- plays


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
    # Another server of this process keeps what both know.
    stage.server.stop()
    try:
        stage.end_half(waits)
        stage.let_pass(LONG_FAULT_SECONDS)
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
    # One of them may have all.
    job = max(stage.triggerers, key=deployment.triggers().count)
    deployment.pause(stage.triggerers[job])
    stage.end_half(waits)
    stage.wait_for("a hand-over", lambda: job not in deployment.triggers())
    deployment.go_on(stage.triggerers[job])


def triggerers_down(stage: Stage, waits: Waits) -> None:
    for triggerer in stage.deployment.living("triggerer"):
        stage.deployment.kill(triggerer)
    stage.end_half(waits)
    stage.let_pass(LONG_FAULT_SECONDS)
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
    stage.let_pass(FAULT_SECONDS)
    for server in servers:
        stage.deployment.restart(server)
    stage.deployment.wait_for_servers()


def postgres_restarted(stage: Stage, waits: Waits) -> None:
    deployment = stage.deployment
    assert isinstance(deployment.database, Postgres)
    deployment.keeps_up = True
    deployment.database.crash()
    stage.end_half(waits)
    # Nobody can be asked meanwhile.
    until = time.monotonic() + FAULT_SECONDS
    while time.monotonic() < until:
        time.sleep(0.5)
    deployment.database.serve()


# ----------------------------------------------------------------------- rows


class Row(NamedTuple):
    """
    A fault, and what is to be seen of it.

    :param name: The DAG run.
    :param fault: What goes wrong.
    :param what: What happens then.
    :param play: How it goes wrong; half of the runs end in its course.
    :param conn_id: The Airflow connection of the waits.
    """

    name: str
    fault: str
    what: str
    play: Callable[[Stage, Waits], None]
    conn_id: str = "datazone_default"


ASKS_AGAIN = "The waits log it, poll again, and continue."
ROWS = [
    Row("throttling", "DataZone throttles every request", ASKS_AGAIN, throttling),
    Row("server_error", "DataZone answers 500", ASKS_AGAIN, server_error),
    Row("malformed", "DataZone's answers are truncated JSON", ASKS_AGAIN, malformed),
    Row("dropping", "DataZone drops connections", ASKS_AGAIN, dropping),
    Row("hanging", "DataZone's answers hang", ASKS_AGAIN, hanging),
    Row("down", "DataZone cannot be reached", ASKS_AGAIN, down),
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
    What there was to see of a row.

    :param trouble: Why it was not played to its end, if it was not.
    :param task_instances: The waits.
    :param results: What they left in XCom.
    :param logs: Their log files, by map index.
    """

    trouble: str | None
    task_instances: list[TaskInstance]
    results: list[dict[str, Any]]
    logs: Mapping[int, Mapping[str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[DataZoneServer]:
    """A local DataZone on a port that it keeps when it is stopped and started, and whose state another keeps."""
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
def test_no_wait_is_lost_or_ends_twice(
    deployment: Deployment, stage: Stage, outcomes: dict[str, Outcome], row: Row
) -> None:
    outcome = outcomes[row.name]
    for index, logs in outcome.logs.items():
        for name, log in logs.items():
            print(f"--- {index} {name}\n{log[-3000:]}")
    assert outcome.trouble is None
    states = [(ti.map_index, ti.state, ti.try_number) for ti in outcome.task_instances]
    assert states == [(index, "success", 1) for index in range(WAITS)]
    waits = stage.waits[row.name]
    for index, run, result in zip(waits.indexes, waits.runs, outcome.results, strict=True):
        assert result["return_value"] == result["type_stats"] == type_stats(index)
        assert result["run"]["id"] == run


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_wait_resumes_once_and_without_an_error(
    stage: Stage, outcomes: dict[str, Outcome], row: Row
) -> None:
    for index, logs in outcomes[row.name].logs.items():
        resumed = "".join(log for name, log in logs.items() if ".trigger." not in name)
        assert resumed.count(f"no names for {stage.waits[row.name].indexes[index]}") == 1
        lines = [line for log in logs.values() for line in log.splitlines()]
        assert [line for line in lines if SEVERE.search(line)] == []


def test_documented_table_is_the_matrix() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = text.partition("\n## Tested faults: waiting\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert table[2:] == [f"| {row.fault} | {row.what} |" for row in ROWS]
