"""
`make demo`: run three example DAGs in Airflow against a local DataZone, without an AWS account.

`AIRFLOW_HOME` is `.demo/`. It contains a SQLite database, and Airflow's log, which remains after the demo.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from airflow_provider_datazone.testing import DataZoneServer

REPOSITORY = Path(__file__).resolve().parents[1]
HOME = REPOSITORY / ".demo"
LOG = HOME / "airflow.log"
WAIT = "example_datazone_metadata_generation"
ENRICH = "example_datazone_enrich_asset"
CATALOG = "example_datazone_enrich_catalog"
ASSETS = 25
Airflow = Callable[..., None]

# One process runs all commands, because starting Airflow takes most of the time. It prints a line after each.
COMMANDS = """
import json, os, sys
replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from airflow.__main__ import main
for command in sys.stdin:
    sys.argv = ["airflow", *json.loads(command)]
    main()
    print("done", file=replies, flush=True)
"""


def main() -> int:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    # Otherwise clients send requests for the local DataZone to the proxy, if the environment sets one.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    with DataZoneServer() as datazone:
        step(f"A local DataZone listens at {datazone.endpoint_url}")
        domain, project, asset = datazone.create_asset("orders")
        with command_line(airflow_environment(datazone, domain, project)) as airflow:
            step("Airflow creates its database")
            airflow("db", "migrate")
            wait_for_a_run(datazone, airflow, domain, project, asset)
            enrich_an_asset(datazone, airflow, domain, project)
            enrich_a_catalog(datazone, airflow, domain, project)
    print(f"\nAirflow's log: {LOG.relative_to(REPOSITORY)}")
    return 0


def wait_for_a_run(datazone: DataZoneServer, airflow: Airflow, domain: str, project: str, asset: str) -> None:
    """Run the DAG that waits for an existing run. One of the run's types fails."""
    datazone.set_run_outcome(
        asset,
        statuses={"BUSINESS_NAMES": "FAILED"},
        error_messages={"BUSINESS_NAMES": "business name generation has reached monthly quota"},
    )
    run = datazone.client().start_metadata_generation_run(
        domainIdentifier=domain,
        owningProjectIdentifier=project,
        target={"type": "ASSET", "identifier": asset},
        types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
    )
    step(f"Domain {domain}, an asset 'orders', and metadata generation run {run['id']}")
    step(f"Airflow runs the DAG {WAIT}: it waits for the run and pushes its typeStats to XCom")
    run_dag(airflow, WAIT, domain_identifier=domain, run_identifier=run["id"])
    print("\nThe typeStats that the task `report` pulled from XCom:")
    print_type_stats(xcom(WAIT, "report", "return_value"))


def enrich_an_asset(datazone: DataZoneServer, airflow: Airflow, domain: str, project: str) -> None:
    """Run the DAG that starts a run for an asset, accepts its predictions, and publishes the asset."""
    _, _, asset = datazone.create_asset(
        "customer_orders", domain_identifier=domain, project_identifier=project
    )
    print()
    step(f"A new asset 'customer_orders', at revision 1: {asset}")
    step(f"Airflow runs the DAG {ENRICH}: it starts a run, waits, accepts predictions, and publishes")
    run_dag(
        airflow,
        ENRICH,
        domain_identifier=domain,
        owning_project_identifier=project,
        asset_identifier=asset,
    )
    print("\nThe typeStats of the run that the task `start_run` started:")
    print_type_stats(xcom(ENRICH, "start_run", "type_stats"))
    details = datazone.client().get_asset(domainIdentifier=domain, identifier=asset)
    listing = details["listing"]
    print(
        f"\nThe asset is now at revision {details['revision']}, "
        f"published in listing {listing['listingId']} ({listing['listingStatus']}):"
    )
    print_table(["field", "text"], descriptions(details))
    print(f"\nBelow the confidence threshold, for review: {', '.join(open_suggestions(details))}")


def enrich_a_catalog(datazone: DataZoneServer, airflow: Airflow, domain: str, project: str) -> None:
    """Run the DAG that generates missing descriptions for many assets in one task."""
    for number in range(ASSETS):
        asset = datazone.create_asset(
            f"table_{number}", domain_identifier=domain, project_identifier=project
        ).asset_identifier
        datazone.set_run_outcome(
            asset,
            statuses="FAILED" if number == 0 else "SUCCEEDED",
            error_messages={"BUSINESS_DESCRIPTIONS": "the asset has no columns"} if number == 0 else None,
            in_progress_seconds=5,
        )
    print()
    step(f"{ASSETS} new assets without a description")
    step(f"Airflow runs the DAG {CATALOG}: it finds them, starts a run for each, accepts and publishes")
    run_dag(airflow, CATALOG, search_text="table_")
    print("\nProgress in the log of the task `enrich`:")
    lines = re.findall(r"[\d,]+/[\d,]+ done · .*", LOG.read_text(errors="replace"))
    for line in dict.fromkeys(re.sub(r"\x1b.*| \[.*", "", line) for line in lines):
        print(f"  {line}")
    summary = xcom(CATALOG, "enrich", "return_value")
    print("\nIts summary:")
    print_table(["", ""], [(key, str(value)) for key, value in summary.items() if key != "failures"])
    print("\nIts failures:")
    for failure in summary["failures"]:
        print_type_stats(failure["typeStats"])


def airflow_environment(datazone: DataZoneServer, domain: str, project: str) -> dict[str, str]:
    """
    Return the environment for Airflow, without this machine's Airflow and AWS settings.

    The connection has a default domain and project.
    """
    connection = json.loads(datazone.connection)
    connection["extra"] |= {
        "service_config": {"datazone": {"domain_identifier": domain, "owning_project_identifier": project}}
    }
    excluded = ("AIRFLOW", "AWS_", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(excluded)}
    return environment | {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_DATAZONE_DEFAULT": json.dumps(connection),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@contextmanager
def command_line(environment: dict[str, str]) -> Iterator[Airflow]:
    """Start a process for Airflow commands, with its output in the log. Yield a function that runs one."""
    with (
        LOG.open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", COMMANDS],
            env=environment,
            cwd=HOME,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):

        def airflow(*arguments: str) -> None:
            print(json.dumps(arguments), file=process.stdin, flush=True)
            if not process.stdout.readline():
                tail = "".join(LOG.read_text(errors="replace").splitlines(keepends=True)[-15:])
                print(textwrap.indent(tail, "    "), file=sys.stderr)
                command = " ".join(arguments[:2])
                sys.exit(f"airflow {command} failed; its log is {LOG.relative_to(REPOSITORY)}")

        try:
            yield airflow
        finally:
            process.kill()


def run_dag(airflow: Airflow, dag: str, **conf: str) -> None:
    """Run a DAG, and print the states of its tasks."""
    airflow("dags", "test", dag, "--conf", json.dumps(conf))
    states = query("SELECT task_id, state FROM task_instance WHERE dag_id = ? ORDER BY start_date", dag)
    print("\nThe DAG's tasks:")
    print_table(["task", "state"], states)
    if not states or any(state not in ("success", "skipped") for _, state in states):
        sys.exit(f"\nThe DAG failed; Airflow's log is {LOG.relative_to(REPOSITORY)}")


def xcom(dag: str, task: str, key: str) -> Any:
    """Return an XCom value of a task."""
    sql = "SELECT value FROM xcom WHERE dag_id = ? AND task_id = ? AND key = ?"
    ((value,),) = query(sql, dag, task, key)
    while isinstance(value, (str, bytes)):  # JSON in a column of type JSON
        value = json.loads(value)
    return value


def query(sql: str, *values: str) -> list[tuple[Any, ...]]:
    """Query Airflow's database."""
    with closing(sqlite3.connect(HOME / "airflow.db")) as database:
        return database.execute(sql, values).fetchall()


def descriptions(asset: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the name and the descriptions of an asset and its columns."""
    forms = {form["formName"]: json.loads(form["content"]) for form in asset["formsOutput"]}
    columns = forms["ColumnBusinessMetadataForm"]["columnsBusinessMetadata"]
    return [
        ("name", asset["name"]),
        *forms["AssetCommonDetailsForm"].items(),
        *((f"column {column['columnIdentifier']}", column["description"]) for column in columns),
    ]


def open_suggestions(asset: dict[str, Any]) -> list[str]:
    """Return the suggestions for an asset that are neither accepted nor rejected."""
    (form,) = asset["readOnlyFormsOutput"]
    suggestions = {
        field["fieldPath"]: field["suggestions"][0]
        for field in json.loads(form["content"])["fieldSuggestions"]
    }
    return [f"{path} {best['suggestion']!r} ({best['confidence']})" for path, best in suggestions.items()]


def step(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:4.1f} s] {text}", flush=True)


def print_type_stats(type_stats: list[dict[str, str]]) -> None:
    header = ["type", "status", "errorMessage"]
    print_table(header, [tuple(stat.get(key, "") for key in header) for stat in type_stats])


def print_table(header: list[str], rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print(
            "  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    STARTED = time.monotonic()
    sys.exit(main())
