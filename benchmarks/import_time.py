"""
What importing this provider's sensor and operators costs a DAG processor, beside the Amazon provider's own.

Every import happens in a fresh interpreter, ours and theirs in turn, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

PACKAGES = {
    "ours": "airflow_provider_datazone.{}.datazone",
    "peer": "airflow.providers.amazon.aws.{}.sagemaker_unified_studio_notebook",
}
# Measured within the interpreter: its own start and Airflow's are the same for both. A collection of the
# whole heap costs as much as ten modules, and falls on the one or the other by chance.
CODE = """
import gc, importlib, resource, sys, time
gc.disable()
import airflow
modules, memory = len(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
for name in sys.argv[1:]:
    importlib.import_module(name)
seconds = time.process_time() - started
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
print(seconds, len(sys.modules) - modules, memory)
"""


def measure(package: str, home: str) -> list[float]:
    names = [PACKAGES[package].format(kind) for kind in ("sensors", "operators")]
    # An installed package has its bytecode beside it; this makes it so for a checkout too.
    environment = os.environ | {"AIRFLOW_HOME": home, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, *names],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    results: dict[str, list[list[float]]] = {package: [] for package in PACKAGES}
    with tempfile.TemporaryDirectory() as home:
        for package in PACKAGES:
            measure(package, home)  # writes bytecode, and makes Airflow's configuration
        for number in range(rounds):
            for package in sorted(PACKAGES, reverse=bool(number % 2)):
                results[package].append(measure(package, home))
    # The least is what it costs; everything above is what else the machine was doing.
    least = {
        package: [min(column) for column in zip(*found, strict=True)] for package, found in results.items()
    }
    print(f"Importing sensors and operators, least of {rounds} fresh interpreters each:")
    for package, (seconds, modules, memory) in least.items():
        print(f"  {package}: {seconds:.3f} s CPU, {modules:.0f} modules, {memory / 1024:.1f} MB")
    ratios = [ours / peer for ours, peer in zip(least["ours"], least["peer"], strict=True)]
    print("  ours / peer: {:.2f} CPU, {:.2f} modules, {:.2f} memory".format(*ratios))


if __name__ == "__main__":
    main()
