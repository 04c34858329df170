"""The part of the hook for assets: search, predictions and publication."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.inputs import require_text, to_number, to_plain, to_text
from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.predictions import edited_values, parse_predictions
from airflow_provider_datazone.service_requests import DataZoneRequestHook, iterate_pages


class DataZoneAssetHook(DataZoneRequestHook):
    """The operations on assets; the base of ``DataZoneHook``, which adds those on runs."""

    # ---------------------------------------------------------- predictions

    def accept_predictions(
        self,
        asset_identifier: str,
        *,
        domain_identifier: str | None = None,
        revision: str | None = None,
        rule: str | None = None,
        threshold: float | None = None,
        choices: Sequence[dict[str, Any]] | None = None,
        client_token: str | None = None,
    ) -> str:
        """
        Accept predictions for an asset. This creates a new revision of the asset.

        :param asset_identifier: The asset.
        :param domain_identifier: The domain; default from the connection.
        :param revision: The asset's revision; by default the latest.
        :param rule: ``ALL`` or ``NONE``; required without ``choices``.
        :param threshold: With ``rule``: the lowest confidence to accept, 0 to 1.
        :param choices: AWS's ``acceptChoices``:
            ``{"predictionTarget": str, "predictionChoice"?: int, "editedValue"?: str}``.
        :param client_token: The same token accepts once, however often it is sent. By default every call has
            its own token.
        :return: The asset's new revision.
        :raises ValueError: Neither a rule nor choices are given, or no domain.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        :raises MalformedResponseError: The response has no revision.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_AcceptPredictions.html
        """
        return self._decide_on_predictions(
            "accept", asset_identifier, domain_identifier, revision, rule, threshold, choices, client_token
        )

    def reject_predictions(
        self,
        asset_identifier: str,
        *,
        domain_identifier: str | None = None,
        revision: str | None = None,
        rule: str | None = None,
        threshold: float | None = None,
        choices: Sequence[dict[str, Any]] | None = None,
        client_token: str | None = None,
    ) -> str:
        """
        Reject predictions for an asset.

        :param asset_identifier: The asset.
        :param domain_identifier: The domain; default from the connection.
        :param revision: The asset's revision; by default the latest.
        :param rule: ``ALL`` or ``NONE``; required without ``choices``.
        :param threshold: With ``rule``: the confidence that the rule compares with, 0 to 1.
        :param choices: AWS's ``rejectChoices``:
            ``{"predictionTarget": str, "predictionChoices"?: list[int]}``.
        :param client_token: The same token rejects once, however often it is sent. By default every call has
            its own token.
        :return: The asset's revision.
        :raises ValueError: Neither a rule nor choices are given, or no domain.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        :raises MalformedResponseError: The response has no revision.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_RejectPredictions.html
        """
        return self._decide_on_predictions(
            "reject", asset_identifier, domain_identifier, revision, rule, threshold, choices, client_token
        )

    def _decide_on_predictions(
        self,
        decision: str,
        asset_identifier: str,
        domain_identifier: str | None,
        revision: str | None,
        rule: str | None,
        threshold: float | None,
        choices: Sequence[dict[str, Any]] | None,
        client_token: str | None,
    ) -> str:
        asset_identifier = require_text("asset_identifier", asset_identifier)
        subject = f"asset {asset_identifier!r}"
        rule, threshold = to_text("rule", rule), to_number("threshold", threshold)
        choices = to_plain("choices", choices)
        if rule is None and choices is None:
            raise NotConfiguredError(
                f"rule or choices is required to {decision} predictions for {sanitize(subject, length=200)}: "
                "pass rule ('ALL' or 'NONE', with or without a threshold) or choices."
            )
        if threshold is not None and rule is None:
            raise NotConfiguredError("threshold needs a rule: pass rule='ALL', too.")
        # Validated here, since botocore's error for invalid choices would show an edited value.
        sensitive_values = edited_values(() if choices is None else choices)
        if rule is None and not choices:
            self.log.info("choices is empty: there is nothing to %s for %s.", decision, subject)
            return to_text("revision", revision) or sanitize(
                self.get_asset(asset_identifier, domain_identifier=domain_identifier)["revision"]
            )
        request: dict[str, Any] = {f"{decision}Choices": choices}
        if rule is not None:
            request[f"{decision}Rule"] = {"rule": rule}
            if threshold is not None:
                request[f"{decision}Rule"]["threshold"] = threshold
        domain = self.resolve_domain_identifier(domain_identifier)
        response = self._call(
            f"{decision}_predictions",
            subject,
            sensitive_values=sensitive_values,
            domainIdentifier=domain,
            identifier=asset_identifier,
            revision=to_text("revision", revision),
            clientToken=to_text("client_token", client_token),
            **request,
        )
        member = "revision" if decision == "accept" else "assetRevision"
        if not isinstance(response.get(member), str):
            raise self._malformed(f"responded without {member}", subject, domain)
        return sanitize(response[member])

    def get_predictions(
        self, asset_identifier: str, *, domain_identifier: str | None = None, revision: str | None = None
    ) -> list[dict[str, Any]]:
        """
        Read the predictions for an asset, as they are on the asset's revision.

        :param asset_identifier: The asset.
        :param domain_identifier: The domain; default from the connection.
        :param revision: The asset's revision; by default the latest.
        :return: The entries of the asset's ``SuggestionForm``, one per field:
            ``{"fieldPath": str, ...}``. AWS does not document the other keys; they are returned as DataZone
            sends them. ``[]`` if there are no predictions.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        :raises MalformedResponseError: The form is not JSON, or not a list of suggestions.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetAsset.html
        """
        return self.parse_predictions(
            self.get_asset(asset_identifier, domain_identifier=domain_identifier, revision=revision)
        )

    def parse_predictions(self, asset: dict[str, Any]) -> list[dict[str, Any]]:
        """
        Return the predictions for an asset that :meth:`get_asset` returned.

        :param asset: The asset.
        :return: As :meth:`get_predictions`.
        :raises MalformedResponseError: The form is not JSON, or not a list of suggestions.
        """
        try:
            return parse_predictions(asset)
        except ValueError as error:
            subject = f"asset {asset['id']!r}"
            raise self._malformed(f"responded with {error}", subject, asset["domainId"]) from None

    # --------------------------------------------------------------- assets

    def get_asset(
        self, asset_identifier: str, *, domain_identifier: str | None = None, revision: str | None = None
    ) -> dict[str, Any]:
        """
        Read an asset.

        :param asset_identifier: The asset.
        :param domain_identifier: The domain; default from the connection.
        :param revision: The asset's revision; by default the latest.
        :return: The asset in AWS's shape, ``{"id": str, "domainId": str, "name": str, "revision": str,
            "formsOutput": list, ...}``.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        :raises MalformedResponseError: The response is not an asset.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetAsset.html
        """
        asset_identifier = require_text("asset_identifier", asset_identifier)
        subject = f"asset {asset_identifier!r}"
        domain = self.resolve_domain_identifier(domain_identifier)
        response = self._call(
            "get_asset",
            subject,
            domainIdentifier=domain,
            identifier=asset_identifier,
            revision=to_text("revision", revision),
        )
        self._require_texts(response, ("id", "domainId", "revision"), subject, domain)
        return {name: value for name, value in response.items() if name != "ResponseMetadata"}

    def publish_asset(
        self,
        asset_identifier: str,
        *,
        domain_identifier: str | None = None,
        revision: str | None = None,
        client_token: str | None = None,
    ) -> dict[str, Any]:
        """
        Publish an asset to the catalog.

        :param asset_identifier: The asset.
        :param domain_identifier: The domain; default from the connection.
        :param revision: The asset's revision; by default the latest. DataZone refuses any other revision.
        :param client_token: The same token publishes once, however often it is sent. By default every call
            has its own token.
        :return: The listing, ``{"listingId": str, "listingRevision": str, "status": str}``. Its status may
            still be ``CREATING``.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        :raises MalformedResponseError: The response is not a listing.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_CreateListingChangeSet.html
        """
        asset_identifier = require_text("asset_identifier", asset_identifier)
        subject = f"asset {asset_identifier!r}"
        domain = self.resolve_domain_identifier(domain_identifier)
        response = self._call(
            "create_listing_change_set",
            subject,
            domainIdentifier=domain,
            entityIdentifier=asset_identifier,
            entityType="ASSET",
            entityRevision=to_text("revision", revision),
            action="PUBLISH",
            clientToken=to_text("client_token", client_token),
        )
        members = ("listingId", "listingRevision", "status")
        self._require_texts(response, members, subject, domain)
        return {member: sanitize(response[member]) for member in members}

    def _require_texts(
        self, response: dict[str, Any], members: Sequence[str], subject: str, domain: str
    ) -> None:
        if not all(isinstance(response.get(member), str) for member in members):
            raise self._malformed(f"responded without one of {', '.join(members)}", subject, domain)

    def get_listing(
        self,
        listing_identifier: str,
        *,
        domain_identifier: str | None = None,
        listing_revision: str | None = None,
    ) -> dict[str, Any]:
        """
        Read a listing of the catalog.

        :param listing_identifier: The listing.
        :param domain_identifier: The domain; default from the connection.
        :param listing_revision: The listing's revision; by default the latest.
        :return: The listing in AWS's shape, ``{"id": str, "listingRevision": str, "status": str, ...}``. The
            status is ``CREATING``, ``ACTIVE`` or ``INACTIVE``.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetListing.html
        """
        listing_identifier = require_text("listing_identifier", listing_identifier)
        response = self._call(
            "get_listing",
            f"listing {listing_identifier!r}",
            domainIdentifier=self.resolve_domain_identifier(domain_identifier),
            identifier=listing_identifier,
            listingRevision=to_text("listing_revision", listing_revision),
        )
        return {name: value for name, value in response.items() if name != "ResponseMetadata"}

    def search_assets(
        self,
        *,
        domain_identifier: str | None = None,
        owning_project_identifier: str | None = None,
        search_text: str | None = None,
        filters: dict[str, Any] | None = None,
        sort: dict[str, Any] | None = None,
        additional_attributes: Sequence[str] | None = None,
        page_size: int = 50,
    ) -> Iterator[dict[str, Any]]:
        """
        Search the inventory of a domain for assets lazily: each page is requested when it is needed.

        DataZone cannot search for assets that lack something, for example a description. Search for all
        assets and check each one; ``additional_attributes=["FORMS"]`` returns their forms, too.

        :param domain_identifier: The domain; default from the connection.
        :param owning_project_identifier: Only assets of this project; by default of every project that the
            caller can see. The connection's ``owning_project_identifier`` has no effect here.
        :param search_text: Only assets with this text in a searchable attribute.
        :param filters: AWS's ``FilterClause``: ``{"filter": {"attribute": str, "value": str}}``, or a list of
            such clauses under ``and`` or ``or``. The name of a form's attribute is ``FormName.attribute``.
            ``operator`` and ``intValue`` need botocore 1.42.30.
        :param sort: AWS's ``SearchSort``: ``{"attribute": str, "order"?: "ASCENDING" | "DESCENDING"}``;
            by default the service's order.
        :param additional_attributes: More attributes to return, for example ``["FORMS"]``.
        :param page_size: Assets per request, 1 to 50. Default 50.
        :return: The latest revisions of the assets as AWS's ``AssetItem``:
            ``{"identifier": str, "name": str, "description"?: str, "typeIdentifier": str, ...}``.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        :raises MalformedResponseError: An item is not an asset.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_Search.html
        """
        return iterate_pages(
            partial(
                self._search_page,
                # Resolved now, so that an error comes from the call and not from the iterator.
                domainIdentifier=self.resolve_domain_identifier(domain_identifier),
                searchScope="ASSET",
                owningProjectIdentifier=to_text("owning_project_identifier", owning_project_identifier),
                searchText=to_text("search_text", search_text),
                filters=filters,
                sort=sort,
                additionalAttributes=additional_attributes,
                maxResults=page_size,
            )
        )

    def _search_page(
        self, *, next_token: str | None, **request: Any
    ) -> tuple[list[dict[str, Any]], str | None]:
        subject = "searching for assets"
        items, following = self._call_for_page("search", subject, nextToken=next_token, **request)
        assets = [item.get("assetItem") if isinstance(item, dict) else None for item in items]
        if not all(isinstance(asset, dict) for asset in assets):
            problem = "responded with an item that is not an asset"
            raise self._malformed(problem, subject, request["domainIdentifier"])
        return [asset for asset in assets if asset is not None], following
