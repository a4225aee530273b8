"""The shift of a whole image between two frames, as of a camera that turns."""

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

_Value = TypeVar("_Value", bound=np.generic)

_MOST: Final = 0.25
"""Largest shift, as a share of the image along each axis; a larger one shares too little."""


def shift_between(now: NDArray[np.uint8], then: NDArray[np.uint8]) -> tuple[int, int]:
    """How far the content of an earlier image has moved, by phase correlation.

    See Kuglin and Hines, "The Phase Correlation Image Alignment Method", 1975. It works on every
    second pixel, and then tries the pixels around what it has found.

    Args:
        now: (H, W, 3) uint8, at least 16 px along each side.
        then: another image of this shape.

    Returns:
        Rows and columns in px: what was at (y, x) is now at (y + rows, x + columns).
    """
    small_now, small_then = _prepared(now), _prepared(then)
    cross = np.fft.rfft2(small_now) * np.fft.rfft2(small_then).conj()
    height, width = small_now.shape
    peaks = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-6), s=(height, width))
    most = (max(1, int(_MOST * height)), max(1, int(_MOST * width)))
    peaks[most[0] + 1 : height - most[0]] = -1
    peaks[:, most[1] + 1 : width - most[1]] = -1
    row, column = divmod(int(peaks.argmax()), width)
    coarse = (
        2 * (row - height if row > height // 2 else row),
        2 * (column - width if column > width // 2 else column),
    )
    near = [(coarse[0] + dy, coarse[1] + dx) for dy in (0, -1, 1) for dx in (0, -1, 1)]
    return min(near, key=lambda shift: _misfit(now, then, shift))


def shifted(values: NDArray[_Value], shift: tuple[int, int], empty: int) -> NDArray[_Value]:
    """An array (h, w, ...) moved by so many rows and columns; what comes in is `empty`."""
    moved = np.full_like(values, empty)
    into, from_ = _overlap(values.shape[:2], shift)
    moved[into] = values[from_]
    return moved


def _overlap(
    size: tuple[int, ...], shift: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where an array that is moved lands in itself, and where that comes from."""
    into = [slice(max(0, s), max(0, min(n, n + s))) for n, s in zip(size, shift, strict=True)]
    from_ = [slice(max(0, -s), max(0, min(n, n - s))) for n, s in zip(size, shift, strict=True)]
    return (into[0], into[1]), (from_[0], from_[1])


def _prepared(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The green channel at half the size, faded out towards the border."""
    height, width = (n // 2 for n in image.shape[:2])
    cut = image[: 2 * height, : 2 * width, 1].reshape(height, 2, width, 2)
    grey = cut.mean(axis=(1, 3), dtype=np.float32)
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    found: NDArray[np.float32] = (grey - grey.mean()) * window
    return found


def _misfit(now: NDArray[np.uint8], then: NDArray[np.uint8], shift: tuple[int, int]) -> float:
    """Mean difference of the green channel where both images are, every third row and column."""
    into, from_ = _overlap(now.shape[:2], shift)
    ours, theirs = (image[part][::3, ::3, 1] for image, part in ((now, into), (then, from_)))
    return float(np.abs(ours.astype(np.int16) - theirs).mean())
