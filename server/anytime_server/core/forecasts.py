"""On which terms a job is served at a moment: what it may spend, what it needs, when it is due.

Decides, for one job at a time, what its limits are, how long its next stages would take and until
when they can start. Refuses to know the other jobs, the executor and the order of work: those are
the scheduler's. Holds the server's own budget, and which of its load caps are on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from anytime_protocol.budget import Budget
from anytime_server.core.costs import CostModel, Prediction, StageCost
from anytime_server.core.jobs import Job, StageResult
from anytime_server.core.limits import Clock, EffectiveLimits, ServerBudget, effective
from anytime_server.errors import SettingsError

_ROUNDING: Final = 1e-9
"""Slack, in 1e9 multiply-adds, for comparing a sum with a limit."""


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """What an operator may choose once.

    Attributes:
        max_jobs: requests in the house at a time; more are refused.
        sigmas: safety margin on what is owed, in deviations of the predicted time.
        depth_sigmas: the same on a bought stage. It may be smaller, as a miss breaks no promise:
            the stage is stopped and the map before it is sent. Simulated, a single client with
            stage times that vary by 12 % got the deepest exit that fits in 93 % of its requests
            with a margin of 1, in 88 % with 2, always in time.
        hope_sigmas: an exit 1 that nobody else has to wait for is tried if it will be in time when
            it takes so many deviations less than expected, and `reserve_s` is not needed.
        reserve_sigmas: the same for encoding the answer, which nothing can stop half-way.
        reserve_s: time that an answer takes beside its encoding, and that nobody measures: from one
            process to the other, through sockets, to a client that has to read it.
        reaction_s: what a stop takes beside the longest time between two looks at it
            (`CostModel.reaction_s`): from process to process and back, for the map before it.
        patience_s: how long a request without a deadline waits before it is owed its next stage.
        drain_retry_s: what a client is told to wait when this server is going away.
    """

    max_jobs: int = 64
    sigmas: float = 2.0
    depth_sigmas: float = 1.0
    hope_sigmas: float = 1.0
    reserve_sigmas: float = 3.0
    reserve_s: float = 0.0
    reaction_s: float = 0.001
    patience_s: float = 1.0
    drain_retry_s: float = 5.0

    def __post_init__(self) -> None:
        if self.max_jobs < 1:
            raise SettingsError("max_jobs", str(self.max_jobs), "at least 1")
        for name in (
            "sigmas",
            "depth_sigmas",
            "hope_sigmas",
            "reserve_sigmas",
            "reserve_s",
            "reaction_s",
            "drain_retry_s",
        ):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise SettingsError(name, str(value), "a finite number >= 0")
        if not 0 < self.patience_s < math.inf:
            raise SettingsError("patience_s", str(self.patience_s), "a finite number > 0")


class Ahead(NamedTuple):
    """What it takes from the last exit made to a later one.

    Attributes:
        exit: the later one.
        base_s: seconds on the unburdened machine.
        gmacs: 1e9 multiply-adds.
        gain: quality gained.
    """

    exit: int
    base_s: float
    gmacs: float
    gain: float


class Outlook(NamedTuple):
    """The terms of one job at one moment.

    Attributes:
        limits: its effective budget.
        may_go_on: depth and multiply-adds allow its next stage.
        needs: time for its next stage, the decoding included if still due; zero after the last.
        due_s: when a stage must have ended for its map to arrive by the deadline, margin included.
        expected_due_s: the same as expected, which is enough for exit 1 on an idle machine.
        order_s: when its turn comes: `due_s`, or without a deadline the end of its patience.
        latest_start_s: when its next stage must have been started.
    """

    limits: EffectiveLimits
    may_go_on: bool
    needs: Prediction
    due_s: float
    expected_due_s: float
    order_s: float
    latest_start_s: float

    def overdue(self, now: float) -> bool:
        """Whether it has no deadline and has waited long enough for a stage that it may have."""
        return self.due_s == math.inf and self.may_go_on and now >= self.order_s


@dataclass(slots=True, eq=False)
class LiveJob:
    """An admitted job and how far it has come.

    Attributes:
        job: as submitted.
        stages: base costs of the stages that it may ever get.
        budget: the client's budget in force.
        decoded: its image needs no decoding any more.
        progress_s: when its last exit was made, or when it was admitted.
        rev: number of the budget in force.
        made: exits made.
        result: of the last exit made.
        gmacs: 1e9 multiply-adds of its finished stages.
        used_s: seconds of network time spent on it.
        wasted_s: those of them that led to no map.
        cancelled: its client does not want it any more.
        ahead: what each further exit would take; empty after the last.
        limits: the effective budget as last worked out, with the versions that it came from.
        outlook: its terms as last worked out, with the versions that they came from.
    """

    job: Job
    stages: tuple[StageCost, ...]
    budget: Budget
    decoded: bool
    progress_s: float
    rev: int = 0
    made: int = 0
    result: StageResult | None = None
    gmacs: float = 0.0
    used_s: float = 0.0
    wasted_s: float = 0.0
    cancelled: bool = False
    ahead: tuple[Ahead, ...] = ()
    limits: tuple[tuple[int, int], EffectiveLimits] | None = None
    outlook: tuple[tuple[int, bool], Outlook] | None = None

    @property
    def active_share(self) -> float:
        """Share of the pixels that its next stage would compute."""
        return 1.0 if self.result is None else self.result.active_share

    def satisfied(self, limits: EffectiveLimits) -> bool:
        """Whether its last map is as confident as asked."""
        found = self.result
        return found is not None and (
            found.confidence >= limits.confidence or found.confident_share >= limits.confident_share
        )

    def allows(self, step: Ahead, limits: EffectiveLimits) -> bool:
        """Whether depth and multiply-adds allow it to go on to an exit."""
        within = self.gmacs + step.gmacs <= limits.gmacs + _ROUNDING
        return within and step.exit <= limits.max_exit

    def may_go_on(self, limits: EffectiveLimits) -> bool:
        """Whether they allow its next stage; that exit 1 is allowed was settled on admission."""
        return self.made == 0 or (bool(self.ahead) and self.allows(self.ahead[0], limits))

    def wanted_s(self) -> float:
        """Base seconds to the depth that its client wants."""
        cap = math.inf if self.budget.max_exit is None else self.budget.max_exit
        return max((step.base_s for step in self.ahead if step.exit <= cap), default=0.0)


class Terms:
    """Works out the terms of jobs, one at a time.

    Args:
        costs: predicts.
        settings: margins and patience.
        heeds_deadlines: if not, no job has a deadline here.
        budget: the server's own B(t) to begin with.
    """

    def __init__(
        self,
        costs: CostModel,
        settings: SchedulerSettings,
        heeds_deadlines: bool,
        budget: ServerBudget,
    ) -> None:
        self._costs = costs
        self._settings = settings
        self._heeds_deadlines = heeds_deadlines
        self.budget = budget
        self._clock_offset_s = 0.0
        self._engaged = budget.engage((), 0.0)
        self._version = 0

    # The server's side.

    def set_budget(self, budget: ServerBudget, now: float, time_of_day_s: float) -> None:
        """Replaces the server's budget; see `Scheduler.set_server_budget`."""
        self.budget = budget
        self._clock_offset_s = (time_of_day_s if budget.clock is Clock.DAILY else 0.0) - now
        self._engaged = budget.engage((), 0.0)
        self._version += 1

    def weigh_load(self, load_s: float) -> None:
        """Switches load caps on and off."""
        engaged = self.budget.engage(self._engaged, load_s)
        if engaged != self._engaged:
            self._engaged = engaged
            self._version += 1

    # The terms.

    def outlook(self, live: LiveJob, now: float) -> Outlook:
        """The terms of a job; remembered until something that they depend on changes."""
        limits = self._limits(live, now)
        predicted_by = (self._costs.version, live.decoded)
        if live.outlook is not None:
            known_by, known = live.outlook
            if known_by == predicted_by and known.limits is limits:
                return known
        found = self._outlook_under(live, limits)
        live.outlook = (predicted_by, found)
        return found

    def stop_terms(self, live: LiveJob, ends_s: float, now: float) -> tuple[EffectiveLimits, float]:
        """Limits on the running stage, and when to give it up so that the last map is in time.

        A stop takes some time itself; a stage that will be done in that time is left alone.

        Load caps do not count once a stage has begun: stopping it because the load has risen since
        would only waste what it has cost. Stage 1 is given up only when its map could hardly be in
        time, since nothing would be left to send. Stores nothing.

        Args:
            live: its job.
            ends_s: when it will have ended, margin included.
            now: the moment.
        """
        limits = self._limits_at(live, now, math.inf)
        if live.made:
            due_s = self._due_s(live, limits, self._settings.reserve_sigmas)
            job = live.job
            network_s = self._costs.reaction_s(job.model, job.height, job.width)
            stop_at_s = due_s - self._settings.reaction_s - network_s
            return limits, max(stop_at_s, ends_s) if ends_s <= due_s else stop_at_s
        return limits, self._due_s(live, limits, 0.0) + self._settings.reserve_s

    def lifted_s(self, live: LiveJob, now: float) -> float | None:
        """When the client's own schedule will allow the next stage, if that is soon enough."""
        cap = self._load_cap(live)
        for at_ms, _ in live.budget.schedule:
            at_s = live.job.arrival_s + at_ms / 1e3
            if at_s > now:
                then = self._outlook_under(live, self._limits_at(live, at_s, cap))
                if then.may_go_on and at_s < then.latest_start_s:
                    return at_s
        return None

    def _outlook_under(self, live: LiveJob, limits: EffectiveLimits) -> Outlook:
        needs = self.needs(live, live.ahead[0]) if live.ahead else Prediction(0.0, 0.0)
        due_s = self._due_s(live, limits, self._settings.reserve_sigmas)
        expected_due_s = self._due_s(live, limits, 0.0)
        patient_until_s = live.progress_s + self._settings.patience_s
        # Exit 1 is owed, so that its expected time must fit and no more; a later one needs its
        # margins as well.
        latest_start_s = expected_due_s - needs.mean_s
        if live.made:
            latest_start_s = due_s - needs.upper_s(self._settings.depth_sigmas)
        return Outlook(
            limits=limits,
            may_go_on=live.may_go_on(limits),
            needs=needs,
            due_s=due_s,
            expected_due_s=expected_due_s,
            order_s=patient_until_s if due_s == math.inf else due_s,
            latest_start_s=latest_start_s,
        )

    def _due_s(self, live: LiveJob, limits: EffectiveLimits, sigmas: float) -> float:
        if limits.deadline_s == math.inf:
            return math.inf
        return limits.deadline_s - self.way_back(live).upper_s(sigmas)

    def _load_cap(self, live: LiveJob) -> float:
        return self.budget.load_cap(self._engaged, live.job.urgency)

    def _limits(self, live: LiveJob, now: float) -> EffectiveLimits:
        made_of = (self._version, live.rev)
        if live.limits is not None:
            known_of, known = live.limits
            if known_of == made_of and now < known.until_s:
                return known
        limits = self._limits_at(live, now, self._load_cap(live))
        live.limits = (made_of, limits)
        return limits

    def _limits_at(self, live: LiveJob, now: float, load_cap: float) -> EffectiveLimits:
        limits = effective(
            live.budget,
            self.budget,
            arrival_s=live.job.arrival_s,
            clock_offset_s=self._clock_offset_s,
            load_cap=load_cap,
            now=now,
        )
        return limits if self._heeds_deadlines else limits.without_deadline()

    # What a job needs.

    def look_ahead(self, live: LiveJob) -> None:
        """Works out what each exit further on would take, from what the last one has shown."""
        model = live.job.model
        quality = self._costs.profile(model).quality
        doubt = 1.0 if live.result is None else 1.0 - live.result.confidence
        share, base_s, gmacs, ahead = live.active_share, 0.0, 0.0, []
        for exit_ in range(live.made + 1, len(live.stages) + 1):
            if exit_ > live.made + 1:  # masks only shrink
                share = min(share, self._costs.typical_share(model, exit_))
            base_s += live.stages[exit_ - 1].seconds(share) * self._costs.bias(model, exit_)
            gmacs += live.stages[exit_ - 1].gmacs(share)
            if quality:
                gain = quality[exit_ - 1] - (quality[live.made - 1] if live.made else 0.0)
            else:
                gain = doubt * (exit_ - live.made) / (len(live.stages) - live.made)
            ahead.append(Ahead(exit_, base_s, gmacs, gain))
        live.ahead = tuple(ahead)
        live.outlook = None

    def needs(self, live: LiveJob, step: Ahead) -> Prediction:
        """Time from the start of its next stage to an exit, the decoding included if still due."""
        network = self._costs.slow_down.predict(step.base_s)
        if live.decoded:
            return network
        return self._costs.decode(live.job.media_type, _pixels(live.job)).then(network)

    def way_back(self, live: LiveJob) -> Prediction:
        """Time from an exit to the last byte of the answer."""
        encode = self._costs.encode(live.job.encoding, _pixels(live.job))
        beside_s = live.job.network_s + self._settings.reserve_s
        return Prediction(encode.mean_s + beside_s, encode.sigma_s)


def _pixels(job: Job) -> int:
    return job.height * job.width
