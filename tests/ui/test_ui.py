"""The Airflow UI shows the connection form, the log, the XComs and the link of this provider in a browser."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from playwright.sync_api import expect

from airflow_provider_datazone.get_provider_info import CONNECTION_FIELDS
from tests.conftest import Catalog, make_catalog
from tests.system.deployment import AIRFLOW_2

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer
    from tests.system.deployment import Deployment
    from tests.ui.pages import UI

# The example keys in the AWS documentation.
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
DAG = "example_datazone_metadata_generation"
REVIEW = "example_datazone_review_predictions"
RUN = "looked_at"
QUOTA = "business name generation has reached monthly quota"
STATES = {
    "wait_for_run": "success",
    "read_type_stats": "success",
    "choose_path": "success",
    "everything_generated": "skipped",
    "some_types_failed": "success",
    "report": "success",
}


@pytest.fixture(scope="module")
def catalog(deployment: Deployment, datazone_server: DataZoneServer) -> Catalog:
    datazone_server.require_credentials(ACCESS_KEY, SECRET_KEY)
    return make_catalog(datazone_server)


# ------------------------------------------------------------------ connection


class Case(NamedTuple):
    fields: dict[str, str]
    passes: bool
    messages: list[str]


CASES = {
    "good": Case({}, True, ["Domain 'local' (", ") is AVAILABLE."]),
    "wrong_secret": Case(
        {"AWS Secret Access Key": "mistyped"},
        False,
        ["InvalidSignatureException", "Check the AWS Access Key ID and the AWS Secret Access Key."],
    ),
    "wrong_key": Case(
        {"AWS Access Key ID": "AKIAMISTYPED"},
        False,
        ["UnrecognizedClientException", "Check the AWS Access Key ID and the AWS Secret Access Key."],
    ),
    "wrong_domain": Case(
        {"Domain": "dzd-elsewhere"},
        False,
        ["does not exist", "Check the domain 'dzd-elsewhere' and the AWS Region 'us-east-1'."],
    ),
    "wrong_endpoint": Case(
        {"Endpoint URL": "http://127.0.0.1:9"},
        False,
        ["Could not connect", "Check the AWS Region and the endpoint URL."],
    ),
}


def test_form_has_only_the_fields_of_the_connection(ui: UI) -> None:
    ui.open_form("datazone_fields")
    for label in ("AWS Access Key ID", "AWS Secret Access Key"):
        expect(ui.field(label)).to_have_attribute("placeholder", re.compile("leave empty"))
    for label in ("Host", "Port", "Schema"):
        expect(ui.form.get_by_text(label, exact=True).locator("visible=true")).to_have_count(0)
    for label, description in CONNECTION_FIELDS.values():
        expect(ui.field(label)).to_be_visible()
        expect(ui.form.get_by_text(description)).to_have_count(1)


@pytest.mark.parametrize("case", CASES)
def test_connection_is_saved_and_its_test_suggests_a_fix(
    ui: UI, deployment: Deployment, catalog: Catalog, case: str
) -> None:
    fields = {
        "AWS Access Key ID": ACCESS_KEY,
        "AWS Secret Access Key": SECRET_KEY,
        "Domain": catalog.domain_identifier,
        "Owning project": catalog.project_identifier,
        "AWS Region": "us-east-1",
        "Endpoint URL": catalog.server.endpoint_url,
        **CASES[case].fields,
    }
    conn_id = f"datazone_{case}"
    ui.open_form(conn_id)
    for label, value in fields.items():
        ui.field(label).fill(value)
    ui.screenshot(f"form_of_{conn_id}")
    passed, message = ui.test_and_save(conn_id)
    assert passed == CASES[case].passes, message
    for text in CASES[case].messages:
        assert text in message
    assert fields["AWS Secret Access Key"] not in message

    saved = deployment.request("GET", f"/connections/{conn_id}")
    assert (saved["conn_type"], saved["login"]) == ("awsdatazone", fields["AWS Access Key ID"])
    extra = {key: value for key, value in json.loads(saved["extra"]).items() if value}
    assert extra == {name: fields[label] for name, (label, _) in CONNECTION_FIELDS.items() if label in fields}


# --------------------------------------------------------------------- DAG run


@pytest.fixture(scope="module")
def dag_run(deployment: Deployment, catalog: Catalog) -> Catalog:
    """Run the DAG for a metadata generation run that partially succeeds."""
    run = catalog.start_run(
        statuses={"BUSINESS_NAMES": "FAILED"},
        error_messages={"BUSINESS_NAMES": QUOTA},
        in_progress_seconds=0,
    )
    catalog.server.set_run_status(run, "IN_PROGRESS")
    conf = {"domain_identifier": catalog.domain_identifier, "run_identifier": run}
    deployment.run("dags", "trigger", DAG, "--run-id", RUN, "--conf", json.dumps(conf))
    deployment.wait_for(
        "a deferred task",
        lambda: [ti.state for ti in deployment.task_instances(RUN, "wait_for_run")] == ["deferred"],
    )
    catalog.server.set_run_status(run, None)
    ended = "SELECT 1 FROM dag_run WHERE run_id = ? AND state IN ('success', 'failed')"
    deployment.wait_for("the end", lambda: deployment.query(ended, RUN), seconds=300)
    return catalog


def test_graph_shows_the_state_of_each_task(ui: UI, dag_run: Catalog) -> None:
    ui.open_run(DAG, RUN)
    for task, state in STATES.items():
        expect(ui.node(task)).to_contain_text(state)


def test_log_of_the_sensor_is_short_and_complete(ui: UI, dag_run: Catalog) -> None:
    ui.open_task(DAG, RUN, "wait_for_run", "logs")
    result = (
        f"ended PARTIALLY_SUCCEEDED: BUSINESS_NAMES FAILED: {QUOTA}. The account's monthly quota is used up"
    )
    expect(ui.log()).to_contain_text(result)
    log = ui.log().inner_text()
    # A collapsed group of log lines counts as one line.
    assert len(re.findall(r"^.*(?:INFO|WARNING|▶).*$", log, re.MULTILINE)) <= 16, log
    assert "Traceback" not in log
    expected_log = rf"is IN_PROGRESS\..+ is PARTIALLY_SUCCEEDED\..+{re.escape(result)}"
    assert re.search(expected_log, log, re.DOTALL), log
    ui.wrap_log()


@pytest.mark.parametrize("key", ["return_value", "type_stats"])
def test_xcom_has_the_type_stats(ui: UI, dag_run: Catalog, key: str) -> None:
    ui.open_task(DAG, RUN, "wait_for_run", "xcom")
    row = ui.xcom(key)
    for words in ("BUSINESS_DESCRIPTIONS", "SUCCEEDED", "BUSINESS_NAMES", "FAILED", QUOTA):
        expect(row).to_contain_text(words)
    row.scroll_into_view_if_needed()


@pytest.mark.parametrize("task", ["wait_for_run", "read_type_stats"])
def test_link_opens_the_domain_in_the_console(ui: UI, dag_run: Catalog, task: str) -> None:
    ui.open_task(DAG, RUN, task, "details")
    link = ui.page.get_by_role("link", name="Amazon DataZone Domain")
    console = "https://us-east-1.console.aws.amazon.com/datazone/home?region=us-east-1"
    expect(link).to_have_attribute("href", f"{console}#/domains/{dag_run.domain_identifier}")


# -------------------------------------------------------------------- review


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow has human-in-the-loop operators since 3.1")
def test_person_sees_the_predictions_as_a_table(ui: UI, deployment: Deployment, catalog: Catalog) -> None:
    connection = json.loads(catalog.server.connection)
    connection["extra"] |= {
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
    }
    connection |= {"login": ACCESS_KEY, "password": SECRET_KEY}
    deployment.change_connection("datazone_default", connection)
    catalog.server.set_run_outcome(polls=0, times=None)
    conf = {"asset_identifier": catalog.asset_identifier}
    deployment.run("dags", "trigger", REVIEW, "--run-id", REVIEW, "--conf", json.dumps(conf))
    deployment.wait_for(
        "the review",
        lambda: (
            [ti.state for ti in deployment.task_instances(REVIEW, "review")]
            in (["awaiting_input"], ["deferred"])
        ),
        seconds=300,
    )
    ui.open_task(REVIEW, REVIEW, "review", "required_actions")
    expect(ui.page.get_by_role("row").filter(has_text="summary").first).to_be_visible()
    for choice in ("Approve", "Reject"):
        expect(ui.page.get_by_role("button", name=choice)).to_be_visible()
