"""Projects, their members, and the two authorizations of DataZone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.core.utils import get_service_model
from moto.moto_api import state_manager

from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer
from tests.conftest import REPOSITORY
from tests.integration.testing.clients import signed_client
from tests.integration.testing.wire import Wire, error_of

USER_PROFILE = "datazone::user-profile"
ROLE = "arn:aws:iam::123456789012:role/team/pipeline"
POLICIES = REPOSITORY / "docs" / "examples" / "policies"


def test_response_has_what_the_request_sets(wire: Wire, asset: AssetIdentifiers) -> None:
    in_domain = {"domainIdentifier": asset.domain_identifier}
    wire.client.create_project(
        **in_domain,
        name="sales",
        resourceTags={"team": "data"},
        glossaryTerms=["term1"],
        domainUnitId="unit1",
        projectProfileId="profile1",
    )
    project = wire.last
    wire.client.get_project(**in_domain, identifier=project["id"])
    assert wire.last == project
    assert project["resourceTags"] == [{"key": "team", "value": "data", "source": "PROJECT"}]
    assert project["glossaryTerms"] == ["term1"]
    assert (project["domainUnitId"], project["projectProfileId"]) == ("unit1", "profile1")
    wire.client.create_asset(
        **in_domain,
        owningProjectIdentifier=project["id"],
        name="orders",
        typeIdentifier="amazon.datazone.GlueTableAssetType",
        glossaryTerms=["term1"],
        predictionConfiguration={"businessNameGeneration": {"enabled": True}},
    )
    assert wire.last["glossaryTerms"] == ["term1"]
    assert wire.last["predictionConfiguration"] == {"businessNameGeneration": {"enabled": True}}


def test_projects_are_listed_by_name_and_by_member(wire: Wire, asset: AssetIdentifiers) -> None:
    in_domain = {"domainIdentifier": asset.domain_identifier}
    user = wire.client.create_user_profile(**in_domain, userIdentifier=ROLE)["id"]
    projects = [wire.client.create_project(**in_domain, name=name)["id"] for name in "abc"]
    for project in projects[1:]:
        wire.client.create_project_membership(
            **in_domain,
            projectIdentifier=project,
            member={"userIdentifier": user},
            designation="PROJECT_CONTRIBUTOR",
        )

    def listed(**filters: Any) -> list[str]:
        pages = wire.client.get_paginator("list_projects").paginate(
            **in_domain, **filters, PaginationConfig={"PageSize": 1}
        )
        return [item["id"] for page in pages for item in page["items"]]

    assert listed() == [asset.project_identifier, *projects]
    assert listed(name="b") == projects[1:2]
    assert listed(userIdentifier=user) == projects[1:]
    assert listed(userIdentifier=ROLE, name="a") == []
    assert listed(userIdentifier="nosuchuser") == listed(groupIdentifier="nosuchgroup") == []


def test_members_are_listed_in_the_order_of_their_creation_or_of_their_names(
    wire: Wire, asset: AssetIdentifiers
) -> None:
    project = {"domainIdentifier": asset.domain_identifier, "projectIdentifier": asset.project_identifier}
    names = {}
    for name in ("zoe@example.com", "amy@example.com"):
        user = wire.client.create_user_profile(
            domainIdentifier=asset.domain_identifier, userIdentifier=name, userType="SSO_USER"
        )["id"]
        names[user] = name
        wire.client.create_project_membership(
            **project, member={"userIdentifier": name}, designation="PROJECT_CONTRIBUTOR"
        )

    def listed(**order: Any) -> list[str]:
        pages = wire.client.get_paginator("list_project_memberships").paginate(
            **project, **order, PaginationConfig={"PageSize": 1}
        )
        members = [member for page in pages for member in page["members"]]
        assert [member["designation"] for member in members].count("PROJECT_OWNER") == 1
        users = [member["memberDetails"]["user"]["userId"] for member in members]
        return [names[user] for user in users if user in names]

    assert listed() == ["zoe@example.com", "amy@example.com"]
    assert listed(sortBy="NAME") == ["amy@example.com", "zoe@example.com"]
    assert listed(sortBy="NAME", sortOrder="DESCENDING") == ["zoe@example.com", "amy@example.com"]


@pytest.mark.parametrize(
    ("member", "status", "message"),
    [
        ({"userIdentifier": "nosuchuser"}, 404, "User nosuchuser does not exist"),
        ({"groupIdentifier": "nosuchgroup"}, 404, "Group nosuchgroup does not exist"),
        ({"userIdentifier": "arn:aws:iam::123456789012:root"}, 400, "is already a member of the project"),
    ],
)
def test_member_that_cannot_be_added_is_refused(
    wire: Wire, asset: AssetIdentifiers, member: dict[str, str], status: int, message: str
) -> None:
    with pytest.raises(ClientError, match=message) as info:
        wire.client.create_project_membership(
            domainIdentifier=asset.domain_identifier,
            projectIdentifier=asset.project_identifier,
            member=member,
            designation="PROJECT_CONTRIBUTOR",
        )
    assert error_of(info)[0] == status


@pytest.mark.skipif(
    "membershipAssignments" not in get_service_model("datazone").shape_for("CreateProjectInput").members,
    reason="this version of botocore adds no members to a new project",
)
def test_project_has_each_member_once(wire: Wire, asset: AssetIdentifiers) -> None:
    in_domain = {"domainIdentifier": asset.domain_identifier}
    user = wire.client.create_user_profile(**in_domain, userIdentifier=ROLE)["id"]
    contributor = {"member": {"userIdentifier": user}, "designation": "PROJECT_CONTRIBUTOR"}
    root = {
        "member": {"userIdentifier": "arn:aws:iam::123456789012:root"},
        "designation": "PROJECT_CONTRIBUTOR",
    }
    for members in ([contributor, contributor], [root]):
        with pytest.raises(ClientError, match="is already a member of the project"):
            wire.client.create_project(**in_domain, name="twice", membershipAssignments=members)
    listed = wire.client.list_projects(**in_domain)["items"]
    assert [project["id"] for project in listed] == [asset.project_identifier]


@pytest.mark.parametrize(
    ("identifier", "user_type"), [("bob", "IAM_USER"), (ROLE, "SSO_USER"), ("bob", "IAM_ROLE")]
)
def test_user_identifier_must_fit_the_user_type(
    wire: Wire, asset: AssetIdentifiers, identifier: str, user_type: str
) -> None:
    with pytest.raises(ClientError, match="does not fit the userType"):
        wire.client.create_user_profile(
            domainIdentifier=asset.domain_identifier, userIdentifier=identifier, userType=user_type
        )


def test_user_has_one_profile(wire: Wire, asset: AssetIdentifiers) -> None:
    in_domain = {"domainIdentifier": asset.domain_identifier}
    wire.client.create_user_profile(**in_domain, userIdentifier=ROLE)
    with pytest.raises(ClientError, match="already has a user profile"):
        wire.client.create_user_profile(**in_domain, userIdentifier=ROLE)
    with pytest.raises(ClientError, match="has no such user profile"):
        wire.client.get_user_profile(**in_domain, userIdentifier=ROLE, type="SSO")


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (["id"], {"columns[0].columnName": "Id"}),
        (["amount"], {"columns[0].columnName": "Amount"}),
        (["amount", "id"], {"columns[0].columnName": "Amount", "columns[1].columnName": "Id"}),
        (["other"], {}),
    ],
)
def test_predictions_stay_with_their_columns_in_a_new_revision(
    wire: Wire, columns: list[str], named: dict[str, str]
) -> None:
    asset = wire.server.create_asset(columns=["id", "amount"])
    of_asset = {"domainIdentifier": asset.domain_identifier, "identifier": asset.asset_identifier}
    wire.server.set_run_outcome(polls=0)
    wire.client.start_metadata_generation_run(
        domainIdentifier=asset.domain_identifier,
        owningProjectIdentifier=asset.project_identifier,
        target={"type": "ASSET", "identifier": asset.asset_identifier},
        types=["BUSINESS_NAMES"],
    )
    wire.client.get_asset(**of_asset)
    table = {"columns": [{"columnName": column} for column in columns]}
    form = {"formName": "GlueTableForm", "content": json.dumps(table)}
    wire.client.create_asset_revision(**of_asset, name="orders", formsInput=[form])
    (forms,) = wire.client.get_asset(**of_asset)["readOnlyFormsOutput"]
    suggestions = {
        entry["fieldPath"]: entry["suggestions"][0]["suggestion"]
        for entry in json.loads(forms["content"])["fieldSuggestions"]
    }
    assert suggestions == {"name": "Orders", **named}
    assert wire.client.accept_predictions(**of_asset, acceptRule={"rule": "ALL"})["revision"] == "3"


def test_forms_of_an_asset_have_different_names(wire: Wire, asset: AssetIdentifiers) -> None:
    form = {"formName": "GlueTableForm", "content": "{}"}
    with pytest.raises(ClientError, match="Two forms have the same formName"):
        wire.client.create_asset_revision(
            domainIdentifier=asset.domain_identifier,
            identifier=asset.asset_identifier,
            name="orders",
            formsInput=[form, form],
        )


# ---------------------------------------------------------------- permissions


class Account:
    """Roles in moto's IAM, and clients with their credentials."""

    def __init__(self, server: DataZoneServer) -> None:
        self.server = server

    def client(self, service: str) -> Any:
        return signed_client(self.server, service=service)

    def assume_role(self, policy: dict[str, Any] | None, name: str = "pipeline", path: str = "/") -> Any:
        """Create a role with a policy, and return a client of DataZone that has assumed it."""
        iam = self.client("iam")
        role = iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument="{}")["Role"]
        if policy is not None:
            iam.put_role_policy(RoleName=name, PolicyName="datazone", PolicyDocument=json.dumps(policy))
        assumed = self.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="task")
        return self._with(assumed["Credentials"])

    def user(self, policy: dict[str, Any], path: str = "/") -> Any:
        """Create a user with a policy, and return a client of DataZone with an access key of the user."""
        iam = self.client("iam")
        iam.create_user(UserName="sam", Path=path)
        iam.put_user_policy(UserName="sam", PolicyName="datazone", PolicyDocument=json.dumps(policy))
        return self._with(iam.create_access_key(UserName="sam")["AccessKey"])

    def _with(self, credentials: dict[str, str]) -> Any:
        return signed_client(
            self.server,
            credentials["AccessKeyId"],
            credentials["SecretAccessKey"],
            credentials.get("SessionToken"),
        )


@pytest.fixture
def account(wire: Wire) -> Account:
    wire.server.require_permissions()
    return Account(wire.server)


@pytest.fixture
def add_member(wire: Wire, asset: AssetIdentifiers) -> Callable[..., None]:
    def add(
        arn: str, designation: str = "PROJECT_CONTRIBUTOR", project: str = asset.project_identifier
    ) -> None:
        in_domain = {"domainIdentifier": asset.domain_identifier}
        wire.client.create_user_profile(**in_domain, userIdentifier=arn)
        wire.client.create_project_membership(
            **in_domain,
            projectIdentifier=project,
            member={"userIdentifier": arn},
            designation=designation,
        )

    return add


@pytest.fixture
def assigned() -> Iterator[None]:
    """Keep new user profiles ASSIGNED."""
    state_manager.set_transition(USER_PROFILE, {"progression": "manual", "times": 1})
    yield
    state_manager.unset_transition(USER_PROFILE)


def allow(*actions: str, resource: str = "*", effect: str = "Allow") -> dict[str, Any]:
    statement = {"Effect": effect, "Action": list(actions), "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [statement]}


def start(client: Any, asset: AssetIdentifiers) -> Any:
    return client.start_metadata_generation_run(
        domainIdentifier=asset.domain_identifier,
        owningProjectIdentifier=asset.project_identifier,
        target={"type": "ASSET", "identifier": asset.asset_identifier},
        types=["BUSINESS_NAMES"],
    )


NOT_PERMITTED = "User is not permitted to perform operation: StartMetadataGenerationRun"


def test_principal_without_a_policy_is_refused_by_iam(account: Account, asset: AssetIdentifiers) -> None:
    with pytest.raises(ClientError) as info:
        start(account.assume_role(None), asset)
    domain = f"arn:aws:datazone:us-east-1:123456789012:domain/{asset.domain_identifier}"
    message = (
        "User: arn:aws:sts::123456789012:assumed-role/pipeline/task is not authorized to perform: "
        f"datazone:StartMetadataGenerationRun on resource: {domain} because no identity-based policy "
        "allows the datazone:StartMetadataGenerationRun action"
    )
    assert error_of(info) == (403, "AccessDeniedException", message)


def test_policy_for_the_domain_permits_nothing_but_get_domain(
    account: Account, asset: AssetIdentifiers
) -> None:
    arn = f"arn:aws:datazone:us-east-1:123456789012:domain/{asset.domain_identifier}"
    client = account.assume_role(allow("datazone:*", resource=arn))
    assert client.get_domain(identifier=asset.domain_identifier)["arn"] == arn
    with pytest.raises(ClientError, match="no identity-based policy allows the datazone:ListDomains action"):
        client.list_domains()


def test_deny_in_a_policy_takes_precedence(account: Account, asset: AssetIdentifiers) -> None:
    policy = allow("datazone:*")
    policy["Statement"] += allow("datazone:Start*", effect="Deny")["Statement"]
    with pytest.raises(ClientError, match="with an explicit deny in an identity-based policy"):
        start(account.assume_role(policy), asset)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ({"Action": "datazone:GET??????"}, None),
        ({"Action": ["datazone:Start*", "datazone:getdomain"]}, None),
        ({"NotAction": "s3:*"}, None),
        ({"NotAction": "datazone:Get*"}, "no identity-based policy allows"),
        ({"Action": "datazone:Get?"}, "no identity-based policy allows"),
        ({"Action": "*", "NotResource": "arn:aws:s3:::*"}, None),
        ({"Action": "*", "Resource": "arn:aws:datazone:*:*:domain/dzd*"}, None),
        ({"Action": "*", "Resource": "arn:aws:datazone:*:*:domain/other"}, "no identity-based policy allows"),
        (
            {"Action": "*", "Condition": {"Bool": {"aws:SecureTransport": "true"}}},
            "does not evaluate the Condition",
        ),
    ],
)
def test_policy_is_evaluated(
    account: Account, asset: AssetIdentifiers, statement: dict[str, Any], reason: str | None
) -> None:
    resource = {} if {"Resource", "NotResource"} & set(statement) else {"Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", **resource, **statement}}
    client = account.assume_role(policy)
    if reason is None:
        client.get_domain(identifier=asset.domain_identifier)
    else:
        with pytest.raises(ClientError, match=reason):
            client.get_domain(identifier=asset.domain_identifier)


def test_inactive_or_deleted_key_is_refused(account: Account) -> None:
    iam = account.client("iam")
    user, role = account.user(allow("datazone:*")), account.assume_role(allow("datazone:*"))
    key = iam.list_access_keys(UserName="sam")["AccessKeyMetadata"][0]["AccessKeyId"]
    user.list_domains()
    role.list_domains()
    iam.update_access_key(UserName="sam", AccessKeyId=key, Status="Inactive")
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        user.list_domains()
    iam.delete_access_key(UserName="sam", AccessKeyId=key)
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        user.list_domains()
    iam.delete_role_policy(RoleName="pipeline", PolicyName="datazone")
    iam.delete_role(RoleName="pipeline")
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        role.list_domains()


def test_invalid_request_of_a_principal_is_invalid(
    account: Account, asset: AssetIdentifiers, add_member: Callable[..., None]
) -> None:
    add_member("arn:aws:iam::123456789012:role/pipeline")
    client = account.assume_role(allow("datazone:*"))
    client.meta.events.register(
        "before-call.datazone", lambda params, **_: params.update(body=b'{"owningProjectIdentifier": []}')
    )
    with pytest.raises(ClientError, match="ValidationException"):
        start(client, asset)


def test_principal_needs_a_membership_in_the_project(
    account: Account, asset: AssetIdentifiers, wire: Wire, add_member: Callable[..., None]
) -> None:
    client = account.assume_role(allow("datazone:*"))
    in_domain = {"domainIdentifier": asset.domain_identifier}
    with pytest.raises(ClientError, match=NOT_PERMITTED):
        start(client, asset)
    arn = "arn:aws:iam::123456789012:role/pipeline"
    wire.client.create_user_profile(**in_domain, userIdentifier=arn)
    with pytest.raises(ClientError, match=NOT_PERMITTED):
        start(client, asset)
    # A user profile is enough for operations on the domain.
    assert client.search(**in_domain, searchScope="ASSET")["totalMatchCount"] == 1
    wire.client.create_project_membership(
        **in_domain,
        projectIdentifier=asset.project_identifier,
        member={"userIdentifier": arn},
        designation="PROJECT_CONTRIBUTOR",
    )
    run = start(client, asset)
    profile = wire.client.get_user_profile(**in_domain, userIdentifier=arn)
    assert run["createdBy"] == profile["id"]


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("get_asset", {"identifier": "asset"}),
        ("list_asset_revisions", {"identifier": "asset"}),
        ("create_asset_revision", {"identifier": "asset", "name": "Orders"}),
        ("accept_predictions", {"identifier": "asset", "acceptRule": {"rule": "NONE"}}),
        ("reject_predictions", {"identifier": "asset", "rejectRule": {"rule": "NONE"}}),
        (
            "create_listing_change_set",
            {"entityIdentifier": "asset", "entityType": "ASSET", "action": "PUBLISH"},
        ),
        ("get_metadata_generation_run", {"identifier": "run"}),
        ("cancel_metadata_generation_run", {"identifier": "run"}),
    ],
)
def test_only_members_of_the_project_of_an_asset_or_run_are_permitted(
    account: Account,
    asset: AssetIdentifiers,
    wire: Wire,
    add_member: Callable[..., None],
    operation: str,
    request_: dict[str, Any],
) -> None:
    in_domain = {"domainIdentifier": asset.domain_identifier}
    if "predictions" in operation:
        wire.server.set_run_outcome(polls=0)
    identifiers = {"asset": asset.asset_identifier, "run": start(wire.client, asset)["id"]}
    # A run that has ended has predictions.
    wire.client.get_metadata_generation_run(**in_domain, identifier=identifiers["run"])
    request = {name: identifiers.get(str(value), value) for name, value in request_.items()}
    add_member("arn:aws:iam::123456789012:role/member")
    other = wire.client.create_project(**in_domain, name="other")["id"]
    add_member("arn:aws:iam::123456789012:role/stranger", "PROJECT_OWNER", project=other)
    with pytest.raises(ClientError, match="User is not permitted to perform operation"):
        getattr(account.assume_role(allow("datazone:*"), name="stranger"), operation)(**in_domain, **request)
    getattr(account.assume_role(allow("datazone:*"), name="member"), operation)(**in_domain, **request)


def test_role_in_a_path_has_the_profile_of_its_arn(
    account: Account, asset: AssetIdentifiers, add_member: Callable[..., None]
) -> None:
    add_member(ROLE)
    start(account.assume_role(allow("datazone:*"), path="/team/"), asset)


def test_user_in_a_path_has_the_profile_of_its_arn(
    account: Account, asset: AssetIdentifiers, add_member: Callable[..., None]
) -> None:
    add_member("arn:aws:iam::123456789012:user/team/sam")
    start(account.user(allow("datazone:*"), path="/team/"), asset)


@pytest.mark.usefixtures("assigned")
def test_profile_that_is_not_activated_permits_nothing(
    account: Account, asset: AssetIdentifiers, add_member: Callable[..., None], wire: Wire
) -> None:
    arn = "arn:aws:iam::123456789012:user/sam"
    add_member(arn)
    in_domain = {"domainIdentifier": asset.domain_identifier}
    assert wire.client.get_user_profile(**in_domain, userIdentifier=arn)["status"] == "ASSIGNED"
    with pytest.raises(ClientError, match=NOT_PERMITTED):
        start(account.user(allow("datazone:*")), asset)


def test_only_owners_of_a_project_add_members(
    account: Account, asset: AssetIdentifiers, add_member: Callable[..., None], wire: Wire
) -> None:
    add_member("arn:aws:iam::123456789012:role/contributor")
    add_member("arn:aws:iam::123456789012:role/owner", designation="PROJECT_OWNER")
    in_domain = {"domainIdentifier": asset.domain_identifier}
    user = wire.client.create_user_profile(**in_domain, userIdentifier=ROLE)["id"]
    request = {
        **in_domain,
        "projectIdentifier": asset.project_identifier,
        "member": {"userIdentifier": user},
        "designation": "PROJECT_CONTRIBUTOR",
    }
    contributor = account.assume_role(allow("datazone:*"), name="contributor")
    with pytest.raises(ClientError, match="User is not permitted to perform operation"):
        contributor.create_project_membership(**request)
    account.assume_role(allow("datazone:*"), name="owner").create_project_membership(**request)


def test_unknown_resource_is_not_found_for_a_principal(
    account: Account, asset: AssetIdentifiers, add_member: Callable[..., None]
) -> None:
    add_member("arn:aws:iam::123456789012:role/pipeline")
    client = account.assume_role(allow("datazone:*"))
    with pytest.raises(ClientError) as info:
        client.get_metadata_generation_run(domainIdentifier=asset.domain_identifier, identifier="nosuchrun")
    assert error_of(info)[:2] == (404, "ResourceNotFoundException")
    with pytest.raises(ClientError) as info:
        client.get_asset(domainIdentifier="dzd-nosuchdomain", identifier="nosuchasset")
    assert error_of(info)[:2] == (404, "ResourceNotFoundException")


def calls(client: Any, asset: AssetIdentifiers) -> dict[str, Callable[[], Any]]:
    """Return a call of each operation that a policy of the documentation names."""
    domain, _, identifier = asset
    in_domain = {"domainIdentifier": domain}
    of_asset = {**in_domain, "identifier": identifier}
    unknown = {**in_domain, "identifier": "nosuchthing"}
    publish = {"entityIdentifier": identifier, "entityType": "ASSET", "action": "PUBLISH"}
    return {
        "AcceptPredictions": lambda: client.accept_predictions(**of_asset, acceptRule={"rule": "ALL"}),
        "CancelMetadataGenerationRun": lambda: client.cancel_metadata_generation_run(**unknown),
        "CreateListingChangeSet": lambda: client.create_listing_change_set(**in_domain, **publish),
        "GetAsset": lambda: client.get_asset(**of_asset),
        "GetDomain": lambda: client.get_domain(identifier=domain),
        "GetListing": lambda: client.get_listing(**unknown),
        "GetMetadataGenerationRun": lambda: client.get_metadata_generation_run(**unknown),
        "ListMetadataGenerationRuns": lambda: client.list_metadata_generation_runs(**in_domain),
        "RejectPredictions": lambda: client.reject_predictions(**of_asset, rejectRule={"rule": "ALL"}),
        "Search": lambda: client.search(**in_domain, searchScope="ASSET"),
        "StartMetadataGenerationRun": lambda: start(client, asset),
    }


@pytest.mark.parametrize("policy", ["enrich.json", "publish.json", "wait.json"])
def test_policy_of_the_documentation_permits_what_it_names_and_nothing_else(
    account: Account, asset: AssetIdentifiers, add_member: Callable[..., None], policy: str
) -> None:
    add_member("arn:aws:iam::123456789012:role/pipeline")
    document = (POLICIES / policy).read_text(encoding="utf-8")
    client = account.assume_role(json.loads(document.replace("dzd_1234abcd5678ef", asset.domain_identifier)))
    permitted = set()
    for operation, call in calls(client, asset).items():
        try:
            call()
        except ClientError as error:
            if error.response["Error"]["Code"] == "AccessDeniedException":
                assert "no identity-based policy allows" in str(error)  # noqa: PT017
                continue
        permitted.add(operation)
    statements = json.loads(document)["Statement"]
    assert permitted == {
        action.removeprefix("datazone:") for statement in statements for action in statement["Action"]
    }


def test_permissions_are_required_until_a_reset(
    account: Account, wire: Wire, asset: AssetIdentifiers
) -> None:
    client = account.assume_role(None)
    with pytest.raises(ClientError):
        client.get_domain(identifier=asset.domain_identifier)
    wire.server.reset()
    assert wire.client.list_domains()["items"] == []
    account.assume_role(None, name="other").list_domains()
