"""A request as scheduling sees it, how far it has come, and what it may do next."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from anytime_protocol.budget import Budget
from anytime_protocol.enums import ErrorCode, Reason
from anytime_server.core.decisions import ExitReport, JobFailed, JobFinished, would_do

if TYPE_CHECKING:  # it only holds them
    from anytime_server.core.limits import EffectiveLimits
    from anytime_server.core.slow_down import Prediction
    from anytime_server.core.stage_costs import StepCosts
    from anytime_server.core.stream_costs import StreamCosts

_ROUNDING: Final = 1e-9
"""Tolerance, in 1e9 multiply-adds, for comparing a sum with a limit."""


class StageForecast(NamedTuple):
    """What it takes to get from the last exit made to a later one.

    Attributes:
        exit: the later one.
        base_s: seconds on the unburdened machine.
        gmacs: 1e9 multiply-adds.
        gain: quality gained.
    """

    exit: int
    base_s: float
    gmacs: float
    gain: float


class JobForecast(NamedTuple):
    """What one job may do at one moment, and when.

    Attributes:
        limits: its effective limits.
        may_continue: depth and multiply-adds allow its next stage.
        needs: time for its next stage, decoding included if still due: of the stages that it may go
            on with, the shortest; zero after the last stage.
        due_s: when a stage must have ended for its map to arrive by the deadline, margin included;
            infinity without a deadline.
        expected_due_s: the same without a margin, which is enough for exit 1 on an idle machine.
        order_s: its place in the order of work: `due_s`, or without a deadline the moment at which
            its patience ends.
        latest_start_s: when its next stage must have been started.
    """

    limits: EffectiveLimits
    may_continue: bool
    needs: Prediction
    due_s: float
    expected_due_s: float
    order_s: float
    latest_start_s: float

    def is_overdue(self, now: float) -> bool:
        """Whether it has no deadline and has waited long enough for a stage that it may have."""
        return self.due_s == math.inf and self.may_continue and now >= self.order_s


@dataclass(slots=True, eq=False)
class JobState:
    """One request as scheduling sees it, and how far it has come; owned by the scheduler.

    Attributes:
        id: unique among the jobs that have not ended.
        model: name of the model that computes it.
        height: of the image, px.
        width: of the image, px.
        arrival_s: when its headers were in; its budget counts from then.
        budget: the client's budget in force.
        urgency: 0 (first) to 7 (last), RFC 9218; 3 where the client said nothing.
        media_type: of the image, for the cost of decoding it.
        encoding: of the answer, for the cost of encoding it.
        shows_each: its client is shown each exit that is better than those before it.
        stream: of whose frames it is one that may take over what earlier ones have found; None of
            an image that is computed by itself.
        decoded: the image needs no decoding (any more).
        awaits_image: its image is being decoded, which takes so long that others go first.
        rev: number of the budget in force.
        prepare_s: base seconds of getting ready for each size at which it is computed, zero where
            others of this size came before; empty before it is submitted. The first size is got
            ready for before its run.
        last: the last exit made; None before the first.
        made: numbers of the exits made.
        gmacs: 1e9 multiply-adds of its finished stages.
        used_s: seconds of network time spent on it.
        wasted_s: those of them that led to no map that anybody sees.
        cancelled: its client does not want it any more.
        steps: what steps between the model's exits take at its size; None before it is submitted.
        reuse: what the frames of its stream take; None of an image that is computed by itself.
        paths: the ways on, and what each exit along them would take; empty after the last exit.
        next_steps: the first steps of all paths, each once.
        progress_s: when its last exit was made, or when it was admitted.
        limits: the limits on it as last worked out, with the versions that they came from.
        forecast: its forecast under these limits, with the versions that it came from.
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
    shows_each: bool = False
    stream: str | None = None
    decoded: bool = False
    awaits_image: bool = False
    rev: int = 0
    prepare_s: tuple[float, ...] = ()
    last: ExitReport | None = None
    made: tuple[int, ...] = ()
    gmacs: float = 0.0
    used_s: float = 0.0
    wasted_s: float = 0.0
    cancelled: bool = False
    steps: StepCosts | None = None
    reuse: StreamCosts | None = None
    paths: tuple[tuple[StageForecast, ...], ...] = ()
    next_steps: tuple[StageForecast, ...] = ()
    progress_s: float = 0.0
    limits: tuple[tuple[int, int], EffectiveLimits] | None = None
    forecast: tuple[tuple[int, bool], JobForecast] | None = None

    @property
    def exit(self) -> int:
        """The last exit made, from 1; 0 before the first."""
        return 0 if self.last is None else self.last.exit

    def finished(self, reason: Reason) -> JobFinished:
        """Its end with the exits that it has."""
        return JobFinished(self.id, reason, self.exit, self.wasted_s)

    def too_late(self, detail: str, out_s: float) -> JobFailed:
        """Its end without an exit, because exit 1 would be out at `out_s`, after its deadline."""
        needed_s = out_s - self.arrival_s
        text = f"{detail}; {would_do(needed_s)}"
        return JobFailed(self.id, ErrorCode.DEADLINE_EXCEEDED, text, self.used_s, needed_s)

    def restart(self) -> None:
        """Its exits are lost with what computed them; it begins again with exit 1."""
        self.last, self.made, self.gmacs = None, (), 0.0
        self.wasted_s = self.used_s

    @property
    def pixels(self) -> int:
        """H times W of the image."""
        return self.height * self.width

    @property
    def active_share(self) -> float:
        """Share of the positions that its next stage would compute."""
        return 1.0 if self.last is None else self.last.active_share

    def factor(self, exit_: int) -> float:
        """Time of the step to an exit as a multiple of what images of its model take."""
        return 1.0 if self.reuse is None else self.reuse.factor(exit_)

    def preparing_s(self, size: int) -> float:
        """Base seconds of getting ready for a size, by its index."""
        return self.prepare_s[size] if self.prepare_s else 0.0

    def is_satisfied(self, limits: EffectiveLimits) -> bool:
        """Whether its last map is as confident as asked."""
        found = self.last
        return found is not None and (
            found.confidence >= limits.confidence or found.confident_share >= limits.confident_share
        )

    def allows(self, step: StageForecast, limits: EffectiveLimits) -> bool:
        """Whether depth and multiply-adds allow it to go on to an exit."""
        within = self.gmacs + step.gmacs <= limits.gmacs + _ROUNDING
        return within and step.exit <= limits.max_exit

    def may_continue(self, limits: EffectiveLimits) -> bool:
        """Whether they allow a next stage; that exit 1 is allowed was settled on admission."""
        return self.last is None or any(self.allows(step, limits) for step in self.next_steps)

    def wanted_s(self) -> float:
        """Base seconds to the depth that its client wants."""
        cap = math.inf if self.budget.max_exit is None else self.budget.max_exit
        ends = (next((s for s in reversed(path) if s.exit <= cap), None) for path in self.paths)
        return max((step.base_s for step in ends if step is not None), default=0.0)
