"""A whole Airflow of real processes, in a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.system.database import Database, SQLite
from tests.system.ports import free_port

AIRFLOW_2 = version("apache-airflow").startswith("2.")
# Seconds without a heartbeat after which a triggerer's work is another's: far less than Airflow's 30, yet
# enough for one that lives on a busy machine.
HANDOVER_SECONDS = 8


class Component(NamedTuple):
    """A process of Airflow, the leader of a session that all its descendants are in."""

    name: str
    command: tuple[str, ...]
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


class TaskInstance(NamedTuple):
    """A row of Airflow's database."""

    map_index: int
    state: str | None
    try_number: int


class Deployment:
    """
    Airflow's components as processes.

    :param home: An empty folder.
    :param dag_files: The DAG files to deploy.
    :param settings: Settings of Airflow, beside those that all tests have: ``SECTION__KEY``.
    :param with_rest_api: Whether to serve Airflow's REST API.
    :param database: Where Airflow keeps what it knows; default SQLite. It starts and stops with the rest.
    """

    def __init__(
        self,
        home: Path,
        *dag_files: Path,
        settings: Mapping[str, Any] | None = None,
        with_rest_api: bool = False,
        database: Database | None = None,
    ) -> None:
        self.home = home
        self.with_rest_api = with_rest_api
        self._token: str | None = None
        self.components: list[Component] = []
        self._killed: list[Component] = []
        #: Whether a component that ends by itself is started again, as systemd and Kubernetes do, or is an error.
        self.keeps_up = False
        self.database = SQLite(home) if database is None else database
        dags = home / "dags"
        dags.mkdir()
        for dag_file in dag_files:
            shutil.copy(dag_file, dags)
        self._dag_files = len(dag_files)
        self.port, self.rest_port = free_port(), free_port()
        all_settings = {
            "CORE__DAGS_FOLDER": dags,
            "CORE__LOAD_EXAMPLES": False,
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": 4,
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "API__WORKERS": 1,
            "DATABASE__SQL_ALCHEMY_CONN": self.database.url,
            "LOGGING__COLORED_CONSOLE_LOG": False,
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": 1,
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.2,
            "TRIGGERER__JOB_HEARTBEAT_SEC": 1,
            "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": HANDOVER_SECONDS,
            "USAGE_DATA_COLLECTION__ENABLED": False,
            # Seconds after which 2.11 ends a webserver that serves, if it took it for dead when it started slowly.
            "WEBSERVER__WEB_SERVER_MASTER_TIMEOUT": 3600,
            # Whoever asks may do everything: who may do what is no matter of ours.
            "API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
            **(settings or {}),
        }
        self.environment = os.environ | {
            f"AIRFLOW__{name}": str(value) for name, value in all_settings.items()
        }
        self.environment["AIRFLOW_HOME"] = str(home)
        if AIRFLOW_2:
            # Airflow 2 wants another database for LocalExecutor, except in tests, its own and these;
            # SequentialExecutor takes some seconds a task. Can go with 2.11.
            self.environment["_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK"] = "1"
            (home / "webserver_config.py").write_text("AUTH_ROLE_PUBLIC = 'Admin'\n", encoding="utf-8")

    # ------------------------------------------------------------ processes

    def run(self, *arguments: str) -> None:
        """Run a command of Airflow's to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"airflow {' '.join(arguments[:2])}: {done.stdout[-5000:]}"

    def set_up(self, conn_id: str, connection: str) -> None:
        """Make the database, with a connection in it."""
        self.database.start()
        self.run("db", "migrate")
        self.database.tune()
        self.run("connections", "add", conn_id, "--conn-json", connection)

    def start(self) -> None:
        """Start everything but triggerers."""
        if not AIRFLOW_2:
            self._start_api_server("execution", self.port)
            self.start_component("dag-processor")
        if self.with_rest_api and AIRFLOW_2:
            arguments = ("--workers", "1", "--hostname", "127.0.0.1", "--port", str(self.rest_port))
            self.start_component("webserver", *arguments)
        elif self.with_rest_api:
            # By itself: the REST API's event loop waits for the database, which a request to the other may have
            # locked that goes on in the same loop.
            self._start_api_server("core", self.rest_port)
        self.start_component("scheduler", "--skip-serve-logs")
        self.wait_for_servers()
        self.wait_for("the DAGs", lambda: self._dag_files_read() == self._dag_files)

    def wait_for_servers(self) -> None:
        """Wait until whatever serves an API answers."""
        if not AIRFLOW_2:
            self.wait_for("the API server", lambda: _listens(self.port))
        if self.with_rest_api:
            self.wait_for("the REST API", lambda: _listens(self.rest_port))

    def _start_api_server(self, app: str, port: int) -> None:
        self.start_component("api-server", "--apps", app, "--host", "127.0.0.1", "--port", str(port))

    def start_component(self, command: str, *arguments: str) -> Component:
        number = sum(component.name.startswith(command) for component in self.components) + 1
        name = f"{command} {number}"
        log = self.home / f"{command}-{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", command, *arguments],
                # PostgreSQL's clients tell it who they are.
                env=self.environment | {"PGAPPNAME": name},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        component = Component(name, (command, *arguments), process, log)
        self.components.append(component)
        return component

    def start_triggerer(self) -> tuple[Component, int]:
        """Start a triggerer; return the number of its job too."""
        known = self.triggerer_jobs()
        component = self.start_component("triggerer", "--skip-serve-logs")
        self.wait_for("a triggerer", lambda: self.triggerer_jobs() - known)
        (job,) = self.triggerer_jobs() - known
        return component, job

    def kill(self, component: Component) -> None:
        """Kill a component with all its descendants, and see that they are gone."""
        if component in self._killed:
            return  # its number may be another's by now
        session = component.process.pid
        deadline = time.monotonic() + 30
        while left := _processes_of(session):
            assert time.monotonic() < deadline, f"{component.name} left processes behind: {left}"
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.05)
        component.process.wait(timeout=30)
        self._killed.append(component)

    def restart(self, component: Component) -> Component:
        """Kill a component, unless it has ended, and start it again."""
        self.kill(component)
        return self.start_component(*component.command)

    def living(self, command: str) -> list[Component]:
        """Return the components of a kind that have not been killed."""
        return [one for one in self.components if one.command[0] == command and one not in self._killed]

    def _look_after(self, component: Component) -> None:
        code = component.process.poll()
        if code is None or component in self._killed:
            return
        assert self.keeps_up, f"{component.name} ended with {code}"
        self.restart(component)

    def pause(self, component: Component) -> None:
        """Let a component with all its descendants stand still, at a moment when it does not lock the database."""
        while True:
            self._signal(component, signal.SIGSTOP)
            if not self.database.is_locked(component.name):
                return
            self.go_on(component)

    def go_on(self, component: Component) -> None:
        """End a pause."""
        self._signal(component, signal.SIGCONT)

    def _signal(self, component: Component, number: signal.Signals) -> None:
        for process in _processes_of(component.process.pid):
            os.kill(process, number)

    def stop(self) -> None:
        """Kill everything, whatever cannot be killed among it."""
        with ExitStack() as stack:
            stack.callback(self.database.stop)
            for component in self.components:
                stack.callback(self.kill, component)

    # ------------------------------------------------------------- database

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        return self.database.query(sql, *parameters)

    def triggerer_jobs(self) -> set[int]:
        """Return the jobs of all triggerers that there have been."""
        return {job for (job,) in self.query("SELECT id FROM job WHERE job_type = 'TriggererJob'")}

    def _dag_files_read(self) -> int:
        files = "SELECT count(DISTINCT fileloc) FROM dag WHERE dag_id IN (SELECT dag_id FROM serialized_dag)"
        return int(self.query(files)[0][0])

    def task_instances(self, run_id: str, task_id: str = "wait") -> list[TaskInstance]:
        # Before it is expanded, a mapped task is one row with the index -1.
        rows = self.query(
            "SELECT map_index, state, try_number FROM task_instance"
            " WHERE run_id = ? AND task_id = ? ORDER BY map_index",
            run_id,
            task_id,
        )
        return [TaskInstance(*row) for row in rows]

    def triggers(self) -> list[int | None]:
        """Return, for each trigger, the job of the triggerer that has it."""
        return [triggerer for (triggerer,) in self.query("SELECT triggerer_id FROM trigger")]

    def wait_for(self, what: str, condition: Callable[[], Any], *, seconds: float = 120) -> None:
        """Wait until something is so, as long as all components live."""
        deadline = time.monotonic() + seconds
        while not condition():
            for component in list(self.components):
                self._look_after(component)
            if time.monotonic() > deadline:
                states = "SELECT task_id, state, count(*) FROM task_instance GROUP BY 1, 2"
                raise AssertionError(f"No sign of {what} after {seconds:.0f} s: {self.query(states)}")
            time.sleep(0.2)

    # ------------------------------------------------------------- REST API

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """
        Ask Airflow's REST API for something.

        :param path: What comes after the version of the API.
        """
        if not AIRFLOW_2 and self._token is None:
            self._token = self._send("GET", "/auth/token")["access_token"]
        return self._send(method, f"/api/v{1 if AIRFLOW_2 else 2}{path}", body)

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> None:
        """Trigger a DAG run."""
        if not self.with_rest_api:
            self.run("dags", "trigger", dag_id, "--run-id", run_id, "--conf", json.dumps(conf))
            return
        body: dict[str, Any] = {"dag_run_id": run_id, "conf": conf}
        if not AIRFLOW_2:
            body["logical_date"] = None
        self.request("POST", f"/dags/{dag_id}/dagRuns", body)

    def create_connection(self, conn_id: str, connection: Mapping[str, Any]) -> None:
        self.request("POST", "/connections", _connection(conn_id, connection))

    def change_connection(self, conn_id: str, connection: Mapping[str, Any]) -> None:
        self.request("PATCH", f"/connections/{conn_id}", _connection(conn_id, connection))

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.rest_port}{path}", data, headers, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())


def _connection(conn_id: str, connection: Mapping[str, Any]) -> dict[str, Any]:
    """Return a connection as the REST API wants it."""
    return {**connection, "connection_id": conn_id, "extra": json.dumps(connection["extra"])}


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _processes_of(session: int) -> list[int]:
    """Return the processes of a session: tasks have process groups of their own, but no sessions."""

    def is_in(process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, psutil.Error):
            return False  # gone meanwhile, or somebody else's

    return [process.pid for process in psutil.process_iter() if is_in(process)]
