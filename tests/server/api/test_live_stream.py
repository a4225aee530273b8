"""Streams on `/v1/stream` over real sockets, a fake executor behind."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from anytime_protocol.arrays.segments import split, unpack
from anytime_protocol.budget import Budget
from anytime_protocol.enums import CloseReason, Effect, Encoding, ErrorCode, Reason
from anytime_protocol.messages import (
    BudgetApplied,
    Cancel,
    CloseStream,
    Failed,
    Finished,
    Frame,
    Infer,
    OpenStream,
    OutputOptions,
    ReuseOptions,
    SetBudget,
    Update,
)
from anytime_protocol.stream_answers import (
    FrameEnd,
    MeasuredDifference,
    StreamClosed,
    StreamOpened,
)
from anytime_server.executor.base import FinishedFrame
from server.api.test_websocket import client
from server.factories import SIZE, STREET, damaged_image_file, image_file, served_model
from server.fakes import FakeExecutor

QUICK = Budget(max_exit=1)


def opening(stream_id="s", **changes):
    return OpenStream(stream_id, "street", **changes)


def frame(number, stream_id="s", data=None, media_type="image/jpeg"):
    return Frame(stream_id, number, image_file() if data is None else data, media_type)


async def until(one, *kinds, stream_id="s"):
    """All that is said about a stream, up to the first message of one of these kinds."""
    told = []
    while not told or not isinstance(told[-1], kinds):
        message = await one.hear()
        if getattr(message, "id", None) == stream_id:
            told.append(message)
    return told


async def to_the_end(one, stream_id="s"):
    return await until(one, StreamClosed, Failed, stream_id=stream_id)


def counts(closed):
    return closed.frames, closed.skipped, closed.failed


async def test_a_stream_answers_frame_after_frame_and_ends_once(live):
    async with client(live) as one:
        await one.say(opening())
        told = await until(one, StreamOpened)
        for number in (1, 2, 9):
            await one.say(frame(number))
            told += await until(one, FrameEnd)
        await one.say(CloseStream("s"))
        told += await to_the_end(one)
        ends = [message for message in told if isinstance(message, FrameEnd)]
        assert [(end.frame, end.exit, end.reason) for end in ends] == [
            (number, 4, Reason.COMPLETE) for number in (1, 2, 9)
        ]
        assert ends[0].compute_ms == pytest.approx(90.0)
        assert told[-1] == StreamClosed("s", CloseReason.CLOSED, 3, 0, 0)
        assert sum(isinstance(message, StreamClosed) for message in told) == 1


async def test_the_latest_frame_wins_and_those_skipped_are_counted(live):
    executor = live.executor
    async with client(live) as one:
        executor.gate.clear()
        await one.say(opening(budget=QUICK), frame(1))
        async with asyncio.timeout(5):
            await executor.running.wait()
        await one.say(*(frame(number) for number in range(2, 7)), CloseStream("s"))
        await one.say(SetBudget("s", 1, QUICK))
        await until(one, BudgetApplied)  # all frames are there
        executor.gate.set()
        told = await to_the_end(one)
        ends = [message for message in told if isinstance(message, FrameEnd)]
        assert [(end.frame, end.skipped) for end in ends] == [(1, 4), (6, 0)]
        assert counts(told[-1]) == (2, 4, 0)
        assert executor.runs() == [1, 1]


async def test_deltas_go_on_from_frame_to_frame(live):
    async with client(live) as one:
        want = OutputOptions(Encoding.DELTA, confidence=True)
        await one.say(opening(want=want))
        held, last, encodings = {}, None, []
        for number in range(1, 4):
            await one.say(frame(number))
            for update in await until(one, FrameEnd):
                if not isinstance(update, Update):
                    continue
                assert update.frame == number
                pieces = split(update.parts, update.payload)
                for part, piece in zip(update.parts, pieces, strict=True):
                    encodings.append(part.encoding)
                    if part.encoding is Encoding.DELTA:
                        assert (part.base_frame, part.base) == last
                    held[part.name] = unpack(part, piece, held.get(part.name))
                last = (number, update.exit)
        labels = np.frombuffer(held["map"], np.uint8).reshape(SIZE)
        assert set(labels.ravel()) == {0, 4}
        assert encodings[:2] == [Encoding.RAW, Encoding.RAW]
        assert Encoding.DELTA in encodings


async def test_an_image_of_another_size_is_not_sent_as_a_delta(live):
    async with client(live) as one:
        await one.say(opening(want=OutputOptions(Encoding.DELTA), budget=QUICK), frame(1))
        await until(one, FrameEnd)
        await one.say(frame(2, data=image_file(size=(30, 40))))
        update = next(m for m in await until(one, FrameEnd) if isinstance(m, Update))
        assert (update.height, update.width) == (30, 40)
        assert update.parts[0].encoding is Encoding.RAW


async def test_a_frame_that_cannot_be_read_fails_alone(live):
    async with client(live) as one:
        await one.say(opening(budget=QUICK))
        ends = []
        for number, data, media_type in (
            (1, b"no image", "image/jpeg"),
            (2, b"", "image/jpeg"),
            (3, image_file(), "image/gif"),
            (4, damaged_image_file(), "image/png"),
            (5, image_file(), "image/jpeg"),
        ):
            await one.say(frame(number, data=data, media_type=media_type))
            ends += (await until(one, FrameEnd))[-1:]
        assert [end.error and end.error.code for end in ends] == [
            ErrorCode.BAD_IMAGE,
            ErrorCode.BAD_IMAGE,
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            ErrorCode.BAD_IMAGE,
            None,
        ]
        await one.say(CloseStream("s"))
        assert counts((await to_the_end(one))[-1]) == (1, 0, 4)


async def test_a_frame_whose_deadline_cannot_be_met_fails_with_what_would_do(live):
    async with client(live) as one:
        await one.say(opening(budget=Budget(deadline_ms=1)), frame(1))
        end = (await until(one, FrameEnd))[-1]
        assert end.error.code is ErrorCode.DEADLINE_EXCEEDED
        assert end.error.needed_ms > 10


async def test_a_new_budget_holds_for_the_frame_under_way_and_all_later_ones(live):
    executor = live.executor
    async with client(live) as one:
        await one.say(opening(), frame(1))
        assert (await until(one, FrameEnd))[-1].exit == 4
        executor.gate.clear()
        await one.say(frame(2))
        async with asyncio.timeout(5):
            await executor.running.wait()
        await one.say(SetBudget("s", 3, Budget(max_exit=2)))
        applied = (await until(one, BudgetApplied))[-1]
        assert (applied.rev, applied.effect) == (3, Effect.APPLIED)
        executor.gate.set()
        end = (await until(one, FrameEnd))[-1]
        assert (end.exit, end.reason) == (2, Reason.BUDGET)
        await one.say(frame(3))
        assert (await until(one, FrameEnd))[-1].exit == 2


async def test_a_cancelled_stream_ends_its_frame_with_the_best_map(live):
    def stop_at_two(_job, stage):
        if stage == 2:
            live.executor.gate.clear()

    live.executor.on_stage = stop_at_two
    async with client(live) as one:
        await one.say(opening(), frame(1))
        await until(one, Update)
        await one.say(frame(2), Cancel("s"))
        told = await to_the_end(one)
        (end,) = (message for message in told if isinstance(message, FrameEnd))
        assert (end.frame, end.exit, end.reason) == (1, 1, Reason.CANCELLED)
        assert told[-1] == StreamClosed("s", CloseReason.CANCELLED, 1, 1, 0)


async def test_a_stream_without_frames_closes_at_once(live):
    for end, reason in (
        (CloseStream("s"), CloseReason.CLOSED),
        (Cancel("s"), CloseReason.CANCELLED),
    ):
        async with client(live) as one:
            await one.say(opening(), end)
            assert (await to_the_end(one))[-1] == StreamClosed("s", reason, 0, 0, 0)


async def test_an_open_that_is_refused_is_an_error_and_its_frames_are_passed_over(live):
    async with client(live) as one:
        await one.say(OpenStream("s", "nothing"), frame(1), CloseStream("s"))
        (failed,) = await to_the_end(one)
        assert failed.code is ErrorCode.UNKNOWN_MODEL
        await one.say(opening(budget=QUICK), frame(1), CloseStream("s"))
        assert counts((await to_the_end(one))[-1]) == (1, 0, 0)


async def test_a_crash_costs_one_frame_and_the_stream_goes_on(live):
    executor = live.executor
    async with client(live) as one:
        await one.say(opening(budget=QUICK))
        executor.on_stage = lambda job, _stage: executor.crash_at.update(
            {job} if job.endswith("/2") else set()
        )
        ends = []
        for number in (1, 2, 3):
            await one.say(frame(number))
            ends += (await until(one, FrameEnd))[-1:]
        assert [end.error and end.error.code for end in ends] == [None, ErrorCode.INTERNAL, None]
        assert executor.starts == 2
        await one.say(CloseStream("s"))
        assert counts((await to_the_end(one))[-1]) == (2, 0, 1)


async def test_frames_wait_for_an_executor_that_starts_again_and_the_latest_wins(live):
    executor = live.executor
    async with client(live) as one:
        await one.say(opening(budget=QUICK), frame(1))
        await until(one, FrameEnd)
        executor.may_start.clear()
        executor.die()
        await one.say(frame(2), frame(3), frame(4))
        await one.say(SetBudget("s", 1, QUICK))
        await until(one, BudgetApplied)
        executor.may_start.set()
        end = (await until(one, FrameEnd))[-1]
        assert (end.frame, end.skipped, end.error) == (4, 2, None)


async def test_streams_and_requests_are_served_beside_one_another(live):
    async with client(live) as one:
        await one.say(opening("a", budget=QUICK), opening("b", budget=QUICK))
        await one.say(Infer("r", "street", image_file()))
        ends = {"a": 0, "b": 0}
        await one.say(frame(1, "a"), frame(1, "b"))
        final = None
        while min(ends.values()) < 10 or final is None:
            message = await one.hear()
            if isinstance(message, Finished):
                final = message
            elif isinstance(message, FrameEnd):
                ends[message.id] += 1
                await one.say(frame(message.frame + 1, message.id))
        assert final.exit == 4
        assert abs(ends["a"] - ends["b"]) <= 1


async def test_draining_ends_a_stream_that_waits_and_one_that_computes(live):
    executor = live.executor
    async with client(live) as one, client(live) as two:
        await one.say(opening())
        await until(one, StreamOpened)
        executor.gate.clear()
        await two.say(opening(), frame(1))
        async with asyncio.timeout(5):
            await executor.running.wait()
        await two.say(frame(2))
        await two.say(SetBudget("s", 1, Budget()))
        await until(two, BudgetApplied)
        drained = asyncio.create_task(live.state.engine.drain())
        await asyncio.sleep(0.05)
        executor.gate.set()
        told = await to_the_end(two)
        assert told[-1] == StreamClosed("s", CloseReason.DRAINING, 1, 1, 0)
        await drained
        live.state.shutting_down.set()
        assert (await to_the_end(one))[-1].reason is CloseReason.DRAINING
        assert await one.closed() == 1001


async def test_a_client_that_leaves_ends_its_stream(live):
    executor = live.executor
    async with client(live) as one:
        executor.gate.clear()
        await one.say(opening(), frame(1))
        async with asyncio.timeout(5):
            await executor.running.wait()
        await one.say(frame(2))
    async with asyncio.timeout(5):
        while ("forget stream", "s", 0) not in [
            (what, job.rpartition("/")[2], k) for what, job, k in executor.log
        ]:
            await asyncio.sleep(0.01)
    executor.gate.set()
    async with asyncio.timeout(5):
        while live.state.engine.server_budget().in_flight:
            await asyncio.sleep(0.01)
    assert executor.runs() == [1]
    assert live.state.uploads.held == 0


async def test_a_share_of_the_machine_leaves_time_between_frames(live):
    async with client(live) as one:
        await one.say(opening(budget=QUICK, share=0.05), frame(1), frame(2))
        loop = asyncio.get_running_loop()
        await until(one, FrameEnd)
        began = loop.time()
        end = (await until(one, FrameEnd))[-1]
        assert end.frame == 2
        assert loop.time() - began > 0.1  # 19 times the 10 ms of frame 1


REUSED = FinishedFrame(0.7, 12, 0.008, 3, wants_check=True)


def log_of(live, *kinds):
    return [(what, job.rpartition("/")[2]) for what, job, _ in live.executor.log if what in kinds]


async def eventually(is_true):
    async with asyncio.timeout(5):
        while not is_true():
            await asyncio.sleep(0.005)


async def test_a_frame_says_what_was_reused_and_what_was_measured(live):
    live.executor.reuse = REUSED
    async with client(live) as one:
        await one.say(opening(budget=QUICK, reuse=ReuseOptions(max_age=5)), frame(1))
        end = (await until(one, FrameEnd))[-1]
        assert (end.reused_share, end.oldest) == (0.7, 12)
        assert end.difference == MeasuredDifference(0.008, 3)
        assert live.executor.commands[-1].memory.reuse == ReuseOptions(max_age=5)
        assert log_of(live, "finish") == [("finish", "1")]


async def test_nothing_is_reused_unless_asked_for_and_never_under_a_risk(live):
    live.executor.reuse = REUSED
    async with client(live) as one:
        risky = Budget(max_exit=1, max_risk=0.1)
        await one.say(opening("a", budget=QUICK), frame(1, "a"))
        await until(one, FrameEnd, stream_id="a")
        await one.say(opening("b", budget=risky, reuse=ReuseOptions()), frame(1, "b"))
        end = (await until(one, FrameEnd, stream_id="b"))[-1]
        assert (end.reused_share, end.risk) == (0.0, 0.1)
        assert [command.memory for command in live.executor.commands] == [None, None]
        assert log_of(live, "finish") == []


async def test_a_frame_is_checked_when_nothing_else_is_to_be_done_and_gives_way_at_once(live):
    executor = live.executor
    executor.reuse = REUSED
    async with client(live) as one:
        await one.say(opening(budget=QUICK, reuse=ReuseOptions()), frame(1))
        await until(one, FrameEnd)
        await eventually(lambda: log_of(live, "check") == [("check", "s")])
        await one.say(Infer("r", "street", image_file()))  # the check is not over
        while not isinstance(await one.hear(), Finished):
            pass
        await eventually(lambda: len(log_of(live, "check")) == 2)  # again, from the start
        executor.reuse = FinishedFrame()
        await one.say(frame(2))
        await until(one, FrameEnd)
        await asyncio.sleep(0.05)
        assert log_of(live, "check", "finish") == [
            ("finish", "1"),
            ("check", "s"),
            ("check", "s"),
            ("finish", "2"),
        ]


async def test_a_check_that_is_over_is_not_made_again(live):
    live.executor.reuse = REUSED
    live.executor.may_check.set()
    async with client(live) as one:
        await one.say(opening(budget=QUICK, reuse=ReuseOptions()), frame(1))
        await until(one, FrameEnd)
        await asyncio.sleep(0.1)
        assert log_of(live, "check") == [("check", "s")]
        metrics = (await live.http.get("/metrics")).text
        assert "anytime_frame_check_seconds_count 1.0" in metrics
        assert 'anytime_frames_total{model="street",outcome="computed"} 1.0' in metrics
        assert 'anytime_frames_reused_total{model="street"} 0.7' in metrics
        assert "anytime_streams 1.0" in metrics


async def test_a_new_size_that_takes_long_to_prepare_costs_a_stream_one_frame(serve):
    slow = served_model(STREET)
    slow = replace(slow, profile=replace(slow.profile, prepare_s_per_px=1e-4))
    async with serve(FakeExecutor(models=(slow,))) as live, client(live) as one:
        await one.say(opening(budget=Budget(deadline_ms=200, max_exit=1)))
        ends = []
        for number in (1, 2):
            await one.say(frame(number))
            ends += (await until(one, FrameEnd))[-1:]
        assert [end.error and end.error.code for end in ends] == [ErrorCode.DEADLINE_EXCEEDED, None]
        assert live.executor.prepared == [("street", SIZE)]


@pytest.mark.parametrize("fault", ["crash_at", "fail_at"])
async def test_a_fault_while_a_frame_is_kept_does_not_cost_its_map(live, fault):
    executor = live.executor
    executor.reuse = REUSED

    def fail_after_the_stage(job, _stage):
        if job.endswith("/1"):
            asyncio.get_running_loop().call_soon(getattr(executor, fault).add, job)

    executor.on_stage = fail_after_the_stage
    async with client(live) as one:
        await one.say(opening(budget=QUICK, reuse=ReuseOptions()), frame(1))
        first = await until(one, FrameEnd)
        assert any(isinstance(message, Update) for message in first)
        assert (first[-1].exit, first[-1].error, first[-1].reused_share) == (1, None, 0.0)
        await one.say(frame(2))
        assert (await until(one, FrameEnd))[-1].reused_share == 0.7
        await one.say(CloseStream("s"))
        assert counts((await to_the_end(one))[-1]) == (2, 0, 0)


async def test_a_frame_beyond_what_the_server_holds_of_uploads_fails_alone(live):
    async with client(live) as one:
        await one.say(opening(budget=QUICK))
        await until(one, StreamOpened)
        live.state.uploads.most = 100
        await one.say(frame(1))
        failed = (await until(one, FrameEnd))[-1]
        assert failed.error.code is ErrorCode.OVERLOADED
        live.state.uploads.most = 10**6
        await one.say(frame(2))
        assert (await until(one, FrameEnd))[-1].error is None
        assert live.state.uploads.held == 0
