"""Assets, their forms, and the predictions for them."""

# ruff: noqa: D101, D102
from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from moto.core.utils import utcnow

from .exceptions import ResourceNotFoundException, ValidationException
from .identifiers import new_id
from .pagination import NumberedModel

if TYPE_CHECKING:
    from .domains import Domain, Project
    from .listings import Listing
    from .runs import MetadataGenerationRun

SUGGESTION_FORM = ("SuggestionForm", "amazon.datazone.SuggestionFormType")
DETAILS_FORM = ("AssetCommonDetailsForm", "amazon.datazone.AssetCommonDetailsFormType")
COLUMNS_FORM = (
    "ColumnBusinessMetadataForm",
    "amazon.datazone.ColumnBusinessMetadataFormType",
)
# The attributes that a text search covers by default. AWS does not document which
# attributes it indexes. The summary in the form is an accepted business description.
DEFAULT_SEARCH_ATTRIBUTES = ("name", "description", f"{DETAILS_FORM[0]}.summary")
UNKNOWN_ASSET = "The given Asset doesn't exist. Try creating Asset before accessing it."
COLUMN_PATH = re.compile(r"columns\[(\d+)]\.(\w+)")


class AssetRevision(NumberedModel):
    def __init__(
        self,
        number: int,
        name: str,
        description: str | None,
        glossary_terms: list[str] | None,
        forms: list[dict[str, Any]],
        type_revision: str,
        created_by: str,
    ):
        self.number = number
        self.name = name
        self.description = description
        self.glossary_terms = glossary_terms
        self.forms = forms
        self.type_revision = type_revision
        self.created_by = created_by
        self.created_at: datetime = utcnow()

    @property
    def revision(self) -> str:
        return str(self.number)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": self.description,
            "glossaryTerms": self.glossary_terms or None,
            "formsOutput": self.forms,
            "typeRevision": self.type_revision,
            "createdAt": self.created_at,
            "createdBy": self.created_by,
            "revision": self.revision,
        }


class Asset(NumberedModel):
    def __init__(
        self,
        number: int,
        domain: Domain,
        project: Project,
        type_identifier: str,
        external_identifier: str | None,
        created_by: str,
    ):
        self.number = number
        self.id = new_id()
        self.domain = domain
        self.project = project
        self.type_identifier = type_identifier
        self.external_identifier = external_identifier
        self.created_by = created_by
        self.revisions: list[AssetRevision] = []
        self.runs: list[MetadataGenerationRun] = []
        self.listing: Listing | None = None
        # Suggestions by field path, the one with the highest confidence first.
        self.predictions: dict[str, list[dict[str, Any]]] = {}

    @property
    def latest_revision(self) -> str:
        return self._latest.revision

    def add_revision(
        self,
        name: str,
        description: str | None,
        glossary_terms: list[str] | None,
        forms: list[dict[str, Any]],
        type_revision: str,
        created_by: str,
    ) -> None:
        """Add a revision. Suggestions for columns that it lacks are dropped.

        AWS does not document what happens to the suggestions.
        """
        columns = self._columns() if self.revisions else []
        self.revisions.append(
            AssetRevision(
                len(self.revisions) + 1,
                name,
                description,
                glossary_terms,
                forms,
                type_revision,
                created_by,
            )
        )
        new_columns = self._columns()
        predictions, self.predictions = self.predictions, {}
        for path, suggestions in predictions.items():
            column = COLUMN_PATH.fullmatch(path)
            if column is None:
                self.predictions[path] = suggestions
            elif columns[int(column[1])] in new_columns:
                index = new_columns.index(columns[int(column[1])])
                self.predictions[f"columns[{index}].{column[2]}"] = suggestions

    def check_revision(self, revision: str | None) -> None:
        if revision is not None and revision not in {
            r.revision for r in self.revisions
        }:
            raise ResourceNotFoundException(UNKNOWN_ASSET)

    def to_dict(self, revision: str | None = None) -> dict[str, Any]:
        self.check_revision(revision)
        first = self.revisions[0]
        result = {
            "id": self.id,
            "typeIdentifier": self.type_identifier,
            "externalIdentifier": self.external_identifier,
            "firstRevisionCreatedAt": first.created_at,
            "firstRevisionCreatedBy": first.created_by,
            "owningProjectId": self.project.id,
            "domainId": self.domain.id,
            **self.revisions[int(revision or self.latest_revision) - 1].to_dict(),
            "readOnlyFormsOutput": [],
        }
        if self.listing is not None:
            result["listing"] = {
                "listingId": self.listing.id,
                "listingStatus": self.listing.status,
            }
        if self.predictions and result["revision"] == self.latest_revision:
            # AWS documents a list with a field path in each entry, and nothing else.
            suggestions = [
                {"fieldPath": path, "suggestions": s}
                for path, s in self.predictions.items()
            ]
            content = {"fieldSuggestions": suggestions}
            result["readOnlyFormsOutput"] = [_form(SUGGESTION_FORM, content)]
        return result

    def to_item(self, include_forms: bool) -> dict[str, Any]:
        """Return the latest revision in the format of Search."""
        asset = self.to_dict()
        names = ("formsOutput", "readOnlyFormsOutput")
        forms = {name: asset.pop(name) for name in names}
        for name in ("revision", "listing"):
            asset.pop(name, None)
        attributes = forms if include_forms else None
        identifier = asset.pop("id")
        return {"identifier": identifier, **asset, "additionalAttributes": attributes}

    # ---------------------------------------------------------------- search

    def attribute_values(self, attribute: str) -> list[Any]:
        """Return the strings and numbers in an attribute that a search can use.

        :param attribute: an attribute of the asset, or ``FormName.attribute``
        :return: the values. Empty if the attribute does not exist or has no value
        """
        latest = self._latest
        form_name, _, name = attribute.partition(".")
        if name:
            forms = [
                _parse_content(f) for f in latest.forms if f["formName"] == form_name
            ]
            values = [form.get(name) for form in forms if isinstance(form, dict)]
        else:
            values = [
                {
                    "name": latest.name,
                    "description": latest.description,
                    "__DataZoneGlossaryTerms": latest.glossary_terms,
                    "id": self.id,
                    "identifier": self.id,
                    "externalIdentifier": self.external_identifier,
                    "typeIdentifier": self.type_identifier,
                    "typeName": self.type_identifier,
                    "owningProjectId": self.project.id,
                    "creationTime": _milliseconds(self.revisions[0].created_at),
                    # AWS uses two names: one in its text and one in its example.
                    "lastUpdatedTime": _milliseconds(latest.created_at),
                    "lastUpdatedAt": _milliseconds(latest.created_at),
                }.get(attribute)
            ]
        flat = [
            item
            for value in values
            for item in (value if isinstance(value, list) else [value])
        ]
        return [
            item
            for item in flat
            if isinstance(item, (str, int, float)) and not isinstance(item, bool)
        ]

    def contains_words(self, words: list[str], attributes: Iterable[str]) -> bool:
        """Return whether each word is a substring of at least one attribute."""
        values = [
            str(value).casefold()
            for attribute in attributes
            for value in self.attribute_values(attribute)
        ]
        return all(any(word in value for value in values) for word in words)

    # ----------------------------------------------------------- predictions

    def add_predictions(self, run_type: str) -> None:
        """Add the suggestions of a run type, with fixed confidence scores.

        There are no glossaries, so ``BUSINESS_GLOSSARY_ASSOCIATIONS`` adds none.
        """
        name = self._latest.name
        columns = self._columns()
        if run_type == "BUSINESS_DESCRIPTIONS":
            self._suggest("summary", f"A summary of {name}", 0.9)
            for index, column in enumerate(columns):
                path = f"columns[{index}].columnDescription"
                self._suggest(path, f"What {column} says", 0.7)
        elif run_type == "BUSINESS_NAMES":
            self._suggest("name", name.replace("_", " ").title()[:200], 0.8)
            for index, column in enumerate(columns):
                path = f"columns[{index}].columnName"
                self._suggest(path, column.replace("_", " ").title(), 0.6)

    def _suggest(self, field_path: str, value: str, confidence: float) -> None:
        other = round(confidence - 0.4, 1)
        self.predictions[field_path] = [
            {"suggestion": value, "confidence": confidence},
            {"suggestion": f"{value}, in other words", "confidence": other},
        ]

    def suggestion(self, path: str, number: int) -> dict[str, Any]:
        """Return a suggestion by its number.

        AWS does not document where numbers start. Here they start at 0.
        """
        suggestions = self.predictions.get(path, [])
        if not 0 <= number < len(suggestions):
            raise ValidationException(
                f"There is no prediction {number} for target '{path}'"
            )
        return suggestions[number]

    def paths_matching_rule(self, rule: dict[str, Any] | None) -> list[str]:
        """Return the field paths whose top suggestion has the rule's threshold."""
        if not rule or rule.get("rule") != "ALL":
            return []
        threshold = rule.get("threshold") or 0
        return [
            path
            for path, suggestions in self.predictions.items()
            if suggestions[0]["confidence"] >= threshold
        ]

    def accept(self, values: dict[str, str], accepted_by: str) -> None:
        """Create a new revision with the accepted values.

        Suggestions for other fields remain.

        :param values: the values by field path
        """
        latest = self._latest
        forms = {form["formName"]: dict(form) for form in latest.forms}
        name = latest.name
        for field_path, value in values.items():
            column = COLUMN_PATH.fullmatch(field_path)
            if column:
                content = _form_content(forms, COLUMNS_FORM)
                identifier = self._columns()[int(column[1])]
                member = "name" if column[2] == "columnName" else "description"
                _column_entry(content, identifier)[member] = value
                forms[COLUMNS_FORM[0]] = _form(COLUMNS_FORM, content)
            elif field_path == "name":
                name = value
            else:
                content = {**_form_content(forms, DETAILS_FORM), field_path: value}
                forms[DETAILS_FORM[0]] = _form(DETAILS_FORM, content)
            del self.predictions[field_path]
        self.add_revision(
            name,
            latest.description,
            latest.glossary_terms,
            list(forms.values()),
            latest.type_revision,
            accepted_by,
        )

    @property
    def _latest(self) -> AssetRevision:
        return self.revisions[-1]

    def _columns(self) -> list[str]:
        """Return the names of the columns, from the first form that lists columns."""
        for form in self._latest.forms:
            content = _parse_content(form)
            columns = content.get("columns") if isinstance(content, dict) else None
            if isinstance(columns, list):
                names = [c.get("columnName") for c in columns if isinstance(c, dict)]
                return [name for name in names if isinstance(name, str)]
        return []


def _column_entry(content: dict[str, Any], identifier: str) -> dict[str, Any]:
    """Return the entry of a column in a form's content, which may be a new one."""
    entries = content.get("columnsBusinessMetadata")
    if not isinstance(entries, list):
        entries = content["columnsBusinessMetadata"] = []
    for entry in entries:
        if isinstance(entry, dict) and entry.get("columnIdentifier") == identifier:
            return entry
    entry = {"columnIdentifier": identifier}
    entries.append(entry)
    return entry


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
        # NaN and infinite numbers are not JSON, and cannot be sorted.
        return json.loads(form.get("content") or "{}", parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def _form_content(
    forms: dict[str, dict[str, Any]], form: tuple[str, str]
) -> dict[str, Any]:
    content = _parse_content(forms.get(form[0], {}))
    return content if isinstance(content, dict) else {}


def _milliseconds(time: datetime) -> int:
    # An integer division is exact, so the result equals the timestamp in a response.
    return (time - datetime(1970, 1, 1)) // timedelta(milliseconds=1)
