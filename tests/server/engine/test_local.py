"""The engine of one machine: admission, and what it remembers."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from anytime_protocol.budget import Budget
from anytime_protocol.enums import Effect, ErrorCode
from anytime_protocol.messages import OutputOptions
from anytime_server import images
from anytime_server.core.costs import SizeProfile
from anytime_server.engine.base import EngineState
from anytime_server.engine.local import LocalEngine
from anytime_server.errors import RefusedError
from anytime_server.metrics import Metrics
from anytime_server.settings import Settings
from server.factories import (
    SIZE,
    STREET,
    damaged_image_file,
    exit_event,
    infer,
    served_model,
)
from server.fakes import EventRecorder, FakeClock, FakeExecutor

ONE_MAP = OutputOptions(progress=False)


@asynccontextmanager
async def running_engine(executor=None, clock=time.monotonic, **settings):
    executor = executor or FakeExecutor()
    engine = LocalEngine([executor], Metrics(), Settings(**settings), clock)
    engine.open()
    await engine.wait_ready()
    try:
        yield engine, executor
    finally:
        await engine.close()
    assert executor.is_closed


async def submit(engine, request_id="a", transport="http", **changes):
    """Submits a request; the request and its recorder."""
    recorder = EventRecorder()
    message = infer(request_id, **{"want": ONE_MAP} | changes)
    now = engine.clock()
    return await engine.submit(message, request_id, now, transport, recorder), recorder


def infer_with(payload):
    return replace(infer(), payload=payload)


async def ended(*recorders):
    async with asyncio.timeout(10):
        for recorder in recorders:
            await recorder.ended.wait()


async def test_a_request_is_admitted_and_computed():
    async with running_engine() as (engine, _):
        request, recorder = await submit(engine)
        assert request.admitted.exit == 4
        await ended(recorder)
        assert recorder.end.best.rendered.exit == 4
        assert request.decode_s > 0.0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": "nobody"}, ErrorCode.UNKNOWN_MODEL),
        ({"media_type": "image/gif"}, ErrorCode.UNSUPPORTED_MEDIA_TYPE),
        ({"budget": Budget(compute_gmacs=0.5)}, ErrorCode.BUDGET_TOO_SMALL),
        ({"budget": Budget(deadline_ms=0)}, ErrorCode.DEADLINE_EXCEEDED),
    ],
)
async def test_what_cannot_be_computed_is_refused_before_it_costs_anything(changes, code):
    async with running_engine() as (engine, executor):
        with pytest.raises(RefusedError) as refused:
            await submit(engine, **changes)
        assert refused.value.problem.code is code
        assert executor.log == []
        assert engine.server_budget().in_flight == 0


async def test_an_id_can_be_active_only_once():
    async with running_engine() as (engine, executor):
        executor.gate.clear()
        await submit(engine)
        with pytest.raises(RefusedError) as refused:
            await submit(engine)
        assert refused.value.problem.code is ErrorCode.DUPLICATE_ID


async def test_pixels_of_all_active_requests_are_bounded():
    computed = 64 * 64  # after padding
    image = SIZE[0] * SIZE[1] // 16
    async with running_engine(max_pixels_in_flight=2 * (computed + image)) as (engine, executor):
        executor.gate.clear()
        await submit(engine, "a")
        await submit(engine, "b")
        with pytest.raises(RefusedError, match="would exceed") as refused:
            await submit(engine, "c")
        assert refused.value.problem.code is ErrorCode.OVERLOADED


async def test_an_image_that_a_network_would_compute_too_large_is_refused_with_the_cure():
    async with running_engine(max_computed_pixels=64 * 64 - 1) as (engine, _):
        with pytest.raises(RefusedError, match="make the image smaller") as refused:
            await submit(engine, "a")
        assert refused.value.problem.code is ErrorCode.TOO_MANY_PIXELS


async def test_the_executor_gets_ready_for_a_size_that_is_new_while_the_image_is_decoded():
    served = served_model(STREET)
    slow = replace(served, profile=replace(served.profile, prepare_s_per_px=1e-9))
    async with running_engine(FakeExecutor(models=(slow,))) as (engine, executor):
        for request_id in "ab":
            _, recorder = await submit(engine, request_id)
            await ended(recorder)
        assert executor.prepared == [(STREET.name, SIZE)]


async def test_a_size_for_which_a_deadline_was_too_short_is_ready_for_the_next_request():
    served = served_model(STREET)
    new_s = 0.5 / (SIZE[0] * SIZE[1])
    slow = replace(served, profile=replace(served.profile, prepare_s_per_px=new_s))
    async with running_engine(FakeExecutor(models=(slow,))) as (engine, executor):
        in_time = Budget(deadline_ms=400.0)
        with pytest.raises(RefusedError) as refused:
            await submit(engine, "a", budget=in_time)
        assert refused.value.problem.code is ErrorCode.DEADLINE_EXCEEDED
        assert executor.prepared == [(STREET.name, SIZE)]
        await submit(engine, "b", budget=in_time)


async def test_a_larger_size_that_a_deadline_has_no_time_for_is_ready_for_the_next_request():
    served = served_model(STREET)
    first, second, third, last = served.profile.sizes[0].stages
    ladder = replace(
        served.profile,
        sizes=(
            SizeProfile(32, 32, (first, second)),
            SizeProfile(64, 64, (third, last)),
        ),
        sides=(32, 64),
        prepare_s_per_px=1.0 / (64 * 64),
    )
    executor = FakeExecutor(models=(replace(served, profile=ladder),), clock=FakeClock())
    async with running_engine(executor, executor.clock) as (engine, _):
        depths = []
        for request_id in "abc":
            _, recorder = await submit(engine, request_id, budget=Budget(deadline_ms=900.0))
            await ended(recorder)
            depths.append(recorder.end.best.rendered.exit)
        assert depths == [2, 4, 4]
        assert executor.prepared_sides == [1, None]


async def test_a_request_over_http_is_remembered_for_a_while_and_one_of_a_websocket_is_not():
    async with running_engine() as (engine, _):
        first, recorder = await submit(engine, "a")
        _, other = await submit(engine, "1/b", "websocket")
        await ended(recorder, other)
        assert engine.status("a") is first
        assert engine.status("1/b") is None
        assert engine.update_budget("a", Budget(), None).effect is Effect.GONE
        first.ended_s -= 61.0
        _, recorder = await submit(engine, "c")
        await ended(recorder)
        assert engine.status("a") is None


async def test_headers_are_read_in_the_order_in_which_images_come(monkeypatch):
    may_decode = threading.Event()
    decode = images.decode

    def slow_decode(*arguments):
        may_decode.wait(10)
        return decode(*arguments)

    async with running_engine() as (engine, _):
        monkeypatch.setattr(images, "decode", slow_decode)
        admitted = []

        async def admit(request_id):
            request, recorder = await submit(engine, request_id)
            admitted.append(request.id)
            return recorder

        waiting = [asyncio.create_task(admit(name)) for name in "abc"]
        await asyncio.sleep(0)
        may_decode.set()
        await ended(*await asyncio.gather(*waiting))
        assert admitted == ["a", "b", "c"]


async def test_a_broken_image_is_refused_by_its_header_and_fails_by_its_pixels():
    async with running_engine() as (engine, _):
        with pytest.raises(RefusedError) as refused:
            await engine.submit(infer_with(b"no image"), "a", 0.0, "http", EventRecorder())
        assert refused.value.problem.code is ErrorCode.BAD_IMAGE
        damaged = infer_with(damaged_image_file())
        recorder = EventRecorder()
        await engine.submit(damaged, "b", engine.clock(), "http", recorder)
        await ended(recorder)
        assert recorder.end.ending.code is ErrorCode.BAD_IMAGE


async def test_encoding_while_a_request_is_computed_is_no_part_of_its_time():
    clock = FakeClock()
    executor = FakeExecutor(clock)
    executor.gate.clear()
    async with running_engine(executor, clock) as (engine, _):
        request, recorder = await submit(engine)
        engine.note_encoding(request, exit_event(1), 5.0)
        assert request.encode_s == 0.0
        executor.gate.set()
        await ended(recorder)
        clock.now = request.ended_s + 1.5
        engine.note_encoding(request, exit_event(4), 2.0)  # begun before the end
        assert request.encode_s == 1.5


async def test_a_drain_gives_up_after_its_timeout_and_leaves_no_request_without_its_end():
    async with running_engine(drain_timeout_s=0.01) as (engine, executor):
        executor.gate.clear()
        recorder = EventRecorder()
        await engine.submit(infer("a"), "a", engine.clock(), "http", recorder)
        await engine.drain()
        assert engine.state is EngineState.DRAINING
        assert recorder.end.ending.code is ErrorCode.DRAINING
