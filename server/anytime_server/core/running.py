"""The run that the executor computes, as the scheduler keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from anytime_server.core.jobs import JobState
from anytime_server.core.slow_down import Prediction


@dataclass(slots=True)
class Running:
    """The run that the executor computes.

    Attributes:
        job: whose stages.
        path: the stages that it may still compute, the one that runs now first.
        base_s: base time of that one.
        predicted: its predicted time.
        started_s: when it began.
        made: the exits that the executor has made of this job.
        notify: the next exit decides how the run goes on, and is reported as soon as it is made.
    """

    job: JobState
    path: tuple[int, ...]
    base_s: float
    predicted: Prediction
    started_s: float
    made: tuple[int, ...] = ()
    notify: bool = False

    @property
    def is_over(self) -> bool:
        """Whether its last stage has ended, so that the executor is free or about to be."""
        return not self.path


def describe(running: Running | None) -> str:
    """What is computed, in words."""
    if running is None:
        return "nothing is"
    stage = running.path[0] if running.path else 0
    return f"stage {stage} of {running.job.id!r} is"
