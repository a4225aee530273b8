"""Stopping of a training by Ctrl-C or SIGTERM, and the error that tells of it.

The loop looks after each step, so weights and optimiser are never caught half-way. A second Ctrl-C
does not wait.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from anytime_model.errors import AnytimeModelError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], object] | int | None


class TrainingStoppedError(AnytimeModelError):
    """A training ended before its last epoch.

    Attributes:
        step: of the progress that can be gone on from; 0 if there is none.
    """

    def __init__(self, reason: str, step: int, cure: str) -> None:
        self.step = step
        kept = f"progress up to step {step} is kept" if step else "no progress was written yet"
        super().__init__(f"{reason}; {kept}. {cure}")


class StopRequest:
    """Whether someone asked to stop; listens while it is used as a context.

    Outside the main thread, where signals do not arrive, it never stops anything.
    """

    def __init__(self) -> None:
        self._is_requested = False
        self._before: dict[signal.Signals, _Handler] = {}

    def __call__(self) -> bool:
        """Whether to stop after this step."""
        return self._is_requested

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._is_requested:
            raise KeyboardInterrupt
        self._is_requested = True
