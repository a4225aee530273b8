"""Which blocks of an image differ from what they were, by more than a camera's noise."""

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

_QUIET: Final = 0.25
"""Quantile of the blocks' deviations that is taken for noise: so many blocks stand still."""

MOST_NOISE: Final = 6.0
"""Of a camera, levels of 0 to 255, standard deviation; what is above it has changed."""

_MEAN_NOISE: Final = 4.0
"""Deviations that a mean may be off: it has 1 / block of the noise, and there are three."""

_DEVIATION_NOISE: Final = 1.5
"""Of one block over that of the quiet ones, as textures and compression have more noise."""


def change(now: NDArray[np.uint8], then: NDArray[np.uint8], block: int) -> NDArray[np.float32]:
    """How much each block has changed, in levels of 0 to 255, noise taken off.

    Two figures of the difference of a block's pixels count, and the larger one is taken: the
    largest mean of a channel, which light and surfaces change, and the standard deviation about
    these means, which edges and texture change. Noise has little of the first, so it is estimated
    from the second, as a low quantile over the image: a slow change of the light is no noise.

    Args:
        now: (H, W, 3) uint8, H and W multiples of `block`.
        then: another image of this shape.
        block: px along each side.

    Returns:
        (H / block, W / block) float32, from 0.
    """
    rows, columns = now.shape[0] // block, now.shape[1] // block
    difference = np.subtract(now, then, dtype=np.int16)
    squares = (difference * difference).view(
        np.uint16
    )  # up to 255^2: int16 wraps it, uint16 holds it
    sums = _sum_of_rows(difference, block, np.int32).reshape(rows, columns, block, 3)
    means = sums[:, :, 0].astype(np.float32)
    for column in range(1, block):
        means += sums[:, :, column]
    means /= block**2
    square = _sum_of_rows(squares, block, np.uint32).reshape(rows, columns, block * 3)
    square = square.astype(np.float32) @ np.ones(block * 3, np.float32) / (3 * block**2)
    red, green, blue = (means[:, :, channel] for channel in range(3))
    variance = square - (red * red + green * green + blue * blue) / 3
    deviation = np.sqrt(variance.clip(min=0))
    noise = min(float(np.quantile(deviation, _QUIET, method="lower")), MOST_NOISE)
    largest = np.maximum(np.maximum(abs(red), abs(green)), abs(blue))
    mean_change = largest - _MEAN_NOISE / block * noise
    found: NDArray[np.float32] = np.maximum(mean_change, deviation - _DEVIATION_NOISE * noise)
    return found.clip(min=0)


def _sum_of_rows(values: NDArray[Any], block: int, kind: DTypeLike) -> NDArray[Any]:
    """Of each `block` rows of (H, W, 3): (H / block, W, 3)."""
    total = values[::block].astype(kind)
    for row in range(1, block):
        total += values[row::block]
    return total


def with_samples(mask: NDArray[np.bool_], levels: int) -> NDArray[np.bool_]:
    """A mask (h, w) with the cells that stand for others at coarser resolutions.

    A network's resolution of 1/b of the map's takes every b-th cell of every b-th row for the block
    of b x b cells around it. Where something of a block is set, so is that cell.

    Args:
        mask: h and w multiples of 2^levels.
        levels: coarser resolutions, each half of the one before.
    """
    found = mask.copy()
    for level in range(1, levels + 1):
        block = 1 << level
        rows, columns = (n // block for n in mask.shape)
        around = np.pad(mask, (block // 2, 0))[: mask.shape[0], : mask.shape[1]]
        found[::block, ::block] |= around.reshape(rows, block, columns, block).any(axis=(1, 3))
    return found


def widened(mask: NDArray[np.bool_], cells: int) -> NDArray[np.bool_]:
    """A mask (h, w) and everything at most so many cells from it, along each axis."""
    for axis in (0, 1):
        margin = [(0, 0), (0, 0)]
        margin[axis] = (cells + 1, cells)
        sums = np.pad(mask, margin).cumsum(axis=axis, dtype=np.int32)
        length, width = mask.shape[axis], 2 * cells + 1
        ends = np.take(sums, range(width, width + length), axis=axis)
        mask = ends > np.take(sums, range(length), axis=axis)
    return mask
