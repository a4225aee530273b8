"""Maps and keypoints drawn over their image: overlays, skeletons, exits side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from anytime_client.results import Update
from anytime_protocol.enums import ArrayName
from anytime_protocol.model_info import ModelInfo

Rgb: TypeAlias = tuple[int, int, int]

MAP_OPACITY: Final = 0.55
MIN_SCORE: Final = 0.2
"""Score from which a keypoint is drawn."""

KEYPOINT_COLOR: Final[Rgb] = (255, 209, 102)
"""Of joints whose model names no colours."""
BONE_COLOR: Final[Rgb] = (17, 138, 178)
"""The same of bones."""
_TEXT_COLOR: Final[Rgb] = (24, 28, 32)
_BACKGROUND: Final[Rgb] = (255, 255, 255)
_GAP: Final = 12
_CAPTION_GAP: Final = 6
_SHEET_SIDES: Final = (240, 960)
"""Px between which the longer side of an image on a sheet is kept."""


def palette(model: ModelInfo) -> NDArray[np.uint8]:
    """The colours of class ids 0 to 255, uint8 (256, 3); black where there is no such class."""
    colors = np.zeros((256, 3), np.uint8)
    for info in model.classes:
        colors[info.id] = info.color
    return colors


def indexed_mask(update: Update) -> Image.Image:
    """The class map as an indexed image: a pixel's index is its class id.

    Raises:
        MissingArrayError: the model is not for segmentation.
    """
    indexed = Image.fromarray(update.map).convert("P")
    indexed.putpalette(palette(update.model).tobytes())
    return indexed


def overlay(image: Image.Image, update: Update) -> Image.Image:
    """The update's map or skeleton over the image.

    Args:
        image: RGB, upright; of any size.
        update: a map is scaled to the image without smoothing, keypoints are moved with it.

    Returns:
        RGB, of the image's size.
    """
    if update.joints is not None:
        return _draw_skeleton(image, update)
    colors = Image.fromarray(palette(update.model)[update.map])
    return Image.blend(image, colors.resize(image.size, Image.Resampling.NEAREST), MAP_OPACITY)


def caption(update: Update) -> str:
    """Two lines about an exit: number and size; time, confidence, share of settled pixels."""
    settled = f", {update.confident_share:.0%} settled" if ArrayName.MAP in update.arrays else ""
    return (
        f"{update.label}\n{update.times.elapsed_ms:.0f} ms, "
        f"confidence {update.confidence:.2f}{settled}"
    )


def contact_sheet(image: Image.Image, updates: Sequence[Update]) -> Image.Image:
    """The exits side by side, each over the image, with its caption below.

    Exits of one size are a row; those of a model that has one size are two in a row.

    Args:
        image: RGB, upright; one that is very large or small is drawn at another size.
        updates: one or more.
    """
    rows = [list(row) for _, row in groupby(updates, lambda update: update.side)]
    if len(rows) == 1:
        rows = [list(updates[start : start + 2]) for start in range(0, len(updates), 2)]
    image = _at_sheet_size(image)
    font = ImageFont.load_default(size=max(12, image.width // 24))
    texts = [_text_size(caption(update), font) for update in updates]
    width = max(image.width, *(text[0] for text in texts)) + _GAP
    height = image.height + _CAPTION_GAP + max(text[1] for text in texts) + _GAP
    size = (max(map(len, rows)) * width + _GAP, len(rows) * height + _GAP)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for y, row in zip(range(_GAP, size[1], height), rows, strict=False):
        for x, update in zip(range(_GAP, size[0], width), row, strict=False):
            sheet.paste(overlay(image, update), (x, y))
            draw.text((x, y + image.height + _CAPTION_GAP), caption(update), _TEXT_COLOR, font)
    return sheet


def _text_size(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> tuple[int, int]:
    """Px that a text takes, from its origin: what its last line lacks below included."""
    _, _, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox(
        (0, 0), text, font
    )
    return math.ceil(right), math.ceil(bottom)


def _at_sheet_size(image: Image.Image) -> Image.Image:
    least, most = _SHEET_SIDES
    factor = min(max(least, *image.size), most) / max(image.size)
    return image if factor == 1 else ImageOps.scale(image, factor, Image.Resampling.LANCZOS)


def _draw_skeleton(image: Image.Image, update: Update) -> Image.Image:
    result = image.copy()
    draw = ImageDraw.Draw(result)
    scale = np.array([image.width / update.width, image.height / update.height])
    thick = max(2, round(max(image.size) / 120))
    points = [
        tuple((point[:2] * scale).tolist()) if point[2] >= MIN_SCORE else None
        for point in update.keypoints
    ]
    colors = update.model.keypoint_colors
    for a, b in update.model.skeleton:
        start, end = points[a], points[b]
        if start is not None and end is not None:
            draw.line([start, end], fill=colors[b] if colors else BONE_COLOR, width=thick)
    for joint, point in enumerate(points):
        if point is not None:
            x, y = point
            box = [x - thick, y - thick, x + thick, y + thick]
            color = colors[joint] if colors else KEYPOINT_COLOR
            draw.ellipse(box, fill=color, outline=_TEXT_COLOR)
    return result
