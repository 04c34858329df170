"""The DataZone backend, with one method per operation."""

# As in moto, classes and methods named after AWS have no docstrings: the AWS
# documentation describes them.
# ruff: noqa: D102
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from moto.core.base_backend import BackendDict, BaseBackend
from moto.moto_api import state_manager
from moto.utilities.tagging_service import TaggingService

from .assets import DEFAULT_SEARCH_ATTRIBUTES, Asset
from .domains import (
    USER_PROFILE_STATE_MODEL,
    Domain,
    Project,
    ProjectMembership,
    UserProfile,
)
from .exceptions import (
    AccessDeniedException,
    ConflictException,
    ResourceNotFoundException,
    ValidationException,
)
from .listings import LISTING_STATE_MODEL, Listing
from .pagination import page
from .runs import RUN_STATE_MODEL, MetadataGenerationRun
from .search import clause_predicate, sort_position, split_words

# AWS documents an error for unsupported asset types, but not the supported types.
SUPPORTED_ASSET_TYPES = (
    "amazon.datazone.GlueTableAssetType",
    "amazon.datazone.RedshiftTableAssetType",
    "amazon.datazone.RedshiftViewAssetType",
)

FORM_TYPE_NAME = re.compile(
    r"(amazon\.datazone\.)?([a-zA-Z]\w*|_\w*[a-zA-Z0-9]\w*)", re.ASCII
)

# In moto, these are in moto/moto_api/__init__.py.
for _model in (RUN_STATE_MODEL, LISTING_STATE_MODEL):
    state_manager.register_default_transition(
        model_name=_model, transition={"progression": "manual", "times": 1}
    )
state_manager.register_default_transition(
    model_name=USER_PROFILE_STATE_MODEL, transition={"progression": "immediate"}
)


class DataZoneBackend(BaseBackend):
    """Implementation of DataZone APIs.

    Each ``caller`` is the ARN of the principal that sends the request.
    """

    #: The class of new runs. A subclass of the backend can replace it.
    run_class: type[MetadataGenerationRun] = MetadataGenerationRun

    def __init__(self, region_name: str, account_id: str):
        super().__init__(region_name, account_id)
        self.domains: dict[str, Domain] = {}
        self.tagger = TaggingService()
        # Requests and results by operation, domain and client token. They are kept
        # forever; how long AWS keeps them is unknown.
        self.results_by_token: dict[tuple[str, str, str], tuple[Any, Any]] = {}

    # --------------------------------------------------------------- domains

    def create_domain(
        self,
        caller: str,
        name: str,
        description: str | None,
        single_sign_on: dict[str, Any] | None,
        domain_execution_role: str | None,
        kms_key_identifier: str | None,
        tags: dict[str, str] | None,
        domain_version: str | None,
        service_role: str | None,
    ) -> Domain:
        domain = Domain(
            number=len(self.domains),
            backend=self,
            creator=caller,
            name=name,
            description=description,
            single_sign_on=single_sign_on,
            domain_execution_role=domain_execution_role,
            kms_key_identifier=kms_key_identifier,
            domain_version=domain_version,
            service_role=service_role,
        )
        self.domains[domain.id] = domain
        tag_list = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
        self.tagger.tag_resource(domain.arn, tag_list or None)
        return domain

    def get_domain(self, identifier: str) -> Domain:
        if identifier not in self.domains:
            # AWS does not document its error message.
            raise ResourceNotFoundException(f"Domain {identifier} does not exist")
        return self.domains[identifier]

    def _permitted_domain(self, identifier: str, purpose: str) -> Domain:
        """Return the domain, for operations that declare no ResourceNotFoundException.

        :raises AccessDeniedException: if the domain does not exist
        """
        if identifier not in self.domains:
            raise AccessDeniedException(
                f"User is not permitted to {purpose} domain {identifier}"
            )
        return self.domains[identifier]

    def list_domains(
        self, status: str | None, max_results: int | None, next_token: str | None
    ) -> tuple[list[Domain], str | None]:
        domains = self.domains.values() if status in (None, "AVAILABLE") else ()
        return page(domains, max_results or 25, next_token, ["ListDomains", status])

    # ------------------------------------------------ user profiles, projects

    def create_user_profile(
        self,
        domain_identifier: str,
        user_identifier: str,
        user_type: str | None,
        session_name: str | None,
    ) -> UserProfile:
        domain = self.get_domain(domain_identifier)
        if domain.find_user_profile(user_identifier) is not None:
            # The operation declares no ConflictException.
            raise ValidationException(
                f"User {user_identifier} already has a user profile"
            )
        return domain.add_user_profile(user_identifier, user_type, session_name)

    def get_user_profile(
        self,
        domain_identifier: str,
        user_identifier: str,
        profile_type: str | None,
        session_name: str | None,
    ) -> UserProfile:
        domain = self.get_domain(domain_identifier)
        profile = domain.user_profile(user_identifier)
        if profile_type not in (None, profile.type) or session_name not in (
            None,
            profile.session_name,
        ):
            raise ResourceNotFoundException(
                f"User {user_identifier} has no such user profile"
            )
        return profile

    def create_project(
        self, caller: str, domain_identifier: str, **attributes: Any
    ) -> Project:
        domain = self.get_domain(domain_identifier)
        assignments = attributes.pop("membership_assignments", None) or []
        creator = domain.user_id(caller)
        project = Project(len(domain.projects), domain, creator, **attributes)
        project.add_member(creator, "PROJECT_OWNER", None)
        for assignment in assignments:
            project.add_member(
                domain.member_id(assignment["member"]),
                assignment["designation"],
                assignment.get("userCreatedDesignationId"),
            )
        domain.projects[project.id] = project
        return project

    def get_project(self, domain_identifier: str, identifier: str) -> Project:
        return self.get_domain(domain_identifier).project(identifier)

    def list_projects(
        self,
        domain_identifier: str,
        user_identifier: str | None,
        group_identifier: str | None,
        name: str | None,
        project_category: str | None,
        max_results: int | None,
        next_token: str | None,
    ) -> tuple[list[Project], str | None]:
        domain = self._permitted_domain(domain_identifier, "list the projects of")
        user = domain.find_user_profile(user_identifier) if user_identifier else None
        projects = (
            project
            for project in domain.projects.values()
            if name in (None, project.name)
            and project_category in (None, project.project_category)
            # There are no groups.
            and group_identifier is None
            and (user_identifier is None or (user and user.id in project.members))
        )
        filters = [user_identifier, group_identifier, name, project_category]
        scope = ["ListProjects", domain_identifier, *filters]
        return page(projects, max_results or 50, next_token, scope)

    def create_project_membership(
        self,
        domain_identifier: str,
        project_identifier: str,
        member: dict[str, str],
        designation: str,
        user_created_designation_id: str | None,
    ) -> None:
        domain = self.get_domain(domain_identifier)
        domain.project(project_identifier).add_member(
            domain.member_id(member), designation, user_created_designation_id
        )

    def list_project_memberships(
        self,
        domain_identifier: str,
        project_identifier: str,
        sort_by: str | None,
        sort_order: str | None,
        max_results: int | None,
        next_token: str | None,
    ) -> tuple[list[ProjectMembership], str | None]:
        domain = self.get_domain(domain_identifier)
        project = domain.project(project_identifier)
        descending = sort_order == "DESCENDING"

        def position(membership: ProjectMembership) -> list[Any]:
            # Without sortBy, memberships are in the order of their creation.
            name = domain.user_profiles[membership.user_id].name if sort_by else ""
            return [name, membership.number]

        members = sorted(project.members.values(), key=position, reverse=descending)
        scope = ["ListProjectMemberships", domain_identifier, project_identifier]
        scope += [str(sort_by), str(sort_order)]
        return page(members, max_results or 50, next_token, scope, position, descending)

    # ---------------------------------------------------------------- assets

    def create_asset(
        self,
        caller: str,
        domain_identifier: str,
        owning_project_identifier: str,
        name: str,
        description: str | None,
        type_identifier: str,
        type_revision: str | None,
        external_identifier: str | None,
        glossary_terms: list[str] | None,
        forms_input: list[dict[str, Any]] | None,
    ) -> Asset:
        domain = self.get_domain(domain_identifier)
        project = domain.project(owning_project_identifier)
        user_id = domain.user_id(caller)
        asset = Asset(
            len(domain.assets),
            domain,
            project,
            type_identifier,
            external_identifier,
            user_id,
        )
        forms = _forms(forms_input)
        revision = type_revision or "1"
        asset.add_revision(name, description, glossary_terms, forms, revision, user_id)
        domain.assets[asset.id] = asset
        return asset

    def create_asset_revision(
        self,
        caller: str,
        domain_identifier: str,
        identifier: str,
        name: str,
        description: str | None,
        type_revision: str | None,
        glossary_terms: list[str] | None,
        forms_input: list[dict[str, Any]] | None,
    ) -> Asset:
        domain = self.get_domain(domain_identifier)
        asset = domain.asset(identifier)
        asset.add_revision(
            name,
            description,
            glossary_terms,
            _forms(forms_input),
            type_revision or asset.revisions[-1].type_revision,
            domain.user_id(caller),
        )
        return asset

    def get_asset(self, domain_identifier: str, identifier: str) -> Asset:
        return self.get_domain(domain_identifier).asset(identifier)

    def list_asset_revisions(
        self,
        domain_identifier: str,
        identifier: str,
        max_results: int | None,
        next_token: str | None,
    ) -> tuple[list[dict[str, Any]], str | None]:
        asset = self.get_domain(domain_identifier).asset(identifier)
        scope = ["ListAssetRevisions", domain_identifier, identifier]
        # The order is not documented. Search and other lists are oldest first, too.
        revisions, following = page(
            asset.revisions, max_results or 50, next_token, scope
        )
        items = [
            {
                "domainId": domain_identifier,
                "id": asset.id,
                "revision": revision.revision,
                "createdBy": revision.created_by,
                "createdAt": revision.created_at,
            }
            for revision in revisions
        ]
        return items, following

    def search(
        self,
        domain_identifier: str,
        search_scope: str,
        owning_project_identifier: str | None,
        search_text: str | None,
        search_in: list[dict[str, Any]] | None,
        filters: dict[str, Any] | None,
        sort: dict[str, Any] | None,
        additional_attributes: list[str] | None,
        max_results: int | None,
        next_token: str | None,
    ) -> tuple[list[dict[str, Any]], str | None, int]:
        """Return the items of a page, the next page's token, and the total number."""
        domain = self._permitted_domain(domain_identifier, "search")
        matches = clause_predicate(filters) if filters is not None else lambda _: True
        words = split_words(search_text or "")
        attributes = [item["attribute"] for item in search_in or []]
        position, descending = sort_position(sort)
        found = [
            asset
            # There are no glossaries and no data products.
            for asset in (domain.assets.values() if search_scope == "ASSET" else ())
            if owning_project_identifier in (None, asset.project.id)
            and asset.contains_words(words, attributes or DEFAULT_SEARCH_ATTRIBUTES)
            and matches(asset)
        ]
        found.sort(key=position, reverse=descending)
        scope: list[Any] = ["Search", domain_identifier, search_scope]
        scope += [owning_project_identifier, search_text, search_in, filters, sort]
        assets, following = page(
            found, max_results or 50, next_token, scope, position, descending
        )
        # TIME_SERIES_DATA_POINT_FORMS and TEXT_MATCH_RATIONALE are not supported.
        include_forms = "FORMS" in (additional_attributes or ())
        items = [domain.asset(asset.id).to_item(include_forms) for asset in assets]
        return items, following, len(found)

    # -------------------------------------------------------------- listings

    def create_listing_change_set(
        self,
        domain_identifier: str,
        entity_identifier: str,
        entity_type: str,
        entity_revision: str | None,
        action: str,
    ) -> dict[str, Any]:
        domain = self.get_domain(domain_identifier)
        if entity_type != "ASSET":
            raise ResourceNotFoundException(
                f"Data product {entity_identifier} does not exist"
            )
        asset = domain.asset(entity_identifier)
        asset.check_revision(entity_revision)
        if action == "PUBLISH":
            if entity_revision not in (None, asset.latest_revision):
                raise ValidationException(
                    "Only the latest revision of an asset can be published"
                )
            if asset.listing is None:
                asset.listing = Listing(asset)
                domain.listings[asset.listing.id] = asset.listing
            asset.listing.publish()
        elif asset.listing is None:
            raise ResourceNotFoundException(f"Asset {entity_identifier} has no listing")
        else:
            asset.listing.unpublish()
        return asset.listing.to_change_set()

    def get_listing(
        self, domain_identifier: str, identifier: str, listing_revision: str | None
    ) -> Listing:
        listing = self.get_domain(domain_identifier).listings.get(identifier)
        # AWS does not document its error message.
        if listing is None or listing_revision not in (None, str(listing.revision)):
            raise ResourceNotFoundException(f"Listing {identifier} does not exist")
        listing.poll()
        return listing

    # ------------------------------------------------------------------ runs

    def start_metadata_generation_run(
        self,
        caller: str,
        domain_identifier: str,
        target: dict[str, Any],
        types: list[str],
        owning_project_identifier: str,
    ) -> MetadataGenerationRun:
        domain = self.get_domain(domain_identifier)
        if not types:
            # The service model requires neither `types` nor the deprecated `type`.
            raise ValidationException(
                "At least one type of metadata generation run is required"
            )
        project = domain.project(owning_project_identifier)
        asset = domain.asset(target["identifier"])
        if asset.project is not project:
            # AWS does not document its error for this case.
            raise AccessDeniedException(
                f"Project {project.id} is not permitted to generate metadata "
                f"for asset {asset.id}"
            )
        if asset.type_identifier not in SUPPORTED_ASSET_TYPES:
            raise ValidationException(
                "Metadata Descriptions Generation is not supported for input asset type"
            )
        asset.check_revision(target.get("revision"))
        run = self.run_class(
            len(domain.runs),
            project,
            asset,
            target.get("revision"),
            list(dict.fromkeys(types)),
            domain.user_id(caller),
        )
        domain.runs[run.id] = run
        asset.runs.append(run)
        return run

    def get_metadata_generation_run(
        self, domain_identifier: str, identifier: str
    ) -> MetadataGenerationRun:
        run = self.get_domain(domain_identifier).run(identifier)
        run.update_status(is_poll=True)
        return run

    def list_metadata_generation_runs(
        self,
        domain_identifier: str,
        status: str | None,
        run_type: str | None,
        target_identifier: str | None,
        max_results: int | None,
        next_token: str | None,
    ) -> tuple[list[dict[str, Any]], str | None]:
        runs = (
            run
            for run in self.get_domain(domain_identifier).runs.values()
            if run_type in (None, *run.types)
            and target_identifier in (None, run.asset.id)
            and status in (None, run.update_status())
        )
        scope = ["ListMetadataGenerationRuns", domain_identifier]
        scope += [str(status), str(run_type), str(target_identifier)]
        listed, following = page(runs, max_results or 50, next_token, scope)
        items = [run.to_item() for run in listed]
        # List counts as a poll: otherwise a run would never advance for a client that
        # only lists runs. The response has the status before the poll, which is why it
        # matches the filter.
        for run in listed:
            run.update_status(is_poll=True)
        return items, following

    def cancel_metadata_generation_run(
        self, domain_identifier: str, identifier: str
    ) -> None:
        self.get_domain(domain_identifier).run(identifier).cancel()

    # ----------------------------------------------------------- predictions

    def accept_predictions(
        self,
        caller: str,
        domain_identifier: str,
        identifier: str,
        revision: str | None,
        accept_rule: dict[str, Any] | None,
        accept_choices: list[dict[str, Any]] | None,
    ) -> str:
        def accept(asset: Asset) -> None:
            paths = asset.paths_matching_rule(accept_rule)
            values = {path: asset.suggestion(path, 0)["suggestion"] for path in paths}
            for choice in accept_choices or []:
                path = choice["predictionTarget"]
                suggestion = asset.suggestion(path, choice.get("predictionChoice") or 0)
                values[path] = choice.get("editedValue") or suggestion["suggestion"]
            if len(values.get("name", "")) > 256:
                raise ValidationException(
                    "The name of an asset has at most 256 characters"
                )
            if values:
                asset.accept(values, asset.domain.user_id(caller))

        criteria = (accept_rule or {}).get("rule") or accept_choices
        return self._decide(domain_identifier, identifier, revision, criteria, accept)

    def reject_predictions(
        self,
        domain_identifier: str,
        identifier: str,
        revision: str | None,
        reject_rule: dict[str, Any] | None,
        reject_choices: list[dict[str, Any]] | None,
    ) -> str:
        def reject(asset: Asset) -> None:
            rejected_paths = asset.paths_matching_rule(reject_rule)
            rejected: list[dict[str, Any]] = []
            for choice in reject_choices or []:
                path = choice["predictionTarget"]
                numbers = choice.get("predictionChoices") or [0]
                rejected += [asset.suggestion(path, number) for number in numbers]
            for path, suggestions in list(asset.predictions.items()):
                remaining = [
                    s for s in suggestions if not any(s is r for r in rejected)
                ]
                # The rule compares the top suggestion of a target, and rejects all
                # suggestions of the target.
                if remaining and path not in rejected_paths:
                    asset.predictions[path] = remaining
                else:
                    del asset.predictions[path]

        criteria = (reject_rule or {}).get("rule") or reject_choices
        return self._decide(domain_identifier, identifier, revision, criteria, reject)

    def _decide(
        self,
        domain_identifier: str,
        identifier: str,
        revision: str | None,
        criteria: Any,
        decide: Callable[[Asset], None],
    ) -> str:
        """Accept or reject an asset's predictions.

        AWS does not document its response for an asset without predictions.

        :param criteria: the rule or the choices of the request; one of them is required
        :param decide: a function that updates the asset
        :return: the latest revision of the asset
        """
        asset = self.get_domain(domain_identifier).asset(identifier)
        if not criteria:
            raise ValidationException("A rule or at least one choice is required")
        asset.check_revision(revision)
        if revision not in (None, asset.latest_revision):
            raise ConflictException(
                f"Revision {revision} is not the latest revision of the asset"
            )
        if not asset.predictions:
            raise ResourceNotFoundException(
                "Requested prediction cannot be found in domain"
            )
        decide(asset)
        return asset.latest_revision


def _forms(forms_input: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    names = [form["formName"] for form in forms_input or []]
    if len(names) > len(set(names)):
        raise ValidationException("Two forms have the same formName")
    for form in forms_input or []:
        form_type = form.get("typeIdentifier")
        if form_type is not None and not FORM_TYPE_NAME.fullmatch(form_type):
            # There are no form types, so an identifier cannot be that of one.
            raise ResourceNotFoundException(f"Form type {form_type} does not exist")
    return [
        {
            "formName": form["formName"],
            "typeName": form.get("typeIdentifier"),
            "typeRevision": form.get("typeRevision"),
            "content": form.get("content"),
        }
        for form in forms_input or []
    ]


datazone_backends = BackendDict(
    DataZoneBackend,
    "datazone",
    # Regions of other partitions, which botocore does not list for DataZone.
    additional_regions=[
        "cn-north-1",
        "cn-northwest-1",
        "us-gov-east-1",
        "us-gov-west-1",
    ],
)
