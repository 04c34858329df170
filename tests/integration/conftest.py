"""Fixtures that define a connection and raise the rate limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def define_connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that defines the connection `mine`."""

    def define(conn_type: str = "awsdatazone", *, password: str = "password", **extra: Any) -> None:
        connection = {"conn_type": conn_type, "login": "AKIA", "password": password, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(connection))

    return define


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the rate limits. Other tests check them on a simulated clock; here they would only slow the tests down."""
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_REQUESTS_PER_SECOND", "1000")
    monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_STARTS_PER_SECOND", "1000")
