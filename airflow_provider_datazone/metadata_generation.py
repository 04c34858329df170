"""
The vocabulary of metadata generation runs: what a run is, and what its end means for a task.

Standard library only, so that a DAG file, a test or a notebook may import it at no cost.

.. seealso::
    https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetMetadataGenerationRun.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypedDict

ACTIVE_STATUSES = frozenset({"SUBMITTED", "IN_PROGRESS"})
SUCCESS_STATUSES = frozenset({"SUCCEEDED", "PARTIALLY_SUCCEEDED"})
FAILURE_STATUSES = frozenset({"FAILED", "CANCELED"})
TERMINAL_STATUSES = SUCCESS_STATUSES | FAILURE_STATUSES

# The one thing that DataZone says of a run whose account has no quota left, in an errorMessage.
_QUOTA_USED_UP = "monthly quota"

RUN_TYPES = ("BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES", "BUSINESS_GLOSSARY_ASSOCIATIONS")


# Two classes, so that what may be missing is known at run time as well; Python 3.10 has no NotRequired.
class _TypeStat(TypedDict):
    type: str
    status: str


class TypeStat(_TypeStat, total=False):
    """
    How one type of a run went, in AWS's own shape.

    .. seealso::
        https://docs.aws.amazon.com/datazone/latest/APIReference/API_MetadataGenerationRunTypeStat.html
    """

    errorMessage: str


@dataclass(frozen=True)
class MetadataGenerationRun:
    """
    A metadata generation run, as Get, Start and List answer it.

    What the service leaves out stays ``None`` or empty: List sends no typeStats, Start no target.

    :param id: The run's identifier.
    :param domain_id: The domain it belongs to.
    :param status: The service's status, also one that this version does not know.
    :param types: What is generated, e.g. ``("BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES")``.
    :param type_stats: How each type went; the only place where DataZone says why a run failed.
    :param asset_id: The asset that the metadata is generated for.
    :param asset_revision: The asset's revision.
    :param owning_project_id: The project that owns the asset.
    :param created_at: When the run was started.
    :param created_by: The DataZone user who started it.
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
        Read a run from an answer of boto3, from one item of a list, or from :meth:`to_dict`.

        :param response: The answer, with AWS's key names.
        :raises ValueError: When it has no id, domain or status: this is no run.
        """
        missing = [key for key in ("id", "domainId", "status") if not response.get(key)]
        if missing:
            raise ValueError(f"no metadata generation run: {', '.join(missing)} missing")
        target = response.get("target") or {}
        # `type` is what the service sent before it had `types`.
        types = response.get("types") or ([response["type"]] if response.get("type") else [])
        return cls(
            id=response["id"],
            domain_id=response["domainId"],
            status=response["status"],
            types=tuple(types),
            type_stats=list(response.get("typeStats") or []),
            asset_id=target.get("identifier"),
            asset_revision=target.get("revision"),
            owning_project_id=response.get("owningProjectId"),
            created_at=_as_datetime(response.get("createdAt")),
            created_by=response.get("createdBy"),
        )

    @property
    def is_active(self) -> bool:
        """Whether the run is waiting or at work."""
        return self.status in ACTIVE_STATUSES

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended; ``False`` for a status that nobody knows yet."""
        return self.status in TERMINAL_STATUSES

    @property
    def failures(self) -> list[TypeStat]:
        """The type stats that failed or were canceled."""
        return [stat for stat in self.type_stats if stat.get("status") in FAILURE_STATUSES]

    @property
    def quota_used_up(self) -> bool:
        """Whether a type failed for the account's monthly AI quota, so that another run would as well."""
        return names_used_up_quota(self.failures)

    def to_dict(self) -> dict[str, Any]:
        """
        Return the run for XCom or an event: JSON only, AWS's key names, times in ISO 8601.

        What is not known is left out, as the service does; ``typeStats`` is always there.
        :meth:`from_response` reads it back.
        """
        target = {"type": "ASSET", "identifier": self.asset_id, "revision": self.asset_revision}
        members: dict[str, Any] = {
            "domainId": self.domain_id,
            "id": self.id,
            "target": _without_none(target) if self.asset_id else None,
            "status": self.status,
            "types": list(self.types),
            # botocore gives times in the process's own zone, and worker and triggerer may differ in it.
            "createdAt": self.created_at and self.created_at.astimezone(timezone.utc).isoformat(),
            "createdBy": self.created_by,
            "owningProjectId": self.owning_project_id,
            "typeStats": self.type_stats,
        }
        return _without_none(members)


class Verdict(NamedTuple):
    """
    What the end of a run means for the task that waited for it.

    :param succeeded: Whether the task may go on.
    :param message: One line that names run, domain, status, and every type that failed with its reason.
    """

    succeeded: bool
    message: str


def judge(run: MetadataGenerationRun, *, allow_partial_success: bool) -> Verdict:
    """
    Judge a run that has ended.

    :param run: A terminal run.
    :param allow_partial_success: Whether ``PARTIALLY_SUCCEEDED`` counts as a success.
    :raises ValueError: When the run has not ended.
    """
    if not run.is_terminal:
        raise ValueError(f"Metadata generation run {run.id!r} is {run.status}, which is not an end.")
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
    """Name every failed type with its reason, in one line."""
    return "; ".join(
        one_line(f"{stat['type']} {stat['status']}: {stat.get('errorMessage') or 'no reason given'}")
        for stat in failures
    )


def names_used_up_quota(failures: Iterable[TypeStat]) -> bool:
    """Tell whether a type failed for the account's monthly AI quota."""
    return any(_QUOTA_USED_UP in (stat.get("errorMessage") or "").lower() for stat in failures)


def one_line(text: str) -> str:
    """
    Escape what is not printable, so that a text from outside cannot forge or split a log line.

    :param text: For example a service's error message.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _as_datetime(value: datetime | str | None) -> datetime | None:
    # Python 3.10 does not read the suffix.
    return datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}
