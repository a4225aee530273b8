"""How many replicas are wanted: by the quality that they serve and the time that is left over.

The number of requests says little: an anytime server is meant to be busy, and answers more of them
less deeply. Only answers that had to wait speak for more replicas (`ServedMetrics`): a deadline
that is too short for the last exit on an idle machine is so on any number of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TARGET_QUALITY: Final = 0.95
"""Mean quality of answers, of the best that there is, below which replicas are added."""

SLACK: Final = 0.2
"""Mean share of a deadline that must be left before a replica is taken away."""

BUSY: Final = 0.7
"""Largest share of time that the others may then be computing, as 0.85 is the most that keeps
deadlines (`docs/DEPLOYMENT.md`, Scaling)."""

_MOST_GROWTH: Final = 2.0
"""Of one decision, as a factor."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a replica, or all of them, served in the last while.

    Attributes:
        requests_hz: answered or refused, a second.
        quality: their mean quality, of the best that there is, 0 to 1.
        slack: mean share of the deadline that was left.
        busy: share of the time in which it computed.
    """

    requests_hz: float = 0.0
    quality: float = 1.0
    slack: float = 1.0
    busy: float = 0.0


def joined(replicas: Sequence[Served]) -> Served:
    """What all replicas served: those with more requests count for more."""
    total_hz = sum(one.requests_hz for one in replicas)
    if not total_hz:
        return Served(busy=sum(one.busy for one in replicas) / max(len(replicas), 1))
    return Served(
        total_hz,
        sum(one.quality * one.requests_hz for one in replicas) / total_hz,
        sum(one.slack * one.requests_hz for one in replicas) / total_hz,
        sum(one.busy for one in replicas) / len(replicas),
    )


def wanted_replicas(served: Served, running: int, target: int) -> int:
    """How many replicas there should be.

    Args:
        served: by all of them together.
        running: how many there are.
        target: how many there were to be; while they differ, nothing new is decided, as what was
            served is no sign of what the target will serve.
    """
    if target < 1 or running != target:
        return max(target, 1)
    current = running
    if served.quality < TARGET_QUALITY:
        growth = min(TARGET_QUALITY / max(served.quality, 1e-9), _MOST_GROWTH)
        return max(math.ceil(current * growth), current + 1)
    fewer = current - 1
    if fewer and served.slack >= SLACK and served.busy * current / fewer <= BUSY:
        return fewer
    return current
