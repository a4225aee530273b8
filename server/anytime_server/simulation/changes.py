"""How replicas come and go in a simulation: failures, and autoscaling with its delays."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from anytime_server.core.scaling import Served, wanted_replicas

WINDOW_S: Final = 10.0
"""That autoscaling looks back, as a replica on Ray Serve does."""

DECIDE_S: Final = 1.0
"""Between two decisions."""


@dataclass(frozen=True, slots=True)
class Changes:
    """How replicas come and go.

    Attributes:
        failure_s: mean time from a replica's start to its failure, which costs the requests that it
            has; infinity for none.
        start_s: from a decision or a failure until a new replica takes requests.
        most: replicas that autoscaling may have; None for a fixed number.
        more_after_s: for so long more must be wanted before there are more.
        fewer_after_s: the same for fewer.
    """

    failure_s: float = math.inf
    start_s: float = 15.0
    most: int | None = None
    more_after_s: float = 1.5 * WINDOW_S
    fewer_after_s: float = 12.0 * WINDOW_S


class Autoscaler:
    """Decides how many replicas there are to be, by what they served lately.

    Args:
        changes: delays and bounds.
        least: replicas that there always are.
    """

    def __init__(self, changes: Changes, least: int) -> None:
        self._changes = changes
        self._least = least
        self._answers: deque[tuple[float, float, float]] = deque()
        self._computed: deque[tuple[float, float]] = deque()
        self._direction = 0
        self._since_s = 0.0

    def answered(self, now: float, quality: float, slack: float) -> None:
        """A request has ended, with a share of the best quality and of its deadline left."""
        self._answers.append((now, quality, slack))

    def computed(self, now: float, seconds: float) -> None:
        """A replica has computed for a while."""
        self._computed.append((now, seconds))

    def target(self, now: float, running: int, target: int) -> int:
        """How many there are to be.

        Args:
            now: the moment.
            running: that take requests.
            target: that there were to be.
        """
        wanted = wanted_replicas(self._served(now, running), running, target)
        most = max(self._changes.most or self._least, self._least)
        wanted = min(max(wanted, self._least), most)
        direction = (wanted > target) - (wanted < target)
        if direction != self._direction:
            self._direction, self._since_s = direction, now
        delay_s = self._changes.more_after_s if direction > 0 else self._changes.fewer_after_s
        if not direction or now - self._since_s < delay_s:
            return target
        self._direction = 0
        return wanted

    def _served(self, now: float, running: int) -> Served:
        for kept in (self._answers, self._computed):
            while kept and kept[0][0] < now - WINDOW_S:
                kept.popleft()
        count = len(self._answers)
        busy = sum(seconds for _, seconds in self._computed) / (WINDOW_S * max(running, 1))
        if not count:
            return Served(busy=busy)
        return Served(
            count / WINDOW_S,
            sum(quality for _, quality, _ in self._answers) / count,
            sum(slack for _, _, slack in self._answers) / count,
            busy,
        )
