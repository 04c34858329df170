"""The README is correct."""

from __future__ import annotations

import inspect
import re

import pytest

import airflow_provider_datazone
from airflow_provider_datazone.operators import datazone as operators
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def test_first_dag_is_the_tested_example() -> None:
    (shown,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert shown == (REPOSITORY / "docs/examples/dags/describe_asset.py").read_text()


def test_readme_has_the_version_of_the_wheel() -> None:
    assert set(re.findall(r"datazone-([\d.]+)-py3", README)) == {airflow_provider_datazone.__version__}


@pytest.mark.parametrize("page", ["README.md", "docs/operators.md"])
def test_table_of_return_values_has_every_operator_and_the_sensor(page: str) -> None:
    public = {
        name
        for name, found in inspect.getmembers(operators, inspect.isclass)
        if found.__module__ == operators.__name__ and not name.startswith("_")
    }
    rows = re.findall(r"^\| `(\w+)` \|", (REPOSITORY / page).read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == public | {"DataZoneMetadataGenerationRunSensor"}
