"""An Airflow that soon notices that somebody is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY
from tests.system.conftest import pytest_runtest_makereport as pytest_runtest_makereport, running
from tests.system.deployment import AIRFLOW_2, Deployment

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

# Seconds without a heartbeat after which a task counts as dead: far less than Airflow's 300, yet enough for
# one that lives on a busy machine.
LOST_AFTER = 30
HEARTBEAT = 3
# Airflow 2 has its DAG processor fail a task that it misses, and asks again for as long as the task is not: the
# second time may strike the next try.
LOOK_FOR_ZOMBIES = 60
SETTINGS = {
    "CORE__PARALLELISM": 24,
    # Long enough for a machine with many tasks that start.
    "CORE__DAGBAG_IMPORT_TIMEOUT": 300,
    "CORE__DAG_FILE_PROCESSOR_TIMEOUT": 600,
    "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": 600,
    # Processors are for the tasks.
    "CORE__LAZY_LOAD_PLUGINS": False,
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.5,
    **(
        {
            "SCHEDULER__JOB_HEARTBEAT_SEC": HEARTBEAT,
            "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": LOST_AFTER,
            "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": LOOK_FOR_ZOMBIES,
        }
        if AIRFLOW_2
        else {
            "WORKERS__MIN_HEARTBEAT_INTERVAL": HEARTBEAT,
            "WORKERS__MAX_FAILED_HEARTBEATS": LOST_AFTER // HEARTBEAT,
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": LOST_AFTER,
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": HEARTBEAT,
        }
    ),
}

# Workers are forked from the scheduler: what it has imported, no task has to.
PRELOAD = "import airflow_provider_datazone.operators.datazone\n"


@pytest.fixture(scope="module")
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, datazone_server: DataZoneServer
) -> Iterator[Deployment]:
    """
    An Airflow with the module's ``DAG_FILE``.

    A module may have ``MORE_SETTINGS``, or ``SETTINGS`` instead of those of this folder; and ``WITH_REST_API = False``.
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
