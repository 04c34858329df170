"""What `make release-check` has built: the distributions, and an environment with the wheel alone in it."""

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
    """Run a command that has to succeed; return what it prints."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=600, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_code(python: str, code: str, *arguments: str) -> Any:
    """Run Python code in an interpreter; return the JSON on the last line that it prints."""
    return json.loads(run(python, "-c", code, *arguments).splitlines()[-1])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the checkout off every path that an interpreter searches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture(scope="session")
def python() -> str:
    return str(ENVIRONMENT / "bin" / "python")


def built(pattern: str) -> Path:
    (file,) = (REPOSITORY / "dist").glob(pattern)
    return file


@pytest.fixture(scope="session")
def wheel() -> Path:
    return built("*.whl")


@pytest.fixture(scope="session")
def sdist() -> Path:
    return built("*.tar.gz")


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of what is committed, in another folder, of another umask, with the times of today."""
    assert run("git", "status", "--porcelain", cwd=REPOSITORY) == "", (
        "a release is built of what is committed"
    )
    folder = tmp_path_factory.mktemp("elsewhere") / "a clone"
    run("git", "clone", "--quiet", "--no-local", REPOSITORY, folder, umask=0o077, cwd=os.sep)
    return folder
