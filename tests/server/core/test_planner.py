"""Which way a job goes on: by its deadline, over time, and while others wait."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Reason
from anytime_server.core.decisions import Admitted, JobFinished, Rejected
from anytime_server.core.jobs import StageForecast
from anytime_server.core.planner import Aim, choose, reachable
from server.core.factories import (
    EXIT_PART,
    STAGE_S,
    job,
    ladder_path,
    ladder_profile,
    report,
    scheduler,
    skipping_profile,
)
from server.core.fakes import end_run, make_exit, run_until_idle


def path(*steps):
    """Steps of (exit, seconds until then, gain)."""
    return tuple(StageForecast(exit_, base_s, 0.0, gain) for exit_, base_s, gain in steps)


def exits(found):
    return [step.exit for step in found]


LONG = path((2, 0.1, 1.0), (3, 0.2, 5.0), (5, 1.2, 8.0))
SHORT = path((5, 1.0, 7.0), (6, 2.0, 9.0))


def test_a_path_is_followed_as_far_as_its_exits_are_in_reach():
    found = reachable([LONG, SHORT], lambda step: step.base_s < 1.1)
    assert [exits(each) for each in found] == [[2, 3], [5]]


def test_a_path_whose_first_exit_is_out_of_reach_is_left_out():
    assert reachable([SHORT], lambda step: step.base_s < 0.5) == []


def test_by_a_deadline_the_best_map_at_its_end_counts():
    assert choose([LONG, SHORT[:1]], Aim.BY_DEADLINE) == LONG
    assert choose([LONG[:2], SHORT[:1]], Aim.BY_DEADLINE) == SHORT[:1]


def test_over_time_early_maps_count_for_as_long_as_they_are_the_latest():
    late = path((5, 1.0, 7.0), (6, 2.0, 9.0))
    early = path((2, 0.1, 5.0), (5, 1.1, 7.0), (6, 2.1, 9.0))
    assert choose([late, early], Aim.OVER_TIME) == early
    little = path((2, 0.9, 0.1), (5, 1.9, 7.0), (6, 2.9, 9.0))
    assert choose([late, little], Aim.OVER_TIME) == late


def test_while_others_wait_quality_for_its_time_counts():
    assert choose([LONG, SHORT], Aim.PER_SECOND) == LONG
    assert choose([LONG[:1], SHORT], Aim.PER_SECOND) == LONG[:1]


def test_by_a_deadline_a_far_exit_counts_only_as_far_as_it_is_likely_to_be_made():
    far, stepwise = path((8, 1.0, 10.0)), path((5, 0.5, 8.0), (7, 1.0, 9.5))

    def chance(step):
        return 1.0 if step.base_s < 0.9 else likely

    likely = 0.95
    assert choose([far, stepwise], Aim.BY_DEADLINE, chance) == far
    likely = 0.6
    assert choose([far, stepwise], Aim.BY_DEADLINE, chance) == stepwise


STEPS = st.lists(st.tuples(st.floats(0.001, 1.0), st.floats(0.0, 10.0)), min_size=1, max_size=6)


@given(st.lists(STEPS, min_size=1, max_size=5), st.floats(0.0, 4.0))
def test_no_path_in_reach_ends_with_a_better_map_than_the_chosen_one(drawn, limit_s):
    paths = []
    for steps in drawn:
        total_s, found = 0.0, []
        for exit_, (took_s, gain) in enumerate(steps, start=2):
            total_s += took_s
            found.append((exit_, total_s, gain))
        paths.append(path(*found))
    in_reach = reachable(paths, lambda step: step.base_s <= limit_s)
    if in_reach:
        chosen = choose(in_reach, Aim.BY_DEADLINE)
        best = max(step.gain for each in in_reach for step in each)
        assert max(step.gain for step in chosen) == best
        assert chosen[-1].base_s <= limit_s


# The scheduler with a ladder: stages of 2.5, 5, 10 and 20 ms at half the size, 10, 20, 40 and 80 ms
# at the full one.


def ladder_scheduler():
    return scheduler(profile=ladder_profile())


def test_without_a_deadline_maps_are_good_on_the_whole():
    s = ladder_scheduler()
    s.submit(job(), 0.0)
    assert s.decide(0.0).limits.path == (1, 2, 3, 5, 6, 7, 8)


@pytest.mark.parametrize(
    ("deadline_ms", "expected"),
    [
        (5, (1,)),
        (9, (1, 2)),
        (14, (1, 5)),
        (20, (1, 2, 5)),
        (34, (1, 5, 6)),
        (50, (1, 2, 3, 5, 6)),
        (80, (1, 2, 5, 6, 7)),
        (150, (1, 2, 3, 4, 5, 6, 7)),
        (200, (1, 2, 3, 4, 5, 6, 7, 8)),
    ],
)
def test_a_deadline_decides_where_the_small_size_is_left(deadline_ms, expected):
    s = ladder_scheduler()
    admitted = s.submit(job(deadline_ms=deadline_ms), 0.0)
    assert admitted.exit == expected[-1]
    assert s.decide(0.0).limits.path == expected


def test_exit_1_of_the_small_size_is_all_that_a_request_must_get():
    s = ladder_scheduler()
    assert isinstance(s.submit(job(deadline_ms=3), 0.0), Admitted)
    assert isinstance(ladder_scheduler().submit(job(deadline_ms=2), 0.0), Rejected)


def test_a_cap_on_exits_counts_through_the_sizes():
    s = ladder_scheduler()
    s.submit(job(max_exit=5), 0.0)
    assert run_until_idle(s, 0.0).stages_of("a")[-1] == 5
    s.submit(job("b", max_exit=4), 0.0)
    assert run_until_idle(s, 0.0).stages_of("b") == [1, 2, 3, 4]


def test_a_larger_size_that_costs_too_much_is_not_begun():
    s = ladder_scheduler()
    s.submit(job(compute_gmacs=2.0), 0.0)  # no way to exit 6 costs less than 3.25
    found = run_until_idle(s, 0.0)
    assert found.stages_of("a") in ([1, 2, 3], [1, 2, 5])
    assert found.finish_of("a").reason is Reason.BUDGET


def test_more_requests_make_maps_coarser_before_one_is_refused():
    depths = []
    for count in (1, 2, 4, 8, 16):
        s = ladder_scheduler()
        answers = [s.submit(job(f"j{n}", deadline_ms=200), 0.0) for n in range(count)]
        assert all(isinstance(answer, Admitted) for answer in answers)
        endings = run_until_idle(s, 0.0).endings
        assert len(endings) == count
        depths.append(sum(ending.exit for _, ending in endings.values()) / count)
    assert depths == sorted(depths, reverse=True)
    assert depths[0] == 8
    assert depths[-1] < 6


def test_a_new_budget_in_mid_run_changes_the_way_from_the_stage_that_runs():
    s = ladder_scheduler()
    s.submit(job(), 0.0)
    assert s.decide(0.0).limits.path == (1, 2, 3, 5, 6, 7, 8)
    make_exit(s, "a", 1, 0.0025)
    s.update_budget("a", Budget(max_exit=4), 1)
    assert s.run_limits(0.003).path == (2, 3, 4)
    s.update_budget("a", Budget(max_exit=5), 2)
    assert s.run_limits(0.004).path[0] == 2
    assert s.run_limits(0.004).path[-1] == 5


def test_the_stage_that_runs_stays_on_the_way_whatever_an_exit_shows():
    s = ladder_scheduler()
    s.submit(job(deadline_ms=80), 0.0)
    assert s.decide(0.0).limits.path == (1, 2, 5, 6, 7)
    slow = report(1, 0.0035, elapsed_s=0.0035)
    assert s.exit_made("a", slow) is None
    path_ = s.run_limits(0.0035).path
    assert path_[0] == 2


def test_a_run_that_was_stopped_may_go_on_another_way():
    s = ladder_scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    make_exit(s, "a", 1, 0.0025)
    s.submit(job("b", deadline_ms=50), 0.003)
    assert s.run_limits(0.003).path == (2,)
    end_run(s, "a", 2, 0.0075)
    found = run_until_idle(s, 0.0075)
    assert isinstance(found.endings["a"][1], JobFinished)
    assert found.finish_of("a").reason is Reason.COMPLETE


# Exits that may be left out: a stage without its exit takes nine tenths of its time.


def skipping_scheduler():
    return scheduler(profile=skipping_profile())


ALL_S = 0.0025 + (1 - EXIT_PART) * sum(STAGE_S[:3]) + STAGE_S[3]
"""Time of exit 1 and then exit 8 alone."""


@pytest.mark.parametrize(
    ("deadline_ms", "expected"),
    [(5, (1,)), (14, (1, 5)), (150, (1, 4, 8)), (220, None)],
)
def test_a_far_exit_is_made_at_once_where_there_is_no_time_for_those_on_the_way(
    deadline_ms, expected
):
    s = skipping_scheduler()
    s.submit(job(deadline_ms=deadline_ms), 0.0)
    path_ = s.decide(0.0).limits.path
    if expected is None:
        assert path_ == (1, 2, 3, 4, 5, 6, 7, 8)
    else:
        assert path_[-1] == expected[-1]
        assert len(path_) <= len(expected)


@given(st.floats(3.0, 250.0))
@settings(deadline=None, max_examples=40)
def test_with_more_paths_no_deadline_ends_with_a_map_that_is_expected_to_be_worse(deadline_ms):
    gains = []
    stepwise = skipping_profile(paths=ladder_profile().paths)
    for profile in (stepwise, skipping_profile()):
        s = scheduler(profile=profile)
        s.submit(job(deadline_ms=deadline_ms), 0.0)
        found = run_until_idle(s, 0.0)
        assert found.finish_of("a").wasted_s == 0.0
        gains.append(ladder_path(tuple(found.stages_of("a"))).quality[-1])
    assert gains[1] >= gains[0] - 1e-9


def begin_far_exit(**limits):
    """A scheduler whose job, after exit 1, is on its way to exit 8 and makes no other."""
    s = skipping_scheduler()
    deadline_ms = 1e3 * ALL_S + 4
    s.submit(job(deadline_ms=deadline_ms, **limits), 0.0)
    assert s.decide(0.0).limits.path == (1, 8)
    make_exit(s, "a", 1, 0.0025, elapsed_s=0.0025)
    assert s.run_limits(0.0025).path == (8,)
    return s, deadline_ms


def test_a_cap_lowered_below_the_far_exit_stops_it_and_a_nearer_one_follows():
    s, deadline_ms = begin_far_exit()
    s.update_budget("a", Budget(max_exit=6, deadline_ms=deadline_ms), 1)
    assert s.run_limits(0.010).path == ()
    assert s.run_ended("a", 0.0075, 0.010) is None
    found = run_until_idle(s, 0.010)
    assert found.finish_of("a").exit == 6
    assert found.finish_of("a").wasted_s == pytest.approx(0.0075)


def test_a_deadline_that_moves_closer_stops_the_far_exit_in_time_for_the_map_that_there_is():
    s, _ = begin_far_exit()
    s.update_budget("a", Budget(deadline_ms=60), 1)
    limits = s.run_limits(0.010)
    assert limits.path == (8,)
    assert limits.stop_at_s == pytest.approx(0.059)
    ending = s.run_ended("a", 0.0565, 0.059)
    assert (ending.exit, ending.reason) == (1, Reason.DEADLINE)


def test_a_far_exit_that_is_stopped_early_enough_gives_way_to_a_nearer_one():
    s, _ = begin_far_exit()
    s.cancel("nobody")
    assert s.run_ended("a", 0.0075, 0.010) is None  # the executor was told to stop
    s.update_budget("a", Budget(deadline_ms=60), 1)
    assert run_until_idle(s, 0.010).finish_of("a").exit >= 6


def test_a_far_exit_counts_the_multiply_adds_of_what_is_computed():
    s = skipping_scheduler()
    most = 0.25 + 0.9 * (1 + 2 + 4) + 8
    s.submit(job(compute_gmacs=most, deadline_ms=500), 0.0)
    assert s.decide(0.0).limits.path == (1, 8)
    s = skipping_scheduler()
    s.submit(job(compute_gmacs=most - 0.01, deadline_ms=500), 0.0)
    assert 8 not in s.decide(0.0).limits.path


def exits_made(encode_s, *, shows_each, **limits):
    """The path that a request without a deadline is to take, and the time to exits 1 and 8."""
    s = skipping_scheduler()
    for _ in range(200):
        s.costs.observe_encode("png", 64 * 64, encode_s)
    state = job(**limits)
    state.shows_each = shows_each
    s.submit(state, 0.0)
    (direct,) = (way for way in state.paths if [step.exit for step in way] == [1, 8])
    return s.decide(0.0).limits.path, direct[-1].base_s


def test_showing_each_exit_takes_time_so_that_fewer_are_made():
    quick, quick_s = exits_made(0.001, shows_each=True)
    slow, slow_s = exits_made(0.060, shows_each=True)
    assert len(slow) < len(quick)
    assert slow_s - quick_s == pytest.approx(0.059, rel=0.01)


def test_where_only_the_last_map_is_seen_the_shortest_way_to_one_as_good_is_taken():
    assert exits_made(0.001, shows_each=False) == ((1, 3, 8), pytest.approx(ALL_S))


def test_at_the_end_the_soonest_of_maps_that_are_as_good_counts():
    best, as_good = path((2, 1.0, 40.0), (8, 9.0, 62.0)), path((8, 6.0, 61.8))
    worse, falling = path((8, 2.0, 61.0)), path((7, 3.0, 61.9), (8, 5.0, 50.0))
    assert choose([best, as_good, worse], Aim.AT_END) == as_good
    assert choose([best, as_good, worse, falling], Aim.AT_END) == falling
