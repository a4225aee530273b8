"""The meaning of a masked convolution, in plain torch. Faster implementations must agree with it.

Where a position is active, the convolution's own output stands. Elsewhere stands a weighted mean
of the active outputs around it (paper, section 2, equations 4 to 6). The paper's radius of 7 is,
in the authors' code, a window of 7x7 taps; masked-out neighbours take part as zeros, and their
weights count in the norm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 3
EPSILON = 1e-5


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


def fill_inactive(y: Tensor, active: Tensor, lam: Tensor) -> Tensor:
    """Replace the inactive positions of `y` by an interpolation of the active ones (equation 4).

    Args:
        y: (B, C, H, W) output of a convolution.
        active: (B, 1, H, W) boolean, True where `y` is to be kept.
        lam: lambda, a scalar.

    Returns:
        (B, C, H, W), differentiable in `y` and `lam`.
    """
    channels = y.shape[1]
    window = rbf_weights(lam.float()).to(y.dtype).expand(channels, 1, -1, -1)
    kept = torch.where(active, y, 0.0)
    around = F.conv2d(kept, window, padding=RADIUS, groups=channels)
    return torch.where(active, y, around)
