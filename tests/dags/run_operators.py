"""A task for each outcome of each operator. The conf of the DAG run contains the runs and assets."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneCancelMetadataGenerationRunOperator,
    DataZoneGetMetadataGenerationRunOperator,
    DataZoneRejectPredictionsOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor

TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
STATUSES = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELED")
MODES = ("worker", "deferrable")

# The final status of the run. QUOTA means FAILED because of an exhausted quota.
START_CASES = [
    (ending, mode, allow_partial_success)
    for ending, mode, allow_partial_success in itertools.product((*STATUSES, "QUOTA"), MODES, (True, False))
    if allow_partial_success or ending == "PARTIALLY_SUCCEEDED"
]
# The tests advance the clock past this timeout.
EXECUTION_TIMEOUT = timedelta(minutes=10)
# Client parameters that the trigger must use. All of them differ from the defaults.
AWS_PARAMETERS = {"region_name": "us-east-1", "verify": False, "botocore_config": {"read_timeout": 7}}
MAPPED_ASSETS = 2

# The status of the run before the cancel request, and the error of DataZone if the run has ended.
CANCEL_CASES = [
    *itertools.product(("ACTIVE", "SUCCEEDED"), ("ConflictException", "ValidationException")),
    ("CANCELED", "ValidationException"),
]

DECISIONS: dict[str, Any] = {
    "accept": DataZoneAcceptPredictionsOperator,
    "reject": DataZoneRejectPredictionsOperator,
}
RULE = {"rule": "ALL", "threshold": 0.75}
CHOICES: dict[str, Any] = {
    "accept": [{"predictionTarget": "summary", "predictionChoice": 1}],
    "reject": [{"predictionTarget": "summary", "predictionChoices": [0]}],
}
LOST_ANSWERS = ("drop", "InternalServerException")
# The last Region has no public console URL, and no catalog in the local DataZone.
REGIONS = ("us-east-1", "cn-north-1", "us-gov-west-1", "us-iso-east-1")

# Invalid arguments for a start: DataZone rejects the first, and the operator rejects the second.
WRONG_INPUT: dict[str, dict[str, Any]] = {
    "refused": {"types": ["NAMES"]},
    "invalid": {"types": "BUSINESS_NAMES"},
}
NO_RETRIES_OF_BOTOCORE = {"retries": {"total_max_attempts": 1}}


def start_id(ending: str, mode: str, allow_partial_success: bool) -> str:
    return f"start-{ending}-{mode}-{'partial' if allow_partial_success else 'full'}"


def asset_of(name: str) -> str:
    return f"{{{{ dag_run.conf['assets']['{name}'] }}}}"


def run_of(name: str) -> str:
    return f"{{{{ dag_run.conf['runs']['{name}'] }}}}"


def edited(name: str) -> list[dict[str, Any]]:
    return [
        {"predictionTarget": "summary", "editedValue": f"{{{{ dag_run.conf['edited_values']['{name}'] }}}}"}
    ]


def start(name: str, **arguments: Any) -> Any:
    known = {"task_id": name, "asset_identifier": asset_of(name), "types": TYPES, "poll_interval": 0.01}
    return DataZoneStartMetadataGenerationRunOperator(**known | arguments)


def decide(decision: str, how: str, **arguments: Any) -> Any:
    name = f"{decision}-{how}"
    return DECISIONS[decision](task_id=name, asset_identifier=asset_of(name), **arguments)


with DAG(
    dag_id="run_operators",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={
        "aws_conn_id": "datazone_default",
        "domain_identifier": "{{ dag_run.conf['domain_identifier'] }}",
        "owning_project_identifier": "{{ dag_run.conf['project_identifier'] }}",
        # The tests detect a retry by the try_number.
        "retries": 1,
        "retry_delay": timedelta(0),
        "trigger_rule": "all_done",
    },
) as dag:
    for ending, mode, allow_partial_success in START_CASES:
        start(
            start_id(ending, mode, allow_partial_success),
            deferrable=mode == "deferrable",
            allow_partial_success=allow_partial_success,
        )
    for mode in MODES:
        start(f"start-no_wait-{mode}", deferrable=mode == "deferrable", wait_for_completion=False)
        start(
            f"start-timeout-{mode}",
            deferrable=mode == "deferrable",
            execution_timeout=EXECUTION_TIMEOUT,
            # One retry after the timeout shows which run it resumes.
            retries=1 if mode == "deferrable" else 0,
        )
    start("start-parameters", deferrable=True, cancel_on_kill=False, **AWS_PARAMETERS)
    start("start-all_types", types=[*TYPES, "BUSINESS_GLOSSARY_ASSOCIATIONS"], wait_for_completion=False)
    DataZoneStartMetadataGenerationRunOperator.partial(
        task_id="start-mapped", types=TYPES, poll_interval=0.01, deferrable=True
    ).expand(asset_identifier=[asset_of(f"start-mapped-{index}") for index in range(MAPPED_ASSETS)])

    cancels = {
        case: DataZoneCancelMetadataGenerationRunOperator(
            task_id="-".join(("cancel", *case)), run_identifier=run_of("-".join(("cancel", *case)))
        )
        for case in CANCEL_CASES
    }
    cancel_unknown = DataZoneCancelMetadataGenerationRunOperator(
        task_id="cancel-unknown", run_identifier="unknownrun"
    )
    # The injected failures apply to the first requests, so these tasks run first.
    conflicts = [task for (_, answer), task in cancels.items() if answer == "ConflictException"]
    for canceled in [cancel_unknown, *(task for task in cancels.values() if task not in conflicts)]:
        canceled.set_upstream(conflicts)

    for decision, choices in CHOICES.items():
        lost = [
            decide(decision, f"lost_{fault}", choices=choices, botocore_config=NO_RETRIES_OF_BOTOCORE)
            for fault in LOST_ANSWERS
        ]
        others = [
            decide(decision, "rule", **RULE),
            decide(decision, "choices", choices=choices),
            decide(decision, "neither"),
        ]
        if decision == "accept":
            others += [
                decide(decision, "edited", choices=edited("accept-edited")),
                DataZoneAcceptPredictionsOperator.partial(
                    task_id="accept-edited_mapped", asset_identifier=asset_of("accept-edited_mapped")
                ).expand(choices=[edited("accept-edited_mapped")]),
            ]
        for decided in others:
            decided.set_upstream(lost)

    for problem, wrong in WRONG_INPUT.items():
        start(f"wrong-{problem}", **wrong)

    for region_name in REGIONS:
        start(
            f"link-{region_name}",
            region_name=region_name,
            domain_identifier=f"{{{{ dag_run.conf['regions']['{region_name}'][0] }}}}",
            owning_project_identifier=f"{{{{ dag_run.conf['regions']['{region_name}'][1] }}}}",
            wait_for_completion=False,
            botocore_config=NO_RETRIES_OF_BOTOCORE,
            retries=0,
        )
    DataZoneMetadataGenerationRunSensor(
        task_id="sensor-deferrable",
        run_identifier=run_of("sensor-deferrable"),
        deferrable=True,
        poke_interval=0.01,
    )
    DataZoneGetMetadataGenerationRunOperator(task_id="get", run_identifier=run_of("get"))
