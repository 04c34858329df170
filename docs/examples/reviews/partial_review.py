"""
Let a person choose which predictions to accept.

It needs Airflow 3.1 and standard provider 1.12.2, or later versions.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.standard.operators.hitl import HITLOperator

from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneGetPredictionsOperator,
    DataZonePublishAssetOperator,
    DataZoneRejectPredictionsOperator,
)

with DAG("partial_review", schedule=None, params={"asset": ""}) as dag:
    read_predictions = DataZoneGetPredictionsOperator(
        task_id="read_predictions",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
    )

    # [START partial_review]
    review = HITLOperator(
        task_id="review",
        subject="Which texts for asset {{ params.asset }} are correct? The others are rejected.",
        body="{{ ti.xcom_pull(task_ids='read_predictions', key='markdown') }}",
        options=["Asset", "Columns", "None"],
        multiple=True,
        response_timeout=timedelta(days=2),
    )

    @task(multiple_outputs=True)
    def decide(
        predictions: list[dict[str, Any]], response: dict[str, Any]
    ) -> dict[str, list[dict[str, Any]]]:
        accept, reject = [], []
        for prediction in predictions:
            path = prediction["fieldPath"]
            option = "Columns" if path.startswith("columns") else "Asset"
            if option in response["chosen_options"]:
                accept.append({"predictionTarget": path, "predictionChoice": 0})
            else:
                numbers = list(range(len(prediction["suggestions"])))
                reject.append({"predictionTarget": path, "predictionChoices": numbers})
        return {"accept": accept, "reject": reject}

    choices = decide(read_predictions.output, review.output)
    accept_chosen = DataZoneAcceptPredictionsOperator(
        task_id="accept_chosen",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
        revision=read_predictions.output["revision"],
        choices=choices["accept"],
    )
    reject_others = DataZoneRejectPredictionsOperator(
        task_id="reject_others",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
        revision=accept_chosen.output,
        choices=choices["reject"],
    )
    publish = DataZonePublishAssetOperator(
        task_id="publish",
        aws_conn_id="datazone_default",
        asset_identifier="{{ params.asset }}",
        revision=reject_others.output,
        execution_timeout=timedelta(minutes=10),
    )
    read_predictions >> review
    # [END partial_review]
