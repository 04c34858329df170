"""What users get wrong in the first hour, in a whole Airflow: how often a task tries, and what its log says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import Catalog, make_catalog
from tests.dags.mistakes import (
    BATCH,
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
QUOTA = "business description generation has reached monthly quota"


class Row(NamedTuple):
    """
    What is to be seen of a task.

    :param log: What its log says.
    :param tries: How often it tries.
    :param starts: How many requests to start a run it may send, in all tries.
    :param state: How it ends.
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
UP_AGAIN = "Could not read the run just now, will try again"
AS_TEXT = "For a template, set render_template_as_native_obj=True on the DAG."
# What a batch has sent by the time the first answer arrives, for each of its assets once.
ANY = range(1, ASSETS + 1)

# A run that is waited for was started by the test.
ROWS = {
    ("unknown_run", WAIT): Row("There is no such run in this domain", starts=(1,)),
    ("unknown_asset", START): Row(NO_ASSET),
    ("unknown_asset", BATCH): Row(NO_ASSET),
    ("unknown_domain", WAIT): Row(NO_DOMAIN, starts=(1,)),
    ("unknown_domain", START): Row(NO_DOMAIN, starts=(1,)),
    ("unknown_domain", BATCH): Row(NO_DOMAIN, starts=ANY),
    # Retried: a secrets backend that fails has Airflow say the same.
    ("misspelled_connection", WAIT): Row(NOT_DEFINED, ALL_TRIES, (1,)),
    ("misspelled_connection", START): Row(NOT_DEFINED, ALL_TRIES),
    ("misspelled_connection", BATCH): Row(NOT_DEFINED, ALL_TRIES),
    ("no_region", WAIT): Row(NO_REGION, starts=(1,)),
    ("no_region", START): Row(NO_REGION),
    ("no_region", BATCH): Row(NO_REGION),
    # Retried: credentials that are being rotated are rejected alike.
    ("wrong_secret", WAIT): Row(WRONG_SECRET, ALL_TRIES, (1,)),
    ("wrong_secret", START): Row(WRONG_SECRET, ALL_TRIES, range(1, ALL_TRIES + 1)),
    ("wrong_secret", BATCH): Row(WRONG_SECRET, ALL_TRIES, range(ALL_TRIES, 2 * ALL_TRIES * ASSETS)),
    ("denied", WAIT): Row(DENIED.format(GET_RUN), starts=(1,)),
    ("denied", START): Row(DENIED.format(START_RUN), starts=(1,)),
    ("denied", BATCH): Row(DENIED.format(START_RUN), starts=ANY),
    ("quota", START): Row("The account's monthly quota is used up", starts=(1,)),
    ("quota", BATCH): Row("The account's monthly quota is used up", starts=ANY),
    ("service_down", WAIT): Row(UP_AGAIN, starts=(1,), state="success"),
    ("service_down", START): Row(UP_AGAIN, starts=(1,), state="success"),
    ("service_down", BATCH): Row(UP_AGAIN, starts=(ASSETS,), state="success"),
    ("types_as_a_string", START): Row(AS_TEXT),
    ("types_as_a_string", BATCH): Row(AS_TEXT),
    ("trailing_space", WAIT): Row("run_identifier must not end with a space", starts=(1,)),
    ("trailing_space", START): Row("asset_identifier must not end with a space"),
    ("trailing_space", BATCH): Row("asset_identifier must not end with a space"),
    ("empty_batch", BATCH): Row("asset_identifiers is empty: there is nothing to do.", state="success"),
}


class Outcome(NamedTuple):
    """What was seen of a task."""

    log: str
    tries: int
    starts: int
    state: str | None


def break_what_is_to_be_broken(deployment: Deployment, server: DataZoneServer) -> None:
    """Make the connections, and have the local DataZone treat them as its users' mistakes deserve."""
    connection = json.loads(server.connection)
    for conn_id in WITH_CONNECTION:
        own = connection | {"login": conn_id, "extra": dict(connection["extra"])}
        if conn_id == "no_region":
            del own["extra"]["region_name"]
        deployment.create_connection(conn_id, own)
    for operation in (GET_RUN, START_RUN, "ListMetadataGenerationRuns", "GetAsset"):
        server.fail(operation, "UnrecognizedClientException", times=None, access_key_id="wrong_secret")
        server.fail(operation, "AccessDeniedException", times=None, access_key_id="denied")
    # Two minutes of a service that is down would be as good; that many requests take less.
    server.fail(GET_RUN, "InternalServerException", times=30, access_key_id="service_down")


@pytest.fixture(scope="module")
def outcomes(deployment: Deployment, datazone_server: DataZoneServer) -> dict[tuple[str, str], Outcome]:
    server = datazone_server
    break_what_is_to_be_broken(deployment, server)
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
    """Trigger a DAG run about assets of its own, and return them."""
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
            server.set_run_outcome(asset, in_progress_seconds=3, times=None)
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
def test_task_tries_as_often_as_it_may_help_and_says_what_is_wrong(
    outcomes: dict[tuple[str, str], Outcome], case: tuple[str, str]
) -> None:
    row, outcome = ROWS[case], outcomes[case]
    print(outcome.log)
    assert (outcome.state, outcome.tries) == (row.state, row.tries)
    assert outcome.starts in row.starts
    # Airflow 3 writes its logs as JSON.
    assert row.log in outcome.log.replace('\\"', '"').replace("\\\\", "\\")


def test_each_mistake_has_a_row() -> None:
    assert set(ROWS) == {(mistake, kind) for mistake, kinds in MISTAKES.items() for kind in kinds}
