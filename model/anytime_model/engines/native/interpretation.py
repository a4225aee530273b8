"""What a program means, in plain torch: its operations one by one, at every position.

It serves to measure the ranges of a network's maps for int8, to say what a program in bytes
computes, and what one that holds features for the next frame does: the kernels agree with it, but
for bytes whose value lies within float32 rounding of the middle between two. It is slow.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from anytime_model.engines.native.program import (
    MAP_LEVEL,
    MOST_BYTE,
    Buffer,
    NormWeights,
    Operation,
    Program,
)
from anytime_model.kernels.library import Activation, Floats, Kind, Storage
from anytime_model.kernels.reference import RADIUS
from anytime_model.ops import upsample

MAP_SLOT = 1

Observer = Callable[[int, Tensor], None]
"""Is given the number of an operation and what it has put out, (1, C, h, w)."""


_TILE = 4
"""Positions side by side that the first stage makes together: of a Winograd tile."""


class HeldMaps:
    """The features of a video's last frame, as the kernels' cache holds them.

    Attributes:
        maps: by the slot that holds them, (1, C, h, w).
    """

    def __init__(self) -> None:
        self.maps: dict[int, Tensor] = {}
        self._stale: dict[int, Tensor] = {}

    def frame(self, fresh: Tensor, stages: int) -> None:
        """A frame begins that is to be made anew at some positions of the map, (h, w) boolean."""
        for stage in range(stages):
            before = self._stale.get(stage, torch.ones_like(fresh))
            self._stale[stage] = before | fresh

    def stale(self, stage: int) -> list[Tensor]:
        """Where a stage makes its features, (1, 1, h, w) for each level from the map's on."""
        levels = [self._stale[stage][None, None]]
        while levels[-1].shape[-1] % 2 == 0:
            levels.append(levels[-1][..., ::2, ::2])
        if stage == 0:
            tiles = F.max_pool2d(levels[0].float(), (1, _TILE))
            levels[0] = tiles.repeat_interleave(_TILE, dim=3) > 0
        return levels

    def made(self, stage: int) -> None:
        """A stage has been done."""
        self._stale[stage] = torch.zeros_like(self._stale[stage])


class Interpretation:
    """One image on its way through a program, stage by stage.

    A program in floats is worked out in float32. Sums of bytes are worked out in float64, where
    they are exact, and rounded to float32 where the kernels have float32.

    Args:
        program: in floats or in bytes.
        image: (3, H, W) normalised, H and W multiples of 32.
        observe: called after each operation that is no interpolation.
        held: of the frames before, of a program that holds features; this run works in it.
        fresh: (h, w) where they are made anew; None for everywhere.
    """

    def __init__(
        self,
        program: Program,
        image: Tensor,
        observe: Observer = lambda _index, _values: None,
        *,
        held: HeldMaps | None = None,
        fresh: Tensor | None = None,
    ) -> None:
        self._program = program
        self._held = held
        self._stale: list[Tensor] = []
        if held is not None:
            cells = [side >> MAP_LEVEL for side in image.shape[-2:]]
            everywhere = torch.ones(cells, dtype=torch.bool)
            held.frame(everywhere if fresh is None else fresh, len(program.ends))
        self._observe = observe
        self._stage = 0
        self._kept: dict[int, Tensor] = {}
        self._active: list[Tensor] | None = None
        steps, channels = program.image_steps, program.buffers[0].channels
        values = image[None].float()
        if steps is not None:
            values = _rounded(values.double() / steps.step + steps.zero)
        self._type = values.dtype
        self._zero_of_image = 0 if steps is None else steps.zero
        self._maps: dict[int, Tensor] = {} if held is None else dict(held.maps)
        self._maps |= {0: F.pad(values, (0, 0, 0, 0, 0, channels - 3))}

    def advance(self, active: Tensor | None = None) -> Tensor:
        """Run the next stage.

        Args:
            active: (h, w) mask of the map from here on; None leaves it as it is.

        Returns:
            The map, (K, h, w) float32. Where the mask is off it keeps what it was.
        """
        if active is not None:
            self._active = [active[None, None]]
            coarsest = max(buffer.level for buffer in self._program.buffers)
            for _ in range(MAP_LEVEL, coarsest):
                self._active.append(self._active[-1][..., ::2, ::2])
        first = self._program.ends[self._stage - 1] if self._stage else 0
        last = self._program.ends[self._stage]
        if self._held is not None:
            self._stale = self._held.stale(self._stage)
        before = self._maps.get(MAP_SLOT)
        for index in range(first, last):
            self._run(index, self._program.operations[index])
        if self._held is not None:
            self._held.made(self._stage)
            buffers = self._program.buffers
            held = (slot for slot in self._maps if buffers[slot].storage is Storage.HELD)
            self._held.maps |= {slot: self._maps[slot] for slot in held}
        self._stage += 1
        made = self._maps[MAP_SLOT]
        if self._active is not None and before is not None:
            made = self._maps[MAP_SLOT] = torch.where(self._active[0], made, before)
        return made[0].float()

    def _run(self, index: int, operation: Operation) -> None:
        program = self._program
        norm = program.norms[operation.norm] if operation.norm >= 0 else None
        out = program.buffers[operation.out]
        if operation.kind is Kind.INTERPOLATE:
            self._interpolate(operation, norm)
            return
        if operation.kind is Kind.CONV:
            sums = self._convolved(operation, norm)
        else:
            sums = self._summed(operation, norm)
        if operation.keep:
            self._kept[operation.out] = sums
        values = part = self._ended(operation, sums)
        if operation.kind is Kind.WEIGHTED_SUM and values.shape[1] < out.channels:
            before = self._maps.get(operation.out)
            whole = (
                before.clone()
                if before is not None and before.shape[1] == out.channels
                else values.new_zeros((1, out.channels, *values.shape[2:]))
            )
            whole[:, operation.first : operation.first + part.shape[1]] = part
            values = whole
        self._maps[operation.out] = self._with_held(out, values)
        self._observe(index, part)

    def _with_held(self, out: Buffer, values: Tensor) -> Tensor:
        """What is in a buffer after values have been made, of it what a frame makes anew."""
        before = self._maps.get(out.slot)
        if out.storage is not Storage.HELD or before is None:
            return values
        return torch.where(self._stale[out.level - MAP_LEVEL], values, before)

    def _convolved(self, operation: Operation, norm: NormWeights | None) -> Tensor:
        conv = self._program.convs[operation.conv]
        source = self._maps[operation.sources[0]]
        weights = torch.from_numpy(conv.weights).to(self._type)
        kernel = weights.shape[-1]
        before = (
            (kernel - conv.stride) // 2
            if conv.depthwise
            else kernel // 2
            if conv.before is None
            else conv.before
        )
        after = kernel - 1 - before
        zero = float(self._zero_of_image) if operation.sources[0] == 0 else 0.0
        padded = F.pad(source, (before, after, before, after), value=zero)
        sums = F.conv2d(
            padded, weights, stride=conv.stride, groups=len(weights) if conv.depthwise else 1
        )
        channels = self._program.buffers[operation.out].channels
        sums = F.pad(sums, (0, 0, 0, 0, 0, channels - len(weights)))
        if norm is None:
            return sums
        if norm.scale is not None:
            sums = sums.float().double() * self._channels(norm.scale)
        return _single(sums + self._channels(norm.bias), norm)

    def _summed(self, operation: Operation, norm: NormWeights | None) -> Tensor:
        out = self._program.buffers[operation.out]
        height, width = (side >> out.level for side in self._maps[0].shape[-2:])
        pooled = 2 if operation.pool else 1
        in_bytes = norm is not None and norm.scale is not None
        total: Tensor | float = 0.0 if norm is None or in_bytes else self._channels(norm.bias)
        for i, slot in enumerate(operation.sources):
            term = upsample(self._maps[slot], (pooled * height, pooled * width))
            if operation.pool:
                term = F.avg_pool2d(term, 2)
            total = total + term * (operation.scales[i] if operation.scales else 1.0)
        if not isinstance(total, Tensor):
            raise TypeError("a sum without terms")
        if norm is not None and norm.scale is not None:
            return total * self._channels(norm.scale) + self._channels(norm.bias)
        return total

    def _interpolate(self, operation: Operation, norm: NormWeights | None) -> None:
        if self._active is None:
            return
        if norm is None or norm.window is None:
            raise TypeError("an interpolation without a window")
        kept = self._kept[operation.out]
        active = self._active[self._program.buffers[operation.out].level - MAP_LEVEL]
        channels = kept.shape[1]
        side = 2 * RADIUS + 1
        window = torch.from_numpy(norm.window).to(self._type).view(1, 1, side, side)
        covered = F.conv2d(active.to(self._type), window, padding=RADIUS)
        around = F.conv2d(
            kept * active, window.expand(channels, -1, -1, -1), padding=RADIUS, groups=channels
        )
        values = self._ended(operation, around + self._channels(norm.shift) * (1 - covered))
        made = torch.where(active, self._maps[operation.out], values)
        self._maps[operation.out] = self._with_held(self._program.buffers[operation.out], made)

    def _ended(self, operation: Operation, values: Tensor) -> Tensor:
        """What is stored of sums: with residual and activation."""
        in_bytes = (
            self._program.image_steps is not None
            and not self._program.buffers[operation.out].floats
        )
        if operation.residual >= 0:
            values = values + self._maps[operation.residual] * operation.residual_scale
        if in_bytes:
            return _rounded(values)
        if operation.activation is Activation.NONE:
            return values
        return values.clamp(0, 6 if operation.activation is Activation.RELU6 else None)

    def _channels(self, values: Floats) -> Tensor:
        return torch.from_numpy(values).to(self._type).view(1, -1, 1, 1)


def _rounded(values: Tensor) -> Tensor:
    """To the nearest byte, ties to even."""
    return values.float().clamp(0, MOST_BYTE).round().double()


def _single(values: Tensor, norm: NormWeights) -> Tensor:
    """Rounded to float32 where the kernels round a sum of bytes."""
    return values if norm.scale is None else values.float().double()
