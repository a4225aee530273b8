"""Several executors as one, each a fake, on a clock that only stages move."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Effect, ErrorCode, Reason
from anytime_protocol.messages import OutputOptions
from anytime_protocol.resources import LoadCap, ServerBudget
from anytime_server.core.decisions import Admitted, JobFailed, Rejected
from anytime_server.core.settings import SchedulerSettings
from anytime_server.engine.base import EngineState
from anytime_server.engine.loop import ExecutorLoop
from anytime_server.engine.router import Router
from anytime_server.errors import DuplicateJobError, ExecutorStartError
from anytime_server.metrics import Metrics
from server.factories import active_request
from server.fakes import EventRecorder, FakeClock, FakeExecutor

ONE_MAP = OutputOptions(progress=False)


class NeverStarts(FakeExecutor):
    """Has no models."""

    async def start(self, on_failure):
        raise ExecutorStartError("no weights")


def router_over(executors, metrics=None, **settings):
    clock = FakeClock()
    for executor in executors:
        executor.clock = clock
    metrics = metrics or Metrics()
    each = SchedulerSettings(**settings).divided(len(executors))
    loops = [
        ExecutorLoop(executor, metrics, chosen, clock, lambda _: None, number=number)
        for number, (executor, chosen) in enumerate(zip(executors, each, strict=True))
    ]
    return Router(loops, clock)


@asynccontextmanager
async def running_router(count=1, **settings):
    executors = [FakeExecutor() for _ in range(count)]
    router = router_over(executors, **settings)
    await router.start()
    task = asyncio.create_task(router.run())
    try:
        yield router, executors
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def submit(router, request_id, budget=None, want=None):
    """Submits a request; its recorder, and what was answered."""
    recorder = EventRecorder()
    request = active_request(request_id, recorder, router._clock(), budget, want)
    return recorder, router.submit(request)


def submit_frame(router, request_id, stream):
    """Submits a frame of a stream that reuses what earlier ones have found."""
    request = active_request(request_id, EventRecorder(), router._clock())
    request.job.stream = stream
    return router.submit(request)


async def ended(*recorders):
    async with asyncio.timeout(10):
        for recorder in recorders:
            await recorder.ended.wait()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def until_stage(executor, request_id, stage):
    await until(lambda: ("run", request_id, stage) in executor.log)


def close_gate_at(executor, stage):
    """Has a stage wait for the gate, or to be stopped."""
    executor.on_stage = lambda _, now: executor.gate.clear() if now == stage else None


async def test_requests_are_computed_at_the_same_time_each_by_one_executor():
    async with running_router(2) as (router, executors):
        for executor in executors:
            executor.gate.clear()
        recorders = [submit(router, name, want=ONE_MAP)[0] for name in "ab"]
        await until_stage(executors[0], "a", 1)
        await until_stage(executors[1], "b", 1)
        for executor in executors:
            executor.gate.set()
        await ended(*recorders)
        assert [executor.runs() for executor in executors] == [[1, 2, 3, 4]] * 2


async def test_a_request_goes_where_least_work_is_waiting():
    async with running_router(2) as (router, executors):
        for executor in executors:
            executor.gate.clear()
        submit(router, "a", Budget(max_exit=4))
        for name in "bcd":
            submit(router, name, Budget(max_exit=1))
        assert [len(loop.requests) for loop in router._loops] == [1, 3]


async def test_the_frames_of_a_stream_go_to_the_executor_that_remembers_it():
    async with running_router(2) as (router, executors):
        for executor in executors:
            executor.gate.clear()
        submit(router, "a", Budget(max_exit=1))
        for number in range(3):
            submit_frame(router, f"cam/{number}", "cam")
        bound = router.requests["cam/0"].executor
        assert [router.requests[f"cam/{number}"].executor for number in range(3)] == [bound] * 3
        router.forget_stream("cam")
        submit_frame(router, "cam/3", "cam")
        assert router.requests["cam/3"].executor != bound  # the least loaded, as any request


async def test_the_frames_of_a_stream_go_on_elsewhere_when_its_executor_is_gone():
    async with running_router(2) as (router, _):
        submit_frame(router, "cam/0", "cam")
        bound = router.requests["cam/0"].executor
        router._loops[bound].state = EngineState.RECOVERING
        submit_frame(router, "cam/1", "cam")
        assert router.requests["cam/1"].executor != bound


async def test_a_request_that_the_least_loaded_refuses_is_taken_by_the_next():
    async with running_router(2, max_jobs=3) as (router, executors):
        for executor in executors:
            executor.gate.clear()
        submit(router, "a")
        submit(router, "b", Budget(max_exit=1))
        assert [loop.scheduler.settings.max_jobs for loop in router._loops] == [2, 1]
        _, answer = submit(router, "c")
        assert isinstance(answer, Admitted)
        assert router.requests["c"].executor == 0


async def test_a_request_is_found_by_its_id_wherever_it_is():
    async with running_router(2) as (router, executors):
        close_gate_at(executors[0], 2)
        close_gate_at(executors[1], 2)
        recorders = [submit(router, name)[0] for name in "ab"]
        await until_stage(executors[1], "b", 2)
        change = router.update_budget(router.requests["b"], Budget(max_exit=1), 1)
        assert change.effect is Effect.APPLIED
        await until_stage(executors[0], "a", 2)
        router.cancel(router.requests["a"], discard=False)
        await ended(*recorders)
        assert [r.end.ending.reason for r in recorders] == [Reason.CANCELLED, Reason.BUDGET]


async def test_an_id_can_be_active_only_once_on_all_executors():
    async with running_router(2) as (router, executors):
        for executor in executors:
            executor.gate.clear()
        submit(router, "a")
        with pytest.raises(DuplicateJobError):
            submit(router, "a")


async def test_the_bound_on_active_requests_is_that_of_all_executors_together():
    async with running_router(2, max_jobs=3) as (router, executors):
        for executor in executors:
            executor.gate.clear()
        answers = [submit(router, str(number))[1] for number in range(4)]
        assert [type(answer) for answer in answers] == [*[Admitted] * 3, Rejected]
        assert answers[3].code is ErrorCode.OVERLOADED


async def test_a_crash_takes_only_the_request_that_was_computed_and_others_move_at_once():
    async with running_router(2) as (router, (first, second)):
        second.gate.clear()
        first.crash_at.add("a")
        first.may_start.clear()
        crashing, other, waiting = (submit(router, name)[0] for name in "abc")
        assert [router.requests[name].executor for name in "abc"] == [0, 1, 0]
        await ended(crashing)
        assert isinstance(crashing.end.ending, JobFailed)
        assert router.requests["c"].executor == 1
        assert router.state is EngineState.READY
        second.gate.set()
        await ended(other, waiting)
        assert waiting.end.ending.reason is other.end.ending.reason is Reason.COMPLETE
        assert not first.may_start.is_set()


async def test_where_no_other_can_take_them_requests_wait_for_their_own_executor():
    async with running_router(2, max_jobs=3) as (router, (first, second)):
        second.gate.clear()
        first.crash_at.add("a")
        crashing, other, waiting = (submit(router, name)[0] for name in "abc")
        await ended(crashing, waiting)
        assert waiting.end.ending.reason is Reason.COMPLETE
        assert first.runs("c") == [1, 2, 3, 4]
        second.gate.set()
        await ended(other)


async def test_requests_are_refused_only_while_no_executor_is_left():
    async with running_router(2) as (router, executors):
        for executor in executors:
            executor.may_start.clear()
        executors[0].die()
        await until(lambda: router._loops[0].state is EngineState.RECOVERING)
        assert router.state is EngineState.READY
        executors[1].die()
        await until(lambda: router.state is EngineState.RECOVERING)
        for executor in executors:
            executor.may_start.set()
        await until(lambda: router.state is EngineState.READY)


async def test_an_executor_that_cannot_start_ends_the_start_of_all():
    waiting = FakeExecutor()
    waiting.may_start.clear()
    router = router_over([waiting, NeverStarts()])
    with pytest.raises(ExecutorStartError, match="no weights"):
        await router.start()
    assert router.state is EngineState.STARTING


async def test_a_drain_ends_the_requests_of_all_executors():
    async with running_router(2) as (router, executors):
        for executor in executors:
            close_gate_at(executor, 2)
        recorders = [submit(router, name)[0] for name in "ab"]
        for executor, name in zip(executors, "ab", strict=True):
            await until_stage(executor, name, 2)
        draining = asyncio.create_task(router.drain())
        await until(lambda: router.state is EngineState.DRAINING)
        for executor in executors:
            executor.gate.set()
        await ended(*recorders)
        await draining
        assert router.state is EngineState.DRAINING
        assert {r.end.ending.reason for r in recorders} == {Reason.DRAINING}


async def test_load_and_requests_are_summed_and_the_operators_budget_goes_to_all():
    async with running_router(2) as (router, executors):
        for executor in executors:
            executor.gate.clear()
        recorders = [submit(router, name)[0] for name in "abc"]
        status = router.server_budget()
        assert status.in_flight == 3
        assert status.load_s == pytest.approx(3 * 0.09)
        router.set_server_budget(ServerBudget(max_exit=1), 0.0)
        for executor in executors:
            executor.gate.set()
        await ended(*recorders)
        assert {r.end.ending.exit for r in recorders} == {1}


async def test_metrics_tell_executors_apart():
    metrics = Metrics()
    executors = [FakeExecutor(), FakeExecutor()]
    router = router_over(executors, metrics)
    await router.start()
    for executor in executors:
        executor.gate.clear()
    for name in "abc":
        submit(router, name)
    text = metrics.expose().decode()
    assert 'anytime_requests_in_house{executor="0"} 2.0' in text
    assert 'anytime_requests_in_house{executor="1"} 1.0' in text


async def test_the_operators_budget_reaches_running_requests():
    async with running_router() as (router, (executor,)):
        close_gate_at(executor, 3)
        recorder, _ = submit(router, "a")
        await until_stage(executor, "a", 3)
        router.set_server_budget(ServerBudget(max_exit=1), 0.0)
        assert router.server_budget().effective == Budget(max_exit=1)
        await ended(recorder)
        assert recorder.end.ending.reason is Reason.BUDGET


async def test_the_reported_effective_budget_is_the_one_enforced_hysteresis_included():
    cap = LoadCap(above_s=0.15, below_s=0.05, max_exit=2)
    async with running_router() as (router, (executor,)):
        router.set_server_budget(ServerBudget(load_caps=(cap,)), 0.0)
        executor.gate.clear()
        first, _ = submit(router, "a", want=ONE_MAP)
        second, _ = submit(router, "b", want=ONE_MAP)
        assert router.server_budget().effective == Budget(max_exit=2)
        await executor.running.wait()
        router.cancel(router.requests["b"], discard=True)
        await ended(second)
        assert cap.below_s < router.server_budget().load_s < cap.above_s
        assert router.server_budget().effective == Budget(max_exit=2)
        executor.gate.set()
        await ended(first)
        assert first.end.ending.exit == 2
