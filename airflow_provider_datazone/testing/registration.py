"""Registers Amazon DataZone with the installed moto."""

from __future__ import annotations

import re
import sys

import moto
import moto.backend_index

from . import backend
from .backend import urls
from .backend.models import datazone_backends
from .local_responses import LocalDataZoneResponse
from .scripted_runs import ScriptedBackend


def register() -> None:
    """Add this DataZone backend to moto. Calling it again has no effect.

    It takes precedence over a DataZone backend that moto may include, which would lack the test controls.
    """
    datazone_backends.backend = ScriptedBackend
    prefix = f"{backend.__name__}."
    # Under moto's names, too: a second import of a module would create other backends.
    sys.modules["moto.datazone"] = moto.datazone = backend
    for name in [name for name in sys.modules if name.startswith(prefix)]:
        sys.modules[f"moto.datazone.{name.removeprefix(prefix)}"] = sys.modules[name]
    urls.url_paths["{0}/.*$"] = LocalDataZoneResponse.dispatch
    for base in urls.url_bases:
        pattern = ("datazone", re.compile(base))
        if pattern not in moto.backend_index.backend_url_patterns:
            moto.backend_index.backend_url_patterns.insert(0, pattern)
