"""What a single job may do and needs, and when its stages are due."""

import math

import pytest

from anytime_protocol.budget import Budget
from anytime_protocol.resources import LoadCap
from anytime_server.core.costs import CostModel, SideCost
from anytime_server.core.forecasts import Forecaster
from anytime_server.core.limits import ServerLimits
from anytime_server.core.settings import SchedulerSettings
from anytime_server.errors import SettingsError
from server.core.factories import (
    FREE,
    MODEL,
    STAGE_S,
    costs,
    job,
    ladder_profile,
    profile,
    report,
    server_budget,
)


class Case:
    """A forecaster, and a decoded job of it."""

    def __init__(self, model=None, settings=None, **limits):
        self.costs = model or costs()
        self.server = ServerLimits(server_budget())
        self.forecaster = Forecaster(self.costs, settings or SchedulerSettings(), self.server)
        self.job = job(**limits)
        self.job.decoded = True
        self.forecaster.look_ahead(self.job)

    def made(self, exit_, **found):
        self.job.last = report(exit_, 0.0, **found)
        self.job.made = tuple(range(1, exit_ + 1))
        self.forecaster.look_ahead(self.job)
        return self

    def forecast(self, now=0.0):
        return self.forecaster.forecast(self.job, now)


def test_looking_ahead_adds_up_time_multiply_adds_and_gain_to_each_exit():
    case = Case()
    (ahead,) = case.job.paths
    assert [step.exit for step in ahead] == [1, 2, 3, 4]
    assert [step.base_s for step in ahead] == pytest.approx([0.01, 0.03, 0.07, 0.15])
    assert [step.gmacs for step in ahead] == [1.0, 3.0, 7.0, 15.0]
    assert [step.gain for step in ahead] == [40.0, 55.0, 65.0, 70.0]
    (ahead,) = case.made(2, share=0.5).job.paths
    assert [step.base_s for step in ahead] == pytest.approx([0.030, 0.090])
    assert [step.gain for step in ahead] == [10.0, 15.0]
    assert case.made(4).job.paths == ()


def test_a_new_size_is_charged_to_the_exit_that_comes_to_it():
    model = CostModel([ladder_profile(prepare_s_per_px=1e-6)])
    case, known = Case(model), Case(CostModel([ladder_profile()]))
    case.job.prepare_s = model.preparation_s(MODEL, 64, 64)
    case.forecaster.look_ahead(case.job)
    for path, without in zip(case.job.paths, known.job.paths, strict=True):
        more = [step.base_s - other.base_s for step, other in zip(path, without, strict=True)]
        assert more == pytest.approx([0.0 if step.exit < 5 else 64 * 64 * 1e-6 for step in path])
    case.job.decoded = False
    needs = [case.forecaster.needs(case.job, case.job.paths[0][k]).mean_s for k in (0, -1)]
    case.job.prepare_s = (0.0, 0.0)
    less = [case.forecaster.needs(case.job, case.job.paths[0][k]).mean_s for k in (0, -1)]
    assert [a - b for a, b in zip(needs, less, strict=True)] == pytest.approx([32 * 32 * 1e-6] * 2)


def test_without_measured_quality_the_doubt_that_is_left_stands_for_the_gain():
    case = Case(CostModel([profile(quality=())])).made(2, confidence=0.6)
    assert [step.gain for step in case.job.paths[0]] == pytest.approx([0.2, 0.4])


def test_the_latest_start_leaves_time_for_the_stage_the_encoding_and_the_reserve():
    model = CostModel([profile()], {"image/jpeg": FREE}, {"png": SideCost(0.002, 0.0)})
    for _ in range(200):
        model.observe_stage(0.01, 0.01)
        model.observe_encode("png", 64 * 64, 0.002)
    case = Case(model, SchedulerSettings(reserve_s=0.005), deadline_ms=100)
    forecast = case.forecast()
    assert forecast.due_s == forecast.order_s == pytest.approx(0.093, abs=1e-3)
    assert forecast.due_s < forecast.expected_due_s == pytest.approx(0.093, abs=1e-4)
    assert forecast.latest_start_s == pytest.approx(0.093 - STAGE_S[0], abs=1e-4)
    later = case.made(1).forecast()
    assert later.latest_start_s == pytest.approx(later.due_s - STAGE_S[1], abs=1e-3)


def test_decoding_counts_until_it_is_done():
    case = Case(CostModel([profile()], {"image/jpeg": SideCost(0.007, 0.0)}))
    assert case.forecast().needs.mean_s == pytest.approx(0.010)
    case.job.decoded = False
    assert case.forecast().needs.mean_s == pytest.approx(0.017)


def test_a_forecast_is_worked_out_anew_only_when_something_changed():
    case = Case()
    first = case.forecast()
    assert case.forecast(1.0) is first
    for _ in range(3):  # one alone may be an outlier
        case.costs.observe_stage(0.01, 0.02)
    slower = case.forecast(1.0)
    assert slower.needs.mean_s > first.needs.mean_s
    case.server.set_budget(server_budget(max_exit=2), 1.0, 0.0)
    assert case.forecast(1.0).limits.max_exit == 2
    case.job.budget, case.job.rev = Budget(max_exit=1), 1
    assert case.forecast(1.0).limits.max_exit == 1


def test_a_job_without_deadline_is_overdue_when_its_patience_has_ended():
    case = Case(settings=SchedulerSettings(patience_s=0.5)).made(1)
    forecast = case.forecast()
    assert (forecast.due_s, forecast.order_s) == (math.inf, 0.5)
    assert not forecast.is_overdue(0.49)
    assert forecast.is_overdue(0.5)
    assert not Case(deadline_ms=100).made(1).forecast().is_overdue(9.0)
    assert not Case(max_exit=1).made(1).forecast().is_overdue(9.0)


def test_a_lift_counts_only_if_the_next_stage_still_fits_then():
    lifted = ((50.0, Budget(max_exit=4)),)
    in_time = Case(max_exit=1, deadline_ms=90, schedule=lifted).made(1)
    assert in_time.forecaster.lifted_s(in_time.job, 0.02) == pytest.approx(0.05)
    assert in_time.forecaster.lifted_s(in_time.job, 0.06) is None
    too_late = Case(max_exit=1, deadline_ms=69, schedule=lifted).made(1)
    assert too_late.forecaster.lifted_s(too_late.job, 0.02) is None
    not_enough = Case(max_exit=1, schedule=((50.0, Budget(max_exit=1)),)).made(1)
    assert not_enough.forecaster.lifted_s(not_enough.job, 0.02) is None


def test_load_caps_do_not_limit_a_stage_that_is_computed():
    case = Case().made(1)
    case.server.set_budget(server_budget(max_exit=3, load_caps=(LoadCap(1.0, 0.5, 1),)), 0.0, 0.0)
    case.server.observe_load(2.0)
    assert case.forecast().limits.max_exit == 1
    assert case.forecaster.running_limits(case.job, 0.0).max_exit == 3


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
