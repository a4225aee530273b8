"""Which blocks of an image differ from what they were, by more than a camera's noise."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_QUIET: Final = 0.25
"""Quantile of the blocks' deviations that is taken for noise: so many blocks stand still."""

_MOST_NOISE: Final = 6.0
"""Of a camera, levels of 0 to 255, standard deviation; what is above it has changed."""


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
    difference = torch.from_numpy(now).float() - torch.from_numpy(then)
    cut = difference.view(rows, block, columns, block * 3)
    by_column = cut.sum(1).view(rows, columns, block, 3)
    means = by_column.sum(2) / block**2
    squares = cut.square_().sum((1, 3)) / (3 * block**2)
    deviation = (squares - means.square().mean(2)).clamp_(min=0).sqrt_()
    noise = _quantile(deviation, _QUIET).clamp(max=_MOST_NOISE)
    # A mean of so many pixels has 1 / block of their noise; three of them, and four deviations.
    mean_change = means.abs().amax(2) - 4 / block * noise
    found = torch.maximum(mean_change, deviation - 1.5 * noise).clamp_(min=0)
    return found.numpy()


def _quantile(values: Tensor, share: float) -> Tensor:
    flat = values.flatten()
    return flat.kthvalue(1 + int(share * (len(flat) - 1))).values


def widened(mask: NDArray[np.bool_], cells: int) -> NDArray[np.bool_]:
    """A mask (h, w) and everything at most so many cells from it, along each axis."""
    if not cells:
        return mask
    wide = torch.nn.functional.max_pool2d(
        torch.from_numpy(mask)[None].float(), 2 * cells + 1, 1, cells
    )
    found: NDArray[np.bool_] = wide[0].numpy() > 0
    return found
