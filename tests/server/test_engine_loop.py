"""The engine loop with a fake executor and a clock that only stages move."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anytime_protocol.budget import Budget
from anytime_protocol.client_messages import OutputOptions
from anytime_protocol.enums import Effect, ErrorCode, Reason
from anytime_server.core.costs import CostModel, SideCost
from anytime_server.core.jobs import Admitted, Failed, Rejected
from anytime_server.core.limits import ServerBudget
from anytime_server.core.scheduler import Scheduler
from anytime_server.engine.loop import EngineLoop, State
from anytime_server.errors import DuplicateJobError
from anytime_server.images import ImageError
from anytime_server.metrics import Metrics
from server.server_fakes import FakeClock, FakeExecutor, Teller, load, ticket

FREE = SideCost(fixed_s=1e-9, per_mpx_s=0.0)


def scheduler(models):
    costs = CostModel(
        (m.profile for m in models),
        {"image/jpeg": FREE},
        dict.fromkeys(("png", "raw"), FREE),
    )
    return Scheduler(costs)


@asynccontextmanager
async def house(**changes):
    clock = FakeClock()
    executor = FakeExecutor(clock, **changes)
    engine = EngineLoop(executor, Metrics(), scheduler, clock)
    await engine.start()
    running = asyncio.create_task(engine.run())
    try:
        yield engine, executor
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def submit(engine, job_id, budget=None, image=load, **changes):
    teller = Teller()
    answer = engine.submit(ticket(job_id, teller, engine.clock(), budget, **changes), image)
    return teller, answer


async def over(*tellers):
    async with asyncio.timeout(10):
        for teller in tellers:
            await teller.over.wait()


async def test_a_request_is_shown_each_exit_and_ends_once():
    async with house() as (engine, executor):
        teller, answer = submit(engine, "a")
        await over(teller)
        assert isinstance(answer, Admitted)
        assert teller.exits == [1, 2, 3, 4]
        assert teller.end.ending.reason is Reason.COMPLETE
        assert ("forget", "a", 0) in executor.log
        assert engine.tickets == {}


async def test_without_progress_only_the_last_exit_becomes_a_picture():
    async with house() as (engine, executor):
        teller, _ = submit(engine, "a", want=OutputOptions(progress=False))
        await over(teller)
        assert teller.exits == []
        assert teller.end.shown.picture.exit == 4
        assert [entry for entry in executor.log if entry[0] == "show"] == [("show", "a", 4)]


async def test_times_add_up():
    async with house() as (engine, _):
        teller, _ = submit(engine, "a")
        work = engine.tickets["a"]
        await over(teller)
        assert work.compute_s == pytest.approx(0.09)
        assert work.gmacs == 10.0
        assert work.exit == 4


async def test_cancelling_stops_the_running_stage_and_ends_the_request_once():
    async with house() as (engine, executor):
        executor.gate.clear()
        teller, _ = submit(engine, "a")
        await executor.running.wait()
        engine.cancel("a", discard=True)
        engine.cancel("a", discard=True)
        await over(teller)
        assert executor.stops >= 1
        assert teller.end.ending.reason is Reason.CANCELLED
        assert teller.end.ending.exit == 0
        assert teller.end.shown is None


async def test_a_cancelled_request_that_is_still_watched_shows_what_it_has():
    async with house() as (engine, executor):
        executor.on_stage = lambda job_id, stage: executor.gate.clear() if stage == 3 else None
        teller, _ = submit(engine, "a", want=OutputOptions(progress=False))
        while ("run", "a", 3) not in executor.log:
            await asyncio.sleep(0)
        engine.cancel("a", discard=False)
        await over(teller)
        assert teller.end.ending.reason is Reason.CANCELLED
        assert teller.end.shown.picture.exit == 2


async def test_cancelling_an_unknown_request_does_nothing():
    async with house() as (engine, _):
        engine.cancel("nobody", discard=True)
        teller, _ = submit(engine, "a")
        await over(teller)
        assert teller.end.ending.reason is Reason.COMPLETE


async def test_a_budget_that_shrinks_stops_the_running_stage():
    async with house() as (engine, executor):
        executor.on_stage = lambda job_id, stage: executor.gate.clear() if stage == 3 else None
        teller, _ = submit(engine, "a")
        while ("run", "a", 3) not in executor.log:
            await asyncio.sleep(0)
        answer = engine.update_budget("a", Budget(max_exit=2), 1)
        await over(teller)
        assert answer.effect is Effect.APPLIED
        assert answer.stops_stage
        assert teller.end.ending.reason is Reason.BUDGET
        assert teller.exits == [1, 2]


async def test_a_budget_that_grows_again_lets_the_request_go_on():
    async with house() as (engine, executor):
        seen = []
        executor.on_stage = lambda job_id, stage: (
            (executor.gate.clear(), seen.append(stage)) if stage == 3 and not seen else None
        )
        teller, _ = submit(engine, "a")
        while not seen:
            await asyncio.sleep(0)
        engine.update_budget("a", Budget(max_exit=2), 1)
        engine.update_budget("a", Budget(), 2)
        executor.gate.set()
        await over(teller)
        assert teller.end.ending.reason is Reason.COMPLETE


async def test_a_stage_is_stopped_when_its_deadline_comes():
    async with house() as (engine, executor):

        def late(job_id, stage):
            if stage == 4:
                executor.gate.clear()
                engine.clock.now += 0.2  # something has held the machine up

        executor.on_stage = late
        teller, _ = submit(engine, "a", Budget(deadline_ms=150))
        await over(teller)
        assert teller.end.ending.reason is Reason.DEADLINE
        assert teller.end.ending.exit == 3


async def test_a_limit_that_a_schedule_sets_stops_the_running_stage():
    async with house() as (engine, executor):

        def later(job_id, stage):
            if stage == 3:
                executor.gate.clear()
                engine.clock.now += 0.2

        executor.on_stage = later
        teller, _ = submit(engine, "a", Budget(schedule=((100.0, Budget(max_exit=2)),)))
        await over(teller)
        assert teller.end.ending.reason is Reason.BUDGET
        assert teller.end.ending.exit == 2


async def test_the_operators_budget_reaches_running_requests():
    async with house() as (engine, executor):
        executor.on_stage = lambda job_id, stage: executor.gate.clear() if stage == 3 else None
        teller, _ = submit(engine, "a")
        while ("run", "a", 3) not in executor.log:
            await asyncio.sleep(0)
        engine.set_server_budget(ServerBudget(limits=Budget(max_exit=1)))
        assert engine.server_limits() == Budget(max_exit=1)
        await over(teller)
        assert teller.end.ending.reason is Reason.BUDGET


async def test_a_request_that_ends_while_another_computes_is_told_at_once():
    async with house() as (engine, executor):

        def hold(job_id, stage):
            if (job_id, stage) == ("b", 1):
                executor.gate.clear()
                engine.clock.now += 0.060

        executor.on_stage = hold
        first, _ = submit(engine, "a", Budget(deadline_ms=55), want=OutputOptions(progress=False))
        while ("run", "a", 2) not in executor.log:
            await asyncio.sleep(0)
        second, _ = submit(
            engine, "b", Budget(deadline_ms=2000), want=OutputOptions(progress=False)
        )
        await over(first)
        assert not second.over.is_set()
        assert first.end.shown.picture.exit >= 1
        executor.gate.set()
        await over(second)


async def test_an_image_that_cannot_be_decoded_ends_its_request_only():
    async def broken():
        raise ImageError(ErrorCode.BAD_IMAGE, "truncated")

    async with house() as (engine, _):
        bad, _ = submit(engine, "bad", image=broken)
        good, _ = submit(engine, "good")
        await over(bad, good)
        assert bad.end.ending.code is ErrorCode.BAD_IMAGE
        assert good.end.ending.reason is Reason.COMPLETE


async def test_a_mistake_in_decoding_ends_its_request_only():
    async def broken():
        raise KeyError("a mistake of ours")

    async with house() as (engine, _):
        bad, _ = submit(engine, "bad", image=broken)
        good, _ = submit(engine, "good")
        await over(bad, good)
        assert bad.end.ending.code is ErrorCode.INTERNAL
        assert good.end.ending.reason is Reason.COMPLETE


async def test_cancelling_while_the_image_is_decoded_costs_no_stage():
    started = asyncio.Event()

    async def slow():
        started.set()
        await asyncio.Event().wait()

    async with house() as (engine, executor):
        teller, _ = submit(engine, "a", image=slow)
        await started.wait()
        engine.cancel("a", discard=True)
        await over(teller)
        assert teller.end.ending.reason is Reason.CANCELLED
        assert executor.log == []


async def test_a_stage_that_fails_ends_its_request_only():
    async with house(fail_at={"bad"}) as (engine, _):
        bad, _ = submit(engine, "bad")
        good, _ = submit(engine, "good")
        await over(bad, good)
        assert bad.end.ending.code is ErrorCode.INTERNAL
        assert "no memory" in bad.end.ending.detail
        assert good.end.ending.reason is Reason.COMPLETE


async def test_a_crash_ends_the_requests_in_the_house_and_the_executor_starts_again():
    async with house(crash_at={"a"}) as (engine, executor):
        first, _ = submit(engine, "a")
        second, _ = submit(engine, "b")
        await over(first, second)
        assert first.end.ending.code is second.end.ending.code is ErrorCode.INTERNAL
        while engine.state is not State.READY:
            await asyncio.sleep(0)
        assert executor.starts == 2
        third, _ = submit(engine, "c")
        await over(third)
        assert third.end.ending.reason is Reason.COMPLETE


async def test_nothing_is_admitted_while_the_executor_starts_again():
    gate = asyncio.Event()

    class Slow(FakeExecutor):
        async def start(self):
            if self.starts:
                await gate.wait()
            return await super().start()

    clock = FakeClock()
    executor = Slow(clock, crash_at={"a"})
    engine = EngineLoop(executor, Metrics(), scheduler, clock)
    assert submit(engine, "early")[1].code is ErrorCode.NOT_READY
    await engine.start()
    running = asyncio.create_task(engine.run())
    first, _ = submit(engine, "a")
    await over(first)
    _, answer = submit(engine, "b")
    assert answer.code is ErrorCode.NOT_READY
    gate.set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_id_can_be_in_the_house_only_once():
    async with house() as (engine, executor):
        executor.gate.clear()
        submit(engine, "a")
        with pytest.raises(DuplicateJobError):
            submit(engine, "a")


async def test_a_drain_answers_with_what_there_is_and_admits_no_more():
    async with house() as (engine, executor):
        executor.on_stage = lambda job_id, stage: executor.gate.clear() if stage == 3 else None
        teller, _ = submit(engine, "a", want=OutputOptions(progress=False))
        fresh, _ = submit(engine, "b", want=OutputOptions(progress=False))
        while not any(entry[2] == 3 for entry in executor.log):
            await asyncio.sleep(0)
        draining = asyncio.create_task(engine.drain())
        await asyncio.sleep(0)
        _, answer = submit(engine, "c")
        assert isinstance(answer, Rejected)
        assert answer.code is ErrorCode.DRAINING
        executor.gate.set()
        executor.on_stage = lambda job_id, stage: None
        await over(teller, fresh)
        await draining
        assert {teller.end.ending.reason, fresh.end.ending.reason} == {Reason.DRAINING}
        assert teller.end.shown is not None
        assert fresh.end.shown is not None


async def test_a_drain_of_an_empty_house_is_over_at_once():
    async with house() as (engine, _):
        await engine.drain()
        assert engine.state is State.DRAINING


async def test_stopping_the_loop_leaves_no_request_without_its_end():
    async with house() as (engine, executor):
        executor.gate.clear()
        tellers = [submit(engine, name)[0] for name in "abc"]
        await executor.running.wait()
    assert [teller.end.ending.code for teller in tellers] == [ErrorCode.INTERNAL] * 3


async def test_a_client_whose_sink_fails_does_not_stop_the_others():
    class Broken(Teller):
        def __call__(self, happening):
            super().__call__(happening)
            raise RuntimeError("a mistake in an adapter")

    async with house() as (engine, _):
        broken = Broken()
        engine.submit(
            ticket("bad", broken, engine.clock(), want=OutputOptions(progress=False)), load
        )
        good, _ = submit(engine, "good")
        await over(broken, good)
        assert good.end.ending.reason is Reason.COMPLETE


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "cancel", "discard", "budget", "crash", "fail", "bad", "wait"]),
        st.sampled_from("abcde"),
        st.integers(1, 6),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(ACTIONS)
def test_every_admitted_request_ends_exactly_once_whatever_happens(actions):
    async def broken():
        raise ImageError(ErrorCode.BAD_IMAGE, "truncated")

    async def story():
        admitted = []
        async with house() as (engine, executor):
            for rev, (action, name, number) in enumerate(actions, start=1):
                match action:
                    case "submit" | "bad" if name not in engine.tickets:
                        image = broken if action == "bad" else load
                        budget = Budget(deadline_ms=number * 60) if number < 6 else None
                        want = OutputOptions(progress=rev % 2 == 0)
                        teller, answer = submit(engine, name, budget, image, want=want)
                        if isinstance(answer, Admitted):
                            admitted.append(teller)
                    case "cancel" | "discard":
                        engine.cancel(name, discard=action == "discard")
                    case "budget":
                        engine.update_budget(name, Budget(max_exit=min(number, 4)), rev)
                    case "crash":
                        executor.crash_at.add(name)
                    case "fail":
                        executor.fail_at.symmetric_difference_update({name})
                for _ in range(number):
                    await asyncio.sleep(0)
            executor.crash_at.clear()
            await over(*admitted)
            for teller in admitted:
                ending = teller.end.ending
                assert teller.exits == sorted(set(teller.exits))
                if not isinstance(ending, Failed) and teller.exits:
                    assert teller.exits[-1] <= ending.exit
            assert engine.tickets == {}

    asyncio.run(story())


async def test_a_request_alone_lets_the_executor_go_ahead_up_to_its_depth():
    async with house() as (engine, executor):
        teller, _ = submit(engine, "a", Budget(max_exit=3))
        await over(teller)
        assert executor.ahead == [True, True, False]


async def test_a_request_alone_that_wants_one_map_is_one_call_of_the_executor():
    async with house() as (engine, executor):
        teller, _ = submit(engine, "a", Budget(max_exit=3), want=OutputOptions(progress=False))
        work = engine.tickets["a"]
        await over(teller)
        assert executor.through == [3]
        assert executor.ahead == [False]
        assert work.compute_s == pytest.approx(0.05)
        assert (work.exit, work.gmacs) == (3, 6.0)
        assert engine.scheduler.load_s == 0.0
        # and nobody has to ask for the picture of the exit that is foreseen to be the last
        assert executor.log.index(("show", "a", 3)) < executor.log.index(("forget", "a", 0))


async def test_with_a_deadline_exit_1_is_told_before_it_goes_on():
    async with house() as (engine, executor):
        teller, _ = submit(engine, "a", Budget(deadline_ms=1e4), want=OutputOptions(progress=False))
        await over(teller)
        assert executor.through == [1, 4]
        assert executor.ahead == [True, False]
        assert teller.end.ending.exit == 4


@asynccontextmanager
async def amid(stage, **changes):
    """A request for one map, in one call of the executor that is in the middle of `stage`."""
    async with house() as (engine, executor):
        executor.on_stage = lambda _, now: executor.gate.clear() if now == stage else None
        teller, _ = submit(engine, "a", want=OutputOptions(progress=False), **changes)
        while ("run", "a", stage) not in executor.log:
            await asyncio.sleep(0)
        yield engine, executor, teller


async def test_how_far_it_has_come_is_known_to_whoever_asks():
    async with amid(3) as (engine, executor, teller):
        assert engine.tickets["a"].exit == 0
        engine.catch_up()
        engine.catch_up()
        assert engine.tickets["a"].exit == 2
        assert engine.tickets["a"].compute_s == pytest.approx(0.03)
        executor.gate.set()
        await over(teller)
        assert executor.through == [4]


async def test_a_second_request_ends_the_call_with_the_stage_that_runs():
    async with amid(2) as (engine, executor, teller):
        second, _ = submit(engine, "b", Budget(max_exit=1), want=OutputOptions(progress=False))
        executor.gate.set()
        await over(teller, second)
        runs = [entry[1:] for entry in executor.log if entry[0] == "run"]
        assert runs[:3] == [("a", 1), ("a", 2), ("b", 1)]
        assert executor.through[0] == 4


async def test_a_new_budget_stops_what_goes_beyond_it():
    async with amid(3) as (engine, _, teller):
        answer = engine.update_budget("a", Budget(max_exit=2), 1)
        assert (answer.at_exit, answer.stops_stage) == (2, True)
        await over(teller)
        assert teller.end.ending.reason is Reason.BUDGET
        assert teller.end.shown.picture.exit == 2


async def test_an_operators_new_budget_stops_it_as_well():
    async with amid(3) as (engine, _, teller):
        engine.set_server_budget(ServerBudget(Budget(max_exit=2)))
        await over(teller)
        assert teller.end.ending.exit == 2


async def test_an_error_amid_several_stages_is_the_end_of_that_request_only():
    async with amid(3) as (engine, executor, teller):
        second, _ = submit(engine, "b", want=OutputOptions(progress=False))
        executor.fail_at.add("a")
        executor.on_stage = lambda job, stage: None
        executor.gate.set()
        await over(teller, second)
        assert isinstance(teller.end.ending, Failed)
        assert second.end.ending.exit == 4


async def test_a_crash_amid_several_stages_leaves_nothing_behind():
    async with house() as (engine, executor):
        executor.on_stage = lambda job, now: executor.crash_at.add(job) if now == 3 else None
        teller, _ = submit(engine, "a", want=OutputOptions(progress=False))
        await over(teller)
        assert isinstance(teller.end.ending, Failed)
        executor.on_stage = lambda job, now: None
        while engine.state is not State.READY:
            await asyncio.sleep(0)
        second, _ = submit(engine, "b", want=OutputOptions(progress=False))
        await over(second)
        assert second.end.ending.exit == 4


async def test_a_second_request_takes_the_word_to_go_ahead_back():
    async with house() as (engine, executor):
        executor.gate.clear()
        first, _ = submit(engine, "a")
        await executor.running.wait()
        before = executor.holds
        second, _ = submit(engine, "b")
        assert executor.holds == before + 1
        executor.gate.set()
        await over(first, second)
        assert executor.ahead[:2] == [True, False]


async def test_a_request_that_confidence_may_end_is_never_gone_ahead_with():
    async with house() as (engine, executor):
        teller, _ = submit(engine, "a", Budget(min_confidence=0.99))
        await over(teller)
        assert not any(executor.ahead)
