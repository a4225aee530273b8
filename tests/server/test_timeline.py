"""The time line of what is owed, against trying every order."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_server.core.costs import Prediction
from anytime_server.core.timeline import Owed, lateness_s, spare_s

NOTHING = Prediction(0.0, 0.0)


def owed(due_s: float, mean_s: float, sigma_s: float = 0.0) -> Owed:
    return Owed(due_s, due_s, Prediction(mean_s, sigma_s))


STAGES = st.lists(st.builds(owed, st.floats(0.1, 3.0), st.floats(0.01, 1.0)), max_size=5)


def test_with_nothing_owed_there_is_all_the_time_in_the_world():
    assert spare_s([], 5.0, 2.0) == math.inf


def test_the_tightest_due_time_decides_how_much_is_to_spare():
    stages = [owed(10.0, 1.0), owed(3.0, 1.0), owed(3.5, 1.0)]
    assert spare_s(stages, now=0.0, sigmas=0.0) == pytest.approx(1.5)


def test_margins_add_up_along_the_line():
    stages = [owed(3.0, 1.0, 0.1), owed(3.0, 1.0, 0.1)]
    assert spare_s(stages, now=0.0, sigmas=2.0) == pytest.approx(0.6)


def test_work_without_deadline_takes_time_in_its_place_but_is_never_late():
    patient = Owed(order_s=1.0, due_s=math.inf, needs=Prediction(2.0, 0.0))
    assert spare_s([patient], 0.0, 0.0) == math.inf
    assert spare_s([patient, owed(4.0, 1.0)], 0.0, 0.0) == pytest.approx(1.0)


def test_what_is_late_anyway_has_no_say_over_what_is_new():
    doomed = owed(0.5, 1.0)
    new = owed(0.4, 0.1)
    assert lateness_s(new, [doomed], NOTHING, 0.0, 0.0) == pytest.approx(-0.3)


def test_a_busy_machine_delays_all():
    assert lateness_s(owed(1.0, 0.5), [], Prediction(0.8, 0.0), 0.0, 0.0) == pytest.approx(0.3)


@given(STAGES)
def test_if_any_order_is_in_time_this_one_is(stages):
    def in_time(order):
        ends = itertools.accumulate(stage.needs.mean_s for stage in order)
        return all(end <= stage.due_s for end, stage in zip(ends, order, strict=True))

    if any(in_time(order) for order in itertools.permutations(stages)):
        assert spare_s(stages, 0.0, 0.0) >= -1e-9


@given(STAGES, st.builds(owed, st.floats(0.1, 3.0), st.floats(0.01, 1.0)))
def test_what_was_in_time_stays_so_when_the_new_one_is_taken(stages, new):
    if spare_s(stages, 0.0, 0.0) >= 0 and lateness_s(new, stages, NOTHING, 0.0, 0.0) <= 0:
        assert spare_s([*stages, new], 0.0, 0.0) >= 0
