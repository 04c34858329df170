"""The hook starts, gets, lists and cancels runs and accepts or rejects predictions, over HTTP through real boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.exceptions import MalformedResponseError
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.service_errors import is_permanent

if TYPE_CHECKING:
    from tests.conftest import Catalog


def test_get_returns_the_started_run(hook: DataZoneHook, catalog: Catalog):
    started = hook.start_metadata_generation_run(
        catalog.asset_identifier,
        types=["BUSINESS_NAMES"],
        owning_project_identifier=catalog.project_identifier,
        domain_identifier=catalog.domain_identifier,
    )
    assert started.status == "SUBMITTED"
    assert started.asset_id is None, "the Start response has no target"
    run = hook.get_metadata_generation_run(started.id, domain_identifier=catalog.domain_identifier)
    assert (run.id, run.asset_id, run.types) == (started.id, catalog.asset_identifier, ("BUSINESS_NAMES",))
    assert run.created_at is not None
    assert run.created_at.tzinfo is not None


def test_same_client_token_starts_one_run(hook: DataZoneHook, catalog: Catalog):
    def start(token: str | None) -> str:
        return hook.start_metadata_generation_run(
            catalog.asset_identifier,
            types=["BUSINESS_NAMES"],
            owning_project_identifier=catalog.project_identifier,
            domain_identifier=catalog.domain_identifier,
            client_token=token,
        ).id

    assert start("mine") == start("mine")
    assert len({start(None), start(None), start("mine")}) == 3


def test_asset_revision_is_sent_to_the_service(hook: DataZoneHook, catalog: Catalog):
    started = hook.start_metadata_generation_run(
        catalog.asset_identifier,
        types=["BUSINESS_NAMES"],
        asset_revision="1",
        owning_project_identifier=catalog.project_identifier,
        domain_identifier=catalog.domain_identifier,
    )
    run = hook.get_metadata_generation_run(started.id, domain_identifier=catalog.domain_identifier)
    assert run.asset_revision == "1"


def test_list_requests_pages_lazily(hook: DataZoneHook, catalog: Catalog):
    started = [catalog.start_run() for _ in range(7)]
    runs = hook.list_metadata_generation_runs(domain_identifier=catalog.domain_identifier, page_size=3)
    assert catalog.server.request_counts["ListMetadataGenerationRuns"] == 0
    first = next(runs)
    assert catalog.server.request_counts["ListMetadataGenerationRuns"] == 1
    assert [first.id, *(run.id for run in runs)] == started
    assert catalog.server.request_counts["ListMetadataGenerationRuns"] == 3


def test_list_filters_runs(hook: DataZoneHook, catalog: Catalog):
    kept = catalog.start_run("BUSINESS_NAMES")
    catalog.start_run("BUSINESS_DESCRIPTIONS")
    domain = catalog.domain_identifier
    found = hook.list_metadata_generation_runs(
        domain_identifier=domain,
        status="SUBMITTED",
        run_type="BUSINESS_NAMES",
        asset_identifier=catalog.asset_identifier,
    )
    assert [run.id for run in found] == [kept]
    assert list(hook.list_metadata_generation_runs(domain_identifier=domain, status="FAILED")) == []


def test_malformed_list_response_raises_an_error(hook: DataZoneHook, catalog: Catalog):
    catalog.server.fail("ListMetadataGenerationRuns", "malformed")
    with pytest.raises(MalformedResponseError, match="items"):
        list(hook.list_metadata_generation_runs(domain_identifier=catalog.domain_identifier))
    assert list(hook.list_metadata_generation_runs(domain_identifier=catalog.domain_identifier)) == []


def test_list_without_a_domain_raises_before_iteration(hook: DataZoneHook):
    with pytest.raises(ValueError, match="domain_identifier"):
        hook.list_metadata_generation_runs()


def test_get_with_run_type_returns_type_stats_of_that_type_only(hook: DataZoneHook, catalog: Catalog):
    run = hook.get_metadata_generation_run(
        catalog.start_run(), domain_identifier=catalog.domain_identifier, run_type="BUSINESS_NAMES"
    )
    assert [stat["type"] for stat in run.type_stats] == ["BUSINESS_NAMES"]


def test_cancel_cancels_a_run_once(hook: DataZoneHook, catalog: Catalog):
    run = catalog.start_run()
    hook.cancel_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    assert (
        hook.get_metadata_generation_run(run, domain_identifier=catalog.domain_identifier).status
        == "CANCELED"
    )
    with pytest.raises(ClientError, match="cannot be canceled") as refused:
        hook.cancel_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    assert is_permanent(refused.value)


def test_accept_creates_a_revision_and_reject_returns_one(hook: DataZoneHook, catalog: Catalog):
    domain = catalog.domain_identifier
    hook.wait_for_metadata_generation_run(catalog.start_run(), domain_identifier=domain, poll_interval=0.001)
    accepted = hook.accept_predictions(
        catalog.asset_identifier, domain_identifier=domain, rule="ALL", threshold=0.0, client_token="once"
    )
    assert accepted == "2"
    again = hook.accept_predictions(
        catalog.asset_identifier, domain_identifier=domain, rule="ALL", threshold=0.0, client_token="once"
    )
    assert again == accepted
    hook.wait_for_metadata_generation_run(catalog.start_run(), domain_identifier=domain, poll_interval=0.001)
    assert hook.reject_predictions(catalog.asset_identifier, domain_identifier=domain, rule="ALL")


@pytest.mark.parametrize("method", ["accept_predictions", "reject_predictions"])
@pytest.mark.parametrize("arguments", [{}, {"threshold": 0.5}])
def test_predictions_without_rule_or_choices_raise_an_error_without_a_request(
    hook: DataZoneHook, catalog: Catalog, method: str, arguments: dict[str, Any]
):
    before = len(catalog.server.requests)
    with pytest.raises(ValueError, match="rule"):
        getattr(hook, method)(
            catalog.asset_identifier, domain_identifier=catalog.domain_identifier, **arguments
        )
    assert len(catalog.server.requests) == before


@pytest.mark.parametrize("method", ["accept_predictions", "reject_predictions"])
def test_threshold_without_a_rule_raises_an_error(hook: DataZoneHook, catalog: Catalog, method: str):
    with pytest.raises(ValueError, match="threshold needs a rule"):
        getattr(hook, method)(
            catalog.asset_identifier,
            domain_identifier=catalog.domain_identifier,
            threshold=0.5,
            choices=[{"predictionTarget": "summary"}],
        )
