"""Requests over HTTP as resources: to look at, to change and to cancel."""

import asyncio

import pytest

from anytime_protocol.enums import ErrorCode
from server.api.clients import URL, ask, assert_problem
from server.fakes import FakeExecutor


async def held(live, request_id, stage=2):
    """A request that waits in a stage."""
    live.executor.on_stage = lambda job, s: live.executor.gate.clear() if s == stage else None
    task = asyncio.create_task(ask(live, request_id, f"{URL}?deadline_ms=60000"))
    while ("run", request_id, stage) not in live.executor.log:
        await asyncio.sleep(0.001)
    return task


async def test_a_request_can_be_looked_at_while_it_runs_and_a_while_after(live):
    task = await held(live, "a")
    status = (await live.http.get("/v1/requests/a")).json()
    assert status["state"] == "running"
    assert (status["exit"], status["exits"], status["rev"]) == (1, 4, 0)
    assert status["budget"] == {"deadline_ms": 60000.0}
    live.executor.gate.set()
    assert (await task).status_code == 200
    status = (await live.http.get("/v1/requests/a")).json()
    assert status["state"] == "finished"
    assert status["final"]["reason"] == "complete"


async def test_a_request_in_the_queue_is_queued(live):
    task = await held(live, "a", stage=1)
    second = asyncio.create_task(ask(live, "b"))
    while live.state.engine.status("b") is None:
        await asyncio.sleep(0.001)
    assert (await live.http.get("/v1/requests/b")).json()["state"] == "queued"
    live.executor.on_stage = lambda job, s: None
    live.executor.gate.set()
    await asyncio.gather(task, second)


async def test_a_failed_request_is_remembered_with_its_error(serve):
    async with serve(FakeExecutor(fail_at={"a"})) as live:
        assert (await ask(live, "a")).status_code == 500
        status = (await live.http.get("/v1/requests/a")).json()
        assert status["state"] == "failed"
        assert status["error"]["code"] == "internal"


async def test_what_is_over_is_forgotten_after_a_while(live):
    await ask(live, "a")
    live.state.engine.status("a").ended_s -= 61.0
    await ask(live, "b")
    assert_problem(await live.http.get("/v1/requests/a"), ErrorCode.UNKNOWN_REQUEST)


async def test_patch_changes_the_budget_of_a_running_request(live):
    task = await held(live, "a", stage=3)
    body = {"rev": 4, "budget": {"max_exit": 2}}
    answer = (await live.http.patch("/v1/requests/a", json=body)).json()
    assert answer["effect"] == "applied"
    assert (answer["rev"], answer["at_exit"]) == (4, 2)
    response = await task
    assert "reason=budget" in response.headers["anytime-result"]
    answer = (await live.http.patch("/v1/requests/a", json={"budget": {}})).json()
    assert (answer["effect"], answer["rev"]) == ("gone", 5)


async def test_a_patch_with_an_old_rev_is_stale_and_without_one_is_the_next(live):
    task = await held(live, "a")
    url = "/v1/requests/a"
    assert (await live.http.patch(url, json={"budget": {}})).json()["rev"] == 1
    stale = (await live.http.patch(url, json={"rev": 1, "budget": {}})).json()
    assert stale["effect"] == "stale"
    assert (await live.http.patch(url, json={"budget": {}})).json()["rev"] == 2
    live.executor.gate.set()
    await task


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"budget":{"max_exit":0}}', ErrorCode.BAD_BUDGET),
        (b'{"budget":{"max_exit":NaN}}', ErrorCode.BAD_MESSAGE),
        (b'{"budget":{"nonsense":1}}', ErrorCode.BAD_BUDGET),
        (b'{"rev":1}', ErrorCode.BAD_MESSAGE),
        (b'{"budget":{},"more":1}', ErrorCode.BAD_MESSAGE),
        (b'{"budget":{},"budget":{}}', ErrorCode.BAD_MESSAGE),
        (b"[]", ErrorCode.BAD_MESSAGE),
        (b"\xff", ErrorCode.BAD_MESSAGE),
        (b"", ErrorCode.BAD_MESSAGE),
        (b"[" * 5000, ErrorCode.BAD_MESSAGE),
        (b" " * 300_000, ErrorCode.TOO_LARGE),
    ],
)
async def test_a_malformed_patch_changes_nothing(live, body, code):
    task = await held(live, "a")
    assert_problem(await live.http.patch("/v1/requests/a", content=body), code)
    assert (await live.http.get("/v1/requests/a")).json()["rev"] == 0
    live.executor.gate.set()
    await task


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_request_is_404(live, method):
    response = await live.http.request(method, "/v1/requests/nobody", json={"budget": {}})
    assert_problem(response, ErrorCode.UNKNOWN_REQUEST)
