"""The current version reads packed batch rows of earlier versions."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from airflow_provider_datazone.batch.assets import AssetRow, unpack
from tests.integration.stored_samples.samples import FIRST_BATCH, PROJECT, samples

PARTIAL_TYPE_STATS = [
    {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
    {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "kein Name für „Größe“"},
]
EACH_STATE = [
    AssetRow("sampleasset001", None, PROJECT),
    AssetRow("sampleasset002", "3", "sampleproject2", submission=2),
    AssetRow("sampleasset003", None, PROJECT, run_identifier="samplerun00001"),
    AssetRow("sampleasset004", None, PROJECT, run_identifier="samplerun00002", adopted_at=1234567890.25),
    AssetRow(
        "sampleasset005",
        None,
        PROJECT,
        submission=3,
        run_identifier="samplerun00003",
        status="PARTIALLY_SUCCEEDED",
        type_stats=PARTIAL_TYPE_STATS,  # type: ignore[arg-type]
    ),
    AssetRow("sampleasset006", None, PROJECT, error="DataZone refused"),
    AssetRow("sampleasset007", None, PROJECT, error="an unknown asset", is_refused=True),
]
SUCCEEDED_STATS = [{"type": stat["type"], "status": "SUCCEEDED"} for stat in PARTIAL_TYPE_STATS]
# Assets whose run has succeeded: published, accepted, neither, and not accepted because of an error.
PUBLISHED = [
    AssetRow(
        f"sampleasset00{number}",
        None,
        PROJECT,
        run_identifier=f"samplerun0000{number}",
        status="SUCCEEDED",
        type_stats=SUCCEEDED_STATS,  # type: ignore[arg-type]
        **attributes,
    )
    for number, attributes in enumerate(
        [
            {"revision": "2", "listing": "samplelisting1"},
            {"revision": "2"},
            {},
            {"error": "DataZone refused to accept"},
        ],
        start=1,
    )
]
# Active runs: started by this try, found with its client token, found in a List, and not seen active yet.
ACTIVE = [
    AssetRow(f"sampleasset00{number}", None, PROJECT, run_identifier=f"samplerun0000{number}", **attributes)
    for number, attributes in enumerate(
        [
            {"is_token_used": True},
            {"is_token_used": True, "adopted_at": 1234567890.25, "seen_active": True},
            {"adopted_at": 1234567890.25, "seen_active": True},
            {"adopted_at": 1234567890.25},
        ],
        start=1,
    )
]
# Assets whose requests fail for now: to start a run, and to accept what one has generated.
FAILING = [
    AssetRow("sampleasset001", None, PROJECT, failing_since=1234567890.25),
    AssetRow(
        "sampleasset002",
        None,
        PROJECT,
        run_identifier="samplerun00002",
        status="SUCCEEDED",
        type_stats=SUCCEEDED_STATS,  # type: ignore[arg-type]
        failing_since=1234567890.25,
    ),
]
ROWS = {
    "each state of an asset": EACH_STATE,
    "no assets": [],
    "accepted and published assets": PUBLISHED,
    "active runs": ACTIVE,
    "failing requests": FAILING,
}
# The number of columns in a row of each version. Columns that were added later have their defaults.
COLUMNS = {
    FIRST_BATCH: 8,
    "0.1.0 in development, since a batch trigger stores its try": 9,
    "0.1.0 in development, since a batch stores refusals": 10,
    "0.2.0 in development, since a batch accepts and publishes": 12,
    "0.2.0, since a batch stores whether it has used a token": 14,
    "0.2.0, since a batch stores how long requests have failed": 15,
}


@pytest.mark.parametrize("sample", samples("rows", ""))
def test_unpack_reads_rows_of_an_earlier_version(sample: dict[str, Any]):
    raw = json.loads(zlib.decompress(base64.b85decode(sample["packed"])))
    columns = COLUMNS[sample["written_by"]]
    assert {len(row) for row in raw} <= {columns}
    expected = []
    for row in ROWS[sample["name"]]:
        attributes = vars(row) | ({"adopted_at": None} if columns < 9 else {})
        expected.append(AssetRow(**attributes | ({"is_refused": False} if columns < 10 else {})))
    assert unpack(sample["packed"]) == expected
