"""The assets of a batch: how a user names them, how far each one is, and how they are stored."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.inputs import is_rendered_list, native_advice, to_text
from airflow_provider_datazone.metadata_generation import FAILURE_STATUSES, TERMINAL_STATUSES, sanitize

if TYPE_CHECKING:
    from airflow_provider_datazone.metadata_generation import TypeStat

ASSET_KEYS = frozenset({"asset_identifier", "asset_revision", "owning_project_identifier"})


@dataclass
class AssetRow:
    """
    The state of one asset of a batch.

    Its fields are stored in Airflow's database, in this order: add new ones at the end, with a default.

    :param asset_identifier: The asset.
    :param asset_revision: Its revision, ``None`` for the latest.
    :param owning_project_identifier: The project that owns the asset.
    :param submission: Number of the submission for the asset, from 1.
    :param run_identifier: The run, once it is known.
    :param status: The run's final status, once it is terminal.
    :param type_stats: The run's typeStats, once it is terminal.
    :param error: Why there is no run, why it cannot be read, or why the asset was not accepted or published.
    :param adopted_at: Unix time in seconds when this try found the run, which another try or another client
        started; ``None`` for a run that this try started.
    :param is_refused: Whether a retry would fail with the same error.
    :param revision: The asset's revision with the accepted predictions, once they are accepted.
    :param listing: The identifier of its listing, once the asset is published.
    :param is_token_used: Whether Start returned the run for the client token of this submission. ``False`` if
        that is not known.
    :param seen_active: Whether this try has seen the adopted run active.
    :param failing_since: Unix time in seconds since when DataZone has responded to each request for the asset
        with a transient error other than throttling; ``None`` if the last request succeeded.
    """

    asset_identifier: str
    asset_revision: str | None
    owning_project_identifier: str
    submission: int = 1
    run_identifier: str | None = None
    status: str | None = None
    type_stats: list[TypeStat] = field(default_factory=list)
    error: str | None = None
    adopted_at: float | None = None
    is_refused: bool = False
    revision: str | None = None
    listing: str | None = None
    is_token_used: bool = False
    seen_active: bool = False
    failing_since: float | None = None

    @property
    def key(self) -> tuple[str, str | None, str]:
        """What identifies an asset of a batch."""
        return self.asset_identifier, self.asset_revision, self.owning_project_identifier

    @property
    def is_valid(self) -> bool:
        """Whether the fields have the right types; a stored row may come from another version."""
        texts = (
            *(self.asset_revision, self.run_identifier, self.status, self.error),
            *(self.revision, self.listing),
        )
        return (
            all(isinstance(text, str) for text in (self.asset_identifier, self.owning_project_identifier))
            and all(text is None or isinstance(text, str) for text in texts)
            and type(self.submission) is int
            and all(type(flag) is bool for flag in (self.is_token_used, self.seen_active))
            and all(
                at is None or isinstance(at, (int, float)) for at in (self.adopted_at, self.failing_since)
            )
            and isinstance(self.type_stats, list)
            and all(isinstance(stat, dict) for stat in self.type_stats)
        )

    @property
    def is_adopted(self) -> bool:
        """Whether another try or another client started the run."""
        return self.adopted_at is not None

    @property
    def has_ended(self) -> bool:
        """Whether the asset's run has ended, or an error has ended the work on the asset."""
        return self.status in TERMINAL_STATUSES or self.error is not None

    @property
    def is_active(self) -> bool:
        """Whether the asset has a run that is not known to have ended."""
        return self.run_identifier is not None and not self.has_ended

    @property
    def failures(self) -> list[TypeStat]:
        """The type stats that failed or were canceled."""
        return [stat for stat in self.type_stats if stat.get("status") in FAILURE_STATUSES]

    def reset(self) -> None:
        """
        Remove the result of the last run, so that the batch starts a new one.

        It begins another submission only if Start returned that run. Otherwise an earlier try may have sent
        the token and lost the response, so the batch has to send it again.
        """
        self.submission += self.is_token_used
        self.run_identifier = self.status = self.error = self.adopted_at = self.failing_since = None
        self.revision = self.listing = None
        self.type_stats = []
        self.is_refused = self.is_token_used = self.seen_active = False

    def to_result(self) -> dict[str, Any]:
        """Return the row of the XCom ``results``."""
        result: dict[str, Any] = {
            "asset": self.asset_identifier,
            "run": self.run_identifier,
            "status": self.status,
            "typeStats": self.type_stats,
        }
        added = {"revision": self.revision, "listing": self.listing, "error": self.error}
        return result | {name: value for name, value in added.items() if value}


def active_runs(rows: Iterable[AssetRow]) -> list[str]:
    """Return the identifiers of the runs that are not known to have ended."""
    return [str(row.run_identifier) for row in rows if row.is_active]


def pack(rows: Iterable[AssetRow]) -> str:
    """Return rows as a string that is short enough to store thousands of them in a database column."""
    text = json.dumps([astuple(row) for row in rows], separators=(",", ":"))
    return base64.b85encode(zlib.compress(text.encode())).decode()


def unpack(packed: str) -> list[AssetRow]:
    """
    Return the rows that :func:`pack` encoded, in this version or another one.

    :raises ValueError: The string does not contain rows.
    """
    try:
        items = json.loads(zlib.decompress(base64.b85decode(packed)))
        rows = [AssetRow(*item[: len(fields(AssetRow))]) for item in items]
    except (zlib.error, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(f"The rows of the batch cannot be read: {type(error).__name__}") from None
    if not all(row.is_valid for row in rows):
        raise ValueError("The rows of the batch cannot be read: fields of another type")
    return rows


def parse_assets(
    asset_identifiers: Iterable[str | dict[str, str]], default_project: Callable[[], str]
) -> tuple[list[AssetRow], int]:
    """
    Return a row for each asset, and the number of duplicates.

    :param asset_identifiers: Identifiers, or dicts with ``asset_identifier``, ``asset_revision`` and
        ``owning_project_identifier``.
    :param default_project: Called for the project of assets without one.
    :raises ValueError: It is not an iterable of such items.
    """
    not_a_list = (str, bytes, bytearray, memoryview, Mapping)
    if isinstance(asset_identifiers, not_a_list) or not isinstance(asset_identifiers, Iterable):
        raise NotConfiguredError(
            f"asset_identifiers must be a list, got a {type(asset_identifiers).__name__}. "
            f"Did its template not render to a list?{native_advice(asset_identifiers)}"
        )
    rows: dict[tuple[str, str | None, str], AssetRow] = {}
    number = 0
    project: str | None = None
    for number, item in enumerate(asset_identifiers, start=1):
        asset = _parse_asset(number, item)
        owner = asset.get("owning_project_identifier")
        if not owner:
            owner = project = project or default_project()
        row = AssetRow(str(asset["asset_identifier"]), asset.get("asset_revision"), owner)
        rows.setdefault(row.key, row)
    return list(rows.values()), number - len(rows)


def _parse_asset(number: int, item: Any) -> dict[str, str | None]:
    members: dict[Any, Any] = dict(item) if isinstance(item, Mapping) else {"asset_identifier": item}
    try:
        members = {key: to_text(sanitize(str(key), length=200), value) for key, value in members.items()}
    except NotConfiguredError as error:
        raise NotConfiguredError(
            f"Item {number} of asset_identifiers must be an identifier, or a dict of strings: {error}"
        ) from None
    identifier = members.get("asset_identifier")
    if not identifier:
        raise NotConfiguredError(
            f"Item {number} of asset_identifiers must be an identifier, or a dict with 'asset_identifier', "
            f"got {sanitize(repr(item))}."
        )
    if is_rendered_list(identifier):
        raise NotConfiguredError(
            f"Item {number} of asset_identifiers must be an identifier, got {sanitize(repr(item))}."
            f"{native_advice(identifier)}"
        )
    if unknown := sorted(map(repr, members.keys() - ASSET_KEYS)):
        raise NotConfiguredError(
            f"Item {number} of asset_identifiers has unknown keys: {sanitize(', '.join(unknown))}. "
            f"Allowed are {', '.join(sorted(ASSET_KEYS))}."
        )
    return members


def validate_limits(max_concurrent_runs: int, max_failures: float) -> None:
    """
    Validate the limits of a batch.

    :raises ValueError: With this limit the batch could not begin, or would never end.
    """
    if type(max_concurrent_runs) is not int or max_concurrent_runs < 1:
        raise NotConfiguredError(f"max_concurrent_runs must be at least 1, got {max_concurrent_runs!r}.")
    is_number = isinstance(max_failures, (int, float)) and not isinstance(max_failures, bool)
    if not is_number or not 0 <= max_failures <= (1 if isinstance(max_failures, float) else math.inf):
        raise NotConfiguredError(
            "max_failures must be a number of assets (int) or a share from 0.0 to 1.0 (float), got "
            f"{max_failures!r}."
        )
