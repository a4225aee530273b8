"""What the executor keeps of streams from frame to frame, within a bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anytime_model.video import ReuseSettings, VideoMemory
from anytime_server.executor.base import FinishedFrame, StreamMemory

if TYPE_CHECKING:  # it only holds them
    from anytime_model.engines.ladder import LadderRun, RungResult
    from anytime_protocol.messages import ReuseOptions
    from anytime_server.executor.loading import LoadedModel


MakeMemory: TypeAlias = "Callable[[LoadedModel, ReuseOptions], VideoMemory]"
Advance: TypeAlias = "Callable[[LoadedModel, LadderRun, int], RungResult]"


@dataclass(slots=True)
class _Kept:
    """What is kept of one stream.

    Attributes:
        memory: the model's.
        model: that its frames are computed by.
        path: the exits that led to the last frame's map.
        is_open: a frame has begun and not ended.
        check: of the last frame, as far as it has come.
    """

    memory: VideoMemory
    model: LoadedModel
    path: tuple[int, ...] = ()
    is_open: bool = False
    check: LadderRun | None = None


class StreamMemories:
    """The memories of all streams; where they take too much, those not used longest are dropped.

    A stream whose memory is dropped computes its next frame as a whole.

    Args:
        make: makes a model's memory.
        most_bytes: that all of them may hold.
    """

    def __init__(self, make: MakeMemory, most_bytes: int) -> None:
        self._make = make
        self._most_bytes = most_bytes
        self._kept: dict[str, _Kept] = {}

    @property
    def bytes(self) -> int:
        """That they hold."""
        return sum(kept.memory.bytes for kept in self._kept.values())

    def begin(
        self,
        stream: StreamMemory,
        model: LoadedModel,
        image: NDArray[np.uint8],
        *,
        size: tuple[int, int],
        monotone: bool,
    ) -> LadderRun:
        """Begins a frame of a stream."""
        kept = self._kept.pop(stream.stream, None)
        if kept is None:
            kept = _Kept(self._make(model, stream.reuse), model)
        self._kept[stream.stream] = kept  # the one used last
        if kept.is_open:
            kept.memory.finish(None)
        self._end_check(kept)
        run = kept.memory.begin(image, size=size, monotone=monotone)
        kept.is_open = True
        return run

    def finish(
        self, stream: str, result: RungResult | None, made: tuple[int, ...]
    ) -> FinishedFrame:
        """A frame is over; one that is not open any more has reused nothing.

        Args:
            stream: its stream.
            result: its best map; None if it has none.
            made: its exits.
        """
        kept = self._kept.get(stream)
        if kept is None or not kept.is_open:
            return FinishedFrame()
        kept.is_open = False
        found = kept.memory.finish(result)
        kept.path = () if result is None else tuple(e for e in made if e <= result.exit)
        while len(self._kept) > 1 and self.bytes > self._most_bytes:
            del self._kept[next(iter(self._kept))]
        wants_check = bool(kept.path) and kept.memory.wants_check
        return FinishedFrame(
            found.share, found.oldest, found.difference, found.checked, wants_check=wants_check
        )

    def check(self, stream: str, advance: Advance) -> None:
        """Computes a stream's last frame alone, and compares; goes on where it was stopped.

        Args:
            stream: the stream; nothing is done for one that wants no check.
            advance: computes an exit; what it raises stops the check.
        """
        kept = self._kept.get(stream)
        if kept is None or kept.is_open or not kept.path:
            return
        if kept.check is None:
            if not kept.memory.wants_check:
                return
            kept.check = kept.memory.begin_check()
        run, result = kept.check, None
        for exit_ in kept.path:
            if exit_ > run.exit:
                result = advance(kept.model, run, exit_)
        self._end_check(kept)
        if result is not None:
            kept.memory.finish_check(result)

    def forget(self, stream: str) -> None:
        """A stream is over."""
        self._kept.pop(stream, None)

    @staticmethod
    def _end_check(kept: _Kept) -> None:
        if kept.check is not None:
            kept.check.release()
            kept.check = None


def frame_memory(model: LoadedModel, reuse: ReuseOptions) -> VideoMemory:
    """What a stream of a model remembers, to begin with."""
    settings = ReuseSettings(reuse.max_age, reuse.max_difference, reuse.motion)
    return VideoMemory(model.engine, settings)
