"""
Start a run exactly once per submission, however often Airflow runs the task.

A try that follows a crash, a kill, a lost worker, a time-out or a lost response belongs to the previous try's
submission and must not pay for a second run. Two records make that possible. DataZone keeps the client token,
which every try of a submission sends. Airflow's task state store, from 3.3 on, keeps the token before it is
sent, and the run as soon as it is known. Before 3.3 nothing survives a try (XComs do not,
apache/airflow#71211). There a later try lists the active runs of the asset, and then sends the tokens of its
submissions again, in order, until one returns a run that has not failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_datazone.idempotency import (
    RunRequest,
    client_token,
    is_replay,
    success_record,
    was_cleared,
)
from airflow_provider_datazone.kill_guard import KillGuard
from airflow_provider_datazone.metadata_generation import judge, sanitize
from airflow_provider_datazone.service_errors import is_access_denied, is_conflict, is_not_found
from airflow_provider_datazone.version_compat import task_state_store

if TYPE_CHECKING:
    import logging

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.hooks.datazone import DataZoneHook
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun

# The key in the task state store. With another key, running tasks would lose their run in an upgrade.
_STATE_KEY = "metadata_generation_run"
# Seconds between attempts of a Start after a conflict: the conflicting run may not be listed yet.
_CONFLICT_PAUSES = (1, 2, 4, 8, 15)


class Submitted(NamedTuple):
    """
    The run of a submission.

    :param run: The run, possibly without typeStats, which Start and List omit.
    :param adopted: Whether it was started before this try, by this task or by another client.
    """

    run: MetadataGenerationRun
    adopted: bool


class Submission:
    """
    The submission that a try of a task belongs to.

    :param context: The task's context.
    :param hook: The task's hook.
    :param request: The Start request.
    :param token: The user's client token; by default one that is computed for the submission.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success; if not, a retry starts a new
        run.
    :param log: The task's log.
    :param guard: Stops the submission when the task is killed.
    :param on_run: Called with the identifier of the run that a kill has to cancel, as soon as it is known,
        and with ``None`` if the task does not wait for that run after all. Another thread may call it.
    :param try_began_at: Unix time in seconds when this try began. Default: now.
    :param ended_runs: Runs that have ended, as this try knows. List may still report them as active.
    """

    def __init__(
        self,
        context: Context,
        hook: DataZoneHook,
        request: RunRequest,
        *,
        token: str | None,
        allow_partial_success: bool,
        log: logging.Logger,
        guard: KillGuard | None = None,
        on_run: Callable[[str | None], None] = lambda _: None,
        try_began_at: float | None = None,
        ended_runs: Iterable[str] = (),
    ) -> None:
        self._context = context
        self._hook = hook
        self._request = request
        self._token = token
        self._allow_partial_success = allow_partial_success
        self._log = log
        self._guard = KillGuard(lambda: False) if guard is None else guard
        self._on_run = on_run
        self._try_began_at = time.time() if try_began_at is None else try_began_at
        self._store = task_state_store(context)
        self._try_number = context["ti"].try_number
        self._ended_runs = set(ended_runs)
        self._may_list = True

    def submit(self) -> Submitted:
        """
        Return the submission's run: the existing one, or a new one.

        :raises botocore.exceptions.ClientError: DataZone refuses.
        :raises TaskKilled: Airflow killed the task.
        """
        self._guard.check()
        record = self._load()
        number, token = record.get("number", 1), record.get("token")
        if "run" in record:
            self._on_run(record["run"])
            run = self._read(record["run"])
            if run is not None and run.asset_id not in (None, self._request.asset_identifier):
                # A user's client token returned the run of another asset, and that try failed.
                self._on_run(None)
            elif run is not None and self._is_usable(run, record):
                return Submitted(run, adopted=True)
            # The record of an adopted run has no token. An earlier try may have sent that of this submission
            # and lost the response, so it has to be sent again.
            if token is not None:
                number, token = number + 1, None
        elif self._try_number > 1:
            active = self._find_active()
            if active is not None:
                return self._adopt(active, number)
        if self._token is not None:
            return self._start(number, self._token)
        while True:
            submitted = self._start(number, token)
            run = submitted.run
            if submitted.adopted or not is_replay(
                run,
                try_began_at=self._try_began_at,
                submission_number=number,
                try_number=self._try_number,
            ):
                return submitted
            # Start does not return the final status of the run.
            found = self._read(run.id)
            if found is not None and self._is_usable(found):
                return Submitted(found, adopted=True)
            number, token = number + 1, None

    def _start(self, number: int, token: str | None) -> Submitted:
        if token is None:
            token = client_token(self._context, self._request.fingerprint, number)
        self._guard.check()
        self._save(number=number, token=token)
        self._guard.watch(self._hook)
        for pause in (*_CONFLICT_PAUSES, None):
            try:
                run = self._guard.start(lambda: self._send(token))
                break
            except Exception as error:
                if not is_conflict(error):
                    raise
                active = self._find_active()
                if active is not None:
                    self._log.info("DataZone did not start another run: %s", error)
                    return self._adopt(active, number)
                if pause is None:
                    raise
                self._log.info("Looking for the conflicting run again in %s s: %s", pause, error)
            self._guard.sleep(pause, time.sleep)
        self._log.info(
            "Metadata generation run %s for asset %s is %s.",
            run.id,
            sanitize(self._request.asset_identifier),
            run.status,
        )
        self._save(number=number, token=token, run=run.id)
        self._guard.check()
        return Submitted(run, adopted=False)

    def _send(self, token: str) -> MetadataGenerationRun:
        run = self._hook.start_metadata_generation_run(
            self._request.asset_identifier,
            types=self._request.types,
            owning_project_identifier=self._request.owning_project_identifier,
            asset_revision=self._request.asset_revision,
            client_token=token,
            domain_identifier=self._request.domain_identifier,
        )
        self._on_run(run.id)
        return run

    def _find_active(self) -> MetadataGenerationRun | None:
        if not self._may_list:
            return None
        self._guard.watch(self._hook)
        try:
            return self._hook.find_active_metadata_generation_run(
                self._request.asset_identifier,
                types=self._request.types,
                asset_revision=self._request.asset_revision,
                except_for=self._ended_runs,
                domain_identifier=self._request.domain_identifier,
            )
        except Exception as error:
            if not is_access_denied(error):
                raise
            self._may_list = False
            self._log.warning(
                "Without permission for datazone:ListMetadataGenerationRuns the task relies on its client "
                "tokens alone to find the run of an earlier try: %s",
                error,
            )
            return None

    def _adopt(self, run: MetadataGenerationRun, number: int) -> Submitted:
        self._on_run(run.id)
        self._log.info(
            "Resuming metadata generation run %s%s, which is %s; no new run is started.",
            run.id,
            "" if run.created_at is None else f", started at {run.created_at}",
            run.status,
        )
        self._save(number=number, run=run.id)
        self._guard.check()
        return Submitted(run, adopted=True)

    def _read(self, run_identifier: str) -> MetadataGenerationRun | None:
        self._guard.watch(self._hook)
        try:
            return self._hook.get_started_metadata_generation_run(
                run_identifier, domain_identifier=self._request.domain_identifier
            )
        except Exception as error:
            if not is_not_found(error):
                raise
            self._log.warning("The run of an earlier try no longer exists: %s", error)
            self._ended_runs.add(run_identifier)
            self._on_run(None)
            return None

    def _is_usable(self, run: MetadataGenerationRun, record: Mapping[str, Any] | None = None) -> bool:
        """
        Whether an earlier run is the result of this submission, so that no new run is needed.

        :param record: The task's record of the run.
        """
        self._guard.check()
        if not run.is_terminal:
            self._log.info("Resuming metadata generation run %s, which is %s.", run.id, run.status)
            return True
        self._ended_runs.add(run.id)
        self._on_run(None)
        verdict = judge(run, allow_partial_success=self._allow_partial_success)
        if not verdict.succeeded:
            self._log.info("%s. Starting a new run.", verdict.message)
            return False
        if record and was_cleared(record, self._context):
            self._log.info("%s, and the task succeeded and was cleared. Starting a new run.", verdict.message)
            return False
        self._log.info("%s; no new run is started.", verdict.message)
        return True

    # ------------------------------------------------------ task state store

    def _load(self) -> dict[str, Any]:
        stored = self._store.get(_STATE_KEY) if self._store is not None else None
        record = stored if isinstance(stored, dict) else {}
        if not isinstance(record.get("number", 1), int) or not isinstance(record.get("run", ""), str):
            # A user has changed it, or another version has written it.
            return {}
        if record and not self._request.has_fingerprint(record.get("request")):
            # The task's request has changed since then, so it is a new submission.
            return {"number": record.get("number", 0) + 1}
        return record

    def _save(self, **record: Any) -> None:
        if self._store is not None:
            self._store.set(_STATE_KEY, {"request": self._request.fingerprint, **record})


def save_success(context: Context) -> None:
    """Record that a task which submitted a run succeeds, so that a later try recognizes a clear."""
    store = task_state_store(context)
    if store is not None and (record := store.get(_STATE_KEY)):
        store.set(_STATE_KEY, record | success_record(context))
