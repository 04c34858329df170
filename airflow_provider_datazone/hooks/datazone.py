"""The hook for Amazon DataZone: the only place that talks to boto3."""

from __future__ import annotations

import html
import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    ConnectionError as BotoConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    InvalidConfigError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from airflow_provider_datazone.exceptions import MalformedResponseError, NotConfiguredError
from airflow_provider_datazone.get_provider_info import (
    CONNECTION_FIELDS,
    CONNECTION_TYPE,
    UI_FIELD_BEHAVIOUR,
)
from airflow_provider_datazone.inputs import (
    is_rendered_list,
    native_advice,
    require_text,
    to_botocore_options,
    to_config_arguments,
    to_connection_id,
    to_number,
    to_plain,
    to_text,
    to_verify,
)
from airflow_provider_datazone.metadata_generation import ACTIVE_STATUSES, MetadataGenerationRun, one_line

T = TypeVar("T")

# What DataZone declares, and what the layers in front of it answer in the same cases.
_THROTTLING_CODES = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException"})
_TRANSIENT_CODES = _THROTTLING_CODES | {"InternalServerException", "RequestTimeout"}
# STS, which the role of a connection is assumed at, calls it AccessDenied.
_ACCESS_DENIED_CODES = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedException"})
_PERMANENT_CODES = _ACCESS_DENIED_CODES | {"ValidationException", "ResourceNotFoundException"}
# What DataZone answers to the cancelling of a run that has ended; each is declared.
_ENDED_CODES = frozenset({"ValidationException", "ConflictException"})
# A signature that does not fit the secret, a key that is gone, a session that has ended.
_REJECTED_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


# How OpenSSL reports that a server's certificate is not trusted.
_NOT_TRUSTED = "CERTIFICATE_VERIFY_FAILED"
# Airflow 3 masks nothing shorter than this in logs: every such letter or syllable of a log would be masked.
MIN_MASKED_LENGTH = 5
# What Python raises where a value is of another kind than somebody has expected.
_MISTAKES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# Raised by botocore for configuration that no retry changes.
_CONFIGURATION_ERRORS = (
    ConfigNotFound,
    ConfigParseError,
    InvalidConfigError,
    InvalidRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
# Seconds for which Get and Cancel may not know a run that was started a moment ago.
NEW_RUN_GRACE = 30
# How often botocore sent the request: in the log of a task it would read as the number of its retries.
_BOTOCORE_RETRIES = re.compile(r" \(reached max retries: \d+\)")
# How urllib3 begins to tell of credentials with a line break in them, and whole.
_INVALID_HEADER = "Invalid header value"


def is_throttling(error: BaseException) -> bool:
    """Whether DataZone refused a request for its rate alone."""
    return isinstance(error, ClientError) and (
        error_code(error) in _THROTTLING_CODES or _status(error) == 429
    )


def is_transient(error: BaseException) -> bool:
    """Whether an error passes by itself: throttling, a service's fault, a lost connection, a time-out."""
    if isinstance(error, ClientError):
        return is_throttling(error) or error_code(error) in _TRANSIENT_CODES or _status(error) >= 500
    if isinstance(error, SSLError):
        # A broken handshake passes; a certificate that is not trusted, or cannot be read, stays so.
        return _NOT_TRUSTED not in str(error) and not _is_unreadable_certificate(error)
    return isinstance(
        error, (BotoConnectionError, HTTPClientError, ResponseParserError, MalformedResponseError)
    )


def is_permanent(error: BaseException) -> bool:
    """Whether an error stays however often a task is retried: wrong input, or no permission."""
    if isinstance(error, ClientError):
        return error_code(error) in _PERMANENT_CODES
    return isinstance(error, (ParamValidationError, NotConfiguredError))


def is_not_found(error: BaseException) -> bool:
    """Whether DataZone does not know what a request was about, or does not know it yet."""
    return isinstance(error, ClientError) and error_code(error) == "ResourceNotFoundException"


def is_conflict(error: BaseException) -> bool:
    """Whether DataZone refused a request because of what is going on there just now."""
    return isinstance(error, ClientError) and error_code(error) == "ConflictException"


def may_have_ended(error: BaseException) -> bool:
    """Whether DataZone refuses to cancel a run, which it does for one that has ended."""
    return isinstance(error, ClientError) and error_code(error) in _ENDED_CODES


def is_access_denied(error: BaseException) -> bool:
    """Whether DataZone, or IAM, does not permit a request."""
    return isinstance(error, ClientError) and error_code(error) in _ACCESS_DENIED_CODES


def refuses_every_asset(error: BaseException) -> bool:
    """Whether DataZone refuses a Start for what all assets have in common: the principal, or the domain."""
    return _is_denied_by_iam(error) or (is_not_found(error) and "domain" in _subject_of(error))


def refuses_every_asset_of_project(error: BaseException) -> bool:
    """Whether DataZone refuses a Start for the asset's project: it is unknown, or not the principal's."""
    return is_access_denied(error) or (is_not_found(error) and "project" in _subject_of(error))


def _is_denied_by_iam(error: BaseException) -> bool:
    return is_access_denied(error) and "not authorized to perform" in str(error)


def _subject_of(error: BaseException) -> str:
    """Return what DataZone does not know, as far as its message says; empty where that is the asset."""
    message = _message(error).lower()
    return "" if "asset" in message else message


def is_rejected_credentials(error: BaseException) -> bool:
    """Whether the credentials have expired or were replaced, so that others may be there by now."""
    if isinstance(error, ClientError):
        return error_code(error) in _REJECTED_CODES
    return isinstance(error, (CredentialRetrievalError, NoCredentialsError))


def _message(error: BaseException) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Message", ""))


def error_code(error: ClientError) -> str:
    """Return the service's code of an error, empty if it sent none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_unreadable_certificate(error: SSLError) -> bool:
    """Whether a file of certificates on this machine is the problem, and not the other end."""
    reasons = getattr(error.kwargs.get("error"), "args", ())
    # A handshake fails with an error of OpenSSL's part of that name; its others, and the operating system's,
    # come from reading files.
    return any(
        isinstance(reason, OSError)
        and not (isinstance(reason, ssl.SSLError) and getattr(reason, "library", None) in ("SSL", None))
        for reason in reasons
    )


def _is_denied_role(error: BaseException) -> bool:
    """Whether STS denies the role of the connection: no request has reached DataZone."""
    return is_access_denied(error) and str(getattr(error, "operation_name", "")).startswith("AssumeRole")


def _missing_permission(error: BaseException) -> Iterator[str]:
    """Yield one sentence that says which permission a denied request lacks: IAM's, or DataZone's own."""
    if not is_access_denied(error):
        return
    message = _message(error)
    operation = str(getattr(error, "operation_name", "the action"))
    if _is_denied_role(error):
        yield (
            "Check that the principal's policy allows sts:AssumeRole on the role, and that the role's trust "
            "policy allows the principal."
        )
        return
    policy = (
        f"the IAM policy of the connection's principal must allow datazone:{operation}, with "
        '"Resource": "*" unless the action is datazone:GetDomain'
    )
    membership = (
        "the connection's principal needs an activated user profile in the domain, and membership in the "
        "project that owns the asset"
    )
    if "not authorized to perform" in message:
        yield f"IAM denies this: {policy}."
    elif "not permitted to perform operation" in message:
        yield f"DataZone denies this, whatever IAM allows: {membership}."
    else:
        yield f"Check two permissions: {policy}; and {membership}."


def _missing_item(error: BaseException, about: str, request: dict[str, Any]) -> Iterator[str]:
    """Yield one sentence that says what DataZone does not know, unless its message does."""
    if not is_not_found(error):
        return
    message = _message(error)
    identifiers = [value for name, value in request.items() if name.lower().endswith("identifier")]
    identifiers.append(request.get("target", {}).get("identifier"))
    if any(re.search(rf"(?<![\w-]){re.escape(each)}(?![\w-])", message) for each in identifiers if each):
        return
    subject, project = _subject_of(error), request.get("owningProjectIdentifier")
    where = "the domain and the AWS Region"
    revision = request.get("revision") or request.get("target", {}).get("revision")
    if about.startswith("run ") and not subject.startswith("domain"):
        yield f"There is no such run in this domain: check the run identifier, {where}."
    elif "project" in subject and project:
        named = one_line(repr(project), length=200)
        yield f"There is no project {named} in this domain: check the project identifier, {where}."
    elif about.startswith(("asset ", "listing metadata generation runs of ")) and "domain" not in subject:
        if revision:
            yield f"There is no such asset or revision in this domain: check both, {where}."
        else:
            yield f"There is no such asset in this domain: check the asset identifier, {where}."
    elif "domain" in subject:
        yield "There is no such domain in this Region: check the domain identifier and the AWS Region."
    else:
        yield f"Check {where}."


def _connection_advice(error: BaseException) -> Iterator[str]:
    """Yield one sentence that says what may be wrong with a connection, with the labels of its form."""
    if isinstance(error, NoRegionError):
        yield "Set the AWS Region, 'region_name' in the extra."
    elif is_rejected_credentials(error):
        yield "Check the AWS Access Key ID and the AWS Secret Access Key."
        if isinstance(error, ClientError) and error_code(error).startswith("Expired"):
            yield "Renew the session token, if there is one: it has expired."
    elif isinstance(error, ProxyConnectionError):
        yield "Check the proxy."
    elif isinstance(error, SSLError) and _is_unreadable_certificate(error):
        yield "Check verify and the CA bundle."
    elif isinstance(error, SSLError) and _NOT_TRUSTED in str(error):
        yield "Check verify, the CA bundle and the endpoint URL."
    elif isinstance(error, BotoConnectionError):
        yield "Check the AWS Region and the endpoint URL."


def log_status(log: logging.Logger, run: MetadataGenerationRun, last_status: str | None) -> None:
    """
    Log what a look at a run that is being waited for has shown; a change is worth a line at INFO.

    :param log: Where to.
    :param run: The run.
    :param last_status: What the look before had shown, ``None`` for the first.
    """
    if run.status == last_status:
        log.debug("Metadata generation run %s is still %s.", run.id, run.status)
    elif run.is_active or run.is_terminal:
        log.info("Metadata generation run %s is %s.", run.id, run.status)
    else:
        log.warning(
            "Metadata generation run %s has the status %r, which this version does not know; waiting on.",
            run.id,
            run.status,
        )


def list_of_types(types: Sequence[str]) -> list[str]:
    """
    Return run types as a list.

    :raises ValueError: They are none: a template that did not render to a list, for example.
    """
    listed = to_plain("types", types)
    if not isinstance(listed, list):
        # A text would be taken for one type a letter.
        raise NotConfiguredError(
            f"types must be a list of run types, and is {one_line(repr(listed))}.{native_advice(listed)}"
        )
    if rendered := [item for item in listed if is_rendered_list(item)]:
        raise NotConfiguredError(
            f"types must be a list of run types, and has {one_line(repr(rendered[0]))} as one of them."
            f"{native_advice(rendered[0])}"
        )
    if not listed:
        raise NotConfiguredError("types must name at least one run type, got an empty list.")
    if not all(isinstance(run_type, str) for run_type in listed):
        raise NotConfiguredError(f"types must be a list of texts, and is {one_line(repr(listed))}.")
    return listed


def check_interval(name: str, seconds: Any) -> float:
    """
    Return the seconds between two polls.

    :param name: The parameter.
    :param seconds: The number, above 0: without a pause, a wait would poll as fast as it can.
    :raises ValueError: It is not a number above 0.
    """
    number = check_seconds(name, seconds)
    if number <= 0:
        raise NotConfiguredError(f"{name} must be above 0 seconds, got {seconds!r}.")
    return number


def check_seconds(name: str, seconds: Any) -> float:
    """
    Return a number of seconds, if it is one that somebody can wait.

    :param name: What it is for.
    :param seconds: The number.
    :raises ValueError: It is none.
    """
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    # Past that, and where it is no number at all (NaN), neither a clock nor a timer can be set.
    if not is_number or not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise NotConfiguredError(f"{name} must be a number of seconds, and is {one_line(repr(seconds))}.")
    return float(seconds)


class DataZoneHook(AwsBaseHook):
    """
    Interact with Amazon DataZone, above all with its metadata generation runs.

    A thick wrapper around ``boto3.client("datazone")``; ``conn`` is that client, for whatever has no method
    here. Errors of the service are botocore's own (:class:`botocore.exceptions.ClientError`), their message
    completed with what they were about.

    An empty text, as of a template that rendered to nothing, counts as not passed in every parameter of the
    hook and its methods. Identifiers and revisions may be integers.

    :param aws_conn_id: The Airflow connection, of type ``aws`` or ``awsdatazone``. It must exist, except
        for ``aws_default``: where that is not defined, and for ``None``, boto3's own credential chain
        is used. An empty text stands for the default. Default ``aws_default``.
    :param region_name: AWS Region; default from the connection.
    :param verify: Whether to verify TLS certificates, also as text (``"True"``, ``"False"``), or the path of
        a CA bundle, a file; default from the connection.
    :param config: Configuration of the botocore client; default from the connection.
    :raises ValueError: A parameter cannot be used.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/Welcome.html
    """

    conn_type = CONNECTION_TYPE
    hook_name = "Amazon DataZone"

    def __init__(
        self,
        aws_conn_id: str | None = "aws_default",
        *,
        region_name: str | None = None,
        verify: bool | str | None = None,
        config: Config | dict[str, Any] | None = None,
    ) -> None:
        if config is not None and not isinstance(config, Config):
            try:
                config = Config(**to_config_arguments(to_botocore_options(config) or {}))
            except NotConfiguredError:
                raise
            except (BotoCoreError, *_MISTAKES) as error:
                told = one_line(f"{type(error).__name__}: {error}")
                raise NotConfiguredError(f"botocore_config cannot be used: {told}") from None
        super().__init__(
            aws_conn_id=to_connection_id(aws_conn_id),
            region_name=to_text("region_name", region_name),
            verify=to_verify(verify),
            config=config,
            client_type="datazone",
        )
        self._last_status: dict[str, str] = {}

    # ----------------------------------------------------------------- runs

    def get_metadata_generation_run(
        self, run_identifier: str, *, domain_identifier: str | None = None, run_type: str | None = None
    ) -> MetadataGenerationRun:
        """
        Read a metadata generation run, with its typeStats.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :param run_type: Answer for this type alone; by default for all of the run's types.
        :raises ValueError: No domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused, e.g. ``ResourceNotFoundException``.
        :raises MalformedResponseError: The answer was no run.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetMetadataGenerationRun.html
        """
        run_identifier = require_text("run_identifier", run_identifier)
        about = f"run {run_identifier!r}"
        domain = self.resolve_domain_identifier(domain_identifier)
        response = self._call(
            "get_metadata_generation_run",
            about,
            domainIdentifier=domain,
            identifier=run_identifier,
            type=to_text("run_type", run_type),
        )
        return self._parse_run(response, about, domain)

    def get_started_metadata_generation_run(
        self,
        run_identifier: str,
        *,
        domain_identifier: str | None = None,
        run_type: str | None = None,
        grace: float = NEW_RUN_GRACE,
    ) -> MetadataGenerationRun:
        """
        Read a run that may have been started a moment ago, so that Get may not know it yet.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :param run_type: As for :meth:`get_metadata_generation_run`.
        :param grace: Seconds for which DataZone may not know it. Default 30.
        :raises ValueError: No domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused: ``ResourceNotFoundException`` where it
            still does not know the run.
        :raises MalformedResponseError: The answer was no run.
        """
        return self._retry_until_known(
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
        Start a metadata generation run. Each one counts against the account's monthly quota.

        :param asset_identifier: The asset to generate metadata for.
        :param types: What to generate; see :data:`~airflow_provider_datazone.metadata_generation.RUN_TYPES`.
        :param owning_project_identifier: The project that owns the asset; default from the connection.
        :param asset_revision: The asset's revision; by default the service takes the latest.
        :param client_token: 1 to 128 printable ASCII characters. The same token starts one run, however
            often it is sent; by default every call has its own, and starts a run of its own.
        :param domain_identifier: The domain; default from the connection.
        :return: The run as Start answers it, without target and typeStats.
        :raises ValueError: No domain or owning project is known.
        :raises botocore.exceptions.ClientError: DataZone refused.
        :raises MalformedResponseError: The answer was no run.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_StartMetadataGenerationRun.html
        """
        asset_identifier = require_text("asset_identifier", asset_identifier)
        about = f"asset {asset_identifier!r}"
        target = {"type": "ASSET", "identifier": asset_identifier}
        asset_revision = to_text("asset_revision", asset_revision)
        if asset_revision is not None:
            target["revision"] = asset_revision
        domain = self.resolve_domain_identifier(domain_identifier)
        response = self._call(
            "start_metadata_generation_run",
            about,
            domainIdentifier=domain,
            target=target,
            types=list_of_types(types),
            owningProjectIdentifier=self.resolve_owning_project_identifier(owning_project_identifier),
            clientToken=to_text("client_token", client_token),
        )
        return self._parse_run(response, about, domain)

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
        List metadata generation runs, lazily: a page is asked for when it is needed.

        :param domain_identifier: The domain; default from the connection.
        :param status: Only runs of this status.
        :param run_type: Only runs of this type.
        :param asset_identifier: Only runs for this asset.
        :param page_size: Runs a request, 1 to 50. Default 50.
        :return: The runs, without typeStats, in the service's order.
        :raises ValueError: No domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused.
        :raises MalformedResponseError: An item was no run.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_ListMetadataGenerationRuns.html
        """
        return _iterate(
            partial(
                self.list_metadata_generation_runs_page,
                # Resolved before the iterator is handed out, so that the error comes from the call itself.
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
        domain_identifier: str | None = None,
    ) -> MetadataGenerationRun | None:
        """
        Find the run that is at work on an asset just now, the youngest where there are several.

        :param asset_identifier: The asset.
        :param types: What it generates: these types, no more and no less.
        :param asset_revision: Only a run for this revision; by default for any.
        :param domain_identifier: The domain; default from the connection.
        :return: The run as List answers it, without typeStats, or ``None``.
        :raises ValueError: No domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused.
        """
        asset_identifier = require_text("asset_identifier", asset_identifier)
        asset_revision = to_text("asset_revision", asset_revision)
        domain = self.resolve_domain_identifier(domain_identifier)
        wanted = set(list_of_types(types))
        # SUBMITTED first: a run that moves on between the two requests is still seen.
        found = [
            run
            for status in sorted(ACTIVE_STATUSES, reverse=True)
            for run in self.list_metadata_generation_runs(
                domain_identifier=domain, status=status, asset_identifier=asset_identifier
            )
            if set(run.types) == wanted
            and run.asset_id == asset_identifier
            and asset_revision in (None, run.asset_revision)
        ]
        return max(found, key=lambda run: run.created_at.timestamp() if run.created_at else 0, default=None)

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

        :param next_token: Where the page before left off.
        :return: The page's runs, and where it leaves off, ``None`` on the last.
        """
        about = "listing metadata generation runs"
        asset_identifier = to_text("asset_identifier", asset_identifier)
        if asset_identifier is not None:
            about += f" of asset {asset_identifier!r}"
        domain = self.resolve_domain_identifier(domain_identifier)
        items, following = self._call_for_page(
            "list_metadata_generation_runs",
            about,
            domainIdentifier=domain,
            status=to_text("status", status),
            type=to_text("run_type", run_type),
            targetIdentifier=asset_identifier,
            maxResults=page_size,
            nextToken=next_token,
        )
        return [self._parse_run(item, about, domain) for item in items], following

    def cancel_metadata_generation_run(
        self, run_identifier: str, *, domain_identifier: str | None = None
    ) -> None:
        """
        Cancel a metadata generation run.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :raises ValueError: No domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused: ``ValidationException`` or
            ``ConflictException`` where the run has already ended.

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
        self, run_identifier: str, *, domain_identifier: str | None = None, grace: float = NEW_RUN_GRACE
    ) -> MetadataGenerationRun:
        """
        Cancel a metadata generation run, where it has not ended by itself.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :param grace: Seconds for which DataZone may not know the run, which may have been started a moment
            ago. Default 30.
        :return: The run as it is afterwards.
        :raises ValueError: No domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused, and the run has not ended.
        """
        deadline = time.monotonic() + grace
        refusal: ClientError | None = None
        try:
            self._retry_until_known(
                lambda: self.cancel_metadata_generation_run(
                    run_identifier, domain_identifier=domain_identifier
                ),
                run_identifier,
                deadline=deadline,
            )
        except ClientError as error:
            if not may_have_ended(error):
                raise
            refusal = error
        run = self._retry_until_known(
            lambda: self.get_metadata_generation_run(run_identifier, domain_identifier=domain_identifier),
            run_identifier,
            deadline=deadline,
        )
        if refusal is None:
            self.log.info("Metadata generation run %s was canceled; it is %s.", run.id, run.status)
        elif run.is_terminal:
            self.log.info("Metadata generation run %s had ended already: %s.", run.id, run.status)
        else:
            raise refusal
        return run

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
        Wait until a metadata generation run has ended, however it ended.

        Throttling, faults of the service and lost connections are logged and waited out. A run that DataZone
        does not know has 30 seconds to become known: it may have been started a moment ago.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :param run_type: As for :meth:`get_metadata_generation_run`.
        :param poll_interval: Seconds between two looks. Default 30.
        :param timeout: Seconds to wait in all; by default without end.
        :return: The terminal run.
        :raises TimeoutError: The run had not ended after ``timeout`` seconds. It goes on.
        :raises ValueError: No domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused.
        """
        check_seconds("poll_interval", poll_interval)
        run_identifier = require_text("run_identifier", run_identifier)
        domain = self.resolve_domain_identifier(domain_identifier)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            run = self.poll_metadata_generation_run(
                run_identifier,
                domain_identifier=domain,
                run_type=run_type,
                # It is part of the time to wait.
                grace=NEW_RUN_GRACE if deadline is None else min(NEW_RUN_GRACE, deadline - time.monotonic()),
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
                        f"after {timeout} s; its status is {status}. The run goes on."
                    )
                pause = min(pause, left)
            time.sleep(pause)

    def poll_metadata_generation_run(
        self,
        run_identifier: str,
        *,
        domain_identifier: str | None = None,
        run_type: str | None = None,
        grace: float = NEW_RUN_GRACE,
    ) -> MetadataGenerationRun | None:
        """
        Take one look at a run that is being waited for: a change is logged, passing trouble too.

        :param run_identifier: The run.
        :param domain_identifier: The domain; default from the connection.
        :param run_type: As for :meth:`get_metadata_generation_run`.
        :param grace: As for :meth:`get_started_metadata_generation_run`.
        :return: The run, or ``None`` where DataZone could not be asked just now.
        :raises ValueError: No domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused.
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

    def _retry_until_known(self, request: Callable[[], T], run_identifier: str, *, deadline: float) -> T:
        """
        Send a request about a run, again each second while DataZone does not know the run.

        :param request: Sends it.
        :param run_identifier: The run.
        :param deadline: When to stop, on the monotonic clock.
        :return: What the request returned.
        :raises botocore.exceptions.ClientError: DataZone refused, or did not know the run by the deadline.
        """
        logged = False
        while True:
            try:
                return request()
            except ClientError as error:
                left = deadline - time.monotonic()
                if not is_not_found(error) or left <= 0:
                    raise
            if not logged:
                self.log.info(
                    "DataZone does not know metadata generation run %s yet; trying again for %d s.",
                    one_line(str(run_identifier)),
                    left,
                )
                logged = True
            time.sleep(min(left, 1))

    # ---------------------------------------------------------- predictions

    def accept_predictions(
        self,
        asset_identifier: str,
        *,
        domain_identifier: str | None = None,
        revision: str | None = None,
        rule: str | None = None,
        threshold: float | None = None,
        choices: Sequence[dict[str, Any]] | None = None,
        client_token: str | None = None,
    ) -> str:
        """
        Accept what was generated for an asset; this makes a new revision of the asset.

        :param asset_identifier: The asset.
        :param domain_identifier: The domain; default from the connection.
        :param revision: The asset's revision; by default the latest.
        :param rule: ``ALL`` or ``NONE``.
        :param threshold: With ``rule``: the confidence from which a prediction is accepted, 0 to 1.
        :param choices: AWS's ``acceptChoices``:
            ``{"predictionTarget": str, "predictionChoice"?: int, "editedValue"?: str}``.
        :param client_token: The same token accepts once, however often it is sent.
        :return: The asset's new revision.
        :raises ValueError: Neither rule nor choices are given, or no domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_AcceptPredictions.html
        """
        return self._answer_predictions(
            "accept", asset_identifier, domain_identifier, revision, rule, threshold, choices, client_token
        )

    def reject_predictions(
        self,
        asset_identifier: str,
        *,
        domain_identifier: str | None = None,
        revision: str | None = None,
        rule: str | None = None,
        threshold: float | None = None,
        choices: Sequence[dict[str, Any]] | None = None,
        client_token: str | None = None,
    ) -> str:
        """
        Reject what was generated for an asset.

        :param asset_identifier: The asset.
        :param domain_identifier: The domain; default from the connection.
        :param revision: The asset's revision; by default the latest.
        :param rule: ``ALL`` or ``NONE``.
        :param threshold: With ``rule``: the confidence that the rule goes by, 0 to 1.
        :param choices: AWS's ``rejectChoices``:
            ``{"predictionTarget": str, "predictionChoices"?: list[int]}``.
        :param client_token: The same token rejects once, however often it is sent.
        :return: The asset's revision.
        :raises ValueError: Neither rule nor choices are given, or no domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_RejectPredictions.html
        """
        return self._answer_predictions(
            "reject", asset_identifier, domain_identifier, revision, rule, threshold, choices, client_token
        )

    def _answer_predictions(
        self,
        answer: str,
        asset_identifier: str,
        domain_identifier: str | None,
        revision: str | None,
        rule: str | None,
        threshold: float | None,
        choices: Sequence[dict[str, Any]] | None,
        client_token: str | None,
    ) -> str:
        asset_identifier = require_text("asset_identifier", asset_identifier)
        about = f"asset {asset_identifier!r}"
        rule, threshold = to_text("rule", rule), to_number("threshold", threshold)
        choices = to_plain("choices", choices)
        if rule is None and choices is None:
            raise NotConfiguredError(
                f"Nothing says which predictions for {one_line(about, length=200)} to {answer}: "
                "pass rule ('ALL' or 'NONE', with a threshold or without) or choices."
            )
        if threshold is not None and rule is None:
            raise NotConfiguredError("threshold goes with a rule: pass rule='ALL' beside it.")
        edited_values = _edited_values(() if choices is None else choices)
        request: dict[str, Any] = {f"{answer}Choices": choices}
        if rule is not None:
            request[f"{answer}Rule"] = {"rule": rule}
            if threshold is not None:
                request[f"{answer}Rule"]["threshold"] = threshold
        domain = self.resolve_domain_identifier(domain_identifier)
        response = self._call(
            f"{answer}_predictions",
            about,
            # Whatever DataZone, or something in front of it, repeats of what it was sent.
            untold=edited_values,
            domainIdentifier=domain,
            identifier=asset_identifier,
            revision=to_text("revision", revision),
            clientToken=to_text("client_token", client_token),
            **request,
        )
        member = "revision" if answer == "accept" else "assetRevision"
        if not isinstance(response.get(member), str):
            raise self._malformed(f"answered without {member}", about, domain)
        return one_line(response[member])

    # --------------------------------------------------------------- assets

    def search_assets(
        self,
        *,
        domain_identifier: str | None = None,
        owning_project_identifier: str | None = None,
        search_text: str | None = None,
        filters: dict[str, Any] | None = None,
        sort: dict[str, Any] | None = None,
        additional_attributes: Sequence[str] | None = None,
        page_size: int = 50,
    ) -> Iterator[dict[str, Any]]:
        """
        Search a domain's inventory for assets, lazily: a page is asked for when it is needed.

        DataZone cannot be asked for assets that lack something, a description for example: ask for all,
        with ``additional_attributes=["FORMS"]`` where it may stand in a form, and look at each.

        :param domain_identifier: The domain; default from the connection.
        :param owning_project_identifier: Only assets of this project; by default of any that the caller may
            see, the connection's ``owning_project_identifier`` notwithstanding.
        :param search_text: Only assets with this text in an attribute that can be searched.
        :param filters: AWS's ``FilterClause``: ``{"filter": {"attribute": str, "value": str}}``, or a list of
            such clauses under ``and`` or ``or``. Attributes of a form are called ``FormName.attribute``.
            ``operator`` and ``intValue`` need botocore 1.42.30.
        :param sort: AWS's ``SearchSort``: ``{"attribute": str, "order"?: "ASCENDING" | "DESCENDING"}``;
            by default the service's order.
        :param additional_attributes: What else to answer, ``["FORMS"]`` for example.
        :param page_size: Assets a request, 1 to 50. Default 50.
        :return: The latest revisions of the assets as AWS's ``AssetItem``:
            ``{"identifier": str, "name": str, "description"?: str, "typeIdentifier": str, ...}``.
        :raises ValueError: No domain is known.
        :raises botocore.exceptions.ClientError: DataZone refused.
        :raises MalformedResponseError: An item was no asset.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_Search.html
        """
        return _iterate(
            partial(
                self._search_page,
                # Resolved before the iterator is handed out, so that the error comes from the call itself.
                domainIdentifier=self.resolve_domain_identifier(domain_identifier),
                searchScope="ASSET",
                owningProjectIdentifier=to_text("owning_project_identifier", owning_project_identifier),
                searchText=to_text("search_text", search_text),
                filters=filters,
                sort=sort,
                additionalAttributes=additional_attributes,
                maxResults=page_size,
            )
        )

    def _search_page(
        self, *, next_token: str | None, **request: Any
    ) -> tuple[list[dict[str, Any]], str | None]:
        about = "searching for assets"
        items, following = self._call_for_page("search", about, nextToken=next_token, **request)
        assets = [item.get("assetItem") if isinstance(item, dict) else None for item in items]
        if not all(isinstance(asset, dict) for asset in assets):
            problem = "answered with something that is no asset"
            raise self._malformed(problem, about, request["domainIdentifier"])
        return [asset for asset in assets if asset is not None], following

    # ----------------------------------------------------------- connection

    def resolve_domain_identifier(self, domain_identifier: str | None = None) -> str:
        """
        Return the domain to work in: the argument, else the connection's.

        :param domain_identifier: What the caller passed.
        :raises ValueError: Neither names one.
        """
        return self._resolve("domain_identifier", domain_identifier)

    def resolve_owning_project_identifier(self, owning_project_identifier: str | None = None) -> str:
        """
        Return the project that owns the assets: the argument, else the connection's.

        :param owning_project_identifier: What the caller passed.
        :raises ValueError: Neither names one.
        """
        return self._resolve("owning_project_identifier", owning_project_identifier)

    def _resolve(self, name: str, argument: str | None) -> str:
        try:
            value = to_text(name, argument) or self._connection_default(name)
        except NotConfiguredError as error:
            raise NotConfiguredError(
                f"{str(error).rstrip('.')}, as passed or as in the extra of the connection "
                f"(aws_conn_id={self.aws_conn_id!r})."
            ) from None
        if value is not None:
            return value
        key = f"{name!r}"
        if self.conn_config.conn_type != CONNECTION_TYPE:
            key += " under 'service_config.datazone'"
        raise NotConfiguredError(
            f"No {name.replace('_', ' ')} is known: pass {name}, or set {key} in the extra of the connection "
            f"(aws_conn_id={self.aws_conn_id!r})."
        )

    def _connection_default(self, name: str) -> str | None:
        places: list[dict[str, str]] = [self.service_config]
        if self.conn_config.conn_type == CONNECTION_TYPE:
            places.insert(0, self.conn_config.extra_config)
        found = (to_text(name, place.get(name)) for place in places)
        return next((value for value in found if value is not None), None)

    def for_polling(self, requests_at_a_time: int) -> DataZoneHook:
        """
        Return a hook on the same connection, looked up already, for somebody who asks again anyway.

        Its client sends a request once, so that the caller's rate is the rate; and it does not wait for long,
        so that a thread is soon free again. What the connection or ``config`` says of time-outs still holds.

        :param requests_at_a_time: How many threads send requests at most; each has a connection to reuse.
        """
        hook = DataZoneHook(
            self.aws_conn_id, region_name=self._region_name, verify=self._verify, config=self._config
        )
        patience = Config(connect_timeout=10, read_timeout=30, max_pool_connections=requests_at_a_time)
        hook.conn_config = AwsConnectionWrapper(
            conn=self.conn_config,
            botocore_config=patience.merge(self.config).merge(Config(retries={"total_max_attempts": 1})),
        )
        return hook

    def get_client_type(self, *args: Any, **kwargs: Any) -> Any:
        """
        Return a client, as the Amazon provider does, once the files that TLS needs were read.

        :raises ValueError: One of them cannot be read: requests would fail for ever, and some look as if they
            might succeed the next time.
        """
        _check_certificates(self.verify, self.config)
        return super().get_client_type(*args, **kwargs)

    def close(self) -> None:
        """Close the client, where there is one."""
        if "conn" in self.__dict__:
            self.conn.close()

    @cached_property
    def conn_config(self) -> AwsConnectionWrapper:
        """
        The Airflow connection, as the Amazon provider wraps it (cached).

        :raises AirflowNotFoundException: A connection was named that does not exist.
        :raises ValueError: Its extra is not a JSON object.
        """
        connection = self._find_connection()
        extra = {} if connection is None else self._read_extra(connection)
        try:
            config = self._wrap(connection, extra)
            if config.service_config in ("", None):
                config.service_config = {}
            if not all(isinstance(service, dict) for service in config.service_config.values()):
                raise ValueError("'service_config' must have an object for each service")
            # What is empty in a connection of type `aws` must not hide a default either, and an empty
            # `verify` must not turn verification off, as it does in some versions of botocore.
            config.verify = to_verify(config.verify)
            if isinstance(config.region_name, str):
                config.region_name = to_text("region_name", config.region_name)
            config.profile_name, config.endpoint_url = (
                config.profile_name or None,
                config.endpoint_url or None,
            )
            config.service_config = {
                name: {key: value for key, value in service.items() if value not in ("", None)}
                for name, service in config.service_config.items()
            }
        except (BotoCoreError, *_MISTAKES) as error:
            secrets = _secrets(connection and connection.password, extra)
            told = one_line(_without(secrets, f"{type(error).__name__}: {error}"))
            # What is in the connection is in what led to it as well.
            raise NotConfiguredError(f"The connection {self.aws_conn_id!r} cannot be used: {told}") from None
        return config

    def _wrap(self, connection: Any, extra: dict[str, Any]) -> AwsConnectionWrapper:
        if connection is not None and connection.conn_type == CONNECTION_TYPE:
            # The same thing as an `aws` connection, which the wrapper warns about under another name.
            # A field of the form that was left empty is stored empty, and must not hide a default.
            extra = {key: value for key, value in extra.items() if value not in ("", None)}
            connection = AwsConnectionWrapper.from_connection_metadata(
                conn_id=connection.conn_id, login=connection.login, password=connection.password, extra=extra
            )
            connection.conn_type = CONNECTION_TYPE
        return AwsConnectionWrapper(
            conn=connection, region_name=self._region_name, botocore_config=self._config, verify=self._verify
        )

    def _find_connection(self) -> Any:
        if not self.aws_conn_id:
            return None
        try:
            connection = self.get_connection(self.aws_conn_id)
        except (AirflowNotFoundException, ImportError) as error:
            # Airflow 3.0 raises ImportError where no task is running, after looking in the environment.
            # The Amazon provider goes on with whatever credentials the machine has, also when a
            # connection was named: a task under a wrong identity. Only the default may be absent.
            if isinstance(error, ImportError) and "SUPERVISOR_COMMS" not in str(error):
                raise
            if self.aws_conn_id != self.default_conn_name:
                raise AirflowNotFoundException(
                    f"The connection {self.aws_conn_id!r} is not defined. Check the spelling of aws_conn_id, "
                    "define the connection, or pass aws_conn_id=None to use the credentials that boto3 finds "
                    "by itself."
                ) from None
            self.log.warning("No connection %r is defined: using boto3's own credentials.", self.aws_conn_id)
            return None
        return connection

    def _read_extra(self, connection: Any) -> dict[str, Any]:
        """Read the extra; Airflow takes one that is no JSON for empty, and its role or keys for none."""
        try:
            extra = json.loads(connection.extra) if connection.extra else {}
            if isinstance(extra, dict):
                return extra
            problem = f"it is a {type(extra).__name__}"
        except (ValueError, RecursionError) as error:
            problem = str(error)
        raise NotConfiguredError(
            f"The extra of connection {self.aws_conn_id!r} must be a JSON object: {problem}"
        )

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the connection's own fields; from 3.2 on, Airflow reads them in provider info."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import StringField

        return {
            name: StringField(label, description=description, widget=BS3TextFieldWidget())
            for name, (label, description) in CONNECTION_FIELDS.items()
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the form shows Airflow's own fields; asked for before Airflow 3.2, as above."""
        return {key.replace("-", "_"): value for key, value in UI_FIELD_BEHAVIOUR.items()}

    def test_connection(self) -> tuple[bool, str]:
        """
        Test the connection: read its domain where it names one, else ask STS who we are.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetDomain.html
        """
        try:
            domain_identifier = self._connection_default("domain_identifier")
            if not domain_identifier:
                passed, message = super().test_connection()
                return passed, one_line(_without_signature(message))
            domain = self.conn.get_domain(identifier=domain_identifier)
        except NotConfiguredError as error:
            return False, one_line(_without_signature(str(error)))
        except Exception as error:
            # Without the connection's name: Airflow tests it under one that it makes up.
            message = one_line(_without_signature(str(error))).rstrip(".")
            return False, " ".join([f"{message}.", *self._what_to_check(error)])
        name = f"{domain['name']!r} " if domain.get("name") else ""
        return True, one_line(
            f"Domain {name}({domain_identifier}) is {domain.get('status', 'there')}. "
            "This proves datazone:GetDomain alone: tasks need other permissions, too."
        )

    @property
    def _known_region(self) -> str | None:
        """The client's Region, or the task's own: building the client may be what failed, and would again."""
        region: str | None = self.conn_region_name if "conn" in self.__dict__ else self.region_name
        return region

    def _what_to_check(self, error: Exception) -> Iterator[str]:
        """Yield what may be wrong with a connection whose test has failed, with the labels of its form."""
        yield from _connection_advice(error)
        if is_permanent(error) and not _is_denied_role(error):
            domain = self._connection_default("domain_identifier")
            yield f"Check the domain {domain!r} and the AWS Region {self._known_region!r}."
        yield from _missing_permission(error)

    # ------------------------------------------------------------- requests

    def _call(
        self, operation: str, about: str, /, *, untold: Sequence[str] = (), **request: Any
    ) -> dict[str, Any]:
        """
        Send a request, without the members that are ``None``.

        :param untold: What no error may tell, longest first.
        """
        with self._explain_errors(about, request, untold):
            response: dict[str, Any] = getattr(self.conn, operation)(
                **{name: value for name, value in request.items() if value is not None}
            )
        return response

    def _call_for_page(
        self, operation: str, about: str, /, **request: Any
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Send a request for a page; return its items, and where it leaves off."""
        page = self._call(operation, about, **request)
        items, following = page.get("items"), page.get("nextToken") or None
        problem = None
        if not isinstance(items, list):
            # The model allows for a bare `{}`; anything longer is a body that botocore could not read.
            if page["ResponseMetadata"]["HTTPHeaders"].get("content-length", "2") != "2":
                problem = "answered without items"
            items = []
        elif following is not None and not isinstance(following, str):
            problem = "answered with a nextToken that is no text"
        elif following is not None and following == request.get("nextToken"):
            problem = "answered with the same page again"
        if problem is not None:
            raise self._malformed(problem, about, request["domainIdentifier"])
        return items, following

    @contextmanager
    def _explain_errors(
        self, about: str, request: dict[str, Any], untold: Sequence[str] = ()
    ) -> Iterator[None]:
        """Complete an error with what it was about and what to check, and redact sensitive values."""
        domain = request.get("domainIdentifier") or request["identifier"]

        def tell(error: Exception) -> str:
            config = self.conn_config
            secrets = _secrets(config.password, config.extra_config)
            own = _BOTOCORE_RETRIES.sub("", _without_signature(str(error)))
            message = _without([*untold, *secrets], own)
            told = f"{one_line(message)} ({self._place(about, domain)})"
            advice = (
                *_missing_permission(error),
                *_missing_item(error, about, request),
                *_connection_advice(error),
            )
            return " ".join([told, *advice])

        try:
            yield
        except NoRegionError:
            raise NotConfiguredError(
                "No AWS Region: pass region_name, or set 'region_name' in the extra of the connection "
                f"(aws_conn_id={self.aws_conn_id!r})."
            ) from None
        except _CONFIGURATION_ERRORS as error:
            raise NotConfiguredError(
                f"The connection or the task's AWS parameters cannot be used: {tell(error)}"
            ) from None
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            if isinstance(error, SSLError) and _is_unreadable_certificate(error):
                raise NotConfiguredError(
                    "A file of TLS certificates cannot be used; see verify, 'ca_bundle' in AWS's "
                    f"configuration, AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE: {tell(error)}"
                ) from None
            if _cannot_be_sent(error):
                raise NotConfiguredError(f"The request cannot be sent: {tell(error)}") from None
            # In place, so that `except client.exceptions.ResourceNotFoundException` still holds.
            error.args = (tell(error),)
            if isinstance(error, ClientError):
                error.response = _without(untold, error.response)
            # What led to it tells no more, and tells it as it came over the wire.
            error.__suppress_context__ = True
            raise
        except NotConfiguredError as error:
            if "conn_config" not in self.__dict__:
                # The connection itself, which `tell` would read again.
                raise
            raise NotConfiguredError(tell(error)) from None
        except _MISTAKES as error:
            told = f"{type(error).__name__}: {tell(error)}"
            if "conn" not in self.__dict__:
                raise NotConfiguredError(f"No client can be made of the connection: {told}") from None
            if isinstance(error, UnicodeEncodeError):
                raise NotConfiguredError(f"The request cannot be sent: {told}") from None
            # botocore trips over members that are of another kind than it expects.
            raise MalformedResponseError(f"DataZone's answer cannot be read: {told}") from None

    def _place(self, about: str, domain: str) -> str:
        """Tell what a request was about, and where it went."""
        region = self._known_region
        # A Param may have been rendered to a whole page where there should be an identifier.
        about, domain = one_line(about, length=200), one_line(repr(domain), length=200)
        parts = [about, f"domain {domain}"]
        if region is not None:
            parts.append(f"Region {region!r}")
        parts.append(f"connection {self.aws_conn_id!r}" if self.aws_conn_id else "boto3's own credentials")
        return ", ".join(parts)

    def _malformed(self, problem: str, about: str, domain: str) -> MalformedResponseError:
        return MalformedResponseError(f"DataZone {problem} ({self._place(about, domain)})")

    def _parse_run(self, response: Any, about: str, domain: str) -> MetadataGenerationRun:
        try:
            return MetadataGenerationRun.from_response(response)
        except ValueError as error:
            # botocore takes a body that is no JSON for an empty answer.
            raise self._malformed(f"answered with {error}", about, domain) from None


def _iterate(page: Callable[..., tuple[list[T], str | None]]) -> Iterator[T]:
    """Go through all pages, each asked for when it is needed."""
    next_token = None
    seen = set()
    while True:
        items, next_token = page(next_token=next_token)
        yield from items
        if next_token is None:
            return
        if next_token in seen:
            raise MalformedResponseError("DataZone answered with the same pages again and again")
        seen.add(next_token)


def _check_certificates(verify: bool | str | None, config: Any) -> None:
    """
    Read the certificates that a client is to use.

    :param verify: The hook's.
    :param config: The client's configuration.
    :raises ValueError: They cannot be read.
    """
    proxy = getattr(config, "proxies_config", None) or {}
    bundles = {"verify": verify, "proxy_ca_bundle in botocore_config": proxy.get("proxy_ca_bundle")}
    files = {
        "client_cert in botocore_config": getattr(config, "client_cert", None),
        "proxy_client_cert in botocore_config": proxy.get("proxy_client_cert"),
    }
    try:
        for about, path in bundles.items():  # noqa: B007
            if isinstance(path, str):
                # As botocore does: a directory will not do, whatever is in it.
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        for about, paths in files.items():  # noqa: B007
            for path in [paths] if isinstance(paths, str) else paths or ():
                with Path(path).open("rb"):
                    pass
    except (OSError, ValueError) as error:
        raise NotConfiguredError(
            f"{about} must be the path of a file with certificates in PEM format, got "
            f"{one_line(repr(path), length=200)}: {one_line(str(error))}"
        ) from None


def _edited_values(choices: Any) -> list[str]:
    """
    Return the edited values among choices, which DataZone's model marks as sensitive.

    :raises ValueError: One is no text, or a choice is none: botocore would say so with the value.
    """
    if not isinstance(choices, (list, tuple)):
        raise NotConfiguredError(
            f"choices must be a list of dicts, and is a {type(choices).__name__}.{native_advice(choices)}"
        )
    values: list[str] = []
    for number, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise NotConfiguredError(
                f"choices must be a list of dicts; item {number} is a {type(choice).__name__}."
                f"{native_advice(choice)}"
            )
        value = choice.get("editedValue")
        if value is not None and not isinstance(value, str):
            raise NotConfiguredError(f"editedValue of item {number} of choices must be a text.")
        for text in _edited_texts(choice):
            values += _forms(text)
    # A value may be part of another.
    return sorted(values, key=len, reverse=True)


def _edited_texts(value: Any) -> Iterator[str]:
    """Yield every edited value in a choice, also one that is not where DataZone expects it."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "editedValue" and isinstance(item, str) and item:
                yield item
            yield from _edited_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _edited_texts(item)


def _forms(secret: str) -> set[str]:
    """Return how a text may be repeated: as it is, in Python, in JSON as it was sent, in HTML."""
    forms = {
        form
        for text in (secret, secret.strip())
        for form in (
            text,
            one_line(text, length=None),
            repr(text)[1:-1],
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
            html.escape(text),
        )
    }
    return forms - {""}


def _secrets(password: Any, extra: dict[str, Any]) -> list[str]:
    """Return what a connection keeps secret; what is short is none of AWS's own, but stands in for one."""
    places = [extra, extra.get("session_kwargs")]
    found = [password] + [
        place.get(name)
        for place in places
        if isinstance(place, dict)
        for name in ("aws_secret_access_key", "aws_session_token")
    ]
    forms = {form for secret in found if isinstance(secret, str) for form in _forms(secret)}
    return sorted((form for form in forms if len(form) >= 16), key=len, reverse=True)


def _without(values: Sequence[str], told: Any) -> Any:
    """Return what an error tells, without some values."""
    if isinstance(told, dict):
        # What kind of error it is stays, however short a value is.
        kept = ("Code", "ResponseMetadata")
        return {key: item if key in kept else _without(values, item) for key, item in told.items()}
    if isinstance(told, list):
        return [_without(values, item) for item in told]
    if isinstance(told, str):
        for value in values:
            told = _redact(value, told)
    return told


def _redact(value: str, text: str) -> str:
    """
    Replace a sensitive value in a text.

    A short one is replaced only where it stands by itself, a single character only where it is the whole of
    what is quoted: the text must still say what is wrong.
    """
    if value == text:
        return "***"
    pattern = re.escape(value)
    if len(value) == 1:
        pattern = rf"""(?<=["'`]|;){pattern}(?=\\?["'`]|&(?:quot|#x27|#39);)"""
    elif len(value) < MIN_MASKED_LENGTH:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return re.sub(pattern, "***", text)


def _without_signature(message: str) -> str:
    """Cut off headers, the session token among them: of a rejected signature, or such as cannot be sent."""
    for before in ("The Canonical String", _INVALID_HEADER):
        head, found, _ = message.partition(before)
        message = head.rstrip() if before != _INVALID_HEADER else head + found
    return message


def _cannot_be_sent(error: Exception) -> bool:
    """Whether it is something of ours that keeps a request from being sent, the next time as well."""
    mistakes = (AttributeError, TypeError, ValueError)
    return isinstance(error, HTTPClientError) and isinstance(error.kwargs.get("error"), mistakes)
