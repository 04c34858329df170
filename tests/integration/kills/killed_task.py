"""Run a task in a separate process that handles SIGTERM like Airflow, so that a test can kill it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_datazone.operators import datazone as operators
from tests.task_context import make_context

try:
    from airflow.sdk.exceptions import AirflowTaskTerminated
except ImportError:
    # Remove when Airflow 3.1 is the oldest supported version.
    from airflow.exceptions import AirflowTaskTerminated

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

# Fork from a process that has imported everything, like Airflow's workers. Imports take seconds otherwise.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class Sigterm(NamedTuple):
    """
    How Airflow ends a task with SIGTERM.

    :param raises: Whether the signal handler raises an exception after `on_kill`, or returns.
    :param seconds: Seconds until SIGKILL follows.
    """

    raises: bool
    seconds: float


AIRFLOW_2 = Sigterm(raises=True, seconds=60)  # [core] killed_task_cleanup_time
AIRFLOW_3 = Sigterm(raises=False, seconds=5)  # WatchedSubprocess.kill(escalation_delay=5.0)


def _exit_with_parent() -> None:
    """Exit when the test process ends, so that no task process is left behind."""
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
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    # Use the environment of this test. The fork server has the one of the first test.
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    task = getattr(operators, operator)(task_id="killed", aws_conn_id="datazone_default", **arguments)
    context = make_context(try_number=try_number)

    def on_term(*_: Any) -> None:
        task.on_kill()
        if raises:
            raise AirflowTaskTerminated("Task received SIGTERM signal")

    signal.signal(signal.SIGTERM, on_term)
    code = 0
    try:
        task.execute(context)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Airflow ends task processes in the same way, without waiting for threads.
    os._exit(code)


class KilledTask:
    """
    A task process that a test kills.

    :param log: The log file of the task.
    :param operator: The name of the operator class.
    :param sigterm: How Airflow ends the task with SIGTERM.
    :param try_number: The try number of the task instance.
    :param arguments: Arguments of the operator.
    """

    def __init__(
        self, log: Path, operator: str, sigterm: Sigterm, *, try_number: int = 1, **arguments: Any
    ) -> None:
        self._log = log
        self._sigterm = sigterm
        #: When SIGTERM was sent, and when the process had ended, as :func:`time.monotonic` values.
        self.killed_at = self.ended_at = 0.0
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
        """Send SIGTERM, and SIGKILL if the process is still alive after the grace period."""
        self.killed_at = time.monotonic()
        self._process.terminate()
        self._process.join(self._sigterm.seconds)
        self.close()
        self.ended_at = time.monotonic()

    def close(self) -> None:
        """Kill the process if it is still alive, and wait for it."""
        self._process.kill()
        self._process.join()
