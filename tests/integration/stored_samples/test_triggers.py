"""The current version loads and resumes triggers that earlier versions stored."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_datazone.batch.assets import unpack
from airflow_provider_datazone.triggers.datazone import (
    DataZoneBatchMetadataGenerationTrigger,
    DataZoneMetadataGenerationRunEventTrigger,
    DataZoneMetadataGenerationRunTrigger,
)
from tests.conftest import TYPE_STATS
from tests.integration.batch.tasks import event_of
from tests.integration.stored_samples.samples import DOMAIN, RUN, SampleCatalog, samples, stored_rows

pytestmark = pytest.mark.usefixtures("unhurried")
TRIGGERS = {
    "run": DataZoneMetadataGenerationRunTrigger,
    "batch": DataZoneBatchMetadataGenerationTrigger,
    "watcher": DataZoneMetadataGenerationRunEventTrigger,
}
# Airflow 2 has no asset watchers.
KINDS = [kind for kind in TRIGGERS if AIRFLOW_V_3_0_PLUS or kind != "watcher"]
# Arguments that earlier versions do not store, and their defaults.
LATER_ARGUMENTS = {
    "quota_used_up": False,
    "try_number": 1,
    "refusals": None,
    "accept_threshold": None,
    "publish": False,
}


def load_trigger(sample: dict[str, Any]) -> Any:
    """Store a trigger and load it, as the scheduler and the triggerer do."""
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    try:
        from airflow.serialization.decoders import smart_decode_trigger_kwargs as decode
    except ImportError:  # Earlier versions of Airflow decode all arguments at once.

        def decode(value: Any) -> Any:
            return value

    with create_session() as session:
        row = Trigger(classpath=sample["classpath"], kwargs=sample["kwargs"])
        session.add(row)
        session.flush()
        stored = row.id
    with create_session() as session:
        row = session.get(Trigger, stored)
        classpath, arguments = row.classpath, {name: decode(value) for name, value in row.kwargs.items()}
        session.delete(row)
    return TriggerRunner().get_trigger_by_classpath(classpath)(**arguments)


@pytest.mark.parametrize("sample", samples("triggers", *KINDS))
def test_trigger_of_an_earlier_version_is_loaded(sample: dict[str, Any], airflow_database: None):
    loaded = load_trigger(sample)
    assert type(loaded) is TRIGGERS[sample["name"].partition(":")[0]]
    expected = sample["kwargs"]
    if type(loaded) is DataZoneBatchMetadataGenerationTrigger:
        expected = LATER_ARGUMENTS | expected
    if type(loaded) is not DataZoneMetadataGenerationRunEventTrigger:
        assert {name: getattr(loaded, name) for name in expected} == expected
    # Serializing the trigger again adds no other arguments.
    assert loaded.serialize()[1] == expected


@pytest.mark.parametrize("sample", samples("triggers", "run: first", "batch: first"))
def test_trigger_of_a_newer_version_raises_type_error(sample: dict[str, Any], airflow_database: None):
    """`docs/versions.md` documents that deferred tasks must end before a rollback."""
    arguments = sample["kwargs"] | {"of_a_newer_version": True}
    with pytest.raises(TypeError, match="unexpected keyword argument 'of_a_newer_version'"):
        load_trigger(sample | {"kwargs": arguments})


@pytest.mark.parametrize("sample", samples("triggers", "run: deferred by"))
def test_stored_trigger_waits_for_its_run(
    sample: dict[str, Any], catalog: SampleCatalog, airflow_database: None
):
    catalog.add_run(status="SUCCEEDED")
    loaded = load_trigger(sample)
    loaded.poll_interval, loaded.deadline = 0.02, None
    event = event_of(loaded)
    assert (event["status"], event["run"]["id"]) == ("terminal", RUN)
    all_types = TYPE_STATS["SUCCEEDED"]
    assert event["run"]["typeStats"] == (all_types[1:] if sample["kwargs"]["run_type"] else all_types)


@pytest.mark.parametrize(
    "sample", samples("triggers", "batch: nothing", "batch: under way", "batch: second try", "batch: quota")
)
def test_stored_trigger_resumes_its_batch(
    sample: dict[str, Any], catalog: SampleCatalog, airflow_database: None
):
    before = stored_rows(sample["kwargs"]["rows"])
    catalog.add_runs_of(before, active="SUCCEEDED")
    starts = catalog.starts
    loaded = load_trigger(sample)
    loaded.poll_interval, loaded.deadline = 0.02, None
    event = event_of(loaded)
    assert event["status"] == "ended"
    after = stored_rows(event["rows"])
    assert [row[:4] for row in after] == [row[:4] for row in before]
    not_started = "quota used up" in sample["name"]
    for row, old in zip(after, before, strict=True):
        if old.run is not None:
            assert (row.run, row.status) == (old.run, old.status or "SUCCEEDED")
        elif not_started:
            assert (row.run, row.status) == (None, None)
        else:
            assert row.run in catalog.runs_of(row.asset)
            assert row.status == "SUCCEEDED"
    assert catalog.starts - starts == (0 if not_started else sum(row.run is None for row in before))
    assert event["quota_used_up"] is not_started
    for name in ("domain_identifier", "types", "started_at", "duplicates"):
        assert event[name] == sample["kwargs"][name]


@pytest.mark.parametrize("sample", samples("triggers", "batch: publishing"))
def test_stored_trigger_continues_to_publish(
    sample: dict[str, Any], catalog: SampleCatalog, airflow_database: None
):
    before = stored_rows(sample["kwargs"]["rows"])
    catalog.add_runs_of(before, active="SUCCEEDED")
    # The second asset is accepted, but not published. The first one needs nothing more.
    catalog.server.client().accept_predictions(
        domainIdentifier=DOMAIN, identifier=before[1].asset, acceptRule={"rule": "ALL"}
    )
    starts, counts = catalog.starts, catalog.server.request_counts
    accepts = counts["AcceptPredictions"]
    loaded = load_trigger(sample)
    loaded.poll_interval, loaded.deadline = 0.02, None
    event = event_of(loaded)
    assert event["status"] == "ended"
    rows = unpack(event["rows"])
    assert [row.revision for row in rows] == ["2"] * 5
    assert (rows[0].listing, sum(row.listing is not None for row in rows)) == ("samplelisting1", 5)
    counts = catalog.server.request_counts
    assert (catalog.starts - starts, counts["AcceptPredictions"] - accepts) == (1, 3)
    assert counts["CreateListingChangeSet"] == 4


@pytest.mark.parametrize("sample", samples("triggers", "batch: first"))
def test_trigger_with_unreadable_rows_yields_an_error_event(
    sample: dict[str, Any], catalog: SampleCatalog, airflow_database: None
):
    event = event_of(load_trigger(sample))
    assert event["status"] == "error"
    assert "rows of the batch cannot be read" in event["message"]
