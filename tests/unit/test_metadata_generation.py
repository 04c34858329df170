from __future__ import annotations

import json
import pickle
from datetime import datetime, timezone
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
    one_line,
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


def test_every_status_that_botocore_knows_is_in_exactly_one_set():
    sets = [ACTIVE_STATUSES, SUCCESS_STATUSES, FAILURE_STATUSES]
    assert sorted(status for statuses in sets for status in statuses) == sorted(
        enum("MetadataGenerationRunStatus")
    )


def test_run_types_are_those_that_botocore_knows():
    assert sorted(RUN_TYPES) == sorted(enum("MetadataGenerationRunType"))


def test_type_stat_is_what_botocore_knows_at_run_time_too():
    shape = (
        botocore.session.get_session()
        .get_service_model("datazone")
        .shape_for("MetadataGenerationRunTypeStat")
    )
    assert TypeStat.__required_keys__ == set(shape.required_members)
    assert get_type_hints(TypeStat) == dict.fromkeys(shape.members, str)


def test_run_is_read_from_an_answer_of_get():
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


def test_run_survives_json():
    parsed = MetadataGenerationRun.from_response(RESPONSE)
    travelled = json.loads(json.dumps(parsed.to_dict()))
    assert travelled == RESPONSE | {"createdAt": "2026-01-02T03:04:05+00:00"}
    assert MetadataGenerationRun.from_response(travelled) == parsed


def test_what_the_service_leaves_out_is_not_made_up():
    parsed = run("SUCCEEDED")
    assert (parsed.types, parsed.type_stats, parsed.asset_id, parsed.created_at) == ((), [], None, None)
    assert parsed.to_dict() == {
        "domainId": "dzd_1234",
        "id": "run1",
        "status": "SUCCEEDED",
        "types": [],
        "typeStats": [],
    }


def test_deprecated_type_stands_in_for_types():
    assert run("SUBMITTED", type="BUSINESS_NAMES").types == ("BUSINESS_NAMES",)
    assert run("SUBMITTED", type="A", types=["A", "B"]).types == ("A", "B")


@pytest.mark.parametrize("missing", ["id", "domainId", "status"])
def test_answer_without_a_required_member_is_no_run(missing: str):
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
def test_verdict(status: str, allow_partial_success: bool, succeeded: bool):
    verdict = judge(run(status), allow_partial_success=allow_partial_success)
    assert verdict.succeeded is succeeded
    for part in ("'run1'", "'dzd_1234'", status):
        assert part in verdict.message


def test_verdict_names_every_failed_type_with_its_reason_in_one_line():
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


@pytest.mark.parametrize("status", ["SUBMITTED", "IN_PROGRESS", "PAUSED"])
def test_run_that_has_not_ended_cannot_be_judged(status: str):
    with pytest.raises(ValueError, match=status):
        judge(run(status), allow_partial_success=True)


def test_one_line_keeps_what_is_printable():
    assert one_line("Größe 10 µm · 表") == "Größe 10 µm · 表"


def test_failure_keeps_its_run_over_pickling():
    failed = pickle.loads(pickle.dumps(MetadataGenerationRunFailedError("no", run("FAILED"))))
    assert (str(failed), failed.run.status) == ("no", "FAILED")
