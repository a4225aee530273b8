"""Streams against a real server: real sockets, real processes, toy weights.

In each of them every frame that was sent is counted once, and each stream has one terminal message.
"""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from anytime_protocol.arrays.segments import split, unpack
from anytime_protocol.budget import Budget
from anytime_protocol.enums import PROTOCOL, CloseReason, Effect, Encoding, ErrorCode, Reason
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
    Role,
    SetBudget,
    Update,
)
from anytime_protocol.session import Session
from anytime_protocol.stream_answers import FrameEnd, StreamClosed, StreamOpened
from system.conftest import ROOT, run_server
from system.faults.executor_faults import eventually, executor_pid, is_ready

pytestmark = pytest.mark.timeout(300)
SIZE = (240, 320)
NAMES = ("map", "confidence", "active")


def scene(number, size=SIZE):
    """A frame of a standing camera: a square moves over a background that stays."""
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
    pixels = pixels.repeat(8, axis=0).repeat(8, axis=1)
    left = 8 * number % (size[1] - 40)
    pixels[40:80, left : left + 40] = (200, 30, 30)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Line:
    """A client session on a real socket, and everything that it has heard."""

    def __init__(self, socket):
        self.socket = socket
        self.session = Session(Role.CLIENT)
        self.events = []
        self.sent = Counter()
        self.arrays = {}
        self.hear(1)

    def say(self, *messages):
        for message in messages:
            self.session.send(message)
            self.sent[message.type, getattr(message, "id", None)] += 1
        for data in self.session.outgoing():
            self.socket.send(data)

    def hear(self, count):
        for _ in range(count):
            self.session.receive(self.socket.recv(timeout=60))
        heard = self.session.events()
        for event in heard:
            if isinstance(event, Update):
                self.show(event)
        self.events += heard
        return heard

    def show(self, update):
        """Decodes the arrays, deltas from frame to frame included."""
        for part, piece in zip(update.parts, split(update.parts, update.payload), strict=True):
            key = update.id, part.name
            self.arrays[key] = unpack(part, piece, self.arrays.get(key))

    def until(self, *kinds, stream="cam"):
        """Listens until one of these comes for a stream; returns it."""
        while True:
            for event in self.hear(1):
                if isinstance(event, kinds) and getattr(event, "id", None) == stream:
                    return event

    def of(self, kind, stream="cam"):
        return [event for event in self.events if isinstance(event, kind) and event.id == stream]

    def check(self, stream="cam"):
        """Every frame is counted once, and there is one terminal message."""
        assert self.session.closed is None
        ends = self.of(FrameEnd, stream)
        (closed,) = self.of((StreamClosed, Failed), stream)
        assert isinstance(closed, StreamClosed)
        assert closed.frames + closed.skipped + closed.failed == self.sent["frame", stream]
        assert closed.frames + closed.failed == len(ends)
        assert closed.failed == sum(end.error is not None for end in ends)
        assert sum(end.skipped for end in ends) <= closed.skipped
        return closed


@contextmanager
def line(server):
    options = {"subprotocols": [PROTOCOL], "compression": None, "max_size": 2**28, "proxy": None}
    with connect(server.stream, **options) as socket:
        yield Line(socket)


def opening(server, stream="cam", **changes):
    return OpenStream(stream, server.model, **changes)


def frame(number, stream="cam", **scenery):
    return Frame(stream, number, scene(number, **scenery), "image/png")


@pytest.fixture(scope="module")
def server(tiny, tmp_path_factory):
    with run_server(tiny, tmp_path_factory.mktemp("log") / "server.log") as running:
        yield running


def test_a_stream_of_frames_with_deltas_shows_what_each_frame_alone_shows(server):
    want = OutputOptions(Encoding.DELTA, confidence=True, active=True, progress=False)
    with line(server) as one:
        one.say(opening(server, want=want))
        for number in range(1, 8):
            one.say(frame(number))
            one.until(FrameEnd)
            streamed = {name: one.arrays["cam", name] for name in NAMES}
            alone = OutputOptions(confidence=True, active=True, progress=False)
            one.say(Infer("r", server.model, scene(number), "image/png", want=alone))
            one.until(Finished, stream="r")
            assert streamed == {name: one.arrays["r", name] for name in NAMES}
        one.say(CloseStream("cam"))
        one.until(StreamClosed)
        assert one.check() == StreamClosed("cam", CloseReason.CLOSED, 7, 0, 0)
        encodings = Counter(p.encoding for u in one.of(Update) for p in u.parts)
        assert encodings[Encoding.DELTA] > 10


def checks(server):
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    return float(re.search(r"^anytime_frame_check_seconds_count (\S+)", text, re.M)[1])


def test_a_standing_camera_is_mostly_answered_from_earlier_frames_and_checked_when_idle(server):
    want = OutputOptions(Encoding.DELTA, progress=False)
    with line(server) as one:
        one.say(opening(server, want=want, reuse=ReuseOptions(max_age=12, max_difference=1.0)))
        before, ends = checks(server), []
        for number in range(1, 31):
            one.say(frame(number))
            ends.append(one.until(FrameEnd))
            if number >= 20 and ends[-1].reused_share and checks(server) == before:
                eventually(lambda: checks(server) > before)
        first, *others = ends
        assert (first.reused_share, first.oldest, first.difference) == (0.0, 0, None)
        shares = [end.reused_share for end in others]
        assert np.mean(shares) > 0.4
        assert all(0 < end.oldest <= 12 for end in others if end.reused_share)
        assert np.mean([end.gmacs for end in others]) < 0.9 * first.gmacs
        assert ends[-1].difference.frames >= 1
        one.say(CloseStream("cam"))
        one.until(StreamClosed)
        one.check()


def test_an_image_that_has_not_changed_costs_nothing(server):
    with line(server) as one:
        one.say(opening(server, reuse=ReuseOptions(max_age=1000)))
        ends = []
        for number in (1, 2, 3):
            one.say(Frame("cam", number, scene(0), "image/png"))
            ends.append(one.until(FrameEnd))
        assert ends[0].gmacs > 0
        assert min(end.gmacs for end in ends[1:]) < 0.5 * ends[0].gmacs
        assert {end.exit for end in ends} == {4}
        one.say(CloseStream("cam"))
        one.until(StreamClosed)


def test_a_client_that_is_faster_than_the_server_gets_the_latest_frames(server):
    with line(server) as one:
        frames = [frame(number, size=(480, 640)) for number in range(1, 60)]
        one.say(opening(server), *frames, CloseStream("cam"))
        one.until(StreamClosed)
        closed = one.check()
        assert closed.skipped > 0
        ends = one.of(FrameEnd)
        assert ends[-1].frame == 59  # the latest one is always answered
        assert sum(end.skipped for end in ends) == closed.skipped


def test_a_budget_may_change_in_mid_stream(server):
    with line(server) as one:
        one.say(opening(server, budget=Budget(max_exit=1)))
        for number, deepest in ((1, 1), (2, 3), (3, 2)):
            if number > 1:
                one.say(SetBudget("cam", number, Budget(max_exit=deepest)))
                assert one.until(BudgetApplied).effect is Effect.APPLIED
            one.say(frame(number))
            assert one.until(FrameEnd).exit == deepest
        one.say(SetBudget("cam", 9, Budget(deadline_ms=0.5)), frame(4))
        late = one.until(FrameEnd)
        assert late.error.code is ErrorCode.DEADLINE_EXCEEDED
        one.say(SetBudget("cam", 10, Budget()), frame(5))
        assert one.until(FrameEnd).exit == 4
        one.say(CloseStream("cam"))
        one.until(StreamClosed)
        assert one.check().failed == 1


def test_a_cancel_ends_a_stream_at_once(server):
    with line(server) as one:
        one.say(opening(server), frame(1, size=(1200, 1600)), frame(2), frame(3))
        one.until(StreamOpened)
        one.say(Cancel("cam"))
        one.until(StreamClosed)
        closed = one.check()
        assert closed.reason is CloseReason.CANCELLED
        assert closed.skipped >= 1
        assert [end.reason for end in one.of(FrameEnd)] in ([Reason.CANCELLED], [Reason.COMPLETE])


def test_an_executor_that_is_killed_in_mid_stream_costs_a_frame(start):
    with start() as server, line(server) as one:
        one.say(opening(server, reuse=ReuseOptions()))
        for number in (1, 2):
            one.say(frame(number))
            assert one.until(FrameEnd).error is None
        one.say(frame(3, size=(1600, 2000)))
        time.sleep(0.1)
        os.kill(executor_pid(server), signal.SIGKILL)
        one.say(frame(4), frame(5))
        lost = one.until(FrameEnd)
        if lost.frame == 3:
            assert lost.error is None or lost.error.code is ErrorCode.INTERNAL
            after = one.until(FrameEnd)
        else:
            after = lost
        assert (after.frame, after.error, after.reused_share) == (5, None, 0.0)
        eventually(lambda: is_ready(server))
        one.say(CloseStream("cam"))
        one.until(StreamClosed)
        assert one.check().failed <= 1
        assert "Traceback" not in server.text()


def test_two_streams_and_single_images_are_served_beside_one_another(server):
    with line(server) as one, line(server) as two:
        one.say(opening(server, "a", reuse=ReuseOptions()), opening(server, "b"))
        ends, singles = Counter(), 0
        one.say(frame(1, "a"), frame(1, "b"))
        two.say(Infer("r0", server.model, scene(0), "image/png"))
        began = time.monotonic()
        while min(ends["a"], ends["b"]) < 15 and time.monotonic() < began + 60:
            for event in one.hear(1):
                if isinstance(event, FrameEnd):
                    assert event.error is None
                    ends[event.id] += 1
                    one.say(frame(event.frame + 1, event.id))
            if singles < 5:
                two.until(Finished, stream=f"r{singles}")
                singles += 1
                two.say(Infer(f"r{singles}", server.model, scene(0), "image/png"))
        assert singles == 5
        assert abs(ends["a"] - ends["b"]) <= 8, ends
        one.say(CloseStream("a"), CloseStream("b"))
        for name in ("a", "b"):
            if not one.of(StreamClosed, name):
                one.until(StreamClosed, stream=name)
            one.check(name)


def test_a_lost_connection_ends_its_streams(server):
    with line(server) as one:
        one.say(opening(server), frame(1), frame(2))
        one.until(StreamOpened)
        assert "anytime_streams 1.0" in httpx.get(f"{server.url}/metrics", trust_env=False).text
    eventually(
        lambda: "anytime_streams 0.0" in httpx.get(f"{server.url}/metrics", trust_env=False).text
    )


def test_a_server_that_shuts_down_ends_its_streams(start):
    with start() as server, line(server) as one:
        one.say(opening(server), frame(1))
        one.until(FrameEnd)
        server.process.send_signal(signal.SIGTERM)
        closed = one.until(StreamClosed)
        assert closed.reason is CloseReason.DRAINING
        one.check()
        assert server.process.wait(20) == 0


def test_the_documented_client_for_streams_follows_a_clip(server, tmp_path):
    document = (ROOT / "docs" / "PROTOCOL.md").read_text("utf-8")
    program = re.search(r"^```python stream-client\n(.*?)^```$", document, re.M | re.S)[1]
    (tmp_path / "client.py").write_text(program)
    for number in range(12):
        picture = Image.open(io.BytesIO(scene(number))).convert("RGB")
        picture.save(tmp_path / f"{number:02}.jpg")
    done = subprocess.run(
        [sys.executable, "client.py", server.stream, ".", "30"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("type=opened")
    assert lines[-1].startswith("type=closed reason=closed")
    assert sum(found.startswith("type=frame_end") for found in lines) >= 1
