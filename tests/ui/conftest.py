"""An Airflow deployment with its UI, and a browser; the tests save screenshots below `.ui/`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import REPOSITORY
from tests.system.conftest import pytest_runtest_makereport as pytest_runtest_makereport, running
from tests.system.deployment import AIRFLOW_2, Deployment
from tests.ui.pages import AIRFLOW_VERSION, UI, Airflow2UI, Airflow3UI

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

DAG_FILES = [
    REPOSITORY / "example_dags" / f"{name}.py"
    for name in (
        "example_datazone_metadata_generation",
        # Before Airflow 3.1 it has no DAG.
        *(() if AIRFLOW_2 else ("example_datazone_review_predictions",)),
    )
]
# The timeout in milliseconds for the content of a page, high enough for a busy machine.
PAGE_TIMEOUT = 90_000
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the browser, or end the test session without one."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.exit("The UI tests need Chromium. On Debian: apt-get install chromium", returncode=1)


@pytest.fixture(scope="module")
def deployment(
    chromium: str, tmp_path_factory: pytest.TempPathFactory, datazone_server: DataZoneServer
) -> Iterator[Deployment]:
    deployment = Deployment(
        tmp_path_factory.mktemp("airflow"),
        *DAG_FILES,
        settings={"CORE__TEST_CONNECTION": "Enabled"},
        with_rest_api=True,
    )
    with running(deployment, datazone_server):
        deployment.start_triggerer()
        yield deployment


@pytest.fixture(scope="module")
def browser(chromium: str, deployment: Deployment) -> Iterator[Browser]:
    expect.set_options(timeout=PAGE_TIMEOUT)
    with sync_playwright() as playwright:
        # Playwright creates a temporary profile and deletes it with the browser.
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    folder = REPOSITORY / ".ui" / AIRFLOW_VERSION
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def ui(
    browser: Browser, deployment: Deployment, screenshots: Path, request: pytest.FixtureRequest
) -> Iterator[UI]:
    # Use a new context for each test, because the UI stores settings in the browser.
    context = browser.new_context(
        base_url=f"http://127.0.0.1:{deployment.rest_port}",
        viewport={"width": 1280, "height": 960},
        timezone_id="UTC",
        locale="en-US",
    )
    context.set_default_timeout(PAGE_TIMEOUT)
    ui = (Airflow2UI if AIRFLOW_2 else Airflow3UI)(context.new_page(), deployment, screenshots)
    with closing(context):
        yield ui
        # Take a screenshot even if the test fails.
        ui.screenshot(re.sub(r"\W+", "_", request.node.name.removeprefix("test_")).rstrip("_"))
