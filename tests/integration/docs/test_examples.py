"""The examples that the documentation shows run."""

from __future__ import annotations

import inspect
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_datazone.metadata_generation import RUN_TYPES
from airflow_provider_datazone.testing import DataZoneServer
from airflow_provider_datazone.testing.control_api import CONTROLS
from tests.conftest import DAGS_FOLDER
from tests.integration.docs.pages import BY_HAND, EXAMPLES, PAGES, actions, load, run
from tests.integration.docs.test_example_dags import (
    EXAMPLES as EXAMPLE_DAGS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Catalog


@pytest.fixture(scope="module", autouse=True)
def dags_of_the_docs() -> Iterator[None]:
    """Have Airflow find them, for these tests alone: each `dag.test()` reads every DAG there is."""
    folder = DAGS_FOLDER / "docs_examples"
    folder.symlink_to(EXAMPLES / "dags")
    yield
    folder.unlink()


def test_quick_start_runs_as_it_is_written(airflow_database: None) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "try_it.py"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    output = done.stdout + done.stderr
    for line in re.search(r"```text\n(.*?)```", PAGES["quick-start.md"], re.DOTALL)[1].splitlines():
        pattern = re.sub(r"'.*?'", "'.*?'", line)
        assert re.search(pattern, output), line


def test_each_operator_does_what_the_page_says(airflow_database: None, connected: Catalog) -> None:
    server = connected.server

    def create(name: str) -> str:
        where = {
            "domain_identifier": connected.domain_identifier,
            "project_identifier": connected.project_identifier,
        }
        return server.create_asset(name, **where).asset_identifier

    edited, unwanted = create("edited orders"), create("unwanted orders")
    # A run that is to be canceled must not end before.
    server.set_run_outcome(unwanted, in_progress_seconds=600)
    server.set_run_outcome(polls=0, times=None)
    found = run(
        load("every_operator"),
        asset=connected.asset_identifier,
        edited_asset=edited,
        unwanted_asset=unwanted,
    )
    assert found["cancel_run"].xcom_pull(task_ids="cancel_run") == "CANCELED"
    assert found["read_run"].xcom_pull(task_ids="read_run") == [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"}
    ]
    # Some versions of Airflow make a number of it on the way.
    assert str(found["accept_above_threshold"].xcom_pull(task_ids="accept_above_threshold")) == "2"
    summary = found["enrich"].xcom_pull(task_ids="enrich")
    assert (summary["total"], summary["succeeded"]) == (3, 3)
    assert found["failed_assets"].xcom_pull(task_ids="failed_assets") == []
    asset = server.client().get_asset(domainIdentifier=connected.domain_identifier, identifier=edited)
    assert "All orders since 2019, one row per order." in json.dumps(asset["formsOutput"])

    # Two are missing here: what a retry asks, and the test of a connection.
    asked = {f"datazone:{operation}" for operation in server.request_counts} - {"datazone:GetAsset"}
    setup = {"datazone:CreateDomain", "datazone:CreateProject", "datazone:CreateAsset"}
    allowed = actions(EXAMPLES / "policies/enrich.json")
    assert asked - setup <= allowed
    assert allowed - asked <= {"datazone:ListMetadataGenerationRuns", "datazone:GetDomain"}


@pytest.mark.parametrize(("failing", "report"), [("start_run", "report"), ("enrich", "failed_assets")])
def test_report_runs_after_a_failed_task_and_the_dag_run_fails(
    airflow_database: None, connected: Catalog, failing: str, report: str
) -> None:
    server = connected.server
    dag = load("every_operator")
    for task_id in ("start_run", "enrich"):
        dag.get_task(task_id).retries = 0
    if failing == "enrich":
        # Of the three runs that precede the batch.
        server.set_run_outcome(polls=0, times=3)
    server.set_run_outcome(statuses="FAILED", polls=0, times=None)
    where = {
        "domain_identifier": connected.domain_identifier,
        "project_identifier": connected.project_identifier,
    }
    assets = [
        connected.asset_identifier,
        *(server.create_asset(f"{name} orders", **where).asset_identifier for name in ("edited", "unwanted")),
    ]
    dag_run = dag.test(run_conf=dict(zip(("asset", "edited_asset", "unwanted_asset"), assets, strict=True)))
    found = {ti.task_id: ti for ti in dag_run.get_task_instances()}
    assert found[failing].state == "failed"
    assert found[report].state == "success"
    if failing == "enrich":
        assert sorted(found[report].xcom_pull(task_ids=report)) == sorted(assets)
    assert dag_run.state == "failed"


@pytest.mark.parametrize("task_id", ["report", "failed_assets"])
def test_report_needs_no_setup_task(task_id: str) -> None:
    """Airflow clears a setup with any task between it and its teardown; a cleared start pays for another run."""
    dag = load("every_operator")
    assert dag.get_task(task_id).is_teardown
    assert not any(found.is_setup for found in dag.tasks)


@pytest.mark.parametrize(
    "path", [*EXAMPLE_DAGS, *sorted((EXAMPLES / "dags").glob("*.py"))], ids=lambda path: path.stem
)
def test_example_dag_takes_a_mapped_taskflow_task(path: Path) -> None:
    """Airflow 2.11 passes `default_args` to a mapped TaskFlow task, which fails on what it does not know."""
    names = runpy.run_path(str(path)).values()
    (dag,) = {found for name in names if isinstance(found := getattr(name, "dag", name), DAG)}
    assert "aws_conn_id" not in dag.default_args

    @task
    def mapped(number: int) -> int:
        return number

    with dag:
        added = mapped.expand(number=[1, 2])
    added.operator.unmap({"op_kwargs": {"number": 1}})
    for found in dag.tasks:
        if found.task_type.startswith("DataZone"):
            arguments = found.partial_kwargs if hasattr(found, "partial_kwargs") else vars(found)
            assert arguments["aws_conn_id"] == "datazone_default"


def test_ways_to_wait_come_to_the_same(airflow_database: None, connected: Catalog) -> None:
    waiting = connected.start_run(polls=0)
    dag = load("ways_to_wait")
    found = run(dag, run=waiting)
    results = [ti.xcom_pull(task_ids=name) for name, ti in found.items()]
    assert len(results) == 4
    assert results == [results[0]] * 4
    modes = {name: (task.deferrable, task.mode) for name, task in dag.task_dict.items()}
    assert modes["in_the_triggerer"][0]
    assert modes["without_a_triggerer"] == (False, "reschedule")
    assert modes["on_the_worker"] == (False, "poke")


def test_hook_examples_run(airflow_database: None, connected: Catalog) -> None:
    connected.start_run(statuses="FAILED", polls=0)
    client = connected.server.client()
    (item,) = client.list_metadata_generation_runs(domainIdentifier=connected.domain_identifier)["items"]
    client.get_metadata_generation_run(domainIdentifier=connected.domain_identifier, identifier=item["id"])
    found = run(load("own_tasks"))
    assert found["count_failed_runs"].xcom_pull(task_ids="count_failed_runs") == 1
    assert found["domain_status"].xcom_pull(task_ids="domain_status") == "AVAILABLE"


def test_migrated_dag_does_what_the_function_did(
    airflow_database: None, connected: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DATAZONE", connected.server.endpoint_url or "")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    asset = {"domain": connected.domain_identifier, "project": connected.project_identifier}
    asset["asset"] = connected.asset_identifier
    connected.server.set_run_outcome(polls=0, times=None)

    found = run(load("migrating_before"), **asset)
    before = found["generate"].xcom_pull(task_ids="generate")
    found = run(load("migrating_after"), asset=connected.asset_identifier)
    assert found["start_run"].xcom_pull(task_ids="start_run", key="type_stats") == before
    # Each made a revision: both accepted.
    assert str(found["accept"].xcom_pull(task_ids="accept")) == "3"
    assert connected.server.request_counts["StartMetadataGenerationRun"] == 2


def test_three_types_are_sent_and_a_refusal_is_not_retried(
    airflow_database: None, connected: Catalog
) -> None:
    dag = load("describe_asset")
    dag.get_task("start_run").types = list(RUN_TYPES)
    connected.server.fail("StartMetadataGenerationRun", "ValidationException", times=None)
    dag_run = dag.test(run_conf={"asset": connected.asset_identifier})
    assert dag_run.state == "failed"
    (sent,) = [sent for operation, sent in connected.server.requests if operation.startswith("Start")]
    assert sent["types"] == list(RUN_TYPES)


@pytest.mark.parametrize("name", sorted(path.name for path in (EXAMPLES / "tests").glob("*.py")))
def test_tests_that_are_shown_pass(airflow_database: None, tmp_path: Path, name: str) -> None:
    (configuration,) = re.findall(r"^ *```ini\n(.*?)^ *```", PAGES["testing.md"], re.MULTILINE | re.DOTALL)
    (tmp_path / "pytest.ini").write_text(textwrap.dedent(configuration))
    (tmp_path / "dags").symlink_to(EXAMPLES / "dags")
    (tmp_path / "tests").mkdir()
    shutil.copy(EXAMPLES / "tests" / name, tmp_path / "tests")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"],
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    tests = len(re.findall(r"^def test_", (EXAMPLES / "tests" / name).read_text(), re.MULTILINE))
    assert f"{tests} passed" in done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="There is no curl")
def test_local_datazone_is_used_by_hand_as_it_is_written(airflow_database: None) -> None:
    blocks = re.findall(r"^```(console|text)\n(.*?)^```", BY_HAND, re.MULTILINE | re.DOTALL)
    (_, start), (_, told), *blocks = blocks
    assert start.startswith("$ python -m airflow_provider_datazone.testing\n")
    # The port of the page may be in use.
    server = subprocess.Popen(
        [sys.executable, *shlex.split(start)[2:], "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        lines = []
        while not lines or "/recover" not in lines[-1]:
            lines.append(server.stdout.readline())
            assert lines[-1], lines
        output = "".join(lines)
        endpoint_url = re.match(r".* at (\S+)\. ", output)[1]
        assert output.replace(endpoint_url, "http://127.0.0.1:5005").startswith(told.rstrip("\n"))
        (export,) = re.findall(r"^export .*$", output, re.MULTILINE)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        for kind, block in blocks:
            if kind == "text":
                for line in block.splitlines():
                    assert line in output, line
                continue
            output = ""
            for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
                command = command.replace("http://127.0.0.1:5005", endpoint_url)
                done = subprocess.run(
                    ["bash", "-c", f"{export}\n{command}"],
                    env=os.environ | {"PATH": path},
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=300,
                )
                output += done.stdout + done.stderr
                # `airflow dags test` reports that the DAG run failed, where the page has made a request fail.
                failed = "datazone/fail " in block and done.stderr.endswith("DagRun failed\n")
                assert done.returncode == int(failed), output[-4000:]
                if command.startswith("curl"):
                    (control,) = re.findall(r"/moto-api/datazone/(\w+) ", command)
                    assert list(json.loads(done.stdout)) == [control]
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=30)
    assert server.returncode == 0


def test_controls_over_http_are_those_that_the_page_lists() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", BY_HAND, re.MULTILINE))
    assert sorted(rows) == sorted(CONTROLS)
    for control, text in rows.items():
        arguments = re.findall(r"`(\w+)`", text.partition(":")[2])
        assert set(arguments) <= set(inspect.signature(getattr(DataZoneServer, control)).parameters)
