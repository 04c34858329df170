"""The local DataZone throttles requests above a rate limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
)

from airflow_provider_datazone.testing import (
    DataZoneControls,
    DataZoneServer,
)
from tests.integration.testing.clients import Runs, client_without_retries


class TestLimits:
    @staticmethod
    def response_codes(client: Any, number: int) -> list[int]:
        """Return the HTTP status of each response."""

        def status() -> int:
            try:
                client.list_domains()
            except client.exceptions.ThrottlingException as error:
                return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            return 200

        return [status() for _ in range(number)]

    def test_requests_above_the_rate_are_throttled_until_the_bucket_refills(
        self, datazone: DataZoneControls, clock: Callable[[float], None]
    ) -> None:
        datazone.limit("ListDomains", 2, burst=3)
        client = client_without_retries(datazone)
        assert self.response_codes(client, 5) == [200, 200, 200, 429, 429]
        clock(0.5)
        assert self.response_codes(client, 2) == [200, 429]
        # The bucket never exceeds its capacity.
        clock(3600)
        assert self.response_codes(client, 4) == [200, 200, 200, 429]

    @pytest.mark.parametrize(("per_second", "burst"), [(2, 2), (2.5, 3), (0.1, 1)])
    def test_default_burst_is_the_requests_of_one_second(
        self, server: DataZoneServer, clock: Callable[[float], None], per_second: float, burst: int
    ) -> None:
        server.limit("ListDomains", per_second)
        assert self.response_codes(client_without_retries(server), burst + 1) == [200] * burst + [429]

    def test_throttled_request_is_counted_without_an_effect(
        self, datazone: DataZoneControls, clock: Callable[[float], None]
    ) -> None:
        runs = Runs(datazone)
        runs.client = client_without_retries(datazone)
        datazone.limit("StartMetadataGenerationRun", 1)
        run = runs.start()
        with pytest.raises(ClientError, match="Rate exceeded"):
            runs.start()
        assert [item["id"] for item in runs.list()] == [run]
        assert datazone.request_counts["StartMetadataGenerationRun"] == 2

    def test_throttled_request_does_not_consume_a_failure(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        server.limit("ListDomains", 1)
        client = client_without_retries(server)
        assert self.response_codes(client, 1) == [200]
        server.fail("ListDomains", "AccessDeniedException")
        assert self.response_codes(client, 1) == [429]
        clock(1)
        with pytest.raises(ClientError, match="AccessDeniedException"):
            client.list_domains()

    def test_each_operation_has_one_limit_for_all_clients(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        server.limit("ListDomains", 1)
        domain, *_ = server.create_asset()
        server.limit("GetDomain", 1)
        client = client_without_retries(server)
        assert self.response_codes(client, 2) == [200, 429]
        assert client.get_domain(identifier=domain)["id"] == domain
        elsewhere = server.client("eu-west-1", Config(retries={"total_max_attempts": 1}))
        assert self.response_codes(elsewhere, 1) == [429]

    def test_last_limit_of_an_operation_applies(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        server.limit("ListDomains", 1)
        server.limit("ListDomains", 4)
        assert self.response_codes(client_without_retries(server), 5) == [200, 200, 200, 200, 429]

    @pytest.mark.parametrize("clear", [DataZoneControls.recover, DataZoneControls.reset])
    def test_recover_and_reset_remove_all_limits(
        self, datazone: DataZoneControls, clear: Callable[[DataZoneControls], None]
    ) -> None:
        datazone.limit("ListDomains", 0.001)
        client = client_without_retries(datazone)
        assert self.response_codes(client, 2) == [200, 429]
        clear(datazone)
        assert self.response_codes(client, 2) == [200, 200]
