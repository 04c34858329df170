# [START setup]
import json

import pytest
from describe_asset import dag

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.testing import DataZoneServer


@pytest.fixture
def datazone():
    with DataZoneServer() as server:
        yield server


@pytest.fixture
def asset(datazone, monkeypatch):
    domain, project, asset = datazone.create_asset("orders")
    connection = json.loads(datazone.connection)
    connection["extra"] |= {"domain_identifier": domain, "owning_project_identifier": project}
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    return asset


def states(dag_run):
    return {ti.task_id: ti.state for ti in dag_run.get_task_instances()}


# [END setup]


def test_dag_files_import():
    try:
        from airflow.dag_processing.dagbag import DagBag  # Airflow 3.2 and later
    except ImportError:
        from airflow.models.dagbag import DagBag
    assert DagBag("dags").import_errors == {}


def test_dag_succeeds_if_one_type_fails(datazone, asset):
    datazone.set_run_outcome(
        asset,
        statuses={"BUSINESS_NAMES": "FAILED"},
        error_messages={"BUSINESS_NAMES": "the asset has no columns"},
        polls=0,
    )
    dag_run = dag.test(run_conf={"asset": asset})
    assert states(dag_run) == {"start_run": "success", "show": "success"}


def test_used_up_quota_is_not_retried(datazone, asset):
    datazone.set_run_outcome(
        statuses="FAILED",
        error_messages={"BUSINESS_NAMES": "business name generation has reached monthly quota"},
        polls=0,
        times=None,
    )
    dag_run = dag.test(run_conf={"asset": asset})
    assert dag_run.state == "failed"
    assert states(dag_run) == {"start_run": "failed", "show": "upstream_failed"}
    assert datazone.request_counts["StartMetadataGenerationRun"] == 1


def test_failed_run_is_retried(datazone, asset):
    datazone.set_run_outcome(statuses="FAILED", polls=0)
    datazone.set_run_outcome(polls=0)
    dag_run = dag.test(run_conf={"asset": asset})
    assert states(dag_run) == {"start_run": "success", "show": "success"}
    # Before Airflow 3.3, a retry may repeat an earlier Start request, so do not count requests.
    runs = DataZoneHook("datazone_default").list_metadata_generation_runs()
    assert sorted(run.status for run in runs) == ["FAILED", "SUCCEEDED"]


def test_transient_errors_are_retried(datazone, asset):
    datazone.set_run_outcome(polls=0)
    datazone.fail("StartMetadataGenerationRun", "drop", after=True)
    datazone.fail("GetMetadataGenerationRun", "ThrottlingException", times=2)
    dag_run = dag.test(run_conf={"asset": asset})
    assert states(dag_run) == {"start_run": "success", "show": "success"}
    # The response to the first request was lost, so botocore sent it again with the same client token.
    tokens = [sent["clientToken"] for name, sent in datazone.requests if name.startswith("Start")]
    assert len(tokens) == 2
    assert tokens[0] == tokens[1]


def test_slow_start_stays_within_the_rate(datazone, asset):
    datazone.set_run_outcome(polls=0)
    datazone.fail("StartMetadataGenerationRun", "hang", seconds=0.5, times=None)
    datazone.limit("StartMetadataGenerationRun", per_second=10, burst=1)
    dag_run = dag.test(run_conf={"asset": asset})
    assert states(dag_run) == {"start_run": "success", "show": "success"}
    # A throttled request would have been sent again.
    assert datazone.request_counts["StartMetadataGenerationRun"] == 1


def test_threshold_accepts_summary_and_name(datazone, asset):
    datazone.set_run_outcome(polls=0)
    dag.test(run_conf={"asset": asset})
    hook = DataZoneHook("datazone_default")
    hook.accept_predictions(asset, rule="ALL", threshold=0.8)
    found = hook.conn.get_asset(domainIdentifier=hook.resolve_domain_identifier(), identifier=asset)
    assert (found["revision"], found["name"]) == ("2", "Orders")
    assert "A summary of orders" in str(found["formsOutput"])
    left = hook.get_predictions(asset)
    assert {prediction["suggestions"][0]["confidence"] for prediction in left} == {0.6, 0.7}
