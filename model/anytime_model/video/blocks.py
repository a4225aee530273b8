"""Which blocks of an image differ from what they were, by more than a camera's noise."""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anytime_model.kernels.handles import MOST_BLOCK, block_differences
from anytime_model.kernels.library import KernelError, Library, load

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
    mean, deviation = _differences(now, then, block)
    quiet = int(_QUIET * (deviation.size - 1))
    noise = min(float(np.partition(deviation, quiet, axis=None)[quiet]), MOST_NOISE)
    mean -= np.float32(_MEAN_NOISE / block * noise)
    deviation -= np.float32(_DEVIATION_NOISE * noise)
    found: NDArray[np.float32] = np.maximum(mean, deviation)
    return found.clip(min=0, out=found)


@cache
def _kernels() -> Library | None:
    try:
        return load()
    except KernelError:
        return None


def _differences(
    now: NDArray[np.uint8], then: NDArray[np.uint8], block: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """See `block_differences`; without kernels it takes longer."""
    library = _kernels()
    if library is not None and block <= MOST_BLOCK:
        now, then = np.ascontiguousarray(now), np.ascontiguousarray(then)
        return block_differences(library, now, then, block)
    return differences_without_kernels(now, then, block)


def differences_without_kernels(
    now: NDArray[np.uint8], then: NDArray[np.uint8], block: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """See `block_differences`."""
    rows, columns = now.shape[0] // block, now.shape[1] // block
    blocks = np.subtract(now, then, dtype=np.int32).reshape(rows, block, columns, block, 3)
    means = blocks.sum(axis=(1, 3)).astype(np.float32) / np.float32(block**2)
    square = (blocks * blocks).sum(axis=(1, 3, 4)).astype(np.float32) / np.float32(3 * block**2)
    variance = square - (means * means).sum(axis=2) / 3
    return np.abs(means).max(axis=2), np.sqrt(variance.clip(min=0))


def with_samples(mask: NDArray[np.bool_], levels: int) -> NDArray[np.bool_]:
    """A mask (h, w) with the cells that stand for others at coarser resolutions.

    A network's resolution of 1/b of the map's takes every b-th cell of every b-th row for the block
    of b x b cells around it. Where a quarter of a block is set, so is that cell.

    Args:
        mask: h and w multiples of 2^levels.
        levels: coarser resolutions, each half of the one before; at most 3.
    """
    found, halves = mask.copy(), mask.view(np.uint8)  # how many of blocks of half the side are set
    for level in range(1, levels + 1):
        block = 1 << level
        around = np.zeros((halves.shape[0] + 1, halves.shape[1] + 1), np.uint8)
        around[1:, 1:] = halves
        found[::block, ::block] |= _sums_of_four(around[:-1, :-1]) >= block**2 // 4
        halves = _sums_of_four(halves)
    return found


def _sums_of_four(counts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of each 2x2 cells (h, w), both even."""
    rows = counts[::2] + counts[1::2]
    sums: NDArray[np.uint8] = rows[:, ::2] + rows[:, 1::2]
    return sums


def widened(mask: NDArray[np.bool_], cells: int) -> NDArray[np.bool_]:
    """A mask (h, w) and everything at most so many cells from it, along each axis."""
    found, done = mask.copy(), 0
    while done < cells:
        step = min(done + 1, cells - done)  # what lies beside what was found, without a gap
        for axis in (found, found.T):
            before = axis.copy()
            axis[step:] |= before[:-step]
            axis[:-step] |= before[step:]
        done += step
    return found


def narrowed(mask: NDArray[np.bool_], cells: int) -> NDArray[np.bool_]:
    """A mask (h, w) without what lies at most so many cells from where it is off."""
    return ~widened(~mask, cells)
