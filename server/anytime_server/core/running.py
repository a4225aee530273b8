"""The run that the executor computes, as the scheduler keeps it, and learning from its exits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from anytime_server.core.costs import CostModel, MeasuredPath
from anytime_server.core.decisions import ExitReport
from anytime_server.core.jobs import JobState
from anytime_server.core.slow_down import Prediction
from anytime_server.core.stage_costs import StepCosts


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

    def may_make(self, exit_: int, ways: Iterable[MeasuredPath]) -> bool:
        """Whether one of a model's ways leads from the exits made to this one next."""
        made = (*self.made, exit_)
        return any(way.exits[: len(made)] == made for way in ways)

    def left_s(self, now: float, overhead: Prediction, sigmas: float) -> float:
        """Seconds until the executor is free, with a margin of so many deviations."""
        whole_s = self.predicted.then(overhead).upper_s(sigmas)
        return max(whole_s - (now - self.started_s), 0.0)


def describe(running: Running | None) -> str:
    """What is computed, in words."""
    if running is None:
        return "nothing is"
    stage = running.path[0] if running.path else 0
    return f"stage {stage} of {running.job.id!r} is"


def learn(running: Running, report: ExitReport, steps: StepCosts, costs: CostModel) -> None:
    """Trains the cost model with a stage that ended by itself, and charges it to its job.

    Args:
        running: the run, as it was before this exit.
        report: of the exit.
        steps: base times at the job's size.
        costs: learns.
    """
    job, stage = running.job, report.exit
    known = running.path[:1] == (stage,)  # else it is not known what it began with
    if known and job.reuse is not None and job.reuse.frames:
        base_s = running.base_s / job.factor(stage)
        costs.observe_frame(job.reuse, stage, base_s, report.elapsed_s, job.active_share)
    elif known:
        error = costs.observe_stage(running.base_s, report.elapsed_s)
        made = running.made[-1] if running.made else 0
        starts_size = steps.starts_size(made, stage)
        share = 1.0 if starts_size else job.active_share
        costs.observe_bias(job.model, steps.parts(made, stage, share), error)
        if not starts_size:
            costs.observe_share(job.model, stage, share)
    costs.note_size(job.model, job.height, job.width, stage)
    job.used_s += report.elapsed_s
    job.gmacs += report.gmacs
    job.decoded = True
