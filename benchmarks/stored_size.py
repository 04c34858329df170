"""
Measure what Airflow's database stores for a deferred batch, and how many assets fit into MySQL's column.

The identifiers are random, and as long as DataZone's.
"""

from __future__ import annotations

import argparse
import bisect
import os
import random
import string
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet

if TYPE_CHECKING:
    from airflow_provider_datazone.batch.assets import AssetRow

TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
# Airflow stores a trigger's arguments in a column of the type TEXT.
MYSQL_TEXT_BYTES = 2**16 - 1
RANDOM = random.Random(0)


def identifier() -> str:
    return "".join(RANDOM.choices(string.ascii_lowercase + string.digits, k=14))


def rows(number: int, *, ended: bool, published: bool) -> list[AssetRow]:
    from airflow_provider_datazone.batch.assets import AssetRow

    project = identifier()
    result = [AssetRow(identifier(), None, project) for _ in range(number)]
    for row in result:
        if ended:
            row.run_identifier, row.status, row.is_token_used = identifier(), "SUCCEEDED", True
            row.type_stats = [{"type": name, "status": "SUCCEEDED"} for name in TYPES]
        if published:
            row.revision, row.listing = "2", identifier()
    return result


def stored_bytes(assets: list[AssetRow]) -> int:
    """Return the size of the batch trigger's arguments, encrypted as Airflow stores them."""
    from airflow.models.trigger import Trigger

    from airflow_provider_datazone.batch.assets import pack
    from airflow_provider_datazone.triggers.datazone import DataZoneBatchMetadataGenerationTrigger

    trigger = DataZoneBatchMetadataGenerationTrigger(
        rows=pack(assets),
        noted_at=1.8e9,
        types=TYPES,
        domain_identifier="dzd_" + identifier(),
        identity="benchmark",
        began_at=1.8e9,
        max_concurrent_runs=50,
    )
    return len(Trigger.encrypt_kwargs(trigger.serialize()[1]))


def largest(fits: Callable[[int], bool], limit: int) -> int:
    """Return the largest number that fits."""
    return bisect.bisect_left(range(limit), True, key=lambda number: not fits(number + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home
        os.environ["AIRFLOW__CORE__FERNET_KEY"] = Fernet.generate_key().decode()
        from airflow_provider_datazone.batch.assets import pack

        print("| every asset is | packed, bytes an asset | encrypted, bytes an asset | assets in 64 KB |")
        print("|---|---:|---:|---:|")
        for name, ended, published in [
            ("waiting", False, False),
            ("generated", True, False),
            ("published", True, True),
        ]:
            assets = rows(10_000, ended=ended, published=published)

            def fits(number: int, assets: list[AssetRow] = assets) -> bool:
                return stored_bytes(assets[:number]) <= MYSQL_TEXT_BYTES

            per_asset = [len(pack(assets)) / len(assets), stored_bytes(assets) / len(assets)]
            print(f"| {name} | {per_asset[0]:.0f} | {per_asset[1]:.0f} | {largest(fits, len(assets)):,} |")


if __name__ == "__main__":
    main()
