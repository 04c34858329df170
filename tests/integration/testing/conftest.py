"""Local DataZones for the tests of the local DataZone itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.moto_api import state_manager

from airflow_provider_datazone.testing import (
    AssetIdentifiers,
    DataZoneControls,
    DataZoneServer,
    mock_datazone,
    scenario,
    scripted_runs,
)
from tests.integration.testing.wire import Wire

STATE_MODEL = "datazone::metadata-generation-run"


@pytest.fixture(autouse=True)
def _no_aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture
def server() -> Iterator[DataZoneServer]:
    with DataZoneServer() as server:
        yield server


@pytest.fixture(params=["http", "in process"])
def datazone(request: pytest.FixtureRequest) -> Iterator[DataZoneControls]:
    """Yield a local DataZone, once over HTTP and once in the process."""
    with DataZoneServer() if request.param == "http" else mock_datazone() as datazone:
        yield datazone


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Replace the clock of the local DataZone; the test advances it."""
    now = 0.0
    monkeypatch.setattr(scripted_runs, "clock", lambda: now)
    monkeypatch.setattr(scenario, "clock", lambda: now)

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    return advance


@pytest.fixture
def transition() -> Iterator[Callable[[dict[str, Any]], None]]:
    yield lambda transition: state_manager.set_transition(STATE_MODEL, transition)
    state_manager.unset_transition(STATE_MODEL)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with DataZoneServer() as server:
        wire = Wire(server)
        yield wire
        assert wire.violations == []


@pytest.fixture
def asset(wire: Wire) -> AssetIdentifiers:
    return wire.server.create_asset()
