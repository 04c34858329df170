"""The state of a batch that worker and triggerer pass to each other, and the settings that it runs with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from airflow_provider_datazone.batch.assets import AssetRow, pack, unpack
from airflow_provider_datazone.batch.steps import Steps

# The keys of a batch's state in a trigger's arguments and event. Version 0.1 chose the names.
STATE_KEYS = ("rows", "noted_at", "started_at", "duplicates", "quota_used_up", "refusals")


class BatchSettings(NamedTuple):
    """
    The settings of a batch, which do not change while it runs.

    :param types: The types to generate.
    :param domain_identifier: The domain.
    :param identity: What the client tokens are computed from: the same for every try of a submission.
    :param try_number: Number of the task's try.
    :param try_began_at: Unix time in seconds when the try began.
    :param max_concurrent_runs: Maximum number of active runs.
    :param poll_interval: Seconds between two polls of a run.
    :param steps: What the batch does with each asset.
    """

    types: list[str]
    domain_identifier: str
    identity: str
    try_number: int
    try_began_at: float
    max_concurrent_runs: int
    poll_interval: float
    steps: Steps


@dataclass
class BatchState:
    """
    The progress of a batch.

    :param rows: The assets; the engine updates them in place.
    :param saved_at: Unix time in seconds until which the rows are complete: another process may have started
        runs since then.
    :param started_at: Unix time in seconds when the task began.
    :param duplicates: Number of assets that were passed more than once.
    :param quota_used_up: Whether a run failed because the account's monthly quota is used up, so that no more
        runs are started.
    :param refusals: DataZone's reason why no more runs are started, by project, or under an empty string for
        all assets.
    """

    rows: list[AssetRow]
    saved_at: float
    started_at: float
    duplicates: int = 0
    quota_used_up: bool = False
    refusals: dict[str, str] = field(default_factory=dict)

    def is_finished(self, steps: Steps) -> bool:
        """Whether no asset needs more work."""
        return all(
            steps.is_done(row) or (row.run_identifier is None and self.is_left_out(row)) for row in self.rows
        )

    def is_left_out(self, row: AssetRow) -> bool:
        """Whether no run is started for an asset, because other assets have shown that it would fail."""
        return self.quota_used_up or self.is_refused(row)

    def is_refused(self, row: AssetRow) -> bool:
        """Whether DataZone refuses to start runs for all assets, or for the asset's project."""
        return self._refusal(row) is not None

    def _refusal(self, row: AssetRow) -> str | None:
        return self.refusals.get("", self.refusals.get(row.owning_project_identifier))

    def why_left_out(self, row: AssetRow) -> str | None:
        """Return why no run is started for an asset, ``None`` if one is."""
        if row.run_identifier is not None or row.has_ended or not self.is_left_out(row):
            return None
        reason = self._refusal(row) or "the account's monthly quota is used up"
        return f"No run was started: {reason}"

    def results(self) -> list[dict[str, Any]]:
        """Return the XCom ``results``: a row for each asset."""
        return [
            row.to_result() | ({"error": reason} if (reason := self.why_left_out(row)) else {})
            for row in self.rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the state under :data:`STATE_KEYS`, for a trigger's arguments or event."""
        return {
            "rows": pack(self.rows),
            "noted_at": self.saved_at,
            "started_at": self.started_at,
            "duplicates": self.duplicates,
            "quota_used_up": self.quota_used_up,
            "refusals": self.refusals,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BatchState:
        """
        Read what :meth:`to_json` returned, also in an earlier version.

        :raises ValueError: It is not the state of a batch.
        """
        try:
            return cls(
                unpack(values["rows"]),
                saved_at=float(values["noted_at"]),
                started_at=float(values["started_at"]),
                duplicates=int(values["duplicates"]),
                quota_used_up=values["quota_used_up"] is True,
                # Version 0.1 omits it.
                refusals={
                    str(scope): str(reason) for scope, reason in (values.get("refusals") or {}).items()
                },
            )
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"The state of the batch cannot be read: {type(error).__name__}") from None
