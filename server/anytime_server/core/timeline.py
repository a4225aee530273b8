"""The timeline of mandatory stages: whether all end in time, and how much slack there is.

On one machine, work that is all at hand and done earliest due time first is in time whenever any
order would be (Jackson's rule, 1955); so what this order cannot keep, none can.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from anytime_server.core.slow_down import Prediction


class MandatoryStage(NamedTuple):
    """A stage that must be run.

    Attributes:
        order_s: its place in the order.
        due_s: when it must have ended; infinity if it has a place but no deadline.
        needs: time for it.
    """

    order_s: float
    due_s: float
    needs: Prediction


def slack_s(stages: Iterable[MandatoryStage], now: float, sigmas: float) -> float:
    """By how many seconds all of them could be put off, if begun now, without being late.

    Args:
        stages: in any order.
        now: the moment.
        sigmas: safety margin on the sum of all that comes before each due time.

    Returns:
        Infinity if nothing has a deadline; negative if something will be late already.
    """
    least_s, end_s = math.inf, now
    for stage in sorted(stages, key=_order):
        end_s += stage.needs.upper_s(sigmas)
        least_s = min(least_s, stage.due_s - end_s)
    return least_s


def lateness_s(
    new: MandatoryStage,
    others: Iterable[MandatoryStage],
    free: Prediction,
    now: float,
    sigmas: float,
) -> float:
    """By how many seconds a new stage would be late, or make late what is in time without it.

    Args:
        new: the new one.
        others: in any order. One that is late anyway has no say.
        free: time until the machine is free.
        now: the moment.
        sigmas: safety margin.

    Returns:
        Zero or less if the new one can be taken.
    """
    worst_s = -math.inf
    without_s = with_new_s = now + free.upper_s(sigmas)
    for stage in sorted([*others, new], key=_order):
        stage_s = stage.needs.upper_s(sigmas)
        with_new_s += stage_s
        if stage is not new:
            without_s += stage_s
        if stage is new or without_s <= stage.due_s:
            worst_s = max(worst_s, with_new_s - stage.due_s)
    return worst_s


def _order(stage: MandatoryStage) -> float:
    return stage.order_s
