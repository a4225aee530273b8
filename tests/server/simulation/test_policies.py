"""The strategies that are compared in simulations."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_protocol.budget import Budget
from anytime_server.core.policy import QualityPerSecond
from anytime_server.errors import SettingsError
from anytime_server.simulation.policies import (
    EDF,
    FIFO,
    OURS,
    SLACKFIT,
    EarliestDeadline,
    Fifo,
    SlackFit,
    static,
    strategy,
)
from server.core.factories import candidate, job, scheduler
from server.core.fakes import FakeExecutor

CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.text(max_size=3),
        stage=st.integers(1, 4),
        arrival_s=st.floats(0, 10),
        due_s=st.floats(0, 10),
        gains=st.lists(
            st.tuples(st.floats(1e-4, 1), st.floats(-5, 50)), min_size=1, max_size=4
        ).map(tuple),
        overdue=st.booleans(),
        urgency=st.integers(0, 7),
    ),
    min_size=1,
    max_size=8,
)


def test_fifo_goes_by_arrival_alone():
    late = candidate("late", arrival_s=2.0, due_s=0.1, overdue=True)
    early = candidate("early", arrival_s=1.0, due_s=9.0)
    assert Fifo().choose([late, early], 0.0) is early


def test_earliest_deadline_treats_mandatory_and_optional_stages_alike():
    mandatory = candidate("mandatory", stage=1, due_s=2.0)
    optional = candidate("optional", due_s=1.0)
    assert EarliestDeadline().choose([mandatory, optional], 0.0) is optional


def test_slackfit_goes_on_with_what_it_began_if_the_tightest_slack_allows():
    fresh = candidate("fresh", stage=1, due_s=0.5)
    begun = candidate("begun", due_s=2.0, gains=((0.2, 1.0),))
    assert SlackFit().choose([fresh, begun], slack_s=0.3) is begun
    assert SlackFit().choose([fresh, begun], slack_s=0.1) is fresh
    assert SlackFit().choose([begun], slack_s=0.1) is begun


@settings(max_examples=50)
@given(
    policy=st.sampled_from([Fifo(), EarliestDeadline(), SlackFit(), QualityPerSecond()]),
    candidates=CANDIDATES,
    slack_s=st.floats(-1, 10) | st.just(math.inf),
)
def test_every_policy_chooses_one_of_the_candidates_and_the_same_again(policy, candidates, slack_s):
    chosen = policy.choose(candidates, slack_s)
    assert any(chosen is offered for offered in candidates)
    assert policy.choose(candidates, slack_s) is chosen


def test_only_ordinary_servers_take_deadlines_out_and_only_static_ones_limit_depth():
    arrived = Budget(deadline_ms=100, max_exit=3)
    assert [each.budget(arrived) for each in (OURS, EDF, SLACKFIT)] == [arrived] * 3
    assert FIFO.budget(arrived) == Budget(max_exit=3)
    assert static(2).budget(arrived) == Budget(max_exit=2)
    assert static(4).budget(arrived) == Budget(max_exit=3)
    assert static(2).budget(Budget()) == Budget(max_exit=2)


@pytest.mark.parametrize(("way", "exits"), [(FIFO, 4), (static(2), 2)])
def test_an_ordinary_server_finishes_each_request_before_the_next_however_late_it_is(way, exits):
    s = scheduler(way.policy)
    names = [f"j{n}" for n in range(30)]  # far beyond the patience of requests without deadline
    for n, name in enumerate(names):
        state = job(name, now=n * 1e-3)
        state.budget = way.budget(Budget(deadline_ms=20))
        s.submit(state, n * 1e-3)
    executor = FakeExecutor(s, 0.03).run_until_idle()
    expected = [(name, stage) for name in names for stage in range(1, exits + 1)]
    assert [(name, stage) for _, name, stage in executor.stages] == expected


def test_strategies_are_found_by_name():
    assert [strategy(each.name) for each in (OURS, EDF, SLACKFIT, FIFO)] == [
        OURS,
        EDF,
        SLACKFIT,
        FIFO,
    ]
    assert strategy("static-3") == static(3)
    for wrong in ("magic", "static", "static-0", "static-x", ""):
        with pytest.raises(SettingsError, match="policies"):
            strategy(wrong)
