"""Exits: small heads that turn the features of a stage into a map (section 2, "Head Redesign").

All of them take the stage's branches, resized to the finest and concatenated, and put out maps at
1/4 of the image's resolution. Exit 1 is built with plain convolutions, since nothing is masked
before it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anytime_model.blocks import ConvNorm, conv
from anytime_model.config import NUM_EXITS, NetworkConfig
from anytime_model.hrnet import upsample
from anytime_model.masking import Masks


class LinearExit(nn.Module):
    """One 1x1 convolution: the standard head of the pose network."""

    def __init__(self, in_channels: int, outputs: int, *, maskable: bool) -> None:
        super().__init__()
        self.predict = conv(in_channels, outputs, 1, bias=True, maskable=maskable)

    def forward(self, x: Tensor, masks: Masks | None) -> Tensor:
        """(B, C, h, w) to (B, outputs, h, w)."""
        return _predict(self.predict, x, masks)


class OriginalExit(nn.Module):
    """HRNet's own segmentation head: a 1x1 convolution of its width, then one to the classes."""

    def __init__(self, in_channels: int, outputs: int, *, maskable: bool) -> None:
        super().__init__()
        self.mix = ConvNorm(in_channels, in_channels, 1, bias=True, maskable=maskable)
        self.predict = conv(in_channels, outputs, 1, bias=True, maskable=maskable)

    def forward(self, x: Tensor, masks: Masks | None) -> Tensor:
        """(B, C, h, w) to (B, outputs, h, w)."""
        return _predict(self.predict, self.mix(x, masks), masks)


class RedesignedExit(nn.Module):
    """An encoder-decoder: `depth` times pool and 1x1, then `depth` times upsample and 1x1.

    The last convolution puts out the map and has neither normalisation nor ReLU.
    """

    def __init__(
        self, in_channels: int, outputs: int, *, width: int, depth: int, maskable: bool
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            ConvNorm(in_channels if i == 0 else width, width, 1, bias=True, maskable=maskable)
            for i in range(depth)
        )
        self.decoder = nn.ModuleList(
            ConvNorm(width, width, 1, bias=True, maskable=maskable) for _ in range(depth - 1)
        )
        self.predict = conv(width, outputs, 1, bias=True, maskable=maskable)

    def forward(self, x: Tensor, masks: Masks | None) -> Tensor:
        """(B, C, h, w) to (B, outputs, h, w); h and w divisible by 2^depth."""
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


def concatenate(branches: tuple[Tensor, ...]) -> Tensor:
    """All branches, upsampled to the finest one's size, side by side: (B, sum of widths, h, w)."""
    size = branches[0].shape[-2:]
    return torch.cat([branches[0], *(upsample(x, size) for x in branches[1:])], dim=1)


def build_exits(config: NetworkConfig) -> nn.ModuleList:
    """The four exits of a network."""
    widths = [sum(branches) for branches in config.size.stage_widths]
    if config.task == "pose":
        widths[-1] = config.size.width
    exits: list[nn.Module] = []
    for i in range(NUM_EXITS - 1):
        maskable = i > 0
        if config.exits == "redesigned":
            exit_: nn.Module = RedesignedExit(
                widths[i],
                config.outputs,
                width=config.head_width,
                depth=config.depths[i],
                maskable=maskable,
            )
        else:
            exit_ = _standard(config, widths[i], maskable=maskable)
        exits.append(exit_)
    exits.append(_standard(config, widths[-1], maskable=True))
    return nn.ModuleList(exits)


def _standard(config: NetworkConfig, in_channels: int, *, maskable: bool) -> nn.Module:
    kind = LinearExit if config.task == "pose" else OriginalExit
    return kind(in_channels, config.outputs, maskable=maskable)
