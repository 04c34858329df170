"""The messages on the troubleshooting page are the messages that tasks log."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
import traceback
from datetime import timedelta
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_datazone import version_compat
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    InvalidInputError,
    InvalidWatcherError,
    ListingFailedError,
    RequestRefusedError,
)
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.metadata_generation import judge
from airflow_provider_datazone.operators.datazone import (
    DataZoneBatchMetadataGenerationOperator,
    DataZoneGetMetadataGenerationRunOperator,
    DataZonePublishAssetOperator,
)
from airflow_provider_datazone.polling import watch
from airflow_provider_datazone.triggers import watch_store
from airflow_provider_datazone.triggers.datazone import (
    DataZoneMetadataGenerationRunEventTrigger,
    DataZoneMetadataGenerationRunTrigger,
)
from tests.conftest import REPOSITORY, LoopClock, once
from tests.integration.docs.pages import AIRFLOW_MINOR, PAGES
from tests.integration.errors.denying_sts import DenyingSts
from tests.integration.triggers.waits import events, only_event, trigger
from tests.integration.triggers.watchers import Domain, Store, Watcher, play, until
from tests.task_context import make_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Catalog

NO_RETRIES = {"retries": {"total_max_attempts": 1}}


@pytest.fixture
def reported_messages(
    configured_catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> str:
    """Cause every problem on the troubleshooting page and return the messages."""
    server = configured_catalog.server
    hook = DataZoneHook("datazone_default", config=NO_RETRIES)
    hook._log = logging.getLogger("tests.docs")
    invalid_connections = {
        "AIRFLOW_CONN_NO_JSON": {"conn_type": "aws"},
        "AIRFLOW_CONN_EMPTY": {"conn_type": "awsdatazone"},
    }
    for name, connection in invalid_connections.items():
        monkeypatch.setenv(name, json.dumps(connection | {"extra": "[]"} if "JSON" in name else connection))
    lines = []

    def fails(call: Callable[..., Any], *arguments: Any, **keyword_arguments: Any) -> None:
        with pytest.raises(Exception, match=r".") as failure:
            call(*arguments, **keyword_arguments)
        lines.append(str(failure.value))

    fails(DataZoneHook("empty").get_metadata_generation_run, "run")
    fails(DataZoneHook("missing").get_metadata_generation_run, "run")
    fails(DataZoneHook("no_json").get_metadata_generation_run, "run")
    fails(DataZoneHook("empty").get_metadata_generation_run, "run", domain_identifier="dzd_1")
    fails(hook.get_metadata_generation_run, "unknown")
    fails(hook.get_metadata_generation_run, "")
    fails(DataZoneHook("datazone_default", verify="/no/such/file").get_metadata_generation_run, "run")
    for message in (
        "User: arn:aws:iam::123456789012:user/a is not authorized to perform: datazone:GetAsset",
        "User is not permitted to perform operation: StartMetadataGenerationRun",
    ):
        server.fail("StartMetadataGenerationRun", "AccessDeniedException", message=message)
        fails(
            hook.start_metadata_generation_run, configured_catalog.asset_identifier, types=["BUSINESS_NAMES"]
        )
    for code in (
        "ValidationException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "ExpiredTokenException",
        "ConflictException",
        "ServiceQuotaExceededException",
    ):
        server.fail("StartMetadataGenerationRun", code)
        fails(
            hook.start_metadata_generation_run, configured_catalog.asset_identifier, types=["BUSINESS_NAMES"]
        )
    fails(hook.start_metadata_generation_run, configured_catalog.asset_identifier, types="BUSINESS_NAMES")
    fails(hook.accept_predictions, configured_catalog.asset_identifier)
    fails(hook.accept_predictions, configured_catalog.asset_identifier, choices="[]")
    quota = {"BUSINESS_NAMES": "business name generation has reached monthly quota"}
    run_identifier = configured_catalog.start_run(
        "BUSINESS_NAMES", statuses="FAILED", error_messages=quota, polls=0
    )
    run = hook.get_metadata_generation_run(run_identifier)
    lines.append(judge(run, allow_partial_success=True).message)
    server.set_run_status(run_identifier, "IN_PROGRESS")
    lines += [late_message(configured_catalog, run_identifier, LoopClock(monkeypatch))]
    monkeypatch.setattr(
        DataZoneMetadataGenerationRunTrigger, "logger", lambda _: logging.getLogger("tests.docs")
    )
    server.fail("ListMetadataGenerationRuns", "AccessDeniedException", times=None)
    runs = [configured_catalog.start_run("BUSINESS_NAMES", polls=9) for _ in range(4)]
    events(*(trigger(configured_catalog, run) for run in runs))
    server.recover()
    server.set_run_status(run_identifier, "PAUSED")
    hook.poll_metadata_generation_run(run_identifier)
    server.fail("GetMetadataGenerationRun", "ThrottlingException")
    hook.poll_metadata_generation_run(run_identifier)
    fails(hook.start_metadata_generation_run, "asset ", types=["BUSINESS_NAMES"])
    fails(hook.start_metadata_generation_run, "unknown", types=["BUSINESS_NAMES"])
    fails(hook.list_metadata_generation_runs_page, domain_identifier="dzd-unknown")
    names = {"types": ["BUSINESS_NAMES"]}
    fails(DataZoneHook("empty").start_metadata_generation_run, "asset", domain_identifier="dzd_1", **names)
    fails(
        hook.start_metadata_generation_run,
        configured_catalog.asset_identifier,
        owning_project_identifier="unknown",
        **names,
    )
    server.fail("StartMetadataGenerationRun", "ResourceNotFoundException", message="Project not found")
    fails(hook.start_metadata_generation_run, configured_catalog.asset_identifier, **names)
    undescribed = server.create_asset(
        "undescribed",
        domain_identifier=configured_catalog.domain_identifier,
        project_identifier=configured_catalog.project_identifier,
    ).asset_identifier
    fails(hook.accept_predictions, undescribed, rule="ALL")
    unreachable = {"region_name": "us-east-1", "endpoint_url": "http://127.0.0.1:1"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWAY", json.dumps(json.loads(server.connection) | {"extra": unreachable})
    )
    fails(
        DataZoneHook("away", config=NO_RETRIES).get_metadata_generation_run, "run", domain_identifier="dzd-1"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), DenyingSts) as sts:
        threading.Thread(target=sts.serve_forever, daemon=True).start()
        role = {"region_name": "us-east-1", "role_arn": "arn:aws:iam::123456789012:role/airflow-datazone"}
        role["service_config"] = {"sts": {"endpoint_url": f"http://127.0.0.1:{sts.server_port}"}}
        monkeypatch.setenv("AIRFLOW_CONN_ROLE", json.dumps(json.loads(server.connection) | {"extra": role}))
        for code in ("AccessDenied", "InvalidClientTokenId", "SignatureDoesNotMatch"):
            sts.RequestHandlerClass = type("Sts", (DenyingSts,), {"code": code})
            fails(DataZoneHook("role").get_metadata_generation_run, "run", domain_identifier="dzd-1")
        sts.shutdown()
    lines += messages_of_tasks(configured_catalog, monkeypatch, caplog)
    return "\n".join([*lines, *caplog.messages])


def late_message(catalog: Catalog, run_identifier: str, clock: LoopClock) -> str:
    """Return the message of a trigger whose deadline passes after it has read the status of its run."""
    before = len(catalog.server.requests)
    # The second poll is sent when the response to the first has been read.
    once(lambda: len(catalog.server.requests) > before + 1, lambda: clock.put_forward(3600))
    event = asyncio.run(only_event(trigger(catalog, run_identifier, deadline=time.time() + 1800)))
    return str(event["message"])


def messages_of_tasks(
    configured_catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> list[str]:
    """Return the errors of failing tasks as shown in their logs."""
    messages = []
    common = {"task_id": "task", "aws_conn_id": "datazone_default"}
    configured_catalog.server.fail("GetMetadataGenerationRun", "AccessDeniedException")
    with pytest.raises(RequestRefusedError) as refused:
        DataZoneGetMetadataGenerationRunOperator(run_identifier="run", **common).execute(make_context())
    messages.append("".join(traceback.format_exception(refused.value)))
    caplog.set_level(logging.INFO, "tests.docs")
    monkeypatch.setattr(
        DataZoneBatchMetadataGenerationOperator, "log", logging.getLogger("tests.docs"), raising=False
    )

    def batch(assets: list[Any] | str, **arguments: Any) -> Any:
        return DataZoneBatchMetadataGenerationOperator(
            asset_identifiers=assets, types=["BUSINESS_NAMES"], poll_interval=0.01, **common | arguments
        )

    with pytest.raises(InvalidInputError) as invalid:
        batch("[]").execute(make_context())
    messages.append(str(invalid.value))
    batch([]).execute(make_context())
    configured_catalog.server.set_run_outcome(configured_catalog.asset_identifier, polls=0, statuses="FAILED")
    with pytest.raises(BatchFailedError) as failed:
        batch([configured_catalog.asset_identifier]).execute(make_context())
    messages.append(str(failed.value))
    server, asset = configured_catalog.server, configured_catalog.asset_identifier
    server.fail("StartMetadataGenerationRun", "AccessDeniedException")
    with pytest.raises(RequestRefusedError):
        batch([asset]).execute(make_context())
    server.set_run_outcome(asset, polls=9)
    with pytest.raises(AirflowTaskTimeout) as late:
        batch([asset], execution_timeout=timedelta(seconds=0.1)).execute(make_context())
    messages.append(str(late.value))
    twice = [asset, {"asset_identifier": asset, "asset_revision": "1"}]
    for arguments in ({"assets": twice, "accept_threshold": 0.8}, {"assets": [asset], "publish": True}):
        with pytest.raises(InvalidInputError) as invalid:
            batch(**arguments).execute(make_context())  # type: ignore[arg-type]
        messages.append(str(invalid.value))
    monkeypatch.setattr(DataZonePublishAssetOperator, "log", logging.getLogger("tests.docs"), raising=False)
    server.fail("GetListing", "ThrottlingException")
    botocore_config = {"retries": {"total_max_attempts": 1}}
    publish = DataZonePublishAssetOperator(
        asset_identifier=asset, poll_interval=0.01, botocore_config=botocore_config, **common
    )

    def unpublish(key: str, value: Any) -> None:
        if key == "listing":
            server.client().create_listing_change_set(
                domainIdentifier=configured_catalog.domain_identifier,
                entityIdentifier=asset,
                entityType="ASSET",
                action="UNPUBLISH",
            )

    context = make_context()
    monkeypatch.setattr(context["ti"], "xcom_push", unpublish)
    with pytest.raises(ListingFailedError) as inactive:
        publish.execute(context)
    messages.append(str(inactive.value))
    return messages


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no asset watchers")
@pytest.mark.usefixtures("unhurried")
def test_troubleshooting_page_quotes_messages_of_watchers(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    messages = []
    invalid: list[dict[str, Any]] = [
        {"asset_identifier": []},
        {"asset_identifier": ""},
        {"asset_identifier": "{{ a }}"},
        {"statuses": "X"},
    ]
    for arguments in invalid:
        with pytest.raises(InvalidWatcherError) as error:
            DataZoneMetadataGenerationRunEventTrigger(catalog.domain_identifier, **arguments)
        messages.append(str(error.value))
    with monkeypatch.context() as patch:
        # The message for Airflow 2.
        patch.setattr(version_compat, "AIRFLOW_V_3_0_PLUS", False)
        with pytest.raises(RuntimeError) as too_old:
            DataZoneMetadataGenerationRunEventTrigger(catalog.domain_identifier)
        messages.append(str(too_old.value))
    monkeypatch.setattr(watch_store, "RETRY_PAUSES", ())
    monkeypatch.setattr(watch, "LONGEST_READ_INTERVAL", 0.1)

    async def script() -> None:
        domain, store = Domain(catalog), Store()
        watcher = Watcher(catalog, store, run_types=["BUSINESS_NAME", "BUSINESS_NAMES"])
        run = domain.start()
        await domain.polls()
        store.error = RuntimeError("down")
        catalog.server.fail("ListMetadataGenerationRuns", "ThrottlingException", times=3)
        catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=None)
        domain.end(run)
        await until(lambda: "is no longer followed" in caplog.text and "could not be saved" in caplog.text)
        store.error = ValueError("Task has 2 concrete inlets and outlets")
        other = Watcher(catalog, store)
        await until(lambda: "are not saved" in caplog.text)
        catalog.server.fail("ListMetadataGenerationRuns", "AccessDeniedException", times=None)
        await until(lambda: "cannot be watched" in caplog.text)
        await watcher.stop()
        await other.stop()

    with caplog.at_level("INFO"):
        play(script())
    text = "\n".join([*messages, *caplog.messages])
    section = (
        PAGES["troubleshooting.md"].partition("\n## Messages of asset watchers\n")[2].partition("\n## ")[0]
    )
    quotes = re.findall(r"`([^`]*? [^`]*?)`", section)
    assert len(quotes) > 8
    for quote in quotes:
        pattern = re.sub(r"'.'", "'.*?'", re.escape(quote.strip("… ")))
        assert re.search(re.sub(r"(\\ )?…(\\ )?", ".*?", pattern), text), quote


def test_troubleshooting_page_quotes_reported_messages(reported_messages: str) -> None:
    page = PAGES["troubleshooting.md"].partition("\n## Messages of asset watchers\n")[0]
    rows = re.findall(r"^\| (`.*?) \| .* \|$", page, re.MULTILINE)
    quotes = [quote for row in rows for quote in re.findall(r"`(.*?)`", row)]
    assert len(quotes) > len(rows) > 15
    # Only a triggerer reports these messages.
    deferral = (REPOSITORY / "airflow_provider_datazone/deferral.py").read_text()
    for quote in quotes:
        if "trigger" in quote:
            assert re.split(r" run '| …", quote)[0] in deferral
        else:
            # Quoted values and omitted text can be anything.
            pattern = re.sub(r"'.'", "'.*?'", re.escape(quote.strip("… ")))
            pattern = re.sub(r"(\\ )?…(\\ )?", ".*?", pattern)
            if AIRFLOW_MINOR in ("3.0", "3.1") and "JSON" in quote:
                # Airflow 3.0 and 3.1 ignore such a connection in the environment.
                pattern = "The connection 'no_json' is not defined"
            assert re.search(pattern, reported_messages), quote
