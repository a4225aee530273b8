"""The anytime network: a backbone whose every stage ends in an exit, advanced one stage at a time.

    state = network.begin(image)
    while not state.done and there_is_budget():
        state = network.advance(state, criterion)

Stopping early is not calling `advance` again. A state is immutable, so a stage that is abandoned
half-way (by an exception from `pause`) loses nothing. The network decides no budget, no threshold
and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anytime_model.confidence import Criterion
from anytime_model.config import NUM_EXITS, NetworkConfig
from anytime_model.errors import ConfigError, FinishedError, ImageError
from anytime_model.exits import build_exits
from anytime_model.hrnet import Pause, build_stages, upsample
from anytime_model.masking import Masks

STRIDE = 32
"""Images are padded to a multiple of this, px: the coarsest branch is at 1/32."""

RESOLUTIONS = 4


@dataclass(frozen=True, slots=True)
class State:
    """How far one batch of images has come.

    Attributes:
        image_size: (H, W) of the images as given, px, before padding.
        exit: exits made so far, 0 to 4.
        features: what the next stage starts from: the padded image, later the branches, finest
        first. logits: (B, K, h, w) aggregated map of the last exit (equation 7) at 1/4 of the
            padded size, or None before exit 1. Class logits, or heat-maps for pose.
        active: (B, 1, h, w) boolean, where the next stage computes; None means everywhere.
    """

    image_size: tuple[int, int]
    exit: int
    features: tuple[Tensor, ...]
    logits: Tensor | None = None
    active: Tensor | None = None

    @property
    def done(self) -> bool:
        """Whether the last exit has been made."""
        return self.exit == NUM_EXITS

    @property
    def active_share(self) -> float:
        """Share of positions that the next stage computes, 0 to 1, over the whole batch."""
        return 1.0 if self.active is None else float(self.active.float().mean())


class AnytimeNetwork(nn.Module):
    """A multi-exit HRNet with confidence adaptivity (the paper's ADP-C).

    Args:
        config: which layers there are.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = build_stages(
            config.size, last_outputs=1 if config.task == "pose" else RESOLUTIONS
        )
        self.exits = build_exits(config)
        self.apply(_initialise)

    def begin(self, image: Tensor) -> State:
        """Accept a batch of images; nothing is computed yet.

        Args:
            image: (B, 3, H, W) normalised RGB, floating point, any H, W >= 1. It is padded at the
                right and the bottom to a multiple of 32 by repeating its border.

        Raises:
            ImageError: another shape or type.
        """
        if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
            raise ImageError(
                f"the image tensor has shape {tuple(image.shape)}; expected (B, 3, H, W), none 0. "
                "Add the batch dimension and convert to RGB."
            )
        if not image.is_floating_point():
            raise ImageError(
                f"the image tensor is {image.dtype}; expected a floating type. Normalise it first."
            )
        height, width = image.shape[-2:]
        padding = (0, -width % STRIDE, 0, -height % STRIDE)
        padded = F.pad(image, padding, mode="replicate") if any(padding) else image
        return State((height, width), 0, (padded,))

    def advance(
        self, state: State, criterion: Criterion | None = None, pause: Pause | None = None
    ) -> State:
        """Run the next stage where it is active, make its exit, and decide what stays active.

        Args:
            state: where to go on from; unchanged.
            criterion: which positions of the new map are settled and need no more work. Positions
                that were settled before stay so. None settles nothing new.
            pause: called between the modules of the network; whatever it raises abandons the stage.

        Raises:
            FinishedError: the state has made its last exit.
        """
        if state.done:
            raise FinishedError(
                f"all {NUM_EXITS} exits have been made; begin again with another image."
            )
        masks = None if state.active is None else Masks.pyramid(state.active, RESOLUTIONS)
        pause = pause or _go_on
        features = self.stages[state.exit](state.features, masks, pause)
        pause()
        logits: Tensor = self.exits[state.exit](features, masks)
        if state.active is not None and state.logits is not None:
            logits = torch.where(state.active, logits, state.logits)
        active = state.active
        if criterion is not None:
            unsettled = criterion(logits.detach())
            active = unsettled if active is None else active & unsettled
        return State(state.image_size, state.exit + 1, features, logits, active)

    def forward(
        self, image: Tensor, criteria: Criterion | Sequence[Criterion | None] | None = None
    ) -> tuple[State, ...]:
        """Begin, then make all exits: what training and evaluation use.

        Args:
            image: as `begin` takes it.
            criteria: one criterion for all exits, or a sequence of one for each of exits 1 to 4 or
                1 to 3.

        Returns:
            The state after each exit.
        """
        state = self.begin(image)
        states = []
        for criterion in _one_per_exit(criteria):
            state = self.advance(state, criterion)
            states.append(state)
        return tuple(states)

    def upsample(self, state: State) -> Tensor:
        """The last exit's map at the size of the image: (B, K, H, W), bilinear, padding cropped.

        Raises:
            FinishedError: no exit has been made yet.
        """
        if state.logits is None:
            raise FinishedError("no exit has been made yet; call advance first.")
        height, width = state.image_size
        full = upsample(state.logits, (4 * state.logits.shape[-2], 4 * state.logits.shape[-1]))
        return full[..., :height, :width]


def _one_per_exit(
    criteria: Criterion | Sequence[Criterion | None] | None,
) -> Sequence[Criterion | None]:
    if not isinstance(criteria, Sequence):
        return list(repeat(criteria, NUM_EXITS))
    if len(criteria) not in {NUM_EXITS - 1, NUM_EXITS}:
        raise ConfigError(
            f"{len(criteria)} criteria were given; expected one for each of exits 1 to 3, or to 4."
        )
    return [*criteria, None][:NUM_EXITS]


def _go_on() -> None:
    """The pause of a caller who never stops."""


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
