"""What stands before the framework: the moment of arrival, and the limit of connections."""

import asyncio

import pytest
from starlette.requests import Request
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame

from anytime_protocol.enums import PROTOCOL, CloseCode, ErrorCode
from anytime_protocol.http.problems import MEDIA_TYPE, Problem
from anytime_server.api.connection_limit import ConnectionLimitMiddleware, arrival_s


async def test_a_request_arrives_when_its_headers_are_in():
    now = 5.0
    seen = []

    async def app(scope, receive, send):
        nonlocal now
        now = 6.0  # routing takes its time
        seen.append(arrival_s(Request(scope), lambda: now))

    await ConnectionLimitMiddleware(app, lambda: now, 1)({"type": "http"}, None, None)
    assert seen == [5.0]
    assert arrival_s(Request({"type": "http"}), lambda: now) == 6.0


async def test_a_connection_too_many_is_told_so_as_a_problem(serve):
    async with serve(max_connections=1) as live:
        assert (await live.http.get("/livez")).status_code == 200  # keeps its connection
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")  # up to its end: it is closed
        writer.close()
        assert head.startswith(b"HTTP/1.1 503")
        assert f"content-type: {MEDIA_TYPE}".encode() in head
        assert b"retry-after: 1" in head
        assert Problem.parse(body.decode()).code is ErrorCode.OVERLOADED
        assert (await live.http.get("/livez")).status_code == 200


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
