"""An event loop in a thread of its own, for callers that have none.

Decides how a call from any thread is carried out on the loop, and when the thread ends: with the
last object that refers to it, or with the program. Does not know what is called.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_END_S: Final = 2.0
"""How long the end of a thread is waited for; it is a daemon and holds nothing up after that."""


class LoopThread:
    """Runs coroutines for other threads. Its own thread starts with it."""

    def __init__(self) -> None:
        started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]]
        started = queue.SimpleQueue()
        thread = threading.Thread(
            target=lambda: asyncio.run(_stay(started)), name="anytime-client", daemon=True
        )
        thread.start()
        self._loop, stop = started.get()
        self._thread = thread
        self._end = weakref.finalize(self, _end, self._loop, stop, thread)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Carries a coroutine out, and waits for what it gives or raises.

        A caller who is interrupted (Ctrl-C) cancels it.

        Args:
            coroutine: not begun yet.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def finish(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Carries out the last coroutine of something that its owner lets go of.

        The garbage collector may be the owner: on the loop's own thread the coroutine is only
        begun, and after the loop's end there is nothing left to finish.

        Args:
            coroutine: not begun yet.
        """
        if self._loop.is_closed():
            coroutine.close()
        elif threading.current_thread() is self._thread:
            asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        else:
            self.run(coroutine)


async def _stay(
    started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]],
) -> None:
    stop = asyncio.Event()
    started.put((asyncio.get_running_loop(), stop))
    await stop.wait()


def _end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(stop.set)
    if threading.current_thread() is not thread:
        thread.join(_END_S)
