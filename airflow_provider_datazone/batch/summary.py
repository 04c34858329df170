"""The result of a batch: its counts, its summary, and whether the task fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_datazone.exceptions import BatchFailedError, QuotaUsedUpError, RequestRefusedError
from airflow_provider_datazone.metadata_generation import describe_failures, sanitize

if TYPE_CHECKING:
    from airflow_provider_datazone.batch.assets import AssetRow
    from airflow_provider_datazone.batch.state import BatchState
    from airflow_provider_datazone.batch.steps import Steps

# Maximum number of failures in a summary.
MAX_SUMMARY_FAILURES = 100


class Counts(NamedTuple):
    """
    The number of assets of a batch by their state.

    An asset whose run succeeded but that could not be accepted or published counts as ``failed``.
    """

    total: int
    succeeded: int
    partially_succeeded: int
    failed: int
    canceled: int
    active: int
    accepted: int
    published: int
    not_started: int
    done: int

    @classmethod
    def of(cls, rows: list[AssetRow], steps: Steps) -> Counts:
        """
        Count rows.

        :param rows: The rows.
        :param steps: What the batch does with each asset.
        """
        statuses = [row.status for row in rows if row.error is None]
        succeeded = statuses.count("SUCCEEDED")
        partially_succeeded = statuses.count("PARTIALLY_SUCCEEDED")
        canceled = statuses.count("CANCELED")
        active = sum(row.is_active for row in rows)
        ended = sum(row.has_ended for row in rows)
        return cls(
            total=len(rows),
            succeeded=succeeded,
            partially_succeeded=partially_succeeded,
            failed=ended - succeeded - partially_succeeded - canceled,
            canceled=canceled,
            active=active,
            accepted=sum(row.revision is not None for row in rows),
            published=sum(row.listing is not None for row in rows),
            not_started=len(rows) - ended - active,
            done=sum(steps.is_done(row) for row in rows),
        )


def summarize(state: BatchState, steps: Steps, *, seconds: float) -> dict[str, Any]:
    """
    Return the summary of a batch, the operator's return value.

    :param state: The batch.
    :param steps: What the batch does with each asset.
    :param seconds: Its duration.
    """
    counts = Counts.of(state.rows, steps)
    failures = [row for row in state.rows if steps.is_done(row) and not steps.is_success(row)]
    return {
        "total": counts.total,
        "succeeded": counts.succeeded,
        "partially_succeeded": counts.partially_succeeded,
        "failed": counts.failed,
        "canceled": counts.canceled,
        "accepted": counts.accepted,
        "published": counts.published,
        "not_started": counts.not_started,
        "duplicates": state.duplicates,
        "duration_seconds": round(seconds, 1),
        "failures": [row.to_result() for row in failures[:MAX_SUMMARY_FAILURES]],
    }


def require_few_failures(state: BatchState, steps: Steps, max_failures: float) -> None:
    """
    Return if at most ``max_failures`` assets failed; otherwise fail the task.

    :param state: The batch.
    :param steps: What the batch does with each asset.
    :param max_failures: Maximum number of failed assets, or as a ``float`` their maximum share.
    :raises RequestRefusedError: More assets failed, and a retry could not change that for any of them.
    :raises QuotaUsedUpError: More assets failed or were not started, because the monthly quota is used up.
    :raises BatchFailedError: More assets failed.
    """
    failed = [row for row in state.rows if not steps.is_success(row)]
    share = len(failed) / max(len(state.rows), 1)
    if (share if isinstance(max_failures, float) else len(failed)) <= max_failures:
        return
    # Prefer an asset that failed itself over one that was left out because of others.
    first = next((row for row in failed if row.has_ended), None)
    if first is None and state.refusals:
        reason = f": {next(iter(state.refusals.values()))}"
    else:
        reason = describe_failure(first or failed[0])
    message = (
        f"{len(failed):,} of {len(state.rows):,} assets have not succeeded, "
        f"with max_failures={max_failures}; the first failure{reason}"
    ).rstrip(".")
    if all(row.is_refused or (not row.has_ended and state.is_refused(row)) for row in failed):
        raise RequestRefusedError(f"{message}. A retry would fail with the same error.")
    # Accepting and publishing need no quota, so a retry can help an asset whose run has succeeded.
    if state.quota_used_up and not any(steps.has_succeeded_run(row) and not row.is_refused for row in failed):
        not_started = sum(row.run_identifier is None and row.error is None for row in state.rows)
        raise QuotaUsedUpError(
            f"{message}. The account's monthly quota is used up: {not_started:,} were not started."
        )
    raise BatchFailedError(message)


def describe_failure(row: AssetRow) -> str:
    """Return `` (asset, run): reason``, without the names that the reason contains."""
    reason = row.error or describe_failures(row.failures)
    if not reason:
        reason = f"ended {row.status}; DataZone gave no reason" if row.status else "not started"
    asset, run = (
        sanitize(f"{kind} {identifier!r}", length=200)
        for kind, identifier in (("asset", row.asset_identifier), ("run", row.run_identifier))
    )
    names = [] if asset in reason else [asset]
    if row.run_identifier is not None:
        names += [] if run in reason else [run]
    elif "(run " not in reason:
        # A reason with "(run " names a run that DataZone no longer finds.
        names.append("no run was started")
    return f" ({', '.join(names)}): {reason}" if names else f": {reason}"


def describe_timeout(domain_identifier: str) -> str:
    """Return the message for a batch that reached its deadline."""
    return f"The batch in domain {domain_identifier!r} has not ended in time; its runs continue."
