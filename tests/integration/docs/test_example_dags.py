"""The example DAGs import without warnings and run as documented."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import REPOSITORY
from tests.integration.docs import pages

if TYPE_CHECKING:
    from tests.conftest import Catalog

EXAMPLES = sorted((REPOSITORY / "example_dags").glob("*.py"))
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
QUOTA = "business name generation has reached monthly quota"


def load(name: str) -> dict[str, Any]:
    """Import an example and return its module globals."""
    return runpy.run_path(str(REPOSITORY / f"example_dags/{name}.py"))


def instances(dag_run: Any) -> dict[str, Any]:
    """Return the task instances of a DAG run; mapped ones have the key `task[index]`."""
    return {
        ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": ti
        for ti in dag_run.get_task_instances()
    }


def asset_of(catalog: Catalog, asset_identifier: str = "") -> dict[str, Any]:
    """Return the current asset."""
    return catalog.server.client().get_asset(
        domainIdentifier=catalog.domain_identifier, identifier=asset_identifier or catalog.asset_identifier
    )


def content_of(asset: dict[str, Any], form: str) -> dict[str, Any]:
    """Return the content of a form of the asset, or an empty dict without that form."""
    (content,) = [f["content"] for f in asset["formsOutput"] if f["formName"] == form] or ["{}"]
    return json.loads(content)


# Prints the warnings that the examples and this package cause. Airflow causes warnings, too.
IMPORT = """
import runpy, sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for path in sys.argv[1:]:
        runpy.run_path(path)
print([str(w.message) for w in caught if "example_dags" in w.filename or "airflow_provider_datazone" in w.filename])
"""


def test_example_imports_without_a_warning():
    # Use a new process: here, the modules are already imported and their warnings already issued.
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT, *EXAMPLES], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.splitlines()[-1] == "[]"


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
def test_metadata_generation_example_branches_on_the_run_status(
    airflow_database: None, catalog: Catalog, statuses: dict[str, str], states: dict[str, str]
):
    run = catalog.start_run(
        *TYPES, statuses=statuses, error_messages=dict.fromkeys(statuses, "no luck"), polls=0
    )
    dag = load("example_datazone_metadata_generation")["wait_for_run"].dag
    dag_run = dag.test(run_conf={"domain_identifier": catalog.domain_identifier, "run_identifier": run})
    task_instances = instances(dag_run)
    # The report has the typeStats in each case, even after a failed run.
    expected = [
        {"type": name, "status": statuses[name], "errorMessage": "no luck"}
        if name in statuses
        else {"type": name, "status": "SUCCEEDED"}
        for name in TYPES
    ]
    assert task_instances["report"].state == "success"
    assert task_instances["report"].xcom_pull(task_ids="report") == expected
    assert {name: task_instances[name].state for name in states} == states
    if states.get("some_types_failed") == "success":
        assert task_instances["some_types_failed"].xcom_pull(task_ids="some_types_failed") == {
            "BUSINESS_NAMES": "no luck"
        }
    assert dag_run.state == ("failed" if states["wait_for_run"] == "failed" else "success")


def enrich(catalog: Catalog) -> dict[str, str]:
    """Return the params of the second example."""
    return {
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
        "asset_identifier": catalog.asset_identifier,
    }


def test_enrich_example_accepts_confident_predictions_and_publishes_the_asset(
    airflow_database: None, catalog: Catalog
):
    dag = load("example_datazone_enrich_asset")["start_run"].dag
    dag_run = dag.test(run_conf=enrich(catalog))
    task_instances = instances(dag_run)
    assert dag_run.state == "success"
    assert {name: ti.state for name, ti in task_instances.items()} == {
        "start_run": "success",
        "choose_path": "success",
        "some_types_failed": "skipped",
        "accept_predictions": "success",
        "publish": "success",
        "report": "success",
    }
    # Airflow 3.0 returns "2" as a number.
    assert str(task_instances["accept_predictions"].xcom_pull(task_ids="accept_predictions")) == "2"
    asset = asset_of(catalog)
    assert asset["revision"] == "2"
    assert asset["name"] == "Orders"
    assert content_of(asset, "AssetCommonDetailsForm") == {"summary": "A summary of orders"}
    # Column descriptions meet the threshold with a confidence of 0.7. Column names, with 0.6, do not.
    assert content_of(asset, "ColumnBusinessMetadataForm") == {
        "columnsBusinessMetadata": [
            {"columnIdentifier": "order_id", "description": "What order_id says"},
            {"columnIdentifier": "amount", "description": "What amount says"},
        ]
    }
    (suggestions,) = asset["readOnlyFormsOutput"]
    assert {entry["fieldPath"] for entry in json.loads(suggestions["content"])["fieldSuggestions"]} == {
        "columns[0].columnName",
        "columns[1].columnName",
    }
    published = task_instances["publish"].xcom_pull(task_ids="publish", key="listing")
    assert asset["listing"] == {"listingId": published["listingId"], "listingStatus": "ACTIVE"}
    (request,) = [r for r in catalog.server.requests if r.operation == "CreateListingChangeSet"]
    assert request.parameters["entityRevision"] == "2"


@pytest.mark.parametrize(
    ("statuses", "state", "states"),
    [
        (
            {"BUSINESS_NAMES": "FAILED"},
            "success",
            {
                "start_run": "success",
                "some_types_failed": "success",
                "accept_predictions": "skipped",
                "publish": "skipped",
                "report": "success",
            },
        ),
        (
            dict.fromkeys(TYPES, "FAILED"),
            "failed",
            {
                "start_run": "failed",
                "some_types_failed": "upstream_failed",
                "accept_predictions": "upstream_failed",
                "publish": "upstream_failed",
                "report": "upstream_failed",
            },
        ),
    ],
    ids=["one fails", "all fail"],
)
def test_enrich_example_does_not_publish_after_failed_types(
    airflow_database: None, catalog: Catalog, statuses: dict[str, str], state: str, states: dict[str, str]
):
    catalog.server.set_run_outcome(
        statuses=statuses, error_messages=dict.fromkeys(statuses, QUOTA), polls=0, times=None
    )
    dag = load("example_datazone_enrich_asset")["start_run"].dag
    dag_run = dag.test(run_conf=enrich(catalog))
    task_instances = instances(dag_run)
    assert dag_run.state == state
    assert {name: task_instances[name].state for name in states} == states
    if states["some_types_failed"] == "success":
        reasons = task_instances["some_types_failed"].xcom_pull(task_ids="some_types_failed")
        assert reasons == {"BUSINESS_NAMES": QUOTA}
    # The task has retries, and uses none when the quota is exhausted.
    assert dag.get_task("start_run").retries == 2
    assert catalog.server.request_counts["StartMetadataGenerationRun"] == 1
    asset = asset_of(catalog)
    assert asset["revision"] == "1"
    assert "listing" not in asset


@pytest.mark.parametrize("failing", [None, 1], ids=["all succeed", "one fails"])
def test_enrich_many_example_accepts_predictions_of_each_successful_asset(
    airflow_database: None, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, failing: int | None
):
    connection = json.loads(catalog.server.connection)
    connection["extra"] |= {
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    assets = [
        catalog.server.create_asset(
            name,
            domain_identifier=catalog.domain_identifier,
            project_identifier=catalog.project_identifier,
        ).asset_identifier
        for name in ("orders", "items", "stores")
    ]
    catalog.server.set_run_outcome(polls=0, times=None)
    if failing is not None:
        catalog.server.set_run_outcome(
            assets[failing], statuses="FAILED", error_messages={"BUSINESS_NAMES": QUOTA}, polls=0
        )
    names = load("example_datazone_enrich_many_assets")
    dag_run = names["start_run"].dag.test(run_conf={"asset_identifiers": assets})
    task_instances = instances(dag_run)
    succeeded = [asset for index, asset in enumerate(assets) if index != failing]
    assert dag_run.state == ("success" if failing is None else "failed")
    assert [task_instances[f"start_run[{i}]"].state for i in range(3)] == [
        "failed" if index == failing else "success" for index in range(3)
    ]
    assert [task_instances[f"accept_predictions[{i}]"].state for i in range(len(succeeded))] == [
        "success"
    ] * len(succeeded)
    assert task_instances["report"].state == ("success" if failing is None else "failed")
    assert [asset_of(catalog, asset)["revision"] for asset in assets] == [
        "2" if asset in succeeded else "1" for asset in assets
    ]
    assert catalog.server.request_counts["StartMetadataGenerationRun"] == 3


def test_enrich_catalog_example_enriches_assets_without_a_description(
    airflow_database: None, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    server, domain, project = catalog.server, catalog.domain_identifier, catalog.project_identifier
    connection = json.loads(server.connection)
    connection["extra"]["service_config"] = {
        "datazone": {"domain_identifier": domain, "owning_project_identifier": project}
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))

    def create(name: str, **attributes: str) -> str:
        created = server.create_asset(
            name, domain_identifier=domain, project_identifier=project, **attributes
        )
        return created.asset_identifier

    create("described", description="Nobody has to write this again.")
    assets = [catalog.asset_identifier, *(create(f"table_{number}") for number in range(11))]
    # One failed asset of twelve is below the limit.
    server.set_run_outcome(
        assets[5], statuses="FAILED", error_messages={"BUSINESS_DESCRIPTIONS": "no luck"}, polls=0
    )
    server.set_run_outcome(polls=0, times=None)
    dag = load("example_datazone_enrich_catalog")["enrich"].dag
    dag.get_task("enrich").poll_interval = 0.1
    # Without retries, the failed asset remains failed.
    dag.get_task("enrich").retries = 0
    dag_run = dag.test()
    task_instances = instances(dag_run)
    assert dag_run.state == "success"
    summary = task_instances["enrich"].xcom_pull(task_ids="enrich")
    assert (summary["total"], summary["succeeded"], summary["failed"]) == (12, 11, 1)
    assert (summary["accepted"], summary["published"]) == (11, 11)
    for asset in assets:
        listing = asset_of(catalog, asset).get("listing")
        assert (listing is None) == (asset == assets[5])
    # The next DAG run finds only the failed asset.
    next_instances = instances(dag.test())
    assert next_instances["find_assets"].xcom_pull(task_ids="find_assets") == [
        {"asset_identifier": assets[5], "owning_project_identifier": project}
    ]


def test_enrich_catalog_example_fails_when_too_many_assets_fail(
    airflow_database: None, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    connection = json.loads(catalog.server.connection)
    connection["extra"] |= {
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    catalog.server.set_run_outcome(statuses="FAILED", polls=0, times=None)
    dag = load("example_datazone_enrich_catalog")["enrich"].dag
    dag.get_task("enrich").retries = 0
    dag_run = dag.test()
    assert dag_run.state == "failed"
    task_instances = instances(dag_run)
    assert {name: ti.state for name, ti in task_instances.items()} == {
        "find_assets": "success",
        "enrich": "failed",
        "report": "success",
    }
    # The task `failed_assets` of the documentation reads the rows of such a batch.
    rows = task_instances["enrich"].xcom_pull(task_ids="enrich", key="results")
    failed_assets = pages.load("every_operator").get_task("failed_assets").python_callable
    assert failed_assets(rows) == [catalog.asset_identifier]
