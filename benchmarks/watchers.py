"""
Measure what one and fifty asset watchers cost a triggerer, on a domain with a thousand active runs of others.

Both scenarios have the same runs, of which fifty end one after the other. One watcher follows all fifty, or
fifty watchers follow one each. The scenarios run one after the other, each in a new process with a new
endpoint, and the single watcher is the baseline. Airflow's asset state store needs a triggerer, so it is not
measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import endpoint
from waits import DOMAIN, Watchdog, ratio, run_child, show, spread

POLL_INTERVAL = 10


class Scenario(NamedTuple):
    """Watchers, and the runs of the domain."""

    watchers: int
    ending: int = 50
    others: int = 1_000
    poll_interval: float = POLL_INTERVAL
    #: Seconds within which the runs end.
    over: float = 100.0

    @property
    def plan(self) -> tuple[int, int, float, float, float]:
        # The runs of others do not end during the measurement.
        return self.ending + self.others, self.ending, 2.0 * self.poll_interval, self.over, 36_000.0

    def assets(self) -> list[list[str]]:
        """Return the assets of each watcher: those whose runs end."""
        runs = endpoint.Runs(*self.plan)
        longest = max(runs.durations.values())
        assets = [f"asset-{run}" for run, duration in runs.durations.items() if duration < longest]
        return [assets[number :: self.watchers] for number in range(self.watchers)]


FULL = [Scenario(1), Scenario(50)]
SHORT = [Scenario(n, ending=10, others=100, poll_interval=2, over=6) for n in (1, 10)]


async def watch(scenario: Scenario) -> dict[str, Any]:
    """Run the watchers as a triggerer does until each run has made its event."""
    watchdog = Watchdog()
    from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunEventTrigger

    events: list[tuple[str, float]] = []
    done = asyncio.Event()

    async def run_trigger(assets: list[str]) -> None:
        trigger = DataZoneMetadataGenerationRunEventTrigger(
            DOMAIN, asset_identifier=assets, poll_interval=scenario.poll_interval, aws_conn_id="bench"
        )
        async for event in trigger.run():
            events.append((event.payload["run"]["id"], time.monotonic()))
            if len(events) == scenario.ending:
                done.set()

    await watchdog.start("ours")
    cpu_before, started_at = time.process_time(), time.monotonic()
    tasks = [asyncio.create_task(run_trigger(assets)) for assets in scenario.assets()]
    await done.wait()
    # A second event of a run would come within a poll and the delay of the last event of a burst.
    await asyncio.sleep(scenario.poll_interval + 12)
    seconds = time.monotonic() - started_at
    for task in tasks:
        task.cancel()
    await watchdog.stop()
    return {
        "events": events,
        "seconds": seconds,
        "cpu": time.process_time() - cpu_before,
        "longest": watchdog.longest,
        "memory": watchdog.memory,
    }


def measure(scenario: Scenario, home: str) -> dict[str, Any]:
    load = os.getloadavg()[0]
    with endpoint.running("waits", *scenario.plan) as url:
        result = run_child(__file__, scenario, url, home, {}, 900)
        report = endpoint.report(url)
    delays = [moment - report["ended_at"][run] for run, moment in result["events"]]
    lists = sum(operation.startswith("List") for _, operation, _ in report["requests"])
    rounds = sum(operation == "List, first page" for _, operation, _ in report["requests"])
    return result | {
        "delays": spread(delays),
        "distinct": len({run for run, _ in result["events"]}),
        "gets": len(report["requests"]) - lists,
        "lists": lists,
        "rounds": rounds,
        "load": load,
    }


ROWS: dict[str, Callable[[dict[str, Any]], Sequence[float]]] = {
    "events, of different runs": lambda r: [len(r["events"]), r["distinct"]],
    "requests per poll": lambda r: [r["lists"] / r["rounds"]],
    "Gets in total": lambda r: [r["gets"]],
    "CPU per minute, s": lambda r: [60 * r["cpu"] / r["seconds"]],
    "memory added, MB": lambda r: [r["memory"]],
    "longest block of the event loop, s": lambda r: [r["longest"]],
    "end to event: median, p95, max, s": lambda r: r["delays"],
}


def count(scenario: Scenario) -> str:
    return f"{scenario.watchers} watcher{'s' if scenario.watchers > 1 else ''}"


def table(results: dict[Scenario, dict[str, Any]]) -> str:
    """Return the results as a Markdown table, with the ratio first."""
    one, many = results.values()
    heads = [f"{list(results)[1].watchers} / 1", *map(count, results)]
    lines = ["| " + " | ".join(["", *heads]) + " |", "|---" + "|---:" * len(heads) + "|"]
    for name, read in ROWS.items():
        ratios = ", ".join(ratio(a, b) for a, b in zip(read(many), read(one), strict=True))
        lines.append("| " + " | ".join([name, ratios, show(read(one)), show(read(many))]) + " |")
    return "\n".join(lines)


def targets(results: dict[Scenario, dict[str, Any]]) -> Iterator[tuple[bool, str]]:
    """Return each target and whether it is met."""
    one, many = results.values()
    for scenario, result in results.items():
        number = count(scenario)
        yield (
            len(result["events"]) == result["distinct"] == scenario.ending,
            f"{number}: each run makes one event",
        )
        yield result["gets"] == scenario.ending, f"{number}: one Get for each run that ended"
        yield result["longest"] < 0.25, f"{number}: the longest block is under 0.25 s"
    yield many["lists"] / many["rounds"] <= 1.05 * one["lists"] / one["rounds"], "watchers share the Lists"


def report_targets(results: Iterable[tuple[bool, str]]) -> None:
    for holds, target in results:
        print("OK    " if holds else "NOT OK", target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="only check that the benchmark works")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        logging.disable(logging.WARNING)
        print(json.dumps(asyncio.run(watch(Scenario(*json.loads(arguments.child))))))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    results = {}
    with tempfile.TemporaryDirectory() as home:
        for scenario in SHORT if arguments.short else FULL:
            results[scenario] = measure(scenario, home)
            print(
                f"{count(scenario)}: {results[scenario]['seconds']:.0f} s, poll interval "
                f"{scenario.poll_interval:g} s, {scenario.others:,} active runs of others, load "
                f"{results[scenario]['load']:.1f} at the start",
                flush=True,
            )
    print(f"\n{table(results)}\n")
    report_targets(targets(results))


if __name__ == "__main__":
    main()
