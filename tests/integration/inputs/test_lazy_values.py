"""Lazy sequences and mappings of upstream tasks are sent like lists and dicts."""

from __future__ import annotations

import enum
import hashlib
import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.idempotency import client_token, token_of
from airflow_provider_datazone.inputs import to_plain
from airflow_provider_datazone.operators.datazone import (
    DataZoneBatchMetadataGenerationOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from tests.conftest import make_catalog
from tests.dags.lazy_inputs import CHOICES, TASKS, TYPES, dag as lazy_dag
from tests.integration.inputs.rendering import parameters_of, render
from tests.task_context import make_context

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog


@pytest.fixture(scope="module")
def lazy_requests(datazone_server: DataZoneServer, airflow_database: None) -> dict[str, list[dict[str, Any]]]:
    """Return the requests of tasks with lazy arguments in real Airflow. Each task loses its first response."""
    server = datazone_server
    server.reset()
    catalog = make_catalog(server)
    domain_and_project = {
        "domain_identifier": catalog.domain_identifier,
        "project_identifier": catalog.project_identifier,
    }
    assets = {name: server.create_asset(**domain_and_project).asset_identifier for name in TASKS}
    for name, asset in assets.items():
        if name.startswith("accept"):
            server.set_run_outcome(asset, polls=0)
            run = server.client().start_metadata_generation_run(
                domainIdentifier=catalog.domain_identifier,
                owningProjectIdentifier=catalog.project_identifier,
                target={"type": "ASSET", "identifier": asset},
                types=TYPES,
            )["id"]
            server.client().get_metadata_generation_run(
                domainIdentifier=catalog.domain_identifier, identifier=run
            )
        else:
            # The run ends immediately, so a retry finds no active run and sends its token again.
            server.set_run_outcome(asset, submitted_seconds=0, in_progress_seconds=0, times=None)
    for asset in assets.values():
        for operation in ("StartMetadataGenerationRun", "AcceptPredictions"):
            server.fail(operation, "drop", after=True, asset_identifier=asset)
    before = len(server.requests)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", server.connection)
        if AIRFLOW_V_3_0_PLUS:
            from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor

            # Without the patch, each try creates a client that parses the whole DAG again.
            client = cache(partial(InProcessTestSupervisor._api_client, lazy_dag))
            monkeypatch.setattr(InProcessTestSupervisor, "_api_client", lambda dag=None: client())
        dag_run = lazy_dag.test(run_conf=domain_and_project | {"assets": assets})
    assert str(dag_run.state) == "success"
    sent: dict[str, list[dict[str, Any]]] = {name: [] for name in assets}
    for request in server.requests[before:]:
        for name, asset in assets.items():
            identifiers = (
                request.parameters.get("identifier"),
                request.parameters.get("target", {}).get("identifier"),
            )
            if asset in identifiers and "clientToken" in request.parameters:
                sent[name].append(request.parameters)
    return sent


@pytest.mark.parametrize("name", TASKS)
def test_retry_of_a_task_with_lazy_arguments_sends_the_same_request(
    lazy_requests: dict[str, list[dict[str, Any]]], name: str
) -> None:
    first, second = lazy_requests[name]
    assert first == second
    expected = {"types": TYPES} if name.startswith("start") else {"acceptChoices": CHOICES}
    assert first.items() >= expected.items()


def test_lazy_types_produce_the_token_of_a_list(catalog: Catalog) -> None:
    """A retry after an upgrade of the package sends the same token as the first try."""
    arguments_of_start = {
        "task_id": "start",
        "asset_identifier": catalog.asset_identifier,
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
        "aws_conn_id": "datazone_default",
        "wait_for_completion": False,
    }
    for types in (TYPES, tuple(TYPES), lambda output: output.map(str.upper)):
        render(
            DataZoneStartMetadataGenerationRunOperator,
            [t.lower() for t in TYPES],
            types=types,
            **arguments_of_start,
        ).execute(make_context())
    tokens = {sent["clientToken"] for sent in parameters_of(catalog.server, "StartMetadataGenerationRun")}
    request = [
        catalog.asset_identifier,
        TYPES,
        catalog.domain_identifier,
        catalog.project_identifier,
        None,
    ]
    fingerprint = hashlib.sha256(json.dumps(request).encode()).hexdigest()
    parts = ["enrich", "manual", "generate", -1, "2026-01-01T00:00:00+00:00", 3, [fingerprint, 1]]
    assert tokens == {f"airflow-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"}


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"types", datetime(2026, 1, 1, tzinfo=timezone.utc), [object()]]
)
def test_token_of_a_value_that_is_not_json_raises_an_error(value: Any) -> None:
    with pytest.raises(ValueError, match="must consist of JSON") as error:
        token_of(value)
    assert "0x" not in str(error.value), "no memory address"
    with pytest.raises(NotConfiguredError):
        client_token(make_context(), value)


class Kind(str, enum.Enum):
    NAMES = "BUSINESS_NAMES"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (("a", ["b"]), ["a", ["b"]]),
        ({"b", "a"}, ["a", "b"]),
        ([Kind.NAMES], ["BUSINESS_NAMES"]),
        (iter(["a"]), ["a"]),
        ({"a": ("b", Decimal("0.5"), True, None)}, {"a": ["b", 0.5, True, None]}),
        ({"a": 1}.keys(), ["a"]),
        (" ", None),
    ],
)
def test_sequences_and_mappings_become_lists_and_dicts(value: Any, plain: Any) -> None:
    result = to_plain("types", value)
    assert json.dumps(result) == json.dumps(plain)
    assert all(type(item) is not Kind for item in result or ())


@pytest.mark.parametrize("value", [object(), b"secret", {1: "secret"}, [float("nan")], timedelta(1)])
def test_value_that_is_not_json_raises_an_error_without_the_value(value: Any) -> None:
    with pytest.raises(NotConfiguredError, match=r"^choices ") as error:
        to_plain("choices", value)
    assert "secret" not in str(error.value)


def test_batch_of_lazy_assets_and_types_has_the_identity_of_lists(catalog: Catalog) -> None:
    batch = render(
        DataZoneBatchMetadataGenerationOperator,
        [catalog.asset_identifier],
        task_id="batch",
        asset_identifiers=lambda output: output.map(lambda asset: asset),
        types=lambda output: output.map(lambda asset: "BUSINESS_NAMES"),
        domain_identifier=catalog.domain_identifier,
        owning_project_identifier=catalog.project_identifier,
        aws_conn_id="datazone_default",
        deferrable=True,
    )
    context = make_context()
    with pytest.raises(TaskDeferred) as deferred:
        batch.execute(context)
    arguments = json.loads(json.dumps(deferred.value.trigger.serialize()[1]))
    assert arguments["types"] == ["BUSINESS_NAMES"]
    request = [catalog.domain_identifier, ["BUSINESS_NAMES"]]
    assert arguments["identity"] == client_token(context, request)
