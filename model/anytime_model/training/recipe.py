"""The settings of a training, as frozen values, without paths and devices.

`recipes` holds those that exist.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from anytime_model.data.augment import PoseAugmentation, SegmentationAugmentation
from anytime_model.networks.base import FamilyConfig
from anytime_model.training.losses import Loss
from anytime_model.training.schedules import Schedule


@dataclass(frozen=True, slots=True)
class Sgd:
    """Stochastic gradient descent with momentum."""

    rate: float
    momentum: float = 0.9
    weight_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam; `decoupled` takes the weight decay out of the gradient (AdamW).

    The stages' rate is `rate` times `stages`: less than the exits' where they are pretrained.
    """

    rate: float
    weight_decay: float = 0.0
    decoupled: bool = False
    stages: float = 1.0


@dataclass(frozen=True, slots=True)
class MuonSettings:
    """Muon for the convolutions, AdamW for everything else (`others`)."""

    rate: float
    others: Adam
    momentum: float = 0.95
    weight_decay: float = 0.0


Optimiser = Sgd | Adam | MuonSettings


@dataclass(frozen=True, slots=True)
class Adaptivity:
    """Confidence adaptivity during training.

    Attributes:
        thresholds: of the task's first criterion, after each exit but the last.
        from_epoch: the first epoch that is trained with masks; negative counts from the end.
    """

    thresholds: tuple[float, ...]
    from_epoch: int = 0

    def starts(self, epochs: int) -> int:
        """The first masked epoch of a training of so many."""
        return self.from_epoch if self.from_epoch >= 0 else max(0, epochs + self.from_epoch)


Augmentation = SegmentationAugmentation | PoseAugmentation


@dataclass(frozen=True, slots=True)
class LastEpochs:
    """Another augmentation for the last epochs: larger images after a cheaper start.

    Attributes:
        epochs: how many.
        augmentation: what images go through then.
    """

    epochs: int
    augmentation: Augmentation


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training.

    Attributes:
        name: what `--recipe` calls it.
        data: the layout that the data's folder must have; a key of `data.registry.LAYOUTS`.
        split: what is trained on.
        check_split: what is scored now and then, for the curves; never the test set.
        network: the structure.
        augmentation: what images go through.
        loss: of one exit.
        optimiser: and its peak rate.
        schedule: factors of that rate.
        epochs: passes over the split.
        batch: samples a step, over all processes.
        steps: optimiser steps in all; None for whole epochs. The last epoch may then be cut short.
        last_epochs: what changes for the last epochs, or None.
        ladder: sizes at which the model is to be served, see `Card.sides`. Empty is the size of
            the last epochs for a task of fixed size, and images as they come for others.
        exit_weights: w of equation 1, one for each exit; empty means 1 for all.
        adaptivity: masks in training, or None.
        average: decay of the weights' average (EMA), or None.
        clip: largest norm of the gradient, or None.
        half: whether convolutions run in bfloat16 (autocast).
        pretrained: whether to start from the weights that the network's family has published
            elsewhere for its backbone (`Family.pretrain`), instead of random ones.
        taught: weight of the soft targets of a teacher, which the training is then given
            (`run(teacher=...)`), or 0.
        keypoints: whether the labels are merged with key points that another network has found,
            which the training is then given (`run(keypoints=...)`).
        seed: of initialisation, order and augmentation.
    """

    name: str
    data: str
    split: str
    check_split: str
    network: FamilyConfig
    augmentation: Augmentation
    loss: Loss
    optimiser: Optimiser
    schedule: Schedule
    epochs: int
    batch: int
    steps: int | None = None
    last_epochs: LastEpochs | None = None
    ladder: tuple[int, ...] = ()
    exit_weights: tuple[float, ...] = ()
    adaptivity: Adaptivity | None = None
    average: float | None = None
    clip: float | None = None
    half: bool = False
    pretrained: bool = False
    taught: float = 0.0
    keypoints: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.exit_weights:
            object.__setattr__(self, "exit_weights", (1.0,) * self.network.num_exits)

    def ending_after(self, steps_per_epoch: int) -> Recipe:
        """The same with both `steps` and `epochs` saying where it ends."""
        if self.steps is None:
            return replace(self, steps=self.epochs * steps_per_epoch)
        return replace(self, epochs=-(-self.steps // steps_per_epoch))

    def augmentation_of(self, epoch: int) -> Augmentation:
        """What images go through in an epoch."""
        if self.last_epochs and epoch >= self.epochs - self.last_epochs.epochs:
            return self.last_epochs.augmentation
        return self.augmentation
