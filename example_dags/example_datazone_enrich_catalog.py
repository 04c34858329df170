"""
Generate missing descriptions in a catalog, accept those with high confidence, and publish the assets.

This DAG

1. searches the catalog for assets without a description,
2. generates descriptions, in one task for thousands of assets, within DataZone's rate limits. As soon as the
   run of an asset has succeeded, the task accepts the predictions from a confidence threshold on, and
   publishes the asset,
3. reports the result.

An asset whose predictions are not accepted, for example because all are below the threshold, still has no
description, so the next DAG run generates them again, which uses quota. docs/operators.md shows how to leave
out such assets.

It needs an Airflow connection ``datazone_default`` of type *Amazon DataZone* with a domain and a project.
Its role needs the IAM policy to start, accept and search, and to publish ``datazone:CreateListingChangeSet``:
see docs/connection.md.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.operators.datazone import DataZoneBatchMetadataGenerationOperator

# Passed to each operator: in `default_args`, it makes mapped TaskFlow tasks fail on Airflow 2.11.
AWS_CONN_ID = "datazone_default"
CONFIDENCE = 0.7

with DAG(
    dag_id="example_datazone_enrich_catalog",
    description="Generate missing descriptions, accept them above a confidence threshold, and publish",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={
        "search_text": Param(
            "", type="string", title="Search", description="Only assets with this text. Default: all assets."
        ),
        "max_assets": Param(
            1000,
            type="integer",
            minimum=1,
            title="Maximum assets",
            description="Each asset uses one run of the quota.",
        ),
    },
    tags=["example", "datazone"],
):

    @task
    def find_assets(**context: Any) -> list[dict[str, str]]:
        """Return the assets without a description. Search has no filter for a missing attribute."""
        params = context["params"]
        found = DataZoneHook(AWS_CONN_ID).search_assets(
            search_text=params["search_text"] or None, additional_attributes=["FORMS"]
        )
        undescribed = (asset for asset in found if not is_described(asset))
        return [
            {
                "asset_identifier": asset["identifier"],
                "owning_project_identifier": asset["owningProjectId"],
            }
            for _, asset in zip(range(params["max_assets"]), undescribed, strict=False)
        ]

    def is_described(asset: dict[str, Any]) -> bool:
        """Return whether an asset has a description or a summary, which accepted predictions add."""
        forms = asset.get("additionalAttributes", {}).get("formsOutput", [])
        contents = [json.loads(form.get("content") or "{}") for form in forms]
        return bool(asset.get("description")) or any(content.get("summary") for content in contents)

    enrich = DataZoneBatchMetadataGenerationOperator(
        task_id="enrich",
        aws_conn_id=AWS_CONN_ID,
        asset_identifiers=find_assets(),
        types=["BUSINESS_DESCRIPTIONS"],
        # A constant and not a DAG param, so that a change needs a code review.
        accept_threshold=CONFIDENCE,
        publish=True,
        # Leaves capacity for other users of the account.
        max_concurrent_runs=50,
        # The task succeeds if at most 10% of the assets fail.
        max_failures=0.1,
        # A retry processes only the assets that failed, and resumes runs that are still active. An asset that
        # always fails costs 3 runs.
        retries=2,
        deferrable=True,
        # A run takes about half a minute. The task starts the next run when it sees that one has ended.
        poll_interval=10,
        execution_timeout=timedelta(hours=12),
    )

    @task
    def report(summary: dict[str, Any] | None) -> None:
        """Report the number of published assets and the failures, also if the batch has failed."""
        # None if the batch failed before it had processed its assets.
        if summary is None:
            return
        print(f"{summary['published']} of {summary['total']} assets were published.")
        for failure in summary["failures"]:
            print(f"{failure['asset']}: {failure.get('error') or failure['typeStats']}")

    # A teardown runs after a failure without hiding it, so the DAG run still fails. The batch pushes its
    # summary before it fails.
    report(enrich.output).as_teardown()
