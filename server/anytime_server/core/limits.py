"""The effective budget of a request: the tightest of the client's and the server's own B(t).

Decides what the operator's budget may say, which of its load caps are on at a given load, and what
may be spent on a request at a given moment. Refuses to know the clock (moments are arguments), what
a stage costs and what is done when a limit is reached.

The server's budget has the same limits as a client's, and three things besides:

* a schedule, by the time of day or by the time since the budget was set;
* load caps: from a load on, no request goes deeper than some exit. The load is the predicted
  seconds of work that the requests in the house would take to the depth that they asked for. It
  does not depend on the caps, so that a cap cannot switch itself off; and a cap goes on at a higher
  load than it goes off at, so that it does not flutter.
* floors: an exit per urgency class below which no load cap goes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from anytime_protocol.budget import Budget, tightest
from anytime_protocol.errors import BudgetError
from anytime_protocol.json_reader import JsonObject, JsonReader, describe

DAY_S: Final = 86_400.0
_DAY_MS: Final = DAY_S * 1e3
"""Length of a day's schedule in seconds."""

_LIST_LIMIT: Final = 64
_URGENCIES: Final = 8


class Clock(StrEnum):
    """What a server schedule's times count from."""

    DAILY = "daily"
    """Local midnight; the last entry of a day holds until the first of the next."""
    ELAPSED = "elapsed"
    """The moment the budget was set."""


@dataclass(frozen=True, slots=True)
class LoadCap:
    """A cap on depth that a load switches on.

    Attributes:
        above_s: goes on when the load reaches this many seconds of work.
        below_s: goes off when the load has fallen to this; less than `above_s`.
        max_exit: the deepest exit while it is on.
    """

    above_s: float
    below_s: float
    max_exit: int

    def __post_init__(self) -> None:
        if not 0 <= self.below_s < self.above_s < math.inf:
            raise BudgetError(
                "load_caps.below_s",
                describe(self.below_s),
                f"at least 0 and less than above_s ({self.above_s:g})",
            )
        if self.max_exit < 1:
            raise BudgetError("load_caps.max_exit", describe(self.max_exit), "at least 1")


@dataclass(frozen=True, slots=True)
class ServerBudget:
    """The operator's B(t).

    Attributes:
        limits: hold for every request; a budget without a schedule.
        load_caps: in any order; of those that are on, the tightest counts.
        floors: `(urgency, exit)`: the load never caps this class below this exit.
        clock: what the schedule counts from.
        schedule: `(at_ms, limits)`, rising; each entry overrides the limits that it names, as in a
            client's schedule.

    Raises:
        BudgetError: a value is out of its range.
    """

    limits: Budget = field(default_factory=Budget)
    load_caps: tuple[LoadCap, ...] = ()
    floors: tuple[tuple[int, int], ...] = ()
    clock: Clock = Clock.ELAPSED
    schedule: tuple[tuple[float, Budget], ...] = ()

    def __post_init__(self) -> None:
        if self.limits.schedule:
            raise BudgetError("limits.schedule", "a schedule", "limits only")
        for urgency, exit_ in self.floors:
            if not 0 <= urgency < _URGENCIES:
                raise BudgetError("floors", describe(urgency), "an urgency from 0 to 7")
            if exit_ < 1:
                raise BudgetError(f"floors.{urgency}", describe(exit_), "an exit of at least 1")
        before = -1.0
        for at_ms, limits in self.schedule:
            if not before < at_ms < _DAY_MS:
                raise BudgetError(
                    "schedule.at_ms", describe(at_ms), f"more than {before:g} and less than a day"
                )
            if limits.schedule:
                raise BudgetError("schedule", "a schedule in a schedule", "limits only")
            before = at_ms

    @classmethod
    def from_json(cls, value: object) -> ServerBudget:
        """Reads the wire form of `PUT /v1/budget` strictly.

        The limits stand at the top, as in a client's budget, beside `load_caps`
        (`[{"above_s", "below_s", "max_exit"}]`), `floors` (`{"0": 4}`), `clock` (`daily` or
        `elapsed`) and `schedule` (`[{"at_ms", ...limits}]`).

        Args:
            value: a JSON object as `json.loads` gives it.

        Raises:
            BudgetError: a field is unknown, of the wrong type or out of its range.
        """
        reader = JsonReader(value, "budget", BudgetError)
        own = {"load_caps", "floors", "clock", "schedule"}
        limits = Budget.from_json({k: v for k, v in _as_object(value).items() if k not in own})
        return cls(
            limits=limits,
            load_caps=_read_load_caps(reader) if reader.has("load_caps") else (),
            floors=_read_floors(reader.inside("floors")) if reader.has("floors") else (),
            clock=reader.word("clock", Clock) if reader.has("clock") else Clock.ELAPSED,
            schedule=_read_schedule(reader) if reader.has("schedule") else (),
        )

    def to_json(self) -> JsonObject:
        """The wire form; `from_json` of it gives an equal budget."""
        wire: JsonObject = self.limits.to_json()
        if self.load_caps:
            wire["load_caps"] = [
                {"above_s": cap.above_s, "below_s": cap.below_s, "max_exit": cap.max_exit}
                for cap in self.load_caps
            ]
        if self.floors:
            wire["floors"] = {str(urgency): exit_ for urgency, exit_ in self.floors}
        if self.schedule:
            wire["clock"] = self.clock.value
            wire["schedule"] = [
                {"at_ms": at_ms, **limits.to_json()} for at_ms, limits in self.schedule
            ]
        return wire

    def at(self, clock_s: float) -> Budget:
        """The limits in force, load caps aside.

        Args:
            clock_s: seconds since local midnight or since the budget was set, as `clock` says.
        """
        if not self.schedule:
            return self.limits
        phase_s = self._phase_s(clock_s)
        past = [limits for at_ms, limits in self.schedule if at_ms <= phase_s * 1e3]
        if self.clock is Clock.DAILY:  # what yesterday's entries left behind still holds
            past = [limits for _, limits in self.schedule] + past
        in_order = tuple((float(index), limits) for index, limits in enumerate(past))
        return tightest(self.limits, Budget(schedule=in_order).at(math.inf))

    def changes_in(self, clock_s: float) -> float:
        """Seconds from `clock_s` until other limits may hold; infinity if they never change."""
        phase_s = self._phase_s(clock_s)
        coming = [at_ms / 1e3 for at_ms, _ in self.schedule if at_ms > phase_s * 1e3]
        if coming:
            return coming[0] - phase_s
        daily = self.clock is Clock.DAILY and bool(self.schedule)
        return DAY_S - phase_s + self.schedule[0][0] / 1e3 if daily else math.inf

    def load_cap(self, engaged: tuple[bool, ...], urgency: int) -> float:
        """The deepest exit that the load leaves to a class; infinity where no cap is on.

        Args:
            engaged: which caps are on, as `engage` says.
            urgency: the class, 0 to 7.
        """
        caps = [cap.max_exit for cap, on in zip(self.load_caps, engaged, strict=True) if on]
        if not caps:
            return math.inf
        return max(min(caps), *(exit_ for u, exit_ in self.floors if u == urgency), 1)

    def engage(self, engaged: tuple[bool, ...], load_s: float) -> tuple[bool, ...]:
        """Which load caps are on, given which were on before (hysteresis).

        Args:
            engaged: one flag per cap, as this method gave it last; empty at first.
            load_s: seconds of work in the house now.
        """
        before = engaged or (False,) * len(self.load_caps)
        return tuple(
            load_s > cap.below_s if on else load_s >= cap.above_s
            for cap, on in zip(self.load_caps, before, strict=True)
        )

    def _phase_s(self, clock_s: float) -> float:
        return clock_s % DAY_S if self.clock is Clock.DAILY else clock_s


@dataclass(frozen=True, slots=True)
class EffectiveLimits:
    """What may be spent on one request; infinity where nothing limits it.

    Attributes:
        deadline_s: last byte out, on the scheduler's clock.
        gmacs: 1e9 multiply-adds.
        max_exit: deepest exit.
        confidence: mean confidence that satisfies.
        confident_share: share of confident pixels that satisfies.
        until_s: when other limits will hold, by a schedule.
    """

    deadline_s: float
    gmacs: float
    max_exit: float
    confidence: float
    confident_share: float
    until_s: float

    def without_deadline(self) -> EffectiveLimits:
        """The same for a server that heeds no deadlines."""
        return replace(self, deadline_s=math.inf)


def effective(
    client: Budget,
    server: ServerBudget,
    *,
    arrival_s: float,
    clock_offset_s: float,
    load_cap: float,
    now: float,
) -> EffectiveLimits:
    """The tightest of all limits at a moment.

    Args:
        client: the client's budget, its schedule counting from `arrival_s`.
        server: the operator's budget.
        arrival_s: when the request arrived.
        clock_offset_s: what to add to `now` to get the time that the server's schedule counts.
        load_cap: deepest exit that the load allows.
        now: the moment.
    """
    elapsed_ms = (now - arrival_s) * 1e3
    clock_s = now + clock_offset_s
    both = tightest(client.at(elapsed_ms), server.at(clock_s))
    change_ms = client.changes_after(elapsed_ms)
    change_s = min(
        math.inf if change_ms is None else arrival_s + change_ms / 1e3,
        now + server.changes_in(clock_s),
    )
    return EffectiveLimits(
        deadline_s=math.inf if both.deadline_ms is None else arrival_s + both.deadline_ms / 1e3,
        gmacs=_or_infinity(both.compute_gmacs),
        max_exit=min(_or_infinity(both.max_exit), load_cap),
        confidence=_or_infinity(both.min_confidence),
        confident_share=_or_infinity(both.confident_share),
        # Rounding must not put a coming change into the past.
        until_s=max(change_s, math.nextafter(now, math.inf)),
    )


def _or_infinity(limit: float | None) -> float:
    return math.inf if limit is None else limit


def _as_object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _read_load_caps(reader: JsonReader) -> tuple[LoadCap, ...]:
    caps = []
    for index, item in enumerate(reader.items("load_caps", _LIST_LIMIT)):
        entry = JsonReader(item, f"budget.load_caps[{index}]", BudgetError)
        above_s, below_s = entry.number("above_s"), entry.number("below_s")
        cap = LoadCap(above_s, below_s, entry.integer("max_exit", 1))
        entry.end()
        caps.append(cap)
    return tuple(caps)


def _read_floors(reader: JsonReader) -> tuple[tuple[int, int], ...]:
    floors = tuple(
        (urgency, reader.integer(str(urgency), 1))
        for urgency in range(_URGENCIES)
        if reader.has(str(urgency))
    )
    reader.end()
    return floors


def _read_schedule(reader: JsonReader) -> tuple[tuple[float, Budget], ...]:
    schedule = []
    before = -1.0
    for index, item in enumerate(reader.items("schedule", _LIST_LIMIT)):
        path = f"budget.schedule[{index}]"
        at_ms = JsonReader(item, path, BudgetError).number("at_ms", 0, _DAY_MS)
        if at_ms <= before:
            raise BudgetError(f"{path}.at_ms", describe(at_ms), f"more than {before:g}")
        limits = {name: limit for name, limit in _as_object(item).items() if name != "at_ms"}
        if "schedule" in limits:
            raise BudgetError(f"{path}.schedule", "a schedule in a schedule", "limits only")
        schedule.append((at_ms, Budget.from_json(limits, path)))
        before = at_ms
    return tuple(schedule)
