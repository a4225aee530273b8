"""Updates and results as files and as JSON."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

from anytime_client import render
from anytime_client.errors import AnytimeError
from anytime_client.results import Result, Update
from anytime_protocol.arrays import rle
from anytime_protocol.enums import ArrayName
from anytime_protocol.validation import JsonObject

STANDARD = "-"
"""In place of a path: standard input or output."""


class OutputError(AnytimeError):
    """A file cannot be written, or its name stands for no known format."""


class OutputFormat(StrEnum):
    """What a file holds."""

    MASK = "mask"
    """PNG, indexed: a pixel's index is its class id."""
    OVERLAY = "overlay"
    """PNG: the map or the skeleton over the image."""
    NPY = "npy"
    """NumPy: uint8 (H, W) class ids, or float32 (J, 3) keypoints."""
    JSON = "json"
    """Figures, and COCO run-lengths of each class or the keypoints."""

    @property
    def suffix(self) -> str:
        """The suffix of such a file's name, with its dot."""
        is_png = self in {OutputFormat.MASK, OutputFormat.OVERLAY}
        return ".png" if is_png else f".{self}"


def format_of(path: str) -> OutputFormat:
    """The format that a file's name stands for.

    Raises:
        OutputError: it stands for none.
    """
    match Path(path).suffix.lower():
        case ".npy":
            return OutputFormat.NPY
        case ".json":
            return OutputFormat.JSON
        case ".png":
            return OutputFormat.OVERLAY
        case _ if path == STANDARD:
            return OutputFormat.MASK
        case suffix:
            found = suffix or "no suffix"
            raise OutputError(f"{path}: found {found}, expected .png, .npy or .json")


def check_form(path: str, form: OutputFormat) -> None:
    """Checks that a file's name does not stand for something else than is written.

    Raises:
        OutputError: it does.
    """
    if path != STANDARD and Path(path).suffix.lower() != form.suffix:
        found = Path(path).suffix or "no suffix"
        raise OutputError(f"{path}: found {found}, expected {form.suffix} for the form {form}")


def encode_update(update: Update, image: Image.Image, format_: OutputFormat) -> bytes:
    """A file's bytes.

    Args:
        update: what to write.
        image: upright, RGB, for overlays.
        format_: of the file.

    Raises:
        OutputError: a mask of a pose model.
    """
    if format_ is OutputFormat.MASK and update.joints is not None:
        found = f"{update.model.name} is a pose model, which makes no map"
        raise OutputError(f"{format_}: {found}; expected the form overlay, npy or json")
    out = io.BytesIO()
    match format_:
        case OutputFormat.MASK:
            render.indexed_mask(update).save(out, "PNG")
        case OutputFormat.OVERLAY:
            render.overlay(image, update).save(out, "PNG")
        case OutputFormat.NPY:
            array = update.map if update.joints is None else update.keypoints
            np.save(out, array, allow_pickle=False)
        case OutputFormat.JSON:
            out.write(json.dumps(update_to_json(update, with_map=True)).encode() + b"\n")
    return out.getvalue()


def write(path: str | Path, data: bytes) -> None:
    """Writes a file and its folders, or to standard output for `-`.

    Raises:
        OutputError: it cannot be written.
    """
    if path == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error


def update_to_json(update: Update, *, with_map: bool = False) -> JsonObject:
    """An update's figures and keypoints.

    Args:
        update: of any model.
        with_map: also the map, as COCO run-lengths of each class.
    """
    fields: JsonObject = {
        "type": "update",
        "model": update.model.name,
        "exit": update.exit,
        "exits": update.exits,
        "width": update.width,
        "height": update.height,
        "confidence": update.confidence,
        "confident_share": update.confident_share,
        "gmacs": update.gmacs,
        **asdict(update.times),
        "skipped": update.skipped,
    }
    if update.side is not None:
        fields["side"] = update.side
    if update.changed_share is not None:
        fields["changed_share"] = round(update.changed_share, 6)
    if update.joints is not None:
        rows = np.asarray(update.joints, np.float64).round(3).tolist()
        fields["keypoints"] = [
            {"name": name, "x": x, "y": y, "score": score}
            for name, (x, y, score) in zip(update.model.keypoints, rows, strict=False)
        ]
    elif with_map and ArrayName.MAP in update.arrays:
        height, width = update.map.shape
        fields["segments"] = rle.encode(update.map.tobytes(), (height, width))
    return fields


def result_to_json(result: Result, *, with_map: bool = False) -> JsonObject:
    """A result's figures, and those of its last update."""
    last = {} if result.update is None else update_to_json(result.update, with_map=with_map)
    return last | {
        "type": "final",
        "model": result.model.name,
        "exit": result.exit,
        "exits": result.exits,
        "reason": str(result.reason),
        "gmacs": result.gmacs,
        **asdict(result.timing),
        **({} if result.risk is None else {"risk": result.risk}),
    }
