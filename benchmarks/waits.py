"""
Measure what deferred waits cost a triggerer, compared with an Amazon provider trigger for the same service.

The scenarios run one after the other, alternating between our trigger and the peer's, each in a new process
with a new endpoint. All runs are active for a while, then some end one after the other, then all others at
once. The peer needs aiobotocore. Without it, the benchmark measures only our trigger.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import endpoint

DEFAULT_RATE: float = 10
PAGE_SIZE = 50
# The rate limiter waits for its interval and up to 10% more.
JITTER = 1.1
TICK = 0.02
DOMAIN = "dzd_benchmark"
# A limit that no machine reaches.
NO_LIMIT: float = 100_000
# Modules that a triggerer has imported, and others that only a wait imports.
TRIGGERER = "airflow.jobs.triggerer_job_runner"
WARM_UP = {"ours": "airflow_provider_datazone.hooks.datazone", "peer": "aiobotocore.session"}


class Scenario(NamedTuple):
    """A number of waits with our trigger or the peer's. See ``endpoint.Runs`` for when their runs end."""

    package: str
    number: int
    staggered: int
    over: float
    gap: float
    poll_interval: int = 10
    rate: float = DEFAULT_RATE

    @property
    def idle(self) -> float:
        return 1.2 * self.poll_interval

    @property
    def title(self) -> str:
        return f"{self.number:,} {self.package}" + (", no limit" if self.rate == NO_LIMIT else "")


# At the default limit, the Gets for a thousand ended runs take a hundred seconds. The gaps leave time to read
# all staggered runs before the others end.
FULL = [
    Scenario("ours", 300, staggered=40, over=10, gap=15),
    Scenario("peer", 300, staggered=40, over=10, gap=15),
    Scenario("ours", 1_000, staggered=300, over=20, gap=18, rate=25),
    Scenario("peer", 1_000, staggered=300, over=20, gap=18),
    Scenario("ours", 10_000, staggered=2_000, over=15, gap=18, rate=200),
    # All end within ten seconds.
    Scenario("ours", 10_000, staggered=9_999, over=10, gap=0, rate=NO_LIMIT),
]
SHORT = [
    Scenario(package, 150, staggered=50, over=4, gap=2, poll_interval=3, rate=50)
    for package in ("ours", "peer")
]

# --------------------------------------------------------------------- the process that waits


def resident() -> float:
    """Return this process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Watchdog:
    """
    Measures how long the event loop is blocked, and how much memory a triggerer needs in addition.

    Create it before this package or the peer's is imported, so that their modules count.
    """

    def __init__(self) -> None:
        importlib.import_module(TRIGGERER)
        self.before = self._peak = resident()
        self.longest = self.total = 0.0

    @property
    def memory(self) -> float:
        """The maximum of the memory that was added, in MB."""
        return self._peak - self.before

    async def start(self, package: str) -> None:
        # A triggerer that has run for a while has imported all modules: that does not count as a block.
        importlib.import_module(WARM_UP[package])
        self._task = asyncio.create_task(self._run())
        await asyncio.sleep(5 * TICK)
        self.longest = self.total = 0.0

    async def stop(self) -> None:
        await asyncio.sleep(5 * TICK)
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            started_at = time.monotonic()
            await asyncio.sleep(TICK)
            delay = time.monotonic() - started_at - TICK
            self.longest = max(self.longest, delay)
            if delay > 0.1:
                self.total += delay
            self._peak = max(self._peak, resident())


def make_trigger(scenario: Scenario, run: str) -> Any:
    if scenario.package == "ours":
        from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger

        return DataZoneMetadataGenerationRunTrigger(
            run, DOMAIN, poll_interval=scenario.poll_interval, aws_conn_id="bench"
        )
    from airflow.providers.amazon.aws.triggers.sagemaker_unified_studio_notebook import (
        SageMakerUnifiedStudioNotebookTrigger,
    )

    return SageMakerUnifiedStudioNotebookTrigger(
        run, DOMAIN, "project", waiter_delay=scenario.poll_interval, aws_conn_id="bench"
    )


async def wait_for_all(scenario: Scenario) -> dict[str, Any]:
    """Run the triggers as a triggerer does: each in a task, all in one event loop."""
    events: dict[str, float] = {}

    async def run_trigger(run: str, trigger: Any) -> None:
        async for event in trigger.run():
            events[run] = time.monotonic()
            if event.payload["status"] not in ("terminal", "success"):
                raise RuntimeError(f"{run}: {event.payload}")

    watchdog = Watchdog()
    # Imports the trigger.
    make_trigger(scenario, "warm-up")
    await watchdog.start(scenario.package)
    cpu_before, started_at = time.process_time(), time.monotonic()
    tasks = []
    for index in range(scenario.number):
        # The triggerer also yields to the event loop between two triggers.
        await asyncio.sleep(0)
        run = f"r{index}"
        tasks.append(asyncio.create_task(run_trigger(run, make_trigger(scenario, run))))
    await asyncio.gather(*tasks)
    await watchdog.stop()
    return {
        "events": events,
        "started_at": started_at,
        "cpu": time.process_time() - cpu_before,
        "longest": watchdog.longest,
        "total": watchdog.total,
        "before": watchdog.before,
        "memory": watchdog.memory,
    }


def child(scenario: Scenario) -> None:
    logging.disable(logging.INFO)
    print(json.dumps(asyncio.run(wait_for_all(scenario))))


# --------------------------------------------------------------------- the process that compares


def run_child(
    script: str, scenario: Any, url: str, home: str, rates: dict[str, float], seconds: float
) -> dict[str, Any]:
    """Run a scenario in a subprocess with its own Airflow, and return the result that it prints."""
    connection = {
        "conn_type": "aws",
        "login": "key",
        "password": "secret",
        "extra": {"region_name": "eu-west-1", "endpoint_url": url},
    }
    environment = os.environ | {
        "AIRFLOW_HOME": home,
        "AIRFLOW_CONN_BENCH": json.dumps(connection),
        "NO_PROXY": "127.0.0.1",
        "PYTHONWARNINGS": "ignore",
    }
    environment |= {f"AIRFLOW__DATAZONE__{option}": str(rate) for option, rate in rates.items()}
    done = subprocess.run(
        [sys.executable, script, "--child", json.dumps(scenario)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=seconds,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(scenario: Scenario, home: str) -> dict[str, Any]:
    plan = (scenario.number, scenario.staggered, scenario.idle, scenario.over, scenario.gap)
    load = os.getloadavg()[0]
    with endpoint.running("waits", *plan) as url:
        result = run_child(__file__, scenario, url, home, {"MAX_REQUESTS_PER_SECOND": scenario.rate}, 900)
        report = endpoint.report(url)
    return evaluate(scenario, result, report) | {"load": load}


def evaluate(scenario: Scenario, result: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Combine the results of the waiting process and the endpoint, which use the same clock."""
    received_at = [moment for moment, _, _ in report["requests"]]
    events, ended_at = result["events"], report["ended_at"]
    interval = scenario.poll_interval
    last_end = max(ended_at.values())
    delays = {run: events[run] - end for run, end in ended_at.items()}
    if min(delays.values()) < 0:
        raise RuntimeError("an event came before its run ended")
    # The delay minus the poll interval and the time that the requests sent after it take at the rate limit.
    overdue = max(
        delays[run]
        - interval
        - JITTER
        / scenario.rate
        * (bisect_right(received_at, events[run]) - bisect_left(received_at, end + interval))
        for run, end in ended_at.items()
    )
    first_pages = [active for _, operation, active in report["requests"] if operation == "List, first page"]
    gets = sum(operation == "Get" for _, operation, _ in report["requests"])
    # The start of a poll interval during which all runs are active.
    since = report["started_at"] + scenario.idle - interval
    return {
        "rate": [scenario.rate] if scenario.package == "ours" and scenario.rate != NO_LIMIT else [],
        "memory": result["memory"],
        "before": result["before"],
        "longest": result["longest"],
        "total": result["total"],
        "cpu": result["cpu"],
        "seconds": max(events.values()) - result["started_at"],
        "first poll": report["started_at"] - result["started_at"],
        "gets": gets,
        "lists": len(received_at) - gets,
        "round": bisect_left(received_at, since + interval) - bisect_left(received_at, since),
        "rounds": len(first_pages),
        "allowed": scenario.number + sum(2 * math.ceil(max(n, 1) / PAGE_SIZE) for n in first_pages),
        "overdue": overdue,
        "staggered": spread(delays[run] for run, end in ended_at.items() if end < last_end),
        "at once": spread(delays[run] for run, end in ended_at.items() if end == last_end),
    }


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    """Return the median, the 95th percentile and the maximum."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1], ordered[-1]


ROWS: dict[str, Callable[[dict[str, Any]], Sequence[float]]] = {
    "rate limit, requests per second": lambda r: r["rate"],
    "memory added, MB": lambda r: [r["memory"]],
    "longest block of the event loop, s": lambda r: [r["longest"]],
    "total of blocks over 0.1 s, s": lambda r: [r["total"]],
    "CPU, s": lambda r: [r["cpu"]],
    "requests per poll interval, all runs active": lambda r: [r["round"]],
    "requests in total": lambda r: [r["gets"] + r["lists"]],
    "of these Get": lambda r: [r["gets"]],
    "of these List": lambda r: [r["lists"]],
    "until each run was polled once, s": lambda r: [r["first poll"]],
    "end to event, staggered: median, p95, max, s": lambda r: r["staggered"],
    "end to event, all at once: median, p95, max, s": lambda r: r["at once"],
    "start to last event, s": lambda r: [r["seconds"]],
}


def show(values: Iterable[float]) -> str:
    return ", ".join(
        f"{v:,.0f}" if isinstance(v, int) or v >= 100 else f"{v:.1f}" if v >= 10 else f"{v:.2f}"
        for v in values
    )


def ratio(ours: float, peer: float) -> str:
    if not peer:
        return "-"
    if not ours:
        return "0"
    return f"1/{peer / ours:.0f}" if peer >= 2 * ours else show([ours / peer])


def table(results: dict[Scenario, dict[str, Any]]) -> str:
    """Return the results as a Markdown table, with the ratios first."""
    numbers = list(dict.fromkeys(scenario.number for scenario in results))
    by_scenario = by_package_and_number(results)
    pairs = [number for number in numbers if ("peer", number) in by_scenario]
    heads = [f"ours / peer, {number:,} waits" for number in pairs]
    heads += [scenario.title for scenario in results]
    lines = ["| " + " | ".join(["", *heads]) + " |", "|---" + "|---:" * len(heads) + "|"]
    for name, read in ROWS.items():
        cells = [
            ", ".join(
                ratio(ours, peer)
                for ours, peer in zip(
                    read(by_scenario["ours", number]), read(by_scenario["peer", number]), strict=False
                )
            )
            for number in pairs
        ]
        lines.append(
            "| " + " | ".join([name, *cells, *(show(read(result)) for result in results.values())]) + " |"
        )
    return "\n".join(lines)


def by_package_and_number(results: dict[Scenario, dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the results with a limit, to compare them."""
    return {(s.package, s.number): result for s, result in results.items() if s.rate != NO_LIMIT}


def targets(results: dict[Scenario, dict[str, Any]]) -> Iterable[tuple[bool, str]]:
    """Return each target and whether it is met."""
    by_scenario = by_package_and_number(results)
    for scenario, ours in results.items():
        if scenario.package != "ours":
            continue
        peer = by_scenario.get(("peer", scenario.number))
        title = scenario.title
        if peer is not None and scenario.number >= 1_000:
            yield (
                ours["memory"] <= peer["memory"] / 50,
                f"{title}: memory added is at most 1/50 of the peer's",
            )
            yield (
                ours["round"] <= peer["round"] / 50,
                f"{title}: requests per poll interval are at most 1/50 of the peer's",
            )
        if scenario.number == 10_000:
            yield ours["memory"] < 60, f"{title}: memory added is under 60 MB"
            yield ours["longest"] < 0.25, f"{title}: longest block is under 0.25 s"
        if scenario.rate == NO_LIMIT:
            continue
        requests = ours["gets"] + ours["lists"]
        yield (
            requests <= ours["allowed"],
            (
                f"{title}: {requests:,} requests, at most {ours['allowed']:,}: one Get per ended run, and "
                f"2 * ceil(active / {PAGE_SIZE}) Lists in each of {ours['rounds']} rounds"
            ),
        )
        yield (
            ours["overdue"] <= 0.5,
            (
                f"{title}: an event comes within one poll interval plus the time that the requests sent "
                f"after that interval take at the rate limit (worst: {ours['overdue']:+.2f} s)"
            ),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="only check that the benchmark works, in under a minute"
    )
    parser.add_argument("--only", type=int, metavar="N", help="only the scenarios with N waits")
    parser.add_argument("--rate", type=float, metavar="R", help="the rate limit of our requests, per second")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(Scenario(*json.loads(arguments.child)))
        return
    scenarios = [s for s in (SHORT if arguments.short else FULL) if arguments.only in (None, s.number)]
    if arguments.rate:
        scenarios = [scenario._replace(rate=arguments.rate) for scenario in scenarios]
    if importlib.util.find_spec("aiobotocore") is None:
        print("aiobotocore is not installed, so the peer is not measured: `make bench` installs it.")
        scenarios = [scenario for scenario in scenarios if scenario.package == "ours"]
    packages = ("apache-airflow", "apache-airflow-providers-amazon", "botocore", "aiobotocore")
    versions = {p.metadata["Name"]: p.version for p in importlib.metadata.distributions()}
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores,",
        ", ".join(f"{package} {versions[package]}" for package in packages if package in versions),
    )
    results = {}
    with tempfile.TemporaryDirectory() as home:
        for scenario in scenarios:
            started_at = time.monotonic()
            results[scenario] = result = measure(scenario, home)
            seconds = time.monotonic() - started_at
            has_limit = scenario.package == "ours" and scenario.rate != NO_LIMIT
            limit = f"limit {scenario.rate:g} requests per second, " if has_limit else ""
            print(
                f"{scenario.title}: {seconds:.0f} s, poll interval {scenario.poll_interval} s, {limit}"
                f"{result['before']:.0f} MB before, load {result['load']:.1f} at the start",
                flush=True,
            )
    print(f"\n{table(results)}\n")
    for holds, target in targets(results):
        print("OK    " if holds else "NOT OK", target)


if __name__ == "__main__":
    main()
