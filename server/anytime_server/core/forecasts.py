"""What a job may do at a moment, how long its next stages will take, and when they are due.

One job at a time: the other jobs, the executor and the order of work are the scheduler's.
"""

from __future__ import annotations

import math

from anytime_server.core.costs import CostModel, Prediction
from anytime_server.core.jobs import JobForecast, JobState, StageForecast
from anytime_server.core.limits import EffectiveLimits, ServerLimits, effective_limits
from anytime_server.core.settings import SchedulerSettings


class Forecaster:
    """Works out forecasts, one job at a time, and remembers them on the job.

    Args:
        costs: predicts times.
        settings: margins and patience.
        server: the operator's limits.
    """

    def __init__(self, costs: CostModel, settings: SchedulerSettings, server: ServerLimits) -> None:
        self._costs = costs
        self._settings = settings
        self._server = server

    def forecast(self, job: JobState, now: float) -> JobForecast:
        """A job's forecast; remembered until something that it depends on changes."""
        limits = self._limits(job, now)
        predicted_by = (self._costs.version, job.decoded)
        if job.forecast is not None:
            known_by, known = job.forecast
            if known_by == predicted_by and known.limits is limits:
                return known
        found = self._forecast_under(job, limits)
        job.forecast = (predicted_by, found)
        return found

    def running_limits(self, job: JobState, now: float) -> EffectiveLimits:
        """Limits on a stage that is being computed.

        Load caps do not count once a stage has begun: stopping it because the load has risen since
        would only waste what it has cost.
        """
        return self._limits_at(job, now, math.inf)

    def stop_at_s(self, job: JobState, limits: EffectiveLimits, ends_s: float) -> float:
        """When to stop the running stage so that the map before it is in time.

        A stop takes some time itself; a stage that will be done within that time is left alone.
        Stage 1 is stopped only when its map could hardly be in time, since nothing would be left
        to send.

        Args:
            job: whose stage runs.
            limits: as `running_limits` gives them.
            ends_s: when the run will have ended, margin included.
        """
        if job.last is None:
            return self._due_s(job, limits, 0.0) + self._settings.reserve_s
        due_s = self._due_s(job, limits, self._settings.reserve_sigmas)
        stop_at_s = due_s - self._reaction_s(job)
        return max(stop_at_s, ends_s) if ends_s <= due_s else stop_at_s

    def lifted_s(self, job: JobState, now: float) -> float | None:
        """When the client's own schedule will allow the next stage, if that is soon enough."""
        cap = self._server.load_cap(job.urgency)
        for at_ms, _ in job.budget.schedule:
            at_s = job.arrival_s + at_ms / 1e3
            if at_s > now:
                then = self._forecast_under(job, self._limits_at(job, at_s, cap))
                if then.may_continue and at_s < then.latest_start_s:
                    return at_s
        return None

    def look_ahead(self, job: JobState) -> None:
        """Works out what each exit further on would take, from what the last one has shown."""
        model = job.model
        quality = self._costs.profile(model).quality
        doubt = 1.0 if job.last is None else 1.0 - job.last.confidence
        made, share, base_s, gmacs = job.exit, job.active_share, 0.0, 0.0
        ahead = []
        for exit_ in range(made + 1, len(job.stages) + 1):
            if exit_ > made + 1:  # masks only shrink
                share = min(share, self._costs.typical_share(model, exit_))
            stage = job.stages[exit_ - 1]
            base_s += stage.seconds(share) * self._costs.bias(model, exit_)
            gmacs += stage.gmacs(share)
            if quality:
                gain = quality[exit_ - 1] - (quality[made - 1] if made else 0.0)
            else:
                gain = doubt * (exit_ - made) / (len(job.stages) - made)
            ahead.append(StageForecast(exit_, base_s, gmacs, gain))
        job.ahead = tuple(ahead)
        job.forecast = None

    def needs(self, job: JobState, step: StageForecast) -> Prediction:
        """Time from the start of its next stage to an exit, decoding included if still due."""
        network = self._costs.slow_down.predict(step.base_s)
        if job.decoded:
            return network
        return self._costs.decode(job.media_type, job.pixels).then(network)

    def longest(self, job: JobState, last: int) -> Prediction:
        """Time for the stages up to `ahead[last]` if no exit shrinks the share of active positions.

        Only for a job that is decoded.
        """
        base_s = sum(
            job.stages[step.exit - 1].seconds(job.active_share)
            * self._costs.bias(job.model, step.exit)
            for step in job.ahead[: last + 1]
        )
        return self._costs.slow_down.predict(base_s)

    def answer(self, job: JobState) -> Prediction:
        """Time from an exit to the last byte of the answer."""
        encode = self._costs.encode(job.encoding, job.pixels)
        return Prediction(encode.mean_s + self._settings.reserve_s, encode.sigma_s)

    def _forecast_under(self, job: JobState, limits: EffectiveLimits) -> JobForecast:
        needs = self.needs(job, job.ahead[0]) if job.ahead else Prediction(0.0, 0.0)
        due_s = self._due_s(job, limits, self._settings.reserve_sigmas)
        expected_due_s = self._due_s(job, limits, 0.0)
        # The expected time of mandatory exit 1 must fit; a later exit needs its margins as well.
        latest_start_s = expected_due_s - needs.mean_s
        if job.last is not None:
            # Once it could no longer be stopped in time, it must be sure to end in time.
            sure_s = due_s - needs.upper_s(self._settings.sigmas)
            latest_start_s = min(
                due_s - needs.upper_s(self._settings.depth_sigmas),
                max(due_s - self._reaction_s(job), sure_s),
            )
        patient_until_s = job.progress_s + self._settings.patience_s
        return JobForecast(
            limits=limits,
            may_continue=job.may_continue(limits),
            needs=needs,
            due_s=due_s,
            expected_due_s=expected_due_s,
            order_s=patient_until_s if due_s == math.inf else due_s,
            latest_start_s=latest_start_s,
        )

    def _reaction_s(self, job: JobState) -> float:
        """Time from the moment at which a stage is to stop to the map before it being at hand."""
        network_s = self._costs.reaction_s(job.model, job.height, job.width)
        return self._settings.reaction_s + network_s

    def _due_s(self, job: JobState, limits: EffectiveLimits, sigmas: float) -> float:
        if limits.deadline_s == math.inf:
            return math.inf
        return limits.deadline_s - self.answer(job).upper_s(sigmas)

    def _limits(self, job: JobState, now: float) -> EffectiveLimits:
        made_of = (self._server.version, job.rev)
        if job.limits is not None:
            known_of, known = job.limits
            if known_of == made_of and now < known.until_s:
                return known
        limits = self._limits_at(job, now, self._server.load_cap(job.urgency))
        job.limits = (made_of, limits)
        return limits

    def _limits_at(self, job: JobState, now: float, load_cap: float) -> EffectiveLimits:
        return effective_limits(
            job.budget, self._server, arrival_s=job.arrival_s, load_cap=load_cap, now=now
        )
