"""
Where a poller sends its requests: a hook in a few threads.

boto3 and the hook are imported in a thread, when the first hook is opened: Airflow imports a trigger in its
event loop, which the import would block.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from airflow_provider_datazone.polling.rate import MAX_THREADS
from airflow_provider_datazone.version_compat import initialize_stats

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.utils.mixins import AwsBaseHookMixin

    from airflow_provider_datazone.hooks.datazone import DataZoneHook
    from airflow_provider_datazone.idempotency import RunRequest
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun

    Page = tuple[list[MetadataGenerationRun], str | None]

T = TypeVar("T")
# Sends a request in the thread that calls it, or raises an error without sending it.
Send = Callable[[Callable[[], T]], T]

PAGE_SIZE = 50


class HookParameters(NamedTuple):
    """The four AWS parameters of a task, from which a trigger creates a hook."""

    aws_conn_id: str | None
    region_name: str | None
    verify: bool | str | None
    botocore_config: dict[str, Any] | None

    @classmethod
    def for_task(cls, task: AwsBaseHookMixin[DataZoneHook]) -> HookParameters:
        """Return the parameters of an operator or sensor."""
        parameters = task._hook_parameters
        return cls(
            parameters["aws_conn_id"], parameters["region_name"], parameters["verify"], parameters["config"]
        )


class OpenedHook(NamedTuple):
    """
    A hook whose connection has been looked up.

    :param hook: The hook.
    :param fingerprint: Digest of the connection and of the task's own AWS parameters.
    :param rate_keys: Keys of the account and Region. Hooks that share one of them share the request rates.
    """

    hook: DataZoneHook
    fingerprint: str
    rate_keys: tuple[str, ...]


def import_hook() -> type[DataZoneHook]:
    """Import the hook, and boto3 with it; called in a thread."""
    # Imported here to keep boto3 out of the event loop's thread.
    from airflow_provider_datazone.hooks.datazone import DataZoneHook

    initialize_stats()
    _freeze_imports()
    return DataZoneHook


def _freeze_imports() -> None:
    """
    Exempt what the process has imported from garbage collections.

    Airflow's modules have some 200,000 objects, which live as long as the process. A full collection takes a
    fifth of a second or more to traverse them, no trigger runs during that time, and the objects of thousands
    of waits cause many collections.
    """
    # Once: a client that is frozen and no longer used would stay in memory.
    if gc.get_freeze_count() == 0:
        gc.freeze()


def open_hook(parameters: HookParameters) -> OpenedHook:
    """Create a hook and look up its connection; called in a thread."""
    hook = import_hook()(
        parameters.aws_conn_id,
        region_name=parameters.region_name,
        verify=parameters.verify,
        config=parameters.botocore_config,
    )
    config = hook.conn_config
    parts = [parameters, config.login, config.password, config.extra_config]
    text = json.dumps(parts, sort_keys=True, default=repr)
    return OpenedHook(hook, hashlib.sha256(text.encode()).hexdigest(), _rate_keys(hook))


def _rate_keys(hook: DataZoneHook) -> tuple[str, ...]:
    """
    Return two keys of the account and Region that a hook's requests count for.

    The connection ID stays when a user edits the credentials. The principal is the same when several
    connections have credentials of the same account.
    """
    config = hook.conn_config
    where = [hook.region_name, config.get_service_endpoint_url("datazone")]
    # The ARN of a role contains its account.
    principal = (config.role_arn or "").split(":")[4:5] or config.login or config.profile_name
    return tuple(
        json.dumps([kind, value, *where], default=repr)
        for kind, value in (("connection", hook.aws_conn_id), ("principal", principal))
    )


class AcceptRequest(NamedTuple):
    """
    A request to accept the predictions for an asset.

    :param asset_identifier: The asset.
    :param revision: Its revision; ``None`` for the latest.
    :param threshold: The lowest confidence to accept, 0 to 1.
    """

    asset_identifier: str
    revision: str | None
    threshold: float


class PublishRequest(NamedTuple):
    """
    A request to publish an asset.

    :param asset_identifier: The asset.
    :param revision: Its revision; ``None`` for the latest. DataZone refuses any other revision.
    """

    asset_identifier: str
    revision: str | None


class RunSource(Protocol):
    """The requests that a poller sends."""

    async def ready(self) -> None:
        """Wait until requests are sent without delay."""

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        """Read one run."""

    async def list_page(self, status: str, next_token: str | None) -> Page:
        """Read one page of the runs with a status."""

    async def list_asset_page(self, asset_identifier: str, next_token: str | None) -> Page:
        """Read one page of the runs of an asset."""

    async def start(
        self, request: RunRequest, client_token: str, send: Send[MetadataGenerationRun]
    ) -> MetadataGenerationRun:
        """Start a run. A thread calls `send` with the request."""

    async def accept(self, request: AcceptRequest, client_token: str, send: Send[str]) -> str:
        """Accept the predictions for an asset; return its new revision."""

    async def publish(self, request: PublishRequest, client_token: str, send: Send[str]) -> str:
        """Publish an asset; return the listing's identifier."""

    async def cancel(self, run_identifier: str) -> MetadataGenerationRun:
        """Cancel a run unless it has ended."""

    def cancel_now(self, run_identifier: str) -> None:
        """Cancel a run unless it has ended, in the calling thread: the event loop is stopped."""

    def close(self) -> None:
        """Free all resources without waiting."""


class HookSource:
    """
    Send requests with a hook in a few threads, since boto3 blocks, and so does building its client.

    :param hook: A hook whose connection has been looked up.
    :param domain_identifier: The domain.
    """

    def __init__(self, hook: DataZoneHook, domain_identifier: str) -> None:
        self._hook = hook.for_polling(MAX_THREADS)
        self._domain_identifier = domain_identifier
        # One pool for all lanes: they never send more requests than it has threads.
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="datazone-poller")
        # One client, built once: the hook would build one in each thread that finds none.
        self._client = asyncio.get_running_loop().run_in_executor(self._pool, _build_client, self._hook)
        # If it cannot be built, the first request raises the same error.
        self._client.add_done_callback(lambda client: client.cancelled() or client.exception())

    async def get(self, run_identifier: str, run_type: str | None) -> MetadataGenerationRun:
        return await self._in_thread(
            lambda: self._hook.get_metadata_generation_run(
                run_identifier, domain_identifier=self._domain_identifier, run_type=run_type
            )
        )

    async def list_page(self, status: str, next_token: str | None) -> Page:
        return await self._list(status=status, next_token=next_token)

    async def list_asset_page(self, asset_identifier: str, next_token: str | None) -> Page:
        return await self._list(asset_identifier=asset_identifier, next_token=next_token)

    async def _list(self, **arguments: Any) -> Page:
        return await self._in_thread(
            lambda: self._hook.list_metadata_generation_runs_page(
                domain_identifier=self._domain_identifier, page_size=PAGE_SIZE, **arguments
            )
        )

    async def start(
        self, request: RunRequest, client_token: str, send: Send[MetadataGenerationRun]
    ) -> MetadataGenerationRun:
        start: Callable[[], Any] = partial(
            self._hook.start_metadata_generation_run,
            request.asset_identifier,
            types=request.types,
            owning_project_identifier=request.owning_project_identifier,
            asset_revision=request.asset_revision,
            client_token=client_token,
            domain_identifier=request.domain_identifier,
        )
        return await self._in_thread(lambda: send(start))

    async def accept(self, request: AcceptRequest, client_token: str, send: Send[str]) -> str:
        accept: Callable[[], str] = partial(
            self._hook.accept_predictions,
            request.asset_identifier,
            domain_identifier=self._domain_identifier,
            revision=request.revision,
            rule="ALL",
            threshold=request.threshold,
            client_token=client_token,
        )
        return await self._in_thread(lambda: send(accept))

    async def publish(self, request: PublishRequest, client_token: str, send: Send[str]) -> str:
        def publish() -> str:
            listing = self._hook.publish_asset(
                request.asset_identifier,
                domain_identifier=self._domain_identifier,
                revision=request.revision,
                client_token=client_token,
            )
            return str(listing["listingId"])

        return await self._in_thread(lambda: send(publish))

    async def cancel(self, run_identifier: str) -> MetadataGenerationRun:
        return await self._in_thread(
            lambda: self._hook.cancel_metadata_generation_run_unless_ended(
                run_identifier, domain_identifier=self._domain_identifier, grace=0
            )
        )

    def cancel_now(self, run_identifier: str) -> None:
        self._hook.try_to_cancel(run_identifier, domain_identifier=self._domain_identifier)

    async def ready(self) -> None:
        if not self._client.done():
            await asyncio.wait([self._client])

    async def _in_thread(self, request: Callable[[], T]) -> T:
        await self.ready()
        return await asyncio.get_running_loop().run_in_executor(self._pool, request)

    def close(self) -> None:
        # The last job of the pool. Requests that are under way keep their connection until they end.
        self._pool.submit(self._hook.close)
        self._pool.shutdown(wait=False)


_client_lock = threading.Lock()


def _build_client(hook: DataZoneHook) -> None:
    """
    Build a hook's client without blocking the event loop.

    botocore creates some 100,000 objects from its model of DataZone. They trigger garbage collections of the
    whole heap, each of which stops every thread of the process. So the collector is off until then.
    """
    # Before a request waits for its rate, and not in the lock, where it would delay the clients of other
    # connections if STS does not respond.
    hook.open_session()
    with _client_lock:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            client = hook.conn
            # The endpoints of all of AWS take most of a client's memory. They are needed only to build it.
            cache: dict[Any, Any] = getattr(getattr(client, "_loader", None), "_cache", {})
            cache.pop(("load_data_with_path", "endpoints"), None)
        finally:
            if was_enabled:
                gc.enable()
