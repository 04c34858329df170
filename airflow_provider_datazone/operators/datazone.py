"""Operators for Amazon DataZone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_provider_datazone.batch import (
    XCOM_RESULTS,
    AssetRow,
    Batch,
    BatchMemory,
    StartsStoppedError,
    active_runs,
    check_bounds,
    describe_timeout,
    pack,
    parse_assets,
    require_few_failures,
    summarise,
    unpack,
)
from airflow_provider_datazone.cancellation import cancel_run, cancel_runs
from airflow_provider_datazone.deferral import (
    defer,
    defer_until_run_ends,
    resume,
    run_of_event,
    unreadable,
)
from airflow_provider_datazone.exceptions import InvalidInputError, NotConfiguredError, WaitFailedError
from airflow_provider_datazone.hooks.datazone import (
    MIN_MASKED_LENGTH,
    DataZoneHook,
    check_interval,
    is_transient,
    list_of_types,
)
from airflow_provider_datazone.inputs import PlainInputs, require_text, to_number, to_plain, to_text
from airflow_provider_datazone.kill_guard import KillGuard
from airflow_provider_datazone.links.datazone import DataZoneDomainLink
from airflow_provider_datazone.metadata_generation import one_line
from airflow_provider_datazone.submission import (
    RunRequest,
    Submission,
    client_token,
    note_success,
    was_canceled_with_previous_try,
)
from airflow_provider_datazone.task_outcome import (
    XCOM_RUN,
    no_pointless_retry,
    push_run,
    push_type_stats_on_failure,
    require_success,
)
from airflow_provider_datazone.triggers.datazone import DataZoneBatchMetadataGenerationTrigger
from airflow_provider_datazone.triggers.run_poller import HookParameters
from airflow_provider_datazone.version_compat import TaskKilled, conf, mask_secret

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.inputs import (
        TemplatedAssets,
        TemplatedChoices,
        TemplatedText,
        TemplatedTypes,
    )
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun, TypeStat


class _DataZoneOperator(PlainInputs, AwsBaseOperator[DataZoneHook]):
    """What all operators share."""

    aws_hook_class = DataZoneHook
    operator_extra_links = (DataZoneDomainLink(),)
    domain_identifier: Any
    # The domain of the runs that a kill cancels, where it is not the task's own argument.
    _run_domain: str | None = None
    # One client, built once, for all threads that cancel runs.
    _building_client = threading.Lock()

    def _cancel_runs(self, run_identifiers: list[str]) -> None:
        """Cancel runs when the task is killed, within the time that Airflow leaves it."""
        cancel_runs(self._cancel_run, lambda: run_identifiers, log=self.log)

    def _cancel_run(self, run_identifier: str) -> None:
        with self._building_client:
            self.hook.conn  # noqa: B018
        cancel_run(self.hook, run_identifier, self._run_domain or self.domain_identifier)


class _Adoption(NamedTuple):
    """
    How a try came by a run that it has not started itself.

    :param at: Unix time in seconds; ``None`` where an earlier version has not recorded it.
    :param seen_active: Whether the run was read as active since then.
    """

    at: float | None
    seen_active: bool = False


class DataZoneGetMetadataGenerationRunOperator(_DataZoneOperator):
    """
    Read a metadata generation run once, and push its typeStats to XCom, however it went.

    XCom: the return value and the key ``type_stats`` are the typeStats, a list of
    ``{"type": str, "status": str, "errorMessage"?: str}``, empty where DataZone sends none; the key
    ``run`` is the whole run.

    :param run_identifier: The run. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param run_type: Read this type alone, e.g. ``BUSINESS_NAMES``; by default all types of the run.
        (templated)
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` stands for boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises RequestRefusedError: DataZone does not know the run, or refuses; not retried.
    :raises InvalidInputError: No domain is known; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetMetadataGenerationRun.html
    """

    template_fields: Sequence[str] = aws_template_fields("domain_identifier", "run_identifier", "run_type")

    def __init__(
        self,
        *,
        run_identifier: TemplatedText,
        domain_identifier: TemplatedText | None = None,
        run_type: TemplatedText | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_identifier = run_identifier
        self.domain_identifier = domain_identifier
        self.run_type = run_type

    def execute(self, context: Context) -> list[TypeStat]:
        with push_type_stats_on_failure(self, context), no_pointless_retry():
            self._resolve_inputs()
            DataZoneDomainLink.persist_for(self, context, self.domain_identifier)
            # It may have been started a moment ago, so that DataZone does not know it yet.
            run: MetadataGenerationRun = self.hook.get_started_metadata_generation_run(
                self.run_identifier, domain_identifier=self.domain_identifier, run_type=self.run_type
            )
        self.log.info("Metadata generation run %s is %s.", run.id, run.status)
        push_run(self, context, run)
        return run.type_stats


class DataZoneStartMetadataGenerationRunOperator(_DataZoneOperator):
    """
    Start a metadata generation run and wait until it has ended; never start it twice.

    Each run counts against the account's monthly quota. So a retry after a crash, a kill, a lost worker or a
    time-out goes on with the run that is there, and only one after a run that ended ``FAILED`` or
    ``CANCELED`` starts another: see :mod:`~airflow_provider_datazone.submission`. Clearing a task that had
    succeeded starts another, too. What Airflow's versions can and cannot do for it is in
    ``docs/reliability.md``.

    The wait goes as that of
    :class:`~airflow_provider_datazone.sensors.datazone.DataZoneMetadataGenerationRunSensor`.
    ``execution_timeout`` bounds it, deferred too; the run goes on then, and the next try with it.

    XCom: the return value is the run's identifier. The key ``run`` is the whole run, as soon as it is
    started and again when it has ended; the key ``type_stats`` the typeStats of the run that was waited for,
    a list of ``{"type": str, "status": str, "errorMessage"?: str}``. The two keys are there after a failure
    too, for a report that runs as a teardown, see ``docs/operators.md``.

    :param asset_identifier: The asset to generate metadata for. (templated)
    :param types: What to generate, e.g. ``["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]``; see
        :data:`~airflow_provider_datazone.metadata_generation.RUN_TYPES`. (templated)
    :param owning_project_identifier: The project that owns the asset; default from the connection.
        (templated)
    :param asset_revision: The asset's revision; by default DataZone takes the latest. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param client_token: 1 to 128 printable ASCII characters: the same token starts one run, so each asset
        needs one of its own. By default one
        that each try of the same submission comes to, and no other. With a token of your own every try and
        every clear sends that one, and DataZone decides what comes of it after a run that failed. (templated)
    :param wait_for_completion: Whether to wait until the run has ended. Default ``True``.
    :param poll_interval: Seconds between two looks at the run. Default 30.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success. Default ``True``.
    :param cancel_on_kill: Whether to cancel the run when the task is killed while it starts the run or waits
        for it: marked as failed or succeeded, cleared, or its worker told to stop; deferred, from Airflow 3.3
        on. A killed task starts nothing any more in any case. Default ``True``.
    :param deferrable: Wait in the triggerer, on a poller that all waits with the same connection and domain
        share. Default: ``[operators] default_deferrable``.
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` stands for boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises StartedRunFailedError: The run did not succeed; a retry starts another one.
    :raises MetadataGenerationRunFailedError: The run failed for the account's monthly quota; not retried.
    :raises AirflowTaskTimeout: The run had not ended after ``execution_timeout``; a retry goes on with it.
    :raises WaitFailedError: Deferred, the run could not be read; a retry goes on with it.
    :raises RequestRefusedError: DataZone refuses; not retried.
    :raises InvalidInputError: No domain or owning project is known; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_StartMetadataGenerationRun.html
    """

    template_fields: Sequence[str] = aws_template_fields(
        "asset_identifier",
        "types",
        "owning_project_identifier",
        "asset_revision",
        "domain_identifier",
        "client_token",
    )

    def __init__(
        self,
        *,
        asset_identifier: TemplatedText,
        types: TemplatedTypes,
        owning_project_identifier: TemplatedText | None = None,
        asset_revision: TemplatedText | None = None,
        domain_identifier: TemplatedText | None = None,
        client_token: TemplatedText | None = None,
        wait_for_completion: bool = True,
        poll_interval: float = 30,
        allow_partial_success: bool = True,
        cancel_on_kill: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.asset_identifier = asset_identifier
        self.types = types
        self.owning_project_identifier = owning_project_identifier
        self.asset_revision = asset_revision
        self.domain_identifier = domain_identifier
        self.client_token = client_token
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.allow_partial_success = allow_partial_success
        self.cancel_on_kill = cancel_on_kill
        self.deferrable = deferrable
        # `on_kill` sets and reads these, in a signal handler: they stay plain attributes.
        self._killed = False
        self._may_cancel = True
        self._run_identifier: str | None = None
        self._canceled_run: str | None = None
        self._guard: KillGuard | None = None

    def execute(self, context: Context) -> str:
        with self._guarded() as guard, push_type_stats_on_failure(self, context), no_pointless_retry():
            self._resolve_inputs()
            DataZoneDomainLink.persist_for(self, context, self.domain_identifier)
            return self._submit_and_wait(context, guard, time.time())

    @contextmanager
    def _guarded(self) -> Iterator[KillGuard]:
        """Let a kill or a time-out end the work, and leave no run behind after a kill."""
        if self._guard is not None:
            # Airflow resumes a retry instead of executing it, and this provider executes it.
            yield self._guard
            return
        guard = self._guard = KillGuard(lambda: self._killed)
        try:
            guard.check()
            yield guard
        except AirflowTaskTimeout:
            # Airflow calls `on_kill` next. But nobody has said that the run is to stop.
            self._may_cancel = False
            raise
        except TaskDeferred:
            # From here on it is the trigger that cancels, if the task was not killed before.
            self._may_cancel = False
            if self._killed:
                self._may_cancel = True
                self._cancel_started_run()
                guard.check()
            raise
        except BaseException:
            if self._killed:
                self._cancel_started_run()
            raise
        finally:
            guard.stop()
            self._guard = None

    def _submit_and_wait(self, context: Context, guard: KillGuard, try_began_at: float) -> str:
        started_at = time.time()
        # Before anything is started that nobody could wait for.
        check_interval("poll_interval", self.poll_interval)
        request = RunRequest(
            asset_identifier=require_text("asset_identifier", self.asset_identifier),
            types=list_of_types(self.types),
            domain_identifier=self.hook.resolve_domain_identifier(self.domain_identifier),
            owning_project_identifier=self.hook.resolve_owning_project_identifier(
                self.owning_project_identifier
            ),
            asset_revision=self.asset_revision,
        )
        submission = Submission(
            context,
            self.hook,
            request,
            token=self.client_token,
            allow_partial_success=self.allow_partial_success,
            log=self.log,
            guard=guard,
            on_run=self._set_run,
            try_began_at=try_began_at,
        )
        run, was_adopted = submission.submit()
        self._require_own_asset(run)
        adoption = _Adoption(time.time()) if was_adopted else None
        push_run(self, context, run, type_stats=False)
        if not self.wait_for_completion:
            guard.check()
            note_success(context)
            return run.id
        run = self._first_look(run)
        guard.check()
        if not run.is_terminal and self.deferrable:
            timeout = self.execution_timeout
            defer_until_run_ends(
                self,
                context,
                started_at=started_at,
                # Airflow 3 itself does not apply it while a task is deferred (apache/airflow#69678).
                timeout=None if timeout is None else timeout.total_seconds(),
                # Earlier versions know whether it was adopted, and a time is true.
                kwargs={
                    "adopted": False if adoption is None else adoption.at,
                    "run_identifier": run.id,
                },
                run_identifier=run.id,
                domain_identifier=run.domain_id,
                poll_interval=self.poll_interval,
                cancel_on_kill=self.cancel_on_kill,
            )
        while not run.is_terminal:
            if adoption is not None:
                adoption = adoption._replace(seen_active=True)
            guard.sleep(self.poll_interval, time.sleep)
            run = self.hook.poll_metadata_generation_run(run.id, domain_identifier=run.domain_id) or run
        return self._conclude(context, run, adoption, guard, try_began_at)

    def _require_own_asset(self, run: MetadataGenerationRun) -> None:
        """Refuse a run that a client token of the user's led to, and that is for another asset."""
        if self.client_token is None:
            return
        if run.asset_id is None:
            # Start does not say.
            run = self._first_look(run)
        if run.asset_id not in (None, self.asset_identifier):
            self._run_identifier = None
            raise InvalidInputError(
                f"client_token was used for asset {one_line(str(run.asset_id))} before, in run {run.id}, "
                f"so no run is started for asset {one_line(self.asset_identifier)}. Pass a token for each "
                "asset, or none."
            )

    def _set_run(self, run_identifier: str | None) -> None:
        self._run_identifier = run_identifier

    def _first_look(self, run: MetadataGenerationRun) -> MetadataGenerationRun:
        """Read a run, which Get may not know yet: a trigger would take that for an answer."""
        try:
            run = self.hook.get_started_metadata_generation_run(run.id, domain_identifier=run.domain_id)
        except Exception as error:
            if not is_transient(error):
                raise
            self.log.warning("Could not read the run just now, will try again: %s", error)
        return run

    def _conclude(
        self,
        context: Context,
        run: MetadataGenerationRun,
        adoption: _Adoption | None,
        guard: KillGuard,
        try_began_at: float,
    ) -> str:
        # It has ended.
        self._run_identifier = None
        push_run(self, context, run)
        # A retry takes the run if it has succeeded. If it was canceled, then by the kill.
        guard.check()
        if (
            adoption is not None
            and run.status == "CANCELED"
            and was_canceled_with_previous_try(
                adopted_at=adoption.at,
                seen_active=adoption.seen_active,
                now=time.time(),
                poll_interval=self.poll_interval,
            )
        ):
            self.log.info(
                "Metadata generation run %s was canceled when the try before was killed. Submitting another.",
                run.id,
            )
            return self._submit_and_wait(context, guard, try_began_at)
        require_success(
            run, allow_partial_success=self.allow_partial_success, log=self.log, retry_starts_anew=True
        )
        note_success(context)
        return run.id

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        with self._guarded(), push_type_stats_on_failure(self, context), no_pointless_retry():
            self._resolve_inputs()
            return resume(
                self,
                context,
                lambda: super(DataZoneStartMetadataGenerationRunOperator, self).resume_execution(
                    next_method, next_kwargs, context
                ),
                about=f"the run for asset {self.asset_identifier!r}",
                look_once_more=lambda message: self._look_once_more(context, message),
            )

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any] | None = None,
        adopted: bool | float = False,
        run_identifier: str | None = None,
    ) -> str:
        """
        Judge the run that the trigger has waited for.

        :param adopted: Unix time in seconds at which the run was adopted, ``False`` if it was not. An earlier
            version says ``True``.
        :param run_identifier: The run; an earlier version leaves it out.
        """
        with self._guarded() as guard:
            message: str | None = None
            try:
                run = run_of_event(event, f"the run for asset {self.asset_identifier!r}")
            except TimeoutError as error:
                message = str(error)
            if message is not None:
                # Outside of the handler: a traceback would show the same text twice.
                return self._look_once_more(context, message, run_identifier)
            adoption = None
            if adopted is not False:
                # The trigger has read it many times.
                adoption = _Adoption(None if adopted is True else adopted, seen_active=True)
            return self._conclude(context, run, adoption, guard, time.time())

    def _look_once_more(self, context: Context, message: str, run_identifier: str | None = None) -> str:
        """Look before timing out: the triggerer may have been away for a while."""
        with self._guarded() as guard:
            ti, domain_identifier = context["ti"], self.domain_identifier
            if run_identifier is None:
                # Airflow gave up on the trigger, and what was deferred with it is lost. XCom has the run,
                # except under do_xcom_push=False: then the next try resumes it.
                started = ti.xcom_pull(task_ids=ti.task_id, key=XCOM_RUN, map_indexes=ti.map_index)
                if not isinstance(started, dict) or not started.keys() >= {"id", "domainId"}:
                    raise AirflowTaskTimeout(message)
                run_identifier, domain_identifier = started["id"], started["domainId"]
            self._run_identifier = run_identifier
            guard.watch(self.hook)
            run = self.hook.poll_metadata_generation_run(run_identifier, domain_identifier=domain_identifier)
            guard.check()
            if run is None or not run.is_terminal:
                raise AirflowTaskTimeout(message)
            return self._conclude(context, run, None, guard, time.time())

    def on_kill(self) -> None:
        # First of all: the interrupted code may continue, in this thread or another.
        self._killed = True
        self._cancel_started_run()

    def _cancel_started_run(self) -> None:
        """Cancel the run that the task has started or adopted, once, if a kill is to do that."""
        if not (self.cancel_on_kill and self.wait_for_completion and self._may_cancel):
            return
        if self._guard is not None:
            self._guard.wait_for_answer()
        run_identifier = self._run_identifier
        if run_identifier is not None and run_identifier != self._canceled_run:
            self._canceled_run = run_identifier
            self._cancel_runs([run_identifier])


class DataZoneCancelMetadataGenerationRunOperator(_DataZoneOperator):
    """
    Cancel a metadata generation run; one that has ended already is reported, and no error.

    XCom: the return value is the run's status afterwards, the key ``run`` the whole run.

    :param run_identifier: The run. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` stands for boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises RequestRefusedError: DataZone does not know the run, or refuses; not retried.
    :raises InvalidInputError: No domain is known; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_CancelMetadataGenerationRun.html
    """

    template_fields: Sequence[str] = aws_template_fields("run_identifier", "domain_identifier")

    def __init__(
        self, *, run_identifier: TemplatedText, domain_identifier: TemplatedText | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.run_identifier = run_identifier
        self.domain_identifier = domain_identifier

    def execute(self, context: Context) -> str:
        with no_pointless_retry():
            self._resolve_inputs()
            DataZoneDomainLink.persist_for(self, context, self.domain_identifier)
            run: MetadataGenerationRun = self.hook.cancel_metadata_generation_run_unless_ended(
                self.run_identifier, domain_identifier=self.domain_identifier
            )
        push_run(self, context, run, type_stats=False)
        return run.status


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) >= MIN_MASKED_LENGTH:
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(item)


class _DecideOnPredictionsOperator(_DataZoneOperator):
    """What accepting and rejecting have in common."""

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
        # What is not plain is refused later, when that is the task's own error and not one of rendering.
        with suppress(NotConfiguredError):
            # Airflow shows what a lazy sequence was made of.
            self.choices = to_plain("choices", self.choices)
        # Airflow shows rendered fields; DataZone's model marks these values as sensitive.
        if isinstance(self.choices, str):
            # It will be refused, but is shown before; so are other things that are no list of choices.
            for text in _texts_in(self.choices):
                mask_secret(text)
            return
        for choice in self.choices if isinstance(self.choices, (list, tuple)) else [self.choices]:
            if isinstance(choice, dict):
                for text in _texts_in(choice.get("editedValue")):
                    mask_secret(text)

    def _decide(self, *args: Any, **kwargs: Any) -> str:
        """Call the hook's method."""
        raise NotImplementedError

    def execute(self, context: Context) -> str:
        with no_pointless_retry():
            self._resolve_inputs()
            DataZoneDomainLink.persist_for(self, context, self.domain_identifier)
            decision = {
                "revision": self.revision,
                "rule": to_text("rule", self.rule),
                "threshold": to_number("threshold", self.threshold),
                "choices": self.choices,
            }
            token = self.client_token
            if token is None:
                # A retry must not decide twice, should the answer to the first have been lost.
                token = client_token(
                    context, type(self).__name__, self.asset_identifier, self.domain_identifier, decision
                )
            revision = self._decide(
                self.asset_identifier,
                domain_identifier=self.domain_identifier,
                client_token=token,
                **decision,
            )
        self.log.info("Asset %s is at revision %s.", one_line(str(self.asset_identifier)), revision)
        return revision


class DataZoneAcceptPredictionsOperator(_DecideOnPredictionsOperator):
    """
    Accept what was generated for an asset, by a rule or by choices; this makes a new revision of the asset.

    Nothing is accepted by default. What nobody accepts is never published.

    XCom: the return value is the asset's new revision.

    :param asset_identifier: The asset. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param revision: The asset's revision; by default the latest. (templated)
    :param rule: ``ALL`` or ``NONE``.
    :param threshold: With ``rule``: the confidence from which a prediction is accepted, 0 to 1.
    :param choices: AWS's ``acceptChoices``, a list of
        ``{"predictionTarget": str, "predictionChoice"?: int, "editedValue"?: str}``. An ``editedValue`` is
        sensitive: it is in no log of this provider, and redacted in errors. From 5 characters on it is also
        masked where Airflow shows rendered fields and in all logs of the task; a shorter one is redacted in
        errors only where it stands by itself. Airflow 3.0 shows rendered fields as they are. (templated)
    :param client_token: The same token accepts once. By default one that each try of the task comes to, until
        it is cleared. (templated)
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` stands for boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises InvalidInputError: Neither rule nor choices are given, or no domain is known; not retried.
    :raises RequestRefusedError: DataZone refuses; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_AcceptPredictions.html
    """

    def _decide(self, *args: Any, **kwargs: Any) -> str:
        return str(self.hook.accept_predictions(*args, **kwargs))


class DataZoneRejectPredictionsOperator(_DecideOnPredictionsOperator):
    """
    Reject what was generated for an asset, by a rule or by choices.

    XCom: the return value is the asset's revision.

    :param asset_identifier: The asset. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param revision: The asset's revision; by default the latest. (templated)
    :param rule: ``ALL`` or ``NONE``.
    :param threshold: With ``rule``: the confidence that the rule goes by, 0 to 1.
    :param choices: AWS's ``rejectChoices``, a list of
        ``{"predictionTarget": str, "predictionChoices"?: list[int]}``. (templated)
    :param client_token: The same token rejects once. By default one that each try of the task comes to, until
        it is cleared. (templated)
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` stands for boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises InvalidInputError: Neither rule nor choices are given, or no domain is known; not retried.
    :raises RequestRefusedError: DataZone refuses; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_RejectPredictions.html
    """

    def _decide(self, *args: Any, **kwargs: Any) -> str:
        return str(self.hook.reject_predictions(*args, **kwargs))


class DataZoneBatchMetadataGenerationOperator(_DataZoneOperator):
    """
    Generate metadata for many assets, at the speed that DataZone allows, in one task.

    Runs are started at most at the rate of ``[datazone] max_starts_per_second``, and at most
    ``max_concurrent_runs`` are active at a time; each is waited for on the shared poller. An asset that has
    succeeded stays done, whatever is killed, and no run is started twice: see
    :mod:`~airflow_provider_datazone.batch`. A retry works on what failed alone. Once a run failed for the
    account's monthly quota, no further one is started.

    Deferred, the batch comes back to a worker every ten minutes for a moment, to note how far it is.
    ``execution_timeout`` bounds the wait, deferred too; the runs go on then, and the next try with them.

    XCom: the return value is a summary, ``{"total": int, "succeeded": int, "partially_succeeded": int,
    "failed": int, "canceled": int, "not_started": int, "duplicates": int, "duration_seconds": float,
    "failures": list}``, with the first 100 failures. The key ``results`` has a row for each asset,
    ``{"asset": str, "run": str | None, "status": str | None, "typeStats": list, "error"?: str}``. Both are
    there after a failure too. ``do_xcom_push=False`` switches off both, and the link to the domain.

    :param asset_identifiers: The assets: a list, or what an upstream task returned, of identifiers or of
        ``{"asset_identifier": str, "asset_revision"?: str, "owning_project_identifier"?: str}``.
        Duplicates count once. (templated)
    :param types: What to generate, e.g. ``["BUSINESS_DESCRIPTIONS"]``. (templated)
    :param owning_project_identifier: The project that owns the assets that name none; default from the
        connection. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param max_concurrent_runs: Runs that are active at a time at most. Default 50.
    :param poll_interval: Seconds between two looks at a run. Default 30.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success. Default ``True``.
    :param max_failures: How many assets may fail: a number (``int``), or a share of all (``float``, 0 to 1).
        Default 0: any failure fails the task, after all have ended.
    :param cancel_on_kill: Whether to cancel the active runs when the task is killed: marked as failed or
        succeeded, cleared, or its worker told to stop; deferred, from Airflow 3.3 on. Default ``True``.
    :param deferrable: Do it all in the triggerer. Default: ``[operators] default_deferrable``.
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` stands for boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises BatchFailedError: More assets failed than may; a retry works on those alone.
    :raises RequestRefusedError: DataZone refuses them all for a reason that a retry cannot change, a missing
        permission for example. Then no further runs are started.
    :raises QuotaUsedUpError: The account's monthly quota is used up; not retried.
    :raises AirflowTaskTimeout: The batch had not ended after ``execution_timeout``; a retry goes on with it.
    :raises WaitFailedError: Deferred, the batch as a whole could not go on; a retry goes on with it.
    :raises RequestRefusedError: DataZone refuses; not retried.
    :raises InvalidInputError: The list is none, or no domain or owning project is known; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_StartMetadataGenerationRun.html
    """

    template_fields: Sequence[str] = aws_template_fields(
        "asset_identifiers", "types", "owning_project_identifier", "domain_identifier"
    )

    def __init__(
        self,
        *,
        asset_identifiers: TemplatedAssets,
        types: TemplatedTypes,
        owning_project_identifier: TemplatedText | None = None,
        domain_identifier: TemplatedText | None = None,
        max_concurrent_runs: int = 50,
        poll_interval: float = 30,
        allow_partial_success: bool = True,
        max_failures: float = 0,
        cancel_on_kill: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.asset_identifiers = asset_identifiers
        self.types = types
        self.owning_project_identifier = owning_project_identifier
        self.domain_identifier = domain_identifier
        self.max_concurrent_runs = max_concurrent_runs
        self.poll_interval = poll_interval
        self.allow_partial_success = allow_partial_success
        self.max_failures = max_failures
        self.cancel_on_kill = cancel_on_kill
        self.deferrable = deferrable
        self._is_killed = self._has_canceled = False
        # What `on_kill` cancels, and stops.
        self._rows: list[AssetRow] = []
        self._batch: Batch | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        started_at = time.time()
        with self._guarded(), no_pointless_retry():
            self._resolve_inputs()
            DataZoneDomainLink.persist_for(self, context, self.domain_identifier)
            check_bounds(self.max_concurrent_runs, self.max_failures)
            check_interval("poll_interval", self.poll_interval)
            rows, duplicates = parse_assets(
                self.asset_identifiers,
                lambda: self.hook.resolve_owning_project_identifier(self.owning_project_identifier),
            )
            if not rows:
                self.log.info("asset_identifiers is empty: there is nothing to do.")
                return self._conclude(context, rows, duplicates, started_at)
            domain_identifier = self.hook.resolve_domain_identifier(self.domain_identifier)
            self._run_domain = domain_identifier
            memory = BatchMemory(context, domain_identifier, list_of_types(self.types))
            rows = memory.recall(rows, allow_partial_success=self.allow_partial_success)
            self._rows = rows
            if all(row.is_done for row in rows):
                self.log.info(
                    "An earlier try has done all %s assets: there is nothing to do.", f"{len(rows):,}"
                )
            if self.deferrable:
                self._defer(context, memory, rows, duplicates, started_at)
            return self._work(context, memory, rows, duplicates, started_at)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Let a kill or a time-out end the work, and leave no run behind after a kill."""
        try:
            yield
        except AirflowTaskTimeout:
            # Airflow calls `on_kill` next. But nobody has said that the runs are to stop.
            self._rows = []
            raise
        except BaseException as error:
            if self._is_killed:
                self._cancel_active()
                if isinstance(error, TaskDeferred):
                    raise self._killed() from None
            elif isinstance(error, TaskDeferred):
                # From here on it is the trigger that cancels.
                self._rows = []
            raise
        if self._is_killed:
            self._cancel_active()
            raise self._killed()

    def _cancel_active(self) -> None:
        """Cancel the active runs after a kill, unless `on_kill` has done so."""
        if self.cancel_on_kill and not self._has_canceled:
            self._has_canceled = True
            self._cancel_runs(active_runs(self._rows))

    def _work(
        self, context: Context, memory: BatchMemory, rows: list[AssetRow], duplicates: int, started_at: float
    ) -> dict[str, Any]:
        batch = self._batch = Batch(
            rows,
            types=memory.types,
            domain_identifier=memory.domain_identifier,
            identity=memory.identity,
            try_number=memory.try_number,
            try_began_at=started_at,
            max_concurrent_runs=self.max_concurrent_runs,
            poll_interval=self.poll_interval,
            allow_partial_success=self.allow_partial_success,
            log=self.log,
            on_progress=lambda: memory.note(rows),
        )
        parameters = HookParameters.for_task(self)
        try:
            if self._is_killed:
                batch.stop()
            work = batch.run(parameters, noted_at=memory.noted_at)
            asyncio.run(self._within_execution_timeout(work, memory.domain_identifier))
        except StartsStoppedError:
            raise self._killed() from None
        finally:
            memory.note(rows)
        if self._is_killed:
            raise self._killed()
        self._rows = []
        return self._conclude(
            context, rows, duplicates, started_at, memory, batch.quota_used_up, batch.refusals
        )

    def _killed(self) -> TaskKilled:
        return TaskKilled("Airflow has told the task to stop: no further runs are started.")

    async def _within_execution_timeout(self, work: Coroutine[Any, Any, None], domain: str) -> None:
        """Time out in the event loop too: an alarm that goes off there may be taken for one asset's error."""
        timeout = self.execution_timeout
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout and timeout.total_seconds())
        finally:
            task.cancel()
        if not done:
            with suppress(asyncio.CancelledError):
                await task
            raise AirflowTaskTimeout(describe_timeout(domain))
        # Whatever it raises: a look-up of the connection may end in a TimeoutError, too.
        task.result()

    def _defer(
        self,
        context: Context,
        memory: BatchMemory,
        rows: list[AssetRow],
        duplicates: int,
        started_at: float,
        quota_used_up: bool = False,
        refusals: Mapping[str, str] | None = None,
    ) -> NoReturn:
        if self._is_killed:
            raise self._killed()
        timeout = self.execution_timeout
        trigger = DataZoneBatchMetadataGenerationTrigger.for_task(
            self,
            rows=pack(rows),
            noted_at=memory.noted_at,
            types=memory.types,
            domain_identifier=memory.domain_identifier,
            identity=memory.identity,
            began_at=started_at,
            try_number=memory.try_number,
            max_concurrent_runs=self.max_concurrent_runs,
            poll_interval=self.poll_interval,
            allow_partial_success=self.allow_partial_success,
            started_at=started_at,
            duplicates=duplicates,
            quota_used_up=quota_used_up,
            refusals=dict(refusals or {}),
            deadline=None if timeout is None else started_at + timeout.total_seconds(),
            cancel_on_kill=self.cancel_on_kill,
        )
        defer(self, context, trigger)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        def time_out(message: str) -> NoReturn:
            raise AirflowTaskTimeout(message)

        with self._guarded(), no_pointless_retry():
            self._resolve_inputs()
            return resume(
                self,
                context,
                lambda: super(DataZoneBatchMetadataGenerationOperator, self).resume_execution(
                    next_method, next_kwargs, context
                ),
                about="the batch",
                look_once_more=time_out,
            )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Note how far the trigger has come; go on, or judge the batch."""
        domain = self.domain_identifier
        about = f"the batch in domain {domain!r}" if domain else "the batch in the connection's domain"
        if event is None:
            raise unreadable(event, about)
        try:
            rows, noted_at = unpack(event["rows"]), float(event["noted_at"])
            duplicates, started_at = int(event["duplicates"]), float(event["started_at"])
            status, quota_used_up = str(event["status"]), event["quota_used_up"] is True
            # Version 0.1 has left it out.
            refusals = {str(scope): str(told) for scope, told in event.get("refusals", {}).items()}
            message = one_line(str(event.get("message", "no reason given")))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise unreadable(event, about) from None
        self._rows = rows
        # What the batch was deferred with, whatever the connection or a template names by now. Version 0.1
        # has left it out of its events.
        domain_identifier = event.get("domain_identifier")
        if not isinstance(domain_identifier, str):
            domain_identifier = self.hook.resolve_domain_identifier(self.domain_identifier)
        self._run_domain = domain_identifier
        types = list_of_types(event.get("types", self.types))
        memory = BatchMemory(context, domain_identifier, types)
        memory.note(rows, noted_at)
        if status == "checkpoint":
            self._defer(context, memory, rows, duplicates, started_at, quota_used_up, refusals)
        if status == "timeout":
            raise AirflowTaskTimeout(message)
        if status == "error":
            raise WaitFailedError(message, permanent=event.get("permanent") is True)
        if status != "ended":
            raise unreadable(event, about)
        return self._conclude(context, rows, duplicates, started_at, memory, quota_used_up, refusals)

    def _conclude(
        self,
        context: Context,
        rows: list[AssetRow],
        duplicates: int,
        started_at: float,
        memory: BatchMemory | None = None,
        quota_used_up: bool = False,
        refusals: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        summary = summarise(rows, duplicates, time.time() - started_at, self.allow_partial_success)
        if self.do_xcom_push:
            context["ti"].xcom_push(key=XCOM_RESULTS, value=[row.to_result() for row in rows])
            # Airflow itself pushes what a task returns, but not what it had to say before it failed.
            context["ti"].xcom_push(key="return_value", value=summary)
        require_few_failures(
            rows,
            self.max_failures,
            allow_partial_success=self.allow_partial_success,
            quota_used_up=quota_used_up,
            refusals=refusals or {},
        )
        if memory is not None:
            memory.note_success()
        return summary

    def on_kill(self) -> None:
        # First of all, as Airflow 3 lets the interrupted code continue.
        self._is_killed = True
        batch = self._batch
        if batch is None:
            # The interrupted code cancels, when it is done with what it may be in the middle of: a lookup of
            # the connection, or of what the task remembers.
            return
        batch.stop()
        if batch.source is not None and self.cancel_on_kill:
            self._has_canceled = True
            cancel_runs(
                batch.source.cancel_now,
                lambda: active_runs(self._rows),
                may_grow=lambda: batch.is_starting,
                log=self.log,
            )
