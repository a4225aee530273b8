"""An image as text for a terminal with colours: two pixels a character, the upper half block."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

WIDTH: Final = 72
"""Columns that an image takes."""


def image_to_text(image: Image.Image, width: int = WIDTH) -> Text:
    """The image as coloured text.

    Args:
        image: RGB, of any size.
        width: columns, 1 or more.
    """
    height = max(2, round(image.height * width / image.width / 2) * 2)
    pixels = np.asarray(image.convert("RGB").resize((width, height)), np.uint8)
    text = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            style = Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom))
            text.append("\u2580", style)
        text.append("\n")
    return text
