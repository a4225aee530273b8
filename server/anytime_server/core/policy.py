"""Which of the stages that may run should run: small policies behind one protocol.

Decides the order of work, and nothing else. The scheduler offers only stages that the budgets allow
and, where a policy heeds deadlines, that can still be delivered in time; so no policy can break a
promise, only spend time badly. Policies have no state and know no clock.

`QualityPerSecond` is ours; the others are what it is compared with.
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
        """Exit 1 is owed to every admitted job."""
        return self.stage == 1


class Policy(Protocol):
    """An order of work.

    Attributes:
        name: for tables.
        heeds_deadlines: if not, jobs are admitted while the queue has room, and are computed to
            their depth however late that is.
    """

    @property
    def name(self) -> str:
        """See the class."""

    @property
    def heeds_deadlines(self) -> bool:
        """See the class."""

    def depth(self, exits: int) -> int:
        """The deepest exit that is ever computed, of so many."""
        ...

    def choose(self, candidates: Sequence[Candidate], spare_s: float) -> Candidate:
        """One of the candidates.

        Args:
            candidates: at least one, in order of admission.
            spare_s: seconds by which all that is owed, overdue stages included, can be delayed
                without a deadline broken; infinity if none is in sight, negative if one is in
                danger.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fifo:
    """Full depth, first come first served, whatever the deadline: an ordinary server."""

    name: str = "fifo"
    heeds_deadlines: bool = False

    def depth(self, exits: int) -> int:
        """All of them."""
        return exits

    def choose(self, candidates: Sequence[Candidate], spare_s: float) -> Candidate:  # noqa: ARG002
        """The job that has been here longest."""
        return min(candidates, key=_arrival)


@dataclass(frozen=True, slots=True)
class Static:
    """Always the same exit, first come first served: an ordinary server with a smaller network.

    Attributes:
        exit: the exit.
    """

    exit: int
    heeds_deadlines: bool = False

    @property
    def name(self) -> str:
        """The name with the exit in it."""
        return f"static-{self.exit}"

    def depth(self, exits: int) -> int:
        """The exit, if the network has it."""
        return min(self.exit, exits)

    def choose(self, candidates: Sequence[Candidate], spare_s: float) -> Candidate:  # noqa: ARG002
        """The job that has been here longest."""
        return min(candidates, key=_arrival)


@dataclass(frozen=True, slots=True)
class EarliestDeadline:
    """Always the stage that is due first, owed or not; ended early where the next does not fit."""

    name: str = "edf"
    heeds_deadlines: bool = True

    def depth(self, exits: int) -> int:
        """All of them."""
        return exits

    def choose(self, candidates: Sequence[Candidate], spare_s: float) -> Candidate:  # noqa: ARG002
        """The stage that is due first."""
        return min(candidates, key=_due)


@dataclass(frozen=True, slots=True)
class SlackFit:
    """The tightest job first, in one go, to the depth that the tightest slack allows.

    After SuperServe's SlackFit (NSDI 2025), which has no stages to go back to: once a job is
    left it is not taken up again before all others have had theirs.
    """

    name: str = "slackfit"
    heeds_deadlines: bool = True

    def depth(self, exits: int) -> int:
        """All of them."""
        return exits

    def choose(self, candidates: Sequence[Candidate], spare_s: float) -> Candidate:
        """The job that is under way if its next stage fits, else the tightest fresh one."""
        begun = [c for c in candidates if not c.mandatory and c.steps[0].upper_s <= spare_s]
        fresh = [c for c in candidates if c.mandatory]
        return min(begun or fresh or candidates, key=_due)


@dataclass(frozen=True, slots=True)
class QualityPerSecond:
    """Ours: first what is owed, then what brings most quality for its time.

    1. A job without a deadline whose patience has ended, if what is owed to others bears it.
    2. First exits, the earliest deadline first.
    3. The later stage that leads to the most quality per second, looking as far ahead as the job's
       deadline reaches (a poor stage may be the way to a rich one), each step of urgency counting
       twice.

    The order of 2 and 3 is what lets quality bend before service breaks: under load, spare time
    shrinks, and depth with it, but first exits keep their place.
    """

    name: str = "ours"
    heeds_deadlines: bool = True

    def depth(self, exits: int) -> int:
        """All of them."""
        return exits

    def choose(self, candidates: Sequence[Candidate], spare_s: float) -> Candidate:
        """See the class."""
        overdue = [c for c in candidates if c.overdue]
        if overdue and spare_s >= 0.0:
            return min(overdue, key=_due)
        owed = [c for c in candidates if c.mandatory]
        if owed:
            return min(owed, key=_due)
        return max(candidates, key=_worth)


def _arrival(candidate: Candidate) -> float:
    return candidate.arrival_s


def _due(candidate: Candidate) -> float:
    return candidate.due_s


def _worth(candidate: Candidate) -> float:
    rate = max((step.gain / step.mean_s for step in candidate.steps), default=-math.inf)
    return rate * 2.0 ** (3 - candidate.urgency)
