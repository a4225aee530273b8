"""The rules of the scheduler, one by one, and its laws under random interleavings."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Effect, ErrorCode, Reason
from anytime_server.core.costs import CostModel, SideCost
from anytime_server.core.forecasts import SchedulerSettings
from anytime_server.core.jobs import (
    Admitted,
    ExitMade,
    Failed,
    Final,
    Finish,
    Idle,
    Job,
    Rejected,
    Run,
    Wait,
)
from anytime_server.core.limits import LoadCap, ServerBudget
from anytime_server.core.policy import EarliestDeadline, Fifo, QualityPerSecond, SlackFit, Static
from anytime_server.core.scheduler import Scheduler
from anytime_server.errors import DuplicateJobError, StageNotRunningError, UnknownModelError
from server.scheduling_fakes import (
    FREE,
    STAGE_S,
    job,
    profile,
    result,
    run_until_idle,
    scheduler,
)


def stages_of(runs, job_id):
    return [run.stage for _, run in runs if run.job_id == job_id]


# The life of one request.


def test_a_request_without_limits_gets_all_exits_and_then_completes():
    s = scheduler()
    assert isinstance(s.submit(job(), 0.0), Admitted)
    runs, endings, now = run_until_idle(s, 0.0)
    assert stages_of(runs, "a") == [1, 2, 3, 4]
    ended_s, final = endings["a"]
    assert (final.reason, final.exit, final.gmacs) == (Reason.COMPLETE, 4, 15.0)
    assert ended_s == now == pytest.approx(sum(STAGE_S))
    assert s.decide(now) == Idle()


@pytest.mark.parametrize(
    ("deadline_ms", "exit_"), [(15, 1), (29, 1), (33, 2), (68, 2), (75, 3), (145, 3), (160, 4)]
)
def test_the_exit_served_is_the_deepest_that_fits_the_deadline(deadline_ms, exit_):
    s = scheduler()
    answer = s.submit(job(deadline_ms=deadline_ms), 0.0)
    assert answer.exit == exit_
    assert answer.after_s == pytest.approx(sum(STAGE_S[:exit_]), rel=0.05)
    _, endings, now = run_until_idle(s, 0.0)
    final = endings["a"][1]
    assert (final.exit, final.reason) == (
        exit_,
        Reason.COMPLETE if exit_ == 4 else Reason.DEADLINE,
    )
    assert now <= deadline_ms / 1e3


def test_a_request_ends_at_once_when_its_next_exit_cannot_fit_rather_than_at_its_deadline():
    s = scheduler()
    s.submit(job(deadline_ms=60), 0.0)
    _, endings, _ = run_until_idle(s, 0.0)
    assert endings["a"][0] == pytest.approx(0.030)


def test_a_masked_image_gets_deeper_into_the_same_deadline():
    s = scheduler()
    s.submit(job(deadline_ms=55), 0.0)
    assert s.decide(0.0).stage == 1
    s.complete("a", 1, 0.010, result(1, share=0.1), 0.010)
    assert s.decide(0.010).predicted_s == pytest.approx(0.011, rel=0.01)
    s.complete("a", 2, 0.011, result(2, share=0.1), 0.021)
    assert s.decide(0.021).predicted_s == pytest.approx(0.022, rel=0.01)


def test_max_exit_and_multiply_adds_end_a_request_with_reason_budget():
    for limits, exit_ in (
        ({"max_exit": 2}, 2),
        ({"compute_gmacs": 7.0}, 3),
        ({"compute_gmacs": 6.9}, 2),
    ):
        s = scheduler()
        s.submit(job(**limits), 0.0)
        final = run_until_idle(s, 0.0)[1]["a"][1]
        assert (final.reason, final.exit) == (Reason.BUDGET, exit_)


@pytest.mark.parametrize("limits", [{"min_confidence": 0.7}, {"confident_share": 0.35}])
def test_a_confident_map_satisfies(limits):
    s = scheduler()
    s.submit(job(**limits), 0.0)
    final = run_until_idle(s, 0.0)[1]["a"][1]
    assert (final.reason, final.exit) == (Reason.SATISFIED, 2)


def test_a_schedule_that_lifts_a_limit_in_time_makes_the_request_pause():
    s = scheduler()
    lifted = Budget(max_exit=1, deadline_ms=500, schedule=((200.0, Budget(max_exit=2)),))
    s.submit(Job("a", "toy", 64, 64, 0.0, lifted), 0.0)
    runs, endings, _ = run_until_idle(s, 0.0)
    assert [(pytest.approx(now), run.stage) for now, run in runs] == [(0.0, 1), (0.2, 2)]
    assert endings["a"][1].reason is Reason.BUDGET


def test_a_schedule_that_lifts_a_limit_too_late_does_not_delay_the_answer():
    s = scheduler()
    late = Budget(max_exit=1, deadline_ms=210, schedule=((200.0, Budget(max_exit=2)),))
    s.submit(Job("a", "toy", 64, 64, 0.0, late), 0.0)
    _, endings, now = run_until_idle(s, 0.0)
    assert endings["a"][1].reason is Reason.BUDGET
    assert now == pytest.approx(0.010)


# Cancelling, stopping, failing.


def test_a_cancelled_job_never_runs_again():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.submit(job("b"), 0.0)
    [final] = s.cancel("b", 0.0)
    assert final == Final("b", Reason.CANCELLED, 0, None, 0.0, 0.0)
    runs, endings, _ = run_until_idle(s, 0.0)
    assert stages_of(runs, "b") == []
    assert set(endings) == {"a"}
    assert s.cancel("b", 1.0) == []


def test_a_running_job_that_is_cancelled_ends_when_the_executor_reports():
    s = scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    assert s.should_stop("a", 0.001) is None
    assert s.cancel("a", 0.002) == []
    assert s.should_stop("a", 0.003) is Reason.CANCELLED
    [final] = s.abandon("a", 1, 0.003, 0.003)
    assert (final.reason, final.exit, final.wasted_s) == (Reason.CANCELLED, 0, 0.003)


def test_a_stage_that_ends_after_its_job_was_cancelled_shows_no_map():
    s = scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    s.cancel("a", 0.005)
    [final] = s.complete("a", 1, 0.010, result(1), 0.010)
    assert (final.reason, final.exit) == (Reason.CANCELLED, 0)


def test_a_stage_that_can_no_longer_be_sent_in_time_is_stopped_and_the_last_map_answers():
    s = scheduler()
    s.submit(job(deadline_ms=40), 0.0)
    s.decide(0.0)
    s.complete("a", 1, 0.010, result(1), 0.010)
    run = s.decide(0.010)
    assert run.stage == 2
    assert run.stop_at_s == pytest.approx(0.039)  # the deadline less the reaction time
    assert s.should_stop("a", 0.038) is None
    assert s.should_stop("a", 0.038, done=0.5) is Reason.DEADLINE
    assert s.should_stop("a", 0.0395) is Reason.DEADLINE
    [final] = s.abandon("a", 2, 0.0295, 0.0395)
    assert (final.reason, final.exit, final.wasted_s) == (Reason.DEADLINE, 1, 0.0295)


def test_a_stage_that_will_be_done_before_a_stop_would_be_is_left_alone():
    s = scheduler(settings=SchedulerSettings(reaction_s=0.005))
    s.submit(job(deadline_ms=33), 0.0)
    s.decide(0.0)
    s.complete("a", 1, 0.010, result(1), 0.010)
    stop_at_s = s.decide(0.010).stop_at_s
    assert 0.030 < stop_at_s < 0.033
    assert s.should_stop("a", 0.030) is None
    assert s.should_stop("a", stop_at_s + 1e-6) is Reason.DEADLINE  # it had its time


def test_a_stage_of_a_model_that_reacts_slowly_is_stopped_sooner():
    costs = CostModel([profile(reaction_s=0.004)], {"image/jpeg": FREE}, {"png": FREE})
    s = Scheduler(costs)
    s.submit(job(deadline_ms=60), 0.0)
    s.decide(0.0)
    s.complete("a", 1, 0.010, result(1), 0.010)
    assert s.decide(0.010).stop_at_s == pytest.approx(0.055)


def test_a_stage_that_always_takes_longer_than_its_profile_is_foreseen():
    s = scheduler()
    for number in range(200):
        now, name = number * 1.0, str(number)
        s.submit(job(name, now), now)
        s.decide(now)
        s.complete(name, 1, 0.010, result(1), now)
        s.decide(now)
        s.complete(name, 2, 0.026, result(2), now)  # the profile says 0.020
        run = s.decide(now)
        s.complete(name, 3, 0.040, result(3), now)
        s.cancel(name, now)
    assert run.predicted_s == pytest.approx(0.040, rel=0.02)
    assert s.costs.slow_down.sigma < 0.05
    s.submit(job("last", 1e3), 1e3)
    s.decide(1e3)
    s.complete("last", 1, 0.010, result(1), 1e3)
    assert s.decide(1e3).predicted_s == pytest.approx(0.026, rel=0.02)


def test_exit_1_is_tried_as_long_as_it_can_be_expected_and_a_later_one_with_its_reserve():
    encode = {"png": SideCost(0.002, 0.0)}
    costs = CostModel([profile()], {"image/jpeg": FREE}, encode)
    s = Scheduler(costs, settings=SchedulerSettings(reserve_s=0.001))
    luck_ms = 1e3 * costs.slow_down.predict(0.010).sigma_s
    assert isinstance(s.submit(job("a", deadline_ms=11.9 - luck_ms), 0.0), Rejected)
    s.submit(job("b", deadline_ms=13.1), 0.0)
    run = s.decide(0.0)
    assert run.stop_at_s == pytest.approx(0.0111)  # expected encoding; the reserve may be luck
    [made, final] = s.complete("b", 1, 0.010, result(1), 0.010)
    assert (made.exit, final.reason) == (1, Reason.DEADLINE)


def test_a_budget_lowered_below_the_running_stage_stops_it():
    for lower, reason in (
        (Budget(max_exit=1), Reason.BUDGET),
        (Budget(compute_gmacs=2.5), Reason.BUDGET),
        (Budget(min_confidence=0.5), Reason.SATISFIED),
        (Budget(deadline_ms=11), Reason.DEADLINE),
    ):
        s = scheduler()
        s.submit(job(), 0.0)
        s.decide(0.0)
        s.complete("a", 1, 0.010, result(1), 0.010)
        s.decide(0.010)
        answer = s.update_budget("a", lower, 1, 0.012)
        assert (answer.effect, answer.at_exit, answer.stops_stage) == (Effect.APPLIED, 1, True)
        assert s.should_stop("a", 0.013) is reason
        [final] = s.abandon("a", 2, 0.003, 0.013)
        assert (final.reason, final.exit) == (reason, 1)


def test_a_stopped_stage_whose_budget_was_raised_meanwhile_runs_again():
    s = scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    s.complete("a", 1, 0.010, result(1), 0.010)
    s.decide(0.010)
    s.update_budget("a", Budget(max_exit=1), 1, 0.011)
    s.update_budget("a", Budget(max_exit=3), 2, 0.012)
    assert s.abandon("a", 2, 0.003, 0.013) == []
    assert s.decide(0.013).stage == 2


def test_a_stale_budget_is_ignored_and_an_unknown_job_is_gone():
    s = scheduler()
    s.submit(job(), 0.0)
    assert s.update_budget("a", Budget(max_exit=3), 2, 0.0).effect is Effect.APPLIED
    stale = s.update_budget("a", Budget(max_exit=1), 2, 0.0)
    assert (stale.effect, stale.rev) == (Effect.STALE, 2)
    assert s.update_budget("b", Budget(), 1, 0.0).effect is Effect.GONE
    assert run_until_idle(s, 0.0)[1]["a"][1].exit == 3


def test_a_failed_job_gets_one_error_and_the_executor_is_free_for_the_next():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.submit(job("b"), 0.0)
    s.decide(0.0)
    [failed] = s.fail("a", ErrorCode.BAD_IMAGE, "truncated")
    assert (failed.job_id, failed.code) == ("a", ErrorCode.BAD_IMAGE)
    assert s.fail("a", ErrorCode.INTERNAL, "again") == []
    assert s.decide(0.001).job_id == "b"


def test_reports_on_a_stage_that_does_not_run_are_refused():
    s = scheduler()
    s.submit(job(), 0.0)
    with pytest.raises(StageNotRunningError, match="nothing is"):
        s.complete("a", 1, 0.01, result(1), 0.01)
    s.decide(0.0)
    with pytest.raises(StageNotRunningError, match="stage 1 of 'a' is"):
        s.abandon("a", 2, 0.01, 0.01)


def test_a_first_exit_that_comes_after_the_deadline_is_an_error():
    s = scheduler()
    s.submit(job(deadline_ms=15), 0.0)
    s.decide(0.0)
    [failed] = s.complete("a", 1, 0.016, result(1), 0.016)
    assert isinstance(failed, Failed)
    assert failed.code is ErrorCode.DEADLINE_EXCEEDED


# Admission.


def test_what_even_an_idle_server_cannot_do_is_refused_without_a_time_to_retry():
    s = scheduler()
    late = s.submit(job(deadline_ms=9), 0.0)
    assert (late.code, late.retry_after_s) == (ErrorCode.DEADLINE_EXCEEDED, None)
    poor = s.submit(job(compute_gmacs=0.5), 0.0)
    assert (poor.code, poor.retry_after_s) == (ErrorCode.BUDGET_TOO_SMALL, None)
    old = s.submit(job(now=0.0, deadline_ms=50), 0.045)
    assert old.code is ErrorCode.DEADLINE_EXCEEDED


def test_an_idle_server_tries_what_may_be_in_time_and_a_busy_one_wants_a_margin():
    def unsure():
        s = scheduler()
        for elapsed_s in (0.006, 0.014) * 50:
            s.costs.observe_stage(0.01, elapsed_s)
        return s

    needs = unsure().costs.slow_down.predict(0.01)
    hopeless = job("b", deadline_ms=1e3 * needs.upper_s(-1.1))
    assert isinstance(unsure().submit(hopeless, 0.0), Rejected)
    tight = job("b", deadline_ms=1e3 * needs.upper_s(-0.9))
    idle, busy = unsure(), unsure()
    assert isinstance(idle.submit(tight, 0.0), Admitted)
    assert isinstance(idle.decide(0.0), Run)
    assert isinstance(busy.submit(job(), 0.0), Admitted)
    assert isinstance(busy.submit(tight, 0.0), Rejected)


def test_a_request_that_would_break_an_earlier_promise_is_refused_and_told_when_to_retry():
    s = scheduler()
    for name in "abcd":
        assert isinstance(s.submit(job(name, deadline_ms=45), 0.0), Admitted)
    refused = s.submit(job("e", deadline_ms=20), 0.0)  # would fit itself, but not beside the others
    assert refused.code is ErrorCode.OVERLOADED
    assert refused.retry_after_s == pytest.approx(0.005, abs=0.003)
    assert isinstance(s.submit(job("f", deadline_ms=70), 0.0), Admitted)
    _, endings, _ = run_until_idle(s, 0.0)
    assert all(isinstance(final, Final) and final.exit >= 1 for _, final in endings.values())
    assert all(when <= 0.045 for name, (when, _) in endings.items() if name in "abcd")


def test_the_running_stage_counts_against_a_new_request():
    s = scheduler()
    s.submit(job("a"), 0.0)
    for stage, now in ((1, 0.0), (2, 0.01), (3, 0.03)):
        s.decide(now)
        s.complete("a", stage, STAGE_S[stage - 1], result(stage), now + STAGE_S[stage - 1])
    assert s.decide(0.07).stage == 4  # until 0.15
    assert s.submit(job("b", now=0.08, deadline_ms=60), 0.08).code is ErrorCode.OVERLOADED
    assert isinstance(s.submit(job("c", now=0.08, deadline_ms=90), 0.08), Admitted)


def test_a_full_house_refuses_and_says_when_to_come_back():
    s = scheduler(settings=SchedulerSettings(max_jobs=2))
    s.submit(job("a"), 0.0)
    s.submit(job("b"), 0.0)
    refused = s.submit(job("c"), 0.0)
    assert refused.code is ErrorCode.OVERLOADED
    assert refused.retry_after_s == pytest.approx(sum(STAGE_S))


def test_duplicate_ids_and_unknown_models_are_the_callers_errors():
    s = scheduler()
    s.submit(job("a"), 0.0)
    with pytest.raises(DuplicateJobError):
        s.submit(job("a"), 0.0)
    with pytest.raises(UnknownModelError, match="serves toy"):
        s.submit(Job("b", "nothing", 64, 64, 0.0), 0.0)


# Several stages without asking.


@pytest.mark.parametrize(
    ("budget", "through"),
    [
        ({}, 4),
        ({"max_exit": 3}, 3),
        ({"deadline_ms": 400}, 1),
        ({"min_confidence": 0.99}, 1),
        ({"confident_share": 0.99}, 1),
        ({"schedule": ((50.0, Budget(max_exit=2)),)}, 1),
    ],
    ids=["free", "exit", "deadline", "confidence", "share", "schedule"],
)
def test_stages_are_run_without_asking_where_the_answer_is_known(budget, through):
    s = scheduler()
    s.submit(job("a", **budget), 0.0)
    assert s.decide(0.0).through == through


def test_after_exit_1_a_deadline_is_no_reason_to_ask():
    s = scheduler()
    s.submit(job("a", deadline_ms=400), 0.0)
    s.decide(0.0)
    s.complete("a", 1, 0.010, result(1), 0.010)
    assert s.decide(0.010).through == 4


def test_with_others_in_the_house_every_stage_is_asked_for():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.submit(job("b"), 0.0)
    assert s.decide(0.0).through == 1


def test_a_stage_that_was_gone_on_from_counts_like_one_that_was_completed():
    asked, quiet = scheduler(), scheduler()
    for s in (asked, quiet):
        s.submit(job("a"), 0.0)
        s.decide(0.0)
    asked.complete("a", 1, 0.011, result(1), 0.011)
    run = asked.decide(0.011)
    went_on = quiet.go_on("a", 1, 0.011, result(1), 0.011)
    assert (went_on.stage, went_on.predicted_s) == (run.stage, pytest.approx(run.predicted_s))
    assert quiet.load_s == asked.load_s
    quiet.go_on("a", 2, 0.020, result(2), 0.031)
    quiet.go_on("a", 3, 0.020, result(3), 0.051)
    outcomes = quiet.complete("a", 4, 0.040, result(4), 0.091)
    assert isinstance(outcomes[-1], Final)
    assert outcomes[-1].gmacs == sum(result(k).gmacs for k in range(1, 5))


def test_going_on_beyond_what_was_allowed_is_the_callers_error():
    s = scheduler()
    s.submit(job("a", max_exit=2), 0.0)
    s.decide(0.0)
    s.go_on("a", 1, 0.010, result(1), 0.010)
    with pytest.raises(StageNotRunningError, match="to be the last"):
        s.go_on("a", 2, 0.020, result(2), 0.030)
    assert isinstance(s.complete("a", 2, 0.020, result(2), 0.030)[-1], Final)


# Order.


def test_first_exits_go_before_deeper_ones_earliest_deadline_first():
    s = scheduler()
    s.submit(job("a", deadline_ms=400), 0.0)
    assert s.decide(0.0) == Run(
        "a", 1, pytest.approx(0.01, rel=0.01), pytest.approx(0.4), depth=4, through=1, goes_on=True
    )
    s.submit(job("b", deadline_ms=300), 0.001)
    s.submit(job("c", deadline_ms=200), 0.002)
    s.complete("a", 1, 0.010, result(1), 0.010)
    runs, _, _ = run_until_idle(s, 0.010)
    assert [(run.job_id, run.stage) for _, run in runs[:2]] == [("c", 1), ("b", 1)]


def test_the_deeper_stage_that_gains_more_quality_per_second_goes_first():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.decide(0.0)
    s.complete("a", 1, 0.010, result(1, share=1.0), 0.010)
    s.decide(0.010)
    s.submit(job("b", now=0.011), 0.011)
    s.complete("a", 2, 0.020, result(2, share=1.0), 0.030)
    s.decide(0.030)
    s.complete("b", 1, 0.010, result(1, share=0.0), 0.040)
    run = s.decide(0.040)
    assert (run.job_id, run.stage) == ("b", 2)  # 15 points in 10 ms, against 10 points in 40 ms


def test_urgency_outweighs_a_moderate_difference_in_gain():
    s = scheduler()
    s.submit(Job("calm", "toy", 64, 64, 0.0, urgency=7), 0.0)
    s.submit(Job("urgent", "toy", 64, 64, 0.0, urgency=0), 0.0)
    runs, _, _ = run_until_idle(s, 0.0)
    assert [run.job_id for _, run in runs[2:5]] == ["urgent"] * 3


def test_a_request_without_deadline_does_not_starve_under_endless_urgent_traffic():
    # Every 10 ms a request with a first exit of 10 ms arrives: first exits alone fill the time.
    patience_s = 0.5
    s = scheduler(settings=SchedulerSettings(patience_s=patience_s))
    s.submit(job("patient"), 0.0)
    now, number, next_s, ended_s, refused = 0.0, 0, 0.0, None, 0
    while ended_s is None and now < 10.0:
        while next_s <= now:
            answer = s.submit(job(f"j{number}", now=next_s, deadline_ms=60), now)
            refused += isinstance(answer, Rejected)
            number, next_s = number + 1, next_s + 0.010
        match s.decide(now):
            case Run(job_id, stage):
                now += STAGE_S[stage - 1]
                ends = s.complete(job_id, stage, STAGE_S[stage - 1], result(stage), now)
                if any(isinstance(end, Final) and end.job_id == "patient" for end in ends):
                    ended_s = now
            case Finish(ending):
                assert isinstance(ending, Final)  # what was admitted is answered
            case Wait() | Idle():
                now = next_s
    assert ended_s is not None
    assert ended_s < 4 * (patience_s + 0.3)
    assert 0 < refused < number / 2


# The server's own budget.


def test_an_operators_cap_holds_from_the_next_stage_and_stops_a_deeper_one():
    s = scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    s.complete("a", 1, 0.010, result(1), 0.010)
    s.decide(0.010)
    s.set_server_budget(ServerBudget(limits=Budget(max_exit=1)), 0.011)
    assert s.should_stop("a", 0.012) is Reason.BUDGET
    [final] = s.abandon("a", 2, 0.002, 0.012)
    assert (final.reason, final.exit) == (Reason.BUDGET, 1)


def test_load_lowers_depth_except_below_the_floor_of_a_class_and_stops_nothing_midway():
    budget = ServerBudget(load_caps=(LoadCap(0.2, 0.05, 1),), floors=((0, 3),))
    s = scheduler(budget=budget)
    s.submit(job("a"), 0.0)
    s.decide(0.0)
    s.complete("a", 1, 0.010, result(1), 0.010)
    assert s.decide(0.010).stage == 2
    s.submit(Job("urgent", "toy", 64, 64, 0.011, urgency=0), 0.011)
    assert s.load_s > 0.2
    assert s.should_stop("a", 0.012) is None
    [made, final] = s.complete("a", 2, 0.020, result(2), 0.030)
    assert isinstance(made, ExitMade)
    assert (final.reason, final.exit) == (Reason.BUDGET, 2)
    _, endings, _ = run_until_idle(s, 0.030)
    assert endings["urgent"][1].exit >= 3


def test_a_deadline_of_the_operator_binds_requests_that_have_none():
    s = scheduler(budget=ServerBudget(limits=Budget(deadline_ms=75)))
    s.submit(job(), 0.0)
    final = run_until_idle(s, 0.0)[1]["a"][1]
    assert (final.reason, final.exit) == (Reason.DEADLINE, 3)


# Draining.


def test_draining_admits_nobody_and_answers_everyone_by_the_end_of_the_next_stage():
    s = scheduler()
    for name in "abc":
        s.submit(job(name), 0.0)
    for name, now in (("a", 0.0), ("b", 0.01)):
        assert s.decide(now).job_id == name
        s.complete(name, 1, 0.010, result(1), now + 0.01)
    assert s.decide(0.02).job_id == "c"
    drained = s.drain(0.021)
    assert [(f.job_id, f.reason, f.exit) for f in drained] == [
        ("a", Reason.DRAINING, 1),
        ("b", Reason.DRAINING, 1),
    ]
    assert s.should_stop("c", 0.022) is None  # its stage may end
    assert s.submit(job("d"), 0.022).code is ErrorCode.DRAINING
    [made, final] = s.complete("c", 1, 0.010, result(1), 0.030)
    assert (made.exit, final.reason, final.exit) == (1, Reason.DRAINING, 1)
    assert s.decide(0.03) == Idle()


# The laws.

LIMITS = st.builds(
    Budget,
    deadline_ms=st.none() | st.floats(5, 600),
    compute_gmacs=st.none() | st.floats(0.5, 16),
    max_exit=st.none() | st.integers(1, 5),
    min_confidence=st.none() | st.floats(0.5, 1.0),
)
BUDGETS = LIMITS | st.builds(
    lambda limits, at_ms, then: Budget(
        limits.deadline_ms,
        limits.compute_gmacs,
        limits.max_exit,
        limits.min_confidence,
        schedule=((at_ms, then),),
    ),
    LIMITS,
    st.floats(1, 400),
    LIMITS,
)
SERVER_BUDGETS = st.builds(
    ServerBudget,
    limits=LIMITS,
    load_caps=st.lists(
        st.builds(LoadCap, st.floats(0.2, 1.0), st.floats(0.0, 0.1), st.integers(1, 4)), max_size=2
    ).map(tuple),
)
SHARES = st.floats(0.0, 1.0)


class SchedulerMachine(RuleBasedStateMachine):
    """Anything may happen at any time; afterwards everybody is served."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = QualityPerSecond()
        self.s = scheduler(self.policy)
        self.now = 0.0
        self.count = 0
        self.budgets = {}
        self.arrivals = {}
        self.exits = {}
        self.ended = {}
        self.cancelled = set()
        self.running = None
        self.revs = {}
        self.server = ServerBudget()

    def alive(self):
        return [name for name in self.budgets if name not in self.ended]

    def take(self, outcomes):
        for outcome in outcomes:
            name = outcome.job_id
            assert name in self.budgets
            assert name not in self.ended
            match outcome:
                case ExitMade(exit=exit_):
                    assert name not in self.cancelled
                    assert exit_ == self.exits[name] + 1
                    self.exits[name] = exit_
                case Final(reason=reason, exit=exit_):
                    assert exit_ == self.exits[name]
                    assert (reason is Reason.CANCELLED) == (name in self.cancelled)
                    assert exit_ >= 1 or reason is Reason.CANCELLED
                    self.ended[name] = outcome
                case Failed():
                    self.ended[name] = outcome

    def limits_now(self, name):
        elapsed_ms = (self.now - self.arrivals[name]) * 1e3
        own, servers = self.budgets[name].at(elapsed_ms), self.server.limits
        pairs = zip(
            (own.deadline_ms, own.compute_gmacs, own.max_exit),
            (servers.deadline_ms, servers.compute_gmacs, servers.max_exit),
            strict=True,
        )
        return [min((v for v in pair if v is not None), default=math.inf) for pair in pairs]

    @rule(budget=BUDGETS, urgency=st.integers(0, 7), age_s=st.floats(0, 0.02))
    def submit(self, budget, urgency, age_s):
        name = f"j{self.count}"
        self.count += 1
        arrival_s = self.now - age_s
        answer = self.s.submit(
            Job(name, "toy", 64, 64, arrival_s, budget, urgency=urgency), self.now
        )
        if isinstance(answer, Admitted):
            self.budgets[name], self.arrivals[name] = budget, arrival_s
            self.exits[name] = self.revs[name] = 0
        else:
            assert answer.retry_after_s is None or answer.retry_after_s >= 0

    @precondition(alive)
    @rule(data=st.data())
    def cancel(self, data):
        name = data.draw(st.sampled_from(self.alive()))
        self.cancelled.add(name)
        self.take(self.s.cancel(name, self.now))
        assert name in self.ended or self.running.job_id == name

    @precondition(alive)
    @rule(data=st.data(), budget=BUDGETS, step=st.integers(0, 2))
    def change_budget(self, data, budget, step):
        name = data.draw(st.sampled_from(self.alive()))
        rev = self.revs[name] + step
        answer = self.s.update_budget(name, budget, rev, self.now)
        if name in self.cancelled:
            assert answer.effect is Effect.GONE
        elif step == 0:
            assert answer.effect is Effect.STALE
        else:
            assert answer.effect is Effect.APPLIED
            self.budgets[name], self.revs[name] = budget, rev

    @rule(budget=SERVER_BUDGETS)
    def change_server_budget(self, budget):
        self.server = budget
        self.s.set_server_budget(budget, self.now)

    @rule(wait_s=st.floats(0.0, 0.2))
    def time_passes(self, wait_s):
        self.now += wait_s

    @rule()
    def decide(self):
        match self.s.decide(self.now):
            case Run() as run:
                assert self.running is None
                self.running = run
                self.check_start(run)
            case Finish(ending):
                self.take([ending])
            case Wait(until_s):
                assert until_s is None or until_s > self.now
                assert until_s is not None or self.running is not None
                assert self.alive()
            case Idle():
                assert not self.alive()

    def check_start(self, run):
        name = run.job_id
        assert name in self.alive()
        assert name not in self.cancelled
        assert run.stage == self.exits[name] + 1
        deadline_ms, _, max_exit = self.limits_now(name)
        may_be_lucky = run.stage == 1 and len(self.alive()) == 1
        least_s = 0.0 if may_be_lucky else run.predicted_s
        assert self.now + least_s <= self.arrivals[name] + deadline_ms / 1e3 + 1e-9
        if run.stage > 1:
            assert run.stage <= max_exit

    @precondition(lambda self: self.running is not None)
    @rule(share=SHARES, confidence=SHARES, factor=st.floats(0.8, 1.5))
    def complete(self, share, confidence, factor):
        run, self.running = self.running, None
        took_s = run.predicted_s * factor
        self.now += took_s
        found = result(run.stage, confidence, share)
        self.take(self.s.complete(run.job_id, run.stage, took_s, found, self.now))

    @precondition(lambda self: self.running and self.running.stage < self.running.through)
    @rule(share=SHARES, confidence=SHARES, factor=st.floats(0.8, 1.5))
    def go_on(self, share, confidence, factor):
        run = self.running
        took_s = run.predicted_s * factor
        self.now += took_s
        found = result(run.stage, confidence, share)
        self.running = self.s.go_on(run.job_id, run.stage, took_s, found, self.now)
        assert (self.running.job_id, self.running.stage) == (run.job_id, run.stage + 1)
        self.exits[run.job_id] += 1

    @precondition(lambda self: self.running is not None)
    @rule(share=SHARES)
    def stop(self, share):
        run, self.running = self.running, None
        self.now += run.predicted_s * share
        spent_s = run.predicted_s * share
        self.take(self.s.abandon(run.job_id, run.stage, spent_s, self.now))

    @precondition(alive)
    @rule(data=st.data())
    def fail(self, data):
        name = data.draw(st.sampled_from(self.alive()))
        if self.running is not None and self.running.job_id == name:
            self.running = None
        [failed] = self.s.fail(name, ErrorCode.INTERNAL, "the test said so")
        self.ended[name] = failed

    @precondition(lambda self: self.count > 6)
    @rule()
    def drain(self):
        self.take(self.s.drain(self.now))

    @invariant()
    def the_house_holds_exactly_those_that_have_not_ended(self):
        assert self.s.jobs == len(self.alive())

    def teardown(self):
        """From any state, nobody waits for ever."""
        if self.running is not None:
            self.stop(0.5)
        _, endings, _ = run_until_idle(self.s, self.now)
        for name, (_, ending) in endings.items():
            assert name not in self.ended
            assert name not in self.cancelled
            self.ended[name] = ending
        assert not self.alive()


TestLaws = SchedulerMachine.TestCase
TestLaws.settings = hypothesis_settings(
    max_examples=150, stateful_step_count=40, deadline=None, print_blob=False
)


@pytest.mark.parametrize(
    "policy", [Fifo(), Static(2), EarliestDeadline(), SlackFit(), QualityPerSecond()]
)
def test_every_policy_ends_every_request(policy):
    s = scheduler(policy)
    admitted = [
        f"j{n}"
        for n in range(20)
        if isinstance(s.submit(job(f"j{n}", deadline_ms=100 + 20 * n), 0.0), Admitted)
    ]
    _, endings, _ = run_until_idle(s, 0.0)
    assert sorted(endings) == sorted(admitted)
