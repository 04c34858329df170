"""Wait for an event of asyncio, or until a time."""

from __future__ import annotations

import asyncio
import math


async def wait_for_event(event: asyncio.Event, until: float) -> None:
    """
    Wait until an event is set, and set it at a time if it is not set before.

    Not ``asyncio.wait_for``, which can lose a cancellation on Python 3.10 and 3.11.

    :param event: The event.
    :param until: Event loop time in seconds, infinity for no limit.
    """
    loop = asyncio.get_running_loop()
    timer = None if until == math.inf else loop.call_at(max(until, loop.time()), event.set)
    try:
        await event.wait()
    finally:
        if timer is not None:
            timer.cancel()
