"""Requests, models, budget, health, metrics and descriptions over HTTP."""

import asyncio
import json

import pytest

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_server.core.limits import ServerBudget
from server.server_fakes import FakeExecutor, picture_file

URL = "/v1/models/street/predict"


def problem(response, code):
    assert response.headers["content-type"] == "application/problem+json"
    found = Problem.parse(response.text)
    assert found.code is code
    assert response.status_code == found.status
    return found


async def ask(live, request_id, url=URL):
    lines = {"Content-Type": "image/jpeg", "X-Request-Id": request_id}
    return await live.http.post(url, content=picture_file(), headers=lines)


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
    while "b" not in live.service.records:
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
    live.service.records["a"].ended_s -= 61.0
    await ask(live, "b")
    problem(await live.http.get("/v1/requests/a"), ErrorCode.UNKNOWN_REQUEST)


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
    problem(await live.http.patch("/v1/requests/a", content=body), code)
    assert (await live.http.get("/v1/requests/a")).json()["rev"] == 0
    live.executor.gate.set()
    await task


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_request_is_404(live, method):
    response = await live.http.request(method, "/v1/requests/nobody", json={"budget": {}})
    problem(response, ErrorCode.UNKNOWN_REQUEST)


async def test_models_are_listed_as_in_ready(live):
    models = (await live.http.get("/v1/models")).json()["models"]
    assert [model["name"] for model in models] == ["street", "pose"]
    assert (await live.http.get("/v1/models/pose")).json() == models[1]
    problem(await live.http.get("/v1/models/nobody"), ErrorCode.UNKNOWN_MODEL)


async def test_the_operators_budget_is_put_got_and_obeyed(live):
    budget = {"max_exit": 3, "schedule": [{"at_ms": 3_600_000, "max_exit": 4}]}
    answer = await live.http.put("/v1/budget", json={"budget": budget})
    assert answer.status_code == 200
    status = (await live.http.get("/v1/budget")).json()
    assert status["budget"]["schedule"] == budget["schedule"]
    assert status["effective"] == {"max_exit": 3}
    assert status["in_flight"] == status["queued"] == 0
    assert status["slowdown"] > 0
    response = await ask(live, "a")
    assert "exit=3, exits=4, reason=budget" in response.headers["anytime-result"]


@pytest.mark.parametrize(
    "budget", [{"max_exit": 0}, {"nonsense": 1}, [], {"schedule": [{"max_exit": 1}]}]
)
async def test_a_malformed_budget_of_the_operator_is_refused(live, budget):
    response = await live.http.put("/v1/budget", json={"budget": budget})
    problem(response, ErrorCode.BAD_BUDGET)


def test_a_server_budgets_times_are_ms_on_the_wire():
    wire = {"clock": "daily", "max_exit": 4, "schedule": [{"at_ms": 1500.0, "max_exit": 2}]}
    budget = ServerBudget.from_json(wire)
    assert budget.at(1.4).max_exit == 2  # yesterday's entry
    assert budget.changes_in(1.0) == 0.5
    assert budget.to_json() == wire


async def test_tokens_guard_everything_but_health(serve):
    async with serve(token="secret", operator_token="boss") as live:
        assert (await live.http.get("/livez")).status_code == 200
        assert (await live.http.get("/readyz")).status_code == 200
        for method, url in [("GET", "/v1/models"), ("POST", URL), ("GET", "/v1/requests/a")]:
            found = problem(await live.http.request(method, url), ErrorCode.UNAUTHORIZED)
            assert found.field == "Authorization"
        user, operator = ({"Authorization": f"Bearer {t}"} for t in ("secret", "boss"))
        assert (await live.http.get("/v1/models", headers=user)).status_code == 200
        body = {"budget": {}}
        response = await live.http.put("/v1/budget", json=body, headers=user)
        problem(response, ErrorCode.UNAUTHORIZED)
        response = await live.http.put("/v1/budget", json=body, headers=operator)
        assert response.status_code == 200


async def test_health_tells_states_apart(live):
    assert (await live.http.get("/livez")).text == "ok\n"
    ready = await live.http.get("/readyz")
    assert ready.json() == {"state": "ready", "engines": {"street": "fake", "pose": "fake"}}
    await live.service.drain()
    response = await live.http.get("/readyz")
    assert (response.status_code, response.json()["state"]) == (503, "draining")
    problem(await ask(live, "a"), ErrorCode.DRAINING)
    assert (await live.http.get("/livez")).status_code == 200


async def test_nothing_is_admitted_before_the_models_are_loaded(serve):
    gate = asyncio.Event()

    class Slow(FakeExecutor):
        async def start(self):
            await gate.wait()
            return await super().start()

    async with serve(Slow(), wait=False) as live:
        assert (await live.http.get("/readyz")).status_code == 503
        assert (await live.http.get("/livez")).status_code == 200
        problem(await ask(live, "a"), ErrorCode.NOT_READY)
        problem(await live.http.get("/v1/budget"), ErrorCode.NOT_READY)
        gate.set()
        await live.service.wait_ready()
        assert (await ask(live, "a")).status_code == 200


async def test_the_metrics_of_the_protocol_are_there(live):
    await ask(live, "a", f"{URL}?deadline_ms=5000")
    await ask(live, "b", f"{URL}?deadline_ms=1")
    response = await live.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    text = response.text
    for line in (
        'anytime_requests_total{model="street",outcome="complete",transport="http"} 1.0',
        'anytime_exits_served_total{exit="4",model="street",reason="complete"} 1.0',
        'anytime_rejections_total{code="deadline-exceeded",model="street"} 1.0',
        'anytime_stage_seconds_count{model="street",stage="4"} 1.0',
        'anytime_first_exit_seconds_count{model="street"} 1.0',
        'anytime_inter_exit_seconds_count{model="street"} 3.0',
        'anytime_deadline_slack_seconds_count{model="street"} 1.0',
        'anytime_encode_seconds_count{encoding="png"} 1.0',
        'anytime_engine_info{engine="fake",model="street"} 1.0',
        "anytime_websocket_connections 0.0",
        "anytime_requests_in_house 0.0",
    ):
        assert line in text


async def test_descriptions_are_json_and_name_every_route(live):
    document = (await live.http.get("/openapi.json")).json()
    assert set(document["paths"]) >= {
        "/v1/models/{model}/predict",
        "/v1/requests/{request_id}",
        "/v1/budget",
        "/v1/models",
        "/livez",
        "/readyz",
        "/metrics",
    }
    assert "image/webp" in json.dumps(document["paths"]["/v1/models/{model}/predict"])
    channel = (await live.http.get("/asyncapi.json")).json()["channels"]["stream"]
    assert channel["address"] == "/v1/stream"
    assert {"infer", "update", "final"} <= set(channel["messages"])


async def test_what_is_not_there_is_a_problem(live):
    problem(await live.http.get("/nothing"), ErrorCode.NOT_FOUND)
    problem(await live.http.get(URL), ErrorCode.METHOD_NOT_ALLOWED)


async def test_the_page_is_served_with_strict_headers(serve, tmp_path):
    (tmp_path / "index.html").write_text("<title>x</title>")
    async with serve(page=tmp_path) as live:
        response = await live.http.get("/")
        assert response.text == "<title>x</title>"
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert (await live.http.get("/../secret")).status_code == 404


async def test_a_mistake_of_the_server_is_a_problem_without_its_details(live):
    service, live.app.state.service = live.service, None
    response = await live.http.get("/v1/models")
    live.app.state.service = service
    assert problem(response, ErrorCode.INTERNAL).detail == "see the server's log"
