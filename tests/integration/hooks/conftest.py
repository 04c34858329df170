"""A hook of the local DataZone, its log, and a clock that only the test moves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_datazone.hooks import datazone as hook_module
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from tests.conftest import Clock

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

# botocore's own retries would hide what the hook does, and take their time.
NO_RETRIES: dict[str, Any] = {"retries": {"total_max_attempts": 1}}


@pytest.fixture
def hook(datazone: DataZoneServer) -> DataZoneHook:
    return DataZoneHook("datazone_default", config=NO_RETRIES)


@pytest.fixture
def log(hook: DataZoneHook, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the hook logs; Airflow 2 keeps it from the root logger, Airflow 3 logs past the standard library."""
    hook._log = logging.getLogger("tests.hook")
    caplog.set_level(logging.INFO, "tests.hook")
    return caplog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hook_module, "time", clock)
    return clock
