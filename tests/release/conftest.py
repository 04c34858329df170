"""The build results of `make release-check`: the distributions, and an environment with only the wheel."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

TOOLS = REPOSITORY / ".venvs" / "release" / "bin"
ENVIRONMENT = REPOSITORY / ".venvs" / "wheel"


def run(*command: str | Path, **options: Any) -> str:
    """Run a command, check that it succeeds, and return its output."""
    completed = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=600, **options
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def run_code(python: str, code: str, *arguments: str) -> Any:
    """Run Python code in an interpreter, and return the JSON of the last line of output."""
    return json.loads(run(python, "-c", code, *arguments).splitlines()[-1])


@pytest.fixture(autouse=True)
def _outside_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the checkout from the import path of interpreters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture(scope="session")
def python() -> str:
    return str(ENVIRONMENT / "bin" / "python")


def distribution_file(pattern: str) -> Path:
    (file,) = (REPOSITORY / "dist").glob(pattern)
    return file


@pytest.fixture(scope="session")
def wheel() -> Path:
    return distribution_file("*.whl")


@pytest.fixture(scope="session")
def sdist() -> Path:
    return distribution_file("*.tar.gz")


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clone the committed files into another folder, with a different umask and new modification times."""
    assert run("git", "status", "--porcelain", cwd=REPOSITORY) == "", (
        "a release requires a clean working tree"
    )
    folder = tmp_path_factory.mktemp("elsewhere") / "a clone"
    run("git", "clone", "--quiet", "--no-local", REPOSITORY, folder, umask=0o077, cwd=os.sep)
    return folder
