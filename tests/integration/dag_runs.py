"""Helpers that let `dag.test()` run tasks as a scheduler, a worker and a triggerer do."""

from __future__ import annotations

import functools
import signal
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from tests.conftest import LoopClock
from tests.dags.run_operators import (
    dag,
)


class AlarmClock(LoopClock):
    """A clock that ends the ``execution_timeout`` of a task as soon as the task sleeps."""

    def sleep(self, seconds: float) -> None:
        self.sound()
        time.sleep(seconds)

    def sound(self) -> None:
        """Send the signal of Airflow's timeout alarm to the main thread, if the alarm is set."""
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)


def mend_dag_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch `dag.test()` so that it runs many tasks, and task timeouts, on every version of Airflow."""
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor

        # Without the patch, each try creates a client that parses the whole DAG again, and on 3.0 an API server.
        client = functools.cache(functools.partial(InProcessTestSupervisor._api_client, dag))
        monkeypatch.setattr(InProcessTestSupervisor, "_api_client", lambda dag=None: client())
    else:
        from airflow.models import dag as dag_module

        run_task = dag_module._run_task

        # A task timeout is not an `Exception`. Without the patch it ends the whole DAG run, which a scheduler does not do.
        def run_task_until_timeout(**arguments: Any) -> None:
            with suppress(AirflowTaskTimeout):
                run_task(**arguments)

        monkeypatch.setattr(dag_module, "_run_task", run_task_until_timeout)
