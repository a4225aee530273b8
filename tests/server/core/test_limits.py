"""The operator's budget in force, and the tightest of it and a client's."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anytime_protocol.budget import Budget
from anytime_protocol.resources import LoadCap
from anytime_server.core.limits import DAY_S, ServerLimits, effective_limits
from server.core.factories import server_budget

HOUR_S = 3600.0
NIGHTLY = server_budget(
    max_exit=4,
    daily=True,
    schedule=((8 * 3.6e6, Budget(max_exit=2)), (20 * 3.6e6, Budget(max_exit=3))),
)
LIMITS = st.builds(
    Budget,
    deadline_ms=st.none() | st.floats(1, 1e6),
    max_exit=st.none() | st.integers(1, 8),
    min_confidence=st.none() | st.floats(0, 1),
)
MOMENTS = st.floats(0.0, 1e7)


def limits_of(client=None, server=None, now=0.0, arrival_s=0.0, load_cap=math.inf):
    limits = server if isinstance(server, ServerLimits) else ServerLimits(server or server_budget())
    return effective_limits(
        client or Budget(), limits, arrival_s=arrival_s, load_cap=load_cap, now=now
    )


def daily(budget, now, time_of_day_s):
    limits = ServerLimits(server_budget())
    limits.set_budget(budget, now, time_of_day_s)
    return limits


# The tightest of all.


def test_without_budgets_nothing_is_limited():
    limits = limits_of()
    assert (limits.deadline_s, limits.gmacs, limits.max_exit) == (math.inf,) * 3
    assert (limits.confidence, limits.confident_share, limits.until_s) == (math.inf,) * 3
    assert not limits.end_by_result
    assert limits_of(Budget(min_confidence=0.9)).end_by_result
    assert limits_of(Budget(confident_share=0.9)).end_by_result


def test_the_tightest_of_client_server_and_load_counts():
    client = Budget(deadline_ms=200, max_exit=4, compute_gmacs=9.0)
    server = server_budget(deadline_ms=500, max_exit=3, compute_gmacs=5.0)
    limits = limits_of(client, server, now=7.1, arrival_s=7.0)
    assert limits.deadline_s == pytest.approx(7.2)
    assert (limits.max_exit, limits.gmacs) == (3, 5.0)
    assert limits_of(client, server, load_cap=2).max_exit == 2


def test_the_smallest_risk_counts_and_none_asks_for_nothing():
    assert limits_of().max_risk == math.inf
    assert limits_of(Budget(max_risk=0.1), server_budget(max_risk=0.02)).max_risk == 0.02
    assert not limits_of(Budget(max_risk=0.1)).end_by_result


@given(LIMITS, LIMITS, st.floats(1, 8))
def test_the_effective_limits_are_never_laxer_than_any_of_their_parts(client, own, cap):
    server = server_budget(
        deadline_ms=own.deadline_ms, max_exit=own.max_exit, min_confidence=own.min_confidence
    )
    limits = limits_of(client, server, load_cap=cap)
    for part in (client, own):
        if part.deadline_ms is not None:
            assert limits.deadline_s <= part.deadline_ms / 1e3
        if part.max_exit is not None:
            assert limits.max_exit <= part.max_exit
        if part.min_confidence is not None:
            assert limits.confidence <= part.min_confidence
    assert limits.max_exit <= cap


# A client's schedule.


def test_a_clients_schedule_counts_from_its_arrival():
    client = Budget(max_exit=4, schedule=((100.0, Budget(max_exit=2)),))
    before = limits_of(client, now=10.05, arrival_s=10.0)
    assert before.max_exit == 4
    assert before.until_s == pytest.approx(10.1)
    after = limits_of(client, now=before.until_s, arrival_s=10.0)
    assert (after.max_exit, after.until_s) == (2, math.inf)


@given(arrival_s=MOMENTS, at_ms=st.floats(0.0, 8.64e7), before_s=st.floats(0.0, 1.0))
@example(arrival_s=1e7, at_ms=0.1, before_s=1e-4)
@example(arrival_s=1234567.891, at_ms=100.0, before_s=0.05)
def test_an_entry_of_a_clients_schedule_is_in_force_at_the_moment_announced(
    arrival_s, at_ms, before_s
):
    client = Budget(max_exit=1, schedule=((at_ms, Budget(max_exit=4)),))
    now = max(arrival_s + at_ms / 1e3 - before_s, arrival_s)
    limits = limits_of(client, now=now, arrival_s=arrival_s)
    assert limits.until_s > now
    if limits.max_exit == 1:
        assert limits.until_s == pytest.approx(arrival_s + at_ms / 1e3, abs=2e-6, rel=0)
        then = limits_of(client, now=limits.until_s, arrival_s=arrival_s)
        assert (then.max_exit, then.until_s) == (4, math.inf)
    else:
        assert now >= arrival_s + at_ms / 1e3 - 2e-6


# The operator's schedule.


@pytest.mark.parametrize(
    ("hour", "exit_"), [(0, 3), (7.99, 3), (8, 2), (19.99, 2), (20, 3), (23.9, 3), (32, 2)]
)
def test_a_daily_schedule_wraps_at_midnight(hour, exit_):
    assert daily(NIGHTLY, 0.0, 0.0).at(hour * HOUR_S).max_exit == exit_


def test_a_daily_schedule_announces_its_next_change_even_past_midnight():
    limits = daily(NIGHTLY, 0.0, 0.0)
    for now, change_s in ((0.0, 8), (8 * HOUR_S, 20), (22 * HOUR_S, 32), (DAY_S + HOUR_S, 32)):
        expected_s = change_s * HOUR_S
        assert limits.next_change_s(now) == pytest.approx(expected_s, abs=1e-5, rel=0)


def test_a_daily_schedule_counts_from_local_midnight_whatever_the_scheduler_clock_says():
    limits = daily(NIGHTLY, 100.0, 8 * HOUR_S)
    assert limits.at(100.0).max_exit == 2
    assert limits.next_change_s(100.0) == pytest.approx(100.0 + 12 * HOUR_S)


def test_an_elapsed_schedule_counts_from_when_it_was_set_and_ends():
    limits = ServerLimits(server_budget())
    schedule = ((10e3, Budget(max_exit=1)), (20e3, Budget(max_exit=3)))
    limits.set_budget(server_budget(schedule=schedule), 1000.0, 12345.0)
    exits = [limits.at(1000.0 + s).max_exit for s in (0, 10, 19, 20, 1e6)]
    assert exits == [None, 1, 1, 3, 3]
    assert limits.next_change_s(1012.0) == pytest.approx(1020.0)
    assert limits.next_change_s(1020.0) == math.inf


def test_an_entry_of_the_operators_schedule_replaces_the_limits_that_it_names():
    schedule = ((10e3, Budget(max_exit=4)), (20e3, Budget(deadline_ms=900)))
    limits = ServerLimits(server_budget(max_exit=2, deadline_ms=500, schedule=schedule))
    found = [(limits.at(s).max_exit, limits.at(s).deadline_ms) for s in (0.0, 10.0, 20.0)]
    assert found == [(2, 500), (4, 500), (4, 900)]


def test_an_entry_lifts_the_limit_of_yesterdays_last_one():
    schedule = ((0.0, Budget(max_exit=4)), (20 * 3.6e6, Budget(max_exit=1)))
    limits = daily(server_budget(schedule=schedule, daily=True), 0.0, 0.0)
    assert [limits.at(hour * HOUR_S).max_exit for hour in (0, 20, 23.99, 24, 44)] == [4, 1, 1, 4, 1]


ENTRIES = st.lists(st.integers(0, 86_399_000), min_size=1, max_size=4, unique=True).map(sorted)


@given(
    now=MOMENTS,
    set_s=MOMENTS,
    time_of_day_s=st.floats(0.0, DAY_S),
    moments_ms=ENTRIES,
    is_daily=st.booleans(),
)
@example(0.0, 0.0, DAY_S, [0.0], True)
@example(1e7, 0.0, math.nextafter(DAY_S, 0.0), [0.0], True)
def test_the_next_change_lies_in_the_future_and_the_limits_have_changed_by_then(
    now, set_s, time_of_day_s, moments_ms, is_daily
):
    schedule = tuple((at_ms, Budget(max_exit=k)) for k, at_ms in enumerate(moments_ms, start=1))
    limits = daily(server_budget(schedule=schedule, daily=is_daily), set_s, time_of_day_s)
    now = max(now, set_s)
    for _ in range(3):
        change_s = limits.next_change_s(now)
        assert change_s > now
        if change_s == math.inf:
            assert not is_daily
            break
        if len(schedule) > 1 or limits.at(now).max_exit is None:
            assert limits.at(change_s) != limits.at(now)
        now = change_s


# Load caps.


def test_a_load_cap_is_switched_off_at_a_lower_load_than_it_is_switched_on():
    limits = ServerLimits(server_budget(load_caps=(LoadCap(2.0, 1.0, 2),)))
    seen = []
    for load_s in (1.5, 2.0, 1.5, 1.01, 1.0, 1.5):
        limits.observe_load(load_s)
        seen.append(limits.load_cap(3))
    assert seen == [math.inf, 2, 2, 2, math.inf, math.inf]


def test_the_tightest_load_cap_counts_and_floors_hold_per_class():
    caps = (LoadCap(1.0, 0.5, 3), LoadCap(2.0, 1.0, 1))
    limits = ServerLimits(server_budget(load_caps=caps, floors=((0, 4), (2, 2))))
    assert limits.load_cap(3) == math.inf
    limits.observe_load(1.5)
    assert limits.load_cap(3) == 3
    limits.observe_load(2.5)
    assert [limits.load_cap(urgency) for urgency in (3, 2, 0)] == [1, 2, 4]


def test_the_version_rises_only_when_other_limits_may_hold():
    limits = ServerLimits(server_budget(load_caps=(LoadCap(2.0, 1.0, 2),)))
    versions = [limits.version]
    for load_s in (1.0, 2.0, 1.5, 0.5):
        limits.observe_load(load_s)
        versions.append(limits.version)
    limits.set_budget(server_budget(), 0.0, 0.0)
    assert [*versions, limits.version] == [0, 0, 1, 1, 2, 3]


@given(
    loads=st.lists(st.floats(0.0, 3.0), max_size=6),
    urgency=st.integers(0, 7),
    own=LIMITS,
    now=st.floats(0.0, 30.0),
)
def test_the_reported_limits_are_those_enforced(loads, urgency, own, now):
    budget = server_budget(
        max_exit=own.max_exit,
        load_caps=(LoadCap(1.0, 0.5, 3), LoadCap(2.0, 1.0, 1)),
        floors=((0, 4), (2, 2)),
        schedule=((10e3, own),),
    )
    limits = ServerLimits(budget)
    for load_s in loads:
        limits.observe_load(load_s)
    reported = limits.in_force(now, urgency)
    enforced = limits_of(server=limits, now=now, load_cap=limits.load_cap(urgency))
    assert (reported.max_exit or math.inf) == enforced.max_exit
    assert (reported.deadline_ms or math.inf) == pytest.approx(enforced.deadline_s * 1e3)
    assert not reported.schedule
