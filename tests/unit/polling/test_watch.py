"""Watches on the shared poller in simulated time, with a simulated DataZone that fails in many ways."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.polling import watch as watch_module, watch_loop
from airflow_provider_datazone.polling.errors import CredentialsRejectedError, PollerEndedError
from airflow_provider_datazone.polling.poller import RunPoller
from airflow_provider_datazone.polling.watch import RunFilter, RunWatch
from tests.unit.simulation import (
    SimulatedDataZone,
    SimulatedRun,
    Source,
    client_error,
    equal_rates,
    now,
    simulate,
)
from tests.wrong import fuzz

LOG = logging.getLogger("tests.watch")
RATE = 10.0
INTERVAL = 10.0


class RecordingDataZone(SimulatedDataZone):
    """Records all times at which a List returned each run as active."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.listed_at: dict[str, list[float]] = {}

    async def list_page(
        self, status: str, next_token: str | None
    ) -> tuple[list[MetadataGenerationRun], str | None]:
        page, token = await super().list_page(status, next_token)
        for run in page:
            self.listed_at.setdefault(run.id, []).append(now())
        return page, token


class Watching:
    """Runs watches on pollers, and opens a new poller after the last one has ended, like the registry does."""

    def __init__(self, datazone: SimulatedDataZone) -> None:
        self.datazone = datazone
        self.rates = equal_rates(RATE)
        self.current: RunPoller | None = None
        self.errors: list[BaseException | None] = []

    def poller(self) -> RunPoller:
        if self.current is None:

            def forget() -> None:
                self.current = None

            self.current = RunPoller(Source(self.datazone), self.rates, forget)
        return self.current

    async def watch(self, watch: RunWatch) -> None:
        while True:
            ended = await asyncio.gather(self.poller().watch(watch), return_exceptions=True)
            self.errors += ended
            await asyncio.sleep(INTERVAL)


def new_watch(poll_interval: float = INTERVAL, **filters: Any) -> RunWatch:
    return RunWatch(RunFilter(**filters), poll_interval=poll_interval, log=LOG)


def reported(watch: RunWatch) -> list[tuple[str, str]]:
    return [(run.id, run.status) for run in watch.unreported]


def simulate_watches(
    datazone: SimulatedDataZone,
    watches: list[RunWatch],
    script: Callable[[Watching], Awaitable[Any]],
) -> Watching:
    """Run watches while a script runs."""

    async def main() -> Watching:
        watching = Watching(datazone)
        tasks = [asyncio.ensure_future(watching.watch(watch)) for watch in watches]
        await script(watching)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        assert watching.current is None
        return watching

    result: Watching = simulate(main())
    return result


def until(seconds: float) -> Callable[[Watching], Awaitable[None]]:
    async def sleep(_: Watching) -> None:
        await asyncio.sleep(seconds)

    return sleep


# ------------------------------------------------------------------ random faults

chances = st.sampled_from([0.0, 0.0, 0.1, 0.5])
PROJECTS = ["project1", "project2"]
STATUSES = ["SUCCEEDED", "FAILED", "CANCELED", "PARTIALLY_SUCCEEDED"]
runs_drawn = st.builds(
    dict,
    begins=st.floats(0, 300),
    ends=st.one_of(st.floats(0, 300), st.just(math.inf)),
    end_status=st.sampled_from(STATUSES),
    project=st.sampled_from(PROJECTS),
)
watches_drawn = st.builds(
    dict,
    begins=st.floats(0, 200),
    poll_interval=st.sampled_from([5.0, 10.0, 30.0]),
    projects=st.lists(st.sampled_from(PROJECTS), unique=True),
    statuses=st.lists(st.sampled_from(STATUSES), unique=True),
    # When the watch loses its poller and continues on another one.
    moves=st.lists(st.floats(0, 300), max_size=2),
)


@fuzz(60)
@given(
    runs=st.lists(runs_drawn, min_size=1, max_size=25),
    watches=st.lists(watches_drawn, min_size=1, max_size=5),
    random=st.randoms(use_true_random=True),
    page_size=st.sampled_from([1, 3, 50]),
    latency=st.sampled_from([0.0, 0.05, 1.0]),
    throttled=chances,
    failing=chances,
    omitted=chances,
    list_staleness=st.sampled_from([0.0, 5.0, 120.0]),
    shuffled=st.booleans(),
    shifting=st.booleans(),
)
def test_each_run_that_was_listed_as_active_is_reported_once_to_each_watch_despite_random_faults(
    runs, watches, random, **misbehavior
):
    simulated = [
        SimulatedRun(f"run{number}", members={"owning_project_id": run.pop("project")}, **run)
        for number, run in enumerate(runs)
    ]
    datazone = RecordingDataZone(simulated, random=random, **misbehavior)
    begun = [
        (
            new_watch(
                drawn["poll_interval"],
                owning_project_identifiers=drawn["projects"],
                statuses=drawn["statuses"],
            ),
            drawn,
        )
        for drawn in watches
    ]

    async def main() -> None:
        watching = Watching(datazone)

        async def follow(watch: RunWatch, drawn: dict[str, Any]) -> None:
            await asyncio.sleep(drawn["begins"])
            for moment in sorted(drawn["moves"]):
                task = asyncio.ensure_future(watching.watch(watch))
                await asyncio.sleep(max(moment - now(), 0))
                task.cancel()
                await asyncio.wait([task])
            await watching.watch(watch)

        tasks = [asyncio.ensure_future(follow(watch, drawn)) for watch, drawn in begun]
        await asyncio.sleep(360)
        # The faults end, and the rate recovers. Then every event that is late must come.
        datazone.throttled = datazone.failing = datazone.omitted = datazone.list_staleness = 0.0
        endless = {run.id for run in simulated if run.ends == math.inf}
        while now() < 7200 and any(watch.following - endless for watch, _ in begun):
            await asyncio.sleep(30)
        await asyncio.sleep(60)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0)

    simulate(main())
    for watch, drawn in begun:
        expected = {
            (run.id, run.end_status)
            for run in simulated
            if run.ends < math.inf
            and (not drawn["projects"] or run.members["owning_project_id"] in drawn["projects"])
            and (not drawn["statuses"] or run.end_status in drawn["statuses"])
        }
        events = reported(watch)
        assert len(events) == len(set(events))
        assert set(events) <= expected
        # Only runs that no List returned as active after the watch's first interval may be missing.
        missing = {run for run, _ in expected - set(events)}
        first_list = drawn["begins"] + drawn["poll_interval"]
        assert not [run for run in missing if any(at > first_list for at in datazone.listed_at.get(run, []))]


# ---------------------------------------------------------------- one run, one event


def test_run_that_ended_before_the_first_list_is_not_reported():
    datazone = SimulatedDataZone([SimulatedRun("old", ends=0), SimulatedRun("new", ends=25)])
    watch = new_watch()
    simulate_watches(datazone, [watch], until(60))
    assert reported(watch) == [("new", "SUCCEEDED")]


def test_run_that_a_late_list_returns_after_its_event_is_not_reported_again():
    run = SimulatedRun("run", ends=25)
    datazone = SimulatedDataZone([run, SimulatedRun("other")])
    watch = new_watch()

    async def script(_: Watching) -> None:
        await asyncio.sleep(45)
        assert reported(watch) == [("run", "SUCCEEDED")]
        # For 10 seconds, List and Get return the run as active again.
        run.ends = math.inf
        await asyncio.sleep(10)
        run.ends = 25
        await asyncio.sleep(60)

    simulate_watches(datazone, [watch], script)
    assert reported(watch) == [("run", "SUCCEEDED")]


def test_the_number_of_remembered_runs_is_limited(monkeypatch):
    monkeypatch.setattr(watch_module, "MAX_FINISHED", 3)
    runs = [SimulatedRun(f"run{number}", ends=15 + number * 10) for number in range(6)]
    watch = new_watch()
    simulate_watches(SimulatedDataZone(runs), [watch], until(120))
    assert watch.finished == ["run3", "run4", "run5"]
    assert len(watch.unreported) == 6


def test_restored_watch_reports_runs_that_ended_in_between_and_no_reported_run():
    datazone = SimulatedDataZone([SimulatedRun(f"run{number}", ends=0) for number in range(3)])
    watch = new_watch()
    watch.restore(["run0", "run1"], ["run1", "run2"])
    simulate_watches(datazone, [watch], until(30))
    assert reported(watch) == [("run0", "SUCCEEDED")]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, {"a", "b"}),
        ({"asset_identifiers": ["asset1"]}, {"a"}),
        ({"owning_project_identifiers": ["project2"]}, {"b"}),
        ({"run_types": ["BUSINESS_NAMES"]}, {"a"}),
        ({"run_types": ["BUSINESS_DESCRIPTIONS"]}, {"a", "b"}),
        ({"statuses": ["FAILED"]}, {"b"}),
        ({"asset_identifiers": ["asset1"], "statuses": ["FAILED"]}, set()),
    ],
)
def test_watch_reports_the_runs_that_match_all_filters(filters, expected):
    names, descriptions = "BUSINESS_NAMES", "BUSINESS_DESCRIPTIONS"
    first = {"asset_id": "asset1", "owning_project_id": "project1", "types": (names, descriptions)}
    second = {"asset_id": "asset2", "owning_project_id": "project2", "types": (descriptions,)}
    runs = [
        SimulatedRun("a", ends=15, members=first),
        SimulatedRun("b", ends=15, end_status="FAILED", members=second),
    ]
    watch = new_watch(**filters)
    datazone = SimulatedDataZone(runs)
    simulate_watches(datazone, [watch], until(60))
    assert {run.id for run in watch.unreported} == expected
    assert watch.following == set()


# --------------------------------------------------------------- number of requests


@pytest.mark.parametrize("number_of_watches", [1, 50])
def test_watches_cost_two_lists_per_interval_and_one_get_per_ended_run(number_of_watches: int):
    runs = [SimulatedRun(f"run{number}", ends=100 + number) for number in range(20)]
    datazone = SimulatedDataZone(runs)
    watches = [new_watch(statuses=["SUCCEEDED"]) for _ in range(number_of_watches)]
    simulate_watches(datazone, watches, until(301))
    assert datazone.count() == {"list": 2 * 31, "get": 20}
    assert {len(watch.unreported) for watch in watches} == {20}


def test_watch_lists_all_active_runs_even_if_gets_of_the_waits_would_be_cheaper():
    others = [SimulatedRun(f"other{number}") for number in range(1000)]
    datazone = SimulatedDataZone([*others, SimulatedRun("run", ends=15)])
    watch = new_watch()

    async def script(watching: Watching) -> None:
        run = await watching.poller().wait("run", run_type=None, poll_interval=60, timeout=None, log=LOG)
        assert run.status == "SUCCEEDED"
        # The Get of the watch also ended the wait, before its own first poll.
        assert now() < 30

    simulate_watches(datazone, [watch], script)
    assert reported(watch) == [("run", "SUCCEEDED")]
    assert datazone.count()["get"] == 1


def test_wait_for_one_type_and_watch_read_the_run_separately():
    datazone = SimulatedDataZone([SimulatedRun("run", ends=25)])
    watch = new_watch()

    async def script(watching: Watching) -> None:
        await watching.poller().wait(
            "run", run_type="BUSINESS_NAMES", poll_interval=10, timeout=None, log=LOG
        )
        await asyncio.sleep(15)

    simulate_watches(datazone, [watch], script)
    assert reported(watch) == [("run", "SUCCEEDED")]


def test_the_watch_with_the_shortest_interval_serves_all():
    datazone = SimulatedDataZone([SimulatedRun("run", ends=101)])
    fast, slow = new_watch(5), new_watch(600)

    async def script(_: Watching) -> None:
        await asyncio.sleep(120)
        assert reported(slow) == reported(fast) == [("run", "SUCCEEDED")]

    simulate_watches(datazone, [fast, slow], script)


def test_watch_that_replaces_the_last_one_is_updated():
    """If the arguments of a watcher change, the triggerer stops it and starts another one at once."""
    datazone = SimulatedDataZone([SimulatedRun("run", ends=50)])
    first, second = new_watch(), new_watch()

    async def script(watching: Watching) -> None:
        # This wait keeps the poller.
        poller = watching.poller()
        wait = poller.wait("run", run_type=None, poll_interval=600, timeout=None, log=LOG)
        tasks = [asyncio.ensure_future(poller.watch(first))]
        await asyncio.sleep(15)
        tasks[0].cancel()
        tasks.append(asyncio.ensure_future(poller.watch(second)))
        await asyncio.sleep(50)
        wait.cancel()
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    simulate_watches(datazone, [], script)
    assert reported(second) == [("run", "SUCCEEDED")]


def test_run_of_a_list_that_is_canceled_before_its_last_page_is_reported():
    runs = [SimulatedRun(f"run{number}") for number in range(20)]
    runs[0].ends = 5
    datazone = SimulatedDataZone(runs, page_size=1, latency=1.0)
    watch = new_watch()

    async def script(watching: Watching) -> None:
        # The second time as on another triggerer.
        for seconds in (6, 60):
            task = asyncio.ensure_future(watching.watch(watch))
            await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.wait([task])

    simulate_watches(datazone, [], script)
    assert reported(watch) == [("run0", "SUCCEEDED")]


def test_runs_that_only_an_ended_watch_followed_are_not_read():
    runs = [SimulatedRun(f"run{n}", ends=15, members={"owning_project_id": "project1"}) for n in range(200)]
    datazone = SimulatedDataZone(runs)
    watch, other = new_watch(), new_watch(owning_project_identifiers=["project2"])

    async def script(watching: Watching) -> None:
        task = asyncio.ensure_future(watching.watch(watch))
        await asyncio.sleep(25)
        task.cancel()
        await asyncio.wait([task])
        read = datazone.count()["get"]
        assert 0 < read < 100
        await asyncio.sleep(60)
        # Those that were in flight.
        assert datazone.count()["get"] <= read + watch_loop.WATCH_THREADS

    simulate_watches(datazone, [other], script)


# ------------------------------------------------------------------------- failures


def test_throttled_pages_delay_a_list_and_do_not_end_it():
    # A quarter of the 22 pages is throttled: with one limit for the whole List, few would be complete.
    others = [SimulatedRun(f"other{number}") for number in range(1000)]
    datazone = SimulatedDataZone([*others, SimulatedRun("run", ends=100)], throttled=0.25)
    watch = new_watch()
    simulate_watches(datazone, [watch], until(1800))
    assert reported(watch) == [("run", "SUCCEEDED")]


def test_failing_lists_are_logged_once_until_one_succeeds(caplog):
    datazone = SimulatedDataZone([SimulatedRun("run", ends=50)])
    watch, other = new_watch(), new_watch()

    async def script(_: Watching) -> None:
        await asyncio.sleep(15)
        datazone.failing = 1.0
        await asyncio.sleep(100)
        datazone.failing = 0.0
        await asyncio.sleep(100)

    with caplog.at_level("INFO", logger=LOG.name):
        simulate_watches(datazone, [watch, other], script)
    texts = [record.getMessage() for record in caplog.records]
    # Each watch logs its first List; failures are logged once for both.
    assert texts[:2] == ["Watching metadata generation runs: 1 are active."] * 2
    assert len(texts) == 4
    assert texts[2].startswith("Could not list the runs just now, will try again: An error occurred")
    assert texts[3] == "The runs are listed again."
    assert reported(watch) == [("run", "SUCCEEDED")]


def test_single_incomplete_list_causes_no_gets():
    datazone = SimulatedDataZone([SimulatedRun(f"run{n}") for n in range(20)])

    async def script(_: Watching) -> None:
        for _ in range(5):
            await asyncio.sleep(15)
            datazone.list_error = client_error("InternalServerException", 500)
            await asyncio.sleep(15)
            datazone.list_error = None

    simulate_watches(datazone, [new_watch()], script)
    assert datazone.count()["get"] == 0


def test_runs_are_reported_although_a_page_of_each_list_fails():
    runs = [SimulatedRun(f"run{n}") for n in range(60)]
    datazone = SimulatedDataZone([SimulatedRun("run", ends=50), *runs])
    watch = new_watch()

    async def script(_: Watching) -> None:
        await asyncio.sleep(15)
        datazone.list_failures = 1_000_000
        await asyncio.sleep(200)

    simulate_watches(datazone, [watch], script)
    assert reported(watch) == [("run", "SUCCEEDED")]
    # The runs on the page that fails are read less and less often.
    assert datazone.count()["get"] < 200


def test_watch_that_replaces_another_during_a_list_is_listed_at_once():
    datazone = SimulatedDataZone([SimulatedRun("run")], latency=2.0)
    old, new = new_watch(200), new_watch(200)

    async def script(watching: Watching) -> None:
        wait = asyncio.ensure_future(
            watching.poller().wait("run", run_type=None, poll_interval=1000, timeout=None, log=LOG)
        )
        tasks = [asyncio.ensure_future(watching.poller().watch(old))]
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        tasks.append(asyncio.ensure_future(watching.poller().watch(new)))
        await asyncio.sleep(20)
        assert new.following == {"run"}
        for task in [wait, *tasks]:
            task.cancel()
        await asyncio.gather(wait, *tasks, return_exceptions=True)

    simulate_watches(datazone, [], script)


def watch_while_lists_fail(error: Exception) -> tuple[Watching, RunWatch]:
    """Watch a run that ends while List fails with an error."""
    datazone = SimulatedDataZone([SimulatedRun("run", ends=50)])
    watch = new_watch()

    async def script(_: Watching) -> None:
        await asyncio.sleep(15)
        datazone.list_error = error
        await asyncio.sleep(100)
        datazone.list_error = None
        await asyncio.sleep(30)

    return simulate_watches(datazone, [watch], script), watch


def test_refused_list_fails_the_watch_and_keeps_its_runs():
    watching, watch = watch_while_lists_fail(client_error("AccessDeniedException", 403))
    assert {str(error) for error in watching.errors} == {str(client_error("AccessDeniedException", 403))}
    assert reported(watch) == [("run", "SUCCEEDED")]


def test_rejected_credentials_fail_the_watch_and_keep_its_runs():
    watching, watch = watch_while_lists_fail(client_error("ExpiredTokenException", 403))
    assert {type(error) for error in watching.errors} <= {CredentialsRejectedError, PollerEndedError}
    assert reported(watch) == [("run", "SUCCEEDED")]


def test_run_that_get_refuses_does_not_delay_other_runs_and_is_read_less_often():
    runs = [SimulatedRun("sick", ends=20), *(SimulatedRun(f"run{n}", ends=20 + n) for n in range(50))]
    datazone = SimulatedDataZone(runs)
    refuses = True
    get = datazone.get

    async def get_with_refusal(run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        if run_identifier == "sick" and refuses:
            datazone.requests.append((now(), "refused", "sick"))
            raise client_error("ValidationException", 400)
        return await get(run_identifier, run_type)

    datazone.get = get_with_refusal  # type: ignore[method-assign]
    watch = new_watch()

    async def script(_: Watching) -> None:
        nonlocal refuses
        await asyncio.sleep(2000)
        assert len(watch.unreported) == 50
        assert watch.following == {"sick"}
        refuses = False
        await asyncio.sleep(320)

    simulate_watches(datazone, [watch], script)
    # After 10, 20, 40, ... seconds, and every 300 seconds at most.
    assert 8 <= datazone.count()["refused"] <= 13
    assert Counter(run for run, _ in reported(watch))["sick"] == 1


def test_run_that_no_longer_exists_is_followed_for_some_minutes_only(caplog):
    run = SimulatedRun("run", ends=math.inf)
    datazone = SimulatedDataZone([run])
    watch = new_watch()

    async def script(_: Watching) -> None:
        await asyncio.sleep(15)
        run.exists = False
        await asyncio.sleep(1800)

    with caplog.at_level("WARNING", logger=LOG.name):
        simulate_watches(datazone, [watch], script)
    assert watch.following == set()
    assert reported(watch) == []
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("A run could not be read, will try again: ")
    assert second.startswith("A run is no longer followed, since it does not exist: ")


def test_runs_that_end_together_are_read_at_the_full_rate():
    runs = [SimulatedRun(f"run{number}", ends=15) for number in range(500)]
    watch = new_watch()

    async def script(_: Watching) -> None:
        while len(watch.unreported) < len(runs):
            await asyncio.sleep(1)
        # 50 s at 10 requests per second, and the Lists in between.
        assert now() < 15 + 10 + 60

    simulate_watches(SimulatedDataZone(runs), [watch], script)


@pytest.mark.parametrize("kind", ["unknown status", "error"])
def test_runs_that_get_never_returns_as_terminal_delay_no_others(kind: str):
    sick = [SimulatedRun(f"sick{number}", ends=15, end_status="EXPIRED") for number in range(40)]
    # From then on, each of the others has been read once: a poll ends after eight errors in a row.
    runs = [SimulatedRun(f"run{number}", ends=80 + 60 * number) for number in range(30)]
    datazone = SimulatedDataZone(sick + runs)
    get = datazone.get

    async def get_with_errors(run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        run = await get(run_identifier, run_type)
        if kind == "error" and run_identifier.startswith("sick"):
            raise client_error("InternalServerException", 500)
        return run

    datazone.get = get_with_errors  # type: ignore[method-assign]
    watch = new_watch()
    late = []

    async def script(_: Watching) -> None:
        for run in runs:
            await asyncio.sleep(run.ends + 25 - now())
            late.extend([run.id] if run.id not in watch.finished else [])

    simulate_watches(datazone, [watch], script)
    assert late == []


def test_run_with_an_unknown_final_status_is_followed_for_an_hour_only(caplog):
    datazone = SimulatedDataZone([SimulatedRun("run", ends=15, end_status="EXPIRED")])
    watch = new_watch()
    with caplog.at_level("WARNING", logger=LOG.name):
        simulate_watches(datazone, [watch], until(2 * 3600))
    assert watch.following == set()
    assert caplog.messages == [
        "Run run is no longer followed: this version does not know its status 'EXPIRED'."
    ]


def test_active_run_that_a_wait_reads_stays_followed_and_listed():
    datazone = SimulatedDataZone([SimulatedRun("run", ends=605)])
    watch = new_watch()

    async def script(watching: Watching) -> None:
        await watching.poller().wait("run", run_type=None, poll_interval=3, timeout=None, log=LOG)
        assert now() < 610

    simulate_watches(datazone, [watch], script)
    assert reported(watch) == [("run", "SUCCEEDED")]


def test_watch_that_begins_while_runs_are_read_is_listed_at_once():
    runs = [SimulatedRun(f"run{number}", ends=15) for number in range(400)]
    watch, later = new_watch(60), new_watch(60)

    async def script(watching: Watching) -> None:
        await asyncio.sleep(70)
        task = asyncio.ensure_future(watching.watch(later))
        datazone.runs.append(added)
        datazone.by_id["added"], datazone.order["added"] = added, len(datazone.order)
        await asyncio.sleep(5)
        assert later.following == {"added"}
        task.cancel()
        await asyncio.wait([task])

    datazone, added = SimulatedDataZone(runs), SimulatedRun("added")
    simulate_watches(datazone, [watch], script)


# ----------------------------------------------------------------------------- waits


@pytest.mark.parametrize("with_watch", [False, True])
@pytest.mark.parametrize(
    "misbehavior",
    [{"throttled": 0.2}, {"list_staleness": 600.0}, {"failing": 0.5}],
    ids=lambda each: next(iter(each)),
)
def test_watch_does_not_delay_a_wait(with_watch: bool, misbehavior: dict[str, float]):
    others = [SimulatedRun(f"other{number}") for number in range(3000)]
    datazone = SimulatedDataZone([*others, SimulatedRun("run", ends=95)], **misbehavior)  # type: ignore[arg-type]

    async def script(watching: Watching) -> None:
        run = await watching.poller().wait("run", run_type=None, poll_interval=10, timeout=None, log=LOG)
        assert run.status == "SUCCEEDED"
        assert now() < 95 + 10 + 30

    simulate_watches(datazone, [new_watch()] if with_watch else [], script)


def test_credentials_that_are_rejected_for_a_watch_do_not_end_waits():
    datazone = SimulatedDataZone([SimulatedRun("run", ends=95)])
    watch = new_watch()

    async def script(watching: Watching) -> None:
        datazone.list_error = client_error("ExpiredTokenException", 403)
        run = await watching.poller().wait("run", run_type=None, poll_interval=30, timeout=None, log=LOG)
        assert run.status == "SUCCEEDED"

    watching = simulate_watches(datazone, [watch], script)
    assert {type(error) for error in watching.errors} == {CredentialsRejectedError}
    # About one request in each interval, not more.
    assert datazone.count()["list"] <= 12
