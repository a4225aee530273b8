"""What Ray's proxy notes, and what a replica makes of it."""

import asyncio
import pickle
import time

import pytest

from anytime_server.ray_serve import proxy
from anytime_server.ray_serve.proxy import (
    MOST_S,
    BodyFirst,
    ProxyNotes,
    message_spent,
    spent_before,
)


async def through(scope, *messages):
    """What an application behind the proxy gets of a request and its messages."""
    coming, seen = list(messages), []

    async def app(scope, receive, send):
        seen.append(scope)
        seen.extend([await receive() for _ in messages])

    async def receive():
        return coming.pop(0)

    async def send(message):
        raise AssertionError(message)

    await ProxyNotes(app)(scope, receive, send)
    return seen


def part(data, *, more=False):
    """A message with a part of a body."""
    return {"type": "http.request", "body": data, "more_body": more}


async def received(scope, *by_ray, count):
    """What a replica receives of a request whose proxy is asked for its messages, too."""
    queue = asyncio.Queue()
    for message in by_ray:
        queue.put_nowait(message)
    receive = BodyFirst(pickle.loads(pickle.dumps(scope)), queue.get)
    async with asyncio.timeout(5):
        return [await receive() for _ in range(count)]


LEFT = {"type": "http.disconnect"}


async def test_a_body_that_has_come_goes_with_its_request_and_is_received_once():
    parts = [part(b"one", more=True), part(b"two")]
    scope, *again = await through({"type": "http", "headers": []}, *parts, LEFT)
    assert again == [*parts, LEFT]  # for an application that knows nothing of this
    assert await received(scope, count=2) == parts
    assert await received(scope, *again, count=3) == [*parts, LEFT]


async def test_what_comes_later_of_a_body_is_received_after_what_went_with_the_request():
    seen, last = [], asyncio.Event()

    async def app(scope, receive, send):
        seen.append(scope)
        last.set()
        seen.extend([await receive(), await receive()])

    coming = [part(b"one", more=True)]

    async def receive():
        if coming:
            return coming.pop()
        await last.wait()
        return part(b"two")

    await ProxyNotes(app)({"type": "http", "headers": []}, receive, None)
    scope, *parts = seen
    assert parts == [part(b"one", more=True), part(b"two")]
    assert await received(scope, count=1) == parts[:1]
    assert await received(scope, *parts, count=2) == parts


async def test_a_client_that_leaves_before_its_body_came_again_is_seen_to_have_left():
    scope, *_ = await through({"type": "http", "headers": []}, part(b"one"))
    assert await received(scope, LEFT, count=2) == [part(b"one"), LEFT]


async def test_a_client_that_leaves_at_once_is_seen_to_have_left():
    scope, *again = await through({"type": "http", "headers": []}, LEFT)
    assert again == [LEFT]
    assert await received(scope, *again, count=1) == [LEFT]


async def test_a_request_whose_proxy_notes_nothing_is_received_as_ray_delivers_it():
    assert await received({}, part(b"one"), LEFT, count=2) == [part(b"one"), LEFT]


async def test_nothing_is_waited_for_when_the_application_has_answered():
    waiting = asyncio.Event()

    async def receive():
        try:
            await asyncio.Event().wait()
        finally:
            waiting.set()

    async def app(scope, receive, send):
        pass

    await ProxyNotes(app)({"type": "http", "headers": []}, receive, None)
    async with asyncio.timeout(5):
        await waiting.wait()


async def test_a_request_is_noted_once_whatever_its_client_sends():
    headers = [(b"host", b"here"), (b"x-anytime-came", b"1.0")]
    scope, _ = await through({"type": "http", "headers": headers}, part(b""))
    assert spent_before(scope, time.time()) < 1.0
    assert scope["headers"] == [(b"host", b"here")]
    assert headers[1:] == [(b"x-anytime-came", b"1.0")]  # the proxy's own are as they were


async def test_each_websocket_message_is_noted():
    scope, message, end = await through(
        {"type": "websocket", "headers": []},
        {"type": "websocket.receive", "text": "{}"},
        {"type": "websocket.disconnect", "code": 1000},
    )
    now = time.time()
    assert 0.0 <= message_spent(message, now + 0.25) - 0.25 < 1.0
    assert message == {"type": "websocket.receive", "text": "{}"}
    assert message_spent(end, now) == 0.0
    assert spent_before(scope, now) < 1.0


async def test_other_scopes_pass_untouched():
    scope = {"type": "lifespan"}
    [seen] = await through(scope)
    assert seen is scope


@pytest.mark.parametrize(
    "noted", [b"100.0", b"nan", b"soon", b"-inf", repr(200 - MOST_S - 1).encode()]
)
def test_what_cannot_be_is_not_believed(noted):
    now_s = 200.0 if noted != b"100.0" else 99.0  # a clock that is behind
    scope = {"headers": [(b"x-anytime-came", noted)]}
    assert spent_before(scope, now_s) == 0.0
    assert scope["headers"] == []


def test_time_before_the_replica_is_what_the_clocks_say():
    assert spent_before({"headers": [(b"x-anytime-came", b"100.0")]}, 100.25) == 0.25
    assert spent_before({"headers": []}, 100.25) == 0.0
    assert message_spent({"anytime_came": 100.0}, 100.5) == 0.5
    assert message_spent({"anytime_came": "100"}, 100.5) == 0.0


def test_the_proxy_finds_its_middlewares_where_the_environment_says():
    [path] = proxy.CALLBACK.values()
    module, _, name = path.rpartition(".")
    assert module == proxy.__name__
    [middleware] = getattr(proxy, name)()
    assert middleware.cls is ProxyNotes
