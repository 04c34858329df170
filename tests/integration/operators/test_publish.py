"""Predictions are read for review, and an asset is published once."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_datazone.exceptions import InvalidInputError, ListingFailedError
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.operators import datazone as operators
from airflow_provider_datazone.operators.datazone import (
    DataZoneGetPredictionsOperator,
    DataZonePublishAssetOperator,
)
from tests.conftest import Catalog, Clock
from tests.task_context import make_context

CONNECTION = "datazone_default"
# Retries of botocore would slow the tests down.
ONE_ATTEMPT = {"retries": {"total_max_attempts": 1}}


def identifiers(catalog: Catalog) -> dict[str, Any]:
    return {
        "aws_conn_id": CONNECTION,
        "domain_identifier": catalog.domain_identifier,
        "asset_identifier": catalog.asset_identifier,
    }


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(operators, "time", clock)
    return clock


def publish(catalog: Catalog, **arguments: Any) -> DataZonePublishAssetOperator:
    operator = DataZonePublishAssetOperator(
        task_id="publish", botocore_config=ONE_ATTEMPT, **identifiers(catalog) | arguments
    )
    operator._log = operator._cached_logger = operator.hook._log = logging.getLogger("tests.publish")
    return operator


def test_predictions_are_returned_and_shown_as_a_table(catalog: Catalog) -> None:
    catalog.start_run("BUSINESS_DESCRIPTIONS", polls=0)
    context = make_context()
    predictions = DataZoneGetPredictionsOperator(task_id="read", **identifiers(catalog)).execute(context)
    assert {prediction["fieldPath"] for prediction in predictions} >= {"summary"}
    markdown = context["ti"].xcoms["markdown"]
    assert markdown.startswith("| Field | Suggestion | Confidence |")
    assert "| summary | " in markdown
    assert predictions == DataZoneHook(CONNECTION).get_predictions(
        catalog.asset_identifier, domain_identifier=catalog.domain_identifier
    )


def test_publish_waits_until_the_listing_is_active(catalog: Catalog, clock: Clock) -> None:
    context = make_context()
    listing = publish(catalog).execute(context)
    assert context["ti"].xcoms["listing"] == {
        "listingId": listing,
        "listingRevision": "1",
        "status": "ACTIVE",
    }
    assert clock.naps == [5]


def test_retry_publishes_once(catalog: Catalog, clock: Clock) -> None:
    first, second = [publish(catalog).execute(make_context(try_number=number)) for number in (1, 2)]
    assert first == second
    context = make_context(max_tries=5)
    assert publish(catalog).execute(context) == first
    assert context["ti"].xcoms["listing"]["listingRevision"] == "2", "a cleared task publishes again"


def test_publish_waits_for_the_revision_that_it_has_published(
    catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS does not document whether GetListing returns the previous revision until the new one is active."""
    publish(catalog).execute(make_context())
    # The local DataZone returns the new revision at once.
    get_listing, earlier = DataZoneHook.get_listing, ["ACTIVE", "INACTIVE"]

    def get(self: DataZoneHook, *args: Any, **kwargs: Any) -> dict[str, Any]:
        listing = get_listing(self, *args, **kwargs)
        return listing | {"listingRevision": "1", "status": earlier.pop()} if earlier else listing

    monkeypatch.setattr(DataZoneHook, "get_listing", get)
    context = make_context(max_tries=5)
    publish(catalog).execute(context)
    assert context["ti"].xcoms["listing"]["listingRevision"] == "2"
    assert clock.naps == [5, 5, 5, 5]


def test_publish_without_waiting_returns_a_listing_in_creation(catalog: Catalog, clock: Clock) -> None:
    context = make_context()
    publish(catalog, wait_for_completion=False).execute(context)
    assert context["ti"].xcoms["listing"]["status"] == "CREATING"
    assert catalog.server.request_counts["GetListing"] == 0


@pytest.mark.parametrize(
    "error", ["ThrottlingException", "InternalServerException", "ResourceNotFoundException"]
)
def test_transient_errors_do_not_end_the_wait(
    catalog: Catalog, clock: Clock, caplog: pytest.LogCaptureFixture, error: str
) -> None:
    catalog.server.fail("GetListing", error, times=2)
    with caplog.at_level(logging.WARNING):
        publish(catalog).execute(make_context())
    assert "Could not read the listing just now, will try again" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"poll_interval": 0}, InvalidInputError),
        ({"asset_identifier": ""}, InvalidInputError),
        ({"asset_identifier": "nosuchasset"}, AirflowFailException),
        ({"revision": "7"}, AirflowFailException),
    ],
)
def test_invalid_argument_or_refusal_is_not_retried(
    catalog: Catalog, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        publish(catalog, **arguments).execute(make_context())


def test_unpublished_listing_fails_the_wait(
    catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpublish(seconds: float) -> None:
        clock.now += seconds
        catalog.server.client().create_listing_change_set(
            domainIdentifier=catalog.domain_identifier,
            entityIdentifier=catalog.asset_identifier,
            entityType="ASSET",
            action="UNPUBLISH",
        )

    clock.sleep = unpublish  # type: ignore[method-assign]
    with pytest.raises(ListingFailedError, match="is INACTIVE: it was or stayed unpublished"):
        publish(catalog).execute(make_context())
