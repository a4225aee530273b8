"""Exits: small heads that turn the features of a stage into a map (section 2, "Head Redesign").

All of them take the stage's branches and put out maps at 1/4 of the image's resolution. Exit 1 is
built with plain convolutions, since nothing is masked before it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anytime_model.networks.hrnet.blocks import ConvNorm, conv
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.networks.hrnet.masking import Masks
from anytime_model.ops import upsample
from anytime_model.tasks import TASKS


class LinearExit(nn.Module):
    """One 1x1 convolution on the finest branch: the standard head of the pose network."""

    def __init__(self, widths: Sequence[int], outputs: int, *, maskable: bool) -> None:
        super().__init__()
        self.predict = conv(widths[0], outputs, 1, bias=True, maskable=maskable)

    def forward(self, branches: Sequence[Tensor], masks: Masks | None) -> Tensor:
        """Branches, finest first, to (B, outputs, h, w)."""
        return _predict(self.predict, branches[0], masks)


class OriginalExit(nn.Module):
    """HRNet's own segmentation head: a 1x1 convolution of its width, then one to the classes."""

    def __init__(self, widths: Sequence[int], outputs: int, *, maskable: bool) -> None:
        super().__init__()
        channels = sum(widths)
        self.mix = ConvNorm(channels, channels, 1, bias=True, maskable=maskable)
        self.predict = conv(channels, outputs, 1, bias=True, maskable=maskable)

    def forward(self, branches: Sequence[Tensor], masks: Masks | None) -> Tensor:
        """Branches, finest first, to (B, outputs, h, w)."""
        return _predict(self.predict, self.mix(concatenate(branches), masks), masks)


class RedesignedExit(nn.Module):
    """An encoder-decoder: `depth` times pool and 1x1, then `depth` times upsample and 1x1.

    The last convolution puts out the map and has neither normalisation nor ReLU.
    """

    def __init__(
        self, widths: Sequence[int], outputs: int, *, width: int, depth: int, maskable: bool
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            ConvNorm(sum(widths) if i == 0 else width, width, 1, bias=True, maskable=maskable)
            for i in range(depth)
        )
        self.decoder = nn.ModuleList(
            ConvNorm(width, width, 1, bias=True, maskable=maskable) for _ in range(depth - 1)
        )
        self.predict = conv(width, outputs, 1, bias=True, maskable=maskable)

    def forward(self, branches: Sequence[Tensor], masks: Masks | None) -> Tensor:
        """Branches, finest first, to (B, outputs, h, w); h and w divisible by 2^depth."""
        x = concatenate(branches)
        for layer in self.encoder:
            x = layer(F.avg_pool2d(x, 2), masks)
        for layer in self.decoder:
            x = layer(_double(x), masks)
        return _predict(self.predict, _double(x), masks)


def _double(x: Tensor) -> Tensor:
    return upsample(x, (2 * x.shape[-2], 2 * x.shape[-1]))


def _predict(layer: nn.Module, x: Tensor, masks: Masks | None) -> Tensor:
    y: Tensor = layer(x) if masks is None else layer(x, masks)
    return y


def concatenate(branches: Sequence[Tensor]) -> Tensor:
    """All branches, upsampled to the finest one's size, side by side: (B, sum of widths, h, w)."""
    size = branches[0].shape[-2:]
    return torch.cat([branches[0], *(upsample(x, size) for x in branches[1:])], dim=1)


def build_exits(config: NetworkConfig) -> nn.ModuleList:
    """The exits of a network, one for each stage."""
    widths = list(config.size.stage_widths)
    if not TASKS[config.task].combines_branches:
        widths[-1] = widths[-1][:1]
    return nn.ModuleList(_build_exit(config, i, widths[i]) for i in range(config.num_exits))


def _build_exit(config: NetworkConfig, index: int, widths: Sequence[int]) -> nn.Module:
    maskable = index > 0
    if config.exits == "redesigned" and index < config.num_exits - 1:
        return RedesignedExit(
            widths,
            config.outputs,
            width=config.head_width,
            depth=config.depths[index],
            maskable=maskable,
        )
    standard = OriginalExit if TASKS[config.task].combines_branches else LinearExit
    return standard(widths, config.outputs, maskable=maskable)
