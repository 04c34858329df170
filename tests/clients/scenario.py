"""A scenario that calls every operation of the local DataZone, for any client."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.integration.testing.wire import DESCRIPTIONS, NAMES, ROLE

T = TypeVar("T")
NOT_FOUND, INVALID = "ResourceNotFoundException", "ValidationException"
DENIED, CONFLICT = "AccessDeniedException", "ConflictException"
UNKNOWN_DOMAIN = "dzd-unknown"
UNKNOWN = "unknown"
# Text that a client or the server would change if one of them used another encoding.
TEXT = "Größe & 注文 🙂"


@dataclass(frozen=True)
class Call:
    """
    A request, and the error that it must fail with.

    :param error: the name of the error. None if the request must succeed
    """

    operation: str
    members: dict[str, Any]
    error: str | None = None


# A script yields calls, and receives the output of each. The output of a call that must fail is empty.
Script = Generator[Call, dict[str, Any], T]


@dataclass(frozen=True)
class Catalog:
    """A domain with one asset."""

    domain: str
    project: str
    asset: str

    @property
    def in_domain(self) -> dict[str, Any]:
        return {"domainIdentifier": self.domain}

    @property
    def of_asset(self) -> dict[str, Any]:
        return {**self.in_domain, "identifier": self.asset}

    def run_of(self, *types: str) -> dict[str, Any]:
        return {
            **self.in_domain,
            "owningProjectIdentifier": self.project,
            "target": {"type": "ASSET", "identifier": self.asset},
            "types": list(types),
        }


def call(operation: str, **members: Any) -> Call:
    return Call(operation, members)


def failing_call(error: str, operation: str, **members: Any) -> Call:
    return Call(operation, members, error)


def list_pages(operation: str, **members: Any) -> Script[list[Any]]:
    """Yield the calls for all pages of a list, with one item per page, and return the items."""
    items: list[Any] = []
    members = {**members, "maxResults": 1}
    token: dict[str, str] = {}
    while True:
        page = yield call(operation, **members, **token)
        assert len(page["items"]) <= 1
        items += page["items"]
        if "nextToken" not in page:
            return items
        token = {"nextToken": page["nextToken"]}


def scenario() -> Script[None]:
    catalog = yield from create_catalog()
    for part in PARTS:
        yield from part(catalog)


def create_catalog() -> Script[Catalog]:
    domain = yield call(
        "CreateDomain", name="shop", description=TEXT, domainExecutionRole=ROLE, tags={"team": "data"}
    )
    other_domain = yield call("CreateDomain", name="other", domainExecutionRole=ROLE)
    yield failing_call(NOT_FOUND, "GetDomain", identifier=UNKNOWN_DOMAIN)
    same_domain = yield call("GetDomain", identifier=domain["id"])
    assert (same_domain["description"], same_domain["tags"]) == (TEXT, {"team": "data"})
    listed = yield from list_pages("ListDomains", status="AVAILABLE")
    assert [item["id"] for item in listed] == [domain["id"], other_domain["id"]]

    in_domain = {"domainIdentifier": domain["id"]}
    project = yield call("CreateProject", **in_domain, name="sales")
    yield failing_call(NOT_FOUND, "CreateProject", domainIdentifier=UNKNOWN_DOMAIN, name="x")
    same_project = yield call("GetProject", **in_domain, identifier=project["id"])
    assert same_project["name"] == "sales"
    yield failing_call(NOT_FOUND, "GetProject", **in_domain, identifier=UNKNOWN)

    new_asset = {
        **in_domain,
        "owningProjectIdentifier": project["id"],
        "name": "orders",
        "typeIdentifier": "amazon.datazone.GlueTableAssetType",
    }
    columns = [{"columnName": name, "dataType": "string"} for name in ("order_id", "amount")]
    form = {
        "formName": "GlueTableForm",
        "typeIdentifier": "amazon.datazone.GlueTableFormType",
        "content": json.dumps({"columns": columns, "tableDescription": TEXT}, ensure_ascii=False),
    }
    asset = yield call("CreateAsset", **new_asset, description=TEXT, formsInput=[form])
    unknown_project = {**new_asset, "owningProjectIdentifier": UNKNOWN}
    yield failing_call(NOT_FOUND, "CreateAsset", **unknown_project)
    same_asset = yield call("GetAsset", **in_domain, identifier=asset["id"], revision="1")
    assert same_asset["formsOutput"][0]["content"] == form["content"]
    yield failing_call(NOT_FOUND, "GetAsset", **in_domain, identifier=UNKNOWN)
    return Catalog(domain["id"], project["id"], asset["id"])


def generate_metadata(catalog: Catalog) -> Script[None]:
    in_domain = catalog.in_domain
    started = yield call("StartMetadataGenerationRun", **catalog.run_of(NAMES, DESCRIPTIONS), clientToken="1")
    again = yield call("StartMetadataGenerationRun", **catalog.run_of(NAMES, DESCRIPTIONS), clientToken="1")
    assert (again["id"], again["status"]) == (started["id"], "SUBMITTED")
    of_run = {**in_domain, "identifier": started["id"]}
    listed = yield from list_pages(
        "ListMetadataGenerationRuns", **in_domain, targetIdentifier=catalog.asset, status="SUBMITTED"
    )
    assert [item["id"] for item in listed] == [started["id"]]
    run = yield call("GetMetadataGenerationRun", **of_run)
    assert run["status"] == "SUCCEEDED"
    assert run["typeStats"] == [{"type": t, "status": "SUCCEEDED"} for t in (NAMES, DESCRIPTIONS)]
    run = yield call("GetMetadataGenerationRun", **of_run, type=NAMES)
    assert [stat["type"] for stat in run["typeStats"]] == [NAMES]
    yield failing_call(NOT_FOUND, "GetMetadataGenerationRun", **in_domain, identifier=UNKNOWN)

    other = yield call("StartMetadataGenerationRun", **catalog.run_of(NAMES))
    yield call("CancelMetadataGenerationRun", **in_domain, identifier=other["id"])
    yield failing_call(INVALID, "CancelMetadataGenerationRun", **in_domain, identifier=other["id"])
    listed = yield from list_pages("ListMetadataGenerationRuns", **in_domain)
    assert [item["status"] for item in listed] == ["SUCCEEDED", "CANCELED"]
    yield failing_call(INVALID, "ListMetadataGenerationRuns", **in_domain, nextToken="nonsense")

    project = yield call("CreateProject", **in_domain, name="another project")
    not_owner = {**catalog.run_of(NAMES), "owningProjectIdentifier": project["id"]}
    yield failing_call(DENIED, "StartMetadataGenerationRun", **not_owner)


def review_predictions(catalog: Catalog) -> Script[None]:
    of_asset = catalog.of_asset
    asset = yield call("GetAsset", **of_asset)
    (form,) = asset["readOnlyFormsOutput"]
    suggestions = json.loads(form["content"])["fieldSuggestions"]
    assert len(suggestions) == 6
    for threshold in (-0.5, 1.5):
        rule = {"rule": "ALL", "threshold": threshold}
        yield failing_call(INVALID, "AcceptPredictions", **of_asset, acceptRule=rule)
        yield failing_call(INVALID, "RejectPredictions", **of_asset, rejectRule=rule)
    edited = {"predictionTarget": "summary", "editedValue": TEXT}
    accepted = yield call("AcceptPredictions", **of_asset, acceptChoices=[edited], clientToken="accept")
    assert accepted["revision"] == "2"
    rule = {"rule": "ALL", "threshold": 0.75}
    yield failing_call(CONFLICT, "AcceptPredictions", **of_asset, revision="1", acceptRule=rule)
    accepted = yield call("AcceptPredictions", **of_asset, acceptRule=rule, revision="2")
    assert accepted["revision"] == "3"
    choice = {"predictionTarget": "columns[0].columnName", "predictionChoices": [0, 1]}
    yield call("RejectPredictions", **of_asset, rejectChoices=[choice])
    yield failing_call(INVALID, "RejectPredictions", **of_asset, rejectChoices=[choice])
    rejected = yield call("RejectPredictions", **of_asset, rejectRule={"rule": "ALL", "threshold": 0})
    assert rejected["assetRevision"] == "3"
    yield failing_call(NOT_FOUND, "AcceptPredictions", **of_asset, acceptRule=rule)
    asset = yield call("GetAsset", **of_asset)
    assert (asset["name"], asset["readOnlyFormsOutput"]) == ("Orders", [])


def publish(catalog: Catalog) -> Script[None]:
    in_domain = catalog.in_domain
    entity = {**in_domain, "entityIdentifier": catalog.asset, "entityType": "ASSET"}
    change_set = "CreateListingChangeSet"
    yield failing_call(NOT_FOUND, change_set, **entity, action="UNPUBLISH")
    published = yield call(change_set, **entity, action="PUBLISH", clientToken="publish")
    of_listing = {**in_domain, "identifier": published["listingId"]}
    listing = yield call("GetListing", **of_listing)
    assert (listing["status"], listing["item"]["assetListing"]["assetId"]) == ("ACTIVE", catalog.asset)
    yield failing_call(NOT_FOUND, "GetListing", **in_domain, identifier=UNKNOWN)
    asset = yield call("GetAsset", **catalog.of_asset)
    assert asset["listing"] == {"listingId": published["listingId"], "listingStatus": "ACTIVE"}
    outdated = {**entity, "action": "PUBLISH", "entityRevision": "1"}
    yield failing_call(INVALID, change_set, **outdated)
    unpublished = yield call(change_set, **entity, action="UNPUBLISH")
    assert unpublished["status"] == "INACTIVE"


def search(catalog: Catalog) -> Script[None]:
    in_domain = {**catalog.in_domain, "searchScope": "ASSET"}
    filters = {
        "and": [
            {"filter": {"attribute": "owningProjectId", "value": catalog.project}},
            {"or": [{"filter": {"attribute": "name", "value": name}} for name in ("Orders", "returns")]},
        ]
    }
    found = yield call(
        "Search",
        **in_domain,
        searchText=TEXT.split()[0],
        searchIn=[{"attribute": "description"}],
        filters=filters,
        sort={"attribute": "name", "order": "DESCENDING"},
        additionalAttributes=["FORMS"],
    )
    (item,) = found["items"]
    assert (item["assetItem"]["identifier"], found["totalMatchCount"]) == (catalog.asset, 1)
    assert item["assetItem"]["additionalAttributes"]["formsOutput"]
    elsewhere = {**in_domain, "domainIdentifier": UNKNOWN_DOMAIN}
    yield failing_call(DENIED, "Search", **elsewhere)
    both = {"filter": {"attribute": "name", "value": "x", "intValue": 1}}
    yield failing_call(INVALID, "Search", **in_domain, filters=both)


def list_projects(catalog: Catalog) -> Script[None]:
    in_domain = catalog.in_domain
    listed = yield from list_pages("ListProjects", **in_domain)
    # generate_metadata creates the other project.
    assert {item["name"] for item in listed} == {"sales", "another project"}
    named = yield call("ListProjects", **in_domain, name="sales")
    assert [item["id"] for item in named["items"]] == [catalog.project]
    yield failing_call(INVALID, "ListProjects", **in_domain, maxResults=51)


def revise_asset(catalog: Catalog) -> Script[None]:
    before = yield call("GetAsset", **catalog.of_asset)
    form = {
        "formName": "GlueTableForm",
        "typeIdentifier": "amazon.datazone.GlueTableFormType",
        "content": json.dumps({"columns": [{"columnName": "order_id", "dataType": "bigint"}]}),
    }
    revised = yield call(
        "CreateAssetRevision", **catalog.of_asset, name="orders", description=TEXT, formsInput=[form]
    )
    assert (revised["id"], int(revised["revision"])) == (catalog.asset, int(before["revision"]) + 1)
    listed = yield from list_pages("ListAssetRevisions", **catalog.of_asset)
    expected = {str(number) for number in range(1, int(revised["revision"]) + 1)}
    assert {item["revision"] for item in listed} == expected
    unknown = {**catalog.in_domain, "identifier": UNKNOWN}
    yield failing_call(NOT_FOUND, "CreateAssetRevision", **unknown, name="orders")
    yield failing_call(NOT_FOUND, "ListAssetRevisions", **unknown)


def add_members(catalog: Catalog) -> Script[None]:
    in_domain = catalog.in_domain
    created = yield call("CreateUserProfile", **in_domain, userIdentifier=ROLE, userType="IAM_ROLE")
    profile = yield call("GetUserProfile", **in_domain, userIdentifier=created["id"])
    assert profile["details"]["iam"]["arn"] == ROLE
    # The ARN contains slashes, which clients encode in the path of the URL.
    same_profile = yield call("GetUserProfile", **in_domain, userIdentifier=ROLE, type="IAM")
    assert same_profile["id"] == created["id"]
    unknown_role = {**in_domain, "userIdentifier": f"{ROLE}-unknown", "type": "IAM"}
    yield failing_call(NOT_FOUND, "GetUserProfile", **unknown_role)

    in_project = {**in_domain, "projectIdentifier": catalog.project}
    member = {"member": {"userIdentifier": created["id"]}, "designation": "PROJECT_CONTRIBUTOR"}
    yield call("CreateProjectMembership", **in_project, **member)
    listed = yield call("ListProjectMemberships", **in_project)
    designations = {
        item["memberDetails"]["user"]["userId"]: item["designation"] for item in listed["members"]
    }
    assert designations[created["id"]] == "PROJECT_CONTRIBUTOR"
    in_unknown = {**in_domain, "projectIdentifier": UNKNOWN}
    yield failing_call(NOT_FOUND, "CreateProjectMembership", **in_unknown, **member)
    yield failing_call(NOT_FOUND, "ListProjectMemberships", **in_unknown)


Part = Callable[[Catalog], Script[None]]
PARTS: list[Part] = [
    generate_metadata,
    review_predictions,
    publish,
    search,
    list_projects,
    revise_asset,
    add_members,
]
