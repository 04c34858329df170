"""Empty arguments, and templates that render to an empty value, count as not set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_datazone.exceptions import InvalidInputError, NotConfiguredError, RequestRefusedError
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.inputs import to_verify
from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneGetMetadataGenerationRunOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from tests.dags.lazy_inputs import TYPES
from tests.integration.inputs.rendering import EMPTY_VALUES, parameters_of, render
from tests.integration.operators.start_task import start
from tests.integration.operators.test_predictions import decide
from tests.integration.triggers.waits import events
from tests.task_context import make_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog


@pytest.mark.parametrize("empty", EMPTY_VALUES)
@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_empty_argument_does_not_override_the_connection(
    define_connection: Callable[..., None], conn_type: str, empty: str
) -> None:
    define_connection(conn_type=conn_type, region_name="eu-west-1", verify=False)
    hook = DataZoneHook("mine", region_name=empty, verify=empty)
    assert (hook.region_name, hook.verify) == ("eu-west-1", False)


@pytest.mark.parametrize("empty", EMPTY_VALUES)
@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_empty_value_in_a_connection_is_ignored(
    define_connection: Callable[..., None], datazone: DataZoneServer, conn_type: str, empty: str
) -> None:
    define_connection(
        conn_type=conn_type,
        region_name=empty,
        verify=empty,
        service_config={"datazone": {"endpoint_url": "", "domain_identifier": empty}},
        endpoint_url=datazone.endpoint_url,
    )
    hook = DataZoneHook("mine", region_name="us-east-1")
    assert hook.verify is None
    assert hook.conn.meta.endpoint_url == datazone.endpoint_url
    assert DataZoneHook("mine").region_name is None
    with pytest.raises(NotConfiguredError, match="domain_identifier is required"):
        hook.resolve_domain_identifier(empty)


@pytest.mark.parametrize(
    ("given", "verify"),
    [
        ("True", True),
        ("true", True),
        ("FALSE", False),
        (" False ", False),
        (True, True),
        (False, False),
        (None, None),
    ]
    + [(empty, None) for empty in EMPTY_VALUES]
    + [(Path("/ca.pem"), "/ca.pem"), ("/False", "/False")],
)
def test_verify_accepts_booleans_as_text(
    define_connection: Callable[..., None], given: Any, verify: Any
) -> None:
    assert to_verify(given) == verify
    define_connection(region_name="us-east-1", verify=str(given) if isinstance(given, Path) else given)
    assert DataZoneHook("mine").verify == verify
    task = DataZoneGetMetadataGenerationRunOperator(task_id="get", run_identifier="run1", verify=given)
    assert task._hook_parameters["verify"] == verify


@pytest.mark.parametrize("given", [0, 1, 0.5, [], {"a": 1}])
def test_verify_of_another_type_raises_an_error(define_connection: Callable[..., None], given: Any) -> None:
    define_connection(region_name="us-east-1", verify=given)
    with pytest.raises(NotConfiguredError, match="verify must be True, False or the path"):
        DataZoneHook("mine").conn  # noqa: B018
    with pytest.raises(NotConfiguredError, match="verify must be True, False or the path"):
        DataZoneHook(verify=given)


@pytest.mark.parametrize(
    "make",
    [
        partial(DataZoneGetMetadataGenerationRunOperator, run_identifier="run1"),
        partial(DataZoneMetadataGenerationRunSensor, run_identifier="run1"),
    ],
    ids=["operator", "sensor"],
)
@pytest.mark.parametrize(
    ("given", "native", "connection"),
    [
        (None, True, None),
        ("", True, "aws_default"),
        ("{{ params.empty }}", False, "aws_default"),
        ("{{ params.empty }}", True, "aws_default"),
        ("{{ params.nothing }}", True, "aws_default"),
        # Without native rendering, this is the name of an undefined connection.
        ("{{ params.nothing }}", False, "None"),
        ("{{ 123 }}", True, "123"),
    ],
)
def test_only_none_selects_the_default_credentials_of_boto3(
    make: Any, given: Any, native: bool, connection: str | None
) -> None:
    task = render(make, native=native, task_id="task", aws_conn_id=given)
    assert task.hook.aws_conn_id == connection
    trigger = DataZoneMetadataGenerationRunTrigger.for_task(
        task, run_identifier="run1", domain_identifier="dzd-1"
    )
    assert trigger.aws_conn_id == connection


def test_trigger_of_an_earlier_version_accepts_empty_arguments(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", catalog.server.connection)
    run = catalog.start_run("BUSINESS_NAMES", polls=0)
    trigger = DataZoneMetadataGenerationRunTrigger(
        run,
        catalog.domain_identifier,
        run_type="",
        poll_interval=0.001,
        aws_conn_id="",
        region_name="",
        verify="",
    )
    (event,) = events(trigger)
    assert (event["status"], event["run"]["id"]) == ("terminal", run)


@pytest.mark.parametrize("empty", [*EMPTY_VALUES, None])
def test_empty_identifiers_are_not_sent(catalog: Catalog, empty: str | None) -> None:
    start(catalog, client_token=empty, asset_revision=empty, wait_for_completion=False).execute(
        make_context()
    )
    (sent,) = parameters_of(catalog.server, "StartMetadataGenerationRun")
    assert sent["clientToken"].startswith("airflow-")
    assert "revision" not in sent["target"]
    hook = DataZoneHook("datazone_default")
    (run,) = hook.list_metadata_generation_runs(
        domain_identifier=catalog.domain_identifier,
        status=empty,
        run_type=empty,
        asset_identifier=empty,
    )
    hook.get_metadata_generation_run(run.id, domain_identifier=catalog.domain_identifier, run_type=empty)
    (got,) = parameters_of(catalog.server, "GetMetadataGenerationRun")
    assert "type" not in got


@pytest.mark.parametrize("empty", [*EMPTY_VALUES, None])
def test_empty_choices_leave_the_decision_to_the_rule(catalog: Catalog, empty: str | None) -> None:
    catalog.server.fail("AcceptPredictions", "ValidationException")
    with pytest.raises(RequestRefusedError):
        decide(catalog, rule="ALL", choices=empty, revision=empty).execute(make_context())
    (sent,) = parameters_of(catalog.server, "AcceptPredictions")
    assert "acceptChoices" not in sent
    assert "revision" not in sent
    with pytest.raises(InvalidInputError, match="pass rule"):
        decide(catalog, rule=empty, choices=empty).execute(make_context())


@pytest.mark.parametrize("empty", [*EMPTY_VALUES, None])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (DataZoneGetMetadataGenerationRunOperator, "run_identifier"),
        (DataZoneMetadataGenerationRunSensor, "run_identifier"),
        (partial(DataZoneAcceptPredictionsOperator, rule="ALL"), "asset_identifier"),
        (
            partial(
                DataZoneStartMetadataGenerationRunOperator, types=TYPES, owning_project_identifier="project1"
            ),
            "asset_identifier",
        ),
    ],
)
def test_missing_identifier_raises_an_error_without_a_request(
    datazone: DataZoneServer, make: Any, name: str, empty: str | None
) -> None:
    task = make(task_id="task", domain_identifier="dzd-1", aws_conn_id="datazone_default", **{name: empty})
    with pytest.raises(
        InvalidInputError, match=f"{name} is required.*Did its template render to an empty string"
    ):
        task.execute(make_context())
    assert datazone.requests == []
