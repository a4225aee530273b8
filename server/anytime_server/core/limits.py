"""The effective limits of a request: the tightest of the client's and the operator's own B(t).

The operator's budget has the same limits as a client's, and three things besides:

* a schedule, by the time of day or by the time since the budget was set;
* load caps: from a load on, no request goes deeper than some exit. The load is the predicted
  seconds of work that the active requests would take to the depth that they asked for. It does not
  depend on the caps, so that a cap cannot switch itself off; and a cap is switched on at a higher
  load than it is switched off at (hysteresis);
* floors: an exit per urgency class below which no load cap goes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from anytime_protocol.budget import Budget, tightest
from anytime_protocol.enums import ScheduleClock
from anytime_protocol.resources import ServerBudget

DAY_S: Final = 86_400.0
"""Length of a daily schedule, in seconds."""

_EARLY_MS: Final = 1e-3
"""A schedule's entry holds from this many ms before its moment on. Moments are sums of floating
numbers, and rounding must not put the moment of an entry just before the entry itself."""


@dataclass(frozen=True, slots=True)
class EffectiveLimits:
    """What may be spent on one request; infinity where nothing limits it.

    Attributes:
        deadline_s: last byte out, on the scheduler's clock.
        gmacs: 1e9 multiply-adds.
        max_exit: deepest exit.
        confidence: mean confidence that satisfies.
        confident_share: share of confident pixels that satisfies.
        max_risk: share of settled pixels that may differ from the whole network's answer.
        until_s: when other limits will hold, by a schedule.
    """

    deadline_s: float
    gmacs: float
    max_exit: float
    confidence: float
    confident_share: float
    max_risk: float
    until_s: float

    @property
    def end_by_result(self) -> bool:
        """Whether what an exit finds can end the request."""
        return min(self.confidence, self.confident_share) < math.inf


class ServerLimits:
    """The operator's budget in force, its clock, and which of its load caps are on.

    Args:
        budget: to begin with; an `elapsed` schedule counts from 0.

    Attributes:
        budget: the operator's budget.
        version: rises whenever other limits may hold for another reason than time.
    """

    def __init__(self, budget: ServerBudget) -> None:
        self._put(budget)
        self.version = 0
        self._clock_offset_s = 0.0
        self._caps_on = (False,) * len(budget.load_caps)

    def set_budget(self, budget: ServerBudget, now: float, time_of_day_s: float) -> None:
        """Puts another budget in force.

        Args:
            budget: the new one.
            now: the moment; an `elapsed` schedule counts from here.
            time_of_day_s: seconds since local midnight at this moment, for a `daily` schedule.
        """
        self._put(budget)
        self._clock_offset_s = (time_of_day_s if self._is_daily else 0.0) - now
        self._caps_on = (False,) * len(budget.load_caps)
        self.version += 1

    def observe_load(self, load_s: float) -> None:
        """Switches load caps on and off, given the seconds of work at hand."""
        caps_on = tuple(
            load_s > cap.below_s if on else load_s >= cap.above_s
            for cap, on in zip(self.budget.load_caps, self._caps_on, strict=True)
        )
        if caps_on != self._caps_on:
            self._caps_on = caps_on
            self.version += 1

    def load_cap(self, urgency: int) -> float:
        """The deepest exit that the load leaves to a class (0 to 7); infinity if no cap is on."""
        caps_on = zip(self.budget.load_caps, self._caps_on, strict=True)
        caps = [cap.max_exit for cap, on in caps_on if on]
        if not caps:
            return math.inf
        return max(min(caps), *(exit_ for u, exit_ in self.budget.floors if u == urgency), 1)

    def at(self, now: float) -> Budget:
        """The budget's limits at a moment, load caps aside, as a budget without a schedule."""
        return self._limits.at(self._clock_ms(now))

    def next_change_s(self, now: float) -> float:
        """The next moment at which the schedule changes the limits; infinity if it never does."""
        schedule, clock_ms = self.budget.schedule, self._clock_ms(now)
        change_ms = self._limits.changes_after(clock_ms)
        if change_ms is None and schedule and self._is_daily:
            change_ms = DAY_S * 1e3 + schedule[0][0]
        if change_ms is None:
            return math.inf
        return now + (change_ms - clock_ms + _EARLY_MS) / 1e3

    def in_force(self, now: float, urgency: int) -> Budget:
        """What the operator allows a request of a class now, load caps included."""
        cap = self.load_cap(urgency)
        limits = self.at(now)
        return limits if cap == math.inf else tightest(limits, Budget(max_exit=int(cap)))

    def _put(self, budget: ServerBudget) -> None:
        self.budget, self._limits = budget, budget.limits
        if self._is_daily:  # what yesterday's entries left behind still holds
            last = self._limits.at(math.inf)
            self._limits = replace(last, schedule=self._limits.schedule)

    def _clock_ms(self, now: float) -> float:
        """The schedule's clock, `_EARLY_MS` fast."""
        clock_ms = (now + self._clock_offset_s) * 1e3 + _EARLY_MS
        return clock_ms % (DAY_S * 1e3) if self._is_daily else clock_ms

    @property
    def _is_daily(self) -> bool:
        return self.budget.clock is ScheduleClock.DAILY


def effective_limits(
    client: Budget, server: ServerLimits, *, arrival_s: float, load_cap: float, now: float
) -> EffectiveLimits:
    """The tightest of all limits at a moment.

    Args:
        client: the client's budget, its schedule counting from `arrival_s`.
        server: the operator's.
        arrival_s: when the request arrived.
        load_cap: deepest exit that the load allows.
        now: the moment.
    """
    elapsed_ms = (now - arrival_s) * 1e3 + _EARLY_MS
    mine, theirs = client.at(elapsed_ms), server.at(now)
    change_ms = client.changes_after(elapsed_ms)
    change_s = math.inf if change_ms is None else arrival_s + change_ms / 1e3
    return EffectiveLimits(
        deadline_s=arrival_s + _least(mine.deadline_ms, theirs.deadline_ms) / 1e3,
        gmacs=_least(mine.compute_gmacs, theirs.compute_gmacs),
        max_exit=min(_least(mine.max_exit, theirs.max_exit), load_cap),
        confidence=_least(mine.min_confidence, theirs.min_confidence),
        confident_share=_least(mine.confident_share, theirs.confident_share),
        max_risk=_least(mine.max_risk, theirs.max_risk),
        until_s=min(change_s, server.next_change_s(now)),
    )


def _least(a: float | None, b: float | None) -> float:
    return min(math.inf if a is None else a, math.inf if b is None else b)
