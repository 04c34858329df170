"""Loopback ports for servers that start later or restart."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

# Below the ephemeral ports of Linux and macOS, which another process could get before the server starts.
PORTS = range(20_000, 32_000)
_returned_ports: set[int] = set()


def free_port() -> int:
    """Return an unused port that this function has not returned before."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if port not in _returned_ports:
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                _returned_ports.add(port)
                return port
    raise AssertionError(f"No free port in {PORTS}")
