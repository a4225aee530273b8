"""The asynchronous client against fake servers: streams, cancellation, connecting and errors."""

import asyncio

import numpy as np
import pytest

from anytime_client import (
    AsyncClient,
    Budget,
    ConnectError,
    ConnectionLostError,
    ErrorCode,
    Reason,
    RequestError,
    SilenceError,
)
from anytime_protocol.messages import Cancel, Infer, SetBudget
from client.factories import MAPS, PIXELS, READY, accepted, failed
from client.fakes import (
    HangUp,
    answer_all_exits,
    answer_exit_1_and_wait,
    answer_nothing,
    fake_server,
    free_port,
)


async def test_many_requests_share_one_connection():
    with fake_server() as server:
        async with AsyncClient(server.url) as client:
            results = await asyncio.gather(*(client.predict(PIXELS) for _ in range(4)))
            assert [result.exit for result in results] == [4] * 4
            assert [model.name for model in await client.models()] == ["street", "pose", "ladder"]
        assert len(server.tokens) == 1


async def test_more_requests_than_the_connection_takes_wait_for_a_place():
    with fake_server() as server:
        async with AsyncClient(server.url) as client:
            results = await asyncio.gather(*(client.predict(PIXELS) for _ in range(30)))
            assert [result.exit for result in results] == [4] * 30
        assert len(server.tokens) == 1


async def test_a_request_that_waits_for_a_place_goes_when_one_ends_and_may_be_given_up():
    with fake_server(answer_exit_1_and_wait) as server:
        async with AsyncClient(server.url) as client:
            running = [client.stream(PIXELS) for _ in range(READY.limits.max_in_flight)]
            for stream in running:
                await stream.start()
            given_up, waiting = client.stream(PIXELS), client.stream(PIXELS)
            tasks = [asyncio.create_task(stream.start()) for stream in (given_up, waiting)]
            done, _ = await asyncio.wait(tasks, timeout=0.05)
            assert not done
            tasks[0].cancel()
            await running[0].enough()
            await running[0].wait()
            await tasks[1]
            assert (await waiting.next()).exit == 1
            for stream in (*running[1:], waiting):
                await stream.close()
        sent = [message for message in server.received.queue if isinstance(message, Infer)]
        assert len(sent) == len(running) + 1


async def test_a_request_that_waits_for_a_place_is_sent_over_the_next_connection():
    answers = {"lost": False}

    def lose_the_first_connection(event):
        if isinstance(event, Infer) and not answers["lost"]:
            answers["lost"] = event.id == str(READY.limits.max_in_flight)
            return [HangUp(1012)] if answers["lost"] else [accepted(event.id)]
        return answer_all_exits(event)

    with fake_server(lose_the_first_connection) as server:
        async with AsyncClient(server.url) as client:
            count = READY.limits.max_in_flight + 3
            results = await asyncio.gather(
                *(client.predict(PIXELS) for _ in range(count)), return_exceptions=True
            )
        good = [result for result in results if not isinstance(result, Exception)]
        assert len(good) >= 3
        assert all(isinstance(r, ConnectionLostError) for r in results if r not in good)


async def test_a_stream_gives_every_exit():
    with fake_server() as server:
        async with AsyncClient(server.url) as client, client.stream(PIXELS) as stream:
            maps = [update.map.copy() async for update in stream]
        np.testing.assert_array_equal(maps, MAPS)
        assert stream.result.reason is Reason.COMPLETE


async def test_leaving_the_with_or_the_loop_cancels_the_request():
    with fake_server(answer_exit_1_and_wait) as server:
        async with AsyncClient(server.url) as client:
            async with client.stream(PIXELS) as stream:
                async for _ in stream:
                    break
            assert (await asyncio.to_thread(server.wait_for, Cancel)).id == "1"
            async for _ in client.stream(PIXELS):
                break
            assert (await asyncio.to_thread(server.wait_for, Cancel)).id == "2"


async def test_cancelling_the_task_cancels_the_request():
    with fake_server(answer_exit_1_and_wait) as server:
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
            assert await asyncio.to_thread(server.wait_for, Cancel)


async def test_a_task_that_is_cancelled_at_any_moment_leaves_no_request_behind():
    large = b"\xff\xd8\xff" + bytes(6_000_000)  # does not fit the socket's buffer at once
    with fake_server(answer_exit_1_and_wait) as server:
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
        received = list(server.received.queue)
        sent = {message.id for message in received if isinstance(message, Infer)}
        ended = {message.id for message in received if isinstance(message, Cancel | SetBudget)}
        assert sent == ended


async def test_budget_cancel_and_enough_reach_the_server():
    with fake_server(answer_exit_1_and_wait) as server:
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
    with fake_server(answer_exit_1_and_wait) as server:
        async with AsyncClient(server.url) as client:
            stream = client.stream(PIXELS, satisfied=lambda update: True)
            assert [update.exit async for update in stream] == [1]
            assert stream.result.reason is Reason.SATISFIED


async def test_a_refusal_carries_code_and_time_and_leaves_the_connection():
    with fake_server(lambda event: [failed(event.id)]) as server:
        async with AsyncClient(server.url) as client:
            for _ in range(2):
                with pytest.raises(RequestError, match="no room") as caught:
                    await client.predict(PIXELS)
            assert (caught.value.code, caught.value.retry_after_ms) == (ErrorCode.OVERLOADED, 180)
        assert len(server.tokens) == 1


@pytest.mark.parametrize("answer", [answer_nothing, lambda event: [accepted(event.id)]])
async def test_silence_is_an_error_and_cancels_the_request(answer):
    with fake_server(lambda event: answer(event) if isinstance(event, Infer) else []) as server:
        async with AsyncClient(server.url, timeout_s=0.1) as client:
            with pytest.raises(SilenceError, match=r"0\.1 s"):
                await client.predict(PIXELS)
            assert await asyncio.to_thread(server.wait_for, Cancel)


async def test_a_lost_connection_fails_the_request_and_the_next_one_connects_anew():
    answers = iter([[HangUp(1011)]])
    with fake_server(lambda event: next(answers, None) or answer_all_exits(event)) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ConnectionLostError, match="made a mistake") as caught:
                await client.predict(PIXELS)
            assert caught.value.code == 1011
            assert (await client.predict(PIXELS)).exit == 4
        assert len(server.tokens) == 2


@pytest.mark.parametrize("code", [1000, 1001, 1012])
async def test_a_request_that_the_server_closed_before_reading_is_sent_once_more(code):
    answers = iter([[HangUp(code)]])
    with fake_server(lambda event: next(answers, None) or answer_all_exits(event)) as server:
        async with AsyncClient(server.url) as client:
            assert (await client.predict(PIXELS)).exit == 4
        assert len(server.tokens) == 2


async def test_a_request_is_sent_no_third_time():
    with fake_server(lambda _: [HangUp(1012)]) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ConnectionLostError, match="restarts"):
                await client.predict(PIXELS)
        assert len(server.tokens) == 2


async def test_a_request_that_the_server_accepted_is_not_sent_again():
    def accept_and_hang_up(event):
        return [accepted(event.id), HangUp(1012)]

    with fake_server(accept_and_hang_up) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ConnectionLostError, match="restarts"):
                await client.predict(PIXELS)
        assert len(server.tokens) == 1


async def test_a_request_whose_client_is_closed_is_not_sent_again():
    with fake_server(answer_nothing) as server:
        client = AsyncClient(server.url)
        stream = client.stream(PIXELS)
        await stream.start()
        await client.close()
        with pytest.raises(ConnectionLostError):
            await stream.wait()
        assert len(server.tokens) == 1


async def test_nobody_at_the_url_fails_at_once():
    url = f"http://127.0.0.1:{free_port()}"
    async with AsyncClient(url, reconnect_s=60) as client:
        with pytest.raises(ConnectError, match=url):
            await client.predict(PIXELS)
