"""Checks of what reuse has changed in the frames of streams, when there is nothing else to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from anytime_server.core.decisions import STOP
from anytime_server.errors import ExecutorCallError

if TYPE_CHECKING:  # it only holds them
    from anytime_server.engine.alarm import Alarm
    from anytime_server.engine.base import ActiveRequest
    from anytime_server.executor.base import Executor

logger = logging.getLogger(__name__)


class IdleChecks:
    """The streams whose last frame is to be computed once more, alone.

    A check ends at once when anything else is to be done; it is tried again until the stream's next
    frame begins, which ends the chance.

    Args:
        executor: computes.
        on_done: called with the seconds that a check took.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        executor: Executor,
        on_done: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._executor = executor
        self._on_done = on_done
        self._clock = clock
        self._wanted: dict[str, None] = {}

    def frame_begins(self, request: ActiveRequest) -> None:
        """Another frame of a stream, or a single request, is about to be computed."""
        if request.frame is not None:
            self._wanted.pop(request.frame.stream, None)

    async def finish_frame(self, request: ActiveRequest) -> None:
        """A frame is over: learns what the executor has reused, and whether it wants a check.

        Raises:
            ExecutorCrashedError: see there.
        """
        try:
            request.reused = await self._executor.finish_frame(request.id)
        except ExecutorCallError as error:
            logger.error("frame %s: %s", request.id, error)
        if request.frame is not None and request.reused.wants_check:
            self._wanted[request.frame.stream] = None

    def forget_stream(self, stream: str) -> None:
        """A stream is over, and so is all that the executor has kept of it."""
        self._wanted.pop(stream, None)
        self._executor.forget_stream(stream)

    def forget_all(self) -> None:
        """The executor and what it had kept are gone."""
        self._wanted.clear()

    async def run_next(self, changed: Alarm, until_s: float) -> bool:
        """Makes one check, until it is done or something else is to be done.

        Args:
            changed: set when something has changed.
            until_s: the moment at which something else is to be done.

        Returns:
            Whether there was one to make.

        Raises:
            ExecutorCrashedError: see there.
        """
        if not self._wanted:
            return False
        stream, began_s = next(iter(self._wanted)), self._clock()
        call = asyncio.ensure_future(self._executor.check_frame(stream))
        call.add_done_callback(lambda _: changed.set())
        try:
            await asyncio.sleep(0)  # the executor begins before it is told to stop
            await changed.wait_until(until_s)
            self._executor.set_limits(STOP)
            is_done = await call
        except ExecutorCallError as error:
            logger.error("a check of stream %s: %s", stream, error)
            is_done = True
        finally:
            call.cancel()
        if is_done:
            self._wanted.pop(stream, None)
            self._on_done(self._clock() - began_s)
        changed.set()  # whatever has ended the wait is still to be looked at
        return True
