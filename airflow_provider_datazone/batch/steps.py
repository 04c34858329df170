"""What a batch does with each asset, and when an asset is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.inputs import to_number
from airflow_provider_datazone.metadata_generation import sanitize

if TYPE_CHECKING:
    from airflow_provider_datazone.batch.assets import AssetRow


class Steps(NamedTuple):
    """
    What a batch does with each asset.

    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` is a success of the asset's run.
    :param accept_threshold: Accept the predictions with this confidence or a higher one, 0 to 1. Default
        ``None``: accept none.
    :param publish: Whether to publish the asset after that. Default ``False``.
    """

    allow_partial_success: bool = True
    accept_threshold: float | None = None
    publish: bool = False

    @classmethod
    def from_arguments(
        cls, allow_partial_success: bool, accept_threshold: float | None, publish: bool
    ) -> Steps:
        """
        Return the steps for an operator's arguments.

        :raises ValueError: An argument is invalid. DataZone would refuse it only after the first run.
        """
        accept_threshold = to_number("accept_threshold", accept_threshold)
        if accept_threshold is not None and not 0 <= accept_threshold <= 1:
            raise NotConfiguredError(f"accept_threshold must be from 0 to 1, got {accept_threshold!r}.")
        if publish and accept_threshold is None:
            raise NotConfiguredError(
                "publish=True needs accept_threshold (0 to 1): DataZone publishes only accepted predictions."
            )
        return cls(allow_partial_success, accept_threshold, publish)

    def validate(self, rows: Iterable[AssetRow]) -> None:
        """
        Validate the assets.

        :raises ValueError: An asset is to be accepted twice. Accepting the first time creates a revision, and
            the second time DataZone would refuse the earlier one.
        """
        if self.accept_threshold is None:
            return
        counts = Counter(row.asset_identifier for row in rows)
        if repeated := next((asset for asset, number in counts.items() if number > 1), None):
            raise NotConfiguredError(
                f"asset_identifiers has {sanitize(repr(repeated), length=200)} with different revisions or "
                "projects. With accept_threshold, pass each asset once."
            )

    def has_succeeded_run(self, row: AssetRow) -> bool:
        """Whether the asset's run succeeded."""
        return row.status == "SUCCEEDED" or (
            self.allow_partial_success and row.status == "PARTIALLY_SUCCEEDED"
        )

    def needs_accept(self, row: AssetRow) -> bool:
        """Whether the asset's predictions still have to be accepted; its run has succeeded."""
        return self.accept_threshold is not None and row.revision is None

    def needs_publish(self, row: AssetRow) -> bool:
        """Whether the asset still has to be published; its predictions are accepted."""
        return self.publish and row.listing is None

    def is_done(self, row: AssetRow) -> bool:
        """Whether the asset needs no more work: all steps have succeeded, or one has failed."""
        if row.error is not None:
            return True
        if self.has_succeeded_run(row):
            return not (self.needs_accept(row) or self.needs_publish(row))
        return row.has_ended

    def is_success(self, row: AssetRow) -> bool:
        """Whether all steps have succeeded."""
        return self.is_done(row) and row.error is None and self.has_succeeded_run(row)
