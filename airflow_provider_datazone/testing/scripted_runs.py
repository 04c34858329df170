"""The backend's runs with the outcome and the duration that a test sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID

from .backend import urls
from .backend.models import DataZoneBackend, datazone_backends
from .backend.runs import ACTIVE_STATUSES, TERMINAL_STATUSES, MetadataGenerationRun
from .scenario import scenario

#: The clock of runs whose duration is set in seconds. Tests can replace it.
clock: Callable[[], float] = time.monotonic


class ScriptedRun(MetadataGenerationRun):
    """A run with the outcome that a test has set for its asset."""

    def __init__(self, number: int, project: Any, asset: Any, *args: Any) -> None:
        self._taken_outcome = self._outcome = scenario.take_outcome(asset.id)
        self._started_at = clock()
        self._status_is_fixed = False
        self._polls = 0
        super().__init__(number, project, asset, *args)

    @property
    def has_type_stats(self) -> bool:  # type: ignore[override]
        """Whether Get returns ``typeStats``."""
        return self._outcome.type_stats

    def final_status(self) -> str:
        """Return the status in which the run ends."""
        return self._outcome.run_status(self.types)

    def final_type_status(self, run_type: str) -> str:
        """Return the status in which a type ends."""
        return self._outcome.type_status(run_type, self.types)

    def error_message(self, run_type: str) -> str | None:
        """Return the ``errorMessage`` of a type."""
        # The messages belong to the outcome that the test has set, which a cancellation prevents and
        # set_status may replace.
        if self._status == "CANCELED" != self._taken_outcome.run_status(self.types):
            return None
        if self._outcome is not self._taken_outcome and self.final_type_status(run_type) == "SUCCEEDED":
            return None
        return self._outcome.error_messages.get(run_type)

    def advance_status(self, is_poll: bool) -> None:
        """Update the status of an active run: by polls, by time, or by moto's state transitions."""
        outcome = self._outcome
        if self._status_is_fixed:
            return
        if outcome.polls is not None:
            self._polls += is_poll
            if self._polls >= outcome.polls:
                self._status = self.final_status()
            elif self._polls:
                self._status = "IN_PROGRESS"
        elif outcome.submitted_seconds is None and outcome.in_progress_seconds is None:
            super().advance_status(is_poll)
        else:
            seconds_in_progress = clock() - self._started_at - (outcome.submitted_seconds or 0)
            if seconds_in_progress >= (outcome.in_progress_seconds or 0):
                self._status = self.final_status()
            elif seconds_in_progress >= 0:
                self._status = "IN_PROGRESS"

    def set_status(self, status: str | None) -> None:
        """Set a status that the run keeps. None lets the run advance again."""
        self._status_is_fixed = status is not None
        if status is not None:
            self._status = status
        elif self._status in TERMINAL_STATUSES:
            # A run that has ended does not advance, and its types keep their statuses.
            return
        elif self._status not in ACTIVE_STATUSES:
            self._status = "IN_PROGRESS"
        self._outcome = self._taken_outcome
        if status in TERMINAL_STATUSES and status != self.final_status():
            # The types have to agree with the status.
            self._outcome = replace(self._taken_outcome, status=status, statuses=None)


class ScriptedBackend(DataZoneBackend):
    """The backend with scripted runs. Its reset also deletes the settings of tests."""

    run_class = ScriptedRun

    @property
    def _url_module(self) -> Any:
        # Moto would look for it next to the module of this class.
        return urls

    def reset(self) -> None:
        """Delete all resources and settings."""
        scenario.clear()
        super().reset()


def ensure_reset_clears_scenario() -> None:
    """Create a backend, so that a reset of moto also clears the scenario.

    Moto resets only existing backends, and creates a backend on first use.
    """
    datazone_backends[DEFAULT_ACCOUNT_ID]["us-east-1"]
