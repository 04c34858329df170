"""A batch accepts and publishes each asset once, while other runs continue, whatever interrupts it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from airflow_provider_datazone.batch import requests
from airflow_provider_datazone.batch.assets import AssetRow, pack, unpack
from airflow_provider_datazone.batch.requests import BatchStoppedError
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.batch.summary import Counts, require_few_failures, summarize
from airflow_provider_datazone.exceptions import BatchFailedError, QuotaUsedUpError, RequestRefusedError
from tests.unit.simulated_batch import (
    PARAMETERS,
    QUOTA,
    Airflow,
    BatchDataZone,
    Outcomes,
    assets,
    busiest_second,
    make_batch,
    run_batch,
    run_on,
    settle,
    state_of,
)
from tests.unit.simulation import client_error, now

STEPS = Steps(accept_threshold=0.7, publish=True)
DENIED_BY_IAM = client_error(
    "AccessDeniedException", 403, "User: arn:aws:iam::1:user/x is not authorized to perform: datazone:X"
)
DENIED_BY_MEMBERSHIP = client_error(
    "AccessDeniedException", 403, "User is not permitted to perform operation: X"
)


def changed(outcomes: Outcomes) -> Counter[str]:
    """Return how many changes DataZone made to each asset."""
    return Counter(change.asset for change in outcomes.effective)


def one_per_asset(rows: list[AssetRow]) -> dict[str, int]:
    return {row.asset_identifier: 1 for row in rows}


def run_batch_after(
    datazone: BatchDataZone, rows: list[AssetRow], prepare: Callable[[], Any], **changes: Any
) -> None:
    async def main(airflow: Airflow) -> None:
        prepare()
        await make_batch(rows, steps=STEPS, **changes).run(PARAMETERS)

    run_on(datazone, main)


def test_batch_accepts_and_publishes_each_asset_once():
    datazone = BatchDataZone()
    rows = run_batch(datazone, assets(30), steps=STEPS)
    assert changed(datazone.accepts) == changed(datazone.publications) == one_per_asset(rows)
    assert len(datazone.accepts.changes) == len(datazone.publications.changes) == 30
    revisions = {change.asset: change.response for change in datazone.accepts.changes}
    for change in datazone.publications.changes:
        assert change.revision == revisions[change.asset]
    assert rows[7].to_result() == {
        "asset": "asset7",
        "run": rows[7].run_identifier,
        "status": "SUCCEEDED",
        "typeStats": rows[7].type_stats,
        "revision": revisions["asset7"],
        "listing": rows[7].listing,
    }
    summary = summarize(state_of(rows), STEPS, seconds=1.0)
    assert (summary["succeeded"], summary["accepted"], summary["published"]) == (30, 30, 30)
    require_few_failures(state_of(rows), STEPS, 0)


def test_batch_without_publish_only_accepts():
    datazone = BatchDataZone()
    rows = run_batch(datazone, assets(5), steps=Steps(accept_threshold=0.0))
    assert changed(datazone.accepts) == one_per_asset(rows)
    assert datazone.publications.changes == []
    assert "listing" not in rows[0].to_result()


def test_batch_accepts_only_what_a_successful_run_has_generated():
    endings = {"asset0": ["FAILED"], "asset1": ["CANCELED"], "asset2": ["PARTIALLY_SUCCEEDED"]}
    for allowed, accepted in ((True, {"asset2", "asset3"}), (False, {"asset3"})):
        datazone = BatchDataZone(endings=dict(endings))
        rows = run_batch(datazone, assets(4), steps=STEPS._replace(allow_partial_success=allowed))
        assert set(changed(datazone.accepts)) == set(changed(datazone.publications)) == accepted
        assert Counts.of(rows, STEPS).accepted == len(accepted)


def test_accepting_uses_the_revision_of_the_asset():
    datazone = BatchDataZone()
    run_batch(
        datazone, [AssetRow("asset0", "4", "project"), AssetRow("asset1", None, "project")], steps=STEPS
    )
    assert {change.asset: change.revision for change in datazone.accepts.changes} == {
        "asset0": "4",
        "asset1": None,
    }


# ------------------------------------------------------------------------ rates


def test_asset_moves_on_as_soon_as_its_own_run_has_succeeded():
    datazone = BatchDataZone(lasts=100)
    rows = assets(2)
    rows[1].run_identifier = "run0"
    run_batch_after(datazone, rows, lambda: datazone.begin("asset1", ends=1.0))
    published_at = {change.asset: change.at for change in datazone.publications.changes}
    assert published_at["asset1"] < 10 < 100 < published_at["asset0"]


def test_throttled_accepts_delay_neither_runs_nor_publications():
    def last_start(**outcomes: Any) -> float:
        datazone = BatchDataZone(lasts=5, **outcomes)
        rows = run_batch(datazone, assets(300), steps=STEPS, max_concurrent_runs=20)
        assert changed(datazone.accepts) == changed(datazone.publications) == one_per_asset(rows)
        return datazone.starts[-1].at

    undisturbed = last_start()
    assert last_start(accepts=Outcomes(limit=0.5)) <= undisturbed * 1.05 + 1
    assert last_start(publications=Outcomes(limit=0.5)) <= undisturbed * 1.05 + 1


def test_throttled_starts_do_not_delay_accepts():
    datazone = BatchDataZone(lasts=5, limit=1.0)
    run_batch(datazone, assets(20), steps=STEPS)
    for run in datazone.runs:
        [accept] = [change for change in datazone.accepts.changes if change.asset == run.members["asset_id"]]
        assert accept.at - run.ends <= 10


def test_accepts_and_publications_have_separate_rates():
    datazone = BatchDataZone(accepts=Outcomes(limit=20.0))
    rows = assets(200)
    for row in rows:
        row.run_identifier, row.status = "run0", "SUCCEEDED"
    run_batch_after(datazone, rows, lambda: [datazone.begin(row.asset_identifier) for row in rows])
    assert busiest_second([change.at for change in datazone.accepts.changes]) in (20, 21)
    assert busiest_second([change.at for change in datazone.publications.changes]) in (10, 11)
    assert datazone.accepts.throttled == []


def test_succeeded_runs_are_accepted_although_all_slots_are_in_use():
    datazone = BatchDataZone(lasts=1000)
    rows = assets(3)
    rows[2].run_identifier, rows[2].status = "run0", "SUCCEEDED"
    run_batch_after(datazone, rows, lambda: datazone.begin("asset2", ends=1.0), max_concurrent_runs=1)
    assert datazone.publications.changes[0].asset == "asset2"
    assert datazone.publications.changes[0].at < 10


# ----------------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", ["accepts", "publications"])
@pytest.mark.parametrize(
    "error",
    [
        client_error("ThrottlingException", 429),
        client_error("InternalServerException", 500),
        client_error("ConflictException", 409),
        ConnectionClosedError(endpoint_url="https://datazone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_batch_repeats_a_request_after_a_transient_error(kind: str, error: Exception):
    datazone = BatchDataZone(**{kind: Outcomes(refusals={"asset1": [error] * 3})})
    rows = run_batch(datazone, assets(3), steps=STEPS)
    assert changed(datazone.accepts) == changed(datazone.publications) == one_per_asset(rows)
    tokens = {change.token for change in getattr(datazone, kind).changes if change.asset == "asset1"}
    assert len(tokens) == 1


@pytest.mark.parametrize("kind", ["accepts", "publications"])
def test_lost_response_does_not_change_an_asset_twice(kind: str):
    datazone = BatchDataZone(**{kind: Outcomes(lost={"asset1": 2})})
    rows = run_batch(datazone, assets(3), steps=STEPS)
    assert changed(getattr(datazone, kind)) == one_per_asset(rows)
    assert len(getattr(datazone, kind).changes) == 5
    assert all(map(STEPS.is_success, rows))


@pytest.mark.parametrize("kind", ["accepts", "publications"])
def test_refusal_fails_only_its_asset_and_a_retry_repeats_only_the_refused_step(kind: str):
    refusal = client_error("ValidationException", 400, "not this one")
    outcomes = Outcomes(refusals={"asset1": [refusal]})
    datazone = BatchDataZone(**{kind: outcomes})
    rows = run_batch(datazone, assets(3), steps=STEPS)
    assert rows[1].to_result()["error"] == rows[1].error
    assert "not this one" in str(rows[1].error)
    assert rows[1].status == "SUCCEEDED"
    counts = Counts.of(rows, STEPS)
    assert (counts.succeeded, counts.failed, counts.published, counts.done) == (2, 1, 2, 3)
    require_few_failures(state_of(rows), STEPS, 1)
    with pytest.raises(
        RequestRefusedError, match=r"1 of 3 assets .*asset 'asset1', run 'run1'.*not this one"
    ):
        require_few_failures(state_of(rows), STEPS, 0)
    # What a retry does with the rows.
    rows[1].error, rows[1].is_refused = None, False
    run_batch(datazone, unpack(pack(rows)), steps=STEPS)
    assert len(datazone.runs) == 3
    assert changed(datazone.accepts) == changed(datazone.publications) == one_per_asset(rows)


@pytest.mark.parametrize(("denial", "project"), [(DENIED_BY_IAM, None), (DENIED_BY_MEMBERSHIP, "other")])
@pytest.mark.parametrize("kind", ["accepts", "publications"])
def test_denial_stops_starts_for_the_assets_that_it_concerns(
    kind: str, denial: Exception, project: str | None
):
    datazone = BatchDataZone(lasts=5, **{kind: Outcomes(refusal=denial)})
    rows = assets(400)
    for row in rows[::2]:
        row.owning_project_identifier = project or row.owning_project_identifier
    batches = []

    async def main(airflow: Airflow) -> None:
        batches.append(make_batch(rows, steps=STEPS))
        await batches[0].run(PARAMETERS)

    run_on(datazone, main)
    assert len(datazone.runs) < 150
    # The denied requests were in flight at the same time.
    assert len(getattr(datazone, kind).changes) <= 10
    done = [row for row in rows if row.has_ended]
    assert len(done) == len(datazone.runs)
    assert {row.error for row in done} == {str(denial)}
    with pytest.raises(RequestRefusedError, match=rf"400 of 400 assets .*{denial.response['Error']['Code']}"):  # type: ignore[attr-defined]
        require_few_failures(batches[0].state, STEPS, 0)


@pytest.mark.parametrize("kind", ["accepts", "publications"])
def test_denial_with_another_reason_fails_only_its_asset(kind: str):
    denial = client_error("AccessDeniedException", 403, "asset1 is locked")
    datazone = BatchDataZone(**{kind: Outcomes(refusals={"asset1": [denial]})})
    rows = run_batch(datazone, assets(60), steps=STEPS, max_concurrent_runs=5)
    assert {row.asset_identifier for row in rows if row.error} == {"asset1"}
    assert sum(row.listing is not None for row in rows) == 59


@pytest.mark.parametrize("kind", ["accepts", "publications"])
def test_asset_fails_if_its_request_fails_for_an_hour(kind: str):
    outcomes = Outcomes(refusals={"asset1": [client_error("InternalServerException", 500)] * 1000})
    datazone = BatchDataZone(**{kind: outcomes})
    rows = run_batch(datazone, assets(3), steps=STEPS)
    operation = {"accepts": "AcceptPredictions", "publications": "CreateListingChangeSet"}[kind]
    assert str(rows[1].error).startswith(f"DataZone has not completed {operation} for 60 minutes: ")
    last = max(change.at for change in outcomes.changes)
    assert requests.REQUEST_TIMEOUT <= last <= requests.REQUEST_TIMEOUT + 2 * requests.LONGEST_PAUSE
    with pytest.raises(BatchFailedError):
        require_few_failures(state_of(rows), STEPS, 0)


def test_used_up_quota_does_not_stop_accepting():
    reasons = {f"asset{n}": QUOTA for n in range(5, 100)}
    endings = {asset: ["FAILED"] for asset in reasons}
    datazone = BatchDataZone(reasons=reasons, endings=endings, accepts=Outcomes(limit=0.2))
    rows = run_batch(datazone, assets(100), steps=STEPS, max_concurrent_runs=10)
    assert changed(datazone.publications) == one_per_asset(rows[:5])
    assert Counts.of(rows, STEPS).not_started > 50


def test_retry_accepts_although_the_quota_is_used_up():
    """Accepting needs no quota."""
    refusal = client_error("ServiceQuotaExceededException", 402)
    datazone = BatchDataZone(
        endings={"asset1": ["FAILED"]},
        reasons={"asset1": QUOTA},
        accepts=Outcomes(refusals={"asset0": [refusal]}),
    )
    rows = run_batch(datazone, assets(2), steps=STEPS)
    state = state_of(rows, quota_used_up=True)
    with pytest.raises(BatchFailedError) as raised:
        require_few_failures(state, STEPS, 0)
    assert not isinstance(raised.value, QuotaUsedUpError)
    rows[0].is_refused = True
    with pytest.raises(QuotaUsedUpError):
        require_few_failures(state, STEPS, 0)


def test_refused_start_does_not_stop_accepting():
    datazone = BatchDataZone(lasts=20, refusals={"asset5": [DENIED_BY_IAM]})
    rows = run_batch(datazone, assets(100), steps=STEPS)
    assert 5 <= len(datazone.runs) < 20
    assert len(changed(datazone.publications)) == len(datazone.runs)
    assert Counts.of(rows, STEPS).published == len(datazone.runs)


@pytest.mark.parametrize("kind", ["accept", "publish"])
def test_batch_continues_with_new_credentials(kind: str):
    datazone = BatchDataZone(lasts=3)

    class Expiring(Airflow):
        def source(self, hook: Any, domain_identifier: str) -> Any:
            source = super().source(hook, domain_identifier)
            method = getattr(source, kind)

            async def expire(*arguments: Any) -> Any:
                if self.lookups == 1 and len(datazone.publications.changes) >= 10 - (kind == "accept"):
                    datazone.rejected.add("credentials1")
                return await method(*arguments)

            setattr(source, kind, expire)
            return source

    rows = assets(60)

    async def main(airflow: Airflow) -> None:
        await make_batch(rows, steps=STEPS).run(PARAMETERS)
        assert airflow.lookups == 2

    run_on(datazone, main, Expiring)
    assert changed(datazone.accepts) == changed(datazone.publications) == one_per_asset(rows)


class Scripted(Airflow):
    """Airflow with a DataZone that answers each request of a kind for one asset with the next error."""

    kind: str
    asset: str
    script: list[Exception]
    repeats = False

    def source(self, hook: Any, domain_identifier: str) -> Any:
        source = super().source(hook, domain_identifier)
        method = getattr(source, self.kind)

        async def respond(request: Any, *arguments: Any) -> Any:
            if request.asset_identifier != self.asset or not self.script:
                return await method(request, *arguments)
            await asyncio.sleep(0.01)
            error = self.script[0] if self.repeats else self.script.pop(0)
            if error is EXPIRED:
                self.datazone.rejected.add(f"credentials{self.lookups}")
            raise error

        setattr(source, self.kind, respond)
        return source


EXPIRED = client_error("ExpiredTokenException", 403)
THROTTLED = client_error("ThrottlingException", 429)


@pytest.mark.parametrize("kind", ["start", "accept", "publish"])
@pytest.mark.parametrize("asset", ["asset0", "asset9"])
@pytest.mark.parametrize(("lasts", "max_concurrent_runs"), [(3, 50), (30, 50), (30, 2)])
def test_credentials_error_of_one_asset_fails_only_that_asset(
    kind: str, asset: str, lasts: float, max_concurrent_runs: int
):
    """For example, a proxy changes a request, so that its signature does not match."""
    datazone = BatchDataZone(lasts=lasts)
    rows = assets(10)
    error = client_error("SignatureDoesNotMatch", 403)
    rejecting = type(
        "Rejecting", (Scripted,), {"kind": kind, "asset": asset, "script": [error], "repeats": True}
    )

    async def main(airflow: Airflow) -> None:
        await make_batch(rows, steps=STEPS, max_concurrent_runs=max_concurrent_runs).run(PARAMETERS)

    run_on(datazone, main, rejecting)
    assert {row.asset_identifier for row in rows if row.error} == {asset}
    assert sum(row.listing is not None for row in rows) == 9


def test_asset_is_accepted_after_two_changes_of_the_credentials():
    """In between, DataZone throttles the request of the asset: it has accepted the credentials."""
    datazone = BatchDataZone(lasts=3)
    rows = assets(30)
    script = [EXPIRED, *[THROTTLED] * 4, EXPIRED]
    changing = type("Changing", (Scripted,), {"kind": "accept", "asset": "asset0", "script": script})

    async def main(airflow: Airflow) -> None:
        await make_batch(rows, steps=STEPS).run(PARAMETERS)
        assert airflow.lookups == 3

    run_on(datazone, main, changing)
    assert changed(datazone.accepts) == changed(datazone.publications) == one_per_asset(rows)


def test_cost_of_a_change_does_not_grow_with_the_number_of_assets(monkeypatch: pytest.MonkeyPatch):
    """Thousands of assets may wait for their turn, and all triggers of a triggerer share its event loop."""
    visited = 0
    wait = asyncio.wait

    def count(futures: Any, **options: Any) -> Any:
        nonlocal visited
        futures = set(futures)
        visited += len(futures)
        return wait(futures, **options)

    monkeypatch.setattr(asyncio, "wait", count)
    rows = assets(500)
    for row in rows:
        row.run_identifier, row.status = "run0", "SUCCEEDED"
    datazone = BatchDataZone()
    run_batch_after(datazone, rows, lambda: [datazone.begin(row.asset_identifier) for row in rows])
    assert visited < 20 * len(rows)


# ---------------------------------------------------------------- interruptions


@pytest.mark.parametrize("seconds", [0.0, 2.0, 4.0, 6.0, 8.0, 11.0])
@pytest.mark.parametrize("is_saved", [True, False])
def test_next_process_repeats_no_change(seconds: float, is_saved: bool):
    """The first process is drained, or killed so that its last rows are lost."""
    datazone = BatchDataZone(lasts=3, latency=1.0)
    rows = assets(60)

    async def main(airflow: Airflow) -> None:
        nonlocal rows
        before = pack(rows)
        batch = make_batch(rows, steps=STEPS)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(seconds)
        if is_saved:
            await batch.drain()
            sent = len(datazone.requests)
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait({work})
        await settle()
        if is_saved:
            assert len(datazone.requests) == sent
        airflow.new_process()
        rows = unpack(pack(rows) if is_saved else before)
        await make_batch(rows, steps=STEPS).run(PARAMETERS)

    run_on(datazone, main)
    assert changed(datazone.accepts) == changed(datazone.publications) == one_per_asset(rows)
    if is_saved:
        assert len(datazone.accepts.changes) == len(datazone.publications.changes) == 60


def test_stopped_batch_sends_nothing_more():
    datazone = BatchDataZone(lasts=3)
    rows = assets(60)

    async def main(airflow: Airflow) -> None:
        batch = make_batch(rows, steps=STEPS)
        work = asyncio.ensure_future(batch.run(PARAMETERS))
        await asyncio.sleep(6.0)
        batch.stop()
        stopped_at = now()
        with pytest.raises(BatchStoppedError):
            await work
        await asyncio.sleep(600)
        late = [at for at, kind, _ in datazone.requests if at > stopped_at + 0.1 and kind != "get"]
        assert late == []
        assert datazone.accepts.changes

    run_on(datazone, main)


def test_progress_line_shows_accepted_and_published(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    datazone = BatchDataZone(lasts=3, accepts=Outcomes(limit=1.0))
    run_batch(datazone, assets(100), steps=STEPS)
    lines = [record.getMessage() for record in caplog.records if " · " in record.getMessage()]
    assert len(lines) >= 3
    assert all(" accepted · " in line and " published" in line for line in lines)
    last = "100/100 done · 100 succeeded · 0 failed · 0 active · 100 accepted · 100 published"
    assert lines[-1].startswith(last)
    # Runs end long before their predictions are accepted.
    assert any(line.split("/")[0] != line.split(" · ")[1].split()[0] for line in lines)
