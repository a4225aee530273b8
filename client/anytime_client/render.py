"""Maps and keypoints drawn over their image: overlays, skeletons, exits side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anytime_client.results import Update
from anytime_protocol.enums import ArrayName
from anytime_protocol.model_info import ModelInfo

Rgb: TypeAlias = tuple[int, int, int]

MAP_OPACITY: Final = 0.55
MIN_SCORE: Final = 0.2
"""Score from which a keypoint is drawn."""

KEYPOINT_COLOR: Final[Rgb] = (255, 209, 102)
BONE_COLOR: Final[Rgb] = (17, 138, 178)
_TEXT_COLOR: Final[Rgb] = (24, 28, 32)
_BACKGROUND: Final[Rgb] = (255, 255, 255)
_GAP: Final = 12
_CAPTION_HEIGHT: Final = 44


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
    """One line about an exit: number, time, confidence, share of settled pixels."""
    settled = f", {update.confident_share:.0%} settled" if ArrayName.MAP in update.arrays else ""
    return (
        f"exit {update.exit} of {update.exits}: {update.times.elapsed_ms:.0f} ms, "
        f"confidence {update.confidence:.2f}{settled}"
    )


def contact_sheet(image: Image.Image, updates: Sequence[Update], columns: int = 2) -> Image.Image:
    """The exits side by side, each over the image, with its caption below.

    Args:
        image: RGB, upright.
        updates: one or more.
        columns: images in a row.
    """
    columns = min(columns, len(updates))
    rows = -(-len(updates) // columns)
    width, height = image.width + _GAP, image.height + _CAPTION_HEIGHT
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=max(12, image.width // 28))
    for index, update in enumerate(updates):
        x = _GAP + (index % columns) * width
        y = _GAP + (index // columns) * height
        sheet.paste(overlay(image, update), (x, y))
        draw.text((x, y + image.height + 6), caption(update), _TEXT_COLOR, font)
    return sheet


def _draw_skeleton(image: Image.Image, update: Update) -> Image.Image:
    result = image.copy()
    draw = ImageDraw.Draw(result)
    scale = np.array([image.width / update.width, image.height / update.height])
    thick = max(2, round(max(image.size) / 120))
    points = [
        tuple((point[:2] * scale).tolist()) if point[2] >= MIN_SCORE else None
        for point in update.keypoints
    ]
    for a, b in update.model.skeleton:
        start, end = points[a], points[b]
        if start is not None and end is not None:
            draw.line([start, end], fill=BONE_COLOR, width=thick)
    for x, y in filter(None, points):
        box = [x - thick, y - thick, x + thick, y + thick]
        draw.ellipse(box, fill=KEYPOINT_COLOR, outline=_TEXT_COLOR)
    return result
