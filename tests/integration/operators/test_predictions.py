"""Accepting and rejecting predictions over HTTP: invalid arguments, client tokens and redaction of edited values."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS
from botocore.exceptions import ClientError

from airflow_provider_datazone.exceptions import InvalidInputError, RequestRefusedError
from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneGetPredictionsOperator,
    DataZoneRejectPredictionsOperator,
)
from tests.integration.operators.refusals import check_refusal
from tests.task_context import make_context

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


def decide(catalog: Catalog, decision: str = "accept", **arguments: Any) -> Any:
    defaults = {
        "task_id": "decide",
        "asset_identifier": catalog.asset_identifier,
        "domain_identifier": catalog.domain_identifier,
        "aws_conn_id": "datazone_default",
        # Retries of botocore would slow the tests down.
        "botocore_config": {"retries": {"total_max_attempts": 1}},
    }
    operator = DECISIONS[decision](**defaults | arguments)
    # Airflow 2 does not propagate logs to the root logger, and Airflow 3 bypasses the standard library. Each stores
    # an operator's logger in another attribute.
    operator._log = operator._cached_logger = operator.hook._log = logging.getLogger("tests.decide")
    return operator


def edit(value: Any = VALUE, **more: Any) -> dict[str, Any]:
    return {"predictionTarget": "summary", "editedValue": value, **more}


@pytest.fixture
def catalog_with_predictions(catalog: Catalog) -> Catalog:
    """Return a catalog whose asset has predictions."""
    run = catalog.start_run(polls=0)
    catalog.server.client().get_metadata_generation_run(
        domainIdentifier=catalog.domain_identifier, identifier=run
    )
    return catalog


@pytest.mark.parametrize("decision", list(DECISIONS))
@pytest.mark.parametrize("revision", [None, "1"])
def test_empty_choices_decide_nothing_and_return_the_revision(
    catalog_with_predictions: Catalog,
    decision: str,
    revision: str | None,
    caplog: pytest.LogCaptureFixture,
):
    before = len(catalog_with_predictions.server.requests)
    operator = decide(catalog_with_predictions, decision, choices=[], revision=revision)
    with caplog.at_level(logging.INFO):
        assert operator.execute(make_context()) == "1"
    assert requests_since(catalog_with_predictions, before) == ([] if revision else ["GetAsset"])
    assert f"choices is empty: there is nothing to {decision} for" in caplog.text


@pytest.mark.parametrize("choices", [{}, ()])
def test_only_an_empty_list_counts_as_empty_choices(catalog_with_predictions: Catalog, choices: Any):
    operator = decide(catalog_with_predictions, choices=choices)
    if choices == ():
        assert operator.execute(make_context()) == "1"
        return
    with pytest.raises(InvalidInputError, match="choices must be a list of dicts, got a dict"):
        operator.execute(make_context())


def test_predictions_come_with_the_revision_that_they_are_for(catalog_with_predictions: Catalog):
    catalog = catalog_with_predictions
    context = make_context()
    names = {"asset_identifier": catalog.asset_identifier, "domain_identifier": catalog.domain_identifier}
    read = DataZoneGetPredictionsOperator(task_id="read", aws_conn_id="datazone_default", **names)
    before = len(catalog.server.requests)
    assert read.execute(context)
    assert requests_since(catalog, before) == ["GetAsset"]
    revision = context["ti"].xcoms["revision"]
    assert revision == "1"
    # Another person changes the asset during the review.
    decide(catalog, choices=[{"predictionTarget": "name"}]).execute(make_context())
    with pytest.raises(ClientError, match="ConflictException"):
        decide(catalog, rule="ALL", revision=revision).execute(make_context(task_id="accept"))


def requests_since(catalog: Catalog, before: int) -> list[str]:
    return [request.operation for request in catalog.server.requests[before:]]


# ---------------------------------------------------------- invalid arguments


@pytest.mark.parametrize(
    ("decision", "arguments", "message"),
    [
        ("accept", {"rule": "ALL", "threshold": 1.5}, "Member must have value less than or equal to 1"),
        ("reject", {"rule": "ALL", "threshold": 1.5}, "Member must have value less than or equal to 1"),
        ("accept", {"rule": "ALL", "threshold": -0.1}, "Member must have value greater than or equal to 0"),
        ("accept", {"rule": "SOME"}, "Member must satisfy enum value set: [ALL, NONE]"),
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
def test_rejected_request_raises_the_datazone_message_without_retries(
    catalog_with_predictions: Catalog, decision: str, arguments: dict[str, Any], message: str
):
    operator = decide(catalog_with_predictions, decision, **arguments)
    before = len(catalog_with_predictions.server.requests)
    with pytest.raises(RequestRefusedError) as raised:
        operator.execute(make_context())
    check_refusal(raised.value, operator, message)
    assert requests_since(catalog_with_predictions, before) == [f"{decision.capitalize()}Predictions"]


@pytest.mark.parametrize(
    ("decision", "arguments", "message"),
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
        # botocore raises this error.
        ("accept", {"choices": [{}]}, "Missing required parameter"),
    ],
)
def test_invalid_arguments_raise_an_error_without_a_request(
    catalog_with_predictions: Catalog, decision: str, arguments: dict[str, Any], message: str
):
    operator = decide(catalog_with_predictions, decision, **arguments)
    before = len(catalog_with_predictions.server.requests)
    with pytest.raises((InvalidInputError, RequestRefusedError)) as raised:
        operator.execute(make_context())
    assert isinstance(raised.value, AirflowFailException)
    assert message in str(raised.value)
    assert str(raised.value).isprintable(), "no line breaks or control characters"
    assert requests_since(catalog_with_predictions, before) == []


def test_outdated_revision_raises_a_retryable_error(catalog_with_predictions: Catalog):
    decide(catalog_with_predictions, choices=[{"predictionTarget": "summary"}]).execute(make_context())
    with pytest.raises(ClientError, match="Revision 1 is not the latest revision") as conflict:
        decide(catalog_with_predictions, rule="ALL", revision="1").execute(make_context())
    assert not isinstance(conflict.value, AirflowFailException)


# ------------------------------------------------------------- client token


def token_sent(catalog: Catalog, decision: str, context: Any, **arguments: Any) -> str:
    """Return the client token of a request that fails, so that DataZone does not apply the decision."""
    catalog.server.fail(f"{decision.capitalize()}Predictions", "InternalServerException")
    with pytest.raises(ClientError):
        decide(catalog, decision, **arguments).execute(context)
    token: str = catalog.server.requests[-1].parameters["clientToken"]
    return token


@pytest.mark.parametrize("decision", DECISIONS)
def test_client_token_is_unique_per_decision_and_task_instance(
    catalog_with_predictions: Catalog, decision: str
):
    rule = {"rule": "ALL", "threshold": 0.5}
    token = token_sent(catalog_with_predictions, decision, make_context(), **rule)
    assert token == token_sent(catalog_with_predictions, decision, make_context(try_number=2), **rule), (
        "a retry sends the same token"
    )
    other_tokens = [
        token_sent(
            catalog_with_predictions, decision, make_context(max_tries=1), **rule
        ),  # The task was cleared.
        token_sent(catalog_with_predictions, decision, make_context(map_index=1), **rule),
        token_sent(catalog_with_predictions, decision, make_context(run_id="another"), **rule),
        token_sent(catalog_with_predictions, decision, make_context(), **rule | {"threshold": 0.6}),
        token_sent(catalog_with_predictions, decision, make_context(), **rule, revision="1"),
        token_sent(catalog_with_predictions, decision, make_context(), **rule, asset_identifier="another"),
        token_sent(
            catalog_with_predictions,
            decision,
            make_context(),
            choices=[edit()] if decision == "accept" else [{"predictionTarget": "name"}],
        ),
    ]
    assert len({token, *other_tokens}) == 1 + len(other_tokens)
    assert (
        token_sent(catalog_with_predictions, decision, make_context(), **rule, client_token="mine") == "mine"
    )


# ------------------------------------------------------------- edited value


def error_text(error: BaseException) -> str:
    """Return all text in an error and its causes, including tracebacks and attributes."""
    texts = ["".join(traceback.format_exception(type(error), error, error.__traceback__))]
    cause: BaseException | None = error
    while cause is not None:
        texts += [str(cause), repr(cause), repr(vars(cause))]
        # botocore's request has the body.
        texts += [
            repr(vars(attribute)) for attribute in vars(cause).values() if hasattr(attribute, "__dict__")
        ]
        cause = cause.__cause__ or cause.__context__
    return "\n".join(texts)


def check_redacted(text: str, value: str = VALUE) -> None:
    for form in {value, repr(value)[1:-1], value.encode("unicode_escape").decode(), VALUE}:
        assert form not in text


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Capture logs of all levels, except debug logs of botocore, which contain complete requests."""
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
def test_edited_value_in_a_datazone_message_is_redacted(
    catalog_with_predictions: Catalog, log: pytest.LogCaptureFixture, code: str, kind: str
):
    value = VALUES[kind]
    message = f"Value '{value}' at 'acceptChoices.1.member.editedValue' is not {value}"
    catalog_with_predictions.server.fail("AcceptPredictions", code, message=message)
    with pytest.raises((RequestRefusedError, ClientError)) as raised:
        decide(catalog_with_predictions, choices=[edit(value)]).execute(make_context())
    assert "Value '***' at 'acceptChoices.1.member.editedValue' is not ***" in str(raised.value)
    check_redacted(error_text(raised.value), value)
    check_redacted(log.text, value)


def test_edited_value_that_is_part_of_another_does_not_reveal_it(catalog_with_predictions: Catalog):
    catalog_with_predictions.server.fail(
        "AcceptPredictions", "ValidationException", message=f"neither Sales nor {VALUE}"
    )
    with pytest.raises(RequestRefusedError) as raised:
        decide(catalog_with_predictions, choices=[edit("Sales"), edit(predictionTarget="name")]).execute(
            make_context()
        )
    assert VALUE.removeprefix("Sales") not in error_text(raised.value)


@pytest.mark.parametrize("value", ["id", "Validation", "e"])
def test_edited_value_that_is_part_of_an_error_code_does_not_change_the_code(
    catalog_with_predictions: Catalog, value: str
):
    catalog_with_predictions.server.fail("AcceptPredictions", "ValidationException")
    with pytest.raises(RequestRefusedError) as raised:
        decide(catalog_with_predictions, choices=[edit(value)]).execute(make_context())
    assert isinstance(raised.value.__cause__, ClientError)
    assert raised.value.__cause__.response["Error"]["Code"] == "ValidationException"
    assert raised.value.__cause__.response["ResponseMetadata"]["HTTPStatusCode"] == 400


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
        [{"predictionTarget": [{"editedValue": VALUE}]}],
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
def test_edited_value_in_invalid_choices_is_redacted(
    catalog_with_predictions: Catalog, log: pytest.LogCaptureFixture, choices: Any
):
    before = len(catalog_with_predictions.server.requests)
    with pytest.raises((InvalidInputError, RequestRefusedError)) as raised:
        decide(catalog_with_predictions, choices=choices).execute(make_context())
    assert str(raised.value).isprintable(), "no line breaks or control characters"
    check_redacted(error_text(raised.value))
    check_redacted(log.text)
    assert requests_since(catalog_with_predictions, before) == []


@pytest.mark.parametrize("fault", ["drop", "malformed", "AccessDeniedException", "ThrottlingException"])
def test_edited_value_is_redacted_in_other_failures(
    catalog_with_predictions: Catalog, log: pytest.LogCaptureFixture, fault: str
):
    catalog_with_predictions.server.fail("AcceptPredictions", fault)
    with pytest.raises(Exception, match=r".") as failed:
        decide(catalog_with_predictions, choices=[edit()]).execute(make_context())
    check_redacted(error_text(failed.value))
    check_redacted(log.text)


def test_edited_value_passed_to_the_reject_operator_is_redacted(
    catalog_with_predictions: Catalog, log: pytest.LogCaptureFixture
):
    with pytest.raises(RequestRefusedError, match="Unknown parameter") as raised:
        decide(catalog_with_predictions, "reject", choices=[edit()]).execute(make_context())
    check_redacted(error_text(raised.value))
    check_redacted(log.text)


def test_accepted_edited_value_is_not_logged(
    catalog_with_predictions: Catalog, log: pytest.LogCaptureFixture
):
    decide(catalog_with_predictions, choices=[edit()]).execute(make_context())
    assert "is at revision 2" in log.text
    check_redacted(log.text)


# ---------------------------------------------------------- rendered fields


def rendered_choices(operator: Any) -> str:
    """Return the rendered choices that Airflow stores for its UI before it executes a task."""
    operator.render_template_fields({"value": secret_of(operator)})
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

        return str(_serialize_rendered_fields(operator)["choices"])
    from airflow.models.renderedtifields import get_serialized_template_fields
    from airflow.utils.log.secrets_masker import redact

    return str(redact(get_serialized_template_fields(operator)["choices"], "choices"))


def secret_of(operator: Any) -> str:
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
def test_edited_value_is_masked_in_rendered_fields(catalog: Catalog, kind: str, choices: Any):
    # Each case uses its own value, because Airflow masks a value for the rest of the process.
    operator = decide(catalog, task_id=kind.replace(" ", "_"), choices=choices)
    text = rendered_choices(operator)
    assert secret_of(operator) in str(operator.choices), "the template is rendered"
    assert secret_of(operator) not in text
    assert "***" in text
