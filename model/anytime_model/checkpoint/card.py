"""The card of a model: everything about it but its tensors."""

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise

from anytime_model.confidence import Criterion
from anytime_model.errors import ConfigError
from anytime_model.labels import Label
from anytime_model.networks.base import FamilyConfig
from anytime_model.tasks import TASKS, Task

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Form of a model's name: it stands in URLs and file names."""


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
class Certificate:
    """Thresholds that keep a promise about masks, and what shows that they do.

    The promise: of the pixels of an answer that are settled, a share of at most `risk` has another
    class than the same model without masks gives them at its last exit. It is about the mean over
    images drawn like those that it was calibrated on, each image counting `largest_loss` at most
    (`evaluation.risk_control`). It holds for these weights, along these paths up this ladder, in
    this precision.

    Attributes:
        risk: 0 to 1, above 0.
        confidence: that the promise is kept, over all draws of images to calibrate on; 0 to 1.
        criterion: a name from the task's criteria.
        thresholds: its number after each exit but the last.
        images: how many were calibrated on.
        measured: the mean loss on them, 0 to 1.
        largest_loss: that one image can count; 1 where losses were not cut off.
        dataset: on what. Frames of one clip are not independent, so that of a video fewer images
            count than there are.
        precision: what convolutions computed in: "f32", "bf16" or "int8".
        sides: the ladder that was calibrated.
        joining: its weights.
        paths: the ways up it that were calibrated, by the numbers of their rungs.
        sha256: of the weights file, hex.
    """

    risk: float
    confidence: float
    criterion: str
    thresholds: tuple[float, ...]
    images: int
    measured: float
    largest_loss: float
    dataset: str
    precision: str
    sides: tuple[int, ...]
    joining: tuple[float, ...]
    paths: tuple[tuple[int, ...], ...]
    sha256: str

    @property
    def masking(self) -> Masking:
        """How to run the model so that the promise holds."""
        return Masking(self.criterion, self.thresholds)


@dataclass(frozen=True, slots=True)
class RungPath:
    """A way up a ladder, and how good its maps are.

    Attributes:
        rungs: numbers of the rungs that are made, rising from 1.
        quality: the metric after each of them, 0 to 1.
    """

    rungs: tuple[int, ...]
    quality: tuple[float, ...]


def may_follow(rung: int, made: int, config: FamilyConfig) -> bool:
    """Whether a rung may be made after another.

    It is the next one, or the first of a larger size; or any later one where exits may be left out.

    Args:
        rung: its number, from 1.
        made: number of the last one made, 0 for none.
        config: of the network.
    """
    if rung == made + 1:
        return True
    return rung > made and (config.may_skip_exits or (rung - 1) % config.num_exits == 0)


def is_path(rungs: tuple[int, ...], config: FamilyConfig, num_sides: int) -> bool:
    """Whether a ladder leads from its first rung along these.

    Args:
        rungs: their numbers, from 1.
        config: of the network.
        num_sides: sizes of the ladder.
    """
    if not rungs or rungs[0] != 1 or rungs[-1] > config.num_exits * num_sides:
        return False
    return all(may_follow(later, rung, config) for rung, later in pairwise(rungs))


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured on held-out data.

    Attributes:
        metric: such as "mIoU".
        per_exit: its value after each exit, 0 to 1; of a model with a ladder, after each rung, all
            of them made.
        dataset: on what.
        scale: by which factor images were enlarged before the network, where there is no ladder.
        precision: what convolutions computed in: "f32", "bf16" or "int8".
        paths: of a model with a ladder, the ways up that were measured.
    """

    metric: str
    per_exit: tuple[float, ...]
    dataset: str
    scale: float = 1.0
    precision: str = "f32"
    paths: tuple[RungPath, ...] = ()


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What the network needs to run in int8: which range of each map its bytes stand for.

    Attributes:
        ranges: least and largest value of the image and of each map of the lowered network, in the
            order in which they are computed (`engines.native.quantisation`).
        method: how they were chosen: "mse", "percentile" or "largest".
        images: how many they were measured on.
        sha256: of the weights file, hex.
        quality: what was measured in int8, on the data of the card's own quality.
        floats: parts of the network that stay in float32, as they lose too much in int8.
    """

    ranges: tuple[tuple[float, float], ...]
    method: str
    images: int
    sha256: str
    quality: Quality | None = None
    floats: tuple[str, ...] = ()


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
        sides: the ladder: lengths in px, rising, to which the longer side of every image is
            brought before the network, one after the other (see `engines.ladder`); empty to run
            images once, at the size at which they come.
        joining: weight, 0 to 1, of the smaller size's map in the mean with that of a larger size,
            for each exit of the network; a half each where none were chosen.
        masking: how to run it adaptively, or None where nothing was trained or chosen for that.
        quality: None where nothing was measured.
        int8: how to run it in int8, or None where no ranges were measured.
        certificates: promises about masks that were calibrated, by rising risk, each risk once.
        skeleton: pairs of joints that a drawing connects; empty for segmentation.
        licence: of the weights.
        description: one line.

    Raises:
        ConfigError: the name has another form.
    """

    name: str
    file: str
    sha256: str
    config: FamilyConfig
    labels: tuple[Label, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    sides: tuple[int, ...] = ()
    joining: tuple[float, ...] = ()
    masking: Masking | None = None
    quality: Quality | None = None
    int8: Quantisation | None = None
    certificates: tuple[Certificate, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = field(default=())
    licence: str = "unknown"
    description: str = ""

    def __post_init__(self) -> None:
        if NAME.fullmatch(self.name) is None:
            raise ConfigError(
                f"the model is called {self.name!r}; expected at most 128 letters, digits and "
                "._-, a letter or digit first."
            )
        if not self.joining:
            object.__setattr__(self, "joining", (0.5,) * self.config.num_exits)

    @property
    def task(self) -> Task:
        """The model's task."""
        return TASKS[self.config.task]

    @property
    def num_rungs(self) -> int:
        """Exits of the model as it is served: those of the network, at each size of the ladder."""
        return max(len(self.sides), 1) * self.config.num_exits

    def quality_in(self, precision: str) -> Quality | None:
        """What was measured in this precision, as far as it differs from float32."""
        if precision != "int8":
            return self.quality
        return None if self.int8 is None else self.int8.quality

    def with_quality(self, quality: Quality) -> "Card":
        """The card with this as what was measured in its precision."""
        if quality.precision != "int8":
            return replace(self, quality=quality)
        if self.int8 is None:
            raise ConfigError(f"{self.name} has no ranges for int8 to record a quality of.")
        return replace(self, int8=replace(self.int8, quality=quality))

    def criteria(self) -> tuple[Criterion | None, ...]:
        """One criterion for each exit, None where nothing is masked; the last exit needs none."""
        return self._criteria(self.masking)

    def rung_criteria(self, risk: float | None = None) -> tuple[Criterion | None, ...]:
        """One criterion for each rung of the ladder.

        The last exit at a size is judged like the one before it, as its map starts the next size.

        Args:
            risk: of the certificate whose masks to use, 0 for no masks; None for `masking`.

        Raises:
            ConfigError: there is no certificate for this risk.
        """
        criteria = self._criteria(self.masking if risk is None else self._promised(risk))
        return (*criteria[:-1], criteria[-2]) * max(len(self.sides), 1)

    def _promised(self, risk: float) -> Masking | None:
        if not risk:
            return None
        for certificate in self.certificates:
            if certificate.risk == risk:
                return certificate.masking
        raise ConfigError(
            f"{self.name} has no certificate for a risk of {risk:g}; make one with "
            "`anytime-model calibrate`."
        )

    def _criteria(self, masking: Masking | None) -> tuple[Criterion | None, ...]:
        if masking is None:
            return (None,) * self.config.num_exits
        return (*(self.task.criterion(masking.criterion, t) for t in masking.thresholds), None)
