"""Request rates and threads: how fast, and how many at a time, requests are sent."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from airflow_provider_datazone.get_provider_info import CONFIG_OPTIONS
from airflow_provider_datazone.version_compat import conf

# DataZone's limit of Cancel requests per second for an account and Region.
CANCELS_PER_SECOND = 20.0
# Each kind of request has threads of its own, so that slow Starts do not delay a poll. For polls: enough for
# the default rate at a latency of a second, with some to spare while others hang.
POLL_THREADS = 8
# Enough for the default rate of Starts at a latency of three seconds.
START_THREADS = 32
# Enough for the rate of Cancels at a latency of a second.
CANCEL_THREADS = 24
# Enough for 20 requests per second at a latency of 1 second, and for 10 per second at 2 seconds.
ACCEPT_THREADS = 24
PUBLISH_THREADS = 20
# For Lists and Gets of watches, so that slow ones do not delay waits.
WATCH_THREADS = 4
MAX_THREADS = WATCH_THREADS + POLL_THREADS + START_THREADS + CANCEL_THREADS + ACCEPT_THREADS + PUBLISH_THREADS
# Maximum seconds between two requests while DataZone throttles, and between two rounds while requests fail.
LONGEST_PAUSE = 60.0
# A single response shortens the interval between requests to this share at most, since throttling doubles it.
FASTEST_RECOVERY = 0.5


class RequestRate:
    """
    Limit the request rate of all callers, and lower it while DataZone throttles.

    :param per_second: Maximum number of requests per second.
    :param jitter: Maximum share by which an interval is randomly extended.
    :param recovery: Factor by which each response shortens an interval that throttling has extended.
    """

    def __init__(self, per_second: float, *, jitter: float = 0.1, recovery: float = 0.9) -> None:
        self.per_second = per_second
        self._jitter = jitter
        self._recovery = recovery
        self._interval = 1 / per_second
        self._slowdown = 1.0
        self._slowed_at = -math.inf
        self._next_turn = 0.0
        self._lock = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait until one request may be sent."""
        loop = asyncio.get_running_loop()
        # One at a time, so that a caller keeps its turn when the interval shortens.
        async with self._lock:
            turn = max(loop.time(), self._next_turn)
            while (left := turn - loop.time()) > 0:
                await asyncio.sleep(left)
                turn = max(turn, self._next_turn)
            # Jitter, so that triggerers that start together do not send together.
            longer = random.uniform(1.0, 1.0 + self._jitter)  # noqa: S311
            self._next_turn = turn + self._interval * self._slowdown * longer

    def on_throttled(self, sent_at: float) -> None:
        """
        Slow down, because DataZone throttled a request.

        :param sent_at: Event loop time when the request was sent. Several requests that were under way
            together are throttled together, which slows the rate down once.
        """
        if sent_at < self._slowed_at:
            return
        self._slowed_at = now = asyncio.get_running_loop().time()
        self._slowdown = min(self._slowdown * 2, max(LONGEST_PAUSE / self._interval, 1.0))
        self._next_turn = max(self._next_turn, now + self._interval * self._slowdown)

    def on_response(self) -> None:
        """Speed up again, because DataZone responded."""
        # After an interval of several seconds, one response counts as much as one per second would. But it
        # does not reset the rate, since other clients may still use up the limit.
        seconds = max(self._interval * self._slowdown, 1.0)
        self._slowdown = max(self._slowdown * max(self._recovery**seconds, FASTEST_RECOVERY), 1.0)


@dataclass(frozen=True, eq=False)
class Rates:
    """
    The rates for an AWS account and Region, shared by all pollers of an event loop that use it.

    :param polls: Get and List.
    :param starts: Starts, which DataZone limits per account.
    :param cancels: Cancels, which DataZone limits per account.
    :param accepts: Requests that accept predictions, which DataZone limits per account.
    :param publications: Requests that publish an asset; AWS does not publish a limit.
    """

    polls: RequestRate
    starts: RequestRate
    cancels: RequestRate
    accepts: RequestRate
    publications: RequestRate

    @classmethod
    def configured(cls) -> Rates:
        """Return the rates of Airflow's configuration."""

        def with_known_limit(per_second: float) -> RequestRate:
            # Little jitter, since DataZone's limit is known. Slow recovery, since other clients share it.
            return RequestRate(per_second, jitter=0.02, recovery=0.995)

        requests = requests_per_second("max_requests_per_second")
        return cls(
            polls=RequestRate(requests),
            starts=with_known_limit(requests_per_second("max_starts_per_second")),
            cancels=RequestRate(CANCELS_PER_SECOND, jitter=0.02),
            accepts=with_known_limit(requests_per_second("max_accepts_per_second")),
            # DataZone's limit is not known. A separate rate, so that publishing does not delay polls. Little
            # jitter, since publishing must keep up with the Starts.
            publications=RequestRate(requests, jitter=0.02),
        )


def requests_per_second(option: str) -> float:
    """
    Return a rate from the section ``datazone`` of Airflow's configuration.

    :raises ValueError: It is not a number above 0.
    """
    value = conf.getfloat("datazone", option, fallback=float(CONFIG_OPTIONS[option]["default"]))
    if not 0 < value < math.inf:
        raise ValueError(f"[datazone] {option} must be a number above 0, got {value}.")
    return float(value)


class Lane:
    """
    The rate and the threads for one kind of request of a poller.

    :param rate: The rate, which other pollers may share.
    :param threads: Maximum number of requests at a time.
    """

    def __init__(self, rate: RequestRate, threads: int) -> None:
        self.rate = rate
        self._threads = asyncio.Semaphore(threads)

    async def acquire(self, is_needed: Callable[[], bool] = lambda: True) -> None:
        """
        Wait for a free thread, and then for the rate. The caller calls :meth:`release` afterwards.

        The thread comes first: requests that passed the rate and then waited for threads would be sent
        together.

        :param is_needed: Whether the request still has to be sent; otherwise it does not use the rate.
        """
        await self._threads.acquire()
        try:
            if is_needed():
                await self.rate.acquire()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Free the thread for another request."""
        self._threads.release()

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Wait for a thread and the rate, and hold the thread while the request is sent."""
        await self.acquire()
        try:
            yield
        finally:
            self.release()
