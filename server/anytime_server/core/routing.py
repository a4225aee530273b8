"""Which of several executors, or servers, are to be asked to take a request, and in which order.

The least loaded first, by the predicted seconds of the work that its requests still want. It may
refuse the request, by its own forecast of admission; then the next is asked. What one promises a
new request, the deepest exit by its deadline, does not choose: others may pay for it. See
`docs/EXPERIMENTS.md`, "Which executor gets a request".
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # it only asks them
    from anytime_server.core.scheduler import Scheduler

_MOST: Final = 2
"""Schedulers that are asked, so that a refusal costs the same however many there are."""


def route(schedulers: Sequence[Scheduler]) -> list[int]:
    """Indices of the schedulers that a new job is to be submitted to until one admits it."""
    if len(schedulers) == 1:
        return [0]
    return nsmallest(_MOST, range(len(schedulers)), key=lambda k: schedulers[k].load_s)
