"""The base class of the trigger for asset watchers: its arguments, and when it sends an event."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_datazone.exceptions import InvalidWatcherError, NotConfiguredError
from airflow_provider_datazone.inputs import (
    to_botocore_config,
    to_connection_id,
    to_text,
    to_verify,
    validate_interval,
)
from airflow_provider_datazone.metadata_generation import RUN_TYPES, TERMINAL_STATUSES
from airflow_provider_datazone.metrics import count_ended_run
from airflow_provider_datazone.polling.jobs import watch_runs
from airflow_provider_datazone.polling.timer import wait_for_event
from airflow_provider_datazone.polling.watch import RunFilter, RunWatch
from airflow_provider_datazone.triggers.base import DataZoneTrigger
from airflow_provider_datazone.triggers.watch_store import WatchStore
from airflow_provider_datazone.version_compat import BaseEventTrigger, require_asset_watchers

# Seconds by which a burst's last event is delayed: Airflow first creates a DAG run for the others.
_LAST_EVENT_DELAY = 10.0
# Seconds in which an asset watcher collects changes. Airflow takes events once a second, and each time the
# watcher writes to Airflow's asset state store.
_REPORT_INTERVAL = 1.0


class WatcherTrigger(DataZoneTrigger, BaseEventTrigger):
    """
    Watch the runs of a domain. ``DataZoneMetadataGenerationRunEventTrigger`` documents the arguments.

    :raises RuntimeError: Airflow is older than 3.0.
    :raises InvalidWatcherError: An argument is invalid.
    """

    def __init__(
        self,
        *,
        domain_identifier: str,
        asset_identifier: str | Iterable[str] | None,
        owning_project_identifier: str | Iterable[str] | None,
        run_types: str | Iterable[str] | None,
        statuses: str | Iterable[str] | None,
        poll_interval: float,
        aws_conn_id: str | None,
        region_name: str | None,
        verify: bool | str | None,
        botocore_config: dict[str, Any] | str | None,
    ) -> None:
        require_asset_watchers(type(self).__name__)
        try:
            super().__init__(
                _reject_template("aws_conn_id", to_connection_id(aws_conn_id)),
                _reject_template("region_name", to_text("region_name", region_name)),
                to_verify(verify),
                to_botocore_config(_parse_botocore_config(botocore_config)),
                cancel_on_kill=False,
            )
            self.domain_identifier = _require_constant("domain_identifier", domain_identifier)
            self.asset_identifier = _filter_values("asset_identifier", asset_identifier)
            self.owning_project_identifier = _filter_values(
                "owning_project_identifier", owning_project_identifier
            )
            self.run_types = _filter_values("run_types", run_types)
            self.statuses = _filter_values("statuses", statuses)
            self.poll_interval = validate_interval("poll_interval", poll_interval)
            if unknown := set(self.statuses or ()) - TERMINAL_STATUSES:
                raise NotConfiguredError(
                    f"statuses must be among {', '.join(sorted(TERMINAL_STATUSES))}, got {min(unknown)!r}."
                )
        except NotConfiguredError as error:
            raise InvalidWatcherError(str(error)) from None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        # Only scalars and lists of strings: some versions of Airflow pass other values to the trigger in
        # their encoded form (apache/airflow#51809, apache/airflow#65973).
        classpath, arguments = super().serialize()
        if self.botocore_config is not None:
            arguments["botocore_config"] = json.dumps(self.botocore_config, sort_keys=True)
        return classpath, arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        if unknown := set(self.run_types or ()).difference(RUN_TYPES):
            self.log.warning(
                "run_types has values that this version does not know: %s", ", ".join(sorted(unknown))
            )
        watch = RunWatch(self._filter, poll_interval=self.poll_interval, log=self.log)
        store = WatchStore(getattr(self, "asset_state_store", None), self._identity, self.log)
        # The first claim loads the saved runs. Until then the watch already follows others.
        watch.changed.set()
        watching = asyncio.ensure_future(
            watch_runs(self._hook_parameters, watch, domain_identifier=self.domain_identifier, log=self.log)
        )
        loop = asyncio.get_running_loop()
        # Event loop time from which a single event is sent at once.
        single_at = 0.0
        try:
            while True:
                await _wait_for_change(watch, single_at, store.retry_at)
                await asyncio.sleep(_REPORT_INTERVAL)
                for run in await store.claim(watch, may_report_single=loop.time() >= single_at):
                    single_at = loop.time() + _LAST_EVENT_DELAY
                    count_ended_run(run.status)
                    yield TriggerEvent({"run": run.to_dict()})
        finally:
            watching.cancel()

    @property
    def _filter(self) -> RunFilter:
        return RunFilter(
            self.asset_identifier or (),
            self.owning_project_identifier or (),
            self.run_types or (),
            self.statuses or (),
        )

    @property
    def _identity(self) -> list[Any]:
        """What distinguishes the watcher from others of the same asset. A change loses the saved runs."""
        return [self.aws_conn_id, self.region_name, self.domain_identifier, self._filter]


async def _wait_for_change(watch: RunWatch, single_at: float, retry_at: float) -> None:
    """
    Wait until a watch has changed, may report a run, or has to be saved again. Times are event loop times.

    :param watch: The watch.
    :param single_at: When it may report a single run.
    :param retry_at: When it has to be saved again.
    """
    reports_at = math.inf
    if watch.unreported:
        reports_at = single_at if len(watch.unreported) == 1 else 0.0
    await wait_for_event(watch.changed, min(reports_at, retry_at))
    watch.changed.clear()


def _filter_values(name: str, value: str | Iterable[str] | None) -> list[str] | None:
    """Return the sorted values of a filter, ``None`` for all. Airflow compares watchers by them."""
    if value is None:
        return None
    try:
        if isinstance(value, (bytes, bytearray, Mapping)):
            raise TypeError
        values = [value] if isinstance(value, str) else list(value)
    except TypeError:
        raise NotConfiguredError(f"{name} must be a string or a list of strings, got {value!r}.") from None
    if not values:
        raise NotConfiguredError(f"{name} must not be an empty list. Omit it to select all runs.")
    return sorted({_require_constant(name, item) for item in values})


def _parse_botocore_config(config: Any) -> Any:
    """Return the botocore configuration of a watcher, which Airflow stores as JSON."""
    try:
        return json.loads(config) if isinstance(config, str) else config
    except (ValueError, RecursionError):
        # Without the value, which may contain a proxy's password.
        raise NotConfiguredError(
            "botocore_config must be a dict or a JSON object, got a string that is not JSON."
        ) from None


def _require_constant(name: str, value: Any) -> str:
    text = _reject_template(name, to_text(name, value))
    if text is None:
        raise NotConfiguredError(f"{name} must not be blank, got {value!r}.")
    return text


def _reject_template(name: str, text: str | None) -> str | None:
    if text is not None and ("{{" in text or "{%" in text):
        raise NotConfiguredError(f"{name} of an asset watcher cannot be a template, got {text!r}.")
    return text
