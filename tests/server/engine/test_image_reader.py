"""Images that take long to decode: they hold up nobody, and end with their request."""

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from anytime_protocol.budget import Budget
from anytime_protocol.enums import ErrorCode, Reason
from anytime_protocol.messages import OutputOptions
from anytime_server import images
from anytime_server.core.decisions import JobFailed
from anytime_server.decoding_process import DecodingCrashedError, DecodingStoppedError
from anytime_server.engine.image_reader import ImageReader
from anytime_server.engine.local import LocalEngine
from anytime_server.errors import ImageRejectedError, RefusedError
from anytime_server.metrics import Metrics
from anytime_server.settings import Settings
from server.factories import image_file, infer
from server.fakes import EventRecorder, FakeExecutor
from server.hostile_files import with_scans

SLOW = image_file("PNG", (41, 64))


class FakeProcess:
    """Decodes when it is let; `stop` ends what is under way."""

    def __init__(self):
        self.may_answer = threading.Event()
        self.began = threading.Event()
        self.stopped = []
        self.error = None
        self.is_closed = False

    def start(self):
        pass

    def decode(self, token, data, header, side):
        self.began.set()
        assert self.may_answer.wait(10)
        if token in self.stopped or self.is_closed:
            raise DecodingStoppedError
        if self.error is not None:
            raise self.error
        return images.decode(data, header, side)

    def stop(self, token):
        self.stopped.append(token)
        self.may_answer.set()

    def close(self):
        self.is_closed = True
        self.may_answer.set()


@pytest.fixture
def process(monkeypatch):
    """In place of the real one; what has 41 rows is slow."""
    process = FakeProcess()
    monkeypatch.setattr("anytime_server.engine.image_reader.DecodingProcess", lambda: process)
    monkeypatch.setattr(images, "is_quick", lambda data, header: header.height != 41)
    return process


@asynccontextmanager
async def running_engine(**settings):
    engine = LocalEngine([FakeExecutor()], Metrics(), Settings(**settings))
    engine.open()
    await engine.wait_ready()
    try:
        yield engine
    finally:
        await engine.close()


async def submit(engine, request_id, payload=None, **changes):
    recorder = EventRecorder()
    message = infer(request_id, want=OutputOptions(progress=False), **changes)
    if payload is not None:
        message = replace(message, payload=payload)
    await engine.submit(message, request_id, engine.clock(), "http", recorder)
    return recorder


async def ended(*recorders):
    async with asyncio.timeout(10):
        for recorder in recorders:
            await recorder.ended.wait()


async def until(event):
    async with asyncio.timeout(10):
        while not event.is_set():
            await asyncio.sleep(0.001)


async def test_an_image_that_takes_long_holds_up_nobody(process):
    async with running_engine() as engine:
        slow = await submit(engine, "slow", SLOW)
        await until(process.began)
        others = [await submit(engine, f"quick {k}") for k in range(4)]
        also_slow = await submit(engine, "also slow", SLOW)
        await ended(*others)
        assert not slow.ended.is_set()
        process.may_answer.set()
        await ended(slow, also_slow)
        assert slow.end.best.rendered.height == 41


async def test_a_deadline_is_obeyed_while_an_image_is_decoded_and_ends_its_decoding(process):
    async with running_engine() as engine:
        slow = await submit(engine, "slow", SLOW, budget=Budget(deadline_ms=150))
        await ended(slow)
        assert slow.end.ending.code is ErrorCode.DEADLINE_EXCEEDED
        assert len(process.stopped) == 1


async def test_a_request_that_its_client_does_not_want_any_more_is_not_decoded_on(process):
    async with running_engine() as engine:
        slow = await submit(engine, "slow", SLOW)
        waiting = await submit(engine, "waiting", SLOW)
        await until(process.began)
        engine.cancel("waiting", discard=True)
        engine.cancel("slow", discard=True)
        await ended(slow, waiting)
        assert slow.end.ending.reason is Reason.CANCELLED
        assert len(process.stopped) == 2


async def test_a_drain_that_outlasts_its_patience_ends_with_a_decoding_under_way(process):
    async with running_engine(drain_timeout_s=0.05) as engine:
        slow = await submit(engine, "slow", SLOW)
        await until(process.began)
        await engine.drain()
    assert process.is_closed
    assert isinstance(slow.end.ending, JobFailed)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ImageRejectedError(ErrorCode.BAD_IMAGE, "it is damaged"), ErrorCode.BAD_IMAGE),
        (DecodingCrashedError("exit code -11"), ErrorCode.INTERNAL),
    ],
)
async def test_what_the_process_cannot_decode_fails_its_request_alone(process, error, code):
    async with running_engine() as engine:
        process.error = error
        process.may_answer.set()
        slow, quick = await submit(engine, "slow", SLOW), await submit(engine, "quick")
        await ended(slow, quick)
        assert slow.end.ending.code is code
        assert quick.end.best is not None


async def test_the_real_process_decodes_what_is_not_quick(monkeypatch):
    monkeypatch.setattr(images, "is_quick", lambda data, header: False)
    async with running_engine() as engine:
        slow = await submit(engine, "slow", SLOW)
        await ended(slow)
        assert slow.end.best.rendered.height == 41


async def test_a_flood_is_refused_before_it_is_decoded(process):
    async with running_engine() as engine:
        with pytest.raises(RefusedError, match="found more than 100 scans") as refused:
            await submit(engine, "flood", with_scans(200))
        assert refused.value.problem.code is ErrorCode.BAD_IMAGE


async def test_a_slow_image_is_not_decoded_before_its_request_is_admitted(process):
    reader = ImageReader(10**6)
    try:
        header, decode = await reader.open(SLOW, "image/png", idle=True)
        assert header.height == 41
        assert not process.began.is_set()
        image = decode()
        await until(process.began)
        process.may_answer.set()
        assert (await image).size == (41, 64)
    finally:
        reader.close()
