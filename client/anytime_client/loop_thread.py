"""An event loop in a thread of its own, on which other threads run coroutines."""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_JOIN_S: Final = 2.0
"""How long the end of a thread is waited for; it is a daemon and holds nothing up after that."""


class LoopThread:
    """Runs coroutines for other threads.

    Its thread starts with it and ends with the last reference to it, or with the program.
    """

    def __init__(self) -> None:
        started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]]
        started = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(_run_until_stopped(started)),
            name="anytime-client",
            daemon=True,
        )
        self._thread.start()
        self._loop, stop = started.get()
        self._end = weakref.finalize(self, _end, self._loop, stop, self._thread)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Waits for a coroutine's result or error; an interrupt (Ctrl-C) cancels the coroutine.

        Args:
            coroutine: not started yet.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def finish(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs the clean-up of an object that may be garbage, on whatever thread collects it.

        On the loop's own thread the coroutine is only started; after the loop's end it is dropped.

        Args:
            coroutine: not started yet.
        """
        if self._loop.is_closed():
            coroutine.close()
        elif threading.current_thread() is self._thread:
            asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        else:
            self.run(coroutine)


async def _run_until_stopped(
    started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]],
) -> None:
    stop = asyncio.Event()
    started.put((asyncio.get_running_loop(), stop))
    await stop.wait()


def _end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(stop.set)
    if threading.current_thread() is not thread:
        thread.join(_JOIN_S)
