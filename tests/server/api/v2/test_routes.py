"""`/v2` over real sockets, with a fake executor behind."""

import asyncio
import base64
import gzip
import json
import zlib

import numpy as np
import pytest

from server.api.v2 import wire
from server.api.v2.messages import (
    bytes_element,
    file_input,
    pixels_input,
    read_response,
    request_body,
)
from server.factories import SIZE, image_file
from server.fakes import FakeExecutor

URL = "/v2/models/street/infer"
PIXELS = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)


async def post(live, tensor=None, binary=None, url=URL, headers=None, **rest):
    """Posts a request with one input; by default an image file behind the JSON."""
    if tensor is None:
        tensor, binary = file_input(), bytes_element(image_file())
    body, json_bytes = request_body(tensor, binary, **rest)
    lines = {"Accept-Encoding": "identity"} | (headers or {})
    if json_bytes is not None:
        lines["Inference-Header-Content-Length"] = str(json_bytes)
    return await live.http.post(url, content=body, headers=lines)


def outputs_of(response):
    assert response.status_code == 200, response.text
    return read_response(response.content, response.headers.get("inference-header-content-length"))


def error(response, status):
    """The text of an error, which must have the protocol's form."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert isinstance(body["error"], str)
    return body["error"]


# Health and metadata.


async def test_health_says_what_the_server_can_do(serve):
    async with serve(wait=False) as live:
        assert (await live.http.get("/v2/health/live")).json() == {"live": True}
        await live.state.engine.wait_ready()
        assert (await live.http.get("/v2/health/ready")).json() == {"ready": True}
        ready = await live.http.get("/v2/models/street/ready")
        assert ready.json() == {"name": "street", "ready": True}


async def test_a_server_that_drains_is_not_ready_and_admits_nothing(serve):
    async with serve() as live:
        live.executor.gate.clear()
        running = asyncio.create_task(post(live))
        await live.executor.running.wait()
        draining = asyncio.create_task(live.state.engine.drain())
        await asyncio.sleep(0)
        assert "draining" in error(await live.http.get("/v2/health/ready"), 503)
        assert "draining" in error(await live.http.get("/v2/models/street/ready"), 503)
        refused = await post(live)
        assert "draining" in error(refused, 503)
        assert refused.headers["retry-after"]
        assert (await live.http.get("/v2/health/live")).status_code == 200
        live.executor.gate.set()
        assert (await running).status_code in {200, 409}
        await draining


async def test_metadata_describe_server_and_models(live):
    server = (await live.http.get("/v2")).json()
    assert server["extensions"] == ["binary_tensor_data", "schedule_policy", "statistics"]
    for path in ("/v2/models/street", "/v2/models/street/versions/1"):
        model = (await live.http.get(path)).json()
        assert (model["name"], model["versions"]) == ("street", ["1"])
        assert model["inputs"] == [
            {"name": "image", "datatype": "BYTES", "shape": [1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [1, -1, -1, 3]},
        ]
        assert [output["name"] for output in model["outputs"]] == ["map", "confidence"]
    pose = (await live.http.get("/v2/models/pose")).json()
    assert pose["outputs"] == [{"name": "keypoints", "datatype": "FP32", "shape": [1, 3, 3]}]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/nobody",
        "/v2/models/nobody/ready",
        "/v2/models/nobody/stats",
        "/v2/models/street/versions/2",
        "/v2/models/street/versions/2/ready",
        "/v2/models/street/versions/2/stats",
        "/v2/nothing",
    ],
)
async def test_what_is_not_there_is_404(live, path):
    assert error(await live.http.get(path), 404)
    url = "/v2/models/nobody/infer" if "nobody" in path else "/v2/models/street/versions/2/infer"
    assert "found" in error(await post(live, url=url), 404)


async def test_a_wrong_method_and_a_fault_have_the_form_of_the_protocol(live):
    assert error(await live.http.get(URL), 405)
    live.state.engine = None
    assert "see the server's log" in error(await live.http.get("/v2/models/street"), 500)


async def test_everything_but_health_needs_the_token(serve):
    async with serve(token="secret") as live:
        assert (await live.http.get("/v2/health/ready")).status_code == 200
        for path in ("/v2", "/v2/models/street", "/v2/models/stats"):
            assert "Bearer" in error(await live.http.get(path), 401)
        assert (await post(live)).headers["www-authenticate"] == "Bearer"
        assert (await post(live, headers={"Authorization": "Bearer secret"})).status_code == 200


async def test_openapi_describes_every_route_and_the_messages(live):
    document = (await live.http.get("/openapi.json")).json()
    models = "/v2/models/{model}"
    paths = ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats"]
    for suffix in ("", "/ready", "/infer", "/stats"):
        paths += [f"{models}{suffix}", f"{models}/versions/{{version}}{suffix}"]
    assert set(paths) <= set(document["paths"])
    infer = document["paths"][f"{models}/infer"]["post"]
    schema = infer["requestBody"]["content"]["application/json"]["schema"]
    assert {"inputs", "outputs", "parameters", "id"} <= set(schema["properties"])
    parameters = schema["properties"]["parameters"]["properties"]
    assert {"timeout", "priority", "max_exit", "deadline_ms"} <= set(parameters)
    assert "application/octet-stream" in infer["responses"]["200"]["content"]
    named = {parameter["name"] for parameter in infer["parameters"]}
    assert named == {"model", "Inference-Header-Content-Length", "Content-Encoding"}


# Inference.


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("form", ["file", "file in JSON", "pixels", "pixels in JSON"])
async def test_every_form_of_an_image_gives_its_map(live, form, batch):
    pixels = PIXELS if batch else PIXELS[0]
    match form:
        case "file":
            response = await post(live)
        case "file in JSON":
            text = base64.b64encode(image_file()).decode()
            response = await post(live, file_input(data=[text]))
        case "pixels":
            response = await post(live, pixels_input(pixels), pixels.tobytes())
        case _:
            response = await post(live, pixels_input(pixels, data=pixels.ravel().tolist()))
    message, outputs = outputs_of(response)
    assert response.headers["content-type"] == "application/json"
    assert (message["model_name"], message["model_version"]) == ("street", "1")
    assert "id" not in message
    assert outputs["map"].shape == (1, *SIZE)
    assert set(np.unique(outputs["map"])) == {0, 4}
    np.testing.assert_array_equal(outputs["confidence"], outputs["map"] * 10)
    parameters = message["parameters"]
    assert (parameters["exit"], parameters["exits"], parameters["reason"]) == (4, 4, "complete")
    assert parameters["confidence"] == 0.8
    assert parameters["gmacs"] == 10.0
    parts = [parameters[f"{part}_ms"] for part in ("queue", "decode", "compute", "encode")]
    assert parameters["compute_ms"] == pytest.approx(90.0)
    assert all(part >= 0.0 for part in parts)
    assert "exit=4" in response.headers["anytime-result"]
    assert response.headers["server-timing"]


async def test_pixels_reach_the_executor_as_they_came(live):
    await post(live, pixels_input(PIXELS), PIXELS.tobytes())
    np.testing.assert_array_equal(live.executor.commands[-1].image, PIXELS[0])
    assert live.executor.commands[-1].size == SIZE


async def test_outputs_come_in_binary_where_that_is_wanted(live):
    wanted = [{"name": "confidence", "parameters": {"binary_data": False}}, {"name": "map"}]
    response = await post(live, outputs=wanted, parameters={"binary_data_output": True})
    message, outputs = outputs_of(response)
    assert response.headers["content-type"] == "application/octet-stream"
    assert list(outputs) == ["confidence", "map"]
    assert "data" in message["outputs"][0]
    assert message["outputs"][1]["parameters"] == {"binary_data_size": SIZE[0] * SIZE[1]}


async def test_only_what_is_wanted_is_rendered(live):
    await post(live, outputs=[{"name": "map"}])
    assert not live.executor.commands[-1].render.confidence
    await post(live, outputs=[{"name": "confidence"}])
    assert live.executor.commands[-1].render.confidence


@pytest.mark.parametrize("binary", [True, False])
async def test_a_pose_has_keypoints(live, binary):
    parameters = {"binary_data_output": binary}
    response = await post(live, url="/v2/models/pose/versions/1/infer", parameters=parameters)
    _, outputs = outputs_of(response)
    np.testing.assert_array_equal(
        outputs["keypoints"], np.float32([[[1.5, 2.5, 0.25], [3, 4, 0.5], [5, 6, 1.0]]])
    )


async def test_a_body_that_is_an_image_file_needs_no_json(live):
    lines = {"Inference-Header-Content-Length": "0", "Accept-Encoding": "identity"}
    response = await live.http.post(URL, content=image_file("PNG"), headers=lines)
    assert outputs_of(response)[1]["map"].shape == (1, *SIZE)


async def test_the_clients_id_comes_back_and_need_not_be_unique(live):
    live.executor.gate.clear()
    twins = [asyncio.create_task(post(live, id="7 of 9")) for _ in range(2)]
    await live.executor.running.wait()
    live.executor.gate.set()
    for twin in twins:
        assert outputs_of(await twin)[0]["id"] == "7 of 9"


@pytest.mark.parametrize(
    ("parameters", "exit_", "reason"),
    [
        ({"max_exit": 2}, 2, "budget"),
        ({"compute_gmacs": 6.5}, 3, "budget"),
        ({"min_confidence": 0.4}, 2, "satisfied"),
        ({"confident_share": 0.5}, 3, "satisfied"),
        ({"deadline_ms": 5000}, 4, "complete"),
        ({"timeout": 5_000_000}, 4, "complete"),
        ({"timeout": 0, "priority": 0}, 4, "complete"),
        ({"timeout": 2**50}, 4, "complete"),
    ],
)
async def test_parameters_are_the_budget(live, parameters, exit_, reason):
    message, _ = outputs_of(await post(live, parameters=parameters))
    assert (message["parameters"]["exit"], message["parameters"]["reason"]) == (exit_, reason)


@pytest.mark.parametrize(
    ("parameters", "headers", "applied"),
    [
        ({"deadline_ms": 4000}, {}, "4000"),
        ({"timeout": 3_000_000}, {}, "3000"),
        ({"timeout": 3_000_000, "deadline_ms": 2500.5}, {}, "2500.5"),
        ({"deadline_ms": 4000}, {"X-Deadline-Ms": "2000"}, "2000"),
        ({}, {"grpc-timeout": "4S"}, "4000"),
        ({}, {}, None),
    ],
)
async def test_the_tightest_deadline_of_parameters_and_headers_holds(
    live, parameters, headers, applied
):
    response = await post(live, parameters=parameters, headers=headers)
    assert response.status_code == 200
    assert response.headers.get("x-deadline-applied-ms") == applied


async def test_a_deadline_that_nobody_could_meet_is_504(live):
    assert "too late" in error(await post(live, parameters={"timeout": 1000}), 504)


@pytest.mark.parametrize(
    ("parameters", "headers", "urgency"),
    [
        ({}, {}, 3),
        ({}, {"Priority": "u=5"}, 5),
        ({"priority": 0}, {"Priority": "u=5"}, 5),
        ({"priority": 1}, {"Priority": "u=5"}, 0),
        ({"priority": 8}, {}, 7),
    ],
)
async def test_priority_1_is_the_most_urgent(live, parameters, headers, urgency):
    lines = headers | {"X-Request-Id": "mine"}
    assert (await post(live, parameters=parameters, headers=lines)).status_code == 200
    assert live.state.engine.status("mine").job.urgency == urgency


async def test_a_client_that_goes_away_cancels_its_request(live):
    live.executor.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", live.port)
    writer.write(wire.async_file(image_file()))
    await live.executor.running.wait()
    writer.close()
    async with asyncio.timeout(5):
        while live.state.engine.server_budget().in_flight:
            await asyncio.sleep(0.001)
    text = (await live.http.get("/metrics")).text
    assert 'outcome="499",transport="http"} 1.0' in text


async def test_a_running_request_is_found_cancelled_and_refused_twice_by_its_header(live):
    live.executor.gate.clear()
    running = asyncio.create_task(post(live, headers={"X-Request-Id": "long"}))
    await live.executor.running.wait()
    assert (await live.http.get("/v1/requests/long")).json()["state"] == "running"
    assert "has not ended" in error(await post(live, headers={"X-Request-Id": "long"}), 409)
    assert (await live.http.delete("/v1/requests/long")).status_code == 204
    assert "cancelled before its first exit" in error(await running, 409)


# Compression.


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_compressed_requests_are_read_and_answers_compressed_on_request(live, coding, pack):
    body, json_bytes = request_body(file_input(), bytes_element(image_file()))
    lines = {
        "Inference-Header-Content-Length": str(json_bytes),
        "Content-Encoding": coding,
        "Accept-Encoding": coding,
    }
    response = await live.http.post(URL, content=pack(body), headers=lines)
    assert response.headers["content-encoding"] == coding
    assert response.headers["vary"] == "Accept-Encoding"
    _, outputs = outputs_of(response)  # httpx has unpacked it
    assert outputs["map"].shape == (1, *SIZE)
    assert int(response.headers["content-length"]) < len(response.content)


async def test_errors_and_metadata_are_never_compressed(live):
    lines = {"Accept-Encoding": "gzip"}
    for response in (
        await live.http.get("/v2/models/street", headers=lines),
        await post(live, headers=lines, parameters={"max_exit": 0}),
    ):
        assert "content-encoding" not in response.headers


@pytest.mark.parametrize("coding", ["gzip", "deflate", None])
async def test_the_limit_on_uploads_holds_for_what_is_unpacked(serve, coding):
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, None: bytes}[coding]
    lines = {"Content-Encoding": coding} if coding else {}
    async with serve(max_body_bytes=100_000, max_json_bytes=1024) as live:
        response = await live.http.post(URL, content=pack(bytes(101_025)), headers=lines)
        assert "100000 bytes" in error(response, 413)
        pixels = np.zeros((1, 100, 333, 3), np.uint8)
        body, json_bytes = request_body(pixels_input(pixels), pixels.tobytes())
        lines["Inference-Header-Content-Length"] = str(json_bytes)
        assert (await live.http.post(URL, content=pack(body), headers=lines)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"Content-Encoding": "br"}, 415, "expected gzip, deflate or none"),
        ({"Content-Encoding": "gzip"}, 400, "cannot be unpacked"),
        ({"Inference-Header-Content-Length": "-1"}, 400, "the length of the JSON in bytes"),
        ({"Inference-Header-Content-Length": "1e3"}, 400, "the length of the JSON in bytes"),
        ({"Inference-Header-Content-Length": "999999"}, 400, "expected at least the 999999"),
        ({"X-Deadline-Ms": "soon"}, 400, "milliseconds"),
        ({"X-Request-Id": "a b"}, 400, "the form"),
    ],
)
async def test_malformed_headers_are_named(live, headers, status, text):
    body, _ = request_body(file_input(data=["AAAA"]))
    assert text in error(await live.http.post(URL, content=body, headers=headers), status)


# Bad input.


@pytest.mark.parametrize(
    ("request_", "status", "text"),
    [
        ({"parameters": {"max_exit": 0}}, 400, "parameters.max_exit: found the number 0"),
        ({"parameters": {"deadline": 5}}, 400, "parameters.deadline: found an unknown field"),
        ({"parameters": {"sequence_id": 5}}, 400, "parameters.sequence_id"),
        ({"parameters": {"compute_gmacs": 0.5}}, 422, "cost of exit 1"),
        ({"outputs": [{"name": "mask"}]}, 400, "expected one of map, confidence"),
        ({"model_name": "pose"}, 400, "expected the model of the URL, 'street'"),
        ({"tensor": file_input(), "binary": bytes_element(b"GIF89a")}, 422, "cannot be decoded"),
        ({"tensor": file_input(), "binary": bytes_element(b"")}, 422, "cannot be decoded"),
        ({"tensor": file_input(data=["R0lGODlh"])}, 422, "cannot be decoded"),
        ({"tensor": pixels_input(PIXELS), "binary": b"123"}, 400, "3 values, expected 9216"),
    ],
)
async def test_bad_input_has_one_answer_and_the_server_stays_well(live, request_, status, text):
    assert text in error(await post(live, **request_), status)
    assert (await post(live)).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"nonsense", b'{"inputs": [], "inputs": []}', b"\xff"]
)
async def test_a_body_that_is_no_json_object_is_400(live, body):
    assert "JSON" in error(await live.http.post(URL, content=body), 400)


async def test_too_many_pixels_are_413(serve):
    async with serve(max_pixels=1000) as live:
        response = await post(live, pixels_input(PIXELS), PIXELS.tobytes())
        assert "at most 1000 are allowed" in error(response, 413)


async def test_no_room_is_503_with_retry_after(serve):
    async with serve(max_requests=1) as live:
        live.executor.gate.clear()
        first = asyncio.create_task(post(live))
        await live.executor.running.wait()
        refused = await post(live)
        assert error(refused, 503)
        assert int(refused.headers["retry-after"]) >= 1
        live.executor.gate.set()
        assert (await first).status_code == 200


async def test_a_connection_too_many_is_503_in_the_form_of_the_protocol(serve):
    async with serve(max_connections=1) as live:
        assert (await live.http.get("/v2/health/live")).status_code == 200  # and stays open
        status, lines, body = await exchange(live, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (status, lines["content-type"]) == (503, "application/json")
        assert "connections are open" in json.loads(body)["error"]


# Statistics.


async def test_statistics_are_those_of_all_requests(serve):
    async with serve(FakeExecutor(crash_at={"doomed"})) as live:
        before = (await live.http.get("/v2/models/street/stats")).json()["model_stats"][0]
        assert (before["inference_count"], before["last_inference"]) == (0, 0)
        assert (await post(live)).status_code == 200
        lines = {"Content-Type": "image/jpeg"}
        url = "/v1/models/street/predict"
        assert (await live.http.post(url, content=image_file(), headers=lines)).status_code == 200
        error(await post(live, parameters={"timeout": 1000}), 504)
        error(await post(live, headers={"X-Request-Id": "doomed"}), 500)
        while (await live.http.get("/v2/health/ready")).status_code != 200:
            await asyncio.sleep(0.001)
        (stats,) = (await live.http.get("/v2/models/street/stats")).json()["model_stats"]
        assert stats["inference_count"] == stats["execution_count"] == 2
        assert stats["last_inference"] > 1.7e12
        parts = stats["inference_stats"]
        assert (parts["success"]["count"], parts["fail"]["count"]) == (2, 2)
        assert parts["queue"]["count"] == 3
        assert parts["compute_infer"]["ns"] == pytest.approx(2 * 90e6)
        assert parts["compute_input"]["ns"] > 0
        assert parts["compute_output"]["count"] == 2
        assert parts["compute_output"]["ns"] > 2 * 1e5  # rendering, as the fake says it
        assert parts["cache_hit"] == {"count": 0, "ns": 0}
        (batch,) = stats["batch_stats"]
        assert batch["batch_size"] == 1
        assert batch["compute_infer"] == parts["compute_infer"]
        everything = (await live.http.get("/v2/models/stats")).json()["model_stats"]
        assert [model["name"] for model in everything] == ["street", "pose"]
        assert everything[0] == stats


# As tritonclient writes it.


async def exchange(live, request):
    """Writes bytes, and reads one response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    writer.write(request)
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
        body = await reader.readexactly(int(lines["content-length"]))
    writer.close()
    return int(head.split()[1]), {name.lower(): value for name, value in lines.items()}, body


async def test_the_bytes_of_tritons_sync_client_are_understood(live):
    status, lines, body = await exchange(live, wire.SYNC_PIXELS)
    assert status == 200
    assert "content-encoding" not in lines
    message, outputs = read_response(body, lines["inference-header-content-length"])
    assert message["id"] == "r1"
    assert message["parameters"]["exit"] == 3
    assert lines["x-deadline-applied-ms"] == "5000"
    np.testing.assert_array_equal(outputs["map"], [[[0, 0], [3, 3]]])
    image = live.executor.commands[-1].image
    np.testing.assert_array_equal(image, np.arange(12).reshape(2, 2, 3))


async def test_the_bytes_of_tritons_asynchronous_client_are_understood(live):
    status, lines, body = await exchange(live, wire.async_file(image_file()))
    assert status == 200
    assert lines["content-encoding"] == "gzip"
    unpacked = gzip.decompress(body)
    _, outputs = read_response(unpacked, lines["inference-header-content-length"])
    assert list(outputs) == ["map", "confidence"]
    assert outputs["map"].shape == (1, *SIZE)


async def test_the_fixture_says_its_own_lengths_rightly():
    head, body = wire.SYNC_PIXELS.split(b"\r\n\r\n", 1)
    lines = dict(line.split(b": ") for line in head.split(b"\r\n")[1:])
    assert int(lines[b"Content-Length"]) == len(body)
    json.loads(body[: int(lines[b"Inference-Header-Content-Length"])])
