"""
Measure the import of this provider's sensor and operators, compared with a module of the Amazon provider.

Each import runs in a new interpreter. The two packages alternate, so that both run under the same load.
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
# The measurement starts after the import of Airflow, which is the same for both. Garbage collection is off,
# because a full collection takes as long as ten modules and would occur in one of the two at random.
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
    # An installed package has bytecode files. This lets Python write them for a checkout, too.
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
            measure(package, home)  # writes bytecode and Airflow's configuration
        for number in range(rounds):
            for package in sorted(PACKAGES, reverse=bool(number % 2)):
                results[package].append(measure(package, home))
    # The minimum is the cost of the import. Any excess comes from other processes on the machine.
    minimum = {
        package: [min(column) for column in zip(*rows, strict=True)] for package, rows in results.items()
    }
    print(f"Importing sensors and operators, minimum of {rounds} new interpreters each:")
    for package, (seconds, modules, memory) in minimum.items():
        print(f"  {package}: {seconds:.3f} s CPU, {modules:.0f} modules, {memory / 1024:.1f} MB")
    ratios = [ours / peer for ours, peer in zip(minimum["ours"], minimum["peer"], strict=True)]
    print("  ours / peer: {:.2f} CPU, {:.2f} modules, {:.2f} memory".format(*ratios))


if __name__ == "__main__":
    main()
