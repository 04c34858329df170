"""
Generate metadata for a list of assets, and accept what DataZone is sure of.

The operators are mapped over the list: each asset has task instances of its own, with a log, retries and a
state of its own. This is for some dozens of assets, as

- each asset costs a task instance a step, which the scheduler and a worker have to handle,
- Airflow maps over at most 1,024 items (``[core] max_map_length``),
- DataZone starts at most 10 runs a second for the whole account. How many tasks are on a worker at the same
  moment is bounded by the DAG's ``max_active_tasks``, 16 by default; a start that is throttled all the same
  is tried again by botocore, and then by the task's retries.

It needs an Airflow connection ``datazone_default`` of type *Amazon DataZone* that names the domain and the
project.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Param, task

from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneStartMetadataGenerationRunOperator,
)

# Pass it to each operator: Airflow 2.11 fails mapped TaskFlow tasks of a DAG that has it in `default_args`.
AWS_CONN_ID = "datazone_default"

with DAG(
    dag_id="example_datazone_enrich_many_assets",
    description="Generate metadata for a list of assets, and accept it above a confidence",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={
        "asset_identifiers": Param(
            [], type="array", title="Assets", description="The assets to generate metadata for."
        ),
    },
    tags=["example", "datazone"],
):

    @task
    def list_assets(**context: Any) -> list[str]:
        """Return the assets: here those that the user names; a search of the catalog does as well."""
        return list(context["params"]["asset_identifiers"])

    assets = list_assets()

    start_run = DataZoneStartMetadataGenerationRunOperator.partial(
        task_id="start_run",
        aws_conn_id=AWS_CONN_ID,
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        # Safe: a retry starts another run only after one that failed.
        retries=2,
        deferrable=True,
        poll_interval=5,
        execution_timeout=timedelta(minutes=30),
    ).expand(asset_identifier=assets)

    # `all_done`: a run that fails holds up no other asset. Its task pushed the key `run` before it failed.
    @task(trigger_rule="all_done")
    def choose_assets(runs: Iterable[dict[str, Any]] | None) -> list[str]:
        """Return the assets that all types, or some, were generated for."""
        return [
            run["target"]["identifier"]
            for run in runs or ()
            if run["status"] in ("SUCCEEDED", "PARTIALLY_SUCCEEDED")
        ]

    # Begins when all runs have ended. For an asset to go on as soon as its own has, put the tasks of one
    # asset into a `@task_group`, and map that.
    accept_predictions = DataZoneAcceptPredictionsOperator.partial(
        task_id="accept_predictions", aws_conn_id=AWS_CONN_ID, rule="ALL", threshold=0.7
    ).expand(asset_identifier=choose_assets(start_run.output["run"]))

    # The last task decides the state of the DAG run. `all_done` hides failures upstream, so this task fails
    # for them.
    @task(trigger_rule="all_done")
    def report(asset_identifiers: list[str], revisions: Iterable[str] | None) -> None:
        """Say for how many assets predictions were accepted, and fail if not for all."""
        accepted = len(list(revisions or ()))
        print(f"Predictions were accepted for {accepted} of {len(asset_identifiers)} assets.")
        if accepted < len(asset_identifiers):
            raise AirflowFailException("Not for all assets; the tasks that failed say why.")

    report(assets, accept_predictions.output)
