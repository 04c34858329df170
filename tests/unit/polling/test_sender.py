"""How often a request of a poller is repeated, in simulated time."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.exceptions import MalformedResponseError
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from airflow_provider_datazone.polling.sender import RequestSender
from tests.unit.simulation import (
    SimulatedDataZone,
    SimulatedRun,
    Source,
    client_error,
    equal_rates,
    now,
    simulate,
)

UNKNOWN_RUN = client_error("ResourceNotFoundException", 404, "run run1 does not exist")
FAULT = client_error("InternalServerException", 500)
DENIED = client_error("AccessDeniedException", 403)


class FailingCancels(Source):
    """Fails each Cancel until a point in time."""

    def __init__(self, error: ClientError, until: float) -> None:
        super().__init__(SimulatedDataZone([]))
        self.error = error
        self.until = until
        self.canceled_at: list[float] = []

    async def cancel(self, run_identifier: str) -> MetadataGenerationRun:
        self.canceled_at.append(now())
        if now() < self.until:
            raise self.error
        return SimulatedRun(run_identifier, ends=0, end_status="CANCELED").at(now())


def sender(source: Source) -> RequestSender:
    return RequestSender(source, equal_rates(100), lambda error: None)


@pytest.mark.parametrize(("error", "until"), [(UNKNOWN_RUN, 20), (FAULT, 300)])
def test_cancel_is_repeated_until_datazone_finds_the_run_and_works(error: ClientError, until: float):
    source = FailingCancels(error, until)

    async def main() -> MetadataGenerationRun:
        return await sender(source).cancel("run1", logging.getLogger())

    assert simulate(main()).status == "CANCELED"
    assert until <= source.canceled_at[-1] <= until + 3


@pytest.mark.parametrize(("error", "seconds"), [(UNKNOWN_RUN, 30), (DENIED, 0)])
def test_cancel_is_not_repeated_if_that_does_not_help(error: ClientError, seconds: float):
    source = FailingCancels(error, 1000)

    async def main() -> None:
        await sender(source).cancel("run1", logging.getLogger())

    with pytest.raises(ClientError) as raised:
        simulate(main())
    assert raised.value is error
    assert seconds <= source.canceled_at[-1] <= seconds + 3


class Loop(Source):
    """Each page names another one that has been read before, and the runs never end."""

    async def list_page(self, status: str, next_token: str | None) -> Any:
        return [], "b" if next_token == "a" else "a"

    async def list_asset_page(self, asset_identifier: str, next_token: str | None) -> Any:
        return await self.list_page("", next_token)


@pytest.mark.parametrize("kind", ["active runs", "runs of an asset"])
def test_list_whose_pages_form_a_loop_fails(kind: str):
    async def main() -> None:
        sending = sender(Loop(SimulatedDataZone([])))
        if kind == "runs of an asset":
            await sending.list_runs_of_asset("asset1")
        async for _ in sending.list_active_runs():
            pass

    with pytest.raises(MalformedResponseError, match="in a loop"):
        simulate(main())


def test_list_ends_after_three_transient_errors_in_a_row():
    datazone = SimulatedDataZone([], failing=1.0)

    async def main() -> None:
        async for _ in sender(Source(datazone)).list_active_runs():
            pass

    with pytest.raises(ClientError, match="InternalServerException"):
        simulate(main())
    assert datazone.count() == {"list": 3}
