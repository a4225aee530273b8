"""Content codings of bodies: gzip (RFC 1952) and deflate (RFC 1950), within bounds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from anytime_protocol.enums import ErrorCode
from anytime_protocol.errors import FieldError, shorten
from anytime_protocol.http.problems import Problem
from anytime_server.errors import RefusedError

_LEVEL: Final = 1
_GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
_ZLIB_HEAD: Final = b"\x78\x01"


class Coding(StrEnum):
    """A content coding, by its name in `Content-Encoding`."""

    GZIP = "gzip"
    DEFLATE = "deflate"


_WINDOW_BITS: Final[Mapping[Coding, int]] = MappingProxyType(
    {Coding.GZIP: 16 + zlib.MAX_WBITS, Coding.DEFLATE: zlib.MAX_WBITS}
)


def coding_of(content_encoding: str) -> Coding | None:
    """The coding that a body came in; None if it came as it is.

    Raises:
        RefusedError: it is another one.
    """
    name = content_encoding.strip().lower()
    if name in {"", "identity"}:
        return None
    try:
        return Coding(name.removeprefix("x-"))
    except ValueError:
        text = f"found {shorten(name)!r}, expected gzip, deflate or none"
        problem = Problem(ErrorCode.UNSUPPORTED_MEDIA_TYPE, text, "Content-Encoding")
        raise RefusedError(problem) from None


def accepted_coding(accept_encoding: str) -> Coding | None:
    """The coding that a client prefers for its answer (RFC 9110, 12.5.3); None for none."""
    weights: dict[str, float] = {}
    for item in accept_encoding.split(","):
        name, *parameters = (piece.strip().lower() for piece in item.split(";"))
        weights[name] = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weights[name] = float(value)
                except ValueError:
                    weights[name] = 0.0
    best = max(Coding, key=lambda coding: weights.get(coding, 0.0))
    weight = weights.get(best, 0.0)
    return best if weight > 0.0 and weight >= weights.get("identity", 0.0) else None


def decompress(body: bytes, coding: Coding, max_bytes: int) -> bytes | None:
    """A body as it was before it was compressed; None if it is larger than `max_bytes`.

    No more than that is ever unpacked.

    Raises:
        FieldError: the body is not what its `Content-Encoding` says, or truncated.
    """
    unpacker = zlib.decompressobj(_WINDOW_BITS[coding])
    expected = f"one whole {coding} stream, as Content-Encoding says"
    try:
        unpacked = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise FieldError("body", f"what cannot be unpacked ({error})", expected) from error
    if len(unpacked) > max_bytes:
        return None
    if not unpacker.eof:
        raise FieldError("body", "a stream that ends too soon", expected)
    if unpacker.unused_data:
        raise FieldError("body", f"{len(unpacker.unused_data)} bytes behind the stream", expected)
    return unpacked


def deflate(tail: bytes) -> bytes:
    """The end of a body, for `join`: most of the work, done before its beginning is known."""
    return zlib.compress(tail, _LEVEL, -zlib.MAX_WBITS)


def join(head: bytes, tail: bytes, deflated_tail: bytes, coding: Coding) -> bytes:
    """`head + tail` in a coding.

    Args:
        head: the beginning.
        tail: the end.
        deflated_tail: what `deflate` made of it.
        coding: of the result.
    """
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    # A flush ends at a whole byte, and the tail refers to nothing before it.
    stream = packer.compress(head) + packer.flush(zlib.Z_SYNC_FLUSH) + deflated_tail
    match coding:
        case Coding.GZIP:
            size = (len(head) + len(tail)) % 2**32
            return (
                _GZIP_HEAD + stream + struct.pack("<II", zlib.crc32(tail, zlib.crc32(head)), size)
            )
        case Coding.DEFLATE:
            checksum = zlib.adler32(tail, zlib.adler32(head))
            return _ZLIB_HEAD + stream + struct.pack(">I", checksum)
        case _:
            assert_never(coding)
