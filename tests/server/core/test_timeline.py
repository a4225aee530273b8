"""The timeline of mandatory stages, compared with every other order."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_server.core.slow_down import Prediction
from anytime_server.core.timeline import MandatoryStage, lateness_s, slack_s

NOTHING = Prediction(0.0, 0.0)


def stage(due_s: float, mean_s: float, sigma_s: float = 0.0) -> MandatoryStage:
    return MandatoryStage(due_s, due_s, Prediction(mean_s, sigma_s))


STAGES = st.lists(st.builds(stage, st.floats(0.1, 3.0), st.floats(0.01, 1.0)), max_size=5)


def test_without_mandatory_stages_slack_is_infinite():
    assert slack_s([], 5.0, 2.0) == math.inf


def test_the_tightest_due_time_decides_the_slack():
    stages = [stage(10.0, 1.0), stage(3.0, 1.0), stage(3.5, 1.0)]
    assert slack_s(stages, now=0.0, sigmas=0.0) == pytest.approx(1.5)


def test_margins_add_up_along_the_line():
    stages = [stage(3.0, 1.0, 0.1), stage(3.0, 1.0, 0.1)]
    assert slack_s(stages, now=0.0, sigmas=2.0) == pytest.approx(0.6)


def test_a_stage_without_deadline_takes_time_in_its_place_but_is_never_late():
    patient = MandatoryStage(order_s=1.0, due_s=math.inf, needs=Prediction(2.0, 0.0))
    assert slack_s([patient], 0.0, 0.0) == math.inf
    assert slack_s([patient, stage(4.0, 1.0)], 0.0, 0.0) == pytest.approx(1.0)


def test_a_stage_that_is_late_anyway_does_not_count_against_a_new_one():
    late = stage(0.5, 1.0)
    new = stage(0.4, 0.1)
    assert lateness_s(new, [late], NOTHING, 0.0, 0.0) == pytest.approx(-0.3)


def test_a_busy_machine_delays_every_stage():
    assert lateness_s(stage(1.0, 0.5), [], Prediction(0.8, 0.0), 0.0, 0.0) == pytest.approx(0.3)


@given(STAGES)
def test_if_any_order_is_in_time_this_one_is(stages):
    def in_time(order):
        ends = itertools.accumulate(each.needs.mean_s for each in order)
        return all(end <= each.due_s for end, each in zip(ends, order, strict=True))

    if any(in_time(order) for order in itertools.permutations(stages)):
        assert slack_s(stages, 0.0, 0.0) >= -1e-9


@given(STAGES, st.builds(stage, st.floats(0.1, 3.0), st.floats(0.01, 1.0)))
def test_what_was_in_time_stays_so_when_the_new_one_is_taken(stages, new):
    if slack_s(stages, 0.0, 0.0) >= 0 and lateness_s(new, stages, NOTHING, 0.0, 0.0) <= 0:
        assert slack_s([*stages, new], 0.0, 0.0) >= 0
