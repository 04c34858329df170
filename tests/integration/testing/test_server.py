"""The server of the local DataZone starts, serves requests and stops."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
)

from airflow_provider_datazone.testing import (
    DataZoneServer,
)
from airflow_provider_datazone.testing.backend.assets import Asset
from tests.integration.testing.clients import Runs, client_without_retries


class TestServer:
    def test_server_accepts_any_credentials_and_region(self, server: DataZoneServer) -> None:
        for region, key in (("eu-west-1", "AKIAIOSFODNN7EXAMPLE"), ("us-gov-west-1", "x")):
            client = boto3.client(
                "datazone",
                region_name=region,
                endpoint_url=server.endpoint_url,
                aws_access_key_id=key,
                aws_secret_access_key="x",
            )
            server.fail("ListDomains", "ConflictException")
            with pytest.raises(client.exceptions.ConflictException):
                client.list_domains()
            domain = client.create_domain(name="here", domainExecutionRole="arn:aws:iam::123456789012:role/x")
            assert f":{region}:" in domain["arn"]
            assert [d["id"] for d in client.list_domains()["items"]] == [domain["id"]]

    def test_other_services_of_moto_are_available(self, server: DataZoneServer) -> None:
        sts = boto3.client(
            "sts",
            region_name="us-east-1",
            endpoint_url=server.endpoint_url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        assert sts.get_caller_identity()["Account"] == "123456789012"

    def test_connection_is_an_airflow_connection_as_json(self, server: DataZoneServer) -> None:
        assert json.loads(server.connection) == {
            "conn_type": "awsdatazone",
            "login": "testing",
            "password": "testing",
            "extra": {"region_name": "us-east-1", "endpoint_url": server.endpoint_url},
        }

    def test_stop_releases_the_port_and_ends_all_threads(self) -> None:
        before = set(threading.enumerate())
        server = DataZoneServer()
        server.start()
        port = int(server.endpoint_url.rsplit(":", 1)[1])
        server.client().list_domains()
        idle = socket.create_connection(("127.0.0.1", port))
        server.stop()
        idle.close()
        assert set(threading.enumerate()) <= before
        with DataZoneServer(port=port) as again:
            assert again.endpoint_url.endswith(f":{port}")

    def test_stop_closes_the_connection_of_a_hanging_request(self) -> None:
        server = DataZoneServer()
        server.start()
        server.fail("ListDomains", "hang")
        client = server.client(config=Config(retries={"total_max_attempts": 1}))
        with ThreadPoolExecutor(1) as pool:
            hanging = pool.submit(client.list_domains)
            while not server.request_counts["ListDomains"] and not hanging.done():
                threading.Event().wait(0.01)
            server.stop()
            with pytest.raises(ConnectionClosedError):
                hanging.result(timeout=30)

    def test_stop_and_reset_keep_no_resource_in_memory(self) -> None:
        with DataZoneServer() as server:
            server.create_asset()
            server.reset()
            assert Asset.instances_tracked == []
            server.create_asset()
        assert Asset.instances_tracked == []

    def test_state_is_deleted_when_the_last_server_stops(self) -> None:
        with DataZoneServer() as first:
            with DataZoneServer() as second:
                second.create_asset()
            assert len(first.client().list_domains()["items"]) == 1
        with DataZoneServer() as third:
            assert third.client().list_domains()["items"] == []
            assert [request.operation for request in third.requests] == ["ListDomains"]

    def test_port_in_use_raises_os_error(self, server: DataZoneServer) -> None:
        port = int(server.endpoint_url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"):
            DataZoneServer(port=port).start()

    def test_server_prints_nothing(self, capfd: pytest.CaptureFixture[str]) -> None:
        with DataZoneServer() as server:
            Runs(server).start()
        assert capfd.readouterr() == ("", "")

    def test_second_start_and_early_endpoint_url_raise_runtime_error(self, server: DataZoneServer) -> None:
        with pytest.raises(RuntimeError, match="started already"):
            server.start()
        with pytest.raises(RuntimeError, match="not been started"):
            _ = DataZoneServer().endpoint_url
        DataZoneServer().stop()

    def test_stopped_server_refuses_connections(self, server: DataZoneServer) -> None:
        client = client_without_retries(server)
        server.stop()
        with pytest.raises(EndpointConnectionError):
            client.list_domains()
