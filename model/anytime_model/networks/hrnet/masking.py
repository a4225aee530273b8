"""Masks, and the convolution that computes only where its mask is on.

A mask says where the network still computes. It belongs to a run, so it is an argument here and
never an attribute of a layer; a convolution picks the mask of the size that it puts out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anytime_model.kernels.reference import RADIUS, interpolate_inactive, sufficient_radius

INITIAL_LAMBDA = 3.0


@dataclass(frozen=True, slots=True)
class Masks:
    """The active positions of one run between two exits, for every resolution computed there.

    Attributes:
        by_size: (H, W) of a feature map to its (B, 1, H, W) boolean mask.
    """

    by_size: Mapping[tuple[int, int], Tensor]

    @classmethod
    def pyramid(cls, active: Tensor, levels: int) -> Masks:
        """Masks for `active` and the `levels - 1` halvings below it, by nearest neighbour.

        Nearest neighbour at a factor of two takes every second position, and confidence is a
        function of a single position, so this equals resizing the logits first, as the authors'
        code does.
        """
        masks = {}
        for _ in range(levels):
            masks[(active.shape[-2], active.shape[-1])] = active
            active = active[..., ::2, ::2]
        return cls(masks)

    def at(self, y: Tensor) -> Tensor:
        """The mask for a feature map `y` (B, C, H, W)."""
        return self.by_size[(y.shape[-2], y.shape[-1])]


class MaskedConv2d(nn.Conv2d):
    """A convolution that may skip positions and interpolate them instead (section 2, equation 4).

    Without masks it is an ordinary convolution. `lam` is the trainable lambda of equation 6. In
    training, interpolations leave out the taps whose weight is negligible.
    """

    maskable = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, bias: bool
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias)
        self.lam = nn.Parameter(torch.tensor(INITIAL_LAMBDA))

    def forward(self, x: Tensor, masks: Masks | None = None) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H', W'), interpolated where the mask of H'xW' is off."""
        y = super().forward(x)
        if masks is None:
            return y
        radius = sufficient_radius(float(self.lam.detach())) if self.training else RADIUS
        return interpolate_inactive(y, masks.at(y), self.lam, radius)
