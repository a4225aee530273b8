"""The function whose fixed point is the representation (MDEQ, section 3.1 and figure 2).

Each resolution has a residual block; then every resolution is a sum of all of them, brought to its
size, through one more convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from anytime_model.networks.base import Pause
from anytime_model.networks.mdeq.config import MdeqPreset


class GroupNorm(nn.GroupNorm):
    """Group normalisation that takes groups of one value, too, as those of the smallest images."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  PyTorch's
        """(B, C, h, w) to the same shape."""
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, wider in between, beside a shortcut; the image enters before the sum.

    Args:
        channels: in and out.
        expansion: how many times wider it is inside.
        groups: of its normalisations.
    """

    def __init__(self, channels: int, expansion: int, groups: int) -> None:
        super().__init__()
        inside = expansion * channels
        self.widen = weight_norm(nn.Conv2d(channels, inside, 3, padding=1, bias=False))
        self.widen_norm = GroupNorm(groups, inside)
        self.narrow = weight_norm(nn.Conv2d(inside, channels, 3, padding=1, bias=False))
        self.narrow_norm = GroupNorm(groups, channels)
        self.norm = GroupNorm(groups, channels)

    def forward(self, x: Tensor, injection: Tensor | None) -> Tensor:
        """(B, C, h, w) to the same shape; the injection, where there is one, has it too."""
        y = self.narrow(F.relu(self.widen_norm(self.widen(x))))
        if injection is not None:
            y = y + injection
        z: Tensor = self.norm(F.relu(self.narrow_norm(y) + x))
        return z


class Down(nn.Module):
    """From one resolution to a coarser one: 3x3 convolutions of stride 2, each halving it."""

    def __init__(self, widths: Sequence[int], source: int, target: int, groups: int) -> None:
        super().__init__()
        channels = [widths[source]] * (target - source) + [widths[target]]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            for before, after in pairwise(channels)
        )
        self.norms = nn.ModuleList(GroupNorm(groups, after) for after in channels[1:])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', h / 2^k, w / 2^k)."""
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(F.relu(x) if i else x))
        return x


class Up(nn.Module):
    """From one resolution to a finer one: a 1x1 convolution, then each value is repeated."""

    def __init__(self, widths: Sequence[int], source: int, target: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(widths[source], widths[target], 1, bias=False)
        self.norm = GroupNorm(groups, widths[target])
        self._factor = 2 ** (source - target)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', 2^k h, 2^k w)."""
        return F.interpolate(self.norm(self.conv(x)), scale_factor=self._factor, mode="nearest")


class Mix(nn.Module):
    """What one resolution becomes: the sum of all of them, and a 1x1 convolution."""

    def __init__(self, widths: Sequence[int], target: int, groups: int) -> None:
        super().__init__()
        self.sources = nn.ModuleList(
            nn.Identity()
            if source == target
            else (Up if source > target else Down)(widths, source, target, groups)
            for source in range(len(widths))
        )
        width = widths[target]
        self.conv = weight_norm(nn.Conv2d(width, width, 1, bias=False))
        self.norm = GroupNorm(groups // 2, width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of all resolutions to that of this one."""
        brought = [bring(x) for bring, x in zip(self.sources, maps, strict=True)]
        y: Tensor = self.norm(self.conv(F.relu(sum(brought[1:], start=brought[0]))))
        return y


class Function(nn.Module):
    """One evaluation: maps of all resolutions to such maps, under the image's injection."""

    def __init__(self, preset: MdeqPreset) -> None:
        super().__init__()
        widths, groups = preset.widths, preset.groups
        self.blocks = nn.ModuleList(
            ResidualBlock(width, preset.expansion, groups) for width in widths
        )
        self.mixes = nn.ModuleList(Mix(widths, target, groups) for target in range(len(widths)))

    def forward(self, maps: Sequence[Tensor], injection: Tensor, pause: Pause) -> list[Tensor]:
        """Maps (B, C_i, h / 2^i, w / 2^i), finest first, to the same shapes.

        Args:
            maps: of all resolutions.
            injection: (B, C_0, h, w), added at the finest resolution.
            pause: called between modules.
        """
        inside = []
        for i, (block, x) in enumerate(zip(self.blocks, maps, strict=True)):
            pause()
            inside.append(block(x, None if i else injection))
        result = []
        for mix in self.mixes:
            pause()
            result.append(mix(inside))
        return result
