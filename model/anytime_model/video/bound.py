"""How strictly a stream may reuse answers, moved by what checks find."""

from collections import deque
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ReuseRule:
    """What a cell must meet to keep its answer.

    Attributes:
        tolerance: largest change of its block of pixels, levels of 0 to 255, beyond noise.
        spread: cells around a changed one that are computed again with it, where features beside it
            are interpolated.
        near: the same where features are held from frame to frame.
        age: share of the largest age, 0 to 1, above 0.
    """

    tolerance: float
    spread: int
    near: int
    age: float


LEVELS: Final = (
    ReuseRule(8.0, 4, 1, 1.0),
    ReuseRule(4.0, 6, 1, 1.0),
    ReuseRule(3.0, 8, 3, 0.7),
    ReuseRule(2.0, 12, 8, 0.5),
    ReuseRule(1.0, 16, 12, 0.3),
)
"""From the loosest to the strictest. Above the last, nothing is reused.

There is no least confidence among them: cells computed again one by one, between kept ones whose
features are only interpolated, get worse answers than those that they had.
"""

START: Final = 1

_REMEMBERED: Final = 12
"""Checks whose mean is the measured figure."""

_BEFORE_LOOSER: Final = 4
"""Checks in a row well below the bound before a level is given up."""

_PAUSE: Final = 100
"""Frames without reuse before the strictest level is tried again; doubles each time."""

_LONGEST_PAUSE: Final = 10_000


class Bound:
    """Keeps the share of pixels that differ from the frame computed alone below a bound.

    Args:
        most: largest share, 0 to 1.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._level = START
        self._found: deque[float] = deque(maxlen=_REMEMBERED)
        self._low = 0
        self._pause = _PAUSE
        self._waited = 0

    @property
    def rule(self) -> ReuseRule | None:
        """What holds now; None where nothing may be reused."""
        return LEVELS[self._level] if self._level < len(LEVELS) else None

    @property
    def difference(self) -> float | None:
        """Mean share over the last checks; None before the first."""
        return sum(self._found) / len(self._found) if self._found else None

    @property
    def checked(self) -> int:
        """Checks that `difference` is the mean of."""
        return len(self._found)

    def found(self, share: float) -> None:
        """A check has found this share of pixels to differ."""
        self._found.append(share)
        if share > self._most:
            self._level += 2 if share > 2 * self._most else 1
            self._level = min(self._level, len(LEVELS))
            self._low = self._waited = 0
            return
        self._low = self._low + 1 if share < self._most / 2 else 0
        if self._low >= _BEFORE_LOOSER and self._level:
            self._level -= 1
            self._low = 0
            self._pause = _PAUSE

    def frame(self) -> None:
        """A frame has passed; after many without reuse, it is tried again."""
        if self.rule is not None:
            return
        self._waited += 1
        if self._waited >= self._pause:
            self._level, self._waited = len(LEVELS) - 1, 0
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
