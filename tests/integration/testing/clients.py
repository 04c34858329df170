"""Clients for the local DataZone: boto3, and plain HTTP for its controls."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import boto3
from botocore.config import Config

from airflow_provider_datazone.testing import (
    AssetIdentifiers,
    DataZoneControls,
)

# A request that is signed for DataZone; the signature is wrong.
SIGNED = {
    "Authorization": (
        "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/datazone/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=0"
    )
}
NAMES, DESCRIPTIONS = "BUSINESS_NAMES", "BUSINESS_DESCRIPTIONS"


def client_without_retries(datazone: DataZoneControls, *, read_timeout: float = 60.0) -> Any:
    """Return a client without retries. A busy machine may need seconds for a response."""
    return datazone.client(config=Config(retries={"total_max_attempts": 1}, read_timeout=read_timeout))


def signed_client(
    datazone: DataZoneControls,
    access_key_id: str = "testing",
    secret_access_key: str = "testing",
    session_token: str | None = None,
    *,
    service: str = "datazone",
) -> Any:
    """Return a client that signs its requests with an access key."""
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=datazone.endpoint_url,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        aws_session_token=session_token,
    )


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
