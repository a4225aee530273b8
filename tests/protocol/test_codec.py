"""Frames: the round trip, and every way in which foreign bytes can be wrong."""

from __future__ import annotations

import contextlib
import json
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_protocol import codec
from anytime_protocol.codec import FrameKind, FrameLimits
from anytime_protocol.enums import CloseCode
from anytime_protocol.errors import FrameError
from protocol.factories import JSON

SMALL = FrameLimits(json_bytes=200, payload_bytes=100)
FINITE_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
HEADERS = st.dictionaries(st.text(max_size=8).map(lambda key: f"_{key}"), FINITE_JSON, max_size=4)


@settings(max_examples=50)
@given(
    HEADERS,
    st.binary(max_size=50),
    st.sampled_from([FrameKind.INFER, FrameKind.UPDATE, FrameKind.FRAME]),
)
def test_a_frame_survives_both_forms(
    header: dict[str, object], payload: bytes, kind: FrameKind
) -> None:
    limits = FrameLimits()
    binary = codec.encode_binary(kind, header, payload)
    assert codec.decode_binary(binary, limits) == (kind, header, payload)
    assert codec.decode_text(codec.encode_text(header, payload), limits) == (header, payload)


@given(st.binary(max_size=200))
def test_foreign_bytes_never_crash_the_reader(data: bytes) -> None:
    try:
        _, header, payload = codec.decode_binary(data, SMALL)
    except FrameError:
        return
    assert len(json.dumps(header)) + len(payload) < 2 * len(data)


@given(st.binary(max_size=100), st.sampled_from(FrameKind))
def test_a_plausible_start_never_crashes_the_reader(rest: bytes, kind: FrameKind) -> None:
    data = codec.PREFIX.pack(kind, max(len(rest) - 3, 0)) + rest
    with contextlib.suppress(FrameError):
        assert codec.decode_binary(data, SMALL)[0] is kind


@given(st.text(max_size=100) | JSON.map(json.dumps))
def test_foreign_text_never_crashes_the_reader(text: str) -> None:
    try:
        header, payload = codec.decode_text(text, SMALL)
    except FrameError:
        return
    assert isinstance(header, dict)
    assert isinstance(payload, bytes)


def _frame(kind: int, text: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">II", kind, len(text)) + text + payload


def test_a_broken_binary_frame_has_its_close_code() -> None:
    for data, close_code in (
        (b"", 4400),
        (b"\0\0\0\0\0\0\0", 4400),
        (struct.pack(">II", 0, 10) + b"{}", 4400),
        (_frame(4, b"{}"), 1003),
        (_frame(2**32 - 1, b"{}"), 1003),
        (struct.pack(">II", 0, 2**32 - 1), 1009),
        (_frame(0, b'{"x":"' + b"x" * 200 + b'"}'), 1009),
        (_frame(1, b"{}", b"x" * 101), 1009),
        (_frame(0, b"{}", b"payload"), 4400),
        (_frame(0, b'{"x":"\xff"}'), 1007),
        (_frame(0, b""), 4400),
        (_frame(0, b"[]"), 4400),
        (_frame(0, b'"text"'), 4400),
        (_frame(0, b'{"a":1,"a":2}'), 4400),
        (_frame(0, b'{"a":{"b":1,"b":2}}'), 4400),
        (_frame(0, b'{"a":NaN}'), 4400),
        (_frame(0, b'{"a":-Infinity}'), 4400),
        (_frame(0, b'{"a":1'), 4400),
        (_frame(0, b'{"a":1} x'), 4400),
    ):
        with pytest.raises(FrameError) as caught:
            codec.decode_binary(data, SMALL)
        assert caught.value.close_code == close_code


def test_a_broken_text_frame_has_its_close_code() -> None:
    for text, close_code in (
        ("", 4400),
        ("{", 4400),
        ("null", 4400),
        ('{"payload":7}', 4400),
        ('{"payload":"#"}', 4400),
        ('{"payload":"abc"}', 4400),
        ('{"payload":"ab\\u0063d"', 4400),
        ('{"payload":"' + "A" * 200 + '"}', 1009),
        ('{"x":"' + "A" * 200 + '"}', 1009),
        ('{"x":"' + "A" * 2000 + '"}', 1009),
    ):
        with pytest.raises(FrameError) as caught:
            codec.decode_text(text, SMALL)
        assert caught.value.close_code == close_code


def test_deep_nesting_and_gigantic_numbers_are_errors_not_crashes() -> None:
    limits = FrameLimits(json_bytes=10_000_000)
    for value in ("[" * 200_000 + "]" * 200_000, '{"a":' * 100_000, "9" * 100_000):
        with pytest.raises(FrameError):
            codec.decode_text(f'{{"a":{value}}}', limits)


def test_a_nested_payload_is_not_taken_for_the_payload() -> None:
    text = '{"want":{"payload":"AAAA"},"payload":"BBBB"}'
    header, payload = codec.decode_text(text, SMALL)
    assert payload == b"\x04\x10\x41"
    assert header == {"want": {"payload": "#"}}
    assert codec.decode_text('{"want":{"payload":"AAAA"}}', SMALL)[1] == b""


def test_escaped_base64_is_read_as_any_json_text() -> None:
    assert codec.decode_text('{"payload":"\\u0041AAA"}', SMALL) == ({}, b"\0\0\0")


def test_a_gigantic_text_header_is_refused_before_it_is_read() -> None:
    text = '{"x":[' + "[]," * 5_000_000 + "[]]}"
    start = time.process_time()
    with pytest.raises(FrameError) as caught:
        codec.decode_text(text, FrameLimits())
    assert caught.value.close_code is CloseCode.TOO_BIG
    assert time.process_time() - start < 0.5


def test_many_repeated_keys_are_found_in_linear_time() -> None:
    pairs = ",".join(f'"{n}":0' for n in range(30_000))
    start = time.process_time()
    with pytest.raises(FrameError, match="'29999' is repeated"):
        codec.load_json(f'{{{pairs},"29999":1}}')
    assert time.process_time() - start < 1.0


def test_text_of_a_peer_cannot_break_a_frame() -> None:
    assert codec.encode_text({"detail": "\ud800"}).isascii()


def test_numbers_without_a_json_form_are_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        codec.encode_text({"x": float("nan")})
