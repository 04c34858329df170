"""
Stop a task that Airflow kills, and learn which run it has started.

On SIGTERM Airflow 3 calls ``on_kill`` and returns to the interrupted code, which runs until the process is
killed 5 seconds later. Airflow 2.11 raises an exception there instead, and the answer that the task was
waiting for is lost. Neither may leave a run behind: so Start is sent by a thread of its own, which receives
the answer whatever happens to the task's thread, and no request of a killed task is sent any more.
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
# Seconds for which a killed task waits for the answer to a Start that is in flight, at most.
_SECONDS_TO_ANSWER = 20
# Seconds after which a sleeping task notices that it was killed, at most.
_LONGEST_NAP = 1.0


class KillGuard:
    """
    Keeps a task from working after Airflow has killed it.

    It belongs to the thread that makes it, the task's. Canceling happens in other threads and is not stopped.

    :param is_killed: Returns whether ``on_kill`` has been called. It reads a plain attribute, since a signal
        handler sets it between two bytecodes of the interrupted code.
    """

    def __init__(self, is_killed: Callable[[], bool]) -> None:
        self._is_killed = is_killed
        self._task_thread = threading.get_ident()
        self._start_thread: int | None = None
        self._watched: Any = None
        # Whether a Start may have been carried out, with its answer still to come.
        self._in_flight = False

    def check(self) -> None:
        """
        Return if the task may continue.

        :raises TaskKilled: It was killed.
        """
        if self._is_killed():
            raise TaskKilled("Airflow told the task to stop; nothing more is started.")

    def sleep(self, seconds: float, sleep: Callable[[float], None]) -> None:
        """
        Sleep, unless the task is killed: a signal handler that returns does not end a longer sleep.

        :param seconds: How long.
        :param sleep: The caller's ``time.sleep``.
        :raises TaskKilled: The task was killed.
        """
        while seconds > 0:
            self.check()
            sleep(min(seconds, _LONGEST_NAP))
            seconds -= _LONGEST_NAP
        self.check()

    def watch(self, hook: DataZoneHook) -> None:
        """Stop the task's requests once it is killed, botocore's own retries included."""
        try:
            client = hook.conn
        except Exception:
            # The first request raises it again, with an explanation.
            return
        if client is not self._watched:
            client.meta.events.register("before-send.datazone", self._before_send)
            client.meta.events.register(f"needs-retry.{_START}", self._after_attempt)
            self._watched = client

    def stop(self) -> None:
        """End the watch: what this thread does next with the same client is another task's work."""
        self._task_thread = 0

    def _before_send(self, event_name: str, **_: Any) -> None:
        thread = threading.get_ident()
        if thread == self._start_thread and event_name.endswith(_START):
            # In this order: a kill that comes in between finds it in flight, and waits for it to be stopped.
            self._in_flight = True
            if self._is_killed():
                self._in_flight = False
        if thread in (self._start_thread, self._task_thread):
            self.check()

    def _after_attempt(self, response: Any = None, **_: Any) -> None:
        if threading.get_ident() == self._start_thread and (
            response is None or response[0].status_code >= 300
        ):
            # botocore sleeps before it tries again; nobody has to wait for that.
            self._in_flight = False

    def start(self, send: Callable[[], T]) -> T:
        """
        Send a Start, and return its answer also to a task that was killed in the meantime.

        :param send: Sends the Start, and takes note of the run that was started.
        :raises TaskKilled: The task was killed, and no answer has come.
        """
        self.check()
        if self._watched is None:
            # There is no client, and sending says why.
            return send()
        answers: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            self._start_thread = threading.get_ident()
            try:
                answers.append(send())
            except BaseException as error:  # the task's thread raises it
                errors.append(error)
            finally:
                self._in_flight = False
                self._start_thread = None

        thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.1)
            if self._is_killed():
                self.wait_for_answer()
                break
        if answers:
            return answers[0]
        if self._is_killed():
            raise TaskKilled("Airflow told the task to stop while it was starting a run.") from (
                errors[0] if errors and not isinstance(errors[0], TaskKilled) else None
            )
        raise errors[0]

    def wait_for_answer(self, seconds: float = _SECONDS_TO_ANSWER) -> None:
        """Wait until the answer to a Start that is in flight has come, if there is one."""
        deadline = time.monotonic() + seconds
        # Without a lock: this runs in a signal handler as well.
        while self._in_flight and time.monotonic() < deadline:
            time.sleep(0.02)
