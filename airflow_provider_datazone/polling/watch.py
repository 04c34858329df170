"""A watch: which active runs of a domain it follows, and which of them have ended."""

from __future__ import annotations

import math
from asyncio import Event
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_datazone.service_errors import is_not_found, is_transient

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun

# Maximum seconds between two Gets of a run that DataZone does not return as terminal.
LONGEST_READ_INTERVAL = 300.0
# Seconds after which a watch stops following a run that List does not return as active, and that Get returns
# with a status that this version does not know.
LONGEST_UNKNOWN = 3600.0
# Number of finished runs that a watch remembers, since a late List may still return them as active.
MAX_FINISHED = 10_000


class RunFilter(NamedTuple):
    """
    Which runs a watch follows and reports; an empty collection selects all.

    :param asset_identifiers: Runs for one of these assets.
    :param owning_project_identifiers: Runs of assets that one of these projects owns.
    :param run_types: Runs that generate at least one of these types.
    :param statuses: Runs that end with one of these statuses. The others are followed, and not reported.
    """

    asset_identifiers: Collection[str] = ()
    owning_project_identifiers: Collection[str] = ()
    run_types: Collection[str] = ()
    statuses: Collection[str] = ()

    def matches(self, run: MetadataGenerationRun) -> bool:
        """Whether the watch follows a run."""
        if self.asset_identifiers and run.asset_id not in self.asset_identifiers:
            return False
        projects = self.owning_project_identifiers
        if projects and run.owning_project_id not in projects:
            return False
        return not self.run_types or any(run_type in self.run_types for run_type in run.types)


@dataclass
class _Reads:
    """
    The Gets of a run that did not return it as terminal. Times are event loop times in seconds.

    :param unlisted_at: When List did not return the run for the first time.
    :param last_at: When the last one was sent.
    :param next_at: When the next one is due.
    :param pause: The seconds between them.
    :param missing_since: Since when DataZone has reported that the run does not exist.
    :param unknown_since: Since when Get has returned a status that this version does not know.
    """

    unlisted_at: float
    last_at: float = 0.0
    next_at: float = 0.0
    pause: float = 0.0
    missing_since: float = math.inf
    unknown_since: float = math.inf


class RunWatch:
    """
    Follow the active runs of a domain, and collect those that end.

    The watch follows a run from the first List that returns it as active until Get returns it as terminal, so
    it does not lose the run to a late or incomplete List. It stops following a run that no longer exists. The
    watch keeps its runs when its poller ends, and continues on the next one.

    :param run_filter: Which runs to follow.
    :param poll_interval: Seconds between two Lists.
    :param log: The log for errors.
    """

    def __init__(self, run_filter: RunFilter, *, poll_interval: float, log: logging.Logger) -> None:
        self.poll_interval = poll_interval
        self.log = log
        #: The runs that are active, as far as the watch knows.
        self.following: set[str] = set()
        #: The terminal runs that have not been reported yet.
        self.unreported: deque[MetadataGenerationRun] = deque()
        #: Set when `following` or `unreported` changes.
        self.changed = Event()
        #: Event loop time when the next List is due.
        self.due = 0.0
        self._filter = RunFilter(*map(frozenset, run_filter))
        # The runs that the watch no longer follows, oldest first: a dict as an ordered set.
        self._finished: dict[str, None] = {}
        # The runs of the last List. All watches of a poller share the set.
        self._listed: frozenset[str] = frozenset()
        # By run that List does not return, and that Get does not return as terminal.
        self._reads: dict[str, _Reads] = {}
        self._is_started = False
        self._has_logged_read_failure = False

    @property
    def finished(self) -> list[str]:
        """The last runs that the watch no longer follows, oldest first. Not all of them were reported."""
        return list(self._finished)

    def restore(self, following: Iterable[str], finished: Iterable[str]) -> None:
        """
        Add the runs of another watch with the same filter.

        :param following: The runs that it follows.
        :param finished: The last runs that it no longer follows.
        """
        self._finished |= dict.fromkeys(finished)
        self.following = self.following.union(following).difference(self._finished)

    def discard_unreported(self, run_identifiers: Collection[str]) -> None:
        """Remove runs from `unreported`."""
        self.unreported = deque(run for run in self.unreported if run.id not in run_identifiers)

    def take_unreported(self, number: int) -> list[MetadataGenerationRun]:
        """Return the first runs of `unreported`, and remove them from it."""
        return [self.unreported.popleft() for _ in range(number)]

    def schedule(self, now: float, began: float, *, is_complete: bool) -> None:
        """
        Schedule the next List. Until then there is time to read runs: at least as long as the last List took.

        :param now: The event loop's time.
        :param began: When the last List began.
        :param is_complete: Whether it returned all active runs.
        """
        self.due = max(began + self.poll_interval, now + max(self.poll_interval / 2, now - began))
        if not is_complete:
            self.due = min(self.due, now + LONGEST_READ_INTERVAL)

    def on_page(self, runs: Mapping[str, MetadataGenerationRun]) -> None:
        """
        Follow the runs of a page that match the filter and that the last List did not return.

        A List may take minutes, and fail or be canceled on its way; its runs must not be lost.

        :param runs: The active runs of the page.
        """
        self._follow(runs.keys() - self._listed, runs)

    def on_listed(
        self, runs: Mapping[str, MetadataGenerationRun], listed: frozenset[str], *, is_complete: bool
    ) -> None:
        """
        Follow the runs of a List, also those of the pages that came before the watch began.

        :param runs: The active runs that List returned.
        :param listed: Their identifiers.
        :param is_complete: Whether List returned all active runs.
        """
        for run in self._reads.keys() & listed:
            del self._reads[run]
        self._follow(listed.difference(self._listed), runs)
        self._listed = listed if is_complete else self._listed | listed
        if is_complete and not self._is_started:
            self._is_started = True
            self.log.info("Watching metadata generation runs: %d are active.", len(self.following))

    def unlisted(self, listed: Collection[str], now: float) -> dict[str, tuple[float, float]]:
        """
        Return the followed runs that a complete List did not return and whose next Get is due.

        :param listed: The runs that List returned as active.
        :param now: The event loop's time.
        :return: By run, how urgent its Get is; the smallest value comes first.
        """
        reads = {run: self._reads_of(run, now) for run in self.following.difference(listed)}
        return {run: (read.last_at, read.unlisted_at) for run, read in reads.items() if read.next_at <= now}

    def on_run(self, run: MetadataGenerationRun, now: float) -> None:
        """
        Record the run that Get returned, with the typeStats of all its types.

        :param run: The run.
        :param now: The event loop's time.
        """
        if run.id not in self.following:
            return
        self._has_logged_read_failure = False
        if not run.is_terminal:
            # List does not return the run yet, or this version does not know its status.
            reads = self._read_later(run.id, now)
            reads.unknown_since = math.inf if run.is_active else min(reads.unknown_since, now)
            if now - reads.unknown_since >= LONGEST_UNKNOWN:
                self._stop_following(run.id)
                self.log.warning(
                    "Run %s is no longer followed: this version does not know its status %r.",
                    run.id,
                    run.status,
                )
            return
        if not self._filter.statuses or run.status in self._filter.statuses:
            self.unreported.append(run)
        self._stop_following(run.id)

    def on_get_failure(self, run_identifier: str, error: BaseException, now: float) -> None:
        """
        Schedule another Get of a run: with the next List after a transient error, otherwise after twice the
        time. Stop following a run that has not existed for some minutes.

        :param run_identifier: The run.
        :param error: Why Get did not return it.
        :param now: The event loop's time.
        """
        if run_identifier not in self.following:
            return
        if is_transient(error):
            self._reads_of(run_identifier, now).last_at = now
            return
        reads = self._read_later(run_identifier, now)
        reads.missing_since = min(reads.missing_since, now) if is_not_found(error) else math.inf
        if now - reads.missing_since >= LONGEST_READ_INTERVAL:
            self._stop_following(run_identifier)
            self.log.warning("A run is no longer followed, since it does not exist: %s", error)
        elif not self._has_logged_read_failure:
            self._has_logged_read_failure = True
            self.log.warning("A run could not be read, will try again: %s", error)

    def _follow(self, new: Collection[str], runs: Mapping[str, MetadataGenerationRun]) -> None:
        """Follow those of the new runs that match the filter and that have not finished."""
        matching = {run for run in new if run not in self._finished and self._filter.matches(runs[run])}
        if not matching <= self.following:
            self.following |= matching
            self.changed.set()

    def _reads_of(self, run_identifier: str, now: float) -> _Reads:
        return self._reads.setdefault(run_identifier, _Reads(now))

    def _read_later(self, run_identifier: str, now: float) -> _Reads:
        reads = self._reads_of(run_identifier, now)
        reads.pause = min(max(2 * reads.pause, self.poll_interval), LONGEST_READ_INTERVAL)
        reads.last_at, reads.next_at = now, now + reads.pause
        return reads

    def _stop_following(self, run_identifier: str) -> None:
        self._reads.pop(run_identifier, None)
        self.following.discard(run_identifier)
        self._finished[run_identifier] = None
        while len(self._finished) > MAX_FINISHED:
            del self._finished[next(iter(self._finished))]
        self.changed.set()
