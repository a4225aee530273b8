"""What the frames of one stream take, beside what images of their model take.

A frame that takes over a part of its pixels from earlier frames costs less than its model's profile
says, and how much less depends on what its camera sees. So each stream has a factor for each exit,
and the share of positions that each stage starts with. Both rise at once and fall slowly, so that
frames meet their deadlines when a scene begins to move; where frames do not come to a step, its
figures fall as well. The machine's slow-down is not learnt from such frames, as it is in the
factors, too.
"""

from __future__ import annotations

from typing import Final

_FALL: Final = 0.3
"""How much of the way a figure falls to a lower measured one."""

_LEAST: Final = 0.02
"""The least factor: something is always to be done."""


class StreamCosts:
    """What is known of a stream's frames.

    Args:
        size: (H, W) of its images, px; frames of another size are computed as a whole.

    Attributes:
        size: the same.
        frames: that have ended. The first was computed as a whole, as any image is.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.frames = 0
        self._factors: dict[int, float] = {}
        self._shares: dict[int, float] = {}
        self._observed: set[int] = set()

    def factor(self, exit_: int) -> float:
        """Time that the step to an exit takes, as a multiple of what its model takes."""
        return self._factors.get(exit_, 1.0)

    def share(self, exit_: int, typical: float) -> float:
        """Share of positions that the step to an exit starts with; `typical` of its model."""
        return self._shares.get(exit_, typical)

    def observe(self, exit_: int, ratio: float, share: float) -> None:
        """Learns from a step.

        Args:
            exit_: that it led to.
            ratio: of its time to what it takes without the factor.
            share: of the positions that it started with.
        """
        self._observed.add(exit_)
        self._factors[exit_] = max(_follow(self.factor(exit_), ratio), _LEAST)
        self._shares[exit_] = _follow(self._shares.get(exit_, share), share)

    def frame_ended(self) -> None:
        """A frame has ended with a map."""
        self.frames += 1
        self._fall()

    def frame_refused(self) -> None:
        """A frame was not admitted."""
        self._fall()

    def _fall(self) -> None:
        """Figures of steps that the last frame did not take fall, too.

        A step that took long once would otherwise never be expected to fit, and so never be taken
        and measured again.
        """
        for exit_ in self._factors.keys() - self._observed:
            self._factors[exit_] = _follow(self._factors[exit_], min(self._factors[exit_], 1.0))
            self._shares[exit_] = _follow(self._shares[exit_], 0.0)
        self._observed.clear()


def _follow(old: float, new: float) -> float:
    return new if new > old else old + _FALL * (new - old)
