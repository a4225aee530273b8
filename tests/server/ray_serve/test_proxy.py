"""What Ray's proxy notes, and what a replica makes of it."""

import time

import pytest

from anytime_server.ray_serve import proxy
from anytime_server.ray_serve.proxy import MOST_S, ProxyTimes, message_spent, spent_before


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

    await ProxyTimes(app)(scope, receive, send)
    return seen


async def test_a_request_is_noted_once_whatever_its_client_sends():
    headers = [(b"host", b"here"), (b"x-anytime-came", b"1.0")]
    [scope] = await through({"type": "http", "headers": headers})
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
    assert middleware.cls is ProxyTimes
