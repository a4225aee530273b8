"""Exits: heads that join all maps made so far, from the coarsest down to 1/4 of the resolution.

The coarsest map is pooled to 1/32, where two depthwise 7x7 convolutions see most of an image for
next to nothing. From there each level adds 1x1 convolutions of its maps to the upsampled level
above. A dense 3x3 convolution works at 1/8; at 1/4, where positions are many, a separable one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch.nn.functional as F
from torch import Tensor, nn

from anytime_model.networks.lite.blocks import NORM_EPSILON, NORM_MOMENTUM, NormedConv, Separable
from anytime_model.networks.lite.config import LiteConfig
from anytime_model.networks.lite.encoder import map_widths
from anytime_model.networks.lite.presets import MAP_STRIDES
from anytime_model.ops import upsample

CONTEXT_KERNEL = 7
CONTEXT_BLOCKS = 2


class Context(nn.Module):
    """What surrounds each place: a map pooled to 1/32, seen through large depthwise kernels."""

    def __init__(self, in_channels: int, width: int, pool: int) -> None:
        super().__init__()
        self._pool = pool
        self.reduce = NormedConv(in_channels, width)
        self.blocks = nn.ModuleList(Separable(width, CONTEXT_KERNEL) for _ in range(CONTEXT_BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, width, H / pool, W / pool)."""
        y: Tensor = self.reduce(F.avg_pool2d(x, self._pool) if self._pool > 1 else x)
        for block in self.blocks:
            y = y + block(y)
        return y


class Join(nn.Module):
    """One level: the level above upsampled, plus a 1x1 convolution of each map, then `refine`.

    `grows` says whether the level above is coarser than this one.
    """

    def __init__(
        self, in_channels: Sequence[int], width: int, refine: nn.Module, *, grows: bool
    ) -> None:
        super().__init__()
        self._grows = grows
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in in_channels)
        self.norm = nn.BatchNorm2d(width, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
        self.refine = refine

    def forward(self, above: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """(B, width, h, w) and the maps of this level (B, C, H, W) to (B, width, H, W)."""
        if self._grows:
            above = upsample(above, maps[0].shape[-2:])
        own = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        joined: Tensor = self.refine(F.relu6(self.norm(reduce(add, own, above))))
        return joined


class JoiningExit(nn.Module):
    """An exit after any stage.

    Args:
        widths: channels of the maps that it reads, finest first.
        strides: px of the image for each of their cells.
        outputs: channels of its own map.
        width: channels inside.
    """

    def __init__(
        self, widths: Sequence[int], strides: Sequence[int], outputs: int, width: int
    ) -> None:
        super().__init__()
        self.context = Context(widths[-1], width, MAP_STRIDES[-1] // strides[-1])
        self.levels = [
            [i for i, stride in enumerate(strides) if stride == level]
            for level in sorted(set(strides), reverse=True)
        ]
        self.joins = nn.ModuleList(
            Join(
                [widths[i] for i in members],
                width,
                _refinement(strides[members[0]], width),
                grows=strides[members[0]] < MAP_STRIDES[-1],
            )
            for members in self.levels
        )
        self.predict = nn.Conv2d(width, outputs, 1)

    def forward(self, maps: Sequence[Tensor], masks: None) -> Tensor:  # noqa: ARG002
        """Maps, finest first, to (B, outputs, h, w) at 1/4."""
        x = self.context(maps[-1])
        for join, members in zip(self.joins, self.levels, strict=True):
            x = join(x, [maps[i] for i in members])
        y: Tensor = self.predict(x)
        return y


def _refinement(stride: int, width: int) -> nn.Module:
    match stride:
        case 4:
            return Separable(width, 3)
        case 8:
            return NormedConv(width, width, 3)
        case _:
            return nn.Identity()


def build_exits(config: LiteConfig) -> nn.ModuleList:
    """The exits of a network, one for each stage."""
    widths = map_widths(config.size)
    return nn.ModuleList(
        JoiningExit(widths[:maps], MAP_STRIDES[:maps], config.outputs, width)
        for maps, width in enumerate(config.head_widths, start=2)
    )
