"""Websockets over real sockets: silent clients, tiny frames, pings that nobody answers."""

import asyncio
import json
import socket
import struct
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame

from anytime_protocol.enums import PROTOCOL, CloseCode
from server.factories import image_file

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
)
TEXT, BINARY, PING = 0x1, 0x2, 0x9


def frame(opcode, data=b"", *, fin=True):
    """A client's frame, masked with zeros."""
    size = bytes([0x80 | len(data)]) if len(data) < 126 else struct.pack(">BQ", 0xFF, len(data))
    return bytes([opcode | (0x80 if fin else 0)]) + size + bytes(4) + data


@asynccontextmanager
async def raw_socket(live):
    """A websocket without a library, after `ready`; the buffers between both ends are small."""
    near = socket.socket()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    near.setblocking(False)
    await asyncio.get_running_loop().sock_connect(near, ("127.0.0.1", live.port))
    reader, writer = await asyncio.open_connection(sock=near, limit=4096)
    writer.write(HANDSHAKE.format(path="/v1/stream", protocol=PROTOCOL).encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    await read_frame(reader)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_frame(reader):
    """The opcode and the data of the server's next frame, which must come within 5 s."""
    async with asyncio.timeout(5):
        first, size = await reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack(">H", await reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await reader.readexactly(8))
        return first & 0xF, await reader.readexactly(size)


async def close_code(reader):
    while True:
        opcode, data = await read_frame(reader)
        if opcode == 0x8:
            return struct.unpack(">H", data[:2])[0]


async def longest_turn(work):
    """The seconds for which the event loop was held at most while something was done."""
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0)
        now = loop.time()
        longest, last = max(longest, now - last), now
    task.result()
    return longest


@pytest.mark.parametrize("data", [b"", b"x"])
async def test_a_message_of_too_many_tiny_frames_closes_the_connection(live, data):
    async with raw_socket(live) as (reader, writer):
        flood = frame(TEXT, data, fin=False) + 40_000 * frame(0, data, fin=False)

        async def send():
            writer.write(flood)
            assert await close_code(reader) == CloseCode.POLICY

        assert await longest_turn(send()) < 0.3


async def test_a_message_in_some_frames_is_read(live):
    async with raw_socket(live) as (reader, writer):
        text = b'{"type": "ping", "nonce": 7}'
        pieces = [frame(0, text[k : k + 1], fin=False) for k in range(1, len(text))]
        writer.write(frame(TEXT, text[:1], fin=False) + b"".join(pieces) + frame(0))
        opcode, data = await read_frame(reader)
        assert opcode == TEXT
        assert b"pong" in data


async def test_pings_are_answered_in_turns_and_no_faster_than_their_client_reads(live):
    async with raw_socket(live) as (reader, writer):
        pings, sent = 1000 * frame(PING, 120 * b"p"), 0

        async def flood():
            nonlocal sent
            while True:
                writer.write(pings)
                sent += len(pings)
                await writer.drain()

        async def send():
            flooding = asyncio.create_task(flood())
            await asyncio.wait([flooding], timeout=1)
            flooding.cancel()

        assert await longest_turn(send()) < 0.3
        (connection,) = live.server.server_state.connections
        assert connection.transport.get_write_buffer_size() < 2**18
        assert (await live.http.get("/livez")).status_code == 200
        read = 0
        while read < sent // 2:  # once they are taken, it goes on
            async with asyncio.timeout(5):
                read += len(await reader.read(2**20))


async def test_text_that_is_not_utf_8_closes_the_connection_and_is_no_error_of_ours(live, caplog):
    async with raw_socket(live) as (reader, writer):
        writer.write(frame(TEXT, b"\xff\xfe"))
        assert await close_code(reader) == CloseCode.INVALID_TEXT
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_refused_websocket_is_no_error_of_ours(live, caplog):
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    writer.write(HANDSHAKE.format(path="/v1/stream", protocol="nonsense").encode())
    assert b" 400 " in await reader.readline()
    await reader.read()
    writer.close()
    while live.server.server_state.tasks:
        await asyncio.sleep(0.01)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_reads_nothing_does_not_hold_its_connection_for_ever(serve):
    async with serve(send_timeout_s=0.2) as live, raw_socket(live) as (reader, writer):
        reader._transport.pause_reading()
        image = image_file("PNG", (1500, 1500))
        for number in range(4):  # maps of 2 MB each, more than the buffers of both ends hold
            message = {"type": "infer", "id": str(number), "model": "street"}
            text = json.dumps(message | {"media_type": "image/png"}).encode()
            writer.write(frame(BINARY, struct.pack(">II", 1, len(text)) + text + image))
        async with asyncio.timeout(15):
            while not live.executor.runs():
                await asyncio.sleep(0.01)
            while live.server.server_state.connections:
                await asyncio.sleep(0.02)


async def test_a_client_that_answers_no_ping_is_told_so(serve):
    async with serve(ping_interval_s=0.05) as live:
        async with connect(live.stream_url, subprotocols=[PROTOCOL], proxy=None) as socket:
            await socket.recv()
            silence(socket)
            with pytest.raises(ConnectionClosed) as closed:
                async with asyncio.timeout(5):
                    await socket.recv()
        assert closed.value.rcvd.code == CloseCode.TIMEOUT


def silence(socket):
    """Has a client swallow its pongs."""
    send = socket.protocol.send_frame

    def without_pongs(frame: Frame) -> None:
        if frame.opcode.name != "PONG":
            send(frame)

    socket.protocol.send_frame = without_pongs
