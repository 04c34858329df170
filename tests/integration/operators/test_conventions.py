"""Conventions for all operators and the sensor: complete docstrings, template fields and serialization."""

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


def keyword_parameters(cls: Any) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(cls.__init__).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if name != "self" and parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def documented_parameters(cls: Any) -> dict[str, str]:
    """Return the description of each parameter in the docstring."""
    fields = re.findall(
        r":param (\w+):(.*?)(?=\n *:(?:param|return|raises)|\n *\.\. |\Z)", cls.__doc__, re.DOTALL
    )
    assert len(fields) == len(dict(fields)), "a parameter is documented twice"
    return dict(fields)


def template_arguments(cls: Any) -> dict[str, Any]:
    """Return a template for each template field and each required parameter."""
    return {
        name: [f"{{{{ params.{name} }}}}"]
        if name in ("types", "asset_identifiers")
        else f"{{{{ params.{name} }}}}"
        for name, parameter in keyword_parameters(cls).items()
        if name in cls.template_fields or parameter.default is inspect.Parameter.empty
    }


@every_class
def test_docstring_describes_exactly_the_parameters(cls: Any) -> None:
    assert documented_parameters(cls).keys() == {*keyword_parameters(cls), *AWS_PARAMETERS}


@every_class
def test_docstring_marks_exactly_the_template_fields_as_templated(cls: Any) -> None:
    documented = documented_parameters(cls)
    templated = {name for name, text in documented.items() if text.split()[-1:] == ["(templated)"]}
    assert templated == set(cls.template_fields)
    assert templated == {name for name, text in documented.items() if "templated" in text}


@every_class
def test_docstring_states_the_actual_defaults(cls: Any) -> None:
    for name, parameter in keyword_parameters(cls).items():
        stated = re.search(r"Default:? ``(\w+)``|Default (\d+)", documented_parameters(cls)[name])
        if stated is not None:
            assert str(parameter.default) == (stated[1] or stated[2]), name
        elif isinstance(parameter.default, bool) or type(parameter.default) in (int, float):
            assert name == "deferrable", f"{name}: its default is not documented"


@every_class
def test_documented_errors_exist(cls: Any) -> None:
    documented_errors = set(re.findall(r":raises (\w+):", cls.__doc__))
    airflow_errors = {"AirflowSensorTimeout", "AirflowTaskTimeout"}
    assert documented_errors
    for name in documented_errors - airflow_errors:
        assert issubclass(getattr(exceptions, name), Exception)


@every_class
def test_booleans_and_numbers_are_not_template_fields(cls: Any) -> None:
    # A template renders to a string, and the string "False" is true.
    for name, parameter in keyword_parameters(cls).items():
        annotated_types = set(re.findall(r"\w+", str(parameter.annotation)))
        if annotated_types & {"bool", "int", "float"}:
            assert name not in cls.template_fields


@every_class
def test_template_fields_are_stored_unchanged(cls: Any) -> None:
    # Templates are not rendered in the constructor, so code that reads a field there would see the template.
    arguments = template_arguments(cls)
    task = cls(task_id="task", **arguments)
    for name, value in arguments.items():
        assert getattr(task, name) is value
    for name in cls.template_fields:
        assert hasattr(task, name)
    assert set(cls.template_fields_renderers) <= set(cls.template_fields)


@every_class
@pytest.mark.parametrize("mapped", [False, True])
def test_task_survives_serialization_by_airflow(cls: Any, mapped: bool) -> None:
    arguments = template_arguments(cls)
    with DAG(dag_id="stored", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:
        if mapped:
            name = next(iter(arguments))
            partial = {key: value for key, value in arguments.items() if key != name}
            cls.partial(task_id="task", **partial).expand(**{name: [arguments[name], arguments[name]]})
        else:
            cls(task_id="task", **arguments)
    stored = json.loads(json.dumps(SERIALIZER.to_dict(dag)))
    task = SERIALIZER.from_dict(stored).get_task("task")
    assert task.task_type == cls.__name__
    assert set(task.template_fields) == set(cls.template_fields)
    assert "Amazon DataZone Domain" in task.extra_links
    if not mapped:
        for name in arguments.keys() & set(cls.template_fields):
            assert getattr(task, name) == arguments[name]


def test_every_extra_link_is_registered_with_airflow() -> None:
    # Airflow 2 shows only links whose class is listed in the provider info.
    links = {type(link) for cls in CLASSES for link in cls.operator_extra_links}
    assert links
    assert {f"{link.__module__}.{link.__name__}" for link in links} == set(get_provider_info()["extra-links"])
