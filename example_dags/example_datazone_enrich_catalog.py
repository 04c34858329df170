"""
Generate the descriptions that a catalog lacks, accept what DataZone is sure of, and publish it.

This DAG

1. searches the catalog for assets without a description,
2. generates one for each: one task for thousands of assets, at the rate of starts that DataZone allows,
3. accepts what was generated with enough confidence, and publishes the revision that this makes,
4. reports.

It needs an Airflow connection ``datazone_default`` of type *Amazon DataZone* that names domain and project.
To search and to publish takes the actions ``datazone:Search`` and ``datazone:CreateListingChangeSet``,
beside those of the operators: docs/connection.md.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.operators.datazone import DataZoneBatchMetadataGenerationOperator

# Pass it to each operator: Airflow 2.11 fails mapped TaskFlow tasks of a DAG that has it in `default_args`.
AWS_CONN_ID = "datazone_default"
CONFIDENCE = 0.7

with DAG(
    dag_id="example_datazone_enrich_catalog",
    description="Generate the descriptions that a catalog lacks, accept them above a confidence, and publish",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    params={
        "search_text": Param(
            "", type="string", title="Search", description="Only assets with this text; empty: all assets."
        ),
        "max_assets": Param(
            1000, type="integer", minimum=1, title="At most", description="Each costs a run of the quota."
        ),
    },
    tags=["example", "datazone"],
):

    @task
    def find_assets(**context: Any) -> list[dict[str, str]]:
        """Return the assets that nobody has described yet: Search itself cannot ask for what is missing."""
        params = context["params"]
        found = DataZoneHook(AWS_CONN_ID).search_assets(
            search_text=params["search_text"] or None, additional_attributes=["FORMS"]
        )
        without = (asset for asset in found if not is_described(asset))
        return [
            {
                "asset_identifier": asset["identifier"],
                "owning_project_identifier": asset["owningProjectId"],
            }
            for _, asset in zip(range(params["max_assets"]), without, strict=False)
        ]

    def is_described(asset: dict[str, Any]) -> bool:
        """Tell whether an asset has a description, or the summary that accepted predictions leave."""
        forms = asset.get("additionalAttributes", {}).get("formsOutput", [])
        contents = [json.loads(form.get("content") or "{}") for form in forms]
        return bool(asset.get("description")) or any(content.get("summary") for content in contents)

    enrich = DataZoneBatchMetadataGenerationOperator(
        task_id="enrich",
        aws_conn_id=AWS_CONN_ID,
        asset_identifiers=find_assets(),
        types=["BUSINESS_DESCRIPTIONS"],
        # The account's other users need runs, too.
        max_concurrent_runs=50,
        # One in ten may fail: what becomes of the others is worth having.
        max_failures=0.1,
        # Safe: a retry works on what failed alone, and starts no run twice.
        retries=2,
        deferrable=True,
        # A run takes about half a minute: how soon its end is seen decides how soon the next one starts.
        poll_interval=10,
        execution_timeout=timedelta(hours=12),
    )

    # `all_done`: what was generated is good, also where too much failed. The task pushed its results before.
    @task(trigger_rule="all_done")
    def accept_and_publish(results: list[dict[str, Any]] | None) -> int:
        """Accept what is sure enough, and publish it; return for how many assets."""
        hook = DataZoneHook(AWS_CONN_ID)
        domain_identifier = hook.resolve_domain_identifier()
        generated = [row for row in results or [] if row["status"] in ("SUCCEEDED", "PARTIALLY_SUCCEEDED")]
        for row in generated:
            revision = hook.accept_predictions(
                row["asset"],
                rule="ALL",
                threshold=CONFIDENCE,
                # A retry of this task accepts nothing twice.
                client_token=f"accept-{row['run']}",
            )
            hook.conn.create_listing_change_set(
                action="PUBLISH",
                domainIdentifier=domain_identifier,
                entityType="ASSET",
                entityIdentifier=row["asset"],
                entityRevision=revision,
                clientToken=f"publish-{row['run']}",
            )
        return len(generated)

    # The default trigger rule: if too many assets failed, this task does not run and the DAG run fails.
    @task
    def report(summary: dict[str, Any], published: int) -> None:
        """Say how it went."""
        print(f"{summary['succeeded']} of {summary['total']} succeeded, {published} were published.")
        for failure in summary["failures"]:
            print(f"{failure['asset']}: {failure['typeStats'] or failure.get('error')}")

    report(enrich.output, accept_and_publish(enrich.output["results"]))
