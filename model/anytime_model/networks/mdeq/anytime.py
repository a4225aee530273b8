"""The anytime MDEQ: a fixed point found by iterations, some of which are decoded."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anytime_model.networks.base import Network, Pause, Size, State, initialise
from anytime_model.networks.mdeq import broyden
from anytime_model.networks.mdeq.config import RESOLUTIONS, MdeqConfig
from anytime_model.networks.mdeq.function import Function

NORM_MOMENTUM = 0.01


class Stem(nn.Module):
    """From the image to what is injected into every evaluation, at 1/4 of the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            (
                nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
                nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
                nn.Conv2d(width, width, 1, bias=False),
            )
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, momentum=NORM_MOMENTUM) for _ in range(3))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, H / 4, W / 4)."""
        x = image
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return x


class Head(nn.Module):
    """An exit: all resolutions side by side at the finest one, and two 1x1 convolutions."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width, momentum=NORM_MOMENTUM)
        self.predict = nn.Conv2d(width, outputs, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, finest first, to (B, outputs, h, w)."""
        size = maps[0].shape[-2:]
        enlarged = [
            F.interpolate(x, size=size, mode="bilinear", align_corners=True) for x in maps[1:]
        ]
        x = self.join(torch.cat([maps[0], *enlarged], dim=1))
        y: Tensor = self.predict(F.relu(self.norm(x)))
        return y


class MdeqNetwork(Network):
    """A multiscale deep equilibrium model with an exit after each of some iterations.

    A stage goes on with Broyden's method where the one before has stopped; all stages share one
    function. Settled positions keep their maps, as in every family; nothing else depends on them,
    as a fixed point is one of all positions together.

    Between stages a state holds the method's memory: per image, two maps of all resolutions for
    every evaluation made but the first, and four more. At 1024x2048 px `small` takes 0.7 GB after
    ten evaluations.

    Args:
        config: which layers there are.
    """

    def __init__(self, config: MdeqConfig) -> None:
        super().__init__(config)
        preset = config.size
        self._widths = preset.widths
        self._iterations = config.iterations
        self.stem = Stem(preset.widths[0])
        self.function = Function(preset)
        self.stages = nn.ModuleList()
        self.exits = nn.ModuleList(
            Head(sum(preset.widths), config.outputs) for _ in config.iterations
        )
        self.apply(initialise)

    def masks(self, active: Tensor) -> Mapping[Size, Tensor]:
        """See `Network.masks`: that of the maps alone."""
        return {(active.shape[-2], active.shape[-1]): active}

    def run_to(self, state: State, exit_: int, pause: Pause) -> tuple[tuple[Tensor, ...], Tensor]:
        """See `Network.run_to`; everything is computed."""
        if state.exit:
            injection, *memory = state.features
            at, made = broyden.Iterate(*memory), self._iterations[state.exit - 1]
        else:
            injection, made = self.stem(state.features[0]), 0
            at = broyden.start(self._flat(self._zeros(injection)))
        for _ in range(self._iterations[exit_ - 1] - made):
            at = broyden.advance(at, lambda z: self._evaluated(z, injection, pause))
        pause()
        logits: Tensor = self.exits[exit_ - 1](self._maps(at.z, injection))
        return (injection, *at), logits

    def _evaluated(self, z: Tensor, injection: Tensor, pause: Pause) -> Tensor:
        return self._flat(self.function(self._maps(z, injection), injection, pause))

    def _zeros(self, injection: Tensor) -> list[Tensor]:
        return [injection.new_zeros(shape) for shape in self._shapes(injection)]

    def _shapes(self, injection: Tensor) -> list[tuple[int, int, int, int]]:
        batch, _, height, width = injection.shape
        return [(batch, self._widths[i], height >> i, width >> i) for i in range(RESOLUTIONS)]

    def _flat(self, maps: list[Tensor]) -> Tensor:
        return torch.cat([x.flatten(1) for x in maps], dim=1)

    def _maps(self, z: Tensor, injection: Tensor) -> list[Tensor]:
        shapes = self._shapes(injection)
        parts = torch.split(z, [prod(shape[1:]) for shape in shapes], dim=1)
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
