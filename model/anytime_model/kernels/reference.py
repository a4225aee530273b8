"""The definition of a masked convolution, in plain torch; faster kernels must agree with it.

Where a position is active, the convolution's own output stands. Elsewhere stands a weighted mean
of the active outputs around it (paper, section 2, equations 4 to 6). The paper's radius of 7 is,
in the authors' code, a window of 7x7 taps; masked-out neighbours take part as zeros, and their
weights count in the norm.

Training may leave out taps that cannot matter. With lambda near 3, where it starts, the eight
neighbours hold all but 2e-12 of the window's weight.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 3
EPSILON = 1e-5
NEGLIGIBLE = 1e-8
"""Share of the window's weight that `sufficient_radius` may leave out; a float32 resolves 6e-8."""


def rbf_weights(lam: Tensor) -> Tensor:
    """Weights of the 7x7 window: exp(-lambda^2 d^2) over their sum, 0 at the centre (equation 6).

    Args:
        lam: lambda, a scalar.

    Returns:
        (7, 7) weights in lambda's type.
    """
    offsets = torch.arange(-RADIUS, RADIUS + 1, device=lam.device, dtype=lam.dtype)
    squared = offsets[:, None] ** 2 + offsets[None, :] ** 2
    weights = torch.exp(-(lam**2) * squared) * (squared > 0)
    return weights / (weights.sum() + EPSILON)


def sufficient_radius(lam: float) -> int:
    """The smallest radius, 1 to 3, that leaves out at most `NEGLIGIBLE` of the window's weight.

    The four nearest taps weigh exp(-lambda^2) each; those beyond a radius r at most
    exp(-lambda^2 (r + 1)^2) each.
    """
    for radius in range(1, RADIUS):
        beyond = (2 * RADIUS + 1) ** 2 - (2 * radius + 1) ** 2
        if beyond / 4 * math.exp(-(lam**2) * ((radius + 1) ** 2 - 1)) <= NEGLIGIBLE:
            return radius
    return RADIUS


def interpolate_inactive(y: Tensor, active: Tensor, lam: Tensor, radius: int = RADIUS) -> Tensor:
    """Replace the inactive positions of `y` by an interpolation of the active ones (equation 4).

    Args:
        y: (B, C, H, W) output of a convolution.
        active: (B, 1, H, W) boolean, True where `y` is to be kept; or, to train what makes masks,
            the share of `y` that is kept at each position, 0 to 1, a floating type.
        lam: lambda, a scalar.
        radius: of the taps that are computed; 3 by definition, see `sufficient_radius`.

    Returns:
        (B, C, H, W), differentiable in `y` and `lam`.
    """
    channels = y.shape[1]
    taps = slice(RADIUS - radius, RADIUS + radius + 1)
    window = rbf_weights(lam.float())[taps, taps].to(y.dtype).expand(channels, 1, -1, -1)
    hard = active.dtype is torch.bool
    kept = torch.where(active, y, 0.0) if hard else active * y
    around = F.conv2d(kept, window, padding=radius, groups=channels)
    return torch.where(active, y, around) if hard else torch.lerp(around, y, active)
