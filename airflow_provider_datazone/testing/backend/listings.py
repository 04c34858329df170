"""Listings, which are published assets."""

# ruff: noqa: D102
from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from moto.core.utils import utcnow
from moto.moto_api._internal.managed_state_model import ManagedState

from .identifiers import new_id

if TYPE_CHECKING:
    from .assets import Asset

LISTING_STATE_MODEL = "datazone::listing"


class Listing(ManagedState):
    """The listing of an asset. A new revision is ``CREATING``, and then ``ACTIVE``.

    By default the first GetListing returns ``ACTIVE``. Moto's state transitions for
    ``datazone::listing`` change that.
    """

    def __init__(self, asset: Asset):
        ManagedState.__init__(self, LISTING_STATE_MODEL, [("CREATING", "ACTIVE")])
        self.id = new_id()
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
        self._time_progressed = datetime.now()

    def unpublish(self) -> None:
        self.revision += 1
        self.updated_at = utcnow()
        self._status = "INACTIVE"

    def poll(self) -> None:
        """Count a read, for moto's state transitions."""
        if self._status == "CREATING":
            self.advance()

    def to_change_set(self) -> dict[str, Any]:
        return {
            "listingId": self.id,
            "listingRevision": str(self.revision),
            "status": self.status,
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
            "status": self.status,
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
