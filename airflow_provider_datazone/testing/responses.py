"""Handles requests to DataZone: reads the parameters, calls the backend and builds the response."""

# As in moto, classes and methods named after AWS have no docstrings: the AWS documentation describes them.
# ruff: noqa: D102
from __future__ import annotations

from typing import Any

from moto.core.common_types import TYPE_RESPONSE
from moto.core.responses import ActionResult, BaseResponse, EmptyResult
from moto.core.utils import get_service_model

from . import models
from .exceptions import ValidationException
from .models import DataZoneBackend, datazone_backends
from .validation import validate_input


class DataZoneResponse(BaseResponse):
    """Handler of DataZone requests, with one method per operation."""

    def __init__(self) -> None:
        super().__init__(service_name="datazone")
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> DataZoneBackend:
        backend: DataZoneBackend = datazone_backends[self.current_account][self.region]
        return backend

    def call_action(self) -> TYPE_RESPONSE:
        with models.lock:
            return super().call_action()

    def parse_parameters(self, request: Any) -> None:
        try:
            super().parse_parameters(request)
        except (AttributeError, TypeError, ValueError):
            # moto does not convert an exception raised here into a response, so _get_params raises it.
            self.params = None

    def _get_params(self) -> dict[str, Any]:
        if self.params is None:
            raise ValidationException("The request cannot be read: a member is not of the type it should be")
        operation = get_service_model("datazone").operation_model(self._get_action())
        params: dict[str, Any] = super()._get_params()
        validate_input(operation.input_shape, params)
        return params

    def create_domain(self) -> ActionResult:
        params = self._get_params()
        domain = self.backend.create_domain(
            name=params["name"],
            description=params.get("description"),
            single_sign_on=params.get("singleSignOn"),
            domain_execution_role=params.get("domainExecutionRole"),
            kms_key_identifier=params.get("kmsKeyIdentifier"),
            tags=params.get("tags"),
            domain_version=params.get("domainVersion"),
            service_role=params.get("serviceRole"),
        )
        return ActionResult(domain.to_dict())

    def get_domain(self) -> ActionResult:
        return ActionResult(self.backend.get_domain(self._get_params()["identifier"]).to_dict())

    def list_domains(self) -> ActionResult:
        params = self._get_params()
        domains, next_token = self.backend.list_domains(
            status=params.get("status"),
            max_results=params.get("maxResults"),
            next_token=params.get("nextToken"),
        )
        return ActionResult({"items": [d.to_summary() for d in domains], "nextToken": next_token})

    def create_project(self) -> ActionResult:
        params = self._get_params()
        project = self.backend.create_project(
            domain_identifier=params["domainIdentifier"],
            name=params["name"],
            description=params.get("description"),
        )
        return ActionResult(project.to_dict())

    def get_project(self) -> ActionResult:
        params = self._get_params()
        project = self.backend.get_project(params["domainIdentifier"], params["identifier"])
        return ActionResult(project.to_dict())

    def create_asset(self) -> ActionResult:
        params = self._get_params()
        asset = self.backend.create_asset(
            domain_identifier=params["domainIdentifier"],
            owning_project_identifier=params["owningProjectIdentifier"],
            name=params["name"],
            description=params.get("description"),
            type_identifier=params["typeIdentifier"],
            type_revision=params.get("typeRevision"),
            external_identifier=params.get("externalIdentifier"),
            glossary_terms=params.get("glossaryTerms"),
            forms_input=params.get("formsInput"),
        )
        return ActionResult(asset.to_dict())

    def get_asset(self) -> ActionResult:
        params = self._get_params()
        asset = self.backend.get_asset(params["domainIdentifier"], params["identifier"])
        return ActionResult(asset.to_dict(params.get("revision")))

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

    def create_listing_change_set(self) -> ActionResult:
        params = self._get_params()
        return ActionResult(
            self.backend.create_listing_change_set(
                domain_identifier=params["domainIdentifier"],
                entity_identifier=params["entityIdentifier"],
                entity_type=params["entityType"],
                entity_revision=params.get("entityRevision"),
                action=params["action"],
                client_token=params.get("clientToken"),
            )
        )

    def get_listing(self) -> ActionResult:
        params = self._get_params()
        listing = self.backend.get_listing(
            params["domainIdentifier"], params["identifier"], params.get("listingRevision")
        )
        return ActionResult(listing.to_dict())

    def start_metadata_generation_run(self) -> ActionResult:
        params = self._get_params()
        run = self.backend.start_metadata_generation_run(
            domain_identifier=params["domainIdentifier"],
            target=params["target"],
            types=params.get("types") or [t for t in [params.get("type")] if t],
            owning_project_identifier=params["owningProjectIdentifier"],
            client_token=params.get("clientToken"),
        )
        return ActionResult(run.to_dict())

    def get_metadata_generation_run(self) -> ActionResult:
        params = self._get_params()
        run = self.backend.get_metadata_generation_run(params["domainIdentifier"], params["identifier"])
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
        self.backend.cancel_metadata_generation_run(params["domainIdentifier"], params["identifier"])
        return EmptyResult()

    def accept_predictions(self) -> ActionResult:
        params = self._get_params()
        revision = self.backend.accept_predictions(
            domain_identifier=params["domainIdentifier"],
            identifier=params["identifier"],
            revision=params.get("revision"),
            accept_rule=params.get("acceptRule"),
            accept_choices=params.get("acceptChoices"),
            client_token=params.get("clientToken"),
        )
        return ActionResult(
            {
                "domainId": params["domainIdentifier"],
                "assetId": params["identifier"],
                "revision": revision,
            }
        )

    def reject_predictions(self) -> ActionResult:
        params = self._get_params()
        revision = self.backend.reject_predictions(
            domain_identifier=params["domainIdentifier"],
            identifier=params["identifier"],
            revision=params.get("revision"),
            reject_rule=params.get("rejectRule"),
            reject_choices=params.get("rejectChoices"),
            client_token=params.get("clientToken"),
        )
        return ActionResult(
            {
                "domainId": params["domainIdentifier"],
                "assetId": params["identifier"],
                "assetRevision": revision,
            }
        )
