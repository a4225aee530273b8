"""The bodies of the REST resources, the same classes for server and client.

A server reads them strictly, a client with `ignore_unknown=True`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from anytime_protocol.budget import LIMITS, MAX_SCHEDULE, Budget, Limits, Schedule, check_schedule
from anytime_protocol.enums import RequestState, ScheduleClock
from anytime_protocol.errors import BudgetError, describe
from anytime_protocol.fields import Exit, Exits
from anytime_protocol.messages import MAX_REV, Failed, Finished
from anytime_protocol.model_info import ModelInfo
from anytime_protocol.validation import (
    Absent,
    Amount,
    Id,
    JsonValue,
    Name,
    converted,
    number,
    omit,
    text,
    whole,
)

_Seconds = Annotated[float, number(digits=None)]
_DeepestExit = Annotated[int, whole(1)]


@dataclass(frozen=True, slots=True)
class LoadCap(JsonValue):
    """A cap on depth that a load switches on and off.

    Attributes:
        above_s: goes on when the load reaches this many seconds of work.
        below_s: goes off when the load has fallen to this; less than `above_s`.
        max_exit: the deepest exit while it is on.

    Raises:
        BudgetError: a value is out of its range.
    """

    above_s: _Seconds
    below_s: _Seconds
    max_exit: _DeepestExit

    def __post_init__(self) -> None:
        if not 0 <= self.below_s < self.above_s < math.inf:
            expected = f"at least 0 and less than above_s ({self.above_s:g})"
            raise BudgetError("below_s", describe(self.below_s), expected)


Floors: TypeAlias = Annotated[
    tuple[tuple[int, int], ...],
    converted(
        dict[Literal["0", "1", "2", "3", "4", "5", "6", "7"], _DeepestExit],
        read=lambda floors: tuple(sorted((int(key), exit_) for key, exit_ in floors.items())),
        write=lambda pairs: {str(urgency): exit_ for urgency, exit_ in pairs},
    ),
    omit(()),
]


@dataclass(frozen=True, slots=True)
class ServerBudget(Limits):
    """The operator's budget: limits for every request, and how they change by time and load.

    Attributes:
        load_caps: in any order; of those that are on, the tightest counts.
        floors: `(urgency, exit)`: the load never caps this class below this exit.
        clock: what the schedule counts from.
        schedule: `(at_ms, limits)`, rising; each entry replaces the limits
            that it names, as in a client's schedule, and may so lift them.

    Raises:
        BudgetError: a value is out of its range; its `field` says which.
    """

    load_caps: Annotated[tuple[LoadCap, ...], Field(max_length=MAX_SCHEDULE), omit(())] = ()
    floors: Floors = ()
    clock: Annotated[ScheduleClock, omit(ScheduleClock.ELAPSED)] = ScheduleClock.ELAPSED
    schedule: Schedule = ()

    def __post_init__(self) -> None:
        Limits.__post_init__(self)
        check_schedule(self.schedule)

    @property
    def limits(self) -> Budget:
        """The limits and the schedule alone, as a budget whose times count as `clock` says."""
        return Budget(**{name: getattr(self, name) for name in LIMITS}, schedule=self.schedule)


@dataclass(frozen=True, slots=True)
class ServerBudgetChange(JsonValue):
    """The body of `PUT /v1/budget`: a budget that replaces the operator's as a whole."""

    budget: ServerBudget


@dataclass(frozen=True, slots=True)
class ServerBudgetStatus(JsonValue):
    """The answer to `GET` and `PUT /v1/budget`: the server's own budget, and its load.

    Attributes:
        budget: what the operator set.
        effective: the limits in force now, those by load included.
        in_flight: requests that are not over.
        queued: those of them that wait for their first stage.
        slowdown: how much slower than measured alone the stages are now; 1 is not at all.
        load_s: predicted seconds of work for all requests in flight to the depth that they asked
            for, over all executors; the load caps compare that of each executor by itself. None
            where the server does not say.
    """

    budget: ServerBudget
    effective: Budget
    in_flight: Annotated[int, whole()]
    queued: Annotated[int, whole()]
    slowdown: Amount
    load_s: Absent[Amount] = None


@dataclass(frozen=True, slots=True)
class BudgetPatch(JsonValue):
    """The body of `PATCH /v1/requests/{id}`: a new budget for a running request.

    Attributes:
        budget: replaces the old one as a whole.
        rev: 1 or more; None is one more than the last.
    """

    budget: Budget
    rev: Absent[Annotated[int, whole(1, MAX_REV)]] = None


@dataclass(frozen=True, slots=True)
class RequestStatus(JsonValue):
    """The answer to `GET /v1/requests/{id}`.

    Attributes:
        id: of the request.
        model: that it is for.
        state: where it stands.
        exit: the deepest that is ready, 0 if none is.
        exits: that the model has.
        elapsed_ms: since its arrival, until its end if it is over.
        rev: of the budget in force, 0 for the first.
        budget: in force.
        final: how it ended, if it ended well.
        error: how it ended, if it failed.
    """

    id: Id
    model: Name
    state: RequestState
    exit: Exits
    exits: Exit
    elapsed_ms: Amount
    rev: Annotated[int, whole(0, MAX_REV)]
    budget: Budget
    final: Absent[Finished] = None
    error: Absent[Failed] = None


@dataclass(frozen=True, slots=True)
class ModelList(JsonValue):
    """The answer to `GET /v1/models`."""

    models: Annotated[tuple[ModelInfo, ...], Field(max_length=256)]


@dataclass(frozen=True, slots=True)
class Health(JsonValue):
    """The answer to `GET /readyz`.

    Attributes:
        state: `ready`, or why requests are not admitted.
        engines: what computes each model, by the model's name.
    """

    state: Annotated[str, text(64)]
    engines: Mapping[str, str] = field(default_factory=dict)
