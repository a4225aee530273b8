"""What a job may do at a moment, how long its next stages will take, and when they are due.

One job at a time: the other jobs, the executor and the order of work are the scheduler's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from anytime_server.core.costs import CostModel, MeasuredPath
from anytime_server.core.jobs import JobForecast, JobState, StageForecast
from anytime_server.core.limits import EffectiveLimits, ServerLimits, effective_limits
from anytime_server.core.planner import Aim, Path, choose, reachable
from anytime_server.core.settings import SchedulerSettings
from anytime_server.core.slow_down import Prediction
from anytime_server.core.stage_costs import StepCosts

_SQRT_2: Final = math.sqrt(2.0)


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
        made_of = (self._costs.version, job.decoded)
        if job.forecast is not None and job.forecast[0] == made_of:
            return job.forecast[1]
        found = self._forecast_under(job, limits)
        job.forecast = (made_of, found)
        return found

    def _limits(self, job: JobState, now: float) -> EffectiveLimits:
        """The limits on a job; where others than those known hold, its forecast is forgotten."""
        made_of = (self._server.version, job.rev)
        if job.limits is not None:
            known_of, known = job.limits
            if known_of == made_of and now < known.until_s:
                return known
        limits = self._limits_at(job, now, self._server.load_cap(job.urgency))
        job.limits, job.forecast = (made_of, limits), None
        return limits

    def running_limits(self, job: JobState, now: float) -> EffectiveLimits:
        """Limits on a stage that is being computed.

        Load caps do not count once a stage has begun: stopping it because the load has risen since
        would only waste what it has cost.
        """
        if self._server.load_cap(job.urgency) == math.inf:
            return self.forecast(job, now).limits
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
        stop_at_s = due_s - self.reaction_s(job)
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

    def look_ahead(self, job: JobState, next_exit: int | None = None) -> None:
        """Works out what each exit further on would take, from what the last one has shown.

        Args:
            job: the job.
            next_exit: the exit that is being computed; None if any may follow.
        """
        profile, steps = self._costs.profile(job.model), self.steps(job)
        count = len(job.made)
        ways = (way for way in profile.ways if way.exits[:count] == job.made)
        job.paths = tuple(
            self._price(job, steps, way)
            for way in ways
            if len(way.exits) > count and next_exit in {None, way.exits[count]}
        )
        job.next_steps = tuple({path[0].exit: path[0] for path in job.paths}.values())
        job.forecast = None

    def steps(self, job: JobState) -> StepCosts:
        """What steps between exits take for a job, as far as is known now."""
        if job.steps is None:
            job.steps = self._costs.steps(job.model, job.height, job.width)
        return job.steps.current()

    def _price(self, job: JobState, steps: StepCosts, way: MeasuredPath) -> Path:
        """What the exits of a way would take that have not been made yet."""
        count, made = len(job.made), job.exit
        doubt = 1.0 if job.last is None else 1.0 - job.last.confidence
        there = way.quality[count - 1] if count and way.quality else 0.0
        share, base_s, gmacs = job.active_share, 0.0, 0.0
        typical, shown_s = self._costs.typical_shares(job.model), self._shown_s(job)
        best = max(way.quality[:count], default=-math.inf)
        path = []
        for index, exit_ in enumerate(way.exits[count:], start=count):
            if steps.starts_size(made, exit_):
                share = 1.0
            elif index > count:  # at one size, masks only shrink
                usual = typical[exit_ - 1]
                share = min(share, usual if job.reuse is None else job.reuse.share(exit_, usual))
            step_s, step_gmacs = steps.step(made, exit_, share)
            step_s = step_s * job.factor(exit_) + self._entering_s(job, steps, made, exit_)
            base_s, gmacs, made = base_s + step_s, gmacs + step_gmacs, exit_
            if way.quality:
                gain = way.quality[index] - there
            else:
                gain = doubt * (index - count + 1) / (len(way.exits) - count)
            path.append(StageForecast(exit_, base_s, gmacs, gain))
            if shown_s and (not way.quality or way.quality[index] > best):
                best = way.quality[index] if way.quality else best
                base_s += shown_s
        return tuple(path)

    def _entering_s(self, job: JobState, steps: StepCosts, made: int, exit_: int) -> float:
        """Base seconds of a step for getting ready for a size, where that is not done before."""
        if not made or not steps.starts_size(made, exit_):
            return 0.0
        return job.preparing_s(self._costs.profile(job.model).size_of(exit_))

    def _shown_s(self, job: JobState) -> float:
        """Base seconds that an exit on the way to others takes until it is out, if it is shown."""
        if not job.shows_each:
            return 0.0
        return self._costs.encode(job.encoding, job.pixels).mean_s / self._costs.slow_down.mean

    def needs(self, job: JobState, step: StageForecast) -> Prediction:
        """Time from the start of its next stage to an exit.

        Decoding is included if it is still due and the executor waits for it.
        """
        prepare_s = 0.0 if job.decoded else job.preparing_s(0)
        network = self._costs.slow_down.predict(step.base_s + prepare_s)
        if job.decoded or job.awaits_image:
            return network
        return self._decoding(job).then(network)

    def before_its_start(self, job: JobState) -> Prediction:
        """Time from a job's admission until its first stage may start."""
        return self._decoding(job) if job.awaits_image else Prediction(0.0, 0.0)

    def _decoding(self, job: JobState) -> Prediction:
        return self._costs.decode(job.media_type, job.pixels)

    def longest(self, job: JobState, path: Path) -> Prediction:
        """Time for the stages of a path if no exit shrinks the share of active positions.

        Only for a job that is decoded.
        """
        steps = self.steps(job)
        share, base_s, made = job.active_share, 0.0, job.exit
        for ahead in path:
            if steps.starts_size(made, ahead.exit):
                share = 1.0
            step_s = steps.step(made, ahead.exit, share)[0] * job.factor(ahead.exit)
            step_s += self._entering_s(job, steps, made, ahead.exit)
            base_s, made = base_s + step_s, ahead.exit
        return self._costs.slow_down.predict(base_s)

    def plan(self, job: JobState, starts_s: float, now: float, *, shared: bool) -> Path:
        """The path that a job is to go on along, as far as time and limits allow.

        Where they allow nothing more, the shortest stage that it may go on with.

        A request with a deadline aims at the best map by then; any other at good maps at all times,
        or at its last one, if that is the only one that anybody looks at; while others wait, each
        aims at the most quality for its time.

        Args:
            job: the job.
            starts_s: when its next stage starts, or has started.
            now: the moment.
            shared: whether other jobs wait for the executor.
        """
        forecast = self.forecast(job, now)
        limits, most_s = forecast.limits, self._most_s(job, forecast.due_s - starts_s)

        def is_in_reach(step: StageForecast) -> bool:
            return step.base_s < most_s and job.allows(step, limits)

        paths = reachable(job.paths, is_in_reach)
        if not paths:
            return (shortest_step(job, forecast.limits),)
        if shared:
            return choose(paths, Aim.PER_SECOND)
        if forecast.due_s == math.inf:
            seen = job.shows_each or limits.end_by_result
            return choose(paths, Aim.OVER_TIME if seen else Aim.AT_END)
        return choose(paths, Aim.BY_DEADLINE, self._chance(job, forecast.due_s - starts_s))

    def _most_s(self, job: JobState, within_s: float) -> float:
        """Base seconds that will be over within so many, margin included: `needs` the other way."""
        sigmas, slow_down = self._settings.depth_sigmas, self._costs.slow_down
        before_s = 0.0
        if not job.decoded:
            within_s -= self._costs.decode(job.media_type, job.pixels).upper_s(sigmas)
            before_s = job.preparing_s(0)
        return within_s / slow_down.predict(1.0).upper_s(sigmas) - before_s

    def _chance(self, job: JobState, within_s: float) -> Callable[[StageForecast], float]:
        """The chance, 0 to 1, that a step ends within so many seconds, errors being normal.

        One that is not sure to end is stopped before, so that the map before it is in time.
        """
        reaction_s, sigmas = self.reaction_s(job), self._settings.sigmas
        unit, rest = self._costs.slow_down.predict(1.0), Prediction(0.0, 0.0)
        if not job.decoded:
            rest = self._costs.decode(job.media_type, job.pixels)
            rest = rest.then(self._costs.slow_down.predict(job.preparing_s(0)))

        def chance(step: StageForecast) -> float:
            left_s = within_s - rest.mean_s - step.base_s * unit.mean_s
            sigma_s = rest.sigma_s + step.base_s * unit.sigma_s
            if left_s < sigmas * sigma_s:
                left_s -= reaction_s
            return 0.5 * math.erfc(-left_s / (_SQRT_2 * sigma_s)) if sigma_s else float(left_s > 0)

        return chance

    def overhead(self) -> Prediction:
        """Time that a run takes beside the network while other requests wait."""
        return self._costs.overhead()

    def answer(self, job: JobState) -> Prediction:
        """Time from an exit to the last byte of the answer."""
        encode = self._costs.encode(job.encoding, job.pixels)
        return Prediction(encode.mean_s + self._settings.reserve_s, encode.sigma_s)

    def _forecast_under(self, job: JobState, limits: EffectiveLimits) -> JobForecast:
        needs = self._next_needs(job, limits)
        answer = self.answer(job)
        due_s = limits.deadline_s - answer.upper_s(self._settings.reserve_sigmas)
        expected_due_s = limits.deadline_s - answer.mean_s
        # The expected time of mandatory exit 1 must fit; a later exit needs its margins as well.
        latest_start_s = expected_due_s - needs.mean_s
        if job.last is not None:
            # Once it could no longer be stopped in time, it must be sure to end in time.
            sure_s = due_s - needs.upper_s(self._settings.sigmas)
            latest_start_s = min(
                due_s - needs.upper_s(self._settings.depth_sigmas),
                max(due_s - self.reaction_s(job), sure_s),
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

    def _next_needs(self, job: JobState, limits: EffectiveLimits) -> Prediction:
        """Time for the shortest of the stages that it may go on with."""
        return self.needs(job, shortest_step(job, limits)) if job.paths else Prediction(0.0, 0.0)

    def reaction_s(self, job: JobState) -> float:
        """Time from the moment at which a stage is to stop to the map before it being at hand."""
        network_s = self._costs.reaction_s(job.model, job.height, job.width)
        return self._settings.reaction_s + network_s

    def _due_s(self, job: JobState, limits: EffectiveLimits, sigmas: float) -> float:
        if limits.deadline_s == math.inf:
            return math.inf
        return limits.deadline_s - self.answer(job).upper_s(sigmas)

    def _limits_at(self, job: JobState, now: float, load_cap: float) -> EffectiveLimits:
        return effective_limits(
            job.budget, self._server, arrival_s=job.arrival_s, load_cap=load_cap, now=now
        )


def shortest_step(job: JobState, limits: EffectiveLimits) -> StageForecast:
    """The shortest of the stages that a job may go on with, if it is not at its end."""
    allowed = [step for step in job.next_steps if job.allows(step, limits)]
    return min(allowed or job.next_steps, key=_base_s)


def _base_s(step: StageForecast) -> float:
    return step.base_s
