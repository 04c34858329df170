"""The examples in the documentation run."""

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
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_datazone.testing import DataZoneServer
from airflow_provider_datazone.testing.control_api import CONTROLS
from tests.conftest import DAGS_FOLDER, example_dags
from tests.integration.docs.pages import BY_HAND, EXAMPLES, PAGES, actions, load, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Catalog


@pytest.fixture(scope="module", autouse=True)
def documentation_dags() -> Iterator[None]:
    """Add the examples to the DAGs folder for these tests only, because each `dag.test()` parses every DAG."""
    folder = DAGS_FOLDER / "docs_examples"
    folder.symlink_to(EXAMPLES / "dags")
    yield
    folder.unlink()


def test_quick_start_runs_as_written(airflow_database: None) -> None:
    completed = subprocess.run(
        [sys.executable, EXAMPLES / "try_it.py"], capture_output=True, text=True, check=False, timeout=300
    )
    assert completed.returncode == 0, completed.stderr[-4000:]
    output = completed.stdout + completed.stderr
    for line in re.search(r"```text\n(.*?)```", PAGES["quick-start.md"], re.DOTALL)[1].splitlines():
        pattern = re.sub(r"'.*?'", "'.*?'", line)
        assert re.search(pattern, output), line


def test_each_operator_works_as_documented(airflow_database: None, configured_catalog: Catalog) -> None:
    server = configured_catalog.server

    def create(name: str) -> str:
        owner = {
            "domain_identifier": configured_catalog.domain_identifier,
            "project_identifier": configured_catalog.project_identifier,
        }
        return server.create_asset(name, **owner).asset_identifier

    edited, unwanted = create("edited orders"), create("unwanted orders")
    # The run must not end before the DAG cancels it.
    server.set_run_outcome(unwanted, in_progress_seconds=600)
    server.set_run_outcome(polls=0, times=None)
    task_instances = run(
        load("every_operator"),
        asset=configured_catalog.asset_identifier,
        edited_asset=edited,
        unwanted_asset=unwanted,
    )
    assert task_instances["cancel_run"].xcom_pull(task_ids="cancel_run") == "CANCELED"
    assert task_instances["read_run"].xcom_pull(task_ids="read_run") == [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"}
    ]
    # Some versions of Airflow convert the revision to a number.
    assert str(task_instances["accept_above_threshold"].xcom_pull(task_ids="accept_above_threshold")) == "2"
    summary = task_instances["enrich"].xcom_pull(task_ids="enrich")
    assert (summary["total"], summary["succeeded"]) == (3, 3)
    assert task_instances["failed_assets"].xcom_pull(task_ids="failed_assets") == []
    summary = task_instances["enrich_and_publish"].xcom_pull(task_ids="enrich_and_publish")
    assert (summary["accepted"], summary["published"]) == (3, 3)
    listing = task_instances["publish"].xcom_pull(task_ids="publish", key="listing")
    assert listing["status"] == "ACTIVE"
    # The batch has accepted other texts since then.
    asset = server.client().get_asset(
        domainIdentifier=configured_catalog.domain_identifier,
        identifier=edited,
        revision=str(task_instances["accept_edited_text"].xcom_pull(task_ids="accept_edited_text")),
    )
    assert "All orders since 2019, one row per order." in json.dumps(asset["formsOutput"])

    # Two allowed actions are not in use here: a retry needs one, and a connection test the other.
    requested = {f"datazone:{operation}" for operation in server.request_counts}
    setup = {"datazone:CreateDomain", "datazone:CreateProject", "datazone:CreateAsset"}
    allowed = actions(EXAMPLES / "policies/enrich.json") | actions(EXAMPLES / "policies/publish.json")
    assert requested - setup <= allowed
    assert allowed - requested <= {"datazone:ListMetadataGenerationRuns", "datazone:GetDomain"}


def test_report_runs_after_a_failed_start_and_the_dag_run_fails(
    airflow_database: None, configured_catalog: Catalog
) -> None:
    server = configured_catalog.server
    dag = load("every_operator")
    dag.get_task("start_run").retries = 0
    server.set_run_outcome(statuses="FAILED", polls=0, times=None)
    owner = {
        "domain_identifier": configured_catalog.domain_identifier,
        "project_identifier": configured_catalog.project_identifier,
    }
    assets = [
        configured_catalog.asset_identifier,
        *(server.create_asset(f"{name} orders", **owner).asset_identifier for name in ("edited", "unwanted")),
    ]
    dag_run = dag.test(run_conf=dict(zip(("asset", "edited_asset", "unwanted_asset"), assets, strict=True)))
    task_instances = {ti.task_id: ti for ti in dag_run.get_task_instances()}
    assert task_instances["start_run"].state == "failed"
    assert task_instances["report"].state == "success"
    assert dag_run.state == "failed"


@pytest.mark.parametrize("task_id", ["report", "failed_assets"])
def test_report_is_a_teardown_without_a_setup_task(task_id: str) -> None:
    """Clearing a task also clears its setup task, and a cleared start would pay for another run."""
    dag = load("every_operator")
    assert dag.get_task(task_id).is_teardown
    assert not any(found.is_setup for found in dag.tasks)


@pytest.mark.parametrize(
    "path", [*example_dags(), *sorted((EXAMPLES / "dags").glob("*.py"))], ids=lambda path: path.stem
)
def test_example_dag_supports_a_mapped_taskflow_task(path: Path) -> None:
    """In Airflow 2.11, a mapped TaskFlow task fails on unknown arguments in `default_args`."""
    names = runpy.run_path(str(path)).values()
    (dag,) = {found for name in names if isinstance(found := getattr(name, "dag", name), DAG)}
    assert "aws_conn_id" not in dag.default_args

    @task
    def mapped(number: int) -> int:
        return number

    with dag:
        expanded = mapped.expand(number=[1, 2])
    expanded.operator.unmap({"op_kwargs": {"number": 1}})
    for found in dag.tasks:
        if found.task_type.startswith("DataZone"):
            arguments = found.partial_kwargs if hasattr(found, "partial_kwargs") else vars(found)
            assert arguments["aws_conn_id"] == "datazone_default"


def test_all_ways_to_wait_have_the_same_result(airflow_database: None, configured_catalog: Catalog) -> None:
    waiting = configured_catalog.start_run(polls=0)
    dag = load("ways_to_wait")
    task_instances = run(dag, run=waiting)
    results = [ti.xcom_pull(task_ids=name) for name, ti in task_instances.items()]
    assert len(results) == 4
    assert results == [results[0]] * 4
    modes = {name: (task.deferrable, task.mode) for name, task in dag.task_dict.items()}
    assert modes["in_the_triggerer"][0]
    assert modes["without_a_triggerer"] == (False, "reschedule")
    assert modes["on_the_worker"] == (False, "poke")


def test_hook_examples_run(airflow_database: None, configured_catalog: Catalog) -> None:
    configured_catalog.start_run(statuses="FAILED", polls=0)
    client = configured_catalog.server.client()
    (item,) = client.list_metadata_generation_runs(domainIdentifier=configured_catalog.domain_identifier)[
        "items"
    ]
    client.get_metadata_generation_run(
        domainIdentifier=configured_catalog.domain_identifier, identifier=item["id"]
    )
    task_instances = run(load("own_tasks"))
    assert task_instances["count_failed_runs"].xcom_pull(task_ids="count_failed_runs") == 1
    assert task_instances["domain_status"].xcom_pull(task_ids="domain_status") == "AVAILABLE"
    asset = configured_catalog.asset_identifier
    # Its run has failed.
    name = "find_assets_without_runs"
    assert task_instances[name].xcom_pull(task_ids=name) == [asset]
    name = "count_runs_by_asset"
    assert task_instances[name].xcom_pull(task_ids=name) == {asset: 1}


def test_batch_leaves_out_assets_with_predictions_or_a_run(
    airflow_database: None, configured_catalog: Catalog
) -> None:
    catalog = configured_catalog
    client = catalog.server.client()
    owner = {
        "domain_identifier": catalog.domain_identifier,
        "project_identifier": catalog.project_identifier,
    }
    other = catalog.server.create_asset("other orders", **owner).asset_identifier
    run_identifier = catalog.start_run(polls=0)
    of_domain = {"domainIdentifier": catalog.domain_identifier}
    client.get_metadata_generation_run(**of_domain, identifier=run_identifier)
    task_instances = run(load("own_tasks"))
    name = "find_assets_without_runs"
    assert task_instances[name].xcom_pull(task_ids=name) == [other]


@pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="needs human-in-the-loop operators")
@pytest.mark.parametrize(
    ("chosen", "accepted", "revision"),
    [
        (["Asset"], ["summary"], "2"),
        (
            ["Asset", "Columns"],
            ["columns[0].columnDescription", "columns[1].columnDescription", "summary"],
            "2",
        ),
        (["None"], [], "1"),
    ],
)
def test_person_chooses_which_predictions_are_accepted(
    airflow_database: None,
    configured_catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    chosen: list[str],
    accepted: list[str],
    revision: str,
) -> None:
    from airflow.providers.standard.operators.hitl import HITLOperator

    catalog = configured_catalog
    client = catalog.server.client()
    run_identifier = catalog.start_run("BUSINESS_DESCRIPTIONS", polls=0)
    of_domain = {"domainIdentifier": catalog.domain_identifier}
    client.get_metadata_generation_run(**of_domain, identifier=run_identifier)
    monkeypatch.setattr(HITLOperator, "execute", lambda self, context: {"chosen_options": chosen})
    folder = DAGS_FOLDER / "docs_reviews"
    folder.symlink_to(EXAMPLES / "reviews")
    try:
        task_instances = run(
            runpy.run_path(str(EXAMPLES / "reviews/partial_review.py"))["dag"], asset=catalog.asset_identifier
        )
    finally:
        folder.unlink()
    choices = task_instances["decide"].xcom_pull(task_ids="decide", key="accept")
    assert sorted(choice["predictionTarget"] for choice in choices) == accepted
    asset = client.get_asset(**of_domain, identifier=catalog.asset_identifier)
    # No prediction is left, and the published revision has what the person chose.
    assert (asset["revision"], asset["readOnlyFormsOutput"]) == (revision, [])
    assert task_instances["publish"].xcom_pull(task_ids="publish", key="listing")["status"] == "ACTIVE"
    assert ("A summary of" in json.dumps(asset["formsOutput"])) is ("summary" in accepted)


def test_migrated_dag_has_the_same_result_as_the_function(
    airflow_database: None, configured_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DATAZONE", configured_catalog.server.endpoint_url or "")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    asset = {"domain": configured_catalog.domain_identifier, "project": configured_catalog.project_identifier}
    asset["asset"] = configured_catalog.asset_identifier
    configured_catalog.server.set_run_outcome(polls=0, times=None)

    task_instances = run(load("migrating_before"), **asset)
    before = task_instances["generate"].xcom_pull(task_ids="generate")
    task_instances = run(load("migrating_after"), asset=configured_catalog.asset_identifier)
    assert task_instances["start_run"].xcom_pull(task_ids="start_run", key="type_stats") == before
    # Both DAGs accepted predictions, and each created a revision.
    assert str(task_instances["accept"].xcom_pull(task_ids="accept")) == "3"
    assert configured_catalog.server.request_counts["StartMetadataGenerationRun"] == 2


@pytest.mark.parametrize("name", sorted(path.name for path in (EXAMPLES / "tests").glob("test_*.py")))
def test_example_tests_pass(airflow_database: None, tmp_path: Path, name: str) -> None:
    (configuration,) = re.findall(r"^ *```ini\n(.*?)^ *```", PAGES["testing.md"], re.MULTILINE | re.DOTALL)
    (tmp_path / "pytest.ini").write_text(textwrap.dedent(configuration))
    (tmp_path / "dags").symlink_to(EXAMPLES / "dags")
    (tmp_path / "tests").mkdir()
    for file in ("conftest.py", name):
        shutil.copy(EXAMPLES / "tests" / file, tmp_path / "tests")
    completed = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"],
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stdout[-4000:]
    tests = len(re.findall(r"^def test_", (EXAMPLES / "tests" / name).read_text(), re.MULTILINE))
    assert f"{tests} passed" in completed.stdout


def squeeze(text: str) -> str:
    """Remove white space, colors and frames: Airflow 3.0 wraps a traceback in a box."""
    return re.sub(r"\x1b\[[\d;]*m|[\s│]", "", text)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_local_datazone_commands_run_as_written(airflow_database: None) -> None:
    blocks = re.findall(r"^```(console|text)\n(.*?)^```", BY_HAND, re.MULTILINE | re.DOTALL)
    (_, start), (_, documented_output), *blocks = blocks
    assert start.startswith("$ python -m airflow_provider_datazone.testing\n")
    # The port on the page may be in use.
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
        assert output.replace(endpoint_url, "http://127.0.0.1:5005").startswith(
            documented_output.rstrip("\n")
        )
        (export,) = re.findall(r"^export .*$", output, re.MULTILINE)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        for kind, block in blocks:
            if kind == "text":
                for line in block.splitlines():
                    assert squeeze(line) in squeeze(output), line
                continue
            output = ""
            for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
                command = command.replace("http://127.0.0.1:5005", endpoint_url)
                completed = subprocess.run(
                    ["bash", "-c", f"{export}\n{command}"],
                    env=os.environ | {"PATH": path},
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=300,
                )
                output += completed.stdout + completed.stderr
                # `airflow dags test` reports a failed DAG run after the page makes a request fail.
                failed = "datazone/fail " in block and completed.stderr.endswith("DagRun failed\n")
                assert completed.returncode == int(failed), output[-4000:]
                if command.startswith("curl"):
                    (control,) = re.findall(r"/moto-api/datazone/(\w+) ", command)
                    assert list(json.loads(completed.stdout)) == [control]
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=30)
    assert server.returncode == 0


def test_page_lists_the_controls_over_http() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", BY_HAND, re.MULTILINE))
    assert sorted(rows) == sorted(CONTROLS)
    for control, text in rows.items():
        arguments = re.findall(r"`(\w+)`", text.partition(":")[2])
        assert set(arguments) <= set(inspect.signature(getattr(DataZoneServer, control)).parameters)
