"""Which of the stages that may run should run next.

The scheduler offers only stages that the budgets allow and that can still be delivered in time; so
no policy can miss a deadline, only spend time badly. Policies have no state and no clock.
`simulation.policies` has others to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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


class Candidate(NamedTuple):
    """The next stage of one job, which may start now.

    Attributes:
        job_id: the job.
        stage: the stage, from 1.
        arrival_s: when the job arrived.
        due_s: when the stage must have ended; without a deadline, when the job's patience ends.
        overdue: the job has no deadline and its patience has ended.
        urgency: 0 (first) to 7 (last).
        steps: the exits that can be reached in time from here, the next one first.
    """

    job_id: str
    stage: int
    arrival_s: float
    due_s: float
    overdue: bool
    urgency: int
    steps: tuple[Step, ...]

    @property
    def mandatory(self) -> bool:
        """Exit 1 is mandatory for every admitted job."""
        return self.stage == 1


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
