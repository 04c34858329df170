"""The rows of a fault matrix, played side by side in one Airflow."""

from __future__ import annotations

import re
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tests.dags.start_faults import MAPPED, TASK_ID, TASKS, kill_worker, mark
from tests.system.deployment import AIRFLOW_2

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import AssetIdentifiers, DataZoneServer
    from tests.system.deployment import Component, Deployment

T = TypeVar("T")
#: What happens in a row: it yields what it waits for, and how to tell that it is there.
Play = Generator[tuple[str, Callable[[], Any]], Any, T]

START = "StartMetadataGenerationRun"
NAMES, DESCRIPTIONS = "BUSINESS_NAMES", "BUSINESS_DESCRIPTIONS"
# Tasks that begin at the same time: each start of a worker keeps a processor for one to two seconds.
BEGINNING = 4
# By so many looks at its run a wait is known: up to two are made before.
LOOKS = 3
LOG_TAIL = 40
# Seconds in which nothing comes that any row waits for: with all that Airflow has to wait out, and a busy machine.
PATIENCE = 180
IN_PROGRESS = re.compile(r"Metadata generation run (\w+) is IN_PROGRESS")
FINISHED = re.compile(
    r"TaskInstance Finished: dag_id=(\w+), .* state=(\w+), .* executor_state=\w+, try_number=(\d+)"
)


class Run(NamedTuple):
    """A run as the service has it."""

    id: str
    status: str
    type_stats: list[dict[str, str]]


class Task(NamedTuple):
    """What a task instance left behind."""

    state: str | None
    try_number: int
    xcoms: dict[str, Any]


class Triggerer(NamedTuple):
    """A triggerer, and the number of its job."""

    component: Component
    job: int


class Outcome(NamedTuple):
    """
    What there was to see of a row.

    :param runs: The runs of each of its assets, the oldest first.
    :param tasks: The task instance that was to start them, for each asset.
    :param trouble: Why the row was not played to its end, if it was not.
    :param log: How it was played, and what its tasks logged.
    """

    runs: list[list[Run]]
    tasks: list[Task]
    trouble: str | None
    log: str


class Case:
    """
    A row that is being played: what it can do to its task, and what it can see.

    :param stage: Where it is played.
    :param name: The name of its DAG, and of the one DAG run.
    :param play: What happens.
    :param message: Why its runs have no names; by default each says so in its own words.
    """

    def __init__(
        self, stage: Stage, name: str, play: Callable[[Case], Play[None]], message: str | None = None
    ) -> None:
        self.stage = stage
        self.name = name
        self.server = stage.server
        self.indexes = list(range(MAPPED)) if name.startswith("mapped") else [-1]
        self.assets = [stage.create_asset(name) for _ in self.indexes]
        self.trouble: str | None = None
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
                    # Until it is told to end.
                    in_progress_seconds=3600,
                )

    # ------------------------------------------------------------------ play

    def _to_the_end(self, play: Callable[[Case], Play[None]]) -> Play[None]:
        yield from play(self)
        yield "the end", lambda: self.stage.dag_runs[self.name] in ("success", "failed")

    def step(self) -> bool:
        """Go on if what is waited for is there; return whether it was."""
        what, condition = self._waits_for
        try:
            found = condition()
            if not found:
                return False
            self.journal.append(f"{self.stage.seconds:.1f} s: {what}")
            # A generator that has not begun takes None alone.
            self._waits_for = self._play.send(found if len(self.journal) > 1 else None)
        except StopIteration:
            self.is_over = True
        except Exception as error:
            self.is_over = True
            self.trouble = f"{type(error).__name__} after {what}: {error}"
        return True

    def give_up(self, reason: str) -> None:
        self.trouble = f"No sign of {self._waits_for[0]}. {reason}"

    @property
    def has_begun(self) -> bool:
        """Whether the first tries have come as far as the operator's own doing."""
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
            self.trouble,
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
        """Clear the task, as a user does."""
        if AIRFLOW_2:
            # Its REST API changes the state of a task that runs outside of any session, and so nowhere.
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
        """Mark the task as failed, as a user does."""
        body: dict[str, Any] = {"new_state": "failed"}
        if AIRFLOW_2:
            body["dry_run"] = False
        self.stage.deployment.request("PATCH", self._task_path, body)

    def kill_worker(self, map_index: int = -1) -> None:
        """Kill the first try's worker."""
        kill_worker(int(self._mark("process", map_index=map_index).read_text("utf-8")))

    def fail_start(self, error: str, **how: Any) -> None:
        """Make a Start for the asset fail."""
        self.server.fail(START, error, asset_identifier=self.assets[0].asset_identifier, **how)

    def start_run(self) -> str:
        """Start a run for the asset, as somebody else may."""
        domain, project, asset = self.assets[0]
        run = self.stage.client.start_metadata_generation_run(
            domainIdentifier=domain,
            owningProjectIdentifier=project,
            target={"type": "ASSET", "identifier": asset},
            types=[DESCRIPTIONS, NAMES],
        )
        return str(run["id"])

    def end(self, run: str, status: str = "PARTIALLY_SUCCEEDED") -> None:
        """Let a run end."""
        self.server.set_run_status(run, status)

    # --------------------------------------------------------- what is there

    @property
    def is_deferrable(self) -> bool:
        return bool(TASKS[self.name].get("deferrable"))

    @property
    def starts(self) -> int:
        """How many Starts for the asset were received."""
        return sum(
            request.operation == START
            and request.parameters["target"]["identifier"] == self.assets[0].asset_identifier
            for request in self.server.requests
        )

    def runs(self, map_index: int = -1) -> list[str]:
        """Return the runs that the service has for the asset, the oldest first."""
        items = self.stage.list_runs(targetIdentifier=self._asset(map_index))
        return [item["id"] for item in sorted(items, key=lambda item: item["createdAt"])]

    def status(self, run: str) -> str:
        """Return a run's status."""
        return str(self.stage.get_run(run)["status"])

    # -------------------------------------------------------- what may come

    def is_killed(self) -> Play[None]:
        yield "a worker that has killed itself", self._mark("killed").exists

    def has_ended(self, state: str) -> Play[None]:
        """
        Wait until the DAG run has ended, and not its task alone.

        A task that is cleared while the scheduler ends its DAG run is left in a DAG run that has ended.
        """
        yield f"a DAG run in {state}", lambda: self.stage.dag_runs[self.name] == state

    def is_carried_out(self) -> Play[str]:
        """Wait until the service has a run that the task has started, whether the task knows or not."""
        (run,) = yield "a run", lambda: self.starts and self.runs()
        return str(run)

    def is_waiting(
        self, try_number: int = 1, map_index: int = -1, triggerer: Triggerer | None = None
    ) -> Play[str]:
        """
        Wait until a try waits; return the run that it waits for.

        :param triggerer: Where; by default in its worker, or in any triggerer if it is deferrable.
        """
        if self.is_deferrable:
            return (yield from self._is_in_triggerer(try_number, triggerer))
        yield f"try {try_number}", self._mark("process", try_number, map_index).exists
        since = len(self.server.requests)

        def looked_at() -> str | None:
            looks = Counter(
                request.parameters["identifier"]
                for request in self.server.requests[since:]
                if request.operation == "GetMetadataGenerationRun"
            )
            runs = [run for run, number in looks.items() if number >= LOOKS]
            return next((run for run in runs if self.stage.asset_of(run) == self._asset(map_index)), None)

        return str((yield f"a wait in try {try_number}", looked_at))

    def is_deferred(self, try_number: int = 1) -> Play[None]:
        """
        Wait until a try has been deferred, and the scheduler knows.

        It would take for the end of the task that is resumed what it is told late of the one that was deferred
        (apache/airflow#72716).
        """
        yield f"the deferring of try {try_number}", lambda: self.was_reported("deferred", try_number)

    def _is_in_triggerer(self, try_number: int, triggerer: Triggerer | None) -> Play[str]:
        def look() -> str | None:
            looks = [IN_PROGRESS.search(log) for log in self._trigger_logs(try_number, triggerer)]
            return next((found[1] for found in looks if found), None)

        yield from self.is_deferred(try_number)
        return str((yield f"a deferred wait in try {try_number}", look))

    def waited_for(self, *tries: int) -> str | None:
        """Return the run that goes on and that one of some tries waits for in a triggerer."""
        logs = [log for try_number in tries for log in self._trigger_logs(try_number, None)]
        runs = {run for log in logs for run in IN_PROGRESS.findall(log)}
        return next((run for run in runs if self.status(run) == "IN_PROGRESS"), None)

    def is_dropped(self, triggerer: Triggerer | None = None) -> Play[None]:
        """
        Wait until a triggerer has let go of the first try's trigger.

        :param triggerer: Which; by default any.
        """

        def let_go() -> bool:
            # Airflow 2.11 says so in the triggerer's own log.
            own = triggerer.component.output if triggerer is not None else ""
            logs = "\n".join([own, *self._trigger_logs(1, triggerer)])
            return any("completed" in line and self.name in line for line in logs.splitlines())

        yield "a trigger's end", let_go

    def was_reported(self, state: str, try_number: int = 1) -> bool:
        """Whether the scheduler has been told that a try's process ended, and found the task in a state."""
        return (self.name, state, try_number) in self.stage.reports

    # ---------------------------------------------------------------- places

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
    An Airflow in which rows are played.

    :param deployment: Airflow, without a triggerer.
    :param server: The local DataZone.
    """

    def __init__(self, deployment: Deployment, server: DataZoneServer) -> None:
        self.deployment = deployment
        self.server = server
        self.client = server.client()
        self.marks = deployment.home / "marks"
        self.marks.mkdir()
        #: The states of the DAG runs, by DAG.
        self.dag_runs: dict[str, str] = {}
        #: What executors reported of tasks: the DAG, the task's state by then, and its try.
        self.reports: set[tuple[str, str, int]] = set()
        (scheduler,) = [one for one in deployment.components if one.name.startswith("scheduler")]
        self._scheduler_log = scheduler.log.open(encoding="utf-8", errors="replace")
        self._place = server.create_asset()
        self._assets: dict[str, str] = {}
        self.cases: list[Case] = []
        #: The triggerer that there is, once it is the only one.
        self.triggerer: Triggerer | None = None
        self._since = time.monotonic()

    def close(self) -> None:
        self._scheduler_log.close()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._since

    def play(self, cases: list[Case]) -> dict[str, Outcome]:
        """Play all; what is not over when nothing goes on any more is in trouble."""
        self.cases = cases
        under_way = list(cases)

        def step() -> int:
            self._look()
            steps = 0
            for case in list(under_way):
                beginning = sum(other.begun and not other.has_begun for other in under_way)
                if case.begun or beginning < BEGINNING:
                    steps += case.step()
                    if case.is_over:
                        under_way.remove(case)
            return steps

        try:
            while under_way:
                self.deployment.wait_for("any change", step, seconds=PATIENCE)
        except AssertionError as error:
            for case in under_way:
                case.give_up(str(error))
        return {case.name: case.outcome() for case in cases}

    def _look(self) -> None:
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
        """Wait until no more triggerers come and go."""
        changing = [case for case in self.cases if case.name.startswith("triggerer")]
        yield "steady triggerers", lambda: all(case.is_over for case in changing)

    # --------------------------------------------------------------- DataZone

    def create_asset(self, name: str) -> AssetIdentifiers:
        domain, project, _ = self._place
        return self.server.create_asset(name, domain_identifier=domain, project_identifier=project)

    def list_runs(self, **filters: str) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("list_metadata_generation_runs").paginate(
            domainIdentifier=self._place.domain_identifier, **filters
        )
        return [item for page in pages for item in page["items"]]

    def get_run(self, run: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get_metadata_generation_run(
            domainIdentifier=self._place.domain_identifier, identifier=run
        )
        return answer

    def asset_of(self, run: str) -> str | None:
        if run not in self._assets:
            self._assets = {item["id"]: item["target"]["identifier"] for item in self.list_runs()}
        return self._assets.get(run)
