"""A picture in a terminal of colours: two pixels a character, the upper half block."""

from __future__ import annotations

import numpy as np
from PIL import Image
from rich.style import Style
from rich.text import Text

WIDTH = 72
"""Columns that a picture takes."""


def picture(image: Image.Image, width: int = WIDTH) -> Text:
    """The picture as text.

    Args:
        image: RGB, of any size.
        width: columns, 1 or more.
    """
    height = max(2, round(image.height * width / image.width / 2) * 2)
    pixels = np.asarray(image.convert("RGB").resize((width, height)), np.uint8)
    text = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("\u2580", Style(color=_color(top), bgcolor=_color(bottom)))
        text.append("\n")
    return text


def _color(rgb: list[int]) -> str:
    red, green, blue = rgb
    return f"rgb({red},{green},{blue})"
