"""Ports of loopback for servers that are started a while later, and again."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

# Below those that Linux and macOS hand out by themselves, which somebody else may be given in the meantime.
PORTS = range(20_000, 32_000)
_handed_out: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on, and that has not been returned before."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if port not in _handed_out:
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                _handed_out.add(port)
                return port
    raise AssertionError(f"No free port in {PORTS}")
