"""The DataZone backend, with one method per operation, and its resources."""

# As in moto, classes and methods named after AWS have no docstrings: the AWS documentation describes them.
# ruff: noqa: D101, D102
from __future__ import annotations

import base64
import binascii
import json
import operator
import re
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from moto.core.base_backend import BackendDict, BaseBackend
from moto.core.common_models import BaseModel
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.utils import utcnow
from moto.moto_api import state_manager
from moto.moto_api._internal import mock_random
from moto.moto_api._internal.managed_state_model import ManagedState

from .exceptions import (
    AccessDeniedException,
    ConflictException,
    ResourceNotFoundException,
    ValidationException,
)
from .scenario import ACTIVE_STATUSES, TERMINAL_STATUSES, RunOutcome, scenario

RUN_STATE_MODEL = "datazone::metadata-generation-run"
LISTING_STATE_MODEL = "datazone::listing"
# AWS documents an error for unsupported asset types, but not the list of supported types.
SUPPORTED_ASSET_TYPES = (
    "amazon.datazone.GlueTableAssetType",
    "amazon.datazone.RedshiftTableAssetType",
    "amazon.datazone.RedshiftViewAssetType",
)
SUGGESTION_FORM = ("SuggestionForm", "amazon.datazone.SuggestionFormType")
DETAILS_FORM = ("AssetCommonDetailsForm", "amazon.datazone.AssetCommonDetailsFormType")
COLUMNS_FORM = ("ColumnBusinessMetadataForm", "amazon.datazone.ColumnBusinessMetadataFormType")
# The attributes that a text search covers by default. AWS does not document which attributes it indexes.
# The summary in the form is an accepted business description.
DEFAULT_SEARCH_ATTRIBUTES = ("name", "description", f"{DETAILS_FORM[0]}.summary")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": operator.eq,
    "GE": operator.ge,
    "GT": operator.gt,
    "LE": operator.le,
    "LT": operator.lt,
}
# A nextToken contains the sort value of an asset, and has at most 8192 characters.
MAX_SORT_VALUE_LENGTH = 256
UNKNOWN_RUN = "Requested prediction cannot be found in domain"
UNKNOWN_ASSET = "The given Asset doesn't exist. Try creating Asset before accessing it."

#: Held while a request is handled: moto's server has many threads, and even a Get changes a run's status.
lock = threading.RLock()
#: The clock of runs whose duration is set in seconds. Tests can replace it.
clock: Callable[[], float] = time.monotonic

Numbered = TypeVar("Numbered", bound="NumberedModel")


def _new_id() -> str:
    return str(mock_random.get_random_string(length=14, lower_case=True))


class NumberedModel(BaseModel):
    """A resource with a number, which increases in the order of creation and orders the pages of a list."""

    number: int


def _number(item: NumberedModel) -> list[Any]:
    return [item.number]


def _page(
    items: Iterable[Numbered],
    max_results: int,
    next_token: str | None,
    position: Callable[[Numbered], list[Any]] = _number,
    descending: bool = False,
) -> tuple[list[Numbered], str | None]:
    """Return a page of items and the token of the next page.

    :param items: all items, in the order of their positions
    :param position: returns the position of an item as a JSON value. Default: its number
    """
    # moto's paginator does not work here. Its token names the first item of the next page, and fails if that
    # item no longer matches the filter, such as a run whose status has changed between two pages.
    if next_token is not None:
        try:
            last = json.loads(base64.urlsafe_b64decode(next_token))
        except (binascii.Error, ValueError):
            raise ValidationException("Invalid nextToken") from None

    def is_after_token(item: Numbered) -> bool:
        current = position(item)
        try:
            return bool(current < last if descending else current > last)
        except TypeError:
            raise ValidationException("Invalid nextToken") from None

    remaining = items if next_token is None else (item for item in items if is_after_token(item))
    page = list(islice(remaining, max_results + 1))
    if len(page) <= max_results:
        return page, None
    page.pop()
    return page, base64.urlsafe_b64encode(json.dumps(position(page[-1])).encode()).decode()


class Project(BaseModel):
    def __init__(self, domain: Domain, name: str, description: str | None, created_by: str):
        self.id = _new_id()
        self.domain = domain
        self.name = name
        self.description = description
        self.created_by = created_by
        self.created_at = utcnow()

    def to_dict(self) -> dict[str, Any]:
        return {
            "domainId": self.domain.id,
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "projectStatus": "ACTIVE",
            "createdBy": self.created_by,
            "createdAt": self.created_at,
            "lastUpdatedAt": self.created_at,
            "domainUnitId": self.domain.root_domain_unit_id,
        }


class Asset(NumberedModel):
    def __init__(
        self,
        number: int,
        domain: Domain,
        project: Project,
        type_identifier: str,
        type_revision: str | None,
        external_identifier: str | None,
        created_by: str,
    ):
        self.number = number
        self.id = _new_id()
        self.domain = domain
        self.project = project
        self.type_identifier = type_identifier
        self.type_revision = type_revision or "1"
        self.external_identifier = external_identifier
        self.created_by = created_by
        self.revisions: list[dict[str, Any]] = []
        self.runs: list[MetadataGenerationRun] = []
        self.listing: Listing | None = None
        # Suggestions by field path, the one with the highest confidence first.
        self.predictions: dict[str, list[dict[str, Any]]] = {}

    @property
    def latest_revision(self) -> str:
        return str(len(self.revisions))

    def add_revision(
        self,
        name: str,
        description: str | None,
        glossary_terms: list[str] | None,
        forms: list[dict[str, Any]],
    ) -> None:
        self.revisions.append(
            {
                "name": name,
                "description": description,
                "glossaryTerms": glossary_terms or None,
                "formsOutput": forms,
                "createdAt": utcnow(),
                "revision": str(len(self.revisions) + 1),
            }
        )

    def check_revision(self, revision: str | None) -> None:
        if revision is not None and revision not in {r["revision"] for r in self.revisions}:
            raise ResourceNotFoundException(UNKNOWN_ASSET)

    def to_dict(self, revision: str | None = None) -> dict[str, Any]:
        self.check_revision(revision)
        result = {
            "id": self.id,
            "typeIdentifier": self.type_identifier,
            "typeRevision": self.type_revision,
            "externalIdentifier": self.external_identifier,
            "createdBy": self.created_by,
            "firstRevisionCreatedAt": self.revisions[0]["createdAt"],
            "firstRevisionCreatedBy": self.created_by,
            "owningProjectId": self.project.id,
            "domainId": self.domain.id,
            **self.revisions[int(revision or self.latest_revision) - 1],
            "readOnlyFormsOutput": [],
        }
        if self.listing is not None:
            result["listing"] = {"listingId": self.listing.id, "listingStatus": self.listing.status}
        if self.predictions and result["revision"] == self.latest_revision:
            # AWS documents a list with a field path in each entry, and nothing else of it.
            suggestions = [{"fieldPath": path, "suggestions": s} for path, s in self.predictions.items()]
            content = {"fieldSuggestions": suggestions}
            result["readOnlyFormsOutput"] = [_form(SUGGESTION_FORM, content)]
        return result

    def to_item(self, include_forms: bool) -> dict[str, Any]:
        """Return the latest revision in the format of Search."""
        asset = self.to_dict()
        forms = {name: asset.pop(name) for name in ("formsOutput", "readOnlyFormsOutput")}
        for name in ("revision", "listing"):
            asset.pop(name, None)
        attributes = forms if include_forms else None
        return {"identifier": asset.pop("id"), **asset, "additionalAttributes": attributes}

    def attribute_values(self, attribute: str) -> list[Any]:
        """Return the strings and numbers in an attribute that a search can use.

        :param attribute: an attribute of the asset, or of a form as ``FormName.attribute``
        :return: the values. Empty if the attribute does not exist or has no value
        """
        latest = self._latest
        form_name, _, name = attribute.partition(".")
        if name:
            forms = [_parse_content(form) for form in latest["formsOutput"] if form["formName"] == form_name]
            values = [form.get(name) for form in forms if isinstance(form, dict)]
        else:
            values = [
                {
                    "name": latest["name"],
                    "description": latest["description"],
                    "__DataZoneGlossaryTerms": latest["glossaryTerms"],
                    "id": self.id,
                    "identifier": self.id,
                    "externalIdentifier": self.external_identifier,
                    "typeIdentifier": self.type_identifier,
                    "typeName": self.type_identifier,
                    "owningProjectId": self.project.id,
                    "creationTime": _milliseconds(self.revisions[0]["createdAt"]),
                    # The AWS documentation uses two names: one in its text and one in its example.
                    "lastUpdatedTime": _milliseconds(latest["createdAt"]),
                    "lastUpdatedAt": _milliseconds(latest["createdAt"]),
                }.get(attribute)
            ]
        flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
        return [item for item in flat if isinstance(item, (str, int, float)) and not isinstance(item, bool)]

    def contains_words(self, words: list[str], attributes: Iterable[str]) -> bool:
        """Return whether each word is a substring of at least one of the attributes."""
        values = [
            str(value).casefold() for attribute in attributes for value in self.attribute_values(attribute)
        ]
        return all(any(word in value for value in values) for word in words)

    def add_predictions(self, run_type: str) -> None:
        """Add the suggestions of a run type, with fixed confidence scores.

        The local DataZone has no glossaries, so ``BUSINESS_GLOSSARY_ASSOCIATIONS`` adds none.
        """
        columns = [column["columnName"] for column in self._columns()]
        if run_type == "BUSINESS_DESCRIPTIONS":
            self._suggest("summary", f"A summary of {self._latest['name']}", 0.9)
            for index, column in enumerate(columns):
                self._suggest(f"columns[{index}].columnDescription", f"What {column} says", 0.7)
        elif run_type == "BUSINESS_NAMES":
            self._suggest("name", self._latest["name"].replace("_", " ").title()[:200], 0.8)
            for index, column in enumerate(columns):
                self._suggest(f"columns[{index}].columnName", column.replace("_", " ").title(), 0.6)

    def _suggest(self, field_path: str, value: str, confidence: float) -> None:
        self.predictions[field_path] = [
            {"suggestion": value, "confidence": confidence},
            {"suggestion": f"{value}, in other words", "confidence": round(confidence - 0.4, 1)},
        ]

    def accept(self, values: dict[str, str]) -> None:
        """Create a new revision with the accepted values.

        Suggestions for other fields remain.

        :param values: the values by field path
        """
        forms = {form["formName"]: dict(form) for form in self._latest["formsOutput"]}
        name = self._latest["name"]
        for field_path, value in values.items():
            column = re.fullmatch(r"columns\[(\d+)]\.(\w+)", field_path)
            if column:
                content = _form_content(forms, COLUMNS_FORM)
                identifier = self._columns()[int(column[1])]["columnName"]
                entries = content.setdefault("columnsBusinessMetadata", [])
                entry = next((e for e in entries if e["columnIdentifier"] == identifier), None)
                if entry is None:
                    entry = {"columnIdentifier": identifier}
                    entries.append(entry)
                entry["name" if column[2] == "columnName" else "description"] = value
                forms[COLUMNS_FORM[0]] = _form(COLUMNS_FORM, content)
            elif field_path == "name":
                name = value
            else:
                content = {**_form_content(forms, DETAILS_FORM), field_path: value}
                forms[DETAILS_FORM[0]] = _form(DETAILS_FORM, content)
            del self.predictions[field_path]
        self.add_revision(
            name, self._latest["description"], self._latest["glossaryTerms"], list(forms.values())
        )

    @property
    def _latest(self) -> dict[str, Any]:
        return self.revisions[-1]

    def _columns(self) -> list[dict[str, Any]]:
        """Return the table's columns from the first form that lists columns."""
        for form in self._latest["formsOutput"]:
            content = _parse_content(form)
            columns = content.get("columns") if isinstance(content, dict) else None
            if isinstance(columns, list):
                return [c for c in columns if isinstance(c, dict) and isinstance(c.get("columnName"), str)]
        return []


def _form(form: tuple[str, str], content: dict[str, Any]) -> dict[str, Any]:
    name, type_name = form
    return {
        "formName": name,
        "typeName": type_name,
        "typeRevision": "1",
        "content": json.dumps(content),
    }


def _parse_content(form: dict[str, Any]) -> Any:
    try:
        return json.loads(form.get("content") or "{}")
    except ValueError:
        return None


def _form_content(forms: dict[str, dict[str, Any]], form: tuple[str, str]) -> dict[str, Any]:
    content = _parse_content(forms.get(form[0], {}))
    return content if isinstance(content, dict) else {}


def _milliseconds(time: datetime) -> int:
    # An integer division is exact, so the result equals the timestamp in a response.
    return (time - datetime(1970, 1, 1)) // timedelta(milliseconds=1)


def _words(text: str) -> list[str]:
    """Split a search text into words. Quotes, the order of the words and their case have no effect.

    AWS does not document how it searches for several words without quotes.
    """
    return text.replace('"', " ").casefold().split()


def _clause_predicate(clause: dict[str, Any]) -> Callable[[Asset], bool]:
    """Return a function that tests an asset against a clause of a search's ``filters``."""
    if len(clause) != 1:
        raise ValidationException("A filter clause has exactly one member of: and, filter, or")
    ((kind, value),) = clause.items()
    if kind == "filter":
        return _filter_predicate(value)
    predicates = [_clause_predicate(inner) for inner in value]
    combine = all if kind == "and" else any
    return lambda asset: combine(matches(asset) for matches in predicates)


def _filter_predicate(expression: dict[str, Any]) -> Callable[[Asset], bool]:
    """Return a function that tests an asset against a single filter.

    AWS does not document whether operators such as ``GT`` accept a string, nor how a filter treats an
    attribute without a value. Here, such an operator with a string is an error, and an attribute without a
    value matches no filter.
    """
    attribute, name = expression["attribute"], expression.get("operator") or "EQ"
    operands = [expression[member] for member in ("value", "intValue") if expression.get(member) is not None]
    if len(operands) != 1:
        raise ValidationException("A filter has either a value or an intValue")
    (operand,) = operands
    is_text = isinstance(operand, str)
    if is_text and name == "TEXT_SEARCH":
        words = _words(operand)
        return lambda asset: asset.contains_words(words, [attribute])
    if name not in (("EQ",) if is_text else COMPARISONS):
        raise ValidationException(f"{name} does not go with {'a value' if is_text else 'an intValue'}")
    compare = COMPARISONS[name]
    return lambda asset: any(
        compare(value, operand)
        for value in asset.attribute_values(attribute)
        if isinstance(value, str) == is_text
    )


class Listing(ManagedState):
    """The listing of an asset. A published revision is ``CREATING``, and then ``ACTIVE``.

    By default the first GetListing returns ``ACTIVE``. Moto's state transitions for ``datazone::listing``
    change that.
    """

    def __init__(self, asset: Asset):
        ManagedState.__init__(self, LISTING_STATE_MODEL, [("CREATING", "ACTIVE")])
        self.id = _new_id()
        self.asset = asset
        self.revision = 0
        self.asset_revision = ""
        self.created_at: datetime = utcnow()
        self.updated_at = self.created_at

    def publish(self) -> None:
        self.revision += 1
        self.asset_revision = self.asset.latest_revision
        self.updated_at = utcnow()
        self._status, self._tick = "CREATING", 0

    def unpublish(self) -> None:
        self.revision += 1
        self.updated_at = utcnow()
        self._status = "INACTIVE"

    def to_change_set(self) -> dict[str, Any]:
        return {
            "listingId": self.id,
            "listingRevision": str(self.revision),
            "status": self._status,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the listing in the format of GetListing."""
        asset = self.asset.to_dict(self.asset_revision)
        return {
            "domainId": self.asset.domain.id,
            "id": self.id,
            "listingRevision": str(self.revision),
            "name": asset["name"],
            "description": asset["description"],
            "status": self._status,
            "createdAt": self.created_at,
            "createdBy": self.asset.created_by,
            "updatedAt": self.updated_at,
            "updatedBy": self.asset.created_by,
            "item": {
                "assetListing": {
                    "assetId": self.asset.id,
                    "assetRevision": self.asset_revision,
                    "assetType": self.asset.type_identifier,
                    "owningProjectId": self.asset.project.id,
                    "createdAt": asset["createdAt"],
                }
            },
        }


class MetadataGenerationRun(ManagedState, NumberedModel):
    def __init__(
        self,
        number: int,
        project: Project,
        asset: Asset,
        revision: str | None,
        types: list[str],
        created_by: str,
        outcome: RunOutcome,
    ):
        final_status = outcome.run_status(types)
        transitions = [("SUBMITTED", "IN_PROGRESS"), ("IN_PROGRESS", final_status)]
        ManagedState.__init__(self, RUN_STATE_MODEL, transitions)
        self.number = number
        self.id = _new_id()
        self.project = project
        self.asset = asset
        self.revision = revision
        self.types = types
        self.created_by = created_by
        self.created_at: datetime = utcnow()
        self.outcome = outcome
        self._final_status = final_status
        self._status_is_fixed = False
        self._started_at = clock()
        self._polls = 0
        self._has_added_predictions = False

    def update_status(self, is_poll: bool = False) -> str:
        """Update the status, add the predictions if the run has ended, and return the status.

        :param is_poll: whether this counts as a poll, for runs that advance by the number of polls
        """
        if self._status in ACTIVE_STATUSES and not self._status_is_fixed:
            self._advance_status(is_poll)
        if self._status in TERMINAL_STATUSES and not self._has_added_predictions:
            self._has_added_predictions = True
            for run_type in self.types:
                if self._type_status(run_type) == "SUCCEEDED":
                    self.asset.add_predictions(run_type)
        return str(self._status)

    def _advance_status(self, is_poll: bool) -> None:
        outcome = self.outcome
        if outcome.polls is not None:
            self._polls += is_poll
            if self._polls >= outcome.polls:
                self._status = self._final_status
            elif self._polls:
                self._status = "IN_PROGRESS"
        elif outcome.submitted_seconds is None and outcome.in_progress_seconds is None:
            if is_poll:
                self.advance()
            self._status = self.status
        else:
            seconds_in_progress = clock() - self._started_at - (outcome.submitted_seconds or 0)
            if seconds_in_progress >= (outcome.in_progress_seconds or 0):
                self._status = self._final_status
            elif seconds_in_progress >= 0:
                self._status = "IN_PROGRESS"

    def set_status(self, status: str | None) -> None:
        """Set a status that the run keeps. None lets the run advance again."""
        self._status_is_fixed = status is not None
        if status is None:
            if self._status not in TERMINAL_STATUSES + ACTIVE_STATUSES:
                self._status = "IN_PROGRESS"
        else:
            self._status = status
            if status in ("SUCCEEDED", "FAILED", "CANCELED"):
                self.outcome = RunOutcome(
                    status=status,
                    error_messages=self.outcome.error_messages,
                    type_stats=self.outcome.type_stats,
                )

    def cancel(self) -> None:
        status = self.update_status()
        if status in TERMINAL_STATUSES:
            raise ValidationException(f"The MetadataGenerationRun in {status} status cannot be canceled.")
        self.set_status("CANCELED")

    def _type_status(self, run_type: str) -> str:
        if self._status in ACTIVE_STATUSES or self._status == "CANCELED":
            return str(self._status)
        # A test can set an unpublished status for the run, but not for its types.
        return self.outcome.type_status(run_type) if self._status in TERMINAL_STATUSES else "IN_PROGRESS"

    def _type_stat(self, run_type: str) -> dict[str, Any]:
        message = self.outcome.error_messages.get(run_type)
        has_ended = self._status in TERMINAL_STATUSES
        return {
            "type": run_type,
            "status": self._type_status(run_type),
            "errorMessage": message if has_ended else None,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the run in the format of Start."""
        return {
            "domainId": self.asset.domain.id,
            "id": self.id,
            "status": self._status,
            # Deprecated. It cannot represent several types.
            "type": self.types[0] if len(self.types) == 1 else None,
            "types": self.types,
            "createdAt": self.created_at,
            "createdBy": self.created_by,
            "owningProjectId": self.project.id,
        }

    def to_item(self) -> dict[str, Any]:
        """Return the run in the format of List."""
        target = {"type": "ASSET", "identifier": self.asset.id, "revision": self.revision}
        return {**self.to_dict(), "target": target}

    def to_details(self, run_type: str | None) -> dict[str, Any]:
        """Return the run in the format of Get.

        :param run_type: the only type in ``typeStats``, as in an example of the AWS documentation. None
            includes all types
        """
        types = [t for t in self.types if run_type in (None, t)]
        stats = [self._type_stat(t) for t in types] if self.outcome.type_stats else None
        return {**self.to_item(), "typeStats": stats}


class Domain(NumberedModel):
    def __init__(
        self,
        number: int,
        backend: DataZoneBackend,
        name: str,
        description: str | None,
        single_sign_on: dict[str, Any] | None,
        domain_execution_role: str | None,
        kms_key_identifier: str | None,
        tags: dict[str, str] | None,
        domain_version: str | None,
        service_role: str | None,
    ):
        self.number = number
        self.id = f"dzd-{_new_id()}"
        self.account_id = backend.account_id
        self.name = name
        self.description = description
        self.single_sign_on = single_sign_on
        self.domain_execution_role = domain_execution_role or (
            f"arn:{backend.partition}:iam::{backend.account_id}:role/service-role/AmazonDataZoneDomainExecution"
        )
        self.kms_key_identifier = kms_key_identifier
        self.tags = tags
        self.domain_version = domain_version or "V1"
        self.service_role = service_role
        self.arn = (
            f"arn:{backend.partition}:datazone:{backend.region_name}:{backend.account_id}:domain/{self.id}"
        )
        portal = "sagemaker" if self.domain_version == "V2" else "datazone"
        self.portal_url = f"https://{self.id}.{portal}.{backend.region_name}.on.aws"
        self.root_domain_unit_id = _new_id()
        self.created_at = utcnow()
        self.projects: dict[str, Project] = {}
        self.assets: dict[str, Asset] = {}
        self.runs: dict[str, MetadataGenerationRun] = {}
        self.listings: dict[str, Listing] = {}
        # Results by operation and client token. They are kept forever; how long AWS keeps them is unknown.
        self.results_by_token: dict[tuple[str, str], Any] = {}

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
            "managedAccountId": self.account_id,
            "status": "AVAILABLE",
            "portalUrl": self.portal_url,
            "createdAt": self.created_at,
            "lastUpdatedAt": self.created_at,
            "domainVersion": self.domain_version,
        }

    def to_dict(self) -> dict[str, Any]:
        result = {
            **self.to_summary(),
            "rootDomainUnitId": self.root_domain_unit_id,
            "singleSignOn": self.single_sign_on,
            "domainExecutionRole": self.domain_execution_role,
            "kmsKeyIdentifier": self.kms_key_identifier,
            "tags": self.tags,
            "serviceRole": self.service_role,
        }
        del result["managedAccountId"]
        return result


class DataZoneBackend(BaseBackend):
    """Implementation of DataZone APIs."""

    def __init__(self, region_name: str, account_id: str):
        super().__init__(region_name, account_id)
        self.domains: dict[str, Domain] = {}
        # The user profile that creates all resources.
        self.user_id = str(mock_random.uuid4())
        for model in (RUN_STATE_MODEL, LISTING_STATE_MODEL):
            state_manager.register_default_transition(model, transition={"progression": "manual", "times": 1})

    def reset(self) -> None:
        scenario.clear()
        super().reset()

    def create_domain(self, **kwargs: Any) -> Domain:
        domain = Domain(len(self.domains), self, **kwargs)
        self.domains[domain.id] = domain
        return domain

    def get_domain(self, identifier: str) -> Domain:
        if identifier not in self.domains:
            # AWS does not document its error message.
            raise ResourceNotFoundException(f"Domain {identifier} does not exist")
        return self.domains[identifier]

    def list_domains(
        self, status: str | None, max_results: int | None, next_token: str | None
    ) -> tuple[list[Domain], str | None]:
        domains = self.domains.values() if status in (None, "AVAILABLE") else ()
        return _page(domains, max_results or 25, next_token)

    def create_project(self, domain_identifier: str, name: str, description: str | None) -> Project:
        domain = self.get_domain(domain_identifier)
        project = Project(domain, name, description, self.user_id)
        domain.projects[project.id] = project
        return project

    def get_project(self, domain_identifier: str, identifier: str) -> Project:
        return self.get_domain(domain_identifier).project(identifier)

    def create_asset(
        self,
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
        asset = Asset(
            len(domain.assets),
            domain,
            project,
            type_identifier,
            type_revision,
            external_identifier,
            self.user_id,
        )
        forms = [
            {
                "formName": form["formName"],
                "typeName": form.get("typeIdentifier"),
                "typeRevision": form.get("typeRevision"),
                "content": form.get("content"),
            }
            for form in forms_input or []
        ]
        asset.add_revision(name, description, glossary_terms, forms)
        domain.assets[asset.id] = asset
        return asset

    def get_asset(self, domain_identifier: str, identifier: str) -> Asset:
        return self.get_domain(domain_identifier).asset(identifier)

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
        """Return the items of a page, the token of the next page, and the total number of items."""
        if domain_identifier not in self.domains:
            # The service model has no ResourceNotFoundException for Search.
            raise AccessDeniedException(f"User is not permitted to search domain {domain_identifier}")
        domain = self.domains[domain_identifier]
        matches = _clause_predicate(filters) if filters is not None else lambda _: True
        words = _words(search_text or "")
        attributes = [item["attribute"] for item in search_in or []] or DEFAULT_SEARCH_ATTRIBUTES
        descending = (sort or {}).get("order") == "DESCENDING"

        def position(asset: Asset) -> list[Any]:
            # Assets without a value are last in both orders, and equal assets are sorted oldest first.
            number = -asset.number if descending else asset.number
            values = asset.attribute_values(sort["attribute"]) if sort else []
            if not values:
                return [-1 if descending else 2, 0, number]
            if isinstance(values[0], str):
                return [1, values[0][:MAX_SORT_VALUE_LENGTH], number]
            return [0, values[0], number]

        found = [
            asset
            # The local DataZone has no glossaries and no data products.
            for asset in (domain.assets.values() if search_scope == "ASSET" else ())
            if owning_project_identifier in (None, asset.project.id)
            and asset.contains_words(words, attributes)
            and matches(asset)
        ]
        found.sort(key=position, reverse=descending)
        page, following = _page(found, max_results or 50, next_token, position, descending)
        # The attributes TIME_SERIES_DATA_POINT_FORMS and TEXT_MATCH_RATIONALE are optional and not supported.
        include_forms = "FORMS" in (additional_attributes or ())
        return [domain.asset(asset.id).to_item(include_forms) for asset in page], following, len(found)

    def create_listing_change_set(
        self,
        domain_identifier: str,
        entity_identifier: str,
        entity_type: str,
        entity_revision: str | None,
        action: str,
        client_token: str | None,
    ) -> dict[str, Any]:
        domain = self.get_domain(domain_identifier)
        if entity_type != "ASSET":
            raise ResourceNotFoundException(f"Data product {entity_identifier} does not exist")
        asset = domain.asset(entity_identifier)
        asset.check_revision(entity_revision)
        if entity_revision not in (None, asset.latest_revision):
            raise ValidationException("Only the latest revision of an asset can be published")
        key = ("CreateListingChangeSet", client_token or "")
        if client_token and key in domain.results_by_token:
            return dict(domain.results_by_token[key])
        if action == "PUBLISH":
            if asset.listing is None:
                asset.listing = Listing(asset)
                domain.listings[asset.listing.id] = asset.listing
            asset.listing.publish()
        elif asset.listing is None:
            raise ResourceNotFoundException(f"Asset {entity_identifier} has no listing")
        else:
            asset.listing.unpublish()
        result = asset.listing.to_change_set()
        if client_token:
            domain.results_by_token[key] = result
        return dict(result)

    def get_listing(self, domain_identifier: str, identifier: str, listing_revision: str | None) -> Listing:
        listing = self.get_domain(domain_identifier).listings.get(identifier)
        # AWS does not document its error message.
        if listing is None or listing_revision not in (None, str(listing.revision)):
            raise ResourceNotFoundException(f"Listing {identifier} does not exist")
        if listing.status == "CREATING":
            listing.advance()
            listing._status = listing.status
        return listing

    def start_metadata_generation_run(
        self,
        domain_identifier: str,
        target: dict[str, Any],
        types: list[str],
        owning_project_identifier: str,
        client_token: str | None,
    ) -> MetadataGenerationRun:
        domain = self.get_domain(domain_identifier)
        key = ("StartMetadataGenerationRun", client_token or "")
        if client_token and key in domain.results_by_token:
            run: MetadataGenerationRun = domain.results_by_token[key]
            run.update_status()
            return run
        if not types:
            # The service model requires neither `types` nor the deprecated `type`.
            raise ValidationException("At least one type of metadata generation run is required")
        project = domain.project(owning_project_identifier)
        asset = domain.asset(target["identifier"])
        if asset.project is not project:
            # AWS does not document its error for this case.
            raise AccessDeniedException(
                f"Project {project.id} is not permitted to generate metadata for asset {asset.id}"
            )
        if asset.type_identifier not in SUPPORTED_ASSET_TYPES:
            raise ValidationException(
                "Metadata Descriptions Generation is not supported for input asset type"
            )
        asset.check_revision(target.get("revision"))
        run = MetadataGenerationRun(
            len(domain.runs),
            project,
            asset,
            target.get("revision"),
            list(dict.fromkeys(types)),
            self.user_id,
            scenario.take_outcome(asset.id),
        )
        domain.runs[run.id] = run
        asset.runs.append(run)
        domain.results_by_token[key] = run
        return run

    def get_metadata_generation_run(self, domain_identifier: str, identifier: str) -> MetadataGenerationRun:
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
        page, following = _page(runs, max_results or 50, next_token)
        items = [run.to_item() for run in page]
        # List counts as a poll: otherwise a run would never advance for a client that only lists runs. The
        # response has the status before the poll, which is why it matches the filter.
        for run in page:
            run.update_status(is_poll=True)
        return items, following

    def cancel_metadata_generation_run(self, domain_identifier: str, identifier: str) -> None:
        self.get_domain(domain_identifier).run(identifier).cancel()

    def accept_predictions(
        self,
        domain_identifier: str,
        identifier: str,
        revision: str | None,
        accept_rule: dict[str, Any] | None,
        accept_choices: list[dict[str, Any]] | None,
        client_token: str | None,
    ) -> str:
        def accept(asset: Asset) -> None:
            paths = _paths_matching_rule(asset, accept_rule)
            values = {path: asset.predictions[path][0]["suggestion"] for path in paths}
            for choice in accept_choices or []:
                path = choice["predictionTarget"]
                suggestion = _suggestion(asset, path, choice.get("predictionChoice") or 0)
                values[path] = choice.get("editedValue") or suggestion["suggestion"]
            if len(values.get("name", "")) > 256:
                raise ValidationException("The name of an asset has at most 256 characters")
            if values:
                asset.accept(values)

        return self._apply_decision(
            "AcceptPredictions",
            domain_identifier,
            identifier,
            revision,
            accept_rule or accept_choices,
            client_token,
            accept,
        )

    def reject_predictions(
        self,
        domain_identifier: str,
        identifier: str,
        revision: str | None,
        reject_rule: dict[str, Any] | None,
        reject_choices: list[dict[str, Any]] | None,
        client_token: str | None,
    ) -> str:
        def reject(asset: Asset) -> None:
            rejected_paths = _paths_matching_rule(asset, reject_rule)
            rejected: list[dict[str, Any]] = []
            for choice in reject_choices or []:
                path = choice["predictionTarget"]
                numbers = choice.get("predictionChoices") or [0]
                rejected += [_suggestion(asset, path, number) for number in numbers]
            for path, suggestions in list(asset.predictions.items()):
                remaining = [s for s in suggestions if not any(s is r for r in rejected)]
                # The rule compares the top suggestion of a target, and rejects all suggestions of the target.
                if remaining and path not in rejected_paths:
                    asset.predictions[path] = remaining
                else:
                    del asset.predictions[path]

        return self._apply_decision(
            "RejectPredictions",
            domain_identifier,
            identifier,
            revision,
            reject_rule or reject_choices,
            client_token,
            reject,
        )

    def _apply_decision(
        self,
        operation: str,
        domain_identifier: str,
        identifier: str,
        revision: str | None,
        criteria: Any,
        client_token: str | None,
        decide: Callable[[Asset], None],
    ) -> str:
        """Accept or reject an asset's predictions, once per client token.

        AWS does not document its response for an asset without predictions.

        :param criteria: the rule or the choices of the request; one of them is required
        :param decide: a function that updates the asset
        :return: the latest revision of the asset
        """
        domain = self.get_domain(domain_identifier)
        key = (operation, client_token or "")
        if client_token and key in domain.results_by_token:
            return str(domain.results_by_token[key])
        asset = domain.asset(identifier)
        if not criteria:
            raise ValidationException("A rule or at least one choice is required")
        asset.check_revision(revision)
        if revision not in (None, asset.latest_revision):
            raise ConflictException(f"Revision {revision} is not the latest revision of the asset")
        if not asset.predictions:
            raise ResourceNotFoundException(UNKNOWN_RUN)
        decide(asset)
        domain.results_by_token[key] = asset.latest_revision
        return asset.latest_revision


def _paths_matching_rule(asset: Asset, rule: dict[str, Any] | None) -> list[str]:
    """Return the field paths whose top suggestion has at least the confidence of the rule's threshold."""
    if not rule or rule.get("rule") != "ALL":
        return []
    threshold = rule.get("threshold") or 0
    return [
        path for path, suggestions in asset.predictions.items() if suggestions[0]["confidence"] >= threshold
    ]


def _suggestion(asset: Asset, path: str, number: int) -> dict[str, Any]:
    """Return a suggestion by its number, starting at 0. AWS does not document where numbers start."""
    suggestions = asset.predictions.get(path, [])
    if not 0 <= number < len(suggestions):
        raise ValidationException(f"There is no prediction {number} for target '{path}'")
    return suggestions[number]


datazone_backends = BackendDict(
    DataZoneBackend,
    "datazone",
    # Regions of other partitions, which botocore does not list for DataZone.
    additional_regions=["cn-north-1", "cn-northwest-1", "us-gov-east-1", "us-gov-west-1"],
)


def ensure_reset_clears_scenario() -> None:
    """Create a backend, so that a reset of moto also clears the scenario.

    Moto resets only existing backends, and creates a backend on first use.
    """
    datazone_backends[DEFAULT_ACCOUNT_ID]["us-east-1"]
