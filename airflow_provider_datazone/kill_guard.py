"""
Stop a task that Airflow kills, without losing the run that it is starting.

On SIGTERM Airflow 3 calls ``on_kill`` and returns to the interrupted code, which continues until Airflow
kills the process 5 seconds later. Airflow 2.11 raises an exception in the interrupted code, and the response
that the task waits for is lost. Neither may leave a run behind. So a separate thread sends Start and receives
the response whatever happens to the task's thread, and a killed task sends no further request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_datazone.version_compat import TaskKilled

if TYPE_CHECKING:
    from airflow_provider_datazone.hooks.datazone import DataZoneHook

T = TypeVar("T")

_START = "datazone.StartMetadataGenerationRun"
# Maximum seconds for which a killed task waits for the response to a Start that is in flight.
_RESPONSE_SECONDS = 20
# Maximum seconds after which a sleeping task notices that it was killed.
_LONGEST_SLEEP = 1.0


class KillGuard:
    """
    Keeps a task from sending requests after Airflow has killed it.

    It applies to the thread that creates it, the task's. Other threads may still cancel runs.

    :param is_killed: Returns whether ``on_kill`` has been called. It reads a plain attribute, since a signal
        handler sets it between two bytecodes of the interrupted code.
    """

    def __init__(self, is_killed: Callable[[], bool]) -> None:
        self._is_killed = is_killed
        self._task_thread = threading.get_ident()
        self._start_thread: int | None = None
        self._watched: Any = None
        # Whether DataZone may have received a Start and has not responded yet.
        self._in_flight = False

    def check(self) -> None:
        """
        Return if the task may continue.

        :raises TaskKilled: Airflow killed it.
        """
        if self._is_killed():
            raise TaskKilled("Airflow killed the task; it starts no more runs.") from None

    def sleep(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """
        Sleep in short steps, and stop if the task is killed: a signal handler that returns ends no sleep.

        :param seconds: The duration.
        :param sleep: The caller's ``time.sleep``.
        :raises TaskKilled: Airflow killed the task.
        """
        while seconds > 0:
            self.check()
            sleep(min(seconds, _LONGEST_SLEEP))
            seconds -= _LONGEST_SLEEP
        self.check()

    def watch(self, hook: DataZoneHook) -> None:
        """Stop the requests of a killed task, including botocore's own retries."""
        try:
            client = hook.conn
        except Exception:
            # The first request raises the same error with its context.
            return
        if client is not self._watched:
            client.meta.events.register("before-send.datazone", self._before_send)
            client.meta.events.register(f"needs-retry.{_START}", self._after_attempt)
            self._watched = client

    def stop(self) -> None:
        """Stop watching: the next requests of this thread belong to another task."""
        self._task_thread = 0

    def _before_send(self, event_name: str, **_: Any) -> None:
        thread = threading.get_ident()
        if thread == self._start_thread and event_name.endswith(_START):
            # In this order, so that a kill in between finds the request in flight and waits until it is
            # stopped.
            self._in_flight = True
            if self._is_killed():
                self._in_flight = False
        if thread in (self._start_thread, self._task_thread):
            self.check()

    def _after_attempt(self, response: Any = None, **_: Any) -> None:
        if threading.get_ident() == self._start_thread and (
            response is None or response[0].status_code >= 300
        ):
            # botocore sleeps before it tries again. A killed task does not wait for that.
            self._in_flight = False

    def start(self, send: Callable[[], T]) -> T:
        """
        Send a Start, and return its response even if the task is killed while it waits.

        :param send: Sends the Start, and records the run.
        :raises TaskKilled: Airflow killed the task, and DataZone has not responded.
        """
        self.check()
        if self._watched is None:
            # The client could not be created; sending raises the reason.
            return send()
        responses: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            self._start_thread = threading.get_ident()
            try:
                responses.append(send())
            except BaseException as error:  # raised in the task's thread
                errors.append(error)
            finally:
                self._in_flight = False
                self._start_thread = None

        thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.1)
            if self._is_killed():
                self.wait_for_response()
                break
        if responses:
            return responses[0]
        if self._is_killed():
            raise TaskKilled("Airflow killed the task while it was starting a run.") from (
                errors[0] if errors and not isinstance(errors[0], TaskKilled) else None
            )
        raise errors[0]

    def wait_for_response(self, seconds: float = _RESPONSE_SECONDS) -> None:
        """Wait for the response to a Start that is in flight, if there is one."""
        deadline = time.monotonic() + seconds
        # Without a lock, since signal handlers call it.
        while self._in_flight and time.monotonic() < deadline:
            time.sleep(0.02)
