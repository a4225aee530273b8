"""Servers for the client's tests: one that tells a fixed story, and the real one as a process."""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from anytime_protocol import delta
from anytime_protocol.arrays import ArraySegment
from anytime_protocol.codec import encode_text
from anytime_protocol.enums import (
    PROTOCOL,
    ArrayName,
    Effect,
    Encoding,
    ErrorCode,
    Reason,
    Task,
)
from anytime_protocol.messages import (
    Accepted,
    BudgetApplied,
    Cancel,
    Failed,
    Finished,
    Infer,
    Message,
    Ready,
    Role,
    SetBudget,
    Update,
)
from anytime_protocol.resources import ClassInfo, ExitInfo, ModelInfo
from anytime_protocol.server_messages import ConnectionLimits
from anytime_protocol.session import Closed, Session

STREET = ModelInfo(
    "street",
    Task.SEGMENTATION,
    tuple(ExitInfo(gmacs) for gmacs in (1.0, 2.0, 3.0, 4.0)),
    (ClassInfo(0, "sky", (128, 128, 128)), ClassInfo(3, "road", (128, 64, 128))),
)
POSE = ModelInfo(
    "pose",
    Task.POSE,
    (ExitInfo(1.0), ExitInfo(2.0)),
    keypoints=("ankle", "knee"),
    skeleton=((0, 1),),
)
READY = Ready("fake 1", (STREET, POSE), ConnectionLimits(max_in_flight=4))
MAPS = (
    np.array([[0, 0, 0], [3, 3, 3]], np.uint8),
    np.array([[0, 0, 3], [3, 3, 3]], np.uint8),
    np.array([[0, 0, 3], [0, 3, 3]], np.uint8),
    np.array([[0, 3, 3], [0, 3, 3]], np.uint8),
)
"""What the fake's four exits see."""

PIXELS = np.zeros((2, 3, 3), np.uint8)


@dataclass(frozen=True)
class HangUp:
    """In place of a message: close the connection with this code."""

    code: int


Answer = Callable[[Message], "list[Message | HangUp]"]


def accepted(request_id: str) -> Accepted:
    return Accepted(request_id, 4, 4, 40.0)


def update(request_id: str, exit_: int, *, whole: bool = False) -> Update:
    """Exit 1 raw, the others as deltas on the exit before."""
    new = MAPS[exit_ - 1].tobytes()
    if exit_ == 1 or whole:
        payload, part = new, ArraySegment(ArrayName.MAP, Encoding.RAW, (2, 3), 6)
    else:
        payload = delta.encode(MAPS[exit_ - 2].tobytes(), new)
        part = ArraySegment(ArrayName.MAP, Encoding.DELTA, (2, 3), len(payload), base=exit_ - 1)
    return Update(
        request_id, exit_, 4, 3, 2, 10.0 * exit_, 5.0 * exit_, exit_, 0.2 * exit_, 0.25 * exit_,
        parts=(part,), payload=payload,
    )  # fmt: skip


def finished(request_id: str, exit_: int, reason: Reason = Reason.COMPLETE) -> Finished:
    sure = 0.2 * exit_ if exit_ else None
    return Finished(request_id, exit_, 4, reason, sure, sure, exit_, 44.0, 1.0, 2.0, 30.0, 3.0)


def all_exits(event: Message) -> list[Message | HangUp]:
    """A server that has all four exits ready, and says what it hears of budgets."""
    match event:
        case Infer():
            exits = range(1, 5) if event.want.progress else [4]
            updates = [update(event.id, n, whole=len(exits) == 1) for n in exits]
            return [accepted(event.id), *updates, finished(event.id, 4)]
        case SetBudget():
            return [BudgetApplied(event.id, event.rev, 0, Effect.GONE)]
        case _:
            return []


def patient(event: Message) -> list[Message | HangUp]:
    """A server that stops after exit 1 until the client says how to go on."""
    match event:
        case Infer():
            return [accepted(event.id), update(event.id, 1)]
        case SetBudget() if event.budget.min_confidence == 0:
            applied = BudgetApplied(event.id, event.rev, 1, Effect.APPLIED)
            return [applied, finished(event.id, 1, Reason.SATISFIED)]
        case SetBudget():
            applied = BudgetApplied(event.id, event.rev, 1, Effect.APPLIED)
            return [applied, update(event.id, 2), finished(event.id, 2, Reason.BUDGET)]
        case Cancel():
            return [finished(event.id, 1, Reason.CANCELLED)]
        case _:
            return []


@dataclass
class FakeServer:
    """Answers each message with a list of messages, through the server's session, which lets
    nothing illegal pass."""

    answer: Answer = all_exits
    ready: Ready = READY
    heard: queue.Queue[Message] = field(default_factory=queue.Queue)
    tokens: list[str | None] = field(default_factory=list)
    connections: list[ServerConnection] = field(default_factory=list)
    server: Server | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.socket.getsockname()[1]}"

    def hear(self, kind: type, timeout_s: float = 5.0) -> Message:
        """Waits for a message of a kind; others before it are passed over."""
        while True:
            message = self.heard.get(timeout=timeout_s)
            if isinstance(message, kind):
                return message

    def __call__(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.tokens.append(connection.request.headers.get("Authorization"))
        self.connections.append(connection)
        session = Session(Role.SERVER)
        session.send(self.ready)
        try:
            self._flush(session, connection)
            for data in connection:
                session.receive(data)
                for event in session.events():
                    if isinstance(event, Closed):
                        return
                    self._respond(session, connection, event)
        except ConnectionClosed:
            return

    def _respond(self, session: Session, connection: ServerConnection, event: Message) -> None:
        self.heard.put(event)
        for message in self.answer(event):
            if isinstance(message, HangUp):
                connection.close(message.code)
                return
            session.send(message)
            self._flush(session, connection)

    def _flush(self, session: Session, connection: ServerConnection) -> None:
        for frame in session.outgoing():
            connection.send(frame)


@contextmanager
def fake_server(
    answer: Answer = all_exits, ready: Ready = READY, port: int = 0
) -> Iterator[FakeServer]:
    fake = FakeServer(answer, ready)
    options = {"subprotocols": [PROTOCOL], "compression": None, "max_size": 2**24}
    with serve(fake, "127.0.0.1", port, **options) as server:
        fake.server = server
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield fake
        finally:
            for connection in fake.connections:
                connection.close()
            server.shutdown()
            thread.join()


class _PlainHttp(BaseHTTPRequestHandler):
    """Behind a proxy that passes no websockets: models, and one request's events."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            body = encode_text({"models": [STREET.to_json()]}).encode()
            self._send(200, "application/json", body)
        else:
            self._send(404, "text/html", b"<h1>nothing here</h1>")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        request_id = self.headers["X-Request-Id"]
        messages = [accepted(request_id), update(request_id, 1), update(request_id, 2)]
        if self.server.whole:
            messages.append(finished(request_id, 2))
        lines = [
            f"event: {message.TYPE}\ndata: "
            + encode_text(message.to_json(), getattr(message, "payload", b""))
            + "\n\n"
            for message in messages
        ]
        self._send(200, "text/event-stream", "".join(lines).encode())

    def log_message(self, *args: object) -> None:
        """Keeps the tests' output clean."""

    def _send(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def plain_http_server(*, whole: bool = True) -> Iterator[str]:
    """A server without websockets; `whole` says whether its streams have their final message."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _PlainHttp) as server:
        server.whole = whole
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def failed(request_id: str) -> Failed:
    return Failed(request_id, ErrorCode.OVERLOADED, "no room", retry_after_ms=180.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def real_server(
    weights: Path,
    *flags: str,
    process_to: list[subprocess.Popen[bytes]] | None = None,
) -> Iterator[str]:
    """`anytime-server serve` as a process of its own; yields its URL once it is ready.

    `process_to` gets the process, for tests that kill it.
    """
    port = free_port()
    program = Path(sys.executable).with_name("anytime-server")
    log = weights / f"server-{port}.log"
    command = [
        program,
        "serve",
        "--weights",
        weights,
        "--port",
        str(port),
        "--threads",
        "1",
        *flags,
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(process, url, log)
        if process_to is not None:
            process_to.append(process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    try:
        wait_for_http(f"{url}/readyz", lambda: process.poll() is None)
    except TimeoutError:
        raise AssertionError(f"the server was not ready:\n{log.read_text()}") from None


def wait_for_http(url: str, hopeful: Callable[[], bool] = lambda: True) -> None:
    """Waits until a URL answers well, as long as there is hope, at most 100 s."""
    until = time.monotonic() + 100
    while time.monotonic() < until and hopeful():
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).is_success:
                return
        time.sleep(0.1)
    raise TimeoutError(url)


class Cable:
    """A TCP connection to a server that can be cut and mended, as a network does it."""

    def __init__(self, url: str) -> None:
        self._target = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self._port = free_port()
        self._ends: list[socket.socket] = []
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def mend(self) -> None:
        """Lets connections through."""
        self._listener = socket.create_server(("127.0.0.1", self._port), reuse_port=True)
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def cut(self) -> None:
        """Breaks all connections and refuses new ones."""
        assert self._listener is not None
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                self._ends += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def cable(url: str) -> Iterator[Cable]:
    laid = Cable(url)
    laid.mend()
    try:
        yield laid
    finally:
        laid.cut()
