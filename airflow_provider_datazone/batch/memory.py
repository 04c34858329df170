"""What a task stores about its batch between tries: everything from Airflow 3.3, and nothing before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_datazone.batch.assets import AssetRow, pack, unpack
from airflow_provider_datazone.idempotency import client_token, success_record, was_cleared
from airflow_provider_datazone.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_datazone.batch.steps import Steps

# The keys in the task state store begin with this. With another one, running batches would lose their runs in
# an upgrade.
_STATE_KEY = "metadata_generation_batch"
# Maximum size of one value in the store: Airflow warns above 64 KB.
_STATE_SIZE = 60_000


class BatchMemory:
    """
    The task state store of a batch.

    :param context: The task's context.
    :param domain_identifier: The domain.
    :param types: The types to generate.
    """

    def __init__(self, context: Context, domain_identifier: str, types: list[str]) -> None:
        self.domain_identifier = domain_identifier
        self.types = types
        self.try_number: int = context["ti"].try_number
        self._store = task_state_store(context)
        self._success = success_record(context)
        request = [domain_identifier, sorted(types)]
        stored: Any = self._store.get(_STATE_KEY) if self._store is not None else None
        record: dict[str, Any] = stored if _is_record(stored) else {}
        #: Whether a user cleared the task after it had succeeded, as far as the store shows.
        self.is_cleared = is_cleared = was_cleared(record, context)
        if record.get("request") != request or is_cleared:
            # The task's request has changed, or a user cleared the succeeded task.
            identity = client_token(context, request)
            if is_cleared and identity == record["identity"]:
                # The token of a task that was cleared after `retries` was lowered may be the same.
                identity = client_token(context, request, self.try_number)
            record = {
                "request": request,
                "identity": identity,
                # Only version 0.1 reads it.
                "began_at": time.time(),
                "parts": 0,
                "generation": 0,
            }
            is_first = self.try_number == 1 or is_cleared
            record["noted_at"] = time.time() if is_first else 0.0
            if self._store is not None:
                self._store.set(_STATE_KEY, record)
        self._record = record
        # Whether the last save failed.
        self._has_failed = False

    @property
    def identity(self) -> str:
        """What the client tokens are computed from."""
        return str(self._record["identity"])

    @property
    def saved_at(self) -> float:
        """Unix time in seconds until which the saved rows are complete; version 0.1 chose the stored name."""
        return float(self._record["noted_at"])

    def load(self, rows: list[AssetRow], steps: Steps) -> list[AssetRow]:
        """
        Return the rows as they were saved last, without failures, so that the batch repeats what failed.

        :param rows: The assets of the task.
        :param steps: What the batch does with each asset.
        """
        try:
            saved = {row.key: row for row in self._read()}
        except (ValueError, TypeError):
            # A user has changed it, or another version has written it. DataZone still has the runs.
            saved, self._record["noted_at"] = {}, 0.0
        loaded = [saved.get(row.key, row) for row in rows]
        for row in loaded:
            row.failing_since = None
            if steps.is_done(row) and not steps.is_success(row):
                if row.status is None or steps.has_succeeded_run(row):
                    row.error, row.is_refused = None, False
                else:
                    row.reset()
            if row.is_active:
                row.adopted_at, row.seen_active = time.time(), False
        return loaded

    def _read(self) -> list[AssetRow]:
        generation, number_of_parts = self._record["generation"], self._record["parts"]
        parts = [self._store.get(_part_key(generation, number)) for number in range(number_of_parts)]
        return unpack("".join(str(part) for part in parts)) if parts else []

    def save(self, rows: list[AssetRow], saved_at: float | None = None) -> None:
        """
        Save the rows.

        :param saved_at: Unix time in seconds until which they are complete. Default: now.
        """
        record = self._record | {"noted_at": time.time() if saved_at is None else saved_at}
        if self._store is not None:
            stored: Any = self._store.get(_STATE_KEY) if self._has_failed else None
            self._has_failed = True
            # Keep the previous parts, which the stored record refers to until it is replaced. If the last
            # save failed, it may have been replaced or not.
            record["generation"] = 1 - (stored if _is_record(stored) else record)["generation"]
            text = pack(rows)
            parts = [text[start : start + _STATE_SIZE] for start in range(0, len(text), _STATE_SIZE)]
            for number, part in enumerate(parts):
                self._store.set(_part_key(record["generation"], number), part)
            record["parts"] = len(parts)
            self._store.set(_STATE_KEY, record)
            self._has_failed = False
        self._record = record

    def save_success(self) -> None:
        """Save that the task succeeds: if it runs again, a user cleared it."""
        self._record |= self._success
        if self._store is not None:
            self._store.set(_STATE_KEY, self._record)


def _part_key(generation: int, number: int) -> str:
    return f"{_STATE_KEY}_{generation}_{number}"


def _is_record(stored: Any) -> bool:
    """Whether a stored value is a record of this format; a user may have changed it."""
    if not isinstance(stored, dict):
        return False
    saved_at = stored.get("noted_at")
    return (
        isinstance(stored.get("identity"), str)
        and isinstance(saved_at, (int, float))
        and 0 <= saved_at < 1e12
        and stored.get("generation") in (0, 1)
        and type(stored.get("parts")) is int
    )
