"""Waiting until something changes or a moment comes, whichever is first."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Alarm:
    """An event that is also set by time.

    Args:
        clock: that moments are counted on, seconds.

    Attributes:
        clock: the same.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._event = asyncio.Event()

    def set(self) -> None:
        """Something has changed: whoever waits goes on."""
        self._event.set()

    def clear(self) -> None:
        """What has changed until now is known."""
        self._event.clear()

    async def wait_until(self, until_s: float) -> None:
        """Returns when something has changed, or at a moment (infinity for none)."""
        timer = None
        if until_s < math.inf:
            wait_s = max(until_s - self.clock(), 0.0)
            timer = asyncio.get_running_loop().call_later(wait_s, self.set)
        try:
            await self._event.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self.clear()
