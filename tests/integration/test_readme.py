"""What the README shows is true."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import botocore.session

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    import pytest

    from airflow_provider_datazone.testing import DataZoneServer

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def block(language: str, containing: str) -> str:
    (found,) = (text for name, text in BLOCKS if name == language and containing in text)
    return found


def test_first_dag_is_a_dag(monkeypatch: pytest.MonkeyPatch):
    names: dict[str, object] = {}
    exec(compile(block("python", "describe_orders"), "README.md", "exec"), names)
    assert names["wait"].dag.task_dict.keys() == {"wait", "show"}
    assert names["wait"].dag.task_dict["show"].upstream_task_ids == {"wait"}


def test_start_example_is_a_dag():
    names: dict[str, object] = {}
    exec(compile(block("python", "enrich_orders"), "README.md", "exec"), names)
    start, accept = names["start"], names["accept"]
    assert accept.upstream_task_ids == {"start"}
    assert {start.aws_conn_id, accept.aws_conn_id} == {"datazone_default"}
    assert (accept.rule, accept.threshold) == ("ALL", 0.8)


def test_batch_example_is_a_dag():
    names: dict[str, object] = {}
    exec(compile(block("python", "describe_catalog"), "README.md", "exec"), names)
    enrich = names["dag"].task_dict["enrich"]
    assert enrich.upstream_task_ids == {"find_assets"}
    assert (enrich.max_failures, enrich.max_concurrent_runs) == (0.1, 50)


def test_testing_example_runs(monkeypatch: pytest.MonkeyPatch):
    started: list[DataZoneServer] = []

    class Dag:
        """Stands for the reader's own DAG: asks what the connection leads to."""

        def test(self, *_: object) -> None:
            started.append(names["datazone"])
            client = started[0].client()
            assert [domain["name"] for domain in client.list_domains()["items"]] == ["local"]

    names: dict[str, object] = {"monkeypatch": monkeypatch, "dag": Dag()}
    exec(compile(block("python", "DataZoneServer()"), "README.md", "exec"), names)
    assert len(started) == 1


def test_policy_names_operations_of_the_service():
    policy = json.loads(block("json", "datazone:GetDomain"))
    operations = botocore.session.get_session().get_service_model("datazone").operation_names
    for action in policy["Statement"][0]["Action"]:
        service, operation = action.split(":")
        assert service == "datazone"
        assert operation in operations


def test_connection_is_json_that_airflow_reads(monkeypatch: pytest.MonkeyPatch):
    from airflow_provider_datazone.hooks.datazone import DataZoneHook

    definition = re.search(r"AIRFLOW_CONN_DATAZONE_DEFAULT='(.*?)'", README, re.DOTALL)[1]
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", definition)
    hook = DataZoneHook("datazone_default")
    assert hook.resolve_domain_identifier() == "dzd_1234abcd5678ef"
    assert hook.resolve_owning_project_identifier() == "5a6b7c8d9e"
    assert hook.region_name == "us-east-1"


def test_tested_versions_are_those_of_the_constraints():
    rows = re.findall(r"^\| (\d\S*) \| ([\d., ]+) \| ([\d.]+).*? \| ([\d.]+).*? \|$", README, re.MULTILINE)
    files = ["airflow-2.11.txt", "airflow-3.0.txt", "airflow-3.x.txt"]
    assert len(rows) == len(files)
    for (airflow, _, amazon, boto3), name in zip(rows, files, strict=True):
        constraints = (REPOSITORY / "constraints" / name).read_text()
        for pin in (
            f"apache-airflow=={airflow}",
            f"apache-airflow-providers-amazon=={amazon}",
            f"boto3=={boto3}",
        ):
            assert re.search(rf"^{re.escape(pin)}\b", constraints, re.MULTILINE), pin
