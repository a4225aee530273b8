"""From a picture to bytes: the parts of an update, and the files of HTTP answers.

Decides how each array is written in the encoding that a client wants. Knows no request and no
socket; is called only for what is really sent. What a client has received last is an argument and a
result, so that a delta is always made against that.

PNGs are written by Pillow at zlib level 1: at 480x360, 0.7 ms for 4.5 kB. Writing the chunks by
hand with numpy and zlib took 0.5 ms for 10.5 kB, which is no gain worth the code.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from pycocotools import mask as coco

from anytime_protocol import arrays as wire
from anytime_protocol.arrays import ArraySegment
from anytime_protocol.client_messages import OutputOptions
from anytime_protocol.enums import ArrayName, DType, Encoding
from anytime_protocol.json_reader import JsonObject
from anytime_protocol.server_messages import Keypoint
from anytime_server.executor.base import Picture

Plane = NDArray[np.uint8]

_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Received:
    """What a client holds of a request: the exit it was last shown, and that exit's arrays."""

    exit: int = 0
    arrays: Mapping[ArrayName, Plane] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Encoded:
    """The arrays of an update.

    Attributes:
        parts: describes the payload.
        payload: the bytes.
        received: what the client holds once it has this.
    """

    parts: tuple[ArraySegment, ...]
    payload: bytes
    received: Received


def encode(picture: Picture, want: OutputOptions, palette: bytes, received: Received) -> Encoded:
    """Writes what a client wants of an exit.

    Args:
        picture: the exit.
        want: encoding and compression.
        palette: red, green, blue for each class.
        received: what the client holds.
    """
    arrays: dict[ArrayName, Plane] = {}
    described: list[ArraySegment] = []
    pieces: list[bytes] = []
    for name, plane in (
        (ArrayName.MAP, picture.labels),
        (ArrayName.CONFIDENCE, picture.confidence),
        (ArrayName.ACTIVE, picture.active),
    ):
        if plane is not None:
            arrays[name] = plane
            part, piece = _write(name, plane, want, palette, received)
            described.append(part)
            pieces.append(piece)
    if picture.heatmaps is not None:
        piece = wire.pack(picture.heatmaps.astype("<f2").tobytes(), want.compression)
        described.append(
            ArraySegment(
                ArrayName.HEATMAPS,
                Encoding.RAW,
                picture.heatmaps.shape,
                len(piece),
                DType.FLOAT16,
                want.compression,
            )
        )
        pieces.append(piece)
    keeps = arrays if want.encoding is Encoding.DELTA else {}
    return Encoded(tuple(described), b"".join(pieces), Received(picture.exit, keeps))


def _write(
    name: ArrayName, plane: Plane, want: OutputOptions, palette: bytes, received: Received
) -> tuple[ArraySegment, bytes]:
    encoding = want.encoding if want.encoding in wire.ENCODINGS[name] else Encoding.RAW
    shape = plane.shape
    match encoding:
        case Encoding.PNG:
            piece = png(plane, palette if name is ArrayName.MAP else None)
            return ArraySegment(name, encoding, shape, len(piece)), piece
        case Encoding.RLE:
            piece = json.dumps(segments(plane), separators=(",", ":")).encode()
            return ArraySegment(name, encoding, shape, len(piece)), piece
        case Encoding.DELTA:
            base = received.arrays.get(name)
            changes = None if base is None else delta(base, plane)
            if changes is not None and len(changes) < plane.size:
                piece = wire.pack(changes, want.compression)
                return (
                    ArraySegment(
                        name,
                        encoding,
                        shape,
                        len(piece),
                        compression=want.compression,
                        base=received.exit,
                    ),
                    piece,
                )
    piece = wire.pack(plane.tobytes(), want.compression)
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
    """A PNG file of 8 bits a pixel: indexed with a palette, grey without."""
    image = PIL.Image.fromarray(plane)
    if palette is not None:
        image.putpalette(palette)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_LEVEL)
    return file.getvalue()


def npy(array: NDArray[np.uint8] | NDArray[np.float32]) -> bytes:
    """A NumPy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def segments(labels: Plane) -> list[JsonObject]:
    """COCO run-lengths, one object for each class that occurs, by rising id."""
    height, width = labels.shape
    found: list[JsonObject] = []
    for class_id in np.unique(labels):
        runs = coco.encode(np.asfortranarray(labels == class_id, dtype=np.uint8))
        found.append(
            {
                "class": int(class_id),
                "size": [height, width],
                "counts": runs["counts"].decode("ascii"),
            }
        )
    return found


def keypoints(picture: Picture) -> tuple[Keypoint, ...] | None:
    """A pose's joints as the wire has them; None for a segmentation."""
    if picture.keypoints is None:
        return None
    return tuple((float(x), float(y), float(score)) for x, y, score in picture.keypoints)
