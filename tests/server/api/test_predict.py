"""`POST /v1/models/{model}/predict` over real sockets, with a fake executor behind."""

import asyncio
import errno
import io
import json
import socket
import struct
import tempfile
import zlib

import numpy as np
import pytest
from PIL import Image

from anytime_protocol.arrays import rle
from anytime_protocol.enums import ErrorCode, Reason
from anytime_protocol.http.headers import ResultHeader, UpdateHeader, parse_timing
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import Role, parse
from anytime_server import images
from server import hostile_files
from server.factories import SIZE, damaged_image_file, image_file
from server.fakes import FakeExecutor

URL = "/v1/models/street/predict"
JPEG = {"Content-Type": "image/jpeg"}


async def post(live, accept="*/*", url=URL, content=None, **headers):
    lines = JPEG | {"Accept": accept} | {k.replace("_", "-"): v for k, v in headers.items()}
    return await live.http.post(
        url, content=image_file() if content is None else content, headers=lines
    )


def head(length, accept="*/*"):
    """A request as it stands on the wire, its body still to come."""
    return (
        f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def problem(response, code):
    assert response.headers["content-type"] == "application/problem+json"
    found = Problem.parse(response.text)
    assert found.code is code
    assert response.status_code == found.status
    return found


async def test_a_jpeg_becomes_an_indexed_png_of_its_size(live):
    response = await post(live, "image/png", X_Request_Id="frame-1", X_Deadline_Ms="9000")
    assert response.status_code == 200
    image = Image.open(io.BytesIO(response.content))
    assert image.mode == "P"
    assert response.content[24] == 8  # bits a pixel
    assert image.size == SIZE[::-1]
    assert set(np.unique(np.asarray(image))) == {0, 4}
    assert image.getpalette()[4 * 3 : 5 * 3] == [160, 255 - 160, 7]
    assert response.headers["x-request-id"] == "frame-1"
    assert response.headers["x-deadline-applied-ms"] == "9000"
    result = ResultHeader.parse(response.headers["anytime-result"])
    assert (result.exit, result.exits, result.reason) == (4, 4, Reason.COMPLETE)
    assert result.gmacs == 10.0
    timing = parse_timing(response.headers["server-timing"])
    assert list(timing) == ["queue", "decode", "compute", "encode", "total"]
    assert timing["compute"] == pytest.approx(90.0)


async def test_png_is_the_default_for_maps_and_json_for_poses(live):
    assert (await post(live)).headers["content-type"] == "image/png"
    response = await post(live, url="/v1/models/pose/predict")
    assert response.headers["content-type"] == "application/json"
    assert response.json()["keypoints"] == [[1.5, 2.5, 0.25], [3, 4, 0.5], [5, 6, 1.0]]


async def test_a_risk_that_is_allowed_is_answered_with_the_risk_that_was_taken(live):
    for query, risk in (("", None), ("?max_risk=0.05", 0.02), ("?max_risk=0", 0.0)):
        body = (await post(live, "application/json", url=f"{URL}{query}")).json()
        assert body.get("risk") == risk
        result = (await post(live, "image/png", url=f"{URL}{query}")).headers["anytime-result"]
        assert ResultHeader.parse(result).risk == risk


async def test_json_holds_the_final_message_and_the_map_as_run_lengths(live):
    body = (await post(live, "application/json", url=f"{URL}?scale=0.5&max_exit=3")).json()
    height, width = SIZE[0] // 2, SIZE[1] // 2
    array = rle.decode(json.dumps(body["segments"]).encode(), (height, width))
    assert array == bytes(width) + bytes([3]) * (height - 1) * width
    assert (body["width"], body["height"]) == SIZE[::-1]
    message = {k: v for k, v in body.items() if k not in {"width", "height", "segments"}}
    final = parse(message, b"", Role.SERVER)
    assert (final.exit, final.reason) == (3, Reason.BUDGET)


async def test_npy_is_a_numpy_file(live):
    response = await post(live, "application/x-npy")
    array = np.load(io.BytesIO(response.content), allow_pickle=False)
    assert array.dtype == np.uint8
    assert array.shape == SIZE
    response = await post(live, "application/x-npy", url="/v1/models/pose/predict")
    array = np.load(io.BytesIO(response.content), allow_pickle=False)
    assert array.dtype == np.float32
    assert array.shape == (3, 3)


async def test_a_form_carries_image_budget_and_wishes(live):
    files = {"image": ("a.webp", image_file("WEBP"), "image/webp")}
    data = {"budget": '{"max_exit": 2}', "want": '{"scale": 0.25}'}
    response = await live.http.post(URL, files=files, data=data, headers={"Accept": "image/png"})
    assert response.status_code == 200
    assert ResultHeader.parse(response.headers["anytime-result"]).exit == 2
    assert Image.open(io.BytesIO(response.content)).size == (SIZE[1] // 4, SIZE[0] // 4)


async def test_a_large_form_is_kept_in_memory_and_off_the_disk(live, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", no_disk)
    files = {"image": ("a.jpg", image_file() + bytes(3_000_000), "image/jpeg")}
    response = await live.http.post(URL, files=files, headers={"Accept": "image/png"})
    assert response.status_code == 200


def no_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_the_tightest_of_query_and_form_holds(live):
    files = {"image": ("a.jpg", image_file(), "image/jpeg")}
    data = {"budget": '{"max_exit": 3, "deadline_ms": 5000}'}
    response = await live.http.post(f"{URL}?max_exit=1", files=files, data=data)
    assert ResultHeader.parse(response.headers["anytime-result"]).exit == 1
    assert response.headers["x-deadline-applied-ms"] == "5000"


@pytest.mark.parametrize(
    ("headers", "applied"),
    [
        ({"X_Deadline_Ms": "812.5"}, "812.5"),
        ({"grpc_timeout": "900m"}, "900"),
        ({"Connect_Timeout_Ms": "700"}, "700"),
        ({"x_envoy_expected_rq_timeout_ms": "600"}, "600"),
        ({"Prefer": "wait=3"}, "3000"),
        ({"X_Deadline_Ms": "5000", "grpc_timeout": "4S", "Prefer": "wait=9"}, "4000"),
    ],
)
async def test_every_deadline_header_is_understood_and_echoed(live, headers, applied):
    response = await post(live, **headers)
    assert response.status_code == 200
    assert response.headers["x-deadline-applied-ms"] == applied
    if "Prefer" in headers:
        assert response.headers["preference-applied"] == headers["Prefer"]


@pytest.mark.parametrize(("own", "applied"), [("9000", "2000"), ("1500", "1500"), (None, "2000")])
async def test_the_tightest_of_the_clients_and_the_operators_deadline_is_echoed(live, own, applied):
    await live.http.put("/v1/budget", json={"budget": {"deadline_ms": 2000}})
    response = await post(live, **({} if own is None else {"X_Deadline_Ms": own}))
    assert response.headers["x-deadline-applied-ms"] == applied


async def test_a_soft_deadline_still_gets_exit_1(live):
    response = await post(live, Prefer="wait=0")
    result = ResultHeader.parse(response.headers["anytime-result"])
    assert (result.exit, result.reason) == (1, Reason.DEADLINE)


async def test_a_hard_deadline_that_nobody_could_meet_is_504(live):
    found = problem(await post(live, X_Deadline_Ms="1"), ErrorCode.DEADLINE_EXCEEDED)
    assert "too late" in found.detail
    assert found.needed_ms > 1
    again = await post(live, X_Deadline_Ms=f"{10 * found.needed_ms:.0f}")
    assert again.status_code == 200


async def test_a_deadline_that_passes_meanwhile_is_answered_with_what_there_is(live):
    live.executor.on_stage = lambda job, stage: live.executor.gate.clear() if stage == 3 else None
    response = await post(live, X_Deadline_Ms="400")
    result = ResultHeader.parse(response.headers["anytime-result"])
    assert (result.exit, result.reason) == (2, Reason.DEADLINE)
    assert parse_timing(response.headers["server-timing"])["total"] < 450


# Progressive answers.


async def test_server_sent_events_tell_the_whole_story(live):
    response = await post(live, "text/event-stream", url=f"{URL}?encoding=delta&confidence=true")
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in response.text.strip().split("\n\n")]
    names = [lines[0].removeprefix("event: ") for lines in events]
    assert (names[0], names[-1], set(names[1:-1])) == ("accepted", "final", {"update"})
    for name, (_, data) in zip(names, events, strict=True):
        assert json.loads(data.removeprefix("data: "))["type"] == name
    updates = [json.loads(data.removeprefix("data: ")) for _, data in events[1:-1]]
    assert updates[-1]["exit"] == 4
    assert sum(1 + update["skipped"] for update in updates) == 4
    assert [part["name"] for part in updates[0]["parts"]] == ["map", "confidence"]


async def test_ndjson_has_one_message_a_line(live):
    response = await post(live, "application/x-ndjson", url=f"{URL}?progress=false")
    kinds = [json.loads(line)["type"] for line in response.text.splitlines()]
    assert kinds == ["accepted", "update", "final"]


def split_parts(response):
    boundary = response.headers["content-type"].partition("boundary=")[2].encode()
    pieces = response.content.split(b"--" + boundary)
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n"
    parts = []
    for piece in pieces[1:-1]:
        head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        assert int(lines["Content-Length"]) == len(body.removesuffix(b"\r\n"))
        parts.append((lines, body.removesuffix(b"\r\n")))
    return parts


async def test_multipart_mixed_ends_with_the_final_message(live):
    parts = split_parts(await post(live, "multipart/mixed"))
    kinds = [lines["Content-Type"] for lines, _ in parts]
    assert kinds == ["image/png"] * (len(parts) - 1) + ["application/json"]
    shown = [UpdateHeader.parse(lines["Anytime-Update"]) for lines, _ in parts[:-1]]
    assert shown[-1].exit == 4
    assert sum(1 + update.skipped for update in shown) == 4
    assert json.loads(parts[-1][1])["reason"] == "complete"


async def test_multipart_mixed_of_a_pose_is_json_throughout(live):
    parts = split_parts(await post(live, "multipart/mixed", url="/v1/models/pose/predict"))
    assert {lines["Content-Type"] for lines, _ in parts} == {"application/json"}
    assert json.loads(parts[0][1])["keypoints"]


async def test_x_mixed_replace_has_nothing_but_maps(live):
    parts = split_parts(await post(live, "multipart/x-mixed-replace"))
    assert {lines["Content-Type"] for lines, _ in parts} == {"image/png"}
    assert UpdateHeader.parse(parts[-1][0]["Anytime-Update"]).exit == 4
    sizes = {Image.open(io.BytesIO(body)).size for _, body in parts}
    assert sizes == {SIZE[::-1]}


async def test_errors_before_the_first_map_of_x_mixed_replace_are_problems(live):
    response = await post(live, "multipart/x-mixed-replace", content=image_file()[:-200])
    problem(response, ErrorCode.BAD_IMAGE)


async def test_an_error_after_admission_ends_a_stream_with_an_error_event(live):
    response = await post(live, "text/event-stream", content=damaged_image_file())
    assert response.status_code == 200
    assert '"code":"bad-image"' in response.text.split("event: error\n")[1]


async def test_priority_i_chooses_a_progressive_form_among_equals(live):
    accept = "image/png, text/event-stream"
    assert (await post(live, accept)).headers["content-type"] == "image/png"
    response = await post(live, accept, Priority="u=1, i")
    assert response.headers["content-type"].startswith("text/event-stream")


# Cancelling.


async def test_a_client_that_goes_away_cancels_its_request(live):
    live.executor.gate.clear()
    for accept in ("image/png", "text/event-stream", "multipart/x-mixed-replace"):
        _, writer = await asyncio.open_connection("127.0.0.1", live.port)
        body = image_file()
        writer.write(head(len(body), accept) + body)
        await live.executor.running.wait()
        writer.close()
        async with asyncio.timeout(5):
            while live.state.engine.server_budget().in_flight:
                await asyncio.sleep(0.001)
    text = (await live.http.get("/metrics")).text
    assert 'outcome="499",transport="http"} 3.0' in text


async def test_delete_cancels_and_the_request_gets_what_there_is(live):
    live.executor.on_stage = lambda job, stage: live.executor.gate.clear() if stage == 3 else None
    asking = asyncio.create_task(post(live, X_Request_Id="long"))
    while ("run", "long", 3) not in live.executor.log:
        await asyncio.sleep(0.001)
    assert (await live.http.delete("/v1/requests/long")).status_code == 204
    response = await asking
    assert response.status_code == 200
    assert ResultHeader.parse(response.headers["anytime-result"]).reason is Reason.CANCELLED
    assert (await live.http.delete("/v1/requests/long")).status_code == 204


async def test_delete_before_exit_1_is_409(live):
    live.executor.gate.clear()
    asking = asyncio.create_task(post(live, X_Request_Id="long"))
    await live.executor.running.wait()
    await live.http.delete("/v1/requests/long")
    problem(await asking, ErrorCode.CANCELLED)


# Bad input.


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"X_Deadline_Ms": "-5"}, ErrorCode.BAD_REQUEST, "X-Deadline-Ms"),
        ({"X_Deadline_Ms": "nan"}, ErrorCode.BAD_REQUEST, "X-Deadline-Ms"),
        ({"grpc_timeout": "80"}, ErrorCode.BAD_REQUEST, "grpc-timeout"),
        ({"X_Request_Id": "a/b"}, ErrorCode.BAD_REQUEST, "X-Request-Id"),
        ({"url": f"{URL}?max_exit=0"}, ErrorCode.BAD_BUDGET, "query.max_exit"),
        ({"url": f"{URL}?deadline_ms=NaN"}, ErrorCode.BAD_BUDGET, "query.deadline_ms"),
        ({"url": f"{URL}?deadline_ms=-1"}, ErrorCode.BAD_BUDGET, "query.deadline_ms"),
        ({"url": f"{URL}?deadlin_ms=1"}, ErrorCode.BAD_MESSAGE, "query.deadlin_ms"),
        ({"url": f"{URL}?scale=0.3"}, ErrorCode.BAD_MESSAGE, "query.scale"),
        ({"accept": "text/html"}, ErrorCode.NOT_ACCEPTABLE, "Accept"),
        ({"accept": "image/png;q=0"}, ErrorCode.NOT_ACCEPTABLE, "Accept"),
        ({"Content_Type": "image/gif"}, ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Content-Type"),
        ({"Content_Type": ""}, ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Content-Type"),
        ({"url": "/v1/models/nobody/predict"}, ErrorCode.UNKNOWN_MODEL, None),
        ({"content": b""}, ErrorCode.BAD_IMAGE, None),
        ({"content": b"not an image"}, ErrorCode.BAD_IMAGE, None),
        ({"content": image_file()[:200]}, ErrorCode.BAD_IMAGE, None),
        ({"content": image_file()[:-300]}, ErrorCode.BAD_IMAGE, None),
        ({"url": f"{URL}?compute_gmacs=0.5"}, ErrorCode.BUDGET_TOO_SMALL, None),
    ],
)
async def test_bad_input_has_one_answer_and_the_server_stays_well(live, change, code, field):
    found = problem(await post(live, **change), code)
    assert (found.field or "").lower() == (field or "").lower()
    assert (await post(live)).status_code == 200


async def test_a_pose_has_no_indexed_png(live):
    for accept in ("image/png", "multipart/x-mixed-replace"):
        response = await post(live, accept, url="/v1/models/pose/predict")
        problem(response, ErrorCode.NOT_ACCEPTABLE)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """A PNG that says a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(20_000, 20_000), (65_000, 65_000), (2049, 2048)])
async def test_too_many_pixels_are_refused_from_the_header_alone(live, size):
    content = bomb(*size)
    response = await post(live, content=content, Content_Type="image/png")
    problem(response, ErrorCode.TOO_MANY_PIXELS)
    assert live.executor.log == []


async def test_one_pixel_is_an_image(live):
    response = await post(live, content=image_file("PNG", (1, 1)), Content_Type="image/png")
    assert Image.open(io.BytesIO(response.content)).size == (1, 1)


async def test_a_mislabelled_image_counts_as_what_it_is(live):
    response = await post(live, content=image_file("WEBP"), Content_Type="image/png")
    assert response.status_code == 200


@pytest.mark.parametrize("length", [2049, 900000])
async def test_a_body_that_is_too_large_is_refused_before_it_is_read(serve, length):
    async with serve(max_body_bytes=2048) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(head(length))
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"}")
        assert b" 413 " in answer.split(b"\r\n")[0]
        assert b"too-large" in answer
        writer.close()


async def test_a_body_without_a_length_is_refused_when_it_has_become_too_large(serve):
    async def pieces():
        for _ in range(100):
            yield bytes(1024)

    async with serve(max_body_bytes=2048) as live:
        response = await live.http.post(URL, content=pieces(), headers=JPEG)
        problem(response, ErrorCode.TOO_LARGE)


async def test_a_body_that_does_not_come_is_given_up(serve):
    async with serve(upload_timeout_s=0.05) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(head(900))
        async with asyncio.timeout(5):
            status = await reader.readline()
        assert b" 400 " in status
        writer.close()


@pytest.mark.parametrize(
    ("values", "media_type"),
    [
        ([], "image/png"),
        ([""], "image/png"),
        ([","], "image/png"),
        (["text/html", "application/json"], "application/json"),
    ],
)
async def test_an_empty_accept_is_as_none_and_several_are_one_list(live, values, media_type):
    lines = [*JPEG.items(), *(("Accept", value) for value in values)]
    request = live.http.build_request("POST", URL, content=image_file(), headers=lines)
    if not values:
        del request.headers["accept"]
    response = await live.http.send(request)
    assert response.headers["content-type"] == media_type


async def test_a_request_has_one_id(live):
    lines = [*JPEG.items(), ("X-Request-Id", "a"), ("X-Request-Id", "b")]
    response = await live.http.post(URL, content=image_file(), headers=lines)
    assert problem(response, ErrorCode.BAD_REQUEST).field == "X-Request-Id"


async def test_the_id_of_a_request_that_runs_is_taken(live):
    live.executor.gate.clear()
    first = asyncio.create_task(post(live, X_Request_Id="same"))
    await live.executor.running.wait()
    problem(await post(live, X_Request_Id="same"), ErrorCode.DUPLICATE_ID)
    live.executor.gate.set()
    assert (await first).status_code == 200
    assert (await post(live, X_Request_Id="same")).status_code == 200


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        ({"budget": '{"max_exit": 0}'}, ErrorCode.BAD_BUDGET, "budget.max_exit"),
        ({"budget": "[]"}, ErrorCode.BAD_MESSAGE, "form.budget"),
        ({"budget": '{"deadline_ms": NaN}'}, ErrorCode.BAD_MESSAGE, "form.budget"),
        ({"want": '{"sclae": 1}'}, ErrorCode.BAD_MESSAGE, "want.sclae"),
        ({"want": '{"scale": 1}'}, ErrorCode.BAD_MESSAGE, "want.scale"),
        ({"other": "1"}, ErrorCode.BAD_MESSAGE, "form.other"),
    ],
)
async def test_a_malformed_form_names_the_field(live, data, code, field):
    files = {"image": ("a.jpg", image_file(), "image/jpeg")}
    response = await live.http.post(f"{URL}?scale=0.5", files=files, data=data)
    assert problem(response, code).field == field


async def test_a_form_without_an_image_is_a_bad_image(live):
    response = await live.http.post(URL, files={"budget": (None, "{}")})
    problem(response, ErrorCode.BAD_IMAGE)


@pytest.mark.parametrize(
    "flood",
    [
        hostile_files.with_scans(60_000),
        hostile_files.with_segments(500_000),
        hostile_files.png(before=hostile_files.chunk(b"abCd") * 200_000),
    ],
    ids=["scans", "segments", "chunks"],
)
async def test_a_flood_is_refused_and_another_request_is_answered_meanwhile(live, flood):
    refused, good = await asyncio.gather(post(live, content=flood), post(live))
    assert "at most" in problem(refused, ErrorCode.BAD_IMAGE).detail
    assert good.status_code == 200


IMAGE_PART = ("image", ("a.jpg", image_file(), "image/jpeg"))


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([IMAGE_PART, IMAGE_PART], "form.image"),
        ([("budget", (None, '{"max_exit": 1}')), ("budget", (None, "{}"))], "form.budget"),
        ([("want", (None, "{}"))] * 2, "form.want"),
        ([("budget", (None, "{}")), ("budget", ("b.json", "{}"))], "form.budget"),
    ],
)
async def test_a_form_with_a_part_twice_is_refused(live, parts, field):
    found = problem(await live.http.post(URL, files=[IMAGE_PART, *parts]), ErrorCode.BAD_MESSAGE)
    assert found.field == field
    assert "twice" in found.detail


async def test_a_form_of_very_many_parts_is_refused(live):
    parts = [IMAGE_PART, *[("want", (None, "{}"))] * 1000]
    problem(await live.http.post(URL, files=parts), ErrorCode.BAD_MESSAGE)


async def test_a_budget_that_is_a_file_is_told_apart(live):
    parts = [IMAGE_PART, ("budget", ("b.json", "{}"))]
    found = problem(await live.http.post(URL, files=parts), ErrorCode.BAD_MESSAGE)
    assert found.field == "form.budget"
    assert "file name" in found.detail


async def test_a_form_that_is_none_is_malformed(live):
    lines = {"Content-Type": "multipart/form-data; boundary=x"}
    response = await live.http.post(URL, content=b"nonsense", headers=lines)
    problem(response, ErrorCode.BAD_MESSAGE)


# Overload and trouble inside.


async def test_a_full_house_answers_503_with_retry_after(serve):
    async with serve(max_requests=1) as live:
        live.executor.gate.clear()
        first = asyncio.create_task(post(live))
        await live.executor.running.wait()
        response = await post(live)
        found = problem(response, ErrorCode.OVERLOADED)
        assert int(response.headers["retry-after"]) >= 1
        assert found.retry_after_ms is not None
        live.executor.gate.set()
        assert (await first).status_code == 200


async def test_too_many_pixels_in_the_house_are_503(serve):
    async with serve(max_pixels_in_flight=SIZE[0] * SIZE[1] + 1) as live:
        live.executor.gate.clear()
        first = asyncio.create_task(post(live))
        await live.executor.running.wait()
        problem(await post(live), ErrorCode.OVERLOADED)
        live.executor.gate.set()
        assert (await first).status_code == 200


async def test_of_many_that_come_at_once_only_the_served_one_is_decoded(serve, monkeypatch):
    decoded, decode = [], images.decode

    def note(data, *rest):
        decoded.append(data)
        return decode(data, *rest)

    async with serve(max_pixels_in_flight=SIZE[0] * SIZE[1]) as live:
        monkeypatch.setattr(images, "decode", note)
        live.executor.gate.clear()
        answers = []
        for answer in asyncio.as_completed([post(live) for _ in range(8)]):
            if len(answers) == 7:
                live.executor.gate.set()
            answers.append(await answer)
        assert sorted(answer.status_code for answer in answers) == [200] + [503] * 7
        assert len(decoded) == 1


async def test_a_crash_of_the_executor_is_500_and_the_next_request_is_answered(serve):
    async with serve(FakeExecutor(crash_at={"doomed"})) as live:
        problem(await post(live, X_Request_Id="doomed"), ErrorCode.INTERNAL)
        while (await live.http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.001)
        assert (await post(live)).status_code == 200


async def test_an_unread_body_does_not_poison_the_connection(live):
    for _ in range(3):
        problem(await post(live, url="/v1/models/nobody/predict"), ErrorCode.UNKNOWN_MODEL)
    assert (await post(live)).status_code == 200


async def test_a_reset_connection_is_no_error(live):
    live.executor.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", live.port)
    body = image_file()
    writer.write(head(len(body)) + body)
    await live.executor.running.wait()
    link = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    async with asyncio.timeout(5):
        while live.state.engine.server_budget().in_flight:
            await asyncio.sleep(0.001)
