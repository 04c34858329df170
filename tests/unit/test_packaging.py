"""What is declared, what is installed, and what importing brings along."""

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


def import_afresh(*modules: str, without: str = "-") -> set[str]:
    """Import in a fresh interpreter that cannot import `without`; return all that was imported."""
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


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "airflow_provider_datazone"}


def test_without_moto_all_but_testing_can_be_imported() -> None:
    modules = set(MODULES) - set(TESTING)
    assert modules.issuperset(f"airflow_provider_datazone.{x}.datazone" for x in ("hooks", "sensors"))
    imported = import_afresh(*modules, without="moto")
    assert ours(imported) == modules


def test_testing_without_moto_says_what_to_install() -> None:
    with pytest.raises(AssertionError, match=r"install airflow-provider-amazon-datazone\[testing\]"):
        import_afresh("airflow_provider_datazone.testing", without="moto")


def test_testing_needs_neither_airflow_nor_the_rest_of_the_package() -> None:
    imported = import_afresh(*TESTING, without="airflow")
    assert ours(imported) == {"airflow_provider_datazone", *TESTING}
    assert not any(name.startswith("airflow.") for name in imported)


def test_metadata_generation_imports_the_standard_library_alone() -> None:
    module = "airflow_provider_datazone.metadata_generation"
    imported = import_afresh(module)
    assert ours(imported) == {"airflow_provider_datazone", module}
    assert {name.partition(".")[0] for name in imported - ours(imported)} <= sys.stdlib_module_names


def test_lower_bounds_are_the_versions_that_are_tested() -> None:
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
    ],
)
def test_no_package_index_is_named(file: str) -> None:
    text = (REPOSITORY / file).read_text()
    assert set(re.findall(r"\w+://[^\s\"']+", text)) <= set(PROJECT["urls"].values())
    options = re.findall(r"[\w-]*(?:index[-_]url|find[-_]links|trusted[-_]host)|tool\.uv\.index", text)
    assert set(options) <= {"--no-emit-index-url", "--no-emit-find-links"}


def test_installed_version_is_the_packages() -> None:
    assert DISTRIBUTION.version == airflow_provider_datazone.__version__


def test_entry_point_is_the_one_that_airflow_reads() -> None:
    (entry_point,) = DISTRIBUTION.entry_points
    assert (entry_point.group, entry_point.name, entry_point.value) == (
        "apache_airflow_provider",
        "provider_info",
        "airflow_provider_datazone.get_provider_info:get_provider_info",
    )


def test_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
