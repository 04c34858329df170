"""The documentation: what it shows runs, what it links to is there, what it lists is true."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import logging
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from http.server import ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import airflow
import botocore.session
import pytest
from airflow.providers.common.compat.sdk import DAG, task
from packaging.requirements import Requirement

from airflow_provider_datazone.exceptions import BatchFailedError, InvalidInputError, RequestRefusedError
from airflow_provider_datazone.get_provider_info import CONNECTION_FIELDS, get_provider_info
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.metadata_generation import RUN_TYPES, judge
from airflow_provider_datazone.operators.datazone import (
    DataZoneBatchMetadataGenerationOperator,
    DataZoneGetMetadataGenerationRunOperator,
)
from airflow_provider_datazone.testing import DataZoneServer
from airflow_provider_datazone.testing.control_api import CONTROLS
from scripts.update_docs import BLOCK, update
from tests.conftest import DAGS_FOLDER, REPOSITORY
from tests.integration.test_example_dags import (
    EXAMPLES as EXAMPLE_DAGS,
    test_example_imports_without_a_warning as example_test,
)
from tests.integration.test_messages import DenyingSts
from tests.wrong import make_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Catalog

AIRFLOW_3_0 = airflow.__version__.startswith("3.0.")
DOCS = REPOSITORY / "docs"
EXAMPLES = DOCS / "examples"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text()
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
CONNECTIONS = sorted(EXAMPLES.glob("*.sh"))
POLICIES = sorted((EXAMPLES / "policies").glob("*.json"))


@pytest.fixture(scope="module", autouse=True)
def dags_of_the_docs() -> Iterator[None]:
    """Have Airflow find them, for these tests alone: each `dag.test()` reads every DAG there is."""
    folder = DAGS_FOLDER / "docs_examples"
    folder.symlink_to(EXAMPLES / "dags")
    yield
    folder.unlink()


@pytest.fixture
def connected(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """The connection `datazone_default` names domain and project, as the pages say it should."""
    connection = json.loads(catalog.server.connection)
    connection["extra"] |= {
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    return catalog


def load(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / f"dags/{name}.py"))["dag"]


def run(dag: Any, **params: str) -> dict[str, Any]:
    """Run a DAG to a good end, and return its task instances."""
    dag_run = dag.test(run_conf=params)
    instances = {ti.task_id: ti for ti in dag_run.get_task_instances()}
    assert {name: ti.state for name, ti in instances.items()} == dict.fromkeys(dag.task_dict, "success")
    return instances


# ------------------------------------------------------------ examples


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


(BY_HAND,) = re.findall(r"^## By hand\n(.*?)^## ", PAGES["testing.md"], re.MULTILINE | re.DOTALL)


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


# ------------------------------------------------------ plain Markdown

# Every page that a git host shows.
MARKDOWN = {
    **{path.name: path.read_text() for path in sorted(REPOSITORY.glob("*.md"))},
    **{f"docs/{page}": text for page, text in PAGES.items()},
}
FENCED = re.compile(r"^ *```(.*)\n(?:.*\n)*?^ *```$\n?", re.MULTILINE)
# Code in these languages is an example that a test runs or reads; the others have tests of their own.
EXAMPLE_LANGUAGES = {"bash", "json", "python"}
LANGUAGES = EXAMPLE_LANGUAGES | {"console", "dockerfile", "ini", "text", "yaml"}


def prose(text: str) -> str:
    """Return a page without its code blocks."""
    return FENCED.sub("", text)


@pytest.mark.parametrize("page", MARKDOWN)
def test_code_block_has_a_language_that_a_git_host_highlights(page: str) -> None:
    fences = re.findall(r"^ *```(.*)", MARKDOWN[page], re.MULTILINE)
    assert set(fences[::2]) <= LANGUAGES
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("page", MARKDOWN)
def test_code_block_is_the_text_of_its_example(page: str) -> None:
    """If this fails, run `python scripts/update_docs.py`: it copies the examples into the pages."""
    assert update(MARKDOWN[page]) == MARKDOWN[page]


@pytest.mark.parametrize("page", MARKDOWN)
def test_code_block_names_its_example(page: str) -> None:
    without_examples = BLOCK.sub("", MARKDOWN[page])
    assert not EXAMPLE_LANGUAGES & {block[1].strip() for block in FENCED.finditer(without_examples)}
    # A comment that is almost one of these would leave its block as it is.
    assert "<!-- from " not in without_examples


@pytest.mark.parametrize("page", MARKDOWN)
def test_page_has_no_syntax_that_only_the_site_renders(page: str) -> None:
    text = prose(MARKDOWN[page])
    assert re.findall(r"\[\s*\]\(.*?\)", text) == []
    # Roles, directives in colon fences, targets, attributes and definition lists.
    assert re.findall(r"(?<!\$)\{[\w:+-]+\}`.*?`", text) == []
    assert re.findall(r"^ *(?::::.*|\(\S+\)=|\{[^}\n]*\}|: .*)$", text, re.MULTILINE) == []


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"changelog.md"}))
def test_page_opens_with_what_its_reader_can_do(page: str) -> None:
    assert re.match(r"# .+\n\nAfter reading this page you (can|know) [^.]+\. ?", PAGES[page])


def test_example_differs_from_its_block_once_either_is_edited() -> None:
    page = PAGES["quick-start.md"]
    (block,) = (match[0] for match in BLOCK.finditer(page) if "describe_asset.py" in match[0])
    edited = block.replace("poll_interval=5", "poll_interval=6")
    assert edited != block
    assert update(page.replace(block, edited)) == page


@pytest.mark.parametrize(
    "comment",
    [
        "<!-- from docs/examples/dags/own_tasks.py, section missing -->",
        "<!-- from docs/examples/tests/test_hook.py, function missing -->",
        "<!-- from docs/examples/missing.py -->",
    ],
)
def test_comment_that_names_a_missing_example_is_an_error(comment: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match="missing"):
        update(f"{comment}\n")


COMMANDS = sorted(
    {
        line.removeprefix("$ ")
        for page, text in [*PAGES.items(), ("README.md", (REPOSITORY / "README.md").read_text())]
        # It is about other machines than this one.
        if page != "installing.md"
        for block in re.findall(r"^ *```console\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
        for line in re.sub(r"\\\n *", "", textwrap.dedent(block)).splitlines()
    }
)
# The first is run for every test that needs a database, the others as the page shows them.
RUN_AS_SHOWN = {"airflow db migrate", *re.findall(r"^\$ (.*)$", BY_HAND, re.MULTILINE)}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_there_to_be_run(command: str) -> None:
    words = shlex.split(command, comments=True)
    while "=" in words[0]:
        variable = words.pop(0).partition("=")[0]
        assert any(f'"{variable}"' in path.read_text() for path in (REPOSITORY / "tests").rglob("*.py"))
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif re.fullmatch(r"(\.venvs?/(bench/)?bin/)?python", program):
        what = arguments[1:2] if arguments[0] == "-m" else arguments[:1]
        script = ["-m", *what] if arguments[0] == "-m" else [str(REPOSITORY / what[0])]
        done = subprocess.run(
            [sys.executable, *script, "--help"], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        options = [argument for argument in arguments[1:] if argument.startswith("--")]
        assert all(option in done.stdout for option in options)
        assert all((REPOSITORY / file).exists() for file in arguments if file.endswith(".py"))
    elif program in ("airflow", "curl"):
        assert command in RUN_AS_SHOWN
    else:
        assert program == "pip", command


def test_options_that_are_named_are_options() -> None:
    options = get_provider_info()["config"]["datazone"]["options"]
    for page, text in PAGES.items():
        for option in re.findall(r"\[datazone\] ?\n?(\w+)", text):
            assert option in options, page
        for option in re.findall(r"AIRFLOW__DATAZONE__(\w+)", text):
            assert option.lower() in options, page


# --------------------------------------------------------- connection


@pytest.mark.parametrize("file", CONNECTIONS, ids=lambda path: path.stem)
def test_connection_is_json_that_airflow_reads(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    connection_id, definition = re.fullmatch(
        r"export AIRFLOW_CONN_(\w+)='(.*?)'\n", file.read_text(), re.DOTALL
    ).groups()
    monkeypatch.setenv(f"AIRFLOW_CONN_{connection_id}", definition)
    hook = DataZoneHook(connection_id.lower())
    assert hook.resolve_domain_identifier() == "dzd_1234abcd5678ef"
    assert hook.resolve_owning_project_identifier() == "5a6b7c8d9e"
    assert hook.region_name == "us-east-1"


def test_fields_of_the_connection_are_those_of_its_form() -> None:
    rows = re.findall(r"^\| ([\w ]+) \| `(\w+)` \|", PAGES["connection.md"], re.MULTILINE)
    assert sorted(rows) == sorted((label, name) for name, (label, _) in CONNECTION_FIELDS.items())


# The resource types of each action, by AWS's service authorization reference of Amazon DataZone. IAM grants an action
# that has none on "*" alone, and one that has some on these, or on "*".
RESOURCE_TYPES: dict[str, set[str]] = {
    "datazone:AcceptPredictions": set(),
    "datazone:CancelMetadataGenerationRun": set(),
    "datazone:CreateListingChangeSet": set(),
    "datazone:GetAsset": set(),
    "datazone:GetDomain": {"domain"},
    "datazone:GetListing": set(),
    "datazone:GetMetadataGenerationRun": set(),
    "datazone:ListMetadataGenerationRuns": set(),
    "datazone:RejectPredictions": set(),
    "datazone:Search": set(),
    "datazone:StartMetadataGenerationRun": set(),
}
DOMAIN_ARN = re.compile(r"arn:aws:datazone:[a-z0-9-]+:\d{12}:domain/dzd[-_][a-zA-Z0-9_-]{1,36}")


def statements(policy: Path) -> list[dict[str, Any]]:
    return list(json.loads(policy.read_text())["Statement"])


def actions(policy: Path) -> set[str]:
    return {action for statement in statements(policy) for action in statement["Action"]}


def grants_nothing(action: str, resource: str) -> bool:
    """Whether IAM grants an action on no resource that a request could name."""
    if resource == "*":
        return False
    kind = "domain" if DOMAIN_ARN.fullmatch(resource) else None
    return kind not in RESOURCE_TYPES[action]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem)
def test_policy_names_operations_of_the_service(policy: Path) -> None:
    operations = botocore.session.get_session().get_service_model("datazone").operation_names
    assert actions(policy) <= {f"datazone:{operation}" for operation in operations}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem)
def test_every_statement_of_a_policy_grants_what_it_names(policy: Path) -> None:
    for statement in statements(policy):
        assert statement["Effect"] == "Allow"
        useless = [action for action in statement["Action"] if grants_nothing(action, statement["Resource"])]
        assert not useless, f"{useless} are granted on '*' alone"


def test_only_actions_without_a_resource_type_are_granted_on_everything() -> None:
    for policy in POLICIES:
        for statement in statements(policy):
            broad = [action for action in statement["Action"] if RESOURCE_TYPES[action]]
            assert statement["Resource"] != "*" or not broad, f"{broad} can name the domain"


@pytest.mark.parametrize("action", RESOURCE_TYPES)
def test_domain_s_arn_grants_get_domain_alone(action: str) -> None:
    domain = "arn:aws:datazone:us-east-1:123456789012:domain/dzd_1234abcd5678ef"
    assert grants_nothing(action, domain) == (action != "datazone:GetDomain")


def test_policies_allow_what_the_table_says_and_no_more() -> None:
    named = set(re.findall(r"`(datazone:\w+)`", PAGES["connection.md"]))
    assert named == set().union(*(actions(policy) for policy in POLICIES))
    enrich = actions(EXAMPLES / "policies/enrich.json")
    assert actions(EXAMPLES / "policies/wait.json") < enrich
    assert not actions(EXAMPLES / "policies/publish.json") & enrich


def test_commands_that_join_a_project_are_ones_that_the_command_line_takes() -> None:
    """Held against the service model, which is what the command line is made of."""
    model = botocore.session.get_session().get_service_model("datazone")
    text = (EXAMPLES / "permissions/join_project.sh").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        _, _, command, *options = shlex.split(line)
        shape = model.operation_model("".join(map(str.capitalize, command.split("-")))).input_shape
        given = dict(zip(options[::2], options[1::2], strict=True))
        named = {re.sub(r"-(\w)", lambda match: match[1].upper(), option[2:]): option for option in given}
        assert set(shape.required_members) <= named.keys() <= shape.members.keys()
        for member, option in named.items():
            choices = getattr(shape.members[member], "enum", [])
            assert not choices or given[option] in choices


# -------------------------------------------------------------- pages


@pytest.mark.parametrize(
    "guide", [guide for entry in get_provider_info()["integrations"] for guide in entry["how-to-guide"]]
)
def test_how_to_guide_is_a_page_of_the_site(guide: str) -> None:
    assert guide.startswith("/docs/")
    page = REPOSITORY / guide.removeprefix("/")
    assert page.is_file()
    # A page that is in no navigation is an error of the build.
    assert page.stem in NAVIGATED["index.md"]


# The pages that conf.py has the site list under a page.
(NAVIGATION,) = (
    ast.literal_eval(node.value)
    for node in ast.parse((DOCS / "conf.py").read_text()).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAVIGATION"
)
NAVIGATED = {
    f"{page}.md": [name for pages in captions.values() for name in pages]
    for page, captions in NAVIGATION.items()
}


@pytest.mark.parametrize("page", NAVIGATED)
def test_page_links_to_the_pages_that_the_site_lists_under_it(page: str) -> None:
    linked = {target.partition("#")[0] for target in re.findall(r"\]\((\S+?)\)", PAGES[page])}
    for name in NAVIGATED[page]:
        assert linked & {f"{name}.md", f"{name}.rst"}, name


def public_classes(module: Any) -> list[str]:
    return [
        name
        for name, found in inspect.getmembers(module, inspect.isclass)
        if found.__module__ == module.__name__ and not name.startswith("_")
    ]


def test_each_operator_and_the_sensor_has_a_section_with_an_example() -> None:
    sections = re.split(r"^## ", PAGES["operators.md"], flags=re.MULTILINE)
    for kind in ("operator", "sensor"):
        module = importlib.import_module(f"airflow_provider_datazone.{kind}s.datazone")
        for name in public_classes(module):
            assert any(f"`{name}`" in prose(section) and f" = {name}(" in section for section in sections), (
                name
            )


def test_each_public_class_is_in_the_api_reference() -> None:
    for kind in ("operators", "sensors", "triggers", "hooks", "links"):
        module = importlib.import_module(f"airflow_provider_datazone.{kind}.datazone")
        text = "".join((DOCS / f"api/{page}.rst").read_text() for page in (kind, "internals"))
        for name in public_classes(module):
            assert re.search(rf"autoclass:: (?:{re.escape(module.__name__)}\.)?{name}$", text, re.M)


def anchors(markdown: str) -> list[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    # The site makes them for three levels: `myst_heading_anchors`.
    headings = re.findall(r"^#{1,3} (.*)$", prose(markdown), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", MARKDOWN)
def test_headings_of_a_page_differ(page: str) -> None:
    """Otherwise GitHub and the site number their anchors, each in its own way."""
    assert len(set(anchors(MARKDOWN[page]))) == len(anchors(MARKDOWN[page]))


LINKS = [
    (page, link)
    for page, text in MARKDOWN.items()
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(text))
]


@pytest.mark.parametrize(("page", "link"), sorted(set(LINKS)))
def test_link_leads_somewhere(page: str, link: str) -> None:
    target, _, anchor = link.partition("#")
    file = (REPOSITORY / page).parent / target if target else REPOSITORY / page
    assert file.exists()
    if anchor:
        assert anchor in anchors(file.read_text())


def test_public_address_stands_in_one_place() -> None:
    address = "airflow-provider-amazon-datazone." + "example"
    folders = ("airflow_provider_datazone", "docs", "example_dags", "scripts", "tests")
    files = [path for path in REPOSITORY.glob("*.*") if path.suffix in (".md", ".py", ".toml")] + [
        path
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*.*")
        if path.suffix in (".md", ".py", ".rst") and "_build" not in path.parts
    ]
    assert [path.name for path in files if address in path.read_text()] == ["pyproject.toml"]


# ----------------------------------------------------- what is claimed


def test_recipe_for_older_sets_raises_what_this_package_needs_raised() -> None:
    page = PAGES["installing.md"]
    (expression,) = re.findall(r"^\$ sed -i -E '(.*)' constraints.txt$", page, re.MULTILINE)
    pins = ["aiobotocore", "apache-airflow", "apache-airflow-providers-amazon", "boto3", "botocore"]
    pins += ["apache-airflow-providers-common-compat", "s3transfer", "types-boto3"]
    done = subprocess.run(
        ["sed", "-E", expression],
        input="".join(f"{pin}==1.0\n" for pin in pins),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        "apache-airflow==1.0",
        "apache-airflow-providers-amazon==1.0",
        "types-boto3==1.0",
    ]


def test_installing_page_names_the_wheel_and_the_lower_bounds() -> None:
    distribution = metadata.distribution("airflow-provider-amazon-datazone")
    pages = [PAGES["installing.md"], (REPOSITORY / "README.md").read_text()]
    wheels = {wheel for page in pages for wheel in re.findall(r"airflow_provider_\w+-\S+?\.whl", page)}
    assert wheels == {f"airflow_provider_amazon_datazone-{distribution.version}-py3-none-any.whl"}
    bounds = {r.name: str(r.specifier)[2:] for r in map(Requirement, distribution.requires or [])}
    assert (
        f"needs boto3 {bounds['boto3']}, the first with\n`typeStats`, the Amazon provider"
        f" {bounds['apache-airflow-providers-amazon']} and"
        f" common-compat {bounds['apache-airflow-providers-common-compat']}."
    ) in pages[0]


def test_memory_of_a_triggerer_is_what_the_performance_page_measured() -> None:
    performance = PAGES["performance.md"]
    header, row = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(
            r"^(?:\| \| ratio, 300|\| memory added, MB \| 1/).*$", performance, re.MULTILINE
        )[:2]
    )
    measured = {column: value for column, value in zip(header, row, strict=True) if column.endswith("ours")}
    expected = {
        f"{column.removesuffix(' ours')} waits": round(float(value)) for column, value in measured.items()
    }
    _, batch = performance.split("benchmarks/batch.py\n")
    expected["a batch of 10,000 assets"] = round(float(re.search(r"memory added, MB \| ([\d.]+)", batch)[1]))
    section = PAGES["scaling.md"].split("## Memory of a triggerer\n")[1].split("\n## ")[0]
    shown = re.findall(r"^\| (.*?) \| (\d+) \|$", section, re.MULTILINE)
    assert {name: int(value) for name, value in shown} == expected
    each = (float(measured["10,000 ours"]) - float(measured["1,000 ours"])) / 9
    assert f"each wait adds about {round(each)} KB" in section


@pytest.mark.skipif(not airflow.__version__.startswith("2.11"), reason="Airflow 3 passes what the task knows")
def test_airflow_2_11_fails_mapped_taskflow_tasks_on_default_args_as_the_page_says() -> None:
    @task
    def mapped(number: int) -> int:
        return number

    with DAG("with_default_args", schedule=None, default_args={"aws_conn_id": "datazone_default"}):
        added = mapped.expand(number=[1, 2])
    (message,) = re.findall(r'mapped TaskFlow tasks fail with "(.*?)"', PAGES["troubleshooting.md"])
    with pytest.raises(Exception, match=re.escape(message)):
        added.operator.unmap({"op_kwargs": {"number": 1}})


def test_types_are_those_of_the_service_model_which_allows_two_in_a_run() -> None:
    model = botocore.session.get_session().get_service_model("datazone")
    types = model.shape_for("MetadataGenerationRunTypes")
    assert types.metadata == {"min": 1, "max": 2}
    assert tuple(types.member.enum) == RUN_TYPES
    section = PAGES["operators.md"].split("## Start a run\n")[1].split("\n### ")[0]
    assert all(f"`{name}`" in section for name in RUN_TYPES)
    assert "one or two types" in section


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/quick-start.md"])
def test_first_pages_say_once_and_early_that_unified_studio_works_the_same(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    assert text.count("SageMaker Unified Studio") == 1
    assert "SageMaker Unified Studio" in re.split(r"^\#\# |^\|", text, flags=re.MULTILINE)[0].replace(
        "\n", " "
    )


def test_tested_versions_are_those_of_the_constraints() -> None:
    rows = re.findall(
        r"^\| (\d\S*) \| ([\d., ]+) \| ([\d.]+).*? \| ([\d.]+).*? \| ([\d.]+).*? \| ([\d.]+|none) \| .* \|$",
        PAGES["versions.md"],
        re.MULTILINE,
    )
    files = sorted((REPOSITORY / "constraints").glob("airflow-*.txt"))
    assert len(rows) == len(files)
    for (core, _, amazon, compat, boto3, aiobotocore), file in zip(rows, files, strict=True):
        constraints = file.read_text()
        pins = {
            "apache-airflow": core,
            "apache-airflow-providers-amazon": amazon,
            "apache-airflow-providers-common-compat": compat,
            "boto3": boto3,
            "aiobotocore": aiobotocore,
        }
        for name, pin in pins.items():
            found = re.findall(rf"^{name}==(\S+)", constraints, re.MULTILINE)
            assert pin in (found or ["none"]), name


NO_RETRIES = {"retries": {"total_max_attempts": 1}}


@pytest.fixture
def told(connected: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> str:
    """All that the troubleshooting page tells about, made to happen."""
    server = connected.server
    hook = DataZoneHook("datazone_default", config=NO_RETRIES)
    hook._log = logging.getLogger("tests.docs")
    wrong = {"AIRFLOW_CONN_NO_JSON": {"conn_type": "aws"}, "AIRFLOW_CONN_EMPTY": {"conn_type": "awsdatazone"}}
    for name, connection in wrong.items():
        monkeypatch.setenv(name, json.dumps(connection | {"extra": "[]"} if "JSON" in name else connection))
    lines = []

    def fails(call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        with pytest.raises(Exception, match=r".") as failure:
            call(*arguments, **named)
        lines.append(str(failure.value))

    fails(DataZoneHook("empty").get_metadata_generation_run, "run")
    fails(DataZoneHook("missing").get_metadata_generation_run, "run")
    fails(DataZoneHook("no_json").get_metadata_generation_run, "run")
    fails(DataZoneHook("empty").get_metadata_generation_run, "run", domain_identifier="dzd_1")
    fails(hook.get_metadata_generation_run, "unknown")
    fails(hook.get_metadata_generation_run, "")
    fails(DataZoneHook("datazone_default", verify="/no/such/file").get_metadata_generation_run, "run")
    for message in (
        "User: arn:aws:iam::123456789012:user/a is not authorized to perform: datazone:GetAsset",
        "User is not permitted to perform operation: StartMetadataGenerationRun",
    ):
        server.fail("StartMetadataGenerationRun", "AccessDeniedException", message=message)
        fails(hook.start_metadata_generation_run, connected.asset_identifier, types=["BUSINESS_NAMES"])
    for code in (
        "ValidationException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "ExpiredTokenException",
        "ConflictException",
    ):
        server.fail("StartMetadataGenerationRun", code)
        fails(hook.start_metadata_generation_run, connected.asset_identifier, types=["BUSINESS_NAMES"])
    fails(hook.start_metadata_generation_run, connected.asset_identifier, types="BUSINESS_NAMES")
    fails(hook.accept_predictions, connected.asset_identifier)
    fails(hook.accept_predictions, connected.asset_identifier, choices="[]")
    quota = {"BUSINESS_NAMES": "business name generation has reached monthly quota"}
    run_identifier = connected.start_run("BUSINESS_NAMES", statuses="FAILED", error_messages=quota, polls=0)
    run = hook.get_metadata_generation_run(run_identifier)
    lines.append(judge(run, allow_partial_success=True).message)
    server.set_run_status(run_identifier, "PAUSED")
    hook.poll_metadata_generation_run(run_identifier)
    server.fail("GetMetadataGenerationRun", "ThrottlingException")
    hook.poll_metadata_generation_run(run_identifier)
    fails(hook.start_metadata_generation_run, "asset ", types=["BUSINESS_NAMES"])
    fails(hook.start_metadata_generation_run, "unknown", types=["BUSINESS_NAMES"])
    fails(hook.list_metadata_generation_runs_page, domain_identifier="dzd-unknown")
    away = {"region_name": "us-east-1", "endpoint_url": "http://127.0.0.1:1"}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(json.loads(server.connection) | {"extra": away}))
    fails(
        DataZoneHook("away", config=NO_RETRIES).get_metadata_generation_run, "run", domain_identifier="dzd-1"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), DenyingSts) as sts:
        threading.Thread(target=sts.serve_forever, daemon=True).start()
        role = {"region_name": "us-east-1", "role_arn": "arn:aws:iam::123456789012:role/airflow-datazone"}
        role["service_config"] = {"sts": {"endpoint_url": f"http://127.0.0.1:{sts.server_port}"}}
        monkeypatch.setenv("AIRFLOW_CONN_ROLE", json.dumps(json.loads(server.connection) | {"extra": role}))
        fails(DataZoneHook("role").get_metadata_generation_run, "run", domain_identifier="dzd-1")
        sts.shutdown()
    lines += told_by_tasks(connected, monkeypatch, caplog)
    return "\n".join([*lines, *caplog.messages])


def told_by_tasks(
    connected: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> list[str]:
    """What tasks fail with, as their logs show it."""
    shown = []
    common = {"task_id": "task", "aws_conn_id": "datazone_default"}
    connected.server.fail("GetMetadataGenerationRun", "AccessDeniedException")
    with pytest.raises(RequestRefusedError) as refused:
        DataZoneGetMetadataGenerationRunOperator(run_identifier="run", **common).execute(make_context())
    shown.append("".join(traceback.format_exception(refused.value)))
    caplog.set_level(logging.INFO, "tests.docs")
    monkeypatch.setattr(
        DataZoneBatchMetadataGenerationOperator, "log", logging.getLogger("tests.docs"), raising=False
    )

    def batch(assets: list[str] | str) -> Any:
        return DataZoneBatchMetadataGenerationOperator(
            asset_identifiers=assets, types=["BUSINESS_NAMES"], poll_interval=0.01, **common
        )

    with pytest.raises(InvalidInputError) as invalid:
        batch("[]").execute(make_context())
    shown.append(str(invalid.value))
    batch([]).execute(make_context())
    connected.server.set_run_outcome(connected.asset_identifier, polls=0, statuses="FAILED")
    with pytest.raises(BatchFailedError) as failed:
        batch([connected.asset_identifier]).execute(make_context())
    shown.append(str(failed.value))
    connected.server.fail("StartMetadataGenerationRun", "AccessDeniedException")
    with pytest.raises(RequestRefusedError):
        batch([connected.asset_identifier]).execute(make_context())
    return shown


def test_troubleshooting_quotes_what_is_said(told: str) -> None:
    rows = re.findall(r"^\| (`.*?) \| .* \|$", PAGES["troubleshooting.md"], re.MULTILINE)
    quotes = [quote for row in rows for quote in re.findall(r"`(.*?)`", row)]
    assert len(quotes) > len(rows) > 15
    # It takes a triggerer to hear these.
    deferral = (REPOSITORY / "airflow_provider_datazone/deferral.py").read_text()
    for quote in quotes:
        if "trigger" in quote:
            assert re.split(r" run '| …", quote)[0] in deferral
        else:
            # What stands in quotes is the reader's own; what is left out may be anything.
            pattern = re.sub(r"'.'", "'.*?'", re.escape(quote.strip("… ")))
            pattern = re.sub(r"(\\ )?…(\\ )?", ".*?", pattern)
            if AIRFLOW_3_0 and "JSON" in quote:
                # That Airflow drops such a connection, if it is in the environment.
                pattern = "The connection 'no_json' is not defined"
            assert re.search(pattern, told), quote


# Which test runs, or reads, what the pages show.
RUN_BY = {
    EXAMPLES / "dags/describe_asset.py": test_quick_start_runs_as_it_is_written,
    EXAMPLES / "try_it.py": test_quick_start_runs_as_it_is_written,
    EXAMPLES / "dags/every_operator.py": test_each_operator_does_what_the_page_says,
    EXAMPLES / "dags/ways_to_wait.py": test_ways_to_wait_come_to_the_same,
    EXAMPLES / "dags/own_tasks.py": test_hook_examples_run,
    EXAMPLES / "dags/migrating_before.py": test_migrated_dag_does_what_the_function_did,
    EXAMPLES / "dags/migrating_after.py": test_migrated_dag_does_what_the_function_did,
    **dict.fromkeys((EXAMPLES / "tests").glob("*.py"), test_tests_that_are_shown_pass),
    **dict.fromkeys(CONNECTIONS, test_connection_is_json_that_airflow_reads),
    **dict.fromkeys(POLICIES, test_policy_names_operations_of_the_service),
    EXAMPLES
    / "permissions/join_project.sh": test_commands_that_join_a_project_are_ones_that_the_command_line_takes,
    **dict.fromkeys(EXAMPLE_DAGS, example_test),
}


def test_what_pages_show_is_run_by_tests_and_all_of_it_is_shown() -> None:
    shown = {REPOSITORY / match["file"] for text in MARKDOWN.values() for match in BLOCK.finditer(text)}
    assert shown == set(RUN_BY)
    assert {path for path in EXAMPLES.rglob("*.*") if path.suffix != ".pyc"} <= shown
