"""Tensor operations that networks, tasks, engines and evaluation share."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, h, w) bilinearly to (B, C, *size), pixel centres at half-integers."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
