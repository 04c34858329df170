"""An Airflow deployment that detects dead processes quickly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY
from tests.system.conftest import pytest_runtest_makereport as pytest_runtest_makereport, running
from tests.system.deployment import AIRFLOW_2, Deployment

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

# Seconds without a heartbeat after which Airflow treats a task as dead. The value is far below Airflow's default of
# 300, and high enough for a live task on a busy machine.
HEARTBEAT_TIMEOUT = 30
HEARTBEAT = 3
# In Airflow 2, the DAG processor fails a zombie task. The scheduler repeats the request until the task has failed, and
# a repeated request can fail the next try.
ZOMBIE_DETECTION_INTERVAL = 60
SETTINGS = {
    "CORE__PARALLELISM": 24,
    # Allow for a machine on which many tasks start.
    "CORE__DAGBAG_IMPORT_TIMEOUT": 300,
    "CORE__DAG_FILE_PROCESSOR_TIMEOUT": 600,
    "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": 600,
    # Import once in the parent process, to save CPU time for the tasks.
    "CORE__LAZY_LOAD_PLUGINS": False,
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.5,
    **(
        {
            "SCHEDULER__JOB_HEARTBEAT_SEC": HEARTBEAT,
            "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": HEARTBEAT_TIMEOUT,
            "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": ZOMBIE_DETECTION_INTERVAL,
        }
        if AIRFLOW_2
        else {
            "WORKERS__MIN_HEARTBEAT_INTERVAL": HEARTBEAT,
            "WORKERS__MAX_FAILED_HEARTBEATS": HEARTBEAT_TIMEOUT // HEARTBEAT,
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": HEARTBEAT_TIMEOUT,
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": HEARTBEAT,
        }
    ),
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
