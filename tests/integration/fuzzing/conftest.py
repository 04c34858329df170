"""Fixtures for a local service with configurable responses and for a hook that calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_datazone.hooks.datazone import DataZoneHook
from tests.wrong import Service, make_hook, serve

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serve() as service:
        yield service


@pytest.fixture(scope="module")
def hook(service: Service) -> DataZoneHook:
    return make_hook()
