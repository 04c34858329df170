"""Start the runs of a batch: each exactly once, and none after a stop or a refusal that applies to it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from airflow_provider_datazone.batch.requests import RequestKind
from airflow_provider_datazone.idempotency import RunRequest, is_replay, token_of
from airflow_provider_datazone.metadata_generation import find_active_run
from airflow_provider_datazone.polling.rate import requests_per_second
from airflow_provider_datazone.service_errors import blocks_every_asset, blocks_project, is_transient

if TYPE_CHECKING:
    from airflow_provider_datazone.batch.assets import AssetRow
    from airflow_provider_datazone.batch.progress import Progress
    from airflow_provider_datazone.batch.requests import BatchRequests
    from airflow_provider_datazone.batch.state import BatchSettings, BatchState
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
    from airflow_provider_datazone.polling.poller import RunPoller

# If the rows were saved longer ago, another process may have started runs since then. Within this time,
# client tokens alone prevent a second run.
HANDOVER_SECONDS = 60.0


def scope_of_refusal(row: AssetRow, error: BaseException) -> str | None:
    """Return to which assets a refused Start or Get applies, see :class:`RequestKind`."""
    if blocks_every_asset(error):
        return ""
    return row.owning_project_identifier if blocks_project(error) else None


START = RequestKind("the Start", "start a run", scope_of_refusal)


class RunStarter:
    """
    Start or find the runs of a batch.

    :param state: The batch; its rows and its refusals are updated in place.
    :param settings: Its settings.
    :param progress: The batch's progress.
    :param requests: The batch's requests.
    """

    def __init__(
        self, state: BatchState, settings: BatchSettings, *, progress: Progress, requests: BatchRequests
    ) -> None:
        self._state = state
        self._settings = settings
        self._progress = progress
        self._requests = requests
        # Assets for which another process may have started a run that is not in the rows.
        self._possibly_started: set[tuple[str, str | None, str]] = set()
        # Runs of an earlier try that have ended or no longer exist. List may still report them as active.
        self._ended: set[str] = set()
        self._has_gap = False

    def begin(self) -> None:
        """Determine the assets for which another process may have started a run since the rows were saved."""
        gap = time.time() - self._state.saved_at
        self._has_gap = gap > HANDOVER_SECONDS
        if self._has_gap:
            missing = [
                row.key for row in self._state.rows if row.run_identifier is None and not row.has_ended
            ]
            # The other process starts runs in the order of the rows, at the same rate.
            count = math.ceil(gap * requests_per_second("max_starts_per_second"))
            self._possibly_started = set(missing[: count + self._settings.max_concurrent_runs])

    async def start(self, poller: RunPoller, row: AssetRow) -> None:
        """Find or start the run of an asset, unless the batch starts no more runs."""
        work = self._requests.repeat(
            START,
            row,
            poller,
            lambda: self._attempt(poller, row),
            # There is an active run that List may return a little later, or the conflict is transient.
            on_conflict=lambda: self._possibly_started.add(row.key),
        )
        await self._requests.run(START, row, work)

    async def _attempt(self, poller: RunPoller, row: AssetRow) -> None:
        if row.key in self._possibly_started:
            if await self._adopt_active(poller, row):
                return
            self._possibly_started.discard(row.key)
        await self._send_start(poller, row)

    async def _send_start(self, poller: RunPoller, row: AssetRow) -> None:
        request = RunRequest(
            row.asset_identifier,
            self._settings.types,
            self._settings.domain_identifier,
            row.owning_project_identifier,
            row.asset_revision,
        )
        number = row.submission

        def record(run: MetadataGenerationRun) -> None:
            if is_replay(
                run,
                try_began_at=self._settings.try_began_at,
                submission_number=number,
                try_number=self._settings.try_number,
            ):
                row.adopted_at = time.time()
            row.is_token_used, row.run_identifier = True, run.id

        run = await poller.sender.start(
            request,
            token_of(self._settings.identity, request.fingerprint, number),
            self._requests.turn(
                START, row, is_needed=lambda: not self._state.is_left_out(row), record=record
            ),
        )
        if run is not None:
            self._progress.started += 1

    async def _adopt_active(self, poller: RunPoller, row: AssetRow) -> bool:
        """
        Adopt the active run of an asset that is not in the rows.

        It adopts no run that has ended, which may belong to another task. For the batch's own runs, Start
        returns them because of the client token.
        """
        try:
            listed = await poller.sender.list_runs_of_asset(row.asset_identifier)
        except ClientError as error:
            if is_transient(error):
                raise
            self._progress.warning(
                "Runs cannot be listed, so the batch relies on client tokens alone to find earlier runs: %s",
                error,
            )
            return False
        run = find_active_run(
            listed,
            asset_identifier=row.asset_identifier,
            types=self._settings.types,
            asset_revision=row.asset_revision,
            except_for=self._ended,
        )
        if run is not None:
            row.run_identifier, row.adopted_at = run.id, time.time()
        return run is not None

    def prepare_restart(self, row: AssetRow) -> None:
        """Reset a row whose run failed in an earlier try or no longer exists; this try starts another."""
        self._ended.add(str(row.run_identifier))
        row.reset()
        if self._has_gap:
            self._possibly_started.add(row.key)
