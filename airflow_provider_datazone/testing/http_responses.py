"""Responses over HTTP, with errors as JSON: AWS clients cannot read the HTML errors of moto.

Moto's own pages, below ``/moto-api``, stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from moto.core.common_types import TYPE_RESPONSE
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from .local_responses import LocalDataZoneResponse, error_response
from .signatures import Signature

logger = logging.getLogger(__name__)

#: The paths of moto's own pages and of DataZone's operations.
MOTO_PATH, DATAZONE_PATH = "/moto-api", "/v2/"


def is_for_datazone(path: str, authorization: str) -> bool:
    """Return whether a request is signed for DataZone, or not signed and has a path of DataZone.

    Moto would send such a request through Flask, which answers HTML where it cannot find a path.
    """
    signature = Signature.parse(authorization)
    return signature.service == "datazone" if signature else path.startswith(DATAZONE_PATH)


def respond_as_datazone(request: Request) -> Response:
    """Respond to a request for DataZone."""
    try:
        request.get_data()
    except (OSError, HTTPException) as error:
        message = f"The request cannot be read: {error}"
        return _to_response(error_response(400, "ValidationException", message))
    try:
        return _to_response(LocalDataZoneResponse()._dispatch(request))
    except Exception:
        logger.exception("The local DataZone failed for %s %s", request.method, request.path)
        message = "The local DataZone failed; see its log"
        return _to_response(error_response(500, "InternalServerException", message))


def respond_as_moto(moto: Callable[..., Any], environ: dict[str, Any]) -> Response:
    """Respond to a request for another service of moto, or for moto's own pages."""
    path = environ["PATH_INFO"]
    try:
        response = Response.from_app(moto, environ)
    except NotImplementedError as error:
        return _to_response(error_response(501, "NotImplementedException", str(error)))
    except Exception as error:
        logger.exception("moto failed for %s", path)
        message = f"moto failed: {type(error).__name__}: {error}"
        return _to_response(error_response(500, "InternalFailure", message))
    # The media type is not enough: moto sends the JSON of many services, and S3 objects, as text/html.
    is_html_error = response.status_code >= 400 and response.get_data()[:9].lower() == b"<!doctype"
    if not is_html_error or path.startswith(MOTO_PATH):
        return response
    message = f"moto has no response for the path {path!r}: HTTP {response.status}"
    return _to_response(error_response(response.status_code, "UnknownOperationException", message))


def _to_response(response: TYPE_RESPONSE) -> Response:
    status, headers, body = response
    # The HTTP server adds its own.
    return Response(body, int(status), {k: v for k, v in headers.items() if k not in ("status", "server")})
