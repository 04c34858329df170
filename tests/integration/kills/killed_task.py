"""A task in a process of its own that handles SIGTERM as Airflow's own processes do, to be killed by a test."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_datazone.operators import datazone as operators

try:
    from airflow.sdk.exceptions import AirflowTaskTerminated
except ImportError:
    # Can go with 3.1.
    from airflow.exceptions import AirflowTaskTerminated

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

# Forked from a process that has imported everything, as Airflow's workers are: each would import for seconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class Sigterm(NamedTuple):
    """
    What becomes of a task after a SIGTERM.

    :param raises: Whether its handler raises when `on_kill` is done, or returns.
    :param seconds: Seconds after which a SIGKILL follows.
    """

    raises: bool
    seconds: float


AIRFLOW_2 = Sigterm(raises=True, seconds=60)  # [core] killed_task_cleanup_time
AIRFLOW_3 = Sigterm(raises=False, seconds=5)  # WatchedSubprocess.kill(escalation_delay=5.0)


class TaskInstance(SimpleNamespace):
    """Stands for Airflow's, which needs a whole Airflow around it: those are in `tests/faults`."""

    def xcom_push(self, key: str, value: Any) -> None:
        pass

    def xcom_pull(self, **arguments: Any) -> None:
        pass


def _end_with_the_tests() -> None:
    """Leave no task behind where the tests themselves are killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _execute(
    operator: str,
    arguments: dict[str, Any],
    log: str,
    raises: bool,
    try_number: int,
    environment: dict[str, str],
) -> None:
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    # That of the test, not of whichever had the first process.
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    task = getattr(operators, operator)(task_id="killed", aws_conn_id="datazone_default", **arguments)
    ti = TaskInstance(
        dag_id="kills", run_id="manual", task_id="killed", map_index=-1, try_number=try_number, max_tries=3
    )
    dag_run = SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))

    def on_term(*_: Any) -> None:
        task.on_kill()
        if raises:
            raise AirflowTaskTerminated("Task received SIGTERM signal")

    signal.signal(signal.SIGTERM, on_term)
    code = 0
    try:
        task.execute({"ti": ti, "dag_run": dag_run})
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # So does Airflow end a task's process, whatever its threads do.
    os._exit(code)


class KilledTask:
    """
    A task that a test kills.

    :param log: Where it logs.
    :param operator: The operator's name.
    :param sigterm: What becomes of it after a SIGTERM.
    :param try_number: Its try.
    :param arguments: The operator's.
    """

    def __init__(
        self, log: Path, operator: str, sigterm: Sigterm, *, try_number: int = 1, **arguments: Any
    ) -> None:
        self._log = log
        self._sigterm = sigterm
        #: When SIGTERM was sent, and when the process was gone; :func:`time.monotonic`.
        self.killed_at = self.gone_at = 0.0
        self._process: ForkServerProcess = _processes.Process(
            target=_execute,
            args=(operator, arguments, str(log), sigterm.raises, try_number, dict(os.environ)),
        )
        self._process.start()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def kill(self) -> None:
        """Send SIGTERM, and SIGKILL when the time after it is up."""
        self.killed_at = time.monotonic()
        self._process.terminate()
        self._process.join(self._sigterm.seconds)
        self.close()
        self.gone_at = time.monotonic()

    def close(self) -> None:
        """Leave no process behind."""
        self._process.kill()
        self._process.join()
