"""The hook for Amazon DataZone: methods for runs, predictions and assets."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from airflow_provider_datazone.get_provider_info import CONNECTION_FIELDS, UI_FIELD_BEHAVIOUR
from airflow_provider_datazone.hooks.assets import DataZoneAssetHook
from airflow_provider_datazone.inputs import (
    require_text,
    to_text,
    validate_interval,
    validate_types,
)
from airflow_provider_datazone.metadata_generation import (
    ACTIVE_STATUSES,
    NEW_RESOURCE_GRACE,
    MetadataGenerationRun,
    find_active_run,
    log_status,
    sanitize,
)
from airflow_provider_datazone.service_errors import is_transient, may_be_new, rejects_cancel
from airflow_provider_datazone.service_requests import iterate_pages

T = TypeVar("T")


class DataZoneHook(DataZoneAssetHook):
    """
    Interact with Amazon DataZone, in particular with its metadata generation runs.

    A thick wrapper around ``boto3.client("datazone")``. Use the attribute ``conn``, the client itself, for
    operations without a method here. Errors of the service are botocore's own
    (:class:`botocore.exceptions.ClientError`); their message also names the request.

    In every parameter of the hook and its methods, an empty string counts as an argument that was not passed.
    Identifiers and revisions may be integers.

    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. It must exist, except for
        ``aws_default``: if that is not defined, and for ``None``, the hook uses boto3's own credential chain.
        An empty string selects the default. Default ``aws_default``.
    :param region_name: AWS Region; default from the connection.
    :param verify: Whether to verify TLS certificates, also as a string (``"True"``, ``"False"``), or the path
        of a CA bundle file; default from the connection.
    :param config: Configuration of the botocore client; default from the connection.
    :raises ValueError: A parameter is invalid.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/Welcome.html
    """

    @cached_property
    def _last_status(self) -> dict[str, str]:
        """The status of each run at its last poll."""
        return {}

    # ------------------------------------------------------ connection form

    # Airflow before 3.2 reads these two, and only in the body of the hook class itself, not in its bases.
    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the connection's own fields; Airflow 3.2 and later reads them from the provider info."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import StringField

        return {
            name: StringField(label, description=description, widget=BS3TextFieldWidget())
            for name, (label, description) in CONNECTION_FIELDS.items()
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the form shows Airflow's own fields; Airflow before 3.2 calls it."""
        return {key.replace("-", "_"): value for key, value in UI_FIELD_BEHAVIOUR.items()}

    # ----------------------------------------------------------------- runs

    def get_metadata_generation_run(
        self, run_identifier: str, *, domain_identifier: str | None = None, run_type: str | None = None
    ) -> MetadataGenerationRun:
        """
        Read a metadata generation run, with its typeStats.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :param run_type: Return only this type; by default all types of the run.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses, e.g. with ``ResourceNotFoundException``.
        :raises MalformedResponseError: The response is not a run.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetMetadataGenerationRun.html
        """
        run_identifier = require_text("run_identifier", run_identifier)
        subject = f"run {run_identifier!r}"
        domain = self.resolve_domain_identifier(domain_identifier)
        response = self._call(
            "get_metadata_generation_run",
            subject,
            domainIdentifier=domain,
            identifier=run_identifier,
            type=to_text("run_type", run_type),
        )
        return self._parse_run(response, subject, domain)

    def get_started_metadata_generation_run(
        self,
        run_identifier: str,
        *,
        domain_identifier: str | None = None,
        run_type: str | None = None,
        grace: float = NEW_RESOURCE_GRACE,
    ) -> MetadataGenerationRun:
        """
        Read a run that may be new, and retry every second while Get does not find it.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :param run_type: As for :meth:`get_metadata_generation_run`.
        :param grace: Seconds to retry while DataZone does not find the run. Default 30.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses, with ``ResourceNotFoundException`` if it
            does not find the run within ``grace``.
        :raises MalformedResponseError: The response is not a run.
        """
        return self._retry_while_not_found(
            lambda: self.get_metadata_generation_run(
                run_identifier, domain_identifier=domain_identifier, run_type=run_type
            ),
            run_identifier,
            deadline=time.monotonic() + grace,
        )

    def start_metadata_generation_run(
        self,
        asset_identifier: str,
        *,
        types: Sequence[str],
        owning_project_identifier: str | None = None,
        asset_revision: str | None = None,
        client_token: str | None = None,
        domain_identifier: str | None = None,
    ) -> MetadataGenerationRun:
        """
        Start a metadata generation run. Each run counts against the account's monthly quota.

        :param asset_identifier: The asset to generate metadata for.
        :param types: The types to generate, of
            :data:`~airflow_provider_datazone.metadata_generation.RUN_TYPES`.
        :param owning_project_identifier: The project that owns the asset; default from the connection.
        :param asset_revision: The asset's revision; by default the service takes the latest.
        :param client_token: 1 to 128 printable ASCII characters. The same token starts one run, however
            often it is sent. By default every call has its own token and starts a run.
        :param domain_identifier: The domain; default from the connection.
        :return: The run as Start returns it, without target and typeStats.
        :raises ValueError: No domain or owning project is given.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        :raises MalformedResponseError: The response is not a run.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_StartMetadataGenerationRun.html
        """
        asset_identifier = require_text("asset_identifier", asset_identifier)
        subject = f"asset {asset_identifier!r}"
        target = {"type": "ASSET", "identifier": asset_identifier}
        asset_revision = to_text("asset_revision", asset_revision)
        if asset_revision is not None:
            target["revision"] = asset_revision
        domain = self.resolve_domain_identifier(domain_identifier)
        response = self._call(
            "start_metadata_generation_run",
            subject,
            domainIdentifier=domain,
            target=target,
            types=validate_types(types),
            owningProjectIdentifier=self.resolve_owning_project_identifier(owning_project_identifier),
            clientToken=to_text("client_token", client_token),
        )
        return self._parse_run(response, subject, domain)

    def list_metadata_generation_runs(
        self,
        *,
        domain_identifier: str | None = None,
        status: str | None = None,
        run_type: str | None = None,
        asset_identifier: str | None = None,
        page_size: int = 50,
    ) -> Iterator[MetadataGenerationRun]:
        """
        List metadata generation runs lazily: each page is requested when it is needed.

        :param domain_identifier: The domain; default from the connection.
        :param status: Only runs with this status, e.g. ``IN_PROGRESS``; by default with any.
        :param run_type: Only runs of this type, e.g. ``BUSINESS_NAMES``; by default of any.
        :param asset_identifier: Only runs for this asset; by default for any.
        :param page_size: Runs per request, 1 to 50. Default 50.
        :return: The runs, without typeStats, in the service's order.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        :raises MalformedResponseError: An item is not a run.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_ListMetadataGenerationRuns.html
        """
        return iterate_pages(
            partial(
                self.list_metadata_generation_runs_page,
                # Resolved now, so that an error comes from the call and not from the iterator.
                domain_identifier=self.resolve_domain_identifier(domain_identifier),
                status=status,
                run_type=run_type,
                asset_identifier=asset_identifier,
                page_size=page_size,
            )
        )

    def find_active_metadata_generation_run(
        self,
        asset_identifier: str,
        *,
        types: Sequence[str],
        asset_revision: str | None = None,
        except_for: Collection[str] = (),
        domain_identifier: str | None = None,
    ) -> MetadataGenerationRun | None:
        """
        Find the active run for an asset, the latest if there are several.

        :param asset_identifier: The asset.
        :param types: The types of the run: exactly these.
        :param asset_revision: Only a run for this revision; by default for any.
        :param except_for: Identifiers of runs to leave out, for example of runs that Get returned as ended:
            List may be outdated. Default: none.
        :param domain_identifier: The domain; default from the connection.
        :return: The run as List returns it, without typeStats, or ``None``.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        """
        asset_identifier = require_text("asset_identifier", asset_identifier)
        domain = self.resolve_domain_identifier(domain_identifier)
        types, asset_revision = validate_types(types), to_text("asset_revision", asset_revision)
        # SUBMITTED first, so that a run that changes its status between the two requests is still listed.
        runs = [
            run
            for status in sorted(ACTIVE_STATUSES, reverse=True)
            for run in self.list_metadata_generation_runs(
                domain_identifier=domain, status=status, asset_identifier=asset_identifier
            )
        ]
        return find_active_run(
            runs,
            asset_identifier=asset_identifier,
            types=types,
            asset_revision=asset_revision,
            except_for=except_for,
        )

    def list_metadata_generation_runs_page(
        self,
        *,
        domain_identifier: str | None = None,
        status: str | None = None,
        run_type: str | None = None,
        asset_identifier: str | None = None,
        page_size: int = 50,
        next_token: str | None = None,
    ) -> tuple[list[MetadataGenerationRun], str | None]:
        """
        List one page of metadata generation runs, in one request.

        Parameters and errors are those of :meth:`list_metadata_generation_runs`.

        :param next_token: The token of the previous page.
        :return: The page's runs, and the token for the next page, ``None`` on the last.
        """
        subject = "listing metadata generation runs"
        asset_identifier = to_text("asset_identifier", asset_identifier)
        if asset_identifier is not None:
            subject += f" of asset {asset_identifier!r}"
        domain = self.resolve_domain_identifier(domain_identifier)
        items, following = self._call_for_page(
            "list_metadata_generation_runs",
            subject,
            domainIdentifier=domain,
            status=to_text("status", status),
            type=to_text("run_type", run_type),
            targetIdentifier=asset_identifier,
            maxResults=page_size,
            nextToken=next_token,
        )
        # AWS's model does not require the status of an item, and the request names it.
        if status:
            items = [{"status": status} | item if isinstance(item, dict) else item for item in items]
        return [self._parse_run(item, subject, domain) for item in items], following

    def cancel_metadata_generation_run(
        self, run_identifier: str, *, domain_identifier: str | None = None
    ) -> None:
        """
        Cancel a metadata generation run.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses: with ``ValidationException`` or
            ``ConflictException`` if the run has already ended.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_CancelMetadataGenerationRun.html
        """
        run_identifier = require_text("run_identifier", run_identifier)
        self._call(
            "cancel_metadata_generation_run",
            f"run {run_identifier!r}",
            domainIdentifier=self.resolve_domain_identifier(domain_identifier),
            identifier=run_identifier,
        )

    def cancel_metadata_generation_run_unless_ended(
        self, run_identifier: str, *, domain_identifier: str | None = None, grace: float = NEW_RESOURCE_GRACE
    ) -> MetadataGenerationRun:
        """
        Cancel a metadata generation run. It is not an error if the run has already ended.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :param grace: Seconds to retry while DataZone does not find the run. Default 30.
        :return: The run after the cancellation.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses, and the run has not ended.
        """
        deadline = time.monotonic() + grace
        run = self.try_to_cancel(run_identifier, domain_identifier=domain_identifier, grace=grace)
        if run is not None:
            self.log.info("Metadata generation run %s had already ended: %s.", run.id, run.status)
            return run
        run = self.get_started_metadata_generation_run(
            run_identifier, domain_identifier=domain_identifier, grace=deadline - time.monotonic()
        )
        self.log.info("Metadata generation run %s was canceled; it is %s.", run.id, run.status)
        return run

    def try_to_cancel(
        self, run_identifier: str, *, domain_identifier: str | None = None, grace: float = 0
    ) -> MetadataGenerationRun | None:
        """
        Request the cancellation of a run, and return the run if it had already ended.

        With the default ``grace`` of 0 seconds it writes no log line, so that a signal handler can call it:
        the code that the handler interrupted may hold the log's lock. Parameters and errors are those of
        :meth:`cancel_metadata_generation_run_unless_ended`.

        :return: The run if it had already ended, ``None`` if DataZone accepted the cancellation.
        """
        deadline = time.monotonic() + grace
        try:
            self._retry_while_not_found(
                lambda: self.cancel_metadata_generation_run(
                    run_identifier, domain_identifier=domain_identifier
                ),
                run_identifier,
                deadline=deadline,
            )
        except ClientError as error:
            if not rejects_cancel(error):
                raise
            run = self.get_started_metadata_generation_run(
                run_identifier, domain_identifier=domain_identifier, grace=deadline - time.monotonic()
            )
            if not run.is_terminal:
                raise
            return run
        return None

    def wait_for_metadata_generation_run(
        self,
        run_identifier: str,
        *,
        domain_identifier: str | None = None,
        run_type: str | None = None,
        poll_interval: float = 30,
        timeout: float | None = None,
    ) -> MetadataGenerationRun:
        """
        Wait until a metadata generation run is terminal, whatever its final status.

        The wait logs throttling, faults of the service and lost connections, and continues. While DataZone
        does not find the run, it continues for 30 seconds, since the run may be new.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :param run_type: As for :meth:`get_metadata_generation_run`.
        :param poll_interval: Seconds between two polls, above 0. Default 30.
        :param timeout: Seconds to wait in total; by default there is no limit.
        :return: The terminal run.
        :raises TimeoutError: The run has not ended after ``timeout`` seconds. The run continues.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        """
        validate_interval("poll_interval", poll_interval)
        run_identifier = require_text("run_identifier", run_identifier)
        domain = self.resolve_domain_identifier(domain_identifier)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            run = self.poll_metadata_generation_run(
                run_identifier,
                domain_identifier=domain,
                run_type=run_type,
                # The grace is part of the timeout.
                grace=NEW_RESOURCE_GRACE
                if deadline is None
                else min(NEW_RESOURCE_GRACE, deadline - time.monotonic()),
            )
            if run is not None and run.is_terminal:
                return run
            pause = poll_interval
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    status = self._last_status.get(run_identifier, "not known")
                    raise TimeoutError(
                        f"Metadata generation run {run_identifier!r} in domain {domain!r} has not ended "
                        f"after {timeout} s; its status is {status}. The run continues."
                    )
                pause = min(pause, left)
            time.sleep(pause)

    def poll_metadata_generation_run(
        self,
        run_identifier: str,
        *,
        domain_identifier: str | None = None,
        run_type: str | None = None,
        grace: float = NEW_RESOURCE_GRACE,
    ) -> MetadataGenerationRun | None:
        """
        Poll a run once, and log a change of its status or a transient error.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :param run_type: As for :meth:`get_metadata_generation_run`.
        :param grace: As for :meth:`get_started_metadata_generation_run`.
        :return: The run, or ``None`` after a transient error.
        :raises ValueError: No domain is given.
        :raises botocore.exceptions.ClientError: DataZone refuses.
        """
        try:
            run = self.get_started_metadata_generation_run(
                run_identifier, domain_identifier=domain_identifier, run_type=run_type, grace=grace
            )
        except Exception as error:
            if not is_transient(error):
                raise
            self.log.warning("Could not read the run just now, will try again: %s", error)
            return None
        log_status(self.log, run, self._last_status.get(run.id))
        self._last_status[run.id] = run.status
        return run

    def _retry_while_not_found(self, request: Callable[[], T], run_identifier: str, *, deadline: float) -> T:
        """
        Send a request for a run, again every second while DataZone does not find the run.

        :param request: Sends the request.
        :param run_identifier: The run.
        :param deadline: When to stop, on the monotonic clock.
        :return: The result of the request.
        :raises botocore.exceptions.ClientError: DataZone refuses, or does not find the run by the deadline.
        """
        logged = False
        while True:
            try:
                return request()
            except ClientError as error:
                left = deadline - time.monotonic()
                if not may_be_new(error) or left <= 0:
                    raise
            if not logged:
                self.log.info(
                    "DataZone does not find metadata generation run %s yet; trying again for %d s.",
                    sanitize(str(run_identifier)),
                    left,
                )
                logged = True
            time.sleep(min(left, 1))
