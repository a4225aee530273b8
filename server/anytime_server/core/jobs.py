"""The values that the scheduler takes and gives: jobs, decisions, outcomes.

Decides what is known about a request and which answers exist. Knows neither the clock nor any rule:
nothing here chooses, predicts or changes. All times are seconds on one monotonic clock.

A request's life, as the scheduler tells it:

    submit -> Rejected
           -> Admitted -> (Run -> ExitMade)* -> exactly one of Final, Failed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Effect, ErrorCode, Reason


@dataclass(frozen=True, slots=True)
class Job:
    """One request, as far as scheduling needs it.

    Attributes:
        id: unique among the jobs alive.
        model: name of the model that shall compute it.
        height: of the image, in px.
        width: of the image, in px.
        arrival_s: when its headers were in; its budget counts from then.
        budget: the client's own limits.
        urgency: 0 (first) to 7 (last), RFC 9218; 3 where the client said nothing.
        media_type: of the image, for the cost of decoding it.
        encoding: of the answer, for the cost of encoding it.
        network_s: measured one-way time to the client, taken off the deadline.
        decoded: the image needs no decoding (any more).
    """

    id: str
    model: str
    height: int
    width: int
    arrival_s: float
    budget: Budget = field(default_factory=Budget)
    urgency: int = 3
    media_type: str = "image/jpeg"
    encoding: str = "png"
    network_s: float = 0.0
    decoded: bool = False


class StageResult(NamedTuple):
    """What the executor found when a stage ended.

    Attributes:
        confidence: mean confidence of the exit's map, 0 to 1.
        active_share: share of the pixels that the next stage would compute, 0 to 1.
        confident_share: share of the pixels whose confidence reaches the threshold, 0 to 1.
        gmacs: 1e9 multiply-adds that the stage cost.
    """

    confidence: float
    active_share: float
    confident_share: float
    gmacs: float


# Answers to submit and update_budget.


@dataclass(frozen=True, slots=True)
class Admitted:
    """The job is taken; from now on it will get exactly one `Final` or `Failed`.

    Attributes:
        job_id: the job.
        exit: the deepest exit that it will probably get, as things stand.
        after_s: when that exit's answer will probably be out, counted from the job's arrival.
    """

    job_id: str
    exit: int
    after_s: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """The job is not taken, and nothing was spent on it.

    Attributes:
        job_id: the job.
        code: `OVERLOADED`, `DRAINING`, `DEADLINE_EXCEEDED` (not even an idle server would make exit
            1 in time) or `BUDGET_TOO_SMALL` (exit 1 costs more multiply-adds than allowed).
        detail: the same in words, with the numbers that decided.
        retry_after_s: when it may be worth another try; None where another try is pointless.
    """

    job_id: str
    code: ErrorCode
    detail: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class BudgetAnswer:
    """What became of a client's new budget.

    Attributes:
        job_id: the job.
        rev: number of the budget that holds now (0: the one it came with).
        effect: `APPLIED`, `STALE` or `GONE`.
        at_exit: exits that were made when it took effect.
        stops_stage: the stage that is running will be stopped because of it.
    """

    job_id: str
    rev: int
    effect: Effect
    at_exit: int
    stops_stage: bool


# Outcomes: what the world is told.


@dataclass(frozen=True, slots=True)
class ExitMade:
    """A job has a new map, and its client may see it.

    Attributes:
        job_id: the job.
        exit: number of the exit, from 1.
        result: what was found there.
    """

    job_id: str
    exit: int
    result: StageResult


@dataclass(frozen=True, slots=True)
class Final:
    """The job has ended with what it has.

    Attributes:
        job_id: the job.
        reason: why it did not go deeper.
        exit: the best exit that was made; 0 only for a job cancelled before its first.
        result: what was found there; None exactly if `exit` is 0.
        gmacs: 1e9 multiply-adds that all its finished stages cost.
        wasted_s: seconds spent on stages that were stopped or whose map nobody will see.
    """

    job_id: str
    reason: Reason
    exit: int
    result: StageResult | None
    gmacs: float
    wasted_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The job has ended in an error.

    Attributes:
        job_id: the job.
        code: `DEADLINE_EXCEEDED` where not even exit 1 was made in time, else what `fail` was told.
        detail: the same in words.
        wasted_s: seconds spent on it.
    """

    job_id: str
    code: ErrorCode
    detail: str
    wasted_s: float


Outcome = ExitMade | Final | Failed
Ending = Final | Failed


# Decisions: what is to be done next.


@dataclass(frozen=True, slots=True)
class Run:
    """Compute one stage of one job now (decode its image before, if that is still to be done).

    Attributes:
        job_id: the job.
        stage: the stage, from 1; its end is exit number `stage`.
        predicted_s: how long it will probably take, the decoding included.
        stop_at_s: when it will have to be stopped if nothing changes; infinity without a deadline.
        depth: the deepest exit that its time and budget allow, as predicted now.
        through: the last stage that may be run without asking again, `stage` at least: until then
            nothing that the stages find, and no time that passes, changes what is to be done.
        goes_on: its next stage will most likely be run right after: depth allows it, no other job
            is in the house, and none of its limits depends on what this stage will find.
    """

    job_id: str
    stage: int
    predicted_s: float
    stop_at_s: float
    depth: int
    through: int
    goes_on: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """Tell the world that a job has ended; then ask again."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until something is reported or submitted, at the latest until `until_s`.

    Attributes:
        until_s: when to ask again; None if time alone changes nothing.
    """

    until_s: float | None


@dataclass(frozen=True, slots=True)
class Idle:
    """There is no job at all."""


Decision = Run | Finish | Wait | Idle

StopReason = Literal[Reason.CANCELLED, Reason.DEADLINE, Reason.BUDGET, Reason.SATISFIED]
