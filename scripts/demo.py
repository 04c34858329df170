"""
`make demo`: the example DAG in real Airflow, against a local DataZone, without an AWS account.

Airflow has a home of its own in `.demo/`, with a SQLite database; its log stays there to be read.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from airflow_provider_datazone.testing import DataZoneServer

REPOSITORY = Path(__file__).resolve().parents[1]
HOME = REPOSITORY / ".demo"
LOG = HOME / "airflow.log"
DAG_ID = "example_datazone_metadata_generation"


def main() -> int:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    # A machine behind a proxy would look for the local DataZone there.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    with DataZoneServer() as datazone:
        step(f"A local DataZone answers at {datazone.endpoint_url}")
        domain, run = start_run(datazone)
        step(f"Domain {domain}, an asset 'orders', and metadata generation run {run}")
        environment = airflow_environment(datazone)
        step("Airflow makes its database")
        airflow(environment, "db", "migrate")
        step(f"Airflow runs the DAG {DAG_ID}: it waits for the run, then hands on its typeStats")
        conf = json.dumps({"domain_identifier": domain, "run_identifier": run})
        airflow(environment, "dags", "test", DAG_ID, "--conf", conf)
    states, type_stats = results()
    print("\nThe DAG's tasks:")
    print_table(["task", "state"], states)
    if type_stats is None or any(state == "failed" for _, state in states):
        print(f"\nThe DAG failed; Airflow's log is {LOG.relative_to(REPOSITORY)}", file=sys.stderr)
        return 1
    print("\nThe typeStats that the task `report` pulled from XCom:")
    print_table(
        ["type", "status", "errorMessage"],
        [(stat["type"], stat["status"], stat.get("errorMessage", "")) for stat in type_stats],
    )
    print(f"\nAirflow's log: {LOG.relative_to(REPOSITORY)}")
    return 0


def start_run(datazone: DataZoneServer) -> tuple[str, str]:
    """Create what somebody with a data catalog has: an asset, and a run that is going to end half well."""
    asset = datazone.create_asset("orders")
    datazone.set_run_outcome(
        asset.asset_identifier,
        statuses={"BUSINESS_NAMES": "FAILED"},
        error_messages={"BUSINESS_NAMES": "business name generation has reached monthly quota"},
    )
    run = datazone.client().start_metadata_generation_run(
        domainIdentifier=asset.domain_identifier,
        owningProjectIdentifier=asset.project_identifier,
        target={"type": "ASSET", "identifier": asset.asset_identifier},
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
    )
    return asset.domain_identifier, run["id"]


def airflow_environment(datazone: DataZoneServer) -> dict[str, str]:
    """Return an environment for Airflow that nothing of this machine's Airflow or AWS reaches into."""
    foreign = ("AIRFLOW", "AWS_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_DATAZONE_DEFAULT": datazone.connection,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def airflow(environment: dict[str, str], *arguments: str) -> None:
    """Run Airflow's command line; what it says goes to the log."""
    with LOG.open("a") as log:
        command = [sys.executable, "-m", "airflow", *arguments]
        code = subprocess.run(
            command, env=environment, stdout=log, stderr=log, cwd=HOME, check=False
        ).returncode
    if code:
        tail = "".join(LOG.read_text(errors="replace").splitlines(keepends=True)[-15:])
        print(textwrap.indent(tail, "    "), file=sys.stderr)
        sys.exit(f"airflow {arguments[0]} {arguments[1]} failed; its log is {LOG.relative_to(REPOSITORY)}")


def results() -> tuple[list[tuple[str, str]], list[dict[str, Any]] | None]:
    """Read what Airflow's database says of the tasks, and what `report` returned."""
    with closing(sqlite3.connect(HOME / "airflow.db")) as database:
        states = database.execute("SELECT task_id, state FROM task_instance ORDER BY start_date").fetchall()
        found = database.execute(
            "SELECT value FROM xcom WHERE task_id = 'report' AND key = 'return_value'"
        ).fetchone()
    type_stats = found and found[0]
    while isinstance(type_stats, (str, bytes)):  # JSON in a column of type JSON
        type_stats = json.loads(type_stats)
    return states, type_stats


def step(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:4.1f} s] {text}", flush=True)


def print_table(header: list[str], rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print(
            "  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    STARTED = time.monotonic()
    sys.exit(main())
