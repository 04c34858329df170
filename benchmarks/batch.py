"""
What a batch of thousands of assets costs a triggerer, and how much of the account's limit of starts it uses.

The batch runs as its trigger does in a triggerer, against an endpoint with DataZone's limit of 10 starts a
second; where the trigger comes back to a worker to have its progress noted, it goes on at once.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import endpoint
from waits import DOMAIN, TICK, Watchdog, show, watch

START_LIMIT = 10.0
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]


class Scenario(NamedTuple):
    """So many assets, whose runs live for so many seconds."""

    assets: int
    life: float
    max_concurrent_runs: int
    poll_interval: float
    # Requests a second beside the starts: a Get for each, and the Lists.
    rate: float


FULL = Scenario(10_000, life=30, max_concurrent_runs=400, poll_interval=5, rate=25)
SHORT = Scenario(200, life=5, max_concurrent_runs=100, poll_interval=2, rate=25)


# --------------------------------------------------------------------- the process that runs the batch


async def run_batch(scenario: Scenario) -> dict[str, Any]:
    from airflow_provider_datazone.batch import AssetRow, pack, unpack
    from airflow_provider_datazone.triggers.datazone import DataZoneBatchMetadataGenerationTrigger

    # There in a triggerer that has run for a while.
    importlib.import_module("airflow_provider_datazone.triggers.run_poller")
    now = time.time()
    arguments = {
        "rows": pack(AssetRow(f"asset-{index}", None, "project") for index in range(scenario.assets)),
        "noted_at": now,
        "types": TYPES,
        "domain_identifier": DOMAIN,
        "identity": "benchmark",
        "began_at": now,
        "max_concurrent_runs": scenario.max_concurrent_runs,
        "poll_interval": scenario.poll_interval,
        "aws_conn_id": "bench",
    }
    watchdog = Watchdog()
    watching = asyncio.create_task(watchdog.run())
    await asyncio.sleep(5 * TICK)
    watchdog.longest = watchdog.total = 0.0
    cpu, began = time.process_time(), time.monotonic()
    triggers, event = 0, {"status": "checkpoint"} | arguments
    while event["status"] == "checkpoint":
        triggers += 1
        resumed = {name: event[name] for name in ("rows", "noted_at")}
        trigger = DataZoneBatchMetadataGenerationTrigger(**arguments | resumed)
        (event,) = [event.payload async for event in trigger.run()]
    ended = time.monotonic()
    await asyncio.sleep(5 * TICK)
    watching.cancel()
    return {
        "status": event["status"],
        "statuses": Counter(row.status for row in unpack(event["rows"])),
        "event": len(event["rows"]),
        "triggers": triggers,
        "seconds": ended - began,
        "cpu": time.process_time() - cpu,
        "longest": watchdog.longest,
        "total": watchdog.total,
        "memory": watchdog.peak - watchdog.before,
    }


def child(scenario: Scenario) -> None:
    logging.disable(logging.INFO)
    print(json.dumps(asyncio.run(run_batch(scenario))))


# --------------------------------------------------------------------- the process that looks at it


def measure(scenario: Scenario, home: str) -> dict[str, Any]:
    rates = {"MAX_REQUESTS_PER_SECOND": scenario.rate, "MAX_STARTS_PER_SECOND": START_LIMIT}
    with endpoint.running("starts", scenario.life, START_LIMIT) as url:
        found = watch(__file__, scenario, url, home, rates, 3600)
        report = endpoint.report(url)
    counts = Counter(operation for _, operation, _ in report["requests"])
    starts = [moment for moment, operation, _ in report["requests"] if operation == "Start"]
    return found | {
        "starts": counts["Start"],
        "refused": counts["refused"],
        "gets": counts["Get"],
        "lists": counts["List"],
        "runs": len(report["assets"]),
        "assets": len(set(report["assets"])),
        "active": max(active for _, _, active in report["requests"]),
        "pace": (len(starts) - 1) / (starts[-1] - starts[0]),
    }


ROWS = {
    "assets": "assets",
    "runs started": "runs",
    "seconds": "seconds",
    "starts a second": "pace",
    "starts refused for their rate": "refused",
    "active at a time, at most": "active",
    "Start requests that were not refused": "starts",
    "Get requests": "gets",
    "List requests": "lists",
    "memory added, MB": "memory",
    "longest block of the event loop, s": "longest",
    "blocks over 0.1 s in all, s": "total",
    "CPU, s": "cpu",
    "last event, bytes": "event",
}


def targets(scenario: Scenario, found: dict[str, Any]) -> Iterable[tuple[bool, str]]:
    """Return what must hold, and whether it does."""
    yield found["status"] == "ended", "the batch ended"
    yield found["statuses"] == {"SUCCEEDED": scenario.assets}, "each asset has succeeded"
    yield found["runs"] == found["assets"] == scenario.assets, "each asset had one run"
    yield found["pace"] >= 0.95 * START_LIMIT, "95% of the limit of starts is used"
    calls = found["starts"] + found["refused"] + found["gets"] + found["lists"]
    yield found["refused"] <= 0.01 * calls, "at most 1% of the calls are refused for their rate"
    yield found["active"] <= scenario.max_concurrent_runs, "never more active than max_concurrent_runs"
    yield found["gets"] == found["starts"] == scenario.assets, "one Start and one Get an asset"
    yield found["memory"] < 150, "memory added is under 150 MB"
    yield found["longest"] < 0.5, "the event loop is never blocked over 0.5 s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="half a minute; says that it works, not much more"
    )
    parser.add_argument("--assets", type=int, metavar="N", help="another number of assets")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(Scenario(*json.loads(arguments.child)))
        return
    scenario = SHORT if arguments.short else FULL
    if arguments.assets:
        scenario = scenario._replace(assets=arguments.assets)
    print(
        f"{scenario.assets:,} assets, runs of {scenario.life:g} s, max_concurrent_runs="
        f"{scenario.max_concurrent_runs}, poll_interval={scenario.poll_interval:g}, at most "
        f"{scenario.rate:g} requests a second beside the starts; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as home:
        found = measure(scenario, home)
    print("\n| | |\n|---|---:|")
    for name, key in ROWS.items():
        print(f"| {name} | {show([found[key]])} |")
    print()
    for holds, target in targets(scenario, found):
        print("OK    " if holds else "NOT OK", target)


if __name__ == "__main__":
    main()
