"""The anytime HRNet: the backbone's stages, each followed by an exit (the paper's ADP-C)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from anytime_model.networks.base import Network, Pause, Size, State, initialise
from anytime_model.networks.hrnet.backbone import build_stages
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.networks.hrnet.exits import build_exits
from anytime_model.networks.hrnet.masking import Masks
from anytime_model.tasks import TASKS


class AnytimeNetwork(Network):
    """A multi-exit HRNet with confidence adaptivity.

    Args:
        config: which layers there are.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self._branches = len(config.size.stage_widths[-1])
        self.stages = build_stages(
            config.size,
            last_outputs=self._branches if TASKS[config.task].combines_branches else 1,
        )
        self.exits = build_exits(config)
        self.apply(initialise)

    def masks(self, active: Tensor) -> Mapping[Size, Tensor]:
        """See `Network.masks`: one for each branch's resolution."""
        return Masks.pyramid(active, self._branches).by_size

    def run_to(
        self,
        state: State,
        exit_: int,
        pause: Pause,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """See `Network.run_to`; the first stage is never masked."""
        masks = None
        if state.active is not None and state.exit > 0:
            masks = Masks(self.masks(state.active))
        features = self.stages[exit_ - 1](state.features, masks, pause)
        pause()
        logits: Tensor = self.exits[exit_ - 1](features, masks)
        return features, logits
