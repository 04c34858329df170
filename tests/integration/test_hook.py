"""The hook, over HTTP through real boto3."""

from __future__ import annotations

import itertools
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.core.responses import ActionResult

from airflow_provider_datazone.exceptions import MalformedResponseError, NotConfiguredError
from airflow_provider_datazone.hooks import datazone as hook_module
from airflow_provider_datazone.hooks.datazone import DataZoneHook, is_permanent, is_transient
from airflow_provider_datazone.testing import models
from airflow_provider_datazone.testing.responses import DataZoneResponse
from tests.conftest import Clock
from tests.wrong import DOMAIN, Answer, make_hook, render, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

# botocore's own retries would hide what the hook does, and take their time.
NO_RETRIES: dict[str, Any] = {"retries": {"total_max_attempts": 1}}


@pytest.fixture
def hook(datazone: DataZoneServer) -> DataZoneHook:
    return DataZoneHook("datazone_default", config=NO_RETRIES)


@pytest.fixture
def log(hook: DataZoneHook, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the hook logs; Airflow 2 keeps it from the root logger, Airflow 3 logs past the standard library."""
    hook._log = logging.getLogger("tests.hook")
    caplog.set_level(logging.INFO, "tests.hook")
    return caplog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hook_module, "time", clock)
    return clock


def test_start_then_get(hook: DataZoneHook, catalog: Catalog):
    started = hook.start_metadata_generation_run(
        catalog.asset_identifier,
        types=["BUSINESS_NAMES"],
        owning_project_identifier=catalog.project_identifier,
        domain_identifier=catalog.domain_identifier,
    )
    assert started.status == "SUBMITTED"
    assert started.asset_id is None, "Start answers no target"
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


def test_asset_revision_reaches_the_service(hook: DataZoneHook, catalog: Catalog):
    started = hook.start_metadata_generation_run(
        catalog.asset_identifier,
        types=["BUSINESS_NAMES"],
        asset_revision="1",
        owning_project_identifier=catalog.project_identifier,
        domain_identifier=catalog.domain_identifier,
    )
    run = hook.get_metadata_generation_run(started.id, domain_identifier=catalog.domain_identifier)
    assert run.asset_revision == "1"


def test_list_asks_for_a_page_when_it_is_needed(hook: DataZoneHook, catalog: Catalog):
    started = [catalog.start_run() for _ in range(7)]
    runs = hook.list_metadata_generation_runs(domain_identifier=catalog.domain_identifier, page_size=3)
    assert catalog.server.request_counts["ListMetadataGenerationRuns"] == 0
    first = next(runs)
    assert catalog.server.request_counts["ListMetadataGenerationRuns"] == 1
    assert [first.id, *(run.id for run in runs)] == started
    assert catalog.server.request_counts["ListMetadataGenerationRuns"] == 3


def test_list_filters(hook: DataZoneHook, catalog: Catalog):
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


def test_list_that_cannot_be_read_is_not_taken_for_an_empty_one(hook: DataZoneHook, catalog: Catalog):
    catalog.server.fail("ListMetadataGenerationRuns", "malformed")
    with pytest.raises(MalformedResponseError, match="items"):
        list(hook.list_metadata_generation_runs(domain_identifier=catalog.domain_identifier))
    assert list(hook.list_metadata_generation_runs(domain_identifier=catalog.domain_identifier)) == []


def test_list_without_a_domain_fails_before_it_is_iterated(hook: DataZoneHook):
    with pytest.raises(ValueError, match="domain_identifier"):
        hook.list_metadata_generation_runs()


def test_run_type_answers_for_that_type_alone(hook: DataZoneHook, catalog: Catalog):
    run = hook.get_metadata_generation_run(
        catalog.start_run(), domain_identifier=catalog.domain_identifier, run_type="BUSINESS_NAMES"
    )
    assert [stat["type"] for stat in run.type_stats] == ["BUSINESS_NAMES"]


def test_cancel(hook: DataZoneHook, catalog: Catalog):
    run = catalog.start_run()
    hook.cancel_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    assert (
        hook.get_metadata_generation_run(run, domain_identifier=catalog.domain_identifier).status
        == "CANCELED"
    )
    with pytest.raises(ClientError, match="cannot be canceled") as refused:
        hook.cancel_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    assert is_permanent(refused.value)


def test_accept_makes_a_new_revision_and_reject_names_one(hook: DataZoneHook, catalog: Catalog):
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


@pytest.mark.parametrize("answer", ["accept_predictions", "reject_predictions"])
@pytest.mark.parametrize("arguments", [{}, {"threshold": 0.5}])
def test_predictions_need_a_rule_or_choices(
    hook: DataZoneHook, catalog: Catalog, answer: str, arguments: dict[str, Any]
):
    before = len(catalog.server.requests)
    with pytest.raises(ValueError, match="rule"):
        getattr(hook, answer)(
            catalog.asset_identifier, domain_identifier=catalog.domain_identifier, **arguments
        )
    assert len(catalog.server.requests) == before


@pytest.mark.parametrize("answer", ["accept_predictions", "reject_predictions"])
def test_threshold_needs_a_rule(hook: DataZoneHook, catalog: Catalog, answer: str):
    with pytest.raises(ValueError, match="threshold goes with a rule"):
        getattr(hook, answer)(
            catalog.asset_identifier,
            domain_identifier=catalog.domain_identifier,
            threshold=0.5,
            choices=[{"predictionTarget": "summary"}],
        )


class Inventory:
    """Assets of a domain, in two projects."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.domain = catalog.domain_identifier
        self.other_project = catalog.server.create_asset("theirs", domain_identifier=self.domain)[1]

    def add(self, *names: str, description: str | None = None) -> None:
        for name in names:
            self.catalog.server.create_asset(
                name,
                description=description,
                domain_identifier=self.domain,
                project_identifier=self.catalog.project_identifier,
            )


@pytest.fixture
def inventory(catalog: Catalog) -> Inventory:
    """The assets `orders` and `theirs`, and what a test adds."""
    return Inventory(catalog)


def names(assets: Iterator[dict[str, Any]]) -> list[str]:
    return [asset["name"] for asset in assets]


def test_search_asks_for_a_page_when_it_is_needed(hook: DataZoneHook, inventory: Inventory):
    inventory.add("a", "b", "c", "d", "e")
    assets = hook.search_assets(domain_identifier=inventory.domain, page_size=3)
    assert inventory.catalog.server.request_counts["Search"] == 0
    first = next(assets)
    assert inventory.catalog.server.request_counts["Search"] == 1
    assert [first["name"], *names(assets)] == ["orders", "theirs", "a", "b", "c", "d", "e"]
    assert inventory.catalog.server.request_counts["Search"] == 3


def test_search_answers_assets_as_aws_does(hook: DataZoneHook, inventory: Inventory):
    inventory.add("described", description="What it is")
    found = hook.search_assets(domain_identifier=inventory.domain, search_text="described")
    (item,) = inventory.catalog.server.client().search(
        domainIdentifier=inventory.domain, searchScope="ASSET", searchText="described"
    )["items"]
    assert list(found) == [item["assetItem"]]
    assert item["assetItem"]["description"] == "What it is"


def test_search_passes_everything_on(hook: DataZoneHook, inventory: Inventory):
    inventory.add("b", "a", description="wanted")
    inventory.add("c")
    filters = {"and": [{"filter": {"attribute": "description", "value": "wanted"}}]}
    found = list(
        hook.search_assets(
            domain_identifier=inventory.domain,
            owning_project_identifier=inventory.catalog.project_identifier,
            search_text="want",
            filters=filters,
            sort={"attribute": "name", "order": "ASCENDING"},
            additional_attributes=["FORMS"],
            page_size=7,
        )
    )
    assert [asset["name"] for asset in found] == ["a", "b"]
    (form,) = found[0]["additionalAttributes"]["formsOutput"]
    assert form["formName"] == "GlueTableForm"
    assert inventory.catalog.server.requests[-1].parameters == {
        "domainIdentifier": inventory.domain,
        "searchScope": "ASSET",
        "owningProjectIdentifier": inventory.catalog.project_identifier,
        "searchText": "want",
        "filters": filters,
        "sort": {"attribute": "name", "order": "ASCENDING"},
        "additionalAttributes": ["FORMS"],
        "maxResults": 7,
    }


def test_search_takes_the_domain_of_the_connection_but_not_its_project(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
):
    connection = json.loads(inventory.catalog.server.connection)
    connection["extra"] |= {
        "domain_identifier": inventory.domain,
        "owning_project_identifier": inventory.other_project,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_FULL", json.dumps(connection))
    hook = DataZoneHook("datazone_full", config=NO_RETRIES)
    assert names(hook.search_assets()) == ["orders", "theirs"]
    assert names(hook.search_assets(owning_project_identifier=inventory.other_project)) == ["theirs"]


def test_search_without_a_domain_fails_before_it_is_iterated(hook: DataZoneHook):
    with pytest.raises(ValueError, match="domain_identifier"):
        hook.search_assets()


def test_search_that_is_refused_says_what_was_asked(hook: DataZoneHook, inventory: Inventory):
    inventory.catalog.server.fail("Search", "AccessDeniedException", message="you may not")
    with pytest.raises(ClientError) as refused:
        list(hook.search_assets(domain_identifier=inventory.domain))
    message = str(refused.value)
    for part in ("you may not", "searching for assets", inventory.domain, "us-east-1", "datazone_default"):
        assert part in message
    assert is_permanent(refused.value)


def test_search_that_fails_on_a_later_page_has_handed_out_the_first(hook: DataZoneHook, inventory: Inventory):
    assets = hook.search_assets(domain_identifier=inventory.domain, page_size=1)
    assert next(assets)["name"] == "orders"
    inventory.catalog.server.fail("Search", "ThrottlingException")
    with pytest.raises(ClientError, match="Rate exceeded") as throttled:
        next(assets)
    assert is_transient(throttled.value)


def test_search_that_cannot_be_read_is_not_taken_for_an_empty_one(hook: DataZoneHook, inventory: Inventory):
    inventory.catalog.server.fail("Search", "malformed")
    with pytest.raises(MalformedResponseError, match="items"):
        list(hook.search_assets(domain_identifier=inventory.domain))
    assert names(hook.search_assets(domain_identifier=inventory.domain)) == ["orders", "theirs"]


def test_search_that_answers_something_else_is_an_error(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    glossary = {"domainId": "dzd-1", "id": "g1", "name": "g", "owningProjectId": "p1", "status": "ENABLED"}
    answer = ActionResult({"items": [{"glossaryItem": glossary}]})
    monkeypatch.setattr(DataZoneResponse, "search", lambda self: answer)
    with pytest.raises(MalformedResponseError, match="no asset"):
        list(hook.search_assets(domain_identifier=catalog.domain_identifier))


@pytest.mark.parametrize("method", ["list_metadata_generation_runs", "search_assets"])
def test_page_that_repeats_is_not_asked_for_for_ever(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, method: str
):
    monkeypatch.setattr(models, "_page", lambda *arguments: ([], "again"))
    with pytest.raises(MalformedResponseError, match="the same page again"):
        list(getattr(hook, method)(domain_identifier=catalog.domain_identifier))


def test_wait_returns_the_run_however_it_ended(hook: DataZoneHook, catalog: Catalog, clock: Clock):
    run = hook.wait_for_metadata_generation_run(
        catalog.start_run(statuses="FAILED"), domain_identifier=catalog.domain_identifier, poll_interval=7
    )
    assert run.status == "FAILED"
    assert clock.naps == [7]


def test_wait_ends_with_its_time_out_and_names_the_run(hook: DataZoneHook, catalog: Catalog, clock: Clock):
    run = catalog.start_run(in_progress_seconds=3600)
    with pytest.raises(TimeoutError, match=rf"'{run}'.*after 25 s.*IN_PROGRESS.*goes on"):
        hook.wait_for_metadata_generation_run(
            run, domain_identifier=catalog.domain_identifier, poll_interval=10, timeout=25
        )
    assert clock.naps == [10, 10, 5], "the last look is at the deadline, not after it"


@pytest.mark.parametrize(
    "trouble",
    [
        "ThrottlingException",
        "InternalServerException",
        "ServiceUnavailableException",
        "drop",
        "hang",
        "malformed",
    ],
)
def test_wait_sits_out_passing_trouble(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, log: pytest.LogCaptureFixture, trouble: str
):
    if trouble == "hang":
        hook.conn_config.botocore_config = hook.config.merge(Config(read_timeout=3))
    run = catalog.start_run(polls=0)
    catalog.server.fail("GetMetadataGenerationRun", trouble, times=2)
    done = hook.wait_for_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    assert done.status == "SUCCEEDED"
    assert clock.naps == [30, 30]
    warnings = [record.getMessage() for record in log.records if "try again" in record.getMessage()]
    assert len(warnings) == 2
    assert all(run in warning for warning in warnings)


@pytest.mark.parametrize("code", ["AccessDeniedException", "ValidationException", "UnauthorizedException"])
def test_refusal_ends_the_wait_at_once_with_the_service_s_message(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, code: str
):
    run = catalog.start_run()
    catalog.server.fail("GetMetadataGenerationRun", code, message="you\nmay not")
    with pytest.raises(ClientError) as refused:
        hook.wait_for_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    message = str(refused.value)
    for part in (code, r"you\nmay not", run, catalog.domain_identifier, "us-east-1", "datazone_default"):
        assert part in message
    assert len(message.splitlines()) == 1
    assert clock.naps == []
    assert is_permanent(refused.value)
    assert not is_transient(refused.value)


def test_wait_gives_a_new_run_time_to_become_known(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, log: pytest.LogCaptureFixture
):
    run = catalog.start_run(polls=0)
    catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=3)
    done = hook.wait_for_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    assert done.status == "SUCCEEDED"
    assert clock.naps == [1, 1, 1]
    (line,) = (record.getMessage() for record in log.records if "does not know" in record.getMessage())
    assert run in line


@pytest.mark.parametrize(("timeout", "grace"), [(None, 30), (600, 30), (5, 5), (0, 0)])
def test_wait_for_an_unknown_run_ends_with_the_grace_or_its_time_out(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, timeout: float | None, grace: float
):
    with pytest.raises(ClientError, match="Requested prediction cannot be found in domain"):
        hook.wait_for_metadata_generation_run(
            "unknownrun", domain_identifier=catalog.domain_identifier, timeout=timeout
        )
    assert sum(clock.naps) == grace


def test_get_is_one_request_for_an_unknown_run_too(hook: DataZoneHook, catalog: Catalog, clock: Clock):
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        hook.get_metadata_generation_run("unknownrun", domain_identifier=catalog.domain_identifier)
    assert clock.naps == []
    assert catalog.server.request_counts["GetMetadataGenerationRun"] == 1


def test_cancel_gives_a_new_run_time_to_become_known_in_both_requests(
    hook: DataZoneHook, catalog: Catalog, clock: Clock
):
    run = catalog.start_run(in_progress_seconds=3600)
    for operation, times in (("CancelMetadataGenerationRun", 2), ("GetMetadataGenerationRun", 3)):
        catalog.server.fail(operation, "ResourceNotFoundException", times=times)
    done = hook.cancel_metadata_generation_run_unless_ended(run, domain_identifier=catalog.domain_identifier)
    assert done.status == "CANCELED"
    assert clock.naps == [1] * 5


@pytest.mark.parametrize("operation", ["CancelMetadataGenerationRun", "GetMetadataGenerationRun"])
def test_cancel_gives_up_on_an_unknown_run_after_the_grace(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, operation: str
):
    run = catalog.start_run(in_progress_seconds=3600)
    catalog.server.fail(operation, "ResourceNotFoundException", times=None)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        hook.cancel_metadata_generation_run_unless_ended(run, domain_identifier=catalog.domain_identifier)
    assert sum(clock.naps) == 30


@pytest.mark.parametrize(
    "code", ["ExpiredTokenException", "UnrecognizedClientException", "ConflictException"]
)
def test_trouble_that_neither_passes_nor_stays_is_left_to_airflow_s_retries(
    hook: DataZoneHook, catalog: Catalog, code: str
):
    catalog.server.fail("GetMetadataGenerationRun", code)
    with pytest.raises(ClientError, match=code) as refused:
        hook.wait_for_metadata_generation_run("run1", domain_identifier=catalog.domain_identifier)
    assert not is_permanent(refused.value)
    assert not is_transient(refused.value)


def test_service_s_own_exception_classes_can_be_caught(hook: DataZoneHook, catalog: Catalog):
    with pytest.raises(
        hook.conn.exceptions.ResourceNotFoundException, match="Requested prediction cannot be found in domain"
    ):
        hook.get_metadata_generation_run("unknownrun", domain_identifier=catalog.domain_identifier)


def test_malformed_answer_is_an_error_of_its_own(hook: DataZoneHook, catalog: Catalog):
    catalog.server.fail("GetMetadataGenerationRun", "malformed")
    with pytest.raises(MalformedResponseError, match="unknownrun"):
        hook.get_metadata_generation_run("unknownrun", domain_identifier=catalog.domain_identifier)


def test_status_that_nobody_knows_is_waited_on_with_one_warning(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, log: pytest.LogCaptureFixture
):
    run = catalog.start_run()
    catalog.server.set_run_status(run, "PAUSED")
    with pytest.raises(TimeoutError, match="PAUSED"):
        hook.wait_for_metadata_generation_run(
            run, domain_identifier=catalog.domain_identifier, poll_interval=10, timeout=30
        )
    assert len(clock.naps) == 3
    assert [r.getMessage() for r in log.records if "PAUSED" in r.getMessage()] == [
        f"Metadata generation run {run} has the status 'PAUSED', which this version does not know; waiting on."
    ]


def test_changes_are_logged_once(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, log: pytest.LogCaptureFixture
):
    run = catalog.start_run(polls=5)
    hook.wait_for_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    logged = [record.getMessage() for record in log.records if run in record.getMessage()]
    assert len(logged) == len(set(logged)) <= 3
    assert logged[-1] == f"Metadata generation run {run} is SUCCEEDED."


def test_type_stats_that_the_service_leaves_out_are_empty(hook: DataZoneHook, catalog: Catalog, clock: Clock):
    run = catalog.start_run(type_stats=False)
    done = hook.wait_for_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    assert (done.status, done.type_stats) == ("SUCCEEDED", [])


def test_session_token_in_a_rejected_signature_is_cut(hook: DataZoneHook, catalog: Catalog):
    catalog.server.fail(
        "GetMetadataGenerationRun",
        "UnrecognizedClientException",
        message="The request signature does not match.\n\nThe Canonical String for this request should have been\n"
        "x-amz-security-token:SECRET",
    )
    with pytest.raises(ClientError, match="does not match") as refused:
        hook.get_metadata_generation_run("run1", domain_identifier=catalog.domain_identifier)
    assert "SECRET" not in str(refused.value)


def answering(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    """Have the local DataZone answer Get with something."""
    monkeypatch.setattr(
        DataZoneResponse,
        "get_metadata_generation_run",
        lambda self: (200, {}, value if isinstance(value, (str, bytes)) else json.dumps(value)),
    )


@pytest.mark.parametrize(
    "answer",
    [
        "null",
        "[]",
        "5",
        '"text"',
        "[" * 100_000,
        {"typeStats": 5},
        {"typeStats": ["FAILED"]},
        {"target": "asset1"},
        {"createdAt": "not a\n\x1b[31mtime"},
        {"createdAt": []},
    ],
    ids=lambda answer: json.dumps(answer)[:40],
)
def test_answer_that_botocore_trips_over_is_malformed_and_may_pass(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, answer: Any
):
    good = {"domainId": catalog.domain_identifier, "id": "run1", "status": "FAILED"}
    answering(monkeypatch, good | answer if isinstance(answer, dict) else answer)
    with pytest.raises(MalformedResponseError, match=r"run 'run1', domain 'dzd.*connection") as malformed:
        hook.get_metadata_generation_run("run1", domain_identifier=catalog.domain_identifier)
    assert is_transient(malformed.value)
    # Nor does the traceback have what came over the wire.
    assert malformed.value.__suppress_context__
    assert str(malformed.value).isprintable()


def test_page_of_a_proxy_is_told_in_short(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    page = "<!DOCTYPE html>\n" + "<p>Forbidden" * 10_000
    monkeypatch.setattr(
        DataZoneResponse, "get_metadata_generation_run", lambda self: (403, {"status": 403}, page)
    )
    with pytest.raises(ClientError, match="Forbidden") as refused:
        hook.get_metadata_generation_run("run1", domain_identifier=catalog.domain_identifier)
    assert len(str(refused.value)) < 3000
    assert str(refused.value).isprintable()
    assert "(run 'run1', domain" in str(refused.value)


@pytest.mark.parametrize("tokens", [["a", "b"], [5], [["a"]]])
def test_pages_that_come_again_or_lead_nowhere_are_not_asked_for_for_ever(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tokens: list[Any]
):
    following = itertools.cycle(tokens)
    monkeypatch.setattr(
        DataZoneResponse,
        "list_metadata_generation_runs",
        lambda self: (200, {}, json.dumps({"items": [], "nextToken": next(following)})),
    )
    with pytest.raises(MalformedResponseError, match=r"again and again|nextToken that is no text"):
        list(hook.list_metadata_generation_runs(domain_identifier=catalog.domain_identifier))


def test_item_of_a_list_that_is_no_run_is_an_error(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        DataZoneResponse, "list_metadata_generation_runs", lambda self: (200, {}, '{"items": [null]}')
    )
    with pytest.raises(MalformedResponseError, match="of asset 'asset1', domain"):
        list(
            hook.list_metadata_generation_runs(
                asset_identifier="asset1", domain_identifier=catalog.domain_identifier
            )
        )


@pytest.mark.parametrize("identifier", ["\ud800", "run\udfff"])
def test_identifier_that_cannot_be_sent_is_named(hook: DataZoneHook, catalog: Catalog, identifier: str):
    before = len(catalog.server.requests)
    with pytest.raises(NotConfiguredError, match=r"cannot be sent.*\(run '") as unsent:
        hook.get_metadata_generation_run(identifier, domain_identifier=catalog.domain_identifier)
    assert repr(identifier) in str(unsent.value)
    assert is_permanent(unsent.value)
    assert not is_transient(unsent.value)
    assert catalog.server.requests[before:] == []


@pytest.mark.parametrize("revision", [None, 5, ["2"]])
@pytest.mark.parametrize("answer", ["accept_predictions", "reject_predictions"])
def test_answer_without_a_revision_is_malformed(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, answer: str, revision: Any
):
    body = json.dumps({"revision": revision, "assetRevision": revision})
    monkeypatch.setattr(DataZoneResponse, answer, lambda self: (200, {}, body))
    with pytest.raises(MalformedResponseError, match=r"without \w*evision \(asset 'asset1', domain"):
        getattr(hook, answer)("asset1", domain_identifier=catalog.domain_identifier, rule="ALL")


# ----------------------------------------------------------------- classification

KINDS = {
    name: getattr(hook_module, f"is_{name}")
    for name in ("throttling", "transient", "permanent", "not_found", "conflict", "rejected_credentials")
}
PAGE = b"<html><body>Sorry</body></html>"
REJECTED = [
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
]


@pytest.mark.parametrize(
    ("status", "code", "kinds"),
    [
        (429, "ThrottlingException", {"throttling", "transient"}),
        (400, "Throttling", {"throttling", "transient"}),
        (400, "TooManyRequestsException", {"throttling", "transient"}),
        # Of what stands in front of DataZone, and has a page of its own for everything.
        (429, None, {"throttling", "transient"}),
        (428, None, set()),
        (500, None, {"transient"}),
        (503, None, {"transient"}),
        (499, None, set()),
        (500, "InternalServerException", {"transient"}),
        (400, "InternalServerException", {"transient"}),
        (400, "RequestTimeout", {"transient"}),
        (400, "ValidationException", {"permanent"}),
        (401, "UnauthorizedException", {"permanent"}),
        (403, "AccessDeniedException", {"permanent"}),
        (404, "ResourceNotFoundException", {"permanent", "not_found"}),
        (409, "ConflictException", {"conflict"}),
        # It may be raised, or be there again next month.
        (402, "ServiceQuotaExceededException", set()),
        (400, "SomethingNewException", set()),
        *((403, code, {"rejected_credentials"}) for code in REJECTED),
    ],
)
def test_error_is_of_the_kind_that_its_code_and_status_say(status: int, code: str | None, kinds: set[str]):
    with serve() as service:
        service.answer = lambda *request: (
            Answer(PAGE, status, {"Content-Type": "text/html"})
            if code is None
            else render({"message": "no"}, status, **{"x-amzn-ErrorType": code})
        )
        with pytest.raises(ClientError) as refused:
            make_hook().get_metadata_generation_run("run1", domain_identifier=DOMAIN)
    assert {name for name, is_of_kind in KINDS.items() if is_of_kind(refused.value)} == kinds
