"""The package provides the public API: every public name exists and matches its stub."""

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
from tests.unit.public_api import PUBLIC_NAMES, TESTING_OPTIONS, TESTING_SWITCHES, VALUES, PublicName

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# Template fields that every operator and sensor of the Amazon provider has.
AWS_TEMPLATE_FIELDS = {"aws_conn_id", "region_name", "verify"}
DEFERRABLE = [
    "DataZoneMetadataGenerationRunSensor",
    "DataZoneStartMetadataGenerationRunOperator",
    "DataZoneBatchMetadataGenerationOperator",
]


def differences(documented: inspect.Signature, actual: inspect.Signature) -> list[str]:
    """List the differences that can break a documented call or change its meaning."""
    found = []
    for name, parameter in documented.parameters.items():
        current = actual.parameters.get(name)
        if current is None:
            found.append(f"{name} is gone")
        elif current.kind != parameter.kind:
            found.append(f"{name} is {current.kind.description}")
        elif current.default != parameter.default:
            found.append(f"{name} has the default {current.default!r}")
    added = [p for name, p in actual.parameters.items() if name not in documented.parameters]
    found += [f"{p.name} is wanted" for p in added if p.default is p.empty and p.kind not in VARIABLE]
    order = [[p.name for p in s.parameters.values() if p.kind in POSITIONAL] for s in (documented, actual)]
    if order[1][: len(order[0])] != order[0]:
        found.append(f"the order is {', '.join(order[1])}")
    if documented.return_annotation not in (documented.empty, actual.return_annotation):
        found.append(f"the result is {actual.return_annotation}")
    return found


def members(stub: Any) -> dict[str, Any]:
    """Return the members that a stub defines, without fields and generated methods."""
    defined = {}
    for name, member in vars(stub).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if inspect.isfunction(function):
            if function.__code__.co_filename == public_api.__file__:
                defined[name] = member
        elif not name.startswith("_") and name not in inspect.get_annotations(stub):
            defined[name] = member
    return defined


# ----------------------------------------------------------------- public names


def find(public: PublicName) -> Any:
    return getattr(import_module(public.module), public.stub.__name__)


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_name_matches_its_stub(name: str) -> None:
    public = PUBLIC_NAMES[name]
    actual = find(public)
    if inspect.isfunction(public.stub):
        assert differences(inspect.signature(public.stub), inspect.signature(actual)) == []
        return
    for base in public.bases:
        assert issubclass(actual, base)
    for member, stub in members(public.stub).items():
        found = inspect.getattr_static(actual, member)
        if member == "template_fields":
            assert set(stub) | AWS_TEMPLATE_FIELDS <= set(found)
        elif isinstance(stub, property):
            assert isinstance(found, property), member
            assert found.fget.__annotations__["return"] == stub.fget.__annotations__["return"], member
        elif callable(stub) or isinstance(stub, classmethod):
            assert isinstance(found, classmethod) == isinstance(stub, classmethod)
            signatures = [inspect.signature(getattr(owner, member)) for owner in (public.stub, actual)]
            assert differences(*signatures) == [], member
        else:
            assert found == stub, member


@pytest.mark.parametrize("name", ["MetadataGenerationRun", "Request", "AssetIdentifiers", "TypeStat"])
def test_fields_match_the_stub(name: str) -> None:
    stub, actual = PUBLIC_NAMES[name].stub, find(PUBLIC_NAMES[name])
    if name == "TypeStat":
        assert actual.__required_keys__ == stub.__required_keys__
        assert actual.__optional_keys__ >= stub.__optional_keys__
        return
    assert differences(inspect.signature(stub), inspect.signature(actual)) == []
    # A NamedTuple wraps its annotations; a class that derives from one does not.
    plain = lambda kind: getattr(kind, "__forward_arg__", str(kind))  # noqa: E731
    kept = {field: actual.__annotations__[field] for field in stub.__annotations__}
    assert {field: plain(kind) for field, kind in kept.items()} == {
        field: plain(kind) for field, kind in stub.__annotations__.items()
    }


def test_run_is_immutable() -> None:
    assert metadata_generation.MetadataGenerationRun.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", VALUES)
def test_constants_exist(name: str) -> None:
    value = getattr(metadata_generation, name)
    assert isinstance(value, VALUES[name])
    assert value


# -------------------------------------------------------- other public behavior


def test_hook_has_client_type_datazone() -> None:
    assert DataZoneHook("none").client_type == "datazone"


@pytest.mark.parametrize("name", [name for name in PUBLIC_NAMES if name.endswith(("Operator", "Sensor"))])
def test_operators_and_sensor_use_the_datazone_hook(name: str) -> None:
    assert find(PUBLIC_NAMES[name]).aws_hook_class is DataZoneHook


def test_deferrable_defaults_to_the_airflow_configuration() -> None:
    code = (
        "import inspect, json, sys; from importlib import import_module\n"
        "classes = [getattr(import_module(m), n) for m, n in json.loads(sys.argv[1])]\n"
        "print(json.dumps([inspect.signature(c).parameters['deferrable'].default for c in classes]))"
    )
    names = json.dumps([(PUBLIC_NAMES[name].module, name) for name in DEFERRABLE])
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


def test_testing_exports_its_public_names() -> None:
    public = {n for n, name in PUBLIC_NAMES.items() if name.module == "airflow_provider_datazone.testing"}
    assert public == set(testing.__all__)


def test_testing_command_has_the_public_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    options = re.findall(r"--(\w+) [A-Z]+ .*?\((\S+)\)", help_text, re.DOTALL)
    assert dict(options) == TESTING_OPTIONS
    assert re.findall(r"^  --(\w+), --no-\1\b", help_text, re.MULTILINE) == TESTING_SWITCHES


# ------------------------------------------------------------------- comparison


def before(a, b=1, *, c, d=2, **e) -> int: ...


def with_new_defaults(a, b=1, f=3, *, c, d=2, g=4, **e) -> int: ...


def with_missing_parameter(a, b=1, *, c, **e) -> int: ...


def with_new_order(b=1, a=None, *, c, d=2, **e) -> int: ...


def with_other_default_and_result(a, b=1, *, c, d=3, **e) -> str: ...


def with_stricter_parameters(a, *, b=1, c, d=2, f) -> int: ...


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (before, []),
        (with_new_defaults, []),
        (with_missing_parameter, ["d is gone"]),
        (with_new_order, ["a has the default None", "the order is b, a"]),
        (with_other_default_and_result, ["d has the default 3", "the result is str"]),
        (with_stricter_parameters, ["b is keyword-only", "e is gone", "f is wanted", "the order is a"]),
    ],
)
def test_differences_lists_breaking_changes(after: Any, expected: list[str]) -> None:
    assert differences(inspect.signature(before), inspect.signature(after)) == expected
