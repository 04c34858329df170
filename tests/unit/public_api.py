"""
The public contract: what users import, pass and get back, as stubs that the package is compared with.

It holds from release to release, as Semantic Versioning has it: what stands here changes with a major version
alone. Parameters stand with their order, kinds and defaults, results with their types. The package may have
more, parameters with a default among it; what is to be kept of that is added here.
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

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

T = TypeVar("T")


class Promise(NamedTuple):
    """A name that users import, and what it is to be like."""

    module: str
    stub: Any
    bases: tuple[type, ...]


PROMISES: dict[str, Promise] = {}


def promised(module: str, *bases: type) -> Callable[[T], T]:
    """
    Note a stub.

    :param module: The module that it is imported from, below the package.
    :param bases: What users may rely on that it is.
    """

    def note(stub: T) -> T:
        name: str = stub.__name__  # type: ignore[attr-defined]
        PROMISES[name] = Promise(f"airflow_provider_datazone.{module}", stub, bases)
        return stub

    return note


# ------------------------------------------------------------------ vocabulary


class _TypeStat(TypedDict):
    type: str
    status: str


@promised("metadata_generation", dict)
class TypeStat(_TypeStat, total=False):
    errorMessage: str


@promised("metadata_generation")
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


@promised("metadata_generation")
def judge(run, *, allow_partial_success) -> Verdict: ...


# Values of the vocabulary, and their types.
VALUES = {
    "ACTIVE_STATUSES": frozenset,
    "SUCCESS_STATUSES": frozenset,
    "FAILURE_STATUSES": frozenset,
    "TERMINAL_STATUSES": frozenset,
    "RUN_TYPES": tuple,
}


# ------------------------------------------------------------------------ hook


@promised("hooks.datazone", AwsBaseHook)
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

    def wait_for_metadata_generation_run(
        self, run_identifier, *, domain_identifier=None, run_type=None, poll_interval=30, timeout=None
    ) -> MetadataGenerationRun: ...

    def test_connection(self) -> tuple[bool, str]: ...


# ---------------------------------------------------------- sensor and operators


@promised("sensors.datazone", AwsBaseSensor)
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


@promised("operators.datazone", AwsBaseOperator)
class DataZoneGetMetadataGenerationRunOperator:
    template_fields = ("domain_identifier", "run_identifier", "run_type")

    def __init__(self, *, run_identifier, domain_identifier=None, run_type=None, **kwargs): ...

    def execute(self, context) -> list[TypeStat]: ...


@promised("operators.datazone", AwsBaseOperator)
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


@promised("operators.datazone", AwsBaseOperator)
class DataZoneCancelMetadataGenerationRunOperator:
    template_fields = ("run_identifier", "domain_identifier")

    def __init__(self, *, run_identifier, domain_identifier=None, **kwargs): ...

    def execute(self, context) -> str: ...


@promised("operators.datazone", AwsBaseOperator)
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


@promised("operators.datazone", AwsBaseOperator)
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


@promised("operators.datazone", AwsBaseOperator)
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
        max_failures=0,
        cancel_on_kill=True,
        deferrable=False,
        **kwargs,
    ): ...

    def execute(self, context) -> dict[str, Any]: ...


# --------------------------------------------------------------- trigger and link


@promised("triggers.datazone", BaseTrigger)
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


@promised("links.datazone", BaseAwsLink)
class DataZoneDomainLink:
    name = "Amazon DataZone Domain"


# ------------------------------------------------------------------------ errors


@promised("exceptions", ValueError)
class NotConfiguredError: ...


@promised("exceptions")
class MalformedResponseError: ...


@promised("exceptions", AirflowFailException)
class MetadataGenerationRunFailedError: ...


@promised("exceptions")
class StartedRunFailedError: ...


@promised("exceptions")
class BatchFailedError: ...


@promised("exceptions", AirflowFailException)
class QuotaUsedUpError: ...


@promised("exceptions", AirflowFailException)
class RequestRefusedError: ...


@promised("exceptions", AirflowFailException, ValueError)
class InvalidInputError: ...


@promised("exceptions")
class WaitFailedError: ...


# ----------------------------------------------------------------------- testing


@promised("testing")
def mock_datazone(function=None, config=None): ...


@promised("testing")
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
    ) -> None: ...

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


@promised("testing")
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


@promised("testing", tuple)
class Request(NamedTuple):
    operation: str
    parameters: dict[str, Any]


@promised("testing", tuple)
class AssetIdentifiers(NamedTuple):
    domain_identifier: str
    project_identifier: str
    asset_identifier: str


# Options of `python -m airflow_provider_datazone.testing`, with their defaults.
TESTING_OPTIONS = {"host": "127.0.0.1", "port": "5005"}
# Those that are on by default, and switched off with `--no-`.
TESTING_SWITCHES = ["seed"]
