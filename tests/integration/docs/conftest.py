"""The connection that the documentation describes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Catalog


@pytest.fixture
def configured_catalog(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """Set the connection `datazone_default` with a domain and a project, as the pages recommend."""
    connection = json.loads(catalog.server.connection)
    connection["extra"] |= {
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    return catalog
