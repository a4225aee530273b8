"""ARCHITECTURE.md's stations of a request, held against real requests."""

import ast
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from anytime_protocol.enums import PROTOCOL
from anytime_protocol.messages import Finished, Frame, OpenStream, ReuseOptions, Role
from anytime_protocol.session import Session
from anytime_protocol.stream_answers import FrameEnd
from server.factories import image_file, infer

ROOT = Path(__file__).parents[2]
MAX_STATIONS = 12
STATION = re.compile(r"^\| \d+ \| ([^|]+) \| `([\w/.]+):([\w.]+)` \|$", re.MULTILINE)


def stations(heading):
    """The stations below a heading: what they are, the file, and the function's qualified name."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    part = text[text.index(heading) :].split("\n\n")[1]
    found = STATION.findall(part)
    assert len(found) == part.count("\n| "), "a line of the table has another form"
    return found


def source_of(name):
    package = "client" if name.startswith("anytime_protocol") else "server/anytime_server"
    return ROOT / package / name


def functions_in(path):
    tree = ast.parse(path.read_text("utf-8"))
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    plain = {node.name for node in tree.body if isinstance(node, functions)}
    methods = {
        f"{kind.name}.{node.name}"
        for kind in tree.body
        if isinstance(kind, ast.ClassDef)
        for node in kind.body
        if isinstance(node, functions)
    }
    return plain | methods


@contextmanager
def following(wanted):
    """Notes, in order of their first call, which of some functions are called in this thread."""
    called = []

    def note(frame, event, _):
        if event == "call":
            key = (frame.f_code.co_filename, frame.f_code.co_qualname)
            if key in wanted and key not in called:
                called.append(key)

    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)


async def post(live):
    lines = {"Content-Type": "image/jpeg", "Accept": "image/png"}
    response = await live.http.post(
        "/v1/models/street/predict", content=image_file(), headers=lines
    )
    assert response.status_code == 200


async def stream(live):
    session = Session(Role.CLIENT)
    async with connect(live.stream_url, subprotocols=[PROTOCOL], proxy=None) as socket:
        session.receive(await socket.recv())
        session.send(infer())
        for frame in session.outgoing():
            await socket.send(frame)
        while not any(isinstance(event, Finished) for event in session.events()):
            session.receive(await socket.recv())


async def frame_of_a_stream(live):
    session = Session(Role.CLIENT)
    async with connect(live.stream_url, subprotocols=[PROTOCOL], proxy=None) as socket:
        session.receive(await socket.recv())
        session.send(OpenStream("s", "street", reuse=ReuseOptions()))
        session.send(Frame("s", 1, image_file()))
        first, second = session.outgoing()
        await socket.send(first)
        await socket.send(second)
        while not any(isinstance(event, FrameEnd) for event in session.events()):
            session.receive(await socket.recv())


@pytest.mark.parametrize(
    ("heading", "request_of"),
    [
        ("A `POST` that is answered once:", post),
        ("A request on a websocket:", stream),
        ("A frame of a stream on a websocket:", frame_of_a_stream),
    ],
)
async def test_a_request_passes_the_documented_stations_in_their_order(serve, heading, request_of):
    listed = stations(heading)
    assert len(listed) <= MAX_STATIONS
    for _, name, function in listed:
        assert function in functions_in(source_of(name)), f"{name} has no {function}"
    here = [
        (str(source_of(name)), function)
        for what, name, function in listed
        if "executor's process" not in what  # the fake executor is none
    ]
    async with serve() as live:
        with following(set(here)) as called:
            await request_of(live)
    assert called == here
