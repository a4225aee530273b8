"""Maps and joints as pictures for people.

Decides colours, captions and layout: the map's own palette laid over the image, settled pixels
dimmed, the skeleton drawn, several exits side by side. Reads and writes no files (`saving` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anytime_client.results import Update
from anytime_protocol.enums import ArrayName
from anytime_protocol.resources import ModelInfo

Rgb = tuple[int, int, int]

OPACITY: Final = 0.55
"""Of the map over the image."""

SEEN: Final = 0.2
"""Score from which a joint is drawn."""

JOINT: Final[Rgb] = (255, 209, 102)
BONE: Final[Rgb] = (17, 138, 178)
INK: Final[Rgb] = (24, 28, 32)
PAPER: Final[Rgb] = (255, 255, 255)
_GAP: Final = 12
_CAPTION: Final = 44


def palette(model: ModelInfo) -> NDArray[np.uint8]:
    """The colours of class ids 0 to 255, uint8 (256, 3); black where there is no such class."""
    colors = np.zeros((256, 3), np.uint8)
    for info in model.classes:
        colors[info.id] = info.color
    return colors


def mask(update: Update) -> Image.Image:
    """The class map as an indexed picture: a pixel's index is its class id.

    Raises:
        MissingArrayError: the model is not for segmentation.
    """
    picture = Image.fromarray(update.map, "L")
    indexed = Image.new("P", picture.size)
    indexed.putdata(picture.tobytes())
    indexed.putpalette(palette(update.model).tobytes())
    return indexed


def overlay(picture: Image.Image, update: Update) -> Image.Image:
    """What the update sees, over the image.

    Args:
        picture: RGB, upright; of any size.
        update: a map is scaled to the picture without smoothing, joints are moved with it.

    Returns:
        RGB, of the picture's size.
    """
    if update.joints is not None:
        return skeleton(picture, update)
    colors = Image.fromarray(palette(update.model)[update.map])
    return Image.blend(picture, colors.resize(picture.size, Image.Resampling.NEAREST), OPACITY)


def active_view(picture: Image.Image, update: Update) -> Image.Image:
    """The image, grey and dark where its pixels are settled and not computed any more.

    Raises:
        MissingArrayError: the mask was not asked for.
    """
    active = Image.fromarray(update.active).resize(picture.size, Image.Resampling.NEAREST)
    dimmed = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", picture.size), 0.6)
    return Image.composite(picture, dimmed, active)


def skeleton(picture: Image.Image, update: Update) -> Image.Image:
    """The joints that are seen, and the bones between them."""
    result = picture.copy()
    draw = ImageDraw.Draw(result)
    scale = np.array([picture.width / update.width, picture.height / update.height])
    thick = max(2, round(max(picture.size) / 120))
    points = [
        tuple((point[:2] * scale).tolist()) if point[2] >= SEEN else None
        for point in update.keypoints
    ]
    for a, b in update.model.skeleton:
        start, end = points[a], points[b]
        if start is not None and end is not None:
            draw.line([start, end], fill=BONE, width=thick)
    for point in points:
        if point is not None:
            x, y = point
            draw.ellipse([x - thick, y - thick, x + thick, y + thick], fill=JOINT, outline=INK)
    return result


def caption(update: Update) -> str:
    """One line about an exit: which, when, how sure, how much of it is settled."""
    settled = f", {update.confident_share:.0%} settled" if ArrayName.MAP in update.arrays else ""
    return (
        f"exit {update.exit} of {update.exits}: {update.times.elapsed_ms:.0f} ms, "
        f"confidence {update.confidence:.2f}{settled}"
    )


def sheet(picture: Image.Image, updates: Sequence[Update], columns: int = 2) -> Image.Image:
    """The exits side by side, each over the image, with its time below.

    Args:
        picture: RGB, upright.
        updates: one or more.
        columns: pictures in a row.
    """
    columns = min(columns, len(updates))
    rows = -(-len(updates) // columns)
    width, height = picture.width + _GAP, picture.height + _CAPTION
    result = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), PAPER)
    draw = ImageDraw.Draw(result)
    font = ImageFont.load_default(size=max(12, picture.width // 28))
    for index, update in enumerate(updates):
        x = _GAP + (index % columns) * width
        y = _GAP + (index // columns) * height
        result.paste(overlay(picture, update), (x, y))
        draw.text((x, y + picture.height + 6), caption(update), INK, font)
    return result
