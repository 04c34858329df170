"""The wheel works in a new environment with the latest Airflow, without a checkout, extras or test tools."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PathDistribution
from typing import TYPE_CHECKING

import jsonschema

from airflow_provider_datazone import __version__
from airflow_provider_datazone.get_provider_info import get_provider_info
from tests.conftest import REPOSITORY, run_airflow
from tests.integration.provider.test_provider import (
    DISTRIBUTION,
    read_schema,
    # Here, the provider tests run with the Airflow of the wheel's environment.
    test_configs_shows_the_options,
    test_get_shows_the_provider_in_full,
    test_hooks_shows_the_connection_type,
    test_links_shows_the_domain_link,
    test_list_shows_the_provider,
    test_triggers_shows_the_trigger_module,
)
from tests.release.conftest import ENVIRONMENT, run, run_code
from tests.unit.test_packaging import MODULES, TESTING

if TYPE_CHECKING:
    from pathlib import Path


__all__ = [
    "test_configs_shows_the_options",
    "test_get_shows_the_provider_in_full",
    "test_hooks_shows_the_connection_type",
    "test_links_shows_the_domain_link",
    "test_list_shows_the_provider",
    "test_triggers_shows_the_trigger_module",
]


def test_environment_has_only_the_wheel(python: str) -> None:
    environment = run_code(
        python,
        "import json, sys; from importlib.metadata import distributions; import airflow_provider_datazone as p\n"
        "print(json.dumps([sys.path, p.__file__, {d.name: d.version for d in distributions()}]))",
    )
    path, file, installed = environment
    (site,) = ENVIRONMENT.glob("lib/python*/site-packages")
    assert file == str(site / "airflow_provider_datazone" / "__init__.py")
    assert [entry for entry in path if entry.startswith(str(REPOSITORY))] == [str(site)]
    assert installed[DISTRIBUTION] == __version__
    assert not {"moto", "pytest", "hypothesis", "aiobotocore"} & installed.keys()
    (info,) = site.glob("airflow_provider_amazon_datazone-*.dist-info")
    origin = json.loads(PathDistribution(info).read_text("direct_url.json") or "{}")
    assert origin["url"].endswith(".whl")


def test_installed_packages_are_compatible() -> None:
    output = run(sys.executable, "-m", "pip", "--python", ENVIRONMENT, "check")
    assert "No broken requirements found" in output


def test_entry_point_returns_valid_provider_info(python: str) -> None:
    info = run_code(
        python,
        "import json; from importlib.metadata import entry_points\n"
        "(found,) = (e for e in entry_points(group='apache_airflow_provider') if 'datazone' in e.value)\n"
        "print(json.dumps(found.load()()))",
    )
    assert info == get_provider_info()
    jsonschema.Draft7Validator(read_schema("provider_info.schema.json")).validate(info)


def test_modules_outside_testing_can_be_imported(python: str) -> None:
    modules = sorted(set(MODULES) - set(TESTING))
    imported = run_code(
        python,
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(json.dumps([n for n in sys.modules if n.startswith('airflow_provider_datazone')]))",
        json.dumps(modules),
    )
    assert set(imported) == set(modules)


def test_classes_in_provider_info_can_be_imported(python: str) -> None:
    info = get_provider_info()
    names = [*info["extra-links"], *(c["hook-class-name"] for c in info["connection-types"])]
    for kind in ("hooks", "operators", "sensors", "triggers"):
        names += [module for group in info[kind] for module in group["python-modules"]]
    are_classes = run_code(
        python,
        "import json, pkgutil, sys\n"
        "print(json.dumps([isinstance(pkgutil.resolve_name(n), type) for n in json.loads(sys.argv[1])]))",
        json.dumps(names),
    )
    assert are_classes == [name.rpartition(".")[2][0].isupper() for name in names]


def test_import_error_of_testing_names_the_extra(python: str) -> None:
    message = run_code(
        python,
        "import json\n"
        "try: import airflow_provider_datazone.testing\n"
        "except ModuleNotFoundError as error: print(json.dumps(str(error)))",
    )
    assert message.endswith(f"install {DISTRIBUTION}[testing]")


def test_airflow_parses_the_example_dags(python: str, airflow_database: None) -> None:
    folder = REPOSITORY / "example_dags"
    completed = run_airflow(
        *("dags", "list", "--local", "--output", "json"),
        python=python,
        AIRFLOW__CORE__DAGS_FOLDER=str(folder),
    )
    assert completed.returncode == 0, completed.stderr
    dags = json.loads(next(line for line in completed.stdout.splitlines() if line.startswith("[{")))
    assert {dag["fileloc"] for dag in dags} == {str(file) for file in folder.glob("*.py")}


def test_type_checker_finds_the_types(python: str, tmp_path: Path) -> None:
    file = tmp_path / "dag.py"
    file.write_text(
        "from airflow_provider_datazone.metadata_generation import MetadataGenerationRun\n"
        "reveal_type(MetadataGenerationRun.from_response({}).type_stats)\n"
    )
    output = run(
        sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--no-incremental", file
    )
    assert 'Revealed type is "list[' in output
    assert "TypeStat" in output


def test_bill_of_materials_lists_all_dependencies_of_the_wheel(python: str) -> None:
    bill = json.loads((REPOSITORY / "dist" / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert (bill["metadata"]["component"]["name"], bill["metadata"]["component"]["version"]) == (
        DISTRIBUTION,
        __version__,
    )
    installed = run_code(
        python,
        "import json; from importlib.metadata import distributions\n"
        "print(json.dumps({d.name: d.version for d in distributions()}))",
    )
    del installed[DISTRIBUTION]
    assert {component["name"]: component["version"] for component in bill["components"]} == installed
    assert str(REPOSITORY) not in json.dumps(bill)
