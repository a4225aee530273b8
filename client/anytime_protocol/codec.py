"""Frames: one websocket message as a JSON header and a payload of bytes, and back.

A binary frame is, with both integers unsigned, 32 bits, big-endian:

    kind | length of the JSON in bytes | JSON, UTF-8 | payload

A text frame is the JSON alone; a payload stands in its field `payload` as base64.
"""

import base64
import binascii
import json
import re
import struct
from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NoReturn

from anytime_protocol.enums import CloseCode
from anytime_protocol.errors import FrameError, shorten
from anytime_protocol.validation import JsonObject

# Kind and length of the JSON.
PREFIX: Final = struct.Struct(">II")

_PAYLOAD: Final = re.compile(r'"payload"\s*:\s*"(?P<base64>[A-Za-z0-9+/=]*)"')
_CUT: Final = "#"
# The base64 is cut out of a text frame before its JSON is read, and "#", which is not base64, put
# in its place: so the JSON's own size is known, and refused, before a reader has worked on it.


class FrameKind(IntEnum):
    """What a binary frame carries.

    Attributes:
        MESSAGE: any message without a payload.
        INFER: `infer`; the payload is the image file.
        UPDATE: `update`; the payload is the arrays named in `parts`, in order.
        FRAME: `frame`; the payload is the image file.
    """

    MESSAGE = 0
    INFER = 1
    UPDATE = 2
    FRAME = 3


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """Sizes beyond which a frame is refused.

    Attributes:
        json_bytes: of the JSON of a frame (a text frame's base64 aside).
        payload_bytes: of the payload.
    """

    json_bytes: int = 256 * 1024
    payload_bytes: int = 32 * 1024 * 1024

    @property
    def frame_bytes(self) -> int:
        """The longest frame of either form: what a websocket library's own limit should be."""
        return self.json_bytes + -(-self.payload_bytes // 3) * 4 + 64


# What a client takes from a server: several maps of a large image.
ANSWER_LIMITS: Final = FrameLimits(json_bytes=2**20, payload_bytes=2**28)


def encode_binary(kind: FrameKind, header: JsonObject, payload: bytes = b"") -> bytes:
    """Writes a binary frame.

    Raises:
        ValueError: the header has a NaN or an infinity, which JSON has no form for.
    """
    text = _dump(header).encode("ascii")
    return b"".join((PREFIX.pack(kind, len(text)), text, payload))


def encode_text(header: JsonObject, payload: bytes = b"") -> str:
    """Writes a text frame.

    Raises:
        ValueError: the header has a NaN or an infinity, which JSON has no form for.
    """
    if payload:
        header = header | {"payload": base64.b64encode(payload).decode("ascii")}
    return _dump(header)


def decode_binary(data: bytes, limits: FrameLimits) -> tuple[FrameKind, JsonObject, bytes]:
    """Takes a binary frame apart.

    Returns:
        The kind, the header and the payload.

    Raises:
        FrameError: the frame is truncated, too long, of an unknown kind, its JSON malformed, or it
            has a payload where its kind has none.
    """
    if len(data) < PREFIX.size:
        raise FrameError(f"frame: found {len(data)} bytes, expected at least {PREFIX.size}")
    number, json_bytes = PREFIX.unpack_from(data)
    if number not in set(FrameKind):
        raise FrameError(f"frame: kind {number} is unknown", CloseCode.UNSUPPORTED_DATA)
    kind = FrameKind(number)
    _check_size("JSON", json_bytes, limits.json_bytes)
    start = PREFIX.size + json_bytes
    if start > len(data):
        raise FrameError(f"frame: truncated, {start} bytes announced, {len(data)} found")
    _check_size("payload", len(data) - start, limits.payload_bytes)
    try:
        text = data[PREFIX.size : start].decode("utf-8")
    except UnicodeDecodeError as error:
        raise FrameError("frame: the JSON is not UTF-8", CloseCode.INVALID_TEXT) from error
    payload = data[start:]
    if payload and kind is FrameKind.MESSAGE:
        raise FrameError(f"frame: kind 0 has no payload, {len(payload)} bytes found")
    return kind, load_json(text), payload


def decode_text(data: str, limits: FrameLimits) -> tuple[JsonObject, bytes]:
    """Takes a text frame apart.

    Returns:
        The header without its `payload`, and the payload.

    Raises:
        FrameError: the frame is too long, not a JSON object, or its payload not base64.
    """
    _check_size("text", len(data), limits.frame_bytes)
    cut = _PAYLOAD.search(data)
    encoded = ""
    if cut is not None:
        encoded = cut["base64"]
        data = data[: cut.start("base64")] + _CUT + data[cut.end("base64") :]
    _check_size("JSON", len(data), limits.json_bytes)
    header = load_json(data)
    value = header.pop("payload", "")
    if not isinstance(value, str):
        raise FrameError("frame: the payload is not text, expected base64")
    if cut is None or value != _CUT:
        encoded = value
    try:
        payload = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FrameError(f"frame: the payload is not base64 ({error})") from error
    _check_size("payload", len(payload), limits.payload_bytes)
    return header, payload


def load_json(text: str) -> JsonObject:
    """Reads one JSON object strictly: the reader for frames and for HTTP bodies alike.

    Raises:
        FrameError: not JSON, not an object, nested too deeply, with a repeated key, with NaN or
            Infinity, or with a number of thousands of digits.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise FrameError("JSON: nested too deeply") from None
    except ValueError as error:
        raise FrameError(f"JSON: {shorten(str(error), 100)}") from error
    if not isinstance(value, dict):
        raise FrameError("JSON: found another value, expected an object")
    return value


def _dump(header: JsonObject) -> str:
    """Plain ASCII without spaces: no lone surrogate of a peer's text can break a frame."""
    return json.dumps(header, separators=(",", ":"), allow_nan=False)


def _unique(pairs: list[tuple[str, object]]) -> JsonObject:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {shorten(twice)!r} is repeated")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check_size(what: str, size: int, limit: int) -> None:
    if size > limit:
        message = f"frame: {what} of {size} bytes, at most {limit} allowed"
        raise FrameError(message, CloseCode.TOO_BIG)
