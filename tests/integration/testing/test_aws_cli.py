"""The AWS CLI works with the local DataZone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def executable() -> str:
    # The AWS CLI needs a separate environment because it pins botocore.
    path = os.environ.get("DATAZONE_TEST_AWS_CLI") or str(REPOSITORY / ".venvs" / "awscli" / "bin" / "aws")
    if not Path(path).is_file():
        pytest.fail(f"The AWS CLI is not at {path}: `make .venvs/awscli/.installed` builds it")
    return path


class CommandLine:
    """Runs ``aws datazone`` with the server's endpoint, isolated from the environment of this process."""

    def __init__(self, executable: str, server: DataZoneServer, home: Path) -> None:
        self.executable = executable
        self.server = server
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def run(self, operation: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.executable, "datazone", operation, "--output", "json"]
        return subprocess.run(
            [*command, "--endpoint-url", self.server.endpoint_url, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def __call__(self, operation: str, *arguments: str) -> Any:
        completed = self.run(operation, *arguments)
        assert completed.returncode == 0, completed.stderr
        return json.loads(completed.stdout or "{}")


@pytest.fixture
def server() -> Iterator[DataZoneServer]:
    with DataZoneServer() as server:
        yield server


@pytest.fixture
def aws(executable: str, server: DataZoneServer, tmp_path: Path) -> CommandLine:
    return CommandLine(executable, server, tmp_path)


@pytest.fixture
def asset(server: DataZoneServer) -> AssetIdentifiers:
    return server.create_asset()


def start(aws: CommandLine, asset: AssetIdentifiers, *types: str) -> Any:
    return aws(
        "start-metadata-generation-run",
        "--domain-identifier",
        asset.domain_identifier,
        "--owning-project-identifier",
        asset.project_identifier,
        "--target",
        f"type=ASSET,identifier={asset.asset_identifier}",
        "--types",
        *types,
    )


def of(identifier: str, asset: AssetIdentifiers) -> list[str]:
    return ["--domain-identifier", asset.domain_identifier, "--identifier", identifier]


def test_cli_starts_gets_and_lists_a_run(
    aws: CommandLine, server: DataZoneServer, asset: AssetIdentifiers
) -> None:
    message = "business name generation has reached monthly quota"
    server.set_run_outcome(
        statuses={"BUSINESS_NAMES": "FAILED"}, error_messages={"BUSINESS_NAMES": message}, polls=1
    )
    started = start(aws, asset, "BUSINESS_NAMES", "BUSINESS_DESCRIPTIONS")
    assert started["status"] == "SUBMITTED"
    run = aws("get-metadata-generation-run", *of(started["id"], asset))
    assert run["status"] == "PARTIALLY_SUCCEEDED"
    assert run["typeStats"] == [
        {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": message},
        {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
    ]
    of_domain = ["--domain-identifier", asset.domain_identifier]
    listed = aws("list-metadata-generation-runs", *of_domain, "--status", "PARTIALLY_SUCCEEDED")
    assert [item["id"] for item in listed["items"]] == [started["id"]]


def test_cli_lists_every_page(aws: CommandLine, asset: AssetIdentifiers) -> None:
    runs = [start(aws, asset, "BUSINESS_NAMES")["id"] for _ in range(3)]
    of_domain = ["--domain-identifier", asset.domain_identifier]
    listed = aws("list-metadata-generation-runs", *of_domain, "--page-size", "2")
    assert [item["id"] for item in listed["items"]] == runs


def test_cli_searches_assets_page_by_page(
    aws: CommandLine, server: DataZoneServer, asset: AssetIdentifiers
) -> None:
    of_domain, of_project = asset.domain_identifier, asset.project_identifier
    for name, description in (("customers", "Who ordered"), ("returns", None)):
        server.create_asset(
            name, description=description, domain_identifier=of_domain, project_identifier=of_project
        )
    everything = ["--domain-identifier", of_domain, "--search-scope", "ASSET"]
    listed = aws("search", *everything, "--page-size", "2", "--sort", "attribute=name,order=DESCENDING")
    assert [item["assetItem"]["name"] for item in listed["items"]] == ["returns", "orders", "customers"]
    named = json.dumps({"filter": {"attribute": "name", "value": "orders"}})
    found = aws("search", *everything, "--filters", named, "--additional-attributes", "FORMS")
    (item,) = [item["assetItem"] for item in found["items"]]
    assert item["identifier"] == asset.asset_identifier
    assert [form["formName"] for form in item["additionalAttributes"]["formsOutput"]] == ["GlueTableForm"]
    found = aws("search", *everything, "--search-text", "order", "--owning-project-identifier", of_project)
    assert [item["assetItem"].get("description") for item in found["items"]] == [None, "Who ordered"]


def test_cli_cancels_a_run_once(aws: CommandLine, asset: AssetIdentifiers) -> None:
    run = start(aws, asset, "BUSINESS_NAMES")["id"]
    assert aws("cancel-metadata-generation-run", *of(run, asset)) == {}
    assert aws("get-metadata-generation-run", *of(run, asset))["status"] == "CANCELED"
    second = aws.run("cancel-metadata-generation-run", *of(run, asset))
    assert second.returncode != 0
    assert "ValidationException" in second.stderr
    assert "The MetadataGenerationRun in CANCELED status cannot be canceled." in second.stderr


def test_cli_accepts_and_rejects_predictions(
    aws: CommandLine, server: DataZoneServer, asset: AssetIdentifiers
) -> None:
    server.set_run_outcome(polls=0)
    start(aws, asset, "BUSINESS_DESCRIPTIONS")
    of_asset = of(asset.asset_identifier, asset)
    accepted = aws("accept-predictions", *of_asset, "--accept-rule", "rule=ALL,threshold=0.8")
    assert accepted == {
        "domainId": asset.domain_identifier,
        "assetId": asset.asset_identifier,
        "revision": "2",
    }
    choices = json.dumps([{"predictionTarget": "columns[0].columnDescription"}])
    rejected = aws("reject-predictions", *of_asset, "--reject-choices", choices)
    assert rejected == {
        "domainId": asset.domain_identifier,
        "assetId": asset.asset_identifier,
        "assetRevision": "2",
    }
