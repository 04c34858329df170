"""A batch accepts and publishes its assets, in a worker and in a triggerer."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_datazone.batch.assets import unpack
from airflow_provider_datazone.exceptions import BatchFailedError, InvalidInputError, RequestRefusedError
from tests.conftest import LoopClock
from tests.integration.batch.tasks import (
    Assets,
    event_at_checkpoint,
    event_of,
    execute_tries,
    run_task,
    set_outcomes,
)
from tests.task_context import Store, make_context

pytestmark = pytest.mark.usefixtures("unhurried")
PUBLISHING = {"accept_threshold": 0.8, "publish": True}
OPERATIONS = ["StartMetadataGenerationRun", "AcceptPredictions", "CreateListingChangeSet"]


def requests(assets: Assets, operation: str) -> list[dict[str, Any]]:
    return [r.parameters for r in assets.catalog.server.requests if r.operation == operation]


def catalog_state(assets: Assets) -> dict[str, tuple[str, bool]]:
    """Return the revision of each asset, and whether it is published."""
    client, domain = assets.catalog.server.client(), assets.catalog.domain_identifier
    found = {
        asset: client.get_asset(domainIdentifier=domain, identifier=asset) for asset in assets.identifiers
    }
    return {asset: (details["revision"], "listing" in details) for asset, details in found.items()}


def test_every_asset_is_accepted_and_published_once(assets: Assets, deferrable: bool):
    server = assets.catalog.server
    context = make_context()
    summary = run_task(assets.operator(deferrable=deferrable, **PUBLISHING), context)
    assert (summary["succeeded"], summary["accepted"], summary["published"]) == (6, 6, 6)
    assert catalog_state(assets) == dict.fromkeys(assets.identifiers, ("2", True))
    assert [server.request_counts[step] for step in OPERATIONS] == [6, 6, 6]
    for row in context["ti"].xcoms["results"]:
        assert row["revision"] == "2"
        listing = server.client().get_listing(
            domainIdentifier=assets.catalog.domain_identifier, identifier=row["listing"]
        )
        assert listing["item"]["assetListing"]["assetId"] == row["asset"]
    for request in requests(assets, "AcceptPredictions"):
        assert request["acceptRule"] == {"rule": "ALL", "threshold": 0.8}
    for request in requests(assets, "CreateListingChangeSet"):
        assert (request["action"], request["entityRevision"]) == ("PUBLISH", "2")


def test_only_assets_with_a_successful_run_are_published(assets: Assets, deferrable: bool):
    for asset, ending in zip(assets.identifiers, ["FAILED", "CANCELED", "PARTIALLY_SUCCEEDED"], strict=False):
        set_outcomes(assets.catalog.server, asset, ending)
    task = assets.operator(deferrable=deferrable, allow_partial_success=False, max_failures=3, **PUBLISHING)
    summary = run_task(task, make_context())
    assert (summary["accepted"], summary["published"]) == (3, 3)
    published = [asset for asset, (_, is_published) in catalog_state(assets).items() if is_published]
    assert published == assets.identifiers[3:]


def test_accept_threshold_alone_publishes_nothing(assets: Assets):
    summary = run_task(assets.operator(accept_threshold=0), make_context())
    assert (summary["accepted"], summary["published"]) == (6, 0)
    assert catalog_state(assets) == dict.fromkeys(assets.identifiers, ("2", False))


@pytest.mark.parametrize("step", OPERATIONS[1:])
def test_refused_step_fails_its_asset_and_a_retry_repeats_only_this_step(
    assets: Assets, store: Store | None, step: str
):
    server, refused = assets.catalog.server, assets.identifiers[2]
    server.fail(step, "ServiceQuotaExceededException", asset_identifier=refused)
    first, second = execute_tries(assets, store, 2, **PUBLISHING)
    assert isinstance(first, BatchFailedError)
    assert str(first).startswith("1 of 6 assets have not succeeded, with max_failures=0; the first failure")
    assert refused in str(first)
    assert step in str(first)
    assert isinstance(second, dict)
    assert (second["accepted"], second["published"]) == (6, 6)
    assert catalog_state(assets) == dict.fromkeys(assets.identifiers, ("2", True))
    assert assets.statuses() == [["SUCCEEDED"]] * 6
    if store is not None:
        # Before Airflow 3.3, a retry repeats the requests, with the same client tokens.
        assert server.request_counts["StartMetadataGenerationRun"] == 6
        assert server.request_counts[step] == 7


@pytest.mark.parametrize("step", OPERATIONS[1:])
@pytest.mark.parametrize("error", ["drop", "ThrottlingException"])
def test_lost_or_throttled_request_is_repeated_with_its_client_token(assets: Assets, step: str, error: str):
    server, asset = assets.catalog.server, assets.identifiers[3]
    server.fail(step, error, times=2, after=error == "drop", asset_identifier=asset)
    # The batch repeats requests, and not botocore.
    summary = run_task(
        assets.operator(botocore_config={"retries": {"total_max_attempts": 1}}, **PUBLISHING), make_context()
    )
    assert (summary["accepted"], summary["published"]) == (6, 6)
    assert catalog_state(assets) == dict.fromkeys(assets.identifiers, ("2", True))
    sent = [r["clientToken"] for r in requests(assets, step) if asset in json.dumps(r)]
    assert len(sent) == 3
    assert len(set(sent)) == 1


@pytest.mark.parametrize("step", OPERATIONS[1:])
def test_missing_permission_stops_the_batch_without_a_retry(assets: Assets, deferrable: bool, step: str):
    server = assets.catalog.server
    action = f"datazone:{step}"
    server.fail(step, "AccessDeniedException", times=None, message=f"not authorized to perform: {action}")
    with pytest.raises(RequestRefusedError, match=f"6 of 6 assets have not succeeded.*{action}"):
        run_task(assets.operator(deferrable=deferrable, max_concurrent_runs=1, **PUBLISHING), make_context())
    # The next Start may be in flight when DataZone refuses the first request.
    assert server.request_counts["StartMetadataGenerationRun"] <= 2
    assert server.request_counts[step] <= 2


@pytest.mark.parametrize("step", OPERATIONS[1:])
def test_checkpoint_during_a_step_loses_and_repeats_nothing(assets: Assets, step: str, loop_clock: LoopClock):
    server = assets.catalog.server
    server.fail(step, "hang", times=6, seconds=3, after=True)
    context = make_context()
    task = assets.operator(deferrable=True, **PUBLISHING)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    event = event_at_checkpoint(deferred.value.trigger, loop_clock, lambda: server.request_counts[step] > 0)
    # The trigger has waited for the responses to the requests in flight.
    attribute = "revision" if step == "AcceptPredictions" else "listing"
    assert any(getattr(row, attribute) for row in unpack(event["rows"]))
    while event["status"] == "checkpoint":
        with pytest.raises(TaskDeferred) as deferred:
            task.resume_execution("execute_complete", {"event": event}, context)
        event = event_of(deferred.value.trigger)
    summary = task.resume_execution("execute_complete", {"event": event}, context)
    assert (summary["accepted"], summary["published"]) == (6, 6)
    assert [server.request_counts[step] for step in OPERATIONS] == [6, 6, 6]


def test_task_defers_again_if_the_dag_has_enabled_publishing(assets: Assets):
    """The DAG changes while the task is deferred."""
    context = make_context()
    with pytest.raises(TaskDeferred) as deferred:
        assets.operator(deferrable=True).execute(context)
    event = event_of(deferred.value.trigger)
    assert event["status"] == "ended"
    task = assets.operator(deferrable=True, **PUBLISHING)
    with pytest.raises(TaskDeferred) as deferred:
        task.resume_execution("execute_complete", {"event": event}, context)
    event = event_of(deferred.value.trigger)
    summary = task.resume_execution("execute_complete", {"event": event}, context)
    assert (summary["accepted"], summary["published"]) == (6, 6)
    assert assets.catalog.server.request_counts["StartMetadataGenerationRun"] == 6


def test_succeeded_batch_runs_again_after_a_clear(assets: Assets):
    """It generates, accepts and publishes each asset again, with new client tokens."""
    store = Store()
    run_task(assets.operator(**PUBLISHING), make_context(store))
    cleared = make_context(store, try_number=2, max_tries=4)
    run_task(assets.operator(**PUBLISHING), cleared)
    assert catalog_state(assets) == dict.fromkeys(assets.identifiers, ("3", True))
    for step in OPERATIONS:
        assert set(Counter(r["clientToken"] for r in requests(assets, step)).values()) == {1}
        assert len(requests(assets, step)) == 12


def test_trigger_gets_the_arguments(assets: Assets):
    with pytest.raises(TaskDeferred) as deferred:
        assets.operator(deferrable=True, **PUBLISHING).execute(make_context())
    arguments = deferred.value.trigger.serialize()[1]
    assert (arguments["accept_threshold"], arguments["publish"]) == (0.8, True)
    # Triggers are stored in Airflow's database.
    assert json.loads(json.dumps(arguments)) == arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"publish": True}, "publish=True needs accept_threshold"),
        ({"publish": "False", "accept_threshold": 0.5}, "publish must be True or False, got 'False'"),
        ({"accept_threshold": 1.5}, "accept_threshold must be from 0 to 1, got 1.5"),
        ({"accept_threshold": -0.1}, "accept_threshold must be from 0 to 1, got -0.1"),
        ({"accept_threshold": True}, "accept_threshold must be a number, got True"),
        ({"accept_threshold": "0.7"}, "accept_threshold must be a number, got '0.7'"),
        ({"accept_threshold": ""}, "accept_threshold must be a number, got ''"),
        ({"accept_threshold": float("nan")}, "accept_threshold has a number that is not finite: nan"),
    ],
)
def test_invalid_arguments_fail_before_any_request(
    assets: Assets, arguments: dict[str, Any], message: str, deferrable: bool
):
    with pytest.raises(InvalidInputError, match=message):
        assets.operator(deferrable=deferrable, **arguments).execute(make_context())
    assert set(assets.catalog.server.request_counts) <= {"CreateDomain", "CreateProject", "CreateAsset"}


def test_asset_must_not_be_accepted_twice(assets: Assets):
    asset = assets.identifiers[0]
    twice = [asset, {"asset_identifier": asset, "asset_revision": "1"}]
    with pytest.raises(InvalidInputError, match=f"asset_identifiers has '{asset}' with different revisions"):
        assets.operator(asset_identifiers=twice, accept_threshold=0.5).execute(make_context())
    assert "StartMetadataGenerationRun" not in assets.catalog.server.request_counts
    # Without accept_threshold this works, and a repeated asset counts once.
    run_task(assets.operator(asset_identifiers=twice), make_context())
    summary = run_task(
        assets.operator(asset_identifiers=[asset, asset], accept_threshold=0.5), make_context()
    )
    assert (summary["accepted"], summary["duplicates"]) == (1, 1)
