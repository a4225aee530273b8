"""Every fenced example of docs/PROTOCOL.md is read by the code that it describes.

A fence's info string says what the example is; an unknown one fails, so that no example can be
added without being checked.
"""

from __future__ import annotations

import ast
import json
import re
import struct
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

from anytime_protocol import codec
from anytime_protocol.arrays import delta, rle
from anytime_protocol.budget import LIMITS, MAX_MS, MAX_SCHEDULE, Budget
from anytime_protocol.codec import FrameLimits
from anytime_protocol.enums import (
    PROTOCOL,
    ArrayName,
    CloseCode,
    CloseReason,
    Effect,
    Encoding,
    ErrorCode,
    Reason,
    RequestState,
    ScheduleClock,
)
from anytime_protocol.errors import FieldError
from anytime_protocol.http import headers
from anytime_protocol.http.headers import Priority, ResultHeader, UpdateHeader
from anytime_protocol.http.problems import Problem
from anytime_protocol.http.query import read_query
from anytime_protocol.messages import TYPES, Cancel, Finished, OutputOptions, Role, parse
from anytime_protocol.model_info import MAX_EXITS
from anytime_protocol.resources import (
    BudgetPatch,
    LoadCap,
    RequestStatus,
    ServerBudget,
    ServerBudgetChange,
    ServerBudgetStatus,
)
from anytime_protocol.session import Session
from anytime_protocol.validation import JsonObject, JsonValue
from anytime_server.api.v2 import tensors
from anytime_server.api.v2.messages import ErrorBody, InferenceResponse

DOCUMENT = Path(__file__).parents[2] / "docs" / "PROTOCOL.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
FENCE = re.compile(r"^( *)```([^\n]+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    (match[2].strip(), re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE))
    for match in FENCE.finditer(TEXT)
]


def _examples(info: str) -> list[str]:
    return [text for label, text in EXAMPLES if label == info]


def _json(text: str) -> JsonObject:
    return codec.load_json(text)


def check_message(text: str, sender: Role, kind: str) -> None:
    header, payload = codec.decode_text(text, FrameLimits())
    message = parse(header, payload, sender)
    assert kind == message.type
    assert json.loads(json.dumps(message.to_json())) == header


def check_budget(text: str) -> None:
    assert Budget.from_json(_json(text)).to_json() == _json(text)


def check_want(text: str) -> None:
    assert OutputOptions.from_json(_json(text)).to_json() == _json(text)


def check_problem(text: str) -> None:
    assert Problem.parse(text).to_json() == _json(text)


def check_segments(text: str) -> None:
    grid = re.search(r"The map\n\n```text\n([0-9 \n]+)```", TEXT)
    assert grid is not None
    rows = [[int(pixel) for pixel in row.split()] for row in grid[1].splitlines()]
    array, shape = bytes(pixel for row in rows for pixel in row), (len(rows), len(rows[0]))
    assert rle.encode(array, shape) == json.loads(text)
    assert rle.decode(text.encode(), shape) == array


def check_prediction(text: str) -> None:
    answer = _json(text)
    final = Finished.from_json(answer, ignore_unknown=True)
    assert final.to_json().items() <= answer.items()
    shape = (answer["height"], answer["width"])
    assert len(rle.decode(json.dumps(answer["segments"]).encode(), shape)) == 12


def check_resource(body: type[JsonValue]) -> Callable[[str], None]:
    """The example is read strictly by its class, and written as it stands there."""

    def check(text: str) -> None:
        assert body.from_json(_json(text)).to_json() == _json(text)

    return check


def check_http(text: str) -> None:
    """Every header of the protocol is read by its reader, and the query by its own."""
    lines = text.splitlines()
    target = re.match(r"(?:GET|POST) \S+?(?:\?(\S+))? HTTP/1\.1", lines[0])
    if target is not None and target[1]:
        pairs = [tuple(pair.split("=")) for pair in target[1].split("&")]
        assert read_query((name, value) for name, value in pairs) != read_query([])
    pairs = [tuple(line.split(": ", 1)) for line in lines if ": " in line]
    known = 0
    for name, value in pairs:
        match name:
            case "Anytime-ResultHeader":
                assert str(ResultHeader.parse(value)) == value
            case "Anytime-Update":
                assert str(UpdateHeader.parse(value)) == value
            case "Server-Timing":
                assert headers.format_timing(headers.parse_timing(value)) == value
            case "Priority":
                assert str(Priority.parse(value)) == value
            case "Sec-WebSocket-Protocol":
                assert headers.read_token([(name, value)]) == "secret"
            case "X-Deadline-Applied-Ms":
                assert headers.format_ms(float(value)) == value
            case _ if headers.read_deadline([(name, value)]).applied_ms is not None:
                pass
            case _:
                continue
        known += 1
    assert known


def check_events(text: str) -> None:
    """The stream is a legal conversation about one request."""
    kinds = []
    for event in text.strip().split("\n\n"):
        name, data = event.splitlines()
        check_message(data.removeprefix("data: "), Role.SERVER, name.removeprefix("event: "))
        kinds.append(name.removeprefix("event: "))
    client = Session(Role.CLIENT)
    client.receive(_examples("json server ready")[0])
    header, payload = codec.decode_text(_examples("json client infer")[0], FrameLimits())
    client.send(parse(header | {"id": "frame-0017"}, payload, Role.CLIENT))
    for line in text.splitlines():
        if line.startswith("data: "):
            client.receive(line.removeprefix("data: "))
    assert client.closed is None
    assert client.in_flight == ()
    assert kinds[-1] == "final"


def check_cancel_frame(text: str) -> None:
    kind, header, payload = codec.decode_binary(bytes.fromhex(text), FrameLimits())
    assert parse(header, payload, Role.CLIENT) == Cancel("r1")
    assert codec.encode_binary(kind, header) == bytes.fromhex(text)


def check_delta(text: str) -> None:
    base, result = (
        bytes.fromhex(_examples(info)[0]) for info in ("hex delta-base", "hex delta-result")
    )
    assert delta.encode(base, result) == bytes.fromhex(text)
    assert delta.apply(base, bytes.fromhex(text)) == result


def check_bytes(text: str) -> None:
    assert len(bytes.fromhex(text)) == 12


def check_client(text: str, more: str = "json") -> None:
    """Sixty lines on `websockets`; that it works is shown against a real server."""
    assert len(text.splitlines()) <= 60
    module = ast.parse(text)
    imported = {
        name.split(".")[0]
        for node in ast.walk(module)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [item.name for item in node.names]
        )
    }
    assert imported == {"json", "struct", "sys", "collections", "pathlib", "websockets", more}
    module.body = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    namespace: dict[str, Callable[..., bytes]] = {"struct": struct}  # type: ignore[dict-item]
    exec(compile(module, "client", "exec"), namespace)
    base, new = b"abcdefgh", b"abXdefYZ"
    assert namespace["patch"](base, delta.encode(base, new)) == new


def check_inference_request(text: str) -> None:
    """With as many bytes behind it as it says, it is an image of 1x2 px."""
    body, sizes = text.encode(), re.findall(r'"binary_data_size": (\d+)', text)
    binary = bytes(int(sizes[0])) if sizes else b""
    read = tensors.read_body(body + binary, len(body) if sizes else None, 4096)
    assert tensors.read_image(read).shape == (1, 2, 3)  # type: ignore[union-attr]
    assert [output.name for output in read.request.outputs] == ["map"]


def check_inference_error(text: str) -> None:
    body = b'{"inputs": [{"name": "pixels", "shape": [2, 2], "datatype": "UINT8", "data": [0]}]}'
    with pytest.raises(FieldError) as raised:
        tensors.read_image(tensors.read_body(body, None, 4096))
    expected = f"{raised.value.code.summary}: {raised.value}"
    assert ErrorBody.from_json(_json(text)).error == expected


def check_grid(text: str) -> None:
    assert text.strip()


CHECKS: dict[str, Callable[[str], None]] = {
    "json budget": check_budget,
    "json want": check_want,
    "json problem": check_problem,
    "json segments": check_segments,
    "json prediction": check_prediction,
    "json request-status": check_resource(RequestStatus),
    "json patch": check_resource(BudgetPatch),
    "json server-budget": check_resource(ServerBudgetStatus),
    "json put-budget": check_resource(ServerBudgetChange),
    "json inference-request": check_inference_request,
    "json inference-response": check_resource(InferenceResponse),
    "json inference-error": check_inference_error,
    "http request": check_http,
    "http response": check_http,
    "http part": check_http,
    "sse": check_events,
    "hex cancel": check_cancel_frame,
    "hex delta": check_delta,
    "hex delta-base": check_bytes,
    "hex delta-result": check_bytes,
    "python client": check_client,
    "python stream-client": partial(check_client, more="time"),
    "text": check_grid,
}


@pytest.mark.parametrize(
    ("info", "text"), EXAMPLES, ids=[f"{n}-{info}" for n, (info, _) in enumerate(EXAMPLES)]
)
def test_every_example_is_what_it_says(info: str, text: str) -> None:
    match info.split():
        case ["json", ("client" | "server") as sender, kind]:
            check_message(text, Role(sender), kind)
        case _:
            CHECKS[info](text)


def test_no_fence_is_overlooked() -> None:
    assert TEXT.count("```") == 2 * len(EXAMPLES)


def test_every_message_has_an_example() -> None:
    shown = {info for info, _ in EXAMPLES}
    for sender, kinds in TYPES.items():
        for kind in kinds:
            assert f"json {sender} {kind}" in shown


def test_every_word_of_the_enumerations_is_explained() -> None:
    words = [
        *Reason,
        *CloseReason,
        *Encoding,
        *Effect,
        *ArrayName,
        *ErrorCode,
        *RequestState,
        *ScheduleClock,
    ]
    assert [word for word in [*words, PROTOCOL] if f"`{word}`" not in TEXT] == []


def test_every_field_of_the_servers_own_budget_is_explained() -> None:
    names = [field.name for kind in (ServerBudget, LoadCap) for field in fields(kind)]
    names += [field.name for field in fields(ServerBudgetStatus)]
    section = TEXT[TEXT.index("### The server's own budget") : TEXT.index("### Models, health")]
    own = [name for name in names if name not in LIMITS]
    assert [name for name in own if f"`{name}`" not in section and f'"{name}"' not in section] == []


def test_every_close_code_is_explained_and_no_other() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d{4}) \|", TEXT, re.MULTILINE)}
    assert listed == {int(code) for code in CloseCode}


def test_the_table_of_error_codes_has_their_statuses() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", TEXT, re.MULTILINE)
    assert dict(rows) == {str(code): str(code.status) for code in ErrorCode}


def test_statuses_in_the_text_are_those_of_their_codes() -> None:
    for status, code in re.findall(r"(\d{3}) `([a-z-]+)`", TEXT):
        assert ErrorCode(code).status == int(status)


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    assert f"0 to {MAX_MS:.0f}" in TEXT
    assert f"at most {MAX_SCHEDULE} entries" in TEXT
    assert f"1 to {MAX_EXITS}" in TEXT


def test_every_link_within_the_document_leads_somewhere() -> None:
    titles = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
