"""Starting an executor, noticing that it has died while it was idle, and starting it again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from anytime_server import images
from anytime_server.core.costs import CostModel, SideCost
from anytime_server.errors import ExecutorCrashedError, ExecutorStartError
from anytime_server.executor.base import Executor, ServedModel

logger = logging.getLogger(__name__)

_RESTART_S: Final = (0.0, 0.5, 2.0, 10.0)
"""Waits before the executor is started again; the last repeats."""


class Starter:
    """Starts one executor, as often as it takes.

    Args:
        executor: to start.
        on_failure: called when it has died while it was idle; `check` then raises.
    """

    def __init__(self, executor: Executor, on_failure: Callable[[], None]) -> None:
        self._executor = executor
        self._on_failure = on_failure
        self._has_failed = False

    async def start(self) -> tuple[ServedModel, ...]:
        """Starts the executor.

        Raises:
            ExecutorStartError: it cannot start.
        """
        self._has_failed = False
        return await self._executor.start(self._note_failure)

    async def start_again(self) -> None:
        """Starts it as often as it takes."""
        attempt = 0
        while True:
            await asyncio.sleep(_RESTART_S[min(attempt, len(_RESTART_S) - 1)])
            try:
                await self.start()
            except ExecutorStartError as failure:
                logger.error("the executor does not start: %s", failure)
                attempt += 1
            else:
                return

    def check(self) -> None:
        """Makes sure that the executor is there, as far as is known.

        Raises:
            ExecutorCrashedError: it has died while it was idle.
        """
        if self._has_failed:
            raise ExecutorCrashedError("the executor died while it was idle")

    def _note_failure(self) -> None:
        self._has_failed = True
        self._on_failure()


def first_costs(served: tuple[ServedModel, ...]) -> CostModel:
    """What was measured at the start, rendering included."""
    slowest_s = 1e6 * max(model.render_s_per_px for model in served)
    encode = {name: SideCost(0.001, slowest_s + 0.005) for name in ("png", "raw", "rle", "delta")}
    decode = dict.fromkeys((*images.MEDIA_TYPES.values(), images.DECODED), SideCost())
    return CostModel((model.profile for model in served), decode, encode)
