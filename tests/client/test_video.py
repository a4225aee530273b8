"""Streams of frames against fake servers: results, skipped and failed frames, loss, and ends."""

import asyncio
import itertools
import threading

import numpy as np
import pytest

from anytime_client import (
    AnswerError,
    AsyncClient,
    Budget,
    Client,
    ConnectionLostError,
    ErrorCode,
    ImageError,
    Reason,
    RequestError,
    ReuseOptions,
    SilenceError,
)
from anytime_protocol.enums import CloseReason, Effect
from anytime_protocol.messages import (
    BudgetApplied,
    Cancel,
    CloseStream,
    Failed,
    Frame,
    Infer,
    OpenStream,
    SetBudget,
)
from anytime_protocol.stream_answers import (
    FrameFailure,
    MeasuredDifference,
    StreamClosed,
    StreamOpened,
)
from client.factories import MAPS, PIXELS, frame_end, frame_update
from client.fakes import HangUp, answer_all_exits, fake_http_server, fake_server


async def collect(video):
    return [result async for result in video]


async def frames_of(images):
    for image in images:
        yield image


@pytest.mark.parametrize("kind", ["a list", "an asynchronous generator"])
async def test_each_frame_has_its_map_and_what_it_has_reused(kind):
    images = [PIXELS] * 3 if kind == "a list" else frames_of([PIXELS] * 3)
    with fake_server(answer_all_exits) as server:
        async with AsyncClient(server.url) as client:
            video = client.video(images, reuse=ReuseOptions(), every=True)
            results = await collect(video)
        opened = server.wait_for(OpenStream)
    assert [result.frame for result in results] == [1, 2, 3]
    for result in results:
        np.testing.assert_array_equal(result.best.map, MAPS[3])
        assert (result.reused_share, result.oldest) == (0.5, 2)
        assert result.difference == MeasuredDifference(0.01, 3)
        assert result.result.reason is Reason.COMPLETE
        assert result.image is PIXELS
    assert opened.reuse == ReuseOptions()
    assert not opened.want.progress
    assert (video.sent, video.closed.frames) == (3, 3)


async def test_a_delta_changes_the_map_of_the_frame_before():
    def delta_from_the_second_on(event):
        if isinstance(event, Frame) and event.frame > 1:
            update = frame_update(event.id, event.frame, base_frame=event.frame - 1)
            return [update, frame_end(event.id, event.frame)]
        return answer_all_exits(event)

    with fake_server(delta_from_the_second_on) as server:
        async with AsyncClient(server.url) as client:
            results = await collect(client.video([PIXELS] * 3, every=True))
    for result in results:
        np.testing.assert_array_equal(result.best.map, MAPS[3])


def test_the_blocking_client_streams_frames_too():
    with fake_server(answer_all_exits) as server, Client(server.url) as client:
        video = client.video(itertools.repeat(PIXELS, 3), deadline_ms=80, every=True)
        assert [result.frame for result in video] == [1, 2, 3]
        assert server.wait_for(OpenStream).budget == Budget(deadline_ms=80)
        assert video.closed.reason is CloseReason.CLOSED


def test_leaving_the_loop_cancels_the_stream_and_stops_reading_its_source():
    with fake_server(answer_all_exits) as server, Client(server.url) as client:
        with client.video(itertools.repeat(PIXELS), every=True) as video:
            next(iter(video))
        server.wait_for(Cancel)
        assert client.predict(PIXELS).exit == 4  # the connection serves on
        for thread in threading.enumerate():
            if thread.name == "anytime-client-frames":
                thread.join(5)
                assert not thread.is_alive()


async def test_a_frame_that_fails_ends_nothing():
    def fail_the_second(event):
        if isinstance(event, Frame) and event.frame == 2:
            failure = FrameFailure(ErrorCode.DEADLINE_EXCEEDED, "too late", needed_ms=90.0)
            return [frame_end(event.id, 2, error=failure)]
        return answer_all_exits(event)

    with fake_server(fail_the_second) as server:
        async with AsyncClient(server.url) as client:
            results = await collect(client.video([PIXELS] * 3, every=True))
    assert [result.error is None for result in results] == [True, False, True]
    assert results[1].error.needed_ms == 90.0
    with pytest.raises(RequestError, match="too late"):
        results[1].best  # noqa: B018 - it raises


async def test_a_refused_stream_raises_what_the_server_says():
    def refuse(event):
        if isinstance(event, OpenStream):
            return [Failed(event.id, ErrorCode.OVERLOADED, "no room")]
        return []

    with fake_server(refuse) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(RequestError, match="no room"):
                await collect(client.video([PIXELS]))


async def test_an_unknown_model_is_refused_before_anything_is_sent():
    with fake_server(answer_all_exits) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(RequestError, match="found lake, the server has"):
                await collect(client.video([PIXELS], model="lake"))


async def test_a_lost_connection_is_replaced_and_the_stream_goes_on():
    lost = []

    def lose_once(event):
        if isinstance(event, Frame) and event.frame == 2 and not lost:
            lost.append(event)
            return [HangUp(1012)]
        return answer_all_exits(event)

    with fake_server(lose_once) as server:
        async with AsyncClient(server.url) as client:
            results = await collect(client.video([PIXELS] * 4, every=True))
        assert len(server.tokens) == 2
    assert [result.frame for result in results] == [1, 3, 4]


async def test_a_stream_that_a_restarting_server_closes_goes_on_at_the_next_one():
    seen = {"opens": 0, "drained": False}

    def restart(event):
        if isinstance(event, Frame) and event.frame == 2 and not seen["drained"]:
            seen["drained"] = True
            return [StreamClosed(event.id, CloseReason.DRAINING, 1, 1, 0)]
        if isinstance(event, OpenStream):
            seen["opens"] += 1
            if seen["opens"] == 2:
                return [Failed(event.id, ErrorCode.DRAINING, "shutting down"), HangUp(1001)]
        return answer_all_exits(event)

    with fake_server(restart) as server:
        async with AsyncClient(server.url) as client:
            video = client.video(itertools.repeat(PIXELS, 8), every=True)
            results = await collect(video)
        assert len(server.tokens) == 2
    assert results[0].frame == 1
    assert results[-1].frame == 8
    assert video.closed.reason is CloseReason.CLOSED
    assert seen["opens"] == 3


async def test_a_connection_that_is_lost_after_the_last_frame_is_an_error():
    def lose_at_the_end(event):
        return [HangUp(1012)] if isinstance(event, CloseStream) else answer_all_exits(event)

    with fake_server(lose_at_the_end) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ConnectionLostError):
                await collect(client.video([PIXELS], every=True))


async def test_a_budget_changes_and_the_stream_may_be_finished_in_the_middle():
    def apply(event):
        if isinstance(event, SetBudget):
            return [BudgetApplied(event.id, event.rev, 0, Effect.APPLIED)]
        return answer_all_exits(event)

    with fake_server(apply) as server:
        async with AsyncClient(server.url) as client:
            video = client.video(itertools.repeat(PIXELS), every=True)
            frames = []
            async for result in video:
                frames.append(result.frame)
                if result.frame == 2:
                    await video.set_budget(Budget(max_exit=2))
                    await video.finish()
        assert server.wait_for(SetBudget).budget == Budget(max_exit=2)
    assert frames[:2] == [1, 2]
    assert video.closed is not None


@pytest.mark.parametrize("source", [[b"no image"], [PIXELS.astype(float)]])
async def test_a_source_that_gives_no_image_says_so(source):
    with fake_server(answer_all_exits) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ImageError, match="expected"):
                await collect(client.video(source))


async def test_what_a_source_raises_reaches_the_caller():
    def broken():
        yield PIXELS
        raise OSError("the camera is gone")

    with fake_server(answer_all_exits) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(OSError, match="the camera is gone"):
                await collect(client.video(broken(), every=True))
            server.wait_for(Cancel)


@pytest.mark.parametrize("frames", [itertools.repeat(PIXELS), [PIXELS]], ids=["many", "one"])
@pytest.mark.parametrize("every", [True, False])
async def test_a_server_that_never_answers_a_frame_is_given_up(frames, every):
    def open_only(event):
        return [StreamOpened(event.id, 4)] if isinstance(event, OpenStream) else []

    with fake_server(open_only) as server:
        async with AsyncClient(server.url, timeout_s=0.2) as client:
            with pytest.raises(SilenceError):
                await collect(client.video(frames, every=every))


async def test_a_stream_takes_the_place_of_one_request():
    with fake_server(answer_all_exits) as server:
        async with AsyncClient(server.url) as client:
            async with client.video([], every=True):
                others = await asyncio.gather(*(client.predict(PIXELS) for _ in range(9)))
            assert [result.exit for result in others] == [4] * 9
            assert isinstance(server.wait_for(Infer), Infer)


async def test_over_http_alone_there_are_no_streams():
    with fake_http_server() as server:
        async with AsyncClient(server.url, transport="http") as client:
            with pytest.raises(AnswerError, match="need a websocket"):
                await collect(client.video([PIXELS]))


async def test_a_slow_caller_gets_no_old_results():
    read = []

    def camera():
        for number in range(12):
            read.append(number)
            yield PIXELS

    with fake_server() as server:
        async with AsyncClient(server.url) as client, client.video(camera()) as video:
            while video.unread < 2:
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)  # in which a source that is not held up would end
            assert len(read) < 12
            assert len(await collect(video)) == len(read) == 12
