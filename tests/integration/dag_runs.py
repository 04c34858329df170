"""What `dag.test()` needs to run tasks as a scheduler, a worker and a triggerer do."""

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
    """Time that is over for a task with an ``execution_timeout`` as soon as it sleeps."""

    def sleep(self, seconds: float) -> None:
        self.sound()
        time.sleep(seconds)

    def sound(self) -> None:
        """Let Airflow's own alarm go off, if it is set; it is for the main thread."""
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)


def mend_dag_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `dag.test()` run many tasks, and time-outs, on every version."""
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor

        # Each try would have a client of its own, which reads the whole DAG anew, and on 3.0 an API server.
        client = functools.cache(functools.partial(InProcessTestSupervisor._api_client, dag))
        monkeypatch.setattr(InProcessTestSupervisor, "_api_client", lambda dag=None: client())
    else:
        from airflow.models import dag as dag_module

        run_task = dag_module._run_task

        # A time-out, which is no `Exception`, would end the whole DAG run, which it does not with a scheduler.
        def run_task_in_time(**arguments: Any) -> None:
            with suppress(AirflowTaskTimeout):
                run_task(**arguments)

        monkeypatch.setattr(dag_module, "_run_task", run_task_in_time)
