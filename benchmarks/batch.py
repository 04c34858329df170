"""
Measure what a batch of thousands of assets costs a triggerer, and how much of the start rate it uses.

The benchmark runs the batch's trigger as a triggerer does, against an endpoint that limits starts to 10 and
accepts to 20 per second, as DataZone does: once to generate alone, and once to accept and publish, too. When
the trigger returns a checkpoint for a worker to save, the benchmark resumes the batch at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import endpoint
from waits import DOMAIN, Watchdog, run_child, show

START_LIMIT = 10.0
ACCEPT_LIMIT = 20.0
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]


class Scenario(NamedTuple):
    """The size of a batch and the duration of its runs."""

    assets: int
    run_seconds: float
    max_concurrent_runs: int
    poll_interval: float
    # The limit of Gets and Lists per second, and that of published assets.
    rate: float
    publish: bool = False


FULL = Scenario(10_000, run_seconds=30, max_concurrent_runs=400, poll_interval=5, rate=25)
SHORT = Scenario(200, run_seconds=5, max_concurrent_runs=100, poll_interval=2, rate=25)


# --------------------------------------------------------------------- the process that runs the batch


async def run_batch(scenario: Scenario) -> dict[str, Any]:
    watchdog = Watchdog()
    from airflow_provider_datazone.batch.assets import AssetRow, pack, unpack
    from airflow_provider_datazone.triggers.datazone import DataZoneBatchMetadataGenerationTrigger

    now = time.time()
    arguments: dict[str, Any] = {
        "rows": pack(AssetRow(f"asset-{index}", None, "project") for index in range(scenario.assets)),
        "noted_at": now,
        "types": TYPES,
        "domain_identifier": DOMAIN,
        "identity": "benchmark",
        "began_at": now,
        "max_concurrent_runs": scenario.max_concurrent_runs,
        "poll_interval": scenario.poll_interval,
        "aws_conn_id": "bench",
        "accept_threshold": 0.8 if scenario.publish else None,
        "publish": scenario.publish,
    }
    await watchdog.start("ours")
    cpu_before, started_at = time.process_time(), time.monotonic()
    triggers = 0
    event: dict[str, Any] = {"status": "checkpoint"} | arguments
    while event["status"] == "checkpoint":
        triggers += 1
        resumed = {name: event[name] for name in ("rows", "noted_at")}
        trigger = DataZoneBatchMetadataGenerationTrigger(**arguments | resumed)
        (event,) = [event.payload async for event in trigger.run()]
    ended_at = time.monotonic()
    await watchdog.stop()
    return {
        "status": event["status"],
        "statuses": Counter(row.status for row in unpack(event["rows"])),
        "event": len(event["rows"]),
        "triggers": triggers,
        "seconds": ended_at - started_at,
        "cpu": time.process_time() - cpu_before,
        "longest": watchdog.longest,
        "total": watchdog.total,
        "memory": watchdog.memory,
    }


def child(scenario: Scenario) -> None:
    logging.disable(logging.INFO)
    print(json.dumps(asyncio.run(run_batch(scenario))))


# --------------------------------------------------------------------- the process that measures


def measure(scenario: Scenario, home: str) -> dict[str, Any]:
    rates = {"MAX_REQUESTS_PER_SECOND": scenario.rate, "MAX_STARTS_PER_SECOND": START_LIMIT}
    with endpoint.running("starts", scenario.run_seconds, START_LIMIT, ACCEPT_LIMIT) as url:
        result = run_child(__file__, scenario, url, home, rates, 3600)
        report = endpoint.report(url)
    counts = Counter(operation for _, operation, _ in report["requests"])
    starts = [received_at for received_at, operation, _ in report["requests"] if operation == "Start"]
    return result | {
        "accepts": counts["Accept"],
        "publications": counts["Publish"],
        "accepted": len(set(report["changed"]["Accept"])),
        "published": len(set(report["changed"]["Publish"])),
        "starts": counts["Start"],
        "throttled": counts["throttled"],
        "gets": counts["Get"],
        "lists": counts["List"],
        "runs": len(report["assets"]),
        "assets": len(set(report["assets"])),
        "active": max(active for _, _, active in report["requests"]),
        "start rate": (len(starts) - 1) / (starts[-1] - starts[0]),
    }


ROWS = {
    "assets": "assets",
    "runs started": "runs",
    "seconds": "seconds",
    "starts per second": "start rate",
    "throttled requests": "throttled",
    "active runs, maximum": "active",
    "Start requests that were not throttled": "starts",
    "Get requests": "gets",
    "List requests": "lists",
    "Accept requests that were not throttled": "accepts",
    "Publish requests": "publications",
    "memory added, MB": "memory",
    "longest block of the event loop, s": "longest",
    "total of blocks over 0.1 s, s": "total",
    "CPU, s": "cpu",
    "last event, bytes": "event",
}


def targets(scenario: Scenario, result: dict[str, Any]) -> Iterable[tuple[bool, str]]:
    """Return each target and whether it is met."""
    yield result["status"] == "ended", "the batch has ended"
    yield result["statuses"] == {"SUCCEEDED": scenario.assets}, "each asset has succeeded"
    yield result["runs"] == result["assets"] == scenario.assets, "each asset had one run"
    yield result["start rate"] >= 0.95 * START_LIMIT, "the batch uses 95% of the start rate"
    requests = sum(result[key] for key in ("throttled", "starts", "gets", "lists", "accepts", "publications"))
    yield result["throttled"] <= 0.01 * requests, "at most 1% of the requests are throttled"
    yield result["active"] <= scenario.max_concurrent_runs, "at most max_concurrent_runs runs are active"
    yield result["gets"] == result["starts"] == scenario.assets, "one Start and one Get per asset"
    changes = scenario.assets if scenario.publish else 0
    yield result["accepts"] == result["accepted"] == changes, f"{changes:,} assets are accepted, each once"
    yield (
        result["publications"] == result["published"] == changes,
        f"{changes:,} assets are published, each once",
    )
    yield result["memory"] < 80, "memory added is under 80 MB"
    yield result["longest"] < 0.5, "the event loop is never blocked for more than 0.5 s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="only check that the benchmark works, in half a minute"
    )
    parser.add_argument("--assets", type=int, metavar="N", help="the number of assets")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(Scenario(*json.loads(arguments.child)))
        return
    scenario = SHORT if arguments.short else FULL
    if arguments.assets:
        scenario = scenario._replace(assets=arguments.assets)
    print(
        f"{scenario.assets:,} assets, runs of {scenario.run_seconds:g} s, max_concurrent_runs="
        f"{scenario.max_concurrent_runs}, poll_interval={scenario.poll_interval:g}, at most "
        f"{scenario.rate:g} requests per second besides starts; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    scenarios = [scenario, scenario._replace(publish=True)]
    results = []
    for each in scenarios:
        with tempfile.TemporaryDirectory() as home:
            results.append(measure(each, home))
    print("\n| | generate | generate, accept and publish |\n|---|---:|---:|")
    for name, key in ROWS.items():
        print(f"| {name} | {show([results[0][key]])} | {show([results[1][key]])} |")
    print()
    for each, result in zip(scenarios, results, strict=True):
        for holds, target in targets(each, result):
            print("OK    " if holds else "NOT OK", target)
    ratio = results[1]["seconds"] / results[0]["seconds"]
    print(
        "OK    " if ratio <= 1.05 else "NOT OK", f"accepting and publishing takes {ratio:.3f} times as long"
    )


if __name__ == "__main__":
    main()
