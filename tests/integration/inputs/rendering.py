"""Helpers that render the templates of operators and read the requests that they send."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneGetMetadataGenerationRunOperator,
)
from tests.task_context import TaskInstance

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog


def parameters_of(server: DataZoneServer, operation: str) -> list[dict[str, Any]]:
    return [request.parameters for request in server.requests if request.operation == operation]


class DownstreamTaskInstance(TaskInstance):
    """A task instance whose one upstream task has pushed ``upstream``."""

    def xcom_pull(self, *args: Any, **kwargs: Any) -> Any:
        return self.upstream

    def get_relevant_upstream_map_indexes(self, *args: Any, **kwargs: Any) -> None:
        """Airflow 2.11 calls this method; the upstream task is not mapped."""


def render(make: Callable[..., Any], upstream: Any = None, *, native: bool = True, **arguments: Any) -> Any:
    """Create an operator and render its templates, as Airflow does before each try."""
    with DAG("dag", schedule=None, render_template_as_native_obj=native):
        if upstream is not None:
            source = DataZoneGetMetadataGenerationRunOperator(task_id="upstream", run_identifier="run1")
            arguments = {
                name: value(source.output) if callable(value) else value for name, value in arguments.items()
            }
        operator = make(**arguments)
    context = {"ti": DownstreamTaskInstance(upstream=upstream), "params": {"nothing": None, "empty": ""}}
    # Airflow 2.11 reads `expanded_ti_count`.
    operator.render_template_fields(context | {"expanded_ti_count": None})
    return operator


EMPTY_VALUES = ["", " ", "\n"]


def accept_task(catalog: Catalog) -> Callable[..., Any]:
    return partial(
        DataZoneAcceptPredictionsOperator,
        task_id="decide",
        asset_identifier=catalog.asset_identifier,
        domain_identifier=catalog.domain_identifier,
        aws_conn_id="datazone_default",
    )
