"""What users, templates and upstream tasks may pass, and what of it reaches DataZone; over HTTP."""

from __future__ import annotations

import enum
import hashlib
import importlib
import json
import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from botocore import UNSIGNED
from botocore.config import Config

from airflow_provider_datazone.batch import parse_assets
from airflow_provider_datazone.exceptions import InvalidInputError, NotConfiguredError, RequestRefusedError
from airflow_provider_datazone.hooks.datazone import DataZoneHook, is_permanent, is_transient
from airflow_provider_datazone.inputs import to_botocore_options, to_plain, to_text, to_verify
from airflow_provider_datazone.operators.datazone import (
    DataZoneAcceptPredictionsOperator,
    DataZoneBatchMetadataGenerationOperator,
    DataZoneGetMetadataGenerationRunOperator,
    DataZoneStartMetadataGenerationRunOperator,
)
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.submission import client_token, token_of
from airflow_provider_datazone.triggers.datazone import DataZoneMetadataGenerationRunTrigger
from tests.conftest import make_catalog
from tests.dags.lazy_inputs import CHOICES, TASKS, TYPES, dag as lazy_dag
from tests.integration.test_predictions import decide
from tests.integration.test_start_input import make_context, start
from tests.integration.test_trigger import events

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog


def parameters_of(server: DataZoneServer, operation: str) -> list[dict[str, Any]]:
    return [request.parameters for request in server.requests if request.operation == operation]


class TaskInstance:
    """Stands for Airflow's, which runs in other tests; here it is about what rendering makes of a template."""

    dag_id, run_id, task_id, map_index, try_number, max_tries = "dag", "run", "task", -1, 1, 0

    def __init__(self, upstream: Any = None) -> None:
        self.upstream = upstream
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def xcom_pull(self, *args: Any, **kwargs: Any) -> Any:
        return self.upstream

    def get_relevant_upstream_map_indexes(self, *args: Any, **kwargs: Any) -> None:
        """Airflow 2.11 asks; the upstream task is not mapped."""


def render(make: Callable[..., Any], upstream: Any = None, *, native: bool = True, **arguments: Any) -> Any:
    """Return an operator with its templates rendered, as Airflow does before each try."""
    with DAG("dag", schedule=None, render_template_as_native_obj=native):
        if upstream is not None:
            source = DataZoneGetMetadataGenerationRunOperator(task_id="upstream", run_identifier="run1")
            arguments = {
                name: value(source.output) if callable(value) else value for name, value in arguments.items()
            }
        operator = make(**arguments)
    context = {"ti": TaskInstance(upstream), "params": {"nothing": None, "empty": ""}}
    # Airflow 2.11 asks for the last one.
    operator.render_template_fields(context | {"expanded_ti_count": None})
    return operator


# --------------------------------------------------------- lazy sequences


@pytest.fixture(scope="module")
def lazy_requests(datazone_server: DataZoneServer, airflow_database: None) -> dict[str, list[dict[str, Any]]]:
    """Run tasks with lazy arguments in real Airflow, each of which loses its first answer."""
    server = datazone_server
    server.reset()
    catalog = make_catalog(server)
    where = {
        "domain_identifier": catalog.domain_identifier,
        "project_identifier": catalog.project_identifier,
    }
    assets = {name: server.create_asset(**where).asset_identifier for name in TASKS}
    for name, asset in assets.items():
        if name.startswith("accept"):
            server.set_run_outcome(asset, polls=0)
            run = server.client().start_metadata_generation_run(
                domainIdentifier=catalog.domain_identifier,
                owningProjectIdentifier=catalog.project_identifier,
                target={"type": "ASSET", "identifier": asset},
                types=TYPES,
            )["id"]
            server.client().get_metadata_generation_run(
                domainIdentifier=catalog.domain_identifier, identifier=run
            )
        else:
            # Ends at once: a retry finds no active run, and sends its token again.
            server.set_run_outcome(asset, submitted_seconds=0, in_progress_seconds=0, times=None)
    for asset in assets.values():
        for operation in ("StartMetadataGenerationRun", "AcceptPredictions"):
            server.fail(operation, "drop", after=True, asset_identifier=asset)
    before = len(server.requests)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", server.connection)
        if AIRFLOW_V_3_0_PLUS:
            from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor

            # Each try would have a client of its own, which reads the whole DAG again.
            client = cache(partial(InProcessTestSupervisor._api_client, lazy_dag))
            monkeypatch.setattr(InProcessTestSupervisor, "_api_client", lambda dag=None: client())
        dag_run = lazy_dag.test(run_conf=where | {"assets": assets})
    assert str(dag_run.state) == "success"
    sent: dict[str, list[dict[str, Any]]] = {name: [] for name in assets}
    for request in server.requests[before:]:
        for name, asset in assets.items():
            asked = (
                request.parameters.get("identifier"),
                request.parameters.get("target", {}).get("identifier"),
            )
            if asset in asked and "clientToken" in request.parameters:
                sent[name].append(request.parameters)
    return sent


@pytest.mark.parametrize("name", TASKS)
def test_retry_of_a_task_with_lazy_arguments_sends_the_same_request(
    lazy_requests: dict[str, list[dict[str, Any]]], name: str
) -> None:
    first, second = lazy_requests[name]
    assert first == second
    expected = {"types": TYPES} if name.startswith("start") else {"acceptChoices": CHOICES}
    assert first.items() >= expected.items()


def test_lazy_types_have_the_token_of_a_list(catalog: Catalog) -> None:
    """A task that is under way when the package is upgraded repeats the token that it has sent."""
    known = {
        "task_id": "start",
        "asset_identifier": catalog.asset_identifier,
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
        "aws_conn_id": "datazone_default",
        "wait_for_completion": False,
    }
    for types in (TYPES, tuple(TYPES), lambda output: output.map(str.upper)):
        render(
            DataZoneStartMetadataGenerationRunOperator, [t.lower() for t in TYPES], types=types, **known
        ).execute(make_context())
    tokens = {sent["clientToken"] for sent in parameters_of(catalog.server, "StartMetadataGenerationRun")}
    request = [
        catalog.asset_identifier,
        TYPES,
        catalog.domain_identifier,
        catalog.project_identifier,
        None,
    ]
    fingerprint = hashlib.sha256(json.dumps(request).encode()).hexdigest()
    parts = ["dag", "run", "start", -1, "2026-01-01T00:00:00+00:00", 0, [fingerprint, 1]]
    assert tokens == {f"airflow-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"}


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"types", datetime(2026, 1, 1, tzinfo=timezone.utc), [object()]]
)
def test_token_is_not_made_of_a_value_without_json(value: Any) -> None:
    with pytest.raises(ValueError, match="can only be made of JSON") as refused:
        token_of(value)
    assert "0x" not in str(refused.value), "no memory address"
    with pytest.raises(NotConfiguredError):
        client_token(make_context(), value)


class Kind(str, enum.Enum):
    NAMES = "BUSINESS_NAMES"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (("a", ["b"]), ["a", ["b"]]),
        ({"b", "a"}, ["a", "b"]),
        ([Kind.NAMES], ["BUSINESS_NAMES"]),
        (iter(["a"]), ["a"]),
        ({"a": ("b", Decimal("0.5"), True, None)}, {"a": ["b", 0.5, True, None]}),
        ({"a": 1}.keys(), ["a"]),
        (" ", None),
    ],
)
def test_sequences_and_mappings_become_lists_and_dicts(value: Any, plain: Any) -> None:
    found = to_plain("types", value)
    assert json.dumps(found) == json.dumps(plain)
    assert all(type(item) is not Kind for item in found or ())


@pytest.mark.parametrize("value", [object(), b"secret", {1: "secret"}, [float("nan")], timedelta(1)])
def test_value_that_is_not_plain_is_refused_without_being_shown(value: Any) -> None:
    with pytest.raises(NotConfiguredError, match=r"^choices ") as refused:
        to_plain("choices", value)
    assert "secret" not in str(refused.value)


def test_batch_of_lazy_assets_and_types_is_the_batch_of_lists(catalog: Catalog) -> None:
    batch = render(
        DataZoneBatchMetadataGenerationOperator,
        [catalog.asset_identifier],
        task_id="batch",
        asset_identifiers=lambda output: output.map(lambda asset: asset),
        types=lambda output: output.map(lambda asset: "BUSINESS_NAMES"),
        domain_identifier=catalog.domain_identifier,
        owning_project_identifier=catalog.project_identifier,
        aws_conn_id="datazone_default",
        deferrable=True,
    )
    context = make_context()
    with pytest.raises(TaskDeferred) as deferred:
        batch.execute(context)
    arguments = json.loads(json.dumps(deferred.value.trigger.serialize()[1]))
    assert arguments["types"] == ["BUSINESS_NAMES"]
    request = [catalog.domain_identifier, ["BUSINESS_NAMES"]]
    assert arguments["identity"] == client_token(context, request)


# ------------------------------------------------------ rendered to nothing


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, datazone: DataZoneServer) -> Callable[..., None]:
    def define(connection_id: str = "mine", conn_type: str = "awsdatazone", **extra: Any) -> None:
        connection = {"conn_type": conn_type, "login": "AKIA", "password": "password", "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{connection_id.upper()}", json.dumps(connection))

    return define


NOTHING = ["", " ", "\n"]


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_empty_argument_does_not_hide_the_connections(
    mine: Callable[..., None], conn_type: str, nothing: str
) -> None:
    mine(conn_type=conn_type, region_name="eu-west-1", verify=False)
    hook = DataZoneHook("mine", region_name=nothing, verify=nothing)
    assert (hook.region_name, hook.verify) == ("eu-west-1", False)


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("conn_type", ["aws", "awsdatazone"])
def test_empty_value_in_a_connection_is_not_set(
    mine: Callable[..., None], datazone: DataZoneServer, conn_type: str, nothing: str
) -> None:
    mine(
        conn_type=conn_type,
        region_name=nothing,
        verify=nothing,
        service_config={"datazone": {"endpoint_url": "", "domain_identifier": nothing}},
        endpoint_url=datazone.endpoint_url,
    )
    hook = DataZoneHook("mine", region_name="us-east-1")
    assert hook.verify is None
    assert hook.conn.meta.endpoint_url == datazone.endpoint_url
    assert DataZoneHook("mine").region_name is None
    with pytest.raises(NotConfiguredError, match="No domain identifier is known"):
        hook.resolve_domain_identifier(nothing)


@pytest.mark.parametrize(
    ("given", "verify"),
    [
        ("True", True),
        ("true", True),
        ("FALSE", False),
        (" False ", False),
        (True, True),
        (False, False),
        (None, None),
    ]
    + [(nothing, None) for nothing in NOTHING]
    + [(Path("/ca.pem"), "/ca.pem"), ("/False", "/False")],
)
def test_verify_may_be_a_word(mine: Callable[..., None], given: Any, verify: Any) -> None:
    assert to_verify(given) == verify
    mine(region_name="us-east-1", verify=str(given) if isinstance(given, Path) else given)
    assert DataZoneHook("mine").verify == verify
    task = DataZoneGetMetadataGenerationRunOperator(task_id="get", run_identifier="run1", verify=given)
    assert task._hook_parameters["verify"] == verify


@pytest.mark.parametrize("given", [0, 1, 0.5, [], {"a": 1}])
def test_verify_of_another_kind_is_refused(mine: Callable[..., None], given: Any) -> None:
    mine(region_name="us-east-1", verify=given)
    with pytest.raises(NotConfiguredError, match="verify must be True, False or the path"):
        DataZoneHook("mine").conn  # noqa: B018
    with pytest.raises(NotConfiguredError, match="verify must be True, False or the path"):
        DataZoneHook(verify=given)


@pytest.mark.parametrize(
    "make",
    [
        partial(DataZoneGetMetadataGenerationRunOperator, run_identifier="run1"),
        partial(DataZoneMetadataGenerationRunSensor, run_identifier="run1"),
    ],
    ids=["operator", "sensor"],
)
@pytest.mark.parametrize(
    ("given", "native", "connection"),
    [
        (None, True, None),
        ("", True, "aws_default"),
        ("{{ params.empty }}", False, "aws_default"),
        ("{{ params.empty }}", True, "aws_default"),
        ("{{ params.nothing }}", True, "aws_default"),
        # As text, this is the name of a connection, which is not defined.
        ("{{ params.nothing }}", False, "None"),
        ("{{ 123 }}", True, "123"),
    ],
)
def test_only_none_itself_asks_for_the_identity_of_the_machine(
    make: Any, given: Any, native: bool, connection: str | None
) -> None:
    task = render(make, native=native, task_id="task", aws_conn_id=given)
    assert task.hook.aws_conn_id == connection
    trigger = DataZoneMetadataGenerationRunTrigger.for_task(
        task, run_identifier="run1", domain_identifier="dzd-1"
    )
    assert trigger.aws_conn_id == connection


def test_trigger_of_an_earlier_version_may_have_empty_arguments(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", catalog.server.connection)
    run = catalog.start_run("BUSINESS_NAMES", polls=0)
    trigger = DataZoneMetadataGenerationRunTrigger(
        run,
        catalog.domain_identifier,
        run_type="",
        poll_interval=0.001,
        aws_conn_id="",
        region_name="",
        verify="",
    )
    (event,) = events(trigger)
    assert (event["status"], event["run"]["id"]) == ("terminal", run)


@pytest.mark.parametrize("nothing", [*NOTHING, None])
def test_empty_identifiers_are_not_sent(catalog: Catalog, nothing: str | None) -> None:
    start(catalog, client_token=nothing, asset_revision=nothing, wait_for_completion=False).execute(
        make_context()
    )
    (sent,) = parameters_of(catalog.server, "StartMetadataGenerationRun")
    assert sent["clientToken"].startswith("airflow-")
    assert "revision" not in sent["target"]
    hook = DataZoneHook("datazone_default")
    (run,) = hook.list_metadata_generation_runs(
        domain_identifier=catalog.domain_identifier,
        status=nothing,
        run_type=nothing,
        asset_identifier=nothing,
    )
    hook.get_metadata_generation_run(run.id, domain_identifier=catalog.domain_identifier, run_type=nothing)
    (got,) = parameters_of(catalog.server, "GetMetadataGenerationRun")
    assert "type" not in got


@pytest.mark.parametrize("nothing", [*NOTHING, None])
def test_empty_choices_leave_the_decision_to_the_rule(catalog: Catalog, nothing: str | None) -> None:
    catalog.server.fail("AcceptPredictions", "ValidationException")
    with pytest.raises(RequestRefusedError):
        decide(catalog, rule="ALL", choices=nothing, revision=nothing).execute(make_context())
    (sent,) = parameters_of(catalog.server, "AcceptPredictions")
    assert "acceptChoices" not in sent
    assert "revision" not in sent
    with pytest.raises(InvalidInputError, match="pass rule"):
        decide(catalog, rule=nothing, choices=nothing).execute(make_context())


@pytest.mark.parametrize("nothing", [*NOTHING, None])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (DataZoneGetMetadataGenerationRunOperator, "run_identifier"),
        (DataZoneMetadataGenerationRunSensor, "run_identifier"),
        (partial(DataZoneAcceptPredictionsOperator, rule="ALL"), "asset_identifier"),
        (
            partial(
                DataZoneStartMetadataGenerationRunOperator, types=TYPES, owning_project_identifier="project1"
            ),
            "asset_identifier",
        ),
    ],
)
def test_identifier_that_is_needed_is_named(
    datazone: DataZoneServer, make: Any, name: str, nothing: str | None
) -> None:
    task = make(task_id="task", domain_identifier="dzd-1", aws_conn_id="datazone_default", **{name: nothing})
    with pytest.raises(InvalidInputError, match=f"{name} is required.*Did its template render to nothing"):
        task.execute(make_context())
    assert datazone.requests == []


# --------------------------------------------------- numbers as identifiers


def test_native_rendering_may_make_a_number_of_a_revision(catalog: Catalog) -> None:
    catalog.server.fail("AcceptPredictions", "ValidationException")
    task = render(
        decide_task(catalog),
        "7",
        revision="{{ ti.xcom_pull('accept') }}",
        client_token="{{ 41 }}",
        rule="ALL",
    )
    assert (task.revision, task.client_token) == (7, 41), "is rendered as a number"
    with pytest.raises(RequestRefusedError):
        task.execute(make_context())
    (sent,) = parameters_of(catalog.server, "AcceptPredictions")
    assert (sent["revision"], sent["clientToken"]) == ("7", "41")


def decide_task(catalog: Catalog) -> Callable[..., Any]:
    return partial(
        DataZoneAcceptPredictionsOperator,
        task_id="decide",
        asset_identifier=catalog.asset_identifier,
        domain_identifier=catalog.domain_identifier,
        aws_conn_id="datazone_default",
    )


def test_numbers_are_sent_as_text_by_every_method_of_the_hook(datazone: DataZoneServer) -> None:
    hook: Any = DataZoneHook("datazone_default")
    where = {"domain_identifier": 1}
    calls: list[Callable[[], Any]] = [
        lambda: hook.get_metadata_generation_run(2, run_type=3, **where),
        lambda: hook.start_metadata_generation_run(
            2, types=TYPES, owning_project_identifier=3, asset_revision=4, client_token=5, **where
        ),
        lambda: list(hook.list_metadata_generation_runs(asset_identifier=2, **where)),
        lambda: hook.find_active_metadata_generation_run(2, types=TYPES, asset_revision=3, **where),
        lambda: hook.cancel_metadata_generation_run(2, **where),
        lambda: hook.accept_predictions(2, revision=3, client_token=4, rule="ALL", **where),
        lambda: hook.reject_predictions(2, revision=3, client_token=4, rule="ALL", **where),
        lambda: list(hook.search_assets(owning_project_identifier=2, **where)),
    ]
    for number, call in enumerate(calls, start=1):
        # None of them is there; it is about what is asked.
        with pytest.raises(Exception, match="domain '1'"):
            call()
        assert len(datazone.requests) == number
    for request in datazone.requests:
        told = {**request.parameters, **request.parameters.get("target", {})}
        numbers = {key: value for key, value in told.items() if type(value) is int and key != "maxResults"}
        assert numbers == {}, request


@pytest.mark.parametrize("wrong", [True, 1.0, ["a"], {"a": "b"}, b"a", Decimal(1)])
def test_other_kinds_are_no_identifiers(wrong: Any) -> None:
    with pytest.raises(NotConfiguredError, match="revision must be a text, got "):
        to_text("revision", wrong)


def test_assets_of_a_batch_may_be_numbers() -> None:
    rows, duplicates = parse_assets(
        [1, "1", {"asset_identifier": 2, "asset_revision": 3, "owning_project_identifier": 4}], lambda: "p"
    )
    assert [row.key for row in rows] == [("1", None, "p"), ("2", "3", "4")]
    assert duplicates == 1


@pytest.mark.parametrize("item", [True, 1.5, None, " ", {"asset_identifier": "a", "asset_revision": 1.5}])
def test_item_of_a_batch_that_is_no_asset_is_named(item: Any) -> None:
    with pytest.raises(NotConfiguredError, match="Item 2 of asset_identifiers"):
        parse_assets(["a", item], lambda: "p")


# ---------------------------------------------------- TLS and botocore's options


def bundles(folder: Path) -> dict[str, str]:
    certificates = Path(certifi.where()).read_text()
    texts = {
        "empty": "",
        "no certificates": "hello",
        "damaged": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "cut off": certificates[: certificates.index("-----END") - 100],
    }
    made = {}
    for name, text in texts.items():
        file = folder / f"{name}.pem"
        file.write_text(text)
        made[name] = str(file)
    return made | {
        "missing": str(folder / "missing.pem"),
        "directory": str(folder),
        "below a file": f"{folder}/empty.pem/ca.pem",
        "too long": "x" * 300,
        "not a path": "ca\0.pem",
    }


BUNDLES = (
    "empty",
    "no certificates",
    "damaged",
    "cut off",
    "missing",
    "directory",
    "below a file",
    "too long",
    "not a path",
)


@pytest.mark.parametrize("kind", BUNDLES)
@pytest.mark.parametrize("deferrable", [False, True])
def test_ca_bundle_that_cannot_be_read_ends_a_wait_at_once(
    catalog: Catalog, tmp_path: Path, kind: str, deferrable: bool
) -> None:
    path = bundles(tmp_path)[kind]
    before = len(catalog.server.requests)
    sensor = DataZoneMetadataGenerationRunSensor(
        task_id="wait",
        run_identifier="run1",
        domain_identifier=catalog.domain_identifier,
        aws_conn_id="datazone_default",
        verify=path,
        deferrable=deferrable,
        timeout=5,
        poke_interval=1,
    )
    for task in (sensor, start(catalog, verify=path, deferrable=deferrable)):
        with pytest.raises(
            InvalidInputError, match=r"verify must be the path of a file with certificates"
        ) as wrong:
            task.execute(make_context())
        assert repr(path)[1:-1][:190] in str(wrong.value)
    trigger = DataZoneMetadataGenerationRunTrigger(
        "run1",
        catalog.domain_identifier,
        poll_interval=0.001,
        aws_conn_id="datazone_default",
        verify=path,
    )
    (event,) = events(trigger)
    assert (event["status"], event["permanent"]) == ("error", True)
    assert catalog.server.requests[before:] == []


@pytest.mark.parametrize("kind", [kind for kind in BUNDLES if kind != "not a path"])
@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_ca_bundle_of_the_environment_that_cannot_be_read_is_permanent(
    datazone: DataZoneServer,
    mine: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, bundles(tmp_path)[kind])
    mine(
        region_name="us-east-1",
        endpoint_url=datazone.endpoint_url.replace("http:", "https:"),
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(
        NotConfiguredError, match=rf"TLS certificates cannot be used.*{variable}.*run 'run1'"
    ) as wrong:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd-1")
    assert is_permanent(wrong.value)
    assert not is_transient(wrong.value)


def test_broken_handshake_is_still_transient(datazone: DataZoneServer, mine: Callable[..., None]) -> None:
    mine(
        region_name="us-east-1",
        # It does not speak TLS.
        endpoint_url=datazone.endpoint_url.replace("http:", "https:"),
        verify=certifi.where(),
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(Exception, match=r"WRONG_VERSION_NUMBER") as broken:
        DataZoneHook("mine").get_metadata_generation_run("run1", domain_identifier="dzd-1")
    assert is_transient(broken.value)


@pytest.mark.parametrize("client_cert", ["missing.pem", ["missing.pem", "missing.key"]])
def test_client_certificate_that_cannot_be_read_is_permanent(
    datazone: DataZoneServer, mine: Callable[..., None], client_cert: Any
) -> None:
    mine(region_name="us-east-1")
    hook = DataZoneHook("mine", config={"client_cert": client_cert})
    with pytest.raises(NotConfiguredError, match=r"client_cert in botocore_config must be .*'missing\.pem'"):
        hook.get_metadata_generation_run("run1", domain_identifier="dzd-1")


CONFIG = {"retries": {"total_max_attempts": 1}, "read_timeout": 7, "user_agent_extra": "mine"}


@pytest.mark.parametrize("config", [CONFIG, Config(**CONFIG)], ids=["dict", "Config"])
@pytest.mark.parametrize("kind", ["start", "sensor", "batch"])
def test_botocore_config_may_be_an_object_where_a_task_is_deferred(
    catalog: Catalog, kind: str, config: Any
) -> None:
    where = {
        "task_id": kind,
        "domain_identifier": catalog.domain_identifier,
        "aws_conn_id": "datazone_default",
        "botocore_config": config,
        "deferrable": True,
    }
    if kind == "start":
        catalog.server.set_run_outcome(in_progress_seconds=3600)
        task: Any = start(catalog, **where)
    elif kind == "sensor":
        run = catalog.start_run(in_progress_seconds=3600)
        task = DataZoneMetadataGenerationRunSensor(run_identifier=run, **where)
    else:
        task = DataZoneBatchMetadataGenerationOperator(
            asset_identifiers=[catalog.asset_identifier],
            types=TYPES,
            owning_project_identifier=catalog.project_identifier,
            **where,
        )
    assert task.hook.config.read_timeout == 7
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(make_context())
    arguments = json.loads(json.dumps(deferred.value.trigger.serialize()[1]))
    assert arguments["botocore_config"] == CONFIG


def test_batch_in_a_worker_takes_a_botocore_config_object(catalog: Catalog) -> None:
    summary = DataZoneBatchMetadataGenerationOperator(
        task_id="batch",
        asset_identifiers=[catalog.asset_identifier],
        types=["BUSINESS_NAMES"],
        owning_project_identifier=catalog.project_identifier,
        domain_identifier=catalog.domain_identifier,
        aws_conn_id="datazone_default",
        botocore_config=Config(read_timeout=7),  # type: ignore[arg-type]
        poll_interval=0.01,
    ).execute(make_context())
    assert summary["succeeded"] == 1


def test_requests_without_a_signature_can_be_configured_in_json(datazone: DataZoneServer) -> None:
    options = to_botocore_options(Config(signature_version=UNSIGNED))
    assert options == {"signature_version": "unsigned"}
    assert DataZoneHook("datazone_default", config=options).config.signature_version is UNSIGNED


@pytest.mark.parametrize(
    "wrong",
    [
        {"botocore_config": "read_timeout=7"},
        {"botocore_config": [7]},
        {"botocore_config": {"read_timeout": timedelta(7)}},
        {"botocore_config": {"read_timout": 7}},
        {"botocore_config": Config(client_context_params={"a": object()})},
        {"poll_interval": timedelta(seconds=30)},
        {"poll_interval": Decimal(30)},
        {"poll_interval": "30"},
        {"cancel_on_kill": "False"},
        {"cancel_on_kill": None},
        {"allow_partial_success": "no"},
        {"verify": ["ca.pem"]},
        {"region_name": ["us-east-1"]},
        {"aws_conn_id": ["datazone_default"]},
        {"types": [object()]},
        {"types": [1]},
        {"types": {"BUSINESS_NAMES": 1}},
        {"asset_revision": 1.5},
    ],
    ids=lambda wrong: re.sub(r" at 0x[0-9a-f]+", "", str(wrong)),
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_argument_that_cannot_be_used_is_refused_before_a_run_is_started(
    catalog: Catalog, wrong: dict[str, Any], deferrable: bool
) -> None:
    known = {
        "task_id": "start",
        "asset_identifier": catalog.asset_identifier,
        "types": ["BUSINESS_NAMES"],
        "domain_identifier": catalog.domain_identifier,
        "owning_project_identifier": catalog.project_identifier,
        "aws_conn_id": "datazone_default",
    }
    task = DataZoneStartMetadataGenerationRunOperator(**known | {"deferrable": deferrable} | wrong)
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        task.execute(make_context())
    assert parameters_of(catalog.server, "StartMetadataGenerationRun") == []


# ------------------------------------------------------- short edited values


def edit(value: str) -> dict[str, Any]:
    return {"predictionTarget": "summary", "editedValue": value}


def masker() -> Callable[[str], str]:
    """Return what Airflow masks the secrets of a log line with."""
    modules = (
        "airflow.sdk.log",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    )
    for name in modules:
        with suppress(ImportError, AttributeError):
            return importlib.import_module(name).redact
    raise AssertionError("Airflow has no masker")


def test_short_edited_values_are_not_masked_in_all_that_is_logged(catalog: Catalog) -> None:
    redact = masker()
    values = [edit(value) for value in ("e", "is", "run", "Cash", "confidential figure")]
    render(decide_task(catalog), choices=values)
    render(decide_task(catalog), choices="name")
    line = "Metadata generation run is Cash, named confidential figure"
    assert redact(line) == "Metadata generation run is Cash, named ***"


def test_edited_values_in_a_lazy_sequence_are_masked(catalog: Catalog) -> None:
    secret = "Gross margin in a lazy sequence"
    task = render(decide_task(catalog), [secret], choices=lambda output: output.map(edit))
    assert task.choices == [edit(secret)]
    assert masker()(secret) == "***"


@pytest.mark.parametrize(
    ("value", "message", "told"),
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
def test_short_edited_value_is_redacted_where_it_stands_by_itself(
    catalog: Catalog, value: str, message: str, told: str
) -> None:
    catalog.server.fail("AcceptPredictions", "ValidationException", message=message)
    with pytest.raises(RequestRefusedError) as refused:
        decide(catalog, choices=[edit(value)]).execute(make_context())
    assert f": {told} (asset {catalog.asset_identifier!r}" in str(refused.value)
