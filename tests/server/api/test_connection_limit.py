"""What stands before the framework: the moment of arrival."""

from starlette.requests import Request

from anytime_server.api.connection_limit import ConnectionLimitMiddleware, arrival_s


async def test_a_request_arrives_when_its_headers_are_in():
    now = 5.0
    seen = []

    async def app(scope, receive, send):
        nonlocal now
        now = 6.0  # routing takes its time
        seen.append(arrival_s(Request(scope), lambda: now))

    await ConnectionLimitMiddleware(app, lambda: now)({"type": "http"}, None, None)
    assert seen == [5.0]
    assert arrival_s(Request({"type": "http"}), lambda: now) == 6.0
