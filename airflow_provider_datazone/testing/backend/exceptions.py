"""The errors of Amazon DataZone. Their HTTP statuses come from the service model."""

# As in moto, classes and methods named after AWS have no docstrings: the AWS
# documentation describes them.
# ruff: noqa: D101
from __future__ import annotations

from moto.core.exceptions import ServiceException


class DataZoneClientError(ServiceException):
    pass


class AccessDeniedException(DataZoneClientError):
    code = "AccessDeniedException"


class ConflictException(DataZoneClientError):
    code = "ConflictException"


class ResourceNotFoundException(DataZoneClientError):
    code = "ResourceNotFoundException"


class ValidationException(DataZoneClientError):
    code = "ValidationException"
