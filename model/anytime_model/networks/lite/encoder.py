"""The encoder, EfficientNet-Lite, cut at its exits: features in, features out, stage by stage.

Every stage puts out all maps that the exits so far read, finest first: stage 1 those at 1/4 and
1/8 of the image's resolution, each later one those of the stage before and its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from anytime_model.networks.base import Pause
from anytime_model.networks.lite.blocks import InvertedResidual, NormedConv
from anytime_model.networks.lite.presets import LitePreset, Row


class StemStage(nn.Module):
    """The stem and three rows of blocks, to 1/8 of the resolution."""

    def __init__(self, preset: LitePreset) -> None:
        super().__init__()
        self.stem = NormedConv(3, preset.stem, 3, stride=2)
        rows = preset.stages[0]
        self.blocks = _blocks(preset.stem, rows)
        self.kept = rows[0].blocks + rows[1].blocks

    def forward(
        self,
        features: Sequence[Tensor],
        masks: None,  # noqa: ARG002  as every family's stages take them
        pause: Pause,
    ) -> tuple[Tensor, ...]:
        """The image (B, 3, H, W) to maps at 1/4 and 1/8."""
        x = self.stem(features[0])
        maps: tuple[Tensor, ...] = ()
        for done, block in enumerate(self.blocks):
            if done == self.kept:
                maps = (x,)
            pause()
            x = block(x)
        return (*maps, x)


class BlockStage(nn.Module):
    """Rows of blocks after an earlier stage: stages 2 to 4."""

    def __init__(self, in_channels: int, rows: Sequence[Row]) -> None:
        super().__init__()
        self.blocks = _blocks(in_channels, rows)

    def forward(
        self,
        features: Sequence[Tensor],
        masks: None,  # noqa: ARG002  as every family's stages take them
        pause: Pause,
    ) -> tuple[Tensor, ...]:
        """The maps of the stage before to those and one more."""
        x = features[-1]
        for block in self.blocks:
            pause()
            x = block(x)
        return (*features, x)


def _blocks(in_channels: int, rows: Sequence[Row]) -> nn.ModuleList:
    blocks = nn.ModuleList()
    for row in rows:
        for i in range(row.blocks):
            blocks.append(
                InvertedResidual(
                    in_channels,
                    row.width,
                    kernel=row.kernel,
                    stride=row.stride if i == 0 else 1,
                    expansion=row.expansion,
                )
            )
            in_channels = row.width
    return blocks


def build_stages(preset: LitePreset) -> nn.ModuleList:
    """The four stages of a preset."""
    stages: list[nn.Module] = [StemStage(preset)]
    for before, rows in zip(preset.stages, preset.stages[1:], strict=False):
        stages.append(BlockStage(before[-1].width, rows))
    return nn.ModuleList(stages)


def map_widths(preset: LitePreset) -> tuple[int, ...]:
    """Channels of the maps that the last exit reads, finest first; exit k reads k + 1 of them."""
    first = preset.stages[0]
    return (first[1].width, *(rows[-1].width for rows in preset.stages))
