"""Where our engine's time goes: a table of its operations (`bench/engine.py --layers`).

The run is stopped after every piece of an operation, and the time since the last stop is put down
to it. What a fused group does is one line. The multiply-adds are those of the definition, so that a
Winograd convolution can be above the measured peak. A cancel waits for the end of a piece, so the
longest is told, too, and what memory the buffers of one image take.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from anytime_model.checkpoint.store import Checkpoint
from anytime_model.engines.native.engine import NativeEngine, program_of
from anytime_model.engines.native.memory import PlanMaker
from anytime_model.engines.native.program import Operation, Program
from anytime_model.kernels.handles import RunHandle
from anytime_model.kernels.library import Kind, Measure

SHORTEST_SLICE_US = 1  # one piece of an operation


@dataclass(frozen=True)
class Layer:
    """Operations that do the same on maps of the same size in the same stage."""

    stage: int
    what: str
    level: int

    def __str__(self) -> str:
        return f"{self.stage}  1/{1 << self.level:<3} {self.what}"


@dataclass(frozen=True)
class Spent:
    """What a layer took: times as medians over rounds."""

    layer: Layer
    operations: int
    ms: float
    gmacs: float


class Profile:
    """Runs a network operation by operation.

    Args:
        engine: its instruction set is used.
        checkpoint: what it runs.
        size: (H, W) of the padded image, px.
        clock: seconds.
    """

    def __init__(
        self,
        engine: NativeEngine,
        checkpoint: Checkpoint,
        size: tuple[int, int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._program = program_of(checkpoint, engine.dtype)
        self._scale, self._offset = engine.scale, engine.offset
        self._clock = clock
        self._maker = PlanMaker(engine.library, engine.isa, self._program)
        self._plan = self._maker.make(size)
        self._longest: list[float] = []

    def footer(self) -> str:
        """The longest time between two looks at the clock in the last measurement, and memory."""
        longest = 1e3 * median(self._longest), 1e3 * max(self._longest)
        return (
            f"longest piece of a run: {longest[0]:.2f} ms in the median, {longest[1]:.2f} at most; "
            f"buffers: {self._plan.bytes_of_one / 2**20:.0f} MiB"
        )

    def measure(self, image: Any, criteria: Sequence[Any], rounds: int) -> list[Spent]:
        """The layers in the order of the run; the first round warms up and is not counted."""
        times: dict[Layer, list[float]] = {}
        macs: dict[Layer, float] = {}
        self._longest = []
        for round_ in range(rounds + 1):
            taken: dict[Layer, float] = defaultdict(float)
            done: dict[Layer, float] = defaultdict(float)
            longest = 0.0
            for layer, seconds, sums in self._pieces(image, criteria):
                longest = max(longest, seconds)
                taken[layer] += seconds
                done[layer] += sums
            if round_ > 0:
                self._longest.append(longest)
                for layer, seconds in taken.items():
                    times.setdefault(layer, []).append(seconds)
            macs = done
        counts: dict[Layer, int] = defaultdict(int)
        masked = any(one is not None for one in criteria)
        for first, layer in self._layers(masked=masked):
            if masked or self._program.operations[first].kind is not Kind.INTERPOLATE:
                counts[layer] += 1
        return [
            Spent(layer, counts[layer], 1e3 * median(seconds), macs[layer] / 1e9)
            for layer, seconds in times.items()
        ]

    def _pieces(self, image: Any, criteria: Sequence[Any]) -> Iterator[tuple[Layer, float, int]]:
        layers = dict(self._layers(masked=any(one is not None for one in criteria)))
        handle = self._plan.take_run()
        clock = self._clock
        start = clock()
        handle.start_bytes(image, self._scale, self._offset)
        yield Layer(1, "image", 0), clock() - start, 0
        for stage, criterion in enumerate(criteria, start=1):
            more = True
            while more:
                operation, before, start = handle.operation(), handle.macs(), clock()
                more = handle.advance(SHORTEST_SLICE_US)
                yield layers[operation], clock() - start, handle.macs() - before
            start = clock()
            _settle(handle, criterion)
            yield Layer(stage, "confidence, lists, copies", 2), clock() - start, 0
        self._plan.give_back(handle)

    def _layers(self, *, masked: bool) -> Iterator[tuple[int, Layer]]:
        """The first operation of every fused group, or an operation alone, and its layer.

        Without masks an interpolation has nothing to do and is passed over, so that the time put
        down to it is that of what follows.
        """
        program = self._program
        first = 0
        skipped: list[int] = []
        for i, operation in enumerate(program.operations):
            if operation.fused:
                continue
            group = program.operations[first : i + 1]
            stage = 1 + sum(end <= first for end in program.ends)
            what = " + ".join(_name(program, one) for one in group)
            if operation.kind is Kind.INTERPOLATE and first == i and not masked:
                skipped.append(first)
            else:
                for start in (*skipped, first):
                    yield start, Layer(stage, what, program.buffers[operation.out].level)
                skipped = []
            first = i + 1


def _settle(handle: RunHandle, criterion: Any) -> None:
    map_ = handle.read_map()
    handle.settle(Measure.PROBABILITY)
    if criterion is not None:
        logits = torch.from_numpy(map_.transpose(2, 0, 1))[None]
        handle.mask(criterion(logits)[0, 0].numpy())
    handle.read_settled()


def _name(program: Program, operation: Operation) -> str:
    out = program.buffers[operation.out].channels
    if operation.kind is Kind.CONV:
        weights = program.convs[operation.conv]
        _, inputs, kernel, _ = weights.weights.shape
        strided = "/2" if weights.stride == 2 else ""
        return f"{kernel}x{kernel}{strided} {inputs}>{out}"
    if operation.kind is Kind.INTERPOLATE:
        return f"interpolate {out}"
    channels = program.buffers[operation.sources[0]].channels
    levels = [program.buffers[source].level for source in operation.sources]
    pooled = "pool " if operation.pool else ""
    return f"{pooled}sum {channels} of 1/{', 1/'.join(str(1 << level) for level in levels)}"


def table(spent: Sequence[Spent], peak: float) -> str:
    """Lines of layers; `peak` in multiply-adds a second."""
    total = sum(one.ms for one in spent)
    lines = [
        f"{'stage, size, operation':58} {'times':>5} {'ms':>8} {'share':>6} "
        f"{'G/s':>6} {'of peak':>8}"
    ]
    for one in spent:
        rate = one.gmacs / one.ms * 1e3
        speed = f"{rate:6.1f} {rate * 1e9 / peak:8.0%}" if one.gmacs else ""
        name = str(one.layer)
        name = name if len(name) <= 58 else name[:55] + "..."
        lines.append(
            f"{name:58} {one.operations or '':>5} {one.ms:8.2f} {one.ms / total:6.1%} {speed}"
        )
    gmacs = sum(one.gmacs for one in spent)
    lines.append(
        f"{'total':64} {total:8.2f} {1:6.0%} {gmacs / total * 1e3:6.1f} "
        f"{gmacs / total * 1e12 / peak:8.0%}"
    )
    return "\n".join(lines)
