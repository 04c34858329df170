"""The connections, pollers and rates that the waits and watches of an event loop share."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary, WeakValueDictionary

from asgiref.sync import sync_to_async

from airflow_provider_datazone.metrics import report_waits
from airflow_provider_datazone.polling.poller import RunPoller
from airflow_provider_datazone.polling.rate import LONGEST_PAUSE, Rates
from airflow_provider_datazone.polling.source import (
    HookParameters,
    HookSource,
    OpenedHook,
    import_hook,
    open_hook,
)

# Maximum seconds until watches try again after an error.
LONGEST_WATCH_PAUSE = 300.0
# Seconds for which new waits share one lookup of their connection.
CONNECTION_LIFETIME = 30.0


@dataclass(eq=False)
class Connection:
    """A connection that has been looked up, with the parameters of the lookup."""

    opened: OpenedHook
    parameters: HookParameters
    is_rejected: bool = False


class Backoff:
    """When the watches of a connection and domain try again after an error."""

    def __init__(self) -> None:
        self.pause = 0.0
        # Event loop time.
        self.until = -math.inf

    def begin(self, poll_interval: float) -> bool:
        """
        Set the time, unless another watch has already done that.

        :param poll_interval: The first pause in seconds.
        :return: Whether this watch has set it.
        """
        now = asyncio.get_running_loop().time()
        if now < self.until:
            return False
        if now > self.until + LONGEST_WATCH_PAUSE:
            # The watches have worked in the meantime.
            self.pause = 0.0
        self.pause = min(max(2 * self.pause, poll_interval), LONGEST_WATCH_PAUSE)
        self.until = now + self.pause
        return True


class Registry:
    """What the waits and watches of an event loop share. After their end, it does not reference the loop."""

    def __init__(self) -> None:
        self.connections: dict[str, tuple[float, Connection]] = {}
        self.lookups: dict[str, asyncio.Task[Connection]] = {}
        self.pollers: dict[tuple[str, str], RunPoller] = {}
        # With those that have been replaced.
        self._open_pollers: set[RunPoller] = set()
        self.rates: WeakValueDictionary[str, Rates] = WeakValueDictionary()
        self.backoffs: dict[str, Backoff] = {}

    async def get_connection(self, parameters: HookParameters) -> Connection:
        """Look up a connection, once for all callers within a short time."""
        loop = asyncio.get_running_loop()
        key = json.dumps(parameters, sort_keys=True)
        expires, known = self.connections.get(key, (0.0, None))
        if known is not None and not known.is_rejected and loop.time() < expires:
            return known
        lookup = self.lookups.get(key)
        if lookup is None:

            def keep(done: asyncio.Task[Connection]) -> None:
                del self.lookups[key]
                if not done.cancelled() and done.exception() is None:
                    now = loop.time()
                    self.connections = {k: known for k, known in self.connections.items() if known[0] > now}
                    self.connections[key] = (now + CONNECTION_LIFETIME, done.result())

            lookup = self.lookups[key] = loop.create_task(_look_up(parameters))
            lookup.add_done_callback(keep)
        # Shielded, since other callers wait for it when one of them is canceled.
        return await asyncio.shield(lookup)

    def reject(self, connection: Connection) -> None:
        """Stop using a connection, and every lookup that returned the same credentials."""
        connection.is_rejected = True
        for _, known in self.connections.values():
            if known.opened.fingerprint == connection.opened.fingerprint:
                known.is_rejected = True

    def replace(self, poller: RunPoller) -> None:
        """Let :meth:`get_poller` return another poller from now on."""
        self.pollers = {key: known for key, known in self.pollers.items() if known is not poller}

    def get_poller(self, connection: Connection, domain_identifier: str) -> RunPoller:
        """Return the poller for a connection and domain."""
        key = (connection.opened.fingerprint, domain_identifier)
        poller = self.pollers.get(key)
        if poller is None:

            def remove() -> None:
                if self.pollers.get(key) is poller:
                    del self.pollers[key]
                self._open_pollers.discard(poller)
                self.report_waits()
                # The account's next poller must not start at full rate. A timer of the loop keeps the rates
                # for a while. This registry cannot, since it must not hold a reference to the loop.
                loop.call_later(LONGEST_PAUSE, id, rates)

            loop = asyncio.get_running_loop()
            rates = self._rates(connection.opened.rate_keys)
            source = HookSource(connection.opened.hook, domain_identifier)
            poller = RunPoller(source, rates, on_close=remove, on_round=self.report_waits)
            self.pollers[key] = poller
            self._open_pollers.add(poller)
        return poller

    def report_waits(self) -> None:
        """Report the number of waits of this event loop as a metric."""
        report_waits(sum(poller.number_of_waits for poller in self._open_pollers))

    def _rates(self, keys: tuple[str, ...]) -> Rates:
        """Return the rates of an account and Region, which DataZone's limits apply to."""
        known = (self.rates.get(key) for key in keys)
        rates = next((found for found in known if found is not None), None) or Rates.configured()
        for key in keys:
            self.rates[key] = rates
        return rates


_registries: WeakKeyDictionary[asyncio.AbstractEventLoop, Registry] = WeakKeyDictionary()


def current_registry() -> Registry:
    """Return the registry of the running event loop."""
    return _registries.setdefault(asyncio.get_running_loop(), Registry())


async def _look_up(parameters: HookParameters) -> Connection:
    # Not in the thread of `sync_to_async`, which all triggers share: the import of boto3 takes a while.
    await asyncio.to_thread(import_hook)
    # `sync_to_async` runs one lookup at a time. Parallel lookups in plain threads crash the triggerer of
    # Airflow 3.0 ("Response read out of order!").
    return Connection(await sync_to_async(open_hook)(parameters), parameters)
