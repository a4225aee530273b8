"""Which way a job goes on: the path through its model's exits that gives the best maps.

A model with a ladder has several ways from exit to exit: the exits of a small image may be made to
the last, or left early for those of a larger one; and where exits may be left out, a far one may be
made at once. All are priced and rated before; so the choice is arithmetic on a few numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from itertools import takewhile
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from anytime_server.core.jobs import StageForecast

_AS_GOOD: Final = 0.005
"""Share of a map's quality that a test set of some hundred images does not tell apart."""

Path: TypeAlias = "tuple[StageForecast, ...]"


def _certain(step: StageForecast) -> float:  # noqa: ARG001
    return 1.0


class Aim(Enum):
    """What is best.

    Attributes:
        BY_DEADLINE: the best map that is to be expected by then: a far exit that is made at once
            leaves nothing if it comes too late, where one on the way to it would have been a map.
        OVER_TIME: the best maps on the whole, where any moment may be the one that counts: quality
            summed over twice the time that the longest path takes.
        AT_END: the best map at its end, where no other is seen; the soonest of those that are as
            good but for `_AS_GOOD` of it.
        PER_SECOND: the most quality for its time, as others wait.
    """

    BY_DEADLINE = auto()
    OVER_TIME = auto()
    AT_END = auto()
    PER_SECOND = auto()


def reachable(paths: Iterable[Path], is_in_reach: Callable[[StageForecast], bool]) -> list[Path]:
    """The paths as far as they can be followed; those that cannot be followed at all are left out.

    Args:
        paths: ways on from the last exit.
        is_in_reach: whether an exit can be reached.
    """
    found = (tuple(takewhile(is_in_reach, path)) for path in paths)
    return [path for path in found if path]


def choose(
    paths: Sequence[Path], aim: Aim, chance: Callable[[StageForecast], float] = _certain
) -> Path:
    """The best of some paths; the first of equals.

    Args:
        paths: at least one, none empty.
        aim: what is best.
        chance: that an exit is made by the deadline, 0 to 1; falls along a path.
    """
    if len(paths) == 1:
        return paths[0]
    match aim:
        case Aim.BY_DEADLINE:
            return max(paths, key=lambda path: (_expected_gain(path, chance), -path[0].base_s))
        case Aim.OVER_TIME:
            end_s = 2.0 * max(path[-1].base_s for path in paths)
            return max(paths, key=lambda path: _gain_over_time(path, end_s))
        case Aim.AT_END:
            gains = [max(step.gain for step in path) for path in paths]
            least = max(gains) - _AS_GOOD * abs(max(gains))
            good = (path for path, gain in zip(paths, gains, strict=True) if gain >= least)
            return min(good, key=lambda path: path[-1].base_s)
        case Aim.PER_SECOND:
            return max(paths, key=_gain_per_second)


def _expected_gain(path: Path, chance: Callable[[StageForecast], float]) -> float:
    """What each exit gains over the best before it, as far as it is likely to be made."""
    expected = best = 0.0
    for step in path:
        if step.gain > best:
            expected += chance(step) * (step.gain - best)
            best = step.gain
    return expected


def _gain_over_time(path: Path, end_s: float) -> float:
    """Gain times the seconds for which it is the latest, until a moment."""
    ends = [*(step.base_s for step in path[1:]), end_s]
    return sum(step.gain * (next_s - step.base_s) for step, next_s in zip(path, ends, strict=True))


def _gain_per_second(path: Path) -> float:
    return max(step.gain / step.base_s for step in path)
