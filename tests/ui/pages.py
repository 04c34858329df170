"""The pages of the Airflow UI that show this provider, and the user actions on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import Locator, Page, expect

if TYPE_CHECKING:
    from tests.system.deployment import Deployment

AIRFLOW_VERSION = version("apache-airflow")
# These versions do not test a connection without a port (apache/airflow#73298).
PORT_IS_REQUIRED = AIRFLOW_VERSION in ("3.3.1", "3.3.2")


class UI(ABC):
    """
    The elements and actions of the UI, independent of the version.

    :param page: A browser page.
    :param deployment: The Airflow deployment.
    :param screenshots: The folder for screenshots.
    """

    def __init__(self, page: Page, deployment: Deployment, screenshots: Path) -> None:
        self.page = page
        self.deployment = deployment
        self._screenshots = screenshots

    def screenshot(self, name: str) -> None:
        """Save a screenshot of the page."""
        self.page.screenshot(path=self._screenshots / f"{name}.png", animations="disabled")

    @property
    @abstractmethod
    def form(self) -> Locator:
        """The connection form."""

    @abstractmethod
    def open_form(self, conn_id: str) -> None:
        """Open the form of a new Amazon DataZone connection."""

    @abstractmethod
    def field(self, label: str) -> Locator:
        """Return a field of the form."""

    @abstractmethod
    def test_and_save(self, conn_id: str) -> tuple[bool, str]:
        """Test and save the connection in the form; Airflow 3 tests only saved connections."""

    @abstractmethod
    def open_run(self, dag_id: str, run_id: str) -> None:
        """Open the graph of a DAG run."""

    @abstractmethod
    def open_task(self, dag_id: str, run_id: str, task_id: str, tab: str) -> None:
        """Open a tab of a task instance: logs, xcom or details."""

    @abstractmethod
    def log(self) -> Locator:
        """Return the log of the task instance in its initial state."""

    @abstractmethod
    def wrap_log(self) -> None:
        """Wrap the long lines of the log."""

    @abstractmethod
    def xcom(self, key: str) -> Locator:
        """Return an XCom row of the task instance with the complete value."""

    def node(self, task_id: str) -> Locator:
        """Return a task in the graph."""
        return self.page.locator(".react-flow__node").filter(has_text=task_id)


class Airflow3UI(UI):
    """Airflow 3."""

    @property
    def form(self) -> Locator:
        return self.page.get_by_role("dialog")

    def open_form(self, conn_id: str) -> None:
        self.page.goto("/connections")
        self.page.get_by_role("button", name="Add Connection").click()
        self.form.get_by_label("Connection ID").fill(conn_id)
        self.form.get_by_label("Connection Type").fill("Amazon DataZone")
        self.page.get_by_role("option", name="Amazon DataZone").click()

    def field(self, label: str) -> Locator:
        group = self.form.get_by_role("group").filter(has=self.page.get_by_text(label, exact=True))
        if not label.startswith("AWS ") or label == "AWS Region":
            section = self.form.get_by_role("button", name="Extra Fields", exact=True)
            if section.get_attribute("aria-expanded") != "true":
                section.click()
        return group.get_by_role("textbox")

    def test_and_save(self, conn_id: str) -> tuple[bool, str]:
        self.form.get_by_role("button", name="Save").click()
        expect(self.form).to_be_hidden()
        if PORT_IS_REQUIRED:
            body = {"connection_id": conn_id, "conn_type": "awsdatazone", "port": 0}
            self.deployment.request("PATCH", f"/connections/{conn_id}?update_mask=port", body)
            self.page.reload()
        row = self.page.get_by_role("row").filter(has_text=conn_id)
        row.get_by_role("button", name="Test Connection").click()
        alert = self.page.get_by_role("status").filter(has_text="Test Connection")
        title, message = alert.inner_text().split("\n", 1)
        self.screenshot(f"test_of_{conn_id}")
        return title == "Test Connection Successful", message

    def open_run(self, dag_id: str, run_id: str) -> None:
        self.page.goto(f"/dags/{dag_id}/runs/{run_id}")
        self.page.get_by_role("button", name="Show Graph").click()

    def open_task(self, dag_id: str, run_id: str, task_id: str, tab: str) -> None:
        path = "" if tab == "logs" else f"/{tab}"
        self.page.goto(f"/dags/{dag_id}/runs/{run_id}/tasks/{task_id}{path}")

    def log(self) -> Locator:
        return self.page.get_by_role("code").filter(has_text="Log message source details")

    def wrap_log(self) -> None:
        self.page.keyboard.press("w")

    def xcom(self, key: str) -> Locator:
        self.page.get_by_role("button", name="Expand all").click()
        return self.page.get_by_role("row").filter(has=self.page.get_by_role("cell", name=key, exact=True))


class Airflow2UI(UI):
    """Airflow 2. Remove this class with support for 2.11."""

    @property
    def form(self) -> Locator:
        return self.page.locator("#model_form")

    def open_form(self, conn_id: str) -> None:
        self.page.goto("/connection/add")
        self.page.get_by_label("Connection Id").fill(conn_id)
        self.page.locator("#conn_type").select_option(label="Amazon DataZone")

    def field(self, label: str) -> Locator:
        return self.page.get_by_role("row").filter(has_text=label).get_by_role("textbox")

    def test_and_save(self, conn_id: str) -> tuple[bool, str]:
        # Successes and failures have the same color, so read the status from the response.
        with self.page.expect_response("**/connections/test") as response:
            self.form.get_by_role("button", name="Test").click()
        alert = self.page.get_by_text(response.value.json()["message"], exact=True)
        expect(alert).to_be_visible()
        self.page.evaluate("scrollTo(0, 0)")
        self.screenshot(f"test_of_{conn_id}")
        passed, message = response.value.json()["status"], alert.inner_text()
        self.page.get_by_role("button", name="Save").click()
        expect(self.page.get_by_text("Added Row")).to_be_visible()
        return passed, message

    def open_run(self, dag_id: str, run_id: str) -> None:
        self.page.goto(f"/dags/{dag_id}/grid?dag_run_id={run_id}&tab=graph")

    def open_task(self, dag_id: str, run_id: str, task_id: str, tab: str) -> None:
        self.page.goto(f"/dags/{dag_id}/grid?dag_run_id={run_id}&task_id={task_id}&tab={tab}")

    def log(self) -> Locator:
        return self.page.get_by_role("code")

    def wrap_log(self) -> None:
        self.page.get_by_text("Wrap", exact=True).click()

    def xcom(self, key: str) -> Locator:
        return self.page.get_by_role("row").filter(has=self.page.get_by_role("cell", name=key, exact=True))
