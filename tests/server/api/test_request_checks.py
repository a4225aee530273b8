"""What comes before routing: the moment of arrival, hosts and origins."""

import pytest
from starlette.requests import Request
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from anytime_protocol.enums import PROTOCOL, ErrorCode
from anytime_server.api.access import Access
from anytime_server.api.request_checks import RequestChecks, arrival_s
from server.api.clients import URL, assert_problem
from server.factories import image_file

FRIEND = "https://friend.example"
EVIL = {"Origin": "http://evil.example"}
JPEG = {"Content-Type": "image/jpeg"}


async def test_a_request_arrives_when_its_headers_are_in():
    now = 5.0
    seen = []

    async def app(scope, receive, send):
        nonlocal now
        now = 6.0  # routing takes its time
        seen.append(arrival_s(Request(scope), lambda: now))

    scope = {"type": "http", "path": "/", "method": "GET", "headers": []}
    await RequestChecks(app, Access(), lambda: now)(scope, None, None)
    assert seen == [5.0]
    assert arrival_s(Request({"type": "http"}), lambda: now) == 6.0


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1", "[::1]:1"])
async def test_without_a_token_this_machine_may_be_named_as_one_likes(live, host):
    assert (await live.http.get("/v1/models", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1", "a b", ""])
async def test_without_a_token_a_foreign_host_is_refused(live, host):
    for method, path in (("GET", "/v1/models"), ("PUT", "/v1/budget"), ("GET", "/"), ("POST", URL)):
        answer = await live.http.request(method, path, headers={"Host": host})
        assert assert_problem(answer, ErrorCode.FORBIDDEN).field == "Host"
    assert (await live.http.get("/livez", headers={"Host": host})).status_code == 200
    with pytest.raises(InvalidStatus) as refused:
        await connect(
            live.stream_url.replace("127.0.0.1", "localtest.me"),
            host="127.0.0.1",
            port=live.port,
            subprotocols=[PROTOCOL],
            proxy=None,
        )
    assert refused.value.response.status_code == 403


async def test_with_a_token_a_server_may_have_any_name(serve):
    async with serve(token="secret") as live:
        lines = {"Host": "vision.example", "Authorization": "Bearer secret"}
        assert (await live.http.get("/v1/models", headers=lines)).status_code == 200


async def test_a_named_origin_is_a_name_of_the_server_as_well(serve):
    async with serve(origins=FRIEND) as live:
        for host, status in (("friend.example", 200), ("evil.example", 403)):
            answer = await live.http.get("/v1/models", headers={"Host": host})
            assert answer.status_code == status


async def test_pages_of_other_origins_change_nothing(live):
    budget = {"budget": {"max_exit": 1}}
    for answer in (
        await live.http.post(URL, content=image_file(), headers=JPEG | EVIL),
        await live.http.post(URL, files={"image": ("a.jpg", image_file())}, headers=EVIL),
        await live.http.put("/v1/budget", json=budget, headers=EVIL),
        await live.http.delete("/v1/requests/x", headers=EVIL),
        await live.http.put("/v1/budget", json=budget, headers={"Origin": "null"}),
    ):
        assert assert_problem(answer, ErrorCode.FORBIDDEN).field == "Origin"
    own = {"Origin": f"http://127.0.0.1:{live.port}"}
    assert (await live.http.put("/v1/budget", json=budget, headers=own)).status_code == 200


async def test_named_origins_may_ask_and_read_the_answers_headers(serve):
    async with serve(origins=FRIEND) as live:
        ask = {"Access-Control-Request-Method": "POST", "Origin": FRIEND}
        ask["Access-Control-Request-Headers"] = "authorization,content-type,x-deadline-ms"
        preflight = await live.http.options(URL, headers=ask)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == FRIEND
        assert "x-deadline-ms" in preflight.headers["access-control-allow-headers"]
        answer = await live.http.post(URL, content=image_file(), headers=JPEG | {"Origin": FRIEND})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == FRIEND
        assert "Anytime-Result" in answer.headers["access-control-expose-headers"]
        refused = await live.http.get("/v1/models/nobody", headers={"Origin": FRIEND})
        assert refused.headers["access-control-allow-origin"] == FRIEND  # errors as well
        foreign = await live.http.get("/v1/models", headers=EVIL)
        assert "access-control-allow-origin" not in foreign.headers


async def test_without_named_origins_there_is_no_cors(live):
    answer = await live.http.get("/v1/models", headers={"Origin": FRIEND})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/index.html/", "/v1/models/", "/livez/"])
async def test_nothing_is_redirected(live, path):
    assert_problem(await live.http.get(path), ErrorCode.NOT_FOUND)


@pytest.mark.parametrize("path", ["/", "/livez", "/metrics", "/v1/models", "/nothing"])
async def test_no_answer_is_taken_for_another_type_than_it_says(live, path):
    answer = await live.http.get(path)
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
