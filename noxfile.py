"""The test matrix of `make matrix`. Nox skips a session whose interpreter is missing, and reports it."""

from __future__ import annotations

import os

import nox

# Like pip, use the system's certificates, and do not download interpreters.
os.environ.setdefault("UV_SYSTEM_CERTS", "true")
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"


# The Python version by Airflow version. constraints/update.sh describes how the dependencies were selected.
VERSIONS = {
    "2.11.0": "3.10",
    "2.11.2": "3.12",
    "3.0.6": "3.12",
    "3.1.8": "3.11",
    "3.2.1": "3.12",
    "3.3.1": "3.12",
    "3.x": "3.13",
}
# Versions that run tests/faults: one of each minor version.
WITH_FAULTS = {"2.11.0", "3.0.6", "3.1.8", "3.2.1", "3.3.1"}
# The others install aiobotocore, which limits boto3, because Amazon MWAA and most images have it.
WITHOUT_AIOBOTOCORE = {"2.11.0", "3.x"}


@nox.session
@nox.parametrize(
    ("python", "airflow"), [(python, airflow) for airflow, python in VERSIONS.items()], ids=list(VERSIONS)
)
def airflow(session: nox.Session, airflow: str) -> None:
    """
    Install the project with the constraints of an Airflow version, and run tests.

    By default it runs all tests except those of `make system-test`. Arguments select other folders.
    """
    groups = ["test"] if airflow in WITHOUT_AIOBOTOCORE else ["test", "aiobotocore"]
    session.install(
        "--constraint",
        f"constraints/airflow-{airflow}.txt",
        "--editable",
        ".[testing]",
        *(argument for group in groups for argument in ("--group", group)),
    )
    folders = session.posargs or [
        "tests/unit",
        "tests/integration",
        *(["tests/faults"] if airflow in WITH_FAULTS else []),
    ]
    # The tests of a file may share an Airflow deployment. Unit tests need none.
    distribution = "worksteal" if folders == ["tests/unit"] else "loadfile"
    # One version tries all generated values; tests/wrong.py scales their number.
    examples = os.environ.get("DATAZONE_TEST_EXAMPLES", "1" if airflow == "3.x" else "0.2")
    session.run(
        *("python", "-m", "pytest", "--numprocesses", "2", "--dist", distribution, *folders),
        env={"DATAZONE_TEST_EXAMPLES": examples},
    )


@nox.session(default=False)
@nox.parametrize(
    ("python", "airflow"), [("3.10", "2.11.0"), ("3.12", "3.x")], ids=["airflow-2.11.0", "airflow-3.x"]
)
def ui(session: nox.Session, airflow: str) -> None:
    """Test Airflow's UI with the system's Chromium."""
    session.install(
        "--constraint", f"constraints/airflow-{airflow}.txt", "--editable", ".[testing]", "--group", "ui"
    )
    session.run("python", "-m", "pytest", "tests/ui", *session.posargs)
