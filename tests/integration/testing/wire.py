"""Requests to the local DataZone, and the validation of responses against botocore's service model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from moto.core.utils import get_service_model

from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer

NAMES, DESCRIPTIONS, GLOSSARY = (
    "BUSINESS_NAMES",
    "BUSINESS_DESCRIPTIONS",
    "BUSINESS_GLOSSARY_ASSOCIATIONS",
)
OPERATIONS = {
    "AcceptPredictions",
    "CancelMetadataGenerationRun",
    "CreateAsset",
    "CreateAssetRevision",
    "CreateDomain",
    "CreateListingChangeSet",
    "CreateProject",
    "CreateProjectMembership",
    "CreateUserProfile",
    "GetAsset",
    "GetDomain",
    "GetListing",
    "GetMetadataGenerationRun",
    "GetProject",
    "GetUserProfile",
    "ListAssetRevisions",
    "ListDomains",
    "ListMetadataGenerationRuns",
    "ListProjectMemberships",
    "ListProjects",
    "RejectPredictions",
    "Search",
    "StartMetadataGenerationRun",
}
PUBLISHED_ERRORS = {
    "InternalServerException": 500,
    "ThrottlingException": 429,
    "ResourceNotFoundException": 404,
    "AccessDeniedException": 403,
    "UnauthorizedException": 401,
    "ValidationException": 400,
    "ServiceQuotaExceededException": 402,
    "ConflictException": 409,
}
# Before botocore 1.42.30, a filter has only an attribute and a value.
with_operators = pytest.mark.skipif(
    "operator" not in get_service_model("datazone").shape_for("Filter").members,
    reason="this version of botocore has no filter operators",
)
ROLE = "arn:aws:iam::123456789012:role/service-role/AmazonDataZoneDomainExecution"


def violations(shape: Shape, value: Any, path: str = "") -> Iterator[str]:
    """Yield each violation of a shape of the service model in a JSON value."""
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is not a structure"
            return
        yield from (f"{path}.{name}: missing" for name in shape.required_members if name not in value)
        for name, member in value.items():
            if name in shape.members:
                yield from violations(shape.members[name], member, f"{path}.{name}")
            else:
                yield f"{path}.{name}: not in the model"
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            yield f"{path}: {value!r} is not a list"
            return
        yield from out_of_range(shape, len(value), path)
        for index, item in enumerate(value):
            yield from violations(shape.member, item, f"{path}[{index}]")
    elif isinstance(shape, MapShape):
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is not a map"
            return
        yield from out_of_range(shape, len(value), path)
        for key, item in value.items():
            yield from violations(shape.key, key, f"{path} key")
            yield from violations(shape.value, item, f"{path}[{key}]")
    elif shape.type_name == "string":
        if not isinstance(value, str):
            yield f"{path}: {value!r} is not a string"
            return
        enum, pattern = shape.metadata.get("enum"), shape.metadata.get("pattern")
        if enum and value not in enum:
            yield f"{path}: {value!r} is not one of {enum}"
        # Older service models anchor their patterns, and not all of them at the end.
        is_prefix = pattern and pattern.startswith("^") and not pattern.endswith("$")
        match = re.search if is_prefix else re.fullmatch
        if pattern and not match(pattern, value, re.ASCII):
            yield f"{path}: {value!r} does not match {pattern}"
        yield from out_of_range(shape, len(value), path)
    elif shape.type_name == "timestamp":
        if shape.serialization.get("timestampFormat") == "iso8601":
            datetime.fromisoformat(value.replace("Z", "+00:00"))
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            yield f"{path}: {value!r} is not a Unix time"
    elif shape.type_name == "boolean":
        if not isinstance(value, bool):
            yield f"{path}: {value!r} is not a boolean"
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        yield f"{path}: {value!r} is not a number"
    else:
        yield from out_of_range(shape, value, path)


def out_of_range(shape: Shape, size: float, path: str) -> Iterator[str]:
    if not shape.metadata.get("min", size) <= size <= shape.metadata.get("max", size):
        yield f"{path}: {size} is out of range"


def response_violations(operation: OperationModel, response: dict[str, Any]) -> list[str]:
    """Return the violations in a response as received over HTTP."""
    status, body = response["status_code"], json.loads(response["body"] or b"{}")
    if status < 300:
        found = [] if status == operation.http["responseCode"] else [f"status {status}"]
        return found + list(violations(operation.output_shape, body))
    declared = {e.name: e.metadata["error"]["httpStatusCode"] for e in operation.error_shapes}
    code = response["headers"].get("x-amzn-errortype")
    found = [] if declared.get(code) == status else [f"status {status} for {code}, declared: {declared}"]
    return found if isinstance(body.get("message"), str) else [*found, f"no message in {body}"]


class Wire:
    """A boto3 client that records each response before botocore drops members that it does not know."""

    def __init__(self, server: DataZoneServer) -> None:
        self.server = server
        self.client = server.client(config=Config(retries={"total_max_attempts": 1}))
        self.client.meta.events.register("before-parse.datazone", self._record)
        self.responses: list[tuple[OperationModel, dict[str, Any]]] = []

    def _record(self, operation_model: OperationModel, response_dict: dict[str, Any], **_: Any) -> None:
        self.responses.append((operation_model, response_dict))

    @property
    def last(self) -> Any:
        return json.loads(self.responses[-1][1]["body"])

    @property
    def violations(self) -> list[str]:
        return [
            f"{operation.name}: {violation}"
            for operation, response in self.responses
            for violation in response_violations(operation, response)
        ]


def start(wire: Wire, asset: AssetIdentifiers, **kwargs: Any) -> Any:
    request = {
        "domainIdentifier": asset.domain_identifier,
        "owningProjectIdentifier": asset.project_identifier,
        "target": {"type": "ASSET", "identifier": asset.asset_identifier},
        "types": [NAMES, DESCRIPTIONS],
    }
    return wire.client.start_metadata_generation_run(**{**request, **kwargs})


def get(wire: Wire, asset: AssetIdentifiers, run: str, **kwargs: Any) -> Any:
    return wire.client.get_metadata_generation_run(
        domainIdentifier=asset.domain_identifier, identifier=run, **kwargs
    )


def finish(wire: Wire, asset: AssetIdentifiers, run: str) -> Any:
    get(wire, asset, run)
    return get(wire, asset, run)


def error_of(info: pytest.ExceptionInfo[ClientError]) -> tuple[int, str, str]:
    response = info.value.response
    error = response["Error"]
    return response["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"]


def search(wire: Wire, asset: AssetIdentifiers, **kwargs: Any) -> Any:
    return wire.client.search(
        **{"domainIdentifier": asset.domain_identifier, "searchScope": "ASSET", **kwargs}
    )
