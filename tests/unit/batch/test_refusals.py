"""A refused start fails its asset, or the whole batch if DataZone would refuse every asset."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.batch import requests
from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.batch.summary import Counts, require_few_failures, summarize
from airflow_provider_datazone.exceptions import (
    BatchFailedError,
    RequestRefusedError,
)
from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
from tests.unit.simulated_batch import (
    EPOCH,
    PARAMETERS,
    REFUSALS,
    Airflow,
    BatchDataZone,
    assets,
    make_batch,
    run_batch,
    run_on,
    state_of,
    stats,
    statuses,
)
from tests.unit.simulation import client_error

# -------------------------------------------------------- refusals of one asset


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_refused_start_fails_only_its_asset(refusal: ClientError):
    datazone = BatchDataZone(refusals={"asset3": [refusal] * 50})
    rows = run_batch(datazone, assets(20))
    assert statuses(rows) == {"SUCCEEDED": 19, None: 1}
    assert rows[3].has_ended
    assert refusal.response["Error"]["Code"] in str(rows[3].error)
    assert rows[3].to_result() == {
        "asset": "asset3", "run": None, "status": None, "typeStats": [], "error": rows[3].error,
    }  # fmt: skip
    assert Counts.of(rows, Steps()).failed == 1
    attempts = [start.at for start in datazone.starts if start.asset == "asset3"]
    if refusal is not REFUSALS["conflict without a run"]:
        assert len(attempts) == 1
    else:
        assert len(attempts) < 10
        assert requests.CONFLICT_GRACE <= attempts[-1] - attempts[0] <= 2 * requests.CONFLICT_GRACE + 2


def test_batch_waits_until_get_finds_a_new_run():
    datazone = BatchDataZone(lasts=3, unknown_for={"asset1": 20.0})
    rows = run_batch(datazone, assets(2))
    assert statuses(rows) == {"SUCCEEDED": 2}
    assert len(datazone.starts) == 2


def test_run_that_get_never_finds_fails_only_its_asset():
    datazone = BatchDataZone(lasts=3, unknown_for={"asset1": math.inf})
    rows = run_batch(datazone, assets(5))
    assert statuses(rows) == {"SUCCEEDED": 4, None: 1}
    assert "ResourceNotFoundException" in str(rows[1].error)
    assert rows[1].run_identifier is None, "a retry does not wait for this run"
    assert not rows[1].is_refused, "a retry starts another run"
    gave_up_at = max(at for at, what, about in datazone.requests if about == "run1")
    assert 30 <= gave_up_at < 30 + 2 * 5 + 1


def test_start_succeeds_after_a_temporary_conflict():
    datazone = BatchDataZone(refusals={"asset1": [REFUSALS["conflict without a run"]]})
    assert statuses(run_batch(datazone, assets(3))) == {"SUCCEEDED": 3}
    assert len({start.token for start in datazone.starts}) == 3


NOT_AUTHORIZED = "User: arn:aws:iam::1:user/airflow is not authorized to perform: datazone:X"


@pytest.mark.parametrize(
    ("message", "scope"), [(NOT_AUTHORIZED, ""), ("No.", "project")], ids=["by IAM", "for an unknown reason"]
)
def test_no_run_starts_after_a_get_is_denied(message: str, scope: str):
    """The runs would be paid for, and could not be read."""

    class Forbidden(BatchDataZone):
        async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
            await super().get(run_identifier, run_type)
            raise client_error("AccessDeniedException", 403, message)

    datazone = Forbidden(lasts=3)
    rows = assets(100)
    batch = make_batch(rows, max_concurrent_runs=10)
    run_on(datazone, lambda airflow: batch.run(PARAMETERS))
    assert len(datazone.starts) == 10
    assert {row.error is not None and row.is_refused for row in rows[:10]} == {True}
    assert list(batch.state.refusals) == [scope]
    with pytest.raises(RequestRefusedError, match=re.escape(message)):
        require_few_failures(batch.state, Steps(), 0)


def test_run_is_kept_if_get_does_not_find_the_domain():
    """It is active, and nothing shows that it does not exist."""

    class Missing(BatchDataZone):
        async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
            await super().get(run_identifier, run_type)
            raise client_error("ResourceNotFoundException", 404, "Domain dzd_1 does not exist")

    rows = run_batch(Missing(lasts=3), assets(2))
    assert [(row.run_identifier, row.is_refused) for row in rows] == [("run0", True), ("run1", True)]


def test_get_that_is_invalid_for_one_run_fails_only_its_asset():
    class Invalid(BatchDataZone):
        async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
            run = await super().get(run_identifier, run_type)
            if run_identifier == "run1":
                raise client_error("ValidationException", 400)
            return run

    rows = run_batch(Invalid(lasts=3), assets(5))
    assert statuses(rows) == {"SUCCEEDED": 4, None: 1}
    assert "ValidationException" in str(rows[1].error)


@pytest.mark.parametrize("age", [0.0, 3600.0], ids=["new", "from before the batch"])
def test_conflict_adopts_the_active_run(age: float):
    datazone = BatchDataZone(refusals={"asset1": [REFUSALS["conflict without a run"]]})

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(3)
        created = datetime.fromtimestamp(EPOCH - age, timezone.utc)
        run = datazone.begin("asset1", ends=60.0)
        run.members["created_at"] = created
        await make_batch(rows).run(PARAMETERS)
        assert rows[1].run_identifier == run.id
        return rows

    rows = run_on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 3}
    assert len(datazone.runs_of("asset1")) == 1


def test_summary_counts_each_final_status():
    endings = {"asset1": ["FAILED"], "asset2": ["CANCELED"], "asset3": ["PARTIALLY_SUCCEEDED"]}
    datazone = BatchDataZone(
        endings=endings,
        reasons={"asset1": "no names today"},
        refusals={"asset4": [REFUSALS["unsupported asset type"]]},
    )
    rows = run_batch(datazone, assets(6))
    assert Counts.of(rows, Steps()) == Counts(
        total=6, succeeded=2, partially_succeeded=1, failed=2, canceled=1, active=0, accepted=0, published=0,
        not_started=0, done=6,
    )  # fmt: skip
    summary = summarize(state_of(rows, duplicates=3), Steps(allow_partial_success=False), seconds=12.34)
    failures = summary.pop("failures")
    assert summary == {
        "total": 6, "succeeded": 2, "partially_succeeded": 1, "failed": 2, "canceled": 1, "accepted": 0,
        "published": 0, "not_started": 0, "duplicates": 3, "duration_seconds": 12.3,
    }  # fmt: skip
    assert [failure["asset"] for failure in failures] == ["asset1", "asset2", "asset3", "asset4"]
    assert failures[0] == {
        "asset": "asset1", "run": "run1", "status": "FAILED", "typeStats": stats("FAILED", "no names today"),
    }  # fmt: skip
    assert [f["asset"] for f in summarize(state_of(rows), Steps(), seconds=1.0)["failures"]] == [
        "asset1",
        "asset2",
        "asset4",
    ]


# ---------------------------------------------------------------- start timeout


def test_start_that_always_fails_ends_after_the_start_timeout():
    broken = [client_error("InternalServerException", 500)] * 100_000
    datazone = BatchDataZone(refusals={"asset7": list(broken)})
    rows = run_batch(datazone, assets(20))
    assert statuses(rows) == {"SUCCEEDED": 19, None: 1}
    assert rows[7].has_ended
    assert "InternalServerException" in str(rows[7].error)
    last = max(start.at for start in datazone.starts)
    assert requests.REQUEST_TIMEOUT <= last <= requests.REQUEST_TIMEOUT + 2 * requests.LONGEST_PAUSE


# ------------------------------------------------------ refusals of every asset

IAM = (
    "User: arn:aws:sts::123456789012:assumed-role/airflow/task is not authorized to perform: "
    "datazone:StartMetadataGenerationRun on resource: arn:aws:datazone:us-east-1:123456789012:domain/dzd_1 "
    "because no identity-based policy allows the datazone:StartMetadataGenerationRun action"
)
MEMBERSHIP = "User is not permitted to perform operation: StartMetadataGenerationRun"


def refusal(code: str, message: str) -> ClientError:
    status = {"AccessDeniedException": 403, "ResourceNotFoundException": 404}[code]
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "StartMetadataGenerationRun")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDeniedException", IAM),
        ("AccessDeniedException", MEMBERSHIP),
        ("ResourceNotFoundException", "Domain dzd_1 does not exist"),
    ],
)
def test_refusal_that_applies_to_all_assets_stops_the_batch_without_retries(code: str, message: str):
    error = refusal(code, message)
    datazone = BatchDataZone(refusals={f"asset{n}": [error] * 9 for n in range(120)})
    rows = assets(120)

    async def main(airflow: Airflow) -> Any:
        batch = make_batch(rows)
        await batch.run(PARAMETERS)
        assert batch.is_finished
        return batch.state.refusals

    refusals = run_on(datazone, main)
    # Other starts may already be in flight.
    assert len(datazone.starts) <= 2
    assert Counts.of(rows, Steps()).not_started >= 118
    with pytest.raises(RequestRefusedError, match="A retry would fail with the same error"):
        require_few_failures(state_of(rows, refusals=refusals), Steps(), 0)


def test_refusal_for_one_project_does_not_affect_other_projects():
    error = refusal("AccessDeniedException", MEMBERSHIP)
    rows = [AssetRow(f"asset{n}", None, f"project{n % 2}") for n in range(40)]
    datazone = BatchDataZone(refusals={f"asset{n}": [error] for n in range(0, 40, 2)})
    run_batch(datazone, rows)
    assert statuses(rows) == {"SUCCEEDED": 20, None: 20}
    assert {row.status for row in rows[1::2]} == {"SUCCEEDED"}
    assert len(datazone.starts) <= 22


def test_refusal_of_one_asset_does_not_affect_other_assets():
    error = refusal(
        "ResourceNotFoundException", "The given Asset doesn't exist. Try creating Asset before accessing it."
    )
    datazone = BatchDataZone(refusals={"asset3": [error]})
    rows = run_batch(datazone, assets(30))
    assert statuses(rows) == {"SUCCEEDED": 29, None: 1}
    with pytest.raises(RequestRefusedError, match="Asset doesn't exist"):
        require_few_failures(state_of(rows), Steps(), 0)


def test_batch_is_retried_if_a_retry_can_help_one_asset():
    error = refusal("ResourceNotFoundException", "The given Asset doesn't exist.")
    datazone = BatchDataZone(refusals={"asset3": [error]}, endings={"asset4": ["FAILED"]})
    rows = run_batch(datazone, assets(30))
    with pytest.raises(BatchFailedError):
        require_few_failures(state_of(rows), Steps(), 0)
