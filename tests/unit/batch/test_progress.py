"""What a batch logs and saves while it runs."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from airflow_provider_datazone.batch.assets import AssetRow
from airflow_provider_datazone.batch.steps import Steps
from airflow_provider_datazone.batch.summary import Counts
from tests.unit.simulated_batch import (
    LOG,
    QUOTA,
    RATE,
    BatchDataZone,
    assets,
    make_batch,
    run_batch,
    statuses,
)
from tests.unit.simulation import client_error, now

# --------------------------------------------------------------------- progress

LINE = re.compile(
    r"(?P<done>[\d,]+)/(?P<total>[\d,]+) done · (?P<succeeded>[\d,]+) succeeded · (?P<failed>[\d,]+) failed"
    r" · (?P<active>[\d,]+) active( · (?P<not_started>[\d,]+) not started)?( · (?P<rate>\d+\.\d) starts/s)?( · about (?P<left>\d+ (s|min)) left)?"
)


@dataclass
class Line:
    at: float
    text: str
    done: int
    total: int
    left: str | None
    rate: float

    @property
    def seconds_left(self) -> float:
        number, unit = str(self.left).split()
        return float(number) * (60 if unit == "min" else 1)


class Lines(logging.Handler):
    """Collects progress lines with their times, and fails for any other INFO message."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno > logging.INFO:
            return
        found = LINE.fullmatch(text)
        assert found is not None, text
        done, total = (int(found[name].replace(",", "")) for name in ("done", "total"))
        self.lines.append(Line(now(), text, done, total, found["left"], float(found["rate"] or 0)))


@pytest.fixture
def progress() -> Iterator[Lines]:
    lines = Lines()
    level = LOG.level
    LOG.addHandler(lines)
    LOG.setLevel(logging.INFO)
    yield lines
    LOG.removeHandler(lines)
    LOG.setLevel(level)


def check(lines: list[Line]) -> None:
    """Check that each line marks 30 seconds or a new tenth, and that the last line reports all done."""
    assert lines[-1].done == lines[-1].total
    reported: set[int] = set()
    for before, line in itertools.pairwise(lines[:-1]):
        assert line.at - before.at >= 10, line
    for before, line in itertools.pairwise([Line(0.0, "", 0, 1, None, 0.0), *lines]):
        tenth = line.done * 10 // line.total
        is_first_of_tenth = tenth > 0 and tenth not in reported
        assert is_first_of_tenth or line.at % 30 == pytest.approx(0, abs=0.1), line
        assert line.at > before.at
        reported.add(tenth)
    assert 10 in reported


def test_progress_is_logged_at_every_tenth_and_every_30_seconds(progress: Lines):
    datazone = BatchDataZone(lasts=30, endings={"asset7": ["FAILED"]})
    run_batch(datazone, assets(1500), max_concurrent_runs=300, poll_interval=10)
    check(progress.lines)
    assert {line.done * 10 // line.total for line in progress.lines} >= set(range(1, 11))
    duration = progress.lines[-1].at
    assert len(progress.lines) <= 10 + duration / 30
    for line in progress.lines:
        counted = sum(at <= line.at for at in datazone.ends_reported_at.values())
        assert line.done == pytest.approx(counted, abs=50)
    # The rate covers the time since the last line.
    lines = [Line(0.0, "", 0, 1, None, 0.0), *progress.lines]
    started = [(line.at - before.at) * line.rate for before, line in itertools.pairwise(lines)]
    assert started[0] == pytest.approx(30 * RATE, rel=0.05)
    assert sum(started) == pytest.approx(1500, rel=0.02)
    assert progress.lines[-1].text.startswith("1,500/1,500 done · 1,499 succeeded · 1 failed · 0 active")
    assert progress.lines[-1].left is None


@pytest.mark.parametrize("lasts", [5.0, 30.0])
def test_remaining_time_is_approximately_right(progress: Lines, lasts: float):
    datazone = BatchDataZone(lasts=lasts)
    run_batch(datazone, assets(1500), max_concurrent_runs=600, poll_interval=lasts)
    duration = progress.lines[-1].at
    estimates = [line for line in progress.lines if line.left is not None]
    assert len(estimates) >= 9
    for line in estimates:
        assert line.seconds_left == pytest.approx(duration - line.at, rel=0.3, abs=35), line


def test_progress_is_logged_every_30_seconds_while_no_run_ends(progress: Lines):
    run_batch(BatchDataZone(lasts=300), assets(20), poll_interval=30)
    check(progress.lines)
    waiting = [line for line in progress.lines if line.done == 0]
    assert [line.at for line in waiting] == pytest.approx(
        [30.0 * n for n in range(1, len(waiting) + 1)], abs=0.1
    )
    assert len(waiting) >= 9


@pytest.mark.parametrize("number", [1, 3, 9, 11])
def test_small_batch_logs_at_most_one_line_per_asset(progress: Lines, number: int):
    run_batch(BatchDataZone(lasts=2), assets(number))
    assert progress.lines[-1].done == number
    assert 1 <= len(progress.lines) <= number
    assert len({line.text for line in progress.lines}) == len(progress.lines)


def test_short_batch_logs_its_first_and_last_line_without_a_rate(progress: Lines):
    run_batch(BatchDataZone(lasts=0.1, latency=0.01), assets(10), poll_interval=0.1)
    assert progress.lines[-1].at < 10
    assert [line.done for line in progress.lines] == [1, 10]
    assert "0.0 starts/s" not in " ".join(line.text for line in progress.lines)


def test_rate_is_omitted_if_no_run_started_since_the_last_line(progress: Lines):
    run_batch(BatchDataZone(lasts=100), assets(20), poll_interval=30)
    assert "starts/s" in progress.lines[0].text
    assert [line.text for line in progress.lines[1:] if "starts/s" in line.text] == []


def test_last_line_of_a_stopped_batch_counts_all_failures(progress: Lines):
    datazone = BatchDataZone(lasts=5, reasons={"asset2": QUOTA}, endings={"asset2": ["FAILED"]})
    rows = run_batch(datazone, assets(10), max_concurrent_runs=3)
    assert progress.lines[-1].done == Counts.of(rows, Steps()).done < 10


# --------------------------------------------------------------- first failures


def warnings_of(datazone: BatchDataZone, rows: list[AssetRow], caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.WARNING, logger=LOG.name):
        run_batch(datazone, rows)
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_first_failure_of_each_kind_is_logged_with_asset_and_run(caplog: pytest.LogCaptureFixture):
    failing = [f"asset{n}" for n in range(20)]
    # Reasons that differ only in the asset's name or a number are of one kind.
    reasons = {asset: f"Table {asset} has {n + 7} columns" for n, asset in enumerate(failing)}
    reasons["asset13"] = "Names cannot be generated"
    datazone = BatchDataZone(reasons=reasons, endings={asset: ["FAILED"] for asset in failing})
    first, second = warnings_of(datazone, assets(30), caplog)
    run = datazone.runs_of("asset0")[0].id
    assert first.startswith(
        f"First failure of its kind (asset 'asset0', run '{run}'): BUSINESS_DESCRIPTIONS FAILED: Table asset0 has"
    )
    run = datazone.runs_of("asset13")[0].id
    assert f"(asset 'asset13', run '{run}')" in second
    assert "Names cannot be generated" in second


def test_first_refusal_with_each_error_code_is_logged_immediately(caplog: pytest.LogCaptureFixture):
    datazone = BatchDataZone(lasts=600)
    datazone.refusals = {f"asset{n}": [client_error("ValidationException", 400)] for n in range(5)}
    datazone.refusals["asset3"] = [client_error("ServiceQuotaExceededException", 402)]
    logged_at: list[float] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: logged_at.append(now())  # type: ignore[method-assign]
    LOG.addHandler(handler)
    try:
        messages = warnings_of(datazone, assets(10), caplog)
    finally:
        LOG.removeHandler(handler)
    assert len(messages) == 2
    assert messages[0].startswith("First failure of its kind (asset 'asset0', no run was started): ")
    assert "ValidationException" in messages[0]
    assert "ServiceQuotaExceededException" in messages[1]
    assert max(logged_at) < 60 < min(datazone.ends_reported_at.values())


def test_number_of_logged_failure_kinds_is_limited(caplog: pytest.LogCaptureFixture):
    names = [f"asset{n}" for n in range(60)]
    letters = [chr(ord("a") + n % 26) * (1 + n // 26) for n in range(60)]
    reasons = dict(zip(names, letters, strict=True))
    datazone = BatchDataZone(reasons=reasons, endings={name: ["FAILED"] for name in names})
    datazone.refusals = {"asset59": [client_error("ServiceQuotaExceededException", 402)]}
    messages = warnings_of(datazone, assets(60), caplog)
    assert 5 <= len(messages) <= 22
    # One line says that there are more kinds. The limit does not apply to error codes.
    assert sum("Runs fail for other reasons, too" in message for message in messages) == 1
    assert any("ServiceQuotaExceededException" in message for message in messages)


def test_partial_success_is_logged_with_its_failed_types(caplog: pytest.LogCaptureFixture):
    rows = [AssetRow("asset0", None, "project", 1, "run", None)]
    rows[0].status = "PARTIALLY_SUCCEEDED"
    rows[0].type_stats = [{"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no"}]
    with caplog.at_level(logging.WARNING, logger=LOG.name):
        make_batch(rows)._failure_log.on_end(rows[0])
    assert caplog.messages == [
        "First failure of its kind (asset 'asset0', run 'run'): BUSINESS_NAMES FAILED: no"
    ]


def test_logged_start_rate_does_not_exceed_the_actual_rate(progress: Lines):
    """Lines may follow each other closely, so the rate must not depend on a short interval."""
    datazone = BatchDataZone(lasts=29.5)
    run_batch(datazone, assets(400), max_concurrent_runs=60, poll_interval=10)
    assert max(line.rate for line in progress.lines) <= 1.1 * RATE


def test_assets_that_an_earlier_process_finished_log_no_lines(progress: Lines):
    rows = assets(1000)
    for row in rows[:550]:
        row.run_identifier, row.status = "run", "SUCCEEDED"
    run_batch(BatchDataZone(lasts=5), rows, poll_interval=1)
    assert progress.lines[0].done >= 600
    assert progress.lines[-1].done == 1000
    assert len(progress.lines) <= 5 + progress.lines[-1].at / 30
    # The remaining time is estimated from the rate of this process.
    estimates = [line for line in progress.lines if line.left is not None]
    assert len(estimates) >= 3
    for line in estimates:
        assert line.seconds_left == pytest.approx(progress.lines[-1].at - line.at, rel=0.15, abs=1), line


def test_batch_stopped_by_the_quota_counts_only_finished_assets_as_done(progress: Lines):
    errors: list[Exception] = [client_error("InternalServerException", 500) for _ in range(5)]
    datazone = BatchDataZone(lasts=5, reasons={"asset0": QUOTA}, endings={"asset0": ["FAILED"]})
    datazone.refusals = {f"asset{n}": list(errors) for n in range(1, 10)}
    run_batch(datazone, assets(10))
    assert [line.done for line in progress.lines] == [1]


def test_assets_that_are_not_started_are_counted_and_not_waited_for(progress: Lines):
    datazone = BatchDataZone(lasts=60, reasons={"asset0": QUOTA}, endings={"asset0": ["FAILED"]})
    rows = run_batch(datazone, assets(100), max_concurrent_runs=20)
    not_started = statuses(rows)[None]
    assert not_started > 50
    assert f"· {not_started} not started" in progress.lines[-1].text
    assert (progress.lines[-1].done, progress.lines[-1].left) == (100 - not_started, None)


def test_rows_are_saved_every_30_seconds():
    saved: list[tuple[float, Counts]] = []
    rows = assets(200)
    run_batch(
        BatchDataZone(lasts=100), rows, on_progress=lambda: saved.append((now(), Counts.of(rows, Steps())))
    )
    assert [at for at, _ in saved] == pytest.approx([30.0 * n for n in range(1, len(saved) + 1)], abs=0.1)
    assert len(saved) >= 10
    assert saved[0][1].active == 50


def test_error_while_saving_stops_neither_the_batch_nor_later_saves(caplog: pytest.LogCaptureFixture):
    saved: list[float] = []

    def save() -> None:
        saved.append(now())
        raise OSError("the database is away")

    rows = run_batch(BatchDataZone(lasts=100), assets(10), on_progress=save)
    assert statuses(rows) == {"SUCCEEDED": 10}
    assert len(saved) >= 3
    assert "the database is away" in caplog.text
