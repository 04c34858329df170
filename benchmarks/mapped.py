"""
Measure what a batch task costs an Airflow deployment, compared with mapped tasks of the Start operator.

The scheduler, API server, DAG processor, triggerer and the tasks of LocalExecutor are separate processes that
use SQLite, as in the system tests. The endpoint limits starts to 10 per second, as DataZone does. Each
measurement begins with a new scheduler and triggerer that have run the same tasks for two assets to warm up.
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
from batch import ACCEPT_LIMIT, SHORT, START_LIMIT, TYPES, Scenario
from waits import DOMAIN, ratio, show

if TYPE_CHECKING:
    from tests.system.deployment import Component, Deployment

# The first is compared with each of the others.
VARIANTS = {
    "batch": "one batch task",
    "mapped": "mapped tasks, deferrable",
    "mapped_in_workers": "mapped tasks, not deferrable",
}
WARM_UP = 2
# Concurrent tasks. Airflow's defaults, 32 and at most 16 per DAG, are too many for two busy cores: Airflow
# delayed mapped tasks for a minute, as it does if it cannot import their DAG.
PARALLELISM = 8
# The timeout of a DAG import in seconds. Airflow's default is 30.
IMPORT_TIMEOUT = 300
# Seconds: the idle measurement before a DAG run, the pause before and after it, and between memory samples.
IDLE, SETTLE, SAMPLE_INTERVAL = 10, 3, 1
TAIL_LINES = 20


class Processes:
    """The total resource usage of Airflow's processes. CPU time includes child processes that have ended."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def _all(self) -> Iterator[psutil.Process]:
        sessions = {component.process.pid for component in self._deployment.components}
        for pid in psutil.pids():
            with suppress(OSError, psutil.Error):
                if os.getsid(pid) in sessions:
                    yield psutil.Process(pid)

    def cpu(self) -> float:
        """Return the CPU time in seconds."""
        total = 0.0
        for process in self._all():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory(self) -> tuple[float, int]:
        """Return the memory in MB, with shared pages counted once (PSS), and the number of processes."""
        total, number = 0, 0
        for process in self._all():
            with suppress(OSError):
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8")
                total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
                number += 1
        return total / 2**10, number


class Bench:
    """An Airflow deployment whose connection ``bench`` points to the endpoint."""

    def __init__(self, deployment: Deployment, url: str, scenario: Scenario) -> None:
        self.deployment = deployment
        self.scenario = scenario
        self.processes = Processes(deployment)
        self._url = url
        self._current: list[Component] = []

    def restart(self) -> None:
        """Restart the scheduler and the triggerer, to discard the state of earlier measurements."""
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
        """Run a DAG once, and return its state, duration, events, and maximum memory and processes."""
        run_id = f"{dag_id}-{time.time_ns()}"
        memory: list[tuple[float, int]] = []
        sampled_at = 0.0

        def has_ended() -> bool:
            nonlocal sampled_at
            if time.monotonic() - sampled_at >= SAMPLE_INTERVAL:
                memory.append(self.processes.memory())
                sampled_at = time.monotonic()
            runs = self.deployment.query("SELECT state FROM dag_run WHERE run_id = ?", run_id)
            return runs[0][0] in ("success", "failed")

        self.deployment.run("dags", "trigger", dag_id, "--run-id", run_id)
        self.deployment.wait_for(f"the end of {dag_id}", has_ended, seconds=300 + 30 * self.scenario.assets)
        ((state, queued, end),) = self.deployment.query(
            "SELECT state, queued_at, end_date FROM dag_run WHERE run_id = ?", run_id
        )
        # Airflow logs an event `running` for each task process: when a task starts, and when it resumes.
        events = "SELECT event, count(*) FROM log WHERE run_id = ? AND task_id IS NOT NULL GROUP BY 1"
        return {
            "state": state,
            "seconds": (datetime.fromisoformat(end) - datetime.fromisoformat(queued)).total_seconds(),
            "memory": max(used for used, _ in memory),
            "max processes": max(number for _, number in memory),
            "events": Counter(dict(self.deployment.query(events, run_id))),
        }

    def measure(self, variant: str) -> dict[str, Any]:
        self.restart()
        warm_up = self.run(f"{variant}_{WARM_UP}")
        if warm_up["state"] != "success":
            raise RuntimeError(f"warm-up of {variant}: {warm_up}")
        time.sleep(SETTLE)
        load = os.getloadavg()[0]
        cpu_before = self.processes.cpu()
        time.sleep(IDLE)
        cpu, rows, (memory, number) = self.processes.cpu(), self.rows(), self.processes.memory()
        report_before = endpoint.report(self._url)
        result = self.run(f"{variant}_{self.scenario.assets}")
        time.sleep(SETTLE)
        report = endpoint.report(self._url)
        requests = report["requests"][len(report_before["requests"]) :]
        assets = report["assets"][len(report_before["assets"]) :]
        counts = Counter(operation for _, operation, _ in requests)
        starts = [received_at for received_at, operation, _ in requests if operation == "Start"]
        added = self.rows()
        added.subtract(rows)
        return {
            "state": result["state"],
            "seconds": result["seconds"],
            "start rate": (len(starts) - 1) / (starts[-1] - starts[0]),
            "processes": result["events"]["running"],
            "deferred": result["events"]["deferred"],
            "max processes": result["max processes"] - number,
            "cpu": self.processes.cpu() - cpu,
            "memory": result["memory"] - memory,
            "rows": sum(added.values()),
            "runs": len(assets),
            "assets": len(set(assets)),
            "throttled": counts["throttled"],
            # The task logs the first two. The scheduler logs a mismatch for a task that it lost track of.
            "failed": result["events"]["up_for_retry"] + result["events"]["failed"],
            "mismatches": result["events"]["state mismatch"],
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
    """Set up an Airflow deployment, and stop its components at the end."""
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
            tail = "\n".join(component.output.splitlines()[-TAIL_LINES:])
            print(f"--- {component.name}\n{tail}", file=sys.stderr)
        raise
    finally:
        deployment.stop()


ROWS = {
    "trigger to end of the DAG run, s": "seconds",
    "starts per second": "start rate",
    "processes started for tasks": "processes",
    "concurrent processes, maximum above idle": "max processes",
    "triggers created": "deferred",
    "CPU of all of Airflow, s": "cpu",
    "memory added, maximum, all of Airflow, MB": "memory",
    "rows added to Airflow's database": "rows",
    "runs started": "runs",
    "active runs, maximum": "active",
    "throttled starts": "throttled",
    "failed tries": "failed",
    "of these because of a state mismatch in Airflow": "mismatches",
    "Get and List requests": "reads",
}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the results as a Markdown table, with the ratios first."""
    ours, *peers = results
    heads = [f"{VARIANTS[ours]} / {VARIANTS[peer]}" for peer in peers]
    heads += [VARIANTS[variant] for variant in results]
    lines = ["| " + " | ".join(["", *heads]) + " |", "|---" + "|---:" * len(heads) + "|"]
    values = {name: [result[key] for result in results.values()] for name, key in ROWS.items()}
    for name in sorted({table for result in results.values() for table in result["tables"]}):
        values[f"rows of `{name}`"] = [result["tables"].get(name, 0) for result in results.values()]
    for name, (our, *their) in values.items():
        cells = [ratio(our, value) for value in their] + [show([value]) for value in (our, *their)]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def targets(scenario: Scenario, results: dict[str, dict[str, Any]]) -> Iterable[tuple[bool, str]]:
    """Return each target and whether it is met."""
    for variant, result in results.items():
        yield result["state"] == "success", f"{VARIANTS[variant]}: the DAG run succeeded"
        yield (
            result["runs"] == result["assets"] == scenario.assets,
            f"{VARIANTS[variant]}: each of {scenario.assets} assets had one run",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="only check that the benchmark works, with 30 assets"
    )
    parser.add_argument("--assets", type=int, default=SHORT.assets, metavar="N", help="default: 200")
    parser.add_argument(
        "--parallelism", type=int, default=PARALLELISM, metavar="N", help=f"default: {PARALLELISM}"
    )
    parser.add_argument("--only", choices=VARIANTS, action="append", help="only this variant")
    arguments = parser.parse_args()
    scenario = SHORT._replace(assets=30 if arguments.short else arguments.assets)
    # SIGTERM stops all components, like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    packages = ("apache-airflow", "apache-airflow-providers-amazon", "botocore")
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores,",
        ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages),
    )
    print(
        f"{scenario.assets:,} assets, runs of {scenario.run_seconds:g} s, "
        f"poll_interval={scenario.poll_interval:g}, "
        f"max_concurrent_runs={scenario.max_concurrent_runs}; LocalExecutor, "
        f"parallelism={arguments.parallelism}",
        flush=True,
    )
    results: dict[str, dict[str, Any]] = {}
    try:
        with (
            tempfile.TemporaryDirectory() as home,
            endpoint.running("starts", scenario.run_seconds, START_LIMIT, ACCEPT_LIMIT) as url,
            airflow(Path(home), url, scenario, arguments.parallelism) as deployment,
        ):
            bench = Bench(deployment, url, scenario)
            for variant in arguments.only or VARIANTS:
                results[variant] = result = bench.measure(variant)
                print(
                    f"{VARIANTS[variant]}: {result['seconds']:.0f} s; idle before: "
                    f"{result['idle processes']} processes, {result['idle memory']:,.0f} MB, "
                    f"{result['idle cpu']:.2f} s CPU per second; "
                    f"load {result['load']:.1f} at the start, {os.getloadavg()[0]:.1f} at the end",
                    flush=True,
                )
    finally:
        # Print the results even after an interruption, because each measurement takes long.
        if results:
            print(f"\n{table(results)}\n", flush=True)
    for holds, target in targets(scenario, results):
        print("OK    " if holds else "NOT OK", target)


if __name__ == "__main__":
    main()
