"""Which stage of which request is computed next, how far, and how each request ends.

For one executor that computes one stage at a time. The clock is an argument (`now`, in seconds,
never falling), so that the same calls give the same answers. More executors are more schedulers,
each with its own requests: the state of a half computed request lies where it was computed.

The rules (imprecise computation; see RTDeepIoT, Clockwork and ALERT):

* Exit 1 is mandatory for every admitted request; later exits are optional and take slack. A request
  is admitted if its exit 1, after all mandatory stages before it, fits its deadline and makes no
  other late (earliest deadline first; predicted mean + `sigmas` deviations + encoding and sending).
  On an idle server no other request is at risk, so there a fair chance is enough (`hope_sigmas`).
* A stage that cannot end in time is not started, and one that can no longer is stopped. A mandatory
  stage is started as long as its expected time fits, since refusing it would be the worse answer;
  an optional one only if its margin (`depth_sigmas`) fits, too.
* Among the stages that may run, the `Policy` chooses.
* A request ends as soon as it is known that nothing better will come, in one `JobFinished` or
  `JobFailed`.
* A limit that the client's own schedule will lift in time makes a request pause, not end.
* A request without a deadline has `patience_s` after each of its exits; when that is over, its next
  stage is mandatory as well, and new requests are admitted only if they leave room for it.
* A request that has the executor to itself is run as far as its limits allow without asking again
  after each stage; `run_limits` says how far, and says it anew after each change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Effect, ErrorCode, Reason
from anytime_protocol.resources import ServerBudget
from anytime_server.core.admission import Workload, admit, hope_s, mandatory_stage
from anytime_server.core.costs import CostModel
from anytime_server.core.decisions import (
    STOP,
    Admitted,
    BudgetChange,
    Decision,
    Ending,
    EndJob,
    ExitReport,
    JobFailed,
    Rejected,
    RunJob,
    RunLimits,
    Wait,
)
from anytime_server.core.forecasts import Forecaster
from anytime_server.core.jobs import JobForecast, JobState
from anytime_server.core.limits import ServerLimits
from anytime_server.core.planner import Path
from anytime_server.core.policy import Candidate, Policy, QualityPerSecond, Step
from anytime_server.core.running import Running, describe, learn
from anytime_server.core.settings import SchedulerSettings
from anytime_server.core.slow_down import Prediction
from anytime_server.core.timeline import MandatoryStage, slack_s
from anytime_server.errors import DuplicateJobError, StageNotRunningError

_Waiting = tuple[JobState, JobForecast]
"""A job that is not running, and its forecast at the moment of a decision."""


class Scheduler:
    """See the module.

    Args:
        costs: predicts times; the scheduler trains it.
        policy: the order of work.
        server_budget: the operator's B(t) to begin with.
        settings: the operator's choices.
    """

    def __init__(
        self,
        costs: CostModel,
        policy: Policy | None = None,
        server_budget: ServerBudget | None = None,
        settings: SchedulerSettings | None = None,
    ) -> None:
        self.costs = costs
        self.settings = settings or SchedulerSettings()
        self.server_limits = ServerLimits(server_budget or ServerBudget())
        self._policy: Policy = policy or QualityPerSecond()
        self._forecaster = Forecaster(costs, self.settings, self.server_limits)
        self._jobs: dict[str, JobState] = {}
        self._running: Running | None = None
        self._draining = False
        self._has_executor = True

    # What a client or an operator asks for.

    def submit(self, job: JobState, now: float) -> Admitted | Rejected:
        """Takes a job or refuses it, before anything has been spent on it.

        Raises:
            UnknownModelError: the job's model has no profile.
            DuplicateJobError: a job with this id has not ended.
        """
        answer = self.offer(job, now)
        if isinstance(answer, Admitted):
            self._jobs[job.id] = job
            self._observe_load()
        elif job.reuse is not None:
            job.reuse.frame_refused()
        return answer

    def offer(self, job: JobState, now: float) -> Admitted | Rejected:
        """What `submit` would answer now; the job may be offered to others as well."""
        job.steps = self.costs.steps(job.model, job.height, job.width)
        job.reuse = self.costs.stream(job)
        if job.id in self._jobs:
            raise DuplicateJobError(job.id)
        if self._draining:
            text = "the server is shutting down"
            return Rejected(ErrorCode.DRAINING, text, self.settings.drain_retry_s)
        if len(self._jobs) >= self.settings.max_jobs:
            text = f"{len(self._jobs)} requests are active, which is the limit"
            free_in_s = self._until_free(now).mean_s + self.load_s / len(self._jobs)
            return Rejected(ErrorCode.OVERLOADED, text, free_in_s)
        job.progress_s, job.limits = now, None
        job.prepare_s = self.costs.preparation_s(job.model, job.height, job.width)
        self._forecaster.look_ahead(job)
        mandatory = self._mandatory(self._waiting(now), now)
        workload = Workload(self._until_free(now), mandatory, not self._jobs)
        return admit(job, workload, self._forecaster, self.settings, now)

    def release(self, job_id: str) -> bool:
        """Gives up a job that nothing has been computed of, if it has one, for another to take."""
        job = self._jobs.get(job_id)
        if job is None or job.last is not None or self._is_running(job):
            return False
        del self._jobs[job_id]
        return True

    def get_ready(self, job: JobState, sides: int | None) -> bool:
        """Whether the executor is to be told of a job's first sizes, or all, as some are new.

        It is taken to be told; of a job that is refused as well, so that the next one fits.
        """
        new_s = self.costs.preparation_s(job.model, job.height, job.width)[:sides]
        for exit_ in self.costs.profile(job.model).first_exits[:sides]:
            self.costs.note_size(job.model, job.height, job.width, exit_)
        return any(new_s)

    def cancel(self, job_id: str) -> Ending | None:
        """Ends a job; one that is running ends with its run. Unknown ids are ignored.

        Returns:
            The job's end, unless it is running or unknown.
        """
        job = self._jobs.get(job_id)
        if job is None:
            return None
        job.cancelled = True
        if self._is_running(job):
            return None
        return self._end(job, job.finished(Reason.CANCELLED))

    def update_budget(self, job_id: str, budget: Budget, rev: int) -> BudgetChange:
        """Replaces a job's budget; it counts from the job's arrival like the first one.

        Args:
            job_id: the job.
            budget: its new budget.
            rev: number of this change, rising from 1; an older one than the last is ignored.
        """
        job = self._jobs.get(job_id)
        if job is None or job.cancelled:
            return BudgetChange(Effect.GONE, 0)
        if rev <= job.rev:
            return BudgetChange(Effect.STALE, job.exit)
        job.budget, job.rev = budget, rev
        return BudgetChange(Effect.APPLIED, job.exit)

    def set_server_budget(
        self, budget: ServerBudget, now: float, time_of_day_s: float = 0.0
    ) -> None:
        """Replaces the operator's B(t).

        Args:
            budget: the new one.
            now: the moment; an `elapsed` schedule counts from here.
            time_of_day_s: seconds since local midnight at this moment, for a `daily` schedule. Set
                the same budget again when the local time jumps (daylight saving).
        """
        self.server_limits.set_budget(budget, now, time_of_day_s)
        self._observe_load()

    def drain(self) -> list[Ending]:
        """Takes no more jobs; the others end with what they have by the end of their next stage.

        Returns:
            The end of each job that waits and has an exit.
        """
        self._draining = True
        return [
            self._end(job, job.finished(Reason.DRAINING))
            for job in list(self._jobs.values())
            if job.last is not None and not self._is_running(job)
        ]

    # What the executor's side asks and reports.

    def decide(self, now: float) -> Decision:
        """What to do next; after an `EndJob`, ask again."""
        self._observe_load()
        free_s = self._earliest_start_s(now)
        waiting = self._waiting(now)
        for job, forecast in waiting:
            ending = self._ending(job, forecast, now, free_s)
            if ending is not None:
                return EndJob(self._end(job, ending))
        if self._running is None and self._has_executor:
            candidates = [c for waits in waiting if (c := self._candidate(*waits, now))]
            if candidates:
                slack = slack_s(self._mandatory(waiting, now), now, self.settings.sigmas)
                return self._start(self._policy.choose(candidates, slack), now)
        return Wait(self._next_change_s(waiting, now))

    def run_limits(self, now: float) -> RunLimits:
        """How far the executor may go with the run under way; `STOP` if there is none."""
        running = self._running
        if running is None or running.is_over:
            return STOP
        limits = self._run_limits(running, now)
        running.path, running.notify = limits.path, limits.notify
        return limits

    def exit_made(self, job_id: str, report: ExitReport) -> JobFailed | None:
        """A stage of the run under way has ended by itself, and made its exit.

        Args:
            job_id: the job.
            report: what was found.

        Returns:
            The job's end, if this was exit 1 and came after its deadline. In all other cases the
            end comes with `run_ended`.

        Raises:
            StageNotRunningError: this is not the stage that was running.
        """
        running = self._running
        if running is None or running.job.id != job_id:
            raise StageNotRunningError(job_id, report.exit, describe(running))
        job = running.job
        if not running.may_make(report.exit, self.costs.profile(job.model).ways):
            raise StageNotRunningError(job_id, report.exit, describe(running))
        learn(running, report, self._forecaster.steps(running.job), self.costs)
        running.made = (*running.made, report.exit)
        running.path = tuple(stage for stage in running.path if stage > report.exit)
        running.started_s = report.ended_s
        if job.cancelled or not self._is_active(job):
            job.wasted_s += report.elapsed_s
            running.base_s = 0.0  # of a further stage, which is not known
            return None
        if report.exit == 1:
            deadline_s = self._forecaster.forecast(job, report.ended_s).limits.deadline_s
            if report.ended_s > deadline_s:
                out_s = report.ended_s + self._forecaster.answer(job).mean_s
                failed = job.too_late("exit 1 came after the deadline", out_s)
                self._end(job, failed)
                return failed
        job.last, job.progress_s = report, report.ended_s
        job.made = (*job.made, report.exit)
        # The executor has gone on already.
        self._forecaster.look_ahead(job, None if running.is_over else running.path[0])
        # If the exit is reported late, the next stage may be half done: leave it to `stop_at_s`.
        start_s = report.ended_s if running.notify else -math.inf
        forecast = self._forecaster.forecast(job, report.ended_s)
        if self._ending(job, forecast, report.ended_s, start_s) is not None:
            running.path = ()
        running.base_s = 0.0 if running.is_over else job.paths[0][0].base_s
        running.predicted = self.costs.slow_down.predict(running.base_s)
        self._observe_load()
        return None

    def run_ended(self, job_id: str, wasted_s: float, now: float) -> Ending | None:
        """The executor is free again; all exits of the run have been reported.

        Args:
            job_id: the job.
            wasted_s: seconds spent on a stage that was stopped half-way; its work is lost.
            now: the moment.

        Returns:
            The job's end; None if it goes on later, or has ended before.

        Raises:
            StageNotRunningError: the job was not running.
        """
        running = self._running
        if running is None or running.job.id != job_id:
            raise StageNotRunningError(job_id, 0, describe(running))
        self._running = None
        job = running.job
        if wasted_s:
            self.costs.observe_at_least(running.base_s, wasted_s)
            job.used_s += wasted_s
            job.wasted_s += wasted_s
        if not self._is_active(job):
            return None
        if job.cancelled:
            return self._end(job, job.finished(Reason.CANCELLED))
        self._forecaster.look_ahead(job)  # any stage may follow again
        ending = self._ending(job, self._forecaster.forecast(job, now), now, now)
        return None if ending is None else self._end(job, ending)

    def fail(self, job_id: str, code: ErrorCode, detail: str) -> JobFailed | None:
        """Ends a job in an error, whatever it was doing. Unknown ids are ignored.

        If it was running, its run is taken to have ended: report it no more.
        """
        job = self._jobs.get(job_id)
        if self._running is not None and self._running.job.id == job_id:
            self._running = None
        if job is None:
            return None
        failed = JobFailed(job_id, code, detail, job.used_s)
        self._end(job, failed)
        return failed

    def overdue_s(self, now: float) -> float:
        """When the job that is computed must be ended though its run goes on; infinity for never.

        The executor stops a run in time by itself; this is for one that does not.
        """
        running = self._running
        if running is None or not self._is_active(running.job):
            return math.inf
        deadline_s = self._forecaster.forecast(running.job, now).limits.deadline_s
        reaction_s = self._forecaster.reaction_s(running.job)
        return deadline_s + reaction_s + self.settings.unresponsive_s

    def abandon(self, job_id: str) -> None:
        """Removes a job that ends by itself; its run, if it has one, is still to be reported."""
        self._jobs.pop(job_id, None)

    def executor_lost(self) -> None:
        """The executor has died, and with it all exits: every job begins again.

        No run is started before `executor_started`; jobs whose deadline comes first end.
        """
        self._running, self._has_executor = None, False
        self.costs.forget_executor()
        for job in self._jobs.values():
            job.restart()
            job.reuse = self.costs.stream(job)
            self._forecaster.look_ahead(job)

    def executor_started(self) -> None:
        """Another executor is there."""
        self._has_executor = True

    def image_decoded(self, job_id: str, elapsed_s: float | None) -> None:
        """A job's image is decoded, after `elapsed_s`; unknown ids are ignored.

        None if it cannot be decoded: a job that awaits it finds that out in its run.
        """
        job = self._jobs.get(job_id)
        if job is None:
            return
        job.awaits_image = False
        if elapsed_s is not None and not job.decoded:
            self.costs.observe_decode(job.media_type, job.pixels, elapsed_s)
            job.decoded = True

    @property
    def active(self) -> int:
        """Jobs that have not ended."""
        return len(self._jobs)

    @property
    def load_s(self) -> float:
        """Predicted seconds to take all active jobs as deep as their clients' caps allow."""
        return self.costs.slow_down.mean * sum(job.wanted_s() for job in self._jobs.values())

    # Mandatory stages.

    def _mandatory(self, waiting: Sequence[_Waiting], now: float) -> list[MandatoryStage]:
        overhead = self._forecaster.overhead()
        return [
            mandatory_stage(forecast, overhead)
            for job, forecast in waiting
            if job.last is None or forecast.is_overdue(now)
        ]

    # How a job goes on, or ends.

    def _ending(
        self, job: JobState, forecast: JobForecast, now: float, free_s: float
    ) -> Ending | None:
        """The end of a job that is not running, if nothing better can come of it.

        Args:
            job: the job.
            forecast: its forecast at this moment.
            now: the moment.
            free_s: the earliest moment at which the executor can start its next stage.
        """
        in_time = free_s < forecast.latest_start_s
        if job.last is None:
            if len(self._jobs) == 1:
                in_time = free_s < forecast.latest_start_s + hope_s(forecast.needs, self.settings)
            out_s = free_s + forecast.limits.deadline_s - forecast.latest_start_s
            late = "exit 1 can no longer be made in time"
            return None if in_time else job.too_late(late, out_s)
        if not job.paths:
            return job.finished(Reason.COMPLETE)
        if job.is_satisfied(forecast.limits):
            return job.finished(Reason.SATISFIED)
        if self._draining:
            return job.finished(Reason.DRAINING)
        if not forecast.may_continue:
            pauses = self._forecaster.lifted_s(job, now) is not None
            return None if pauses else job.finished(Reason.BUDGET)
        return None if in_time else job.finished(Reason.DEADLINE)

    def _candidate(self, job: JobState, forecast: JobForecast, now: float) -> Candidate | None:
        """The next stage of a job that has no reason to end; None if the job pauses."""
        if job.awaits_image or not forecast.may_continue:
            return None
        return Candidate(
            job_id=job.id,
            mandatory=job.last is None,
            arrival_s=job.arrival_s,
            due_s=forecast.order_s,
            overdue=forecast.is_overdue(now),
            urgency=job.urgency,
            plan=partial(self._steps, job, now),
        )

    def _steps(self, job: JobState, now: float) -> tuple[Step, ...]:
        """The exits along the path that a job is to go on along now."""
        path = self._forecaster.plan(job, now, now, shared=len(self._jobs) > 1)
        steps = []
        for ahead in path:
            needs = self._forecaster.needs(job, ahead)
            upper_s = needs.upper_s(self.settings.depth_sigmas)
            steps.append(Step(ahead.exit, upper_s, needs.mean_s, ahead.gain))
        return tuple(steps)

    def _start(self, chosen: Candidate, now: float) -> RunJob:
        job = self._jobs[chosen.job_id]
        self._forecaster.look_ahead(job, chosen.stage)
        base_s = job.paths[0][0].base_s
        predicted = self._forecaster.needs(job, job.paths[0][0])
        self._running = Running(job, (chosen.stage,), base_s, predicted, now, job.made)
        depth = chosen.steps[-1].exit
        max_risk = self._forecaster.forecast(job, now).limits.max_risk
        return RunJob(job.id, chosen.stage, depth, predicted.mean_s, self.run_limits(now), max_risk)

    def _run_limits(self, running: Running, now: float) -> RunLimits:
        job = running.job
        if job.cancelled or not self._is_active(job) or not job.paths:
            return STOP
        limits = self._forecaster.running_limits(job, now)
        next_step = job.paths[0][0]  # of all paths, as it is being computed
        if job.last is not None and (job.is_satisfied(limits) or not job.allows(next_step, limits)):
            return STOP
        path = self._planned_run(running, now)
        predicted = running.predicted
        if len(path) > 1:
            predicted = self._forecaster.needs(job, path[-1])
        ends_s = running.started_s + predicted.upper_s(self.settings.sigmas)
        stop_at_s = self._forecaster.stop_at_s(job, limits, ends_s)
        exits = tuple(step.exit for step in path)
        return RunLimits(exits, stop_at_s, self._is_in_doubt(running, path, now))

    def _planned_run(self, running: Running, now: float) -> Path:
        """The stages that a run is to compute, as things stand.

        Only a job that has the executor to itself is run further than the stage that is being
        computed, and only where neither an exit's result nor a schedule can change how far it may
        go.
        """
        job = running.job
        limits = self._forecaster.forecast(job, now).limits
        alone = len(self._jobs) == 1 and not self._draining
        if not alone or limits.end_by_result or limits.until_s < math.inf:
            return job.paths[0][:1]
        return self._forecaster.plan(job, running.started_s, now, shared=False)

    def _is_in_doubt(self, running: Running, path: Path, now: float) -> bool:
        """Whether the next exit may show that the run cannot go as far as is planned.

        Args:
            running: the run.
            path: the stages that it is to compute.
            now: the moment.
        """
        job = running.job
        due_s = self._forecaster.forecast(job, now).due_s
        if due_s == math.inf:
            return False
        if job.last is None:  # it is stopped by another rule, and tells how fast the machine is
            return True
        longest = self._forecaster.longest(job, path)
        return len(path) > 1 and running.started_s + longest.upper_s(self.settings.sigmas) >= due_s

    def _end(self, job: JobState, ending: Ending) -> Ending:
        """The only place where a job is removed."""
        del self._jobs[job.id]
        if job.reuse is not None and job.last is not None:
            job.reuse.frame_ended()
        return ending

    # Time and load.

    def _until_free(self, now: float) -> Prediction:
        """Time until the running stage has ended, margin included."""
        if self._running is None:
            return Prediction(0.0, 0.0)
        overhead = self._forecaster.overhead()
        return Prediction(self._running.left_s(now, overhead, self.settings.sigmas), 0.0)

    def _earliest_start_s(self, now: float) -> float:
        """When another stage might start, if the running one is lucky."""
        running = self._running
        if running is None:
            return now
        return max(now, running.started_s + running.predicted.upper_s(-self.settings.sigmas))

    def _next_change_s(self, waiting: Sequence[_Waiting], now: float) -> float | None:
        """When time alone will change a decision."""
        moments: list[float] = []
        for job, forecast in waiting:
            moments += [forecast.limits.until_s, forecast.latest_start_s]
            if job.awaits_image:
                moments.append(forecast.latest_start_s + hope_s(forecast.needs, self.settings))
        if self._running is not None:
            moments.append(self._forecaster.running_limits(self._running.job, now).until_s)
        return min((moment for moment in moments if now < moment < math.inf), default=None)

    def _waiting(self, now: float) -> list[_Waiting]:
        jobs = [job for job in self._jobs.values() if not self._is_running(job)]
        return [(job, self._forecaster.forecast(job, now)) for job in jobs]

    def _is_active(self, job: JobState) -> bool:
        return self._jobs.get(job.id) is job

    def _is_running(self, job: JobState) -> bool:
        return self._running is not None and self._running.job is job

    def _observe_load(self) -> None:
        if self.server_limits.budget.load_caps:
            self.server_limits.observe_load(self.load_s)
