"""
What earlier versions have written to Airflow's database, read by the version of today.

The samples are in ``tests/samples``, one file for each kind:

- ``triggers.json``: the class path and the arguments of deferred tasks' triggers.
- ``events.json``: what triggers yielded, with what else the task resumes with (``next_kwargs``).
- ``task_state.json``: the task state store of a task (Airflow 3.3 and later), all keys.
- ``rows.json``: packed rows of a batch.

Never change or remove a sample: somewhere, a database has it. When a version writes something new, add one to the end
of its file:

1. Have the code itself write it: defer a task, run its trigger, let a task store its state, as in ``test_batch.py`` and
   ``test_run_operators.py``. The domain, project, assets and runs have the identifiers of the other samples.
2. Give it a ``name`` that says what it is, and in ``written_by`` the version that writes it. A sample of the same
   meaning keeps the name of the earlier ones, so that the expectations below hold for it, too.
3. For a new name, add it to ``NAMES``, and say in one of the tests what a task makes of it.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowTaskTimeout, TaskDeferred

from airflow_provider_datazone.batch import AssetRow, BatchMemory, unpack
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    MetadataGenerationRunFailedError,
    QuotaUsedUpError,
    RequestRefusedError,
    StartedRunFailedError,
    WaitFailedError,
)
from airflow_provider_datazone.operators import datazone as operator_module
from airflow_provider_datazone.operators.datazone import (
    DataZoneBatchMetadataGenerationOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.submission import RunRequest, token_of
from airflow_provider_datazone.testing import models
from airflow_provider_datazone.triggers.datazone import (
    DataZoneBatchMetadataGenerationTrigger,
    DataZoneMetadataGenerationRunTrigger,
)
from tests.conftest import TYPE_STATS, Catalog
from tests.integration.test_batch import event_of, make_context
from tests.integration.test_submission import Store, Task, runs_of, tokens_of

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

# In all samples.
DOMAIN, PROJECT, ASSET, RUN = "dzd-sampledomain", "sampleproject1", "sampleasset001", "samplerun00001"
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
# What the client tokens of the batches are made of, in every version.
IDENTITY = "airflow-d513d058570d2606d515705cce4f897d7a9f6f3642e66364dd58204624a27a8f"
# The client token of the first run for the first asset of a batch, in every version.
BATCH_TOKEN = "airflow-897a0af54cb14c4f602eb99ee1c8eefec6f4088e76f08021dc3f27c432cde88e"
FIRST_BATCH = "0.1.0 in development, the first batch operator"


def samples(kind: str, *prefixes: str) -> list[Any]:
    """Return the samples of a kind whose names begin so, for ``parametrize``."""
    path = Path(__file__).parents[1] / "samples" / f"{kind}.json"
    return [
        pytest.param(sample, id=f"{sample['name']} ({sample['written_by']})")
        for sample in json.loads(path.read_text(encoding="utf-8"))
        if sample["name"].startswith(prefixes)
    ]


class StoredRow(NamedTuple):
    """What all versions store of an asset, read without the code of today."""

    asset: str
    revision: str | None
    project: str
    submission: int
    run: str | None
    status: str | None
    type_stats: list[dict[str, str]]
    error: str | None


def stored_rows(packed: str) -> list[StoredRow]:
    rows = json.loads(zlib.decompress(base64.b85decode(packed)))
    return [StoredRow(*row[: len(StoredRow._fields)]) for row in rows]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rates are tested on a simulated clock; here they would only cost time."""
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_REQUESTS_PER_SECOND", "1000")
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_STARTS_PER_SECOND", "1000")


class SampleCatalog(Catalog):
    """A domain with the assets and the runs of the samples, under the same identifiers."""

    def __init__(self, server: DataZoneServer) -> None:
        super().__init__(server, DOMAIN, PROJECT, ASSET)
        client = server.client()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "_new_id", lambda: DOMAIN.removeprefix("dzd-"))
            role = "arn:aws:iam::123456789012:role/DataZoneDomainExecution"
            client.create_domain(name="local", domainExecutionRole=role)
            patch.setattr(models, "_new_id", lambda: PROJECT)
            client.create_project(domainIdentifier=DOMAIN, name="local")
            for number in range(1, 6):
                patch.setattr(models, "_new_id", lambda asset=f"sampleasset{number:03}": asset)
                server.create_asset(domain_identifier=DOMAIN, project_identifier=PROJECT)
        # Runs that a test itself starts end at once.
        server.set_run_outcome(polls=0, times=None)

    def add_run(
        self, run: str = RUN, asset: str = ASSET, *, status: str = "IN_PROGRESS", token: str | None = None
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "_new_id", lambda: run)
            started = self.server.client().start_metadata_generation_run(
                domainIdentifier=DOMAIN,
                owningProjectIdentifier=PROJECT,
                target={"type": "ASSET", "identifier": asset},
                types=TYPES,
                **({} if token is None else {"clientToken": token}),
            )
        assert started["id"] == run
        self.server.set_run_status(run, status)

    def add_runs_of(self, rows: list[StoredRow], active: str) -> None:
        """
        Add the runs of a batch.

        :param rows: The rows of the batch.
        :param active: The status of those that are active by the rows.
        """
        for row in rows:
            if row.run is not None:
                request = RunRequest(row.asset, TYPES, DOMAIN, row.project, row.revision)
                token = token_of(IDENTITY, request.fingerprint, row.submission)
                self.add_run(row.run, row.asset, status=row.status or active, token=token)

    def runs_of(self, asset: str) -> list[str]:
        return runs_of(Catalog(self.server, DOMAIN, PROJECT, asset))

    @property
    def starts(self) -> int:
        return self.server.request_counts["StartMetadataGenerationRun"]


@pytest.fixture
def catalog(datazone: DataZoneServer) -> SampleCatalog:
    return SampleCatalog(datazone)


# -------------------------------------------------------------------------------------------- triggers

TRIGGERS = {"run": DataZoneMetadataGenerationRunTrigger, "batch": DataZoneBatchMetadataGenerationTrigger}
# Arguments that earlier versions leave out, and what they mean.
LATER_ARGUMENTS = {"quota_used_up": False, "try_number": 1, "refusals": None}


def load_trigger(sample: dict[str, Any]) -> Any:
    """Store a trigger and make it again, as scheduler and triggerer do."""
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


@pytest.mark.parametrize("sample", samples("triggers", ""))
def test_trigger_that_an_earlier_version_stored_is_read(sample: dict[str, Any], airflow_database: None):
    loaded = load_trigger(sample)
    assert type(loaded) is TRIGGERS[sample["name"].partition(":")[0]]
    expected = sample["kwargs"]
    if type(loaded) is DataZoneBatchMetadataGenerationTrigger:
        expected = LATER_ARGUMENTS | expected
    assert {name: getattr(loaded, name) for name in expected} == expected
    # Nor is there anything else in what is stored next.
    assert loaded.serialize()[1] == expected


@pytest.mark.parametrize("sample", samples("triggers", "run: first", "batch: first"))
def test_trigger_that_a_newer_version_stored_is_refused_with_a_type_error(
    sample: dict[str, Any], airflow_database: None
):
    """As `docs/versions.md` says: before a rollback, deferred tasks have to end."""
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
def test_stored_trigger_continues_its_batch(
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


@pytest.mark.parametrize("sample", samples("triggers", "batch: first"))
def test_trigger_whose_rows_cannot_be_read_says_so(
    sample: dict[str, Any], catalog: SampleCatalog, airflow_database: None
):
    event = event_of(load_trigger(sample))
    assert event["status"] == "error"
    assert "rows of the batch cannot be read" in event["message"]


# -------------------------------------------------------------------------------------- events of a run


def make_sensor() -> DataZoneMetadataGenerationRunSensor:
    return DataZoneMetadataGenerationRunSensor(
        task_id="wait",
        run_identifier=RUN,
        domain_identifier=DOMAIN,
        aws_conn_id="datazone_default",
        deferrable=True,
    )


def deferred_context(task_id: str, **arguments: Any) -> Any:
    # On Airflow 3.0 a deferred task says in which try it was.
    return make_context(**{"task_id": task_id, "pushed": {"deferred_in_try": 1}} | arguments)


# The status of the run, what the task raises, and a part of its message.
ENDINGS: dict[str, tuple[str, type[BaseException] | None, str]] = {
    "run: SUCCEEDED": ("SUCCEEDED", None, ""),
    "run: PARTIALLY_SUCCEEDED": ("PARTIALLY_SUCCEEDED", None, ""),
    "run: FAILED": ("FAILED", MetadataGenerationRunFailedError, "BUSINESS_NAMES FAILED: no names today"),
    "run: CANCELED": ("CANCELED", MetadataGenerationRunFailedError, "BUSINESS_NAMES CANCELED"),
    "run: FAILED for the quota": ("FAILED", MetadataGenerationRunFailedError, "monthly quota is used up"),
}


@pytest.mark.parametrize("sample", [s for s in samples("events", "run:") if s.values[0]["name"] in ENDINGS])
def test_sensor_judges_the_run_of_a_stored_event(sample: dict[str, Any], catalog: SampleCatalog):
    status, error, message = ENDINGS[sample["name"]]
    type_stats = TYPE_STATS["QUOTA" if "quota" in sample["name"] else status]
    context = deferred_context("wait")
    resume = ("execute_complete", {"event": sample["event"]}, context)
    if error is None:
        assert make_sensor().resume_execution(*resume) == type_stats
    else:
        with pytest.raises(error, match=message):
            make_sensor().resume_execution(*resume)
    pushed = context["ti"].pushed
    assert pushed["type_stats"] == type_stats
    run = pushed["run"]
    assert (run["id"], run["domainId"], run["status"]) == (RUN, DOMAIN, status)
    assert (run["target"], run["types"]) == ({"type": "ASSET", "identifier": ASSET}, TYPES)
    assert (run["owningProjectId"], run["typeStats"]) == (PROJECT, type_stats)
    assert run["createdAt"] == sample["event"]["run"]["createdAt"]
    assert run["createdBy"] == sample["event"]["run"]["createdBy"]


TROUBLES: dict[str, tuple[type[BaseException], str]] = {
    "run: timeout": (AirflowSensorTimeout, f"{RUN}' has not ended in time"),
    "run: permanent error": (RequestRefusedError, "not yours"),
    "run: error that may pass": (WaitFailedError, "The security token included in the request is invalid"),
}


@pytest.mark.parametrize("sample", [s for s in samples("events", "run:") if s.values[0]["name"] in TROUBLES])
def test_sensor_fails_with_the_trouble_of_a_stored_event(sample: dict[str, Any], catalog: SampleCatalog):
    error, message = TROUBLES[sample["name"]]
    catalog.add_run()
    context = deferred_context("wait")
    with pytest.raises(error, match=message):
        make_sensor().resume_execution("execute_complete", {"event": sample["event"]}, context)
    assert context["ti"].pushed["type_stats"] == []


def test_stored_timeout_of_a_sensor_is_not_one_when_the_run_has_ended(catalog: SampleCatalog):
    catalog.add_run(status="SUCCEEDED")
    for sample in samples("events", "run: timeout"):
        event = {"event": sample.values[0]["event"]}
        found = make_sensor().resume_execution("execute_complete", event, deferred_context("wait"))
        assert found == TYPE_STATS["SUCCEEDED"]


# ----------------------------------------------------------------- events of a run that a task started


def make_start() -> DataZoneStartMetadataGenerationRunOperator:
    return DataZoneStartMetadataGenerationRunOperator(
        task_id="start",
        asset_identifier=ASSET,
        types=TYPES,
        domain_identifier=DOMAIN,
        owning_project_identifier=PROJECT,
        aws_conn_id="datazone_default",
    )


def resume_start(sample: dict[str, Any], context: Any) -> Any:
    resume = {"event": sample["event"]} | sample["next_kwargs"]
    return make_start().resume_execution("execute_complete", resume, context)


@pytest.mark.parametrize("sample", samples("events", "start: own run SUCCEEDED"))
def test_start_returns_the_run_of_a_stored_event(sample: dict[str, Any], catalog: SampleCatalog):
    context = deferred_context("start")
    assert resume_start(sample, context) == RUN
    assert context["ti"].pushed["type_stats"] == TYPE_STATS["SUCCEEDED"]
    assert context["ti"].pushed["run"]["id"] == RUN


@pytest.mark.parametrize("sample", samples("events", "start: own run FAILED"))
def test_start_fails_with_the_run_of_a_stored_event(sample: dict[str, Any], catalog: SampleCatalog):
    context = deferred_context("start")
    with pytest.raises(StartedRunFailedError, match=f"{RUN}.* ended FAILED"):
        resume_start(sample, context)
    assert context["ti"].pushed["run"]["status"] == "FAILED"
    assert catalog.starts == 0


@pytest.mark.parametrize("after", [60, 3600], ids=["soon", "later"])
@pytest.mark.parametrize("sample", samples("events", "start: adopted run CANCELED"))
def test_start_knows_from_a_stored_deferral_when_its_run_was_adopted(
    sample: dict[str, Any], after: int, catalog: SampleCatalog, monkeypatch: pytest.MonkeyPatch
):
    catalog.add_run(status="CANCELED")
    adopted = sample["next_kwargs"]["adopted"]
    clock = SimpleNamespace(time=lambda: adopted + after, monotonic=lambda: 0.0, sleep=lambda seconds: None)
    monkeypatch.setattr(operator_module, "time", clock)
    context = deferred_context("start")
    if after == 3600 and adopted is not True:
        # A person canceled it.
        with pytest.raises(StartedRunFailedError, match=f"{RUN}.* ended CANCELED"):
            resume_start(sample, context)
        assert catalog.runs_of(ASSET) == [RUN]
    else:
        run = resume_start(sample, context)
        assert catalog.runs_of(ASSET) == [RUN, run]


@pytest.mark.parametrize("ended", [False, True], ids=["active", "ended"])
@pytest.mark.parametrize("sample", samples("events", "start: timeout"))
def test_start_polls_the_run_of_a_stored_deferral_before_it_times_out(
    sample: dict[str, Any], ended: bool, catalog: SampleCatalog
):
    catalog.add_run(status="SUCCEEDED" if ended else "IN_PROGRESS")
    # Without the XComs of the task: what it was deferred with names the run.
    if ended and "run_identifier" in sample["next_kwargs"]:
        assert resume_start(sample, deferred_context("start")) == RUN
    else:
        with pytest.raises(AirflowTaskTimeout, match=f"{RUN}' has not ended in time"):
            resume_start(sample, deferred_context("start"))
    if ended:
        xcoms = {"deferred_in_try": 1, "run": {"id": RUN, "domainId": DOMAIN}}
        assert resume_start(sample, deferred_context("start", pushed=xcoms)) == RUN


# ---------------------------------------------------------------------------------- events of a batch


def make_batch(rows: list[StoredRow], **arguments: Any) -> DataZoneBatchMetadataGenerationOperator:
    known = {
        "task_id": "generate",
        "asset_identifiers": [row.asset for row in rows],
        "types": TYPES,
        "domain_identifier": DOMAIN,
        "owning_project_identifier": PROJECT,
        "aws_conn_id": "datazone_default",
        "poll_interval": 0.02,
        "deferrable": False,
    }
    return DataZoneBatchMetadataGenerationOperator(**known | arguments)


# What the task raises, and a part of its message.
BATCH_ENDINGS: dict[str, tuple[type[BaseException] | None, str]] = {
    "batch: ended, all succeeded": (None, ""),
    "batch: ended, with failures": (BatchFailedError, "3 of 5 assets have not succeeded"),
    "batch: ended, quota used up": (QuotaUsedUpError, "monthly quota is used up: 2 were not started"),
    "batch: ended, refused for all assets": (RequestRefusedError, "3 of 3 .*not yours"),
    "batch: checkpoint": (TaskDeferred, ""),
    "batch: timeout": (AirflowTaskTimeout, "has not ended in time"),
    "batch: permanent error": (RequestRefusedError, "No AWS Region"),
    "batch: error, connection not found": (WaitFailedError, "'missing' is not defined"),
    "batch: error that may pass": (WaitFailedError, "The security token included in the request is invalid"),
    "batch: error, trigger arguments not valid": (WaitFailedError, "poll_interval must be a number"),
    "batch: error, rate not valid": (WaitFailedError, "max_starts_per_second must be a number above 0"),
}


@pytest.mark.parametrize("sample", samples("events", "batch:"))
def test_batch_resumes_with_a_stored_event(sample: dict[str, Any], catalog: SampleCatalog):
    event, store = sample["event"], Store()
    rows = stored_rows(event["rows"])
    error, message = BATCH_ENDINGS[sample["name"]]
    if sample["written_by"] == FIRST_BATCH:
        # It says nothing of the quota, and was replaced on the same day. The retry asks DataZone.
        error, message = WaitFailedError, "an event that cannot be read, one of another version"
    context = deferred_context("generate", store=store)
    resume = ("execute_complete", {"event": event}, context)
    pushed = context["ti"].pushed
    if error is None:
        summary = make_batch(rows).resume_execution(*resume)
        assert (summary["total"], summary["succeeded"], summary["failed"]) == (len(rows), len(rows), 0)
        assert pushed["return_value"] == summary
    else:
        with pytest.raises(error, match=message or None) as raised:
            make_batch(rows).resume_execution(*resume)
    if "ended" in sample["name"] and sample["written_by"] != FIRST_BATCH:
        results = [(row["asset"], row["run"], row["status"], row["typeStats"]) for row in pushed["results"]]
        assert results == [(row.asset, row.run, row.status, row.type_stats) for row in rows]
        assert [row.get("error") for row in pushed["results"]] == [row.error for row in rows]
        assert pushed["return_value"]["duplicates"] == event["duplicates"]
    else:
        assert "results" not in pushed
    if error is TaskDeferred:
        trigger = raised.value.trigger
        assert [row[:8] for row in stored_rows(trigger.rows)] == [row[:8] for row in rows]
        assert (trigger.identity, trigger.domain_identifier, trigger.types) == (IDENTITY, DOMAIN, TYPES)
        for name in ("noted_at", "started_at", "duplicates", "quota_used_up"):
            assert getattr(trigger, name) == event[name]
        assert trigger.refusals == event.get("refusals", {})
    if sample["written_by"] != FIRST_BATCH:
        # Whatever comes of it, the next try knows the runs.
        memory = BatchMemory(make_context(store, try_number=2), DOMAIN, TYPES)
        assert memory.noted_at == event["noted_at"]
        fresh = [AssetRow(row.asset, row.revision, row.project) for row in rows]
        recalled = memory.recall(fresh, allow_partial_success=True)
        assert [row.run_identifier for row in recalled] == [
            None if row.status in ("FAILED", "CANCELED") else row.run for row in rows
        ]


# --------------------------------------------------------------------------- records of submitted runs


@pytest.fixture
def task(catalog: SampleCatalog) -> Task:
    """The task of the samples, after its first try."""
    task = Task(catalog, remembers=True, retries=3)
    task.ti.try_number = 1
    return task


def remember(task: Task, sample: dict[str, Any]) -> None:
    for key, value in sample["store"].items():
        task.context["task_state_store"].set(key, value)


def run_in(sample: dict[str, Any]) -> str:
    return str(sample["store"]["metadata_generation_run"]["run"])


def with_run(*names: str) -> list[Any]:
    return samples("task_state", *(names or ("run: started", "run: second", "run: adopted", "run: client")))


@pytest.mark.parametrize("status", ["IN_PROGRESS", "SUCCEEDED"])
@pytest.mark.parametrize("sample", [*with_run(), *with_run("run: succeeded")])
def test_retry_resumes_the_run_of_a_stored_record(
    sample: dict[str, Any], status: str, task: Task, catalog: SampleCatalog
):
    run = run_in(sample)
    catalog.add_run(run, status=status)
    remember(task, sample)
    submitted = task.submit()
    assert (submitted.run.id, submitted.adopted) == (run, True)
    assert catalog.runs_of(ASSET) == [run]
    # It knows the run, and need not look for it.
    assert catalog.server.request_counts["ListMetadataGenerationRuns"] == 1


@pytest.mark.parametrize("sample", with_run())
def test_retry_starts_another_run_when_that_of_a_stored_record_failed(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    record = sample["store"]["metadata_generation_run"]
    catalog.add_run(run_in(sample), status="FAILED", token=record.get("token"))
    remember(task, sample)
    submitted = task.submit()
    assert not submitted.adopted
    assert catalog.runs_of(ASSET) == [run_in(sample), submitted.run.id]
    stored = task.context["task_state_store"].get("metadata_generation_run")
    assert (stored["request"], stored["number"]) == (record["request"], record["number"] + 1)


@pytest.mark.parametrize("sample", with_run("run: succeeded"))
def test_clear_starts_another_run_than_that_of_a_stored_success(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    catalog.add_run(status="SUCCEEDED")
    remember(task, sample)
    task.clear()
    assert task.submit().run.id != RUN


@pytest.mark.parametrize("sample", with_run("run: succeeded"))
def test_stored_success_tells_a_clear_after_retries_was_lowered_if_it_says_in_which_try(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    catalog.add_run(status="SUCCEEDED")
    remember(task, sample)
    task.task.retries = task.ti.max_tries - task.ti.try_number
    task.clear()
    assert task.ti.max_tries == sample["store"]["metadata_generation_run"]["succeeded"]
    tells = "succeeded_in_try" in sample["store"]["metadata_generation_run"]
    assert (task.submit().run.id != RUN) is tells


@pytest.mark.parametrize("sample", samples("task_state", "run: answer to Start lost"))
def test_retry_sends_the_token_of_a_stored_record_again(
    sample: dict[str, Any], task: Task, catalog: SampleCatalog
):
    token = sample["store"]["metadata_generation_run"]["token"]
    catalog.add_run(status="SUCCEEDED", token=token)
    remember(task, sample)
    assert task.submit().run.id == RUN
    assert tokens_of(catalog) == [token, token]
    # A task that has stored nothing comes to the same token.
    other = Task(catalog, remembers=False, retries=3)
    assert other.submit().run.id == RUN
    assert set(tokens_of(catalog)) == {token}


# ----------------------------------------------------------------------------------- memories of batches


def memory_of(sample: dict[str, Any]) -> tuple[Store, list[StoredRow]]:
    """Return a store with what is in a sample, and the rows to which its record leads."""
    store = Store()
    for key, value in sample["store"].items():
        store.set(key, value)
    record = sample["store"]["metadata_generation_batch"]
    prefix = "metadata_generation_batch"
    if "generation" in record:
        prefix += f"_{record['generation']}"
    packed = "".join(sample["store"][f"{prefix}_{number}"] for number in range(record["parts"]))
    return store, stored_rows(packed) if packed else []


@pytest.mark.parametrize("sample", samples("task_state", "batch:"))
def test_retry_continues_the_batch_of_a_stored_memory(sample: dict[str, Any], catalog: SampleCatalog):
    store, rows = memory_of(sample)
    # Of the first version's memory nothing is read: DataZone knows the runs by their tokens.
    is_read = sample["written_by"] != FIRST_BATCH
    memory = BatchMemory(make_context(store, try_number=2), DOMAIN, TYPES)
    assert memory.identity == IDENTITY == sample["store"]["metadata_generation_batch"]["identity"]
    assert memory.noted_at == (sample["store"]["metadata_generation_batch"]["noted_at"] if is_read else 0.0)
    rows = [row for row in rows if row.asset.startswith("sampleasset")]
    catalog.add_runs_of(rows, active="IN_PROGRESS")
    for row in rows:
        if row.run is not None and row.status is None:
            catalog.server.set_run_status(row.run, None)
    starts = catalog.starts
    rows = rows or [StoredRow(ASSET, None, PROJECT, 1, None, None, [], None)]
    context = make_context(store, try_number=2)
    summary = make_batch(rows).execute(context)
    assert (summary["total"], summary["failed"], summary["not_started"]) == (len(rows), 0, 0)
    results = {row["asset"]: row["run"] for row in context["ti"].pushed["results"]}
    new = 0
    for row in rows:
        runs = catalog.runs_of(row.asset)
        if row.run is not None and row.status not in ("FAILED", "CANCELED"):
            assert (runs, results[row.asset]) == ([row.run], row.run)
        else:
            new += 1
            assert runs == [*([] if row.run is None else [row.run]), results[row.asset]]
    if is_read:
        assert catalog.starts - starts == new
    assert BATCH_TOKEN in tokens_of(catalog)


@pytest.mark.parametrize("sample", samples("task_state", "batch: succeeded"))
def test_clear_does_the_batch_of_a_stored_memory_again(sample: dict[str, Any], catalog: SampleCatalog):
    store, rows = memory_of(sample)
    catalog.add_runs_of(rows, active="IN_PROGRESS")
    summary = make_batch(rows).execute(make_context(store, try_number=2, max_tries=4))
    assert summary["succeeded"] == len(rows)
    assert [len(catalog.runs_of(row.asset)) for row in rows] == [2, 2]


# -------------------------------------------------------------------------------------------------- rows

PARTLY = [
    {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
    {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "kein Name für „Größe“"},
]
EACH_STATE = [
    AssetRow("sampleasset001", None, PROJECT),
    AssetRow("sampleasset002", "3", "sampleproject2", submission=2),
    AssetRow("sampleasset003", None, PROJECT, run_identifier="samplerun00001"),
    AssetRow("sampleasset004", None, PROJECT, run_identifier="samplerun00002", adopted_at=1234567890.25),
    AssetRow(
        "sampleasset005",
        None,
        PROJECT,
        submission=3,
        run_identifier="samplerun00003",
        status="PARTIALLY_SUCCEEDED",
        type_stats=PARTLY,  # type: ignore[arg-type]
    ),
    AssetRow("sampleasset006", None, PROJECT, error="DataZone refused"),
    AssetRow("sampleasset007", None, PROJECT, error="an unknown asset", is_refused=True),
]
ROWS = {"each state of an asset": EACH_STATE, "no assets": []}
# How many members a row of each version has: those that were added later are left at their defaults.
MEMBERS = {
    FIRST_BATCH: 8,
    "0.1.0 in development, since a batch trigger stores its try": 9,
    "0.1.0 in development, since a batch stores refusals": 10,
}


@pytest.mark.parametrize("sample", samples("rows", ""))
def test_packed_rows_of_an_earlier_version_are_read(sample: dict[str, Any]):
    raw = json.loads(zlib.decompress(base64.b85decode(sample["packed"])))
    members = MEMBERS[sample["written_by"]]
    assert {len(row) for row in raw} <= {members}
    expected = []
    for row in ROWS[sample["name"]]:
        known = vars(row) | ({"adopted_at": None} if members < 9 else {})
        expected.append(AssetRow(**known | ({"is_refused": False} if members < 10 else {})))
    assert unpack(sample["packed"]) == expected


# -------------------------------------------------------------------------------------------- all samples

NAMES = {
    "triggers": {
        "run: first arguments",
        "run: deferred by the sensor",
        "run: deferred by the sensor with one type, Region and botocore_config",
        "run: deferred by the start operator",
        "run: defaults",
        "run: every argument",
        "run: boto3's own credentials, certificates not verified",
        "run: botocore_config from an object",
        "batch: first arguments, rows not readable",
        "batch: nothing started, deferred by the operator",
        "batch: under way, deferred again at a checkpoint",
        "batch: second try, deferred by the operator",
        "batch: quota used up, a run active",
        "batch: defaults",
        "batch: every argument",
    },
    "events": {
        *ENDINGS,
        *TROUBLES,
        *BATCH_ENDINGS,
        "start: own run SUCCEEDED",
        "start: own run FAILED",
        "start: adopted run CANCELED",
        "start: timeout",
    },
    "task_state": {
        "run: started",
        "run: succeeded",
        "run: second run after one that failed",
        "run: adopted",
        "run: answer to Start lost",
        "run: client token of the user",
        "batch: nothing started",
        "batch: succeeded",
        "batch: under way",
        "batch: under way in the second try",
        "batch: failed",
    },
    "rows": set(ROWS),
}


@pytest.mark.parametrize("kind", NAMES)
def test_every_sample_has_an_expectation_and_every_expectation_a_sample(kind: str):
    assert {sample.values[0]["name"] for sample in samples(kind, "")} == NAMES[kind]
