"""The runs of the local DataZone progress, end and are listed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
)

from airflow_provider_datazone.testing import (
    DataZoneControls,
    DataZoneServer,
)
from tests.integration.testing.clients import DESCRIPTIONS, NAMES, Runs


class TestRuns:
    def test_each_get_advances_a_run(self, datazone: DataZoneControls) -> None:
        runs = Runs(datazone)
        run = runs.start()
        assert runs.statuses(run, 3) == ["IN_PROGRESS", "SUCCEEDED", "SUCCEEDED"]

    def test_each_list_that_contains_a_run_advances_it(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        runs.start()
        seen = [item["status"] for _ in range(3) for item in runs.list()]
        assert seen == ["SUBMITTED", "IN_PROGRESS", "SUCCEEDED"]

    def test_state_manager_of_moto_controls_the_progress(
        self, server: DataZoneServer, transition: Callable[[dict[str, Any]], None]
    ) -> None:
        runs = Runs(server)
        transition({"progression": "manual", "times": 2})
        run = runs.start()
        expected = ["SUBMITTED", "IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED"]
        assert runs.statuses(run, 4) == expected

    def test_list_contains_immediate_runs_as_finished(
        self, server: DataZoneServer, transition: Callable[[dict[str, Any]], None]
    ) -> None:
        runs = Runs(server)
        transition({"progression": "immediate"})
        runs.start()
        assert [item["status"] for item in runs.list()] == ["SUCCEEDED"]

    def test_phases_take_the_requested_seconds(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        runs = Runs(server)
        server.set_run_outcome(submitted_seconds=10, in_progress_seconds=20)
        run = runs.start()
        seen = []
        for seconds in (0, 9, 1, 19, 1):
            clock(seconds)
            seen.append((runs.list()[0]["status"], runs.status(run)))
        expected = ["SUBMITTED", "SUBMITTED", "IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED"]
        assert seen == [(status, status) for status in expected]

    @pytest.mark.parametrize(
        ("polls", "expected"),
        [
            (0, ["SUCCEEDED", "SUCCEEDED"]),
            (1, ["SUCCEEDED", "SUCCEEDED"]),
            (3, ["IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED"]),
        ],
    )
    def test_run_finishes_after_the_requested_number_of_polls(
        self, server: DataZoneServer, polls: int, expected: list[str]
    ) -> None:
        runs = Runs(server)
        server.set_run_outcome(polls=polls)
        run = runs.start()
        assert runs.statuses(run, len(expected)) == expected

    @pytest.mark.parametrize(
        ("statuses", "expected"),
        [
            ("SUCCEEDED", "SUCCEEDED"),
            ("FAILED", "FAILED"),
            ("CANCELED", "CANCELED"),
            ({NAMES: "FAILED"}, "PARTIALLY_SUCCEEDED"),
            ({NAMES: "FAILED", DESCRIPTIONS: "CANCELED"}, "FAILED"),
            ({NAMES: "SUCCEEDED", DESCRIPTIONS: "CANCELED"}, "PARTIALLY_SUCCEEDED"),
        ],
    )
    def test_status_of_a_run_follows_from_its_types(
        self, datazone: DataZoneControls, statuses: Any, expected: str
    ) -> None:
        runs = Runs(datazone)
        datazone.set_run_outcome(statuses=statuses)
        run = runs.start()
        assert runs.statuses(run, 2)[-1] == expected
        by_type = {NAMES: statuses, DESCRIPTIONS: statuses} if isinstance(statuses, str) else statuses
        assert runs.stats(run) == {NAMES: "SUCCEEDED", DESCRIPTIONS: "SUCCEEDED", **by_type}

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            ("SUCCEEDED", ["SUCCEEDED", "SUCCEEDED"]),
            ("PARTIALLY_SUCCEEDED", ["SUCCEEDED", "FAILED"]),
            ("FAILED", ["FAILED", "FAILED"]),
            ("CANCELED", ["CANCELED", "CANCELED"]),
        ],
    )
    def test_types_follow_from_the_status_of_the_outcome(
        self, server: DataZoneServer, status: str, expected: list[str]
    ) -> None:
        runs = Runs(server)
        server.set_run_outcome(status=status, polls=0)
        run = runs.start()
        assert runs.status(run) == status
        assert list(runs.stats(run).values()) == expected

    @pytest.mark.parametrize("is_set", [False, True])
    def test_canceled_run_has_no_error_message_of_its_outcome(
        self, server: DataZoneServer, is_set: bool
    ) -> None:
        runs = Runs(server)
        server.set_run_outcome(statuses="FAILED", error_messages={NAMES: "monthly quota"})
        run = runs.start()
        if is_set:
            server.set_run_status(run, "CANCELED")
        else:
            runs.cancel(run)
        assert ["errorMessage" in stat for stat in runs.get(run)["typeStats"]] == [False, False]

    def test_error_messages_appear_when_the_run_is_finished(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(statuses={NAMES: "FAILED"}, error_messages={NAMES: "quota"})
        run = runs.start()
        assert ["errorMessage" in stat for stat in runs.get(run)["typeStats"]] == [False, False]
        finished = runs.get(run)["typeStats"]
        assert [stat.get("errorMessage") for stat in finished] == ["quota", None]

    def test_outcome_omits_type_stats(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(type_stats=False)
        run = runs.start()
        runs.status(run)
        response = runs.get(run)
        assert response["status"] == "SUCCEEDED"
        assert "typeStats" not in response

    def test_run_can_end_in_an_unpublished_status(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(status="PAUSED")
        run = runs.start()
        assert runs.statuses(run, 3) == ["IN_PROGRESS", "PAUSED", "PAUSED"]

    def test_set_run_status_pauses_the_progress_of_a_run(self, datazone: DataZoneControls) -> None:
        runs = Runs(datazone)
        run = runs.start()
        datazone.set_run_status(run, "PAUSED")
        assert runs.statuses(run, 3) == ["PAUSED"] * 3
        assert runs.list()[0]["status"] == "PAUSED"
        datazone.set_run_status(run, None)
        assert runs.statuses(run, 1)[-1] == "SUCCEEDED"

    def test_set_run_status_to_failed_fails_the_types(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        run = runs.start()
        server.set_run_status(run, "FAILED")
        assert runs.stats(run) == {NAMES: "FAILED", DESCRIPTIONS: "FAILED"}

    @pytest.mark.parametrize(
        ("statuses", "expected"),
        [
            (["FAILED", "IN_PROGRESS", None], ["SUCCEEDED", "SUCCEEDED"]),
            (["PARTIALLY_SUCCEEDED"], ["SUCCEEDED", "FAILED"]),
            (["CANCELED"], ["CANCELED", "CANCELED"]),
        ],
    )
    def test_types_agree_with_the_status_that_is_set(
        self, server: DataZoneServer, statuses: list[str | None], expected: list[str]
    ) -> None:
        runs = Runs(server)
        run = runs.start()
        for status in statuses:
            server.set_run_status(run, status)
        runs.statuses(run, 3)
        assert runs.status(run) == (statuses[-1] or "SUCCEEDED")
        assert list(runs.stats(run).values()) == expected

    def test_run_that_has_ended_keeps_the_status_that_was_set(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        run = runs.start()
        server.set_run_status(run, "FAILED")
        server.set_run_status(run, None)
        assert runs.status(run) == "FAILED"
        assert runs.stats(run) == {NAMES: "FAILED", DESCRIPTIONS: "FAILED"}

    def test_type_that_is_set_to_succeed_has_no_error_message(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(statuses="FAILED", error_messages={NAMES: "quota"})
        run = runs.start()
        server.set_run_status(run, "SUCCEEDED")
        stats = server.client().get_metadata_generation_run(
            domainIdentifier=runs.asset.domain_identifier, identifier=run
        )["typeStats"]
        assert [stat.get("errorMessage") for stat in stats] == [None, None]

    def test_outcome_of_an_asset_and_of_the_next_run_take_precedence(self, server: DataZoneServer) -> None:
        first = Runs(server)
        asset = server.create_asset(
            domain_identifier=first.asset.domain_identifier,
            project_identifier=first.asset.project_identifier,
        )
        second = Runs(server, asset)
        server.set_run_outcome(status="FAILED", times=None)
        server.set_run_outcome(asset.asset_identifier, status="SUCCEEDED", times=None)
        server.set_run_outcome(asset.asset_identifier, status="CANCELED", times=2)
        server.set_run_outcome(asset.asset_identifier, status="PARTIALLY_SUCCEEDED")
        ends = [second.status(second.finish()) for _ in range(5)]
        assert ends == ["CANCELED", "CANCELED", "PARTIALLY_SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]
        assert [first.status(first.finish()) for _ in range(2)] == ["FAILED", "FAILED"]

    def test_outcome_applies_to_the_next_successful_start(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(status="FAILED")
        with pytest.raises(ClientError):
            runs.start("NO_SUCH_TYPE")
        assert runs.status(runs.finish()) == "FAILED"

    def test_cancel_sets_the_status_of_a_run_and_its_types(self, datazone: DataZoneControls) -> None:
        runs = Runs(datazone)
        run = runs.start()
        runs.cancel(run)
        assert runs.status(run) == "CANCELED"
        assert runs.stats(run) == {NAMES: "CANCELED", DESCRIPTIONS: "CANCELED"}
        with pytest.raises(ClientError, match="in CANCELED status cannot be canceled"):
            runs.cancel(run)

    def test_cancel_detects_that_a_run_has_finished(
        self, server: DataZoneServer, clock: Callable[[float], None]
    ) -> None:
        runs = Runs(server)
        server.set_run_outcome(in_progress_seconds=5)
        run = runs.start()
        clock(5)
        with pytest.raises(ClientError, match="in SUCCEEDED status cannot be canceled"):
            runs.cancel(run)

    def test_same_client_token_returns_the_same_run(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        run = runs.start(clientToken="one")
        assert runs.start(clientToken="one") == run
        assert runs.start(clientToken="two") != run
        assert len(runs.list()) == 2
        # A client token is valid for one domain only.
        assert Runs(server).start(clientToken="one") != run

    def test_list_filters_by_status_type_and_target(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        other = Runs(
            server,
            server.create_asset(
                domain_identifier=runs.asset.domain_identifier,
                project_identifier=runs.asset.project_identifier,
            ),
        )
        names, both, elsewhere = runs.start(NAMES), runs.start(), other.start(DESCRIPTIONS)
        for run, status in ((names, "SUBMITTED"), (both, "IN_PROGRESS"), (elsewhere, "SUBMITTED")):
            server.set_run_status(run, status)

        def ids(**kwargs: str) -> list[str]:
            return [item["id"] for item in runs.list(**kwargs)]

        assert ids(status="SUBMITTED") == [names, elsewhere]
        assert ids(status="IN_PROGRESS") == [both]
        assert ids(type=DESCRIPTIONS) == [both, elsewhere]
        assert ids(targetIdentifier=other.asset.asset_identifier) == [elsewhere]
        assert ids(status="SUBMITTED", type=NAMES) == [names]

    def test_next_page_is_complete_after_runs_leave_the_filter(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        started = [runs.start() for _ in range(4)]
        request = {"domainIdentifier": runs.asset.domain_identifier, "status": "SUBMITTED"}
        first = runs.client.list_metadata_generation_runs(**request, maxResults=2)
        runs.status(started[1])
        runs.status(started[2])
        rest = runs.client.list_metadata_generation_runs(**request, nextToken=first["nextToken"])
        assert [item["id"] for item in rest["items"]] == [started[3]]

    def test_each_concurrent_get_advances_a_run_one_step(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        server.set_run_outcome(polls=20)
        run = runs.start()
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(lambda _: runs.status(run), range(40)))
        assert seen.count("IN_PROGRESS") == 19
        assert seen.count("SUCCEEDED") == 21

    def test_concurrent_starts_with_one_client_token_start_one_run(self, server: DataZoneServer) -> None:
        runs = Runs(server)
        with ThreadPoolExecutor(8) as pool:
            started = set(pool.map(lambda _: runs.start(clientToken="one"), range(16)))
        assert len(started) == 1
