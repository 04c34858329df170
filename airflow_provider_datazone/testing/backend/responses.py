"""Handles requests to DataZone: reads parameters, calls the backend, responds."""

# As in moto, classes and methods named after AWS have no docstrings: the AWS
# documentation describes them.
# ruff: noqa: D102
from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from moto.core.responses import ActionResult, BaseResponse, EmptyResult
from moto.core.utils import get_service_model

from .exceptions import ConflictException, ValidationException
from .models import DataZoneBackend, datazone_backends

T = TypeVar("T")


class DataZoneResponse(BaseResponse):
    """Handler of DataZone requests, with one method per operation."""

    def __init__(self) -> None:
        super().__init__(service_name="datazone")
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> DataZoneBackend:
        backend: DataZoneBackend = datazone_backends[self.current_account][self.region]
        return backend

    @property
    def caller(self) -> str:
        """The ARN of the principal that sends the request."""
        return f"arn:{self.partition}:iam::{self.current_account}:root"

    def _once(self, carry_out: Callable[[], T]) -> T:
        """Carry out a request once per client token.

        AWS documents that a second request with the same token has no effect. It does
        not document its error for another request with the token, nor how long a token
        is valid.
        """
        params = dict(self._get_params())
        token = params.pop("clientToken", None)
        if token is None:
            return carry_out()
        operation = self._get_action()
        key = (operation, params.get("domainIdentifier", ""), token)
        results = self.backend.results_by_token
        if key not in results:
            results[key] = (params, carry_out())
        earlier_params, result = results[key]
        if earlier_params != params:
            model = get_service_model("datazone").operation_model(operation)
            declared = {shape.name for shape in model.error_shapes}
            error = (
                ConflictException
                if "ConflictException" in declared
                else ValidationException
            )
            raise error("The clientToken belongs to a request with other parameters")
        return result  # type: ignore[no-any-return]

    # --------------------------------------------------------------- domains

    def create_domain(self) -> ActionResult:
        params = self._get_params()
        result = self._once(
            lambda: self.backend.create_domain(
                caller=self.caller,
                name=params["name"],
                description=params.get("description"),
                single_sign_on=params.get("singleSignOn"),
                domain_execution_role=params.get("domainExecutionRole"),
                kms_key_identifier=params.get("kmsKeyIdentifier"),
                tags=params.get("tags"),
                domain_version=params.get("domainVersion"),
                service_role=params.get("serviceRole"),
            ).to_dict()
        )
        return ActionResult(result)

    def get_domain(self) -> ActionResult:
        domain = self.backend.get_domain(self._get_params()["identifier"])
        return ActionResult(domain.to_dict())

    def list_domains(self) -> ActionResult:
        params = self._get_params()
        domains, next_token = self.backend.list_domains(
            status=params.get("status"),
            max_results=params.get("maxResults"),
            next_token=params.get("nextToken"),
        )
        items = [domain.to_summary() for domain in domains]
        return ActionResult({"items": items, "nextToken": next_token})

    # ------------------------------------------------ user profiles, projects

    def create_user_profile(self) -> ActionResult:
        params = self._get_params()
        result = self._once(
            lambda: self.backend.create_user_profile(
                domain_identifier=params["domainIdentifier"],
                user_identifier=params["userIdentifier"],
                user_type=params.get("userType"),
                session_name=params.get("sessionName"),
            ).to_dict()
        )
        return ActionResult(result)

    def get_user_profile(self) -> ActionResult:
        params = self._get_params()
        profile = self.backend.get_user_profile(
            domain_identifier=params["domainIdentifier"],
            user_identifier=params["userIdentifier"],
            profile_type=params.get("type"),
            session_name=params.get("sessionName"),
        )
        return ActionResult(profile.to_dict())

    def create_project(self) -> ActionResult:
        params = self._get_params()
        project = self.backend.create_project(
            caller=self.caller,
            domain_identifier=params["domainIdentifier"],
            name=params["name"],
            description=params.get("description"),
            resource_tags=params.get("resourceTags"),
            glossary_terms=params.get("glossaryTerms"),
            domain_unit_id=params.get("domainUnitId"),
            project_profile_id=params.get("projectProfileId"),
            user_parameters=params.get("userParameters"),
            project_category=params.get("projectCategory"),
            membership_assignments=params.get("membershipAssignments"),
        )
        return ActionResult(project.to_dict())

    def get_project(self) -> ActionResult:
        params = self._get_params()
        project = self.backend.get_project(
            params["domainIdentifier"], params["identifier"]
        )
        return ActionResult(project.to_dict())

    def list_projects(self) -> ActionResult:
        params = self._get_params()
        projects, next_token = self.backend.list_projects(
            domain_identifier=params["domainIdentifier"],
            user_identifier=params.get("userIdentifier"),
            group_identifier=params.get("groupIdentifier"),
            name=params.get("name"),
            project_category=params.get("projectCategory"),
            max_results=params.get("maxResults"),
            next_token=params.get("nextToken"),
        )
        items = [project.to_summary() for project in projects]
        return ActionResult({"items": items, "nextToken": next_token})

    def create_project_membership(self) -> ActionResult:
        params = self._get_params()
        self.backend.create_project_membership(
            domain_identifier=params["domainIdentifier"],
            project_identifier=params["projectIdentifier"],
            member=params["member"],
            designation=params["designation"],
            user_created_designation_id=params.get("userCreatedDesignationId"),
        )
        return EmptyResult()

    def list_project_memberships(self) -> ActionResult:
        params = self._get_params()
        memberships, next_token = self.backend.list_project_memberships(
            domain_identifier=params["domainIdentifier"],
            project_identifier=params["projectIdentifier"],
            sort_by=params.get("sortBy"),
            sort_order=params.get("sortOrder"),
            max_results=params.get("maxResults"),
            next_token=params.get("nextToken"),
        )
        members = [membership.to_dict() for membership in memberships]
        return ActionResult({"members": members, "nextToken": next_token})

    # ---------------------------------------------------------------- assets

    def create_asset(self) -> ActionResult:
        params = self._get_params()
        result = self._once(
            lambda: self.backend.create_asset(
                caller=self.caller,
                domain_identifier=params["domainIdentifier"],
                owning_project_identifier=params["owningProjectIdentifier"],
                name=params["name"],
                description=params.get("description"),
                type_identifier=params["typeIdentifier"],
                type_revision=params.get("typeRevision"),
                external_identifier=params.get("externalIdentifier"),
                glossary_terms=params.get("glossaryTerms"),
                forms_input=params.get("formsInput"),
            ).to_dict()
        )
        configuration = params.get("predictionConfiguration")
        return ActionResult({**result, "predictionConfiguration": configuration})

    def create_asset_revision(self) -> ActionResult:
        params = self._get_params()
        result = self._once(
            lambda: self.backend.create_asset_revision(
                caller=self.caller,
                domain_identifier=params["domainIdentifier"],
                identifier=params["identifier"],
                name=params["name"],
                description=params.get("description"),
                type_revision=params.get("typeRevision"),
                glossary_terms=params.get("glossaryTerms"),
                forms_input=params.get("formsInput"),
            ).to_dict()
        )
        configuration = params.get("predictionConfiguration")
        return ActionResult({**result, "predictionConfiguration": configuration})

    def get_asset(self) -> ActionResult:
        params = self._get_params()
        asset = self.backend.get_asset(params["domainIdentifier"], params["identifier"])
        return ActionResult(asset.to_dict(params.get("revision")))

    def list_asset_revisions(self) -> ActionResult:
        params = self._get_params()
        items, next_token = self.backend.list_asset_revisions(
            domain_identifier=params["domainIdentifier"],
            identifier=params["identifier"],
            max_results=params.get("maxResults"),
            next_token=params.get("nextToken"),
        )
        return ActionResult({"items": items, "nextToken": next_token})

    def search(self) -> ActionResult:
        params = self._get_params()
        items, next_token, total = self.backend.search(
            domain_identifier=params["domainIdentifier"],
            search_scope=params["searchScope"],
            owning_project_identifier=params.get("owningProjectIdentifier"),
            search_text=params.get("searchText"),
            search_in=params.get("searchIn"),
            filters=params.get("filters"),
            sort=params.get("sort"),
            additional_attributes=params.get("additionalAttributes"),
            max_results=params.get("maxResults"),
            next_token=params.get("nextToken"),
        )
        return ActionResult(
            {
                "items": [{"assetItem": item} for item in items],
                "nextToken": next_token,
                "totalMatchCount": total,
            }
        )

    # -------------------------------------------------------------- listings

    def create_listing_change_set(self) -> ActionResult:
        params = self._get_params()
        result = self._once(
            lambda: self.backend.create_listing_change_set(
                domain_identifier=params["domainIdentifier"],
                entity_identifier=params["entityIdentifier"],
                entity_type=params["entityType"],
                entity_revision=params.get("entityRevision"),
                action=params["action"],
            )
        )
        return ActionResult(result)

    def get_listing(self) -> ActionResult:
        params = self._get_params()
        listing = self.backend.get_listing(
            params["domainIdentifier"],
            params["identifier"],
            params.get("listingRevision"),
        )
        return ActionResult(listing.to_dict())

    # ------------------------------------------------------------------ runs

    def start_metadata_generation_run(self) -> ActionResult:
        params = self._get_params()
        run = self._once(
            lambda: self.backend.start_metadata_generation_run(
                caller=self.caller,
                domain_identifier=params["domainIdentifier"],
                target=params["target"],
                types=params.get("types") or [t for t in [params.get("type")] if t],
                owning_project_identifier=params["owningProjectIdentifier"],
            )
        )
        return ActionResult(run.to_dict())

    def get_metadata_generation_run(self) -> ActionResult:
        params = self._get_params()
        run = self.backend.get_metadata_generation_run(
            params["domainIdentifier"], params["identifier"]
        )
        return ActionResult(run.to_details(params.get("type")))

    def list_metadata_generation_runs(self) -> ActionResult:
        params = self._get_params()
        items, next_token = self.backend.list_metadata_generation_runs(
            domain_identifier=params["domainIdentifier"],
            status=params.get("status"),
            run_type=params.get("type"),
            target_identifier=params.get("targetIdentifier"),
            max_results=params.get("maxResults"),
            next_token=params.get("nextToken"),
        )
        return ActionResult({"items": items, "nextToken": next_token})

    def cancel_metadata_generation_run(self) -> ActionResult:
        params = self._get_params()
        self.backend.cancel_metadata_generation_run(
            params["domainIdentifier"], params["identifier"]
        )
        return EmptyResult()

    # ----------------------------------------------------------- predictions

    def accept_predictions(self) -> ActionResult:
        params = self._get_params()
        domain_id, asset_id = params["domainIdentifier"], params["identifier"]
        revision = self._once(
            lambda: self.backend.accept_predictions(
                caller=self.caller,
                domain_identifier=domain_id,
                identifier=asset_id,
                revision=params.get("revision"),
                accept_rule=params.get("acceptRule"),
                accept_choices=params.get("acceptChoices"),
            )
        )
        result = {"domainId": domain_id, "assetId": asset_id, "revision": revision}
        return ActionResult(result)

    def reject_predictions(self) -> ActionResult:
        params = self._get_params()
        domain_id, asset_id = params["domainIdentifier"], params["identifier"]
        revision = self._once(
            lambda: self.backend.reject_predictions(
                domain_identifier=domain_id,
                identifier=asset_id,
                revision=params.get("revision"),
                reject_rule=params.get("rejectRule"),
                reject_choices=params.get("rejectChoices"),
            )
        )
        result = {"domainId": domain_id, "assetId": asset_id, "assetRevision": revision}
        return ActionResult(result)
