"""An Airflow deployment that detects dead processes quickly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY
from tests.faults.workers import DETECT_DEAD_TASKS
from tests.system.conftest import pytest_runtest_makereport as pytest_runtest_makereport, running
from tests.system.deployment import Deployment

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

SETTINGS = {
    "CORE__PARALLELISM": 24,
    # Allow for a machine on which many tasks start.
    "CORE__DAGBAG_IMPORT_TIMEOUT": 300,
    "CORE__DAG_FILE_PROCESSOR_TIMEOUT": 600,
    "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": 600,
    # Import once in the parent process, to save CPU time for the tasks.
    "CORE__LAZY_LOAD_PLUGINS": False,
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.5,
    **DETECT_DEAD_TASKS,
}

# The scheduler forks the workers, so tasks reuse the modules that it has imported.
PRELOAD = "import airflow_provider_datazone.operators.datazone\n"


@pytest.fixture(scope="module")
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, datazone_server: DataZoneServer
) -> Iterator[Deployment]:
    """
    Yield an Airflow deployment with the module's ``DAG_FILE``.

    A module can define ``MORE_SETTINGS`` to add settings, ``SETTINGS`` to replace those of this folder, and
    ``WITH_REST_API = False``.
    """
    module = request.module
    deployment = Deployment(
        tmp_path_factory.mktemp("airflow"),
        REPOSITORY / "tests" / "dags" / module.DAG_FILE,
        settings=getattr(module, "SETTINGS", SETTINGS) | getattr(module, "MORE_SETTINGS", {}),
        with_rest_api=getattr(module, "WITH_REST_API", True),
    )
    plugins = deployment.home / "plugins"
    plugins.mkdir()
    (plugins / "preload.py").write_text(PRELOAD, encoding="utf-8")
    with running(deployment, datazone_server):
        yield deployment
