"""Save the runs of an asset watcher in Airflow's asset state store, for the next triggerer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow_provider_datazone.version_compat import asset_state_methods

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
    from airflow_provider_datazone.polling.watch import RunWatch

T = TypeVar("T")

# Number of finished runs that are saved. They guard against a List that still returns an ended run as active
# while the watcher moves to another triggerer, and against two triggerers that run it at the same time.
MAX_SAVED = 1000
# Maximum number of runs to report after one write: a triggerer that stops loses those of the last write.
MAX_CLAIMED = 10
# Airflow's error for a watcher that belongs to several assets.
SEVERAL_ASSETS = "concrete inlets and outlets"
# Seconds after which an attempt to read or write the store counts as failed, and is not repeated: a triggerer
# with many watchers may need some time for all of them.
SECONDS_TO_RESPOND = 60.0
# Seconds until the store is used again after all attempts have failed.
SECONDS_WITHOUT_STORE = 60.0
# Seconds between the attempts to read or write the store.
RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0)


class SavedRuns(NamedTuple):
    """
    The runs of a watcher in the store.

    :param following: The runs that the watcher follows.
    :param finished: The last runs that it no longer follows, oldest first. Not all of them made an event.
    """

    following: list[str]
    finished: list[str]

    @classmethod
    def from_value(cls, value: Any) -> SavedRuns:
        """Read a value of the store; whatever is not a list of strings counts as empty."""
        members = value if isinstance(value, Mapping) else {}

        def read(key: str) -> list[str]:
            items = members.get(key)
            return [item for item in items if isinstance(item, str)] if isinstance(items, list) else []

        return cls(read("following"), read("finished"))


def count_reportable(watch: RunWatch, may_report_single: bool) -> int:
    """
    Return how many unreported runs to report now: all but the last. A single run is reported at once unless
    it follows another event closely.

    Airflow queues a DAG run at the first event of a burst, and the DAG run gets only the events until then.
    The others wait for the next event, which may never come (apache/airflow#54659). So the watcher sends the
    last event of a burst later, and Airflow passes the others with it.

    :param watch: The watch.
    :param may_report_single: Whether the last event was some time ago.
    """
    number = len(watch.unreported)
    return number if may_report_single and number == 1 else max(number - 1, 0)


class WatchStore:
    """
    Save the runs of a watch in the store, and load them.

    :param store: The watcher's ``asset_state_store``; ``None``, as before Airflow 3.3, saves nothing.
    :param identity: What distinguishes the watcher from others of the same asset.
    :param log: The triggerer's log.
    """

    def __init__(self, store: Any, identity: Any, log: logging.Logger) -> None:
        #: Event loop time when the caller has to try again because the store has failed, otherwise infinity.
        self.retry_at = math.inf
        self._store = store
        self._is_loaded = False
        # The runs that this watch has tried to save as finished, and has not reported yet.
        self._claimed: set[str] = set()
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._key = f"datazone_runs_{digest[:32]}"
        self._log = log

    async def claim(self, watch: RunWatch, *, may_report_single: bool) -> list[MetadataGenerationRun]:
        """
        Return the runs to report now, after the store has recorded that they are finished.

        In this order, another triggerer that runs the same watcher later does not report the runs again. Two
        triggerers that read the store at the same moment may both report a run.

        :param watch: The watch; the runs are taken from it.
        :param may_report_single: Whether the last event was some time ago, see :func:`count_reportable`.
        """
        number = None
        is_available = self.retry_at == math.inf or asyncio.get_running_loop().time() >= self.retry_at
        if self._store is not None and is_available:
            number = await self._retry(lambda: self._update(watch, may_report_single))
        self._claimed.clear()
        return watch.take_unreported(count_reportable(watch, may_report_single) if number is None else number)

    async def _load(self, watch: RunWatch) -> SavedRuns:
        read, _ = asset_state_methods(self._store)
        try:
            saved = SavedRuns.from_value(await read(self._key))
        except ValueError as error:
            if SEVERAL_ASSETS not in str(error):
                raise
            # Airflow has no store for a watcher of several assets (apache/airflow#71460).
            self._store = None
            self._log.warning(
                "The active runs are not saved. Runs that end while no triggerer runs are not reported: %s",
                error,
            )
            return SavedRuns([], [])
        # Later, the watch knows which runs it follows: it may have reported and forgotten some of these.
        watch.restore([] if self._is_loaded else saved.following, saved.finished)
        if not self._is_loaded and saved.following:
            self._log.info(
                "Following %d metadata generation runs that were active before.", len(saved.following)
            )
        self._is_loaded = True
        return saved

    async def _update(self, watch: RunWatch, may_report_single: bool) -> int:
        """
        Load the saved runs, and save the watch with the runs that it may report now.

        :return: How many of the unreported runs the watch may report now, from the first.
        """
        saved = await self._load(watch)
        # Another triggerer has reported these. A run that this watch has saved itself, in an attempt whose
        # response was lost, is still to be reported.
        watch.discard_unreported(set(saved.finished) - self._claimed)
        number = min(count_reportable(watch, may_report_single), MAX_CLAIMED)
        # More runs may end while the store is written. They are not in `current`, so they are claimed later.
        unreported = [run.id for run in watch.unreported]
        self._claimed.update(unreported[:number])
        unclaimed = set(unreported[number:])
        finished = [run for run in watch.finished if run not in unclaimed]
        current = SavedRuns(sorted(watch.following | unclaimed), finished[-MAX_SAVED:])
        if self._store is not None and current != saved:
            _, write = asset_state_methods(self._store)
            await write(self._key, current._asdict())
        return number

    async def _retry(self, step: Callable[[], Awaitable[T]]) -> T | None:
        """Run a step, again after each error; return ``None`` if all attempts failed."""
        for pause in (*RETRY_PAUSES, None):
            attempt = asyncio.ensure_future(step())
            try:
                # Not `wait_for`, which can lose a cancellation on Python 3.10 and 3.11.
                await asyncio.wait({attempt}, timeout=SECONDS_TO_RESPOND)
                is_done = attempt.done()
                error = attempt.exception() if is_done else TimeoutError("no response")
            finally:
                attempt.cancel()
            if error is None:
                self.retry_at = math.inf
                return attempt.result()
            if pause is None or not is_done:
                self._log.warning(
                    "The active runs could not be saved. If the triggerer ends now, runs may be reported "
                    "twice or not at all: %s",
                    error,
                )
                break
            await asyncio.sleep(pause)
        self.retry_at = asyncio.get_running_loop().time() + SECONDS_WITHOUT_STORE
        return None
