"""The connections, pollers and rates of an event loop, and how a caller gets a poller from them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from asgiref.sync import sync_to_async

from airflow_provider_datazone.polling.errors import (
    CredentialsRejectedError,
    DeadlinePassedError,
    PollerEndedError,
)
from airflow_provider_datazone.polling.poller import RunPoller
from airflow_provider_datazone.polling.rate import LONGEST_PAUSE, Rates
from airflow_provider_datazone.polling.source import (
    HookParameters,
    HookSource,
    OpenedHook,
    import_hook,
    open_hook,
)

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun

T = TypeVar("T")

# Seconds for which new waits share one lookup of their connection.
CONNECTION_LIFETIME = 30.0


@dataclass(eq=False)
class _Connection:
    """A connection that has been looked up."""

    opened: OpenedHook
    is_rejected: bool = False


class _Registry:
    """What the waits of one event loop share. When they have ended, it holds no reference to the loop."""

    def __init__(self) -> None:
        self.connections: dict[str, tuple[float, _Connection]] = {}
        self.lookups: dict[str, asyncio.Task[_Connection]] = {}
        self.pollers: dict[tuple[str, str], RunPoller] = {}
        self.rates: WeakValueDictionary[str, Rates] = WeakValueDictionary()

    async def get_connection(self, parameters: HookParameters) -> _Connection:
        """Look up a connection, once for all callers within a short time."""
        loop = asyncio.get_running_loop()
        key = json.dumps(parameters, sort_keys=True)
        expires, known = self.connections.get(key, (0.0, None))
        if known is not None and not known.is_rejected and loop.time() < expires:
            return known
        lookup = self.lookups.get(key)
        if lookup is None:

            def keep(done: asyncio.Task[_Connection]) -> None:
                del self.lookups[key]
                if not done.cancelled() and done.exception() is None:
                    self.connections[key] = (loop.time() + CONNECTION_LIFETIME, done.result())

            lookup = self.lookups[key] = loop.create_task(_look_up(parameters))
            lookup.add_done_callback(keep)
        # Shielded, since other callers wait for it when one of them is canceled.
        return await asyncio.shield(lookup)

    def reject(self, connection: _Connection) -> None:
        """Stop using a connection, and every lookup that returned the same credentials."""
        connection.is_rejected = True
        for _, known in self.connections.values():
            if known.opened.fingerprint == connection.opened.fingerprint:
                known.is_rejected = True

    def get_poller(self, connection: _Connection, domain_identifier: str) -> RunPoller:
        """Return the poller for a connection and domain."""
        key = (connection.opened.fingerprint, domain_identifier)
        poller = self.pollers.get(key)
        if poller is None:

            def remove() -> None:
                if self.pollers.get(key) is poller:
                    del self.pollers[key]
                # The account's next poller must not start at full rate. A timer of the loop keeps the rates
                # for a while. This registry cannot, since it must not hold a reference to the loop.
                loop.call_later(LONGEST_PAUSE, id, rates)

            loop = asyncio.get_running_loop()
            rates = self._rates(connection.opened.rate_keys)
            source = HookSource(connection.opened.hook, domain_identifier)
            poller = self.pollers[key] = RunPoller(source, rates, on_close=remove)
        return poller

    def _rates(self, keys: tuple[str, ...]) -> Rates:
        """Return the rates of an account and Region, which DataZone's limits apply to."""
        known = (self.rates.get(key) for key in keys)
        rates = next((found for found in known if found is not None), None) or Rates.configured()
        for key in keys:
            self.rates[key] = rates
        return rates


_registries: WeakKeyDictionary[asyncio.AbstractEventLoop, _Registry] = WeakKeyDictionary()


async def _look_up(parameters: HookParameters) -> _Connection:
    # Not in the thread of `sync_to_async`, which all triggers share: the import of boto3 takes a while.
    await asyncio.to_thread(import_hook)
    # `sync_to_async` runs one lookup at a time. Parallel lookups in plain threads crash the triggerer of
    # Airflow 3.0 ("Response read out of order!").
    return _Connection(await sync_to_async(open_hook)(parameters))


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

    async def wait(poller: RunPoller) -> MetadataGenerationRun:
        return await poller.wait(
            run_identifier,
            run_type=run_type,
            poll_interval=poll_interval,
            timeout=None if deadline is None else deadline - loop.time(),
            log=log,
        )

    return await run_on_poller(
        parameters, domain_identifier, wait, subject=run_identifier, log=log, deadline=deadline
    )


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
    registry = _registries.setdefault(asyncio.get_running_loop(), _Registry())
    rejections = 0
    while True:
        connection = await _before(deadline, registry.get_connection(parameters), subject)
        poller = registry.get_poller(connection, domain_identifier)
        try:
            # Closes the poller also if the job ends before its first wait.
            with poller.keep_open():
                return await job(poller)
        except PollerEndedError:
            continue
        except CredentialsRejectedError as error:
            registry.reject(connection)
            # New credentials do not help if DataZone has responded to no request, or to others but never to
            # this job. A long wait that received responses may outlive its credentials many times.
            never_answered = error.subject == subject and subject not in poller.answered_runs
            is_hopeless = not poller.sender.has_responded or never_answered
            if rejections and is_hopeless:
                failure: BaseException = error.__cause__ or error
                break
            name = parameters.aws_conn_id
            source = f"connection {name}" if name else "boto3's own credentials"
            log.info("The credentials were rejected; looking %s up again.", source)
            if rejections:
                # DataZone accepts some requests and rejects others. Do not flood Airflow with lookups.
                pause = asyncio.sleep(min(2.0 ** min(rejections - 1, 6), LONGEST_PAUSE))
                await _before(deadline, pause, subject)
            rejections += 1
    # Outside of the handler: otherwise the context of DataZone's error would be the rejection, whose cause is
    # that error. Airflow 2.11 follows such a loop forever when it masks secrets, and logs no error at all.
    raise failure


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
