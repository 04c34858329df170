"""The shared poller, on a clock that only the test moves and a DataZone that does its worst."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, strategies as st

from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.polling.errors import CredentialsRejectedError, DeadlinePassedError
from airflow_provider_datazone.polling.poller import RunPoller
from airflow_provider_datazone.polling.rate import Rates, RequestRate
from tests.unit.simulation import SimulatedDataZone, SimulatedRun, Source, client_error, now, simulate
from tests.wrong import fuzz

LOG = logging.getLogger("tests.poller")
RATE = 10.0


# ------------------------------------------------------------------ the waits


@dataclass
class Waiter:
    run: str
    begins: float = 0.0
    poll_interval: float = 30.0
    timeout: float | None = None
    canceled_at: float | None = None


@dataclass
class Ending:
    what: Any
    at: float


class Pollers:
    """One poller at a time, a new one where the last has ended, as the registry of a loop has it."""

    def __init__(self, datazone: SimulatedDataZone) -> None:
        self.datazone = datazone
        self.rates = Rates(RequestRate(RATE), RequestRate(RATE), RequestRate(RATE))
        self.current: RunPoller | None = None
        self.sources: list[Source] = []

    def poller(self) -> RunPoller:
        if self.current is None:
            self.sources.append(Source(self.datazone))

            def forget() -> None:
                if self.current is poller:
                    self.current = None

            poller = self.current = RunPoller(self.sources[-1], self.rates, forget)
        return self.current


async def wait_all(pollers: Pollers, waiters: list[Waiter]) -> list[Ending]:
    async def wait(waiter: Waiter) -> Any:
        await asyncio.sleep(waiter.begins)
        return await pollers.poller().wait(
            waiter.run, run_type=None, poll_interval=waiter.poll_interval, timeout=waiter.timeout, log=LOG
        )

    async def ending(waiter: Waiter) -> Ending:
        task = asyncio.ensure_future(wait(waiter))
        if waiter.canceled_at is not None:
            asyncio.get_running_loop().call_later(waiter.canceled_at, task.cancel)
        try:
            return Ending(await task, now())
        except asyncio.CancelledError:
            return Ending("cancelled", now())
        except Exception as error:
            return Ending(error, now())

    endings = await asyncio.gather(*(ending(waiter) for waiter in waiters))
    # What was cancelled gets its turn to end.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert pollers.current is None
    assert [source.closed for source in pollers.sources] == [1] * len(pollers.sources)
    return list(endings)


def poll(datazone: SimulatedDataZone, waiters: list[Waiter]) -> list[Ending]:
    async def main() -> list[Ending]:
        return await wait_all(Pollers(datazone), waiters)

    return simulate(main())


# ------------------------------------------------------------------ the worst

times = st.floats(0, 300)
chances = st.sampled_from([0.0, 0.0, 0.1, 0.5, 0.9])
runs_drawn = st.builds(
    dict,
    begins=times,
    ends=st.one_of(times, st.just(math.inf)),
    end_status=st.sampled_from(["SUCCEEDED", "FAILED", "CANCELED", "PARTIALLY_SUCCEEDED"]),
    exists=st.sampled_from([True] * 9 + [False]),
    unknown_status_until=st.sampled_from([0.0, 0.0, 100.0, math.inf]),
)
waiters_drawn = st.builds(
    dict,
    run=st.integers(0, 10_000),
    begins=times,
    poll_interval=st.sampled_from([1.0, 7.0, 30.0, 60.0]),
    # Somebody must end the wait for a run that never ends.
    timeout=st.floats(0, 900),
    canceled_at=st.one_of(st.none(), st.none(), times),
)


@fuzz(150)
@given(
    runs=st.lists(runs_drawn, min_size=1, max_size=40),
    waiters=st.lists(waiters_drawn, min_size=1, max_size=60),
    random=st.randoms(use_true_random=False),
    page_size=st.sampled_from([1, 3, 50]),
    latency=st.sampled_from([0.0, 0.05, 3.0]),
    throttled=chances,
    failing=chances,
    omitted=chances,
    list_staleness=st.sampled_from([0.0, 5.0, 120.0]),
    shuffled=st.booleans(),
    shifting=st.booleans(),
    list_forbidden=st.sampled_from([False, False, True]),
)
def test_whatever_the_service_does_every_wait_ends_once_and_by_what_get_said(
    runs, waiters, random, list_forbidden, **misbehavior
):
    known = [SimulatedRun(id=f"run{number}", **run) for number, run in enumerate(runs)]
    datazone = SimulatedDataZone(
        known,
        random,
        list_error=client_error("AccessDeniedException", 403) if list_forbidden else None,
        **misbehavior,
    )
    asked = [Waiter(**waiter | {"run": f"run{waiter['run'] % len(runs)}"}) for waiter in waiters]
    for waiter, ending in zip(asked, poll(datazone, asked), strict=True):
        run = datazone.by_id[waiter.run]
        deadline = waiter.begins + waiter.timeout
        assert ending.at <= max(deadline, waiter.begins) + 1e-6
        if isinstance(ending.what, MetadataGenerationRun):
            assert ending.what.id == waiter.run
            assert ending.what.status == run.end_status
            assert datazone.ends_reported_at[waiter.run] <= ending.at
        elif isinstance(ending.what, DeadlinePassedError):
            assert ending.at == pytest.approx(deadline, abs=1e-6)
        elif ending.what == "cancelled":
            assert ending.at == pytest.approx(waiter.canceled_at)
        else:
            assert "ResourceNotFoundException" in str(ending.what)
            assert not run.exists


@fuzz(50)
@given(
    ends=st.lists(st.floats(0, 600), min_size=1, max_size=300),
    interval=st.sampled_from([5.0, 30.0]),
    at_once=st.booleans(),
    shifting=st.booleans(),
)
def test_an_end_is_told_within_a_poll_interval_and_the_share_of_the_rate(ends, interval, at_once, shifting):
    if at_once:
        ends = [300.0] * len(ends)
    runs = [SimulatedRun(f"run{number}", ends=end) for number, end in enumerate(ends)]
    endings = poll(
        SimulatedDataZone(runs, shifting=shifting), [Waiter(run.id, poll_interval=interval) for run in runs]
    )
    # A Get for each run, and the pages of one round, at the rate with its jitter.
    share = (len(runs) + 2 * math.ceil(len(runs) / 50) + 2) * 1.1 / RATE
    for end, ending in zip(ends, endings, strict=True):
        assert ending.at - end <= interval + share + 1


# ------------------------------------------------------------------ the price


def test_thousand_waits_cost_one_get_each_and_a_list_for_fifty():
    # Ten of them end at a time.
    runs = [SimulatedRun(f"run{number}", begins=100, ends=200 + number // 10 * 3) for number in range(1000)]
    datazone = SimulatedDataZone(runs)
    poll(datazone, [Waiter(run.id, begins=number * 0.03) for number, run in enumerate(runs)])
    assert datazone.count()["get"] == len(runs)
    # What a round may cost: twice the pages of the runs that are active when it begins.
    rounds: list[list[float]] = []
    for at, operation, about in datazone.requests:
        if operation == "list" and about == "SUBMITTED":
            rounds.append([])
        if operation == "list":
            rounds[-1].append(at)
    for asked in rounds:
        active = sum(run.ends > asked[0] for run in runs)
        assert len(asked) <= 2 * math.ceil(active / 50) or active == 0
    # As often as its interval says, and not more often.
    starts = [asked[0] for asked in rounds]
    assert all(later - earlier >= 29 for earlier, later in itertools.pairwise(starts[1:]))


def test_few_waits_are_a_get_each():
    runs = [SimulatedRun(f"run{number}", ends=299) for number in range(2)]
    datazone = SimulatedDataZone(runs)
    poll(datazone, [Waiter(run.id) for run in runs])
    assert datazone.count() == {"get": 2 * 10}


@pytest.mark.parametrize("strangers", [50, 50_000])
def test_runs_of_other_people_do_not_turn_a_handful_of_waits_into_hundreds_of_requests(strangers: int):
    mine = [SimulatedRun(f"run{number}", ends=3000) for number in range(5)]
    others = [SimulatedRun(f"other{number}") for number in range(strangers)]
    datazone = SimulatedDataZone(others + mine)
    poll(datazone, [Waiter(run.id) for run in mine])
    rounds = 3000 / 30
    assert sum(datazone.count().values()) <= rounds * len(mine) * 1.2
    per_round = Counter(int(at // 30) for at, _, _ in datazone.requests)
    assert max(per_round.values()) <= 2 * len(mine)


def test_each_wait_keeps_its_own_interval():
    runs = [SimulatedRun("slow", ends=599), SimulatedRun("fast", ends=599)]
    datazone = SimulatedDataZone(runs)
    poll(datazone, [Waiter("slow", poll_interval=100), Waiter("fast", poll_interval=10)])
    asked = Counter(about for _, _, about in datazone.requests)
    assert asked["slow"] == 6
    assert 58 <= asked["fast"] <= 60


def test_two_waits_for_one_run_share_its_requests():
    datazone = SimulatedDataZone([SimulatedRun("run", ends=95)])
    endings = poll(datazone, [Waiter("run"), Waiter("run")])
    assert [ending.what.status for ending in endings] == ["SUCCEEDED"] * 2
    assert datazone.count() == {"get": 4}


def test_requests_keep_to_the_rate():
    runs = [SimulatedRun(f"run{number}", ends=1) for number in range(500)]
    datazone = SimulatedDataZone(runs)
    poll(datazone, [Waiter(run.id) for run in runs])
    per_second = Counter(int(at) for at, _, _ in datazone.requests)
    assert max(per_second.values()) <= RATE + 1


def test_throttling_slows_down_and_passes():
    runs = [SimulatedRun(f"run{number}", ends=1) for number in range(100)]
    calm, throttled = SimulatedDataZone(runs), SimulatedDataZone(runs, throttled=0.5)
    for datazone in (calm, throttled):
        assert {e.what.status for e in poll(datazone, [Waiter(run.id) for run in runs])} == {"SUCCEEDED"}

    def rate(datazone: SimulatedDataZone) -> float:
        return len(datazone.requests) / (datazone.requests[-1][0] - datazone.requests[0][0])

    assert rate(throttled) < rate(calm) / 2


@pytest.mark.parametrize("seconds", [2, 60])
@pytest.mark.parametrize("number", [30, 300])
def test_throttling_for_a_moment_is_slow_for_a_moment(number: int, seconds: int):
    runs = [SimulatedRun(f"run{number}", ends=1) for number in range(number)]
    datazone = SimulatedDataZone(runs, latency=0.5)

    async def main() -> list[Ending]:
        loop = asyncio.get_running_loop()
        loop.call_at(31, setattr, datazone, "throttled", 1.0)
        loop.call_at(31 + seconds, setattr, datazone, "throttled", 0.0)
        return await wait_all(Pollers(datazone), [Waiter(run.id) for run in runs])

    endings = simulate(main())
    assert {ending.what.status for ending in endings} == {"SUCCEEDED"}
    # From the first look on, it takes 3 or 33 s without the throttling, and somebody looks in vain a few times.
    # The longest pause between two requests is the time that throttling took, and then half of it, and so on.
    assert max(ending.at for ending in endings) < 30 + 33 + 60 + 3 * seconds


@pytest.mark.parametrize("list_failures", [1, 5])
def test_list_that_fails_for_a_moment_holds_nobody_up(list_failures: int):
    many = [SimulatedRun(f"run{number}", ends=400) for number in range(3000)]
    datazone = SimulatedDataZone([*many, SimulatedRun("mine", ends=65)], list_failures=list_failures)
    waiters = [Waiter(run.id) for run in many] + [Waiter("mine", poll_interval=10)]
    endings = poll(datazone, waiters)
    # A List of all takes 12 s at the rate; an interval's worth of Gets stands in for one that failed.
    assert endings[-1].at < 65 + 10 + 2 * (30 + 12)


# -------------------------------------------------------------------- trouble


def test_list_that_is_stuck_does_not_hold_up_a_wait_for_ever():
    runs = [SimulatedRun(f"run{number}", ends=100) for number in range(20)]
    datazone = SimulatedDataZone(runs, list_staleness=1e9)
    endings = poll(datazone, [Waiter(run.id) for run in runs])
    assert {ending.what.status for ending in endings} == {"SUCCEEDED"}
    assert max(ending.at for ending in endings) < 600 * 1.5 + 60


def test_run_that_has_ended_is_not_reported_as_a_time_out_because_list_is_stuck():
    runs = [SimulatedRun(f"run{number}", ends=100) for number in range(20)]
    datazone = SimulatedDataZone(runs, list_staleness=1e9)
    endings = poll(datazone, [Waiter(run.id, timeout=300) for run in runs])
    assert {ending.what.status for ending in endings} == {"SUCCEEDED"}


def test_list_that_is_forbidden_is_one_warning_and_gets_take_over(caplog: pytest.LogCaptureFixture):
    runs = [SimulatedRun(f"run{number}", ends=100) for number in range(20)]
    datazone = SimulatedDataZone(runs, list_error=client_error("AccessDeniedException", 403))
    endings = poll(datazone, [Waiter(run.id) for run in runs])
    assert {ending.what.status for ending in endings} == {"SUCCEEDED"}
    assert datazone.count()["list"] == 1
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "cannot be listed" in warnings[0]
    assert "AccessDenied" in warnings[0]


def test_run_that_is_unknown_fails_its_own_wait_alone():
    runs = [SimulatedRun(f"run{number}", ends=100, exists=number != 3) for number in range(10)]
    endings = poll(SimulatedDataZone(runs), [Waiter(run.id) for run in runs])
    for number, ending in enumerate(endings):
        if number == 3:
            assert "ResourceNotFoundException" in str(ending.what)
        else:
            assert ending.what.status == "SUCCEEDED"


def test_outage_is_sat_out_without_a_storm():
    runs = [SimulatedRun(f"run{number}", ends=10) for number in range(200)]
    datazone = SimulatedDataZone(runs, failing=1.0)

    async def main() -> list[Ending]:
        asyncio.get_running_loop().call_later(600, setattr, datazone, "failing", 0.0)
        return await wait_all(Pollers(datazone), [Waiter(run.id) for run in runs])

    endings = simulate(main())
    assert {ending.what.status for ending in endings} == {"SUCCEEDED"}
    during = [at for at, _, _ in datazone.requests if at < 600]
    assert len(during) < 600 * RATE / 5
    # A minute's pause at the most, an interval, and a Get each.
    assert max(ending.at for ending in endings) < 600 + 60 + 30 + 200 * 1.1 / RATE + 5


@pytest.mark.parametrize("runs_waited_for", [1, 20])
def test_rejected_credentials_end_the_poller_for_all(runs_waited_for: int):
    runs = [SimulatedRun(f"run{number}") for number in range(runs_waited_for)]
    datazone = SimulatedDataZone(runs)
    datazone.get_error = datazone.list_error = client_error("ExpiredTokenException", 403)
    endings = poll(datazone, [Waiter(run.id) for run in runs])
    assert {type(ending.what) for ending in endings} == {CredentialsRejectedError}
    assert len(datazone.requests) <= 8


def test_wait_that_begins_while_a_poller_ends_gets_one_that_lives():
    datazone = SimulatedDataZone([SimulatedRun("run", ends=50)])

    async def main() -> list[Any]:
        pollers = Pollers(datazone)
        datazone.get_error = client_error("ExpiredTokenException", 403)

        async def wait_again() -> Any:
            with contextlib.suppress(CredentialsRejectedError):
                await pollers.poller().wait("run", run_type=None, poll_interval=30, timeout=None, log=LOG)
            datazone.get_error = None
            return await pollers.poller().wait("run", run_type=None, poll_interval=30, timeout=None, log=LOG)

        found = await asyncio.gather(wait_again(), wait_again())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [source.closed for source in pollers.sources] == [1, 1]
        return found

    assert [run.status for run in simulate(main())] == ["SUCCEEDED"] * 2


def test_fault_of_the_poller_itself_reaches_every_wait(monkeypatch: pytest.MonkeyPatch):
    async def broken(self: RunPoller) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(RunPoller, "_poll_once", broken)
    endings = poll(SimulatedDataZone([SimulatedRun("run")]), [Waiter("run"), Waiter("run")])
    assert [str(ending.what) for ending in endings] == ["a mistake"] * 2


def test_unknown_status_is_waited_on_with_one_warning(caplog: pytest.LogCaptureFixture):
    datazone = SimulatedDataZone([SimulatedRun("run", unknown_status_until=200, ends=200)])
    assert poll(datazone, [Waiter("run")])[0].what.status == "SUCCEEDED"
    assert len([record for record in caplog.records if "PONDERING" in record.getMessage()]) == 1
