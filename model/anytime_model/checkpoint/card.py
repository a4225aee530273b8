"""The card of a model: everything about it but its tensors."""

from dataclasses import dataclass, field

from anytime_model.confidence import Criterion
from anytime_model.labels import Label
from anytime_model.networks.base import FamilyConfig
from anytime_model.tasks import TASKS, Task

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Masking:
    """Confidence adaptivity as the model is meant to be run.

    Attributes:
        criterion: a name from the task's criteria.
        thresholds: its number after each exit but the last.
    """

    criterion: str
    thresholds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured on held-out data.

    Attributes:
        metric: such as "mIoU".
        per_exit: its value after each exit, 0 to 1.
        dataset: on what.
        scale: by which factor images were enlarged before the network.
    """

    metric: str
    per_exit: tuple[float, ...]
    dataset: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Card:
    """Everything about a model but its tensors.

    Attributes:
        name: by which clients ask for it.
        file: weights file, relative to the manifest.
        sha256: of that file, hex.
        config: the network: its family's configuration.
        labels: one for each output, in order.
        mean: normalisation: subtracted from RGB in 0 to 1.
        std: normalisation: divided by afterwards.
        input_side: length that the longer side of images is brought to before the network, px;
            None to run them at the size at which they come.
        masking: how to run it adaptively, or None where nothing was trained or chosen for that.
        quality: None where nothing was measured.
        skeleton: pairs of joints that a drawing connects; empty for segmentation.
        licence: of the weights.
        description: one line.
    """

    name: str
    file: str
    sha256: str
    config: FamilyConfig
    labels: tuple[Label, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    input_side: int | None = None
    masking: Masking | None = None
    quality: Quality | None = None
    skeleton: tuple[tuple[int, int], ...] = field(default=())
    licence: str = "unknown"
    description: str = ""

    @property
    def task(self) -> Task:
        """The model's task."""
        return TASKS[self.config.task]

    def criteria(self) -> tuple[Criterion | None, ...]:
        """One criterion for each exit, None where nothing is masked; the last exit needs none."""
        if self.masking is None:
            return (None,) * self.config.num_exits
        name = self.masking.criterion
        return (*(self.task.criterion(name, t) for t in self.masking.thresholds), None)
