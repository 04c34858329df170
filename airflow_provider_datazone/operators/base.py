"""The base classes of the operators, and how an execution ends when Airflow kills the task."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.idempotency import client_token
from airflow_provider_datazone.inputs import PlainInputs, to_number, to_plain, to_text
from airflow_provider_datazone.kill_guard import KillGuard
from airflow_provider_datazone.links.datazone import DataZoneDomainLink
from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.predictions import values_to_mask
from airflow_provider_datazone.task_outcome import (
    XCOM_RESULTS,
    XCOM_TYPE_STATS,
    fail_without_retry,
    on_failure,
    push_if_missing,
    push_if_missing_on_time_out,
)
from airflow_provider_datazone.version_compat import mask_secret

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.inputs import TemplatedChoices, TemplatedText


class DataZoneOperator(PlainInputs, AwsBaseOperator[DataZoneHook]):
    """The base of all operators."""

    aws_hook_class = DataZoneHook
    operator_extra_links = (DataZoneDomainLink(),)
    hook: DataZoneHook
    domain_identifier: Any
    client_token: Any

    def _prepare(self, context: Context) -> None:
        """Validate the arguments, and store the link to the domain."""
        self._resolve_inputs()
        DataZoneDomainLink.persist_for(self, context, self.domain_identifier)

    def _token(self, context: Context, *request: Any) -> str:
        """Return the user's client token, or the one of every try, so that a retry repeats no change."""
        token: str | None = self.client_token
        return client_token(context, type(self).__name__, *request) if token is None else token


class DecideOnPredictionsOperator(DataZoneOperator):
    """The arguments and the execution that accepting and rejecting predictions share."""

    template_fields: Sequence[str] = aws_template_fields(
        "asset_identifier", "domain_identifier", "revision", "choices", "client_token"
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"choices": "json"}

    def __init__(
        self,
        *,
        asset_identifier: TemplatedText,
        domain_identifier: TemplatedText | None = None,
        revision: TemplatedText | None = None,
        rule: str | None = None,
        threshold: float | None = None,
        choices: TemplatedChoices | None = None,
        client_token: TemplatedText | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.asset_identifier = asset_identifier
        self.domain_identifier = domain_identifier
        self.revision = revision
        self.rule = rule
        self.threshold = threshold
        self.choices = choices
        self.client_token = client_token

    def _do_render_template_fields(self, *args: Any, **kwargs: Any) -> None:
        super()._do_render_template_fields(*args, **kwargs)
        # Airflow shows rendered fields, so a lazy sequence is read and edited values are masked here. Invalid
        # choices are rejected later, since an error here would be a rendering error.
        with suppress(NotConfiguredError):
            self.choices = to_plain("choices", self.choices)
        for value in values_to_mask(self.choices):
            mask_secret(value)

    def _decide(self, *args: Any, **kwargs: Any) -> str:
        """Call the hook's method."""
        raise NotImplementedError

    def execute(self, context: Context) -> str:
        with fail_without_retry():
            self._prepare(context)
            decision = {
                "revision": self.revision,
                "rule": to_text("rule", self.rule),
                "threshold": to_number("threshold", self.threshold),
                "choices": self.choices,
            }
            revision = self._decide(
                self.asset_identifier,
                domain_identifier=self.domain_identifier,
                client_token=self._token(context, self.asset_identifier, self.domain_identifier, decision),
                **decision,
            )
        self.log.info("Asset %s is at revision %s.", sanitize(str(self.asset_identifier)), revision)
        return revision


OperatorT = TypeVar("OperatorT", bound="KillableOperator")
ExecutionT = TypeVar("ExecutionT", bound="Execution[Any]")


class KillableOperator(DataZoneOperator):
    """The base of the operators that start runs."""

    cancel_on_kill: bool
    # The XCom that reports read after a failure: a list.
    _report_key: ClassVar[str]
    # Plain attributes, since `on_kill` uses them in a signal handler.
    _is_killed = False
    _execution: Any = None

    @contextmanager
    def _executing(self, kind: type[ExecutionT], context: Context) -> Iterator[ExecutionT]:
        """
        Execute the operator. The execution ends when Airflow kills the task.

        :param kind: The class of the execution.
        :param context: The task's context.
        """
        execution = self._execution
        if execution is not None and execution.is_active:
            # `resume_execution` calls `execute_complete`, or `execute` for a retry that Airflow resumes.
            yield execution
            return
        # It stays when it has ended: a task that has failed may still be killed, and leaves no run behind.
        execution = self._execution = kind(self, context)
        with on_failure(execution.push_report, self.log), execution.stops_on_kill():
            yield execution

    def on_kill(self) -> None:
        # First, since the interrupted code may continue, in this thread or another.
        self._is_killed = True
        execution = self._execution
        if execution is not None:
            execution.on_kill()
        else:
            push_if_missing_on_time_out(self, self._report_key)


class StartOperatorBase(KillableOperator):
    """The arguments that an execution reads; the operator documents them."""

    _report_key = XCOM_TYPE_STATS
    asset_identifier: Any
    types: Any
    owning_project_identifier: Any
    asset_revision: Any
    client_token: Any
    wait_for_completion: bool
    poll_interval: float
    allow_partial_success: bool
    deferrable: bool


class BatchOperatorBase(KillableOperator):
    """The arguments that an execution reads; the operator documents them."""

    _report_key = XCOM_RESULTS
    asset_identifiers: Any
    types: Any
    owning_project_identifier: Any
    max_concurrent_runs: int
    poll_interval: float
    allow_partial_success: bool
    accept_threshold: float | None
    publish: bool
    max_failures: float
    deferrable: bool


class Execution(Generic[OperatorT]):
    """
    One execution of an operator that starts runs.

    :param operator: The operator.
    :param context: The task's context.
    """

    # One client, built once, for all threads that cancel runs.
    _client_lock = threading.Lock()

    def __init__(self, operator: OperatorT, context: Context) -> None:
        self.operator = operator
        self.context = context
        self.log = operator.log
        self.guard = KillGuard(lambda: operator._is_killed)
        self.is_active = False
        # Whether a kill still cancels the runs, and in which domain they are: plain attributes, as above.
        self._may_cancel = True
        self._run_domain: str | None = None

    @property
    def hook(self) -> DataZoneHook:
        """The operator's hook."""
        return self.operator.hook

    @property
    def _execution_timeout(self) -> float | None:
        """The operator's ``execution_timeout`` in seconds, ``None`` for no limit."""
        timeout = self.operator.execution_timeout
        return None if timeout is None else timeout.total_seconds()

    @property
    def is_killed(self) -> bool:
        """Whether Airflow has killed the task."""
        return self.operator._is_killed

    @contextmanager
    def stops_on_kill(self) -> Iterator[None]:
        """
        Cancel the runs if the task is killed in this block, but not if it times out or defers.

        :raises TaskKilled: Airflow killed the task.
        """
        self.is_active = True
        try:
            self.guard.check()
            yield
        except AirflowTaskTimeout:
            # Airflow calls `on_kill` next, but no user ended the task.
            self._may_cancel = False
            raise
        except TaskDeferred:
            # From now on the trigger cancels the runs. `_may_cancel` is cleared before `is_killed` is read: a
            # kill in between does nothing in `on_kill`, and is handled here.
            self._may_cancel = False
            if self.is_killed:
                self._may_cancel = True
                self.cancel_runs()
                self.guard.check()
            raise
        except BaseException:
            if self.is_killed:
                self.cancel_runs()
            raise
        finally:
            self.is_active = False
            self.guard.stop()

    def push_report(self) -> None:
        """Push the XCom that reports read, since the task has failed."""
        push_if_missing(self.operator, self.context, self.operator._report_key)

    def on_kill(self) -> None:
        """Cancel the runs in a signal handler; ``is_killed`` is set."""
        self.cancel_runs()

    def cancel_runs(self) -> None:
        """Cancel the active runs, unless they have been canceled or are to continue."""
        raise NotImplementedError

    def _cancel_run(self, run_identifier: str) -> None:
        with self._client_lock:
            self.hook.conn  # noqa: B018
        self.hook.try_to_cancel(
            run_identifier, domain_identifier=self._run_domain or self.operator.domain_identifier
        )
