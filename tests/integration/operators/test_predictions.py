"""Accepting and rejecting predictions, over HTTP: wrong input, and values that nobody else is to see."""

from __future__ import annotations

import logging
import traceback
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS
from botocore.exceptions import ClientError

from airflow_provider_datazone.exceptions import InvalidInputError, RequestRefusedError
from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneRejectPredictionsOperator,
)
from tests.integration.operators.refusals import check_refusal

if TYPE_CHECKING:
    from tests.conftest import Catalog

DECISIONS: dict[str, Any] = {
    "accept": DataZoneAcceptPredictionsOperator,
    "reject": DataZoneRejectPredictionsOperator,
}
VALUE = "Sales before tax, confidential until May"
VALUES = {
    "plain": VALUE,
    "lines": f"{VALUE}\nand another line\tof it",
    "quotes": f"\"{VALUE}\" \\ 'so far'",
    "pattern": f"{VALUE} (.*)[0-9]+$",
    "not printable": f"{VALUE} \x1b[31mÜmsätze\u2028",
    "long": f"{VALUE} " * 120,
}


class TaskInstance:
    """Stands for Airflow's, which runs in other tests; here only what the operator makes of it matters."""

    dag_id, run_id, task_id, map_index, try_number, max_tries = "dag", "run", "decide", -1, 1, 0

    def xcom_push(self, key: str, value: Any) -> None:
        """Forget what is for the link."""


def make_context(**changed: Any) -> Any:
    ti = TaskInstance()
    vars(ti).update(changed)
    return {"ti": ti, "dag_run": SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))}


def decide(catalog: Catalog, decision: str = "accept", **arguments: Any) -> Any:
    known = {
        "task_id": "decide",
        "asset_identifier": catalog.asset_identifier,
        "domain_identifier": catalog.domain_identifier,
        "aws_conn_id": "datazone_default",
        # botocore's own retries would only take their time.
        "botocore_config": {"retries": {"total_max_attempts": 1}},
    }
    operator = DECISIONS[decision](**known | arguments)
    # Airflow 2 keeps its logs from the root logger, Airflow 3 logs past the standard library, and an operator's
    # logger has another place in each.
    operator._log = operator._cached_logger = operator.hook._log = logging.getLogger("tests.decide")
    return operator


def edit(value: Any = VALUE, **more: Any) -> dict[str, Any]:
    return {"predictionTarget": "summary", "editedValue": value, **more}


@pytest.fixture
def predicted(catalog: Catalog) -> Catalog:
    """A catalog whose asset has predictions."""
    run = catalog.start_run(polls=0)
    catalog.server.client().get_metadata_generation_run(
        domainIdentifier=catalog.domain_identifier, identifier=run
    )
    return catalog


def requests_since(catalog: Catalog, before: int) -> list[str]:
    return [request.operation for request in catalog.server.requests[before:]]


# -------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("decision", "wrong", "message"),
    [
        ("accept", {"rule": "ALL", "threshold": 1.5}, "Member must have value less than or equal to 1"),
        ("reject", {"rule": "ALL", "threshold": 1.5}, "Member must have value less than or equal to 1"),
        ("accept", {"rule": "ALL", "threshold": -0.1}, "Member must have value greater than or equal to 0"),
        ("accept", {"rule": "SOME"}, "Member must satisfy enum value set: [ALL, NONE]"),
        ("accept", {"choices": []}, "A rule or at least one choice is required"),
        (
            "accept",
            {"choices": [{"predictionTarget": "no such field"}]},
            "There is no prediction 0 for target 'no such field'",
        ),
        ("accept", {"rule": "ALL", "asset_identifier": "unknownasset"}, "The given Asset doesn't exist."),
        ("reject", {"rule": "ALL", "asset_identifier": "unknownasset"}, "The given Asset doesn't exist."),
        ("accept", {"rule": "ALL", "domain_identifier": "dzd-unknown"}, "Domain dzd-unknown does not exist"),
        ("accept", {"rule": "ALL", "revision": "99"}, "The given Asset doesn't exist."),
        (
            "accept",
            {"rule": "ALL", "client_token": "x" * 129},
            "Member must have length less than or equal to 128",
        ),
    ],
)
def test_what_datazone_refuses_is_told_in_its_own_words_after_one_request(
    predicted: Catalog, decision: str, wrong: dict[str, Any], message: str
):
    operator = decide(predicted, decision, **wrong)
    before = len(predicted.server.requests)
    with pytest.raises(RequestRefusedError) as refused:
        operator.execute(make_context())
    check_refusal(refused.value, operator, message)
    assert requests_since(predicted, before) == [f"{decision.capitalize()}Predictions"]


@pytest.mark.parametrize(
    ("decision", "wrong", "message"),
    [
        ("accept", {}, "pass rule ('ALL' or 'NONE', with or without a threshold) or choices"),
        ("reject", {}, "pass rule ('ALL' or 'NONE', with or without a threshold) or choices"),
        ("accept", {"threshold": 0.5}, "pass rule"),
        (
            "accept",
            {"threshold": 0.5, "choices": [{"predictionTarget": "summary"}]},
            "threshold needs a rule",
        ),
        (
            "accept",
            {"rule": "ALL", "domain_identifier": None},
            "domain_identifier is required: pass it to the task",
        ),
        ("accept", {"choices": "[{'predictionTarget': 'summary'}]"}, "choices must be a list of dicts"),
        ("accept", {"choices": 1}, "choices must be a list of dicts"),
        ("accept", {"rule": "ALL", "threshold": "0.5"}, "threshold must be a number, got '0.5'"),
        # This botocore tells.
        ("accept", {"choices": [{}]}, "Missing required parameter"),
    ],
)
def test_what_cannot_be_sent_is_told_and_not_sent(
    predicted: Catalog, decision: str, wrong: dict[str, Any], message: str
):
    operator = decide(predicted, decision, **wrong)
    before = len(predicted.server.requests)
    with pytest.raises((InvalidInputError, RequestRefusedError)) as invalid:
        operator.execute(make_context())
    assert isinstance(invalid.value, AirflowFailException)
    assert message in str(invalid.value)
    assert str(invalid.value).isprintable(), "one line"
    assert requests_since(predicted, before) == []


def test_revision_that_is_not_the_latest_any_more_is_left_to_airflows_retries(predicted: Catalog):
    decide(predicted, choices=[{"predictionTarget": "summary"}]).execute(make_context())
    with pytest.raises(ClientError, match="Revision 1 is not the latest revision") as conflict:
        decide(predicted, rule="ALL", revision="1").execute(make_context())
    assert not isinstance(conflict.value, AirflowFailException)


# ------------------------------------------------------------- client token


def token_sent(catalog: Catalog, decision: str, context: Any, **arguments: Any) -> str:
    """Return the client token of a request that is lost: no decision is in the way of the next."""
    catalog.server.fail(f"{decision.capitalize()}Predictions", "InternalServerException")
    with pytest.raises(ClientError):
        decide(catalog, decision, **arguments).execute(context)
    token: str = catalog.server.requests[-1].parameters["clientToken"]
    return token


@pytest.mark.parametrize("decision", DECISIONS)
def test_client_token_belongs_to_one_decision_of_one_task_instance(predicted: Catalog, decision: str):
    rule = {"rule": "ALL", "threshold": 0.5}
    token = token_sent(predicted, decision, make_context(), **rule)
    assert token == token_sent(predicted, decision, make_context(try_number=2), **rule), "a retry"
    others = [
        token_sent(predicted, decision, make_context(max_tries=1), **rule),  # was cleared
        token_sent(predicted, decision, make_context(map_index=1), **rule),
        token_sent(predicted, decision, make_context(run_id="another"), **rule),
        token_sent(predicted, decision, make_context(), **rule | {"threshold": 0.6}),
        token_sent(predicted, decision, make_context(), **rule, revision="1"),
        token_sent(predicted, decision, make_context(), **rule, asset_identifier="another"),
        token_sent(
            predicted,
            decision,
            make_context(),
            choices=[edit()] if decision == "accept" else [{"predictionTarget": "name"}],
        ),
    ]
    assert len({token, *others}) == 1 + len(others)
    assert token_sent(predicted, decision, make_context(), **rule, client_token="mine") == "mine"


# ------------------------------------------------------------- edited value


def everything_told(error: BaseException) -> str:
    """Return what Airflow, or whoever catches an error, can read in it."""
    told = ["".join(traceback.format_exception(type(error), error, error.__traceback__))]
    seen: BaseException | None = error
    while seen is not None:
        told += [str(seen), repr(seen), repr(vars(seen))]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(told)


def check_untold(told: str, value: str = VALUE) -> None:
    for form in {value, repr(value)[1:-1], value.encode("unicode_escape").decode(), VALUE}:
        assert form not in told


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that is logged, but for botocore, which logs whole requests if it is told to."""
    caplog.set_level(logging.DEBUG)
    for name in ("botocore", "urllib3"):
        caplog.set_level(logging.INFO, name)
    return caplog


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *(("ValidationException", kind) for kind in VALUES),
        ("ConflictException", "plain"),
        ("InternalServerException", "plain"),
    ],
)
def test_edited_value_that_datazone_repeats_is_told_by_nobody(
    predicted: Catalog, log: pytest.LogCaptureFixture, code: str, kind: str
):
    value = VALUES[kind]
    message = f"Value '{value}' at 'acceptChoices.1.member.editedValue' is not {value}"
    predicted.server.fail("AcceptPredictions", code, message=message)
    with pytest.raises((RequestRefusedError, ClientError)) as refused:
        decide(predicted, choices=[edit(value)]).execute(make_context())
    assert "Value '***' at 'acceptChoices.1.member.editedValue' is not ***" in str(refused.value)
    check_untold(everything_told(refused.value), value)
    check_untold(log.text, value)


def test_edited_value_that_is_part_of_another_does_not_uncover_it(predicted: Catalog):
    predicted.server.fail("AcceptPredictions", "ValidationException", message=f"neither Sales nor {VALUE}")
    with pytest.raises(RequestRefusedError) as refused:
        decide(predicted, choices=[edit("Sales"), edit(predictionTarget="name")]).execute(make_context())
    assert VALUE.removeprefix("Sales") not in everything_told(refused.value)


@pytest.mark.parametrize("value", ["id", "Validation", "e"])
def test_edited_value_that_is_part_of_an_errors_code_does_not_change_what_the_error_is(
    predicted: Catalog, value: str
):
    predicted.server.fail("AcceptPredictions", "ValidationException")
    with pytest.raises(RequestRefusedError) as refused:
        decide(predicted, choices=[edit(value)]).execute(make_context())
    assert isinstance(refused.value.__cause__, ClientError)
    assert refused.value.__cause__.response["Error"]["Code"] == "ValidationException"
    assert refused.value.__cause__.response["ResponseMetadata"]["HTTPStatusCode"] == 400


@pytest.mark.parametrize(
    "choices",
    [
        f"[{edit()}]",
        [VALUE],
        [[VALUE]],
        [edit(), VALUE],
        edit(),
        [edit([VALUE])],
        [edit({"value": VALUE})],
        [edit(VALUE.encode())],
        [edit(), edit(4711)],
        [edit(), {"predictionTarget": None}],
        [edit(predictionChoice="first")],
        [edit(edited_value=VALUE)],
        [{"editedValue": VALUE}],
        [{"predictionTarget": "summary", "editedvalue": VALUE}],
        [edit(predictionTarget=1)],
    ],
    ids=lambda choices: str(choices).replace(VALUE, "VALUE"),
)
def test_edited_value_in_choices_that_cannot_be_sent_is_told_by_nobody(
    predicted: Catalog, log: pytest.LogCaptureFixture, choices: Any
):
    before = len(predicted.server.requests)
    with pytest.raises((InvalidInputError, RequestRefusedError)) as invalid:
        decide(predicted, choices=choices).execute(make_context())
    assert str(invalid.value).isprintable(), "one line"
    check_untold(everything_told(invalid.value))
    check_untold(log.text)
    assert requests_since(predicted, before) == []


@pytest.mark.parametrize("trouble", ["drop", "malformed", "AccessDeniedException", "ThrottlingException"])
def test_edited_value_is_told_by_no_other_failure(
    predicted: Catalog, log: pytest.LogCaptureFixture, trouble: str
):
    predicted.server.fail("AcceptPredictions", trouble)
    with pytest.raises(Exception, match=r".") as failed:
        decide(predicted, choices=[edit()]).execute(make_context())
    check_untold(everything_told(failed.value))
    check_untold(log.text)


def test_edited_value_that_is_no_part_of_a_rejection_is_told_by_nobody(
    predicted: Catalog, log: pytest.LogCaptureFixture
):
    with pytest.raises(RequestRefusedError, match="Unknown parameter") as refused:
        decide(predicted, "reject", choices=[edit()]).execute(make_context())
    check_untold(everything_told(refused.value))
    check_untold(log.text)


def test_edited_value_that_is_accepted_is_told_by_nobody(predicted: Catalog, log: pytest.LogCaptureFixture):
    decide(predicted, choices=[edit()]).execute(make_context())
    assert "is at revision 2" in log.text
    check_untold(log.text)


# ----------------------------------------------------- rendered in Airflow


def shown(operator: Any) -> str:
    """Return the choices as Airflow stores them for its UI, before a task is executed."""
    operator.render_template_fields({"value": operator_value(operator)})
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

        return str(_serialize_rendered_fields(operator)["choices"])
    from airflow.models.renderedtifields import get_serialized_template_fields
    from airflow.utils.log.secrets_masker import redact

    return str(redact(get_serialized_template_fields(operator)["choices"], "choices"))


def operator_value(operator: Any) -> str:
    return f"{VALUE} {operator.task_id}"


@pytest.mark.skipif(
    AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS, reason="Airflow 3.0 stores rendered fields as they are"
)
@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("template", [edit("{{ value }}")]),
        ("tuple", (edit("{{ value }}"),)),
        ("one of many", [{"predictionTarget": "name"}, edit("{{ value }}")]),
        ("list", [edit(["{{ value }}"])]),
        ("dict", [edit({"text": "{{ value }}"})]),
        ("not in a list", edit("{{ value }}")),
        ("not native", "{{ [{'predictionTarget': 'summary', 'editedValue': value}] }}"),
        ("cut off", [edit("{{ value }} at length" * 100)]),
        ("lines", [edit("{{ value }}\nand another line")]),
    ],
)
def test_edited_value_is_masked_where_airflow_shows_rendered_fields(
    catalog: Catalog, kind: str, choices: Any
):
    # One of its own each: what is masked is so for the whole process.
    operator = decide(catalog, task_id=kind.replace(" ", "_"), choices=choices)
    text = shown(operator)
    assert operator_value(operator) in str(operator.choices), "was rendered"
    assert operator_value(operator) not in text
    assert "***" in text
