"""Quotas of tokens: requests a second, requests at a time, urgency."""

import asyncio

import pytest
from pydantic import SecretStr

from anytime_protocol.enums import ErrorCode
from anytime_protocol.messages import CloseStream, Failed, Finished, Frame, Infer, OpenStream
from anytime_protocol.stream_answers import FrameEnd, StreamClosed, StreamOpened
from anytime_server.api.quotas import Caller
from anytime_server.errors import RefusedError
from anytime_server.tokens import TokenWithQuota
from server.api.clients import URL, assert_problem
from server.api.test_live_stream import until
from server.api.test_websocket import client
from server.factories import image_file

CAMERAS = {"Authorization": "Bearer cameras"}
GUESTS = {"Authorization": "Bearer guests"}


def caller(**quota):
    return Caller("cameras", TokenWithQuota(token=SecretStr("x"), **quota))


def test_a_second_is_worth_as_many_requests_as_are_granted():
    one = caller(requests_per_s=4)
    for _ in range(4):
        one.begin(100.0)
    with pytest.raises(RefusedError) as refused:
        one.begin(100.0)
    assert refused.value.problem.retry_after_ms == pytest.approx(250)
    one.begin(100.25)
    for now in (200.0, 200.0, 200.0, 200.0):  # a long pause is worth no more than a second
        one.begin(now)
    with pytest.raises(RefusedError):
        one.begin(200.0)


def test_less_than_one_request_a_second_is_one_at_first():
    one = caller(requests_per_s=0.1)
    one.begin(0.0)
    with pytest.raises(RefusedError) as refused:
        one.begin(5.0)
    assert refused.value.problem.retry_after_ms == pytest.approx(5000)
    one.begin(10.0)


def test_a_request_that_ends_makes_room_for_another():
    one = caller(in_flight=1)
    one.begin(0.0)
    with pytest.raises(RefusedError):
        one.begin(0.0)
    one.end()
    one.begin(0.0)


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(
        '[cameras]\ntoken = "cameras"\nin_flight = 1\nurgency = 5\n'
        '[guests]\ntoken = "guests"\nrequests_per_s = 0.001\n'
    )
    return path


async def ask(live, headers, url=URL, **more):
    lines = {"Content-Type": "image/jpeg"} | headers | more
    return await live.http.post(url, content=image_file(), headers=lines)


async def test_beyond_a_quota_requests_are_refused_and_others_are_not(serve, tokens):
    async with serve(tokens=tokens, token="general") as live:
        live.executor.gate.clear()
        first = asyncio.create_task(ask(live, CAMERAS))
        await live.executor.running.wait()
        problem = assert_problem(await ask(live, CAMERAS), ErrorCode.TOO_MANY_REQUESTS)
        assert problem.retry_after_ms == 1000
        answer = await ask(live, CAMERAS, "/v2/models/street/infer")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        others = asyncio.create_task(ask(live, {"Authorization": "Bearer general"}))
        live.executor.gate.set()
        assert (await first).status_code == (await others).status_code == 200
        assert (await ask(live, CAMERAS)).status_code == 200  # it makes room when it ends
        assert (await ask(live, CAMERAS, X_Nothing="")).status_code == 200


async def test_requests_that_are_not_admitted_do_not_stay_counted(serve, tokens):
    async with serve(tokens=tokens) as live:
        for _ in range(3):
            answer = await live.http.post(
                URL, content=b"nonsense", headers=CAMERAS | {"Content-Type": "image/jpeg"}
            )
            assert_problem(answer, ErrorCode.BAD_IMAGE)
        assert (await ask(live, CAMERAS)).status_code == 200


async def test_the_rate_holds_for_websockets_and_http_together(serve, tokens):
    async with serve(tokens=tokens) as live:
        async with client(live, additional_headers=GUESTS) as one:
            await one.say(Infer("a", "street", image_file()))
            assert isinstance((await one.story("a"))[-1], Finished)
            await one.say(Infer("b", "street", image_file()))
            refused = (await one.story("b"))[-1]
            assert isinstance(refused, Failed)
            assert refused.code is ErrorCode.TOO_MANY_REQUESTS
            assert refused.retry_after_ms > 900_000
        assert_problem(await ask(live, GUESTS), ErrorCode.TOO_MANY_REQUESTS)


async def test_a_stream_counts_as_one_request_until_it_ends_and_its_frames_by_their_rate(
    serve, tokens
):
    async with serve(tokens=tokens) as live:
        async with client(live, additional_headers=CAMERAS) as one:
            await one.say(OpenStream("s", "street"), Frame("s", 1, image_file()))
            assert (await until(one, FrameEnd))[-1].error is None
            assert_problem(await ask(live, CAMERAS), ErrorCode.TOO_MANY_REQUESTS)
            await one.say(CloseStream("s"))
            await until(one, StreamClosed)
            assert (await ask(live, CAMERAS)).status_code == 200
            await one.say(OpenStream("left", "street"))
            await until(one, StreamOpened, stream_id="left")
        while live.state.websockets:
            await asyncio.sleep(0.01)
        assert (await ask(live, CAMERAS)).status_code == 200
        async with client(live, additional_headers=GUESTS) as two:
            await two.say(OpenStream("s", "street"), Frame("s", 1, image_file()))
            end = (await until(two, FrameEnd))[-1]
            assert end.error.code is ErrorCode.TOO_MANY_REQUESTS
            assert end.error.retry_after_ms > 900_000


async def test_no_more_urgency_is_granted_than_the_quota_says(serve, tokens):
    async with serve(tokens=tokens) as live:
        for asked, granted in (("u=0", 5), ("u=7", 7)):
            await ask(live, CAMERAS, Priority=asked, **{"X-Request-Id": asked[-1]})
            assert live.state.engine.status(asked[-1]).job.urgency == granted


async def test_a_token_with_a_quota_asks_and_does_not_operate(serve, tokens):
    async with serve(tokens=tokens) as live:
        assert (await live.http.get("/v1/models", headers=CAMERAS)).status_code == 200
        assert_problem(await live.http.get("/v1/models"), ErrorCode.UNAUTHORIZED)
        put = await live.http.put("/v1/budget", json={"budget": {}}, headers=CAMERAS)
        assert_problem(put, ErrorCode.UNAUTHORIZED)
