"""Operators for Amazon DataZone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_datazone.deferral import resume
from airflow_provider_datazone.exceptions import ListingFailedError
from airflow_provider_datazone.inputs import validate_interval
from airflow_provider_datazone.metadata_generation import NEW_RESOURCE_GRACE, sanitize
from airflow_provider_datazone.operators.base import (
    BatchOperatorBase,
    DataZoneOperator,
    DecideOnPredictionsOperator,
    StartOperatorBase,
)
from airflow_provider_datazone.predictions import to_markdown
from airflow_provider_datazone.service_errors import is_not_found, is_transient
from airflow_provider_datazone.task_outcome import (
    XCOM_LISTING,
    XCOM_MARKDOWN,
    XCOM_REVISION,
    fail_without_retry,
    push,
    push_run,
    push_type_stats_on_failure,
)
from airflow_provider_datazone.version_compat import conf

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.inputs import (
        TemplatedAssets,
        TemplatedText,
        TemplatedTypes,
    )
    from airflow_provider_datazone.metadata_generation import TypeStat
    from airflow_provider_datazone.operators.batch_execution import BatchExecution
    from airflow_provider_datazone.operators.start_execution import StartExecution


def _start_execution() -> type[StartExecution]:
    # Here, since a DAG processor executes no task.
    from airflow_provider_datazone.operators.start_execution import StartExecution

    return StartExecution


def _batch_execution() -> type[BatchExecution]:
    # As above.
    from airflow_provider_datazone.operators.batch_execution import BatchExecution

    return BatchExecution


class DataZoneGetMetadataGenerationRunOperator(DataZoneOperator):
    """
    Read a metadata generation run once, and push its typeStats to XCom, whatever its status.

    XCom: the return value and the key ``type_stats`` are the typeStats, a list of
    ``{"type": str, "status": str, "errorMessage"?: str}``, empty if DataZone returns none; the key
    ``run`` is the whole run.

    :param run_identifier: The run. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param run_type: Read only this type, e.g. ``BUSINESS_NAMES``; by default all types of the run.
        (templated)
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` selects boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises RequestRefusedError: DataZone does not find the run, or refuses; not retried.
    :raises InvalidInputError: An argument is invalid, or no domain is given; not retried.

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
        with push_type_stats_on_failure(self, context), fail_without_retry():
            self._prepare(context)
            # With a grace period: the run may have been started a moment ago.
            run = self.hook.get_started_metadata_generation_run(
                self.run_identifier, domain_identifier=self.domain_identifier, run_type=self.run_type
            )
        self.log.info("Metadata generation run %s is %s.", run.id, run.status)
        push_run(self, context, run)
        return run.type_stats


class DataZoneStartMetadataGenerationRunOperator(StartOperatorBase):
    """
    Start a metadata generation run and wait until it is terminal; never start it twice.

    Each run counts against the account's monthly quota. So a retry after a crash, a kill, a lost worker or a
    time-out resumes the existing run. A retry starts a new run only after a run that ended ``FAILED`` or
    ``CANCELED``, see :mod:`~airflow_provider_datazone.submission`. Clearing a succeeded task starts a new
    run, too. ``docs/reliability.md`` describes what each Airflow version supports.

    The wait is that of
    :class:`~airflow_provider_datazone.sensors.datazone.DataZoneMetadataGenerationRunSensor`.
    ``execution_timeout`` limits it, also while the task is deferred. After a time-out the run continues, and
    the next try resumes it.

    XCom: the return value is the run's identifier. The key ``run`` is the whole run, pushed when the run is
    started and again when it is terminal. The key ``type_stats`` is the typeStats of the terminal run, a list
    of ``{"type": str, "status": str, "errorMessage"?: str}``. Both keys are also pushed after a failure, for
    a report in a teardown task, see ``docs/operators.md``.

    :param asset_identifier: The asset to generate metadata for. (templated)
    :param types: The types to generate, e.g. ``["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]``; see
        :data:`~airflow_provider_datazone.metadata_generation.RUN_TYPES`. (templated)
    :param owning_project_identifier: The project that owns the asset; default from the connection.
        (templated)
    :param asset_revision: The asset's revision; by default DataZone takes the latest. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param client_token: 1 to 128 printable ASCII characters. The same token starts one run, so each asset
        needs its own. By default every try of a submission computes the same token. With your own token,
        every try and every clear sends it, and DataZone decides what happens after a failed run. (templated)
    :param wait_for_completion: Whether to wait until the run is terminal. Default ``True``.
    :param poll_interval: Seconds between two polls, above 0. Default 30.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success. Default ``True``.
    :param cancel_on_kill: Whether to cancel the run when the task is killed while it starts the run or waits
        for it: a user marks it as failed or succeeded or clears it, or its worker stops. For a deferred task
        this needs Airflow 3.3. A killed task never starts a run. Default ``True``.
    :param deferrable: Wait in the triggerer, on a poller that all waits with the same connection and domain
        share. Default: ``[operators] default_deferrable``.
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` selects boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises StartedRunFailedError: The run did not succeed; a retry starts a new one.
    :raises MetadataGenerationRunFailedError: The run failed because the monthly quota is used up; not
        retried.
    :raises AirflowTaskTimeout: The run has not ended after ``execution_timeout``; a retry resumes it.
    :raises WaitFailedError: The triggerer could not read the run; a retry resumes it.
    :raises RequestRefusedError: DataZone refuses; not retried.
    :raises InvalidInputError: An argument is invalid, or no domain or owning project is given; not retried.

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

    def execute(self, context: Context) -> str:
        with self._executing(_start_execution(), context) as execution, fail_without_retry():
            self._prepare(context)
            return execution.submit_and_wait()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        with self._executing(_start_execution(), context) as execution, fail_without_retry():
            self._resolve_inputs()
            return resume(
                self,
                context,
                lambda: super(DataZoneStartMetadataGenerationRunOperator, self).resume_execution(
                    next_method, next_kwargs, context
                ),
                subject=f"the run for asset {self.asset_identifier!r}",
                poll_once_more=execution.poll_once_more,
            )

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any] | None = None,
        adopted: bool | float = False,
        run_identifier: str | None = None,
    ) -> str:
        """
        Resume with the trigger's event, and return the run's identifier.

        :param context: The task's context.
        :param event: The event of a ``DataZoneMetadataGenerationRunTrigger``.

        :param adopted: Unix time in seconds when the run was adopted, ``False`` if it was not. An earlier
            version passes ``True``.
        :param run_identifier: The run; an earlier version omits it.
        """
        with self._executing(_start_execution(), context) as execution:
            return execution.complete(event, adopted, run_identifier)


class DataZoneCancelMetadataGenerationRunOperator(DataZoneOperator):
    """
    Cancel a metadata generation run.

    Canceling a run that has already ended is not an error; the task returns the run's final status.

    XCom: the return value is the run's status after the cancellation, the key ``run`` the whole run.

    :param run_identifier: The run. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` selects boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises RequestRefusedError: DataZone does not find the run, or refuses; not retried.
    :raises InvalidInputError: An argument is invalid, or no domain is given; not retried.

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
        with fail_without_retry():
            self._prepare(context)
            run = self.hook.cancel_metadata_generation_run_unless_ended(
                self.run_identifier, domain_identifier=self.domain_identifier
            )
        push_run(self, context, run, type_stats=False)
        return run.status


class DataZoneGetPredictionsOperator(DataZoneOperator):
    """
    Read the predictions for an asset, for people or tasks that review them.

    XCom: the return value is a list of the predictions, ``{"fieldPath": str, ...}`` with the other keys as
    DataZone sends them, ``[]`` if there are none. The key ``markdown`` is the same as a Markdown table, for
    example for the ``body`` of an ``ApprovalOperator``. Texts longer than 2,000 characters are truncated in
    the table, and Markdown, HTML and links in them have no effect. The key ``revision`` is the asset's.

    :param asset_identifier: The asset. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param revision: The asset's revision; by default the latest. (templated)
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` selects boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises RequestRefusedError: DataZone does not find the asset, or refuses; not retried.
    :raises InvalidInputError: An argument is invalid, or no domain is given; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetAsset.html
    """

    template_fields: Sequence[str] = aws_template_fields("asset_identifier", "domain_identifier", "revision")

    def __init__(
        self,
        *,
        asset_identifier: TemplatedText,
        domain_identifier: TemplatedText | None = None,
        revision: TemplatedText | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.asset_identifier = asset_identifier
        self.domain_identifier = domain_identifier
        self.revision = revision

    def execute(self, context: Context) -> list[dict[str, Any]]:
        with fail_without_retry():
            self._prepare(context)
            asset = self.hook.get_asset(
                self.asset_identifier, domain_identifier=self.domain_identifier, revision=self.revision
            )
            predictions = self.hook.parse_predictions(asset)
        name, revision = sanitize(asset["id"]), sanitize(asset["revision"])
        self.log.info("Asset %s has %d predictions at revision %s.", name, len(predictions), revision)
        push(self, context, XCOM_MARKDOWN, to_markdown(predictions))
        push(self, context, XCOM_REVISION, revision)
        return predictions


class DataZoneAcceptPredictionsOperator(DecideOnPredictionsOperator):
    """
    Accept predictions for an asset, by a rule or by choices. This creates a new revision of the asset.

    No prediction is accepted by default, and only accepted ones are ever published.

    XCom: the return value is the asset's new revision, or its present one if ``choices`` is empty.

    :param asset_identifier: The asset. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param revision: The asset's revision; by default the latest. (templated)
    :param rule: ``ALL`` or ``NONE``.
    :param threshold: With ``rule``: the lowest confidence to accept, 0 to 1.
    :param choices: AWS's ``acceptChoices``, a list of
        ``{"predictionTarget": str, "predictionChoice"?: int, "editedValue"?: str}``; ``[]`` accepts nothing.
        An ``editedValue`` is sensitive: the provider never logs it. It masks values of 5 or more characters
        in rendered fields (not on Airflow 3.0), logs and errors; shorter ones as whole words. (templated)
    :param client_token: The same token accepts once. By default every try of the task computes the same
        token, until the task is cleared. (templated)
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` selects boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises InvalidInputError: Neither a rule nor choices are given, or no domain; not retried.
    :raises RequestRefusedError: DataZone refuses; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_AcceptPredictions.html
    """

    def _decide(self, *args: Any, **kwargs: Any) -> str:
        return self.hook.accept_predictions(*args, **kwargs)


class DataZoneRejectPredictionsOperator(DecideOnPredictionsOperator):
    """
    Reject predictions for an asset, by a rule or by choices.

    XCom: the return value is the asset's revision.

    :param asset_identifier: The asset. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param revision: The asset's revision; by default the latest. (templated)
    :param rule: ``ALL`` or ``NONE``.
    :param threshold: With ``rule``: the confidence that the rule compares with, 0 to 1.
    :param choices: AWS's ``rejectChoices``, a list of
        ``{"predictionTarget": str, "predictionChoices"?: list[int]}``; ``[]`` rejects nothing. (templated)
    :param client_token: The same token rejects once. By default every try of the task computes the same
        token, until the task is cleared. (templated)
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` selects boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises InvalidInputError: Neither a rule nor choices are given, or no domain; not retried.
    :raises RequestRefusedError: DataZone refuses; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_RejectPredictions.html
    """

    def _decide(self, *args: Any, **kwargs: Any) -> str:
        return self.hook.reject_predictions(*args, **kwargs)


class DataZonePublishAssetOperator(DataZoneOperator):
    """
    Publish an asset to the catalog, and wait until its listing is active.

    Only accepted predictions are published. A retry sends the same client token, so that a lost response does
    not publish twice. The task waits on the worker. Throttling, a fault of the service or a lost connection
    does not end the wait; ``execution_timeout`` limits it, and without one it has no limit.

    XCom: the return value is the listing's identifier, the key ``listing`` the listing,
    ``{"listingId": str, "listingRevision": str, "status": str}``.

    :param asset_identifier: The asset. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param revision: The asset's revision; by default the latest. DataZone refuses others. (templated)
    :param client_token: The same token publishes once. By default every try of the task computes the same
        token, until the task is cleared. (templated)
    :param wait_for_completion: Whether to wait until the listing is ``ACTIVE``. Default ``True``.
    :param poll_interval: Seconds between two polls of the listing, above 0. Default 5.
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` selects boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises ListingFailedError: The listing became ``INACTIVE``. A retry waits again; a clear publishes again.
    :raises RequestRefusedError: DataZone refuses; not retried.
    :raises InvalidInputError: An argument is invalid, or no domain is given; not retried.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_CreateListingChangeSet.html
    """

    template_fields: Sequence[str] = aws_template_fields(
        "asset_identifier", "domain_identifier", "revision", "client_token"
    )

    def __init__(
        self,
        *,
        asset_identifier: TemplatedText,
        domain_identifier: TemplatedText | None = None,
        revision: TemplatedText | None = None,
        client_token: TemplatedText | None = None,
        wait_for_completion: bool = True,
        poll_interval: float = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.asset_identifier = asset_identifier
        self.domain_identifier = domain_identifier
        self.revision = revision
        self.client_token = client_token
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval

    def execute(self, context: Context) -> str:
        with fail_without_retry():
            self._prepare(context)
            # Before the asset is published.
            validate_interval("poll_interval", self.poll_interval)
            domain = self.hook.resolve_domain_identifier(self.domain_identifier)
            listing = self.hook.publish_asset(
                self.asset_identifier,
                domain_identifier=domain,
                revision=self.revision,
                client_token=self._token(context, self.asset_identifier, domain, self.revision),
            )
            push(self, context, XCOM_LISTING, listing)
            if self.wait_for_completion and listing["status"] != "ACTIVE":
                listing = self._wait(listing, domain)
                push(self, context, XCOM_LISTING, listing)
        self.log.info("Listing %s is %s.", listing["listingId"], listing["status"])
        listing_identifier: str = listing["listingId"]
        return listing_identifier

    def _wait(self, listing: dict[str, Any], domain: str) -> dict[str, Any]:
        """Wait until the listing is active in the published revision or a later one."""
        self.log.info("Listing %s is %s.", listing["listingId"], listing["status"])
        grace_until = time.monotonic() + NEW_RESOURCE_GRACE
        while True:
            time.sleep(self.poll_interval)
            try:
                # Its latest revision: a user who unpublishes the asset creates another one.
                found = self.hook.get_listing(listing["listingId"], domain_identifier=domain)
            except Exception as error:
                # DataZone may not find a new listing yet.
                is_new = is_not_found(error) and time.monotonic() < grace_until
                if not is_transient(error) and not is_new:
                    raise
                self.log.warning("Could not read the listing just now, will try again: %s", error)
                continue
            if _is_earlier_revision(found.get("listingRevision"), listing["listingRevision"]):
                continue
            status = sanitize(str(found.get("status")))
            if status == "ACTIVE":
                return listing | {"status": status}
            if status == "INACTIVE":
                raise ListingFailedError(
                    f"Listing {listing['listingId']} of asset {sanitize(str(self.asset_identifier))} is "
                    "INACTIVE: it was or stayed unpublished. Clear the task to publish again."
                )


def _is_earlier_revision(revision: Any, published: Any) -> bool:
    try:
        return int(revision) < int(published)
    except (TypeError, ValueError):
        return False


class DataZoneBatchMetadataGenerationOperator(BatchOperatorBase):
    """
    Generate metadata for many assets in one task, at DataZone's rate.

    The task starts runs at the rate of ``[datazone] max_starts_per_second``, keeps at most
    ``max_concurrent_runs`` active, and waits for them on the shared poller. A succeeded asset stays
    succeeded, whatever is killed, and no run is started twice: see
    :mod:`~airflow_provider_datazone.batch.engine`. A retry processes only failed assets. After a run that
    failed because the account's monthly quota is used up, no more runs are started.

    With ``accept_threshold`` the task accepts the predictions for an asset as soon as its run has succeeded,
    and with ``publish`` it then publishes the asset, even if none reaches the threshold. The rates are
    ``[datazone] max_accepts_per_second`` (default 20) and ``max_requests_per_second`` (default 10). A retry
    accepts and publishes no asset twice. The task does not wait until a listing is ``ACTIVE``.

    A deferred batch returns to a worker for a moment, to save its progress, every ten minutes or every two
    ``poll_interval``, whichever is longer.
    ``execution_timeout`` limits the task, also while it is deferred. After a time-out the runs continue, and
    the next try resumes them.

    XCom: the return value is a summary, ``{"total": int, "succeeded": int, "partially_succeeded": int,
    "failed": int, "canceled": int, "accepted": int, "published": int, "not_started": int, "duplicates": int,
    "duration_seconds": float, "failures": list}``, with the first 100 failures. The key ``results`` has a row
    for each asset, ``{"asset": str, "run": str | None, "status": str | None, "typeStats": list,
    "revision"?: str, "listing"?: str, "error"?: str}``, with the asset's revision after accepting and the
    identifier of its listing. Both are also pushed after a failure, a time-out or a kill. If the task fails
    before it has processed its assets, ``results`` is ``[]`` and there is no summary.
    ``do_xcom_push=False`` switches off both, and the link to the domain.

    :param asset_identifiers: The assets: a list, or the output of an upstream task, of identifiers or of
        ``{"asset_identifier": str, "asset_revision"?: str, "owning_project_identifier"?: str}``.
        Duplicates count once. (templated)
    :param types: The types to generate, e.g. ``["BUSINESS_DESCRIPTIONS"]``. (templated)
    :param owning_project_identifier: The project that owns the assets without one of their own; default from
        the connection. (templated)
    :param domain_identifier: The DataZone domain; default from the connection. (templated)
    :param max_concurrent_runs: Maximum number of active runs. Default 50.
    :param poll_interval: Seconds between two polls of a run, above 0. Default 30.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success. Default ``True``.
    :param accept_threshold: Accept the predictions with this confidence or a higher one, 0 to 1, for each
        asset whose run succeeded. Default ``None``: no prediction is accepted.
    :param publish: Whether to publish each asset after that; needs ``accept_threshold``. Default ``False``.
    :param max_failures: How many assets may fail, also because they cannot be accepted or published: a number
        (``int``), or a share of all (``float``, 0 to 1). Default 0: any failure fails the task, once all
        assets are done.
    :param cancel_on_kill: Whether to cancel the active runs when the task is killed: a user marks it as
        failed or succeeded or clears it, or its worker stops. For a deferred task this needs Airflow 3.3.
        Default ``True``.
    :param deferrable: Process the batch in the triggerer. Default: ``[operators] default_deferrable``.
    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. Default ``aws_default``;
        ``None`` selects boto3's own credential chain. (templated)
    :param region_name: AWS Region; default from the connection. (templated)
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle; default from the
        connection. (templated)
    :param botocore_config: Configuration of the botocore client; default from the connection.
    :raises BatchFailedError: More assets failed than allowed; a retry processes only those.
    :raises RequestRefusedError: DataZone refuses requests for a reason that a retry cannot change, for
        example a missing permission. Then no more runs are started; not retried.
    :raises QuotaUsedUpError: The account's monthly quota is used up; not retried.
    :raises AirflowTaskTimeout: The batch has not ended after ``execution_timeout``; a retry resumes it.
    :raises WaitFailedError: The triggerer could not continue with the batch; a retry resumes it.
    :raises InvalidInputError: An argument is invalid, or no domain or owning project is given; not retried.

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
        accept_threshold: float | None = None,
        publish: bool = False,
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
        self.accept_threshold = accept_threshold
        self.publish = publish
        self.max_failures = max_failures
        self.cancel_on_kill = cancel_on_kill
        self.deferrable = deferrable

    def execute(self, context: Context) -> dict[str, Any]:
        with self._executing(_batch_execution(), context) as execution, fail_without_retry():
            self._prepare(context)
            return execution.process()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        def time_out(message: str) -> NoReturn:
            raise AirflowTaskTimeout(message)

        with self._executing(_batch_execution(), context), fail_without_retry():
            self._resolve_inputs()
            return resume(
                self,
                context,
                lambda: super(DataZoneBatchMetadataGenerationOperator, self).resume_execution(
                    next_method, next_kwargs, context
                ),
                subject="the batch",
                poll_once_more=time_out,
            )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Save the progress in the trigger's event, and continue or conclude."""
        with self._executing(_batch_execution(), context) as execution:
            return execution.complete(event)
