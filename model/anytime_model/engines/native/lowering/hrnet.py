"""The lowering of an HRNet.

Since interpolation comes before it, a norm keeps
two vectors: what is added to every sum (`bias`), and the part of that which comes after the
interpolation (`shift`). A 1x1 convolution after bilinear upsampling is done before it instead, at
the coarser resolution; both are linear, so only rounding differs. Features of a head are never
concatenated at full size: each branch meets its own columns of the head's first weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anytime_model.engines.native.lowering.builder import Builder, folded
from anytime_model.engines.native.program import MAP_LEVEL, Buffer
from anytime_model.kernels.library import Activation, Kind, Storage, Where
from anytime_model.kernels.reference import rbf_weights
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from anytime_model.networks.hrnet.backbone import (
    DownFusion,
    FirstStage,
    Fusion,
    FusionModule,
    Stage,
    UpFusion,
)
from anytime_model.networks.hrnet.blocks import BasicBlock, Bottleneck, ConvNorm
from anytime_model.networks.hrnet.exits import LinearExit, OriginalExit, RedesignedExit
from anytime_model.networks.hrnet.masking import MaskedConv2d


class HrnetLowering(Builder):
    """The program of an HRNet; see `Builder`.

    Args:
        network: of any configuration.
        image_channels: see `Builder`.
        concatenate: HRNet's own head mixes all features at once, as it must in bytes, where partial
            sums would be rounded.
    """

    def __init__(
        self, network: AnytimeNetwork, image_channels: int, *, concatenate: bool = False
    ) -> None:
        super().__init__(network.config.outputs, image_channels)
        self._concatenate = concatenate
        features = [self.image]
        for number, (stage, exit_) in enumerate(
            zip(network.stages, network.exits, strict=True), start=1
        ):
            self._number = number
            match stage:
                case FirstStage():
                    self.scratch = Storage.WINDOW
                    features = [self.first_stage(stage, features[0])]
                    self.scratch = Storage.SCRATCH
                case Stage():
                    last = stage is network.stages[-1]
                    features = self.stage(stage, features, last_of_all=last)
                case _:
                    raise TypeError(f"a stage of type {type(stage).__name__} has no lowering")
            self.program.features.append(tuple(features))
            end = len(self.program.operations)
            self.part = f"exit {number}"
            self.exit(exit_, features)
            if isinstance(stage, FirstStage):
                self.tile_rows(end)
            self.program.ends.append(len(self.program.operations))

    # Layers

    def layer(
        self,
        layer: ConvNorm | nn.Conv2d,
        x: Buffer,
        *,
        out: Buffer | None = None,
        residual: Buffer | None = None,
        relu: bool | None = None,
        interpolate: bool = True,
        dense: bool = False,
        each_channel: bool = False,
    ) -> Buffer:
        """A convolution with all that follows it.

        Without `interpolate` nothing is put at inactive positions, which nobody may read then.
        """
        weights, bias, shift, conv = _folded(layer)
        if weights.shape[1] < x.channels:  # the image's fourth channel is zero
            weights = nn.functional.pad(weights, (0, 0, 0, 0, 0, x.channels - weights.shape[1]))
        stride = conv.stride[0]
        if relu is None:
            relu = isinstance(layer, ConvNorm) and layer.relu
        if out is None:
            out = self.buffer(x.level + (stride == 2), weights.shape[0])
        norm = self.norm(bias, shift, _window(conv))
        other = -1 if residual is None else residual.slot
        masked = interpolate and isinstance(conv, MaskedConv2d)
        self.emit(
            Kind.CONV,
            out,
            sources=(x.slot,),
            conv=self.weights(weights, stride, dense=dense),
            norm=norm,
            activation=_activation(relu),
            residual=other,
            keep=masked,
            each_channel=each_channel,
        )
        if masked:
            self.emit(
                Kind.INTERPOLATE, out, norm=norm, activation=_activation(relu), residual=other
            )
        return out

    def first_stage(self, stage: FirstStage, x: Buffer) -> Buffer:
        """The stem and the bottlenecks.

        A 3x3 convolution is fused with the 1x1 ones that follow, so that the wide features,
        which outgrow the caches, pass through them once.
        """
        self.part = "stage 1"
        blocks = [_bottleneck(block) for block in stage.blocks]
        *stem, last = [_conv_norm(layer) for layer in stage.stem]
        for layer in stem:
            before, x = x, self.layer(layer, x)
            self.release(before)
        with self.fused_group():
            before, x = x, self.layer(last, x)
            narrow = self.layer(blocks[0].conv1, x)
        self.release(before)
        wide = self.buffer(x.level, blocks[0].conv3.conv.out_channels, storage=Storage.RUN)
        for i, block in enumerate(blocks):
            middle = self.buffer(x.level, narrow.channels, storage=Storage.LOCAL)
            before = narrow
            with self.fused_group():
                self.layer(block.conv2, narrow, out=middle, dense=True)
                if isinstance(block.shortcut, ConvNorm):
                    self.layer(block.shortcut, x, out=wide)
                self.layer(block.conv3, middle, out=wide, residual=wide, relu=True)
                if i + 1 < len(blocks):
                    narrow = self.layer(blocks[i + 1].conv1, wide)
            self.release(middle, before)
        self.release(x)
        return wide

    def stage(self, stage: Stage, features: Sequence[Buffer], *, last_of_all: bool) -> list[Buffer]:
        """The branches' own layers, then the modules that join them."""
        self.part = f"stage {self._number} branches"
        branches = [
            x if isinstance(layer, nn.Identity) else self.layer(_conv_norm(layer), x)
            for layer, x in zip(stage.transition.keep, features, strict=True)
        ]
        branches.append(self.layer(stage.transition.grow, features[-1]))
        last = len(stage.fusion_modules) - 1
        for i, module in enumerate(stage.fusion_modules):
            if not isinstance(module, FusionModule):
                raise TypeError(f"{type(module).__name__} is no fusion module")
            storage = Storage.RUN if i == last else Storage.SCRATCH
            of_all = last_of_all and i == last
            branches = self.fusion_module(module, branches, storage, last_of_all=of_all)
        return branches

    def fusion_module(
        self,
        module: FusionModule,
        features: Sequence[Buffer],
        storage: Storage,
        *,
        last_of_all: bool,
    ) -> list[Buffer]:
        """A chain of blocks for each branch, then each branch's sum of all."""
        self.part = f"stage {self._number} branches"
        branches = []
        for chain, start in zip(module.branches, features, strict=True):
            x = start
            for block in _blocks(chain):
                middle = self.layer(block.conv1, x)
                y = self.layer(block.conv2, middle, residual=x, relu=True)
                self.release(middle, x)
                x = y
            branches.append(x)
        self.part = f"stage {self._number} fusions"
        fused = [
            self.fusion(_fusion(f), branches, storage, only_exits=last_of_all)
            for f in module.fusions
        ]
        self.release(*branches)
        return fused

    def fusion(
        self, fusion: Fusion, branches: Sequence[Buffer], storage: Storage, *, only_exits: bool
    ) -> Buffer:
        """One branch's sum of what all branches give to it."""
        terms = []
        own = branches[fusion.target]
        for source, x in zip(fusion.sources, branches, strict=True):
            match source:
                case nn.Identity():
                    terms.append(x)
                case UpFusion():
                    terms.append(self.layer(source.conv, x))
                case DownFusion():
                    y = x
                    for layer in source.chain:
                        before, y = y, self.layer(_conv_norm(layer), y)
                        if before is not x:
                            self.release(before)
                    terms.append(y)
                case _:
                    raise TypeError(f"{type(source).__name__} is no part of a fusion")
        out = self.buffer(own.level, own.channels, storage=storage)
        if only_exits:
            self.part = f"exit {self._number}"
        self.sum(
            terms,
            out,
            where=Where.NEEDED,
            activation=Activation.RELU,
            each_channel=only_exits and self._concatenate,
        )
        self.part = f"stage {self._number} fusions"
        self.release(*(term for term in terms if term is not own))
        return out

    # Exits

    def exit(self, exit_: nn.Module, features: Sequence[Buffer]) -> None:
        """A head, into the map."""
        match exit_:
            case LinearExit():
                self.layer(_conv(exit_.predict), features[0], out=self.map, interpolate=False)
            case OriginalExit() if self._concatenate:
                self.concatenated(exit_, features)
            case OriginalExit():
                self.original(exit_, features)
            case RedesignedExit():
                self.redesigned(exit_, features)
            case _:
                raise TypeError(f"an exit of type {type(exit_).__name__} has no lowering")

    def original(self, exit_: OriginalExit, features: Sequence[Buffer]) -> None:
        """All features mixed by 1x1 convolutions, at the finest resolution."""
        finest, *coarser = features
        weights, bias, shift, conv = _folded(exit_.mix)
        columns = torch.split(weights, [x.channels for x in features], dim=1)
        terms = []
        for x, part in zip(coarser, columns[1:], strict=True):
            term = self.buffer(x.level, len(weights))
            index = self.weights(part)
            self.emit(Kind.CONV, term, Where.NEEDED, sources=(x.slot,), conv=index)
            terms.append(term)
        mixed = self.buffer(MAP_LEVEL, len(weights), storage=Storage.LOCAL)
        index = self.weights(columns[0])
        norm = self.norm(bias, shift, _window(conv))
        with self.fused_group():
            if terms:
                self.sum(terms, mixed, where=Where.ACTIVE)
            self.emit(
                Kind.CONV,
                mixed,
                sources=(finest.slot,),
                conv=index,
                norm=norm,
                activation=_activation(exit_.mix.relu),
                residual=mixed.slot if terms else -1,
            )
            self.layer(_conv(exit_.predict), mixed, out=self.map, interpolate=False)
        self.release(mixed, *terms)

    def concatenated(self, exit_: OriginalExit, features: Sequence[Buffer]) -> None:
        """The same, of features side by side, each upsampled to the finest."""
        channels = sum(x.channels for x in features)
        joined = self.buffer(MAP_LEVEL, channels, storage=Storage.LOCAL)
        mixed = self.buffer(MAP_LEVEL, channels, storage=Storage.LOCAL)
        first = 0
        with self.fused_group():
            for x in features:
                self.sum([x], joined, where=Where.ACTIVE, first=first)
                first += x.channels
            self.layer(exit_.mix, joined, out=mixed, interpolate=False, each_channel=True)
            self.layer(_conv(exit_.predict), mixed, out=self.map, interpolate=False)
        self.release(joined, mixed)

    def redesigned(self, exit_: RedesignedExit, features: Sequence[Buffer]) -> None:
        """Pooled features mixed at coarser resolutions, and upsampled again."""
        first, *others = [_conv_norm(layer) for layer in exit_.encoder]
        x = self.pooled(first, features)
        for other in others:
            before, x = x, self.pooled(other, [x])
            self.release(before)
        for layer in exit_.decoder:
            before, x = x, self.doubled(_conv_norm(layer), x, None)
            self.release(before)
        self.doubled(_conv(exit_.predict), x, self.map)
        self.release(x)

    def pooled(self, layer: ConvNorm, features: Sequence[Buffer]) -> Buffer:
        """A 1x1 convolution of 2x2 means of the features, upsampled to the finest, concatenated."""
        level, channels = features[0].level + 1, sum(x.channels for x in features)
        means = self.buffer(level, channels, storage=Storage.LOCAL)
        first = 0
        with self.fused_group():
            for x in features:
                self.emit(Kind.WEIGHTED_SUM, means, sources=(x.slot,), first=first, pool=True)
                first += x.channels
            out = self.layer(layer, means)
        self.release(means)
        return out

    def doubled(self, layer: ConvNorm | nn.Conv2d, x: Buffer, out: Buffer | None) -> Buffer:
        """A 1x1 convolution of `x` upsampled by two; into the map, only where active."""
        weights, bias, shift, conv = _folded(layer)
        relu = isinstance(layer, ConvNorm) and layer.relu
        masked = out is None and isinstance(conv, MaskedConv2d)
        if out is None:
            out = self.buffer(x.level - 1, weights.shape[0])
        coarse = self.buffer(x.level, out.channels, floats=out.floats)
        index = self.weights(weights)
        self.emit(Kind.CONV, coarse, Where.NEEDED, sources=(x.slot,), conv=index)
        norm = self.norm(bias, shift, _window(conv))
        self.emit(
            Kind.WEIGHTED_SUM,
            out,
            sources=(coarse.slot,),
            norm=norm,
            activation=_activation(relu),
            keep=masked,
        )
        if masked:
            self.emit(Kind.INTERPOLATE, out, norm=norm, activation=_activation(relu))
        self.release(coarse)
        return out


def _folded(layer: ConvNorm | nn.Conv2d) -> tuple[Tensor, Tensor, Tensor, nn.Conv2d]:
    """Weights, bias and shift with normalisation folded in, and the convolution."""
    conv = layer.conv if isinstance(layer, ConvNorm) else layer
    return *folded(conv, layer.norm if isinstance(layer, ConvNorm) else None), conv


def _window(conv: nn.Conv2d) -> Tensor | None:
    """The interpolation's weights after a masked convolution, (49,)."""
    return rbf_weights(conv.lam.float()).flatten() if isinstance(conv, MaskedConv2d) else None


def _activation(relu: bool) -> Activation:
    return Activation.RELU if relu else Activation.NONE


def _conv_norm(layer: nn.Module) -> ConvNorm:
    if not isinstance(layer, ConvNorm):
        raise TypeError(f"{type(layer).__name__} is no normalised convolution")
    return layer


def _conv(layer: nn.Module) -> nn.Conv2d:
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"{type(layer).__name__} is no convolution")
    return layer


def _bottleneck(block: nn.Module) -> Bottleneck:
    if not isinstance(block, Bottleneck):
        raise TypeError(f"{type(block).__name__} is no bottleneck")
    return block


def _blocks(chain: nn.Module) -> list[BasicBlock]:
    blocks = [block for block in chain.children() if isinstance(block, BasicBlock)]
    if len(blocks) != len(list(chain.children())):
        raise TypeError("a branch has blocks that are no basic blocks")
    return blocks


def _fusion(module: nn.Module) -> Fusion:
    if not isinstance(module, Fusion):
        raise TypeError(f"{type(module).__name__} is no fusion")
    return module
