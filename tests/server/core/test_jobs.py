"""The values of the scheduling core."""

import dataclasses

import pytest

from anytime_protocol.budget import Budget
from anytime_server.core import decisions
from anytime_server.core.decisions import STOP
from anytime_server.core.forecasts import Forecaster
from anytime_server.core.jobs import JobState, StageForecast
from anytime_server.core.limits import ServerLimits, effective_limits
from anytime_server.core.settings import SchedulerSettings
from server.core.factories import costs, job, report, server_budget


def limits_of(**limits):
    server = ServerLimits(server_budget())
    return effective_limits(Budget(**limits), server, arrival_s=0.0, load_cap=float("inf"), now=0.0)


def test_every_decision_is_frozen_and_slotted():
    values = {
        name: value
        for name, value in vars(decisions).items()
        if dataclasses.is_dataclass(value) and value.__module__ == decisions.__name__
    }
    assert len(values) > 6
    assert all(value.__dataclass_params__.frozen for value in values.values())
    assert [name for name, value in values.items() if "__slots__" not in vars(value)] == []


def test_a_job_begins_without_limits_and_with_ordinary_urgency():
    state = JobState("a", "toy", 64, 48, 0.0)
    assert (state.budget, state.urgency, state.decoded) == (Budget(), 3, False)
    assert (state.exit, state.active_share, state.pixels) == (0, 1.0, 64 * 48)


def test_jobs_are_told_apart_by_identity():
    assert job() != job()


def test_a_job_is_satisfied_by_its_confidence_or_by_its_confident_share():
    state = job()
    assert not state.is_satisfied(limits_of(min_confidence=0.0))
    state.last = report(1, 0.01, confidence=0.8)  # share of confident pixels 0.4
    assert state.is_satisfied(limits_of(min_confidence=0.8))
    assert not state.is_satisfied(limits_of(min_confidence=0.81))
    assert state.is_satisfied(limits_of(min_confidence=0.81, confident_share=0.4))
    assert not state.is_satisfied(limits_of())


def test_depth_and_the_sum_of_multiply_adds_allow_a_step():
    state = job()
    state.gmacs = 0.1 + 0.2
    step = StageForecast(2, 0.02, 0.3, 10.0)
    assert state.allows(step, limits_of(compute_gmacs=0.6))  # rounding does not matter
    assert not state.allows(step, limits_of(compute_gmacs=0.59))
    assert state.allows(step, limits_of(max_exit=2))
    assert not state.allows(step, limits_of(max_exit=1))


def test_exit_1_may_always_be_made_and_nothing_after_the_last():
    state = job()
    assert state.may_continue(limits_of(compute_gmacs=0.0))
    state.last = report(4, 0.15)
    assert not state.may_continue(limits_of())


def test_the_work_a_client_wants_ends_at_its_own_cap():
    model = costs()
    for cap, wanted_s in ((None, 0.15), (2, 0.03), (9, 0.15)):
        state = job(max_exit=cap)
        server = ServerLimits(server_budget(max_exit=1))
        Forecaster(model, SchedulerSettings(), server).look_ahead(state)
        assert state.wanted_s() == pytest.approx(wanted_s)


def test_stopping_allows_no_stage():
    assert STOP.last_stage == 0
