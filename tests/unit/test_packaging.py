"""Package metadata, dependencies and imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import airflow_provider_datazone
from tests.conftest import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(airflow_provider_datazone.__file__).parent
DISTRIBUTION = distribution("airflow-provider-amazon-datazone")
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
MODULES = sorted(
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for file in PACKAGE.rglob("*.py")
    if file.name != "__main__.py"
)
TESTING = [m for m in MODULES if m.startswith("airflow_provider_datazone.testing")]


def import_in_new_process(*modules: str, without: str = "-") -> set[str]:
    """Import modules in a new interpreter that cannot import `without`, and return all imported modules."""
    code = (
        "import importlib, json, sys\n"
        "before, modules, without = set(sys.modules), json.loads(sys.argv[1]), sys.argv[2]\n"
        "sys.modules[without] = None\n"
        "for module in modules: importlib.import_module(module)\n"
        "print(json.dumps(sorted(set(sys.modules) - before - {without})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(modules), without],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def package_modules(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "airflow_provider_datazone"}


def test_all_modules_but_testing_can_be_imported_without_moto() -> None:
    modules = set(MODULES) - set(TESTING)
    assert modules.issuperset(f"airflow_provider_datazone.{x}.datazone" for x in ("hooks", "sensors"))
    imported = import_in_new_process(*modules, without="moto")
    assert package_modules(imported) == modules


@pytest.mark.parametrize("without", ["moto", "flask_cors"])
def test_import_of_testing_without_a_dependency_names_the_extra_to_install(without: str) -> None:
    with pytest.raises(AssertionError, match=r"install airflow-provider-amazon-datazone\[testing\]"):
        import_in_new_process("airflow_provider_datazone.testing", without=without)


def test_testing_imports_neither_airflow_nor_other_modules_of_the_package() -> None:
    imported = import_in_new_process(*TESTING, without="airflow")
    assert package_modules(imported) == {"airflow_provider_datazone", *TESTING}
    assert not any(name.startswith("airflow.") for name in imported)


def test_metadata_generation_imports_only_the_standard_library() -> None:
    module = "airflow_provider_datazone.metadata_generation"
    imported = import_in_new_process(module)
    assert package_modules(imported) == {"airflow_provider_datazone", module}
    assert {
        name.partition(".")[0] for name in imported - package_modules(imported)
    } <= sys.stdlib_module_names


def test_lower_bounds_equal_the_oldest_tested_versions() -> None:
    lines = (REPOSITORY / "constraints" / "airflow-2.11.0.txt").read_text().splitlines()
    tested = dict(line.split(" ")[0].split("==") for line in lines if "==" in line)
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["testing"]]
    bounds = {r.name: str(r.specifier) for r in map(Requirement, requirements)}
    assert bounds == {name: f">={tested[name]}" for name in bounds}
    assert bounds.keys() == {
        "apache-airflow",
        "apache-airflow-providers-amazon",
        "apache-airflow-providers-common-compat",
        "boto3",
        "moto",
    }


@pytest.mark.parametrize(
    "file",
    [
        *sorted(f"constraints/{file.name}" for file in (REPOSITORY / "constraints").iterdir()),
        "Makefile",
        "noxfile.py",
        "pyproject.toml",
        "tests/clients/package-lock.json",
        "tests/clients/package.json",
    ],
)
def test_file_names_no_package_index(file: str) -> None:
    text = (REPOSITORY / file).read_text()
    assert set(re.findall(r"\w+://[^\s\"']+", text)) <= set(PROJECT["urls"].values())
    options = re.findall(r"[\w-]*(?:index[-_]url|find[-_]links|trusted[-_]host)|tool\.uv\.index", text)
    assert set(options) <= {"--no-emit-index-url", "--no-emit-find-links"}


def test_installed_version_equals_the_package_version() -> None:
    assert DISTRIBUTION.version == airflow_provider_datazone.__version__


def test_entry_point_is_the_airflow_provider_entry_point() -> None:
    (entry_point,) = DISTRIBUTION.entry_points
    assert (entry_point.group, entry_point.name, entry_point.value) == (
        "apache_airflow_provider",
        "provider_info",
        "airflow_provider_datazone.get_provider_info:get_provider_info",
    )


def test_package_has_a_py_typed_marker() -> None:
    assert (PACKAGE / "py.typed").is_file()
