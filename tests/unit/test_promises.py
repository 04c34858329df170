"""What a batch and its poller promise when the service is slow, refuses, or forgets; on a simulated clock."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_datazone import batch as engine
from airflow_provider_datazone.batch import AssetRow, StartGate, StartsStoppedError, require_few_failures
from airflow_provider_datazone.exceptions import BatchFailedError, RequestRefusedError
from airflow_provider_datazone.triggers import run_poller
from airflow_provider_datazone.triggers.run_poller import (
    CredentialsRejectedError,
    PollerEndedError,
    Rates,
    RequestRate,
    RunPoller,
    cancel_run,
    wait_for_run,
)
from tests.unit.simulated_batch import (
    EPOCH,
    LOG,
    PARAMETERS,
    RATE,
    Airflow,
    BatchDataZone,
    assets,
    busiest_second,
    make,
    on,
)
from tests.unit.simulation import SimulatedDataZone, SimulatedRun, Source, client_error, now
from tests.unit.test_batch import bring_to_an_end, statuses


async def wait_for(
    run: str, poll_interval: float = 2.0, timeout: float | None = None, domain: str = "dzd_1"
) -> Any:
    return await wait_for_run(
        PARAMETERS,
        run,
        domain_identifier=domain,
        run_type=None,
        poll_interval=poll_interval,
        timeout=timeout,
        log=LOG,
    )


# ------------------------------------------------------------- rates and threads


class SlowStarts(BatchDataZone):
    """Starts that arrive at once, and are answered when the service is no longer slow."""

    slow_until = 0.0
    start_seconds = 0.0

    async def start(self, request: Any, token: str, send: Any) -> Any:
        sent_at = now()
        answer = await super().start(request, token, send)
        ends = max(self.slow_until, sent_at + self.start_seconds)
        await asyncio.sleep(max(ends - now(), 0))
        return answer


@pytest.mark.parametrize("max_concurrent_runs", [50, 200])
def test_starts_that_hung_do_not_leave_together(max_concurrent_runs: int):
    datazone = SlowStarts(lasts=60)
    datazone.slow_until = 12.0
    rows = bring_to_an_end(datazone, assets(300), max_concurrent_runs=max_concurrent_runs)
    assert statuses(rows) == {"SUCCEEDED": 300}
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert busiest_second(sent) <= RATE


def test_slow_starts_do_not_hold_up_the_polls_of_a_wait():
    datazone = SlowStarts(lasts=600)
    datazone.start_seconds = 3.0
    waited_for = SimulatedRun("mine", ends=60.0)
    datazone.runs.append(waited_for)
    datazone.by_id["mine"], datazone.order["mine"] = waited_for, -1

    async def main(airflow: Airflow) -> None:
        batch = make(assets(400), max_concurrent_runs=400, poll_interval=30.0)
        work = asyncio.ensure_future(batch.run(PARAMETERS, noted_at=EPOCH))
        await wait_for("mine")
        assert 60 <= now() <= 60 + 2 * 2
        await batch.drain()
        work.cancel()
        await asyncio.wait({work})

    on(datazone, main)
    polls = [at for at, operation, about in datazone.requests if about == "mine" or operation == "list"]
    assert len(polls) >= 15


def test_small_batch_gets_as_many_turns_as_a_large_one():
    datazone = BatchDataZone(lasts=1)

    async def main(airflow: Airflow) -> float:
        large = make(assets(400), max_concurrent_runs=400)
        work = asyncio.ensure_future(large.run(PARAMETERS, noted_at=EPOCH))
        await asyncio.sleep(1)
        await make([AssetRow(f"small{n}", None, "project") for n in range(10)]).run(
            PARAMETERS, noted_at=EPOCH
        )
        ended = now()
        await work
        return ended

    # Ten starts at half the rate, and the last one's poll interval.
    assert on(datazone, main) <= 1 + 10 / (RATE / 2) + 5 + 3


class TwoConnections(Airflow):
    """Each look-up finds a connection that was edited since, or is another task's view of it."""

    limited_as = (("connection a",), ("connection a", "account 1"), ("connection b", "account 1"))

    async def look_up(self, parameters: Any) -> Any:
        self.look_ups += 1
        known = self.limited_as[min(self.look_ups, len(self.limited_as)) - 1]
        return run_poller._Connection(None, f"credentials{self.look_ups}", known)  # type: ignore[arg-type]


def test_connections_of_one_account_share_its_limits():
    datazone = BatchDataZone(lasts=1)

    async def main(airflow: Airflow) -> None:
        views = [PARAMETERS._replace(botocore_config={"user_agent_extra": f"task {n}"}) for n in range(3)]
        batches = [make([AssetRow(f"asset{b}-{n}", None, "project") for n in range(60)]) for b in range(3)]
        await asyncio.gather(
            *(batch.run(parameters, noted_at=EPOCH) for batch, parameters in zip(batches, views, strict=True))
        )
        assert airflow.look_ups == 3

    on(datazone, main, TwoConnections)
    sent = [at for at, operation, _ in datazone.requests if operation == "start"]
    assert busiest_second(sent) <= RATE


def test_cancels_of_all_domains_share_the_limit():
    datazone = BatchDataZone(lasts=math.inf)

    async def main(airflow: Airflow) -> None:
        airflow.domains = {"dzd_1", "dzd_2"}
        runs = [datazone.begin(f"asset{n}") for n in range(120)]
        await asyncio.gather(
            *(
                cancel_run(PARAMETERS, run.id, domain_identifier=f"dzd_{1 + number % 2}", log=LOG)
                for number, run in enumerate(runs)
            )
        )
        assert {run.status(now()) for run in runs} == {"CANCELED"}

    on(datazone, main)
    canceled = [at for at, operation, _ in datazone.requests if operation == "cancel"]
    assert busiest_second(canceled) <= 21
    assert canceled[-1] <= 120 / 20 * 1.1


def test_each_page_of_a_recovery_list_takes_its_turn():
    datazone = BatchDataZone(lasts=1, asset_page_size=2)

    async def main(airflow: Airflow) -> None:
        for _ in range(20):
            for n in range(5):
                datazone.begin(f"asset{n}", ends=0.0, end_status="FAILED")
        await make(assets(5)).run(PARAMETERS, noted_at=EPOCH - 3600)

    on(datazone, main)
    pages = [at for at, operation, _ in datazone.requests if operation == "list_asset_page"]
    assert len(pages) == 5 * 10
    assert busiest_second(pages) <= RATE


def test_asset_whose_start_always_fails_does_not_keep_the_batch_alive_for_ever():
    broken = [client_error("InternalServerException", 500)] * 100_000
    datazone = BatchDataZone(refusals={"asset7": list(broken)})
    rows = bring_to_an_end(datazone, assets(20))
    assert statuses(rows) == {"SUCCEEDED": 19, None: 1}
    assert rows[7].is_done
    assert "InternalServerException" in str(rows[7].error)
    last = max(start.at for start in datazone.starts)
    assert engine.START_PATIENCE <= last <= engine.START_PATIENCE + 2 * engine.LONGEST_PAUSE


def test_throttling_of_an_hour_fails_no_asset():
    busy = [client_error("ThrottlingException", 429)] * 120
    datazone = BatchDataZone(refusals={"asset0": list(busy)})
    rows = bring_to_an_end(datazone, assets(1))
    assert statuses(rows) == {"SUCCEEDED": 1}
    assert datazone.starts[-1].at > engine.START_PATIENCE


# ----------------------------------------------------------- pollers, credentials


class SameFingerprint(Airflow):
    """A role is assumed again: what the connection says is the same, and the session is not."""

    async def look_up(self, parameters: Any) -> Any:
        self.look_ups += 1
        return run_poller._Connection(None, "the same", ("the account",))  # type: ignore[arg-type]


def test_rejected_credentials_are_not_handed_out_again_because_another_wait_keeps_their_poller():
    datazone = BatchDataZone(lasts=30)

    async def main(airflow: Airflow) -> list[AssetRow]:
        long = datazone.begin("long", ends=3000.0)
        other = asyncio.ensure_future(wait_for(long.id, poll_interval=600.0))
        await asyncio.sleep(5)
        datazone.rejected.add("credentials1")
        rows = assets(5)
        await make(rows).run(PARAMETERS, noted_at=EPOCH)
        doomed = datazone.begin("doomed", ends=math.inf)
        run = await cancel_run(PARAMETERS, doomed.id, domain_identifier="dzd_1", log=LOG)
        assert run.status == "CANCELED"
        assert airflow.look_ups <= 4
        assert (await other).status == "SUCCEEDED"
        return rows

    assert statuses(on(datazone, main, SameFingerprint)) == {"SUCCEEDED": 5}


def test_request_that_is_always_rejected_fails_its_own_asset_alone_and_costs_few_look_ups():
    rejected = [client_error("InvalidSignatureException", 403)] * 1000
    datazone = BatchDataZone(lasts=20, refusals={"asset3": rejected})

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(30)
        await make(rows).run(PARAMETERS, noted_at=EPOCH)
        assert airflow.look_ups <= 5
        return rows

    rows = on(datazone, main, SameFingerprint)
    assert statuses(rows) == {"SUCCEEDED": 29, None: 1}
    assert "InvalidSignatureException" in str(rows[3].error)


def poller_of(datazone: SimulatedDataZone) -> tuple[RunPoller, Source]:
    source = Source(datazone)
    rate = RequestRate(RATE)
    return RunPoller(source, Rates(rate, rate, rate), lambda: None), source


async def wait_on(poller: RunPoller, run: str) -> Any:
    return await poller.wait(run, run_type=None, poll_interval=5.0, timeout=None, log=LOG)


def test_wait_on_a_poller_that_has_ended_ends():
    datazone = BatchDataZone()
    datazone.get_error = client_error("ExpiredTokenException", 403)

    async def main(airflow: Airflow) -> None:
        run = datazone.begin("asset")
        poller, _ = poller_of(datazone)
        with pytest.raises(CredentialsRejectedError):
            await wait_on(poller, run.id)
        datazone.get_error = None
        with pytest.raises(CredentialsRejectedError):
            await asyncio.wait_for(wait_on(poller, run.id), 3600)
        idle, source = poller_of(datazone)
        await wait_on(idle, run.id)
        assert source.closed == 1
        with pytest.raises(PollerEndedError):
            await asyncio.wait_for(wait_on(idle, run.id), 3600)

    on(datazone, main)


def test_list_that_is_stuck_is_found_out_however_long_the_wait_was_polled_with_get_before():
    """For two hours a wait is alone, so it is polled with Get; then twenty join it, and List takes over."""

    class Stuck(BatchDataZone):
        async def list_page(self, status: str, next_token: str | None) -> Any:
            await self._answer("list", status)
            listed = [run for run in self.runs if status == "IN_PROGRESS"]
            return [run.at(min(now(), 7000.0)) for run in listed], None

    datazone = Stuck()

    async def main(airflow: Airflow) -> float:
        long = datazone.begin("long", begins=0.0, ends=9000.0)
        first = asyncio.ensure_future(wait_for(long.id, poll_interval=30.0))
        await asyncio.sleep(7200)
        runs = [datazone.begin(f"other{n}", begins=0.0, ends=20_000.0) for n in range(20)]
        others = [asyncio.ensure_future(wait_for(run.id, poll_interval=30.0)) for run in runs]
        await first
        ended = now()
        await asyncio.gather(*others)
        return ended

    assert on(datazone, main) <= 9000 + 1.5 * run_poller.LONGEST_VERIFY_AFTER + 60


# ------------------------------------------------------- what belongs to whom


def test_second_batch_over_the_same_assets_starts_its_own_runs():
    datazone = BatchDataZone(lasts=5)

    async def main(airflow: Airflow) -> None:
        await make(assets(6), identity="the first task").run(PARAMETERS, noted_at=EPOCH)
        rows = assets(6)
        # As in a retry, or a clear: what was started before is not known.
        await make(rows, identity="the second task").run(PARAMETERS, noted_at=0.0)
        assert len(datazone.runs) == 12
        assert {row.run_identifier for row in rows} == {run.id for run in datazone.runs[6:]}

    on(datazone, main)


def test_active_run_of_another_task_is_adopted():
    datazone = BatchDataZone(lasts=60)

    async def main(airflow: Airflow) -> None:
        theirs = [datazone.begin(f"asset{n}") for n in range(6)]
        rows = assets(6)
        await make(rows).run(PARAMETERS, noted_at=0.0)
        assert [row.run_identifier for row in rows] == [run.id for run in theirs]

    on(datazone, main)
    assert datazone.starts == []


@pytest.mark.parametrize("after", ["a checkpoint", "a look-up of credentials"])
def test_run_that_a_person_canceled_is_not_started_again(after: str):
    datazone = BatchDataZone(lasts=600)

    async def main(airflow: Airflow) -> list[AssetRow]:
        rows = assets(2)
        batch = make(rows)
        work = asyncio.ensure_future(batch.run(PARAMETERS, noted_at=EPOCH))
        await asyncio.sleep(300)
        if after == "a checkpoint":
            await batch.drain()
            work.cancel()
            await asyncio.wait({work})
            rows = engine.unpack(engine.pack(rows))
            work = asyncio.ensure_future(make(rows).run(PARAMETERS, noted_at=EPOCH + now()))
        else:
            datazone.rejected.add("credentials1")
        await asyncio.sleep(60)
        datazone.runs_of("asset1")[0].cancel()
        await work
        return rows

    assert [row.status for row in on(datazone, main)] == ["SUCCEEDED", "CANCELED"]
    assert len(datazone.starts) == 2


def test_run_that_failed_is_not_started_again_by_the_triggerer_that_takes_over():
    datazone = BatchDataZone(lasts=30, endings={"asset1": ["FAILED", "SUCCEEDED"]})

    async def main(airflow: Airflow) -> list[AssetRow]:
        given = engine.pack(assets(3))
        first = asyncio.ensure_future(make(engine.unpack(given)).run(PARAMETERS, noted_at=EPOCH))
        await asyncio.sleep(100)
        assert first.done()
        # Its event was lost with the triggerer.
        airflow.new_process()
        rows = engine.unpack(given)
        await make(rows).run(PARAMETERS, noted_at=EPOCH)
        return rows

    assert [row.status for row in on(datazone, main)] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert len(datazone.runs) == 3


@pytest.mark.parametrize("may_list", [True, False])
def test_retry_without_a_memory_starts_what_failed_and_keeps_what_succeeded(may_list: bool):
    forbidden = [] if may_list else [client_error("AccessDeniedException", 403)] * 100
    datazone = BatchDataZone(
        lasts=30, endings={"asset1": ["FAILED", "FAILED", "SUCCEEDED"]}, list_refusals=forbidden
    )

    async def main(airflow: Airflow) -> list[list[str | None]]:
        tries = []
        for try_number in (1, 2, 3):
            airflow.new_process()
            rows = assets(3)
            began = EPOCH + now()
            batch = make(rows, try_number=try_number, try_began_at=began)
            await batch.run(PARAMETERS, noted_at=began if try_number == 1 else 0.0)
            tries.append([row.status for row in rows])
            await asyncio.sleep(1)
        return tries

    assert on(datazone, main) == [
        ["SUCCEEDED", "FAILED", "SUCCEEDED"],
        ["SUCCEEDED", "FAILED", "SUCCEEDED"],
        ["SUCCEEDED", "SUCCEEDED", "SUCCEEDED"],
    ]
    assert Counter(run.asset for run in datazone.runs) == {"asset0": 1, "asset1": 3, "asset2": 1}


def test_conflict_is_looked_up_until_a_late_list_shows_the_run():
    conflict: list[Exception] = [client_error("ConflictException", 409)] * 50
    datazone = BatchDataZone(lasts=60, refusals={"asset0": conflict}, listed_after=5.0)

    async def main(airflow: Airflow) -> None:
        theirs = datazone.begin("asset0")
        rows = assets(1)
        await make(rows).run(PARAMETERS, noted_at=EPOCH)
        assert rows[0].run_identifier == theirs.id

    on(datazone, main)


# -------------------------------------------------------------- stop and cancel


@pytest.mark.parametrize("seconds", [1.0, 6.0, 30.0], ids=["ramping up", "full", "draining"])
@pytest.mark.parametrize("start_seconds", [0.0, 3.0])
def test_stopped_batch_starts_nothing_more_and_cancels_what_it_started(seconds: float, start_seconds: float):
    datazone = SlowStarts(lasts=1000, unknown_for={f"asset{n}": 4.0 for n in range(100)})
    datazone.start_seconds = start_seconds

    async def main(airflow: Airflow) -> None:
        rows = assets(100)
        batch = make(rows, max_concurrent_runs=100 if seconds == 30.0 else 50)
        work = asyncio.ensure_future(batch.run(PARAMETERS, noted_at=EPOCH))
        await asyncio.sleep(seconds)
        began = now()
        canceled, failed = await batch.cancel_all(PARAMETERS)
        assert now() - began <= 100 / 20 + 4 + 2 * run_poller.CANCEL_AGAIN_AFTER + 1
        assert failed == {}
        assert canceled == len(datazone.runs) > 0
        assert {run.status(now()) for run in datazone.runs} == {"CANCELED"}
        with pytest.raises(StartsStoppedError):
            await work
        started = len(datazone.runs)
        await asyncio.sleep(3600)
        assert len(datazone.runs) == started

    on(datazone, main)


def test_gate_lets_nothing_through_once_it_is_closed():
    gate = StartGate()
    seen = []

    def request() -> str:
        seen.append(gate.under_way)
        gate.is_closed = True
        return "a run"

    assert gate.send("asset", request) == "a run"
    assert seen == [{"asset"}]
    with pytest.raises(StartsStoppedError):
        gate.send("another", request)
    assert (gate.under_way, len(seen)) == (frozenset(), 1)


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
        await batch.run(PARAMETERS, noted_at=EPOCH)
        assert batch.is_finished
        return batch.refusals

    refusals = on(datazone, main)
    # Those that were on their way.
    assert len(datazone.starts) <= 2
    assert engine.Counts.of(rows).not_started >= 118
    with pytest.raises(RequestRefusedError, match="A retry would meet the same"):
        require_few_failures(rows, 0, allow_partial_success=True, quota_used_up=False, refusals=refusals)


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
        require_few_failures(rows, 0, allow_partial_success=True, quota_used_up=False, refusals={})


def test_batch_is_retried_where_one_asset_could_do_better():
    error = refusal("ResourceNotFoundException", "The given Asset doesn't exist.")
    datazone = BatchDataZone(refusals={"asset3": [error]}, endings={"asset4": ["FAILED"]})
    rows = bring_to_an_end(datazone, assets(30))
    with pytest.raises(BatchFailedError):
        require_few_failures(rows, 0, allow_partial_success=True, quota_used_up=False, refusals={})


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_run_that_goes_on_through_several_rotations_of_credentials_is_waited_for(rotations: int):
    datazone = BatchDataZone(lasts=5 * 3600)

    async def main(airflow: Airflow) -> list[AssetRow]:
        loop = asyncio.get_running_loop()
        for number in range(1, rotations + 1):
            loop.call_later(3600 * number, datazone.rejected.add, f"credentials{number}")
        rows = assets(1)
        await make(rows).run(PARAMETERS, noted_at=EPOCH)
        assert airflow.look_ups == rotations + 1
        return rows

    assert statuses(on(datazone, main)) == {"SUCCEEDED": 1}
