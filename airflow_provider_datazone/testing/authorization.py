"""The two authorizations of DataZone: IAM, and then user profiles and memberships.

Access keys of the form that moto's IAM and STS issue must belong to a user or to an assumed role. A client
with another access key, such as ``testing``, is the administrator who prepares a test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from moto.iam.access_control import (
    AssumedRoleAccessKey,
    CreateAccessKeyFailure,
    IAMPolicy,
    IAMUserAccessKey,
)
from moto.iam.exceptions import NotFoundException
from werkzeug.datastructures import Headers

from .backend.domains import Domain, Project
from .backend.models import DataZoneBackend

Params = dict[str, Any]

# The operations that need an IAM policy, but no user profile in the domain.
IAM_ONLY = ("CreateDomain", "CreateUserProfile", "GetDomain", "GetUserProfile", "ListDomains")
# The operations that AWS's service authorization reference lists with a resource type. A policy can allow
# the others only with the resource "*".
WITH_RESOURCE_TYPE = ("GetDomain",)


def _asset_project(member: str) -> Callable[[Domain, Params], Project]:
    return lambda domain, params: domain.assets[params[member]].project


#: The project whose members may call an operation. AWS does not publish this list.
PROJECT_OF: dict[str, Callable[[Domain, Params], Project]] = {
    "AcceptPredictions": _asset_project("identifier"),
    "CancelMetadataGenerationRun": lambda domain, params: domain.runs[params["identifier"]].project,
    "CreateAsset": lambda domain, params: domain.projects[params["owningProjectIdentifier"]],
    "CreateAssetRevision": _asset_project("identifier"),
    "CreateListingChangeSet": _asset_project("entityIdentifier"),
    "CreateProjectMembership": lambda domain, params: domain.projects[params["projectIdentifier"]],
    "GetAsset": _asset_project("identifier"),
    "GetMetadataGenerationRun": lambda domain, params: domain.runs[params["identifier"]].project,
    "GetProject": lambda domain, params: domain.projects[params["identifier"]],
    "ListAssetRevisions": _asset_project("identifier"),
    "ListProjectMemberships": lambda domain, params: domain.projects[params["projectIdentifier"]],
    "RejectPredictions": _asset_project("identifier"),
    "StartMetadataGenerationRun": lambda domain, params: domain.projects[params["owningProjectIdentifier"]],
}


def is_issued(access_key_id: str) -> bool:
    """Return whether an access key looks like one that moto's IAM or STS has issued."""
    return access_key_id.startswith(("AKIA", "ASIA"))


class Principal:
    """The user or the assumed role that signs a request."""

    def __init__(self, key: IAMUserAccessKey | AssumedRoleAccessKey) -> None:
        is_role = isinstance(key, AssumedRoleAccessKey)
        name = str(key.arn).split("/")[1]
        owner: Any = key.backend.get_role(name) if is_role else key.backend.get_user(name)
        #: The ARN of the user profile: of a user, or of a role.
        self.profile_arn = str(owner.arn)
        # Moto's key.arn omits the path of a user.
        #: The ARN in IAM's messages: of a user, or of a session of a role.
        self.arn = str(key.arn) if is_role else self.profile_arn
        self._policies = [IAMPolicy(policy)._policy_json for policy in key.collect_policies()]

    @classmethod
    def find(cls, account_id: str, partition: str, access_key_id: str, headers: Headers) -> Principal | None:
        """Return the principal of an access key, or None if the key is unknown, deleted or inactive."""
        # Moto's own choice depends on the access key's prefix.
        has_token = "X-Amz-Security-Token" in headers
        kind = AssumedRoleAccessKey if has_token else IAMUserAccessKey
        try:
            key = kind(account_id, partition, access_key_id, headers)
            users = [] if has_token else key.backend.list_users("/", None, None)
            if any(
                k.access_key_id == access_key_id and k.status != "Active"
                for u in users
                for k in u.access_keys
            ):
                return None
            return cls(key)
        except (CreateAccessKeyFailure, NotFoundException):
            return None

    def iam_refusal(self, operation: str, params: Params, backend: DataZoneBackend) -> str | None:
        """Return the message of IAM's ``AccessDeniedException``, or None if IAM permits the request."""
        identifier = params.get("domainIdentifier") or params.get("identifier") or "*"
        region, account = backend.region_name, backend.account_id
        domain = f"arn:{backend.partition}:datazone:{region}:{account}:domain/{identifier}"
        action = f"datazone:{operation}"
        resource = domain if operation in WITH_RESOURCE_TYPE else "*"
        reason = evaluate(self._policies, action, resource)
        if reason is None:
            return None
        return f"User: {self.arn} is not authorized to perform: {action} on resource: {domain} {reason}"

    def is_member(self, operation: str, params: Params, backend: DataZoneBackend) -> bool:
        """Return whether the principal has the user profile and the membership that an operation needs."""
        domain = backend.domains.get(params.get("domainIdentifier", ""))
        # The operation itself answers that a domain or a resource does not exist.
        if operation in IAM_ONLY or domain is None:
            return True
        profile = domain.find_user_profile(self.profile_arn)
        if profile is None or profile.status != "ACTIVATED":
            return False
        try:
            project = PROJECT_OF[operation](domain, params)
        except KeyError:
            return True
        membership = project.members.get(profile.id)
        if operation == "CreateProjectMembership":
            return membership is not None and membership.designation == "PROJECT_OWNER"
        return membership is not None


# -------------------------------------------------------------------- policies


def evaluate(policies: list[dict[str, Any]], action: str, resource: str) -> str | None:
    """Evaluate identity-based policies.

    Moto's own evaluation ignores ``NotResource`` and fails for the wildcard ``?``.

    :return: the end of IAM's message if the action is denied, or None if it is allowed
    """
    statements = [s for policy in policies for s in _as_list(policy["Statement"])]
    matching = [
        statement
        for statement in statements
        if _matches(statement, "Action", action, re.IGNORECASE) and _matches(statement, "Resource", resource)
    ]
    if any(statement.get("Condition") for statement in matching):
        return "because the local DataZone does not evaluate the Condition of a policy"
    effects = {statement["Effect"] for statement in matching}
    if "Deny" in effects:
        return "with an explicit deny in an identity-based policy"
    return None if "Allow" in effects else f"because no identity-based policy allows the {action} action"


def _matches(statement: dict[str, Any], element: str, value: str, flags: int = 0) -> bool:
    is_negated = f"Not{element}" in statement
    patterns = _as_list(statement.get(f"Not{element}" if is_negated else element, []))
    wildcards = [re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".") for pattern in patterns]
    return is_negated != any(re.fullmatch(pattern, value, flags) for pattern in wildcards)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
