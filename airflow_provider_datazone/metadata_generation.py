"""
Metadata generation runs: their data, their statuses, and whether a terminal run is a success.

Standard library only, so that a DAG file, a test or a notebook can import it at no cost.

.. seealso::
    https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetMetadataGenerationRun.html
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypedDict, cast

#: Statuses of a run that is queued or in progress.
ACTIVE_STATUSES = frozenset({"SUBMITTED", "IN_PROGRESS"})
#: Statuses of a run that generated all types, or some of them.
SUCCESS_STATUSES = frozenset({"SUCCEEDED", "PARTIALLY_SUCCEEDED"})
#: Statuses of a run that generated nothing.
FAILURE_STATUSES = frozenset({"FAILED", "CANCELED"})
#: Statuses of a run that has ended.
TERMINAL_STATUSES = SUCCESS_STATUSES | FAILURE_STATUSES

# DataZone reports an exhausted quota only in an errorMessage, which contains this text.
_QUOTA_USED_UP = "monthly quota"

# Seconds for which Get and Cancel may not find a run that has just been started.
NEW_RESOURCE_GRACE = 30

# An error or a log line shows at most this many characters of external text, and this many failed types.
MAX_MESSAGE_LENGTH = 2000
MAX_LISTED_FAILURES = 10

#: The types that a run can generate.
RUN_TYPES = ("BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES", "BUSINESS_GLOSSARY_ASSOCIATIONS")


# Two classes, so that optional keys are known at run time as well; Python 3.10 has no NotRequired.
class _TypeStat(TypedDict):
    type: str
    status: str


class TypeStat(_TypeStat, total=False):
    """
    The result of one type of a run, in AWS's own shape.

    :param type: The type, e.g. ``BUSINESS_NAMES``.
    :param status: Its status, e.g. ``SUCCEEDED``.
    :param errorMessage: DataZone's reason; absent when there is none.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_MetadataGenerationRunTypeStat.html
    """

    errorMessage: str


@dataclass(frozen=True)
class MetadataGenerationRun:
    """
    A metadata generation run, as Get, Start and List return it.

    Fields that the service omits are ``None`` or empty: List returns no typeStats, Start no target.

    :param id: The run's identifier.
    :param domain_id: The domain of the run.
    :param status: The service's status, which may be one that this version does not know.
    :param types: The types to generate, e.g. ``("BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES")``.
    :param type_stats: The result of each type; the only place where DataZone says why a run failed.
    :param asset_id: The asset that the metadata is generated for.
    :param asset_revision: The asset's revision.
    :param owning_project_id: The project that owns the asset.
    :param created_at: When the run was started.
    :param created_by: The DataZone user who started the run.
    """

    id: str
    domain_id: str
    status: str
    types: tuple[str, ...] = ()
    type_stats: list[TypeStat] = field(default_factory=list)
    asset_id: str | None = None
    asset_revision: str | None = None
    owning_project_id: str | None = None
    created_at: datetime | None = None
    created_by: str | None = None

    @classmethod
    def from_response(cls, response: Mapping[str, Any]) -> MetadataGenerationRun:
        """
        Parse a boto3 response, one item of a list, or the result of :meth:`to_dict`.

        Neither boto3 nor a database checks the types of members. A member that should be a string and is not
        one is dropped, so that code that uses a run does not need to check it.

        :param response: The response, with AWS's key names.
        :raises ValueError: It has no id, domain or status, so it is not a run.
        """
        members = _members(response)
        # Sanitized, since they appear in log lines and in every error.
        known = {key: sanitize(_text(members.get(key)) or "") for key in ("id", "domainId", "status")}
        missing = [key for key, value in known.items() if not value]
        if missing:
            raise ValueError(f"no metadata generation run: {', '.join(missing)} missing")
        target = _members(members.get("target"))
        # `type` is the deprecated predecessor of `types`.
        types = _items(members.get("types")) or [members.get("type")]
        return cls(
            id=known["id"],
            domain_id=known["domainId"],
            status=known["status"],
            types=tuple(text for text in map(_text, types) if text),
            type_stats=[stat for item in _items(members.get("typeStats")) if (stat := _type_stat(item))],
            asset_id=_text(target.get("identifier")),
            asset_revision=_text(target.get("revision")),
            owning_project_id=_text(members.get("owningProjectId")),
            created_at=_as_datetime(members.get("createdAt")),
            created_by=_text(members.get("createdBy")),
        )

    @property
    def is_active(self) -> bool:
        """Whether the run is queued or in progress."""
        return self.status in ACTIVE_STATUSES

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended; ``False`` for a status that this version does not know."""
        return self.status in TERMINAL_STATUSES

    @property
    def failures(self) -> list[TypeStat]:
        """The type stats that failed or were canceled."""
        return [stat for stat in self.type_stats if stat.get("status") in FAILURE_STATUSES]

    @property
    def quota_used_up(self) -> bool:
        """Whether a type failed because the account's monthly AI quota is used up."""
        return names_used_up_quota(self.failures)

    def to_dict(self) -> dict[str, Any]:
        """
        Return the run for XCom or an event: JSON only, AWS's key names, times in ISO 8601.

        Unknown fields are omitted, as the service does; ``typeStats`` is always present.
        :meth:`from_response` parses the result.
        """
        target = {"type": "ASSET", "identifier": self.asset_id, "revision": self.asset_revision}
        members: dict[str, Any] = {
            "domainId": self.domain_id,
            "id": self.id,
            "target": _without_none(target) if self.asset_id else None,
            "status": self.status,
            "types": list(self.types),
            "createdAt": self.created_at and self.created_at.isoformat(),
            "createdBy": self.created_by,
            "owningProjectId": self.owning_project_id,
            "typeStats": self.type_stats,
        }
        return _without_none(members)


def find_active_run(
    runs: Iterable[MetadataGenerationRun],
    *,
    asset_identifier: str,
    types: Iterable[str],
    asset_revision: str | None,
    except_for: Collection[str],
) -> MetadataGenerationRun | None:
    """
    Find the active run for a request among listed runs, the latest if there are several.

    :param runs: The runs, as List returns them.
    :param asset_identifier: The asset.
    :param types: The types of the run: exactly these.
    :param asset_revision: The asset's revision; ``None`` for any.
    :param except_for: Identifiers of runs to leave out, because Get returned them as ended. List may be
        outdated.
    """
    wanted = set(types)
    matching = (
        run
        for run in runs
        if not run.is_terminal
        and run.id not in except_for
        and set(run.types) == wanted
        and run.asset_id == asset_identifier
        and asset_revision in (None, run.asset_revision)
    )
    return max(matching, key=lambda run: run.created_at.timestamp() if run.created_at else 0, default=None)


def log_status(log: logging.Logger, run: MetadataGenerationRun, last_status: str | None) -> None:
    """
    Log the status of a polled run: a change at INFO, otherwise at DEBUG.

    :param log: The logger.
    :param run: The run.
    :param last_status: The status at the previous poll, ``None`` at the first.
    """
    if run.status == last_status:
        log.debug("Metadata generation run %s is still %s.", run.id, run.status)
    elif run.is_active or run.is_terminal:
        log.info("Metadata generation run %s is %s.", run.id, run.status)
    else:
        log.warning(
            "Metadata generation run %s has the status %r, which this version does not know; "
            "the wait continues.",
            run.id,
            run.status,
        )


class Verdict(NamedTuple):
    """
    Whether a terminal run is a success for the task that waited for it.

    :param succeeded: Whether the task succeeds.
    :param message: One line that names the run, its domain, its status, and every failed type with its
        reason.
    """

    succeeded: bool
    message: str


def judge(run: MetadataGenerationRun, *, allow_partial_success: bool) -> Verdict:
    """
    Judge a terminal run.

    :param run: A terminal run.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` counts as a success.
    :raises ValueError: The run is not terminal.
    """
    if not run.is_terminal:
        raise ValueError(f"Metadata generation run {run.id!r} is {run.status}, which is not terminal.")
    message = f"Metadata generation run {run.id!r} in domain {run.domain_id!r} ended {run.status}"
    if run.failures:
        message += f": {describe_failures(run.failures)}"
    elif run.status != "SUCCEEDED":
        message += "; DataZone gave no reason"
    if run.quota_used_up:
        message += (
            ". The account's monthly quota is used up: until it is renewed or raised, no run can do more"
        )
    partly = run.status == "PARTIALLY_SUCCEEDED"
    return Verdict(run.status in SUCCESS_STATUSES and (allow_partial_success or not partly), message)


def describe_failures(failures: Iterable[TypeStat]) -> str:
    """Name the failed types with their reasons in one line: the first ten, and the number of the others."""
    known = list(failures)
    parts = [
        sanitize(
            f"{stat.get('type', 'a type without a name')} {stat.get('status')}: "
            f"{stat.get('errorMessage') or 'no reason given'}"
        )
        for stat in known[:MAX_LISTED_FAILURES]
    ]
    if len(known) > MAX_LISTED_FAILURES:
        parts.append(f"and {len(known) - MAX_LISTED_FAILURES:,} more")
    return "; ".join(parts)


def names_used_up_quota(failures: Iterable[TypeStat]) -> bool:
    """Whether a type failed because the account's monthly AI quota is used up."""
    return any(_QUOTA_USED_UP in (stat.get("errorMessage") or "").lower() for stat in failures)


def sanitize(text: str, *, length: int | None = MAX_MESSAGE_LENGTH) -> str:
    """
    Escape control characters and truncate, so that external text cannot forge, split or flood a log line.

    :param text: For example a service's error message, or a whole HTML page from a proxy.
    :param length: Number of characters to keep; ``None`` for no limit. Default 2,000.
    """
    rest = 0 if length is None else len(text) - length
    if rest > 0:
        text = text[:length]
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"{line}… ({rest:,} more characters)" if rest > 0 else line


def _members(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _text(value: Any) -> str | None:
    """Return a string that every database stores: PostgreSQL refuses NUL, UTF-8 refuses lone surrogates."""
    if not isinstance(value, str):
        return None
    return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _type_stat(value: Any) -> TypeStat | None:
    stat = {str(_text(key)): text for key, item in _members(value).items() if (text := _text(item))}
    return cast("TypeStat", stat) if stat else None


def _as_datetime(value: Any) -> datetime | None:
    """Return a time in UTC: botocore uses the process's time zone, and worker and triggerer may differ."""
    try:
        # Python 3.10 cannot parse the suffix "Z".
        moment = datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value
        return moment.astimezone(timezone.utc) if isinstance(moment, datetime) else None
    except (ValueError, OverflowError):
        return None


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}
