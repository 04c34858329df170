"""
What deferred waits cost a triggerer, beside a trigger of the Amazon provider that polls the same service.

Every scenario runs in a fresh process against an endpoint of its own, one after the other, ours and the
peer's in turn. All runs are active for a while, then some end one after the other, then all others at once.
The peer needs aiobotocore; without it, ours are measured alone.
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
# A turn of the limiter takes its interval and up to a tenth more.
JITTER = 1.1
TICK = 0.02
DOMAIN = "dzd_benchmark"
WARM_UP = {"ours": "airflow_provider_datazone.triggers.run_poller", "peer": "aiobotocore.session"}


class Scenario(NamedTuple):
    """So many waits of ours or the peer's; see ``endpoint.Runs`` for when their runs end."""

    who: str
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
        return f"{self.number:,} {self.who}"


# At the default limit, a thousand ends are a hundred seconds of Gets. The gaps leave time to read all that
# have ended before the others do.
FULL = [
    Scenario("ours", 300, staggered=40, over=10, gap=15),
    Scenario("peer", 300, staggered=40, over=10, gap=15),
    Scenario("ours", 1_000, staggered=300, over=20, gap=18, rate=25),
    Scenario("peer", 1_000, staggered=300, over=20, gap=18),
    Scenario("ours", 10_000, staggered=2_000, over=15, gap=18, rate=200),
]
SHORT = [
    Scenario(who, 150, staggered=50, over=4, gap=2, poll_interval=3, rate=50) for who in ("ours", "peer")
]

# --------------------------------------------------------------------- the process that waits


def resident() -> float:
    """Return this process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Watchdog:
    """Note how long the event loop keeps others waiting, and the most memory."""

    def __init__(self) -> None:
        self.longest = self.total = 0.0
        self.before = self.peak = resident()

    async def run(self) -> None:
        while True:
            asked = time.monotonic()
            await asyncio.sleep(TICK)
            late = time.monotonic() - asked - TICK
            self.longest = max(self.longest, late)
            if late > 0.1:
                self.total += late
            self.peak = max(self.peak, resident())


def make_trigger(scenario: Scenario, run: str) -> Any:
    if scenario.who == "ours":
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
    """Run the triggers as a triggerer does: each a task, all on one loop."""
    events: dict[str, float] = {}

    async def run_trigger(run: str, trigger: Any) -> None:
        async for event in trigger.run():
            events[run] = time.monotonic()
            if event.payload["status"] not in ("terminal", "success"):
                raise RuntimeError(f"{run}: {event.payload}")

    # Modules are there in a triggerer that has run for a while, also those that only a wait imports.
    make_trigger(scenario, "warm-up")
    importlib.import_module(WARM_UP[scenario.who])
    watchdog = Watchdog()
    watching = asyncio.create_task(watchdog.run())
    await asyncio.sleep(5 * TICK)
    watchdog.longest = watchdog.total = 0.0
    cpu, began = time.process_time(), time.monotonic()
    tasks = []
    for index in range(scenario.number):
        # As the triggerer does between two that it creates.
        await asyncio.sleep(0)
        run = f"r{index}"
        tasks.append(asyncio.create_task(run_trigger(run, make_trigger(scenario, run))))
    await asyncio.gather(*tasks)
    await asyncio.sleep(5 * TICK)
    watching.cancel()
    return {
        "events": events,
        "began": began,
        "cpu": time.process_time() - cpu,
        "longest": watchdog.longest,
        "total": watchdog.total,
        "before": watchdog.before,
        "memory": watchdog.peak - watchdog.before,
    }


def child(scenario: Scenario) -> None:
    logging.disable(logging.INFO)
    print(json.dumps(asyncio.run(wait_for_all(scenario))))


# --------------------------------------------------------------------- the process that compares


def watch(
    script: str, scenario: Any, url: str, home: str, rates: dict[str, float], seconds: float
) -> dict[str, Any]:
    """Return what a process tells that does nothing but go through a scenario, with an Airflow of its own."""
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
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(scenario: Scenario, home: str) -> dict[str, Any]:
    plan = (scenario.number, scenario.staggered, scenario.idle, scenario.over, scenario.gap)
    load = os.getloadavg()[0]
    with endpoint.running("waits", *plan) as url:
        found = watch(__file__, scenario, url, home, {"MAX_REQUESTS_PER_SECOND": scenario.rate}, 900)
        report = endpoint.report(url)
    return evaluate(scenario, found, report) | {"load": load}


def evaluate(scenario: Scenario, found: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Put together what the waiting process and the endpoint have seen; both read the same clock."""
    moments = [moment for moment, _, _ in report["requests"]]
    interval = scenario.poll_interval
    last_end = max(report["ends"].values())
    late = {run: found["events"][run] - end for run, end in report["ends"].items()}
    if min(late.values()) < 0:
        raise RuntimeError("an event came before its run ended")
    # What is left once the poll interval and the requests sent after it, at the rate, are taken off.
    overdue = max(
        found["events"][run]
        - (end + interval)
        - JITTER
        / scenario.rate
        * (bisect_right(moments, found["events"][run]) - bisect_left(moments, end + interval))
        for run, end in report["ends"].items()
    )
    first_pages = [active for _, operation, active in report["requests"] if operation == "List, first page"]
    gets = sum(operation == "Get" for _, operation, _ in report["requests"])
    # One whole poll interval in which all runs were active.
    since = report["started"] + scenario.idle - interval
    return {
        "rate": [scenario.rate] if scenario.who == "ours" else [],
        "memory": found["memory"],
        "before": found["before"],
        "longest": found["longest"],
        "total": found["total"],
        "cpu": found["cpu"],
        "seconds": max(found["events"].values()) - found["began"],
        "first look": report["started"] - found["began"],
        "gets": gets,
        "lists": len(moments) - gets,
        "round": bisect_left(moments, since + interval) - bisect_left(moments, since),
        "rounds": len(first_pages),
        "allowed": scenario.number + sum(2 * math.ceil(max(n, 1) / PAGE_SIZE) for n in first_pages),
        "overdue": overdue,
        "staggered": spread(late[run] for run, end in report["ends"].items() if end < last_end),
        "at once": spread(late[run] for run, end in report["ends"].items() if end == last_end),
    }


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    """Return median, 95th percentile and maximum."""
    found = sorted(values)
    return statistics.median(found), found[math.ceil(0.95 * len(found)) - 1], found[-1]


ROWS: dict[str, Callable[[dict[str, Any]], Sequence[float]]] = {
    "limit, requests a second": lambda r: r["rate"],
    "memory added, MB": lambda r: [r["memory"]],
    "longest block of the event loop, s": lambda r: [r["longest"]],
    "blocks over 0.1 s in all, s": lambda r: [r["total"]],
    "CPU, s": lambda r: [r["cpu"]],
    "requests a poll interval, all active": lambda r: [r["round"]],
    "requests in all": lambda r: [r["gets"] + r["lists"]],
    "of these Get": lambda r: [r["gets"]],
    "of these List": lambda r: [r["lists"]],
    "until each had been looked at once, s": lambda r: [r["first look"]],
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
    """Return the results in Markdown, ratios first."""
    numbers = list(dict.fromkeys(scenario.number for scenario in results))
    by = {(scenario.who, scenario.number): found for scenario, found in results.items()}
    pairs = [number for number in numbers if ("peer", number) in by]
    heads = [f"ours / peer, {number:,} waits" for number in pairs]
    heads += [scenario.title for scenario in results]
    lines = ["| " + " | ".join(["", *heads]) + " |", "|---" + "|---:" * len(heads) + "|"]
    for name, read in ROWS.items():
        cells = [
            ", ".join(ratio(a, b) for a, b in zip(read(by["ours", n]), read(by["peer", n]), strict=False))
            for n in pairs
        ]
        lines.append(
            "| " + " | ".join([name, *cells, *(show(read(found)) for found in results.values())]) + " |"
        )
    return "\n".join(lines)


def targets(results: dict[Scenario, dict[str, Any]]) -> Iterable[tuple[bool, str]]:
    """Return what must hold, and whether it does."""
    by = {(scenario.who, scenario.number): found for scenario, found in results.items()}
    for scenario, ours in results.items():
        if scenario.who != "ours":
            continue
        peer = by.get(("peer", scenario.number))
        title = f"{scenario.number:,} waits"
        if peer is not None and scenario.number >= 1_000:
            yield (
                ours["memory"] <= peer["memory"] / 20,
                f"{title}: memory added is 1/20 of the peer's at most",
            )
            yield (
                ours["longest"] <= peer["longest"] / 50,
                f"{title}: longest block is 1/50 of the peer's at most",
            )
        if scenario.number == 10_000:
            yield ours["memory"] < 100, f"{title}: memory added is under 100 MB"
            yield ours["longest"] < 0.5, f"{title}: longest block is under 0.5 s"
        requests = ours["gets"] + ours["lists"]
        yield (
            requests <= ours["allowed"],
            (
                f"{title}: {requests:,} requests, at most {ours['allowed']:,}: one Get a finished run and, "
                f"in {ours['rounds']} rounds, 2 * ceil(active / {PAGE_SIZE}) Lists each"
            ),
        )
        yield (
            ours["overdue"] <= 0.5,
            (
                f"{title}: an event comes within one poll interval and the rate limit's share, the time that "
                f"requests sent after that interval take at the limit (worst: {ours['overdue']:+.2f} s)"
            ),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="under a minute; says that it works, not much more"
    )
    parser.add_argument("--only", type=int, metavar="N", help="only the scenarios of so many waits")
    parser.add_argument("--rate", type=float, metavar="R", help="our limit of requests a second")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(Scenario(*json.loads(arguments.child)))
        return
    scenarios = [s for s in (SHORT if arguments.short else FULL) if arguments.only in (None, s.number)]
    if arguments.rate:
        scenarios = [scenario._replace(rate=arguments.rate) for scenario in scenarios]
    if importlib.util.find_spec("aiobotocore") is None:
        print("No aiobotocore is installed, so there is no peer: `make bench` has both.")
        scenarios = [scenario for scenario in scenarios if scenario.who == "ours"]
    packages = ("apache-airflow", "apache-airflow-providers-amazon", "botocore", "aiobotocore")
    versions = {p.metadata["Name"]: p.version for p in importlib.metadata.distributions()}
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores,",
        ", ".join(f"{package} {versions[package]}" for package in packages if package in versions),
    )
    results = {}
    with tempfile.TemporaryDirectory() as home:
        for scenario in scenarios:
            began = time.monotonic()
            results[scenario] = found = measure(scenario, home)
            seconds = time.monotonic() - began
            limit = f"limit {scenario.rate:g} requests a second, " if scenario.who == "ours" else ""
            print(
                f"{scenario.title}: {seconds:.0f} s, poll interval {scenario.poll_interval} s, {limit}"
                f"{found['before']:.0f} MB before, load {found['load']:.1f} at the start",
                flush=True,
            )
    print(f"\n{table(results)}\n")
    for holds, target in targets(results):
        print("OK    " if holds else "NOT OK", target)


if __name__ == "__main__":
    main()
