"""Fixtures for tests with real Airflow in a separate home, real boto3 and a local DataZone server."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_datazone.testing import DataZoneServer

REPOSITORY = Path(__file__).resolve().parents[1]

# Airflow reads its environment once, at the first import, so set it before any test imports Airflow.
AIRFLOW_HOME = tempfile.mkdtemp(prefix="airflow-home-")
for name in [name for name in os.environ if name.startswith(("AIRFLOW", "AWS_"))]:
    del os.environ[name]
os.environ.update(
    AIRFLOW_HOME=AIRFLOW_HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    # Ignore the machine's credentials, and do not wait for an instance metadata service.
    AWS_CONFIG_FILE=f"{AIRFLOW_HOME}/no-aws-config",
    AWS_SHARED_CREDENTIALS_FILE=f"{AIRFLOW_HOME}/no-aws-credentials",
    AWS_EC2_METADATA_DISABLED="true",
    # Use no proxy between the tests and the local DataZone server.
    NO_PROXY="127.0.0.1,localhost",
    no_proxy="127.0.0.1,localhost",
)
# Airflow 3.3 only runs DAGs that are in its DAG folder.
DAGS_FOLDER = Path(AIRFLOW_HOME, "dags")
DAGS_FOLDER.mkdir()
for folder in ("example_dags", "tests/dags"):
    (DAGS_FOLDER / folder.replace("/", "_")).symlink_to(REPOSITORY / folder)


def example_dags() -> list[Path]:
    """Return the example DAGs that this version of Airflow supports; the others define no DAG."""
    airflow = Version(version("apache-airflow"))
    # For asset watchers, and for human-in-the-loop operators.
    needs = {"example_datazone_on_run_ended": "3.0", "example_datazone_review_predictions": "3.1"}
    paths = sorted((REPOSITORY / "example_dags").glob("*.py"))
    return [path for path in paths if airflow >= Version(needs.get(path.stem, "2.11"))]


def pytest_unconfigure() -> None:
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


def run_airflow(
    *arguments: str, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run an Airflow CLI command in the Airflow home of the tests."""
    return subprocess.run(
        [python, "-m", "airflow", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="session")
def python() -> str:
    """Return the interpreter under test: this one, or the one where a wheel is installed."""
    return sys.executable


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Create Airflow's metadata database, a SQLite file."""
    done = run_airflow("db", "migrate")
    assert done.returncode == 0, done.stderr


# One server per module: all servers of a process share their state, because moto does.
@pytest.fixture(scope="module")
def datazone_server() -> Iterator[DataZoneServer]:
    from airflow_provider_datazone.testing import DataZoneServer

    with DataZoneServer() as server:
        yield server


@pytest.fixture
def datazone(datazone_server: DataZoneServer, monkeypatch: pytest.MonkeyPatch) -> DataZoneServer:
    """Return an empty local DataZone server; the connection `datazone_default` points to it."""
    datazone_server.reset()
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", datazone_server.connection)
    return datazone_server


class Clock:
    """A clock that advances only when code calls `sleep`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []
        self.time = time.time

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


class LoopClock:
    """The clock of every event loop. A test moves it forward, so timeouts expire when the test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        monkeypatch.setattr(asyncio.BaseEventLoop, "time", lambda loop: self._loop_time(loop))

    def _loop_time(self, loop: asyncio.AbstractEventLoop) -> float:
        self._loops.add(loop)
        return time.monotonic() + self._ahead

    def time(self) -> float:
        """Replace :func:`time.time` with a clock that agrees with the event loop."""
        return time.time() + self._ahead

    def put_forward(self, seconds: float) -> None:
        self._ahead += seconds
        for loop in list(self._loops):
            # Wake the loop: it may be waiting for its next timer. A closed loop raises RuntimeError.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: None)


@pytest.fixture
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    return LoopClock(monkeypatch)


def once(
    condition: Callable[[], bool], action: Callable[[], None], *, within: float = 120.0
) -> threading.Thread:
    """
    Call `action` in another thread as soon as `condition` returns true.

    :param within: Seconds after which `action` is called anyway; the test then fails.
    """

    def wait_and_call() -> None:
        end = time.monotonic() + within
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait_and_call, daemon=True)
    thread.start()
    return thread


@dataclass
class Catalog:
    """A domain with one asset, and a way to start runs for it."""

    server: DataZoneServer
    domain_identifier: str
    project_identifier: str
    asset_identifier: str

    def start_run(self, *types: str, **outcome: Any) -> str:
        """Start a run with an outcome, given as arguments of :meth:`DataZoneServer.set_run_outcome`."""
        self.server.set_run_outcome(self.asset_identifier, **outcome)
        run = self.server.client().start_metadata_generation_run(
            domainIdentifier=self.domain_identifier,
            owningProjectIdentifier=self.project_identifier,
            target={"type": "ASSET", "identifier": self.asset_identifier},
            types=list(types) or ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        )
        return str(run["id"])


# The possible results of a run for names and descriptions.
TYPE_STATS: dict[str, list[dict[str, str]]] = {
    "SUCCEEDED": [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
        {"type": "BUSINESS_NAMES", "status": "SUCCEEDED"},
    ],
    "PARTIALLY_SUCCEEDED": [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
        {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no names today"},
    ],
    "FAILED": [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "FAILED"},
        {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no names today"},
    ],
    "CANCELED": [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "CANCELED"},
        {"type": "BUSINESS_NAMES", "status": "CANCELED"},
    ],
    "QUOTA": [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "FAILED"},
        {
            "type": "BUSINESS_NAMES",
            "status": "FAILED",
            "errorMessage": "business name generation has reached monthly quota",
        },
    ],
}


def outcome_of(type_stats: list[dict[str, str]]) -> dict[str, Any]:
    """Return the arguments of :meth:`DataZoneServer.set_run_outcome` for a run with these type stats."""
    return {
        "statuses": {stat["type"]: stat["status"] for stat in type_stats},
        "error_messages": {
            stat["type"]: stat["errorMessage"] for stat in type_stats if "errorMessage" in stat
        },
    }


def make_catalog(server: DataZoneServer) -> Catalog:
    return Catalog(server, *server.create_asset())


@pytest.fixture
def catalog(datazone: DataZoneServer) -> Catalog:
    return make_catalog(datazone)
