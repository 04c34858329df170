"""One DAG with a start for each fault, and the faults that kill a worker at an exact moment."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import DataZoneStartMetadataGenerationRunOperator
from tests.faults.workers import ATTEMPTS, kill_worker, mark, write_process

TASK_ID = "start"
MAPPED = 3
POLL_INTERVAL = 0.5
# More retries than any fault needs, so a task that fails permanently has retries left.
RETRIES = 4
# High enough for a task to reach its wait on a busy machine.
EXECUTION_TIMEOUT = timedelta(seconds=15)


def begin(context: Any, kill_at: str | None = None, timeout: timedelta | None = None) -> None:
    """
    Write the process id of the task to a file.

    :param kill_at: When the worker of the first try is killed: at a botocore event of the start request, or on
        ``resume``.
    :param timeout: The ``execution_timeout`` of the first try.
    """
    ti = context["ti"]
    # Airflow executes this copy of the operator. On Airflow 3.0, the operator in the context is a different copy.
    operator = ti.task

    def marked(what: str) -> Path:
        return mark(context["dag_run"].conf["marks"], ti.dag_id, what, ti.try_number, ti.map_index)

    def die(**kwargs: Any) -> None:
        marked("killed").touch()
        kill_worker(os.getpid())

    process = marked("process")
    # Create the client before the timeout begins.
    events = operator.hook.conn.meta.events
    if ti.try_number == 1:
        operator.execution_timeout = timeout
        if kill_at == "resume":
            if process.exists():
                die()
        elif kill_at is not None:
            events.register(f"{kill_at}.datazone.StartMetadataGenerationRun", die)
    write_process(process)


BEFORE_START = {"pre_execute": partial(begin, kill_at="before-send")}
AFTER_START = {"pre_execute": partial(begin, kill_at="after-call")}
ON_RESUME = {"pre_execute": partial(begin, kill_at="resume")}
TIMEOUT = {"pre_execute": partial(begin, timeout=EXECUTION_TIMEOUT)}
FEW_ATTEMPTS = {"botocore_config": {"retries": {"total_max_attempts": ATTEMPTS}}}
DEFERRABLE = {"deferrable": True}

# One DAG for each key, with the arguments of its task.
TASKS: dict[str, dict[str, Any]] = {
    "killed_before_start": BEFORE_START,
    "killed_before_answer": {},
    "killed_after_answer": AFTER_START,
    "killed_and_run_ended": AFTER_START,
    "killed_while_waiting": {},
    "mapped_killed_while_waiting": {},
    "killed_before_start_deferrable": BEFORE_START | DEFERRABLE,
    "killed_before_answer_deferrable": DEFERRABLE,
    "killed_after_answer_deferrable": AFTER_START | DEFERRABLE,
    "killed_on_resume": ON_RESUME | DEFERRABLE,
    "triggerer_killed": DEFERRABLE,
    "triggerer_stalled": DEFERRABLE,
    "answer_lost": FEW_ATTEMPTS,
    "throttled": FEW_ATTEMPTS,
    "conflict": {},
    "cleared_while_waiting": {},
    "cleared_while_deferred": DEFERRABLE,
    "cleared_after_success": {},
    "marked_failed_while_waiting": {},
    "marked_failed_while_deferred": DEFERRABLE,
    "timed_out": TIMEOUT,
    "timed_out_deferrable": TIMEOUT | DEFERRABLE,
    "run_failed": {},
    "quota_used_up": {},
}

for name, particulars in TASKS.items():
    with DAG(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
        catchup=False,
    ):
        arguments: dict[str, Any] = {
            "task_id": TASK_ID,
            "types": ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
            "domain_identifier": "{{ dag_run.conf['domain_identifier'] }}",
            "owning_project_identifier": "{{ dag_run.conf['owning_project_identifier'] }}",
            "aws_conn_id": "datazone_default",
            "poll_interval": POLL_INTERVAL,
            "retries": RETRIES,
            "retry_delay": timedelta(0),
            "pre_execute": begin,
            **particulars,
        }
        assets = [f"{{{{ dag_run.conf['assets'][{index}] }}}}" for index in range(MAPPED)]
        if name.startswith("mapped"):
            DataZoneStartMetadataGenerationRunOperator.partial(**arguments).expand(asset_identifier=assets)
        else:
            DataZoneStartMetadataGenerationRunOperator(asset_identifier=assets[0], **arguments)
