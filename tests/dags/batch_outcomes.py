"""A task for each outcome of a batch that requires Airflow. The conf of the DAG run contains the assets."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_datazone.operators.datazone import DataZoneBatchMetadataGenerationOperator

TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
MODES = ("worker", "deferrable")
# The modes of each case, and the final statuses of the runs of its assets. Several statuses are of successive runs.
CASES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "all_succeed": (MODES, ["SUCCEEDED", "SUCCEEDED", "PARTIALLY_SUCCEEDED"]),
    "some_fail": (MODES, ["SUCCEEDED", "FAILED", "CANCELED", "SUCCEEDED", "PARTIALLY_SUCCEEDED"]),
    "none_known": (("deferrable",), []),
    "quota": (MODES, ["SUCCEEDED", "QUOTA", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]),
    # Only the first run fails.
    "retry": (MODES, ["SUCCEEDED", "FAILED SUCCEEDED", "SUCCEEDED"]),
    "timeout": (MODES, ["ENDLESS", "SUCCEEDED"]),
    "no_xcom": (("worker",), ["SUCCEEDED", "FAILED"]),
    "from_xcom": (("worker",), ["SUCCEEDED", "SUCCEEDED", "FAILED"]),
    "from_mapped": (("deferrable",), ["SUCCEEDED", "SUCCEEDED"]),
    "mapped": (("deferrable",), ["SUCCEEDED", "FAILED", "SUCCEEDED"]),
}
# The tests advance the clock past this timeout.
EXECUTION_TIMEOUT = timedelta(minutes=10)


def name_of(case: str, mode: str) -> str:
    return f"{case}-{mode}"


def assets_of(name: str, number: int) -> list[str]:
    return [f"{{{{ dag_run.conf['assets']['{name}'][{index}] }}}}" for index in range(number)]


# Not in `default_args`, because Airflow 2.11 passes those to all mapped tasks.
ARGUMENTS = {
    "aws_conn_id": "datazone_default",
    "domain_identifier": "{{ dag_run.conf['domain_identifier'] }}",
    "owning_project_identifier": "{{ dag_run.conf['project_identifier'] }}",
    "types": TYPES,
    "poll_interval": 0.01,
}


def generate(name: str, asset_identifiers: Any, **arguments: Any) -> Any:
    known = {"task_id": name, "asset_identifiers": asset_identifiers, **ARGUMENTS}
    return DataZoneBatchMetadataGenerationOperator(**known | arguments)


@task(trigger_rule="all_success", retries=0)
def list_assets(name: str, dag_run: Any = None) -> list[str]:
    return list(dag_run.conf["assets"][name])


@task(trigger_rule="all_success", retries=0)
def one_asset(index: int, name: str, dag_run: Any = None) -> str:
    return str(dag_run.conf["assets"][name][index])


with DAG(
    dag_id="batch_outcomes",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={
        "trigger_rule": "all_done",
        "retries": 0,
        "retry_delay": timedelta(0),
    },
) as dag:
    for case, (modes, endings) in CASES.items():
        for mode in modes:
            name = name_of(case, mode)
            given: Any = assets_of(name, len(endings))
            arguments: dict[str, Any] = {"deferrable": mode == "deferrable"}
            if case == "quota":
                # The test detects a retry by the try_number.
                arguments |= {"max_concurrent_runs": 1, "retries": 1}
            elif case == "retry":
                arguments |= {"retries": 1}
            elif case == "timeout":
                arguments |= {"execution_timeout": EXECUTION_TIMEOUT}
            elif case == "no_xcom":
                arguments |= {"do_xcom_push": False, "max_failures": 1}
            elif case == "from_xcom":
                given = list_assets(name)
                arguments |= {"max_failures": 0.34}
            elif case == "from_mapped":
                given = one_asset.partial(name=name).expand(index=list(range(len(endings))))
            if case == "mapped":
                DataZoneBatchMetadataGenerationOperator.partial(
                    task_id=name, **ARGUMENTS, **arguments
                ).expand(asset_identifiers=[given[:2], given[2:]])
            else:
                generate(name, given, **arguments)

    generate("wrong-a_text", "{{ dag_run.conf['assets'] }}", retries=1)
