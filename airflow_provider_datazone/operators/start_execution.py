"""Start a run and wait for it: the execution of ``DataZoneStartMetadataGenerationRunOperator``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_datazone.cancellation import cancel_runs
from airflow_provider_datazone.deferral import defer_until_run_ends, run_of_event
from airflow_provider_datazone.exceptions import InvalidInputError
from airflow_provider_datazone.idempotency import RunRequest, was_canceled_with_previous_try
from airflow_provider_datazone.inputs import require_text, validate_interval, validate_types
from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.operators.base import Execution, StartOperatorBase
from airflow_provider_datazone.service_errors import is_transient
from airflow_provider_datazone.submission import Submission, save_success
from airflow_provider_datazone.task_outcome import XCOM_RUN, push_run, require_success

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun


class _Adoption(NamedTuple):
    """
    When a try adopted a run that it did not start.

    :param at: Unix time in seconds; ``None`` if an earlier version did not record it.
    :param seen_active: Whether the run was active in a poll since then.
    """

    at: float | None
    seen_active: bool = False


class StartExecution(Execution[StartOperatorBase]):
    """
    One execution of the operator.

    :param operator: The operator.
    :param context: The task's context.
    """

    def __init__(self, operator: StartOperatorBase, context: Context) -> None:
        super().__init__(operator, context)
        self._try_began_at = time.time()
        self._ended_runs: set[str] = set()
        # Plain attributes, since `on_kill` uses them in a signal handler.
        self._run_identifier: str | None = None
        self._canceled_run: str | None = None

    def submit_and_wait(self) -> str:
        """
        Start or resume the run, wait for it, and return its identifier.

        :raises TaskDeferred: A trigger waits for the run.
        """
        operator, started_at = self.operator, time.time()
        # Before a run is started that the task could not wait for.
        validate_interval("poll_interval", operator.poll_interval)
        request = RunRequest(
            asset_identifier=require_text("asset_identifier", operator.asset_identifier),
            # Sorted, since the order of a set differs between processes.
            types=sorted(validate_types(operator.types)),
            domain_identifier=self.hook.resolve_domain_identifier(operator.domain_identifier),
            owning_project_identifier=self.hook.resolve_owning_project_identifier(
                operator.owning_project_identifier
            ),
            asset_revision=operator.asset_revision,
        )
        self._run_domain = request.domain_identifier
        submission = Submission(
            self.context,
            self.hook,
            request,
            token=operator.client_token,
            allow_partial_success=operator.allow_partial_success,
            log=self.log,
            guard=self.guard,
            on_run=self._set_run,
            try_began_at=self._try_began_at,
            ended_runs=self._ended_runs,
        )
        run, was_adopted = submission.submit()
        adoption = _Adoption(time.time()) if was_adopted else None
        self._require_own_asset(run)
        push_run(operator, self.context, run, type_stats=False)
        if not operator.wait_for_completion:
            self.guard.check()
            save_success(self.context)
            return run.id
        return self._wait(run, adoption, started_at)

    def _wait(self, run: MetadataGenerationRun, adoption: _Adoption | None, started_at: float) -> str:
        operator = self.operator
        run = self._read(run)
        self.guard.check()
        if not run.is_terminal and operator.deferrable:
            defer_until_run_ends(
                operator,
                self.context,
                started_at=started_at,
                # Airflow 3 does not apply it while a task is deferred (apache/airflow#69678).
                timeout=self._execution_timeout,
                kwargs={
                    # Earlier versions only check whether it is true.
                    "adopted": False if adoption is None else adoption.at,
                    "run_identifier": run.id,
                },
                run_identifier=run.id,
                domain_identifier=run.domain_id,
                poll_interval=operator.poll_interval,
                cancel_on_kill=operator.cancel_on_kill,
            )
        while not run.is_terminal:
            if adoption is not None:
                adoption = adoption._replace(seen_active=True)
            self.guard.sleep(operator.poll_interval, time.sleep)
            run = self.hook.poll_metadata_generation_run(run.id, domain_identifier=run.domain_id) or run
        return self._conclude(run, adoption)

    def _require_own_asset(self, run: MetadataGenerationRun) -> None:
        """Reject the run of another asset, which Start returns if a user reuses a client token."""
        operator = self.operator
        if operator.client_token is None:
            return
        if run.asset_id is None:
            # Start returns no target.
            run = self._read(run)
        if run.asset_id not in (None, operator.asset_identifier):
            self._run_identifier = None
            raise InvalidInputError(
                f"client_token was used for asset {sanitize(str(run.asset_id))} before, in run {run.id}, "
                f"so no run is started for asset {sanitize(operator.asset_identifier)}. Pass a token for "
                "each asset, or none."
            )

    def _set_run(self, run_identifier: str | None) -> None:
        self._run_identifier = run_identifier

    def _read(self, run: MetadataGenerationRun) -> MetadataGenerationRun:
        """Read a run that Get may not find yet, so that a trigger does not fail for it."""
        try:
            return self.hook.get_started_metadata_generation_run(run.id, domain_identifier=run.domain_id)
        except Exception as error:
            if not is_transient(error):
                raise
            self.log.warning("Could not read the run just now, will try again: %s", error)
            return run

    def _conclude(
        self, run: MetadataGenerationRun, adoption: _Adoption | None, read_at: float | None = None
    ) -> str:
        """
        Push the XComs of a run that has ended, and return its identifier.

        :param adoption: When this try adopted the run; ``None`` if it started the run.
        :param read_at: Unix time in seconds when the run was read. Default: now.
        """
        operator = self.operator
        # The run has ended, so a kill no longer cancels it.
        self._run_identifier = None
        push_run(operator, self.context, run)
        # A killed task ends here. If its run is canceled, the kill did that, and a retry starts a new one. If
        # the run succeeded, a retry uses it.
        self.guard.check()
        if (
            adoption is not None
            and self.context["ti"].try_number > 1
            and run.status == "CANCELED"
            and was_canceled_with_previous_try(
                adopted_at=adoption.at,
                seen_active=adoption.seen_active,
                now=time.time() if read_at is None else read_at,
                poll_interval=operator.poll_interval,
            )
        ):
            self.log.info(
                "Metadata generation run %s was canceled when the previous try was killed. "
                "Starting a new run.",
                run.id,
            )
            self._ended_runs.add(run.id)
            return self.submit_and_wait()
        require_success(
            run,
            allow_partial_success=operator.allow_partial_success,
            log=self.log,
            retry_starts_new_run=True,
        )
        save_success(self.context)
        return run.id

    def complete(
        self, event: dict[str, Any] | None, adopted: bool | float = False, run_identifier: str | None = None
    ) -> str:
        """
        Conclude with the trigger's event.

        :param event: The event.
        :param adopted: Unix time in seconds when the run was adopted, ``False`` if it was not. An earlier
            version passes ``True``.
        :param run_identifier: The run; an earlier version omits it.
        """
        try:
            run = run_of_event(event, f"the run for asset {self.operator.asset_identifier!r}")
        except TimeoutError as error:
            message = str(error)
        else:
            # The trigger has polled the run many times.
            adoption = None
            if adopted is not False:
                adoption = _Adoption(None if adopted is True else adopted, seen_active=True)
            # The worker may resume long after the trigger has read the run.
            read_at = event.get("read_at") if isinstance(event, dict) else None
            return self._conclude(run, adoption, read_at if isinstance(read_at, (int, float)) else None)
        # Outside of the handler, so that a traceback does not show the same text twice.
        return self.poll_once_more(message, run_identifier)

    def poll_once_more(self, message: str, run_identifier: str | None = None) -> str:
        """
        Poll the run before timing out, since no triggerer may have polled it recently.

        :param message: The message of the time-out.
        :param run_identifier: The run; by default the one in XCom.
        :raises AirflowTaskTimeout: The run has not ended.
        """
        ti, domain_identifier = self.context["ti"], self.operator.domain_identifier
        if run_identifier is None:
            # Airflow ended the deferral, and the arguments for `execute_complete` are lost. XCom has the run,
            # except with do_xcom_push=False; then the next try resumes it.
            started = ti.xcom_pull(task_ids=ti.task_id, key=XCOM_RUN, map_indexes=ti.map_index)
            if not isinstance(started, dict) or not started.keys() >= {"id", "domainId"}:
                raise AirflowTaskTimeout(message)
            run_identifier, domain_identifier = started["id"], started["domainId"]
        self._run_identifier, self._run_domain = run_identifier, domain_identifier
        self.guard.watch(self.hook)
        run = self.hook.poll_metadata_generation_run(run_identifier, domain_identifier=domain_identifier)
        self.guard.check()
        if run is None or not run.is_terminal:
            raise AirflowTaskTimeout(message)
        return self._conclude(run, None)

    def cancel_runs(self) -> None:
        operator = self.operator
        if not (operator.cancel_on_kill and operator.wait_for_completion and self._may_cancel):
            return
        self.guard.wait_for_response()
        run_identifier = self._run_identifier
        if run_identifier is not None and run_identifier != self._canceled_run:
            self._canceled_run = run_identifier
            cancel_runs(self._cancel_run, lambda: [run_identifier], log=self.log)
