"""Exceptions that a retry policy, a callback or an ``except`` clause can name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

if TYPE_CHECKING:
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun


class MalformedResponseError(Exception):
    """DataZone, or a proxy in front of it, sent a response that cannot be parsed; a retry may help."""


class NotConfiguredError(ValueError):
    """A parameter or a setting of the connection is missing or invalid; no request was sent."""


class InvalidWatcherError(NotConfiguredError, TypeError):
    """
    An argument of an asset watcher is invalid.

    Also a ``TypeError``: a triggerer of Airflow 3 logs this error of a trigger's constructor, and ends after
    any other, with all its triggers.
    """


class MetadataGenerationRunError(Exception):
    """
    A run ended without success.

    :param message: Run, domain, status and every failed type with its reason.
    :param run: The run, with its typeStats.
    """

    # Optional, since unpickling an exception passes only its message.
    def __init__(self, message: str, run: MetadataGenerationRun | None = None) -> None:
        super().__init__(message)
        self.run = run


class MetadataGenerationRunFailedError(MetadataGenerationRunError, AirflowFailException):
    """The run did not succeed, and a retry cannot change that: it has ended, or the quota is used up."""


class StartedRunFailedError(MetadataGenerationRunError):
    """The run that the task started did not succeed; a retry starts a new run."""


class BatchFailedError(Exception):
    """More assets of a batch failed than ``max_failures`` allows; a retry processes only those."""


class QuotaUsedUpError(AirflowFailException):
    """A batch stopped because the account's monthly quota is used up; a retry would fail, too."""


class ListingFailedError(Exception):
    """The listing of a published asset became inactive; a retry does not publish again, a clear does."""


class RequestRefusedError(AirflowFailException):
    """DataZone refused a request for a reason that a retry cannot change."""


class InvalidInputError(AirflowFailException, ValueError):
    """A task has an invalid or missing argument, so it sent no request."""


class WaitFailedError(Exception):
    """
    The triggerer could not read the result of a run.

    Not an ``AirflowException``: ``soft_fail`` covers failed runs, and must not hide a lost connection.

    :param message: The reason, with run and domain.
    :param permanent: Whether a retry would fail with the same error.
    """

    def __init__(self, message: str, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent
