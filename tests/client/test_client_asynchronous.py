"""The asynchronous client on real sockets, against a server that tells fixed stories."""

import asyncio

import numpy as np
import pytest

from anytime_client import AsyncClient, Budget, Reason
from anytime_client.errors import (
    AnswerError,
    ConnectError,
    ConnectionLostError,
    RequestError,
    SilenceError,
)
from anytime_protocol.messages import Cancel, Infer, SetBudget
from client.client_fakes import (
    MAPS,
    PIXELS,
    HangUp,
    all_exits,
    failed,
    fake_server,
    free_port,
    patient,
    plain_http_server,
)


async def test_many_requests_share_one_connection():
    with fake_server() as server:
        async with AsyncClient(server.url) as client:
            results = await asyncio.gather(*(client.predict(PIXELS) for _ in range(4)))
            assert [result.exit for result in results] == [4] * 4
            assert [model.name for model in await client.models()] == ["street", "pose"]
        assert len(server.tokens) == 1


async def test_a_stream_hands_out_every_exit():
    with fake_server() as server:
        async with AsyncClient(server.url) as client, client.stream(PIXELS) as stream:
            maps = [update.map.copy() async for update in stream]
        np.testing.assert_array_equal(maps, MAPS)
        assert stream.result.reason is Reason.COMPLETE


async def test_leaving_the_with_cancels():
    with fake_server(patient) as server:
        async with AsyncClient(server.url) as client:
            async with client.stream(PIXELS) as stream:
                async for _ in stream:
                    break
            assert await asyncio.to_thread(server.hear, Cancel)


async def test_leaving_the_loop_alone_cancels_too():
    with fake_server(patient) as server:
        async with AsyncClient(server.url) as client:
            async for _ in client.stream(PIXELS):
                break
            assert await asyncio.to_thread(server.hear, Cancel)


async def test_cancelling_the_task_cancels_the_request():
    with fake_server(patient) as server:
        async with AsyncClient(server.url) as client:
            seen = asyncio.Event()

            async def follow():
                async with client.stream(PIXELS) as stream:
                    async for _ in stream:
                        seen.set()

            task = asyncio.create_task(follow())
            await seen.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.hear, Cancel)


async def test_budget_cancel_and_enough_reach_the_server():
    with fake_server(patient) as server:
        async with AsyncClient(server.url) as client:
            ends = []
            for act in (
                lambda stream: stream.set_budget(Budget(max_exit=2)),
                lambda stream: stream.cancel(),
                lambda stream: stream.enough(),
            ):
                stream = client.stream(PIXELS)
                async for update in stream:
                    if update.exit == 1:
                        await act(stream)
                ends.append((stream.result.exit, stream.result.reason))
            assert ends == [(2, Reason.BUDGET), (1, Reason.CANCELLED), (1, Reason.SATISFIED)]


async def test_a_satisfied_caller_ends_the_loop():
    with fake_server(patient) as server:
        async with AsyncClient(server.url) as client:
            stream = client.stream(PIXELS, satisfied=lambda update: True)
            assert [update.exit async for update in stream] == [1]
            assert stream.result.reason is Reason.SATISFIED


async def test_a_lost_connection_is_replaced_for_the_next_request():
    answers = iter([[HangUp(1012)]])
    with fake_server(lambda event: next(answers, None) or all_exits(event)) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ConnectionLostError, match="restarts"):
                await client.predict(PIXELS)
            assert (await client.predict(PIXELS)).exit == 4


async def test_a_refusal_and_silence_are_errors():
    with fake_server(lambda event: [failed(event.id)]) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(RequestError, match="no room"):
                await client.predict(PIXELS)
    with fake_server(lambda event: []) as server:
        async with AsyncClient(server.url, timeout_s=0.2) as client:
            with pytest.raises(SilenceError):
                await client.predict(PIXELS)


async def test_nobody_at_the_url_is_an_error():
    async with AsyncClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(ConnectError):
            await client.predict(PIXELS)


async def test_no_websocket_on_the_way_means_http():
    with plain_http_server() as url:
        async with AsyncClient(url) as client, client.stream(PIXELS) as stream:
            maps = [update.map.copy() async for update in stream]
        np.testing.assert_array_equal(maps, MAPS[:2])
        async with AsyncClient(url, transport="websocket") as client:
            with pytest.raises(AnswerError, match="404"):
                await client.predict(PIXELS)
    with plain_http_server(whole=False) as url:
        async with AsyncClient(url, transport="http") as client:
            with pytest.raises(ConnectionLostError, match="without a final"):
                await client.predict(PIXELS)


async def test_a_task_that_is_cancelled_at_any_moment_leaves_no_request_behind():
    large = b"\xff\xd8\xff" + bytes(6_000_000)  # does not fit the socket's buffer at once
    with fake_server(patient) as server:
        async with AsyncClient(server.url) as client:
            await client.models()
            for moment in range(12):
                task = asyncio.create_task(client.predict(large))
                for _ in range(moment):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                after = client.stream(PIXELS, satisfied=lambda _: True)
                assert [update.exit async for update in after] == [1]
        assert len(server.tokens) == 1
        heard = list(server.heard.queue)
        sent = {message.id for message in heard if isinstance(message, Infer)}
        assert sent == {message.id for message in heard if isinstance(message, Cancel | SetBudget)}
