"""Edited values are redacted from errors and masked in logs; short values only as whole words."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_datazone.exceptions import RequestRefusedError
from tests.integration.inputs.rendering import accept_task, render
from tests.integration.operators.test_predictions import decide
from tests.task_context import make_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Catalog


def edit(value: str) -> dict[str, Any]:
    return {"predictionTarget": "summary", "editedValue": value}


def get_masker() -> Callable[[str], str]:
    """Return the function with which Airflow masks secrets in a log line."""
    modules = (
        "airflow.sdk.log",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    )
    for name in modules:
        with suppress(ImportError, AttributeError):
            return importlib.import_module(name).redact
    raise AssertionError("Airflow has no masker")


def test_short_edited_values_are_not_masked_in_every_log_line(catalog: Catalog) -> None:
    redact = get_masker()
    values = [edit(value) for value in ("e", "is", "run", "Cash", "confidential figure")]
    render(accept_task(catalog), choices=values)
    render(accept_task(catalog), choices="name")
    line = "Metadata generation run is Cash, named confidential figure"
    assert redact(line) == "Metadata generation run is Cash, named ***"


def test_edited_values_in_a_lazy_sequence_are_masked(catalog: Catalog) -> None:
    secret = "Gross margin in a lazy sequence"
    task = render(accept_task(catalog), [secret], choices=lambda output: output.map(edit))
    assert task.choices == [edit(secret)]
    assert get_masker()(secret) == "***"


@pytest.mark.parametrize("value", ["First\nGross margin", "First\\Gross margin", """Gross "margin" isn't"""])
def test_edited_values_are_masked_in_the_repr_of_the_choices(catalog: Catalog, value: str) -> None:
    task = render(accept_task(catalog), choices=[edit(value)])
    assert "Gross" not in get_masker()(str(task.choices))


@pytest.mark.parametrize(
    ("value", "message", "expected"),
    [
        ("e", "Value 'e' at 'editedValue' is no sentence", "Value '***' at 'editedValue' is no sentence"),
        ("e", 'sent {"editedValue": "e"} here', 'sent {"editedValue": "***"} here'),
        ("e", 'sent {\\"editedValue\\": \\"e\\"} here', 'sent {\\"editedValue\\": \\"***\\"} here'),
        ("e", "sent &quot;e&quot; and &#x27;e&#x27; here", "sent &quot;***&quot; and &#x27;***&#x27; here"),
        ("1", "1 of 'choices.1.member' is 1", "1 of 'choices.1.member' is 1"),
        ("ed", "Value 'ed' edited to ed", "Value '***' edited to ***"),
        ("Cash", "Cash in Cashmere, not cash", "*** in Cashmere, not cash"),
        ("&&", "is && not &&&", "is *** not ***&"),
        ("Sales", "Sales in WholeSales", "*** in Whole***"),
    ],
)
def test_short_edited_value_is_redacted_as_a_whole_word(
    catalog: Catalog, value: str, message: str, expected: str
) -> None:
    catalog.server.fail("AcceptPredictions", "ValidationException", message=message)
    with pytest.raises(RequestRefusedError) as refused:
        decide(catalog, choices=[edit(value)]).execute(make_context())
    assert f": {expected} (asset {catalog.asset_identifier!r}" in str(refused.value)
