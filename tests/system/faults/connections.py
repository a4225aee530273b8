"""Clients that misbehave, one that watches whether others are harmed, and one that counts ends."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from anytime_protocol.enums import PROTOCOL
from anytime_protocol.messages import (
    Cancel,
    Failed,
    Finished,
    Infer,
    OutputOptions,
    Role,
    SetBudget,
)
from anytime_protocol.session import Session
from system.conftest import Running
from system.faults.processes import picture

TEXT, BINARY, CLOSE, PING = 0x1, 0x2, 0x8, 0x9
IMAGE = picture()
LEAVING = ("fin", "rst", "half")


def post(server: Running, accept: str = "image/png", image: bytes = IMAGE) -> bytes:
    """A request as it stands on the wire."""
    lines = (
        f"POST /v1/models/{server.model}/predict HTTP/1.1",
        "Host: localhost",
        "Content-Type: image/jpeg",
        f"Accept: {accept}",
        f"Content-Length: {len(image)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + image


def handshake() -> bytes:
    """That of a websocket."""
    lines = (
        "GET /v1/stream HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Sec-WebSocket-Protocol: {PROTOCOL}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def frame(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame of a websocket, masked with zeros."""
    size = bytes([0x80 | len(data)]) if len(data) < 126 else struct.pack(">BQ", 0xFF, len(data))
    return bytes([opcode | (0x80 if fin else 0)]) + size + bytes(4) + data


def infer_frame(server: Running, request_id: str, image: bytes = IMAGE) -> bytes:
    """A request on a websocket."""
    message = {"type": "infer", "id": request_id, "model": server.model}
    text = json.dumps(message | {"media_type": "image/jpeg"}).encode()
    return frame(BINARY, struct.pack(">II", 1, len(text)) + text + image)


class Client:
    """A TCP connection whose client may leave in several ways."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, server: Running) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", server.port, limit=2**25))

    async def until(self, text: bytes) -> None:
        """Reads until a text comes."""
        async with asyncio.timeout(20):
            await self.reader.readuntil(text)

    async def leave(self, how: str) -> None:
        """Ends the connection: both ways (FIN), at once (RST), or the client's way alone."""
        with suppress(ConnectionError):
            await self.writer.drain()
        if how == "rst":
            peer = self.writer.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        elif how == "half":
            self.writer.write_eof()
            with suppress(ConnectionError):
                async with asyncio.timeout(20):
                    await self.reader.read()
            self.writer.transport.abort()
        else:
            self.writer.close()
            with suppress(ConnectionError):
                await self.writer.wait_closed()


@dataclass
class Watch:
    """What a client that does nothing wrong sees meanwhile.

    Attributes:
        statuses: of its requests, how many of each.
        slowest_s: the longest answer about health.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0


@asynccontextmanager
async def unharmed(server: Running, within_s: float = 2.0) -> AsyncIterator[Watch]:
    """Checks that health is answered in time, and requests with maps, while a fault is going on."""
    watch, loop = Watch(), asyncio.get_running_loop()

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as http:
            while True:
                began = loop.time()
                assert (await http.get("/livez")).status_code == 200
                watch.slowest_s = max(watch.slowest_s, loop.time() - began)
                answer = await http.post(
                    f"/v1/models/{server.model}/predict",
                    content=IMAGE,
                    headers={"Content-Type": "image/jpeg"},
                )
                watch.statuses[answer.status_code] += 1
                await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask())
    try:
        yield watch
        async with asyncio.timeout(20):
            while not watch.statuses and not asking.done():
                await asyncio.sleep(0.05)
    finally:
        asking.cancel()
        (end,) = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(end, asyncio.CancelledError), end
    assert set(watch.statuses) == {200}, watch.statuses
    assert watch.slowest_s < within_s


async def counts(server: Running) -> dict[str, float]:
    """Sums over the labels of each metric that ends in `_total`, and the active requests."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        text = (await http.get(f"{server.url}/metrics")).text
    found: Counter[str] = Counter()
    for name, value in re.findall(r"^(\w+)(?:\{.*\})? ([0-9.e+-]+)$", text, re.MULTILINE):
        found[name] += float(value)
    return dict(found)


async def settle(server: Running) -> dict[str, float]:
    """Waits until no request is active; the counts then."""
    async with asyncio.timeout(30):
        while (now := await counts(server))["anytime_requests_in_house"]:
            await asyncio.sleep(0.1)
    return now


class Stream:
    """A websocket client that keeps a record of the ends of its requests.

    Attributes:
        ends: terminal messages by the id of their request.
    """

    def __init__(self, server: Running, connection: ClientConnection) -> None:
        self._server = server
        self._socket = connection
        self.session = Session(Role.CLIENT)
        self.ends: Counter[str] = Counter()
        self.asked: list[str] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, server: Running) -> AsyncIterator[Stream]:
        async with connect(
            server.stream, subprotocols=[PROTOCOL], proxy=None, max_size=2**28, open_timeout=30
        ) as connection:
            stream = cls(server, connection)
            await stream.hear()
            yield stream

    async def say(self, *messages: Infer | Cancel | SetBudget) -> None:
        for message in messages:
            self.session.send(message)
            if isinstance(message, Infer):
                self.asked.append(message.id)
        for data in self.session.outgoing():
            await self._socket.send(data)

    async def hear(self) -> None:
        """Takes in one message."""
        async with asyncio.timeout(60):
            self.session.receive(await self._socket.recv())
        for event in self.session.events():
            if isinstance(event, Finished | Failed):
                self.ends[event.id] += 1

    async def ask(self, image: bytes = IMAGE, in_flight: int = 1) -> None:
        """Asks for some maps, and waits until all have ended."""
        first = len(self.asked)
        for number in range(first, first + in_flight):
            options = OutputOptions(progress=False)
            await self.say(Infer(str(number), self._server.model, image, want=options))
        while any(not self.ends[name] for name in self.asked):
            await self.hear()

    async def ping(self) -> None:
        """Waits for a pong: whatever was said before has been heard."""
        async with asyncio.timeout(60):
            await (await self._socket.ping())

    def assert_one_end_each(self) -> None:
        """Exactly one terminal message for each request."""
        assert {name: self.ends[name] for name in self.asked} == dict.fromkeys(self.asked, 1)


async def for_a_while(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Does something over and over; a connection that the server closes ends it as well."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    with suppress(ConnectionError, ConnectionClosed):
        while loop.time() < end:
            await work()
