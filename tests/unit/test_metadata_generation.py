"""Statuses, types and results of metadata generation runs."""

from __future__ import annotations

import json
import pickle
from datetime import datetime, timedelta, timezone
from typing import get_type_hints

import botocore.session
import pytest

from airflow_provider_datazone.exceptions import MetadataGenerationRunFailedError
from airflow_provider_datazone.metadata_generation import (
    ACTIVE_STATUSES,
    FAILURE_STATUSES,
    RUN_TYPES,
    SUCCESS_STATUSES,
    MetadataGenerationRun,
    TypeStat,
    judge,
    sanitize,
)

CREATED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
RESPONSE = {
    "domainId": "dzd_1234",
    "id": "run1",
    "target": {"type": "ASSET", "identifier": "asset1", "revision": "2"},
    "status": "PARTIALLY_SUCCEEDED",
    "types": ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
    "createdAt": CREATED_AT,
    "createdBy": "someone",
    "owningProjectId": "project1",
    "typeStats": [
        {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
        {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no names today"},
    ],
}


def run(status: str, **members: object) -> MetadataGenerationRun:
    return MetadataGenerationRun.from_response(
        {"domainId": "dzd_1234", "id": "run1", "status": status} | members
    )


def enum(shape: str) -> list[str]:
    return botocore.session.get_session().get_service_model("datazone").shape_for(shape).enum


def test_every_botocore_status_is_in_exactly_one_set():
    sets = [ACTIVE_STATUSES, SUCCESS_STATUSES, FAILURE_STATUSES]
    assert sorted(status for statuses in sets for status in statuses) == sorted(
        enum("MetadataGenerationRunStatus")
    )


def test_run_types_equal_those_of_botocore():
    assert sorted(RUN_TYPES) == sorted(enum("MetadataGenerationRunType"))


def test_type_stat_matches_the_botocore_shape():
    shape = (
        botocore.session.get_session()
        .get_service_model("datazone")
        .shape_for("MetadataGenerationRunTypeStat")
    )
    assert TypeStat.__required_keys__ == set(shape.required_members)
    assert get_type_hints(TypeStat) == dict.fromkeys(shape.members, str)


def test_run_is_parsed_from_a_get_response():
    parsed = MetadataGenerationRun.from_response(RESPONSE)
    assert parsed == MetadataGenerationRun(
        id="run1",
        domain_id="dzd_1234",
        status="PARTIALLY_SUCCEEDED",
        types=("BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"),
        type_stats=RESPONSE["typeStats"],
        asset_id="asset1",
        asset_revision="2",
        owning_project_id="project1",
        created_at=CREATED_AT,
        created_by="someone",
    )
    assert parsed.failures == [RESPONSE["typeStats"][1]]


def test_run_can_be_restored_from_json():
    parsed = MetadataGenerationRun.from_response(RESPONSE)
    restored = json.loads(json.dumps(parsed.to_dict()))
    assert restored == RESPONSE | {"createdAt": "2026-01-02T03:04:05+00:00"}
    assert MetadataGenerationRun.from_response(restored) == parsed


def test_missing_optional_members_stay_empty():
    parsed = run("SUCCEEDED")
    assert (parsed.types, parsed.type_stats, parsed.asset_id, parsed.created_at) == ((), [], None, None)
    assert parsed.to_dict() == {
        "domainId": "dzd_1234",
        "id": "run1",
        "status": "SUCCEEDED",
        "types": [],
        "typeStats": [],
    }


def test_deprecated_type_is_used_if_types_is_missing():
    assert run("SUBMITTED", type="BUSINESS_NAMES").types == ("BUSINESS_NAMES",)
    assert run("SUBMITTED", type="A", types=["A", "B"]).types == ("A", "B")


@pytest.mark.parametrize("missing", ["id", "domainId", "status"])
def test_response_without_a_required_member_raises(missing: str):
    with pytest.raises(ValueError, match=missing):
        MetadataGenerationRun.from_response({k: v for k, v in RESPONSE.items() if k != missing})


@pytest.mark.parametrize(
    ("status", "active", "terminal"),
    [
        ("SUBMITTED", True, False),
        ("IN_PROGRESS", True, False),
        ("SUCCEEDED", False, True),
        ("PARTIALLY_SUCCEEDED", False, True),
        ("FAILED", False, True),
        ("CANCELED", False, True),
        ("PAUSED", False, False),
    ],
)
def test_status_is_active_or_terminal_or_unknown(status: str, active: bool, terminal: bool):
    assert (run(status).is_active, run(status).is_terminal) == (active, terminal)


@pytest.mark.parametrize(
    ("status", "allow_partial_success", "succeeded"),
    [
        ("SUCCEEDED", True, True),
        ("SUCCEEDED", False, True),
        ("PARTIALLY_SUCCEEDED", True, True),
        ("PARTIALLY_SUCCEEDED", False, False),
        ("FAILED", True, False),
        ("CANCELED", True, False),
    ],
)
def test_judge_returns_success_by_status(status: str, allow_partial_success: bool, succeeded: bool):
    verdict = judge(run(status), allow_partial_success=allow_partial_success)
    assert verdict.succeeded is succeeded
    for part in ("'run1'", "'dzd_1234'", status):
        assert part in verdict.message


def test_verdict_message_is_one_line_with_the_reason_of_every_failed_type():
    message = judge(
        run(
            "FAILED",
            typeStats=[
                {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
                {
                    "type": "BUSINESS_NAMES",
                    "status": "FAILED",
                    "errorMessage": "quota\n[ERROR] forged \x1b[31m",
                },
                {"type": "BUSINESS_GLOSSARY_ASSOCIATIONS", "status": "CANCELED"},
            ],
        ),
        allow_partial_success=True,
    ).message
    assert message == (
        "Metadata generation run 'run1' in domain 'dzd_1234' ended FAILED: "
        r"BUSINESS_NAMES FAILED: quota\n[ERROR] forged \x1b[31m; "
        "BUSINESS_GLOSSARY_ASSOCIATIONS CANCELED: no reason given"
    )


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("SUCCEEDED", ""),
        ("PARTIALLY_SUCCEEDED", "; DataZone gave no reason"),
        ("FAILED", "; DataZone gave no reason"),
        ("CANCELED", "; DataZone gave no reason"),
    ],
)
def test_verdict_message_states_that_there_is_no_reason(status: str, reason: str):
    message = judge(run(status), allow_partial_success=True).message
    assert message == f"Metadata generation run 'run1' in domain 'dzd_1234' ended {status}{reason}"


@pytest.mark.parametrize(
    ("reason", "suffix"),
    [
        (
            "Business name generation has reached Monthly Quota",
            ". The account's monthly quota is used up: until it is renewed or raised, no run can do more",
        ),
        ("no names this month", ""),
    ],
)
def test_verdict_message_explains_a_used_up_quota(reason: str, suffix: str):
    stat = {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": reason}
    message = judge(run("FAILED", typeStats=[stat]), allow_partial_success=True).message
    assert message.endswith(f"ended FAILED: BUSINESS_NAMES FAILED: {reason}{suffix}")


@pytest.mark.parametrize("status", ["SUBMITTED", "IN_PROGRESS", "PAUSED"])
def test_judge_raises_for_a_run_that_has_not_ended(status: str):
    with pytest.raises(ValueError, match=status):
        judge(run(status), allow_partial_success=True)


def test_sanitize_keeps_printable_characters():
    assert sanitize("Größe 10 µm · 表") == "Größe 10 µm · 表"


@pytest.mark.parametrize(
    ("length", "sanitized"),
    [
        (None, "ab\\nd"),
        (5, "ab\\nd"),
        (4, "ab\\nd"),
        (3, "ab\\n… (1 more characters)"),
        (0, "… (4 more characters)"),
    ],
)
def test_sanitize_truncates_to_the_length_and_reports_the_rest(length: int | None, sanitized: str):
    assert sanitize("ab\nd", length=length) == sanitized


def test_pickled_error_keeps_its_run():
    failed = pickle.loads(pickle.dumps(MetadataGenerationRunFailedError("no", run("FAILED"))))
    assert (str(failed), failed.run.status) == ("no", "FAILED")


@pytest.mark.parametrize("response", [None, [], "run1", 5, {"id": 5, "domainId": [], "status": {}}])
def test_response_of_an_unexpected_type_raises(response: object):
    with pytest.raises(ValueError, match="id, domainId, status missing"):
        MetadataGenerationRun.from_response(response)


def test_members_of_an_unexpected_type_are_ignored():
    parsed = run(
        "FAILED",
        target="asset1",
        types=[None, {}, "BUSINESS_NAMES"],
        createdAt="yesterday",
        createdBy=5,
        owningProjectId=[],
        typeStats=[
            None,
            "FAILED",
            {},
            {"type": None, "status": ["FAILED"]},
            {"status": "FAILED", "errorMessage": 5},
            {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no"},
        ],
    )
    assert parsed.types == ("BUSINESS_NAMES",)
    assert parsed.type_stats == [
        {"status": "FAILED"},
        {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no"},
    ]
    assert (parsed.asset_id, parsed.created_at, parsed.created_by) == (None, None, None)
    assert not parsed.quota_used_up
    message = judge(parsed, allow_partial_success=True).message
    assert message.endswith(
        "ended FAILED: a type without a name FAILED: no reason given; BUSINESS_NAMES FAILED: no"
    )


@pytest.mark.parametrize("member", ["typeStats", "types", "target"])
@pytest.mark.parametrize("value", [5, True, "text", {"a": 1}, [[]]])
def test_list_or_object_of_an_unexpected_type_is_treated_as_missing(member: str, value: object):
    assert run("SUCCEEDED", **{member: value}) == run("SUCCEEDED")


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))]
)
def test_time_outside_the_range_of_datetime_in_utc_is_ignored(moment: object):
    assert "createdAt" not in run("FAILED", createdAt=moment).to_dict()


def test_stored_run_has_no_characters_that_databases_reject():
    parsed = run(
        "FAILED",
        createdBy="\ud800x",
        typeStats=[{"type": "A\0", "status": "FAILED", "errorMessage": "half\udc00 \U0001f600 and\n\0"}],
    )
    assert parsed.created_by == "\ufffdx"
    assert parsed.type_stats == [
        {"type": "A\ufffd", "status": "FAILED", "errorMessage": "half\ufffd \U0001f600 and\n\ufffd"}
    ]
    json.dumps(parsed.to_dict(), ensure_ascii=False).encode()


def test_run_members_that_are_logged_are_one_line():
    parsed = MetadataGenerationRun.from_response(
        {"domainId": "dzd_1\r", "id": "run1\n[ERROR] forged", "status": "\x1b[31mFAILED"}
    )
    assert (parsed.domain_id, parsed.id, parsed.status) == (
        r"dzd_1\r",
        r"run1\n[ERROR] forged",
        r"\x1b[31mFAILED",
    )


def test_verdict_message_has_a_limited_length():
    stat = {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": "no\n" * 100_000}
    parsed = run("FAILED", typeStats=[stat] * 1000)
    assert parsed.type_stats == [stat] * 1000
    message = judge(parsed, allow_partial_success=True).message
    assert len(message) < 40_000
    assert "more characters)" in message
    assert message.endswith("; and 990 more")
    few = run("FAILED", typeStats=[stat] * 10)
    assert not judge(few, allow_partial_success=True).message.endswith(" more")
