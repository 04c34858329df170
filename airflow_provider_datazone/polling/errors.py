"""The errors that end a wait before its run is terminal."""

from __future__ import annotations


class PollerEndedError(Exception):
    """The poller has ended; the caller gets another one from the registry."""


class DeadlinePassedError(Exception):
    """The deadline of a wait has passed. Not a ``TimeoutError``, which a lookup may raise itself."""


class CredentialsRejectedError(Exception):
    """
    DataZone rejected the credentials of a poller; the cause is its error.

    :param subject: The run, asset or status that the rejected request was about.
    """

    def __init__(self, message: str, subject: str) -> None:
        super().__init__(message)
        self.subject = subject
