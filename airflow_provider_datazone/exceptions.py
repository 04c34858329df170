"""The failures that a retry policy, a callback or an ``except`` can name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException

if TYPE_CHECKING:
    from airflow_provider_datazone.metadata_generation import MetadataGenerationRun


class MalformedResponseError(Exception):
    """DataZone, or something between it and us, answered with what is no answer; asking again may help."""


class NotConfiguredError(ValueError):
    """What a request needs is neither passed nor in the connection, or cannot be used; nothing was sent."""


class MetadataGenerationRunError(Exception):
    """
    A run has ended, and did not succeed.

    :param message: Run, domain, status and every type that failed with its reason.
    :param run: The run, with its typeStats.
    """

    # A default, since unpickling an exception passes its message alone.
    def __init__(self, message: str, run: MetadataGenerationRun | None = None) -> None:
        super().__init__(message)
        self.run = run


class MetadataGenerationRunFailedError(MetadataGenerationRunError, AirflowFailException):
    """The run did not succeed, and a retry could not change that: it has ended, or the quota is used up."""


class StartedRunFailedError(MetadataGenerationRunError):
    """The run that a task has started did not succeed; a retry starts another one."""


class BatchFailedError(Exception):
    """Of the assets of a batch more failed than may; a retry works on those alone."""


class QuotaUsedUpError(AirflowFailException):
    """A batch stopped since the account's monthly quota is used up; a retry would meet the same."""


class RequestRefusedError(AirflowFailException):
    """DataZone refused a request of a task for a reason that a retry cannot change."""


class InvalidInputError(AirflowFailException, ValueError):
    """A task was given something that cannot work, so that no request was sent."""


class WaitFailedError(Exception):
    """
    A triggerer could not find out how a run ended.

    Not an ``AirflowException``: ``soft_fail`` is for runs that failed, and must not hide a lost connection.

    :param message: What happened, with run and domain.
    :param permanent: Whether a retry would meet the same.
    """

    def __init__(self, message: str, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent
