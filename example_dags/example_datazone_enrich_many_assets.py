"""
Generate metadata for a list of assets, and accept predictions with high confidence.

The DAG maps each operator over the list, so each asset has its own task instances with their own log, state
and retries. Use this pattern for up to some dozens of assets, because

- each asset needs a task instance per step, which the scheduler and a worker must handle,
- Airflow maps over at most 1,024 items (``[core] max_map_length``),
- DataZone starts at most 10 runs per second for the whole account. The DAG's ``max_active_tasks``, by default
  16, limits how many tasks start runs at the same time, but not the active runs: deferred tasks do not count.
  If DataZone still throttles a start, botocore retries it, and then the task's retries do.

It needs an Airflow connection ``datazone_default`` of type *Amazon DataZone* with a domain and a project.
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

# Passed to each operator: in `default_args`, it makes mapped TaskFlow tasks fail on Airflow 2.11.
AWS_CONN_ID = "datazone_default"

with DAG(
    dag_id="example_datazone_enrich_many_assets",
    description="Generate metadata for a list of assets, and accept it above a confidence threshold",
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
        """Return the assets from the DAG's params. You can return the result of a search instead."""
        return list(context["params"]["asset_identifiers"])

    assets = list_assets()

    start_run = DataZoneStartMetadataGenerationRunOperator.partial(
        task_id="start_run",
        aws_conn_id=AWS_CONN_ID,
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        # A retry starts another run only after a run that failed: an asset that always fails costs 3 runs.
        retries=2,
        deferrable=True,
        poll_interval=5,
        execution_timeout=timedelta(minutes=30),
    ).expand(asset_identifier=assets)

    # `all_done`: a failed run does not block the other assets. Its task pushes the key `run` before it fails.
    @task(trigger_rule="all_done")
    def choose_assets(runs: Iterable[dict[str, Any]] | None) -> list[str]:
        """Return the assets whose run succeeded, at least for some types."""
        return [
            run["target"]["identifier"]
            for run in runs or ()
            if run["status"] in ("SUCCEEDED", "PARTIALLY_SUCCEEDED")
        ]

    # Starts when all runs have ended. To process each asset as soon as its own run has ended, put the tasks
    # into a `@task_group` and map the group.
    accept_predictions = DataZoneAcceptPredictionsOperator.partial(
        task_id="accept_predictions", aws_conn_id=AWS_CONN_ID, rule="ALL", threshold=0.7
    ).expand(asset_identifier=choose_assets(start_run.output["run"]))

    # The last task determines the state of the DAG run. `all_done` hides upstream failures, so this task must
    # fail after one.
    @task(trigger_rule="all_done")
    def report(asset_identifiers: list[str], revisions: Iterable[str] | None) -> None:
        """Report the number of assets with accepted predictions, and fail if some have none."""
        accepted = len(list(revisions or ()))
        print(f"Predictions were accepted for {accepted} of {len(asset_identifiers)} assets.")
        if accepted < len(asset_identifiers):
            raise AirflowFailException("Some assets failed; see the logs of the failed tasks.")

    report(assets, accept_predictions.output)
