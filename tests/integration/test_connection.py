"""Which connection the hook uses, and what it takes from it."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from botocore.exceptions import ClientError, EndpointConnectionError

from airflow_provider_datazone.hooks.datazone import DataZoneHook, is_transient

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

SECRET = "s3cr3t/never+shown"


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Define the connection `mine`."""

    def define(conn_type: str, **extra: Any) -> None:
        connection = {"conn_type": conn_type, "login": "AKIA", "password": SECRET, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(connection))

    return define


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
        # As the form stores a field that was left empty.
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
        assert f"pass {name}" in message
        assert "'mine'" in message
        assert ("service_config.datazone" in message) == (conn_type == "aws")


@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_neither_type_draws_a_warning(define: Any, conn_type: str):
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
def test_arguments_go_before_the_connection(define: Any, conn_type: str):
    define(conn_type, region_name="eu-west-1", verify=False, config_kwargs={"read_timeout": 7})
    hook = DataZoneHook("mine", region_name="us-west-2", verify="/ca.pem", config={"read_timeout": 9})
    assert (hook.region_name, hook.verify, hook.config.read_timeout) == ("us-west-2", "/ca.pem", 9)


@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_endpoint_of_the_service_goes_before_that_of_the_connection(define: Any, conn_type: str):
    define(
        conn_type,
        region_name="eu-west-1",
        endpoint_url="http://localhost:1",
        service_config={"datazone": {"endpoint_url": "http://localhost:2"}},
    )
    assert DataZoneHook("mine").conn.meta.endpoint_url == "http://localhost:2"


def test_field_left_empty_in_the_form_is_not_set(define: Any):
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


def test_role_that_cannot_be_assumed_is_one_clear_error_without_the_token(
    define: Any, datazone: DataZoneServer, monkeypatch: pytest.MonkeyPatch
):
    # An endpoint that has no STS: any answer of it that is an error will do.
    define(
        "awsdatazone",
        region_name="us-east-1",
        role_arn="arn:aws:iam::123456789012:role/airflow",
        service_config={"sts": {"endpoint_url": "http://127.0.0.1:1"}},
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(EndpointConnectionError, match=r"127\.0\.0\.1:1.*\(run 'run1', domain 'dzd_1'"):
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_1")


def test_connection_that_was_named_must_exist():
    with pytest.raises(AirflowNotFoundException, match="'mine' is not defined"):
        DataZoneHook("mine").resolve_domain_identifier()


@pytest.mark.parametrize("aws_conn_id", ["aws_default", None])
def test_credentials_of_the_machine_where_no_connection_is_named(
    monkeypatch: pytest.MonkeyPatch, aws_conn_id: str | None
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMACHINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    hook = DataZoneHook(aws_conn_id, region_name="eu-west-1")
    assert hook.get_credentials().access_key == "AKIAMACHINE"
    with pytest.raises(ValueError, match=f"aws_conn_id={aws_conn_id!r}"):
        hook.resolve_domain_identifier()


@pytest.mark.parametrize("extra", ["{'no': json}", "[1]"])
def test_extra_that_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch, extra: str):
    # Airflow itself would log it, and go on as if there were no credentials in it.
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps({"conn_type": "awsdatazone", "extra": extra}))
    # Airflow 3.0 does not even hand out such a connection, and says that it does not exist.
    with pytest.raises((ValueError, AirflowNotFoundException), match="'mine'"):
        DataZoneHook("mine").conn  # noqa: B018


def test_missing_region_is_named(define: Any):
    define("awsdatazone")
    with pytest.raises(ValueError, match=r"region_name.*'mine'"):
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_1")


def test_no_secret_in_an_error(define: Any, datazone: DataZoneServer):
    define("awsdatazone", region_name="us-east-1", endpoint_url=datazone.endpoint_url)
    with pytest.raises(ClientError) as refused:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_unknown")
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(refused.value)


def test_unreachable_endpoint_names_it_and_may_pass(define: Any):
    define(
        "awsdatazone",
        region_name="us-east-1",
        endpoint_url="http://127.0.0.1:1",
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(EndpointConnectionError, match=r"127\.0\.0\.1:1.*run1.*mine") as lost:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd_1")
    assert is_transient(lost.value)
