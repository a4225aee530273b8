"""The values of the scheduling core, the terms of a single job, and the core's purity."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import anytime_server.core.jobs as jobs
from anytime_protocol.budget import Budget
from anytime_server.core.costs import CostModel
from anytime_server.core.forecasts import LiveJob, SchedulerSettings, Terms
from anytime_server.core.jobs import Job, StageResult
from anytime_server.core.limits import ServerBudget
from anytime_server.errors import SettingsError
from server.scheduling_fakes import GMACS, STAGE_S, costs, profile, result

PURE = ("jobs", "limits", "costs", "policy", "forecasts", "timeline", "scheduler")
IMPURE = {"time", "asyncio", "threading", "random", "torch", "fastapi", "logging"}


def live_job(model, **limits) -> LiveJob:
    job = Job("a", "toy", 64, 64, 0.0, Budget(**limits))
    stages = model.stages("toy", 64, 64)
    return LiveJob(job=job, stages=stages, budget=job.budget, decoded=True, progress_s=0.0)


@pytest.mark.parametrize("module", PURE)
def test_the_core_knows_no_clock_thread_chance_or_network(module):
    tree = ast.parse((Path(jobs.__file__).parent / f"{module}.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    assert not found & IMPURE


def test_every_value_is_frozen():
    for name, value in vars(jobs).items():
        if dataclasses.is_dataclass(value) and value.__module__ == jobs.__name__:
            assert value.__dataclass_params__.frozen, name
            assert "__slots__" in vars(value), name


def test_a_job_without_wishes_has_no_limits_and_ordinary_urgency():
    job = Job("a", "toy", 64, 64, 0.0)
    assert (job.budget, job.urgency, job.decoded) == (Budget(), 3, False)


def test_looking_ahead_adds_up_time_multiply_adds_and_gain_to_each_exit():
    model = costs()
    terms, live = Terms(model, SchedulerSettings(), True, ServerBudget()), live_job(model)
    terms.look_ahead(live)
    assert [step.exit for step in live.ahead] == [1, 2, 3, 4]
    assert [step.base_s for step in live.ahead] == pytest.approx([0.01, 0.03, 0.07, 0.15])
    assert [step.gmacs for step in live.ahead] == [1.0, 3.0, 7.0, 15.0]
    assert [step.gain for step in live.ahead] == [40.0, 55.0, 65.0, 70.0]
    live.made, live.result = 2, StageResult(0.7, 0.5, 0.4, GMACS[1])
    terms.look_ahead(live)
    assert [step.base_s for step in live.ahead] == pytest.approx([0.030, 0.090])
    assert [step.gain for step in live.ahead] == [10.0, 15.0]


def test_without_measured_quality_the_doubt_that_is_left_is_what_there_is_to_gain():
    model = CostModel([profile(quality=())])
    terms, live = Terms(model, SchedulerSettings(), True, ServerBudget()), live_job(model)
    live.made, live.result = 2, result(2, confidence=0.6)
    terms.look_ahead(live)
    assert [step.gain for step in live.ahead] == pytest.approx([0.2, 0.4])


def test_the_last_start_leaves_time_for_the_stage_the_encoding_and_the_way_back():
    model = costs()
    terms, live = Terms(model, SchedulerSettings(), True, ServerBudget()), live_job(model)
    live.job = dataclasses.replace(live.job, network_s=0.007)
    live.budget = Budget(deadline_ms=100)
    terms.look_ahead(live)
    outlook = terms.outlook(live, 0.0)
    assert outlook.due_s == pytest.approx(0.093, abs=1e-6)
    assert outlook.latest_start_s == pytest.approx(0.093 - STAGE_S[0], abs=1e-4)


def test_the_outlook_is_worked_out_anew_only_when_something_changed():
    model = costs()
    terms, live = Terms(model, SchedulerSettings(), True, ServerBudget()), live_job(model)
    terms.look_ahead(live)
    first = terms.outlook(live, 0.0)
    assert terms.outlook(live, 1.0) is first
    model.observe_stage(0.01, 0.02)
    slower = terms.outlook(live, 1.0)
    assert slower.needs.mean_s > first.needs.mean_s
    terms.set_budget(ServerBudget(limits=Budget(max_exit=2)), 1.0, 0.0)
    assert terms.outlook(live, 1.0).limits.max_exit == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_jobs": 0},
        {"sigmas": -1.0},
        {"sigmas": float("nan")},
        {"reaction_s": float("inf")},
        {"patience_s": 0.0},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(SettingsError) as error:
        SchedulerSettings(**wrong)
    assert error.value.field in wrong
