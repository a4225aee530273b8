"""Which of the stages that may run should run next.

The scheduler offers only stages that the budgets allow and that can still be delivered in time; so
no policy can miss a deadline, only spend time badly. Policies have no state and no clock.
`simulation.policies` has others to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Step(NamedTuple):
    """What it takes, and brings, to go on to a certain exit.

    Attributes:
        exit: number of the exit.
        upper_s: seconds from the start of the next stage to this exit, safety margin included.
        mean_s: the same, as expected.
        gain: quality gained over the exit that is there now; comparable within one model.
    """

    exit: int
    upper_s: float
    mean_s: float
    gain: float


@dataclass(slots=True, eq=False)
class Candidate:
    """The next stage of one job, which may start now.

    Attributes:
        job_id: the job.
        mandatory: the stage leads to exit 1, which every admitted job gets.
        arrival_s: when the job arrived.
        due_s: when the stage must have ended; without a deadline, when the job's patience ends.
        overdue: the job has no deadline and its patience has ended.
        urgency: 0 (first) to 7 (last).
        plan: works out `steps`. That takes long beside a short stage, and where many jobs wait the
            policies choose most stages without it.
    """

    job_id: str
    mandatory: bool
    arrival_s: float
    due_s: float
    overdue: bool
    urgency: int
    plan: Callable[[], tuple[Step, ...]]
    _steps: tuple[Step, ...] | None = field(default=None, init=False, repr=False)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The exits that can be reached in time from here, the next one first."""
        if self._steps is None:
            self._steps = self.plan()
        return self._steps

    @property
    def stage(self) -> int:
        """The stage, from 1."""
        return self.steps[0].exit


class Policy(Protocol):
    """An order of work."""

    def choose(self, candidates: Sequence[Candidate], slack_s: float) -> Candidate:
        """One of the candidates.

        Args:
            candidates: at least one, in order of admission.
            slack_s: seconds by which all mandatory stages, overdue ones included, can be delayed
                without a deadline broken; infinity if none is in sight, negative if one is in
                danger.
        """
        ...


@dataclass(frozen=True, slots=True)
class QualityPerSecond:
    """First what is mandatory, then what brings most quality for its time.

    1. A job without a deadline whose patience has ended, if the mandatory stages allow it.
    2. First exits, the earliest deadline first.
    3. The later stage that leads to the most quality per second, looking as far ahead as the job's
       deadline reaches (a poor stage may be the way to a rich one), each step of urgency counting
       twice.

    The order of 2 and 3 makes quality give way before service does: under load, slack shrinks, and
    depth with it, but first exits keep their place.
    """

    def choose(self, candidates: Sequence[Candidate], slack_s: float) -> Candidate:
        """See the class."""
        overdue = [c for c in candidates if c.overdue]
        if overdue and slack_s >= 0.0:
            return min(overdue, key=_due)
        mandatory = [c for c in candidates if c.mandatory]
        if mandatory:
            return min(mandatory, key=_due)
        return max(candidates, key=_quality_per_second)


def _due(candidate: Candidate) -> float:
    return candidate.due_s


def _quality_per_second(candidate: Candidate) -> float:
    rate = max((step.gain / step.mean_s for step in candidate.steps), default=-math.inf)
    return rate * 2.0 ** (3 - candidate.urgency)
