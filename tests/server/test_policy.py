"""Each policy's choice among stages that may all run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_server.core.policy import (
    Candidate,
    EarliestDeadline,
    Fifo,
    QualityPerSecond,
    SlackFit,
    Static,
    Step,
)


def candidate(name, stage=2, arrival_s=0.0, due_s=1.0, gains=((0.1, 10.0),), **changes):
    steps, total_s, total = [], 0.0, 0.0
    for exit_, (took_s, gain) in enumerate(gains, start=stage):
        total_s, total = total_s + took_s, total + gain
        steps.append(Step(exit_, total_s, total_s, total))
    values = {"overdue": False, "urgency": 3} | changes
    return Candidate(name, stage, arrival_s, due_s, steps=tuple(steps), **values)


def test_fifo_and_static_go_by_arrival_alone():
    late = candidate("late", arrival_s=2.0, due_s=0.1)
    early = candidate("early", arrival_s=1.0, due_s=9.0)
    for policy in (Fifo(), Static(2)):
        assert policy.choose([late, early], 0.0) is early
        assert not policy.heeds_deadlines


def test_only_static_limits_depth():
    assert Static(2).depth(4) == 2
    assert Static(9).depth(4) == 4
    assert Static(2).name == "static-2"
    assert {p.depth(4) for p in (Fifo(), EarliestDeadline(), SlackFit(), QualityPerSecond())} == {4}


def test_earliest_deadline_does_not_care_whether_a_stage_is_owed():
    owed = candidate("owed", stage=1, due_s=2.0)
    bought = candidate("bought", due_s=1.0)
    assert EarliestDeadline().choose([owed, bought], 0.0) is bought


def test_slackfit_goes_on_with_what_it_began_if_the_tightest_slack_allows():
    fresh = candidate("fresh", stage=1, due_s=0.5)
    begun = candidate("begun", due_s=2.0, gains=((0.2, 1.0),))
    assert SlackFit().choose([fresh, begun], spare_s=0.3) is begun
    assert SlackFit().choose([fresh, begun], spare_s=0.1) is fresh
    assert SlackFit().choose([begun], spare_s=0.1) is begun


def test_ours_serves_first_exits_first_and_the_earliest_deadline_among_them():
    rich = candidate("rich", gains=((0.001, 100.0),))
    soon = candidate("soon", stage=1, due_s=0.5)
    later = candidate("later", stage=1, due_s=0.9)
    assert QualityPerSecond().choose([rich, later, soon], math.inf) is soon


def test_ours_then_takes_the_most_quality_per_second():
    cheap = candidate("cheap", gains=((0.1, 10.0),))
    dear = candidate("dear", gains=((0.5, 30.0),))
    assert QualityPerSecond().choose([dear, cheap], math.inf) is cheap


def test_ours_sees_a_rich_stage_behind_a_poor_one():
    steady = candidate("steady", gains=((0.1, 5.0), (0.1, 5.0)))
    hidden = candidate("hidden", gains=((0.1, 1.0), (0.1, 20.0)))
    assert QualityPerSecond().choose([steady, hidden], math.inf) is hidden


def test_a_step_of_urgency_counts_twice():
    calm = candidate("calm", gains=((0.1, 10.0),), urgency=4)
    urgent = candidate("urgent", gains=((0.1, 5.1),), urgency=3)
    assert QualityPerSecond().choose([calm, urgent], math.inf) is urgent


def test_ours_runs_an_overdue_stage_unless_a_promise_is_in_danger():
    overdue = candidate("overdue", due_s=0.0, overdue=True)
    owed = candidate("owed", stage=1)
    assert QualityPerSecond().choose([owed, overdue], spare_s=0.0) is overdue
    assert QualityPerSecond().choose([owed, overdue], spare_s=-0.01) is owed


CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.text(max_size=3),
        stage=st.integers(1, 4),
        arrival_s=st.floats(0, 10),
        due_s=st.floats(0, 10),
        gains=st.lists(st.tuples(st.floats(1e-4, 1), st.floats(-5, 50)), min_size=1).map(tuple),
        overdue=st.booleans(),
        urgency=st.integers(0, 7),
    ),
    min_size=1,
)


@pytest.mark.parametrize(
    "policy", [Fifo(), Static(1), EarliestDeadline(), SlackFit(), QualityPerSecond()]
)
@given(candidates=CANDIDATES, spare_s=st.floats(-1, 10) | st.just(math.inf))
def test_every_policy_chooses_one_of_what_it_was_offered_and_the_same_again(
    policy, candidates, spare_s
):
    chosen = policy.choose(candidates, spare_s)
    assert any(chosen is offered for offered in candidates)
    assert policy.choose(candidates, spare_s) is chosen
