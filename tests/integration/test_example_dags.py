"""The example DAGs are documentation: they import without a warning, and they run."""

from __future__ import annotations

import runpy
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Catalog

EXAMPLES = sorted((REPOSITORY / "example_dags").glob("*.py"))
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]


# Every warning that is laid at our door, and nobody else's: Airflow warns of itself too.
IMPORT = """
import runpy, sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    runpy.run_path(sys.argv[1])
print([str(w.message) for w in caught if "example_dags" in w.filename or "airflow_provider_datazone" in w.filename])
"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_imports_without_a_warning(path: Path):
    # In a process of its own: only there has nothing been imported, and no warning given, before.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("statuses", "states"),
    [
        (
            {},
            {"wait_for_run": "success", "everything_generated": "success", "some_types_failed": "skipped"},
        ),
        (
            {"BUSINESS_NAMES": "FAILED"},
            {"wait_for_run": "success", "everything_generated": "skipped", "some_types_failed": "success"},
        ),
        (
            dict.fromkeys(TYPES, "FAILED"),
            {"wait_for_run": "failed", "read_type_stats": "upstream_failed"},
        ),
    ],
    ids=["all succeed", "one fails", "all fail"],
)
def test_metadata_generation_example_goes_the_way_of_the_run(
    airflow_database: None, catalog: Catalog, statuses: dict[str, str], states: dict[str, str]
):
    run = catalog.start_run(
        *TYPES, statuses=statuses, error_messages=dict.fromkeys(statuses, "no luck"), polls=0
    )
    names = runpy.run_path(str(REPOSITORY / "example_dags/example_datazone_metadata_generation.py"))
    dag = names["wait_for_run"].dag
    dag_run = dag.test(run_conf={"domain_identifier": catalog.domain_identifier, "run_identifier": run})
    found = {ti.task_id: ti for ti in dag_run.get_task_instances()}
    # The report is there in each case, also after a failed run, with the typeStats.
    expected = [
        {"type": name, "status": statuses[name], "errorMessage": "no luck"}
        if name in statuses
        else {"type": name, "status": "SUCCEEDED"}
        for name in TYPES
    ]
    assert found["report"].state == "success"
    assert found["report"].xcom_pull(task_ids="report") == expected
    assert {name: found[name].state for name in states} == states
    if states.get("some_types_failed") == "success":
        assert found["some_types_failed"].xcom_pull(task_ids="some_types_failed") == {
            "BUSINESS_NAMES": "no luck"
        }
    assert dag_run.state == ("failed" if states["wait_for_run"] == "failed" else "success")
