"""The hook polls a run until it ends or the timeout expires."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.service_errors import is_permanent, is_transient
from tests.conftest import Clock

if TYPE_CHECKING:
    from tests.conftest import Catalog


def test_wait_returns_a_failed_run(hook: DataZoneHook, catalog: Catalog, clock: Clock):
    run = hook.wait_for_metadata_generation_run(
        catalog.start_run(statuses="FAILED"), domain_identifier=catalog.domain_identifier, poll_interval=7
    )
    assert run.status == "FAILED"
    assert clock.naps == [7]


def test_wait_times_out_with_an_error_that_names_the_run(hook: DataZoneHook, catalog: Catalog, clock: Clock):
    run = catalog.start_run(in_progress_seconds=3600)
    with pytest.raises(TimeoutError, match=rf"'{run}'.*after 25 s.*IN_PROGRESS.*continues"):
        hook.wait_for_metadata_generation_run(
            run, domain_identifier=catalog.domain_identifier, poll_interval=10, timeout=25
        )
    assert clock.naps == [10, 10, 5], "the last poll is at the deadline, not after it"


@pytest.mark.parametrize(
    "failure",
    [
        "ThrottlingException",
        "InternalServerException",
        "ServiceUnavailableException",
        "drop",
        "hang",
        "malformed",
    ],
)
def test_wait_retries_transient_errors(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, log: pytest.LogCaptureFixture, failure: str
):
    if failure == "hang":
        hook.conn_config.botocore_config = hook.config.merge(Config(read_timeout=0.5))
    run = catalog.start_run(polls=0)
    catalog.server.fail("GetMetadataGenerationRun", failure, times=2)
    done = hook.wait_for_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    assert done.status == "SUCCEEDED"
    assert clock.naps == [30, 30]
    warnings = [record.getMessage() for record in log.records if "try again" in record.getMessage()]
    assert len(warnings) == 2
    assert all(run in warning for warning in warnings)


@pytest.mark.parametrize("code", ["AccessDeniedException", "ValidationException", "UnauthorizedException"])
def test_permanent_error_ends_the_wait_with_the_service_message(
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


def test_wait_tolerates_not_found_for_a_new_run(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, log: pytest.LogCaptureFixture
):
    run = catalog.start_run(polls=0)
    catalog.server.fail("GetMetadataGenerationRun", "ResourceNotFoundException", times=3)
    done = hook.wait_for_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    assert done.status == "SUCCEEDED"
    assert clock.naps == [1, 1, 1]
    (line,) = (record.getMessage() for record in log.records if "does not find" in record.getMessage())
    assert run in line


@pytest.mark.parametrize(("timeout", "grace"), [(None, 30), (600, 30), (5, 5), (0, 0)])
def test_wait_for_an_unknown_run_ends_after_the_grace_period_or_the_timeout(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, timeout: float | None, grace: float
):
    with pytest.raises(ClientError, match="Requested prediction cannot be found in domain"):
        hook.wait_for_metadata_generation_run(
            "unknownrun", domain_identifier=catalog.domain_identifier, timeout=timeout
        )
    assert sum(clock.naps) == grace


def test_wait_in_an_unknown_domain_ends_at_once(hook: DataZoneHook, clock: Clock):
    with pytest.raises(ClientError, match="Domain dzd-unknown does not exist"):
        hook.wait_for_metadata_generation_run("run", domain_identifier="dzd-unknown")
    assert clock.naps == []


def test_get_of_an_unknown_run_sends_one_request(hook: DataZoneHook, catalog: Catalog, clock: Clock):
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        hook.get_metadata_generation_run("unknownrun", domain_identifier=catalog.domain_identifier)
    assert clock.naps == []
    assert catalog.server.request_counts["GetMetadataGenerationRun"] == 1


def test_cancel_tolerates_not_found_for_a_new_run_in_both_requests(
    hook: DataZoneHook, catalog: Catalog, clock: Clock
):
    run = catalog.start_run(in_progress_seconds=3600)
    for operation, times in (("CancelMetadataGenerationRun", 2), ("GetMetadataGenerationRun", 3)):
        catalog.server.fail(operation, "ResourceNotFoundException", times=times)
    done = hook.cancel_metadata_generation_run_unless_ended(run, domain_identifier=catalog.domain_identifier)
    assert done.status == "CANCELED"
    assert clock.naps == [1] * 5


@pytest.mark.parametrize("operation", ["CancelMetadataGenerationRun", "GetMetadataGenerationRun"])
def test_cancel_of_an_unknown_run_raises_after_the_grace_period(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, operation: str
):
    run = catalog.start_run(in_progress_seconds=3600)
    catalog.server.fail(operation, "ResourceNotFoundException", times=None)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        hook.cancel_metadata_generation_run_unless_ended(run, domain_identifier=catalog.domain_identifier)
    assert sum(clock.naps) == 30


def test_wait_continues_on_an_unknown_status_with_one_warning(
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
        f"Metadata generation run {run} has the status 'PAUSED', which this version does not know; the wait continues."
    ]


def test_status_changes_are_logged_once(
    hook: DataZoneHook, catalog: Catalog, clock: Clock, log: pytest.LogCaptureFixture
):
    run = catalog.start_run(polls=5)
    hook.wait_for_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    logged = [record.getMessage() for record in log.records if run in record.getMessage()]
    assert len(logged) == len(set(logged)) <= 3
    assert logged[-1] == f"Metadata generation run {run} is SUCCEEDED."


def test_missing_type_stats_are_an_empty_list(hook: DataZoneHook, catalog: Catalog, clock: Clock):
    run = catalog.start_run(type_stats=False)
    done = hook.wait_for_metadata_generation_run(run, domain_identifier=catalog.domain_identifier)
    assert (done.status, done.type_stats) == ("SUCCEEDED", [])
