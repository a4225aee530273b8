"""The HRNet backbone, cut at its stages: features in, features out, one stage at a time.

See Wang et al., TPAMI 2020. Between its modules it calls `pause`, so that a caller can stop in the
middle of a stage by raising from it.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add

from torch import Tensor, nn

from anytime_model.networks.base import Pause
from anytime_model.networks.hrnet.blocks import BasicBlock, Bottleneck, ConvNorm
from anytime_model.networks.hrnet.masking import Masks
from anytime_model.networks.hrnet.presets import Preset
from anytime_model.ops import upsample


class FirstStage(nn.Module):
    """Stem (two 3x3 convolutions of stride 2, to 1/4 resolution) and bottlenecks. Never masked."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.stem = nn.ModuleList(
            [
                ConvNorm(3, preset.stem, 3, stride=2, maskable=False),
                ConvNorm(preset.stem, preset.stem, 3, stride=2, maskable=False),
            ]
        )
        wide = Bottleneck.EXPANSION * preset.stem
        self.blocks = nn.ModuleList(
            Bottleneck(preset.stem if i == 0 else wide, preset.stem)
            for i in range(preset.bottlenecks)
        )

    def forward(
        self,
        features: Sequence[Tensor],
        masks: Masks | None,  # noqa: ARG002  every stage has the same signature
        pause: Pause,
    ) -> tuple[Tensor, ...]:
        """An image (B, 3, H, W) to one branch of (B, 4 stem, H/4, W/4)."""
        (x,) = features
        for layer in (*self.stem, *self.blocks):
            pause()
            x = layer(x)
        return (x,)


class Transition(nn.Module):
    """Bring the branches to the next stage's widths and grow a coarser one from the last."""

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        super().__init__()
        self.keep = nn.ModuleList(
            nn.Identity() if old == new else ConvNorm(old, new, 3, maskable=True)
            for old, new in zip(before, after, strict=False)
        )
        self.grow = ConvNorm(before[-1], after[-1], 3, stride=2, maskable=True)

    def forward(self, features: Sequence[Tensor], masks: Masks | None) -> list[Tensor]:
        """The branches of the stage before, to those and one more."""
        kept = [
            x if isinstance(layer, nn.Identity) else layer(x, masks)
            for layer, x in zip(self.keep, features, strict=True)
        ]
        return [*kept, self.grow(features[-1], masks)]


class UpFusion(nn.Module):
    """From a coarser branch: 1x1 convolution there, then bilinear upsampling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, out_channels, 1, relu=False, maskable=True)

    def forward(self, x: Tensor, size: Sequence[int], masks: Masks | None) -> Tensor:
        """(B, C_in, h, w) to (B, C_out, *size)."""
        return upsample(self.conv(x, masks), size)


class DownFusion(nn.Module):
    """From a finer branch: 3x3 convolutions of stride 2, with ReLU after all but the last."""

    def __init__(self, in_channels: int, out_channels: int, halvings: int) -> None:
        super().__init__()
        last = halvings - 1
        self.chain = nn.ModuleList(
            ConvNorm(
                in_channels,
                out_channels if i == last else in_channels,
                3,
                stride=2,
                relu=i != last,
                maskable=True,
            )
            for i in range(halvings)
        )

    def forward(
        self,
        x: Tensor,
        size: Sequence[int],  # noqa: ARG002  the strides already lead there
        masks: Masks | None,
    ) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, *size)."""
        for layer in self.chain:
            x = layer(x, masks)
        return x


class Fusion(nn.Module):
    """Sum all branches at the size and width of one of them, the `target`."""

    def __init__(self, widths: Sequence[int], target: int) -> None:
        super().__init__()
        self.target = target
        self.sources = nn.ModuleList(
            _fusion(widths, source, target) for source in range(len(widths))
        )

    def forward(self, branches: Sequence[Tensor], masks: Masks | None) -> Tensor:
        """All branches in, one of the target's shape out."""
        size = branches[self.target].shape[-2:]
        terms = [
            x if isinstance(source, nn.Identity) else source(x, size, masks)
            for source, x in zip(self.sources, branches, strict=True)
        ]
        return reduce(add, terms).relu()


class Branch(nn.ModuleList):
    """A chain of basic blocks at one resolution."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__(BasicBlock(width) for _ in range(blocks))

    def forward(self, x: Tensor, masks: Masks | None, pause: Pause) -> Tensor:
        """(B, C, H, W) to the same shape."""
        for block in self:
            pause()
            x = block(x, masks)
        return x


class FusionModule(nn.Module):
    """One multi-resolution module: blocks in every branch, then each output sums all branches.

    `outputs` says how many branches come out; the pose network's last module puts out only the
    finest.
    """

    def __init__(self, widths: Sequence[int], blocks: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Branch(width, blocks) for width in widths)
        self.fusions = nn.ModuleList(Fusion(widths, target) for target in range(outputs))

    def forward(
        self, features: Sequence[Tensor], masks: Masks | None, pause: Pause
    ) -> list[Tensor]:
        """Branches in, the first `outputs` branches out, shapes kept."""
        branches = [
            branch(x, masks, pause) for branch, x in zip(self.branches, features, strict=True)
        ]
        fused = []
        for fusion in self.fusions:
            pause()
            fused.append(fusion(branches, masks))
        return fused


def _fusion(widths: Sequence[int], source: int, target: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source > target:
        return UpFusion(widths[source], widths[target])
    return DownFusion(widths[source], widths[target], halvings=target - source)


class Stage(nn.Module):
    """A transition to one more branch, then multi-resolution modules: stages 2, 3 and 4."""

    def __init__(
        self,
        before: Sequence[int],
        after: Sequence[int],
        *,
        modules: int,
        blocks: int,
        outputs: int,
    ) -> None:
        super().__init__()
        self.transition = Transition(before, after)
        self.fusion_modules = nn.ModuleList(
            FusionModule(after, blocks, outputs if i == modules - 1 else len(after))
            for i in range(modules)
        )

    def forward(
        self, features: Sequence[Tensor], masks: Masks | None, pause: Pause
    ) -> tuple[Tensor, ...]:
        """The branches after the previous exit to the branches before the next."""
        pause()
        branches = self.transition(features, masks)
        for module in self.fusion_modules:
            branches = module(branches, masks, pause)
        return tuple(branches)


def build_stages(preset: Preset, *, last_outputs: int) -> nn.ModuleList:
    """The four stages of a preset; the last puts out its `last_outputs` finest branches."""
    widths = preset.stage_widths
    stages: list[nn.Module] = [FirstStage(preset)]
    for i, modules in enumerate(preset.modules, start=1):
        last = i == len(preset.modules)
        stages.append(
            Stage(
                widths[i - 1],
                widths[i],
                modules=modules,
                blocks=preset.blocks,
                outputs=last_outputs if last else len(widths[i]),
            )
        )
    return nn.ModuleList(stages)
