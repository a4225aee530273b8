"""Maps, joints and numbers as files, or on standard output.

Decides which form a file's name stands for and how each is written. Does not choose colours
(`painting` does).
"""

from __future__ import annotations

import io
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anytime_client import painting
from anytime_client.errors import AnytimeError
from anytime_client.results import Result, Update
from anytime_protocol import rle
from anytime_protocol.enums import ArrayName
from anytime_protocol.json_reader import JsonObject

STANDARD = "-"
"""In place of a path: standard input or output."""


class SavingError(AnytimeError):
    """A file cannot be written, or its name says no form that is known."""


class Form(StrEnum):
    """What is written."""

    MASK = "mask"
    """PNG, indexed: a pixel's index is its class id."""
    OVERLAY = "overlay"
    """PNG: the map or the skeleton over the image."""
    NPY = "npy"
    """NumPy: uint8 (H, W) class ids, or float32 (J, 3) joints."""
    JSON = "json"
    """Numbers, and COCO run-lengths of each class or the joints."""


def form_of(path: str, form: Form | None) -> Form:
    """The form that was asked for, or that the name's suffix stands for.

    Raises:
        SavingError: neither says.
    """
    if form is not None:
        return form
    match Path(path).suffix.lower():
        case ".npy":
            return Form.NPY
        case ".json":
            return Form.JSON
        case ".png":
            return Form.OVERLAY
        case _ if path == STANDARD:
            return Form.MASK
        case suffix:
            raise SavingError(
                f"{path}: found {suffix or 'no suffix'}, expected .png, .npy or .json"
            )


def render(update: Update, picture: Image.Image, form: Form) -> bytes:
    """The file's bytes.

    Args:
        update: what to write.
        picture: the upright image, for overlays.
        form: how.

    Raises:
        SavingError: a mask of a pose model.
    """
    if form is Form.MASK and update.joints is not None:
        found = f"{update.model.name} is a pose model, which makes no map"
        raise SavingError(f"{form}: {found}; expected the form overlay, npy or json")
    out = io.BytesIO()
    match form:
        case Form.MASK:
            painting.mask(update).save(out, "PNG", optimize=False)
        case Form.OVERLAY:
            painting.overlay(picture, update).save(out, "PNG")
        case Form.NPY:
            array = update.map if update.joints is None else update.keypoints
            np.save(out, array, allow_pickle=False)
        case Form.JSON:
            out.write(json.dumps(describe(update, whole=True)).encode() + b"\n")
    return out.getvalue()


def write(path: str, data: bytes) -> None:
    """Writes a file, or to standard output for `-`; folders on the way are made.

    Raises:
        SavingError: it cannot be written.
    """
    if path == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)
    except OSError as error:
        raise SavingError(f"{path}: {error.strerror or error}") from error


def describe(update: Update, *, whole: bool = False) -> JsonObject:
    """An update's numbers, as JSON.

    Args:
        update: of any model.
        whole: also the map, as COCO run-lengths of each class.
    """
    wire: JsonObject = {
        "type": "update",
        "model": update.model.name,
        "exit": update.exit,
        "exits": update.exits,
        "width": update.width,
        "height": update.height,
        "confidence": update.confidence,
        "confident_share": update.confident_share,
        "gmacs": update.gmacs,
        "elapsed_ms": update.times.elapsed_ms,
        "compute_ms": update.times.compute_ms,
        "skipped": update.skipped,
    }
    if update.changed_share is not None:
        wire["changed_share"] = round(update.changed_share, 6)
    if update.joints is not None:
        wire["keypoints"] = [_joint(name, joint) for name, joint in _named(update)]
    elif whole and ArrayName.MAP in update.arrays:
        height, width = update.map.shape
        wire["segments"] = rle.encode(update.map.tobytes(), (height, width))
    return wire


def describe_result(result: Result, *, whole: bool = False) -> JsonObject:
    """A result's numbers, and those of its last update, as JSON."""
    wire: JsonObject = describe(result.update, whole=whole) if result.update is not None else {}
    timing = {name: getattr(result.timing, name) for name in result.timing.__slots__}
    return wire | {
        "type": "final",
        "model": result.model.name,
        "exit": result.exit,
        "exits": result.exits,
        "reason": str(result.reason),
        "gmacs": result.gmacs,
        **timing,
    }


def _named(update: Update) -> list[tuple[str, list[float]]]:
    rows = np.asarray(update.keypoints, np.float64).round(3).tolist()
    return list(zip(update.model.keypoints, rows, strict=False))


def _joint(name: str, joint: list[float]) -> dict[str, Any]:
    x, y, score = joint
    return {"name": name, "x": x, "y": y, "score": score}
