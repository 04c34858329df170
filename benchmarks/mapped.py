"""
What one batch task costs a whole Airflow, beside the same work as mapped tasks of the Start operator.

Scheduler, API server, DAG processor, triggerer and the tasks of LocalExecutor are real processes, on SQLite,
as in the system tests; the endpoint has DataZone's limit of 10 starts a second. Each way begins with a
scheduler and a triggerer of its own, which have done the same for two assets before.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import endpoint
import psutil
from batch import SHORT, START_LIMIT, TYPES, Scenario
from waits import DOMAIN, ratio, show

if TYPE_CHECKING:
    from tests.system.deployment import Component, Deployment

# The first is ours, the others its peers.
WAYS = {
    "batch": "one batch task",
    "mapped": "mapped tasks, deferrable",
    "mapped_in_workers": "mapped tasks, not deferrable",
}
WARM_UP = 2
# Tasks at a time. Airflow's defaults are 32, and 16 of one DAG, which two busy cores do not bear: mapped
# tasks were then put off for a minute, as Airflow does with those whose DAG could not be imported.
PARALLELISM = 8
# Seconds that an import may take; Airflow's default is 30.
IMPORT_TIMEOUT = 300
# Seconds: of rest before and after what is measured, and between two looks at the memory.
IDLE, SETTLE, LOOK = 10, 3, 1
TAIL = 20


class Processes:
    """What Airflow's processes take, all in all; those that have ended count with their parents."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def _all(self) -> Iterator[psutil.Process]:
        sessions = {component.process.pid for component in self._deployment.components}
        for pid in psutil.pids():
            with suppress(OSError, psutil.Error):
                if os.getsid(pid) in sessions:
                    yield psutil.Process(pid)

    def cpu(self) -> float:
        """Return seconds."""
        total = 0.0
        for process in self._all():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory(self) -> tuple[float, int]:
        """Return MB, shared pages once (the sum of PSS), and the number of processes."""
        total, number = 0, 0
        for process in self._all():
            with suppress(OSError):
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8")
                total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
                number += 1
        return total / 2**10, number


class Bench:
    """An Airflow whose connection ``bench`` leads to the endpoint."""

    def __init__(self, deployment: Deployment, url: str, scenario: Scenario) -> None:
        self.deployment = deployment
        self.scenario = scenario
        self.processes = Processes(deployment)
        self._url = url
        self._current: list[Component] = []

    def renew(self) -> None:
        """Start the scheduler and the triggerer anew, so that nothing is left in them of what was before."""
        for component in self._current:
            self.deployment.kill(component)
        if self._current:
            self.deployment.start_component("scheduler", "--skip-serve-logs")
        else:
            self.deployment.start()
        scheduler = self.deployment.components[-1]
        triggerer, _ = self.deployment.start_triggerer()
        self._current = [scheduler, triggerer]

    def rows(self) -> Counter[str]:
        """Return the number of rows of each table."""
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        return Counter(
            {
                table: self.deployment.query(f'SELECT count(*) FROM "{table}"')[0][0]
                for (table,) in self.deployment.query(tables)
            }
        )

    def run(self, dag_id: str) -> dict[str, Any]:
        """Run a DAG once; return how it went, and the most that it took of memory and processes."""
        run_id = f"{dag_id}-{time.time_ns()}"
        memory: list[tuple[float, int]] = []
        looked = 0.0

        def ended() -> bool:
            nonlocal looked
            if time.monotonic() - looked >= LOOK:
                memory.append(self.processes.memory())
                looked = time.monotonic()
            runs = self.deployment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id)
            return runs[0][0] in ("success", "failed")

        self.deployment.run("dags", "trigger", dag_id, "--run-id", run_id)
        self.deployment.wait_for(f"the end of {dag_id}", ended, seconds=300 + 30 * self.scenario.assets)
        ((state, queued, end),) = self.deployment.query(
            "SELECT state, queued_at, end_date FROM dag_run WHERE run_id = ?", run_id
        )
        # Whenever a task is begun or taken up again, which is a process, Airflow logs that it is running.
        events = "SELECT event, count(*) FROM log WHERE run_id = ? AND task_id IS NOT NULL GROUP BY 1"
        return {
            "state": state,
            "seconds": (datetime.fromisoformat(end) - datetime.fromisoformat(queued)).total_seconds(),
            "memory": max(used for used, _ in memory),
            "at a time": max(number for _, number in memory),
            "events": Counter(dict(self.deployment.query(events, run_id))),
        }

    def measure(self, way: str) -> dict[str, Any]:
        self.renew()
        warm = self.run(f"{way}_{WARM_UP}")
        if warm["state"] != "success":
            raise RuntimeError(f"warming up of {way}: {warm}")
        time.sleep(SETTLE)
        load = os.getloadavg()[0]
        cpu_before = self.processes.cpu()
        time.sleep(IDLE)
        cpu, rows, (memory, number) = self.processes.cpu(), self.rows(), self.processes.memory()
        seen = endpoint.report(self._url)
        found = self.run(f"{way}_{self.scenario.assets}")
        time.sleep(SETTLE)
        report = endpoint.report(self._url)
        requests = report["requests"][len(seen["requests"]) :]
        assets = report["assets"][len(seen["assets"]) :]
        counts = Counter(operation for _, operation, _ in requests)
        starts = [moment for moment, operation, _ in requests if operation == "Start"]
        added = self.rows()
        added.subtract(rows)
        return {
            "state": found["state"],
            "seconds": found["seconds"],
            "pace": (len(starts) - 1) / (starts[-1] - starts[0]),
            "processes": found["events"]["running"],
            "deferred": found["events"]["deferred"],
            "at a time": found["at a time"] - number,
            "cpu": self.processes.cpu() - cpu,
            "memory": found["memory"] - memory,
            "rows": sum(added.values()),
            "runs": len(assets),
            "assets": len(set(assets)),
            "refused": counts["refused"],
            # As the task itself says, and as the scheduler does of one that it has lost track of.
            "failed": found["events"]["up_for_retry"] + found["events"]["failed"],
            "mismatches": found["events"]["state mismatch"],
            "reads": counts["Get"] + counts["List"],
            "active": max(active for _, _, active in requests),
            "tables": {table: number for table, number in added.items() if number},
            "load": load,
            "idle cpu": (cpu - cpu_before) / IDLE,
            "idle memory": memory,
            "idle processes": number,
        }


@contextmanager
def airflow(home: Path, url: str, scenario: Scenario, parallelism: int) -> Iterator[Deployment]:
    """Make an Airflow, and stop whatever was started of it."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.system.deployment import Deployment

    deployment = Deployment(
        home,
        Path(__file__).with_name("mapped_dags.py"),
        settings={
            "CORE__PARALLELISM": parallelism,
            "CORE__MAX_ACTIVE_TASKS_PER_DAG": parallelism,
            "CORE__DAGBAG_IMPORT_TIMEOUT": IMPORT_TIMEOUT,
            "DATAZONE__MAX_REQUESTS_PER_SECOND": scenario.rate,
            "DATAZONE__MAX_STARTS_PER_SECOND": START_LIMIT,
        },
    )
    plan = scenario._asdict() | {"types": TYPES, "numbers": [WARM_UP, scenario.assets]}
    deployment.environment |= {
        "BENCHMARK_PLAN": json.dumps(plan),
        "NO_PROXY": "127.0.0.1",
        "PYTHONWARNINGS": "ignore",
    }
    connection = {
        "conn_type": "awsdatazone",
        "login": "key",
        "password": "secret",
        "extra": {
            "region_name": "eu-west-1",
            "endpoint_url": url,
            "domain_identifier": DOMAIN,
            "owning_project_identifier": "project",
        },
    }
    try:
        deployment.set_up("bench", json.dumps(connection))
        yield deployment
    except Exception:
        for component in deployment.components:
            tail = "\n".join(component.output.splitlines()[-TAIL:])
            print(f"--- {component.name}\n{tail}", file=sys.stderr)
        raise
    finally:
        deployment.stop()


ROWS = {
    "trigger to end of the DAG run, s": "seconds",
    "starts a second": "pace",
    "processes started for tasks": "processes",
    "processes at a time, above idle": "at a time",
    "triggers created": "deferred",
    "CPU of all of Airflow, s": "cpu",
    "memory added at the most, all of Airflow, MB": "memory",
    "rows added to Airflow's database": "rows",
    "runs started": "runs",
    "active at a time, at most": "active",
    "starts refused for their rate": "refused",
    "tries that failed": "failed",
    "of these by a state mismatch in Airflow": "mismatches",
    "Get and List requests": "reads",
}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the results in Markdown, ratios first."""
    ours, *peers = results
    heads = [f"{WAYS[ours]} / {WAYS[peer]}" for peer in peers] + [WAYS[way] for way in results]
    lines = ["| " + " | ".join(["", *heads]) + " |", "|---" + "|---:" * len(heads) + "|"]
    values = {name: [found[key] for found in results.values()] for name, key in ROWS.items()}
    for name in sorted({table for found in results.values() for table in found["tables"]}):
        values[f"rows of `{name}`"] = [found["tables"].get(name, 0) for found in results.values()]
    for name, (our, *their) in values.items():
        cells = [ratio(our, value) for value in their] + [show([value]) for value in (our, *their)]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def targets(scenario: Scenario, results: dict[str, dict[str, Any]]) -> Iterable[tuple[bool, str]]:
    """Return what must hold, and whether it does."""
    for way, found in results.items():
        yield found["state"] == "success", f"{WAYS[way]}: the DAG run succeeded"
        yield (
            found["runs"] == found["assets"] == scenario.assets,
            f"{WAYS[way]}: each of {scenario.assets} assets had one run",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="30 assets; says that it works, not much more")
    parser.add_argument("--assets", type=int, default=SHORT.assets, metavar="N", help="default: 200")
    parser.add_argument(
        "--parallelism", type=int, default=PARALLELISM, metavar="N", help=f"default: {PARALLELISM}"
    )
    parser.add_argument("--only", choices=WAYS, action="append", help="only this way")
    arguments = parser.parse_args()
    scenario = SHORT._replace(assets=30 if arguments.short else arguments.assets)
    # A `kill` ends as Ctrl-C does: with everything stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    packages = ("apache-airflow", "apache-airflow-providers-amazon", "botocore")
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores,",
        ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages),
    )
    print(
        f"{scenario.assets:,} assets, runs of {scenario.life:g} s, poll_interval={scenario.poll_interval:g}, "
        f"max_concurrent_runs={scenario.max_concurrent_runs}; LocalExecutor, "
        f"parallelism={arguments.parallelism}",
        flush=True,
    )
    results: dict[str, dict[str, Any]] = {}
    try:
        with (
            tempfile.TemporaryDirectory() as home,
            endpoint.running("starts", scenario.life, START_LIMIT) as url,
            airflow(Path(home), url, scenario, arguments.parallelism) as deployment,
        ):
            bench = Bench(deployment, url, scenario)
            for way in arguments.only or WAYS:
                results[way] = found = bench.measure(way)
                print(
                    f"{WAYS[way]}: {found['seconds']:.0f} s; idle before: {found['idle processes']} "
                    f"processes, {found['idle memory']:,.0f} MB, {found['idle cpu']:.2f} s CPU a second; "
                    f"load {found['load']:.1f} at the start, {os.getloadavg()[0]:.1f} at the end",
                    flush=True,
                )
    finally:
        # It takes long enough for what was measured before an interruption to be of worth.
        if results:
            print(f"\n{table(results)}\n", flush=True)
    for holds, target in targets(scenario, results):
        print("OK    " if holds else "NOT OK", target)


if __name__ == "__main__":
    main()
