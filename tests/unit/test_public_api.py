"""The package keeps what it promises: each name of the public contract is there, and is what it was."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from airflow_provider_datazone import metadata_generation, testing
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.testing.__main__ import main
from tests.unit import public_api
from tests.unit.public_api import PROMISES, TESTING_OPTIONS, TESTING_SWITCHES, VALUES, Promise

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# Each of them has these four beside its own, and three of them are templates.
AWS_TEMPLATE_FIELDS = {"aws_conn_id", "region_name", "verify"}
DEFERRABLE = [
    "DataZoneMetadataGenerationRunSensor",
    "DataZoneStartMetadataGenerationRunOperator",
    "DataZoneBatchMetadataGenerationOperator",
]


def differences(promised: inspect.Signature, found: inspect.Signature) -> list[str]:
    """Say how a call that was promised may now fail, or mean another thing."""
    told = []
    for name, parameter in promised.parameters.items():
        actual = found.parameters.get(name)
        if actual is None:
            told.append(f"{name} is gone")
        elif actual.kind != parameter.kind:
            told.append(f"{name} is {actual.kind.description}")
        elif actual.default != parameter.default:
            told.append(f"{name} has the default {actual.default!r}")
    added = [p for name, p in found.parameters.items() if name not in promised.parameters]
    told += [f"{p.name} is wanted" for p in added if p.default is p.empty and p.kind not in VARIABLE]
    order = [[p.name for p in s.parameters.values() if p.kind in POSITIONAL] for s in (promised, found)]
    if order[1][: len(order[0])] != order[0]:
        told.append(f"the order is {', '.join(order[1])}")
    if promised.return_annotation not in (promised.empty, found.return_annotation):
        told.append(f"the result is {found.return_annotation}")
    return told


def members(stub: Any) -> dict[str, Any]:
    """Return what a stub says of itself, without its fields and what Python makes of them."""
    told = {}
    for name, member in vars(stub).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if inspect.isfunction(function):
            if function.__code__.co_filename == public_api.__file__:
                told[name] = member
        elif not name.startswith("_") and name not in inspect.get_annotations(stub):
            told[name] = member
    return told


# ------------------------------------------------------------- every promise


def find(promise: Promise) -> Any:
    return getattr(import_module(promise.module), promise.stub.__name__)


@pytest.mark.parametrize("name", PROMISES)
def test_it_is_what_it_was(name: str) -> None:
    promise = PROMISES[name]
    actual = find(promise)
    if inspect.isfunction(promise.stub):
        assert differences(inspect.signature(promise.stub), inspect.signature(actual)) == []
        return
    for base in promise.bases:
        assert issubclass(actual, base)
    for member, stub in members(promise.stub).items():
        found = inspect.getattr_static(actual, member)
        if member == "template_fields":
            assert set(stub) | AWS_TEMPLATE_FIELDS <= set(found)
        elif isinstance(stub, property):
            assert isinstance(found, property), member
            assert found.fget.__annotations__["return"] == stub.fget.__annotations__["return"], member
        elif callable(stub) or isinstance(stub, classmethod):
            assert isinstance(found, classmethod) == isinstance(stub, classmethod)
            told = [inspect.signature(getattr(owner, member)) for owner in (promise.stub, actual)]
            assert differences(*told) == [], member
        else:
            assert found == stub, member


@pytest.mark.parametrize("name", ["MetadataGenerationRun", "Request", "AssetIdentifiers", "TypeStat"])
def test_fields_are_what_they_were(name: str) -> None:
    stub, actual = PROMISES[name].stub, find(PROMISES[name])
    if name == "TypeStat":
        assert actual.__required_keys__ == stub.__required_keys__
        assert actual.__optional_keys__ >= stub.__optional_keys__
        return
    assert differences(inspect.signature(stub), inspect.signature(actual)) == []
    # A NamedTuple wraps its annotations, a class that derives from one does not.
    plain = lambda kind: getattr(kind, "__forward_arg__", str(kind))  # noqa: E731
    kept = {field: actual.__annotations__[field] for field in stub.__annotations__}
    assert {field: plain(kind) for field, kind in kept.items()} == {
        field: plain(kind) for field, kind in stub.__annotations__.items()
    }


def test_run_cannot_be_changed() -> None:
    assert metadata_generation.MetadataGenerationRun.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", VALUES)
def test_values_are_there(name: str) -> None:
    value = getattr(metadata_generation, name)
    assert isinstance(value, VALUES[name])
    assert value


# -------------------------------------------------------------- and beyond them


def test_hook_is_of_datazone() -> None:
    assert DataZoneHook("none").client_type == "datazone"


@pytest.mark.parametrize("name", [name for name in PROMISES if name.endswith(("Operator", "Sensor"))])
def test_operators_and_the_sensor_have_this_hook(name: str) -> None:
    assert find(PROMISES[name]).aws_hook_class is DataZoneHook


def test_deferrable_is_by_default_what_airflow_is_configured_for() -> None:
    code = (
        "import inspect, json, sys; from importlib import import_module\n"
        "classes = [getattr(import_module(m), n) for m, n in json.loads(sys.argv[1])]\n"
        "print(json.dumps([inspect.signature(c).parameters['deferrable'].default for c in classes]))"
    )
    names = json.dumps([(PROMISES[name].module, name) for name in DEFERRABLE])
    done = subprocess.run(
        [sys.executable, "-c", code, names],
        env=os.environ | {"AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [True, True, True]


def test_testing_exports_what_it_promises() -> None:
    promised = {n for n, promise in PROMISES.items() if promise.module == "airflow_provider_datazone.testing"}
    assert promised == set(testing.__all__)


def test_testing_takes_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    told = re.findall(r"--(\w+) [A-Z]+ .*?\((\S+)\)", help_text, re.DOTALL)
    assert dict(told) == TESTING_OPTIONS
    assert re.findall(r"^  --(\w+), --no-\1\b", help_text, re.MULTILINE) == TESTING_SWITCHES


# --------------------------------------------------------------- the comparison


def before(a, b=1, *, c, d=2, **e) -> int: ...


def more(a, b=1, f=3, *, c, d=2, g=4, **e) -> int: ...


def gone(a, b=1, *, c, **e) -> int: ...


def turned(b=1, a=None, *, c, d=2, **e) -> int: ...


def other(a, b=1, *, c, d=3, **e) -> str: ...


def narrower(a, *, b=1, c, d=2, f) -> int: ...


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (before, []),
        (more, []),
        (gone, ["d is gone"]),
        (turned, ["a has the default None", "the order is b, a"]),
        (other, ["d has the default 3", "the result is str"]),
        (narrower, ["b is keyword-only", "e is gone", "f is wanted", "the order is a"]),
    ],
)
def test_what_breaks_a_promise_is_told(after: Any, told: list[str]) -> None:
    assert differences(inspect.signature(before), inspect.signature(after)) == told
