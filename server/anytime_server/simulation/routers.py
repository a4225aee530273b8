"""Ways to choose a replica for a request that a simulation compares with each other.

`ours` is the server's own (`core.routing`); `predicted-exit` asks all replicas what they promise;
the others are found in ordinary balancers.
"""

# ruff: noqa: ARG001  (each looks at what it needs of the same arguments)

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from anytime_server.core.decisions import Admitted, Rejected
from anytime_server.core.routing import route
from anytime_server.errors import SettingsError

if TYPE_CHECKING:  # it only asks them
    from anytime_server.core.jobs import JobState
    from anytime_server.core.scheduler import Scheduler
    from anytime_server.simulation.traffic import DrawnRequest

Router: TypeAlias = "Callable[[Sequence[Scheduler], JobState, DrawnRequest], Sequence[int]]"
"""Indices of the schedulers that a job is submitted to, at its arrival, until one admits it."""


def round_robin(schedulers: Sequence[Scheduler], job: JobState, drawn: DrawnRequest) -> list[int]:
    """One after the other."""
    return [drawn.number % len(schedulers)]


def least_requests(
    schedulers: Sequence[Scheduler], job: JobState, drawn: DrawnRequest
) -> list[int]:
    """The one with the fewest requests."""
    return [min(range(len(schedulers)), key=lambda k: schedulers[k].active)]


def two_choices(schedulers: Sequence[Scheduler], job: JobState, drawn: DrawnRequest) -> list[int]:
    """The one with less predicted work of two drawn at random (Mitzenmacher)."""
    two = [int(choice * len(schedulers)) for choice in drawn.choices]
    return [min(two, key=lambda k: schedulers[k].load_s)]


def ours(schedulers: Sequence[Scheduler], job: JobState, drawn: DrawnRequest) -> list[int]:
    """The server's own: those with the least predicted work."""
    return route(schedulers)


def predicted_exit(
    schedulers: Sequence[Scheduler], job: JobState, drawn: DrawnRequest
) -> list[int]:
    """The one that promises the deepest exit by the deadline, then the earliest answer."""
    idle = next((k for k, scheduler in enumerate(schedulers) if not scheduler.active), None)
    if idle is not None:
        return [idle]

    def worth(k: int) -> tuple[bool, int, float]:
        match schedulers[k].offer(job, drawn.arrival_s):
            case Admitted(exit=exit_, after_s=after_s):
                return True, exit_, -after_s
            case Rejected():
                return False, 0, 0.0

    return [max(range(len(schedulers)), key=worth)]


ROUTERS: Final[dict[str, Router]] = {
    "ours": ours,
    "predicted-exit": predicted_exit,
    "two-choices": two_choices,
    "least-requests": least_requests,
    "round-robin": round_robin,
}


def router(name: str) -> Router:
    """A router by its name.

    Raises:
        SettingsError: there is none of this name.
    """
    if name not in ROUTERS:
        raise SettingsError("routers", repr(name), f"one of {', '.join(ROUTERS)}")
    return ROUTERS[name]
