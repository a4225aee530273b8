"""The augmentation pipeline of each epoch of a recipe."""

from __future__ import annotations

from anytime_model.data.augment import PoseAugmentation, SegmentationAugmentation
from anytime_model.data.loading import Pipeline
from anytime_model.data.sample import Skeleton
from anytime_model.errors import ConfigError
from anytime_model.training.recipe import Augmentation, Recipe


class Pipelines:
    """The augmentation of each epoch, built when it is first needed.

    Args:
        recipe: says which.
        skeleton: of the data; needed for people.
    """

    def __init__(self, recipe: Recipe, skeleton: Skeleton | None) -> None:
        self._recipe = recipe
        self._skeleton = skeleton
        self._built: dict[Augmentation, Pipeline] = {}

    def __call__(self, epoch: int) -> Pipeline:
        """The pipeline of a 0-based epoch."""
        settings = self._recipe.augmentation_of(epoch)
        if settings not in self._built:
            self._built[settings] = self._build(settings)
        return self._built[settings]

    def _build(self, settings: Augmentation) -> Pipeline:
        match settings:
            case SegmentationAugmentation():
                return settings.build()
            case PoseAugmentation():
                if self._skeleton is None:
                    raise ConfigError(
                        f"{self._recipe.name} augments people; the data set has no skeleton."
                    )
                return settings.build(self._skeleton)
