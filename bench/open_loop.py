"""Open-loop load: requests leave when they are due, whatever became of those before them.

One event loop, few objects a request, and images sent as the bytes of a file: a generator that
shares its cores with what it measures has to be light. All times count from the moment at which a
request was *scheduled*, so that a late generator or a full socket is the server's loss and never
hides one (no "coordinated omission"). `Outcome.sent_s` tells how late the generator was itself.
"""

import asyncio
import gc
import time
from dataclasses import dataclass

from websockets.asyncio.client import connect

from anytime_protocol.budget import Budget
from anytime_protocol.enums import PROTOCOL
from anytime_protocol.http.headers import ResultHeader
from anytime_protocol.messages import Failed, Finished, Infer, OutputOptions, Role
from anytime_protocol.session import Session

LINGER_S = 3.0
"""After the last request is due, answers are waited for so long."""

SOCKETS = 8
"""Websockets that share the requests: a server takes only some of one at a time."""

BUSY = "busy"
"""Status of a request that never left, as its websocket had as many as it may."""


@dataclass(slots=True)
class Outcome:
    """One request; times in seconds from the beginning of the load.

    Attributes:
        due_s: when it was scheduled.
        sent_s: when it left.
        done_s: when its answer was in; None without one.
        status: HTTP's status, or the error's code on a websocket; 200 for a map.
        exit: that was served; 0 where the answer names none.
    """

    due_s: float
    sent_s: float = 0.0
    done_s: float | None = None
    status: int | str = 0
    exit: int = 0


class _Connection(asyncio.Protocol):
    """A connection that carries one HTTP request at a time."""

    def __init__(self, pool):
        self.pool = pool
        self.answered = None
        self.transport = None
        self.data = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.data[:end].decode("latin-1")
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        lines = {name.lower(): value for name, value in lines.items()}
        if len(self.data) < end + 4 + int(lines["content-length"]):
            return
        self.data = b""
        answered, self.answered = self.answered, None
        if lines.get("connection", "").lower() == "close":
            self.transport.close()
        else:
            self.pool.append(self)
        answered(int(head.split(" ", 2)[1]), lines)

    def connection_lost(self, error):  # noqa: ARG002  asyncio's
        if self in self.pool:
            self.pool.remove(self)
        if self.answered is not None:
            self.answered(0, {})


class HttpLoad:
    """Requests over HTTP/1.1, each on an idle connection, or a new one where there is none.

    Args:
        port: of the server, on this machine.
        path: with its query.
        images: image files, taken in turn.
        deadline_s: of each request from its scheduled moment; what the generator is late is taken
            off what the server is told.
    """

    def __init__(self, port, path, images, deadline_s):
        self.port, self.path, self.images, self.deadline_s = port, path, images, deadline_s
        self.idle = []
        self.opened = []

    async def open(self):
        """Opens a few connections ahead."""
        for _ in range(8):
            self.idle.append(await self._connect())

    async def close(self):
        for connection in self.opened:
            connection.answered = None
            connection.transport.abort()

    def send(self, number, outcome, clock):
        """Sends a request now."""
        if self.idle:
            self._send_on(self.idle.pop(), number, outcome, clock)
        else:
            task = asyncio.ensure_future(self._connect())
            task.add_done_callback(
                lambda done: (
                    done.exception() is None
                    and self._send_on(done.result(), number, outcome, clock)
                )
            )

    async def _connect(self):
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self.idle), "127.0.0.1", self.port
        )
        self.opened.append(connection)
        return connection

    def _send_on(self, connection, number, outcome, clock):
        def answered(status, lines):
            outcome.status = status
            if status:
                outcome.done_s = clock()
            if "anytime-result" in lines:
                outcome.exit = lines["anytime-result"]  # read later

        image = self.images[number % len(self.images)]
        outcome.sent_s = clock()
        left_ms = 1e3 * max(self.deadline_s + outcome.due_s - outcome.sent_s, 0.001)
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
            f"Accept: image/png\r\nX-Deadline-Ms: {left_ms:.3f}\r\n"
            f"Content-Length: {len(image)}\r\n\r\n"
        )
        connection.answered = answered
        connection.transport.write(head.encode() + image)


class WebsocketLoad:
    """Requests over a few websockets that are shared by all.

    Args:
        port: of the server, on this machine.
        model: its name.
        images: image files, taken in turn.
        deadline_s: see `HttpLoad`.
    """

    def __init__(self, port, model, images, deadline_s):
        self.port, self.model, self.images, self.deadline_s = port, model, images, deadline_s
        self.sockets = []
        self.readers = []
        self.pending = {}
        self.writers = set()

    async def open(self):
        for _ in range(SOCKETS):
            socket = await connect(
                f"ws://127.0.0.1:{self.port}/v1/stream",
                subprotocols=[PROTOCOL],
                compression=None,
                proxy=None,
            )
            session = Session(Role.CLIENT)
            session.receive(await socket.recv())
            session.events()
            self.sockets.append((socket, session))
            self.readers.append(asyncio.ensure_future(self._read(socket, session)))

    async def close(self):
        for reader in self.readers:
            reader.cancel()
        for socket, _ in self.sockets:
            socket.transport.abort()

    def send(self, number, outcome, clock):
        socket, session = min(self.sockets, key=lambda pair: len(pair[1].in_flight))
        outcome.sent_s = clock()
        if len(session.in_flight) >= session.limits.max_in_flight:
            outcome.status = BUSY
            return
        name = str(number)
        left_ms = 1e3 * max(self.deadline_s + outcome.due_s - outcome.sent_s, 0.001)
        image = self.images[number % len(self.images)]
        session.send(
            Infer(
                name,
                self.model,
                image,
                budget=Budget(deadline_ms=left_ms),
                want=OutputOptions(progress=False),
            )
        )
        self.pending[name] = (outcome, clock)
        writer = asyncio.ensure_future(self._write(socket, session))
        self.writers.add(writer)
        writer.add_done_callback(self.writers.discard)

    async def _write(self, socket, session):
        for frame in session.outgoing():
            await socket.send(frame)

    async def _read(self, socket, session):
        async for frame in socket:
            session.receive(frame)
            for event in session.events():
                if isinstance(event, Finished | Failed):
                    outcome, clock = self.pending.pop(event.id)
                    outcome.done_s = clock()
                    good = isinstance(event, Finished)
                    outcome.status = 200 if good else event.code.value
                    outcome.exit = event.exit if good else 0


async def drive(load, due_s):
    """Sends requests at their moments, and waits for their answers.

    Args:
        load: an open `HttpLoad` or `WebsocketLoad`.
        due_s: moments, seconds from the beginning, rising.

    Returns:
        An outcome for each, and the share of one core that this process used meanwhile.
    """
    outcomes = [Outcome(at) for at in due_s]
    gc.collect()
    gc.freeze()
    used, start = time.process_time(), time.perf_counter() + 0.05
    loop_start = asyncio.get_running_loop().time() + 0.05

    def clock():
        return time.perf_counter() - start

    for number, outcome in enumerate(outcomes):
        wait_s = outcome.due_s - clock()
        if wait_s > 0.0:
            await _until(loop_start + outcome.due_s)
        load.send(number, outcome, clock)
    end_s = due_s[-1] + LINGER_S
    while clock() < end_s and any(o.done_s is None and o.status == 0 for o in outcomes):
        await asyncio.sleep(0.02)
    cpu = (time.process_time() - used) / clock()
    for outcome in outcomes:
        if isinstance(outcome.exit, str):
            outcome.exit = ResultHeader.parse(outcome.exit).exit
    return outcomes, cpu


async def _until(when_s):
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    loop.call_at(when_s, reached.set_result, None)
    await reached
