"""Which of several executors, or servers, is to compute a request: the one that predicts most.

Each scheduler answers with its own forecast of admission (`Scheduler.offer`). The deepest exit by
the request's deadline wins, then the earliest answer. Where one has no request at all, no other
can promise more, and none is asked. So that a request costs the same however many there are, only
those with the fewest requests are asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

from anytime_server.core.decisions import Admitted, Rejected

if TYPE_CHECKING:  # it only asks them
    from anytime_server.core.jobs import JobState
    from anytime_server.core.scheduler import Scheduler

_MOST: Final = 4
"""Schedulers that are asked for a forecast."""


def route(schedulers: Sequence[Scheduler], job: JobState, now: float) -> int:
    """The index of the scheduler that `job` is to be submitted to.

    Args:
        schedulers: at least one.
        job: not taken by any of them; what it holds of forecasts is another's afterwards, until it
            is submitted.
        now: the moment.

    Raises:
        UnknownModelError, DuplicateJobError: see `Scheduler.submit`.
    """
    found = nsmallest(_MOST, range(len(schedulers)), key=lambda k: schedulers[k].active)
    if len(found) == 1 or not schedulers[found[0]].active:
        return found[0]
    return max(found, key=lambda k: _worth(schedulers[k].offer(job, now)))


def _worth(answer: Admitted | Rejected) -> tuple[bool, int, float]:
    """What makes one answer better than another: the greater, the better."""
    match answer:
        case Admitted(exit=exit_, after_s=after_s):
            return True, exit_, -after_s
        case Rejected(retry_after_s=retry_after_s):
            return False, 0, -math.inf if retry_after_s is None else -retry_after_s
