"""Connections of HTTP over real sockets: silent, endless, malformed and unread ones."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import MEDIA_TYPE, Problem
from server.factories import image_file

URL = "/v1/models/street/predict"


@asynccontextmanager
async def connection(live, data=b""):
    """A connection on which something was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    try:
        writer.write(data)
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer_to(live, data):
    """All that is answered until the connection is closed, within 5 s."""
    async with connection(live, data) as (reader, _), asyncio.timeout(5):
        return await reader.read()


def get(path="/livez", *lines):
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", "")).encode()


def post(body, *lines):
    head = (f"POST {URL} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: image/jpeg")
    return "\r\n".join((*head, f"Content-Length: {len(body)}", *lines, "", "")).encode() + body


def assert_problem(answer, code):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {code.status}".encode())
    assert f"content-type: {MEDIA_TYPE}".encode() in head.lower()
    assert b"connection: close" in head.lower()
    return Problem.parse(body.decode())


async def is_closed(reader, within_s=5):
    try:
        async with asyncio.timeout(within_s):
            await reader.read()
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


# Silence.


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", get()[:-2]])
async def test_a_connection_without_whole_headers_is_closed(serve, sent):
    async with serve(header_timeout_s=0.1) as live, connection(live, sent) as (reader, _):
        assert await is_closed(reader)


async def test_headers_that_come_a_byte_at_a_time_are_given_no_more_time(serve):
    async with serve(header_timeout_s=0.2) as live, connection(live) as (reader, writer):

        async def drip():
            for byte in get("/livez", "X: " + 100 * "y"):
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await is_closed(reader)
        dripping.cancel()


async def test_a_half_sent_second_request_is_closed_as_well(serve):
    async with serve(header_timeout_s=0.2) as live, connection(live, get()) as (reader, writer):
        await reader.readuntil(b"ok\n")
        writer.write(b"GET /livez HT")
        assert await is_closed(reader, 3)  # sooner than keep-alive ends


async def test_a_request_that_takes_long_is_left_alone(serve):
    async with serve(header_timeout_s=0.05) as live:
        live.executor.gate.clear()
        async with connection(live, post(image_file(), "Connection: close")) as (reader, _):
            await live.executor.running.wait()
            await asyncio.sleep(0.2)
            live.executor.gate.set()
            assert (await reader.read()).startswith(b"HTTP/1.1 200")


async def test_the_rest_of_a_body_that_was_refused_has_a_time_limit(serve):
    request = get("/livez", "Content-Length: 1000000")
    async with serve(upload_timeout_s=0.1) as live, connection(live, request) as (reader, writer):
        await reader.readuntil(b"ok\n")

        async def drip():
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await is_closed(reader, 3)
        dripping.cancel()


# Too many.


async def test_many_silent_connections_lock_nobody_out(serve):
    async with serve(max_connections=4) as live:
        async with connection(live, get()) as (reader, writer):
            await reader.readuntil(b"ok\n")
            silent = [await asyncio.open_connection("127.0.0.1", live.port) for _ in range(100)]
            writer.write(get("/v1/models"))  # it was here before them
            assert b" 200 " in await reader.readline()
            for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"):
                assert b" 200 " in await answer_to(live, get(path, "Connection: close"))
            refused = await answer_to(live, get("/v1/models"))
            assert assert_problem(refused, ErrorCode.OVERLOADED).retry_after_ms == 1000
            for _, silent_writer in silent:
                silent_writer.transport.abort()
        async with asyncio.timeout(5):
            while b" 200 " not in await answer_to(live, get("/v1/models", "Connection: close")):
                await asyncio.sleep(0.01)


async def test_a_websocket_too_many_is_refused_like_any_request(serve):
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    upgrade += ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: anytime.v1")
    async with serve(max_connections=1) as live, connection(live):
        await asyncio.sleep(0)
        assert (await live.http.get("/livez")).status_code == 200
        answer = await answer_to(live, get("/v1/stream", *upgrade))
        assert_problem(answer, ErrorCode.OVERLOADED)


# Endless and malformed.


@pytest.mark.parametrize(
    "request_",
    [
        get("/livez", *(f"X-{k}: y" for k in range(200))),
        get("/livez", "X: " + 9000 * "y"),
        get("/livez?" + 9000 * "y"),
        get("/livez", *(f"X-{k}: " + 7000 * "y" for k in range(12))),
        b"GET /livez HTTP/1.1\r\n" + 100_000 * b"x",
        get("/v1/stream", "Upgrade: websocket", "Connection: upgrade", "X: " + 9000 * "y"),
    ],
    ids=["many", "long", "url", "sum", "endless", "upgrade"],
)
async def test_headers_that_are_too_large_are_431(live, request_):
    assert_problem(await answer_to(live, request_), ErrorCode.HEADERS_TOO_LARGE)


async def test_endless_headers_hold_neither_memory_nor_the_event_loop(live):
    async with connection(live) as (reader, writer):

        async def flood():
            writer.write(b"GET / HTTP/1.1\r\n")
            while True:
                writer.write(b"X: " + 65536 * b"y")
                await writer.drain()

        flooding = asyncio.create_task(flood())
        assert await is_closed(reader, 3)
        assert (await asyncio.gather(flooding, return_exceptions=True))[0] is not None


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        get("/livez", "Content-Length: 1", "Transfer-Encoding: chunked"),
        get("/livez", "Content-Length: 1", "Content-Length: 2"),
        get("/livez", "Content-Length: x"),
    ],
)
async def test_what_is_no_http_is_a_bad_request(live, request_):
    assert_problem(await answer_to(live, request_), ErrorCode.BAD_REQUEST)


async def test_a_body_of_tiny_chunks_is_a_bad_request(live):
    head = post(b"", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    answer = await answer_to(live, head + 100_000 * b"1\r\nx\r\n")
    assert assert_problem(answer, ErrorCode.BAD_REQUEST).detail.endswith("send larger ones")


async def test_a_body_of_some_small_chunks_is_read(live):
    head = post(b"", "Transfer-Encoding: chunked", "Connection: close")
    head = head.replace(b"Content-Length: 0\r\n", b"")
    image = image_file()
    pieces = [image[k : k + 10] for k in range(0, len(image), 10)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    assert b" 200 " in await answer_to(live, head + chunks + b"0\r\n\r\n")


async def test_a_body_that_breaks_off_in_the_middle_of_an_answer_is_no_error_of_ours(live, caplog):
    head = get("/livez", "Transfer-Encoding: chunked")
    async with connection(live, head) as (reader, writer):
        await reader.readuntil(b"ok\n")
        writer.write(b"nonsense\r\n")
        assert await is_closed(reader)
    assert (await live.http.get("/livez")).status_code == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_malformed_body_of_a_running_request_is_no_error_of_ours(live, caplog):
    head = post(b"", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    async with connection(live, head) as (reader, writer):
        await asyncio.sleep(0.05)
        writer.write(b"nonsense\r\n")
        assert_problem(await reader.read(), ErrorCode.BAD_REQUEST)
    assert (await live.http.get("/livez")).status_code == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "upgrade", [("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"), ("Upgrade: TLS/1.0",)]
)
async def test_another_protocol_that_is_proposed_is_passed_over_and_the_body_read(live, upgrade):
    lines = (*upgrade, "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    async with connection(live, post(image_file(), *lines)) as (reader, writer):
        assert b" 200 " in await reader.readline()
        writer.write(get("/livez", "Connection: close"))
        assert b"ok\n" in await reader.read()


async def test_a_whole_url_is_taken_as_its_path(live):
    request = get("http://127.0.0.1:1/livez", "Connection: close")
    assert b" 200 " in await answer_to(live, request)


# Not taken.


async def test_an_answer_that_nobody_reads_is_given_up(serve):
    big = image_file("PNG", (1500, 1500))
    async with serve(send_timeout_s=0.3) as live:
        request = post(big, "Accept: application/x-npy")
        async with connection(live) as (reader, writer):
            reader._transport.pause_reading()
            writer.write(4 * request)  # more than the buffers of both ends hold
            async with asyncio.timeout(10):
                while not live.executor.runs():
                    await asyncio.sleep(0.01)
                assert live.server.server_state.connections
                while live.server.server_state.connections:
                    await asyncio.sleep(0.02)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_a_stream_that_nobody_reads_is_given_up_and_cancelled(serve, caplog, accept):
    request = post(image_file("PNG", (1500, 1500)), f"Accept: {accept}")
    async with serve(send_timeout_s=0.3) as live, connection(live, request) as (reader, _):
        reader._transport.pause_reading()
        state = live.server.server_state
        async with asyncio.timeout(10):
            while not live.executor.runs():
                await asyncio.sleep(0.01)
            while state.connections or state.tasks:
                await asyncio.sleep(0.02)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
