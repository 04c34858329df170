"""Send the requests of a poller at their rates, and detect throttling and rejected credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow_provider_datazone.exceptions import MalformedResponseError
from airflow_provider_datazone.metadata_generation import NEW_RESOURCE_GRACE
from airflow_provider_datazone.polling.errors import CredentialsRejectedError
from airflow_provider_datazone.polling.rate import (
    ACCEPT_THREADS,
    CANCEL_THREADS,
    POLL_THREADS,
    PUBLISH_THREADS,
    START_THREADS,
    Lane,
    Rates,
    RequestRate,
)
from airflow_provider_datazone.service_errors import (
    is_permanent,
    is_rejected_credentials,
    is_throttling,
    is_transient,
    may_be_new,
)

if TYPE_CHECKING:
    import logging

    from airflow_provider_datazone.idempotency import RunRequest
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun
    from airflow_provider_datazone.polling.source import AcceptRequest, Page, PublishRequest, RunSource, Send

T = TypeVar("T")

# Transient errors in a row after which a List ends.
MAX_LIST_FAILURES = 3
# Seconds until a Cancel is sent again after a transient error. The trigger limits the total time.
CANCEL_RETRY_INTERVAL = 2.0


class Turn(NamedTuple):
    """
    How a request of a batch waits for its turn and is sent.

    :param lock: Held while the request waits for the rate. With one lock per batch and kind of request, only
        one request of a batch waits at a time, so a small batch gets the same rate as a large one.
    :param is_needed: Whether the request still has to be sent; checked right before it is sent.
    :param send: Called with the request in the thread that sends it. Sends the request, or raises an error
        without sending it.
    """

    lock: asyncio.Lock
    is_needed: Callable[[], bool]
    send: Send[Any]


class RequestSender:
    """
    Send requests at their rates.

    Every method raises :class:`CredentialsRejectedError` if DataZone rejects the credentials, and DataZone's
    error otherwise.

    :param source: Where to send the requests.
    :param rates: The rates, which pollers of the same account and Region share.
    :param on_rejected: Called when DataZone rejects the credentials.
    :param poll_threads: Maximum number of Gets and Lists at a time.
    """

    def __init__(
        self,
        source: RunSource,
        rates: Rates,
        on_rejected: Callable[[CredentialsRejectedError], None],
        *,
        poll_threads: int = POLL_THREADS,
    ) -> None:
        #: Whether DataZone has responded to any request; a refusal counts.
        self.has_responded = False
        self.source = source
        # Referenced here, since the registry holds rates weakly and the account's next poller needs them.
        self.rates = rates
        self._polls = Lane(rates.polls, poll_threads)
        self._starts = Lane(rates.starts, START_THREADS)
        self._cancels = Lane(rates.cancels, CANCEL_THREADS)
        self._accepts = Lane(rates.accepts, ACCEPT_THREADS)
        self._publications = Lane(rates.publications, PUBLISH_THREADS)
        self._on_rejected = on_rejected

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        """Read one run."""
        return await self._poll(lambda: self.source.get(run_identifier, run_type), run_identifier)

    async def list_active_runs(self) -> AsyncGenerator[list[MetadataGenerationRun]]:
        """
        List the active runs of the domain, and yield each page. After a transient error, request it again.

        ``SUBMITTED`` runs come first, so a run that changes its status in between is still listed.
        """
        failures = 0
        for status in ("SUBMITTED", "IN_PROGRESS"):
            next_token: str | None = None
            seen: set[str] = set()
            while True:
                try:
                    runs, next_token = await self.list_page(status, next_token)
                except CredentialsRejectedError:
                    raise
                except Exception as error:
                    failures += 1
                    if is_transient(error) and failures < MAX_LIST_FAILURES:
                        continue
                    raise
                failures = 0
                yield [run for run in runs if run.is_active]
                if next_token is None:
                    break
                _require_new_page(next_token, seen)

    async def list_page(self, status: str, next_token: str | None) -> Page:
        """Read one page of the runs with a status."""
        return await self._poll(lambda: self.source.list_page(status, next_token), status)

    async def list_runs_of_asset(self, asset_identifier: str) -> list[MetadataGenerationRun]:
        """List all runs of an asset, each page at the rate of polls."""
        runs: list[MetadataGenerationRun] = []
        next_token: str | None = None
        seen: set[str] = set()
        while True:
            page, next_token = await self._list_asset_page(asset_identifier, next_token)
            runs += page
            if next_token is None:
                return runs
            _require_new_page(next_token, seen)

    async def _list_asset_page(self, asset_identifier: str, next_token: str | None) -> Page:
        return await self._poll(
            lambda: self.source.list_asset_page(asset_identifier, next_token), asset_identifier
        )

    async def start(self, request: RunRequest, client_token: str, turn: Turn) -> MetadataGenerationRun | None:
        """
        Start a run at the rate of Starts.

        :param turn: When and how to send the request.
        :return: The run, or ``None`` if it is no longer needed.
        """
        return await self._send_in_turn(
            self._starts,
            turn,
            lambda: self.source.start(request, client_token, turn.send),
            request.asset_identifier,
        )

    async def accept(self, request: AcceptRequest, client_token: str, turn: Turn) -> str | None:
        """Accept predictions; return the asset's new revision, or ``None`` if this is no longer needed."""
        return await self._send_in_turn(
            self._accepts,
            turn,
            lambda: self.source.accept(request, client_token, turn.send),
            request.asset_identifier,
        )

    async def publish(self, request: PublishRequest, client_token: str, turn: Turn) -> str | None:
        """Publish an asset; return the listing's identifier, or ``None`` if this is no longer needed."""
        return await self._send_in_turn(
            self._publications,
            turn,
            lambda: self.source.publish(request, client_token, turn.send),
            request.asset_identifier,
        )

    async def _send_in_turn(
        self, lane: Lane, turn: Turn, request: Callable[[], Awaitable[T]], subject: str
    ) -> T | None:
        async with turn.lock:
            # First, since requests that passed the rate while the client is built would be sent together.
            await self.source.ready()
            await lane.acquire(turn.is_needed)
        try:
            return await self._send(lane.rate, request, subject) if turn.is_needed() else None
        finally:
            lane.release()

    async def cancel(self, run_identifier: str, log: logging.Logger) -> MetadataGenerationRun:
        """Cancel a run unless it has ended; after a transient error, try again."""
        loop = asyncio.get_running_loop()
        grace_until = loop.time() + NEW_RESOURCE_GRACE
        while True:
            try:
                await self.source.ready()
                # At a separate rate, so that polls do not delay it: a killed task has only seconds.
                async with self._cancels.request():
                    return await self._send(
                        self._cancels.rate, lambda: self.source.cancel(run_identifier), run_identifier
                    )
            except Exception as error:
                is_new = may_be_new(error) and loop.time() < grace_until
                if not is_transient(error) and not is_new:
                    raise
                log.warning("Could not cancel the run just now, will try again: %s", error)
            await asyncio.sleep(CANCEL_RETRY_INTERVAL)

    async def _poll(self, request: Callable[[], Awaitable[T]], subject: str) -> T:
        await self.source.ready()
        async with self._polls.request():
            return await self._send(self._polls.rate, request, subject)

    async def _send(self, rate: RequestRate, request: Callable[[], Awaitable[T]], subject: str) -> T:
        """
        Send a request that has passed its rate.

        :param rate: The rate, which adapts to the result.
        :param request: Sends the request.
        :param subject: The run, asset or status that it is about.
        """
        sent_at = asyncio.get_running_loop().time()
        try:
            response = await request()
        except Exception as error:
            if is_throttling(error):
                rate.on_throttled(sent_at)
            if is_permanent(error):
                # DataZone refused the request, but it accepted the credentials.
                self.has_responded = True
            if is_rejected_credentials(error):
                rejection = CredentialsRejectedError(str(error), subject)
                rejection.__cause__ = error
                self._on_rejected(rejection)
                raise rejection from error
            raise
        rate.on_response()
        self.has_responded = True
        return response


def _require_new_page(next_token: str, seen: set[str]) -> None:
    """Fail a List whose pages form a loop, which would never end."""
    if next_token in seen:
        raise MalformedResponseError("DataZone responded with the same pages in a loop")
    seen.add(next_token)
