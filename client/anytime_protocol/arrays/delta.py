"""Deltas: what changed between two arrays of bytes of the same length.

Confident pixels are never computed again, so from one exit to the next most of a map stays as it
is. Every number of a foreign delta is checked before it is used. Compression is not done here
(`segments` does it).

The format, all integers unsigned, 32 bits, big-endian:

    n | skip[0] ... skip[n-1] | length[0] ... length[n-1] | values

Run i leaves `skip[i]` bytes after the end of the run before it (or the start) as they are and
replaces the next `length[i]` by as many of the values. After the last run all stays as it is. A
length is at least 1; a run may repeat bytes that did not change. The counters stand together, so
that an encoder can write them as two arrays at once and a compressor finds them alike.
"""

import struct
from itertools import groupby
from operator import ne

from anytime_protocol.errors import PayloadError

_U32 = struct.Struct(">I")


def encode(base: bytes, new: bytes) -> bytes:
    """The delta that turns `base` into `new`.

    This is the definition; it costs microseconds a byte. Whoever has arrays at hand computes the
    same bytes at once.

    Raises:
        PayloadError: the two differ in length.
    """
    if len(base) != len(new):
        raise PayloadError(f"delta: the base has {len(base)} bytes, the new array {len(new)}")
    skips, lengths, values = list[int](), list[int](), bytearray()
    position = end = 0
    for changed, run in groupby(map(ne, base, new)):
        length = sum(1 for _ in run)
        if changed:
            skips.append(position - end)
            lengths.append(length)
            values += new[position : position + length]
            end = position + length
        position += length
    return struct.pack(f">{1 + 2 * len(skips)}I", len(skips), *skips, *lengths) + bytes(values)


def apply(base: bytes, delta: bytes) -> bytes:
    """The array that `delta` makes of `base`.

    Raises:
        PayloadError: the delta is truncated, leads beyond the end of the base, has an empty run,
            or too few or too many values.
    """
    if len(delta) < _U32.size:
        raise PayloadError(f"delta: found {len(delta)} bytes, expected at least {_U32.size}")
    (count,) = _U32.unpack_from(delta)
    values_at = _U32.size + 2 * _U32.size * count
    if values_at > len(delta):
        raise PayloadError(f"delta: {count} runs take {values_at} bytes, found {len(delta)}")
    counters = struct.unpack_from(f">{2 * count}I", delta, _U32.size)
    result = bytearray(base)
    position = 0
    for skip, length in zip(counters[:count], counters[count:], strict=True):
        if length == 0:
            raise PayloadError("delta: found an empty run, expected lengths of at least 1")
        start, stop = position + skip, position + skip + length
        if stop > len(result):
            raise PayloadError(f"delta: a run ends at {stop}, the base at {len(result)}")
        if values_at + length > len(delta):
            raise PayloadError("delta: the runs need more values than there are")
        result[start:stop] = delta[values_at : values_at + length]
        values_at += length
        position = stop
    if values_at != len(delta):
        raise PayloadError(f"delta: {len(delta) - values_at} bytes are left after the last run")
    return bytes(result)


def largest(size: int) -> int:
    """Bytes of the longest delta for a base of `size` bytes: every second byte changed, or all."""
    return _U32.size + 2 * _U32.size * ((size + 1) // 2) + size
