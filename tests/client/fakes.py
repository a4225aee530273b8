"""Fake servers on real sockets, whose answers the test chooses."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from anytime_protocol.codec import encode_text, load_json
from anytime_protocol.enums import PROTOCOL, CloseReason, Effect, Reason
from anytime_protocol.messages import (
    BudgetApplied,
    Cancel,
    CloseStream,
    Frame,
    Infer,
    Message,
    OpenStream,
    Ready,
    Role,
    SetBudget,
)
from anytime_protocol.session import Closed, Session
from anytime_protocol.stream_answers import StreamClosed, StreamOpened
from client.factories import READY, STREET, accepted, finished, frame_end, frame_update, update


@dataclass(frozen=True)
class HangUp:
    """In place of a message: close the connection with this code."""

    code: int


Answer = Callable[[Message], "list[Message | HangUp]"]


def answer_all_exits(event: Message) -> list[Message | HangUp]:
    """Has all exits ready at once, so that a budget comes too late; `ladder` passes over exit 3."""
    match event:
        case Infer(model="ladder") if event.want.progress:
            updates = [update(event.id, 1), update(event.id, 2), update(event.id, 4, base=2)]
            return [accepted(event.id), *updates, finished(event.id, 4)]
        case Infer():
            exits = range(1, 5) if event.want.progress else [4]
            updates = [update(event.id, n, raw=len(exits) == 1) for n in exits]
            end = replace(finished(event.id, 4), risk=event.budget.max_risk)
            return [accepted(event.id), *updates, end]
        case SetBudget():
            return [BudgetApplied(event.id, event.rev, 0, Effect.GONE)]
        case _:
            return answer_every_frame(event)


def answer_every_frame(event: Message) -> list[Message | HangUp]:
    """Each frame of a stream has the map of exit 4."""
    match event:
        case OpenStream():
            return [StreamOpened(event.id, 4)]
        case Frame():
            return [frame_update(event.id, event.frame), frame_end(event.id, event.frame)]
        case CloseStream():
            return [StreamClosed(event.id, CloseReason.CLOSED, 3, 0, 0)]
        case Cancel():
            return [StreamClosed(event.id, CloseReason.CANCELLED, 0, 0, 0)]
        case _:
            return []


def answer_exit_1_and_wait(event: Message) -> list[Message | HangUp]:
    """Stops after exit 1 until the client changes its budget or cancels."""
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


def answer_nothing(_: Message) -> list[Message | HangUp]:
    return []


@dataclass
class FakeServer:
    """Answers each message with a list of messages, through the protocol's session, which lets
    nothing illegal pass."""

    answer: Answer = answer_all_exits
    ready: Ready = READY
    received: queue.Queue[Message] = field(default_factory=queue.Queue)
    tokens: list[str | None] = field(default_factory=list)
    connections: list[ServerConnection] = field(default_factory=list)
    server: Server | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.socket.getsockname()[1]}"

    def wait_for(self, kind: type, timeout_s: float = 5.0) -> Message:
        """Waits for a message of a kind; others before it are passed over."""
        while True:
            message = self.received.get(timeout=timeout_s)
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
        self.received.put(event)
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
def fake_server(answer: Answer = answer_all_exits, port: int = 0) -> Iterator[FakeServer]:
    """A server that speaks the websocket alone."""
    fake = FakeServer(answer)
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


@dataclass
class FakeHttpServer:
    """What `fake_http_server` answers.

    Attributes:
        url: of the server.
        is_complete: whether its event streams have a final message.
        budget: the body of `/v1/budget`; a PUT replaces its field `budget`.
    """

    url: str
    is_complete: bool
    budget: dict[str, Any]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeHttpServer

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send_json({"models": [STREET.to_json()], "unknown to this version": 1})
        elif self.path == "/v1/budget":
            self._send_json(self.fake.budget)
        else:
            self._send(404, "text/html", b"<h1>nothing here</h1>")

    def do_PUT(self) -> None:
        self.fake.budget |= load_json(self._body().decode())
        self._send_json(self.fake.budget)

    def do_POST(self) -> None:
        self._body()
        request_id = self.headers["X-Request-Id"]
        messages = [accepted(request_id), update(request_id, 1), update(request_id, 2)]
        if self.fake.is_complete:
            messages.append(finished(request_id, 2))
        lines = [
            f"event: {message.type}\ndata: "
            + encode_text(message.to_json(), getattr(message, "payload", b""))
            + "\n\n"
            for message in messages
        ]
        self._send(200, "text/event-stream", "".join(lines).encode())

    def log_message(self, *args: object) -> None:
        """Keeps the tests' output clean."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _send_json(self, body: dict[str, Any]) -> None:
        self._send(200, "application/json", json.dumps(body).encode())

    def _send(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def fake_http_server(*, is_complete: bool = True) -> Iterator[FakeHttpServer]:
    """A server behind a proxy that lets no websockets through."""
    budget = {"budget": {}, "effective": {}, "in_flight": 1, "queued": 2, "slowdown": 1.25}
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.fake = FakeHttpServer(f"http://127.0.0.1:{server.server_port}", is_complete, budget)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield handler.fake
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
