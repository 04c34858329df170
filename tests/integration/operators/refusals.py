"""Check the error of a request that DataZone rejects."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException


def check_refusal(error: BaseException, operator: Any, message: str) -> None:
    """Check that an error is not retried and names the asset, domain, Region, connection and reason."""
    assert isinstance(error, AirflowFailException)
    for part in (
        message,
        f"asset {operator.asset_identifier!r}",
        f"domain {operator.domain_identifier!r}",
        "Region 'us-east-1'",
        "connection 'datazone_default'",
    ):
        assert part in str(error)
    assert str(error).isprintable(), "no line breaks or control characters"
