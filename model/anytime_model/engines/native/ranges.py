"""The ranges of a network's maps for int8, measured on images.

Images run through the float program without masks, twice: for the largest values, and for
histograms between them. A byte's range may leave the rarest values out, so that the others are told
apart more finely: by default it is the one with the least squared error of rounding and clipping.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anytime_model.engines.native.interpretation import Interpretation
from anytime_model.engines.native.lowering import lower
from anytime_model.engines.native.program import MOST_BYTE, Program
from anytime_model.engines.native.quantisation import Range, measured_operations, ranges_of
from anytime_model.errors import ConfigError
from anytime_model.networks.base import Network, padded_size

Method = Literal["mse", "percentile", "largest"]

IMAGE = -1
"""In place of an operation's number."""
BINS = 2048
TAIL = 1e-4
"""Share of values that the method "percentile" leaves out, at either end."""
DIGITS = 5
"""Significant ones of a range."""


def measure_ranges(
    network: Network,
    images: Sequence[Tensor],
    method: Method = "mse",
    tick: Callable[[], object] = lambda: None,
    floats: Sequence[str] = (),
) -> tuple[Range, ...]:
    """The ranges that `quantise` takes.

    Args:
        network: in evaluation mode.
        images: (3, H, W) normalised, of any size.
        method: "mse", "percentile" or "largest".
        tick: called after each image of each of the two passes.
        floats: parts that stay in floats (`quantise`).

    Raises:
        ConfigError: there are no images.
        KernelError: the network's family has no program.
    """
    if not images:
        raise ConfigError("there are no images to measure ranges on; expected at least one.")
    program = program_to_quantise(network, floats)
    padded = [_padded(image, network.config.stride) for image in images]
    parts = {IMAGE: 1}  # how many ranges a map has: one, or one for each channel
    for index in measured_operations(program):
        parts[index] = ranges_of(program, program.operations[index])
    keys = [(index, part) for index, count in parts.items() for part in range(count)]
    ends: dict[tuple[int, int], Range] = dict.fromkeys(keys, (0.0, 0.0))

    def widen(index: int, values: Tensor) -> None:
        for part, some in enumerate(_parts(values, parts.get(index, 0))):
            low, high = ends[index, part]
            ends[index, part] = (min(low, float(some.min())), max(high, float(some.max())))

    counts = {key: np.zeros(BINS) for key in keys}

    def count(index: int, values: Tensor) -> None:
        for part, some in enumerate(_parts(values, parts.get(index, 0))):
            low, high = ends[index, part]
            found = torch.histc(some.float(), BINS, min=low, max=high or 1.0)
            counts[index, part] += found.double().numpy()

    for observe in (widen, count):
        for image in padded:
            _run(program, image, observe)
            tick()
    return tuple(
        tuple(_significant(end) for end in _chosen(counts[key], *ends[key], method))  # type: ignore[misc]
        for key in keys
    )


def program_to_quantise(network: Network, floats: Sequence[str]) -> Program:
    """The program in floats that is put into bytes, all but some parts.

    HRNet's own head mixes all features at once where it is in bytes.

    Raises:
        FamilyError: the network's family has no program.
    """
    return lower(network, concatenate=f"exit {network.config.num_exits}" not in floats)


def _run(program: Program, image: Tensor, observe: Callable[[int, Tensor], None]) -> None:
    observe(IMAGE, image)
    run = Interpretation(program, image, observe)
    for _ in program.ends:
        run.advance()


def _parts(values: Tensor, count: int) -> tuple[Tensor, ...]:
    return (values,) * count if count < 2 else values.unbind(1)


def _padded(image: Tensor, stride: int) -> Tensor:
    height, width = image.shape[-2:]
    down, right = (
        wanted - side
        for wanted, side in zip(padded_size((height, width), stride), (height, width), strict=True)
    )
    return F.pad(image[None], (0, right, 0, down), mode="replicate")[0]


def _chosen(counts: NDArray[np.float64], low: float, high: float, method: Method) -> Range:
    if method == "largest" or low == high:
        return low, high
    edges = np.linspace(low, high or 1.0, BINS + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    if method == "percentile":
        shares = counts.cumsum() / counts.sum()
        above = int(np.searchsorted(shares, 1 - TAIL))
        below = int(np.searchsorted(shares, TAIL))
        return (min(0.0, edges[below]) if low < 0 else 0.0), max(0.0, edges[above + 1])
    best, least = (low, high), np.inf
    for share in np.linspace(1.0, 0.2, 81):
        step = share * (high - low) / MOST_BYTE
        beyond = np.maximum(middle - share * high, 0) + np.maximum(share * low - middle, 0)
        inside = counts[beyond == 0].sum()
        error = inside * step**2 / 12 + (counts * beyond**2).sum()
        if error < least:
            best, least = (share * low, share * high), error
    return best


def _significant(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
