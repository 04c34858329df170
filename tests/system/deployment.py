"""An Airflow deployment of real processes with a separate home folder."""

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

from tests.conftest import REPOSITORY
from tests.system.database import Database, SQLite
from tests.system.ports import free_port

AIRFLOW_2 = version("apache-airflow").startswith("2.")
AIRFLOW_3_0 = version("apache-airflow").startswith("3.0.")
# Seconds without a heartbeat after which another triggerer takes over the triggers. The value is far below Airflow's
# default of 30, and high enough for a live triggerer on a busy machine.
HANDOVER_SECONDS = 8


class Component(NamedTuple):
    """An Airflow process, which is the session leader of all its descendants."""

    name: str
    command: tuple[str, ...]
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


class TaskInstance(NamedTuple):
    """A task instance in Airflow's database."""

    map_index: int
    state: str | None
    try_number: int


class Deployment:
    """
    Airflow's components as processes.

    :param home: An empty folder.
    :param dag_files: The DAG files to deploy.
    :param settings: Airflow settings (``SECTION__KEY``) in addition to those of all tests.
    :param with_rest_api: Whether to serve the REST API.
    :param database: The metadata database; by default, SQLite. The deployment starts and stops it.
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
        #: Whether to restart a component that exits, like systemd and Kubernetes. Otherwise, an exit is an error.
        self.restarts_components = False
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
            # In Airflow 3.0, LocalExecutor starts a task before the scheduler has committed that it is queued. If the
            # task is faster, its try fails without executing (apache/airflow#56010). With one task per transaction the
            # commit follows at once. Remove this with support for 3.0.
            "SCHEDULER__MAX_TIS_PER_QUERY": 1 if AIRFLOW_3_0 else 16,
            "TRIGGERER__JOB_HEARTBEAT_SEC": 1,
            "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": HANDOVER_SECONDS,
            "USAGE_DATA_COLLECTION__ENABLED": False,
            # Airflow 2.11 stops a webserver with a slow start after this timeout, even if it serves requests.
            "WEBSERVER__WEB_SERVER_MASTER_TIMEOUT": 3600,
            # Every client has all permissions, because the tests do not cover authorization.
            "API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
            **(settings or {}),
        }
        self.environment = os.environ | {
            f"AIRFLOW__{name}": str(value) for name, value in all_settings.items()
        }
        self.environment["AIRFLOW_HOME"] = str(home)
        # DAG files import helpers of the tests.
        paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if AIRFLOW_2:
            # Airflow 2 rejects SQLite with LocalExecutor except in tests, and SequentialExecutor needs several seconds for
            # each task. Remove this with support for 2.11.
            self.environment["_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK"] = "1"
            (home / "webserver_config.py").write_text("AUTH_ROLE_PUBLIC = 'Admin'\n", encoding="utf-8")

    # ------------------------------------------------------------ processes

    def run(self, *arguments: str) -> None:
        """Run an Airflow command and wait for its end."""
        completed = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert completed.returncode == 0, f"airflow {' '.join(arguments[:2])}: {completed.stdout[-5000:]}"

    def set_up(self, conn_id: str, connection: str) -> None:
        """Create the database and a connection in it."""
        self.database.start()
        self.run("db", "migrate")
        self.database.tune()
        self.run("connections", "add", conn_id, "--conn-json", connection)

    def start(self) -> None:
        """Start all components except triggerers."""
        if not AIRFLOW_2:
            self._start_api_server("execution", self.port)
            self.start_component("dag-processor")
        if self.with_rest_api and AIRFLOW_2:
            arguments = ("--workers", "1", "--hostname", "127.0.0.1", "--port", str(self.rest_port))
            self.start_component("webserver", *arguments)
        elif self.with_rest_api:
            # Run the REST API in a separate process. In one event loop, it could wait for a database lock of a request to
            # the execution API, which then cannot continue.
            self._start_api_server("core", self.rest_port)
        self.start_component("scheduler", "--skip-serve-logs")
        self.wait_for_servers()
        self.wait_for("the DAGs", lambda: self._parsed_dag_files() == self._dag_files)

    def wait_for_servers(self) -> None:
        """Wait until the API servers accept connections."""
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
                # PostgreSQL clients report this name to the server.
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
        """Start a triggerer, and return it with its job id."""
        known = self.triggerer_jobs()
        component = self.start_component("triggerer", "--skip-serve-logs")
        self.wait_for("a triggerer", lambda: self.triggerer_jobs() - known)
        (job,) = self.triggerer_jobs() - known
        return component, job

    def kill(self, component: Component) -> None:
        """Kill a component with all its descendants, and wait until they have ended."""
        if component in self._killed:
            return  # Another process can have the process id now.
        session = component.process.pid
        deadline = time.monotonic() + 30
        while left := _processes_of_session(session):
            assert time.monotonic() < deadline, f"{component.name} left processes behind: {left}"
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.05)
        component.process.wait(timeout=30)
        self._killed.append(component)

    def restart(self, component: Component) -> Component:
        """Kill a component if it runs, and start it again."""
        self.kill(component)
        return self.start_component(*component.command)

    def living(self, command: str) -> list[Component]:
        """Return the running components of a kind."""
        return [one for one in self.components if one.command[0] == command and one not in self._killed]

    def _check_component(self, component: Component) -> None:
        code = component.process.poll()
        if code is None or component in self._killed:
            return
        assert self.restarts_components, f"{component.name} ended with {code}"
        self.restart(component)

    def pause(self, component: Component) -> None:
        """Pause a component with all its descendants while it does not lock the database."""
        while True:
            self._signal(component, signal.SIGSTOP)
            if not self.database.is_locked(component.name):
                return
            self.resume(component)

    def resume(self, component: Component) -> None:
        """Resume a paused component."""
        self._signal(component, signal.SIGCONT)

    def _signal(self, component: Component, number: signal.Signals) -> None:
        for process in _processes_of_session(component.process.pid):
            os.kill(process, number)

    def stop(self) -> None:
        """Kill all components, even if the kill of one component fails."""
        with ExitStack() as stack:
            stack.callback(self.database.stop)
            for component in self.components:
                stack.callback(self.kill, component)

    # ------------------------------------------------------------- database

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        return self.database.query(sql, *parameters)

    def triggerer_jobs(self) -> set[int]:
        """Return the job ids of all triggerers, including ended ones."""
        return {job for (job,) in self.query("SELECT id FROM job WHERE job_type = 'TriggererJob'")}

    def _parsed_dag_files(self) -> int:
        files = "SELECT count(DISTINCT fileloc) FROM dag WHERE dag_id IN (SELECT dag_id FROM serialized_dag)"
        return int(self.query(files)[0][0])

    def task_instances(self, run_id: str, task_id: str = "wait") -> list[TaskInstance]:
        # Before its expansion, a mapped task has one row with the map index -1.
        rows = self.query(
            "SELECT map_index, state, try_number FROM task_instance"
            " WHERE run_id = ? AND task_id = ? ORDER BY map_index",
            run_id,
            task_id,
        )
        return [TaskInstance(*row) for row in rows]

    def triggers(self) -> list[int | None]:
        """Return the job id of the triggerer of each trigger."""
        return [triggerer for (triggerer,) in self.query("SELECT triggerer_id FROM trigger")]

    def wait_for(self, what: str, condition: Callable[[], Any], *, seconds: float = 120) -> None:
        """Wait for a condition while all components run."""
        deadline = time.monotonic() + seconds
        while not condition():
            for component in list(self.components):
                self._check_component(component)
            if time.monotonic() > deadline:
                states = "SELECT task_id, state, count(*) FROM task_instance GROUP BY 1, 2"
                raise AssertionError(
                    f"Timed out waiting for {what} after {seconds:.0f} s: {self.query(states)}"
                )
            time.sleep(0.2)

    # ------------------------------------------------------------- REST API

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """
        Send a request to the REST API.

        :param path: The path after the API version.
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
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.loads(response.read())


def _connection(conn_id: str, connection: Mapping[str, Any]) -> dict[str, Any]:
    """Return a connection in the format of the REST API."""
    return {**connection, "connection_id": conn_id, "extra": json.dumps(connection["extra"])}


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _processes_of_session(session: int) -> list[int]:
    """Return the processes of a session. Tasks have separate process groups, but no separate sessions."""

    def is_in(process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, psutil.Error):
            return False  # The process has ended or belongs to another user.

    return [process.pid for process in psutil.process_iter() if is_in(process)]
