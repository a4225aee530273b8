"""The bound on bytes under way, over all connections."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from anytime_protocol.enums import PROTOCOL, CloseCode, ErrorCode
from anytime_protocol.messages import Finished, Role
from anytime_protocol.session import Session
from anytime_server.api.uploads import Uploads
from anytime_server.errors import RefusedError
from server.api.clients import URL, ask, assert_problem
from server.factories import image_file, infer


def test_what_is_held_is_given_back_once():
    uploads = Uploads(10)
    with uploads.begin() as first:
        first.reserve(4)
        second = uploads.begin()
        second.reserve(5)
        second.reserve(6)
        with pytest.raises(RefusedError, match="10 bytes are under way"):
            first.reserve(5)
        assert uploads.held == 10
    assert uploads.held == 6
    second.reserve(0)
    assert uploads.held == 0


async def begin_upload(live, size):
    """An upload of which so many bytes have been sent."""
    _, writer = await asyncio.open_connection("127.0.0.1", live.port)
    head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    writer.write(f"{head}Content-Length: 1000000\r\n\r\n".encode() + bytes(size))
    return writer


async def held(live, size):
    async with asyncio.timeout(5):
        while live.state.uploads.held < size:
            await asyncio.sleep(0.01)


async def test_an_upload_beyond_the_bound_is_refused_and_room_comes_back(serve):
    async with serve(max_upload_bytes=100_000) as live:
        writer = await begin_upload(live, 99_000)
        await held(live, 99_000)
        problem = assert_problem(await ask(live, "r"), ErrorCode.OVERLOADED)
        assert problem.retry_after_ms == 1000
        writer.transport.abort()
        async with asyncio.timeout(5):
            while live.state.uploads.held:
                await asyncio.sleep(0.01)
        assert (await ask(live, "r")).status_code == 200
        assert live.state.uploads.held == 0


async def test_messages_of_websockets_count_as_well(serve):
    async with serve(max_upload_bytes=100_000, ping_interval_s=60) as live:
        async with connect(live.stream_url, subprotocols=[PROTOCOL], proxy=None) as socket:
            await socket.recv()

            async def endless():
                while True:
                    yield bytes(30_000)

            with pytest.raises(ConnectionClosed) as closed:
                await socket.send(endless())
            assert closed.value.rcvd.code == CloseCode.TRY_AGAIN_LATER
        async with asyncio.timeout(5):
            while live.state.uploads.held:
                await asyncio.sleep(0.01)
        assert (await ask(live, "r")).status_code == 200


async def test_what_a_websocket_has_sent_and_was_read_is_held_no_more(serve):
    async with serve(max_upload_bytes=3 * len(image_file())) as live:
        socket = await connect(live.stream_url, subprotocols=[PROTOCOL], proxy=None)
        await send_images(socket, 20)
        assert live.state.uploads.held == 0
        await socket.close()


async def send_images(socket, count):
    """One after the other, each with a ping behind it."""
    session = Session(Role.CLIENT)
    session.receive(await socket.recv())
    for number in range(count):
        session.send(infer(str(number)))
        for frame in session.outgoing():
            await socket.send(frame)
        await (await socket.ping(100 * b"p"))
        while not any(isinstance(event, Finished) for event in session.events()):
            session.receive(await socket.recv())
