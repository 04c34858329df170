"""The README lists every operator."""

from __future__ import annotations

import inspect
import re

import pytest

from airflow_provider_datazone.operators import datazone as operators
from tests.conftest import REPOSITORY


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
