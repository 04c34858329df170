"""Final states, tries, XComs, links and DataZone runs of each operator in a real Airflow DAG run."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred
from airflow.serialization import serialized_objects
from botocore.exceptions import ClientError

from airflow_provider_datazone.exceptions import (
    InvalidInputError,
    MetadataGenerationRunFailedError,
    RequestRefusedError,
    StartedRunFailedError,
)
from airflow_provider_datazone.hooks import datazone as hooks
from airflow_provider_datazone.links.datazone import DataZoneDomainLink
from airflow_provider_datazone.metadata_generation import RUN_TYPES
from airflow_provider_datazone.operators import batch_execution, datazone as operators, start_execution
from airflow_provider_datazone.sensors.datazone import DataZoneMetadataGenerationRunSensor
from airflow_provider_datazone.triggers import datazone as triggers
from tests.conftest import TYPE_STATS, Clock, make_catalog, outcome_of
from tests.dags.run_operators import (
    AWS_PARAMETERS,
    CANCEL_CASES,
    DECISIONS,
    EXECUTION_TIMEOUT,
    LOST_ANSWERS,
    MAPPED_ASSETS,
    MODES,
    REGIONS,
    RULE,
    START_CASES,
    dag,
    start_id,
)
from tests.integration.dag_runs import AlarmClock, mend_dag_test

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

# The values differ, because Airflow masks a value for the rest of the process.
EDITED_VALUES = {
    "accept-edited": "Sales before tax, confidential until May",
    "accept-edited_mapped": "Sales after tax, confidential until June",
}
SERIALIZER = getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG


@dataclass
class Deferral:
    """A deferral of a task, with the XComs at that time."""

    raised: TaskDeferred
    xcoms: dict[str, Any]

    @property
    def trigger(self) -> dict[str, Any]:
        arguments: dict[str, Any] = self.raised.trigger.serialize()[1]
        return arguments


@dataclass
class Outcome:
    """The outcome of a task instance after its last try."""

    state: str = ""
    try_number: int = 0
    return_value: Any = None
    type_stats: Any = None
    run: Any = None
    link: str | None = None
    rendered: dict[str, Any] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    deferrals: list[Deferral] = field(default_factory=list)


@dataclass
class Outcomes:
    """The outcomes of a DAG run, with its requests and the state of the server."""

    tasks: dict[tuple[str, int], Outcome]
    conf: dict[str, Any]
    requests: list[Any]
    runs: dict[str, list[str]]
    assets: dict[str, Any]

    def __getitem__(self, task_id: str) -> Outcome:
        return self.tasks[task_id, -1]

    def runs_of(self, name: str) -> list[str]:
        """Return the runs that the server started for a task's asset, oldest first."""
        return self.runs.get(self.conf["assets"][name], [])

    def requests_for(self, operation: str, identifier: str) -> list[dict[str, Any]]:
        """Return the parameters of the requests about an asset or a run."""
        return [
            request.parameters
            for request in self.requests
            if request.operation == operation
            and identifier
            in (request.parameters.get("identifier"), request.parameters.get("target", {}).get("identifier"))
        ]


def observe(
    monkeypatch: pytest.MonkeyPatch,
    cls: type,
    method: str,
    outcomes: dict[tuple[str, int], Outcome],
    clock: AlarmClock,
) -> None:
    """Record the errors and deferrals that a task method raises, which Airflow does not expose."""
    original = getattr(cls, method)

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        ti = (kwargs.get("context") or args[-1])["ti"]
        outcome = outcomes.setdefault((ti.task_id, ti.map_index), Outcome())
        try:
            return original(self, *args, **kwargs)
        except TaskDeferred as deferred:
            # A resumed task may call execute again, so the exception passes through both methods.
            if deferred not in (deferral.raised for deferral in outcome.deferrals):
                if self.execution_timeout:
                    clock.put_forward(self.execution_timeout.total_seconds())
                xcoms = {
                    key: ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)
                    for key in ("run", "type_stats", DataZoneDomainLink.key)
                }
                outcome.deferrals.append(Deferral(deferred, xcoms))
            raise
        except BaseException as error:
            if error not in outcome.errors:
                outcome.errors.append(error)
            raise

    monkeypatch.setattr(cls, method, wrapper)


@pytest.fixture(scope="module")
def outcomes(datazone_server: DataZoneServer, airflow_database: None) -> Outcomes:
    """Run the DAG once. Each task has its own asset or run in the catalog."""
    server = datazone_server
    server.reset()
    catalog = make_catalog(server)
    client = server.client()

    def create_asset(**arguments: Any) -> str:
        location = {
            "domain_identifier": catalog.domain_identifier,
            "project_identifier": catalog.project_identifier,
        }
        return server.create_asset(**location | arguments).asset_identifier

    def set_ending(asset: str, ending: str, **pace: Any) -> None:
        server.set_run_outcome(asset, times=None, **outcome_of(TYPE_STATS[ending]), **pace)

    names = [
        task_id for task_id in dag.task_ids if task_id.startswith(("start-", "accept-", "reject-", "wrong-"))
    ]
    names += [f"start-mapped-{index}" for index in range(MAPPED_ASSETS)]
    assets = {name: create_asset() for name in names}
    for case in START_CASES:
        set_ending(assets[start_id(*case)], case[0])
    for mode in MODES:
        server.set_run_outcome(assets[f"start-timeout-{mode}"], in_progress_seconds=3600, times=None)

    def start_run(asset: str, ending: str) -> str:
        if ending == "ACTIVE":
            server.set_run_outcome(asset, in_progress_seconds=3600)
        else:
            set_ending(asset, ending, polls=0)
        run = client.start_metadata_generation_run(
            domainIdentifier=catalog.domain_identifier,
            owningProjectIdentifier=catalog.project_identifier,
            target={"type": "ASSET", "identifier": asset},
            types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        )["id"]
        client.get_metadata_generation_run(domainIdentifier=catalog.domain_identifier, identifier=run)
        return str(run)

    for name in names:
        if name.startswith(tuple(DECISIONS)):
            start_run(assets[name], "SUCCEEDED")
    runs = {"-".join(("cancel", *case)): start_run(create_asset(), case[0]) for case in CANCEL_CASES}
    runs["get"] = start_run(create_asset(), "SUCCEEDED")
    runs["sensor-deferrable"] = catalog.start_run(polls=3)
    regions = {region: server.create_asset(region_name=region) for region in REGIONS[:-1]}
    assets |= {f"link-{region}": created.asset_identifier for region, created in regions.items()}
    region_without_console = REGIONS[-1]
    assets[f"link-{region_without_console}"] = "nowhere"
    conf = {
        "domain_identifier": catalog.domain_identifier,
        "project_identifier": catalog.project_identifier,
        "assets": assets,
        "runs": runs,
        "regions": {region: list(created[:2]) for region, created in regions.items()}
        | {region_without_console: ["dzd-nowhere", "none"]},
        "edited_values": EDITED_VALUES,
    }
    conflicts = [case for case in CANCEL_CASES if case[1] == "ConflictException"]
    server.fail("CancelMetadataGenerationRun", "ConflictException", times=len(conflicts))
    for operation in ("AcceptPredictions", "RejectPredictions"):
        for fault in LOST_ANSWERS:
            server.fail(operation, fault, after=True)
    before = len(server.requests)
    tasks: dict[tuple[str, int], Outcome] = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AIRFLOW_CONN_DATAZONE_DEFAULT", server.connection)
        monkeypatch.setenv("AIRFLOW__DATAZONE__MAX_REQUESTS_PER_SECOND", "1000")
        mend_dag_test(monkeypatch)
        clock = AlarmClock(monkeypatch)
        for module in (batch_execution, start_execution, triggers):
            monkeypatch.setattr(module, "time", clock)
        # The hook polls an unknown run for a while before it fails.
        monkeypatch.setattr(hooks, "time", Clock())
        for cls in (*vars(operators).values(), DataZoneMetadataGenerationRunSensor):
            if isinstance(cls, type) and cls.__name__.startswith("DataZone") and hasattr(cls, "execute"):
                observe(monkeypatch, cls, "execute", tasks, clock)
                observe(monkeypatch, cls, "resume_execution", tasks, clock)
        dag_run = dag.test(run_conf=conf)
        serialized_dag = SERIALIZER.from_dict(SERIALIZER.to_dict(dag))
        for ti in dag_run.get_task_instances():
            outcome = tasks.setdefault((ti.task_id, ti.map_index), Outcome())
            outcome.state, outcome.try_number = str(ti.state), ti.try_number
            for key in ("return_value", "type_stats", "run"):
                value = ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)
                setattr(outcome, key, value)
            # The UI reads the link from the serialized DAG.
            outcome.link = serialized_dag.get_task(ti.task_id).get_extra_links(ti, DataZoneDomainLink.name)
            outcome.rendered = RenderedTaskInstanceFields.get_templated_fields(ti) or {}
    requests = server.requests[before:]
    runs_by_asset: dict[str, list[str]] = {}
    for page in client.get_paginator("list_metadata_generation_runs").paginate(
        domainIdentifier=catalog.domain_identifier
    ):
        for run in page["items"]:
            runs_by_asset.setdefault(run["target"]["identifier"], []).append(run["id"])
    final_assets = {
        name: client.get_asset(domainIdentifier=catalog.domain_identifier, identifier=assets[name])
        for name in names
        if name.startswith(tuple(DECISIONS))
    }
    return Outcomes(tasks, conf, requests, runs_by_asset, final_assets)


def link_to(domain_identifier: str, region_name: str = "us-east-1", console: str = "aws.amazon.com") -> str:
    return f"https://{region_name}.console.{console}/datazone/home?region={region_name}#/domains/{domain_identifier}"


# -------------------------------------------------------------------- start


@pytest.mark.parametrize(("ending", "mode", "allow_partial_success"), START_CASES)
def test_start_task_state_follows_the_run_status(
    outcomes: Outcomes, ending: str, mode: str, allow_partial_success: bool
) -> None:
    name = start_id(ending, mode, allow_partial_success)
    outcome, runs = outcomes[name], outcomes.runs_of(name)
    succeeds = ending == "SUCCEEDED" or (ending == "PARTIALLY_SUCCEEDED" and allow_partial_success)
    # A retry helps only if a new run may succeed, which is impossible once the quota is exhausted.
    tries = 1 if succeeds or ending == "QUOTA" else 2
    assert (outcome.state, outcome.try_number) == ("success" if succeeds else "failed", tries)
    assert len(runs) == tries, "one run per try"
    assert len(outcome.deferrals) == (tries if mode == "deferrable" else 0)

    assert outcome.return_value == (runs[-1] if succeeds else None)
    assert outcome.type_stats == TYPE_STATS[ending]
    assert outcome.run["id"] == runs[-1]
    assert outcome.run["status"] == ("FAILED" if ending == "QUOTA" else ending)
    assert outcome.run["typeStats"] == TYPE_STATS[ending]

    assert len(outcome.errors) == (0 if succeeds else tries)
    for error, run in zip(outcome.errors, runs, strict=True) if outcome.errors else ():
        assert type(error) is (
            MetadataGenerationRunFailedError if ending == "QUOTA" else StartedRunFailedError
        )
        for part in (run, outcomes.conf["domain_identifier"], outcome.run["status"]):
            assert part in str(error)
        for stat in TYPE_STATS[ending]:
            assert stat["status"] == "SUCCEEDED" or stat["type"] in str(error)
            assert stat.get("errorMessage", "") in str(error)


@pytest.mark.parametrize("mode", MODES)
def test_start_without_waiting_returns_the_run_and_does_not_poll(outcomes: Outcomes, mode: str) -> None:
    name = f"start-no_wait-{mode}"
    outcome, runs = outcomes[name], outcomes.runs_of(name)
    assert (outcome.state, outcome.try_number, outcome.deferrals) == ("success", 1, [])
    assert [outcome.return_value] == [outcome.run["id"]] == runs
    assert outcome.run["status"] == "SUBMITTED"
    assert outcome.type_stats is None
    assert outcomes.requests_for("GetMetadataGenerationRun", runs[0]) == []


@pytest.mark.parametrize("mode", MODES)
def test_timeout_fails_the_task_and_does_not_cancel_the_run(outcomes: Outcomes, mode: str) -> None:
    name = f"start-timeout-{mode}"
    outcome = outcomes[name]
    assert outcome.state == "failed"
    assert [type(error) for error in outcome.errors] == [AirflowTaskTimeout] * outcome.try_number
    (run,) = outcomes.runs_of(name)
    assert outcomes.requests_for("CancelMetadataGenerationRun", run) == []
    assert (outcome.run["id"], outcome.return_value) == (run, None)
    # Airflow 2.11 times out a deferred task itself, before the task can push XComs.
    assert not outcome.type_stats


def test_retry_after_a_deferred_timeout_resumes_the_run(outcomes: Outcomes) -> None:
    outcome = outcomes["start-timeout-deferrable"]
    (run,) = outcomes.runs_of("start-timeout-deferrable")
    assert outcome.try_number == 2
    assert [deferral.trigger["run_identifier"] for deferral in outcome.deferrals] == [run, run]
    first, second = (deferral.trigger["deadline"] for deferral in outcome.deferrals)
    assert second >= first + EXECUTION_TIMEOUT.total_seconds(), "each try has its own timeout"
    for deferral in outcome.deferrals:
        assert deferral.raised.timeout > EXECUTION_TIMEOUT, (
            "the trigger reports its deadline before the timeout of Airflow"
        )


def test_run_is_in_xcom_while_the_task_is_deferred(outcomes: Outcomes) -> None:
    deferred = [
        # Use the first try: Airflow 3.0 keeps the XComs of a deferred try.
        outcome.deferrals[0]
        for (task_id, _), outcome in outcomes.tasks.items()
        if task_id.startswith("start-") and outcome.deferrals
    ]
    assert len(deferred) > len(START_CASES) / 2
    for deferral in deferred:
        assert deferral.xcoms["run"]["id"] == deferral.trigger["run_identifier"]
        assert deferral.xcoms["type_stats"] is None, "the statistics are not known yet"


def test_start_accepts_all_run_types(outcomes: Outcomes) -> None:
    assert outcomes["start-all_types"].run["types"] == sorted(RUN_TYPES)


def test_mapped_start_starts_a_run_for_each_asset(outcomes: Outcomes) -> None:
    for index in range(MAPPED_ASSETS):
        (run,) = outcomes.runs_of(f"start-mapped-{index}")
        outcome = outcomes.tasks["start-mapped", index]
        assert (outcome.state, outcome.return_value, outcome.run["id"]) == ("success", run, run)


def test_triggers_use_the_aws_parameters_of_their_tasks(outcomes: Outcomes) -> None:
    defaults = {"region_name": None, "verify": None, "botocore_config": None}
    for (task_id, _), outcome in outcomes.tasks.items():
        expected = {"aws_conn_id": "datazone_default"} | (
            AWS_PARAMETERS if task_id == "start-parameters" else defaults
        )
        # A sensor does not cancel the run that it waits for.
        expected["cancel_on_kill"] = task_id.startswith("start-") and task_id != "start-parameters"
        for deferral in outcome.deferrals:
            assert deferral.trigger.items() >= expected.items(), task_id
            assert deferral.trigger["domain_identifier"] == outcomes.conf["domain_identifier"]
    assert outcomes["start-parameters"].deferrals
    assert outcomes["sensor-deferrable"].deferrals


# ------------------------------------------------------------------- cancel


@pytest.mark.parametrize(("before", "response"), CANCEL_CASES)
def test_cancel_returns_the_run_status_and_accepts_an_ended_run(
    outcomes: Outcomes, before: str, response: str
) -> None:
    name = f"cancel-{before}-{response}"
    outcome, run = outcomes[name], outcomes.conf["runs"][name]
    after = "CANCELED" if before == "ACTIVE" else before
    # A conflict on an active run is retried, because a later cancel may succeed.
    is_conflict = before == "ACTIVE" and response == "ConflictException"
    assert (outcome.state, outcome.try_number) == ("success", 2 if is_conflict else 1)
    assert [
        error.response["Error"]["Code"] for error in outcome.errors if isinstance(error, ClientError)
    ] == (["ConflictException"] if is_conflict else [])
    assert outcome.return_value == after
    assert (outcome.run["id"], outcome.run["status"]) == (run, after)
    assert len(outcomes.requests_for("CancelMetadataGenerationRun", run)) == outcome.try_number


def test_canceling_an_unknown_run_fails_without_retries(outcomes: Outcomes) -> None:
    outcome = outcomes["cancel-unknown"]
    assert (outcome.state, outcome.try_number, outcome.return_value, outcome.run) == ("failed", 1, None, None)
    (error,) = outcome.errors
    assert type(error) is RequestRefusedError
    for part in (
        "Requested prediction cannot be found in domain",
        "'unknownrun'",
        outcomes.conf["domain_identifier"],
    ):
        assert part in str(error)


# -------------------------------------------------------- accept and reject


def predictions_of(asset: dict[str, Any]) -> dict[str, list[str]]:
    """Return the remaining suggestions for an asset by field path."""
    for form in asset["readOnlyFormsOutput"]:
        suggestions = json.loads(form["content"])["fieldSuggestions"]
        return {
            entry["fieldPath"]: [suggestion["suggestion"] for suggestion in entry["suggestions"]]
            for entry in suggestions
        }
    return {}


def summary_of(asset: dict[str, Any]) -> str | None:
    forms = {form["formName"]: json.loads(form["content"]) for form in asset["formsOutput"]}
    summary: str | None = forms.get("AssetCommonDetailsForm", {}).get("summary")
    return summary


@pytest.mark.parametrize(("decision", "revision"), [("accept", "2"), ("reject", "1")])
@pytest.mark.parametrize("how", ["rule", "choices", *(f"lost_{fault}" for fault in LOST_ANSWERS)])
def test_decision_on_predictions_is_applied_once(
    outcomes: Outcomes, decision: str, revision: str, how: str
) -> None:
    name = f"{decision}-{how}"
    outcome, asset = outcomes[name], outcomes.assets[name]
    lost = how.startswith("lost")
    assert (outcome.state, outcome.try_number, len(outcome.errors)) == (
        "success",
        2 if lost else 1,
        int(lost),
    )
    # Airflow 3 converts this XCom to a number when it is pulled outside a task.
    assert str(outcome.return_value) == asset["revision"] == revision

    remaining = predictions_of(asset)
    if how == "rule":
        # The scores of summary and name are above the threshold, those of the columns below.
        assert {path.partition("[")[0] for path in remaining} == {"columns"}
        assert (summary_of(asset), asset["name"]) == (
            ("A summary of orders", "Orders") if decision == "accept" else (None, "orders")
        )
    elif decision == "accept":
        assert "summary" not in remaining
        assert "name" in remaining
        assert summary_of(asset) == "A summary of orders, in other words"
    else:
        # A second rejection would leave no suggestion.
        assert remaining["summary"] == ["A summary of orders, in other words"]

    operation = f"{decision.capitalize()}Predictions"
    requests = outcomes.requests_for(operation, outcomes.conf["assets"][name])
    assert len(requests) == outcome.try_number
    assert len({request["clientToken"] for request in requests}) == 1
    rule = RULE if how == "rule" else None
    assert [request.get(f"{decision}Rule") for request in requests] == [rule] * len(requests)


@pytest.mark.parametrize("decision", DECISIONS)
def test_decision_requires_a_rule_or_choices(outcomes: Outcomes, decision: str) -> None:
    name = f"{decision}-neither"
    outcome = outcomes[name]
    assert (outcome.state, outcome.try_number) == ("failed", 1)
    (error,) = outcome.errors
    assert type(error) is InvalidInputError
    assert isinstance(error, ValueError)
    for part in (outcomes.conf["assets"][name], "rule", "choices"):
        assert part in str(error)
    assert outcomes.requests_for(f"{decision.capitalize()}Predictions", outcomes.conf["assets"][name]) == []


@pytest.mark.parametrize("name", EDITED_VALUES)
def test_edited_value_is_masked_in_rendered_fields(outcomes: Outcomes, name: str) -> None:
    outcome = outcomes.tasks[name, 0 if name.endswith("mapped") else -1]
    assert outcome.state == "success"
    assert summary_of(outcomes.assets[name]) == EDITED_VALUES[name], (
        "the value sent to DataZone is not masked"
    )
    assert outcome.rendered["choices"] == [{"predictionTarget": "summary", "editedValue": "***"}]


# ---------------------------------------------------------- invalid arguments


@pytest.mark.parametrize(
    ("problem", "error"), [("refused", RequestRefusedError), ("invalid", InvalidInputError)]
)
def test_invalid_arguments_fail_the_task_without_retries(
    outcomes: Outcomes, problem: str, error: type[Exception]
) -> None:
    outcome = outcomes[f"wrong-{problem}"]
    assert (outcome.state, outcome.try_number) == ("failed", 1)
    assert [type(raised) for raised in outcome.errors] == [error]
    assert (outcome.return_value, outcome.run) == (None, None)
    assert outcomes.runs_of(f"wrong-{problem}") == []


# --------------------------------------------------------------------- link


def test_every_task_links_to_its_domain_in_every_final_state(outcomes: Outcomes) -> None:
    links = {key: outcome.link for key, outcome in outcomes.tasks.items() if not key[0].startswith("link-")}
    assert links == dict.fromkeys(links, link_to(outcomes.conf["domain_identifier"]))
    operators_and_states = {
        (task_id.partition("-")[0], outcomes.tasks[task_id, index].state) for task_id, index in links
    }
    assert operators_and_states >= set(
        itertools.product(("start", "cancel", *DECISIONS), ("success", "failed"))
    )
    assert operators_and_states >= {("get", "success"), ("sensor", "success")}
    assert ("start-mapped", MAPPED_ASSETS - 1) in links


def test_link_is_stored_before_a_task_defers(outcomes: Outcomes) -> None:
    deferrals = {
        task_id: outcome.deferrals for (task_id, _), outcome in outcomes.tasks.items() if outcome.deferrals
    }
    assert deferrals.keys() >= {"sensor-deferrable", "start-mapped", "start-parameters"}
    for deferral in itertools.chain(*deferrals.values()):
        assert (
            deferral.xcoms[DataZoneDomainLink.key]["domain_identifier"] == outcomes.conf["domain_identifier"]
        )


@pytest.mark.parametrize(
    ("region_name", "console"),
    zip(REGIONS, ["aws.amazon.com", "amazonaws.cn", "amazonaws-us-gov.com", None], strict=True),
)
def test_link_opens_the_console_of_its_partition_if_known(
    outcomes: Outcomes, region_name: str, console: str | None
) -> None:
    outcome = outcomes[f"link-{region_name}"]
    domain = outcomes.conf["regions"][region_name][0]
    if console is None:
        assert not outcome.link
    else:
        assert outcome.state == "success"
        assert outcome.link == link_to(domain, region_name, console)
