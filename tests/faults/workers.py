"""Find and kill the worker of a task; imported by DAG files, so it defines no DAG."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import psutil

AIRFLOW_2 = version("apache-airflow").startswith("2.")
# Airflow 3.0 does not retry a task whose process is killed while its supervisor lives (apache/airflow#55753).
RETRIES_KILLED_TASKS = not version("apache-airflow").startswith("3.0.")
# Seconds without a heartbeat after which Airflow treats a task as dead. The value is far below Airflow's default of
# 300, and high enough for a live task on a busy machine.
HEARTBEAT_TIMEOUT = 30
HEARTBEAT = 3
# In Airflow 2, the DAG processor fails a zombie task. The scheduler repeats the request until the task has failed, and
# a repeated request can fail the next try.
ZOMBIE_DETECTION_INTERVAL = 60
DETECT_DEAD_TASKS: dict[str, int] = (
    {
        "SCHEDULER__JOB_HEARTBEAT_SEC": HEARTBEAT,
        "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": HEARTBEAT_TIMEOUT,
        "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": ZOMBIE_DETECTION_INTERVAL,
    }
    if AIRFLOW_2
    else {
        "WORKERS__MIN_HEARTBEAT_INTERVAL": HEARTBEAT,
        "WORKERS__MAX_FAILED_HEARTBEATS": HEARTBEAT_TIMEOUT // HEARTBEAT,
        # A busy supervisor can miss that its task has ended (apache/airflow#50500). Until this timeout, by default 60
        # seconds, it sends no heartbeats, and the scheduler would retry a task that had failed for good.
        "WORKERS__SOCKET_CLEANUP_TIMEOUT": HEARTBEAT_TIMEOUT // 3,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": HEARTBEAT_TIMEOUT,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": HEARTBEAT,
    }
)

# The attempts of botocore for a request, for faults that affect all attempts.
ATTEMPTS = 2


def kill_worker(process: int) -> None:
    """
    Kill a task with its supervisor, so that no process reports how it ended.

    On Airflow 3, the supervisor is the worker of the executor, which the executor replaces. On Airflow 2, the worker of
    the executor forks supervisors and continues. The scheduler ignores its report of a dead supervisor.
    """
    # Each Airflow component is a session leader.
    scheduler = os.getsid(process)
    chain = [psutil.Process(process)]
    while (parent := chain[-1].parent()).pid != scheduler:
        chain.append(parent)
    if AIRFLOW_2:
        chain.pop()
    for killed in reversed(chain):
        killed.kill()


def mark(folder: str, dag_id: str, what: str, try_number: int = 1, map_index: int = -1) -> Path:
    """Return the path of the file that marks an event in a try of a task."""
    return Path(folder, f"{dag_id}.{map_index}.{try_number}.{what}")


def write_process(path: Path) -> None:
    """Write the process id to a file, which appears complete."""
    unfinished = path.with_suffix(".new")
    unfinished.write_text(str(os.getpid()), encoding="utf-8")
    unfinished.rename(path)
