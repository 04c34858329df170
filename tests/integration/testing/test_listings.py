"""Listings, and moto's state transitions for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.moto_api import state_manager

from airflow_provider_datazone.testing import AssetIdentifiers
from airflow_provider_datazone.testing.backend import listings
from tests.integration.testing.wire import Wire


@pytest.fixture
def publish(wire: Wire, asset: AssetIdentifiers) -> Any:
    """Publish the asset. Return the status in the response, in GetAsset and in two GetListing requests."""
    in_domain = {"domainIdentifier": asset.domain_identifier}

    def publish(action: str = "PUBLISH") -> list[str]:
        change = wire.client.create_listing_change_set(
            **in_domain, entityIdentifier=asset.asset_identifier, entityType="ASSET", action=action
        )
        current = wire.client.get_asset(**in_domain, identifier=asset.asset_identifier)["listing"]
        gets = [wire.client.get_listing(**in_domain, identifier=change["listingId"]) for _ in range(2)]
        return [change["status"], current["listingStatus"], *(listing["status"] for listing in gets)]

    return publish


@pytest.fixture(autouse=True)
def _unset_transition() -> Iterator[None]:
    yield
    state_manager.unset_transition(listings.LISTING_STATE_MODEL)


@pytest.mark.parametrize(
    ("transition", "statuses"),
    [
        (None, ["CREATING", "CREATING", "ACTIVE", "ACTIVE"]),
        ({"progression": "immediate"}, ["ACTIVE"] * 4),
        ({"progression": "manual", "times": 2}, ["CREATING", "CREATING", "CREATING", "ACTIVE"]),
        ({"progression": "time", "seconds": 3600}, ["CREATING"] * 4),
    ],
)
def test_every_revision_of_a_listing_follows_the_transition(
    publish: Any, transition: dict[str, Any] | None, statuses: list[str]
) -> None:
    if transition is not None:
        state_manager.set_transition(listings.LISTING_STATE_MODEL, transition)
    assert publish() == statuses
    assert publish("UNPUBLISH") == ["INACTIVE"] * 4
    assert publish() == statuses


def test_only_the_latest_revision_is_published_and_any_revision_unpublished(
    wire: Wire, asset: AssetIdentifiers
) -> None:
    change = {
        "domainIdentifier": asset.domain_identifier,
        "entityIdentifier": asset.asset_identifier,
        "entityType": "ASSET",
        "entityRevision": "1",
    }
    wire.client.create_listing_change_set(**change, action="PUBLISH")
    wire.client.create_asset_revision(
        domainIdentifier=asset.domain_identifier, identifier=asset.asset_identifier, name="orders"
    )
    with pytest.raises(ClientError, match="Only the latest revision of an asset can be published"):
        wire.client.create_listing_change_set(**change, action="PUBLISH")
    unpublished = wire.client.create_listing_change_set(**change, action="UNPUBLISH")
    assert (unpublished["status"], unpublished["listingRevision"]) == ("INACTIVE", "2")
