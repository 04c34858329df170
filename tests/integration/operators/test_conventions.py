"""What holds for every operator and the sensor: what they promise in their docstrings, and how Airflow stores them."""

from __future__ import annotations

import inspect
import json
import re
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.serialization import serialized_objects

from airflow_provider_datazone import exceptions
from airflow_provider_datazone.get_provider_info import get_provider_info
from airflow_provider_datazone.operators import datazone as operators
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor

CLASSES: list[Any] = [
    *(
        cls
        for name, cls in vars(operators).items()
        if name.startswith("DataZone") and name.endswith("Operator") and cls.__module__ == operators.__name__
    ),
    DataZoneMetadataGenerationRunSensor,
]
AWS_PARAMETERS = ("aws_conn_id", "region_name", "verify", "botocore_config")
SERIALIZER = getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def own_parameters(cls: Any) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(cls.__init__).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if name != "self" and parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def documented_parameters(cls: Any) -> dict[str, str]:
    """Return what the docstring says of each parameter."""
    fields = re.findall(
        r":param (\w+):(.*?)(?=\n *:(?:param|return|raises)|\n *\.\. |\Z)", cls.__doc__, re.DOTALL
    )
    assert len(fields) == len(dict(fields)), "twice"
    return dict(fields)


def unrendered(cls: Any) -> dict[str, Any]:
    """Return a template for each parameter that is one, and for those that have to be given."""
    return {
        name: [f"{{{{ params.{name} }}}}"]
        if name in ("types", "asset_identifiers")
        else f"{{{{ params.{name} }}}}"
        for name, parameter in own_parameters(cls).items()
        if name in cls.template_fields or parameter.default is inspect.Parameter.empty
    }


def test_every_operator_is_looked_at() -> None:
    names = {cls.__name__ for cls in CLASSES}
    for name in ("GetMetadataGenerationRun", "StartMetadataGenerationRun", "CancelMetadataGenerationRun"):
        assert f"DataZone{name}Operator" in names
    for name in ("AcceptPredictions", "RejectPredictions", "BatchMetadataGeneration"):
        assert f"DataZone{name}Operator" in names


@every_class
def test_docstring_describes_each_parameter_and_no_other(cls: Any) -> None:
    assert documented_parameters(cls).keys() == {*own_parameters(cls), *AWS_PARAMETERS}


@every_class
def test_docstring_says_of_each_template_field_that_it_is_one_and_of_no_other(cls: Any) -> None:
    documented = documented_parameters(cls)
    templated = {name for name, text in documented.items() if text.split()[-1:] == ["(templated)"]}
    assert templated == set(cls.template_fields)
    assert templated == {name for name, text in documented.items() if "templated" in text}


@every_class
def test_docstring_names_defaults_as_they_are(cls: Any) -> None:
    for name, parameter in own_parameters(cls).items():
        stated = re.search(r"Default:? ``(\w+)``|Default (\d+)", documented_parameters(cls)[name])
        if stated is not None:
            assert str(parameter.default) == (stated[1] or stated[2]), name
        elif isinstance(parameter.default, bool) or type(parameter.default) in (int, float):
            assert name == "deferrable", f"{name}: its default is not told"


@every_class
def test_errors_that_a_docstring_promises_are_there_to_be_caught(cls: Any) -> None:
    promised = set(re.findall(r":raises (\w+):", cls.__doc__))
    airflow = {"AirflowSensorTimeout", "AirflowTaskTimeout"}
    assert promised
    for name in promised - airflow:
        assert issubclass(getattr(exceptions, name), Exception)


@every_class
def test_flags_and_numbers_are_no_templates(cls: Any) -> None:
    # A template renders to text, of which "False" is true.
    for name, parameter in own_parameters(cls).items():
        kinds = set(re.findall(r"\w+", str(parameter.annotation)))
        if kinds & {"bool", "int", "float"}:
            assert name not in cls.template_fields


@every_class
def test_template_fields_are_stored_as_they_are_given(cls: Any) -> None:
    # At that time they are not rendered: whatever looks at one would see the template.
    given = unrendered(cls)
    task = cls(task_id="task", **given)
    for name, value in given.items():
        assert getattr(task, name) is value
    for name in cls.template_fields:
        assert hasattr(task, name)
    assert set(cls.template_fields_renderers) <= set(cls.template_fields)


@every_class
@pytest.mark.parametrize("mapped", [False, True])
def test_task_survives_the_way_through_airflows_database(cls: Any, mapped: bool) -> None:
    given = unrendered(cls)
    with DAG(dag_id="stored", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:
        if mapped:
            name = next(iter(given))
            partial = {key: value for key, value in given.items() if key != name}
            cls.partial(task_id="task", **partial).expand(**{name: [given[name], given[name]]})
        else:
            cls(task_id="task", **given)
    stored = json.loads(json.dumps(SERIALIZER.to_dict(dag)))
    task = SERIALIZER.from_dict(stored).get_task("task")
    assert task.task_type == cls.__name__
    assert set(task.template_fields) == set(cls.template_fields)
    assert "Amazon DataZone Domain" in task.extra_links
    if not mapped:
        for name in given.keys() & set(cls.template_fields):
            assert getattr(task, name) == given[name]


def test_every_link_is_known_to_airflow() -> None:
    # Airflow 2 shows only links whose class the provider has named.
    links = {type(link) for cls in CLASSES for link in cls.operator_extra_links}
    assert links
    assert {f"{link.__module__}.{link.__name__}" for link in links} == set(get_provider_info()["extra-links"])
