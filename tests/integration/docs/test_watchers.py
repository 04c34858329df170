"""The examples of asset watchers: Airflow can store their DAGs, and their tasks read the events."""

from __future__ import annotations

import json
import runpy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from tests.conftest import REPOSITORY
from tests.integration.docs.pages import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no asset watchers")

WATCHERS = sorted((EXAMPLES / "watchers").glob("*.py"))
RUN = MetadataGenerationRun(
    "run1",
    "dzd_1234abcd5678ef",
    "FAILED",
    types=("BUSINESS_NAMES",),
    type_stats=[{"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no names"}],
    asset_id="asset1",
)


EXAMPLE = REPOSITORY / "example_dags/example_datazone_on_run_ended.py"


@pytest.mark.parametrize("path", [*WATCHERS, EXAMPLE], ids=lambda path: path.stem)
def test_dag_of_an_example_is_scheduled_on_an_asset_with_a_watcher(path: Path) -> None:
    (asset,) = runpy.run_path(str(path))["dag"].timetable.asset_condition.objects
    (watcher,) = asset.watchers
    # Airflow 3.0 converts the trigger when the watcher is created.
    stored = watcher.trigger if isinstance(watcher.trigger, dict) else watcher.trigger.serialize()[1]
    json.dumps(stored)


class Events:
    """The events of one asset. Airflow accepts an asset as a key, although it is not hashable before 3.2."""

    def __init__(self, asset_name: str, *events: Any) -> None:
        self._asset_name, self._events = asset_name, list(events)

    def __getitem__(self, asset: Any) -> list[Any]:
        return {self._asset_name: self._events}[asset.name]


def printed(path: Path, payload: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the only task of an example prints for an event."""
    dag = runpy.run_path(str(path))["dag"]
    (asset,) = dag.timetable.asset_condition.objects
    (found,) = dag.tasks
    # Airflow's own events need an asset-triggered DAG run; the system tests have them.
    event = SimpleNamespace(extra={"from_trigger": True, "payload": payload})
    of_a_user = SimpleNamespace(extra={"from_rest_api": True})
    found.python_callable(Events(asset.name, of_a_user, event))
    return capsys.readouterr().out


def test_example_reports_the_types_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    output = printed(EXAMPLES / "watchers/watched_runs.py", {"run": RUN.to_dict()}, capsys)
    assert output == "asset1 FAILED\nBUSINESS_NAMES FAILED no names\n"


def test_example_reads_the_messages_of_eventbridge(capsys: pytest.CaptureFixture[str]) -> None:
    payload = {"message_batch": [{"Body": '{"detail-type": "Metadata Generation Failed"}'}]}
    output = printed(EXAMPLES / "watchers/event_bridge.py", payload, capsys)
    assert output == '{"detail-type": "Metadata Generation Failed"}\n'
