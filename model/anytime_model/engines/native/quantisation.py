"""A program in bytes, made from one in floats and the ranges of its maps.

Activations are unsigned bytes with one step for each map (`ByteSteps`; 0 is byte 0 of a map after
ReLU), or for each channel of a map that only convolutions read (`Operation.each_channel`); weights
are signed bytes with one step for each output channel. A layer's multiply-adds are exact sums of
integers; what follows them is computed in float32 and in steps of the map that is written, rounded
once, to nearest, ties to even. The values that an interpolation reads, the last sums, logits and
confidences are float32 as in every precision. `interpretation` says the same in torch.

Parts of a network may stay in floats (`Operation.part`): their convolutions multiply floats and put
out floats, in buffers of their own (twins of those of the bytes). A sum takes terms of both kinds;
where a convolution or a residual needs the other kind, an operation in between converts.

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
from anytime_model.kernels.library import Activation, Floats, KernelError, Kind, Storage, Where

CHANNELS_AT_ONCE = 4
MOST_WEIGHT = 127
WHOLE = ByteSteps(1.0, 0)
"""Of a map in floats: its values are what they stand for."""

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


def parts(program: Program) -> tuple[str, ...]:
    """The parts of a network that may stay in floats, in the order of the run.

    The first stage and its exit, whose maps are the largest, are always in bytes.
    """
    later = program.operations[program.ends[0] :]
    return tuple(dict.fromkeys(operation.part for operation in later))


def quantise(program: Program, ranges: Sequence[Range], floats: Sequence[str] = ()) -> Program:
    """The same program in bytes.

    Args:
        program: in floats, with an image of three channels.
        ranges: of the image, then of each of `measured_operations`.
        floats: of its `parts`, those that stay in floats.

    Raises:
        KernelError: it has depthwise convolutions, which the kernels do not do in bytes.
        ConfigError: there are not as many ranges as maps, or a part is not known.
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
    unknown = set(floats) - set(parts(program))
    if unknown:
        raise ConfigError(
            f"no part of this network that may stay in floats is called {min(unknown)!r}; expected "
            f"some of {', '.join(parts(program))}."
        )
    image, *others = (ByteSteps.between(*one) for one in ranges)
    left = iter(others)
    steps = {i: tuple(islice(left, count)) for i, count in counts.items()}
    return _Quantiser(program, image, steps, frozenset(floats)).made


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
    """Walks a program and keeps what each slot holds.

    A value is in its slot as bytes, in the slot's twin as floats, or in both.
    """

    def __init__(
        self,
        program: Program,
        image: ByteSteps,
        steps: dict[int, tuple[ByteSteps, ...]],
        floats: frozenset[str],
    ) -> None:
        self._from = program
        self._steps = steps
        self._floats = floats
        self.made = Program(image_steps=image)
        self._maps = {0: _Map.of(program.buffers[0].channels, [image])}  # in bytes
        self._whole: dict[int, _Map] = {}  # in floats, by the slot whose twin it is in
        self._twins: dict[int, int] = {}
        self._rounded: dict[int, _Map] = {}  # of what is in floats, what its bytes would be
        self._writers: dict[int, Operation] = {}  # of each slot, the last that is no interpolation
        self._widths = {0: len(self._maps[0].columns)}
        begins = []
        for i, operation in enumerate(program.operations):
            made = self._operation(i, operation)
            begins.append(len(self.made.operations))
            self.made.operations.append(made)
        self.made.ends = [begins[end - 1] + 1 for end in program.ends]
        self.made.buffers += self._buffers()

    def _operation(self, index: int, operation: Operation) -> Operation:
        if operation.kind is Kind.INTERPOLATE:
            writer = self._writers[operation.out]
            return replace(
                operation,
                out=writer.out,
                norm=writer.norm,
                residual=writer.residual,
                residual_scale=writer.residual_scale,
            )
        if operation.kind is Kind.CONV:
            made = self._conv(index, operation)
        else:
            made = self._sum(index, operation)
        self._writers[operation.out] = made
        return made

    def _in_floats(self, operation: Operation) -> bool:
        return operation.part in self._floats

    def _out(self, index: int, operation: Operation, channels: int) -> _Map:
        if self._from.buffers[operation.out].floats:
            return _Map.of(channels, None)
        if self._in_floats(operation):
            return _Map.of(channels, [WHOLE])
        return _Map.of(channels, self._steps[index])

    def _conv(self, index: int, operation: Operation) -> Operation:
        conv, whole = self._from.convs[operation.conv], self._in_floats(operation)
        slot, source = self._source(index, operation.sources[0], whole=whole)
        real = conv.weights.astype(np.float64)
        weights = np.zeros((len(real), len(source.columns), *real.shape[2:]))
        weights[:, source.columns >= 0] = real[:, source.columns[source.columns >= 0]]
        step = np.ones(len(real))
        if not whole:
            weights, step = rounded_weights(weights * source.step[:, None, None])
        out = self._out(index, operation, len(real))
        scale = step / out.step[: len(real)]
        sums_of_zero = np.einsum("oikl,i->o", weights, source.zero) * scale
        residual, other_scale, other_zero = operation.residual, 1.0, 0.0
        if residual >= 0:
            residual, other = self._source(index, residual, whole=whole)
            other_scale, other_zero = self._relative(other, out)
        norm = self._from.norms[operation.norm] if operation.norm >= 0 else None
        made = self._norm(norm, out, scale, -sums_of_zero, -other_scale * other_zero)
        self.made.convs.append(replace(conv, weights=weights.astype(np.float32), whole=whole))
        to, _ = self._put(index, operation, out)
        return replace(
            operation,
            out=to,
            sources=(slot,),
            conv=len(self.made.convs) - 1,
            norm=made,
            residual=residual,
            residual_scale=other_scale,
        )

    def _sum(self, index: int, operation: Operation) -> Operation:
        channels = self._from.buffers[operation.sources[0]].channels
        norm = self._from.norms[operation.norm] if operation.norm >= 0 else None
        if self._from.buffers[operation.out].floats:
            self._put(index, operation, _Map.of(channels, None))
            if norm is None:
                return operation
            self.made.norms.append(norm)
            return replace(operation, norm=len(self.made.norms) - 1)
        held = [self._held(slot) for slot in operation.sources]
        terms = [map_ for _, map_ in held]
        if not self._in_floats(operation) and _is_copy(operation):
            out = self._maps.get(operation.sources[0]) or self._rounded[operation.sources[0]]
        else:
            out = self._out(index, operation, channels)
        if len(terms) == 1 and terms[0] is out:
            scales, zeros = [1.0], out.zero[:channels]
            relative = np.ones(channels)
        else:
            unit = float(out.step.max())
            uniform = [_uniform(map_) for map_ in terms]
            scales = [steps.step / unit for steps in uniform]
            relative = unit / out.step[:channels]
            offset = sum(scale * steps.zero for scale, steps in zip(scales, uniform, strict=True))
            zeros = offset * relative
        made = self._norm(norm, out, relative, -zeros)
        to, first = self._put(index, operation, out)
        return replace(
            operation,
            out=to,
            sources=tuple(slot for slot, _ in held),
            norm=made,
            first=first,
            scales=tuple(scales),
        )

    def _held(self, slot: int) -> tuple[int, _Map]:
        """Where a value is and as what; as bytes if it is as both."""
        return (slot, self._maps[slot]) if slot in self._maps else self._as_floats(slot)

    def _as_floats(self, slot: int) -> tuple[int, _Map]:
        return self._twins[slot], self._whole[slot]

    def _source(self, index: int, slot: int, *, whole: bool) -> tuple[int, _Map]:
        """Where a value is as bytes or as floats; brought there before operation `index` if not."""
        if self._from.buffers[slot].floats or slot in (self._whole if whole else self._maps):
            return self._as_floats(slot) if whole and slot in self._whole else self._held(slot)
        operations = self._from.operations
        if index and (operations[index - 1].fused or operations[index - 1].tiled):
            raise ConfigError(
                f"{operations[index].part} cannot stay in floats apart from what it is done with."
            )
        if whole:
            from_, to = slot, self._twin(slot)
            map_ = self._maps[slot]
            scale, bias = map_.step, -map_.zero * map_.step
            out = self._whole[slot] = replace(
                map_, steps=WHOLE, step=np.ones_like(scale), zero=np.zeros_like(bias)
            )
        else:
            from_, to = self._twins[slot], slot
            out = self._maps[slot] = self._rounded[slot]
            scale, bias = 1 / out.step, out.zero
        real = out.columns >= 0
        added = np.where(real, bias, 0).astype(np.float32)
        times = np.where(real, scale, 0).astype(np.float32)
        self.made.norms.append(NormWeights(added, np.zeros_like(added), None, times))
        everywhere = operations[index].where is Where.EVERYWHERE
        self.made.operations.append(
            Operation(
                Kind.WEIGHTED_SUM,
                Where.EVERYWHERE if everywhere else Where.NEEDED,
                to,
                sources=(from_,),
                norm=len(self.made.norms) - 1,
                scales=(1.0,),
                part=operations[index].part,
            )
        )
        return to, out

    def _twin(self, slot: int) -> int:
        return self._twins.setdefault(slot, len(self._from.buffers) + len(self._twins))

    def _relative(self, other: _Map, out: _Map) -> tuple[float, float]:
        """What a byte of a residual is worth in steps of the output, and its zero."""
        if out.steps is None and other.steps is None:
            return 1.0, 0.0
        if out.steps is None:
            raise TypeError("a residual beside steps for each channel")
        steps = _uniform(other)
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

    def _put(self, index: int, operation: Operation, out: _Map) -> tuple[int, int]:
        """Note what a slot holds now; return the slot to write to, and where in it to start."""
        slot = operation.out
        whole = self._in_floats(operation) and not self._from.buffers[slot].floats
        holds, others = (self._whole, self._maps) if whole else (self._maps, self._whole)
        first = 0
        if operation.first:
            before = holds[slot]
            first = len(before.columns)
            out = before.beside(out, operation.first)
        holds[slot] = out
        others.pop(slot, None)
        if whole and index in self._steps:
            self._rounded[slot] = _Map.of(self._from.buffers[slot].channels, self._steps[index])
        width = len(out.columns)
        self._widths[slot] = max(width, self._widths.get(slot, width))
        return self._twin(slot) if whole else slot, first

    def _buffers(self) -> Iterator[Buffer]:
        used = {0, 1}
        for operation in self.made.operations:
            used |= {operation.out, operation.residual, *operation.sources}
        for buffer in self._from.buffers:
            width = self._widths.get(buffer.slot, buffer.channels)
            # What only its twin is used of takes no memory but a few sites'.
            storage = buffer.storage if buffer.slot in used else Storage.LOCAL
            yield replace(buffer, channels=width, storage=storage)
        for slot, twin in self._twins.items():
            yield replace(
                self._from.buffers[slot], slot=twin, channels=self._widths[slot], floats=True
            )


def _uniform(map_: _Map) -> ByteSteps:
    if map_.steps is None:
        raise TypeError("a map with steps for each channel is no convolution's input")
    return map_.steps


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
