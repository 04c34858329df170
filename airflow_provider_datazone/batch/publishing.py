"""Accept the predictions for the assets of a batch, and publish the assets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.batch.requests import RequestKind
from airflow_provider_datazone.idempotency import token_of
from airflow_provider_datazone.polling.source import AcceptRequest, PublishRequest
from airflow_provider_datazone.service_errors import is_denied_by_iam, is_denied_by_membership

if TYPE_CHECKING:
    from airflow_provider_datazone.batch.assets import AssetRow
    from airflow_provider_datazone.batch.requests import BatchRequests
    from airflow_provider_datazone.batch.state import BatchSettings
    from airflow_provider_datazone.polling.poller import RunPoller
    from airflow_provider_datazone.polling.sender import Turn


def _scope_of_denial(row: AssetRow, error: BaseException) -> str | None:
    if is_denied_by_iam(error):
        return ""
    return row.owning_project_identifier if is_denied_by_membership(error) else None


ACCEPT = RequestKind("AcceptPredictions", "accept predictions", _scope_of_denial)
PUBLISH = RequestKind("CreateListingChangeSet", "publish an asset", _scope_of_denial)


class AssetPublisher:
    """
    Accept and publish what the runs of a batch have generated.

    :param settings: The batch's settings.
    :param requests: The batch's requests.
    """

    def __init__(self, settings: BatchSettings, requests: BatchRequests) -> None:
        self._settings = settings
        self._requests = requests

    async def process(self, poller: RunPoller, row: AssetRow) -> None:
        """Accept and publish an asset, as the settings require; record an error in its row."""
        steps = self._settings.steps
        for kind, is_pending, attempt in (
            (ACCEPT, steps.needs_accept, self._accept),
            (PUBLISH, steps.needs_publish, self._publish),
        ):
            if is_pending(row):
                work = self._requests.repeat(kind, row, poller, partial(attempt, poller, row))
                await self._requests.run(kind, row, work)
                if is_pending(row) and row.error is None and (denial := self._requests.denial(kind, row)):
                    row.error, row.is_refused = denial, True
            if is_pending(row):
                return

    async def _accept(self, poller: RunPoller, row: AssetRow) -> None:
        threshold = float(self._settings.steps.accept_threshold or 0.0)
        request = AcceptRequest(row.asset_identifier, row.asset_revision, threshold)

        def record(revision: str) -> None:
            row.revision = revision

        # The run distinguishes the predictions from those of an earlier run of the asset.
        token = self._token(ACCEPT, *request, row.run_identifier)
        await poller.sender.accept(request, token, self._turn(ACCEPT, row, record))

    async def _publish(self, poller: RunPoller, row: AssetRow) -> None:
        request = PublishRequest(row.asset_identifier, row.revision)

        def record(listing: str) -> None:
            row.listing = listing

        token = self._token(PUBLISH, *request)
        await poller.sender.publish(request, token, self._turn(PUBLISH, row, record))

    def _token(self, kind: RequestKind, *request: Any) -> str:
        """Return the client token that every process of the task computes for a request."""
        return token_of(self._settings.identity, kind.name, self._settings.domain_identifier, request)

    def _turn(self, kind: RequestKind, row: AssetRow, record: Callable[[str], None]) -> Turn:
        return self._requests.turn(
            kind, row, is_needed=lambda: self._requests.denial(kind, row) is None, record=record
        )
