"""The document's client, run as a program against a session on a real socket.

The server here computes nothing: it plays a fixed story through the session of the server's role,
which lets nothing illegal pass. That the client also works with the real server is a system test.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from anytime_protocol.arrays import delta
from anytime_protocol.arrays.segments import ArraySegment
from anytime_protocol.enums import PROTOCOL, ArrayName, Effect, Encoding
from anytime_protocol.messages import (
    BudgetApplied,
    CloseStream,
    Frame,
    Infer,
    Message,
    OpenStream,
    Role,
    SetBudget,
)
from anytime_protocol.session import Closed, Session
from protocol.factories import (
    BAD_FRAME,
    STREET,
    accepted,
    closed,
    failed,
    finished,
    frame_end,
    opened,
    ready,
    update,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "PROTOCOL.md"
FIRST, SECOND, THIRD = b"\0\0\0\3\3\3", b"\0\0\3\3\3\3", b"\0\3\3\3\3\3"


def _delta(base: bytes, new: bytes, exit_: int, base_exit: int) -> Message:
    payload = delta.encode(base, new)
    part = ArraySegment(ArrayName.MAP, Encoding.DELTA, (2, 3), len(payload), base=base_exit)
    return update("1", exit_, part, payload)


def _answers(event: object) -> list[Message]:
    match event:
        case Infer(model=STREET.name, payload=b"\xff\xd8 an image"):
            raw = ArraySegment(ArrayName.MAP, Encoding.RAW, (2, 3), 6)
            return [accepted("1"), update("1", 1, raw, FIRST)]
        case Infer():
            return [failed("1")]
        case SetBudget(rev=rev, budget=budget) if budget.deadline_ms == 9000:
            return [
                BudgetApplied("1", rev, 1, Effect.APPLIED),
                _delta(FIRST, SECOND, 3, 1),
                _delta(SECOND, THIRD, 4, 3),
                finished("1", 4),
            ]
        case OpenStream(model=STREET.name, id=name):
            return [opened(name)]
        case Frame(id=name, frame=1):
            raw = ArraySegment(ArrayName.MAP, Encoding.RAW, (2, 3), 6)
            return [update(name, 1, raw, FIRST, 1), frame_end(name, 1, 1)]
        case Frame(id=name, frame=2):
            return [frame_end(name, 2, 0, BAD_FRAME)]
        case Frame(id=name, frame=3):
            payload = delta.encode(FIRST, THIRD)
            shape = (ArrayName.MAP, Encoding.DELTA, (2, 3), len(payload))
            part = ArraySegment(*shape, base=1, base_frame=1)
            return [update(name, 1, part, payload, 3), frame_end(name, 3, 1)]
        case CloseStream(id=name):
            return [closed(name)]
        case _:
            return []


def _story(connection: ServerConnection) -> None:
    session = Session(Role.SERVER)
    session.send(ready())
    try:
        while session.closed is None:
            for frame in session.outgoing():
                connection.send(frame)
            session.receive(connection.recv())
            for event in session.events():
                assert not isinstance(event, Closed)
                for message in _answers(event):
                    session.send(message)
    except ConnectionClosed:
        session.close(1000)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(_story, "127.0.0.1", 0, subprotocols=[PROTOCOL], compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _run(
    server: Server, folder: Path, image: bytes, name: str = "client", images: int = 1
) -> list[str]:
    found = re.search(rf"```python {name}\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)
    assert found is not None
    (folder / "client.py").write_text(found[1])
    for number in range(images):
        (folder / f"image{number}.jpg").write_bytes(image)
    port = server.socket.getsockname()[1]
    source = ["image0.jpg"] if name == "client" else [".", "50"]
    command = [sys.executable, "client.py", f"ws://127.0.0.1:{port}/v1/stream", *source]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_documented_client_follows_a_request_to_its_end(server: Server, tmp_path: Path) -> None:
    lines = _run(server, tmp_path, b"\xff\xd8 an image")
    assert [line.split()[0] for line in lines] == [
        "type=accepted",
        "type=update",
        "{'sky':",
        "type=budget_applied",
        "type=update",
        "{'road':",
        "type=update",
        "{'road':",
        "type=final",
    ]
    assert lines[-2].strip() == "{'road': 5, 'sky': 1}"
    assert "reason=deadline" in lines[-1]


def test_the_documented_client_shows_an_error_and_ends(server: Server, tmp_path: Path) -> None:
    (line,) = _run(server, tmp_path, b"something else")
    assert line == "type=error detail=no room"


def test_the_documented_client_for_streams_applies_deltas_from_frame_to_frame(
    server: Server, tmp_path: Path
) -> None:
    lines = _run(server, tmp_path, b"an image", "stream-client", images=3)
    assert [" ".join(line.split()[:2]) for line in lines if not line.startswith("  ")] == [
        "type=opened",
        "type=update frame=1",
        "type=frame_end frame=1",
        "type=frame_end frame=2",
        "type=update frame=3",
        "type=frame_end frame=3",
        "type=closed reason=closed",
    ]
    assert lines[-3].strip() == "[(3, 5), (0, 1)]"
