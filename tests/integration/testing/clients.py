"""Clients for the local DataZone: boto3, and plain HTTP for its controls."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from botocore.config import Config

from airflow_provider_datazone.testing import (
    AssetIdentifiers,
    DataZoneControls,
)

NAMES, DESCRIPTIONS = "BUSINESS_NAMES", "BUSINESS_DESCRIPTIONS"


def client_without_retries(datazone: DataZoneControls) -> Any:
    """Return a client without retries and with a short read timeout."""
    return datazone.client(config=Config(retries={"total_max_attempts": 1}, read_timeout=0.5))


class Runs:
    """Reads and writes the runs of an asset through boto3."""

    def __init__(self, datazone: DataZoneControls, asset: AssetIdentifiers | None = None) -> None:
        self.asset = asset or datazone.create_asset()
        self.client = datazone.client()

    def start(self, *types: str, **kwargs: Any) -> str:
        response = self.client.start_metadata_generation_run(
            domainIdentifier=self.asset.domain_identifier,
            owningProjectIdentifier=self.asset.project_identifier,
            target={"type": "ASSET", "identifier": self.asset.asset_identifier},
            types=list(types) or [NAMES, DESCRIPTIONS],
            **kwargs,
        )
        return str(response["id"])

    def get(self, run: str, **kwargs: Any) -> Any:
        return self.client.get_metadata_generation_run(
            domainIdentifier=self.asset.domain_identifier, identifier=run, **kwargs
        )

    def status(self, run: str) -> str:
        return str(self.get(run)["status"])

    def statuses(self, run: str, times: int) -> list[str]:
        return [self.status(run) for _ in range(times)]

    def stats(self, run: str) -> dict[str, str]:
        return {stat["type"]: stat["status"] for stat in self.get(run)["typeStats"]}

    def list(self, **kwargs: Any) -> list[Any]:
        paginator = self.client.get_paginator("list_metadata_generation_runs")
        pages = paginator.paginate(domainIdentifier=self.asset.domain_identifier, **kwargs)
        return [item for page in pages for item in page["items"]]

    def cancel(self, run: str) -> None:
        self.client.cancel_metadata_generation_run(
            domainIdentifier=self.asset.domain_identifier, identifier=run
        )

    def finish(self, *types: str) -> str:
        run = self.start(*types)
        self.statuses(run, 2)
        return run

    @property
    def of_asset(self) -> dict[str, str]:
        return {
            "domainIdentifier": self.asset.domain_identifier,
            "identifier": self.asset.asset_identifier,
        }

    @property
    def forms(self) -> dict[str, Any]:
        forms = self.client.get_asset(**self.of_asset)["formsOutput"]
        return {form["formName"]: json.loads(form["content"]) for form in forms}

    @property
    def suggestions(self) -> dict[str, Any]:
        forms = self.client.get_asset(**self.of_asset)["readOnlyFormsOutput"]
        entries = json.loads(forms[0]["content"])["fieldSuggestions"] if forms else []
        return {entry["fieldPath"]: entry["suggestions"] for entry in entries}


def post(url: str, body: bytes | None, method: str = "POST") -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, body, method=method)
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        assert response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(response.read())
