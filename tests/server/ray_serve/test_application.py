"""A replica's application among others, without Ray."""

import asyncio
import time

import httpx
import pytest

from anytime_protocol.enums import PROTOCOL, ErrorCode
from anytime_protocol.messages import Role
from anytime_protocol.session import Session
from anytime_server.app import create_app
from anytime_server.engine.base import EngineState
from anytime_server.engine.local import LocalEngine
from anytime_server.errors import ExecutorStartError
from anytime_server.metrics import Metrics
from anytime_server.ray_serve.application import ReplicaApplication
from anytime_server.ray_serve.proxy import ProxyNotes
from anytime_server.settings import Settings
from server.api.clients import URL, ask, assert_problem
from server.api.test_requests import held
from server.factories import image_file, infer
from server.fakes import FakeExecutor
from server.ray_serve.replicas import DirectPeers, Lifespan, running_replicas


@pytest.fixture
async def replicas():
    async with running_replicas() as (both, _):
        yield both


async def waiting(replica, request_id):
    """A request that waits in stage 2 of a replica."""
    return await held(replica, request_id)


def replica_of(answer):
    return answer.headers["anytime-replica"]


async def test_a_request_of_another_replica_is_found(replicas):
    first, second = replicas
    task = await waiting(first, "a")
    answer = await second.http.get("/v1/requests/a")
    assert (answer.status_code, replica_of(answer)) == (200, "r0")
    assert answer.json()["state"] == "running"
    first.executor.gate.set()
    assert replica_of(await task) == "r0"
    assert (await second.http.get("/v1/requests/a")).json()["state"] == "finished"


async def test_a_request_of_another_replica_is_changed_and_cancelled(replicas):
    first, second = replicas
    task = await waiting(first, "a")
    answer = await second.http.patch("/v1/requests/a", json={"budget": {"max_exit": 3}})
    assert answer.json()["effect"] == "applied"
    assert (await second.http.delete("/v1/requests/a")).status_code == 204
    assert "reason=cancelled" in (await task).headers["anytime-result"]


async def test_its_errors_are_those_of_its_replica(replicas):
    first, second = replicas
    task = await waiting(first, "a")
    answer = await second.http.patch("/v1/requests/a", json={"budget": {"max_exit": -1}})
    assert_problem(answer, ErrorCode.BAD_BUDGET)
    first.executor.gate.set()
    await task


async def test_a_request_that_runs_is_meant_where_another_has_ended_by_the_same_id(replicas):
    first, second = replicas
    assert (await ask(first, "a")).status_code == 200
    async with running_replicas(1) as ([third], peers):
        peers.applications[:0] = [first.application, second.application]
        task = await waiting(second, "a")
        assert (await third.http.get("/v1/requests/a")).json()["state"] == "running"
        second.executor.gate.set()
        await task


async def test_what_is_known_here_is_not_asked_for():
    async with running_replicas() as ([first, _], peers):
        await ask(first, "a")
        assert (await first.http.get("/v1/requests/a")).status_code == 200
        assert peers.forwarded == []


async def test_a_request_that_nobody_has_is_unknown(replicas):
    answer = await replicas[0].http.get("/v1/requests/nobody")
    assert_problem(answer, ErrorCode.UNKNOWN_REQUEST)


async def test_strangers_ask_nobody():
    async with running_replicas(token="secret") as ([first, second], peers):
        assert_problem(await first.http.get("/v1/requests/a"), ErrorCode.UNAUTHORIZED)
        assert peers.forwarded == []
        lines = {"Authorization": "Bearer secret"}
        first.http.headers.update(lines)
        task = await waiting(first, "a")
        assert (await second.http.get("/v1/requests/a", headers=lines)).status_code == 200
        first.executor.gate.set()
        await task


async def test_a_body_that_is_too_large_is_passed_on_to_nobody():
    async with running_replicas(max_json_bytes=1024) as ([first, _], peers):
        answer = await first.http.patch("/v1/requests/a", content=b" " * 2000)
        assert_problem(answer, ErrorCode.UNKNOWN_REQUEST)
        assert peers.forwarded == []


async def test_a_silent_replica_is_told_of_rather_than_waited_for():
    async with running_replicas() as ([first, _], peers):
        peers.is_silent = True
        assert_problem(await first.http.get("/v1/requests/a"), ErrorCode.NOT_READY)
        answer = await first.http.put("/v1/budget", json={"budget": {}})
        assert_problem(answer, ErrorCode.NOT_READY)


async def test_the_operators_budget_goes_to_all_replicas(replicas):
    answer = await replicas[0].http.put("/v1/budget", json={"budget": {"max_exit": 2}})
    assert answer.status_code == 200
    for replica in replicas:
        status = (await replica.http.get("/v1/budget")).json()
        assert status["effective"] == {"max_exit": 2}


async def test_a_budget_that_is_refused_goes_to_nobody():
    async with running_replicas() as ([first, _], peers):
        answer = await first.http.put("/v1/budget", json={"budget": {"max_exit": -1}})
        assert_problem(answer, ErrorCode.BAD_BUDGET)
        assert peers.forwarded == []


async def test_metrics_are_those_of_all_replicas(replicas):
    first, second = replicas
    assert (await ask(first, "a")).status_code == 200
    answer = await second.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    line = 'anytime_exits_served_total{exit="4",model="street",reason="complete",replica="r0"} 1.0'
    assert line in answer.text
    for name in ("r0", "r1"):
        assert f'anytime_requests_in_house{{executor="0",replica="{name}"}} 0.0' in answer.text


async def test_answers_have_the_headers_that_rays_proxy_does_not_add(replicas):
    answer = await ask(replicas[0], "mine")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert replica_of(answer) == "r0"
    assert "x-request-id" not in answer.headers  # Ray's proxy adds it


async def test_a_deadline_counts_from_when_rays_proxy_had_the_request(replicas):
    first, second = replicas
    gate = first.executor.gate
    first.executor.on_stage = lambda job, stage: gate.clear() if stage == 2 else None
    lines = {"Content-Type": "image/jpeg", "X-Request-Id": "a"}
    lines["x-anytime-came"] = repr(time.time() - 5.0)
    task = asyncio.create_task(first.http.post(URL, content=image_file(), headers=lines))
    while ("run", "a", 2) not in first.executor.log:
        await asyncio.sleep(0.001)
    status = (await second.http.get("/v1/requests/a")).json()
    assert 5000 <= status["elapsed_ms"] < 15_000
    gate.set()
    await task


async def test_an_image_that_went_with_its_request_is_not_waited_for(replicas):
    async def behind(scope, receive, send):
        await replicas[0].application(scope, asyncio.Event().wait, send)

    transport = httpx.ASGITransport(ProxyNotes(behind))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        lines = {"Content-Type": "image/jpeg"}
        answer = await http.post(URL, content=image_file(), headers=lines)
    assert answer.status_code == 200


async def test_it_has_started_once_the_models_are_loaded():
    settings, executor = Settings(log_level="warning"), FakeExecutor()
    executor.may_start.clear()
    engine = LocalEngine([executor], Metrics(), settings)
    life = Lifespan(ReplicaApplication(create_app(settings, engine, Metrics()), "r", DirectPeers()))
    await asyncio.sleep(0)
    assert engine.state is EngineState.STARTING
    assert life.sent.empty()
    executor.may_start.set()
    assert (await life.sent.get())["type"] == "lifespan.startup.complete"
    assert engine.state is EngineState.READY
    await life.end()


async def test_it_fails_to_start_with_models_that_cannot_be_loaded():
    class Broken(FakeExecutor):
        async def start(self, on_failure):
            raise ExecutorStartError("no such folder")

    settings = Settings(log_level="warning")
    engine = LocalEngine([Broken()], Metrics(), settings)
    life = Lifespan(ReplicaApplication(create_app(settings, engine, Metrics()), "r", DirectPeers()))
    failed = await life.sent.get()
    assert failed == {"type": "lifespan.startup.failed", "message": "no such folder"}
    await life.end()


async def test_a_drain_lets_requests_end_and_then_admits_no_more(replicas):
    first, _ = replicas
    task = await waiting(first, "a")
    drain = asyncio.create_task(first.application.drain())
    await asyncio.sleep(0)
    assert first.engine.state is EngineState.READY  # a proxy may not have heard of it yet
    first.executor.gate.set()
    assert "reason=complete" in (await task).headers["anytime-result"]
    await drain
    assert first.engine.state is EngineState.DRAINING


async def test_a_message_counts_from_when_rays_proxy_had_it(replicas):
    first, _ = replicas
    gate, client = first.executor.gate, Session(Role.CLIENT)
    first.executor.on_stage = lambda job, stage: gate.clear() if stage == 2 else None
    received, sent = asyncio.Queue(), asyncio.Queue()
    received.put_nowait({"type": "websocket.connect"})
    scope = {
        "type": "websocket",
        "path": "/v1/stream",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"x-anytime-came", repr(time.time()).encode())],
        "subprotocols": [PROTOCOL],
    }
    socket = asyncio.create_task(first.application(scope, received.get, sent.put))
    accepted = await sent.get()
    assert (b"anytime-replica", b"r0") in accepted["headers"]
    client.receive((await sent.get())["text"])
    client.send(infer("a"))
    [frame] = client.outgoing()
    received.put_nowait(
        {"type": "websocket.receive", "bytes": frame, "anytime_came": time.time() - 5.0}
    )
    while not (found := [job for kind, job, stage in first.executor.log if stage == 2]):
        await asyncio.sleep(0.001)
    request = first.engine.status(found[0])
    assert 5.0 <= first.engine.clock() - request.job.arrival_s < 15.0
    gate.set()
    received.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await socket
