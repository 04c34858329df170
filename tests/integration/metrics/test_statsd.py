"""Airflow sends the metrics to a StatsD server, here a socket on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_datazone import metrics
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from tests.integration.metrics.listener import StatsDListener

if TYPE_CHECKING:
    from tests.conftest import Catalog

# What the process of a task or of a triggerer runs. Airflow configures its metrics when it is imported.
SENSOR = """
import sys
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.version_compat import initialize_stats

# Airflow's task runner has done this.
initialize_stats()
sensor = DataZoneMetadataGenerationRunSensor(
    task_id="wait", run_identifier=sys.argv[2], domain_identifier=sys.argv[1], poke_interval=0.01,
    aws_conn_id="datazone_default", do_xcom_push=False,
)
try:
    sensor.execute({})
except AirflowFailException:
    pass
"""
TRIGGER = """
import asyncio, sys
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger

async def wait(run):
    arguments = {"poll_interval": 0.05, "aws_conn_id": "datazone_default"}
    async for event in DataZoneMetadataGenerationRunTrigger(run, sys.argv[1], **arguments).run():
        pass

async def main():
    await asyncio.gather(*map(wait, sys.argv[2:]))

asyncio.run(main())
"""


@pytest.fixture
def statsd() -> Iterator[StatsDListener]:
    with StatsDListener() as listener:
        yield listener


def run(code: str, statsd: StatsDListener, *arguments: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {f"AIRFLOW__METRICS__{name}": value for name, value in statsd.settings.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.usefixtures("airflow_database")
def test_task_counts_its_requests_throttled_requests_and_the_run(catalog: Catalog, statsd: StatsDListener):
    run_identifier = catalog.start_run(statuses="FAILED", polls=0)
    catalog.server.fail("GetMetadataGenerationRun", "ThrottlingException", times=2)
    before = catalog.server.request_counts["GetMetadataGenerationRun"]
    run(SENSOR, statsd, catalog.domain_identifier, run_identifier)
    sent = catalog.server.request_counts["GetMetadataGenerationRun"] - before
    assert sent >= 3
    assert statsd.total("datazone.requests", operation="GetMetadataGenerationRun") == sent
    assert statsd.total("datazone.throttled", operation="GetMetadataGenerationRun") == 2
    assert statsd.total("datazone.runs_ended", status="FAILED") == 1


@pytest.mark.usefixtures("airflow_database")
def test_triggerer_reports_its_waits_and_counts_its_requests(catalog: Catalog, statsd: StatsDListener):
    runs = [catalog.start_run(in_progress_seconds=1) for _ in range(3)]
    before = catalog.server.request_counts
    run(TRIGGER, statsd, catalog.domain_identifier, *runs)
    sent = catalog.server.request_counts - before
    for operation in ("GetMetadataGenerationRun", "ListMetadataGenerationRuns"):
        assert statsd.total("datazone.requests", operation=operation) == sent[operation]
    waits = statsd.values("datazone.waits")
    assert max(waits) == 3
    # Otherwise the gauge would keep the last number after the waits have ended.
    assert waits[-1] == 0
    assert statsd.total("datazone.throttled") == 0


def test_request_without_a_response_counts_as_a_request(catalog: Catalog, statsd: StatsDListener):
    run_identifier = catalog.start_run(polls=0)
    catalog.server.fail("GetMetadataGenerationRun", "drop")
    run(TRIGGER, statsd, catalog.domain_identifier, run_identifier)
    assert statsd.total("datazone.requests", operation="GetMetadataGenerationRun") >= 2


def test_error_of_the_metrics_backend_does_not_fail_a_request(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def fail(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        raise RuntimeError("the backend is broken")

    # No backend that Airflow ships can be made to fail here.
    monkeypatch.setattr(metrics.Stats, "incr", fail)
    run_identifier = catalog.start_run(polls=0)
    run_read = DataZoneHook("datazone_default").get_metadata_generation_run(
        run_identifier, domain_identifier=catalog.domain_identifier
    )
    assert run_read.id == run_identifier
    assert calls
