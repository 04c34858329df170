"""Serialization of the rows of a batch."""

from __future__ import annotations

from random import Random

from hypothesis import given, strategies as st

from airflow_provider_datazone.batch.assets import AssetRow, pack, unpack
from airflow_provider_datazone.metadata_generation import TERMINAL_STATUSES
from tests.unit.simulated_batch import (
    stats,
)
from tests.wrong import fuzz

texts = st.text(max_size=20)
rows_drawn = st.builds(
    AssetRow,
    asset_identifier=texts,
    asset_revision=st.none() | texts,
    owning_project_identifier=texts,
    submission=st.integers(1, 100),
    run_identifier=st.none() | texts,
    status=st.none() | st.sampled_from(sorted(TERMINAL_STATUSES)),
    type_stats=st.lists(
        st.fixed_dictionaries({"type": texts, "status": texts}, optional={"errorMessage": texts})
    ),
    error=st.none() | texts,
)


@fuzz(100)
@given(st.lists(rows_drawn, max_size=30))
def test_unpacked_rows_equal_the_packed_ones(rows: list[AssetRow]):
    packed = pack(rows)
    assert packed.isascii()
    assert unpack(packed) == rows


def test_ten_thousand_packed_rows_fit_into_a_database_column():
    """Rows have distinct ids, and 5% of them failed with an error message."""
    random = Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"

    def identifier() -> str:
        return "".join(random.choices(letters, k=14))

    rows = [
        AssetRow(identifier(), None, "project0123456", run_identifier=identifier(), status="SUCCEEDED",
                 type_stats=stats("SUCCEEDED"))
        for _ in range(10_000)
    ]  # fmt: skip
    for row in rows[::20]:
        row.status, row.type_stats = "FAILED", stats("FAILED", "The model could not be reached. Try again.")
    packed = pack(rows)
    print(len(packed))
    assert len(packed) < 400_000
    assert unpack(packed) == rows
