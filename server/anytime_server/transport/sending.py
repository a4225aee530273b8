"""Ending a connection whose client does not take what it is sent."""

from __future__ import annotations

import asyncio
from typing import Final

_LEAST_BYTES: Final = 64 * 1024
"""That a client must take in each interval while more than that waits for it."""


class SendTimeout:
    """Looks whether a client takes what waits in a connection's buffer, and aborts it if not.

    Args:
        transport: of the connection.
        loop: that it runs on.
        interval_s: in which the client must take 64 KiB, or all that there is.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, interval_s: float
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._interval_s = interval_s
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Something may wait that the client must take from now on."""
        if self._timer is None and self._transport.get_write_buffer_size():
            self._watch()

    def stop(self) -> None:
        """The client has taken enough."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        waiting = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._interval_s, self._check, waiting)

    def _check(self, before: int) -> None:
        self._timer = None
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            return
        if before - waiting < _LEAST_BYTES:
            self._transport.abort()
        else:
            self._watch()
