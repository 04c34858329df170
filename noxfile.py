"""The versions that the tests run on: `make matrix`. A missing interpreter is skipped, and said so."""

from __future__ import annotations

import os

import nox

# What pip does of itself: the machine's own certificates, and no interpreter from elsewhere.
os.environ.setdefault("UV_SYSTEM_CERTS", "true")
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"


def run_tests(session: nox.Session, airflow: str, *, whole_airflow: bool = True) -> None:
    """
    Install the project with the constraints of an Airflow version, and run the tests.

    Those of the folders that are named on the command line, else all but those of `make system-test`.

    :param whole_airflow: Whether to run those that start a whole Airflow.
    """
    session.install(
        "--constraint", f"constraints/airflow-{airflow}.txt", "--editable", ".[testing]", "--group", "test"
    )
    some = session.posargs or [
        "tests/unit",
        "tests/integration",
        *(["tests/faults"] if whole_airflow else []),
    ]
    session.run("python", "-m", "pytest", "--numprocesses", "2", "--dist", "loadfile", *some)


@nox.session(default=False)
@nox.parametrize(
    ("python", "airflow"), [("3.10", "2.11"), ("3.12", "3.x")], ids=["airflow-2.11", "airflow-3.x"]
)
def ui(session: nox.Session, airflow: str) -> None:
    """Look at Airflow's UI with the system's Chromium."""
    session.install(
        "--constraint", f"constraints/airflow-{airflow}.txt", "--editable", ".[testing]", "--group", "ui"
    )
    session.run("python", "-m", "pytest", "tests/ui", *session.posargs)


@nox.session(python="3.10")
def airflow_2_11(session: nox.Session) -> None:
    """Airflow 2.11 with the lowest direct dependencies."""
    run_tests(session, "2.11")


@nox.session(python="3.11")
def airflow_3_0(session: nox.Session) -> None:
    """Airflow 3.0 with the newest Amazon provider."""
    run_tests(session, "3.0")


@nox.session(python=["3.12", "3.13"])
def airflow_newest(session: nox.Session) -> None:
    """The newest Airflow."""
    run_tests(session, "3.x", whole_airflow=session.python == "3.12")
