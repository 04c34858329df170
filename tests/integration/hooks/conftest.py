"""Fixtures for a hook of the local DataZone, its log, and a clock that only sleeps advance."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_datazone.hooks import datazone as hook_module
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from tests.conftest import Clock

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

# botocore's retries would hide the behavior of the hook and slow the tests down.
NO_RETRIES: dict[str, Any] = {"retries": {"total_max_attempts": 1}}


@pytest.fixture
def hook(datazone: DataZoneServer) -> DataZoneHook:
    return DataZoneHook("datazone_default", config=NO_RETRIES)


@pytest.fixture
def log(hook: DataZoneHook, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Capture the log of the hook. Airflow 2 does not propagate it to the root logger; Airflow 3 bypasses `logging`."""
    hook._log = logging.getLogger("tests.hook")
    caplog.set_level(logging.INFO, "tests.hook")
    return caplog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hook_module, "time", clock)
    return clock
