"""Waits, watches and other jobs, each on the poller for its connection and domain."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.polling.errors import (
    CredentialsRejectedError,
    DeadlinePassedError,
    PollerEndedError,
)
from airflow_provider_datazone.polling.rate import LONGEST_PAUSE
from airflow_provider_datazone.polling.registry import Backoff, current_registry

if TYPE_CHECKING:
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
    from airflow_provider_datazone.polling.poller import RunPoller
    from airflow_provider_datazone.polling.registry import Connection, Registry
    from airflow_provider_datazone.polling.source import HookParameters
    from airflow_provider_datazone.polling.watch import RunWatch

T = TypeVar("T")


async def wait_for_run(
    parameters: HookParameters,
    run_identifier: str,
    *,
    domain_identifier: str,
    run_type: str | None,
    poll_interval: float,
    timeout: float | None,
    log: logging.Logger,
) -> MetadataGenerationRun:
    """
    Wait until a metadata generation run is terminal, on the poller for its connection and domain.

    :param parameters: The hook's parameters.
    :param run_identifier: The run.
    :param domain_identifier: The domain.
    :param run_type: Read only this type.
    :param poll_interval: Seconds between two polls.
    :param timeout: Maximum seconds to wait, ``None`` for no limit.
    :param log: The task's log, for changes of the status and transient errors.
    :return: The terminal run, as Get returned it.
    :raises DeadlinePassedError: The run has not ended in time.
    :raises Exception: The error of the connection lookup, or DataZone's.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    pollers = _Pollers(parameters, domain_identifier, run_identifier, log, deadline)
    # It would take memory as long as the wait.
    del parameters
    # Not with `run_on_poller`: each coroutine between here and the poller takes memory for every wait.
    while True:
        poller = await pollers.get_next()
        try:
            return await poller.wait(
                run_identifier,
                run_type=run_type,
                poll_interval=poll_interval,
                timeout=None if deadline is None else deadline - loop.time(),
                log=log,
            )
        except PollerEndedError:
            continue
        except CredentialsRejectedError as error:
            rejection = error
        await pollers.after_rejection(rejection)


async def watch_runs(
    parameters: HookParameters, watch: RunWatch, *, domain_identifier: str, log: logging.Logger
) -> None:
    """
    Keep a watch up to date until the caller is canceled, on the poller for its connection and domain. After
    an error, try again, later each time.

    :param parameters: The hook's parameters.
    :param watch: The watch.
    :param domain_identifier: The domain.
    :param log: The log of the triggerer.
    """
    loop = asyncio.get_running_loop()
    registry = current_registry()
    # Shared, so that many watches do not look up their connection, and build a client, one after the other.
    backoff = registry.backoffs.setdefault(
        json.dumps([parameters, domain_identifier], sort_keys=True), Backoff()
    )
    while True:
        try:
            await _watch(registry, parameters, watch, domain_identifier)
        except PollerEndedError:
            continue
        except Exception as error:
            level = logging.WARNING if backoff.begin(watch.poll_interval) else logging.DEBUG
            log.log(
                level,
                "The runs of domain %r cannot be watched, will try again in %.0f seconds. Runs that the "
                "watcher already follows are reported later. %s: %s",
                domain_identifier,
                backoff.pause,
                type(error).__name__,
                sanitize(str(error)),
            )
        await asyncio.sleep(backoff.until - loop.time())


async def _watch(
    registry: Registry, parameters: HookParameters, watch: RunWatch, domain_identifier: str
) -> None:
    connection = await registry.get_connection(parameters)
    poller = registry.get_poller(connection, domain_identifier)
    try:
        with poller.keep_open():
            await poller.watch(watch)
    except CredentialsRejectedError as rejection:
        registry.reject(connection)
        # Waits may keep this poller open. The next one has a new client, with credentials from outside of
        # Airflow that may have been renewed.
        registry.replace(poller)
        error = rejection.__cause__ or rejection
    # Outside of the handler, see `run_on_poller`.
    raise error


async def cancel_run(
    parameters: HookParameters, run_identifier: str, *, domain_identifier: str, log: logging.Logger
) -> MetadataGenerationRun:
    """
    Cancel a metadata generation run unless it has ended, on the poller for its connection and domain.

    :param parameters: The hook's parameters.
    :param run_identifier: The run.
    :param domain_identifier: The domain.
    :param log: The task's log, for transient errors.
    :return: The run after the cancellation.
    :raises Exception: The error of the connection lookup, or DataZone's.
    """

    async def cancel(poller: RunPoller) -> MetadataGenerationRun:
        return await poller.sender.cancel(run_identifier, log)

    return await run_on_poller(parameters, domain_identifier, cancel, subject=run_identifier, log=log)


async def run_on_poller(
    parameters: HookParameters,
    domain_identifier: str,
    job: Callable[[RunPoller], Awaitable[T]],
    *,
    subject: str,
    log: logging.Logger,
    deadline: float | None = None,
) -> T:
    """
    Run a job on a poller. If DataZone rejects its credentials, look up the connection again and repeat the
    job.

    :param parameters: The hook's parameters.
    :param domain_identifier: The domain.
    :param job: The job, which has its own deadline.
    :param subject: The run that the job is about, or an empty string.
    :param log: The task's log.
    :param deadline: Event loop time when the lookup of the connection is stopped, ``None`` for no limit.
    :raises DeadlinePassedError: The lookup has not ended by the deadline.
    """
    pollers = _Pollers(parameters, domain_identifier, subject, log, deadline)
    while True:
        poller = await pollers.get_next()
        try:
            # Closes the poller also if the job ends before its first wait.
            with poller.keep_open():
                return await job(poller)
        except PollerEndedError:
            continue
        except CredentialsRejectedError as error:
            rejection = error
        # Outside of the handler: otherwise the context of DataZone's error would be the rejection, whose
        # cause is that error. Airflow 2.11 follows such a loop forever when it masks secrets, and logs no
        # error at all.
        await pollers.after_rejection(rejection)


class _Pollers:
    """
    The pollers of one wait or job, one after the other.

    :param parameters: The hook's parameters.
    :param domain_identifier: The domain.
    :param subject: The run that it is about, or an empty string.
    :param log: The task's log.
    :param deadline: Event loop time when the lookup of the connection is stopped, ``None`` for no limit.
    """

    __slots__ = (
        *("_parameters", "_domain_identifier", "_subject", "_log", "_deadline"),
        *("_connection", "_poller", "_rejections"),
    )

    def __init__(
        self,
        parameters: HookParameters,
        domain_identifier: str,
        subject: str,
        log: logging.Logger,
        deadline: float | None,
    ) -> None:
        self._parameters = parameters
        self._domain_identifier = domain_identifier
        self._subject = subject
        self._log = log
        self._deadline = deadline
        self._connection: Connection
        self._poller: RunPoller
        self._rejections = 0

    async def get_next(self) -> RunPoller:
        """
        Look up the connection, and return its poller.

        :raises DeadlinePassedError: The lookup has not ended by the deadline.
        """
        registry = current_registry()
        lookup = registry.get_connection(self._parameters)
        self._connection = await _before(self._deadline, lookup, self._subject)
        # Equal, and the same object for all waits: each trigger has made its own.
        self._parameters = self._connection.parameters
        self._poller = registry.get_poller(self._connection, self._domain_identifier)
        return self._poller

    async def after_rejection(self, error: CredentialsRejectedError) -> None:
        """
        Let the next lookup get other credentials.

        :raises Exception: DataZone's error, if other credentials do not help.
        """
        current_registry().reject(self._connection)
        # New credentials do not help if DataZone has responded to no request, or to others but never to
        # this job. A long wait that received responses may outlive its credentials many times.
        never_answered = error.subject == self._subject and self._subject not in self._poller.answered_runs
        is_hopeless = not self._poller.sender.has_responded or never_answered
        if self._rejections and is_hopeless:
            raise error.__cause__ or error
        name = self._parameters.aws_conn_id
        source = f"connection {name}" if name else "boto3's own credentials"
        self._log.info("The credentials were rejected; looking %s up again.", source)
        if self._rejections:
            # DataZone accepts some requests and rejects others. Do not flood Airflow with lookups.
            pause = asyncio.sleep(min(2.0 ** min(self._rejections - 1, 6), LONGEST_PAUSE))
            await _before(self._deadline, pause, self._subject)
        self._rejections += 1


async def _before(deadline: float | None, step: Coroutine[Any, Any, T], subject: str) -> T:
    """Run a step with a deadline, without ``wait_for``: a lookup may raise its own ``TimeoutError``."""
    if deadline is None:
        return await step
    task = asyncio.ensure_future(step)
    try:
        await asyncio.wait({task}, timeout=max(deadline - asyncio.get_running_loop().time(), 0))
        if not task.done():
            raise DeadlinePassedError(f"{subject!r} has not ended in time; its status is not known")
        return task.result()
    finally:
        task.cancel()
