"""Numbers are accepted as identifiers and sent as text."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_datazone.batch.assets import parse_assets
from airflow_provider_datazone.exceptions import NotConfiguredError, RequestRefusedError
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.inputs import to_text
from tests.dags.lazy_inputs import TYPES
from tests.integration.inputs.rendering import accept_task, parameters_of, render
from tests.task_context import make_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog


def test_revision_rendered_as_a_number_is_sent_as_text(catalog: Catalog) -> None:
    catalog.server.fail("AcceptPredictions", "ValidationException")
    task = render(
        accept_task(catalog),
        "7",
        revision="{{ ti.xcom_pull('accept') }}",
        client_token="{{ 41 }}",
        rule="ALL",
    )
    assert (task.revision, task.client_token) == (7, 41), "native rendering returns numbers"
    with pytest.raises(RequestRefusedError):
        task.execute(make_context())
    (sent,) = parameters_of(catalog.server, "AcceptPredictions")
    assert (sent["revision"], sent["clientToken"]) == ("7", "41")


def test_numbers_are_sent_as_text_by_every_method_of_the_hook(datazone: DataZoneServer) -> None:
    hook: Any = DataZoneHook("datazone_default")
    domain = {"domain_identifier": 1}
    calls: list[Callable[[], Any]] = [
        lambda: hook.get_metadata_generation_run(2, run_type=3, **domain),
        lambda: hook.start_metadata_generation_run(
            2, types=TYPES, owning_project_identifier=3, asset_revision=4, client_token=5, **domain
        ),
        lambda: list(hook.list_metadata_generation_runs(asset_identifier=2, **domain)),
        lambda: hook.find_active_metadata_generation_run(2, types=TYPES, asset_revision=3, **domain),
        lambda: hook.cancel_metadata_generation_run(2, **domain),
        lambda: hook.accept_predictions(2, revision=3, client_token=4, rule="ALL", **domain),
        lambda: hook.reject_predictions(2, revision=3, client_token=4, rule="ALL", **domain),
        lambda: list(hook.search_assets(owning_project_identifier=2, **domain)),
    ]
    for number, call in enumerate(calls, start=1):
        # No resource exists. The test checks only the requests.
        with pytest.raises(Exception, match="domain '1'"):
            call()
        assert len(datazone.requests) == number
    for request in datazone.requests:
        parameters = {**request.parameters, **request.parameters.get("target", {})}
        numbers = {
            key: value for key, value in parameters.items() if type(value) is int and key != "maxResults"
        }
        assert numbers == {}, request


@pytest.mark.parametrize("value", [True, 1.0, ["a"], {"a": "b"}, b"a", Decimal(1)])
def test_identifier_of_another_type_raises_an_error(value: Any) -> None:
    with pytest.raises(NotConfiguredError, match="revision must be a string, got "):
        to_text("revision", value)


def test_batch_accepts_numbers_as_asset_identifiers() -> None:
    rows, duplicates = parse_assets(
        [1, "1", {"asset_identifier": 2, "asset_revision": 3, "owning_project_identifier": 4}], lambda: "p"
    )
    assert [row.key for row in rows] == [("1", None, "p"), ("2", "3", "4")]
    assert duplicates == 1


@pytest.mark.parametrize("item", [True, 1.5, None, " ", {"asset_identifier": "a", "asset_revision": 1.5}])
def test_invalid_batch_item_raises_an_error_that_names_its_position(item: Any) -> None:
    with pytest.raises(NotConfiguredError, match="Item 2 of asset_identifiers"):
        parse_assets(["a", item], lambda: "p")
