"""From a rendered exit to bytes: the arrays of an update, and the files of HTTP answers.

Called only for what is really sent. What a client has received last is an argument and a result, so
that a delta is always made against that.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from zlib_ng import zlib_ng

from anytime_protocol.arrays.segments import ENCODINGS, ArraySegment, pack
from anytime_protocol.enums import ArrayName, DType, Encoding
from anytime_protocol.messages import Keypoint, OutputOptions
from anytime_protocol.validation import JsonObject
from anytime_server.executor.base import RenderedExit

Plane = NDArray[np.uint8]

_LEVEL = 1

_PNG_UP = 2
"""The filter of a row that holds its differences to the row above."""

NOTHING_SENT: Final[Mapping[ArrayName, Plane]] = MappingProxyType({})
"""What a client holds before its first update."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The arrays of an update.

    Attributes:
        parts: describes the payload.
        payload: the bytes.
        kept: arrays that the next delta changes; empty where no deltas are wanted.
    """

    parts: tuple[ArraySegment, ...]
    payload: bytes
    kept: Mapping[ArrayName, Plane]


def encode(
    rendered: RenderedExit,
    want: OutputOptions,
    palette: bytes,
    sent_exit: int = 0,
    sent: Mapping[ArrayName, Plane] = NOTHING_SENT,
    *,
    sent_frame: int | None = None,
) -> Encoded:
    """Writes what a client wants of an exit.

    Args:
        rendered: the exit.
        want: encoding and compression.
        palette: red, green, blue for each class.
        sent_exit: exit of the last update that the client has received; 0 before the first.
        sent: that update's arrays.
        sent_frame: that update's frame, in a stream.
    """
    arrays: dict[ArrayName, Plane] = {}
    described: list[ArraySegment] = []
    pieces: list[bytes] = []
    for name, plane in (
        (ArrayName.MAP, rendered.labels),
        (ArrayName.CONFIDENCE, rendered.confidence),
        (ArrayName.ACTIVE, rendered.active),
    ):
        if plane is not None:
            arrays[name] = plane
            base = (sent_exit, sent_frame, sent[name]) if name in sent else None
            part, piece = _write(name, plane, want, palette, base)
            described.append(part)
            pieces.append(piece)
    if rendered.heatmaps is not None:
        piece = pack(rendered.heatmaps.astype("<f2").tobytes(), want.compression)
        described.append(
            ArraySegment(
                ArrayName.HEATMAPS,
                Encoding.RAW,
                rendered.heatmaps.shape,
                len(piece),
                DType.FLOAT16,
                want.compression,
            )
        )
        pieces.append(piece)
    kept = arrays if want.encoding is Encoding.DELTA else NOTHING_SENT
    return Encoded(tuple(described), b"".join(pieces), kept)


def _write(
    name: ArrayName,
    plane: Plane,
    want: OutputOptions,
    palette: bytes,
    base: tuple[int, int | None, Plane] | None,
) -> tuple[ArraySegment, bytes]:
    encoding = want.encoding if want.encoding in ENCODINGS[name] else Encoding.RAW
    shape = plane.shape
    match encoding:
        case Encoding.PNG:
            piece = png(plane, palette if name is ArrayName.MAP else None)
            return ArraySegment(name, encoding, shape, len(piece)), piece
        case Encoding.RLE:
            piece = json.dumps(rle_segments(plane), separators=(",", ":")).encode()
            return ArraySegment(name, encoding, shape, len(piece)), piece
        case Encoding.DELTA:
            if base is not None and base[2].shape == shape:
                sent_exit, sent_frame, sent = base
                changes = delta(sent, plane)
                if len(changes) < plane.size:
                    piece = pack(changes, want.compression)
                    part = ArraySegment(
                        name,
                        encoding,
                        shape,
                        len(piece),
                        compression=want.compression,
                        base=sent_exit,
                        base_frame=sent_frame,
                    )
                    return part, piece
    piece = pack(plane.tobytes(), want.compression)
    return ArraySegment(name, Encoding.RAW, shape, len(piece), compression=want.compression), piece


def delta(base: Plane, new: Plane) -> bytes:
    """`anytime_protocol.delta.encode` for arrays: the same bytes, at once."""
    changed = np.zeros(new.size + 2, dtype=np.int8)
    changed[1:-1] = base.ravel() != new.ravel()
    steps = np.diff(changed)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    before = np.concatenate(([0], ends[:-1])) if ends.size else ends
    counters = np.concatenate((starts - before, ends - starts)).astype(">u4")
    values = new.ravel()[changed[1:-1] != 0]
    return b"".join((struct.pack(">I", starts.size), counters.tobytes(), values.tobytes()))


def png(plane: Plane, palette: bytes | None) -> bytes:
    """A PNG file of 8 bits a pixel: indexed with a palette, grey without.

    Written here, as neighbouring rows of a map are mostly the same, and Pillow has no filter for
    indexed images: with differences of rows, compressed as runs, a file takes no longer and has a
    half to a quarter of the bytes.
    """
    height, width = plane.shape
    rows = np.empty((height, 1 + width), np.uint8)
    rows[:, 0] = _PNG_UP
    rows[:1, 1:] = plane[:1]
    np.subtract(plane[1:], plane[:-1], out=rows[1:, 1:])
    deflate = zlib_ng.compressobj(_LEVEL, strategy=zlib_ng.Z_RLE)
    kind = 0 if palette is None else 3
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", deflate.compress(rows.data) + deflate.flush())]
    if palette is not None:
        chunks.insert(1, (b"PLTE", palette))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _png_chunk(*chunk) for chunk in (*chunks, (b"IEND", b""))
    )


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib_ng.crc32(data, zlib_ng.crc32(kind))
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", checksum)


def npy(array: NDArray[np.uint8] | NDArray[np.float32]) -> bytes:
    """A NumPy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def rle_segments(labels: Plane) -> list[JsonObject]:
    """COCO run-lengths, one object for each class that occurs, by rising id."""
    height, width = labels.shape
    column_by_column = labels.T.ravel()
    changes = np.flatnonzero(column_by_column[1:] != column_by_column[:-1]) + 1
    bounds = np.concatenate(([0], changes, [labels.size]))
    class_ids = column_by_column[bounds[:-1]]  # of the runs between them
    found: list[JsonObject] = []
    for class_id in np.unique(class_ids):
        runs = np.flatnonzero(class_ids == class_id)
        ends = np.stack((bounds[runs], bounds[runs + 1]), axis=1).ravel()
        counts = np.diff(ends, prepend=0, append=labels.size)
        counts = counts if counts[-1] else counts[:-1]
        size = [height, width]
        coded = coco.frPyObjects({"size": size, "counts": counts}, height, width)
        found.append(
            {"class": int(class_id), "size": size, "counts": coded["counts"].decode("ascii")}
        )
    return found


def keypoints(rendered: RenderedExit) -> tuple[Keypoint, ...] | None:
    """A pose's joints as the wire has them; None for a segmentation."""
    if rendered.keypoints is None:
        return None
    return tuple((float(x), float(y), float(score)) for x, y, score in rendered.keypoints)
