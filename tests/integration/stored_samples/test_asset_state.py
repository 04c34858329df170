"""A watcher of the current version continues with the runs that an earlier version saved."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_datazone.polling.watch import RunFilter, RunWatch
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunEventTrigger
from airflow_provider_datazone.triggers.watch_store import WatchStore
from tests.integration.stored_samples.samples import RUN, samples
from tests.integration.triggers.watchers import Store

REPORTED = "samplerun00002"


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no asset watchers")
@pytest.mark.parametrize("sample", samples("asset_state", "watcher"))
def test_watcher_finds_its_watch_store(sample: dict[str, Any]):
    trigger = DataZoneMetadataGenerationRunEventTrigger(**sample["kwargs"])
    log = logging.getLogger("tests.watcher")
    watch = RunWatch(RunFilter(), poll_interval=10, log=log)
    store = Store()
    store.values[sample["key"]] = json.dumps(sample["value"])

    async def script() -> None:
        watch_store = WatchStore(store, trigger._identity, log)
        await watch_store.claim(watch, may_report_single=True)

    asyncio.run(script())
    assert (watch.following, watch.finished) == ({RUN}, [REPORTED])
    # It writes the same value under the same key.
    assert {key: json.loads(value) for key, value in store.values.items()} == {sample["key"]: sample["value"]}
