"""Ways to choose a replica for a request that a simulation compares with each other.

`predicted` is the server's own (`core.routing`), `predicted-two` the same among two replicas drawn
at random, as a router before many servers would do; the others are found in ordinary balancers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from anytime_server.core.routing import route
from anytime_server.errors import SettingsError

if TYPE_CHECKING:  # it only asks them
    from anytime_server.core.jobs import JobState
    from anytime_server.core.scheduler import Scheduler
    from anytime_server.simulation.traffic import DrawnRequest

Router: TypeAlias = "Callable[[Sequence[Scheduler], JobState, DrawnRequest], int]"
"""The index of the scheduler that gets a job, at the moment of its request's arrival."""


def round_robin(schedulers: Sequence[Scheduler], job: JobState, drawn: DrawnRequest) -> int:  # noqa: ARG001
    """One after the other."""
    return drawn.number % len(schedulers)


def least_requests(schedulers: Sequence[Scheduler], job: JobState, drawn: DrawnRequest) -> int:  # noqa: ARG001
    """The one with the fewest requests."""
    return min(range(len(schedulers)), key=lambda k: schedulers[k].active)


def two_choices(schedulers: Sequence[Scheduler], job: JobState, drawn: DrawnRequest) -> int:  # noqa: ARG001
    """The less loaded of two drawn at random (Mitzenmacher), by the predicted work of each."""
    return min(_two(schedulers, drawn), key=lambda k: schedulers[k].load_s)


def predicted(schedulers: Sequence[Scheduler], job: JobState, drawn: DrawnRequest) -> int:
    """The one that predicts the deepest exit by the deadline."""
    return route(schedulers, job, drawn.arrival_s)


def predicted_two(schedulers: Sequence[Scheduler], job: JobState, drawn: DrawnRequest) -> int:
    """The better of two drawn at random, by their predictions."""
    two = _two(schedulers, drawn)
    return two[route([schedulers[k] for k in two], job, drawn.arrival_s)]


def _two(schedulers: Sequence[Scheduler], drawn: DrawnRequest) -> list[int]:
    return [int(choice * len(schedulers)) for choice in drawn.choices]


ROUTERS: Final[dict[str, Router]] = {
    "round-robin": round_robin,
    "least-requests": least_requests,
    "two-choices": two_choices,
    "predicted": predicted,
    "predicted-two": predicted_two,
}


def router(name: str) -> Router:
    """A router by its name.

    Raises:
        SettingsError: there is none of this name.
    """
    if name not in ROUTERS:
        raise SettingsError("routers", repr(name), f"one of {', '.join(ROUTERS)}")
    return ROUTERS[name]
