"""
The public API as stubs: names, parameters and results. A test compares the package with these stubs.

The package follows Semantic Versioning: before 1.0, an existing stub changes only in a minor version, with an
entry in the changelog; from 1.0 on, only in a major version. A stub has the
order, kinds and defaults of parameters, and the types of results. The package may have more names, and more
parameters with defaults. To make them public, add them here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, TypeVar

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink
from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.triggers.base import BaseTrigger

from airflow_provider_datazone.version_compat import BaseEventTrigger

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

T = TypeVar("T")


class PublicName(NamedTuple):
    """A name that users import, and its stub."""

    module: str
    stub: Any
    bases: tuple[type, ...]


PUBLIC_NAMES: dict[str, PublicName] = {}


def public(module: str, *bases: type) -> Callable[[T], T]:
    """
    Register a stub.

    :param module: The module to import the name from, relative to the package.
    :param bases: The base classes that users may rely on.
    """

    def register(stub: T) -> T:
        name: str = stub.__name__  # type: ignore[attr-defined]
        PUBLIC_NAMES[name] = PublicName(f"airflow_provider_datazone.{module}", stub, bases)
        return stub

    return register


# ---------------------------------------------------------- metadata_generation


class _TypeStat(TypedDict):
    type: str
    status: str


@public("metadata_generation", dict)
class TypeStat(_TypeStat, total=False):
    errorMessage: str


@public("metadata_generation")
@dataclass(frozen=True)
class MetadataGenerationRun:
    id: str
    domain_id: str
    status: str
    types: tuple[str, ...] = ()
    type_stats: list[TypeStat] = field(default_factory=list)
    asset_id: str | None = None
    asset_revision: str | None = None
    owning_project_id: str | None = None
    created_at: datetime | None = None
    created_by: str | None = None

    @classmethod
    def from_response(cls, response) -> MetadataGenerationRun: ...

    @property
    def is_active(self) -> bool: ...

    @property
    def is_terminal(self) -> bool: ...

    @property
    def failures(self) -> list[TypeStat]: ...

    def to_dict(self) -> dict[str, Any]: ...


class Verdict(NamedTuple):
    succeeded: bool
    message: str


@public("metadata_generation")
def judge(run, *, allow_partial_success) -> Verdict: ...


# Constants, and their types.
VALUES = {
    "ACTIVE_STATUSES": frozenset,
    "SUCCESS_STATUSES": frozenset,
    "FAILURE_STATUSES": frozenset,
    "TERMINAL_STATUSES": frozenset,
    "RUN_TYPES": tuple,
}


# ------------------------------------------------------------------------- hook


@public("hooks.datazone", AwsBaseHook)
class DataZoneHook:
    conn_type = "awsdatazone"
    hook_name = "Amazon DataZone"

    def __init__(self, aws_conn_id="aws_default", *, region_name=None, verify=None, config=None): ...

    def get_metadata_generation_run(
        self, run_identifier, *, domain_identifier=None, run_type=None
    ) -> MetadataGenerationRun: ...

    def start_metadata_generation_run(
        self,
        asset_identifier,
        *,
        types,
        owning_project_identifier=None,
        asset_revision=None,
        client_token=None,
        domain_identifier=None,
    ) -> MetadataGenerationRun: ...

    def list_metadata_generation_runs(
        self,
        *,
        domain_identifier=None,
        status=None,
        run_type=None,
        asset_identifier=None,
        page_size=50,
    ) -> Iterator[MetadataGenerationRun]: ...

    def cancel_metadata_generation_run(self, run_identifier, *, domain_identifier=None) -> None: ...

    def accept_predictions(
        self,
        asset_identifier,
        *,
        domain_identifier=None,
        revision=None,
        rule=None,
        threshold=None,
        choices=None,
        client_token=None,
    ) -> str: ...

    def reject_predictions(
        self,
        asset_identifier,
        *,
        domain_identifier=None,
        revision=None,
        rule=None,
        threshold=None,
        choices=None,
        client_token=None,
    ) -> str: ...

    def get_predictions(
        self, asset_identifier, *, domain_identifier=None, revision=None
    ) -> list[dict[str, Any]]: ...

    def publish_asset(
        self, asset_identifier, *, domain_identifier=None, revision=None, client_token=None
    ) -> dict[str, Any]: ...

    def get_listing(
        self, listing_identifier, *, domain_identifier=None, listing_revision=None
    ) -> dict[str, Any]: ...

    def search_assets(
        self,
        *,
        domain_identifier=None,
        owning_project_identifier=None,
        search_text=None,
        filters=None,
        sort=None,
        additional_attributes=None,
        page_size=50,
    ) -> Iterator[dict[str, Any]]: ...

    def wait_for_metadata_generation_run(
        self, run_identifier, *, domain_identifier=None, run_type=None, poll_interval=30, timeout=None
    ) -> MetadataGenerationRun: ...

    def test_connection(self) -> tuple[bool, str]: ...


# --------------------------------------------------------- sensor and operators


@public("sensors.datazone", AwsBaseSensor)
class DataZoneMetadataGenerationRunSensor:
    template_fields = ("domain_identifier", "run_identifier", "run_type")

    def __init__(
        self,
        *,
        run_identifier,
        domain_identifier=None,
        run_type=None,
        allow_partial_success=True,
        deferrable=False,
        poke_interval=30,
        **kwargs,
    ): ...


@public("operators.datazone", AwsBaseOperator)
class DataZoneGetMetadataGenerationRunOperator:
    template_fields = ("domain_identifier", "run_identifier", "run_type")

    def __init__(self, *, run_identifier, domain_identifier=None, run_type=None, **kwargs): ...

    def execute(self, context) -> list[TypeStat]: ...


@public("operators.datazone", AwsBaseOperator)
class DataZoneStartMetadataGenerationRunOperator:
    template_fields = (
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
        asset_identifier,
        types,
        owning_project_identifier=None,
        asset_revision=None,
        domain_identifier=None,
        client_token=None,
        wait_for_completion=True,
        poll_interval=30,
        allow_partial_success=True,
        cancel_on_kill=True,
        deferrable=False,
        **kwargs,
    ): ...

    def execute(self, context) -> str: ...


@public("operators.datazone", AwsBaseOperator)
class DataZoneCancelMetadataGenerationRunOperator:
    template_fields = ("run_identifier", "domain_identifier")

    def __init__(self, *, run_identifier, domain_identifier=None, **kwargs): ...

    def execute(self, context) -> str: ...


@public("operators.datazone", AwsBaseOperator)
class DataZoneGetPredictionsOperator:
    template_fields = ("asset_identifier", "domain_identifier", "revision")

    def __init__(self, *, asset_identifier, domain_identifier=None, revision=None, **kwargs): ...

    def execute(self, context) -> list[dict[str, Any]]: ...


@public("operators.datazone", AwsBaseOperator)
class DataZonePublishAssetOperator:
    template_fields = ("asset_identifier", "domain_identifier", "revision", "client_token")

    def __init__(
        self,
        *,
        asset_identifier,
        domain_identifier=None,
        revision=None,
        client_token=None,
        wait_for_completion=True,
        poll_interval=5,
        **kwargs,
    ): ...

    def execute(self, context) -> str: ...


@public("operators.datazone", AwsBaseOperator)
class DataZoneAcceptPredictionsOperator:
    template_fields = ("asset_identifier", "domain_identifier", "revision", "choices", "client_token")

    def __init__(
        self,
        *,
        asset_identifier,
        domain_identifier=None,
        revision=None,
        rule=None,
        threshold=None,
        choices=None,
        client_token=None,
        **kwargs,
    ): ...

    def execute(self, context) -> str: ...


@public("operators.datazone", AwsBaseOperator)
class DataZoneRejectPredictionsOperator:
    template_fields = ("asset_identifier", "domain_identifier", "revision", "choices", "client_token")

    def __init__(
        self,
        *,
        asset_identifier,
        domain_identifier=None,
        revision=None,
        rule=None,
        threshold=None,
        choices=None,
        client_token=None,
        **kwargs,
    ): ...

    def execute(self, context) -> str: ...


@public("operators.datazone", AwsBaseOperator)
class DataZoneBatchMetadataGenerationOperator:
    template_fields = ("asset_identifiers", "types", "owning_project_identifier", "domain_identifier")

    def __init__(
        self,
        *,
        asset_identifiers,
        types,
        owning_project_identifier=None,
        domain_identifier=None,
        max_concurrent_runs=50,
        poll_interval=30,
        allow_partial_success=True,
        accept_threshold=None,
        publish=False,
        max_failures=0,
        cancel_on_kill=True,
        deferrable=False,
        **kwargs,
    ): ...

    def execute(self, context) -> dict[str, Any]: ...


# ------------------------------------------------------------ triggers and link


@public("triggers.datazone", BaseTrigger)
class DataZoneMetadataGenerationRunTrigger:
    def __init__(
        self,
        run_identifier,
        domain_identifier,
        run_type=None,
        poll_interval=30,
        deadline=None,
        aws_conn_id="aws_default",
        region_name=None,
        verify=None,
        botocore_config=None,
        cancel_on_kill=False,
    ): ...


@public("triggers.datazone", BaseEventTrigger)
class DataZoneMetadataGenerationRunEventTrigger:
    def __init__(
        self,
        domain_identifier,
        asset_identifier=None,
        owning_project_identifier=None,
        run_types=None,
        statuses=None,
        poll_interval=10,
        aws_conn_id="aws_default",
        region_name=None,
        verify=None,
        botocore_config=None,
    ): ...


@public("links.datazone", BaseAwsLink)
class DataZoneDomainLink:
    name = "Amazon DataZone Domain"


# ----------------------------------------------------------------------- errors


@public("exceptions", ValueError)
class NotConfiguredError: ...


@public("exceptions", ValueError, TypeError)
class InvalidWatcherError: ...


@public("exceptions")
class MalformedResponseError: ...


@public("exceptions")
class MetadataGenerationRunError:
    def __init__(self, message, run=None): ...


@public("exceptions", AirflowFailException)
class MetadataGenerationRunFailedError: ...


@public("exceptions")
class StartedRunFailedError: ...


@public("exceptions")
class BatchFailedError: ...


@public("exceptions", AirflowFailException)
class QuotaUsedUpError: ...


@public("exceptions")
class ListingFailedError: ...


@public("exceptions", AirflowFailException)
class RequestRefusedError: ...


@public("exceptions", AirflowFailException, ValueError)
class InvalidInputError: ...


@public("exceptions")
class WaitFailedError: ...


# ---------------------------------------------------------------------- testing


@public("testing")
def mock_datazone(function=None, config=None): ...


@public("testing")
class DataZoneControls:
    def set_run_outcome(
        self,
        asset_identifier=None,
        *,
        statuses=None,
        error_messages=None,
        status=None,
        type_stats=True,
        submitted_seconds=None,
        in_progress_seconds=None,
        polls=None,
        times=1,
    ) -> None: ...

    def set_run_status(self, run_identifier, status) -> None: ...

    def fail(
        self,
        operation,
        error,
        *,
        times=1,
        message=None,
        seconds=None,
        after=False,
        asset_identifier=None,
        access_key_id=None,
    ) -> None: ...

    def limit(self, operation, per_second, burst=None) -> None: ...

    def recover(self) -> None: ...

    def require_credentials(self, access_key_id, secret_access_key) -> None: ...

    def require_permissions(self) -> None: ...

    @property
    def requests(self) -> list[Request]: ...

    @property
    def request_counts(self) -> Counter[str]: ...

    def reset(self) -> None: ...

    def client(self, region_name="us-east-1", config=None) -> Any: ...

    def create_asset(
        self,
        name="orders",
        *,
        domain_identifier=None,
        project_identifier=None,
        type_identifier="amazon.datazone.GlueTableAssetType",
        columns=("order_id", "amount"),
        description=None,
        region_name="us-east-1",
    ) -> AssetIdentifiers: ...


@public("testing")
class DataZoneServer(DataZoneControls):
    def __init__(self, host="127.0.0.1", port=0): ...

    def __enter__(self) -> DataZoneServer: ...

    def __exit__(self, *args) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    @property
    def endpoint_url(self) -> str: ...

    @property
    def connection(self) -> str: ...


@public("testing", tuple)
class Request(NamedTuple):
    operation: str
    parameters: dict[str, Any]


@public("testing", tuple)
class AssetIdentifiers(NamedTuple):
    domain_identifier: str
    project_identifier: str
    asset_identifier: str


# Options of `python -m airflow_provider_datazone.testing`, with their defaults.
TESTING_OPTIONS = {"host": "127.0.0.1", "port": "5005"}
# Options that are on by default; `--no-` turns them off.
TESTING_SWITCHES = ["seed"]
