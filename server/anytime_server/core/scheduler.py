"""Who computes next, how deep, and when to stop: quality bends before service breaks.

Decides, for one executor that computes one stage at a time: which requests to take, which stage of
which request to run, when a running stage is not worth finishing, and how each request ends.
Refuses to know the clock (`now` is an argument everywhere, in seconds, never falling), threads,
sockets and networks. The same calls give the same answers. More executors are more schedulers, each
with its own requests: the state of a half computed request lives where it was computed.

The rules:

* Exit 1 is owed to every admitted request; later exits are bought with spare time. A request is
  admitted if its exit 1, after all that is owed by then, fits its deadline and breaks no other
  (earliest deadline first; predicted mean + `sigmas` deviations + the encode and the way back).
  On an idle server no promise is at stake, so there a fair chance is enough (`hope_sigmas`).
* A stage that cannot end in time is not started, and one that can no longer is stopped. The owed
  stage is started as long as its expected time fits, since refusing it would be the worse answer;
  a bought one only if its margin (`depth_sigmas`) fits, too.
* Among the stages that may run, the `Policy` chooses.
* A request ends as soon as it is known that nothing better will come, in one `Final` or `Failed`.
* A limit that the client's own schedule will lift in time makes a request pause, not end.
* A request without a deadline has `patience_s` after each of its exits; when that is over, its next
  stage is owed as well, and new requests are admitted only if they leave room for it.

Calls are made from one thread. `should_stop` only reads, so that another thread may ask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Effect, ErrorCode, Reason
from anytime_server.core.costs import CostModel, Prediction
from anytime_server.core.forecasts import LiveJob, SchedulerSettings, Terms
from anytime_server.core.jobs import (
    Admitted,
    BudgetAnswer,
    Decision,
    Ending,
    ExitMade,
    Failed,
    Final,
    Finish,
    Idle,
    Job,
    Outcome,
    Rejected,
    Run,
    StageResult,
    StopReason,
    Wait,
)
from anytime_server.core.limits import EffectiveLimits, ServerBudget
from anytime_server.core.policy import Candidate, Policy, QualityPerSecond, Step
from anytime_server.core.timeline import Owed, lateness_s, spare_s
from anytime_server.errors import DuplicateJobError, StageNotRunningError

_NOW = Prediction(0.0, 0.0)


class _Running(NamedTuple):
    """The stage that the executor computes."""

    live: LiveJob
    run: Run
    base_s: float
    started_s: float
    predicted: Prediction


class Scheduler:
    """See the module.

    Args:
        costs: predicts times; the scheduler teaches it.
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
        self._policy: Policy = policy or QualityPerSecond()
        self._terms = Terms(
            costs, self.settings, self._policy.heeds_deadlines, server_budget or ServerBudget()
        )
        self._jobs: dict[str, LiveJob] = {}
        self._running: _Running | None = None
        self._draining = False

    # What a client or an operator says.

    def submit(self, job: Job, now: float) -> Admitted | Rejected:
        """Takes a job or refuses it, before anything has been spent on it.

        Raises:
            UnknownModelError: the job's model has no profile.
            DuplicateJobError: a job with this id is alive.
        """
        stages = self.costs.stages(job.model, job.height, job.width)
        if job.id in self._jobs:
            raise DuplicateJobError(job.id)
        if self._draining:
            text = "the server is shutting down"
            return Rejected(job.id, ErrorCode.DRAINING, text, self.settings.drain_retry_s)
        if len(self._jobs) >= self.settings.max_jobs:
            text = f"{len(self._jobs)} requests are in the house, and no more fit"
            return Rejected(job.id, ErrorCode.OVERLOADED, text, self._place_free_in_s(now))
        live = LiveJob(
            job=job,
            stages=stages[: self._policy.depth(len(stages))],
            budget=job.budget,
            decoded=job.decoded,
            progress_s=now,
        )
        self._terms.look_ahead(live)
        refusal = self._refusal(live, now)
        if refusal is not None:
            return refusal
        promise = self._promise(live, now)
        self._jobs[job.id] = live
        self._weigh_load()
        return promise

    def cancel(self, job_id: str, now: float) -> list[Outcome]:  # noqa: ARG002
        """Ends a job; one that is running ends when the executor reports. Unknown ids are ignored.

        Returns:
            The job's `Final`, unless it is running or unknown.
        """
        live = self._jobs.get(job_id)
        if live is None:
            return []
        live.cancelled = True
        if self._is_running(live):
            return []
        return [self._end(live, _final(live, Reason.CANCELLED))]

    def update_budget(self, job_id: str, budget: Budget, rev: int, now: float) -> BudgetAnswer:
        """Replaces a job's budget; it counts from the job's arrival like the first one.

        Args:
            job_id: the job.
            budget: its new budget.
            rev: number of this change, rising from 1; an older one than the last is ignored.
            now: the moment.
        """
        live = self._jobs.get(job_id)
        if live is None or live.cancelled:
            return BudgetAnswer(job_id, rev, Effect.GONE, 0, stops_stage=False)
        if rev <= live.rev:
            return BudgetAnswer(job_id, live.rev, Effect.STALE, live.made, stops_stage=False)
        live.budget, live.rev = budget, rev
        stops = self._is_running(live) and self.should_stop(job_id, now) is not None
        return BudgetAnswer(job_id, rev, Effect.APPLIED, live.made, stops_stage=stops)

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
        self._terms.set_budget(budget, now, time_of_day_s)
        self._weigh_load()

    @property
    def server_budget(self) -> ServerBudget:
        """The operator's B(t) in force."""
        return self._terms.budget

    def drain(self, now: float) -> list[Outcome]:  # noqa: ARG002
        """Takes no more jobs; the others end with what they have by the end of their next stage.

        Returns:
            The `Final` of each job that waits and has an exit.
        """
        self._draining = True
        return [
            self._end(live, _final(live, Reason.DRAINING))
            for live in list(self._jobs.values())
            if live.made and not self._is_running(live)
        ]

    # What the executor asks and says.

    def decide(self, now: float) -> Decision:
        """What to do next; after a `Finish`, ask again."""
        self._weigh_load()
        free_s = self._earliest_start_s(now)
        for live in self._waiting():
            ending = self._ending(live, now, free_s)
            if ending is not None:
                return Finish(self._end(live, ending))
        if self._running is None:
            candidates = [c for live in self._waiting() if (c := self._candidate(live, now))]
            if candidates:
                spare = spare_s(self._all_owed(now), now, self.settings.sigmas)
                return self._start(self._policy.choose(candidates, spare), now)
        if not self._jobs:
            return Idle()
        return Wait(self._next_change_s(now))

    def should_stop(self, job_id: str, now: float, done: float = 1.0) -> StopReason | None:
        """Whether the running stage of a job is no longer worth finishing; to be asked often.

        Args:
            job_id: the job.
            now: the moment.
            done: share of the stage that is done, 0 to 1, if known; with it, a stage that will be
                too late is stopped as soon as that is certain rather than when time is up.

        Returns:
            The reason, or None to go on. A job that is not running is `CANCELLED`.
        """
        running = self._running
        if running is None or running.live.job.id != job_id or running.live.cancelled:
            return Reason.CANCELLED
        live, stage = running.live, running.run.stage
        limits, stop_at_s = self._stop_terms(live, running.predicted, running.started_s, now)
        if stage > 1:
            if not live.allows(live.ahead[0], limits):
                return Reason.BUDGET
            if live.satisfied(limits):
                return Reason.SATISFIED
        least_s = max(running.predicted.upper_s(-self.settings.sigmas), 0.0) * (1.0 - done)
        return Reason.DEADLINE if now + least_s > stop_at_s else None

    def complete(
        self, job_id: str, stage: int, elapsed_s: float, result: StageResult, now: float
    ) -> list[Outcome]:
        """The stage of the last `Run` has ended by itself.

        Args:
            job_id: the job.
            stage: the stage.
            elapsed_s: seconds it took; of the network alone, without decoding.
            result: what was found.
            now: the moment.

        Returns:
            The new exit, unless the job was cancelled, and the job's end if this was it.

        Raises:
            StageNotRunningError: this is not the stage that was running.
        """
        running = self._stopped(job_id, stage)
        live = running.live
        self._learn(running, elapsed_s, result)
        if live.cancelled:
            live.wasted_s += elapsed_s
            return [self._end(live, _final(live, Reason.CANCELLED))]
        if stage == 1 and now > self._terms.outlook(live, now).limits.deadline_s:
            return [self._end(live, _too_late(live, "exit 1 came after the deadline"))]
        self._reach(live, stage, result, now)
        outcomes: list[Outcome] = [ExitMade(job_id, stage, result)]
        self._weigh_load()
        ending = self._ending(live, now, now)
        if ending is not None:
            outcomes.append(self._end(live, ending))
        return outcomes

    def go_on(
        self, job_id: str, stage: int, elapsed_s: float, result: StageResult, ended_s: float
    ) -> Run:
        """The stage has ended, and the executor has begun the next, as `Run.through` allows.

        Args:
            job_id: the job.
            stage: the stage that has ended.
            elapsed_s: as for `complete`.
            result: as for `complete`.
            ended_s: when it ended; this moment or before.

        Returns:
            What runs now. The exit is made, even where the job has been cancelled meanwhile.

        Raises:
            StageNotRunningError: this is not the stage that was running, or it had to be the last.
        """
        running = self._reported(job_id, stage)
        if stage >= running.run.through:
            raise StageNotRunningError(job_id, stage + 1, f"stage {stage} was to be the last")
        live = running.live
        self._learn(running, elapsed_s, result)
        self._reach(live, stage, result, ended_s)
        predicted = self._terms.needs(live, live.ahead[0])
        stop_at_s = running.run.stop_at_s
        if stop_at_s < math.inf:
            _, stop_at_s = self._stop_terms(live, predicted, ended_s, ended_s)
        run = replace(
            running.run, stage=stage + 1, predicted_s=predicted.mean_s, stop_at_s=stop_at_s
        )
        self._running = _Running(live, run, live.ahead[0].base_s, ended_s, predicted)
        return run

    def abandon(self, job_id: str, stage: int, elapsed_s: float, now: float) -> list[Outcome]:
        """The stage of the last `Run` was stopped half-way; its work is lost.

        Args:
            job_id: the job.
            stage: the stage.
            elapsed_s: seconds spent on the network.
            now: the moment.

        Returns:
            The job's end; nothing if it may go on after all (its budget was raised meanwhile).

        Raises:
            StageNotRunningError: this is not the stage that was running.
        """
        running = self._stopped(job_id, stage)
        live = running.live
        self.costs.observe_at_least(running.base_s, elapsed_s)
        live.used_s += elapsed_s
        live.wasted_s += elapsed_s
        if live.cancelled:
            return [self._end(live, _final(live, Reason.CANCELLED))]
        ending = self._ending(live, now, now)
        return [] if ending is None else [self._end(live, ending)]

    def fail(self, job_id: str, code: ErrorCode, detail: str) -> list[Outcome]:
        """Ends a job in an error, whatever it was doing. Unknown ids are ignored.

        If its stage was running, that stage is taken to have stopped: report it no more.
        """
        live = self._jobs.get(job_id)
        if live is None:
            return []
        if self._is_running(live):
            self._running = None
        return [self._end(live, Failed(job_id, code, detail, live.used_s))]

    def decoded(self, job_id: str, elapsed_s: float) -> None:
        """A job's image is decoded, after `elapsed_s`; unknown ids only teach nothing."""
        live = self._jobs.get(job_id)
        if live is not None and not live.decoded:
            job = live.job
            self.costs.observe_decode(job.media_type, job.height * job.width, elapsed_s)
            live.decoded = True

    # What anyone may ask.

    @property
    def draining(self) -> bool:
        """No more jobs are taken."""
        return self._draining

    @property
    def jobs(self) -> int:
        """Jobs in the house."""
        return len(self._jobs)

    @property
    def load_s(self) -> float:
        """Predicted seconds to take all jobs in the house as deep as their clients' caps allow."""
        return self.costs.slow_down.mean * sum(live.wanted_s() for live in self._jobs.values())

    # Admission.

    def _refusal(self, live: LiveJob, now: float) -> Rejected | None:
        job, gmacs = live.job, live.ahead[0].gmacs
        allowed = self._terms.outlook(live, now).limits.gmacs
        if gmacs > allowed:
            text = f"exit 1 costs {gmacs:.3g} GMACs, the budget allows {allowed:.3g}"
            return Rejected(job.id, ErrorCode.BUDGET_TOO_SMALL, text, None)
        owed = self._owed(live, now)
        hope_s = 0.0 if self._jobs else self._hope_s(owed.needs)
        late_s = now + owed.needs.mean_s - hope_s - self._terms.outlook(live, now).expected_due_s
        if late_s > 0.0:
            text = f"exit 1 would be {late_s * 1e3:.1f} ms too late even on an idle server"
            return Rejected(job.id, ErrorCode.DEADLINE_EXCEEDED, text, None)
        if not self._jobs:
            return None
        others = self._all_owed(now)
        late_s = lateness_s(owed, others, self._until_free(now), now, self.settings.sigmas)
        if late_s > 0.0:
            text = f"what is owed already leaves no room: {late_s * 1e3:.1f} ms too late"
            return Rejected(job.id, ErrorCode.OVERLOADED, text, late_s)
        return None

    def _hope_s(self, needs: Prediction) -> float:
        """By how much luck an exit 1 may take less than expected that keeps nobody waiting."""
        return self.settings.hope_sigmas * needs.sigma_s + self.settings.reserve_s

    def _promise(self, live: LiveJob, now: float) -> Admitted:
        """How deep a new job will get if nobody else comes, after what is owed to the others."""
        outlook = self._terms.outlook(live, now)
        start = self._until_free(now)
        for owed in self._all_owed(now):
            start = start.then(owed.needs)
        exit_, end = 0, start
        for step in live.ahead:
            then = start.then(self._terms.needs(live, step))
            in_time = now + then.upper_s(self.settings.depth_sigmas) < outlook.due_s
            if step.exit > 1 and not (in_time and live.allows(step, outlook.limits)):
                break
            exit_, end = step.exit, then
        after_s = now - live.job.arrival_s + end.then(self._terms.way_back(live)).mean_s
        return Admitted(live.job.id, exit_, after_s)

    def _place_free_in_s(self, now: float) -> float:
        """When a place in a full house may be free: after one job's part of the work in it."""
        return self._until_free(now).mean_s + self.load_s / len(self._jobs)

    # What is owed, earliest first.

    def _owed(self, live: LiveJob, now: float) -> Owed:
        outlook = self._terms.outlook(live, now)
        return Owed(outlook.order_s, outlook.due_s, outlook.needs)

    def _all_owed(self, now: float) -> Iterator[Owed]:
        for live in self._waiting():
            if live.made == 0 or self._terms.outlook(live, now).overdue(now):
                yield self._owed(live, now)

    # How a job goes on, or ends.

    def _ending(self, live: LiveJob, now: float, free_s: float) -> Ending | None:
        """The end of a job that is not running, if nothing better can come of it.

        Args:
            live: the job.
            now: the moment.
            free_s: the earliest moment at which the executor can start its next stage.
        """
        outlook = self._terms.outlook(live, now)
        in_time = free_s < outlook.latest_start_s
        if live.made == 0:
            if len(self._jobs) == 1:
                in_time = free_s < outlook.latest_start_s + self._hope_s(outlook.needs)
            return None if in_time else _too_late(live, "exit 1 can no longer be made in time")
        if not live.ahead:
            return _final(live, Reason.COMPLETE)
        if live.satisfied(outlook.limits):
            return _final(live, Reason.SATISFIED)
        if self._draining:
            return _final(live, Reason.DRAINING)
        if not outlook.may_go_on:
            pauses = self._terms.lifted_s(live, now) is not None
            return None if pauses else _final(live, Reason.BUDGET)
        return None if in_time else _final(live, Reason.DEADLINE)

    def _candidate(self, live: LiveJob, now: float) -> Candidate | None:
        """The next stage of a job that has no reason to end; None if the job pauses."""
        outlook = self._terms.outlook(live, now)
        if not outlook.may_go_on:
            return None
        steps: list[Step] = []
        for ahead in live.ahead:
            needs = self._terms.needs(live, ahead)
            upper_s = needs.upper_s(self.settings.depth_sigmas)
            if steps and not (now + upper_s < outlook.due_s and live.allows(ahead, outlook.limits)):
                break
            steps.append(Step(ahead.exit, upper_s, needs.mean_s, ahead.gain))
        return Candidate(
            job_id=live.job.id,
            stage=live.made + 1,
            arrival_s=live.job.arrival_s,
            due_s=outlook.order_s,
            overdue=outlook.overdue(now),
            urgency=live.job.urgency,
            steps=tuple(steps),
        )

    def _start(self, chosen: Candidate, now: float) -> Run:
        live = self._jobs[chosen.job_id]
        predicted = self._terms.outlook(live, now).needs
        limits, stop_at_s = self._stop_terms(live, predicted, now, now)
        depth = chosen.steps[-1].exit
        alone = len(self._jobs) == 1 and not self._draining
        goes_on = (
            depth > chosen.stage
            and alone
            and limits.confidence == limits.confident_share == math.inf
        )
        # Exit 1 is stopped by another rule than the later ones, and tells how fast the machine is.
        tells = limits.deadline_s < math.inf and live.made == 0
        steady = goes_on and not tells and limits.until_s == math.inf
        run = Run(
            chosen.job_id,
            chosen.stage,
            predicted.mean_s,
            stop_at_s,
            depth=depth,
            through=depth if steady else chosen.stage,
            goes_on=goes_on,
        )
        self._running = _Running(live, run, live.ahead[0].base_s, now, predicted)
        return run

    def _stop_terms(
        self, live: LiveJob, predicted: Prediction, started_s: float, now: float
    ) -> tuple[EffectiveLimits, float]:
        """`Terms.stop_terms` of a stage that was started, or is about to be."""
        ends_s = started_s + predicted.upper_s(self.settings.sigmas)
        return self._terms.stop_terms(live, ends_s, now)

    def _learn(self, running: _Running, elapsed_s: float, result: StageResult) -> None:
        """What a stage has cost that ended by itself."""
        live = running.live
        model, stage = live.job.model, running.run.stage
        self.costs.observe_bias(model, stage, self.costs.observe_stage(running.base_s, elapsed_s))
        self.costs.observe_share(model, stage, live.active_share)
        live.used_s += elapsed_s
        live.gmacs += result.gmacs
        live.decoded = True

    def _reach(self, live: LiveJob, stage: int, result: StageResult, now: float) -> None:
        """A job has a new exit."""
        live.made, live.result, live.progress_s = stage, result, now
        self._terms.look_ahead(live)

    def _stopped(self, job_id: str, stage: int) -> _Running:
        """The executor is free again."""
        running, self._running = self._reported(job_id, stage), None
        return running

    def _reported(self, job_id: str, stage: int) -> _Running:
        """What runs, if it is what the executor tells about."""
        running = self._running
        if running is None or (running.run.job_id, running.run.stage) != (job_id, stage):
            found = "nothing is"
            if running is not None:
                found = f"stage {running.run.stage} of {running.run.job_id!r} is"
            raise StageNotRunningError(job_id, stage, found)
        return running

    def _end(self, live: LiveJob, ending: Ending) -> Ending:
        """The only way out of the house."""
        del self._jobs[live.job.id]
        return ending

    # Time and load.

    def _until_free(self, now: float) -> Prediction:
        """Time until the running stage has ended, margin included."""
        running = self._running
        if running is None:
            return _NOW
        spent_s = now - running.started_s
        return Prediction(max(running.predicted.upper_s(self.settings.sigmas) - spent_s, 0.0), 0.0)

    def _earliest_start_s(self, now: float) -> float:
        """When another stage might start, if the running one is lucky."""
        running = self._running
        if running is None:
            return now
        return max(now, running.started_s + running.predicted.upper_s(-self.settings.sigmas))

    def _next_change_s(self, now: float) -> float | None:
        """When time alone will change a decision."""
        moments: list[float] = []
        for live in self._waiting():
            outlook = self._terms.outlook(live, now)
            moments += [outlook.limits.until_s, outlook.latest_start_s]
        return min((moment for moment in moments if now < moment < math.inf), default=None)

    def _waiting(self) -> list[LiveJob]:
        running = None if self._running is None else self._running.live
        return [live for live in self._jobs.values() if live is not running]

    def _is_running(self, live: LiveJob) -> bool:
        return self._running is not None and self._running.live is live

    def _weigh_load(self) -> None:
        if self._terms.budget.load_caps:
            self._terms.weigh_load(self.load_s)


def _final(live: LiveJob, reason: Reason) -> Final:
    return Final(live.job.id, reason, live.made, live.result, live.gmacs, live.wasted_s)


def _too_late(live: LiveJob, detail: str) -> Failed:
    return Failed(live.job.id, ErrorCode.DEADLINE_EXCEEDED, detail, live.used_s)
