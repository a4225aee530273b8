"""A program in bytes, made from one in floats and the ranges of its maps.

Activations are unsigned bytes with one step for each map (`ByteSteps`; 0 is byte 0 of a map after
ReLU), or for each channel of a map that only convolutions read (`Operation.each_channel`); weights
are signed bytes with one step for each output channel. A layer's multiply-adds are exact sums of
integers; what follows them is computed in float32 and in steps of the map that is written, rounded
once, to nearest, ties to even. The values that an interpolation reads, the last sums, logits and
confidences are float32 as in every precision. `interpretation` says the same in torch.

Channels are padded to multiples of four, which one instruction multiplies; padding weighs 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from anytime_model.engines.native.program import (
    Buffer,
    ByteSteps,
    NormWeights,
    Operation,
    Program,
)
from anytime_model.errors import ConfigError
from anytime_model.kernels.library import Activation, Floats, KernelError, Kind

CHANNELS_AT_ONCE = 4
MOST_WEIGHT = 127

Range = tuple[float, float]
"""The least and the largest value of a map that are told apart from those beyond."""


def measured_operations(program: Program) -> list[int]:
    """Operations whose maps need ranges: those that are written in bytes and have new values.

    Interpolations and upsampled copies keep the steps of what they are made from. The first range
    of a program is the image's, the others are theirs, in this order: one, or one for each channel.
    """
    return [
        i
        for i, operation in enumerate(program.operations)
        if operation.kind is not Kind.INTERPOLATE
        and not _is_copy(operation)
        and not program.buffers[operation.out].floats
    ]


def ranges_of(program: Program, operation: Operation) -> int:
    """How many ranges an operation's map has."""
    return program.buffers[operation.out].channels if operation.each_channel else 1


def _is_copy(operation: Operation) -> bool:
    return (
        operation.kind is Kind.WEIGHTED_SUM
        and len(operation.sources) == 1
        and operation.norm < 0
        and not operation.pool
        and operation.activation is Activation.NONE
    )


def quantise(program: Program, ranges: Sequence[Range]) -> Program:
    """The same program in bytes.

    Args:
        program: in floats, with an image of three channels.
        ranges: of the image, then of each of `measured_operations`.

    Raises:
        KernelError: it has depthwise convolutions, which the kernels do not do in bytes.
        ConfigError: there are not as many ranges as maps.
    """
    if any(conv.depthwise for conv in program.convs):
        raise KernelError("networks with depthwise convolutions do not run in int8; use f32.")
    counts = {i: ranges_of(program, program.operations[i]) for i in measured_operations(program)}
    expected = 1 + sum(counts.values())
    if len(ranges) != expected:
        raise ConfigError(
            f"there are {len(ranges)} ranges for int8; expected {expected}. Measure them again "
            "with `anytime-model quantise`."
        )
    image, *others = (ByteSteps.between(*one) for one in ranges)
    left = iter(others)
    steps = {i: tuple(islice(left, count)) for i, count in counts.items()}
    return _Quantiser(program, image, steps).made


@dataclass(frozen=True, slots=True)
class _Map:
    """What a slot holds for the operations that read it next.

    Attributes:
        steps: of its bytes; None where it holds floats, or channels of different steps.
        columns: (padded,) the channel that each of them is in floats, -1 of padding.
        step: (padded,) by channel.
        zero: (padded,) by channel.
    """

    steps: ByteSteps | None
    columns: NDArray[np.int64]
    step: NDArray[np.float64]
    zero: NDArray[np.float64]

    @classmethod
    def of(cls, channels: int, steps: Sequence[ByteSteps] | None) -> "_Map":
        """A map with one step, or one for each channel; or of floats."""
        if steps is None:
            return cls(None, np.arange(channels), np.ones(channels), np.zeros(channels))
        padded = padded_channels(channels)
        columns = np.full(padded, -1)
        columns[:channels] = np.arange(channels)
        each = [*steps, *[steps[-1]] * (padded - len(steps))]
        return cls(
            steps[0] if len(steps) == 1 else None,
            columns,
            np.array([one.step for one in each]),
            np.array([float(one.zero) for one in each]),
        )

    def beside(self, other: "_Map", offset: int) -> "_Map":
        """Another map's channels after these, the first of them the one of this number."""
        moved = np.where(other.columns < 0, -1, other.columns + offset)
        return _Map(
            None,
            np.concatenate([self.columns, moved]),
            np.concatenate([self.step, other.step]),
            np.concatenate([self.zero, other.zero]),
        )


class _Quantiser:
    """Walks a program and keeps what each slot holds."""

    def __init__(
        self, program: Program, image: ByteSteps, steps: dict[int, tuple[ByteSteps, ...]]
    ) -> None:
        self._from = program
        self._steps = steps
        self.made = Program(ends=list(program.ends), image_steps=image)
        self._maps = {0: _Map.of(program.buffers[0].channels, [image])}
        self._writers: dict[int, Operation] = {}  # of each slot, the last that is no interpolation
        self._widths = {0: len(self._maps[0].columns)}
        for i, operation in enumerate(program.operations):
            self.made.operations.append(self._operation(i, operation))
        self.made.buffers += self._buffers()

    def _operation(self, index: int, operation: Operation) -> Operation:
        if operation.kind is Kind.INTERPOLATE:
            writer = self._writers[operation.out]
            return replace(operation, norm=writer.norm, residual_scale=writer.residual_scale)
        steps = self._steps.get(index)
        if operation.kind is Kind.CONV:
            made = self._conv(operation, steps)
        else:
            made = self._sum(index, operation)
        self._writers[operation.out] = made
        return made

    def _conv(self, operation: Operation, steps: tuple[ByteSteps, ...] | None) -> Operation:
        conv, source = self._from.convs[operation.conv], self._maps[operation.sources[0]]
        real = conv.weights.astype(np.float64)
        padded = np.zeros((len(real), len(source.columns), *real.shape[2:]))
        padded[:, source.columns >= 0] = real[:, source.columns[source.columns >= 0]]
        whole, step = rounded_weights(padded * source.step[:, None, None])
        out = _Map.of(len(real), steps)
        scale = step / out.step[: len(real)]
        sums_of_zero = np.einsum("oikl,i->o", whole, source.zero) * scale
        other_scale, other_zero = self._relative(operation.residual, out)
        norm = self._from.norms[operation.norm] if operation.norm >= 0 else None
        made = self._norm(norm, out, scale, -sums_of_zero, -other_scale * other_zero)
        self.made.convs.append(replace(conv, weights=whole.astype(np.float32)))
        self._put(operation, out)
        return replace(
            operation,
            conv=len(self.made.convs) - 1,
            norm=made,
            residual_scale=other_scale,
        )

    def _sum(self, index: int, operation: Operation) -> Operation:
        channels = self._from.buffers[operation.sources[0]].channels
        norm = self._from.norms[operation.norm] if operation.norm >= 0 else None
        if self._from.buffers[operation.out].floats:
            self._put(operation, _Map.of(channels, None))
            if norm is None:
                return operation
            self.made.norms.append(norm)
            return replace(operation, norm=len(self.made.norms) - 1)
        if _is_copy(operation):
            out = self._maps[operation.sources[0]]
            scales, zeros = [1.0], out.zero[:channels]
            relative = np.ones(channels)
        else:
            out = _Map.of(channels, self._steps[index])
            unit = float(out.step.max())
            terms = [self._uniform(source) for source in operation.sources]
            scales = [steps.step / unit for steps in terms]
            relative = unit / out.step[:channels]
            offset = sum(scale * steps.zero for scale, steps in zip(scales, terms, strict=True))
            zeros = offset * relative
        made = self._norm(norm, out, relative, -zeros)
        first = self._put(operation, out)
        return replace(operation, norm=made, first=first, scales=tuple(scales))

    def _uniform(self, slot: int) -> ByteSteps:
        steps = self._maps[slot].steps
        if steps is None:
            raise TypeError(
                f"slot {slot} has steps for each channel, and is no convolution's input"
            )
        return steps

    def _relative(self, slot: int, out: _Map) -> tuple[float, float]:
        """What a byte of a residual is worth in steps of the output, and its zero."""
        if slot < 0 or (out.steps is None and self._maps[slot].steps is None):
            return 1.0, 0.0
        if out.steps is None:
            raise TypeError("a residual beside steps for each channel")
        steps = self._uniform(slot)
        return steps.step / out.steps.step, float(steps.zero)

    def _norm(
        self,
        norm: NormWeights | None,
        out: _Map,
        scale: NDArray[np.float64],
        added_to_bias: NDArray[np.float64],
        added: float = 0.0,
    ) -> int:
        """Enter what follows sums: times `scale`, in the steps of what is put out."""
        channels = len(scale)
        unit, zero = out.step[:channels], out.zero[:channels] + added
        bias = np.zeros(channels) if norm is None else norm.bias.astype(np.float64)
        shift = np.zeros(channels) if norm is None else norm.shift.astype(np.float64)
        self.made.norms.append(
            NormWeights(
                _widened(bias / unit + zero + added_to_bias, out),
                _widened(shift / unit + zero, out),
                None if norm is None else norm.window,
                _widened(scale, out),
            )
        )
        return len(self.made.norms) - 1

    def _put(self, operation: Operation, out: _Map) -> int:
        """Note what a slot holds now, and return where in it the operation starts to write."""
        first = 0
        if operation.first:
            before = self._maps[operation.out]
            first = len(before.columns)
            out = before.beside(out, operation.first)
        self._maps[operation.out] = out
        width = len(out.columns)
        self._widths[operation.out] = max(width, self._widths.get(operation.out, width))
        return first

    def _buffers(self) -> Iterator[Buffer]:
        for buffer in self._from.buffers:
            yield replace(buffer, channels=self._widths.get(buffer.slot, buffer.channels))


def padded_channels(channels: int) -> int:
    """The next multiple of what is multiplied at once."""
    return -(-channels // CHANNELS_AT_ONCE) * CHANNELS_AT_ONCE


def rounded_weights(
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whole numbers from -127 to 127 for (out, ...) weights, and each output channel's step."""
    largest = np.abs(weights).reshape(len(weights), -1).max(1)
    step = np.where(largest > 0, largest, 1.0) / MOST_WEIGHT
    shape = (-1,) + (1,) * (weights.ndim - 1)
    return np.rint(weights / step.reshape(shape)), step


def _widened(values: NDArray[np.float64], out: _Map) -> Floats:
    wide = np.zeros(len(out.columns), np.float32)
    wide[: len(values)] = values
    return wide
