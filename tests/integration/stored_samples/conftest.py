"""A fixture for a local DataZone with the domain, project and assets of the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.stored_samples.samples import SampleCatalog

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer


@pytest.fixture
def catalog(datazone: DataZoneServer) -> SampleCatalog:
    return SampleCatalog(datazone)
