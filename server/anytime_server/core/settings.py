"""What an operator may choose once about scheduling."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from anytime_server.errors import SettingsError


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """What an operator may choose once.

    Attributes:
        max_jobs: active requests at a time; more are refused.
        sigmas: safety margin on mandatory stages, in deviations of the predicted time.
        depth_sigmas: the same on an optional stage. It may be smaller, as a miss breaks no promise:
            the stage is stopped and the map before it is sent.
        hope_sigmas: an exit 1 that no other request waits for is tried if it will be in time when
            it takes so many deviations less than expected, and `reserve_s` is not needed.
        reserve_sigmas: the same for encoding the answer, which nothing can stop half-way.
        reserve_s: time that an answer takes beside its encoding, and that nobody measures: from one
            process to the other, through sockets, to a client that has to read it.
        reaction_s: what a stop takes beside the longest time between two checks of the control
            block (`CostModel.reaction_s`): from process to process and back, for the map before it.
        unresponsive_s: a job that is computed is ended so long after its deadline, though nothing
            has come of its run, which the executor should have stopped by itself.
        patience_s: how long a request without a deadline waits until its next stage is mandatory.
        drain_retry_s: what a client is told to wait when this server shuts down.
    """

    max_jobs: int = 64
    sigmas: float = 2.0
    depth_sigmas: float = 1.0
    hope_sigmas: float = 1.0
    reserve_sigmas: float = 3.0
    reserve_s: float = 0.0
    reaction_s: float = 0.001
    unresponsive_s: float = 0.5
    patience_s: float = 1.0
    drain_retry_s: float = 5.0

    def __post_init__(self) -> None:
        if self.max_jobs < 1:
            raise SettingsError("max_jobs", str(self.max_jobs), "at least 1")
        for item in fields(self)[1:]:
            value = getattr(self, item.name)
            if not 0 <= value < math.inf:
                raise SettingsError(item.name, str(value), "a finite number >= 0")
        if not self.patience_s:
            raise SettingsError("patience_s", str(self.patience_s), "a finite number > 0")

    def divided(self, executors: int) -> list[SchedulerSettings]:
        """Those of each of several schedulers, which together have at most `max_jobs` jobs.

        Raises:
            SettingsError: there is not one job for each.
        """
        share, rest = divmod(self.max_jobs, executors)
        return [replace(self, max_jobs=share + (number < rest)) for number in range(executors)]
