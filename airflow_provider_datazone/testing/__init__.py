"""A local Amazon DataZone for tests, built on moto. It runs within the process or over HTTP.

It does not need Airflow.
"""

from __future__ import annotations

try:
    import flask  # noqa: F401
    import flask_cors  # noqa: F401

    from .controls import AssetIdentifiers, DataZoneControls
    from .mock import mock_datazone
    from .registration import register
    from .scenario import Request
    from .server import DataZoneServer
except ImportError as error:
    # Moto is missing or too old.
    raise type(error)(
        f"{error}: install airflow-provider-amazon-datazone[testing]", name=error.name
    ) from None

__all__ = ["AssetIdentifiers", "DataZoneControls", "DataZoneServer", "Request", "mock_datazone"]

register()
