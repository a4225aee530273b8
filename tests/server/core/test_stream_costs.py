"""What the frames of a stream are expected to take."""

import pytest

from anytime_server.core.decisions import EndJob, RunJob
from anytime_server.core.stream_costs import StreamCosts
from server.core.factories import STAGE_S, job, report, scheduler

SIZE = (48, 64)


def test_a_figure_rises_at_once_and_falls_slowly():
    stream = StreamCosts(SIZE)
    assert (stream.factor(1), stream.share(2, 0.6)) == (1.0, 0.6)
    for _ in range(20):
        stream.observe(1, 0.2, 0.5)
    assert stream.factor(1) == pytest.approx(0.2, abs=0.01)
    stream.observe(1, 0.9, 0.8)
    assert (stream.factor(1), stream.share(1, 0.1)) == (0.9, 0.8)


def test_a_frame_that_takes_no_time_leaves_a_factor_above_nothing():
    stream = StreamCosts(SIZE)
    for _ in range(100):
        stream.observe(1, 0.0, 0.0)
    assert stream.factor(1) > 0.0


def test_a_step_that_took_long_and_is_not_come_to_any_more_is_expected_to_take_less_again():
    stream = StreamCosts(SIZE)
    stream.observe(1, 0.5, 1.0)
    stream.observe(2, 9.0, 1.0)
    for _ in range(30):
        stream.observe(1, 0.5, 0.1)
        stream.frame_ended()
    assert stream.frames == 30
    assert stream.factor(2) == pytest.approx(1.0, abs=0.01)
    assert stream.share(2, 0.4) == pytest.approx(0.0, abs=0.01)
    assert stream.factor(1) == pytest.approx(0.5, abs=0.01)


def frame(name, now, stream="cam"):
    one = job(name, now, max_exit=2)
    one.stream = stream
    return one


def compute(plan, one, now, factor, share=1.0):
    """Computes a frame of two stages, which take `factor` of the profile; what was predicted."""
    plan.submit(one, now)
    predicted = []
    for stage in (1, 2):
        run = plan.decide(now)
        assert isinstance(run, RunJob)
        predicted.append(run.predicted_s)
        took_s = STAGE_S[stage - 1] * factor
        now += took_s
        plan.exit_made(one.id, report(stage, now, took_s, share=share))
        ending = plan.run_ended(one.id, 0.0, now)
    assert ending is not None or isinstance(plan.decide(now), EndJob)
    return predicted


def test_frames_that_take_over_what_was_found_are_predicted_by_their_own_stream():
    plan = scheduler()
    machine = plan.costs.slow_down.mean
    first = compute(plan, frame("1", 0.0), 0.0, 1.0)
    for number in range(2, 20):
        last = compute(plan, frame(str(number), number), number, 0.25)
    assert first[0] == pytest.approx(0.010, rel=0.01)
    assert last[0] == pytest.approx(0.0025, rel=0.1)
    assert plan.costs.slow_down.mean == pytest.approx(machine, rel=0.01)
    assert compute(plan, frame("x", 50.0, "other"), 50.0, 1.0)[0] == pytest.approx(0.010, rel=0.01)
    alone = job("alone", 60.0, max_exit=2)
    assert compute(plan, alone, 60.0, 1.0)[0] == pytest.approx(0.010, rel=0.01)


def test_a_scene_that_begins_to_move_is_believed_at_once():
    plan = scheduler()
    for number in range(1, 10):
        compute(plan, frame(str(number), number), number, 1.0 if number == 1 else 0.25)
    compute(plan, frame("moves", 20.0), 20.0, 0.9)
    assert compute(plan, frame("next", 30.0), 30.0, 0.9)[0] == pytest.approx(0.009, rel=0.01)


def test_a_frame_that_was_held_up_once_does_not_keep_later_ones_from_their_depth():
    plan = scheduler()
    for number in range(1, 4):
        compute(plan, frame(str(number), number), number, 1.0 if number < 3 else 20.0)
    deepest = []
    for number in range(4, 40):
        one = job(str(number), number, deadline_ms=100.0, max_exit=2)
        one.stream = "cam"
        plan.submit(one, number)
        now = float(number)
        while isinstance(decision := plan.decide(now), RunJob):
            took_s = STAGE_S[decision.stage - 1]
            now += took_s
            plan.exit_made(one.id, report(decision.stage, now, took_s))
            if plan.run_ended(one.id, 0.0, now) is not None:
                break
        deepest.append(max(one.made, default=0))
    assert deepest[-1] == 2


def test_after_a_crash_or_with_another_size_the_next_frame_is_a_whole_one():
    plan = scheduler()
    for number in range(1, 10):
        compute(plan, frame(str(number), number), number, 1.0 if number == 1 else 0.25)
    larger = frame("large", 20.0)
    larger.height = 63
    assert compute(plan, larger, 20.0, 1.0)[0] == pytest.approx(0.010, rel=0.01)
    for number in range(31, 40):
        compute(plan, frame(str(number), number), number, 1.0 if number == 31 else 0.25)
    plan.executor_lost()
    plan.executor_started()
    assert compute(plan, frame("after", 50.0), 50.0, 1.0)[0] == pytest.approx(0.010, rel=0.02)


def test_what_a_stream_has_taught_is_forgotten_with_it():
    plan = scheduler()
    for number in range(1, 10):
        compute(plan, frame(str(number), number), number, 1.0 if number == 1 else 0.25)
    plan.costs.forget_stream("cam")
    assert compute(plan, frame("new", 20.0), 20.0, 1.0)[0] == pytest.approx(0.010, rel=0.01)
