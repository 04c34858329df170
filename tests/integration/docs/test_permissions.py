"""The connections and IAM policies in the documentation are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import botocore.session
import pytest

from airflow_provider_datazone.get_provider_info import CONNECTION_FIELDS
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from tests.integration.docs.pages import CONNECTIONS, EXAMPLES, PAGES, POLICIES, actions, statements


@pytest.mark.parametrize("file", CONNECTIONS, ids=lambda path: path.stem)
def test_connection_is_valid_json_for_airflow(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    connection_id, definition = re.fullmatch(
        r"export AIRFLOW_CONN_(\w+)='(.*?)'\n", file.read_text(), re.DOTALL
    ).groups()
    monkeypatch.setenv(f"AIRFLOW_CONN_{connection_id}", definition)
    hook = DataZoneHook(connection_id.lower())
    assert hook.resolve_domain_identifier() == "dzd_1234abcd5678ef"
    assert hook.resolve_owning_project_identifier() == "5a6b7c8d9e"
    assert hook.region_name == "us-east-1"


def test_page_lists_the_fields_of_the_connection_form() -> None:
    rows = re.findall(r"^\| ([\w ]+) \| `(\w+)` \|", PAGES["connection.md"], re.MULTILINE)
    assert sorted(rows) == sorted((label, name) for name, (label, _) in CONNECTION_FIELDS.items())


# The resource types of each action, from the AWS Service Authorization Reference for Amazon DataZone. IAM grants an
# action without resource types only on "*". It grants an action with resource types on those resources or on "*".
RESOURCE_TYPES: dict[str, set[str]] = {
    "datazone:AcceptPredictions": set(),
    "datazone:CancelMetadataGenerationRun": set(),
    "datazone:CreateListingChangeSet": set(),
    "datazone:GetAsset": set(),
    "datazone:GetDomain": {"domain"},
    "datazone:GetListing": set(),
    "datazone:GetMetadataGenerationRun": set(),
    "datazone:ListMetadataGenerationRuns": set(),
    "datazone:RejectPredictions": set(),
    "datazone:Search": set(),
    "datazone:StartMetadataGenerationRun": set(),
}
DOMAIN_ARN = re.compile(r"arn:aws:datazone:[a-z0-9-]+:\d{12}:domain/dzd[-_][a-zA-Z0-9_-]{1,36}")


def has_no_effect(action: str, resource: str) -> bool:
    """Return whether a permission for the action on the resource allows no request."""
    if resource == "*":
        return False
    kind = "domain" if DOMAIN_ARN.fullmatch(resource) else None
    return kind not in RESOURCE_TYPES[action]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem)
def test_policy_contains_only_operations_of_the_service(policy: Path) -> None:
    operations = botocore.session.get_session().get_service_model("datazone").operation_names
    assert actions(policy) <= {f"datazone:{operation}" for operation in operations}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem)
def test_every_policy_statement_grants_all_its_actions(policy: Path) -> None:
    for statement in statements(policy):
        assert statement["Effect"] == "Allow"
        ineffective = [
            action for action in statement["Action"] if has_no_effect(action, statement["Resource"])
        ]
        assert not ineffective, f"{ineffective} require the resource '*'"


def test_wildcard_resource_is_only_for_actions_without_a_resource_type() -> None:
    for policy in POLICIES:
        for statement in statements(policy):
            broad = [action for action in statement["Action"] if RESOURCE_TYPES[action]]
            assert statement["Resource"] != "*" or not broad, f"{broad} can name the domain"


def test_policies_match_the_table_of_permissions() -> None:
    named = set(re.findall(r"`(datazone:\w+)`", PAGES["connection.md"]))
    assert named == set().union(*(actions(policy) for policy in POLICIES))
    enrich = actions(EXAMPLES / "policies/enrich.json")
    assert actions(EXAMPLES / "policies/wait.json") < enrich
    assert not actions(EXAMPLES / "policies/publish.json") & enrich


def test_join_project_commands_have_valid_aws_cli_options() -> None:
    """Compare the commands with the service model, which defines the AWS CLI."""
    model = botocore.session.get_session().get_service_model("datazone")
    text = (EXAMPLES / "permissions/join_project.sh").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        _, _, command, *options = shlex.split(line)
        shape = model.operation_model("".join(map(str.capitalize, command.split("-")))).input_shape
        given = dict(zip(options[::2], options[1::2], strict=True))
        named = {re.sub(r"-(\w)", lambda match: match[1].upper(), option[2:]): option for option in given}
        assert set(shape.required_members) <= named.keys() <= shape.members.keys()
        for member, option in named.items():
            choices = getattr(shape.members[member], "enum", [])
            assert not choices or given[option] in choices
