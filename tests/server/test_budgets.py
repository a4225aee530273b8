"""The operator's B(t): what it may say, what holds when, and the tightest of it and a client's."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.budget import Budget
from anytime_protocol.errors import BudgetError
from anytime_server.core.limits import DAY_S, Clock, LoadCap, ServerBudget, effective

NIGHTLY = ServerBudget(
    limits=Budget(max_exit=4),
    clock=Clock.DAILY,
    schedule=((8 * 3.6e6, Budget(max_exit=2)), (20 * 3.6e6, Budget(max_exit=3))),
)
LIMITS = st.builds(
    Budget,
    deadline_ms=st.none() | st.floats(1, 1e6),
    max_exit=st.none() | st.integers(1, 8),
    min_confidence=st.none() | st.floats(0, 1),
)


def limits_of(client=None, server=None, now=0.0, **changes):
    values = {"arrival_s": 0.0, "clock_offset_s": 0.0, "load_cap": math.inf} | changes
    return effective(client or Budget(), server or ServerBudget(), now=now, **values)


def test_without_budgets_nothing_is_limited():
    limits = limits_of()
    assert (limits.deadline_s, limits.gmacs, limits.max_exit) == (math.inf,) * 3
    assert (limits.confidence, limits.confident_share, limits.until_s) == (math.inf,) * 3


def test_the_tightest_of_client_server_and_load_counts():
    client = Budget(deadline_ms=200, max_exit=4, compute_gmacs=9.0)
    server = ServerBudget(limits=Budget(deadline_ms=500, max_exit=3, compute_gmacs=5.0))
    limits = limits_of(client, server, now=7.1, arrival_s=7.0)
    assert limits.deadline_s == pytest.approx(7.2)
    assert (limits.max_exit, limits.gmacs) == (3, 5.0)
    assert limits_of(client, server, load_cap=2).max_exit == 2


def test_a_clients_schedule_counts_from_its_arrival():
    client = Budget(max_exit=4, schedule=((100.0, Budget(max_exit=2)),))
    before = limits_of(client, now=10.05, arrival_s=10.0)
    assert before.max_exit == 4
    assert before.until_s == pytest.approx(10.1)
    after = limits_of(client, now=before.until_s, arrival_s=10.0)
    assert after.until_s > before.until_s  # time always moves on
    assert limits_of(client, now=10.1001, arrival_s=10.0).max_exit == 2


@pytest.mark.parametrize(
    ("hour", "exit_"), [(0, 3), (7.99, 3), (8, 2), (19.99, 2), (20, 3), (23.9, 3), (32, 2)]
)
def test_a_daily_schedule_wraps_at_midnight(hour, exit_):
    assert NIGHTLY.at(hour * 3600.0).max_exit == exit_


def test_a_daily_schedule_knows_its_next_change_even_past_midnight():
    assert NIGHTLY.changes_in(0.0) == 8 * 3600.0
    assert NIGHTLY.changes_in(22 * 3600.0) == 10 * 3600.0
    assert NIGHTLY.changes_in(DAY_S + 3600.0) == 7 * 3600.0


def test_an_elapsed_schedule_counts_from_when_it_was_set_and_ends():
    budget = ServerBudget(schedule=((10e3, Budget(max_exit=1)), (20e3, Budget(max_exit=3))))
    assert [budget.at(s).max_exit for s in (0, 10, 19, 20, 1e6)] == [None, 1, 1, 3, 3]
    assert budget.changes_in(12.0) == 8.0
    assert budget.changes_in(20.0) == math.inf


def test_a_schedule_never_loosens_the_standing_limits():
    budget = ServerBudget(limits=Budget(max_exit=2), schedule=((10e3, Budget(max_exit=4)),))
    assert budget.at(11.0).max_exit == 2


def test_the_server_clock_is_reached_through_its_offset():
    limits = limits_of(server=NIGHTLY, now=100.0, clock_offset_s=8 * 3600.0 - 100.0)
    assert limits.max_exit == 2
    assert limits.until_s == pytest.approx(100.0 + 12 * 3600.0)


def test_a_load_cap_goes_off_at_a_lower_load_than_it_goes_on_at():
    budget = ServerBudget(load_caps=(LoadCap(2.0, 1.0, 2),))
    engaged = ()
    seen = []
    for load_s in (1.5, 2.0, 1.5, 1.01, 1.0, 1.5):
        engaged = budget.engage(engaged, load_s)
        seen.append(engaged[0])
    assert seen == [False, True, True, True, False, False]


def test_the_tightest_engaged_cap_counts_and_floors_hold_per_class():
    budget = ServerBudget(
        load_caps=(LoadCap(1.0, 0.5, 3), LoadCap(2.0, 1.0, 1)), floors=((0, 4), (2, 2))
    )
    assert budget.load_cap((False, False), 3) == math.inf
    assert budget.load_cap((True, False), 3) == 3
    assert budget.load_cap((True, True), 3) == 1
    assert budget.load_cap((True, True), 2) == 2
    assert budget.load_cap((True, True), 0) == 4


def test_the_wire_form_comes_back_equal():
    budget = ServerBudget(
        limits=Budget(deadline_ms=2000, max_exit=4),
        load_caps=(LoadCap(2.0, 1.0, 2),),
        floors=((0, 4), (1, 3)),
        clock=Clock.DAILY,
        schedule=((0.0, Budget(max_exit=3)), (3.6e6, Budget(compute_gmacs=20.0))),
    )
    assert ServerBudget.from_json(json.loads(json.dumps(budget.to_json()))) == budget
    assert ServerBudget.from_json({}) == ServerBudget()
    assert ServerBudget().to_json() == {}


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        ([], "budget"),
        ({"max_exits": 3}, "max_exits"),
        ({"max_exit": 0}, "max_exit"),
        ({"deadline_ms": float("nan")}, "deadline_ms"),
        ({"load_caps": [{"above_s": 1, "below_s": 2, "max_exit": 1}]}, "below_s"),
        ({"load_caps": [{"above_s": 1, "below_s": 0.5}]}, "load_caps[0].max_exit"),
        ({"load_caps": [{"above_s": 1, "below_s": 0.5, "max_exit": 1, "x": 1}]}, "load_caps[0].x"),
        ({"floors": {"8": 1}}, "floors.8"),
        ({"floors": {"1": 0}}, "floors.1"),
        ({"clock": "lunar"}, "clock"),
        ({"schedule": [{"max_exit": 2}]}, "schedule[0].at_ms"),
        ({"schedule": [{"at_ms": 5}, {"at_ms": 5}]}, "schedule[1].at_ms"),
        ({"schedule": [{"at_ms": 5, "max_exit": "2"}]}, "schedule[0].max_exit"),
        ({"schedule": [{"at_ms": 5, "schedule": []}]}, "schedule"),
    ],
)
def test_a_nonsense_budget_is_refused_with_the_field_named(wire, field):
    with pytest.raises(BudgetError) as error:
        ServerBudget.from_json(wire)
    assert field in error.value.field


@given(LIMITS, LIMITS, st.floats(1, 8))
def test_the_effective_budget_is_never_laxer_than_any_of_its_parts(client, own, cap):
    limits = limits_of(client, ServerBudget(limits=own), load_cap=cap)
    for part in (client, own):
        if part.deadline_ms is not None:
            assert limits.deadline_s <= part.deadline_ms / 1e3
        if part.max_exit is not None:
            assert limits.max_exit <= part.max_exit
        if part.min_confidence is not None:
            assert limits.confidence <= part.min_confidence
    assert limits.max_exit <= cap


@given(st.floats(0, 3 * DAY_S), st.floats(0, 1e5))
def test_the_next_change_always_lies_ahead(now, offset_s):
    limits = limits_of(server=NIGHTLY, now=now, clock_offset_s=offset_s)
    assert limits.until_s > now
