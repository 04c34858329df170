"""The structure of the package: imports between layers, and sizes of modules and functions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "airflow_provider_datazone"
MAX_LINES = 400
# These modules are longer, because their docstrings are the API reference.
MAX_LINES_OF_REFERENCE = 700
REFERENCE = {"hooks/datazone", "operators/datazone"}
MAX_FUNCTION_LINES = 70
# As in moto, this module has all operations of a service.
UNLIMITED = {"testing/backend/models"}

MODULES = {
    str(path.relative_to(PACKAGE).with_suffix("")): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


def layers() -> list[list[str]]:
    (block,) = re.findall(
        r"^```text\n(operators/datazone .*?)^```",
        (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    return [line.split() for line in block.splitlines()]


def imports_of(path: Path) -> Iterator[str]:
    """Yield the package modules that a module imports, also in functions and for type checking."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(PACKAGE.name):
            continue
        name = node.module.removeprefix(PACKAGE.name).removeprefix(".").replace(".", "/")
        if name in MODULES:
            yield name
        else:
            yield from (f"{name}/{alias.name}".strip("/") for alias in node.names)


def test_every_module_has_a_layer() -> None:
    layered = sorted(module for layer in layers() for module in layer)
    assert layered == sorted(module for module in MODULES if not module.startswith("testing/"))


@pytest.mark.parametrize("module", [module for layer in layers() for module in layer])
def test_module_imports_only_lower_layers(module: str) -> None:
    depth = {each: number for number, layer in enumerate(layers()) for each in layer}
    not_lower = [name for name in imports_of(MODULES[module]) if depth.get(name, -1) <= depth[module]]
    assert not_lower == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_and_its_functions_stay_within_the_size_limits(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    if module not in UNLIMITED:
        limit = MAX_LINES_OF_REFERENCE if module in REFERENCE else MAX_LINES
        assert len(source.splitlines()) <= limit
    sizes = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


def run_in_new_interpreter(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_triggers_does_not_import_boto3() -> None:
    """Airflow imports triggers in the triggerer's event loop, which the import of boto3 would block."""
    code = (
        "import airflow.triggers.base, sys; before = 'boto3' in sys.modules;"
        "import airflow_provider_datazone.triggers.datazone;"
        "assert before or 'boto3' not in sys.modules;"
        "assert 'airflow_provider_datazone.hooks.datazone' not in sys.modules"
    )
    run_in_new_interpreter(code)


def test_importing_operators_and_sensors_does_not_import_what_only_executions_need() -> None:
    """A DAG processor imports them for each DAG file."""
    code = (
        "import airflow_provider_datazone.operators.datazone, airflow_provider_datazone.sensors.datazone, sys;"
        "names = [name.partition('.')[2] for name in sys.modules if name.startswith('airflow_provider_datazone.')];"
        "assert not [name for name in names if name.startswith(('batch', 'polling', 'triggers'))], names"
    )
    run_in_new_interpreter(code)
