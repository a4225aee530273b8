"""Models, the operator's budget, health, metrics and descriptions over HTTP."""

import asyncio
import json

import pytest

from anytime_protocol.enums import ErrorCode
from server.api.clients import URL, ask, assert_problem
from server.factories import image_file
from server.fakes import FakeExecutor


async def test_models_are_listed_as_in_ready(live):
    models = (await live.http.get("/v1/models")).json()["models"]
    assert [model["name"] for model in models] == ["street", "pose"]
    assert (await live.http.get("/v1/models/pose")).json() == models[1]
    assert_problem(await live.http.get("/v1/models/nobody"), ErrorCode.UNKNOWN_MODEL)


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
    assert_problem(response, ErrorCode.BAD_BUDGET)


async def test_a_budget_that_is_too_large_is_refused_before_it_is_read(serve):
    async with serve(max_json_bytes=2048) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(b"PUT /v1/budget HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2049\r\n\r\n")
        async with asyncio.timeout(5):
            assert b" 413 " in await reader.readline()
        writer.close()


async def test_tokens_guard_everything_but_health(serve):
    async with serve(token="secret", operator_token="boss") as live:
        assert (await live.http.get("/livez")).status_code == 200
        assert (await live.http.get("/readyz")).status_code == 200
        for method, url in [("GET", "/v1/models"), ("POST", URL), ("GET", "/v1/requests/a")]:
            found = assert_problem(await live.http.request(method, url), ErrorCode.UNAUTHORIZED)
            assert found.field == "Authorization"
        user, operator = ({"Authorization": f"Bearer {t}"} for t in ("secret", "boss"))
        assert (await live.http.get("/v1/models", headers=user)).status_code == 200
        body = {"budget": {}}
        response = await live.http.put("/v1/budget", json=body, headers=user)
        assert_problem(response, ErrorCode.UNAUTHORIZED)
        response = await live.http.put("/v1/budget", json=body, headers=operator)
        assert response.status_code == 200


async def test_health_tells_states_apart(live):
    assert (await live.http.get("/livez")).text == "ok\n"
    ready = await live.http.get("/readyz")
    assert ready.json() == {"state": "ready", "engines": {"street": "fake", "pose": "fake"}}
    await live.state.engine.drain()
    response = await live.http.get("/readyz")
    assert (response.status_code, response.json()["state"]) == (503, "draining")
    assert_problem(await ask(live, "a"), ErrorCode.DRAINING)
    assert (await live.http.get("/livez")).status_code == 200


async def test_nothing_is_admitted_before_the_models_are_loaded(serve):
    gate = asyncio.Event()

    class Slow(FakeExecutor):
        async def start(self, on_failure):
            await gate.wait()
            return await super().start(on_failure)

    async with serve(Slow(), wait=False) as live:
        assert (await live.http.get("/readyz")).status_code == 503
        assert (await live.http.get("/livez")).status_code == 200
        assert_problem(await ask(live, "a"), ErrorCode.NOT_READY)
        assert_problem(await live.http.get("/v1/budget"), ErrorCode.NOT_READY)
        gate.set()
        await live.state.engine.wait_ready()
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
        'anytime_engine_memory_bytes{executor="0"} 4096.0',
        'anytime_executor_resident_memory_bytes{executor="0"} 8192.0',
        'anytime_requests_in_house{executor="0"} 0.0',
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
    predict = document["paths"]["/v1/models/{model}/predict"]["post"]
    assert "image/webp" in predict["requestBody"]["content"]
    assert {"deadline_ms", "max_exit", "scale", "progress"} <= {
        parameter["name"] for parameter in predict["parameters"]
    }
    status = document["paths"]["/v1/budget"]["get"]["responses"]["200"]["content"]
    reference = status["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert "load_s" in document["components"]["schemas"][reference]["properties"]
    assert "#/$defs/" not in json.dumps(document), "a reference that leads nowhere"
    sockets = (await live.http.get("/asyncapi.json")).json()
    assert "#/$defs/" not in json.dumps(sockets), "a reference that leads nowhere"
    infer = sockets["components"]["messages"]["infer"]["payload"]
    assert infer["required"] == ["type", "media_type", "id", "model"]  # the image may come behind
    channel = sockets["channels"]["stream"]
    assert channel["address"] == "/v1/stream"
    assert {"infer", "update", "final"} <= set(channel["messages"])


async def test_every_operation_below_v1_describes_its_errors_and_its_token(live):
    document = (await live.http.get("/openapi.json")).json()
    operations = {
        (method, path): operation
        for path, found in document["paths"].items()
        for method, operation in found.items()
        if path.startswith("/v1/")
    }
    assert len(operations) == 8
    for operation in operations.values():
        responses = operation["responses"]
        assert {"401", "500", "503", "4XX", "5XX"} <= set(responses)
        assert operation["security"] == [{"token": []}, {}]
        for status in set(responses) - {"200", "204"}:
            schema = responses[status]["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}
    members = document["components"]["schemas"]["Problem"]["properties"]
    assert {"type", "title", "status", "code", "detail"} <= set(members)
    assert "400" in operations["put", "/v1/budget"]["responses"]
    assert "404" in operations["get", "/v1/models/{model}"]["responses"]
    assert "422" not in operations["get", "/v1/models/{model}"]["responses"]
    assert "HTTPValidationError" not in json.dumps(document)


async def test_the_headers_of_a_prediction_are_described(live):
    document = (await live.http.get("/openapi.json")).json()
    predict = document["paths"]["/v1/models/{model}/predict"]["post"]
    described = {found["name"] for found in predict["parameters"] if found["in"] == "header"}
    assert described == {
        *("X-Deadline-Ms", "grpc-timeout", "Connect-Timeout-Ms", "Prefer", "Priority"),
        *("x-envoy-expected-rq-timeout-ms", "X-Request-Id"),
    }
    answer = await live.http.post(
        URL,
        content=image_file(),
        headers={"Content-Type": "image/jpeg", "X-Deadline-Ms": "9000", "Prefer": "wait=9"},
    )
    own = {"content-length", "content-type", "date", "cache-control", "vary"}
    own.add("x-content-type-options")
    described = {name.lower() for name in predict["responses"]["200"]["headers"]}
    assert set(answer.headers) - own == described


async def test_what_is_not_there_is_a_assert_problem(live):
    assert_problem(await live.http.get("/nothing"), ErrorCode.NOT_FOUND)
    assert_problem(await live.http.get(URL), ErrorCode.METHOD_NOT_ALLOWED)


async def test_the_page_is_served_with_strict_headers(serve, tmp_path):
    (tmp_path / "index.html").write_text("<title>x</title>")
    async with serve(page=tmp_path) as live:
        response = await live.http.get("/")
        assert response.text == "<title>x</title>"
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert (await live.http.get("/../secret")).status_code == 404


async def test_without_an_index_the_log_says_that_there_is_no_page(serve, tmp_path, caplog):
    async with serve(page=tmp_path) as live:
        assert (await live.http.get("/")).status_code == 404
    assert f"found no index.html in {tmp_path}" in caplog.text


async def test_a_fault_of_the_server_is_a_problem_without_its_details(live, monkeypatch):
    def fail(engine):
        raise RuntimeError("secret")

    monkeypatch.setattr(type(live.state.engine), "models", property(fail))
    response = await live.http.get("/v1/models")
    assert assert_problem(response, ErrorCode.INTERNAL).detail == "see the server's log"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/budget", "GET, PUT"),
        ("PUT", "/v1/requests/x", "GET, PATCH, DELETE"),
        ("GET", "/v1/models/street/predict", "POST"),
        ("POST", "/livez", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_all_that_are_right(live, method, path, allowed):
    answer = await live.http.request(method, path)
    assert_problem(answer, ErrorCode.METHOD_NOT_ALLOWED)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_health_may_be_asked_for_without_a_body(live, path):
    answer = await live.http.head(path)
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["content-type"] == (await live.http.get(path)).headers["content-type"]
