"""A local DataZone that foreign clients reach through a recording proxy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from airflow_provider_datazone.testing import DataZoneServer
from tests.clients.clients import ACCESS_KEY, AWSCLI_PYTHON, COMMANDS, JAVASCRIPT, SECRET_KEY, Client
from tests.clients.proxy import RecordingProxy

pytest.register_assert_rewrite("tests.clients.scenario")


@pytest.fixture(scope="session", autouse=True)
def _installed_clients() -> None:
    """End the test session without the clients."""
    if not (shutil.which("node") and (JAVASCRIPT / "node_modules").is_dir() and AWSCLI_PYTHON.is_file()):
        pytest.exit("`make js-test` installs the clients of tests/clients, and needs Node.js", returncode=1)


@pytest.fixture(scope="module")
def proxy(datazone_server: DataZoneServer) -> Iterator[RecordingProxy]:
    with RecordingProxy(datazone_server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module", params=list(COMMANDS))
def client(
    request: pytest.FixtureRequest,
    datazone_server: DataZoneServer,
    proxy: RecordingProxy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """Yield a client of an empty local DataZone, which verifies the client's signatures."""
    datazone_server.reset()
    datazone_server.require_credentials(ACCESS_KEY, SECRET_KEY)
    client = Client(request.param, proxy.url, tmp_path_factory.mktemp("home"))
    try:
        yield client
    finally:
        client.close()
