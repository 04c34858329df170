"""Error messages appear once in a traceback, suggest a fix, and keep the service's response as their cause."""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from http.server import ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowNotFoundException,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_datazone.batch.assets import parse_assets
from airflow_provider_datazone.exceptions import (
    InvalidInputError,
    NotConfiguredError,
    RequestRefusedError,
)
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.inputs import validate_types
from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneBatchMetadataGenerationOperator,
    DataZoneCancelMetadataGenerationRunOperator,
    DataZoneGetMetadataGenerationRunOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.triggers.datazone import (
    DataZoneBatchMetadataGenerationTrigger,
    DataZoneMetadataGenerationRunTrigger,
)
from tests.integration.errors.denying_sts import DenyingSts
from tests.task_context import make_context, make_resumed_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

CONNECTION = "datazone_default"
NATIVE_OPTION = "render_template_as_native_obj=True"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def format_traceback(error: BaseException) -> str:
    """Return the traceback that a task's log contains."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def make_get_task(catalog: Catalog, run: str = "unknownrun", **arguments: Any) -> Any:
    return DataZoneGetMetadataGenerationRunOperator(
        task_id="task",
        run_identifier=run,
        **{"domain_identifier": catalog.domain_identifier, "aws_conn_id": CONNECTION} | arguments,
    )


# ------------------------------------------------ messages appear once


@pytest.mark.parametrize("code", ["AccessDeniedException", "ValidationException"])
def test_traceback_shows_the_service_message_once_and_keeps_the_response(catalog: Catalog, code: str) -> None:
    catalog.server.fail("GetMetadataGenerationRun", code, message="Not for you")
    with pytest.raises(RequestRefusedError, match="Not for you") as refused:
        make_get_task(catalog).execute(make_context())
    assert format_traceback(refused.value).count("Not for you") == 1
    cause = refused.value.__cause__
    assert isinstance(cause, ClientError)
    assert cause.response["Error"]["Code"] == code
    assert cause.response["Error"]["Message"] == "Not for you"
    assert str(cause).startswith("HTTP status 4")


def test_message_omits_the_retry_count_of_botocore(catalog: Catalog) -> None:
    catalog.server.fail("GetMetadataGenerationRun", "InternalServerException", times=None)
    with pytest.raises(ClientError) as failed:
        DataZoneHook(CONNECTION, config={"retries": {"total_max_attempts": 2}}).get_metadata_generation_run(
            "unknownrun", domain_identifier=catalog.domain_identifier
        )
    assert catalog.server.request_counts["GetMetadataGenerationRun"] == 2
    assert "retries" not in str(failed.value)


def test_traceback_shows_an_invalid_argument_once(catalog: Catalog) -> None:
    with pytest.raises(InvalidInputError) as wrong:
        make_get_task(catalog, run="").execute(make_context())
    assert format_traceback(wrong.value).count("run_identifier is required") == 1


def test_traceback_shows_a_deadline_once(catalog: Catalog) -> None:
    sensor = DataZoneMetadataGenerationRunSensor(
        task_id="task",
        run_identifier=catalog.start_run(in_progress_seconds=3600),
        domain_identifier=catalog.domain_identifier,
        aws_conn_id=CONNECTION,
    )
    event = {"status": "timeout", "message": "the run has not ended"}
    with pytest.raises((AirflowException, AirflowTaskTimeout)) as late:
        sensor.execute_complete(make_resumed_context(), event)
    assert format_traceback(late.value).count("the run has not ended") == 1


def test_traceback_shows_the_reason_of_a_skip_once(catalog: Catalog) -> None:
    sensor = DataZoneMetadataGenerationRunSensor(
        task_id="task",
        run_identifier=catalog.start_run(
            statuses={"BUSINESS_NAMES": "FAILED", "BUSINESS_DESCRIPTIONS": "FAILED"}
        ),
        domain_identifier=catalog.domain_identifier,
        aws_conn_id=CONNECTION,
        poke_interval=0.01,
        soft_fail=True,
        deferrable=True,
    )
    run = catalog.server.client().get_metadata_generation_run
    for _ in range(5):
        run(domainIdentifier=catalog.domain_identifier, identifier=sensor.run_identifier)
    with pytest.raises(AirflowSkipException) as skipped:
        sensor.execute(make_context())
    assert format_traceback(skipped.value).count("ended FAILED") == 1


def event_of(trigger: Any) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        (event,) = [event async for event in trigger.run()]
        payload: dict[str, Any] = event.payload
        return payload

    return asyncio.run(main())


def test_denied_wait_names_run_and_domain_once(catalog: Catalog) -> None:
    catalog.server.fail("*", "AccessDeniedException", times=None)
    trigger = DataZoneMetadataGenerationRunTrigger(
        "run-1", catalog.domain_identifier, poll_interval=0.01, aws_conn_id=CONNECTION
    )
    message = event_of(trigger)["message"]
    assert message.count("'run-1'") == 1
    assert message.count(catalog.domain_identifier) == 1


def test_timed_out_wait_names_run_and_domain_once(catalog: Catalog) -> None:
    run = catalog.start_run(in_progress_seconds=3600)
    trigger = DataZoneMetadataGenerationRunTrigger(
        run, catalog.domain_identifier, poll_interval=0.01, deadline=1.0, aws_conn_id=CONNECTION
    )
    message = event_of(trigger)["message"]
    assert message.count(run) == 1
    assert message.count(catalog.domain_identifier) == 1


def test_denied_batch_names_domain_and_asset_once(catalog: Catalog) -> None:
    catalog.server.fail("*", "AccessDeniedException", times=None)
    task = DataZoneBatchMetadataGenerationOperator(
        task_id="task",
        asset_identifiers=[catalog.asset_identifier],
        types=["BUSINESS_NAMES"],
        owning_project_identifier=catalog.project_identifier,
        domain_identifier=catalog.domain_identifier,
        aws_conn_id=CONNECTION,
    )
    with pytest.raises(RequestRefusedError, match="no run was started") as refused:
        task.execute(make_context())
    assert str(refused.value).count(catalog.asset_identifier) == 1
    assert str(refused.value).count(catalog.domain_identifier) == 1


def test_batch_trigger_error_names_the_batch_and_the_domain(catalog: Catalog) -> None:
    trigger = DataZoneBatchMetadataGenerationTrigger(
        "no rows", 1.0, [], catalog.domain_identifier, "identity", 1.0, 1, aws_conn_id=CONNECTION
    )
    message = event_of(trigger)["message"]
    assert "the batch" in message
    assert message.endswith(f"(domain {catalog.domain_identifier!r})")


# ---------------------------------------------------------- missing resources


def test_unknown_run_raises_an_error_that_asks_to_check_it(catalog: Catalog) -> None:
    for task in (
        make_get_task(catalog),
        DataZoneCancelMetadataGenerationRunOperator(
            task_id="task",
            run_identifier="unknownrun",
            domain_identifier=catalog.domain_identifier,
            aws_conn_id=CONNECTION,
        ),
    ):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr("airflow_provider_datazone.hooks.datazone.time", Clock())
            with pytest.raises(
                RequestRefusedError, match="There is no such run in this domain: check"
            ) as unknown:
                task.execute(make_context())
        assert "run 'unknownrun'" in str(unknown.value)


class Clock:
    """A clock that only a sleep advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def start(catalog: Catalog, **arguments: Any) -> None:
    known = {
        "asset_identifier": catalog.asset_identifier,
        "owning_project_identifier": catalog.project_identifier,
        "domain_identifier": catalog.domain_identifier,
    }
    DataZoneHook(CONNECTION).start_metadata_generation_run(types=["BUSINESS_NAMES"], **known | arguments)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("The given Asset doesn't exist.", "There is no such asset in this domain: check"),
        ("Project not found", "There is no project 'project1' in this domain: check"),
        ("Domain not found", "There is no such domain in this Region: check"),
        ("Project project1 does not exist", None),
        ("Domain {domain} does not exist", "There is no such domain in this Region: check"),
    ],
)
def test_vague_not_found_message_is_extended_with_the_missing_resource(
    catalog: Catalog, message: str, expected: str | None
) -> None:
    message = message.format(domain=catalog.domain_identifier)
    catalog.server.fail("StartMetadataGenerationRun", "ResourceNotFoundException", message=message)
    with pytest.raises(ClientError) as unknown:
        start(catalog, owning_project_identifier="project1")
    if expected is None:
        assert "There is no" not in str(unknown.value)
    else:
        assert expected in str(unknown.value)


# -------------------------------------------------------- suggested fixes


@pytest.fixture
def define(define_connection: Callable[..., None], datazone: DataZoneServer) -> Callable[..., None]:
    """Return a function that defines the connection `mine` to the local DataZone."""

    def define(**extra: Any) -> None:
        extra = {"region_name": "us-east-1", "endpoint_url": datazone.endpoint_url} | extra
        define_connection(password=SECRET, config_kwargs={"retries": {"total_max_attempts": 1}}, **extra)

    return define


CHECK_KEYS = "Check the AWS Access Key ID and the AWS Secret Access Key."
CHECK_ENDPOINT = "Check the AWS Region and the endpoint URL."


@pytest.mark.parametrize(
    "code", ["InvalidSignatureException", "UnrecognizedClientException", "ExpiredTokenException"]
)
def test_rejected_credentials_suggest_the_fixes_of_the_connection_test(catalog: Catalog, code: str) -> None:
    catalog.server.fail("GetMetadataGenerationRun", code)
    with pytest.raises(ClientError) as rejected:
        make_get_task(catalog).execute(make_context())
    assert CHECK_KEYS in str(rejected.value)


@pytest.mark.parametrize("endpoint_url", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_unreachable_endpoint_suggests_the_fixes_of_the_connection_test(
    catalog: Catalog, define: Callable[..., None], endpoint_url: str
) -> None:
    define(endpoint_url=endpoint_url)
    with pytest.raises(BotoCoreError) as lost:
        make_get_task(catalog, aws_conn_id="mine").execute(make_context())
    assert str(lost.value).endswith(CHECK_ENDPOINT)
    assert SECRET not in format_traceback(lost.value)


def test_missing_credentials_suggest_where_to_provide_them(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    connection = {"conn_type": "awsdatazone", "extra": {"region_name": "us-east-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(connection))
    with pytest.raises(BotoCoreError, match="provide credentials where the task runs") as missing:
        make_get_task(catalog, aws_conn_id="mine").execute(make_context())
    assert "Check the AWS" not in str(missing.value)


def test_accepting_without_predictions_says_that_there_are_none(catalog: Catalog) -> None:
    hook = DataZoneHook("datazone_default", config={"retries": {"total_max_attempts": 1}})
    names = {"domain_identifier": catalog.domain_identifier}
    with pytest.raises(ClientError, match="The asset has no predictions") as missing:
        hook.accept_predictions(catalog.asset_identifier, rule="ALL", **names)
    assert "There is no such" not in str(missing.value)


def test_missing_region_suggests_region_name(catalog: Catalog, define: Callable[..., None]) -> None:
    define(region_name=None)
    with pytest.raises(
        InvalidInputError, match=r"No AWS Region: pass region_name, or set 'region_name' in the extra.*'mine'"
    ):
        make_get_task(catalog, aws_conn_id="mine").execute(make_context())


def test_undefined_connection_suggests_checking_the_spelling(catalog: Catalog) -> None:
    message = r"'datazone_defualt' is not defined\. Check the spelling of aws_conn_id"
    with pytest.raises(AirflowNotFoundException, match=message) as unknown:
        make_get_task(catalog, aws_conn_id="datazone_defualt").execute(make_context())
    assert format_traceback(unknown.value).count("is not defined") == 1


def test_denied_assume_role_fails_without_retries_and_suggests_fixes(
    catalog: Catalog, define: Callable[..., None]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), DenyingSts) as sts:
        threading.Thread(target=sts.serve_forever, daemon=True).start()
        define(
            role_arn="arn:aws:iam::123456789012:role/mine",
            domain_identifier=catalog.domain_identifier,
            service_config={"sts": {"endpoint_url": f"http://127.0.0.1:{sts.server_port}"}},
        )
        with pytest.raises(RequestRefusedError) as denied:
            make_get_task(catalog, aws_conn_id="mine").execute(make_context())
        passed, tested = DataZoneHook("mine").test_connection()
        sts.shutdown()
    assert not passed
    assert tested.endswith("and that the role's trust policy allows the principal.")
    assert "Check the domain" not in tested
    message = str(denied.value)
    assert "sts:AssumeRole on the role, and that the role's trust policy allows the principal" in message
    assert "datazone:" not in message


def test_role_that_sts_refuses_for_its_parameters_fails_without_retries(
    catalog: Catalog, define: Callable[..., None]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), DenyingSts) as sts:
        sts.RequestHandlerClass = type("Sts", (DenyingSts,), {"code": "ValidationError"})
        threading.Thread(target=sts.serve_forever, daemon=True).start()
        define(
            role_arn="arn:aws:iam::123456789012:role/mine",
            assume_role_kwargs={"DurationSeconds": 43200},
            domain_identifier=catalog.domain_identifier,
            service_config={"sts": {"endpoint_url": f"http://127.0.0.1:{sts.server_port}"}},
        )
        with pytest.raises(RequestRefusedError, match=r"ValidationError.*AssumeRole"):
            make_get_task(catalog, aws_conn_id="mine").execute(make_context())
        sts.shutdown()


def test_unknown_federation_of_a_role_fails_without_retries(
    catalog: Catalog, define: Callable[..., None]
) -> None:
    define(
        role_arn="arn:aws:iam::123456789012:role/mine",
        assume_role_method="assume_role_with_web_identity",
        domain_identifier=catalog.domain_identifier,
    )
    with pytest.raises(InvalidInputError, match=r"Unsupported federation.*connection 'mine'"):
        make_get_task(catalog, aws_conn_id="mine").execute(make_context())


def test_connection_test_fails_if_the_domain_is_not_a_string(define: Callable[..., None]) -> None:
    define(domain_identifier=["dzd-1"])
    passed, message = DataZoneHook("mine").test_connection()
    assert not passed
    assert "domain_identifier must be a string" in message


def test_error_without_a_connection_does_not_contain_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "AKIA")
    hook = DataZoneHook(None, config={"retries": {"total_max_attempts": 1}}, region_name="us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(BotoCoreError) as lost:
        hook.get_metadata_generation_run("run1", domain_identifier="dzd-1")
    assert "None" not in str(lost.value)
    assert "boto3's own credentials" in str(lost.value)


# ------------------------------ identifiers with leading or trailing whitespace

IDENTIFIER_ARGUMENTS = {
    "get": "run_identifier",
    "start": "asset_identifier",
    "cancel": "run_identifier",
    "accept": "asset_identifier",
    "sensor": "run_identifier",
}
TASKS: dict[str, Callable[..., Any]] = {
    "get": DataZoneGetMetadataGenerationRunOperator,
    "start": lambda **arguments: DataZoneStartMetadataGenerationRunOperator(
        types=["BUSINESS_NAMES"], **arguments
    ),
    "cancel": DataZoneCancelMetadataGenerationRunOperator,
    "accept": lambda **arguments: DataZoneAcceptPredictionsOperator(rule="ALL", **arguments),
    "sensor": DataZoneMetadataGenerationRunSensor,
}


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("x ", "must not end with a space, got 'x '"),
        (" x", "must not begin with a space, got ' x'"),
        ("x\n", r"must not end with the character '\\n', got 'x\\n'"),
        ("\u200bx", r"must not begin with the character '\\u200b'"),
        ("x\u00a0", r"must not end with the character '\\xa0'"),
    ],
)
@pytest.mark.parametrize("kind", TASKS)
def test_identifier_with_surrounding_whitespace_raises_an_error_without_a_request(
    catalog: Catalog, kind: str, identifier: str, expected: str
) -> None:
    before = sum(catalog.server.request_counts.values())
    arguments = {"task_id": "task", "aws_conn_id": CONNECTION, "domain_identifier": catalog.domain_identifier}
    for changes in (
        {IDENTIFIER_ARGUMENTS[kind]: identifier},
        {IDENTIFIER_ARGUMENTS[kind]: "x", "domain_identifier": identifier},
    ):
        name = next(name for name, value in changes.items() if value == identifier)
        with pytest.raises(InvalidInputError, match=f"{name} {expected}"):
            TASKS[kind](**arguments | changes).execute(make_context())
    assert sum(catalog.server.request_counts.values()) == before


def test_connection_and_batch_identifiers_with_surrounding_spaces_raise_an_error(
    define: Callable[..., None],
) -> None:
    define(domain_identifier="dzd-1 ", owning_project_identifier=" p")
    hook = DataZoneHook("mine")
    for resolve in (hook.resolve_domain_identifier, hook.resolve_owning_project_identifier):
        with pytest.raises(ValueError, match=r"with a space, got .*in the extra of the connection"):
            resolve()
    with pytest.raises(
        ValueError, match=r"Item 2 of asset_identifiers .*asset_identifier must not end with a space"
    ):
        parse_assets(["a", "b "], lambda: "p")
    with pytest.raises(ValueError, match="aws_conn_id must not end with a space"):
        DataZoneHook("mine ")


# ------------------------------------------------------ lists rendered as text


def test_list_rendered_as_text_raises_an_error_that_suggests_native_rendering(catalog: Catalog) -> None:
    hook = DataZoneHook(CONNECTION)
    refused: list[Callable[[], Any]] = [
        lambda: validate_types("['BUSINESS_NAMES']"),
        lambda: validate_types(["['BUSINESS_NAMES']"]),
        lambda: parse_assets("['a', 'b']", lambda: "p"),
        lambda: parse_assets(["['a', 'b']"], lambda: "p"),
        lambda: parse_assets(["{'asset_identifier': 'a'}"], lambda: "p"),
        lambda: hook.accept_predictions("a", choices="[{'predictionTarget': 'x'}]"),  # type: ignore[arg-type]
        lambda: hook.reject_predictions("a", choices=["{'predictionTarget': 'x'}"]),  # type: ignore[list-item]
    ]
    for refuse in refused:
        with pytest.raises(NotConfiguredError, match=NATIVE_OPTION):
            refuse()
    with pytest.raises(NotConfiguredError) as other:
        parse_assets(SimpleNamespace(), lambda: "p")  # type: ignore[arg-type]
    assert NATIVE_OPTION not in str(other.value)
