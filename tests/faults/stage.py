"""Run the scenarios of a fault matrix concurrently in one Airflow deployment."""

from __future__ import annotations

import re
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tests.dags.start_faults import MAPPED, TASK_ID, TASKS
from tests.faults.workers import kill_worker, mark
from tests.system.deployment import AIRFLOW_2

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer
    from tests.system.deployment import Component, Deployment

T = TypeVar("T")
#: The steps of a scenario: a generator that yields a description of the next event and a condition that detects it.
Play = Generator[tuple[str, Callable[[], Any]], Any, T]

START = "StartMetadataGenerationRun"
NAMES, DESCRIPTIONS = "BUSINESS_NAMES", "BUSINESS_DESCRIPTIONS"
# The limit of tasks that begin at the same time. The start of a worker uses one to two seconds of CPU time.
MAX_BEGINNING = 4
# The number of polls that identifies a wait. The task sends up to two reads before it waits.
WAIT_POLLS = 3
LOG_TAIL = 40
# Seconds without progress in any scenario, including the timeouts of Airflow, on a busy machine.
PROGRESS_TIMEOUT = 180
IN_PROGRESS = re.compile(r"Metadata generation run (\w+) is IN_PROGRESS")
FINISHED = re.compile(
    r"TaskInstance Finished: dag_id=(\w+), .* state=(\w+), .* executor_state=\w+, try_number=(\d+)"
)


class Run(NamedTuple):
    """A run in the local DataZone."""

    id: str
    status: str
    type_stats: list[dict[str, str]]


class Task(NamedTuple):
    """The final state of a task instance."""

    state: str | None
    try_number: int
    xcoms: dict[str, Any]


class Triggerer(NamedTuple):
    """A triggerer and its job id."""

    component: Component
    job: int


class Outcome(NamedTuple):
    """
    The outcome of a scenario.

    :param runs: The runs of each asset, oldest first.
    :param tasks: The task instance for each asset.
    :param error: The reason why the scenario did not finish, if any.
    :param log: The steps of the scenario, and the logs of its tasks.
    """

    runs: list[list[Run]]
    tasks: list[Task]
    error: str | None
    log: str


class Case:
    """
    A running scenario, with actions on its task and conditions to wait for.

    :param stage: The deployment.
    :param name: The id of its DAG and of its DAG run.
    :param play: The steps.
    :param message: The error message for the names of its runs; by default, each run has a unique message.
    """

    def __init__(
        self, stage: Stage, name: str, play: Callable[[Case], Play[None]], message: str | None = None
    ) -> None:
        self.stage = stage
        self.name = name
        self.server = stage.server
        self.indexes = list(range(MAPPED)) if name.startswith("mapped") else [-1]
        self.assets = [stage.create_asset(name) for _ in self.indexes]
        self.error: str | None = None
        self.begun = self.is_over = False
        self.journal: list[str] = []
        self._play = self._to_the_end(play)
        self._waits_for: tuple[str, Callable[[], Any]] = ("its turn", lambda: True)
        for asset in self.assets:
            for number in (1, 2, 3):
                self.server.set_run_outcome(
                    asset.asset_identifier,
                    statuses={NAMES: "FAILED"},
                    error_messages={NAMES: message or f"no names from run {number} of {name}"},
                    # The run is in progress until the scenario ends it.
                    in_progress_seconds=3600,
                )

    # ------------------------------------------------------------------ play

    def _to_the_end(self, play: Callable[[Case], Play[None]]) -> Play[None]:
        yield from play(self)
        yield "the end", lambda: self.stage.dag_runs[self.name] in ("success", "failed")

    def step(self) -> bool:
        """Continue if the next event has occurred, and return whether it has."""
        what, condition = self._waits_for
        try:
            found = condition()
            if not found:
                return False
            self.journal.append(f"{self.stage.seconds:.1f} s: {what}")
            # A generator accepts only None before its first step.
            self._waits_for = self._play.send(found if len(self.journal) > 1 else None)
        except StopIteration:
            self.is_over = True
        except Exception as exception:
            self.is_over = True
            self.error = f"{type(exception).__name__} after {what}: {exception}"
        return True

    def give_up(self, reason: str) -> None:
        self.error = f"Timed out waiting for {self._waits_for[0]}. {reason}"

    @property
    def has_begun(self) -> bool:
        """Whether the operators of all first tries have begun."""
        return all(self._mark("process", map_index=index).exists() for index in self.indexes)

    def outcome(self) -> Outcome:
        found = [[self.stage.get_run(run) for run in self.runs(index)] for index in self.indexes]
        instances = self.stage.deployment.task_instances(self.name, TASK_ID)
        logs = [
            f"--- {log}\n" + "\n".join(log.read_text("utf-8", "replace").splitlines()[-LOG_TAIL:])
            for log in sorted(self._logs.rglob("*.log"))
        ]
        return Outcome(
            [[Run(run["id"], run["status"], run["typeStats"]) for run in runs] for runs in found],
            [Task(ti.state, ti.try_number, self._xcoms(ti.map_index)) for ti in instances],
            self.error,
            "\n".join([*self.journal, *logs]),
        )

    # --------------------------------------------------------------- actions

    def begin(self) -> None:
        """Trigger the DAG run."""
        self.begun = True
        domain, project, _ = self.assets[0]
        conf = {
            "assets": [asset.asset_identifier for asset in self.assets],
            "domain_identifier": domain,
            "owning_project_identifier": project,
            "marks": str(self.stage.marks),
        }
        body: dict[str, Any] = {"dag_run_id": self.name, "conf": conf}
        if not AIRFLOW_2:
            body["logical_date"] = None
        self.stage.deployment.request("POST", f"/dags/{self.name}/dagRuns", body)

    def clear(self) -> None:
        """Clear the task like a user."""
        if AIRFLOW_2:
            # The REST API of Airflow 2 changes a running task outside of any session, so the change is lost.
            self.stage.deployment.run("tasks", "clear", "--yes", self.name)
            return
        body = {
            "dag_run_id": self.name,
            "task_ids": [TASK_ID],
            "only_failed": False,
            "reset_dag_runs": True,
            "dry_run": False,
        }
        self.stage.deployment.request("POST", f"/dags/{self.name}/clearTaskInstances", body)

    def mark_failed(self) -> None:
        """Mark the task as failed like a user."""
        body: dict[str, Any] = {"new_state": "failed"}
        if AIRFLOW_2:
            body["dry_run"] = False
        self.stage.deployment.request("PATCH", self._task_path, body)

    def kill_worker(self, map_index: int = -1) -> None:
        """Kill the worker of the first try."""
        kill_worker(int(self._mark("process", map_index=map_index).read_text("utf-8")))

    def fail_start(self, error: str, **options: Any) -> None:
        """Make StartMetadataGenerationRun fail for the asset."""
        self.server.fail(START, error, asset_identifier=self.assets[0].asset_identifier, **options)

    def start_run(self) -> str:
        """Start a run for the asset from another client."""
        domain, project, asset = self.assets[0]
        run = self.stage.client.start_metadata_generation_run(
            domainIdentifier=domain,
            owningProjectIdentifier=project,
            target={"type": "ASSET", "identifier": asset},
            types=[DESCRIPTIONS, NAMES],
        )
        return str(run["id"])

    def end(self, run: str, status: str = "PARTIALLY_SUCCEEDED") -> None:
        """End a run."""
        self.server.set_run_status(run, status)

    # ----------------------------------------------------------------- state

    @property
    def is_deferrable(self) -> bool:
        return bool(TASKS[self.name].get("deferrable"))

    @property
    def starts(self) -> int:
        """The number of StartMetadataGenerationRun requests for the asset."""
        return sum(
            request.operation == START
            and request.parameters["target"]["identifier"] == self.assets[0].asset_identifier
            for request in self.server.requests
        )

    def runs(self, map_index: int = -1) -> list[str]:
        """Return the runs of the asset in the local DataZone, oldest first."""
        items = self.stage.list_runs(targetIdentifier=self._asset(map_index))
        return [item["id"] for item in sorted(items, key=lambda item: item["createdAt"])]

    def status(self, run: str) -> str:
        """Return the status of a run."""
        return str(self.stage.get_run(run)["status"])

    # --------------------------------------------------------------- events

    def is_killed(self) -> Play[None]:
        yield "a worker that has killed itself", self._mark("killed").exists

    def has_ended(self, state: str) -> Play[None]:
        """
        Wait until the DAG run has ended, not only its task.

        If a user clears a task while the scheduler ends the DAG run, the task stays in an ended DAG run.
        """
        yield f"a DAG run in {state}", lambda: self.stage.dag_runs[self.name] == state

    def is_processed(self) -> Play[str]:
        """Wait until DataZone has processed the request of the task, even if the task has no response."""
        (run,) = yield "a run", lambda: self.starts and self.runs()
        return str(run)

    def is_waiting(
        self, try_number: int = 1, map_index: int = -1, triggerer: Triggerer | None = None
    ) -> Play[str]:
        """
        Wait until a try waits for a run, and return that run.

        :param triggerer: The triggerer of a deferrable task; by default, any triggerer.
        """
        if self.is_deferrable:
            return (yield from self._is_in_triggerer(try_number, triggerer))
        yield f"try {try_number}", self._mark("process", try_number, map_index).exists
        since = len(self.server.requests)

        def polled_run() -> str | None:
            polls = Counter(
                request.parameters["identifier"]
                for request in self.server.requests[since:]
                if request.operation == "GetMetadataGenerationRun"
            )
            runs = [run for run, number in polls.items() if number >= WAIT_POLLS]
            return next((run for run in runs if self.stage.asset_of(run) == self._asset(map_index)), None)

        return str((yield f"a wait in try {try_number}", polled_run))

    def is_deferred(self, try_number: int = 1) -> Play[None]:
        """
        Wait until a try is deferred and the scheduler has processed the event.

        The scheduler would mistake a late event of the deferred process for the end of the resumed task
        (apache/airflow#72716).
        """
        yield f"the deferring of try {try_number}", lambda: self.was_reported("deferred", try_number)

    def _is_in_triggerer(self, try_number: int, triggerer: Triggerer | None) -> Play[str]:
        def logged_run() -> str | None:
            matches = [IN_PROGRESS.search(log) for log in self._trigger_logs(try_number, triggerer)]
            return next((found[1] for found in matches if found), None)

        yield from self.is_deferred(try_number)
        return str((yield f"a deferred wait in try {try_number}", logged_run))

    def active_run(self, *tries: int) -> str | None:
        """Return the active run that one of the tries waits for in a triggerer."""
        logs = [log for try_number in tries for log in self._trigger_logs(try_number, None)]
        runs = {run for log in logs for run in IN_PROGRESS.findall(log)}
        return next((run for run in runs if self.status(run) == "IN_PROGRESS"), None)

    def is_dropped(self, triggerer: Triggerer | None = None) -> Play[None]:
        """
        Wait until a triggerer has ended the trigger of the first try.

        :param triggerer: The triggerer; by default, any.
        """

        def has_ended() -> bool:
            # Airflow 2.11 logs the end of a trigger in the triggerer's log.
            own = triggerer.component.output if triggerer is not None else ""
            logs = "\n".join([own, *self._trigger_logs(1, triggerer)])
            return any("completed" in line and self.name in line for line in logs.splitlines())

        yield "a trigger's end", has_ended

    def was_reported(self, state: str, try_number: int = 1) -> bool:
        """Whether the scheduler has processed the end of a try and found the task in the state."""
        return (self.name, state, try_number) in self.stage.reports

    # ------------------------------------------------------- files and paths

    def _trigger_logs(self, try_number: int, triggerer: Triggerer | None) -> list[str]:
        job = "*" if triggerer is None else triggerer.job
        logs = sorted(self._logs.glob(f"attempt={try_number}.log.trigger.{job}.log"))
        return [log.read_text("utf-8", "replace") for log in logs]

    def _asset(self, map_index: int) -> str:
        return self.assets[max(map_index, 0)].asset_identifier

    def _mark(self, what: str, try_number: int = 1, map_index: int = -1) -> Path:
        return mark(str(self.stage.marks), self.name, what, try_number, map_index)

    @property
    def _task_path(self) -> str:
        return f"/dags/{self.name}/dagRuns/{self.name}/taskInstances/{TASK_ID}"

    @property
    def _logs(self) -> Path:
        return self.stage.deployment.home / f"logs/dag_id={self.name}/run_id={self.name}/task_id={TASK_ID}"

    def _xcoms(self, map_index: int) -> dict[str, Any]:
        def read(key: str) -> Any:
            path = f"{self._task_path}/xcomEntries/{key}?map_index={map_index}&stringify=false"
            try:
                return self.stage.deployment.request("GET", path)["value"]
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                raise

        return {key: read(key) for key in ("return_value", "type_stats", "run")}


class Stage:
    """
    An Airflow deployment that runs scenarios.

    :param deployment: Airflow without a triggerer.
    :param server: The local DataZone.
    """

    def __init__(self, deployment: Deployment, server: DataZoneServer) -> None:
        self.deployment = deployment
        self.server = server
        self.client = server.client()
        self.marks = deployment.home / "marks"
        self.marks.mkdir()
        #: The states of the DAG runs by DAG id.
        self.dag_runs: dict[str, str] = {}
        #: The task events of executors: the DAG id, the state of the task at that time, and its try number.
        self.reports: set[tuple[str, str, int]] = set()
        (scheduler,) = [one for one in deployment.components if one.name.startswith("scheduler")]
        self._scheduler_log = scheduler.log.open(encoding="utf-8", errors="replace")
        self._asset_identifiers = server.create_asset()
        self._assets: dict[str, str] = {}
        self.cases: list[Case] = []
        #: The only running triggerer, after the scenarios that start and kill triggerers.
        self.triggerer: Triggerer | None = None
        self._since = time.monotonic()

    def close(self) -> None:
        self._scheduler_log.close()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._since

    def play(self, cases: list[Case]) -> dict[str, Outcome]:
        """Run all scenarios; a scenario that is active without progress ends with an error."""
        self.cases = cases
        active = list(cases)

        def step() -> int:
            self._read_states()
            steps = 0
            for case in list(active):
                beginning = sum(other.begun and not other.has_begun for other in active)
                if case.begun or beginning < MAX_BEGINNING:
                    steps += case.step()
                    if case.is_over:
                        active.remove(case)
            return steps

        try:
            while active:
                self.deployment.wait_for("any change", step, seconds=PROGRESS_TIMEOUT)
        except AssertionError as error:
            for case in active:
                case.give_up(str(error))
        return {case.name: case.outcome() for case in cases}

    def _read_states(self) -> None:
        self.dag_runs = dict(self.deployment.query("SELECT dag_id, state FROM dag_run"))
        for dag_id, state, try_number in FINISHED.findall(self._scheduler_log.read()):
            self.reports.add((dag_id, state, int(try_number)))

    # ------------------------------------------------------------- triggerers

    def start_triggerer(self) -> Play[Triggerer]:
        known = self.deployment.triggerer_jobs()
        component = self.deployment.start_component("triggerer", "--skip-serve-logs")
        (job,) = yield "a triggerer", lambda: self.deployment.triggerer_jobs() - known
        return Triggerer(component, job)

    def has_steady_triggerers(self) -> Play[None]:
        """Wait until no scenario starts or kills triggerers."""
        changing = [case for case in self.cases if case.name.startswith("triggerer")]
        yield "steady triggerers", lambda: all(case.is_over for case in changing)

    # --------------------------------------------------------------- DataZone

    def create_asset(self, name: str) -> AssetIdentifiers:
        domain, project, _ = self._asset_identifiers
        return self.server.create_asset(name, domain_identifier=domain, project_identifier=project)

    def list_runs(self, **filters: str) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("list_metadata_generation_runs").paginate(
            domainIdentifier=self._asset_identifiers.domain_identifier, **filters
        )
        return [item for page in pages for item in page["items"]]

    def get_run(self, run: str) -> dict[str, Any]:
        response: dict[str, Any] = self.client.get_metadata_generation_run(
            domainIdentifier=self._asset_identifiers.domain_identifier, identifier=run
        )
        return response

    def asset_of(self, run: str) -> str | None:
        if run not in self._assets:
            self._assets = {item["id"]: item["target"]["identifier"] for item in self.list_runs()}
        return self._assets.get(run)
