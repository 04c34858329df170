"""The local DataZone throttles requests over a rate."""

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
from tests.integration.testing.clients import Runs, impatient


class TestLimits:
    @staticmethod
    def answers(client: Any, number: int) -> list[int]:
        """Return the HTTP status of each answer."""

        def status() -> int:
            try:
                client.list_domains()
            except client.exceptions.ThrottlingException as error:
                return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            return 200

        return [status() for _ in range(number)]

    def test_requests_over_the_rate_are_throttled_until_the_bucket_fills_again(
        self, datazone: DataZoneControls, clock: Callable[[float], None]
    ) -> None:
        datazone.limit("ListDomains", 2, burst=3)
        client = impatient(datazone)
        assert self.answers(client, 5) == [200, 200, 200, 429, 429]
        clock(0.5)
        assert self.answers(client, 2) == [200, 429]
        # Never more than the bucket holds.
        clock(3600)
        assert self.answers(client, 4) == [200, 200, 200, 429]

    @pytest.mark.parametrize(("per_second", "burst"), [(2, 2), (2.5, 3), (0.1, 1)])
    def test_a_bucket_holds_the_requests_of_a_second_by_default(
        self, server: DataZoneServer, clock: Callable[[float], None], per_second: float, burst: int
    ) -> None:
        server.limit("ListDomains", per_second)
        assert self.answers(impatient(server), burst + 1) == [200] * burst + [429]

    def test_a_throttled_request_is_counted_and_not_carried_out(
        self, datazone: DataZoneControls, clock: Callable[[float], None]
    ) -> None:
        runs = Runs(datazone)
        runs.client = impatient(datazone)
        datazone.limit("StartMetadataGenerationRun", 1)
        run = runs.start()
        with pytest.raises(ClientError, match="Rate exceeded"):
            runs.start()
        assert [item["id"] for item in runs.list()] == [run]
        assert datazone.request_counts["StartMetadataGenerationRun"] == 2

    def test_a_throttled_request_uses_up_no_failure(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        server.limit("ListDomains", 1)
        client = impatient(server)
        assert self.answers(client, 1) == [200]
        server.fail("ListDomains", "AccessDeniedException")
        assert self.answers(client, 1) == [429]
        clock(1)
        with pytest.raises(ClientError, match="AccessDeniedException"):
            client.list_domains()

    def test_an_operation_has_its_own_limit_whoever_asks_for_it(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        server.limit("ListDomains", 1)
        domain, *_ = server.create_asset()
        server.limit("GetDomain", 1)
        client = impatient(server)
        assert self.answers(client, 2) == [200, 429]
        assert client.get_domain(identifier=domain)["id"] == domain
        elsewhere = server.client("eu-west-1", Config(retries={"total_max_attempts": 1}))
        assert self.answers(elsewhere, 1) == [429]

    def test_the_last_limit_of_an_operation_holds(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        server.limit("ListDomains", 1)
        server.limit("ListDomains", 4)
        assert self.answers(impatient(server), 5) == [200, 200, 200, 200, 429]

    @pytest.mark.parametrize("lift", [DataZoneControls.recover, DataZoneControls.reset])
    def test_a_recovery_and_a_reset_lift_all_limits(
        self, datazone: DataZoneControls, lift: Callable[[DataZoneControls], None]
    ) -> None:
        datazone.limit("ListDomains", 0.001)
        client = impatient(datazone)
        assert self.answers(client, 2) == [200, 429]
        lift(datazone)
        assert self.answers(client, 2) == [200, 200]
