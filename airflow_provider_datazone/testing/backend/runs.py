"""Metadata generation runs."""

# ruff: noqa: D102
from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from moto.core.utils import utcnow
from moto.moto_api._internal.managed_state_model import ManagedState

from .exceptions import ValidationException
from .identifiers import new_id
from .pagination import NumberedModel

if TYPE_CHECKING:
    from .assets import Asset
    from .domains import Project

RUN_STATE_MODEL = "datazone::metadata-generation-run"
ACTIVE_STATUSES = ("SUBMITTED", "IN_PROGRESS")
TERMINAL_STATUSES = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELED")


class MetadataGenerationRun(ManagedState, NumberedModel):
    """A run that succeeds. A subclass can give it another outcome."""

    has_type_stats = True

    def __init__(
        self,
        number: int,
        project: Project,
        asset: Asset,
        revision: str | None,
        types: list[str],
        created_by: str,
    ):
        self.types = types
        transitions = [
            ("SUBMITTED", "IN_PROGRESS"),
            ("IN_PROGRESS", self.final_status()),
        ]
        ManagedState.__init__(self, RUN_STATE_MODEL, transitions)
        self.number = number
        self.id = new_id()
        self.project = project
        self.asset = asset
        self.revision = revision
        self.created_by = created_by
        self.created_at: datetime = utcnow()
        self._has_added_predictions = False

    # ------------------------------------- what a subclass can override

    def final_status(self) -> str:
        return "SUCCEEDED"

    def final_type_status(self, run_type: str) -> str:  # noqa: ARG002
        return "SUCCEEDED"

    def error_message(self, run_type: str) -> str | None:  # noqa: ARG002
        return None

    def advance_status(self, is_poll: bool) -> None:
        """Update the status of an active run.

        :param is_poll: whether the run is read, by Get or by List
        """
        if is_poll:
            self.advance()
        self._status = self.status

    # -------------------------------------------------------------------

    def update_status(self, is_poll: bool = False) -> str:
        """Update the status and return it. A run that has ended adds predictions."""
        if self._status in ACTIVE_STATUSES:
            self.advance_status(is_poll)
        if self._status in TERMINAL_STATUSES and not self._has_added_predictions:
            self._has_added_predictions = True
            for run_type in self.types:
                if self._type_status(run_type) == "SUCCEEDED":
                    self.asset.add_predictions(run_type)
        return str(self._status)

    def cancel(self) -> None:
        status = self.update_status()
        if status in TERMINAL_STATUSES:
            raise ValidationException(
                f"The MetadataGenerationRun in {status} status cannot be canceled."
            )
        self._status = "CANCELED"

    def _type_status(self, run_type: str) -> str:
        if self._status in ACTIVE_STATUSES or self._status == "CANCELED":
            return str(self._status)
        has_ended = self._status in TERMINAL_STATUSES
        # Only the run can have a status that AWS has not published.
        return self.final_type_status(run_type) if has_ended else "IN_PROGRESS"

    def _type_stat(self, run_type: str) -> dict[str, Any]:
        has_ended = self._status in TERMINAL_STATUSES
        return {
            "type": run_type,
            "status": self._type_status(run_type),
            "errorMessage": self.error_message(run_type) if has_ended else None,
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
        target = {
            "type": "ASSET",
            "identifier": self.asset.id,
            "revision": self.revision,
        }
        return {**self.to_dict(), "target": target}

    def to_details(self, run_type: str | None) -> dict[str, Any]:
        """Return the run in the format of Get.

        :param run_type: the only type in ``typeStats``, as in an example of the AWS
            documentation. None includes all types
        """
        types = [t for t in self.types if run_type in (None, t)]
        stats = [self._type_stat(t) for t in types] if self.has_type_stats else None
        return {**self.to_item(), "typeStats": stats}
