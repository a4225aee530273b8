"""What the scheduler tells and is told: exit reports, answers to requests, decisions and endings.

All times are seconds on one monotonic clock. The life of a request, as the scheduler tells it:

    submit -> Rejected
           -> Admitted -> (RunJob -> exit reports)* -> exactly one of JobFinished, JobFailed
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from anytime_protocol.enums import Effect, ErrorCode, Reason
from anytime_protocol.model_info import MAX_EXITS


class ExitReport(NamedTuple):
    """The numbers of an exit that the executor has made.

    Attributes:
        exit: its number, from 1.
        confidence: mean confidence of its map, 0 to 1.
        active_share: share of the positions that the next stage would compute, 0 to 1.
        confident_share: share of the pixels whose confidence reaches the threshold, 0 to 1.
        gmacs: 1e9 multiply-adds of its stage.
        elapsed_s: seconds that its stage took in the network.
        ended_s: moment at which it was made.
        improves: its map was measured to be better than those before it; if not, it is not shown.
    """

    exit: int
    confidence: float
    active_share: float
    confident_share: float
    gmacs: float
    elapsed_s: float
    ended_s: float
    improves: bool = True


@dataclass(frozen=True, slots=True)
class Admitted:
    """The job is taken; from now on it will get exactly one `JobFinished` or `JobFailed`.

    Attributes:
        exit: the deepest exit that it will probably get, as things stand.
        after_s: when that exit's answer will probably be out, counted from the job's arrival.
    """

    exit: int
    after_s: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """The job is not taken, and nothing was spent on it.

    Attributes:
        code: `OVERLOADED`, `DRAINING`, `DEADLINE_EXCEEDED` (not even an idle server would make exit
            1 in time) or `BUDGET_TOO_SMALL` (exit 1 costs more multiply-adds than allowed).
        detail: the same in words, with the numbers that decided.
        retry_after_s: when it may be worth another try; None where another try is pointless.
        needed_s: the deadline, from arrival, that would do for exit 1 as things stand; None where
            no deadline is at fault.
    """

    code: ErrorCode
    detail: str
    retry_after_s: float | None
    needed_s: float | None = None


class BudgetChange(NamedTuple):
    """What became of a client's new budget.

    Attributes:
        effect: `APPLIED`, `STALE` or `GONE`.
        exit: exits that had been made when it took effect.
    """

    effect: Effect
    exit: int


@dataclass(frozen=True, slots=True)
class JobFinished:
    """The job has ended with what it has.

    Attributes:
        job_id: the job.
        reason: why it did not go deeper.
        exit: the best exit that was made; 0 only for a job cancelled before its first.
        wasted_s: seconds spent on stages that were stopped or whose map was never sent.
    """

    job_id: str
    reason: Reason
    exit: int
    wasted_s: float


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The job has ended in an error.

    Attributes:
        job_id: the job.
        code: `DEADLINE_EXCEEDED` where not even exit 1 was made in time, else what `fail` was told.
        detail: the same in words.
        wasted_s: seconds spent on it.
        needed_s: as in `Rejected`.
    """

    job_id: str
    code: ErrorCode
    detail: str
    wasted_s: float
    needed_s: float | None = None


Ending = JobFinished | JobFailed


class RunLimits(NamedTuple):
    """How far the executor may go with the job that it computes; may change while it does.

    Attributes:
        path: the stages that the run is to compute, rising: the one that is being computed and
            those after it. A stage that is not among them is stopped at once. A stage is known by
            the number of its exit.
        stop_at_s: moment after which the stage that runs is worth nothing; infinity for none.
        notify: the scheduler decides anew after the next exit, and not only after the last.
    """

    path: tuple[int, ...]
    stop_at_s: float = math.inf
    notify: bool = False

    @property
    def last_stage(self) -> int:
        """The last stage of the run; 0 for none."""
        return self.path[-1] if self.path else 0


STOP: Final = RunLimits(path=())
"""Nothing more is to be computed."""

CHECK: Final = RunLimits(path=tuple(range(1, MAX_EXITS + 1)))
"""A frame of a stream is computed once more, as long as nothing else is to be done."""


@dataclass(frozen=True, slots=True)
class RunJob:
    """Compute stages of a job now (decode its image before, if that is still to be done).

    Attributes:
        job_id: the job.
        stage: the first of them, from 1; its end is exit number `stage`.
        depth: the deepest exit that its time and budget allow, as predicted now.
        predicted_s: how long the first stage will probably take, decoding included.
        limits: how far to go; `Scheduler.run_limits` gives them anew after each change.
        max_risk: share of settled pixels that may differ from the whole network's answer; infinity
            where nothing is asked.
    """

    job_id: str
    stage: int
    depth: int
    predicted_s: float
    limits: RunLimits
    max_risk: float = math.inf


@dataclass(frozen=True, slots=True)
class EndJob:
    """Report that a job has ended; then ask again."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until something is reported or submitted, at the latest until `until_s`.

    Attributes:
        until_s: when to ask again; None if time alone changes nothing.
    """

    until_s: float | None


Decision = RunJob | EndJob | Wait


def would_do(needed_s: float) -> str:
    """What to do about a deadline that is too tight, in words; seconds from arrival."""
    return f"now {math.ceil(round(needed_s * 1e3, 1))} ms would do"


def in_ms(seconds: float | None) -> float | None:
    """A time as it goes over the wire."""
    return None if seconds is None else seconds * 1e3
