"""What a recipe is: everything that makes one training what it is, as frozen values.

A recipe names no path and no device. Those that exist are in `recipes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from anytime_model.config import NetworkConfig
from anytime_model.data.augment import PoseAugmentation, SegmentationAugmentation
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
    """Adam; `decoupled` takes the weight decay out of the gradient (AdamW)."""

    rate: float
    weight_decay: float = 0.0
    decoupled: bool = False


@dataclass(frozen=True, slots=True)
class Orthogonal:
    """Muon for the convolutions, AdamW for everything else (`others`)."""

    rate: float
    others: Adam
    momentum: float = 0.95
    weight_decay: float = 0.0


Optimiser = Sgd | Adam | Orthogonal


@dataclass(frozen=True, slots=True)
class Adaptivity:
    """Confidence adaptivity during training.

    Attributes:
        thresholds: of the task's own criterion, after exits 1, 2 and 3.
        from_epoch: the first epoch that is trained with masks; negative counts from the end.
    """

    thresholds: tuple[float, float, float]
    from_epoch: int = 0

    def starts(self, epochs: int) -> int:
        """The first masked epoch of a training of so many."""
        return self.from_epoch if self.from_epoch >= 0 else max(0, epochs + self.from_epoch)


Augmentation = SegmentationAugmentation | PoseAugmentation


@dataclass(frozen=True, slots=True)
class Finish:
    """Another augmentation for the last epochs: larger pictures after a cheaper start.

    Attributes:
        epochs: how many.
        augmentation: what pictures go through then.
    """

    epochs: int
    augmentation: Augmentation


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training.

    Attributes:
        name: what `--recipe` calls it.
        data: the layout that the data's folder must have; a key of `data.catalogue.LAYOUTS`.
        split: what is trained on.
        check_split: what is scored now and then, for the curves; never the test set.
        network: the structure.
        augmentation: what pictures go through.
        loss: of one exit.
        optimiser: and its peak rate.
        schedule: factors of that rate.
        epochs: passes over the split.
        batch: samples a step, over all processes.
        steps: optimiser steps in all; None for whole epochs. The last epoch may then be cut short.
        finish: what changes for the last epochs, or None.
        exit_weights: w of equation 1.
        adaptivity: masks in training, or None.
        average: decay of the weights' average (EMA), or None.
        clip: largest norm of the gradient, or None.
        half: whether convolutions run in bfloat16 (autocast).
        seed: of initialisation, order and augmentation.
    """

    name: str
    data: str
    split: str
    check_split: str
    network: NetworkConfig
    augmentation: Augmentation
    loss: Loss
    optimiser: Optimiser
    schedule: Schedule
    epochs: int
    batch: int
    steps: int | None = None
    finish: Finish | None = None
    exit_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    adaptivity: Adaptivity | None = None
    average: float | None = None
    clip: float | None = None
    half: bool = False
    seed: int = 0

    def ending_after(self, steps_per_epoch: int) -> Recipe:
        """The same with both `steps` and `epochs` saying where it ends."""
        if self.steps is None:
            return replace(self, steps=self.epochs * steps_per_epoch)
        return replace(self, epochs=-(-self.steps // steps_per_epoch))

    def augmentation_of(self, epoch: int) -> Augmentation:
        """What pictures go through in an epoch."""
        if self.finish and epoch >= self.epochs - self.finish.epochs:
            return self.finish.augmentation
        return self.augmentation
