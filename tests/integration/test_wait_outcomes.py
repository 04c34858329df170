"""What each task leaves behind, in real Airflow: its state, how often it was tried, and its XComs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.conftest import TYPE_STATS, make_catalog, outcome_of
from tests.dags.wait_outcomes import CASES, ENDINGS, dag, task_id

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer


class Outcome(NamedTuple):
    state: str
    try_number: int
    return_value: Any
    type_stats: Any
    run: Any


@pytest.fixture(scope="module")
def outcomes(datazone_server: DataZoneServer, airflow_database: None) -> dict[str, Outcome]:
    """Run the DAG once, on runs that end in every way."""
    datazone_server.reset()
    catalog = make_catalog(datazone_server)

    def start_run(ending: str) -> str:
        if ending == "UNKNOWN_RUN":
            return "unknownrun"
        if ending == "TIMED_OUT":
            return catalog.start_run(in_progress_seconds=3600)
        return catalog.start_run(**outcome_of(TYPE_STATS[ending]))

    runs = {task_id(*case): start_run(case[0]) for case in CASES}
    runs |= {f"{ending}-get": start_run(ending) for ending in ENDINGS}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", datazone_server.connection)
        dag_run = dag.test(run_conf={"domain_identifier": catalog.domain_identifier, "runs": runs})

        def pull(ti: Any, key: str) -> Any:
            return ti.xcom_pull(task_ids=ti.task_id, key=key)

        return {
            ti.task_id: Outcome(
                str(ti.state),
                ti.try_number,
                *(pull(ti, key) for key in ("return_value", "type_stats", "run")),
            )
            for ti in dag_run.get_task_instances()
        }


@pytest.mark.parametrize(("ending", "mode", "soft_fail", "allow_partial_success"), CASES)
def test_wait_ends_as_the_run_did(
    outcomes: dict[str, Outcome], ending: str, mode: str, soft_fail: bool, allow_partial_success: bool
) -> None:
    outcome = outcomes[task_id(ending, mode, soft_fail, allow_partial_success)]
    if ending == "UNKNOWN_RUN":
        expected = "failed"  # not hidden by soft_fail
    elif ending == "SUCCEEDED" or (ending == "PARTIALLY_SUCCEEDED" and allow_partial_success):
        expected = "success"
    else:
        expected = "skipped" if soft_fail else "failed"
    assert outcome.state == expected
    assert outcome.try_number == 1, "was retried"

    type_stats = TYPE_STATS.get(ending)
    assert outcome.type_stats == type_stats
    assert outcome.return_value == (type_stats if expected == "success" else None)
    if type_stats is None:
        assert outcome.run is None
    else:
        assert outcome.run["status"] == ending
        assert outcome.run["typeStats"] == type_stats


@pytest.mark.parametrize("ending", ENDINGS)
def test_get_operator_reads_once_and_judges_nothing(outcomes: dict[str, Outcome], ending: str) -> None:
    outcome = outcomes[f"{ending}-get"]
    assert outcome.try_number == 1
    if ending == "UNKNOWN_RUN":
        assert outcome == ("failed", 1, None, None, None)
        return
    assert outcome.state == "success"
    # One look: the run has been started, and is not over.
    assert outcome.run["status"] == "IN_PROGRESS"
    assert [stat["type"] for stat in outcome.type_stats] == ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
    assert outcome.return_value == outcome.type_stats == outcome.run["typeStats"]
