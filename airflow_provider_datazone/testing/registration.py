"""Registers Amazon DataZone with the installed moto."""

from __future__ import annotations

import re
import sys

import moto.backend_index

from . import models, urls
from .local_responses import LocalDataZoneResponse


def register() -> None:
    """Add this DataZone backend to moto. Calling it again has no effect.

    It takes precedence over a DataZone backend that moto may include, which would lack the test controls.
    """
    sys.modules["moto.datazone"] = models
    urls.url_paths["{0}/.*$"] = LocalDataZoneResponse.dispatch
    for base in urls.url_bases:
        pattern = ("datazone", re.compile(base))
        if pattern not in moto.backend_index.backend_url_patterns:
            moto.backend_index.backend_url_patterns.insert(0, pattern)
