"""A discrete-event simulation of servers: the real scheduler on simulated traffic and machines.

Each replica is an executor with its own `Scheduler` and its own requests: one of several on a
machine, or a machine. A router chooses one for each new request. Decoding keeps the executor busy;
encoding and sending do not.

The executor of a replica behaves like the real one: it computes the stages of a run one after the
other as far as the run's limits allow, and checks from time to time whether the stage that it
computes is to stop. There is no real clock: an hour passes in seconds.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Reason
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
        replicas: number of executors.
        router: chooses one of them for a request.
        uneven: every second replica takes so many times as long, which it has to find out.
        seed: of everything drawn.
        machine: the machines.
        settings: the schedulers'.
        server_budget: the operator's.
    """

    profile: ModelProfile
    traffic: Traffic
    strategy: Strategy = OURS
    duration_s: float = 3600.0
    replicas: int = 1
    router: Router = two_choices
    uneven: float = 1.0
    seed: int = 0
    machine: Machine = field(default_factory=Machine)
    settings: SchedulerSettings = field(default_factory=SchedulerSettings)
    server_budget: ServerBudget = field(default_factory=ServerBudget)

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise SettingsError("replicas", str(self.replicas), "at least 1")
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
    """An executor, its scheduler and what it computes; stages take `factor` times as long."""

    scheduler: Scheduler
    factor: float = 1.0
    run: _Run | None = None
    wakes_s: float = math.inf


class _Kind(Enum):
    """Kinds of events, in the order in which those of one moment are handled."""

    STAGE_ENDS = auto()
    ARRIVAL = auto()
    LEAVES = auto()
    WAKE = auto()
    CHECK = auto()


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
        self.replicas = [
            _Replica(self._scheduler(), config.uneven if number % 2 else 1.0)
            for number in range(config.replicas)
        ]
        self.order = itertools.count()
        self.events: list[tuple[float, int, int, _Event]] = []
        self.end_s = 0.0

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
        while self.events:
            now, _, _, event = heapq.heappop(self.events)
            self.end_s = now
            match event:
                case _Event(_Kind.ARRIVAL, _Request() as request):
                    self._arrives(request, now)
                case _Event(_Kind.LEAVES, _Request(replica=_Replica() as replica) as request):
                    self._record(replica.scheduler.cancel(request.job.id), now)
                    self._schedule(replica, now)
                case _Event(_Kind.WAKE, replica=_Replica() as replica):
                    if replica.wakes_s == now:
                        replica.wakes_s = math.inf
                        self._schedule(replica, now)
                case _Event(kind, replica=_Replica(run=_Run() as run) as replica, stage=stage):
                    if stage != (run, run.stage):
                        continue  # that stage is not computed any more
                    if kind is _Kind.STAGE_ENDS:
                        self._stage_ends(replica, run, now)
                    elif now >= run.stop_s(now):
                        self._stage_is_stopped(replica, run, now)
        return self._report()

    def _at(self, when_s: float, event: _Event) -> None:
        heapq.heappush(self.events, (when_s, event.kind.value, next(self.order), event))

    def _arrives(self, request: _Request, now: float) -> None:
        drawn = request.drawn
        schedulers = [replica.scheduler for replica in self.replicas]
        for chosen in self.config.router(schedulers, request.job, drawn):
            replica = request.replica = self.replicas[chosen]
            admission = replica.scheduler.submit(request.job, now)
            if not isinstance(admission, Rejected):
                break
        if isinstance(admission, Rejected):
            request.outcome = admission
        elif drawn.leaves_s < math.inf:
            self._at(drawn.leaves_s, _Event(_Kind.LEAVES, request))
        self._schedule(replica, now)

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
        request.used_s += now - run.started_s
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
        spent_s = now - run.started_s
        run.request.used_s += spent_s
        run.request.lost_s += spent_s
        wasted_s = max(spent_s - run.run_s - run.decode_s, 0.0)
        self._record(replica.scheduler.run_ended(run.request.job.id, wasted_s, now), now)
        self._schedule(replica, now)

    def _run_is_over(self, replica: _Replica) -> None:
        replica.run = None
        if self.config.machine.run_s:
            replica.scheduler.costs.observe_overhead(self.config.machine.run_s)

    # The result.

    def _report(self) -> Report:
        quality = self.config.profile.quality
        exits = [0] * self.config.profile.exits
        refused: Counter[str] = Counter()
        endings: Counter[str] = Counter()
        failed = late = cancelled = deep = 0
        used_s = lost_s = gained = 0.0
        for request in self.requests.values():
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
        counted = max(len(self.requests) - cancelled, 1)
        return Report(
            strategy=self.config.strategy.name,
            arrivals=len(self.requests),
            duration_s=self.config.duration_s,
            replicas=self.config.replicas,
            router=self.config.router.__name__.replace("_", "-"),
            refused=dict(refused),
            failed=failed,
            late=late,
            cancelled=cancelled,
            endings=dict(endings),
            exits=tuple(exits),
            attainment=sum(exits) / counted,
            quality=gained / counted,
            deepest=deep / max(sum(exits), 1),
            first_exit_s=percentiles(r.first_exit_s for r in self.requests.values()),
            answer_s=percentiles(r.answer_s for r in self.requests.values()),
            busy=used_s / max(self.end_s * len(self.replicas), 1e-9),
            wasted=lost_s / max(used_s, 1e-9),
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
