"""The trigger for asset watchers: an event for each run of a domain that ends, over HTTP through real boto3."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from botocore.config import Config

from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.polling.watch import RunFilter, RunWatch
from airflow_provider_datazone.triggers import watch_store, watcher as watcher_module
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunEventTrigger
from airflow_provider_datazone.triggers.watch_store import WatchStore
from airflow_provider_datazone.version_compat import BaseEventTrigger
from tests.integration.triggers.waits import store_and_load
from tests.integration.triggers.watchers import Domain, Store, Watcher, play, until

if TYPE_CHECKING:
    from tests.conftest import Catalog, LoopClock

needs_airflow_3 = pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no asset watchers")
pytestmark = pytest.mark.usefixtures("unhurried")

DOMAIN = "dzd_watched"


@pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 3 has asset watchers")
def test_construction_fails_with_one_clear_error_on_airflow_2():
    with pytest.raises(
        RuntimeError,
        match=r"^DataZoneMetadataGenerationRunEventTrigger requires Airflow 3\.0 or later, which has asset "
        r"watchers; this is Airflow 2\.11\.\d+\. Use DataZoneMetadataGenerationRunSensor in a scheduled DAG "
        r"instead\.$",
    ):
        DataZoneMetadataGenerationRunEventTrigger(DOMAIN)


# ------------------------------------------------------------------------ arguments


def hash_of(trigger: DataZoneMetadataGenerationRunEventTrigger) -> int:
    """Return what Airflow compares when it parses a DAG file again."""
    number: int = BaseEventTrigger.hash(*trigger.serialize())
    return number


EQUAL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"asset_identifier": "a"}, {"asset_identifier": ["a"]}),
    ({"asset_identifier": ["b", "a", "b"]}, {"asset_identifier": ("a", "b")}),
    ({"statuses": {"FAILED", "CANCELED"}}, {"statuses": ["CANCELED", "FAILED"]}),
    ({"poll_interval": 10}, {"poll_interval": 10.0}),
    (
        {"botocore_config": {"read_timeout": 5, "connect_timeout": 3}},
        {"botocore_config": {"connect_timeout": 3, "read_timeout": 5}},
    ),
    ({"botocore_config": Config(read_timeout=5)}, {"botocore_config": {"read_timeout": 5}}),
    ({"region_name": ""}, {}),
]


@needs_airflow_3
@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_watchers_with_equal_meaning_are_equal_for_airflow(first: dict[str, Any], second: dict[str, Any]):
    one, other = (DataZoneMetadataGenerationRunEventTrigger(DOMAIN, **each) for each in (first, second))
    assert one.serialize() == other.serialize()
    assert hash_of(one) == hash_of(other)


@needs_airflow_3
@pytest.mark.usefixtures("airflow_database")
def test_arguments_are_scalars_and_lists_of_strings_and_survive_airflows_database():
    trigger = DataZoneMetadataGenerationRunEventTrigger(
        DOMAIN,
        asset_identifier={"a", "b"},
        owning_project_identifier="project",
        run_types=["BUSINESS_NAMES"],
        statuses="FAILED",
        poll_interval=5,
        aws_conn_id=None,
        region_name="eu-west-1",
        verify=False,
        botocore_config={"retries": {"mode": "standard"}},
    )
    _, arguments = trigger.serialize()
    for value in arguments.values():
        items = value if isinstance(value, list) else [value]
        assert all(item is None or isinstance(item, (str, float, bool)) for item in items)
    loaded = store_and_load(trigger)
    assert loaded.serialize() == trigger.serialize()
    assert hash_of(loaded) == hash_of(trigger)
    assert loaded.botocore_config == {"retries": {"mode": "standard"}}


@needs_airflow_3
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain_identifier": ""}, "domain_identifier must not be blank, got ''"),
        ({"domain_identifier": None}, "domain_identifier must not be blank, got None"),
        ({"domain_identifier": " dzd"}, "domain_identifier must not begin with a space"),
        ({"domain_identifier": "{{ var.value.domain }}"}, "domain_identifier of an asset watcher cannot be a template"),
        ({"asset_identifier": ["{% if true %}a{% endif %}"]}, "asset_identifier of an asset watcher cannot be a template"),
        ({"asset_identifier": []}, "asset_identifier must not be an empty list. Omit it to select all runs."),
        ({"asset_identifier": ["a", ""]}, "asset_identifier must not be blank, got ''"),
        ({"asset_identifier": 5.5}, "asset_identifier must be a string or a list of strings, got 5.5."),
        ({"asset_identifier": b"a"}, "asset_identifier must be a string or a list of strings, got b'a'."),
        ({"asset_identifier": {"a": 1}}, "asset_identifier must be a string or a list of strings, got {'a': 1}."),
        ({"aws_conn_id": "{{ var.value.connection }}"}, "aws_conn_id of an asset watcher cannot be a template"),
        ({"owning_project_identifier": [{}]}, "owning_project_identifier must be a string, got {}"),
        ({"statuses": "CANCELLED"}, "statuses must be among CANCELED, FAILED, PARTIALLY_SUCCEEDED, SUCCEEDED, got 'CANCELLED'."),
        ({"statuses": ["SUBMITTED", "FAILED"]}, "got 'SUBMITTED'"),
        ({"poll_interval": 0}, "poll_interval must be above 0 seconds, got 0"),
        ({"poll_interval": "10"}, "poll_interval must be a number of seconds, got '10'"),
        ({"botocore_config": "{"}, "botocore_config must be a dict or a JSON object, got a string that is not JSON."),
        ({"botocore_config": {"retires": 3}}, "retires"),
    ],
)  # fmt: skip
def test_invalid_arguments_fail_when_the_dag_file_is_parsed(arguments: dict[str, Any], message: str):
    defaults: dict[str, Any] = {"domain_identifier": DOMAIN}
    with pytest.raises(ValueError, match=re.escape(message)):
        DataZoneMetadataGenerationRunEventTrigger(**defaults | arguments)


# ---------------------------------------------------------------------------- events


@pytest.fixture
def domain(catalog: Catalog) -> Domain:
    return Domain(catalog)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the last event of a burst at once; tests of the delay set it themselves."""
    monkeypatch.setattr(watcher_module, "_LAST_EVENT_DELAY", 0.0)
    monkeypatch.setattr(watcher_module, "_REPORT_INTERVAL", 0.0)


@needs_airflow_3
def test_event_contains_the_run_with_its_type_stats(catalog: Catalog, domain: Domain):
    async def script() -> None:
        ended = domain.start()
        domain.end(ended)
        watcher = Watcher(catalog)
        run = domain.start("FAILED")
        await domain.polls()
        domain.end(run)
        await until(lambda: watcher.runs)
        await domain.polls()
        (event,) = watcher.runs
        assert (event["id"], event["status"]) == (run, "FAILED")
        assert [stat["status"] for stat in event["typeStats"]] == ["FAILED", "FAILED"]
        assert event["target"]["identifier"] == catalog.asset_identifier
        await watcher.stop()

    play(script())


@needs_airflow_3
def test_watchers_with_different_filters_share_requests(catalog: Catalog, domain: Domain):
    async def script() -> None:
        watchers = [Watcher(catalog, statuses=status) for status in ("SUCCEEDED", "FAILED")]
        watchers.append(Watcher(catalog, asset_identifier="another"))
        watchers.append(Watcher(catalog, owning_project_identifier=[catalog.project_identifier, "x"]))
        runs = {status: domain.start(status) for status in ("SUCCEEDED", "FAILED")}
        await domain.polls()
        domain.end(*runs.values())
        await until(lambda: len(watchers[3].runs) == 2)
        await domain.polls()
        assert [set(watcher.ids) for watcher in watchers] == [
            {runs["SUCCEEDED"]},
            {runs["FAILED"]},
            set(),
            set(runs.values()),
        ]
        assert catalog.server.request_counts["GetMetadataGenerationRun"] == 2
        for watcher in watchers:
            await watcher.stop()

    play(script())


@pytest.fixture
def later(
    loop_clock: LoopClock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Return a function that moves the clock of the event loop; a pause between events takes ten minutes."""
    monkeypatch.setattr(watcher_module, "_LAST_EVENT_DELAY", 600.0)

    async def move_until(condition: Callable[[], bool]) -> None:
        """Move the clock until a condition is true: a List during which it moves pauses for the same time."""
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            loop_clock.put_forward(60)
            await asyncio.to_thread(time.sleep, 0.01)

    return move_until


@needs_airflow_3
def test_run_that_ends_soon_after_an_event_is_reported_after_a_pause(catalog: Catalog, domain: Domain, later):
    async def script() -> None:
        watcher = Watcher(catalog, Store())
        first, second = domain.start(), domain.start()
        await domain.polls()
        domain.end(first)
        await until(lambda: watcher.runs)
        domain.end(second)
        await domain.polls(4)
        assert watcher.ids == [first]
        await later(lambda: len(watcher.runs) == 2)
        await watcher.stop()

    play(script())


@needs_airflow_3
def test_last_event_of_a_burst_follows_after_a_pause(catalog: Catalog, domain: Domain, later):
    async def script() -> None:
        watcher = Watcher(catalog, Store())
        runs = [domain.start() for _ in range(5)]
        await domain.polls()
        domain.end(*runs)
        await until(lambda: len(watcher.runs) == 4)
        await domain.polls()
        assert len(watcher.runs) == 4
        await later(lambda: len(watcher.runs) == 5)
        # A single run some time later is reported at once.
        single = domain.start()
        lists = domain.lists
        await later(lambda: domain.lists > lists + 4)
        domain.end(single)
        await later(lambda: len(watcher.runs) == 6)
        assert sorted(watcher.ids) == sorted([*runs, single])
        await watcher.stop()

    play(script())


# ------------------------------------------------------------------------ saved runs


@needs_airflow_3
def test_next_watcher_reports_runs_that_ended_in_between(catalog: Catalog, domain: Domain, caplog):
    async def script() -> None:
        store = Store()
        first = Watcher(catalog, store)
        before, between, after = (domain.start() for _ in range(3))
        await domain.polls()
        domain.end(before)
        await until(lambda: first.runs)
        await first.stop()
        domain.end(between)
        second = Watcher(catalog, store)
        await until(lambda: second.runs)
        domain.end(after)
        await until(lambda: len(second.runs) == 2)
        await domain.polls()
        assert (first.ids, second.ids) == ([before], [between, after])
        await second.stop()
        saved = [json.loads(value) for value in store.values.values()]
        assert saved == [{"following": [], "finished": [before, between, after]}]

    with caplog.at_level("INFO", logger="tests.watcher"):
        play(script())
    # Only the second watcher found saved runs.
    assert caplog.text.count("metadata generation runs that were active before") == 1


@needs_airflow_3
def test_held_back_run_of_a_burst_is_reported_by_the_next_watcher(
    catalog: Catalog, domain: Domain, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watcher_module, "_LAST_EVENT_DELAY", 600.0)

    async def script() -> None:
        store = Store()
        first = Watcher(catalog, store)
        runs = [domain.start() for _ in range(3)]
        await domain.polls()
        domain.end(*runs)
        await until(lambda: len(first.runs) == 2)
        await domain.polls()
        await first.stop()
        second = Watcher(catalog, store)
        await until(lambda: second.runs)
        await domain.polls()
        assert sorted(first.ids + second.ids) == sorted(runs)
        await second.stop()

    play(script())


def test_run_that_another_triggerer_has_reported_is_not_reported_again():
    log = logging.getLogger("tests.watcher")
    run = MetadataGenerationRun("run", DOMAIN, "SUCCEEDED")

    async def script() -> None:
        store = Store()
        watches = [RunWatch(RunFilter(), poll_interval=10, log=log) for _ in range(2)]
        # Each triggerer reads the end of the run before the other one has reported it.
        for watch in watches:
            watch.restore(["run", "other"], [])
            watch.on_run(run, 0.0)
        saved = [WatchStore(store, "identity", log) for _ in watches]
        claimed = [
            await one.claim(watch, may_report_single=True) for one, watch in zip(saved, watches, strict=True)
        ]
        assert claimed == [[run], []]
        assert [sorted(watch.following) for watch in watches] == [["other"], ["other"]]

    play(script())


def claims(store: Any, watch: RunWatch, **arguments: Any) -> list[str]:
    """Return the runs that a watch may report, with a new :class:`WatchStore`."""

    async def main() -> list[str]:
        found = await WatchStore(store, "identity", logging.getLogger("tests.watcher")).claim(
            watch, may_report_single=True
        )
        return [run.id for run in found]

    return asyncio.run(main())


def ended_watch(*runs: str) -> RunWatch:
    watch = RunWatch(RunFilter(), poll_interval=10, log=logging.getLogger("tests.watcher"))
    watch.restore(runs, [])
    for run in runs:
        watch.on_run(MetadataGenerationRun(run, DOMAIN, "SUCCEEDED"), 0.0)
    return watch


def test_run_of_a_burst_that_another_triggerer_has_reported_is_not_reported_again():
    store = Store()
    first, second = ended_watch("a", "b"), ended_watch("a", "b")
    assert claims(store, first) == ["a"]
    assert claims(store, first) == ["b"]
    # The second triggerer must not remove what the first has saved.
    assert claims(store, second) == []
    assert claims(store, second) == []


def test_event_is_not_lost_with_the_response_of_the_store(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch_store, "RETRY_PAUSES", (0.01,))
    store = Store()
    write = store.aset

    async def write_and_fail(key: str, value: Any) -> None:
        await write(key, value)
        store.aset = write  # type: ignore[method-assign]
        raise RuntimeError("the connection was lost")

    store.aset = write_and_fail  # type: ignore[method-assign]
    assert claims(store, ended_watch("a")) == ["a"]


def test_event_is_not_held_back_by_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch_store, "RETRY_PAUSES", (0.01,))
    monkeypatch.setattr(watch_store, "SECONDS_TO_RESPOND", 0.02)
    store = Store()

    async def hang(key: str, value: Any) -> None:
        await asyncio.sleep(3600)

    store.aset = hang  # type: ignore[method-assign]
    assert claims(store, ended_watch("a")) == ["a"]


def test_few_runs_are_claimed_at_a_time():
    """A triggerer that stops loses the events that it has claimed and not sent."""
    store, watch = Store(), ended_watch(*(f"run{number}" for number in range(1000)))
    assert len(claims(store, watch)) == watch_store.MAX_CLAIMED
    (saved,) = map(json.loads, store.values.values())
    assert (len(saved["following"]), len(saved["finished"])) == (990, 10)


def test_watch_that_has_forgotten_its_runs_does_not_load_them_again():
    log = logging.getLogger("tests.watcher")
    runs = [f"run{number}" for number in range(20)]

    async def script() -> None:
        store, watch = Store(), RunWatch(RunFilter(), poll_interval=10, log=log)
        saved = WatchStore(store, "identity", log)
        watch.restore(runs, [])
        await saved.claim(watch, may_report_single=True)
        # The store cannot be written, so it still has all runs. The watch remembers few of them.
        store.aset = store.aget  # type: ignore[method-assign]
        for run in runs:
            watch.on_run(MetadataGenerationRun(run, DOMAIN, "SUCCEEDED"), 0.0)
        watch._finished.clear()
        await saved.claim(watch, may_report_single=True)
        assert watch.following == set()

    play(script())


class BlockingStore:
    """Airflow's asset state store before 3.3.2, which has only methods that block."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = value


def test_store_without_asynchronous_methods_is_used():
    store = BlockingStore()
    assert claims(store, ended_watch("a")) == ["a"]
    assert list(store.values.values()) == [{"following": [], "finished": ["a"]}]


@needs_airflow_3
def test_runs_are_saved_some_time_after_the_store_has_failed(
    catalog: Catalog, domain: Domain, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch_store, "RETRY_PAUSES", ())
    monkeypatch.setattr(watch_store, "SECONDS_WITHOUT_STORE", 0.05)

    async def script() -> None:
        store = Store()
        store.error = RuntimeError("the API server is down")
        watcher = Watcher(catalog, store)
        run = domain.start()
        await domain.polls()
        store.error = None
        # Nothing else changes.
        await until(lambda: store.values)
        assert json.loads(next(iter(store.values.values())))["following"] == [run]
        # From then on, the watcher uses the store only when something changes.
        await domain.polls()
        reads = store.reads
        await domain.polls(4)
        assert store.reads == reads
        await watcher.stop()

    play(script())


@needs_airflow_3
def test_watcher_ends_whenever_it_is_canceled(
    catalog: Catalog, domain: Domain, monkeypatch: pytest.MonkeyPatch
):
    """Airflow could not stop a triggerer in time if a watcher lost its cancellation."""
    watches: list[RunWatch] = []

    def make_watch(*arguments: Any, **options: Any) -> RunWatch:
        watches.append(RunWatch(*arguments, **options))
        return watches[-1]

    monkeypatch.setattr(watcher_module, "RunWatch", make_watch)

    async def watch(iterations: int) -> None:
        watcher = Watcher(catalog, Store())
        await domain.polls(1)
        domain.end(domain.start())
        # The watcher wakes up, and is canceled in the same or a later iteration of the event loop.
        watches[iterations].changed.set()
        for _ in range(iterations):
            await asyncio.sleep(0)
        await watcher.stop()

    async def script() -> None:
        await asyncio.gather(*map(watch, range(40)))

    play(script())


@needs_airflow_3
def test_watchers_of_one_asset_with_different_filters_save_separately(catalog: Catalog, domain: Domain):
    async def script() -> None:
        store = Store()
        watchers = [Watcher(catalog, store, statuses=status) for status in ("SUCCEEDED", "FAILED")]
        watchers.append(Watcher(catalog, store))
        run = domain.start()
        await domain.polls()
        domain.end(run)
        await until(lambda: watchers[0].runs and watchers[2].runs)
        await domain.polls()
        assert [watcher.ids for watcher in watchers] == [[run], [], [run]]
        assert len(store.values) == 3
        for watcher in watchers:
            await watcher.stop()

    play(script())


@needs_airflow_3
@pytest.mark.parametrize(
    "value", ["null", "5", '"text"', "[]", '{"following": 5}', '{"following": [5, null]}']
)
def test_unreadable_saved_value_counts_as_empty(catalog: Catalog, domain: Domain, value: str):
    async def script() -> None:
        store = Store()
        first = Watcher(catalog, store)
        run = domain.start()
        await domain.polls()
        await first.stop()
        store.values = dict.fromkeys(store.values, value)
        second = Watcher(catalog, store)
        await domain.polls()
        domain.end(run)
        await until(lambda: second.runs)
        assert second.ids == [run]
        await second.stop()

    play(script())


@needs_airflow_3
@pytest.mark.parametrize("is_down_from_the_start", [False, True])
def test_events_come_although_the_store_does_not_respond(
    catalog: Catalog, domain: Domain, monkeypatch, caplog, is_down_from_the_start: bool
):
    monkeypatch.setattr(watch_store, "RETRY_PAUSES", (0.01, 0.02))

    async def script() -> None:
        store = Store()
        store.error = RuntimeError("the API server is down") if is_down_from_the_start else None
        watcher = Watcher(catalog, store)
        run = domain.start()
        await domain.polls()
        store.error = RuntimeError("the API server is down")
        domain.end(run)
        await until(lambda: watcher.runs)
        assert watcher.ids == [run]
        await watcher.stop()

    with caplog.at_level("WARNING"):
        play(script())
    assert "The active runs could not be saved." in caplog.text
    assert caplog.text.count("the API server is down") <= 8


@needs_airflow_3
def test_watcher_of_several_assets_reports_and_warns(catalog: Catalog, domain: Domain, caplog):
    async def script() -> None:
        store = Store()
        # What Airflow raises, see `AssetStateStoreAccessors`.
        store.error = ValueError("Task has 2 concrete inlets and outlets")
        watcher = Watcher(catalog, store)
        run = domain.start()
        await domain.polls()
        domain.end(run)
        await until(lambda: watcher.runs)
        assert watcher.ids == [run]
        await watcher.stop()

    with caplog.at_level("WARNING"):
        play(script())
    assert caplog.text.count("The active runs are not saved.") == 1


# --------------------------------------------------------------------------- failures


@needs_airflow_3
@pytest.mark.parametrize(
    "error",
    ["ExpiredTokenException", "AccessDeniedException", "ThrottlingException", "InternalServerException"],
)
def test_watcher_keeps_trying_and_reports_runs_that_ended_in_the_meantime(
    catalog: Catalog, domain: Domain, caplog, error: str
):
    async def script() -> None:
        watcher = Watcher(catalog)
        run = domain.start()
        await domain.polls()
        catalog.server.fail("ListMetadataGenerationRuns", error, times=None)
        domain.end(run)
        await until(lambda: error in caplog.text)
        catalog.server.recover()
        await until(lambda: watcher.runs)
        assert watcher.ids == [run]
        await watcher.stop()

    with caplog.at_level("WARNING"):
        play(script())


@needs_airflow_3
def test_watcher_waits_for_its_connection(
    catalog: Catalog, domain: Domain, caplog, monkeypatch: pytest.MonkeyPatch
):
    async def script() -> None:
        watcher = Watcher(catalog, aws_conn_id="later")
        await until(lambda: "is not defined" in caplog.text)
        monkeypatch.setenv("AIRFLOW_CONN_LATER", catalog.server.connection)
        run = domain.start()
        await domain.polls()
        domain.end(run)
        await until(lambda: watcher.runs)
        assert watcher.ids == [run]
        await watcher.stop()

    with caplog.at_level("WARNING"):
        play(script())
    assert "cannot be watched, will try again in 0 seconds" in caplog.text


@needs_airflow_3
def test_watchers_that_fail_together_log_one_warning(catalog: Catalog, caplog):
    def levels() -> list[str]:
        return [record.levelname for record in caplog.records if "cannot be watched" in record.message]

    async def script() -> None:
        watchers = [Watcher(catalog, aws_conn_id="undefined", poll_interval=60) for _ in range(5)]
        await until(lambda: len(levels()) == 5)
        for watcher in watchers:
            await watcher.stop()

    with caplog.at_level("DEBUG", logger="tests.watcher"):
        play(script())
    assert levels() == ["WARNING", *["DEBUG"] * 4]


@needs_airflow_3
def test_unknown_run_type_is_logged(catalog: Catalog, domain: Domain, caplog):
    async def script() -> None:
        watcher = Watcher(catalog, run_types=["BUSINESS_NAME"])
        await domain.polls()
        await watcher.stop()

    with caplog.at_level("WARNING"):
        play(script())
    assert "run_types has values that this version does not know: BUSINESS_NAME" in caplog.text
