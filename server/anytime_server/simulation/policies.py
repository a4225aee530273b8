"""Ways to serve that a simulation compares with each other.

`QualityPerSecond` of `core.policy` is the server's own; the others stand for what is found in the
literature and in ordinary model servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from anytime_protocol.budget import Budget
from anytime_server.core.policy import Candidate, Policy, QualityPerSecond
from anytime_server.errors import SettingsError


@dataclass(frozen=True, slots=True)
class EarliestDeadline:
    """Always the stage that is due first, mandatory or optional."""

    def choose(self, candidates: Sequence[Candidate], slack_s: float) -> Candidate:  # noqa: ARG002
        """The stage that is due first."""
        return min(candidates, key=_due)


@dataclass(frozen=True, slots=True)
class SlackFit:
    """The tightest job first, in one go, to the depth that the tightest slack allows.

    After SuperServe's SlackFit (NSDI 2025), which has no stages to go back to: once a job is
    left it is not taken up again before all others have had theirs.
    """

    def choose(self, candidates: Sequence[Candidate], slack_s: float) -> Candidate:
        """The job that is under way if its next stage fits, else the tightest fresh one."""
        begun = [c for c in candidates if not c.mandatory and c.steps[0].upper_s <= slack_s]
        fresh = [c for c in candidates if c.mandatory]
        return min(begun or fresh or candidates, key=_due)


@dataclass(frozen=True, slots=True)
class Fifo:
    """First come, first served."""

    def choose(self, candidates: Sequence[Candidate], slack_s: float) -> Candidate:  # noqa: ARG002
        """The job that arrived first."""
        return min(candidates, key=_arrival)


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to serve: an order of work, and what becomes of the clients' budgets.

    Attributes:
        name: for tables.
        policy: the order of work.
        heeds_deadlines: if not, deadlines are taken out of the budgets: requests are admitted while
            the server has room, and computed to their depth however late that is.
        max_exit: the deepest exit that any request gets; None for the network's last.
    """

    name: str
    policy: Policy
    heeds_deadlines: bool = True
    max_exit: int | None = None

    def budget(self, requested: Budget) -> Budget:
        """The budget that the scheduler is given for a client's, which has no schedule."""
        budget = requested if self.heeds_deadlines else replace(requested, deadline_ms=None)
        if self.max_exit is None:
            return budget
        most = self.max_exit if budget.max_exit is None else min(budget.max_exit, self.max_exit)
        return replace(budget, max_exit=most)


OURS: Final = Strategy("ours", QualityPerSecond())
EDF: Final = Strategy("edf", EarliestDeadline())
SLACKFIT: Final = Strategy("slackfit", SlackFit())
FIFO: Final = Strategy("fifo", Fifo(), heeds_deadlines=False)
"""An ordinary server: every request to full depth, whatever its deadline."""


def static(exit_: int) -> Strategy:
    """An ordinary server with a smaller network: always the same exit (from 1)."""
    return Strategy(f"static-{exit_}", Fifo(), heeds_deadlines=False, max_exit=exit_)


def strategy(name: str) -> Strategy:
    """A strategy by its name: `ours`, `edf`, `slackfit`, `fifo` or `static-K`.

    Raises:
        SettingsError: there is none of this name.
    """
    known = {each.name: each for each in (OURS, EDF, SLACKFIT, FIFO)}
    kind, _, exit_ = name.partition("-")
    if kind == "static" and exit_.isdecimal() and int(exit_) >= 1:
        return static(int(exit_))
    if name not in known:
        raise SettingsError("policies", repr(name), f"one of {', '.join(known)}, static-K")
    return known[name]


def _arrival(candidate: Candidate) -> float:
    return candidate.arrival_s


def _due(candidate: Candidate) -> float:
    return candidate.due_s
