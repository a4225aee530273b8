"""A discrete-event simulation of servers: the real scheduler on simulated traffic and machines.

Each replica is an executor with its own `Scheduler` and its own requests: one of several on a
machine, or a machine. A router chooses one for each new request. Decoding keeps the executor busy;
encoding and sending do not. Replicas may fail, and their number may follow what they serve
(`changes`).

The executor of a replica behaves like the real one: it computes the stages of a run one after the
other as far as the run's limits allow, and checks from time to time whether the stage that it
computes is to stop. There is no real clock.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto

from anytime_protocol.budget import Budget
from anytime_protocol.enums import ErrorCode, Reason
from anytime_protocol.resources import ServerBudget
from anytime_server.core.costs import CostModel, MeasuredPath, ModelProfile
from anytime_server.core.decisions import (
    Ending,
    EndJob,
    JobFailed,
    JobFinished,
    Rejected,
    RunJob,
    RunLimits,
    Wait,
)
from anytime_server.core.jobs import JobState
from anytime_server.core.scheduler import Scheduler
from anytime_server.core.settings import SchedulerSettings
from anytime_server.errors import SettingsError
from anytime_server.simulation.changes import DECIDE_S, Autoscaler, Changes
from anytime_server.simulation.policies import OURS, Strategy
from anytime_server.simulation.report import Report, percentiles
from anytime_server.simulation.routers import Router, two_choices
from anytime_server.simulation.traffic import (
    DrawnRequest,
    DrawnStep,
    Machine,
    Traffic,
    draw,
    image_stages,
    typical_shares,
)


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """One simulation.

    Attributes:
        profile: the model; its first size is the size of all images, and its quality must be given.
        traffic: the requests.
        strategy: the way to serve them.
        duration_s: time in which requests arrive; all that are admitted are then still served.
        warm_up_s: of it, from the start; requests that arrive in it are served but not counted, as
            they find empty queues and schedulers that have learnt nothing.
        replicas: number of executors; the least where it changes.
        router: chooses one of them for a request.
        uneven: every second replica takes so many times as long, which it has to find out.
        seed: of everything drawn.
        machine: the machines.
        settings: the schedulers'.
        server_budget: the operator's.
        changes: how executors come and go.
    """

    profile: ModelProfile
    traffic: Traffic
    strategy: Strategy = OURS
    duration_s: float = 3600.0
    warm_up_s: float = 0.0
    replicas: int = 1
    router: Router = two_choices
    uneven: float = 1.0
    seed: int = 0
    machine: Machine = field(default_factory=Machine)
    settings: SchedulerSettings = field(default_factory=SchedulerSettings)
    server_budget: ServerBudget = field(default_factory=ServerBudget)
    changes: Changes = field(default_factory=Changes)

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise SettingsError("replicas", str(self.replicas), "at least 1")
        if not 0 <= self.warm_up_s < self.duration_s:
            expected = f"at least 0 and less than the {self.duration_s:g} s in all"
            raise SettingsError("warm_up_s", f"{self.warm_up_s:g}", expected)
        if not self.profile.quality:
            raise SettingsError("profile.quality", "none", "one value per exit, to count quality")
        deepest = self.strategy.max_exit or 1
        if deepest > self.profile.exits:
            expected = f"at most exit {self.profile.exits}, the model's last"
            raise SettingsError("strategy", self.strategy.name, expected)
        low, high = self.traffic.deadline_s
        if not 0 < low <= high < math.inf:
            raise SettingsError(
                "traffic.deadline_s", f"{low} to {high}", "0 < shortest <= longest, both finite"
            )


def simulate(config: SimulationConfig) -> Report:
    """Runs one simulation; the same configuration gives the same report."""
    return _Simulation(config).run()


def full_depth_hz(profile: ModelProfile, machine: Machine | None = None) -> float:
    """Requests a second that one replica can take to the last exit, at typical active shares."""
    machine = machine or Machine()
    size = profile.sizes[0]
    stages, shares = image_stages(profile), typical_shares(profile)
    base_s = sum(stage.seconds(s) for stage, s in zip(stages, shares, strict=True))
    decode_s = machine.decode.seconds(size.height * size.width)
    return 1.0 / (machine.run_s + decode_s + base_s * machine.slow_down)


@dataclass(slots=True)
class _Request:
    """A request and its outcome; `first_exit_s` and `answer_s` count from its arrival."""

    drawn: DrawnRequest
    job: JobState
    replica: _Replica | None = None
    used_s: float = 0.0
    lost_s: float = 0.0
    first_exit_s: float | None = None
    answer_s: float | None = None
    outcome: Ending | Rejected | None = None


@dataclass(slots=True)
class _Run:
    """A run that an executor computes; the step to exit `stage` began at `started_s`."""

    request: _Request
    stage: int
    limits: RunLimits
    step: DrawnStep
    started_s: float = 0.0
    run_s: float = 0.0
    decode_s: float = 0.0
    network_s: float = 0.0

    @property
    def ends_s(self) -> float:
        """When the stage will have ended by itself."""
        return self.started_s + self.run_s + self.decode_s + self.network_s

    def stop_s(self, now: float) -> float:
        """From when on the stage is to be stopped."""
        return self.limits.stop_at_s if self.stage in self.limits.path else now


@dataclass(slots=True, eq=False)
class _Replica:
    """An executor, its scheduler and what it computes; stages take `factor` times as long.

    It was there from `born_s` to `gone_s`, its start and its last requests included.
    """

    scheduler: Scheduler
    factor: float = 1.0
    run: _Run | None = None
    wakes_s: float = math.inf
    born_s: float = 0.0
    gone_s: float = math.inf
    is_dead: bool = False
    requests: dict[str, _Request] = field(default_factory=dict)


class _Kind(Enum):
    """Kinds of events, in the order in which those of one moment are handled."""

    STAGE_ENDS = auto()
    ARRIVAL = auto()
    LEAVES = auto()
    WAKE = auto()
    CHECK = auto()
    STARTS = auto()
    FAILS = auto()
    DECIDES = auto()


@dataclass(frozen=True, slots=True)
class _Event:
    """Something that happens to a request, to a replica, or to one stage of a run on it."""

    kind: _Kind
    request: _Request | None = None
    replica: _Replica | None = None
    stage: tuple[_Run, int] | None = None


class _Simulation:
    def __init__(self, config: SimulationConfig) -> None:
        self.config = config
        self.size = config.profile.sizes[0]
        drawn = draw(config.profile, config.traffic, config.machine, config.duration_s, config.seed)
        self.requests = {request.id: _Request(request, self._job(request)) for request in drawn}
        self.order = itertools.count()
        self.events: list[tuple[float, int, int, _Event]] = []
        self.now = self.busy_s = 0.0
        self.rng = random.Random(config.seed)  # noqa: S311  (of failures)
        self.autoscaler = Autoscaler(config.changes, config.replicas)
        self.target = config.replicas
        self.replicas: list[_Replica] = []
        self.routed: list[_Replica] = []
        for _ in range(config.replicas):
            self._add(0.0, 0.0)

    def _scheduler(self) -> Scheduler:
        """A scheduler that knows the profile, but neither the machine nor the requests."""
        config = self.config
        costs = CostModel(
            [config.profile],
            decode={"image/jpeg": config.machine.decode},
            encode={"png": config.machine.encode},
        )
        return Scheduler(costs, config.strategy.policy, config.server_budget, config.settings)

    def _job(self, drawn: DrawnRequest) -> JobState:
        requested = Budget()
        if drawn.deadline_s < math.inf:
            requested = Budget(deadline_ms=(drawn.deadline_s - drawn.arrival_s) * 1e3)
        return JobState(
            id=drawn.id,
            model=self.config.profile.model,
            height=self.size.height,
            width=self.size.width,
            arrival_s=drawn.arrival_s,
            budget=self.config.strategy.budget(requested),
        )

    def run(self) -> Report:
        for request in self.requests.values():
            self._at(request.drawn.arrival_s, _Event(_Kind.ARRIVAL, request))
        if self.config.changes.most is not None:
            self._at(DECIDE_S, _Event(_Kind.DECIDES))
        while self.events:
            self.now, _, _, event = heapq.heappop(self.events)
            self._handle(event, self.now)
        return self._report()

    def _handle(self, event: _Event, now: float) -> None:
        match event:
            case _Event(_Kind.ARRIVAL, _Request() as request):
                self._arrives(request, now)
            case _Event(_Kind.DECIDES):
                self._decides(now)
            case _Event(_Kind.STARTS | _Kind.FAILS as kind, replica=_Replica() as replica):
                (self.routed.append if kind is _Kind.STARTS else self._fails)(replica)
            case _Event(replica=_Replica(is_dead=True)):
                return
            case _Event(
                _Kind.LEAVES, _Request(replica=_Replica(is_dead=False) as replica) as request
            ):
                self._record(replica.scheduler.cancel(request.job.id), now)
                self._schedule(replica, now)
            case _Event(_Kind.WAKE, replica=_Replica() as replica):
                if replica.wakes_s == now:
                    replica.wakes_s = math.inf
                    self._schedule(replica, now)
            case _Event(kind, replica=_Replica(run=_Run() as run) as replica, stage=stage):
                if stage != (run, run.stage):
                    return  # that stage is not computed any more
                if kind is _Kind.STAGE_ENDS:
                    self._stage_ends(replica, run, now)
                elif now >= run.stop_s(now):
                    self._stage_is_stopped(replica, run, now)

    def _at(self, when_s: float, event: _Event) -> None:
        heapq.heappush(self.events, (when_s, event.kind.value, next(self.order), event))

    def _arrives(self, request: _Request, now: float) -> None:
        drawn = request.drawn
        if not self.routed:
            request.outcome = Rejected(ErrorCode.NOT_READY, "no replica is there", None)
            return
        schedulers = [replica.scheduler for replica in self.routed]
        for chosen in self.config.router(schedulers, request.job, drawn):
            replica = request.replica = self.routed[chosen]
            admission = replica.scheduler.submit(request.job, now)
            if not isinstance(admission, Rejected):
                break
        if isinstance(admission, Rejected):
            request.outcome = admission
            self._note(request, now, 0.0)
        else:
            replica.requests[request.job.id] = request
            if drawn.leaves_s < math.inf:
                self._at(drawn.leaves_s, _Event(_Kind.LEAVES, request))
        self._schedule(replica, now)

    # Replicas that come and go.

    def _add(self, now: float, start_s: float) -> None:
        """Starts a replica."""
        factor = self.config.uneven if len(self.replicas) % 2 else 1.0
        replica = _Replica(self._scheduler(), factor, born_s=now)
        self.replicas.append(replica)
        if not start_s:
            self.routed.append(replica)
        elif now + start_s < self.config.duration_s:
            self._at(now + start_s, _Event(_Kind.STARTS, replica=replica))
        mean_s = self.config.changes.failure_s
        if mean_s < math.inf:
            fails_s = now + start_s + self.rng.expovariate(1.0 / mean_s)
            if fails_s < self.config.duration_s:
                self._at(fails_s, _Event(_Kind.FAILS, replica=replica))

    def _fails(self, replica: _Replica) -> None:
        """A replica dies with what it has, and another is started."""
        if replica not in self.routed:
            return
        now = self.now
        self.routed.remove(replica)
        replica.run, replica.wakes_s = None, math.inf
        replica.gone_s, replica.is_dead = now, True
        for request in replica.requests.values():
            request.outcome = JobFailed(request.job.id, ErrorCode.INTERNAL, "it died", 0.0)
        self._add(now, self.config.changes.start_s)

    def _decides(self, now: float) -> None:
        """Has as many replicas as the autoscaler wants."""
        target = self.autoscaler.target(now, len(self.routed), self.target)
        for _ in range(target - self.target):
            self._add(now, self.config.changes.start_s)
        for _ in range(self.target - target):
            leaving = self.routed.pop()
            leaving.gone_s = now + leaving.scheduler.load_s
        self.target = target
        if now + DECIDE_S < self.config.duration_s:
            self._at(now + DECIDE_S, _Event(_Kind.DECIDES))

    def _note(self, request: _Request, now: float, quality: float) -> None:
        """Tells the autoscaler how good an answer was, of what an idle replica would have given."""
        if self.config.changes.most is None:
            return
        drawn, best = request.drawn, self._oracle_exit(request.drawn)
        if best:
            left = (drawn.deadline_s - now) / (drawn.deadline_s - drawn.arrival_s)
            ratio = quality / self.config.profile.quality[best - 1]
            self.autoscaler.answered(now, min(ratio, 1.0), max(left, 0.0))

    # The engine.

    def _schedule(self, replica: _Replica, now: float) -> None:
        """Asks the scheduler what to do, and gives the executor its limits."""
        while not isinstance(decision := replica.scheduler.decide(now), Wait):
            match decision:
                case EndJob(ending):
                    self._record(ending, now)
                case RunJob(job_id, stage, limits=limits):
                    request, run_s = self.requests[job_id], self.config.machine.run_s
                    step = self._step(request, request.job.exit, stage)
                    replica.run = _Run(request, stage, limits, step, run_s=run_s)
                    self._stage_begins(replica, replica.run, now)
        if decision.until_s is not None and decision.until_s < replica.wakes_s:
            replica.wakes_s = decision.until_s
            self._at(decision.until_s, _Event(_Kind.WAKE, replica=replica))
        if replica.run is not None:
            limits = replica.scheduler.run_limits(now)
            if limits != replica.run.limits:
                replica.run.limits = limits
                self._plan_check(replica, replica.run, now)

    def _record(self, ending: Ending | None, now: float) -> None:
        if ending is None:
            return
        request = self.requests[ending.job_id]
        request.outcome = ending
        if request.replica is not None:
            request.replica.requests.pop(ending.job_id, None)
        match ending:
            case JobFinished(reason=Reason.CANCELLED):
                pass
            case JobFinished(exit=exit_) if exit_:
                self._note(request, now, self.config.profile.quality[exit_ - 1])
            case _:
                self._note(request, now, 0.0)
        if isinstance(ending, JobFinished) and ending.exit and request.replica is not None:
            request.answer_s = self._received_s(request, now)
            costs = request.replica.scheduler.costs
            costs.observe_encode("png", request.job.pixels, request.drawn.encode_s)

    def _received_s(self, request: _Request, now: float) -> float:
        """Time from its arrival to the receipt of a map that was made at this moment."""
        drawn = request.drawn
        return now + drawn.encode_s + self.config.machine.network_s - drawn.arrival_s

    # The executor.

    def _stage_begins(self, replica: _Replica, run: _Run, now: float) -> None:
        drawn = run.request.drawn
        run.started_s = now
        run.decode_s = drawn.decode_s if run.stage == 1 else 0.0
        run.network_s = run.step.base_s * self.config.machine.factor(now) * replica.factor
        event = _Event(_Kind.STAGE_ENDS, replica=replica, stage=(run, run.stage))
        self._at(run.ends_s, event)
        self._plan_check(replica, run, now)

    def _step(self, request: _Request, made: int, exit_: int) -> DrawnStep:
        return request.drawn.step(made, exit_, self.config.profile.first_at_size(exit_))

    def _plan_check(self, replica: _Replica, run: _Run, now: float) -> None:
        """Plans the first check that finds that the stage is to stop; the others change nothing."""
        stop_s = run.stop_s(now)
        if stop_s < run.ends_s:
            check_s = self.config.machine.check_s
            checks = max(math.floor((stop_s - run.started_s) / check_s) + 1, 1)
            event = _Event(_Kind.CHECK, replica=replica, stage=(run, run.stage))
            self._at(run.started_s + checks * check_s, event)

    def _stage_ends(self, replica: _Replica, run: _Run, now: float) -> None:
        request, exit_, scheduler = run.request, run.stage, replica.scheduler
        self._has_computed(run, now)
        if exit_ == 1:
            scheduler.image_decoded(request.job.id, run.decode_s)
        report = run.step.report(exit_, run.network_s, now)
        self._record(scheduler.exit_made(request.job.id, report), now)
        if exit_ == 1 and request.job.exit == 1:
            request.first_exit_s = self._received_s(request, now)
        next_stages = [stage for stage in run.limits.path if stage > exit_]
        if not next_stages:
            self._run_is_over(replica)
            self._record(scheduler.run_ended(request.job.id, 0.0, now), now)
            self._schedule(replica, now)
            return
        run.stage, run.run_s = next_stages[0], 0.0
        run.step = self._step(request, exit_, run.stage)
        self._stage_begins(replica, run, now)
        if run.limits.notify:
            self._schedule(replica, now)

    def _stage_is_stopped(self, replica: _Replica, run: _Run, now: float) -> None:
        self._run_is_over(replica)
        spent_s = self._has_computed(run, now)
        run.request.lost_s += spent_s
        wasted_s = max(spent_s - run.run_s - run.decode_s, 0.0)
        self._record(replica.scheduler.run_ended(run.request.job.id, wasted_s, now), now)
        self._schedule(replica, now)

    def _has_computed(self, run: _Run, now: float) -> float:
        """Notes the seconds that a run has spent on its stage until now, and returns them."""
        spent_s = now - run.started_s
        run.request.used_s += spent_s
        self.autoscaler.computed(now, spent_s)
        self.busy_s += self._counted_s(run.started_s, now)
        return spent_s

    def _run_is_over(self, replica: _Replica) -> None:
        replica.run = None
        if self.config.machine.run_s:
            replica.scheduler.costs.observe_overhead(self.config.machine.run_s)

    # The result.

    def _counted_s(self, begin_s: float, end_s: float) -> float:
        """Seconds between two moments in which arrivals are counted."""
        end_s = min(end_s, self.config.duration_s)
        return max(end_s - max(begin_s, self.config.warm_up_s), 0.0)

    def _report(self) -> Report:
        warm_up_s = self.config.warm_up_s
        counted = [r for r in self.requests.values() if r.drawn.arrival_s >= warm_up_s]
        quality = self.config.profile.quality
        exits = [0] * self.config.profile.exits
        refused: Counter[str] = Counter()
        endings: Counter[str] = Counter()
        failed = late = cancelled = deep = 0
        used_s = lost_s = gained = 0.0
        for request in counted:
            used_s += request.used_s
            lost_s += request.lost_s
            in_time = False
            match request.outcome:
                case Rejected(code=code):
                    refused[code.value] += 1
                case JobFailed():
                    failed += 1
                case JobFinished(reason=reason, exit=exit_):
                    endings[reason.value] += 1
                    if reason is Reason.CANCELLED:
                        cancelled += 1
                    elif request.answer_s is not None:
                        answered_s = request.drawn.arrival_s + request.answer_s
                        in_time = answered_s <= request.drawn.deadline_s
                        late += not in_time
                        if in_time:
                            exits[exit_ - 1] += 1
                            gained += quality[exit_ - 1]
                            deep += exit_ >= self._oracle_exit(request.drawn)
            if not in_time:
                lost_s += request.used_s - request.lost_s
        wanted = max(len(counted) - cancelled, 1)
        replica_s = sum(self._counted_s(one.born_s, one.gone_s) for one in self.replicas)
        return Report(
            strategy=self.config.strategy.name,
            arrivals=len(counted),
            duration_s=self.config.duration_s - warm_up_s,
            replicas=self.config.replicas,
            router=self.config.router.__name__.replace("_", "-"),
            refused=dict(refused),
            failed=failed,
            late=late,
            cancelled=cancelled,
            endings=dict(endings),
            exits=tuple(exits),
            attainment=sum(exits) / wanted,
            quality=gained / wanted,
            deepest=deep / max(sum(exits), 1),
            first_exit_s=percentiles(r.first_exit_s for r in counted),
            answer_s=percentiles(r.answer_s for r in counted),
            busy=self.busy_s / max(replica_s, 1e-9),
            wasted=lost_s / max(used_s, 1e-9),
            replica_s=replica_s,
            died=sum(one.is_dead and one.gone_s >= warm_up_s for one in self.replicas),
        )

    def _oracle_exit(self, drawn: DrawnRequest) -> int:
        """The deepest exit in time if all times are known and no other request is there."""
        return max(self._oracle_exit_along(drawn, way) for way in self.config.profile.ways)

    def _oracle_exit_along(self, drawn: DrawnRequest, way: MeasuredPath) -> int:
        machine, first = self.config.machine, self.config.profile.first_at_size
        now = drawn.arrival_s + machine.run_s + drawn.decode_s
        deepest = 0
        for exit_ in way.exits:
            now += drawn.step(deepest, exit_, first(exit_)).base_s * machine.factor(now)
            if now + drawn.encode_s + machine.network_s > drawn.deadline_s:
                break
            deepest = exit_
        return deepest
