"""Counts of multiply-adds: for an image size, and for a run with its real masks.

Two conventions. The *paper's* (its GFLOPs are multiply-adds of convolutions over 2^30) charges a
masked convolution its dense cost times the share of active positions, plus (1 - p) p C 49 H W for
the interpolation, p being that share. The *executed* one is what an engine without waste has to
do: every active position in full, every inactive one interpolated over 49 taps. Shapes come from a
run on PyTorch's meta device, which computes nothing, so the count cannot drift from the network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor, nn

from anytime_model.errors import ConfigError
from anytime_model.kernels.reference import RADIUS
from anytime_model.networks.base import FamilyConfig, build_network

GIGA = 2**30
"""The paper's "giga"."""

TAPS = (2 * RADIUS + 1) ** 2

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ConvCost:
    """What one convolution costs on one image.

    Attributes:
        name: the layer's.
        stage: number of the exit that it works towards, from 1.
        head: whether it belongs to the exit rather than to the backbone.
        size: (H, W) that it puts out.
        channels: that it puts out.
        per_position: multiply-adds for one output position.
        maskable: whether positions may be skipped.
    """

    name: str
    stage: int
    head: bool
    size: Size
    channels: int
    per_position: int
    maskable: bool

    @property
    def positions(self) -> int:
        """Output positions, H W."""
        return self.size[0] * self.size[1]

    @property
    def dense(self) -> int:
        """Multiply-adds with nothing skipped."""
        return self.per_position * self.positions

    def paper(self, share: float, spread: float = 0.0) -> float:
        """The paper's count with this share of active positions.

        Args:
            share: mean over the images, 0 to 1.
            spread: standard deviation of the share between images. The interpolation's p (1 - p) is
                concave, so its mean over images is p (1 - p) of the mean less the variance.
        """
        if not self.maskable:
            return float(self.dense)
        mixed = max(0.0, (1 - share) * share - spread**2)
        return share * self.dense + mixed * self.channels * TAPS * self.positions

    def executed(self, share: float) -> float:
        """The count of an engine without waste."""
        if not self.maskable:
            return float(self.dense)
        return share * self.dense + (1 - share) * self.channels * TAPS * self.positions


Convention = Callable[[ConvCost, float], float]


@lru_cache(maxsize=64)
def conv_costs(config: FamilyConfig, height: int, width: int) -> tuple[ConvCost, ...]:
    """Every convolution of a network for one image size, in the order in which they run.

    Args:
        config: the network. Each of its feature maps has a fixed share of the padded image's size.
        height: of the image, px; padded to a multiple of the stride as the network does.
        width: of the image, px.

    Raises:
        ConfigError: a side below 1.
    """
    if min(height, width) < 1:
        raise ConfigError(f"the size is {height}x{width}; expected HEIGHTxWIDTH, each at least 1.")
    rows, columns = -(-height // config.stride), -(-width // config.stride)
    return tuple(
        replace(cost, size=(rows * cost.size[0], columns * cost.size[1]))
        for cost in _smallest_costs(config)
    )


@lru_cache(maxsize=64)
def _smallest_costs(config: FamilyConfig) -> tuple[ConvCost, ...]:
    """The costs for the smallest padded image, a square of one stride."""
    made: list[ConvCost] = []
    with torch.device("meta"):
        network = build_network(config).eval()
        image = torch.empty(1, 3, config.stride, config.stride)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(_recorder(name, made))
    costs: list[ConvCost] = []
    with torch.no_grad():
        state = network.begin(image)
        while not state.done:
            made.clear()
            state = network.advance(state)
            costs += (replace(cost, stage=state.exit) for cost in made)
    return tuple(costs)


def _recorder(
    name: str, made: list[ConvCost]
) -> Callable[[nn.Module, tuple[object, ...], Tensor], None]:
    """A hook that notes what a layer has computed; of which stage, its caller knows."""

    def record(layer: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:  # noqa: ARG001
        assert isinstance(layer, nn.Conv2d)  # noqa: S101  by construction
        kernel_h, kernel_w = layer.kernel_size
        made.append(
            ConvCost(
                name,
                stage=0,
                head=name.startswith("exits."),
                size=(output.shape[-2], output.shape[-1]),
                channels=layer.out_channels,
                per_position=kernel_h
                * kernel_w
                * (layer.in_channels // layer.groups)
                * layer.out_channels,
                maskable=bool(getattr(layer, "maskable", False)),
            )
        )

    return record


def per_exit(
    costs: Sequence[ConvCost],
    active_shares: Sequence[float] | None = None,
    convention: Convention = ConvCost.paper,
) -> tuple[float, ...]:
    """Multiply-adds up to and including each exit, earlier exits included.

    Args:
        costs: see `conv_costs`.
        active_shares: share of positions still active after each exit but the last, the same at
            every resolution; None for all.
        convention: how to charge a masked convolution: `ConvCost.paper` or `ConvCost.executed`.
    """
    num_exits = max(cost.stage for cost in costs)
    shares = (1.0, *(active_shares or [1.0] * (num_exits - 1)))
    stages = [
        sum(convention(cost, shares[stage - 1]) for cost in costs if cost.stage == stage)
        for stage in range(1, num_exits + 1)
    ]
    return tuple(accumulate(stages))


def one_exit(costs: Sequence[ConvCost]) -> int:
    """Multiply-adds of the same network without its early exits: the paper's baseline."""
    return step_macs(costs, 0, max(cost.stage for cost in costs))


def step_macs(costs: Sequence[ConvCost], made: int, exit_: int) -> int:
    """Multiply-adds from one exit to a later one, nothing masked, the exits between left out.

    Args:
        costs: see `conv_costs`.
        made: number of the exit that was made, 0 for none.
        exit_: of the later one.
    """
    return sum(
        cost.dense
        for cost in costs
        if made < cost.stage <= exit_ and (not cost.head or cost.stage == exit_)
    )


def stage_macs(
    costs: Sequence[ConvCost],
    stage: int,
    masks: Mapping[Size, Tensor] | None,
    convention: Convention = ConvCost.paper,
) -> float:
    """Multiply-adds of one stage and its exit for one image with its real masks.

    Args:
        costs: for the image's size.
        stage: from 1.
        masks: the masks the stage ran with, of a single image, by resolution (`Network.masks`);
            None for a dense stage.
        convention: how to charge masked convolutions.
    """
    shares: Mapping[Size, float] = (
        {}
        if masks is None
        else {size: float(active.float().mean()) for size, active in masks.items()}
    )
    return sum(
        convention(cost, shares.get(cost.size, 1.0)) for cost in costs if cost.stage == stage
    )
