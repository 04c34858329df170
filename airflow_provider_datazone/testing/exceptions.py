"""The errors of Amazon DataZone. Their HTTP statuses come from botocore's service model."""

# As in moto, classes and methods named after AWS have no docstrings: the AWS documentation describes them.
# ruff: noqa: D101
from __future__ import annotations

from moto.core.exceptions import ServiceException


class DataZoneClientError(ServiceException):
    pass


class AccessDeniedException(DataZoneClientError):
    code = "AccessDeniedException"


class ConflictException(DataZoneClientError):
    code = "ConflictException"


class InternalServerException(DataZoneClientError):
    code = "InternalServerException"


class ResourceNotFoundException(DataZoneClientError):
    code = "ResourceNotFoundException"


class ServiceQuotaExceededException(DataZoneClientError):
    code = "ServiceQuotaExceededException"


class ThrottlingException(DataZoneClientError):
    code = "ThrottlingException"


class UnauthorizedException(DataZoneClientError):
    code = "UnauthorizedException"


class ValidationException(DataZoneClientError):
    code = "ValidationException"
