"""The AWS CLI works with the local DataZone from a command line: its shorthand syntax, and its pages."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer
from tests.clients.clients import AWSCLI_PYTHON, environment
from tests.integration.testing.wire import DESCRIPTIONS, NAMES

Command = Callable[..., Any]


@pytest.fixture
def aws(datazone_server: DataZoneServer, tmp_path: Path) -> Command:
    """Return a function that runs `aws datazone` with an empty local DataZone."""
    datazone_server.reset()

    def run(*arguments: str) -> Any:
        completed = subprocess.run(
            [AWSCLI_PYTHON.with_name("aws"), "datazone", *arguments, "--output", "json"],
            env=environment(datazone_server.endpoint_url, tmp_path),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert completed.returncode == 0, completed.stderr
        return json.loads(completed.stdout)

    return run


def start(aws: Command, asset: AssetIdentifiers, *types: str) -> str:
    run = aws(
        *("start-metadata-generation-run", "--domain-identifier", asset.domain_identifier),
        *("--owning-project-identifier", asset.project_identifier),
        *("--target", f"type=ASSET,identifier={asset.asset_identifier}", "--types", *types),
    )
    return str(run["id"])


def test_shorthand_starts_a_run_and_accepts_its_predictions(
    aws: Command, datazone_server: DataZoneServer
) -> None:
    asset = datazone_server.create_asset()
    message = "business name generation has reached monthly quota"
    datazone_server.set_run_outcome(statuses={NAMES: "FAILED"}, error_messages={NAMES: message}, polls=1)
    run = start(aws, asset, NAMES, DESCRIPTIONS)
    in_domain = ("--domain-identifier", asset.domain_identifier)
    ended = aws("get-metadata-generation-run", *in_domain, "--identifier", run)
    assert ended["typeStats"] == [
        {"type": NAMES, "status": "FAILED", "errorMessage": message},
        {"type": DESCRIPTIONS, "status": "SUCCEEDED"},
    ]
    of_asset = (*in_domain, "--identifier", asset.asset_identifier)
    accepted = aws("accept-predictions", *of_asset, "--accept-rule", "rule=ALL,threshold=0.8")
    assert accepted["revision"] == "2"


def test_page_size_lists_every_run(aws: Command, datazone_server: DataZoneServer) -> None:
    asset = datazone_server.create_asset()
    runs = [start(aws, asset, NAMES) for _ in range(3)]
    in_domain = ("--domain-identifier", asset.domain_identifier)
    listed = aws("list-metadata-generation-runs", *in_domain, "--page-size", "2")
    assert [item["id"] for item in listed["items"]] == runs
    assert datazone_server.request_counts["ListMetadataGenerationRuns"] == 2


def test_page_size_finds_every_asset_in_the_order_of_a_shorthand(
    aws: Command, datazone_server: DataZoneServer
) -> None:
    asset = datazone_server.create_asset()
    for name in ("customers", "returns"):
        datazone_server.create_asset(
            name, domain_identifier=asset.domain_identifier, project_identifier=asset.project_identifier
        )
    found = aws(
        *("search", "--domain-identifier", asset.domain_identifier, "--search-scope", "ASSET"),
        *("--page-size", "2", "--sort", "attribute=name,order=DESCENDING"),
    )
    assert [item["assetItem"]["name"] for item in found["items"]] == ["returns", "orders", "customers"]
    assert datazone_server.request_counts["Search"] == 2
