"""The program of a lowered network: weights, buffers, and operations in their order.

`lowering` makes it from a network, `memory` gives it to the kernels at an image size. The values
mean what is said of the structures in kernels/native/api.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from anytime_model.kernels.library import Activation, Floats, Kind, Storage, Where

IMAGE_LEVEL = 0
MAP_LEVEL = 2
"""Level l is 1/2^l of the image's resolution; maps are at 1/4."""
MOST_BYTE = 255


@dataclass(frozen=True, slots=True)
class ByteSteps:
    """What the bytes 0 to 255 of a map stand for: the real value is (byte - zero) * step.

    Attributes:
        step: between two neighbouring bytes, above 0.
        zero: the byte of 0.
    """

    step: float
    zero: int

    @classmethod
    def between(cls, low: float, high: float) -> ByteSteps:
        """The finest that reach from `low` to `high` and have 0 exactly; one end may be 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = (high - low) / MOST_BYTE or 1.0
        return cls(step, round(-low / step))


@dataclass(frozen=True, slots=True)
class ConvWeights:
    """One convolution.

    Attributes:
        weights: (out, in, k, k) float32; (channels, 1, k, k) of a depthwise one. Of a program in
            bytes, whole numbers from -127 to 127, unless `whole`.
        stride: 1 or 2.
        before: rows and columns of a window above and left of the pixel that it belongs to; None
            is half the kernel. A depthwise one has (k - stride) / 2 whatever is said here.
        dense: it is done at every position, in the first stage, fused with what follows it.
        depthwise: every channel by itself.
        whole: of a program in bytes, it takes floats and puts out floats.
    """

    weights: Floats
    stride: int
    before: int | None = None
    dense: bool = False
    depthwise: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class NormWeights:
    """What follows a convolution's sum.

    Attributes:
        bias: (channels,) added to the sum.
        shift: (channels,) the part of `bias` that comes after an interpolation.
        window: (49,) the interpolation's weights, or None where nothing is masked.
        scale: (channels,) multiplies sums of bytes, before `bias`; None of a program in floats.
    """

    bias: Floats
    shift: Floats
    window: Floats | None
    scale: Floats | None = None


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory for a feature map.

    Attributes:
        slot: its number.
        level: its resolution is 1/2^level of the image's.
        channels: its width.
        floats: float32 whatever the engine computes in.
        storage: with the size's plan, with the image's run, or only within a fused group or a row
            tiling.
    """

    slot: int
    level: int
    channels: int
    floats: bool = False
    storage: Storage = Storage.SCRATCH


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a program; see AnytimeOp in kernels/native/api.h.

    `each_channel`: only convolutions read what it puts out, so that in bytes each channel of that
    has steps of its own. `part`: the part of the network that it belongs to, such as "exit 4".
    """

    kind: Kind
    where: Where
    out: int
    sources: tuple[int, ...] = ()
    conv: int = -1
    norm: int = -1
    activation: Activation = Activation.NONE
    keep: bool = False
    first: int = 0
    residual: int = -1
    pool: bool = False
    fused: bool = False
    tiled: bool = False
    each_channel: bool = False
    residual_scale: float = 1.0
    scales: tuple[float, ...] = ()
    part: str = ""


@dataclass(slots=True)
class Program:
    """A lowered network. Buffer 0 is the image, buffer 1 the aggregated map.

    Attributes:
        heads: where the exit of each stage begins in `operations`; empty where none may be left
            out.
        ends: where each stage, its exit included, ends in `operations`.
        features: what the exit of each stage reads, finest first; empty where they are not kept.
        image_steps: of a program in bytes, what those of the image stand for.
    """

    convs: list[ConvWeights] = field(default_factory=list)
    norms: list[NormWeights] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    features: list[tuple[Buffer, ...]] = field(default_factory=list)
    image_steps: ByteSteps | None = None
