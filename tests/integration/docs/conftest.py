"""A connection as the documentation says it should be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Catalog


@pytest.fixture
def connected(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """The connection `datazone_default` names domain and project, as the pages say it should."""
    connection = json.loads(catalog.server.connection)
    connection["extra"] |= {
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
    }
    monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", json.dumps(connection))
    return catalog
