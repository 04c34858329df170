"""The shared poller in simulated time, with a simulated DataZone that fails in many ways."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import given, strategies as st

from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.polling.errors import CredentialsRejectedError, DeadlinePassedError
from airflow_provider_datazone.polling.poller import RunPoller
from airflow_provider_datazone.polling.rate import POLL_THREADS
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

LOG = logging.getLogger("tests.poller")
RATE = 10.0


# ------------------------------------------------------------------------ waits


@dataclass
class Waiter:
    run: str
    begins: float = 0.0
    poll_interval: float = 30.0
    timeout: float | None = None
    canceled_at: float | None = None


@dataclass
class Ending:
    result: Any
    at: float


class Pollers:
    """Opens one poller at a time, and a new one after the last has ended, like the registry does."""

    def __init__(self, datazone: SimulatedDataZone) -> None:
        self.datazone = datazone
        self.rates = equal_rates(RATE)
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
            return Ending("canceled", now())
        except Exception as error:
            return Ending(error, now())

    endings = await asyncio.gather(*(ending(waiter) for waiter in waiters))
    # Let canceled tasks end.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert pollers.current is None
    assert [source.closed for source in pollers.sources] == [1] * len(pollers.sources)
    return list(endings)


def poll(datazone: SimulatedDataZone, waiters: list[Waiter]) -> list[Ending]:
    async def main() -> list[Ending]:
        return await wait_all(Pollers(datazone), waiters)

    return simulate(main())


# ---------------------------------------------------------------- random faults

times = st.floats(0, 300)
chances = st.sampled_from([0.0, 0.0, 0.1, 0.5, 0.9])
runs_drawn = st.builds(
    dict,
    begins=times,
    ends=st.one_of(times, st.just(math.inf)),
    end_status=st.sampled_from(["SUCCEEDED", "FAILED", "CANCELED", "PARTIALLY_SUCCEEDED"]),
    exists=st.sampled_from([True] * 9 + [False]),
    unknown_status_until=st.sampled_from([-math.inf, -math.inf, 100.0, math.inf]),
)
waiters_drawn = st.builds(
    dict,
    run=st.integers(0, 10_000),
    begins=times,
    poll_interval=st.sampled_from([1.0, 7.0, 30.0, 60.0]),
    # A wait for a run that never ends needs a timeout.
    timeout=st.floats(0, 900),
    canceled_at=st.one_of(st.none(), st.none(), times),
)


@fuzz(150)
@given(
    runs=st.lists(runs_drawn, min_size=1, max_size=40),
    waiters=st.lists(waiters_drawn, min_size=1, max_size=60),
    random=st.randoms(use_true_random=True),
    page_size=st.sampled_from([1, 3, 50]),
    latency=st.sampled_from([0.0, 0.05, 3.0]),
    throttled=chances,
    failing=chances,
    omitted=chances,
    list_staleness=st.sampled_from([0.0, 5.0, 120.0]),
    shuffled=st.booleans(),
    shifting=st.booleans(),
    list_denied=st.sampled_from([False, False, True]),
)
def test_every_wait_ends_once_with_the_status_from_get_despite_random_faults(
    runs, waiters, random, list_denied, **misbehavior
):
    known = [SimulatedRun(id=f"run{number}", **run) for number, run in enumerate(runs)]
    datazone = SimulatedDataZone(
        known,
        random,
        list_error=client_error("AccessDeniedException", 403) if list_denied else None,
        **misbehavior,
    )
    waits = [Waiter(**waiter | {"run": f"run{waiter['run'] % len(runs)}"}) for waiter in waiters]
    for waiter, ending in zip(waits, poll(datazone, waits), strict=True):
        run = datazone.by_id[waiter.run]
        deadline = waiter.begins + waiter.timeout
        assert ending.at <= max(deadline, waiter.begins) + 1e-6
        if isinstance(ending.result, MetadataGenerationRun):
            assert ending.result.id == waiter.run
            assert ending.result.status == run.end_status
            assert datazone.ends_reported_at[waiter.run] <= ending.at
        elif isinstance(ending.result, DeadlinePassedError):
            assert ending.at == pytest.approx(deadline, abs=1e-6)
        elif ending.result == "canceled":
            assert ending.at == pytest.approx(waiter.canceled_at, abs=1e-6)
        else:
            assert "ResourceNotFoundException" in str(ending.result)
            assert not run.exists


@fuzz(50)
@given(
    ends=st.lists(st.floats(0, 600), min_size=1, max_size=300),
    interval=st.sampled_from([5.0, 30.0]),
    simultaneous=st.booleans(),
    shifting=st.booleans(),
)
def test_end_of_a_run_is_reported_within_a_poll_interval_and_the_time_for_all_requests(
    ends, interval, simultaneous, shifting
):
    if simultaneous:
        ends = [300.0] * len(ends)
    runs = [SimulatedRun(f"run{number}", ends=end) for number, end in enumerate(ends)]
    endings = poll(
        SimulatedDataZone(runs, shifting=shifting), [Waiter(run.id, poll_interval=interval) for run in runs]
    )
    # One Get per run and the pages of one round, at the rate including jitter.
    share = (len(runs) + 2 * math.ceil(len(runs) / 50) + 2) * 1.1 / RATE
    for end, ending in zip(ends, endings, strict=True):
        assert ending.at - end <= interval + share + 1


# ----------------------------------------------------------------------- memory


def test_a_round_does_not_keep_the_runs_that_it_has_read():
    pollers = Pollers(SimulatedDataZone([SimulatedRun(f"run{n}", ends=25) for n in range(200)]))

    async def wait(run: str) -> None:
        await pollers.poller().wait(run, run_type=None, poll_interval=30, timeout=None, log=LOG)

    def runs_in_memory() -> int:
        gc.collect()
        # Not `isinstance`, which imports what a lazy object stands for.
        return sum(type(each) is MetadataGenerationRun for each in gc.get_objects())

    async def main() -> None:
        # Those of other tests.
        before = runs_in_memory()
        tasks = [asyncio.ensure_future(wait(run)) for run in pollers.datazone.by_id]
        await asyncio.sleep(45)
        assert 80 < sum(task.done() for task in tasks) < 150
        assert runs_in_memory() - before <= POLL_THREADS
        await asyncio.wait(tasks)
        await asyncio.sleep(0)

    simulate(main())


# ----------------------------------------------------------- number of requests


def test_thousand_waits_take_one_get_each_and_one_list_page_per_fifty_runs():
    # Ten runs end at a time.
    runs = [SimulatedRun(f"run{number}", begins=100, ends=200 + number // 10 * 3) for number in range(1000)]
    datazone = SimulatedDataZone(runs)
    poll(datazone, [Waiter(run.id, begins=number * 0.03) for number, run in enumerate(runs)])
    assert datazone.count()["get"] == len(runs)
    # A round may take twice the pages of the runs that are active when it begins.
    rounds: list[list[float]] = []
    for at, operation, about in datazone.requests:
        if operation == "list" and about == "SUBMITTED":
            rounds.append([])
        if operation == "list":
            rounds[-1].append(at)
    for times in rounds:
        active = sum(run.ends > times[0] for run in runs)
        assert len(times) <= 2 * math.ceil(active / 50) or active == 0
    # Rounds begin once per poll interval, not more often.
    starts = [times[0] for times in rounds]
    assert all(later - earlier >= 29 for earlier, later in itertools.pairwise(starts[1:]))


def test_few_waits_poll_with_get():
    runs = [SimulatedRun(f"run{number}", ends=299) for number in range(2)]
    datazone = SimulatedDataZone(runs)
    poll(datazone, [Waiter(run.id) for run in runs])
    assert datazone.count() == {"get": 2 * 10}


@pytest.mark.parametrize("number_of_other_runs", [50, 10_000])
def test_other_active_runs_do_not_increase_the_requests_of_a_few_waits(number_of_other_runs: int):
    mine = [SimulatedRun(f"run{number}", ends=3000) for number in range(5)]
    others = [SimulatedRun(f"other{number}") for number in range(number_of_other_runs)]
    datazone = SimulatedDataZone(others + mine)
    poll(datazone, [Waiter(run.id) for run in mine])
    rounds = 3000 / 30
    assert sum(datazone.count().values()) <= rounds * len(mine) * 1.2
    per_round = Counter(int(at // 30) for at, _, _ in datazone.requests)
    assert max(per_round.values()) <= 2 * len(mine)


def test_list_serves_waits_while_it_takes_fewer_requests_than_gets():
    mine = [SimulatedRun(f"run{number}", ends=500) for number in range(40)]
    others = [SimulatedRun(f"other{number}") for number in range(1000)]
    datazone = SimulatedDataZone(others + mine)
    poll(datazone, [Waiter(run.id) for run in mine])
    # 21 pages of active runs, and an empty one of submitted runs.
    assert {operation for at, operation, _ in datazone.requests if at < 490} == {"list"}


def test_waits_are_listed_again_some_time_after_other_runs_have_ended():
    mine = [SimulatedRun(f"run{number}", ends=3000) for number in range(5)]
    others = [SimulatedRun(f"other{number}", ends=100) for number in range(1000)]
    datazone = SimulatedDataZone(others + mine)
    poll(datazone, [Waiter(run.id) for run in mine])
    late = Counter(operation for at, operation, _ in datazone.requests if 1500 < at < 2900)
    assert late["get"] <= 3 * len(mine), "a Get from time to time confirms what List returns"
    assert late["list"] >= 2 * (1400 / 30 - 2)


def test_each_wait_uses_its_own_poll_interval():
    runs = [SimulatedRun("slow", ends=599), SimulatedRun("fast", ends=599)]
    datazone = SimulatedDataZone(runs)
    poll(datazone, [Waiter("slow", poll_interval=100), Waiter("fast", poll_interval=10)])
    polls = Counter(about for _, _, about in datazone.requests)
    assert polls["slow"] == 6
    assert 58 <= polls["fast"] <= 60


def test_wait_that_begins_while_the_poller_sleeps_is_polled_in_time():
    datazone = SimulatedDataZone([SimulatedRun("slow", ends=150), SimulatedRun("fast", ends=12)])
    slow, fast = Waiter("slow", poll_interval=100), Waiter("fast", begins=10, poll_interval=5)
    assert poll(datazone, [slow, fast])[1].at < 10 + 5 + 1
    # The wait that is due later does not make the poller poll it earlier.
    assert Counter(about for _, _, about in datazone.requests) == {"slow": 2, "fast": 1}


def test_two_waits_for_one_run_share_requests():
    datazone = SimulatedDataZone([SimulatedRun("run", ends=95)])
    endings = poll(datazone, [Waiter("run"), Waiter("run")])
    assert [ending.result.status for ending in endings] == ["SUCCEEDED"] * 2
    assert datazone.count() == {"get": 4}


def test_requests_stay_within_the_rate():
    runs = [SimulatedRun(f"run{number}", ends=1) for number in range(500)]
    datazone = SimulatedDataZone(runs)
    poll(datazone, [Waiter(run.id) for run in runs])
    per_second = Counter(int(at) for at, _, _ in datazone.requests)
    assert max(per_second.values()) <= RATE + 1


def test_throttling_reduces_the_rate_and_fails_no_wait():
    runs = [SimulatedRun(f"run{number}", ends=1) for number in range(100)]
    unthrottled, throttled = SimulatedDataZone(runs), SimulatedDataZone(runs, throttled=0.5)
    for datazone in (unthrottled, throttled):
        assert {e.result.status for e in poll(datazone, [Waiter(run.id) for run in runs])} == {"SUCCEEDED"}

    def rate(datazone: SimulatedDataZone) -> float:
        return len(datazone.requests) / (datazone.requests[-1][0] - datazone.requests[0][0])

    assert rate(throttled) < rate(unthrottled) / 2


@pytest.mark.parametrize("seconds", [2, 60])
@pytest.mark.parametrize("number", [30, 300])
def test_rate_recovers_soon_after_short_throttling(number: int, seconds: int):
    runs = [SimulatedRun(f"run{number}", ends=1) for number in range(number)]
    datazone = SimulatedDataZone(runs, latency=0.5)

    async def main() -> list[Ending]:
        loop = asyncio.get_running_loop()
        loop.call_at(31, setattr, datazone, "throttled", 1.0)
        loop.call_at(31 + seconds, setattr, datazone, "throttled", 0.0)
        return await wait_all(Pollers(datazone), [Waiter(run.id) for run in runs])

    endings = simulate(main())
    assert {ending.result.status for ending in endings} == {"SUCCEEDED"}
    # After the first poll, it takes 3 or 33 s without throttling, and a few polls find nothing new. The
    # longest pause between two requests equals the duration of the throttling, then half of it, and so on.
    assert max(ending.at for ending in endings) < 30 + 33 + 60 + 3 * seconds


@pytest.mark.parametrize("list_failures", [1, 5])
def test_temporary_list_error_does_not_delay_a_wait(list_failures: int):
    many = [SimulatedRun(f"run{number}") for number in range(1500)]
    datazone = SimulatedDataZone([*many, SimulatedRun("mine", ends=65)], list_failures=list_failures)
    waiters = [Waiter(run.id, timeout=200) for run in many] + [Waiter("mine", poll_interval=10)]
    endings = poll(datazone, waiters)
    # Listing all runs takes 6 s at the rate. After a failed List, Gets take over for one interval.
    assert endings[-1].at < 65 + 10 + 2 * (30 + 6)


@pytest.mark.parametrize("list_error", [None, client_error("AccessDeniedException", 403)])
def test_hundreds_of_runs_that_end_together_do_not_delay_another_wait(list_error: ClientError | None):
    many = [SimulatedRun(f"run{number}", ends=1) for number in range(600)]
    datazone = SimulatedDataZone([*many, SimulatedRun("mine", ends=65)], list_error=list_error)
    waiters = [Waiter(run.id, poll_interval=60) for run in many] + [Waiter("mine", poll_interval=10)]
    endings = poll(datazone, waiters)
    assert {ending.result.status for ending in endings} == {"SUCCEEDED"}
    # The Gets for all of them take a minute.
    assert endings[-1].at < 65 + 2 * 10 + 2


# ----------------------------------------------------------------------- errors


@pytest.fixture
def fails_every_other_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every other Get of a simulated DataZone fail, beginning with the first."""
    fails = itertools.cycle([True, False])
    get = SimulatedDataZone.get

    async def fail_or_get(
        self: SimulatedDataZone, run_identifier: str, run_type: str | None
    ) -> MetadataGenerationRun:
        run = await get(self, run_identifier, run_type)
        if next(fails):
            raise client_error("InternalServerException", 500)
        return run

    monkeypatch.setattr(SimulatedDataZone, "get", fail_or_get)


@pytest.mark.usefixtures("fails_every_other_time")
def test_failures_between_successes_do_not_slow_down_polls():
    runs = [SimulatedRun(f"run{number}", ends=1) for number in range(200)]
    endings = poll(SimulatedDataZone(runs), [Waiter(run.id) for run in runs])
    assert {ending.result.status for ending in endings} == {"SUCCEEDED"}
    # Each round reads half of the runs that are left: about 8 rounds.
    assert max(ending.at for ending in endings) < 10 * 30


@pytest.mark.usefixtures("fails_every_other_time")
def test_transient_error_is_a_warning_in_the_log_of_the_task(caplog: pytest.LogCaptureFixture):
    (ending,) = poll(SimulatedDataZone([SimulatedRun("run", ends=1)]), [Waiter("run")])
    assert ending.result.status == "SUCCEEDED"
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.name == LOG.name
    assert "will try again" in warning.getMessage()
    assert "InternalServerException" in warning.getMessage()


def test_wait_ends_even_if_list_stays_stale():
    runs = [SimulatedRun(f"run{number}", ends=100) for number in range(20)]
    datazone = SimulatedDataZone(runs, list_staleness=1e9)
    endings = poll(datazone, [Waiter(run.id) for run in runs])
    assert {ending.result.status for ending in endings} == {"SUCCEEDED"}
    assert max(ending.at for ending in endings) < 600 * 1.5 + 60


def test_wait_does_not_time_out_for_an_ended_run_if_list_stays_stale():
    runs = [SimulatedRun(f"run{number}", ends=100) for number in range(20)]
    datazone = SimulatedDataZone(runs, list_staleness=1e9)
    endings = poll(datazone, [Waiter(run.id, timeout=300) for run in runs])
    assert {ending.result.status for ending in endings} == {"SUCCEEDED"}


def test_gets_that_confirm_a_list_become_rarer_until_the_list_is_wrong():
    runs = [SimulatedRun(f"run{number}") for number in range(20)]
    datazone = SimulatedDataZone(runs)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(14_400, setattr, datazone, "omitted", 1.0)
        loop.call_at(14_500, setattr, datazone, "omitted", 0.0)
        await wait_all(Pollers(datazone), [Waiter(run.id, timeout=16_000) for run in runs])

    simulate(main())
    for run in runs:
        gets = [at for at, operation, about in datazone.requests if operation == "get" and about == run.id]
        # After 10 minutes, then after intervals that double, up to an hour, each up to half as long again.
        assert 600 <= gets[0] < 900 + 60
        assert 4 <= sum(at < 14_400 for at in gets) <= 5
        last_unlisted = max(at for at in gets if at < 14_560)
        assert last_unlisted + 600 <= min(at for at in gets if at > 14_560) < last_unlisted + 900 + 60


def test_denied_list_logs_one_warning_and_waits_poll_with_get(caplog: pytest.LogCaptureFixture):
    runs = [SimulatedRun(f"run{number}", ends=100) for number in range(20)]
    datazone = SimulatedDataZone(runs, list_error=client_error("AccessDeniedException", 403))
    endings = poll(datazone, [Waiter(run.id) for run in runs])
    assert {ending.result.status for ending in endings} == {"SUCCEEDED"}
    assert datazone.count()["list"] == 1
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "cannot be listed" in warnings[0]
    assert "AccessDenied" in warnings[0]


def test_list_is_tried_again_ten_minutes_after_a_refusal():
    """A user may edit the IAM policy for a moment, or the token of a page may expire."""
    runs = [SimulatedRun(f"run{number}", ends=2000) for number in range(40)]
    datazone = SimulatedDataZone(runs, list_error=client_error("AccessDeniedException", 403))

    async def main() -> list[Ending]:
        asyncio.get_running_loop().call_later(60, setattr, datazone, "list_error", None)
        return await wait_all(Pollers(datazone), [Waiter(run.id) for run in runs])

    assert {ending.result.status for ending in simulate(main())} == {"SUCCEEDED"}
    lists = [at for at, operation, _ in datazone.requests if operation == "list"]
    assert lists[0] < 31
    assert 600 < lists[1] < 700
    late = Counter(operation for at, operation, _ in datazone.requests if 700 < at < 1990)
    assert late["get"] <= 3 * len(runs), "a Get from time to time confirms what List returns"


def test_list_that_hangs_does_not_delay_each_round():
    class Hanging(SimulatedDataZone):
        async def list_page(self, status: str, next_token: str | None) -> Any:
            self.requests.append((now(), "list", status))
            await asyncio.sleep(30)
            raise ReadTimeoutError(endpoint_url="https://datazone")

    runs = [SimulatedRun(f"run{number}", ends=130 + 10 * number) for number in range(20)]
    endings = poll(Hanging(runs), [Waiter(run.id) for run in runs])
    # Without a List, a poll detects an end within its interval of 30 s. Three time-outs take 90 s.
    late = [ending.at - run.ends for ending, run in zip(endings, runs, strict=True)]
    assert sorted(late)[len(late) * 3 // 4] < 30 + 3
    assert max(late) < 90 + 30 + 3


def test_list_that_hangs_for_a_while_does_not_slow_down_thousands_of_waits():
    """Gets alone would take minutes for all of them."""

    class Hanging(SimulatedDataZone):
        async def list_page(self, status: str, next_token: str | None) -> Any:
            if not 200 < now() < 290:
                return await super().list_page(status, next_token)
            self.requests.append((now(), "list", status))
            await asyncio.sleep(30)
            raise ReadTimeoutError(endpoint_url="https://datazone")

    ending = [SimulatedRun(f"run{number}", ends=350 + number) for number in range(150)]
    others = [SimulatedRun(f"other{number}") for number in range(2850)]
    datazone = Hanging([*ending, *others])
    waits = [*(Waiter(run.id) for run in ending), *(Waiter(run.id, timeout=700) for run in others)]
    late = [each.at - run.ends for each, run in zip(poll(datazone, waits), ending, strict=False)]
    assert sorted(late)[75] < 30


def test_unknown_run_fails_only_its_wait():
    runs = [SimulatedRun(f"run{number}", ends=100, exists=number != 3) for number in range(10)]
    endings = poll(SimulatedDataZone(runs), [Waiter(run.id) for run in runs])
    for number, ending in enumerate(endings):
        if number == 3:
            assert "ResourceNotFoundException" in str(ending.result)
        else:
            assert ending.result.status == "SUCCEEDED"


def test_polls_slow_down_during_an_outage():
    runs = [SimulatedRun(f"run{number}", ends=10) for number in range(200)]
    datazone = SimulatedDataZone(runs, failing=1.0)

    async def main() -> list[Ending]:
        asyncio.get_running_loop().call_later(600, setattr, datazone, "failing", 0.0)
        return await wait_all(Pollers(datazone), [Waiter(run.id) for run in runs])

    endings = simulate(main())
    assert {ending.result.status for ending in endings} == {"SUCCEEDED"}
    during_outage = [at for at, _, _ in datazone.requests if at < 600]
    assert len(during_outage) < 600 * RATE / 5
    # A pause of at most one minute, one poll interval, and one Get per run.
    assert max(ending.at for ending in endings) < 600 + 60 + 30 + 200 * 1.1 / RATE + 5


def test_failed_get_is_repeated_with_the_next_poll():
    datazone = SimulatedDataZone([SimulatedRun("run", ends=10)], failing=1.0)

    async def main() -> list[Ending]:
        asyncio.get_running_loop().call_later(295, setattr, datazone, "failing", 0.0)
        return await wait_all(Pollers(datazone), [Waiter("run", poll_interval=30)])

    (ending,) = simulate(main())
    assert ending.result.status == "SUCCEEDED"
    assert datazone.count() == {"get": 10}


def test_short_outage_after_a_long_one_delays_polls_for_a_short_time():
    runs = [SimulatedRun(f"run{number}", ends=1000) for number in range(200)]
    datazone = SimulatedDataZone(runs, failing=1.0)

    async def main() -> list[Ending]:
        for at, failing in ((600, 0.0), (995, 1.0), (1005, 0.0)):
            asyncio.get_running_loop().call_later(at, setattr, datazone, "failing", failing)
        return await wait_all(Pollers(datazone), [Waiter(run.id, poll_interval=5) for run in runs])

    endings = simulate(main())
    # One Get per run, and a few short pauses.
    assert max(ending.at for ending in endings) < 1005 + 200 * 1.1 / RATE + 20


@pytest.mark.parametrize("runs_waited_for", [1, 20])
def test_rejected_credentials_end_the_poller_and_all_its_waits(runs_waited_for: int):
    runs = [SimulatedRun(f"run{number}") for number in range(runs_waited_for)]
    datazone = SimulatedDataZone(runs)
    datazone.get_error = datazone.list_error = client_error("ExpiredTokenException", 403)
    endings = poll(datazone, [Waiter(run.id) for run in runs])
    assert {type(ending.result) for ending in endings} == {CredentialsRejectedError}
    assert len(datazone.requests) <= 8


def test_wait_that_begins_while_a_poller_ends_gets_a_new_poller():
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


def test_internal_error_of_the_poller_fails_every_wait(monkeypatch: pytest.MonkeyPatch):
    async def broken(self: RunPoller) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(RunPoller, "_poll_once", broken)
    endings = poll(SimulatedDataZone([SimulatedRun("run")]), [Waiter("run"), Waiter("run")])
    assert [str(ending.result) for ending in endings] == ["a mistake"] * 2


def test_unknown_status_logs_one_warning_and_the_wait_continues(caplog: pytest.LogCaptureFixture):
    datazone = SimulatedDataZone([SimulatedRun("run", unknown_status_until=200, ends=200)])
    assert poll(datazone, [Waiter("run")])[0].result.status == "SUCCEEDED"
    assert len([record for record in caplog.records if "PONDERING" in record.getMessage()]) == 1
