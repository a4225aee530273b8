"""What every family's lowering is made with: buffers used again, weights, operations in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anytime_model.engines.native.program import (
    IMAGE_LEVEL,
    MAP_LEVEL,
    Buffer,
    ConvWeights,
    NormWeights,
    Operation,
    Program,
)
from anytime_model.kernels.library import Floats, Kind, Storage, Where


class Builder:
    """A program as it grows, from the image's buffer on.

    Args:
        outputs: channels of the map.
        image_channels: 3, or 4 for arithmetic that takes input channels in pairs.

    Attributes:
        program: what has been made so far.
        image: the buffer of the image.
        map: the buffer of the aggregated map.
        scratch: storage of buffers for which nothing else is said.
        part: of the network, that operations belong to from here on.
    """

    def __init__(self, outputs: int, image_channels: int) -> None:
        self.program = Program()
        self.scratch = Storage.SCRATCH
        self.part = ""
        self._free: dict[tuple[int, int, bool, Storage], list[Buffer]] = {}
        self.image = self.buffer(IMAGE_LEVEL, image_channels, storage=Storage.RUN)
        self.map = self.buffer(MAP_LEVEL, outputs, floats=True, storage=Storage.RUN)

    def buffer(
        self,
        level: int,
        channels: int,
        *,
        floats: bool = False,
        storage: Storage | None = None,
    ) -> Buffer:
        """A buffer that nothing uses now."""
        storage = self.scratch if storage is None else storage
        unused = self._free.get((level, channels, floats, storage))
        if unused:
            return unused.pop()
        made = Buffer(len(self.program.buffers), level, channels, floats, storage)
        self.program.buffers.append(made)
        return made

    def release(self, *buffers: Buffer) -> None:
        """Let buffers be used again; those of the run stay."""
        for one in buffers:
            if one.storage is not Storage.RUN:
                key = (one.level, one.channels, one.floats, one.storage)
                self._free.setdefault(key, []).append(one)

    @contextmanager
    def fused_group(self) -> Iterator[None]:
        """What is emitted inside is one fused group: all of it at a few sites, then at the next."""
        first = len(self.program.operations)
        yield
        operations = self.program.operations
        last = len(operations) - 1
        if operations[last].kind is Kind.INTERPOLATE:  # it needs all sites of what it interpolates
            last -= 1
        for i in range(first, last):
            operations[i] = replace(operations[i], fused=True)

    def tile_rows(self, end: int) -> None:
        """Tile all operations up to the one numbered `end`, and those fused with that, by rows.

        What lies between them goes through windows.
        """
        operations = self.program.operations
        for i in range(len(operations)):
            if operations[i].fused:
                continue
            if i >= end:
                break
            operations[i] = replace(operations[i], tiled=True)

    def weights(
        self,
        weights: Tensor,
        stride: int = 1,
        *,
        before: int | None = None,
        dense: bool = False,
        depthwise: bool = False,
    ) -> int:
        """Enter a convolution's weights, and return their index; see `ConvWeights`."""
        made = ConvWeights(array(weights), stride, before, dense, depthwise)
        self.program.convs.append(made)
        return len(self.program.convs) - 1

    def norm(self, bias: Tensor, shift: Tensor | None = None, window: Tensor | None = None) -> int:
        """Enter what follows a sum, and return its index; see `NormWeights`."""
        made = NormWeights(
            array(bias),
            array(torch.zeros_like(bias) if shift is None else shift),
            None if window is None else array(window),
        )
        self.program.norms.append(made)
        return len(self.program.norms) - 1

    def emit(self, kind: Kind, out: Buffer, where: Where = Where.ACTIVE, **rest: Any) -> None:
        """Append an operation; see `Operation`."""
        self.program.operations.append(Operation(kind, where, out.slot, part=self.part, **rest))

    def sum(self, terms: Sequence[Buffer], out: Buffer, *, where: Where, **rest: Any) -> None:
        """The sum of maps, upsampled to the size of `out` where they are smaller."""
        sources = tuple(term.slot for term in terms)
        self.emit(Kind.WEIGHTED_SUM, out, where, sources=sources, **rest)


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor, Tensor]:
    """A convolution's weights, bias and shift with its normalisation folded in, in float64.

    `shift` is the part of the bias that the normalisation adds.
    """
    weights = conv.weight.double()
    bias = torch.zeros(len(weights)) if conv.bias is None else conv.bias
    bias, shift = bias.double().to(weights.device), torch.zeros_like(weights[:, 0, 0, 0])
    if norm is not None:
        scale, shift = scale_and_shift(norm)
        weights = weights * scale[:, None, None, None]
        bias = bias * scale + shift
    return weights, bias, shift


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a normalisation multiplies by, and then adds, for each channel, in float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("normalisation without running statistics cannot be folded")
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def array(values: Tensor) -> Floats:
    """As the kernels take it: contiguous float32."""
    return np.ascontiguousarray(values.detach().cpu().float().numpy())
