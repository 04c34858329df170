"""Common user mistakes in an Airflow deployment: the number of tries and the error in the task log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import Catalog, make_catalog
from tests.dags.mistakes import (
    BATCH,
    DEFERRED,
    MISTAKES,
    RETRIES,
    START,
    TASK_ID,
    TYPES,
    WAIT,
    WITH_CONNECTION,
)

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer
    from tests.system.deployment import Deployment

DAG_FILE = "mistakes.py"
ASSETS = 3
GET_RUN, START_RUN = "GetMetadataGenerationRun", "StartMetadataGenerationRun"
ERROR_CODES = {"wrong_secret": "UnrecognizedClientException", "denied": "AccessDeniedException"}
QUOTA = "business description generation has reached monthly quota"


class Row(NamedTuple):
    """
    The expected outcome of a task.

    :param log: A text in its log.
    :param tries: The number of tries.
    :param starts: The allowed numbers of start requests in all tries.
    :param state: The final state.
    """

    log: str
    tries: int = 1
    starts: Sequence[int] = (0,)
    state: str = "failed"


ALL_TRIES = RETRIES + 1
NOT_DEFINED = "The connection 'datazone_defualt' is not defined. Check the spelling of aws_conn_id"
NO_REGION = "No AWS Region: pass region_name, or set 'region_name' in the extra of the connection"
WRONG_SECRET = "Check the AWS Access Key ID and the AWS Secret Access Key."
NO_DOMAIN = "Domain dzd-nosuchdomain does not exist"
NO_ASSET = "There is no such asset in this domain"
DENIED = "Check two permissions: the IAM policy of the connection's principal must allow datazone:{}"
RETRIED_POLL = "Could not read the run just now, will try again"
TEXT_FROM_TEMPLATE = "For a template, set render_template_as_native_obj=True on the DAG."
# A batch sends up to one start request for each asset before the first response arrives.
ONE_PER_ASSET = range(1, ASSETS + 1)

# The test itself starts the run that a sensor waits for.
ROWS = {
    ("unknown_run", WAIT): Row("There is no such run in this domain", starts=(1,)),
    ("unknown_asset", START): Row(NO_ASSET),
    ("unknown_asset", BATCH): Row(NO_ASSET),
    ("unknown_domain", WAIT): Row(NO_DOMAIN, starts=(1,)),
    ("unknown_domain", START): Row(NO_DOMAIN, starts=(1,)),
    ("unknown_domain", BATCH): Row(NO_DOMAIN, starts=ONE_PER_ASSET),
    # Retried, because Airflow reports the same error when a secrets backend fails.
    ("misspelled_connection", WAIT): Row(NOT_DEFINED, ALL_TRIES, (1,)),
    ("misspelled_connection", START): Row(NOT_DEFINED, ALL_TRIES),
    ("misspelled_connection", BATCH): Row(NOT_DEFINED, ALL_TRIES),
    ("no_region", WAIT): Row(NO_REGION, starts=(1,)),
    ("no_region", START): Row(NO_REGION),
    ("no_region", BATCH): Row(NO_REGION),
    # Retried, because AWS reports the same error during a credential rotation.
    ("wrong_secret", WAIT): Row(WRONG_SECRET, ALL_TRIES, (1,)),
    ("wrong_secret", START): Row(WRONG_SECRET, ALL_TRIES, range(1, ALL_TRIES + 1)),
    # Before Airflow 3.3, a retry lists the runs first, and List is rejected, too.
    ("wrong_secret", BATCH): Row(WRONG_SECRET, ALL_TRIES, range(1, 2 * ALL_TRIES * ASSETS)),
    ("denied", WAIT): Row(DENIED.format(GET_RUN), starts=(1,)),
    ("denied", START): Row(DENIED.format(START_RUN), starts=(1,)),
    ("denied", BATCH): Row(DENIED.format(START_RUN), starts=ONE_PER_ASSET),
    ("quota", START): Row("The account's monthly quota is used up", starts=(1,)),
    ("quota", BATCH): Row("The account's monthly quota is used up", starts=ONE_PER_ASSET),
    ("service_down", WAIT): Row(RETRIED_POLL, starts=(1,), state="success"),
    ("service_down", START): Row(RETRIED_POLL, starts=(1,), state="success"),
    ("service_down", BATCH): Row(RETRIED_POLL, starts=(ASSETS,), state="success"),
    ("types_as_a_string", START): Row(TEXT_FROM_TEMPLATE),
    ("types_as_a_string", BATCH): Row(TEXT_FROM_TEMPLATE),
    ("trailing_space", WAIT): Row("run_identifier must not end with a space", starts=(1,)),
    ("trailing_space", START): Row("asset_identifier must not end with a space"),
    ("trailing_space", BATCH): Row("asset_identifier must not end with a space"),
    ("empty_batch", BATCH): Row("asset_identifiers is empty: there is nothing to do.", state="success"),
}


class Outcome(NamedTuple):
    """The outcome of a task."""

    log: str
    tries: int
    starts: int
    state: str | None


def create_mistakes(deployment: Deployment, server: DataZoneServer) -> None:
    """Create the connections, and the failures of the local DataZone for each mistake."""
    connection = json.loads(server.connection)
    for mistake, kind in [case for case in ROWS if case[0] in WITH_CONNECTION]:
        access_key_id = f"{mistake}_{kind}"
        definition = connection | {"login": access_key_id, "extra": dict(connection["extra"])}
        if mistake == "no_region":
            del definition["extra"]["region_name"]
        deployment.create_connection(access_key_id, definition)
        if mistake == "service_down":
            # A number of failed requests simulates an outage of two minutes in less time.
            server.fail(GET_RUN, "InternalServerException", times=10, access_key_id=access_key_id)
        elif mistake in ERROR_CODES:
            for operation in (GET_RUN, START_RUN, "ListMetadataGenerationRuns", "GetAsset"):
                server.fail(operation, ERROR_CODES[mistake], times=None, access_key_id=access_key_id)


@pytest.fixture(scope="module")
def outcomes(deployment: Deployment, datazone_server: DataZoneServer) -> dict[tuple[str, str], Outcome]:
    server = datazone_server
    create_mistakes(deployment, server)
    deployment.start_triggerer()
    catalog = make_catalog(server)
    cases = {(mistake, kind): f"{mistake}_{kind}" for mistake, kinds in MISTAKES.items() for kind in kinds}
    assets = {case: trigger(deployment, server, catalog, *case) for case in cases}

    def states() -> dict[str, str]:
        return dict(deployment.query("SELECT dag_id, state FROM dag_run"))

    deployment.wait_for(
        "the end of all", lambda: set(states().values()) <= {"success", "failed"}, seconds=300
    )
    started = [
        request.parameters["target"]["identifier"]
        for request in server.requests
        if request.operation == START_RUN
    ]

    def outcome(case: tuple[str, str]) -> Outcome:
        (instance,) = deployment.task_instances(cases[case], TASK_ID)
        logs = sorted((deployment.home / "logs" / f"dag_id={cases[case]}").rglob("*.log*"))
        log = "\n".join(path.read_text("utf-8", "replace") for path in logs)
        starts = sum(asset in assets[case] for asset in started)
        return Outcome(log, instance.try_number, starts, instance.state)

    return {case: outcome(case) for case in cases}


def trigger(
    deployment: Deployment, server: DataZoneServer, catalog: Catalog, mistake: str, kind: str
) -> list[str]:
    """Trigger a DAG run with new assets, and return the assets."""
    domain, project = catalog.domain_identifier, catalog.project_identifier
    assets = [
        server.create_asset(domain_identifier=domain, project_identifier=project).asset_identifier
        for _ in range(ASSETS)
    ]
    for asset in assets:
        if mistake == "quota":
            messages = dict.fromkeys(TYPES, QUOTA)
            server.set_run_outcome(asset, statuses="FAILED", error_messages=messages, polls=0, times=None)
        else:
            # The task has to defer before its run ends, also on a busy machine.
            seconds = 20 if mistake in DEFERRED else 3
            server.set_run_outcome(asset, in_progress_seconds=seconds, times=None)
    conf = {"assets": assets, "domain_identifier": domain, "owning_project_identifier": project}
    if kind == WAIT:
        run = server.client().start_metadata_generation_run(
            domainIdentifier=domain,
            owningProjectIdentifier=project,
            target={"type": "ASSET", "identifier": assets[0]},
            types=["BUSINESS_NAMES"],
        )
        conf["run"] = run["id"]
    deployment.trigger(f"{mistake}_{kind}", f"{mistake}_{kind}", conf)
    return assets


@pytest.mark.parametrize("case", ROWS, ids="_".join)
def test_task_retries_only_recoverable_errors_and_logs_the_cause(
    outcomes: dict[tuple[str, str], Outcome], case: tuple[str, str]
) -> None:
    row, outcome = ROWS[case], outcomes[case]
    print(outcome.log)
    assert (outcome.state, outcome.tries) == (row.state, row.tries)
    assert outcome.starts in row.starts
    # Airflow 3 writes its logs as JSON.
    assert row.log in outcome.log.replace('\\"', '"').replace("\\\\", "\\")


def test_every_mistake_is_tested() -> None:
    assert set(ROWS) == {(mistake, kind) for mistake, kinds in MISTAKES.items() for kind in kinds}
