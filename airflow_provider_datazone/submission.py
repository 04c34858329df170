"""
Start a run once for each submission of a task, however often Airflow has to run the task for it.

A submission is what a user means by "generate this": the task's first try, a retry after a run that
failed, a clear of a task that had succeeded. A try that follows a crash, a kill, a lost worker, a time-out
or a lost answer belongs to the submission before it, and must not pay for a second run.

Two memories serve that. DataZone's own: the client token, which is the same whenever the same submission
is sent. And Airflow's task state store, from 3.3 on, where the token is written before it is sent, and the
run as soon as it is known. Before 3.3 nothing outlives a try (XComs do not, apache/airflow#71211), so a later
try asks DataZone what is at work on the asset, and then sends the tokens of its submissions once more, in
their order, until one leads to a run that has not failed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.hooks.datazone import is_access_denied, is_conflict, is_not_found
from airflow_provider_datazone.kill_guard import KillGuard
from airflow_provider_datazone.metadata_generation import judge, one_line
from airflow_provider_datazone.version_compat import task_state_store

if TYPE_CHECKING:
    import logging

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.hooks.datazone import DataZoneHook
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun

# The key in the task state store. It stays: a new name would make every task under way forget its run.
_STATE_KEY = "metadata_generation_run"
# Seconds after the adoption of a run within which the kill of the try before may still take effect on it.
CANCELED_WITH_TASK_WINDOW = 120
# Seconds between two attempts at a Start that met a conflict: the run in its way may not be listed yet.
_CONFLICT_PAUSES = (1, 2, 4, 8, 15)


class RunRequest(NamedTuple):
    """What is asked of Start, with domain and project resolved."""

    asset_identifier: str
    types: Sequence[str]
    domain_identifier: str
    owning_project_identifier: str
    asset_revision: str | None

    @property
    def fingerprint(self) -> str:
        """The same for the same request."""
        return _digest(self)


class Submitted(NamedTuple):
    """
    The run of a submission.

    :param run: As far as it is known: Start and List leave typeStats out.
    :param adopted: Whether it was started before this try, by the task itself or by somebody else.
    """

    run: MetadataGenerationRun
    adopted: bool


def client_token(context: Context, *parts: Any) -> str:
    """
    Return a client token that every try of a task instance comes to, until a user clears the task.

    :param context: The task's context.
    :param parts: What is sent, and what else tells it from what the task has sent before; JSON.
    :return: 1 to 128 printable ASCII characters, as DataZone wants them.
    """
    ti, dag_run = context["ti"], context["dag_run"]
    # A DAG run that was deleted and made anew has the same name, and so has its like in another Airflow.
    began = dag_run.start_date and dag_run.start_date.isoformat()
    # A clear changes max_tries, or the start of the DAG run if that had ended; a retry changes neither.
    # The DAG run's clear_number would lose a run: Airflow 3.2 raises it when another task is cleared, too.
    return token_of(ti.dag_id, ti.run_id, ti.task_id, ti.map_index, began, ti.max_tries, parts)


def success_record(context: Context) -> dict[str, Any]:
    """
    Return what a task stores when it succeeds, so that a later try can tell whether the task was cleared.

    ``succeeded``, the ``max_tries``, is all that earlier versions wrote. To be read with :func:`was_cleared`.
    """
    ti = context["ti"]
    return {
        "succeeded": ti.max_tries,
        "succeeded_in_try": ti.try_number,
        "succeeded_at_clear": _clear_number(context),
    }


def was_cleared(record: Mapping[str, Any], context: Context) -> bool:
    """
    Return whether a task that had succeeded was cleared since, to be done again.

    Without a clear it runs again where it was killed after it had stored its success, and before Airflow had.
    A clear sets ``max_tries`` to ``try_number + retries``. That may be the same number as before, if
    ``retries`` was lowered; then the DAG run's ``clear_number`` tells, which Airflow 3.2 and later raise with
    every clear. But they raise it when another task of the DAG run is cleared, too. So both have to fit.

    :param record: What :func:`success_record` returned, or an earlier version's record.
    :param context: The context of the later try.
    """
    if "succeeded" not in record:
        return False
    max_tries = context["ti"].max_tries
    if record["succeeded"] != max_tries:
        return True
    succeeded_in_try, at_clear = record.get("succeeded_in_try"), record.get("succeeded_at_clear")
    if type(succeeded_in_try) is not int or at_clear in (None, _clear_number(context)):
        return False
    task = context.get("task")
    retries = max_tries - succeeded_in_try if task is None else task.retries
    return bool(max_tries == succeeded_in_try + retries)


def _clear_number(context: Context) -> int:
    return getattr(context["dag_run"], "clear_number", None) or 0


def was_canceled_with_previous_try(
    *, adopted_at: float | None, seen_active: bool, now: float, poll_interval: float
) -> bool:
    """
    Return whether the kill of the try before canceled an adopted run, and no person did.

    A try that is killed cancels its run, and DataZone may still show it as active when the next try adopts
    it. A person may cancel it at any time later, and then the task must not start it again.

    :param adopted_at: Unix time in seconds at which this try adopted the run; ``None`` where it is not known,
        since an earlier version deferred the task.
    :param seen_active: Whether the run was read as active since the adoption.
    :param now: Unix time in seconds at which it was found to be ``CANCELED``.
    :param poll_interval: Seconds between two reads.
    """
    if adopted_at is None or not seen_active:
        return True
    return now - adopted_at <= CANCELED_WITH_TASK_WINDOW + poll_interval


def is_replay(
    run: MetadataGenerationRun, *, try_began_at: float, submission_number: int, try_number: int
) -> bool:
    """
    Return whether Start answered with the run of an earlier try: DataZone knew the client token.

    :param run: The answer.
    :param try_began_at: Unix time in seconds at which this try began.
    :param submission_number: Which of the task's submissions the token belongs to, from 1 on.
    :param try_number: Which try this is, from 1 on.
    """
    if submission_number >= try_number:
        # There was at most one submission a try: this is the first one of this try.
        return False
    if run.is_terminal or run.created_at is None:
        return True
    return run.created_at.timestamp() < try_began_at


def token_of(*parts: Any) -> str:
    """Return a client token made of what it stands for; JSON."""
    return f"airflow-{_digest(parts)}"


class Submission:
    """
    One submission of a task that starts a run.

    :param context: The task's context.
    :param hook: The task's hook.
    :param request: What to start.
    :param token: The client token that the user has chosen; by default one that belongs to the submission.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success: if not, a retry submits anew.
    :param log: The task's log.
    :param guard: Stops the submission when the task is killed.
    :param on_run: Called with the run that a kill is to cancel, as soon as it is known, and with ``None``
        where it turns out not to be the one that the task waits for. A thread may call it.
    :param try_began_at: Unix time in seconds at which this try began. Default: now.
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
        self._may_list = True

    def submit(self) -> Submitted:
        """
        Return the submission's run: the one that is there, else a new one.

        :raises botocore.exceptions.ClientError: DataZone refused.
        :raises TaskKilled: Airflow told the task to stop.
        """
        self._guard.check()
        record = self._recall()
        number, token = record.get("number", 1), record.get("token")
        if "run" in record:
            self._on_run(record["run"])
            run = self._read(record["run"])
            if run is not None and self._serves(run, record):
                return Submitted(run, adopted=True)
            number, token = number + 1, None
        elif self._try_number > 1:
            active = self._find_active()
            if active is not None:
                return self._adopt(active, number)
        if self._token is not None:
            return self._start(number, self._token)
        while True:
            # Without a store, any of this task's tokens may have been sent before.
            is_first_time = self._store is not None and token is None
            submitted = self._start(number, token)
            run = submitted.run
            if (
                submitted.adopted
                or is_first_time
                or not is_replay(
                    run,
                    try_began_at=self._try_began_at,
                    submission_number=number,
                    try_number=self._try_number,
                )
            ):
                return submitted
            # The answer to Start does not say how a run ended.
            found = self._read(run.id)
            if found is not None and self._serves(found):
                return Submitted(found, adopted=True)
            number, token = number + 1, None

    def _start(self, number: int, token: str | None) -> Submitted:
        if token is None:
            token = client_token(self._context, self._request.fingerprint, number)
        self._guard.check()
        self._remember(number=number, token=token)
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
                self._log.info("Looking again for the run in the way in %s s: %s", pause, error)
            self._guard.sleep(pause, time.sleep)
        self._log.info(
            "Metadata generation run %s for asset %s is %s.",
            run.id,
            one_line(self._request.asset_identifier),
            run.status,
        )
        self._remember(number=number, token=token, run=run.id)
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
            "Going on with metadata generation run %s%s, which is %s; no other is started.",
            run.id,
            "" if run.created_at is None else f", started at {run.created_at}",
            run.status,
        )
        self._remember(number=number, run=run.id)
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
            self._log.warning("The run that was started before is gone: %s", error)
            self._on_run(None)
            return None

    def _serves(self, run: MetadataGenerationRun, record: Mapping[str, Any] | None = None) -> bool:
        """
        Whether a run from before is what the user is waiting for.

        :param record: What the task has stored about it.
        """
        self._guard.check()
        if not run.is_terminal:
            self._log.info("Going on with metadata generation run %s, which is %s.", run.id, run.status)
            return True
        self._on_run(None)
        verdict = judge(run, allow_partial_success=self._allow_partial_success)
        if not verdict.succeeded:
            self._log.info("%s. Submitting anew.", verdict.message)
            return False
        if record and was_cleared(record, self._context):
            self._log.info("%s, and so did the task, which was cleared. Submitting anew.", verdict.message)
            return False
        self._log.info("%s; no other is started.", verdict.message)
        return True

    # ------------------------------------------------------ task state store

    def _recall(self) -> dict[str, Any]:
        stored = self._store.get(_STATE_KEY) if self._store is not None else None
        record = stored if isinstance(stored, dict) else {}
        if not isinstance(record.get("number", 1), int) or not isinstance(record.get("run", ""), str):
            # Somebody has changed it, or it is of another version.
            return {}
        if record and record.get("request") != self._request.fingerprint:
            # The task asks for something else by now, and has a submission of its own.
            return {"number": record.get("number", 0) + 1}
        return record

    def _remember(self, **record: Any) -> None:
        if self._store is not None:
            self._store.set(_STATE_KEY, {"request": self._request.fingerprint, **record})


def note_success(context: Context) -> None:
    """Take note that a task which has submitted a run succeeds: if it runs again, it was cleared."""
    store = task_state_store(context)
    if store is not None and (record := store.get(_STATE_KEY)):
        store.set(_STATE_KEY, record | success_record(context))


def _digest(parts: Any) -> str:
    try:
        text = json.dumps(parts)
    except (TypeError, ValueError, RecursionError) as error:
        # What has no JSON has no text that is the same in every try: its `repr` may hold a memory address.
        raise NotConfiguredError(f"A request can only be made of JSON: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()
