"""Faults of the conversation, on a real server: who leaves, stalls or floods harms nobody else.

After each fault every request that was admitted has ended once, and descriptors, shared memory and
resident memory are what they were.
"""

import asyncio
import resource
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from anytime_protocol.budget import Budget
from anytime_protocol.messages import Cancel, SetBudget
from system.conftest import run_server
from system.faults.connections import (
    BINARY,
    CLOSE,
    LEAVING,
    PING,
    TEXT,
    Client,
    Stream,
    counts,
    for_a_while,
    frame,
    handshake,
    infer_frame,
    post,
    settle,
    unharmed,
)
from system.faults.processes import TRIMMED, assert_given_back, held, picture

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
    pytest.mark.xdist_group("connection faults"),
]

IDLE, ACTIVE, SLOW = 1000, 64, 4
BIG = picture(800, 1000)


@pytest.fixture(scope="module")
def server(tiny, tmp_path_factory):
    """A server with short patience, warmed up."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most[1], 8192), most[1]))
    flags = ["--max-sockets", str(IDLE + ACTIVE + 8), "--max-connections", str(IDLE + ACTIVE + 64)]
    flags += [
        "--max-requests",
        str(2 * ACTIVE),
        "--header-timeout-s",
        "2",
        "--upload-timeout-s",
        "3",
        "--send-timeout-s",
        "2",
    ]
    log = tmp_path_factory.mktemp("log") / "server.log"
    with run_server(tiny, log, *flags, program=TRIMMED) as running:
        asyncio.run(warm_up(running))
        yield running
        text = running.text()
        assert "Traceback" not in text
        assert " ERROR " not in text
    resource.setrlimit(resource.RLIMIT_NOFILE, most)


@asynccontextmanager
async def many_streams(server):
    """Streams to be idle, and streams to be active."""
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(Stream.open(server)) for _ in range(IDLE + ACTIVE)
        ]
        yield streams[:IDLE], streams[IDLE:]


async def warm_up(server):
    """As much at a time as any of the faults, so that the heap has grown to what it takes."""

    async def stream():
        async with Stream.open(server) as stream:
            await stream.ask(in_flight=8)
            await stream.ask(BIG, in_flight=8 // SLOW)

    async def read(accept, awaited):
        client = await Client.open(server)
        client.writer.write(post(server, accept, BIG))
        await client.until(awaited)
        await client.leave("fin")

    for _ in range(2):
        await asyncio.gather(*(stream() for _ in range(SLOW)))
        await asyncio.gather(*(read("application/x-npy", b"NUMPY") for _ in range(SLOW)))
        await asyncio.gather(*(read("text/event-stream", b"event: final") for _ in range(SLOW)))
    async with many_streams(server) as (_, active):
        await asyncio.gather(*(stream.ask(in_flight=8) for stream in active))
    await settle(server)


@pytest.fixture
async def unchanged(server):
    """Checks after a test that nothing is held that was not held before."""
    before = held(server)
    yield
    await settle(server)
    assert_given_back(server, before)


HTTP_POINTS = {
    "nothing was sent": (0.0, b""),
    "half a line": (0.02, b""),
    "half the headers": (0.3, b""),
    "half the body": (0.7, b""),
    "all was sent": (1.0, b""),
    "the headers of the answer came": (1.0, b"\r\n\r\n"),
}


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("accept", ["image/png", "text/event-stream"])
async def test_a_client_may_leave_at_any_point_of_a_request(server, unchanged, how, accept):
    request = post(server, accept)
    async with unharmed(server):
        for share, awaited in HTTP_POINTS.values():
            clients = [await Client.open(server) for _ in range(4)]
            for client in clients:
                client.writer.write(request[: round(share * len(request))])
                if awaited:
                    await client.until(awaited)
            await asyncio.gather(*(client.leave(how) for client in clients))
        await settle(server)


def stream_points(server):
    """What was sent, and what was heard, when a client of a websocket leaves."""
    ready, infer = b'"type":"ready"', infer_frame(server, "r")
    cancel = frame(TEXT, b'{"type": "cancel", "id": "r"}')
    return {
        "half a handshake": ([handshake()[:60]], b""),
        "a handshake": ([handshake()], b" 101 "),
        "ready": ([handshake()], ready),
        "half a frame": ([handshake(), infer[: len(infer) // 2]], ready),
        "half a message": ([handshake(), frame(BINARY, b"\0\0\0\1", fin=False)], ready),
        "a request": ([handshake(), infer], ready),
        "accepted": ([handshake(), infer], b'"type":"accepted"'),
        "an update": ([handshake(), infer], b'"type":"update"'),
        "the end": ([handshake(), infer], b'"type":"final"'),
        "a cancelled request": ([handshake(), infer, cancel], ready),
        "a close": ([handshake(), infer, frame(CLOSE, b"\x03\xe8")], ready),
    }


@pytest.mark.parametrize("how", LEAVING)
async def test_a_client_may_leave_at_any_point_of_a_stream(server, unchanged, how):
    async with unharmed(server):
        for (opening, *rest), awaited in stream_points(server).values():
            client = await Client.open(server)
            client.writer.write(opening)
            if rest:
                await client.until(b'"type":"ready"')
                client.writer.write(b"".join(rest))
            if awaited and not (rest and b"ready" in awaited):
                with suppress(asyncio.IncompleteReadError):
                    await client.until(awaited)
            await client.leave(how)
        await settle(server)


@pytest.mark.parametrize("accept", ["application/x-npy", "text/event-stream"])
async def test_readers_that_stop_reading_are_cut(server, unchanged, accept):
    before = await counts(server)
    async with unharmed(server, within_s=4.0):
        clients = [await Client.open(server) for _ in range(SLOW)]
        for client in clients:
            client.reader._transport.pause_reading()
            client.writer.write(6 * post(server, accept, BIG))  # more than all buffers hold
        await asyncio.sleep(6)  # more than twice the server's patience
        await settle(server)
    after = await counts(server)
    assert after["anytime_requests_total"] > before["anytime_requests_total"]
    for client in clients:
        client.writer.transport.abort()


async def test_a_stream_that_stops_reading_is_cut_and_its_requests_end(server, unchanged):
    async with unharmed(server, within_s=4.0):
        client = await Client.open(server)
        client.writer.write(handshake())
        await client.until(b'"type":"ready"')
        client.reader._transport.pause_reading()
        for number in range(8):
            client.writer.write(infer_frame(server, str(number), BIG))
        await settle(server)
        await asyncio.sleep(6)
        client.writer.transport.abort()


async def test_thousands_of_silent_and_dripping_connections_lock_nobody_out(
    server, unchanged, fault_seconds
):
    """More than there are places for; who was inside stays inside, and so does health."""
    request = post(server)
    async with unharmed(server):
        clients = []
        for number in range(IDLE + ACTIVE + 200):
            client = await Client.open(server)
            client.writer.write(request[: number % 3 * 20])
            clients.append(client)

        async def drip():
            for client in clients[::10]:
                with suppress(ConnectionError):
                    client.writer.write(b"x")
            await asyncio.sleep(0.2)

        await for_a_while(fault_seconds, drip)
        newcomer = await Client.open(server)
        newcomer.writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await newcomer.until(b"HTTP/1.1 200")
        await newcomer.leave("fin")
    async with asyncio.timeout(20):  # all have been closed for their silence
        await asyncio.gather(*(_end(client) for client in clients))


async def _end(client):
    with suppress(ConnectionError):
        await client.reader.read()
    client.writer.transport.abort()


TINY = {
    "pings": frame(PING, b"p"),
    "pings of the protocol": frame(TEXT, b'{"type": "ping", "nonce": 1}'),
    "cancels": frame(TEXT, b'{"type": "cancel", "id": "nobody"}'),
    "budgets": frame(TEXT, b'{"type": "budget", "id": "nobody", "rev": 1, "budget": {}}'),
    "fragments": frame(TEXT, fin=False) + 5000 * frame(0, fin=False),
    "nonsense": frame(TEXT, b"nonsense"),
}


@pytest.mark.parametrize("name", TINY)
async def test_floods_of_tiny_messages_harm_nobody(server, unchanged, fault_seconds, name):
    async def flood(client):
        client.writer.write(handshake())
        await client.until(b'"type":"ready"')
        reading = asyncio.create_task(_end(client))

        async def send():
            client.writer.write(100 * TINY[name])
            await client.writer.drain()
            await asyncio.sleep(0)

        await for_a_while(fault_seconds, send)
        client.writer.transport.abort()
        await reading

    async with unharmed(server):
        await asyncio.gather(*[flood(await Client.open(server)) for _ in range(4)])


async def test_floods_of_huge_messages_end_once_each(server, unchanged, fault_seconds):
    junk = b"\xff\xd8\xff" + bytes(2**20)

    async def flood():
        async with Stream.open(server) as stream:
            await for_a_while(fault_seconds, lambda: stream.ask(junk, in_flight=4))
            stream.assert_one_end_each()

    async with unharmed(server):
        await asyncio.gather(*(flood() for _ in range(4)))


async def test_requests_that_are_cancelled_and_changed_at_random_end_once_each(
    server, unchanged, fault_seconds
):
    async def change(stream):
        first = len(stream.asked)
        asking = asyncio.create_task(stream.ask(in_flight=8))
        await asyncio.sleep(0.01 * (first % 7))
        for name in stream.asked[first:]:
            if not stream.ends[name]:
                with suppress(Exception):  # it may have ended meanwhile
                    await stream.say(SetBudget(name, 1, Budget(max_exit=2)), Cancel(name))
        await asking

    async def client():
        async with Stream.open(server) as stream:
            await for_a_while(fault_seconds, lambda: change(stream))
            stream.assert_one_end_each()

    async with unharmed(server):
        await asyncio.gather(*(client() for _ in range(4)))


@pytest.mark.timeout(300)
async def test_a_thousand_idle_streams_do_not_slow_the_active_ones(
    server, unchanged, fault_seconds
):
    async with many_streams(server) as (idle, active):
        async with unharmed(server, within_s=4.0):
            await asyncio.gather(*(for_a_while(fault_seconds, stream.ask) for stream in active))
        for stream in active:
            stream.assert_one_end_each()
            assert stream.asked
        for stream in idle:
            await stream.ping()  # it is still there
