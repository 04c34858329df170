"""
DAGs that run when metadata generation runs end: with Airflow 3, as asset watchers need it.

The file ``watchers.json`` beside it has the arguments of each watcher's trigger, by the name of its asset.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, AssetAny, AssetWatcher, task

from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunEventTrigger

FOLDER = Path(__file__).parent
CONFIGURATION = FOLDER / "watchers.json"
# The DAG `report_runs` is scheduled on this asset, and `ignore_runs` on the others.
REPORTED = "reported"

watchers = json.loads(CONFIGURATION.read_text("utf-8")) if CONFIGURATION.exists() else {}
assets = {
    name: Asset(
        name, watchers=[AssetWatcher(name, trigger=DataZoneMetadataGenerationRunEventTrigger(**arguments))]
    )
    for name, arguments in watchers.items()
}
START = datetime(2026, 1, 1, tzinfo=timezone.utc)

with DAG("report_runs", schedule=[assets[REPORTED]] if assets else None, start_date=START, catchup=False):

    @task
    def report(triggering_asset_events: Any = None, dag_run: Any = None) -> None:
        """Append the runs of all events to a file."""
        runs = [
            event.extra["payload"]["run"] for events in triggering_asset_events.values() for event in events
        ]
        with (FOLDER / "report.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"dag_run": dag_run.run_id, "runs": runs}) + "\n")

    report()

others = [asset for name, asset in assets.items() if name != REPORTED]
if others:
    with DAG("ignore_runs", schedule=AssetAny(*others), start_date=START, catchup=False):

        @task
        def ignore() -> None:
            """Do nothing."""

        ignore()
