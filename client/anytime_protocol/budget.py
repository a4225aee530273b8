"""The budget B(x, t) of one request as a value: limits that may change as time passes.

Decides what a budget may say, what holds at a given moment and which of two budgets is tighter.
Does not know the clock (time is an argument), how long a stage takes, or who set the budget.

Every limit is an upper bound on spending, so that for every field the smaller value is the tighter
one and an absent field is infinitely lax:

* `deadline_ms`: from the request's arrival to the last byte of its answer.
* `compute_gmacs`: billions of multiply-adds that the request may cost.
* `max_exit`: the deepest exit that may be computed, counted from 1.
* `min_confidence` and `confident_share`: two ways to be satisfied. The request may stop as soon as
  the mean confidence of its map reaches the first, or the share of confident pixels the second;
  either will do. A lower value stops sooner.

A schedule changes limits at set times after the request's arrival: each entry overrides the limits
that it names, from `at_ms` on; the others stay as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from anytime_protocol.errors import BudgetError
from anytime_protocol.json_reader import JsonObject, JsonReader, describe

MAX_MS: Final = 86_400_000.0
"""The longest time that a budget may name: one day, in ms."""

MAX_SCHEDULE: Final = 64
"""Entries that a schedule may have on the wire."""

LIMITS: Final = (
    "deadline_ms",
    "compute_gmacs",
    "max_exit",
    "min_confidence",
    "confident_share",
)
"""Names of the limits, in wire order."""


_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on one request, any of them absent (`None`: no limit).

    Attributes:
        deadline_ms: 0 to `MAX_MS`, from the request's arrival.
        compute_gmacs: 0 or more, in 1e9 multiply-adds.
        max_exit: 1 or more.
        min_confidence: 0 to 1; satisfied when the map's mean confidence reaches it.
        confident_share: 0 to 1; satisfied when this share of the pixels is confident.
        schedule: pairs of `at_ms` (rising strictly) and the limits that change then; these have no
            schedule of their own.

    Raises:
        BudgetError: a value is out of its range; its `field` says which.
    """

    deadline_ms: float | None = None
    compute_gmacs: float | None = None
    max_exit: int | None = None
    min_confidence: float | None = None
    confident_share: float | None = None
    schedule: tuple[tuple[float, Budget], ...] = ()

    def __post_init__(self) -> None:
        _check_number("deadline_ms", self.deadline_ms, MAX_MS)
        _check_number("compute_gmacs", self.compute_gmacs, math.inf)
        _check_number("min_confidence", self.min_confidence, 1.0)
        _check_number("confident_share", self.confident_share, 1.0)
        exit_ = self.max_exit
        if exit_ is not None and (isinstance(exit_, bool) or exit_ < 1):
            raise BudgetError("max_exit", describe(exit_), "a whole number >= 1")
        before = -1.0
        for index, (at_ms, limits) in enumerate(self.schedule):
            _check_number(f"schedule[{index}].at_ms", at_ms, MAX_MS)
            _check_order(f"schedule[{index}].at_ms", before, at_ms)
            if limits.schedule:
                raise BudgetError(f"schedule[{index}].schedule", "a schedule", "limits only")
            before = at_ms

    @classmethod
    def from_json(cls, value: object, path: str = "budget") -> Budget:
        """Reads the wire form strictly.

        Args:
            value: a JSON object as `json.loads` gives it.
            path: where it stands in its message, for error messages.

        Raises:
            BudgetError: a field is unknown, of the wrong type, out of range, NaN or infinite, the
                schedule is not in order or longer than `MAX_SCHEDULE`.
        """
        reader = JsonReader(value, path, BudgetError)
        schedule: list[tuple[float, Budget]] = []
        if reader.has("schedule"):
            before = -1.0
            for index, item in enumerate(reader.items("schedule", MAX_SCHEDULE)):
                entry = JsonReader(item, f"{reader.path('schedule')}[{index}]", BudgetError)
                at_ms = entry.number("at_ms", 0, MAX_MS)
                _check_order(entry.path("at_ms"), before, at_ms)
                schedule.append((at_ms, _read_limits(entry)))
                before = at_ms
        limits = _read_limits(reader)
        return replace(limits, schedule=tuple(schedule))

    def to_json(self) -> JsonObject:
        """The wire form: absent limits are left out, and so is an empty schedule."""
        wire = _limits_to_json(self)
        if self.schedule:
            wire["schedule"] = [
                {"at_ms": at_ms, **_limits_to_json(limits)} for at_ms, limits in self.schedule
            ]
        return wire

    def at(self, elapsed_ms: float) -> Budget:
        """The limits in force at a moment, as a budget without a schedule.

        Args:
            elapsed_ms: since the request's arrival; an entry holds from its `at_ms` on, that
                moment included.
        """
        limits = replace(self, schedule=()) if self.schedule else self
        for at_ms, changes in self.schedule:
            if at_ms > elapsed_ms:
                break
            limits = _override(limits, changes)
        return limits

    def changes_after(self, elapsed_ms: float) -> float | None:
        """The next moment (ms since arrival) at which other limits hold, or None."""
        return next((at_ms for at_ms, _ in self.schedule if at_ms > elapsed_ms), None)

    def normalised(self) -> Budget:
        """The one shortest budget that means the same at every moment from 0 on.

        Each entry names only what it changes; an entry that changes nothing, or that holds from
        the start, is gone. Two budgets mean the same exactly if their normal forms are equal.
        """
        return _from_moments(self.at(0.0), ((at_ms, self.at(at_ms)) for at_ms, _ in self.schedule))


def tightest(a: Budget, b: Budget) -> Budget:
    """The budget that allows only what both allow, at every moment.

    Commutative, associative and, up to `normalised`, idempotent with `Budget()` as its neutral
    element. Both schedules count from the same moment; where they do not (a request's and the
    server's own), take each one's `at(...)` first. The result is in normal form and may have more
    entries than the wire allows a client.
    """
    moments = sorted({at_ms for at_ms, _ in a.schedule + b.schedule})
    return _from_moments(
        _tighter(a.at(0.0), b.at(0.0)),
        ((at_ms, _tighter(a.at(at_ms), b.at(at_ms))) for at_ms in moments),
    )


def _from_moments(start: Budget, moments: Iterable[tuple[float, Budget]]) -> Budget:
    """Builds a normal form from the limits at the start and at each later moment, in order."""
    schedule: list[tuple[float, Budget]] = []
    before = start
    for at_ms, limits in moments:
        changes = {
            name: getattr(limits, name)
            for name in LIMITS
            if getattr(limits, name) != getattr(before, name)
        }
        if changes and at_ms > 0:
            schedule.append((at_ms, Budget(**changes)))
        before = limits
    return replace(start, schedule=tuple(schedule))


def _tighter(a: Budget, b: Budget) -> Budget:
    return Budget(
        deadline_ms=_least(a.deadline_ms, b.deadline_ms),
        compute_gmacs=_least(a.compute_gmacs, b.compute_gmacs),
        max_exit=_least(a.max_exit, b.max_exit),
        min_confidence=_least(a.min_confidence, b.min_confidence),
        confident_share=_least(a.confident_share, b.confident_share),
    )


def _least(a: _Number | None, b: _Number | None) -> _Number | None:
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def _override(limits: Budget, changes: Budget) -> Budget:
    named = _limits_to_json(changes)
    return replace(limits, **named)


def _limits_to_json(budget: Budget) -> JsonObject:
    return {name: value for name in LIMITS if (value := getattr(budget, name)) is not None}


def _read_limits(reader: JsonReader) -> Budget:
    budget = Budget(
        deadline_ms=reader.number("deadline_ms", 0, MAX_MS) if reader.has("deadline_ms") else None,
        compute_gmacs=reader.number("compute_gmacs") if reader.has("compute_gmacs") else None,
        max_exit=reader.integer("max_exit", 1) if reader.has("max_exit") else None,
        min_confidence=reader.number("min_confidence", 0, 1)
        if reader.has("min_confidence")
        else None,
        confident_share=reader.number("confident_share", 0, 1)
        if reader.has("confident_share")
        else None,
    )
    reader.end()
    return budget


def _check_number(field: str, value: float | None, high: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not (0 <= value <= high and math.isfinite(value)):
        upper = "" if high == math.inf else f" and at most {high:.10g}"
        raise BudgetError(field, describe(value), f"a finite number >= 0{upper}")


def _check_order(field: str, before: float, at_ms: float) -> None:
    if at_ms <= before:
        raise BudgetError(field, describe(at_ms), f"more than the entry before it ({before:.10g})")
