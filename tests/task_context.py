"""A task context as a task runner builds it, for tests that execute a task without a database of Airflow."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any


def storable(value: Any) -> Any:
    """Return a value as every database returns it, and fail if one cannot store it."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in text, "PostgreSQL does not accept NUL characters"
    return json.loads(text)


class TaskInstance(SimpleNamespace):
    """A task instance that stores XComs in memory. Other tests use the one from Airflow."""

    def __init__(self, **attributes: Any) -> None:
        defaults = {"dag_id": "enrich", "run_id": "manual", "task_id": "generate", "map_index": -1}
        tries = {"try_number": 1, "max_tries": 3}
        super().__init__(**defaults | tries | {"xcoms": {}} | attributes)

    def xcom_push(self, key: str, value: Any, **_: Any) -> None:
        # Airflow 2.11 passes an execution_date, too.
        self.xcoms[key] = storable(value)

    def xcom_pull(self, *, key: str, **_: Any) -> Any:
        return self.xcoms.get(key)

    def get_first_reschedule_date(self, context: Any) -> None:
        """Return None: the task was not rescheduled before."""


class Store:
    """A task state store in memory. Airflow's own exists only in a running task; both store JSON."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self._values[key]) if key in self._values else default

    def set(self, key: str, value: Any) -> None:
        self._values[key] = json.dumps(value)


def make_context(store: Store | None = None, **attributes: Any) -> Any:
    """
    Return the parts of a task context that tasks of this package read.

    :param store: The task state store, which Airflow has since 3.3.
    :param attributes: Attributes of the task instance.
    """
    context: dict[str, Any] = {
        "ti": TaskInstance(**attributes),
        "dag_run": SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)),
    }
    return context if store is None else context | {"task_state_store": store}


def make_resumed_context(store: Store | None = None, **attributes: Any) -> Any:
    """Return the context of a task that has deferred. On Airflow 3.0, it has pushed the number of that try."""
    return make_context(store, **{"xcoms": {"deferred_in_try": 1}} | attributes)
