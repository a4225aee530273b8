"""A small model with round costs, jobs for it, and an executor that keeps to predicted times."""

from __future__ import annotations

from anytime_protocol.budget import Budget
from anytime_server.core.costs import CostModel, ModelProfile, SideCost, SizeProfile, StageCost
from anytime_server.core.forecasts import SchedulerSettings
from anytime_server.core.jobs import Ending, ExitMade, Finish, Idle, Job, Run, StageResult, Wait
from anytime_server.core.limits import ServerBudget
from anytime_server.core.policy import Policy
from anytime_server.core.scheduler import Scheduler

MODEL = "toy"
STAGE_S = (0.010, 0.020, 0.040, 0.080)
"""Base time of each stage with all pixels active; half of it is fixed from stage 2 on."""
GMACS = (1.0, 2.0, 4.0, 8.0)
FREE = SideCost(fixed_s=1e-9, per_mpx_s=0.0)


def profile(**changes: object) -> ModelProfile:
    stages = tuple(
        StageCost(s if k == 0 else s / 2, 0.0 if k == 0 else s / 2, fixed_gmacs=g)
        for k, (s, g) in enumerate(zip(STAGE_S, GMACS, strict=True))
    )
    values = {"quality": (40.0, 55.0, 65.0, 70.0)} | changes
    return ModelProfile(MODEL, (SizeProfile(64, 64, stages),), **values)


def costs() -> CostModel:
    """Knows its own mind: predictions are the base times, with next to no deviation."""
    model = CostModel([profile()], decode={"image/jpeg": FREE}, encode={"png": FREE})
    for _ in range(200):
        model.observe_stage(0.01, 0.01)
    return model


def scheduler(
    policy: Policy | None = None,
    budget: ServerBudget | None = None,
    settings: SchedulerSettings | None = None,
) -> Scheduler:
    return Scheduler(costs(), policy, budget, settings)


def job(id_: str = "a", now: float = 0.0, **limits: object) -> Job:
    return Job(id_, MODEL, 64, 64, now, Budget(**limits))


def result(stage: int, confidence: float | None = None, share: float = 1.0) -> StageResult:
    sure = 0.5 + 0.1 * stage if confidence is None else confidence
    return StageResult(sure, share, sure / 2, GMACS[stage - 1])


def run_until_idle(
    scheduler: Scheduler, now: float, steps: int = 10_000
) -> tuple[list[tuple[float, Run]], dict[str, tuple[float, Ending]], float]:
    """Computes all that is to be computed, each stage in its base time; nothing new comes.

    Returns:
        The stages that ran with their start times, each job's end with its time, and the last time.
    """
    runs: list[tuple[float, Run]] = []
    endings: dict[str, tuple[float, Ending]] = {}

    def end(ending: Ending) -> None:
        assert ending.job_id not in endings
        endings[ending.job_id] = (now, ending)

    for _ in range(steps):
        match scheduler.decide(now):
            case Run() as run:
                runs.append((now, run))
                took_s = STAGE_S[run.stage - 1]
                now += took_s
                outcomes = scheduler.complete(run.job_id, run.stage, took_s, result(run.stage), now)
                for outcome in outcomes:
                    if not isinstance(outcome, ExitMade):
                        end(outcome)
            case Finish(ending):
                end(ending)
            case Wait(until_s):
                assert until_s is not None
                assert until_s > now
                now = until_s
            case Idle():
                return runs, endings, now
    raise AssertionError(f"not idle after {steps} steps")
