"""The tasks, segmentation and pose: everything that differs between them, in one object each.

Other modules ask a task and never which one it is: its confidence and criteria, what the heads of
a network need, how a map is decoded, how it is trained and which metric scores it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_model import confidence
from anytime_model.confidence import Criterion
from anytime_model.errors import ConfigError
from anytime_model.ops import upsample
from anytime_model.results import Decoded, ExitResult, Keypoints, SegmentationMap

TaskName = Literal["segmentation", "pose"]
Size = tuple[int, int]
ClassDecoder = Callable[[ExitResult], NDArray[np.uint8]]


class Metric(Enum):
    """How a task is scored: the name of its score and of the second number beside it."""

    MEAN_IOU = ("mIoU", "pixel accuracy", "class")
    PCKH = ("PCKh@0.5", "PCK@0.2 torso", "joint")

    def __init__(self, label: str, second_label: str, output_label: str) -> None:
        self.label = label
        self.second_label = second_label
        self.output_label = output_label


class Task(ABC):
    """One kind of dense prediction.

    Attributes:
        name: "segmentation" or "pose".
        metric: how its results are scored.
        default_outputs: number of outputs of the data set that the paper uses for it.
        criteria: the criteria that make sense for it, by name, each built from one number (a
            threshold or a share). The first is the paper's.
        thresholds: numbers of the first criterion to try on held-out data, from the one that masks
            least to the one that masks most.
        probabilistic: whether a map is class logits, so that its softmax is a probability: then
            temperatures and the expected calibration error make sense.
        combines_branches: whether the last exit reads all branches of a multi-resolution backbone,
            or the finest alone.
        largest_head_width: bound on the channels inside an early exit, or None.
        initial_head_std: standard deviation of the last convolution's first weights in training,
            or None for the network's own initialisation.
        check_batch: images of one data set that can be scored at a time; 1 where sizes differ.
        fixed_input_size: whether its images are brought to the size that it was trained at.
        has_classes: whether a map decodes to the class of every pixel, or to joints.
    """

    name: ClassVar[TaskName]
    metric: ClassVar[Metric]
    default_outputs: ClassVar[int]
    criteria: ClassVar[Mapping[str, Callable[[float], Criterion]]]
    thresholds: ClassVar[tuple[float, ...]]
    probabilistic: ClassVar[bool]
    combines_branches: ClassVar[bool]
    largest_head_width: ClassVar[int | None]
    initial_head_std: ClassVar[float | None]
    check_batch: ClassVar[int]
    fixed_input_size: ClassVar[bool]
    has_classes: ClassVar[bool]

    @property
    def first_criterion(self) -> str:
        """Name of the paper's criterion for this task."""
        return next(iter(self.criteria))

    def criterion(self, name: str, value: float) -> Criterion:
        """The criterion `name` with its threshold or share.

        Raises:
            ConfigError: there is no such criterion for this task, or the value is out of range.
        """
        if name not in self.criteria:
            raise ConfigError(
                f"{name!r} is no criterion for {self.name}; expected one of "
                f"{', '.join(self.criteria)}."
            )
        return self.criteria[name](value)

    def head_width(self, widest: int) -> int:
        """Channels inside an early exit of a network whose own choice is `widest`."""
        largest = self.largest_head_width
        return widest if largest is None else min(largest, widest)

    @abstractmethod
    def settle_all(self) -> Criterion:
        """A criterion after which no position is active, whatever the map."""

    @abstractmethod
    def confidence(self, logits: Tensor) -> Tensor:
        """A map (B, K, h, w) to its confidence (B, 1, h, w)."""

    @abstractmethod
    def normalised(self, logits: Tensor) -> Tensor:
        """A map in the form in which maps of several image sizes are joined, (B, K, h, w)."""

    def join(self, smaller: Tensor, larger: Tensor, share: float) -> Tensor:
        """One map of two, made at two sizes of the same image: their weighted mean, normalised.

        Args:
            smaller: normalised map of the smaller image, resized to the larger one's.
            larger: (B, K, h, w), the map of the larger image.
            share: weight of the smaller one, 0 to 1.
        """
        return torch.lerp(self.normalised(larger), smaller, share)

    @abstractmethod
    def decode(self, result: ExitResult, decode_classes: ClassDecoder | None = None) -> Decoded:
        """A map at the size of the image.

        Args:
            result: the map.
            decode_classes: an engine's own way to the classes (H, W) uint8 of a result, or None.
        """

    @abstractmethod
    def labels_on_map(self, result: ExitResult) -> NDArray[np.uint8] | None:
        """Class of each cell of the map inside the image, (h, w), or None without classes."""

    @abstractmethod
    def mean_confidence(self, result: ExitResult) -> float:
        """One number for how sure a result is, 0 to 1."""

    @abstractmethod
    def crop(self, logits: Tensor, image_size: Size, size: Size, map_stride: int) -> Tensor:
        """A map as it is scored.

        Args:
            logits: (B, K, h, w) float32 for the padded image that the network ran on.
            image_size: (H, W) of that image before padding, px.
            size: (H, W) of the image as the data set has it, px.
            map_stride: px of the network's image for each cell of the map.

        Returns:
            For classes, logits (B, K, *size); for joints, heat-maps of the cells in the image.
        """

    @abstractmethod
    def flip(self, scored: Tensor, swap: tuple[int, ...] | None) -> Tensor:
        """Mirror a map from `crop`.

        Args:
            scored: (B, K, h, w).
            swap: for each joint, which one it becomes in a mirrored image.
        """


class Segmentation(Task):
    """Class logits for every pixel."""

    name = "segmentation"
    metric = Metric.MEAN_IOU
    default_outputs = 19
    criteria = MappingProxyType(
        {
            "max_probability": confidence.MaximumProbability,
            "entropy": confidence.Entropy,
            "margin": confidence.Margin,
            "top_share": confidence.TopShare,
            "random": confidence.RandomShare,
        }
    )
    thresholds = (0.998, 0.99, 0.98, 0.95, 0.9)
    probabilistic = True
    combines_branches = True
    largest_head_width = None
    initial_head_std = None
    check_batch = 1
    fixed_input_size = False
    has_classes = True

    def settle_all(self) -> Criterion:
        """See `Task`: no probability is below 0."""
        return confidence.MaximumProbability(-1.0)

    def confidence(self, logits: Tensor) -> Tensor:
        """Largest probability, 1/K to 1."""
        return confidence.maximum_probability(logits)

    def normalised(self, logits: Tensor) -> Tensor:
        """Logarithms of the classes' probabilities."""
        return logits.float().log_softmax(dim=1)

    def decode(
        self, result: ExitResult, decode_classes: ClassDecoder | None = None
    ) -> SegmentationMap:
        """The class of every pixel."""
        if decode_classes is not None:
            return SegmentationMap(decode_classes(result))
        labels = decode_labels(_batch_of(result), result.image_size, result.map_stride)
        return SegmentationMap(labels[0].numpy())

    def labels_on_map(self, result: ExitResult) -> NDArray[np.uint8]:
        """Class of each cell of the map inside the image, (h, w)."""
        rows, columns = result.inside
        labels: NDArray[np.uint8] = result.logits[:, rows, columns].argmax(axis=0).astype(np.uint8)
        return labels

    def mean_confidence(self, result: ExitResult) -> float:
        """Mean of the confidence over the image, 0 to 1."""
        return min(max(result.mean_confidence, 0.0), 1.0)

    def crop(self, logits: Tensor, image_size: Size, size: Size, map_stride: int) -> Tensor:
        """Logits at the size of the data set's image."""
        full = at_image_size(logits, image_size, map_stride)
        return full if image_size == size else upsample(full, size)

    def flip(self, scored: Tensor, swap: tuple[int, ...] | None) -> Tensor:  # noqa: ARG002
        """The mirrored map; classes stay."""
        return scored.flip(-1)


class Pose(Task):
    """One heat-map a joint, of the one person in the image."""

    name = "pose"
    metric = Metric.PCKH
    default_outputs = 16
    criteria = MappingProxyType(
        {"heatmap_maximum": confidence.HeatmapMaximum, "random": confidence.RandomShare}
    )
    thresholds = (0.001, 0.002, 0.005, 0.01, 0.02)
    probabilistic = False
    combines_branches = False
    largest_head_width = 64
    initial_head_std = 0.001
    check_batch = 25
    fixed_input_size = True
    has_classes = False

    def settle_all(self) -> Criterion:
        """See `Task`: no heat-map reaches 1e9."""
        return confidence.HeatmapMaximum(1e9)

    def confidence(self, logits: Tensor) -> Tensor:
        """Largest value over the joints."""
        return confidence.heatmap_maximum(logits)

    def normalised(self, logits: Tensor) -> Tensor:
        """Heat-maps as they are."""
        return logits.float()

    def decode(
        self,
        result: ExitResult,
        decode_classes: ClassDecoder | None = None,  # noqa: ARG002
    ) -> Keypoints:
        """The joints."""
        points = decode_keypoints(_batch_of(result), result.image_size, result.map_stride)
        return Keypoints(points[0].numpy())

    def labels_on_map(self, result: ExitResult) -> None:
        """None: a pose has no classes."""

    def mean_confidence(self, result: ExitResult) -> float:
        """Mean over the joints of the heat-maps' peaks inside the image, each clipped to 0..1.

        The mean of the confidence map would mostly measure background.
        """
        peaks = result.logits[:, *result.inside].max(axis=(1, 2))
        return float(peaks.clip(0.0, 1.0).mean())

    def crop(
        self,
        logits: Tensor,
        image_size: Size,
        size: Size,  # noqa: ARG002
        map_stride: int,
    ) -> Tensor:
        """Heat-maps of the cells in the image."""
        rows, columns = (-(-n // map_stride) for n in image_size)
        return logits[..., :rows, :columns]

    def flip(self, scored: Tensor, swap: tuple[int, ...] | None) -> Tensor:
        """The mirrored map, with left and right joints exchanged."""
        back = scored.flip(-1)
        return back if swap is None else back[:, list(swap)]


SEGMENTATION = Segmentation()
POSE = Pose()
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in (SEGMENTATION, POSE)})


def _batch_of(result: ExitResult) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(result.logits)).unsqueeze(0)


def at_image_size(logits: Tensor, image_size: Size, map_stride: int) -> Tensor:
    """A map at the size of the image: (B, K, H, W), bilinear, padding cropped.

    Args:
        logits: (B, K, h, w) for the padded image.
        image_size: (H, W), px.
        map_stride: px of the image for each cell of the map.
    """
    height, width = image_size
    full = upsample(logits, (map_stride * logits.shape[-2], map_stride * logits.shape[-1]))
    return full[..., :height, :width]


def decode_labels(logits: Tensor, image_size: Size, map_stride: int) -> Tensor:
    """Class of every pixel: bilinear upsampling, cropped to the image, then the largest logit.

    Args:
        logits: (B, K, h, w) for the padded image.
        image_size: (H, W), px.
        map_stride: px of the image for each cell of the map.

    Returns:
        (B, H, W) uint8.
    """
    return at_image_size(logits, image_size, map_stride).argmax(dim=1).to(torch.uint8)


def decode_keypoints(heatmaps: Tensor, image_size: Size, map_stride: int) -> Tensor:
    """Joints at the peaks of their heat-maps, moved a quarter cell towards the higher neighbour.

    The quarter step is HRNet's (Sun et al., CVPR 2019). With a stride of 4, cell u of a map covers
    the image from 4u to 4u + 3, so its centre lies at 4u + 1.5.

    Args:
        heatmaps: (B, J, h, w) for the padded image.
        image_size: (H, W), px; peaks in the padding are not looked at.
        map_stride: px of the image for each cell of the map.

    Returns:
        (B, J, 3) float32: x, y in image px (pixel centres at integers), and the peak's value.
    """
    height, width = image_size
    inside = heatmaps[..., : -(-height // map_stride), : -(-width // map_stride)].float()
    rows, columns = inside.shape[-2:]
    score, index = inside.flatten(2).max(dim=2)
    y, x = index // columns, index % columns
    flat = inside.flatten(2)

    def value(row: Tensor, column: Tensor) -> Tensor:
        at = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
        return flat.gather(2, at.unsqueeze(2)).squeeze(2)

    step_x = 0.25 * torch.sign(value(y, x + 1) - value(y, x - 1))
    step_y = 0.25 * torch.sign(value(y + 1, x) - value(y - 1, x))
    px = to_image(x + step_x, map_stride).clamp(0, width - 1)
    py = to_image(y + step_y, map_stride).clamp(0, height - 1)
    return torch.stack([px, py, score], dim=2)


def to_image(u: Tensor, map_stride: int) -> Tensor:
    """Heat-map coordinate to image px."""
    return (u + 0.5) * map_stride - 0.5


def to_heatmap(x: Tensor, map_stride: int) -> Tensor:
    """Image px to heat-map coordinate; inverse of `to_image`."""
    return (x + 0.5) / map_stride - 0.5
