"""The anytime lite network: EfficientNet-Lite's stages, each followed by an exit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from anytime_model.networks.base import Network, Pause, Size, State, initialise
from anytime_model.networks.lite.config import LiteConfig
from anytime_model.networks.lite.encoder import build_stages
from anytime_model.networks.lite.exits import build_exits


class LiteNetwork(Network):
    """A multi-exit EfficientNet-Lite.

    Settled positions keep their maps, as in every family. Nothing else depends on them: features
    are computed everywhere, and active positions see true features around them, never interpolated
    ones. So masks save an engine no more than an exit's work at the map's own resolution.

    Args:
        config: which layers there are.
    """

    def __init__(self, config: LiteConfig) -> None:
        super().__init__(config)
        self.stages = build_stages(config.size)
        self.exits = build_exits(config)
        self.apply(initialise)

    def masks(self, active: Tensor) -> Mapping[Size, Tensor]:
        """See `Network.masks`: that of the maps alone."""
        return {(active.shape[-2], active.shape[-1]): active}

    def run_to(self, state: State, exit_: int, pause: Pause) -> tuple[tuple[Tensor, ...], Tensor]:
        """See `Network.run_to`; everything is computed."""
        features = state.features
        for stage in self.stages[state.exit : exit_]:
            features = stage(features, None, pause)
            pause()
        logits: Tensor = self.exits[exit_ - 1](features, None)
        return features, logits
