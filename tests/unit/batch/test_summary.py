"""The summary of a batch, and the error that a failed batch raises."""

from __future__ import annotations

import pytest

from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.batch.summary import summarize
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    RequestRefusedError,
)
from tests.unit.simulated_batch import (
    assets,
    ended_rows,
    raise_if_failed,
    state_of,
    stats,
)

# ---------------------------------------------------------------------- summary


def test_summary_lists_the_first_hundred_failures():
    rows = assets(300)
    for row in rows:
        row.error = "no"
    shown = summarize(state_of(rows), Steps(), seconds=1.0)["failures"]
    assert [failure["asset"] for failure in shown] == [row.asset_identifier for row in rows[:100]]


# ----------------------------------------------------------------- max_failures


@pytest.mark.parametrize(
    ("failed", "max_failures", "passes"),
    [
        (0, 0, True),
        (1, 0, False),
        (1, 1, True),
        (2, 1, False),
        (10, 0.1, True),
        (11, 0.1, False),
        (29, 0.29, True),  # 0.29 * 100 is less than 29
        (30, 0.29, False),
        (57, 0.57, True),
        (100, 1.0, True),
        (1, 0.0, False),
        (0, 0.0, True),
    ],
)
def test_batch_fails_if_more_than_max_failures_assets_fail(failed: int, max_failures: float, passes: bool):
    rows = ended_rows(100 - failed, failed)
    if passes:
        raise_if_failed(rows, max_failures)
        return
    with pytest.raises(BatchFailedError, match=rf"^{failed} of 100 .*asset{100 - failed}.*no names today"):
        raise_if_failed(rows, max_failures)


def test_empty_batch_succeeds():
    raise_if_failed([], 0)
    raise_if_failed([], 0.5)


def test_error_names_failed_types_only():
    rows = ended_rows(1, 0)
    rows[0].status = "PARTIALLY_SUCCEEDED"
    rows[0].type_stats = [stats("SUCCEEDED")[0], stats("FAILED", "no names today")[1]]
    raise_if_failed(rows, 0)
    with pytest.raises(BatchFailedError, match="BUSINESS_NAMES FAILED: no names today") as failure:
        raise_if_failed(rows, 0, allow_partial_success=False)
    assert "BUSINESS_DESCRIPTIONS" not in str(failure.value)


# ---------------------------------------------------------------- error message


def test_error_names_the_first_failure_and_not_a_skipped_asset():
    skipped = AssetRow("skipped", None, "p")
    refused = AssetRow("refused", None, "p", error="no.", is_refused=True)
    with pytest.raises(RequestRefusedError) as failed:
        raise_if_failed([skipped, refused], 0, refusals={"p": "no."})
    first = (
        "the first failure (asset 'refused', no run was started): no. A retry would fail with the same error."
    )
    assert str(failed.value).endswith(first)
    with pytest.raises(RequestRefusedError) as failed:
        raise_if_failed([skipped], 0, refusals={"p": "no."})
    assert str(failed.value).endswith("the first failure: no. A retry would fail with the same error.")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (AssetRow("a", None, "p"), "the first failure (asset 'a', no run was started): not started"),
        (
            AssetRow("a", None, "p", error="refused (asset 'a', domain 'd')"),
            "the first failure (no run was started): refused (asset 'a', domain 'd')",
        ),
        (
            AssetRow("a", None, "p", error="not found (run 'r', domain 'd')"),
            "the first failure (asset 'a'): not found (run 'r', domain 'd')",
        ),
        (
            AssetRow("a", None, "p", run_identifier="r", status="CANCELED"),
            "the first failure (asset 'a', run 'r'): ended CANCELED; DataZone gave no reason",
        ),
    ],
)
def test_error_names_asset_and_run_of_the_first_failure_once(row: AssetRow, message: str):
    with pytest.raises(BatchFailedError) as failed:
        raise_if_failed([row], 0)
    assert str(failed.value).endswith(message)
    assert "None" not in str(failed.value)
