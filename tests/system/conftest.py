"""A failed test reports the last log lines of each Airflow component."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import REPOSITORY
from tests.system.database import Postgres
from tests.system.deployment import Deployment

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

TAIL = 30
_deployments: list[Deployment] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed and "deployment" in getattr(item, "fixturenames", ()) and _deployments:
        for component in _deployments[-1].components:
            tail = "\n".join(component.output.splitlines()[-TAIL:])
            report.sections.append((f"{component.name} ({component.log})", tail))
    return report


@contextmanager
def running(deployment: Deployment, server: DataZoneServer) -> Iterator[Deployment]:
    """Run Airflow without a triggerer, with the connection to the local DataZone in its database."""
    server.reset()
    _deployments.append(deployment)
    # Treat SIGTERM like Ctrl-C, so that the fixture stops all components.
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        deployment.set_up("datazone_default", server.connection)
        deployment.start()
        yield deployment
    finally:
        deployment.stop()
        signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, datazone_server: DataZoneServer
) -> Iterator[Deployment]:
    dag_file = REPOSITORY / "tests" / "dags" / "deferred_waits.py"
    deployment = Deployment(tmp_path_factory.mktemp("airflow"), dag_file, database=Postgres())
    with running(deployment, datazone_server):
        yield deployment
