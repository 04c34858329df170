"""Domains, their projects and their user profiles."""

# ruff: noqa: D101, D102
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moto.core.utils import utcnow
from moto.moto_api._internal import mock_random
from moto.moto_api._internal.managed_state_model import ManagedState

from .assets import UNKNOWN_ASSET, Asset
from .exceptions import ResourceNotFoundException, ValidationException
from .identifiers import new_id
from .listings import Listing
from .pagination import NumberedModel
from .runs import MetadataGenerationRun

if TYPE_CHECKING:
    from .models import DataZoneBackend

USER_PROFILE_STATE_MODEL = "datazone::user-profile"
UNKNOWN_RUN = "Requested prediction cannot be found in domain"


class UserProfile(ManagedState):
    """A user of a domain. It is ``ACTIVATED`` at once.

    Moto's state transitions for ``datazone::user-profile`` can keep it ``ASSIGNED``.
    """

    def __init__(
        self,
        domain_id: str,
        user_identifier: str,
        user_type: str | None,
        session_name: str | None,
    ):
        transitions: list[tuple[str | None, str]] = [("ASSIGNED", "ACTIVATED")]
        ManagedState.__init__(self, USER_PROFILE_STATE_MODEL, transitions)
        self.domain_id = domain_id
        self.id = str(mock_random.uuid4())
        #: An ARN, or the name of a single sign-on user.
        self.name = user_identifier
        self.type = "IAM" if user_identifier.startswith("arn:") else "SSO"
        if user_type is not None and not user_type.startswith(self.type):
            raise ValidationException(
                f"The userIdentifier {user_identifier} does not fit "
                f"the userType {user_type}"
            )
        self.session_name = session_name

    def to_dict(self) -> dict[str, Any]:
        iam = {"arn": self.name, "sessionName": self.session_name}
        details = (
            {"iam": iam} if self.type == "IAM" else {"sso": {"username": self.name}}
        )
        return {
            "domainId": self.domain_id,
            "id": self.id,
            "type": self.type,
            "status": self.status,
            "details": details,
        }


class ProjectMembership(NumberedModel):
    def __init__(
        self,
        number: int,
        user_id: str,
        designation: str,
        user_created_designation_id: str | None,
    ):
        self.number = number
        self.user_id = user_id
        self.designation = designation
        self.user_created_designation_id = user_created_designation_id

    def to_dict(self) -> dict[str, Any]:
        return {
            "memberDetails": {"user": {"userId": self.user_id}},
            "designation": self.designation,
            "userCreatedDesignationId": self.user_created_designation_id,
        }


class Project(NumberedModel):
    """A project.

    Its domain unit, project profile and glossary terms are not checked: the backend has
    no operations that create them.
    """

    def __init__(
        self,
        number: int,
        domain: Domain,
        created_by: str,
        name: str,
        description: str | None,
        resource_tags: dict[str, str] | None,
        glossary_terms: list[str] | None,
        domain_unit_id: str | None,
        project_profile_id: str | None,
        user_parameters: list[dict[str, Any]] | None,
        project_category: str | None,
    ):
        self.number = number
        self.id = new_id()
        self.domain = domain
        self.name = name
        self.description = description
        self.resource_tags = resource_tags
        self.glossary_terms = glossary_terms
        self.domain_unit_id = domain_unit_id or domain.root_domain_unit_id
        self.project_profile_id = project_profile_id
        self.user_parameters = user_parameters
        self.project_category = project_category
        self.created_by = created_by
        self.created_at = utcnow()
        #: Memberships by the identifier of the user profile.
        self.members: dict[str, ProjectMembership] = {}

    def add_member(
        self, user_id: str, designation: str, user_created_designation_id: str | None
    ) -> None:
        if user_id in self.members:
            # CreateProjectMembership declares no ConflictException.
            raise ValidationException(
                f"User {user_id} is already a member of the project"
            )
        self.members[user_id] = ProjectMembership(
            len(self.members), user_id, designation, user_created_designation_id
        )

    def to_summary(self) -> dict[str, Any]:
        return {
            "domainId": self.domain.id,
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "projectStatus": "ACTIVE",
            "createdBy": self.created_by,
            "createdAt": self.created_at,
            "updatedAt": self.created_at,
            "domainUnitId": self.domain_unit_id,
            "projectCategory": self.project_category,
        }

    def to_dict(self) -> dict[str, Any]:
        result = self.to_summary()
        tags = self.resource_tags
        return {
            **result,
            "lastUpdatedAt": result.pop("updatedAt"),
            "resourceTags": tags
            and [{"key": k, "value": v, "source": "PROJECT"} for k, v in tags.items()],
            "glossaryTerms": self.glossary_terms,
            "projectProfileId": self.project_profile_id,
            "userParameters": self.user_parameters,
        }


class Domain(NumberedModel):
    def __init__(
        self,
        number: int,
        backend: DataZoneBackend,
        creator: str,
        name: str,
        description: str | None,
        single_sign_on: dict[str, Any] | None,
        domain_execution_role: str | None,
        kms_key_identifier: str | None,
        domain_version: str | None,
        service_role: str | None,
    ):
        self.number = number
        self.backend = backend
        self.id = f"dzd-{new_id()}"
        self.name = name
        self.description = description
        self.single_sign_on = single_sign_on
        account = backend.account_id
        self.domain_execution_role = domain_execution_role or (
            f"arn:{backend.partition}:iam::{account}:role/service-role/AmazonDataZoneDomainExecution"
        )
        self.kms_key_identifier = kms_key_identifier
        self.domain_version = domain_version or "V1"
        self.service_role = service_role
        region = backend.region_name
        self.arn = (
            f"arn:{backend.partition}:datazone:{region}:{account}:domain/{self.id}"
        )
        portal = "sagemaker" if self.domain_version == "V2" else "datazone"
        self.portal_url = f"https://{self.id}.{portal}.{region}.on.aws"
        self.root_domain_unit_id = new_id()
        self.created_at = utcnow()
        self.user_profiles: dict[str, UserProfile] = {}
        self.projects: dict[str, Project] = {}
        self.assets: dict[str, Asset] = {}
        self.runs: dict[str, MetadataGenerationRun] = {}
        self.listings: dict[str, Listing] = {}
        #: The user who is named as the creator for callers without a user profile.
        self.creator = self.add_user_profile(creator, None, None)

    # ------------------------------------------------------------------ users

    def add_user_profile(
        self, user_identifier: str, user_type: str | None, session_name: str | None
    ) -> UserProfile:
        profile = UserProfile(self.id, user_identifier, user_type, session_name)
        self.user_profiles[profile.id] = profile
        return profile

    def find_user_profile(self, user_identifier: str) -> UserProfile | None:
        """Return a user profile by its identifier, ARN or single sign-on name."""
        for profile in self.user_profiles.values():
            if user_identifier in (profile.id, profile.name):
                return profile
        return None

    def user_profile(self, user_identifier: str) -> UserProfile:
        profile = self.find_user_profile(user_identifier)
        if profile is None:
            raise ResourceNotFoundException(f"User {user_identifier} does not exist")
        return profile

    def user_id(self, caller: str) -> str:
        """Return the identifier of the user who creates a resource."""
        return (self.find_user_profile(caller) or self.creator).id

    def member_id(self, member: dict[str, str]) -> str:
        """Return the identifier of the user in a request for a membership."""
        if len(member) != 1:
            raise ValidationException(
                "A member has either a userIdentifier or a groupIdentifier"
            )
        if "groupIdentifier" in member:
            # There are no groups.
            group = member["groupIdentifier"]
            raise ResourceNotFoundException(f"Group {group} does not exist")
        return self.user_profile(member["userIdentifier"]).id

    # -------------------------------------------------------------- resources

    def project(self, identifier: str) -> Project:
        if identifier not in self.projects:
            raise ResourceNotFoundException(f"Project {identifier} does not exist")
        return self.projects[identifier]

    def asset(self, identifier: str) -> Asset:
        if identifier not in self.assets:
            raise ResourceNotFoundException(UNKNOWN_ASSET)
        asset = self.assets[identifier]
        for run in asset.runs:
            run.update_status()
        return asset

    def run(self, identifier: str) -> MetadataGenerationRun:
        if identifier not in self.runs:
            raise ResourceNotFoundException(UNKNOWN_RUN)
        return self.runs[identifier]

    def to_summary(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "arn": self.arn,
            "managedAccountId": self.backend.account_id,
            "status": "AVAILABLE",
            "portalUrl": self.portal_url,
            "createdAt": self.created_at,
            "lastUpdatedAt": self.created_at,
            "domainVersion": self.domain_version,
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.to_summary(),
            "rootDomainUnitId": self.root_domain_unit_id,
            "singleSignOn": self.single_sign_on,
            "domainExecutionRole": self.domain_execution_role,
            "kmsKeyIdentifier": self.kms_key_identifier,
            "tags": self.backend.tagger.get_tag_dict_for_resource(self.arn) or None,
            "serviceRole": self.service_role,
        }
