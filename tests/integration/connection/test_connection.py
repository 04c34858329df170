"""The hook reads credentials, Region, domain, project and client options from its connection."""

from __future__ import annotations

import json
import traceback
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
)

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.service_errors import is_permanent, is_transient

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

SECRET = "s3cr3t/never+shown"


@pytest.fixture
def define(define_connection: Any) -> Any:
    """Return a function that defines the connection `mine` with a secret password."""
    return partial(define_connection, password=SECRET)


IN_EXTRA = {"domain_identifier": "dzd_extra", "owning_project_identifier": "project-extra"}
IN_SERVICE_CONFIG = {
    "service_config": {
        "datazone": {"domain_identifier": "dzd_service", "owning_project_identifier": "project-service"}
    }
}


@pytest.mark.parametrize(
    ("conn_type", "extra", "expected"),
    [
        ("awsdatazone", IN_EXTRA, "extra"),
        ("awsdatazone", IN_SERVICE_CONFIG, "service"),
        ("awsdatazone", IN_EXTRA | IN_SERVICE_CONFIG, "extra"),
        # The connection form stores an empty field like this.
        ("awsdatazone", dict.fromkeys(IN_EXTRA, "") | IN_SERVICE_CONFIG, "service"),
        ("awsdatazone", dict.fromkeys(IN_EXTRA, None) | IN_SERVICE_CONFIG, "service"),
        ("awsdatazone", {}, None),
        ("aws", IN_SERVICE_CONFIG, "service"),
        ("aws", IN_EXTRA | IN_SERVICE_CONFIG, "service"),
        ("aws", IN_EXTRA, None),
    ],
)
def test_domain_and_project_come_from_the_connection(
    define: Any, conn_type: str, extra: dict[str, Any], expected: str | None
):
    define(conn_type, **extra)
    hook = DataZoneHook("mine")
    assert hook.resolve_domain_identifier("dzd_argument") == "dzd_argument"
    assert hook.resolve_owning_project_identifier("project-argument") == "project-argument"
    if expected is not None:
        assert hook.resolve_domain_identifier() == f"dzd_{expected}"
        assert hook.resolve_owning_project_identifier() == f"project-{expected}"
        return
    for name in ("domain_identifier", "owning_project_identifier"):
        with pytest.raises(ValueError, match=name) as missing:
            getattr(hook, f"resolve_{name}")()
        message = str(missing.value)
        assert f"{name} is required: pass it" in message
        assert "'mine'" in message
        assert ("service_config.datazone" in message) == (conn_type == "aws")


@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_connection_types_do_not_raise_a_warning(define: Any, conn_type: str):
    define(conn_type, region_name="eu-west-1", **IN_EXTRA)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert DataZoneHook("mine").conn.meta.region_name == "eu-west-1"


@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_credentials_region_and_configuration_come_from_the_connection(define: Any, conn_type: str):
    define(
        conn_type,
        region_name="eu-west-1",
        verify=False,
        config_kwargs={"read_timeout": 7},
        aws_session_token="token",
        endpoint_url="http://localhost:1",
    )
    hook = DataZoneHook("mine")
    credentials = hook.get_credentials()
    assert (credentials.access_key, credentials.secret_key, credentials.token) == ("AKIA", SECRET, "token")
    assert (hook.region_name, hook.verify, hook.config.read_timeout) == ("eu-west-1", False, 7)
    assert hook.conn.meta.endpoint_url == "http://localhost:1"


@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_arguments_override_the_connection(define: Any, conn_type: str):
    define(conn_type, region_name="eu-west-1", verify=False, config_kwargs={"read_timeout": 7})
    hook = DataZoneHook("mine", region_name="us-west-2", verify="/ca.pem", config={"read_timeout": 9})
    assert (hook.region_name, hook.verify, hook.config.read_timeout) == ("us-west-2", "/ca.pem", 9)


@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_endpoint_url_of_the_service_config_overrides_that_of_the_connection(define: Any, conn_type: str):
    define(
        conn_type,
        region_name="eu-west-1",
        endpoint_url="http://localhost:1",
        service_config={"datazone": {"endpoint_url": "http://localhost:2"}},
    )
    assert DataZoneHook("mine").conn.meta.endpoint_url == "http://localhost:2"


def test_empty_form_fields_are_ignored(define: Any):
    define("awsdatazone", region_name="eu-west-1", role_arn="", endpoint_url="")
    assert DataZoneHook("mine").conn.meta.endpoint_url == "https://datazone.eu-west-1.api.aws"


def test_role_is_assumed_through_sts(define: Any, datazone: DataZoneServer, catalog: Catalog):
    define(
        "awsdatazone",
        region_name="us-east-1",
        endpoint_url=datazone.endpoint_url,
        role_arn="arn:aws:iam::123456789012:role/airflow",
        domain_identifier=catalog.domain_identifier,
        service_config={"sts": {"endpoint_url": datazone.endpoint_url}},
    )
    hook = DataZoneHook("mine")
    assert hook.get_session().get_credentials().method == "sts-assume-role"


def test_failed_assume_role_raises_an_error_that_names_endpoint_run_and_domain(
    define: Any, datazone: DataZoneServer, monkeypatch: pytest.MonkeyPatch
):
    # Nothing listens on this endpoint. Any STS error is enough for this test.
    define(
        "awsdatazone",
        region_name="us-east-1",
        role_arn="arn:aws:iam::123456789012:role/airflow",
        service_config={"sts": {"endpoint_url": "http://127.0.0.1:1"}},
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(EndpointConnectionError, match=r"127\.0\.0\.1:1.*\(run 'run1', domain 'dzd_1'"):
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_1")


@pytest.mark.parametrize("aws_conn_id", ["aws_default", None])
def test_hook_without_a_connection_uses_environment_credentials(
    monkeypatch: pytest.MonkeyPatch, aws_conn_id: str | None
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMACHINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    hook = DataZoneHook(aws_conn_id, region_name="eu-west-1")
    assert hook.get_credentials().access_key == "AKIAMACHINE"
    with pytest.raises(ValueError, match=f"aws_conn_id={aws_conn_id!r}"):
        hook.resolve_domain_identifier()


@pytest.mark.parametrize("extra", ["{'no': json}", "[1]"])
def test_unparsable_extra_raises_an_error(monkeypatch: pytest.MonkeyPatch, extra: str):
    # Airflow alone logs the error and continues without the credentials in the extra.
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps({"conn_type": "awsdatazone", "extra": extra}))
    # Airflow 3.0 does not return such a connection; it reports that the connection does not exist.
    with pytest.raises((ValueError, AirflowNotFoundException), match="'mine'"):
        DataZoneHook("mine").conn  # noqa: B018


def test_error_does_not_contain_the_secret(define: Any, datazone: DataZoneServer):
    define("awsdatazone", region_name="us-east-1", endpoint_url=datazone.endpoint_url)
    with pytest.raises(ClientError) as refused:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_unknown")
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(refused.value)


def test_unreachable_endpoint_raises_a_transient_error_that_names_it(define: Any):
    define(
        "awsdatazone",
        region_name="us-east-1",
        endpoint_url="http://127.0.0.1:1",
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(EndpointConnectionError, match=r"127\.0\.0\.1:1.*run1.*mine") as lost:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_1")
    assert is_transient(lost.value)
    # The errors of urllib3 and the operating system would add half a page without new information.
    assert "During handling" not in "".join(traceback.format_exception(lost.value))


@pytest.mark.parametrize(
    "extra",
    [
        {"config_kwargs": {"read_timout": 7}},
        {"config_kwargs": [SECRET]},
        {"config_kwargs": {"retries": {"mode": SECRET}}},
        {"service_config": []},
        {"service_config": {"datazone": "dzd_1"}},
        {"session_kwargs": "profile"},
        {"role_arn": "arn:aws:iam::123456789012:role/airflow", "assume_role_method": "by asking"},
    ],
)
@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_invalid_extra_raises_an_error_that_names_the_connection(
    define: Any, conn_type: str, extra: dict[str, Any]
):
    define(conn_type, region_name="us-east-1", **extra)
    with pytest.raises(NotConfiguredError, match="The connection 'mine' cannot be used: ") as unusable:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_1")
    text = "".join(traceback.format_exception(unusable.value))
    assert SECRET not in text
    assert not is_transient(unusable.value)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"endpoint_url": "no address"}, "Invalid endpoint: no address"),
        ({"endpoint_url": 5}, "'int' object"),
        ({"region_name": 5}, "expected string"),
        ({"role_arn": 5}, "Invalid type for parameter RoleArn"),
        ({"assume_role_kwargs": "none", "role_arn": "arn:aws:iam::123456789012:role/airflow"}, ""),
    ],
)
def test_invalid_client_options_raise_an_error_that_names_connection_and_run(
    define: Any, extra: dict[str, Any], reason: str
):
    define("awsdatazone", **{"region_name": "us-east-1"} | extra)
    with pytest.raises(
        (NotConfiguredError, BotoCoreError), match=rf"{reason}.*run 'run1'.*'mine'"
    ) as unusable:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_1")
    assert is_permanent(unusable.value)
    assert str(unusable.value).isprintable()


@pytest.mark.parametrize(
    ("login", "extra"),
    [
        ("AKIA", {"aws_session_token": f"{SECRET}\n"}),
        ("AKIA\n", {}),
        ("AKIA", {"aws_session_token": f"\n{SECRET}"}),
    ],
)
def test_credentials_with_a_line_break_raise_a_permanent_error_without_the_secret(
    monkeypatch: pytest.MonkeyPatch, datazone: DataZoneServer, login: str, extra: dict[str, Any]
):
    extra |= {"region_name": "us-east-1", "endpoint_url": datazone.endpoint_url}
    connection = {"conn_type": "awsdatazone", "login": login, "password": "password", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(connection))
    with pytest.raises(NotConfiguredError, match=r"cannot be sent.*header.*run 'run1'.*'mine'") as unsent:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_1")
    # A retry would send the same header.
    assert not is_transient(unsent.value)
    assert SECRET not in "".join(traceback.format_exception(unsent.value))


def test_secrets_in_a_service_message_are_redacted(define: Any, datazone: DataZoneServer):
    define(
        "awsdatazone",
        region_name="us-east-1",
        endpoint_url=datazone.endpoint_url,
        aws_session_token='token "with quotes"',
    )
    message = f'Sent with {SECRET} and "token \\"with quotes\\""'
    datazone.fail("GetMetadataGenerationRun", "AccessDeniedException", message=message)
    with pytest.raises(ClientError, match=r"Sent with \*\*\* and") as refused:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_1")
    assert SECRET not in str(refused.value)
    assert "with quotes" not in str(refused.value)


@pytest.mark.parametrize("verify", ["/no/such/file.pem", __file__])
def test_unreadable_certificates_raise_a_permanent_error(define: Any, datazone: DataZoneServer, verify: str):
    endpoint_url = datazone.endpoint_url.replace("http:", "https:")
    define("awsdatazone", region_name="us-east-1", endpoint_url=endpoint_url, verify=verify)
    hook = DataZoneHook("mine", config={"retries": {"total_max_attempts": 1}})
    with pytest.raises(NotConfiguredError, match=r"verify must be the path.*run 'run1'") as missing:
        hook.get_metadata_generation_run("run1", domain_identifier="dzd_1")
    assert not is_transient(missing.value)
    assert is_permanent(missing.value)
