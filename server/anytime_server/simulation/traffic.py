"""Simulated traffic and machines: everything that is drawn at random in a simulation.

When requests arrive, what their images are like, how long each of their stages takes and when their
clients leave: all is drawn from one seed before the first event, so that every strategy is given
the same requests, and two runs differ only in what the strategies did.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from anytime_server.core.costs import ModelProfile, SideCost
from anytime_server.core.decisions import ExitReport
from anytime_server.core.stage_costs import StageCost


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent requests, `rate_hz` of them a second on average."""

    rate_hz: float


@dataclass(frozen=True, slots=True)
class Bursty:
    """Poisson traffic that switches between two rates, staying exponentially long in each.

    Attributes:
        calm_hz: rate between bursts.
        burst_hz: rate in a burst.
        calm_s: mean time between bursts.
        burst_s: mean length of a burst.
    """

    calm_hz: float
    burst_hz: float
    calm_s: float = 20.0
    burst_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Wave:
    """Poisson traffic whose rate rises from nothing to twice its mean and falls again.

    Attributes:
        rate_hz: mean rate.
        period_s: of a wave.
    """

    rate_hz: float
    period_s: float


@dataclass(frozen=True, slots=True)
class Replay:
    """Recorded arrivals, in seconds from the start; those after the end are left out."""

    times_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Cameras:
    """Cameras that each send an image every `1 / hz` seconds, beginning at a moment of its own.

    Attributes:
        count: of cameras.
        hz: images a second of each.
        jitter: how far an image is early or late at most, as a share of that time.
    """

    count: int
    hz: float
    jitter: float = 0.1


Arrivals = Poisson | Bursty | Wave | Replay | Cameras


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the requests are like.

    Attributes:
        arrivals: when they come.
        deadline_s: shortest and longest deadline; each request's is drawn uniformly between.
        without_deadline: share of the requests that have none.
        cancelled: share of the requests whose client leaves, at a moment drawn uniformly
            between the arrival and the longest deadline.
        spread: how much images differ. The active share of an image is the typical one to the power
            of `exp(gauss(0, spread))`, at all its exits alike.
    """

    arrivals: Arrivals
    deadline_s: tuple[float, float]
    without_deadline: float = 0.0
    cancelled: float = 0.0
    spread: float = 0.3


@dataclass(frozen=True, slots=True)
class Machine:
    """The true speed of the executors, which the schedulers do not know.

    Attributes:
        jitter: standard deviation of the logarithm of each stage's time.
        slow_down: how many times slower than profiled the machine is on average.
        swing: amplitude of a slow wave on top of it, as a share.
        swing_period_s: length of that wave.
        check_s: time between two checks whether a stage is to stop.
        decode: true cost of decoding.
        encode: true cost of encoding.
        network_s: time from the server to the client; schedulers know it only by `reserve_s`.
        run_s: what a run takes beside the network and decoding; schedulers learn it.
    """

    jitter: float = 0.05
    slow_down: float = 1.0
    swing: float = 0.0
    swing_period_s: float = 300.0
    check_s: float = 0.004
    decode: SideCost = field(default_factory=SideCost)
    encode: SideCost = field(default_factory=SideCost)
    network_s: float = 0.0
    run_s: float = 0.0

    def factor(self, now: float) -> float:
        """How many times slower than profiled it is at a moment."""
        wave = math.sin(2.0 * math.pi * now / self.swing_period_s)
        return self.slow_down * (1.0 + self.swing * wave)


@dataclass(frozen=True, slots=True)
class DrawnStage:
    """One stage of one request.

    Attributes:
        cost: its base cost.
        noise: factor on its base time.
        share: share of the positions that it starts with, 0 to 1, unless it is the first at its
            size.
        active_share: share of the positions that are active after it, 0 to 1.
    """

    cost: StageCost
    noise: float
    share: float
    active_share: float


@dataclass(frozen=True, slots=True)
class DrawnStep:
    """The way from one exit of one request to the next that is made.

    Attributes:
        base_s: time that it takes on a machine as fast as profiled.
        gmacs: 1e9 multiply-adds.
        active_share: share of the positions that are active after it, 0 to 1.
    """

    base_s: float
    gmacs: float
    active_share: float

    def report(self, exit_: int, elapsed_s: float, ended_s: float) -> ExitReport:
        """What an executor reports when it has computed it."""
        return ExitReport(
            exit=exit_,
            confidence=1.0 - 0.5 * self.active_share,
            active_share=self.active_share,
            confident_share=1.0 - self.active_share,
            gmacs=self.gmacs,
            elapsed_s=elapsed_s,
            ended_s=ended_s,
        )


@dataclass(frozen=True, slots=True)
class DrawnRequest:
    """One request, with all that is unknown before it is computed.

    Attributes:
        number: from 0, in order of arrival.
        arrival_s: when it comes.
        deadline_s: moment at which its answer is due; infinity without a deadline.
        leaves_s: moment at which its client leaves; infinity for one that stays.
        choices: two numbers in [0, 1) with which a router picks replicas.
        stages: what each stage takes and finds.
        decode_s: time that decoding takes.
        encode_s: time that encoding takes.
    """

    number: int
    arrival_s: float
    deadline_s: float
    leaves_s: float
    choices: tuple[float, float]
    stages: tuple[DrawnStage, ...]
    decode_s: float
    encode_s: float

    @property
    def id(self) -> str:
        """Its number, as text."""
        return str(self.number)

    def step(self, made: int, exit_: int, first: int) -> DrawnStep:
        """What a step takes and finds.

        Args:
            made: exit that it starts from, 0 for none.
            exit_: that it leads to.
            first: the first exit at that one's size.
        """
        end = self.stages[exit_ - 1]
        before = self.stages[max(made, first - 1) : exit_ - 1]
        share = end.share if made >= first else 1.0
        return DrawnStep(
            end.cost.seconds(share) * end.noise + sum(s.cost.features_s * s.noise for s in before),
            end.cost.gmacs(share) + sum(s.cost.features_gmacs for s in before),
            end.active_share,
        )


def draw(
    profile: ModelProfile, traffic: Traffic, machine: Machine, duration_s: float, seed: int
) -> Iterator[DrawnRequest]:
    """All requests that arrive within `duration_s`, in order; images are of the first size."""
    rng = random.Random(seed)  # noqa: S311
    size, costs, shares = profile.sizes[0], image_stages(profile), typical_shares(profile)
    pixels = size.height * size.width
    low_s, high_s = traffic.deadline_s
    for number, arrival_s in enumerate(arrival_times(traffic.arrivals, duration_s, rng)):
        deadline_s = arrival_s + rng.uniform(low_s, high_s)
        if rng.random() < traffic.without_deadline:
            deadline_s = math.inf
        leaves_s = math.inf
        if rng.random() < traffic.cancelled:
            leaves_s = arrival_s + rng.uniform(0.0, high_s)
        ease = math.exp(rng.gauss(0.0, traffic.spread))
        active = [share**ease for share in (*shares, shares[-1])]
        stages = tuple(
            DrawnStage(
                cost=stage,
                noise=math.exp(rng.gauss(0.0, machine.jitter)),
                share=before,
                active_share=after,
            )
            for stage, before, after in zip(costs, active, active[1:], strict=False)
        )
        yield DrawnRequest(
            number=number,
            arrival_s=arrival_s,
            deadline_s=deadline_s,
            leaves_s=leaves_s,
            choices=(rng.random(), rng.random()),
            stages=stages,
            decode_s=machine.decode.seconds(pixels) * math.exp(rng.gauss(0.0, machine.jitter)),
            encode_s=machine.encode.seconds(pixels) * math.exp(rng.gauss(0.0, machine.jitter)),
        )


def arrival_times(kind: Arrivals, duration_s: float, rng: random.Random) -> Iterator[float]:
    """Moments at which requests come within `duration_s`, in seconds, rising."""
    match kind:
        case Poisson(rate_hz):
            now = rng.expovariate(rate_hz)
            while now < duration_s:
                yield now
                now += rng.expovariate(rate_hz)
        case Bursty(calm_hz, burst_hz, calm_s, burst_s):
            start = 0.0
            phases = itertools.cycle(((calm_hz, calm_s), (burst_hz, burst_s)))
            for rate_hz, mean_s in phases:
                end = start + rng.expovariate(1.0 / mean_s)
                now = start + rng.expovariate(rate_hz)
                while now < min(end, duration_s):
                    yield now
                    now += rng.expovariate(rate_hz)
                start = end
                if start >= duration_s:
                    return
        case Wave(rate_hz, period_s):
            now = rng.expovariate(2.0 * rate_hz)
            while now < duration_s:
                if rng.random() < 0.5 - 0.5 * math.cos(2.0 * math.pi * now / period_s):
                    yield now
                now += rng.expovariate(2.0 * rate_hz)
        case Cameras(count, hz, jitter):
            begins = [rng.random() for _ in range(count)]
            images = range(int(duration_s * hz) + 1)
            moments = (n + b + rng.uniform(-jitter, jitter) for b in begins for n in images)
            yield from sorted(now for each in moments if 0.0 <= (now := each / hz) < duration_s)
        case Replay(times_s):
            yield from (time_s for time_s in sorted(times_s) if 0.0 <= time_s < duration_s)


def image_stages(profile: ModelProfile) -> tuple[StageCost, ...]:
    """Base costs of the stages to all exits of an image of a model's first size."""
    size = profile.sizes[0]
    return profile.stages(profile.computed_sizes(size.height, size.width))


def typical_shares(profile: ModelProfile) -> tuple[float, ...]:
    """The active share, 0 to 1, that each stage of a model typically begins with."""
    return profile.typical_share or (1.0,) * profile.exits
