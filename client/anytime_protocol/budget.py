"""The budget B(x, t) of one request as a value: limits that may change as time passes.

Every limit is an upper bound on spending, so that for every field the smaller value is the tighter
one and an absent field is infinitely lax:

* `deadline_ms`: from the request's arrival to the last byte of its answer.
* `compute_gmacs`: billions of multiply-adds that the request may cost.
* `max_exit`: the deepest exit that may be computed, counted from 1.
* `min_confidence` and `confident_share`: two ways to be satisfied. The request may stop as soon as
  the mean confidence of its map reaches the first, or the share of confident pixels the second;
  either will do. A lower value stops sooner.
* `max_risk`: of the pixels that masks settle, the share that may differ from what the model without
  masks answers at its last exit. The server takes the masks of the certificate with the largest
  risk up to it, and none where there is no such certificate. It counts when the computation begins.

A schedule changes limits at set times after the request's arrival: each entry overrides the limits
that it names, from `at_ms` on; the others stay as they were. All times here are ms since arrival,
and comparisons should be made in this unit: a sum of seconds and `at_ms / 1e3` is rounded, and may
lie just before the entry's moment.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Final, TypeAlias

from pydantic import Field

from anytime_protocol.errors import BudgetError, FieldError, describe
from anytime_protocol.validation import (
    Absent,
    Constraint,
    JsonValue,
    converted,
    number,
    omit,
    whole,
)

# The longest time that a budget may name: one day, in ms.
MAX_MS: Final = 86_400_000.0

# Entries that a schedule may have on the wire.
MAX_SCHEDULE: Final = 64

_MS: Final = number(0, MAX_MS, digits=None)
_GMACS: Final = number(digits=None)
_EXIT: Final = whole(1)
_SHARE: Final = number(0, 1, digits=None)
_CHECKS: Final[dict[str, Constraint]] = {
    "deadline_ms": _MS,
    "compute_gmacs": _GMACS,
    "max_exit": _EXIT,
    "min_confidence": _SHARE,
    "confident_share": _SHARE,
    "max_risk": _SHARE,
}

# Names of the limits, in wire order.
LIMITS: Final = tuple(_CHECKS)


@dataclass(frozen=True, slots=True)
class Limits(JsonValue):
    """Limits, any of them absent (`None`: no limit); base of all budgets.

    Attributes:
        deadline_ms: 0 to `MAX_MS`, from the request's arrival.
        compute_gmacs: 0 or more, in 1e9 multiply-adds.
        max_exit: 1 or more.
        min_confidence: 0 to 1; satisfied when the map's mean confidence reaches it.
        confident_share: 0 to 1; satisfied when this share of the pixels is confident.
        max_risk: 0 to 1; share of settled pixels that may differ from the whole network's answer.
            0 computes without masks; absent leaves them to the model.

    Raises:
        BudgetError: a value is out of its range; its `field` says which.
    """

    ERROR: ClassVar[type[FieldError]] = BudgetError
    PATH: ClassVar[str] = "budget"

    deadline_ms: Absent[Annotated[float, _MS]] = None
    compute_gmacs: Absent[Annotated[float, _GMACS]] = None
    max_exit: Absent[Annotated[int, _EXIT]] = None
    min_confidence: Absent[Annotated[float, _SHARE]] = None
    confident_share: Absent[Annotated[float, _SHARE]] = None
    max_risk: Absent[Annotated[float, _SHARE]] = None

    def __post_init__(self) -> None:
        for name, limit in _CHECKS.items():
            value = getattr(self, name)
            if value is not None and not limit.accepts(value):
                raise BudgetError(name, describe(value), limit.words)


@dataclass(frozen=True, slots=True)
class ScheduleEntry(Limits):
    """One entry of a schedule as it stands in the JSON: `at_ms` and the limits that change."""

    at_ms: Annotated[float, _MS] = field(kw_only=True)


Schedule: TypeAlias = Annotated[
    tuple[tuple[float, "Budget"], ...],
    converted(
        Annotated[tuple[ScheduleEntry, ...], Field(max_length=MAX_SCHEDULE)],
        read=lambda entries: tuple((entry.at_ms, Budget(**_named(entry))) for entry in entries),
        write=lambda pairs: tuple(ScheduleEntry(**_named(b), at_ms=at_ms) for at_ms, b in pairs),
    ),
    omit(()),
]


@dataclass(frozen=True, slots=True)
class Budget(Limits):
    """Limits on one request, and how they change in time.

    Attributes:
        schedule: pairs of `at_ms` (rising strictly) and the limits that change then; these have no
            schedule of their own.

    Raises:
        BudgetError: a value is out of its range; its `field` says which.
    """

    schedule: Schedule = ()

    def __post_init__(self) -> None:
        Limits.__post_init__(self)
        if self.schedule:
            check_schedule(self.schedule)

    def at(self, elapsed_ms: float) -> "Budget":
        """The limits in force at a moment, as a budget without a schedule.

        Args:
            elapsed_ms: since the request's arrival; an entry holds from its `at_ms` on, that
                moment included.
        """
        limits = replace(self, schedule=()) if self.schedule else self
        for at_ms, changes in self.schedule:
            if at_ms > elapsed_ms:
                break
            limits = replace(limits, **_named(changes))
        return limits

    def pieces(self) -> list[tuple[float, "Budget"]]:
        """The budget as a function of time: pairs of a moment and the limits in force from it on.

        The first moment is 0; moments are ms since arrival and rise.
        """
        return [(0.0, self.at(0.0))] + [
            (at_ms, self.at(at_ms)) for at_ms, _ in self.schedule if at_ms > 0
        ]

    def changes_after(self, elapsed_ms: float) -> float | None:
        """The next moment (ms since arrival) at which other limits may hold, or None."""
        return next((at_ms for at_ms, _ in self.schedule if at_ms > elapsed_ms), None)

    def normalised(self) -> "Budget":
        """The one shortest budget that means the same at every moment from 0 on.

        Each entry names only what it changes; an entry that changes nothing, or that holds from
        the start, is gone. Two budgets mean the same exactly if their normal forms are equal.
        """
        return _from_pieces(self.pieces())


def check_schedule(schedule: tuple[tuple[float, Budget], ...]) -> None:
    """Checks that a schedule's moments rise and that its entries have no schedule.

    Raises:
        BudgetError: they do not.
    """
    before = -1.0
    for index, (at_ms, limits) in enumerate(schedule):
        name = f"schedule[{index}].at_ms"
        if not _MS.accepts(at_ms):
            raise BudgetError(name, describe(at_ms), _MS.words)
        if at_ms <= before:
            expected = f"more than the entry before it ({before:.10g})"
            raise BudgetError(name, describe(at_ms), expected)
        if limits.schedule:
            raise BudgetError(f"schedule[{index}].schedule", "a schedule", "limits only")
        before = at_ms


def tightest(a: Budget, b: Budget) -> Budget:
    """The budget that allows only what both allow, at every moment.

    Commutative, associative and, up to `normalised`, idempotent with `Budget()` as its neutral
    element. Both schedules count from the same moment; where they do not (a request's and the
    server's own), take each one's `at(...)` first. The result is in normal form and may have more
    entries than the wire allows a client.
    """
    moments = sorted({0.0} | {at_ms for at_ms, _ in a.schedule + b.schedule})
    return _from_pieces([(at_ms, _tighter(a.at(at_ms), b.at(at_ms))) for at_ms in moments])


def _from_pieces(pieces: list[tuple[float, Budget]]) -> Budget:
    """Builds a normal form from the limits in force from each moment on."""
    start = before = pieces[0][1]
    schedule: list[tuple[float, Budget]] = []
    for at_ms, limits in pieces[1:]:
        named = ((name, getattr(limits, name)) for name in LIMITS)
        changes = {name: value for name, value in named if value != getattr(before, name)}
        if changes:
            schedule.append((at_ms, Budget(**changes)))
        before = limits
    return replace(start, schedule=tuple(schedule))


def _tighter(a: Budget, b: Budget) -> Budget:
    return Budget(**{name: _least(getattr(a, name), getattr(b, name)) for name in LIMITS})


def _least(*limits: Any) -> Any:
    return min((limit for limit in limits if limit is not None), default=None)


def _named(limits: Limits) -> dict[str, Any]:
    return {name: value for name in LIMITS if (value := getattr(limits, name)) is not None}
