"""A start that DataZone refuses fails its own asset, or the batch where it would be refused for each."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone.batch import starts
from airflow_provider_datazone.batch.assets import AssetRow
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
    bring_to_an_end,
    make,
    on,
    state_of,
    stats,
    statuses,
)
from tests.unit.simulation import client_error

# ------------------------------------------------------- what goes wrong for one


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_start_that_is_refused_fails_its_own_asset_alone(refusal: ClientError):
    datazone = BatchDataZone(refusals={"asset3": [refusal] * 50})
    rows = bring_to_an_end(datazone, assets(20))
    assert statuses(rows) == {"SUCCEEDED": 19, None: 1}
    assert rows[3].is_done
    assert refusal.response["Error"]["Code"] in str(rows[3].error)
    assert rows[3].to_result() == {
        "asset": "asset3", "run": None, "status": None, "typeStats": [], "error": rows[3].error,
    }  # fmt: skip
    assert Counts.of(rows).failed == 1
    asked = [start.at for start in datazone.starts if start.asset == "asset3"]
    if refusal is not REFUSALS["conflict without a run"]:
        assert len(asked) == 1
    else:
        assert len(asked) < 10
        assert starts.CONFLICT_GRACE <= asked[-1] - asked[0] <= 2 * starts.CONFLICT_GRACE + 2


def test_run_that_get_does_not_know_yet_is_waited_for():
    datazone = BatchDataZone(lasts=3, unknown_for={"asset1": 20.0})
    rows = bring_to_an_end(datazone, assets(2))
    assert statuses(rows) == {"SUCCEEDED": 2}
    assert len(datazone.starts) == 2


def test_run_that_get_never_knows_fails_its_own_asset_alone():
    datazone = BatchDataZone(lasts=3, unknown_for={"asset1": math.inf})
    rows = bring_to_an_end(datazone, assets(5))
    assert statuses(rows) == {"SUCCEEDED": 4, None: 1}
    assert "ResourceNotFoundException" in str(rows[1].error)
    given_up = max(at for at, what, about in datazone.requests if about == "run1")
    assert 30 <= given_up < 30 + 2 * 5 + 1


def test_conflict_that_has_passed_is_a_start_like_any():
    datazone = BatchDataZone(refusals={"asset1": [REFUSALS["conflict without a run"]]})
    assert statuses(bring_to_an_end(datazone, assets(3))) == {"SUCCEEDED": 3}
    assert len({start.token for start in datazone.starts}) == 3


def test_run_that_may_not_be_read_fails_its_own_asset_alone():
    class Forbidden(BatchDataZone):
        async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
            run = await super().get(run_identifier, run_type)
            if run_identifier == "run1":
                raise client_error("AccessDeniedException", 403)
            return run

    rows = bring_to_an_end(Forbidden(lasts=3), assets(5))
    assert statuses(rows) == {"SUCCEEDED": 4, None: 1}
    assert "AccessDeniedException" in str(rows[1].error)


@pytest.mark.parametrize("age", [0.0, 3600.0], ids=["new", "from before the batch"])
def test_conflict_goes_on_with_the_run_that_is_at_work(age: float):
    datazone = BatchDataZone(refusals={"asset1": [REFUSALS["conflict without a run"]]})

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(3)
        created = datetime.fromtimestamp(EPOCH - age, timezone.utc)
        run = datazone.begin("asset1", ends=60.0)
        run.members["created_at"] = created
        await make(rows).run(PARAMETERS)
        assert rows[1].run_identifier == run.id
        return rows

    rows = on(datazone, main)
    assert statuses(rows) == {"SUCCEEDED": 3}
    assert len(datazone.runs_of("asset1")) == 1


def test_every_way_to_end_is_counted_as_what_it_is():
    endings = {"asset1": ["FAILED"], "asset2": ["CANCELED"], "asset3": ["PARTIALLY_SUCCEEDED"]}
    datazone = BatchDataZone(
        endings=endings,
        reasons={"asset1": "no names today"},
        refusals={"asset4": [REFUSALS["unsupported asset type"]]},
    )
    rows = bring_to_an_end(datazone, assets(6))
    assert Counts.of(rows) == Counts(
        total=6, succeeded=2, partially_succeeded=1, failed=2, canceled=1, active=0, not_started=0
    )
    summary = summarize(state_of(rows, duplicates=3), seconds=12.34, allow_partial_success=False)
    failures = summary.pop("failures")
    assert summary == {
        "total": 6, "succeeded": 2, "partially_succeeded": 1, "failed": 2, "canceled": 1, "not_started": 0,
        "duplicates": 3, "duration_seconds": 12.3,
    }  # fmt: skip
    assert [failure["asset"] for failure in failures] == ["asset1", "asset2", "asset3", "asset4"]
    assert failures[0] == {
        "asset": "asset1", "run": "run1", "status": "FAILED", "typeStats": stats("FAILED", "no names today"),
    }  # fmt: skip
    assert [
        f["asset"] for f in summarize(state_of(rows), seconds=1.0, allow_partial_success=True)["failures"]
    ] == ["asset1", "asset2", "asset4"]


# ------------------------------------------------------------- rates and threads


def test_asset_whose_start_always_fails_does_not_keep_the_batch_alive_for_ever():
    broken = [client_error("InternalServerException", 500)] * 100_000
    datazone = BatchDataZone(refusals={"asset7": list(broken)})
    rows = bring_to_an_end(datazone, assets(20))
    assert statuses(rows) == {"SUCCEEDED": 19, None: 1}
    assert rows[7].is_done
    assert "InternalServerException" in str(rows[7].error)
    last = max(start.at for start in datazone.starts)
    assert starts.START_TIMEOUT <= last <= starts.START_TIMEOUT + 2 * starts.LONGEST_PAUSE


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
def test_refusal_of_every_asset_stops_the_batch_and_is_not_retried(code: str, message: str):
    error = refusal(code, message)
    datazone = BatchDataZone(refusals={f"asset{n}": [error] * 9 for n in range(120)})
    rows = assets(120)

    async def main(airflow: Airflow) -> Any:
        batch = make(rows)
        await batch.run(PARAMETERS)
        assert batch.state.is_finished
        return batch.state.refusals

    refusals = on(datazone, main)
    # Those that were on their way.
    assert len(datazone.starts) <= 2
    assert Counts.of(rows).not_started >= 118
    with pytest.raises(RequestRefusedError, match="A retry would fail with the same error"):
        require_few_failures(state_of(rows, refusals=refusals), 0, allow_partial_success=True)


def test_refusal_of_one_project_leaves_the_assets_of_others_alone():
    error = refusal("AccessDeniedException", MEMBERSHIP)
    rows = [AssetRow(f"asset{n}", None, f"project{n % 2}") for n in range(40)]
    datazone = BatchDataZone(refusals={f"asset{n}": [error] for n in range(0, 40, 2)})
    bring_to_an_end(datazone, rows)
    assert statuses(rows) == {"SUCCEEDED": 20, None: 20}
    assert {row.status for row in rows[1::2]} == {"SUCCEEDED"}
    assert len(datazone.starts) <= 22


def test_refusal_of_one_asset_stops_no_other():
    error = refusal(
        "ResourceNotFoundException", "The given Asset doesn't exist. Try creating Asset before accessing it."
    )
    datazone = BatchDataZone(refusals={"asset3": [error]})
    rows = bring_to_an_end(datazone, assets(30))
    assert statuses(rows) == {"SUCCEEDED": 29, None: 1}
    with pytest.raises(RequestRefusedError, match="Asset doesn't exist"):
        require_few_failures(state_of(rows), 0, allow_partial_success=True)


def test_batch_is_retried_where_one_asset_could_do_better():
    error = refusal("ResourceNotFoundException", "The given Asset doesn't exist.")
    datazone = BatchDataZone(refusals={"asset3": [error]}, endings={"asset4": ["FAILED"]})
    rows = bring_to_an_end(datazone, assets(30))
    with pytest.raises(BatchFailedError):
        require_few_failures(state_of(rows), 0, allow_partial_success=True)
