"""
Client tokens, and the rules that distinguish a retry from a new request, so that no run is started twice.

Every try of a task sends the same client token for the same submission, so DataZone starts one run. A
submission is one request of the user: the task's first try, a retry after a failed run, or a clear of a
succeeded task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import islice, permutations
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_datazone.exceptions import NotConfiguredError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun

# Seconds after the adoption of a run in which the kill of the previous try may still cancel it.
CANCELED_WITH_TASK_WINDOW = 120


class RunRequest(NamedTuple):
    """The parameters of a Start request, with domain and project resolved, and the types in order."""

    asset_identifier: str
    types: Sequence[str]
    domain_identifier: str
    owning_project_identifier: str
    asset_revision: str | None

    @property
    def fingerprint(self) -> str:
        """A digest that is equal for equal requests."""
        return _digest(self)

    def has_fingerprint(self, stored: Any) -> bool:
        """Whether a stored fingerprint is that of this request. Version 0.1 did not sort the types."""
        orders = islice(permutations(self.types), 24)
        return any(stored == self._replace(types=order).fingerprint for order in orders)


def client_token(context: Context, *parts: Any) -> str:
    """
    Return the client token that every try of a task instance computes, until a user clears the task.

    :param context: The task's context.
    :param parts: The request, and what distinguishes it from earlier requests of the task; JSON.
    :return: 1 to 128 printable ASCII characters, as DataZone requires.
    """
    ti, dag_run = context["ti"], context["dag_run"]
    # Distinguishes DAG runs with the same ID: in another Airflow, or deleted and created again.
    began = dag_run.start_date and dag_run.start_date.isoformat()
    # A clear changes max_tries, or the start of the DAG run if that had ended; a retry changes neither.
    # Not the DAG run's clear_number, which Airflow 3.2 also increments when another task is cleared.
    return token_of(ti.dag_id, ti.run_id, ti.task_id, ti.map_index, began, ti.max_tries, parts)


def token_of(*parts: Any) -> str:
    """Return a client token computed from its parts; JSON."""
    return f"airflow-{_digest(parts)}"


def success_record(context: Context) -> dict[str, Any]:
    """
    Return what a task stores on success, so that :func:`was_cleared` recognizes a clear in a later try.

    ``succeeded``, the ``max_tries``, is all that version 0.1 stored.
    """
    ti = context["ti"]
    return {
        "succeeded": ti.max_tries,
        "succeeded_in_try": ti.try_number,
        "succeeded_at_clear": _clear_number(context),
    }


def was_cleared(record: Mapping[str, Any], context: Context) -> bool:
    """
    Return whether a user cleared a succeeded task, so that it is to run again.

    A task also runs again, without a clear, when it was killed after it stored its success and before Airflow
    did. A clear sets ``max_tries`` to ``try_number + retries``. If ``retries`` was lowered, that may be the
    same number as before. Then only the DAG run's ``clear_number`` shows the clear: Airflow 3.2 and later
    increment it with every clear. They also increment it when another task of the DAG run is cleared, so both
    numbers have to match.

    :param record: The result of :func:`success_record`, or an earlier version's record.
    :param context: The context of the later try.
    """
    if "succeeded" not in record:
        return False
    max_tries = context["ti"].max_tries
    if record["succeeded"] != max_tries:
        return True
    succeeded_in_try, at_clear = record.get("succeeded_in_try"), record.get("succeeded_at_clear")
    if type(succeeded_in_try) is not int or at_clear in (None, _clear_number(context)):
        return False
    task = context.get("task")
    retries = max_tries - succeeded_in_try if task is None else task.retries
    return bool(max_tries == succeeded_in_try + retries)


def _clear_number(context: Context) -> int:
    return getattr(context["dag_run"], "clear_number", None) or 0


def was_canceled_with_previous_try(
    *, adopted_at: float | None, seen_active: bool, now: float, poll_interval: float
) -> bool:
    """
    Return whether an adopted run was canceled by the kill of the previous try, and not by a user.

    A killed try cancels its run. DataZone may still list the run as active when the next try adopts it. A
    user may cancel the run at any time later; then the task must not start another.

    :param adopted_at: Unix time in seconds when this try adopted the run; ``None`` if it is not known because
        an earlier version deferred the task.
    :param seen_active: Whether the run was active in a poll after the adoption.
    :param now: Unix time in seconds when the run was found ``CANCELED``.
    :param poll_interval: Seconds between two polls.
    """
    if adopted_at is None or not seen_active:
        return True
    return now - adopted_at <= CANCELED_WITH_TASK_WINDOW + poll_interval


def is_replay(
    run: MetadataGenerationRun, *, try_began_at: float, submission_number: int, try_number: int
) -> bool:
    """
    Return whether Start returned the run of an earlier try, because DataZone had seen the client token.

    :param run: The run that Start returned.
    :param try_began_at: Unix time in seconds when this try began.
    :param submission_number: Number of the task's submission that the token belongs to, from 1.
    :param try_number: Number of this try, from 1.
    """
    if submission_number >= try_number:
        # Each try has at most one submission, so this is the first one of this try.
        return False
    return run.created_at is None or run.created_at.timestamp() < try_began_at


def _digest(parts: Any) -> str:
    try:
        text = json.dumps(parts)
    except (TypeError, ValueError, RecursionError) as error:
        # The repr of other values may differ between tries: it may contain a memory address.
        raise NotConfiguredError(f"A request must consist of JSON values: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()
