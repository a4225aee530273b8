"""What an image file says about itself, read from its structure before anything is decoded.

A file of a few hundred kB can keep a decoder busy for minutes: by 60,000 progressive scans, or by
millions of markers or chunks. So the whole structure is walked first, in time that is linear in the
file's size, and files that ask for too much are refused. Nothing here trusts the file.

Decoding needs less than the file has. `plain_file` leaves metadata out, so that its readers, which
have no bounds of their own, never see a stranger's file; the orientation, the one thing that counts
of it, is read here.

Sources: ITU-T T.81 (JPEG), the PNG specification (third edition), RFC 9649 (WebP), Exif 2.32.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Final

JPEG, PNG, WEBP = "image/jpeg", "image/png", "image/webp"

MOST_SCANS: Final = 100
"""Scans that a JPEG may have. Encoders write 1, or some 10 of a progressive file."""

MOST_PARTS: Final = 10_000
"""Segments or chunks that a file may have: a PNG of 32 MiB in chunks of 8 KiB has 4096."""

MOST_FILLING: Final = 2**16
"""Bytes that may stand between the segments of a JPEG before its first scan."""

_WINDOW: Final = 2**18
"""Bytes that are searched at a time, as other threads wait meanwhile."""

_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT: Final = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))

_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A JPEG marker that ends entropy-coded data: no stuffed byte, no restart, no filling."""

_SOI, _EOI, _SOS, _APP0, _APP1, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xFE
_FIRST_WITH_LENGTH: Final = 0xC0
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_METADATA: Final = frozenset(range(_APP0, 0xF0)) - {_APP0, _APP14} | {_COM}

_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_IN_PNG: Final = b"XML:com.adobe.xmp\0"
_XMP_ORIENTATION: Final = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")
_ORIENTATION: Final = 0x0112
_MOST_FIELDS: Final = 1000

_METADATA_BYTES: Final = 2**16
"""Of a block of metadata, how much is looked at."""


class BadFileError(Exception):
    """No JPEG, PNG or WebP, not whole, or of more parts than allowed."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says about itself.

    Attributes:
        media_type: by its content.
        height: px, before it is turned.
        width: px, before it is turned.
        scans: how often its pixels are gone over: scans of a JPEG, 1 of others.
        parts: segments or chunks.
        orientation: as Exif has it, 1 to 8; 1 is upright.
        kept: (start, end) of the parts of the file that decoding needs; empty for the whole file.
    """

    media_type: str
    height: int
    width: int
    scans: int = 1
    parts: int = 1
    orientation: int = 1
    kept: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    @property
    def pixels(self) -> int:
        """H times W."""
        return self.height * self.width


def read_header(data: bytes) -> ImageHeader:
    """Walks a file's structure to its end; what lies behind it does not count.

    Raises:
        BadFileError: see there.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(data)
        if data.startswith(_PNG_START):
            return _read_png(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _read_webp(data)
    except (struct.error, IndexError):  # a number that lies behind the end
        raise _truncated() from None
    raise _bad("it is none of these")


def plain_file(data: bytes, header: ImageHeader) -> bytes:
    """The file without what decoding does not need."""
    if not header.kept:
        return data
    view = memoryview(data)
    return b"".join(view[start:end] for start, end in header.kept)


def cannot_decode(reason: str) -> str:
    """What is said of a file that cannot be decoded."""
    return f"the image cannot be decoded: {reason}; expected a whole JPEG, PNG or WebP file"


def _bad(reason: str) -> BadFileError:
    return BadFileError(cannot_decode(reason))


def _truncated() -> BadFileError:
    return _bad("its end is missing")


def _too_many(what: str, most: int, cure: str) -> BadFileError:
    return BadFileError(
        f"found more than {most} {what} in the image, at most {most} are allowed: {cure}"
    )


class _Walk:
    """What is found on the way through a file."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._parts = 0
        self._exif: int | None = None
        self._xmp: int | None = None
        self._kept_from = 0
        self._kept: list[tuple[int, int]] = []

    def count_part(self) -> None:
        """One more segment or chunk."""
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise _too_many(self._what, MOST_PARTS, "save it again")

    def leave_out(self, start: int, end: int) -> None:
        """Decoding does not need this; ranges come in order."""
        if self._kept_from < start:
            self._kept.append((self._kept_from, start))
        self._kept_from = end

    def note_exif(self, start: int, end: int) -> None:
        """Here are Exif data."""
        if self._exif is None:
            block = self._data[start : min(end, start + _METADATA_BYTES)]
            self._exif = _exif_orientation(block.removeprefix(_EXIF))

    def note_xmp(self, start: int, end: int) -> None:
        """Here are XMP data."""
        if self._xmp is None:
            found = _XMP_ORIENTATION.search(self._data, start, min(end, start + _METADATA_BYTES))
            self._xmp = None if found is None else int(found[1])

    def header(
        self, media_type: str, size: tuple[int, int] | None, end: int, scans: int = 1
    ) -> ImageHeader:
        """All of it; `end` is the end of the file."""
        if size is None or not (size[0] and size[1] and scans):
            raise _bad("it has no pixels")
        if self._kept_from:
            self.leave_out(end, end)
        orientation = self._exif or self._xmp or 1
        return ImageHeader(media_type, *size, scans, self._parts, orientation, tuple(self._kept))


def _read_jpeg(data: bytes) -> ImageHeader:
    walk = _Walk(data, "segments")
    size: tuple[int, int] | None = None
    scans = filling = 0
    at = 2
    while True:
        found = _next_marker(data, at, len(data) if scans else at + MOST_FILLING + 2)
        walk.count_part()
        filling += 0 if scans else found - at
        if filling > MOST_FILLING:
            raise _too_much_filling()
        marker, at = data[found + 1], found + 2
        if marker == _EOI:
            return walk.header(JPEG, size, at, scans)
        if marker < _FIRST_WITH_LENGTH or marker == _SOI:
            continue
        end = at + int.from_bytes(data[at : at + 2], "big")
        if end > len(data):
            raise _truncated()
        if marker == _SOS:
            scans += 1
            if scans > MOST_SCANS:
                raise _too_many("scans", MOST_SCANS, "save it as a JPEG that is not progressive")
        elif marker in _FRAMES and not scans:
            height, width = struct.unpack_from(">HH", data, at + 3)
            size = height, width
        elif marker in _METADATA:
            walk.leave_out(found, end)
            if marker == _APP1 and data.startswith(_EXIF, at + 2):
                walk.note_exif(at + 2, end)
            elif marker == _APP1 and data.startswith(_XMP, at + 2):
                walk.note_xmp(at + 2, end)
        at = max(end, at)


def _next_marker(data: bytes, at: int, end: int) -> int:
    """Where the next marker before `end` is.

    Raises:
        BadFileError: there is none.
    """
    for start in range(at, min(end, len(data)), _WINDOW):
        found = _MARKER.search(data, start, min(start + _WINDOW + 1, end))
        if found is not None:
            return found.start()
    raise _too_much_filling() if end < len(data) else _truncated()


def _too_much_filling() -> BadFileError:
    return _too_many("bytes between its segments", MOST_FILLING, "save it again")


def _read_png(data: bytes) -> ImageHeader:
    length, kind, width, height = struct.unpack_from(">I4sII", data, len(_PNG_START))
    if kind != b"IHDR" or length != 13:
        raise _bad("its header is damaged")
    walk = _Walk(data, "chunks")
    at = len(_PNG_START)
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        start, end = at, at + 12 + length
        walk.count_part()
        if end > len(data):
            raise _truncated()
        at = end
        if kind == b"IEND":
            return walk.header(PNG, (height, width), end)
        if kind not in _PNG_KEPT:
            walk.leave_out(start, end)
            if kind == b"eXIf":
                walk.note_exif(start + 8, end - 4)
            elif kind == b"iTXt" and data.startswith(_XMP_IN_PNG, start + 8):
                walk.note_xmp(start + 8, end - 4)


def _read_webp(data: bytes) -> ImageHeader:
    file_end = 8 + struct.unpack_from("<I", data, 4)[0]
    if file_end > len(data):
        raise _truncated()
    walk = _Walk(data, "chunks")
    size: tuple[int, int] | None = None
    at = 12
    while at + 8 <= file_end:
        kind, length = struct.unpack_from("<4sI", data, at)
        start, end = at + 8, at + 8 + length
        walk.count_part()
        if end > file_end:
            raise _truncated()
        if size is None:
            size = _webp_size(data, kind, start)
        elif kind == b"EXIF":
            walk.note_exif(start, end)
        elif kind == b"XMP ":
            walk.note_xmp(start, end)
        at = end + length % 2
    return walk.header(WEBP, size, file_end)


def _webp_size(data: bytes, kind: bytes, start: int) -> tuple[int, int]:
    """(H, W) by the first chunk."""
    if kind == b"VP8X":
        width, height = data[start + 4 : start + 7], data[start + 7 : start + 10]
        return int.from_bytes(height, "little") + 1, int.from_bytes(width, "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, start + 1)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, start + 6)
        return height & 0x3FFF, width & 0x3FFF
    raise _bad("its header is damaged")


def _exif_orientation(tiff: bytes) -> int | None:
    """The orientation of an Exif block, which is a TIFF file; None if it has none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for place in range(at + 2, at + 2 + 12 * min(count, _MOST_FIELDS), 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, place)
            if tag == _ORIENTATION:
                return value if kind == 3 and 1 <= value <= 8 else None
    except struct.error:  # a place behind the end
        return None
    return None
