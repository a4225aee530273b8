"""The lowering of a lite network.

Features are computed everywhere, whatever the mask. At the map's own resolution an exit's values
depend on their neighbours alone, so there only what the active positions read is computed, which
changes nothing at them. A block's depthwise convolution is fused with the 1x1 one after it, so that
the widest maps are never written; stage 1, whose maps are the largest, is tiled by rows.

The normalisation of a join comes after a sum, one term of which is the level above: that is
multiplied by the scale before it is upsampled, where positions are fewer.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from anytime_model.engines.native.lowering.builder import Builder, folded, scale_and_shift
from anytime_model.engines.native.program import MAP_LEVEL, Buffer
from anytime_model.kernels.library import Activation, Kind, Storage, Where
from anytime_model.networks.lite.anytime import LiteNetwork
from anytime_model.networks.lite.blocks import InvertedResidual, NormedConv, Separable
from anytime_model.networks.lite.encoder import BlockStage, StemStage
from anytime_model.networks.lite.exits import Context, Join, JoiningExit
from anytime_model.networks.lite.presets import MAP_STRIDES


class LiteLowering(Builder):
    """The program of a lite network; see `Builder`."""

    def __init__(self, network: LiteNetwork, image_channels: int) -> None:
        super().__init__(network.config.outputs, image_channels)
        maps: list[Buffer] = []
        for stage, exit_ in zip(network.stages, network.exits, strict=True):
            match stage:
                case StemStage():
                    maps = self.stem_stage(stage)
                case BlockStage():
                    maps.append(self.blocks(stage.blocks, maps[-1]))
                case _:
                    raise TypeError(f"a stage of type {type(stage).__name__} has no lowering")
            if not isinstance(exit_, JoiningExit):
                raise TypeError(f"an exit of type {type(exit_).__name__} has no lowering")
            self.program.heads.append(len(self.program.operations))
            self.exit(exit_, maps)
            self.program.ends.append(len(self.program.operations))

    # Layers

    def layer(
        self,
        layer: NormedConv | nn.Conv2d,
        x: Buffer,
        *,
        out: Buffer | None = None,
        residual: Buffer | None = None,
        where: Where = Where.EVERYWHERE,
    ) -> Buffer:
        """A convolution with all that follows it, at every position unless said otherwise."""
        normed = layer if isinstance(layer, NormedConv) else None
        conv = layer.conv if isinstance(layer, NormedConv) else layer
        weights, bias, _ = folded(conv, normed.norm if normed else None)
        depthwise, stride = conv.groups > 1, conv.stride[0]
        if not depthwise and weights.shape[1] < x.channels:  # the image's fourth channel is zero
            weights = nn.functional.pad(weights, (0, 0, 0, 0, 0, x.channels - weights.shape[1]))
        before = (weights.shape[-1] - stride) // 2
        if out is None:
            out = self.buffer(x.level + (stride == 2), len(weights))
        self.emit(
            Kind.CONV,
            out,
            where,
            sources=(x.slot,),
            conv=self.weights(weights, stride, before=before, depthwise=depthwise),
            norm=self.norm(bias),
            activation=Activation.RELU6 if normed and normed.relu else Activation.NONE,
            residual=-1 if residual is None else residual.slot,
        )
        return out

    def separable(
        self, block: Separable, x: Buffer, out: Buffer, *, where: Where = Where.EVERYWHERE
    ) -> None:
        """A depthwise convolution and a 1x1 one; part of a fused group, or one by themselves."""
        middle = self.buffer(x.level, x.channels, storage=Storage.LOCAL)
        self.layer(block.depthwise, x, out=middle, where=where)
        self.layer(block.mix, middle, out=out, where=where)
        self.release(middle)

    # Stages

    def stem_stage(self, stage: StemStage) -> list[Buffer]:
        """The maps at 1/4 and 1/8, from the image."""
        self.scratch = Storage.WINDOW
        x = self.layer(stage.stem, self.image)
        kept = self.blocks(stage.blocks[: stage.kept], x)
        last = self.blocks(stage.blocks[stage.kept :], kept)
        self.scratch = Storage.SCRATCH
        self.tile_rows(len(self.program.operations) - 1)
        return [kept, last]

    def blocks(self, blocks: Iterable[nn.Module], x: Buffer) -> Buffer:
        """A chain of blocks, whose last map is kept for the exits."""
        chain = list(blocks)
        for i, block in enumerate(chain):
            if not isinstance(block, InvertedResidual):
                raise TypeError(f"{type(block).__name__} is no inverted residual")
            before = x
            x = self.block(block, x, Storage.RUN if i + 1 == len(chain) else self.scratch)
            self.release(before)
        return x

    def block(self, block: InvertedResidual, x: Buffer, storage: Storage) -> Buffer:
        """An inverted residual: only its expansion is written, and its end."""
        wide = self.layer(block.expand, x) if isinstance(block.expand, NormedConv) else x
        project = block.project.conv
        level = x.level + (block.depthwise.conv.stride[0] == 2)
        out = self.buffer(level, project.out_channels, storage=storage)
        middle = self.buffer(level, wide.channels, storage=Storage.LOCAL)
        with self.fused_group():
            self.layer(block.depthwise, wide, out=middle)
            self.layer(block.project, middle, out=out, residual=x if block.shortcut else None)
        self.release(middle)
        if wide is not x:
            self.release(wide)
        return out

    # Exits

    def exit(self, exit_: JoiningExit, maps: Sequence[Buffer]) -> None:
        """A head, level by level, into the map."""
        x = self.context(exit_.context, maps[-1])
        for join, members in zip(exit_.joins, exit_.levels, strict=True):
            if not isinstance(join, Join):
                raise TypeError(f"{type(join).__name__} is no join")
            before, x = x, self.join(join, x, [maps[i] for i in members])
            self.release(before)
            match join.refine:
                case NormedConv():
                    before, x = x, self.layer(join.refine, x)
                    self.release(before)
                case Separable():
                    self.last(join.refine, exit_.predict, x)
        self.release(x)

    def context(self, context: Context, x: Buffer) -> Buffer:
        """The map pooled to 1/32, by halves, and what large kernels see in it."""
        pooled = x
        while 2**pooled.level < MAP_STRIDES[-1]:
            before, pooled = pooled, self.buffer(pooled.level + 1, x.channels)
            self.sum([before], pooled, where=Where.EVERYWHERE, pool=True)
            if before is not x:
                self.release(before)
        y = self.layer(context.reduce, pooled)
        if pooled is not x:
            self.release(pooled)
        for block in context.blocks:
            if not isinstance(block, Separable):
                raise TypeError(f"{type(block).__name__} is no separable convolution")
            around = self.buffer(y.level, y.channels)
            with self.fused_group():
                self.separable(block, y, around)
            total = self.buffer(y.level, y.channels)
            self.sum([y, around], total, where=Where.EVERYWHERE)
            self.release(y, around)
            y = total
        return y

    def join(self, join: Join, above: Buffer, maps: Sequence[Buffer]) -> Buffer:
        """The level above, upsampled, and the maps of this one, added up and normalised."""
        scale, shift = scale_and_shift(join.norm)
        width, level = above.channels, maps[0].level
        where = Where.NEEDED if level == MAP_LEVEL else Where.EVERYWHERE
        scaled = self.buffer(above.level, width)
        self.emit(
            Kind.CONV,
            scaled,
            Where.EVERYWHERE,
            sources=(above.slot,),
            conv=self.weights(scale[:, None, None, None], depthwise=True),
        )
        out = scaled if level == above.level else self.buffer(level, width)
        with self.fused_group():
            if out is not scaled:
                self.sum([scaled], out, where=where)
            for i, (lateral, x) in enumerate(zip(join.laterals, maps, strict=True), start=1):
                last = i == len(maps)
                self.emit(
                    Kind.CONV,
                    out,
                    where,
                    sources=(x.slot,),
                    conv=self.weights(_scaled(lateral, scale)),
                    norm=self.norm(shift) if last else -1,
                    activation=Activation.RELU6 if last else Activation.NONE,
                    residual=out.slot,
                )
        if out is not scaled:
            self.release(scaled)
        return out

    def last(self, refine: Separable, predict: nn.Conv2d, x: Buffer) -> None:
        """What is left at the map's own resolution, where it is active."""
        mixed = self.buffer(x.level, x.channels, storage=Storage.LOCAL)
        with self.fused_group():
            self.separable(refine, x, mixed, where=Where.ACTIVE)
            self.layer(predict, mixed, out=self.map, where=Where.ACTIVE)
        self.release(mixed)


def _scaled(lateral: nn.Module, scale: Tensor) -> Tensor:
    if not isinstance(lateral, nn.Conv2d):
        raise TypeError(f"{type(lateral).__name__} is no convolution")
    return lateral.weight.double() * scale[:, None, None, None]
