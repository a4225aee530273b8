"""The loop over a fake executor, on a clock that only stages move."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Effect, ErrorCode, Reason
from anytime_protocol.messages import OutputOptions
from anytime_protocol.resources import ServerBudget
from anytime_server.core.decisions import Admitted, JobFailed, Rejected
from anytime_server.core.settings import SchedulerSettings
from anytime_server.engine.base import EngineState
from anytime_server.engine.loop import ExecutorLoop
from anytime_server.errors import DuplicateJobError, ExecutorCallError, ImageRejectedError
from anytime_server.metrics import Metrics
from server.factories import active_request
from server.fakes import EventRecorder, FakeClock, FakeExecutor

ONE_MAP = OutputOptions(progress=False)
RENDER_S = 0.005


@asynccontextmanager
async def running_loop(executor=None, **changes):
    clock = FakeClock()
    executor = executor or FakeExecutor(**changes)
    executor.clock = clock
    loop = ExecutorLoop(executor, Metrics(), SchedulerSettings(), clock, lambda request: None)
    await loop.start()
    task = asyncio.create_task(loop.run())
    try:
        yield loop, executor
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def submit(loop, request_id, budget=None, want=None, image=None):
    """Submits a request; its recorder, and what the loop answered."""
    recorder = EventRecorder()
    request = active_request(request_id, recorder, loop._clock(), budget, want)
    request.image = image or request.image
    return recorder, loop.submit(request)


def failing_image(error):
    image = asyncio.get_running_loop().create_future()
    image.set_exception(error)
    image.exception()
    return image


async def ended(*recorders):
    async with asyncio.timeout(10):
        for recorder in recorders:
            await recorder.ended.wait()


async def until_stage(executor, request_id, stage):
    """Returns when a stage is being computed."""
    async with asyncio.timeout(10):
        while ("run", request_id, stage) not in executor.log:
            await asyncio.sleep(0)


def close_gate_at(executor, stage):
    """Has a stage wait for the gate, or to be stopped."""
    executor.on_stage = lambda _, now: executor.gate.clear() if now == stage else None


async def test_a_request_is_shown_each_exit_and_ends_once():
    async with running_loop() as (loop, executor):
        recorder, answer = submit(loop, "a")
        await ended(recorder)
        assert isinstance(answer, Admitted)
        assert recorder.exits == [1, 2, 3]
        assert recorder.end.best.rendered.exit == 4
        assert recorder.end.ending.reason is Reason.COMPLETE
        assert ("forget", "a", 0) in executor.log
        assert loop.requests == {}


async def test_without_progress_only_the_last_exit_is_rendered():
    async with running_loop() as (loop, executor):
        recorder, _ = submit(loop, "a", want=ONE_MAP)
        await ended(recorder)
        assert recorder.exits == []
        assert recorder.end.best.rendered.exit == 4
        assert [entry for entry in executor.log if entry[0] == "render"] == [("render", "a", 4)]


async def test_while_others_wait_each_exit_is_rendered_with_its_run():
    async with running_loop() as (loop, executor):
        executor.gate.clear()
        first, _ = submit(loop, "a", Budget(deadline_ms=10_000), want=ONE_MAP)
        second, _ = submit(loop, "b", Budget(deadline_ms=10_000), want=ONE_MAP)
        executor.gate.set()
        await ended(first, second)
        assert all(command.render is not None for command in executor.commands[1:3])


async def test_times_add_up():
    async with running_loop() as (loop, _):
        recorder, _ = submit(loop, "a")
        request = loop.requests["a"]
        await ended(recorder)
        assert request.compute_s == pytest.approx(0.09)
        assert request.gmacs == 10.0
        assert request.exit == 4
        assert recorder.end.best.compute_s == pytest.approx(0.09)


class SlowlyRendering(FakeExecutor):
    """An executor whose renderings take time, as its stages do."""

    async def render(self, job_id, options):
        self.clock.now += RENDER_S
        return (await super().render(job_id, options))._replace(elapsed_s=RENDER_S)


@pytest.mark.parametrize("progress", [True, False])
@pytest.mark.parametrize("deadline_ms", [None, 130, 200, 10_000])
async def test_the_parts_of_a_requests_time_add_up_whatever_others_do(progress, deadline_ms):
    budget = Budget() if deadline_ms is None else Budget(deadline_ms=deadline_ms)
    async with running_loop(SlowlyRendering()) as (loop, _):
        want = OutputOptions(progress=progress)
        recorders = [submit(loop, name, budget, want)[0] for name in "abc"]
        requests = list(loop.requests.values())
        await ended(*recorders)
        for request in requests:
            parts = (request.queue_s, request.decode_s, request.compute_s, request.render_s)
            assert min(parts) >= 0
            rest_s = request.ended_s - request.job.arrival_s - sum(parts)
            # A rendering that a longer run has made needless counts nowhere.
            assert rest_s == pytest.approx(0) or (
                not progress and rest_s == pytest.approx(RENDER_S)
            )


# How far a run goes.


async def test_a_request_alone_is_one_run_up_to_its_depth():
    async with running_loop() as (loop, executor):
        recorder, _ = submit(loop, "a", Budget(max_exit=3), ONE_MAP)
        await ended(recorder)
        (command,) = executor.commands
        assert (command.stage, command.limits.last_stage) == (1, 3)
        assert executor.runs() == [1, 2, 3]
        assert recorder.end.best.rendered.exit == 3
        # rendered as part of the run, so that no second call is needed
        assert executor.log.index(("render", "a", 3)) < executor.log.index(("forget", "a", 0))


async def test_with_a_deadline_the_scheduler_decides_anew_after_exit_1():
    async with running_loop() as (loop, executor):
        recorder, _ = submit(loop, "a", Budget(deadline_ms=1e4), ONE_MAP)
        await ended(recorder)
        (command,) = executor.commands
        assert command.limits.notify
        assert not executor.limits.notify
        assert recorder.end.ending.exit == 4


@pytest.mark.parametrize("budget", [Budget(min_confidence=0.9), Budget(confident_share=0.9)])
async def test_a_request_that_an_exit_may_satisfy_is_run_stage_by_stage(budget):
    async with running_loop() as (loop, executor):
        recorder, _ = submit(loop, "a", budget, ONE_MAP)
        await ended(recorder)
        assert [command.limits.last_stage for command in executor.commands] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("max_risk", "risk"), [(None, None), (0.0, 0.0), (0.01, 0.0), (0.05, 0.02), (0.5, 0.1)]
)
async def test_a_request_is_computed_with_the_masks_of_the_risk_that_it_allows(max_risk, risk):
    async with running_loop() as (loop, executor):
        recorder, _ = submit(loop, "a", Budget(max_risk=max_risk), ONE_MAP)
        request = loop.requests["a"]
        await ended(recorder)
        assert [command.risk for command in executor.commands] == [risk]
        assert request.risk == risk


async def test_monotone_maps_are_asked_of_the_executor_and_have_no_certificate():
    async with running_loop() as (loop, executor):
        want = OutputOptions(progress=False, monotone=True)
        recorder, _ = submit(loop, "a", Budget(max_risk=0.5), want)
        await ended(recorder)
        assert (executor.commands[0].monotone, executor.commands[0].risk) == (True, 0.0)


async def test_the_operator_may_allow_less_risk_than_the_client():
    async with running_loop() as (loop, executor):
        loop.set_server_budget(ServerBudget(max_risk=0.03), 0.0)
        recorder, _ = submit(loop, "a", Budget(max_risk=0.1), ONE_MAP)
        await ended(recorder)
        assert executor.commands[0].risk == 0.02


async def test_a_risk_that_comes_during_the_computation_changes_nothing():
    async with running_loop() as (loop, executor):
        budget = Budget(confident_share=0.9, max_risk=0.1)  # stage by stage
        recorder, _ = submit(loop, "a", budget, ONE_MAP)
        request = loop.requests["a"]
        close_gate_at(executor, 2)
        await until_stage(executor, "a", 2)
        loop.update_budget(request, Budget(confident_share=0.9), 1)
        executor.gate.set()
        await ended(recorder)
        assert [command.risk for command in executor.commands] == [0.1] * 4
        assert request.risk == 0.1


async def test_a_second_request_ends_the_run_with_the_stage_that_is_computed():
    async with running_loop() as (loop, executor):
        close_gate_at(executor, 2)
        first, _ = submit(loop, "a", want=ONE_MAP)
        await until_stage(executor, "a", 2)
        second, _ = submit(loop, "b", Budget(max_exit=1), ONE_MAP)
        assert executor.limits.last_stage == 2
        executor.gate.set()
        await ended(first, second)
        runs = [entry[1:] for entry in executor.log if entry[0] == "run"]
        assert runs[:3] == [("a", 1), ("a", 2), ("b", 1)]


async def test_how_far_it_has_come_is_known_to_whoever_asks():
    async with running_loop() as (loop, executor):
        close_gate_at(executor, 3)
        recorder, _ = submit(loop, "a", want=ONE_MAP)
        await until_stage(executor, "a", 3)
        loop.take_exits()
        loop.take_exits()
        assert loop.requests["a"].exit == 2
        assert loop.requests["a"].compute_s == pytest.approx(0.03)
        executor.gate.set()
        await ended(recorder)
        assert len(executor.commands) == 1


# Cancelling and stopping.


async def test_cancelling_stops_the_running_stage_and_ends_the_request_once():
    async with running_loop() as (loop, executor):
        executor.gate.clear()
        recorder, _ = submit(loop, "a")
        request = loop.requests["a"]
        await executor.running.wait()
        loop.cancel(request, discard=True)
        loop.cancel(request, discard=True)
        assert executor.limits.last_stage == 0
        await ended(recorder)
        assert recorder.end.ending.reason is Reason.CANCELLED
        assert recorder.end.ending.exit == 0
        assert recorder.end.best is None


async def test_a_cancelled_request_that_is_still_watched_gets_what_it_has():
    async with running_loop() as (loop, executor):
        close_gate_at(executor, 3)
        recorder, _ = submit(loop, "a", want=ONE_MAP)
        await until_stage(executor, "a", 3)
        loop.cancel(loop.requests["a"], discard=False)
        await ended(recorder)
        assert recorder.end.ending.reason is Reason.CANCELLED
        assert recorder.end.best.rendered.exit == 2


async def test_a_cancel_that_comes_too_late_to_stop_the_last_stage_is_obeyed_all_the_same():
    class Deaf(FakeExecutor):
        def _must_stop(self, stage):
            return False

    async with running_loop(Deaf()) as (loop, executor):
        close_gate_at(executor, 4)
        recorder, _ = submit(loop, "a", want=ONE_MAP)
        await until_stage(executor, "a", 4)
        loop.cancel(loop.requests["a"], discard=True)
        executor.on_stage = lambda request_id, stage: None
        executor.gate.set()
        await ended(recorder)
        assert recorder.end.ending.reason is Reason.CANCELLED
        assert recorder.end.best is None
        second, _ = submit(loop, "b", want=ONE_MAP)
        await ended(second)
        assert executor.starts == 1


async def test_a_budget_that_shrinks_stops_the_running_stage():
    async with running_loop() as (loop, executor):
        close_gate_at(executor, 3)
        recorder, _ = submit(loop, "a")
        await until_stage(executor, "a", 3)
        change = loop.update_budget(loop.requests["a"], Budget(max_exit=2), 1)
        assert (change.effect, change.exit) == (Effect.APPLIED, 2)
        await ended(recorder)
        assert recorder.end.ending.reason is Reason.BUDGET
        assert recorder.end.best.rendered.exit == 2


async def test_a_budget_that_grows_again_lets_the_request_go_on():
    async with running_loop() as (loop, executor):
        close_gate_at(executor, 3)
        recorder, _ = submit(loop, "a")
        await until_stage(executor, "a", 3)
        request = loop.requests["a"]
        loop.update_budget(request, Budget(max_exit=2), 1)
        executor.on_stage = lambda request_id, stage: None
        loop.update_budget(request, Budget(), 2)
        executor.gate.set()
        await ended(recorder)
        assert recorder.end.ending.reason is Reason.COMPLETE


async def test_a_stage_ends_by_itself_when_its_deadline_comes():
    async with running_loop() as (loop, executor):

        def delay(_, stage):
            if stage == 4:
                executor.gate.clear()
                executor.clock.now += 0.2  # something has held the machine up

        executor.on_stage = delay
        recorder, _ = submit(loop, "a", Budget(deadline_ms=150))
        await ended(recorder)
        assert recorder.end.ending.reason is Reason.DEADLINE
        assert recorder.end.ending.exit == 3


async def test_a_limit_that_a_schedule_sets_stops_the_running_stage():
    async with running_loop() as (loop, executor):

        def delay(_, stage):
            if stage == 3:
                executor.gate.clear()
                executor.clock.now += 0.2

        executor.on_stage = delay
        recorder, _ = submit(loop, "a", Budget(schedule=((100.0, Budget(max_exit=2)),)))
        await ended(recorder)
        assert recorder.end.ending.reason is Reason.BUDGET
        assert recorder.end.ending.exit == 2


# Requests beside one another.


async def test_a_request_that_ends_while_another_computes_is_told_at_once():
    async with running_loop() as (loop, executor):

        def hold(request_id, stage):
            if (request_id, stage) == ("b", 1):
                executor.gate.clear()
                executor.clock.now += 0.060

        executor.on_stage = hold
        first, _ = submit(loop, "a", Budget(deadline_ms=55), ONE_MAP)
        await until_stage(executor, "a", 2)
        second, _ = submit(loop, "b", Budget(deadline_ms=2000), ONE_MAP)
        await ended(first)
        assert not second.ended.is_set()
        assert first.end.best.rendered.exit >= 1
        executor.gate.set()
        await ended(second)


async def test_an_image_that_cannot_be_decoded_ends_its_request_only():
    async with running_loop() as (loop, _):
        error = ImageRejectedError(ErrorCode.BAD_IMAGE, "truncated")
        bad, _ = submit(loop, "bad", image=failing_image(error))
        good, _ = submit(loop, "good")
        await ended(bad, good)
        assert bad.end.ending.code is ErrorCode.BAD_IMAGE
        assert good.end.ending.reason is Reason.COMPLETE


async def test_a_fault_of_the_decoder_ends_its_request_only():
    async with running_loop() as (loop, _):
        bad, _ = submit(loop, "bad", image=failing_image(KeyError("a fault of ours")))
        good, _ = submit(loop, "good")
        await ended(bad, good)
        assert bad.end.ending.code is ErrorCode.INTERNAL
        assert good.end.ending.reason is Reason.COMPLETE


async def test_cancelling_while_the_image_is_decoded_costs_no_stage():
    async with running_loop() as (loop, executor):
        image = asyncio.get_running_loop().create_future()
        recorder, _ = submit(loop, "a", image=image)
        await asyncio.sleep(0)
        loop.cancel(loop.requests["a"], discard=True)
        await ended(recorder)
        assert recorder.end.ending.reason is Reason.CANCELLED
        assert executor.log == []
        assert image.cancelled()


async def test_a_stage_that_fails_ends_its_request_only():
    async with running_loop(fail_at={"bad"}) as (loop, _):
        bad, _ = submit(loop, "bad")
        good, _ = submit(loop, "good")
        await ended(bad, good)
        assert bad.end.ending.code is ErrorCode.INTERNAL
        assert "no memory" in bad.end.ending.detail
        assert good.end.ending.reason is Reason.COMPLETE


async def test_an_exit_that_cannot_be_rendered_ends_its_request_only():
    class Faulty(FakeExecutor):
        def run(self, command, on_exit, on_end):
            return super().run(command._replace(render=None), on_exit, on_end)

        async def render(self, job_id, options):
            if job_id == "bad":
                raise ExecutorCallError("MemoryError: no memory")
            return await super().render(job_id, options)

    async with running_loop(Faulty()) as (loop, _):
        bad, _ = submit(loop, "bad")
        good, _ = submit(loop, "good")
        await ended(bad, good)
        assert "no memory" in bad.end.ending.detail
        assert good.end.ending.reason is Reason.COMPLETE


async def test_a_fault_in_the_middle_of_a_run_ends_its_request_only():
    async with running_loop() as (loop, executor):
        executor.on_stage = lambda request_id, stage: (
            executor.fail_at.add("a") if stage == 3 else None
        )
        recorder, _ = submit(loop, "a", want=ONE_MAP)
        await ended(recorder)
        assert isinstance(recorder.end.ending, JobFailed)
        executor.on_stage = lambda request_id, stage: None
        second, _ = submit(loop, "b", want=ONE_MAP)
        await ended(second)
        assert second.end.ending.exit == 4


async def test_an_id_can_be_active_only_once():
    async with running_loop() as (loop, executor):
        executor.gate.clear()
        submit(loop, "a")
        with pytest.raises(DuplicateJobError):
            submit(loop, "a")


async def test_a_client_whose_callback_fails_does_not_stop_the_others():
    class Faulty(EventRecorder):
        def __call__(self, event):
            super().__call__(event)
            raise RuntimeError("a fault of an adapter")

    async with running_loop() as (loop, _):
        faulty = Faulty()
        loop.submit(active_request("bad", faulty, loop._clock(), want=ONE_MAP))
        good, _ = submit(loop, "good")
        await ended(faulty, good)
        assert good.end.ending.reason is Reason.COMPLETE


# Crashes and the end.


async def until_state(loop, state):
    async with asyncio.timeout(10):
        while loop.state is not state:
            await asyncio.sleep(0)


def crash_at(executor, job_id, stage):
    def on_stage(running_id, now):
        if (running_id, now) == (job_id, stage):
            executor.on_stage = lambda *_: None
            executor.crash_at.add(job_id)

    executor.on_stage = on_stage


@pytest.mark.parametrize("stage", [1, 3])
async def test_a_crash_ends_the_request_that_was_computed_and_the_others_begin_again(stage):
    async with running_loop() as (loop, executor):
        crash_at(executor, "a", stage)
        first, _ = submit(loop, "a", want=ONE_MAP)
        others = [submit(loop, name)[0] for name in "bcd"]
        await ended(first, *others)
        assert first.end.ending.code is ErrorCode.INTERNAL
        for other in others:
            assert other.end.ending.reason is Reason.COMPLETE
            assert other.end.best.rendered.exit == 4
            assert other.exits == sorted(set(other.exits))
        assert executor.starts == 2
        assert loop.state is EngineState.READY


async def test_a_request_whose_deadline_comes_while_the_executor_starts_again_is_told():
    async with running_loop() as (loop, executor):
        crash_at(executor, "a", 1)
        executor.may_start.clear()
        first, _ = submit(loop, "a", Budget(deadline_ms=100), ONE_MAP)
        hurried, _ = submit(loop, "b", Budget(deadline_ms=200), want=ONE_MAP)
        patient, _ = submit(loop, "c", want=ONE_MAP)
        await ended(first)
        assert loop.state is EngineState.RECOVERING
        executor.clock.now += 0.2
        await ended(hurried)
        assert hurried.end.ending.code is ErrorCode.DEADLINE_EXCEEDED
        assert not patient.events
        executor.may_start.set()
        await ended(patient)
        assert patient.end.ending.exit == 4


async def test_a_map_that_was_shown_before_a_crash_is_the_answer_if_time_allows_no_other():
    async with running_loop() as (loop, executor):
        crash_at(executor, "a", 1)
        executor.may_start.clear()
        shown, _ = submit(loop, "b", Budget(deadline_ms=500))
        await until_stage(executor, "b", 1)
        culprit, _ = submit(loop, "a", Budget(deadline_ms=100), ONE_MAP)
        await ended(culprit)
        assert shown.exits == [1]
        executor.clock.now += 0.5
        await ended(shown)
        assert shown.end.ending.reason is Reason.DEADLINE
        assert shown.end.ending.exit == shown.end.best.rendered.exit == 1


async def test_the_death_of_an_idle_executor_is_noticed_at_once():
    async with running_loop() as (loop, executor):
        executor.may_start.clear()
        executor.die()
        await until_state(loop, EngineState.RECOVERING)
        executor.may_start.set()
        await until_state(loop, EngineState.READY)
        recorder, _ = submit(loop, "a")
        await ended(recorder)
        assert recorder.end.ending.exit == 4


async def test_a_death_while_an_image_is_decoded_costs_no_request():
    async with running_loop() as (loop, executor):
        image = asyncio.get_running_loop().create_future()
        recorder, _ = submit(loop, "a", image=image)
        await asyncio.sleep(0)
        executor.die()
        image.set_result(active_request("x", recorder, 0.0).image.result())
        await ended(recorder)
        assert (recorder.end.ending.exit, executor.starts) == (4, 2)


async def test_a_request_is_answered_after_its_deadline_though_the_executor_hangs():
    async with running_loop() as (loop, executor):
        executor.hangs = True
        first, _ = submit(loop, "a", Budget(deadline_ms=100), ONE_MAP)
        waiting, _ = submit(loop, "b", want=ONE_MAP)
        await until_stage(executor, "a", 1)
        executor.clock.now += 0.7
        await ended(first)
        assert first.end.ending.code is ErrorCode.DEADLINE_EXCEEDED
        assert not waiting.events
        executor.hangs = False
        executor.killed.set()
        await ended(waiting)
        assert waiting.end.ending.exit == 4
        assert len(first.events) == 1


async def test_the_best_map_is_the_answer_where_the_executor_hangs_later():
    async with running_loop() as (loop, executor):
        executor.on_stage = lambda _, stage: setattr(executor, "hangs", stage == 2)
        recorder, _ = submit(loop, "a", Budget(deadline_ms=100))
        await until_stage(executor, "a", 2)
        executor.clock.now += 0.7
        await ended(recorder)
        assert recorder.end.ending.reason is Reason.DEADLINE
        assert recorder.end.best.rendered.exit == 1


async def test_a_crash_during_a_drain_leaves_nobody_waiting():
    async with running_loop() as (loop, executor):
        executor.hangs = True
        requests = [submit(loop, name, want=ONE_MAP)[0] for name in "abc"]
        await until_stage(executor, "a", 1)
        draining = asyncio.create_task(loop.drain())
        await asyncio.sleep(0)
        executor.killed.set()
        await ended(*requests)
        await draining
        codes = [recorder.end.ending.code for recorder in requests]
        assert codes == [ErrorCode.INTERNAL, ErrorCode.DRAINING, ErrorCode.DRAINING]


async def test_a_drain_that_begins_while_the_executor_starts_again_is_over_at_once():
    async with running_loop() as (loop, executor):
        executor.may_start.clear()
        crash_at(executor, "a", 1)
        first, second = (submit(loop, name, want=ONE_MAP)[0] for name in "ab")
        await ended(first)
        await loop.drain()
        assert second.end.ending.code is ErrorCode.DRAINING


async def test_all_requests_can_be_ended_at_once_though_the_executor_hangs():
    async with running_loop() as (loop, executor):
        executor.on_stage = lambda _, stage: setattr(executor, "hangs", stage == 2)
        first, _ = submit(loop, "a")
        await until_stage(executor, "a", 2)
        second, _ = submit(loop, "b")
        loop.end_all()
        assert first.end.ending.reason is Reason.DRAINING
        assert first.end.best.rendered.exit == 1
        assert second.end.ending.code is ErrorCode.DRAINING
        executor.hangs, executor.on_stage = False, lambda *_: None
        executor.killed.set()
        third, _ = submit(loop, "c")
        await ended(third)
        assert third.end.ending.exit == 4


async def test_a_drain_answers_with_what_there_is_and_admits_no_more():
    async with running_loop() as (loop, executor):
        close_gate_at(executor, 3)
        first, _ = submit(loop, "a", want=ONE_MAP)
        second, _ = submit(loop, "b", want=ONE_MAP)
        while 3 not in executor.runs():
            await asyncio.sleep(0)
        draining = asyncio.create_task(loop.drain())
        await asyncio.sleep(0)
        _, answer = submit(loop, "c")
        assert isinstance(answer, Rejected)
        assert answer.code is ErrorCode.DRAINING
        executor.on_stage = lambda request_id, stage: None
        executor.gate.set()
        await ended(first, second)
        await draining
        assert {first.end.ending.reason, second.end.ending.reason} == {Reason.DRAINING}
        assert first.end.best is not None
        assert second.end.best is not None


async def test_a_drain_without_requests_is_over_at_once():
    async with running_loop() as (loop, _):
        await loop.drain()
        assert loop.state is EngineState.DRAINING


async def test_stopping_the_loop_leaves_no_request_without_its_end():
    async with running_loop() as (loop, executor):
        executor.gate.clear()
        recorders = [submit(loop, name)[0] for name in "abc"]
        await executor.running.wait()
    assert [recorder.end.ending.code for recorder in recorders] == [ErrorCode.INTERNAL] * 3


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["submit", "cancel", "discard", "budget", "crash", "die", "fail", "bad", "wait"]
        ),
        st.sampled_from("abcde"),
        st.integers(1, 6),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(ACTIONS)
def test_every_admitted_request_ends_exactly_once_whatever_happens(actions):
    async def scenario():
        admitted = []
        async with running_loop() as (loop, executor):
            for rev, (action, name, number) in enumerate(actions, start=1):
                active = loop.requests.get(name)
                match action:
                    case "submit" | "bad" if active is None:
                        error = ImageRejectedError(ErrorCode.BAD_IMAGE, "truncated")
                        image = failing_image(error) if action == "bad" else None
                        budget = Budget(deadline_ms=number * 60) if number < 6 else None
                        want = OutputOptions(progress=rev % 2 == 0)
                        recorder, answer = submit(loop, name, budget, want, image)
                        if isinstance(answer, Admitted):
                            admitted.append(recorder)
                    case "cancel" | "discard" if active is not None:
                        loop.cancel(active, discard=action == "discard")
                    case "budget" if active is not None:
                        loop.update_budget(active, Budget(max_exit=min(number, 4)), rev)
                    case "crash":
                        executor.crash_at.add(name)
                    case "die":
                        executor.die()
                    case "fail":
                        executor.fail_at.symmetric_difference_update({name})
                for _ in range(number):
                    await asyncio.sleep(0)
            executor.crash_at.clear()
            await ended(*admitted)
            for recorder in admitted:
                ending = recorder.end.ending
                assert recorder.exits == sorted(set(recorder.exits))
                if not isinstance(ending, JobFailed) and recorder.exits:
                    assert recorder.exits[-1] <= ending.exit
            assert loop.requests == {}

    asyncio.run(scenario())
