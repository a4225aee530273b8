"""A simulated server: the real scheduler, driven by made-up traffic on a made-up machine.

Decides what an executor would have reported, and counts what came of it; everything else is decided
by the very `Scheduler` that serves real requests, on requests drawn by `traffic`. Knows no real
clock: an hour passes in seconds.

Each replica is a machine with its own scheduler and its own requests. A new request goes to the
less loaded of two replicas drawn at random (Mitzenmacher's two choices), as a router without
global knowledge would do. Decoding keeps the executor busy; encoding and the way back do not.

Attainment is counted over all arrivals but those that their own client cancelled, and shown beside
the mean quality over the same requests, a refused, failed or late one counting zero: a server that
refuses much or answers poorly looks as bad as it is (arXiv 2410.14257).
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Reason
from anytime_server.core.costs import CostModel, ModelProfile, SizeProfile
from anytime_server.core.forecasts import SchedulerSettings
from anytime_server.core.jobs import (
    Admitted,
    ExitMade,
    Failed,
    Final,
    Finish,
    Idle,
    Job,
    Outcome,
    Rejected,
    Run,
    Wait,
)
from anytime_server.core.limits import ServerBudget
from anytime_server.core.policy import Policy, QualityPerSecond
from anytime_server.core.scheduler import Scheduler
from anytime_server.errors import SettingsError, StageNotRunningError
from anytime_server.simulation.traffic import Drawn, Machine, Traffic, draw, typical_shares


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """One experiment.

    Attributes:
        profile: the model; its first size is the size of all images, and its quality must be given.
        traffic: the requests.
        policy: the order of work.
        duration_s: time in which requests arrive; all that are admitted are then still served.
        replicas: number of machines.
        seed: of everything drawn.
        machine: the machines.
        settings: the schedulers'.
        server_budget: the operator's B(t).
    """

    profile: ModelProfile
    traffic: Traffic
    policy: Policy = field(default_factory=QualityPerSecond)
    duration_s: float = 3600.0
    replicas: int = 1
    seed: int = 0
    machine: Machine = field(default_factory=Machine)
    settings: SchedulerSettings = field(default_factory=SchedulerSettings)
    server_budget: ServerBudget = field(default_factory=ServerBudget)

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise SettingsError("replicas", str(self.replicas), "at least 1")
        if not self.profile.quality:
            raise SettingsError("profile.quality", "none", "one value per exit, to count quality")
        low, high = self.traffic.deadline_s
        if not 0 < low <= high < math.inf:
            raise SettingsError(
                "traffic.deadline_s", f"{low} to {high}", "0 < shortest <= longest, both finite"
            )


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it.

    Attributes:
        policy: its name.
        arrivals: requests that came, those cancelled by their clients included.
        refused: requests that were refused, by the code they were told.
        failed: admitted requests that got no map in time.
        late: answers that came after their deadline.
        cancelled: requests that their clients gave up, refused ones left out.
        endings: finals by reason.
        exits: answers in time by exit, from exit 1.
        attainment: share of all arrivals, but cancelled ones, answered in time.
        quality: mean quality over the same requests; a refused, failed or late one counts zero.
        deepest: share of the answers in time that are as deep as an oracle would have gone that
            knew all times and had the machine for itself.
        first_exit_s: median, 95th and 99th percentile of the time from arrival to the first map.
        answer_s: the same to the answer.
        busy: share of the time that the executors computed.
        wasted: share of that time that led to nothing a client got in time.
    """

    policy: str
    arrivals: int
    refused: dict[str, int]
    failed: int
    late: int
    cancelled: int
    endings: dict[str, int]
    exits: tuple[int, ...]
    attainment: float
    quality: float
    deepest: float
    first_exit_s: tuple[float, float, float]
    answer_s: tuple[float, float, float]
    busy: float
    wasted: float


_COLUMNS = (
    *("policy", "arrivals", "attained", "quality", "refused", "failed", "late", "mean exit"),
    *("first p50", "first p99", "answer p99", "busy", "wasted"),
)


def simulate(config: SimulationConfig) -> Report:
    """Runs one experiment; the same configuration gives the same report."""
    return _Simulation(config).run()


def table(reports: Sequence[Report]) -> str:
    """Reports side by side, as text with aligned columns; times in ms."""
    rows = [list(_COLUMNS)]
    for report in reports:
        served = sum(report.exits)
        depth = sum(exit_ * n for exit_, n in enumerate(report.exits, start=1))
        rows.append(
            [
                report.policy,
                str(report.arrivals),
                f"{report.attainment:.2%}",
                f"{report.quality:.2f}",
                str(sum(report.refused.values())),
                str(report.failed),
                str(report.late),
                f"{depth / served:.2f}" if served else "-",
                f"{report.first_exit_s[0] * 1e3:.0f}",
                f"{report.first_exit_s[2] * 1e3:.0f}",
                f"{report.answer_s[2] * 1e3:.0f}",
                f"{report.busy:.1%}",
                f"{report.wasted:.1%}",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def full_depth_hz(profile: ModelProfile, machine: Machine | None = None) -> float:
    """Requests a second that one replica can take to the last exit, at typical active shares."""
    machine = machine or Machine()
    size = profile.sizes[0]
    shares = typical_shares(profile)
    base_s = sum(stage.seconds(s) for stage, s in zip(size.stages, shares, strict=True))
    decode_s = machine.decode.seconds(size.height * size.width)
    return 1.0 / (decode_s + base_s * machine.slow_down)


@dataclass(slots=True)
class _Request:
    """What becomes of a request."""

    drawn: Drawn
    replica: int = -1
    used_s: float = 0.0
    lost_s: float = 0.0
    first_exit_s: float | None = None
    answer_s: float | None = None
    outcome: Final | Failed | Rejected | None = None


class _Kind(Enum):
    """What happens; in the order in which things at one moment happen."""

    STAGE_ENDS = auto()
    ARRIVAL = auto()
    LEAVES = auto()
    LOOK = auto()
    STOPS = auto()


@dataclass(slots=True)
class _Replica:
    scheduler: Scheduler
    request: _Request | None = None
    stage: int = 0
    started_s: float = 0.0
    decode_s: float = 0.0
    network_s: float = 0.0
    turn: int = 0
    looks_s: float = math.inf


class _Simulation:
    def __init__(self, config: SimulationConfig) -> None:
        self.config = config
        self.size: SizeProfile = config.profile.sizes[0]
        self.pixels = self.size.height * self.size.width
        requests = draw(
            config.profile, config.traffic, config.machine, config.duration_s, config.seed
        )
        self.requests = {drawn.id: _Request(drawn) for drawn in requests}
        self.replicas = [_Replica(self._scheduler()) for _ in range(config.replicas)]
        self.order = itertools.count()
        self.events: list[tuple[float, int, int, _Kind, Any]] = []
        self.end_s = 0.0

    def _scheduler(self) -> Scheduler:
        """A scheduler that knows the profile, but neither the machine nor the requests."""
        config = self.config
        costs = CostModel(
            [config.profile],
            decode={"image/jpeg": config.machine.decode},
            encode={"png": config.machine.encode},
        )
        return Scheduler(costs, config.policy, config.server_budget, config.settings)

    def run(self) -> Report:
        for request in self.requests.values():
            self._at(request.drawn.arrival_s, _Kind.ARRIVAL, request)
        while self.events:
            now, _, _, kind, subject = heapq.heappop(self.events)
            self.end_s = now
            match kind:
                case _Kind.ARRIVAL:
                    replica = self._arrives(subject, now)
                case _Kind.LEAVES:
                    replica = self.replicas[subject.replica]
                    self._record(replica.scheduler.cancel(subject.drawn.id, now), now)
                case _Kind.STAGE_ENDS:
                    replica, turn = subject
                    if turn != replica.turn:
                        continue
                    self._stage_ends(replica, now)
                case _Kind.STOPS:
                    replica, turn = subject
                    if turn != replica.turn:
                        continue
                    self._stops(replica, now)
                case _Kind.LOOK:
                    replica = subject
                    if replica.looks_s == now:
                        replica.looks_s = math.inf
            self._pump(replica, now)
        return self._report()

    def _at(self, when_s: float, kind: _Kind, subject: object) -> None:
        heapq.heappush(self.events, (when_s, kind.value, next(self.order), kind, subject))

    def _arrives(self, request: _Request, now: float) -> _Replica:
        request.replica = min(
            (int(choice * len(self.replicas)) for choice in request.drawn.choices),
            key=lambda index: self.replicas[index].scheduler.load_s,
        )
        replica = self.replicas[request.replica]
        deadline = request.drawn.deadline_s - request.drawn.arrival_s
        budget = Budget() if deadline == math.inf else Budget(deadline_ms=deadline * 1e3)
        job = Job(
            id=request.drawn.id,
            model=self.config.profile.model,
            height=self.size.height,
            width=self.size.width,
            arrival_s=now,
            budget=budget,
            network_s=self.config.machine.network_s,
        )
        match replica.scheduler.submit(job, now):
            case Admitted():
                if request.drawn.leaves_s < math.inf:
                    self._at(request.drawn.leaves_s, _Kind.LEAVES, request)
            case Rejected() as rejected:
                request.outcome = rejected
        return replica

    def _pump(self, replica: _Replica, now: float) -> None:
        """What the engine loop of a real server does after each event."""
        self._stop_if_told(replica, now)
        while True:
            match replica.scheduler.decide(now):
                case Finish(ending):
                    self._record([ending], now)
                case Run(job_id, stage, stop_at_s=stop_at_s):
                    self._starts(replica, self.requests[job_id], stage, stop_at_s, now)
                case Wait(until_s):
                    if until_s is not None and until_s < replica.looks_s:
                        replica.looks_s = until_s
                        self._at(until_s, _Kind.LOOK, replica)
                    return
                case Idle():
                    return

    def _starts(
        self, replica: _Replica, request: _Request, stage: int, stop_at_s: float, now: float
    ) -> None:
        replica.request, replica.stage, replica.started_s = request, stage, now
        replica.decode_s = request.drawn.decode_s if stage == 1 else 0.0
        replica.network_s = request.drawn.stage_s[stage - 1] * self.config.machine.factor(now)
        replica.turn += 1
        ends_s = now + replica.decode_s + replica.network_s
        self._at(ends_s, _Kind.STAGE_ENDS, (replica, replica.turn))
        if stop_at_s < ends_s:
            self._at(self._next_check_s(replica, stop_at_s), _Kind.STOPS, (replica, replica.turn))

    def _stop_if_told(self, replica: _Replica, now: float) -> None:
        """An executor asks between two modules; only the moments that matter are simulated."""
        request = replica.request
        if request is not None and replica.scheduler.should_stop(request.drawn.id, now):
            self._at(self._next_check_s(replica, now), _Kind.STOPS, (replica, replica.turn))

    def _next_check_s(self, replica: _Replica, now: float) -> float:
        check_s = self.config.machine.check_s
        checks = math.floor((now - replica.started_s) / check_s) + 1
        return replica.started_s + max(checks, 1) * check_s

    def _stage_ends(self, replica: _Replica, now: float) -> None:
        request, stage = self._free(replica, now)
        if stage == 1:
            replica.scheduler.decoded(request.drawn.id, replica.decode_s)
        result = request.drawn.results[stage - 1]
        outcomes = replica.scheduler.complete(
            request.drawn.id, stage, replica.network_s, result, now
        )
        self._record(outcomes, now)

    def _stops(self, replica: _Replica, now: float) -> None:
        running = replica.request
        if running is None or replica.scheduler.should_stop(running.drawn.id, now) is None:
            return
        request, stage = self._free(replica, now)
        request.lost_s += now - replica.started_s
        spent_s = max(now - replica.started_s - replica.decode_s, 0.0)
        self._record(replica.scheduler.abandon(request.drawn.id, stage, spent_s, now), now)

    def _free(self, replica: _Replica, now: float) -> tuple[_Request, int]:
        request = replica.request
        if request is None:
            raise StageNotRunningError("none", replica.stage, "this replica is idle")
        request.used_s += now - replica.started_s
        replica.request = None
        replica.turn += 1
        return request, replica.stage

    def _record(self, outcomes: Sequence[Outcome], now: float) -> None:
        for outcome in outcomes:
            request = self.requests[outcome.job_id]
            back_s = request.drawn.encode_s + self.config.machine.network_s
            match outcome:
                case ExitMade(exit=1):
                    request.first_exit_s = now + back_s - request.drawn.arrival_s
                case Final(exit=exit_):
                    request.outcome = outcome
                    if exit_:
                        request.answer_s = now + back_s - request.drawn.arrival_s
                        costs = self.replicas[request.replica].scheduler.costs
                        costs.observe_encode("png", self.pixels, request.drawn.encode_s)
                case Failed():
                    request.outcome = outcome
                case ExitMade():
                    continue

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
                case Failed():
                    failed += 1
                case Final(reason=reason, exit=exit_):
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
                            deep += exit_ >= self._oracle_exit(request)
            if not in_time:
                lost_s += request.used_s - request.lost_s
        asked = max(len(self.requests) - cancelled, 1)
        return Report(
            policy=self.config.policy.name,
            arrivals=len(self.requests),
            refused=dict(refused),
            failed=failed,
            late=late,
            cancelled=cancelled,
            endings=dict(endings),
            exits=tuple(exits),
            attainment=sum(exits) / asked,
            quality=gained / asked,
            deepest=deep / max(sum(exits), 1),
            first_exit_s=_percentiles(r.first_exit_s for r in self.requests.values()),
            answer_s=_percentiles(r.answer_s for r in self.requests.values()),
            busy=used_s / max(self.end_s * len(self.replicas), 1e-9),
            wasted=lost_s / max(used_s, 1e-9),
        )

    def _oracle_exit(self, request: _Request) -> int:
        """The exit that fits when all times are known and nobody else is there."""
        machine, now = self.config.machine, request.drawn.arrival_s + request.drawn.decode_s
        deepest = 0
        for exit_, base_s in enumerate(request.drawn.stage_s, start=1):
            now += base_s * machine.factor(now)
            if now + request.drawn.encode_s + machine.network_s > request.drawn.deadline_s:
                break
            deepest = exit_
        return deepest


def _percentiles(values: Iterator[float | None]) -> tuple[float, float, float]:
    """Median, 95th and 99th percentile, by the nearest rank; NaN where there is nothing."""
    ranked = sorted(value for value in values if value is not None)
    if not ranked:
        return (math.nan, math.nan, math.nan)
    p50, p95, p99 = (
        ranked[max(math.ceil(share * len(ranked)) - 1, 0)] for share in (0.50, 0.95, 0.99)
    )
    return (p50, p95, p99)
