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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.hooks.datazone import is_conflict, is_not_found
from airflow_provider_datazone.metadata_generation import judge, one_line
from airflow_provider_datazone.version_compat import task_state_store

if TYPE_CHECKING:
    import logging

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.hooks.datazone import DataZoneHook
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun

# The key in the task state store. It stays: a new name would make every task under way forget its run.
_STATE_KEY = "metadata_generation_run"


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
    # Each clear adds to max_tries, a retry does not: Airflow tells the two apart by it as well.
    return token_of(ti.dag_id, ti.run_id, ti.task_id, ti.map_index, began, ti.max_tries, parts)


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
    ) -> None:
        self._context = context
        self._hook = hook
        self._request = request
        self._token = token
        self._allow_partial_success = allow_partial_success
        self._log = log
        self._store = task_state_store(context)
        self._is_retry = context["ti"].try_number > 1

    def submit(self) -> Submitted:
        """
        Return the submission's run: the one that is there, else a new one.

        :raises botocore.exceptions.ClientError: DataZone refused.
        """
        record = self._recall()
        number = record.get("number", 1)
        if "run" in record:
            run = self._read(record["run"])
            if run is not None and self._serves(run, succeeded=record.get("succeeded")):
                return Submitted(run, adopted=True)
            record, number = {}, number + 1
        elif self._is_retry:
            active = self._find_active()
            if active is not None:
                return self._adopt(active, number)
        if self._store is not None or self._token is not None:
            return self._start(number, record.get("token"))
        # How many submissions there were is not known, but there was at most one a try.
        for number in range(1, self._context["ti"].try_number):
            submitted = self._start(number)
            run = self._read(submitted.run.id)
            if submitted.adopted or (run is not None and self._serves(run)):
                return submitted
        return self._start(self._context["ti"].try_number)

    def _start(self, number: int, token: str | None = None) -> Submitted:
        if self._token is not None:
            token = self._token
        token = client_token(self._context, self._request.fingerprint, number) if token is None else token
        self._remember(number=number, token=token)
        try:
            run = self._hook.start_metadata_generation_run(
                self._request.asset_identifier,
                types=self._request.types,
                owning_project_identifier=self._request.owning_project_identifier,
                asset_revision=self._request.asset_revision,
                client_token=token,
                domain_identifier=self._request.domain_identifier,
            )
        except Exception as error:
            active = self._find_active() if is_conflict(error) else None
            if active is None:
                raise
            self._log.info("DataZone did not start another run: %s", error)
            return self._adopt(active, number)
        self._log.info(
            "Metadata generation run %s for asset %s is %s.",
            run.id,
            one_line(self._request.asset_identifier),
            run.status,
        )
        self._remember(number=number, token=token, run=run.id)
        return Submitted(run, adopted=False)

    def _find_active(self) -> MetadataGenerationRun | None:
        return self._hook.find_active_metadata_generation_run(
            self._request.asset_identifier,
            types=self._request.types,
            asset_revision=self._request.asset_revision,
            domain_identifier=self._request.domain_identifier,
        )

    def _adopt(self, run: MetadataGenerationRun, number: int) -> Submitted:
        self._log.info(
            "Going on with metadata generation run %s, started at %s and now %s; no other is started.",
            run.id,
            run.created_at,
            run.status,
        )
        self._remember(number=number, run=run.id)
        return Submitted(run, adopted=True)

    def _read(self, run_identifier: str) -> MetadataGenerationRun | None:
        try:
            return self._hook.get_started_metadata_generation_run(
                run_identifier, domain_identifier=self._request.domain_identifier
            )
        except Exception as error:
            if not is_not_found(error):
                raise
            self._log.warning("The run that was started before is gone: %s", error)
            return None

    def _serves(self, run: MetadataGenerationRun, succeeded: int | None = None) -> bool:
        """
        Whether a run from before is what the user is waiting for.

        :param succeeded: The ``max_tries`` with which the task succeeded by this run, if it did.
        """
        if not run.is_terminal:
            self._log.info("Going on with metadata generation run %s, which is %s.", run.id, run.status)
            return True
        verdict = judge(run, allow_partial_success=self._allow_partial_success)
        if not verdict.succeeded:
            self._log.info("%s. Submitting anew.", verdict.message)
            return False
        if succeeded not in (None, self._context["ti"].max_tries):
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
        store.set(_STATE_KEY, record | {"succeeded": context["ti"].max_tries})


def _digest(parts: Any) -> str:
    try:
        text = json.dumps(parts)
    except (TypeError, ValueError, RecursionError) as error:
        # What has no JSON has no text that is the same in every try: its `repr` may hold a memory address.
        raise NotConfiguredError(f"A request can only be made of JSON: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()
