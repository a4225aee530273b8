"""Whether a new job can be taken: what it would need, and whether another would be late for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from anytime_protocol.enums import ErrorCode
from anytime_server.core.decisions import Admitted, Rejected, would_do
from anytime_server.core.forecasts import Forecaster
from anytime_server.core.jobs import JobForecast, JobState
from anytime_server.core.settings import SchedulerSettings
from anytime_server.core.slow_down import Prediction
from anytime_server.core.timeline import MandatoryStage, lateness_s


class Workload(NamedTuple):
    """What is to be done before a new job.

    Attributes:
        free: time until the executor is free.
        mandatory: the mandatory stages of the jobs that wait.
        is_idle: there is no other job at all.
    """

    free: Prediction
    mandatory: Sequence[MandatoryStage]
    is_idle: bool


def admit(
    job: JobState,
    workload: Workload,
    forecaster: Forecaster,
    settings: SchedulerSettings,
    now: float,
) -> Admitted | Rejected:
    """Takes a job or refuses it.

    Args:
        job: looked ahead for, not taken yet.
        workload: of the others.
        forecaster: works out what it needs.
        settings: margins.
        now: the moment.
    """
    forecast = forecaster.forecast(job, now)
    gmacs, allowed = job.paths[0][0].gmacs, forecast.limits.gmacs
    if gmacs > allowed:
        text = f"exit 1 costs {gmacs:.3g} GMACs, the budget allows {allowed:.3g}"
        return Rejected(ErrorCode.BUDGET_TOO_SMALL, text, None)
    needs = forecaster.before_its_start(job).then(forecast.needs)
    hope = hope_s(needs, settings) if workload.is_idle else 0.0
    late_s = now + needs.mean_s - hope - forecast.expected_due_s
    if late_s > 0.0:
        late_s += hope  # what it may be lucky with is no advice
        needed_s = forecast.limits.deadline_s - job.arrival_s + late_s
        late = f"exit 1 would be {late_s * 1e3:.1f} ms too late even on an idle server"
        text = f"{late}; {would_do(needed_s)}"
        return Rejected(ErrorCode.DEADLINE_EXCEEDED, text, None, needed_s)
    if not workload.is_idle:
        new = mandatory_stage(forecast, forecaster.overhead())
        late_s = lateness_s(new, workload.mandatory, workload.free, now, settings.sigmas)
        if late_s > 0.0:
            text = f"the requests before it leave no room: {late_s * 1e3:.1f} ms too late"
            if forecast.limits.deadline_s == math.inf:
                return Rejected(ErrorCode.OVERLOADED, text, late_s)
            needed_s = forecast.limits.deadline_s - job.arrival_s + late_s
            text = f"{text}; {would_do(needed_s)}"
            return Rejected(ErrorCode.OVERLOADED, text, late_s, needed_s)
    return _expected(job, workload, forecaster, settings, now)


def hope_s(needs: Prediction, settings: SchedulerSettings) -> float:
    """How much less than expected an exit 1 may take that keeps no other request waiting."""
    return min(settings.hope_sigmas * needs.sigma_s, needs.mean_s) + settings.reserve_s


def mandatory_stage(forecast: JobForecast, overhead: Prediction) -> MandatoryStage:
    """A job's next stage, if that is mandatory, with what a run takes beside the network."""
    return MandatoryStage(forecast.order_s, forecast.due_s, forecast.needs.then(overhead))


def _expected(
    job: JobState,
    workload: Workload,
    forecaster: Forecaster,
    settings: SchedulerSettings,
    now: float,
) -> Admitted:
    """How deep a job will get if no other comes, after the mandatory stages before it."""
    start = workload.free.then(forecaster.before_its_start(job))
    mean_s = sum(stage.needs.mean_s for stage in workload.mandatory)
    sigma_s = sum(stage.needs.sigma_s for stage in workload.mandatory)
    start = start.then(Prediction(mean_s, sigma_s))
    starts_s = now + start.upper_s(settings.depth_sigmas)
    path = forecaster.plan(job, starts_s, now, shared=not workload.is_idle)
    end = start.then(forecaster.needs(job, path[-1])).then(forecaster.answer(job))
    return Admitted(path[-1].exit, now - job.arrival_s + end.mean_s)
