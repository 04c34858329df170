"""Find and kill the worker of a task; imported by DAG files, so it defines no DAG."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import psutil

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
    if version("apache-airflow").startswith("2."):
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
