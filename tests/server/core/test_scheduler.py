"""The rules of the scheduler, one by one; their laws are in test_scheduler_laws."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Effect, ErrorCode, Reason
from anytime_protocol.resources import LoadCap
from anytime_server.core.costs import CostModel, SideCost
from anytime_server.core.decisions import (
    STOP,
    Admitted,
    EndJob,
    JobFailed,
    JobFinished,
    Rejected,
    RunJob,
    Wait,
)
from anytime_server.core.jobs import JobState
from anytime_server.core.scheduler import Scheduler
from anytime_server.core.settings import SchedulerSettings
from anytime_server.errors import DuplicateJobError, StageNotRunningError, UnknownModelError
from server.core.factories import (
    FREE,
    GMACS,
    MODEL,
    STAGE_S,
    job,
    ladder_profile,
    profile,
    report,
    scheduler,
    server_budget,
)
from server.core.fakes import FakeExecutor, end_run, make_exit, run_until_idle

# The life of one request.


def test_a_request_without_limits_gets_all_exits_and_then_completes():
    s, a = scheduler(), job()
    assert isinstance(s.submit(a, 0.0), Admitted)
    executor = run_until_idle(s, 0.0)
    assert executor.stages_of("a") == [1, 2, 3, 4]
    ended_s, ending = executor.endings["a"]
    assert ending == JobFinished("a", Reason.COMPLETE, 4, 0.0)
    assert (a.exit, a.gmacs, a.used_s) == (4, sum(GMACS), pytest.approx(sum(STAGE_S)))
    assert ended_s == executor.now == pytest.approx(sum(STAGE_S))
    assert s.decide(executor.now) == Wait(None)


@pytest.mark.parametrize(
    ("deadline_ms", "exit_"), [(15, 1), (29, 1), (33, 2), (68, 2), (75, 3), (145, 3), (160, 4)]
)
def test_the_exit_served_is_the_deepest_that_fits_the_deadline(deadline_ms, exit_):
    s = scheduler()
    admitted = s.submit(job(deadline_ms=deadline_ms), 0.0)
    assert admitted.exit == exit_
    assert admitted.after_s == pytest.approx(sum(STAGE_S[:exit_]), rel=0.05)
    executor = run_until_idle(s, 0.0)
    reason = Reason.COMPLETE if exit_ == 4 else Reason.DEADLINE
    assert executor.endings["a"][1] == JobFinished("a", reason, exit_, 0.0)
    assert executor.now <= deadline_ms / 1e3


def test_a_request_ends_at_once_when_its_next_exit_cannot_fit_rather_than_at_its_deadline():
    s = scheduler()
    s.submit(job(deadline_ms=60), 0.0)
    assert run_until_idle(s, 0.0).endings["a"][0] == pytest.approx(0.030)


def test_a_masked_image_gets_deeper_into_the_same_deadline():
    s = scheduler()
    s.submit(job("a", deadline_ms=55), 0.0)
    s.submit(job("b", max_exit=1), 0.0)
    assert s.decide(0.0).job_id == "a"
    end_run(s, "a", 1, 0.010, share=0.1)
    assert s.decide(0.010).job_id == "b"
    end_run(s, "b", 1, 0.020)
    run = s.decide(0.020)
    assert (run.stage, run.depth) == (2, 3)  # 11 ms and 22 ms, not 20 ms and 40 ms
    assert run.predicted_s == pytest.approx(0.011, rel=0.01)


@pytest.mark.parametrize(
    ("limits", "exit_"),
    [({"max_exit": 2}, 2), ({"compute_gmacs": 7.0}, 3), ({"compute_gmacs": 6.9}, 2)],
)
def test_max_exit_and_multiply_adds_end_a_request_with_reason_budget(limits, exit_):
    s = scheduler()
    s.submit(job(**limits), 0.0)
    assert run_until_idle(s, 0.0).finish_of("a") == JobFinished("a", Reason.BUDGET, exit_, 0.0)


@pytest.mark.parametrize("limits", [{"min_confidence": 0.7}, {"confident_share": 0.35}])
def test_a_confident_map_satisfies(limits):
    s = scheduler()
    s.submit(job(**limits), 0.0)
    assert run_until_idle(s, 0.0).finish_of("a") == JobFinished("a", Reason.SATISFIED, 2, 0.0)


@given(st.floats(0.25, 20.0))
def test_on_a_ladder_as_much_is_computed_as_the_budget_allows_and_no_more(compute_gmacs):
    ladder = ladder_profile()
    s = scheduler(profile=ladder)
    s.submit(job(compute_gmacs=compute_gmacs), 0.0)
    executor = run_until_idle(s, 0.0)
    steps = s.costs.steps(MODEL, 64, 64).current()

    def gmacs(exits):
        return sum(steps.step(made, exit_, 1.0)[1] for made, exit_ in pairwise((0, *exits)))

    made = tuple(executor.stages_of("a"))
    assert gmacs(made) <= compute_gmacs + 1e-6
    deeper = {way.exits[: len(made) + 1] for way in ladder.ways if way.exits[: len(made)] == made}
    for way in deeper - {made}:
        assert gmacs(way) > compute_gmacs


# Schedules.


def test_a_schedule_that_lifts_a_limit_in_time_makes_the_request_pause():
    s = scheduler()
    lifted = ((200.0, Budget(max_exit=2)),)
    s.submit(job(max_exit=1, deadline_ms=500, schedule=lifted), 0.0)
    executor = run_until_idle(s, 0.0)
    assert executor.stages == [(0.0, "a", 1), (pytest.approx(0.2), "a", 2)]
    assert executor.finish_of("a").reason is Reason.BUDGET


def test_a_schedule_that_lifts_a_limit_too_late_does_not_delay_the_answer():
    s = scheduler()
    s.submit(job(max_exit=1, deadline_ms=210, schedule=((200.0, Budget(max_exit=2)),)), 0.0)
    executor = run_until_idle(s, 0.0)
    assert executor.endings == {"a": (0.010, JobFinished("a", Reason.BUDGET, 1, 0.0))}


def test_a_paused_request_waits_for_the_entry_that_lifts_its_limit_and_not_for_an_earlier_one():
    s = scheduler()
    entries = ((100.0, Budget(min_confidence=0.99)), (200.0, Budget(max_exit=4)))
    s.submit(job(max_exit=1, schedule=entries), 0.0)
    executor = run_until_idle(s, 0.0)
    assert executor.stages[1] == (pytest.approx(0.2), "a", 2)
    assert executor.waits == [pytest.approx(0.1), pytest.approx(0.2)]


@given(
    arrival_s=st.floats(0.0, 1e7),
    at_ms=st.integers(20, 10_000_000) | st.floats(20.0, 1e7),
    more_ms=st.lists(st.floats(1e-3, 1e4), max_size=3),
)
@example(arrival_s=1234567.891, at_ms=100, more_ms=[])
@example(arrival_s=1e7, at_ms=20.000001, more_ms=[1e-3])
def test_every_scheduled_lift_takes_effect_at_its_moment(arrival_s, at_ms, more_ms):
    s = scheduler()
    entries = [(float(at_ms), Budget(max_exit=2))]
    for exit_, wait_ms in enumerate(more_ms, start=3):
        entries.append((entries[-1][0] + wait_ms, Budget(max_exit=exit_)))
    assert isinstance(
        s.submit(job("a", arrival_s, max_exit=1, schedule=tuple(entries)), arrival_s), Admitted
    )
    executor = FakeExecutor(s, arrival_s).run_until_idle(steps=30)  # no busy loop
    assert executor.stages_of("a") == list(range(1, min(len(entries) + 1, 4) + 1))
    assert executor.stages[1][0] == pytest.approx(arrival_s + at_ms / 1e3, abs=2e-6, rel=0)
    assert executor.finish_of("a").reason in {Reason.BUDGET, Reason.COMPLETE}


def test_each_of_81_moments_lifts_the_limit_whatever_the_arrival():
    for arrival_s in (0.0, 17.3, 1234567.891):
        for at_ms in range(20, 101):
            s = scheduler()
            s.submit(
                job("a", arrival_s, max_exit=1, schedule=((at_ms, Budget(max_exit=4)),)), arrival_s
            )
            assert run_until_idle(s, arrival_s).finish_of("a").exit == 4, (arrival_s, at_ms)


def test_a_schedule_that_lowers_a_limit_stops_a_deeper_stage_at_its_moment():
    s = scheduler()
    s.submit(job(schedule=((15.0, Budget(max_exit=1)),)), 0.0)
    s.decide(0.0)
    end_run(s, "a", 1, 0.010)
    assert s.decide(0.010).limits.last_stage == 2
    wait = s.decide(0.012)
    assert wait == Wait(pytest.approx(0.015))
    assert s.run_limits(0.012).last_stage == 2
    assert s.run_limits(wait.until_s) == STOP
    assert s.run_ended("a", 0.005, 0.0151) == JobFinished("a", Reason.BUDGET, 1, 0.005)


def test_the_operators_schedule_lifts_the_operators_limit():
    budget = server_budget(max_exit=1, schedule=((200.0, Budget(max_exit=4)),))
    s = scheduler(budget=budget)
    s.submit(job("early"), 0.0)
    assert run_until_idle(s, 0.0).finish_of("early").exit == 1
    s.submit(job("late", 0.2), 0.2)
    assert run_until_idle(s, 0.2).finish_of("late").exit == 4


# Cancelling, stopping, failing.


def test_a_cancelled_job_never_runs_again():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.submit(job("b"), 0.0)
    assert s.cancel("b") == JobFinished("b", Reason.CANCELLED, 0, 0.0)
    executor = run_until_idle(s, 0.0)
    assert executor.stages_of("b") == []
    assert set(executor.endings) == {"a"}
    assert s.cancel("b") is None


def test_a_running_job_that_is_cancelled_ends_with_its_run():
    s, a = scheduler(), job()
    s.submit(a, 0.0)
    assert s.decide(0.0).limits.last_stage == 4
    assert s.cancel("a") is None
    assert s.run_limits(0.003) == STOP
    assert s.run_ended("a", 0.003, 0.003) == JobFinished("a", Reason.CANCELLED, 0, 0.003)
    assert (a.used_s, a.wasted_s) == (0.003, 0.003)


def test_an_exit_made_after_its_job_was_cancelled_does_not_count():
    s = scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    s.cancel("a")
    assert end_run(s, "a", 1, 0.010) == JobFinished("a", Reason.CANCELLED, 0, STAGE_S[0])


def test_exits_made_after_a_cancel_train_the_cost_model_only_where_their_input_is_known():
    s = scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    s.cancel("a")
    before = s.costs.slow_down.mean
    make_exit(s, "a", 1, 0.010)
    make_exit(s, "a", 2, 0.030)
    s.run_ended("a", 0.035, 0.065)
    assert s.costs.slow_down.mean == pytest.approx(before, rel=1e-3)


def test_an_optional_stage_is_stopped_in_time_for_the_map_before_it():
    s = scheduler()
    s.submit(job(deadline_ms=40), 0.0)
    s.decide(0.0)
    end_run(s, "a", 1, 0.010)
    run = s.decide(0.010)
    assert (run.stage, run.limits.last_stage) == (2, 2)
    assert run.limits.stop_at_s == pytest.approx(0.039)  # the deadline less the reaction time
    ended = s.run_ended("a", 0.0295, 0.0395)
    assert ended == JobFinished("a", Reason.DEADLINE, 1, 0.0295)


def test_a_stage_that_will_be_done_before_a_stop_would_be_is_left_alone():
    s = scheduler(settings=SchedulerSettings(reaction_s=0.005))
    s.submit(job(deadline_ms=33), 0.0)
    s.decide(0.0)
    end_run(s, "a", 1, 0.010)
    assert 0.030 < s.decide(0.010).limits.stop_at_s < 0.033


def test_a_stage_of_a_model_that_reacts_slowly_is_stopped_sooner():
    costs = CostModel([profile(reaction_s=0.004)], {"image/jpeg": FREE}, {"png": FREE})
    s = Scheduler(costs)
    s.submit(job(deadline_ms=60), 0.0)
    s.decide(0.0)
    end_run(s, "a", 1, 0.010)
    assert s.decide(0.010).limits.stop_at_s == pytest.approx(0.055)


def test_a_stage_that_could_be_neither_stopped_in_time_nor_surely_done_is_not_started():
    def decision(deadline_ms):
        costs = CostModel([profile()], {"image/jpeg": FREE}, {"png": FREE})
        s = Scheduler(costs, settings=SchedulerSettings(reaction_s=0.030))
        s.submit(job("a", deadline_ms=deadline_ms), 0.0)
        s.submit(job("b", max_exit=1), 0.0)
        s.decide(0.0)
        end_run(s, "a", 1, 0.010)
        s.decide(0.010)
        end_run(s, "b", 1, 0.020)
        return s.decide(0.020)

    sigma_ms = 1e3 * CostModel([profile()]).slow_down.predict(STAGE_S[1]).sigma_s
    assert decision(40 + 3 * sigma_ms).limits.stop_at_s > 0.020
    assert isinstance(decision(40 + 1.0 * sigma_ms), EndJob)


def test_a_stage_that_always_takes_longer_than_its_profile_is_foreseen():
    s = scheduler()
    for number in range(200):
        now, name = number * 1.0, str(number)
        s.submit(job(name, now, max_exit=3), now)
        s.decide(now)
        make_exit(s, name, 1, now)
        make_exit(s, name, 2, now, elapsed_s=0.026)  # the profile says 0.020
        end_run(s, name, 3, now)
    assert s.costs.slow_down.sigma < 0.05
    s.submit(job("last", 1e3), 1e3)
    s.submit(job("other", 1e3, max_exit=1), 1e3)
    for name in ("last", "other"):
        s.decide(1e3)
        end_run(s, name, 1, 1e3)
    assert s.decide(1e3).predicted_s == pytest.approx(0.026, rel=0.02)
    end_run(s, "last", 2, 1e3, elapsed_s=0.026)
    assert s.decide(1e3).predicted_s == pytest.approx(0.040, rel=0.02)


def test_exit_1_is_tried_if_its_expected_time_fits_and_a_later_one_only_with_its_reserve():
    encode = {"png": SideCost(0.002, 0.0)}
    costs = CostModel([profile()], {"image/jpeg": FREE}, encode)
    s = Scheduler(costs, settings=SchedulerSettings(reserve_s=0.001))
    luck_ms = 1e3 * costs.slow_down.predict(0.010).sigma_s
    assert isinstance(s.submit(job("a", deadline_ms=11.9 - luck_ms), 0.0), Rejected)
    s.submit(job("b", deadline_ms=13.1), 0.0)
    run = s.decide(0.0)
    assert run.limits.stop_at_s == pytest.approx(0.0111)  # the reserve may not be needed
    assert end_run(s, "b", 1, 0.010) == JobFinished("b", Reason.DEADLINE, 1, 0.0)


def test_a_first_exit_that_was_stopped_is_not_tried_again_however_unsure_its_time_is():
    s = scheduler(settings=SchedulerSettings(hope_sigmas=50.0))
    s.submit(job(deadline_ms=15), 0.0)
    stop_at_s = s.decide(0.0).limits.stop_at_s
    ending = s.run_ended("a", stop_at_s, stop_at_s + 1e-6)
    assert isinstance(ending, JobFailed)
    assert ending.code is ErrorCode.DEADLINE_EXCEEDED
    assert ending.needed_s > stop_at_s


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(max_exit=1), Reason.BUDGET),
        (Budget(compute_gmacs=2.5), Reason.BUDGET),
        (Budget(min_confidence=0.5), Reason.SATISFIED),
        (Budget(deadline_ms=13), Reason.DEADLINE),
    ],
)
def test_a_budget_lowered_below_the_running_stage_stops_it(budget, reason):
    s = scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    make_exit(s, "a", 1, 0.010)
    assert s.run_limits(0.010).last_stage == 4
    assert s.update_budget("a", budget, 1) == (Effect.APPLIED, 1)
    limits = s.run_limits(0.012)
    assert limits == STOP or limits.stop_at_s == pytest.approx(0.012)
    assert s.run_ended("a", 0.003, 0.013) == JobFinished("a", reason, 1, 0.003)


def test_a_stopped_stage_whose_budget_was_raised_meanwhile_runs_again():
    s = scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    make_exit(s, "a", 1, 0.010)
    s.update_budget("a", Budget(max_exit=1), 1)
    assert s.run_limits(0.011) == STOP
    s.update_budget("a", Budget(max_exit=3), 2)
    assert s.run_limits(0.012) == STOP  # the executor may have ended the run already
    assert s.run_ended("a", 0.003, 0.013) is None
    run = s.decide(0.013)
    assert (run.stage, run.limits.last_stage) == (2, 3)


def test_a_stale_budget_is_ignored_and_an_unknown_job_is_gone():
    s = scheduler()
    s.submit(job(), 0.0)
    assert s.update_budget("a", Budget(max_exit=3), 2).effect is Effect.APPLIED
    assert s.update_budget("a", Budget(max_exit=1), 2) == (Effect.STALE, 0)
    assert s.update_budget("b", Budget(), 1).effect is Effect.GONE
    assert run_until_idle(s, 0.0).finish_of("a").exit == 3


def test_a_cancelled_job_that_still_runs_takes_no_budget():
    s = scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    s.cancel("a")
    assert s.update_budget("a", Budget(max_exit=3), 1).effect is Effect.GONE


def test_a_failed_job_gets_one_error_and_the_executor_is_free_for_the_next():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.submit(job("b"), 0.0)
    s.decide(0.0)
    failed = s.fail("a", ErrorCode.BAD_IMAGE, "truncated")
    assert failed == JobFailed("a", ErrorCode.BAD_IMAGE, "truncated", 0.0)
    assert s.fail("a", ErrorCode.INTERNAL, "again") is None
    assert s.decide(0.001).job_id == "b"


def test_reports_on_a_stage_that_does_not_run_are_refused():
    s = scheduler()
    s.submit(job(), 0.0)
    with pytest.raises(StageNotRunningError, match="nothing is"):
        s.exit_made("a", report(1, 0.01))
    with pytest.raises(StageNotRunningError, match="nothing is"):
        s.run_ended("a", 0.0, 0.01)
    s.decide(0.0)
    with pytest.raises(StageNotRunningError, match="stage 1 of 'a' is"):
        s.exit_made("a", report(2, 0.01))
    with pytest.raises(StageNotRunningError, match="stage 1 of 'a' is"):
        s.run_ended("b", 0.0, 0.01)


def test_a_first_exit_that_comes_after_the_deadline_is_an_error_and_stops_the_run():
    s = scheduler()
    s.submit(job(deadline_ms=160), 0.0)
    assert s.decide(0.0).limits.last_stage == 4
    failed = s.exit_made("a", report(1, 0.161, elapsed_s=0.161))
    assert isinstance(failed, JobFailed)
    assert failed.code is ErrorCode.DEADLINE_EXCEEDED
    assert s.run_limits(0.161) == STOP
    assert s.run_ended("a", 0.001, 0.162) is None


def test_a_new_job_may_take_the_id_of_one_that_has_ended_while_its_run_has_not():
    s = scheduler()
    s.submit(job(deadline_ms=15), 0.0)
    s.decide(0.0)
    assert isinstance(s.exit_made("a", report(1, 0.016)), JobFailed)
    assert isinstance(s.submit(job(now=0.016), 0.016), Admitted)
    assert s.run_limits(0.016) == STOP
    assert s.run_ended("a", 0.001, 0.017) is None
    assert run_until_idle(s, 0.017).finish_of("a").exit == 4


def test_decoding_is_learnt_and_counted_once():
    costs = CostModel([profile()], {"image/jpeg": SideCost(0.005, 0.0)}, {"png": FREE})
    s = Scheduler(costs)
    s.submit(job(), 0.0)
    s.image_decoded("a", 0.006)
    predicted_s = costs.decode("image/jpeg", 64 * 64).mean_s
    assert predicted_s > 0.005
    s.image_decoded("a", 0.1)
    s.image_decoded("unknown", 0.1)
    assert costs.decode("image/jpeg", 64 * 64).mean_s == predicted_s
    assert s.decide(0.0).predicted_s == pytest.approx(0.010)


# Admission.


def test_what_even_an_idle_server_cannot_do_is_refused_without_a_time_to_retry():
    s = scheduler()
    late = s.submit(job(deadline_ms=9), 0.0)
    assert (late.code, late.retry_after_s) == (ErrorCode.DEADLINE_EXCEEDED, None)
    assert late.detail.endswith("; now 10 ms would do")
    assert late.needed_s == pytest.approx(0.010)
    assert isinstance(s.submit(job(deadline_ms=1e3 * late.needed_s), 0.0), Admitted)
    s = scheduler()
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
    tight_ms = 1e3 * needs.upper_s(-0.9)
    idle, busy = unsure(), unsure()
    assert isinstance(idle.submit(job("b", deadline_ms=tight_ms), 0.0), Admitted)
    assert isinstance(idle.decide(0.0), RunJob)
    assert isinstance(busy.submit(job(), 0.0), Admitted)
    assert isinstance(busy.submit(job("b", deadline_ms=tight_ms), 0.0), Rejected)


def test_a_request_that_would_make_an_earlier_one_late_is_refused_with_a_time_to_retry():
    s = scheduler()
    for name in "abcd":
        assert isinstance(s.submit(job(name, deadline_ms=45), 0.0), Admitted)
    refused = s.submit(job("e", deadline_ms=20), 0.0)  # would fit alone, but not with the others
    assert refused.code is ErrorCode.OVERLOADED
    assert refused.retry_after_s == pytest.approx(0.005, abs=0.003)
    assert isinstance(s.submit(job("f", deadline_ms=70), 0.0), Admitted)
    executor = run_until_idle(s, 0.0)
    assert all(executor.finish_of(name).exit >= 1 for name in "abcdf")
    assert all(executor.endings[name][0] <= 0.045 for name in "abcd")


def test_what_runs_take_beside_the_network_counts_where_others_wait():
    def admitted(s):
        answers = [s.submit(job(name, deadline_ms=65), 0.0) for name in "abcdef"]
        return sum(isinstance(answer, Admitted) for answer in answers)

    quick, slow = scheduler(), scheduler()
    for _ in range(50):
        slow.costs.observe_overhead(0.010)  # as long as a first stage
    assert admitted(slow) == admitted(quick) // 2


def test_what_runs_take_beside_the_network_refuses_nothing_on_an_idle_server():
    s = scheduler()
    for _ in range(50):
        s.costs.observe_overhead(0.100)
    assert isinstance(s.submit(job("a", deadline_ms=15), 0.0), Admitted)


def test_the_running_stage_counts_against_a_new_request():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.decide(0.0)
    for exit_, now in ((1, 0.01), (2, 0.03), (3, 0.07)):
        make_exit(s, "a", exit_, now)
    # Stage 4 runs until 0.15.
    assert s.submit(job("b", now=0.08, deadline_ms=60), 0.08).code is ErrorCode.OVERLOADED
    assert isinstance(s.submit(job("c", now=0.08, deadline_ms=90), 0.08), Admitted)


def test_a_server_with_too_many_active_requests_refuses_with_a_time_to_retry():
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
        s.submit(JobState("b", "nothing", 64, 64, 0.0), 0.0)


# Runs of several stages.


@pytest.mark.parametrize(
    ("budget", "last_stage", "notify"),
    [
        ({}, 4, False),
        ({"max_exit": 3}, 3, False),
        ({"compute_gmacs": 3.5}, 2, False),
        ({"deadline_ms": 400}, 4, True),
        ({"deadline_ms": 100}, 3, True),
        ({"min_confidence": 0.99}, 1, False),
        ({"confident_share": 0.99}, 1, False),
        ({"schedule": ((50.0, Budget(max_exit=2)),)}, 1, False),
    ],
    ids=["free", "exit", "gmacs", "deadline", "tight", "confidence", "share", "schedule"],
)
def test_a_run_goes_as_far_as_neither_exits_nor_time_can_change_what_is_to_be_done(
    budget, last_stage, notify
):
    s = scheduler()
    s.submit(job("a", **budget), 0.0)
    limits = s.decide(0.0).limits
    assert (limits.last_stage, limits.notify) == (last_stage, notify)
    assert s.run_limits(0.0) == limits


def test_after_exit_1_a_deadline_is_no_reason_to_ask():
    s = scheduler()
    s.submit(job("a", deadline_ms=400), 0.0)
    s.decide(0.0)
    make_exit(s, "a", 1, 0.010)
    limits = s.run_limits(0.010)
    assert (limits.last_stage, limits.notify) == (4, False)
    assert limits.stop_at_s == pytest.approx(0.399)


def test_a_slow_first_exit_lowers_how_far_the_run_may_go():
    s = scheduler()
    s.submit(job("a", deadline_ms=170), 0.0)
    assert s.decide(0.0).limits.last_stage == 4
    make_exit(s, "a", 1, 0.030, elapsed_s=0.030)
    assert s.run_limits(0.030).last_stage < 4


def test_a_second_stage_that_has_become_too_late_is_stopped_though_the_executor_has_begun_it():
    s = scheduler()
    s.submit(job("a", deadline_ms=40), 0.0)
    assert s.decide(0.0).limits.last_stage == 2
    make_exit(s, "a", 1, 0.035, elapsed_s=0.035)
    assert s.run_limits(0.035) == STOP
    assert s.run_ended("a", 0.0005, 0.0355) == JobFinished("a", Reason.DEADLINE, 1, 0.0005)


def test_a_later_stage_that_may_be_half_done_is_not_stopped_before_its_time():
    s = scheduler()
    s.submit(job("a", deadline_ms=80), 0.0)
    s.decide(0.0)
    make_exit(s, "a", 1, 0.010)
    assert not s.run_limits(0.010).notify  # exit 3 is expected at 0.070
    make_exit(s, "a", 2, 0.0395, elapsed_s=0.0295)
    limits = s.run_limits(0.0790)
    assert (limits.last_stage, limits.stop_at_s) == (3, pytest.approx(0.079))


def test_a_run_that_only_shrinking_masks_would_bring_in_time_is_decided_anew_after_each_exit():
    costs = CostModel(
        [profile(typical_share=(1.0, 1.0, 0.2, 0.2))], {"image/jpeg": FREE}, {"png": FREE}
    )
    s = Scheduler(costs)
    s.submit(job("a", deadline_ms=125), 0.0)
    s.decide(0.0)
    make_exit(s, "a", 1, 0.010)
    limits = s.run_limits(0.010)
    assert (limits.last_stage, limits.notify) == (4, True)  # 20 + 24 + 48 ms are expected
    make_exit(s, "a", 2, 0.050, elapsed_s=0.020, share=1.0)
    assert s.run_limits(0.050).last_stage == 3  # 40 + 48 ms


def test_with_other_requests_active_every_stage_is_decided_anew():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.submit(job("b"), 0.0)
    assert s.decide(0.0).limits.last_stage == 1


def test_a_request_that_arrives_ends_the_run_with_the_stage_that_is_computed():
    s = scheduler()
    s.submit(job("a"), 0.0)
    assert s.decide(0.0).limits.last_stage == 4
    make_exit(s, "a", 1, 0.010)
    s.submit(job("b", 0.012), 0.012)
    assert s.run_limits(0.012).last_stage == 2
    assert end_run(s, "a", 2, 0.030) is None
    assert s.decide(0.030).job_id == "b"


def test_a_run_goes_on_when_the_other_request_has_left_in_time():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.decide(0.0)
    s.submit(job("b", 0.001), 0.001)
    assert s.run_limits(0.001).last_stage == 1
    s.cancel("b")
    assert s.run_limits(0.002).last_stage == 4


def test_a_run_that_the_executor_has_ended_is_not_prolonged():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.decide(0.0)
    s.submit(job("b", 0.001), 0.001)
    s.run_limits(0.001)
    make_exit(s, "a", 1, 0.010)
    s.cancel("b")
    assert s.run_limits(0.010) == STOP
    assert s.run_ended("a", 0.0, 0.010) is None
    run = s.decide(0.010)
    assert (run.stage, run.limits.last_stage) == (2, 4)


def test_a_stage_begun_before_the_limits_were_lowered_may_still_make_its_exit():
    s, a = scheduler(), job("a")
    s.submit(a, 0.0)
    s.decide(0.0)
    s.submit(job("b", 0.009), 0.009)
    assert s.run_limits(0.009).last_stage == 1
    make_exit(s, "a", 1, 0.010)
    assert s.run_limits(0.0101) == STOP
    before = s.costs.slow_down.mean
    assert end_run(s, "a", 2, 0.030, share=0.5) is None
    assert (a.exit, a.gmacs, a.active_share) == (2, 3.0, 0.5)
    assert s.costs.slow_down.mean == before
    assert s.decide(0.030).job_id == "b"


def test_a_stage_begun_before_the_limits_were_lowered_and_stopped_is_wasted_and_runs_again():
    s, a = scheduler(), job("a")
    s.submit(a, 0.0)
    s.decide(0.0)
    s.submit(job("b", 0.009), 0.009)
    s.run_limits(0.009)
    make_exit(s, "a", 1, 0.010)
    assert s.run_ended("a", 0.0005, 0.0105) is None
    assert (a.exit, a.wasted_s) == (1, 0.0005)
    executor = run_until_idle(s, 0.0105)
    assert executor.stages_of("a") == [2, 3, 4]
    assert executor.finish_of("a") == JobFinished("a", Reason.COMPLETE, 4, 0.0005)


def test_a_run_of_several_stages_counts_like_several_runs():
    one, many = scheduler(), scheduler()
    first, second = job("a"), job("a")
    one.submit(first, 0.0)
    many.submit(second, 0.0)
    one.decide(0.0)
    for exit_, now in ((1, 0.011), (2, 0.031), (3, 0.051)):
        make_exit(one, "a", exit_, now)
        many.decide(0.0)
        assert end_run(many, "a", exit_, now) is None
        assert one.load_s == many.load_s
    many.decide(0.051)
    assert end_run(one, "a", 4, 0.091) == end_run(many, "a", 4, 0.091)
    assert first.gmacs == second.gmacs == sum(GMACS)
    assert one.costs.slow_down.mean == many.costs.slow_down.mean


def test_without_a_run_there_is_nothing_to_compute():
    assert scheduler().run_limits(0.0) == STOP


# Order.


def test_first_exits_go_before_deeper_ones_earliest_deadline_first():
    s = scheduler()
    s.submit(job("a", deadline_ms=400), 0.0)
    run = s.decide(0.0)
    assert (run.job_id, run.stage, run.depth) == ("a", 1, 4)
    assert run.predicted_s == pytest.approx(0.01, rel=0.01)
    assert run.limits.stop_at_s == pytest.approx(0.4)
    s.submit(job("b", deadline_ms=300), 0.001)
    s.submit(job("c", deadline_ms=200), 0.002)
    end_run(s, "a", 1, 0.010)
    executor = run_until_idle(s, 0.010)
    assert [(name, stage) for _, name, stage in executor.stages[:2]] == [("c", 1), ("b", 1)]


def test_the_deeper_stage_that_gains_more_quality_per_second_goes_first():
    s = scheduler()
    s.submit(job("a", max_exit=3), 0.0)
    s.submit(job("b", max_exit=3), 0.0)
    s.decide(0.0)
    end_run(s, "a", 1, 0.010)
    s.decide(0.010)
    end_run(s, "b", 1, 0.020, share=0.0)
    run = s.decide(0.020)
    assert (run.job_id, run.stage) == ("b", 2)  # 15 points in 10 ms, against 15 points in 20 ms


def test_urgency_outweighs_a_moderate_difference_in_gain():
    s = scheduler()
    s.submit(job("calm", urgency=7), 0.0)
    s.submit(job("urgent", urgency=0), 0.0)
    executor = run_until_idle(s, 0.0)
    assert [name for _, name, _ in executor.stages[2:5]] == ["urgent"] * 3


def test_a_request_without_deadline_does_not_starve_under_endless_urgent_traffic():
    # Every 10 ms a request with a first exit of 10 ms arrives: first exits alone fill the time.
    patience_s = 0.5
    s = scheduler(settings=SchedulerSettings(patience_s=patience_s))
    s.submit(job("patient"), 0.0)
    now, number, next_s, ended_s, refused = 0.0, 0, 0.0, None, 0
    while ended_s is None and now < 10.0:
        while next_s <= now:
            admission = s.submit(job(f"j{number}", now=next_s, deadline_ms=60), now)
            refused += isinstance(admission, Rejected)
            number, next_s = number + 1, next_s + 0.010
        match s.decide(now):
            case RunJob(job_id, stage, limits=limits):
                assert limits.last_stage == stage  # others wait
                now += STAGE_S[stage - 1]
                ending = end_run(s, job_id, stage, now)
                if isinstance(ending, JobFinished) and ending.job_id == "patient":
                    ended_s = now
            case EndJob(ending):
                assert isinstance(ending, JobFinished)  # what was admitted is answered
            case Wait():
                now = next_s
    assert ended_s is not None
    assert ended_s < 4 * (patience_s + 0.3)
    assert 0 < refused < number / 2


# The operator's budget.


def test_an_operators_cap_holds_from_the_next_stage_and_stops_a_deeper_one():
    s = scheduler()
    s.submit(job(), 0.0)
    s.decide(0.0)
    make_exit(s, "a", 1, 0.010)
    s.set_server_budget(server_budget(max_exit=1), 0.011)
    assert s.run_limits(0.012) == STOP
    assert s.run_ended("a", 0.002, 0.012) == JobFinished("a", Reason.BUDGET, 1, 0.002)


def test_load_lowers_depth_except_below_the_floor_of_a_class_and_stops_no_running_stage():
    budget = server_budget(load_caps=(LoadCap(0.2, 0.05, 1),), floors=((0, 3),))
    s = scheduler(budget=budget)
    s.submit(job("a"), 0.0)
    s.decide(0.0)
    make_exit(s, "a", 1, 0.010)
    s.submit(job("urgent", 0.011, urgency=0), 0.011)
    assert s.load_s > 0.2
    assert s.run_limits(0.012).last_stage == 2
    assert end_run(s, "a", 2, 0.030) == JobFinished("a", Reason.BUDGET, 2, 0.0)
    assert run_until_idle(s, 0.030).finish_of("urgent").exit >= 3


def test_the_reported_limits_are_those_enforced_after_the_load_has_fallen_a_little():
    budget = server_budget(load_caps=(LoadCap(0.3, 0.05, 2),))
    s = scheduler(budget=budget)
    for name in "abc":
        s.submit(job(name), 0.0)
    assert s.server_limits.in_force(0.0, 3).max_exit == 2
    for name in "bc":
        s.cancel(name)
    assert 0.05 < s.load_s < 0.3  # between the two thresholds: the cap stays on
    assert s.decide(0.0).limits.last_stage == 2
    assert s.server_limits.in_force(0.0, 3).max_exit == 2
    assert run_until_idle_from_run(s, "a").exit == 2


def run_until_idle_from_run(s, job_id):
    executor = FakeExecutor(s, 0.0)
    executor.compute(job_id, 1, s.run_limits(0.0))
    return executor.run_until_idle().finish_of(job_id)


def test_a_deadline_of_the_operator_binds_requests_that_have_none():
    s = scheduler(budget=server_budget(deadline_ms=75))
    s.submit(job(), 0.0)
    assert run_until_idle(s, 0.0).finish_of("a") == JobFinished("a", Reason.DEADLINE, 3, 0.0)


# Draining.


def test_draining_admits_no_more_and_ends_every_request_by_the_end_of_its_next_stage():
    s = scheduler()
    for name in "abc":
        s.submit(job(name), 0.0)
    for name, now in (("a", 0.0), ("b", 0.01)):
        assert s.decide(now).job_id == name
        end_run(s, name, 1, now + 0.01)
    assert s.decide(0.02).job_id == "c"
    assert s.drain() == [
        JobFinished("a", Reason.DRAINING, 1, 0.0),
        JobFinished("b", Reason.DRAINING, 1, 0.0),
    ]
    assert s.run_limits(0.022).last_stage == 1  # its stage may end
    assert s.submit(job("d"), 0.022).code is ErrorCode.DRAINING
    assert end_run(s, "c", 1, 0.030) == JobFinished("c", Reason.DRAINING, 1, 0.0)
    assert s.decide(0.03) == Wait(None)


def test_draining_shortens_a_run_to_the_stage_that_is_computed():
    s = scheduler()
    s.submit(job("a"), 0.0)
    s.decide(0.0)
    make_exit(s, "a", 1, 0.010)
    assert s.drain() == []
    assert s.run_limits(0.011).last_stage == 2
    assert end_run(s, "a", 2, 0.030) == JobFinished("a", Reason.DRAINING, 2, 0.0)


def test_a_request_that_waits_for_its_first_exit_still_gets_it_when_the_server_drains():
    s = scheduler()
    s.submit(job("a"), 0.0)
    assert s.drain() == []
    executor = run_until_idle(s, 0.0)
    assert executor.stages_of("a") == [1]
    assert executor.finish_of("a") == JobFinished("a", Reason.DRAINING, 1, 0.0)


# Images that take long to decode, which the executor does not wait for.


def slow_job(id_="slow", now=0.0, **limits):
    """A job whose image takes 1 s to decode."""
    slow = job(id_, now, **limits)
    slow.media_type, slow.awaits_image = "image/webp", True
    return slow


def scheduler_of_slow_images():
    decode = {"image/jpeg": FREE, "image/webp": SideCost(1.0, 0.0)}
    costs = CostModel([profile()], decode, {"png": FREE})
    for _ in range(200):
        costs.observe_stage(0.01, 0.01)
    return Scheduler(costs)


def test_others_are_admitted_and_computed_while_an_image_is_decoded():
    s = scheduler_of_slow_images()
    assert isinstance(s.submit(slow_job(), 0.0), Admitted)
    assert isinstance(s.decide(0.0), Wait)
    assert isinstance(s.submit(job("quick", deadline_ms=60), 0.0), Admitted)
    assert s.decide(0.0).job_id == "quick"
    end_run(s, "quick", 1, 0.01)
    s.image_decoded("slow", 1.0)
    assert s.decide(0.02).job_id == "slow"


def test_a_job_that_its_image_makes_late_ends_by_its_deadline():
    s = scheduler_of_slow_images()
    assert isinstance(s.submit(slow_job(deadline_ms=1100), 0.0), Admitted)
    waiting = s.decide(0.5)
    assert isinstance(waiting, Wait)
    while isinstance(waiting, Wait):
        assert waiting.until_s is not None
        ends_s = waiting.until_s
        waiting = s.decide(ends_s)
    assert waiting.ending.code is ErrorCode.DEADLINE_EXCEEDED
    assert ends_s <= 1.1


def test_a_job_whose_image_is_decoded_later_than_expected_still_has_its_time():
    s = scheduler_of_slow_images()
    s.submit(slow_job(deadline_ms=2500), 0.0)
    assert isinstance(s.decide(0.0), Wait)
    s.image_decoded("slow", 1.4)
    assert s.decide(1.4).job_id == "slow"


def test_an_image_that_cannot_be_decoded_is_left_to_its_run_to_find():
    s = scheduler_of_slow_images()
    s.submit(slow_job(), 0.0)
    s.image_decoded("slow", None)
    s.image_decoded("unknown", None)
    assert s.decide(0.1).job_id == "slow"
