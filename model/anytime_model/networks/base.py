"""The interface of an anytime network, and the registry of the families that implement it.

    state = network.begin(image)
    while not state.done and there_is_budget():
        state = network.advance(state, criterion)

A network is a chain of stages, each followed by an exit that makes a map. Stopping early is not
calling `advance` again. A state is immutable, so a stage that is abandoned half-way (by an
exception from `pause`) loses nothing. Thresholds and masks are arguments of a run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import repeat
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anytime_model.confidence import Criterion, unsettled
from anytime_model.errors import ConfigError, FinishedError, InputError
from anytime_model.tasks import TASKS, TaskName, at_image_size

Pause = Callable[[], None]
"""Called between the modules of a network; whatever it raises abandons the stage."""

Size = tuple[int, int]


def padded_size(size: Size, stride: int) -> Size:
    """(H, W) px of an image of this size once it is padded to multiples of `stride`."""
    return size[0] + -size[0] % stride, size[1] + -size[1] % stride


def resized_size(size: Size, side: int | None) -> Size:
    """What an image of (H, W) px is computed at: its longer side is `side` px; None keeps it."""
    if side is None:
        return size
    height, width = (max(1, round(n * side / max(size))) for n in size)
    return height, width


class FamilyConfig(Protocol):
    """What the configuration of every family says; frozen and hashable."""

    @property
    def family(self) -> str:
        """Name of the family in the registry."""
        ...

    @property
    def task(self) -> TaskName:
        """Name of the task."""
        ...

    @property
    def outputs(self) -> int:
        """Channels of every map: classes, or joints."""
        ...

    @property
    def num_exits(self) -> int:
        """Number of stages, each with an exit."""
        ...

    @property
    def may_skip_exits(self) -> bool:
        """Whether a run may leave exits out: no feature depends on an exit's map or its mask."""
        ...

    @property
    def stride(self) -> int:
        """Images are padded to a multiple of this, px."""
        ...

    @property
    def map_stride(self) -> int:
        """Px of the padded image for each cell of a map."""
        ...

    def entries(self) -> dict[str, Any]:
        """The configuration as entries of a manifest, without family and labels."""
        ...

    def __hash__(self) -> int: ...


def check_structure(config: FamilyConfig, **choices: Collection[str]) -> None:
    """Refuse what no family can build.

    Args:
        config: has a task and outputs.
        choices: fields of the configuration, and the names that each may have.

    Raises:
        ConfigError: a name that there is not, or no outputs.
    """
    for field, known in {**choices, "task": TASKS}.items():
        found = getattr(config, field)
        if found not in known:
            names = ", ".join(map(repr, known))
            raise ConfigError(f"{field} is {found!r}; expected one of {names}.")
    if config.outputs < 1:
        raise ConfigError(
            f"outputs is {config.outputs}; give the number of classes or joints, >= 1."
        )


def next_exit(exit_: int | None, made: int, config: FamilyConfig) -> int:
    """The exit that a run makes next.

    Args:
        exit_: the one that is asked for; None for the one after the last.
        made: number of the last one made, 0 for none, less than all.
        config: of the network.

    Raises:
        ConfigError: it does not come after the last, or exits of this family may not be left out.
    """
    nearest = made + 1
    if exit_ is None or exit_ == nearest:
        return nearest
    most = config.num_exits if config.may_skip_exits else nearest
    if not nearest <= exit_ <= most:
        raise ConfigError(
            f"exit {exit_} does not follow exit {made} in a network of the family "
            f"{config.family!r}; expected {nearest}" + (f" to {most}." if most > nearest else ".")
        )
    return exit_


@dataclass(frozen=True, slots=True)
class Prior:
    """A map to start from, and where to compute at all.

    Attributes:
        logits: (B, K, h, w) float, the map, for the padded image.
        active: (B, 1, h, w) boolean: where exits replace it. Elsewhere it stays through all exits.
    """

    logits: Tensor
    active: Tensor

    @classmethod
    def from_arrays(cls, logits: NDArray[np.float32], active: NDArray[np.bool_]) -> Prior:
        """A prior for one image.

        Args:
            logits: (K, h, w).
            active: (h, w).
        """
        return cls(
            torch.from_numpy(logits)[None],
            torch.from_numpy(active)[None, None],
        )

    def check(self, batch: int, outputs: int, size: Size) -> None:
        """Refuse a prior that does not belong to an image.

        Args:
            batch: images B.
            outputs: channels K.
            size: (h, w) of the map of the padded image.

        Raises:
            InputError: another shape or type.
        """
        wanted = ((batch, outputs, *size), (batch, 1, *size))
        found = (tuple(self.logits.shape), tuple(self.active.shape))
        if found != wanted:
            raise InputError(
                f"the prior has a map of shape {found[0]} and a mask of shape {found[1]}; expected "
                f"{wanted[0]} and {wanted[1]}. Make it for the padded size of this image."
            )
        if not self.logits.is_floating_point() or self.active.dtype is not torch.bool:
            raise InputError(
                f"the prior has a map of {self.logits.dtype} and a mask of {self.active.dtype}; "
                "expected a floating type and booleans. Convert them first."
            )


@dataclass(frozen=True, slots=True)
class State:
    """How far one batch of images has come.

    Attributes:
        image_size: (H, W) of the images as given, px, before padding.
        exit: exits made so far, from 0.
        num_exits: exits of the network.
        features: what the next stage starts from: the padded image, later the branches, finest
            first.
        logits: (B, K, h, w) aggregated map of the last exit (equation 7), for the padded image.
            Class logits, or heat-maps for pose. Before exit 1, the prior's, or None.
        active: (B, 1, h, w) boolean, where the next stage computes; None means everywhere.
    """

    image_size: Size
    exit: int
    num_exits: int
    features: tuple[Tensor, ...]
    logits: Tensor | None = None
    active: Tensor | None = None

    @property
    def done(self) -> bool:
        """Whether the last exit has been made."""
        return self.exit == self.num_exits

    @property
    def active_share(self) -> float:
        """Share of positions that the next stage computes, 0 to 1, over the whole batch."""
        return 1.0 if self.active is None else float(self.active.float().mean())


class Network(nn.Module, ABC):
    """A network with an exit after each of its stages.

    Attributes:
        stages: one module a stage: features, masks and pause to features. Empty where stages share
            their layers.
        exits: one module an exit: features and masks to a map. Its last convolution is `predict`.
    """

    stages: nn.ModuleList
    exits: nn.ModuleList

    def __init__(self, config: FamilyConfig) -> None:
        super().__init__()
        self._config = config

    @property
    def config(self) -> FamilyConfig:
        """Which layers there are."""
        return self._config

    @abstractmethod
    def masks(self, active: Tensor) -> Mapping[Size, Tensor]:
        """The mask (B, 1, h, w) of a map for every resolution that is computed, by (H, W)."""

    @abstractmethod
    def run_to(self, state: State, exit_: int, pause: Pause) -> tuple[tuple[Tensor, ...], Tensor]:
        """The stages up to an exit, and that exit, where the state is active.

        Args:
            state: where to go on from.
            exit_: the next one, or any later one where exits may be left out.
            pause: called between modules.

        Returns:
            Features for the stage after it, and the exit's own map (B, K, h, w), whose values
            count at active positions only.
        """

    def begin(self, image: Tensor, prior: Prior | None = None) -> State:
        """Accept a batch of images; nothing is computed yet.

        Args:
            image: (B, 3, H, W) normalised RGB, floating point, any H, W >= 1. It is padded at the
                right and the bottom to a multiple of the stride by repeating its border.
            prior: a map to start from. Where it is not active it stays as it is through all exits,
                and masks only shrink from there. The first stage and its exit are computed
                everywhere all the same.

        Raises:
            InputError: an image or a prior of another shape or type.
        """
        if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
            raise InputError(
                f"the image tensor has shape {tuple(image.shape)}; expected (B, 3, H, W), none 0. "
                "Add the batch dimension and convert to RGB."
            )
        if not image.is_floating_point():
            raise InputError(
                f"the image tensor is {image.dtype}; expected a floating type. Normalise it first."
            )
        config = self.config
        height, width = image.shape[-2:]
        padding = (0, -width % config.stride, 0, -height % config.stride)
        padded = F.pad(image, padding, mode="replicate") if any(padding) else image
        state = State((height, width), 0, config.num_exits, (padded,))
        if prior is None:
            return state
        rows, columns = (n // config.map_stride for n in padded.shape[-2:])
        prior.check(len(image), config.outputs, (rows, columns))
        return State(
            state.image_size,
            0,
            config.num_exits,
            state.features,
            prior.logits.to(image.device),
            prior.active.to(image.device),
        )

    def advance(
        self,
        state: State,
        criterion: Criterion | None = None,
        pause: Pause | None = None,
        *,
        exit_: int | None = None,
    ) -> State:
        """Run the next stage where it is active, make its exit, and decide what stays active.

        Args:
            state: where to go on from; unchanged.
            criterion: which positions of the new map are settled and need no more work. Positions
                that were settled before stay so. None settles nothing new.
            pause: called between the modules of the network; whatever it raises abandons the stage.
            exit_: number of a later exit to make instead, the stages before it without theirs;
                where `FamilyConfig.may_skip_exits`.

        Raises:
            FinishedError: the state has made its last exit.
            ConfigError: this exit cannot be made next.
        """
        if state.done:
            raise FinishedError(
                f"all {state.num_exits} exits have been made; begin again with another image."
            )
        wanted = next_exit(exit_, state.exit, self.config)
        features, logits = self.run_to(state, wanted, pause or _never_pause)
        if state.active is not None and state.logits is not None:
            logits = torch.where(state.active, logits, state.logits)
        active = state.active
        if criterion is not None:
            still = unsettled(criterion, logits.detach(), features)
            active = still if active is None else active & still
        return State(state.image_size, wanted, state.num_exits, features, logits, active)

    def forward(
        self, image: Tensor, criteria: Criterion | Sequence[Criterion | None] | None = None
    ) -> tuple[State, ...]:
        """Begin, then make all exits: what training and evaluation use.

        Args:
            image: as `begin` takes it.
            criteria: one criterion for all exits, or a sequence of one for each exit or for each
                but the last.

        Returns:
            The state after each exit.
        """
        state = self.begin(image)
        states = []
        for criterion in one_per_exit(criteria, self.config.num_exits):
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
        return at_image_size(state.logits, state.image_size, self.config.map_stride)


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of network.

    Attributes:
        build: a network of random weights from one of the family's configurations.
        read: the configuration from the entries of a manifest and the number of outputs.
        pretrain: puts published weights of another task into a network; None where there are none.
    """

    build: Callable[[Any], Network]
    read: Callable[[Mapping[str, Any], int], FamilyConfig]
    pretrain: Callable[[Network], None] | None = None


DEFAULT_FAMILY = "hrnet"
"""Of manifests that name none."""

_FAMILIES: Mapping[str, str] = {
    "hrnet": "anytime_model.networks.hrnet",
    "lite": "anytime_model.networks.lite",
    "mdeq": "anytime_model.networks.mdeq",
}
"""The package of each family, which defines `FAMILY`; it is imported when it is first asked for."""


def family(name: str) -> Family:
    """The family of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in _FAMILIES:
        raise ConfigError(f"family is {name!r}; expected one of {', '.join(map(repr, _FAMILIES))}.")
    found: Family = import_module(_FAMILIES[name]).FAMILY
    return found


def build_network(config: FamilyConfig) -> Network:
    """A network of random weights."""
    return family(config.family).build(config)


def one_per_exit(
    criteria: Criterion | Sequence[Criterion | None] | None, num_exits: int
) -> Sequence[Criterion | None]:
    """The criterion of each exit, as `Network.forward` takes them.

    Raises:
        ConfigError: another number of criteria.
    """
    if not isinstance(criteria, Sequence):
        return list(repeat(criteria, num_exits))
    if len(criteria) not in {num_exits - 1, num_exits}:
        raise ConfigError(
            f"{len(criteria)} criteria were given; expected one for each of {num_exits} exits, or "
            "for each but the last."
        )
    return [*criteria, None][:num_exits]


def initialise(module: nn.Module) -> None:
    """Random weights of a convolution before training (He et al., ICCV 2015); no other module's."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _never_pause() -> None:
    pass
