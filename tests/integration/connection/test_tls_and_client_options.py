"""The hook validates CA bundles, client certificates and botocore options."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from botocore import UNSIGNED
from botocore.config import Config

from airflow_provider_datazone.exceptions import InvalidInputError, NotConfiguredError
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.inputs import to_botocore_options
from airflow_provider_datazone.operators.datazone import (
    DataZoneBatchMetadataGenerationOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.service_errors import is_permanent, is_transient
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from tests.dags.lazy_inputs import TYPES
from tests.integration.operators.start_task import start
from tests.integration.triggers.waits import events
from tests.task_context import make_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog


def make_bundles(folder: Path) -> dict[str, str]:
    certificates = Path(certifi.where()).read_text()
    texts = {
        "empty": "",
        "no certificates": "hello",
        "damaged": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "cut off": certificates[: certificates.index("-----END") - 100],
    }
    paths = {}
    for name, text in texts.items():
        file = folder / f"{name}.pem"
        file.write_text(text)
        paths[name] = str(file)
    return paths | {
        "missing": str(folder / "missing.pem"),
        "directory": str(folder),
        "below a file": f"{folder}/empty.pem/ca.pem",
        "too long": "x" * 300,
        "not a path": "ca\0.pem",
    }


BUNDLES = (
    "empty",
    "no certificates",
    "damaged",
    "cut off",
    "missing",
    "directory",
    "below a file",
    "too long",
    "not a path",
)


@pytest.mark.parametrize(("kind", "deferrable"), [*((kind, True) for kind in BUNDLES), ("missing", False)])
def test_unreadable_ca_bundle_fails_a_wait_without_a_request(
    catalog: Catalog, tmp_path: Path, kind: str, deferrable: bool
) -> None:
    path = make_bundles(tmp_path)[kind]
    before = len(catalog.server.requests)
    sensor = DataZoneMetadataGenerationRunSensor(
        task_id="wait",
        run_identifier="run1",
        domain_identifier=catalog.domain_identifier,
        aws_conn_id="datazone_default",
        verify=path,
        deferrable=deferrable,
        timeout=5,
        poke_interval=1,
    )
    for task in (sensor, start(catalog, verify=path, deferrable=deferrable)):
        with pytest.raises(
            InvalidInputError, match=r"verify must be the path of a file with certificates"
        ) as error:
            task.execute(make_context())
        assert repr(path)[1:-1][:190] in str(error.value)
    trigger = DataZoneMetadataGenerationRunTrigger(
        "run1",
        catalog.domain_identifier,
        poll_interval=0.001,
        aws_conn_id="datazone_default",
        verify=path,
    )
    (event,) = events(trigger)
    assert (event["status"], event["permanent"]) == ("error", True)
    assert catalog.server.requests[before:] == []


@pytest.mark.parametrize(
    ("variable", "kind"),
    [
        ("AWS_CA_BUNDLE", "empty"),
        ("AWS_CA_BUNDLE", "damaged"),
        ("AWS_CA_BUNDLE", "missing"),
        ("REQUESTS_CA_BUNDLE", "missing"),
    ],
)
def test_unreadable_ca_bundle_in_the_environment_raises_a_permanent_error(
    datazone: DataZoneServer,
    define_connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, make_bundles(tmp_path)[kind])
    define_connection(
        region_name="us-east-1",
        endpoint_url=datazone.endpoint_url.replace("http:", "https:"),
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(
        NotConfiguredError, match=rf"TLS certificates cannot be used.*{variable}.*run 'run1'"
    ) as error:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd-1")
    assert is_permanent(error.value)
    assert not is_transient(error.value)


def test_failed_tls_handshake_is_transient(
    datazone: DataZoneServer, define_connection: Callable[..., None]
) -> None:
    define_connection(
        region_name="us-east-1",
        # The server does not support TLS.
        endpoint_url=datazone.endpoint_url.replace("http:", "https:"),
        verify=certifi.where(),
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(Exception, match=r"WRONG_VERSION_NUMBER") as broken:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd-1")
    assert is_transient(broken.value)


@pytest.mark.parametrize("client_cert", ["missing.pem", ["missing.pem", "missing.key"]])
def test_unreadable_client_certificate_raises_not_configured(
    datazone: DataZoneServer, define_connection: Callable[..., None], client_cert: Any
) -> None:
    define_connection(region_name="us-east-1")
    hook = DataZoneHook("mine", config={"client_cert": client_cert})
    with pytest.raises(NotConfiguredError, match=r"client_cert in botocore_config must be .*'missing\.pem'"):
        hook.get_metadata_generation_run("run1", domain_identifier="dzd-1")


@pytest.mark.parametrize("kind", ["tuple", "list", "Config", "task", "connection"])
@pytest.mark.parametrize("name", ["client_cert", "proxy_client_cert"])
def test_pair_of_certificate_and_key_is_used(
    catalog: Catalog, define_connection: Callable[..., None], tmp_path: Path, kind: str, name: str
) -> None:
    pair = (str(tmp_path / "client.pem"), str(tmp_path / "client.key"))
    for path in pair:
        Path(path).touch()
    value = list(pair) if kind in ("list", "connection") else pair
    options: Any = {name: value} if name == "client_cert" else {"proxies_config": {name: value}}
    config = Config(**options) if kind in ("Config", "task") else options
    define_connection(
        region_name="us-east-1",
        endpoint_url=catalog.server.endpoint_url,
        **({"config_kwargs": options} if kind == "connection" else {}),
    )
    if kind == "task":
        hook: Any = start(catalog, aws_conn_id="mine", botocore_config=config).hook
    else:
        hook = DataZoneHook("mine", config=None if kind == "connection" else config)
    # Only botocore's session shows what it uses: the local DataZone asks for no certificate.
    session = hook.conn._endpoint.http_session
    if name == "client_cert":
        assert (session._cert_file, session._key_file) == pair
    else:
        assert session._proxy_config.settings[name] == pair


def test_client_of_aiobotocore_can_be_used(datazone: DataZoneServer) -> None:
    pytest.importorskip("aiobotocore", reason="needs aiobotocore, which the matrix has on most versions")

    async def list_domains() -> Any:
        async with DataZoneHook("datazone_default").get_client_type(deferrable=True) as client:
            return (await client.list_domains())["items"]

    assert asyncio.run(list_domains()) == []


CONFIG = {"retries": {"total_max_attempts": 1}, "read_timeout": 7, "user_agent_extra": "mine"}


@pytest.mark.parametrize("config", [CONFIG, Config(**CONFIG)], ids=["dict", "Config"])
@pytest.mark.parametrize("kind", ["start", "sensor", "batch"])
def test_deferred_task_accepts_a_botocore_config_object(catalog: Catalog, kind: str, config: Any) -> None:
    defaults = {
        "task_id": kind,
        "domain_identifier": catalog.domain_identifier,
        "aws_conn_id": "datazone_default",
        "botocore_config": config,
        "deferrable": True,
    }
    if kind == "start":
        catalog.server.set_run_outcome(in_progress_seconds=3600)
        task: Any = start(catalog, **defaults)
    elif kind == "sensor":
        run = catalog.start_run(in_progress_seconds=3600)
        task = DataZoneMetadataGenerationRunSensor(run_identifier=run, **defaults)
    else:
        task = DataZoneBatchMetadataGenerationOperator(
            asset_identifiers=[catalog.asset_identifier],
            types=TYPES,
            owning_project_identifier=catalog.project_identifier,
            **defaults,
        )
    assert task.hook.config.read_timeout == 7
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(make_context())
    arguments = json.loads(json.dumps(deferred.value.trigger.serialize()[1]))
    assert arguments["botocore_config"] == CONFIG


def test_batch_in_a_worker_accepts_a_botocore_config_object(catalog: Catalog) -> None:
    summary = DataZoneBatchMetadataGenerationOperator(
        task_id="batch",
        asset_identifiers=[catalog.asset_identifier],
        types=["BUSINESS_NAMES"],
        owning_project_identifier=catalog.project_identifier,
        domain_identifier=catalog.domain_identifier,
        aws_conn_id="datazone_default",
        botocore_config=Config(read_timeout=7),  # type: ignore[arg-type]
        poll_interval=0.01,
    ).execute(make_context())
    assert summary["succeeded"] == 1


def test_unsigned_requests_can_be_configured_in_json(datazone: DataZoneServer) -> None:
    options = to_botocore_options(Config(signature_version=UNSIGNED))
    assert options == {"signature_version": "unsigned"}
    assert DataZoneHook("datazone_default", config=options).config.signature_version is UNSIGNED
