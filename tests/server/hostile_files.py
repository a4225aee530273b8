"""Image files that ask for more work than they look like."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def jpeg(size=(64, 64), *, progressive=False):
    """An ordinary JPEG of (H, W)."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (size[0] // 16 or 1, size[1] // 16 or 1, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size[::-1]).save(file, "JPEG", progressive=progressive)
    return file.getvalue()


def with_scans(count, size=(64, 64)):
    """A progressive JPEG with so many empty scans of 10 bytes behind its own."""
    return jpeg(size, progressive=True)[:-2] + EMPTY_SCAN * count + b"\xff\xd9"


EMPTY_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00"


def with_segments(count):
    """A JPEG with so many empty segments of 4 bytes before its first scan."""
    file = jpeg()
    return file[:2] + b"\xff\xe5\x00\x02" * count + file[2:]


def with_filling(filling):
    """A JPEG with bytes between its segments."""
    file = jpeg()
    return file[:2] + filling + file[2:]


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size=(64, 64), before=b"", after=b""):
    """A PNG of (H, W) with chunks before or after its pixels."""
    file = io.BytesIO()
    Image.new("RGB", size[::-1]).save(file, "PNG")
    data = file.getvalue()
    first = data.index(b"IDAT") - 4
    return data[:first] + before + data[first:-12] + after + data[-12:]


def webp_chunk(kind, data=b""):
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def webp(after=b""):
    """A WebP with chunks after its pixels."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "WEBP")
    body = file.getvalue()[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(body) + len(after)) + b"WEBP" + body + after


def exif(fields):
    """An Exif block whose fields all lie about where their values are."""
    entries = [struct.pack(">HHII", 0x8000 + k, 7, 2**20, 8) for k in range(fields)]
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", fields) + b"".join(entries) + bytes(4)
