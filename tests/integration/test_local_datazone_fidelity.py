"""The local DataZone answers as botocore's service model and the documented samples say."""

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
    "CreateDomain",
    "CreateListingChangeSet",
    "CreateProject",
    "GetAsset",
    "GetDomain",
    "GetMetadataGenerationRun",
    "GetProject",
    "ListDomains",
    "ListMetadataGenerationRuns",
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
# Before botocore 1.42.30 a filter has an attribute and a value, and no more.
with_operators = pytest.mark.skipif(
    "operator" not in get_service_model("datazone").shape_for("Filter").members,
    reason="botocore has no operators yet",
)
ROLE = "arn:aws:iam::123456789012:role/service-role/AmazonDataZoneDomainExecution"


def violations(shape: Shape, value: Any, path: str = "") -> Iterator[str]:
    """Every way in which a JSON value does not follow a shape of the service model."""
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no structure"
            return
        yield from (f"{path}.{name}: missing" for name in shape.required_members if name not in value)
        for name, member in value.items():
            if name in shape.members:
                yield from violations(shape.members[name], member, f"{path}.{name}")
            else:
                yield f"{path}.{name}: not in the model"
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
            return
        yield from out_of_range(shape, len(value), path)
        for index, item in enumerate(value):
            yield from violations(shape.member, item, f"{path}[{index}]")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from violations(shape.key, key, f"{path} key")
            yield from violations(shape.value, item, f"{path}[{key}]")
    elif shape.type_name == "string":
        if not isinstance(value, str):
            yield f"{path}: {value!r} is no string"
            return
        enum, pattern = shape.metadata.get("enum"), shape.metadata.get("pattern")
        if enum and value not in enum:
            yield f"{path}: {value!r} is not one of {enum}"
        if pattern and not re.fullmatch(pattern, value):
            yield f"{path}: {value!r} does not match {pattern}"
        yield from out_of_range(shape, len(value), path)
    elif shape.type_name == "timestamp":
        if shape.serialization.get("timestampFormat") == "iso8601":
            datetime.fromisoformat(value.replace("Z", "+00:00"))
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            yield f"{path}: {value!r} is no Unix time"
    elif shape.type_name == "boolean":
        if not isinstance(value, bool):
            yield f"{path}: {value!r} is no boolean"
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        yield f"{path}: {value!r} is no number"
    else:
        yield from out_of_range(shape, value, path)


def out_of_range(shape: Shape, size: float, path: str) -> Iterator[str]:
    if not shape.metadata.get("min", size) <= size <= shape.metadata.get("max", size):
        yield f"{path}: {size} is out of range"


def answer_violations(operation: OperationModel, answer: dict[str, Any]) -> list[str]:
    """What is wrong with an answer as it came over the wire."""
    status, body = answer["status_code"], json.loads(answer["body"] or b"{}")
    if status < 300:
        wrong = [] if status == operation.http["responseCode"] else [f"status {status}"]
        return wrong + list(violations(operation.output_shape, body))
    declared = {e.name: e.metadata["error"]["httpStatusCode"] for e in operation.error_shapes}
    code = answer["headers"].get("x-amzn-errortype")
    wrong = [] if declared.get(code) == status else [f"status {status} for {code}, declared: {declared}"]
    return wrong if isinstance(body.get("message"), str) else [*wrong, f"no message in {body}"]


class Wire:
    """A boto3 client that keeps what came over the wire, before botocore drops what it does not know."""

    def __init__(self, server: DataZoneServer) -> None:
        self.server = server
        self.client = server.client(config=Config(retries={"total_max_attempts": 1}))
        self.client.meta.events.register("before-parse.datazone", self._keep)
        self.answers: list[tuple[OperationModel, dict[str, Any]]] = []

    def _keep(self, operation_model: OperationModel, response_dict: dict[str, Any], **_: Any) -> None:
        self.answers.append((operation_model, response_dict))

    @property
    def last(self) -> Any:
        return json.loads(self.answers[-1][1]["body"])

    @property
    def wrong(self) -> list[str]:
        return [
            f"{operation.name}: {what}"
            for operation, answer in self.answers
            for what in answer_violations(operation, answer)
        ]


@pytest.fixture(autouse=True)
def _no_aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DATAZONE", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with DataZoneServer() as server:
        wire = Wire(server)
        yield wire
        assert wire.wrong == []


@pytest.fixture
def asset(wire: Wire) -> AssetIdentifiers:
    return wire.server.create_asset()


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


def test_every_answer_of_every_operation_follows_the_service_model(wire: Wire) -> None:
    client = wire.client
    domain = client.create_domain(
        name="all of it",
        description="every member",
        domainExecutionRole=ROLE,
        serviceRole=ROLE,
        domainVersion="V2",
        singleSignOn={"type": "IAM_IDC", "userAssignment": "AUTOMATIC"},
        tags={"team": "data"},
        kmsKeyIdentifier="arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012",
    )["id"]
    client.create_domain(name="the least", domainExecutionRole=ROLE)
    client.get_domain(identifier=domain)
    token = client.list_domains(maxResults=1, status="AVAILABLE")["nextToken"]
    assert "nextToken" not in client.list_domains(nextToken=token)
    project = client.create_project(domainIdentifier=domain, name="sales", description="Who sells")["id"]
    client.get_project(domainIdentifier=domain, identifier=project)
    form = {
        "formName": "GlueTableForm",
        "typeIdentifier": "amazon.datazone.GlueTableFormType",
        "typeRevision": "7",
        "content": json.dumps({"columns": [{"columnName": "id", "dataType": "bigint"}]}),
    }
    asset = client.create_asset(
        domainIdentifier=domain,
        owningProjectIdentifier=project,
        name="orders",
        description="What was ordered",
        typeIdentifier="amazon.datazone.GlueTableAssetType",
        typeRevision="3",
        externalIdentifier="arn:aws:glue:us-east-1:123456789012:table/shop/orders",
        glossaryTerms=["term1"],
        formsInput=[form],
    )["id"]
    where = AssetIdentifiers(domain, project, asset)
    of_asset = {"domainIdentifier": domain, "identifier": asset}
    client.get_asset(**of_asset)
    wire.server.set_run_outcome(
        statuses={NAMES: "FAILED"},
        error_messages={NAMES: "business name generation has reached monthly quota"},
    )
    target = {"type": "ASSET", "identifier": asset, "revision": "1"}
    run = start(wire, where, types=[NAMES, DESCRIPTIONS], target=target)["id"]
    for _ in range(3):
        get(wire, where, run)
    get(wire, where, run, type=NAMES)
    other = start(wire, where, types=[NAMES])["id"]
    client.list_metadata_generation_runs(domainIdentifier=domain, maxResults=1)
    client.cancel_metadata_generation_run(domainIdentifier=domain, identifier=other)
    get(wire, where, other)
    client.list_metadata_generation_runs(domainIdentifier=domain)
    client.get_asset(**of_asset)
    choice = {"predictionTarget": "columns[0].columnDescription", "editedValue": "The order's number"}
    assert client.accept_predictions(**of_asset, acceptChoices=[choice])["revision"] == "2"
    client.reject_predictions(**of_asset, rejectRule={"rule": "ALL", "threshold": 0.5})
    client.create_listing_change_set(
        domainIdentifier=domain,
        entityIdentifier=asset,
        entityType="ASSET",
        entityRevision="2",
        action="PUBLISH",
    )
    client.get_asset(**of_asset)
    client.get_asset(**of_asset, revision="1")
    start(wire, where, types=[DESCRIPTIONS])
    client.create_asset(
        domainIdentifier=domain,
        owningProjectIdentifier=project,
        name="the least",
        typeIdentifier="amazon.datazone.GlueTableAssetType",
    )
    search = {"domainIdentifier": domain, "searchScope": "ASSET"}
    everything = ["FORMS", "TIME_SERIES_DATA_POINT_FORMS", "TEXT_MATCH_RATIONALE"]
    token = client.search(**search, additionalAttributes=everything, maxResults=1)["nextToken"]
    client.search(**search, nextToken=token)
    client.search(**search, searchText="nothing like it")
    client.search(domainIdentifier=domain, searchScope="GLOSSARY_TERM")
    assert {operation.name for operation, _ in wire.answers} == OPERATIONS
    assert wire.wrong == []


def test_what_does_not_follow_the_service_model_is_noticed() -> None:
    with DataZoneServer() as server:
        wire = Wire(server)
        asset = server.create_asset()
        server.set_run_outcome(asset.asset_identifier, status="PAUSED", polls=1)
        get(wire, asset, start(wire, asset)["id"])
        answered = wire.client.meta.service_model.shape_for("MetadataGenerationRunStatus")
        published = answered.metadata["enum"]
        assert wire.wrong == [f"GetMetadataGenerationRun: .status: 'PAUSED' is not one of {published}"]


def test_start_answers_without_target_and_type_stats(wire: Wire, asset: AssetIdentifiers) -> None:
    start(wire, asset, types=[NAMES, DESCRIPTIONS])
    answer = wire.last
    assert set(answer) == {"domainId", "id", "status", "types", "createdAt", "createdBy", "owningProjectId"}
    assert answer["status"] == "SUBMITTED"
    assert answer["types"] == [NAMES, DESCRIPTIONS]


def test_the_deprecated_type_is_answered_where_there_is_one_type(wire: Wire, asset: AssetIdentifiers) -> None:
    run = start(wire, asset, types=[NAMES])["id"]
    assert wire.last["type"] == NAMES
    get(wire, asset, run)
    assert wire.last["type"] == NAMES


def test_the_deprecated_type_is_still_taken(wire: Wire, asset: AssetIdentifiers) -> None:
    answer = wire.client.start_metadata_generation_run(
        domainIdentifier=asset.domain_identifier,
        owningProjectIdentifier=asset.project_identifier,
        target={"type": "ASSET", "identifier": asset.asset_identifier},
        type=DESCRIPTIONS,
    )
    assert answer["types"] == [DESCRIPTIONS]


def test_sample_failed_run_tells_the_reason_by_type(wire: Wire, asset: AssetIdentifiers) -> None:
    message = "business name generation has reached monthly quota"
    wire.server.set_run_outcome(statuses="FAILED", error_messages={NAMES: message})
    run = start(wire, asset, types=[NAMES])["id"]
    finish(wire, asset, run)
    assert wire.last["status"] == "FAILED"
    assert wire.last["typeStats"] == [{"type": NAMES, "status": "FAILED", "errorMessage": message}]


def test_sample_get_with_a_type_answers_with_that_type_alone(wire: Wire, asset: AssetIdentifiers) -> None:
    run = start(wire, asset)["id"]
    finish(wire, asset, run)
    get(wire, asset, run, type=DESCRIPTIONS)
    assert wire.last["types"] == [NAMES, DESCRIPTIONS]
    assert wire.last["typeStats"] == [{"type": DESCRIPTIONS, "status": "SUCCEEDED"}]


def test_sample_three_types_succeed_though_the_model_says_two() -> None:
    with DataZoneServer() as server:
        wire, asset = Wire(server), server.create_asset()
        run = start(wire, asset, types=[DESCRIPTIONS, NAMES, GLOSSARY])["id"]
        answer = finish(wire, asset, run)
        assert [stat["status"] for stat in answer["typeStats"]] == ["SUCCEEDED"] * 3
        assert set(wire.wrong) == {
            "StartMetadataGenerationRun: .types: 3 is out of range",
            "GetMetadataGenerationRun: .types: 3 is out of range",
        }


def test_sample_list_is_oldest_first_and_without_type_stats(wire: Wire, asset: AssetIdentifiers) -> None:
    runs = [start(wire, asset)["id"] for _ in range(3)]
    wire.client.list_metadata_generation_runs(domainIdentifier=asset.domain_identifier)
    assert [item["id"] for item in wire.last["items"]] == runs
    assert all("typeStats" not in item and item["target"]["type"] == "ASSET" for item in wire.last["items"])


def test_sample_predictions_lie_on_the_asset_by_field_path(wire: Wire, asset: AssetIdentifiers) -> None:
    finish(wire, asset, start(wire, asset, types=[DESCRIPTIONS])["id"])
    wire.client.get_asset(domainIdentifier=asset.domain_identifier, identifier=asset.asset_identifier)
    (form,) = wire.last["readOnlyFormsOutput"]
    assert (form["formName"], form["typeName"]) == ("SuggestionForm", "amazon.datazone.SuggestionFormType")
    assert set(json.loads(form["content"])["fieldSuggestions"]) == {
        "summary",
        "columns[0].columnDescription",
        "columns[1].columnDescription",
    }


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "PARTIALLY_SUCCEEDED", "CANCELED"])
def test_sample_cancel_of_a_finished_run_is_refused(wire: Wire, asset: AssetIdentifiers, status: str) -> None:
    wire.server.set_run_outcome(status=status)
    run = start(wire, asset)["id"]
    finish(wire, asset, run)
    with pytest.raises(ClientError) as info:
        wire.client.cancel_metadata_generation_run(domainIdentifier=asset.domain_identifier, identifier=run)
    message = f"The MetadataGenerationRun in {status} status cannot be canceled."
    assert error_of(info) == (400, "ValidationException", message)


def test_sample_get_of_an_unknown_run(wire: Wire, asset: AssetIdentifiers) -> None:
    with pytest.raises(ClientError) as info:
        get(wire, asset, "nosuchrun")
    message = "Requested prediction cannot be found in domain"
    assert error_of(info) == (404, "ResourceNotFoundException", message)


def test_sample_start_on_an_unknown_asset(wire: Wire, asset: AssetIdentifiers) -> None:
    with pytest.raises(ClientError) as info:
        start(wire, asset, target={"type": "ASSET", "identifier": "nosuchasset"})
    message = "The given Asset doesn't exist. Try creating Asset before accessing it."
    assert error_of(info) == (404, "ResourceNotFoundException", message)


def test_sample_start_on_an_unsupported_asset_type(wire: Wire) -> None:
    asset = wire.server.create_asset(type_identifier="amazon.datazone.S3ObjectCollectionAssetType")
    with pytest.raises(ClientError) as info:
        start(wire, asset)
    message = "Metadata Descriptions Generation is not supported for input asset type"
    assert error_of(info) == (400, "ValidationException", message)


def test_start_for_a_project_that_does_not_own_the_asset_is_denied(
    wire: Wire, asset: AssetIdentifiers
) -> None:
    other = wire.client.create_project(domainIdentifier=asset.domain_identifier, name="other")["id"]
    with pytest.raises(ClientError) as info:
        start(wire, asset, owningProjectIdentifier=other)
    assert error_of(info)[:2] == (403, "AccessDeniedException")


@pytest.mark.parametrize(
    "change", [{"domainIdentifier": "dzd-unknown"}, {"owningProjectIdentifier": "unknown"}]
)
def test_start_in_an_unknown_domain_or_project_is_not_found(
    wire: Wire, asset: AssetIdentifiers, change: dict[str, str]
) -> None:
    with pytest.raises(ClientError) as info:
        start(wire, asset, **change)
    assert error_of(info)[:2] == (404, "ResourceNotFoundException")


def search(wire: Wire, asset: AssetIdentifiers, **kwargs: Any) -> Any:
    return wire.client.search(
        **{"domainIdentifier": asset.domain_identifier, "searchScope": "ASSET", **kwargs}
    )


def test_sample_search_answers_summaries_and_their_count(wire: Wire, asset: AssetIdentifiers) -> None:
    of_domain = {
        "domain_identifier": asset.domain_identifier,
        "project_identifier": asset.project_identifier,
    }
    wire.server.create_asset("blab", **of_domain)
    wire.server.create_asset("other", description="blab", **of_domain)
    search(
        wire,
        asset,
        searchIn=[{"attribute": "name"}],
        searchText='"blab"',
        owningProjectIdentifier=asset.project_identifier,
    )
    (item,) = wire.last["items"]
    assert set(item["assetItem"]) == {
        "createdAt",
        "createdBy",
        "domainId",
        "firstRevisionCreatedAt",
        "firstRevisionCreatedBy",
        "identifier",
        "name",
        "owningProjectId",
        "typeIdentifier",
        "typeRevision",
    }
    assert item["assetItem"]["name"] == "blab"
    assert wire.last["totalMatchCount"] == 1


@with_operators
def test_sample_search_compares_numbers_between_two_bounds(wire: Wire, asset: AssetIdentifiers) -> None:
    form = {"formName": "MyCustomForm", "typeIdentifier": "MyCustomForm"}
    for number in (2, 3, 5):
        wire.client.create_asset(
            domainIdentifier=asset.domain_identifier,
            owningProjectIdentifier=asset.project_identifier,
            name=f"t{number}",
            typeIdentifier="amazon.datazone.S3ObjectCollectionAssetType",
            formsInput=[{**form, "content": json.dumps({"numericAttribute": number})}],
        )
    attribute = "MyCustomForm.numericAttribute"
    bounds = [
        {"filter": {"attribute": attribute, "intValue": 5, "operator": "LT"}},
        {"filter": {"attribute": attribute, "intValue": 2, "operator": "GT"}},
    ]
    search(wire, asset, filters={"and": bounds})
    assert [item["assetItem"]["name"] for item in wire.last["items"]] == ["t3"]


@with_operators
def test_sample_search_looks_for_text_in_two_attributes(wire: Wire, asset: AssetIdentifiers) -> None:
    form = {"formName": "MyCustomForm", "typeIdentifier": "MyCustomForm"}
    for name, content in {
        "both": {"attr1": "a rat", "attr2": "A study, reproductive"},
        "one": {"attr1": "a rat", "attr2": "A study"},
    }.items():
        wire.client.create_asset(
            domainIdentifier=asset.domain_identifier,
            owningProjectIdentifier=asset.project_identifier,
            name=name,
            typeIdentifier="amazon.datazone.S3ObjectCollectionAssetType",
            formsInput=[{**form, "content": json.dumps(content)}],
        )
    clauses = [
        {"filter": {"attribute": "MyCustomForm.attr1", "value": "rat", "operator": "TEXT_SEARCH"}},
        {
            "filter": {
                "attribute": "MyCustomForm.attr2",
                "value": "reproductive study",
                "operator": "TEXT_SEARCH",
            }
        },
    ]
    search(wire, asset, filters={"and": clauses})
    assert [item["assetItem"]["name"] for item in wire.last["items"]] == ["both"]


@with_operators
def test_sample_search_finds_what_was_updated_since(wire: Wire, asset: AssetIdentifiers) -> None:
    created = search(wire, asset)["items"][0]["assetItem"]["createdAt"].timestamp() * 1000
    since = {"attribute": "lastUpdatedAt", "operator": "GE"}
    for milliseconds, count in ((round(created), 1), (round(created) + 1, 0)):
        search(wire, asset, filters={"filter": {**since, "intValue": milliseconds}})
        assert wire.last["totalMatchCount"] == count


ID_PATTERN = "satisfy regular expression pattern: [a-zA-Z0-9_-]{1,36}"
TYPES = f"satisfy enum value set: [{DESCRIPTIONS}, {NAMES}, {GLOSSARY}]"


@pytest.mark.parametrize(
    ("operation", "change", "value", "constraint"),
    [
        ("start", {"types": ["DESCRIPTIONS"]}, "Value 'DESCRIPTIONS' at 'types.1.member'", TYPES),
        ("start", {"types": [NAMES] * 4}, "at 'types'", "have length less than or equal to 3"),
        ("start", {"clientToken": "a b"}, "Value 'a b' at 'clientToken'", r"pattern: [\x21-\x7E]+"),
        ("start", {"clientToken": "x" * 129}, "at 'clientToken'", "have length less than or equal to 128"),
        ("start", {"owningProjectIdentifier": "a b"}, "Value 'a b' at 'owningProjectIdentifier'", ID_PATTERN),
        ("start", {"target": {"type": "X", "identifier": "x"}}, "Value 'X' at 'target.type'", "set: [ASSET]"),
        ("start", {"domainIdentifier": "mine"}, "Value 'mine' at 'domainIdentifier'", "pattern: dzd[-_]"),
        ("get", {"type": "NAMES"}, "Value 'NAMES' at 'type'", TYPES),
        ("get", {"identifier": "a.b"}, "Value 'a.b' at 'identifier'", ID_PATTERN),
        ("list", {"status": "DONE"}, "Value 'DONE' at 'status'", "satisfy enum value set: ["),
        ("list", {"maxResults": 51}, "Value '51' at 'maxResults'", "have value less than or equal to 50"),
        ("accept", {"acceptRule": {"rule": "SOME"}}, "Value 'SOME' at 'acceptRule.rule'", "set: [ALL, NONE]"),
        ("accept", {"acceptRule": {"threshold": 1.5}}, "Value '1.5' at 'acceptRule.threshold'", "equal to 1"),
        ("reject", {"rejectRule": {"threshold": -1}}, "at 'rejectRule.threshold'", "or equal to 0"),
        ("search", {"searchScope": "INVALID"}, "Value 'INVALID' at 'searchScope'", "enum value set: ["),
        ("search", {"maxResults": 51}, "Value '51' at 'maxResults'", "have value less than or equal to 50"),
        ("search", {"searchText": "x" * 513}, "at 'searchText'", "have length less than or equal to 512"),
        ("search", {"sort": {"attribute": "name", "order": "UP"}}, "Value 'UP' at 'sort.order'", "ASCENDING"),
        ("search", {"additionalAttributes": ["X"]}, "at 'additionalAttributes.1.member'", "set: [FORMS, "),
        (
            "search",
            {"filters": {"and": [{"filter": {"attribute": "a", "value": "x" * 129}}]}},
            "at 'filters.and.1.member.filter.value'",
            "have length less than or equal to 128",
        ),
    ],
)
def test_input_that_the_model_forbids_is_a_validation_exception(
    wire: Wire,
    asset: AssetIdentifiers,
    operation: str,
    change: dict[str, Any],
    value: str,
    constraint: str,
) -> None:
    domain = {"domainIdentifier": asset.domain_identifier}
    of_asset = {**domain, "identifier": asset.asset_identifier}
    calls: dict[str, Any] = {
        "start": lambda **kwargs: start(wire, asset, **kwargs),
        "get": lambda **kwargs: wire.client.get_metadata_generation_run(
            **{**domain, "identifier": "x", **kwargs}
        ),
        "list": lambda **kwargs: wire.client.list_metadata_generation_runs(**{**domain, **kwargs}),
        "accept": lambda **kwargs: wire.client.accept_predictions(**of_asset, **kwargs),
        "reject": lambda **kwargs: wire.client.reject_predictions(**of_asset, **kwargs),
        "search": lambda **kwargs: search(wire, asset, **kwargs),
    }
    with pytest.raises(ClientError) as info:
        calls[operation](**change)
    status, code, message = error_of(info)
    # The patterns of older service models have anchors.
    message = message.replace("pattern: ^", "pattern: ")
    assert (status, code) == (400, "ValidationException")
    assert message.startswith("1 validation error detected: ")
    assert f"{value} failed to satisfy constraint: Member must " in message
    assert constraint in message


def test_several_violations_are_told_at_once(wire: Wire, asset: AssetIdentifiers) -> None:
    with pytest.raises(ClientError) as info:
        start(wire, asset, types=["X"], clientToken="a b")
    assert error_of(info)[2].startswith("2 validation errors detected: ")


def test_a_next_token_that_was_never_given_is_a_validation_exception(
    wire: Wire, asset: AssetIdentifiers
) -> None:
    with pytest.raises(ClientError) as info:
        wire.client.list_metadata_generation_runs(
            domainIdentifier=asset.domain_identifier, nextToken="nonsense"
        )
    assert error_of(info) == (400, "ValidationException", "Invalid nextToken")


@pytest.mark.parametrize("operation", ["accept_predictions", "reject_predictions"])
def test_predictions_are_not_decided_on_without_a_rule_or_choices(
    wire: Wire, asset: AssetIdentifiers, operation: str
) -> None:
    with pytest.raises(ClientError) as info:
        getattr(wire.client, operation)(
            domainIdentifier=asset.domain_identifier, identifier=asset.asset_identifier
        )
    message = "A rule or at least one choice is required"
    assert error_of(info) == (400, "ValidationException", message)


def test_start_without_any_type_is_a_validation_exception(wire: Wire, asset: AssetIdentifiers) -> None:
    with pytest.raises(ClientError) as info:
        wire.client.start_metadata_generation_run(
            domainIdentifier=asset.domain_identifier,
            owningProjectIdentifier=asset.project_identifier,
            target={"type": "ASSET", "identifier": asset.asset_identifier},
        )
    assert error_of(info)[:2] == (400, "ValidationException")


def test_an_edited_value_never_stands_in_an_error(wire: Wire, asset: AssetIdentifiers) -> None:
    finish(wire, asset, start(wire, asset)["id"])
    for target, value in (("summary", "confidential" * 500), ("nosuchtarget", "confidential")):
        choice = {"predictionTarget": target, "editedValue": value}
        with pytest.raises(ClientError) as info:
            wire.client.accept_predictions(
                domainIdentifier=asset.domain_identifier,
                identifier=asset.asset_identifier,
                acceptChoices=[choice],
            )
        assert error_of(info)[1] == "ValidationException"
        assert "confidential" not in wire.answers[-1][1]["body"].decode()


@pytest.mark.parametrize("code", sorted(PUBLISHED_ERRORS))
def test_each_error_of_the_service_has_its_published_status(
    wire: Wire, asset: AssetIdentifiers, code: str
) -> None:
    # Start is the one operation that declares them all.
    wire.server.fail("StartMetadataGenerationRun", code, message="as asked for", times=None)
    with pytest.raises(ClientError) as info:
        start(wire, asset)
    assert error_of(info) == (PUBLISHED_ERRORS[code], code, "as asked for")
    assert type(info.value) is getattr(wire.client.exceptions, code)


def test_runs_are_listed_in_pages_of_fifty(wire: Wire, asset: AssetIdentifiers) -> None:
    runs = [start(wire, asset, clientToken=f"run-{number}")["id"] for number in range(101)]
    paginator = wire.client.get_paginator("list_metadata_generation_runs")
    pages = list(paginator.paginate(domainIdentifier=asset.domain_identifier))
    assert [len(page["items"]) for page in pages] == [50, 50, 1]
    assert [item["id"] for page in pages for item in page["items"]] == runs


def test_a_page_that_is_full_and_the_last_has_no_token(wire: Wire, asset: AssetIdentifiers) -> None:
    for _ in range(2):
        start(wire, asset)
    answer = wire.client.list_metadata_generation_runs(domainIdentifier=asset.domain_identifier, maxResults=2)
    assert len(answer["items"]) == 2
    assert "nextToken" not in answer
