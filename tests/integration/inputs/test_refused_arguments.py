"""An invalid argument raises an error before a run is started or read."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from botocore.config import Config

from airflow_provider_datazone.exceptions import InvalidInputError
from airflow_provider_datazone.operators.datazone import (
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from tests.integration.inputs.rendering import parameters_of
from tests.task_context import make_context

if TYPE_CHECKING:
    from tests.conftest import Catalog


@pytest.mark.parametrize(
    "invalid",
    [
        {"botocore_config": "read_timeout=7"},
        {"botocore_config": [7]},
        {"botocore_config": {"read_timeout": timedelta(7)}},
        {"botocore_config": {"read_timout": 7}},
        {"botocore_config": Config(client_context_params={"a": object()})},
        {"poll_interval": timedelta(seconds=30)},
        {"poll_interval": Decimal(30)},
        {"poll_interval": "30"},
        {"cancel_on_kill": "False"},
        {"cancel_on_kill": None},
        {"allow_partial_success": "no"},
        {"verify": ["ca.pem"]},
        {"region_name": ["us-east-1"]},
        {"aws_conn_id": ["datazone_default"]},
        {"types": [object()]},
        {"types": [1]},
        {"types": {"BUSINESS_NAMES": 1}},
        {"asset_revision": 1.5},
    ],
    ids=lambda invalid: re.sub(r" at 0x[0-9a-f]+", "", str(invalid)),
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_invalid_argument_raises_an_error_before_a_run_is_started(
    catalog: Catalog, invalid: dict[str, Any], deferrable: bool
) -> None:
    defaults = {
        "task_id": "start",
        "asset_identifier": catalog.asset_identifier,
        "types": ["BUSINESS_NAMES"],
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
        "aws_conn_id": "datazone_default",
    }
    task = DataZoneStartMetadataGenerationRunOperator(**defaults | {"deferrable": deferrable} | invalid)
    with pytest.raises(InvalidInputError, match=next(iter(invalid))):
        task.execute(make_context())
    assert parameters_of(catalog.server, "StartMetadataGenerationRun") == []


INVALID_IN_THE_SENSOR: list[dict[str, Any]] = [
    {"allow_partial_success": "False"},
    {"deferrable": "False"},
    {"run_identifier": ["run1"]},
    {"run_type": 1.5},
]


def sensor(catalog: Catalog, invalid: dict[str, Any]) -> DataZoneMetadataGenerationRunSensor:
    defaults = {
        "task_id": "wait",
        "run_identifier": "run1",
        "domain_identifier": catalog.domain_identifier,
        "aws_conn_id": "datazone_default",
    }
    return DataZoneMetadataGenerationRunSensor(**defaults | invalid)


@pytest.mark.parametrize("invalid", [*INVALID_IN_THE_SENSOR, {"poke_interval": 0}], ids=str)
def test_sensor_with_an_invalid_argument_raises_an_error_before_it_polls(
    catalog: Catalog, invalid: dict[str, Any]
) -> None:
    task = sensor(catalog, invalid)
    with pytest.raises(InvalidInputError, match=next(iter(invalid))):
        task.execute(make_context())
    assert parameters_of(catalog.server, "GetMetadataGenerationRun") == []


@pytest.mark.parametrize("invalid", INVALID_IN_THE_SENSOR, ids=str)
def test_sensor_with_an_invalid_argument_raises_an_error_when_it_resumes(
    catalog: Catalog, invalid: dict[str, Any]
) -> None:
    task = sensor(catalog, invalid)
    with pytest.raises(InvalidInputError, match=next(iter(invalid))):
        task.resume_execution("execute_complete", {"event": {}}, make_context())
