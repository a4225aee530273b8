"""Fine-tuning on any data set that can be read: recipes that the data complete.

The task, the outputs, the size of crops, the number of epochs and the ladder come from the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from anytime_model.data.augment import PoseAugmentation, SegmentationAugmentation
from anytime_model.data.loading import steps_per_epoch
from anytime_model.data.registry import open_layout, recognise
from anytime_model.data.sample import SampleSource
from anytime_model.networks.base import FamilyConfig
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.networks.lite.config import LiteConfig
from anytime_model.tasks import TASKS, TaskName
from anytime_model.training.losses import CrossEntropy, HeatmapError, Loss
from anytime_model.training.recipe import Adam, Adaptivity, Augmentation, Recipe
from anytime_model.training.schedules import Poly

EPOCHS: Final = 30
STEPS: Final = (1500, 8000)
"""Fewest and most steps that `EPOCHS` may come to; there are more or fewer epochs then."""
CROP_SHARE: Final = 0.7
"""Sides of crops as a share of the images'."""
LARGEST_CROP: Final = 512
_CROP_STEP = 32
_MEASURED = 20


@dataclass(frozen=True, slots=True)
class FineTuning:
    """A recipe without what depends on the data.

    Attributes:
        name: what `--recipe` calls it.
        network: the structure for a number of outputs and a task.
        masked: thresholds of the masks in the last fifth of the training, by task; none if empty.
    """

    name: str
    network: Callable[[int, TaskName], FamilyConfig]
    masked: tuple[tuple[TaskName, float], ...] = ()

    def recipe(self, data: Path) -> Recipe:
        """The recipe for a data set, trained on its split train and checked on val.

        Maps of classes are served at half and at all of the images' size; joints at the size of
        their crops.

        Raises:
            DataError: the folder holds no data set, or one that cannot be read.
        """
        layout = recognise(data)
        source = open_layout(layout, data, "train")
        task = TASKS[source.task]
        size, side = _typical_size(source)
        batch = 8 if task.has_classes else 16
        per_epoch = steps_per_epoch(len(source), batch)
        epochs = -(-min(max(EPOCHS * per_epoch, STEPS[0]), STEPS[1]) // per_epoch)
        network = self.network(len(source.outputs), source.task)
        early = network.num_exits - 1
        augmentation: Augmentation
        loss: Loss
        if task.has_classes:
            augmentation = SegmentationAugmentation(_crop(size), (0.4, 1.6), colour=0.4, blur=0.1)
            loss = CrossEntropy(strides=(4,) * early + (2,), balance=True, overlap=1.0)
            ladder: tuple[int, ...] = (side // 2, side)
        else:
            augmentation = PoseAugmentation(
                (side, side), 0.25, 30.0, 0.6, 0.06, colour=0.3, blur=0.1
            )
            loss = HeatmapError(sigma=1.5, localisation=0.002)
            ladder = (side,)
        adaptivity = None
        if self.masked:
            threshold = dict(self.masked)[source.task]
            adaptivity = Adaptivity((threshold,) * early, from_epoch=-max(1, epochs // 5))
        return Recipe(
            name=self.name,
            data=layout,
            split="train",
            check_split="val",
            network=network,
            augmentation=augmentation,
            loss=loss,
            optimiser=Adam(1.5e-3, weight_decay=0.02, decoupled=True, stages=0.3),
            schedule=Poly(warmup_steps=50),
            epochs=epochs,
            batch=batch,
            ladder=ladder,
            adaptivity=adaptivity,
            average=0.99,
            clip=5.0,
            pretrained=True,
        )


FINE_TUNINGS = {
    tuning.name: tuning
    for tuning in (
        FineTuning("finetune-lite", lambda outputs, task: LiteConfig("lite0", outputs, task)),
        FineTuning(
            "finetune-w18",
            lambda outputs, task: NetworkConfig("w18", outputs, task),
            masked=(("segmentation", 0.98), ("pose", 0.01)),
        ),
    )
}


def _typical_size(source: SampleSource) -> tuple[tuple[int, int], int]:
    """Median (H, W) of some images, and the longest side of any, px."""
    step = -(-len(source) // _MEASURED)
    sizes = np.array([source[i].image.shape[:2] for i in range(0, len(source), step)])
    height, width = np.median(sizes, axis=0)
    return (int(height), int(width)), int(sizes.max())


def _crop(size: tuple[int, int]) -> tuple[int, int]:
    height, width = (
        min(-(-round(CROP_SHARE * n) // _CROP_STEP) * _CROP_STEP, LARGEST_CROP) for n in size
    )
    return height, width
