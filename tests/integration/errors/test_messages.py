"""What errors say: once, with what to check, and with the service's answer behind them."""

from __future__ import annotations

import asyncio
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
from tests.wrong import make_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

CONNECTION = "datazone_default"
NATIVE = "render_template_as_native_obj=True"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def shown(error: BaseException) -> str:
    """Return what a task's log shows of an error."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def get_task(catalog: Catalog, run: str = "unknownrun", **arguments: Any) -> Any:
    return DataZoneGetMetadataGenerationRunOperator(
        task_id="task",
        run_identifier=run,
        **{"domain_identifier": catalog.domain_identifier, "aws_conn_id": CONNECTION} | arguments,
    )


# --------------------------------------------------------------- said once


@pytest.mark.parametrize("code", ["AccessDeniedException", "ValidationException"])
def test_traceback_shows_what_the_service_says_once_and_keeps_its_answer(catalog: Catalog, code: str) -> None:
    catalog.server.fail("GetMetadataGenerationRun", code, message="Not for you")
    with pytest.raises(RequestRefusedError, match="Not for you") as refused:
        get_task(catalog).execute(make_context())
    assert shown(refused.value).count("Not for you") == 1
    cause = refused.value.__cause__
    assert isinstance(cause, ClientError)
    assert cause.response["Error"]["Code"] == code
    assert cause.response["Error"]["Message"] == "Not for you"
    assert str(cause).startswith("HTTP status 4")


def test_message_leaves_out_the_retries_of_botocore_which_are_not_the_task_s(catalog: Catalog) -> None:
    catalog.server.fail("GetMetadataGenerationRun", "InternalServerException", times=None)
    with pytest.raises(ClientError) as failed:
        DataZoneHook(CONNECTION, config={"retries": {"total_max_attempts": 2}}).get_metadata_generation_run(
            "unknownrun", domain_identifier=catalog.domain_identifier
        )
    assert catalog.server.request_counts["GetMetadataGenerationRun"] == 2
    assert "retries" not in str(failed.value)


def test_traceback_shows_wrong_input_once(catalog: Catalog) -> None:
    with pytest.raises(InvalidInputError) as wrong:
        get_task(catalog, run="").execute(make_context())
    assert shown(wrong.value).count("run_identifier is required") == 1


def test_traceback_shows_a_deadline_once(catalog: Catalog) -> None:
    sensor = DataZoneMetadataGenerationRunSensor(
        task_id="task",
        run_identifier=catalog.start_run(in_progress_seconds=3600),
        domain_identifier=catalog.domain_identifier,
        aws_conn_id=CONNECTION,
    )
    event = {"status": "timeout", "message": "the run has not ended"}
    with pytest.raises((AirflowException, AirflowTaskTimeout)) as late:
        sensor.execute_complete(make_context(), event)
    assert shown(late.value).count("the run has not ended") == 1


def test_traceback_shows_what_a_skip_is_for_once(catalog: Catalog) -> None:
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
    assert shown(skipped.value).count("ended FAILED") == 1


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


def test_wait_that_is_over_names_run_and_domain_once(catalog: Catalog) -> None:
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


def test_error_of_a_batch_in_the_triggerer_names_what_it_is_about(catalog: Catalog) -> None:
    trigger = DataZoneBatchMetadataGenerationTrigger(
        "no rows", 1.0, [], catalog.domain_identifier, "identity", 1.0, 1, aws_conn_id=CONNECTION
    )
    message = event_of(trigger)["message"]
    assert "the batch" in message
    assert message.endswith(f"(domain {catalog.domain_identifier!r})")


# ---------------------------------------------------------- what is not there


def test_unknown_run_is_said_to_be_unknown(catalog: Catalog) -> None:
    for task in (
        get_task(catalog),
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
    """A clock that a sleep moves."""

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
    ("message", "said"),
    [
        ("The given Asset doesn't exist.", "There is no such asset in this domain: check"),
        ("Project not found", "There is no project 'project1' in this domain: check"),
        ("Domain not found", "There is no such domain in this Region: check"),
        ("Project project1 does not exist", None),
        ("Domain {domain} does not exist", None),
    ],
)
def test_message_of_the_service_that_does_not_say_what_is_missing_is_completed(
    catalog: Catalog, message: str, said: str | None
) -> None:
    message = message.format(domain=catalog.domain_identifier)
    catalog.server.fail("StartMetadataGenerationRun", "ResourceNotFoundException", message=message)
    with pytest.raises(ClientError) as unknown:
        start(catalog, owning_project_identifier="project1")
    if said is None:
        assert "There is no" not in str(unknown.value)
    else:
        assert said in str(unknown.value)


# -------------------------------------------------------- what to check


@pytest.fixture
def define(define_connection: Callable[..., None], datazone: DataZoneServer) -> Callable[..., None]:
    """Define the connection `mine`, which leads to the local DataZone."""

    def define(**extra: Any) -> None:
        extra = {"region_name": "us-east-1", "endpoint_url": datazone.endpoint_url} | extra
        define_connection(password=SECRET, config_kwargs={"retries": {"total_max_attempts": 1}}, **extra)

    return define


CHECK_KEYS = "Check the AWS Access Key ID and the AWS Secret Access Key."
CHECK_ENDPOINT = "Check the AWS Region and the endpoint URL."


@pytest.mark.parametrize(
    "code", ["InvalidSignatureException", "UnrecognizedClientException", "ExpiredTokenException"]
)
def test_rejected_credentials_have_the_advice_of_the_connection_test(catalog: Catalog, code: str) -> None:
    catalog.server.fail("GetMetadataGenerationRun", code)
    with pytest.raises(ClientError) as rejected:
        get_task(catalog).execute(make_context())
    assert CHECK_KEYS in str(rejected.value)


@pytest.mark.parametrize("endpoint_url", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_unreachable_endpoint_has_the_advice_of_the_connection_test(
    catalog: Catalog, define: Callable[..., None], endpoint_url: str
) -> None:
    define(endpoint_url=endpoint_url)
    with pytest.raises(BotoCoreError) as lost:
        get_task(catalog, aws_conn_id="mine").execute(make_context())
    assert str(lost.value).endswith(CHECK_ENDPOINT)
    assert SECRET not in shown(lost.value)


def test_missing_region_has_the_advice_of_the_connection_test(
    catalog: Catalog, define: Callable[..., None]
) -> None:
    define(region_name=None)
    with pytest.raises(
        InvalidInputError, match=r"No AWS Region: pass region_name, or set 'region_name' in the extra"
    ):
        get_task(catalog, aws_conn_id="mine").execute(make_context())


def test_misspelled_connection_asks_for_its_spelling(catalog: Catalog) -> None:
    with pytest.raises(AirflowNotFoundException, match="Check the spelling of aws_conn_id") as unknown:
        get_task(catalog, aws_conn_id="datazone_defualt").execute(make_context())
    assert shown(unknown.value).count("is not defined") == 1


def test_role_that_may_not_be_assumed_fails_without_a_retry_and_says_what_to_check(
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
            get_task(catalog, aws_conn_id="mine").execute(make_context())
        passed, tested = DataZoneHook("mine").test_connection()
        sts.shutdown()
    assert not passed
    assert tested.endswith("and that the role's trust policy allows the principal.")
    assert "Check the domain" not in tested
    message = str(denied.value)
    assert "sts:AssumeRole on the role, and that the role's trust policy allows the principal" in message
    assert "datazone:" not in message


def test_domain_of_a_connection_that_is_no_text_fails_its_test(define: Callable[..., None]) -> None:
    define(domain_identifier=["dzd-1"])
    passed, message = DataZoneHook("mine").test_connection()
    assert not passed
    assert "domain_identifier must be a string" in message


def test_nothing_is_named_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "AKIA")
    hook = DataZoneHook(None, config={"retries": {"total_max_attempts": 1}}, region_name="us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(BotoCoreError) as lost:
        hook.get_metadata_generation_run("run1", domain_identifier="dzd-1")
    assert "None" not in str(lost.value)
    assert "boto3's own credentials" in str(lost.value)


# --------------------------------------------------- identifiers with whitespace

NAMES = {
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
    ("identifier", "said"),
    [
        ("x ", "must not end with a space, got 'x '"),
        (" x", "must not begin with a space, got ' x'"),
        ("x\n", r"must not end with the character '\\n', got 'x\\n'"),
        ("\u200bx", r"must not begin with the character '\\u200b'"),
        ("x\u00a0", r"must not end with the character '\\xa0'"),
    ],
)
@pytest.mark.parametrize("kind", TASKS)
def test_identifier_with_whitespace_at_an_end_is_refused_before_any_request(
    catalog: Catalog, kind: str, identifier: str, said: str
) -> None:
    before = sum(catalog.server.request_counts.values())
    arguments = {"task_id": "task", "aws_conn_id": CONNECTION, "domain_identifier": catalog.domain_identifier}
    for changes in ({NAMES[kind]: identifier}, {NAMES[kind]: "x", "domain_identifier": identifier}):
        name = next(name for name, value in changes.items() if value == identifier)
        with pytest.raises(InvalidInputError, match=f"{name} {said}"):
            TASKS[kind](**arguments | changes).execute(make_context())
    assert sum(catalog.server.request_counts.values()) == before


def test_identifier_of_a_connection_and_of_a_batch_must_not_end_with_a_space(
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


def test_list_that_a_template_renders_as_text_names_the_option_that_mends_it(catalog: Catalog) -> None:
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
        with pytest.raises(NotConfiguredError, match=NATIVE):
            refuse()
    with pytest.raises(NotConfiguredError) as other:
        parse_assets(SimpleNamespace(), lambda: "p")  # type: ignore[arg-type]
    assert NATIVE not in str(other.value)
