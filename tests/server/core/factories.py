"""A model of four stages with round costs, and jobs, reports and schedulers for it."""

from anytime_protocol.budget import Budget
from anytime_protocol.enums import ScheduleClock
from anytime_protocol.resources import LoadCap, ServerBudget
from anytime_server.core.costs import CostModel, MeasuredPath, ModelProfile, SideCost, SizeProfile
from anytime_server.core.decisions import ExitReport
from anytime_server.core.jobs import JobState
from anytime_server.core.policy import Candidate, Policy, Step
from anytime_server.core.scheduler import Scheduler
from anytime_server.core.settings import SchedulerSettings
from anytime_server.core.stage_costs import StageCost

MODEL = "toy"
STAGE_S = (0.010, 0.020, 0.040, 0.080)
"""Base time of each stage with all positions active; half of it is fixed from stage 2 on."""
GMACS = (1.0, 2.0, 4.0, 8.0)
FREE = SideCost(fixed_s=1e-9, per_mpx_s=0.0)


def profile(**changes: object) -> ModelProfile:
    stages = tuple(
        StageCost(s if k == 0 else s / 2, 0.0 if k == 0 else s / 2, fixed_gmacs=g)
        for k, (s, g) in enumerate(zip(STAGE_S, GMACS, strict=True))
    )
    values = {"quality": (40.0, 55.0, 65.0, 70.0)} | changes
    return ModelProfile(MODEL, (SizeProfile(64, 64, stages),), **values)


LADDER_GAIN = {1: 40.0, 2: 46.0, 3: 52.0, 4: 53.0, 5: 55.0, 6: 58.0, 7: 61.0, 8: 62.0}
"""Quality of the exits of the ladder when all are made; leaving the small size early costs some."""


def ladder_path(exits: tuple[int, ...]) -> MeasuredPath:
    missed = 4 - max(exit_ for exit_ in exits if exit_ <= 4)
    loss = {5: 1.0, 6: 0.7, 7: 0.2, 8: 0.2}
    quality = tuple(LADDER_GAIN[k] - missed * loss.get(k, 0.0) for k in exits)
    return MeasuredPath(exits, quality)


def ladder_profile(**changes: object) -> ModelProfile:
    """The model of `profile` on a ladder: stages 1 to 4 cost a quarter of stages 5 to 8."""
    full = profile().sizes[0].stages
    sizes = (
        SizeProfile(32, 32, tuple(stage.scaled(0.25) for stage in full)),
        SizeProfile(64, 64, full),
    )
    paths = [ladder_path((*range(1, left + 1), 5, 6, 7, 8)) for left in (1, 2, 3, 4)]
    values = {
        "quality": tuple(LADDER_GAIN.values()),
        "sides": (32, 64),
        "paths": tuple(paths),
    } | changes
    return ModelProfile(MODEL, values.pop("sizes", sizes), **values)


EXIT_PART = 0.1
"""Share of a stage that its exit takes, where exits may be left out."""


def skipping_profile(**changes: object) -> ModelProfile:
    """The model of `ladder_profile` whose exits may be left out; masks save part of them."""
    stages = tuple(
        StageCost(0.95 * s, 0.05 * s, 0.9 * g, 0.1 * g, EXIT_PART * s, EXIT_PART * g)
        for s, g in zip(STAGE_S, GMACS, strict=True)
    )
    sizes = (
        SizeProfile(32, 32, tuple(stage.scaled(0.25) for stage in stages)),
        SizeProfile(64, 64, stages),
    )
    direct = [(1, k, 5, 6, 7, 8) for k in (3, 4)] + [(1, 8)] + [(1, k, 8) for k in range(2, 8)]
    paths = (*ladder_profile().paths, *map(ladder_path, direct))
    return ladder_profile(**{"paths": paths} | changes, sizes=sizes)


def costs(model_profile: ModelProfile | None = None) -> CostModel:
    """Predicts the base times, with next to no deviation; decoding and encoding take no time."""
    known = model_profile or profile()
    model = CostModel([known], decode={"image/jpeg": FREE}, encode={"png": FREE})
    for _ in range(200):
        model.observe_stage(0.01, 0.01)
    return model


def scheduler(
    policy: Policy | None = None,
    budget: ServerBudget | None = None,
    settings: SchedulerSettings | None = None,
    profile: ModelProfile | None = None,
) -> Scheduler:
    return Scheduler(costs(profile), policy, budget, settings)


def job(id_: str = "a", now: float = 0.0, urgency: int = 3, **limits: object) -> JobState:
    return JobState(id_, MODEL, 64, 64, now, Budget(**limits), urgency)


def report(
    exit_: int,
    ended_s: float,
    elapsed_s: float | None = None,
    confidence: float | None = None,
    share: float = 1.0,
) -> ExitReport:
    """An exit, by default made in its stage's base time, more confident the deeper it is."""
    sure = 0.5 + 0.1 * exit_ if confidence is None else confidence
    took_s = STAGE_S[exit_ - 1] if elapsed_s is None else elapsed_s
    return ExitReport(exit_, sure, share, sure / 2, GMACS[(exit_ - 1) % 4], took_s, ended_s)


def server_budget(
    *,
    load_caps: tuple[LoadCap, ...] = (),
    floors: tuple[tuple[int, int], ...] = (),
    schedule: tuple[tuple[float, Budget], ...] = (),
    daily: bool = False,
    **limits: object,
) -> ServerBudget:
    clock = ScheduleClock.DAILY if daily else ScheduleClock.ELAPSED
    return ServerBudget(
        **limits, load_caps=load_caps, floors=floors, clock=clock, schedule=schedule
    )


def candidate(
    name: str,
    stage: int = 2,
    arrival_s: float = 0.0,
    due_s: float = 1.0,
    gains: tuple[tuple[float, float], ...] = ((0.1, 10.0),),
    overdue: bool = False,
    urgency: int = 3,
) -> Candidate:
    """A candidate whose stages, from `stage` on, take and gain what `gains` lists."""
    steps, total_s, total = [], 0.0, 0.0
    for exit_, (took_s, gain) in enumerate(gains, start=stage):
        total_s, total = total_s + took_s, total + gain
        steps.append(Step(exit_, total_s, total_s, total))
    return Candidate(name, stage == 1, arrival_s, due_s, overdue, urgency, lambda: tuple(steps))
