"""Frames, headers and queries from a stranger: only the documented errors."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_protocol.budget import Budget
from anytime_protocol.codec import (
    FrameKind,
    FrameLimits,
    decode_binary,
    decode_text,
    encode_binary,
    encode_text,
)
from anytime_protocol.enums import Task
from anytime_protocol.errors import FieldError, FrameError, HeaderError, ProtocolError
from anytime_protocol.http import headers
from anytime_protocol.http.problems import Problem
from anytime_protocol.http.query import read_query
from anytime_protocol.messages import (
    Frame,
    Infer,
    OpenStream,
    OutputOptions,
    ReuseOptions,
    Role,
    parse,
)
from anytime_protocol.session import Session
from anytime_server.api.formats import negotiate
from anytime_server.api.v2.compression import Coding, accepted_coding, coding_of, decompress
from anytime_server.api.v2.tensors import read_body, read_image
from anytime_server.errors import RefusedError
from fuzz.mutations import damaged

LIMITS = FrameLimits(json_bytes=4096, payload_bytes=4096)
INFER = Infer(
    "r", "street", b"image", budget=Budget(deadline_ms=80.5), want=OutputOptions(scale=0.5)
)
HEADER = INFER.to_json()
FRAMES = [
    encode_binary(FrameKind.INFER, HEADER, b"image"),
    encode_binary(FrameKind.MESSAGE, {"type": "ping", "nonce": 1}),
    encode_binary(
        FrameKind.MESSAGE, {"type": "budget", "id": "r", "rev": 1, "budget": {"max_exit": 1}}
    ),
    encode_text(HEADER, b"image").encode(),
    encode_text(OpenStream("s", "street", share=0.5, reuse=ReuseOptions()).to_json()).encode(),
    encode_binary(FrameKind.FRAME, Frame("s", 3, b"image").to_json(), b"image"),
    b'{"type":"close","id":"s"}',
    b'{"type":"cancel","id":"r"}',
    b'{"a":' * 2000,
]
LINES = [
    b"80",
    b"80.25",
    b"1S",
    b"100m",
    b"u=1, i",
    b"u=9;x",
    b'"a";b=?1, c=:YWJj:',
    b"99999999999999999999",
    b"exit=2;of=4, reason=deadline, confidence=0.5, gmacs=1.5",
    b"queue;dur=0.4, total;dur=67.6",
    b"gzip, deflate;q=0.5, *;q=0",
    b"image/png;q=0.9, text/event-stream, */*;q=0.1",
    b"Bearer abc",
    b"anytime.v1, anytime.token.YWJj",
    b"respond-async, wait=2",
    b"-0",
    b"1e400",
    b"NaN",
]
lines = damaged(LINES).map(lambda line: line.decode("latin-1"))


@given(damaged(FRAMES))
def test_a_frame_is_a_message_or_a_protocol_error(data):
    for decode in (decode_binary, lambda data, limits: decode_text(data.decode("latin-1"), limits)):
        try:
            *_, header, payload = decode(data, LIMITS)
        except FrameError:
            continue
        try:
            parse(header, payload, Role.CLIENT)
        except FieldError as error:
            assert len(str(error)) < 1000


@given(st.lists(damaged(FRAMES), min_size=1, max_size=5), st.sampled_from(Role), st.booleans())
def test_a_session_never_raises_whatever_it_receives(frames, role, text):
    session = Session(role)
    for frame in frames:
        session.receive(frame.decode("latin-1") if text else frame)
        session.events()
        session.outgoing()


READERS = {
    "deadline": (
        lambda line: [headers.read_deadline([(name, line)]) for name in DEADLINES],
        HeaderError,
    ),
    "priority": (headers.Priority.parse, ()),
    "result": (headers.ResultHeader.parse, HeaderError),
    "update": (headers.UpdateHeader.parse, HeaderError),
    "timing": (headers.parse_timing, HeaderError),
    "token": (
        lambda line: [headers.read_token([(name, line)]) for name in TOKENS],
        HeaderError,
    ),
    "accept": (partial(negotiate, task=Task.SEGMENTATION, incremental=False), ()),
    "accept-encoding": (accepted_coding, ()),
    "content-encoding": (coding_of, RefusedError),
    "query": (lambda line: read_query([("deadline_ms", line), (line, "1")]), ProtocolError),
    "problem": (Problem.parse, (FrameError, FieldError)),
}
DEADLINES = ["X-Deadline-Ms", "grpc-timeout", "Prefer", "Request-Timeout", "X-Request-Timeout"]
TOKENS = ["Authorization", "Sec-WebSocket-Protocol"]


@pytest.mark.parametrize("name", READERS)
def test_a_header_is_read_or_refused_as_documented(name):
    reader, documented = READERS[name]

    @given(lines)
    def check(line):
        try:
            reader(line)
        except documented as error:
            assert len(str(error)) < 1000

    check()


BODIES = [
    b'{"inputs":[{"name":"pixels","shape":[1,1,2,3],"datatype":"UINT8","data":[255,0,0,0,0,255]}]}',
    b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":["YWJj"]}],"parameters":{}}',
    b'{"inputs":[{"name":"pixels","shape":[1,2,3],"datatype":"UINT8",'
    b'"parameters":{"binary_data_size":6}}]}abcdef',
]


@given(damaged(BODIES), st.sampled_from((None, 104, 10, 0)))
def test_a_body_of_v2_is_an_image_or_an_error(body, json_bytes):
    try:
        read_image(read_body(body, json_bytes, 4096))
    except (FrameError, FieldError, RefusedError) as error:
        assert len(str(error)) < 1000


@given(damaged([b"\x1f\x8b" + bytes(30), b"x\x9c" + bytes(20)]), st.sampled_from(Coding))
def test_a_compressed_body_is_unpacked_within_bounds_or_an_error(body, coding):
    try:
        found = decompress(body, coding, 1000)
    except FieldError:
        return
    assert found is None or len(found) <= 1000
